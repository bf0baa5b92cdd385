"""Laws 2 to 5: positives overlap, no shortcut, negatives cross videos, the stream is a pure
function.
"""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import small_config
from looklisten.data.pairs import (
    NO_EMPTY_SOUND,
    BatchPart,
    FrameTransform,
    PairStream,
    window_start,
)
from looklisten.errors import ConfigError
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.empty_sounds import draw_empty_sound
from looklisten.media.spectrogram import WINDOW_SAMPLES
from looklisten.model.config_checks import check_config
from looklisten.training.batches import training_stream

TRANSFORM = FrameTransform(64, 48, random=True, flip=True)


@pytest.fixture
def stream(shards):
    return PairStream(shards, 8, seed=1, transform=TRANSFORM)


@given(st.floats(1.0, 10.0), st.floats(0, 1), st.floats(0, 1, exclude_max=True))
def test_the_sound_of_a_positive_contains_the_time_of_its_frame(duration, where, chance):
    samples = int(duration * SAMPLE_RATE_HZ)
    frame = where * (samples - 1) / SAMPLE_RATE_HZ
    start = window_start(frame, samples, chance)
    assert 0 <= start <= samples - WINDOW_SAMPLES
    assert start <= frame * SAMPLE_RATE_HZ < start + WINDOW_SAMPLES


def test_the_frame_is_anywhere_in_its_second():
    places = [
        5.0 - window_start(5.0, 10 * SAMPLE_RATE_HZ, chance) / SAMPLE_RATE_HZ
        for chance in np.linspace(0, 1, 101, endpoint=False)
    ]
    assert np.allclose(np.sort(places), np.linspace(1, 0, 101, endpoint=False)[::-1], atol=0.011)


def test_every_row_is_another_video(stream):
    for index in range(3 * stream.steps_per_epoch):
        assert len(set(stream.batch(index).video_ids)) == 8


def test_an_epoch_shows_each_video_once(stream):
    seen = [
        video for step in range(stream.steps_per_epoch) for video in stream.batch(step).video_ids
    ]
    assert len(seen) == len(set(seen)) == stream.video_count // 8 * 8


def test_the_order_of_an_epoch_depends_on_seed_and_epoch_alone(shards, stream):
    for epoch in (3, 0, 7, 3):
        order = np.random.default_rng((1, epoch)).permutation(stream.video_count)
        for step in (2, 0):
            drawn = shards.video_ids[stream.choose(epoch, step).clips]
            assert drawn.tolist() == shards.videos()[order[8 * step : 8 * step + 8]].tolist()


def test_epochs_differ(stream):
    assert stream.batch(0).video_ids != stream.batch(stream.steps_per_epoch).video_ids


def test_batches_are_the_same_for_any_number_of_threads(stream):
    one = list(stream.batches(0, 5, threads=1))
    four = list(stream.batches(0, 5, threads=4))
    later = list(stream.batches(3, 5))
    for a, b in [*zip(one, four, strict=True), *zip(one[3:], later, strict=True)]:
        assert torch.equal(a.frames, b.frames)
        assert torch.equal(a.waveforms, b.waveforms)
        assert a.video_ids == b.video_ids


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_share_the_batch_of_one(stream, ranks):
    whole = stream.batch(2)
    parts = [stream.batch(2, BatchPart(rank, ranks)) for rank in range(ranks)]
    for rank, part in enumerate(parts):
        assert torch.equal(part.frames, whole.frames[rank::ranks])
        assert torch.equal(part.waveforms, whole.waveforms[rank::ranks])
        assert part.video_ids == whole.video_ids[rank::ranks]


def test_seeds_differ(shards, stream):
    other = PairStream(shards, 8, seed=2, transform=TRANSFORM)
    assert other.batch(0).video_ids != stream.batch(0).video_ids


def test_rows_are_what_the_shards_hold(shards, stream):
    batch = stream.batch(0)
    for row in range(8):
        clip, start = int(batch.choices.clips[row]), int(batch.choices.sound_starts[row])
        assert np.array_equal(
            batch.waveforms[row].numpy(), shards[clip].waveform[start : start + WINDOW_SAMPLES]
        )
        time = shards[clip].frame_seconds[int(batch.choices.frames[row])]
        assert start <= time * SAMPLE_RATE_HZ < start + WINDOW_SAMPLES


