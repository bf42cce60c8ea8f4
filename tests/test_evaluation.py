"""Evaluation equals a slow reference, and leaves the network as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rtseg.data.loader import eval_loader, opened
from rtseg.errors import DataError
from rtseg.evaluation import evaluate
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
