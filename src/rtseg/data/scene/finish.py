"""Turn painted surfaces into a photograph: texture, light, fog, rain, lamps, optics and sensor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from rtseg.data.scene.canvas import Camera, Canvas, Color, FloatMap
from rtseg.data.scene.ground import SKY, TERRAIN, noise

Codes = NDArray[np.intp]


@dataclass(frozen=True)
class Weather:
    """Light and air of a scene.

    weather: clear, overcast, rain or fog. timeofday: day, dusk or night. zenith, haze, cloud_color:
    of the sky. clouds: share of the sky they cover. sun: side it shines from, -1 left, 1 right, 0
    for none. ambient: brightness of each channel, 1 is daylight. headlight: brightness that our own
    lights add. air: colour that distance fades into. visibility: metres at which 63 % of the light
    is lost. gain: brightness of each channel set by the camera. noise: deviation of the sensor
    noise, in 0-255.
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


def planes(image: Image.Image) -> FloatMap:
    """Return an RGB image as float32 (3, H, W)."""
    return np.stack([np.asarray(plane) for plane in image.split()]).astype(np.float32)


def to_image(colors: FloatMap) -> Image.Image:
    """Return colours (3, H, W), held within 0 to 255, as an RGB image."""
    tones = np.clip(colors, 0.0, 255.0).astype(np.uint8)
    return Image.merge("RGB", [Image.fromarray(plane) for plane in tones])


