"""Compare an exported file with the network that it was made from; without that, no file."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rtseg.data.preprocess import Preprocess
from rtseg.data.synthetic import Synthetic
from rtseg.errors import CheckFailedError, RtsegError
from rtseg.export.choose import chosen
from rtseg.export.graph import EXAMPLE_BATCH, Axis, Choose, Size, other_sizes
from rtseg.structures import MaskOutput

BATCHES = (EXAMPLE_BATCH, 1, 5)
"""Numbers of images that a file for any batch is checked with."""
NOISE = 1
"""Index of the test image that is noise; the others are street scenes."""


class Gate(NamedTuple):
    """What a file has to reach.

    error: largest relative error of each batch, None for no limit. agreement: smallest share of the
    pixels of all batches with the same class, as a small map has few pixels to count.
    """

    error: float | None
    agreement: float


GATES = {
    "fp32": Gate(1e-4, 0.9999),
    "fp16": Gate(None, 0.995),
    "bf16": Gate(None, 0.995),
}
"""decision: by precision. Rounding to half the bits moves scores, but few pixels to other
classes. That of int8 depends on the network."""


SPARED, JUMP = 0.1, 100
"""decision: what a query looks at is decided by the sign of a mask. Where that is 0 but for
rounding, the query answers differently, and draws others along. So a tenth of the queries of an
image do not count, and not every image has to keep to the limit of the error: half of all images
have to, the others to this many times the limit."""


class Case(NamedTuple):
    """A batch to compare: its size (H, W), how many images, and the index of the first one."""

    size: Size
    batch: int
    first: int = 0


def cases(size: Size, *, axes: Sequence[Axis], divisors: Size) -> list[Case]:
    """Return the batches that a file is checked with.

    Args:
        size: (H, W) of the example that it was made with.
        axes: What may differ from the example.
        divisors: What H and W must be multiples of.
    """
    own = EXAMPLE_BATCH if "batch" in axes else 1
    found = [Case(size, own)]
    if "hw" in axes:
        found += [Case(other, own) for other in other_sizes(size, divisors)]
    if "batch" in axes:
        found += [Case(size, count) for count in BATCHES if count != own]
    else:
        found.append(Case(size, own, first=NOISE))
    return found


class Reference:
    """What the network itself answers, in float32, one image at a time.

    Args:
        model: The network as it was trained, not its deployable form.
        preprocess: Normalizes the test images.
        choose: Chooses classes, if the file does.
    """

    def __init__(
        self, model: nn.Module, preprocess: Preprocess, *, choose: Choose | None = None
    ) -> None:
        self.model, self.preprocess, self.choose = model.eval(), preprocess, choose
        self.pixels = functools.cache(_pixels)
        self.answer = functools.cache(self._answer)

    def normalized(self, pixels: Tensor) -> Tensor:
        """Return images (B, 3, H, W) float32 from pixels (B, H, W, 3) uint8."""
        return self.preprocess.normalize(pixels.permute(0, 3, 1, 2)).contiguous()

    def inputs(self, case: Case) -> Tensor:
        """Return the pixels of a batch, (B, H, W, 3) uint8."""
        return torch.stack([self.pixels(index, case.size) for index in _indices(case)])

    def outputs(self, case: Case) -> Any:
        """Return the output for a batch."""
        found = [self.answer(index, case.size) for index in _indices(case)]
        return type(found[0])(*(_joined(values) for values in zip(*found, strict=True)))

    def _answer(self, index: int, size: Size) -> Any:
        return self.output(self.normalized(self.pixels(index, size)[None]))

    @torch.inference_mode()
    def output(self, images: Tensor) -> Any:
        """Return the output for normalized images (B, 3, H, W)."""
        output = self.model(images)
        size = (images.shape[-2], images.shape[-1])
        return output if self.choose is None else self.choose(output, size)


def _indices(case: Case) -> range:
    return range(case.first, case.first + case.batch)


def _joined(values: Sequence[Any]) -> Any:
    return torch.cat(list(values)) if isinstance(values[0], Tensor) else values[0]


def _pixels(index: int, size: Size) -> Tensor:
    """Return test image `index`, (H, W, 3) uint8."""
    image: NDArray[Any]
    if index == NOISE:
        image = np.random.default_rng(index).integers(0, 256, (*size, 3), dtype=np.uint8)
    else:
        image = Synthetic(split="test", size=size)[index].image
    return torch.from_numpy(np.array(image))


# ---------------------------------------------------------------- comparison
class Difference(NamedTuple):
    """How an output of a file differs from that of the network.

    errors: of each image, the largest difference relative to the largest value; none for chosen
    classes. same, pixels: how many pixels have the same class, and how many there are.
    """

    errors: tuple[float, ...]
    same: int
    pixels: int

    @property
    def agreement(self) -> float:
        """Share of pixels with the same class."""
        return self.same / self.pixels

    @property
    def error(self) -> float | None:
        """The largest error; NaN if one is."""
        return float(np.max(self.errors)) if self.errors else None


def compare(output: Any, expected: Any) -> dict[str, Difference]:
    """Return the differences by name of output; one of masks is judged by the classes of both.

    Args:
        output: Of the file.
        expected: Of the network: a tuple of the same type.
    """
    pairs = zip(chosen(output).items(), chosen(expected).values(), strict=True)
    counts = {name: (int((map_ == wanted).sum()), wanted.numel()) for (name, map_), wanted in pairs}
    spared = SPARED if isinstance(expected, MaskOutput) else 0.0
    return {
        name: Difference(
            _errors(getattr(output, name), wanted, spared),
            *counts.get(name, next(iter(counts.values()))),
        )
        for name, wanted in expected._asdict().items()
        if isinstance(wanted, Tensor)
    }


def _errors(output: Tensor, expected: Tensor, spared: float) -> tuple[float, ...]:
    """Return the relative error of each image, but for a share of its rows (queries)."""
    if not expected.is_floating_point():
        return ()
    largest = expected.abs().amax().clamp(min=torch.finfo(torch.float32).tiny)
    rows = ((output - expected).abs() / largest).flatten(min(2, expected.ndim - 1)).amax(-1)
    rows = rows.view(len(expected), -1)
    counted = rows.shape[1] - int(spared * rows.shape[1])
    return tuple(rows.kthvalue(counted, dim=1).values.tolist())


# ---------------------------------------------------------------- judgement
def verify(
    runtime: nn.Module,
    reference: Reference,
    batches: Sequence[Case],
    *,
    gate: Gate,
    takes_pixels: bool,
    where: str,
) -> dict[str, Any]:
    """Return the report of a file that answers as its network does.

    Args:
        runtime: Runs the file.
        reference: Knows what the network answers.
        batches: What to compare.
        gate: What has to be reached.
        takes_pixels: Whether the file normalizes inside.
        where: Name of the file, for messages.

    Returns:
        For `manifest.json`: the gate, `cases` and the worst `error` and `agreement` of all.

    Raises:
        CheckFailedError: An output differs, or the file does not run.
    """
    rows: list[dict[str, Any]] = []
    found: dict[str, list[Difference]] = {}
    for case in batches:
        pixels = reference.inputs(case)
        images = pixels if takes_pixels else reference.normalized(pixels)
        expected = reference.outputs(case)
        limit = gate.error
        if limit is not None and isinstance(expected, MaskOutput):
            limit *= JUMP
        row = compare(_run(runtime, images, case, where), expected)
        for name, item in row.items():
            _require_near(name, item.error, limit, f"{where}, {_shape(case)}")
            found.setdefault(name, []).append(item)
        rows.append({"batch": case.batch, "size": list(case.size), "outputs": _figures(row)})
    total = {name: together(items) for name, items in found.items()}
    for name, item in total.items():
        _require_near(name, item.error, gate.error, f"{where}, half of the images")
        _require_alike(name, item, gate, f"{where}, all images")
    errors = [item.error for items in found.values() for item in items if item.errors]
    return {
        "gate": gate._asdict(),
        "error": max((error for error in errors if error is not None), default=None),
        "agreement": min(item.agreement for item in total.values()),
        "cases": rows,
    }


def _figures(found: Mapping[str, Difference]) -> dict[str, Any]:
    return {
        name: {"error": item.error, "agreement": item.agreement} for name, item in found.items()
    }


def together(items: Sequence[Difference]) -> Difference:
    """Return the median error of all images, and the pixels of all."""
    errors = [error for item in items for error in item.errors]
    middle = (float(np.median(errors)),) if errors else ()
    return Difference(middle, sum(item.same for item in items), sum(item.pixels for item in items))


def _run(runtime: nn.Module, images: Tensor, case: Case, where: str) -> Any:
    try:
        with torch.inference_mode():
            return runtime(images)
    except RtsegError:
        raise
    except Exception as error:  # engines raise almost anything
        reason = " ".join(str(error).split())[:200]
        raise CheckFailedError(
            f"does not run for {_shape(case)} ({reason})",
            where=where,
            fix="export it for one size (--dynamic batch or none), or in another format",
        ) from None


def _require_near(name: str, error: float | None, limit: float | None, where: str) -> None:
    """Raise if an error is too large, or not a number; where says of what, for which images."""
    if error is not None and limit is not None and not error <= limit:
        raise _differs(name, where, f"relative error {error:.2g}, at most {limit:.2g} is allowed")


def _require_alike(name: str, found: Difference, gate: Gate, where: str) -> None:
    """Raise if too few pixels have the same class."""
    if found.agreement < gate.agreement:
        share = f"same class for {found.agreement:.3%} of the pixels"
        raise _differs(name, where, f"{share}, at least {gate.agreement:.2%} are asked for")


def _differs(name: str, where: str, how: str) -> CheckFailedError:
    return CheckFailedError(
        f"output {name!r} differs from the network: {how}",
        where=where,
        fix="nothing was written; try fp32, one size (--dynamic batch) or another format",
    )


def _shape(case: Case) -> str:
    return f"{case.batch} x {case.size[0]} x {case.size[1]}"
