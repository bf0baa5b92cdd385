"""What one call of `index` did, as a record."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class IndexResult:
    """What one call of `index` did."""

    sources: int
    """Files that the inputs name."""
    indexed: int
    unchanged: int
    """Files that the index held already."""
    relabeled: int
    """Those of them that the inputs now give another label or video id."""
    copies: int
    """Files with the same bytes as another one, which are in the index once."""
    removed: int
    """Sources that the index held, and whose files went."""
    failed: int
    """Lines of `failures.jsonl`."""
    not_opened: int
    """Files that ended the decoder before and did not change."""
    moments_added: int
    moments: int
    """Moments in the index now."""
    media_seconds: float
    """Length of the files that were indexed."""
    db: str
    taken_in: int = 0
    """Files that tasks of a job array had indexed."""

    def as_dict(self) -> dict[str, Any]:
        """The values that the command line prints."""
        return asdict(self)
