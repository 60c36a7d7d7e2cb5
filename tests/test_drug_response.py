"""Drug response: both public layouts, known answers, and scores against scipy."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from lib import drug_response


@pytest.fixture
def screened():
    """60 lines × 30 genes whose response is linear in the first genes: X, obs, response with gaps."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 30))
    Y = pd.DataFrame(X[:, :4] * 2 + X[:, 1:5] + 0.3 * rng.normal(size=(60, 4)), columns=list("abcd"))
    return X, Y.mask(rng.random(Y.shape) < 0.1)


def test_prism_matrix_and_its_short_names(tmp_path):
    path = tmp_path / "prism.csv"
    path.write_text(",X::2.5::HTS,Y::2.5::HTS,Y::10::HTS\nACH-000001,-0.5,,1\nACH-000002,0.1,0.2,0.3\n")
    table = drug_response.read_drug_response(path)
    assert list(table.columns) == ["X", "Y::2.5::HTS", "Y::10::HTS"] and np.isnan(table.iloc[0, 1])
    assert table.loc["ACH-000002", "X"] == 0.1


@pytest.mark.parametrize("sep", [",", "\t"])
def test_gdsc_long_table_averages_repeats(tmp_path, sep):
    rows = [["COSMIC_ID", "CELL_LINE_NAME", "DRUG_NAME", "LN_IC50", "AUC"]]
    rows += [["1", "MC-CAR", "P", "2", "0.9"], ["1", "MC-CAR", "P", "4", "0.9"], ["2", "ES3", "Q", "1", "0.5"]]
    path = tmp_path / "gdsc.csv"
    path.write_text("\n".join(sep.join(row) for row in rows) + "\n")
    table = drug_response.read_drug_response(path)
    assert table.loc["MC-CAR", "P"] == 3 and np.isnan(table.loc["ES3", "P"]) and table.shape == (2, 2)


@pytest.mark.parametrize(
    "text, words",
    [
        ("CELL_LINE_NAME,DRUG_NAME,X\nA,P,1\n", "expected one of CELL_LINE_NAME"),
        (",X\nACH-1,high\n", "found 'high', expected a number"),
        (",X\nACH-1,\n", "found no measured response"),
    ],
)
def test_other_tables_are_errors(tmp_path, text, words):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=words) as error:
        drug_response.read_drug_response(path)
    assert "bad.csv" in str(error.value) and "\n" not in str(error.value)


def test_missing_file_and_spreadsheet_are_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        drug_response.read_drug_response(tmp_path / "no.csv")
    with pytest.raises(ValueError, match="saved as CSV"):
        drug_response.read_drug_response(tmp_path / "GDSC2.xlsx")


def test_lines_are_found_by_id_or_by_name():
    obs = pd.DataFrame({"name": ["T1", "MCF7", "HT29"], "sample_type": ["tumour", "cell line", "cell line"]})
    obs.index = ["T1", "ACH-1", "ACH-2"]
    by_name = drug_response.of_samples(pd.DataFrame({"P": [1.0, 2.0, 9.0]}, index=["mcf-7", "HT-29", "T1"]), obs)
    by_id = drug_response.of_samples(pd.DataFrame({"P": [1.0, 2.0]}, index=["ACH-1", "ACH-2"]), obs)
    pd.testing.assert_frame_equal(by_name, by_id)
    assert by_id["P"].isna().tolist() == [True, False, False]
    with pytest.raises(ValueError, match="found lines such as 'other'"):
        drug_response.of_samples(pd.DataFrame({"P": [1.0]}, index=["other"]), obs)


def test_most_variable_leaves_out_rare_and_constant_drugs():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"wide": 3 * rng.normal(size=20), "narrow": rng.normal(size=20), "constant": 1.0})
    table["rare"] = [1e3, -1e3, *[np.nan] * 18]
    assert list(drug_response.most_variable(table, 1)) == ["wide"]
    assert list(drug_response.most_variable(table, 9)) == ["narrow", "wide"]


