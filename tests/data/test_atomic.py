from __future__ import annotations

import errno
from pathlib import Path

import pytest

from rtseg.data.atomic import require_replaceable, whole_folder
from rtseg.errors import DataError


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_folder_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b"
    with whole_folder(target) as folder:
        (folder / "x").write_text("1", encoding="utf-8")
        assert not target.exists()
        assert folder.parent == target.parent  # the same disk
    assert names(tmp_path) == ["a", "a/b", "a/b/x"]


def test_the_old_one_stays_until_then_and_what_a_killed_process_left_goes(tmp_path: Path) -> None:
    target = tmp_path / "b"
    for part in ("b", ".b.partial", ".b.previous"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "old").touch()
    with whole_folder(target) as folder:
        assert names(folder) == []
        assert names(target) == ["old"]
        (folder / "new").touch()
    assert names(tmp_path) == ["b", "b/new"]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_an_error_leaves_the_old_one(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "b"
    target.mkdir()
    (target / "old").touch()

    def fail() -> None:
        with whole_folder(target) as folder:
            (folder / "new").touch()
            raise error

    with pytest.raises(type(error)):
        fail()
    assert names(tmp_path) == ["b", "b/old"]


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with whole_folder(tmp_path / "link") as folder:
        (folder / "new").touch()
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path / "real") == ["new"]


def test_what_the_disk_refuses_is_one_sentence(tmp_path: Path) -> None:
    with (
        pytest.raises(DataError, match=r"b: cannot be written \(no space left on device\); check"),
        whole_folder(tmp_path / "b"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    (tmp_path / "file").touch()
    with (
        pytest.raises(DataError, match=r"cannot be written"),
        whole_folder(tmp_path / "file" / "b"),
    ):
        pytest.fail("the folder above is a file")
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("inside", [True, False])
def test_an_error_names_the_folder_that_the_user_knows(tmp_path: Path, inside: bool) -> None:
    def fail() -> None:
        with whole_folder(tmp_path / "b") as folder:
            where = folder / "x" / "y.png" if inside else tmp_path / "source.png"
            raise DataError("is bad", where=str(where), fix="mend it")

    with pytest.raises(DataError) as caught:
        fail()
    shown = tmp_path / ("b" if inside else "source.png")
    assert str(caught.value) == f"{shown}: is bad; mend it"


def test_what_may_be_replaced(tmp_path: Path) -> None:
    target = tmp_path / "b"
    for overwrite in (False, True):
        require_replaceable(target, ["x", "y"], overwrite=overwrite)
    target.mkdir()
    require_replaceable(target, ["x", "y"], overwrite=False)  # empty
    (target / "x").touch()
    require_replaceable(target, ["x", "y"], overwrite=True)
    with pytest.raises(DataError, match="b: exists already; replace it with --overwrite"):
        require_replaceable(target, ["x", "y"], overwrite=False)
    (target / "z").touch()
    with pytest.raises(DataError, match="is not replaced, because it holds z; remove it yourself"):
        require_replaceable(target, ["x", "y"], overwrite=True)
    with pytest.raises(DataError, match="is a file; choose another folder"):
        require_replaceable(target / "z", ["z"], overwrite=True)
