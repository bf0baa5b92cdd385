"""The demo, small, from end to end, and its page in a real browser."""

import json
import shutil
from pathlib import Path

import pytest

from browser import addresses, failures, lengths, opened, picture_widths
from looklisten.app.demo import DemoOptions, demo
from looklisten.errors import ConfigError

STAGES = ("synth", "prepare", "train", "evaluate", "probe", "localize", "report")


@pytest.fixture(scope="module")
def finished_demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    options = DemoOptions(out, videos=60, seconds=1.5, steps=3, seed=0)
    return options, demo(options)


def test_results_have_all_figures(finished_demo):
    options, _ = finished_demo
    results = json.loads((options.out / "results.json").read_text())
    assert {"accuracy", "n_pairs", "ci95"} <= results["avc"].keys()
    assert results["avc"]["n_pairs"] >= 2000
    for side in ("audio", "vision"):
        assert {"accuracy", "untrained", "n"} <= results["probe"][side].keys()
    localization = results["localization"]
    assert {"pointing", "center", "n"} <= localization.keys()
    assert (
        localization["pointing"]
        == max(localization["methods"].values())
        == localization["methods"][localization["method"]]
    )
    assert set(results["units"]["units"]) == {"vision", "audio"}
    assert (options.out / "gallery.html").stat().st_size > 50_000
    rates = results["throughput"]
    assert rates["train_pairs_per_second"] == 2 * rates["train_videos_per_second"] > 0
    assert "prepare_x_realtime" in rates
    assert set(results["seconds"]) == set(STAGES)
    assert {"torch", "python", "cores", "precision"} <= results["environment"].keys()


def test_a_second_call_resumes(finished_demo, capsys):
    options, first = finished_demo
    resumed = demo(options)
    assert resumed["avc"] == first["avc"]
    assert resumed["probe"] == first["probe"]
    assert {k: v for k, v in resumed["seconds"].items() if k != "report"} == {
        k: v for k, v in first["seconds"].items() if k != "report"
    }
    assert "train: already done" in capsys.readouterr().err


def test_other_settings_need_fresh(finished_demo):
    options, _ = finished_demo
    with pytest.raises(ConfigError, match="holds a demo with other settings; add --fresh"):
        demo(DemoOptions(options.out, videos=60, seconds=1.5, steps=4, seed=0))


def test_the_page_works_in_a_browser(finished_demo, tmp_path):
    """It is one file: images and videos load without the network, and nothing fails."""
    page = tmp_path / "report.html"
    shutil.copy(finished_demo[0].out / "report.html", page)
    with opened(page, tmp_path) as browser:
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
    options = DemoOptions(tmp_path, videos=0, seconds=1.5, steps=1, seed=0)
    with pytest.raises(ConfigError, match="videos 0 must be at least 1"):
        demo(options, fresh=True)
    assert Path(tmp_path / "mine.txt").read_text() == "keep"
