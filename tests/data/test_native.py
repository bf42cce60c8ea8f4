from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.broken import DESCRIPTION, HEIGHT, WIDTH, clean_mask, write_clean
from rtseg.data.dataset import DiskDataset
from rtseg.data.files import Limits
from rtseg.data.native import NativeFolder, load_description
from rtseg.data.weights import class_statistics
from rtseg.errors import ConfigError, DataError
from rtseg.structures import ClassInfo


def describe(folder: Path, text: str) -> Path:
    path = folder / "data.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


MINIMAL = (
    "splits: [train]\nclasses: {0: {name: a, color: [1, 2, 3]}, 1: {name: b, color: [4, 5, 6]}}\n"
)


# ---------------------------------------------------------------- reading
def test_folder_yields_pairs_by_stem_with_mapped_labels(tmp_path: Path) -> None:
    root = write_clean(tmp_path)
    dataset = NativeFolder(root, split="train")
    assert isinstance(dataset, DiskDataset)
    assert len(dataset) == 3
    assert dataset.kinds == ("semantic",)
    assert dataset.classes[1] == ClassInfo("car", (0, 0, 142), thing=True)
    assert dataset.limits == Limits(min_size=16, max_pixels=5000)
    assert dataset.files(1) == (root / "images/train/b.png", root / "masks/train/b.png")
    sample = dataset[1]
    stored = np.asarray(Image.open(root / "images/train/b.png"))
    np.testing.assert_array_equal(sample.image, stored)
    # Raw 0 is class 1 and raw 1 class 0: a map applied twice would undo itself.
    expected = np.repeat([1, 0, 2, 255], [10, 10, 15, 5])
    np.testing.assert_array_equal(sample.labels["semantic"], np.tile(expected, (HEIGHT, 1)))
    assert sample.labels["semantic"].dtype == np.uint8


def test_root_may_be_the_yaml_file_and_path_may_lead_elsewhere(tmp_path: Path) -> None:
    write_clean(tmp_path / "files")
    (tmp_path / "about").mkdir()
    path = describe(tmp_path / "about", DESCRIPTION + "path: ../files\n")
    dataset = NativeFolder(path, split="val")
    assert [dataset.files(index)[0].name for index in range(len(dataset))] == ["d.png", "e.png"]


def test_image_and_mask_may_have_different_suffixes(tmp_path: Path) -> None:
    describe(tmp_path, MINIMAL)
    save(tmp_path / "images/train/x.jpg", np.zeros((4, 4, 3), dtype=np.uint8))
    mask = save(tmp_path / "masks/train/x.tif", np.ones((4, 4), dtype=np.uint8))
    dataset = NativeFolder(tmp_path, split="train")
    assert dataset.files(0)[1] == mask
    assert (dataset[0].labels["semantic"] == 1).all()


def test_without_label_map_values_are_class_ids_and_255_is_ignored(tmp_path: Path) -> None:
    describe(tmp_path, MINIMAL)
    save(tmp_path / "images/train/x.png", np.zeros((1, 3, 3), dtype=np.uint8))
    mask = tmp_path / "masks/train/x.png"
    save(mask, np.array([[0, 1, 255]], dtype=np.uint8))
    dataset = NativeFolder(tmp_path, split="train")
    assert dataset[0].labels["semantic"].tolist() == [[0, 1, 255]]
    save(mask, np.array([[0, 2, 254]], dtype=np.uint8))
    with pytest.raises(DataError, match=r"masks/train/x\.png.* 2 254; use 0\.\.1 and 255"):
        dataset[0]


def test_unmapped_values_are_ignored_only_if_the_description_says_so(tmp_path: Path) -> None:
    root = write_clean(tmp_path)
    raw = clean_mask()
    raw[0, 0] = 200
    save(root / "masks/train/a.png", raw)
    with pytest.raises(DataError, match=r"200; add it to label_map in data\.yaml"):
        NativeFolder(root, split="train")[0]
    describe(root, DESCRIPTION + "unmapped: ignore\n")
    labels = NativeFolder(root, split="train")[0].labels["semantic"]
    assert labels[0, 0] == 255
    assert labels[0, 1] == 1


def test_16_bit_masks_are_mapped(tmp_path: Path) -> None:
    describe(tmp_path, MINIMAL + "label_map: {26000: 1, 7: 0, 0: ignore}\n")
    save(tmp_path / "images/train/x.png", np.zeros((1, 3, 3), dtype=np.uint8))
    save(tmp_path / "masks/train/x.png", np.array([[0, 7, 26000]], dtype=np.uint16))
    labels = NativeFolder(tmp_path, split="train")[0].labels["semantic"]
    assert labels.tolist() == [[255, 0, 1]]


def test_rgb_masks_are_read_through_the_colour_map(tmp_path: Path) -> None:
    text = 'color_map: {"128,64,128": 0, "0, 0, 142": 1, "0,0,0": ignore}\n'
    describe(tmp_path, MINIMAL + text)
    save(tmp_path / "images/train/x.png", np.zeros((1, 3, 3), dtype=np.uint8))
    colors = np.array([[[0, 0, 142], [128, 64, 128], [0, 0, 0]]], dtype=np.uint8)
    save(tmp_path / "masks/train/x.png", colors)
    labels = NativeFolder(tmp_path, split="train")[0].labels["semantic"]
    assert labels.tolist() == [[1, 0, 255]]


