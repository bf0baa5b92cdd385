"""What reading one file may cost: limits of the machine, on which the results do not depend.

Imports neither NumPy nor a decoder, so that the command line can use it.
"""

from dataclasses import dataclass

from looklisten.option_checks import check_above_zero, check_at_least


@dataclass(frozen=True)
class WorkerLimits:
    """What a process that decodes may take before it is stopped."""

    stall_seconds: float = 120.0
    """A file is given up when decoding advances by less than a second of video in this time."""
    memory_megabytes: int = 4096
    """Memory that the process may take, in addition to what it starts with."""
    sources_per_worker: int = 512
    """A new process takes over after this many sources, so that leaked memory is returned."""

    def __post_init__(self) -> None:
        check_above_zero(stall_seconds=self.stall_seconds)
        check_at_least(
            1,
            memory_megabytes=self.memory_megabytes,
            sources_per_worker=self.sources_per_worker,
        )
