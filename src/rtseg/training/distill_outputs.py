"""Read what modules of a network return, by their names."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rtseg.errors import ConfigError, nearest

BLANK = 64
"""Side of the image that shows what modules return."""


class Outputs:
    """What modules of a network return in a forward pass, by their names.

    The hooks stay where they are, because torch.compile cannot follow hooks that come and go. Those
    of a copy of the network, such as its moving average, do nothing.

    Args:
        network: Whose modules are read.
        names: Of the modules; the empty name is the network itself.
        training: In which mode of the network they are read.
    """

    def __init__(self, network: nn.Module, names: Sequence[str], *, training: bool) -> None:
        self._found: dict[str, Any] = {}
        self._network, self._training = network, training
        modules = [(name, network.get_submodule(name)) for name in names]
        self._handles = [
            module.register_forward_hook(self._reader(name, module)) for name, module in modules
        ]

    def _reader(self, name: str, own: nn.Module) -> Callable[..., None]:
        def read(module: nn.Module, _inputs: Any, output: Any) -> None:
            if module is own and self._network.training is self._training:
                self._found[name] = output

        return read

    def take(self) -> dict[str, Any]:
        """Return what the last forward pass left, and keep nothing of it."""
        found = dict(self._found)
        self._found.clear()
        return found

    def remove(self) -> None:
        """Leave the network without hooks."""
        for handle in self._handles:
            handle.remove()


def map_channels(network: nn.Module, names: Sequence[str], *, who: str) -> list[int]:
    """Return the channels of the feature maps that modules return, from one blank image.

    Args:
        network: Left as it is: a copy of it looks at the image.
        names: Of its modules.
        who: `student` or `teacher`, for messages.

    Raises:
        ConfigError: A module does not exist, is not called, or returns something else.
    """
    modules = dict(network.named_modules())
    for number, name in enumerate(names):
        if name not in modules:
            close = ", ".join(nearest(name, modules))
            raise ConfigError(
                f"the {who} has no module {name!r}",
                where=f"distill.pairs.{number}.{who}",
                fix=f"did you mean one of: {close}?",
            )
    trial = copy.deepcopy(network).eval()
    outputs = Outputs(trial, names, training=False)
    with torch.no_grad():
        trial(blank_image(trial))
    found = outputs.take()
    for number, name in enumerate(names):
        output = found.get(name)
        if not isinstance(output, Tensor) or output.ndim != 4:
            raise ConfigError(
                f"{name!r} of the {who} returns no map (B, C, H, W)",
                where=f"distill.pairs.{number}.{who}",
                fix="name a module whose output is one feature map",
            )
    return [found[name].shape[1] for name in names]


def blank_image(network: nn.Module) -> Tensor:
    """Return an image (1, 3, BLANK, BLANK) of zeros where a network is."""
    return torch.zeros(1, 3, BLANK, BLANK, device=next(network.parameters()).device)
