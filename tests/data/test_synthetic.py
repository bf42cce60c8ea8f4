from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from rtseg.data.scene.canvas import Camera
from rtseg.data.scene.ground import noise, noise_field
from rtseg.data.synthetic import Synthetic
from rtseg.errors import ConfigError
from rtseg.structures import Sample

ROAD = 0
SIZES = [(32, 32), (75, 101), (128, 256), (360, 480)]


def digest(sample: Sample) -> str:
    content = hashlib.sha256(sample.image.tobytes())
    for kind in sorted(sample.labels):
        content.update(sample.labels[kind].tobytes())
    content.update(repr((sample.segments, sample.path, sorted(sample.attributes.items()))).encode())
    return content.hexdigest()


@pytest.fixture(scope="module")
def scenes() -> list[Sample]:
    data = Synthetic(size=(96, 192), length=200)
    return [data[index] for index in range(200)]


def test_a_scene_is_the_same_in_any_order_and_instance():
    first, second = Synthetic(size=(64, 128)), Synthetic(size=(64, 128))
    forward = [digest(first[index]) for index in (3, 8, 5)]
    _ = Synthetic(size=(75, 101))[5]
    backward = [digest(second[index]) for index in (5, 8, 3)]
    assert forward == backward[::-1]
    assert len(set(forward)) == 3


