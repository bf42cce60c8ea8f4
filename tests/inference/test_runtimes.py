"""Predictions and scores of exported networks, and of checkpoints that an engine runs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inference.kept import SIZE, Workshop, make_workshop, write_files, write_network
from inference.tiny import CLASSES, draw, write_checkpoint, write_image
from rtseg import api, checkpoint
from rtseg.cli.main import main
from rtseg.data.preprocess import Preprocess
from rtseg.data.synthetic import Synthetic
from rtseg.data.views import Views
from rtseg.errors import CheckpointError, ConfigError
from rtseg.evaluation import score
from rtseg.export import export
from rtseg.inference.predictor import Predictor
from rtseg.runtimes import Port, Runtime, installed, open_export, run_network
from rtseg.structures import Sample
from rtseg.tasks import TASKS
from runtimes.files import INFO, Net, write_manifest

pytest.importorskip("onnxscript")
needs_openvino = pytest.mark.skipif(
    "openvino" not in installed(), reason="openvino is not installed"
)


class Scenes:
    """Drawn scenes of several sizes whose 19 classes become the two of the small network."""

    classes = INFO.classes
    kinds = ("semantic",)

    def __init__(self, *sizes: tuple[int, int]) -> None:
        self.samples = []
        for index, size in enumerate(sizes):
            scene = Synthetic(split="test", size=size, length=10)[index]
            labels = {"semantic": (scene.labels["semantic"] != 0).astype(np.uint8)}
            self.samples.append(Sample(scene.image, labels, path=f"{index}.png"))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("onnx"))


@pytest.fixture
def shop(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    return make_workshop(files, tmp_path / "cache", monkeypatch)


# ---------------------------------------------------------------- an exported folder
def test_a_predictor_opens_an_export_like_a_checkpoint(files: Path, tmp_path: Path) -> None:
    folder = write_network(tmp_path / "network")
    own = Predictor(Net(), TASKS["semantic"](INFO.classes), Predictor.load(files).preprocess)
    image = draw(41, 55)
    expected = own(image, confidence=True)
    for runtime in ("auto", *(name for name in ("onnxruntime", "openvino") if name in installed())):
        predictor = Predictor.load(files, runtime=runtime, threads=1)
        assert isinstance(predictor.model, Runtime)
        found = predictor(image, confidence=True)
        np.testing.assert_array_equal(found.mask, expected.mask)
        np.testing.assert_allclose(found.confidence, expected.confidence, atol=1e-3)
        assert len(np.unique(found.mask)) == 2
    with pytest.raises(CheckpointError, match="your own class"):
        Predictor.load(folder)
    with pytest.raises(ConfigError, match="'torch' does not open files of the format onnx"):
        Predictor.load(files, runtime="torch")


def test_scores_of_an_export_are_those_of_the_network(files: Path) -> None:
    scenes: Any = Scenes((40, 40), (33, 50), (64, 36))
    loaded = open_export(files)
    network = checkpoint.Checkpoint(Net().eval(), INFO, files)
    for options in ({}, {"views": Views(0.5, (1.0, 2.0), flip=True)}):
        expected = score(network, scenes, **options).scores
        assert score(loaded, scenes, **options).scores == pytest.approx(expected, abs=1e-9)
    assert 0 < expected["miou"] < 1
    assert api.evaluate(files, scenes, device="cpu").scores == score(network, scenes).scores
    assert isinstance(api.load(files).model, Runtime)


class Pixels(torch.nn.Module):
    """Choose class 1 where a pixel is brighter than 100; takes pixels, gives classes."""

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor]:
        return ((pixels.permute(0, 3, 1, 2).float().mean(1) > 100).to(torch.uint8),)


def test_an_export_with_everything_inside_gets_pixels_and_gives_classes(tmp_path: Path) -> None:
    free = torch.export.Dim.DYNAMIC
    example = torch.zeros(2, 32, 32, 3, dtype=torch.uint8)
    program = torch.export.export(
        Pixels(), (example,), dynamic_shapes=({0: free, 1: free, 2: free},)
    )
    torch.export.save(program, tmp_path / "model.pt2")
    info = {**json.loads(INFO.to_json()), "preprocess": {"stride": 4, "mean": [99.7, 10.0, 10.0]}}
    write_manifest(
        tmp_path, format="torch_export", file="model.pt2", with_preprocess=True, with_argmax=True,
        image=Port("image", "uint8", (None, None, None, 3)), output="ClassMapOutput",
        outputs=(Port("classes", "uint8", (None, None, None)),), config=info,
    )  # fmt: skip
    image = draw(33, 50)
    predictor = Predictor.load(tmp_path)
    np.testing.assert_array_equal(predictor(image).mask, image.mean(-1) > 100)
    assert predictor.preprocess.pad_value == (100.0, 10.0, 10.0)
    assert predictor.preprocess.stride == 4
    scenes: Any = Scenes((33, 50))
    right = (scenes[0].image.mean(-1) > 100) == scenes[0].labels["semantic"]
    loaded = open_export(tmp_path)
    assert score(loaded, scenes).scores["pixel_accuracy"] == pytest.approx(right.mean())
    with pytest.raises(ConfigError, match="chooses classes itself, so that there are no scores"):
        score(loaded, scenes, views=Views(flip=True))


# ---------------------------------------------------------------- a checkpoint
@needs_openvino
def test_choosing_is_no_part_of_the_time_of_an_image(shop: Workshop, tmp_path: Path) -> None:
    folder = write_network(tmp_path / "network")
    model = shop.open(folder)
    slow = model.choose

    def choose(images: torch.Tensor) -> Runtime:
        if not model.chosen:
            time.sleep(2)
        return slow(images)

    model.choose = choose
    preprocess = Predictor.load(shop.files).preprocess
    predictor = Predictor(model, TASKS["semantic"](INFO.classes), preprocess)
    first = predictor(draw(*SIZE))
    assert sum(first.timing.values()) < 2000
    assert predictor.model is model


def test_an_own_network_is_run_by_torch_unless_asked() -> None:
    task, runtime = TASKS["semantic"](INFO.classes), run_network(Net())
    assert type(Predictor(Net(), task, Preprocess()).model) is Net
    assert Predictor(runtime, task, Preprocess()).model is runtime


def test_torch_gets_images_channels_last_and_files_planar(files: Path, shop: Workshop) -> None:
    task = TASKS["semantic"](INFO.classes)
    last, planar = torch.channels_last, torch.contiguous_format
    for model, layout in [
        (Net(), last),
        (run_network(Net()), last),
        (open_export(files).model, planar),
        (shop.open(files), planar),
    ]:
        assert Predictor(model, task, Preprocess()).layout is layout


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--runtime", "openvno"], 2, "runtime 'openvno' is unknown; did you mean 'openvino'?"),
        (["--runtime", "torch"], 2, "'torch' does not open files of the format onnx; use auto or"),
        (["--runtime", "tensorrt"], 2, "'tensorrt' does not open files of the format onnx"),
        (["--threads", "0"], 2, "Invalid value for '--threads'"),
    ],
)
def test_wrong_runtimes_are_named_in_one_sentence(
    files: Path, tmp_path: Path, words: list[str], code: int, message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    image = write_image(tmp_path / "image.png", 64, 96)
    assert main(["predict", str(files), str(image), *words]) == code
    text = capsys.readouterr().err
    assert message in text
    assert text.count("\n") == 1


def test_a_changed_export_is_exit_code_4(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in files.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "model.onnx").write_bytes(b"other")
    assert main(["val", str(tmp_path), "--data", "synthetic", "--output", str(tmp_path / "o")]) == 4
    assert "model.onnx: is missing or was changed since the export; export again" in (
        capsys.readouterr().err
    )


@pytest.mark.slow
@needs_openvino
def test_engines_run_a_real_checkpoint_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RTSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RTSEG_RUNTIME", "auto")
    folder = write_checkpoint(tmp_path / "checkpoint")
    image = write_image(tmp_path / "image.png", 64, 96)
    masks = {}
    for runtime in ("torch", "openvino", "auto"):
        words = ["predict", folder, image, "--runtime", runtime, "--output", tmp_path / runtime]
        assert main([str(word) for word in words]) == 0
        masks[runtime] = np.asarray(Predictor.load(folder, runtime=runtime)(image).mask)
    assert (masks["openvino"] == masks["torch"]).mean() >= 0.999
    assert (masks["auto"] == masks["torch"]).mean() >= 0.98
    text = capsys.readouterr().err
    assert text.count("exporting the network once") == 1, "both use one export"
    assert "is chosen; ms an image: torch fp32" in text
    decision = json.loads(next((tmp_path / "cache").rglob("decision*.json")).read_text())
    assert decision["agreement"]["openvino fp32"] >= 0.9999


@pytest.mark.slow
def test_val_scores_an_export_like_its_checkpoint(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "checkpoint")
    export(checkpoint.load(folder), "onnx", tmp_path / "export", size=(64, 96))
    rows = {
        str(index): {"name": item.name, "color": item.color} for index, item in enumerate(CLASSES)
    }
    for kind in ("images", "masks"):
        (tmp_path / "set" / kind / "val").mkdir(parents=True)
    for index in range(3):
        scene = Synthetic(split="test", size=(64, 96), length=3)[index]
        mask = np.minimum(scene.labels["semantic"], 2)
        for kind, array in (("images", scene.image), ("masks", mask)):
            _save(array, tmp_path / "set" / kind / "val" / f"{index}.png")
    (tmp_path / "set" / "data.yaml").write_text(json.dumps({"splits": ["val"], "classes": rows}))
    documents = []
    for model in (folder, tmp_path / "export"):
        output = tmp_path / f"scores-{model.name}"
        words = ["val", model, "--data", tmp_path / "set", "--output", output, "--threads", "1"]
        assert main([*map(str, words), "--workers", "0"]) == 0
        documents.append(json.loads((output / "metrics.json").read_text()))
    scores = [document["scores"] for document in documents]
    assert scores[1]["miou"] == pytest.approx(scores[0]["miou"], abs=1e-4)
    protocols = [document["protocol"] for document in documents]
    assert protocols[0]["runtime"] == "torch"
    assert protocols[1]["runtime"] in ("onnxruntime", "openvino")
    assert [item["precision"] for item in protocols] == ["fp32"] * 2
    assert [item["threads"] for item in protocols] == [1, 1]


def _save(array: Any, path: Path) -> None:
    from PIL import Image

    Image.fromarray(array).save(path)
