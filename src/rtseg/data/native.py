"""The native folder layout: images, masks with the same stem, and a `data.yaml` about their values.

```
mydata/data.yaml
mydata/images/train  images/val          one image file per sample
mydata/masks/train   masks/val           one mask per image; with several kinds masks/<kind>/train
mydata/masks/panoptic/train.json         the segments of panoptic masks, beside their folder
mydata/attributes/train.json             if wanted: {"<stem>": {"weather": "rain"}, ...}
```
```yaml
path: .                                  # folder of images/ and masks/, relative to this file
splits: [train, val]
classes:
  0: {name: road, color: [128, 64, 128]}
  1: {name: car, color: [0, 0, 142], thing: true}
labels: [semantic]                       # kinds: semantic, drivable, lane, panoptic
ignore_index: 255                        # always; other void values go through label_map
label_map: {7: 0, 26: 1, 0: ignore}      # raw value to class id; without it they are equal
unmapped: error                          # or ignore: what a raw value without an entry is
color_map: {"128,64,128": 0}             # instead of label_map, for RGB masks
min_size: 32                             # smallest height and width in pixels
max_pixels: 20000000                     # largest height times width
```
With several kinds, `label_map` and `color_map` may hold one map per kind. The raw value 255 is
ignore unless `label_map` says otherwise (lane masks of 0 and 255 need `label_map: {0: 0, 255: 1}`);
`drivable` and `lane` have the labels 0 and 1.

Panoptic masks are RGB pictures of segment ids, id = R + 256 G + 65536 B, 0 = void. One JSON file
per split, named like the folder of the masks and beside it, says what the segments are:
```json
{"annotations": [{"file_name": "a.png", "segments_info": [
    {"id": 7, "category_id": 1, "iscrowd": 0, "area": 480}, ...]}, ...]}
```
It may be a whole file of the COCO panoptic format (`panoptic_png.py`); nothing else in it is read.
A category is a class id, or a raw value of `label_map` (`ignore` makes the segment void). Mask and
file must agree: every id of the one stands in the other, once, and with its area if that is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from rtseg import config
from rtseg.data.files import (
    LabelReader,
    LabelTable,
    Limits,
    list_images,
    pack_color,
    read_sample,
)
from rtseg.data.json_file import load_json
from rtseg.data.panoptic_table import PanopticTable, load_table
from rtseg.errors import ConfigError, DataError, nearest
from rtseg.structures import IGNORE_INDEX, ClassInfo, Sample

KINDS = ("semantic", "drivable", "lane", "panoptic")
"""Label kinds that a native folder can offer."""

_MAX_CLASSES = 255  # ids 0..254; 255 is ignore
_MAX_RAW = (1 << 16) - 1


@dataclass(frozen=True)
class Description:
    """The checked content of a `data.yaml`: classes by id, one table per label kind.

    The table of `panoptic` is that of the categories of segments.
    """

    root: Path
    splits: tuple[str, ...]
    classes: tuple[ClassInfo, ...]
    tables: Mapping[str, LabelTable] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)


class NativeFolder:
    """Images and masks of one split of a folder with a `data.yaml` (layout: top of this module).

    Args:
        root: Folder that holds `data.yaml`, or that file.
        split: One of the splits of `data.yaml`.
        kinds: Which of its label kinds to read; None for all.

    Raises:
        ConfigError: `data.yaml` is wrong, or the split or a kind is not in it.
        DataError: `data.yaml` or the images are missing, or a JSON file is missing or broken.
    """

    def __init__(self, root: str | Path, *, split: str, kinds: Sequence[str] | None = None) -> None:
        path = Path(root)
        file = path if path.suffix in {".yaml", ".yml"} else path / "data.yaml"
        described = load_description(file)
        _require_known([split], described.splits, what="split", where=file)
        offered = tuple(described.tables)
        self.kinds = tuple(offered if kinds is None else kinds)
        _require_known(self.kinds, offered, what="label kind", where=file)
        self.classes = described.classes
        self.limits = described.limits
        folder = described.root / "images" / split
        self._images = list_images(folder)
        if not self._images:
            fix = "put the images there, or correct path and splits in data.yaml"
            raise DataError("holds no images", where=str(folder), fix=fix)
        masks = described.root / "masks"
        several = len(offered) > 1
        self._folders = {k: masks / k / split if several else masks / split for k in self.kinds}
        self._attributes = _load_attributes(described.root / "attributes" / f"{split}.json")
        self.tables: Mapping[str, LabelReader] = {
            kind: _panoptic(place, described.tables[kind])
            if kind == "panoptic"
            else described.tables[kind]
            for kind, place in self._folders.items()
        }
        listed = {kind: list_images(place) for kind, place in self._folders.items()}
        self._masks = {
            kind: {path.stem: path for path in reversed(found)} for kind, found in listed.items()
        }
        stems = {path.stem for path in self._images}
        self._strays = tuple(
            path
            for kind, found in listed.items()
            for path in found
            if path.stem not in stems or self._masks[kind][path.stem] != path
        )

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int, /) -> Sample:
        files = self.files(index)
        sample = read_sample(files, self.tables, limits=self.limits)
        sample = replace(sample, attributes=self.attributes(index))
        for table, path in zip(self.tables.values(), files[1:], strict=True):
            if isinstance(table, PanopticTable):
                sample = replace(sample, segments=table.segments(path))
        return sample

    def files(self, index: int, /) -> tuple[Path, ...]:
        """Return the image and then the mask of each kind; a missing one is named as a PNG."""
        image = self._images[index]
        masks = [
            self._masks[kind].get(image.stem, folder / f"{image.stem}.png")
            for kind, folder in self._folders.items()
        ]
        return (image, *masks)

    def attributes(self, index: int, /) -> Mapping[str, str]:
        """Return what is known about the scene of a sample."""
        return self._attributes.get(self._images[index].stem, {})

    def strays(self) -> tuple[Path, ...]:
        """Return masks without an image, and second masks of an image."""
        return self._strays


def _panoptic(folder: Path, categories: LabelTable) -> PanopticTable:
    file = folder.with_name(f"{folder.name}.json")
    return load_table(file, folder, categories.values, unmapped=categories.unmapped)


def _load_attributes(file: Path) -> dict[str, dict[str, str]]:
    """Return the attributes of images by stem; none if there is no such file."""
    if not file.is_file():
        return {}
    content = load_json(file)
    if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
        fix = 'write {"<stem>": {"weather": "rain"}, ...}'
        raise DataError("holds no attributes by image", where=str(file), fix=fix)
    return {
        stem: {str(key): str(value) for key, value in entry.items()}
        for stem, entry in content.items()
    }


def load_description(file: Path) -> Description:
    """Read and check a `data.yaml`.

    Raises:
        DataError: The file is missing.
        ConfigError: It is no YAML mapping, or a key or value does not fit; every bad key is named.
    """
    try:
        loaded = OmegaConf.to_container(OmegaConf.load(file), resolve=True)
    except OSError as error:
        raise DataError(
            f"cannot be read ({error.strerror})",
            where=str(file),
            fix="set root to a folder that holds a data.yaml",
        ) from None
    except (YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(
            f"is no valid YAML: {error}", where=str(file), fix="correct that line"
        ) from None
    if not isinstance(loaded, dict):
        fix = "write keys such as splits and classes"
        raise ConfigError("is not a mapping", where=str(file), fix=fix)
    options = {str(key): value for key, value in loaded.items()}
    try:
        return config.call(_describe, options, file.parent, section="data.yaml")
    except ConfigError as error:
        raise ConfigError(error.what, where=str(file), fix=error.fix) from None


def _describe(
    folder: Path,
    *,
    splits: list[str],
    classes: dict[int, Any] | None = None,
    path: str = ".",
    labels: Sequence[str] = ("semantic",),
    ignore_index: int = IGNORE_INDEX,
    label_map: dict[Any, Any] | None = None,
    color_map: dict[str, Any] | None = None,
    unmapped: Literal["error", "ignore"] = "error",
    min_size: int | None = None,
    max_pixels: int | None = None,
) -> Description:
    """Build a description from the keys of a `data.yaml` that lies in `folder`."""
    if ignore_index != IGNORE_INDEX:
        raise ConfigError(
            f"data.yaml.ignore_index is {ignore_index}, but 255 is the only ignore value",
            fix=f"remove it and write `label_map: {{{ignore_index}: ignore, ...}}`",
        )
    if not splits or not labels:
        raise ConfigError("splits and labels must not be empty", fix="name at least one of each")
    _require_known(labels, KINDS, what="label kind", where=Path("data.yaml.labels"))
    infos = _classes(classes or {})
    if not infos and ("semantic" in labels or "panoptic" in labels):
        raise ConfigError(
            "data.yaml.classes is missing", fix="give `0: {name: ..., color: [r, g, b]}`"
        )
    tables = {}
    for kind in labels:
        count = len(infos) if kind in ("semantic", "panoptic") else 2
        index_map = _for_kind(label_map, kind, labels)
        colors = _for_kind(color_map, kind, labels)
        tables[kind] = _table(index_map, colors, count=count, unmapped=unmapped, kind=kind)
    return Description(
        root=folder / path,
        splits=tuple(splits),
        classes=infos,
        tables=tables,
        limits=Limits(min_size=min_size, max_pixels=max_pixels),
    )


def _classes(entries: Mapping[int, Any]) -> tuple[ClassInfo, ...]:
    if sorted(entries) != list(range(len(entries))) or len(entries) > _MAX_CLASSES:
        raise ConfigError(
            f"data.yaml.classes has the ids {sorted(entries)[:20]}",
            fix="number them 0, 1, 2, ... without a gap, at most 255",
        )
    infos = []
    for index in range(len(entries)):
        section = f"data.yaml.classes.{index}"
        entry = entries[index]
        if not isinstance(entry, Mapping):
            raise ConfigError(f"{section} is {entry!r}", fix="write {name: ..., color: [r, g, b]}")
        info = config.call(ClassInfo, entry, section=section)
        if not all(0 <= channel <= 255 for channel in info.color):
            raise ConfigError(f"{section}.color is {info.color}", fix="use numbers from 0 to 255")
        infos.append(info)
    return tuple(infos)


def _for_kind(
    mapping: Mapping[Any, Any] | None, kind: str, kinds: Sequence[str]
) -> Mapping[Any, Any] | None:
    """Return the map of one kind: the whole mapping, or its entry if it holds one map per kind."""
    if mapping is None or not any(isinstance(value, Mapping) for value in mapping.values()):
        return mapping
    _require_known([str(key) for key in mapping], kinds, what="label kind", where=Path("data.yaml"))
    chosen = mapping.get(kind)
    if chosen is not None and not isinstance(chosen, Mapping):
        raise ConfigError(f"the map of {kind} is {chosen!r}", fix="write {raw value: class id}")
    return chosen


def _table(
    index_map: Mapping[Any, Any] | None,
    color_map: Mapping[Any, Any] | None,
    *,
    count: int,
    unmapped: Literal["error", "ignore"],
    kind: str,
) -> LabelTable:
    if index_map is not None and color_map is not None:
        fix = "keep color_map for RGB masks, label_map for all others"
        raise ConfigError(f"{kind} has both label_map and color_map", fix=fix)
    if color_map is not None and kind == "panoptic":
        fix = "write color_map: {semantic: {...}} for the other masks"
        raise ConfigError("color_map does not apply to panoptic masks", fix=fix)
    if color_map is not None:
        values = {_raw_color(raw): _label(label, count) for raw, label in color_map.items()}
        if not values:
            raise ConfigError("data.yaml.color_map is empty", fix="list every colour of the masks")
        remedy = "add it to color_map in data.yaml, or write `unmapped: ignore` there"
        return LabelTable(values, color=True, unmapped=unmapped, remedy=remedy)
    if index_map is None:
        values = {index: index for index in range(count)}
        fix = f"use 0..{count - 1} and 255 (ignore), or write a label_map in data.yaml"
    else:
        values = {_raw_value(raw): _label(label, count) for raw, label in index_map.items()}
        fix = "add it to label_map in data.yaml, or write `unmapped: ignore` there"
    return LabelTable({IGNORE_INDEX: IGNORE_INDEX, **values}, unmapped=unmapped, remedy=fix)


def _raw_value(raw: Any) -> int:
    if isinstance(raw, int) and not isinstance(raw, bool) and 0 <= raw <= _MAX_RAW:
        return raw
    raise ConfigError(
        f"data.yaml.label_map has the raw value {raw!r}", fix=f"use integers from 0 to {_MAX_RAW}"
    )


def _raw_color(raw: Any) -> int:
    try:
        channels = [int(part) for part in str(raw).split(",")]
    except ValueError:
        channels = []
    if len(channels) != 3 or not all(0 <= channel <= 255 for channel in channels):
        raise ConfigError(
            f"data.yaml.color_map has the colour {raw!r}",
            fix='write it as "red,green,blue", 0 to 255',
        )
    return pack_color(*channels)


def _label(label: Any, count: int) -> int:
    if label == "ignore":
        return IGNORE_INDEX
    if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < count:
        return label
    raise ConfigError(
        f"data.yaml maps a raw value to {label!r}", fix=f"use a class id 0..{count - 1} or `ignore`"
    )


def _require_known(names: Sequence[str], known: Sequence[str], *, what: str, where: Path) -> None:
    for name in names:
        if name not in known:
            close = ", ".join(nearest(str(name), known))
            raise ConfigError(
                f"{what} {name!r} is unknown", where=str(where), fix=f"did you mean: {close}?"
            )
