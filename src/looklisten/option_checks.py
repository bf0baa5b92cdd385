"""Checks of the values of options: one sentence that names the option and what it takes."""

from looklisten.errors import OptionError


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
