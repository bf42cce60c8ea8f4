from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.broken import CORPUS, HEIGHT, OF_THE_WHOLE_SET, WIDTH, clean_mask, write_clean
from data.harmless import HARMLESS
from rtseg.data.check import FAULTS, CheckReport, check_dataset
from rtseg.data.native import NativeFolder
from rtseg.errors import ConfigError
from rtseg.structures import ClassInfo, Sample

NAME = re.compile("[a-z_]+")
FAULT_MAKERS = re.compile("(.*[Ff]ault(Error)?|open_picture|Problem)")
PACKAGE = Path(__file__).parents[2] / "src" / "rtseg"


def check(root: Path, *, allow: Sequence[str] = ()) -> CheckReport:
    splits = {name: NativeFolder(root, split=name) for name in ("train", "val")}
    return check_dataset(splits, allow=allow, workers=2)


# ---------------------------------------------------------------- faults
def test_clean_set_has_no_fault_and_exact_counts(tmp_path: Path) -> None:
    root = write_clean(tmp_path)
    report = check(root)
    assert (report.faults, report.warnings) == ((), ())
    assert report.ok
    train = report.splits["train"]
    assert train.images == 3
    assert train.sizes == {(HEIGHT, WIDTH): 3}
    counted = train.statistics["semantic"]
    assert counted.names == ("road", "car", "sky")
    # Raw 0 (10 columns) is car, raw 1 (10) road, raw 2 (15) sky, raw 7 (5) void.
    assert counted.pixels == tuple(3 * HEIGHT * columns for columns in (10, 10, 15))
    assert counted.void == 3 * HEIGHT * 5
    assert counted.frames == (3, 3, 3)
    images = [np.asarray(Image.open(path)) for path in sorted((root / "images/train").iterdir())]
    np.testing.assert_allclose(train.channel_mean, np.mean(images, axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(train.channel_std, np.std(images, axis=(0, 1, 2)), rtol=1e-12)


@pytest.mark.parametrize("case", CORPUS)
def test_every_fault_is_named_with_its_file(tmp_path: Path, case: str) -> None:
    kind, break_set = CORPUS[case]
    root = write_clean(tmp_path)
    bad = break_set(root)
    report = check(root)
    assert [(fault.kind, fault.file) for fault in report.faults] == [(kind, str(bad))]
    assert re.search(r"\S; \w+ \w+", report.faults[0].message), "what is wrong; what to do"
    assert not report.ok
    assert kind in FAULTS


def test_all_faults_are_found_in_one_pass(tmp_path: Path) -> None:
    cases = [case for case in CORPUS if case not in OF_THE_WHOLE_SET]
    root = write_clean(tmp_path, train=("clean", *(f"{i:02d}" for i in range(len(cases)))))
    expected = set()
    for index, case in enumerate(cases):
        kind, break_set = CORPUS[case]
        expected.add((kind, str(break_set(root, f"{index:02d}"))))
    found = [(fault.kind, fault.file) for fault in check(root).faults]
    assert set(found) == expected
    assert len(found) == len(expected) == len(cases)


@pytest.mark.parametrize("case", HARMLESS)
def test_what_is_odd_but_right_is_no_fault(tmp_path: Path, case: str) -> None:
    root = write_clean(tmp_path)
    HARMLESS[case](root)
    report = check(root)
    assert (report.faults, report.warnings) == ((), ())
    assert report.splits["train"].images == 3
    assert sum(report.splits["train"].sizes.values()) == 3
    changed = NativeFolder(root, split="train")
    labels = [changed[index].labels["semantic"] for index in range(3)]
    counts = tuple(sum(int((one == number).sum()) for one in labels) for number in range(3))
    assert report.splits["train"].statistics["semantic"].pixels == counts
    if case != "mask of 1 bit":
        assert counts == tuple(3 * HEIGHT * columns for columns in (10, 10, 15))


def test_every_kind_of_fault_that_the_package_raises_is_explained() -> None:
    raised = {*kinds_in(PACKAGE / "data"), "unreadable"}  # the default
    assert raised >= {"unreadable", "animated", "missing_mask", "all_ignore", "leakage"}
    assert raised == set(FAULTS)
    page = (PACKAGE.parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
    assert f"| kind | meaning |\n|---|---|\n{rows(FAULTS)}\n\n" in page


def rows(table: Mapping[str, str]) -> str:
    return "\n".join(f"| `{kind}` | {meaning} |" for kind, meaning in table.items())


def kinds_in(folder: Path) -> Iterator[str]:
    """Yield the kind of every fault that is made in a folder of modules."""
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            values: list[ast.expr | None] = []
            if isinstance(node, ast.Call) and FAULT_MAKERS.fullmatch(ast.unparse(node.func)):
                named = [item.value for item in node.keywords if item.arg in ("kind", "missing")]
                values = [*node.args, *named]
                values += [part for one in named for part in ast.iter_child_nodes(one)]
            if isinstance(node, ast.FunctionDef) and FAULT_MAKERS.fullmatch(node.name):
                values = node.args.kw_defaults
            texts = [value.value for value in values if isinstance(value, ast.Constant)]
            yield from (text for text in texts if NAME.fullmatch(str(text)))


def test_both_halves_of_a_pair_are_examined_when_the_image_is_bad(tmp_path: Path) -> None:
    root = write_clean(tmp_path)
    (root / "images/train/b.png").write_bytes(b"")
    (root / "masks/train/b.png").write_bytes(b"")
    files = {fault.file for fault in check(root).faults}
    assert files == {str(root / "images/train/b.png"), str(root / "masks/train/b.png")}


def test_class_without_pixels_in_val_is_a_warning_only(tmp_path: Path) -> None:
    root = write_clean(tmp_path)
    raw = clean_mask()
    raw[raw == 2] = 7
    for stem in ("d", "e"):
        Image.fromarray(raw).save(root / "masks/val" / f"{stem}.png")
    report = check(root)
    assert report.ok
    (warning,) = report.warnings
    assert (warning.kind, warning.file) == ("empty_class", str(root / "masks/val"))
    assert "class 'sky' of the semantic labels has no pixel in split val" in warning.message


def test_allowed_faults_become_warnings_and_unknown_ones_are_refused(tmp_path: Path) -> None:
    root = write_clean(tmp_path)
    for case in ("class without a pixel in train", "turned image", "empty mask"):
        CORPUS[case][1](root)
    report = check(root, allow=("empty_class", "exif_rotation"))
    assert [fault.kind for fault in report.faults] == ["unreadable"]
    assert [fault.kind for fault in report.warnings] == ["exif_rotation", "empty_class"]
    with pytest.raises(ConfigError, match="fault 'leak' is unknown; did you mean one of: leakage"):
        check(root, allow=["leak"])


def test_same_pixels_twice_in_one_split_are_no_leakage(tmp_path: Path) -> None:
    root = write_clean(tmp_path)
    Image.open(root / "images/train/a.png").save(root / "images/train/b.png")
    assert check(root).faults == ()


def test_leakage_names_both_files(tmp_path: Path) -> None:
    root = write_clean(tmp_path)
    Image.open(root / "images/train/a.png").save(root / "images/val/d.png", compress_level=0)
    (fault,) = check(root).faults
    assert (fault.kind, fault.file) == ("leakage", str(root / "images/val/d.png"))
    assert str(root / "images/train/a.png") in fault.message
    assert "train" in fault.message


def test_single_data_set_needs_no_split_name_and_progress_counts_up(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    dataset = NativeFolder(write_clean(tmp_path), split="train")
    report = check_dataset(dataset, progress=lambda done, total: calls.append((done, total)))
    assert list(report.splits) == ["all"]
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_report_becomes_json(tmp_path: Path) -> None:
    root = write_clean(tmp_path)
    (root / "masks/train/a.png").unlink()
    stored = json.loads(json.dumps(check(root).to_dict()))
    assert stored["ok"] is False
    assert stored["faults"][0]["kind"] == "missing_mask"
    assert list(stored) == ["format", "ok", "faults", "warnings", "splits"]
    assert list(stored["faults"][0]) == ["kind", "file", "message"]
    assert list(stored["splits"]["val"]) == [
        "images", "counted", "sizes", "channel_mean", "channel_std", "labels", "stroke_widths",
        "attributes",
    ]  # fmt: skip
    assert stored["splits"]["val"]["sizes"] == [{"height": HEIGHT, "width": WIDTH, "images": 2}]
    sky = stored["splits"]["train"]["labels"]["semantic"]["classes"][2]
    assert sky == {"id": 2, "name": "sky", "pixels": 2 * HEIGHT * 15, "share": 15 / 35, "frames": 2}


# ---------------------------------------------------------------- data sets in memory
class InMemory:
    classes = (ClassInfo("a", (0, 0, 0)), ClassInfo("b", (1, 1, 1)))
    kinds = ("semantic", "panoptic")

    def __init__(self, semantic: np.ndarray) -> None:
        self.semantic = semantic

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int, /) -> Sample:
        labels = {"semantic": self.semantic, "panoptic": np.ones((2, 2), dtype=np.int32)}
        image = np.zeros((2, 2, 3), dtype=np.uint8)
        return Sample(image, labels, path=f"drawn/{index}", attributes={"weather": "rain"})


def test_data_set_without_files_is_checked_too() -> None:
    good = check_dataset(InMemory(np.array([[0, 1], [1, 255]], dtype=np.uint8)))
    assert good.ok
    assert good.splits["all"].statistics["semantic"].pixels == (1, 2)
    assert good.splits["all"].attributes == {"weather": {"rain": 1}}
    for labels, kind in (
        (np.full((2, 2), 2), "value_outside_map"),
        (np.full((2, 2), 255), "all_ignore"),
        (np.zeros((2, 3)), "size_mismatch"),
    ):
        report = check_dataset(InMemory(labels.astype(np.uint8)))
        assert [(fault.kind, fault.file) for fault in report.faults] == [(kind, "drawn/0")]


@pytest.mark.slow
def test_10000_clean_pairs_raise_no_false_alarm(tmp_path: Path) -> None:
    train = tuple(f"{index:05d}" for index in range(9_998))
    report = check(write_clean(tmp_path, train=train))
    assert (report.faults, report.warnings) == ((), ())
    assert [split.images for split in report.splits.values()] == [9_998, 2]
    pixels = report.splits["train"].statistics["semantic"].pixels
    assert pixels == tuple(9_998 * HEIGHT * columns for columns in (10, 10, 15))
