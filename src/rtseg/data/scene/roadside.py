"""What stands beside the road: trees, hedges, walls, fences, poles, signs and traffic lights."""

from __future__ import annotations

import math

import numpy as np

from rtseg.data.scene.canvas import (
    Board,
    Camera,
    Canvas,
    Color,
    Item,
    Point,
    between,
    pick,
    tint,
)

LEAVES: tuple[Color, ...] = (
    (70, 98, 44),
    (54, 84, 38),
    (92, 112, 48),
    (48, 76, 46),
    (118, 112, 50),
)
BARK: tuple[Color, ...] = ((74, 60, 46), (92, 80, 66), (58, 50, 42))
STEEL: tuple[Color, ...] = ((112, 116, 120), (84, 88, 90), (140, 142, 140), (66, 76, 70))
STONE: tuple[Color, ...] = ((150, 144, 136), (136, 84, 66), (176, 168, 152), (118, 116, 114))
LAMP_RED: Color = (255, 60, 40)
LAMP_AMBER: Color = (255, 190, 40)
LAMP_GREEN: Color = (60, 240, 130)


def _square(x: float, z: float, half: float) -> tuple[Point, ...]:
    """Return the corners (X, Z) of a square footprint."""
    return ((x - half, z - half), (x - half, z + half), (x + half, z + half), (x + half, z - half))


def _blob(board: Board, u: float, v: float, radii: Point, edge: list[float]) -> list[Point]:
    """Return a ragged ellipse; `edge` holds the relative radius at equal angles."""
    step = 2.0 * math.pi / len(edge)
    return [
        board.at(u + radii[0] * r * math.cos(k * step), v + radii[1] * r * math.sin(k * step))
        for k, r in enumerate(edge)
    ]


def tree(camera: Camera, s: float, z: float, rng: np.random.Generator) -> Item:
    """Return a tree at road coordinates (`s`, `z`): round, or a conifer."""
    board = Board(camera, camera.along(s, z), z)
    height, leaf, bark = between(rng, 4.5, 10.0), pick(rng, LEAVES), pick(rng, BARK)
    conifer = rng.random() < 0.18
    radius = height * (between(rng, 0.16, 0.22) if conifer else between(rng, 0.26, 0.4))
    trunk = 0.018 * height + 0.08
    bole = height * between(rng, 0.25, 0.36)
    lobes = rng.random((5, 3)).tolist()
    edges = (0.86 + 0.28 * rng.random((5, 18))).tolist()

    def paint(canvas: Canvas) -> None:
        code = canvas.stuff("vegetation", z, grain=0.12, mottle=0.17)
        stem = board.path(
            [(-trunk, 0.0), (-0.6 * trunk, 0.6 * height), (0.6 * trunk, 0.6 * height), (trunk, 0.0)]
        )
        canvas.polygon(code, stem, bark)
        canvas.detail(
            board.path(
                [
                    (0.2 * trunk, 0.0),
                    (0.1 * trunk, 0.6 * height),
                    (0.6 * trunk, 0.6 * height),
                    (trunk, 0.0),
                ]
            ),
            tint(bark, 0.8),
        )
        if conifer:
            for level in range(4):
                low, wide = (0.12 + 0.2 * level) * height, radius * (1.0 - 0.2 * level)
                cone = [
                    (-wide, low),
                    (-0.5 * wide, low - 0.03 * height),
                    (0.4 * wide, low - 0.02 * height),
                    (wide, low),
                    (0.0, low + 0.34 * height),
                ]
                canvas.polygon(code, board.path(cone), tint(leaf, 0.72 + 0.08 * level))
            return
        middle = 0.5 * (bole + height)
        tall = 0.5 * (height - bole)
        canvas.polygon(code, _blob(board, 0.0, middle, (radius, tall), edges[0]), tint(leaf, 0.78))
        for (across, up, size), edge in zip(lobes, edges, strict=True):
            u, v = radius * (1.5 * across - 0.75), middle + tall * (1.2 * up - 0.55)
            r = radius * (0.34 + 0.22 * size)
            light = 0.8 + 0.22 * up + 0.12 * canvas.sun * (2.0 * across - 1.0)
            canvas.polygon(code, _blob(board, u, v, (r, 0.85 * r), edge), tint(leaf, light))

    return Item(z, paint, _square(board.x, z, 0.6 * radius), 0.7 * height)


