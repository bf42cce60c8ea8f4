from __future__ import annotations

import importlib.metadata
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import rtseg
from data.broken import write_clean
from inference.tiny import write_checkpoint
from rtseg.data.native import NativeFolder
from rtseg.data.synthetic import Synthetic
from rtseg.data.views import Views
from rtseg.errors import ConfigError, DataError, MissingError
from rtseg.evaluation import score
from rtseg.structures import SemanticOutput
from rtseg.tasks.views import Windows

SURFACE = json.loads((Path(__file__).parent / "api_surface.json").read_text(encoding="utf-8"))


def parameters(name: str) -> str:
    """Return the names of a callable's parameters as they are written in `api_surface.json`."""
    signature = inspect.signature(getattr(rtseg, name))
    kept = [
        item.replace(annotation=item.empty, default=item.empty)
        for item in signature.parameters.values()
    ]
    return str(inspect.Signature(kept))


# ---------------------------------------------------------------- names
def test_public_names_are_those_of_the_inventory() -> None:
    assert sorted(rtseg.__all__) == sorted(SURFACE)
    assert {name: parameters(name) for name in rtseg.__all__} == SURFACE
    assert set(rtseg.__all__) <= set(dir(rtseg))
    assert rtseg.__version__ == importlib.metadata.version("rtseg")


def test_importing_rtseg_imports_no_heavy_package() -> None:
    code = """
import sys
import rtseg
assert not {"torch", "numpy", "PIL"} & set(sys.modules)
assert rtseg.RtsegError.exit_code == 1
assert "torch" not in sys.modules
rtseg.Predictor
assert "torch" in sys.modules
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'rtseg' has no attribute 'segment'"):
        _ = rtseg.segment  # type: ignore[attr-defined]


# ---------------------------------------------------------------- whole jobs
@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("run") / "best")


def test_a_checkpoint_is_scored_by_path_and_by_object(checkpoint: Path, tmp_path: Path) -> None:
    data = write_clean(tmp_path / "data")
    by_path = rtseg.evaluate(checkpoint.parent, data)
    loaded = rtseg.load(checkpoint)
    by_object = rtseg.evaluate(loaded, NativeFolder(data, split="val"), device="cpu")
    assert by_path.scores == by_object.scores
    assert by_path.images == 2
    assert rtseg.evaluate(checkpoint, str(data), split="train").images == 3


def test_looks_and_worst_images_are_those_of_score(checkpoint: Path, tmp_path: Path) -> None:
    scenes = NativeFolder(write_clean(tmp_path / "data"), split="train")
    options: dict[str, Any] = {
        "views": Views(0.75, (1.0, 2.0), flip=True), "windows": Windows((32, 32)),
        "boundary": True, "per_image": True, "worst": 2,
    }  # fmt: skip
    found = rtseg.evaluate(checkpoint, scenes, device="cpu", threads=1, **options)
    expected = score(rtseg.load(checkpoint), scenes, **options)
    assert found.scores == expected.scores
    assert {"boundary_iou", "image_miou"} <= set(found.scores)
    assert [item.scores.path for item in found.worst] == [i.scores.path for i in expected.worst]
    assert len(found.worst) == 2
    assert found.scores != rtseg.evaluate(checkpoint, scenes).scores
    with pytest.raises(DataError, match="weather"):
        rtseg.evaluate(checkpoint, scenes, by=["weather"])


def test_a_score_is_that_of_the_predictor(checkpoint: Path, tmp_path: Path) -> None:
    data = NativeFolder(write_clean(tmp_path / "data"), split="val")
    predictor = rtseg.Predictor.load(checkpoint)
    right = valid = 0
    for sample in (data[index] for index in range(len(data))):
        labels = sample.labels["semantic"]
        # The images are 24 pixels high, too small for `predict`: do what it does by hand.
        fitted = predictor.preprocess.fit(sample.image)
        with torch.inference_mode():
            output = predictor.model(fitted.image[None])
        mask = predictor.task.postprocess(output, [fitted.meta])[0].mask
        right += int(((mask == labels) & (labels != 255)).sum())
        valid += int((labels != 255).sum())
    scores = rtseg.evaluate(checkpoint, data).scores
    assert scores["pixel_accuracy"] == pytest.approx(right / valid, abs=0.002)


def test_other_classes_and_devices_are_refused(checkpoint: Path) -> None:
    with pytest.raises(DataError, match="3 classes and the data 19"):
        rtseg.evaluate(checkpoint, "synthetic")
    with pytest.raises(MissingError, match="'cuda:99' is not there"):
        rtseg.evaluate(checkpoint, "synthetic", device="cuda:99")


SECTIONS = {
    "model": {"name": "dabnet"},
    "data": {
        "train": {"name": "synthetic", "split": "train", "size": [32, 48], "length": 2},
        "val": {"name": "synthetic", "split": "val", "size": [32, 48], "length": 1},
    },
    "task": {"name": "semantic"},
    "train": {"iterations": 9, "batch_size": 2, "seed": 0},
    "optimizer": {"name": "adam", "lr": 1e-3},
    "schedule": {"name": "poly"},
}


def test_a_mapping_is_trained_with_overrides(tmp_path: Path) -> None:
    events = []
    scores = rtseg.train(
        SECTIONS, output=tmp_path / "run", overrides=["train.iterations=1"], display=events.append
    )
    assert scores["miou"] >= 0
    assert events[-1]["event"] == "end"
    assert events[-1]["step"] == 1
    predictor = rtseg.Predictor.load(tmp_path / "run")
    assert len(predictor.task.classes) == 19  # type: ignore[attr-defined]
    scenes = Synthetic(split="val", size=(32, 48), length=1)
    assert rtseg.evaluate(tmp_path / "run", scenes).scores == pytest.approx(scores)


def test_a_network_of_ones_own_is_trained_as_an_object(tmp_path: Path) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 19, 3, padding=1)

        def forward(self, images: torch.Tensor) -> SemanticOutput:
            return SemanticOutput(self.conv(images))

    own = Own()
    before = own.conv.weight.detach().clone()
    rtseg.train(SECTIONS, output=tmp_path / "run", model=own, overrides=["train.iterations=1"])
    assert not torch.equal(own.conv.weight, before)
    loaded = rtseg.load(tmp_path / "run", model=Own())
    assert loaded.info.name == ""


def test_a_wrong_recipe_is_a_value_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="section 'modle' is unknown"):
        rtseg.train({**SECTIONS, "modle": {}}, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()
