"""Planted units have the right moments and classes; the page works with a thousand units."""

import base64
import io
import json
import re

import av
import numpy as np
import pytest
import simplejpeg
import torch

from browser import addresses, failures, opened, picture_widths
from conftest import small_config
from looklisten.app.cli import main
from looklisten.app.pages.page import write_page
from looklisten.app.pages.unit_page import (
    best_units,
    map_levels,
    mp3,
    palette_bytes,
    scaled_map,
    write_unit_page,
)
from looklisten.config import SIDES, ModelConfig
from looklisten.data.clips import Box, Clip
from looklisten.data.shard_files import write_shards
from looklisten.data.shards import Shards
from looklisten.drawing.heatmap_colors import overlay_image
from looklisten.errors import ConfigError
from looklisten.evaluation.units import naming
from looklisten.evaluation.units.clustering import cluster
from looklisten.evaluation.units.naming import Unit, Units, units
from looklisten.inference.localization.records import HeatMap
from looklisten.inference.moments import embed_clips, look_and_listen
from looklisten.inference.unit_activations import (
    MomentAddress,
    StrongestVideos,
    UnitActivation,
)
from looklisten.interop.publish import save_pretrained
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.model.l3net import L3Net
from looklisten.model.networks import load, open_network

COLORS = {'<b>red</b> "q" </script>': (230, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 230)}
FIRST = next(iter(COLORS))
RED, LOUD = 3, 5
"""The planted units: of vision for red, of audio for what is loud."""
SMALL = ModelConfig(widths=(4, 8), front_end="compact", resize_pixels=64, crop_pixels=48)


def a_clip(number, video, label, start_seconds=0.0, seconds=1.6, **about):
    """A square of the label's color somewhere on gray, and a tone, the louder the redder."""
    rng = np.random.default_rng(number)
    frames = []
    for _ in range(4):
        picture = np.full((64, 80, 3), 120, np.uint8) + rng.integers(0, 20, (64, 80, 3)).astype(
            np.uint8
        )
        top, left = rng.integers(8, 40), rng.integers(12, 52)
        picture[top : top + 14, left : left + 14] = np.array(COLORS[label]) - rng.integers(0, 20, 3)
        frames.append(simplejpeg.encode_jpeg(picture, 95))
    loudness = 20_000 / 20 ** list(COLORS).index(label) * rng.uniform(0.7, 1)
    wave = (
        np.sin(np.arange(int(seconds * SAMPLE_RATE_HZ)) / rng.uniform(10, 60)) * loudness
    ).astype(np.int16)
    times = tuple(float(t) for t in np.arange(4) * seconds / 4)
    about = {
        "key": f"{video}@{start_seconds}",
        "video_id": video,
        "source": f"{video}.mp4",
        "labels": (label,),
    } | about
    return Clip(
        start_seconds=start_seconds,
        frame_seconds=times,
        frames=tuple(frames),
        waveform=wave,
        sample_rate_hz=SAMPLE_RATE_HZ,
        **about,
    )


def write_set(folder, clips):
    entries = write_shards(clips, folder, "clips-000000", 10**9)
    (folder / "index.json").write_text(json.dumps({"format": 1, "shards": entries}))
    return Shards(folder)


@pytest.fixture(scope="module")
def colored(tmp_path_factory):
    """Six videos a color of two clips each, which lie apart; three more to train on."""
    named = [(f"v{i}", list(COLORS)[i % 3]) for i in range(18)]
    clips = [
        a_clip(100 * part + i, *one, start_seconds=1.6 * part, split="test")
        for part in (0, 1)
        for i, one in enumerate(named)
    ]
    return write_set(
        tmp_path_factory.mktemp("colored"),
        [*clips, *(a_clip(900 + i, f"t{i}", "blue", split="train") for i in range(3))],
    )


