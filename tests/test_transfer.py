"""Transfer to an unseen cohort: harmonising, neighbours, expected tissues, abstention, cohorts with few genes."""

from types import SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from lib import abstention, config, own_cohort, transfer
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


def test_values_that_are_no_numbers_and_an_empty_reference_are_named():
    cohort = a_cohort()
    cohort.X[0, 1] = np.nan  # over the cohort it would take the whole gene with it
    for how in transfer.HARMONISE:
        with pytest.raises(ValueError, match=r"^cohort: found 1 NaN or infinite values, expected none$"):
            transfer.harmonise(cohort, how, np.zeros(12))
    del cohort.var["missing"]
    with pytest.raises(ValueError, match=r"^cohort\.var: found no missing"):
        transfer.harmonise(cohort, "none")
    with pytest.raises(ValueError, match=r"^reference: found no labelled samples"):
        transfer.nearest(np.empty((0, 3)), np.zeros((2, 3)), 5)


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
    assert transfer.estimate(hits[3:]).n == 0
    assert transfer.estimate(hits)[:1] + transfer.estimate(hits)[3:] == (1 / 3, 3)


def a_model(Z, seed=0):
    """Codes of 40 reference samples, all blood, and of a cohort of 6 AML and 4 CCSK that are Z."""
    rng = np.random.default_rng(seed)
    obs = pd.DataFrame({"tissue": "blood", "split": np.repeat(["train", "test"], 20)}, index=map(str, range(40)))
    groups = pd.DataFrame({"group": ["AML"] * 6 + ["CCSK"] * 4, "sample": [f"s{i}" for i in range(10)]})
    return transfer.Trained({"cohort": ad.AnnData(Z, obs=groups)}, ad.AnnData(rng.normal(size=(40, 3)), obs=obs))


def test_combinations_count_groups_without_expected_tissues_apart():
    models = {1: a_model(np.random.default_rng(1).normal(size=(10, 3)))}
    table = transfer.combinations(models, {"code": EXPECTED}, 50, 0).set_index("reference")
    assert table.loc["test", ["value", "n", "value_with_expected", "n_with_expected"]].tolist() == [0.6, 10, 1.0, 6]
    assert table["reference_n"].to_dict() == {"test": 20, "train": 20, "all": 40}
    assert table.loc["test", "high_with_expected"] == 1 and 0.5 < table.loc["test", "low_with_expected"] < 1


def two_tissues(wrong):
    """A model that calls `wrong` of ten AML samples brain: blood lies at 0, brain at 50."""
    rng = np.random.default_rng(0)
    tissue = np.repeat(["blood", "brain"], 50)
    Z = rng.normal(size=(100, 3)) + 50 * (tissue == "brain")[:, None]
    cohort = rng.normal(size=(10, 3)) + 50 * (np.arange(10) < wrong)[:, None]
    obs = pd.DataFrame({"group": ["AML"] * 10, "sample": [f"s{i}" for i in range(10)]})
    compendium = ad.AnnData(Z, obs=pd.DataFrame({"tissue": tissue, "split": ["train", "test"] * 50}))
    return transfer.Trained({"cohort": ad.AnnData(cohort, obs=obs)}, compendium)


def test_the_interval_covers_models_that_differ_and_not_only_their_samples():
    alike, apart = ({0: two_tissues(a), 1: two_tissues(b)} for a, b in ((5, 5), (1, 9)))
    known = {"blood", "brain"}
    same, differ = (
        transfer.agreement(transfer.calls_by(models, "cohort", "test"), EXPECTED, known, 400, 0)
        for models in (alike, apart)
    )
    assert same.value == differ.value == 0.5 and (same.n, same.seeds) == (10, 2)
    assert differ.high - differ.low > same.high - same.low  # the second model's calls could have been the only ones
    by_seed = transfer.by_seed(apart, EXPECTED, 50, 0).set_index("model")
    assert by_seed["value"].to_dict() == {"0": 0.9, "1": 0.1, "all": 0.5} and by_seed.loc["all", "seeds"] == 2


