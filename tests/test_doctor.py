"""`doctor` reports what is present and what is missing for which verb; so does its exit code."""

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from looklisten.app.cli import main
from looklisten.app.doctor import (
    CORE_PACKAGES,
    DECODERS,
    ENCODERS,
    NEEDED_CODECS,
    OPTIONAL_PACKAGES,
    Installation,
    doctor,
    has_codec,
    memory_bytes,
)
from looklisten.app.output import emit
from looklisten.model.published_weights import WEIGHTS_MIRROR_VARIABLE


def large_disk(folder):
    """Enough free disk, whatever the machine has."""
    return 9 * 10**12


def doctor_of(**about):
    """The report of a machine that differs from this one."""
    return doctor(Installation(**{"free_bytes": large_disk} | about))


def test_a_complete_installation_is_ready(capsys):
    assert main(["doctor"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["ready"], report["missing"]) == (True, [])
    assert report.keys() == doctor_of().keys()
    assert report["versions"]["torch"] == version("torch")
    assert set(CORE_PACKAGES) < report["versions"].keys()
    assert re.fullmatch(r"\d+\.\d+\.\d+", report["ffmpeg"]["libavcodec"])
    assert report["device"]["reason"]
    assert report["precision"]["value"] in ("float32", "bfloat16")
    assert report["cores"] >= 1
    assert report["disk_free_gigabytes"]["here"] > 1
    assert doctor_of()["disk_free_gigabytes"] == {"here": 9000.0, "temporary": 9000.0}
    assert {"h264", "aac", "opus", "mp3"} <= set(report["decoders"]["present"])
    assert sorted(report["decoders"]["present"] + report["decoders"]["missing"]) == sorted(DECODERS)
    assert report["encoders"] == {"present": list(ENCODERS), "missing": []}


def test_it_says_whether_the_towers_of_start_are_here(tmp_path, monkeypatch):
    monkeypatch.setenv("LOOKLISTEN_CACHE", str(tmp_path))
    monkeypatch.setenv(WEIGHTS_MIRROR_VARIABLE, "https://mirror.example/weights")
    towers = doctor_of()["start"]
    assert [tower["tower"] for tower in towers] == ["efficientnet-lite0", "yamnet"]
    assert 20 < sum(tower["megabytes"] for tower in towers) < 25
    for tower in towers:
        assert tower["state"] == "will be downloaded once, from https://mirror.example/weights"
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "yamnet.tflite").touch()
    monkeypatch.setenv(WEIGHTS_MIRROR_VARIABLE, str(tmp_path / "mirror"))
    first, second = doctor_of()["start"]
    assert first["state"] == f"is missing in {tmp_path / 'mirror'}"
    assert second["state"] == "is here"


@pytest.mark.parametrize("needed", NEEDED_CODECS)
def test_a_missing_codec_is_named_with_the_verbs_that_need_it(needed):
    name, kind = needed.split()
    mode = {"decoder": "r", "encoder": "w"}[kind]
    report = doctor_of(
        has_codec=lambda codec, use: (codec, use) != (name, mode) and has_codec(codec, use)
    )
    assert not report["ready"]
    (sentence,) = report["missing"]
    assert f"no {needed}, so {NEEDED_CODECS[needed]}" in sentence
    assert "pip install" in sentence
    assert name in report[f"{kind}s"]["missing"]


def test_a_missing_codec_that_no_verb_needs_is_no_error():
    absent = ("vvc", *DECODERS["av1"])
    report = doctor_of(has_codec=lambda codec, use: codec not in absent and has_codec(codec, use))
    assert (report["ready"], report["decoders"]["missing"]) == (True, ["vvc", "av1"])


def test_codecs_are_looked_up_in_ffmpeg():
    assert has_codec("h264", "r")
    assert not has_codec("libx264", "r")
    assert not has_codec("no such codec", "r")
    assert NEEDED_CODECS.keys() <= {f"{name} decoder" for name in DECODERS} | {
        f"{name} encoder" for name in ENCODERS
    }


def test_a_nearly_full_disk_is_reported():
    report = doctor_of(free_bytes=lambda folder: 3 * 10**8)
    assert not report["ready"]
    assert re.fullmatch(
        r"only 0\.3 GB are free in .*; prepare and train need more, .* work in another folder",
        *report["missing"],
    )


@pytest.mark.parametrize("package", CORE_PACKAGES)
def test_a_package_that_does_not_load_is_reported_with_its_error(package):
    def load(name):
        if name == package:
            raise ImportError("libstdc++.so.6: version `GLIBCXX_3.4.30' not found\nmore")
        return import_module(name)

    report = doctor_of(import_package=load)
    assert not report["ready"]
    (sentence,) = report["missing"]
    assert sentence.startswith(
        f"{package} cannot be imported "
        "(ImportError: libstdc++.so.6: version `GLIBCXX_3.4.30' not found)"
    )
    assert (report["device"] is None) == (package == "torch")
    assert (not report["decoders"]["present"]) == (package == "av")


def test_the_exit_code_is_1_where_a_package_does_not_load(tmp_path):
    """A package with compiled parts, in a process that finds a broken one first."""
    (tmp_path / "soxr.py").write_text("raise ImportError('no libsoxr')")
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.run(
        [sys.executable, "-m", "looklisten", "doctor"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    )
    assert process.returncode == 1, process.stderr
    assert "soxr cannot be imported (ImportError: no libsoxr)" in process.stdout


def test_optional_packages_have_a_version_or_none_and_an_installation():
    def only_s3fs(name):
        if name == "s3fs":
            return "2026.1.0"
        raise PackageNotFoundError(name)

    packages = doctor_of(version_of=only_s3fs)["optional_packages"]
    report = {package["name"]: package for package in packages}
    assert report.keys() == {package.name for package in OPTIONAL_PACKAGES}
    assert {name: package["version"] for name, package in report.items() if package["version"]} == {
        "s3fs": "2026.1.0"
    }
    assert report["ray"]["installation"] == "pip install 'looklisten[ray]'"
    assert all(package["purpose"] for package in report.values())


def test_installations_of_optional_packages_agree_with_pyproject():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    for package in OPTIONAL_PACKAGES:
        named = re.fullmatch(r"pip install 'looklisten\[(\w+)\]'", package.installation)
        offered = project["optional-dependencies"][named[1]] if named else project["dependencies"]
        assert any(re.match(rf"{package.name}\b", requirement) for requirement in offered), (
            package.name
        )


def test_memory_is_read_from_proc_or_unknown(tmp_path):
    meminfo = tmp_path / "meminfo"
    assert memory_bytes(meminfo) == {"total": None, "available": None}
    meminfo.write_text("MemTotal:  1000 kB\nMemFree: 1 kB\n\nHugePages_Total: 0\n")
    assert memory_bytes(meminfo) == {"total": 1_024_000, "available": None}


def test_the_report_as_a_table(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    emit(doctor_of(), as_json=False)
    rows = {
        re.split(r"\s{2,}", line.strip())[0]: line for line in capsys.readouterr().out.splitlines()
    }
    assert rows["ready"].split() == ["ready", "yes"]
    assert rows["missing"].split() == ["missing", "none"]
    assert "h264, hevc, vp8" in rows["decoders present"]
    assert "pip install 'looklisten[ray]'" in rows["ray"]
