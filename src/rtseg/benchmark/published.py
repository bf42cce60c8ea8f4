"""What the papers print about the size and cost of their networks, and how to count the same.

A figure without its input size, its number of classes and its way of counting cannot be compared
with anything; here each has all three, and the place where it stands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn

from rtseg.benchmark.complexity import Complexity
from rtseg.benchmark.rules_bisegunet import effective_flops, effective_parameters
from rtseg.benchmark.rules_fvcore import fvcore_operations, fvcore_panoptic_operations
from rtseg.benchmark.rules_twinmixing import published_flops

Size = tuple[int, int]
PARAMETERS = "parameters"
SUFFIXES = {"K": 1e3, "M": 1e6, "G": 1e9}


class Rule(NamedTuple):
    """A way of counting: what it counts, and the function that does.

    `function(model, input_size, measured)`: `measured` is what `measure` gives for the same model.
    """

    meaning: str
    function: Callable[[Any, Size, Complexity], float]


RULES = {
    PARAMETERS: Rule("parameters that evaluation needs", lambda _m, _s, base: base.parameters),
    "multiply-adds": Rule(
        "multiply-adds of convolutions and matrix products", lambda _m, _s, base: base.macs
    ),
    "flops": Rule("twice the multiply-adds", lambda _m, _s, base: 2 * base.macs),
    "lsa_binet": Rule(
        "multiply-adds, 4 per element of a batch norm, 1 per element of a PReLU",
        lambda _m, _s, base: base.operations,
    ),
    "twinmixing": Rule(
        "as the tool thop counts: no matrix products, transposed convolutions four times",
        lambda model, size, _b: published_flops(model, size),
    ),
    "fvcore": Rule(
        "multiply-adds, norms and resizes as the tool fvcore counts, without the queries times "
        "keys of masked attention",
        lambda model, size, _b: fvcore_operations(model, size),
    ),
    "fvcore, panoptic": Rule(
        "the same, and the resize of all masks to the image",
        lambda model, size, _b: fvcore_panoptic_operations(model, size),
    ),
    "effective parameters": Rule(
        "parameters, of which a binary weight counts 1/32",
        lambda model, _s, _b: effective_parameters(model),
    ),
    "effective flops": Rule(
        "twice the multiply-adds, of which a binary one counts 1/64",
        lambda model, size, _b: effective_flops(model, size),
    ),
}
"""By the name that a figure gives."""


class Figure(NamedTuple):
    """One printed number.

    `printed`: as the paper has it, its unit as suffix. `rule`: key of `RULES`. `source`: place in
    the paper. `input_size`: (H, W). `num_classes`: None where a network has none. `note`: why our
    count differs in the printed digits; "" where it does not.
    """

    printed: str
    rule: str
    source: str
    input_size: Size
    num_classes: int | None
    note: str = ""

    @property
    def value(self) -> float:
        """The number without suffix."""
        number, suffix = self.printed.split()
        return float(number) * SUFFIXES[suffix]

    def counted(self, model: nn.Module, measured: Complexity) -> float:
        """Count the same of a network, built with as many classes."""
        return RULES[self.rule].function(model, self.input_size, measured)

    def deviation(self, counted: float) -> float:
        """Return by how many percent a count lies above the printed number."""
        return 100 * (counted / self.value - 1)


class Published(NamedTuple):
    """Where a network is counted, and what its paper prints, the main figures first."""

    input_size: Size
    num_classes: int | None
    figures: tuple[Figure, ...] = ()

    def main(self, *, parameters: bool) -> Figure | None:
        """Return the first figure for parameters, or the first for cost."""
        mine = [item for item in self.figures if (item.rule == PARAMETERS) == parameters]
        return mine[0] if mine else None


CITYSCAPES, HALF, CAMVID = (1024, 2048), (512, 1024), (360, 480)
ROAD = (384, 640)
IMAGENET = Published((224, 224), 1000)
ELSEWHERE = Published(HALF, 19)
"""Of networks that stand in no table."""
Place = tuple[str, Size, int | None]
"""Table, input size and number of classes."""


def _pair(
    parameters: str, cost: str, rule: str, place: Place, *, note: str = ""
) -> tuple[Figure, ...]:
    return Figure(parameters, PARAMETERS, *place), Figure(cost, rule, *place, note)


def _bisenetformer(cityscapes: tuple[Figure, ...], *others: tuple[Figure, ...]) -> Published:
    return Published(CITYSCAPES, 19, (*cityscapes, *(item for pair in others for item in pair)))


_NOT_REACHED = "no size that the paper lists gives it; B costs 3.7 times S, not 1.5 times"
_NEAREST_GROUPS = "the groups of the convolutions are not printed; ours come nearest"
_SAME_AT_ANY_SIZE = "a network has as many parameters at any size"
_FOUR_TIMES = "four times the pixels cost at least four times as much"

PUBLISHED = {
    "lsa_binet": Published(
        CAMVID,
        11,
        (
            *_pair("1.84 M", "8.81 G", "lsa_binet", ("table 4", CAMVID, 11)),
            Figure(
                "8.81 G", "lsa_binet", "table 1", HALF, 19,
                "printed for 512x1024 as well, but it is the cost at 360x480",
            ),
        ),
    ),
    "dabnet": Published(
        CAMVID,
        11,
        (
            Figure("0.75 M", PARAMETERS, "LSA-BiNet, table 4", CAMVID, 11),
            Figure(
                "20.9 G", "flops", "LSA-BiNet, tables 1, 3, 4", HALF, 19,
                "printed for every size; the nearest count is twice the multiply-adds at 512x1024",
            ),
            Figure("0.76 M", PARAMETERS, "LSA-BiNet, table 1", HALF, 19),
        ),
    ),
    "twinmixing_nano": Published(ROAD, None),
    "twinmixing_tiny": Published(
        ROAD, None, _pair("98.2 K", "1.084 G", "twinmixing", ("table 8", ROAD, None))
    ),
    "twinmixing_base": Published(
        ROAD, None, _pair("0.43 M", "3.95 G", "twinmixing", ("table 1", ROAD, None))
    ),
    "twinmixing_large": Published(
        ROAD, None, _pair("1.50 M", "14.25 G", "twinmixing", ("table 1", ROAD, None))
    ),
    "bisenetformer_stdc1": _bisenetformer(
        _pair("13.1 M", "56 G", "fvcore", ("table 1", CITYSCAPES, 19)),
        _pair("13.1 M", "8 G", "fvcore", ("table 2", (512, 512), 150)),
    ),
    "bisenetformer_stdc2": _bisenetformer(
        _pair("17.1 M", "82 G", "fvcore", ("table 1", CITYSCAPES, 19)),
        _pair("17.2 M", "11 G", "fvcore", ("table 2", (512, 512), 150)),
        _pair("17.1 M", "83 G", "fvcore, panoptic", ("table 3", CITYSCAPES, 19)),
        _pair("17.2 M", "17 G", "fvcore, panoptic", ("table 4", (640, 640), 150)),
    ),
    "bisenetformer_r50": _bisenetformer(
        _pair("31.7 M", "199 G", "fvcore, panoptic", ("table 3", CITYSCAPES, 19)),
        (
            Figure(
                "31.6 M", PARAMETERS, "table 4", (640, 640), 150,
                "31,631,063 without the affine values of norms, which are frozen on ADE20K",
            ),
            Figure("39 G", "fvcore, panoptic", "table 4", (640, 640), 150),
        ),
    ),
    "stdc1_classifier": IMAGENET,
    "stdc2_classifier": IMAGENET,
    "bisegunet": Published(
        HALF,
        19,
        (
            *_pair("18.5 M", "194.7 G", "flops", ("table 3", HALF, 19), note=_NEAREST_GROUPS),
            Figure("4.3 M", "effective parameters", "table 3", HALF, 19, _NEAREST_GROUPS),
            Figure("10.4 G", "effective flops", "table 3", HALF, 19, _NEAREST_GROUPS),
            Figure("23.4 M", PARAMETERS, "table 3", CITYSCAPES, 19, _SAME_AT_ANY_SIZE),
            Figure("390.3 G", "flops", "table 3", CITYSCAPES, 19, _FOUR_TIMES),
            Figure("6.7 M", "effective parameters", "table 3", CITYSCAPES, 19, _SAME_AT_ANY_SIZE),
            Figure("27.5 G", "effective flops", "table 3", CITYSCAPES, 19, _FOUR_TIMES),
        ),
    ),
    "bisegunet_s2": Published(HALF, 19),
    "bisegunet_half": Published(HALF, 19),
    "bisegunet_edge": Published(HALF, 19),
    "bsdnet_s": Published(
        CITYSCAPES,
        19,
        _pair(
            "4.4 M", "31.6 G", "multiply-adds", ("table 1", CITYSCAPES, 19),
            note="printed at 512x1024 and 768x1536; multiply-adds at 1024x2048 are nearest",
        ),
    ),
    "bsdnet_b": Published(
        CITYSCAPES,
        19,
        _pair("16.1 M", "48.1 G", "multiply-adds", ("table 1", CITYSCAPES, 19), note=_NOT_REACHED),
    ),
    "sctnet_s": Published(
        CITYSCAPES,
        19,
        _pair(
            "4.7 M", "33.7 G", "multiply-adds", ("BSDNet, table 1", CITYSCAPES, 19),
            note="printed at 768x1536; multiply-adds at 1024x2048 are nearest",
        ),
    ),
    "sctnet_b": Published(
        CITYSCAPES,
        19,
        _pair(
            "17.4 M", "48.3 G", "multiply-adds", ("BSDNet, table 1", CITYSCAPES, 19),
            note=_NOT_REACHED,
        ),
    ),
    "bsdnet_s_classifier": IMAGENET,
    "bsdnet_b_classifier": IMAGENET,
}  # fmt: skip
"""By name of the network."""
