from __future__ import annotations

from pathlib import Path

import pytest

from inference.tiny import write_image
from rtseg.errors import DataError
from rtseg.inference.sources import image_paths, is_single_image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.png", "a.jpg", "c.PNG", "sub/d.png", ".hidden.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        if name == "c.PNG":
            write_image(tmp_path / "c.png").rename(tmp_path / name)
        else:
            write_image(tmp_path / name)
    (tmp_path / "notes.md").write_text("no image")
    return tmp_path


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


def test_a_folder_gives_its_own_images_by_name(folder: Path) -> None:
    assert names(image_paths(folder)) == ["a.jpg", "b.png", "c.PNG"]


def test_a_pattern_reaches_sub_folders_and_leaves_other_files_out(folder: Path) -> None:
    assert names(image_paths(f"{folder}/**/*")) == ["a.jpg", "b.png", "c.PNG", "d.png"]
    assert names(image_paths(f"{folder}/*.jpg")) == ["a.jpg"]


def test_a_list_is_relative_to_itself_and_may_hold_comments(folder: Path) -> None:
    lines = ["# best frames", "", "b.png", f"{folder}/sub/d.png", " missing.png ", "b.png"]
    (folder / "list.txt").write_text("\n".join(lines), encoding="utf-8")
    expected = [folder / "b.png", folder / "sub" / "d.png", folder / "missing.png"]
    assert image_paths(folder / "list.txt") == expected


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    path = write_image(tmp_path / "frame[1].png")
    assert image_paths(path) == [path]
    assert is_single_image(path)


@pytest.mark.parametrize(
    ("source", "single"),
    [("b.png", True), ("", False), ("*.png", False), ("list.txt", False), ("missing.png", True)],
)
def test_one_image_is_told_from_many(folder: Path, source: str, single: bool) -> None:
    assert is_single_image(folder / source) is single


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("missing.png", "does not exist"),
        ("missing.txt", "does not exist"),
        ("notes.md", "is not an image"),
        ("empty", "holds no images"),
        ("*.webp", "matches no image"),
        ("empty.txt", "lists no images"),
        ("binary.txt", "cannot be read"),
        ("clip.mp4", "is not an image"),
    ],
)
def test_what_gives_no_image_is_named(folder: Path, source: str, message: str) -> None:
    (folder / "empty").mkdir()
    (folder / "empty.txt").write_text("# nothing\n\n")
    (folder / "binary.txt").write_bytes(b"\xff\xfe\x00\x80")
    (folder / "clip.mp4").write_bytes(b"video")
    with pytest.raises(DataError, match=message) as caught:
        image_paths(str(folder / source))
    assert caught.value.where == str(folder / source)
    assert caught.value.fix
