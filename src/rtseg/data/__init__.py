"""Data sets, augmentation, preprocessing and data checks; `DATASETS` lists the readers by name."""

from __future__ import annotations

from collections.abc import Callable

from rtseg.data.acdc import Acdc
from rtseg.data.ade20k import Ade20k
from rtseg.data.bdd100k import Bdd100k
from rtseg.data.cache import Cached
from rtseg.data.camvid import CamVid
from rtseg.data.cityscapes import Cityscapes
from rtseg.data.coco_panoptic import CocoPanoptic
from rtseg.data.dataset import Dataset
from rtseg.data.image_folder import ImageFolder
from rtseg.data.labelme import Labelme
from rtseg.data.native import NativeFolder
from rtseg.data.synthetic import Synthetic
from rtseg.data.voc import Voc

DATASETS: dict[str, Callable[..., Dataset]] = {
    "synthetic": Synthetic,
    "camvid": CamVid,
    "cityscapes": Cityscapes,
    "acdc": Acdc,
    "bdd100k": Bdd100k,
    "ade20k": Ade20k,
    "voc": Voc,
    "coco_panoptic": CocoPanoptic,
    "labelme": Labelme,
    "image_folder": ImageFolder,
    "native": NativeFolder,
    "cached": Cached,
}
"""Data sets by the name a recipe uses; the other keys of its section are the keyword arguments."""
