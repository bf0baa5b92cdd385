"""The store `arrow`: exact search over memory-mapped fragments, without another package.

A commit writes a fragment under a temporary name, flushes it to the disk, renames it, and then
replaces `index.json`, which names all fragments. Until that moment readers see the commit before.
Small fragments are merged as they come, so that there are never many.
"""

import contextlib
import logging
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32

from looklisten.config import SIDES, Side
from looklisten.option_checks import check_at_least
from looklisten.search.exact_search import nearest_rows
from looklisten.search.export import export_moments
from looklisten.search.filters import Condition, parse_filter
from looklisten.search.fragments import Fragment, merge_fragments, write_moments
from looklisten.search.index_file import INDEX_NAME, FragmentEntry, IndexFile, damaged
from looklisten.search.masks import matching_rows
from looklisten.search.moment_checks import check_moments, check_query
from looklisten.search.moments import FoundMoment, IndexedMoment
from looklisten.search.store import IndexExportFormat, StoreStats
from looklisten.search.writing import WriterLock, folder_bytes, writing
from looklisten.system.files import remove_abandoned_scratch

FRAGMENTS_FOLDER = "fragments"
MERGED_COUNT = 8
"""So many fragments of about one size become one."""
MERGED_MOMENTS = 262_144
"""`add` merges no fragment with more moments."""
MAX_FRAGMENT_MOMENTS = 524_288
"""`maintain` makes no larger fragment, so that its memory is bounded."""

_log = logging.getLogger("looklisten")


@dataclass(frozen=True)
class _Part:
    """A fragment without the sources that were removed from it."""

    fragment: Fragment
    removed: tuple[str, ...]

    @cached_property
    def kept_mask(self) -> Bool[np.ndarray, " rows"]:
        return self.fragment.kept_rows(self.removed)

    @cached_property
    def sources(self) -> dict[str, str]:
        sources = self.fragment.sources
        return {source: sources[source] for source in sources if source not in self.removed}

    def matching(self, condition: Condition | None) -> Bool[np.ndarray, " rows"]:
        """The rows that are not removed and match."""
        if condition is None:
            return self.kept_mask
        matching: Bool[np.ndarray, " rows"] = self.kept_mask & matching_rows(
            condition, self.fragment
        )
        return matching


