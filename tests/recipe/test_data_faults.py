"""Files that are broken before a run, or break while it trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from data.broken import CORPUS, write_clean
from rtseg.errors import DataError
from rtseg.recipe import build, check_data, read_recipe, train
from rtseg.recipe.reading import Recipe
from rtseg.training.run_log import Event, read_log

STEMS = tuple(f"{index:02d}" for index in range(10))
TEXT = """
model: {{name: dabnet}}
data:
  train: {{name: native, root: {root}, split: train}}
  val: {{name: native, root: {root}, split: val}}
  augment: {{crop: [24, 32], flip: 0.5}}
  preprocess: {{stride: 8}}
task: {{name: semantic}}
train: {{iterations: 10, batch_size: 2, device: cpu, log_every: 1, val_every: 10, threads: 1}}
optimizer: {{name: adam, lr: 1.0e-3}}
schedule: {{name: poly}}
"""


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_clean(tmp_path / "set", train=STEMS)


@pytest.fixture
def recipe(root: Path, tmp_path: Path) -> Callable[..., Recipe]:
    path = tmp_path / "own.yaml"
    path.write_text(TEXT.format(root=root), encoding="utf-8")
    return lambda *changes: read_recipe(path, changes)


# ---------------------------------------------------------------- before
def test_faulty_data_end_a_run_before_it_begins(
    root: Path, recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    bad = [CORPUS["truncated PNG image"][1](root, "03"), CORPUS["mask turned"][1](root, "07")]
    with pytest.raises(DataError, match=r"2 faults in the data.*train\.check=false") as error:
        train(recipe(), tmp_path / "run")
    assert error.value.where == str(bad[0])
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_not_checked_takes_other_images_for_bad_ones(
    root: Path, recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    bad = CORPUS["truncated PNG image"][1](root, "03")
    train(recipe("train.check=false", "data.max_bad=0.1"), tmp_path / "run")
    assert [item["message"] for item in faults(tmp_path / "run")] == [
        f"{bad}: is truncated or no image (image file is truncated); copy it again from its "
        "source, or remove it together with its partner"
    ]


def test_a_class_without_pixels_is_noted_and_trained(
    root: Path, recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    masks = CORPUS["class without a pixel in train"][1](root)
    train(recipe("train.iterations=1", "train.val_every=1"), tmp_path / "run")
    notes = [item["message"] for item in read_log(tmp_path / "run") if item["event"] == "note"]
    assert any(note.startswith(f"{masks}: class 'sky' of the semantic labels") for note in notes)


def test_sets_of_a_mixture_may_share_images_but_not_with_val(
    root: Path, recipe: Callable[..., Recipe]
) -> None:
    part = f"{{name: native, root: {root}, split: train}}"
    twice = recipe(f"data.train=[{part}, {part}]")
    assert check_data(build(twice)) == ()
    CORPUS["train image again in val"][1](root, "03")
    with pytest.raises(DataError, match=r"same pixels as .* of split train"):
        check_data(build(twice))


def test_only_the_first_of_several_processes_checks(
    root: Path, recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    CORPUS["mask is missing"][1](root, "03")
    plan = build(recipe())
    monkeypatch.setenv("RANK", "1")
    assert check_data(plan) == ()
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(DataError, match="1 fault in the data"):
        check_data(plan)


def test_a_home_that_cannot_be_written_is_no_obstacle(
    recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert check_data(build(recipe())) == ()


# ---------------------------------------------------------------- while it trains
@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_breaks_during_a_run_is_named_and_replaced(
    root: Path, recipe: Callable[..., Recipe], tmp_path: Path, workers: int
) -> None:
    bad = root / "images/train/05.png"

    def cut(event: Event) -> None:
        if event["event"] == "train" and event["step"] == 2:
            bad.write_bytes(bad.read_bytes()[:200])

    changes = (f"data.workers={workers}", "data.max_bad=0.1", "train.iterations=20")
    scores = train(recipe(*changes, "train.val_every=20"), tmp_path / "run", display=cut)
    assert 0 <= scores["miou"] <= 1
    found = faults(tmp_path / "run")
    assert len(found) == 1, "one file is counted once, however often it is met"
    assert found[0]["step"] > 2
    assert found[0]["message"].startswith(f"{bad}: is truncated or no image")
    steps = [item["step"] for item in read_log(tmp_path / "run") if item["event"] == "train"]
    assert steps == list(range(1, 21))


def test_more_broken_files_than_allowed_end_the_run_with_a_name(
    root: Path, recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    bad = root / "masks/train/05.png"

    def cut(event: Event) -> None:
        if event["event"] == "train" and event["step"] == 2:
            bad.write_bytes(b"")

    with pytest.raises(DataError, match=r"1 of 10 training images cannot be read.*05\.png"):
        train(recipe("data.max_bad=0.05"), tmp_path / "run", display=cut)


def faults(run: Path) -> list[Event]:
    return [item for item in read_log(run) if item["event"] == "fault"]
