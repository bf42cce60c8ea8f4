"""Section `quantize` of a recipe: fine-tuning a network that computes in eight bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from rtseg.config import call
from rtseg.errors import ConfigError
from rtseg.quantization import Calibration, calibrate, follow_ranges, prepare
from rtseg.training.hooks import Hooks
from rtseg.training.options import TrainOptions
from rtseg.training.session import Session


@dataclass(frozen=True)
class Quantization:
    """Section `quantize` of a recipe.

    images: Training images, not augmented, from which ranges are taken before the first step.
    follow: Share of the steps in which ranges and the statistics of the remaining batch norms
        follow the batches; they rest afterwards.
    float_layers: Patterns of names of layers that stay float.
    """

    images: int = 256
    follow: float = 0.8
    float_layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.images < 1:
            raise ConfigError(
                f"{self.images} is too small", where="quantize.images", fix="use 1 or more"
            )
        if not 0 <= self.follow <= 1:
            raise ConfigError(
                f"{self.follow} is outside 0..1", where="quantize.follow", fix="try 0.8"
            )


def quantized(
    section: Mapping[str, Any], model: nn.Module, options: TrainOptions
) -> tuple[nn.Module, Callable[[int], Hooks]]:
    """Let a network compute in eight bits while it is fine-tuned.

    Args:
        section: Section `quantize`.
        model: The float network, with the weights to start from.
        options: Section `train`.

    Returns:
        The network to train, and what a plan has to call.

    Raises:
        ConfigError: A key or value does not fit, the network cannot be quantized, or the recipe
            averages the weights.
    """
    if not isinstance(section, Mapping):
        raise ConfigError(f"{section!r} is no mapping", where="quantize", fix="write {images: 256}")
    chosen = call(Quantization, section, section="quantize")
    if options.ema_decay is not None:
        raise ConfigError(
            "an average of the weights has other ranges than the weights",
            where="train.ema_decay",
            fix="set train.ema_decay and train.ema_ramp to null",
        )
    return prepare(model, float_layers=chosen.float_layers), _Following(chosen, options).hooks


class _Following:
    """What a run calls; everything follows from the step, so a run that goes on does the same."""

    def __init__(self, chosen: Quantization, options: TrainOptions) -> None:
        self.chosen, self.options = chosen, options
        self.rest = 0

    def hooks(self, total: int) -> Hooks:
        """Return what has to be called in a run of `total` steps."""
        self.rest = round(self.chosen.follow * total)
        return Hooks(before_step=self._before_step)

    def _before_step(self, session: Session) -> None:
        if session.step == 0:
            self._calibrate(session)
        follow_ranges(session.plan.model, on=session.step < self.rest)

    def _calibrate(self, session: Session) -> None:
        """Take ranges from training images as an evaluation sees them.

        decision: TwinMixing's predecessor takes them from the validation set.
        """
        data, seed = session.plan.data, self.options.seed
        images = Calibration(data.train, data.preprocess, count=self.chosen.images, seed=seed)
        device = session.fabric.device
        calibrate(session.plan.model, (batch.to(device) for batch in images))
        session.log.add(
            "calibrate", step=0, epoch=0.0, images=len(images.indices), seed=seed,
            rest=self.rest,
        )  # fmt: skip
