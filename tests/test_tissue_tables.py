"""Tables of paper B on cases whose answer is known."""

from itertools import product

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from lib import config, tissue_tables
from lib.metrics.reconstruction import masked_spearman
from lib.models.tissue_vae import TissueVAE, random_mask
from lib.tissue_baselines import Benchmark, Method

BY = config.load("smoke").evaluation


def test_paired_difference_has_the_sign_of_the_gain():
    truth = np.repeat(["a", "b"], 100)
    worse = truth.copy()
    worse[:30] = "b"
    calls = {"tissue VAE": truth, "guess": worse}
    table = tissue_tables.tissue_scores(truth, calls, "tissue VAE", BY, 0).assign(seed=0)
    row = table.set_index("method").loc["guess"]
    assert row["difference"] == pytest.approx(0.15)
    assert 0 < row["difference_low"] < 0.15 < row["difference_high"]
    said = tissue_tables.tissue_in_words(table)
    assert "better than 1, worse than 0" in said and "guess 0.850 (+15.0, " in said


def test_words_cover_the_spread_between_seeds_and_stay_short():
    row = {
        "n": 9,
        "classes": 2,
        "balanced_accuracy": 0.9,
        "balanced_accuracy_low": 0.89,
        "balanced_accuracy_high": 0.91,
    }
    rows = [
        row | {"method": method, "seed": seed, "weighted_f1": 0.9, "difference": gain} | bounds
        for seed, gain in enumerate((0.01, 0.05, 0.09))
        for method, bounds in (
            ("tissue VAE", {"difference_low": 0, "difference_high": 0}),
            ("unsteady", {"difference_low": gain - 0.005, "difference_high": gain + 0.005}),
        )
    ]
    said = tissue_tables.tissue_in_words(pd.DataFrame(rows))
    assert "better than 0, worse than 0 and not distinguishable from 1" in said  # each seed's own interval excludes 0
    assert "unsteady 0.900 (+5.0, -4.9 to +14.9)" in said and len(said) < 330


def split_with(right, tissues=("liver", "skin"), studies=10):
    """A split in whose every study a share `right` of ten samples is called right."""
    test = pd.DataFrame({"tissue": np.repeat(tissues, 10 * studies)})
    test["group"] = np.tile(np.repeat(np.arange(studies), 10), len(tissues)).astype(str)
    calls = np.where(np.arange(len(test)) % 10 < 10 * right, test["tissue"], "wrong")
    return Benchmark(test, {"tissue VAE": Method(calls.astype(str), 2, "supervised VAE")})


def test_a_leak_is_the_gap_between_the_splits():
    table = tissue_tables.leak({"sample": split_with(0.9), "study": split_with(0.6)}, BY, 0)
    assert table.loc[0, ["sample_split", "study_split", "gap"]].tolist() == pytest.approx([0.9, 0.6, 0.3])
    assert table.loc[0, ["gap_low", "gap_high"]].tolist() == pytest.approx([0.3, 0.3])  # studies do not differ
    assert "a leak" in tissue_tables.leak_in_words(table, 0.8, 3)


def test_only_tissues_of_both_splits_count_and_one_split_has_no_gap():
    more = split_with(0.6, ("liver", "skin", "lung"))
    table = tissue_tables.leak({"sample": split_with(0.9), "study": more}, BY, 0)
    assert table.loc[0, ["tissues", "n_study_split"]].tolist() == [2, 200]
    alone = tissue_tables.leak({"sample": split_with(0.9)}, BY, 0)
    nothing_shared = tissue_tables.leak({"sample": split_with(0.9), "study": split_with(0.6, ("lung", "eye"))}, BY, 0)
    for table in (alone, nothing_shared):
        assert table["gap"].isna().all() and "not estimable" in tissue_tables.leak_in_words(table, 0.8, 3)


def test_relatives_are_samples_of_one_study_or_donor():
    obs = pd.DataFrame({"donor": ["d1", "d1", "", "", ""], "study": ["", "", "s1", "s2", "s3"]}, index=list("abcde"))
    obs["split_sample"] = ["train", "test", "test", "train", "test"]
    assert tissue_tables.with_relatives(obs) == pytest.approx(1 / 3)


def test_constant_genes_and_samples_are_counted_not_scored():
    X = np.random.default_rng(0).normal(size=(30, 20)).astype(np.float32)
    flat = X.copy()
    flat[:, :3], flat[4] = 0.5, 0.5
    per_gene, per_sample, table = tissue_tables.reconstruction(X, {"good": 2 * X, "flat": flat}, BY, 0)
    rows = table.set_index(["quantity", "model"])
    assert rows["constant"].tolist() == [0, 3, 0, 1]
    assert rows.loc[("per gene", "good"), "median"] == pytest.approx(1)
    assert per_gene["flat"].isna().sum() == 3
    assert per_sample["flat"].isna().sum() == 1
    assert rows.loc[("per gene", "flat"), "n"] == 17


def test_imputation_scores_masked_values_of_all_and_of_the_first_500():
    X = np.random.default_rng(0).normal(size=(600, 20)).astype(np.float32)
    test = ad.AnnData(X, pd.DataFrame({"tissue": np.tile(["a", "b"], 300)}, index=[f"s{i}" for i in range(600)]))
    settings = dict(latent=4, supervisor_hidden=4, hidden_factor=0.5, max_epochs=1, device="cpu")
    vaes = {variant: TissueVAE(**settings, variant=variant).fit(test) for variant in ("corrected", "faithful")}
    table = tissue_tables.imputation(vaes, test, BY, 0)
    assert table["n"].tolist() == [600, 500] * 6 and table["values"].tolist()[:2] == [1200, 1000]
    rows = table.set_index(["model", "masked", "samples"])
    for name, fraction in product(vaes, tissue_tables.FRACTIONS):
        mask = random_mask(600, 20, fraction, 0)
        imputed = vaes[name].impute(test, mask)
        for scope, n in (("all", 600), ("first 500", 500)):
            expected = masked_spearman(X[:n], imputed[:n], mask[:n], BY.bootstrap, 0)
            assert rows.loc[(name, fraction, scope), ["rho", "low", "high"]].tolist() == list(expected[:3])


def test_mixing_stands_beside_its_expectation_and_one_source_has_none():
    rng = np.random.default_rng(0)
    tissue, source = pd.Series(np.repeat(["liver", "skin"], 60)), pd.Series(["GTEx", "TCGA"] * 60)
    Z = rng.normal(size=(120, 4)) + 50 * (tissue == "skin").to_numpy()[:, None]
    overall, by_tissue = tissue_tables.source_mixing(Z, source, tissue, BY, 0)
    assert overall["mean"].tolist() == pytest.approx(overall["expected"].tolist(), abs=0.1)
    assert by_tissue["tissue"].tolist() == ["liver", "skin"] * 2
    apart, _ = tissue_tables.source_mixing(Z + 200 * (source == "TCGA").to_numpy()[:, None], source, tissue, BY, 0)
    assert apart["mean"].tolist() == pytest.approx([0, 1])
    own, _ = tissue_tables.source_mixing(Z, tissue, tissue, BY, 0)  # every tissue has a source of its own
    assert own["expected"].tolist() == pytest.approx([0, 1]) and "not estimable" in tissue_tables.mixing_in_words(own)
    alone, _ = tissue_tables.source_mixing(Z, pd.Series([""] * 120), tissue, BY, 0)
    assert alone["mean"].isna().all()
    assert "not estimable" in tissue_tables.mixing_in_words(alone)
