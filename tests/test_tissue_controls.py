"""Ablations of the tissue VAE: designs that differ in what they say, scores and differences against known values."""

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lib import config, plots
from lib import tissue_control_tables as tables
from lib import tissue_controls as controls
from lib.metrics.bootstrap import Estimate
from lib.metrics.reconstruction import masked_difference, masked_spearman, masked_sums
from lib.models.tissue_vae import random_mask
from lib.models.tissue_variants import CohortJitter
from lib.tissue_controls import Ablation, Made
from lib.tissue_scoring import METRICS, Scored


def a_pool(n=6000, seed=0):
    """Sample table of a pool in which blood dominates and a fifth of ARCHS4 is cell lines."""
    rng = np.random.default_rng(seed)
    source = rng.choice(["ARCHS4", "TCGA", "GTEx", "DepMap"], n, p=[0.8, 0.08, 0.07, 0.05])
    line = (source == "DepMap") | ((source == "ARCHS4") & (rng.random(n) < 0.2))
    tissue = rng.choice(["blood", "brain", "liver"], n, p=[0.7, 0.2, 0.1])
    splits = {
        f"split_{s}": rng.choice(["train", "validation", "test"], n, p=[0.75, 0.1, 0.15]) for s in ("sample", "study")
    }
    return pd.DataFrame(
        {"source": source, "tissue": tissue, "cell_line": line, "split": splits["split_sample"]} | splits
    )


@pytest.fixture(scope="module")
def made():
    obs = a_pool(12_000)
    return obs, {a.name: a for a in controls.ablations(config.load("demo"), obs)}


def test_each_design_changes_one_thing(made):
    obs, by_name = made
    full = by_name["full"]
    assert len(full.rows) == config.load("demo").tissue_controls.samples
    assert (obs.loc[full.rows, "split"] == "train").all() and not obs.loc[full.rows, "cell_line"].any()
    lines = obs.loc[by_name["cell lines kept"].rows]
    assert lines["cell_line"].any() and "DepMap" not in set(lines["source"])
    for name in ("denoising", "no MMD", "no supervision", "variant faithful", controls.LEARNED, controls.LINEAR):
        assert np.array_equal(by_name[name].rows, full.rows) and len(by_name[name].settings) == 1
    assert all(not by_name[name].settings for name in ("full", "cell lines kept", "no cap", "split by study"))


def test_the_cap_keeps_blood_down_and_its_ablation_keeps_the_size(made):
    obs, by_name = made
    capped, free = (obs.loc[by_name[name].rows, "tissue"].value_counts(normalize=True) for name in ("full", "no cap"))
    assert (
        len(by_name["no cap"].rows) == len(by_name["full"].rows)
        and not obs.loc[by_name["no cap"].rows, "cell_line"].any()
    )
    assert capped["blood"] < 0.6 and abs(free["blood"] - 0.7) < 0.05


def test_the_other_split_trains_and_tests_on_its_own_parts(made):
    obs, by_name = made
    study = by_name["split by study"]
    assert study.split == "split_study" and (obs.loc[study.rows, "split_study"] == "train").all()
    both = obs.loc[controls.both_held_out(obs, "split_study")]
    assert (both["split"] == "test").all() and (both["split_study"] == "test").all() and not both["cell_line"].any()


def test_few_labels_are_a_fifth_of_each_tissue_shown_as_often(made):
    obs, by_name = made
    full, few, co = (by_name[n] for n in ("full", controls.FEW, controls.CO_TRAINED))
    assert len(few.rows) == len(full.rows) and set(few.rows) < set(full.rows)
    assert set(co.unlabelled) == set(full.rows) - set(few.rows) and np.array_equal(co.rows, full.rows)
    counts = obs.loc[np.unique(few.rows), "tissue"].value_counts()
    expected = np.ceil(controls.LABELLED * obs.loc[full.rows, "tissue"].value_counts())
    assert counts.to_dict() == expected.to_dict()


def test_without_archives_nothing_is_ablated_that_is_not_there():
    obs = a_pool().assign(cell_line=False, split_study="")
    run = config.load("mini")
    obs["split_sample"] = ""
    names = [a.name for a in controls.ablations(run, obs)]
    assert not {"cell lines kept", "no cap"} & set(names) and not any(name.startswith("split") for name in names)
    assert {"full", "denoising", controls.LEARNED, controls.FEW} <= set(names)


