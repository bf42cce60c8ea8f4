"""What stands beside the road: trees, bushes, street lamps, traffic lights and signs."""

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
    (70, 98, 44), (54, 84, 38), (92, 112, 48), (48, 76, 46), (118, 112, 50),
)  # fmt: skip
BARK: tuple[Color, ...] = ((74, 60, 46), (92, 80, 66), (58, 50, 42))
STEEL: tuple[Color, ...] = ((112, 116, 120), (84, 88, 90), (140, 142, 140), (66, 76, 70))
SIGNALS: tuple[Color, ...] = ((255, 60, 40), (255, 190, 40), (60, 240, 130))
AROUND = [(math.cos(k * math.pi / 8), math.sin(k * math.pi / 8)) for k in range(16)]


def _square(x: float, z: float, half: float) -> tuple[Point, ...]:
    """Return the corners (X, Z) of a square footprint."""
    return ((x - half, z - half), (x - half, z + half), (x + half, z + half), (x + half, z - half))


def _blob(board: Board, center: Point, radii: Point, ragged: list[float]) -> list[Point]:
    """Return a ragged ellipse; `ragged` holds the relative radius at 16 equal angles."""
    x, y = board.at(*center)
    across, up = radii[0] * board.scale, radii[1] * board.scale
    return [
        (x + across * r * cos, y - up * r * sin)
        for r, (cos, sin) in zip(ragged, AROUND, strict=True)
    ]


def _stem(
    canvas: Canvas, code: int, board: Board, *, height: float, half: float, bark: Color
) -> None:
    """Paint a trunk that tapers, with a dark side."""
    slim = 0.6 * half
    trunk = [(-half, 0.0), (-slim, height), (slim, height), (half, 0.0)]
    canvas.polygon(code, board.path(trunk), bark)
    dark = [(0.2 * half, 0.0), (0.1 * half, height), (slim, height), (half, 0.0)]
    canvas.detail(board.path(dark), tint(bark, 0.8))


def tree(camera: Camera, s: float, z: float, rng: np.random.Generator) -> Item:
    """Return a tree with a round crown at road coordinates (`s`, `z`)."""
    board = Board(camera, camera.along(s, z), z)
    height, leaf, bark = between(rng, 4.5, 10.0), pick(rng, LEAVES), pick(rng, BARK)
    radius = height * between(rng, 0.26, 0.4)
    bole = height * between(rng, 0.25, 0.36)
    lobes = rng.random((7, 3)).tolist()
    ragged = (0.84 + 0.3 * rng.random((8, 16))).tolist()

    def paint(canvas: Canvas) -> None:
        if not canvas.shows([board.at(-radius, 0.0), board.at(radius, 0.0)]):
            return
        code = canvas.stuff("vegetation", z, grain=0.12, mottle=0.15)
        _stem(canvas, code, board, height=0.6 * height, half=0.018 * height + 0.08, bark=bark)
        middle, tall = 0.5 * (bole + height), 0.5 * (height - bole)
        crown = _blob(board, (0.0, middle), (radius, tall), ragged[7])
        canvas.polygon(code, crown, tint(leaf, 0.72))
        shown = lobes if z < 40.0 else lobes[:3]
        for (across, up, size), edge in zip(sorted(shown, key=_lowest_first), ragged, strict=False):
            center = (radius * (1.5 * across - 0.75), middle + tall * (1.2 * up - 0.55))
            lobe = radius * (0.34 + 0.2 * size)
            light = 0.76 + 0.26 * up + 0.12 * canvas.sun * (2.0 * across - 1.0)
            canvas.polygon(code, _blob(board, center, (lobe, 0.8 * lobe), edge), tint(leaf, light))

    return Item(z, paint, _square(board.x, z, 0.6 * radius), 0.7 * height)


def _lowest_first(lobe: list[float]) -> float:
    return lobe[1]


