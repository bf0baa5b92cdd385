"""Where the table of the store `lance` is: in the folder of the index, or in an object store.

In an object store no lock of a folder covers all writers. So the table says which index it belongs
to, and each commit is checked to follow the last one of this writer (`lance_store.py`). Keys come
from the environment, as LanceDB reads them, and are never written down.
"""

import asyncio
import contextlib
import hashlib
import os
import platform
import re
import shutil
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from looklisten.errors import StoreError
from looklisten.names import printable
from looklisten.search.index_file import BucketTable, damaged
from looklisten.search.lance_search import run_async
from looklisten.search.writing import folder_bytes, writing

MOMENTS_TABLE = "moments"
_TABLE_FOLDER = f"{MOMENTS_TABLE}.lance"
OPENING_SECONDS = 30.0
"""So long an object store may take to open the table."""
RETRY_SECONDS = 20
"""A request of a later commit is not repeated after so long; LanceDB's own limit is 180."""
_INDEX_KEY = "looklisten index"
"""Of the schema's metadata: the index that the table belongs to."""

# LanceDB raises these for damaged files, for a full disk and for what an object store says alike.
LANCE_ERRORS = (OSError, RuntimeError, ValueError)

_KEYS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
"""The variables with credentials of each kind of object store."""


class LanceLocation:
    """The location of a table, and the sentences about it."""

    def __init__(self, db: Path, bucket: BucketTable | None) -> None:
        self._db = db
        self.bucket = bucket

    @property
    def name(self) -> str:
        """The folder or the address, for sentences."""
        return printable(self.bucket.address if self.bucket else self._db)

    @property
    def _uri(self) -> str | Path:
        # LanceDB takes a name that begins with "db" for an address of its cloud.
        return self.bucket.address if self.bucket else self._db.absolute()

    @property
    def _choices(self) -> dict[str, Any]:
        # Every call looks for the last version.
        choices: dict[str, Any] = {"read_consistency_interval": timedelta(0)}
        if self.bucket and "OBJECT_STORE_CLIENT_RETRY_TIMEOUT" not in os.environ:
            choices["storage_options"] = {"client_retry_timeout": str(RETRY_SECONDS)}
        return choices

    def connect(self) -> Any:
        """The database of LanceDB. Raises StoreError when the package is missing."""
        return _lancedb(self.name).connect(self._uri, **self._choices)

    def open_async(self) -> Any:
        """The table, for `NearestSearch`. Raises StoreError when nothing answers in time."""
        lancedb = _lancedb(self.name)

        async def opened() -> Any:
            connection = await lancedb.connect_async(self._uri, **self._choices)
            return await connection.open_table(MOMENTS_TABLE)

        if self.bucket is None:
            return run_async(opened())
        # Many repeated requests, of which each has a time limit, may take minutes in all.
        try:
            return run_async(asyncio.wait_for(opened(), OPENING_SECONDS))
        except TimeoutError:
            raise self._no_answer(f"within {OPENING_SECONDS:g} s") from None

    def make(self, schema: pa.Schema) -> None:
        """Make an empty table, in place of one whose making was interrupted."""
        if self.bucket is None:
            # A killed writer may have left a table, which `create_table` would refuse.
            shutil.rmtree(self._db / _TABLE_FOLDER, ignore_errors=True)
            table = self.connect().create_table(MOMENTS_TABLE, schema=schema)
        else:
            table = self._made_in_bucket(self.bucket, schema)
        # Concurrent updates of one key are then a conflict, and no silent duplicate.
        table.set_unenforced_primary_key("row_id")

    def _made_in_bucket(self, bucket: BucketTable, schema: pa.Schema) -> Any:
        owned = schema.with_metadata({_INDEX_KEY: bucket.index_id})
        with self.reading():
            try:
                self.open_async()
            except ValueError as error:
                if not _is_missing_table(error):
                    raise
                return self.connect().create_table(MOMENTS_TABLE, schema=owned)
            table = self.connect().open_table(MOMENTS_TABLE)
            # Of the same folder, by a process that was killed before it wrote `index.json`.
            if not (_is_owned(table, bucket) and table.count_rows() == 0):
                raise self._of_another_index()
            return self.connect().create_table(MOMENTS_TABLE, schema=owned, mode="overwrite")

    def check_owner(self, table: Any) -> None:
        """Raises StoreError when the table belongs to another index."""
        if self.bucket and not _is_owned(table, self.bucket):
            raise self._of_another_index()

    def disk_bytes(self, table: Any) -> int:
        """The size of the table; in an object store that of its last version."""
        if self.bucket is None:
            return folder_bytes(self._db / _TABLE_FOLDER)
        return int(table.stats()["total_bytes"])

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Turn an error of LanceDB into one sentence."""
        try:
            yield
        except (*LANCE_ERRORS, TypeError, KeyError) as error:
            if self.bucket:
                raise self._answer(error) from error
            raise damaged(self._db, self._db / _TABLE_FOLDER, str(error)) from error

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Turn an error of the block into one sentence, also of `index.json` on the disk."""
        with writing(self._db, LANCE_ERRORS):
            try:
                yield
            except LANCE_ERRORS as error:
                # An error of the system has a number; those of LanceDB have none.
                if self.bucket is None or (isinstance(error, OSError) and error.errno):
                    raise
                raise self._answer(error) from error

    def _answer(self, error: Exception) -> StoreError:
        """What an object store said, as a sentence; its own words are pages long."""
        text = str(error)
        address = urlsplit(self.bucket.address if self.bucket else "")
        keys = _KEYS[address.scheme]
        if _is_missing_table(error):
            return StoreError(
                f"{self.name} holds no table of moments any more; restore it, or delete the folder "
                f"{printable(self._db)} and index again"
            )
        if re.search("NoSuchBucket|ContainerNotFound|bucket does not exist", text):
            return StoreError(
                f"{self.name} cannot be used: there is no bucket {printable(address.netloc)}; "
                "make it, or correct the address"
            )
        if re.search(r"(get|load|No)\w* (\w+ )?credentials|CredentialsNotLoaded", text):
            return StoreError(f"{self.name} cannot be used: no credentials were found; set {keys}")
        if re.search("AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch", text) or re.search(
            r"[Ss]tatus\D{0,8}40[13]|PermissionDenied|Unauthenticated|AuthenticationFailed", text
        ):
            return StoreError(
                f"{self.name} cannot be used: access was denied; see that the keys in the "
                f"environment ({keys}) may read and write there"
            )
        if re.search("kind: (Connect|Timeout)|TimedOut|ConnectError|dns error", text):
            return self._no_answer()
        return StoreError(
            f"{self.name} cannot be used ({printable(text.splitlines()[0][:200])}); run the same "
            "command again, and if that fails, see that the table is whole"
        )

    def _no_answer(self, when: str = "") -> StoreError:
        return StoreError(
            f"{self.name} cannot be used: no object store answered{when and ' '}{when}; see that "
            "the network is up and the endpoint is right (for S3: AWS_ENDPOINT), and run the same "
            "command again"
        )

    def _of_another_index(self) -> StoreError:
        return StoreError(
            f"{self.name} holds the moments of another index; give another address, or a copy of "
            "the folder of that index"
        )


def new_bucket_table(db: Path, address: str) -> BucketTable:
    """The table of a new index. The same folder has the same id, also after a kill."""
    owner = f"{platform.node()} {db.absolute()}"
    return BucketTable(address.rstrip("/"), hashlib.sha256(owner.encode()).hexdigest()[:32])


def _lancedb(name: str) -> Any:
    try:
        import lancedb
    except ImportError:
        raise StoreError(
            f"{name} needs lancedb, for the store lance: pip install 'looklisten[search]'"
        ) from None
    return lancedb


def _is_missing_table(error: Exception) -> bool:
    return f"Table '{MOMENTS_TABLE}' was not found" in str(error)


def _is_owned(table: Any, bucket: BucketTable) -> bool:
    metadata: Mapping[bytes, bytes] = table.schema.metadata or {}
    return metadata.get(_INDEX_KEY.encode()) == bucket.index_id.encode()