def test_neighbours_that_vote_are_no_copies_and_the_same_for_both(made):
    obs, by_name = made
    few, co = (controls.labelled_rows(by_name[n], obs) for n in (controls.FEW, controls.CO_TRAINED))
    assert len(by_name[controls.FEW].rows) > 4 * len(few)
    assert len(np.unique(few)) == len(few) and np.array_equal(few, co)


def test_a_split_without_validation_part_is_still_compared(made):
    obs = made[0].replace({"split": {"validation": "train"}, "split_sample": {"validation": "train"}})
    obs["split_study"] = obs["split_study"].replace("validation", "train")
    by_name = {a.name: a for a in controls.ablations(config.load("paper", "anywhere"), obs)}
    assert by_name["split by study"].split == "split_study" and "variant corrected" in by_name
    assert by_name[controls.LINEAR].against == "full"  # there the published code is the full model


def test_source_effects_are_what_lies_between_studies():
    rng, n, genes = np.random.default_rng(0), 800, 300
    tissue, study = np.arange(n) % 2, np.arange(n) // 2 % 2
    shift, scale = rng.normal(scale=0.6, size=(2, genes)), np.array([[0.5], [2.0]]) ** np.ones((2, genes))
    noise = 0.5 * rng.normal(size=(n, genes)) * scale[study]
    obs = pd.DataFrame({"tissue": tissue.astype(str), "study": study.astype(str)}, index=[f"s{i}" for i in range(n)])
    data = ad.AnnData(rng.normal(size=(2, genes))[tissue] + shift[study] + noise, obs.assign(source="ARCHS4"))
    shifts, log_scales = controls.source_effects(data)
    assert shifts.shape == log_scales.shape == (4, genes)
    assert np.corrcoef(shifts[0], shift[0] - shift.mean(axis=0))[0, 1] > 0.95
    assert np.median(log_scales[1] - log_scales[0]) == pytest.approx(np.log(4), abs=0.1)
    data.obs["study"] = "one"
    assert len(controls.source_effects(data)[0]) == 0


def test_pseudo_cohorts_share_their_shift_and_genes_move_as_the_effects_do():
    import torch

    X = np.random.default_rng(0).normal(size=(40, 30)).astype(np.float32)
    obs = pd.DataFrame({"tissue": ["a", "b"] * 20}, index=[f"s{i}" for i in range(40)])
    effects = np.tile(np.repeat([1.0, -1.0], 15), (3, 1)), np.zeros((3, 30))
    vae = CohortJitter(latent=3, supervisor_hidden=4, batch_size=8, max_epochs=1, affine_jitter=1.0, device="cpu")
    vae.with_effects(*effects).fit(ad.AnnData(X, obs))
    moved = (vae.module_._corrupt(torch.from_numpy(X)) - torch.from_numpy(X)).numpy()
    np.testing.assert_allclose(moved[0::4], np.tile(moved[0], (10, 1)), atol=1e-5)
    assert not np.allclose(moved[0], moved[1], atol=1e-3)
    np.testing.assert_allclose(np.abs(moved), np.abs(moved[:, :1]) * np.ones(30), atol=1e-5)
    with pytest.raises(ValueError, match="affine_jitter: found 0"):
        CohortJitter().with_effects(*effects)
    with pytest.raises(ValueError, match="shifts, log_scales: found"):
        CohortJitter(affine_jitter=1.0).with_effects(np.empty((0, 3)), np.empty((0, 3)))


def scored(name, called, rho, hits, against="full", n_genes=5, alone=None) -> Made:
    """A model whose every score is given."""
    truth, rng = np.array(["blood", "brain"] * 10), np.random.default_rng(0)
    original = rng.normal(size=(20, 30))
    noisy = original + (1 - rho) * rng.normal(size=(20, 30))
    mask = random_mask(20, 30, 0.3, 0)
    hits = {"cohort": np.array(hits, float), "none": np.array(hits if alone is None else alone, float)}
    ablation = Ablation(name, np.arange(7), against=against)
    given = Scored(
        truth, np.array(called), truth, np.full(n_genes, rho), np.full(20, rho), masked_sums(original, noisy, mask),
        np.full(20, 0.1), np.full(20, 1.1), hits, 3,
    )  # fmt: skip
    return Made(ablation, given, {})


