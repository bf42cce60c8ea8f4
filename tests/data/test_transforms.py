from __future__ import annotations

import numpy as np
import pytest

from rtseg import config
from rtseg.data.synthetic import Synthetic
from rtseg.data.transforms import AUGMENTS, Preprocess

SECTIONS = {
    "crop": {
        "crop": [48, 64], "base_size": [64, 128], "scale_range": [0.5, 2], "flip": 0.5,
        "max_class_share": 0.75, "distort": True, "pad_value": [128, 128, 128],
    },
    "driving": {"affine": 1.0, "window": 0.5, "gaussian_sigma": [0.2, 1]},
}  # fmt: skip


@pytest.mark.parametrize("name", AUGMENTS)
def test_every_augmentation_is_built_without_and_with_options_of_a_recipe(name: str) -> None:
    plain = config.call(AUGMENTS[name], {}, section="data.augment")
    options = SECTIONS.get(name, {"size": 32})
    chosen = config.call(AUGMENTS[name], options, section="data.augment")
    assert type(plain) is type(chosen)
    assert plain != chosen
    assert all(hasattr(chosen, key) for key in options)


@pytest.mark.parametrize("name", SECTIONS)
def test_scenes_pass_through_augmentation_and_letterbox_with_all_their_labels(name: str) -> None:
    augment = config.call(AUGMENTS[name], SECTIONS[name], section="data.augment")
    section = {
        "mean": [0, 0, 0], "std": [255, 255, 255], "pad_value": [114, 114, 114], "stride": 32,
        "size": [36, 64], "letterbox": [64, 64], "antialias": False, "mask_resize": "max",
        "score_at": "input",
    }  # fmt: skip
    preprocess = config.call(Preprocess, section, section="data.preprocess")
    sample = Synthetic(size=(72, 128), length=1)[0]
    seen = augment(sample, np.random.default_rng(1), padding_color=preprocess.padding_color)
    fitted = preprocess.fit(seen.image)
    assert tuple(fitted.image.shape) == (3, 64, 64)
    assert fitted.meta.offset == (14, 0)
    labels = preprocess.fit_labels(seen.labels, fitted.meta)
    assert set(labels) == {"semantic", "panoptic", "drivable", "lane"}
    for kind, label in labels.items():
        void = 0 if kind == "panoptic" else 255
        assert (label[:14] == void).all()
        assert (label[-14:] == void).all()
        assert (label[14:-14] != void).mean() > 0.4, kind
