from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.broken import write_clean
from rtseg.data.spec import Found, find_data, open_data, open_splits, parse_spec
from rtseg.errors import ConfigError, DataError


def write_camvid(root: Path, *, splits: tuple[str, ...] = ("train", "val")) -> Path:
    for split in splits:
        for folder in (split, f"{split}annot"):
            (root / folder).mkdir(parents=True)
            pixels = np.zeros((8, 8) if folder.endswith("annot") else (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / folder / "x.png")
        (root / f"{split}.txt").write_text(f"{split}/x.png {split}annot/x.png\n")
    return root


def test_every_way_to_name_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clean = write_clean(tmp_path / "own")
    monkeypatch.delenv("RTSEG_DATASETS", raising=False)
    assert parse_spec(str(clean)) == ("native", clean)
    assert parse_spec(str(clean / "data.yaml")) == ("native", clean / "data.yaml")
    assert parse_spec(f"native={clean}") == ("native", clean)
    assert parse_spec("camvid=/data/a=b") == ("camvid", Path("/data/a=b"))
    assert parse_spec("camvid") == ("camvid", Path("data/camvid"))
    assert parse_spec("synthetic") == ("synthetic", None)
    monkeypatch.setenv("RTSEG_DATASETS", "/sets")
    assert parse_spec("camvid") == ("camvid", Path("/sets/camvid"))


def test_a_folder_with_an_equals_sign_is_a_folder(tmp_path: Path) -> None:
    clean = write_clean(tmp_path / "run=3")
    assert parse_spec(str(clean)) == ("native", clean)


def test_one_split_or_all_are_opened(tmp_path: Path) -> None:
    clean = write_clean(tmp_path / "own")
    assert len(open_data(str(clean), "train")) == 3
    assert {name: len(data) for name, data in open_splits(str(clean)).items()} == {
        "train": 3,
        "val": 2,
    }
    camvid = write_camvid(tmp_path / "camvid")
    assert list(open_splits(f"camvid={camvid}")) == ["train", "val"]


def test_options_reach_the_reader() -> None:
    data = open_data("synthetic", "val", options={"length": 3, "size": [32, 64], "seed": 5})
    assert len(data) == 3
    assert data[0].image.shape == (32, 64, 3)
    with pytest.raises(ConfigError, match=r"synthetic\.lenght is unknown"):
        open_data("synthetic", "val", options={"lenght": 3})


def test_a_split_that_is_there_but_broken_is_not_passed_over(tmp_path: Path) -> None:
    camvid = write_camvid(tmp_path / "camvid")
    (camvid / "val.txt").write_text("one two three\n")
    with pytest.raises(DataError, match=r"val\.txt: line 1 is not"):
        open_splits(f"camvid={camvid}")
    clean = write_clean(tmp_path / "own")
    for path in (clean / "images" / "val").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="holds no images"):
        open_splits(str(clean))


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("nowhere", DataError, "nowhere: does not exist; .* names .*ade20k, "),
        ("native", DataError, "native: does not exist"),
        ("camvit=x", ConfigError, "did you mean one of: camvid"),
        ("synthetic=x", ConfigError, "synthetic has no root; write synthetic"),
        ("camvid=nowhere", DataError, "train.txt: cannot read the list"),
    ],
)
def test_what_cannot_be_opened_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, error: type, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        open_splits(spec)


def test_a_built_in_layout_is_recognized_and_its_name_proposed(tmp_path: Path) -> None:
    camvid = write_camvid(tmp_path / "sets")
    with pytest.raises(DataError, match=rf"holds no data\.yaml; write camvid={camvid}"):
        open_splits(str(camvid))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no data\.yaml; add one"):
        open_splits(str(tmp_path / "empty"))


def test_data_sets_are_found_three_levels_deep_and_not_inside_each_other(tmp_path: Path) -> None:
    own = write_clean(tmp_path / "a" / "own")
    camvid = write_camvid(tmp_path / "a" / "b" / "camvid", splits=("test",))
    write_clean(tmp_path / "a" / "b" / "c" / "deep")
    write_clean(tmp_path / ".hidden")
    write_clean(own / "images" / "train" / "nested")
    wrong = write_clean(tmp_path / "wrong")
    (wrong / "data.yaml").write_text("splits: [train]\ncolours: 3\n")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "train.txt").write_text("a.png b.png\n")  # as in CamVid, but no images
    found = {item.spec: item for item in find_data(tmp_path)}
    assert set(found) == {str(own), f"camvid={camvid}", str(wrong)}
    classes = ("road", "car", "sky")
    counts = {"train": 3, "val": 2}
    assert found[str(own)] == Found(str(own), counts, counts, ("semantic",), classes)
    assert found[f"camvid={camvid}"].images == {"test": 1}
    assert "colours is unknown" in found[str(wrong)].error


def test_the_sample_of_camvid_is_found(camvid_root: Path) -> None:
    images = {item.spec: item.images for item in find_data(camvid_root.parent)}
    assert images[f"camvid={camvid_root}"] == {"train": 4, "val": 2, "test": 2}
