"""Names of files survive storing, whatever their bytes; words for splits mean one of three."""

import json
import os

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from looklisten.names import (
    decode_name,
    encode_name,
    normalize_split,
    parse_split,
    printable,
    without_surrogates,
)

BYTES = st.binary(min_size=1).filter(lambda raw: 0 not in raw)


@given(raw=BYTES)
def test_a_stored_name_opens_the_same_bytes_and_every_format_holds_it(raw):
    stored = encode_name(os.fsdecode(raw))
    assert os.fsencode(decode_name(stored)) == raw
    assert stored.encode("utf-8").decode() == stored
    assert pa.array([stored], pa.string())[0].as_py() == stored


@given(one=BYTES, other=BYTES)
def test_two_names_are_never_stored_as_one(one, other):
    assert (encode_name(os.fsdecode(one)) == encode_name(os.fsdecode(other))) == (one == other)


def test_usual_names_stay_as_they_are():
    for name in ("a.mp4", "é ü.mp4", "a\\b.mp4", "日本.mkv"):
        assert encode_name(name) == name
    assert encode_name(os.fsdecode(b"caf\xe9.mp4")) == "caf\\xe9.mp4"
    assert encode_name("caf\\xe9.mp4") == "caf\\x5cxe9.mp4"


def test_a_name_that_no_file_can_have_is_still_text():
    assert json.dumps(encode_name("a\ud800.mp4"), ensure_ascii=False).encode()


@given(text=st.text(st.characters()))
def test_text_without_surrogates_is_unicode_and_unicode_stays(text):
    shown = without_surrogates(text)
    assert shown.encode().decode() == shown
    if not any("\ud800" <= letter <= "\udfff" for letter in text):
        assert shown == text


def test_a_shown_name_is_one_line_without_control_characters():
    assert printable("a\nb\tc\x1b[31m.mp4") == "a\\nb\\tc\\x1b[31m.mp4"


def test_usual_words_for_splits():
    for split, words in {
        "train": "train TRAIN Training tr",
        "val": "val valid Validation dev",
        "test": "test Testing eval",
    }.items():
        assert {parse_split(word) for word in words.split()} == {split}
    assert parse_split("fold1") == ""
    assert normalize_split(" fold1 ") == "fold1"
