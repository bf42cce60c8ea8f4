"""BSDNet's blocks against its equations and its published counts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtseg.benchmark.complexity import count_macs, count_parameters
from rtseg.models.bsdnet import (
    DASP,
    FCB,
    FFN,
    BSDNet,
    BSDNetClassifier,
    DECAttention,
    bsdnet_b,
    bsdnet_b_classifier,
    bsdnet_s,
    bsdnet_s_classifier,
    sctnet_b,
    sctnet_s,
)
from rtseg.models.bsdnet_blocks import StripeAttention
from rtseg.nn.depthwise import DepthwiseConv2d
from rtseg.ops.resize import resize_logits


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def deployed_count(model: BSDNet) -> int:
    """Count without the auxiliary head, which only training uses."""
    return count_parameters(model) - count_parameters(model.aux_head)


def sized(num_classes: int = 5, **switches: Any) -> BSDNet:
    """Build a network of width 16, fast enough for many tests."""
    return BSDNet(num_classes, **{"width": 16, "context_width": 16, **switches})


def unsettled(model: nn.Module) -> nn.Module:
    """Give norms random statistics and factors, stripes weights that matter; evaluation mode."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.uniform_(-0.5, 0.5)
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2.0)
        elif isinstance(module, StripeAttention):
            module.horizontal.data.normal_(std=0.1)
            module.vertical.data.normal_(std=0.1)
        elif isinstance(module, nn.Conv2d) and module.bias is not None:
            module.bias.data.uniform_(-0.5, 0.5)
    return model.eval()


# ---------------------------------------------------------------- counts
@pytest.mark.parametrize(
    ("build", "options", "expected"),
    [
        (bsdnet_s, {"num_classes": 19}, 4_354_355),
        (bsdnet_b, {"num_classes": 19}, 16_149_075),
        (bsdnet_s, {"num_classes": 11}, 4_353_323),
        (bsdnet_b, {"num_classes": 11}, 16_147_019),
        (bsdnet_s, {"num_classes": 150}, 4_371_254),
        (bsdnet_b, {"num_classes": 150}, 16_182_742),
        (sctnet_s, {"num_classes": 19}, 4_654_643),
        (sctnet_b, {"num_classes": 19}, 17_437_779),
        (bsdnet_s, {"num_classes": 19, "dasp_fuse": "concat"}, 4_501_811),
        (bsdnet_b, {"num_classes": 19, "dasp_fuse": "concat"}, 16_738_899),
        (bsdnet_b, {"num_classes": 19, "context": "aspp"}, 15_491_795),
        (bsdnet_b, {"num_classes": 19, "context": "dappm"}, 14_582_099),
        (bsdnet_b, {"num_classes": 19, "context": "dasp_max"}, 16_149_075),
        (bsdnet_b, {"num_classes": 19, "block": "resblock", "context": "dappm"}, 16_290_899),
    ],
)
def test_every_variant_has_its_parameter_count(
    build: Any, options: dict[str, Any], expected: int
) -> None:
    with torch.device("meta"):
        assert deployed_count(build(**options)) == expected


@pytest.mark.parametrize(
    ("block", "small", "base"),
    [
        ("resblock", 4_471_475, 17_857_875),
        ("segformer", 3_682_739, 14_642_003),
        ("gfa", 4_766_387, 19_037_523),
        ("mscan", 3_540_403, 13_931_347),
        ("cfblock", 5_044_915, 19_004_755),
        ("fcb", 4_354_355, 16_149_075),
    ],
)
def test_every_block_has_its_parameter_count(block: Any, small: int, base: int) -> None:
    with torch.device("meta"):
        assert deployed_count(bsdnet_s(19, block=block)) == small
        assert deployed_count(bsdnet_b(19, block=block)) == base


