"""The jobs of scripts/train_zoo.py, in their order: what is trained, on what, and scored where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rtseg.errors import ConfigError, nearest

CAMVID_NOTICE = "trained on CamVid, so for non-commercial research only, as its terms say"
CAMVID_LICENSE = "non-commercial research (CamVid)"
FREE_LICENSE = "Apache-2.0 (procedural scenes only)"


@dataclass(frozen=True)
class Scoring:
    """A data set on which finished weights are scored.

    name: of the folder of the scores. reader: name of the data set. seen: whether the network has
    been trained on it. options: of the reader.
    """

    name: str
    reader: str
    split: str
    seen: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """One network to train.

    scorings: the first one gives the score of the model card. reduced: overrides of a short
    schedule for CPUs. compiled: whether its step is compiled on a GPU. teacher: job whose finished
    weights teach it. ship: name of its weights in the package, "" if they stay out.
    """

    name: str
    recipe: str
    scorings: tuple[Scoring, ...]
    overrides: tuple[str, ...] = ()
    reduced: tuple[str, ...] = ()
    compiled: bool = True
    teacher: str = ""
    ship: str = ""

    @property
    def license(self) -> str:
        """Terms of the weights, which are those of the data."""
        return CAMVID_LICENSE if self.notice else FREE_LICENSE

    @property
    def notice(self) -> str:
        """What loading the weights says; nothing if CamVid had no part in them."""
        uses = any(item.reader == "camvid" for item in self.scorings)
        return CAMVID_NOTICE if uses else ""


CAMVID = (Scoring("test", "camvid", "test"), Scoring("val", "camvid", "val", seen=True))
_ROAD = {"kinds": ["drivable"]}


def _scenes(height: int, width: int) -> tuple[Scoring, ...]:
    """Return validation and test scenes of one size."""
    options = {"size": [height, width], "length": 100}
    return tuple(Scoring(f"{s}_scenes", "synthetic", s, options=options) for s in ("test", "val"))


JOINT = (
    *_scenes(360, 480),
    Scoring("test_camvid_road", "camvid", "test", options=_ROAD),
    Scoring("val_camvid_road", "camvid", "val", options=_ROAD),
)

# decision: as lsa_binet/camvid_cpu, half-size crops and an average, with one image in ten.
REDUCED = (
    "train.epochs=null", "train.iterations=3000", "train.batch_size=8", "train.precision=auto",
    "train.channels_last=true", "train.ema_decay=0.999", "train.val_every=3000",
    "train.save_every=50", "schedule.warmup_iterations=100", "data.augment.crop=[240,320]",
)  # fmt: skip
REDUCED_MASKS = (
    "train.iterations=2000", "train.batch_size=8", "train.val_every=2000", "train.save_every=50",
    "data.augment.crop=[224,320]", "schedule.milestones=[1778,1926]",
)  # fmt: skip
REDUCED_SCENES = ("train.iterations=1500", "train.val_every=500", "train.save_every=50")
JOINT_STEPS = (
    "train.iterations=8000", "train.batch_size=16", "train.ema_decay=0.999", "train.val_every=2000",
)  # fmt: skip
FEW_VALIDATIONS = "train.val_every=7250"  # 4 of them: each takes the time of 200 steps


def _camvid(name: str, recipe: str, *overrides: str, ship: str = "", long: bool = True) -> Job:
    """Return a job with the schedule of the LSA-BiNet paper (`long`), or with its recipe's own."""
    changes = (FEW_VALIDATIONS, *overrides) if long else overrides
    return Job(name, recipe, CAMVID, changes, REDUCED, ship=ship)


_PLUS = "lsa_binet/camvid_plus"
JOBS = (
    _camvid("lsa_binet", "lsa_binet/camvid", ship="lsa_binet-camvid_paper"),
    _camvid("dabnet", "dabnet/camvid", ship="dabnet-camvid"),
    _camvid("bsdnet_b", "bsdnet/camvid_small_b", long=False),
    _camvid("bsdnet_s", "bsdnet/camvid_small_s", long=False),
    Job(
        "bsdnet_s_sidm", "bsdnet/camvid_small_s", CAMVID, ("distill.mode=both",), REDUCED,
        compiled=False, teacher="bsdnet_b", ship="bsdnet_s-camvid",
    ),
    Job(
        "bisenetformer_stdc1", "bisenetformer/camvid_stdc1", CAMVID, (), REDUCED_MASKS,
        compiled=False,  # the matching of masks runs in scipy
    ),
    Job(
        "twinmixing_base", "twinmixing/synthetic_camvid_base", JOINT, JOINT_STEPS,
        REDUCED_SCENES, ship="twinmixing_base-camvid",
    ),
    Job(
        "twinmixing_tiny", "twinmixing/synthetic_camvid_tiny", JOINT, JOINT_STEPS,
        REDUCED_SCENES, ship="twinmixing_tiny-camvid",
    ),
    Job(
        "bisegunet_edge", "bisegunet/synthetic_edge", _scenes(128, 256),
        (
            "data.train.size=[128,256]", "data.val.size=[128,256]", "train.iterations=6000",
            "train.val_every=500",
        ),
        ("data.train.size=[64,128]", "data.val.size=[64,128]", *REDUCED_SCENES),
        compiled=False,  # its layers change while it trains
        ship="bisegunet_edge-synthetic",
    ),
    Job(
        "lsa_binet_synthetic", "lsa_binet/synthetic", _scenes(128, 256),
        ("train.iterations=6000", "train.ema_decay=0.999", "train.val_every=1500"),
        REDUCED_SCENES, ship="lsa_binet-synthetic",
    ),
    *(
        _camvid(f"lsa_binet_{row}", f"lsa_binet/camvid@{row}")
        for row in ("no_svfm_rcad", "no_lrfa_rcad", "no_lrfa_svfm", "no_rcad")
    ),
    _camvid("lsa_binet_plus", _PLUS, ship="lsa_binet-camvid_plus"),
    *(_camvid(f"lsa_binet_plus_seed{seed}", _PLUS, f"train.seed={seed}") for seed in (1, 2)),
    _camvid("lsa_binet_plus_no_average", _PLUS, "train.ema_decay=null"),
    _camvid("lsa_binet_plus_no_dice", _PLUS, "task.dice_weight=0.0"),
    _camvid(
        "lsa_binet_plus_no_colors", _PLUS, "data.augment.brightness=0", "data.augment.contrast=0",
        "data.augment.saturation=0",
    ),
    *(
        _camvid(f"lsa_binet_seed{seed}", "lsa_binet/camvid", f"train.seed={seed}")
        for seed in (1, 2)
    ),
    Job("lsa_binet_cpu", "lsa_binet/camvid_cpu", CAMVID, ship="lsa_binet-camvid_cpu"),
    Job("lsa_binet_cpu_long", "lsa_binet/camvid_cpu_long", CAMVID, ship="lsa_binet-camvid"),
)  # fmt: skip


def choose(names: Sequence[str]) -> list[Job]:
    """Return the jobs of these names, in the order of the table; all of them for no names.

    Raises:
        ConfigError: A name is unknown.
    """
    known = {job.name: job for job in JOBS}
    for name in names:
        if name not in known:
            close = ", ".join(nearest(name, known))
            raise ConfigError(f"job {name!r} is unknown", where="--jobs", fix=f"try {close}")
    return [job for job in JOBS if not names or job.name in names]


def folder_of(state: Path, name: str) -> Path:
    """Return the finished weights and tables of a job, which are there once it is done."""
    return state / name / "result"