def test_all_clips_of_a_long_video_are_drawn_and_never_pair_with_each_other(tmp_path, world):
    from looklisten.data.options import PrepareOptions
    from looklisten.data.prepare import prepare
    from looklisten.data.shards import Shards

    prepare(
        [world / f"{i:06d}.mp4" for i in range(3)],
        tmp_path,
        PrepareOptions(clip_seconds=1.0),
        workers=1,
    )
    shards = Shards(tmp_path)
    assert len(shards) == 6
    stream = PairStream(shards, 3, seed=0, transform=TRANSFORM)
    drawn = [stream.choose(epoch, 0).clips for epoch in range(40)]
    assert set(np.concatenate(drawn)) == set(range(6))
    assert all(len({str(shards.video_ids[clip]) for clip in clips}) == 3 for clips in drawn)


def test_too_few_videos_are_an_error(shards):
    with pytest.raises(
        ConfigError, match=r"a batch of 64 needs as many different videos, and there are 48"
    ):
        PairStream(shards, 64, seed=0, transform=TRANSFORM)


def same_process_shares(stream, ranks, parts=1):
    """The shares of positive and of negative pairs whose frame and sound are of one process, over
    some batches.
    """
    same = {"positives": [], "negatives": []}
    for index in range(3):
        for number in range(parts):
            for rank in range(ranks):
                batch = stream.batch(index, BatchPart(rank, ranks, number, parts))
                for kind, mask in zip(same, batch.pairing.masks(everyone=False), strict=True):
                    columns = mask.int().argmax(1)
                    assert (mask.sum(1) == 1).all()
                    same[kind] += (columns % ranks == rank).tolist()
    return {kind: np.mean(found) for kind, found in same.items()}


@pytest.mark.parametrize(("ranks", "parts"), [(1, 1), (2, 1), (4, 1), (2, 2)])
def test_with_local_batch_norm_a_roll_pairs_within_each_process(shards, ranks, parts):
    """A process's batch-norm marks its rows, so positives and negatives must join the processes
    alike.
    """
    config = small_config(negatives="roll", batch_norm="local")
    stream = training_stream(shards, config)
    assert same_process_shares(stream, ranks, parts) == {"positives": 1, "negatives": 1}
    for index in range(3):
        batch = stream.batch(index, BatchPart(0, ranks, 0, parts))
        videos, partners = batch.pairing.videos, batch.pairing.partners
        assert sorted(partners.tolist()) == list(range(len(videos))), (
            "each sound makes one negative"
        )
        assert (videos != videos[partners]).all(), "law 4"


def test_one_process_and_synchronized_processes_have_the_same_pairs(shards):
    local, sync = (
        training_stream(shards, small_config(negatives="roll", batch_norm=kind))
        for kind in ("local", "sync")
    )
    alone = local.batch(1).pairing
    assert alone.partners.tolist() == [1, 2, 3, 4, 5, 6, 7, 0]
    for rank in (0, 1):
        assert torch.equal(sync.batch(1, BatchPart(rank, 2)).pairing.partners, alone.partners)
    one_row = local.batch(1, BatchPart(3, 8)).pairing
    assert one_row.partners.tolist() == alone.partners.tolist(), (
        "one row a process has no other of its own"
    )


def test_an_epoch_is_shuffled_once(shards):
    """The order is that of a fresh generator each time, from whatever thread, back and forth
    between two epochs.
    """
    stream = PairStream(shards, 8, seed=1, transform=TRANSFORM)
    orders = {epoch: np.random.default_rng((1, epoch)).permutation(48) for epoch in (0, 1, 5)}
    for epoch, step in [(0, 0), (1, 2), (0, 5), (5, 1), (0, 3)]:
        expected = shards.videos()[orders[epoch][8 * step : 8 * step + 8]]
        assert shards.video_ids[stream.choose(epoch, step).clips].tolist() == expected.tolist()
    list(stream.batches(0, 12, threads=4))
    assert (
        stream._order.cache_info().misses <= 2 + 3 + 4
    )  # each thread may shuffle an epoch that no other has shuffled yet
    assert stream._order.cache_info().hits > 0


