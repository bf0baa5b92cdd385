"""The demo, small, from end to end, and its page in a real browser."""

import json
import shutil
from pathlib import Path

import pytest

from browser import addresses, failures, lengths, opened, picture_widths
from looklisten.app import demo
from looklisten.app.demo import Plan
from looklisten.errors import ConfigError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    plan = Plan(out, videos=60, seconds=1.5, steps=3, seed=0)
    return plan, demo.run(plan)


def test_results_have_the_promised_shape(made):
    plan, _ = made
    results = json.loads((plan.out / "results.json").read_text())
    assert {"accuracy", "n_pairs", "ci95"} <= results["avc"].keys()
    assert results["avc"]["n_pairs"] >= 2000
    for side in ("audio", "vision"):
        assert {"accuracy", "untrained", "n"} <= results["probe"][side].keys()
    place = results["localization"]
    assert {"pointing", "center", "n"} <= place.keys()
    assert place["pointing"] == max(place["methods"].values()) == place["methods"][place["method"]]
    assert set(results["units"]["units"]) == {"vision", "audio"}
    assert (plan.out / "gallery.html").stat().st_size > 50_000
    assert {"prepare_x_realtime", "train_pairs_per_second"} <= results["throughput"].keys()
    assert set(results["seconds"]) == set(demo.STAGES)
    assert {"torch", "python", "cores", "precision"} <= results["environment"].keys()


def test_run_again_it_resumes_what_is_there(made, capsys):
    plan, first = made
    again = demo.run(plan)
    assert again["avc"] == first["avc"]
    assert again["probe"] == first["probe"]
    assert {k: v for k, v in again["seconds"].items() if k != "report"} == {
        k: v for k, v in first["seconds"].items() if k != "report"
    }
    assert "train: done before" in capsys.readouterr().err


def test_other_settings_need_fresh(made):
    plan, _ = made
    with pytest.raises(ConfigError, match="holds a demo of other settings; add --fresh"):
        demo.run(Plan(plan.out, videos=60, seconds=1.5, steps=4, seed=0))


def test_the_page_works_in_a_browser(made, tmp_path):
    """One file, no network: every picture is drawn, every video can play, nothing is asked from
    elsewhere, nothing fails.
    """
    alone = tmp_path / "report.html"
    shutil.copy(made[0].out / "report.html", alone)
    with opened(alone, tmp_path) as browser:
        videos, pictures, links = (
            lengths(browser, "video"),
            picture_widths(browser),
            addresses(browser),
        )
        text = browser.find_element("tag name", "body").text
        errors = failures(browser)
    assert len(pictures) >= 12 * 3 + 1 + 2 * 4
    assert min(pictures) > 100
    assert len(videos) == 4
    assert min(videos) == pytest.approx(1.5, abs=0.1)
    assert links == {"data:"}
    assert not errors
    for heading in (
        "Results",
        "Twelve moments",
        "Units that prefer a class",
        "Training",
        "Stages",
    ):
        assert heading in text


def test_fresh_removes_only_what_the_demo_made(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "plan.json").write_text("{}")
    plan = Plan(tmp_path, videos=0, seconds=1.5, steps=1, seed=0)
    with pytest.raises(ConfigError, match="at least 1 video"):
        demo.run(plan, fresh=True)
    assert Path(tmp_path / "mine.txt").read_text() == "keep"
