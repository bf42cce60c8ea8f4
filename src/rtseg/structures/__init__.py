"""The shared types: of models, data sets, losses and metrics, and what users get.

Every tensor shape is written (B, C, H, W). Label maps hold class ids 0..C-1 and `IGNORE_INDEX`
where nothing is known.
"""

from __future__ import annotations

from rtseg.structures.mask_results import InstanceResult, PanopticResult
from rtseg.structures.outputs import (
    ClassificationOutput,
    ClassMapOutput,
    MaskOutput,
    RoadLaneMapOutput,
    RoadLaneOutput,
    SemanticOutput,
)
from rtseg.structures.result import Result
from rtseg.structures.results import (
    ROAD_LANE_KINDS,
    ROAD_LANE_PALETTE,
    ClassificationResult,
    RoadLaneResult,
)
from rtseg.structures.samples import (
    IGNORE_INDEX,
    Batch,
    ClassificationTarget,
    ClassInfo,
    ImageMeta,
    MaskTarget,
    RoadLaneTarget,
    Sample,
    Segment,
    SemanticTarget,
)
from rtseg.structures.semantic_result import SemanticResult

__all__ = [
    "IGNORE_INDEX",
    "ROAD_LANE_KINDS",
    "ROAD_LANE_PALETTE",
    "Batch",
    "ClassInfo",
    "ClassMapOutput",
    "ClassificationOutput",
    "ClassificationResult",
    "ClassificationTarget",
    "ImageMeta",
    "InstanceResult",
    "MaskOutput",
    "MaskTarget",
    "PanopticResult",
    "Result",
    "RoadLaneMapOutput",
    "RoadLaneOutput",
    "RoadLaneResult",
    "RoadLaneTarget",
    "Sample",
    "Segment",
    "SemanticOutput",
    "SemanticResult",
    "SemanticTarget",
]
