"""One training at a time in a run folder."""

from pathlib import Path

from looklisten.system.folder_lock import (
    RENEWAL_SECONDS,
    STALE_SECONDS,
    FolderLock,
    LockedTask,
)

TRAINING = LockedTask(
    file_name="training.lock",
    activity="is being trained",
    alternative="another run folder",
    outcome="this training ends, and its last checkpoint is kept",
)


def training_lock(
    run: Path,
    renewal_seconds: float = RENEWAL_SECONDS,
    stale_seconds: float = STALE_SECONDS,
) -> FolderLock:
    """The right to train in a run folder; see `FolderLock`."""
    return FolderLock(run, TRAINING, renewal_seconds, stale_seconds)