def test_classifiers_and_auxiliary_heads_have_their_parameter_counts() -> None:
    with torch.device("meta"):
        assert count_parameters(bsdnet_s_classifier(1000)) == 3_799_368
        assert count_parameters(bsdnet_b_classifier(1000)) == 13_424_296
        assert count_parameters(bsdnet_s(19).aux_head) == 38_419
        assert count_parameters(bsdnet_b(19).aux_head) == 150_547


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (
            bsdnet_s,
            [10_272, 37_248, 132_032, 526_208, 337_792, 295_680, 1_101_568, 1_101_568,
             661_440, 150_547],
        ),
        (
            bsdnet_b,
            [38_976, 148_224, 526_208, 2_100_992, 1_101_568, 1_181_184, 3_907_072, 3_907_072,
             2_641_792, 595_987],
        ),
    ],
)  # fmt: skip
def test_every_part_has_its_parameter_count(build: Any, expected: list[int]) -> None:
    with torch.device("meta"):
        model = build(19)
    trunk = model.backbone
    parts = [
        trunk.stem, trunk.layer1, trunk.layer2, trunk.layer3, trunk.fcb3, trunk.down4, trunk.fcb4,
        trunk.fcb5, model.context, model.head,
    ]  # fmt: skip
    assert [count_parameters(part) for part in parts] == expected
    assert deployed_count(model) == sum(expected)


def test_the_widest_block_is_made_of_attention_ffn_and_two_norms() -> None:
    with torch.device("meta"):
        block = FCB(512)
    assert count_parameters(block.attention) == 1_784_832
    assert count_parameters(block.ffn) == 2_120_192
    assert count_parameters(block.norm1) + count_parameters(block.norm2) == 2_048


@pytest.mark.parametrize(
    ("build", "small", "large"),
    [
        (bsdnet_s, 3.878, 31.021),
        (bsdnet_b, 14.410, 115.276),
        (sctnet_s, None, 32.026),
        (sctnet_b, None, 119.523),
    ],
)
def test_multiply_adds_are_those_worked_out(build: Any, small: float | None, large: float) -> None:
    with torch.device("meta"):
        model = build(19)
    assert count_macs(model, (1024, 2048)) / 1e9 == pytest.approx(large, abs=1e-3)
    if small is not None:
        assert count_macs(model, (512, 512)) / 1e9 == pytest.approx(small, abs=1e-3)


# ---------------------------------------------------------------- shapes
@pytest.mark.parametrize(
    ("size", "logits", "s16", "s32"),
    [
        ((64, 64), (8, 8), (4, 4), (2, 2)),
        ((97, 131), (13, 17), (7, 9), (4, 5)),
        ((360, 480), (45, 60), (23, 30), (12, 15)),
        ((33, 65), (5, 9), (3, 5), (2, 3)),
    ],
)
def test_sizes_are_rounded_up_at_each_halving(
    size: tuple[int, int], logits: tuple[int, int], s16: tuple[int, int], s32: tuple[int, int]
) -> None:
    model = sized(3).eval()
    seen: dict[str, Tensor] = {}
    for name in ("backbone.fcb3", "backbone.fcb5", "fuse"):
        model.get_submodule(name).register_forward_hook(
            lambda _m, _args, result, name=name: seen.__setitem__(name, result)
        )
    with torch.no_grad():
        output = model(torch.randn(1, 3, *size))
    assert output.logits.shape == (1, 3, *logits)
    assert seen["backbone.fcb3"].shape == (1, 64, *s16)
    assert seen["backbone.fcb5"].shape == (1, 128, *s32)
    assert seen["fuse"].shape == (1, 64, *logits)
    assert resize_logits(output.logits, size).shape == (1, 3, *size)


def test_auxiliary_logits_exist_in_training_only_and_come_from_the_details() -> None:
    model = sized(3)
    images = torch.randn(2, 3, 64, 64)
    (aux,) = model.train()(images).aux
    assert aux.shape == (2, 3, 8, 8)
    assert model.eval()(images).aux == ()
    aux.sum().backward()
    assert all(p.grad is None for p in model.backbone.layer3.parameters())
    assert all(p.grad is None for p in model.head.parameters())


