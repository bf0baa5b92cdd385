"""The folder for files that can be made or downloaded again."""

import functools
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from looklisten.errors import ConfigError
from looklisten.system.devices import Choice

_log = logging.getLogger("looklisten")

NO_HOME = "this user has no home folder; set LOOKLISTEN_CACHE to a folder that outlasts a restart"
"""Why the cache is among temporary files."""


def listed_home() -> Path | None:
    """The home folder in the system's list of users; None if it lists none that exists."""
    try:
        # Windows has no `pwd`, and a container may list no such user.
        import pwd

        listed = Path(pwd.getpwuid(os.getuid()).pw_dir)
    except (ImportError, KeyError):
        return None
    return listed if listed.is_dir() else None


def choose_cache(
    environ: Mapping[str, str] | None = None,
    system: str = sys.platform,
    home: Callable[[], Path | None] = listed_home,
) -> Choice:
    """The folder for files that can be made or fetched again, and why. Creates nothing.

    `LOOKLISTEN_CACHE` names it. Otherwise it is `looklisten` in the user's cache folder:
    `XDG_CACHE_HOME`, or the usual one of the system in the user's home. `home` gives the home if
    the environment does not name it. A user without a home, as in some containers, gets a folder
    among the system's temporary files.
    """
    environ = os.environ if environ is None else environ
    if chosen := environ.get("LOOKLISTEN_CACHE"):
        return Choice(chosen, "LOOKLISTEN_CACHE names it")
    for variable in ("XDG_CACHE_HOME", *(("LOCALAPPDATA",) if system == "win32" else ())):
        if above := environ.get(variable):
            return Choice(str(Path(above) / "looklisten"), f"{variable} names the folder above")
    named = environ.get("USERPROFILE" if system == "win32" else "HOME")
    home_folder = Path(named) if named else home()
    if home_folder is None:
        # All users share the folder of temporary files, so the user is in the name.
        user = str(os.getuid()) if hasattr(os, "getuid") else environ.get("USERNAME", "user")
        return Choice(str(Path(tempfile.gettempdir()) / f"looklisten-{user}"), NO_HOME)
    below = {"darwin": "Library/Caches", "win32": "AppData/Local"}.get(system, ".cache")
    return Choice(str(home_folder / below / "looklisten"), "the user's cache folder")


def cache_folder(name: str = "") -> Path:
    """The folder `name` in the cache. Warns once if the cache is among temporary files."""
    chosen = choose_cache()
    if chosen.reason == NO_HOME:
        _warn_once(f"files are kept in {chosen.value}: {chosen.reason}")
    return Path(chosen.value) / name


@functools.cache
def _warn_once(message: str) -> None:
    _log.warning(message)


def writable_cache(name: str) -> Path:
    """`cache_folder(name)`, created if needed. Raises ConfigError if it cannot be written to."""
    folder = cache_folder(name)
    try:
        # Among temporary files other users could read it, or create it before us.
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # A trial, because permissions do not show that a file system is read-only.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(
            f"the cache {folder} cannot be written to ({error.strerror}); "
            "set LOOKLISTEN_CACHE to a folder of your own"
        ) from None
    return folder


def is_offline() -> bool:
    """Whether the environment variable `LOOKLISTEN_OFFLINE` forbids the network."""
    return os.environ.get("LOOKLISTEN_OFFLINE", "0") not in ("", "0")
