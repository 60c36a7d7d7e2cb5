import warnings

import numpy as np
import pandas as pd
import pytest

from lib import alignment_tables as tables
from lib import alignment_truth, comparison, config

BY = config.load("smoke").evaluation


@pytest.fixture
def groups():
    """Three groups of 24 tumours and 12 lines; the last has 2 lines only; lines are shifted; samples × genes."""
    rng = np.random.default_rng(0)
    group = np.repeat(["a", "b", "c"], [36, 36, 26])
    is_line = np.concatenate([np.arange(36) >= 24, np.arange(36) >= 24, np.arange(26) >= 24])
    programme = rng.normal(size=(3, 40))[pd.factorize(group)[0]] + 0.5 * rng.normal(size=(len(group), 40))
    X = programme + 2 * np.outer(is_line, rng.normal(size=40))
    return X, programme, np.where(is_line, "cell line", "tumour"), group


def test_a_removed_shift_is_seen_by_all_metrics_and_costs_no_variance(groups):
    X, programme, kind, group = groups
    given, perfect = (tables.per_group(M, X, kind, group, 5).set_index("group") for M in (X, programme))
    for metric in tables.PAPER_METRICS:
        assert (perfect.loc[["a", "b"], metric].abs() < 0.3 * given.loc[["a", "b"], metric]).all()
    assert perfect.loc[["a", "b"], "variance_kept"].to_numpy() == pytest.approx([1, 1])


def test_groups_that_cannot_be_measured_say_why(groups):
    X, _, kind, group = groups
    found = tables.per_group(X, X, kind, np.where(group == "b", "", group), 5, expected=["LCC"]).set_index("group")
    assert list(found.index) == ["a", "c", "LCC"]
    assert found.loc["a", "reason"] == ""
    assert found.loc[["c", "LCC"], "reason"].tolist() == ["2 cell line: fewer than 5", "no such samples"]
    assert found.loc[["c", "LCC"], list(tables.METRICS)].isna().all(axis=None)


def test_a_collapse_has_no_distance_and_no_variance(groups):
    X, _, kind, group = groups
    means = pd.DataFrame(X).groupby(group).transform("mean").to_numpy()
    row = tables.per_group(means, X, kind, group, 5).set_index("group").loc["a"]
    assert row["delta_d"] == pytest.approx(0, abs=1e-6)
    assert row["variance_kept"] == pytest.approx(0, abs=1e-9)
    assert row[["pvca", "kbet", "ratio"]].isna().all()
    assert "identical" in row["reason"]


def test_the_order_of_samples_does_not_matter(groups):
    X, _, kind, group = groups
    mixed = np.random.default_rng(1).permutation(len(X))
    a, b = (tables.per_group(X[i], X[i], kind[i], group[i], 5) for i in (np.arange(len(X)), mixed))
    stable = ["n_tumour", "n_line", "delta_d", "pvca", "ratio", "variance_kept"]
    pd.testing.assert_frame_equal(a[stable], b[stable], rtol=1e-6)


def test_constant_genes_and_more_components_than_samples_are_no_obstacle(groups):
    X, _, kind, group = groups
    X = np.column_stack([X, np.ones((len(X), 30))])
    whitened = tables.per_group(X, X, kind, group, 5, do_pca=True).set_index("group")
    assert whitened.loc[["a", "b"], list(tables.METRICS)].notna().all(axis=None)


@pytest.mark.parametrize(("bad", "message"), [("nan", "NaN"), ("one kind", "expected at least 2")])
def test_bad_input_is_named(groups, bad, message):
    X, _, kind, group = groups
    X, kind = (np.full_like(X, np.nan), kind) if bad == "nan" else (X, np.full(len(X), "tumour"))
    with pytest.raises(ValueError, match=message):
        tables.per_group(X, X, kind, group, 5)


def test_medians_average_seeds_before_types():
    rows = [("m", g, s, v) for g, s, v in [("a", 0, 1.0), ("a", 1, 3.0), ("b", 0, 5.0), ("c", 0, np.nan)]]
    found = pd.DataFrame(rows, columns=["method", "group", "seed", "delta_d"])
    row = tables.medians(found, BY, 0, ["delta_d"]).iloc[0]
    assert (row["value"], row["n"]) == (3.5, 2)
    assert row["seeds"] == 2 and row["low"] >= 1
    assert row["high"] <= 5


