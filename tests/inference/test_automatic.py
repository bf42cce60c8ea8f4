from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from inference.kept import SIZE, Workshop, make_workshop, write_files, write_network
from rtseg.checkpoint import Checkpoint
from rtseg.data.preprocess import Preprocess
from rtseg.errors import CheckFailedError, ConfigError, DataError, MissingError
from rtseg.inference import automatic
from rtseg.inference.automatic import agreement, with_runtime
from rtseg.inference.exports import Kept
from rtseg.inference.trial import TrialFailedError
from rtseg.runtimes import Port, installed
from runtimes.files import INFO, Net

pytestmark = pytest.mark.skipif("openvino" not in installed(), reason="openvino is not installed")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxscript")
    return write_files(tmp_path_factory.mktemp("onnx"))


@pytest.fixture
def shop(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    return make_workshop(files, tmp_path / "cache", monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_network(tmp_path / "network")


def images(size: tuple[int, int] = SIZE) -> torch.Tensor:
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))


def used(model: Any, size: tuple[int, int] = SIZE) -> tuple[str, str]:
    """Run a model, compare it with the network, and return what has run it."""
    given = images(size)
    expected = Net()(given).logits
    torch.testing.assert_close(model(given).logits, expected, rtol=0.1, atol=0.03)  # bf16
    return model.engine, model.precision


# ---------------------------------------------------------------- which one
@pytest.mark.parametrize(
    ("wrong", "chosen"),
    [
        ({}, "bf16"),
        ({"bf16": (2, 2)}, "bf16"),  # 99.5 % is enough
        ({"bf16": (3, 0)}, "fp32"),  # 99.25 % is not
        ({"bf16": (0, 12)}, "bf16"),  # 97 % of a drawn street is enough
        ({"bf16": (0, 13)}, "fp32"),
        ({"bf16": TrialFailedError("crashed (signal 11)")}, "fp32"),
        ({"fp32": (400, 400), "bf16": (400, 400)}, "torch"),
        ({"fp32": TrialFailedError("failed"), "bf16": (3, 0)}, "torch"),
    ],
)
def test_the_fastest_that_gives_the_same_classes_is_chosen(
    shop: Workshop, folder: Path, wrong: dict[str, Any], chosen: str
) -> None:
    shop.wrong |= wrong
    found = used(shop.open(folder))
    assert found == (("torch", "fp32") if chosen == "torch" else ("openvino", chosen))
    crashed = any(isinstance(item, Exception) for item in wrong.values())
    assert shop.tried == ["fp32+bf16", *(["fp32", "bf16"] if crashed else [])]
    assert shop.exported == [SIZE]
    assert shop.notes[0].startswith("exporting the network once for openvino")
    assert shop.notes[1].startswith(f"{found[0]} {found[1]} is chosen; ms an image: torch fp32 10")
    if chosen == "torch":
        assert shop.notes[2].startswith("torch runs the network (openvino fp32 ")


