from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from rtseg.data.preview import CELL_WIDTH, layers, preview_sheet
from rtseg.structures import ROAD_LANE_PALETTE, ClassInfo, Sample, Segment

ROAD, CAR, LANE = (100, 0, 200), (0, 240, 20), (250, 250, 0)
CLASSES = (ClassInfo("road", ROAD), ClassInfo("car", CAR, thing=True), ClassInfo("lane", LANE))
GRAY = 100
DRIVABLE_COLOR, LANE_COLOR = ROAD_LANE_PALETTE
SIZE = (40, CELL_WIDTH)  # neither shrunk nor enlarged


def sample(labels: Mapping[str, Any], **rest: Any) -> Sample:
    return Sample(np.full((*SIZE, 3), GRAY, np.uint8), labels, **rest)


def columns(*values: int, dtype: Any = np.uint8) -> np.ndarray:
    """Return a map whose columns are shared out equally among the values."""
    return np.repeat(np.array(values, dtype), SIZE[1] // len(values))[None].repeat(SIZE[0], axis=0)


def mixed(color: tuple[int, int, int]) -> list[int]:
    return [(GRAY + value + 1) // 2 for value in color]


def count(pixels: np.ndarray, color: Any) -> int:
    return int((pixels == np.array(color, np.uint8)).all(axis=-1).sum())


def test_classes_are_drawn_half_over_the_image_and_void_is_marked() -> None:
    labels = columns(0, 1, 255, 1)
    (layer,) = layers(sample({"semantic": labels}), CLASSES)
    assert (layer.title, layer.names) == ("semantic", {"road", "car"})
    assert layer.pixels[0, 0].tolist() == mixed(ROAD)
    assert layer.pixels[0, 150].tolist() == mixed(CAR)
    assert layer.pixels[0, 300].tolist() == [GRAY] * 3
    assert np.array_equal(layer.void, labels == 255)


def test_things_are_outlined_and_objects_of_a_class_differ() -> None:
    ids = columns(0, 5, 7, 8, dtype=np.int32)
    segments = (Segment(5, 0), Segment(7, 1), Segment(8, 1))
    (layer,) = layers(sample({"panoptic": ids}, segments=segments), CLASSES)
    assert (layer.title, layer.names) == ("panoptic", {"road", "car"})
    assert np.array_equal(layer.void, ids == 0)
    surface, first, second = (layer.pixels[20, column].tolist() for column in (210, 350, 490))
    assert surface == mixed(ROAD)
    assert first == mixed(CAR)
    assert second not in (first, surface)
    assert layer.pixels[0, 210].tolist() == surface  # no outline
    assert layer.pixels[0, 350].tolist() != first


@pytest.mark.parametrize("kinds", [("drivable", "lane"), ("drivable",), ("lane",)])
def test_lanes_lie_on_the_drivable_area(kinds: tuple[str, ...]) -> None:
    maps = {"drivable": columns(1, 1, 0, 255), "lane": columns(1, 0, 0, 255)}
    (layer,) = layers(sample({kind: maps[kind] for kind in kinds}), ())
    assert layer.title == " + ".join(kinds)
    assert layer.names == set(kinds)
    lane, drivable = mixed(LANE_COLOR), mixed(DRIVABLE_COLOR)
    expected = {
        ("drivable", "lane"): [lane, drivable],
        ("drivable",): [drivable, drivable],
        ("lane",): [lane, [GRAY] * 3],
    }[kinds]
    assert [layer.pixels[0, column].tolist() for column in (0, 200)] == expected
    assert np.array_equal(layer.void, columns(0, 0, 0, 1) == 1)


def test_what_one_kind_leaves_open_is_void_unless_the_other_marks_it() -> None:
    labels = {"drivable": columns(1, 0, 0, 1), "lane": columns(255, 255, 0, 0)}
    (layer,) = layers(sample(labels), ())
    assert np.array_equal(layer.void, columns(0, 1, 0, 0) == 1)
    assert layer.names == {"drivable"}  # no lane is there


def test_the_class_of_an_image_is_written_on_it() -> None:
    (layer,) = layers(sample({"class": np.array(1)}), CLASSES)
    assert layer.pixels.shape == (*SIZE, 3)
    assert not np.array_equal(layer.pixels, sample({}).image)
    assert not layer.void.any()
    (other,) = layers(sample({"class": np.array(0)}), CLASSES)
    assert not np.array_equal(layer.pixels, other.pixels)


def test_augmented_images_are_rounded_and_cut_to_their_range() -> None:
    labels = {"semantic": np.full((1, 3), 255, np.uint8)}
    image = np.array([[[-3.0, 99.6, 300.0]] * 3], np.float32)
    (layer,) = layers(Sample(image, labels), CLASSES)
    assert layer.pixels[0, 0].tolist() == [0, 100, 255]


def test_a_sheet_names_what_occurs_and_nothing_else() -> None:
    shown = preview_sheet([sample({"semantic": columns(0, 1)})], CLASSES, heading="h")
    assert count(shown, mixed(ROAD)) == count(shown, mixed(CAR)) == SIZE[0] * SIZE[1] // 2
    for color, there in ((ROAD, True), (CAR, True), (LANE, False), ((150, 150, 150), False)):
        assert (count(shown, color) > 150) == there  # the box in the key
    void = preview_sheet([sample({"semantic": columns(0, 255)})], CLASSES, heading="h")
    assert count(void, (150, 150, 150)) > 100
    assert count(void, CAR) == 0


def test_a_class_named_lane_keeps_its_color_in_the_key() -> None:
    shown = preview_sheet([sample({"semantic": columns(0, 2)})], CLASSES, heading="h")
    assert (count(shown, LANE) > 150, count(shown, LANE_COLOR)) == (True, 0)
    roads = preview_sheet([sample({"lane": columns(0, 1)})], (), heading="h")
    assert count(roads, LANE_COLOR) > 150


@pytest.mark.parametrize(
    ("kinds", "samples", "grid"),
    [(1, 3, (1, 3)), (1, 5, (2, 4)), (2, 3, (2, 4)), (3, 2, (2, 3))],
)
def test_the_pictures_of_a_sample_stand_in_one_row(
    kinds: int, samples: int, grid: tuple[int, int]
) -> None:
    maps = {"semantic": columns(0, 1), "drivable": columns(0, 1)}
    maps |= {"panoptic": columns(1, 2, dtype=np.int32)}
    names = ("semantic", "drivable", "panoptic")[:kinds]
    labels = {name: maps[name] for name in names}
    segments = (Segment(1, 0), Segment(2, 1)) if kinds == 3 else ()
    shown = preview_sheet([sample(labels, segments=segments)] * samples, CLASSES, heading="h")
    rows, width = grid
    assert shown.shape[1] == width * (CELL_WIDTH + 12) + 12 <= 2400
    assert shown.shape[0] == 42 + 36 + rows * (SIZE[0] + 26 + 12) + 12


def test_captions_tell_names_and_facts_and_kinds_where_there_are_several() -> None:
    one = sample({"semantic": columns(0, 1)}, path="folder/name.png")
    texts = [
        preview_sheet([item], CLASSES, heading="h")[78 : 78 + 36]
        for item in (
            one,
            sample(one.labels, path="other/name.png"),
            sample(one.labels, path="folder/name.png", attributes={"weather": "rain"}),
            sample({**one.labels, "lane": columns(0, 0)}, path="folder/name.png"),
        )
    ]
    same = [np.array_equal(texts[0], text[:, : texts[0].shape[1]]) for text in texts]
    assert same == [True, True, False, False]


def test_a_sheet_without_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one picture"):
        preview_sheet([], CLASSES, heading="h")