def conifer(camera: Camera, s: float, z: float, rng: np.random.Generator) -> Item:
    """Return a spruce at road coordinates (`s`, `z`)."""
    board = Board(camera, camera.along(s, z), z)
    height, bark = between(rng, 5.0, 10.0), pick(rng, BARK)
    leaf = tint(pick(rng, LEAVES), 0.8)
    radius = height * between(rng, 0.17, 0.24)

    def paint(canvas: Canvas) -> None:
        if not canvas.shows([board.at(-radius, 0.0), board.at(radius, 0.0)]):
            return
        code = canvas.stuff("vegetation", z, grain=0.14, mottle=0.1)
        _stem(canvas, code, board, height=0.3 * height, half=0.02 * height + 0.06, bark=bark)
        for level in range(5):
            low, wide = (0.12 + 0.16 * level) * height, radius * (1.0 - 0.17 * level)
            cone = [
                (-wide, low), (-0.5 * wide, low - 0.03 * height), (0.1 * wide, low + 0.01 * height),
                (0.5 * wide, low - 0.03 * height), (wide, low), (0.0, low + 0.3 * height),
            ]  # fmt: skip
            canvas.polygon(code, board.path(cone), tint(leaf, 0.76 + 0.07 * level))

    return Item(z, paint, _square(board.x, z, 0.6 * radius), 0.7 * height)


def bush(camera: Camera, s: float, z: float, rng: np.random.Generator) -> Item:
    """Return a bush at road coordinates (`s`, `z`)."""
    board = Board(camera, camera.along(s, z), z)
    radius, leaf = between(rng, 0.6, 1.4), pick(rng, LEAVES)
    ragged = (0.8 + 0.35 * rng.random((3, 16))).tolist()

    def paint(canvas: Canvas) -> None:
        code = canvas.stuff("vegetation", z, grain=0.13, mottle=0.15)
        for index, edge in enumerate(ragged):
            center = (radius * (0.55 * index - 0.55), 0.45 * radius)
            blob = _blob(board, center, (0.75 * radius, 0.62 * radius), edge)
            canvas.polygon(code, blob, tint(leaf, 0.76 + 0.12 * index))

    return Item(z, paint, _square(board.x, z, radius), radius)


def _post(canvas: Canvas, board: Board, height: float, width: float, color: Color) -> int:
    """Paint an upright pole in metres, never thinner than two pixels; return its code."""
    code = canvas.stuff("pole", board.z, grain=0.03, mottle=0.02)
    half = max(width / 2, 1.0 / board.scale)
    canvas.polygon(code, board.box(-half, half, 0.0, height), color)
    canvas.detail(board.box(0.3 * half, half, 0.0, height), tint(color, 0.75))
    canvas.detail(board.box(-half, half, 0.0, 0.3), tint(color, 0.6))
    return code


def lamp_post(camera: Camera, s: float, z: float, rng: np.random.Generator, *, lit: bool) -> Item:
    """Return a street lamp whose arm reaches over the road."""
    board = Board(camera, camera.along(s, z), z)
    height, color = between(rng, 5.0, 7.5), pick(rng, STEEL)
    reach = -math.copysign(1.7, s)

    def paint(canvas: Canvas) -> None:
        code = _post(canvas, board, height, 0.26, color)
        arm = [(0.0, height - 0.1), (0.4 * reach, height + 0.3), (reach, height + 0.35)]
        canvas.limb(code, board.path(arm), max(0.13 * board.scale, 2.0), color)
        head = board.box(reach - 0.4, reach + 0.4, height + 0.3, height + 0.5)
        canvas.polygon(code, head, tint(color, 0.8))
        if lit:
            lamp = board.at(reach, height + 0.3)
            canvas.lamp(code, lamp, 0.16 * board.scale, (255, 214, 150))

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
        code = _post(canvas, board, height, 0.24, color)
        if cantilever:
            arm = board.path([(0.0, height - 0.1), (reach, height + 0.1)])
            canvas.limb(code, arm, max(0.16 * board.scale, 2.0), color)
            _signal(canvas, board, (reach, height - 1.0), state)
        _signal(canvas, board, (0.0, low), state)

    return Item(z, paint, _square(board.x, z, 0.15), 4.0)


def _signal(canvas: Canvas, board: Board, foot: Point, state: int) -> None:
    """Paint the housing and the three lamps; `state` 0, 1, 2 is red, amber, green."""
    u, low = foot
    code = canvas.stuff("traffic light", board.z, grain=0.02, mottle=0.02)
    canvas.polygon(code, board.box(u - 0.36, u + 0.36, low - 0.08, low + 1.36), (24, 26, 26))
    canvas.detail(board.box(u - 0.24, u + 0.24, low, low + 1.28), (46, 48, 46))
    for index, color in enumerate(SIGNALS):
        center = board.at(u, low + 1.06 - 0.42 * index)
        if index == state:
            canvas.lamp(code, center, 0.18 * board.scale, color)
        else:
            canvas.disc(code, center, 0.16 * board.scale, tint(color, 0.22))