def test_table_s2_has_counts_of_one_model_and_names_tissues_that_the_reference_lacks():
    models = {0: two_tissues(2), 1: two_tissues(4)}
    table = transfer.by_group(models, {"code": {"AML": ["blood", "bone marrow"]}}, 50, 0).set_index("group")
    assert table.loc["AML", ["n", "hits", "value"]].tolist() == [10, 7, 0.7]
    assert table.loc["AML", "expected"] == "blood, bone marrow (not in reference)"
    assert table.loc["AML", "commonest_calls"] == "blood 7; brain 3"


def test_fractions_follow_the_papers_order_and_add_up():
    groups = pd.Series(["CCSK", "AML", "AML", "mine"])
    table = transfer.fractions(groups, np.array(["kidney", "blood", "brain", "skin"]), EXPECTED)
    assert list(dict.fromkeys(table["group"])) == ["AML", "CCSK", "mine"]
    assert table.groupby("group")["fraction"].sum().eq(1).all()
    assert table.loc[table["expected"], "tissue"].tolist() == ["blood"]


def test_sensitivity_without_doubt_is_none_and_k_counts():
    table = transfer.sensitivity({0: two_tissues(0)}, EXPECTED, 20, 0)
    few = table[table["k"] <= 10]
    assert (few[["value", "five_fold"]] == 1).all(axis=None) and (few[["fold_sd", "calls_changed"]] == 0).all(axis=None)
    assert len(table) == 15 and (few["low"] < 1).all() and (few["difference"] == 0).all()


def test_sensitivity_shows_what_k_does():
    """Two blood samples lie among the cohort, thirty of brain a little further: 1 neighbour is right, 25 are not."""
    Z = np.vstack([np.zeros((2, 2)), np.ones((30, 2))])
    obs = pd.DataFrame({"tissue": ["blood"] * 2 + ["brain"] * 30, "split": "test"})
    cohort = ad.AnnData(np.zeros((8, 2)), obs=pd.DataFrame({"group": "AML", "sample": list("abcdefgh")}))
    both = ad.AnnData(np.vstack([Z, Z]), obs=pd.concat([obs, obs.assign(split="train")]).reset_index(drop=True))
    table = transfer.sensitivity({0: transfer.Trained({"cohort": cohort}, both)}, EXPECTED, 20, 0)
    test = table[table["reference"] == "test"].set_index("k")
    assert test["value"].to_dict() == {1: 1, 3: 1, 5: 0, 10: 0, 25: 0}
    assert test.loc[1, ["difference", "difference_low", "difference_high"]].tolist() == [1, 1, 1]


def a_reference(n=1500, per_study=1, spread=0.0, seed=0):
    """Codes of one tissue; samples of a study lie within `spread` of its own centre."""
    rng = np.random.default_rng(seed)
    study = np.arange(n) // per_study
    Z = rng.normal(size=(study.max() + 1, 6))[study] * spread + rng.normal(size=(n, 6))
    obs = pd.DataFrame({"tissue": "blood", "study": [f"GSE{s}" for s in study]}, index=[f"r{i}" for i in range(n)])
    return ad.AnnData(Z, obs=obs)


@pytest.mark.parametrize("level", [0.02, 0.05, 0.2])
def test_held_out_reference_samples_are_too_far_at_the_stated_level(level):
    own = abstention.held_out_ratios(a_reference(), level=level)
    share = (own["ratio"] > 1).mean()
    assert len(own) == 1500 and abs(share - level) < 3 * np.sqrt(level * (1 - level) / 1500) + 0.005


