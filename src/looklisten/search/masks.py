"""A condition and a fragment -> which rows match, as in SQL: true, false or unknown."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool

from looklisten.search.filters import (
    Both,
    Column,
    Comparison,
    Condition,
    Either,
    IsNull,
    Like,
    Not,
    OneOf,
    Operator,
    like_pattern,
)
from looklisten.search.fragments import Fragment

_COMPARISONS: dict[Operator, Callable[[pa.Array, pa.Scalar], pa.BooleanArray]] = {
    "=": pc.equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}


def matching_rows(condition: Condition, fragment: Fragment) -> Bool[np.ndarray, " rows"]:
    """The rows for which a condition is true; where it is unknown, a row does not match."""
    mask = _mask(condition, fragment)
    matches: Bool[np.ndarray, " rows"] = pc.fill_null(mask, False).to_numpy(zero_copy_only=False)
    return matches


def _mask(condition: Condition, fragment: Fragment) -> pa.BooleanArray:
    match condition:
        case Not(inner):
            return pc.invert(_mask(inner, fragment))
        case Both(left, right):
            return pc.and_kleene(_mask(left, fragment), _mask(right, fragment))
        case Either(left, right):
            return pc.or_kleene(_mask(left, fragment), _mask(right, fragment))
        case IsNull(column):
            return _is_null(column, fragment)
        case Comparison(column, operator, value):
            compare = _COMPARISONS[operator]
            return _test_values(column, fragment, lambda values: compare(values, value))
        case OneOf(column, options):
            return _test_values(column, fragment, lambda values: _is_in(values, options))
        case Like(column, pattern):
            matches = like_pattern(pattern)
            return _test_values(
                column,
                fragment,
                lambda values: pa.array([matches(text) for text in values.to_pylist()], pa.bool_()),
            )


def _is_in(values: pa.Array, options: tuple[str | float, ...]) -> pa.BooleanArray:
    return pc.is_in(values, pa.array(options, values.type))


def _is_null(column: Column, fragment: Fragment) -> pa.BooleanArray:
    if column == "seconds":
        return pc.is_null(fragment.numbers(column))
    if column == "tag" or column == "mark":
        return pa.array(np.diff(fragment.name_lists(column).offsets) == 0)
    return pc.is_null(fragment.names(column).indices)


def _test_values(
    column: Column, fragment: Fragment, test: Callable[[pa.Array], pa.BooleanArray]
) -> pa.BooleanArray:
    """A test of each name that occurs -> of each row; unknown where a row has no name.

    A row with a list of names passes if one of them does.
    """
    if column == "seconds":
        return test(fragment.numbers(column))
    if column == "tag" or column == "mark":
        lists = fragment.name_lists(column)
        passes = test(lists.names).to_numpy(zero_copy_only=False).astype(bool)
        passed_before = np.concatenate([[0], np.cumsum(passes[lists.codes])])
        return pa.array(np.diff(passed_before[lists.offsets]) > 0)
    names = fragment.names(column)
    return test(names.dictionary).take(names.indices)
