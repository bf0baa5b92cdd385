"""The page of `serve` in a real browser, on a real server with a small network."""

import json
import shutil
import time
from importlib.resources import files
from pathlib import Path

import pytest

import looklisten as ll
from browser import failures, opened, requests
from http_server import running_server

pytest.importorskip("selenium")
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

NETWORK = "untrained:tiny"
FLAGS = (
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)
VIEWS = [(width, scheme) for width in (390, 1280) for scheme in ("light", "dark")]
REAL_CLIPS = Path(__file__).parents[2] / "shared" / "media" / "real" / "videos"

# How many different colors a canvas holds, and all its pixels as one number.
CANVAS = """
const canvas = document.querySelector(arguments[0]);
const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
const colors = new Uint32Array(data.buffer);
return { colors: new Set(colors).size, sum: colors.reduce((sum, color) => (sum * 31 + color) % 1e9, 0) };
"""

# Show the frame at a time; the page has drawn its map when a turn of the window is over.
SEEK = """
const [seconds, done] = arguments;
const player = document.querySelector("#player");
player.addEventListener("seeked", () => requestAnimationFrame(() => setTimeout(done)), { once: true });
player.currentTime = seconds;
"""


@pytest.fixture(scope="module")
def clips(world):
    return sorted(world.glob("*.mp4"))[:6]


@pytest.fixture(scope="module")
def server(untrained_run, clips, tmp_path_factory):
    db = tmp_path_factory.mktemp("page") / "index"
    ll.index(clips[:5], db, untrained_run)
    with running_server(untrained_run, db) as started:
        yield started


@pytest.fixture(scope="module")
def browser(server, tmp_path_factory):
    with opened(server.address, tmp_path_factory.mktemp("chromium"), FLAGS) as started:
        yield started
        # Of all tests of this file, whatever they clicked.
        asked = [address for address in requests(started) if "://" in address]
        assert asked
        own = ("http://127.0.0.1:", "blob:http://127.0.0.1:")
        assert [address for address in asked if not address.startswith(own)] == []


def view(browser, width, scheme):
    """Show pages as a window of this width does, in light or dark."""
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def load(browser, address, width=1280, scheme="light"):
    """The page anew, when its examples are there."""
    failures(browser)
    view(browser, width, scheme)
    browser.get(address)
    until(browser, "document.querySelector('#examples button')")


