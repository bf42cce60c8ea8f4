"""Starting weights: what fits is taken, what does not is named, nothing is fetched unasked."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import ResNet50_Weights, resnet50

from rtseg.checkpoint import ModelInfo, class_layers, create_model, save, start_from, starting
from rtseg.errors import CheckpointError
from rtseg.models import MODELS
from rtseg.structures import ClassificationOutput, ClassInfo, RoadLaneOutput, SemanticOutput


class Trunk(nn.Sequential):
    """Two convolutions with a norm."""

    def __init__(self, width: int = 4) -> None:
        super().__init__(
            nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.Conv2d(width, 8, 1)
        )


class Small(nn.Module):
    """A trunk, a neck, and a head whose size depends on the number of classes."""

    def __init__(self, num_classes: int, *, width: int = 4) -> None:
        super().__init__()
        self.backbone = Trunk(width)
        self.neck = nn.Conv2d(8, 8, 1)
        self.head = nn.Conv2d(8, num_classes, 1)

    def forward(self, images: Tensor) -> SemanticOutput:
        return SemanticOutput(self.head(self.neck(self.backbone(images))))


class Classifier(nn.Module):
    """The same trunk with an average and a linear layer."""

    def __init__(self, num_classes: int, *, width: int = 4) -> None:
        super().__init__()
        self.backbone = Trunk(width)
        self.linear = nn.Linear(8, num_classes)

    def forward(self, images: Tensor) -> ClassificationOutput:
        return ClassificationOutput(self.linear(self.backbone(images).mean((2, 3))))


class Road(nn.Module):
    """A network without classes and without a backbone."""

    def __init__(self, *, width: int = 2) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, width, 1)

    def forward(self, images: Tensor) -> RoadLaneOutput:
        return RoadLaneOutput(self.layer(images), None)


class Residual(nn.Module):
    """A network on torchvision's ResNet-50."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.backbone = nn.Sequential()
        for name, child in resnet50(weights=None).named_children():
            if name != "fc":
                self.backbone.add_module(name, child)
        self.head = nn.Conv2d(2048, num_classes, 1)


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, builder in {
        "small": Small, "wide": partial(Small, width=6), "classifier": Classifier, "road": Road,
        "residual": Residual,
    }.items():  # fmt: skip
        monkeypatch.setitem(MODELS, name, builder)
    torch.manual_seed(0)
    return


def written(folder: Path, name: str, classes: int = 3, task: str = "semantic") -> dict[str, Tensor]:
    """Write a checkpoint of a new network; return its weights."""
    torch.manual_seed(7)
    model = MODELS[name](classes)
    info = ModelInfo(
        name, {}, task, tuple(ClassInfo(str(index), (0, 0, 0)) for index in range(classes)), {}
    )
    save(folder, model.state_dict(), info)
    return model.state_dict()


def start(
    model: nn.Module, source: Path, name: str = "small", classes: int = 3
) -> starting.Started:
    return start_from(model, source, name=name, class_layers=class_layers(name, classes))


def equal(model: nn.Module, weights: dict[str, Tensor], prefix: str = "") -> dict[str, bool]:
    own = model.state_dict()
    return {
        key: torch.equal(own[key], weights[key])
        for key in own
        if key.startswith(prefix) and key in weights and own[key].shape == weights[key].shape
    }


# ---------------------------------------------------------------- classes of a network
def test_a_number_of_classes_is_given_exactly_where_there_is_one() -> None:
    with pytest.raises(TypeError, match=r"small needs num_classes; .*create_model\('small', 19\)"):
        create_model("small")
    with pytest.raises(TypeError, match=r"road has no num_classes; write create_model\('road'\)"):
        create_model("road", 3)
    assert create_model("road", width=3).layer.out_channels == 3  # type: ignore[union-attr]
    assert create_model("small", num_classes=5).head.out_channels == 5  # type: ignore[union-attr]
    with pytest.raises(TypeError, match="widht is unknown"):
        create_model("road", widht=3)


def test_layers_that_depend_on_the_classes_are_found_without_memory() -> None:
    assert class_layers("small", 3) == {"head.weight", "head.bias"}
    assert class_layers("classifier", 3) == {"linear.weight", "linear.bias"}
    assert class_layers("road", None) == frozenset()