def test_the_auxiliary_head_sees_the_details_before_the_relu() -> None:
    model = sized(3).train()
    seen: dict[str, Tensor] = {}
    model.backbone.layer2.register_forward_hook(lambda _m, _x, y: seen.__setitem__("layer2", y))
    model.aux_head.register_forward_pre_hook(lambda _m, x: seen.__setitem__("aux", x[0]))
    model(torch.randn(2, 3, 64, 64))
    assert seen["aux"].min() < 0
    assert torch.equal(seen["aux"], seen["layer2"])


def test_the_trunk_follows_its_diagram() -> None:
    model = unsettled(sized(3))
    trunk = model.backbone
    assert isinstance(trunk.layer1[0].act, nn.ReLU)
    assert isinstance(trunk.layer1[1].act, nn.Identity)
    images = torch.randn(1, 3, 64, 96)
    x = trunk.layer1(trunk.stem(images)).relu()
    detail = trunk.layer2(x)
    x = trunk.fcb3(trunk.layer3(detail.relu()).relu())
    deep = trunk.fcb5(trunk.fcb4(trunk.down4(x)).relu())
    wide = F.interpolate(model.context(deep), (8, 12), mode="bilinear", align_corners=False)
    expected = model.head(torch.cat([detail, wide], dim=1))
    torch.testing.assert_close(model(images).logits, expected)
    got = trunk(images)
    torch.testing.assert_close(got[0], detail)
    torch.testing.assert_close(got[1], deep)


def test_the_last_two_blocks_have_a_relu_between_them_unless_asked_otherwise() -> None:
    images = torch.randn(1, 3, 64, 64)
    model = unsettled(sized(3)).backbone
    plain = unsettled(sized(3, inter_block_relu=False)).backbone
    plain.load_state_dict(model.state_dict())
    before = plain.fcb4(plain.down4(plain.fcb3(plain.layer3(plain(images)[0].relu()).relu())))
    torch.testing.assert_close(plain(images)[1], plain.fcb5(before))
    torch.testing.assert_close(model(images)[1], model.fcb5(before.relu()))
    assert not torch.allclose(plain(images)[1], model(images)[1])


def test_one_residual_block_follows_its_equation() -> None:
    stage = unsettled(sized(3).backbone.layer2)
    x = torch.randn(1, 16, 9, 11)
    first, second = stage

    def body(block: Any, x: Tensor) -> Tensor:
        conv1, norm1, _, conv2, norm2 = block.body
        inner = F.conv2d(x, conv1.weight, conv1.bias, stride=conv1.stride, padding=1)
        return norm2(F.conv2d(norm1(inner).relu(), conv2.weight, conv2.bias, padding=1))

    conv, norm = first.shortcut
    shortcut = norm(F.conv2d(x, conv.weight, conv.bias, stride=2))
    middle = (body(first, x) + shortcut).relu()
    torch.testing.assert_close(first(x), middle)
    torch.testing.assert_close(second(middle), body(second, middle) + middle)
    assert first(x).shape == (1, 32, 5, 6)


# ---------------------------------------------------------------- FCB
def dec(channels: int = 8, **options: Any) -> DECAttention:
    block = DECAttention(channels, **{"norm": "l2", "gate": "none", **options})
    unsettled(block)
    return block


@pytest.mark.parametrize("gate", ["none", "sigmoid"])
def test_dec_attention_follows_its_equation(gate: str) -> None:
    block = dec(gate=gate)
    x = torch.randn(2, 8, 9, 11)
    dw, norm1, _, conv, norm2 = block.detail
    qkv = F.conv2d(x, block.qkv.weight, block.qkv.bias)
    assert qkv.shape[1] == 16
    inner = norm1(F.conv2d(qkv, dw.weight, dw.bias, padding=1, groups=16)).relu()
    details = norm2(F.conv2d(inner, conv.weight, conv.bias))
    attended = block.project(block.attention(x))
    factor = details.sigmoid() if gate == "sigmoid" else details
    torch.testing.assert_close(block(x), attended * factor)


