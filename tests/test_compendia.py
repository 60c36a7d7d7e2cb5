import numpy as np
import pytest

from lib import compendia, config, curation, sources


@pytest.fixture(scope="module")
def run(generated):
    """The smoke profile with its alignment compendium curated."""
    with generated("smoke") as loaded:
        compendia.curate_alignment(loaded)
        yield loaded


def test_every_archive_of_the_paper_profile_is_in_the_catalogue():
    paper = config.load("paper")
    deposit = paper.model_copy(update={"tissue": paper.tissue.model_copy(update={"source": "deposit"})})
    catalogue = sources.load_sources()
    assert set(compendia.archives(paper)) | set(compendia.archives(deposit)) <= set(catalogue)
    assert "archs4" in compendia.archives(paper)
    assert "archs4" not in compendia.archives(deposit)


def test_the_demo_has_every_archive_under_its_public_name(run):
    catalogue = sources.load_sources()
    assert all(catalogue[i].path(run.raw).is_file() for i in compendia.archives(config.load("paper")))


def test_truth_is_in_the_compendium_s_units_and_order(run):
    given = curation.standardise(curation.load(run.processed / "alignment.h5ad"))
    truth = compendia.truth(run, given)
    assert truth.shape == given.shape
    pure = (given.obs["sample_type"] == "tumour").to_numpy() & (given.obs["purity"] > 0.85).to_numpy()
    same = [np.corrcoef(x, t)[0, 1] for x, t in zip(given.X[pure], truth[pure], strict=True)]
    others = [np.corrcoef(x, t)[0, 1] for x, t in zip(given.X[pure], np.roll(truth[pure], 1, 0), strict=True)]
    assert np.median(same) > 0.7 > np.median(others)


def test_mislabelled_lines_are_known(run):
    labels = compendia.true_labels(run, curation.load(run.processed / "alignment.h5ad").obs_names)
    wrong = labels["mislabelled"].astype(bool)
    assert (labels.loc[wrong, "true_type"] != labels.loc[wrong, "cancer_type"]).all()
    assert wrong.any()


def test_both_rubrics_of_the_unseen_cohort():
    assert compendia.expected_tissues(config.load("demo"))["rhabdoid"] == ["kidney"]
    mini = config.load("mini", data_dir=".")
    assert compendia.expected_tissues(mini) == mini.data.cohort_expected
