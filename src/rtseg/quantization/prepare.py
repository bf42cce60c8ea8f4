"""Put rounding into a network: where, and with which ranges.

Weights of convolutions and linear layers are rounded per output channel. Every tensor that such a
layer reads is rounded once, where it comes from, so that all its readers share one range. What a
convolution returns is rounded too, after the ReLU if one follows and before any other activation:
engines need that to compute the whole convolution in integers. Transposed convolutions and the
scores that the network returns stay float.
"""

from __future__ import annotations

import copy
import fnmatch
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rtseg.errors import ConfigError
from rtseg.quantization.fake import FakeQuantize
from rtseg.quantization.layers import QuantizedLayer

PROBE_SIZE = 128
"""Side of the empty image that shows which module reads what; every network takes it."""


class QuantizedNetwork(nn.Module):
    """A network with rounding in it; it takes and returns what the float network does.

    Args:
        network: The folded network, whose layers have been replaced.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.smallest_batch = int(getattr(network, "smallest_batch", 1))

    def forward(self, images: Tensor) -> Any:
        """Return the output of the network for images (B, 3, H, W)."""
        return self.network(images)

    def deployable(self) -> QuantizedNetwork:
        """Return a copy for evaluation; norms were folded in before the layers were replaced."""
        return copy.deepcopy(self).eval()


def prepare(model: nn.Module, *, float_layers: Sequence[str] = ()) -> QuantizedNetwork:
    """Return a copy that computes with rounded values, in evaluation mode, its ranges still empty.

    Batch norms behind convolutions are folded in first, as they are in engines: by `folded` where a
    network's `deployable` does more than that, such as filling up layers with zeros.

    Args:
        model: A network with `deployable`.
        float_layers: Patterns of names, such as `head.*`, of layers that stay float.

    Raises:
        ConfigError: The network cannot be folded, is quantized already, or has no layer with a name
            like a pattern.
    """
    if isinstance(model, QuantizedNetwork):
        raise ConfigError("the network is quantized already", fix="start from the float network")
    fold = getattr(model, "folded", None) or getattr(model, "deployable", None)
    if fold is None:
        raise ConfigError(
            f"{type(model).__name__} has no method deployable",
            where="quantize",
            fix="let it return a copy with batch norms folded in",
        )
    network: nn.Module = fold().eval()
    trace = _watch(network)
    layers = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, (nn.Conv2d, nn.Linear)) and trace.calls[name]
    }
    for pattern in float_layers:
        if not fnmatch.filter(layers, pattern):
            raise ConfigError(
                f"no layer has a name like {pattern!r}",
                where="quantize.float_layers",
                fix=f"names are such as {min(layers)!r}",
            )
    chosen = [
        name for name in layers if not any(fnmatch.fnmatch(name, item) for item in float_layers)
    ]
    rounded = set(trace.places(chosen, convolutions={
        name for name in chosen if isinstance(layers[name], nn.Conv2d)
    }))  # fmt: skip
    alone = {name for name in chosen if trace.source_of(name) is None}
    for name in chosen:
        _replace(network, name, QuantizedLayer(layers[name], round_input=name in alone))
    for name in sorted(rounded):
        _replace(network, name, nn.Sequential(network.get_submodule(name), FakeQuantize()))
    return QuantizedNetwork(network).eval()


def follow_ranges(model: nn.Module, *, on: bool) -> None:
    """Let ranges, and the statistics of the batch norms that are left, follow the batches or rest.

    decision: both at once, as both are averages that the weights have to settle on; all else of the
    network stays in evaluation mode.
    """
    for module in model.modules():
        if isinstance(module, (FakeQuantize, nn.modules.batchnorm._BatchNorm)):
            module.training = on


@torch.no_grad()
def calibrate(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set all ranges to the smallest and largest values that occur.

    Source: the largest value is what the predecessor of TwinMixing, TwinLiteNet, takes.

    Args:
        model: A network that `prepare` has made; it runs in evaluation mode; its weights
            are rounded, what passes is not.
        batches: Normalized images (B, 3, H, W) each.
    """
    ranges = [module for module in model.modules() if isinstance(module, FakeQuantize)]
    modes = {module: module.training for module in model.modules()}
    model.eval()
    for item in ranges:
        item.low.zero_()
        item.high.zero_()
        item.widening = True
    try:
        for images in batches:
            model(images)
    finally:
        for item in ranges:
            item.widening = False
        for module, training in modes.items():
            module.training = training


def quantize(
    model: nn.Module, batches: Iterable[Tensor], *, float_layers: Sequence[str] = ()
) -> QuantizedNetwork:
    """Quantize a trained network without further training; see `prepare` and `calibrate`.

    Raises:
        ConfigError: As `prepare`.
    """
    network = prepare(model, float_layers=float_layers)
    calibrate(network, batches)
    return network


# ---------------------------------------------------------------- which module reads what
@dataclass
class _Trace:
    """What one pass of a network has shown, by the names of its innermost modules.

    read, made: Tensor that a module has read and returned. calls: how often it ran. makers: name of
    the module that made a tensor. readers: names of those that read it. scores: What the network
    returned. Tensors are known by `id`, and held, so that no two have the same one.
    """

    read: dict[str, int] = field(default_factory=dict)
    made: dict[str, int] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    makers: dict[int, str] = field(default_factory=dict)
    readers: dict[int, list[str]] = field(default_factory=dict)
    scores: set[int] = field(default_factory=set)
    relus: set[str] = field(default_factory=set)
    held: list[Any] = field(default_factory=list)

    def see(self, name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any, /) -> None:
        """Note that a module has run; one that returns its input, as identities do, is left out."""
        if not inputs or not isinstance(output, Tensor) or output is inputs[0]:
            return
        self.held += [inputs[0], output]
        self.read[name], self.made[name] = id(inputs[0]), id(output)
        self.calls[name] += 1
        self.makers[id(output)] = name
        self.readers.setdefault(id(inputs[0]), []).append(name)
        if isinstance(module, nn.ReLU):
            self.relus.add(name)

    def source_of(self, name: str) -> str | None:
        """Return the module whose output this one reads; None if it is not that of just one."""
        source = self.makers.get(self.read[name]) if self.calls[name] == 1 else None
        return source if source is not None and self.calls[source] == 1 else None

    def places(self, layers: Iterable[str], *, convolutions: set[str]) -> Iterator[str]:
        """Yield the modules whose output is to be rounded."""
        for name in layers:
            source = self.source_of(name)
            if source is not None:
                yield source
            if name in convolutions and self.calls[name] == 1:
                made = self.made[name]
                readers = self.readers.get(made, [])
                if len(readers) == 1 and readers[0] in self.relus and self.calls[readers[0]] == 1:
                    yield readers[0]
                elif made not in self.scores:
                    yield name


def _watch(network: nn.Module) -> _Trace:
    """Run a copy without data and note what its innermost modules read and return."""
    twin = copy.deepcopy(network).to("meta").eval()
    trace = _Trace()
    for name, module in twin.named_modules():
        if not any(module.children()):
            module.register_forward_hook(partial(trace.see, name))
    with torch.no_grad():
        output = twin(torch.empty(1, 3, PROBE_SIZE, PROBE_SIZE, device="meta"))
    trace.held.append(output)
    trace.scores = {id(item) for item in output if isinstance(item, Tensor)}
    return trace


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, module)
