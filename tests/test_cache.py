"""The cache lies where the user or the system says, also for a user without a home, and what is
wrong with it is one sentence.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from looklisten.errors import ConfigError
from looklisten.system.cache import NO_HOME, choose_cache, writable_cache

HOME = {"HOME": "/home/a", "USERPROFILE": "/users/a"}


def nobody():
    return None


def not_asked():
    raise AssertionError("who names a folder needs no home")


@pytest.mark.parametrize(
    ("environ", "system", "folder"),
    [
        ({"LOOKLISTEN_CACHE": "/mine", "XDG_CACHE_HOME": "/xdg"}, "linux", "/mine"),
        ({"XDG_CACHE_HOME": "/xdg"}, "linux", "/xdg/looklisten"),
        ({"XDG_CACHE_HOME": "/xdg"}, "darwin", "/xdg/looklisten"),
        ({"LOCALAPPDATA": "/local"}, "win32", "/local/looklisten"),
        (HOME, "linux", "/home/a/.cache/looklisten"),
        (HOME, "darwin", "/home/a/Library/Caches/looklisten"),
        (HOME, "win32", "/users/a/AppData/Local/looklisten"),
    ],
)
def test_one_rule_for_all_systems(environ, system, folder):
    assert choose_cache(environ, system, not_asked).value == folder


@pytest.mark.parametrize("system", ["linux", "darwin", "win32"])
def test_without_a_home_it_lies_among_temporary_files_and_says_so(system):
    for environ in ({}, {"HOME": "", "USERPROFILE": ""}):
        chosen = choose_cache(environ, system, nobody)
        assert Path(chosen.value).parent == Path(tempfile.gettempdir())
        assert Path(chosen.value).name.startswith("looklisten-")
        assert chosen.reason == NO_HOME
        assert "set LOOKLISTEN_CACHE" in chosen.reason


def test_without_the_variable_the_list_of_users_knows_the_home():
    assert choose_cache({}, "linux", lambda: Path("/listed")).value == "/listed/.cache/looklisten"


def test_it_is_made_when_it_is_needed_and_for_the_user_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("LOOKLISTEN_CACHE", str(tmp_path / "new"))
    folder = writable_cache("probe")
    assert folder == tmp_path / "new" / "probe"
    assert list(folder.iterdir()) == []
    assert folder.stat().st_mode & 0o077 == 0


def test_one_that_cannot_be_written_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("LOOKLISTEN_CACHE", str(tmp_path / "file"))
    with pytest.raises(
        ConfigError,
        match=r"file/probe cannot be written to \(Not a directory\); set LOOKLISTEN_CACHE",
    ):
        writable_cache("probe")


STRANGER = """
import logging, os
from looklisten.system.cache import cache_folder
logging.basicConfig(format="%(message)s")
os.environ.pop("HOME", None)
os.setgid(54_321)
os.setuid(54_321)
print(cache_folder("probe"))
cache_folder("openl3")
"""


@pytest.mark.skipif(
    not hasattr(os, "getuid") or os.getuid() != 0, reason="only root may become another user"
)
def test_a_user_without_a_home_is_warned_once():
    """A number without a name, as containers give it."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("LOOKLISTEN_CACHE", "XDG_CACHE_HOME")
    }
    done = subprocess.run(
        [sys.executable, "-c", STRANGER], env=kept, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == Path(tempfile.gettempdir()) / "looklisten-54321" / "probe"
    assert done.stderr.count("this user has no home folder") == 1
