"""Binary weights as bits: their order, exact values, three forms of one network, file sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rtseg.checkpoint import create_model
from rtseg.models.bisegunet import BiSegUNet
from rtseg.nn.binary import BinaryConv2d, InterleavedConv2d, binarize_inputs, binary_layers, sign
from rtseg.nn.packed import (
    PackedConv2d,
    freeze,
    pack_signs,
    state_bytes,
    thaw,
    unpack_signs,
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def one_size(*sizes: int, groups: int = 1, **options: int) -> InterleavedConv2d:
    """Build a convolution whose weights have one size per output channel."""
    conv = InterleavedConv2d(sizes[0], sizes[1], sizes[2], groups=groups, bias=True, **options)
    factor = torch.rand(sizes[1], 1, 1, 1) + 0.5
    conv.weight.data = sign(conv.weight.data) * factor
    return conv


def trained(*, act_bits: int = 32) -> BiSegUNet:
    """Return a small network as a training leaves it: binary, with any norms and factors."""
    model = create_model("bisegunet", 5, width=0.125, stem_stride=2, act_bits=act_bits)
    assert isinstance(model, BiSegUNet)
    for layer in binary_layers(model).values():
        layer.binarize()
        layer.log_alpha.data += 0.3 * torch.randn_like(layer.log_alpha)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 0.9, 0.5)  # some factors below 0
            nn.init.normal_(module.bias, 0.0, 0.2)
    images = torch.randn(4, 3, 64, 64)
    model.train()(images)  # statistics that are not 0 and 1
    if act_bits == 1:
        layers = [layer for layer in binary_layers(model).values() if layer.tau is not None]
        binarize_inputs(model, images, layers)
    return model.eval()


def real_values(state: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in state.items()
    }


# ---------------------------------------------------------------- bits
def test_bits_are_worked_out_by_hand() -> None:
    # Two outputs, two inputs, a kernel of 1x5: ten bits, in the order column by column.
    weight = torch.tensor(
        [
            [[[1.0, -1, 1, 1, -1]], [[-1.0, 2, 0, -0.5, -1]]],
            [[[-0.0, -1, -1, -1, -1]], [[-1.0, -1, -1, -1, 3]]],
        ]
    )
    # First output: columns (+ -) (- +) (+ +) (+ -) (- -), the lowest bit first.
    first = 0b0111_1001, 0b00
    second = 0b0000_0001, 0b10
    assert pack_signs(weight).tolist() == [list(first), list(second)]
    assert pack_signs(weight).dtype == torch.uint8


@pytest.mark.parametrize("channels", [1, 7, 8, 9, 31, 32, 33, 64, 100])
@pytest.mark.parametrize("kernel", [1, 3])
def test_signs_come_back_from_their_bits(channels: int, kernel: int) -> None:
    weight = torch.randn(3, channels, kernel, kernel)
    bits = pack_signs(weight)
    assert bits.shape == (3, -(-channels * kernel * kernel // 8))
    back = unpack_signs(bits, (3, channels, kernel, kernel))
    assert back.dtype == torch.float32
    assert torch.equal(back, sign(weight))


def test_rows_come_before_columns() -> None:
    weight = -torch.ones(1, 1, 2, 3)
    weight[0, 0, 0, 2] = 1  # the third of six
    assert pack_signs(weight).item() == 0b000100
    weight = -torch.ones(1, 1, 2, 3)
    weight[0, 0, 1, 0] = 1  # the fourth
    assert pack_signs(weight).item() == 0b001000


# ---------------------------------------------------------------- one layer
@pytest.mark.parametrize(
    ("sizes", "options"),
    [
        ((12, 6, 3), {"groups": 3, "padding": 1}),
        ((8, 8, 3), {"groups": 8, "padding": 6, "dilation": 6}),
        ((8, 4, 3), {"stride": 2, "padding": 1}),
        ((6, 6, 1), {"groups": 2}),
    ],
)
def test_packed_layer_equals_the_one_it_was_made_of(
    sizes: tuple[int, int, int], options: dict[str, int]
) -> None:
    conv = one_size(*sizes, **options)
    packed = PackedConv2d(conv)
    assert torch.equal(packed.weight(), conv.weight)
    x = torch.randn(2, sizes[0], 9, 11)
    torch.testing.assert_close(packed(x), conv(x))
    assert {name: value.dtype for name, value in packed.state_dict().items()} == {
        "bits": torch.uint8, "scale": torch.float32, "shift": torch.float32,
    }  # fmt: skip
    assert not list(packed.parameters())


def test_weights_of_several_sizes_are_refused() -> None:
    conv = one_size(4, 2, 3)
    conv.weight.data[1, 2, 0, 1] *= 1.0001
    with pytest.raises(ValueError, match="more than their signs"):
        PackedConv2d(conv)


# ---------------------------------------------------------------- networks
@pytest.mark.parametrize("act_bits", [32, 1])
def test_unfused_fused_and_packed_networks_agree(act_bits: int) -> None:
    model = trained(act_bits=act_bits)
    frozen = freeze(model)
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        plain, fused, packed = (
            network(images).logits for network in (model, model.deployable(), frozen)
        )
    scale = plain.abs().max()
    for other in (fused, packed):
        if act_bits == 32:
            assert (other - plain).abs().max() < 1e-4 * scale
        agree = (other.argmax(1) == plain.argmax(1)).float().mean()
        assert agree == 1 if act_bits == 32 else agree > 0.99  # a sign at its threshold may turn


def test_every_weight_of_a_frozen_layer_is_plus_or_minus_its_factor() -> None:
    model = trained()
    frozen = freeze(model)
    layers = {
        name: module for name, module in frozen.named_modules() if isinstance(module, PackedConv2d)
    }
    assert list(layers) == list(binary_layers(model))
    for name, layer in layers.items():
        source = model.get_submodule(name)
        norm = model.get_submodule(name.removesuffix(".conv")).get_submodule("norm")
        assert isinstance(source, BinaryConv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_var is not None
        for channel, factor in zip(layer.weight(), layer.scale, strict=True):
            assert set(channel.flatten().tolist()) <= {factor.item(), -factor.item()}
        factors = norm.weight / (norm.running_var + norm.eps).sqrt()
        alpha = source.log_alpha.exp() * factors
        torch.testing.assert_close(layer.scale, alpha.abs().detach())
        expected = sign(source.weight) * sign(alpha)[:, None, None, None]
        assert torch.equal(sign(layer.weight()), expected)


def test_freezing_leaves_the_network_as_it_is() -> None:
    model = trained()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    frozen = freeze(model)
    assert not frozen.training
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_networks_with_real_weights_are_refused() -> None:
    model = create_model("bisegunet_edge", 5)
    for layer in list(binary_layers(model).values())[1:]:
        layer.binarize()
    with pytest.raises(ValueError, match=r"stem\.stream2\.conv has real weights"):
        freeze(model)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no layer of this network"):
        freeze(create_model("bsdnet_s", 5))  # type: ignore[arg-type]


@pytest.mark.parametrize("act_bits", [32, 1])
def test_packed_state_loads_again(tmp_path: Path, act_bits: int) -> None:
    frozen = freeze(trained(act_bits=act_bits))
    save_file(frozen.state_dict(), tmp_path / "packed.safetensors")
    fresh = create_model("bisegunet", 5, width=0.125, stem_stride=2, act_bits=act_bits)
    untouched = {name: value.clone() for name, value in fresh.state_dict().items()}
    again = thaw(fresh, load_file(tmp_path / "packed.safetensors"))
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(frozen(images).logits, again(images).logits)
    assert all(torch.equal(value, fresh.state_dict()[name]) for name, value in untouched.items())
    with pytest.raises(RuntimeError, match="size mismatch"):
        thaw(create_model("bisegunet_edge", 5, act_bits=act_bits), frozen.state_dict())


def test_real_values_may_be_stored_in_half() -> None:
    model = trained()
    frozen = freeze(model)
    again = thaw(model, real_values(frozen.state_dict(), torch.float16))
    assert {value.dtype for value in again.state_dict().values()} == {torch.float32, torch.uint8}
    images = torch.randn(1, 3, 64, 64)
    full, half = frozen(images).logits, again(images).logits
    assert not torch.equal(full, half)
    assert (full - half).abs().max() < 0.02 * full.abs().max()


@pytest.mark.parametrize(
    ("name", "packed", "half"),
    [("bisegunet_edge", 1_077_924, 631_966), ("bisegunet_half", 3_993_068, 2_273_814)],
)
def test_packed_files_have_the_size_of_their_bits(name: str, packed: int, half: int) -> None:
    model = create_model(name, 19)
    for layer in binary_layers(model).values():
        layer.binarize()
    state = freeze(model).state_dict()  # type: ignore[arg-type]
    assert state_bytes(state) == packed
    assert state_bytes(real_values(state, torch.float16)) == half
    weights = sum(layer.weight.numel() for layer in binary_layers(model).values())
    bits = state_bytes({key: value for key, value in state.items() if key.endswith(".bits")})
    assert weights / 8 <= bits < 1.05 * weights / 8
