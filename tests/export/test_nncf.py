"""Files in eight bits by NNCF."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export.networks import PREPROCESS, small
from export.test_int8 import DATA, SIZE, street
from rtseg.data.preprocess import Preprocess
from rtseg.errors import CheckFailedError, ConfigError, MissingError
from rtseg.export import export, int8, nncf
from rtseg.export.graph import Graph, traces
from rtseg.quantization import Calibration
from rtseg.runtimes import open_export

openvino = pytest.importorskip("openvino")
pytest.importorskip("nncf")
OPTIONS: dict[str, Any] = {"precision": "int8", "size": SIZE, "calib": DATA, "calib_count": 3}


@pytest.mark.slow
def test_a_file_of_openvino_holds_bytes_and_keeps_the_score(tmp_path: Path) -> None:
    loaded = street()
    manifest = export(
        loaded, "openvino", tmp_path / "out", with_preprocess=True, with_argmax=True, **OPTIONS
    )
    assert sorted(manifest.files) == ["model.bin", "model.xml"]
    assert (manifest.precision, manifest.parity["engine"]) == ("int8", "openvino")
    assert manifest.parity["gate"] == {"error": None, "agreement": 0.0}
    scores = manifest.parity["data"]["scores"]["miou"]
    assert abs(scores["fp32"] - scores["int8"]) <= 0.01
    model = openvino.Core().read_model(str(tmp_path / "out" / "model.xml"))
    kinds = Counter(node.get_type_name() for node in model.get_ops())
    assert kinds["FakeQuantize"] == 2
    weights = [
        node for node in model.get_ops()
        if node.get_type_name() == "Constant" and node.get_element_type().get_type_name() == "i8"
    ]  # fmt: skip
    assert sorted(tuple(node.shape) for node in weights) == [(8, 3, 3, 3), (19, 8, 1, 1)]
    pixels = torch.from_numpy(np.array(DATA["val"][0].image))[None]
    images = Preprocess(**PREPROCESS).normalize(pixels.permute(0, 3, 1, 2))
    with torch.no_grad():
        expected = loaded.model(images).logits.argmax(1)
    found = open_export(tmp_path / "out").model(pixels).classes
    assert 0.9 < (found == expected).float().mean() < 1


@pytest.mark.slow
def test_images_of_another_size_are_refused_with_the_size_to_use(tmp_path: Path) -> None:
    loaded = small()
    images = Calibration(DATA["train"], Preprocess(**PREPROCESS), count=1, batch_size=1)
    (traced,) = traces(Graph(loaded.model), (64, 64), divisors=(8, 8), axes=("batch",))
    with pytest.raises(ConfigError, match=r"input is 32x40 .* the file takes 64x64; .* --size 32x"):
        nncf.write(traced, tmp_path, images=images)
    assert list(tmp_path.iterdir()) == []


def test_a_crash_of_nncf_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: Any) -> None:
        raise nncf.AloneError("crashed (signal 11)")

    monkeypatch.setattr(nncf, "call_alone", crash)
    with pytest.raises(CheckFailedError, match=r"openvino: NNCF crashed \(signal 11\); export it"):
        export(small(), "openvino", tmp_path / "out", **OPTIONS)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_nncf_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingError, match=r"nncf is not installed; pip install 'rtseg\[openvino"):
        int8.plan(
            small().model, lambda *_: "", format_name="openvino", pixels=False,
            images=int8.open_images(DATA, Preprocess(**PREPROCESS), count=1),
        )  # fmt: skip
    assert not list(tmp_path.iterdir())
