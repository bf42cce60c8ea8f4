"""Evaluation equals a slow reference, and leaves the network as it was."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rtseg.checkpoint import Checkpoint, ModelInfo, create_model
from rtseg.data.loader import eval_loader, opened
from rtseg.errors import DataError
from rtseg.evaluation import Evaluation, evaluate, score, write_evaluation
from rtseg.structures import Batch, Sample, SemanticOutput
from rtseg.tasks.semantic import SemanticTask
from training.toy import CLASSES, PREPROCESS, Pictures, Toy

TASK = SemanticTask(CLASSES)


class Noise(nn.Module):
    """Logits that depend on the image alone, at a quarter of its size."""

    def forward(self, images: Tensor) -> SemanticOutput:
        assert not self.training
        assert not torch.is_grad_enabled()
        seed = int(images.double().sum().abs().item() * 1000) % 2**31
        height, width = images.shape[-2:]
        generator = torch.Generator().manual_seed(seed)
        return SemanticOutput(
            torch.randn(len(images), 3, height // 4, width // 4, generator=generator)
        )


class Ragged(Pictures):
    """Images of many sizes with some void pixels."""

    def __getitem__(self, index: int, /) -> Sample:
        sample = Pictures(10, size=(13 + index, 22 - index))[index]
        sample.labels["semantic"][:2, :3] = 255
        return sample


def batches(dataset: Any, **options: Any) -> Any:
    return opened(eval_loader(dataset, preprocess=PREPROCESS, target=TASK.target, **options))


def reference_miou(dataset: Any) -> tuple[float, float]:
    """Return mean IoU and pixel accuracy, pixel by pixel in plain Python."""
    hits, union, right, total = [0] * 3, [0] * 3, 0, 0
    for index in range(len(dataset)):
        sample = dataset[index]
        height, width = sample.image.shape[:2]
        image = PREPROCESS.fit(sample.image).image
        with torch.no_grad():
            logits = Noise().eval()(image[None]).logits
        full = torch.nn.functional.interpolate(
            logits, size=image.shape[-2:], mode="bilinear", align_corners=False
        )[0]
        for row in range(height):
            for column in range(width):
                truth = int(sample.labels["semantic"][row, column])
                if truth == 255:
                    continue
                guess = int(full[:, row, column].argmax())
                total += 1
                right += guess == truth
                hits[truth] += guess == truth
                union[truth] += 1
                union[guess] += guess != truth
    return float(np.mean([h / u for h, u in zip(hits, union, strict=True)])), right / total


def test_scores_equal_those_of_a_slow_reference() -> None:
    data = Ragged(5)
    result = evaluate(Noise(), TASK, batches(data))
    miou, accuracy = reference_miou(data)
    assert result.scores["miou"] == pytest.approx(miou, abs=1e-12)
    assert result.scores["pixel_accuracy"] == pytest.approx(accuracy, abs=1e-12)
    assert result.images == 5
    assert [row["name"] for row in result.per_class] == ["low", "middle", "high"]


def test_scores_do_not_depend_on_batches_or_on_who_counted() -> None:
    data = Pictures(5)
    torch.manual_seed(0)
    model = Toy()
    whole = evaluate(model, TASK, batches(data)).metric.matrix()
    paired = evaluate(model, TASK, batches(data, batch_size=2)).metric.matrix()
    shares = [evaluate(model, TASK, batches(data, rank=rank, world=3)).metric for rank in range(3)]
    assert np.array_equal(whole, paired)
    assert np.array_equal(whole, sum(share.matrix() for share in shares))


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_every_module_is_restored(training: bool) -> None:
    model = Toy().train(training)
    model.norm.train(not training)  # as a frozen norm
    evaluate(model, TASK, batches(Pictures(1)))
    assert model.training is training
    assert model.norm.training is not training


def test_the_mode_is_restored_after_an_error() -> None:
    model = Toy().train()
    with pytest.raises(DataError):
        evaluate(model, TASK, batches(Pictures(2, bad=(1,))))
    assert model.training


def test_weights_and_statistics_are_not_changed() -> None:
    model = Toy().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    evaluate(model, TASK, batches(Pictures(2)))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_visitors_see_each_batch_with_its_results() -> None:
    seen: list[tuple[str, tuple[int, ...]]] = []

    def visit(batch: Batch, results: list[Any]) -> None:
        seen.extend(
            (meta.path, result.mask.shape) for meta, result in zip(batch.meta, results, strict=True)
        )

    evaluate(Toy(), TASK, batches(Ragged(3)), visit=visit)
    assert seen == [(f"picture/{index}", (13 + index, 22 - index)) for index in range(3)]


def test_the_metric_can_go_on_counting_afterwards() -> None:
    first = evaluate(Toy(), TASK, batches(Pictures(2))).metric
    second = evaluate(Toy(), TASK, batches(Pictures(2))).metric
    pixels = first.matrix().sum()
    first.merge(second)
    assert first.matrix().sum() == 2 * pixels
    sample = Pictures(1)[0]
    batch = next(batches(Pictures(1)))
    result = TASK.postprocess(Toy().eval()(batch.images), batch.meta)[0]
    first.update(result, batch.target[0])
    assert first.matrix().sum() == 2 * pixels + sample.labels["semantic"].size


# ---------------------------------------------------------------- of a checkpoint
def test_the_task_of_a_checkpoint_has_the_options_of_its_recipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[Any, ...]] = []

    def remember(*given: Any) -> SemanticTask:
        seen.append(given)
        return TASK

    monkeypatch.setattr("rtseg.evaluation.running.rebuild", remember)
    section = {"name": "semantic", "loss": "ohem"}
    info = ModelInfo("", {}, "semantic", CLASSES, asdict(PREPROCESS), {"task": section})
    checkpoint = Checkpoint(Toy(), info, Path())
    by_recipe = score(checkpoint, Pictures(2))
    without = score(replace(checkpoint, info=replace(info, recipe={})), Pictures(2))
    assert seen == [("semantic", CLASSES, section), ("semantic", CLASSES, {})]
    assert (
        by_recipe.scores
        == without.scores
        == evaluate(checkpoint.model, TASK, batches(Pictures(2))).scores
    )


# ---------------------------------------------------------------- files
def test_files_of_a_semantic_evaluation(tmp_path: Path) -> None:
    result = evaluate(Toy(), TASK, batches(Pictures(2)))
    files = write_evaluation(result, tmp_path, protocol={"split": "val"})
    assert {key: path.name for key, path in files.items()} == {
        "metrics": "metrics.json", "per_class": "per_class.csv", "confusion": "confusion.png",
    }  # fmt: skip
    document = json.loads(files["metrics"].read_text(encoding="utf-8"))
    assert document["protocol"] == {"split": "val"}
    assert document["scores"] == result.scores
    assert document["images"] == 2
    with files["per_class"].open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["low", "middle", "high"]
    assert [float(row["iou"]) for row in rows] == [row["iou"] for row in result.per_class]


class Fake:
    """Scores with any columns and matrices."""

    def __init__(self, **matrices: Any) -> None:
        self.held = matrices

    def matrices(self) -> dict[str, Any]:
        return self.held


def test_files_follow_what_the_metric_has(tmp_path: Path) -> None:
    pair = (np.array([[3, 1], [0, 2]]), ["background", "area"])
    rows: list[dict[str, Any]] = [{"name": "a", "pq": 0.5}, {"name": "b", "pq": None, "sq": 1.0}]
    result = Evaluation({"pq": 0.5}, rows, Fake(drivable=pair, lane=pair), 1, 0.5)
    files = write_evaluation(result, tmp_path, protocol={})
    assert {key: path.name for key, path in files.items()} == {
        "metrics": "metrics.json", "per_class": "per_class.csv",
        "confusion_drivable": "confusion_drivable.png", "confusion_lane": "confusion_lane.png",
    }  # fmt: skip
    assert all(path.is_file() for path in files.values())
    assert files["per_class"].read_text(encoding="utf-8").split() == [
        "name,pq,sq",
        "a,0.5,",
        "b,,1.0",
    ]
    bare = write_evaluation(Evaluation({}, [], Fake(), 0, 0.0), tmp_path / "bare", protocol={})
    assert list(bare) == ["metrics"]


class Roads:
    """Scenes with a drivable half and no classes at all."""

    classes = ()
    kinds = ("drivable", "lane")

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int, /) -> Sample:
        image = np.full((32, 64, 3), 100 * index, np.uint8)
        half = np.repeat(np.arange(2, dtype=np.uint8), 16)[:, None].repeat(64, axis=1)
        return Sample(image, {"drivable": half, "lane": 1 - half}, path=f"roads/{index}")


def test_classes_count_only_where_labels_are_class_ids(tmp_path: Path) -> None:
    preprocess = asdict(PREPROCESS) | {"stride": 32}
    info = ModelInfo("twinmixing_nano", {}, "road_lane", CLASSES, preprocess)
    trained = Checkpoint(create_model("twinmixing_nano"), info, tmp_path)
    assert 0 <= score(trained, Roads()).scores["lane_iou"] <= 1
    with pytest.raises(DataError, match="3 classes and the data 0"):
        score(replace(trained, info=replace(info, task="semantic")), Roads())
