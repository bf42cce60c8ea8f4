from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data.trees import HEIGHT, WIDTH, half, rgba, write_image, write_mask
from rtseg.data import bdd100k_attributes
from rtseg.data.bdd100k import Bdd100k
from rtseg.data.bdd100k_attributes import choose_frames, read_attributes
from rtseg.data.check import check_dataset
from rtseg.data.dataset import Attributed
from rtseg.data.spec import open_data
from rtseg.errors import ConfigError, DataError

FACTS = {
    "a": {"weather": "rainy", "scene": "highway", "timeofday": "night"},
    "b": {"weather": "clear", "scene": "highway", "timeofday": "daytime"},
    "c": {"weather": "rainy", "scene": "tunnel", "timeofday": "dawn/dusk"},
}
UNKNOWN = dict.fromkeys(("weather", "scene", "timeofday"), "undefined")
LISTS = (
    "labels/bdd100k_labels_images_val.json",
    "bdd100k_labels_images_val.json",
    "labels/det_20/det_val.json",
)


def entry(stem: str, **more: Any) -> dict[str, Any]:
    lane = {"category": "lane", "poly2d": [{"vertices": [[1, 2], [3, 4]], "closed": False}]}
    return {
        "name": f"{stem}.jpg",
        "attributes": FACTS[stem],
        "timestamp": 10000,
        "labels": [{"category": "car", "attributes": {"weather": "none of the frame"}}, lane],
        **more,
    }


def write_json(path: Path, document: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed, stem in enumerate("abcd"):
        write_image(tmp_path / f"val/images/{stem}.jpg", seed=seed)
        write_mask(tmp_path / f"val/segment/{stem}.png", rgba(half(0, 127)))
        write_mask(tmp_path / f"val/lane/{stem}.png", rgba(half(255, 0)))
    return tmp_path


@pytest.mark.parametrize("place", LISTS)
def test_lists_of_both_releases_give_the_attributes_of_a_frame(root: Path, place: str) -> None:
    write_json(root / place, [entry(stem) for stem in "cab"])
    dataset = Bdd100k(root, split="val", attributes=True)
    assert [dataset[index].attributes for index in range(4)] == [*FACTS.values(), UNKNOWN]
    assert isinstance(dataset, Attributed)
    assert [dataset.attributes(index) for index in range(4)] == [*FACTS.values(), UNKNOWN]
    assert dataset[0].path.endswith("a.jpg")
    assert Bdd100k(root, split="val")[0].attributes == {}


def test_single_files_give_the_attributes_of_a_frame(root: Path) -> None:
    for stem in "abc":
        frames = [{"timestamp": 10000, "objects": []}]
        document = {"name": stem, "frames": frames, "attributes": FACTS[stem]}
        write_json(root / f"labels/100k/val/{stem}.json", document)
    assert read_attributes(root, "val") == FACTS
    write_json(root / "labels/det_20/det_val.json", [entry("a")])  # a list comes first
    assert read_attributes(root, "val") == {"a": FACTS["a"]}


def test_values_that_are_missing_are_undefined(root: Path) -> None:
    odd = [entry("a", attributes=None), entry("b", attributes={"weather": "foggy", "scene": None})]
    write_json(root / LISTS[0], odd)
    assert read_attributes(root, "val") == {"a": UNKNOWN, "b": {**UNKNOWN, "weather": "foggy"}}


def test_frames_with_equal_attributes_share_them(root: Path) -> None:
    entries = [{**entry("a"), "name": f"{number}.jpg"} for number in range(50)]
    write_json(root / LISTS[0], entries)
    found = read_attributes(root, "val")
    assert len(found) == 50
    assert len({id(facts) for facts in found.values()}) == 1


@pytest.mark.parametrize("chunk", [3, 4, 5, 7, 64, 997])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_list_reads_alike_in_pieces_of_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, indent: int | None
) -> None:
    entries = [{**entry("abc"[number % 3]), "name": f"ä{number}.jpg"} for number in range(7)]
    path = tmp_path / LISTS[0]
    path.parent.mkdir(parents=True)
    path.write_text(f" \n{json.dumps(entries, indent=indent)} \n", encoding="utf-8")
    monkeypatch.setattr(bdd100k_attributes, "_CHUNK", chunk)
    found = read_attributes(tmp_path, "val")
    assert found == {f"ä{number}": FACTS["abc"[number % 3]] for number in range(7)}


