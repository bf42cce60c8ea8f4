"""Every error is one sentence with its place and advice, and has an exit code of its own."""

from __future__ import annotations

import pickle

import pytest

from rtseg import errors
from rtseg.data.files import FileFaultError
from rtseg.errors import ConfigError, DataError, RtsegError, nearest

CODES = {
    "RtsegError": 1,
    "ConfigError": 2,
    "DataError": 3,
    "CheckpointError": 4,
    "MissingError": 5,
    "CheckFailedError": 6,
    "MemoryFullError": 7,
    "InterruptedRunError": 130,
}


def test_message_is_place_then_fault_then_advice() -> None:
    assert str(RtsegError("is broken", where="a.png", fix="draw it again")) == (
        "a.png: is broken; draw it again"
    )
    assert str(RtsegError("is broken")) == "is broken"
    assert str(RtsegError("is broken", fix="draw it again")) == "is broken; draw it again"


def test_exit_codes_are_those_that_are_documented() -> None:
    classes = [
        item
        for item in vars(errors).values()
        if isinstance(item, type) and issubclass(item, RtsegError)
    ]
    assert {item.__name__: item.exit_code for item in classes} == CODES
    assert len(set(CODES.values())) == len(CODES)


@pytest.mark.parametrize("name", CODES)
def test_error_survives_the_way_between_processes(name: str) -> None:
    error = getattr(errors, name)("is broken", where="a.png", fix="draw it again")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (copy.what, copy.where, copy.fix) == ("is broken", "a.png", "draw it again")
    assert str(copy) == str(error)


def test_what_a_subclass_adds_survives_too() -> None:
    error = FileFaultError("is short", kind="truncated", where="a.png")
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.kind, str(copy)) == ("truncated", str(error))


def test_a_wrong_option_is_also_a_value_error_and_broken_data_is_not() -> None:
    assert issubclass(ConfigError, ValueError)
    assert not issubclass(DataError, ValueError)


def test_nearest_lists_the_closest_names_first() -> None:
    known = ["momentum", "lr", "weight_decay", "nesterov"]
    assert nearest("momentun", known, count=1) == ["momentum"]
    assert len(nearest("zzz", known)) == 3
    assert nearest("lr", []) == []
