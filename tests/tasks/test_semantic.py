"""The semantic task: targets, loss, and masks at the size of the source image."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtseg.data.transforms import Preprocess
from rtseg.errors import ConfigError, DataError
from rtseg.losses.dice import dice_loss
from rtseg.structures import Batch, ImageMeta, Sample, SemanticOutput, SemanticTarget
from rtseg.tasks.fit import padded_source_size
from rtseg.tasks.semantic import SemanticTask
from training.toy import CLASSES, Pictures

TASK = SemanticTask(CLASSES)


class Fixed(nn.Module):
    """Return given logits whatever the image."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def forward(self, _: Tensor) -> Any:
        return self.output


def batch_of(labels: Tensor) -> Batch:
    return Batch(torch.zeros(len(labels), 3, 4, 4), SemanticTarget(labels), ())


@pytest.mark.parametrize("size", [(33, 47), (32, 64), (1, 1), (95, 31)])
def test_padding_is_cut_off_and_the_mask_has_the_source_size(size: tuple[int, int]) -> None:
    image = np.zeros((*size, 3), np.uint8)
    fitted = Preprocess(stride=32).fit(image, path="a.png")
    height, width = fitted.image.shape[-2:]
    torch.manual_seed(0)
    logits = torch.randn(1, 3, height // 8, width // 8)
    result = TASK.postprocess(SemanticOutput(logits), [fitted.meta])[0]
    plain = F.interpolate(logits, size=(height, width), mode="bilinear", align_corners=False)
    assert np.array_equal(result.mask, plain.argmax(1)[0, : size[0], : size[1]].numpy())
    assert result.mask.shape == size
    assert (result.source, result.names) == ("a.png", ("low", "middle", "high"))
    assert result.mask.dtype == np.uint8


def test_a_resized_image_gets_its_mask_at_source_size() -> None:
    fitted = Preprocess(stride=8, size=(20, 30)).fit(np.zeros((40, 60, 3), np.uint8))
    assert fitted.meta.padding == (4, 2)
    assert padded_source_size(fitted.meta) == (48, 64)
    logits = torch.zeros(1, 3, 24, 32)
    logits[:, 1, :20, :15] = 1  # the left half of the image, padding not counted
    mask = TASK.postprocess(SemanticOutput(logits), [fitted.meta])[0].mask
    assert mask.shape == (40, 60)
    assert (mask[:, :29] == 1).all()
    assert (mask[:, 31:] == 0).all()


def test_images_of_a_batch_may_have_different_sizes() -> None:
    metas = [ImageMeta("a", (5, 6), (5, 6), (3, 2)), ImageMeta("b", (8, 8), (8, 8), (0, 0))]
    results = TASK.postprocess(SemanticOutput(torch.randn(2, 3, 8, 8)), metas)
    assert [result.mask.shape for result in results] == [(5, 6), (8, 8)]


def test_confidence_is_the_share_of_the_chosen_class() -> None:
    logits = torch.log(torch.tensor([0.2, 0.5, 0.3])).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    meta = [ImageMeta("", (4, 4), (4, 4), (0, 0))]
    result = TASK.postprocess(SemanticOutput(logits), meta, confidence=True)[0]
    assert result.confidence is not None
    assert result.confidence.dtype == np.float16
    assert np.allclose(result.confidence, 0.5, atol=1e-3)
    assert TASK.postprocess(SemanticOutput(logits), meta)[0].confidence is None


def test_targets_are_stacked_as_integers_with_void() -> None:
    labels = np.array([[0, 1], [2, 255]], np.uint8)
    sample = Sample(np.zeros((2, 2, 3), np.uint8), {"semantic": labels})
    target = TASK.target([sample, sample]).labels
    assert target.dtype == torch.int64
    assert target.tolist() == [[[0, 1], [2, 255]]] * 2


def test_missing_labels_are_named_with_what_there_is() -> None:
    sample = Sample(np.zeros((2, 2, 3), np.uint8), {"lane": np.zeros((2, 2), np.uint8)}, path="a")
    with pytest.raises(DataError, match=r"a: has no semantic labels \(it has: lane\)"):
        TASK.target([sample])


def test_a_label_that_is_no_class_is_named() -> None:
    sample = Sample(np.zeros((1, 2, 3), np.uint8), {"semantic": np.array([[0, 3]], np.uint8)})
    with pytest.raises(DataError, match="label 3 is none of the 3 classes"):
        TASK.target([sample])


def test_the_loss_is_taken_at_label_size_and_leaves_void_out() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, 4)
    labels = torch.randint(0, 3, (2, 8, 8))
    labels[:, :2] = 255
    terms = TASK.training_step(Fixed(SemanticOutput(logits)), batch_of(labels))
    full = F.interpolate(logits, size=(8, 8), mode="bilinear", align_corners=False)
    expected = F.cross_entropy(full, labels, ignore_index=255)
    assert list(terms) == ["loss"]
    assert torch.allclose(terms["loss"], expected)


def test_class_weights_weigh_the_pixels_of_their_class() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(1, 3, 4, 4), torch.randint(0, 3, (1, 4, 4))
    weights = [1.0, 2.0, 5.0]
    task = SemanticTask(CLASSES, weights)
    loss = task.training_step(Fixed(SemanticOutput(logits)), batch_of(labels))["loss"]
    assert torch.allclose(loss, F.cross_entropy(logits, labels, torch.tensor(weights)))
    assert not torch.allclose(loss, F.cross_entropy(logits, labels))


