"""The paper's protocol for sounds: an oracle is always right, random vectors are at chance, and
nothing of a tested fold influences what is fitted for it.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from conftest import small_config, write_wav
from labeled_set_files import esc_rows, urbansound8k_rows, write_table
from looklisten.app.cli import main
from looklisten.app.output import emit
from looklisten.config import ModelConfig
from looklisten.errors import ConfigError
from looklisten.evaluation.linear_probe.audio import (
    audio_vectors,
    clip_statistics,
    repeat_to_length,
    spaced_windows,
)
from looklisten.evaluation.linear_probe.baselines import compared_extractors
from looklisten.evaluation.linear_probe.crossvalidation import (
    LOGISTIC,
    SVM,
    Classifier,
    CrossValidation,
    logistic_scores,
)
from looklisten.evaluation.linear_probe.features import FeatureExtractor, network_extractor
from looklisten.evaluation.linear_probe.options import ProbeOptions
from looklisten.evaluation.linear_probe.public_sets import probe_audio, probe_labeled_set
from looklisten.evaluation.linear_probe.svm import COSTS, svm_scores
from looklisten.evaluation.linear_probe.vector_cache import VectorCache
from looklisten.evaluation.sets.registry import open_labeled_set
from looklisten.evaluation.untrained import set_batch_norm
from looklisten.inference.encoder import encoder_of
from looklisten.model.checkpoint import open_checkpoint
from looklisten.model.l3net import L3Net

CLASSES = 4


def noise(rng, class_index, seconds):
    """White noise whose loudness tells its class."""
    return rng.uniform(-1, 1, int(48_000 * seconds)) * (0.2 + 0.2 * class_index)


def class_scores(waveforms):
    """An oracle: one number for each class, the highest for the class of that loudness."""
    loudness = waveforms.abs().amax(1, keepdim=True)
    return -(loudness - (0.2 + 0.2 * torch.arange(CLASSES))).abs()


def oracle(**fields):
    return FeatureExtractor("oracle", class_scores, CLASSES, **fields)


def class_indices(files):
    return np.unique(files.labels, return_inverse=True)[1]


def nearest_scores(examples, classes, others, costs, n_classes):
    """For each class, how near its nearest example is: whoever has seen a window knows its class."""
    distances = torch.cdist(others, examples)
    nearest = [distances[:, classes == number].amin(1) for number in range(n_classes)]
    for _ in costs:
        yield -torch.stack(nearest, 1)


NEAREST = Classifier(nearest_scores, (1.0, 2.0))


def random_vectors(rng, n_clips):
    """A random vector for each clip, the same for its two windows.

    If a window of a tested clip were among the fitted ones, it would give the class away.
    """
    return np.repeat(rng.standard_normal((n_clips, 1, 100)), 2, axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def esc(tmp_path_factory):
    """ESC-50's layout, smaller: 4 classes, 5 folds, 3 clips of each class in each fold."""
    root = tmp_path_factory.mktemp("esc")
    rng = np.random.default_rng(0)
    rows = []
    for take in range(3):
        for row in esc_rows(CLASSES):
            fold = row["fold"]
            name = row["filename"].replace(f"{fold}-", f"{fold}-{take}", 1)
            rows.append(row | {"filename": name})
    write_table(root / "meta" / "esc50.csv", rows)
    for row in rows:
        samples = noise(rng, row["target"], rng.uniform(0.7, 1.6))
        write_wav(root / "audio" / row["filename"], samples, 48_000)
    return root


@pytest.fixture(scope="module")
def files(esc):
    return open_labeled_set("esc50", esc, partial=True)


def make_esc10(root, rng):
    for number, title in enumerate(("Dog bark", "Rain", "Sea waves", "Baby cry")):
        for fold in range(1, 6):
            file = root / f"{number + 1:03d} - {title}" / f"{fold}-10{number}-A.wav"
            write_wav(file, noise(rng, number, 1.2), 48_000)


def make_dcase2013(root, rng):
    for folder in ("scenes_stereo", "scenes_stereo_testset"):
        for class_index, scene in enumerate(("bus", "office", "park", "tube")):
            for number in range(1, 6):
                file = root / folder / f"{scene}{number:02d}.wav"
                write_wav(file, noise(rng, class_index, 1.2), 48_000)


