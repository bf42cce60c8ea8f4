"""From an image to a result at its own size: read, preprocess, run the network, postprocess."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from rtseg.data.files import read_image
from rtseg.data.transforms import Preprocess
from rtseg.errors import ConfigError, DataError, MissingError
from rtseg.inference.automatic import Automatic, Notify, warn
from rtseg.inference.loading import open_model, task_and_preprocess
from rtseg.inference.sources import image_paths, is_single_image
from rtseg.runtimes import Runtime, deployable
from rtseg.structures import Result
from rtseg.tasks import Task

SMALLEST = 32
"""Smallest height and width of an image, in pixels."""
FLOAT_SLACK = 0.5
"""How far floats may leave 0..1 (resizing overshoots a little) before they are refused."""
_DEEP_MODES = ("I", "F")  # more than 8 bits per channel; I;16 begins alike

ImageLike = str | Path | Image.Image | NDArray[Any] | Tensor
"""A path, a PIL image, (H, W, 3) RGB of NumPy, or (3, H, W) RGB of torch."""


class Predictor:
    """Segment images with a network in evaluation mode.

    All inputs are RGB, uint8 in 0..255 or float in 0..1; gray becomes three channels and alpha is
    dropped. Files are read as stored: an EXIF orientation is not applied, as for training.

    Args:
        model: Network that returns the output of the task. Its `deployable()` form is used if it
            has one; the model itself stays as it is. Or a `Runtime`, such as
            `rtseg.runtimes.run_network` returns, or the network of an opened export.
        task: Turns outputs into results.
        preprocess: Size rule and normalization of the training.
        device: `auto` (CUDA if there is one), `cpu`, `cuda` or `cuda:N`.

    Raises:
        ConfigError: The device has no such name.
        MissingError: The device is not there.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        preprocess: Preprocess,
        *,
        device: str = "auto",
    ) -> None:
        self.device = choose_device(device)
        self.task, self.preprocess = task, preprocess
        self.model = deployable(model).to(self.device)
        # Files take images in one layout; the kernels of torch are faster in the other.
        of_file = isinstance(model, Runtime) and model.manifest is not None
        planar = of_file or isinstance(model, Automatic)
        self.layout = torch.contiguous_format if planar else torch.channels_last

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        device: str = "auto",
        runtime: str = "auto",
        threads: int | None = None,
        notify: Notify = warn,
    ) -> Predictor:
        """Build a predictor from a checkpoint, a run, or an export.

        Args:
            path: The folder; of a run `best` is taken, or `last` if there is no `best`. Or the name
                of shipped weights.
            device: As for the class.
            runtime: What runs the network, a key of `rtseg.runtimes.RUNTIMES`. `torch` starts at
                once. `auto` takes the fastest on a CPU: the first image of a network makes an
                export, which takes up to a minute, once for this machine; the environment variable
                RTSEG_RUNTIME names another default. For an export it is what opens its format.
            threads: Threads to compute with; those of torch if left out.
            notify: Called with a line whenever something takes long, and with what came of it; by
                default it is a warning.

        Raises:
            CheckpointError: Nothing there, damaged, or of an unknown task.
            ConfigError: The runtime or the device has no such name.
            MissingError: The device or the runtime is not there.
        """
        place = choose_device(device)
        loaded = open_model(path, runtime=runtime, device=place, threads=threads, notify=notify)
        task, preprocess = task_and_preprocess(loaded)
        return cls(loaded.model, task, preprocess, device=device)

    @overload
    def __call__(self, image: list[Any], *, confidence: bool = ...) -> list[Result]: ...
    @overload
    def __call__(
        self, image: Image.Image | NDArray[Any] | Tensor, *, confidence: bool = ...
    ) -> Result: ...
    @overload
    def __call__(self, image: str | Path, *, confidence: bool = ...) -> Any: ...
    @overload
    def __call__(
        self, image: Iterator[ImageLike], *, confidence: bool = ...
    ) -> Iterator[Result]: ...
    def __call__(self, image: Any, *, confidence: bool = False) -> Any:
        """Segment one image or many.

        Args:
            image: One image; a list of them; or a folder, pattern, `.txt` list or iterator.
            confidence: Also give the softmax share of the chosen class.

        Returns:
            One result; a list; or, for a folder, pattern, `.txt` list or iterator, a generator
            that holds one image at a time.

        Raises:
            DataError: A file is missing or broken, or an image is smaller than 32 pixels.
            ConfigError: An array has a shape, type or range that no image has.
        """
        if isinstance(image, list | tuple):
            return [self.predict(item, confidence=confidence) for item in image]
        if isinstance(image, str | Path) and not is_single_image(image):
            return self.stream(image_paths(image), confidence=confidence)
        if isinstance(image, Iterator):
            return self.stream(image, confidence=confidence)
        return self.predict(image, confidence=confidence)

    def stream(
        self,
        images: Iterable[ImageLike],
        *,
        confidence: bool = False,
        on_error: Callable[[DataError], None] | None = None,
    ) -> Iterator[Result]:
        """Yield the result of each image in turn; memory does not grow with their number.

        Args:
            images: As for `predict`.
            confidence: As for `predict`.
            on_error: Called for each image that cannot be read, which is then left out; without
                it the first one ends the stream.
        """
        for image in images:
            try:
                result = self.predict(image, confidence=confidence)
            except DataError as error:
                if on_error is None:
                    raise
                on_error(error)
                continue
            yield result

    @torch.inference_mode()
    def predict(self, image: ImageLike, *, confidence: bool = False) -> Result:
        """Segment one image.

        Args:
            image: A path, a PIL image, an array (H, W, 3) or a tensor (3, H, W).
            confidence: Also give the softmax share of the chosen class.

        Returns:
            The result at the size of the image, with `source`, `image` and `timing`: milliseconds
            of read, pre, model and post.
        """
        clock = [time.perf_counter()]
        pixels, source = read_pixels(image)
        clock.append(time.perf_counter())
        planar = self.layout == torch.contiguous_format
        fitted = self.preprocess.fit(pixels, path=source, planar=planar)
        batch = fitted.image.unsqueeze(0).contiguous(memory_format=self.layout)
        batch = batch.to(self.device)
        self._synchronize()
        clock.append(time.perf_counter())
        if isinstance(self.model, Automatic):
            self.model.choose(batch)
            waited = time.perf_counter() - clock[-1]  # which is no part of the time of this image
            clock = [stamp + waited for stamp in clock]
        output = self.model(batch)
        self._synchronize()
        clock.append(time.perf_counter())
        result = self.task.postprocess(output, [fitted.meta], confidence=confidence)[0]
        clock.append(time.perf_counter())
        spans = zip(("read", "pre", "model", "post"), clock, clock[1:], strict=False)
        timing = {name: (end - start) * 1000 for name, start, end in spans}
        finished: Result = dataclasses.replace(result, timing=timing, image=_to_uint8(pixels))
        return finished

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def choose_device(name: str) -> torch.device:
    """Return the device that `auto`, `cpu`, `cuda` or `cuda:N` means.

    Raises:
        ConfigError: There is no such name.
        MissingError: The device is not there.
    """
    count = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda" if count else "cpu")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (kind == "cpu" and number) or (":" in name and not number):
        raise ConfigError(f"device {name!r} is unknown", fix="use auto, cpu, cuda or cuda:N")
    if number and not number.isdecimal():
        raise ConfigError(f"device {name!r} is unknown", fix="use auto, cpu, cuda or cuda:N")
    if kind == "cuda" and int(number or 0) >= count:
        raise MissingError(
            f"device {name!r} is not there ({count} CUDA devices are)", fix="use --device cpu"
        )
    return torch.device(name)