def test_several_kinds_lie_in_one_folder_each_and_can_be_chosen(tmp_path: Path) -> None:
    maps = "label_map: {drivable: {0: 0, 127: 1}, lane: {0: 0, 255: 1}}\n"
    describe(tmp_path, "splits: [train]\nlabels: [drivable, lane]\n" + maps)
    save(tmp_path / "images/train/x.png", np.zeros((1, 2, 3), dtype=np.uint8))
    save(tmp_path / "masks/drivable/train/x.png", np.array([[127, 255]], dtype=np.uint8))
    save(tmp_path / "masks/lane/train/x.png", np.array([[0, 255]], dtype=np.uint8))
    sample = NativeFolder(tmp_path, split="train")[0]
    assert sample.labels["drivable"].tolist() == [[1, 255]]
    assert sample.labels["lane"].tolist() == [[0, 1]]
    both = NativeFolder(tmp_path, split="train")
    assert class_statistics(both, kind="drivable").pixels == (0, 1)
    assert class_statistics(both, kind="lane").pixels == (1, 1)
    lane = NativeFolder(tmp_path, split="train", kinds=["lane"])
    assert list(lane[0].labels) == ["lane"]
    assert lane.files(0)[1:] == (tmp_path / "masks/lane/train/x.png",)
    with pytest.raises(ConfigError, match="label kind 'lanes' is unknown; did you mean: lane"):
        NativeFolder(tmp_path, split="train", kinds=["lanes"])


def test_missing_mask_is_named_on_reading_and_strays_are_listed(tmp_path: Path) -> None:
    root = write_clean(tmp_path)
    (root / "masks/train/a.png").unlink()
    stray = save(root / "masks/train/z.png", clean_mask())
    second = save(root / "masks/train/b.tif", clean_mask())
    dataset = NativeFolder(root, split="train")
    with pytest.raises(DataError, match=r"masks/train/a\.png.*missing"):
        dataset[0]
    assert dataset.files(1)[1] == root / "masks/train/b.png"
    assert sorted(dataset.strays()) == [second, stray]


def test_split_without_images_and_unknown_split_are_refused(tmp_path: Path) -> None:
    root = write_clean(tmp_path)
    describe(root, DESCRIPTION.replace("[train, val]", "[train, val, test]"))
    with pytest.raises(DataError, match=r"images/test: holds no images"):
        NativeFolder(root, split="test")
    with pytest.raises(ConfigError, match="split 'vall' is unknown; did you mean: val"):
        NativeFolder(root, split="vall")
    with pytest.raises(DataError, match=r"data\.yaml: cannot be read"):
        NativeFolder(tmp_path / "gone", split="train")


def test_size_limits_hold_on_reading(tmp_path: Path) -> None:
    root = write_clean(tmp_path)
    describe(root, DESCRIPTION.replace("5000", str(HEIGHT * WIDTH - 1)))
    with pytest.raises(DataError, match="max_pixels"):
        NativeFolder(root, split="train")[0]


# ---------------------------------------------------------------- data.yaml
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("splits:", "split:"), r"split is unknown\. Did you mean 'splits'"),
        (("label_map:", "label_maps:"), r"label_maps is unknown\. Did you mean 'label_map'"),
        (("thing: true", "things: true"), r"classes\.1\.things is unknown\. Did you mean 'thing'"),
        (("name: sky, ", ""), r"classes\.2\.name is missing"),
        (("[70, 130, 180]", "[70, 130]"), r"classes\.2\.color"),
        (("[70, 130, 180]", "[70, 130, 256]"), r"classes\.2\.color .*use numbers from 0 to 255"),
        (("  2: {name", "  3: {name"), r"ids \[0, 1, 3\]; number them 0, 1, 2"),
        (("{0: 1,", "{0: 3,"), r"to 3; use a class id 0\.\.2 or `ignore`"),
        (("{0: 1,", "{0: void,"), r"to 'void'; use a class id"),
        (("{0: 1,", "{road: 1,"), "raw value 'road'"),
        (("{0: 1,", "{70000: 1,"), "raw value 70000"),
        (("min_size: 16", "min_size: big"), r"min_size = 'big' does not fit"),
        (("min_size: 16", "ignore_index: 0"), "255 is the only ignore value.*label_map"),
        (("min_size: 16", "unmapped: maybe"), "unmapped = 'maybe'"),
        (("min_size: 16", "labels: [depth]"), "'depth' is unknown"),
        (("min_size: 16", "labels: []"), "must not be empty"),
        (("min_size: 16", 'color_map: {"1,2,3": 0}'), "both label_map and color_map"),
        (("label_map: {0: 1, 1: 0, 2: 2, 7: ignore}", 'color_map: {"1,2": 0}'), "colour '1,2'"),
        (("label_map: {0: 1, 1: 0, 2: 2, 7: ignore}", "label_map: {lane: {0: 0}}"), "'lane'"),
        (("splits: [train, val]", "splits: [train"), "no valid YAML"),
    ],
)
def test_wrong_description_is_refused_with_file_and_advice(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    assert change[0] in DESCRIPTION
    path = describe(tmp_path, DESCRIPTION.replace(*change))
    with pytest.raises(ConfigError, match=message) as error:
        load_description(path)
    assert str(error.value).startswith(str(path))


def test_all_wrong_keys_are_named_at_once(tmp_path: Path) -> None:
    path = describe(tmp_path, DESCRIPTION + "colour_map: {}\nmax_pixel: 3\n")
    with pytest.raises(ConfigError, match=r"color_map.*max_pixels"):
        load_description(path)


def test_classes_are_needed_for_semantic_labels_only(tmp_path: Path) -> None:
    path = describe(tmp_path, "splits: [train]\n")
    with pytest.raises(ConfigError, match="classes is missing"):
        load_description(path)
    described = load_description(describe(tmp_path, "splits: [train]\nlabels: [lane]\n"))
    assert described.classes == ()
    assert dict(described.tables["lane"].values) == {0: 0, 1: 1, 255: 255}


def test_description_that_is_a_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a mapping"):
        load_description(describe(tmp_path, "- splits\n"))
