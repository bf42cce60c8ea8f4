"""Batch norms that are frozen, or joined over processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from rtseg.errors import ConfigError
from training.toy import Pictures, Toy, run, toy_plan


def test_frozen_norms_keep_their_statistics_and_learn_their_scale(tmp_path: Path) -> None:
    model = Toy(dropout=0.0)
    assert isinstance(model.norm, nn.BatchNorm2d)
    model.norm.running_mean += 0.5
    seen: list[tuple[bool, bool]] = []
    model.norm.register_forward_hook(lambda *_: seen.append((model.training, model.norm.training)))
    plan = toy_plan(model=model, iterations=3, val=Pictures(2), val_every=1, freeze_batch_norm=True)
    run(plan, tmp_path)
    assert model.norm.running_mean.tolist() == [0.5] * 4
    assert model.norm.num_batches_tracked == 0
    assert not torch.equal(model.norm.weight, torch.ones(4))
    steps = [training for training, frozen in seen if training]
    assert len(steps) == 3
    assert not any(frozen for training, frozen in seen)


def test_frozen_norms_need_no_two_images() -> None:
    plan = toy_plan(iterations=1, batch_size=1, freeze_batch_norm=True)
    plan.model.smallest_batch = 2
    plan.check()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cpu"}, "batch norms cannot take statistics from several processes on the CPU"),
        ({"freeze_batch_norm": True}, "frozen statistics cannot be taken from all processes"),
    ],
    ids=["cpu", "frozen"],
)
def test_norms_are_joined_on_gpus_only(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        toy_plan(iterations=1, sync_batch_norm=True, **options).check()
    assert caught.value.where == "train.sync_batch_norm"
    assert caught.value.fix


def test_joined_norms_keep_names_weights_and_evaluation(tmp_path: Path) -> None:
    """Without other processes they are plain ones; that they are joined needs GPUs."""
    plain, joined = (
        toy_plan(model=Toy(dropout=0.0), iterations=2, sync_batch_norm=joined)
        for joined in (False, True)
    )
    joined.model.load_state_dict(plain.model.state_dict())
    run(plain, tmp_path / "plain")
    run(joined, tmp_path / "joined")
    assert isinstance(joined.model.norm, nn.SyncBatchNorm)
    for name, value in plain.model.state_dict().items():
        assert torch.equal(value, joined.model.state_dict()[name]), name