# ---------------------------------------------------------------- checkpoints
def test_a_checkpoint_of_the_same_network_gives_everything(tmp_path: Path) -> None:
    weights = written(tmp_path / "net", "small")
    model = create_model("small", 3)
    started = start(model, tmp_path / "net")
    assert all(equal(model, weights).values())
    assert (started.part, started.random, started.tensors) == ("network", (), len(weights))
    file = tmp_path / "net" / "model.safetensors"
    assert started.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert started.note == (
        f"network starts from {tmp_path / 'net'} ({len(weights)} tensors); nothing left random"
    )


def test_of_a_run_folder_best_is_taken(tmp_path: Path) -> None:
    weights = written(tmp_path / "run" / "best", "small")
    model = create_model("small", 3, weights=tmp_path / "run")
    assert all(equal(model, weights).values())


def test_layers_of_other_classes_stay_random_and_are_named(tmp_path: Path) -> None:
    weights = written(tmp_path / "net", "small", classes=5)
    torch.manual_seed(1)
    plain = create_model("small", 3).state_dict()
    torch.manual_seed(1)
    with pytest.warns(UserWarning, match="left random: head$"):
        model = create_model("small", 3, weights=tmp_path / "net")
    same = equal(model, weights)
    assert all(same.values())
    assert set(same) == set(weights) - {"head.weight", "head.bias"}
    assert all(equal(model, plain, "head.").values())


def test_a_classifier_gives_its_backbone(tmp_path: Path) -> None:
    weights = written(tmp_path / "net", "classifier", classes=10, task="classification")
    model = create_model("small", 3)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    started = start(model, tmp_path / "net")
    assert all(equal(model, weights, "backbone.").values())
    assert all(equal(model, before, "neck.").values())
    assert (started.part, started.random) == ("backbone", ("neck", "head"))
    assert "left random: neck, head" in started.note
    with pytest.raises(CheckpointError, match="holds a backbone, and this network has none"):
        start_from(create_model("road"), tmp_path / "net", name="road")


def test_a_classifier_starts_from_itself_as_a_whole(tmp_path: Path) -> None:
    written(tmp_path / "net", "classifier", classes=10, task="classification")
    started = start(create_model("classifier", 3), tmp_path / "net", "classifier")
    assert (started.part, started.random) == ("network", ("linear",))


def test_another_network_is_not_taken_for_its_backbone(tmp_path: Path) -> None:
    written(tmp_path / "net", "classifier", task="semantic")
    with pytest.raises(CheckpointError, match=r"9 of 11 keys.* the network, it lacks neck\.weight"):
        start(create_model("small", 3), tmp_path / "net")


def test_switches_that_change_shapes_are_an_error(tmp_path: Path) -> None:
    written(tmp_path / "net", "wide")
    with pytest.raises(CheckpointError) as caught:
        start(create_model("small", 3), tmp_path / "net")
    assert "backbone.0.weight is (6, 3, 3, 3) instead of (4, 3, 3, 3) (of 7)" in str(caught.value)


# ---------------------------------------------------------------- files
WRAPPED = {
    "bare": lambda weights: weights,
    "state_dict": lambda weights: {"state_dict": weights, "epoch": 3},
    "model": lambda weights: {"model": weights, "optimizer": {}},
    "module": lambda weights: {"state_dict": {f"module.{k}": v for k, v in weights.items()}},
}


@pytest.mark.parametrize("wrapping", sorted(WRAPPED))
@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_files_of_training_scripts_are_unwrapped(
    tmp_path: Path, wrapping: str, suffix: str
) -> None:
    weights = Small(3).state_dict()
    file = tmp_path / f"weights{suffix}"
    torch.save(WRAPPED[wrapping](weights), file)
    model = create_model("small", 3, weights=file)
    assert all(equal(model, weights).values())


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_a_file_may_hold_the_backbone_alone(tmp_path: Path, prefix: str) -> None:
    weights = {f"backbone.{key}": value for key, value in Trunk().state_dict().items()}
    file = tmp_path / "trunk.safetensors"
    extra = {"linear.weight": torch.ones(2)} if prefix else {"fc.bias": torch.ones(2)}
    named = {f"{prefix}{key.removeprefix('backbone.')}": value for key, value in weights.items()}
    save_file({**named, **extra}, file)
    model = create_model("small", 3)
    started = start(model, file)
    assert all(equal(model, weights, "backbone.").values())
    assert (started.part, started.tensors, started.random) == ("backbone", 7 + 2, ("neck", "head"))


