"""Cars, lorries, buses and trams: side profiles swept across the vehicle's width."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from rtseg.data.scene.canvas import Canvas, Color, Frame, Item, Point, between, pick, tint

GLASS: Color = (58, 70, 82)
TYRE: Color = (28, 28, 30)
RED: Color = (214, 32, 28)
WHITE: Color = (255, 246, 220)

CAR_COLORS: tuple[Color, ...] = (
    (196, 198, 202), (128, 132, 138), (52, 54, 60), (236, 236, 232), (158, 28, 32),
    (32, 62, 128), (84, 24, 34), (28, 74, 62), (176, 168, 148), (96, 118, 150), (214, 120, 30),
)  # fmt: skip
BUS_COLORS: tuple[Color, ...] = ((222, 170, 20), (196, 30, 34), (30, 110, 62), (236, 110, 20))
CARGO_COLORS: tuple[Color, ...] = (
    (232, 232, 228), (214, 210, 200), (40, 84, 150), (196, 130, 40), (70, 120, 84), (160, 44, 40),
)  # fmt: skip
TRAM_COLORS: tuple[tuple[Color, Color], ...] = (
    ((236, 230, 208), (176, 28, 36)),
    ((240, 240, 238), (24, 96, 160)),
    ((244, 238, 220), (40, 130, 90)),
)


@dataclass(frozen=True)
class Body:
    """The shape of a vehicle.

    width: metres. profile: (forward, up) points in metres from the lower rear edge over the roof to
    the lower front edge. glass: indices of the edges that are windows. windows: side windows as
    polygons of such points. wheels: their (forward, radius).
    """

    width: float
    profile: tuple[Point, ...]
    glass: tuple[int, ...] = ()
    windows: tuple[tuple[Point, ...], ...] = ()
    wheels: tuple[Point, ...] = ()

    @property
    def length(self) -> float:
        """Metres from bumper to bumper."""
        return max(a for a, _ in self.profile) - min(a for a, _ in self.profile)

    @property
    def height(self) -> float:
        """Metres from the road to the roof."""
        return max(y for _, y in self.profile)


def _scaled(points: Sequence[Point], length: float, height: float) -> tuple[Point, ...]:
    """Return points given in shares of `length` and `height` in metres."""
    return tuple((a * length, y * height) for a, y in points)


CAR_SHAPES: dict[str, tuple[tuple[float, float, float], tuple[Point, ...], tuple[Point, ...]]] = {
    "hatchback": (
        (4.0, 1.75, 1.5),
        ((-0.5, 0.17), (-0.5, 0.58), (-0.43, 0.95), (-0.36, 1.0), (0.03, 1.0), (0.22, 0.63),
         (0.45, 0.52), (0.5, 0.38), (0.5, 0.17)),
        ((-0.41, 0.62), (-0.37, 0.91), (0.02, 0.92), (0.17, 0.63)),
    ),
    "saloon": (
        (4.6, 1.8, 1.45),
        ((-0.5, 0.17), (-0.5, 0.56), (-0.33, 0.66), (-0.2, 0.97), (-0.14, 1.0), (0.08, 0.99),
         (0.23, 0.64), (0.46, 0.54), (0.5, 0.4), (0.5, 0.17)),
        ((-0.29, 0.66), (-0.18, 0.92), (0.06, 0.92), (0.18, 0.65)),
    ),
    "suv": (
        (4.5, 1.9, 1.75),
        ((-0.5, 0.2), (-0.5, 0.62), (-0.46, 0.96), (-0.4, 1.0), (0.08, 1.0), (0.21, 0.68),
         (0.46, 0.6), (0.5, 0.46), (0.5, 0.2)),
        ((-0.44, 0.66), (-0.41, 0.92), (0.06, 0.92), (0.16, 0.68)),
    ),
    "van": (
        (4.9, 1.95, 2.0),
        ((-0.5, 0.17), (-0.5, 0.55), (-0.49, 0.95), (-0.44, 1.0), (0.18, 1.0), (0.36, 0.58),
         (0.47, 0.5), (0.5, 0.36), (0.5, 0.17)),
        ((0.02, 0.58), (0.02, 0.92), (0.17, 0.92), (0.29, 0.58)),
    ),
}  # fmt: skip
"""By name: length, width and height in metres; profile and side window in shares of these."""


def car_body(rng: np.random.Generator) -> Body:
    """Return the body of a random car."""
    (length, width, height), outline, window = CAR_SHAPES[
        pick(rng, ("hatchback", "hatchback", "saloon", "saloon", "suv", "van"))
    ]
    stretch = between(rng, 0.94, 1.06)
    length, height = length * stretch, height * between(rng, 0.96, 1.05)
    profile = _scaled(outline, length, height)
    upright = (
        (index, abs(after[1] - before[1]), min(after[1], before[1]))
        for index, (before, after) in enumerate(pairwise(profile))
    )
    glass = tuple(i for i, rise, low in upright if rise > 0.12 * height and low > 0.5 * height)
    wheel = 0.32 if height < 1.7 else 0.36
    return Body(
        width,
        profile,
        glass,
        (_scaled(window, length, height),),
        ((-0.3 * length, wheel), (0.31 * length, wheel)),
    )


def _box(length: float, low: float, high: float, *, slant: float = 0.0) -> tuple[Point, ...]:
    """Return the profile of a box on wheels whose front leans back by `slant` metres."""
    half = length / 2
    return (
        (-half, low), (-half, high - 0.15), (-half + 0.15, high), (half - slant - 0.15, high),
        (half - slant, high - 0.15), (half, 0.45 * high), (half, low),
    )  # fmt: skip


def sweep(canvas: Canvas, code: int, frame: Frame, body: Body, *, color: Color) -> None:
    """Paint a body on its wheels: the faces that look towards us, then the side that does."""
    _end_tyres(canvas, code, frame, body)
    half = body.width / 2
    points = body.profile
    faces = list(enumerate(pairwise(points)))
    for index, (start, end) in faces if frame.front > 0.0 else reversed(faces):
        quad = frame.quad(start, end, -half, half)
        if _area(quad) <= 0.0:
            continue
        steep = abs(end[1] - start[1]) / math.dist(start, end)
        canvas.polygon(code, quad, tint(color, 1.12 - 0.3 * steep))
        if index in body.glass:
            canvas.detail(_inset(quad), GLASS)
    right = frame.right
    if abs(right) > half:
        t = math.copysign(half, right)
        light = 0.88 + 0.14 * canvas.sun * math.copysign(1.0, -frame.x)
        canvas.polygon(code, frame.panel(points, t), tint(color, light))
        for window in body.windows:
            canvas.detail(frame.panel(window, t), tint(GLASS, light))
        _side_wheels(canvas, code, frame, body, t)


def _area(quad: Sequence[Point]) -> float:
    """Return twice the signed area of a quadrilateral on screen; positive faces the camera."""
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = quad
    return (x2 - x0) * (y3 - y1) - (x3 - x1) * (y2 - y0)


def _inset(quad: Sequence[Point], share: float = 0.1) -> list[Point]:
    """Return `quad` shrunk towards its center by `share`."""
    x = sum(p[0] for p in quad) / 4
    y = sum(p[1] for p in quad) / 4
    return [(px + share * (x - px), py + share * (y - py)) for px, py in quad]


def _end_tyres(canvas: Canvas, code: int, frame: Frame, body: Body) -> None:
    """Paint the two tyres that show below the end that faces us."""
    if not body.wheels:
        return
    half = body.width / 2
    forward, radius = body.wheels[0] if frame.front < 0.0 else body.wheels[-1]
    for across in (-half + 0.02, half - 0.27):
        block = frame.quad((forward, 0.0), (forward, 1.2 * radius), across, across + 0.25)
        canvas.polygon(code, block, TYRE)


def _side_wheels(canvas: Canvas, code: int, frame: Frame, body: Body, across: float) -> None:
    """Paint the wheels of the side at `across`."""
    for forward, radius in body.wheels:
        for share, color in ((radius, TYRE), (0.58 * radius, (142, 144, 148))):
            ring = [(forward + share * c, radius + share * s) for c, s in CIRCLE]
            canvas.polygon(code, frame.panel(ring, across), color)


CIRCLE = tuple((math.cos(k * math.pi / 6), math.sin(k * math.pi / 6)) for k in range(12))


def lights(
    canvas: Canvas, code: int, frame: Frame, body: Body, *, up: float, size: float, on: bool
) -> None:
    """Paint lamps, bumper and plate of the end that faces us; the lamps shine if `on`.

    Args:
        canvas: What is painted on.
        code: Region of the vehicle.
        frame: Its axes.
        body: Its shape.
        up: Height of the lamps in metres.
        size: Height of a lamp in metres.
        on: Whether they shine.
    """
    if abs(frame.front) < body.length / 2:
        return
    half, rear = body.width / 2, frame.front < 0.0
    forwards = [forward for forward, _ in body.profile]
    end, low = (min(forwards) if rear else max(forwards)), min(y for _, y in body.profile)
    shine, off = (RED, tint(RED, 0.7)) if rear else (WHITE, (222, 226, 228))
    for across in (0.22 - half, half - 0.22):
        quad = frame.quad((end, up - size / 2), (end, up + size / 2), across - 0.17, across + 0.17)
        canvas.detail(quad, shine if on else off)
        if on:
            canvas.lamp(code, frame.at(end, up, across), 0.11 * frame.scale, shine)
    bumper = frame.quad((end, low), (end, low + 0.18), 0.05 - half, half - 0.05)
    canvas.detail(bumper, (44, 45, 48))
    plate = frame.quad((end, low + 0.2), (end, low + 0.31), -0.26, 0.26)
    canvas.detail(plate, (226, 224, 206))


def _depth(frame: Frame, length: float) -> float:
    """Return the distance that places a vehicle in the painting order: near its nearest end."""
    return max(frame.z - 0.3 * length * abs(math.cos(frame.yaw)), 1.0)


def car(frame: Frame, rng: np.random.Generator, *, lit: bool) -> Item:
    """Return a car at `frame`; its lamps shine if `lit`."""
    body, color = car_body(rng), pick(rng, CAR_COLORS)

    def paint(canvas: Canvas) -> None:
        code = canvas.thing("car", frame.z)
        sweep(canvas, code, frame, body, color=color)
        lights(canvas, code, frame, body, up=0.5 * body.height, size=0.17, on=lit)

    return Item(_depth(frame, body.length), paint, frame.base(body.length, body.width), body.height)


def bus(frame: Frame, rng: np.random.Generator, *, lit: bool) -> Item:
    """Return a bus at `frame`."""
    length, height = between(rng, 9.0, 12.0), between(rng, 3.0, 3.3)
    color = pick(rng, BUS_COLORS)
    half = length / 2
    panes = np.linspace(-half + 0.4, half - 0.5, 7).tolist()
    windows = tuple(
        ((a, 1.35), (a, 2.5), (b - 0.12, 2.5), (b - 0.12, 1.35)) for a, b in pairwise(panes)
    )
    doors = tuple(((a, 0.4), (a, 2.5), (a + 1.0, 2.5), (a + 1.0, 0.4)) for a in (half - 1.7, -0.5))
    axles = ((-half + 2.6, 0.48), (half - 2.6, 0.48))
    body = Body(2.5, _box(length, 0.32, height, slant=0.15), (), windows + doors, axles)

    def paint(canvas: Canvas) -> None:
        code = canvas.thing("bus", frame.z)
        sweep(canvas, code, frame, body, color=color)
        if abs(frame.front) > half:
            rear = frame.front < 0.0
            a = -half if rear else half - 0.1
            low = 1.5 if rear else 1.05
            canvas.detail(frame.quad((a, low), (a, 2.45), -1.08, 1.08), tint(GLASS, 0.85))
            sign = frame.quad((a, 2.6), (a, 2.9), -0.8, 0.8)
            canvas.polygon(canvas.glowing(code), sign, (250, 180, 40))
        lights(canvas, code, frame, body, up=0.85, size=0.26, on=lit)

    return Item(_depth(frame, length), paint, frame.base(length, 2.5), height)


def lorry(frame: Frame, rng: np.random.Generator, *, lit: bool) -> Item:
    """Return a lorry at `frame`: a cab and a cargo box on a chassis."""
    length, height = between(rng, 6.5, 10.0), between(rng, 3.0, 3.7)
    cargo_color, cab_color = pick(rng, CARGO_COLORS), pick(rng, CAR_COLORS)
    half = length / 2
    start = half - 2.1
    cargo = Body(
        2.5,
        ((-half, 0.95), (-half, height), (start - 0.25, height), (start - 0.25, 0.95)),
        wheels=((-half + 1.3, 0.48), (-half + 2.4, 0.48)),
    )
    top = 0.82 * height
    cab = Body(
        2.4,
        ((start, 0.5), (start, top), (half - 0.5, top), (half - 0.1, 0.56 * top),
         (half, 0.5 * top), (half, 0.45)),
        (2,),
        (((half - 1.3, 0.58 * top), (half - 1.3, 0.9 * top), (half - 0.55, 0.9 * top),
          (half - 0.3, 0.58 * top)),),
        ((half - 1.1, 0.48),),
    )  # fmt: skip
    chassis = Body(2.3, ((-half, 0.45), (-half, 0.97), (start, 0.97), (start, 0.45)))
    whole = Body(2.4, ((-half, 0.5), (-half, height), (half, height), (half, 0.5)))

    def paint(canvas: Canvas) -> None:
        code = canvas.thing("truck", frame.z)
        rear = frame.front < 0.0
        for part in (cab, cargo) if rear else (cargo, cab):
            if part is cargo:
                sweep(canvas, code, frame, chassis, color=(52, 52, 56))
            sweep(canvas, code, frame, part, color=cargo_color if part is cargo else cab_color)
        if rear and abs(frame.front) > half:
            for t in (-1.2, -0.02, 1.16):
                seam = frame.quad((-half, 0.98), (-half, height), t, t + 0.05)
                canvas.detail(seam, tint(cargo_color, 0.6))
        lights(canvas, code, frame, whole, up=0.75, size=0.2, on=lit)

    return Item(_depth(frame, length), paint, frame.base(length, 2.5), height)


def tram(frame: Frame, rng: np.random.Generator, *, lit: bool) -> Item:
    """Return a tram at `frame`: long, low skirts, a band of windows, two colours, a pantograph."""
    length, height = between(rng, 18.0, 26.0), 3.5
    upper, lower = pick(rng, TRAM_COLORS)
    half = length / 2
    profile = (
        (-half, 0.2), (-half + 0.1, 1.2), (-half + 0.9, height - 0.2), (-half + 1.5, height),
        (half - 1.5, height), (half - 0.9, height - 0.2), (half - 0.1, 1.2), (half, 0.2),
    )  # fmt: skip
    panes = np.linspace(-half + 1.2, half - 1.2, 11).tolist()
    windows = tuple(
        ((a, 1.5), (a, 2.75), (b - 0.2, 2.75), (b - 0.2, 1.5)) for a, b in pairwise(panes)
    )
    body = Body(2.5, profile, (1, 5), windows)

    def paint(canvas: Canvas) -> None:
        code = canvas.thing("train", frame.z)
        for sign in (-1.0, 1.0):
            arm = [frame.at(1.0 * sign, height, 0.0), frame.at(0.0, height + 0.9, 0.0)]
            canvas.limb(code, arm, 0.1 * frame.scale, (60, 60, 64))
        sweep(canvas, code, frame, body, color=upper)
        right = frame.right
        if abs(right) > 1.25:
            t = math.copysign(1.25, right)
            band = ((-half, 0.2), (-half + 0.08, 1.15), (half - 0.08, 1.15), (half, 0.2))
            canvas.detail(frame.panel(band, t), lower)
            for a in (-half / 3, half / 3):
                joint = ((a - 0.25, 0.25), (a - 0.25, 3.4), (a + 0.25, 3.4), (a + 0.25, 0.25))
                canvas.detail(frame.panel(joint, t), (50, 50, 54))
        a = -half if frame.front < 0.0 else half
        if abs(frame.front) > half:
            canvas.detail(frame.quad((a, 0.25), (a, 1.15), -1.2, 1.2), lower)
            lights(canvas, code, frame, body, up=0.75, size=0.22, on=lit)

    return Item(_depth(frame, length), paint, frame.base(length, 2.5), height)
