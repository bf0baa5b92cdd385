"""The same cells mean the same in CSV and in Parquet: 0 and False are values, and what is missing
is missing.
"""

import datetime
from decimal import Decimal

import pyarrow as pa
import pytest
from pyarrow import parquet

from looklisten.cells import cell_boolean, cell_seconds, cell_texts
from looklisten.data.boxes import read_boxes
from looklisten.data.inputs import find_sources
from looklisten.errors import ConfigError, SourceError

FILES = ("a.mp4", "b.mp4", "c.mp4")


@pytest.fixture
def folder(tmp_path):
    for name in FILES:
        (tmp_path / name).write_text(name)
    return tmp_path


def of_csv(folder, text):
    data = text if isinstance(text, bytes) else text.encode()
    (folder / "t.csv").write_bytes(data)
    return find_sources([folder / "t.csv"]).sources


def of_parquet(folder, **columns):
    parquet.write_table(pa.table({"path": pa.array(FILES)} | columns), folder / "t.parquet")
    return find_sources([folder / "t.parquet"]).sources


def labels(sources):
    return [source.labels for source in sources]


def starts(sources):
    return [source.start_seconds for source in sources]


# What a cell means


@pytest.mark.parametrize(
    ("column", "cells", "right"),
    [
        (pa.array([0, 1, None]), "0,1,", [("0",), ("1",), ()]),
        (pa.array([False, True, None]), "False,True,", [("False",), ("True",), ()]),
        (pa.array([0.0, 1.0, float("nan")]), "0.0,1.0,", [("0",), ("1",), ()]),
        (pa.array([0.0, 2.0, float("nan")]), "0.0,2.0,nan", [("0",), ("2",), ()]),
        (pa.array([0.5, 1.0, None]), "0.5,1,", [("0.5",), ("1",), ()]),
        (pa.array([Decimal("0.50"), Decimal("2.00"), None]), "0.5,2,", [("0.5",), ("2",), ()]),
        (pa.array([b"cat", None, b""]), "cat,,", [("cat",), (), ()]),
        (pa.array(["cat|dog", " ", "dog"]), "cat|dog, ,dog", [("cat", "dog"), (), ("dog",)]),
        (
            pa.array(["cat", "dog", "cat"]).dictionary_encode(),
            "cat,dog,cat",
            [("cat",), ("dog",), ("cat",)],
        ),
        (pa.array([["cat", "dog"], [], None]), "\"['cat', 'dog']\",[],", [("cat", "dog"), (), ()]),
        (pa.array([[0, 1], [None], [2]]), '"[0, 1]",[],[2]', [("0", "1"), (), ("2",)]),
        (pa.array([[["cat"], ["dog"]], [], None]), "cat|dog,,", [("cat", "dog"), (), ()]),
        (pa.array(["nan", "None", "NULL"]), "nan,None,NULL", [("nan",), ("None",), ("NULL",)]),
    ],
)
def test_labels_of_any_type(folder, column, cells, right):
    import csv

    (row,) = csv.reader([cells])
    lines = "".join(f'{name},"{cell}"\n' for name, cell in zip(FILES, row, strict=True))
    assert labels(of_csv(folder, f"path,label\n{lines}")) == right
    assert labels(of_parquet(folder, label=column)) == right


@pytest.mark.parametrize(
    ("column", "cells", "right"),
    [
        (pa.array([0, 1, None]), ("0", "1", ""), [0.0, 1.0, None]),
        (pa.array([0.5, float("nan"), None]), ("0.5", "nan", ""), [0.5, None, None]),
        (pa.array([Decimal("0.5"), None, Decimal(1)]), ("0.5", "NaT", "1"), [0.5, None, 1.0]),
        (
            pa.array([1500, None, 0], pa.duration("ms")),
            ("0 days 00:00:01.500000", "", "0:00"),
            [1.5, None, 0.0],
        ),
        (pa.array([500_000_001, None, 0], pa.duration("ns")), ("0.5", "", "0"), [0.5, None, 0.0]),
        (
            pa.array([datetime.time(0, 1, 30), None, datetime.time(1)]),
            ("01:30", "", "1:00:00"),
            [90.0, None, 3600.0],
        ),
        (pa.array([0.5, 1, 2], pa.float16()), ("0.5", "1", "2"), [0.5, 1.0, 2.0]),
        (pa.array(["1:30", "0,5", "2"]), ("1:30", '"0,5"', "2"), [90.0, 0.5, 2.0]),
    ],
)
def test_times_of_any_type(folder, column, cells, right):
    lines = "".join(f"{name},{cell}\n" for name, cell in zip(FILES, cells, strict=True))
    assert starts(of_csv(folder, f"path,start_seconds\n{lines}")) == right
    assert starts(of_parquet(folder, start_seconds=column)) == right