def bush(camera: Camera, s: float, z: float, rng: np.random.Generator) -> Item:
    """Return a bush at road coordinates (`s`, `z`)."""
    board = Board(camera, camera.along(s, z), z)
    radius, leaf = between(rng, 0.6, 1.5), pick(rng, LEAVES)
    edges = (0.8 + 0.35 * rng.random((3, 16))).tolist()

    def paint(canvas: Canvas) -> None:
        code = canvas.stuff("vegetation", z, grain=0.13, mottle=0.15)
        for index, edge in enumerate(edges):
            u = radius * (0.55 * index - 0.55)
            blob = _blob(board, u, 0.5 * radius, (0.75 * radius, 0.62 * radius), edge)
            canvas.polygon(code, blob, tint(leaf, 0.76 + 0.12 * index))

    return Item(z, paint, _square(board.x, z, radius), radius)


def barrier(
    camera: Camera,
    kind: str,
    s: float,
    z0: float,
    z1: float,
    height: float,
    color: Color,
    rng: np.random.Generator,
) -> Item:
    """Return a piece of wall, fence, guard rail or hedge along the road from `z0` to `z1`.

    Args:
        kind: `wall`, `fence`, `rail` or `hedge`.
    """
    ragged = (rng.random(7) * 0.14).tolist()
    stations = np.linspace(z0, z1, 7).tolist()
    ground = [(camera.along(s, z), z) for z in stations]

    def strip(low: float, high: float) -> list[Point]:
        foot = [camera.project(x, low, z) for x, z in ground]
        return foot + [camera.project(x, high, z) for x, z in reversed(ground)]

    def paint(canvas: Canvas) -> None:
        light = 0.9 - 0.12 * canvas.sun * math.copysign(1.0, s)
        paints = {"wall": _wall, "fence": _fence, "rail": _guard_rail}
        if kind == "hedge":
            code = canvas.stuff("vegetation", z0, grain=0.14, mottle=0.1)
            foot = [camera.project(x, 0.0, z) for x, z in ground]
            top = [
                camera.project(x, height + r, z) for (x, z), r in zip(ground, ragged, strict=True)
            ]
            canvas.polygon(code, foot + top[::-1], tint(color, light))
            mid = [camera.project(x, 0.5 * height, z) for x, z in ground]
            canvas.detail(foot + mid[::-1], tint(color, 0.8 * light))
            return
        paints[kind](canvas, strip, ground, height, tint(color, light))

    return Item(z1, paint, tuple((x, z) for x, z in (ground[0], ground[-1])), height)


def _wall(canvas: Canvas, strip, ground: list[Point], height: float, color: Color) -> None:  # type: ignore[no-untyped-def]
    code = canvas.stuff("wall", ground[0][1], grain=0.06, mottle=0.06)
    canvas.polygon(code, strip(0.0, height), color)
    if canvas.camera.focal / ground[0][1] > 12.0:
        for level in np.arange(0.4, height - 0.2, 0.4).tolist():
            canvas.detail(strip(level, level + 0.035), tint(color, 0.82))
    canvas.detail(strip(height - 0.14, height), tint(color, 1.14))


def _fence(canvas: Canvas, strip, ground: list[Point], height: float, color: Color) -> None:  # type: ignore[no-untyped-def]
    code = canvas.stuff("fence", ground[0][1], grain=0.05, mottle=0.04)
    canvas.polygon(code, strip(0.0, height), tint(color, 0.5))
    camera = canvas.camera
    half = 0.045
    for (xa, za), (xb, zb) in zip(ground, ground[1:], strict=False):
        count = 5 if camera.focal / za > 14.0 else 2
        for k in range(count):
            share = k / count
            x, z = xa + share * (xb - xa), za + share * (zb - za)
            wide = (xb - xa) * half / 0.4, (zb - za) * half / 0.4
            picket = [camera.project(x, 0.06, z), camera.project(x, height, z)]
            far = [
                camera.project(x + wide[0], height, z + wide[1]),
                camera.project(x + wide[0], 0.06, z + wide[1]),
            ]
            canvas.detail(picket + far, color)
    for level in (0.22, height - 0.16):
        canvas.detail(strip(level, level + 0.1), tint(color, 1.08))


def _guard_rail(canvas: Canvas, strip, ground: list[Point], height: float, color: Color) -> None:  # type: ignore[no-untyped-def]
    code = canvas.stuff("fence", ground[0][1], grain=0.03, mottle=0.03)
    camera = canvas.camera
    canvas.polygon(code, strip(0.3 * height, height), color)
    canvas.detail(strip(0.58 * height, 0.7 * height), tint(color, 0.66))
    canvas.detail(strip(0.9 * height, height), tint(color, 1.15))
    for x, z in ground[::2]:
        foot = [
            camera.project(x - 0.07, 0.0, z),
            camera.project(x - 0.07, height, z),
            camera.project(x + 0.07, height, z),
            camera.project(x + 0.07, 0.0, z),
        ]
        canvas.polygon(code, foot, tint(color, 0.75))