def test_without_stripes_only_the_bias_of_the_projection_is_left() -> None:
    block = dec()
    nn.init.zeros_(block.attention.horizontal)
    nn.init.zeros_(block.attention.vertical)
    x = torch.randn(1, 8, 6, 7)
    expected = block.project.bias[:, None, None] * block.detail(block.qkv(x))
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("residual", [True, False])
def test_ffn_follows_its_description(residual: bool) -> None:
    ffn = unsettled(FFN(4, residual=residual))
    assert isinstance(ffn, FFN)
    x = torch.randn(1, 4, 6, 7)
    hidden = F.conv2d(x, ffn.widen.weight, ffn.widen.bias)
    assert hidden.shape[1] == 16
    mixed = F.conv2d(hidden, ffn.local.weight, ffn.local.bias, padding=1, groups=16)
    mixed = F.gelu(hidden + mixed if residual else mixed)
    torch.testing.assert_close(ffn(x), F.conv2d(mixed, ffn.narrow.weight, ffn.narrow.bias))


def test_fcb_normalises_after_each_sum() -> None:
    block = unsettled(FCB(8, drop_path=0.5))
    assert isinstance(block, FCB)
    x = torch.randn(2, 8, 5, 6)
    middle = block.norm1(x + block.attention(x))
    torch.testing.assert_close(block(x), block.norm2(middle + block.ffn(middle)))


def test_switches_reach_each_of_the_three_blocks() -> None:
    switches: dict[str, Any] = {
        "gdn_norm": "l1", "detail_gate": "sigmoid", "ffn_residual": False, "drop_path": 0.3,
    }  # fmt: skip
    classifier = BSDNetClassifier(3, width=16, **switches)
    for network in (sized(3, **switches), classifier):
        for name in ("fcb3", "fcb4", "fcb5"):
            block = getattr(network.backbone, name)
            assert block.attention.attention.norm == "l1"
            assert isinstance(block.attention.gate, nn.Sigmoid)
            assert not block.ffn.residual
            assert block.drop_path.probability == 0.3
    default = sized(3).backbone.fcb5
    assert isinstance(default.attention.gate, nn.Identity)
    assert (default.attention.attention.norm, default.ffn.residual) == ("l2", True)
    assert default.drop_path.probability == 0.1


