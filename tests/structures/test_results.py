from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from rtseg.structures import (
    ClassificationResult,
    InstanceResult,
    PanopticResult,
    Result,
    RoadLaneResult,
    Segment,
    SemanticResult,
)

PALETTE = ((250, 10, 90), (0, 200, 30), (7, 8, 240))
NAMES = ("road", "car", "sky")
SIZE = (3, 4)
IMAGE = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
DRIVABLE = np.array([[0, 0, 0, 0], [0, 1, 1, 0], [1, 1, 1, 1]], bool)
LANE = np.array([[0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0]], bool)
IDS = np.array([[9, 9, 9, 9], [5, 5, 0, 70000], [1, 1, 1, 70000]], np.int32)
SEGMENTS = (Segment(1, 0), Segment(5, 1), Segment(9, 2), Segment(70000, 1))
MASKS = np.array(
    [
        [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0]],
        [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]],
        [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]],
    ],
    bool,
)


def road_lane(**changes):
    fields = {"drivable": DRIVABLE, "lane": LANE, "names": ("drivable", "lane"),
              "palette": PALETTE[:2], "source": "a/x.jpg", "image": IMAGE}  # fmt: skip
    return RoadLaneResult(**{**fields, **changes})


def panoptic(**changes):
    fields = {"ids": IDS, "segments": SEGMENTS, "scores": (0.9, 0.8, 0.7, 0.6), "names": NAMES,
              "palette": PALETTE, "things": frozenset({1}), "source": "a/x.jpg",
              "image": IMAGE}  # fmt: skip
    return PanopticResult(**{**fields, **changes})


def instance(**changes):
    fields = {"masks": MASKS, "labels": np.array([1, 0, 1]), "names": NAMES, "palette": PALETTE,
              "scores": np.array([0.9, 0.6, 0.25], np.float32), "source": "a/x.jpg",
              "image": IMAGE}  # fmt: skip
    return InstanceResult(**{**fields, **changes})


def classification(**changes):
    fields = {"label": 1, "scores": np.array([0.25, 0.625, 0.125], np.float32), "names": NAMES,
              "palette": PALETTE, "source": "a/x.jpg", "image": IMAGE}  # fmt: skip
    return ClassificationResult(**{**fields, **changes})


MAKERS = [road_lane, panoptic, instance, classification]


def as_json(result):
    return json.loads(json.dumps(result.to_dict()))


# ---------------------------------------------------------------- what all have in common
@pytest.mark.parametrize("make", MAKERS)
def test_results_cannot_be_changed_but_the_arrays_of_the_caller_can(make):
    result = make()
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.source = "other"
    arrays = [
        value
        for item in dataclasses.fields(result)
        if isinstance(value := getattr(result, item.name), np.ndarray)
    ]
    assert arrays
    assert not any(array.flags.writeable for array in arrays)
    assert all(array.flags.writeable for array in (IMAGE, IDS, MASKS, LANE, DRIVABLE))


@pytest.mark.parametrize("make", MAKERS)
def test_summaries_are_json_with_the_same_frame(make):
    summary = as_json(make(timing={"model": 1.5}))
    assert (summary["source"], summary["timing_ms"]) == ("a/x.jpg", {"model": 1.5})
    assert (summary["height"], summary["width"]) == SIZE


@pytest.mark.parametrize(
    ("make", "kinds"),
    [
        (road_lane, {"drivable": "x_drivable.png", "lane": "x_lane.png"}),
        (panoptic, {"ids": "x.png"}),
        (instance, {}),
        (classification, {}),
    ],
)
def test_files_are_those_of_the_pictures(tmp_path, make, kinds):
    result = make()
    paths = result.save(tmp_path / "out")
    names = {kind: path.name for kind, path in paths.items()}
    assert names == {**kinds, "overlay": "x_overlay.png"}
    assert set(names) == set(result.pictures()) == set(type(result).ENDINGS)
    overlay = np.asarray(Image.open(paths["overlay"]))
    assert np.array_equal(overlay, result.plot(legend=True))
    renamed = result.save(tmp_path, stem="y", alpha=1.0)["overlay"]
    assert renamed.name == "y_overlay.png"
    assert np.array_equal(np.asarray(Image.open(renamed)), result.plot(alpha=1.0, legend=True))


