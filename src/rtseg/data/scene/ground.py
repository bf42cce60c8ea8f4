"""Sky and ground, computed per pixel: every road pixel knows its place on the road in metres."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rtseg.data.scene.canvas import CLASS_IDS, Camera, Color, FloatMap, Region

FIELD = 512
"""Side of the precomputed noise fields in pixels; they repeat beyond it."""


@dataclass(frozen=True)
class Strip:
    """A band of ground along the road, up to `until` metres right of the road's centre line.

    pattern: side of the paving slabs in metres, 0 for none.
    """

    until: float
    kind: str
    color: Color
    pattern: float = 0.0


@dataclass(frozen=True)
class Line:
    """A painted line along the road at `s` metres; `dash` and `gap` in metres, gap 0 for a solid one."""

    s: float
    width: float
    color: Color
    own: bool
    dash: float = 3.0
    gap: float = 0.0
    phase: float = 0.0


@dataclass(frozen=True)
class Ground:
    """Everything that lies flat: strips from left to right, lines, and bands across the road at a distance.

    own: (left, right) edge of the own carriageway in metres. junction, crossing: (near, far) in metres, or None.
    rails: centres of tram tracks. paint: colour of the crossing's stripes.
    """

    strips: tuple[Strip, ...]
    lines: tuple[Line, ...]
    carriageway: tuple[float, float]
    own: tuple[float, float]
    asphalt: Color
    junction: tuple[float, float] | None = None
    crossing: tuple[float, float] | None = None
    rails: tuple[float, ...] = ()
    patches: tuple[tuple[float, float, float, float, float], ...] = ()
    """Repairs of the surface: (s0, s1, z0, z1, brightness)."""


@lru_cache(maxsize=8)
def noise_field(cell: int) -> FloatMap:
    """Return smooth noise (FIELD, FIELD) float32 of mean 0 and deviation 1 whose blobs are about `cell` pixels wide."""
    rng = np.random.Generator(np.random.Philox(key=cell))
    white = rng.standard_normal((FIELD, FIELD))
    if cell > 1:  # a periodic Gaussian filter, so that the field tiles
        frequency = np.fft.fftfreq(FIELD)
        falloff = np.exp(-2.0 * (np.pi * frequency * cell / 2.5) ** 2)
        white = np.fft.ifft2(np.fft.fft2(white) * falloff[:, None] * falloff[None, :]).real
    white = (white - white.mean()) / white.std()
    return np.clip(white, -3.0, 3.0).astype(np.float32)


def noise(shape: tuple[int, int], cell: int, offset: tuple[int, int]) -> FloatMap:
    """Return a piece (H, W) of the noise field of this `cell` size, starting at `offset`."""
    rows = (np.arange(shape[0]) + offset[0]) % FIELD
    columns = (np.arange(shape[1]) + offset[1]) % FIELD
    return noise_field(cell).take(rows, axis=0).take(columns, axis=1)


def ground_regions() -> list[Region]:
    """Return the fixed regions that every scene starts with; their index is their code."""
    road, sidewalk, terrain = CLASS_IDS["road"], CLASS_IDS["sidewalk"], CLASS_IDS["terrain"]
    return [
        Region(CLASS_IDS["sky"], depth=1e4, grain=0.0, mottle=0.0),
        Region(road, grain=0.03, mottle=0.02, drivable=True),
        Region(road, grain=0.03, mottle=0.02),
        Region(road, grain=0.02, mottle=0.03, drivable=True, lane=True),
        Region(road, grain=0.02, mottle=0.03, lane=True),
        Region(sidewalk, grain=0.03, mottle=0.03),
        Region(terrain, grain=0.10, mottle=0.10),
    ]


SKY, OWN, OTHER, OWN_LINE, OTHER_LINE, SIDEWALK, TERRAIN = range(7)
STRIP_CODES = {"road": OTHER, "sidewalk": SIDEWALK, "terrain": TERRAIN}


def paint_sky(
    shape: tuple[int, int],
    *,
    zenith: Color,
    haze: Color,
    clouds: float,
    cloud_color: Color,
    offset: tuple[int, int],
) -> FloatMap:
    """Return a sky (rows, W, 3), 0-255, from `zenith` at the top to `haze` at the horizon.

    Args:
        shape: Rows above the horizon, and columns.
        clouds: Share of the sky that clouds cover, 0 to 1.
        offset: Place in the noise field.
    """
    rows, columns = shape
    mix = np.linspace(0.0, 1.0, rows, dtype=np.float32) ** 1.5
    top, low = np.float32(zenith), np.float32(haze)
    sky = np.broadcast_to(
        (top + mix[:, None] * (low - top))[:, None, :], (rows, columns, 3)
    ).astype(np.float32)
    if clouds > 0.0:
        scale = FIELD / max(columns, 1)
        down = (np.linspace(0, 1.0, rows) ** 0.7 * 260 + offset[0]).astype(np.int64) % FIELD
        across = (np.arange(columns) * scale + offset[1]).astype(np.int64) % FIELD
        puff = noise_field(72).take(down, axis=0).take(across, axis=1)
        puff = puff + 0.45 * noise_field(20).take(down, axis=0).take(across, axis=1)
        cover = np.clip((puff + 3.0 * clouds - 1.5) * 0.8, 0.0, 0.9)[..., None]
        sky += cover * (np.float32(cloud_color) - sky)
    return sky


def paint_ground(
    ground: Ground, camera: Camera, top: int, offset: tuple[int, int]
) -> tuple[FloatMap, NDArray[np.int32]]:
    """Return colours (rows, W, 3) and codes (rows, W) of the ground in the rows from `top` to the bottom."""
    height, width = camera.size
    z = camera.focal * camera.height / (np.arange(top, height) + 0.5 - camera.horizon)
    z = z.astype(np.float32)
    pixel = z / camera.focal  # metres per pixel across
    columns = np.arange(width, dtype=np.float32) + (0.5 - camera.center)
    axis = camera.slope * z + 0.5 * camera.bend * z * z
    s = columns[None, :] * pixel[:, None] - axis[:, None]
    strip = np.zeros(s.shape, np.uint8)
    for entry in ground.strips[:-1]:
        strip += s > entry.until
    codes = np.array([STRIP_CODES[e.kind] for e in ground.strips], np.int32)[strip]
    colors = np.array([e.color for e in ground.strips], np.float32)[strip]
    _slabs(colors, ground, strip, s, z)
    if ground.junction is not None:
        near, far = ground.junction
        rows = (z > near) & (z < far)
        codes[rows], colors[rows] = OTHER, ground.asphalt
    own = (s > ground.own[0]) & (s < ground.own[1]) & (codes == OTHER)
    codes[own] = OWN
    colors *= _wear(ground, s, z, codes, offset)[..., None]
    _lines(colors, codes, ground, s, z, pixel)
    return colors, codes


def _slabs(
    colors: FloatMap, ground: Ground, strip: NDArray[np.uint8], s: FloatMap, z: FloatMap
) -> None:
    """Darken the joints of paved strips, as far as they can be told apart."""
    near = int(np.searchsorted(-z, -18.0))  # first row nearer than 18 m; z falls towards the bottom
    for index, entry in enumerate(ground.strips):
        if entry.pattern == 0.0:
            continue
        side = entry.pattern
        part = s[near:]
        joint = (part % side < 0.12 * side) | ((z[near:] % (1.5 * side)) < 0.12 * side)[:, None]
        colors[near:][joint & (strip[near:] == index)] *= 0.86


def _wear(
    ground: Ground, s: FloatMap, z: FloatMap, codes: NDArray[np.int32], offset: tuple[int, int]
) -> FloatMap:
    """Return the brightness (rows, W) of the surface: texture that lies on the ground, wheel tracks, patches."""
    rows = (z * 24.0).astype(np.int64)[:, None] + offset[0]
    columns = (s * 24.0).astype(np.int32) + offset[1]
    fade = np.minimum(1.0, 9.0 / z)[:, None]
    rough = noise_field(3).ravel().take((rows % FIELD) * FIELD + columns % FIELD)
    strength = np.float32([0.0, 0.06, 0.06, 0.06, 0.06, 0.05, 0.16])[codes]
    wear = 1.0 + strength * fade * rough
    road = codes <= OTHER
    lane = (ground.own[1] - ground.own[0]) / max(1, round((ground.own[1] - ground.own[0]) / 3.5))
    tracks = np.cos((s - ground.own[0]) * np.float32(4.0 * np.pi / lane))
    wear += np.where(road, 0.035 * tracks, 0.0).astype(np.float32)
    for s0, s1, z0, z1, brightness in ground.patches:
        band = np.flatnonzero((z > z0) & (z < z1))
        if band.size:
            rows_here = slice(band[0], band[-1] + 1)
            here = (s[rows_here] > s0) & (s[rows_here] < s1) & road[rows_here]
            wear[rows_here][here] *= brightness
    return wear.astype(np.float32)


def _lines(
    colors: FloatMap,
    codes: NDArray[np.int32],
    ground: Ground,
    s: FloatMap,
    z: FloatMap,
    pixel: FloatMap,
) -> None:
    """Paint rails, the crossing and the lane lines; far lines keep one pixel of width."""
    open_road = np.ones(z.shape, bool)
    if ground.junction is not None:
        open_road &= (z < ground.junction[0]) | (z > ground.junction[1])
    if ground.crossing is not None:
        near, far = ground.crossing
        band = (z > near) & (z < far)
        part = s[band]
        left, right = ground.carriageway
        stripe = (part % 1.0 < 0.5) & (part > left + 0.3) & (part < right - 0.3)
        colors[band] = np.where(stripe[..., None], np.float32(215.0), colors[band])
        open_road &= (z < near - 1.0) | (z > far + 1.0)
    for center in ground.rails:
        for rail in (center - 0.72, center + 0.72):
            steel = np.abs(s - rail) < np.maximum(0.05, 0.35 * pixel)[:, None]
            colors[steel & (codes <= OTHER)] = (92.0, 90.0, 88.0)
    for line in ground.lines:
        painted = open_road & (z < 90.0)
        if line.gap > 0.0:
            painted &= (z + line.phase) % (line.dash + line.gap) < line.dash
        rows = np.flatnonzero(painted)
        half = np.maximum(0.5 * line.width, 0.55 * pixel[rows])[:, None]
        row, column = np.nonzero(np.abs(s[rows] - line.s) < half)
        row = rows[row]
        colors[row, column] = 0.15 * colors[row, column] + 0.85 * np.float32(line.color)
        codes[row, column] = OWN_LINE if line.own else OTHER_LINE