def test_a_share_of_the_rows_has_an_empty_sound_and_the_others_stay_as_they_were(shards):
    stream = training_stream(shards, small_config(batch_size=8, seed=1))
    with_empty = training_stream(shards, small_config(batch_size=8, seed=1, empty_sound_share=0.25))
    empty_rows = []
    for index in range(60):
        place = divmod(index, stream.steps_per_epoch)
        before, batch = stream.choose(*place), with_empty.choose(*place)
        empty_rows += (batch.empty_sound_seeds != NO_EMPTY_SOUND).tolist()
        assert (before.empty_sound_seeds == NO_EMPTY_SOUND).all()
        for name, values in vars(before).items():
            assert name == "empty_sound_seeds" or np.array_equal(values, getattr(batch, name))
    assert 0.18 < np.mean(empty_rows) < 0.32

    before, batch = stream.batch(0), with_empty.batch(0)
    is_empty = batch.choices.empty_sound_seeds != NO_EMPTY_SOUND
    assert 0 < is_empty.sum() < 8
    assert torch.equal(before.frames, batch.frames)
    for row, seed in enumerate(batch.choices.empty_sound_seeds.tolist()):
        sound = batch.waveforms[row].numpy()
        if is_empty[row]:
            assert np.array_equal(sound, draw_empty_sound(seed, WINDOW_SAMPLES))
        else:
            assert np.array_equal(sound, before.waveforms[row].numpy())


@pytest.mark.parametrize("everyone", [True, False])
def test_an_empty_sound_belongs_to_no_frame(shards, everyone):
    stream = training_stream(shards, small_config(batch_size=8, seed=1, empty_sound_share=0.25))
    pairing = stream.batch(0).pairing
    positives, negatives = pairing.masks(everyone)
    assert torch.equal(positives, torch.diag(pairing.has_recorded_sound))
    assert not (positives & negatives).any()
    is_empty = ~pairing.has_recorded_sound
    assert negatives[is_empty, is_empty].all(), "with its own frame it is a negative"
    if everyone:
        assert negatives[:, is_empty].all()


def test_each_part_of_a_batch_has_a_positive_for_any_share_of_empty_sounds(shards):
    config = small_config(batch_size=8, seed=1, empty_sound_share=0.5)
    stream = training_stream(shards, config)
    alone = []
    for index in range(60):
        seeds = stream.choose(*divmod(index, stream.steps_per_epoch), parts=4).empty_sound_seeds
        in_parts = (seeds == NO_EMPTY_SOUND).reshape(4, 2)
        assert in_parts.any(axis=1).all()
        alone += in_parts.sum(axis=1).tolist()
    assert {1, 2} == set(alone)


@pytest.mark.parametrize("everyone", [True, False])
def test_means_over_processes_are_the_mean_over_all_pairs(shards, everyone):
    """Processes have different numbers of empty sounds, and yet each pair weighs the same."""
    stream = training_stream(shards, small_config(batch_size=8, seed=1, empty_sound_share=0.25))
    for index in range(5):
        alone = stream.batch(index).pairing
        shared = [stream.batch(index, BatchPart(rank, 4)).pairing for rank in range(4)]
        for kind in (0, 1):
            shares = [
                pairing.masks(everyone)[kind].sum() / pairing.mean_counts(everyone)[kind]
                for pairing in shared
            ]
            assert float(torch.stack(shares).mean()) == pytest.approx(1)
            assert int(alone.mean_counts(everyone)[kind]) == alone.masks(everyone)[kind].sum()


def test_settings_that_cannot_have_empty_sounds_are_refused():
    labels = small_config(objective="labels", empty_sound_share=0.1)
    with pytest.raises(ConfigError, match=r"an empty sound has none: set train\.empty_sound_share"):
        check_config(labels)
    frozen = small_config(freeze="towers", empty_sound_share=0.1)
    with pytest.raises(ConfigError, match=r"training reads cached features; set train\.cached_"):
        check_config(frozen)
    check_config(frozen.changed("train", cached_frames_per_second=0))