def test_torch_stays_where_it_is_fastest(
    files: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = make_workshop(files, tmp_path / "cache", monkeypatch, torch_ms=1.9)
    assert used(shop.open(folder)) == ("torch", "fp32")
    assert shop.notes[-1] == "torch runs the network (nothing is faster)"


def test_agreement_is_that_of_the_worst_map() -> None:
    one, two = torch.tensor([[0, 1, 2, 3]]), torch.tensor([[0, 1, 2, 0]])
    assert agreement({"a": one}, {"a": one}) == 1
    assert agreement({"a": one, "b": one}, {"a": one, "b": two}) == 0.75


# ---------------------------------------------------------------- eight bits
@pytest.mark.parametrize(
    ("wrong", "milliseconds", "chosen"),
    [
        ((12, 400), 1.0, "int8"),  # 97 % of the image is enough, whatever the drawn street says
        ((13, 0), 1.0, "bf16"),
        ((0, 0), 3.0, "bf16"),
        (TrialFailedError("crashed (signal 11)"), 1.0, "bf16"),
    ],
)
def test_an_int8_export_that_was_made_takes_part(
    shop: Workshop, folder: Path, tmp_path: Path, wrong: Any, milliseconds: float, chosen: str
) -> None:
    made = shop.make_int8(folder, tmp_path / "int8")
    shop.wrong["int8"], shop.times["int8"] = wrong, milliseconds
    model = shop.open(folder)
    assert used(model) == ("openvino", chosen)
    assert shop.tried[0] == "fp32+bf16+int8"
    tried = len(shop.tried)
    assert used(shop.open(folder)) == ("openvino", chosen)
    assert len(shop.tried) == tried  # remembered
    shutil.rmtree(made)
    assert used(shop.open(folder)) == ("openvino", "bf16")


def test_a_later_int8_export_is_measured_and_the_newest_counts(
    shop: Workshop, folder: Path, tmp_path: Path
) -> None:
    assert used(shop.open(folder)) == ("openvino", "bf16")
    first = shop.make_int8(folder, tmp_path / "first", facts={"bytes": 1})
    assert used(shop.open(folder)) == ("openvino", "int8")
    second = shop.make_int8(folder, tmp_path / "second", facts={"bytes": 2})
    kept = Kept(Checkpoint(Net(), INFO, folder))
    assert kept.eight_bits(("onnx",), SIZE) == second
    shop.make_int8(folder, first, facts={"bytes": 3})
    assert kept.eight_bits(("onnx",), SIZE) == first
    used(shop.open(folder))
    assert shop.tried == ["fp32+bf16", *["fp32+bf16+int8"] * 2]


@pytest.mark.parametrize(
    ("facts", "serves"),
    [
        ({}, True),
        ({"image": Port("image", "float32", (None, 3, *SIZE))}, True),
        ({"image": Port("image", "float32", (None, 3, 80, 96))}, False),
        ({"image": Port("image", "float32", (None, 3, 96, 80))}, False),
        ({"image": Port("image", "float32", (1, 3, None, None))}, False),
        ({"with_preprocess": True}, False),
        ({"with_argmax": True}, False),
        ({"format": "torch_export"}, False),
    ],
)
def test_only_an_int8_export_with_the_networks_own_ports_serves(
    shop: Workshop, folder: Path, tmp_path: Path, facts: dict[str, Any], serves: bool
) -> None:
    made = shop.make_int8(folder, tmp_path / "int8", **facts)
    kept = Kept(Checkpoint(Net(), INFO, folder))
    assert kept.eight_bits(("openvino", "onnx"), SIZE) == (made if serves else None)
    other = write_network(tmp_path / "other", seed=1)
    assert Kept(Checkpoint(Net(), INFO, other)).eight_bits(("onnx",), SIZE) is None


# ---------------------------------------------------------------- what is remembered
def test_a_second_process_neither_exports_nor_measures(shop: Workshop, folder: Path) -> None:
    used(shop.open(folder))
    notes = len(shop.notes)
    assert used(shop.open(folder)) == ("openvino", "bf16")
    assert (len(shop.exported), len(shop.tried), len(shop.notes)) == (1, 1, notes)


def test_other_threads_are_measured_with_the_same_export(shop: Workshop, folder: Path) -> None:
    used(shop.open(folder))
    shop.times = {"fp32": 1.0, "bf16": 2.0}
    assert used(shop.open(folder, threads=2)) == ("openvino", "fp32")
    assert used(shop.open(folder)) == ("openvino", "bf16")
    assert (len(shop.exported), len(shop.tried)) == (1, 2)


def test_a_file_for_any_size_is_measured_once_in_a_process(shop: Workshop, folder: Path) -> None:
    model = shop.open(folder)
    for size in [SIZE, (32, 32), (40, 48), (32, 64)]:
        assert used(model, size) == ("openvino", "bf16")
    assert (len(shop.exported), len(shop.tried)) == (1, 1)


@pytest.mark.usefixtures("shop")
def test_other_weights_and_classes_are_exported_anew(folder: Path, tmp_path: Path) -> None:
    same, other = write_network(tmp_path / "same"), write_network(tmp_path / "other", seed=1)
    renamed = write_network(tmp_path / "renamed")
    config = (renamed / "config.json").read_text().replace('"road"', '"way"')
    (renamed / "config.json").write_text(config)
    folders = [Kept(Checkpoint(Net(), INFO, path)).folder for path in (folder, same, other)]
    assert folders[0] == folders[1] != folders[2]
    assert Kept(Checkpoint(Net(), INFO, renamed)).folder not in folders
    assert folders[0].parent.name == "runtimes"


def test_a_damaged_decision_or_a_lost_export_is_made_again(shop: Workshop, folder: Path) -> None:
    used(shop.open(folder))
    kept = Kept(Checkpoint(Net(), INFO, folder)).folder
    decision = next(kept.glob("decision*.json"))
    assert decision.name == "decision-80x80-1threads.json"
    assert json.loads(decision.read_text())["milliseconds"] == {
        "torch fp32": 10.0, "openvino fp32": 5.0, "openvino bf16": 2.0,
    }  # fmt: skip
    decision.write_text("{")
    used(shop.open(folder))
    assert (len(shop.exported), len(shop.tried)) == (1, 2)
    for count, name in enumerate(("manifest.json", "model.onnx"), start=2):
        (kept / "openvino-any" / name).write_bytes(b"")
        assert used(shop.open(folder)) == ("openvino", "bf16")
        assert (len(shop.exported), len(shop.tried)) == (count, 2)


def test_two_that_export_at_once_end_with_one_whole_folder(shop: Workshop, folder: Path) -> None:
    both = threading.Barrier(2)
    plain = shop.export

    def together(*given: Any, **options: Any) -> None:
        plain(*given, **options)
        both.wait(timeout=30)

    kept = Kept(Checkpoint(Net(), INFO, folder))
    places: list[Path] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rtseg.inference.exports.export", together)
        threads = [
            threading.Thread(target=lambda: places.append(kept.make_export("openvino", SIZE)))
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert places == [kept.folder / "openvino-any"] * 2
    assert [path.name for path in kept.folder.iterdir()] == ["openvino-any"]
    assert kept.export("openvino", SIZE) == places[0]


# ---------------------------------------------------------------- networks with a fixed size
def test_after_two_sizes_torch_runs_the_others(shop: Workshop, folder: Path) -> None:
    shop.any_size = False
    model = shop.open(folder)
    sizes = [SIZE, (80, 80), (80, 80), (40, 40), (44, 44), (48, 48), (40, 40)]
    shop.wrong = {"fp32": (0, 0), "bf16": TrialFailedError("crashed")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(automatic, "run_trial", lambda *_, **__: pytest.fail("scripted for 80x80"))
        patch.setattr(automatic, "CANDIDATES", {"openvino": ()})
        model = shop.open(folder, runtime="openvino")
        engines = [used(model, size)[0] for size in sizes]
    assert engines == ["openvino"] * 4 + ["torch"] * 2 + ["openvino"]
    assert shop.exported == [SIZE, (40, 40)]
    assert sum("torch runs all sizes but the first 2" in note for note in shop.notes) == 1


# ---------------------------------------------------------------- when something fails
def test_a_network_that_cannot_be_exported_is_run_by_torch(shop: Workshop, folder: Path) -> None:
    shop.fault = CheckFailedError("differs at logits", where="openvino")
    assert used(shop.open(folder)) == ("torch", "fp32")
    assert shop.notes[-1] == "torch runs the network (openvino: differs at logits)"
    assert used(shop.open(folder)) == ("torch", "fp32")
    assert len(shop.exported) == 1, "the failure was not remembered"
    assert shop.notes[-1] == "torch runs the network (openvino: differs at logits)"


def test_a_full_disk_is_not_remembered(shop: Workshop, folder: Path) -> None:
    shop.fault = DataError("no space left on device", where="there")
    assert used(shop.open(folder)) == ("torch", "fp32")
    shop.fault = None
    assert used(shop.open(folder)) == ("openvino", "bf16")


def test_without_a_cache_torch_runs(
    shop: Workshop, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RTSEG_CACHE", str(tmp_path / "file"))
    assert used(shop.open(folder)) == ("torch", "fp32")
    assert "RTSEG_CACHE: no folder for exported networks can be written" in shop.notes[-1]
    with pytest.raises(DataError, match="RTSEG_CACHE: no folder"):
        used(shop.open(folder, runtime="openvino"))


def test_without_an_engine_torch_runs_and_says_what_to_install(
    shop: Workshop, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(automatic, "installed", lambda *_: {})
    assert used(shop.open(folder)) == ("torch", "fp32")
    assert shop.notes == [
        "torch runs the network (no faster engine is installed; pip install 'rtseg[onnx,openvino]')"
    ]
    with pytest.raises(MissingError, match="'openvino' is not installed for cpu; install openvino"):
        shop.open(folder, runtime="openvino")


# ---------------------------------------------------------------- what is asked for
def test_a_certain_engine_is_neither_measured_nor_replaced(shop: Workshop, folder: Path) -> None:
    assert used(shop.open(folder, runtime="openvino")) == ("openvino", "fp32")
    assert used(shop.open(folder, runtime="openvino")) == ("openvino", "fp32")
    assert (shop.exported, shop.tried) == ([SIZE], [])
    other = write_network(folder.parent / "other", seed=1)
    shop.fault = CheckFailedError("differs", where="openvino")
    with pytest.raises(CheckFailedError, match="differs"):
        used(shop.open(other, runtime="openvino"))


def test_the_environment_says_what_auto_means(
    shop: Workshop, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RTSEG_RUNTIME", "torch")
    assert type(shop.open(folder)) is Net
    assert used(shop.open(folder, runtime="openvino"))[0] == "openvino"
    monkeypatch.setenv("RTSEG_RUNTIME", "opnevino")
    with pytest.raises(ConfigError, match="RTSEG_RUNTIME: runtime 'opnevino' is unknown; did you"):
        shop.open(folder)
    assert type(shop.open(folder, runtime="torch")) is Net


def test_on_a_gpu_auto_means_torch(shop: Workshop, folder: Path) -> None:
    loaded = Checkpoint(Net(), INFO, folder)
    gpu = torch.device("cuda")
    assert with_runtime(loaded, Preprocess(), device=gpu) is loaded
    assert shop.notes == []
