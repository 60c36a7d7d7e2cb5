"""Scaling: designs that differ in what they say, a line through known growth, tables over designs."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from lib import config, scaling
from lib.metrics.bootstrap import Estimate
from lib.metrics.growth import growth


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


def a_result(name, predicted, rho, hits, kind="as published", n=100):
    rho = np.asarray(rho, float)
    design = scaling.Design(name, kind, np.arange(n))
    return scaling.Result(
        design, np.array(predicted), rho, rho, Estimate(0.5, 0.4, 0.6, 4), np.array(hits, float), rho, rho, 3, 1.0
    )


def test_no_design_trains_on_a_sample_that_any_is_tested_on(made):
    obs, by_name = made
    held = {*scaling.held_out(obs, "test"), *scaling.held_out(obs, "validation")}
    assert all(not held & set(design.rows) for design in by_name.values())
    assert all((obs.loc[design.rows, "split"] == "train").all() for design in by_name.values())
    assert not obs.loc[scaling.held_out(obs, "test"), "cell_line"].any()


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
    obs = a_pool(400).assign(cell_line=False)
    found = scaling.designs(config.load("mini", "anywhere"), obs)
    assert [d.kind for d in found] == ["size alone"] * 4
    assert len(found[-1].rows) == (obs["split"] == "train").sum()


def test_growth_recovers_a_known_gain_per_doubling():
    samples = np.array([100, 250, 500, 1000, 100, 250, 500, 1000])
    noise = np.random.default_rng(0).normal(0, 1e-3, 8)
    line = growth(samples, 0.3 + 0.02 * np.log2(samples) + noise)
    assert line.low < 0.02 < line.high
    assert abs(line.per_doubling - 0.02) < 1e-3
    value, low, high = line.at(5000)
    assert low < 0.3 + 0.02 * np.log2(5000) < high
    assert value == pytest.approx(0.3 + 0.02 * np.log2(5000), abs=5e-3)


def test_intervals_of_gain_and_extrapolation_cover_what_they_should():
    rng = np.random.default_rng(0)
    samples = np.array([100, 200, 400, 800, 1600])
    x, hits, ahead = np.log2(samples), 0, 0
    for _ in range(400):
        line = growth(samples, 0.05 * x + rng.normal(0, 0.01, 5))
        hits += line.low < 0.05 < line.high
        _, low, high = line.at(8000)
        ahead += low < 0.05 * np.log2(8000) + rng.normal(0, 0.01) < high
    assert 0.92 < hits / 400 < 0.98
    assert 0.92 < ahead / 400 < 0.98


@pytest.mark.parametrize(
    ("samples", "values"),
    [([1, 2], [1, 2]), ([5, 5, 5], [1, 2, 3]), ([1, 2, 4], [1, np.nan, 2]), ([1, 2, 4], [1, 2])],
)
def test_growth_refuses_what_has_no_line(samples, values):
    with pytest.raises(ValueError, match="expected at least 3 numbers, 2 sizes"):
        growth(samples, values)


def test_fits_tell_diminishing_returns_and_stop_at_one():
    rows = [
        {"design": f"{n}", "kind": "size alone", "samples": n, "metric": metric, "value": value}
        for n, value in ((100, 0.5), (200, 0.8), (400, 0.9))
        for metric in scaling.METRICS
    ]
    table = scaling.fits(pd.DataFrame(rows))
    assert table["first_step"].tolist() == pytest.approx([0.3] * 6)
    assert table["last_step"].tolist() == pytest.approx([0.1] * 6)
    assert (table["extrapolated_high"] == 1).all()
    assert (table["corpus"] == int(400 * 605_614 / 118_263)).all()


def test_fits_say_nothing_where_nothing_was_measured():
    rows = [
        {"design": f"{n}", "kind": "size alone", "samples": n, "metric": metric, "value": np.nan}
        for n in (100, 200, 400)
        for metric in scaling.METRICS
    ]
    table = scaling.fits(pd.DataFrame(rows))
    assert (table["points"] == 0).all()
    assert scaling.in_words(pd.DataFrame(rows), table) == "Nothing is estimable."


def test_compare_is_paired_over_the_same_samples():
    test = pd.DataFrame({"tissue": ["blood", "blood", "brain", "brain"]})
    worse = a_result("75K", ["blood", "brain", "brain", "brain"], [0.1, 0.2, 0.3, 0.9], [1, 0, np.nan])
    better = a_result("118K", ["blood", "blood", "brain", "brain"], [0.2, 0.3, 0.4, 1.0], [1, 1, np.nan])
    table = scaling.compare(worse, better, test, pd.Series(["AML", "AML", "NBL"]), 50, 0).set_index("metric")
    row = table.loc["Spearman per sample, median (difference: median over samples)"]
    assert row[["difference", "low", "high"]].tolist() == pytest.approx([0.1] * 3)
    assert table.loc["balanced accuracy", "difference"] == pytest.approx(0.25)
    assert table.loc["accuracy, blood", ["75K", "118K", "n"]].tolist() == [0.5, 1.0, 2]
    assert table.loc["called as expected, AML", "difference"] == 0.5
    assert table.loc["called as expected, NBL", "n"] == 0


def test_table_2_has_the_published_designs_side_by_side_as_means_over_seeds():
    tissue = np.array(["blood", "blood", "brain", "brain"])
    results = [a_result(name, tissue, [0.1, 0.2, 0.3, 0.4], [1, 0]) for name in ("38K", "118K")]
    results.append(a_result("no cap", tissue, [0.9] * 4, [1, 1], "cap alone"))
    scores = pd.concat([scaling.scores(r, tissue, 20, s).assign(seed=s) for r in results for s in (1, 2)])
    table = scaling.table_2(scores)
    assert table.columns.tolist() == ["metric", "n", "38K", "38K_low", "38K_high", "118K", "118K_low", "118K_high"]
    assert table["metric"].tolist() == list(scaling.METRICS.values())
    assert table.loc[0, "38K"] == pytest.approx(0.25)


def test_z_scores_are_those_of_the_designs_own_samples():
    import anndata as ad

    from lib import curation

    X = np.random.default_rng(0).gamma(2, 2, (50, 6)).astype(np.float32)
    samples, rows = ad.AnnData(X), np.arange(10, 40)
    own = curation.gene_statistics(X, np.isin(np.arange(50), rows))
    Z = scaling.z_scores(samples, rows, own).X
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
    assert scaling.pool(run).obs["cell_line"].sum() == -funnel.loc["cell-line identifiers", "change"]


def test_own_data_and_the_deposit_have_nothing_beyond_their_compendium():
    deposit = SimpleNamespace(data=SimpleNamespace(kind="archives"), tissue=SimpleNamespace(source="deposit"))
    assert not scaling.from_archives(deposit)
    assert not scaling.from_archives(config.load("mini", "anywhere"))
    assert scaling.from_archives(config.load("demo"))
