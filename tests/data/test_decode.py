from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from data.broken import noise, png_of
from rtseg.data.decode import FileFaultError, open_picture
from rtseg.data.files import read_image, read_mask


def declared(path: Path, height: int, width: int, *, size: int = 0) -> Path:
    """Write a PNG of 8-bit gray that claims a size and has 6 rows; `size` bytes in all, or more."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + bytes(width) for _ in range(6)))
    data = png_of(header, rows)
    path.write_bytes(data + bytes(max(0, size - len(data))))
    return path


@pytest.mark.parametrize("read", [read_image, read_mask])
@pytest.mark.parametrize("side", [10_000, 20_000, 60_000])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path, read: object, side: int) -> None:
    path = declared(tmp_path / "x.png", side, side)
    with pytest.raises(FileFaultError, match="claims too many pixels") as error:
        read(path)  # type: ignore[operator]
    assert error.value.kind == "too_large"
    assert "tiles" in error.value.fix


def test_an_image_is_no_bomb_if_it_has_a_byte_for_100_pixels_or_is_of_usual_size(
    tmp_path: Path,
) -> None:
    with pytest.warns(Image.DecompressionBombWarning):
        assert open_picture(
            declared(tmp_path / "a.png", 10_000, 10_000, size=1_000_000), missing=""
        ).size == (10_000, 10_000)
    with (
        pytest.warns(Image.DecompressionBombWarning),
        pytest.raises(FileFaultError, match=r"10000x10000 \(H x W\) in 999,999 bytes"),
    ):
        open_picture(declared(tmp_path / "b.png", 10_000, 10_000, size=999_999), missing="")
    usual = open_picture(declared(tmp_path / "c.png", 9_459, 9_459), missing="")
    assert usual.size == (9_459, 9_459)


def test_a_picture_of_another_format_is_refused_whatever_its_name(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    noise().save(path, format="PCX")
    with pytest.raises(FileFaultError, match=r"x\.png: is truncated or no image"):
        read_image(path)


def test_several_pictures_in_one_file_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    noise().save(path, save_all=True, append_images=[noise(seed=2), noise(seed=3)])
    for read in (read_image, read_mask):
        with pytest.raises(FileFaultError, match="holds 3 pictures") as error:
            read(path)
        assert error.value.kind == "animated"


def test_an_empty_file_is_called_empty(tmp_path: Path) -> None:
    (tmp_path / "x.png").touch()
    with pytest.raises(FileFaultError, match="the file is empty"):
        read_mask(tmp_path / "x.png")


def test_a_folder_and_a_link_in_a_circle_have_remedies_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to("loop.png")
    with pytest.raises(FileFaultError, match="is a folder, named like a file; rename it"):
        read_image(tmp_path / "folder.png")
    with pytest.raises(FileFaultError, match=r"cannot be read \(.*\); replace the link"):
        read_mask(tmp_path / "loop.png")
