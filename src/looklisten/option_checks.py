"""Checks of the values of options: one sentence that names the option and what it takes."""

from typing import Any, get_args

from looklisten.errors import OptionError
from looklisten.names import printable


def check_at_least(smallest: float, **values: float | None) -> None:
    """Raise OptionError for the first value below `smallest`; None, for a default, is accepted."""
    for name, value in values.items():
        # `not >=`, so that NaN is refused too.
        if value is not None and not value >= smallest:
            raise OptionError(f"{name} {value:g} must be at least {smallest:g}", name)


def check_above_zero(**values: float) -> None:
    """Raise OptionError for the first value that is not above 0."""
    for name, value in values.items():
        if not value > 0:
            raise OptionError(f"{name} {value:g} must be above 0", name)


def check_one_of(choices: Any, **values: object) -> None:
    """Raise OptionError for the first value that is none of `choices`, a `Literal`.

    The command line checks this itself; Python checks no `Literal`. None, for a default, is
    accepted.
    """
    names = get_args(choices)
    for name, value in values.items():
        if value is not None and value not in names:
            known = ", ".join(names[:-1])
            raise OptionError(f"{name} {printable(value)!r} must be {known} or {names[-1]}", name)
