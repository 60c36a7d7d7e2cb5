"""Paper B from the authors' own files: figure 1, mixing, baselines, S1 and figure 6 without a curation of ours."""

import numpy as np
import pandas as pd
import pytest

from lib import (
    compendia,
    curation,
    scaling,
    synthetic_deposit,
    tissue_baselines,
    tissue_controls,
    tissue_tables,
    transfer,
)
from lib.metrics.classification import confusion_table
from lib.models import foundation

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(generated):
    """The profile `deposit`, its deposit generated, tissue and cohort curated from it."""
    with generated("deposit") as loaded:
        synthetic_deposit.write_deposit(loaded)
        for path in compendia._paths(loaded, {"archs4": "archs4", "gtex": "gtex_expression"}).values():
            path.unlink()  # the route must not need them
        compendia.curate_tissue(loaded)
        compendia.curate_cohort(loaded)
        yield loaded


@pytest.fixture(scope="module")
def tissue(run):
    return curation.load(run.processed / "tissue.h5ad")


def test_the_split_and_the_labels_are_the_authors(run, tissue):
    folder = compendia.deposit_folder(run) / compendia.DEPOSIT_FOLDER
    for part in ("train", "test"):
        clin = pd.read_csv(folder / part / "clin.csv", index_col=0, keep_default_na=False)
        mine = tissue.obs.loc[clin.index.intersection(tissue.obs_names)]
        assert len(mine) == len(clin) and set(mine["split"] == "test") == {part == "test"}
        given = clin["uberon_tissue"].replace("nan", "")
        assert (mine["tissue"].astype(object).fillna("").astype(str) == given).all() and (given == "").any()


def test_figure_1_and_mixing_from_the_deposited_codes(run, tissue):
    codes = compendia.deposited_codes(run, tissue.obs_names)
    assert codes.shape == (tissue.n_obs, synthetic_deposit.COMPONENTS) and np.isfinite(codes).all()
    tested = (tissue.obs["split"] == "test").to_numpy() & tissue.obs["tissue"].notna().to_numpy()
    obs = tissue.obs[tested]
    overall, by_tissue = tissue_tables.source_mixing(codes[tested], obs["source"], obs["tissue"], run.evaluation, 0)
    assert overall["mean"].between(0, obs["source"].nunique()).all() and set(by_tissue["tissue"]) == set(obs["tissue"])
    with pytest.raises(ValueError, match="no row for 1 samples"):
        compendia.deposited_codes(run, tissue.obs_names[:3].append(pd.Index(["unheard of"])))


@pytest.mark.parametrize("name", ["embeddings_test.csv", "tgt_emb_bf93M.npy"])
def test_what_was_not_downloaded_is_done_without(run, tissue, name):
    file = compendia.deposit_folder(run) / name
    away = file.rename(file.with_suffix(".away"))
    try:
        codes, bulkformer = compendia.deposited_codes(run, tissue.obs_names), compendia.has_deposited_bulkformer(run)
    finally:
        away.rename(file)
    assert (codes is None) == name.endswith("csv") and bulkformer == name.endswith("csv")


def test_baselines_and_figure_s1(run, tissue):
    found = tissue_baselines.benchmark(run, tissue, "sample")
    truth = found.test["tissue"].to_numpy(dtype=str)
    accuracy = {name: np.mean(method.calls == truth) for name, method in found.methods.items()}
    assert accuracy["kNN, all genes"] > 0.5 and len(accuracy) >= 7
    # without log2(TPM+1) there is no ranking by its variance
    assert "kNN, 200 HVG by z-score" in accuracy and "kNN, 200 HVG" not in accuracy
    confused = confusion_table(truth, found.methods["tissue VAE"].calls)
    assert len(confused) == len(set(truth))


def test_figure_6_from_the_deposited_embeddings(run, tissue):
    cohort = curation.load(run.processed / "cohort.h5ad")
    labels = tissue.obs.loc[tissue.obs["split"] == "test", "tissue"]
    found = foundation.deposited_calls(compendia.deposit_folder(run), labels, cohort.n_obs)
    expected = compendia.expected_tissues(run)
    hits = {m: transfer.as_expected(cohort.obs["group"], c, expected, set(labels)) for m, c in found.calls.items()}
    assert len(hits) == 2 and all(np.nanmean(h) > 0.3 for h in hits.values())


def test_the_ablations_that_a_deposit_allows(run, tissue):
    pool = scaling.pool(run)
    names = [a.name for a in tissue_controls.ablations(run, pool.obs)]
    assert tissue_controls.LINES not in names and tissue_controls.NO_CAP not in names and "denoising" in names
