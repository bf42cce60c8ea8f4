"""The 19 classes that Cityscapes is scored on, with their published colours, in train-id order."""

from __future__ import annotations

from rtseg.structures import ClassInfo

CITYSCAPES_CLASSES: tuple[ClassInfo, ...] = (
    ClassInfo("road", (128, 64, 128)),
    ClassInfo("sidewalk", (244, 35, 232)),
    ClassInfo("building", (70, 70, 70)),
    ClassInfo("wall", (102, 102, 156)),
    ClassInfo("fence", (190, 153, 153)),
    ClassInfo("pole", (153, 153, 153)),
    ClassInfo("traffic light", (250, 170, 30)),
    ClassInfo("traffic sign", (220, 220, 0)),
    ClassInfo("vegetation", (107, 142, 35)),
    ClassInfo("terrain", (152, 251, 152)),
    ClassInfo("sky", (70, 130, 180)),
    ClassInfo("person", (220, 20, 60), thing=True),
    ClassInfo("rider", (255, 0, 0), thing=True),
    ClassInfo("car", (0, 0, 142), thing=True),
    ClassInfo("truck", (0, 0, 70), thing=True),
    ClassInfo("bus", (0, 60, 100), thing=True),
    ClassInfo("train", (0, 80, 100), thing=True),
    ClassInfo("motorcycle", (0, 0, 230), thing=True),
    ClassInfo("bicycle", (119, 11, 32), thing=True),
)
"""Source: Cityscapes label definition (train ids 0 to 18, colours, `hasInstances`)."""
