"""Opens the store of an index, or makes one."""

from pathlib import Path
from typing import get_args

from looklisten.errors import ConfigError, OptionError, StoreError
from looklisten.names import printable
from looklisten.option_checks import check_at_least
from looklisten.search.arrow_store import ArrowStore
from looklisten.search.index_file import INDEX_NAME, IndexFile
from looklisten.search.lance_location import LanceLocation, new_bucket_table
from looklisten.search.lance_store import LanceStore
from looklisten.search.store import StoreKind, VectorStore
from looklisten.search.writing import WriterLock, writing
from looklisten.system.files import check_writable


def open_store(
    db: str | Path,
    space_id: str | None = None,
    width: int | None = None,
    store: StoreKind | None = None,
    create: bool = False,
    table: str | None = None,
) -> VectorStore:
    """Open the store of the index in the folder `db`, to read it or, with `create`, to write.

    `space_id`, `width`: the key of a network and the length of its vectors. When they are given, an
        index of another network is refused. A new index needs both.
    `store`: the kind of a new index; by default `arrow`, or `lance` with a `table`. An index of
        another kind is refused.
    `create`: make the index if there is none, and take the writer's lock until `close`.
    `table`: the address in an object store for the table of a new index of the store `lance`. An
        index with its table elsewhere is refused.

    Raises OptionError for an unknown kind or a width below 1; else StoreError, for a missing or
    damaged index too, and StoreInUseError while another process writes.
    """
    db = Path(db)
    if store is not None and store not in get_args(StoreKind):
        raise OptionError(f"store {printable(store)!r} must be arrow or lance", "store")
    if not (db / INDEX_NAME).exists() and create:
        _create(db, space_id, width, store or ("lance" if table else "arrow"), table)
    index = IndexFile.read(db)
    index.check_network(db, space_id, width)
    if store is not None and store != index.store:
        raise StoreError(
            f"{printable(db)} is an index of the store {index.store}, not {store}; leave the "
            "option out, or index into another folder"
        )
    address = index.table.address if index.table else None
    if table is not None and table.rstrip("/") != address:
        raise StoreError(
            f"{printable(db)} has its table in {printable(address or 'the folder itself')}, not in "
            f"{printable(table)}; leave the option out, or index into another folder"
        )
    opened = LanceStore(db) if index.store == "lance" else ArrowStore(db)
    if create:
        opened.begin_writing()
    return opened


def _create(
    db: Path, space_id: str | None, width: int | None, store: StoreKind, address: str | None
) -> None:
    """Write `index.json`, and the empty table of `lance`. `address`: of its table, if any."""
    if space_id is None or width is None:
        raise StoreError(f"{printable(db)} holds no index, and a new one needs a network")
    check_at_least(1, width=width)
    try:
        check_writable(db)
    except ConfigError as error:
        raise StoreError(str(error)) from None
    lock = WriterLock(db)
    try:
        with lock.taken(), writing(db):
            # Another process may have made it while this one waited.
            if not (db / INDEX_NAME).exists():
                table = new_bucket_table(db, address) if address else None
                if store == "lance":
                    LanceStore.make_table(LanceLocation(db, table), width)
                IndexFile(store, space_id, width, table=table).write(db)
    finally:
        # The store that is opened next takes a lock of its own.
        lock.release()