def test_another_process_draws_the_same_bytes():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from test_synthetic import digest;"
        "from rtseg.data.synthetic import Synthetic;"
        "print(digest(Synthetic(split='val', size=(96, 160), seed=4)[11]))"
    )
    here = __file__.rsplit("/", 1)[0]
    run = subprocess.run(
        [sys.executable, "-c", code, here], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == digest(Synthetic(split="val", size=(96, 160), seed=4)[11])


def test_seeds_splits_and_indices_draw_different_scenes():
    options = [{}, {"split": "val"}, {"split": "test"}, {"seed": 1}, {"seed": 2**64 - 1}]
    images = {
        Synthetic(size=(48, 64), **option)[i].image.tobytes() for option in options for i in (0, 1)
    }
    assert len(images) == 10


def test_length_does_not_change_a_scene_and_negative_indices_count_from_the_end():
    short, long = Synthetic(size=(48, 64), length=3), Synthetic(size=(48, 64), length=30)
    assert len(short) == 3
    assert digest(short[2]) == digest(long[2]) == digest(short[-1])


def test_the_street_is_the_same_at_every_size():
    small, large = Synthetic(size=(96, 192)), Synthetic(size=(192, 384))
    for index in range(6):
        coarse = small[index].labels["semantic"]
        fine = large[index].labels["semantic"][1::2, 1::2]
        assert small[index].attributes == large[index].attributes
        assert np.mean(coarse == fine) > 0.9


@pytest.mark.parametrize("size", SIZES)
def test_shapes_and_types_at_any_size(size):
    sample = Synthetic(size=list(size))[2]
    assert sample.image.shape == (*size, 3)
    assert sample.image.dtype == np.uint8
    types = {"semantic": np.uint8, "drivable": np.uint8, "lane": np.uint8, "panoptic": np.int32}
    assert {kind: label.dtype for kind, label in sample.labels.items()} == types
    assert all(label.shape == size for label in sample.labels.values())
    assert set(Synthetic.kinds) == set(sample.labels)


def test_path_and_attributes_name_the_scene(scenes):
    assert Synthetic(split="test", size=(48, 64))[7].path == "synthetic:test/7"
    values = {key: {scene.attributes[key] for scene in scenes} for key in scenes[0].attributes}
    assert values == {
        "weather": {"clear", "overcast", "rain", "fog"},
        "timeofday": {"day", "dusk", "night"},
        "scene": {"city street", "residential", "highway"},
    }


def test_every_class_is_common_and_large_enough_to_learn(scenes):
    counts = np.stack(
        [np.bincount(scene.labels["semantic"].ravel(), minlength=256) for scene in scenes]
    )
    assert set(np.flatnonzero(counts.sum(0))) == {*range(19), 255}
    share = (counts[:, :19] >= 20).mean(0)  # 20 of 96x192 pixels: about 140 of 256x512
    assert share.min() >= 0.08, share
    assert counts[:, 255].sum() < 0.05 * counts.sum()


def test_drivable_and_lane_lie_on_the_visible_road(scenes):
    for scene in scenes:
        road = scene.labels["semantic"] == ROAD
        for kind in ("drivable", "lane"):
            label = scene.labels[kind]
            assert set(np.unique(label)) <= {0, 1}
            assert not np.any(label[~road])
    drivable = np.mean([scene.labels["drivable"].mean() for scene in scenes])
    lane = np.mean([scene.labels["lane"].mean() for scene in scenes])
    assert 0.1 < drivable < 0.3
    assert 0.004 < lane < 0.03


def test_some_road_is_not_ours_and_some_lines_separate_us_from_it(scenes):
    streets = [scene for scene in scenes if scene.attributes["scene"] == "highway"]
    assert len(streets) > 10
    other = [
        (scene.labels["semantic"] == ROAD) & (scene.labels["drivable"] == 0) for scene in streets
    ]
    lines = [scene.labels["lane"][mask].any() for scene, mask in zip(streets, other, strict=True)]
    assert all(mask.any() for mask in other)
    assert any(lines)


def test_panoptic_map_and_segments_agree_with_the_classes(scenes):
    things = {index for index, info in enumerate(Synthetic.classes) if info.thing}
    for scene in scenes:
        ids, semantic = scene.labels["panoptic"], scene.labels["semantic"]
        assert {segment.id for segment in scene.segments} == set(np.unique(ids)) - {0}
        assert np.array_equal(ids == 0, semantic == 255)
        for segment in scene.segments:
            assert np.all(semantic[ids == segment.id] == segment.class_id)
            assert not segment.crowd
        stuff = [s.class_id for s in scene.segments if s.class_id not in things]
        assert len(stuff) == len(set(stuff))


def test_cars_of_one_scene_are_separate_instances(scenes):
    cars = [sum(segment.class_id == 13 for segment in scene.segments) for scene in scenes]
    assert max(cars) >= 6


def test_lane_lines_are_brighter_than_the_road_by_day(scenes):
    bright = []
    for scene in scenes:
        lane = scene.labels["lane"] == 1
        road = (scene.labels["semantic"] == ROAD) & ~lane
        if scene.attributes["timeofday"] == "day" and lane.sum() > 50:
            bright.append(scene.image[lane].mean() - scene.image[road].mean())
    assert np.median(bright) > 30
    assert np.mean(np.array(bright) > 0) > 0.95


def test_night_is_dark_and_fog_is_pale(scenes):
    def average(statistic, chosen):
        return np.mean([statistic(scene.image.astype(float)) for scene in chosen])

    def saturation(image):
        return np.mean(image.max(2) - image.min(2))

    days = [scene for scene in scenes if scene.attributes["timeofday"] == "day"]
    nights = [scene for scene in scenes if scene.attributes["timeofday"] == "night"]
    assert average(np.mean, nights) < 0.6 * average(np.mean, days)
    clear = [scene for scene in days if scene.attributes["weather"] == "clear"]
    fog = [scene for scene in days if scene.attributes["weather"] == "fog"]
    assert average(saturation, fog) < 0.7 * average(saturation, clear)


def test_a_point_on_the_road_projects_where_geometry_says():
    camera = Camera((100, 200), 150.0, 40.0, 100.0, height=1.5, bend=0.01, slope=0.1)
    x = camera.along(2.0, 10.0)
    assert x == pytest.approx(2.0 + 1.0 + 0.5)
    assert camera.project(x, 0.0, 10.0) == pytest.approx((100 + 3.5 * 15, 40 + 1.5 * 15))
    assert np.tan(camera.heading(10.0)) == pytest.approx(0.2)


def test_noise_has_unit_deviation_and_repeats():
    for cell in (1, 3, 20):
        field = noise_field(cell)
        assert abs(field.mean()) < 0.05
        assert field.std() == pytest.approx(1.0, abs=0.05)
    piece = noise((600, 700), 3, (5, 9))
    assert piece.shape == (600, 700)
    assert np.array_equal(piece[512:], piece[: 600 - 512])


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"split": "vall"}, "'val'"),
        ({"size": (31, 64)}, "32 or more"),
        ({"size": (64,)}, r"\[height, width\]"),
        ({"length": 0}, "1 or more"),
        ({"seed": -1}, "0 to 2"),
        ({"seed": 2**64}, "0 to 2"),
    ],
)
def test_wrong_options_say_what_to_do(options, remedy):
    with pytest.raises(ConfigError, match=remedy):
        Synthetic(**options)


@pytest.mark.parametrize("index", [3, -4, 1000])
def test_an_index_outside_the_data_set_is_refused(index):
    with pytest.raises(IndexError, match="has 3"):
        Synthetic(length=3, size=(32, 32))[index]
