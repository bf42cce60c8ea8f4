"""The networks: one file per paper, and the table of their names."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from rtseg.models.bisegunet import BiSegUNet, bisegunet_edge, bisegunet_half, bisegunet_s2
from rtseg.models.bisenetformer import (
    bisenetformer_r50,
    bisenetformer_stdc1,
    bisenetformer_stdc2,
)
from rtseg.models.bsdnet import (
    bsdnet_b,
    bsdnet_b_classifier,
    bsdnet_s,
    bsdnet_s_classifier,
    sctnet_b,
    sctnet_s,
)
from rtseg.models.lsa_binet import LSABiNet, dabnet
from rtseg.models.stdc import stdc1_classifier, stdc2_classifier
from rtseg.models.twinmixing import (
    twinmixing_base,
    twinmixing_large,
    twinmixing_nano,
    twinmixing_tiny,
)

MODELS: dict[str, Callable[..., nn.Module]] = {
    "bisegunet": BiSegUNet,
    "bisegunet_edge": bisegunet_edge,
    "bisegunet_half": bisegunet_half,
    "bisegunet_s2": bisegunet_s2,
    "bisenetformer_r50": bisenetformer_r50,
    "bisenetformer_stdc1": bisenetformer_stdc1,
    "bisenetformer_stdc2": bisenetformer_stdc2,
    "bsdnet_b": bsdnet_b,
    "bsdnet_b_classifier": bsdnet_b_classifier,
    "bsdnet_s": bsdnet_s,
    "bsdnet_s_classifier": bsdnet_s_classifier,
    "dabnet": dabnet,
    "lsa_binet": LSABiNet,
    "sctnet_b": sctnet_b,
    "sctnet_s": sctnet_s,
    "stdc1_classifier": stdc1_classifier,
    "stdc2_classifier": stdc2_classifier,
    "twinmixing_base": twinmixing_base,
    "twinmixing_large": twinmixing_large,
    "twinmixing_nano": twinmixing_nano,
    "twinmixing_tiny": twinmixing_tiny,
}
"""Every model by name; each builder's signature is the schema of a recipe's `model` section."""