def test_ridge_finds_a_linear_response_and_one_neighbour_is_that_line(screened):
    X, Y = screened
    predicted = drug_response.predict(drug_response.ridge, X, Y, 5, 0)
    assert (drug_response.score(predicted, Y, pd.Series("t", range(60)))["value"] > 0.8).all()
    assert (drug_response.skill(predicted, Y, drug_response.predict(drug_response.drug_mean, X, Y, 5, 0)) > 0.7).all()
    full = Y.fillna(0).to_numpy()
    np.testing.assert_allclose(drug_response.nearest_lines(1)(X, full, X + 0.01), full)


def test_neighbours_are_the_measured_ones_weighted_by_correlation():
    lines = np.array([[1.0, 2, 3, 4], [1, 2, 4, 3], [4, 3, 2, 1]])
    Y = np.array([[1.0, np.nan], [2.0, 5.0], [9.0, 7.0]])
    predicted = drug_response.nearest_lines(2)(lines, Y, lines[:1])
    r = np.corrcoef(lines[0], lines[1])[0, 1]
    assert predicted[0, 0] == pytest.approx((1 * 1 + r * 2) / (1 + r))
    assert predicted[0, 1] == pytest.approx(5, abs=1e-4)  # the third line's correlation is negative


def test_no_line_is_predicted_by_a_model_that_saw_its_response(screened):
    X, Y = screened
    noise = pd.DataFrame(np.random.default_rng(1).normal(size=Y.shape), columns=Y.columns)
    predicted = drug_response.predict(drug_response.nearest_lines(1), X, noise, 5, 0)
    assert (np.abs(predicted - noise.to_numpy()) > 1e-9).all()
    again = drug_response.predict(drug_response.nearest_lines(1), X, noise, 5, 0)
    np.testing.assert_array_equal(predicted, again)


def test_score_is_spearman_s_and_gaps_and_constants_are_named(screened):
    _, Y = screened
    predicted = Y.to_numpy() + np.random.default_rng(2).normal(size=Y.shape)
    predicted[:, 3] = 0.5
    constant = Y.assign(e=1.0, f=[1.0] * 5 + [np.nan] * 55)
    table = drug_response.score(np.c_[predicted, predicted[:, :2]], constant, pd.Series("t", range(60)), 200)
    known = Y["a"].notna()
    assert table["value"][0] == pytest.approx(spearmanr(predicted[known, 0], Y["a"][known])[0])
    assert table["low"][0] < table["value"][0] < table["high"][0] and table["n"][0] == known.sum()
    assert table["value"][3] == 0  # a prediction that does not vary ranks nothing
    assert table["value"][4:].isna().all()


def test_knowing_the_type_scores_nothing_within_types():
    types = pd.Series(["a", "b"] * 30)
    offset = (types == "a").to_numpy(float)
    truth = pd.DataFrame({"d": 5 * offset + np.random.default_rng(0).normal(size=60)})
    table = drug_response.score(offset[:, None], truth, types, 50)
    assert table["value"][0] > 0.8 and table["within"][0] == 0


def test_over_drugs_pairs_the_difference_by_drug():
    rows = [
        {
            "samples": "s",
            "approach": "a",
            "method": m,
            "drug": d,
            "value": v,
            "within": v,
            "skill": np.nan,
            "seed": 1,
            "n": 60,
        }
        for m, values in (("input", (0.1, 0.5, 0.9)), ("other", (0.2, 0.6, 1.0)))
        for d, v in zip("xyz", values, strict=True)
    ]
    table = drug_response.over_drugs(pd.DataFrame(rows), n_boot=50).set_index("method")
    assert table.loc["other", ["difference", "difference_low"]].tolist() == pytest.approx([0.1, 0.1])
    assert table.loc["other", ["n_drugs", "n_samples", "seeds"]].tolist() == [3, 60, 1]
    assert table.loc["input", "spearman"] == 0.5 and np.isnan(table.loc["input", "difference"])


def test_too_few_lines_is_an_error(screened):
    X, Y = screened
    with pytest.raises(ValueError, match="expected at least"):
        drug_response.predict(drug_response.ridge, X, Y.assign(a=Y["a"].where(Y.index < 6)), 5, 0)
    few = drug_response.most_variable(Y[:6].reindex(Y.index), 40)
    with pytest.raises(ValueError, match=r"^response: found no drug that 10 lines or more answer differently"):
        drug_response.predict(drug_response.ridge, X, few, 5, 0)
