"""What a user may name as input, and the sentence when there is nothing."""

import functools
import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest
from pyarrow import parquet

from conftest import write_clock_video
from looklisten.data.duplicates import with_duplicates
from looklisten.data.inputs import find_sources
from looklisten.data.prepare import prepare
from looklisten.data.shards import Shards
from looklisten.data.sources import Source
from looklisten.errors import ConfigError, SourceError
from looklisten.media.formats import MEDIA_SUFFIXES


@pytest.fixture
def folder(tmp_path):
    for name in (
        "cat/a.mp4",
        "cat/b.MKV",
        "dog/c.webm",
        "dog/notes.txt",
        "dog/.hidden.mp4",
        "d.mov",
    ):
        file = tmp_path / "videos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    return tmp_path / "videos"


def names(inputs, **options):
    return [source.name for source in find_sources(inputs, **options).sources]


def test_a_folder_is_searched_for_videos(folder):
    assert names([folder]) == ["cat/a.mp4", "cat/b.MKV", "d.mov", "dog/c.webm"]
    assert find_sources([folder]).sources[0].bytes == len("cat/a.mp4")


def test_a_file_is_tried_whatever_its_name(folder):
    (folder / "movie.strange").write_text("x")
    assert names([folder / "movie.strange"]) == ["movie.strange"]


def test_globs(folder):
    assert names([f"{folder}/*/*.m*"]) == ["a.mp4"]
    assert names([f"{folder}/**/*.m[op]*"]) == ["cat/a.mp4", "d.mov"]
    with pytest.raises(SourceError, match=r"no file matches .*\*\.xyz"):
        find_sources([f"{folder}/*.xyz"])


def test_a_name_with_brackets_is_a_name(folder):
    (folder / "take [1].mp4").write_text("x")
    assert names([folder / "take [1].mp4"]) == ["take [1].mp4"]


def test_a_text_list(folder):
    (folder / "list.txt").write_text("# mine\ncat/a.mp4\n\n  dog/c.webm  \n")
    assert names([folder / "list.txt"]) == ["cat/a.mp4", "dog/c.webm"]


def test_what_is_named_twice_is_there_once(folder):
    assert names([folder, folder / "d.mov", f"{folder}/*.mov"]) == names([folder])


ROWS = [
    {
        "path": "cat/a.mp4",
        "label": "cat|animal",
        "split": "train",
        "video_id": "A",
        "start_seconds": 1.5,
        "stop_seconds": 4.0,
    },
    {
        "path": "cat/a.mp4",
        "label": "cat",
        "split": "train",
        "video_id": "A",
        "start_seconds": 8.0,
        "stop_seconds": None,
    },
    {
        "path": "d.mov",
        "label": "",
        "split": "test",
        "video_id": "",
        "start_seconds": None,
        "stop_seconds": None,
    },
]


def test_csv_and_parquet_say_the_same(folder):
    columns = list(ROWS[0])
    cells = "\n".join(
        ",".join("" if row[c] is None else str(row[c]) for c in columns) for row in ROWS
    )
    (folder / "t.csv").write_text(f"\ufeff{','.join(columns)}\r\n{cells}\r\n", newline="")
    parquet.write_table(pa.Table.from_pylist(ROWS), folder / "t.parquet")
    found = find_sources([folder / "t.csv"]).sources
    assert found == find_sources([folder / "t.parquet"]).sources
    assert [source.name for source in found] == ["cat/a.mp4#t=1.5,4", "cat/a.mp4#t=8", "d.mov"]
    assert found[0].labels == ("cat", "animal")
    assert (found[0].video_id, found[0].split, found[0].stop_seconds) == ("A", "train", 4.0)
    assert found[2] == Source("d.mov", len("d.mov"), split="test")


