"""Teachers from checkpoints and from SegFormers of transformers; what is none is refused."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rtseg import checkpoint
from rtseg.data.transforms import Preprocess
from rtseg.errors import CheckpointError, ConfigError, MissingError
from rtseg.structures import Batch, ClassInfo, SemanticOutput
from rtseg.tasks.semantic import SemanticTask
from rtseg.training.distill import DistilledTask
from rtseg.training.distill_options import DistillOptions, Pair
from rtseg.training.distill_outputs import map_channels
from rtseg.training.teachers import (
    TEACHERS,
    check_classes,
    checkpoint_teacher,
    digest,
    segformer_teacher,
)
from training.pupils import pupil, teacher
from training.toy import CLASSES, PREPROCESS, Pictures


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


# ---------------------------------------------------------------- checkpoints
def test_a_checkpoint_teaches_with_its_classes_and_pixels(tmp_path: Path) -> None:
    network = checkpoint.create_model("dabnet", 2)
    classes = (ClassInfo("road", (0, 0, 0)), ClassInfo("sky", (1, 1, 1)))
    pixels = json.loads(json.dumps(asdict(Preprocess(mean=(1.0, 2.0, 3.0), stride=8))))
    info = checkpoint.ModelInfo("dabnet", {}, "semantic", classes, pixels)
    checkpoint.save(tmp_path / "run" / "best", network.state_dict(), info)
    found = checkpoint_teacher(path=str(tmp_path / "run"))
    assert found.classes == ("road", "sky")
    assert found.preprocess == Preprocess(mean=(1.0, 2.0, 3.0), stride=8)
    assert found.source == str(tmp_path / "run")
    assert found.sha256 == digest(network)
    images = torch.randn(1, 3, 32, 40)
    assert torch.equal(found.network(images).logits, network.eval()(images).logits)
    assert not any(item.requires_grad for item in found.network.parameters())
    assert not any(module.training for module in found.network.modules())


def test_the_hash_follows_every_number_name_and_shape() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
    first = digest(network)
    assert len(first) == 64
    assert digest(network) == first
    found = {first}
    for change in ("0.weight", "1.running_mean", "1.num_batches_tracked"):
        network.state_dict()[change].add_(1)
        found.add(digest(network))
    found.add(digest(nn.ModuleList(network)[:1]))
    found.add(digest(nn.ModuleDict({"a": network[0], "b": network[1]})))
    assert len(found) == 6


# ---------------------------------------------------------------- classes
def named(*names: str) -> Any:
    return replace(teacher(), classes=names)


def test_classes_are_those_of_the_data_in_their_order() -> None:
    check_classes(named("Traffic light", "road", "sky-view"), ("traffic_light", "Road", "sky view"))
    check_classes(named("", "", ""), ("a", "b", "c"))
    with pytest.raises(ConfigError, match="class 1 of the teacher is 'sky', of the data 'road'"):
        check_classes(named("car", "sky", "road"), ("car", "road", "sky"))
    for names in (("a", "b"), ("a", "b", "c", "d")):
        with pytest.raises(ConfigError, match=f"the teacher has 3 classes, the data {len(names)}"):
            check_classes(named("a", "b", "c"), names)


# ---------------------------------------------------------------- SegFormer
@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny SegFormer of three classes with random weights, as transformers saves it."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("segformer")
    torch.manual_seed(1)
    transformers.SegformerForSemanticSegmentation(config(transformers)).save_pretrained(folder)
    return folder


def config(transformers: Any) -> Any:
    names = dict(enumerate(item.name for item in CLASSES))
    return transformers.SegformerConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[4, 8, 12, 16], num_attention_heads=[1, 1, 2, 4],
        decoder_hidden_size=8, id2label=names, label2id={name: key for key, name in names.items()},
    )  # fmt: skip


def test_stages_of_a_segformer_are_its_maps(saved: Path) -> None:
    import transformers

    given = segformer_teacher(path=str(saved))
    assert given.classes == ("low", "middle", "high")
    assert given.preprocess == Preprocess()  # no file says otherwise
    images = torch.randn(2, 3, 64, 96)
    plain = transformers.SegformerForSemanticSegmentation.from_pretrained(saved).eval()
    with torch.no_grad():
        wanted = plain(images, output_hidden_states=True)
    pairs = tuple(Pair("norm", f"stage{number}") for number in (1, 2, 3, 4))
    task = DistilledTask(
        SemanticTask(CLASSES), pupil(), given, preprocess=Preprocess(),
        options=DistillOptions(pairs=pairs),
    )  # fmt: skip
    answer = task.ask(images)
    shapes = [(2, 4, 16, 24), (2, 8, 8, 12), (2, 12, 4, 6), (2, 16, 2, 3)]
    assert [tuple(item.shape) for item in answer.maps] == shapes
    for found, expected in zip(answer.maps, wanted.hidden_states, strict=True):
        assert torch.equal(found, expected)
    assert torch.equal(answer.logits, wanted.logits)
    assert answer.logits.shape == (2, 3, 16, 24)
    parts = [f"network.decode_head.{name}" for name in ("linear_fuse", "classifier")]
    assert map_channels(given.network, parts, who="teacher") == [8, 3]


def test_a_student_learns_from_a_segformer(saved: Path) -> None:
    student = pupil()
    task = DistilledTask(
        SemanticTask(CLASSES), student, segformer_teacher(path=str(saved)), preprocess=PREPROCESS,
        options=DistillOptions(pairs=(Pair("norm", "stage3"), Pair("last", "stage4"))),
    )  # fmt: skip
    samples = [Pictures(2, size=(32, 48))[index] for index in (0, 1)]
    images = torch.stack([PREPROCESS.fit(sample.image).image for sample in samples])
    terms = task.training_step(student, Batch(images, task.target(samples), ()))
    assert list(terms) == ["loss", "cwd", "ofa"]
    torch.stack(list(terms.values())).sum().backward()
    assert student.first.weight.grad is not None
    assert student.first.weight.grad.isfinite().all()


@pytest.mark.parametrize(
    ("content", "mean", "std"),
    [
        (
            {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]},
            (123.675, 116.28, 103.53), (58.395, 57.12, 57.375),
        ),
        (
            {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "rescale_factor": 1 / 200},
            (100.0,) * 3, (50.0,) * 3,
        ),
        (
            {"image_mean": [7, 8, 9], "image_std": [2] * 3, "do_rescale": False},
            (7.0, 8.0, 9.0), (2.0,) * 3,
        ),
        ({"do_normalize": False, "rescale_factor": 1 / 255}, (0.0,) * 3, (255.0,) * 3),
        ({"do_normalize": False, "do_rescale": False}, (0.0,) * 3, (1.0,) * 3),
    ],
)  # fmt: skip
def test_pixel_values_are_those_of_the_saved_processor(
    saved: Path, content: dict[str, Any], mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    path = saved / "preprocessor_config.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    found = segformer_teacher(path=str(saved)).preprocess
    path.unlink()
    assert found.mean == mean
    assert found.std == pytest.approx(std, rel=1e-12)


def test_names_that_are_trusted_are_left_out(saved: Path) -> None:
    given = segformer_teacher(path=str(saved), names="trust")
    assert given.classes == ("", "", "")
    check_classes(given, ("x", "y", "z"))


def test_weights_of_half_precision_are_widened(saved: Path, tmp_path: Path) -> None:
    import transformers

    network = transformers.SegformerForSemanticSegmentation.from_pretrained(saved).half()
    network.save_pretrained(tmp_path)
    given = segformer_teacher(path=str(tmp_path))
    assert {item.dtype for item in given.network.parameters()} == {torch.float32}
    assert isinstance(given.network(torch.randn(1, 3, 32, 32)), SemanticOutput)


def test_an_encoder_without_a_head_is_refused(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    transformers.SegformerModel(config(transformers)).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"lacks decode_head.*would stay random") as caught:
        segformer_teacher(path=str(tmp_path))
    assert caught.value.where == str(tmp_path)


def test_what_is_no_saved_segformer_is_refused(saved: Path, tmp_path: Path) -> None:
    for path, says in ((tmp_path / "none", "does not exist"), (tmp_path, r"has no config\.json")):
        with pytest.raises(CheckpointError, match=f"{says}.*distill.teacher.download=true"):
            segformer_teacher(path=str(path))
    text = (saved / "config.json").read_text(encoding="utf-8")
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="cannot be read as a SegFormer") as caught:
        segformer_teacher(path=str(tmp_path))
    assert "\n" not in str(caught.value)


def test_without_transformers_one_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingError, match=r"pip install 'rtseg\[teachers\]'") as caught:
        segformer_teacher(path=str(tmp_path))
    assert caught.value.exit_code == 5


def test_loading_says_nothing(saved: Path, capfd: pytest.CaptureFixture[str]) -> None:
    segformer_teacher(path=str(saved))
    assert capfd.readouterr() == ("", "")


def test_kinds_of_teachers_have_names() -> None:
    assert {"rtseg": checkpoint_teacher, "segformer": segformer_teacher} == TEACHERS
