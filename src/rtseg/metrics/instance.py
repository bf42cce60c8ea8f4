"""Average precision of masks, as the COCO tools define it.

Source: pycocotools, whose code computes it: IoU thresholds 0.50 to 0.95 in steps of 0.05, precision
at 101 recalls, objects of all sizes, at most 100 objects per image and class; crowds are neither
missed nor does an object found in one count as wrong.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from rtseg.errors import DataError, MissingError
from rtseg.structures import ClassInfo, InstanceResult, MaskTarget

_LARGEST_AREA = 1e10
_AT_50, _AT_75 = 0, 5
"""Places of the IoU thresholds 0.50 and 0.75."""


class InstancePrecision(Metric):
    """Keep the objects of all images, run-length coded, and report their average precision.

    Means are over the thing classes that occur in truth; without any a score is 0, so no value is
    ever NaN. Objects of other classes are not counted. Processes exchange what they keep; images
    that were dealt out one by one come back in their order, so that ties between scores break as in
    one process.

    Args:
        classes: Classes by id.

    Raises:
        MissingError: pycocotools is not installed.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    images: list[Tensor] | Tensor
    """Of each image one line of JSON as bytes: tensors of any length are all that processes
    exchange."""

    def __init__(self, classes: Sequence[ClassInfo]) -> None:
        super().__init__()
        _coder()
        self.classes = tuple(classes)
        self.add_state("images", default=[], dist_reduce_fx="cat")
        self.reset()

    def reset(self) -> None:
        """Forget everything seen."""
        super().reset()
        # decision: never an empty list, since a process without images has to send something, and
        # what torchmetrics would make up has another type.
        self.images = [torch.zeros(0, dtype=torch.uint8, device=self.device)]

    def update(self, result: InstanceResult, target: MaskTarget) -> None:
        """Keep one image.

        Args:
            result: Objects with masks (N, H, W).
            target: Of one image: masks (M, H, W).

        Raises:
            ValueError: If sizes differ.
            DataError: If a class is none of the metric's.
        """
        (labels,), (masks,), (crowd,) = target.labels, target.masks, target.crowd
        if result.masks.shape[1:] != masks.shape[1:]:
            raise ValueError(
                f"masks {result.masks.shape} and truth {tuple(masks.shape)} differ in size"
            )
        true_labels: NDArray[np.int64] = labels.cpu().numpy()
        for found in (*result.labels.tolist(), *true_labels.tolist()):
            if not 0 <= found < len(self.classes):
                raise DataError(
                    f"class {found} is none of the {len(self.classes)} classes", where=result.source
                )
        record = {
            "place": len(self.images) - 1,
            "size": list(masks.shape[1:]),
            "found": _objects(result.masks, class_id=result.labels, score=result.scores),
            "truth": _objects(masks.cpu().numpy(), class_id=true_labels, crowd=crowd.cpu().numpy()),
        }
        line = np.frombuffer(json.dumps(record).encode() + b"\n", np.uint8)
        assert isinstance(self.images, list)
        self.images.append(torch.from_numpy(line.copy()).to(self.device))

    def compute(self) -> dict[str, float]:
        """Score everything seen so far.

        Returns:
            In [0, 1]: `ap`, the mean of all precisions over IoU thresholds, recalls and classes;
            `ap50` and `ap75`, those at IoU 0.50 and 0.75 alone.
        """
        precision = self._precision()
        return {
            "ap": _mean(precision) or 0.0,
            "ap50": _mean(precision[_AT_50]) or 0.0,
            "ap75": _mean(precision[_AT_75]) or 0.0,
        }

    def per_class(self) -> list[dict[str, Any]]:
        """Score every thing class; every process must call it.

        Returns:
            By class id: `name`, `ap`, `ap50` and `ap75` in [0, 1], or None for a class without
            truth.
        """
        with self.sync_context():
            precision = self._precision()
        things = [item for item in self.classes if item.thing]
        return [
            {
                "name": item.name,
                "ap": _mean(precision[..., index]),
                "ap50": _mean(precision[_AT_50, :, index]),
                "ap75": _mean(precision[_AT_75, :, index]),
            }
            for index, item in enumerate(things)
        ]

    def matrices(self) -> dict[str, tuple[NDArray[np.int64], list[str]]]:
        """Return nothing: objects are compared within their class only."""
        return {}

    def _precision(self) -> NDArray[np.float64]:
        """Return precisions (IoU thresholds, recalls, thing classes), -1 for a class without truth.

        Its state is synchronised already.
        """
        parts = [self.images] if isinstance(self.images, Tensor) else self.images
        text = b"".join(part.to(torch.uint8).cpu().numpy().tobytes() for part in parts)
        records = [json.loads(line) for line in text.splitlines()]
        records.sort(key=lambda record: int(record["place"]))  # keeps the order of the processes
        things = [index for index, item in enumerate(self.classes) if item.thing]
        return _evaluate(records, things)


