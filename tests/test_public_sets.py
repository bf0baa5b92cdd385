"""What owners distribute, matched to files by id and start, becomes one table; what is missing is
counted, what is wrong is said.
"""

import csv
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import write_clock_video
from looklisten.app.cli import main
from looklisten.data.prepare import prepare
from looklisten.data.public.annotations import ANNOTATION_FORMATS, VideoSet
from looklisten.data.public.table import KINETICS_SOUNDS, PREPARE_COLUMNS, table
from looklisten.data.shards import Shards
from looklisten.errors import ConfigError, SourceError

KINETICS = "label,youtube_id,time_start,time_end,split,is_cc\n"
ODD = "-_a-b_c-d_Q"
"""An id with everything that could be taken for a separator."""


def folder_of(folder, *names):
    """A folder of empty files: the table opens none."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def written(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def lines(result):
    with Path(result["table"]).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def make(tmp_path, name, text, names, file="set_train.csv", **options):
    annotations = written(tmp_path / file, text)
    return table(
        name, annotations, folder_of(tmp_path / "videos", *names), tmp_path / "table.csv", **options
    )


def counts(result):
    return tuple(
        result[key] for key in ("rows", "found", "missing", "left_out", "videos", "labels")
    )


def test_kinetics(tmp_path):
    text = KINETICS + (
        f'"playing ""air"" guitar",{ODD},417,427,train,0\nabseiling,0wR5jVB-WPk,0,10,train,0\n'
        "abseiling,3caPS4FHFF8,36,46,validate,0\nzumba,00000000000,5,15,test,0\n"
    )
    names = [
        f"train/playing air guitar/{ODD}_000417_000427.mp4",
        "val/0wR5jVB-WPk_000000_000010.MKV",
        "val/3caPS4FHFF8.webm",
        "notes.txt",
    ]
    result = make(tmp_path, "kinetics", text, names)
    assert counts(result) == (4, 3, 1, 0, 3, 2)
    assert lines(result) == [
        dict(zip(PREPARE_COLUMNS, row, strict=True))
        for row in [
            (
                f"videos/train/playing air guitar/{ODD}_000417_000427.mp4",
                'playing "air" guitar',
                "",
                "",
                ODD,
                "train",
            ),
            (
                "videos/val/0wR5jVB-WPk_000000_000010.MKV",
                "abseiling",
                "",
                "",
                "0wR5jVB-WPk",
                "train",
            ),
            ("videos/val/3caPS4FHFF8.webm", "abseiling", "", "", "3caPS4FHFF8", "val"),
        ]
    ]


def test_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path):
    plain = make(
        tmp_path, "kinetics", KINETICS + "zumba,0wR5jVB-WPk,0,10,val,0\n", ["0wR5jVB-WPk.mp4"]
    )
    before = (tmp_path / "table.csv").read_bytes()
    odd = make(
        tmp_path,
        "kinetics",
        "\ufeff" + (KINETICS + "zumba,0wR5jVB-WPk,0,10,val,0\n\n").replace("\n", "\r\n"),
        ["0wR5jVB-WPk.mp4"],
    )
    assert plain == odd
    assert (tmp_path / "table.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("file", "split"),
    [
        ("kinetics_400_val.csv", "val"),
        ("validate.csv", "val"),
        ("train.csv", "train"),
        ("k700-Test.csv", "test"),
    ],
)
def test_a_split_that_no_column_tells_is_in_the_name(tmp_path, file, split):
    result = make(
        tmp_path,
        "kinetics",
        "label,youtube_id,time_start,time_end\nzumba,0wR5jVB-WPk,0,10\n",
        ["0wR5jVB-WPk.mp4"],
        file,
    )
    assert lines(result)[0]["split"] == split


def test_a_test_split_may_lack_its_labels(tmp_path):
    result = make(
        tmp_path,
        "kinetics",
        "youtube_id,time_start,time_end,split\n0wR5jVB-WPk,0,10,test\n",
        ["0wR5jVB-WPk.mp4"],
    )
    assert (lines(result)[0]["label"], result["labels"]) == ("", 0)


def test_kinetics_sounds_says_which_classes(tmp_path):
    text = KINETICS + (
        "bowling,0wR5jVB-WPk,0,10,train,0\nblowing out candles,3caPS4FHFF8,36,46,train,0\n"
        "zumba,yq_M1PMw2hY,38,48,train,0\n"
        "mowing the lawn by pushing lawnmower,7pRfb0t34uo,1,11,train,0\n"
    )
    names = ["0wR5jVB-WPk.mp4", "3caPS4FHFF8.mp4", "yq_M1PMw2hY.mp4", "7pRfb0t34uo.mp4"]
    later = make(tmp_path, "kinetics-sounds", text, names)
    assert (later["rows"], [line["label"] for line in lines(later)]) == (
        2,
        ["bowling", "blowing out candles"],
    )
    assert (later["classes"]["list"], later["classes"]["names"]) == ("kinetics-400", 32)
    assert later["classes"]["without_annotation"] == [
        c for c in KINETICS_SOUNDS["kinetics-400"] if c not in ("bowling", "blowing out candles")
    ]
    paper = make(tmp_path, "kinetics-sounds", text, names, classes="paper")
    assert {line["label"] for line in lines(paper)} == {
        "bowling",
        "mowing the lawn by pushing lawnmower",
    }
    assert (
        paper["classes"]["list"],
        paper["classes"]["names"],
        len(paper["classes"]["without_annotation"]),
    ) == ("paper", 34, 32)


def test_the_two_lists_of_kinetics_sounds_differ_as_the_sets_do():
    later, paper = (set(KINETICS_SOUNDS[name]) for name in ("kinetics-400", "paper"))
    assert (len(later), len(paper)) == (32, 34)
    assert later - paper == {
        "blowing out candles",
        "dribbling basketball",
        "mowing lawn",
        "stomping grapes",
        "strumming guitar",
    }
    assert sum(name.startswith("playing ") for name in later & paper) == 15
    assert {"fingerpicking", "patting", "typing"} <= paper - later


VGGSOUND = (
    f'{ODD},30,"female speech, woman speaking",train\n'
    '--bvmgIdDC8,0,"bee, wasp, etc. buzzing",test\n'
)


@pytest.mark.parametrize(
    "form",
    [
        "{}_000030",
        "{}_30000_40000",
        "{}_30",
        "{}_30.0_40.0",
        "{}-30-40",
        "{}",
        "Y{}",
        "{}_30000",
        "{}.mp4",
    ],
)
@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_every_form_of_a_name_is_the_clip(tmp_path, form, suffix):
    name = form.format(ODD) + suffix
    result = make(tmp_path, "vggsound", VGGSOUND, [f"video/{name}"])
    assert counts(result) == (2, 1, 1, 0, 1, 1)
    assert lines(result) == [
        dict(
            zip(
                PREPARE_COLUMNS,
                (f"videos/video/{name}", "female speech, woman speaking", "", "", ODD, "train"),
                strict=True,
            )
        ),
    ]


@pytest.mark.parametrize(
    "form",
    [
        "{}_000031",
        "{}_000003",
        "{}_31000_41000",
        "{}_3000_13000",
        "{}_30_h264",
        "x{}",
        "{}_",
        "{}_000030.part",
    ],
)
def test_another_name_is_not_the_clip(tmp_path, form):
    with pytest.raises(SourceError, match="holds no clip"):
        make(
            tmp_path,
            "vggsound",
            VGGSOUND,
            [form.format(ODD) + ".mp4", f".{ODD}.mp4", f"{ODD}.txt", f"{ODD}_000030.mp4.part"],
        )


def test_a_pair_of_whole_numbers_tells_its_unit(tmp_path):
    """1000 to 1010 are seconds, though 1000 ms would be the start of the other clip."""
    text = f"{ODD},1,rapping,train\n{ODD},1000,skiing,train\n"
    result = make(tmp_path, "vggsound", text, [f"{ODD}_001000_001010.mp4"])
    assert [line["label"] for line in lines(result)] == ["skiing"]


@given(
    video_id=st.from_regex("[A-Za-z0-9_-]{11}", fullmatch=True),
    start=st.integers(0, 99_999),
    form=st.sampled_from(
        ["{}_{:06d}", "{}_{:06d}_{:06d}", "{}_{}", "{}_{}.000_{}.000", "{}_{}000_{}000"]
    ),
)
def test_any_id_at_any_start_finds_its_file(tmp_path_factory, video_id, start, form):
    name = form.format(video_id, start, start + 10) + ".mp4"
    home = tmp_path_factory.mktemp("any")
    result = make(
        home, "audioset", f'{video_id}, {start}.000, {start + 10}.000, "/m/09x0r"\n', [name]
    )
    assert [(line["path"], line["video_id"]) for line in lines(result)] == [
        (f"videos/{name}", video_id)
    ]


AUDIOSET = f"""# Segments csv created Sun Mar  5 10:54:25 2017
# num_ytids=2, num_segs=2, num_unique_labels=3, num_positive_labels=3
# YTID, start_seconds, end_seconds, positive_labels
-0RWZT-miFs, 420.000, 430.000, "/m/03v3yw,/m/0k4j"
{ODD}, 0.000, 7.500, "/t/dd00088"
"""
ONTOLOGIES = {
    "ontology.json": json.dumps(
        [{"id": "/m/03v3yw", "name": "Keys jangling"}, {"id": "/m/0k4j", "name": "Car, automobile"}]
    ),
    "class_labels_indices.csv": (
        'index,mid,display_name\n0,/m/03v3yw,"Keys jangling"\n1,/m/0k4j,"Car, automobile"\n'
    ),
}


@pytest.mark.parametrize(
    "form", ["Y{}", "{}", "{}_420.000_430.000", "{}_420000_430000", "{}_420", "{}_420.000"]
)
@pytest.mark.parametrize("ontology", [None, *ONTOLOGIES])
def test_audioset(tmp_path, form, ontology):
    titles = ontology and written(tmp_path / ontology, ONTOLOGIES[ontology])
    names = [form.format("-0RWZT-miFs") + ".mp4", f"Y{ODD}.mp4"]
    result = make(tmp_path, "audioset", AUDIOSET, names, "eval_segments.csv", ontology=titles)
    assert counts(result) == (2, 2, 0, 0, 2, 3)
    labels = {line["video_id"]: (line["label"], line["split"]) for line in lines(result)}
    assert labels == {
        "-0RWZT-miFs": (
            "Keys jangling|Car, automobile" if ontology else "/m/03v3yw|/m/0k4j",
            "test",
        ),
        ODD: ("/t/dd00088", "test"),
    }


@pytest.mark.parametrize(
    ("file", "split"),
    [
        ("balanced_train_segments.csv", "train"),
        ("unbalanced_train_segments.csv", "train"),
        ("eval_segments.csv", "test"),
    ],
)
def test_audioset_tells_its_split_by_the_name_of_its_file(tmp_path, file, split):
    assert {
        line["split"] for line in lines(make(tmp_path, "audioset", AUDIOSET, [f"{ODD}.mp4"], file))
    } == {split}


def test_whole_videos_are_cut_by_the_table(tmp_path):
    text = f"{ODD},30,rapping,train\n{ODD},200,skiing,train\n--bvmgIdDC8,0.5,rapping,test\n"
    names = [f"{ODD}.mkv", "--bvmgIdDC8.mp4"]
    result = make(tmp_path, "vggsound", text, names, whole_videos=True)
    assert counts(result) == (3, 3, 0, 0, 2, 2)
    assert [
        (line["path"], line["label"], line["start_seconds"], line["stop_seconds"])
        for line in lines(result)
    ] == [
        ("videos/--bvmgIdDC8.mp4", "rapping", "0.5", "10.5"),
        (f"videos/{ODD}.mkv", "rapping", "30.0", "40.0"),
        (f"videos/{ODD}.mkv", "skiing", "200.0", "210.0"),
    ]
    again = make(tmp_path, "audioset", AUDIOSET, names, whole_videos=True)
    assert [(line["start_seconds"], line["stop_seconds"]) for line in lines(again)] == [
        ("0.0", "7.5")
    ]


def test_a_name_without_numbers_is_no_clip_of_a_video_that_has_several(tmp_path):
    text = f"{ODD},30,rapping,train\n{ODD},200,skiing,train\n--bvmgIdDC8,0,rapping,train\n"
    assert counts(make(tmp_path, "vggsound", text, [f"{ODD}.mp4", "--bvmgIdDC8.mp4"])) == (
        3,
        1,
        2,
        0,
        1,
        1,
    )
    assert counts(make(tmp_path, "vggsound", text, [f"{ODD}_000200.mp4"])) == (3, 2, 1, 0, 2, 2)


def test_a_video_in_two_splits_stays_in_the_one_held_out_furthest(tmp_path):
    """VGGSound and Kinetics-600 have a few: no video may be learnt from and measured on."""
    text = f"{ODD},30,rapping,train\n{ODD},200,skiing,test\n--bvmgIdDC8,0,rapping,train\n"
    result = make(
        tmp_path, "vggsound", text, [f"{ODD}_000030.mp4", f"{ODD}_000200.mp4", "--bvmgIdDC8.mp4"]
    )
    assert counts(result) == (3, 2, 0, 1, 2, 2)
    assert {(line["path"], line["split"]) for line in lines(result)} == {
        ("videos/--bvmgIdDC8.mp4", "train"),
        (f"videos/{ODD}_000200.mp4", "test"),
    }


def test_one_clip_described_twice_is_one_line_with_both_labels(tmp_path):
    text = f"{ODD},30,rapping,train\n{ODD},30,skiing,train\n{ODD},30,rapping,train\n"
    result = make(tmp_path, "vggsound", text, [f"{ODD}_000030.mp4"])
    assert counts(result) == (3, 3, 0, 0, 1, 2)
    assert [line["label"] for line in lines(result)] == ["rapping|skiing"]


def test_the_same_input_gives_the_same_bytes_whatever_the_order(tmp_path):
    rows = [
        f"{i:011d},{i * 10},label {i % 7},{'test' if i % 5 == 0 else 'train'}\n" for i in range(200)
    ]
    names = [
        f"{i % 3}/{i:011d}_{i * 10:06d}.{suffix}" for i in range(200) for suffix in ("mp4", "webm")
    ]
    one = make(tmp_path / "one", "vggsound", "".join(rows), names)
    two = make(tmp_path / "two", "vggsound", "".join(reversed(rows)), names[::-1])
    paths = [line["path"] for line in lines(one)]
    assert paths == sorted(paths)
    assert all(path.endswith(".mp4") for path in paths), (
        "of two files of one clip the first path is taken"
    )
    assert (tmp_path / "one/table.csv").read_bytes() == (tmp_path / "two/table.csv").read_bytes()
    assert one | {"table": ""} == two | {"table": ""}


@pytest.mark.parametrize(
    ("out", "way"),
    [("tables/a/t.csv", "../../videos/"), ("videos/t.csv", ""), ("t.csv", "videos/")],
)
def test_paths_start_from_the_table(tmp_path, monkeypatch, out, way):
    monkeypatch.chdir(tmp_path)
    annotations = written(tmp_path / "vggsound.csv", VGGSOUND)
    result = table(
        "vggsound",
        annotations,
        folder_of(tmp_path / "videos", f"{ODD}.mp4").relative_to(tmp_path),
        out,
    )
    assert [line["path"] for line in lines(result)] == [f"{way}{ODD}.mp4"]
    assert (tmp_path / out).parent.joinpath(lines(result)[0]["path"]).exists()


def test_paths_hold_through_links(tmp_path):
    folder_of(tmp_path / "disk" / "videos", f"{ODD}.mp4")
    (tmp_path / "disk" / "tables").mkdir()
    (tmp_path / "home").symlink_to(tmp_path / "disk" / "tables")
    result = table(
        "vggsound",
        written(tmp_path / "v.csv", VGGSOUND),
        tmp_path / "disk" / "videos",
        tmp_path / "home" / "t.csv",
    )
    assert (tmp_path / "home" / lines(result)[0]["path"]).exists()


def test_prepare_cuts_what_the_table_says(tmp_path):
    (tmp_path / "videos").mkdir()
    write_clock_video(tmp_path / "videos" / f"{ODD}.mp4", seconds=4)
    text = f'{ODD}, 0.4, 1.6, "/m/03v3yw,/m/0k4j"\n{ODD}, 2.0, 3.2, "/m/09x0r"\n'
    result = make(tmp_path, "audioset", text, [], whole_videos=True)
    assert prepare([result["table"]], tmp_path / "shards")["clips"] == 2
    assert [
        (clip.video_id, clip.labels, clip.split, round(clip.start_seconds, 2))
        for clip in Shards(tmp_path / "shards")
    ] == [
        (ODD, ("/m/03v3yw", "/m/0k4j"), "train", 0.4),
        (ODD, ("/m/09x0r",), "train", 2.0),
    ]


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        (
            "kinetics",
            "label,video,start,split\n",
            "line 1: lacks the column youtube_id, time_start, time_end, "
            "has label, video, start, split",
        ),
        ("kinetics", "", "line 1: lacks the column youtube_id, time_start, time_end, has nothing"),
        (
            "kinetics",
            KINETICS + "zumba,0wR5jVB-WPk,soon,10,val,0\n",
            "line 2: time_start is 'soon', which is no time in seconds",
        ),
        ("kinetics", KINETICS + "zumba,0wR5jVB-WPk,0,nan,val,0\n", "line 2: time_end is 'nan'"),
        (
            "kinetics",
            KINETICS + "zumba,0wR5jVB-WPk,0,10,other,0\n",
            "line 2: split is 'other', which is none of train, training, val",
        ),
        (
            "kinetics",
            KINETICS + "\nzumba,#NAME?,0,10,val,0\n",
            "line 3: youtube_id is '#NAME?', which is no YouTube id",
        ),
        (
            "kinetics",
            "youtube_id,time_start,time_end\n0wR5jVB-WPk,0,10\n",
            "line 2: there is no label, which only a test split may lack",
        ),
        ("kinetics", KINETICS, "set_train.csv has no annotation"),
        (
            "kinetics-sounds",
            KINETICS + "zumba,0wR5jVB-WPk,0,10,val,0\n",
            "has no annotation of the 32 classes of kinetics-400",
        ),
        (
            "vggsound",
            "-_a-b_c-d_Q_000030.mp4,rapping\n",
            "line 1: has 2 columns instead of 4: youtube_id, time_start, label, split",
        ),
        (
            "vggsound",
            "id,start,label,split\n",
            "line 1: youtube_id is 'id', which is no YouTube id",
        ),
        ("vggsound", VGGSOUND + f"{ODD},30,bee, wasp,train\n", "line 3: has 5 columns"),
        ("audioset", VGGSOUND, "line 1: time_end is 'female speech, woman speaking'"),
        ("audioset", f"{ODD}, 0, 10, \n", "line 1: there is no label"),
    ],
)
def test_what_is_wrong_with_annotations_is_said_with_its_line(tmp_path, name, text, sentence):
    with pytest.raises(SourceError, match=re.escape(sentence)) as raised:
        make(tmp_path, name, text, ["0wR5jVB-WPk.mp4"])
    assert "set_train.csv" in str(raised.value)
    assert "use the file that" in str(raised.value), "what to do next"
    assert not (tmp_path / "table.csv").exists()


def test_a_name_that_tells_no_split_or_two(tmp_path):
    for file in ("segments.csv", "train_and_eval.csv"):
        with pytest.raises(
            SourceError,
            match="its name has none; give it a name with one of train, val, test or eval in it",
        ):
            make(tmp_path, "audioset", AUDIOSET, [f"{ODD}.mp4"], file)


def test_nothing_matched_says_what_was_looked_for_and_what_was_found(tmp_path):
    with pytest.raises(SourceError) as raised:
        make(tmp_path, "vggsound", VGGSOUND, ["b/holiday.mp4", "a/notes.txt"])
    sentence = str(raised.value)
    assert f"{ODD}.mp4, {ODD}_000030.mp4 or {ODD}_30000.mp4, found b/holiday.mp4;" in sentence
    assert "name the videos by YouTube id, or use another folder" in sentence
    with pytest.raises(SourceError, match="found no video"):
        table(
            "vggsound",
            tmp_path / "set_train.csv",
            folder_of(tmp_path / "none", "x.txt"),
            tmp_path / "t.csv",
        )


def test_what_cannot_be_read_or_written_is_said(tmp_path):
    annotations, videos = (
        written(tmp_path / "v.csv", VGGSOUND),
        folder_of(tmp_path / "videos", f"{ODD}.mp4"),
    )
    with pytest.raises(SourceError, match="there is no file"):
        table("vggsound", tmp_path / "nowhere.csv", videos, tmp_path / "t.csv")
    with pytest.raises(SourceError, match="there is no folder"):
        table("vggsound", annotations, tmp_path / "nowhere", tmp_path / "t.csv")
    for out in (folder_of(tmp_path / "folder.csv", "kept.txt"), tmp_path / "t.txt", annotations):
        with pytest.raises(ConfigError, match=r"name a new file whose name ends in \.csv"):
            table("vggsound", annotations, videos, out)
    assert (tmp_path / "folder.csv" / "kept.txt").exists()
    assert annotations.read_text() == VGGSOUND
    (tmp_path / "latin.csv").write_bytes(b"\xe9\xe8,30,rapping,train\n")
    with pytest.raises(SourceError, match="cannot be read as a CSV file"):
        table("vggsound", tmp_path / "latin.csv", videos, tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("o.json", "{"),
        ("o.json", '["Speech"]'),
        ("o.csv", "a,b\n"),
        ("o.csv", ""),
        ("o.csv", "mid,display_name\nx\n"),
        ("o.json", None),
    ],
)
def test_an_ontology_that_tells_no_names_is_said(tmp_path, file, text):
    ontology = tmp_path / file if text is None else written(tmp_path / file, text)
    with pytest.raises(SourceError, match=r"has no names of labels; use AudioSet's ontology\.json"):
        make(tmp_path, "audioset", AUDIOSET, [f"{ODD}.mp4"], ontology=ontology)


def test_the_shell_says_it_in_json_and_in_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "vggsound.csv", VGGSOUND)
    folder_of(tmp_path / "videos", f"{ODD}_000030.mp4")
    assert main(["table", "vggsound", "vggsound.csv", "videos", "table.csv"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == {
        "set": "vggsound",
        "rows": 2,
        "found": 1,
        "missing": 1,
        "left_out": 0,
        "videos": 1,
        "labels": 1,
        "table": "table.csv",
    }
    assert main(["table", "vggsound", "vggsound.csv", "videos", "table.csv", "--whole-videos"]) == 0
    assert lines({"table": "table.csv"})[0]["start_seconds"] == "30.0"
    capsys.readouterr()
    assert main(["table", "kinetics", "vggsound.csv", "videos", "table.csv"]) == 1
    wrong = capsys.readouterr()
    assert "lacks the column youtube_id" in re.sub(r"\s+", " ", wrong.err)
    assert wrong.out == ""


def test_the_shell_knows_every_set_and_every_list(capsys):
    with pytest.raises(SystemExit):
        main(["table", "--help"])
    printed = capsys.readouterr().out
    assert all(name in printed for name in [*ANNOTATION_FORMATS, *KINETICS_SOUNDS])
    assert set(ANNOTATION_FORMATS) == set(VideoSet.__args__)


def test_the_commands_of_the_page_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[1] / "docs" / "public-sets.md").read_text(encoding="utf-8")
    commands = [
        line.split()[1:] for line in page.splitlines() if line.startswith("looklisten table ")
    ]
    assert {command[1] for command in commands} == set(ANNOTATION_FORMATS)
    folder_of(tmp_path / "videos", f"{ODD}.mp4")
    for name, text in ONTOLOGIES.items():
        written(tmp_path / name, text)
    texts = {"vggsound": VGGSOUND, "audioset": AUDIOSET}
    for command in commands:
        written(
            tmp_path / command[2],
            texts.get(command[1], f"label,youtube_id,time_start,time_end\nbowling,{ODD},0,10\n"),
        )
        assert main(command) == 0, capsys.readouterr().err
        assert (tmp_path / command[4]).exists()
