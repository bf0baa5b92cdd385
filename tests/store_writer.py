"""A process that writes into a store, for tests that kill it or read beside it.

python store_writer.py fill DB KIND COUNT     # add the sources that are not there yet; KIND may be
                                              # the address of a table in an object store
python store_writer.py replace DB SECONDS     # replace one source again and again
"""

import sys
import time
from pathlib import Path

from looklisten.search.opening import open_store
from store_moments import SPACE, WIDTH, make_source


def say_that_it_writes():
    sys.stdout.write("writing\n")
    sys.stdout.flush()


def filled_sources(count):
    return {f"source {number:03d}.mp4": 1 + number % 7 for number in range(count)}


def open_filled(db, kind, **choices):
    where = {"table": kind} if "://" in kind else {"store": kind}
    return open_store(db, SPACE, WIDTH, **where, **choices)


def fill(db, kind, count):
    with open_filled(db, kind, create=True) as store:
        say_that_it_writes()
        known = store.sources()
        for number, (source, seconds) in enumerate(filled_sources(count).items()):
            if source not in known:
                store.add(make_source(source, seconds))
            if number % 25 == 24:
                store.maintain()


def replace(db, seconds):
    with open_store(db, SPACE, WIDTH, create=True) as store:
        say_that_it_writes()
        end = time.monotonic() + seconds
        number = 0
        while time.monotonic() < end:
            number += 1
            store.add(make_source("a.mp4", 1 + number % 5, f"digest {number}"))


if __name__ == "__main__":
    task, folder, *rest = sys.argv[1:]
    if task == "fill":
        fill(Path(folder), rest[0], int(rest[1]))
    else:
        replace(Path(folder), float(rest[0]))