def test_maps_hold_what_was_found(tmp_path):
    lane = Image.open(road_lane().save(tmp_path)["lane"])
    assert lane.mode == "P"
    assert np.array_equal(np.asarray(lane), LANE.astype(np.uint8))
    assert lane.getpalette()[:6] == [0, 0, 0, *PALETTE[1]]
    assert np.array_equal(
        np.asarray(Image.open(road_lane().save(tmp_path)["drivable"])), DRIVABLE.astype(np.uint8)
    )
    rgb = np.asarray(Image.open(panoptic().save(tmp_path)["ids"])).astype(np.int64)
    assert np.array_equal(rgb @ [1, 256, 65536], IDS)
    assert panoptic(ids=np.full((1, 1), 26001, np.int32), image=None).maps()["ids"].pixels[
        0, 0
    ].tolist() == [145, 101, 0]


def test_confidence_is_written_as_gray(tmp_path):
    share = np.array([[0.0, 0.5, 1.0, 0.2]], np.float16)
    result = SemanticResult(np.zeros((1, 4), np.uint8), NAMES, PALETTE, confidence=share)
    paths = result.save(tmp_path)
    assert set(paths) == {"mask", "overlay", "confidence"}
    gray = np.asarray(Image.open(paths["confidence"]))
    assert gray.tolist() == [[[0] * 3, [128] * 3, [255] * 3, [51] * 3]]
    assert not result.confidence.flags.writeable


@pytest.mark.parametrize("make", MAKERS)
def test_results_without_image_are_drawn_alone(make):
    picture = make(image=None).plot()
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert picture.any()
    assert isinstance(make(image=None), Result)


