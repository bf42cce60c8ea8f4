"""A checkpoint is whole or not there; what is damaged is named, with a remedy."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rtseg import checkpoint
from rtseg.checkpoint import (
    ModelInfo,
    create_model,
    list_models,
    load,
    model_card,
    read_state,
    save,
)
from rtseg.checkpoint import folder as folders
from rtseg.errors import CheckpointError, DataError
from rtseg.structures import ClassInfo

CLASSES = tuple(ClassInfo(f"class {index}", (index, 0, 255 - index)) for index in range(3))
INFO = ModelInfo(
    "dabnet", {}, "semantic", CLASSES, {"stride": 8}, {"data": {"train": {"name": "x"}}}
)
WHOLE = {"model.safetensors", "config.json", "README.md", "train_state.pt"}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(3)
    model = create_model("dabnet", len(CLASSES))
    model(torch.randn(2, 3, 32, 48))  # running statistics that are not their start values
    return model.eval()


@pytest.fixture
def folder(tmp_path: Path, network: nn.Module) -> Path:
    save(tmp_path / "net", network.state_dict(), INFO, state={"step": 1})
    return tmp_path / "net"


def logits(model: nn.Module) -> Tensor:
    torch.manual_seed(0)
    with torch.no_grad():
        result: Tensor = model(torch.randn(1, 3, 40, 48)).logits
    return result


def tiny(value: float) -> dict[str, Tensor]:
    return {"weight": torch.full((2, 2), value)}


def value_of(path: Path) -> float:
    return float(checkpoint.read_weights(checkpoint.locate(path))["weight"][0, 0])


# ---------------------------------------------------------------- round trip
def test_a_loaded_network_gives_the_same_logits_bit_for_bit(
    folder: Path, network: nn.Module
) -> None:
    loaded = load(folder)
    assert torch.equal(logits(loaded.model), logits(network))
    assert loaded.info == INFO
    assert not loaded.model.training
    assert {item.name for item in folder.iterdir()} == WHOLE


def test_a_released_checkpoint_has_no_training_state(tmp_path: Path, network: nn.Module) -> None:
    save(tmp_path / "net", network.state_dict(), INFO)
    assert {item.name for item in (tmp_path / "net").iterdir()} == WHOLE - {"train_state.pt"}
    with pytest.raises(CheckpointError, match="has no training state"):
        read_state(tmp_path / "net")


def test_of_a_run_best_is_taken_before_last(tmp_path: Path) -> None:
    save(tmp_path / "last", tiny(1), INFO)
    assert value_of(tmp_path) == 1
    save(tmp_path / "best", tiny(2), INFO)
    assert value_of(tmp_path) == 2


def test_the_current_folder_can_be_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "last", tiny(1), INFO)
    monkeypatch.chdir(tmp_path)
    assert value_of(Path()) == 1


def test_half_precision_weights_are_widened(folder: Path, network: nn.Module) -> None:
    path = folder / "model.safetensors"
    halves = {
        name: value.half() if value.is_floating_point() else value
        for name, value in load_file(path).items()
    }
    save_file(halves, path)
    model = load(folder).model
    for name, value in network.state_dict().items():
        expected = value.half().float() if value.is_floating_point() else value
        assert torch.equal(model.state_dict()[name], expected)


def test_weights_may_be_tied_or_not_contiguous(tmp_path: Path) -> None:
    tied = torch.arange(6.0).reshape(2, 3)
    save(tmp_path / "net", {"a": tied, "b": tied, "c": tied.t()}, INFO)
    found = checkpoint.read_weights(tmp_path / "net")
    assert torch.equal(found["a"], tied)
    assert torch.equal(found["b"], tied)
    assert torch.equal(found["c"], tied.t())


def test_a_network_of_the_users_own_has_to_be_passed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    own = nn.Conv2d(3, 2, 1)
    save(tmp_path / "net", own.state_dict(), ModelInfo("", {}, "semantic", CLASSES, {}))
    with pytest.raises(CheckpointError, match="pass it"):
        load(tmp_path / "net")
    loaded = load(tmp_path / "net", model=nn.Conv2d(3, 2, 1)).model
    assert torch.equal(loaded.weight, own.weight)  # type: ignore[arg-type]


# ---------------------------------------------------------------- a crash at any point
class Crash(BaseException):
    """The process ends here: nothing of ours catches it."""


def crash_after(calls: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` that works `calls` times and then ends the process."""
    left = [calls]

    def wrapped(*args: Any, **options: Any) -> Any:
        if not left[0]:
            raise Crash
        left[0] -= 1
        return function(*args, **options)

    return wrapped


POINTS: list[tuple[Any, str, int]] = [
    (folders, "save_file", 0),
    (folders, "model_card", 0),
    (torch, "save", 0),
    *[(folders, "_flush", calls) for calls in range(6)],
    (Path, "rename", 0),
    (Path, "rename", 1),
    *[(shutil, "rmtree", calls) for calls in range(3)],
]


@pytest.mark.parametrize(("place", "name", "calls"), POINTS)
def test_after_a_crash_at_any_point_a_whole_checkpoint_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Any, name: str, calls: int
) -> None:
    folder = tmp_path / "last"
    save(folder, tiny(1), INFO, state={"step": 1})
    with monkeypatch.context() as patch:
        patch.setattr(place, name, crash_after(calls, getattr(place, name)))
        with pytest.raises(Crash):
            save(folder, tiny(2), INFO, state={"step": 2})
    found = checkpoint.locate(folder)
    assert {item.name for item in found.iterdir()} == WHOLE
    assert value_of(folder) == read_state(found)["step"]
    save(folder, tiny(3), INFO, state={"step": 3})  # and the next one cleans up
    assert value_of(folder) == 3
    assert [item.name for item in tmp_path.iterdir()] == ["last"]


