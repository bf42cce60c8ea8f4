"""`rtseg env`: what a bug report needs."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

from rtseg.cli.common import Shared, make_table

PACKAGES = (
    "rtseg", "torch", "torchvision", "omegaconf", "pydantic", "typer", "rich", "safetensors",
    "huggingface_hub", "pillow", "numpy", "torchmetrics", "scipy", "pycocotools", "lightning",
    "tensorboard", "transformers", "onnx", "onnxscript", "onnxruntime", "openvino", "nncf",
    "torchao", "av", "fastapi", "uvicorn", "python-multipart", "gradio", "ray", "tensorrt",
    "segmentation-models-pytorch",
)  # fmt: skip
"""All packages that rtseg can make use of."""


def env(*, shared: Shared) -> None:
    """Show versions and hardware, for bug reports."""
    document = describe()
    hardware = {**document["system"], **document["processor"], "cuda": _cuda_line(document["cuda"])}
    hardware["runtimes"] = ", ".join(document["runtimes"])
    shared.finish(
        document,
        make_table("", ["system", ""], list(hardware.items())),
        make_table("", ["package", "version"], list(document["packages"].items())),
    )


def describe() -> dict[str, Any]:
    """Return system, processor, CUDA devices and versions as JSON-ready values."""
    return {
        "system": {"python": platform.python_version(), "platform": platform.platform()},
        "processor": _processor(),
        "cuda": _cuda(),
        "runtimes": _runtimes(),
        "packages": versions(),
    }


def versions() -> dict[str, str]:
    """Return the versions of those of `PACKAGES` that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _runtimes() -> list[str]:
    """Return what can run networks here."""
    import torch

    from rtseg.runtimes import NETWORKS, installed

    if torch.cuda.is_available():
        return [*NETWORKS, *{**installed("cpu"), **installed("cuda")}]
    return [*(name for name in NETWORKS if name != "cudagraph"), *installed("cpu")]


def _processor() -> dict[str, Any]:
    import torch

    from rtseg.ops import native

    flags, model = _cpu_info()
    wanted = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8")
    return {
        "model": model or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "features": " ".join(flag for flag in wanted if flag in flags) or "none known",
        "torch_kernels": torch.backends.cpu.get_cpu_capability(),
        "rtseg_kernels": native.active(),
        "threads": torch.get_num_threads(),
    }


def _cpu_info() -> tuple[set[str], str]:
    """Return the flags and the name of the processor, as far as Linux tells them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set(), ""
    pairs = [line.split(":", 1) for line in lines if ":" in line]
    facts = {name.strip(): value.strip() for name, value in pairs}
    return set(facts.get("flags", "").split()), facts.get("model name", "")


def _cuda() -> dict[str, Any]:
    import torch

    devices = [
        {
            "name": torch.cuda.get_device_name(index),
            "memory_mib": torch.cuda.get_device_properties(index).total_memory >> 20,
            "capability": ".".join(map(str, torch.cuda.get_device_capability(index))),
        }
        for index in range(torch.cuda.device_count())
    ]
    cudnn = torch.backends.cudnn.version() if devices else None  # type: ignore[no-untyped-call]
    return {"built_for": torch.version.cuda, "cudnn": cudnn, "devices": devices}


def _cuda_line(cuda: dict[str, Any]) -> str:
    if not cuda["devices"]:
        return "no device"
    return ", ".join(f"{item['name']} ({item['memory_mib']} MiB)" for item in cuda["devices"])
