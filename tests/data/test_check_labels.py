"""The data check on labels that stand in JSON files: segments of pictures, and polygons."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from data.broken_labels import (
    OUTLINES,
    PANOPTIC,
    break_cityscapes,
    break_coco,
    write_cityscapes,
    write_coco,
    write_labelme,
    write_panoptic,
)
from rtseg.data.check import FAULTS, CheckReport, check_dataset
from rtseg.data.spec import open_splits

POLYGONS = {"masks": "polygons"}


def check(spec: str, options: dict[str, str] | None = None) -> CheckReport:
    return check_dataset(open_splits(spec, options=options), workers=1)


@pytest.mark.parametrize(
    ("write_set", "options"),
    [
        (write_panoptic, {}),
        (write_coco, {}),
        (write_labelme, {}),
        (write_cityscapes, POLYGONS),
    ],
)
def test_sets_as_written_have_no_fault(
    tmp_path: Path, write_set: Callable[[Path], str], options: dict[str, str]
) -> None:
    report = check(write_set(tmp_path / "set"), options)
    assert report.faults == ()
    assert list(report.splits) == ["train", "val"]


@pytest.mark.parametrize(
    ("write_set", "corpus"), [(write_panoptic, PANOPTIC), (write_labelme, OUTLINES)]
)
def test_every_fault_is_named_with_its_file_and_all_of_them_in_one_run(
    tmp_path: Path,
    write_set: Callable[..., str],
    corpus: dict[str, tuple[str, Callable[..., Path]]],
) -> None:
    stems = [f"{index:02d}" for index in range(len(corpus))]
    spec = write_set(tmp_path / "set", train=("clean", *stems))
    expected = [
        (kind, str(break_set(tmp_path / "set", stem)))
        for stem, (kind, break_set) in zip(stems, corpus.values(), strict=True)
    ]
    faults = check(spec).faults
    assert sorted((fault.kind, fault.file) for fault in faults) == sorted(expected)
    assert all("; " in fault.message and fault.kind in FAULTS for fault in faults)


def test_a_polygon_of_cityscapes_is_named_by_its_number_and_label(tmp_path: Path) -> None:
    spec = write_cityscapes(tmp_path / "set")
    bad = break_cityscapes(tmp_path / "set")
    (fault,) = check(spec, POLYGONS).faults
    assert (fault.kind, fault.file) == ("bad_polygon", str(bad))
    assert fault.message.startswith("object 1 (car) has 2 points")


def test_a_picture_that_serves_two_kinds_of_labels_is_named_once(tmp_path: Path) -> None:
    spec = write_coco(tmp_path / "set")
    bad = break_coco(tmp_path / "set")
    (fault,) = check(spec).faults
    assert (fault.kind, fault.file) == ("unlisted_segment", str(bad))