@pytest.mark.parametrize(
    ("column", "cell", "sentence"),
    [
        (
            pa.array([-1, 0, 0]),
            "-1",
            "is no time in a file; seconds are 0 or more, in the column start_seconds",
        ),
        (pa.array([float("inf"), 0, 0]), "inf", "is no time in a file"),
        (pa.array([True, False, False]), "True", "is no number of seconds"),
        (
            pa.array([datetime.datetime(2020, 1, 1)] * 3),
            "2020-01-01 00:00:00",
            "is no number of seconds",
        ),
        (pa.array([datetime.date(2020, 1, 1)] * 3), "2020-01-01", "is no number of seconds"),
        (pa.array(["1:75", "", ""]), "1:75", "is no number of seconds"),
        (
            pa.array([[1.0], [], []]),
            "[1.0",
            "is no number of seconds|is a list, where one value is expected",
        ),
    ],
)
def test_what_is_no_time_is_a_sentence_with_its_place(folder, column, cell, sentence):
    with pytest.raises(SourceError, match=rf"t\.csv, line 2: .*({sentence})"):
        of_csv(folder, f"path,start_seconds\na.mp4,{cell}\n")
    with pytest.raises(SourceError, match=rf"t\.parquet, row 1: .*({sentence})"):
        of_parquet(folder, start_seconds=column)


def test_video_id_and_split_of_zero_are_values(folder):
    found = of_parquet(folder, video_id=pa.array([0, 0, 1]), split=pa.array([0, 0, 1]))
    assert [(source.video_id, source.split) for source in found] == [
        ("0", "0"),
        ("0", "0"),
        ("1", "1"),
    ]
    assert of_csv(folder, "path,video_id,split\na.mp4,0,0\nb.mp4,0,0\nc.mp4,1,1\n") == found


def test_a_record_as_a_label_is_refused(folder):
    with pytest.raises(
        SourceError,
        match=r"row 1: .* is a record, where one value is expected, in the column label",
    ):
        of_parquet(folder, label=pa.array([{"name": "cat"}, None, None]))


def test_lists_as_programs_print_them():
    assert cell_texts("['cat' 'big dog']") == ("cat", "big dog")
    assert cell_texts('["cat", "dog"]') == ("cat", "dog")
    assert cell_texts("[1 2]") == ("1", "2")
    assert cell_texts("[x]") == ("[x]",)
    assert cell_texts("cat|cat| dog ") == ("cat", "dog")
    assert [cell_boolean(value) for value in (1, 0, True, "no", "1.0".rstrip(".0"), 1.0)] == [
        True,
        False,
        True,
        False,
        True,
        True,
    ]
    assert cell_seconds("90") == 90.0


# Headings


@pytest.mark.parametrize("heading", ["Path,Label", " path , LABEL ", "\ufeffPATH,label"])
def test_headings_are_compared_without_case_and_spaces(folder, heading):
    assert labels(of_csv(folder, f"{heading}\na.mp4,cat\n")) == [("cat",)]
    path, label = (name.removeprefix("\ufeff") for name in heading.split(","))
    parquet.write_table(pa.table({path: ["a.mp4"], label: ["cat"]}), folder / "t.parquet")
    assert labels(find_sources([folder / "t.parquet"]).sources) == [("cat",)]


@pytest.mark.parametrize("headings", [("Label", " label"), ("label", "label")])
def test_two_columns_of_one_name_are_refused(folder, headings):
    with pytest.raises(SourceError, match="has two columns named label; remove or rename one"):
        of_csv(folder, f"path,{','.join(headings)}\na.mp4,cat,dog\n")
    parquet.write_table(
        pa.Table.from_arrays([pa.array(["a.mp4"])] * 3, names=["path", *headings]),
        folder / "t.parquet",
    )
    with pytest.raises(SourceError, match="has two columns named label; remove or rename one"):
        find_sources([folder / "t.parquet"])


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        *[
            ("start", "start_seconds"),
            ("End", "stop_seconds"),
            ("class", "label"),
            ("labels", "label"),
            ("fold", "split"),
        ],
        *[
            ("id", "video_id"),
            ("lable", "label"),
            ("subset", "split"),
            ("duration", "stop_seconds"),
            ("vidoe_id", "video_id"),
        ],
    ],
)
def test_a_column_that_is_nearly_known_is_refused_with_a_hint(folder, wrong, right):
    hint = rf"{wrong.lower()} \(did you mean {right}\?\)"
    sentence = rf"columns that are not known: {hint}; rename them, or remove them"
    with pytest.raises(SourceError, match=sentence):
        of_csv(folder, f"path,{wrong}\na.mp4,1\n")
    with pytest.raises(SourceError, match=sentence):
        of_parquet(folder, **{wrong: pa.array(["1", "1", "1"])})


