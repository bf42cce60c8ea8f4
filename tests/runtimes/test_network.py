from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from rtseg.errors import ConfigError, MissingError
from rtseg.runtimes import Runtime, run_network
from rtseg.structures import MaskOutput, SemanticOutput
from runtimes.files import Net


@pytest.fixture(autouse=True)
def _threads_stay() -> object:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class Folding(Net):
    """Its deployable form adds 1 to every score, so that its use shows."""

    def deployable(self) -> nn.Module:
        form = copy.deepcopy(self)
        with torch.no_grad():
            form.head.bias += 1
        return form


class Layout(nn.Module):
    """Tell by the scores whether channels lie last in memory, and the type computed in."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1, bias=False)
        nn.init.constant_(self.conv.weight, 1 / 3)  # not exact in bf16

    def forward(self, images: Tensor) -> MaskOutput:
        last = images.is_contiguous(memory_format=torch.channels_last)
        assert not self.training
        return MaskOutput(torch.full((1, 1, 2), float(last)), self.conv(images))


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def test_torch_runs_the_deployable_form_of_a_copy() -> None:
    model = Folding().train()
    runtime = run_network(model)
    given = images(2, 3, 32, 40)
    output = runtime(given)
    assert isinstance(runtime, Runtime)
    assert isinstance(output, SemanticOutput)
    torch.testing.assert_close(output.logits, model(given).logits.detach() + 1)
    assert not output.logits.requires_grad
    assert model.training
    assert list(runtime.parameters()) == []
    assert (runtime.engine, runtime.precision, runtime.manifest) == ("torch", "fp32", None)


def test_channels_lie_last_and_the_mode_is_evaluation() -> None:
    output = run_network(Layout().train())(images(1, 3, 32, 40))
    assert output.class_logits.tolist() == [[[1.0, 1.0]]]
    assert output.aux == ()


def test_bf16_comes_from_autocast_and_outputs_are_float32() -> None:
    red = torch.zeros(1, 3, 32, 32)
    red[:, 0] = 1
    exact = run_network(Layout())(red).mask_logits
    rough = run_network(Layout(), precision="bf16")(red).mask_logits
    assert exact.dtype == rough.dtype == torch.float32
    assert exact.unique().tolist() == pytest.approx([1 / 3], abs=1e-7)
    assert rough.unique().tolist() == [0.333984375]  # 1/3 with 8 bits


def test_threads_are_those_of_the_process() -> None:
    run_network(Net(), threads=1)
    assert torch.get_num_threads() == 1
    run_network(Net(), threads=2)
    assert torch.get_num_threads() == 2
    run_network(Net())
    assert torch.get_num_threads() == 2


@pytest.mark.slow
def test_a_compiled_network_gives_the_same_scores() -> None:
    model = Net()
    runtime = run_network(model, "compile")
    for shape in [(1, 3, 32, 32), (2, 3, 48, 32)]:
        given = images(*shape)
        torch.testing.assert_close(runtime(given).logits, model(given).logits, rtol=1e-4, atol=1e-5)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"runtime 'tourch' of a network is unknown; did .*torch"):
        run_network(Net(), "tourch")
    with pytest.raises(ConfigError, match=r"precision 'bf61' of a network is unknown; did .*bf16"):
        run_network(Net(), precision="bf61")
    with pytest.raises(MissingError, match="CUDA graphs do not exist on cpu; use runtime compile"):
        run_network(Net(), "cudagraph")


@pytest.mark.gpu
def test_recorded_graphs_answer_as_the_network_does() -> None:
    model = Net().cuda()
    runtime = run_network(model, "cudagraph", device="cuda")
    shapes = [(1, 3, 32, 32 + 4 * step) for step in range(6)]
    for shape in shapes * 2:  # more than are kept, so that some are recorded again
        given = images(*shape).cuda()
        first = runtime(given).logits
        expected = first.clone()
        runtime(given + 1)
        assert torch.equal(first, expected)
        torch.testing.assert_close(first, model(given).logits, rtol=1e-3, atol=1e-3)
