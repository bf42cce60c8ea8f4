"""Recipes: overrides, checks of what belongs together, and runs that say what they were."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from rtseg import checkpoint
from rtseg.data.synthetic import Synthetic
from rtseg.data.weights import class_statistics
from rtseg.errors import ConfigError, DataError
from rtseg.models import MODELS
from rtseg.recipe import build, list_recipes, read_recipe, resume_recipe, train
from rtseg.structures import SemanticOutput
from rtseg.training.run_log import read_log
from training.toy import Toy

TEXT = """
model: {name: dabnet}
data:
  train: {name: synthetic, split: train, size: [32, 48], length: 6}
  val: {name: synthetic, split: val, size: [32, 48], length: 2}
  augment: {crop: [32, 32], flip: 0.5}
  preprocess: {stride: 8}
task: {name: semantic}
train: {iterations: 2, batch_size: 4, device: cpu, log_every: 1, threads: 1}
optimizer: {name: adam, lr: 1.0e-3, eps: 1.0e-8}
schedule: {name: poly}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "own.yaml"
    path.write_text(TEXT, encoding="utf-8")
    return path


class OwnNet(nn.Module):
    """A network of a user: one convolution to the 19 classes of the synthetic scenes."""

    def __init__(self, classes: int = 19) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, classes, 3, padding=1, stride=2)

    def forward(self, images: Tensor) -> SemanticOutput:
        return SemanticOutput(self.layer(images))


def refusal(file: Path, overrides: Sequence[str], **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        build(read_recipe(file, overrides), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------- reading
def test_overrides_win(file: Path) -> None:
    sections = read_recipe(
        file, ["train.iterations=7", "data.val=null", "schedule.power=2"]
    ).sections
    assert sections["train"]["iterations"] == 7
    assert sections["data"]["val"] is None
    assert sections["schedule"] == {"name": "poly", "power": 2}
    assert sections["train"]["batch_size"] == 4


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["optimiser.lr=1"], "section 'optimiser' is unknown; did you mean 'optimizer'?"),
        (["data.agment.flip=1"], "data.agment is unknown"),
        (["data.agment.flip=1"], "did you mean 'augment'?"),
        (["train.batchsize=2"], "train.batchsize is unknown. Did you mean 'batch_size'?"),
        (["train.batch_size=true"], "true and false are not allowed"),
        (["train.precision=half"], "train.precision = 'half' does not fit"),
        (["model.name=dabnett"], "model.name: 'dabnett' is unknown; did you mean one of: dabnet"),
        (["model.widht=3"], "model.widht is unknown"),
        (["optimizer.name=sdg"], "did you mean one of: sgd"),
        (["optimizer.momentum=1"], "optimizer.momentum is unknown"),
        (["schedule.name=ploy"], "did you mean one of: poly"),
        (["task.name=semantics"], "did you mean one of: semantic"),
        (["task.class_weights=inverse"], "task.class_weights = 'inverse' does not fit"),
        (["data.train.name=camvit"], "did you mean one of: camvid"),
        (["data.train=camvid"], "data.train: 'camvid' is no mapping"),
        (["data.augment.crop=[32]"], "data.augment.crop"),
        (["data.preprocess.stride=0"], "data.preprocess"),
        (["data.workers=two"], "data.workers = 'two' does not fit"),
        (["data.max_bad=2"], "max_bad"),
        (["train.iterations=null"], "exactly one of epochs and iterations"),
        (["train.batch_size=7"], "larger than the training set (6 images)"),
        (["train.accumulate=3"], "multiple of 3"),
        (["train.monitor=mio"], "'mio' is no score"),
        (["optimizer.backbone_multiplier=0.1"], "no backbone"),
        (["schedule={name: cosine, restarts: [9]}"], "schedule.restarts"),
        (["task.class_weights=[1.0, 2.0]"], "2 weights for 19 classes"),
        (["train.iterations"], "has no '='"),
        (["schedule=null"], "section 'schedule' is missing"),
        (["data.train=null"], "data.train"),
    ],
    ids=str,
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_training(
    file: Path, overrides: list[str], says: str
) -> None:
    assert says in refusal(file, overrides)


def test_an_unknown_recipe_and_broken_yaml_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'lsa_binet/camvit' is unknown.*lsa_binet/camvid"):
        read_recipe("lsa_binet/camvit")
    broken = tmp_path / "broken.yaml"
    broken.write_text("model: {name: dabnet", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"broken\.yaml: cannot be read") as caught:
        read_recipe(broken)
    assert "\n" not in str(caught.value)
    assert ", line " in str(caught.value)


def test_a_row_of_the_ablations_is_the_recipe_with_its_overrides() -> None:
    rows = [name for name in list_recipes() if name.startswith("lsa_binet/camvid@")]
    assert rows
    for name in rows:
        base, row = read_recipe("lsa_binet/camvid"), read_recipe(name)
        assert row.sections["model"] != base.sections["model"]
        assert {**row.sections, "model": None} == {**base.sections, "model": None}
    changed = read_recipe(rows[0], ["train.epochs=3"])
    assert changed.sections["train"]["epochs"] == 3
    with pytest.raises(ConfigError, match=r"has no row 'nothing'.*rows: "):
        read_recipe("lsa_binet/camvid@nothing")


