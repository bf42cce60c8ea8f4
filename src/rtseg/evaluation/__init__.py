"""A network, a task and batches in, scores out; tables, pictures and one page of them."""

from __future__ import annotations

from rtseg.evaluation.images import ImageScores, Shown
from rtseg.evaluation.running import CLASS_KINDS, Visitor, evaluate, score
from rtseg.evaluation.tally import Evaluation, Group
from rtseg.evaluation.writing import write_evaluation, write_report

__all__ = [
    "CLASS_KINDS",
    "Evaluation",
    "Group",
    "ImageScores",
    "Shown",
    "Visitor",
    "evaluate",
    "score",
    "write_evaluation",
    "write_report",
]
