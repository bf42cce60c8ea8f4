from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from export.networks import PREPROCESS, Small
from rtseg.data.preprocess import Preprocess
from rtseg.errors import CheckFailedError, ConfigError
from rtseg.export.verify import GATES, Case, Gate, Reference, cases, compare, verify
from rtseg.structures import ClassMapOutput, MaskOutput, RoadLaneOutput, SemanticOutput

SIZE = (32, 40)


# ---------------------------------------------------------------- cases
def test_cases_vary_what_may_differ() -> None:
    found = cases((64, 96), axes=("batch", "hw"), divisors=(32, 32))
    assert [(case.size, case.batch) for case in found] == [
        ((64, 96), 2), ((96, 128), 2), ((64, 128), 2), ((96, 96), 2), ((64, 96), 1), ((64, 96), 5),
    ]  # fmt: skip
    assert [case.batch for case in cases((64, 96), axes=("batch",), divisors=(1, 1))] == [2, 1, 5]
    # A file for one image sees a scene and noise.
    assert cases((64, 96), axes=(), divisors=(1, 1)) == [
        Case((64, 96), 1, 0), Case((64, 96), 1, 1),
    ]  # fmt: skip


def test_test_images_are_scenes_and_noise() -> None:
    reference = Reference(Small(), Preprocess(**PREPROCESS))
    pixels = reference.inputs(Case((64, 96), 3))
    assert (pixels.shape, pixels.dtype) == ((3, 64, 96, 3), torch.uint8)
    steps = [(image[1:].int() - image[:-1].int()).abs().float().mean().item() for image in pixels]
    assert steps[1] == pytest.approx(256 / 3, rel=0.05)  # of two independent uniform numbers
    assert max(steps[0], steps[2]) < 40
    assert torch.equal(reference.inputs(Case((64, 96), 1, 2))[0], pixels[2])


# ---------------------------------------------------------------- comparison
def test_errors_are_relative_to_the_largest_value_of_the_batch() -> None:
    expected = torch.zeros(2, 2, 1, 2)
    expected[0, 0, 0, 0], expected[1, 1, 0, 1] = 4.0, -8.0
    output = expected.clone()
    output[0, 1, 0, 1] += 0.4
    found = compare(SemanticOutput(output), SemanticOutput(expected))["logits"]
    assert found.errors == pytest.approx((0.05, 0.0))
    assert found.error == pytest.approx(0.05)
    assert (found.same, found.pixels) == (3, 4)  # the raised channel wins its pixel
    assert found.agreement == 0.75


def test_every_output_is_compared_and_classes_have_no_error() -> None:
    scores = torch.rand(1, 2, 2, 2)
    found = compare(RoadLaneOutput(scores, scores), RoadLaneOutput(scores, scores.flip(1)))
    assert (found["drivable"].agreement, found["lane"].agreement) == (1.0, 0.0)
    maps = torch.tensor([[[1, 2, 3]]], dtype=torch.uint8)
    only = compare(ClassMapOutput(maps), ClassMapOutput(maps.clamp(max=2)))["classes"]
    assert (only.errors, only.error, only.same, only.pixels) == ((), None, 2, 3)


def test_what_is_not_a_number_is_an_error() -> None:
    scores = torch.ones(2, 2, 1, 1)
    broken = scores.clone()
    broken[0, 0] = math.nan
    found = compare(SemanticOutput(broken), SemanticOutput(scores))["logits"]
    assert found.error is not None
    assert math.isnan(found.error)


def masks(queries: int, *, off: dict[int, float]) -> MaskOutput:
    classes = torch.zeros(1, queries, 3)
    classes[..., 0] = 1.0
    for query, value in off.items():
        classes[0, query, 1] = value
    return MaskOutput(classes, torch.ones(1, queries, 2, 2))


def test_a_tenth_of_the_queries_may_jump() -> None:
    ten = compare(masks(11, off={3: 0.5}), masks(11, off={}))["class_logits"]
    assert ten.errors == (0.0,)
    two = compare(masks(11, off={3: 0.5, 4: 0.25}), masks(11, off={}))["class_logits"]
    assert two.errors == (0.25,)
    assert two.agreement == 1.0


# ---------------------------------------------------------------- judgement
class Answers(nn.Module):
    """Give the output of a network, changed."""

    def __init__(self, network: nn.Module, change: Any) -> None:
        super().__init__()
        self.network, self.change = network, change

    def forward(self, images: Tensor) -> Any:
        return self.change(self.network(images), images)


def judged(network: nn.Module, change: Any, *, gate: Gate, batches: list[Case]) -> dict[str, Any]:
    return verify(
        Answers(network, change), Reference(network, Preprocess(**PREPROCESS)), batches,
        gate=gate, takes_pixels=False, where="onnx",
    )  # fmt: skip


def shifted(share: float, *, size: tuple[int, int] | None = None, batch: int = 0) -> Any:
    """Shift the first score of images of a size or number by a share of the largest one."""

    def change(output: SemanticOutput, images: Tensor) -> SemanticOutput:
        chosen = (size or images.shape[2:]) == images.shape[2:] and batch in (0, len(images))
        logits = output.logits.clone()
        logits[:, 0, 0, 0] += share * logits.abs().max() if chosen else 0
        return SemanticOutput(logits)

    return change


