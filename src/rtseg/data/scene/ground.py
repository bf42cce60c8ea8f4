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
    """A painted line at `s` metres; `dash`, `gap` and `phase` in metres, gap 0 for a solid one."""

    s: float
    width: float
    color: Color
    own: bool
    dash: float = 3.0
    gap: float = 0.0
    phase: float = 0.0


@dataclass(frozen=True)
class Ground:
    """What lies flat: strips from left to right, lines, and bands across the road.

    own: (left, right) edge of the own carriageway in metres. junction, crossing: (near, far) in
    metres, or None. rails: centres of tram tracks. paint: colour of the crossing's stripes.
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
    """Return noise (FIELD, FIELD) of mean 0 and deviation 1 with blobs about `cell` pixels wide."""
    rng = np.random.Generator(np.random.Philox(key=cell))
    white = rng.standard_normal((FIELD, FIELD))
    if cell > 1:  # a periodic Gaussian filter, so that the field tiles
        frequency = np.fft.fftfreq(FIELD)
        falloff = np.exp(-2.0 * (np.pi * frequency * cell / 2.5) ** 2)
        white = np.fft.ifft2(np.fft.fft2(white) * falloff[:, None] * falloff[None, :]).real
    white = (white - white.mean()) / white.std()
    field: FloatMap = np.clip(white, -3.0, 3.0).astype(np.float32)
    return field


def noise(shape: tuple[int, int], cell: int, offset: tuple[int, int]) -> FloatMap:
    """Return a piece (H, W) of the noise field of this `cell` size, starting at `offset`."""
    rows = (np.arange(shape[0]) + offset[0]) % FIELD
    columns = (np.arange(shape[1]) + offset[1]) % FIELD
    return noise_field(cell).take(rows, axis=0).take(columns, axis=1)


def ground_regions() -> list[Region]:
    """Return the fixed regions that every scene starts with; their index is their code.

    The sky's colour is that of the air already, so it has no depth to fade over, and it shines by
    itself.
    """
    road, sidewalk, terrain = CLASS_IDS["road"], CLASS_IDS["sidewalk"], CLASS_IDS["terrain"]
    return [
        Region(CLASS_IDS["sky"], depth=1e-3, grain=0.0, mottle=0.0, glow=True),
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
    """Return a sky (3, rows, W), 0-255, from `zenith` at the top to `haze` at the horizon.

    Args:
        shape: Rows above the horizon, and columns.
        zenith: Colour at the upper edge.
        haze: Colour at the horizon.
        clouds: Share of the sky that clouds cover, 0 to 1.
        cloud_color: Colour of the clouds.
        offset: Place in the noise field.
    """
    rows, columns = shape
    mix = np.linspace(0.0, 1.0, rows, dtype=np.float32) ** np.float32(1.5)
    top, low = np.array(zenith, np.float32), np.array(haze, np.float32)
    gradient = top[:, None] + mix * (low - top)[:, None]  # (3, rows)
    sky = np.repeat(gradient[:, :, None], columns, axis=2)
    if clouds > 0.0:
        scale = FIELD / max(columns, 1)
        down = (np.linspace(0, 1.0, rows) ** 0.7 * 260 + offset[0]).astype(np.intp) % FIELD
        across = (np.arange(columns) * scale + offset[1]).astype(np.intp) % FIELD
        puff = noise_field(72) + np.float32(0.45) * noise_field(20)
        puff = puff.take(down, axis=0).take(across, axis=1)
        cover = np.clip((puff + np.float32(3.0 * clouds - 1.5)) * np.float32(0.8), 0.0, 0.9)
        sky += cover * (np.array(cloud_color, np.float32)[:, None, None] - sky)
    return sky


@dataclass(frozen=True)
class _Floor:
    """The ground while it is painted, for the rows below the horizon.

    s: metres right of the road's centre line (rows, W). z: distance of each row in metres. pixel:
    metres per pixel across, of each row. codes: (rows, W). colors: (3, rows, W).
    """

    s: FloatMap
    z: FloatMap
    pixel: FloatMap
    codes: NDArray[np.int32]
    colors: FloatMap


def paint_ground(
    ground: Ground, camera: Camera, top: int, offset: tuple[int, int]
) -> tuple[FloatMap, NDArray[np.int32]]:
    """Return colours (3, rows, W) and codes (rows, W) of the ground in the rows from `top` down."""
    height, width = camera.size
    rows = np.arange(top, height, dtype=np.float32) + np.float32(0.5 - camera.horizon)
    z = np.float32(camera.focal * camera.height) / np.maximum(rows, np.float32(0.02))
    pixel = z * np.float32(1.0 / camera.focal)
    columns = np.arange(width, dtype=np.float32) + np.float32(0.5 - camera.center)
    axis = np.float32(camera.slope) * z + np.float32(0.5 * camera.bend) * z * z
    s = columns[None, :] * pixel[:, None] - axis[:, None]
    strip = np.zeros(s.shape, np.uint8)
    for entry in ground.strips[:-1]:
        strip += s > np.float32(entry.until)
    index = strip.astype(np.intp)
    codes = np.array([STRIP_CODES[entry.kind] for entry in ground.strips], np.int32).take(index)
    tones = np.array([entry.color for entry in ground.strips], np.float32).T
    floor = _Floor(s, z, pixel, codes, np.stack([tone.take(index) for tone in tones]))
    _slabs(floor, ground, strip)
    if ground.junction is not None:
        near, far = ground.junction
        band = _rows(z, near, far)
        codes[band] = OTHER
        floor.colors[:, band] = np.array(ground.asphalt, np.float32)[:, None, None]
    own = (s > np.float32(ground.own[0])) & (s < np.float32(ground.own[1])) & (codes == OTHER)
    codes[own] = OWN
    floor.colors[...] *= _wear(floor, ground, offset)
    _crossing(floor, ground)
    for line in ground.lines:
        _line(floor, ground, line)
    return floor.colors, codes


def _rows(z: FloatMap, near: float, far: float) -> slice:
    """Return the rows whose distance lies between `near` and `far`; `z` falls from row to row."""
    return slice(int(np.searchsorted(-z, -far)), int(np.searchsorted(-z, -near)))


def _slabs(floor: _Floor, ground: Ground, strip: NDArray[np.uint8]) -> None:
    """Darken the joints of paved strips, as far as they can be told apart."""
    band = _rows(floor.z, 0.0, 18.0)
    s, z = floor.s[band], floor.z[band]
    sides = {entry.pattern for entry in ground.strips if entry.pattern > 0.0}
    for side in sides:
        paved = np.array([entry.pattern == side for entry in ground.strips]).take(strip[band])
        across = s * np.float32(1.0 / side)
        joint = across - np.floor(across) < np.float32(0.12)
        joint |= ((z % (1.5 * side)) < 0.12 * side)[:, None]
        floor.colors[:, band] *= np.where(joint & paved, np.float32(0.86), np.float32(1.0))


def _wear(floor: _Floor, ground: Ground, offset: tuple[int, int]) -> FloatMap:
    """Return the brightness (rows, W) of the ground: texture, wheel tracks and patches."""
    s, z, codes = floor.s, floor.z, floor.codes
    rows = ((z * np.float32(24.0)).astype(np.intp) + offset[0]) % FIELD * FIELD
    columns = (s * np.float32(24.0)).astype(np.intp)
    columns += offset[1]
    columns &= FIELD - 1
    columns += rows[:, None]
    fade = np.minimum(np.float32(1.0), np.float32(9.0) / z)[:, None]
    strength = np.array([0.0, 0.06, 0.06, 0.06, 0.06, 0.05, 0.16], np.float32).take(codes)
    wear = strength * noise_field(3).ravel().take(columns)
    wear *= fade
    wear += np.float32(1.0)
    road = codes <= OTHER
    width = ground.own[1] - ground.own[0]
    lane = width / max(1, round(width / 3.5))
    tracks = np.cos((s - np.float32(ground.own[0])) * np.float32(4.0 * np.pi / lane))
    wear += np.where(road, np.float32(0.035) * tracks, np.float32(0.0))
    for s0, s1, z0, z1, brightness in ground.patches:
        band = _rows(z, z0, z1)
        here = (s[band] > np.float32(s0)) & (s[band] < np.float32(s1)) & road[band]
        wear[band][here] *= np.float32(brightness)
    return wear


def _crossing(floor: _Floor, ground: Ground) -> None:
    """Paint the stripes of the crosswalk and the steel of the tram tracks."""
    if ground.crossing is not None:
        band = _rows(floor.z, *ground.crossing)
        part = floor.s[band]
        left, right = ground.carriageway
        stripe = (part % 1.0 < 0.5) & (part > left + 0.3) & (part < right - 0.3)
        floor.colors[:, band] = np.where(stripe, np.float32(215.0), floor.colors[:, band])
    for center in ground.rails:
        for rail in (center - 0.72, center + 0.72):
            half = np.maximum(np.float32(0.05), np.float32(0.35) * floor.pixel)[:, None]
            row, column = np.nonzero(np.abs(floor.s - np.float32(rail)) < half)
            steel = floor.codes[row, column] <= OTHER
            tone = np.array([[92.0], [90.0], [88.0]], np.float32)
            floor.colors[:, row[steel], column[steel]] = tone


def _line(floor: _Floor, ground: Ground, line: Line) -> None:
    """Paint a lane line, at least one pixel wide, where no junction or crossing interrupts it."""
    z = floor.z
    painted = z < 90.0
    if line.gap > 0.0:
        painted &= (z + line.phase) % (line.dash + line.gap) < line.dash
    if ground.junction is not None:
        painted &= (z < ground.junction[0]) | (z > ground.junction[1])
    if ground.crossing is not None:
        painted &= (z < ground.crossing[0] - 1.0) | (z > ground.crossing[1] + 1.0)
    rows = np.flatnonzero(painted)
    half = np.maximum(0.5 * line.width, 0.55 * floor.pixel[rows])[:, None]
    row, column = np.nonzero(np.abs(floor.s[rows] - np.float32(line.s)) < half)
    row = rows[row]
    ink = np.array(line.color, np.float32)[:, None] * np.float32(0.85)
    floor.colors[:, row, column] = np.float32(0.15) * floor.colors[:, row, column] + ink
    floor.codes[row, column] = OWN_LINE if line.own else OTHER_LINE
