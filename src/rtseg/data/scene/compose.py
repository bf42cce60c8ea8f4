"""Place buildings, plants, street furniture, traffic and people; draw them from far to near."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from rtseg.data.scene import buildings, people, roadside, vehicles
from rtseg.data.scene.barriers import barrier
from rtseg.data.scene.canvas import Board, Camera, Canvas, Frame, Item, Region, between, pick, tint
from rtseg.data.scene.finish import Weather, finish, shade_ground, to_image
from rtseg.data.scene.ground import ground_regions, paint_ground, paint_sky
from rtseg.data.scene.plan import (
    Side,
    Street,
    plan_camera,
    plan_ground,
    plan_street,
    plan_weather,
    shadow_offset,
)

FAR = 75.0
"""Metres beyond which no small thing is placed: it would be a few pixels."""

BARRIER_COLORS = {
    "wall": ((150, 144, 136), (136, 84, 66), (176, 168, 152), (118, 116, 114)),
    "fence": ((122, 92, 62), (70, 84, 74), (176, 172, 164), (84, 84, 90), (150, 118, 82)),
    "rail": ((168, 172, 174), (150, 152, 156)),
    "hedge": roadside.LEAVES,
}


@dataclass(frozen=True)
class Scene:
    """A drawn scene: image uint8 (H, W, 3), codes int32 (H, W) that index `regions`, and facts."""

    image: NDArray[np.uint8]
    codes: NDArray[np.int32]
    regions: tuple[Region, ...]
    attributes: dict[str, str]


def draw_scene(rng: np.random.Generator, size: tuple[int, int]) -> Scene:
    """Draw a random scene of `size` (H, W) pixels.

    The same state of the generator gives the same street at every size.
    """
    camera = plan_camera(size, rng)
    street, weather = plan_street(rng), plan_weather(rng)
    ground = plan_ground(street, rng)
    offset = tuple(rng.integers(0, 512, 2).tolist())
    items = place(camera, street, weather, rng)
    top = max(0, min(size[0] - 1, math.ceil(camera.horizon)))
    sky = paint_sky(
        (top, size[1]),
        zenith=weather.zenith,
        haze=weather.haze,
        clouds=weather.clouds,
        cloud_color=weather.cloud_color,
        offset=offset,
    )
    floor, floor_codes = paint_ground(ground, camera, top, offset)
    shadows = _cast_shadows(camera, items, shadow_offset(weather, rng))
    shade_ground(floor, shadows, 0.5 if weather.sun else 0.3)
    codes = np.concatenate([np.zeros((top, size[1]), np.int32), floor_codes])
    canvas = Canvas(
        camera,
        to_image(np.concatenate([sky, floor], axis=1)),
        Image.fromarray(codes),
        ground_regions(),
        night=weather.timeofday == "night",
        sun=weather.sun,
    )
    for item in sorted(items, key=lambda item: -item.depth):
        item.paint(canvas)
    attributes = {
        "weather": weather.weather,
        "timeofday": weather.timeofday,
        "scene": street.scene,
    }
    image = finish(canvas, weather, rng)
    return Scene(image, np.asarray(canvas.codes), tuple(canvas.regions), attributes)


def place(camera: Camera, street: Street, weather: Weather, rng: np.random.Generator) -> list[Item]:
    """Return everything that stands or moves in a street."""
    dark = weather.timeofday != "day"
    lit = dark or weather.weather in ("rain", "fog")
    kind = "building" if street.scene == "city street" and rng.random() < 0.7 else "vegetation"
    items = [buildings.skyline(camera, kind, rng)]
    for side in street.sides:
        items += _built(camera, street, side, rng)
        items += _edge(camera, street, side, rng)
        items += _plants(camera, street, side, rng)
        items += _furniture(camera, street, side, rng, lit=dark)
        if side.walk:
            items += _pavement(camera, street, side, rng, wet=weather.weather == "rain")
    items += _parked(camera, street, rng)
    items += _moving(camera, street, rng, lit=lit)
    items += _special(camera, street, rng, lit=lit)
    if rng.random() < 0.2:
        items.append(_bonnet(rng))
    return items


def _cast_shadows(camera: Camera, items: list[Item], offset: tuple[float, float]) -> Image.Image:
    """Return where the ground lies in shadow (L, 255 = shadow)."""
    shadows = Image.new("L", (camera.size[1], camera.size[0]))
    draw = ImageDraw.Draw(shadows)
    for item in items:
        if not item.base or item.depth > FAR:
            continue
        reach = min(item.height, 12.0)
        dx, dz = offset[0] * reach, offset[1] * reach
        foot = [camera.project(x, 0.0, z) for x, z in item.base]
        tip = [camera.project(x + dx, 0.0, z + dz) for x, z in item.base]
        if len(foot) > 2:
            draw.polygon(foot, fill=255)
            draw.polygon(tip, fill=255)
        for k in range(len(foot)):
            n = (k + 1) % len(foot)
            draw.polygon([foot[k], foot[n], tip[n], tip[k]], fill=255)
    return shadows


def _built(camera: Camera, street: Street, side: Side, rng: np.random.Generator) -> list[Item]:
    """Return the row of buildings along one side, with gaps."""
    items = []
    z = between(rng, 1.0, 6.0)
    while z < 110.0 and side.built:
        block = side.built == "block"
        length = between(rng, 10.0, 24.0) if block else between(rng, 7.0, 13.0)
        s = side.at(side.setback + between(rng, 0.0, 0.5 if block else 2.0))
        if not (street.blocked(z, 1.5) or street.blocked(z + length, 1.5)):
            items.append(buildings.house(camera, s, z, z + length, rng, tall=block, shops=block))
        elif street.junction is not None and z < street.junction[0] - 8.0:
            end = street.junction[0] - 2.0
            items.append(buildings.house(camera, s, z, end, rng, tall=block, shops=block))
        z += length
        if street.blocked(z, 1.5) and street.junction is not None:
            z = street.junction[1] + 2.0
        elif not block or rng.random() < 0.25:
            z += between(rng, 2.0, 7.0)
    return items


def _edge(camera: Camera, street: Street, side: Side, rng: np.random.Generator) -> list[Item]:
    """Return the walls, fences, hedges or rails along one side."""
    items = []
    kind, outward = side.edge, side.walk + side.verge
    height = {"wall": (1.0, 2.2), "fence": (1.1, 1.9), "rail": (0.8, 0.95), "hedge": (0.9, 1.8)}
    if street.scene == "highway" and kind in ("wall", "fence"):
        height = {"wall": (2.5, 4.0), "fence": (1.8, 2.4)}
    if kind:
        color, tall = pick(rng, BARRIER_COLORS[kind]), between(rng, *height[kind])
        z = 1.5
        while z < 90.0:
            step = 4.0 if z < 30.0 else 8.0
            if not street.blocked(z + 0.5 * step, 0.7 * step) and rng.random() < 0.94:
                items.append(
                    barrier(
                        camera,
                        kind,
                        s=side.at(outward),
                        z0=z,
                        z1=z + step,
                        height=tall,
                        color=color,
                    )
                )
            z += step
    return items


def _plants(camera: Camera, street: Street, side: Side, rng: np.random.Generator) -> list[Item]:
    """Return trees and bushes: on the verge, in front gardens, or as a wood beside the highway."""
    items = []
    wood = not side.built
    z = between(rng, 6.0, 12.0)
    dense = between(rng, 0.2, 0.9)
    while z < 100.0:
        if not street.blocked(z, 2.0) and rng.random() < (0.95 if wood else dense):
            if wood:
                outward = side.walk + side.verge + between(rng, 2.0, 9.0)
            elif side.verge > 0.7:
                outward = side.walk + 0.6 * side.verge
            elif side.setback - side.walk > 2.5:
                outward = side.walk + between(rng, 1.0, 2.2)
            else:
                outward = 0.8
            plant = roadside.conifer if rng.random() < 0.18 else roadside.tree
            items.append(plant(camera, side.at(outward), z, rng))
            if rng.random() < 0.4 and side.setback - side.walk > 2.0:
                items.append(roadside.bush(camera, side.at(side.walk + 1.2), z - 3.0, rng))
        z += between(rng, 3.0, 6.0) if wood else between(rng, 6.0, 13.0)
    return items


def _furniture(
    camera: Camera, street: Street, side: Side, rng: np.random.Generator, *, lit: bool
) -> list[Item]:
    """Return street lamps, signs and traffic lights along one side."""
    items = []
    near = side.at(0.6)
    z = between(rng, 8.0, 22.0)
    while z < FAR and (side.sign > 0 or rng.random() < 0.6):
        items.append(roadside.lamp_post(camera, near, z, rng, lit=lit))
        z += between(rng, 16.0, 28.0)
    for low, high in ((7.0, 14.0), (14.0, 26.0), (26.0, 45.0)):
        place = between(rng, low, high)
        if rng.random() < 0.45 and not street.blocked(place):
            items.append(roadside.sign(camera, side.at(between(rng, 0.4, 0.9)), place, rng))
    stop = street.crossing or street.junction
    if stop is not None and rng.random() < 0.85:
        far = stop[1] if side.sign < 0 or rng.random() < 0.5 else stop[0]
        cantilever = side.sign > 0 and rng.random() < 0.5
        items.append(
            roadside.traffic_light(camera, side.at(0.5), far + 0.5, rng, cantilever=cantilever)
        )
    return items


def _pavement(
    camera: Camera, street: Street, side: Side, rng: np.random.Generator, *, wet: bool
) -> list[Item]:
    """Return people, parked bicycles and parked motorcycles on one pavement."""
    items = []
    crowd = int(rng.integers(0, 6 if street.scene == "city street" else 3))
    for _ in range(crowd):
        z = between(rng, 5.5, 20.0) if rng.random() < 0.6 else between(rng, 20.0, 40.0)
        s = side.at(between(rng, 0.7, max(1.0, side.walk - 0.3)))
        umbrella = wet and rng.random() < 0.6
        board = Board(camera, camera.along(s, z), z)
        items.append(people.person(board, rng, umbrella=umbrella))
    for motor, chance in ((False, 0.3), (True, 0.24)):
        z = between(rng, 7.0, 18.0)
        for _ in range(int(rng.integers(1, 4)) if rng.random() < chance else 0):
            s = side.at(0.7 if motor else between(rng, 0.6, 1.0))
            yaw = between(rng, 0.5, 1.3) * pick(rng, (-1.0, 1.0))
            frame = Frame(camera, camera.along(s, z), z, camera.heading(z) + yaw)
            items.append(people.two_wheeler(frame, rng, motor=motor, ridden=False, lit=False))
            z += between(rng, 0.9, 1.6)
    return items


def _on_road(camera: Camera, s: float, z: float, *, oncoming: bool) -> Frame:
    """Return the axes of something that follows the road, towards us if `oncoming`."""
    yaw = camera.heading(z) + (math.pi if oncoming else 0.0)
    return Frame(camera, camera.along(s, z), z, yaw)


def _parked(camera: Camera, street: Street, rng: np.random.Generator) -> list[Item]:
    """Return cars on the parking strips."""
    items: list[Item] = []
    if street.scene == "highway":
        return items
    for side, width in zip(street.sides, street.parking, strict=True):
        z = between(rng, 6.5, 12.0)
        full = between(rng, 0.35, 0.9)
        while width and z < 55.0:
            if rng.random() < full and not street.blocked(z, 3.0):
                s = side.at(-0.5 * width)
                frame = _on_road(camera, s, z, oncoming=side.sign < 0 and rng.random() < 0.8)
                items.append(vehicles.car(frame, rng, lit=False))
            z += between(rng, 5.6, 7.0)
    return items


def _vehicle(frame: Frame, rng: np.random.Generator, *, lit: bool) -> Item:
    """Return a random vehicle of the moving traffic."""
    draw = rng.random()
    if draw < 0.56:
        return vehicles.car(frame, rng, lit=lit)
    if draw < 0.72:
        return vehicles.lorry(frame, rng, lit=lit)
    if draw < 0.85:
        return vehicles.bus(frame, rng, lit=lit)
    return people.two_wheeler(frame, rng, motor=True, ridden=True, lit=lit)


def _moving(camera: Camera, street: Street, rng: np.random.Generator, *, lit: bool) -> list[Item]:
    """Return the traffic of every lane."""
    items = []
    for (left, right), oncoming in ((street.own, False), (street.opposite, True)):
        for k in range(round((right - left) / street.lane)):
            s = left + (k + 0.5) * street.lane
            z = between(rng, 9.0, 22.0) if abs(s) < 0.5 * street.lane else between(rng, 8.0, 20.0)
            while z < FAR:
                if rng.random() < 0.62:
                    place = s + between(rng, -0.3, 0.3)
                    frame = _on_road(camera, place, z + 2.0, oncoming=oncoming)
                    items.append(_vehicle(frame, rng, lit=lit))
                z += between(rng, 13.0, 26.0)
    return items


def _special(camera: Camera, street: Street, rng: np.random.Generator, *, lit: bool) -> list[Item]:
    """Return what is rare: trams, cyclists, crossing people and traffic, a highway's extras."""
    items: list[Item] = []
    if street.tramway is not None and rng.random() < 0.8:
        z = between(rng, 20.0, 34.0)
        oncoming = rng.random() < 0.7
        items.append(
            vehicles.tram(_on_road(camera, street.tramway, z, oncoming=oncoming), rng, lit=lit)
        )
    if street.scene == "highway":
        return _highway(camera, street, rng)
    for _ in range(int(rng.integers(0, 3))):
        z = between(rng, 7.0, 24.0)
        frame = _on_road(camera, street.own[1] - between(rng, 0.5, 0.9), z, oncoming=False)
        turned = Frame(camera, frame.x, z, frame.yaw + between(rng, -0.35, 0.35))
        items.append(people.two_wheeler(turned, rng, motor=False, ridden=True, lit=lit))
    if street.crossing is not None:
        kerbs = [side.kerb for side in street.sides]
        for _ in range(int(rng.integers(0, 4))):
            z, s = between(rng, *street.crossing), between(rng, *kerbs)
            items.append(people.person(Board(camera, camera.along(s, z), z), rng))
    if street.junction is not None:
        items += _crossing_traffic(camera, street.junction, rng, lit=lit)
    return items


