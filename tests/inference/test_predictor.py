from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from inference.tiny import CLASSES, PREPROCESS, draw, write_checkpoint, write_image
from rtseg.checkpoint import load
from rtseg.data.transforms import Preprocess
from rtseg.errors import CheckpointError, ConfigError, DataError, MissingError
from rtseg.inference.predictor import Predictor, choose_device
from rtseg.structures import SemanticOutput
from rtseg.tasks import TASKS

PLAIN = Preprocess(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), stride=8)


class Brightest(nn.Module):
    """Score each class by one color channel, at half the size: the class is the brightest color."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> SemanticOutput:
        self.seen.append(images)
        return SemanticOutput(nn.functional.avg_pool2d(images, 2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("run") / "best")


@pytest.fixture(scope="module")
def predictor(folder: Path) -> Predictor:
    return Predictor.load(folder)


def brightest() -> Predictor:
    return Predictor(Brightest(), TASKS["semantic"](CLASSES), PLAIN, device="cpu")


def seen(predictor: Predictor) -> Tensor:
    network: Any = predictor.model
    return network.seen[-1]


# ---------------------------------------------------------------- known answers
def test_channels_are_red_green_blue_for_every_kind_of_image(tmp_path: Path) -> None:
    pixels = np.zeros((32, 48, 3), dtype=np.uint8)
    pixels[:, :16, 0], pixels[:, 16:32, 1], pixels[:, 32:, 2] = 250, 250, 250
    expected = np.repeat([0, 1, 2], 16)[None].repeat(32, axis=0)
    Image.fromarray(pixels).save(tmp_path / "bars.png")
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    kinds = [
        tmp_path / "bars.png", str(tmp_path / "bars.png"), Image.fromarray(pixels), pixels,
        pixels.astype(np.float64) / 255, tensor, tensor.float() / 255, tensor.double() / 255,
    ]  # fmt: skip
    for image in kinds:
        result = brightest()(image)
        # At bars' borders the scores are interpolated between two cells; the inside is exact.
        for bar in range(3):
            inside = slice(16 * bar + 2, 16 * bar + 14)
            assert (result.mask[:, inside] == expected[:, inside]).all()
        np.testing.assert_array_equal(result.image, pixels)


def test_floats_reach_the_network_as_exactly_255_times_themselves() -> None:
    values = np.float32([0.0, 0.1, 0.2, 0.5, 0.7, 0.9, 1.0, 1.0 / 3])
    image = np.broadcast_to(values[None, :, None], (32, 8, 3)).repeat(4, axis=1)
    predictor = brightest()
    predictor(image)
    expected = torch.from_numpy(np.ascontiguousarray(image * np.float32(255))).permute(2, 0, 1)
    assert torch.equal(seen(predictor)[0], expected)
    predictor(torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1))
    assert torch.equal(seen(predictor)[0], expected)


def test_the_network_gets_normalized_padded_channels_last_input() -> None:
    preprocess = Preprocess(mean=(10.0, 20.0, 30.0), std=(2.0, 4.0, 5.0), stride=16)
    predictor = Predictor(Brightest(), TASKS["semantic"](CLASSES), preprocess, device="cpu")
    image = np.full((33, 47, 3), 50, dtype=np.uint8)
    assert predictor(image).mask.shape == (33, 47)
    batch = seen(predictor)
    assert batch.shape == (1, 3, 48, 48)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert batch[0, :, 0, 0].tolist() == [20.0, 7.5, 4.0]
    assert not batch[0, :, 33:].any()
    assert not batch[0, :, :, 47:].any()


def test_gray_and_transparent_images_become_rgb() -> None:
    gray = draw(32, 40)[..., 0]
    rgb = np.stack([gray] * 3, axis=-1)
    rgba = np.concatenate([rgb, np.full((32, 40, 1), 7, dtype=np.uint8)], axis=-1)
    kinds = [
        gray, gray[..., None], rgba, Image.fromarray(gray), Image.fromarray(rgba),
        torch.from_numpy(gray), torch.from_numpy(gray)[None],
        torch.from_numpy(rgba).permute(2, 0, 1),
    ]  # fmt: skip
    for image in kinds:
        np.testing.assert_array_equal(brightest()(image).image, rgb)


def test_files_are_read_as_stored_whatever_their_orientation_tag(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # viewers turn it by 90 degrees
    Image.fromarray(draw(32, 56)).save(tmp_path / "turned.png", exif=exif)
    assert brightest()(tmp_path / "turned.png").mask.shape == (32, 56)


# ---------------------------------------------------------------- the real network
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (48, 64), (61, 32), (100, 39)])
def test_the_folded_network_agrees_with_the_plain_one(
    folder: Path, predictor: Predictor, size: tuple[int, int]
) -> None:
    image = draw(*size, seed=1)
    loaded = load(folder)
    fitted = Preprocess(**PREPROCESS).fit(image)
    with torch.inference_mode():
        output = loaded.model(fitted.image[None])
        plain = TASKS["semantic"](CLASSES).postprocess(output, [fitted.meta], confidence=True)[0]
    result = predictor(image, confidence=True)
    assert len(predictor.model.state_dict()) < len(loaded.model.state_dict()), "nothing was folded"
    assert result.mask.shape == size
    assert (result.mask == plain.mask).mean() >= 0.999
    assert len(np.unique(result.mask)) > 1
    np.testing.assert_allclose(result.confidence, plain.confidence, atol=2e-3)


def test_the_network_that_was_passed_stays_as_it_is(folder: Path) -> None:
    plain = load(folder).model.train()
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    Predictor(plain, TASKS["semantic"](CLASSES), PLAIN, device="cpu")(draw(32, 32))
    own = Brightest().train()
    Predictor(own, TASKS["semantic"](CLASSES), PLAIN, device="cpu")(draw(32, 32))
    assert plain.training
    assert own.training
    assert own.seen == []
    assert all(torch.equal(value, before[name]) for name, value in plain.state_dict().items())


def test_a_result_carries_source_image_and_timing(predictor: Predictor, tmp_path: Path) -> None:
    path = write_image(tmp_path / "frame.png", seed=3)
    result = predictor(path)
    assert result.source == str(path)
    assert list(result.timing) == ["read", "pre", "model", "post"]
    assert all(value > 0 for value in result.timing.values())
    assert result.names == ("road", "car", "sky")
    assert result.confidence is None
    np.testing.assert_array_equal(result.image, draw(40, 56, seed=3))
    np.testing.assert_array_equal(result.plot(alpha=0.0), result.image)
    assert predictor(Image.open(path)).source == str(path)
    assert predictor(draw(32, 32)).source == ""


def test_confidence_lies_between_chance_and_one(predictor: Predictor) -> None:
    share = predictor(draw(40, 48), confidence=True).confidence
    assert share is not None
    assert share.dtype == np.float16
    assert 1 / 3 - 1e-3 <= share.min() <= share.max() <= 1


# ---------------------------------------------------------------- many images
def test_a_list_gives_a_list_and_many_files_a_generator(
    predictor: Predictor, tmp_path: Path
) -> None:
    paths = [write_image(tmp_path / f"{name}.png", seed=ord(name)) for name in "ab"]
    (tmp_path / "list.txt").write_text("b.png\n")
    listed = predictor([str(paths[0]), draw(32, 32)])
    assert [item.source for item in listed] == [str(paths[0]), ""]
    for source, expected in [
        (tmp_path, paths), (f"{tmp_path}/*.png", paths), (tmp_path / "list.txt", paths[1:]),
        (iter(paths), paths),
    ]:  # fmt: skip
        results = predictor(source)
        assert isinstance(results, Iterator)
        assert [item.source for item in results] == [str(path) for path in expected]
    np.testing.assert_array_equal(listed[0].mask, predictor(paths[0]).mask)


def test_a_stream_holds_one_image_at_a_time() -> None:
    alive: list[weakref.ref[Any]] = []

    def frames() -> Iterator[np.ndarray]:
        for index in range(6):
            gc.collect()
            assert sum(ref() is not None for ref in alive) <= 2  # one image, one result
            image = draw(32, 32, seed=index)
            alive.append(weakref.ref(image))
            yield image

    predictor = Predictor(Halves(), TASKS["semantic"](CLASSES), PLAIN, device="cpu")
    for result in predictor(frames()):
        alive.append(weakref.ref(result))
        del result
    assert len(alive) == 12


def test_a_result_does_not_change_with_the_array_it_came_from() -> None:
    image = draw(32, 40)
    result = brightest()(image)
    before = result.image.copy()
    image[:] = 0
    np.testing.assert_array_equal(result.image, before)


class Halves(nn.Module):
    """Score the channels at half the size."""

    def forward(self, images: Tensor) -> SemanticOutput:
        return SemanticOutput(nn.functional.avg_pool2d(images, 2))


def test_a_broken_file_ends_a_stream_unless_errors_are_collected(
    predictor: Predictor, tmp_path: Path
) -> None:
    write_image(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(write_image(tmp_path / "c.png").read_bytes()[:200])
    faults: list[DataError] = []
    paths = sorted(tmp_path.iterdir())
    results = [item.source for item in predictor.stream(paths, on_error=faults.append)]
    assert results == [str(paths[0]), str(paths[2])]
    assert [fault.where for fault in faults] == [str(paths[1])]
    with pytest.raises(DataError, match=r"b\.png"):
        list(predictor(tmp_path))


# ---------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((32, 32, 3), 2.0, np.float32), "from 2 to 2; floats must lie in 0..1"),
        (torch.full((3, 32, 32), 200.0), "from 200 to 200"),
        (torch.full((3, 32, 32), -1.0), "from -1 to -1"),
        (np.full((32, 32, 3), np.nan, np.float32), "nan"),
        (np.zeros((32, 32, 3), np.int64), "type int64"),
        (np.zeros((3, 32, 33), np.uint8), "tensors of torch are"),
        (torch.zeros(32, 33, 3), "arrays of NumPy are"),
        (torch.zeros(1, 3, 32, 32), "one image"),
        (np.zeros((2, 32, 32, 3), np.uint8), "one RGB image"),
        (Image.fromarray(np.zeros((32, 32), np.uint16)), "more than 8 bits"),
        (7, "int is no image"),
    ],
)
def test_what_is_no_image_is_refused(predictor: Predictor, image: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        predictor(image)
    with pytest.raises(ValueError, match=message):  # what callers of libraries expect
        predictor(image)


def test_floats_may_overshoot_a_little() -> None:
    image = np.linspace(-0.1, 1.5, 32 * 32 * 3, dtype=np.float32).reshape(32, 32, 3)
    stored = brightest()(image).image
    assert (stored.min(), stored.max()) == (0, 255)


@pytest.mark.parametrize("size", [(31, 64), (64, 31)])
def test_images_below_32_pixels_are_refused(predictor: Predictor, size: tuple[int, int]) -> None:
    with pytest.raises(DataError, match=rf"{size[0]}x{size[1]} \(H x W\), smaller than 32"):
        predictor(draw(*size))


def test_a_truncated_pil_image_is_a_data_error(predictor: Predictor, tmp_path: Path) -> None:
    path = write_image(tmp_path / "cut.png", 200, 200)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"cut\.png: cannot be read"):
        predictor(Image.open(path))


# ---------------------------------------------------------------- loading
def test_a_run_folder_is_loaded_by_its_best_checkpoint(folder: Path) -> None:
    image = draw(40, 40)
    masks = [Predictor.load(path)(image).mask for path in (folder, folder.parent)]
    np.testing.assert_array_equal(*masks)


def test_unknown_runtime_device_and_task_are_refused(folder: Path, tmp_path: Path) -> None:
    wrong: Any = "tensorflow"
    with pytest.raises(ConfigError, match="runtime 'tensorflow' is unknown"):
        Predictor.load(folder, runtime=wrong)
    with pytest.raises(CheckpointError, match="does not exist"):
        Predictor.load(tmp_path / "nothing")
    copy = write_checkpoint(tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "task": "telepathy"}))
    with pytest.raises(CheckpointError, match="task 'telepathy' is unknown"):
        Predictor.load(copy)
    (copy / "config.json").write_text(json.dumps({**config, "preprocess": {"means": [1, 2, 3]}}))
    with pytest.raises(CheckpointError, match=r"preprocess\.means is unknown"):
        Predictor.load(copy)


def test_devices_are_chosen_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto") == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(MissingError, match="'cuda:2' is not there"):
        choose_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(MissingError, match="'cuda' is not there"):
        choose_device("cuda")


@pytest.mark.parametrize("name", ["gpu", "cpu:0", "cuda:", "cuda:one", "cuda:-1", ""])
def test_names_of_no_device_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="use auto, cpu, cuda or cuda:N"):
        choose_device(name)