def _coder() -> Any:
    """Return the module that codes masks.

    Raises:
        MissingError: pycocotools is not installed.
    """
    try:
        from pycocotools import mask
    except ImportError:
        raise MissingError(
            "average precision of masks needs the package `pycocotools`",
            fix="pip install 'rtseg[train]'",
        ) from None
    return mask


def _objects(masks: NDArray[np.bool_], **values: NDArray[Any]) -> list[dict[str, Any]]:
    """Return one entry per mask (N, H, W): its values, its area in pixels and its run lengths.

    decision: run lengths are those of the transposed masks, rows first. Areas and overlaps are the
    same, and nothing has to be copied.
    """
    if not len(masks):
        return []
    coder = _coder()
    codes = coder.encode(np.ascontiguousarray(masks).view(np.uint8).transpose(2, 1, 0))
    return [
        {name: array[index].item() for name, array in values.items()}
        | {"area": int(coder.area(code)), "counts": code["counts"].decode("ascii")}
        for index, code in enumerate(codes)
    ]


def _evaluate(records: Sequence[dict[str, Any]], things: Sequence[int]) -> NDArray[np.float64]:
    """Return precisions (IoU thresholds, recalls, things)."""
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
        truth, found = (_annotations(records, things, kind) for kind in ("truth", "found"))
        scorer = COCOeval(truth, found, "segm")
        scorer.params.areaRng, scorer.params.areaRngLbl = [[0, _LARGEST_AREA]], ["all"]
        scorer.params.maxDets = scorer.params.maxDets[-1:]
        scorer.evaluate()
        scorer.accumulate()
    precision: NDArray[np.float64] = scorer.eval["precision"][..., 0, 0]
    return precision


def _annotations(records: Sequence[dict[str, Any]], things: Sequence[int], kind: str) -> Any:
    """Return the entries `kind` of all images as pycocotools holds them; ids count from 1."""
    from pycocotools.coco import COCO

    images: list[dict[str, int]] = []
    annotations: list[dict[str, Any]] = []
    for image, record in enumerate(records, start=1):
        width_first = list(reversed(record["size"]))
        images.append({"id": image, "height": width_first[0], "width": width_first[1]})
        for item in record[kind]:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": item["class_id"],
                    "segmentation": {"size": width_first, "counts": item["counts"]},
                    "area": item["area"],
                    "iscrowd": int(item.get("crowd", False)),
                    "score": item.get("score", 0.0),
                }
            )
    holder = COCO()
    categories = [{"id": index} for index in things]
    holder.dataset = {"images": images, "annotations": annotations, "categories": categories}
    holder.createIndex()
    return holder


def _mean(precision: NDArray[np.float64]) -> float | None:
    """Average the precisions that are there; None if there are none."""
    there = precision[precision > -1]
    return float(there.mean()) if there.size else None
