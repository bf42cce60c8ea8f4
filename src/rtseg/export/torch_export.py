"""Programs that torch itself runs: of `torch.export`, and compiled by AOTInductor."""

from __future__ import annotations

from pathlib import Path

import torch

from rtseg.errors import MissingError
from rtseg.export.graph import Traced

FILE = "model.pt2"


def write(traced: Traced, folder: Path) -> str:
    """Write the program, which every machine with this version of torch runs; return its name."""
    torch.export.save(traced.program, folder / FILE)
    return FILE


def write_compiled(traced: Traced, folder: Path) -> str:
    """Write a package compiled for processors like this one, and return its name.

    Raises:
        MissingError: There is no C++ compiler.
    """
    from torch._inductor import aoti_compile_and_package, exc

    try:
        aoti_compile_and_package(traced.program, package_path=str(folder / FILE))
    except exc.InvalidCxxCompiler:
        raise MissingError("there is no C++ compiler", fix="install g++ or clang++") from None
    return FILE