def test_a_missing_file_of_a_table_stops_nothing(folder):
    (folder / "t.csv").write_text("path\ncat/a.mp4\ngone.mp4\n")
    found = find_sources([folder / "t.csv"])
    assert [source.path for source in found.sources] == ["cat/a.mp4"]
    assert [name.rpartition("/")[2] for name in found.unusable] == ["gone.mp4"]


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("file\na.mp4\n", "lacks the column path; it has file"),
        ("path\n", "has no rows"),
        (
            "path\ngone.mp4\n",
            "names 1 files, and none of them can be used; the first: .*gone.mp4",
        ),
        ("path,start_seconds\nd.mov,soon\n", "line 2: 'soon' is no number of seconds"),
        (
            "path,start_seconds,stop_seconds\nd.mov,5,4\n",
            "line 2: stop_seconds 4 is not after start_seconds",
        ),
    ],
)
def test_tables_that_cannot_be(folder, table, sentence):
    (folder / "t.csv").write_text(table)
    with pytest.raises(SourceError, match=sentence):
        find_sources([folder / "t.csv"])


def test_a_table_that_is_none(folder):
    (folder / "t.parquet").write_text("no parquet")
    with pytest.raises(SourceError, match=r"t\.parquet cannot be read"):
        find_sources([folder / "t.parquet"])


def test_one_video_in_two_splits_is_refused(folder):
    (folder / "t.csv").write_text("path,video_id,split\ncat/a.mp4,A,train\nd.mov,A,test\n")
    with pytest.raises(
        ConfigError,
        match=r"d.mov is in the split 'test' and cat/a.mp4, of the same video, in 'train'",
    ):
        find_sources([folder / "t.csv"])


def test_labels_from_the_folders_name(folder):
    found = {source.path: source.labels for source in find_sources([folder], "folder").sources}
    assert found == {
        "cat/a.mp4": ("cat",),
        "cat/b.MKV": ("cat",),
        "dog/c.webm": ("dog",),
        "d.mov": (),
    }
    both = find_sources([folder / "cat", folder / "dog"], "folder").sources
    assert {source.labels for source in both} == {("cat",), ("dog",)}


def test_nothing_there(tmp_path):
    with pytest.raises(SourceError, match="there is no file or folder"):
        find_sources([tmp_path / "nowhere"])
    with pytest.raises(SourceError, match="holds no video"):
        find_sources([tmp_path])
    with pytest.raises(SourceError, match=r"nosuch://.* cannot be opened"):
        find_sources(["nosuch://a/*.mp4"])


def test_memory_and_http(folder):
    memory = fsspec.filesystem("memory")
    memory.pipe("/set/x/a.mp4", b"abc")
    memory.pipe("/set/list.csv", b"path,label\nx/a.mp4,cat\n")
    for given in ("memory://set", "memory://set/**/*.mp4"):
        (source,) = find_sources([given]).sources
        assert (source.path, source.bytes) == ("memory:///set/x/a.mp4", 3)
    (source,) = find_sources(["memory://set/list.csv"]).sources
    assert (source.path, source.labels) == ("memory://set/x/a.mp4", ("cat",))
    memory.rm("/set", recursive=True)
    (folder / "t.csv").write_text("path\ncat/a.mp4\n")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        here = f"http://127.0.0.1:{server.server_port}"
        (source,) = find_sources([f"{here}/t.csv"]).sources
        server.shutdown()
    assert source == Source(f"{here}/cat/a.mp4")


def test_duplicates_are_found_by_content_and_stay_one_video(tmp_path):
    for name, content in (
        ("a.mp4", "same"),
        ("b.mp4", "else"),
        ("c.mp4", "same"),
        ("d.mp4", "other length"),
    ):
        (tmp_path / name).write_text(content)
    found = find_sources([tmp_path]).sources
    marked = with_duplicates(found, tmp_path)
    assert [source.same_as for source in marked] == ["", "", "a.mp4", ""]
    assert [source.video_id for source in marked] == ["", "", "a.mp4", ""]
    later = with_duplicates(found[2:], tmp_path, known=found[:2])
    assert [source.same_as for source in later] == ["a.mp4", ""]


# Odd names


