"""Run a network itself, without a file: plain torch, torch.compile, or a recorded CUDA graph."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from rtseg.errors import ConfigError, MissingError, nearest
from rtseg.runtimes.runtime import Run, Runtime
from rtseg.runtimes.torch_export import use_threads

AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Types to which autocast brings what it may, by precision."""
RECORDED = 4
"""decision: so many shapes are kept as CUDA graphs, each with memory of its own."""


def run_network(
    model: nn.Module,
    runtime: str = "torch",
    *,
    device: torch.device | str = "cpu",
    precision: str = "fp32",
    threads: int | None = None,
) -> Runtime:
    """Make a runtime of a network in its deployable form, with channels last in memory.

    Args:
        model: It stays as it is.
        runtime: Key of `NETWORKS`: `torch`, `compile` (torch.compile; the first call of every
            shape takes seconds to minutes) or `cudagraph`.
        device: Where to compute.
        precision: `fp32`, or `bf16` or `fp16` by autocast.
        threads: Threads of torch, for the whole process; those that it has if left out.

    Raises:
        ConfigError: Runtime or precision have no such name.
        MissingError: A CUDA graph is asked for on another device.
    """
    for what, name, table in (("runtime", runtime, NETWORKS), ("precision", precision, AUTOCAST)):
        if name not in table:
            raise ConfigError(
                f"{what} {name!r} of a network is unknown",
                fix=f"did you mean {nearest(name, table, count=1)[0]!r}?",
            )
    place = torch.device(device)
    use_threads(threads or torch.get_num_threads())
    network = deployable(model).to(place)
    run = _in_precision(NETWORKS[runtime](network, place), place, AUTOCAST[precision])
    return Runtime(run, engine=runtime, precision=precision, device=place)


def deployable(model: nn.Module) -> nn.Module:
    """Return a copy of a network for use: what can be folded is, and channels lie last."""
    fold = getattr(model, "deployable", None)
    network: nn.Module = copy.deepcopy(model) if fold is None else fold()
    return network.to(memory_format=torch.channels_last).eval()


def _in_precision(run: Run, device: torch.device, dtype: torch.dtype | None) -> Run:
    """Run without gradients, under autocast if a type is given; outputs are float32."""

    def call(images: Tensor) -> Any:
        cast = contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype)
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), cast:
            output = run(images)
        return output if dtype is None else _each_tensor(output, Tensor.float)

    return call


def _each_tensor(output: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Return an output tuple with a function applied to each of its tensors."""
    return type(output)(
        *(function(value) if isinstance(value, Tensor) else value for value in output)
    )


# ---------------------------------------------------------------- ways to run
def _eager(network: nn.Module, _device: torch.device) -> Run:
    return network.__call__


def _compiled(network: nn.Module, device: torch.device) -> Run:
    # Freezing takes the weights for constants, so that they are laid out and folded once.
    options: dict[str, str | int | bool | Callable[..., Any]] = {"freezing": True}
    if device.type == "cuda":
        options["triton.cudagraphs"] = True
    compiled: Run = torch.compile(network, options=options)
    return compiled


def _recorded(network: nn.Module, device: torch.device) -> Run:
    if device.type != "cuda":
        raise MissingError(f"CUDA graphs do not exist on {device}", fix="use runtime compile")
    graphs: dict[tuple[int, ...], tuple[Any, Tensor, Any]] = {}

    def run(images: Tensor) -> Any:
        key = (*images.shape, torch.is_autocast_enabled("cuda"))
        if key not in graphs:
            if len(graphs) == RECORDED:
                graphs.pop(next(iter(graphs)))
            graphs[key] = _record(network, images)
        graph, place, output = graphs[key]
        place.copy_(images)
        graph.replay()
        return _each_tensor(output, Tensor.clone)  # the next replay writes to the same memory

    return run


def _record(network: nn.Module, images: Tensor) -> tuple[Any, Tensor, Any]:
    """Record one run: the graph, the memory of its input, and its output."""
    place = images.clone()
    stream = torch.cuda.Stream(images.device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(images.device))
    with torch.cuda.stream(stream):
        for _ in range(3):  # libraries choose their kernels and reserve memory
            network(place)
    torch.cuda.current_stream(images.device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = network(place)
    return graph, place, output


NETWORKS: dict[str, Callable[[nn.Module, torch.device], Run]] = {
    "torch": _eager,
    "compile": _compiled,
    "cudagraph": _recorded,
}
