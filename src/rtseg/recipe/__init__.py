"""Recipes: read, override, check, build everything, train.

A recipe is one complete YAML file. Each section holds the keyword arguments of one callable; dotted
overrides pass the same check. `name@row` takes a row of the model's `ablations.yaml`: overrides of
one recipe, with a published score.
"""

from __future__ import annotations

from rtseg.recipe.building import build, build_dataset
from rtseg.recipe.reading import (
    CONFIG_FILE,
    DATA_KEYS,
    SECTIONS,
    Recipe,
    list_recipes,
    read_recipe,
    recipe_folder,
    resume_recipe,
)
from rtseg.recipe.running import check_data, first_process, run, train

__all__ = [
    "CONFIG_FILE",
    "DATA_KEYS",
    "SECTIONS",
    "Recipe",
    "build",
    "build_dataset",
    "check_data",
    "first_process",
    "list_recipes",
    "read_recipe",
    "recipe_folder",
    "resume_recipe",
    "run",
    "train",
]
