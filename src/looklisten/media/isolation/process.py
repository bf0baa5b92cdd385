"""A program of this package in a process of its own: how it starts, its limits, how it ended.

`prepare` runs one program this way (`data.workers.child`). Everything else that reads a user's
files runs another one (`isolation.child`). Both communicate over pipes, and end by themselves when
the pipe closes, so that a killed parent leaves no orphans.
"""

import contextlib
import io
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

UNWANTED_VARIABLES = ("PYTHONINSPECT", "PYTHONWARNINGS", "PYTHONSTARTUP")
"""The user set them for another program. They could keep the child open, or turn its warnings into
errors."""


class WorkerLost(Exception):  # noqa: N818 (no caller made a mistake)
    """The process ended before its work was done, or was stopped; `str(error)` tells why."""

    def __init__(self, reason: str, hung: bool = False) -> None:
        super().__init__(reason)
        self.hung = hung


class ChildProcess:
    """A running `python -m MODULE ARGUMENTS...`, with the unbuffered ends of its pipes."""

    def __init__(
        self, module: str, *arguments: str, variables: Mapping[str, str] | None = None
    ) -> None:
        self.owner_pid = os.getpid()
        # Unbuffered, as the pipes: a buffer has a lock, which a fork may copy while it is held.
        self._log = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (lives as long as the process)
        inherited = {
            name: value for name, value in os.environ.items() if name not in UNWANTED_VARIABLES
        }
        # So the module is found wherever this program found it. An empty path is the user's folder.
        python_path = os.pathsep.join(path for path in sys.path if path)
        self._process = subprocess.Popen(  # noqa: S603 (this program itself)
            # -P: a file `json.py` in the user's folder must not become a module of this program.
            [sys.executable, "-P", "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=inherited | {"PYTHONPATH": python_path} | dict(variables or {}),
            bufsize=0,
        )
        assert self._process.stdin
        assert self._process.stdout
        self.stdin: IO[bytes] = self._process.stdin
        self.stdout: IO[bytes] = self._process.stdout

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def write(self, data: bytes | memoryview) -> None:
        """Write all of `data`.

        Raises OSError when nobody reads any more, ValueError when the process was stopped.
        """
        unwritten = memoryview(data)
        while len(unwritten):
            unwritten = unwritten[self.stdin.write(unwritten) :]

    def how_it_ended(self) -> str:
        """A sentence on why the process ended. Waits for the end."""
        code = self._process.wait()
        # A negative code is the number of a signal, which may be one without a name in Python.
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"the decoder crashed its process ({signal.Signals(-code).name})"
        line = self._last_line()
        return f"the decoder ended its process with code {code}{f': {line}' if line else ''}"

    def _last_line(self) -> str:
        with contextlib.suppress(ValueError):  # closed already
            self._log.seek(0)
            lines = self._log.read().decode("utf-8", "replace").strip().splitlines()
            return lines[-1] if lines else ""
        return ""

    def kill(self) -> None:
        """End the process. Its pipes stay open, so that a thread that reads them sees their end."""
        self._process.kill()

    def stop(self) -> None:
        """End the process and close its pipes. May be called again."""
        self._process.kill()
        self._process.wait()
        self._close()

    def disown(self) -> None:
        """Close the pipes without ending the process, in a program forked from its owner."""
        # With a return code, `Popen` takes the process for ended: it neither waits for it nor ends
        # it.
        self._process.returncode = 0
        self._close()

    def _close(self) -> None:
        for file in (self.stdin, self.stdout, self._log):
            with contextlib.suppress(OSError):
                file.close()


# The functions below are for the program in the process.


def claim_stdout() -> io.FileIO:
    """The pipe to the parent. From now on, what a library prints to stdout goes to stderr."""
    # Printed text between the messages would make them unreadable.
    pipe = io.FileIO(os.dup(1), "w")
    os.dup2(2, 1)
    return pipe


def ignore_interrupts() -> None:
    """Ctrl-C reaches every process of a terminal; the parent alone handles it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def quiet_decoders() -> None:
    """Print nothing that FFmpeg logs. An error of PyAV still has the last line that was logged."""
    import av

    logger = logging.getLogger("libav")
    # Without a handler, `logging` would print warnings to stderr by itself.
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    av.logging.set_level(av.logging.ERROR)


def limit_memory(megabytes: int) -> None:
    """Let this process take at most `megabytes` (2**20 bytes) more; beyond, it gets a MemoryError.

    Works on Linux only. Elsewhere it does nothing.
    """
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        # The first number is the size of the address space in pages, which RLIMIT_AS limits.
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        _, hard_limit = resource.getrlimit(resource.RLIMIT_AS)
        limit = taken + megabytes * 2**20
        if hard_limit != resource.RLIM_INFINITY:
            limit = min(limit, hard_limit)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard_limit))
