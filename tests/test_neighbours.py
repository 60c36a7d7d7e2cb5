import anndata as ad
import numpy as np
import pandas as pd
import pytest

from lib import neighbours
from lib.metrics import correlation


def samples(n_per_type=12, genes=30, seed=0, shift=0.0, kinds=("tumour", "cell line")):
    """Two well separated types of both kinds; `shift` is added to the lines."""
    rng = np.random.default_rng(seed)
    types, kind = np.repeat(["A", "B"], 2 * n_per_type), np.tile(np.repeat(kinds, n_per_type), 2)
    X = 5 * rng.normal(size=(2, genes))[(types == "B").astype(int)] + rng.normal(size=(len(types), genes))
    X += np.where(kind == "cell line", shift, 0)[:, None] * rng.normal(size=genes)
    obs = pd.DataFrame({"sample_type": kind, "cancer_type": types}, index=[f"s{i}" for i in range(len(types))])
    return ad.AnnData(X, obs=obs)


def halves(adata):
    is_line = adata.obs["sample_type"] == "cell line"
    return adata[~is_line].copy(), adata[is_line].copy()


def test_a_line_identical_to_a_tumour_ranks_first_with_similarity_1():
    tumours, lines = halves(samples())
    lines.X[7] = tumours.X[3]
    lines.obs["name"] = [f"line {i}" for i in range(lines.n_obs)]
    found = neighbours.nearest_lines(tumours, lines, k=4)
    assert list(found.columns) == ["tumour", "rank", "line", "name", "similarity"]
    first = found[(found["tumour"] == tumours.obs_names[3]) & (found["rank"] == 1)].iloc[0]
    assert (first["line"], first["name"]) == (lines.obs_names[7], "line 7")
    assert first["similarity"] == pytest.approx(1, abs=1e-12)


def test_nearest_lines_are_those_of_highest_correlation_whatever_scale_and_offset():
    tumours, lines = halves(samples(seed=3))
    found = neighbours.nearest_lines(tumours, lines, k=5)
    r = np.corrcoef(tumours.X, lines.X)[: tumours.n_obs, tumours.n_obs :]
    expected = -np.sort(-r, axis=1)[:, :5]
    np.testing.assert_allclose(found["similarity"].to_numpy().reshape(-1, 5), expected, atol=1e-12)
    assert list(found["name"]) == list(found["line"])  # no names given: the ids
    some = np.where(np.arange(lines.n_obs) < 2, "", lines.obs_names + "!")
    named = neighbours.nearest_lines(tumours, ad.AnnData(lines.X, lines.obs.assign(name=some)), k=5)
    expected = dict(zip(lines.obs_names, np.where(some == "", lines.obs_names, some), strict=True))
    assert list(named["name"]) == list(named["line"].map(expected))
    lines.X = 3 * lines.X + 10
    again = neighbours.nearest_lines(tumours, lines, k=5)
    pd.testing.assert_frame_equal(found, again, rtol=1e-9)


def test_blocks_change_nothing(monkeypatch):
    tumours, lines = halves(samples())
    whole = neighbours.most_similar(tumours.X, lines.X, 3)
    monkeypatch.setattr(correlation, "BLOCK", 5)
    np.testing.assert_array_equal(whole[0], neighbours.most_similar(tumours.X, lines.X, 3)[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X: X[:, :5], "X: found 30 features, expected 5 as in among"),
        (lambda X: X * 0, "constant samples"),
        (lambda X: np.where(np.arange(X.shape[1]) == 2, np.nan, X), "NaN"),
        (lambda X: X[:2], "expected 1 to 2"),
    ],
)
def test_bad_input_is_named(change, message):
    tumours, lines = halves(samples())
    with pytest.raises(ValueError, match=message) as error:
        neighbours.most_similar(tumours.X, change(lines.X), 3)
    assert "\n" not in str(error.value)


