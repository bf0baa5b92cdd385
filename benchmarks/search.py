"""The stores of an index beside each other: time to build, size on the disk, time of a query, and
recall.

    python benchmarks/search.py [--moments 200000 1000000] [--width 128] [--queries 200] [--out DIR]
        [--queries-only]

The vectors are made: 1,000 classes, sources of 20 moments near one class, moments near their
source. Each moment has a vector of the frame and one of the sound, which differ. Queries are stored
vectors with noise. For each query all methods take turns in random order, so that other work on
the machine disturbs all alike; `processor_ms` counts all threads of the process. `numpy` is one
matrix product over vectors in memory and the ten largest of it; FAISS is left out where it is not
installed. Recall is the share of the true ten nearest.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from looklisten.search.moments import IndexedMoment, moment_id
from looklisten.search.opening import open_store
from looklisten.search.store import StoreKind, VectorStore

CLASSES = 1_000
MOMENTS_OF_A_SOURCE = 20
SOURCES_OF_A_COMMIT = 1_000
NEAREST = 10
KINDS: tuple[StoreKind, ...] = ("arrow", "lance")

Search = Callable[[Any], list[int]]
"""A query -> the numbers of the nearest moments."""


def unit(vectors: Any) -> Any:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def make_vectors(moments: int, width: int) -> dict[str, Any]:
    """Vectors of both sides, clustered as those of videos are."""
    generator = np.random.default_rng(0)

    def near(vectors: Any, distance: float) -> Any:
        noise = unit(generator.standard_normal(vectors.shape, np.float32))
        return unit(vectors + distance * noise)

    classes = unit(generator.standard_normal((CLASSES, width), np.float32))
    sources = -(-moments // MOMENTS_OF_A_SOURCE)
    source_vectors = near(classes[generator.integers(0, CLASSES, sources)], 0.8)
    repeated = np.repeat(source_vectors, MOMENTS_OF_A_SOURCE, axis=0)[:moments]
    return {"vision": near(repeated, 0.4), "audio": near(repeated, 0.8)}


def moments_of(vectors: dict[str, Any], start: int, end: int) -> Iterator[IndexedMoment]:
    for number in range(start, end):
        source = number // MOMENTS_OF_A_SOURCE
        seconds = number % MOMENTS_OF_A_SOURCE
        yield IndexedMoment(
            moment_id=moment_id(f"digest {source}", seconds),
            source=f"videos/clip-{source:07d}.mp4",
            source_digest=f"digest {source}",
            video_id=f"clip-{source:07d}",
            seconds=float(seconds),
            thumbnail=f"{number:08d}.jpg",
            label=f"class {source % 50}",
            tags={f"tag {source % 300}": 0.5, f"tag {number % 400}": 0.25},
            vision=vectors["vision"][number],
            audio=vectors["audio"][number],
        )


def build(db: Path, kind: StoreKind, vectors: dict[str, Any]) -> dict[str, float]:
    """Add all moments and maintain; seconds of both, and megabytes."""
    moments, width = vectors["vision"].shape
    step = SOURCES_OF_A_COMMIT * MOMENTS_OF_A_SOURCE
    start_seconds = time.perf_counter()
    with open_store(db, "benchmark", width, kind, create=True) as store:
        for start in range(0, moments, step):
            store.add(moments_of(vectors, start, min(start + step, moments)))
        added_seconds = time.perf_counter()
        store.maintain()
        maintained_seconds = time.perf_counter()
        stats = store.stats()
    return {
        "add_seconds": added_seconds - start_seconds,
        "maintain_seconds": maintained_seconds - added_seconds,
        "megabytes": stats.disk_bytes / 1e6,
        "stated_recall": stats.recall or 1.0,
    }


def store_search(store: VectorStore, where: str | None = None) -> Search:
    def search(query: Any) -> list[int]:
        found = store.search(query, "vision", NEAREST, where)
        return [number_of(each.moment) for each in found]

    return search


def number_of(moment: IndexedMoment) -> int:
    return int(moment.video_id.removeprefix("clip-")) * MOMENTS_OF_A_SOURCE + int(moment.seconds)


def numpy_search(vectors: Any) -> Search:
    def search(query: Any) -> list[int]:
        products = vectors @ query
        nearest: list[int] = np.argpartition(products, -NEAREST)[-NEAREST:].tolist()
        return nearest

    return search


def faiss_search(vectors: Any) -> Search | None:
    try:
        import faiss
    except ImportError:
        return None
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)

    def search(query: Any) -> list[int]:
        nearest: list[int] = index.search(query[None], NEAREST)[1][0].tolist()
        return nearest

    return search


def measure(searches: dict[str, Search], truth: Search, queries: Any) -> dict[str, Any]:
    """Milliseconds and recall of each method, whose queries take turns."""
    for search in searches.values():
        search(queries[0])
    milliseconds: dict[str, list[float]] = {name: [] for name in searches}
    processor: dict[str, list[float]] = {name: [] for name in searches}
    hits = dict.fromkeys(searches, 0)
    generator = np.random.default_rng(2)
    for query in queries:
        nearest = set(truth(query))
        for name in generator.permutation(list(searches)).tolist():
            search = searches[name]
            start = time.perf_counter()
            processor_start = time.process_time()
            found = search(query)
            processor[name].append(1000 * (time.process_time() - processor_start))
            milliseconds[name].append(1000 * (time.perf_counter() - start))
            hits[name] += len(nearest & set(found))
    return {
        name: {
            "p50_ms": round(float(np.median(times)), 2),
            "p99_ms": round(float(np.quantile(times, 0.99)), 2),
            "min_ms": round(min(times), 2),
            "processor_ms": round(float(np.median(processor[name])), 2),
            "recall": round(hits[name] / (NEAREST * len(queries)), 4),
        }
        for name, times in milliseconds.items()
    }


def benchmark(
    moments: int, width: int, query_count: int, folder: Path, is_built: bool
) -> dict[str, Any]:
    vectors = make_vectors(moments, width)
    generator = np.random.default_rng(1)
    chosen = vectors["vision"][generator.integers(0, moments, query_count)]
    noise = unit(generator.standard_normal(chosen.shape, np.float32))
    queries = unit(chosen + 0.3 * noise)
    built = {}
    searches: dict[str, Search] = {}
    for kind in KINDS:
        db = folder / f"{kind}-{moments}"
        if not is_built:
            shutil.rmtree(db, ignore_errors=True)
            built[kind] = build(db, kind, vectors)
        store = open_store(db)
        searches[kind] = store_search(store)
        searches[f"{kind}, filter"] = store_search(store, "seconds >= 10 AND label != 'class 7'")
    truth = searches["numpy"] = numpy_search(vectors["vision"])
    faiss = faiss_search(vectors["vision"])
    if faiss is not None:
        searches["faiss flat"] = faiss
    queried = measure(searches, truth, queries)
    for name in [name for name in queried if name.endswith("filter")]:
        # The true ten nearest were not filtered.
        del queried[name]["recall"]
    return {"moments": moments, "width": width, "built": built, "queried": queried}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--moments", type=int, nargs="+", default=[200_000, 1_000_000])
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--out", type=Path, help="a folder that keeps the stores")
    parser.add_argument("--queries-only", action="store_true", help="use the stores in --out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for moments in options.moments:
            folder = options.out or Path(scratch)
            values = benchmark(
                moments, options.width, options.queries, folder, options.queries_only
            )
            print(json.dumps(values, indent=1))


if __name__ == "__main__":
    main()
