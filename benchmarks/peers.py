"""Our networks beside small networks of other libraries, in one run on one machine.

    python benchmarks/peers.py --output benchmarks/results/peers.json
    python benchmarks/peers.py --size 384x640 --ours twinmixing_tiny twinmixing_base \
        --output benchmarks/results/peers_road.json

All have random weights and 19 classes; the road networks have two maps of two classes. Every
network of every engine has a process of its own; those that share scope and engine take turns.
Scopes:

- model: a normalized tensor (1, 3, H, W) to the network's own output, at its own resolution.
  LR-ASPP, FPN, TwinMixing and BiSegUNet bring their scores to the size of the input themselves,
  LSA-BiNet and SegFormer stop at 1/4 of it, BSDNet and BiSeNetFormer at 1/8.
- e2e: a decoded image (H, W, 3) uint8 to the map of classes (H, W) uint8. Ours goes through
  `Predictor`. Theirs is what one writes by hand: normalize, run, resize the scores, arg-max; in
  OpenVINO resize and arg-max are part of the file.

Engines: torch fp32 (theirs as they are; ours as `run_network` has it), and OpenVINO in fp32 and
bf16 (theirs by `openvino.convert_model` for the one size; ours by `rtseg.export`), all with the
same threads and hints. A library that is not installed is named and left out.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtseg.benchmark.child import Prepared, serve
from rtseg.benchmark.complexity import count_macs, count_parameters
from rtseg.benchmark.engines import scenes
from rtseg.benchmark.latency import PROTOCOLS, QUICK, Protocol
from rtseg.benchmark.machine import describe_machine
from rtseg.benchmark.report import cells, make_document, protocol_lines
from rtseg.benchmark.runs import ENGINES, Spec, measure
from rtseg.benchmark.subjects import RANDOM, engine_file, find_subject
from rtseg.checkpoint import git_revision, versions

CLASSES = 19
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
OURS = ("bsdnet_s", "bsdnet_b", "lsa_binet", "bisenetformer_stdc1", "bisegunet_half")
WAYS = (("torch", "fp32"), ("openvino", "fp32"), ("openvino", "bf16"))
SCOPES = ("model", "e2e")


# ---------------------------------------------------------------- networks of others
def lraspp() -> nn.Module:
    """Build LR-ASPP on MobileNetV3-Large of torchvision."""
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    return lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=CLASSES)


def fpn() -> nn.Module:
    """Build FPN on ResNet-18 of segmentation_models.pytorch."""
    import segmentation_models_pytorch as smp

    return smp.FPN("resnet18", encoder_weights=None, classes=CLASSES)


def segformer() -> nn.Module:
    """Build SegFormer-B0 of transformers, whose default configuration it is."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    return SegformerForSemanticSegmentation(SegformerConfig(num_labels=CLASSES))


PEERS: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "LR-ASPP MobileNetV3": ("torchvision", lraspp),
    "FPN ResNet-18": ("segmentation-models-pytorch", fpn),
    "SegFormer-B0": ("transformers", segformer),
}
"""Package and builder by name."""


class Scores(nn.Module):
    """A network whatever it returns: images (B, 3, H, W) -> scores (B, K, h, w)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return the scores."""
        output = self.network(images)
        if isinstance(output, Tensor):
            return output
        scores: Tensor = output.get("out", output.get("logits"))
        return scores


class Classes(nn.Module):
    """Scores, resized to the input, and the best class: (B, 3, H, W) -> (B, H, W) int64."""

    def __init__(self, scores: Scores) -> None:
        super().__init__()
        self.scores = scores

    def forward(self, images: Tensor) -> Tensor:
        """Return the classes."""
        scores = self.scores(images)
        if scores.shape[-2:] != images.shape[-2:]:
            scores = F.interpolate(scores, images.shape[-2:], mode="bilinear", align_corners=False)
        return scores.argmax(dim=1)


def prepare(job: dict[str, Any]) -> Prepared:
    """Build a network of another library and return what is timed."""
    if job["threads"]:
        torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    scores = Scores(PEERS[job["network"]][1]().eval())
    network: nn.Module = scores if job["scope"] == "model" else Classes(scores)
    pixels = scenes(tuple(job["size"]), 1)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))

    def normalized() -> Tensor:
        return (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() - mean) / std

    example = normalized().contiguous()
    run = network if job["runtime"] == "torch" else openvino_request(network, example, job)

    @torch.inference_mode()
    def call() -> Any:
        if job["scope"] == "model":
            return run(example)
        return run(normalized().contiguous())[0].to(torch.uint8).numpy()

    name = PEERS[job["network"]][0] if job["runtime"] == "torch" else "openvino"
    engine = {"name": name, "version": importlib.metadata.version(name), "flags": {}}
    return Prepared(call, {"engine": engine, "threads": torch.get_num_threads()})