@pytest.mark.parametrize(
    ("make", "changes", "message"),
    [
        (road_lane, {"lane": None, "drivable": None}, "neither a drivable map nor a lane map"),
        (road_lane, {"lane": LANE.astype(np.uint8)}, r"lane must be bool \(H, W\), got uint8"),
        (road_lane, {"drivable": DRIVABLE[None]}, r"drivable must be bool \(H, W\), got bool"),
        (road_lane, {"lane": LANE[:2]}, r"lane \(2, 4\) differs in size from the mask \(3, 4\)"),
        (road_lane, {"names": ("lane", "drivable")}, "names are"),
        (road_lane, {"image": IMAGE[:, :2]}, r"image \(3, 2, 3\) differs"),
        (panoptic, {"ids": IDS.astype(np.int64)}, r"int32 \(H, W\), got int64"),
        (panoptic, {"ids": IDS[None]}, r"int32 \(H, W\), got int32 \(1, 3, 4\)"),
        (panoptic, {"scores": (0.5,)}, "1 scores for 4 segments"),
        (panoptic, {"segments": (Segment(1, 0),) * 4}, "must differ and be above 0"),
        (panoptic, {"segments": (*SEGMENTS[:3], Segment(0, 0))}, "must differ and be above 0"),
        (panoptic, {"segments": (*SEGMENTS[:3], Segment(7, 3))}, "class 3 is none of the 3"),
        (panoptic, {"image": IMAGE[:2]}, "differs in size"),
        (instance, {"masks": MASKS.astype(np.uint8)}, r"bool \(N, H, W\), got uint8"),
        (instance, {"masks": MASKS[0]}, r"bool \(N, H, W\), got bool \(3, 4\)"),
        (instance, {"labels": np.array([1, 0])}, r"3 masks, but labels \(2,\)"),
        (instance, {"scores": np.zeros(2, np.float32)}, r"and scores \(2,\)"),
        (instance, {"labels": np.array([1, -1, 0])}, "class -1 is none"),
        (instance, {"scores": np.array([0.5, 0.6, 0.1], np.float32)}, "scores do not fall"),
        (instance, {"palette": PALETTE[:2]}, "3 names but 2 colors"),
        (instance, {"image": IMAGE[:2]}, "differs in size"),
        (classification, {"scores": np.ones(2, np.float32)}, r"scores \(2,\) do not fit 3 names"),
        (classification, {"label": 3}, "label 3 is none of the 3 classes"),
        (classification, {"palette": PALETTE[:1]}, "3 names but 1 colors"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(make, changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


# ---------------------------------------------------------------- drivable area and lanes
def test_lanes_are_drawn_over_the_drivable_area():
    full = road_lane().plot(alpha=1.0)
    assert full[1, 1].tolist() == list(PALETTE[0])
    assert full[1, 2].tolist() == list(PALETTE[1])
    assert np.array_equal(full[0], IMAGE[0])
    assert np.array_equal(road_lane().plot(alpha=0.0), IMAGE)
    assert road_lane().plot(legend=True).shape[1] > SIZE[1]


def test_shares_of_overlapping_maps_are_of_the_picture():
    classes = as_json(road_lane())["classes"]
    assert classes == [
        {"id": 0, "name": "drivable", "pixels": 6, "share": 0.5},
        {"id": 1, "name": "lane", "pixels": 2, "share": pytest.approx(1 / 6)},
    ]


def test_a_single_task_result_has_one_map(tmp_path):
    only = road_lane(drivable=None)
    assert set(only.save(tmp_path)) == {"lane", "overlay"}
    assert [item["id"] for item in only.to_dict()["classes"]] == [1]
    assert only.plot(alpha=1.0)[1, 2].tolist() == list(PALETTE[1])


# ---------------------------------------------------------------- panoptic
def test_segments_are_described():
    summary = as_json(panoptic())
    by_id = {item["id"]: item for item in summary["segments"]}
    assert by_id[70000] == {
        "id": 70000, "class_id": 1, "name": "car", "thing": True, "area": 2,
        "bbox": [3, 1, 1, 2], "score": 0.6,
    }  # fmt: skip
    assert (by_id[9]["bbox"], by_id[9]["thing"], by_id[9]["area"]) == ([0, 0, 4, 1], False, 4)
    assert summary["classes"] == [
        {"id": 0, "name": "road", "segments": 1, "pixels": 3, "share": 0.25},
        {"id": 1, "name": "car", "segments": 2, "pixels": 4, "share": pytest.approx(1 / 3)},
        {"id": 2, "name": "sky", "segments": 1, "pixels": 4, "share": pytest.approx(1 / 3)},
    ]


def test_a_segment_that_the_map_does_not_show_has_no_box():
    hidden = panoptic(segments=(*SEGMENTS, Segment(3, 2)), scores=(0.9, 0.8, 0.7, 0.6, 0.5))
    last = as_json(hidden)["segments"][-1]
    assert (last["area"], last["bbox"]) == (0, None)
    hidden.plot(legend=True)


def test_surfaces_have_the_class_color_and_objects_their_own():
    ids = np.repeat(np.repeat(IDS, 9, axis=0), 9, axis=1)
    picture = panoptic(ids=ids, image=None).plot()
    middle = picture[4::9, 4::9]
    assert middle[0, 0].tolist() == list(PALETTE[2])
    assert middle[2, 0].tolist() == list(PALETTE[0])
    assert middle[1, 0].tolist() == list(PALETTE[1])  # the first car
    assert middle[1, 3].tolist() != list(PALETTE[1])  # the second
    assert middle[1, 2].tolist() == [0, 0, 0]  # nothing was found
    assert picture[0, 0].tolist() == list(PALETTE[2])  # surfaces have no outline
    assert picture[9, 0].tolist() not in ([0, 0, 0], list(PALETTE[1]))  # objects have


def test_an_empty_panoptic_result_is_no_error(tmp_path):
    empty = panoptic(ids=np.zeros(SIZE, np.int32), segments=(), scores=())
    empty.save(tmp_path)
    assert as_json(empty)["segments"] == as_json(empty)["classes"] == []
    assert np.array_equal(empty.plot(), IMAGE)


# ---------------------------------------------------------------- instances
def test_objects_are_described_with_runs_by_column():
    first, second, third = as_json(instance())["objects"]
    assert (first["name"], first["class_id"], first["area"]) == ("car", 1, 4)
    assert first["bbox"] == [1, 1, 2, 2]
    assert first["score"] == pytest.approx(0.9)
    assert first["rle"] == {"size": [3, 4], "counts": [4, 2, 1, 2, 3]}
    assert second["rle"]["counts"] == [0, 1, 2, 2, 7]  # begins with a true pixel
    assert third["rle"]["counts"] == [11, 1]
    assert as_json(instance())["classes"] == [
        {"id": 0, "name": "road", "objects": 1}, {"id": 1, "name": "car", "objects": 2},
    ]  # fmt: skip


def test_runs_are_those_of_coco():
    coco = pytest.importorskip("pycocotools.mask")
    masks = np.random.default_rng(3).random((6, 7, 5)) > np.linspace(0, 1, 6)[:, None, None]
    labels, scores = np.zeros(6, np.int64), np.linspace(0.9, 0.1, 6).astype(np.float32)
    result = instance(masks=masks, labels=labels, scores=scores, image=None)
    for item, mask in zip(as_json(result)["objects"], masks, strict=True):
        packed = coco.frPyObjects(item["rle"], 7, 5)
        assert np.array_equal(coco.decode(packed).astype(bool), mask)
        if mask.any():
            assert item["bbox"] == coco.toBbox(packed).tolist()


def test_only_objects_above_the_score_are_drawn():
    big = np.zeros((3, 60, 80), bool)
    big[0, :20, :20] = big[1, 40:, :20] = big[2, 40:, 60:] = True
    shown = instance(masks=big, image=None)
    picture = shown.plot()
    assert picture[50, 10].any()
    assert not picture[50, 70].any()
    assert shown.plot(min_score=0.2)[50, 70].any()
    key = shown.plot(legend=True)[:, 80:]
    assert (key == np.array(PALETTE[1], np.uint8)).all(-1).any()


def test_the_best_object_lies_on_top():
    masks = np.ones((2, 200, 200), bool)
    scores = np.array([0.9, 0.8], np.float32)
    both = instance(masks=masks, labels=np.array([2, 0]), scores=scores, image=None)
    assert both.plot()[100, 150].tolist() == list(PALETTE[2])


def test_no_object_is_no_error(tmp_path):
    none = instance(
        masks=np.zeros((0, *SIZE), bool), labels=np.zeros(0, np.int64), scores=np.zeros(0)
    )
    none.save(tmp_path)
    assert as_json(none)["objects"] == as_json(none)["classes"] == []
    assert np.array_equal(none.plot(), IMAGE)


# ---------------------------------------------------------------- whole images
def test_the_best_classes_come_first():
    summary = as_json(classification())
    assert summary["label"] == {"id": 1, "name": "car"}
    assert [(item["name"], item["score"]) for item in summary["classes"]] == [
        ("car", 0.625), ("road", 0.25), ("sky", 0.125),
    ]  # fmt: skip
    many = classification(
        names=tuple("abcdefg"), scores=np.arange(7, dtype=np.float32), palette=(), label=6
    )
    assert [item["id"] for item in as_json(many)["classes"]] == [6, 5, 4, 3, 2]


def test_text_stands_on_the_picture_or_beside_it():
    image = np.full((200, 300, 3), 200, np.uint8)
    on = classification(image=image).plot()
    assert on.shape == image.shape
    assert not np.array_equal(on, image)
    assert np.array_equal(on[150:, 200:], image[150:, 200:])
    beside = classification(image=image).plot(legend=True)
    assert np.array_equal(beside[:, :300], image)
    assert beside.shape[1] > 300
    without = as_json(classification(image=None))
    assert (without["height"], without["width"]) == (None, None)