@torch.no_grad()
def planted():
    """A random network but for two units that are followed from the input to the last layer."""
    torch.manual_seed(0)
    model = L3Net(SMALL).eval()
    for tower, unit, taps, lift in (
        (model.vision, RED, (1.0, -0.5, -0.5), 0.0),
        (model.audio, LOUD, (1.0,), 10.0),
    ):
        inputs, first = torch.tensor(taps), True
        for block in tower.blocks:
            for conv, norm in ((block.conv1, block.bn1), (block.conv2, block.bn2)):
                channel = unit % conv.out_channels
                conv.weight[channel] = 0
                conv.weight[channel, : len(inputs), 1, 1] = inputs
                norm.bias[channel] = lift if first else 0.0
                inputs, first = (
                    torch.nn.functional.one_hot(torch.tensor(channel), conv.out_channels).float(),
                    False,
                )
    return model


@pytest.fixture(scope="module")
def found(colored):
    return units(planted(), colored.select(colored.splits == "test"), top=3, per_clip=2)


def unit_of(found, side, number):
    return next(unit for unit in found.units if (unit.side, unit.number) == (side, number))


def test_a_planted_unit_is_found_and_named(found):
    for side, number in (("vision", RED), ("audio", LOUD)):
        unit = unit_of(found, side, number)
        assert (unit.preferred, unit.average_precision, unit.purity) == (FIRST, 1, 1)
        assert unit.strong
        assert len({activation.video_id for activation in unit.strongest}) == 3
        assert all(int(activation.video_id[1:]) % 3 == 0 for activation in unit.strongest)
        row = next(row for row in found.coverage if (row.side, row.network) == (side, "trained"))
        assert FIRST in row.covered
        assert (row.n, row.classes) == (18, 3)
    assert (found.as_dict()["videos"], found.as_dict()["clips"]) == (18, 36)


def test_the_vision_unit_is_active_on_the_square(colored, found):
    """Where the map has its maximum, the frame is red."""
    for activation in unit_of(found, "vision", RED).strongest:
        moment = activation.address.load(colored, SMALL)
        top, left = (moment.frame.shape[0] - 48) // 2, (moment.frame.shape[1] - 48) // 2
        x, y = activation.heat_map.peak()
        down, right = top + int(48 * y), left + int(48 * x)
        pixels = moment.frame[down - 1 : down + 1, right - 1 : right + 1].int()
        assert (pixels[..., 0] - pixels[..., 1:].amax(-1)).max() > 150, (
            "of the four pixels of that place"
        )


def test_top_moments_are_those_of_brute_force(colored, found):
    """Every moment's vector, every video's best, the highest three: the same videos, moments and
    values.
    """
    model, clips = planted(), [i for i in range(len(colored)) if colored.splits[i] == "test"]
    vectors = embed_clips(model, (colored[i] for i in clips), per_clip=2)
    owner, before = np.array(clips)[vectors.clips], {}
    for side in SIDES:
        for unit in found.of(side):
            best = {}
            for row, value in enumerate(getattr(vectors, side)[:, unit.number].tolist()):
                video = str(colored.video_ids[owner[row]])
                if value > best.get(video, (0.0,))[0]:
                    best[video] = (
                        value,
                        int(owner[row]),
                        row - int(np.flatnonzero(owner == owner[row])[0]),
                    )
            wanted = sorted(best.items(), key=lambda one: -one[1][0])[:3]
            result = [
                (one.video_id, (one.activation, one.address.clip, one.address.moment))
                for one in unit.strongest
            ]
            assert [video for video, _ in result] == [video for video, _ in wanted], unit.name
            for (_, measured_one), (_, wanted_one) in zip(result, wanted, strict=True):
                assert measured_one[0] == pytest.approx(wanted_one[0], rel=1e-4)
                assert measured_one[1:] == wanted_one[1:]
            before[unit.name] = len(result)
    assert max(before.values()) == 3


