"""Files are read in another process: what kills or hangs it costs one file, and what it says
arrives whole.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import decoder_jobs as jobs
from conftest import write_clock_video
from crashing import mov_with_channel_map
from looklisten.errors import ConfigError, DecoderLostError, SourceError, TooShortError
from looklisten.media.decode import decode as direct
from looklisten.media.decode.options import DecodeOptions
from looklisten.media.decode.records import AudioChunk, DecodeReport, Frame
from looklisten.media.isolation import parent, pool, readers
from looklisten.media.isolation.limits import WorkerLimits
from looklisten.media.isolation.messages import read_message, write_message


@pytest.fixture(scope="module")
def crasher(tmp_path_factory):
    """A file that ends the process which opens it with PyAV."""
    path = mov_with_channel_map(tmp_path_factory.mktemp("crash") / "order.mov")
    program = (
        f"from looklisten.media.decode.decode import decode_audio; decode_audio({str(path)!r})"
    )
    if (
        subprocess.run([sys.executable, "-c", program], check=False, capture_output=True).returncode
        >= 0
    ):
        pytest.skip("this PyAV survives a list of channels")
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "clock.mp4"
    write_clock_video(path, seconds=4.0)
    return path


def same_events(left, right):
    left, right = list(left), list(right)
    assert [type(event) for event in left] == [type(event) for event in right]
    for one, other in zip(left, right, strict=True):
        if isinstance(one, AudioChunk):
            assert one.start_seconds == other.start_seconds
            assert np.array_equal(one.samples, other.samples)
        else:
            assert (one.at_seconds, one.end_seconds) == (other.at_seconds, other.end_seconds)
            assert one.jpeg(90) == other.jpeg(90)


def busy_process():
    """The only one that is in the middle of a job."""
    (busy,) = [process for process in pool._processes._all if process.is_busy]
    return busy.pid


def test_what_is_read_is_what_this_process_would_read(video):
    here, there = DecodeReport(), DecodeReport()
    same_events(
        readers.read_media(video, DecodeOptions(), there),
        direct.decode_media(video, DecodeOptions(), here),
    )
    assert there == here
    assert readers.read_streams(video) == direct.list_streams(video)
    assert np.array_equal(readers.read_audio(video), direct.decode_audio(video))


@pytest.mark.parametrize("side", [255, 256])
def test_frames_of_odd_size_are_the_same_to_the_byte(video, side):
    wanted = DecodeOptions(shorter_side_pixels=side, audio=False)
    same_events(readers.read_media(video, wanted), direct.decode_media(video, wanted))


@settings(deadline=None)
@given(
    st.fractions(min_value=Fraction(1, 4), max_value=20_000),
    st.integers(0, 24_000),
    st.sampled_from([None, 1, 480, 3840]),
)
def test_times_follow_from_their_number(hop, offset, step):
    times = readers.TimeGrid(hop, step, offset)
    first = [value for value, _ in zip(times, range(50), strict=False)]
    assert first == [times.seconds(number) for number in range(50)]
    assert first == sorted(first)
    if step is None:
        assert first[7] == float(7 * hop / 48_000)


def test_nearest_frames_are_those_of_a_plain_iterator(video):
    hop = Fraction(4800) / 7
    there = readers.read_media(video, DecodeOptions(audio=False), nearest_to=readers.TimeGrid(hop))
    here = direct.decode_media(
        video,
        DecodeOptions(audio=False),
        nearest_to=iter([float(n * hop / 48_000) for n in range(1000)]),
    )
    same_events(there, here)


def test_a_file_that_kills_the_decoder_is_one_sentence_and_the_next_is_read(crasher, video):
    for read in (
        readers.read_audio,
        lambda path: list(readers.read_media(path, DecodeOptions(video=False))),
    ):
        with pytest.raises(
            DecoderLostError,
            match=r"order\.mov: the decoder crashed its process \(SIG(ABRT|SEGV)\)",
        ):
            read(crasher)
        assert readers.read_streams(video).has_audio


def test_damage_that_an_earlier_file_left_is_not_blamed_on_the_next():
    """A process that dies at once over a file, but not as its first, proves nothing against that
    file.
    """
    used = parent.call_isolated(jobs.own_pid, source="a")
    assert list(parent.stream_isolated(jobs.dies_unless_fresh, used, source="innocent")) == [
        "whole"
    ]
    with pytest.raises(DecoderLostError, match="guilty"):
        parent.call_isolated(jobs.dies, source="guilty")


def test_a_process_that_is_shot_in_the_middle_costs_this_file(video):
    processes = parent.stream_isolated(jobs.pids, 100_000, source="file.mp4")
    first = next(processes)
    os.kill(first, signal.SIGKILL)
    with pytest.raises(
        DecoderLostError, match=r"file\.mp4: the decoder crashed its process \(SIGKILL\)"
    ):
        list(processes)
    assert parent.call_isolated(jobs.own_pid, source="next") != first


def test_a_process_that_is_shot_while_it_waits_costs_nothing():
    os.kill(parent.call_isolated(jobs.own_pid, source="a"), signal.SIGKILL)
    time.sleep(0.1)
    assert parent.call_isolated(jobs.own_pid, source="b")


def test_a_process_that_hangs_is_stopped_in_time():
    began = time.monotonic()
    with (
        parent.use_limits(WorkerLimits(stall_seconds=2.0)),
        pytest.raises(DecoderLostError, match="did not advance for 2 s") as lost,
    ):
        parent.call_isolated(jobs.sleepy, 60, source="slow.mp4")
    assert lost.value.hung
    assert time.monotonic() - began < 30


def test_a_long_sound_is_no_hang(tmp_path):
    """Reading a whole sound says nothing until its end; that more of the file is read is enough."""
    (tmp_path / "long.wav").write_bytes(bytes(50_000_000))
    with parent.use_limits(WorkerLimits(stall_seconds=2.5)):
        assert (
            parent.call_isolated(jobs.reads_slowly, tmp_path / "long.wav", 7.0, source="long.wav")
            == "whole"
        )


def test_a_process_that_is_suspended_is_stopped_even_while_it_is_written_to():
    answers = parent.stream_isolated(jobs.twice, source="film.mp4", answers=True)
    with parent.use_limits(WorkerLimits(stall_seconds=2.0)):
        next(answers)
        os.kill(busy_process(), signal.SIGSTOP)
        with pytest.raises(DecoderLostError, match="did not advance"):
            answers.send(np.zeros(50_000_000, np.uint8))


def test_a_program_that_was_suspended_itself_finds_nothing_hung(tmp_path):
    """Ctrl-Z for longer than a decoder may stall, then `fg`."""
    program = """
