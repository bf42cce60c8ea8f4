"""Houses and blocks beside the road, and the skyline behind everything."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rtseg.data.scene.canvas import Camera, Canvas, Color, Item, Point, between, pick, tint

FACADES: tuple[Color, ...] = (
    (178, 150, 118), (152, 92, 74), (196, 186, 166), (136, 132, 126), (204, 178, 130),
    (164, 118, 96), (120, 112, 108), (188, 168, 160), (150, 156, 158), (210, 200, 184),
)  # fmt: skip
ROOFS: tuple[Color, ...] = ((118, 62, 48), (82, 78, 80), (96, 70, 58))
PANE: Color = (74, 88, 102)
LIT: tuple[Color, ...] = ((255, 206, 120), (250, 226, 170), (214, 226, 240))


@dataclass(frozen=True)
class House:
    """One building.

    s: lateral place in metres of the side that faces the road, negative left. z0, z1: from and to along the road.
    depth: metres away from the road. height: to the eaves. gable: height of the roof, 0 for a flat one. bay, storey: metres
    between windows. shops: the ground floor is glazed. lit: which windows are lit, by index.
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
    """Return a building whose front stands at `s` from `z0` to `z1`; `tall` for a block, else a house with a gable."""
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


def _paint_house(canvas: Canvas, house: House) -> None:
    """Paint the end that faces the camera, the front along the road, and the roof."""
    camera = canvas.camera
    code = canvas.stuff("building", 0.5 * (house.z0 + house.z1), grain=0.035, mottle=0.035)
    side = math.copysign(1.0, house.s)
    near = (camera.along(house.s, house.z0), house.z0)
    far = (camera.along(house.s, house.z1), house.z1)
    back = (near[0] + side * house.depth, house.z0)
    front_light = 0.94 - 0.2 * canvas.sun * side
    if house.gable:
        _gable_roof(canvas, code, house, near, far)
    if near[0] * side > 0.0:  # the front is seen from the road only
        _facade(canvas, code, house, near, far, tint(house.wall, front_light), shift=0)
    _facade(canvas, code, house, near, back, tint(house.wall, 0.86), shift=23)


def _gable_roof(canvas: Canvas, code: int, house: House, near: Point, far: Point) -> None:
    """Paint the slope above the front and the triangle above the end."""
    camera, side = canvas.camera, math.copysign(1.0, house.s)
    half, top = side * house.depth / 2, house.height + house.gable
    eaves = [
        camera.project(near[0] - 0.3 * side, house.height, near[1]),
        camera.project(far[0] - 0.3 * side, house.height, far[1]),
    ]
    ridge = [
        camera.project(far[0] + half, top, far[1]),
        camera.project(near[0] + half, top, near[1]),
    ]
    canvas.polygon(code, eaves + ridge, house.roof)
    foot = [
        camera.project(near[0], house.height, near[1]),
        camera.project(near[0] + 2 * half, house.height, near[1]),
    ]
    canvas.polygon(code, [*foot, ridge[1]], tint(house.wall, 0.86))


def _facade(
    canvas: Canvas, code: int, house: House, start: Point, end: Point, color: Color, *, shift: int
) -> None:
    """Paint a wall from `start` to `end`, both (X, Z), with its windows; `shift` chooses which windows are lit."""
    camera = canvas.camera
    corners = [camera.project(start[0], 0.0, start[1]), camera.project(start[0], house.height, start[1]),
               camera.project(end[0], house.height, end[1]), camera.project(end[0], 0.0, end[1])]  # fmt: skip
    canvas.polygon(code, corners, color)
    length = math.hypot(end[0] - start[0], end[1] - start[1])
    columns = max(1, int(length / house.bay))
    if abs(corners[3][0] - corners[0][0]) < 3.0 * columns:  # too narrow to show windows
        return
    along = (np.arange(columns)[:, None] + np.array((0.25, 0.75))) / columns
    x = start[0] + along * (end[0] - start[0])
    scale = camera.focal / np.maximum(start[1] + along * (end[1] - start[1]), 0.8)
    px = (camera.center + x * scale).tolist()
    scales = scale.tolist()
    rows = int(house.height / house.storey)
    lit = canvas.glowing(code) if canvas.night else code
    for floor in range(rows):
        low = floor * house.storey + 0.9
        high = low + 0.52 * house.storey
        if floor == 0 and house.shops:
            low, high = 0.35, 0.85 * house.storey
        for column in range(columns):
            (x0, x1), (k0, k1) = px[column], scales[column]
            if max(x0, x1) < 0 or min(x0, x1) >= camera.size[1]:
                continue
            pane = [
                _up(camera, x0, low, k0),
                _up(camera, x0, high, k0),
                _up(camera, x1, high, k1),
                _up(camera, x1, low, k1),
            ]
            bright = house.lit[(floor * 7 + column + shift) % len(house.lit)]
            if canvas.night and bright:
                canvas.polygon(lit, pane, house.glow)
            else:
                canvas.detail(
                    pane, tint(PANE, 0.75 + 0.06 * ((floor + 2 * column) % 5) + 0.2 * bright)
                )
    _trim(canvas, house, corners, start, end, color)


def _up(camera: Camera, x: float, y: float, scale: float) -> Point:
    """Return the pixel of height `y` in metres in column `x`, where one metre spans `scale` pixels."""
    return x, camera.horizon + (camera.height - y) * scale


def _trim(
    canvas: Canvas, house: House, corners: list[Point], start: Point, end: Point, color: Color
) -> None:
    """Paint the cornice below the roof and, over shops, their fascia."""
    bands = [(house.height - 0.35, house.height, tint(color, 1.15))]
    if house.shops:
        bands.append((0.86 * house.storey, 1.06 * house.storey, tint(house.roof, 1.25)))
    for low, high, shade in bands:
        k0, k1 = (canvas.camera.focal / max(z, 0.8) for z in (start[1], end[1]))
        (x0, _), (x1, _) = corners[0], corners[3]
        camera = canvas.camera
        canvas.detail(
            [
                _up(camera, x0, low, k0),
                _up(camera, x0, high, k0),
                _up(camera, x1, high, k1),
                _up(camera, x1, low, k1),
            ],
            shade,
        )


def skyline(camera: Camera, kind: str, rng: np.random.Generator) -> Item:
    """Return what closes the view at the horizon: a row of distant `building` or `vegetation`."""
    distance = between(rng, 150.0, 240.0)
    count = 26
    heights = (6.0 + 12.0 * rng.random(count)).tolist()
    color: Color = (
        pick(rng, ((128, 128, 134), (140, 130, 124)))
        if kind == "building"
        else pick(rng, ((70, 88, 56), (60, 78, 52)))
    )
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
