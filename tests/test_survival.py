"""Survival: Xena's table, concordance against lifelines, and a Cox model that finds what is there."""

import numpy as np
import pandas as pd
import pytest
from lifelines.utils import concordance_index

from lib import survival


@pytest.fixture(scope="module")
def patients():
    rng = np.random.default_rng(0)
    risk = rng.normal(size=200)
    died, left = rng.exponential(1000 * np.exp(-risk)), rng.uniform(100, 3000, 200)
    table = pd.DataFrame({"OS": died <= left, "OS.time": np.minimum(died, left).round()})
    return pd.DataFrame({"risk": risk, "noise": rng.normal(size=200), "constant": 1.0}), table


def test_read_leaves_out_the_unknown(tmp_path):
    path = tmp_path / "Survival_SupplementalTable_S1_20171025_xena_sp"
    path.write_text("sample\t_PATIENT\tOS\tOS.time\nA-01\tA\t1\t30\nB-01\tB\t\t40\nC-01\tC\t0\t50\n")
    table = survival.read_survival(path)
    assert list(table.index) == ["A-01", "C-01"] and table["OS"].tolist() == [True, False]


@pytest.mark.parametrize(
    "row, words", [("A\t2\t30", "OS 0 or 1"), ("A\t1\t-3", "0 days or more"), ("A\t\t", "no sample")]
)
def test_bad_tables_are_errors(tmp_path, row, words):
    path = tmp_path / "survival.tsv"
    path.write_text(f"sample\tOS\tOS.time\n{row}\n")
    with pytest.raises(ValueError, match=words):
        survival.read_survival(path)


def test_concordance_is_that_of_lifelines_with_ties(patients):
    features, table = patients
    coarse = table.assign(**{"OS.time": (table["OS.time"] // 100) * 100})
    for risk in (features["risk"], features["risk"].round()):
        value = survival.concordance(risk, coarse, n_boot=100)
        assert value.value == pytest.approx(concordance_index(coarse["OS.time"], -risk, coarse["OS"]))
        assert value.low < value.value < value.high and value.n == 200


def test_within_groups_a_group_scores_nothing(patients):
    _, table = patients
    group = np.where(table["OS.time"] > table["OS.time"].median(), "late", "early")
    assert survival.concordance((group == "early").astype(float), table, n_boot=0).value > 0.7
    assert survival.concordance((group == "early").astype(float), table, group, n_boot=0).value == 0.5


def test_no_comparable_pair_has_no_value(patients):
    _, table = patients
    assert np.isnan(survival.concordance(np.zeros(200), table.assign(OS=False), n_boot=5).value)


def test_held_out_risk_finds_the_risk_and_not_the_noise(patients):
    features, table = patients
    found = survival.risk_held_out(features, table, 5, 0)
    best = survival.concordance(features["risk"], table, n_boot=0).value
    assert 0.65 < best - 0.05 < survival.concordance(found, table, n_boot=0).value
    nothing = survival.risk_held_out(features[["noise"]], table, 5, 0)
    assert abs(survival.concordance(nothing, table, n_boot=0).value - 0.5) < 0.1
    np.testing.assert_array_equal(found, survival.risk_held_out(features, table, 5, 0))


def test_too_few_deaths_is_an_error(patients):
    features, table = patients
    with pytest.raises(ValueError, match="found 3 deaths, expected at least 20"):
        survival.risk_held_out(features, table.assign(OS=np.arange(200) < 3), 5, 0)


def test_missing_features_are_named(patients):
    features, table = patients
    gaps = features.assign(purity=np.where(np.arange(200) < 3, np.nan, 0.5))
    with pytest.raises(ValueError, match=r"^features: found 3 missing values of 'purity', expected none$"):
        survival.risk_held_out(gaps, table, 5, 0)


def test_rare_types_share_the_reference():
    obs = pd.DataFrame({"cancer_type": ["a"] * 20 + ["b"] * 12 + ["c"] * 2, "purity": 0.5})
    assert list(survival.type_and_purity(obs)) == ["type b", "purity"]
