"""What a user may name as input, and the sentence when there is nothing."""

import functools
import http.server
import threading

import fsspec
import pyarrow as pa
import pytest
from pyarrow import parquet

from looklisten.data.sources import Source, find_sources, mark_duplicates
from looklisten.errors import ConfigError, SourceError


@pytest.fixture
def folder(tmp_path):
    for name in ("cat/a.mp4", "cat/b.MKV", "dog/c.webm", "dog/notes.txt", "dog/.hidden.mp4", "d.mov"):
        file = tmp_path / "videos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    return tmp_path / "videos"


def names(inputs, **options):
    return [source.name for source in find_sources(inputs, **options).found]


def test_a_folder_is_searched_for_videos(folder):
    assert names([folder]) == ["cat/a.mp4", "cat/b.MKV", "d.mov", "dog/c.webm"]
    assert find_sources([folder]).found[0].bytes == len("cat/a.mp4")


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
    {"path": "cat/a.mp4", "label": "cat|animal", "split": "train", "video_id": "A", "start_seconds": 1.5, "stop_seconds": 4.0},
    {"path": "cat/a.mp4", "label": "cat", "split": "train", "video_id": "A", "start_seconds": 8.0, "stop_seconds": None},
    {"path": "d.mov", "label": "", "split": "test", "video_id": "", "start_seconds": None, "stop_seconds": None},
]


def test_csv_and_parquet_say_the_same(folder):
    columns = list(ROWS[0])
    cells = "\n".join(",".join("" if row[c] is None else str(row[c]) for c in columns) for row in ROWS)
    (folder / "t.csv").write_text(f"\ufeff{','.join(columns)}\r\n{cells}\r\n", newline="")
    parquet.write_table(pa.Table.from_pylist(ROWS), folder / "t.parquet")
    found = find_sources([folder / "t.csv"]).found
    assert found == find_sources([folder / "t.parquet"]).found
    assert [source.name for source in found] == ["cat/a.mp4#t=1.5,4", "cat/a.mp4#t=8", "d.mov"]
    assert found[0].labels == ("cat", "animal")
    assert (found[0].video_id, found[0].split, found[0].stop_seconds) == ("A", "train", 4.0)
    assert found[2] == Source("d.mov", len("d.mov"), split="test")


def test_a_missing_file_of_a_table_stops_nothing(folder):
    (folder / "t.csv").write_text("path\ncat/a.mp4\ngone.mp4\n")
    found = find_sources([folder / "t.csv"])
    assert [source.path for source in found.found] == ["cat/a.mp4"]
    assert [name.rpartition("/")[2] for name in found.missing] == ["gone.mp4"]


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("file\na.mp4\n", "lacks the column path; it has file"),
        ("path\n", "has no rows"),
        ("path\ngone.mp4\n", "names 1 files, and none of them is there; the first of them: .*gone.mp4"),
        ("path,start_seconds\nd.mov,soon\n", "line 2: 'soon' is no number of seconds"),
        ("path,start_seconds,stop_seconds\nd.mov,5,4\n", "line 2: stop_seconds 4 is not after start_seconds"),
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
    with pytest.raises(ConfigError, match=r"d.mov is in the split 'test' and cat/a.mp4, of the same video, in 'train'"):
        find_sources([folder / "t.csv"])


def test_labels_from_the_folders_name(folder):
    found = {source.path: source.labels for source in find_sources([folder], "folder").found}
    assert found == {"cat/a.mp4": ("cat",), "cat/b.MKV": ("cat",), "dog/c.webm": ("dog",), "d.mov": ()}
    both = find_sources([folder / "cat", folder / "dog"], "folder").found
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
        (source,) = find_sources([given]).found
        assert (source.path, source.bytes) == ("memory:///set/x/a.mp4", 3)
    (source,) = find_sources(["memory://set/list.csv"]).found
    assert (source.path, source.labels) == ("memory://set/x/a.mp4", ("cat",))
    memory.rm("/set", recursive=True)
    (folder / "t.csv").write_text("path\ncat/a.mp4\n")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        here = f"http://127.0.0.1:{server.server_port}"
        (source,) = find_sources([f"{here}/t.csv"]).found
        server.shutdown()
    assert source == Source(f"{here}/cat/a.mp4")


def test_duplicates_are_found_by_content_and_stay_one_video(tmp_path):
    for name, content in (("a.mp4", "same"), ("b.mp4", "else"), ("c.mp4", "same"), ("d.mp4", "other length")):
        (tmp_path / name).write_text(content)
    found = find_sources([tmp_path]).found
    marked = mark_duplicates(found, tmp_path)
    assert [source.same_as for source in marked] == ["", "", "a.mp4", ""]
    assert [source.video_id for source in marked] == ["", "", "a.mp4", ""]
    later = mark_duplicates(found[2:], tmp_path, known=found[:2])
    assert [source.same_as for source in later] == ["a.mp4", ""]
