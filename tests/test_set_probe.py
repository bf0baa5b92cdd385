"""The paper's protocol on sets as their owners lay them out: 100 % for who knows, chance for who
does not, no look at a tested fold.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.svm import LinearSVC

from conftest import small_config
from looklisten.app.cli import main
from looklisten.config import ModelConfig
from looklisten.errors import ConfigError
from looklisten.evaluation.linear_probe import features
from looklisten.evaluation.linear_probe import vector_cache as kept_vectors
from looklisten.evaluation.linear_probe.audio import clip_statistics, loop, sound_vectors, sub_clips
from looklisten.evaluation.linear_probe.baselines import contenders
from looklisten.evaluation.linear_probe.crossvalidation import LOGISTIC, SVM, Classifier, Folds
from looklisten.evaluation.linear_probe.features import Extractor, network_extractor
from looklisten.evaluation.linear_probe.options import ProbeOptions
from looklisten.evaluation.linear_probe.public_sets import probe_labeled_set, probe_sounds
from looklisten.evaluation.linear_probe.svm import COSTS, svm_scores
from looklisten.evaluation.linear_probe.vector_cache import Store
from looklisten.evaluation.sets.registry import open_labeled_set
from looklisten.evaluation.untrained import set_batch_norm
from looklisten.inference.encoder import encoder_of
from looklisten.model.checkpoint import open_checkpoint
from looklisten.model.l3net import L3Net
from looklisten.system.devices import Choice
from test_benchmarks import esc_rows, write_table, write_wave

CLASSES = 4


@pytest.fixture(autouse=True)
def _threads():
    """One thread: the products here are small, and two that wait for each other on a busy machine
    take minutes for them.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def esc(tmp_path_factory):
    """ESC-50's layout, smaller: 4 classes, 5 folds, 3 clips each; the loudness of a clip says its
    class and nothing else does.
    """
    root = tmp_path_factory.mktemp("esc")
    rng = np.random.default_rng(0)
    rows = [
        row
        | {
            "filename": f"{take}-{row['filename']}".replace(
                f"{take}-{row['fold']}", f"{row['fold']}-{take}"
            )
        }
        for take in range(3)
        for row in esc_rows(CLASSES)
    ]
    write_table(root / "meta" / "esc50.csv", rows)
    for row in rows:
        write_wave(
            root / "audio" / row["filename"], loud(rng, row["target"], rng.uniform(0.7, 1.6))
        )
    return root


@pytest.fixture(scope="module")
def benchmark(esc):
    return open_labeled_set("esc50", esc, partial=True)


def loud(rng, level, seconds):
    return rng.uniform(-1, 1, int(48_000 * seconds)) * (0.2 + 0.2 * level)


@pytest.fixture(scope="module", params=["esc10", "dcase2013", "urbansound8k"])
def other(request, tmp_path_factory):
    """The other public sets of sounds in their owners' layouts, smaller and as in `esc`: the set,
    its clips, its tested folds.
    """
    root, rng = tmp_path_factory.mktemp(request.param), np.random.default_rng(0)
    if request.param == "esc10":
        for kind, title in enumerate(("Dog bark", "Rain", "Sea waves", "Baby cry")):
            for fold in range(1, 6):
                write_wave(
                    root / f"{kind + 1:03d} - {title}" / f"{fold}-10{kind}-A.wav",
                    loud(rng, kind, 1.2),
                )
    elif request.param == "dcase2013":
        for part in ("scenes_stereo", "scenes_stereo_testset"):
            for kind, scene in enumerate(("bus", "office", "park", "tube")):
                for number in range(1, 6):
                    write_wave(root / part / f"{scene}{number:02d}.wav", loud(rng, kind, 1.2))
    else:
        rows = [
            {
                "slice_file_name": f"{fold}-{kind}-0-0.wav",
                "fsID": fold,
                "start": 0.0,
                "end": 4.0,
                "salience": 1,
                "fold": fold,
            }
            | {"classID": kind, "class": ("siren", "drilling", "dog_bark", "jackhammer")[kind]}
            for fold in range(1, 11)
            for kind in range(CLASSES)
        ]
        write_table(root / "metadata" / "UrbanSound8K.csv", rows)
        for row in rows:
            write_wave(
                root / "audio" / f"fold{row['fold']}" / row["slice_file_name"],
                loud(rng, row["classID"], 0.8),
            )
    found = open_labeled_set(request.param, root, partial=True)
    return found, *{"esc10": (20, 5), "dcase2013": (40, 1), "urbansound8k": (40, 10)}[request.param]


