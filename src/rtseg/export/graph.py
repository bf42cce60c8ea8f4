"""What is exported: the deployable network with named tensors, as a program of `torch.export`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim, ExportedProgram

from rtseg.data.preprocess import Preprocess
from rtseg.errors import ConfigError
from rtseg.runtimes import Port

Axis = Literal["batch", "hw"]
Size = tuple[int, int]
Choose = Callable[[Any, Size], Any]
"""Output of a network and the size of its input -> maps of chosen classes."""
IMAGE = "image"
SMALLEST = 32
"""Sides of the smallest input, as for the predictor."""
ODD = 5
"""decision: pixels by which a size is changed where any is possible: a prime, no common stride."""
EXAMPLE_BATCH = 2
"""Images in the example of a file for any batch: torch.export takes a batch of 1 for a constant."""
ATTEMPTS: tuple[tuple[Axis, ...], ...] = (("batch", "hw"), ("batch",), ())
"""What may differ from the example, most first, where the network decides."""


class Graph(nn.Module):
    """A network that takes one tensor and returns a tuple of tensors, in evaluation mode.

    Args:
        network: Its weights are changed to `dtype`.
        dtype: What the network computes in; inputs and outputs are float32 all the same.
        preprocess: Normalize inside; the image is then (B, H, W, 3) uint8 RGB.
        choose: Choose classes inside.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        dtype: torch.dtype = torch.float32,
        preprocess: Preprocess | None = None,
        choose: Choose | None = None,
    ) -> None:
        super().__init__()
        self.prepare: nn.Module = nn.Identity() if preprocess is None else Normalize(preprocess)
        self.network = network.to(dtype).requires_grad_(requires_grad=False)
        for value in (*self.network.parameters(), *self.network.buffers()):
            # Parts of larger tensors would be saved with those, and other layouts not at all well.
            value.data = value.data.clone(memory_format=torch.contiguous_format)
        self.dtype = dtype
        self.choose: Choose = (lambda output, _: output) if choose is None else choose
        self.eval()

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors of `answer` in order, floats as float32."""
        tensors = (value for value in self.answer(image) if isinstance(value, Tensor))
        return tuple(value.float() if value.is_floating_point() else value for value in tensors)

    def answer(self, image: Tensor) -> Any:
        """Return the output tuple of the network, or of what chooses classes.

        Args:
            image: (B, 3, H, W) float32 normalized, or (B, H, W, 3) uint8.
        """
        images = self.prepare(image)
        output = self.network(images.to(self.dtype))
        return self.choose(output, (images.shape[-2], images.shape[-1]))


class Normalize(nn.Module):
    """Do what `Preprocess.normalize` does to pixels (B, H, W, 3) uint8: (B, 3, H, W) float32."""

    mean: Tensor
    std: Tensor

    def __init__(self, preprocess: Preprocess) -> None:
        super().__init__()
        for name, values in (("mean", preprocess.mean), ("std", preprocess.std)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the normalized images."""
        return (pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std


# ---------------------------------------------------------------- tracing
@dataclass(frozen=True)
class Traced:
    """A program of `torch.export`, and what a manifest says of it.

    image, outputs: ports, lengths that may differ as None. output: name of the tuple that the
    outputs are fields of. axes: what may differ. size: (H, W) of the example. divisors: what H and
    W of an input must be multiples of.
    """

    program: ExportedProgram
    image: Port
    outputs: tuple[Port, ...]
    output: str
    axes: tuple[Axis, ...]
    size: Size
    divisors: Size


def traces(
    graph: Graph, size: Size, *, divisors: Size, axes: Collection[Axis] | None = None
) -> Iterator[Traced]:
    """Record what a graph does to an image of a size; yield the most general program first.

    Args:
        graph: Network and what stands around it.
        size: (H, W) of the example.
        divisors: What H and W of every input are multiples of.
        axes: What may differ from the example: the number of images (`batch`), height and width
            (`hw`). None: all that the network allows; there are less general programs then.

    Raises:
        ConfigError: The network does not allow it, or cannot be recorded at all.
    """
    attempts = ATTEMPTS if axes is None else (tuple(axis for axis in ATTEMPTS[0] if axis in axes),)
    answer = _probe(graph, size)
    for chosen in attempts:
        try:
            program = _record(graph, size, divisors, chosen)
        except Exception as error:  # torch raises almost anything here
            if chosen is attempts[-1]:
                raise _refusal(graph, chosen, error) from None
            continue
        image, outputs = _ports(program, answer)
        kind = type(answer).__name__
        yield Traced(program, image, outputs, kind, chosen, size, divisors)


def _probe(graph: Graph, size: Size) -> Any:
    """Return the answer to one empty image.

    Raises:
        ConfigError: The network does not take this size.
    """
    try:
        with torch.inference_mode():
            return graph.answer(_example(graph, 1, size))
    except ValueError as error:
        raise ConfigError(str(error), where="size") from None


def _example(graph: Graph, count: int, size: Size) -> Tensor:
    if isinstance(graph.prepare, Normalize):
        return torch.zeros((count, *size, 3), dtype=torch.uint8)
    return torch.zeros(count, 3, *size)


def _record(graph: Graph, size: Size, divisors: Size, axes: Collection[Axis]) -> ExportedProgram:
    example = _example(graph, EXAMPLE_BATCH if "batch" in axes else 1, size)
    first = 1 if isinstance(graph.prepare, Normalize) else 2
    free: dict[int, Any] = {}
    if "batch" in axes:
        free[0] = Dim("batch")
    if "hw" in axes:
        free[first] = _side("height", divisors[0])
        free[first + 1] = _side("width", divisors[1])
    with torch.no_grad():
        program = torch.export.export(graph, (example,), dynamic_shapes=(free,), strict=False)
    if "hw" in axes:
        _require_free(program, graph, size, divisors)
    return program


def _side(name: str, divisor: int) -> Any:
    """Return a length that is a multiple of `divisor`."""
    return divisor * Dim(name, min=-(-SMALLEST // divisor)) if divisor > 1 else Dim.DYNAMIC


def _require_free(program: ExportedProgram, graph: Graph, size: Size, divisors: Size) -> None:
    """Raise unless a program takes other sizes: torch.export may guard some lengths silently."""
    module = program.module()
    for other in other_sizes(size, divisors):
        with FakeTensorMode(allow_non_fake_inputs=True):  # shapes alone, nothing is computed
            module(_example(graph, 1, other))


def other_sizes(size: Size, divisors: Size) -> list[Size]:
    """Return three sizes that a file for any size is tried with, besides the one it was made for.

    Args:
        size: (H, W) of the example.
        divisors: What H and W must be multiples of.
    """
    steps = [part if part > 1 else ODD for part in divisors]
    taller, wider = (side + step for side, step in zip(size, steps, strict=True))
    lower, slimmer = (
        -(-max(SMALLEST, side * 3 // 4) // part) * part
        for side, part in zip(size, divisors, strict=True)
    )
    return [(taller, wider), (lower, wider), (taller, slimmer)]


def _ports(program: ExportedProgram, answer: Any) -> tuple[Port, tuple[Port, ...]]:
    """Return the input and the outputs of a program, whose names are the fields of an answer."""
    inputs = program.graph.find_nodes(op="placeholder")
    outputs = program.graph.output_node().args[0]
    names = [key for key, value in answer._asdict().items() if isinstance(value, Tensor)]
    assert isinstance(outputs, Sequence)
    ports = (_port(name, node) for name, node in zip(names, outputs, strict=True))
    return _port(IMAGE, inputs[-1]), tuple(ports)


def _port(name: str, node: Any) -> Port:
    value = node.meta["val"]
    shape = tuple(side if isinstance(side, int) else None for side in value.shape)
    return Port(name, str(value.dtype).removeprefix("torch."), shape)


def _refusal(graph: Graph, axes: tuple[Axis, ...], error: Exception) -> ConfigError:
    name, reason = type(graph.network).__name__, first_sentence(error)
    if "hw" in axes:
        return ConfigError(
            f"{name} cannot take images of any size in one file ({reason})",
            where="dynamic",
            fix="use batch: one file for each size",
        )
    return ConfigError(f"{name} cannot be recorded by torch.export ({reason})", where="model")


def first_sentence(error: Exception) -> str:
    """Return the first line that says something, of the error that all others follow from."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    lines = [line.strip(" -\t") for line in str(error).splitlines()]
    return next((line[:200] for line in lines if line), type(error).__name__)
