from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from rtseg.errors import CheckpointError
from rtseg.runtimes import open_export
from runtimes.files import Net, Plain, write_manifest


@pytest.fixture(autouse=True)
def _threads_stay() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def program() -> torch.export.ExportedProgram:
    free = torch.export.Dim.DYNAMIC
    example = torch.zeros(2, 3, 32, 32)
    return torch.export.export(
        Plain(Net()).eval(), (example,), dynamic_shapes=({0: free, 2: free, 3: free},)
    )


def test_a_program_of_torch_answers_as_the_network_does(tmp_path: Path) -> None:
    torch.export.save(program(), tmp_path / "model.pt2")
    write_manifest(tmp_path, format="torch_export", file="model.pt2")
    loaded = open_export(tmp_path, threads=1)
    assert torch.get_num_threads() == 1
    for shape in [(1, 3, 32, 32), (3, 3, 36, 44)]:
        given = torch.randn(*shape)
        output = loaded(given)
        torch.testing.assert_close(output.logits, Net()(given).logits, rtol=1e-4, atol=1e-5)
        assert not output.logits.requires_grad


@pytest.mark.slow
def test_a_compiled_package_answers_as_the_network_does(tmp_path: Path) -> None:
    torch._inductor.aoti_compile_and_package(program(), package_path=str(tmp_path / "model.pt2"))
    write_manifest(tmp_path, format="aoti", file="model.pt2", facts={"device": "cpu"})
    loaded = open_export(tmp_path)
    given = torch.randn(2, 3, 40, 32)
    torch.testing.assert_close(loaded(given).logits, Net()(given).logits, rtol=1e-4, atol=1e-5)


def test_a_package_for_another_device_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.pt2").write_bytes(b"")
    write_manifest(tmp_path, format="aoti", file="model.pt2", facts={"device": "cuda"})
    with pytest.raises(CheckpointError, match=r"model\.pt2: was compiled for cuda; use --device"):
        open_export(tmp_path)
