"""The shell: `looklisten VERB …`."""

import errno
import io
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import tyro
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table

from looklisten.app.command_line import UsageError
from looklisten.app.output import Result, emit
from looklisten.app.terminal import talk
from looklisten.app.verbs import VERBS
from looklisten.app.verbs.train import train_with
from looklisten.errors import LookListenError
from looklisten.names import printable
from looklisten.system.processes import is_first_process, keep_freed_memory

NOT_READY = 1
SOME_FAILED = 3
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    keep_freed_memory()
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in given or not sys.stdout.isatty()
    given = [argument for argument in given if argument != "--json"]
    logging.basicConfig(
        level=logging.INFO if is_first_process() else logging.ERROR,
        format="%(message)s",
        handlers=[RichHandler(console=talk, show_time=False, show_path=False, show_level=False)],
    )
    logging.captureWarnings(True)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(
            stream, io.TextIOWrapper
        ):  # a name may hold what the terminal's encoding has not
            stream.reconfigure(errors="backslashreplace")
    if not given or given[0] in ("-h", "--help", "help"):
        _show_help()
        return 0
    if given[0] == "--version":
        from importlib.metadata import version

        Console(highlight=False).print(version("looklisten"))
        return 0
    try:
        return _run(given[0], given[1:], as_json)
    except UsageError as error:
        _say_error(str(error))
        return 2
    except LookListenError as error:
        return _say_error(str(error))
    except OSError as error:
        return _say_error(_explain(error))
    except KeyboardInterrupt:
        talk.print("stopped; the same command goes on from what is done", style="yellow")
        return INTERRUPTED


def _run(verb: str, arguments: list[str], as_json: bool) -> int:
    if verb not in VERBS:
        import difflib

        near = difflib.get_close_matches(verb, VERBS, 1)
        raise UsageError(
            f"there is no verb {verb!r}; "
            + (f"did you mean {near[0]}?" if near else f"the verbs are {', '.join(VERBS)}")
        )
    function = train_with(_value(arguments, "--config", "tiny")) if verb == "train" else VERBS[verb]
    if verb == "openl3":  # reads its flags itself
        result = function(arguments)
    else:
        result = tyro.cli(
            function,
            args=arguments,
            prog=f"looklisten {verb}",
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    if result:
        emit(result, as_json)
    return exit_code(result)


def exit_code(result: Result) -> int:
    """What a result says of itself: `failed` counts inputs that failed, `stopped_by` names a
    signal, `ready` is the doctor's yes or no.
    """
    if result.get("failed"):
        return SOME_FAILED
    if result.get("stopped_by"):
        talk.print(
            f"stopped by {result['stopped_by']} and saved; the same command goes on from there",
            style="yellow",
        )
        return INTERRUPTED
    return 0 if result.get("ready", True) else NOT_READY


def _value(arguments: list[str], option: str, default: str) -> str:
    """The value of an option that is needed before the others can be read."""
    for place, argument in enumerate(arguments):
        if argument == option and place + 1 < len(arguments):
            return arguments[place + 1]
        if argument.startswith(f"{option}="):
            return argument.partition("=")[2]
    return default


def _say_error(sentence: str) -> int:
    if not is_first_process():
        return 1
    talk.print(sentence, style="red", soft_wrap=True, markup=False)
    return 1


def _explain(error: OSError) -> str:
    """An error of the system as a sentence: what was being done to which file, and what to do next."""
    name = (
        printable(os.fsdecode(error.filename)) if isinstance(error.filename, (str, bytes)) else ""
    )
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" while writing {name}" if name else ""
        return f"the disk is full{where}; free some room and run the same command again, what is done is kept"
    if error.errno == errno.EROFS:
        return f"no permission while writing {name or 'a file'}: {error.strerror}; choose a folder that may be written"
    if error.errno in (errno.EACCES, errno.EPERM):
        if not name:
            return f"no permission to read or write: {error.strerror}; choose a folder that may be written"
        if _cannot_be_read(error.filename):
            return f"no permission while reading {name}: {error.strerror}; make it readable, or leave it out"
        return f"no permission while writing {name}: {error.strerror}; choose a folder that may be written"
    return f"{error.strerror or error}{f': {name}' if name else ''}"


def _cannot_be_read(path: str | bytes) -> bool:
    """Whether a file that is there, or a folder above it, refuses to be read."""
    place = Path(os.fsdecode(path))
    if os.path.lexists(place):
        return not os.access(place, os.R_OK | os.X_OK if place.is_dir() else os.R_OK)
    return place.parent.is_dir() and not os.access(place.parent, os.X_OK)


def _show_help() -> None:
    table = Table(show_header=False, box=None, padding=(0, 2))
    for verb, function in VERBS.items():
        doc = function.__doc__ or ""
        table.add_row(f"  {verb}", doc.strip().splitlines()[0])
    console = Console()
    console.print(
        "[bold]looklisten[/bold]: learns from unlabelled video with sound what looks and sounds alike\n"
    )
    console.print(table)
    console.print("\nlooklisten VERB --help tells the options; --json prints JSON on a screen too.")


if __name__ == "__main__":
    sys.exit(main())