def test_the_hash_follows_values_and_not_their_order(tmp_path: Path, file: Path) -> None:
    first = read_recipe(file).sha256
    assert read_recipe(file, ["optimizer.lr=0.002"]).sha256 != first
    assert read_recipe(file, ["train.seed=1"]).sha256 != first
    lines = TEXT.strip().splitlines()
    turned = [line for line in lines if line.startswith("schedule")]
    turned += [line for line in lines if not line.startswith("schedule")]
    other = tmp_path / "turned.yaml"
    other.write_text("\n".join(turned).replace("lr: 1.0e-3, eps: 1.0e-8", "eps: 1e-8, lr: 0.001"))
    assert read_recipe(other).sha256 == first


# ---------------------------------------------------------------- batch size and learning rate
@pytest.mark.parametrize(
    ("overrides", "rate", "rule"),
    [
        (["train.batch_size=1"], 0.5e-3, "square-root"),
        (["train.batch_size=1", "optimizer={name: sgd, lr: 1.0e-3}"], 1e-3, None),
        (["train.batch_size=1", "optimizer.name=sgd"], 0.25e-3, "linear"),
        (["train.batch_size=1", "optimizer.name=adamw"], 0.5e-3, "square-root"),
        (["train.batch_size=1", "optimizer.lr=0.1"], 0.1, None),
        (["train.batch_size=1", "optimizer.lr=0.001"], 1e-3, None),
        (["train.batch_size=4"], 1e-3, None),
        (["train.epochs=1"], 1e-3, None),
    ],
)
def test_the_learning_rate_follows_the_batch_size_unless_it_is_given(
    file: Path, overrides: list[str], rate: float, rule: str | None
) -> None:
    result = read_recipe(file, overrides)
    assert math.isclose(result.sections["optimizer"]["lr"], rate)
    if rule is None:
        assert result.notes == ()
    else:
        assert len(result.notes) == 1
        assert rule in result.notes[0]
        assert "batch size 4 -> 1" in result.notes[0]


def test_a_batch_size_that_is_no_number_is_refused_without_a_rate(file: Path) -> None:
    for value in ("0", "-4", "x", "null"):
        assert "train.batch_size" in refusal(file, [f"train.batch_size={value}"])


# ---------------------------------------------------------------- what belongs together
def folder_with(root: Path, splits: Sequence[str]) -> Path:
    for split in splits:
        for kind, pixels in (
            ("images", np.zeros((32, 32, 3), np.uint8)),
            ("masks", np.zeros((32, 32), np.uint8)),
        ):
            path = root / kind / split / "a.png"
            path.parent.mkdir(parents=True)
            Image.fromarray(pixels).save(path)
    (root / "data.yaml").write_text(
        f"path: .\nsplits: [{', '.join(splits)}]\nclasses:\n  0: {{name: road, color: [1, 2, 3]}}\n"
    )
    return root


@pytest.mark.parametrize(
    ("train_split", "val_split", "refused"),
    [
        ("train", "train", True), ("trainval", "val", True), ("trainval", "train", True),
        ("trainval", "trainval", True), ("trainval", "test", False), ("train", "val", False),
    ],
)  # fmt: skip
def test_a_validation_set_inside_of_the_training_set_is_refused(
    tmp_path: Path, file: Path, train_split: str, val_split: str, refused: bool
) -> None:
    root = tmp_path / "camvid"
    for split in ("train", "val", "test"):
        names = f"{split}.png {split}_mask.png"
        root.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(root / f"{split}.png")
        Image.fromarray(np.zeros((32, 32), np.uint8)).save(root / f"{split}_mask.png")
        (root / f"{split}.txt").write_text(names + "\n")
    overrides = [
        f"data.train={{name: camvid, root: {root}, split: {train_split}}}",
        f"data.val={{name: camvid, root: {root}, split: {val_split}}}",
        "train.batch_size=1",
    ]
    if refused:
        assert "is part of the training set" in refusal(file, overrides)
    else:
        plan = build(read_recipe(file, overrides))
        assert plan.data.select is (val_split != "test")


def test_a_split_that_is_left_out_is_the_one_of_the_reader(file: Path) -> None:
    message = refusal(file, ["data.train={name: synthetic}", "data.val.split=train"])
    assert "'train' is part of the training set" in message


def test_classes_of_both_sets_have_to_agree(tmp_path: Path, file: Path) -> None:
    root = folder_with(tmp_path / "own", ["val"])
    message = refusal(file, [f"data.val={{name: native, root: {root}, split: val}}"])
    assert "classes differ" in message


def test_a_task_needs_its_labels(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Synthetic, "kinds", ("lane",))
    assert "offers lane, the task needs 'semantic'" in refusal(file, [])