def until(browser, expression, seconds=60):
    """What an expression of the page gives, as soon as it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = browser.execute_script(f"return {expression}")
        if value:
            return value
        time.sleep(0.02)
    shown = "return [...document.querySelectorAll('.status, .error')].map(each => each.textContent)"
    raise AssertionError(f"{expression} stays false; {browser.execute_script(shown)}")


def text(browser, selector):
    return browser.execute_script(
        "return document.querySelector(arguments[0]).textContent", selector
    )


def click(browser, selector):
    browser.find_element(By.CSS_SELECTOR, selector).click()


def click_button(browser, words, within="body"):
    """Click the first button with these words."""
    path = f".//button[contains(., '{words}')]"
    browser.find_element(By.CSS_SELECTOR, within).find_element(By.XPATH, path).click()


def upload(browser, path, selector="#clip-file"):
    browser.find_element(By.CSS_SELECTOR, selector).send_keys(str(path))


def canvas(browser, selector):
    return browser.execute_script(CANVAS, selector)


def is_shown(browser, selector):
    return browser.find_element(By.CSS_SELECTOR, selector).is_displayed()


def rounded(probability):
    return f"{round(100 * probability)} %"


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_a_clip_plays_with_its_map_and_is_scored_with_another_sound(
    server, browser, clips, width, scheme
):
    load(browser, server.address, width, scheme)
    upload(browser, clips[5])
    own = until(browser, "document.querySelector('#score b')?.textContent")
    assert own == rounded(server.client.score(clips[5]).probability)
    until(browser, "document.querySelector('#now').textContent")
    first = canvas(browser, "#frame-map")
    assert first["colors"] > 10
    boxes = browser.execute_script(
        "return ['#player', '#frame-map'].map(name => document.querySelector(name).getBoundingClientRect().toJSON())"
    )
    assert boxes[0] == boxes[1]
    assert boxes[0]["width"] > 300
    # Without this event, which comes four times a second, the map follows the frames alone.
    browser.execute_script(
        "addEventListener('timeupdate', event => event.stopImmediatePropagation(), true);"
        "document.querySelector('#player').play()"
    )
    until(browser, "document.querySelector('#player').currentTime > 0.8")
    assert canvas(browser, "#frame-map")["sum"] != first["sum"]
    assert float(browser.find_element(By.ID, "time").get_attribute("value")) > 0.5
    until(browser, "parseFloat(document.querySelector('#cursor').style.left) > 30")
    assert canvas(browser, "#spectrogram")["colors"] > 50
    click(browser, "#show-map")
    assert not is_shown(browser, "#frame-map")

    upload(browser, clips[1], "#compare-file")
    click(browser, "#compare button")
    line = until(browser, "document.querySelector('#comparisons li')?.textContent")
    pair = server.client.score_pair(clips[5], clips[1])
    assert line.startswith(f"{rounded(pair.probability)} with the sound of {clips[1].name}")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert failures(browser) == []


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_a_search_jumps_to_its_hit_and_two_clicks_teach_a_tag(
    server, browser, clips, width, scheme
):
    load(browser, server.address, width, scheme)
    click_button(browser, clips[2].name, "#examples")
    until(browser, "document.querySelector('#score b')")
    click(browser, "[name=by][value=second]")
    browser.execute_script("document.querySelector('#player').currentTime = 1.2")
    click(browser, "#weak")
    click(browser, "#search-form button")
    until(browser, "document.querySelectorAll('#hits li').length >= 5")
    wanted = server.client.search(clips[2], at_seconds=1.2, threshold=0).hits
    names = browser.execute_script(
        "return [...document.querySelectorAll('#hits h3')].map(h => h.textContent)"
    )
    assert [name.split(" (")[0] for name in names] == [hit.name for hit in wanted]
    until(browser, "document.querySelector('#hits canvas').width > 100")
    browser.execute_script(
        "document.addEventListener('seeking', event => { window.jump = event.target.currentTime; }, true)"
    )
    click_button(browser, "Play from 0:01", "#hits")
    until(browser, "document.querySelector('#hits video')?.currentTime > 1.1")
    assert browser.execute_script("return window.jump") == 1
    played = browser.find_element(By.CSS_SELECTOR, "#hits video").get_attribute("src")
    (hit,) = [hit for hit in wanted if played.endswith(f"/v1/media/{hit.media}")]
    assert hit.seconds == 1

    for mark in browser.find_elements(By.CSS_SELECTOR, "[data-key]")[:2]:
        mark.click()
    assert len(browser.find_elements(By.CSS_SELECTOR, "#marked button")) == 2
    browser.find_element(By.ID, "tag-name").send_keys("my knock")
    click(browser, "#tag-form button")
    until(browser, "document.querySelector('#own-tags li')")
    assert [tag_set.classes for tag_set in server.client.tags().sets] == [["my knock"]]
    until(browser, "document.querySelector('#hits').textContent.includes('my knock')")
    click_button(browser, "Remove my knock")
    browser.switch_to.alert.accept()
    until(browser, "!document.querySelector('#own-tags li')")
    assert server.client.tags().sets == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert failures(browser) == []


@pytest.mark.skipif(not REAL_CLIPS.is_dir(), reason="needs real clips")
@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
def test_a_real_clip_plays_with_its_map_over_it(server, browser, width, scheme):
    real = sorted(REAL_CLIPS.glob("*.mp4"))[0]
    load(browser, server.address, width, scheme)
    upload(browser, real)
    shown = until(browser, "document.querySelector('#score b')?.textContent")
    assert shown == rounded(server.client.score(real).probability)
    until(browser, "document.querySelector('#now').textContent")
    first = canvas(browser, "#frame-map")
    browser.execute_script("document.querySelector('#player').play()")
    until(browser, "document.querySelector('#player').currentTime > 1.2")
    assert canvas(browser, "#frame-map")["sum"] != first["sum"]
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert failures(browser) == []


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_files_are_added_to_the_index(server, browser, clips, tmp_path, width, scheme):
    load(browser, server.address, width, scheme)
    before = server.client.index().sources
    # A copy with another content, so that the index does not know it yet.
    new = tmp_path / f"new {width} {scheme}.mp4"
    shutil.copy(clips[5], new)
    with new.open("ab") as file:
        file.write(f"{width} {scheme}".encode())
    (tmp_path / "broken.mp4").write_bytes(b"no video at all" * 100)
    upload(browser, f"{new}\n{tmp_path / 'broken.mp4'}", "#add-files")
    assert text(browser, "#add-files-name") == "2 files"
    click(browser, "#add-form button.main")
    until(browser, "document.querySelectorAll('#added li').length == 2")
    lines = browser.execute_script(
        "return [...document.querySelectorAll('#added li')].map(line => line.textContent)"
    )
    assert lines[0].startswith(f"{new.name}: added, ")
    assert lines[1].startswith("broken.mp4 cannot be opened")
    assert server.client.index().sources == before + 1
    until(
        browser, f"document.querySelector('#index-size').textContent.includes('{before + 1} files')"
    )
    assert new.name in text(browser, "#compare-index")
    upload(browser, new, "#add-files")
    click(browser, "#add-form button.main")
    until(browser, "document.querySelector('#added').textContent.includes('has it already')")


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_units_are_shown_with_their_moments(server, browser, width, scheme):
    load(browser, server.address, width, scheme)
    click(browser, "#show-units")
    until(browser, "document.querySelectorAll('#unit-list li').length > 3")
    job = server.client.wait(server.client.units(), every_seconds=0.05)
    wanted = [unit["number"] for unit in job.result["units"] if unit["side"] == "vision"]
    shown = browser.execute_script(
        "return [...document.querySelectorAll('#unit-list h3')].map(each => each.textContent)"
    )
    assert shown == [f"Unit {number}" for number in wanted]
    assert canvas(browser, "#unit-list canvas")["colors"] > 1
    until(browser, "document.querySelector('#unit-list img').naturalWidth > 50")
    click(browser, "[name=unit-side][value=audio]")
    until(browser, "document.querySelector('#unit-list canvas.sound')")
    click(browser, "#unit-list .moments button")
    until(browser, "document.querySelector('#unit-list .playing')")
    # It plays one second of the moment.
    until(browser, "!document.querySelector('#unit-list .playing')")
    click(browser, "[name=unit-side][value=vision]")
    moment = job.result["units"][0]["moments"][0]
    click(browser, "#unit-list .moments button")
    until(browser, f"document.querySelector('#clip-name').textContent == '{moment['name']}'")
    until(browser, "document.querySelector('#now').textContent")
    at = browser.execute_script("return document.querySelector('#player').currentTime")
    assert at == pytest.approx(moment["seconds"], abs=0.05)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert failures(browser) == []


def test_nothing_serious_is_wrong_for_a_screen_reader(server, browser, clips):
    load(browser, server.address)
    click_button(browser, clips[0].name, "#examples")
    until(browser, "document.querySelector('#now').textContent")
    click(browser, "[name=by][value=clip]")
    click(browser, "#weak")
    click(browser, "#search-form button")
    until(browser, "document.querySelector('#hits li')")
    click(browser, "[data-key]")
    click(browser, "#tag-form button.main")
    click(browser, "#show-units")
    until(browser, "document.querySelector('#unit-list li')")
    browser.execute_script(files("axe_core_python").joinpath("axe.min.js").read_text("utf-8"))
    for width in (390, 1280):
        for scheme in ("light", "dark"):
            view(browser, width, scheme)
            found = browser.execute_async_script("axe.run().then(arguments[0])")
            serious = [
                each for each in found["violations"] if each["impact"] in ("serious", "critical")
            ]
            assert serious == [], json.dumps(serious, indent=1)[:2000]
            assert len(found["passes"]) > 20
    # An image without a name must be found, or the check checks nothing.
    browser.execute_script("document.querySelector('#hits img').removeAttribute('alt')")
    found = browser.execute_async_script("axe.run().then(arguments[0])")
    assert "image-alt" in [each["id"] for each in found["violations"]]


def test_the_keyboard_reaches_all_and_the_focus_is_seen(server, browser, clips):
    load(browser, server.address)
    assert "skip" in next(focused(browser))
    example = next(name for name in focused(browser) if clips[0].name in name)
    assert example.startswith("<button")
    ActionChains(browser).send_keys(Keys.ENTER).perform()
    until(browser, "document.querySelector('#now').textContent")
    assert "clip-name" in browser.execute_script("return document.activeElement.id")
    below = browser.execute_script(
        "return [...document.querySelectorAll('#opened, #search, footer')].flatMap("
        "part => [...part.querySelectorAll('a, button, input:not([type=radio]), select, video')])"
        ".filter(each => each.checkVisibility()).map(each => each.outerHTML)"
    )
    reached = set()
    for element in focused(browser):
        reached.add(element)
        if "openapi.json" in element:
            break
    assert len(below) > 10
    assert set(below) <= reached


def focused(browser):
    """What has the focus after each press of the key Tab; a hundred at most."""
    for _ in range(100):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        outline = "return getComputedStyle(document.activeElement).outlineStyle"
        # The controls inside of a player are the browser's own.
        assert browser.execute_script(outline) == "solid" or is_player(browser)
        yield browser.execute_script("return document.activeElement.outerHTML")


def is_player(browser):
    return browser.execute_script("return document.activeElement.id") == "player"


def test_nothing_is_asked_of_another_machine(server, browser, clips):
    requests(browser)
    load(browser, server.address)
    click_button(browser, clips[3].name, "#examples")
    until(browser, "document.querySelector('#now').textContent")
    click(browser, "[name=by][value=clip]")
    click(browser, "#search-form button")
    until(browser, "document.querySelector('#found').textContent")
    asked = requests(browser)
    assert any(address.endswith("/v1/localize") for address in asked)
    assert any(address.endswith("/static/page.css") for address in asked)
    own = (f"{server.address}/", f"blob:{server.address}/", "data:")
    assert [address for address in asked if not address.startswith(own)] == []
    # What the policy of the server stopped is an error on the page.
    assert failures(browser) == []


def test_without_motion_a_map_changes_in_steps(server, browser, clips):
    times = [
        each.at_seconds for each in server.client.localize(clips[0], every_seconds=0.25).moments
    ]
    span = times[2] - times[1]
    # Both are nearest to the same moment.
    earlier, later = times[1] + 0.6 * span, times[1] + 0.9 * span
    sums = {}
    for motion in ("no-preference", "reduce"):
        load(browser, server.address)
        feature = {"name": "prefers-reduced-motion", "value": motion}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        click_button(browser, clips[0].name, "#examples")
        until(browser, "document.querySelector('#now').textContent")
        for seconds in (earlier, later):
            browser.execute_async_script(SEEK, seconds)
            sums[motion, seconds] = canvas(browser, "#frame-map")["sum"]
    assert sums["reduce", earlier] == sums["reduce", later]
    assert sums["no-preference", earlier] != sums["no-preference", later]


def test_an_error_is_shown_as_the_sentence_of_the_server(server, browser, tmp_path):
    load(browser, server.address)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all" * 100)
    with broken.open("rb") as file:
        sentence = server.http.post("/v1/score", files={"file": file}).json()["error"]
    upload(browser, broken)
    shown = until(browser, "document.querySelector('#watch > .error').textContent")
    assert sentence.rstrip(".").lower() in shown.lower()
    assert is_shown(browser, "#not-playable")


def test_a_clip_is_recorded(server, browser):
    load(browser, server.address)
    click(browser, "#record")
    until(browser, "document.querySelector('#preview').currentTime > 1.5")
    click_button(browser, "Stop recording")
    until(browser, "document.querySelector('#score b')")
    assert text(browser, "#clip-name").startswith("recording.")
    until(browser, "document.querySelector('#now').textContent")
    assert canvas(browser, "#frame-map")["colors"] > 1


def test_a_server_with_a_token_and_without_an_index(untrained_run, browser, clips, tmp_path):
    token = tmp_path / "token"
    token.write_text("open sesame", encoding="utf-8")
    with running_server(untrained_run, token_file=token) as closed:
        browser.get(closed.address)
        until(browser, "document.querySelector('#watch > .error').textContent.includes('token')")
        browser.find_element(By.ID, "token").send_keys("open sesame")
        click(browser, "#token-form button")
        until(browser, "document.querySelector('#network').textContent")
        assert not is_shown(browser, "#token-form")
        assert is_shown(browser, "#no-index")
        assert not is_shown(browser, "#searching")
        upload(browser, clips[0])
        until(browser, "document.querySelector('#score b')")
