"""Drivable area and lane lines: two binary maps, from one network or from one for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rtseg.errors import ConfigError, DataError
from rtseg.losses.focal import focal_loss
from rtseg.losses.tversky import tversky_loss
from rtseg.ops.resize import resize_argmax, resize_logits
from rtseg.structures import (
    IGNORE_INDEX,
    ROAD_LANE_PALETTE,
    Batch,
    ClassInfo,
    ImageMeta,
    RoadLaneMapOutput,
    RoadLaneOutput,
    RoadLaneResult,
    RoadLaneTarget,
    Sample,
)
from rtseg.tasks.fit import map_to_source, padded_source_size, source_window

if TYPE_CHECKING:
    from rtseg.metrics.road_lane import RoadLaneScores

KINDS = ("drivable", "lane")
TVERSKY = {"drivable": (0.7, 0.3), "lane": (0.9, 0.1)}
"""Weights alpha and beta of the Tversky loss. Source: TwinMixing, section 3.4."""


class RoadLaneTask:
    """Mark the drivable area and the lane lines.

    The loss of each map is focal plus Tversky loss. Void pixels count in neither. That is also how
    padding stays out: the labels of padded pixels are void, so that leaving void out is the same as
    cutting the padding off, and no step has to know where it lies.

    The paper says that its Tversky weights emphasise recall. In its released code, and in the usual
    definition, the larger one stands at the false positives, which favours precision: the default
    here. decision: the published scores most likely come from that code.

    Args:
        classes: Of the data set; not used, since both maps are binary.
        class_weights: Must be None, for the same reason.
        tasks: Maps that the network gives.
        tversky_alpha_on: Whether the larger Tversky weight stands at the false positives (`fp`,
            the released code) or at the misses (`fn`, recall).
        tversky_gamma: Exponent of the Tversky loss; 4/3 in the released code, 1 in the paper.

    Raises:
        ConfigError: Class weights are given.
    """

    needs: tuple[str, ...] = KINDS
    output_type: type = RoadLaneOutput

    def __init__(
        self,
        classes: Sequence[ClassInfo],
        class_weights: Sequence[float] | None = None,
        *,
        tasks: Literal["both", "drivable", "lane"] = "both",
        tversky_alpha_on: Literal["fp", "fn"] = "fp",
        tversky_gamma: float = 4 / 3,
    ) -> None:
        if class_weights is not None:
            raise ConfigError(
                "road and lane maps have no classes to weigh",
                where="task.class_weights",
                fix="leave it out",
            )
        self.classes = tuple(classes)
        self.needs = KINDS if tasks == "both" else (tasks,)
        self.alpha_on = tversky_alpha_on
        self.gamma = tversky_gamma

    def target(self, samples: Sequence[Sample]) -> RoadLaneTarget:
        """Stack the labels of both kinds, (B, H, W) int64; one that a sample lacks is void.

        Raises:
            DataError: A sample has none of the labels that are learnt, or one that is not 0, 1 or
                void.
        """
        for sample in samples:
            if not any(kind in sample.labels for kind in self.needs):
                raise DataError(
                    f"has no {' or '.join(self.needs)} labels "
                    f"(it has: {', '.join(sample.labels) or 'none'})",
                    where=sample.path,
                    fix="use a data set that offers them, or another task",
                )
        maps = [
            torch.stack([torch.from_numpy(_labels(sample, kind)) for sample in samples])
            for kind in KINDS
        ]
        return RoadLaneTarget(*(item.to(torch.int64) for item in maps))

    def training_step(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return focal and Tversky loss of each map, at label size, all with weight 1.

        Raises:
            ConfigError: The network returns something else, or other maps.
        """
        output = self._checked(model(batch.images))
        terms = {}
        for kind in self.needs:
            labels = getattr(batch.target, kind)
            logits = resize_logits(getattr(output, kind), labels.shape[-2:])
            alpha, beta = TVERSKY[kind]
            at_false, at_missed = (alpha, beta) if self.alpha_on == "fp" else (beta, alpha)
            terms[f"{kind}_focal"] = focal_loss(logits, labels)
            terms[f"{kind}_tversky"] = tversky_loss(
                logits,
                labels,
                false_positive_weight=at_false,
                false_negative_weight=at_missed,
                gamma=self.gamma,
            )
        return terms

    def divisors(self, target: RoadLaneTarget) -> dict[str, Tensor]:
        """Return the labelled pixels of each map, by which focal losses are divided.

        Tversky losses are those of each part of a batch.
        """
        return {
            f"{kind}_focal": (getattr(target, kind) != IGNORE_INDEX).sum().float()
            for kind in self.needs
        }

    def _checked(self, output: Any) -> RoadLaneOutput | RoadLaneMapOutput:
        if not isinstance(output, (RoadLaneOutput, RoadLaneMapOutput)):
            raise ConfigError(
                f"the network returns {type(output).__name__}",
                where="model",
                fix="return rtseg.structures.RoadLaneOutput(drivable, lane) from its forward",
            )
        given = tuple(kind for kind in KINDS if getattr(output, kind) is not None)
        if given != self.needs:
            raise ConfigError(
                f"the network gives {' and '.join(given) or 'no map'}, "
                f"the task expects {' and '.join(self.needs)}",
                where="task.tasks",
                fix="set model.tasks and task.tasks to the same value",
            )
        return output

    def new_metric(self) -> RoadLaneScores:
        """Return empty counts with their scores."""
        from rtseg.metrics.road_lane import RoadLaneScores

        return RoadLaneScores(self.needs)

    def postprocess(
        self,
        output: RoadLaneOutput | RoadLaneMapOutput,
        meta: Sequence[ImageMeta],
        *,
        confidence: bool = False,  # noqa: ARG002 (results of this task carry none)
    ) -> list[RoadLaneResult]:
        """Resize the logits to the source size, cut off padding, take the better channel.

        Args:
            output: Logits (B, 2, h, w) of each map, or maps (B, h, w) that a file has chosen.
            meta: One entry per image.
            confidence: Not used.
        """
        checked = self._checked(output)
        return [
            RoadLaneResult(
                drivable=_foreground(checked.drivable, index, item),
                lane=_foreground(checked.lane, index, item),
                names=KINDS,
                palette=ROAD_LANE_PALETTE,
                source=item.path,
            )
            for index, item in enumerate(meta)
        ]