NOT_UTF8 = os.fsdecode(b"caf\xe9.mp4")
ODD = [
    NOT_UTF8,
    "caf\\xe9.mp4",
    "é ü.mp4",
    "a\nb\tc.mp4",
    "x" * 251 + ".mp4",
    "[a]*?.mp4",
    "-o.mp4",
    "a::b.mp4",
    "\x1b[31mred.mp4",
    "#1.mp4",
    "100%d.mp4",
    " lead.mp4",
    "a\u2028b.mp4",
]


@pytest.fixture(scope="module")
def odd_folder(tmp_path_factory):
    """A short video under each odd name, each of another size, and one in a folder that is not
    UTF-8.
    """
    folder = tmp_path_factory.mktemp("odd")
    write_clock_video(folder / "clock.mp4", seconds=1.2)
    data = (folder / "clock.mp4").read_bytes()
    (folder / "clock.mp4").unlink()
    for number, name in enumerate([*ODD, os.fsdecode(b"d\xe9p\xf4t/sub.mp4")]):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data + bytes(number))
    return folder


def test_odd_names_are_prepared_and_stored_as_text(odd_folder, tmp_path):
    out = tmp_path / os.fsdecode(b"out\xe9")
    result = prepare([odd_folder], out, labels="folder")
    assert (result["prepared"], result["failed"]) == (len(ODD) + 1, 0)
    clips = {clip.source: clip for clip in Shards(out)}
    assert {
        "caf\\xe9.mp4",
        "caf\\x5cxe9.mp4",
        "é ü.mp4",
        "a\nb\tc.mp4",
        "d\\xe9p\\xf4t/sub.mp4",
    } < clips.keys()
    assert clips["d\\xe9p\\xf4t/sub.mp4"].labels == ("d\\xe9p\\xf4t",)
    assert prepare([odd_folder], out, labels="folder")["x_realtime"] == 0.0


@pytest.mark.parametrize("environment", [{"LC_ALL": "C", "PYTHONUTF8": "0"}, {"LC_ALL": "C.UTF-8"}])
def test_the_shell_in_any_locale_gives_the_same_shards(odd_folder, tmp_path, environment):
    command = [sys.executable, "-m", "looklisten", "prepare", os.fsencode(odd_folder), b"out"]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | environment, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    prepare([odd_folder], tmp_path / "here")
    there, here = (
        json.loads((tmp_path / name / "index.json").read_text("utf-8"))["shards"]
        for name in ("out", "here")
    )
    assert there == here


def test_failures_of_odd_names_are_lines_of_json(tmp_path):
    for name in (NOT_UTF8, "a\nb.mp4"):
        (tmp_path / name).write_text("no video")
    write_clock_video(tmp_path / "good.mp4", seconds=1.2)
    assert prepare([tmp_path], tmp_path / "out")["failed"] == 2
    failures = [
        json.loads(line)
        for line in (tmp_path / "out" / "failures.jsonl").read_text("utf-8").splitlines()
    ]
    assert {row["source"] for row in failures} == {"caf\\xe9.mp4", "a\nb.mp4"}
    assert all(row["reason"].startswith(row["source"]) for row in failures)


def test_names_in_a_text_list_are_bytes(odd_folder, tmp_path):
    one_line = [name for name in ODD if "\n" not in name]
    lines = b"".join(os.fsencode(odd_folder / name) + b"\n" for name in one_line)
    (tmp_path / "list.txt").write_bytes(lines + b"a\0b.mp4\n" + b"y" * 300 + b".mp4\n")
    found = find_sources([tmp_path / "list.txt"])
    assert len(found.sources) == len(one_line)
    assert all(source.local_path(found.root).exists() for source in found.sources)
    assert sorted(found.unusable.values()) == [
        "File name too long",
        "its name holds a NUL character, which no file name can",
    ]