def test_cells_carry_interval_and_n_and_never_a_nan():
    table = pd.DataFrame({
        "method": ["x", "y"], "metric": "delta_d", "value": [-0.001, np.nan], "low": [-1, np.nan],
        "high": [1, np.nan], "n": [12, 0],
    })  # fmt: skip
    shown = tables.printed(table, {"delta_d": "ΔD"}, {"x": "ours"})
    assert shown["ΔD"][0] == "0.00 (-1.00 to 1.00; 12)"
    assert shown["remark"].tolist() == ["ours", ""]


def test_ranks_are_compared_with_the_paper_by_nearness_to_0():
    paper = tables.published_scores("a-t1")
    assert paper["delta_d"]["RNAlign"] == 4.75
    same = [{"method": m, "metric": metric, "value": v} for metric, by in paper.items() for m, v in by.items()]
    said = tables.ranks_in_words(pd.DataFrame(same), "a-t1")
    assert all("6 of 6 pairs" in sentence for sentence in said)
    swapped = pd.DataFrame(same).replace({"method": {"RNAlign": "input", "input": "RNAlign"}})
    assert "RNAlign is number 4 of 4" in tables.ranks_in_words(swapped, "a-t1")[0]
    assert tables.order({"over": -0.1, "near": 0.05, "none": np.nan}) == ["near", "over"]


def test_every_published_table_is_found():
    for prefix in ("a-t1", "a-t3-breast", "a-t3-lung", "a-t4"):
        values = [v for by in tables.published_scores(prefix).values() for v in by.values()]
        assert len(values) in (4, 12)