def make_urbansound8k(root, rng):
    rows = urbansound8k_rows(["siren", "drilling", "dog_bark", "jackhammer"])
    write_table(root / "metadata" / "UrbanSound8K.csv", rows)
    for row in rows:
        file = root / "audio" / f"fold{row['fold']}" / row["slice_file_name"]
        write_wav(file, noise(rng, row["classID"], 0.8), 48_000)


def test_an_oracle_is_always_right(files):
    table = probe_audio(files, [oracle()])
    assert table.rows[0].accuracy == 1
    assert table.rows[0].folds == (1.0,) * 5
    assert (table.items, table.classes, table.chance, table.failed) == (60, CLASSES, 0.25, 0)
    assert table.published[-1].accuracy == 0.813


@pytest.mark.parametrize(
    ("name", "make", "n_clips", "n_tested_folds"),
    [
        ("esc10", make_esc10, 20, 5),
        ("dcase2013", make_dcase2013, 40, 1),
        ("urbansound8k", make_urbansound8k, 40, 10),
    ],
)
def test_in_each_layout_an_oracle_is_right_and_random_vectors_are_at_chance(
    tmp_path, name, make, n_clips, n_tested_folds
):
    make(tmp_path, np.random.default_rng(0))
    files = open_labeled_set(name, tmp_path, partial=True)
    table = probe_audio(files, [oracle()])
    assert (table.rows[0].accuracy, table.rows[0].folds) == (1, (1.0,) * n_tested_folds)
    assert (table.items, table.classes, table.chance, table.failed) == (n_clips, CLASSES, 0.25, 0)
    classes = class_indices(files)
    is_correct = []
    for seed in range(240 // n_clips):
        vectors = random_vectors(np.random.default_rng(seed), n_clips)
        usable = np.ones(n_clips, bool)
        data = CrossValidation(vectors, classes, files.folds, usable, files.tested, NEAREST)
        predictions = data.predictions()
        is_correct += list(predictions.classes == classes[predictions.items])
    assert np.mean(is_correct) == pytest.approx(0.25, abs=0.09)


def test_random_vectors_are_at_chance_with_each_classifier(files):
    accuracies = []
    classes = class_indices(files)
    for seed in range(3):
        vectors = random_vectors(np.random.default_rng(seed), len(files))
        summaries = clip_statistics(vectors)
        for values, classifier in ((vectors, SVM), (vectors, LOGISTIC), (summaries, SVM)):
            usable = np.ones(len(files), bool)
            data = CrossValidation(values, classes, files.folds, usable, files.tested, classifier)
            predictions = data.predictions()
            assert sorted(predictions.items) == list(range(len(files)))
            accuracies.append(np.mean(predictions.classes == classes[predictions.items]))
    assert np.mean(accuracies) == pytest.approx(0.25, abs=0.06)


def test_a_summarized_clip_is_classified_by_mean_and_deviation_of_its_windows(files):
    """An oracle tells the class only by how much the windows of a clip differ."""
    rng = np.random.default_rng(0)

    def spread_tells_the_class(waveforms):
        signs = torch.from_numpy(rng.choice([-1.0, 1.0], len(waveforms))).float()
        return signs[:, None] * torch.eye(CLASSES)[class_scores(waveforms).argmax(1)]

    by_window = FeatureExtractor("spread", spread_tells_the_class, CLASSES)
    summarized = replace(by_window, summarizes_clips=True)
    table = probe_audio(files, [summarized, by_window])
    assert (table.rows[0].accuracy, table.rows[0].features) == (1, 2 * CLASSES)
    assert table.rows[1].accuracy < 0.8
    assert table.rows[1].features == CLASSES


def test_clip_statistics_by_hand():
    vectors = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    expected = [[2, 3, 1.633, 1.633], [8, 9, 1.633, 1.633]]
    assert np.allclose(clip_statistics(vectors)[:, 0], expected, atol=1e-3)


def test_nothing_of_a_tested_fold_influences_what_is_fitted(files):
    """Huge numbers in the tested fold change neither the fitted examples nor the chosen cost."""
    classes = class_indices(files)
    rng = np.random.default_rng(0)
    vectors = (rng.standard_normal((60, 3, 12)) + np.eye(12)[classes][:, None]).astype(np.float32)
    poisoned = vectors.copy()
    poisoned[files.folds == "2"] = 1e6 * rng.standard_normal((12, 3, 12))

    def cost_and_fits_for_fold_2(values):
        fits = []

        def recording_scores(examples, classes, others, costs, n_classes):
            fits.append(examples.numpy().copy())
            yield from svm_scores(examples, classes, others, costs, n_classes)

        classifier = Classifier(recording_scores, SVM.costs)
        usable = np.ones(60, bool)
        data = CrossValidation(values, classes, files.folds, usable, ("2",), classifier)
        return data.predictions().costs, fits

    costs, fits = cost_and_fits_for_fold_2(vectors)
    poisoned_costs, poisoned_fits = cost_and_fits_for_fold_2(poisoned)
    assert costs == poisoned_costs
    assert [len(examples) for examples in fits] == [36 * 3] * 4 + [48 * 3]
    for examples, poisoned_examples in zip(fits, poisoned_fits, strict=True):
        assert np.array_equal(examples, poisoned_examples)
        assert np.abs(examples).max() < 10


def test_with_one_training_fold_whole_clips_are_held_out_to_choose_the_cost():
    rng = np.random.default_rng(0)
    classes = np.arange(40) % 2
    folds = np.repeat(["1", "2"], 20)
    clip_numbers = np.repeat(np.arange(40, dtype=np.float32)[:, None, None], 3, axis=1)
    fits = []

    def recording_scores(examples, classes, others, costs, n_classes):
        fits.append((set(examples.flatten().tolist()), set(others.flatten().tolist())))
        for _ in costs:
            yield torch.from_numpy(rng.standard_normal((len(others), n_classes))).float()

    classifier = Classifier(recording_scores, (1.0, 2.0))
    usable = np.ones(40, bool)
    CrossValidation(clip_numbers, classes, folds, usable, ("2",), classifier).predictions()
    assert len(fits) == 6
    for fitted, tested in fits[:5]:
        assert not fitted & tested
        assert fitted | tested == set(range(20))
        assert len(tested) == 4
    assert fits[5] == (set(range(20)), set(range(20, 40)))


def correlated_windows(n_clips, windows_per_clip, n_features, n_classes):
    """(windows, their classes): windows of a clip are alike, and features depend on each other."""
    generator = torch.Generator().manual_seed(0)
    n_factors = min(400, n_features)
    strengths = torch.arange(1, n_factors + 1).float() ** -0.7
    mixing = torch.randn(n_factors, n_features, generator=generator) * strengths[:, None]
    classes = torch.arange(n_clips) % n_classes
    centers = 0.6 * torch.randn(n_classes, n_factors, generator=generator)
    clips = centers[classes] + torch.randn(n_clips, n_factors, generator=generator)
    noise = torch.randn(n_clips, windows_per_clip, n_factors, generator=generator)
    values = torch.relu((clips[:, None] + 0.6 * noise) @ mixing)
    return values.flatten(0, 1), classes.repeat_interleave(windows_per_clip)


def liblinear_scores(examples, classes, others, cost):
    mean, deviation = examples.mean(0), examples.std(0)
    machine = LinearSVC(C=cost / examples.shape[1], tol=1e-6, max_iter=200_000)
    machine.fit((examples - mean) / deviation, classes)
    return machine.decision_function((others - mean) / deviation)


def assert_same_decisions(windows, classes, n_fitted, costs):
    """Fitted on the first windows and measured on the others, the SVM is that of liblinear."""
    examples, others = windows[:n_fitted], windows[n_fitted:]
    n_classes = int(classes.max()) + 1
    of_costs = svm_scores(examples, classes[:n_fitted], others, costs, n_classes)
    for cost, scores in zip(costs, of_costs, strict=True):
        expected = liblinear_scores(
            examples.numpy(), classes[:n_fitted].numpy(), others.numpy(), cost
        )
        assert np.abs(scores.numpy() - expected).max() < 0.01 * np.abs(expected).max()
        best, second = np.sort(expected, axis=1)[:, [-1, -2]].T
        is_clear = best - second > 0.02 * np.abs(expected).max()
        assert is_clear.mean() > 0.7
        same_class = scores.numpy().argmax(1) == expected.argmax(1)
        assert same_class[is_clear].all()
        assert same_class.mean() > 0.98


@pytest.mark.parametrize(("n_clips", "n_features"), [(60, 400), (180, 60)])
def test_the_svm_has_the_decision_values_of_liblinear(n_clips, n_features):
    """Once with the products of all windows, once with more windows than twice the features."""
    windows, classes = correlated_windows(n_clips, 4, n_features, 4)
    assert_same_decisions(windows, classes, 3 * n_clips, COSTS)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_svm_has_the_decision_values_of_liblinear_at_the_size_of_esc10():
    windows, classes = correlated_windows(300, 10, 6144, 3)
    assert_same_decisions(windows, classes, 2400, (10.0,))


def test_the_svm_gives_numbers_at_a_cost_that_single_precision_cannot_solve():
    rng = np.random.default_rng(2)
    classes = torch.from_numpy(rng.integers(0, 3, 300))
    noise = torch.from_numpy(rng.standard_normal((300, 2000)).astype(np.float32))
    vectors = noise + 3 * torch.eye(2000)[classes]
    *_, scores = svm_scores(vectors, classes, vectors, (1.0, 1e4, 1e9), 3)
    assert scores.isfinite().all()
    assert torch.equal(scores.argmax(1), classes)


@pytest.mark.filterwarnings("error")
def test_where_training_folds_hold_one_class_it_is_predicted():
    vectors, others = torch.randn(3, 4), torch.randn(2, 4)
    for scores in logistic_scores(vectors, torch.tensor([1, 1, 1]), others, (0.1, 1.0), 3):
        assert scores.argmax(1).tolist() == [1, 1]
        assert scores.softmax(1)[:, 1].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("n_classes", [2, 3])
def test_logistic_scores_are_those_of_scikit_learn_and_stay_finite(n_classes):
    random = np.random.default_rng(0)
    classes = np.arange(30) % n_classes
    examples = random.normal(size=(30, 4)).astype(np.float32)
    examples[:, 0] += 3 * classes
    (scores,) = logistic_scores(
        torch.from_numpy(examples), torch.from_numpy(classes), torch.from_numpy(examples), [0.1], 4
    )
    scaled = (examples - examples.mean(0)) / examples.std(0)
    fitted = LogisticRegression(C=0.1, max_iter=2000).fit(scaled, classes)
    assert np.allclose(scores[:, :n_classes], fitted.predict_log_proba(scaled), atol=1e-4)
    assert torch.isneginf(scores[:, n_classes:]).all()
    # So far from the examples that the other classes have a probability below any float.
    far = torch.full((1, 4), 1e6)
    (scores,) = logistic_scores(
        torch.from_numpy(examples), torch.from_numpy(classes), far, [10.0], n_classes
    )
    assert scores.isfinite().all()


def test_windows_are_equally_spaced_and_short_sounds_are_repeated():
    ramp = np.arange(240_000, dtype=np.float32)
    windows = spaced_windows(ramp, 10, 5.0)
    assert windows.shape == (10, 48_000)
    assert windows[:, 0].tolist() == np.linspace(0, 192_000, 10).round().tolist()
    short = spaced_windows(ramp[:30_000], 3, 2.0)
    assert short[2].tolist() == (np.arange(48_000, 96_000) % 30_000).tolist()
    assert len(spaced_windows(ramp[:100], 1, 1.0)[0]) == 48_000
    assert repeat_to_length(ramp, 5) is ramp


def test_vectors_are_stored_and_an_interrupted_computation_resumes(files, tmp_path):
    n_rows = []

    def interrupted(waveforms):
        if len(n_rows) == 7:
            raise KeyboardInterrupt
        n_rows.append(len(waveforms))
        return class_scores(waveforms)

    def counting(waveforms):
        n_rows.append(len(waveforms))
        return class_scores(waveforms)

    counted = FeatureExtractor("a", counting, CLASSES, key="k")
    with pytest.raises(KeyboardInterrupt):
        audio_vectors(files, replace(counted, encode=interrupted), tmp_path, save_seconds=0)
    resumed = audio_vectors(files, counted, tmp_path)
    assert sum(n_rows) == 60 * 10
    assert np.array_equal(resumed.vectors, audio_vectors(files, oracle()).vectors)
    n_rows.clear()
    stored = audio_vectors(files, counted, tmp_path)
    assert not n_rows
    assert isinstance(stored.vectors, np.memmap)


def test_a_cache_of_another_shape_is_not_used(tmp_path):
    cache = VectorCache(tmp_path, (3, 1, 2))
    cache.append(np.ones((2, 1, 2), np.float32))
    cache.append_failure("no")
    cache.save()
    same_shape = VectorCache(tmp_path, (3, 1, 2))
    assert (same_shape.n_done, same_shape.failures) == (3, {2: "no"})
    assert same_shape.usable.tolist() == [True, True, False]
    assert VectorCache(tmp_path, (4, 1, 2)).n_done == 0


def test_an_unreadable_sound_is_counted_and_its_reason_reported(esc, tmp_path):
    rows = [
        {"path": str(file), "label": file.stem[-1], "fold": file.name[0]}
        for file in sorted((esc / "audio").glob("*.wav"))
    ]
    (tmp_path / "bad.wav").write_text("no sound")
    write_table(tmp_path / "labels.csv", [*rows, {"path": "bad.wav", "label": "0", "fold": "1"}])
    table = probe_audio(open_labeled_set("sounds", tmp_path), [oracle()])
    assert (table.failed, table.items, table.rows[0].accuracy) == (1, 61, 1)
    assert "bad.wav cannot be opened as sound" in table.failures[0]


def test_a_table_has_the_run_the_untrained_network_and_the_spectrogram(esc, run_path, tmp_path):
    options = ProbeOptions(layer="pool4", cache=tmp_path, partial=True)
    table = probe_labeled_set("esc50", esc, run_path, options)
    names = [(row.name, row.features) for row in table.rows]
    assert names == [(str(run_path), 16), ("untrained", 16), ("spectrogram", 80)]
    for row in table.rows:
        assert len(row.folds) == 5
        assert row.accuracy == pytest.approx(np.mean(row.folds))
        assert row.deviation == pytest.approx(np.std(row.folds, ddof=1))
        # Wilson's interval for 60 clips is 0.25 wide at 0.5, and narrower elsewhere.
        assert row.ci95[0] < row.accuracy < row.ci95[1] or row.accuracy == 1
        assert 0.05 < row.ci95[1] - row.ci95[0] < 0.26
    assert table.rows[2].accuracy > 0.5, "loudness is in the spectrogram"
    # One folder of vectors for each network: the run, three untrained ones, the spectrogram.
    assert len(list((tmp_path / "esc50").iterdir())) == 5


def test_textures_are_classified_clip_by_clip(esc, run_path, tmp_path):
    options = ProbeOptions("untrained", "texture", tmp_path, partial=True, untrained_seeds=1)
    table = probe_labeled_set("esc50", esc, run_path, options)
    names = [(row.name, row.features) for row in table.rows]
    assert names == [(str(run_path), 2 * 8 * 36), ("untrained", 2 * 8 * 36)]
    assert table.rows[0].accuracy > 0.5, "loudness is in the texture"


def test_the_untrained_network_has_the_seed_of_the_run(files, run_path):
    config = small_config().model

    def untrained_key(model):
        options = ProbeOptions("untrained", device="cpu", untrained_seeds=1)
        return compared_extractors(model, files, options)[-1].key

    torch.manual_seed(0)
    seed_0 = network_extractor("seed 0", L3Net(config), "audio", "conv4_2")
    assert seed_0.key == untrained_key(L3Net(config)) == untrained_key(L3Net(config))
    options = ProbeOptions("untrained", device="cpu")
    rows = compared_extractors(run_path, files, options)
    assert [row.name for row in rows] == [str(run_path), "untrained", "untrained", "untrained"]
    assert [row.repetition for row in rows] == [0, 0, 1, 2]
    assert {row.width for row in rows} == {16 * 12}
    assert len({row.key for row in rows}) == 4
    torch.manual_seed(open_checkpoint(run_path).config.train.seed)
    seed_of_run = network_extractor("seed of run", L3Net(config), "audio", "conv4_2")
    assert rows[1].key == seed_of_run.key != rows[0].key


def test_the_row_of_untrained_networks_is_the_mean_over_their_seeds(files, esc):
    network = L3Net(small_config().model)
    options = ProbeOptions("untrained", partial=True, untrained_seeds=2, device="cpu")
    table = probe_labeled_set("esc50", esc, network, options)
    first, second = (
        probe_audio(files, [replace(extractor, repetition=0)]).rows[0]
        for extractor in compared_extractors(network, files, options)[1:]
    )
    mean = table.rows[1]
    assert mean.accuracy_by_seed == (first.accuracy, second.accuracy)
    assert first.accuracy != second.accuracy
    assert mean.accuracy == pytest.approx((first.accuracy + second.accuracy) / 2)
    assert mean.folds == pytest.approx(np.mean([first.folds, second.folds], axis=0).tolist())
    assert mean.ci95 == pytest.approx(np.mean([first.ci95, second.ci95], axis=0).tolist())
    assert not table.rows[0].accuracy_by_seed


def test_batch_norm_is_set_to_the_mean_over_the_batches():
    model = L3Net(small_config().model)
    sounds = 0.1 * torch.randn(6, 48_000)
    frames = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    first = model.audio.blocks[0]
    raw = first.conv1(model.front_end(sounds))
    set_batch_norm(model, [(frames, sounds[:2]), (frames, sounds[2:])])
    expected = (raw[:2].mean((0, 2, 3)) + raw[2:].mean((0, 2, 3))) / 2
    assert torch.allclose(first.bn1.running_mean, expected, atol=1e-4)
    assert not model.training


def test_chunks_of_a_batch_change_no_vector():
    large, small = (
        network_extractor("a", L3Net(ModelConfig(widths=(width, 8))), "audio", "pool4")
        for width in (64, 8)
    )
    assert (large.chunk_rows, small.chunk_rows) == (1, 9)
    sounds = 0.1 * torch.randn(11, 48_000, generator=torch.Generator().manual_seed(0))
    assert np.allclose(small(sounds), replace(small, chunk_rows=0)(sounds), atol=1e-2)


def test_an_unknown_layer_is_an_error_with_the_known_ones():
    config = small_config().model.model_copy(update={"fusion": "concat"})
    sentence = "no layer 'aligned' of audio; choose pool4, conv4_2"
    with pytest.raises(ConfigError, match=sentence):
        network_extractor("a", L3Net(config), "audio", "aligned")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_vectors_have_the_precision_of_their_key(precision):
    model = L3Net(small_config().model).eval()
    sounds = torch.randint(-9000, 9000, (2, 48_000), dtype=torch.int16)
    extractor = network_extractor("mine", model, "audio", precision=precision)
    with torch.inference_mode():
        expected = {
            name: encoder_of(model, name).encode("audio", sounds, "conv4_2").numpy()
            for name in ("float32", "bfloat16")
        }
    assert extractor.key.endswith(f"-{precision}")
    assert np.array_equal(extractor(sounds), expected[precision])
    assert not np.array_equal(expected["float32"], expected["bfloat16"])


@pytest.mark.parametrize("value", [0, -1])
def test_options_out_of_range_are_errors(value):
    with pytest.raises(
        ConfigError, match=f"untrained_seeds {value} must be at least 1; .* set compare to"
    ):
        ProbeOptions(untrained_seeds=value)
    with pytest.raises(ConfigError, match=f"per_clip {value} must be at least 1"):
        ProbeOptions(per_clip=value)


def test_the_command_line_gives_a_table(esc, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("LOOKLISTEN_CACHE", str(tmp_path / "cache"))
    recipe = tmp_path / "small.toml"
    recipe.write_text(small_config().toml())
    network = ["--checkpoint", f"untrained:{recipe}", "--untrained-seeds", "1"]
    command = ["probe", "esc50", str(esc), *network, "--partial"]
    assert main(command) == 0
    assert list((tmp_path / "cache" / "probe").iterdir()), "vectors are in the one cache"
    result = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in result["rows"]] == ["untrained", "spectrogram"]
    assert result["published"][6] == {
        "method": "L3-Net",
        "accuracy": 0.793,
        "source": "the paper, by way of a review",
    }
    emit(result, as_json=False)
    text = capsys.readouterr().out
    assert "SoundNet" in text
    assert "deviation" in text


def test_an_unknown_set_on_the_command_line_is_a_usage_error(capsys):
    assert main(["probe", "esc5", "somewhere"]) == 2
    assert "probe needs a dataset and its folder" in capsys.readouterr().err