def test_a_file_that_answers_alike_passes_with_its_report() -> None:
    torch.manual_seed(0)
    batches = cases(SIZE, axes=("batch", "hw"), divisors=(8, 8))
    report = judged(Small(), shifted(5e-5), gate=GATES["fp32"], batches=batches)
    assert report["gate"] == {"error": 1e-4, "agreement": 0.9999}
    assert report["error"] == pytest.approx(5e-5, rel=0.01)
    assert report["agreement"] == 1.0
    assert len(report["cases"]) == 6
    assert report["cases"][1]["batch"] == 2
    assert report["cases"][1]["size"] == [40, 48]
    assert report["cases"][1]["outputs"]["logits"]["error"] == pytest.approx(5e-5, rel=0.01)


@pytest.mark.parametrize(
    ("change", "shape"),
    [
        (shifted(2e-4), "2 x 32 x 40"),
        (shifted(2e-4, size=(40, 32)), "2 x 40 x 32"),
        (shifted(2e-4, batch=5), "5 x 32 x 40"),
        (shifted(math.nan), "2 x 32 x 40"),
    ],
)
def test_one_batch_that_differs_fails(change: Any, shape: str) -> None:
    batches = cases(SIZE, axes=("batch", "hw"), divisors=(8, 8))
    with pytest.raises(CheckFailedError, match=f"^onnx, {shape}: output 'logits' differs"):
        judged(Small(), change, gate=GATES["fp32"], batches=batches)


def test_classes_count_even_where_scores_are_near() -> None:
    torch.manual_seed(0)

    def change(output: SemanticOutput, _: Tensor) -> SemanticOutput:
        logits = torch.zeros_like(output.logits)
        return SemanticOutput(logits)

    near = Gate(error=2.0, agreement=0.9999)
    with pytest.raises(CheckFailedError, match=r"same class for \d"):
        judged(Small(), change, gate=near, batches=[Case(SIZE, 1)])


def test_half_precision_is_judged_over_all_images_by_classes_alone() -> None:
    torch.manual_seed(0)
    network = Small()

    def swapped(count: int) -> Any:
        def change(output: SemanticOutput, images: Tensor) -> SemanticOutput:
            logits = output.logits.clone()
            if len(images) == 5:
                logits[0, :, 0, :count] = -logits[0, :, 0, :count]
            return SemanticOutput(logits)

        return change

    batches = cases(SIZE, axes=("batch",), divisors=(8, 8))  # 8 images of 1280 pixels
    report = judged(network, swapped(40), gate=GATES["bf16"], batches=batches)
    assert report["agreement"] == pytest.approx(1 - 40 / 10240)
    assert report["error"] > 0.1
    gate = Gate(None, 1 - 39 / 10240)
    with pytest.raises(CheckFailedError, match="onnx, all images: output 'logits'"):
        judged(network, swapped(40), gate=gate, batches=batches)


class Queries(nn.Module):
    """Eleven queries that all say the same, whatever the image."""

    def forward(self, images: Tensor) -> MaskOutput:
        output = masks(11, off={})
        return MaskOutput(*(value.expand(len(images), *value.shape[1:]) for value in output[:2]))


@pytest.mark.parametrize(("jumps", "fine"), [({2: 5e-3}, True), ({2: 2e-2}, False),
                                             ({1: 5e-3, 2: 5e-3, 5: 5e-3}, False)])  # fmt: skip
def test_few_images_may_jump_a_little(jumps: dict[int, float], fine: bool) -> None:
    def change(output: MaskOutput, images: Tensor) -> MaskOutput:
        classes = output.class_logits.clone()
        classes[0, :, 1] = jumps.get(len(images), 0.0)
        if len(jumps) > 1:
            classes[:, :, 1] = jumps[len(images)]
        return MaskOutput(classes, output.mask_logits)

    batches = cases(SIZE, axes=("batch",), divisors=(8, 8))
    if fine:
        assert judged(Queries(), change, gate=GATES["fp32"], batches=batches)["agreement"] == 1
    else:
        with pytest.raises(CheckFailedError, match="'class_logits'"):
            judged(Queries(), change, gate=GATES["fp32"], batches=batches)


def test_a_file_that_does_not_run_says_for_which_images() -> None:
    def change(_: Any, images: Tensor) -> Any:
        if len(images) == 1:
            raise RuntimeError("cannot reshape\n 5 into 7")
        return Small()(images)

    torch.manual_seed(0)
    with pytest.raises(CheckFailedError, match=r"1 x 32 x 40 \(cannot reshape 5 into 7\)"):
        judged(Small(), change, gate=GATES["fp16"], batches=[Case(SIZE, 1)])

    def refuse(*_: Any) -> Any:
        raise ConfigError("input is odd")

    with pytest.raises(ConfigError, match="input is odd"):
        judged(Small(), refuse, gate=GATES["fp16"], batches=[Case(SIZE, 1)])