import sys, time
from looklisten.media.isolation import parent
from looklisten.media.isolation.limits import WorkerLimits
import decoder_jobs as jobs
with parent.use_limits(WorkerLimits(stall_seconds=2.0)):
    print("begun", flush=True)
    parent.call_isolated(jobs.sleepy, 1.5, source="file")
print("whole", flush=True)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    assert process.stdout.readline() == "begun\n"
    time.sleep(1.0)
    os.killpg(process.pid, signal.SIGSTOP)
    time.sleep(3.0)
    os.killpg(process.pid, signal.SIGCONT)
    assert process.communicate(timeout=60)[0] == "whole\n"


def test_what_is_too_large_for_memory_costs_itself():
    with (
        parent.use_limits(WorkerLimits(memory_megabytes=200)),
        pytest.raises(SourceError, match=r"huge\.png: it needs more than the 200 MB"),
    ):
        parent.call_isolated(jobs.hungry, source="huge.png")
    assert parent.call_isolated(jobs.hungry, source="same file, default limit") == 600 * 2**20


def test_errors_come_back_with_their_words():
    with pytest.raises(TooShortError, match=r"^too short by a second$"):
        parent.call_isolated(jobs.failing, "short", source="a")
    with pytest.raises(OSError, match="No space left") as full:
        parent.call_isolated(jobs.failing, "system", source="a")
    assert (full.value.errno, full.value.filename) == (28, "/there")
    with pytest.raises(SourceError, match=r"^a: ValueError: a b") as other:
        parent.call_isolated(jobs.failing, "other", source="a")
    assert "in failing" in other.value.__notes__[0], "where it happened is kept for who looks"
    with pytest.raises(ConfigError, match="module that another process could import"):
        parent.call_isolated(lambda: 1, source="a")