class ArrowStore:
    """Exact search over memory-mapped vectors; see `VectorStore` for what its methods do."""

    def __init__(self, db: Path) -> None:
        self._db = db
        self._lock = WriterLock(db)
        self._stamp: tuple[int, ...] = ()
        self._fragments: dict[str, Fragment] = {}
        self._parts: list[_Part] = []
        self._refresh()

    @property
    def space_id(self) -> str:
        return self._index.space_id

    @property
    def width(self) -> int:
        return self._index.width

    def add(self, moments: Iterable[IndexedMoment]) -> None:
        rows = list(moments)
        check_moments(rows, self.width)
        if not rows:
            return
        # Rows that the index has of these sources are replaced, so that none are there twice.
        sources = {moment.source for moment in rows}
        with self._writing():
            name = f"{self._index.next_fragment:08d}"
            entry = write_moments(self._folder / name, rows, self.width)
            self._commit([*self._entries_without(sources), entry])
            try:
                self._merge_small()
            except OSError as error:
                # The moments are there; a later call merges.
                _log.warning("fragments of %s were not merged: %s", self._db, error)

    def remove_source(self, source: str) -> None:
        with self._writing():
            entries = self._entries_without({source})
            if entries != list(self._index.fragments):
                self._commit(entries)

    def sources(self) -> dict[str, str]:
        self._refresh()
        digests: dict[str, str] = {}
        for part in self._parts:
            digests |= part.sources
        return digests

    def moments(self, where: str | None = None) -> Iterator[IndexedMoment]:
        condition = parse_filter(where) if where is not None else None
        self._refresh()
        for part in list(self._parts):
            rows = np.flatnonzero(part.matching(condition))
            for start in range(0, len(rows), 1024):
                yield from part.fragment.moments(rows[start : start + 1024])

    def search(
        self,
        query: Float32[np.ndarray, " width"],
        side: Side,
        limit: int,
        where: str | None = None,
    ) -> list[FoundMoment]:
        check_at_least(1, limit=limit)
        condition = parse_filter(where) if where is not None else None
        self._refresh()
        unit_query = check_query(query, self.width)
        candidates: list[_Candidate] = []
        for part in self._parts:
            selected = part.matching(condition) & part.fragment.has_vector(side)
            vectors = part.fragment.vectors(side)
            rows, similarities = nearest_rows(vectors, unit_query, selected, limit)
            candidates += _candidates(part.fragment, rows.tolist(), similarities.tolist())
        return _best(candidates, limit)

    def find_tag(self, name: str, limit: int, where: str | None = None) -> list[FoundMoment]:
        check_at_least(1, limit=limit)
        condition = parse_filter(where) if where is not None else None
        self._refresh()
        candidates: list[_Candidate] = []
        for part in self._parts:
            lists = part.fragment.name_lists("tag")
            code = lists.names.index(name).as_py()
            # -1, for a name that is not there, equals no code.
            positions = np.flatnonzero(lists.codes == code)
            rows = np.searchsorted(lists.offsets, positions, side="right") - 1
            scores = part.fragment.tag_scores[positions]
            is_selected = part.matching(condition)[rows]
            rows, scores = rows[is_selected], scores[is_selected]
            # All ties with the last one stay: `_best` puts them in order.
            if len(scores) > limit:
                is_high = scores >= np.partition(scores, len(scores) - limit)[len(scores) - limit]
                rows, scores = rows[is_high], scores[is_high]
            candidates += _candidates(part.fragment, rows.tolist(), scores.tolist())
        return _best(candidates, limit)

    def tags(self) -> list[str]:
        self._refresh()
        names: set[str] = set()
        for part in self._parts:
            lists = part.fragment.name_lists("tag")
            # Of removed rows the names are still there.
            is_kept = np.repeat(part.kept_mask, np.diff(lists.offsets))
            codes = np.unique(lists.codes[is_kept])
            names.update(lists.names[int(code)].as_py() for code in codes)
        return sorted(names)

    def maintain(self) -> None:
        with self._writing():
            for group in _groups(self._parts):
                self._merge(group)

    def stats(self) -> StoreStats:
        self._refresh()
        vectors = dict.fromkeys(SIDES, 0)
        moments = 0
        for part in self._parts:
            moments += int(np.count_nonzero(part.kept_mask))
            for side in SIDES:
                vectors[side] += int(
                    np.count_nonzero(part.kept_mask & part.fragment.has_vector(side))
                )
        return StoreStats(
            store="arrow",
            space_id=self.space_id,
            width=self.width,
            moments=moments,
            sources=len(self.sources()),
            vision_vectors=vectors["vision"],
            audio_vectors=vectors["audio"],
            disk_bytes=folder_bytes(self._folder) + (self._db / INDEX_NAME).stat().st_size,
            fragments=len(self._parts),
        )

    def export(self, path: Path, format: IndexExportFormat) -> None:
        self._refresh()
        export_moments(self.moments(), self.space_id, self.width, path, format)

    def close(self) -> None:
        self._lock.release()

    def __enter__(self) -> "ArrowStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def begin_writing(self) -> None:
        """Take the lock of the writer, which `close` gives back."""
        with self._writing():
            pass

    @property
    def _folder(self) -> Path:
        return self._db / FRAGMENTS_FOLDER

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        with self._lock.taken() as is_new:
            self._refresh()
            if is_new:
                self._remove_uncommitted()
            with writing(self._db):
                yield

    def _remove_uncommitted(self) -> None:
        """Remove the fragments of a writer that was killed before its commit."""
        committed = {entry.name for entry in self._index.fragments}
        remove_abandoned_scratch(self._db)
        # A new index has no folder of fragments yet.
        if not self._folder.is_dir():
            return
        for path in self._folder.iterdir():
            if path.name not in committed:
                shutil.rmtree(path, ignore_errors=True)

    def _entries_without(self, sources: set[str]) -> list[FragmentEntry]:
        """The fragments of the next commit, from which sources are removed."""
        entries = []
        for part in self._parts:
            removed = sources & part.sources.keys()
            if len(removed) < len(part.sources):
                all_removed = tuple(sorted({*part.removed, *removed}))
                entries.append(replace(part.fragment.entry, removed=all_removed))
        return entries

    def _commit(self, entries: Sequence[FragmentEntry]) -> None:
        # Just before the commit: another process may have taken over a lock that seemed dead.
        self._lock.check()
        before = {entry.name for entry in self._index.fragments}
        after = {entry.name for entry in entries}
        next_fragment = self._index.next_fragment + len(after - before)
        index = replace(self._index, fragments=tuple(entries), next_fragment=next_fragment)
        # Readers use the new fragments from here on. Only then are the old ones removed.
        index.write(self._db)
        self._refresh()
        for name in before - after:
            # Readers that have mapped these files keep them.
            shutil.rmtree(self._folder / name, ignore_errors=True)

    def _merge_small(self) -> None:
        """Merge fragments of about one size, until fewer than MERGED_COUNT are alike."""
        while True:
            sizes: dict[int, list[_Part]] = {}
            for part in self._parts:
                if len(part.fragment) < MERGED_MOMENTS:
                    tier = _tier(len(part.fragment))
                    sizes.setdefault(tier, []).append(part)
            group = next((parts for parts in sizes.values() if len(parts) >= MERGED_COUNT), None)
            if group is None:
                return
            self._merge(group)

    def _merge(self, group: Sequence[_Part]) -> None:
        name = f"{self._index.next_fragment:08d}"
        merged = merge_fragments(
            self._folder / name,
            [part.fragment for part in group],
            [part.kept_mask for part in group],
        )
        replaced = {part.fragment.entry.name for part in group}
        entries = [entry for entry in self._index.fragments if entry.name not in replaced]
        self._commit([*entries, merged])

    def _refresh(self) -> None:
        """See the last commit."""
        while True:
            stamp = self._read_stamp()
            if stamp == self._stamp:
                return
            index = IndexFile.read(self._db)
            try:
                parts = [self._open(index, entry) for entry in index.fragments]
            except FileNotFoundError as error:
                # A writer has merged this fragment since `index.json` was read.
                if self._read_stamp() != stamp:
                    continue
                raise damaged(self._db, Path(error.filename), "it is missing") from None
            self._stamp = stamp
            self._index = index
            self._parts = parts
            self._fragments = {part.fragment.entry.name: part.fragment for part in parts}
            return

    def _read_stamp(self) -> tuple[int, ...]:
        try:
            status = (self._db / INDEX_NAME).stat()
        except OSError:
            # `IndexFile.read` has the sentence for a file that is missing.
            return (-1,)
        return status.st_ino, status.st_mtime_ns, status.st_size

    def _open(self, index: IndexFile, entry: FragmentEntry) -> _Part:
        fragment = self._fragments.get(entry.name)
        if fragment is None:
            folder = self._folder / entry.name
            # Commits change the list of removed sources but not the files, so `_Part` has the list.
            fragment = Fragment(self._db, folder, replace(entry, removed=()), index.width)
        return _Part(fragment, entry.removed)


