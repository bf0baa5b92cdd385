"""One process at a time works in a folder. A process that was killed does not block it for long.

The lock is a file that says who works there. It needs no lock service of the file
system: creating a file that must not exist yet is atomic on local disks and on NFS. The holder
renews the file's time every few seconds. A process that finds the file asks in this order:

1. Is the holder a process of this machine? Then the system knows whether it is alive (outside Linux
   only whether it is gone).
2. Else, is the file's time renewed? A live holder renews it; a lock that nobody renewed for
   `stale_seconds` is taken over.
"""

import contextlib
import json
import logging
import os
import platform
import sys
import threading
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from looklisten.errors import ConfigError, FolderInUseError, LookListenError

RENEWAL_SECONDS = 15.0
"""Between two renewals of the file's time."""
STALE_SECONDS = 90.0
"""A lock of another machine that was not renewed for so long belongs to a killed process."""
CLAIM_POLL_SECONDS = 0.05
"""Between two reads of a lock that another process is about to take over."""
RENEWAL_POLL_SECONDS = 0.5
"""Between two reads of the time of another machine's lock."""

_log = logging.getLogger("looklisten")


@dataclass(frozen=True)
class LockedTask:
    """What only one process may do in a folder, in the words of the sentences about it."""

    file_name: str
    """The name of the lock in the folder."""
    activity: str
    """After the name of the folder: "is being trained"."""
    alternative: str
    """What to give instead: "another run folder"."""
    outcome: str
    """What becomes of a process that lost the lock."""


@dataclass(frozen=True)
class LockHolder:
    """The process that holds a lock."""

    host: str
    pid: int
    machine: str
    """The boot and the namespace of process ids that `pid` belongs to; empty if unknown."""
    started: str
    """When the process started, in the system's ticks since the boot; empty if unknown."""
    token: str
    """Unique for each lock."""


def this_process() -> LockHolder:
    """The calling process, with a new token."""
    pid = os.getpid()
    _, started = _process_state(pid)
    return LockHolder(platform.node(), pid, _machine_id(), started, uuid.uuid4().hex)


