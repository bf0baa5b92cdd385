"""One training at a time in a folder. A training that was killed does not block the folder for
long.

The lock is a file, `training.lock`, that says who trains. It needs no lock service of the file
system: creating a file that must not exist yet is atomic on local disks and on NFS. The holder
renews the file's time every few seconds. Whoever finds the file asks in this order:

1. Is the holder a process of this machine? Then the system knows whether it lives (outside Linux
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

from looklisten.errors import ConfigError, LookListenError

log = logging.getLogger("looklisten")

LOCK_NAME = "training.lock"
BEAT_SECONDS = 15.0
"""Between two renewals of the file's time."""
STALE_SECONDS = 90.0
"""A lock of another machine that was not renewed for so long is of a killed process."""
CLAIM_SECONDS = 0.05
"""Between two looks at a lock that another process is about to take over."""
LOOK_SECONDS = 0.5
"""Between two looks at the lock of another machine."""


@dataclass(frozen=True)
class Holder:
    """Which process holds a lock."""

    host: str
    pid: int
    machine: str
    """The boot and the space of process numbers that `pid` belongs to; empty where the system does
    not say.
    """
    started: str
    """When the process started, in the system's ticks since the boot; empty where the system does
    not say.
    """
    token: str
    """Unique for each lock."""


def this_process() -> Holder:
    """The process that asks, with a new token."""
    pid = os.getpid()
    return Holder(platform.node(), pid, _machine(), _process_state(pid)[1], uuid.uuid4().hex)


class FolderLock:
    """The right to train in `folder`. One process asks for it, for all processes of a run.

    `acquire` raises ConfigError, one sentence, when another process has it. `check` raises it when
    another process has taken it over. `release` gives it back and may be called more than once.
    """

    def __init__(
        self, folder: Path, beat_seconds: float = BEAT_SECONDS, stale_seconds: float = STALE_SECONDS
    ) -> None:
        self._folder, self._path = folder, folder / LOCK_NAME
        self._beat_seconds, self._stale_seconds = beat_seconds, stale_seconds
        self._holder: Holder | None = None
        self._ended = threading.Event()
        self._beating: threading.Thread | None = None

    def acquire(self) -> None:
        holder = this_process()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            while not (self._create(holder) or self._take_over(holder)):
                pass
        except OSError as error:
            raise ConfigError(
                f"{self._folder} cannot be written to ({error.strerror or error}); give a run folder that can be"
            ) from None
        self._holder = holder
        self._ended.clear()
        self._beating = threading.Thread(target=self._beat, name="training lock", daemon=True)
        self._beating.start()

    def check(self) -> None:
        """Raises LookListenError when this process lost the lock: it slept for long, and another
        one took the folder over.
        """
        if self._holder is None:
            return
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            if self._create(self._holder):  # somebody deleted it
                return
            text = ""
        except OSError:
            return
        if self._holder.token not in text:
            raise LookListenError(
                f"{self._folder} was taken over by {_name_of(self._read())} while this process did not run for a while; "
                f"this training ends, and its last checkpoint is kept"
            )

    def release(self) -> None:
        if self._holder is None:
            return
        self._ended.set()
        if self._beating is not None:
            self._beating.join()
        found = self._read()
        if found is not None and found.token == self._holder.token:
            self._path.unlink(missing_ok=True)
        self._holder = None

    def _create(self, holder: Holder) -> bool:
        """Whether the lock was free and is `holder`'s now."""
        return _create_file(self._path, holder)

    def _read(self) -> Holder | None:
        """Who holds the lock; None when the file is gone, or is empty because its writer was
        killed.
        """
        return _holder_in(self._path)

    def _take_over(self, holder: Holder) -> bool:
        """Whether the lock was of a dead process and is `holder`'s now; False: ask for it again.

        Raises ConfigError when the lock's holder lives. Of many processes that find the same dead
        lock, one takes it over: the one that creates the file `training.lock.OLD-TOKEN`. It reads
        the lock again after that, because an earlier process may have taken it over and gone on.
        """
        found = self._read()
        state = _state_of(found) if found else "unknown"
        if state == "alive":
            assert found is not None
            raise ConfigError(self._sentence(found))
        if state == "unknown" and not self._falls_silent(found):
            return False
        claim = self._path.with_name(f"{LOCK_NAME}.{found.token if found else 'empty'}")
        if not _create_file(claim, holder):
            # Another process is about to take it over; a claim that stays is of a killed process.
            with contextlib.suppress(FileNotFoundError):
                if self._now() - claim.stat().st_mtime >= self._stale_seconds:
                    claim.unlink()
            time.sleep(CLAIM_SECONDS)
            return False
        try:
            if not self._path.exists() or self._read() != found:
                return False
            written = self._path.with_name(f"{LOCK_NAME}.{holder.token}")
            _create_file(written, holder)
            written.replace(self._path)
            return True
        finally:
            claim.unlink(missing_ok=True)

    def _falls_silent(self, found: Holder | None) -> bool:
        """Whether the lock stays without a sign of life until it is stale; False when it is gone.
        ConfigError when it is renewed.
        """
        first: float | None = None
        said = False
        while True:
            try:
                renewed = self._path.stat().st_mtime
            except FileNotFoundError:
                return False
            if self._read() != found:
                return False  # another process holds it now: ask again
            first = renewed if first is None else first
            if renewed != first:
                raise ConfigError(self._sentence(self._read() or found))
            silent_seconds = self._now() - renewed
            if silent_seconds >= self._stale_seconds:
                return True
            if not said:
                log.info(
                    "%s was locked %.0f s ago by %s; waiting up to %.0f s to see whether it still trains",
                    *(
                        self._folder,
                        max(silent_seconds, 0),
                        _name_of(found),
                        self._stale_seconds - silent_seconds,
                    ),
                )
                said = True
            time.sleep(LOOK_SECONDS)

    def _now(self) -> float:
        """The time by the clock that gives files their times, which on a network disk is the
        server's.
        """
        probe = self._path.with_name(f"{LOCK_NAME}.{uuid.uuid4().hex}")
        probe.touch()
        try:
            return probe.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)

    def _sentence(self, found: Holder | None) -> str:
        return (
            f"{self._folder} is being trained by {_name_of(found)}; wait for it, stop it, or give another run folder "
            f"(if you know that nothing trains there, delete {self._path})"
        )

    def _beat(self) -> None:
        while not self._ended.wait(self._beat_seconds):
            with contextlib.suppress(
                OSError
            ):  # a disk that is away for a moment; `check` says when the lock is lost
                found = self._read()
                if found is None or self._holder is None or found.token == self._holder.token:
                    os.utime(self._path)  # never the lock of a process that took the folder over