def test_a_list_is_not_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    longest = 0
    decoder = json.JSONDecoder()

    class Watched(json.JSONDecoder):
        def raw_decode(self, s: str, idx: int = 0) -> tuple[Any, int]:
            nonlocal longest
            longest = max(longest, len(s))
            return decoder.raw_decode(s, idx)

    path = write_json(tmp_path / LISTS[0], [entry("abc"[number % 3]) for number in range(400)])
    monkeypatch.setattr(bdd100k_attributes, "_CHUNK", 1000)
    monkeypatch.setattr("rtseg.data.bdd100k_attributes.json.JSONDecoder", Watched)
    assert read_attributes(tmp_path, "val") == FACTS
    assert 1000 <= longest < 2500 < path.stat().st_size


def test_where_keeps_the_frames_that_are_so(root: Path) -> None:
    write_json(root / LISTS[2], [entry(stem) for stem in "abc"])
    for where, stems in (
        ({"weather": "rainy"}, "ac"),
        ({"scene": "highway", "timeofday": ["daytime", "dawn/dusk"]}, "b"),
        ({"timeofday": ["night", "undefined"]}, "ad"),
        ({}, "abcd"),
    ):
        dataset = Bdd100k(root, split="val", where=where)  # type: ignore[arg-type]
        names = [dataset.files(index)[0].stem for index in range(len(dataset))]
        assert names == list(stems), where
        if where:
            assert dataset[0].attributes == FACTS[stems[0]]
    rainy = open_data(f"bdd100k={root}", "val", options={"where": {"weather": "rainy"}})
    # Masks of frames that are left out are no strays.
    assert check_dataset(rainy).faults == ()
    assert len(rainy) == 2


def test_wishes_that_cannot_be_met_name_what_is_there() -> None:
    frames = list(FACTS.values())
    assert choose_frames(frames, {"weather": ["rainy", "clear"]}) == [0, 1, 2]
    with pytest.raises(ConfigError, match=r"attribute 'wether', which .*; did you mean 'weather'"):
        choose_frames(frames, {"wether": "rainy"})
    with pytest.raises(ConfigError, match="no frame has weather 'rain'; choose from clear, rainy"):
        choose_frames(frames, {"weather": ["rainy", "rain"]})
    with pytest.raises(DataError, match="no frame has weather clear, scene tunnel or tunnel; ask"):
        choose_frames(frames, {"weather": "clear", "scene": ["tunnel", "tunnel"]})


def test_missing_attributes_are_an_error_only_when_asked_for(root: Path) -> None:
    assert len(Bdd100k(root, split="val")) == 4
    for options in ({"attributes": True}, {"where": {"weather": "rainy"}}):
        with pytest.raises(DataError, match=r"no attributes: none of .*det_val\.json.*; put the"):
            Bdd100k(root, split="val", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it is no list"),
        ('{"frames": []}', "it is no list"),
        ("[1]", "an entry has no name"),
        ('[{"attributes": {}}]', "an entry has no name"),
        ('[{"name": 3, "attributes": {}}]', "an entry has no name"),
        ('[{"name": "a.jpg"}, {"name": "b.j', "Unterminated string"),
        ('[{"name": "a.jpg"}', "Expecting value"),
        ('[{"name": "a.jpg" "b"}]', "delimiter"),
    ],
)
def test_a_broken_list_is_named(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / LISTS[0]
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=reason) as caught:
        read_attributes(tmp_path, "val")
    assert caught.value.where == str(path)


def test_an_endless_entry_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bdd100k_attributes, "_CHUNK", 16)
    monkeypatch.setattr(bdd100k_attributes, "_LARGEST_ENTRY", 64)
    write_json(tmp_path / LISTS[0], [{"name": "a.jpg"}, {"name": "b.jpg", "labels": "x" * 9999}])
    with pytest.raises(DataError, match=r"line 1 column .* \(char \d\d?\)"):
        read_attributes(tmp_path, "val")


@pytest.mark.parametrize("text", ["", "[]", b"\xff\xfe"])
def test_a_broken_single_file_is_named(tmp_path: Path, text: str | bytes) -> None:
    path = tmp_path / "labels/100k/val/a.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(DataError, match=r"a\.json: holds no attributes that can be read"):
        read_attributes(tmp_path, "val")


def test_masks_stay_as_they_are(root: Path) -> None:
    write_json(root / LISTS[0], [entry("c")])
    sample = Bdd100k(root, split="val", where={"scene": "tunnel"})[0]
    assert sample.labels["drivable"].tolist() == half(0, 1).tolist()
    assert sample.labels["lane"].shape == (HEIGHT, WIDTH)