def _foreground(found: Tensor | None, index: int, meta: ImageMeta) -> NDArray[np.bool_] | None:
    """Return where image `index` of a batch is foreground, (H, W); background wins a tie.

    found: Logits (B, 2, h, w), or a chosen map (B, h, w).
    """
    if found is None:
        return None
    if found.ndim == 3:
        return np.ascontiguousarray(map_to_source(found[index], meta).bool().cpu().numpy())
    logits, size = found[index : index + 1], padded_source_size(meta)
    classes = resize_argmax(logits, size, window=source_window(meta))[0]
    return classes.cpu().numpy().astype(np.bool_)


def _labels(sample: Sample, kind: str) -> NDArray[Any]:
    """Return the labels (H, W) of one kind, void everywhere if the sample lacks it."""
    if kind not in sample.labels:
        present = [sample.labels[other] for other in KINDS if other in sample.labels]
        return np.full(present[0].shape, IGNORE_INDEX, dtype=np.uint8)
    labels = sample.labels[kind]
    wrong = labels[(labels > 1) & (labels != IGNORE_INDEX)]
    if wrong.size:
        raise DataError(
            f"{kind} label {int(wrong[0])} is neither 0, 1 nor {IGNORE_INDEX}",
            where=sample.path,
            fix="map it in data.yaml (label_map) or correct the mask",
        )
    return labels