def sign(camera: Camera, s: float, z: float, rng: np.random.Generator) -> Item:
    """Return one or two traffic signs on a pole."""
    board = Board(camera, camera.along(s, z), z)
    kind, color = pick(rng, tuple(FACES)), pick(rng, STEEL)
    second = rng.random() < 0.3
    low, size = between(rng, 1.9, 2.4), between(rng, 0.42, 0.55)

    def paint(canvas: Canvas) -> None:
        _post(canvas, board, low + 2.0 * size, 0.18, color)
        code = canvas.stuff("traffic sign", z, grain=0.02, mottle=0.03)
        _face(canvas, code, board, up=low + size, size=size, kind=kind)
        if second:
            canvas.polygon(code, board.box(-size, size, low - 0.5, low - 0.08), (228, 228, 222))
            text = board.box(-0.7 * size, 0.7 * size, low - 0.35, low - 0.23)
            canvas.detail(text, (60, 60, 62))

    return Item(z, paint, _square(board.x, z, 0.12), 2.5)


SIGN_RED: Color = (206, 26, 36)
SIGN_WHITE: Color = (242, 242, 238)
SIGN_BLUE: Color = (22, 84, 178)
FACES: dict[str, tuple[int, float, float, float, tuple[Color, Color, Color]]] = {
    "prohibition": (20, 0.0, 1.0, 0.72, (SIGN_RED, SIGN_WHITE, (40, 40, 42))),
    "warning": (3, math.pi / 2, 1.2, 0.66, (SIGN_RED, SIGN_WHITE, (40, 40, 42))),
    "mandatory": (20, 0.0, 1.0, 0.9, (SIGN_WHITE, SIGN_BLUE, SIGN_WHITE)),
    "square": (4, math.pi / 4, 1.3, 0.88, (SIGN_WHITE, SIGN_BLUE, SIGN_WHITE)),
    "stop": (8, math.pi / 8, 1.0, 0.88, (SIGN_WHITE, (198, 22, 32), SIGN_WHITE)),
    "priority": (4, 0.0, 1.15, 0.8, (SIGN_WHITE, (242, 196, 24), (242, 196, 24))),
}
"""By kind: corners, turn in radians, size, share of the inside; colours of rim, inside and mark."""


def _face(canvas: Canvas, code: int, board: Board, *, up: float, size: float, kind: str) -> None:
    """Paint the face of a sign of half width `size`, centred `up` metres above its foot."""
    corners, turn, grow, inside, (rim, face, mark) = FACES[kind]
    angles = [turn + 2.0 * math.pi * k / corners for k in range(corners)]
    for share, color in ((1.0, rim), (inside, face)):
        reach = size * grow * share
        ring = [(reach * math.cos(angle), up + reach * math.sin(angle)) for angle in angles]
        if share == 1.0:
            canvas.polygon(code, board.path(ring), color)
        else:
            canvas.detail(board.path(ring), color)
    bar = 0.42 * size
    canvas.detail(board.box(-bar, bar, up - 0.12 * size, up + 0.12 * size), mark)


def gantry(camera: Camera, left: float, right: float, z: float, rng: np.random.Generator) -> Item:
    """Return a sign bridge across the road between `left` and `right`."""
    board = Board(camera, camera.along(0.0, z), z)
    color = pick(rng, ((24, 76, 160), (20, 104, 72), (24, 76, 160)))
    panels = [(left + (right - left) * share, between(rng, 1.6, 2.3)) for share in (0.3, 0.74)]

    def paint(canvas: Canvas) -> None:
        for foot in (left, right):
            code = _post(canvas, Board(camera, board.x + foot, z), 6.6, 0.45, (124, 128, 130))
        canvas.polygon(code, board.box(left, right, 6.2, 6.7), (116, 120, 122))
        face = canvas.stuff("traffic sign", z, grain=0.01, mottle=0.02)
        for u, half in panels:
            canvas.polygon(face, board.box(u - half, u + half, 5.2, 7.4), (232, 234, 236))
            canvas.detail(board.box(u - half + 0.12, u + half - 0.12, 5.32, 7.28), color)
            for row in (5.8, 6.5):
                text = board.box(u - 0.65 * half, u + 0.5 * half, row, row + 0.28)
                canvas.detail(text, (232, 234, 236))

    return Item(z, paint)