def test_a_model_has_to_return_what_the_task_reads(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other(nn.Module):
        def __init__(self, num_classes: int) -> None:  # noqa: ARG002 (a builder takes it)
            super().__init__()

        def forward(self, images: Tensor) -> Tensor:
            return images

    monkeypatch.setitem(MODELS, "other", Other)
    assert "model returns Tensor, the task needs SemanticOutput" in refusal(
        file, ["model.name=other"]
    )


@pytest.mark.parametrize(("scheme", "offset"), [("inverse_log", 1.1), ("median_frequency", 1.02)])
def test_class_weights_are_counted_on_the_training_set(
    file: Path, scheme: str, offset: float
) -> None:
    overrides = [f"task.class_weights={scheme}", f"task.inverse_log_offset={offset}"]
    weight = build(read_recipe(file, overrides)).task.weight  # type: ignore[attr-defined]
    counted = class_statistics(Synthetic(split="train", size=(32, 48), length=6))
    if scheme == "inverse_log":
        expected = [1 / math.log(offset + share) for share in counted.shares]
    else:
        rates = [
            p / f if f else 0 for p, f in zip(counted.pixels, counted.frame_pixels, strict=True)
        ]
        median = float(np.median([rate for rate in rates if rate]))
        expected = [median / rate if rate else 0 for rate in rates]
    assert torch.allclose(weight, torch.tensor(expected))
    assert weight.std() > 0


def test_class_weights_may_be_a_list_or_left_out(file: Path) -> None:
    numbers = [float(index) for index in range(1, 20)]
    task: Any = build(read_recipe(file, [f"task.class_weights={numbers}"])).task
    assert task.weight.tolist() == numbers
    plain: Any = build(read_recipe(file)).task
    assert plain.weight is None


def test_the_seed_decides_the_first_weights(file: Path) -> None:
    def weights(*overrides: str) -> Tensor:
        torch.rand(3)
        model = build(read_recipe(file, overrides)).model
        return next(iter(model.parameters())).detach()

    assert torch.equal(weights(), weights())
    assert not torch.equal(weights(), weights("train.seed=1"))


# ---------------------------------------------------------------- running
def test_a_run_folder_says_what_was_trained(tmp_path: Path, file: Path) -> None:
    chosen = read_recipe(file, ["train.batch_size=2"])
    folder = tmp_path / "run"
    scores = train(chosen, folder)
    again = resume_recipe(folder)
    assert (again.sections, again.sha256) == (chosen.sections, chosen.sha256)
    assert again.notes == ()  # the learning rate is not changed twice
    info = checkpoint.read_info(folder / "last")
    assert (info.name, info.task, len(info.classes)) == ("dabnet", "semantic", 19)
    assert info.recipe == chosen.sections
    assert info.facts["recipe_sha256"] == chosen.sha256
    assert (info.facts["seed"], info.facts["step"], info.facts["scores"]) == (0, 2, scores)
    assert info.facts["scored_on"] == "synthetic val"
    assert info.facts["versions"]["torch"] == torch.__version__.split("+")[0]
    assert json.loads((folder / "env.json").read_text())["versions"] == info.facts["versions"]
    events = read_log(folder)
    assert (events[0]["event"], events[0]["message"]) == ("note", chosen.notes[0])
    assert checkpoint.load(folder).path == folder / "best"


def test_a_run_folder_is_not_overwritten(tmp_path: Path, file: Path) -> None:
    train(read_recipe(file, ["data.val=null"]), tmp_path / "run")
    with pytest.raises(DataError, match=r"holds a run already.*--resume"):
        train(read_recipe(file), tmp_path / "run")
    with pytest.raises(DataError, match=r"has no config\.yaml"):
        resume_recipe(tmp_path)


def test_a_network_of_the_users_own_is_trained(tmp_path: Path, file: Path) -> None:
    torch.manual_seed(0)
    own = OwnNet()
    before = own.layer.weight.detach().clone()
    chosen = read_recipe(file, ["model.name=mine"])
    scores = train(chosen, tmp_path / "run", model=own)
    assert 0 <= scores["miou"] <= 1
    assert not torch.equal(own.layer.weight, before)
    assert checkpoint.read_info(tmp_path / "run" / "last").name == ""
    loaded = checkpoint.load(tmp_path / "run" / "last", model=OwnNet()).model
    assert torch.equal(loaded.layer.weight, own.layer.weight)  # type: ignore[union-attr]


@pytest.mark.parametrize(("model", "says"), [(OwnNet(5), "5 outputs for 19"), (Toy(), "3 outputs")])
def test_a_network_with_other_classes_fails_in_the_first_step(
    tmp_path: Path, file: Path, model: nn.Module, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        train(read_recipe(file), tmp_path / "run", model=model)


def test_processes_other_than_the_first_write_nothing(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text("of the first process")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr("rtseg.recipe.running.fit", lambda *_, **__: {})
    assert train(read_recipe(file, ["train.batch_size=2"]), folder) == {}
    assert [item.name for item in folder.iterdir()] == ["config.yaml"]
