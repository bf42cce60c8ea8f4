from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from inference.tiny import draw, write_checkpoint, write_image
from rtseg.cli.main import main
from rtseg.cli.predict import result_type, unique_names
from rtseg.inference.predictor import Predictor
from rtseg.structures import (
    ClassificationResult,
    InstanceResult,
    PanopticResult,
    RoadLaneResult,
    Segment,
    SemanticResult,
)
from rtseg.tasks import TASKS


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("run") / "best")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for seed, name in enumerate(("a.png", "b.png")):
        write_image(tmp_path / "images" / name, seed=seed)
    return tmp_path / "images"


def run(*words: object) -> int:
    return main(["predict", *map(str, words)])


def lines(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "results.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def error(capsys: pytest.CaptureFixture[str]) -> str:
    text = capsys.readouterr().err
    assert "Traceback" not in text
    return text


# ---------------------------------------------------------------- results
def test_class_maps_overlays_and_lines_are_written(
    checkpoint: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert run(checkpoint, images, "--output", output) == 0
    assert sorted(path.name for path in output.iterdir()) == [
        "a.png", "a_overlay.png", "b.png", "b_overlay.png", "results.jsonl",
    ]  # fmt: skip
    rows = lines(output)
    for row, name in zip(rows, ("a", "b"), strict=True):
        expected = Predictor.load(checkpoint)(images / f"{name}.png")
        np.testing.assert_array_equal(np.array(Image.open(output / f"{name}.png")), expected.mask)
        overlay = np.array(Image.open(output / f"{name}_overlay.png"))
        np.testing.assert_array_equal(overlay, expected.plot(legend=True))
        assert row["source"] == str(images / f"{name}.png")
        assert sum(item["pixels"] for item in row["classes"]) == 40 * 56
        assert row["files"]["mask"] == str(output / f"{name}.png")
        assert "polygons" not in row
    text = capsys.readouterr().out
    assert "2 images, mean ms: read " in text
    assert ": <name>.png, <name>_overlay.png, results.jsonl" in text
    assert str(output) in text


def test_json_sums_up_all_images(
    checkpoint: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(checkpoint, images, "--output", tmp_path / "out", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["images"], document["failed"]) == (2, [])
    assert document["results"] == str(tmp_path / "out" / "results.jsonl")
    pixels: dict[str, int] = {}
    for row in lines(tmp_path / "out"):
        for item in row["classes"]:
            pixels[item["name"]] = pixels.get(item["name"], 0) + item["pixels"]
    assert {item["name"]: item["pixels"] for item in document["classes"]} == pixels
    assert sum(item["share"] for item in document["classes"]) == pytest.approx(1)
    times = [row["timing_ms"]["model"] for row in lines(tmp_path / "out")]
    assert document["mean_timing_ms"]["model"] == pytest.approx(sum(times) / 2)


def test_confidence_polygons_and_alpha_are_written_when_asked_for(
    checkpoint: Path, images: Path, tmp_path: Path
) -> None:
    options = ("--confidence", "--polygons", "--alpha", "1")
    assert run(checkpoint, images / "a.png", "--output", tmp_path / "out", *options) == 0
    expected = Predictor.load(checkpoint)(images / "a.png", confidence=True)
    (row,) = lines(tmp_path / "out")
    assert sum(item["area"] for item in row["polygons"]) >= 40 * 56
    assert row["polygons"][0]["name"] in ("road", "car", "sky")
    picture = np.array(Image.open(row["files"]["confidence"]))
    assert expected.confidence is not None
    levels = np.rint(expected.confidence.astype(np.float32) * 255)
    np.testing.assert_array_equal(picture, np.repeat(levels[..., None], 3, axis=2))
    overlay = np.array(Image.open(row["files"]["overlay"]))
    np.testing.assert_array_equal(overlay, expected.plot(alpha=1, legend=True))


def test_equal_stems_do_not_overwrite_each_other(checkpoint: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "left" / "x.png", seed=0)
    write_image(tmp_path / "right" / "x.png", 48, 40, seed=1)
    assert run(checkpoint, f"{tmp_path}/*/x.png", "--output", tmp_path / "out") == 0
    rows = lines(tmp_path / "out")
    assert [Path(row["files"]["mask"]).name for row in rows] == ["x.png", "x-2.png"]
    sizes = [Image.open(row["files"]["mask"]).size for row in rows]
    assert sizes == [(56, 40), (40, 48)]


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/x.png", "b/x.png", "c/x.jpg"], ["x", "x-2", "x-3"]),
        (["x.png", "x_overlay.png"], ["x", "x_overlay-2"]),
        (["x_confidence.png", "x.png"], ["x_confidence", "x-2"]),
        (["x.png", "X.png"], ["x", "X-2"]),
        (["x.png", "x-2.png", "b/x.png"], ["x", "x-2", "x-3"]),
    ],
)
def test_names_differ_wherever_files_would_be_the_same(paths: list[str], names: list[str]) -> None:
    assert unique_names([Path(path) for path in paths], SemanticResult.ENDINGS.values()) == names


# ---------------------------------------------------------------- results of other tasks
PALETTE = ((128, 64, 128), (0, 0, 142), (70, 130, 180))
NAMES = ("road", "car", "sky")


class RoadLanes:
    def postprocess(self) -> list[RoadLaneResult]:
        maps = np.zeros((2, 40, 56), bool)
        maps[0, 20:] = maps[1, 30:, :28] = True
        return [RoadLaneResult(*maps, ("drivable", "lane"), ((0, 99, 0), (99, 0, 0)))]


class Panoptic:
    def postprocess(self) -> list[PanopticResult]:
        ids = np.zeros((40, 56), np.int32)
        ids[:10], ids[20:30], ids[30:] = 300, 2, 3
        segments = (Segment(300, 0), Segment(2, 1), Segment(3, 1))
        return [PanopticResult(ids, segments, (0.9,) * 3, NAMES, PALETTE, frozenset({1}))]


class Instances:
    def postprocess(self) -> list[InstanceResult]:
        masks = np.zeros((2, 40, 56), bool)
        masks[0, 5:9, 7:10] = masks[1, 20:, 20:] = True
        scores = np.array([0.9, 0.75], np.float32)
        return [InstanceResult(masks, np.array([1, 1]), scores, NAMES, PALETTE)]


class Labels:
    def postprocess(self) -> list[ClassificationResult]:
        return [ClassificationResult(2, np.array([0.25, 0.25, 0.5], np.float32), NAMES)]


def pretend(monkeypatch: pytest.MonkeyPatch, task: Any) -> None:
    """Let the predictor return what a task returns, whatever it was loaded from."""

    class Pretender:
        def stream(self, paths: list[Path], **_options: Any) -> Iterator[Any]:
            for path in paths:
                image = np.array(Image.open(path))
                result = task.postprocess()[0]
                yield dataclasses.replace(result, source=str(path), image=image)

    pretender = Pretender()
    pretender.task = task  # type: ignore[attr-defined]
    monkeypatch.setattr(Predictor, "load", lambda *_args, **_options: pretender)


@pytest.mark.parametrize(
    ("task", "files", "classes", "columns"),
    [
        (
            RoadLanes(), ["a_drivable.png", "a_lane.png", "a_overlay.png"],
            [{"id": 0, "name": "drivable", "pixels": 2240, "share": 0.5},
             {"id": 1, "name": "lane", "pixels": 560, "share": 0.125}],
            ["share of pixels", "50.00%"],
        ),
        (
            Panoptic(), ["a.png", "a_overlay.png"],
            [{"id": 1, "name": "car", "segments": 4, "pixels": 2240, "share": 0.5},
             {"id": 0, "name": "road", "segments": 2, "pixels": 1120, "share": 0.25}],
            ["segments", "share of pixels"],
        ),
        (Instances(), ["a_overlay.png"], [{"id": 1, "name": "car", "objects": 4}], ["objects"]),
        (Labels(), ["a_overlay.png"], [{"id": 2, "name": "sky", "images": 2}], ["images"]),
    ],
)  # fmt: skip
def test_results_of_other_tasks_are_written_and_summed_up(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], task: Any, files: list[str], classes: list[Any],
    columns: list[str],
) -> None:  # fmt: skip
    pretend(monkeypatch, task)
    assert run("any", images, "--output", tmp_path / "out", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["classes"] == classes
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {*files, *(name.replace("a", "b", 1) for name in files), "results.jsonl"}
    row = lines(tmp_path / "out")[0]
    assert sorted(Path(path).name for path in row["files"].values()) == files
    assert run("any", images, "--output", tmp_path / "out") == 3
    capsys.readouterr()
    assert run("any", images, "--output", tmp_path / "out", "--overwrite", "--alpha", "1") == 0
    text = capsys.readouterr().out
    assert all(column in text for column in columns)
    assert f"<name>{files[-1][1:]}, results.jsonl" in text


@pytest.mark.parametrize("option", ["--confidence", "--polygons"])
@pytest.mark.parametrize("task", [RoadLanes(), Panoptic(), Instances(), Labels()])
def test_what_a_result_does_not_have_is_refused(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], task: Any, option: str,
) -> None:  # fmt: skip
    pretend(monkeypatch, task)
    assert run("any", images, "--output", tmp_path / "out", option) == 2
    message = error(capsys)
    kind = type(task.postprocess()[0]).__name__
    assert message == (
        f"error: {option}: is asked for, but {kind} has no {option[2:]}; leave out {option}\n"
    )
    assert not (tmp_path / "out").exists()


