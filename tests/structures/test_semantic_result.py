from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from rtseg.structures import IGNORE_INDEX, SemanticOutput, SemanticResult

PALETTE = ((250, 10, 90), (0, 200, 30), (7, 8, 240))
NAMES = ("road", "car", "sky")


def make_result(**changes):
    mask = np.array([[2, 2, 2, 2], [0, 0, 0, 1]], np.uint8)
    image = np.random.default_rng(0).integers(0, 256, (2, 4, 3), dtype=np.uint8)
    fields = {"mask": mask, "names": NAMES, "palette": PALETTE, "image": image, **changes}
    return SemanticResult(**fields)


def test_ignore_label_is_255():
    assert IGNORE_INDEX == 255


def test_output_has_the_same_fields_with_and_without_auxiliary_logits():
    logits = torch.zeros(1, 3, 2, 2)
    assert SemanticOutput(logits).aux == ()
    assert SemanticOutput(logits, aux=(logits,))._fields == ("logits", "aux")


def test_result_cannot_be_changed():
    result = make_result()
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.source = "other"
    with pytest.raises(ValueError, match="read-only"):
        result.mask[0, 0] = 1


def test_making_a_result_leaves_the_array_of_the_caller_writable():
    mask = np.zeros((2, 4), np.uint8)
    result = make_result(mask=mask)
    mask[0, 0] = 1
    assert not result.mask.flags.writeable


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask": np.zeros((2, 4), np.int64)}, r"uint8 or uint16 \(H, W\), got int64 \(2, 4\)"),
        ({"mask": np.zeros((1, 2, 4), np.uint8)}, r"got uint8 \(1, 2, 4\)"),
        ({"names": ("road",)}, "1 names but 3 colors"),
        ({"image": np.zeros((4, 2, 3), np.uint8)}, r"image \(4, 2, 3\) .*mask \(2, 4\)"),
        ({"confidence": np.zeros((4, 2), np.float16)}, r"confidence \(4, 2\).*mask \(2, 4\)"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make_result(**changes)


def test_plot_mixes_image_and_colors():
    result = make_result()
    assert np.array_equal(result.plot(alpha=0.0), result.image)
    assert result.plot(alpha=1.0)[0, 0].tolist() == [7, 8, 240]
    assert result.plot(legend=True).shape[1] > 4
    assert make_result(image=None).plot()[1, 3].tolist() == [0, 200, 30]


def test_saved_mask_holds_the_ids_and_file_names_follow_the_source(tmp_path):
    paths = make_result(source="some/where/frame.07.jpg").save(tmp_path / "out")
    assert paths["mask"].name == "frame.07.png"
    assert paths["overlay"].name == "frame.07_overlay.png"
    assert np.array_equal(np.asarray(Image.open(paths["mask"])), make_result().mask)
    assert Image.open(paths["overlay"]).mode == "RGB"
    assert make_result().save(tmp_path)["mask"].name == "image.png"


def test_polygons_carry_names_and_leave_out_void_and_small_regions():
    mask = np.array([[2, 2, 2, 2], [0, 0, 255, 1]], np.uint8)
    regions = make_result(mask=mask).to_polygons()
    assert [(r["name"], r["area"]) for r in regions] == [("sky", 4), ("road", 2), ("car", 1)]
    assert len(make_result(mask=mask).to_polygons(min_area=2)) == 2
    assert json.loads(json.dumps(regions))[0]["polygon"] == [[0, 0], [4, 0], [4, 1], [0, 1]]


def test_summary_counts_pixels_and_is_json():
    mask = np.array([[2, 2, 2, 2], [0, 0, 0, 255]], np.uint8)
    summary = json.loads(
        json.dumps(make_result(mask=mask, source="a.png", timing={"model": 1.5}).to_dict())
    )
    assert summary == {
        "source": "a.png",
        "height": 2,
        "width": 4,
        "classes": [
            {"id": 0, "name": "road", "pixels": 3, "share": 0.375},
            {"id": 2, "name": "sky", "pixels": 4, "share": 0.5},
        ],
        "timing_ms": {"model": 1.5},
    }


def test_empty_map_has_an_empty_summary():
    empty = make_result(mask=np.zeros((0, 4), np.uint8), image=None)
    assert empty.to_dict()["classes"] == []