def _highway(camera: Camera, street: Street, rng: np.random.Generator) -> list[Item]:
    """Return the guard rail of the median and, now and then, a sign bridge."""
    middle = 0.5 * (street.opposite[1] + street.own[0])
    color = pick(rng, BARRIER_COLORS["rail"])
    items = [
        barrier(camera, "rail", s=middle, z0=z, z1=z + 6.0, height=0.85, color=color)
        for z in range(2, 86, 6)
    ]
    if rng.random() < 0.4:
        left, right = street.own[0] - 1.2, street.sides[1].at(0.8)
        items.append(roadside.gantry(camera, left, right, between(rng, 22.0, 45.0), rng))
    return items


def _crossing_traffic(
    camera: Camera, junction: tuple[float, float], rng: np.random.Generator, *, lit: bool
) -> list[Item]:
    """Return vehicles on the crossing road, seen from the side."""
    items = []
    for share, turn in ((0.3, 1.0), (0.75, -1.0)):
        z = junction[0] + share * (junction[1] - junction[0])
        if rng.random() < 0.6:
            s = between(rng, 3.0, 14.0) * pick(rng, (-1.0, 1.0))
            frame = Frame(camera, camera.along(s, z), z, camera.heading(z) + turn * math.pi / 2)
            items.append(_vehicle(frame, rng, lit=lit))
    return items


def _bonnet(rng: np.random.Generator) -> Item:
    """Return our own car at the lower edge of the picture; it belongs to no class."""
    color = pick(rng, vehicles.CAR_COLORS)
    rise = between(rng, 0.05, 0.09)

    def paint(canvas: Canvas) -> None:
        height, width = canvas.camera.size
        code = canvas.stuff("void", 1.0, grain=0.01, mottle=0.02)
        for lift, shade in ((1.0, 0.55), (0.86, 0.8)):
            edge = [
                (
                    width * (0.04 + 0.92 * k / 20),
                    height * (1.0 - rise * lift * math.sin(math.pi * k / 20) ** 0.5),
                )
                for k in range(21)
            ]
            canvas.polygon(code, edge, tint(color, shade))

    return Item(0.0, paint)
