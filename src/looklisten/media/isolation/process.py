"""A program of this package in a process of its own: how it starts, what it may take, how it ended.

`prepare` runs one program this way (`data.worker`), everything else that reads a user's files
another (`decoder_child`). Both speak over pipes. Both end by themselves when the pipe closes, so a
killed parent leaves no orphans.
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
"""They are meant for the program that the user started and would stop or change this one."""


class WorkerLost(Exception):  # noqa: N818 (an event, not a mistake)
    """The process is gone, or was stopped because it hung; `str(error)` says how."""

    def __init__(self, how: str, hung: bool = False) -> None:
        super().__init__(how)
        self.hung = hung


class ChildProcess:
    """A running `python -m MODULE ARGUMENTS...`. `stdin` and `stdout` are the ends of its pipes,
    unbuffered.
    """

    def __init__(
        self, module: str, *arguments: str, variables: Mapping[str, str] | None = None
    ) -> None:
        self.owner_pid = os.getpid()
        # Unbuffered, as the pipes: a buffer has a lock, which a fork may copy while it is held.
        self._log = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (lives as long as the process)
        inherited = {
            name: value for name, value in os.environ.items() if name not in UNWANTED_VARIABLES
        }
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
        """All of `data`. Raises OSError when nobody reads any more, ValueError when the process was
        stopped.
        """
        rest = memoryview(data)
        while len(rest):
            rest = rest[self.stdin.write(rest) :]

    def how_it_ended(self) -> str:
        """A sentence without a subject's name. Waits for the end."""
        code = self._process.wait()
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"the decoder crashed its process ({signal.Signals(-code).name})"
        said = self._last_line()
        return f"the decoder ended its process with code {code}{f': {said}' if said else ''}"

    def _last_line(self) -> str:
        with contextlib.suppress(ValueError):  # closed already
            self._log.seek(0)
            lines = self._log.read().decode("utf-8", "replace").strip().splitlines()
            return lines[-1] if lines else ""
        return ""

    def kill(self) -> None:
        """End the process, whatever it does. Pipes stay open, so that who reads them finds their
        end.
        """
        self._process.kill()

    def stop(self) -> None:
        """End the process and close its pipes; may be called again."""
        self._process.kill()
        self._process.wait()
        self._close()

    def disown(self) -> None:
        """In a process that was forked off the one that started it: close the copies of the pipes,
        leave the process alone.
        """
        self._process.returncode = 0  # so that nothing here ever waits for a process of the parent
        self._close()

    def _close(self) -> None:
        for file in (self.stdin, self.stdout, self._log):
            with contextlib.suppress(OSError):
                file.close()


# What follows is for the program at the other end.


def claim_stdout() -> io.FileIO:
    """The way back to the parent. What a library prints goes to stderr from here on, so that it
    does not get between messages.
    """
    pipe = io.FileIO(os.dup(1), "w")
    os.dup2(2, 1)
    return pipe


def ignore_interrupts() -> None:
    """Ctrl-C reaches every process of a terminal; the parent alone handles it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def quiet_decoders() -> None:
    """FFmpeg's lines go nowhere, but its errors carry its own last line."""
    import av

    logger = logging.getLogger("libav")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    av.logging.set_level(av.logging.ERROR)


def limit_memory(megabytes: int) -> None:
    """From here on this process gets at most so much more memory; asking for more is a MemoryError.
    Nothing without Linux.
    """
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        wanted = taken + megabytes * 2**20
        resource.setrlimit(
            resource.RLIMIT_AS,
            (wanted if most == resource.RLIM_INFINITY else min(wanted, most), most),
        )
