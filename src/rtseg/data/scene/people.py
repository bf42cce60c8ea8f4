"""People on foot, two-wheelers, and those who ride them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rtseg.data.scene.canvas import Board, Canvas, Color, Frame, Item, Point, between, pick, tint
from rtseg.data.scene.vehicles import CIRCLE, RED, TYRE, WHITE

SKIN: tuple[Color, ...] = ((224, 182, 156), (198, 150, 118), (150, 104, 76), (96, 66, 50))
TOPS: tuple[Color, ...] = (
    (36, 38, 46), (150, 30, 40), (44, 74, 128), (200, 190, 170), (88, 100, 70), (206, 130, 44),
    (122, 70, 120), (228, 226, 220), (60, 110, 120),
)  # fmt: skip
LEGS: tuple[Color, ...] = ((34, 36, 44), (48, 60, 92), (84, 74, 62), (120, 116, 108), (24, 24, 28))
HAIR: tuple[Color, ...] = (
    (40, 28, 22),
    (84, 58, 36),
    (24, 22, 22),
    (150, 118, 70),
    (120, 118, 116),
)


@dataclass(frozen=True)
class Look:
    """How somebody on foot looks: lengths in metres; `umbrella` is its colour or None."""

    tall: float
    wide: float
    stride: float
    skin: Color
    top: Color
    legs: Color
    hair: Color
    coat: bool
    bag: bool
    umbrella: Color | None


def _look(rng: np.random.Generator, *, umbrella: bool) -> Look:
    """Return a grown-up or, now and then, a child."""
    tall = between(rng, 1.6, 1.9) if rng.random() < 0.88 else between(rng, 1.1, 1.35)
    shade = pick(rng, TOPS)
    return Look(
        tall=tall,
        wide=between(rng, 0.115, 0.155) * tall,
        stride=between(rng, 0.03, 0.17) * tall,
        skin=pick(rng, SKIN),
        top=pick(rng, TOPS),
        legs=pick(rng, LEGS),
        hair=pick(rng, HAIR),
        coat=rng.random() < 0.3,
        bag=rng.random() < 0.35,
        umbrella=shade if umbrella else None,
    )


def person(board: Board, rng: np.random.Generator, *, umbrella: bool = False) -> Item:
    """Return somebody who stands or walks at `board`."""
    look = _look(rng, umbrella=umbrella)

    def paint(canvas: Canvas) -> None:
        code = canvas.thing("person", board.z)
        _limbs(canvas, code, board, look)
        _torso(canvas, code, board, look)
        _head(canvas, code, board, look)
        if look.umbrella is not None:
            handle = board.path([(0.25, 0.6 * look.tall), (0.1, look.tall + 0.3)])
            canvas.limb(code, handle, 0.04 * board.scale, (50, 50, 54))
            dome = [(0.1 + 0.62 * c, look.tall + 0.08 + 0.36 * max(s, 0.0)) for c, s in CIRCLE]
            canvas.polygon(code, board.path(dome), look.umbrella)

    half = 0.5 * look.wide
    corners = ((-half, -0.15), (-half, 0.15), (half, 0.15), (half, -0.15))
    base = tuple((board.x + dx, board.z + dz) for dx, dz in corners)
    return Item(board.z, paint, base, look.tall)


def _limbs(canvas: Canvas, code: int, board: Board, look: Look) -> None:
    """Paint legs and arms."""
    tall, wide, scale = look.tall, look.wide, board.scale
    for side in (-1.0, 1.0):
        knee = (side * (0.6 * look.stride + 0.04), 0.27 * tall)
        leg = [(side * 0.07, 0.5 * tall), knee, (side * (look.stride + 0.04), 0.04)]
        shade = tint(look.legs, 1.0 if side > 0.0 else 0.85)
        canvas.limb(code, board.path(leg), 0.17 * scale, shade)
        hand = (side * (wide + 0.1), 0.48 * tall)
        arm = [(side * wide * 0.9, 0.82 * tall), (side * (wide + 0.07), 0.64 * tall), hand]
        canvas.limb(code, board.path(arm), 0.12 * scale, tint(look.top, 0.82))
        canvas.disc(code, board.at(*hand), 0.05 * scale, look.skin)


def _torso(canvas: Canvas, code: int, board: Board, look: Look) -> None:
    """Paint jacket or coat, and a bag over the shoulder."""
    tall, wide = look.tall, look.wide
    low, shoulder = (0.3 if look.coat else 0.46) * tall, 0.82 * tall
    hem, neck = 0.85 * wide, shoulder + 0.05
    right = [(hem, low), (wide, shoulder), (0.5 * wide, neck)]
    left = [(-across, up) for across, up in reversed(right)]
    canvas.polygon(code, board.path(right + left), look.top)
    dark = [(0.35 * wide, shoulder), (0.3 * wide, low), (hem, low), (wide, shoulder)]
    canvas.detail(board.path(dark), tint(look.top, 0.86))
    if look.bag:
        bag = board.box(0.9 * wide, wide + 0.14, 0.55 * tall, 0.76 * tall)
        canvas.polygon(code, bag, tint(look.legs, 1.3))


def _head(canvas: Canvas, code: int, board: Board, look: Look) -> None:
    """Paint neck, face and hair."""
    tall, scale, radius = look.tall, board.scale, 0.068 * look.tall
    neck = board.path([(0.0, 0.82 * tall), (0.0, 0.9 * tall)])
    canvas.limb(code, neck, 0.1 * scale, tint(look.skin, 0.85))
    canvas.disc(code, board.at(0.0, tall - radius + 0.01), 1.05 * radius * scale, look.hair)
    canvas.disc(code, board.at(0.0, tall - 1.25 * radius), 0.85 * radius * scale, look.skin)


def _wheel(
    canvas: Canvas, code: int, frame: Frame, place: Point, *, hub: Color, thick: float
) -> None:
    """Paint a wheel with dark rim and lighter middle; `place` is (forward, radius)."""
    forward, radius = place

    def ring(share: float) -> list[Point]:
        reach = share * radius
        return [(forward + reach * c, radius + reach * s) for c, s in CIRCLE]

    for across in (-thick / 2, thick / 2):
        canvas.polygon(code, frame.panel(ring(1.0), across), TYRE)
    tread = frame.quad((forward, 0.0), (forward, 2.0 * radius), -thick / 2, thick / 2)
    canvas.polygon(code, tread, TYRE)
    if abs(frame.right) > 0.3:
        canvas.detail(frame.panel(ring(0.78), math.copysign(thick / 2, frame.right)), hub)


def _tube(
    canvas: Canvas, code: int, frame: Frame, points: list[Point], *, width: float, color: Color
) -> None:
    """Paint a bent tube through (forward, up) points in the middle plane; `width` in metres."""
    canvas.limb(code, frame.panel(points, 0.0), width * frame.scale, color)


def _bicycle(canvas: Canvas, frame: Frame, color: Color) -> None:
    """Paint a bicycle."""
    code = canvas.thing("bicycle", frame.z)
    for axle in (-0.52, 0.52):
        _wheel(canvas, code, frame, (axle, 0.36), hub=(104, 106, 108), thick=0.09)
    for points in (
        [(-0.52, 0.36), (-0.05, 0.3), (0.38, 0.78), (-0.18, 0.8), (-0.05, 0.3)],
        [(-0.52, 0.36), (-0.18, 0.8)],
        [(0.52, 0.36), (0.36, 0.95)],
    ):
        _tube(canvas, code, frame, points, width=0.075, color=color)
    _tube(canvas, code, frame, [(-0.32, 0.95), (-0.06, 0.97)], width=0.1, color=(30, 30, 32))
    bar = [frame.at(0.34, 0.98, -0.28), frame.at(0.34, 0.98, 0.28)]
    canvas.limb(code, bar, 0.07 * frame.scale, (40, 40, 44))


def _motorcycle(canvas: Canvas, frame: Frame, color: Color, *, lit: bool) -> None:
    """Paint a motorcycle."""
    code = canvas.thing("motorcycle", frame.z)
    scale = frame.scale
    for axle in (-0.68, 0.68) if frame.front > 0 else (0.68, -0.68):
        _wheel(canvas, code, frame, (axle, 0.33), hub=(126, 128, 130), thick=0.2)
    side = math.copysign(0.2, frame.right)
    for t in (-side, side):
        engine = [(-0.45, 0.3), (-0.5, 0.62), (0.3, 0.66), (0.42, 0.3)]
        canvas.polygon(code, frame.panel(engine, t), (58, 58, 62))
        shell = [(-0.95, 0.86), (-0.9, 0.98), (-0.15, 0.84), (0.1, 1.02), (0.42, 1.0), (0.7, 0.74),
                 (0.45, 0.6), (-0.5, 0.6)]  # fmt: skip
        canvas.polygon(code, frame.panel(shell, t), color)
    seat = [(-0.85, 0.96), (-0.15, 0.84), (-0.15, 0.92), (-0.85, 1.02)]
    canvas.detail(frame.panel(seat, side), (28, 28, 30))
    rear = frame.front < 0
    a = -0.9 if rear else 0.6
    canvas.polygon(code, frame.quad((a, 0.55), (a, 1.0), -0.22, 0.22), tint(color, 0.85))
    bar = [frame.at(0.4, 1.12, -0.38), frame.at(0.45, 1.0, 0.0), frame.at(0.4, 1.12, 0.38)]
    canvas.limb(code, bar, 0.08 * scale, (36, 36, 40))
    _tube(canvas, code, frame, [(0.68, 0.33), (0.45, 1.0)], width=0.1, color=(120, 122, 126))
    spot = frame.at(a, 0.86, 0.0)
    if lit:
        canvas.lamp(code, spot, 0.11 * scale, RED if rear else WHITE)
    else:
        canvas.disc(code, spot, 0.11 * scale, tint(RED, 0.75) if rear else (228, 230, 232))


def _rider(canvas: Canvas, frame: Frame, rng: np.random.Generator, *, motor: bool) -> None:
    """Paint somebody in the saddle at `frame`."""
    code = canvas.thing("rider", frame.z)
    skin, top, legs = pick(rng, SKIN), pick(rng, TOPS), pick(rng, LEGS)
    helmet = pick(rng, TOPS) if motor or rng.random() < 0.5 else pick(rng, HAIR)
    scale = frame.scale
    lean = 0.22 if motor else 0.16
    seat_l, seat_y = (-0.2, 0.92) if motor else (-0.18, 0.95)
    neck = (seat_l + lean, seat_y + 0.56)

    def limb(points: list[tuple[float, float, float]], width: float, color: Color) -> None:
        canvas.limb(code, [frame.at(*point) for point in points], width * scale, color)

    for sign in (-1.0, 1.0):
        knee = (seat_l + 0.38, 0.62, sign * 0.22)
        foot = (0.0 + 0.1 * sign * (not motor), 0.18 + 0.1 * (sign + 1) * (not motor), sign * 0.16)
        limb([(seat_l, seat_y, sign * 0.1), knee, foot], 0.17, tint(legs, 0.9 + 0.1 * sign))
    torso = [
        frame.at(seat_l, seat_y - 0.08, -0.17), frame.at(*neck, -0.24),
        frame.at(neck[0], neck[1] + 0.08, 0.0), frame.at(*neck, 0.24),
        frame.at(seat_l, seat_y - 0.08, 0.17),
    ]  # fmt: skip
    canvas.polygon(code, torso, top)
    limb([(seat_l, seat_y, 0.0), (*neck, 0.0)], 0.26, top)
    for sign in (-1.0, 1.0):
        limb(
            [
                (*neck, sign * 0.22),
                (neck[0] + 0.2, neck[1] - 0.3, sign * 0.32),
                (0.34, 1.04, sign * 0.28),
            ],
            0.12,
            tint(top, 0.85),
        )
    head = frame.at(neck[0] + 0.05, neck[1] + 0.24, 0.0)
    canvas.disc(code, head, 0.145 * scale, helmet)
    if frame.front > 0.4:
        face = frame.at(neck[0] + 0.07, neck[1] + 0.2, 0.0)
        canvas.disc(code, face, 0.085 * scale, (44, 48, 54) if motor else skin)


def two_wheeler(
    frame: Frame, rng: np.random.Generator, *, motor: bool, ridden: bool, lit: bool
) -> Item:
    """Return a motorcycle (`motor`) or a bicycle at `frame`, with a rider if `ridden`."""
    color = pick(
        rng,
        (
            (170, 24, 28),
            (28, 60, 140),
            (34, 34, 38),
            (210, 120, 20),
            (40, 120, 70),
            (225, 225, 222),
        ),
    )
    posture = np.random.Generator(np.random.Philox(key=int(rng.integers(1 << 62))))

    def paint(canvas: Canvas) -> None:
        if motor:
            _motorcycle(canvas, frame, color, lit=lit and ridden)
        else:
            _bicycle(canvas, frame, color)
        if ridden:
            _rider(canvas, frame, posture, motor=motor)

    return Item(frame.z, paint, frame.base(1.9, 0.4), 1.7 if ridden else 1.0)