def test_table_gives_known_scores_and_paired_differences():
    truth = ["blood", "brain"] * 10
    wrong = ["blood"] * 20
    models = {"full": scored("full", truth, 0.9, [1, 1, 1, 0]), "worse": scored("worse", wrong, 0.5, [1, 0, 0, 0])}
    models["no supervision"] = scored("no supervision", [], 0.9, [1, 1, np.nan, 0])
    table = tables.table(models, 200, 0).set_index(["model", "metric"])
    assert table.loc[("worse", "balanced_accuracy"), ["value", "difference"]].tolist() == [0.5, -0.5]
    assert table.loc[("worse", "gene_rho"), "difference"] == pytest.approx(-0.4)
    assert table.loc[("worse", "target"), ["value", "difference", "n"]].tolist() == [0.25, -0.5, 4]
    assert table.loc[("worse", "imputation"), "difference_high"] < 0 and table.loc[("full", "target"), "against"] == ""
    assert np.isnan(table.loc[("no supervision", "balanced_accuracy"), "value"])
    assert table.loc[("no supervision", "target"), "n"] == 3
    models[controls.AGAIN] = scored(controls.AGAIN, wrong, 0.9, [1, 1, 1, 0])
    once = tables.over_seeds(tables.table(models, 200, 0))
    assert "moves this share by +0.0 points (-49.0 to +49.0): less than the 2.5 points" in tables.noise_in_words(once)
    words = tables.in_words(once)
    assert words.startswith("One training each: how far trainings lie apart is unknown, so nothing below is a verdict")
    assert "*worse* against *full*: Spearman per gene" in words  # its accuracy moves no more than another seed's does
    assert set(once.loc[once["against"] != "", "verdict"]) == {"one training each, spread unknown", "not estimable"}


def scores_of_seeds(differences: list[float]) -> pd.DataFrame:
    """Score tables of one ablation whose balanced accuracy differs by so much, seed by seed."""
    row = {"model": "worse", "against": "full", "metric": "balanced_accuracy", "samples": 7, "epochs": 3, "n": 20}
    narrow = [{"difference": d, "difference_low": d - 0.001, "difference_high": d + 0.001} for d in differences]
    return pd.DataFrame([row | d | {"value": 0.9, "low": 0.8, "high": 1.0, "seed": i} for i, d in enumerate(narrow)])


def test_a_verdict_needs_three_trainings_that_agree():
    agree = tables.over_seeds(scores_of_seeds([-0.10, -0.11, -0.12])).iloc[0]
    assert agree["verdict"] == "down" and agree["difference_sd"] == pytest.approx(0.01)
    assert agree["difference_high"] == pytest.approx(-0.11 + 4.303 * 0.01 / np.sqrt(3), abs=1e-3)
    differ = tables.over_seeds(scores_of_seeds([-0.10, 0.02, -0.12])).iloc[0]
    assert differ["verdict"] == "not distinguishable" and differ["difference_high"] > 0
    assert tables.over_seeds(scores_of_seeds([-0.1])).iloc[0]["verdict"] == "one training each, spread unknown"
    assert tables.over_seeds(scores_of_seeds([-0.1, -0.1])).iloc[0]["verdict"] == "2 trainings each, too few"
    words = tables.in_words(tables.over_seeds(scores_of_seeds([-0.10, -0.11, -0.12])))
    assert words.startswith("3 trainings each") and "balanced accuracy -0.110 (-0.135 to -0.085)" in words
    assert "*full*: nothing." in tables.in_words(tables.over_seeds(scores_of_seeds([-0.10, 0.02, -0.12])))


def test_figure_s3_and_its_words():
    groups = pd.Series(["AML"] * 10 + ["NBL"] * 10)
    without, kept = [1] * 10 + [0] * 10, [1] * 10 + [1] * 9 + [0]
    models = {"full": scored("full", [], 0.9, without), controls.LINES: scored(controls.LINES, [], 0.9, kept)}
    once = tables.cohort_by_group(models, groups, 200, 0)
    table = tables.groups_over_seeds([once]).set_index(["group", "model"])
    assert table.loc[("all", "with cell lines"), ["value", "difference", "n"]].tolist() == [0.95, 0.45, 20]
    assert table.loc[("AML", "without cell lines"), ["value", "high"]].tolist() == [1, 1]
    assert table.loc[("AML", "without cell lines"), "low"] < 0.8  # Wilson's: ten of ten is no certainty
    words = tables.lines_in_words(table.reset_index())
    assert "+45.0 points" in words and "one training each" in words and "NBL +90" in words and "AML" not in words
    thrice = tables.groups_over_seeds([once, once.assign(seed=1), once.assign(seed=2, difference=0.4)])
    assert thrice["seeds"].unique() == 3 and "intervals over seeds): up" in tables.lines_in_words(thrice)
    none = tables.groups_over_seeds([tables.cohort_by_group({"full": models["full"]}, groups, 200, 0)])
    assert none.empty and "not estimable" in tables.lines_in_words(none)
    assert tables.published_lines()[("NBL", "with cell lines")] == 0.81


