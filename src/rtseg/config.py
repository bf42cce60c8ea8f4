"""Turn plain mappings into typed calls: the signature of a callable is the schema of its section.

A recipe section such as `optimizer: {name: sgd, lr: 0.01}` becomes `pick(OPTIMIZERS, section)` and
`call(sgd, {"lr": 0.01})`. Unknown keys, missing keys and values of the wrong type are reported
together, with the nearest known key.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import ConfigDict, ValidationError, create_model

from rtseg.errors import ConfigError, nearest

T = TypeVar("T")


def pick(
    table: Mapping[str, Callable[..., T]], options: Mapping[str, Any], *, section: str
) -> tuple[Callable[..., T], dict[str, Any]]:
    """Take the callable that `options["name"]` names out of `table`.

    Args:
        table: Callables by name.
        options: One section of a recipe; its `name` key chooses.
        section: Dotted name of the section, for messages.

    Returns:
        The callable and the options without `name`.

    Raises:
        ConfigError: `options` is no mapping, or its `name` is missing or not in the table.
    """
    if not isinstance(options, Mapping):
        raise ConfigError(
            f"{options!r} is no mapping", where=section, fix="write {name: ..., other keys}"
        )
    rest = dict(options)
    name = rest.pop("name", None)
    if name is None:
        known = ", ".join(sorted(table))
        raise ConfigError("is missing", where=f"{section}.name", fix=f"choose one of: {known}")
    if not isinstance(name, str) or name not in table:
        close = ", ".join(nearest(str(name), table))
        raise ConfigError(
            f"{name!r} is unknown", where=f"{section}.name", fix=f"did you mean one of: {close}?"
        )
    return table[name], rest


def check(
    target: Callable[..., Any], options: Mapping[str, Any], *, section: str, given: int = 0
) -> dict[str, Any]:
    """Compare options with the signature of `target` and convert their values to its annotations.

    decision: true and false are no numbers, although Python counts them as 1 and 0: a mistyped
    `batch_size: true` would otherwise train with batches of one image.

    Args:
        target: Class, function or `functools.partial`.
        options: Keyword arguments as they stand in a recipe.
        section: Dotted name of the section, for messages.
        given: How many leading positional parameters the caller supplies itself.

    Returns:
        The converted options; keys that were left out stay left out.

    Raises:
        ConfigError: Every bad key of the section, in one message.
    """
    fields = _fields(target, given)
    schema: Any = create_model(
        "Section",
        __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=True),
        **typing.cast(Any, fields),
    )
    problems = [
        f"{section}.{key} = {value!r} does not fit: true and false are not allowed here"
        for key, value in options.items()
        if _holds_bool(value) and _alias(key) in fields and not _admits_bool(fields[_alias(key)][0])
    ]
    try:
        parsed = schema.model_validate(dict(options))
    except ValidationError as error:
        problems += _explain(error, section, fields)
    if problems:
        raise ConfigError("; ".join(problems), where="config")
    return {key: getattr(parsed, _alias(key)) for key in options}


def call(target: Callable[..., T], options: Mapping[str, Any], *given: Any, section: str) -> T:
    """Call `target(*given, **options)` after `check`."""
    return target(*given, **check(target, options, section=section, given=len(given)))


def _alias(key: str) -> str:
    return f"field_{key}"


def _fields(target: Callable[..., Any], given: int) -> dict[str, tuple[Any, Any]]:
    from pydantic import Field

    function: Any = target
    while isinstance(function, functools.partial):
        function = function.func
    hints = typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
    parameters = list(inspect.signature(target).parameters.values())[given:]
    fields: dict[str, tuple[Any, Any]] = {}
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        default = ... if parameter.default is parameter.empty else parameter.default
        info = Field(default, alias=parameter.name)
        fields[_alias(parameter.name)] = (hints.get(parameter.name, Any), info)
    return fields


def _holds_bool(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(_holds_bool(item) for item in value)
    return isinstance(value, bool)


def _admits_bool(hint: Any) -> bool:
    """Return whether an annotation, or a part of it, allows true and false."""
    if hint in (Any, object, bool) or isinstance(hint, bool):
        return True
    return any(_admits_bool(part) for part in typing.get_args(hint))


def _explain(error: ValidationError, section: str, fields: Mapping[str, Any]) -> list[str]:
    """Return one sentence per faulty place; the members of a union share theirs."""
    wrong: dict[str, list[str]] = {}
    problems = []
    for item in error.errors():
        key, *rest = item["loc"]
        # pydantic also lists the member of a union that it tried; only positions are kept
        path = ".".join([section, str(key), *(str(part) for part in rest if isinstance(part, int))])
        if item["type"] == "extra_forbidden":
            known = [name.removeprefix("field_") for name in fields]
            close = nearest(str(key), known, count=1)
            hint = f"Did you mean {close[0]!r}?" if close else "Remove it"
            problems.append(f"{path} is unknown. {hint}")
        elif item["type"] == "missing":
            problems.append(f"{path} is missing. Add it")
        else:
            message = item["msg"][0].lower() + item["msg"][1:]
            wrong.setdefault(f"{path} = {item['input']!r}", []).append(message)
    fitting = [f"{place} does not fit: {', or '.join(says)}" for place, says in wrong.items()]
    return problems + fitting
