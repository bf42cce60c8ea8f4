"""The 32 labels of CamVid with their colors, the 11 classes in common use, and what is drivable."""

from __future__ import annotations

from rtseg.structures import ClassInfo

# Names, order and colors as in the published list of the 11-class release.
CLASSES_11: tuple[ClassInfo, ...] = (
    ClassInfo("Sky", (128, 128, 128)),
    ClassInfo("Building", (128, 0, 0)),
    ClassInfo("Pole", (192, 192, 128)),
    ClassInfo("Road", (128, 64, 128)),
    ClassInfo("Pavement", (60, 40, 222)),
    ClassInfo("Tree", (128, 128, 0)),
    ClassInfo("SignSymbol", (192, 128, 128)),
    ClassInfo("Fence", (64, 64, 128)),
    ClassInfo("Car", (64, 0, 128), thing=True),
    ClassInfo("Pedestrian", (64, 64, 0), thing=True),
    ClassInfo("Bicyclist", (0, 128, 192), thing=True),
)
VOID_COLOR = (0, 0, 0)

# Name, color in masks, and the one of the 11 classes it is merged into: the list as published with
# the data set, without Void, and the merge in common use.
_LABELS = (
    ("Animal", (64, 128, 64), "Pedestrian"),
    ("Archway", (192, 0, 128), "Building"),
    ("Bicyclist", (0, 128, 192), "Bicyclist"),
    ("Bridge", (0, 128, 64), "Building"),
    ("Building", (128, 0, 0), "Building"),
    ("Car", (64, 0, 128), "Car"),
    ("CartLuggagePram", (64, 0, 192), "Pedestrian"),
    ("Child", (192, 128, 64), "Pedestrian"),
    ("Column_Pole", (192, 192, 128), "Pole"),
    ("Fence", (64, 64, 128), "Fence"),
    ("LaneMkgsDriv", (128, 0, 192), "Road"),
    ("LaneMkgsNonDriv", (192, 0, 64), "Road"),
    ("Misc_Text", (128, 128, 64), "SignSymbol"),
    ("MotorcycleScooter", (192, 0, 192), "Bicyclist"),
    ("OtherMoving", (128, 64, 64), "Car"),
    ("ParkingBlock", (64, 192, 128), "Pavement"),
    ("Pedestrian", (64, 64, 0), "Pedestrian"),
    ("Road", (128, 64, 128), "Road"),
    ("RoadShoulder", (128, 128, 192), "Pavement"),
    ("Sidewalk", (0, 0, 192), "Pavement"),
    ("SignSymbol", (192, 128, 128), "SignSymbol"),
    ("Sky", (128, 128, 128), "Sky"),
    ("SUVPickupTruck", (64, 128, 192), "Car"),
    ("TrafficCone", (0, 0, 64), "Pole"),
    ("TrafficLight", (0, 64, 64), "SignSymbol"),
    ("Train", (192, 64, 128), "Car"),
    ("Tree", (128, 128, 0), "Tree"),
    ("Truck_Bus", (192, 128, 192), "Car"),
    ("Tunnel", (64, 0, 64), "Building"),
    ("VegetationMisc", (192, 192, 0), "Tree"),
    ("Wall", (64, 192, 0), "Building"),
)

_THINGS = {info.name for info in CLASSES_11 if info.thing}

CLASSES_31: tuple[ClassInfo, ...] = tuple(
    ClassInfo(name, color, thing=merged in _THINGS) for name, color, merged in _LABELS
)
"""The 32 labels without Void, which is no class.

Source: "Segmentation and Recognition Using Structure from Motion Point Clouds" (Brostow et al.,
2008), whose moving objects are the things.
"""

MERGED = tuple([info.name for info in CLASSES_11].index(merged) for _, _, merged in _LABELS)
"""The id among `CLASSES_11` of each of `CLASSES_31`."""

DRIVABLE = frozenset({"Road", "LaneMkgsDriv"})
"""decision: the carriageway with the lines on it; the shoulder is not driven on."""

LANE = frozenset({"LaneMkgsDriv", "LaneMkgsNonDriv"})
"""decision: every painted line, also those that bound areas that must not be driven on."""
