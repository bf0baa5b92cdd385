"""The demo, small, from end to end, and its page in a real browser."""

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from browser import addresses, failures, lengths, opened, picture_widths
from looklisten.app.demo import DemoOptions, demo
from looklisten.app.demo_time import DemoTime, measure_demo_time
from looklisten.errors import ConfigError

STAGES = ("synth", "prepare", "train", "evaluate", "probe", "localize", "search", "report")


@pytest.fixture(scope="module")
def finished_demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    options = DemoOptions(out, videos=60, seconds=1.5, steps=3, seed=0)
    return options, demo(options)


def test_results_have_all_figures(finished_demo):
    options, _ = finished_demo
    results = json.loads((options.out / "results.json").read_text())
    assert {"accuracy", "n_pairs", "ci95"} <= results["avc"].keys()
    # Two for each of the 8 frames of 12 held-out videos.
    assert results["avc"]["n_pairs"] == 2 * 8 * 12
    for side in ("audio", "vision"):
        assert {"accuracy", "untrained", "n"} <= results["probe"][side].keys()
    localization = results["localization"]
    assert {"pointing", "center", "n"} <= localization.keys()
    assert localization["method"] == "similarity"
    for direction in results["search"]["directions"]:
        assert direction["videos"] == 12
        assert direction["recall@10_chance"] == pytest.approx(10 / 12, abs=1e-4)
        assert "label_precision@10" in direction
    searches = results["search"]["searches"]
    assert len(searches) == 6
    for search in searches:
        similarities = [frame["similarity"] for frame in search["frames"]]
        assert similarities == sorted(similarities, reverse=True)
        assert len({frame["clip"] for frame in search["frames"]}) == 5
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


def test_a_training_that_was_stopped_is_not_taken_for_a_finished_one(finished_demo, tmp_path):
    options, _ = finished_demo
    for name in ("videos", "shards"):
        shutil.copytree(options.out / name, tmp_path / name)
    (tmp_path / "stages").mkdir()
    for name in ("synth.json", "prepare.json"):
        shutil.copy(options.out / "stages" / name, tmp_path / "stages" / name)
    command = [sys.executable, "-m", "looklisten", "demo", str(tmp_path)]
    command += ["--videos", "60", "--seconds", "1.5", "--steps", "100000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    # From here on training handles signals.
    while not (tmp_path / "run" / "config.toml").exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, log = process.communicate(timeout=120)
    assert process.returncode == 130, log
    assert "for training" in log
    assert "for making the videos" not in log
    assert "s of a core" not in log
    assert not (tmp_path / "stages" / "train.json").exists()


def test_the_expected_time_follows_from_a_video_and_a_step():
    options = DemoOptions(Path("demo"), videos=60, seconds=1.5, steps=1000, seed=0)
    time_here = DemoTime(options.world, steps=1000, workers=2, video_seconds=0.2, step_seconds=0.3)
    assert time_here.training_seconds == pytest.approx(300)
    assert replace(time_here, workers=1).making_seconds == 2 * time_here.making_seconds
    assert "5 min for training" in time_here.sentence()
    assert "a training step takes 0.30 s, a video 0.20 s of a core" in time_here.sentence()
    left = replace(time_here, video_seconds=None)
    assert left.making_seconds == 0
    assert "videos" not in left.sentence()
    small_batches = options.config.changed("train", batch_size=4)
    measured = measure_demo_time(options.world, small_batches, workers=2)
    assert (measured.steps, measured.workers) == (1000, 2)
    assert measured.video_seconds > 0.001
    assert measured.step_seconds > 0.001


def test_other_settings_need_fresh(finished_demo):
    options, _ = finished_demo
    message = r"holds a demo with other settings \(.*train\.steps was 3 and is 4.*\); add --fresh"
    with pytest.raises(ConfigError, match=message):
        demo(DemoOptions(options.out, videos=60, seconds=1.5, steps=4, seed=0))
    with pytest.raises(ConfigError, match=r"\(videos was 60 and is 61\)"):
        demo(DemoOptions(options.out, videos=61, seconds=1.5, steps=3, seed=0))


def test_a_setting_that_a_demo_of_an_older_version_lacks_has_its_default(finished_demo):
    options, results = finished_demo
    path = options.out / "stages" / "plan.json"
    plan = path.read_text(encoding="utf-8")
    lacking = json.loads(plan)
    assert lacking["config"]["train"].pop("accumulate") == 1
    path.write_text(json.dumps(lacking), encoding="utf-8")
    assert demo(options)["avc"] == results["avc"]
    assert json.loads(path.read_text(encoding="utf-8")) == json.loads(plan)


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
    assert len(pictures) >= 12 * 3 + 6 * 6 + 1 + 2 * 4
    assert min(pictures) > 100
    assert len(videos) == 4
    assert min(videos) == pytest.approx(1.5, abs=0.1)
    assert links == {"data:"}
    assert not errors
    for heading in (
        "Results",
        "Twelve moments",
        "Search: frames that a sound finds",
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