@pytest.mark.parametrize("stop_after", [1, 3, None])
def test_the_report_arrives_also_when_the_loop_is_left_early(stop_after):
    report = DecodeReport(damaged_count=5, lost_seconds={"test": 1.0, "here": 2.0}, flags={"black"})
    items = parent.stream_isolated(jobs.numbers, 7, source="a", report=report)
    for got, _ in enumerate(items, 1):
        report.add_lost("here", 1.0)  # what is counted here meanwhile stays
        if got == stop_after:
            break
    items.close()
    made = 7 if stop_after is None else report.damaged_count - 5
    assert (stop_after or 7) <= made <= 7
    assert report.lost_seconds == {"test": 1.0 + 0.5 * made, "here": 2.0 + got}
    assert (report.flags, report.video_end_seconds) == ({"black", "still"}, made - 1.0)


def test_leaving_early_keeps_the_process():
    for _ in range(5):
        items = parent.stream_isolated(jobs.pids, 10**9, source="a")
        first = next(items)
        items.close()
    assert parent.call_isolated(jobs.own_pid, source="b") == first


def test_a_slow_reader_is_not_run_away_from():
    """A gigabyte is asked for and one item is taken: the other process waits, its memory does not
    grow.
    """
    items = parent.stream_isolated(jobs.large, 1000, source="a")
    next(items)
    time.sleep(0.5)
    status = Path(f"/proc/{busy_process()}/status").read_text()
    resident = int(status.partition("VmRSS:")[2].split()[0]) / 1024
    assert resident < 200
    items.close()


def test_answers_go_back_one_item_late():
    job = parent.stream_isolated(jobs.twice, source="a", answers=True)
    items = [next(job)]
    with pytest.raises(StopIteration) as end:
        while True:
            items.append(job.send(np.arange(6).reshape(2, 3) + items[-1]))
    assert items == [0, 1, 2, 3]
    for number, doubled in enumerate(end.value.value):
        assert np.array_equal(doubled, 2 * (np.arange(6).reshape(2, 3) + number))
    assert len(end.value.value) == 3


def test_threads_read_at_once(video):
    expected = direct.decode_audio(video)
    with ThreadPoolExecutor(6) as threads:
        for sound in threads.map(lambda _: readers.read_audio(video), range(18)):
            assert np.array_equal(sound, expected)


def test_two_files_are_read_in_turns(video):
    left, right = (
        readers.read_media(video, DecodeOptions()),
        readers.read_media(video, DecodeOptions()),
    )
    same_events(*zip(*zip(left, right, strict=True), strict=True))


def test_relative_paths_start_where_this_process_is(tmp_path, video, monkeypatch):
    parent.call_isolated(jobs.folder, source="a")
    monkeypatch.chdir(video.parent)
    assert readers.read_streams(video.name).has_video
    monkeypatch.chdir(tmp_path)
    assert parent.call_isolated(jobs.folder, source="a") == str(tmp_path)


def test_a_module_of_the_users_folder_is_none_of_ours(tmp_path, video):
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')")
    (tmp_path / "av.py").write_text("raise SystemExit('the wrong av')")
    program = (
        "import sys; sys.path.pop(0); from looklisten.media.isolation import readers; "
        f"print(readers.read_streams({str(video)!r}).has_audio)"
    )
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "PYTHONWARNINGS": "error",
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "True\n", done.stderr


def test_what_is_printed_there_gets_nowhere():
    assert parent.call_isolated(jobs.printing, source="a") == 5


def test_a_fork_starts_its_own(video):
    """As DataLoader's workers do: the generator that was open goes on in the parent, and the child
    reads by itself.
    """
    parents = parent.call_isolated(jobs.own_pid, source="a")
    events = readers.read_media(video, DecodeOptions())
    first = next(events)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            own = parent.call_isolated(jobs.own_pid, source="a")
            try:
                next(events)
                said = "went on"
            except SourceError as error:
                said = str(error)
            del events
            os.write(
                write, f"{own != parents} {readers.read_streams(video).has_audio} {said}".encode()
            )
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as answer:
        assert (
            answer.read() == f"True True {video} was being read when this process was forked off; "
            "open it again here"
        )
    same_events([first, *events], direct.decode_media(video, DecodeOptions()))


