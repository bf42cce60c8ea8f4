"""What section `distill` of a recipe may say beside its teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rtseg.errors import ConfigError


@dataclass(frozen=True)
class Pair:
    """Features of the student that follow features of the teacher.

    student, teacher: names of modules that return maps (B, C, H, W), such as `backbone.fcb3`.
    weight: Factor of their channel-wise loss. Source: SCTNet, as BSDNet gives none.
    """

    student: str
    teacher: str
    weight: float = 15.0


@dataclass(frozen=True)
class DistillOptions:
    """Section `distill` of a recipe, but for its teacher.

    mode: `cwd` aligns the features of the pairs, `ofa` the class scores of pixels, `both` does
        both; `none` trains without the teacher, which is then not even read.
    pairs: Features that are aligned.
    cwd_temperature: Of the softmaxes over space. Source: SCTNet, as BSDNet gives none.
    ofa_weight: Factor of the loss of class scores. Source: OFA-KD, as BSDNet gives none.
    ofa_temperature: Of its softmaxes over classes.
    theta: Its exponent. Source: BSDNet, figure 7.
    nontarget_power: Its switch for the other classes.
    cache: Folder where the teacher's answers are kept, for training without augmentation.
    """

    mode: Literal["none", "cwd", "ofa", "both"] = "both"
    pairs: tuple[Pair, ...] = ()
    cwd_temperature: float = 4.0
    ofa_weight: float = 1.0
    ofa_temperature: float = 1.0
    theta: float = 1.5
    nontarget_power: bool = False
    cache: str | None = None

    def __post_init__(self) -> None:
        positive = {
            "cwd_temperature": self.cwd_temperature,
            "ofa_weight": self.ofa_weight,
            "ofa_temperature": self.ofa_temperature,
            "theta": self.theta,
            **{f"pairs.{number}.weight": pair.weight for number, pair in enumerate(self.pairs)},
        }
        for name, value in positive.items():
            if value <= 0:
                raise ConfigError(
                    f"{value} is not positive", where=f"distill.{name}", fix="use more than 0"
                )
        if self.aligns_features and not self.pairs:
            raise ConfigError(
                f"mode {self.mode} compares features, and none are named",
                where="distill.pairs",
                fix="add {student: MODULE, teacher: MODULE}, or use mode ofa",
            )

    @property
    def aligns_features(self) -> bool:
        """Whether features are compared."""
        return self.mode in ("cwd", "both")

    @property
    def aligns_scores(self) -> bool:
        """Whether class scores are compared."""
        return self.mode in ("ofa", "both")
