"""BiSeNetFormer's blocks against its equations and its published counts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rtseg.benchmark.complexity import count_macs, count_parameters
from rtseg.models.bisenetformer import (
    ARM,
    FFM,
    Attention,
    BiSeNetFormer,
    ContextPath,
    DecoderLayer,
    Heads,
    ResNet50,
    SumMerge,
    attention_bias,
    bisenetformer_r50,
    bisenetformer_stdc1,
    bisenetformer_stdc2,
    position_code,
)
from rtseg.structures import MaskOutput

SMALL: dict[str, Any] = {
    "backbone": "stdc1", "base_width": 8, "queries": 12, "feature_dim": 16, "ffn_dim": 32,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def small(num_classes: int = 5, **switches: Any) -> BiSeNetFormer:
    return BiSeNetFormer(num_classes, **{**SMALL, **switches})


def warm(model: Any) -> Any:
    """Give every batch norm its own factors and statistics; return the model in evaluation."""
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.weight.data.uniform_(0.5, 1.5)
            norm.bias.data.uniform_(-0.5, 0.5)
            norm.running_mean.uniform_(-0.5, 0.5)
            norm.running_var.uniform_(0.5, 1.5)
    return model.eval()


def counted(builder: Any, num_classes: int = 19, **switches: Any) -> int:
    with torch.device("meta"):
        return count_parameters(builder(num_classes, **switches))


def training_macs(model: Any, size: tuple[int, int]) -> int:
    """Multiply-adds for one image with every prediction made, as in training."""
    model.requires_grad_(requires_grad=False).eval()
    model.decoder.train()
    counter = FlopCounterMode(display=False)
    with counter:
        model(torch.empty(1, 3, *size, device="meta"))
    return int(counter.get_total_flops()) // 2


# ---------------------------------------------------------------- counts
M_SIZE = {"feature_dim": 96, "ffn_dim": 512, "decoder_layers": 4}


@pytest.mark.parametrize(
    ("builder", "switches", "classes19", "classes150"),
    [
        (bisenetformer_stdc1, {}, 13_100_340, 13_134_007),
        (bisenetformer_stdc2, {}, 17_130_804, 17_164_471),
        (bisenetformer_r50, {}, 31_650_516, 31_684_183),
        (bisenetformer_stdc2, M_SIZE, 13_503_124, 13_536_791),
        (bisenetformer_stdc1, {"base_width": 32}, 8_935_908, 8_969_575),
        (bisenetformer_stdc2, {"ffm": "concat3"}, 17_359_668, 17_393_335),
        (bisenetformer_stdc2, {"ffm": "concat1"}, 17_114_164, 17_147_831),
    ],
)
def test_parameters_are_exact(
    builder: Any, switches: dict[str, Any], classes19: int, classes150: int
) -> None:
    assert counted(builder, 19, **switches) == classes19
    assert counted(builder, 150, **switches) == classes150


STAGES = [
    (2, 2, 12_917_044, 76.87),
    (2, 4, 15_023_924, 79.80),
    (2, 6, 17_130_804, 82.74),
    (3, 3, 14_003_508, 84.45),
    (3, 6, 17_163_828, 93.89),
    (3, 9, 20_324_148, 103.33),
]


@pytest.mark.parametrize(("levels", "layers", "parameters", "_"), STAGES)
def test_ablation_of_levels_and_stages_has_its_parameters(
    levels: Any, layers: int, parameters: int, _: float
) -> None:
    switches = {"decoder_levels": levels, "decoder_layers": layers}
    assert counted(bisenetformer_stdc2, **switches) == parameters


@pytest.mark.slow
@pytest.mark.parametrize(("levels", "layers", "_", "gmacs"), STAGES)
def test_ablation_of_levels_and_stages_has_its_multiply_adds(
    levels: Any, layers: int, _: int, gmacs: float
) -> None:
    with torch.device("meta"):
        model = bisenetformer_stdc2(19, decoder_levels=levels, decoder_layers=layers)
    assert round(training_macs(model, (1024, 2048)) / 1e9, 2) == gmacs


@pytest.mark.parametrize(
    ("queries", "parameters"), [(50, 17_105_204), (100, 17_130_804), (200, 17_182_004)]
)
def test_ablation_of_queries_has_its_counts(queries: int, parameters: int) -> None:
    assert counted(bisenetformer_stdc2, queries=queries) == parameters


@pytest.mark.parametrize(
    ("builder", "macs512", "macs1024", "evaluated512"),
    [
        (bisenetformer_stdc1, 7_657_361_408, 56_361_226_240, 7_388_868_608),
        pytest.param(
            bisenetformer_stdc2,
            10_954_084_352,
            82_735_009_792,
            10_685_591_552,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            bisenetformer_r50,
            25_313_546_240,
            197_609_787_392,
            25_045_053_440,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_multiply_adds_are_exact_and_fewer_in_evaluation(
    builder: Any, macs512: int, macs1024: int, evaluated512: int
) -> None:
    with torch.device("meta"):
        model = builder(19)
    assert training_macs(model, (512, 512)) == macs512
    assert training_macs(model, (1024, 2048)) == macs1024
    assert count_macs(model, (512, 512)) == evaluated512 < macs512


def test_every_stage_has_its_parameter_count() -> None:
    with torch.device("meta"):
        model: Any = bisenetformer_stdc2(19)
        resnet: Any = bisenetformer_r50(19)
    context, decoder = model.context, model.decoder
    stages = {
        model.backbone: 9_348_768,
        context.arm32: 295_424,
        context.mean32: 131_328,
        context.up32: 147_712,
        context.arm16: 229_888,
        context.up16: 147_712,
        model.ffm: 74_240 + 147_712,
        decoder.project: 66_048,
        decoder.layers: 6 * 1_053_440,
        decoder.heads: 512 + 257 * 20 + 164_480,
    }
    for stage, expected in stages.items():
        assert count_parameters(stage) == expected
    assert count_parameters(model) == sum(stages.values()) + 51_200
    found = [count_parameters(m) for m in (resnet.backbone, resnet.context.arm32)]
    assert found == [23_508_032, 426_496]


# ---------------------------------------------------------------- shapes
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    ("size", "masks"), [((97, 131), (13, 17)), ((33, 65), (5, 9)), ((32, 32), (4, 4))]
)
def test_any_size_gives_masks_at_an_eighth(
    size: tuple[int, int], masks: tuple[int, int], batch: int
) -> None:
    output = small().eval()(torch.randn(batch, 3, *size))
    assert type(output) is MaskOutput
    assert output.class_logits.shape == (batch, 12, 6)
    assert output.mask_logits.shape == (batch, 12, *masks)
    assert output.aux == ()


def test_training_gives_a_prediction_before_every_layer() -> None:
    output = small().train()(torch.randn(2, 3, 33, 65))
    assert len(output.aux) == 6
    for item in (output, *output.aux):
        assert item.class_logits.shape == (2, 12, 6)
        assert item.mask_logits.shape == (2, 12, 5, 9)
        assert all(part.aux == () for part in output.aux)


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="2 layers cannot read 3 levels"):
        small(decoder_levels=3, decoder_layers=2)
    with pytest.raises(ValueError, match="only STDC backbones"):
        small(backbone="r50", base_width=32)


# ---------------------------------------------------------------- backbone and context path
def test_resnet_trunk_takes_the_weights_of_torchvision_by_a_prefix() -> None:
    from torchvision.models import resnet50

    whole, trunk = resnet50(weights=None), ResNet50()
    state = whole.state_dict()
    result = trunk.load_state_dict(state, strict=False)
    assert result.missing_keys == []
    assert set(result.unexpected_keys) == {"fc.weight", "fc.bias"}
    whole, trunk = whole.eval(), trunk.eval()
    seen: list[Tensor] = []
    for stage in (whole.layer2, whole.layer3, whole.layer4):
        stage.register_forward_hook(lambda _m, _i, out: seen.append(out))
    images = torch.randn(1, 3, 64, 96)
    whole(images)
    for mine, other, channels in zip(trunk(images), seen, trunk.channels, strict=True):
        assert torch.equal(mine, other)
        assert mine.shape[1] == channels


def test_fused_resnet_equals_the_original() -> None:
    trunk = warm(ResNet50())
    images = torch.randn(1, 3, 64, 64)
    expected = trunk(images)
    trunk.fuse()
    assert not [m for m in trunk.modules() if isinstance(m, nn.BatchNorm2d)]
    for got, want in zip(trunk(images), expected, strict=True):
        assert (got - want).abs().max() <= 1e-5 * want.abs().max()


def test_arm_gates_refined_features_by_their_mean() -> None:
    arm = warm(ARM(10, 4))
    x = torch.randn(2, 10, 5, 6)
    features = F.conv2d(F.conv2d(x, arm.reduce.weight), arm.conv.conv.weight, padding=1)
    features = arm.conv.norm(features).relu()
    gate = arm.gate.norm(F.conv2d(features.mean((2, 3), keepdim=True), arm.gate.conv.weight))
    torch.testing.assert_close(arm(x), features * gate.sigmoid())


def test_context_path_follows_its_equations() -> None:
    path = warm(ContextPath((6, 8, 10), 4))
    eighth, sixteenth, last = (
        torch.randn(2, c, h, w) for c, h, w in ((6, 9, 13), (8, 5, 7), (10, 3, 4))
    )

    def up(x: Tensor, size: tuple[int, int], block: Any) -> Tensor:
        return block(F.interpolate(x, size=size, mode="bilinear", align_corners=False))

    f1 = path.arm32(last) + path.mean32(last.mean((2, 3), keepdim=True))
    f2 = path.arm16(sixteenth) + up(f1, (5, 7), path.up32)
    f3 = up(f2, (9, 13), path.up16)
    for got, expected in zip(path(eighth, sixteenth, last), (f1, f2, f3), strict=True):
        torch.testing.assert_close(got, expected)


# ---------------------------------------------------------------- fusion
@pytest.mark.parametrize("form", ["proj", "concat1", "concat3"])
def test_fusion_follows_its_equations(form: Any) -> None:
    ffm = warm(FFM(6, 8, form=form))
    spatial, context = torch.randn(2, 6, 5, 7), torch.randn(2, 8, 5, 7)
    merge = ffm.merge
    if form == "proj":
        joint = merge.project_spatial(spatial) + merge.project_context(context)
        y = merge.mix.norm(F.conv2d(joint, merge.mix.conv.weight)).relu()
    else:
        padding = 1 if form == "concat3" else 0
        joint = torch.cat([spatial, context], 1)
        y = merge.conv.norm(F.conv2d(joint, merge.conv.conv.weight, padding=padding)).relu()
    mean = y.mean((2, 3), keepdim=True)
    s = F.conv2d(F.conv2d(mean, ffm.squeeze.weight).relu(), ffm.excite.weight).sigmoid()
    expected = y * s + y
    if form != "concat3":
        expected = ffm.refine(expected)
    torch.testing.assert_close(ffm(spatial, context), expected)


def test_fused_merge_is_one_convolution_and_equal() -> None:
    merge = warm(SumMerge(6, 8))
    for conv in (merge.project_spatial, merge.project_context):
        conv.bias.data.normal_()
    fused = merge.fused().eval()
    assert [type(m) for m in fused.modules() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d))] == [
        nn.Conv2d
    ]
    spatial, context = torch.randn(2, 6, 5, 7), torch.randn(2, 8, 5, 7)
    torch.testing.assert_close(
        fused(spatial, context), merge(spatial, context), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    "switches", [{}, {"backbone": "r50", "base_width": 64}, {"ffm": "concat1"}]
)
def test_deployable_has_no_batch_norm_and_equals_the_original(switches: dict[str, Any]) -> None:
    model = warm(small(**switches)).train()
    fused = model.deployable()
    assert model.training
    assert not fused.training
    assert not [m for m in fused.modules() if isinstance(m, nn.BatchNorm2d)]
    images = torch.randn(2, 3, 64, 96)
    expected, got = model.eval()(images), fused(images)
    for name in ("class_logits", "mask_logits"):
        want = getattr(expected, name)
        assert (getattr(got, name) - want).abs().max() <= 1e-4 * want.abs().max()


# ---------------------------------------------------------------- attention
def test_position_code_is_worked_out_by_hand() -> None:
    code = position_code(2, 4, like=torch.zeros(1)).view(2, 4, 256)
    assert code.dtype == torch.float32
    # Row 1 of 2 is half a turn, column 3 of 4 three quarters; the first pair has period 1.
    assert code[0, 2, 0].item() == pytest.approx(math.sin(math.pi), abs=1e-5)
    assert code[0, 2, 1].item() == pytest.approx(math.cos(math.pi), abs=1e-5)
    assert code[0, 2, 128].item() == pytest.approx(math.sin(1.5 * math.pi), abs=1e-5)
    assert code[0, 2, 129].item() == pytest.approx(math.cos(1.5 * math.pi), abs=1e-5)
    # The second pair has period 10000^(2/128).
    slow = 2 * math.pi / 10000 ** (2 / 128)
    assert code[1, 2, 2].item() == pytest.approx(math.sin(slow), abs=1e-5)
    assert code[1, 2, 3].item() == pytest.approx(math.cos(slow), abs=1e-5)
    assert code[1, 0, 254].item() == pytest.approx(
        math.sin(0.5 * math.pi / 10000 ** (126 / 128)), abs=1e-6
    )
    assert position_code(2, 4, like=torch.zeros(1).half()).dtype == torch.float16


def test_mask_blocks_negative_logits_and_opens_what_would_see_nothing() -> None:
    logits = torch.tensor([[[-1.0, -2, -3], [-1, 4, -1], [0, -1e-6, 1e-6]]])
    bias = attention_bias(logits)
    assert bias.shape == (1, 1, 3, 3)
    shut = -math.inf
    assert bias[0, 0].tolist() == [[0, 0, 0], [shut, 0, shut], [0, shut, 0]]
    assert attention_bias(logits.half()).dtype == torch.float16


@pytest.mark.parametrize("form", ["matmul", "sdpa"])
@pytest.mark.parametrize("masked", [True, False])
def test_attention_equals_that_of_torch_under_the_same_weights(form: Any, masked: bool) -> None:
    mine, other = Attention(form=form), nn.MultiheadAttention(256, 8, batch_first=True)
    nn.init.normal_(other.in_proj_bias)
    nn.init.normal_(other.out_proj.bias)
    mine.load_state_dict(other.state_dict())
    q, k, v = (torch.randn(2, n, 256) for n in (3, 5, 5))
    bias, mask = None, None
    if masked:
        bias = attention_bias(torch.randn(2, 3, 5))
        mask = bias.expand(2, 8, 3, 5).reshape(16, 3, 5)
    expected, _ = other(q, k, v, attn_mask=mask)
    torch.testing.assert_close(mine(q, k, v, bias), expected, rtol=1e-4, atol=1e-5)


def test_packed_projection_equals_three_linear_layers() -> None:
    attention = Attention(form="matmul")
    nn.init.normal_(attention.in_proj_bias)
    split = [nn.Linear(256, 256) for _ in range(3)]
    for index, linear in enumerate(split):
        rows = slice(256 * index, 256 * (index + 1))
        linear.load_state_dict(
            {"weight": attention.in_proj_weight[rows], "bias": attention.in_proj_bias[rows]}
        )
    q, k, v = (torch.randn(1, n, 256) for n in (3, 5, 5))
    query, key, value = (linear(x)[0] for linear, x in zip(split, (q, k, v), strict=True))
    parts = []
    for head in range(8):
        part = slice(32 * head, 32 * (head + 1))
        weights = (query[:, part] @ key[:, part].T / math.sqrt(32)).softmax(-1)
        parts.append(weights @ value[:, part])
    expected = attention.out_proj(torch.cat(parts, 1))
    torch.testing.assert_close(attention(q, k, v)[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pre_norm", [True, False])
def test_decoder_layer_looks_at_the_image_then_among_itself_then_thinks(pre_norm: bool) -> None:
    layer: Any = DecoderLayer(24, pre_norm=pre_norm, attention="matmul")
    for norm in (layer.norm1, layer.norm2, layer.norm3):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    x, position = torch.randn(2, 4, 256), torch.randn(4, 256)
    key, value = torch.randn(2, 6, 256), torch.randn(2, 6, 256)
    bias = attention_bias(torch.randn(2, 4, 6))

    def among(t: Tensor) -> Tensor:
        return layer.self_attention(t + position, t + position, t)

    def think(t: Tensor) -> Tensor:
        return layer.shrink(F.relu(layer.expand(t)))

    if pre_norm:
        y = x + layer.cross(layer.norm1(x) + position, key, value, bias)
        y = y + among(layer.norm2(y))
        y = y + think(layer.norm3(y))
    else:
        y = layer.norm1(x + layer.cross(x + position, key, value, bias))
        y = layer.norm2(y + among(y))
        y = layer.norm3(y + think(y))
    torch.testing.assert_close(layer(x, position, key, value, bias), y)
    assert {norm.eps for norm in (layer.norm1, layer.norm2, layer.norm3)} == {1e-5}


def test_heads_multiply_embeddings_with_features() -> None:
    heads: Any = Heads(5, 7)
    nn.init.normal_(heads.norm.weight)
    x, features = torch.randn(2, 4, 256), torch.randn(2, 7, 3, 5)
    normed = heads.norm(x)
    hidden = heads.embed[2](heads.embed[0](normed).relu()).relu()
    masks = torch.einsum("bnc,bcyx->bnyx", heads.embed[4](hidden), features)
    output = heads(x, features)
    torch.testing.assert_close(output.mask_logits, masks)
    torch.testing.assert_close(output.class_logits, heads.classes(normed))
    one = heads(x[:1], features)  # queries that do not depend on the image yet
    assert one.class_logits.shape == (2, 4, 6)
    torch.testing.assert_close(one.mask_logits[:1], masks[:1])


# ---------------------------------------------------------------- decoder
@pytest.mark.parametrize("levels", [2, 3])
def test_layers_take_the_levels_in_turn_coarse_first(levels: Any) -> None:
    model: Any = small(decoder_levels=levels).eval()
    seen: list[int] = []
    for layer in model.decoder.layers:
        layer.register_forward_pre_hook(lambda _m, args: seen.append(args[2].shape[1]))
    model(torch.randn(1, 3, 64, 96))
    sizes = [2 * 3, 4 * 6, 8 * 12][:levels]
    assert seen == (sizes * 3)[:6]


def test_keys_carry_positions_and_values_do_not() -> None:
    model: Any = small().eval()
    seen: list[tuple[Tensor, Tensor]] = []
    model.decoder.layers[1].register_forward_pre_hook(
        lambda _m, args: seen.append((args[2], args[3]))
    )
    levels: list[Tensor] = []
    model.decoder.project[1].register_forward_hook(lambda _m, _i, out: levels.append(out))
    model(torch.randn(1, 3, 64, 96))
    key, value = seen[0]
    torch.testing.assert_close(value, levels[0].flatten(2).transpose(1, 2))
    torch.testing.assert_close(key - value, position_code(4, 6, like=key).expand_as(key))


@pytest.mark.parametrize("switches", [{}, {"decoder_levels": 3}, {"masked_attention": False}])
def test_evaluation_predicts_what_the_last_layer_of_training_predicts(
    switches: dict[str, Any],
) -> None:
    model: Any = warm(small(**switches))
    images = torch.randn(2, 3, 97, 131)
    short = model(images)
    model.decoder.train()
    long = model(images)
    assert len(long.aux) == 6
    torch.testing.assert_close(short.class_logits, long.class_logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(short.mask_logits, long.mask_logits, rtol=1e-4, atol=1e-4)


def test_masks_of_a_level_are_the_resized_masks() -> None:
    heads = Heads(5, 16)
    x, features = torch.randn(2, 4, 256), torch.randn(2, 16, 13, 17)
    full = F.interpolate(
        heads.masks(x, features), size=(4, 5), mode="bilinear", align_corners=False
    )
    small_features = F.interpolate(features, size=(4, 5), mode="bilinear", align_corners=False)
    torch.testing.assert_close(heads.masks(x, small_features), full, rtol=0, atol=1e-5)


@pytest.mark.parametrize("masked", [True, False])
def test_masks_steer_the_attention_unless_switched_off(masked: bool) -> None:
    model: Any = warm(small(masked_attention=masked))
    biases: list[Any] = []
    for layer in model.decoder.layers:
        layer.register_forward_pre_hook(lambda _m, args: biases.append(args[4]))
    model(torch.randn(1, 3, 64, 96))
    assert len(biases) == 6
    assert all((bias is not None) == masked for bias in biases)
    assert all(bias.isinf().any() for bias in biases if masked)


def test_masks_that_are_negative_everywhere_leave_the_output_finite() -> None:
    model: Any = warm(small())
    for conv in (model.ffm.refine.norm,):  # features of exactly one
        nn.init.zeros_(conv.weight)
        nn.init.ones_(conv.bias)
    last = model.decoder.heads.embed[4]
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, -1.0)
    biases: list[Tensor] = []
    for layer in model.decoder.layers:
        layer.register_forward_pre_hook(lambda _m, args: biases.append(args[4]))
    output = model(torch.randn(1, 3, 64, 96))
    assert (output.mask_logits == -16).all()
    assert all((bias == 0).all() for bias in biases)
    assert output.class_logits.isfinite().all()


def test_permuting_the_queries_permutes_the_predictions() -> None:
    model: Any = warm(small())
    images = torch.randn(1, 3, 64, 96)
    before = model(images)
    order = torch.randperm(12)
    model.decoder.q_feat.data = model.decoder.q_feat.data[order]
    model.decoder.q_pos.data = model.decoder.q_pos.data[order]
    after = model(images)
    for name in ("class_logits", "mask_logits"):
        torch.testing.assert_close(
            getattr(after, name), getattr(before, name)[:, order], rtol=1e-4, atol=1e-5
        )


def test_images_of_a_batch_do_not_influence_each_other_in_evaluation() -> None:
    model = warm(small())
    images = torch.randn(3, 3, 64, 96)
    together = model(images)
    for index in range(3):
        alone = model(images[index : index + 1])
        torch.testing.assert_close(
            together.mask_logits[index], alone.mask_logits[0], rtol=1e-4, atol=1e-5
        )
        torch.testing.assert_close(
            together.class_logits[index], alone.class_logits[0], rtol=1e-4, atol=1e-5
        )


def test_both_forms_of_attention_agree() -> None:
    plain, fused = warm(small()), small(attention="sdpa").eval()
    fused.load_state_dict(plain.state_dict())
    images = torch.randn(2, 3, 64, 96)
    torch.testing.assert_close(
        plain(images).mask_logits, fused(images).mask_logits, rtol=1e-4, atol=1e-5
    )


# ---------------------------------------------------------------- gradients and initial weights
def loss_of(output: MaskOutput) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    total = torch.zeros(())
    for item in (output, *output.aux):
        for part in (item.class_logits, item.mask_logits):
            total = total + (part * torch.randn(part.shape, generator=generator)).sum()
    return total


@pytest.mark.parametrize("switches", [{}, {"decoder_levels": 3}, {"pre_norm": False}])
def test_every_parameter_receives_a_gradient(switches: dict[str, Any]) -> None:
    model = small(**switches).train()
    loss_of(model(torch.randn(2, 3, 64, 96))).backward()
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        assert gradient is not None, name
        assert gradient.isfinite().all(), name
        if name.endswith("in_proj_bias"):
            # A bias of all keys shifts each query's scores by one number: the softmax drops it.
            query, key, value = gradient.abs().amax(0, keepdim=True), *gradient.chunk(3)[1:]
            assert key.abs().max() <= 1e-4 * max(1.0, float(gradient.abs().max())), name
            assert query.any(), name
            assert value.any(), name
        else:
            assert gradient.any(), name


def test_no_gradient_flows_through_attention_masks() -> None:
    logits = torch.randn(1, 2, 5, requires_grad=True)
    assert not attention_bias(logits).requires_grad


def test_one_image_in_training_is_refused_by_the_batch_norm() -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        small().train()(torch.randn(1, 3, 64, 96))


def test_initial_weights_follow_mask2former_and_stdc() -> None:
    model: Any = small(feature_dim=128, ffn_dim=1024)
    layer, decoder = model.decoder.layers[0], model.decoder
    for weight, bound in (
        (layer.cross.in_proj_weight, math.sqrt(6 / (256 + 768))),
        (layer.self_attention.out_proj.weight, math.sqrt(6 / 512)),
        (layer.expand.weight, math.sqrt(6 / 1280)),
        (decoder.project[0].weight, math.sqrt(6 / 2 / 128)),
    ):
        assert weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    for bias in (layer.cross.in_proj_bias, layer.cross.out_proj.bias, decoder.project[1].bias):
        assert not bias.any()
    weight = model.context.up32.conv.weight
    assert weight.std().item() == pytest.approx(math.sqrt(1 / (128 * 9)), rel=0.02)
    assert model.ffm.squeeze.weight.std().item() == pytest.approx(math.sqrt(1 / 128), rel=0.05)
    assert not model.ffm.merge.project_context.bias.any()
    assert decoder.q_feat.std().item() == pytest.approx(1, rel=0.1)
    assert decoder.q_pos.mean().item() == pytest.approx(0, abs=0.1)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-5, 0.1)}


# ---------------------------------------------------------------- deployment
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_finite_and_near_float32(dtype: torch.dtype) -> None:
    # Without masks: a logit near 0 that changes its sign opens or closes a pixel.
    model = warm(small(masked_attention=False))
    images = torch.randn(1, 3, 64, 96)
    expected = model(images).mask_logits
    got = model.to(dtype)(images.to(dtype)).mask_logits
    assert got.dtype == dtype
    assert (got.float() - expected).norm() < 0.1 * expected.norm()
    masked = warm(small()).to(dtype)(images.to(dtype))
    assert masked.mask_logits.isfinite().all()
    assert masked.class_logits.dtype == dtype


def test_autocast_trains_with_finite_gradients() -> None:
    model = small().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(torch.randn(2, 3, 64, 96))
    loss_of(MaskOutput(*(t.float() for t in output[:2]))).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["matmul", "sdpa"])
def test_strict_export_equals_eager_and_holds_no_indexing(attention: Any) -> None:
    model = warm(small(decoder_layers=2, attention=attention)).deployable()
    images = torch.randn(2, 3, 61, 79)
    program = torch.export.export(model, (images,), strict=True)
    expected, got = model(images), program.module()(images)
    torch.testing.assert_close(got.class_logits, expected.class_logits)
    torch.testing.assert_close(got.mask_logits, expected.mask_logits)
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    assert calls
    for node in calls:
        name = str(node.target)
        assert not any(word in name for word in ("nonzero", "index_put", "scatter", "masked")), name
        value = node.meta.get("val")
        if isinstance(value, Tensor) and value.ndim == 4:  # no mask leaves the 1/8 grid
            assert not (value.shape[1] == 12 and value.shape[2] > 8), name