def test_other_genes_are_refused():
    tumours, lines = halves(samples())
    lines.var_names = lines.var_names[::-1]
    with pytest.raises(ValueError, match="other genes"):
        neighbours.nearest_lines(tumours, lines, k=3)


def test_typical_tumours_are_at_the_centre_of_their_type():
    adata = samples()
    centre = adata.X[:12].mean(axis=0)
    adata.X[4] = centre  # the first 12 are tumours of A
    assert neighbours.typical_tumours(adata.X, adata.obs, ["A"]) == ["s4"]


def test_match_by_type_names_types_without_lines_and_where_lines_go():
    adata = samples()
    swapped = adata.obs.copy()
    swapped.loc[adata.obs_names[12:24], "cancer_type"] = "B"  # lines that look like A, called B
    table = neighbours.match_by_type(adata.X, swapped, k=5).set_index("cancer_type")
    assert table.loc["A", "n"] == 0 and np.isnan(table.loc["A", "match"])
    assert table.loc["A", "remark"] == "no cell lines"
    assert table.loc["B", ["n_tumours", "n", "match"]].tolist() == [12, 24, 50]
    assert table.loc["B", "low"] < 50 < table.loc["B", "high"]


def test_an_interval_keeps_a_width_where_all_lines_match():
    share = neighbours.share(np.ones(10, dtype=bool))
    assert share["match"] == share["high"] == 100
    assert share["low"] == pytest.approx(100 * 10 / (10 + 1.959964**2), abs=1e-6)  # Wilson's at n of n
    assert np.isnan(neighbours.share([])["match"])


def test_subtypes_are_matched_among_the_tumours_of_their_type_only():
    adata = samples()
    adata.obs["subtype"] = np.where(adata.obs["cancer_type"] == "A", "a", "b")
    adata.obs["cancer_type"] = "T"
    table = neighbours.match_by_subtype(adata.X, adata.obs, "T", ["a", "b"], k=25)
    assert table["k"].tolist() == [12, 12, 12]  # as many as the smaller subtype has
    assert table["match"].tolist() == [100, 100, 100]
    assert table["n"].tolist() == [24, 12, 12]


def test_subtypes_without_both_kinds_are_not_estimable_and_say_why():
    adata = samples()
    for obs in (adata.obs, adata.obs.assign(subtype="a"), adata.obs.assign(subtype=np.nan)):
        table = neighbours.match_by_subtype(adata.X, obs, "A", ["a", "b"], k=5)
        assert np.isnan(table["match"]).all()
        assert table["remark"].str.contains("fewer than two of a, b").all()


def test_nearest_line_of_type_leaves_out_tumours_whose_type_has_no_lines():
    adata = samples()
    assert neighbours.nearest_line_of_type(adata.X, adata.obs)["match"] == 100
    some = adata[~((adata.obs["cancer_type"] == "A") & (adata.obs["sample_type"] == "cell line"))]
    assert neighbours.nearest_line_of_type(some.X, some.obs)["n"] == 12


def test_words_count_types_and_name_those_that_are_poor():
    table = pd.DataFrame({
        "cancer_type": ["Brain", "Eye", "Lung", "Skin"] * 2,
        "method": np.repeat(["input", "RNAlign"], 4),
        "n": [10, 5, 20, 0] * 2,
        "n_tumours": 30,
        "remark": "",
        "match": [0, 0, 40, np.nan, 0, 60, 80, np.nan],
        "low": 0.0,
        "high": 100.0,
    })  # fmt: skip
    said = neighbours.match_in_words(table, {"Brain": 12.0, "Eye": 0.0, "Skin": 5.0})
    assert "Of 3 cancer types with tumours and cell lines" in said
    assert "- input: 2 at 0 %, 3 below 50 %" in said and "- RNAlign: 1 at 0 %, 1 below 50 %" in said
    assert "Brain 0 % (0 to 100, n = 10; paper 12 %): poor" in said and "paper 0 %): not poor" in said
    assert "Not estimable here, where they lack tumours or cell lines: Skin" in said


