"""Checkpoints: a folder that holds all that is needed to use a network again.

    model.safetensors   weights (the averaged ones if the run averages)
    config.json         architecture, classes, preprocessing, recipe, versions, scores
    README.md           model card, generated from the same facts
    train_state.pt      only while training: optimizer, position, random state (loads with
                        weights_only=True)

A folder appears as a whole or not at all: it is written under a temporary name, flushed, and
renamed.
"""

from __future__ import annotations

from rtseg.checkpoint.facts import environment, git_revision, model_card, versions
from rtseg.checkpoint.folder import (
    CONFIG,
    STATE,
    WEIGHTS,
    locate,
    parse_info,
    previous_of,
    read_info,
    read_state,
    read_weights,
    save,
)
from rtseg.checkpoint.info import FORMAT, ModelInfo
from rtseg.checkpoint.networks import (
    Checkpoint,
    class_count,
    class_layers,
    create_model,
    fill,
    list_models,
    load,
)
from rtseg.checkpoint.shipped import (
    WeightsNotice,
    find_shipped,
    list_shipped,
    sha256,
    write_sums,
    zoo_folder,
)
from rtseg.checkpoint.starting import Started, start_from

__all__ = [
    "CONFIG",
    "FORMAT",
    "STATE",
    "WEIGHTS",
    "Checkpoint",
    "ModelInfo",
    "Started",
    "WeightsNotice",
    "class_count",
    "class_layers",
    "create_model",
    "environment",
    "fill",
    "find_shipped",
    "git_revision",
    "list_models",
    "list_shipped",
    "load",
    "locate",
    "model_card",
    "parse_info",
    "previous_of",
    "read_info",
    "read_state",
    "read_weights",
    "save",
    "sha256",
    "start_from",
    "versions",
    "write_sums",
    "zoo_folder",
]