# ---------------------------------------------------------------- DASP
@pytest.mark.parametrize("pool", ["avg", "max"])
@pytest.mark.parametrize("fuse", ["add", "concat"])
def test_dasp_follows_its_equation(pool: Any, fuse: Any) -> None:
    block = unsettled(DASP(6, 4, 5, pool=pool, fuse=fuse))
    assert isinstance(block, DASP)
    x = torch.randn(2, 6, 20, 23)

    def unit(m: Any, x: Tensor, dilation: int = 1) -> Tensor:
        padding = dilation * (m[0].weight.shape[-1] // 2)
        y = F.conv2d(x, m[0].weight, m[0].bias, padding=padding, dilation=dilation)
        return m[1](y).relu()

    def meet(a: Tensor, b: Tensor) -> Tensor:
        return a + b if fuse == "add" else torch.cat([a, b], dim=1)

    features = [unit(block.point, x)]
    for conv, smooth, dilation in zip(block.dilated, block.smooths, (6, 12, 18), strict=False):
        features.append(unit(smooth, meet(unit(conv, x, dilation), features[-1])))
    pooled = F.adaptive_avg_pool2d(x, 1) if pool == "avg" else F.adaptive_max_pool2d(x, 1)
    whole = F.conv2d(pooled, block.pooled[0].weight, block.pooled[0].bias).relu()
    whole = F.interpolate(whole, size=(20, 23), mode="nearest")
    features.append(unit(block.smooths[3], meet(whole, features[-1])))
    conv, norm = block.shortcut
    expected = unit(block.compress, torch.cat(features, dim=1)) + norm(
        F.conv2d(x, conv.weight, conv.bias)
    )
    torch.testing.assert_close(block(x), expected)


def test_kinds_of_pooling_agree_on_a_constant_and_differ_on_noise() -> None:
    average, largest = (unsettled(DASP(6, 4, 5, pool=pool)) for pool in ("avg", "max"))
    largest.load_state_dict(average.state_dict())
    assert count_parameters(average) == count_parameters(largest)
    constant = torch.randn(1, 6, 1, 1).expand(1, 6, 8, 9)
    torch.testing.assert_close(average(constant), largest(constant), rtol=0, atol=1e-6)
    noise = torch.randn(1, 6, 8, 9)
    assert not torch.allclose(average(noise), largest(noise), atol=1e-3)


def test_the_pooled_branch_has_no_norm_so_that_one_image_can_train() -> None:
    for context in ("dasp_avg", "aspp"):
        model = sized(3, context=context).train()
        assert not [m for m in model.context.pooled if isinstance(m, nn.BatchNorm2d)]
        loss = model(torch.randn(1, 3, 40, 32)).logits.square().mean()
        loss.backward()
        assert loss.isfinite()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


# ---------------------------------------------------------------- gradients, starting values
@pytest.mark.parametrize(
    "switches",
    [
        {},
        {"block": "cfblock", "context": "dappm"},
        {"block": "gfa", "context": "aspp"},
        {"block": "mscan", "context": "dasp_max"},
        {"block": "segformer", "width": 32},
        {"block": "resblock", "dasp_fuse": "concat"},
    ],
)
def test_every_weight_receives_a_gradient(switches: dict[str, Any]) -> None:
    model = sized(4, drop_path=0.0, **switches).train()
    output = model(torch.randn(2, 3, 96, 96))
    labels = torch.randint(0, 4, (2, 12, 12))
    loss = F.cross_entropy(output.logits, labels) + F.cross_entropy(output.aux[0], labels)
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # A shift that a later batch norm takes out again has none; those are all biases.
        assert name.endswith("bias") or parameter.grad.abs().max() > 0, name


def test_weights_start_as_sctnets_do() -> None:
    with torch.device("cpu"):
        model = bsdnet_s(19)
    weight = model.backbone.layer3[1].body[0].weight
    assert weight.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)
    down = model.backbone.down4[0].weight  # fan-out: of the 256 channels that come out
    assert down.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.02)
    kernels = model.backbone.fcb5.attention.attention.horizontal
    assert kernels.shape == (64, 256, 1, 7)
    assert kernels.std().item() == pytest.approx(0.001, rel=0.02)
    for head in (model.head, model.aux_head):
        assert head[-1].weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert bsdnet_s_classifier(50).classifier.weight.std().item() == pytest.approx(0.01, rel=0.1)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert (parameter == 0).all(), name
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {norm.eps for norm in norms} == {1e-5}


def test_dilated_convolutions_are_dense_and_depthwise_ones_the_safe_kind() -> None:
    model = bsdnet_s(3, block="mscan")
    for conv in (m for m in model.modules() if isinstance(m, nn.Conv2d)):
        assert conv.dilation == (1, 1) or conv.groups == 1
        assert conv.groups == 1 or isinstance(conv, DepthwiseConv2d)


# ---------------------------------------------------------------- classifier
def test_the_classifier_has_the_trunk_of_the_network() -> None:
    classifier, network = unsettled(bsdnet_s_classifier(7)), bsdnet_s(3)
    trunk = {
        key: value for key, value in classifier.state_dict().items() if key.startswith("backbone.")
    }
    missing, unexpected = network.load_state_dict(trunk, strict=False)
    assert unexpected == []
    assert not [key for key in missing if key.startswith("backbone.")]
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        deep = network.eval().backbone(images)[1]
        expected = F.linear(
            deep.mean(dim=(2, 3)), classifier.classifier.weight, classifier.classifier.bias
        )
        torch.testing.assert_close(classifier(images).logits, expected)
        torch.testing.assert_close(
            classifier.deployable()(images).logits, expected, rtol=1e-4, atol=1e-4
        )


