"""Turn painted surfaces into a photograph: texture, light, fog, rain, lamps, optics and sensor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from rtseg.data.scene.canvas import Camera, Canvas, Color, FloatMap
from rtseg.data.scene.ground import TERRAIN, noise


@dataclass(frozen=True)
class Weather:
    """Light and air of a scene.

    weather: clear, overcast, rain or fog. timeofday: day, dusk or night. ambient: brightness of each channel, 1 is daylight.
    headlight: extra brightness of what our headlights reach. air: colour that distance fades into. visibility: metres at
    which 63 % of the light is lost. gain: brightness of each channel set by the camera. noise: deviation of the sensor noise.
    """

    weather: str
    timeofday: str
    zenith: Color
    haze: Color
    cloud_color: Color
    clouds: float
    sun: float
    ambient: tuple[float, float, float]
    headlight: float
    air: Color
    visibility: float
    gain: tuple[float, float, float]
    noise: float


def finish(canvas: Canvas, weather: Weather, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the photograph (H, W, 3) uint8 of a painted canvas."""
    camera = canvas.camera
    shape = camera.size
    codes = np.asarray(canvas.codes)
    offsets = rng.integers(0, 512, (6, 2))
    image = np.asarray(canvas.image).astype(np.float32)
    image *= _texture(canvas, codes, offsets)[..., None]
    depth = _depth(canvas, codes)
    if weather.timeofday != "day":
        image *= _light(canvas, codes, depth, weather)
    if weather.weather == "rain":
        _reflect(image, codes, camera)
    clear = np.exp(depth * np.float32(-1.0 / weather.visibility))[..., None]
    air = np.float32(weather.air)
    image = np.where((codes == 0)[..., None], image, air + clear * (image - air))
    if weather.timeofday != "day":
        image += _bloom(canvas, codes)
    if weather.weather == "rain":
        image += _rain(shape, rng)[..., None]
    image *= np.float32(weather.gain)
    np.clip(image, 0.0, 255.0, out=image)
    soft = Image.fromarray(image.astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.55))
    image = np.asarray(soft).astype(np.float32)
    luma = noise(shape, 1, tuple(offsets[2]))
    for channel in range(3):
        tone = noise(shape, 1, tuple(offsets[3 + channel]))
        image[..., channel] += weather.noise * (0.8 * luma + 0.5 * tone)
    return np.clip(image + 0.5, 0.0, 255.0).astype(np.uint8)


def _texture(canvas: Canvas, codes: NDArray[np.int32], offsets: NDArray[np.int64]) -> FloatMap:
    """Return the brightness (H, W) that fine and coarse noise give to each surface."""
    shape = canvas.camera.size
    coarse = max(2, round(shape[0] / 36))  # blobs keep their share of the picture at every size
    grain = np.array([region.grain for region in canvas.regions], np.float32)[codes]
    mottle = np.array([region.mottle for region in canvas.regions], np.float32)[codes]
    fine = noise(shape, 2, tuple(offsets[0]))
    return 1.0 + grain * fine + mottle * noise(shape, coarse, tuple(offsets[1]))


def _depth(canvas: Canvas, codes: NDArray[np.int32]) -> FloatMap:
    """Return the distance (H, W) in metres."""
    camera = canvas.camera
    below = np.maximum(np.arange(camera.size[0]) + 0.5 - camera.horizon, 0.5)
    rows = (camera.focal * camera.height / below).astype(np.float32)[:, None]
    depth = np.array([region.depth for region in canvas.regions], np.float32)[codes]
    return np.where(depth > 0.0, depth, rows)


def _light(canvas: Canvas, codes: NDArray[np.int32], depth: FloatMap, weather: Weather) -> FloatMap:
    """Return the brightness (H, W, 3) of dusk or night, with the cone of our headlights."""
    camera = canvas.camera
    height, width = camera.size
    light = np.broadcast_to(np.float32(weather.ambient), (height, width, 3)).copy()
    if weather.headlight > 0.0:
        across = (np.arange(width) - camera.center) / camera.focal
        down = (np.arange(height) - camera.horizon) / camera.focal
        cone = (
            np.exp(-((across / 0.42) ** 2))[None, :]
            * np.exp(-(((down - 0.07) / 0.2) ** 2))[:, None]
        )
        reach = 1.0 / (1.0 + (depth / 22.0) ** 2)
        light += (weather.headlight * cone * reach)[..., None].astype(np.float32) * np.float32(
            (1.0, 0.95, 0.82)
        )
    glow = np.array([region.glow for region in canvas.regions])[codes]
    light[glow | (codes == 0)] = 1.0
    return light


def _reflect(image: FloatMap, codes: NDArray[np.int32], camera: Camera) -> None:
    """Mirror what stands above the horizon in wet ground."""
    height = camera.size[0]
    start = min(height, int(camera.horizon) + 1)
    mirrored = np.clip(2 * int(camera.horizon) - np.arange(start, height), 0, height - 1)
    wet = (codes[start:] > 0) & (codes[start:] < TERRAIN)
    share = np.where(wet, np.float32(0.28), np.float32(0.0))[..., None]
    image[start:] += share * (image[mirrored] - image[start:])


def _bloom(canvas: Canvas, codes: NDArray[np.int32]) -> FloatMap:
    """Return the halos (H, W, 3) of the lamps that are not hidden."""
    height, width = canvas.camera.size
    small = Image.new("RGB", (max(1, width // 4), max(1, height // 4)))
    draw = ImageDraw.Draw(small)
    for lamp in canvas.blooms:
        x, y = int(lamp.x), int(lamp.y)
        if 0 <= x < width and 0 <= y < height and codes[y, x] == lamp.code:
            reach = min(lamp.radius, 0.02 * height) * 2.2 / 4
            box = (x / 4 - reach, y / 4 - reach, x / 4 + reach, y / 4 + reach)
            draw.ellipse(box, fill=lamp.color)
    halo = small.filter(ImageFilter.GaussianBlur(height / 4 / 40 + 0.5))
    wide = halo.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(wide).astype(np.float32) * np.float32(0.8)


def _rain(shape: tuple[int, int], rng: np.random.Generator) -> FloatMap:
    """Return the brightness (H, W) that falling drops add."""
    height, width = shape
    streaks = Image.new("L", (width, height))
    draw = ImageDraw.Draw(streaks)
    slant = float(rng.random()) * 0.3 - 0.15
    for x, y, length, shine in rng.random((110, 4)).tolist():
        x0, y0, span = x * width, y * height, (0.03 + 0.08 * length) * height
        draw.line((x0, y0, x0 + slant * span, y0 + span), fill=int(20 + 40 * shine))
    return np.asarray(streaks).astype(np.float32)


def shade_ground(colors: FloatMap, shadows: Image.Image, strength: float) -> None:
    """Darken the ground (rows, W, 3) where `shadows` (L, whole picture) is set."""
    top = shadows.height - colors.shape[0]
    soft = shadows.filter(ImageFilter.BoxBlur(max(1, shadows.height // 200)))
    mask = np.asarray(soft)[top:].astype(np.float32)
    colors *= 1.0 - mask[..., None] * np.float32(strength / 255.0)