def test_auxiliary_outputs_add_their_weighted_losses_as_one_term() -> None:
    torch.manual_seed(0)
    logits, first, second = (torch.randn(2, 3, side, side) for side in (4, 4, 2))
    labels = torch.randint(0, 3, (2, 8, 8))
    labels[:, :2] = 255
    network = Fixed(SemanticOutput(logits, (first, second)))
    weights = [1.0, 2.0, 5.0]
    terms = SemanticTask(CLASSES, weights, aux_weight=0.4).training_step(network, batch_of(labels))
    assert list(terms) == ["loss", "aux"]

    def plain(x: Tensor) -> Tensor:
        full = F.interpolate(x, size=(8, 8), mode="bilinear", align_corners=False)
        return F.cross_entropy(full, labels, torch.tensor(weights), ignore_index=255)

    assert torch.allclose(terms["loss"], plain(logits))
    assert torch.allclose(terms["aux"], 0.4 * (plain(first) + plain(second)))
    assert list(TASK.training_step(network, batch_of(labels))) == ["loss"]


def test_auxiliary_outputs_share_the_kind_of_loss() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(1, 3, 16, 16) * 4, torch.randint(0, 3, (1, 16, 16))
    network = Fixed(SemanticOutput(logits, (logits,)))
    for options in ({"loss": "ohem"}, {"label_smoothing": 0.3}):
        task = SemanticTask(CLASSES, aux_weight=0.5, **options)
        terms = task.training_step(network, batch_of(labels))
        assert torch.allclose(terms["aux"], 0.5 * terms["loss"])


def test_a_weight_for_auxiliary_outputs_that_do_not_exist_is_refused() -> None:
    task = SemanticTask(CLASSES, aux_weight=0.4)
    with pytest.raises(
        ConfigError, match=r"task\.aux_weight: the network has no auxiliary outputs"
    ):
        task.training_step(
            Fixed(SemanticOutput(torch.zeros(1, 3, 4, 4))), batch_of(torch.zeros(1, 4, 4).long())
        )


@pytest.mark.parametrize("name", ["dice_weight", "aux_weight"])
def test_a_negative_weight_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"task\.{name}: -0\.1 is negative"):
        SemanticTask(CLASSES, **{name: -0.1})


def test_weights_for_another_number_of_classes_are_refused() -> None:
    with pytest.raises(ConfigError, match="2 weights for 3 classes"):
        SemanticTask(CLASSES, [1.0, 2.0])


def test_hard_example_mining_differs_from_the_plain_loss() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(1, 3, 16, 16) * 4, torch.randint(0, 3, (1, 16, 16))
    losses = [
        SemanticTask(CLASSES, loss=name).training_step(
            Fixed(SemanticOutput(logits)), batch_of(labels)
        )["loss"]
        for name in ("ce", "ohem")
    ]
    assert losses[1] > losses[0]


def test_smooth_labels_reach_the_cross_entropy() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(1, 3, 4, 4), torch.randint(0, 3, (1, 4, 4))
    task = SemanticTask(CLASSES, label_smoothing=0.2)
    loss = task.training_step(Fixed(SemanticOutput(logits)), batch_of(labels))["loss"]
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels, label_smoothing=0.2))


@pytest.mark.parametrize(("classes", "every"), [("present", False), ("all", True)])
def test_dice_is_a_weighted_term_beside_the_loss(
    classes: Literal["present", "all"], every: bool
) -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 3, 4, 4), torch.randint(0, 2, (2, 8, 8))
    labels[:, :2] = 255
    task = SemanticTask(CLASSES, dice_weight=0.25, dice_classes=classes)
    batch, model = batch_of(labels), Fixed(SemanticOutput(logits))
    terms = task.training_step(model, batch)
    assert list(terms) == ["loss", "dice"]
    assert torch.equal(terms["loss"], TASK.training_step(model, batch)["loss"])
    full = F.interpolate(logits, size=(8, 8), mode="bilinear", align_corners=False)
    expected = 0.25 * dice_loss(full, labels, all_classes=every)
    torch.testing.assert_close(terms["dice"], expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_smoothing": 1.0}, r"task.label_smoothing: 1.0 is outside"),
        ({"label_smoothing": -0.1}, r"task.label_smoothing: -0.1 is outside"),
        ({"label_smoothing": 0.1, "loss": "ohem"}, r"'ohem' has no smooth labels"),
        ({"dice_weight": -1.0}, r"task.dice_weight: -1.0 is negative"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SemanticTask(CLASSES, **options)


def test_a_network_that_returns_a_plain_tensor_is_told_what_to_return() -> None:
    with pytest.raises(ConfigError, match=r"returns Tensor.*SemanticOutput"):
        TASK.training_step(Fixed(torch.zeros(1, 3, 4, 4)), batch_of(torch.zeros(1, 4, 4).long()))


def test_a_network_with_another_number_of_outputs_is_refused() -> None:
    output = SemanticOutput(torch.zeros(1, 5, 4, 4))
    with pytest.raises(ConfigError, match="5 outputs for 3 classes"):
        TASK.training_step(Fixed(output), batch_of(torch.zeros(1, 4, 4).long()))


def test_the_metric_knows_the_names_of_the_classes() -> None:
    sample = Pictures(1)[0]
    metric = TASK.new_metric()
    labels = torch.from_numpy(sample.labels["semantic"])[None]
    meta = [ImageMeta("", (16, 20), (16, 20), (0, 0))]
    output = SemanticOutput(F.one_hot(labels.long(), 3).permute(0, 3, 1, 2).float())
    metric.update(TASK.postprocess(output, meta)[0], SemanticTarget(labels))
    assert metric.compute()["miou"] == 1.0
    assert [row["name"] for row in metric.per_class()] == ["low", "middle", "high"]
