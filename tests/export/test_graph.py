from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from export.networks import PREPROCESS, Lanes, Small
from rtseg.data.preprocess import Preprocess
from rtseg.errors import ConfigError
from rtseg.export.choose import chooser
from rtseg.export.graph import Graph, Normalize, Traced, first_sentence, other_sizes, traces
from rtseg.structures import SemanticOutput
from rtseg.tasks import rebuild


def first(graph: Graph, **options: Any) -> Traced:
    return next(traces(graph, (32, 40), divisors=(8, 8), **options))


def ports(traced: Traced) -> list[tuple[str, str, tuple[int | None, ...]]]:
    return [(port.name, port.dtype, port.shape) for port in (traced.image, *traced.outputs)]


# ---------------------------------------------------------------- the graph
def test_pixels_are_normalized_as_the_preprocessing_does() -> None:
    preprocess = Preprocess(**PREPROCESS)
    pixels = torch.randint(0, 256, (2, 5, 7, 3), dtype=torch.uint8)
    expected = torch.stack([preprocess.normalize(image.permute(2, 0, 1)) for image in pixels])
    torch.testing.assert_close(Normalize(preprocess)(pixels), expected, rtol=1e-6, atol=1e-6)


def test_outputs_come_in_order_without_those_that_are_not_there() -> None:
    class Both(nn.Module):
        def forward(self, images: Tensor) -> SemanticOutput:
            return SemanticOutput(images[:, :1], (images,))

    images = torch.rand(1, 3, 4, 4)
    (logits,) = Graph(Both())(images)
    assert torch.equal(logits, images[:, :1])
    (lane,) = Graph(Lanes())(images)
    assert lane.shape == (1, 2, 4, 4)


def test_half_precision_stays_inside() -> None:
    graph = Graph(Small(), dtype=torch.bfloat16)
    assert {value.dtype for value in graph.network.parameters()} == {torch.bfloat16}
    (logits,) = graph(torch.rand(1, 3, 16, 16))
    assert logits.dtype == torch.float32


# ---------------------------------------------------------------- tracing
def test_ports_tell_what_may_differ() -> None:
    assert ports(first(Graph(Small()))) == [
        ("image", "float32", (None, 3, None, None)), ("logits", "float32", (None, 4, None, None)),
    ]  # fmt: skip
    assert ports(first(Graph(Small()), axes=("batch",))) == [
        ("image", "float32", (None, 3, 32, 40)), ("logits", "float32", (None, 4, 32, 40)),
    ]  # fmt: skip
    assert ports(first(Graph(Lanes()), axes=())) == [
        ("image", "float32", (1, 3, 32, 40)), ("lane", "float32", (1, 2, 32, 40)),
    ]  # fmt: skip
    task = rebuild("road_lane", (), {"tasks": "lane"})
    graph = Graph(Lanes(), preprocess=Preprocess(**PREPROCESS), choose=chooser(task))
    traced = first(graph, axes=("hw",))
    assert ports(traced) == [
        ("image", "uint8", (1, None, None, 3)), ("lane", "uint8", (1, None, None)),
    ]  # fmt: skip
    assert (traced.output, traced.axes, traced.size) == ("RoadLaneMapOutput", ("hw",), (32, 40))


def test_a_network_for_one_size_is_found_out() -> None:
    graph = Graph(Small(pool=5))
    found = list(traces(graph, (32, 40), divisors=(8, 8)))
    assert [traced.axes for traced in found] == [("batch",), ()]
    with pytest.raises(ConfigError, match="Small cannot take images of any size"):
        first(graph, axes=("batch", "hw"))


def test_programs_come_from_the_most_general_to_the_least() -> None:
    found = traces(Graph(Small()), (32, 40), divisors=(8, 8))
    assert [traced.axes for traced in found] == [("batch", "hw"), ("batch",), ()]


def test_a_size_that_the_network_refuses_is_named_in_its_own_words() -> None:
    class Picky(nn.Module):
        def forward(self, images: Tensor) -> SemanticOutput:
            raise ValueError(f"height {images.shape[2]} is no multiple of 7")

    with pytest.raises(ConfigError, match="size: height 32 is no multiple of 7"):
        first(Graph(Picky()))


def test_a_network_that_cannot_be_recorded_says_why() -> None:
    class Undecided(nn.Module):
        def forward(self, images: Tensor) -> SemanticOutput:
            return SemanticOutput(images if images.sum() > 0 else -images)

    with pytest.raises(ConfigError, match=r"Undecided cannot be recorded by torch.export \(.+\)"):
        first(Graph(Undecided()))


def test_the_first_cause_is_named() -> None:
    outer = ValueError("step 3 failed")
    outer.__cause__ = KeyError("other")
    outer.__cause__.__cause__ = RuntimeError("\n  - no such operator\nmore")
    assert first_sentence(outer) == "no such operator"
    assert first_sentence(ValueError()) == "ValueError"


@pytest.mark.parametrize(
    ("size", "divisors", "expected"),
    [
        ((512, 1024), (32, 32), [(544, 1056), (384, 1056), (544, 768)]),
        ((64, 96), (32, 32), [(96, 128), (64, 128), (96, 96)]),
        ((100, 60), (1, 1), [(105, 65), (75, 65), (105, 45)]),
        ((32, 32), (8, 8), [(40, 40), (32, 40), (40, 32)]),
    ],
)
def test_other_sizes_fit_and_differ(
    size: tuple[int, int], divisors: tuple[int, int], expected: list[tuple[int, int]]
) -> None:
    assert other_sizes(size, divisors) == expected
    assert len({size, *expected}) == 4