def test_whether_an_order_depends_on_a_reading_is_said():
    one, other = {"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 2.0}
    assert "does not depend" in tables.orders_in_words({"x": one, "y": one}, "ΔD")
    assert "x: a, b; y: b, a" in tables.orders_in_words({"x": one, "y": other}, "ΔD")


class Decoder:
    """Stands for RNAlign: adds 1 for the sample type and 10 × purity."""

    purity_multiplier = 10.0

    def transform(self, adata, sample_type="cell line", purity=1.0):
        return adata.X + (sample_type is not None) + (0 if purity is None else 10 * purity)


def test_label_changes_and_decodings_touch_what_they_name(groups):
    import anndata as ad

    X, _, kind, _ = groups
    adata, is_line = ad.AnnData(X, pd.DataFrame({"sample_type": kind}).rename(str)), kind == "cell line"
    steps = {name: M[~is_line][0, 0] - X[~is_line][0, 0] for name, M in tables.label_changes(Decoder(), adata).items()}
    assert steps == pytest.approx({"input": 0, "model & purity": 11, "purity only": 10, "model only": 1})
    left = tables.label_changes(Decoder(), adata, lines_decoded=False)["model only"]
    assert np.array_equal(left[is_line], X[is_line])
    readings = tables.decodings(Decoder(), adata)
    assert np.array_equal(readings["lines left as input"][is_line], X[is_line])
    assert (readings["purity 1 not multiplied"] - X)[0, 0] == pytest.approx(2)


def test_truth_tells_who_removed_the_infiltrate_and_who_was_aligned_falsely():
    rng = np.random.default_rng(0)
    types = np.tile(["a", "b"], 100)
    is_line = np.arange(200) >= 160
    programme = 3 * rng.normal(size=(2, 30))[pd.factorize(types)[0]] + rng.normal(size=(200, 30))
    purity = np.where(is_line, 1, rng.uniform(0.2, 0.9, 200))
    given = programme + np.outer(1 - purity, 8 * rng.normal(size=30))
    obs = pd.DataFrame({"sample_type": np.where(is_line, "cell line", "tumour"), "cancer_type": types})
    wrong = np.arange(200) >= 196
    other = np.where(types == "a", "b", "a")
    labels = {"purity": purity, "true_type": types, "mislabelled": wrong, "truly_aligns": np.arange(200) % 4 < 2}
    obs["cancer_type"] = np.where(wrong, other, types)

    def score(X):
        return alignment_truth.label_scores(X, given, obs, programme, pd.DataFrame(labels), BY, 0)["value"]

    clean, same = score(programme), score(given)
    assert clean["infiltrate_removed"] == pytest.approx(1)
    assert np.isnan(same["infiltrate_removed"])
    assert abs(clean["purity_left"]) < 0.3 < 0.9 < same["purity_left"]
    assert (clean["match_not_aligning"], clean["mislabelled_to_true"], clean["mislabelled_to_given"]) == (1, 1, 0)


def test_the_interval_holds_the_spread_between_seeds():
    rows = [("m", g, s, 10.0 * s + i) for s in (0, 1) for i, g in enumerate("abcde")]
    found = tables.medians(pd.DataFrame(rows, columns=["method", "group", "seed", "delta_d"]), BY, 0, ["delta_d"])
    row = found.iloc[0]
    assert (row["value"], row["n"], row["seeds"]) == (7.0, 5, 2)
    assert row["low"] < 3 and row["high"] > 11
    assert tables.printed(found, {"delta_d": "ΔD"})["ΔD"][0].endswith("; 5, 2 seeds)")


def test_kbet_is_read_with_and_without_adapt(groups):
    X, programme, kind, group = groups
    found = tables.kbet_readings({"input": X, "RNAlign": programme}, kind, group, 5, seed=1)
    assert {"the same without adapt", "left_out", "n", "seed"} <= set(found) and set(found["group"]) == {"a", "b"}
    assert tables.left_out_by_adapt(found)["input"].endswith("of 72")
    by = tables.by_reading(tables.medians(found, BY, 0, list(tables.KBET_READINGS)))
    assert list(by) == list(tables.KBET_READINGS) and set(by["k0 = 10"]) == {"input", "RNAlign"}
    none = tables.kbet_readings({"input": X}, kind, group, 500)  # no group has as many
    assert none.empty and tables.kbet_of_input_in_words({}).startswith("ΔkBET of the unaligned input, not estimable.")


def test_dependence_on_a_choice_is_said_for_every_table():
    one, other, lacking = {"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 2.0}, {"a": np.nan, "b": 2.0}
    orders = {"T1": {"x": one, "y": one}, "T2": {"x": one, "y": other, "z": lacking}, "T3": {"x": lacking}, "T4": {}}
    said = tables.dependence_in_words(orders, "Choice")
    assert "of 4 orders of the methods 1 depend on it" in said and "Not T1." in said
    assert "T2 does (x: a, b; y: b, a; not estimable: z)" in said
    assert "T3, T4." in said
    readings = pd.DataFrame({"method": ["x"], "metric": "match", "value": 0.9})
    table = pd.DataFrame({"method": ["input", "RNAlign"], "metric": "match", "value": [0.4, 0.5]})
    best_first = tables.order(tables.with_reading(table, readings, "match")["x"])
    assert best_first == ["RNAlign", "input"]  # a match is good where it is high


@pytest.mark.parametrize("case", ["one type", "single lines", "few tumours", "constant genes", "no shared type"])
def test_small_compendia_give_words_or_gaps_and_never_an_error(case, groups):
    """Through all that 04 does with one compendium."""
    X, programme, kind, group = (a.copy() for a in groups)
    kept = np.ones(len(X), bool)
    if case == "one type":
        kept = group == "a"
    elif case == "single lines":
        kept = (kind == "tumour") | (pd.Series(group + kind).groupby(group + kind).cumcount() < 1).to_numpy()
    elif case == "few tumours":
        kept = (pd.Series(group + kind).groupby(group + kind).cumcount() < 3).to_numpy()
    elif case == "constant genes":
        X[:, :35] = 1.0
    else:
        kept = (kind == "tumour") == (group == "a")
    X, programme, kind, group = X[kept], programme[kept], kind[kept], group[kept]
    obs = pd.DataFrame({"sample_type": kind, "cancer_type": group}, index=[f"s{i}" for i in range(len(X))])
    means = pd.DataFrame(X).groupby(group).transform("mean").to_numpy()
    methods = {"input": X, "RNAlign": programme, "type mean": means}
    with np.errstate(all="raise"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = pd.concat(
            comparison.alignment_scores(M, X, obs, programme, BY, 0).assign(method=m) for m, M in methods.items()
        ).reset_index()
    by_type = tables.per_method(methods, X, kind, group, 5)
    table = tables.medians(by_type, BY, 0)
    said = [comparison.alignment_in_words(scores), comparison.collapsed_in_words(scores), tables.why_not(by_type)]
    said += tables.ranks_in_words(table, "a-t1")
    assert not any("nan" in text for text in said)
    assert scores.loc[scores["value"].isna(), "n"].eq(0).all() and table.loc[table["value"].isna(), "n"].eq(0).all()


def test_the_match_of_all_methods_is_said_highest_first():
    rows = [("a", 0.2, 0.1, 0.3), ("b", 0.5, 0.4, 0.6), ("c", np.nan, np.nan, np.nan)]
    table = pd.DataFrame(rows, columns=["method", "value", "low", "high"]).assign(metric="match", n=30)
    assert tables.match_in_words(table).endswith("(n = 30 lines per seed): b 50% (40% to 60%), a 20% (10% to 30%).")
    assert tables.match_in_words(table[table["method"] == "c"]) == "Match: not estimable."
