from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rtseg.errors import RtsegError
from rtseg.structures import Batch, Sample, SemanticOutput
from training.toy import Pictures, Toy, run, toy_plan


class Fuse(nn.Module):
    """Pass on what comes in; from a call on, one number of the first image is infinite."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.left = calls

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        if self.left >= 0:
            return x
        spark = torch.zeros_like(x)
        spark[0, 0, 0, 0] = float("inf")
        return x + spark


class Fused(Toy):
    def __init__(self, calls: int) -> None:
        super().__init__(dropout=0.0, norm=False)
        self.inner = nn.Sequential(nn.Identity(), Fuse(calls))

    def forward(self, images: Tensor) -> SemanticOutput:
        return SemanticOutput(self.last(self.inner(self.first(images))))


def explain(folder: Path, step: int) -> dict[str, Any]:
    return dict(json.loads((folder / "plots" / f"nan_{step}.json").read_text(encoding="utf-8")))


def test_first_layer_and_its_image_are_named(tmp_path: Path) -> None:
    with pytest.raises(RtsegError, match=r"not finite at step 1: the output of layer 'inner\.1'"):
        run(toy_plan(iterations=3, save_every=1, model=Fused(1)), tmp_path)
    found = explain(tmp_path, 1)
    assert (found["kind"], found["name"], found["step"]) == ("layer", "inner.1", 1)
    assert len(found["images"]) == 1  # the first of four
    assert found["images"][0].startswith("picture/")
    assert (tmp_path / "last").is_dir()  # of step 1


class Huge(Pictures):
    """Pictures of which one holds numbers that are none."""

    def __getitem__(self, index: int, /) -> Sample:
        sample = super().__getitem__(index)
        if index != 3:
            return sample
        return Sample(np.full(sample.image.shape, np.nan), sample.labels, path=sample.path)


def test_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(RtsegError, match=r"^picture/3: .*images hold such numbers"):
        run(toy_plan(iterations=5, train=Huge(10)), tmp_path)
    (file,) = (tmp_path / "plots").glob("nan_*.json")
    found = json.loads(file.read_text(encoding="utf-8"))
    assert (found["kind"], found["images"]) == ("image", ["picture/3"])


def test_broken_weight_is_named(tmp_path: Path) -> None:
    model = Toy()
    with torch.no_grad():
        model.last.bias[1] = float("nan")
    with pytest.raises(RtsegError, match=r"'last\.bias' of the network is not"):
        run(toy_plan(iterations=2, model=model), tmp_path)
    assert explain(tmp_path, 0)["kind"] == "weight"


def test_loss_term_is_named_where_the_network_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = toy_plan(iterations=2)

    def training_step(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        logits = model(batch.images).logits
        return {"good": logits.mean(), "bad": logits.mean().detach() - float("inf")}

    monkeypatch.setattr(plan.task, "training_step", training_step)
    with pytest.raises(RtsegError, match="term 'bad' of the loss is not"):
        run(plan, tmp_path)
    found = explain(tmp_path, 0)
    assert (found["kind"], found["name"], len(found["images"])) == ("loss", "bad", 4)
    assert found["terms"]["bad"] == "-inf"


class Once(Toy):
    """Go wrong in the first call only, so that nothing is found in the second."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, images: Tensor) -> SemanticOutput:
        self.calls += 1
        factor = float("nan") if self.calls == 1 else 1.0
        return SemanticOutput(super().forward(images).logits * factor)


def test_cause_that_does_not_come_back_is_admitted(tmp_path: Path) -> None:
    with pytest.raises(RtsegError, match="its cause could not be found again"):
        run(toy_plan(iterations=2, model=Once()), tmp_path)
    assert explain(tmp_path, 0)["kind"] == "elsewhere"
