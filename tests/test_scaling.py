"""Scaling: designs that differ in what they say, a line through known growth, tables over designs."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from lib import config, scaling, scaling_tables, tissue_pool
from lib.metrics.growth import curvature, forecast, next_doubling, per_doubling, scatter
from lib.metrics.reconstruction import masked_sums
from lib.metrics.repeats import CORRELATION, from_line, over_repeats, to_line
from lib.tissue_scoring import Scored


def a_pool(n=6000, seed=0):
    """Sample table of a pool in which blood dominates and a fifth of ARCHS4 is cell lines."""
    rng = np.random.default_rng(seed)
    source = rng.choice(["ARCHS4", "TCGA", "GTEx", "DepMap"], n, p=[0.8, 0.08, 0.07, 0.05])
    line = (source == "DepMap") | ((source == "ARCHS4") & (rng.random(n) < 0.2))
    tissue = rng.choice(["blood", "brain", "liver"], n, p=[0.7, 0.2, 0.1])
    split = rng.choice(["train", "validation", "test"], n, p=[0.75, 0.1, 0.15])
    return pd.DataFrame({"source": source, "tissue": tissue, "split": split, "cell_line": line})


@pytest.fixture(scope="module")
def made():
    obs = a_pool()
    return obs, {d.name: d for d in scaling.designs(config.load("demo"), obs)}


def a_result(name, tissue, called, rho, hits, kind="as published", n=100):
    """A training whose scores are given."""
    rho, rng = np.asarray(rho, float), np.random.default_rng(0)
    sums = masked_sums(rng.normal(size=(4, 9)), rng.normal(size=(4, 9)), np.ones((4, 9), bool))
    tissue, called, hits = np.array(tissue), np.array(called), {"cohort": np.array(hits, float)}
    scored = Scored(tissue, called, called, rho, rho, sums, rho, rho, hits, 3)
    return scaling.Result(scaling.Design(name, kind, np.arange(n)), scored, 1.0)


def test_no_design_trains_on_a_sample_that_any_is_tested_on(made):
    obs, by_name = made
    held = {*tissue_pool.held_out(obs, "test"), *tissue_pool.held_out(obs, "validation")}
    assert all(not held & set(design.rows) for design in by_name.values())
    assert all((obs.loc[design.rows, "split"] == "train").all() for design in by_name.values())
    assert not obs.loc[tissue_pool.held_out(obs, "test"), "cell_line"].any()


def test_the_published_designs_differ_in_archs4_cell_lines_and_cap(made):
    obs, by_name = made
    archs4 = (obs["source"] == "ARCHS4") & (obs["split"] == "train")
    for name, published in (("38K", 20_000), ("75K", 50_000)):
        part = obs.loc[by_name[name].rows]
        assert (part["source"] == "ARCHS4").sum() == round(published / 212_412 * archs4.sum())
        others = (obs["source"] != "ARCHS4") & (obs["split"] == "train")
        assert (part["source"] != "ARCHS4").sum() == others.sum()
        assert part["cell_line"].any()
    full = obs.loc[by_name["118K"].rows]
    assert not full["cell_line"].any()
    assert full["tissue"].value_counts().max() <= config.load("demo").tissue.cap
    assert set(by_name["38K"].rows) < set(by_name["75K"].rows)


def test_size_alone_is_nested_and_cap_alone_has_as_many_samples(made):
    obs, by_name = made
    sizes = [by_name[f"{s:.0%} of 118K"].rows for s in scaling.SHARES] + [by_name["118K"].rows]
    assert all(set(a) < set(b) for a, b in pairwise(sizes))
    balanced, same = (obs.loc[by_name[name].rows, "tissue"] for name in ("118K", "no cap"))
    assert len(same) == len(balanced)
    assert (same == "blood").mean() > (balanced == "blood").mean() + 0.1


def test_designs_repeat_with_their_seed(made):
    obs, by_name = made
    again = scaling.designs(config.load("demo"), obs)
    other = {d.name: d for d in scaling.designs(config.load("demo", seed=7), obs)}
    assert all(np.array_equal(by_name[d.name].rows, d.rows) for d in again)
    assert not np.array_equal(by_name["38K"].rows, other["38K"].rows)


def test_own_files_vary_size_alone():
    obs = a_pool(600).assign(cell_line=False)
    found = scaling.designs(config.load("mini", "anywhere"), obs)
    assert [d.kind for d in found] == ["size alone"] * 5
    assert len(found[-1].rows) == (obs["split"] == "train").sum()


def test_small_designs_of_one_tissue_and_a_cap_that_cuts_nothing_are_left_out():
    obs = a_pool(2000)
    obs["tissue"] = np.where(np.arange(2000) < 1990, "blood", "brain")
    run = config.load("demo")
    wide = run.model_copy(update={"tissue": run.tissue.model_copy(update={"cap": 10_000})})
    found = scaling.designs(wide, obs)
    assert found and all(obs["tissue"].iloc[d.rows].nunique() > 1 for d in found)
    assert not any(d.kind == "cap alone" for d in found)


SIZES = np.array([100, 250, 500, 1000, 2000])


def test_growth_recovers_a_known_gain_per_doubling_and_its_change():
    x = np.log2(SIZES)
    noise = np.random.default_rng(0).normal(0, 1e-3, 5)
    gain = per_doubling(SIZES, 0.3 + 0.02 * x + noise)
    assert gain.low < 0.02 < gain.high and abs(gain.value - 0.02) < 1e-3 and gain.n == 5
    bend = curvature(SIZES, 0.3 + 0.2 * x - 0.005 * x**2 + noise)
    assert bend.low < -0.01 < bend.high < 0
    assert curvature(SIZES[:3], [0.1, 0.2, 0.25]).value < 0 and np.isnan(curvature(SIZES[:3], [0.1, 0.2, 0.25]).low)
    assert scatter(SIZES, 0.3 + 0.02 * x) == pytest.approx(0, abs=1e-9)


def test_seeds_are_blocks():
    seeds, samples = np.repeat([1, 2, 3], 5), np.tile(SIZES, 3)
    level = np.repeat([0.1, 0.3, 0.5], 5)  # of the seed: no part of the growth
    values = level + np.repeat([0.01, 0.02, 0.03], 5) * np.log2(samples / 100)
    gain = per_doubling(samples, values, seeds)
    assert gain.value == pytest.approx(0.02) and gain.low == pytest.approx(0.02 - 4.303 * 0.01 / np.sqrt(3), abs=1e-4)
    two = per_doubling(samples[:10], np.repeat([0.1, 0.3], 5) + 0.02 * np.log2(samples[:10]), seeds[:10])
    assert two.low == pytest.approx(0.02) and two.high == pytest.approx(0.02)


@pytest.mark.parametrize("n_seeds", [1, 3])
def test_intervals_of_gain_and_forecast_cover_what_they_should(n_seeds):
    rng, trials = np.random.default_rng(0), 300
    samples, seeds = np.tile(SIZES, n_seeds), np.repeat(np.arange(n_seeds), 5)
    truth, hits, ahead = 0.5 * np.log2(samples / 500), 0, 0
    for _ in range(trials):
        values = from_line(truth + rng.normal(0, 0.1, len(samples)), (0, 1))
        hits += (found := per_doubling(samples, to_line(values, (0, 1)), seeds)).low < 0.5 < found.high
        _, low, high = forecast(samples, values, 8000, seeds)
        assert 0 < low < high < 1
        ahead += low < from_line(0.5 * np.log2(8000 / 500) + rng.normal(0, 0.1), (0, 1)) < high
    assert 0.91 < hits / trials < 0.98
    assert 0.91 < ahead / trials <= 1


def test_what_is_at_its_bound_stays_within_it():
    value, low, high = forecast(SIZES, [0.8, 0.9, 0.95, 1.0, 1.0], 1e6, n=200)
    assert 0 < low < value < high <= 1
    gain = next_doubling(SIZES, [0.8, 0.9, 0.95, 0.99, 1.0], n=200)
    assert 0 < gain.value < 0.01 and gain.low < gain.value < gain.high
    np.testing.assert_allclose(from_line(to_line([-0.9, 0, 0.5], CORRELATION), CORRELATION), [-0.9, 0, 0.5], atol=1e-5)
    with pytest.raises(ValueError, match=r"expected 0\.0 to 1\.0"):
        to_line([0.2, 1.2], (0.0, 1.0))


def test_means_over_trainings_have_an_interval_from_three_on():
    assert np.isnan(over_repeats([0.1, 0.2]).low) and over_repeats([0.1, np.nan]).seeds == 1
    assert over_repeats([np.nan]).seeds == 0
    at_its_bound = over_repeats([1.0, 1.0, 1.0], (0, 1), 50)
    assert at_its_bound.low == pytest.approx(0.99) and at_its_bound.value == at_its_bound.high == 1
    found = over_repeats([0.1, 0.2, 0.3])
    assert (found.low, found.high) == pytest.approx((0.2 - 0.2484, 0.2 + 0.2484), abs=1e-3)
    bounded = over_repeats([0.97, 0.99, 1.0], (0, 1))
    assert 0 < bounded.low < 0.97 and bounded.high <= 1
    of_200 = over_repeats([0.98, 1.0, 1.0], (0, 1), 200)
    assert of_200.low > 0.85 and of_200.high < 1  # a value at its bound is not infinitely far


@pytest.mark.parametrize(
    ("samples", "values"),
    [([1, 2], [1, 2]), ([5, 5, 5], [1, 2, 3]), ([1, 2, 4], [1, np.nan, 2]), ([1, 2, 4], [1, 2])],
)
def test_growth_refuses_what_has_no_line(samples, values):
    with pytest.raises(ValueError, match="expected at least 3 numbers, 2 sizes"):
        per_doubling(samples, values)


def grown(values: dict[int, float], seed=1) -> pd.DataFrame:
    """Scores of one seed, the same for every metric: number of samples -> value."""
    about = {"kind": "size alone", "n": 500, "seed": seed}
    return pd.DataFrame([
        about | {"design": "100%" if n == max(values) else f"{n}", "samples": n, "metric": metric, "value": value}
        for n, value in values.items() for metric in scaling_tables.METRICS
    ])  # fmt: skip


def test_fits_tell_diminishing_returns_and_stay_below_one():
    bent = {100: 0.5, 200: 0.7, 400: 0.82, 800: 0.9, 1600: 0.93}
    scores = grown(bent)
    table = scaling_tables.fits(scores)
    assert (table["curvature_high"] < 0).all() and (table["next_doubling"] > 0).all()
    assert (table["extrapolated_high"] < 1).all() and (table["extrapolated"] > 0.93).all()
    assert (table["corpus"] == int(1600 * 605_614 / 118_263)).all()
    words = scaling_tables.in_words(scores, table)
    assert words.count("returns diminish.") == 6 and "one seed;" in words
    straight = scaling_tables.fits(grown({n: 0.5 + 0.05 * i for i, n in enumerate(bent)}))
    assert "not distinguishable" in scaling_tables.returns(straight.assign(curvature_high=0.01).iloc[0])


def test_fits_say_nothing_where_nothing_was_measured():
    scores = grown(dict.fromkeys((100, 200, 400, 800), np.nan))
    table = scaling_tables.fits(scores)
    assert (table["points"] == 0).all()
    assert scaling_tables.in_words(scores, table) == "Nothing is estimable."


def test_compare_is_paired_over_the_same_samples_and_over_seeds():
    tissue = ["blood", "blood", "brain", "brain"]
    worse = a_result("75K", tissue, ["blood", "brain", "brain", "brain"], [0.1, 0.2, 0.3, 0.9], [1, 0, np.nan])
    better = a_result("118K", tissue, tissue, [0.2, 0.3, 0.4, 1.0], [1, 1, np.nan])
    once = scaling_tables.compare(worse, better, pd.Series(["AML", "AML", "NBL"]), 50, 0)
    table = scaling_tables.compare_over_seeds([once]).set_index("metric")
    row = table.loc["Spearman per sample, median (difference: median over samples)"]
    assert row[["difference", "low", "high"]].tolist() == pytest.approx([0.1] * 3)
    assert table.loc["balanced accuracy", "difference"] == pytest.approx(0.25)
    assert table.loc["accuracy, blood", ["75K", "118K", "n"]].tolist() == [0.5, 1.0, 2]
    assert table.loc["called as expected, AML", "difference"] == 0.5
    assert table.loc["called as expected, NBL", "n"] == 0
    thrice = scaling_tables.compare_over_seeds([once, once.assign(difference=0.1), once.assign(difference=0.4)])
    row = thrice.set_index("metric").loc["balanced accuracy"]
    assert row["difference"] == pytest.approx(0.25) and row["low"] < 0 < row["high"] and row["seeds"] == 3


def test_table_2_has_the_published_designs_side_by_side_as_means_over_seeds():
    tissue = np.array(["blood", "blood", "brain", "brain"])
    results = [a_result(name, tissue, tissue, [0.1, 0.2, 0.3, 0.4], [1, 0]) for name in ("38K", "118K")]
    results.append(a_result("no cap", tissue, tissue, [0.9] * 4, [1, 1], "cap alone"))
    scores = pd.concat([scaling_tables.scores(r, 20, s).assign(seed=s) for r in results for s in (1, 2)])
    table = scaling_tables.table_2(scores)
    columns = ["metric", "n", "seeds", "38K", "38K_low", "38K_high", "118K", "118K_low", "118K_high"]
    assert table.columns.tolist() == columns
    assert table["metric"].tolist() == list(scaling_tables.METRICS.values())
    assert table.loc[0, "38K"] == pytest.approx(0.25)
    assert "One training each" in scaling_tables.in_words(scores, pd.DataFrame(FITTED))


FITTED = {"metric": ["gene"], "seeds": [1], "corpus": [9]} | {
    f"{name}{end}": [0.1]
    for name in ("per_doubling", "curvature", "next_doubling", "extrapolated") for end in ("", "_low", "_high")
}  # fmt: skip


def test_z_scores_are_those_of_the_designs_own_samples():
    import anndata as ad

    from lib import curation

    X = np.random.default_rng(0).gamma(2, 2, (50, 6)).astype(np.float32)
    samples, rows = ad.AnnData(X), np.arange(10, 40)
    own = curation.gene_statistics(X, np.isin(np.arange(50), rows))
    Z = tissue_pool.z_scores(samples, rows, own).X
    np.testing.assert_allclose(Z.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(Z.std(axis=0), 1, atol=1e-5)


def test_peak_memory_sees_a_large_array():
    with scaling.peak_memory() as memory:
        before = memory()
        block = np.ones(40_000_000)
        assert memory() > before + 0.25
        del block


def test_the_pool_flags_as_many_cell_lines_as_the_curation_removes():
    run = config.load("smoke")
    if not (run.processed / "tissue.h5ad").is_file() or not (run.raw / "archives.complete").is_file():
        pytest.skip("the smoke profile's archives and compendium are not built here")
    import anndata as ad

    funnel = ad.read_h5ad(run.processed / "tissue.h5ad", backed="r").uns["funnel"].set_index("operation")
    assert tissue_pool.pool(run).obs["cell_line"].sum() == -funnel.loc["cell-line identifiers", "change"]


def test_own_data_and_the_deposit_have_nothing_beyond_their_compendium():
    deposit = SimpleNamespace(data=SimpleNamespace(kind="archives"), tissue=SimpleNamespace(source="deposit"))
    assert not tissue_pool.from_archives(deposit)
    assert not tissue_pool.from_archives(config.load("mini", "anywhere"))
    assert tissue_pool.from_archives(config.load("demo"))