def test_beside_the_known_one_it_is_ignored_and_named_like_every_other_column(folder):
    (folder / "t.csv").write_text("path,label,class,weather\na.mp4,cat,1,rain\n")
    (note,) = find_sources([folder / "t.csv"]).notes
    assert (
        "ignored columns: class, weather; "
        "known are label, path, split, start_seconds, stop_seconds, video_id" in note
    )


def test_columns_that_synth_writes_are_no_surprise(folder, world):
    assert find_sources([world / "labels.csv"]).notes == ()
    (folder / "t.csv").write_text("path,label,split,image,sound\na.mp4,cat,test,a.png,a.wav\n")
    assert find_sources([folder / "t.csv"]).notes == ()
    (folder / "t.csv").write_text("path,background\na.mp4,blue\n")
    (note,) = find_sources([folder / "t.csv"]).notes
    assert "ignored columns: background" in note, "not from synth"


@pytest.mark.parametrize("name", ["file", "filename", "video_path"])
def test_a_table_without_paths_says_what_was_meant(folder, name):
    with pytest.raises(
        SourceError, match=f"lacks the column path; it has {name}; did you mean path by {name}"
    ):
        of_csv(folder, f"{name}\na.mp4\n")


# Rows


def test_a_second_row_of_a_file_adds_its_labels(folder):
    assert labels(of_csv(folder, "path,label\na.mp4,cat\na.mp4,dog\na.mp4,cat\n")) == [
        ("cat", "dog")
    ]
    parquet.write_table(
        pa.table({"path": ["a.mp4", "a.mp4"], "label": [0, 1]}), folder / "t.parquet"
    )
    assert labels(find_sources([folder / "t.parquet"]).sources) == [("0", "1")]


def test_another_stretch_is_another_source(folder):
    found = of_csv(folder, "path,label,stop_seconds\na.mp4,cat,1\na.mp4,dog,2\n")
    assert labels(found) == [("cat",), ("dog",)]


@pytest.mark.parametrize("column", ["split", "video_id"])
def test_rows_of_a_file_that_contradict_each_other_are_refused(folder, column):
    with pytest.raises(ConfigError, match=rf"a\.mp4 is named twice, with the {column} 'x' and 'y'"):
        of_csv(folder, f"path,{column}\na.mp4,x\na.mp4,y\n")


def test_a_table_adds_to_what_a_folder_names(folder):
    (folder / "t.csv").write_text("path,label\nb.mp4,dog\n")
    assert labels(find_sources([folder, folder / "t.csv"]).sources) == [(), ("dog",), ()]


def test_a_row_without_a_path_is_one_failed_source(folder):
    (folder / "t.csv").write_text("path,label\na.mp4,cat\n,dog\n,\n")
    found = find_sources([folder / "t.csv"])
    assert labels(found.sources) == [("cat",)]
    assert list(found.unusable.values()) == ["this row has no path"]


# How the file is written


@pytest.mark.parametrize(
    "text",
    [
        "path;label\na.mp4;cat, big\n",
        "path\tlabel\na.mp4\tcat, big\n",
        'path,label\na.mp4,"cat, big"\n',
        'path, label\na.mp4, "cat, big"\n',
        '# mine\n\npath,label\n# not this\n\na.mp4,"cat, big"\n#b.mp4,dog\n',
        'path,label\r\na.mp4,"cat, big"\r\n',
        'path,label\ra.mp4,"cat, big"\r',
        '\ufeffpath,label\na.mp4,"cat, big"\n',
        '\ufeffpath,label\na.mp4,"cat, big"\n'.encode("utf-16-le"),
        '\ufeffpath,label\na.mp4,"cat, big"\n'.encode("utf-16-be"),
    ],
)
def test_separators_comments_and_encodings(folder, text):
    (source,) = of_csv(folder, text)
    assert source.labels == ("cat, big",)


