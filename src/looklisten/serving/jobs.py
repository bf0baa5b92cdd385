"""Long work that a client asks for and fetches later: progress, cancel, result.

Jobs live in the memory of this process. One runs at a time, since each uses the network.
"""

import asyncio
import contextlib
import logging
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from looklisten.errors import LookListenError
from looklisten.serving.records import Job, JobState
from looklisten.serving.refusals import (
    FAULT,
    RefusedError,
    busy,
    refusal_of_system,
    unknown_id,
)

JobKind = Literal["overlay", "index", "tags", "units"]
Work = Callable[["RunningJob"], dict[str, Any]]
"""Does the work in a thread; returns the numbers of the result."""

MOST_KEPT = 32
"""Jobs that are over and kept, with their files; the oldest goes first."""

_log = logging.getLogger("looklisten")


class JobCanceled(BaseException):
    """Raised inside of work that is to stop.

    No `Exception`, which indexing would take for the fault of a file.
    """


@dataclass(eq=False)
class RunningJob:
    """One job; its thread writes here."""

    id: str
    kind: JobKind
    folder: Path | None = None
    """For files of the job; it is removed with the job."""
    state: JobState = "queued"
    done: int = 0
    total: int = 0
    error: str = ""
    result: dict[str, Any] | None = None
    file: Path | None = None
    ended_at: float = 0.0
    stop: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    """For `state`: a client may cancel a job while its thread begins it."""

    def progress(self, done: int, total: int, /, **_: str) -> None:
        """A `Progress` that also ends a job that was canceled."""
        # Threads cannot be ended from outside, so the work ends itself here.
        if self.stop.is_set():
            raise JobCanceled
        self.done, self.total = done, total

    def record(self) -> Job:
        """What the client sees."""
        return Job(
            id=self.id,
            kind=self.kind,
            state=self.state,
            done=self.done,
            total=self.total,
            error=self.error,
            result=self.result,
            file=f"/v1/jobs/{self.id}/file" if self.file else None,
        )

    @property
    def is_over(self) -> bool:
        return self.state in ("done", "failed", "canceled")


class Jobs:
    """The jobs of a server. `sentence_of`: what a client hears of an error."""

    def __init__(
        self,
        folder: Path,
        max_jobs: int,
        keep_seconds: float,
        sentence_of: Callable[[LookListenError], str] = str,
    ) -> None:
        self._folder = folder
        self._sentence_of = sentence_of
        self._max_jobs = max_jobs
        self._keep_seconds = keep_seconds
        self._jobs: dict[str, RunningJob] = {}
        self._thread = ThreadPoolExecutor(1, "jobs")

    def check_room(self) -> None:
        """Raises RefusedError when too many jobs wait."""
        self._remove_old()
        if self.unfinished >= self._max_jobs:
            raise busy(f"{self._max_jobs} jobs wait already", retry_seconds=10)

    @contextlib.contextmanager
    def new_folder(self) -> Iterator[Path]:
        """A folder for the files of a job; it is removed when the block fails to begin one."""
        # Checked here too, so that no upload is moved for a job that is then refused.
        self.check_room()
        folder = self._folder / secrets.token_hex(8)
        folder.mkdir()
        try:
            yield folder
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def start(self, kind: JobKind, work: Work, folder: Path | None = None) -> Job:
        """Begin a job. `folder`: one of `new_folder` with its files, which is removed with it."""
        self.check_room()
        # The id is random, so that no client can guess the job of another.
        job = RunningJob(folder.name if folder else secrets.token_hex(8), kind, folder)
        self._jobs[job.id] = job
        self._thread.submit(self._run, job, work)
        return job.record()

    @property
    def unfinished(self) -> int:
        """Jobs that wait or run."""
        return sum(not job.is_over for job in self._jobs.values())

    def get(self, job_id: str) -> RunningJob:
        """The job of this id. Raises RefusedError where there is none."""
        self._remove_old()
        job = self._jobs.get(job_id)
        if job is None:
            raise unknown_id("job", job_id)
        return job

    def file_of(self, job_id: str) -> Path:
        """The file that a job made. Raises RefusedError where there is none."""
        job = self.get(job_id)
        if job.file is None:
            raise RefusedError(404, f"the job {job_id} is {job.state} and has no file")
        return job.file

    def cancel(self, job_id: str) -> Job:
        """Stop a job that is not over; forget one that is."""
        job = self.get(job_id)
        with job.lock:
            was_over = job.is_over
            # The thread of a running job sees this at the next progress.
            job.stop.set()
            if job.state == "queued":
                self._end(job, "canceled")
        if was_over:
            self._forget(job)
        return job.record()

    async def wait(self, seconds: float) -> None:
        """Wait until all jobs are over, at most so long."""
        end = time.monotonic() + seconds
        while self.unfinished and time.monotonic() < end:
            await asyncio.sleep(0.05)

    def close(self) -> None:
        """Stop all jobs and remove their files."""
        # All are stopped first, so that none begins while the thread ends.
        for job in self._jobs.values():
            job.stop.set()
        self._thread.shutdown(wait=True, cancel_futures=True)
        for job in list(self._jobs.values()):
            self._forget(job)

    def _run(self, job: RunningJob, work: Work) -> None:
        with job.lock:
            if job.stop.is_set():
                return
            job.state = "running"
        state: JobState = "failed"
        try:
            job.result = work(job)
            state = "done"
        except JobCanceled:
            state = "canceled"
        except LookListenError as error:
            job.error = self._sentence_of(error)
        except Exception as error:
            refusal = refusal_of_system(error) if isinstance(error, OSError) else None
            # The client gets no stack trace; the log of the server has it.
            if refusal is None:
                _log.exception("job %s failed", job.id)
            job.error = str(refusal or FAULT)
        self._end(job, state)

    def _end(self, job: RunningJob, state: JobState) -> None:
        """Note that a job is over."""
        # Nobody fetches the files of a job that failed.
        if state != "done" and job.folder is not None:
            shutil.rmtree(job.folder, ignore_errors=True)
        # The state last: when a job is over, other threads read the rest.
        job.ended_at = time.monotonic()
        job.state = state

    def _remove_old(self) -> None:
        oldest = time.monotonic() - self._keep_seconds
        over = [job for job in self._jobs.copy().values() if job.is_over]
        over.sort(key=lambda job: job.ended_at)
        for number, job in enumerate(over):
            if job.ended_at < oldest or number < len(over) - MOST_KEPT:
                self._forget(job)

    def _forget(self, job: RunningJob) -> None:
        self._jobs.pop(job.id, None)
        if job.folder is not None:
            shutil.rmtree(job.folder, ignore_errors=True)
