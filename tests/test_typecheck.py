"""The annotations of the package are checked on every call of a test."""

import numpy as np
import pytest
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Float, TypeCheckError

from looklisten.evaluation.ranking import GroupCounts
from looklisten.media.isolation.limits import WorkerLimits
from looklisten.media.levels import is_silent
from looklisten.names import first_few
from typecheck import check, checked, has_axes, needs_axes

Row = Float[np.ndarray, " values"]


def test_a_type_is_checked():
    assert first_few(["a"], 1) == "a"
    for arguments in ((["a"], "1"), ([2],), (None,)):
        with pytest.raises(BeartypeCallHintViolation):
            first_few(*arguments)


def test_an_array_is_checked():
    assert is_silent(np.zeros(4_800, np.int16))
    for wrong in (np.zeros(4_800, np.float32), np.zeros((2, 4_800), np.int16), [0]):
        with pytest.raises(TypeCheckError):
            is_silent(wrong)


def test_a_record_is_checked_and_an_int_is_a_float():
    assert WorkerLimits(stall_seconds=2).stall_seconds == 2
    with pytest.raises(BeartypeCallHintViolation):
        WorkerLimits(memory_megabytes="all")
    GroupCounts(np.zeros(3), np.zeros(3))
    with pytest.raises(TypeCheckError):
        GroupCounts(np.zeros(3), np.zeros(4))


def test_axes_agree_wherever_they_are():
    @checked(typechecker=check)
    def total(weights: Row | None, rows: tuple[Row, ...] = ()) -> Row:
        return rows[0] if rows else np.zeros(3)

    assert needs_axes(total)
    assert len(total(np.zeros(2), (np.zeros(2),))) == 2
    for arguments in ((np.zeros(2), (np.zeros(3),)), (np.zeros(2),)):
        with pytest.raises(TypeCheckError):
            total(*arguments)


def test_a_result_is_checked():
    @checked(typechecker=check)
    def name(value: int) -> str:
        return value

    assert not needs_axes(name)
    with pytest.raises(BeartypeCallHintViolation):
        name(1)


def test_an_array_is_found_in_any_annotation():
    for hint in (Row, Row | None, dict[str, list[Row]]):
        assert has_axes(hint)
    for hint in (np.ndarray, str | None, dict[str, list[float]], "Row"):
        assert not has_axes(hint)