def _post(canvas: Canvas, board: Board, height: float, width: float, color: Color) -> None:
    """Paint an upright pole of `height` and `width` in metres; never thinner than two pixels."""
    code = canvas.stuff("pole", board.z, grain=0.03, mottle=0.02)
    half = max(width / 2, 1.0 / board.scale)
    canvas.polygon(
        code, board.path([(-half, 0.0), (-half, height), (half, height), (half, 0.0)]), color
    )
    canvas.detail(
        board.path([(0.3 * half, 0.0), (0.3 * half, height), (half, height), (half, 0.0)]),
        tint(color, 0.75),
    )


def lamp_post(camera: Camera, s: float, z: float, rng: np.random.Generator, *, lit: bool) -> Item:
    """Return a street lamp whose arm reaches over the road."""
    board = Board(camera, camera.along(s, z), z)
    height, color, reach = between(rng, 5.0, 7.5), pick(rng, STEEL), -math.copysign(1.7, s)

    def paint(canvas: Canvas) -> None:
        _post(canvas, board, height, 0.26, color)
        code = len(canvas.regions) - 1
        arm = board.path([(0.0, height - 0.1), (0.4 * reach, height + 0.3), (reach, height + 0.35)])
        canvas.limb(code, arm, max(0.13 * board.scale, 2.0), color)
        head = [
            (reach - 0.4, height + 0.3),
            (reach - 0.4, height + 0.5),
            (reach + 0.4, height + 0.5),
            (reach + 0.4, height + 0.3),
        ]
        canvas.polygon(code, board.path(head), tint(color, 0.8))
        if lit:
            canvas.lamp(code, board.at(reach, height + 0.3), 0.16 * board.scale, (255, 214, 150))

    return Item(z, paint, _square(board.x, z, 0.15), height)


def traffic_light(
    camera: Camera, s: float, z: float, rng: np.random.Generator, *, cantilever: bool
) -> Item:
    """Return a traffic light on its pole, with a second one above the road if `cantilever`."""
    board = Board(camera, camera.along(s, z), z)
    color, state = pick(rng, STEEL), int(rng.integers(3))
    reach = -math.copysign(between(rng, 2.6, 4.2), s)
    low = between(rng, 2.3, 2.9)

    def paint(canvas: Canvas) -> None:
        height = 5.6 if cantilever else low + 1.3
        _post(canvas, board, height, 0.24, color)
        if cantilever:
            code = len(canvas.regions) - 1
            arm = board.path([(0.0, height - 0.1), (reach, height + 0.1)])
            canvas.limb(code, arm, max(0.16 * board.scale, 2.0), color)
            _signal(canvas, board, reach, height - 0.9, state)
        _signal(canvas, board, 0.0, low, state)

    return Item(z, paint, _square(board.x, z, 0.15), 4.0)


def _signal(canvas: Canvas, board: Board, u: float, low: float, state: int) -> None:
    """Paint the housing and the three lamps; `state` 0, 1, 2 is red, amber, green."""
    code = canvas.stuff("traffic light", board.z, grain=0.02, mottle=0.02)
    plate = [
        (u - 0.34, low - 0.08),
        (u - 0.34, low + 1.33),
        (u + 0.34, low + 1.33),
        (u + 0.34, low - 0.08),
    ]
    canvas.polygon(code, board.path(plate), (24, 26, 26))
    case = [(u - 0.22, low), (u - 0.22, low + 1.25), (u + 0.22, low + 1.25), (u + 0.22, low)]
    canvas.detail(board.path(case), (46, 48, 46))
    for index, color in enumerate((LAMP_RED, LAMP_AMBER, LAMP_GREEN)):
        center = board.at(u, low + 1.04 - 0.41 * index)
        if index == state:
            canvas.lamp(code, center, 0.18 * board.scale, color)
        else:
            canvas.disc(code, center, 0.16 * board.scale, tint(color, 0.22))


