"""TensorRT needs a GPU; what can be tested without is how its package is called."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rtseg.errors import MissingError
from rtseg.runtimes import open_export
from runtimes.files import write_manifest


def test_without_the_package_or_a_gpu_it_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.engine").write_bytes(b"")
    write_manifest(tmp_path, format="tensorrt", file="model.engine")
    with pytest.raises(MissingError, match="tensorrt cannot compute on cpu; use --device cuda"):
        open_export(tmp_path)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingError, match="tensorrt is not installed"):
        open_export(tmp_path, device="cuda")
