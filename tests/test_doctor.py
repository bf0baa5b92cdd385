"""The doctor tells what is there, names what lacks and for what, and its exit code says the same."""

import json
import re
import shutil
import tomllib
from collections import namedtuple
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from looklisten.app import doctor as room
from looklisten.app.cli import main
from looklisten.app.doctor import CORE, DECODERS, ENCODERS, EXTRAS, NEEDED, doctor
from looklisten.app.output import emit

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def _roomy(monkeypatch):
    """Disk enough, whatever the machine has."""
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(10**13, 10**12, 9 * 10**12))


def examined(capsys):
    code = main(["doctor"])
    return code, json.loads(capsys.readouterr().out)


def test_where_all_is_there_it_is_ready(capsys):
    code, told = examined(capsys)
    assert (code, told["ready"], told["missing"]) == (0, True, [])
    assert told["versions"]["torch"] == version("torch")
    assert set(CORE) < told["versions"].keys()
    assert re.fullmatch(r"\d+\.\d+\.\d+", told["ffmpeg"]["libavcodec"])
    assert told["device"]["reason"]
    assert told["precision"]["value"] in ("float32", "bfloat16")
    assert told["cores"] >= 1
    assert told["disk_free_gigabytes"] == {"here": 9000.0, "temporary": 9000.0}
    assert {"h264", "aac", "opus", "mp3"} <= set(told["decoders"]["present"])
    assert sorted(told["decoders"]["present"] + told["decoders"]["missing"]) == sorted(DECODERS)
    assert told["encoders"] == {"present": list(ENCODERS), "missing": []}


@pytest.mark.parametrize("needed", NEEDED)
def test_a_codec_that_a_verb_needs_is_named_with_the_verb(needed, capsys, monkeypatch):
    name, kind = needed.split()
    mode, there = {"decoder": "r", "encoder": "w"}[kind], room.has_codec
    monkeypatch.setattr(
        room, "has_codec", lambda one, how: (one, how) != (name, mode) and there(one, how)
    )
    code, told = examined(capsys)
    assert (code, told["ready"]) == (1, False)
    (sentence,) = told["missing"]
    assert f"no {needed}, so {NEEDED[needed]}" in sentence
    assert "pip install" in sentence
    assert name in told[f"{kind}s"]["missing"]


def test_a_codec_that_few_files_need_is_told_and_no_trouble(capsys, monkeypatch):
    there = room.has_codec
    monkeypatch.setattr(
        room, "has_codec", lambda one, how: one not in ("vvc", *DECODERS["av1"]) and there(one, how)
    )
    code, told = examined(capsys)
    assert (code, told["decoders"]["missing"]) == (0, ["vvc", "av1"])


def test_codecs_are_asked_of_ffmpeg():
    assert room.has_codec("h264", "r")
    assert not room.has_codec("libx264", "r")
    assert not room.has_codec("no such codec", "r")
    assert NEEDED.keys() <= {f"{name} decoder" for name in DECODERS} | {
        f"{name} encoder" for name in ENCODERS
    }


def test_a_disk_nearly_full_is_said(capsys, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(10**10, 97 * 10**8, 3 * 10**8))
    code, told = examined(capsys)
    assert code == 1
    assert re.fullmatch(
        r"only 0\.3 GB are free in .*; prepare and train need more, .* work in another folder",
        *told["missing"],
    )


@pytest.mark.parametrize("package", CORE)
def test_a_package_that_does_not_load_is_said_with_its_own_words(package, capsys, monkeypatch):
    def load(name):
        if name == package:
            raise ImportError("libstdc++.so.6: version `GLIBCXX_3.4.30' not found\nmore")
        return import_module(name)

    monkeypatch.setattr(room.importlib, "import_module", load)
    code, told = examined(capsys)
    assert code == 1
    (sentence,) = told["missing"]
    assert sentence.startswith(
        f"{package} cannot be imported (ImportError: libstdc++.so.6: version `GLIBCXX_3.4.30' not found)"
    )
    assert (told["device"] is None) == (package == "torch")
    assert (not told["decoders"]["present"]) == (package == "av")


def test_extras_have_a_version_or_none_and_a_way_to_get_them(monkeypatch):
    def only_s3fs(name):
        if name == "s3fs":
            return "2026.1.0"
        raise PackageNotFoundError(name)

    monkeypatch.setattr(room, "version", only_s3fs)
    told = {extra["name"]: extra for extra in doctor()["extras"]}
    assert told.keys() == {extra.name for extra in EXTRAS}
    assert {name: extra["version"] for name, extra in told.items() if extra["version"]} == {
        "s3fs": "2026.1.0"
    }
    assert told["ray"]["how_to_get"] == "pip install 'looklisten[ray]'"
    assert all(extra["what_for"] for extra in told.values())


def test_what_is_said_of_extras_is_what_the_package_offers():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    for extra in EXTRAS:
        named = re.fullmatch(r"pip install 'looklisten\[(\w+)\]'", extra.how_to_get)
        offered = project["optional-dependencies"][named[1]] if named else project["dependencies"]
        assert any(re.match(rf"{extra.name}\b", requirement) for requirement in offered), extra.name


def test_memory_is_that_of_the_machine_or_unknown(monkeypatch):
    monkeypatch.setattr(
        Path,
        "read_text",
        lambda *_, **__: "MemTotal:  1000 kB\nMemFree: 1 kB\n\nHugePages_Total: 0\n",
    )
    assert room.memory_bytes() == {"total": 1_024_000, "available": None}

    def nothing(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", nothing)
    assert room.memory_bytes() == {"total": None, "available": None}


def test_the_table_is_for_people(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    emit(doctor(), as_json=False)
    rows = {
        re.split(r"\s{2,}", line.strip())[0]: line for line in capsys.readouterr().out.splitlines()
    }
    assert rows["ready"].split() == ["ready", "yes"]
    assert rows["missing"].split() == ["missing", "none"]
    assert "h264, hevc, vp8" in rows["decoders present"]
    assert "pip install 'looklisten[ray]'" in rows["extras ray"]