def test_the_maximum_of_a_map_is_the_activation_and_the_map_the_slice_of_its_moment(colored, found):
    model = planted()
    for unit in found.units[::3]:
        for activation in unit.strongest:
            assert activation.heat_map.values.max() == pytest.approx(
                activation.activation, rel=1e-4
            )
            moment = activation.address.load(colored, SMALL)
            with torch.inference_mode():
                tower = look_and_listen(model, [moment])[SIDES.index(unit.side)]
            assert np.allclose(activation.heat_map.values, tower.map[0, unit.number], atol=1e-4)
            inside = moment.frame_seconds if unit.side == "vision" else moment.start_seconds
            assert activation.at_seconds == moment.clip.start_seconds + inside


def test_strongest_is_sorted_keeps_the_first_of_equals_and_no_silence():
    strongest = StrongestVideos(units=2, top=2)
    for number, values in enumerate([(0.0, 1.0), (3.0, 2.0), (3.0, 0.5), (5.0, 2.0)]):
        strongest.add(np.array(values, np.float32), np.full(2, number))
    assert strongest.activations.tolist() == [[5, 3], [2, 2]]
    assert strongest.moments.tolist() == [[3, 1], [1, 3]]
    quiet = StrongestVideos(units=1, top=2)
    quiet.add(np.zeros(1, np.float32), np.array([7]))
    assert quiet.moments.tolist() == [[-1, -1]]


def test_counts_are_those_of_cluster_where_a_video_is_one_clip(run_path, shards, held_out):
    model = load(run_path)
    table = cluster(open_network(run_path), shards, kmeans_seeds=1)
    result = units(model, held_out)
    assert len(result.coverage) == 4
    for row in result.coverage:
        other = table.row(row.side, row.network)
        assert (row.covered, row.n) == (other.selective, other.n), row
    assert result.as_dict()["rows"][0]["paper_covered_of_34"] == 10


def test_videos_without_a_single_right_answer_are_left_out(tmp_path):
    other = (Box(0.0, 0, 0, 0.5, 0.5, "green", False),)
    one = write_set(
        tmp_path,
        [
            a_clip(0, "a", "blue"),
            a_clip(1, "b", "blue", boxes=other),
            a_clip(2, "c", "blue"),
            a_clip(3, "c", "green", start_seconds=2.0),
            a_clip(4, "d", "green"),
        ],
    )
    named = naming.videos_with_one_label(one, seed=0)
    assert named.class_of_video == {
        "vision": {"a": "blue", "d": "green"},
        "audio": {"a": "blue", "b": "blue", "d": "green"},
    }


def test_the_best_are_of_different_classes_first(colored):
    activation = UnitActivation(
        MomentAddress(0, 0, 1), "a", 0.0, 1.0, HeatMap(np.ones((2, 2), np.float32))
    )
    result = [("x", 0.9), ("x", 0.8), ("y", 0.5), ("z", 0.7)]
    some = Units(
        tuple(
            Unit("audio", i, (activation,), name, ap, 1.0) for i, (name, ap) in enumerate(result)
        ),
        (),
        colored,
    )
    assert [unit.number for unit in some.best("audio")] == [0, 3, 2, 1]
    assert some.best("vision") == []


def test_without_labels_units_are_numbers(colored, tmp_path):
    plain = [Clip(**vars(colored[i]) | {"labels": ()}) for i in range(4)]
    result = units(planted(), write_set(tmp_path, plain).select(np.ones(4, bool)))
    assert result.coverage == ()
    assert {unit.preferred for unit in result.units} == {""}
    assert (
        result.as_dict()["criterion"] == "no labels of at least two classes, so units are numbers"
    )
    for row in result.as_dict()["best_units"]:
        assert row.keys() == {"name", "activation"}, "no empty columns about classes"
    strengths = [unit.activation for unit in result.best("vision")]
    assert strengths == sorted(strengths, reverse=True)
    page = tmp_path / "gallery.html"
    write_unit_page(page, result, planted())
    with opened(page, tmp_path) as browser:
        assert browser.find_element("css selector", "article header b").text.split()[0] in SIDES
        assert not browser.find_elements("id", "coverage")
        assert not failures(browser)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"top": 0}, "top 0 must be at least 1"),
        ({"per_clip": -1}, "per_clip -1 must be at least 1"),
        ({"mask": False}, "no clip of .* is left; choose another split"),
    ],
)
def test_errors_of_units(options, sentence, colored):
    mask = np.full(len(colored), options.pop("mask", True))
    with pytest.raises(ConfigError, match=sentence):
        units(planted(), colored.select(mask), **options)


