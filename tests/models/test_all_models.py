"""Promises that every network in MODELS keeps."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from rtseg.benchmark.complexity import count_parameters
from rtseg.models import MODELS
from rtseg.ops.resize import resize_logits
from rtseg.structures import SemanticOutput


@dataclass(frozen=True)
class Case:
    """What a network must be.

    parameters: by number of classes. stride: of the logits. no_gradient: parameters whose gradient
    is 0 (to rounding) at the start, with the reason beside them.
    """

    parameters: dict[int, int]
    stride: int
    no_gradient: tuple[str, ...] = ()


CASES = {
    "dabnet": Case(parameters={11: 754_571, 19: 756_643}, stride=8),
    "lsa_binet": Case(
        parameters={11: 1_841_110, 19: 1_842_158},
        stride=4,
        # Both only add a constant to a map, which the batch norm of the decoder takes out again.
        no_gradient=("svfm.fuse.bias", "svfm.lde.3.bias"),
    ),
}
SIZES = [(64, 96), (61, 79), (75, 101), (33, 47)]


def build(name: str, *, seed: int = 0, num_classes: int = 11) -> nn.Module:
    torch.manual_seed(seed)
    return MODELS[name](num_classes)


def image(*, batch: int = 1, size: tuple[int, int] = (64, 96), seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, *size, generator=generator) * 60


def warm(model: nn.Module) -> nn.Module:
    """Give the batch norms random factors, and the statistics of a batch."""
    generator = torch.Generator().manual_seed(2)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.weight.data.uniform_(0.5, 1.5, generator=generator)
        norm.bias.data.uniform_(-0.5, 0.5, generator=generator)
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(image(batch=4, seed=4))
    return model


def test_every_model_has_a_case_and_every_case_a_model() -> None:
    assert set(CASES) == set(MODELS)


@pytest.mark.parametrize("name", sorted(CASES))
class TestEveryModel:
    @pytest.mark.parametrize("num_classes", [11, 19])
    def test_parameter_count_is_exact(self, name: str, num_classes: int) -> None:
        model = build(name, num_classes=num_classes)
        assert count_parameters(model) == CASES[name].parameters[num_classes]

    def test_number_of_classes_is_mandatory_and_switches_are_keywords(self, name: str) -> None:
        first, *others = inspect.signature(MODELS[name]).parameters.values()
        assert first.name == "num_classes"
        assert first.default is inspect.Parameter.empty
        assert all(other.kind is inspect.Parameter.KEYWORD_ONLY for other in others)

    @pytest.mark.parametrize("size", SIZES)
    def test_any_size_gives_finite_logits_of_the_right_shape(
        self, name: str, size: tuple[int, int]
    ) -> None:
        with torch.no_grad():
            logits = build(name).eval()(image(size=size)).logits
        stride = CASES[name].stride
        assert logits.shape == (1, 11, -(-size[0] // stride), -(-size[1] // stride))
        full = resize_logits(logits, size)
        assert full.shape == (1, 11, *size)
        assert full.isfinite().all()

    def test_both_modes_return_the_same_fields(self, name: str) -> None:
        model = build(name)
        for output in (model.train()(image(batch=2)), model.eval()(image(batch=2))):
            assert type(output) is SemanticOutput
            assert output.logits.shape[:2] == (2, 11)
            assert isinstance(output.aux, tuple)
        assert output.aux == ()

    def test_every_parameter_receives_a_gradient(self, name: str) -> None:
        model = build(name).train()
        logits = model(image(batch=2)).logits
        (
            logits * torch.randn(logits.shape, generator=torch.Generator().manual_seed(3))
        ).sum().backward()
        for key, parameter in model.named_parameters():
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
            largest = parameter.grad.abs().max().item()
            assert largest < 1e-2 if key in CASES[name].no_gradient else largest > 0, key

    def test_one_seed_repeats_and_two_seeds_differ(self, name: str) -> None:
        first, again, other = (build(name, seed=seed).eval() for seed in (0, 0, 1))
        x = image()
        with torch.no_grad():
            logits = first(x).logits
            assert torch.equal(logits, again(x).logits)
            assert not torch.allclose(logits, other(x).logits)

    def test_state_dict_round_trip_is_bit_exact(self, name: str) -> None:
        source, target = warm(build(name)).eval(), build(name, seed=5).eval()
        target.load_state_dict(source.state_dict())
        with torch.no_grad():
            assert torch.equal(source(image()).logits, target(image()).logits)

    def test_images_of_a_batch_do_not_influence_each_other_in_evaluation(self, name: str) -> None:
        model = warm(build(name)).eval()
        x = image(batch=3)
        with torch.no_grad():
            together = model(x).logits
            alone = torch.cat([model(one).logits for one in x.split(1)])
        torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5 * together.abs().max())

    def test_deployable_copy_equals_the_original(self, name: str) -> None:
        model = warm(build(name)).train()
        fused = model.deployable()
        assert not fused.training
        assert model.training
        norms = [sum(isinstance(m, nn.BatchNorm2d) for m in n.modules()) for n in (model, fused)]
        assert norms[1] < norms[0]
        with torch.no_grad():
            expected, got = model.eval()(image()).logits, fused(image()).logits
        assert (expected - got).abs().max() <= 1e-5 * expected.abs().max()

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_is_finite_and_near_float32(self, name: str, dtype: torch.dtype) -> None:
        model = warm(build(name)).eval()
        with torch.no_grad():
            expected = model(image()).logits
            got = model.to(dtype)(image().to(dtype)).logits
        assert got.dtype == dtype
        assert (got.float() - expected).norm() < 0.1 * expected.norm()

    def test_exported_program_equals_eager(self, name: str) -> None:
        model = warm(build(name)).eval()
        x = image(batch=2, size=(61, 79))
        program = torch.export.export(model, (x,))
        with torch.no_grad():
            torch.testing.assert_close(program.module()(x).logits, model(x).logits)

    @pytest.mark.slow
    def test_compiled_model_equals_eager(self, name: str) -> None:
        model = warm(build(name)).eval()
        compiled = torch.compile(model, fullgraph=True)
        with torch.no_grad():
            expected, got = model(image()).logits, compiled(image()).logits
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4 * expected.abs().max())
