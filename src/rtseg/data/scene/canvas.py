"""The camera and the canvas: the same polygons paint colours and labels, so labels are exact."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from rtseg.data.cityscapes_classes import CITYSCAPES_CLASSES
from rtseg.structures import IGNORE_INDEX

Color = tuple[int, int, int]
Point = tuple[float, float]
FloatMap = NDArray[np.float32]

CLASS_IDS = {info.name: index for index, info in enumerate(CITYSCAPES_CLASSES)}
CLASS_IDS["void"] = IGNORE_INDEX
NEAREST = 0.8
"""Metres ahead of the camera at which geometry is clamped: nothing is projected from behind it."""


def tint(color: Color, factor: float) -> Color:
    """Return `color` multiplied by `factor`, held to at most 255."""
    red, green, blue = color
    return (
        min(255, int(red * factor)),
        min(255, int(green * factor)),
        min(255, int(blue * factor)),
    )


def pick(rng: np.random.Generator, options: Sequence[Any]) -> Any:
    """Return one of `options`, each equally likely."""
    return options[int(rng.random() * len(options))]


def between(rng: np.random.Generator, low: float, high: float) -> float:
    """Return a number from [`low`, `high`), each equally likely."""
    return low + (high - low) * float(rng.random())


@dataclass(frozen=True)
class Camera:
    """A pinhole camera above a flat road whose centre line is a parabola.

    World axes in metres: X to the right, Y up from the road, Z ahead; `s` is X measured from the
    road's centre line.

    size: (H, W) in pixels. focal: pixels. horizon: its row. center: column of the optical axis.
    height: metres above the road. bend: curvature of the road in 1/metre. slope: direction of the
    road at the camera, dX/dZ.
    """

    size: tuple[int, int]
    focal: float
    horizon: float
    center: float
    height: float
    bend: float
    slope: float

    def along(self, s: float, z: float) -> float:
        """Return the X of a point `s` metres right of the centre line, `z` metres ahead."""
        return s + self.slope * z + 0.5 * self.bend * z * z

    def heading(self, z: float) -> float:
        """Return the direction of the road `z` metres ahead in radians, right positive."""
        return math.atan(self.slope + self.bend * z)

    def project(self, x: float, y: float, z: float) -> Point:
        """Return column and row of a world point."""
        scale = self.focal / max(z, NEAREST)
        return self.center + x * scale, self.horizon + (self.height - y) * scale


class Region(NamedTuple):
    """What one code of the code map means: labels, and what finishing must know of its surface.

    class_id: train id, 255 for void. instance: 0 for stuff. depth: metres; 0 means that of the road
    in each row. grain, mottle: contrast of fine and of coarse texture. glow: it shines by itself
    and is not darkened at night. drivable, lane: its labels of those kinds.
    """

    class_id: int
    instance: int = 0
    depth: float = 0.0
    grain: float = 0.04
    mottle: float = 0.05
    glow: bool = False
    drivable: bool = False
    lane: bool = False


class Bloom(NamedTuple):
    """A lamp: place and radius in pixels, colour, and the code that shows there if it is seen."""

    x: float
    y: float
    radius: float
    color: Color
    code: int


@dataclass
class Canvas:
    """An RGB image and a map of region codes that are always painted together."""

    camera: Camera
    image: Image.Image
    codes: Image.Image
    regions: list[Region]
    night: bool
    sun: float
    """Side the light comes from: -1 left to 1 right; 0 is diffuse."""
    instances: int = 0
    blooms: list[Bloom] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.image_draw = ImageDraw.Draw(self.image)
        self.codes_draw = ImageDraw.Draw(self.codes)

    def stuff(self, name: str, depth: float, *, grain: float = 0.04, mottle: float = 0.05) -> int:
        """Open a region of class `name` at `depth` metres and return its code."""
        self.regions.append(Region(CLASS_IDS[name], 0, depth, grain, mottle))
        return len(self.regions) - 1

    def thing(self, name: str, depth: float, *, grain: float = 0.02, mottle: float = 0.03) -> int:
        """Open the region of a new instance of class `name` and return its code."""
        self.instances += 1
        self.regions.append(Region(CLASS_IDS[name], self.instances, depth, grain, mottle))
        return len(self.regions) - 1

    def glowing(self, code: int) -> int:
        """Return the code of a shining part of region `code`: same labels, bright at night."""
        self.regions.append(self.regions[code]._replace(glow=True, grain=0.0, mottle=0.0))
        return len(self.regions) - 1

    def shows(self, points: Sequence[Point]) -> bool:
        """Return whether any column from the first to the last of `points` lies in the picture."""
        columns = [column for column, _ in points]
        return max(columns) >= 0.0 and min(columns) < self.camera.size[1]

    def table(self, field_name: str) -> NDArray[Any]:
        """Return one field of all regions, to be looked up by code."""
        return np.array([getattr(region, field_name) for region in self.regions])

    def polygon(self, code: int, points: Sequence[Point], color: Color) -> None:
        """Fill a polygon with `color` and with `code`."""
        self.image_draw.polygon(points, fill=color)
        self.codes_draw.polygon(points, fill=code)

    def detail(self, points: Sequence[Point], color: Color) -> None:
        """Fill a polygon with `color` inside a region that is already there; labels stay."""
        self.image_draw.polygon(points, fill=color)

    def disc(self, code: int, center: Point, radius: float, color: Color) -> None:
        """Fill a disc of at least one pixel."""
        x, y = center
        radius = max(radius, 0.5)
        box = (x - radius, y - radius, x + radius, y + radius)
        self.image_draw.ellipse(box, fill=color)
        self.codes_draw.ellipse(box, fill=code)

    def limb(self, code: int, points: Sequence[Point], width: float, color: Color) -> None:
        """Draw a thick line through `points`; `width` in pixels, at least one."""
        pixels = max(1, round(width))
        self.image_draw.line(points, fill=color, width=pixels, joint="curve")
        self.codes_draw.line(points, fill=code, width=pixels, joint="curve")

    def lamp(self, code: int, center: Point, radius: float, color: Color) -> None:
        """Draw a shining disc and remember its bloom; `radius` in pixels."""
        lit = self.glowing(code)
        self.disc(lit, center, radius, color)
        self.blooms.append(Bloom(center[0], center[1], max(radius, 1.0), color, lit))


@dataclass(frozen=True)
class Item:
    """Something that stands on the ground.

    depth: metres; items are painted from far to near. paint: draws it. base: corners of its
    footprint as (X, Z), empty if it casts no shadow. height: metres, for the length of the shadow.
    """

    depth: float
    paint: Callable[[Canvas], None]
    base: tuple[Point, ...] = ()
    height: float = 0.0


class Frame:
    """Local axes of an object on the road; yaw 0 heads away from us.

    Local coordinates in metres: forward, up, and across to the object's right.
    """

    def __init__(self, camera: Camera, x: float, z: float, yaw: float) -> None:
        self.camera, self.x, self.z, self.yaw = camera, x, z, yaw
        self.sin, self.cos = math.sin(yaw), math.cos(yaw)
        self.right = -x * self.cos + z * self.sin
        """How far the camera lies to the right of the object's axis, in metres."""
        self.front = -x * self.sin - z * self.cos
        """How far the camera lies ahead of the object's center, in metres."""
        self.scale = camera.focal / max(z, 1.0)
        """Pixels per metre."""

    def at(self, forward: float, up: float, across: float) -> Point:
        """Return column and row of a local point."""
        x = self.x + forward * self.sin + across * self.cos
        z = self.z + forward * self.cos - across * self.sin
        camera = self.camera
        scale = camera.focal / (z if z > NEAREST else NEAREST)
        return camera.center + x * scale, camera.horizon + (camera.height - up) * scale

    def panel(self, points: Sequence[Point], across: float) -> list[Point]:
        """Return (forward, up) points in the upright plane at `across`."""
        return [self.at(forward, up, across) for forward, up in points]

    def quad(self, start: Point, end: Point, left: float, right: float) -> list[Point]:
        """Return what a segment between (forward, up) points sweeps from `left` to `right`."""
        return [
            self.at(*start, left),
            self.at(*end, left),
            self.at(*end, right),
            self.at(*start, right),
        ]

    def base(self, length: float, width: float) -> tuple[Point, ...]:
        """Return the footprint of an object of this `length` and `width` as (X, Z) corners."""
        corners = ((-0.5, -0.5), (-0.5, 0.5), (0.5, 0.5), (0.5, -0.5))
        halves = [(share * length, other * width) for share, other in corners]
        return tuple(
            (self.x + a * self.sin + b * self.cos, self.z + a * self.cos - b * self.sin)
            for a, b in halves
        )


class Board:
    """A flat object that faces us; local coordinates in metres, right of and above its foot."""

    def __init__(self, camera: Camera, x: float, z: float) -> None:
        self.x, self.z = x, z
        self.scale = camera.focal / max(z, NEAREST)
        """Pixels per metre."""
        self.column, self.row = camera.project(x, 0.0, z)

    def at(self, right: float, up: float) -> Point:
        """Return column and row of a local point."""
        return self.column + right * self.scale, self.row - up * self.scale

    def path(self, points: Sequence[Point]) -> list[Point]:
        """Return columns and rows of local points."""
        column, row, scale = self.column, self.row, self.scale
        return [(column + right * scale, row - up * scale) for right, up in points]

    def box(self, left: float, right: float, low: float, high: float) -> list[Point]:
        """Return an upright rectangle."""
        return self.path([(left, low), (left, high), (right, high), (right, low)])