def finish(canvas: Canvas, weather: Weather, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the photograph (H, W, 3) uint8 of a painted canvas."""
    shape = canvas.camera.size
    codes = np.asarray(canvas.codes).astype(np.intp)
    offsets = [(int(row), int(column)) for row, column in rng.integers(0, 512, (6, 2))]
    dark, rain = weather.timeofday != "day", weather.weather == "rain"
    image = planes(canvas.image)
    image *= _texture(canvas, codes, offsets[0], offsets[1])
    depth = _depth(canvas, codes)
    if dark:
        image *= _light(canvas, codes, depth, weather)
    if rain:
        _reflect(image, codes, canvas.camera)
    clear = np.exp(depth * np.float32(-1.0 / weather.visibility))
    image *= clear
    image += _per_channel(weather.air) * (np.float32(1.0) - clear)
    if dark:
        image += _bloom(canvas, codes)
    if rain:
        image += _rain(shape, rng)
    image *= _per_channel(weather.gain)
    np.clip(image, 0.0, 255.0, out=image)
    image = _soften(image)
    luma = noise(shape, 1, offsets[2]) * np.float32(0.8 * weather.noise)
    for channel in range(3):
        tone = noise(shape, 1, offsets[3 + channel]) * np.float32(0.5 * weather.noise)
        image[channel] += luma + tone
    return np.asarray(to_image(image + np.float32(0.5)))


def _per_channel(values: tuple[float, float, float]) -> FloatMap:
    """Return three numbers as (3, 1, 1)."""
    return np.array(values, np.float32)[:, None, None]


def _texture(
    canvas: Canvas, codes: Codes, first: tuple[int, int], second: tuple[int, int]
) -> FloatMap:
    """Return the brightness (H, W) that fine and coarse noise give to each surface."""
    shape = canvas.camera.size
    coarse = max(2, round(shape[0] / 36))  # blobs keep their share of the picture at every size
    fine = canvas.table("grain").astype(np.float32).take(codes)
    broad = canvas.table("mottle").astype(np.float32).take(codes)
    fine *= noise(shape, 2, first)
    broad *= noise(shape, coarse, second)
    contrast: FloatMap = np.maximum(fine + broad + np.float32(1.0), np.float32(0.0))
    return contrast


def _depth(canvas: Canvas, codes: Codes) -> FloatMap:
    """Return the distance (H, W) in metres."""
    camera = canvas.camera
    below = np.maximum(np.arange(camera.size[0]) + 0.5 - camera.horizon, 0.5)
    rows = (camera.focal * camera.height / below).astype(np.float32)[:, None]
    depth = canvas.table("depth").astype(np.float32).take(codes)
    return np.where(depth > 0.0, depth, rows)


def _light(canvas: Canvas, codes: Codes, depth: FloatMap, weather: Weather) -> FloatMap:
    """Return the brightness (3, H, W) of dusk or night, with the cone of our headlights."""
    camera = canvas.camera
    height, width = camera.size
    across = (np.arange(width, dtype=np.float32) - camera.center) / camera.focal
    down = (np.arange(height, dtype=np.float32) - camera.horizon) / camera.focal
    # decision: half widths of the beam in radians, wide across and aimed a little below the horizon
    beam = np.exp(-((down - 0.07) ** 2) / 0.04)[:, None] * np.exp(-(across**2) / 0.18)
    beam = weather.headlight * beam / (1.0 + (depth / 22.0) ** 2)
    shade = ~canvas.table("glow").take(codes)
    colors = zip(weather.ambient, (1.0, 0.95, 0.82), strict=True)
    light = [
        np.where(shade, ambient + warm * beam, np.float32(1.0)).astype(np.float32)
        for ambient, warm in colors
    ]
    return np.stack(light)


def _reflect(image: FloatMap, codes: Codes, camera: Camera) -> None:
    """Mirror, blurred, what stands above the horizon in wet ground."""
    height, width = camera.size
    start = min(height - 1, int(camera.horizon) + 1)
    wet = (codes[start:] > SKY) & (codes[start:] < TERRAIN)
    small = to_image(image).resize((max(1, width // 8), max(1, height // 16)))
    soft = planes(small.resize((width, height), Image.Resampling.BILINEAR))
    mirrored = np.clip(2 * int(camera.horizon) - np.arange(start, height), 0, height - 1)
    share = np.where(wet, np.float32(0.34), np.float32(0.0))
    image[:, start:] += share * (soft[:, mirrored] - image[:, start:])


def _bloom(canvas: Canvas, codes: Codes) -> FloatMap:
    """Return the halos (3, H, W) of the lamps that are not hidden."""
    height, width = canvas.camera.size
    small = Image.new("RGB", (max(1, width // 4), max(1, height // 4)))
    draw = ImageDraw.Draw(small)
    for lamp in canvas.blooms:
        x, y = int(lamp.x), int(lamp.y)
        if 0 <= x < width and 0 <= y < height and codes[y, x] == lamp.code:
            reach = min(lamp.radius, 0.02 * height) * 2.2 / 4
            box = (x / 4 - reach, y / 4 - reach, x / 4 + reach, y / 4 + reach)
            draw.ellipse(box, fill=lamp.color)
    halo = small.filter(ImageFilter.GaussianBlur(height / 160 + 0.5))
    return planes(halo.resize((width, height), Image.Resampling.BILINEAR)) * np.float32(0.8)


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


def _soften(image: FloatMap) -> FloatMap:
    """Return the image (3, H, W) as a lens blurs it: weights 1, 4, 1 down and across."""
    soft = image.copy()
    soft[:, 1:-1] *= np.float32(4.0 / 6.0)
    soft[:, 1:-1] += (image[:, :-2] + image[:, 2:]) * np.float32(1.0 / 6.0)
    result = soft.copy()
    result[:, :, 1:-1] *= np.float32(4.0 / 6.0)
    result[:, :, 1:-1] += (soft[:, :, :-2] + soft[:, :, 2:]) * np.float32(1.0 / 6.0)
    return result


def shade_ground(colors: FloatMap, shadows: Image.Image, strength: float) -> None:
    """Darken the ground (3, rows, W) where `shadows` (L, whole picture) is set."""
    top = shadows.height - colors.shape[1]
    soft = shadows.filter(ImageFilter.BoxBlur(max(1, shadows.height // 200)))
    mask = np.asarray(soft)[top:].astype(np.float32)
    colors *= 1.0 - mask * np.float32(strength / 255.0)
