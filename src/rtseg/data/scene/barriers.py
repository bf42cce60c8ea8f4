"""What runs along the road: walls, fences, guard rails and hedges."""

from __future__ import annotations

import math
from itertools import pairwise

from rtseg.data.scene.canvas import Camera, Canvas, Color, Item, Point, tint

PICKETS_FROM = 14.0
"""Pixels per metre from which the pickets of a fence are drawn one by one."""


class Barrier:
    """A piece of barrier that follows the road.

    s: its place on the road's axis in metres. z0, z1: where it starts and ends. height: metres.
    """

    def __init__(
        self, camera: Camera, s: float, *, z0: float, z1: float, height: float, color: Color
    ) -> None:
        self.camera, self.s, self.height, self.color = camera, s, height, color
        self.z0, self.z1 = z0, z1
        stations = [z0 + k * (z1 - z0) / 4 for k in range(5)]
        self.feet = [(camera.along(s, z), z) for z in stations]

    def edge(self, up: float) -> list[Point]:
        """Return the pixels of the line `up` metres above the foot."""
        return [self.camera.project(x, up, z) for x, z in self.feet]

    def band(self, low: float, high: float) -> list[Point]:
        """Return the polygon between two heights in metres."""
        return self.edge(low) + self.edge(high)[::-1]

    def light(self, canvas: Canvas) -> Color:
        """Return the colour of the side that faces the road."""
        return tint(self.color, 0.9 - 0.12 * canvas.sun * math.copysign(1.0, self.s))


def _wall(canvas: Canvas, barrier: Barrier, color: Color) -> None:
    """Paint courses of stone below a coping."""
    code = canvas.stuff("wall", barrier.z0, grain=0.06, mottle=0.06)
    height = barrier.height
    canvas.polygon(code, barrier.band(0.0, height), color)
    if barrier.camera.focal / barrier.z0 > 12.0:
        for course in range(1, int((height - 0.2) / 0.4) + 1):
            canvas.detail(barrier.band(0.4 * course, 0.4 * course + 0.035), tint(color, 0.82))
    canvas.detail(barrier.band(height - 0.14, height), tint(color, 1.14))


def _fence(canvas: Canvas, barrier: Barrier, color: Color) -> None:
    """Paint pickets and two rails; what shows between them counts as fence."""
    code = canvas.stuff("fence", barrier.z0, grain=0.05, mottle=0.04)
    height, camera = barrier.height, barrier.camera
    canvas.polygon(code, barrier.band(0.0, height), tint(color, 0.5))
    for (xa, za), (xb, zb) in pairwise(barrier.feet):
        if camera.focal / za < PICKETS_FROM:
            break
        for k in range(7):
            picket: list[Point] = []
            for share in (k / 7, (k + 0.55) / 7):
                x, z = xa + share * (xb - xa), za + share * (zb - za)
                ends = [camera.project(x, 0.06, z), camera.project(x, height, z)]
                picket += ends if not picket else ends[::-1]
            canvas.detail(picket, color)
    for low in (0.22, height - 0.16):
        canvas.detail(barrier.band(low, low + 0.1), tint(color, 1.08))


def _rail(canvas: Canvas, barrier: Barrier, color: Color) -> None:
    """Paint the beam of a guard rail and its posts."""
    code = canvas.stuff("fence", barrier.z0, grain=0.03, mottle=0.03)
    height, camera = barrier.height, barrier.camera
    canvas.polygon(code, barrier.band(0.3 * height, height), color)
    canvas.detail(barrier.band(0.58 * height, 0.7 * height), tint(color, 0.66))
    canvas.detail(barrier.band(0.9 * height, height), tint(color, 1.15))
    for x, z in barrier.feet[::2]:
        corners = ((-0.07, 0.0), (-0.07, height), (0.07, height), (0.07, 0.0))
        post = [camera.project(x + dx, up, z) for dx, up in corners]
        canvas.polygon(code, post, tint(color, 0.75))


def _hedge(canvas: Canvas, barrier: Barrier, color: Color) -> None:
    """Paint a clipped hedge, darker towards the ground."""
    code = canvas.stuff("vegetation", barrier.z0, grain=0.14, mottle=0.1)
    canvas.polygon(code, barrier.band(0.0, barrier.height), color)
    canvas.detail(barrier.band(0.0, 0.5 * barrier.height), tint(color, 0.8))
    for k, (x, z) in enumerate(barrier.feet[:-1]):
        column, row = barrier.camera.project(x, barrier.height, z)
        radius = (0.1 + 0.05 * (k % 3)) * barrier.camera.focal / z
        canvas.disc(code, (column, row), radius, tint(color, 1.0 + 0.04 * (k % 3)))


PAINTERS = {"wall": _wall, "fence": _fence, "rail": _rail, "hedge": _hedge}


def barrier(
    camera: Camera, kind: str, *, s: float, z0: float, z1: float, height: float, color: Color
) -> Item:
    """Return a piece of barrier along the road from `z0` to `z1`.

    Args:
        camera: Who looks at it.
        kind: `wall`, `fence`, `rail` or `hedge`.
        s: Place on the road's axis in metres.
        z0: Near end in metres.
        z1: Far end in metres.
        height: Metres.
        color: Of its material in daylight.
    """
    piece = Barrier(camera, s, z0=z0, z1=z1, height=height, color=color)

    def paint(canvas: Canvas) -> None:
        if canvas.shows(piece.edge(0.0)):
            PAINTERS[kind](canvas, piece, piece.light(canvas))

    return Item(z1, paint, (piece.feet[0], piece.feet[-1]), height)
