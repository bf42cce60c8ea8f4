"""Houses and blocks beside the road, and the skyline behind everything."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rtseg.data.scene.canvas import NEAREST, Camera, Canvas, Color, Item, Point, between, pick, tint

FACADES: tuple[Color, ...] = (
    (178, 150, 118), (152, 92, 74), (196, 186, 166), (136, 132, 126), (204, 178, 130),
    (164, 118, 96), (120, 112, 108), (188, 168, 160), (150, 156, 158), (210, 200, 184),
)  # fmt: skip
ROOFS: tuple[Color, ...] = ((118, 62, 48), (82, 78, 80), (96, 70, 58))
PANE: Color = (74, 88, 102)
SKYLINES: dict[str, tuple[Color, ...]] = {
    "building": ((128, 128, 134), (140, 130, 124)),
    "vegetation": ((70, 88, 56), (60, 78, 52)),
}
LIT: tuple[Color, ...] = ((255, 206, 120), (250, 226, 170), (214, 226, 240))


@dataclass(frozen=True)
class House:
    """One building.

    s: lateral place in metres of the side that faces the road, negative left. z0, z1: where it
    starts and ends along the road. depth: metres away from the road. height: to the eaves. gable:
    height of the roof, 0 for a flat one. bay, storey: metres between windows. shops: the ground
    floor is glazed. lit: which windows are lit, in turn. glow: colour of these.
    """

    s: float
    z0: float
    z1: float
    depth: float
    height: float
    gable: float
    wall: Color
    roof: Color
    bay: float
    storey: float
    shops: bool
    lit: tuple[bool, ...]
    glow: Color


def house(
    camera: Camera,
    s: float,
    z0: float,
    z1: float,
    rng: np.random.Generator,
    *,
    tall: bool,
    shops: bool,
) -> Item:
    """Return a building with its front at `s` from `z0` to `z1`: a block if `tall`."""
    storeys = int(rng.integers(3, 8)) if tall else int(rng.integers(1, 3)) + 1
    storey = between(rng, 2.9, 3.5)
    shown = House(
        s, z0, z1,
        depth=between(rng, 9.0, 16.0),
        height=storeys * storey + 0.4,
        gable=0.0 if tall and rng.random() < 0.75 else between(rng, 2.0, 3.6),
        wall=pick(rng, FACADES),
        roof=pick(rng, ROOFS),
        bay=between(rng, 2.2, 3.4),
        storey=storey,
        shops=shops and rng.random() < 0.6,
        lit=tuple((rng.random(61) < 0.4).tolist()),
        glow=pick(rng, LIT),
    )  # fmt: skip
    outside = math.copysign(shown.depth, s)
    near, far = camera.along(s, z0), camera.along(s, z1)
    base = ((near, z0), (far, z1), (far + outside, z1), (near + outside, z0))
    return Item(z1, lambda canvas: _paint_house(canvas, shown), base, shown.height)


class Facade:
    """An upright wall from `start` to `end`, both (X, Z) in metres."""

    def __init__(self, camera: Camera, start: Point, end: Point) -> None:
        self.camera, self.start, self.end = camera, start, end
        self.length = math.dist(start, end)
        self.left, self.right = self.column(0.0), self.column(1.0)

    def column(self, share: float) -> Point:
        """Return the column at `share` of the wall's length and the pixels per metre there."""
        x = self.start[0] + share * (self.end[0] - self.start[0])
        z = self.start[1] + share * (self.end[1] - self.start[1])
        scale = self.camera.focal / max(z, NEAREST)
        return self.camera.center + x * scale, scale

    def quad(self, first: Point, second: Point, low: float, high: float) -> list[Point]:
        """Return the part of the wall between two columns and two heights in metres."""
        horizon, eye = self.camera.horizon, self.camera.height
        return [
            (column, horizon + (eye - up) * scale)
            for (column, scale), up in ((first, low), (first, high), (second, high), (second, low))
        ]

    def band(self, low: float, high: float) -> list[Point]:
        """Return the whole length of the wall between two heights in metres."""
        return self.quad(self.left, self.right, low, high)