def test_sound_is_a_small_file_of_a_second():
    wave = (np.sin(np.arange(48_000) / 20) * 12_000).astype(np.int16)
    data = mp3(wave)
    assert len(data) < 8_000
    with av.open(io.BytesIO(data)) as container:
        heard = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert len(heard) == pytest.approx(48_000, abs=2_500)
    spectrum = np.abs(np.fft.rfft(heard))
    assert spectrum.argmax() / len(heard) * 48_000 == pytest.approx(
        48_000 / 20 / (2 * np.pi), abs=3
    )


def test_a_map_is_drawn_with_high_frequencies_above_and_in_shares_of_the_strongest():
    values = np.array([[4.0, 2.0], [0.0, 1.0]], np.float32)
    first, later = (
        UnitActivation(MomentAddress(0, 0, 1), "a", 0.0, strength, HeatMap(values * strength / 4))
        for strength in (4.0, 2.0)
    )
    assert scaled_map(first, Unit("vision", 0, (first, later))).tolist() == [[1, 0.5], [0, 0.25]]
    assert scaled_map(later, Unit("audio", 0, (first, later))).tolist() == [[0, 0.125], [0.5, 0.25]]


def test_a_map_keeps_its_peak_and_the_palette_paints_what_overlaid_paints():
    values = np.zeros((28, 20), np.float32)
    values[27, 3] = 1
    assert map_levels(values).shape == (16, 16)
    assert map_levels(values).max() == 255
    assert map_levels(values[:, :5]).shape == (16, 5)
    palette = np.frombuffer(palette_bytes(), np.uint8).reshape(256, 4) / 255
    rng = np.random.default_rng(0)
    ground, levels = rng.random((3, 4, 3)).astype(np.float32), rng.integers(0, 256, (3, 4))
    color, opacity = palette[levels][..., :3], palette[levels][..., 3:]
    wanted = overlay_image(ground, (levels / 255).astype(np.float32))
    assert np.allclose(ground * (1 - opacity) + color * opacity, wanted, atol=0.02)


