"""Where rounding is put, and that a network with it computes what it should."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quantization.nets import Small, small
from rtseg.checkpoint import create_model
from rtseg.errors import ConfigError
from rtseg.quantization import (
    FakeQuantize,
    QuantizedLayer,
    calibrate,
    follow_ranges,
    prepare,
    quantize,
)


def ranges_of(model: nn.Module) -> dict[str, FakeQuantize]:
    return {
        name.removeprefix("network."): module
        for name, module in model.named_modules()
        if isinstance(module, FakeQuantize)
    }


def rounded(x: Tensor, low: float, high: float) -> Tensor:
    """Round as FakeQuantize should, written otherwise: in float64 and without its helpers."""
    low, high = min(low, 0.0), max(high, 0.0)
    step = (high - low) / 255
    zero = min(255, max(0, round(-low / step)))
    byte = (torch.round(x.double() / step) + zero).clamp(0, 255)
    return ((byte - zero) * step).float()


def rounded_weight(weight: Tensor) -> Tensor:
    rows = [
        torch.round(row.double() / (row.abs().max().double() / 127)) * (row.abs().max() / 127)
        for row in weight.detach()
    ]
    return torch.stack(rows).float()


def test_every_tensor_is_rounded_once_and_in_its_place() -> None:
    model = prepare(small())
    assert sorted(ranges_of(model)) == [
        "first.input",  # the image comes from no module
        "left.1", "prelu.1",  # one range for both that read it
        "relu.1",  # not `first`, whose ReLU can be computed with it
        "right.1",
        "score.input",  # its ReLU is no module
        "second.1",  # before PReLU
    ]  # fmt: skip
    layers = [name for name, m in model.named_modules() if isinstance(m, QuantizedLayer)]
    assert layers == [
        "network.first", "network.second.0", "network.left.0", "network.right.0", "network.score",
    ]  # fmt: skip
    assert not any(module.training for module in model.modules())


def test_the_network_computes_what_its_rounding_says() -> None:
    net = small()
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    model = quantize(net, [images[:1], images[1:]])
    ends = {name: (float(item.low), float(item.high)) for name, item in ranges_of(model).items()}
    with torch.no_grad():
        weights = {
            name: rounded_weight(layer.weight)
            for name, layer in net.named_modules()
            if isinstance(layer, nn.Conv2d)
        }

        def conv(x: Tensor, layer: nn.Conv2d, name: str) -> Tensor:
            return F.conv2d(
                x, weights[name], layer.bias, layer.stride, layer.padding, layer.dilation,
                layer.groups,
            )  # fmt: skip

        plain = F.relu(conv(images, net.first, "first"))  # ranges are those of unrounded inputs
        assert ends["first.input"] == (0.0, float(images.max()))
        assert ends["relu.1"] == pytest.approx((0.0, float(plain.max())))
        x = rounded(images, *ends["first.input"])
        x = rounded(F.relu(conv(x, net.first, "first")), *ends["relu.1"])
        x = rounded(conv(x, net.second, "second"), *ends["second.1"])
        x = rounded(net.prelu(x), *ends["prelu.1"])
        left = rounded(conv(x, net.left, "left"), *ends["left.1"])
        right = rounded(conv(x, net.right, "right"), *ends["right.1"])
        x = F.relu(net.up(torch.cat([left, right], dim=1)))
        scores = conv(rounded(x, *ends["score.input"]), net.score, "score")
        found = model(images).logits
    torch.testing.assert_close(found, scores, rtol=0, atol=1e-5)
    assert not torch.equal(found, net(images).logits)


def test_layers_can_stay_float() -> None:
    model = prepare(small(), float_layers=["score", "l*"])
    network = model.network
    assert isinstance(network, Small)
    assert isinstance(network.score, nn.Conv2d)
    assert isinstance(network.left, nn.Conv2d)
    assert "prelu.1" in ranges_of(model)  # `right` still reads it
    assert "score.input" not in ranges_of(model)


def test_the_given_network_stays_as_it_is() -> None:
    net = small()
    before = copy.deepcopy(net.state_dict())
    quantize(net, [torch.rand(1, 3, 8, 8)])
    assert not any(isinstance(module, FakeQuantize) for module in net.modules())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_what_cannot_be_quantized_is_refused() -> None:
    with pytest.raises(ConfigError, match="no layer has a name like 'heads"):
        prepare(small(), float_layers=["heads.*"])
    with pytest.raises(ConfigError, match="Conv2d has no method deployable"):
        prepare(nn.Conv2d(3, 3, 1))
    with pytest.raises(ConfigError, match="quantized already"):
        prepare(prepare(small()))


def test_a_second_calibration_forgets_the_first() -> None:
    model = quantize(small(), [9 * torch.rand(1, 3, 8, 8)])
    images = torch.rand(1, 3, 8, 8)
    calibrate(model, [images])
    assert float(ranges_of(model)["first.input"].high) == float(images.max())
    assert not any(item.widening for item in ranges_of(model).values())


def test_a_calibration_that_fails_leaves_no_mode_behind() -> None:
    model = prepare(small())
    follow_ranges(model, on=True)
    with pytest.raises(RuntimeError):
        calibrate(model, [torch.rand(1, 2, 8, 8)])
    assert all(item.training and not item.widening for item in ranges_of(model).values())


def test_ranges_and_norms_follow_and_rest_together() -> None:
    model = prepare(create_model("twinmixing_nano"))
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 7  # one in each EPM block, behind a sum or concatenation
    chosen = [*ranges_of(model).values(), *norms]
    for on in (True, False):
        follow_ranges(model, on=on)
        assert all(module.training is on for module in chosen)
    assert not model.training


@pytest.mark.parametrize(
    ("name", "classes", "largest"),
    [("twinmixing_tiny", (), 0.02), ("bsdnet_s", (19,), 0.06), ("bisegunet_edge", (19,), 0.05)],
)
def test_quantized_networks_are_near_the_float_ones(
    name: str, classes: tuple[int, ...], largest: float
) -> None:
    torch.manual_seed(0)
    net = create_model(name, *classes).eval()
    images = torch.rand(2, 3, 64, 96)
    model = quantize(net, [images])
    with torch.no_grad():
        for plain, found in zip(net(images), model(images), strict=True):
            if isinstance(plain, Tensor):
                error = float((plain - found).norm() / plain.norm())
                assert 1e-4 < error < largest


def test_a_deployable_copy_is_the_same_network() -> None:
    model = quantize(create_model("bsdnet_s", 5), [torch.rand(1, 3, 32, 64)])
    images = torch.rand(1, 3, 32, 64)
    with torch.no_grad():
        assert torch.equal(model.deployable()(images).logits, model(images).logits)


def test_transposed_convolutions_stay_float() -> None:
    model = prepare(create_model("twinmixing_tiny"))
    names = [name for name, m in model.named_modules() if isinstance(m, nn.ConvTranspose2d)]
    assert len(names) == 6
    for name in names:
        parent = model.get_submodule(name.rpartition(".")[0])
        assert not isinstance(parent, QuantizedLayer)
