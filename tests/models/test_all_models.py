"""Promises that every network in MODELS keeps."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rtseg.benchmark.complexity import count_parameters
from rtseg.checkpoint import class_count, create_model
from rtseg.models import MODELS
from rtseg.structures import ClassificationOutput, MaskOutput, RoadLaneOutput, SemanticOutput

Shapes = Callable[[int, int, int], dict[str, tuple[int, ...]]]
"""Height, width and number of classes -> shape of each field of the output, without the batch."""


def dense(stride: int) -> Shapes:
    return lambda h, w, k: {"logits": (k, -(-h // stride), -(-w // stride))}


def masks(h: int, w: int, k: int) -> dict[str, tuple[int, ...]]:
    return {"class_logits": (100, k + 1), "mask_logits": (100, -(-h // 8), -(-w // 8))}


def road(h: int, w: int, _: int) -> dict[str, tuple[int, ...]]:
    return {"drivable": (2, h, w), "lane": (2, h, w)}


def whole(_h: int, _w: int, k: int) -> dict[str, tuple[int, ...]]:
    return {"logits": (k,)}


@dataclass(frozen=True)
class Case:
    """What a network must be.

    parameters: by number of classes; None for a network that has none. multiple: of height and
    width that the bare network takes. batch: smallest one in training. no_gradient: parameters
    whose gradient is 0 (to rounding) at the start, by a part of their name, with the reason beside
    them. half: how far bfloat16 may be off, relative; float16 a quarter of it. slow: whether its
    tests, but for the count, leave the default run.
    """

    parameters: dict[int | None, int]
    shapes: Shapes
    output: type = SemanticOutput
    multiple: tuple[int, int] = (1, 1)
    batch: int = 1
    no_gradient: tuple[str, ...] = ()
    half: float = 0.1
    slow: bool = False


def twin(parameters: int, *, slow: bool = False) -> Case:
    return Case({None: parameters}, road, RoadLaneOutput, multiple=(16, 32), slow=slow)


def seg(parameters: dict[int | None, int], *, slow: bool = True) -> Case:
    # Factors of binary weights have no part in a network with real weights; the attention is added
    # through a norm that starts at 0.
    idle = tuple(f"attention.{name}" for name in ("query.", "key.", "value.", "project.conv."))
    return Case(parameters, dense(1), no_gradient=("log_alpha", *idle), slow=slow)


def queries(parameters: dict[int | None, int], *, half: float = 0.6, slow: bool = True) -> Case:
    # A mask that steers the attention is a threshold, which rounding may cross.
    return Case(parameters, masks, MaskOutput, batch=2, half=half, slow=slow)


CASES = {
    "dabnet": Case({11: 754_571, 19: 756_643}, dense(8)),
    "lsa_binet": Case(
        {11: 1_841_110, 19: 1_842_158},
        dense(4),
        # Both only add a constant to a map, which the batch norm of the decoder takes out again.
        no_gradient=("svfm.fuse.bias", "svfm.lde.3.bias"),
    ),
    "twinmixing_nano": twin(24_167),
    "twinmixing_tiny": twin(98_176, slow=True),
    "twinmixing_base": twin(434_085, slow=True),
    "twinmixing_large": twin(1_501_681, slow=True),
    "bisenetformer_stdc1": queries({19: 13_100_340, 150: 13_134_007}, slow=False),
    # In the 12 blocks of STDC2 random norms amplify rounding.
    "bisenetformer_stdc2": queries({19: 17_130_804, 150: 17_164_471}, half=1.4),
    "bisenetformer_r50": queries({19: 31_650_516, 150: 31_684_183}),
    "stdc1_classifier": Case({1000: 6_343_304}, whole, ClassificationOutput),
    "stdc2_classifier": Case({1000: 10_373_768}, whole, ClassificationOutput, half=0.6, slow=True),
    "bisegunet": seg({19: 18_485_123, 21: 18_485_381, 150: 18_502_022}),
    "bisegunet_s2": seg({19: 18_485_123}),
    "bisegunet_half": seg({19: 5_301_579}),
    "bisegunet_edge": seg({19: 1_713_779}, slow=False),
    "bsdnet_s": Case({19: 4_354_355 + 38_419}, dense(8)),
    "bsdnet_b": Case({19: 16_149_075 + 150_547}, dense(8), slow=True),
    "sctnet_s": Case({19: 4_654_643 + 38_419}, dense(8), batch=2, half=0.25, slow=True),
    "sctnet_b": Case({19: 17_437_779 + 150_547}, dense(8), batch=2, half=0.25, slow=True),
    # The mean over 6 pixels leaves small scores beside the rounding of the features.
    "bsdnet_s_classifier": Case({1000: 3_799_368}, whole, ClassificationOutput, half=0.25),
    "bsdnet_b_classifier": Case(
        {1000: 13_424_296}, whole, ClassificationOutput, half=0.25, slow=True
    ),
}
NUM_CLASSES = 11
SIZE = (64, 96)
SIZES = [SIZE, (61, 79), (75, 101), (33, 47)]


def build(name: str, *, seed: int = 0, num_classes: int = NUM_CLASSES) -> nn.Module:
    torch.manual_seed(seed)
    return create_model(name, class_count(name, num_classes))


@functools.lru_cache(maxsize=2)
def shared(name: str) -> nn.Module:
    """Return a new network in evaluation mode that tests must not change."""
    return build(name).eval()


@functools.lru_cache(maxsize=2)
def shared_warm(name: str) -> nn.Module:
    """Return a network with random norms in evaluation mode that tests must not change."""
    return warm(build(name), multiple=CASES[name].multiple).eval()


def fitting(size: tuple[int, int], multiple: tuple[int, int]) -> tuple[int, int]:
    height, width = (-(-side // part) * part for side, part in zip(size, multiple, strict=True))
    return height, width


def image(*, batch: int = 1, size: tuple[int, int] = SIZE, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, *size, generator=generator) * 60


def warm(model: nn.Module, *, multiple: tuple[int, int]) -> nn.Module:
    """Give the batch norms random factors, and the statistics of a batch."""
    generator = torch.Generator().manual_seed(2)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.weight.data.uniform_(0.5, 1.5, generator=generator)
        norm.bias.data.uniform_(-0.5, 0.5, generator=generator)
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(image(batch=4, size=fitting(SIZE, multiple), seed=4))
    return model


def tensors(output: Any, prefix: str = "") -> dict[str, Tensor]:
    """Return the tensors of an output by name; those of nested tuples as `aux.0.logits`."""
    if isinstance(output, Tensor):
        return {prefix: output}
    if output is None:
        return {}
    names = getattr(output, "_fields", range(len(output)))
    pairs = zip(names, output, strict=True)
    found = [tensors(item, f"{prefix}.{name}".lstrip(".")) for name, item in pairs]
    return {key: value for part in found for key, value in part.items()}


def run(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        return tensors(model(images))


def assert_close(got: dict[str, Tensor], expected: dict[str, Tensor], *, tolerance: float) -> None:
    assert list(got) == list(expected)
    for key, value in expected.items():
        worst = (got[key].float() - value.float()).abs().max()
        assert worst <= tolerance * value.float().abs().max(), key


def test_every_model_has_a_case_and_every_case_a_model() -> None:
    assert set(CASES) == set(MODELS)


@pytest.mark.parametrize("name", sorted(CASES))
class TestEveryModelWithoutMemory:
    def test_parameter_count_is_exact(self, name: str) -> None:
        for num_classes, expected in CASES[name].parameters.items():
            with torch.device("meta"):
                model = create_model(name, num_classes)
            assert count_parameters(model) == expected

    def test_number_of_classes_is_mandatory_and_switches_are_keywords(self, name: str) -> None:
        counted = None not in CASES[name].parameters
        parameters = inspect.signature(MODELS[name]).parameters
        assert ("num_classes" in parameters) == counted
        first, *others = parameters.values()
        if counted:
            assert first.name == "num_classes"
            assert first.default is inspect.Parameter.empty
        else:
            others = [first, *others]
        assert all(other.kind is inspect.Parameter.KEYWORD_ONLY for other in others)


COMPILES_FAST = ("dabnet", "lsa_binet")
"""In half a minute; the others are left to the runs by hand."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * case.slow) for name, case in CASES.items()],
)
class TestEveryModel:
    def test_any_size_gives_finite_outputs_of_the_right_shape(self, name: str) -> None:
        case = CASES[name]
        for wanted in SIZES:
            size = fitting(wanted, case.multiple)
            found = run(shared(name), image(size=size))
            shapes = {key: (1, *shape) for key, shape in case.shapes(*size, NUM_CLASSES).items()}
            assert {key: tuple(value.shape) for key, value in found.items()} == shapes
            assert all(value.isfinite().all() for value in found.values())

    def test_sizes_that_a_bare_network_does_not_take_are_named(self, name: str) -> None:
        case = CASES[name]
        if case.multiple == (1, 1):
            return
        for size in ((64, 96 + case.multiple[1] // 2), (64 + case.multiple[0] // 2, 96)):
            with pytest.raises(ValueError, match=r"pad it to \d+x\d+"):
                run(shared(name), image(size=size))

    def test_both_modes_return_the_same_fields(self, name: str) -> None:
        case = CASES[name]
        model = build(name)
        images = image(batch=2, size=fitting(SIZE, case.multiple))
        trained, scored = model.train()(images), model.eval()(images)
        for output in (trained, scored):
            assert type(output) is case.output
        assert getattr(scored, "aux", ()) == ()
        assert isinstance(getattr(trained, "aux", ()), tuple)
        plain = trained._replace(aux=()) if "aux" in trained._fields else trained
        shapes = {key: tuple(value.shape) for key, value in tensors(plain).items()}
        assert shapes == {key: tuple(value.shape) for key, value in tensors(scored).items()}

    def test_the_smallest_batch_trains_and_a_smaller_one_does_not(self, name: str) -> None:
        case = CASES[name]
        model = build(name).train()
        assert getattr(model, "smallest_batch", 1) == case.batch
        size = fitting(SIZE, case.multiple)
        model(image(batch=case.batch, size=size))
        if case.batch > 1:
            with pytest.raises(ValueError, match="more than 1 value per channel"):
                model(image(batch=case.batch - 1, size=size))

    def test_every_parameter_receives_a_gradient(self, name: str) -> None:
        case = CASES[name]
        model = build(name).train()
        found = tensors(model(image(batch=2, size=fitting(SIZE, case.multiple))))
        generator = torch.Generator().manual_seed(3)
        terms = [
            (value * torch.randn(value.shape, generator=generator)).sum()
            for value in found.values()
        ]
        torch.stack(terms).sum().backward()
        largest = {}
        for key, parameter in model.named_parameters():
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
            largest[key] = parameter.grad.abs().max().item()
        typical = max(largest.values())
        for key, value in largest.items():
            exempt = any(part in key for part in case.no_gradient)
            assert value < 1e-2 * min(1, typical) if exempt else value > 0, key

    def test_one_seed_repeats_and_two_seeds_differ(self, name: str) -> None:
        x = image(size=fitting(SIZE, CASES[name].multiple))
        first, again, other = (run(model, x) for model in (
            shared(name), build(name).eval(), build(name, seed=1).eval()
        ))  # fmt: skip
        for key, value in first.items():
            assert torch.equal(value, again[key])
            assert not torch.allclose(value, other[key])

    def test_state_dict_round_trip_is_bit_exact(self, name: str) -> None:
        source, target = shared_warm(name), build(name, seed=5).eval()
        target.load_state_dict(source.state_dict())
        x = image(size=fitting(SIZE, CASES[name].multiple))
        assert_close(run(target, x), run(source, x), tolerance=0)

    def test_images_of_a_batch_do_not_influence_each_other_in_evaluation(self, name: str) -> None:
        model = shared_warm(name)
        x = image(batch=2, size=fitting(SIZE, CASES[name].multiple))
        together = run(model, x)
        alone = [run(model, one) for one in x.split(1)]
        joined = {key: torch.cat([part[key] for part in alone]) for key in together}
        assert_close(together, joined, tolerance=2e-4)

    def test_deployable_copy_equals_the_original(self, name: str) -> None:
        model = copy.deepcopy(shared_warm(name)).train()
        fused = model.deployable()
        assert not fused.training
        assert model.training
        norms = [sum(isinstance(m, nn.BatchNorm2d) for m in n.modules()) for n in (model, fused)]
        assert norms[1] < norms[0]
        x = image(size=fitting(SIZE, CASES[name].multiple))
        assert_close(run(fused, x), run(shared_warm(name), x), tolerance=2e-4)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_is_finite_and_near_float32(self, name: str, dtype: torch.dtype) -> None:
        x = image(size=fitting(SIZE, CASES[name].multiple))
        expected = run(shared_warm(name), x)
        found = run(copy.deepcopy(shared_warm(name)).to(dtype), x.to(dtype))
        tolerance = CASES[name].half * (1 if dtype == torch.bfloat16 else 0.25)
        for key, value in expected.items():
            assert found[key].dtype == dtype
            assert (found[key].float() - value).norm() < tolerance * value.norm()

    def test_exported_program_equals_eager(self, name: str) -> None:
        x = image(batch=2, size=fitting((61, 79), CASES[name].multiple))
        program = torch.export.export(shared_warm(name), (x,))
        assert_close(run(program.module(), x), run(shared_warm(name), x), tolerance=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in COMPILES_FAST else pytest.mark.long)
        for name in CASES
    ],
)
def test_compiled_model_equals_eager(name: str) -> None:
    x = image(size=fitting(SIZE, CASES[name].multiple))
    compiled = torch.compile(copy.deepcopy(shared_warm(name)), fullgraph=True)
    assert_close(run(compiled, x), run(shared_warm(name), x), tolerance=1e-4)