def test_a_row_with_too_many_cells_is_refused(folder):
    with pytest.raises(
        SourceError,
        match=r"line 3: has 3 cells where the heading has 2; put a cell that holds the separator",
    ):
        of_csv(folder, "path,label\na.mp4,cat\nb.mp4,dog, big\n")


def test_latin_1_is_read_and_said(folder):
    (folder / "é.mp4").touch()
    (folder / "t.csv").write_bytes("path,label\né.mp4,Hündin\na.mp4,cat\n".encode("latin-1"))
    found = find_sources([folder / "t.csv"])
    assert [(source.path, source.labels) for source in found.sources] == [
        ("a.mp4", ("cat",)),
        ("é.mp4", ("Hündin",)),
    ]
    assert "is not UTF-8 from line 2 on" in found.notes[0]


def test_utf_16_without_a_mark_is_a_sentence(folder):
    with pytest.raises(
        SourceError, match=r"t\.csv looks like UTF-16 without a byte-order mark; save it as UTF-8"
    ):
        of_csv(folder, "path\na.mp4\nb.mp4\n".encode("utf-16-le"))


# Boxes


BOXES = {
    "path": ["./a.mp4"],
    "time": ["1:02"],
    "x0": [0],
    "y0": [0.25],
    "x1": [Decimal("0.5")],
    "y1": [1],
    "label": [0],
    "Sounding": [1],
}


def test_boxes_by_the_same_rules(folder):
    parquet.write_table(pa.table(BOXES), folder / "b.parquet")
    (folder / "b.csv").write_text(
        "path,time,x0,y0,x1,y1,label,sounding\na.mp4,62,0,0.25,0.5,1,0,yes\n"
    )
    assert read_boxes(folder / "b.parquet") == read_boxes(folder / "b.csv")
    (box,) = read_boxes(folder / "b.csv")[str(folder / "a.mp4")]
    assert (box.video_seconds, box.y0, box.label, box.sounding) == (62.0, 0.25, "0", True)


@pytest.mark.parametrize(
    ("cells", "sentence"),
    [
        (",0,0,1,1,cat,1", "line 2: the time is missing"),
        ("0,left,0,1,1,cat,1", "line 2: 'left' is no number, in the column x0"),
        ("0,0,0,1,1,cat,maybe", "line 2: 'maybe' is neither yes nor no"),
    ],
)
def test_boxes_that_cannot_be(folder, cells, sentence):
    (folder / "b.csv").write_text(f"path,time,x0,y0,x1,y1,label,sounding\na.mp4,{cells}\n")
    with pytest.raises(SourceError, match=sentence):
        read_boxes(folder / "b.csv")


def test_a_corner_with_a_decimal_comma_is_read_and_thousands_are_not(folder):
    table = folder / "b.csv"
    heading = "path;time;x0;y0;x1;y1;label;sounding\n"
    table.write_text(heading + "a.mp4;0;0,125;0;1;1;cat;1\n")
    assert read_boxes(table)[str(folder / "a.mp4")][0].x0 == 0.125
    table.write_text(heading + "a.mp4;0;1,500;0;1;1;cat;1\n")
    with pytest.raises(SourceError, match=r"'1,500' is no number, in the column x0"):
        read_boxes(table)


def test_numbers_of_32_bits_and_maps_are_read_as_they_are_meant(folder):
    (folder / "t.parquet").parent.mkdir(exist_ok=True)
    labels = pa.array([0.1], pa.float32())
    parquet.write_table(pa.table({"path": ["a.mp4"], "label": labels}), folder / "t.parquet")
    assert find_sources([folder / "t.parquet"]).sources[0].labels == ("0.1",)
    maps = pa.array([[("cat", 1)]], pa.map_(pa.string(), pa.int64()))
    parquet.write_table(pa.table({"path": ["a.mp4"], "label": maps}), folder / "t.parquet")
    with pytest.raises(SourceError, match="is a record, where one value is expected"):
        find_sources([folder / "t.parquet"])


def test_the_separator_line_of_excel_is_no_heading(folder):
    (folder / "t.csv").write_text("sep=;\npath;label\na.mp4;cat\n")
    assert find_sources([folder / "t.csv"]).sources[0].labels == ("cat",)


def test_a_table_of_remarks_names_no_file(folder):
    (folder / "t.csv").write_text("path,label\n#a.mp4,cat\n")
    with pytest.raises(SourceError, match=r"the table .*t\.csv names no file"):
        find_sources([folder / "t.csv"])
