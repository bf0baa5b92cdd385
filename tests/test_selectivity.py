"""Units that prefer a class: cases worked by hand, and what chance gives."""

import numpy as np
import pytest

from looklisten.errors import ConfigError
from looklisten.evaluation.units.selectivity import selectivity

LABELS = np.repeat(["bell", "drum", "flute"], 40)


def test_a_unit_that_fires_for_one_class_alone_prefers_it_and_a_silent_one_nothing():
    rng = np.random.default_rng(1)
    drum = (LABELS == "drum") + rng.random(120) / 2
    found = selectivity(np.stack([drum, np.zeros(120), rng.random(120)], 1), LABELS)
    assert found.classes[found.preferred[0]] == "drum"
    assert found.average_precision[0] == found.purity[0] == 1
    assert (found.purity[1:] < 0.8).all()
    assert (found.average_precision[1:] < 0.6).all()
    assert found.covered == ("drum",)


def test_average_precision_by_hand():
    # Ranked: a b a b. Class a at ranks 1 and 3: (1/1 + 2/3) / 2; class b at 2 and 4: (1/2 + 2/4) /
    # 2.
    found = selectivity(np.array([[4.0], [3.0], [2.0], [1.0]]), np.array(["a", "b", "a", "b"]))
    assert found.classes[found.preferred[0]] == "a"
    assert found.average_precision[0] == pytest.approx((1 + 2 / 3) / 2)
    assert found.purity[0] == 0.5


def test_one_class_is_refused():
    with pytest.raises(ConfigError, match="at least 2 classes"):
        selectivity(np.zeros((3, 2)), np.array(["a"] * 3))


def test_a_class_of_few_items_is_preferred_by_no_unit():
    """Of 500 random units some has any one item on top; that is no preference."""
    rng = np.random.default_rng(2)
    large = ["bell", "drum", "flute", "harp"]
    labels = np.array([*large * 30, "gong", "horn", "horn", "lute", "lute", "lute", "lute"])
    found = selectivity(rng.random((len(labels), 500)), labels)
    assert found.covered == ()
    assert {found.classes[place] for place in found.preferred} == set(large)
    gong = (labels == "gong").astype(float)
    assert selectivity(gong[:, None], labels).covered == ()
    five = np.array(["bell"] * 40 + ["gong"] * 5)
    assert selectivity((five == "gong").astype(float)[:, None], five).covered == ("gong",)


def test_where_all_classes_are_small_none_is_preferred_strongly():
    found = selectivity(np.array([[4.0], [3.0], [2.0], [1.0]]), np.array(["a", "a", "b", "b"]))
    assert found.purity[0] == 1
    assert found.covered == ()