# ---------------------------------------------------------------- inputs
def read_pixels(image: ImageLike) -> tuple[NDArray[Any], str]:
    """Return any image as RGB (H, W, 3) in 0-255, uint8 or float32, and where it came from.

    Raises:
        DataError: A file is missing or broken, or the image is smaller than 32 pixels.
        ConfigError: An array has a shape, type or range that no image has.
    """
    source = ""
    if isinstance(image, str | Path):
        source, pixels = str(image), read_image(Path(image))
    elif isinstance(image, Image.Image):
        source, pixels = str(getattr(image, "filename", "")), _from_pil(image)
    elif isinstance(image, Tensor):
        pixels = _from_array(_channels_last(image))
    elif isinstance(image, np.ndarray):
        pixels = _from_array(image)
    else:
        raise ConfigError(
            f"{type(image).__name__} is no image",
            fix="give a path, a PIL image, an array (H, W, 3) or a tensor (3, H, W)",
        )
    height, width = pixels.shape[:2]
    if min(height, width) < SMALLEST:
        raise DataError(
            f"image is {height}x{width} (H x W), smaller than {SMALLEST}",
            where=source,
            fix="enlarge it or leave it out",
        )
    return pixels, source


def _from_pil(image: Image.Image) -> NDArray[Any]:
    if image.mode.startswith(_DEEP_MODES):
        raise ConfigError(
            f"PIL image has more than 8 bits per channel (mode {image.mode})",
            fix="scale it to 8 bits, or pass an array of floats in 0..1",
        )
    try:
        return np.array(image.convert("RGB"))
    except OSError as error:  # PIL reads a file late
        name = str(getattr(image, "filename", ""))
        raise DataError(f"cannot be read ({error})", where=name, fix="copy it again") from None


def _channels_last(image: Tensor) -> NDArray[Any]:
    """Return a tensor (C, H, W) or (H, W) as an array (H, W, C) or (H, W)."""
    if (image.ndim == 3 and image.shape[0] not in (1, 3, 4)) or image.ndim not in (2, 3):
        raise ConfigError(
            f"tensor image is {tuple(image.shape)}",
            fix="give one image (3, H, W) at a time; arrays of NumPy are (H, W, 3)",
        )
    ordered = image.detach().permute(1, 2, 0) if image.ndim == 3 else image.detach()
    dtype = torch.float32 if image.is_floating_point() else image.dtype
    return ordered.to("cpu", dtype).numpy()


def _from_array(image: NDArray[Any]) -> NDArray[Any]:
    """Check an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), and bring it to 0-255 RGB."""
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4):
        raise ConfigError(
            f"array image is {image.shape}",
            fix="give one RGB image (H, W, 3) at a time; tensors of torch are (3, H, W)",
        )
    rgb = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image[..., :3]
    if rgb.dtype == np.uint8:
        return np.array(rgb, order="C")  # the caller's own array may change later
    if not np.issubdtype(rgb.dtype, np.floating):
        raise ConfigError(
            f"image has the type {rgb.dtype}", fix="use uint8 in 0..255 or float in 0..1"
        )
    low, high = (float(rgb.min()), float(rgb.max())) if rgb.size else (0.0, 0.0)
    if not -FLOAT_SLACK <= low <= high <= 1 + FLOAT_SLACK:
        raise ConfigError(
            f"image has float values from {low:g} to {high:g}",
            fix="floats must lie in 0..1 (divide by 255, do not normalize), or use uint8",
        )
    return np.ascontiguousarray(rgb, dtype=np.float32) * np.float32(255)


def _to_uint8(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return pixels
    rounded: NDArray[np.uint8] = np.rint(pixels).clip(0, 255).astype(np.uint8)
    return rounded