def test_the_headline_says_what_is_higher_lower_or_open():
    def methods(ours, none, **more):
        rows = [{"method": "input", "match": none}, {"method": "RNAlign", "match": ours}]
        table = pd.DataFrame(rows).assign(n=50, **more)
        return table.assign(low=table["match"] - 5, high=table["match"] + 5)

    sure = pd.DataFrame({"draws_low": [61.0, 0], "draws_high": [63.0, 0], "over_draws": [62.0, 90]})
    subtypes = pd.concat([
        methods(40, 70, cancer_type="Lung", subtype="all", remark=""),
        methods(np.nan, np.nan, cancer_type="Breast", subtype="all", remark="no Basal").assign(n=0),
    ])  # fmt: skip
    by_type = methods(0, 80, cancer_type="Lung", n_tumours=30)
    said = neighbours.in_words(methods(62, 40, reading="all"), by_type, subtypes, methods(50, 48), sure)
    assert "own type: 62 % after RNAlign (57 to 67), 40 % in the input (35 to 45; n = 50; higher)" in said
    assert "61 to 63 %" in said and "RNAlign leaves 1 at 0 %, 1 below 50 % (input: 0 at 0 %, 0 below 50 %)" in said
    assert "its type: 50 % after RNAlign (45 to 55), 48 % in the input (43 to 53; n = 50; intervals overlap)" in said
    assert "within Lung: 40 % after RNAlign (35 to 45), 70 % in the input (65 to 75; n = 50; lower)" in said
    assert "within Breast: not estimable, no Basal." in said


def test_several_seeds_are_blocks_and_lines_are_counted_once():
    adata = samples()
    calls = neighbours.calls_of_lines(adata.X, adata.obs, k=5).assign(called=lambda c: c["cancer_type"])
    wrong = calls.assign(called="other")
    one = neighbours.match_readings(calls.assign(seed=0), 200, 0)
    assert one.loc["match", ["value", "n", "seeds"]].tolist() == [1, 24, 1] and 0.8 < one.loc["match", "low"] < 1
    two = pd.concat([calls.assign(seed=0), wrong.assign(seed=1)])
    found = neighbours.match_readings(two, 200, 0)
    assert found.loc["match", ["value", "n", "seeds"]].tolist() == [0.5, 24, 2]
    assert found.loc["match", "low"] < 0.1 and found.loc["match", "high"] > 0.9  # the spread between seeds is in it
    table = neighbours.match_table(two.assign(method="m"), 200, 0)
    assert table["match"].tolist() == [50, 50] and table["reading"].tolist() == list(neighbours.MATCH.values())


def test_too_few_tumours_give_reasons_and_no_numbers():
    adata = samples(n_per_type=4)
    assert "8 tumours, fewer than the 25" in neighbours.why_no_match(adata.obs, 25)
    assert neighbours.calls_of_lines(adata.X, adata.obs, 25).empty
    readings = neighbours.match_readings(neighbours.calls_of_lines(adata.X, adata.obs, 25).assign(seed=0), 20, 0)
    assert readings["value"].isna().all() and (readings["n"] == 0).all()
    by_type = neighbours.match_by_type(adata.X, adata.obs, 25).assign(method="RNAlign")
    assert by_type["match"].isna().all() and by_type["remark"].str.contains("8 tumours").all()
    assert "not estimable (8 tumours" in neighbours.match_in_words(by_type, {"A": 1.0})


def test_lines_without_tumours_of_their_type_are_named():
    adata = samples()
    some = adata[~((adata.obs["cancer_type"] == "A") & (adata.obs["sample_type"] == "tumour"))]
    by_type = neighbours.match_by_type(some.X, some.obs, 5).assign(method="RNAlign").set_index("cancer_type")
    assert by_type.loc["A", "match"] == 0 and by_type.loc["A", "remark"] == neighbours.NO_TUMOURS
    assert "which cannot match: A" in neighbours.match_in_words(by_type.reset_index(), {})
