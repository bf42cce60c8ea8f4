"""The camera and the canvas: colours and labels are painted with the same polygons, so that labels are exact."""

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

CLASS_IDS = {info.name: index for index, info in enumerate(CITYSCAPES_CLASSES)}
CLASS_IDS["void"] = IGNORE_INDEX
NEAREST = 0.8
"""Metres before the camera at which geometry is clamped, so that nothing is projected from behind it."""


def tint(color: Color, factor: float) -> Color:
    """Return `color` multiplied by `factor`, held within 0 to 255."""
    red, green, blue = (max(0, min(255, int(value * factor))) for value in color)
    return red, green, blue


def pick(rng: np.random.Generator, options: Sequence[Any]) -> Any:
    """Return one of `options`, each equally likely."""
    return options[int(rng.random() * len(options))]


def between(rng: np.random.Generator, low: float, high: float) -> float:
    """Return a number from [`low`, `high`), each equally likely."""
    return low + (high - low) * float(rng.random())


@dataclass(frozen=True)
class Camera:
    """A pinhole camera above a flat road whose centre line is a parabola.

    World axes in metres: X to the right, Y up from the road, Z ahead; `s` is X measured from the road's centre line.

    size: (H, W) in pixels. focal: pixels. horizon: row of the horizon. center: column of the optical axis.
    height: metres above the road. bend: curvature of the road in 1/metre. slope: heading of the road at the camera, dX/dZ.
    """

    size: tuple[int, int]
    focal: float
    horizon: float
    center: float
    height: float
    bend: float
    slope: float

    def along(self, s: float, z: float) -> float:
        """Return the X of a point `s` metres right of the road's centre line at distance `z`."""
        return s + self.slope * z + 0.5 * self.bend * z * z

    def heading(self, z: float) -> float:
        """Return the direction of the road at distance `z`, in radians from straight ahead, right positive."""
        return math.atan(self.slope + self.bend * z)

    def project(self, x: float, y: float, z: float) -> Point:
        """Return column and row of a world point."""
        scale = self.focal / max(z, NEAREST)
        return self.center + x * scale, self.horizon + (self.height - y) * scale


class Region(NamedTuple):
    """What one code of the code map means: its labels, and what finishing must know about its surface.

    instance: 0 for stuff. depth: metres; 0 means the distance of the road at that row. grain, mottle: contrast of fine and
    coarse texture. glow: it shines by itself and is not darkened at night.
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
    """A lamp that shines into the lens: its place in pixels, radius in pixels, colour, and the code it must still show."""

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
        """Return the code of a shining part of the region `code`: the same labels, not darkened at night."""
        self.regions.append(self.regions[code]._replace(glow=True, grain=0.0, mottle=0.0))
        return len(self.regions) - 1

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

    depth: metres; items are painted from far to near. paint: draws it. base: corners (N, 2) of its footprint as (X, Z),
    empty if it casts no shadow. height: metres, for the length of the shadow.
    """

    depth: float
    paint: Callable[[Canvas], None]
    base: tuple[Point, ...] = ()
    height: float = 0.0


@dataclass(frozen=True)
class Frame:
    """Local axes of an object: `l` metres forward, `t` metres to its right, `y` metres up; yaw 0 heads away from us."""

    camera: Camera
    x: float
    z: float
    yaw: float

    def at(self, l: float, y: float, t: float) -> Point:  # noqa: E741 - length, as t is transverse
        """Return column and row of a local point."""
        sin, cos = math.sin(self.yaw), math.cos(self.yaw)
        return self.camera.project(self.x + l * sin + t * cos, y, self.z + l * cos - t * sin)

    def quad(self, start: Point, end: Point, t0: float, t1: float) -> list[Point]:
        """Return the rectangle that the segment from `start` to `end`, both (l, y), sweeps between `t0` and `t1`."""
        return [self.at(*start, t0), self.at(*end, t0), self.at(*end, t1), self.at(*start, t1)]

    def base(self, length: float, width: float) -> tuple[Point, ...]:
        """Return the footprint of an object of this `length` and `width` as (X, Z) corners."""
        sin, cos = math.sin(self.yaw), math.cos(self.yaw)
        corners = ((-1, -1), (-1, 1), (1, 1), (1, -1))
        halves = [(a * length / 2, b * width / 2) for a, b in corners]
        return tuple((self.x + l * sin + t * cos, self.z + l * cos - t * sin) for l, t in halves)

    @property
    def shows_right(self) -> float:
        """How far, in metres, the camera lies to the right of the object's axis."""
        return -self.x * math.cos(self.yaw) + self.z * math.sin(self.yaw)

    @property
    def shows_front(self) -> float:
        """How far, in metres, the camera lies ahead of the object's center."""
        return -self.x * math.sin(self.yaw) - self.z * math.cos(self.yaw)


@dataclass(frozen=True)
class Board:
    """A flat object that faces the camera: local coordinates in metres, `u` to the right and `v` up from its foot."""

    camera: Camera
    x: float
    z: float

    @property
    def scale(self) -> float:
        """Pixels per metre."""
        return self.camera.focal / max(self.z, NEAREST)

    def at(self, u: float, v: float) -> Point:
        """Return column and row of a local point."""
        return self.camera.project(self.x + u, v, self.z)

    def path(self, points: Sequence[Point]) -> list[Point]:
        """Return columns and rows of local points."""
        return [self.at(u, v) for u, v in points]


FloatMap = NDArray[np.float32]