class FolderLock:
    """The right to do a task in `folder`. One process acquires it for all that work together.

    `acquire` raises FolderInUseError, one sentence, when another process has it. `check` raises
    LookListenError when another process has taken it over. `release` may be called more than once.
    """

    def __init__(
        self,
        folder: Path,
        task: LockedTask,
        renewal_seconds: float = RENEWAL_SECONDS,
        stale_seconds: float = STALE_SECONDS,
    ) -> None:
        self._folder = folder
        self._task = task
        self._path = folder / task.file_name
        self._renewal_seconds = renewal_seconds
        self._stale_seconds = stale_seconds
        self._holder: LockHolder | None = None
        self._released = threading.Event()
        self._renewing: threading.Thread | None = None

    def acquire(self) -> None:
        holder = this_process()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            while not (self._create(holder) or self._take_over(holder)):
                pass
        except OSError as error:
            raise ConfigError(
                f"{self._folder} cannot be written to ({error.strerror or error}); "
                f"give {self._task.alternative}"
            ) from None
        self._holder = holder
        self._released.clear()
        # A daemon thread ends with its process, also after an error.
        self._renewing = threading.Thread(target=self._renew, name="folder lock", daemon=True)
        self._renewing.start()

    def check(self) -> None:
        """Raises LookListenError when this process has lost the lock.

        That happens when it was suspended for long, and another process took the folder over.
        """
        if self._holder is None:
            return
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            # Somebody deleted the file: take the lock again, if nobody else has.
            if self._create(self._holder):
                return
            text = ""
        except OSError:
            # A disk that is away for a moment says nothing about the lock.
            return
        if self._holder.token not in text:
            raise LookListenError(
                f"{self._folder} was taken over by {_describe(self._read())} while this process "
                f"did not run for a while; {self._task.outcome}"
            )

    def release(self) -> None:
        if self._holder is None:
            return
        self._released.set()
        if self._renewing is not None:
            self._renewing.join()
        current = self._read()
        # Never delete the lock of a process that took the folder over.
        if current is not None and current.token == self._holder.token:
            self._path.unlink(missing_ok=True)
        self._holder = None

    def _create(self, holder: LockHolder) -> bool:
        """Take the lock if it is free; whether it was."""
        return _create_file(self._path, holder)

    def _read(self) -> LockHolder | None:
        """Who holds the lock; None when the file is gone, or empty after its writer was killed."""
        return _read_holder(self._path)

    def _take_over(self, holder: LockHolder) -> bool:
        """Take the lock of a dead process; False: try again, the lock has changed.

        Raises FolderInUseError when the lock's holder is alive.
        """
        current = self._read()
        state = _state_of(current) if current else "unknown"
        if state == "alive":
            raise FolderInUseError(self._locked_sentence(current))
        if state == "unknown" and not self._becomes_stale(current):
            return False
        # Of many processes that find the same dead lock, only one can create this file.
        claim = self._path.with_name(
            f"{self._task.file_name}.{current.token if current else 'empty'}"
        )
        if not _create_file(claim, holder):
            self._remove_abandoned(claim)
            time.sleep(CLAIM_POLL_SECONDS)
            return False
        try:
            # An earlier process may have taken the lock over and removed its claim since.
            if not self._path.exists() or self._read() != current:
                return False
            new_lock = self._path.with_name(f"{self._task.file_name}.{holder.token}")
            _create_file(new_lock, holder)
            new_lock.replace(self._path)
            return True
        finally:
            claim.unlink(missing_ok=True)

    def _remove_abandoned(self, claim: Path) -> None:
        """Remove a claim whose process was killed while it took the lock over."""
        with contextlib.suppress(FileNotFoundError):
            if self._file_system_time() - claim.stat().st_mtime >= self._stale_seconds:
                claim.unlink()

    def _becomes_stale(self, current: LockHolder | None) -> bool:
        """Wait until the lock is stale; False when it is gone or has another holder.

        Raises FolderInUseError when its holder renews it meanwhile.
        """
        first_renewal: float | None = None
        was_logged = False
        while True:
            try:
                renewal = self._path.stat().st_mtime
            except FileNotFoundError:
                return False
            if self._read() != current:
                # Another process holds the lock now.
                return False
            if first_renewal is None:
                first_renewal = renewal
            if renewal != first_renewal:
                raise FolderInUseError(self._locked_sentence(current))
            age_seconds = self._file_system_time() - renewal
            if age_seconds >= self._stale_seconds:
                return True
            if not was_logged:
                _log.info(
                    "%s was locked %.0f s ago by %s; "
                    "waiting up to %.0f s to see whether it is still at work",
                    self._folder,
                    max(age_seconds, 0),
                    _describe(current),
                    self._stale_seconds - age_seconds,
                )
                was_logged = True
            time.sleep(RENEWAL_POLL_SECONDS)

    def _file_system_time(self) -> float:
        """The time by the clock that gives files their times; on a network disk the server's."""
        probe = self._path.with_name(f"{self._task.file_name}.{uuid.uuid4().hex}")
        probe.touch()
        try:
            return probe.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)

    def _locked_sentence(self, holder: LockHolder | None) -> str:
        return (
            f"{self._folder} {self._task.activity} by {_describe(holder)}; "
            f"wait for it, stop it, or give {self._task.alternative} "
            f"(if you know that no process works there, delete {self._path})"
        )

    def _renew(self) -> None:
        """Renew the file's time until the lock is released."""
        while not self._released.wait(self._renewal_seconds):
            # The disk may be away for a moment. `check` finds out whether the lock is lost.
            with contextlib.suppress(OSError):
                current = self._read()
                # Never renew the lock of a process that took the folder over.
                if current is None or self._holder is None or current.token == self._holder.token:
                    os.utime(self._path)


def _create_file(path: Path, holder: LockHolder) -> bool:
    """Create a file that names `holder`; False if it exists already."""
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(json.dumps(asdict(holder)) + "\n")
    return True


def _read_holder(path: Path) -> LockHolder | None:
    try:
        return LockHolder(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _describe(holder: LockHolder | None) -> str:
    return f"process {holder.pid} on {holder.host}" if holder else "another process"


ProcessState = Literal["alive", "dead", "unknown"]


def _state_of(holder: LockHolder) -> ProcessState:
    """Whether the holder of a lock is alive; "unknown" when it belongs to another machine."""
    own = this_process()
    if holder.machine and own.machine:
        same_machine = holder.machine == own.machine
    else:
        same_machine = holder.host == own.host
    if not same_machine:
        return "unknown"
    state, started = _process_state(holder.pid)
    if state == "dead":
        return "dead"
    if holder.started and started:
        # The system may have given the number to a later process.
        return "alive" if holder.started == started else "dead"
    return "unknown"


def _process_state(pid: int) -> tuple[ProcessState, str]:
    """Whether a process of this machine is alive, and when it started.

    The time is in ticks since the boot; empty where the system does not say.
    """
    try:
        # The name of the process, in brackets, may hold spaces. After it, the state is the third
        # field of the file and the start the twenty-second.
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        fields = text.rpartition(")")[2].split()
        # A killed process is a zombie until its parent has asked for its exit status.
        return ("dead" if fields[0] in "ZX" else "alive"), fields[19]
    except (OSError, IndexError):
        pass
    if sys.platform == "win32":
        # There a signal 0 would end the process.
        return "unknown", ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return "dead", ""
    except OSError:
        return "alive", ""
    return "alive", ""


def _machine_id() -> str:
    """The boot of this machine and its namespace of process ids; empty if unknown.

    A container has a namespace of its own, so its process ids mean nothing outside.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""