def test_counters_of_norms_may_be_missing(tmp_path: Path) -> None:
    weights = {k: v for k, v in Small(3).state_dict().items() if "num_batches" not in k}
    torch.save(weights, tmp_path / "old.pth")
    model = create_model("small", 3)
    assert start(model, tmp_path / "old.pth").random == ()
    assert all(equal(model, weights).values())


def test_one_error_says_how_near_a_file_comes(tmp_path: Path) -> None:
    weights = Small(3).state_dict()
    del weights["neck.weight"], weights["neck.bias"]
    weights["nick.weight"] = torch.zeros(1)
    weights["backbone.2.weight"] = torch.zeros(8, 4, 3, 3)
    torch.save(weights, tmp_path / "other.pth")
    model = create_model("small", 3)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        start(model, tmp_path / "other.pth")
    assert caught.value.what == (
        "10 of 12 keys fit the network, it lacks neck.weight (of 2), it has an unexpected "
        "nick.weight (of 1), backbone.2.weight is (8, 4, 3, 3) instead of (8, 4, 1, 1) (of 1)"
    )
    assert caught.value.where == str(tmp_path / "other.pth")
    assert all(equal(model, before).values())


def test_a_bare_backbone_that_does_not_fit_keeps_its_own_names(tmp_path: Path) -> None:
    torch.save({**Trunk().state_dict(), "9.weight": torch.ones(1)}, tmp_path / "trunk.pth")
    with pytest.raises(
        CheckpointError, match=r"9 of 10 keys fit the backbone.*unexpected 9\.weight"
    ):
        start(create_model("small", 3), tmp_path / "trunk.pth")


class Evil:
    """A pickle of this would run code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("touched"),))


def test_a_file_cannot_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Evil()}, "evil.pth")
    with pytest.raises(CheckpointError, match="cannot be read") as caught:
        create_model("small", 3, weights="evil.pth")
    assert "\n" not in str(caught.value)
    assert not Path("touched").exists()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.pth", b"", "cannot be read"),
        ("a.pth", b"no pickle", "cannot be read"),
        ("a.safetensors", b"", "cannot be read"),
        ("a.pth", {"epoch": 3}, "holds no tensors by name"),
        ("a.pth", [torch.ones(1)], "holds no tensors by name"),
        ("a.pth", None, "cannot be read"),
        ("folder", None, "does not exist"),
    ],
    ids=str,
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, content: Any, says: str) -> None:
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    elif content is not None:
        torch.save(content, tmp_path / name)
    with pytest.raises(CheckpointError, match=says) as caught:
        create_model("small", 3, weights=tmp_path / name)
    assert str(tmp_path / name) in caught.value.where
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- torchvision
@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torch hub; whoever asks for a download fails."""

    def fetch(*_: Any, **__: Any) -> None:
        raise OSError("no network in tests")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    return tmp_path / "checkpoints" / Path(ResNet50_Weights.IMAGENET1K_V1.url).name


def test_torchvision_weights_come_from_the_cache(hub: Path) -> None:
    torch.manual_seed(5)
    weights = resnet50(weights=None).state_dict()
    hub.parent.mkdir()
    torch.save({key: value for key, value in weights.items() if "num_batches" not in key}, hub)
    for word in ("torchvision", "torchvision-download"):
        with pytest.warns(UserWarning, match="backbone starts from torchvision.*left random: head"):
            model = create_model("residual", 3, weights=word)
        named = {f"backbone.{key}": value for key, value in weights.items()}
        assert len(equal(model, named, "backbone.")) == 318
        assert all(equal(model, named, "backbone.").values())
    with pytest.raises(
        CheckpointError, match=r"keys fit the backbone, it lacks backbone\.0\.weight"
    ):
        create_model("small", 3, weights="torchvision")
    with pytest.raises(CheckpointError, match="this network has none"):
        create_model("road", weights="torchvision")


def test_nothing_is_fetched_without_being_asked(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError) as caught:
        create_model("residual", 3, weights="torchvision")
    assert re.search(r"resnet50-.*\.pth: is not in the cache", str(caught.value))
    assert "model.weights=torchvision-download" in caught.value.fix
    with pytest.raises(CheckpointError, match=r"cannot be fetched \(no network in tests\)"):
        create_model("residual", 3, weights="torchvision-download")

    def fetch(_: str, **options: Any) -> None:
        assert options["check_hash"]
        hub.parent.mkdir()
        torch.save(resnet50(weights=None).state_dict(), hub)

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    with pytest.warns(UserWarning, match="backbone starts from torchvision-download"):
        create_model("residual", 3, weights="torchvision-download")