def test_names_in_a_table_that_programs_have_changed(folder):
    """With the separator of Windows, with spaces, and as failures.jsonl writes them."""
    (folder / NOT_UTF8).touch()
    (folder / "t.csv").write_text("path\ncat\\a.mp4\n d.mov \ncaf\\xe9.mp4\n")
    assert names([folder / "t.csv"]) == ["caf\\xe9.mp4", "cat/a.mp4", "d.mov"]


def test_composed_and_decomposed_accents_are_one_name(tmp_path):
    (tmp_path / "cafe\u0301.mp4").touch()
    (tmp_path / "list.txt").write_text("café.mp4\n", encoding="utf-8")
    assert names([tmp_path / "list.txt"]) == ["cafe\u0301.mp4"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "latin-1"])
def test_a_text_list_in_any_encoding(tmp_path, encoding):
    (tmp_path / "é.mp4").touch()
    (tmp_path / "list.txt").write_text("é.mp4\n", encoding=encoding)
    assert names([tmp_path / "list.txt"]) == ["é.mp4"]


def test_a_list_may_name_folders_and_files_that_begin_like_remarks(folder):
    (folder / "#1.mp4").touch()
    (folder / "list.txt").write_text("# mine\n#1.mp4\ncat\n")
    assert names([folder / "list.txt"]) == ["#1.mp4", "cat/a.mp4", "cat/b.MKV"]
    (folder / "list.txt").write_text("# mine\n\n")
    with pytest.raises(SourceError, match=r"the list .*list\.txt names no file"):
        find_sources([folder / "list.txt"])


def test_a_local_name_like_an_address_is_local(tmp_path):
    (tmp_path / "a:").mkdir()
    (tmp_path / "a:" / "b.mp4").touch()
    (tmp_path / "t.csv").write_text("path\na://b.mp4\n")
    assert names([tmp_path / "t.csv"]) == ["a:/b.mp4"]


# Folders with an account


def test_links_are_followed_each_folder_once(folder, tmp_path):
    other = tmp_path / "other"
    (other / "deep").mkdir(parents=True)
    (other / "deep" / "e.mp4").touch()
    (folder / "link").symlink_to(other, target_is_directory=True)
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (other / "deep" / "up").symlink_to(folder, target_is_directory=True)
    (folder / "a_second_way").symlink_to(folder / "cat", target_is_directory=True)
    assert names([folder]) == ["cat/a.mp4", "cat/b.MKV", "d.mov", "dog/c.webm", "link/deep/e.mp4"]
    matched = names([f"{folder}/**/*.mp4"])
    assert len(matched) == len({Path(name).name for name in matched}) == 2


def test_what_cannot_be_read_is_a_failed_source(folder):
    (folder / "gone.mp4").symlink_to(folder / "nowhere.mp4")
    (folder / "itself.mp4").symlink_to(folder / "itself.mp4")
    os.mkfifo(folder / "pipe.mp4")
    reasons = {Path(name).name: reason for name, reason in find_sources([folder]).unusable.items()}
    assert reasons["gone.mp4"] == "a broken link: there is no such file"
    assert reasons["itself.mp4"].startswith("a broken link: ")
    assert reasons["pipe.mp4"] == "it is no file but a pipe, a socket or a device"


