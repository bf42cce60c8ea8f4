"""The signature of a callable is the schema of its section: every misfit is a sentence."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from rtseg.config import call, check, pick
from rtseg.errors import ConfigError


def build(
    given: object = None,
    *,
    size: int = 3,
    rate: float = 0.1,
    crop: tuple[int, int] | None = None,
    mode: Literal["sum", "mean"] = "sum",
    fast: bool = False,
    names: tuple[str, ...] | Literal["all"] = "all",
) -> dict[str, Any]:
    return {
        "given": given,
        "size": size,
        "rate": rate,
        "crop": crop,
        "mode": mode,
        "fast": fast,
        "names": names,
    }


@dataclass(frozen=True)
class Options:
    width: int
    height: int | None = None


class Layer:
    def __init__(self, channels: int, *, bias: bool = True) -> None:
        self.channels, self.bias = channels, bias


def refusal(target: Any, options: dict[Any, Any], given: int = 0) -> str:
    with pytest.raises(ConfigError) as caught:
        check(target, options, section="part", given=given)
    return str(caught.value)


def test_values_are_converted_to_the_annotations() -> None:
    checked = check(build, {"crop": [4, 5], "rate": 1, "size": 2.0}, section="part")
    assert checked == {"crop": (4, 5), "rate": 1.0, "size": 2}
    assert [type(checked[key]) for key in ("crop", "rate", "size")] == [tuple, float, int]


def test_keys_that_were_left_out_stay_left_out() -> None:
    assert check(build, {}, section="part") == {}


def test_an_unknown_key_is_named_with_the_nearest_one() -> None:
    assert "part.sise is unknown. Did you mean 'size'?" in refusal(build, {"sise": 3})


def test_an_unknown_key_of_a_callable_without_options_is_told_to_go() -> None:
    assert "part.size is unknown. Remove it" in refusal(lambda: None, {"size": 3})


def test_a_missing_key_is_named() -> None:
    assert "part.width is missing" in refusal(Options, {"height": 2})


def test_all_problems_stand_in_one_message() -> None:
    message = refusal(build, {"size": "x", "mode": "max", "rat": 1, "fast": True})
    assert "part.size = 'x'" in message
    assert "part.mode = 'max' does not fit: input should be 'sum' or 'mean'" in message
    assert "part.rat is unknown. Did you mean 'rate'?" in message
    assert "fast" not in message


@pytest.mark.parametrize(
    "options",
    [
        {"size": 2.5},
        {"size": None},
        {"size": [1]},
        {"crop": [1]},
        {"crop": [1, 2, 3]},
        {"rate": "x"},
    ],
    ids=str,
)
def test_a_value_of_another_type_is_refused_with_key_and_value(options: dict[str, Any]) -> None:
    assert f"part.{next(iter(options))}" in refusal(build, options)


@pytest.mark.parametrize("options", [{"size": True}, {"rate": False}, {"crop": [True, 1]}], ids=str)
def test_true_and_false_are_no_numbers(options: dict[str, Any]) -> None:
    assert "true and false are not allowed here" in refusal(build, options)


def test_true_and_false_are_fine_where_they_are_meant() -> None:
    def anything(value: Any, choice: Literal[True, "no"] = "no", maybe: bool | int = 0) -> None: ...

    options = {"value": True, "choice": True, "maybe": False}
    assert check(anything, options, section="part") == options
    assert check(build, {"fast": True}, section="part") == {"fast": True}


def test_members_of_a_union_share_one_problem_without_their_names() -> None:
    message = refusal(build, {"names": 5})
    assert message.count("part.names") == 1
    assert "literal[" not in message
    assert "tuple[" not in message


def test_none_fits_an_optional_value() -> None:
    assert check(build, {"crop": None}, section="part") == {"crop": None}


def test_bound_keywords_of_a_partial_stay_and_can_be_overridden() -> None:
    bound = functools.partial(functools.partial(build, size=7), rate=0.5)
    assert call(bound, {}, section="part")["size"] == 7
    result = call(bound, {"size": 8}, section="part")
    assert (result["size"], result["rate"]) == (8, 0.5)
    assert "part.size" in refusal(bound, {"size": "x"})


def test_positional_arguments_that_are_given_are_no_options() -> None:
    assert call(build, {"size": 1}, "mine", section="part")["given"] == "mine"
    assert "part.given is unknown" in refusal(build, {"given": 1}, given=1)


def test_classes_and_dataclasses_have_signatures_too() -> None:
    assert call(Options, {"width": 2}, section="part") == Options(2, None)
    layer = call(Layer, {"bias": False}, 4, section="part")
    assert (layer.channels, layer.bias) == (4, False)
    assert "part.channels = True" in refusal(Layer, {"channels": True})


def test_a_key_that_is_no_text_is_refused() -> None:
    assert "keys should be strings" in refusal(build, {1: 2})


def test_pick_takes_the_named_callable_and_the_other_keys() -> None:
    section = {"name": "a", "size": 2}
    assert pick({"a": build}, section, section="part") == (build, {"size": 2})
    assert section == {"name": "a", "size": 2}


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"size": 2}, "part.name: is missing; choose one of: alpha, beta"),
        ({"name": "alpa"}, "'alpa' is unknown; did you mean one of: alpha"),
        ({"name": ["alpha"]}, "is unknown"),
        ("alpha", "'alpha' is no mapping"),
        ([{"name": "alpha"}], "is no mapping"),
    ],
)
def test_pick_explains_what_does_not_name_a_callable(section: Any, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        pick({"alpha": build, "beta": build}, section, section="part")
    assert says in str(caught.value)
