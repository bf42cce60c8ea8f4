"""Weather, scene and time of day of BDD100K frames, from the JSON files of the data set.

```
root/labels/bdd100k_labels_images_<split>.json      the list of 2018; also in root itself
root/labels/det_20/det_<split>.json                 the list of 2020, which lacks some frames
root/labels/100k/<split>/<frame>.json               one file per frame
```
A list holds `{"name": "<frame>.jpg", "attributes": {"weather": "rainy", ...}, "labels": ...}` for
each frame, a single file one such mapping. The first of these places that exists is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from rtseg.errors import ConfigError, DataError, nearest

ATTRIBUTES = ("weather", "scene", "timeofday")
UNKNOWN = "undefined"
"""What the data set itself writes where nobody could tell; also for frames that are not listed."""

NO_FACTS: Mapping[str, str] = dict.fromkeys(ATTRIBUTES, UNKNOWN)
"""Attributes of a frame that is not listed."""

_LISTS = (
    "labels/bdd100k_labels_images_{split}.json",
    "bdd100k_labels_images_{split}.json",
    "labels/det_20/det_{split}.json",
)
_FOLDER = "labels/100k/{split}"
_CHUNK = 1 << 20
_LARGEST_ENTRY = 1 << 26
_GAP = re.compile(r"[\s,]*")
_REMEDY = "download the labels of BDD100K again, or leave attributes and where out"
Facts = Mapping[str, str]
Wish = Mapping[str, str | list[str]]


def read_attributes(root: Path, split: str) -> dict[str, Facts]:
    """Return the attributes of every frame of a split that has any, by the stem of its image.

    Raises:
        DataError: No file of attributes is there, or it is broken.
    """
    lists = [root / name.format(split=split) for name in _LISTS]
    folder = root / _FOLDER.format(split=split)
    path = next((path for path in lists if path.is_file()), None)
    if path is None and not folder.is_dir():
        raise DataError(
            f"holds no attributes: none of {', '.join(map(str, [*lists, folder]))}",
            where=str(root),
            fix="put the label files of BDD100K there, or leave attributes and where out",
        )
    entries = _entries_of_list(path) if path else _entries_of_folder(folder)
    distinct: dict[tuple[str, ...], Facts] = {}  # some hundred, shared by all frames
    found = {}
    for stem, attributes in entries:
        facts = _facts(attributes)
        found[stem] = distinct.setdefault(tuple(facts.values()), facts)
    return found


def choose_frames(frames: Sequence[Facts], wish: Wish) -> list[int]:
    """Return the positions of the frames whose attributes are as wished.

    Args:
        frames: Attributes of each frame.
        wish: For some attributes the value, or several that all do.

    Raises:
        ConfigError: An attribute is unknown, or no frame has one of its values.
        DataError: No frame has all of it together.
    """
    wanted = {key: [value] if isinstance(value, str) else value for key, value in wish.items()}
    for key, values in wanted.items():
        if key not in ATTRIBUTES:
            close = nearest(str(key), ATTRIBUTES, count=1)[0]
            raise ConfigError(
                f"where names the attribute {key!r}, which is unknown",
                where="bdd100k",
                fix=f"did you mean {close!r}?",
            )
        known = sorted({facts[key] for facts in frames})
        for value in values:
            if value not in known:
                raise ConfigError(
                    f"no frame has {key} {value!r}",
                    where="bdd100k",
                    fix=f"choose from {', '.join(known)}",
                )
    chosen = [
        index
        for index, facts in enumerate(frames)
        if all(facts[key] in values for key, values in wanted.items())
    ]
    if not chosen:
        named = ", ".join(f"{key} {' or '.join(values)}" for key, values in wanted.items())
        raise DataError(f"no frame has {named}", where="bdd100k", fix="ask for less at once")
    return chosen


def _facts(attributes: Any) -> dict[str, str]:
    given = attributes if isinstance(attributes, dict) else {}
    return {key: str(given.get(key) or UNKNOWN) for key in ATTRIBUTES}


def _entries_of_folder(folder: Path) -> Iterator[tuple[str, Any]]:
    """Yield stem and attributes of every file of a folder."""
    for path in sorted(folder.glob("*.json")):
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise _broken(path, error) from None
        if not isinstance(entry, dict):
            raise _broken(path, "it is no mapping")
        yield path.stem, entry.get("attributes")


def _entries_of_list(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield stem and attributes of every frame of a list."""
    try:
        with path.open(encoding="utf-8") as stream:
            for entry in _stream(stream):
                if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
                    raise ValueError("an entry has no name")
                yield Path(entry["name"]).stem, entry.get("attributes")
    except (OSError, ValueError) as error:
        raise _broken(path, error) from None


def _stream(stream: TextIO) -> Iterator[Any]:
    """Yield the entries of a JSON list, or raise a `ValueError`.

    One entry is decoded at a time: the list of 2018 has more than a gigabyte, of which a few
    megabytes are wanted.
    """
    decode = json.JSONDecoder().raw_decode
    text = stream.read(_CHUNK).lstrip()
    if not text.startswith("["):
        raise ValueError("it is no list")
    position = 1
    while True:
        position = _skip(text, position)
        if text.startswith("]", position):
            return
        try:
            entry, position = decode(text, position)
        except ValueError:  # cut off, or broken
            rest = len(text) - position
            more = stream.read(max(_CHUNK, rest)) if rest < _LARGEST_ENTRY else ""
            if not more:
                raise
            text, position = text[position:] + more, 0
        else:
            yield entry


def _skip(text: str, position: int) -> int:
    """Return where the next entry begins."""
    gap = _GAP.match(text, position)
    return gap.end() if gap else position


def _broken(path: Path, reason: object) -> DataError:
    return DataError(
        f"holds no attributes that can be read ({reason})", where=str(path), fix=_REMEDY
    )