def test_a_folder_without_permission_is_a_failed_source(tmp_path):
    """As a user for whom permissions count: root drops its capabilities."""
    (tmp_path / "shut").mkdir()
    (tmp_path / "listed").mkdir()
    for name in ("shut/a.mp4", "listed/b.mp4", "c.mp4"):
        (tmp_path / name).touch()
    program = (
        "import json, sys; from looklisten.data.inputs import find_sources; "
        "found = find_sources([sys.argv[1]]); "
        "print(json.dumps([[source.path for source in found.sources], found.unusable]))"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    if os.geteuid() == 0:
        command = [
            "setpriv",
            "--bounding-set",
            "-dac_override,-dac_read_search",
            "--inh-caps",
            "-all",
            *command,
        ]
    (tmp_path / "shut").chmod(0o000)
    (tmp_path / "listed").chmod(0o444)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    except FileNotFoundError:
        pytest.skip("no program setpriv")
    finally:
        for name in ("shut", "listed"):
            (tmp_path / name).chmod(0o755)
    if done.returncode and "setpriv" in done.stderr:
        pytest.skip("setpriv may not drop capabilities here")
    found, reasons = json.loads(done.stdout)
    assert found == ["c.mp4"]
    assert {Path(name).name: reason for name, reason in reasons.items()} == {
        "shut": "the folder cannot be searched: Permission denied",
        "b.mp4": "Permission denied",
    }


def test_hidden_folders_and_trash_are_left_out_and_counted(folder):
    for name in (
        ".git",
        ".Trash-1000",
        "$RECYCLE.BIN",
        "@eaDir",
        "__MACOSX",
        "System Volume Information",
    ):
        (folder / name).mkdir()
        (folder / name / "x.mp4").touch()
    (folder / "._a.mp4").touch()
    found = find_sources([folder])
    assert [source.path for source in found.sources] == [
        "cat/a.mp4",
        "cat/b.MKV",
        "d.mov",
        "dog/c.webm",
    ]
    assert "8 hidden files or folders and trash folders were left out" in found.notes
    assert [source.path for source in find_sources([folder / ".git"]).sources] == ["x.mp4"]


def test_files_with_other_suffixes_are_counted(folder):
    for number in range(3):
        (folder / f"{number}.abc").touch()
    (folder / "none").touch()
    assert (
        "5 files with other suffixes were not looked at (.abc 3, no suffix 1, .txt 1)"
        in find_sources([folder]).notes
    )
    (folder / "empty").mkdir()
    (folder / "empty" / "a.abc").touch()
    with pytest.raises(
        SourceError,
        match=r"holds no video .*; 1 file with another suffix was not looked at \(\.abc 1\)",
    ):
        find_sources([folder / "empty"])


@pytest.mark.parametrize("scheme", ["memory", "file"])
def test_a_remote_folder_has_the_same_account(scheme, tmp_path):
    top = "memory://account" if scheme == "memory" else f"file://{tmp_path}/account"
    for name in ("a.mp4", "b.abc", ".hidden/c.mp4", "@eaDir/d.mp4"):
        with fsspec.open(f"{top}/{name}", "wb", auto_mkdir=True) as file:
            file.write(b"x")
    found = find_sources([f"{top}/"])
    assert [source.path.rpartition("/")[2] for source in found.sources] == ["a.mp4"]
    assert found.notes == (
        "1 file with another suffix was not looked at (.abc 1)",
        "2 hidden files or folders and trash folders were left out",
    )
    fsspec.filesystem(scheme).rm(top.partition("://")[2], recursive=True)


@pytest.mark.parametrize(
    "suffix",
    [
        "m4b",
        "aifc",
        "w64",
        "heic",
        "heif",
        "insv",
        "lrv",
        "mod",
        "tod",
        "webp",
        "y4m",
        "ogx",
        "eac3",
    ],
)
def test_suffixes_of_cameras_and_devices_are_known(suffix):
    assert f".{suffix}" in MEDIA_SUFFIXES


def test_folders_that_a_pattern_matches_are_said(folder):
    assert "matches 2 folders, which were not searched" in find_sources([f"{folder}/*"]).notes[0]


# Splits and duplicates


def test_ways_to_write_one_split_do_not_contradict(folder):
    (folder / "t.csv").write_text("path,video_id,split\ncat/a.mp4,A,train\nd.mov,A,Training\n")
    assert len(find_sources([folder / "t.csv"]).sources) == 2


def test_a_duplicate_follows_the_split_of_the_first(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_text("same")
    (tmp_path / "t.csv").write_text("path,split,video_id\na.mp4,train,A\nb.mp4,test,B\n")
    found = find_sources([tmp_path / "t.csv"]).sources
    first, second = with_duplicates(found, tmp_path)
    assert (second.same_as, second.split, second.video_id) == ("a.mp4", "train", "A")
    assert (first.same_as, first.split) == ("", "train")
