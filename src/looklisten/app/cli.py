"""The command line: `looklisten VERB ...`.

stdout is data: a table on a terminal, JSON in a pipe or with `--json`. stderr is for people.
Exit codes: 0 done; 1 an error, or a `doctor` that misses something; 2 wrong usage, which is a verb
or an option that does not exist, or a value that the option never takes; 3 done, but some inputs
failed (see failures.jsonl); 130 interrupted.
"""

import difflib
import errno
import io
import logging
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table

from looklisten.app.command_line import UsageError
from looklisten.app.output import FAILURE, INTERRUPTED, SUCCESS, WRONG_USAGE, emit
from looklisten.app.terminal import messages
from looklisten.app.verbs import VERBS
from looklisten.errors import LookListenError, OptionError
from looklisten.names import printable
from looklisten.system.processes import is_first_process, keep_freed_memory


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code."""
    # The allocator belongs to the whole process, so only a program may change it, not a library.
    keep_freed_memory()
    _set_up_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    # A pipe is read by a program. `--json` can be anywhere, also among the options of a verb.
    as_json = "--json" in words or not sys.stdout.isatty()
    words = [word for word in words if word != "--json"]
    if not words or words[0] in ("-h", "--help", "help"):
        _print_verbs()
        return SUCCESS
    if words[0] == "--version":
        Console(highlight=False).print(version("looklisten"))
        return SUCCESS
    try:
        return _run(words[0], words[1:], as_json)
    except OptionError as error:
        _print_error(error.as_typed)
        return WRONG_USAGE
    except LookListenError as error:
        _print_error(str(error))
        return WRONG_USAGE if isinstance(error, UsageError) else FAILURE
    except OSError as error:
        # Errors of the library are sentences. Those of the operating system become one here.
        _print_error(explain(error))
        return FAILURE
    except KeyboardInterrupt:
        verb = VERBS.get(words[0])
        next_step = "; run the same command again to continue"
        can_continue = verb is not None and verb.can_continue
        messages.print(f"stopped{next_step if can_continue else ''}", style="yellow")
        return INTERRUPTED


def _set_up_streams() -> None:
    """Send the log and warnings to stderr, and let any file name be printed."""
    # Of several training processes, the others report errors only.
    logging.getLogger("looklisten").setLevel(logging.INFO if is_first_process() else logging.ERROR)
    logging.basicConfig(
        # What other libraries do inside is of no use to a user; their warnings may be.
        level=logging.WARNING if is_first_process() else logging.ERROR,
        format="%(message)s",
        handlers=[
            RichHandler(console=messages, show_time=False, show_path=False, show_level=False)
        ],
    )
    logging.captureWarnings(True)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A file name can have letters that the terminal's encoding lacks.
            stream.reconfigure(errors="backslashreplace")


def _run(name: str, arguments: Sequence[str], as_json: bool) -> int:
    """Run the verb `name`, print its output and return its exit code."""
    if name not in VERBS:
        similar = difflib.get_close_matches(name, VERBS, 1)
        hint = f"did you mean {similar[0]}?" if similar else f"the verbs are {', '.join(VERBS)}"
        raise UsageError(f"there is no verb {name!r}; {hint}")
    output = VERBS[name].run(arguments)
    if output.values:
        emit(output.values if as_json else output.terminal_values or output.values, as_json)
    if output.message:
        messages.print(output.message, style="yellow")
    return output.exit_code


def _print_error(sentence: str) -> None:
    if is_first_process():
        # Without markup: a file named `a [b].mp4` is printed as it is.
        messages.print(sentence, style="red", soft_wrap=True, markup=False)


def explain(error: OSError) -> str:
    """An error of the operating system as a sentence that says what to do next."""
    has_name = isinstance(error.filename, (str, bytes))
    name = printable(os.fsdecode(error.filename)) if has_name else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        while_writing = f" while writing {name}" if name else ""
        return (
            f"the disk is full{while_writing}; free some space and run the same command again, "
            "finished work is not lost"
        )
    # A read-only file system can be read, so it was writing that failed.
    if error.errno == errno.EROFS:
        return _no_permission(f"while writing {name or 'a file'}", error, "choose another folder")
    if error.errno in (errno.EACCES, errno.EPERM):
        if not name:
            return _no_permission("to read or write", error, "choose another folder")
        if _cannot_be_read(error.filename):
            return _no_permission(
                f"while reading {name}", error, "make it readable or leave it out"
            )
        return _no_permission(f"while writing {name}", error, "choose another folder")
    return f"{error.strerror or error}: {name}" if name else str(error.strerror or error)


def _no_permission(action: str, error: OSError, next_step: str) -> str:
    return f"no permission {action}: {error.strerror}; {next_step}"


def _cannot_be_read(filename: str | bytes) -> bool:
    """Whether an existing file cannot be read, or the nearest folder above it not be entered."""
    # The error itself does not say whether the file was opened for reading or for writing.
    path = Path(os.fsdecode(filename))
    if os.path.lexists(path):
        return not os.access(path, os.R_OK | os.X_OK if path.is_dir() else os.R_OK)
    # Below a folder that may not be entered, nothing seems to exist.
    above = next(filter(os.path.isdir, path.absolute().parents), path.parent)
    return not os.access(above, os.X_OK)


def _print_verbs() -> None:
    """The help of `looklisten` without a verb."""
    table = Table(show_header=False, box=None, padding=(0, 2))
    for verb in VERBS.values():
        table.add_row(f"  {verb.name}", verb.summary)
    console = Console()
    console.print(
        "[bold]looklisten[/bold]: learns from unlabeled video what looks and sounds alike\n"
    )
    console.print(table)
    console.print("\n`looklisten VERB --help` lists the options. `--json` prints JSON everywhere.")


if __name__ == "__main__":
    sys.exit(main())