@dataclass(frozen=True)
class _Candidate:
    """A row that a search may return; only the best are read from the disk."""

    similarity: float
    """That of the vectors, or the score of the tag."""
    moment_id: str
    source: str
    fragment: Fragment
    row: int


def _candidates(
    fragment: Fragment, rows: Sequence[int], similarities: Sequence[float]
) -> list[_Candidate]:
    ids = fragment.table["moment_id"]
    sources = fragment.names("source")
    return [
        _Candidate(similarity, ids[row].as_py(), sources[row].as_py(), fragment, row)
        for row, similarity in zip(rows, similarities, strict=True)
    ]


def _best(candidates: list[_Candidate], limit: int) -> list[FoundMoment]:
    """The moments of the best candidates; of equal ones always the same, in the same order."""
    candidates.sort(key=lambda each: (-each.similarity, each.moment_id, each.source))
    best = candidates[:limit]
    # Reading the rows of a fragment at once is ten times as fast as one by one.
    rows: dict[Fragment, list[int]] = {}
    for each in best:
        rows.setdefault(each.fragment, []).append(each.row)
    moments = {
        (fragment, row): moment
        for fragment, numbers in rows.items()
        for row, moment in zip(numbers, fragment.moments(np.array(numbers)), strict=True)
    }
    return [FoundMoment(moments[each.fragment, each.row], each.similarity) for each in best]


def _tier(moments: int) -> int:
    """Fragments of one tier are of about one size; MERGED_COUNT of them make one of the next."""
    tier = 0
    while moments >= MERGED_COUNT:
        moments //= MERGED_COUNT
        tier += 1
    return tier


def _groups(parts: Sequence[_Part]) -> list[list[_Part]]:
    """The fragments that `maintain` merges, in groups that become one fragment each."""
    groups: list[list[_Part]] = [[]]
    moments = 0
    for part in parts:
        kept_count = int(np.count_nonzero(part.kept_mask))
        # It is large and has nothing to drop: copying it would gain little.
        if not part.removed and 2 * kept_count > MAX_FRAGMENT_MOMENTS:
            continue
        if moments + kept_count > MAX_FRAGMENT_MOMENTS and groups[-1]:
            groups.append([])
            moments = 0
        groups[-1].append(part)
        moments += kept_count
    return [group for group in groups if len(group) > 1 or any(part.removed for part in group)]
