"""Section `binarize` of a recipe: what it refuses, and a run from it to a packed file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import rtseg
from rtseg.errors import ConfigError
from rtseg.nn.binary import binary_layers
from rtseg.nn.packed import freeze
from rtseg.recipe import build, read_recipe, train
from rtseg.tasks.semantic import SemanticTask
from rtseg.training.binarize import PhasedTask
from rtseg.training.hooks import no_hooks
from rtseg.training.phases import Phases
from rtseg.training.run_log import read_log

TEXT = """
model: {name: bisegunet, width: 0.125, stem_stride: 2}
data:
  train: {name: synthetic, split: train, size: [32, 64], length: 6}
  val: {name: synthetic, split: val, size: [32, 64], length: 1}
  preprocess: {stride: 32}
task: {name: semantic}
train: {iterations: 4, batch_size: 2, device: cpu, log_every: 1, val_every: 2, threads: 1}
optimizer: {name: adam, lr: 1.0e-3}
schedule: {name: cosine_phases, lengths: [1, 2, 1]}
binarize: {lengths: "${schedule.lengths}", groups: 2, penalty: 0.01, recalibrate: 1}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "own.yaml"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("binarize.gruops=2", "binarize.gruops is unknown. Did you mean 'groups'?"),
        ("binarize={}", "binarize.lengths is missing"),
        ("binarize=true", "binarize: True is no mapping"),
        ("binarize.lengths=[1,2]", "binarize.lengths: [1, 2] are no lengths of phases"),
        ("binarize.groups=0", "binarize.groups: 0 is too small"),
        ("binarize.order=deepest", "binarize.order = 'deepest' does not fit"),
        ("binarize.order=[enc*]", "'aspp.branches.0.conv' fits no pattern"),
        ("binarize.lengths=[1,1,1,1,1]", "set model.act_bits=1, or give three lengths"),
        ("model={name: dabnet}", "binarize: this network has no binary layers; leave the section"),
        ("binarise={lengths: [1, 2, 1]}", "section 'binarise' is unknown; did you mean 'binarize'"),
    ],
)
def test_wrong_sections_are_refused_in_one_sentence(file: Path, override: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(read_recipe(file, [override]))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_section_can_be_switched_off(file: Path) -> None:
    plan = build(read_recipe(file, ["binarize=null"]))
    assert type(plan.task) is SemanticTask
    assert plan.hooks is no_hooks


def test_every_key_of_the_section_arrives(file: Path) -> None:
    recipe = read_recipe(
        file,
        [
            "model.act_bits=1",
            "schedule.lengths=[5,4,3,2,1]",
            "binarize.order=[enc*,'*']",
            "binarize.reduction=sum",
        ],
    )
    task = build(recipe).task
    assert isinstance(task, PhasedTask)
    expected = Phases(
        (5, 4, 3, 2, 1), groups=2, order=("enc*", "*"), penalty=0.01, reduction="sum", recalibrate=1
    )
    assert task.phases == expected
    assert [name.split(".")[0] for name in task.order[:5]] == [
        "encoder1", "encoder2", "encoder3", "encoder4", "aspp",
    ]  # fmt: skip


def test_a_run_ends_with_a_binary_network_that_loads_and_freezes(
    file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    train(read_recipe(file), folder)
    kinds = [event["event"] for event in read_log(folder)]
    assert kinds.count("binarize") == 2
    for name in ("last", "best"):
        loaded = rtseg.load(folder / name)
        layers = binary_layers(loaded.model).values()
        assert len(layers) == 50
        assert all(layer.binarized for layer in layers)
    images = torch.randn(1, 3, 32, 64)
    with torch.no_grad():
        plain = loaded.model(images).logits
        packed = freeze(loaded.model)(images).logits  # type: ignore[arg-type]
    torch.testing.assert_close(packed, plain, rtol=1e-4, atol=1e-4)
