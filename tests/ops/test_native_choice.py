"""When the compiled kernels are used, and that everything works without them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rtseg.errors import ConfigError
from rtseg.ops import native
from rtseg.ops.resize import resize_argmax, resize_argmax_reference

ROOT = Path(__file__).parents[2]
needs_kernels = pytest.mark.skipif(
    native.library() is None, reason="the kernels are not built (testnative.py says why)"
)


class Choice(nn.Module):
    """A network's last step, as an export holds it."""

    def forward(self, logits: Tensor) -> Tensor:
        return resize_argmax(logits, (12, 16))


def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Return a list that grows by a shape whenever the compiled kernel is called."""
    calls: list[tuple[int, ...]] = []
    kernel = native.resize_argmax

    def spy(logits: Tensor, *args: object, **options: object) -> Tensor:
        calls.append(tuple(logits.shape))
        return kernel(logits, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(native, "resize_argmax", spy)
    return calls


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_kernel_is_used_where_it_was_built(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(native.SWITCH, raising=False)
    calls = counted(monkeypatch)
    logits = torch.randn(1, 3, 4, 5).to(dtype).requires_grad_()
    assert torch.equal(resize_argmax(logits, (8, 9)), resize_argmax_reference(logits, (8, 9)))
    assert calls == [(1, 3, 4, 5)]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::torch.jit.TracerWarning")
def test_other_types_devices_and_tracers_are_left_to_torch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(native.SWITCH, raising=False)
    calls = counted(monkeypatch)
    logits = torch.randn(1, 3, 4, 5)
    double = resize_argmax(logits.double(), (8, 9))
    assert torch.equal(double, resize_argmax_reference(logits, (8, 9)))
    assert resize_argmax(logits.to("meta"), (8, 9)).shape == (1, 8, 9)
    assert resize_argmax(logits[:0], (8, 9)).shape == (0, 8, 9)
    expected = resize_argmax_reference(logits, (12, 16))
    exported = torch.export.export(Choice(), (logits,)).module()
    assert torch.equal(exported(logits), expected)
    traced = torch.jit.trace(Choice(), torch.zeros(1, 3, 4, 5), check_trace=False)
    assert torch.equal(traced(logits), expected)
    assert calls == []


@pytest.mark.parametrize("switch", ["auto", "off", "portable"])
def test_a_window_is_a_part_of_the_whole(switch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native.SWITCH, switch)
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 6, 7)
    whole = resize_argmax(logits, (24, 30))
    for rows, columns in (
        (slice(0, 24), slice(0, 30)), (slice(3, 20), slice(5, 6)), (slice(None), slice(-4, None)),
        (slice(5, 5), slice(0, 3)), (slice(0, 9, 2), slice(None)),
    ):  # fmt: skip
        got = resize_argmax(logits, (24, 30), window=(rows, columns))
        assert torch.equal(got, whole[:, rows, columns])


def test_the_switch_turns_kernels_off(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch)
    monkeypatch.setenv(native.SWITCH, "off")
    assert resize_argmax(torch.randn(1, 3, 4, 5), (8, 9)).shape == (1, 8, 9)
    assert calls == []
    assert native.active() == "off (RTSEG_KERNELS=off)"


def test_an_unknown_switch_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native.SWITCH, "sse9")
    with pytest.raises(ConfigError, match=r"RTSEG_KERNELS: 'sse9' is unknown; use auto, portable"):
        resize_argmax(torch.zeros(1, 2, 3, 3), (4, 4))
    with pytest.raises(ConfigError, match="unknown"):
        native.active()


@needs_kernels
def test_an_instruction_set_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native.SWITCH, "portable")
    assert native.active() == "portable"
    monkeypatch.setenv(native.SWITCH, "avx512")
    monkeypatch.setitem(native.VARIANTS, "avx512", 99)  # one that no processor has
    with pytest.raises(ConfigError, match="processor lacks 'avx512'; use auto"):
        resize_argmax(torch.zeros(1, 2, 3, 3), (4, 4))


# ---------------------------------------------------------------- without the library
def test_a_missing_or_foreign_library_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert native.library(tmp_path / "none.so") is None
    (tmp_path / "text.so").write_text("no library")
    assert native.library(tmp_path / "text.so") is None
    assert native.library(Path("libm.so.6")) is None  # one without our functions
    monkeypatch.setattr(native, "library", lambda: None)
    monkeypatch.delenv(native.SWITCH, raising=False)
    assert resize_argmax(torch.randn(1, 3, 4, 5), (8, 9)).shape == (1, 8, 9)
    assert "not built" in native.active()


@needs_kernels
def test_a_library_of_another_version_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "VERSION", native.VERSION + 1)
    assert native.library.__wrapped__(Path(native.__file__).parents[1] / "_kernels.so") is None


# ---------------------------------------------------------------- building
def build(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Build the extension of a copy of the sources into `folder/out`."""
    sources = Path("src", "rtseg", "ops", "csrc")
    shutil.copytree(ROOT / sources, folder / sources)
    shutil.copy(ROOT / "setup.py", folder)
    return subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", "out"],
        cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False,
        timeout=300,
    )  # fmt: skip


@pytest.mark.slow
def test_the_package_is_built_without_a_compiler(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    done = build(tmp_path, CC="/bin/false", CXX="/bin/false")
    assert done.returncode == 0, done.stderr
    assert "rtseg._kernels" in done.stderr  # the warning
    assert list(tmp_path.glob("out/**/*.so")) == []


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no compiler")
def test_the_library_is_built_beside_the_package(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    done = build(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr, done.stderr
    built = tmp_path / "out" / "rtseg" / "_kernels.so"
    assert native.library(built) is not None