def test_the_learned_normalisation_is_compared_with_both_ways():
    half, most, all_ = [1, 0] * 20, [1, 1, 1, 0] * 10, [1] * 40
    models = {
        "full": scored("full", [], 0.9, most, alone=half),
        controls.GENE_NOISE: scored(controls.GENE_NOISE, [], 0.9, most, alone=half),
    }
    table = tables.normalisations_over_seeds([tables.normalisations(models, 200, 0)])
    assert "no shifts to learn from" in tables.normalisation_in_words(table)
    models[controls.LEARNED] = scored(controls.LEARNED, [], 0.9, most, alone=all_)
    table = tables.normalisations_over_seeds([tables.normalisations(models, 200, 0)])
    row = table.set_index(["model", "harmonise"]).loc[(controls.LEARNED, "none")]
    assert row["to_alone"] == 0.5 and row["to_published"] == 0.25
    assert row["to_alone_verdict"] == "one training each, spread unknown"
    assert "+50.0 points" in tables.normalisation_in_words(table)


def test_masked_difference_is_paired():
    rng = np.random.default_rng(0)
    original, mask = rng.normal(size=(40, 50)), random_mask(40, 50, 0.3, 0)
    near, far = (original + scale * rng.normal(size=(40, 50)) for scale in (0.5, 2))
    sums = [masked_sums(original, imputed, mask) for imputed in (near, far)]
    values = [masked_spearman(original, imputed, mask).value for imputed in (near, far)]
    found = masked_difference(*sums, n_boot=300)
    assert found.value == pytest.approx(values[1] - values[0]) and found.high < 0 and found.n == 40
    assert masked_difference(sums[0], sums[0]) == Estimate(0, 0, 0, 40)
    with pytest.raises(ValueError, match="found 39 samples, expected 40"):
        masked_difference(sums[0], sums[1][1:])


def test_figures_mark_verdicts_only_and_what_the_paper_prints():
    models = {"full": scored("full", ["blood", "brain"] * 10, 0.9, [1, 1, 1, 0])}
    models["no supervision"] = scored("no supervision", [], 0.5, [1, 1, 1, 0])
    by_seed = [tables.table(models, 200, 0).assign(seed=s) for s in range(3)]
    for scores, colour in ((by_seed, plots.BLUE), (by_seed[:1], plots.GREY)):
        fig = plots.differences_by_model(tables.over_seeds(pd.concat(scores)), METRICS)
        assert [t.get_text() for t in fig.axes[0].get_yticklabels()] == ["no supervision"]
        assert [t.get_text() for t in fig.axes[0].texts] == ["not estimable"] and not fig.axes[3].texts
        dots = {ax.get_title(): ax.lines[0] for ax in fig.axes if not ax.texts}
        assert dots["Spearman per gene,\nmedian"].get_color() == colour
        assert dots["unseen cohort as\nexpected"].get_color() == plots.GREY
    assert dots["Spearman per gene,\nmedian"].get_markerfacecolor() == "white"
    fig, ax = plt.subplots()
    shown = pd.DataFrame({"method": ["all", "all"], "label": ["a", "b"], "value": 0.5, "low": 0.4, "high": 0.6, "n": 9})
    plots.dots_with_interval(ax, shown, {"a": "a", "b": "b"}, "share", {})
    plots.published_pairs(ax, shown, {("all", "b"): 0.7, ("other", "a"): 0.1})
    assert ax.collections[-1].get_offsets().tolist() == [[0.7, pytest.approx(0.87)]]
    plt.close("all")


@pytest.mark.parametrize("trials", [0, 3])
def test_the_search_is_drawn_with_and_without_trials(trials):
    table = pd.DataFrame(columns=["latent", "batch_size", "loss", "state"])
    if trials:
        states = ["complete", "pruned", "failed"]
        table = pd.DataFrame({"latent": [20, 60, 100], "batch_size": 32, "loss": [1, 2, np.nan], "state": states})
    fig = plots.tissue_search(table, [(105, 32), (67, 128)])
    marks = [len(c.get_offsets()) for c in fig.axes[0].collections]
    assert marks == ([1, 1, 2] if trials else [2])
    plt.close("all")
