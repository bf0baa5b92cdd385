"""The store `lance`: LanceDB, for more moments than are compared one by one in time.

LanceDB commits each change as a version of its table. One process writes at a time, under the lock
of the index, because concurrent updates of one key are not safe in LanceDB. A table in an object
store may have writers with other folders, so there each commit must follow the last one of this
writer. LanceDB's threads do not survive a fork: open a store in the process that uses it. Needs
`looklisten[search]`.
"""

import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float32, Float64

from looklisten.config import SIDES, Side
from looklisten.errors import StoreInUseError
from looklisten.option_checks import check_at_least
from looklisten.search.export import export_moments
from looklisten.search.filters import Column, filter_sql, parse_filter, text_literal
from looklisten.search.index_file import IndexFile
from looklisten.search.lance_index import (
    index_columns,
    index_name,
    measured_index,
    read_approximate,
    train_index,
)
from looklisten.search.lance_location import LANCE_ERRORS, MOMENTS_TABLE, LanceLocation
from looklisten.search.lance_search import NearestSearch
from looklisten.search.moment_checks import check_moments, check_query
from looklisten.search.moment_tables import (
    column_vectors,
    moment_schema,
    moment_table,
    table_moments,
)
from looklisten.search.moments import FoundMoment, IndexedMoment, row_id
from looklisten.search.store import IndexExportFormat, StoreStats
from looklisten.search.writing import WriterLock

APPROXIMATE_FROM = 50_000
"""So many vectors of a side get an approximate index; fewer are compared one by one."""
FILTERED_FROM = 50_000
"""So many moments get indexes of the columns that filters name."""
GROWTH_BEFORE_TRAINING = 2
"""The approximate index is trained again when there are so many times as many vectors."""
COMMITS_BEFORE_MERGING = 50
"""`add` merges the parts of the table after so many commits."""
READER_MINUTES = 5
"""The files of an older version stay so long, for readers that still use it."""
EXTRA_CANDIDATES = 6
"""So many more rows are fetched than wanted, to put equal ones into the order of their ids."""
MAX_CANDIDATES = 16_384
TIE_TOLERANCE = 1e-6
"""How far LanceDB's distances of equal vectors may be apart."""
BATCH_MOMENTS = 4_096

_log = logging.getLogger("looklisten")