def oracle(waveforms):
    """The class from the loudness, one number a class."""
    loudness = waveforms.abs().amax(1, keepdim=True)
    return -(loudness - (0.2 + 0.2 * torch.arange(CLASSES))).abs()


def test_an_oracle_is_always_right(benchmark):
    table = probe_sounds(benchmark, [Extractor("oracle", oracle, CLASSES)])
    assert (table.rows[0].accuracy, table.rows[0].folds) == (1, (1.0,) * 5)
    assert (table.items, table.classes, table.chance, table.failed) == (60, CLASSES, 0.25, 0)
    assert table.published[-1].accuracy == 0.813


def test_in_other_layouts_an_oracle_is_always_right_and_chance_at_chance(other):
    """Chance is a vector a clip, the same for all its sub-clips: one of a tested clip among those
    fitted on would give it away.
    """
    other, clips, folds = other
    table = probe_sounds(other, [Extractor("oracle", oracle, CLASSES)])
    assert (table.rows[0].accuracy, table.rows[0].folds) == (1, (1.0,) * folds)
    assert (table.items, table.classes, table.chance, table.failed) == (clips, CLASSES, 0.25, 0)
    classes = np.unique(other.labels, return_inverse=True)[1]
    hits = []
    for seed in range(240 // clips):
        store = np.repeat(
            np.random.default_rng(seed).standard_normal((clips, 1, 100)), 2, 1
        ).astype(np.float32)
        answers = Folds(
            store, classes, other.folds, np.ones(clips, bool), other.tested, SVM
        ).answers()
        hits += list(answers.said == classes[answers.items])
    assert np.mean(hits) == pytest.approx(0.25, abs=0.09)


def test_a_clip_that_is_summarized_is_classified_once_by_means_and_deviations(benchmark):
    """An oracle whose sub-clips tell the class by how much they differ, and by nothing else, is
    always right.
    """
    rng = np.random.default_rng(0)

    def scattered(waveforms):
        signs = torch.from_numpy(rng.choice([-1.0, 1.0], len(waveforms))).float()
        return signs[:, None] * torch.eye(CLASSES)[oracle(waveforms).argmax(1)]

    table = probe_sounds(
        benchmark,
        [Extractor("scatter", scattered, CLASSES, summarized=one) for one in (True, False)],
    )
    assert (table.rows[0].accuracy, table.rows[0].features) == (1, 2 * CLASSES)
    assert table.rows[1].accuracy < 0.8
    assert table.rows[1].features == CLASSES
    vectors = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    assert np.allclose(
        clip_statistics(vectors)[:, 0], [[2, 3, 1.633, 1.633], [8, 9, 1.633, 1.633]], atol=1e-3
    )


def test_vectors_of_chance_are_at_chance(benchmark):
    """Clips' own vectors, so that a sub-clip of a tested clip among those fitted on would give it
    away.
    """
    hits = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        store = np.repeat(rng.standard_normal((len(benchmark), 1, 100)), 2, 1).astype(np.float32)
        classes = np.unique(benchmark.labels, return_inverse=True)[1]
        for vectors, classifier in ((store, SVM), (store, LOGISTIC), (clip_statistics(store), SVM)):
            answers = Folds(
                vectors, classes, benchmark.folds, np.ones(60, bool), benchmark.tested, classifier
            ).answers()
            assert sorted(answers.items) == list(range(60))
            hits.append(np.mean(answers.said == classes[answers.items]))
    assert np.mean(hits) == pytest.approx(0.25, abs=0.06)


def test_nothing_of_a_tested_fold_touches_what_is_fitted(benchmark):
    """With the tested fold made of enormous numbers, all that is fitted for it, and the cost that
    is chosen, stay as they were.
    """
    classes = np.unique(benchmark.labels, return_inverse=True)[1]
    rng = np.random.default_rng(0)
    vectors = (rng.standard_normal((60, 3, 12)) + np.eye(12)[classes][:, None]).astype(np.float32)
    poisoned = vectors.copy()
    poisoned[benchmark.folds == "2"] = 1e6 * rng.standard_normal((12, 3, 12))
    seen = []

    def spying(examples, classes, others, costs, count):
        seen.append((examples.numpy().copy(), tuple(costs)))
        yield from svm_scores(examples, classes, others, costs, count)

    def fitted_for_fold_2(some):
        seen.clear()
        folds = Folds(
            some, classes, benchmark.folds, np.ones(60, bool), ("2",), Classifier(spying, SVM.costs)
        )
        return folds.answers().costs, list(seen)

    (costs, clean), (poisoned_costs, dirty) = (
        fitted_for_fold_2(vectors),
        fitted_for_fold_2(poisoned),
    )
    assert costs == poisoned_costs
    assert [len(examples) for examples, _ in clean] == [36 * 3] * 4 + [48 * 3]
    for (one, _), (other, _) in zip(clean, dirty, strict=True):
        assert np.array_equal(one, other)
        assert np.abs(one).max() < 10


def test_where_one_fold_is_trained_on_its_clips_are_held_out_whole():
    rng = np.random.default_rng(0)
    classes, folds = np.arange(40) % 2, np.repeat(["1", "2"], 20)
    marks = np.repeat(np.arange(40, dtype=np.float32)[:, None, None], 3, 1)
    seen = []

    def spying(examples, classes, others, costs, count):
        seen.append((set(examples.flatten().tolist()), set(others.flatten().tolist())))
        yield from (
            torch.from_numpy(rng.standard_normal((len(others), count))).float() for _ in costs
        )

    Folds(
        marks, classes, folds, np.ones(40, bool), ("2",), Classifier(spying, (1.0, 2.0))
    ).answers()
    assert len(seen) == 6
    for fitted, measured in seen[:5]:
        assert not fitted & measured
        assert fitted | measured == set(range(20))
        assert len(measured) == 4
    assert seen[5] == (set(range(20)), set(range(20, 40)))


@pytest.mark.parametrize(("examples", "features"), [(150, 200), (500, 40)])
def test_the_machines_are_liblinears(examples, features):
    rng = np.random.default_rng(1)
    classes = rng.integers(0, 4, examples)
    vectors = (
        rng.standard_normal((examples, features)) * 3
        + 5
        + rng.standard_normal((4, features))[classes]
    ).astype(np.float32)
    others = (rng.standard_normal((30, features)) * 3 + 5).astype(np.float32)
    mean, deviation = vectors.mean(0), vectors.std(0)
    for cost, ours in zip(
        COSTS, svm_scores(*map(torch.from_numpy, (vectors, classes, others)), COSTS, 4), strict=True
    ):
        machine = LinearSVC(C=cost / features, tol=1e-6, max_iter=200_000).fit(
            (vectors - mean) / deviation, classes
        )
        theirs = machine.decision_function((others - mean) / deviation)
        assert np.abs(ours.numpy() - theirs).max() < 0.01 * np.abs(theirs).max()


def test_a_cost_that_single_precision_cannot_follow_gives_numbers_all_the_same():
    rng = np.random.default_rng(2)
    classes = torch.from_numpy(rng.integers(0, 3, 300))
    vectors = (
        torch.from_numpy(rng.standard_normal((300, 2000)).astype(np.float32))
        + 3 * torch.eye(2000)[classes]
    )
    *_, far = svm_scores(vectors, classes, vectors, (1.0, 1e4, 1e9), 3)
    assert far.isfinite().all()
    assert torch.equal(far.argmax(1), classes)


def test_sub_clips_are_equally_spaced_and_short_sounds_are_looped():
    ramp = np.arange(240_000, dtype=np.float32)
    windows = sub_clips(ramp, 10, 5.0)
    assert windows.shape == (10, 48_000)
    assert windows[:, 0].tolist() == np.linspace(0, 192_000, 10).round().tolist()
    short = sub_clips(ramp[:30_000], 3, 2.0)
    assert short[2].tolist() == (np.arange(48_000, 96_000) % 30_000).tolist()
    assert len(sub_clips(ramp[:100], 1, 1.0)[0]) == 48_000
    assert loop(ramp, 5) is ramp


def test_vectors_are_kept_and_an_interruption_costs_only_what_was_not(
    benchmark, tmp_path, monkeypatch
):
    monkeypatch.setattr(kept_vectors, "KEEP_SECONDS", 0.0)
    asked = []

    def interrupted(waveforms):
        if len(asked) == 7:
            raise KeyboardInterrupt
        asked.append(len(waveforms))
        return oracle(waveforms)

    def counting(waveforms):
        asked.append(len(waveforms))
        return oracle(waveforms)

    with pytest.raises(KeyboardInterrupt):
        sound_vectors(benchmark, Extractor("a", interrupted, CLASSES, key="k"), tmp_path)
    store = sound_vectors(benchmark, Extractor("a", counting, CLASSES, key="k"), tmp_path)
    assert sum(asked) == 60 * 10
    whole = sound_vectors(benchmark, Extractor("a", oracle, CLASSES))
    assert np.array_equal(store.values, whole.values)
    asked.clear()
    again = sound_vectors(benchmark, Extractor("a", counting, CLASSES, key="k"), tmp_path)
    assert not asked
    assert isinstance(again.values, np.memmap)


def test_a_store_of_another_shape_is_begun_anew(tmp_path):
    store = Store(tmp_path, (3, 1, 2))
    store.put(np.ones((2, 1, 2), np.float32))
    store.fail("no")
    store.keep()
    assert (Store(tmp_path, (3, 1, 2)).done, Store(tmp_path, (3, 1, 2)).failed) == (3, {2: "no"})
    assert Store(tmp_path, (4, 1, 2)).done == 0


def test_a_sound_that_cannot_be_read_is_left_out_and_told(esc, tmp_path):
    rows = [
        {"path": str(file), "label": file.stem[-1], "fold": file.name[0]}
        for file in sorted((esc / "audio").glob("*.wav"))
    ]
    (tmp_path / "bad.wav").write_text("no sound")
    write_table(tmp_path / "labels.csv", [*rows, {"path": "bad.wav", "label": "0", "fold": "1"}])
    table = probe_sounds(
        open_labeled_set("sounds", tmp_path), [Extractor("oracle", oracle, CLASSES)]
    )
    assert (table.failed, table.items, table.rows[0].accuracy) == (1, 61, 1)
    assert "bad.wav cannot be opened as sound" in table.failures[0]


def test_a_run_its_untrained_rival_and_the_spectrogram_stand_in_one_table(esc, run_path, tmp_path):
    textures = probe_labeled_set(
        "esc50",
        esc,
        run_path,
        ProbeOptions("untrained", "texture", tmp_path / "textures", partial=True),
    )
    assert [(row.name, row.features) for row in textures.rows] == [
        (str(run_path), 2 * 8 * 36),
        ("untrained", 2 * 8 * 36),
    ]
    assert textures.rows[0].accuracy > 0.5, "loudness is in the texture"
    table = probe_labeled_set(
        "esc50", esc, run_path, ProbeOptions(layer="pool4", cache=tmp_path, partial=True)
    )
    assert [(row.name, row.features) for row in table.rows] == [
        (str(run_path), 16),
        ("untrained", 16),
        ("spectrogram", 80),
    ]
    assert all(
        0 <= row.ci95[0] <= row.accuracy <= row.ci95[1] <= 1 and len(row.folds) == 5
        for row in table.rows
    )
    assert table.rows[2].accuracy > 0.5, "loudness is in the spectrogram"
    assert len(list((tmp_path / "esc50").iterdir())) == 5


def test_an_untrained_network_is_the_same_each_time_and_the_runs_own(benchmark, run_path):
    def rival(model):
        return contenders(benchmark, model, ["untrained"], "conv4_2", "cpu", 1)[-1]

    config = small_config().model
    torch.manual_seed(0)
    begun = network_extractor("begun", L3Net(config), "audio", "conv4_2")
    assert begun.key == rival(L3Net(config)).key == rival(L3Net(config)).key
    rows = contenders(benchmark, run_path, ["untrained"], "conv4_2", "cpu")
    assert [(row.name, row.width) for row in rows] == [(str(run_path), 16 * 12)] + [
        ("untrained", 16 * 12)
    ] * 3
    assert len({row.key for row in rows}) == 4
    torch.manual_seed(open_checkpoint(run_path).config.train.seed)
    assert (
        rows[1].key
        == network_extractor("begun", L3Net(config), "audio", "conv4_2").key
        != rows[0].key
    )


def test_the_row_of_an_untrained_network_is_the_mean_of_its_drawings(benchmark, esc):
    network = L3Net(small_config().model)
    table = probe_labeled_set(
        "esc50",
        esc,
        network,
        ProbeOptions("untrained", "pool4", partial=True, untrained_seeds=2),
    )
    one, two = (
        probe_sounds(benchmark, [extractor]).rows[0]
        for extractor in contenders(benchmark, network, ["untrained"], "pool4", "cpu", 2)[1:]
    )
    mean = table.rows[1]
    assert mean.accuracy_by_seed == (one.accuracy, two.accuracy)
    assert one.accuracy != two.accuracy
    assert mean.accuracy == pytest.approx((one.accuracy + two.accuracy) / 2)
    assert mean.folds == pytest.approx(
        [(a + b) / 2 for a, b in zip(one.folds, two.folds, strict=True)]
    )
    assert mean.ci95 == pytest.approx(
        [(a + b) / 2 for a, b in zip(one.ci95, two.ci95, strict=True)]
    )
    assert not table.rows[0].accuracy_by_seed


def test_batch_norm_is_set_to_the_mean_over_the_batches():
    model, sounds = L3Net(small_config().model), 0.1 * torch.randn(6, 48_000)
    first = model.audio.blocks[0]
    raw = first.conv1(model.front_end(sounds))
    frames = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    set_batch_norm(model, [(frames, sounds[:2]), (frames, sounds[2:])])
    expected = (raw[:2].mean((0, 2, 3)) + raw[2:].mean((0, 2, 3))) / 2
    assert torch.allclose(first.bn1.running_mean, expected, atol=1e-4)
    assert not model.training


def test_a_large_network_is_given_a_batch_in_pieces_that_change_no_vector():
    large, small = (
        network_extractor("a", L3Net(ModelConfig(widths=(width, 8))), "audio", "pool4")
        for width in (64, 8)
    )
    assert (large.piece_rows, small.piece_rows) == (1, 9)
    sounds = 0.1 * torch.randn(11, 48_000, generator=torch.Generator().manual_seed(0))
    assert np.allclose(small(sounds), replace(small, piece_rows=0)(sounds), atol=1e-2)


def test_a_layer_that_is_not_there_is_named(benchmark):
    config = small_config().model.model_copy(update={"fusion": "concat"})
    with pytest.raises(
        ConfigError, match="no layer 'aligned' of audio here; choose one of pool4, conv4_2"
    ):
        network_extractor("a", L3Net(config), "audio", "aligned")


def test_the_shell_gives_the_table_as_json_and_for_people(esc, tmp_path, capsys, monkeypatch):
    recipe = tmp_path / "small.toml"
    recipe.write_text(small_config().toml())
    told = [
        "probe",
        "esc50",
        str(esc),
        "--checkpoint",
        f"untrained:{recipe}",
        "--cache",
        str(tmp_path),
        "--partial",
    ]
    assert main([*told, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in result["rows"]] == ["untrained", "spectrogram"]
    assert result["published"][6] == {
        "method": "L3-Net",
        "accuracy": 0.793,
        "source": "the paper, by way of a review",
    }
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert main(told) == 0
    shown = capsys.readouterr().out
    assert "SoundNet" in shown
    assert "deviation" in shown


def test_wrong_words_are_wrong_usage(capsys):
    assert main(["probe", "esc5", "somewhere"]) == 2
    assert "probe needs a dataset and its folder" in capsys.readouterr().err


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_vectors_have_the_precision_that_their_key_names(precision, monkeypatch):
    monkeypatch.setattr(
        features, "choose_precision", lambda device: Choice(precision, "for the test")
    )
    model = L3Net(small_config().model).eval()
    sounds = torch.randint(-9000, 9000, (2, 48_000), dtype=torch.int16)
    extractor = network_extractor("mine", model, "audio")
    with torch.inference_mode():
        wanted = {
            name: encoder_of(model, name).encode("audio", sounds, "conv4_2").numpy()
            for name in ("float32", "bfloat16")
        }
    assert extractor.key.endswith(f"-{precision}-16bit")
    assert np.array_equal(extractor(sounds), wanted[precision])
    assert not np.array_equal(wanted["float32"], wanted["bfloat16"])
