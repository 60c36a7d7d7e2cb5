"""Transfer to an unseen cohort: harmonising, neighbours, expected tissues, abstention, cohorts with few genes."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from lib import abstention, own_cohort, transfer
from lib.metrics.classification import knn_predict
from lib.models.tissue_vae import TissueVAE

EXPECTED = {"AML": ["blood"], "CCSK": []}


def a_cohort(n=30, genes=12, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.gamma(2, 2, size=(n, genes)).astype(np.float32)
    var = pd.DataFrame({"mean": 4.0, "sd": 2.0, "missing": False}, index=[f"G{i}" for i in range(genes)])
    obs = pd.DataFrame({"group": ["AML", "CCSK"] * (n // 2)}, index=[f"s{i}" for i in range(n)])
    return ad.AnnData(X, obs=obs, var=var, uns={"unit": "log2(TPM+1)"})


@pytest.fixture(scope="module")
def trained():
    """(model, reference in z-scores, a cohort like it, log2(TPM+1)): two tissues, far apart, 40 genes."""
    rng = np.random.default_rng(1)
    tissue = np.repeat(["blood", "brain"], 60)
    Z = rng.normal(size=(120, 40)) + np.where(tissue == "blood", 2, -2)[:, None] * (np.arange(40) < 20)
    var = pd.DataFrame({"mean": 5.0, "sd": 2.0}, index=[f"G{i}" for i in range(40)])
    obs = pd.DataFrame({"tissue": tissue}, index=[f"r{i}" for i in range(120)])
    reference = ad.AnnData(Z.astype(np.float32), obs=obs, var=var)
    model = TissueVAE(latent=8, hidden_factor=0.5, max_epochs=8, seed=1, device="cpu").fit(reference[::2].to_memory())
    held = reference[1::2].to_memory()
    cohort = ad.AnnData(held.X * 2 + 5, obs=pd.DataFrame(index=held.obs_names), var=var[[]])
    return model, held, cohort


@pytest.mark.parametrize("how", ["none", "reference"])
def test_a_sample_alone_scores_as_it_does_within_its_cohort(how):
    cohort = a_cohort()
    quantiles = np.linspace(0, 9, cohort.n_vars)
    together = transfer.harmonise(cohort, how, quantiles)
    alone = transfer.harmonise(cohort[3:4].to_memory(), how, quantiles)
    np.testing.assert_array_equal(alone.X[0], together.X[3])


def test_harmonised_over_the_cohort_every_gene_has_mean_0_and_sd_1_and_absent_or_constant_ones_are_0():
    cohort = a_cohort()
    cohort.X[:, 2] = 7.1
    cohort.var.loc["G4", "missing"] = True
    Z = transfer.harmonise(cohort, "cohort").X
    assert (Z[:, [2, 4]] == 0).all()
    varying = np.delete(Z, [2, 4], axis=1)
    np.testing.assert_allclose(varying.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(varying.std(axis=0), 1, atol=1e-5)


def test_no_harmonisation_is_the_training_parts_z_score():
    cohort = a_cohort()
    np.testing.assert_allclose(transfer.harmonise(cohort, "none").X, (cohort.X - 4) / 2, rtol=1e-6)


def test_reference_quantiles_of_like_samples_give_them_back():
    cohort = a_cohort(n=2)
    cohort.X[1] = np.random.default_rng(3).permutation(cohort.X[0])
    quantiles = transfer.reference_quantiles(cohort, np.ones(cohort.n_vars, bool))
    np.testing.assert_allclose(transfer.to_quantiles(cohort.X, quantiles), cohort.X, rtol=1e-5)
    tied = transfer.to_quantiles(np.array([[0.0, 0.0, 5.0]]), np.array([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(tied, [[1.5, 1.5, 3.0]])


def test_harmonise_refuses_what_it_cannot_do():
    cohort = a_cohort()
    with pytest.raises(ValueError, match=r"how: found 'combat', expected one of cohort, none, reference"):
        transfer.harmonise(cohort, "combat")
    with pytest.raises(ValueError, match=r"quantiles: found none, expected one for each of the 12"):
        transfer.harmonise(cohort, "reference")
    with pytest.raises(ValueError, match=r"cohort: found 1 sample"):
        transfer.harmonise(cohort[:1].to_memory(), "cohort")


def test_calls_are_those_of_scikit_learns_classifier():
    rng = np.random.default_rng(0)
    reference = ad.AnnData(rng.normal(size=(80, 5)), obs=pd.DataFrame({"tissue": rng.choice(["a", "b", "c"], 80)}))
    Z = rng.normal(size=(40, 5))
    calls = transfer.knn_calls(reference, Z, 4)  # even, so that votes tie
    assert (calls["called"] == knn_predict(reference.X, reference.obs["tissue"], Z, 4, "euclidean")).all()
    assert calls["share"].between(0.25, 1).all()


def test_a_group_without_expected_tissues_is_missed_and_one_whose_tissues_are_unknown_is_not_asked():
    groups = pd.Series(["AML", "AML", "CCSK", "NBL"])
    called = np.array(["blood", "brain", "blood", "blood"])
    hits = transfer.as_expected(groups, called, EXPECTED | {"NBL": ["nerve"]}, {"blood", "brain"})
    np.testing.assert_array_equal(hits, [1, 0, 0, np.nan])
    assert transfer.estimate(hits[3:], 10, 0).n == 0


def test_combinations_count_groups_without_expected_tissues_apart():
    rng = np.random.default_rng(0)
    parts = np.repeat(["train", "test"], 20)
    embedding = ad.AnnData(rng.normal(size=(40, 3)), obs=pd.DataFrame({"tissue": "blood", "split": parts}))
    cohort = ad.AnnData(rng.normal(size=(10, 3)), obs=pd.DataFrame({"group": ["AML"] * 6 + ["CCSK"] * 4}))
    table = transfer.combinations({"none": cohort}, embedding, {"code": EXPECTED}, 50, 0).set_index("reference")
    assert table.loc["test", ["value", "n", "value_with_expected", "n_with_expected"]].tolist() == [0.6, 10, 1.0, 6]
    assert table["reference_n"].to_dict() == {"test": 20, "train": 20, "all": 40}


def test_fractions_follow_the_papers_order_and_add_up():
    groups = pd.Series(["CCSK", "AML", "AML", "mine"])
    table = transfer.fractions(groups, np.array(["kidney", "blood", "brain", "skin"]), EXPECTED)
    assert list(dict.fromkeys(table["group"])) == ["AML", "CCSK", "mine"]
    assert table.groupby("group")["fraction"].sum().eq(1).all()
    assert table.loc[table["expected"], "tissue"].tolist() == ["blood"]


def test_sensitivity_without_doubt_is_none():
    rng = np.random.default_rng(0)
    tissue = np.repeat(["blood", "brain"], 50)
    Z = rng.normal(size=(100, 3)) + 50 * (tissue == "brain")[:, None]
    embedding = ad.AnnData(Z, obs=pd.DataFrame({"tissue": tissue, "split": ["train", "test"] * 50}))
    cohort = ad.AnnData(rng.normal(size=(10, 3)), obs=pd.DataFrame({"group": ["AML"] * 10}))
    table = transfer.sensitivity(cohort, embedding, EXPECTED, 20, 0)
    few = table[table["k"] <= 10]
    assert (few["value"] == 1).all() and (few["fold_sd"] == 0).all() and (few["calls_changed"] == 0).all()
    assert len(table) == 15


@pytest.mark.parametrize("level", [0.02, 0.05, 0.2])
def test_held_out_reference_samples_are_too_far_at_the_stated_level(level):
    Z = np.random.default_rng(0).normal(size=(1500, 6))
    share = (abstention.held_out_ratios(Z, level=level) > 1).mean()
    assert abs(share - level) < 3 * np.sqrt(level * (1 - level) / 1500) + 0.005


def test_points_far_away_are_flagged_and_a_reference_too_small_for_the_level_flags_nothing():
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(200, 6))
    threshold = abstention.too_far(abstention.own_distances(Z))
    assert (transfer.nearest(Z, rng.normal(size=(50, 6)) + 10, 5)[0][:, -1] > threshold).all()
    assert abstention.too_far(np.arange(10.0), 0.05) == np.inf
    assert abstention.too_far(np.arange(1.0, 101), 0.05) == 96  # the ceil(101 · 0.95)-th smallest of 100
    with pytest.raises(ValueError, match=r"level: found 1\.5 with 3 distances"):
        abstention.too_far([1.0, 2, 3], 1.5)


def test_abstention_by_group_tells_a_far_group_from_a_near_one():
    rng = np.random.default_rng(0)
    part = ad.AnnData(rng.normal(size=(200, 4)), obs=pd.DataFrame({"tissue": ["blood"] * 200}))
    Z = np.vstack([rng.normal(size=(40, 4)), rng.normal(size=(10, 4)) + 9])
    cohort = ad.AnnData(Z, obs=pd.DataFrame({"group": ["AML"] * 40 + ["CCSK"] * 10}))
    ratios = abstention.distance_ratios({"none": cohort}, part, 0)
    table = abstention.by_group(ratios, EXPECTED, {"blood"}, 50, 0).set_index("group")
    assert table.loc["CCSK", ["value", "further_than_others", "far_of_misses"]].tolist() == [1, 1, 1]
    assert table.loc["AML", "value"] < 0.2
    assert table.loc[abstention.HELD_OUT, "n"] == 200
    assert "Of held-out reference samples" in abstention.in_words(table.reset_index())


def test_a_cohort_with_all_genes_in_any_order_is_called_rightly(trained):
    model, held, cohort = trained
    shuffled = cohort[:, np.random.default_rng(0).permutation(cohort.var_names)].to_memory()
    scored = own_cohort.score_cohort(model, held, shuffled, n_boot=20)
    assert (scored.calls["called"].to_numpy() == held.obs["tissue"].to_numpy()).mean() > 0.95
    assert (scored.genes_found, scored.genes_expected) == (40, 40)
    assert scored.calls.index.equals(cohort.obs_names)


def test_a_cohort_with_few_genes_says_so_and_what_its_calls_are_worth(trained):
    model, held, cohort = trained
    informative = own_cohort.score_cohort(model, held, cohort[:, :10].to_memory(), n_boot=20)
    useless = own_cohort.score_cohort(model, held, cohort[:, 20:].to_memory(), n_boot=20)
    assert (informative.genes_found, informative.genes_expected) == (10, 40)
    assert informative.reference_accuracy.value > 0.9 > useless.reference_accuracy.value


def test_genes_that_the_model_does_not_know_change_nothing(trained):
    model, held, cohort = trained
    extra = ad.AnnData(np.ones((cohort.n_obs, 3)), obs=cohort.obs, var=pd.DataFrame(index=["X1", "X2", "X3"]))
    more = ad.concat([cohort, extra], axis=1, merge="same")
    one, other = (own_cohort.score_cohort(model, held, c, "reference", n_boot=20) for c in (cohort, more))
    pd.testing.assert_frame_equal(one.calls, other.calls)


def test_a_cohort_that_does_not_fit_is_refused_in_a_line(trained):
    model, held, cohort = trained
    foreign = cohort.copy()
    foreign.var_names = [f"ENSG{i}" for i in range(40)]
    with pytest.raises(
        ValueError, match=r"cohort: found no gene of the model \(ENSG0, ENSG1 …\), expected symbols like"
    ):
        own_cohort.score_cohort(model, held, foreign)
    twice = cohort.copy()
    twice.var_names = ["G0", *twice.var_names[:-1]]
    with pytest.raises(ValueError, match="found gene 'G0' twice"):
        own_cohort.score_cohort(model, held, twice)
    broken = cohort.copy()
    broken.X[0, 0] = np.nan
    with pytest.raises(ValueError, match="found 1 NaN or infinite"):
        own_cohort.score_cohort(model, held, broken)