def sign(camera: Camera, s: float, z: float, rng: np.random.Generator) -> Item:
    """Return one or two traffic signs on a pole."""
    board = Board(camera, camera.along(s, z), z)
    kind = pick(rng, ("prohibition", "warning", "blue", "square", "stop", "priority"))
    second, color = rng.random() < 0.3, pick(rng, STEEL)
    low, size = between(rng, 1.9, 2.4), between(rng, 0.4, 0.52)

    def paint(canvas: Canvas) -> None:
        _post(canvas, board, low + 2.0 * size, 0.17, color)
        code = canvas.stuff("traffic sign", z, grain=0.02, mottle=0.03)
        _face(canvas, code, board, low + size, size, kind)
        if second:
            extra = [
                (-size, low - 0.45),
                (-size, low - 0.08),
                (size, low - 0.08),
                (size, low - 0.45),
            ]
            canvas.polygon(code, board.path(extra), (228, 228, 222))
            canvas.detail(
                board.path(
                    [
                        (-0.7 * size, low - 0.32),
                        (-0.7 * size, low - 0.22),
                        (0.7 * size, low - 0.22),
                        (0.7 * size, low - 0.32),
                    ]
                ),
                (60, 60, 62),
            )

    return Item(z, paint, _square(board.x, z, 0.12), 2.5)


def _face(canvas: Canvas, code: int, board: Board, v: float, size: float, kind: str) -> None:
    """Paint the face of a sign of half width `size`, centred `v` metres above its foot."""
    corners = {"warning": 3, "stop": 8, "square": 4, "priority": 4}.get(kind, 20)
    turn = {"warning": math.pi / 2, "stop": math.pi / 8, "square": math.pi / 4}.get(kind, 0.0)
    grow = {"square": 1.3, "priority": 1.15, "warning": 1.2}.get(kind, 1.0)

    def ring(share: float) -> list[Point]:
        step = 2.0 * math.pi / corners
        reach = size * share * grow
        return [
            board.at(reach * math.cos(turn + k * step), v + reach * math.sin(turn + k * step))
            for k in range(corners)
        ]

    outer, inner, mark = {
        "prohibition": ((206, 26, 36), (244, 244, 240), (40, 40, 42)),
        "warning": ((206, 26, 36), (244, 244, 240), (40, 40, 42)),
        "blue": ((236, 238, 240), (22, 84, 178), (240, 240, 240)),
        "square": ((236, 238, 240), (22, 84, 178), (240, 240, 240)),
        "stop": ((240, 240, 240), (198, 22, 32), (240, 240, 240)),
        "priority": ((240, 240, 238), (242, 196, 24), (242, 196, 24)),
    }[kind]
    canvas.polygon(code, ring(1.0), outer)
    canvas.detail(ring(0.72 if corners in (3, 20) and kind != "blue" else 0.88), inner)
    bar = 0.42 * size
    canvas.detail(
        board.path(
            [
                (-bar, v - 0.12 * size),
                (-bar, v + 0.12 * size),
                (bar, v + 0.12 * size),
                (bar, v - 0.12 * size),
            ]
        ),
        mark,
    )


def gantry(camera: Camera, left: float, right: float, z: float, rng: np.random.Generator) -> Item:
    """Return a sign bridge across the road between `left` and `right`."""
    board = Board(camera, camera.along(0.0, z), z)
    color = pick(rng, ((24, 76, 160), (20, 104, 72), (24, 76, 160)))
    panels = [(left + (right - left) * share, between(rng, 1.6, 2.3)) for share in (0.3, 0.74)]

    def paint(canvas: Canvas) -> None:
        for foot in (left, right):
            _post(canvas, Board(camera, board.x + foot, z), 6.6, 0.45, (124, 128, 130))
        code = len(canvas.regions) - 1
        beam = [(left, 6.2), (left, 6.7), (right, 6.7), (right, 6.2)]
        canvas.polygon(code, board.path(beam), (116, 120, 122))
        face = canvas.stuff("traffic sign", z, grain=0.01, mottle=0.02)
        for u, half in panels:
            plate = [(u - half, 5.2), (u - half, 7.4), (u + half, 7.4), (u + half, 5.2)]
            canvas.polygon(face, board.path(plate), (232, 234, 236))
            field = [
                (u - half + 0.12, 5.32),
                (u - half + 0.12, 7.28),
                (u + half - 0.12, 7.28),
                (u + half - 0.12, 5.32),
            ]
            canvas.detail(board.path(field), color)
            for row in (5.8, 6.5):
                text = [
                    (u - 0.65 * half, row),
                    (u - 0.65 * half, row + 0.28),
                    (u + 0.5 * half, row + 0.28),
                    (u + 0.5 * half, row),
                ]
                canvas.detail(board.path(text), (232, 234, 236))

    return Item(z, paint)