class LanceStore:
    """Moments in a table of LanceDB; see `VectorStore` for what its methods do.

    `approximate_from`: so many vectors of a side get an approximate index. `filtered_from`: so many
    moments get indexes of the columns that filters name.
    """

    def __init__(
        self,
        db: Path,
        approximate_from: int = APPROXIMATE_FROM,
        filtered_from: int = FILTERED_FROM,
    ) -> None:
        self._db = db
        self._approximate_from = approximate_from
        self._filtered_from = filtered_from
        self._index = IndexFile.read(db)
        self._lock = WriterLock(db)
        self._schema = moment_schema(self._index.width)
        self._known_sources: set[str] = set()
        self._commits = 0
        self._location = LanceLocation(db, self._index.table)
        self._version = 0
        """Of a table in an object store, after the last commit of this writer."""
        with self._location.reading():
            # First, because it ends in time when nothing answers.
            self._nearest = NearestSearch(self._location.open_async())
            self._table = self._location.connect().open_table(MOMENTS_TABLE)
            self._location.check_owner(self._table)

    @classmethod
    def make_table(cls, location: LanceLocation, width: int) -> None:
        """Make an empty table, in place of one whose making was interrupted."""
        location.make(_with_keys(moment_schema(width).empty_table(), []).schema)

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
        sources = {moment.source for moment in rows}
        with self._writing():
            table = _with_keys(moment_table(rows, self._schema), rows)
            replaced = sources & self._known_sources
            with self._committing(sources):
                if replaced:
                    merge = self._table.merge_insert("row_id").when_matched_update_all()
                    merge = merge.when_not_matched_insert_all()
                    merge = merge.when_not_matched_by_source_delete(_any_source(replaced))
                    # A missing vector is none that is wrong; LanceDB refuses it by default.
                    merge.execute(table, on_bad_vectors="null")
                else:
                    self._table.add(table)
            self._known_sources |= sources
            self._merge_after_commits()

    def remove_source(self, source: str) -> None:
        with self._writing():
            if source in self._known_sources:
                with self._committing([source]):
                    self._table.delete(_any_source([source]))
                self._known_sources.remove(source)
                self._merge_after_commits()

    def sources(self) -> dict[str, str]:
        digests: dict[str, str] = {}
        with self._location.reading():
            query = self._table.search().select(["source", "source_digest"])
            for batch in query.to_batches(batch_size=BATCH_MOMENTS):
                columns = [batch[name].to_pylist() for name in ("source", "source_digest")]
                digests.update(zip(*columns, strict=True))
        return digests

    def moments(self, where: str | None = None) -> Iterator[IndexedMoment]:
        sql = self._sql(where)
        with self._location.reading():
            query = self._table.search().select(self._schema.names)
            if sql is not None:
                query = query.where(sql)
            for batch in query.to_batches(batch_size=BATCH_MOMENTS):
                yield from table_moments(pa.Table.from_batches([batch]))

    def search(
        self,
        query: Float32[np.ndarray, " width"],
        side: Side,
        limit: int,
        where: str | None = None,
    ) -> list[FoundMoment]:
        check_at_least(1, limit=limit)
        sql = self._sql(where)
        unit_query = check_query(query, self.width)
        # A few more, because rows with equal similarities are ordered here, not by LanceDB.
        count = limit + EXTRA_CANDIDATES
        with self._location.reading():
            approximate = read_approximate(IndexFile.read(self._db).facts, side)
            while True:
                rows = self._nearest.rows(
                    side, unit_query, count, approximate, self._schema.names, sql
                )
                # In float64, as in the store `arrow`; LanceDB computes in float32.
                similarities = column_vectors(rows[side]).astype(np.float64) @ unit_query
                best = _best_rows(rows, similarities)
                if len(best) < count or count >= MAX_CANDIDATES:
                    break
                if similarities[best[limit - 1]] - similarities[best[-1]] > TIE_TOLERANCE:
                    break
                # Rows that were not fetched may equal the last one and have a smaller id.
                count *= 4
        moments = table_moments(rows.select(self._schema.names))
        return [FoundMoment(moments[row], float(similarities[row])) for row in best[:limit]]

    def find_tag(self, name: str, limit: int, where: str | None = None) -> list[FoundMoment]:
        check_at_least(1, limit=limit)
        sql = f"array_has(tag_names, {text_literal(name)})"
        if where is not None:
            sql += f" AND {self._sql(where)}"
        with self._location.reading():
            while True:
                columns = ["row_id", "moment_id", "source", "tag_names", "tag_scores"]
                rows = self._table.search().where(sql).select(columns).to_arrow()
                best = sorted(_tag_scores(rows, name))[:limit]
                ids = [each[-1] for each in best]
                moments = self._rows(ids)
                # Another process may have removed some between the two queries.
                if len(moments) == len(ids):
                    break
        return [FoundMoment(moments[each[-1]], -each[0]) for each in best]

    def tags(self) -> list[str]:
        return self._list_values("tag_names")

    def maintain(self) -> None:
        with self._writing(), self._keeping_rows():
            # First, as it adds new rows to the existing indexes, which are then measured.
            self._table.optimize(cleanup_older_than=timedelta(minutes=READER_MINUTES))
            if self._table.count_rows() >= self._filtered_from:
                index_columns(self._table)
            for side in SIDES:
                self._maintain_index(side)

    def stats(self) -> StoreStats:
        index = IndexFile.read(self._db)
        with self._location.reading():
            approximate = {side: read_approximate(index.facts, side) for side in SIDES}
            recalls = [side.recall for side in approximate.values() if side is not None]
            fragments = self._table.stats()["fragment_stats"]["num_fragments"]
            return StoreStats(
                store="lance",
                space_id=self.space_id,
                width=self.width,
                moments=self._table.count_rows(),
                sources=len(self.sources()),
                vision_vectors=self._table.count_rows("has_vision"),
                audio_vectors=self._table.count_rows("has_audio"),
                disk_bytes=self._location.disk_bytes(self._table),
                fragments=fragments,
                approximate_moments=self._approximate_moments(),
                recall=min(recalls, default=None),
            )

    def export(self, path: Path, format: IndexExportFormat) -> None:
        export_moments(self.moments(), self.space_id, self.width, path, format)

    def close(self) -> None:
        self._lock.release()

    def __enter__(self) -> "LanceStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def begin_writing(self) -> None:
        """Take the lock of the writer, which `close` gives back."""
        with self._writing():
            pass

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        with self._lock.taken() as is_new:
            if is_new:
                # First, so that what another writer adds meanwhile is noticed.
                self._note_version()
                self._known_sources = set(self.sources())
            with self._location.writing():
                yield

    @contextlib.contextmanager
    def _committing(self, sources: Iterable[str]) -> Iterator[None]:
        """One commit about some sources. Raises StoreError if there is another writer."""
        # Just before the commit: another process may have taken over a lock that seemed dead.
        self._lock.check()
        self._check_alone()
        yield
        if self._location.bucket is None:
            return
        if self._table.version != self._version + 1:
            # The other writer may have added them too. The next run adds them once.
            self._table.delete(_any_source(sources))
            raise self._in_use()
        self._version += 1

    @contextlib.contextmanager
    def _keeping_rows(self) -> Iterator[None]:
        """Several commits that change no row. Raises StoreError if there is another writer."""
        self._check_alone()
        count = self._table.count_rows()
        yield
        if self._location.bucket and self._table.count_rows() != count:
            raise self._in_use()
        self._note_version()

    def _check_alone(self) -> None:
        """Raise StoreInUseError if somebody else has written since this writer did."""
        if self._location.bucket and self._table.version != self._version:
            raise self._in_use()

    def _in_use(self) -> StoreInUseError:
        return StoreInUseError(
            f"another process has written to {self._location.name} meanwhile; only one may write "
            "at a time, also with a copy of the folder: stop one of the two and run the same "
            "command again; what was committed is kept"
        )

    def _note_version(self) -> None:
        if self._location.bucket:
            with self._location.reading():
                self._version = self._table.version

    def _merge_after_commits(self) -> None:
        """Now and then merge the parts of the table; without it each commit leaves a part."""
        self._commits += 1
        if self._commits % COMMITS_BEFORE_MERGING:
            return
        try:
            with self._keeping_rows():
                self._table.optimize(cleanup_older_than=timedelta(minutes=READER_MINUTES))
        except LANCE_ERRORS as error:
            # The moments are there; `maintain` merges, or says why it cannot.
            _log.warning("the parts of %s were not merged: %s", self._location.name, error)

    def _maintain_index(self, side: Side) -> None:
        """Train the approximate index of a side if it is time to, and measure it."""
        index = IndexFile.read(self._db)
        known = read_approximate(index.facts, side)
        vectors = self._table.count_rows(f"has_{side}")
        has_index = any(each.name == index_name(side) for each in self._table.list_indices())
        trained_vectors = known.vectors if known and has_index else 0
        if vectors < self._approximate_from and not trained_vectors:
            return
        # New vectors make the partitions larger, and only training chooses new ones.
        if vectors >= GROWTH_BEFORE_TRAINING * max(trained_vectors, 1):
            train_index(self._table, side)
            trained_vectors = vectors
        measured = measured_index(self._table, self._nearest, side, trained_vectors)
        approximate = {**index.facts.get("approximate", {}), side: asdict(measured)}
        self._index = index.with_facts(approximate=approximate)
        self._index.write(self._db)

    def _approximate_moments(self) -> int:
        """Vectors in the approximate indexes, of the side with more."""
        counts = [0]
        for index in self._table.list_indices():
            # The indexes of columns are left out: they count all rows, also without a vector.
            if index.name in map(index_name, SIDES):
                counts.append(self._table.index_stats(index.name).num_indexed_rows)
        return max(counts)

    def _rows(self, ids: Sequence[str]) -> dict[str, IndexedMoment]:
        """The moments of some rows."""
        if not ids:
            return {}
        literals = ", ".join(map(text_literal, ids))
        query = self._table.search().where(f"row_id IN ({literals})")
        rows = query.select(self._schema.names).to_arrow()
        return {row_id(moment): moment for moment in table_moments(rows)}

    def _sql(self, where: str | None) -> str | None:
        if where is None:
            return None
        return filter_sql(parse_filter(where), self._values_of)

    def _values_of(self, column: Column) -> list[str]:
        return self._list_values("tag_names" if column == "tag" else "marks")

    def _list_values(self, name: str) -> list[str]:
        """The values of a column of lists, in the order of the alphabet."""
        values: set[str] = set()
        with self._location.reading():
            query = self._table.search().where(f"array_length({name}) > 0").select([name])
            for batch in query.to_batches(batch_size=BATCH_MOMENTS):
                values.update(pc.unique(batch[name].flatten()).to_pylist())
        return sorted(values)