# ---------------------------------------------------------------- deployment
def norms(model: nn.Module) -> set[str]:
    return {name for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}


@pytest.mark.parametrize("build", [bsdnet_s, bsdnet_b])
def test_deployable_keeps_seven_norms(build: Any) -> None:
    with torch.device("meta"):
        model = build(3)
    blocks = [f"backbone.fcb{index}.norm{n}" for index in (3, 4, 5) for n in (1, 2)]
    assert norms(model.deployable()) == {*blocks, "head.0"}


@pytest.mark.parametrize(
    "switches",
    [
        {},
        {"gdn_norm": "l1", "detail_gate": "sigmoid", "ffn_residual": False},
        {"block": "cfblock", "context": "dappm"},
        {"block": "gfa", "context": "dasp_max"},
        {"block": "mscan", "context": "aspp"},
    ],
)
def test_deployable_equals_the_original(switches: dict[str, Any]) -> None:
    model = unsettled(sized(3, **switches))
    kept = {key: value.clone() for key, value in model.state_dict().items()}
    fused = model.train().deployable()
    assert model.training
    assert not fused.training
    assert not list(fused.aux_head.parameters())
    x = torch.randn(2, 3, 61, 79)
    with torch.no_grad():
        expected, got = model.eval()(x).logits, fused(x).logits
    assert (expected - got).abs().max() <= 1e-5 * expected.abs().max()
    assert all(torch.equal(value, kept[key]) for key, value in model.state_dict().items())


def test_projection_folds_into_the_values_and_its_bias_is_added_once() -> None:
    block = dec()
    x = torch.randn(2, 8, 9, 11)
    expected = block.project(block.attention(x))
    folded = block.attention.fold(block.project)
    torch.testing.assert_close(folded(x), expected, rtol=0, atol=1e-5)
    shapes = {name: tuple(p.shape) for name, p in folded.named_parameters()}
    assert shapes == {
        "horizontal_keys.weight": (64, 8, 1, 7),
        "vertical_keys.weight": (64, 8, 7, 1),
        "horizontal_values.weight": (8, 64, 1, 7),
        "vertical_values.weight": (8, 64, 7, 1),
        "horizontal_values.bias": (8,),
    }


def test_inner_shortcut_folds_into_the_middle_tap() -> None:
    ffn = unsettled(FFN(4, residual=True))
    assert isinstance(ffn, FFN)
    x = torch.randn(1, 4, 6, 7)
    expected = ffn(x)
    ffn.fold()
    torch.testing.assert_close(ffn(x), expected, rtol=0, atol=1e-5)
    ffn.fold()  # folds once only
    torch.testing.assert_close(ffn(x), expected, rtol=0, atol=1e-5)


def test_deployed_network_saves_the_projection() -> None:
    with torch.device("meta"):
        model = bsdnet_b(19)
    saved = count_macs(model, (1024, 2048)) - count_macs(model.deployable(), (1024, 2048))
    assert saved == 256**2 * 64 * 128 + 2 * 512**2 * 32 * 64


# ---------------------------------------------------------------- learning
@pytest.mark.slow
@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_sixty_steps_learn_four_images_of_flat_quadrants(norm: Any) -> None:
    model = bsdnet_s(4, gdn_norm=norm).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-4)
    corners = torch.stack([torch.randperm(4) for _ in range(4)]).view(4, 2, 2)
    labels = corners.repeat_interleave(32, dim=1).repeat_interleave(64, dim=2)
    colors = torch.tensor([[2.0, 0, 0], [0, 2.0, 0], [0, 0, 2.0], [-1.0, -1.0, -1.0]])
    images = colors[labels].permute(0, 3, 1, 2) + 0.1 * torch.randn(4, 3, 64, 128)
    for _ in range(60):
        logits = resize_logits(model(images).logits, (64, 128))
        loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.5
    assert (logits.argmax(1) == labels).float().mean() > 0.95