def test_names_of_other_results_differ_by_their_own_endings() -> None:
    paths = [Path("x.png"), Path("x_lane.png"), Path("x_confidence.png")]
    assert unique_names(paths, RoadLaneResult.ENDINGS.values()) == ["x", "x_lane", "x_confidence"]


# ---------------------------------------------------------------- existing files
def test_results_are_replaced_with_overwrite_only(
    checkpoint: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (checkpoint, images, "--output", tmp_path / "out")
    assert run(*words) == 0
    before = (tmp_path / "out" / "results.jsonl").read_bytes()
    assert run(*words) == 3
    assert "holds results already, such as results.jsonl; replace them with" in error(capsys)
    assert (tmp_path / "out" / "results.jsonl").read_bytes() == before
    assert run(*words, "--overwrite") == 0
    assert len(lines(tmp_path / "out")) == 2


def test_other_files_of_the_same_name_are_kept(
    checkpoint: Path, images: Path, tmp_path: Path
) -> None:
    write_image(tmp_path / "out" / "b.png")
    assert run(checkpoint, images, "--output", tmp_path / "out") == 3
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.png"]


def test_a_confidence_that_is_not_asked_for_is_not_in_the_way(
    checkpoint: Path, images: Path, tmp_path: Path
) -> None:
    kept = write_image(tmp_path / "out" / "b_confidence.png")
    before = kept.read_bytes()
    assert run(checkpoint, images, "--output", tmp_path / "out", "--confidence") == 3
    assert run(checkpoint, images, "--output", tmp_path / "out") == 0
    assert kept.read_bytes() == before


def test_an_image_is_never_replaced_by_its_own_result(
    checkpoint: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (images / "a.png").read_bytes()
    assert run(checkpoint, images, "--output", images, "--overwrite") == 3
    assert "would be replaced by its result" in error(capsys)
    assert (images / "a.png").read_bytes() == before


# ---------------------------------------------------------------- errors
def test_unreadable_images_of_a_folder_are_named_at_the_end(
    checkpoint: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("aa.png", "z.png"):
        write_image(images / name, 200, 200)
        (images / name).write_bytes((images / name).read_bytes()[:900])
    write_image(images / "zz.png", 20, 64)
    assert run(checkpoint, images, "--output", tmp_path / "out", "--json") == 3
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert document["images"] == 2
    assert [Path(item["file"]).name for item in document["failed"]] == ["aa.png", "z.png", "zz.png"]
    assert [Path(row["source"]).name for row in lines(tmp_path / "out")] == ["a.png", "b.png"]
    assert captured.err.count("error: ") == 3
    assert "20x64 (H x W), smaller than 32" in captured.err


def test_one_truncated_image_is_3(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_image(tmp_path / "cut.jpg", 200, 200)
    path.write_bytes(path.read_bytes()[:2000])
    assert run(checkpoint, path, "--output", tmp_path / "out") == 3
    text = error(capsys)
    assert text.startswith(f"error: {path}: is truncated or no image")
    assert not (tmp_path / "out").exists()
    (tmp_path / "mine").mkdir()
    assert run(checkpoint, path, "--output", tmp_path / "mine") == 3
    assert list((tmp_path / "mine").iterdir()) == []  # a folder of the user's stays


@pytest.mark.parametrize("source", ["missing.png", "missing/*.png", "list.txt"])
def test_a_missing_source_is_3(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str
) -> None:
    assert run(checkpoint, tmp_path / source, "--output", tmp_path / "out") == 3
    assert source in error(capsys)
    assert not (tmp_path / "out").exists()


def truncate(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])


def leave_partial(folder: Path) -> None:
    folder.rename(folder.with_name(f".{folder.name}.partial"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "does not exist"),
        (leave_partial, "does not exist"),
        (lambda folder: (folder / "config.json").unlink(), "is no checkpoint folder"),
        (lambda folder: truncate(folder, "config.json"), "cannot be read"),
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot be read"),
        (lambda folder: truncate(folder, "model.safetensors"), "cannot be read"),
    ],
)
def test_a_missing_or_half_written_checkpoint_is_4(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Any, message: str
) -> None:
    folder = write_checkpoint(tmp_path / "run" / "best")
    damage(folder)
    assert run(folder, images, "--output", tmp_path / "out") == 4
    text = error(capsys)
    assert message in text
    assert text.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_device_that_is_not_there_is_5(
    checkpoint: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(checkpoint, images, "--output", tmp_path / "o", "--device", "cuda:99") == 5
    assert "device 'cuda:99' is not there" in error(capsys)


@pytest.mark.parametrize("options", [("--alpha", "1.5"), ("--device", "gpu")])
def test_impossible_options_are_2(
    checkpoint: Path, images: Path, tmp_path: Path, options: tuple[str, str]
) -> None:
    assert run(checkpoint, images, "--output", tmp_path / "out", *options) == 2


@pytest.mark.parametrize(
    ("failure", "code"), [(KeyboardInterrupt(), 130), (MemoryError(), 7), (ValueError("x"), 1)]
)
def test_what_ends_early_leaves_no_list_of_results(
    checkpoint: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    failure: BaseException, code: int,
) -> None:  # fmt: skip
    predict = Predictor.predict

    def fail_at_b(self: Predictor, image: Any, **options: Any) -> Any:
        if Path(image).stem == "b":
            raise failure
        return predict(self, image, **options)

    monkeypatch.setattr(Predictor, "predict", fail_at_b)
    assert run(checkpoint, images, "--output", tmp_path / "out") == code
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["a.png", "a_overlay.png"]


def test_a_folder_that_cannot_be_made_is_3(
    checkpoint: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert run(checkpoint, images, "--output", tmp_path / "file") == 3
    assert str(tmp_path / "file") in error(capsys)


def test_drawn_images_differ() -> None:
    assert (draw(32, 32, seed=0) != draw(32, 32, seed=1)).any()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("classification", ClassificationResult),
        ("instance", InstanceResult),
        ("panoptic", PanopticResult),
        ("road_lane", RoadLaneResult),
        ("semantic", SemanticResult),
        ("semantic_masks", SemanticResult),
    ],
)
def test_every_task_declares_its_result(name: str, kind: type) -> None:
    assert result_type(object.__new__(TASKS[name])) is kind
    assert set(TASKS) == {
        "classification", "instance", "panoptic", "road_lane", "semantic", "semantic_masks",
    }  # fmt: skip