def test_the_threshold_is_for_a_new_study_and_not_for_a_new_sample_of_a_known_one():
    reference = a_reference(600, per_study=20, spread=3)
    by_study = abstention.limit(reference)
    by_sample = abstention.too_far(transfer.nearest(reference.X, reference.X, 6)[0][:, -1])
    assert by_study > 1.3 * by_sample
    new_studies = a_reference(400, per_study=20, spread=3, seed=5).X
    distances = transfer.nearest(reference.X, new_studies, 5)[0][:, -1]
    assert (distances > by_study).mean() < 0.2 < (distances > by_sample).mean()
    found = abstention.threshold(reference)
    assert (found.value, found.n, found.studies) == (by_study, 600, 30) and found.low < by_study < found.high


def test_what_one_study_alone_has_does_not_set_the_threshold():
    reference = a_reference(200)
    lonely = reference.copy()
    lonely.obs["study"] = np.where(np.arange(200) < 20, "GSE0", lonely.obs["study"])
    lonely.obs["tissue"] = np.where(np.arange(200) < 20, "eye", "blood")
    lonely.X[:20] += 100
    distances = abstention.calibration_distances(lonely)
    assert np.isnan(distances[:20]).all() and not np.isnan(distances[20:]).any()
    assert abstention.limit(lonely) < 10
    one_study = reference[:20].copy()
    one_study.obs["study"] = "GSE0"
    assert abstention.threshold(one_study) == (np.inf, np.inf, np.inf, 0, 0)
    assert not len(abstention.held_out_ratios(one_study))


def test_points_far_away_are_flagged_and_a_reference_too_small_for_the_level_flags_nothing():
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(200, 6))
    threshold = abstention.limit(
        ad.AnnData(Z, obs=pd.DataFrame({"tissue": "blood"}, index=[f"r{i}" for i in range(200)]))
    )
    assert (transfer.nearest(Z, rng.normal(size=(50, 6)) + 10, 5)[0][:, -1] > threshold).all()
    assert abstention.too_far(np.arange(10.0), 0.05) == np.inf
    assert abstention.too_far(np.arange(1.0, 101), 0.05) == 96  # the ceil(101 · 0.95)-th smallest of 100
    with pytest.raises(ValueError, match=r"level: found 1\.5 with 3 distances"):
        abstention.too_far([1.0, 2, 3], 1.5)


def test_abstention_by_group_tells_a_far_group_from_a_near_one():
    rng = np.random.default_rng(0)
    reference = a_reference(200)
    reference.obs["split"] = "test"
    Z = np.vstack([rng.normal(size=(40, 6)), rng.normal(size=(10, 6)) + 9])
    obs = pd.DataFrame({"group": ["AML"] * 40 + ["CCSK"] * 10, "sample": [f"s{i}" for i in range(50)]})
    models = {0: transfer.Trained({"cohort": ad.AnnData(Z[:, :], obs=obs), "none": ad.AnnData(Z, obs=obs)}, reference)}
    found = abstention.distances(models, 50, 0)
    table = abstention.by_group(found.ratios, EXPECTED, {"blood"}, 50, 0)
    rows = table[table["harmonise"] == "none"].set_index("group")
    assert rows.loc["CCSK", ["value", "further_than_others", "far_of_misses"]].tolist() == [1, 1, 1]
    assert rows.loc["CCSK", "low"] > 0.5 and rows.loc["AML", "value"] < 0.2
    assert rows.loc[abstention.HELD_OUT, "n"] == 200
    said = abstention.in_words(table, found.thresholds, answerable=True)
    assert "stands on 200 reference samples of 200 studies" in said and "flagged by cohort, none" in said


def test_words_say_when_harmonising_hides_that_a_cohort_is_like_nothing_known():
    rows = [("cohort", "AML", 0.01), ("none", "AML", 0.99), ("cohort", abstention.HELD_OUT, 0.05)]
    table = pd.DataFrame(rows, columns=["harmonise", "group", "value"]).assign(low=0, high=1, n=9)
    thresholds = pd.DataFrame({"threshold": [1.0], "threshold_low": 0.9, "threshold_high": 1.1, "threshold_n": 9})
    said = abstention.in_words(table, thresholds.assign(studies=3), answerable=False)
    assert "takes away what sets a cohort apart" in said and "every call is wrong" in said
    table["value"] = [0.9, 0.99, 0.05]
    assert "takes away" not in abstention.in_words(table, thresholds.assign(studies=3), answerable=True)


