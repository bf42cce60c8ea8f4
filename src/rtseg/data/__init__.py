"""Data sets, augmentation, preprocessing and data checks; `DATASETS` lists the readers by name."""

from __future__ import annotations

from collections.abc import Callable

from rtseg.data.camvid import CamVid
from rtseg.data.cityscapes import Cityscapes
from rtseg.data.dataset import Dataset
from rtseg.data.native import NativeFolder
from rtseg.data.synthetic import Synthetic

DATASETS: dict[str, Callable[..., Dataset]] = {
    "synthetic": Synthetic,
    "camvid": CamVid,
    "cityscapes": Cityscapes,
    "native": NativeFolder,
}
"""Data sets by the name a recipe uses; the other keys of its section are the keyword arguments."""
