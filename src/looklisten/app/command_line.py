"""Verbs of the command line: how one is described, and how its arguments are read.

Knows no single verb. Imports neither torch nor numpy, so that `--help` is fast.
"""

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from pydantic import BaseModel

from looklisten.app.output import Output
from looklisten.errors import LookListenError
from looklisten.names import printable
from looklisten.system.files import check_writable


class UsageError(LookListenError):
    """Arguments that contradict each other or lack something; exit code 2."""


@dataclass(frozen=True)
class Verb:
    """One verb of the command line."""

    name: str
    summary: str
    """One line for the list of verbs."""
    run: Callable[[Sequence[str]], Output]
    """Reads the arguments behind the verb and does the work."""
    can_continue: bool = False
    """Whether the same command goes on with what an interrupted one has done."""

    @classmethod
    def of(
        cls, name: str, function: Callable[..., Output], *, can_continue: bool = False
    ) -> "Verb":
        """A verb whose arguments are the parameters of `function`; its docstring is the help."""
        summary = summary_of(function)
        return cls(name, summary, lambda arguments: parse(name, function, arguments), can_continue)


def summary_of(function: Callable[..., Output]) -> str:
    """The first line of a function's docstring."""
    return (function.__doc__ or "").strip().partition("\n")[0]


def parse(name: str, function: Callable[..., Output], arguments: Sequence[str]) -> Output:
    """Call `function` with the arguments of the verb `name`; ends the program on wrong usage."""
    _join_help_lines(function)
    return tyro.cli(
        function,
        args=list(arguments),
        prog=f"looklisten {name}",
        # One form of each switch is enough: no `--no-dense` next to `--dense`.
        config=(tyro.conf.FlagCreatePairsOff,),
    )


def _join_help_lines(function: Callable[..., Output]) -> None:
    """Join the wrapped lines of a function's docstring and of the fields of its option records.

    tyro prints indented lines as they are in the source, so that help is wrapped twice.
    """
    import docstring_parser

    # Below `Args:`, the second line of an argument is indented by eight columns.
    function = inspect.unwrap(function)
    docstring = inspect.cleandoc(function.__doc__ or "")
    function.__doc__ = re.sub(r"\n {8}(?=\S)", " ", docstring)
    for record in _option_records(function):
        texts: dict[str, str] = {}
        # Base classes first, so that the text of a subclass replaces theirs.
        for base in reversed(record.__mro__[:-1]):
            for entry in docstring_parser.parse_from_object(base).params:
                texts[entry.arg_name] = " ".join((entry.description or "").split())
        # tyro takes the help of a field from here, if there is any.
        if issubclass(record, BaseModel):
            for name, model_field in record.model_fields.items():
                model_field.description = texts.get(name)
        elif dataclasses.is_dataclass(record):
            for field in dataclasses.fields(record):
                field.metadata = types.MappingProxyType({"help": texts.get(field.name)})


def _option_records(annotated: Any) -> Iterator[type]:
    """The records among the annotations of a function or of a record, and those inside them."""
    for name, annotation in typing.get_type_hints(annotated).items():
        if name == "return" or not isinstance(annotation, type):
            continue
        if dataclasses.is_dataclass(annotation) or issubclass(annotation, BaseModel):
            yield annotation
            yield from _option_records(annotation)


def check_writable_file(file: Path) -> None:
    """Raise UsageError or ConfigError where `file` is a folder or its folder cannot be written."""
    if file.is_dir():
        raise UsageError(f"{printable(file)} is a folder; name a file")
    # A file that exists is replaced, so only its folder must be writable.
    check_writable(file.parent)


# Options that several verbs have, so that their help is written once.

DeviceName = Annotated[str, tyro.conf.arg(help="auto, cpu, cuda, cuda:1 or mps.")]

NETWORK_HELP = (
    "Folder of a run, of one checkpoint or of a published network, a name on the Hugging Face Hub "
    "(org/name), a model of transformers (hf:org/name), or start, which comes with looklisten."
)

NetworkName = Annotated[str, tyro.conf.arg(help=NETWORK_HELP)]

DEFAULT_NETWORK = "start"
"""What every verb takes without `--checkpoint`: it is there before anything is trained."""

WorkerCount = Annotated[int | None, tyro.conf.arg(help="Processes; by default one per core.")]