def _create_file(path: Path, holder: Holder) -> bool:
    """Whether the file did not exist yet and names `holder` now."""
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(json.dumps(asdict(holder)) + "\n")
    return True


def _holder_in(path: Path) -> Holder | None:
    try:
        return Holder(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _name_of(holder: Holder | None) -> str:
    return f"process {holder.pid} on {holder.host}" if holder else "another process"


State = Literal["alive", "dead", "unknown"]


def _state_of(holder: Holder) -> State:
    """What this machine knows of the process that holds a lock; "unknown" when it is another
    machine's.
    """
    own = this_process()
    here = (
        holder.machine == own.machine if holder.machine and own.machine else holder.host == own.host
    )
    if not here:
        return "unknown"
    state, started = _process_state(holder.pid)
    if state == "dead":
        return "dead"
    if holder.started and started:
        # A number is given again to a later process.
        return "alive" if holder.started == started else "dead"
    return "unknown"


def _process_state(pid: int) -> tuple[State, str]:
    """Whether a process of this machine lives, and when it started, in ticks since the boot (""
    where the system does not say).
    """
    try:
        # The name, in brackets, may hold spaces; the state is the third field, the start the
        # twenty-second.
        fields = (
            Path(f"/proc/{pid}/stat")
            .read_text(encoding="utf-8", errors="replace")
            .rpartition(")")[2]
            .split()
        )
        # A killed process that its parent has not asked for yet is a zombie.
        return ("dead" if fields[0] in "ZX" else "alive"), fields[19]
    except (OSError, IndexError):
        pass
    if sys.platform == "win32":  # where a signal 0 is no question
        return "unknown", ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return "dead", ""
    except OSError:
        return "alive", ""
    return "alive", ""


def _machine() -> str:
    """The boot of this machine and its space of process numbers (a container has its own); empty
    where the system does not say.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""
