"""Bootstrap intervals: over seeds and units against the plain one and known spreads; shares at 0 and 1."""

import numpy as np
import pytest
from scipy.stats import binomtest

from lib.metrics.bootstrap import NO_ESTIMATE, interval, interval_over_seeds, share, share_over_seeds


def crossed(n_seeds=5, n_units=200, between_units=1.0, between_seeds=0.0, noise=0.0, rng_seed=0):
    """Values, seeds, units of every unit under every seed."""
    rng = np.random.default_rng(rng_seed)
    values = between_units * rng.normal(size=n_units) + between_seeds * rng.normal(size=(n_seeds, 1))
    values = values + noise * rng.normal(size=(n_seeds, n_units))
    return values.ravel(), np.repeat(np.arange(n_seeds), n_units), np.tile(np.arange(n_units), n_seeds)


def width(estimate):
    return estimate.high - estimate.low


def test_one_seed_is_the_plain_interval():
    values, *_ = crossed(1)
    over = interval_over_seeds(values, ["a"] * 200, np.arange(200), np.median, 300, 3)
    assert over[:4] == interval(values, np.median, 300, 3) and over.seeds == 1


def test_the_same_units_in_several_seeds_count_once():
    values, seeds, units = crossed(noise=0.01)
    over = interval_over_seeds(values, seeds, units, np.mean)
    one = interval(values[seeds == 0], np.mean)
    assert (over.n, over.seeds) == (200, 5)
    assert width(over) == pytest.approx(width(one), rel=0.15)  # as wide as 200 units are, not 1,000
    apart = interval_over_seeds(values, seeds, np.arange(1000), np.mean)  # units of their own in every seed
    assert apart.value == pytest.approx(over.value) and (apart.n, apart.seeds) == (200, 5)
    assert width(apart) < 0.75 * width(over)


@pytest.mark.parametrize("nested", [False, True])
def test_what_differs_between_seeds_widens_the_interval(nested):
    values, seeds, units = crossed(between_units=0.1, between_seeds=1.0, rng_seed=2)
    units = np.arange(1000) if nested else units
    over = interval_over_seeds(values, seeds, units, np.mean)
    means = values.reshape(5, 200).mean(axis=1)
    assert over.low > means.min() - 0.1 and over.high < means.max() + 0.1
    assert width(over) > 2 * means.std() / np.sqrt(5)


@pytest.mark.parametrize(("between_units", "noise", "nested"), [(1.0, 0.5, False), (0.0, 1.0, True)])
def test_the_interval_covers_the_truth(between_units, noise, nested):
    hits = 0
    for trial in range(80):
        values, seeds, units = crossed(5, 40, between_units, 0.1, noise, rng_seed=trial)
        over = interval_over_seeds(values, seeds, np.arange(200) if nested else units, np.mean, 200, trial)
        hits += over.low <= 0 <= over.high
    assert hits / 80 > 0.88


def test_seeds_may_lack_units():
    values, seeds, units = crossed(3, 20)
    keep = ~((seeds == 1) & (units < 5)) & ~((seeds != 2) & (units == 19))
    over = interval_over_seeds(values[keep], seeds[keep], units[keep])
    assert over.low <= over.value <= over.high and np.isfinite(over).all()
    assert over.value == pytest.approx(np.median(values[:20]))  # a unit's value does not differ between seeds


def test_no_values_and_bad_values():
    assert interval_over_seeds([], [], []).n == 0 and np.isnan(NO_ESTIMATE.value)
    with pytest.raises(ValueError, match="a unit twice in a seed"):
        interval_over_seeds([1, 2], [0, 0], ["a", "a"])
    with pytest.raises(ValueError, match="1 NaN"):
        interval_over_seeds([1, np.nan], [0, 1], ["a", "a"])


def test_shares_have_a_width_where_all_are_hits():
    for hits in (np.ones(30, bool), np.zeros(30, bool)):
        single, over = share(hits), share_over_seeds(hits, [0] * 15 + [1] * 15, [*range(15)] * 2)
        assert 0.05 < width(single) < width(over) < 0.3  # 30 lines; the same 15 lines twice
        assert (over.n, over.seeds) == (15, 2)
    assert share([]).n == 0 and share_over_seeds([], [], []).n == 0


def test_a_share_of_one_seed_is_wilsons():
    hits = np.arange(50) < 13
    low, high = binomtest(13, 50).proportion_ci(method="wilson")
    over = share_over_seeds(hits, np.zeros(50), np.arange(50))
    assert over == (0.26, low, high, 50, 1) and share(hits) == (0.26, low, high, 50)


def test_the_same_seed_gives_the_same_interval():
    values, seeds, units = crossed(3, 30, noise=1)
    first, second, other = (interval_over_seeds(values, seeds, units, seed=s) for s in (0, 0, 1))
    assert first == second and first.value == other.value and first[1:3] != other[1:3]