def test_a_crash_between_the_two_renames_leaves_the_previous_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "last", tiny(1), INFO)
    monkeypatch.setattr(Path, "rename", crash_after(1, Path.rename))
    with pytest.raises(Crash):
        save(tmp_path / "last", tiny(2), INFO)
    assert not (tmp_path / "last").exists()
    assert checkpoint.locate(tmp_path / "last").name == "last.previous"
    assert value_of(tmp_path) == 1


@pytest.mark.parametrize(
    ("place", "name"), [(folders, "save_file"), (torch, "save"), (Path, "rename")]
)
def test_a_full_disk_is_an_error_of_one_sentence_and_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Any, name: str
) -> None:
    save(tmp_path / "last", tiny(1), INFO, state={"step": 1})

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(place, name, full)
        with pytest.raises(DataError, match=r"No space left on device.*previous checkpoint"):
            save(tmp_path / "last", tiny(2), INFO, state={"step": 2})
    assert value_of(tmp_path / "last") == 1
    assert [item.name for item in tmp_path.iterdir()] == ["last"]


# ---------------------------------------------------------------- damage
def rewrite(path: Path, **changes: Any) -> None:
    raw = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**raw, **changes}), encoding="utf-8")


def reweigh(path: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    weights = load_file(path)
    change(weights)
    save_file(weights, path)


DAMAGE: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "no weights": ("model.safetensors", Path.unlink, "cannot be read"),
    "short weights": (
        "model.safetensors",
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        "cannot be read",
    ),
    "empty weights": ("model.safetensors", lambda path: path.write_bytes(b""), "cannot be read"),
    "a missing weight": (
        "model.safetensors",
        lambda path: reweigh(path, lambda weights: weights.popitem()),
        "lacks",
    ),
    "an unknown weight": (
        "model.safetensors",
        lambda path: reweigh(path, lambda weights: weights.update(extra=torch.ones(1))),
        "has an unknown extra",
    ),
    "another shape": ("config.json", lambda path: rewrite(path, classes=[]), "differs in shape"),
    "no JSON": ("config.json", lambda path: path.write_text("{", encoding="utf-8"), "be read"),
    "a list": ("config.json", lambda path: path.write_text("[]", encoding="utf-8"), "be read"),
    "a number": ("config.json", lambda path: path.write_text("3", encoding="utf-8"), "be read"),
    "no text": ("config.json", lambda path: path.write_bytes(b"\xff\xfe"), "be read"),
    "no task": ("config.json", lambda path: path.write_text('{"format": 1}'), "be read"),
    "a new format": ("config.json", lambda path: rewrite(path, format=2), "update rtseg"),
    "an unknown model": ("config.json", lambda path: rewrite(path, name="dabnett"), "dabnet"),
    "an unknown switch": ("config.json", lambda path: rewrite(path, options={"x": 1}), "x is unk"),
}


@pytest.mark.parametrize("fault", DAMAGE)
def test_damage_is_named_with_its_file_and_a_remedy(folder: Path, fault: str) -> None:
    name, damage, says = DAMAGE[fault]
    damage(folder / name)
    if fault == "another shape":
        rewrite(folder / "config.json", classes=[{"name": "a", "color": [0, 0, 0], "thing": False}])
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    assert says in str(caught.value)
    assert str(folder) in caught.value.where
    assert caught.value.fix
    assert "\n" not in str(caught.value)


def test_a_damaged_training_state_is_named(folder: Path) -> None:
    path = folder / "train_state.pt"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(CheckpointError, match=r"train_state\.pt.*cannot be read"):
        read_state(folder)


class Evil:
    """A pickle of this would run code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("touched"),))


def test_a_training_state_cannot_run_code(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"step": Evil()}, folder / "train_state.pt")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_state(folder)
    assert not Path("touched").exists()


@pytest.mark.parametrize("make", [False, True])
def test_a_folder_without_a_checkpoint_is_told_apart_from_none(tmp_path: Path, make: bool) -> None:
    folder = tmp_path / "run"
    if make:
        folder.mkdir()
    with pytest.raises(CheckpointError, match="no checkpoint" if make else "does not exist"):
        load(folder)


# ---------------------------------------------------------------- names and cards
def test_unknown_models_and_switches_are_refused_with_the_nearest_name() -> None:
    with pytest.raises(ValueError, match=r"'dabnett' is unknown.*dabnet"):
        create_model("dabnett", 3)
    with pytest.raises(TypeError, match="atention is unknown"):
        create_model("dabnet", 3, atention=True)


def test_models_are_listed_by_pattern() -> None:
    assert list_models("dab*") == ["dabnet"]
    assert list_models() == sorted(list_models())


def test_the_card_counts_parameters_and_says_what_was_not_measured(
    folder: Path, network: nn.Module
) -> None:
    card = (folder / "README.md").read_text(encoding="utf-8")
    count = sum(item.numel() for item in network.parameters())
    assert f"Parameters: {count:,}\n" in card
    assert "Scores: not measured." in card
    assert "Latency: not measured." in card


def test_the_card_does_not_count_states_of_layers() -> None:
    model = create_model("bisegunet_edge", 19)
    info = ModelInfo("bisegunet_edge", {}, "semantic", (), {})
    assert "- Parameters: 1,713,779\n" in model_card(info, model.state_dict())