def _with_keys(table: pa.Table, moments: Sequence[IndexedMoment]) -> pa.Table:
    """A table of moments with the columns that only this store has."""
    keys = pa.array([row_id(moment) for moment in moments], pa.string())
    table = table.append_column(pa.field("row_id", pa.string(), nullable=False), keys)
    for side in SIDES:
        table = table.append_column(f"has_{side}", table[side].is_valid())
    return table


def _any_source(sources: Iterable[str]) -> str:
    return f"source IN ({', '.join(map(text_literal, sorted(sources)))})"


def _best_rows(rows: pa.Table, similarities: Float64[np.ndarray, " n"]) -> list[int]:
    """The numbers of all rows, the most similar first, equal ones in the order of their ids."""
    ids = rows["moment_id"].to_pylist()
    sources = rows["source"].to_pylist()
    return sorted(range(len(ids)), key=lambda row: (-similarities[row], ids[row], sources[row]))


def _tag_scores(rows: pa.Table, name: str) -> Iterator[tuple[float, str, str, str]]:
    """Of each row the negative score of a tag, the moment's id, the source and the row's id."""
    for row in rows.to_pylist():
        score = row["tag_scores"][row["tag_names"].index(name)]
        yield -score, row["moment_id"], row["source"], row["row_id"]
