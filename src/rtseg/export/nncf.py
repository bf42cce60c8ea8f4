"""OpenVINO in eight bits by NNCF: ranges from images, no training."""

from __future__ import annotations

import tempfile
from pathlib import Path

from rtseg.errors import CheckFailedError
from rtseg.export import openvino
from rtseg.export.alone import AloneError, call_alone
from rtseg.export.graph import Traced
from rtseg.quantization import Calibration
from rtseg.runtimes import Manifest
from rtseg.runtimes.ports import fit_input


def write(traced: Traced, folder: Path, *, images: Calibration) -> str:
    """Write `model.xml` with `model.bin` of int8 weights, and return the name of the first.

    Args:
        traced: The float network.
        folder: Where it goes.
        images: One to a batch; in pixels if the network normalizes.

    Raises:
        ConfigError: The network does not take images of their size.
        CheckFailedError: NNCF or OpenVINO fails or crashes.
    """
    with tempfile.TemporaryDirectory() as between:
        path = Path(between) / openvino.write(traced, Path(between))
        try:
            call_alone(_quantize, path, folder / openvino.FILE, images, _described(traced))
        except AloneError as error:
            raise CheckFailedError(
                f"NNCF {error}",
                where="openvino",
                fix="export it for one size (--dynamic none), or as ONNX in int8",
            ) from None
    return openvino.FILE


def _described(traced: Traced) -> Manifest:
    """Return what is known of the float file."""
    return Manifest(
        format="openvino",
        file=openvino.FILE,
        files={},
        precision="fp32",
        image=traced.image,
        outputs=traced.outputs,
        output=traced.output,
        divisors=traced.divisors,
        with_preprocess=traced.image.dtype == "uint8",
        with_argmax=False,
        config={},
    )


def _quantize(source: Path, target: Path, images: Calibration, manifest: Manifest) -> None:
    """Quantize a file of OpenVINO.

    decision: `mixed`, since activations are signed before PReLU and unsigned after ReLU. The fast
    correction of biases reads every image once; the full one, hours for a large network.
    """
    import nncf
    import openvino as engine

    quantized = nncf.quantize(
        engine.Core().read_model(str(source)),
        nncf.Dataset(images, lambda batch: fit_input(batch, manifest).numpy()),
        preset=nncf.QuantizationPreset.MIXED,
        fast_bias_correction=True,
        subset_size=len(images.indices),
    )
    engine.save_model(quantized, str(target), compress_to_fp16=False)
