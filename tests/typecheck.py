"""How the tests check annotations on every call: beartype, where an int may stand for a float.

jaxtyping makes two more functions of each function, so that the axes of its arrays agree with one
another. Only a function with an array in its annotations needs that; beartype alone checks others.
"""

import dataclasses
import functools
import inspect
import typing

import jaxtyping
from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
check_axes = jaxtyping.jaxtyped


def has_axes(hint):
    """Whether an array of jaxtyping is in an annotation, however deep."""
    if inspect.isclass(hint) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    return any(has_axes(part) for part in typing.get_args(hint))


def needs_axes(function):
    """Whether a function has an array in its annotations, or names that are not defined yet.

    A generator is left to jaxtyping as well, since beartype would make another one of it.
    """
    if inspect.isgeneratorfunction(function):
        return True
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except Exception:
        return True
    return any(has_axes(hint) for hint in hints.values())


def checked(function=None, *, typechecker):
    """As `jaxtyping.jaxtyped`, which decorates every function and class of the package."""
    if function is None:
        return functools.partial(checked, typechecker=typechecker)
    if inspect.isclass(function):
        if not dataclasses.is_dataclass(function) or needs_axes(function.__init__):
            return check_axes(function, typechecker=typechecker)
        function.__init__ = typechecker(function.__init__)
        return function
    if needs_axes(function):
        return check_axes(function, typechecker=typechecker)
    return typechecker(function)


jaxtyping.jaxtyped = checked