def _paint_house(canvas: Canvas, house: House) -> None:
    """Paint the roof, the front along the road and the end that faces the camera."""
    camera = canvas.camera
    code = canvas.stuff("building", 0.5 * (house.z0 + house.z1), grain=0.035, mottle=0.035)
    side = math.copysign(1.0, house.s)
    near = (camera.along(house.s, house.z0), house.z0)
    far = (camera.along(house.s, house.z1), house.z1)
    front = Facade(camera, near, far)
    end = Facade(camera, near, (near[0] + side * house.depth, house.z0))
    if house.gable:
        _gable_roof(canvas, code, house, near, far)
    if (front.left[0] - front.right[0]) * side > 0.0:  # else it faces away from us
        _paint_wall(canvas, code, house, front, tint(house.wall, 0.94 - 0.2 * canvas.sun * side))
    _paint_wall(canvas, code, house, end, tint(house.wall, 0.86))


def _gable_roof(canvas: Canvas, code: int, house: House, near: Point, far: Point) -> None:
    """Paint the slope above the front and the triangle above the end."""
    camera, side = canvas.camera, math.copysign(1.0, house.s)
    low, top = house.height, house.height + house.gable
    half, out = side * house.depth / 2, 0.3 * side

    def at(place: Point, shift: float, up: float) -> Point:
        return camera.project(place[0] + shift, up, place[1])

    slope = [at(near, -out, low), at(far, -out, low), at(far, half, top), at(near, half, top)]
    canvas.polygon(code, slope, house.roof)
    end = [at(near, 0.0, low), at(near, 2.0 * half, low), at(near, half, top)]
    canvas.polygon(code, end, tint(house.wall, 0.86))


def _paint_wall(canvas: Canvas, code: int, house: House, wall: Facade, color: Color) -> None:
    """Paint a wall with its windows, cornice and, over shops, fascia."""
    canvas.polygon(code, wall.band(0.0, house.height), color)
    columns = max(1, int(wall.length / house.bay))
    if abs(wall.right[0] - wall.left[0]) < 3.0 * columns:  # too narrow to show windows
        return
    lit = canvas.glowing(code) if canvas.night else code
    for column in range(columns):
        first, second = (wall.column((column + share) / columns) for share in (0.25, 0.75))
        if not canvas.shows((first, second)):
            continue
        for floor in range(int(house.height / house.storey)):
            low, high = floor * house.storey + 0.9, (floor + 0.52) * house.storey + 0.9
            if floor == 0 and house.shops:
                low, high = 0.35, 0.85 * house.storey
            pane = wall.quad(first, second, low, high)
            bright = house.lit[(7 * floor + column + columns) % len(house.lit)]
            if canvas.night and bright:
                canvas.polygon(lit, pane, house.glow)
            else:
                shade = 0.75 + 0.06 * ((floor + 2 * column) % 5) + 0.2 * bright
                canvas.detail(pane, tint(PANE, shade))
    canvas.detail(wall.band(house.height - 0.35, house.height), tint(color, 1.15))
    if house.shops:
        fascia = wall.band(0.86 * house.storey, 1.06 * house.storey)
        canvas.detail(fascia, tint(house.roof, 1.25))


def skyline(camera: Camera, kind: str, rng: np.random.Generator) -> Item:
    """Return what closes the view at the horizon: a row of distant `building` or `vegetation`."""
    distance = between(rng, 150.0, 240.0)
    count = 26
    heights = (6.0 + 12.0 * rng.random(count)).tolist()
    color: Color = pick(rng, SKYLINES[kind])
    shades = (0.85 + 0.3 * rng.random(count)).tolist()

    def paint(canvas: Canvas) -> None:
        code = canvas.stuff(kind, distance, grain=0.05, mottle=0.08)
        width = camera.size[1] / (count - 2)
        scale = camera.focal / distance
        base = camera.horizon + camera.height * scale + 1.0
        for index, (height, shade) in enumerate(zip(heights, shades, strict=True)):
            x = (index - 1) * width
            top = camera.horizon - height * scale
            if kind == "building":
                shape = [(x, base), (x, top), (x + width, top), (x + width, base)]
                canvas.polygon(code, shape, tint(color, shade))
            else:
                shape = [
                    (x - 0.6 * width, base),
                    (x - 0.3 * width, top + 0.35 * (base - top)),
                    (x + 0.5 * width, top),
                    (x + 1.3 * width, top + 0.3 * (base - top)),
                    (x + 1.6 * width, base),
                ]
                canvas.polygon(code, shape, tint(color, shade))

    return Item(distance, paint)
