"""Decide what a scene looks like before anything is drawn: camera, street, light and weather."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rtseg.data.scene.canvas import Camera, Color, between, pick
from rtseg.data.scene.finish import Weather
from rtseg.data.scene.ground import Ground, Line, Strip

ASPHALT: tuple[Color, ...] = ((98, 98, 100), (84, 85, 88), (112, 110, 108), (92, 90, 86))
PAVING: tuple[Color, ...] = ((164, 156, 148), (150, 146, 144), (172, 150, 136), (140, 138, 138))
GRASS: tuple[Color, ...] = ((98, 122, 54), (112, 128, 62), (128, 124, 70), (84, 112, 50))
KERB: Color = (186, 184, 178)
PAINT: Color = (228, 228, 222)
YELLOW: Color = (222, 178, 50)


@dataclass(frozen=True)
class Side:
    """One side of the street; distances in metres outward from its kerb.

    sign: -1 left, 1 right. kerb: its place on the road's axis. walk: width of the pavement, 0 for
    none. verge: width of the grass beyond it. edge: `wall`, `fence`, `hedge`, `rail` or "" along
    the outer edge. built: `block`, `house` or "".
    """

    sign: float
    kerb: float
    walk: float
    verge: float
    edge: str
    built: str
    setback: float

    def at(self, outward: float) -> float:
        """Return the road coordinate `outward` metres from the kerb."""
        return self.kerb + self.sign * outward


@dataclass(frozen=True)
class Street:
    """The plan of a street; lateral places in metres from the camera's path.

    own, opposite: (left, right) of the carriageways. parking: width of the parking strip per side,
    left and right. junction, crossing: (near, far) in metres, or None. tramway: place of a tram
    track, or None.
    """

    scene: str
    lane: float
    own: tuple[float, float]
    opposite: tuple[float, float]
    parking: tuple[float, float]
    sides: tuple[Side, Side]
    junction: tuple[float, float] | None
    crossing: tuple[float, float] | None
    tramway: float | None

    def blocked(self, z: float, margin: float = 0.0) -> bool:
        """Return whether the crossing road lies at distance `z`."""
        if self.junction is None:
            return False
        return self.junction[0] - margin < z < self.junction[1] + margin


def plan_camera(size: tuple[int, int], rng: np.random.Generator) -> Camera:
    """Return a camera as on the windscreen of a car or a lorry."""
    height, width = size
    lens = between(rng, 0.5, 0.62)
    return Camera(
        size=size,
        focal=lens * (width + height),
        horizon=between(rng, 0.38, 0.52) * height,
        center=between(rng, 0.45, 0.55) * width,
        height=between(rng, 1.25, 1.75) if rng.random() < 0.8 else between(rng, 2.0, 2.5),
        bend=between(rng, -1.0, 1.0) * (0.0045 if rng.random() < 0.6 else 0.001),
        slope=between(rng, -0.04, 0.04),
    )


def plan_street(rng: np.random.Generator) -> Street:
    """Return a city street, a residential street or a highway."""
    scene = pick(rng, ("city street",) * 5 + ("residential",) * 4 + ("highway",) * 2)
    highway, city = scene == "highway", scene == "city street"
    lane = between(rng, 3.1, 3.6) + 0.2 * highway
    count = int(rng.integers(2, 4)) if highway else int(rng.integers(1, 3)) if city else 1
    other = 2 if highway else int(rng.integers(0, 3)) if city else int(rng.integers(0, 2))
    place = int(rng.integers(count))
    left = -(place + 0.5) * lane + between(rng, -0.35, 0.35)
    right = left + count * lane
    tramway = None
    shift = between(rng, 2.5, 4.5) if highway else 0.0
    if not highway and rng.random() < 0.3:
        tramway, shift = left - 1.75, 3.5
    opposite = (left - shift - other * lane, left - shift)
    parking = tuple(
        2.4 if highway else 2.2 * (rng.random() < (0.3 if city else 0.45)) for _ in range(2)
    )
    sides = (
        _plan_side(scene, -1.0, opposite[0] - parking[0], rng),
        _plan_side(scene, 1.0, right + parking[1], rng),
    )
    junction = crossing = None
    if not highway and rng.random() < 0.35:
        near = between(rng, 14.0, 30.0)
        junction = (near, near + between(rng, 7.0, 11.0))
    if not highway and rng.random() < 0.4:
        near = junction[0] - 5.0 if junction else between(rng, 8.0, 20.0)
        crossing = (near, near + 3.2)
    return Street(
        scene, lane, (left, right), opposite, (parking[0], parking[1]), sides, junction, crossing,
        tramway
    )  # fmt: skip


def _plan_side(scene: str, sign: float, kerb: float, rng: np.random.Generator) -> Side:
    """Return one side of the street as is usual for the kind of scene."""
    if scene == "highway":
        edge = pick(rng, ("rail", "rail", "wall", "fence", ""))
        verge = between(rng, 1.5, 4.0)
        return Side(sign, kerb, 0.0, verge, edge, "", verge + between(rng, 6.0, 12.0))
    if scene == "city street":
        walk = between(rng, 2.2, 4.5)
        verge = between(rng, 1.0, 2.5) if rng.random() < 0.3 else 0.0
        edge = pick(rng, ("", "", "wall", "fence", "hedge"))
        built = "block" if rng.random() < 0.85 else ""
        gap = between(rng, 0.5, 4.0) if edge or verge else between(rng, 0.0, 0.4)
        return Side(sign, kerb, walk, verge, edge, built, walk + verge + gap)
    walk = between(rng, 1.5, 2.4)
    verge = between(rng, 0.8, 2.5) if rng.random() < 0.6 else 0.0
    edge = pick(rng, ("", "wall", "fence", "fence", "hedge", "wall"))
    built = "house" if rng.random() < 0.85 else ""
    return Side(sign, kerb, walk, verge, edge, built, walk + verge + between(rng, 3.5, 7.5))


def plan_ground(street: Street, rng: np.random.Generator) -> Ground:
    """Return surfaces and markings of a street."""
    asphalt, grass = pick(rng, ASPHALT), pick(rng, GRASS)
    paving, pattern = pick(rng, PAVING), pick(rng, (0.0, 0.45, 0.6, 1.0))
    left, right = street.sides
    strips = [*reversed(_side_strips(left, paving, grass, pattern))]
    if street.scene == "highway":
        strips.append(Strip(street.opposite[1] + 0.4, "road", asphalt))
        strips.append(Strip(street.own[0] - 0.5, "terrain", grass))
    strips.append(Strip(right.kerb, "road", asphalt))
    strips += _side_strips(right, paving, grass, pattern)
    patches = tuple(
        (s, s + between(rng, 0.6, 2.5), z, z + between(rng, 1.5, 9.0), between(rng, 0.8, 1.12))
        for s, z in zip(rng.uniform(-7, 6, 4).tolist(), rng.uniform(4, 30, 4).tolist(), strict=True)
    )
    return Ground(
        tuple(strips),
        _plan_lines(street, rng),
        (left.kerb, right.kerb),
        street.own,
        asphalt,
        street.junction,
        street.crossing,
        () if street.tramway is None else (street.tramway,),
        patches,
    )


def _side_strips(side: Side, paving: Color, grass: Color, pattern: float) -> list[Strip]:
    """Return the strips of one side from the kerb outwards; `until` is the right end of each."""
    bands = []
    if side.walk:
        bands += [
            (0.0, 0.18, "sidewalk", KERB, 0.0),
            (0.18, side.walk, "sidewalk", paving, pattern),
        ]
    if side.verge:
        bands.append((side.walk, side.walk + side.verge, "terrain", grass, 0.0))
    reach = side.walk + side.verge
    beyond = "sidewalk" if side.built == "block" and not side.verge else "terrain"
    bands.append((reach, 1e6, beyond, paving if beyond == "sidewalk" else grass, 0.0))
    return [
        Strip(side.at(outer if side.sign > 0 else inner), kind, color, slab)
        for inner, outer, kind, color, slab in bands
    ]


def _plan_lines(street: Street, rng: np.random.Generator) -> tuple[Line, ...]:
    """Return the lane lines: edges, separators, and a single or double line between directions."""
    width, phase = between(rng, 0.13, 0.2), between(rng, 0.0, 8.0)
    dash, gap = pick(rng, ((3.0, 4.5), (4.0, 4.0), (2.5, 2.5)))
    middle = pick(rng, (PAINT, PAINT, YELLOW))
    lines = []
    (left, right), (far, near) = street.own, street.opposite
    for base, end, own in ((left, right, True), (far, near, False)):
        for k in range(1, round((end - base) / street.lane)):
            lines.append(Line(base + k * street.lane, width, PAINT, own, dash, gap, phase))
    edged = street.scene == "highway" or rng.random() < 0.4
    if edged:
        lines.append(Line(right - 0.25, width, PAINT, own=True))
        lines.append(Line(street.opposite[0] + 0.25, width, PAINT, own=False))
    if street.scene == "highway" or street.tramway is not None:
        lines.append(Line(left + 0.25, width, middle, own=True))
        lines.append(Line(street.opposite[1] - 0.25, width, PAINT, own=False))
    elif near > far:
        style = pick(rng, ("dashed", "dashed", "solid", "double"))
        if style == "double":
            lines += [Line(left + d, width, middle, own=d > 0) for d in (-0.17, 0.17)]
        else:
            step = gap if style == "dashed" else 0.0
            lines.append(Line(left, width, middle, own=True, dash=dash, gap=step, phase=phase))
    return tuple(lines)


SKIES: dict[str, tuple[Color, Color, Color, Color, Color]] = {
    "day": ((74, 126, 196), (186, 206, 224), (244, 244, 246), (188, 192, 198), (196, 200, 204)),
    "dusk": ((74, 84, 128), (238, 172, 116), (176, 120, 112), (132, 126, 132), (150, 136, 132)),
    "night": ((12, 15, 28), (40, 38, 46), (34, 34, 42), (24, 25, 32), (44, 44, 50)),
}
"""Colours by time of day: zenith, horizon, clouds, grey sky, fog."""
AMBIENT = {"day": (1.0, 1.0, 1.0), "dusk": (0.62, 0.52, 0.5), "night": (0.24, 0.25, 0.31)}
VISIBILITY = {
    "clear": (350.0, 900.0),
    "overcast": (250.0, 600.0),
    "rain": (110.0, 220.0),
    "fog": (32.0, 75.0),
}
"""Metres, from and to."""


def plan_weather(rng: np.random.Generator) -> Weather:
    """Return light and air: mostly clear or overcast days, some dusk, night, rain and fog."""
    timeofday = pick(rng, ("day",) * 13 + ("dusk",) * 3 + ("night",) * 4)
    weather = pick(rng, ("clear",) * 8 + ("overcast",) * 6 + ("rain",) * 3 + ("fog",) * 3)
    zenith, haze, cloud, grey, fog = SKIES[timeofday]
    clouds, visibility = between(rng, 0.0, 0.5), between(rng, *VISIBILITY[weather])
    if weather != "clear":
        share = 0.75 if timeofday == "day" else 0.45
        zenith, haze = _blend(zenith, grey, share), _blend(haze, grey, share)
        cloud = _blend(cloud, grey, 0.5)
        clouds = 0.4 + 0.8 * clouds
    if weather == "fog":
        zenith, haze, clouds = _blend(zenith, fog, 0.8), fog, 0.0
    tone, warm = between(rng, 0.85, 1.1), between(rng, -0.05, 0.05)
    sunny = weather == "clear" and timeofday != "night"
    return Weather(
        weather=weather,
        timeofday=timeofday,
        zenith=zenith,
        haze=haze,
        cloud_color=cloud,
        clouds=clouds,
        sun=pick(rng, (-1.0, 1.0)) if sunny else 0.0,
        ambient=AMBIENT[timeofday],
        headlight={"day": 0.0, "dusk": 0.25, "night": 1.5}[timeofday],
        air=haze,
        visibility=visibility,
        gain=(tone * (1.0 + warm), tone, tone * (1.0 - warm)),
        noise=between(rng, 1.5, 4.0) * (1.6 if timeofday == "night" else 1.0),
    )


def _blend(first: Color, second: Color, share: float) -> Color:
    """Return `first` with `share` of `second`."""
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(first, second, strict=True))
    return red, green, blue


def shadow_offset(weather: Weather, rng: np.random.Generator) -> tuple[float, float]:
    """Return how far a shadow moves in X and Z per metre of height; small under a grey sky."""
    if weather.sun == 0.0:
        return 0.04, 0.0
    length = between(rng, 0.4, 1.1)
    turn = between(rng, -0.9, 0.9)
    return -weather.sun * length * math.cos(turn), length * math.sin(turn)
