"""Functions that tests run in the process that decodes. Apart, since that process imports this
file, and it starts fast.
"""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from looklisten.errors import TooShortError


def numbers(count, report=None):
    for number in range(count):
        if report is not None:
            report.damaged_count += 1
            report.add_lost("test", 0.5)
            report.flags.add("still")
            report.video_end_seconds = float(number)
        yield number
    return "over"


def twice():
    """The answers of all items but the last, doubled; it goes on without waiting for the answer to
    its last item.
    """
    answers = []
    for number in range(4):
        answers.append((yield number))
    return [2 * answer for answer in answers if answer is not None]


def own_pid():
    return os.getpid()


def pids(count):
    for _ in range(count):
        yield os.getpid()


def dies():
    os.kill(os.getpid(), signal.SIGSEGV)


def dies_unless_fresh(used):
    if os.getpid() == used:
        dies()
    yield "whole"


def sleepy(seconds):
    time.sleep(seconds)


def reads_slowly(path, seconds):
    """A large file in small pieces, and no report."""
    with Path(path).open("rb") as file:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            file.read(2**16)
            time.sleep(0.02)
    return "whole"


def hungry():
    return np.ones(600 * 2**20, np.uint8).sum()


def failing(kind):
    errors = {
        "short": TooShortError("too short by a second"),
        "system": OSError(28, "No space left on device", "/there"),
        "other": ValueError("a b"),
    }
    raise errors[kind]


def large(count):
    for number in range(count):
        yield np.full(2**20, number, np.uint8)


def folder():
    return str(Path.cwd())


def printing():
    sys.stdout.write("this would get between the messages")
    sys.stdout.flush()
    os.write(1, b"and this")
    return 5
