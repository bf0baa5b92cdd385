"""A page in a real browser, without a screen and without a network."""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)

LENGTHS = """
const done = arguments[1];
const seconds = media => media.readyState >= 1 ? media.duration : new Promise(resolve => {
  media.onloadedmetadata = () => resolve(media.duration);
  media.onerror = () => resolve(-1);
  media.load();
});
Promise.all([...document.querySelectorAll(arguments[0])].map(seconds)).then(done);
"""


@contextmanager
def opened(page: Path | str, folder: Path, flags: Sequence[str] = ()) -> Iterator[Any]:
    """Chromium with `page`, a file or an address, its profile in `folder`; skips without one."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("needs chromium and chromedriver")
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = chromium
    for flag in [*FLAGS, *flags, f"--user-data-dir={folder / 'profile'}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(driver))
    try:
        browser.set_script_timeout(30)
        browser.get(page.as_uri() if isinstance(page, Path) else page)
        yield browser
    finally:
        browser.quit()


def lengths(browser: Any, tag: str) -> list[float]:
    """The seconds that each `video` or `audio` of the page plays; -1 for one that cannot."""
    return list(browser.execute_async_script(LENGTHS, tag))


def picture_widths(browser: Any) -> list[int]:
    """The pixels across of each picture; 0 for one that is not drawn."""
    return list(
        browser.execute_script(
            "return [...document.images].map(i => i.complete ? i.naturalWidth : 0)"
        )
    )


def addresses(browser: Any) -> set[str]:
    """How the addresses begin that the page takes anything from."""
    return set(
        browser.execute_script(
            "const elements = [...document.querySelectorAll('[src],[href]')];"
            "return elements.map(element => (element.src || element.href).slice(0, 5))"
        )
    )


def requests(browser: Any) -> list[str]:
    """The addresses that the browser asked for since the last call, of all its pages."""
    entries = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [
        entry["params"]["request"]["url"]
        for entry in entries
        if entry["method"] == "Network.requestWillBeSent"
    ]


def failures(browser: Any) -> list[dict[str, Any]]:
    """What went wrong on the page so far."""
    return [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
