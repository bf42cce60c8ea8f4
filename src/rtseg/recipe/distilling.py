"""Section `distill` of a recipe: a teacher beside the task."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rtseg.checkpoint import locate, previous_of, read_info
from rtseg.config import call, check, pick
from rtseg.errors import CheckpointError, ConfigError
from rtseg.training.distill import DistilledTask
from rtseg.training.distill_cache import AnswerCache, CachedTarget, answer_cache, fill
from rtseg.training.distill_options import DistillOptions, Pair
from rtseg.training.options import Plan, device_of
from rtseg.training.teachers import TEACHERS, Teacher, check_classes


@dataclass(frozen=True)
class Distillation:
    """A checked section `distill`; nothing is read yet. teacher: reads the teacher."""

    teacher: Callable[[], Teacher]
    options: DistillOptions


def read_distillation(section: Mapping[str, Any] | None) -> Distillation | None:
    """Check section `distill`; return None where there is none, or its mode is `none`.

    Raises:
        ConfigError: A key or value does not fit.
    """
    if section is None:
        return None
    if not isinstance(section, Mapping) or "teacher" not in section:
        raise ConfigError(
            "is missing",
            where="distill.teacher",
            fix=f"write {{name: {' or '.join(TEACHERS)}, path: ...}}",
        )
    rest = {key: value for key, value in section.items() if key != "teacher"}
    builder, given = pick(TEACHERS, section["teacher"], section="distill.teacher")
    teacher = functools.partial(builder, **check(builder, given, section="distill.teacher"))
    pairs = rest.pop("pairs", [])
    if not isinstance(pairs, Sequence) or not all(isinstance(pair, Mapping) for pair in pairs):
        raise ConfigError(
            f"{pairs!r} is no list of pairs",
            where="distill.pairs",
            fix="write [{student: MODULE, teacher: MODULE}, ...]",
        )
    named = [call(Pair, pair, section=f"distill.pairs.{n}") for n, pair in enumerate(pairs)]
    options = call(DistillOptions, {**rest, "pairs": named}, section="distill")
    return None if options.mode == "none" else Distillation(teacher, options)


def distilled(plan: Plan, distillation: Distillation, *, run: Path | None) -> Plan:
    """Read the teacher, and return the plan with it.

    Args:
        plan: Of the student alone.
        distillation: The checked section.
        run: Folder of the run, if one goes on.

    Raises:
        CheckpointError: The teacher cannot be read, or the run began with another one.
        ConfigError: Teacher, student and data do not fit together.
    """
    teacher, options = distillation.teacher(), distillation.options
    check_classes(teacher, [item.name for item in plan.info.classes])
    if run is not None:
        _require_same(teacher, run)
    task = DistilledTask(
        plan.task,
        plan.model,
        teacher,
        preprocess=plan.data.preprocess,
        options=options,
        seed=plan.options.seed,
    )
    data, cache = plan.data, None
    if options.cache is not None:
        cache = answer_cache(task, data, options.cache)
        data = replace(data, target=CachedTarget(cache, task.target))
    facts = {"source": teacher.source, "sha256": teacher.sha256}
    return replace(
        plan,
        task=task,
        data=data,
        info=replace(plan.info, facts={**plan.info.facts, "teacher": facts}),
        notes=(*plan.notes, _note(teacher, options, cache)),
        around=functools.partial(_around, task, replace(plan, data=data), cache),
    )


def _require_same(teacher: Teacher, run: Path) -> None:
    last = run / "last"
    if not (last.exists() or previous_of(last).exists()):
        return
    began = read_info(locate(last)).facts["teacher"]["sha256"]
    if began != teacher.sha256:
        raise CheckpointError(
            f"is another teacher ({teacher.sha256[:12]}) than the run began with ({began[:12]})",
            where=teacher.source,
            fix="put the first one back there, or start a new run",
        )


def _note(teacher: Teacher, options: DistillOptions, cache: AnswerCache | None) -> str:
    kept = "" if cache is None else f"; its answers are kept in {cache.folder}"
    return f"learns from {teacher.source} (sha256 {teacher.sha256[:12]}), mode {options.mode}{kept}"


@contextlib.contextmanager
def _around(task: DistilledTask, plan: Plan, cache: AnswerCache | None) -> Iterator[None]:
    """Ask the teacher beforehand if its answers are kept; leave the student without hooks."""
    try:
        if cache is not None:
            fill(cache, task, plan.data, device=device_of(plan.options))
        yield
    finally:
        task.release()
