"""Alignment metrics against the original tools (tests/golden), closed forms, and bad input."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist, pdist
from scipy.stats import chi2, pearsonr

from lib.curation import mad
from lib.metrics import pvca as pvca_module
from lib.metrics.alignment import (
    delta_d,
    delta_d_per_type,
    kbet,
    match_rate,
    pvca,
    truth_scores,
    within_type_variance_kept,
)
from lib.metrics.correlation import unit_rows
from lib.metrics.kbet import left_out

GOLDEN = Path(__file__).parent / "golden"
FIXED = pd.read_csv(GOLDEN / "kbet/summary_fixed.csv")
STOCHASTIC = pd.read_csv(GOLDEN / "kbet/summary_stochastic.csv")
PVCA = pd.read_csv(GOLDEN / "pvca/pvca_summary.csv")


def kbet_case(name):
    table = pd.read_csv(GOLDEN / f"kbet/{name}.csv")
    return table.filter(regex="^x").to_numpy(), table["batch"]


def two_kinds(n=30, p=12, shift=1.0, seed=0):
    rng = np.random.default_rng(seed)
    batch = np.repeat(["tumour", "cell line"], n)
    return rng.normal(size=(2 * n, p)) + shift * (batch == "tumour")[:, None], batch


# ---------------------------------------------------------------------------------------------- ΔD


def test_delta_d_equals_its_definition_and_keeps_its_sign():
    X, batch = two_kinds(n=40, shift=1.5)
    a, b = X[batch == "tumour"] + 1e4, X[batch != "tumour"] + 1e4  # a large mean must not cost precision
    expected = np.median(cdist(a, b)) - (np.median(pdist(a)) + np.median(pdist(b))) / 2
    assert delta_d(np.vstack([a, b]), batch) == pytest.approx(expected, abs=1e-9)
    assert expected > 0.5
    assert abs(delta_d(two_kinds(shift=0)[0], batch[:60])) < 0.2


def test_delta_d_pools_the_pairs_of_three_unbalanced_batches():
    X = np.random.default_rng(1).normal(size=(700, 5))
    batch = np.array(["a"] * 600 + ["b"] * 97 + ["c"] * 3)
    a, b, c = (X[batch == name] for name in "abc")
    inter = np.concatenate([cdist(a, b).ravel(), cdist(a, c).ravel(), cdist(b, c).ravel()])
    expected = np.median(inter) - np.mean([np.median(pdist(group)) for group in (a, b, c)])
    assert delta_d(X, pd.Series(batch, index=range(700, 0, -1))) == pytest.approx(expected, abs=1e-12)
    assert delta_d(np.tile([[3.3, 1e3]], (6, 1)), list("aabbcc")) == 0


@pytest.mark.parametrize("batch", [["a"] * 6, ["a"] * 5 + ["b"], ["a", "b", None] * 2, ["a", "b"]])
def test_delta_d_names_bad_labels(batch):
    with pytest.raises(ValueError, match="batch: found"):
        delta_d(np.random.default_rng(0).normal(size=(6, 3)), batch)


def test_delta_d_per_type_states_what_it_skips():
    X, batch = two_kinds(n=30)
    cancer_type = np.array((["breast"] * 12 + ["lung"] * 17 + ["eye"]) * 2)
    cancer_type[29] = "lung"  # leaves one eye line, no eye tumour
    table = delta_d_per_type(X, batch, pd.Categorical(cancer_type))
    lung = cancer_type == "lung"
    assert table.loc["lung", "delta_d"] == pytest.approx(delta_d(X[lung], batch[lung]), abs=1e-12)
    row = table.loc["lung"]
    assert row["ratio"] == pytest.approx(row["delta_d"] / (row["intra_tumour"] + row["intra_cell line"]) * 2)
    assert table.loc["eye", "skipped"] == "1 cell line, 0 tumour: fewer than 10"
    assert list(table["skipped"] == "") == list(table["delta_d"].notna()) == [True, False, True]


# -------------------------------------------------------------------------------------------- kBET


@pytest.mark.parametrize(("case", "k0", "adapt"), list(zip(FIXED["case"], FIXED["k0"], FIXED["adapt"], strict=True)))
def test_kbet_agrees_with_r_at_fixed_k0(case, k0, adapt):
    X, batch = kbet_case(case)
    golden = pd.read_csv(GOLDEN / f"kbet/{case}_pvalues.csv").query("k0 == @k0 and adapt == @adapt")["pvalue"]
    summary = FIXED.query("case == @case and k0 == @k0 and adapt == @adapt").iloc[0]
    result = kbet(X, batch, k0=k0, adapt=adapt, test_size=len(X))
    np.testing.assert_allclose(result.pvalues, golden, atol=1e-12)
    assert result.observed == pytest.approx(summary["observed"], abs=1e-12)
    assert result.expected == pytest.approx(summary["expected"], abs=0.06)  # R's has 3 permutations behind it
    assert result.delta == result.observed - result.expected


@pytest.mark.parametrize("case", ["small40_mixed", "three_half", "outlier_half"])
@pytest.mark.parametrize("do_pca", [False, True])
def test_kbet_random_parts_lie_within_the_spread_of_r_over_seeds(case, do_pca):
    X, batch = kbet_case(case)
    golden = STOCHASTIC[(STOCHASTIC["case"] == case) & (STOCHASTIC["do.pca"] == do_pca)].query("mode == 'default'")
    ours = pd.DataFrame([kbet(X, batch, do_pca=do_pca, seed=seed)[:4] for seed in range(8)])
    ours.columns = ["observed", "expected", "delta", "k0"]
    assert set(ours["k0"]) <= set(golden["k0"])
    assert golden["obs_mean"].min() - 0.02 < ours["observed"].min()
    assert ours["observed"].max() < golden["obs_mean"].max() + 0.02
    assert golden["exp_mean"].min() <= ours["expected"].mean() <= golden["exp_mean"].max()


def test_kbet_definition_on_three_unbalanced_batches():
    rng = np.random.default_rng(3)
    X, batch = rng.normal(size=(90, 4)), rng.permutation(["a"] * 70 + ["b"] * 17 + ["c"] * 3)
    result = kbet(X, batch, k0=15, adapt=False, test_size=90)
    frequencies = np.array([70, 17, 3]) / 90
    for i in (0, 31, 89):
        near = np.argsort(cdist(X[[i]], X)[0])[:15]  # with itself
        counts = np.array([(batch[near] == name).sum() for name in "abc"])
        statistic = ((counts - 15 * frequencies) ** 2 / (15 * frequencies)).sum()
        assert result.pvalues[i] == pytest.approx(chi2.sf(statistic, 2), abs=1e-12)


def test_kbet_is_reproducible_and_reads_any_kind_of_labels():
    X, batch = two_kinds(n=40)
    reference = kbet(X, batch, seed=4)
    for labels in (list(batch), pd.Series(batch, index=range(80, 0, -1)), pd.Categorical(batch)):
        again = kbet(X.copy(), labels, seed=4)
        assert again[:4] == reference[:4] and (again.pvalues == reference.pvalues).all()
    assert reference.observed > 0.5 > reference.expected
    assert kbet(X, batch, seed=5).observed != reference.observed


@pytest.mark.parametrize(
    ("X", "k0", "reason"),
    [
        (two_kinds(n=5)[0], None, "10 samples"),
        (two_kinds(n=12)[0], None, "k0 = 9"),
        (two_kinds(n=30)[0], 9, "k0 = 9"),
        (np.ones((60, 4)), None, "identical"),
    ],
)
def test_kbet_is_nan_with_a_reason_where_r_gives_na(X, k0, reason):
    with pytest.warns(UserWarning, match=reason):
        result = kbet(X, [0, 1] * (len(X) // 2), k0=k0)
    assert np.isnan(result[:3]).all() and np.isnan(result.pvalues).all() and len(result.pvalues) == len(X)


@pytest.mark.parametrize(
    "change",
    [
        {"batch": ["a"] * 60},
        {"batch": [None] + ["a", "b"] * 29 + ["a"]},
        {"X": np.full((60, 3), np.nan)},
        {"k0": 12.5},
        {"alpha": 5},
        {"alpha": "0.05"},
        {"n_repeat": 0},
        {"test_size": 0},
        {"test_size": 7.5},
        {"test_size": "ten"},
        {"dim_pca": 2.5, "do_pca": True},
        {"X": np.random.default_rng(0).normal(size=(60, 80)), "do_pca": True, "dim_pca": 60},
    ],
)
def test_kbet_names_bad_input(change):
    X, batch = two_kinds(n=30)
    with pytest.raises(ValueError, match=r"^(batch|X|k0|alpha|n_repeat|test_size|dim_pca): found"):
        kbet(**({"X": X, "batch": batch} | change))


def test_a_test_size_beyond_n_is_the_default_as_in_r():
    X, batch = two_kinds(n=30)
    assert kbet(X, batch, test_size=61, seed=2)[:4] == kbet(X, batch, seed=2)[:4]
    assert kbet(X, batch, test_size=60.0, seed=2).observed == (kbet(X, batch, seed=2).pvalues < 0.05).mean()


def test_kbet_says_whom_adapt_leaves_out():
    X, batch = kbet_case("outlier_half")
    out = left_out(X, batch, k0=25)
    assert 0 < out.sum() < 10  # R's: outlier_half__fixed_k25_outsider_index1based
    kept = np.asarray(batch)[~out]
    shares = pd.Series(kept).value_counts(normalize=True).sort_index().to_numpy()
    near = np.argsort(cdist(X[[0]], X)[0])[:25]
    counts = np.array([(np.asarray(batch)[near] == name).sum() for name in np.unique(batch)])
    p = chi2.sf(((counts - 25 * shares) ** 2 / (25 * shares)).sum(), len(shares) - 1)
    assert kbet(X, batch, k0=25, adapt=True).pvalues[0] == pytest.approx(p, abs=1e-12)
    assert not left_out(X[:9], batch[:9].where(lambda b: b.index > 0, "other")).any()  # kBET is NaN there


def test_kbet_with_pca_ignores_null_directions():
    X, batch = two_kinds(n=30, p=4)
    padded = np.hstack([X, np.zeros((60, 2)), X[:, :1]])  # rank 4 still
    assert not np.isnan(kbet(padded, batch, do_pca=True).observed)
    assert kbet(X, batch, k0=12, do_pca=True).observed > 0.2


# -------------------------------------------------------------------------------------------- PVCA


@pytest.mark.parametrize("run", PVCA["run"].unique())
def test_pvca_agrees_with_r(run):
    X = np.load(GOLDEN / "pvca/expr.npz", allow_pickle=False)["X"]
    factors = pd.read_csv(GOLDEN / "pvca/factors.csv", index_col="id")
    golden = PVCA[PVCA["run"] == run].set_index("effect")["weighted_avg_proportion"]
    columns = [name for name in factors if name in golden.index]
    shares = pvca(X, factors[columns], float(run[-4:]), interactions="no_interaction" not in run)
    assert list(shares.index) == [*columns, *(name for name in golden.index if ":" in name), "resid"]
    np.testing.assert_allclose(shares[golden.index], golden, atol=2e-4)
    assert shares.sum() == pytest.approx(1)


def test_pvca_equals_anova_for_one_balanced_factor():
    rng = np.random.default_rng(2)
    batch = np.repeat([3, 1, 2], 20)
    X = rng.normal(size=(60, 3)) + 4 * rng.normal(size=(3, 3))[batch - 1]
    shares = pvca(X, pd.DataFrame({"batch": batch}, index=range(60, 0, -1)), threshold=0.01)
    rows = X - X.mean(0)
    values, vectors = np.linalg.eigh(np.corrcoef(rows))
    y = vectors[:, -2:]  # rank 2: the third component has no weight
    means = np.stack([y[batch == level].mean(0) for level in (1, 2, 3)])
    within = np.stack([y[batch == level].var(0) * 20 for level in (1, 2, 3)]).sum(0) / 57
    between = np.maximum(means.var(0, ddof=1) - within / 20, 0)
    assert shares["batch"] == pytest.approx(np.average(between / (between + within), weights=values[-2:]), abs=1e-4)


def test_pvca_finds_where_the_variance_lies_among_three_factors_with_constant_features():
    rng = np.random.default_rng(4)
    factors = pd.DataFrame(
        {
            "a": pd.Categorical(rng.choice(list("xy"), 200)),
            "b": rng.integers(0, 6, 200),
            "c": rng.random(200) < 0.5,
        }
    )
    X = 3 * rng.normal(size=(6, 50))[factors["b"]] + rng.normal(size=(200, 50))
    X[:, :5] = 7.0
    shares = pvca(X, factors)
    assert list(shares.index) == ["a", "b", "c", "a:b", "a:c", "b:c", "resid"]
    assert shares["b"] > 0.8 and shares.drop(["b", "resid"]).max() < 0.02
    collapsed = pvca(np.stack([X[factors["b"] == b].mean(0) for b in factors["b"]]), factors[["a", "b"]])
    assert collapsed["b"] == pytest.approx(1, abs=1e-6)


def test_pvca_handles_more_features_than_samples_and_the_reverse_alike():
    rng = np.random.default_rng(5)
    factors = pd.DataFrame({"type": rng.integers(0, 3, 40), "kind": rng.integers(0, 2, 40)})
    X = rng.normal(size=(40, 30)) + rng.normal(size=(3, 30))[factors["type"]]
    tall, wide = (
        pvca(X, factors),
        pvca(np.tile(X, 2), factors),
    )  # doubling the features changes no correlation
    np.testing.assert_allclose(tall, wide, atol=1e-6)


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ({"kind": [1] * 12}, "found 1 level"),
        ({"id": range(12)}, "found 12 levels of 'id'"),
        ({"kind": [1, 2] * 5 + [1, None]}, "missing labels"),
        ({"kind": [1, 2] * 6, "same": list("ab") * 6}, "group the samples alike"),
        ({"type": [1, 1, 2, 2] * 3, "nested": [1, 2, 3, 4] * 3}, "expected crossed factors"),
        ({"resid": [1, 2] * 6}, "other than 'resid'"),
        ({"kind": [1, 2] * 5}, "expected \\(12,\\)"),
    ],
)
def test_pvca_names_factors_that_cannot_be_estimated(factors, message):
    X = np.random.default_rng(0).normal(size=(12, 20))
    with pytest.raises(ValueError, match=message):
        pvca(X, pd.DataFrame(factors))


def test_pvca_names_bad_matrices_and_thresholds():
    factors = pd.DataFrame({"kind": [1, 2] * 6})
    infinite = np.full((12, 5), np.inf)
    for X, threshold in ((np.ones((12, 5)), 0.6), (infinite, 0.6), (np.eye(12), 1.5), (np.eye(12), "0.6")):
        with pytest.raises(ValueError, match=r"^(X|threshold): found"):
            pvca(X, factors, threshold)


# ------------------------------------------------------------------------------ match, variance, truth


def test_match_rate_is_the_majority_of_the_most_correlated_tumours():
    rng = np.random.default_rng(6)
    centres, types = rng.normal(size=(4, 40)), np.array(["bone", "eye", "lung", "skin"])
    tumour_types, line_types = rng.choice(types[:3], 150), rng.choice(types, 30)
    tumours = 2 * centres[np.searchsorted(types, tumour_types)] + rng.normal(size=(150, 40))
    lines = 5 + centres[np.searchsorted(types, line_types)] + 2 * rng.normal(size=(30, 40))
    result = match_rate(tumours, tumour_types, lines, pd.Categorical(line_types), k=7)
    for line, called in zip(lines, result.predicted, strict=True):
        order = np.argsort([-pearsonr(line, tumour)[0] for tumour in tumours])[:7]
        names, counts = np.unique(tumour_types[order], return_counts=True)
        assert called in names[counts == counts.max()]
    assert result.overall == np.mean(result.predicted == line_types)
    assert result.per_type["skin"] == 0  # a type that no tumour has
    assert result.per_type["bone"] == np.mean(result.predicted[line_types == "bone"] == "bone")


def test_match_rate_gives_a_tie_to_the_most_correlated_type():
    tumours = np.array([[1, 2, 3, 4.0], [1, 2, 4, 3.0], [4, 3, 2, 1.0]])
    result = match_rate(tumours, ["z", "a", "a"], [[1, 2, 3, 5.0]], ["z"], k=2)
    assert list(result.predicted) == ["z"] and result.overall == 1


BAD_MATCHES = [{"k": 9}, {"k": None}, {"lines": np.ones((3, 4))}, {"lines": np.eye(3)}, {"line_types": [1]}]


@pytest.mark.parametrize("change", BAD_MATCHES)
def test_match_rate_names_bad_input(change):
    rng = np.random.default_rng(0)
    good = {"tumours": rng.normal(size=(8, 4)), "tumour_types": [1, 2] * 4, "lines": rng.normal(size=(3, 4))}
    with pytest.raises(ValueError, match=r"^(k|lines|line_types): found"):
        match_rate(**(good | {"line_types": [1, 2, 1], "k": 3} | change))


def test_within_type_variance_kept_is_0_for_type_means_and_a_quarter_for_halves():
    X, _ = two_kinds()
    cancer_type = np.array(["a", "b", "c"] * 19 + ["a", "a", "alone"])
    means = np.stack([X[cancer_type == name].mean(0) for name in cancer_type])
    assert within_type_variance_kept(means, X, cancer_type).overall == 0
    half = within_type_variance_kept(X / 2 + means, X, cancer_type)
    assert half.overall == pytest.approx(0.25) and list(half.per_type.index) == ["a", "b", "c"]
    with pytest.raises(ValueError, match="no variance within"):
        within_type_variance_kept(X, means, cancer_type)


def test_truth_scores_correlate_what_tells_samples_apart():
    rng = np.random.default_rng(7)
    truth, groups = rng.normal(size=(50, 30)), np.array(["a"] * 45 + ["b"] * 5)
    aligned = truth + rng.normal(size=(50, 30)) + 100 * rng.normal(size=30)  # what all samples share scores nothing
    result = truth_scores(aligned, truth, groups)
    expected = pearsonr((aligned - aligned.mean(0))[7], (truth - truth.mean(0))[7])[0]
    assert result.per_sample[7] == pytest.approx(expected, abs=1e-12)
    assert result.summary.loc["b", "value"] == pytest.approx(np.median(result.per_sample[45:]))
    assert list(result.summary["n"]) == [50, 45, 5]
    with pytest.warns(UserWarning, match="50 of 50 samples"):
        assert len(truth_scores(np.tile(aligned[0], (50, 1)), truth).summary) == 0


def test_mad_agrees_with_r():
    X = pd.read_csv(GOLDEN / "mad/expr_samples_by_genes.csv", index_col="id")
    golden = pd.read_csv(GOLDEN / "mad/mad_R.csv", index_col="gene")
    ours = pd.Series(mad(X.to_numpy()), index=X.columns)
    np.testing.assert_allclose(ours[golden.index], golden["mad"], rtol=1e-12)
    assert (ours.rank(ascending=False, method="first").astype(int)[golden.index] == golden["rank_desc"]).all()


def test_pvca_leaves_a_local_optimum_of_reml():
    rng = np.random.default_rng(24)  # a case whose first fit stops where only f2 has variance
    p = np.array([0.7, 0.2, 0.06, 0.04])
    factors = pd.DataFrame(
        {f"f{i}": rng.choice(n, 50, p=p[:n] / p[:n].sum()).astype(str) for i, n in enumerate((3, 2, 4))}
    )
    X = rng.normal(size=(50, 30)) + rng.normal(size=(5, 30))[factors["f0"].astype(int)] * rng.choice([0, 0.5, 2])
    terms = pvca_module._random_terms(factors, 50, True)
    y = pvca_module._sample_components(X, 0.6)[1][:, 0]
    cells = pvca_module._Cells.of(np.stack(list(terms.values()), axis=1))
    assert pvca_module._reml_shares(y, cells)[-1] == pytest.approx(1, abs=1e-3)  # all residual, as from other starts


def test_constant_rows_have_no_correlation():
    X = np.array([[0.1, 0.1, 0.1], [1, 2, 4]])
    unit = unit_rows(X)
    assert np.isnan(unit[0]).all() and np.linalg.norm(unit[1]) == pytest.approx(1)
