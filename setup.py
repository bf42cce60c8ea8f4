"""Build the compiled kernels beside the package; without a compiler the package works as well."""

from __future__ import annotations

from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SOURCES = "src/rtseg/ops/csrc"


class PlainLibrary(build_ext):
    """Build a shared library with a plain C interface, which `ctypes` opens: no Python module."""

    def get_ext_filename(self, fullname: str) -> str:
        """Return where the library lies: no version of Python belongs to its name."""
        return f"{fullname.replace('.', '/')}.so"

    def get_export_symbols(self, ext: Any) -> Any:
        """Return what the library exports: there is no function that makes a module."""
        return ext.export_symbols


setup(
    cmdclass={"build_ext": PlainLibrary},
    ext_modules=[
        Extension(
            "rtseg._kernels",
            [f"{SOURCES}/resize_argmax.cpp"],
            depends=[f"{SOURCES}/resize_argmax.h", f"{SOURCES}/resize_argmax_rows.inc"],
            language="c++",
            extra_compile_args=[
                "-std=c++17", "-O3", "-g0", "-fvisibility=hidden", "-pthread", "-Wno-psabi",
            ],
            extra_link_args=["-pthread"],
            optional=True,  # a failed build is a warning
        )
    ],
)  # fmt: skip