def test_spawned_processes_and_dataloader_workers(video, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(f"""
import multiprocessing
import torch
from looklisten.media.isolation import readers

class Files(torch.utils.data.Dataset):
    def __len__(self):
        return 6
    def __getitem__(self, item):
        return len(readers.read_audio({str(video)!r}))

def read(_):
    return len(readers.read_audio({str(video)!r}))

if __name__ == "__main__":
    readers.read_streams({str(video)!r})
    loader = torch.utils.data.DataLoader(Files(), num_workers=2)
    loaded = [n for batch in loader for n in batch.tolist()]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        print(set(loaded) == set(pool.map(read, range(4))))
""")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, str(script)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.stdout == "True\n", done.stderr


def children_of(pid):
    """Running processes whose parent is `pid`."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, None])
def test_no_process_is_left_behind(how):
    """Neither by a program that is killed, nor by Ctrl-C in the middle, nor by one that ends by
    itself.
    """
    wait = (
        "time.sleep(0)"
        if how is None
        else "list(parent.stream_isolated(jobs.pids, 10**12, source='a'))"
    )
    program = f"""
import time
import decoder_jobs as jobs
from looklisten.media.isolation import parent
kept = parent.stream_isolated(jobs.pids, 10**9, source="half read")
print(next(kept), parent.call_isolated(jobs.own_pid, source="a"), flush=True)
{wait}
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    started = [int(word) for word in process.stdout.readline().split()]
    assert len(set(started)) == 2
    if how is not None:
        assert set(started) <= set(children_of(process.pid))
        time.sleep(0.3)
        (os.killpg if how == signal.SIGINT else os.kill)(process.pid, how)
    said = process.communicate(timeout=60)[1]
    if how == signal.SIGINT:
        assert said.strip().endswith("KeyboardInterrupt")
    elif how is None:
        assert (said, process.returncode) == ("", 0)
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in started) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]


@dataclass
class Foreign:
    """A record of another package."""

    value: int = 1


class Unsendable:
    pass


def through_a_pipe(value, functions=False):
    sent = bytearray()
    write_message(sent.extend, value)

    def read(size):
        part = sent[:size]
        del sent[:size]
        return part

    return read_message(read, functions)


SIMPLE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
    st.fractions(),
)


def containers(inner):
    return st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.text(max_size=5), inner, max_size=3),
    )


PLAIN = st.recursive(SIMPLE, containers, max_leaves=8)


@settings(deadline=None)
@given(PLAIN)
def test_plain_values_arrive_as_they_were(value):
    assert through_a_pipe(value) == value


def test_arrays_and_records_arrive_as_they_were():
    strange = "caf\udce9.mp4"  # a name that is no UTF-8
    values = [
        strange,
        Path(strange),
        {1, 2},
        DecodeOptions(stop_seconds=np.inf),
        DecodeReport(flags={"silent"}),
        np.float64(0.1),
    ]
    assert through_a_pipe(values, functions=True) == values
    for array in (
        np.zeros((0, 3), np.int16),
        np.arange(12, dtype="<f4").reshape(3, 4)[:, ::2],
        np.array(5.0),
    ):
        back = through_a_pipe({"a": [array, b"xyz", array]})["a"][2]
        assert (back.dtype, back.shape) == (array.dtype, array.shape)
        assert np.array_equal(back, array)
        assert back.flags.writeable
    plane = np.arange(6, dtype=np.uint8).reshape(2, 3)
    frame = through_a_pipe(Frame(0.5, 1.0, (plane, plane, plane)))
    assert np.array_equal(frame.planes[2], plane)


def test_messages_make_plain_data_only():
    """Whatever a decoder's process was made to send: no class but a record of this package, no
    function.
    """
    for value in (Foreign(), os.getcwd):
        with pytest.raises(ValueError, match=r"is no record|not allowed"):
            through_a_pipe(value)
    with pytest.raises(TypeError, match="Unsendable cannot be sent"):
        through_a_pipe(Unsendable())


def test_many_threads_leave_few_processes():
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: parent.call_isolated(jobs.sleepy, 0.2, source="a"), range(16)))
    assert threading.active_count() < 20
    assert len(pool._processes._all) <= max(os.cpu_count() or 1, 2) + 1