def openvino_request(
    network: nn.Module, example: Tensor, job: dict[str, Any]
) -> Callable[[Tensor], Tensor]:
    """Convert and compile a network for the size of the example."""
    import openvino

    from rtseg.runtimes.openvino import HINTS

    model = openvino.convert_model(network, example_input=example)
    model.reshape(list(example.shape))
    options = {
        "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": HINTS[job["precision"]],
    }  # fmt: skip
    request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()

    def run(images: Tensor) -> Tensor:
        request.set_input_tensor(openvino.Tensor(images.numpy(), shared_memory=True))
        request.infer()
        return torch.from_numpy(request.get_output_tensor().data)

    return run


# ---------------------------------------------------------------- the run
def main() -> None:
    """Measure all, print the table, and write the document."""
    given = options()
    protocol = (QUICK if given.quick else PROTOCOLS["standard"])._replace(rounds=given.rounds)
    rows = measure_all(given, protocol)
    name = "quick" if given.quick else "standard"
    document = make_document(
        rows, machine=describe_machine("cpu"), versions=versions(), git_revision=git_revision(),
        protocol={"name": name, **protocol._asdict()}, roofline=None,
    )  # fmt: skip
    print("\n".join(protocol_lines(document)))
    for row in document["rows"]:
        print(" | ".join(cells(row)))
        if row["error"] is not None:
            print(f"    {row['error']['message']}")
    if given.output:
        given.output.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def measure_all(given: argparse.Namespace, protocol: Protocol) -> list[dict[str, Any]]:
    """Measure ours and theirs in every scope and by every engine; return the rows."""
    height, width = (int(side) for side in given.size.split("x"))
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        size = (height, width)
        subjects = [find_subject(name, folder=place, size=size) for name in given.ours]
        peers = {name: complexity(name, size) for name in installed()}
        for scope, (runtime, precision) in itertools.product(given.scopes, WAYS):
            common = {
                "scope": scope, "runtime": runtime, "precision": precision, "batch": 1,
                "device": "cpu", "threads": given.threads, "size": list(size),
            }  # fmt: skip
            job = {"protocol": list(protocol), "source_images": None}
            own = [{**subject.row(), **common} for subject in subjects]
            other = [their_row(name, cost, common) for name, cost in peers.items()]
            specs = []
            for subject, row in zip(subjects, own, strict=True):
                file = engine_file(subject, runtime, precision, place)
                specs.append(Spec(ENGINES, {**common, **job, "path": str(file)}, row["network"]))
            command = (sys.executable, __file__, "--child")
            specs += [Spec(command, {**row, **job}, row["network"]) for row in other]
            found = measure(specs, protocol, log=print)
            rows += [{**row, **facts} for row, facts in zip([*own, *other], found, strict=True)]
    return rows


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="512x1024", help="height x width")
    parser.add_argument("--ours", nargs="*", default=list(OURS))
    parser.add_argument("--scopes", nargs="*", default=list(SCOPES), choices=SCOPES)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="ten calls, for a try")
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


def installed() -> list[str]:
    """Return the peers whose package is there; name the others."""
    there = []
    for name, (package, _) in PEERS.items():
        try:
            print(f"{name}: {package} {importlib.metadata.version(package)}")
            there.append(name)
        except importlib.metadata.PackageNotFoundError:
            print(f"{name}: {package} is not installed (pip install 'rtseg[bench]')")
    return there


def complexity(name: str, size: tuple[int, int]) -> dict[str, Any]:
    """Count a network of another library as ours are counted."""
    network = PEERS[name][1]()
    macs, count = count_macs(network, size), count_parameters(network)
    return {
        "parameters": {"trainable": count, "total": count, "deployed": count},
        "macs": macs, "deployed_macs": macs, "gflops": 2 * macs / 1e9, "size": list(size),
        "tool": "torch.utils.flop_counter, convolutions and matrix products",
    }  # fmt: skip


def their_row(name: str, cost: dict[str, Any], common: dict[str, Any]) -> dict[str, Any]:
    """Return the row of a network of another library, without its measurement."""
    return {
        "network": name, "source": RANDOM, "path": None, "complexity": cost, "scores": {},
        "stages_ms": {}, "layers": [], **common,
    }  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:] == ["--child"]:
        serve(prepare)
    else:
        main()
