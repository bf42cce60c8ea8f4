from __future__ import annotations

import importlib.metadata
import json
import platform
import re
import tomllib
from pathlib import Path

import pytest
import torch

from rtseg.cli.env import PACKAGES
from rtseg.cli.main import main
from rtseg.ops import native
from rtseg.runtimes import RUNTIMES


def test_versions_and_hardware_are_those_of_this_process(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["env", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["system"]["python"] == platform.python_version()
    assert document["packages"]["torch"] == importlib.metadata.version("torch")
    assert document["packages"]["rtseg"] == importlib.metadata.version("rtseg")
    assert document["processor"]["threads"] == torch.get_num_threads()
    assert document["processor"]["model"]
    assert document["processor"]["torch_kernels"] == torch.backends.cpu.get_cpu_capability()
    assert document["processor"]["rtseg_kernels"] == native.active()
    assert len(document["cuda"]["devices"]) == torch.cuda.device_count()
    expected = {"torch", "compile", "torch_export", "aoti"}
    assert expected <= set(document["runtimes"]) <= set(RUNTIMES)
    assert ("cudagraph" in document["runtimes"]) == torch.cuda.is_available()
    assert main(["env"]) == 0
    text = capsys.readouterr().out
    assert importlib.metadata.version("torch") in text


def test_every_package_that_is_declared_for_use_is_looked_for() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    extras = project["optional-dependencies"]
    lines = [line for name, extra in extras.items() if name != "dev" for line in extra]
    declared = {re.split(r"[>=\[ ]", line)[0] for line in [*project["dependencies"], *lines]}
    assert declared
    assert declared <= set(PACKAGES)