def test_a_cohort_with_all_genes_in_any_order_is_called_rightly(trained):
    model, held, cohort = trained
    shuffled = cohort[:, np.random.default_rng(0).permutation(cohort.var_names)].to_memory()
    scored = own_cohort.score_cohort(model, held, shuffled)
    assert (scored.calls["called"].to_numpy() == held.obs["tissue"].to_numpy()).mean() > 0.95
    assert (scored.genes_found, scored.genes_expected) == (40, 40)
    assert scored.calls.index.equals(cohort.obs_names)


def test_a_cohort_with_few_genes_says_so_and_what_its_calls_are_worth(trained):
    model, held, cohort = trained
    informative = own_cohort.score_cohort(model, held, cohort[:, :10].to_memory())
    useless = own_cohort.score_cohort(model, held, cohort[:, 20:].to_memory())
    assert (informative.genes_found, informative.genes_expected) == (10, 40)
    assert informative.reference_accuracy.value > 0.9 > useless.reference_accuracy.value


def test_reference_samples_without_a_tissue_do_not_vote(trained):
    model, held, cohort = trained
    some = held.copy()
    some.obs["tissue"] = some.obs["tissue"].where(np.arange(some.n_obs) % 3 > 0)
    unseen = cohort.copy()
    unseen.obs["group"], unseen.var["missing"] = "AML", False
    table = own_cohort.few_genes(model, some, unseen, {"AML": ["blood", "brain"]}, 0)
    assert (table["value"] == 1).all()  # any other call, "nan" for one, would be a miss
    assert (table["reference_n"] == some.obs["tissue"].notna().sum()).all()


def test_panels_are_scored_by_group_and_what_cannot_be_scored_says_why(trained, tmp_path):
    model, held, cohort = trained
    panel = pd.DataFrame(cohort.X[:, :10].clip(min=0), cohort.obs_names, cohort.var_names[:10])
    panel.to_csv(tmp_path / "panel.csv")
    groups = held.obs["tissue"].map({"blood": "AML", "brain": "glioma"}).to_frame("disease")
    groups.to_csv(tmp_path / "groups.csv", index_label="sample")
    known = {"file": "panel.csv", "samples": "groups.csv", "unit": "log2", "columns": config.Columns(group="disease")}
    panels = {
        "both": config.Panel(**known, expected={"AML": ["blood"], "glioma": ["nerve"]}),
        "by ids": config.Panel(**known, gene_ids="table.txt", expected={}),
    }
    run = SimpleNamespace(raw=tmp_path, data=SimpleNamespace(kind="files", panels=panels))
    table = own_cohort.panels(run, model, held).set_index(["panel", "harmonise", "group"])
    assert table.loc[("both", "none", "AML"), ["value", "n", "genes"]].tolist() == [1, 30, 10]
    assert "no expected tissue" in table.loc[("both", "none", "glioma"), "reason"]
    assert table.loc[("both", "none", "all"), "n"] == 30  # glioma can't be asked
    said = own_cohort.panels_in_words(table.reset_index())
    assert "by ids: not estimable (table.txt: found no such gene table" in said and "10 of 40 genes" in said


def test_genes_that_the_model_does_not_know_change_nothing(trained):
    model, held, cohort = trained
    extra = ad.AnnData(np.ones((cohort.n_obs, 3)), obs=cohort.obs, var=pd.DataFrame(index=["X1", "X2", "X3"]))
    more = ad.concat([cohort, extra], axis=1, merge="same")
    one, other = (own_cohort.score_cohort(model, held, c, "reference") for c in (cohort, more))
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