@pytest.fixture(scope="module")
def page(colored, found, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "gallery.html"
    result = write_unit_page(out, found, planted())
    assert result["page_bytes"] == out.stat().st_size
    assert result["moments_shown"] == len(
        {activation.address for unit in found.units for activation in unit.strongest}
    )
    return out


CARDS = """
const cards = [...document.querySelectorAll('article:not([hidden])')];
return cards.map(card => [card.dataset.side, Number(card.dataset.number)]);
"""


def choose(browser, name, value):
    browser.execute_script(
        "const element = document.getElementById(arguments[0]); element.value = arguments[1];"
        "element.dispatchEvent(new Event('input'))",
        name,
        value,
    )
    return [tuple(card) for card in browser.execute_script(CARDS)]


def test_the_gallery_sorts_filters_and_searches(page, found, tmp_path):
    by_precision = sorted(
        found.units,
        key=lambda u: (
            -(-1 if u.average_precision is None else u.average_precision),
            -u.activation,
        ),
    )
    by_strength = sorted(found.units, key=lambda u: -u.activation)
    with opened(page, tmp_path) as browser:
        first = [tuple(card) for card in browser.execute_script(CARDS)]
        assert first == [(u.side, u.number) for u in by_precision]
        assert choose(browser, "sort", "activation") == [(u.side, u.number) for u in by_strength]
        assert choose(browser, "sort", "number") == [
            (side, number) for side in SIDES for number in range(8)
        ]
        named = choose(browser, "sort", "class")
        classes = [unit_of(found, *card).preferred for card in named]
        assert [
            name for name, before in zip(classes, [None, *classes], strict=False) if name != before
        ] == list(dict.fromkeys(classes))
        assert {side for side, _ in choose(browser, "side", "audio")} == {"audio"}
        wanted = {(u.side, u.number) for u in found.of("audio") if u.preferred == FIRST}
        assert set(choose(browser, "class", FIRST)) == wanted
        assert ("audio", LOUD) in wanted
        assert browser.find_element("id", "count").text == f"{len(wanted)} of 16 units"
        choose(browser, "side", "")
        choose(browser, "class", "")
        assert choose(browser, "search", " 7 ") == [card for card in named if card[1] == 7]
        assert choose(browser, "search", "AUDIO 5") == [("audio", 5)]
        video = unit_of(found, "vision", RED).strongest[0].video_id
        assert ("vision", RED) in choose(browser, "search", video)
        assert choose(browser, "search", "nowhere") == []
        choose(browser, "search", "")
        browser.find_element("id", "strong").click()
        assert {tuple(card) for card in browser.execute_script(CARDS)} == {
            (u.side, u.number) for u in found.units if u.strong
        }
        assert not failures(browser)


def until(browser, condition):
    """Waits for what becomes true on the page."""
    browser.execute_async_script(
        "const look = () => (%s) ? arguments[0]() : setTimeout(look, 20); look()" % condition  # noqa: UP031
    )


def played(browser, player):
    """Where a sound is once it is being played, and how long it is."""
    until(browser, f"document.querySelector('{player}').currentTime > 0.2")
    return browser.execute_script(
        f"const one = document.querySelector('{player}'); return [one.currentTime, one.duration]"
    )


def test_the_gallery_shows_and_plays_and_asks_nobody(page, found, tmp_path):
    with opened(page, tmp_path) as browser:
        choose(browser, "search", f"audio {LOUD}")
        card = browser.find_element("css selector", "article:not([hidden])")
        assert card.find_element("tag name", "b").text == FIRST, "labels are words, never markup"
        browser.set_script_timeout(20)
        until(browser, "document.images.length && [...document.images].every(i => i.complete)")
        widths, canvases = (
            picture_widths(browser),
            browser.execute_script(
                "return [...document.querySelectorAll('canvas')].map(c => c.width)"
            ),
        )
        assert set(widths) == {120}
        assert min(canvases) > 0
        assert addresses(browser) == {"data:"}
        card.find_element("css selector", "button").click()
        at, duration = played(browser, "#player")
        assert 0.2 < at <= duration == pytest.approx(1, abs=0.06)
        pixels = "const c = document.querySelector('article:not([hidden]) canvas'); return %s"
        brightest = browser.execute_script(
            pixels % "Math.max(...c.getContext('2d').getImageData(0, 0, c.width, c.height).data)"
        )
        assert brightest > 200
        assert (
            browser.execute_script(
                "const requests = performance.getEntriesByType('resource');"
                "return requests.filter(request => !request.name.startsWith('data:')).length"
            )
            == 0
        )
        assert not failures(browser)


def test_a_thousand_units_hold_the_pictures_in_view_alone(colored, tmp_path):
    rng = np.random.default_rng(0)

    def some(side, number):
        rows = tuple(
            UnitActivation(
                MomentAddress(int(clip), 0, 1),
                f"v{clip}",
                0.0,
                5.0 - rank,
                HeatMap(rng.random((28, 28)).astype(np.float32)),
            )
            for rank, clip in enumerate(rng.permutation(36)[:5])
        )
        return Unit(side, number, rows, "green", float(rng.random()), 0.5)

    many = Units(tuple(some(side, number) for side in SIDES for number in range(512)), (), colored)
    page = tmp_path / "gallery.html"
    write_unit_page(page, many, planted())
    with opened(page, tmp_path) as browser:
        assert len(browser.execute_script(CARDS)) == 1024
        filled = (
            "const cards = [...document.querySelectorAll('article')];"
            "return cards.map(card => card.querySelectorAll('img').length > 0)"
        )
        first, last = (
            f"document.querySelectorAll('article')[{number}].querySelector('img')"
            for number in (0, 1023)
        )
        until(browser, first)
        assert sum(browser.execute_script(filled)) < 100
        browser.execute_script("window.scrollTo(0, document.body.scrollHeight)")
        until(browser, f"{last} && !{first}")
        assert sum(browser.execute_script(filled)) < 100
        assert not failures(browser)


def test_the_best_as_a_piece_of_another_page(colored, found, tmp_path):
    piece = best_units(found, planted(), count=2)
    page = tmp_path / "piece.html"
    write_page(page, "page.html.j2")
    page.write_text(page.read_text().replace("</body>", f"{piece}</body>"))
    with opened(page, tmp_path) as browser:
        shown = browser.execute_script(
            "return [...document.querySelectorAll('.unit')].map(u => u.dataset.unit)"
        )
        assert shown == [unit.name for side in SIDES for unit in found.best(side, 2)]
        assert len(picture_widths(browser)) == 2 * 3 + 2 * 2 * 3
        assert min(picture_widths(browser)) == 120
        assert addresses(browser) == {"data:"}
        browser.find_element("css selector", ".unit button").click()
        assert played(browser, ".unit audio")[1] == pytest.approx(1, abs=0.06)
        assert not failures(browser)


def test_the_verb_searches_all_clips_where_none_were_held_out(
    run_path, shards_path, tmp_path, capsys
):
    recipe = tmp_path / "small.toml"
    recipe.write_text(small_config().toml(), encoding="utf-8")
    alone = save_pretrained(load(run_path), tmp_path / "alone")
    for name, videos in ((run_path, 12), (alone, 48), (f"untrained:{recipe}", 48)):
        out = tmp_path / "units.html"
        assert main(["units", str(name), str(shards_path), "-o", str(out), "--top", "1"]) == 0
        assert json.loads(capsys.readouterr().out)["videos"] == videos
        assert "The classes were not used in training." in out.read_text()


def test_the_verb_writes_the_page_and_says_the_counts(run_path, shards_path, tmp_path, capsys):
    out = tmp_path / "g.html"
    assert (
        main(
            [
                "units",
                str(run_path),
                str(shards_path),
                "-o",
                str(out),
                "--top",
                "2",
                "--split",
                "all",
            ]
        )
        == 0
    )
    result = json.loads(capsys.readouterr().out)
    assert result["units"] == {"vision": 16, "audio": 16}
    assert [(row["side"], row["network"]) for row in result["rows"]] == [
        (side, one) for side in SIDES for one in ("trained", "untrained")
    ]
    assert result["best_units"][0]["name"].startswith("vision ")
    assert (result["page"], result["videos"]) == (str(out), 48)
    data = json.loads(re.search(r'id="data">(.*?)</script>', out.read_text(), re.DOTALL)[1])
    assert len(data["units"]) == 32
    assert base64.b64decode(data["moments"][0]["frame"])[8:12] == b"WEBP"
    assert (
        main(
            [
                "units",
                str(run_path),
                str(shards_path),
                "--split",
                "tset",
                "-o",
                str(tmp_path / "x.html"),
            ]
        )
        == 1
    )
    assert "there is no split 'tset'" in re.sub(r"\s+", " ", capsys.readouterr().err)
    assert not (tmp_path / "x.html").exists()
