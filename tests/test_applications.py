"""Tables and sentences of 09_applications: verdicts follow the numbers, organoids where they are."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from lib import applications, compendia, config


@pytest.fixture(scope="module")
def run():
    return config.load("smoke")


def over_drugs(difference, low, high):
    rows = []
    for samples in (applications.HELD_OUT, applications.TUMOURS):
        for approach in (applications.REGRESSION, applications.NETWORK, applications.ADAPTED):
            for method, value in (("input", 0.5), ("RNAlign", 0.5 + difference), ("ComBat", 0.6)):
                row = {"samples": samples, "approach": approach, "method": method, "spearman": value}
                row |= {"n_drugs": 30, "n_samples": 326, "seeds": 1}
                rows.append(row | {"difference": difference, "difference_low": low, "difference_high": high})
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    "numbers, verdict",
    [((-0.1, -0.2, -0.05), "hurts"), ((0.1, 0.05, 0.2), "helps"), ((0.0, -0.1, 0.1), "makes no difference")],
)
def test_the_verdict_on_drugs_follows_the_interval(numbers, verdict):
    said = applications.drugs_in_words(over_drugs(*numbers))
    assert said.count(f"the alignment {verdict}") == 2
    assert "Best of the others: ComBat (0.60)" in said


def test_the_verdict_on_survival_follows_the_interval():
    rows = [
        {"features": f, "patients": "all", "value": v, "n": 100, "difference": d, "difference_low": d - 0.01,
         "difference_high": d + 0.01}
        for f, v, d in (("type and purity", 0.6, np.nan), ("type, purity, 8 PCs", 0.66, 0.06),
                        ("type, purity, latent space", 0.64, 0.04))
    ]  # fmt: skip
    said = applications.survival_in_words(pd.DataFrame(rows))
    assert "more than type and purity alone" in said and "0.66" in said and "true hazard" not in said


def test_organoids_that_are_tumours_match_and_lines_far_away_do_not(run):
    rng = np.random.default_rng(0)
    kinds = np.repeat(["tumour", "organoid", "cell line"], [60, 20, 20])
    types = np.tile(["a", "b"], 50)
    X = rng.normal(size=(100, 30))
    X[types == "a", :5] += 4
    X[types == "b", 5:10] += 4
    X[kinds == "cell line"] = rng.normal(size=(20, 30)) + np.linspace(-8, 8, 30)
    obs = pd.DataFrame({"sample_type": kinds, "cancer_type": types}, index=[f"s{i}" for i in range(100)])
    three = ad.AnnData(X.astype(np.float32), obs)
    scores = applications.organoid_scores(three, {"input": three.X, "RNAlign": three.X}, run)
    value = scores.set_index(["pair", "score", "method"])["value"]
    assert value["organoid – tumour", "match", "input"] == 1
    assert abs(value["organoid – tumour", "ΔD", "input"]) < 1 < value["cell line – tumour", "ΔD", "input"]
    assert "nearer to tumours than cell lines" in applications.organoids_in_words(scores, run)


def test_a_profile_of_files_names_its_tables_or_has_none(run, tmp_path):
    mini = config.load("mini", tmp_path)
    assert compendia.application_files(mini) == {} and compendia.organoids(mini) is None
    named = mini.model_copy(update={"data": mini.data.model_copy(update={"survival": "os.tsv"})})
    assert compendia.application_files(named) == {"survival": mini.raw / "os.tsv"}
    assert "os.tsv" in named.data.files
    assert applications.drug_scores(mini).empty and applications.survival_scores(mini).empty
