"""The networks: one file per paper, and the table of their names."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from rtseg.models.lsa_binet import LSABiNet, dabnet

MODELS: dict[str, Callable[..., nn.Module]] = {
    "dabnet": dabnet,
    "lsa_binet": LSABiNet,
}
"""Every model by name; each builder's signature is the schema of a recipe's `model` section."""
