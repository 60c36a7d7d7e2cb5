import anndata as ad
import numpy as np
import pandas as pd
import pytest

from lib import curation
from lib.metrics.alignment import delta_d, within_type_variance_kept
from lib.models import baselines as methods

TYPES = ["Breast", "Lung", "Skin", "Bone"]
pytestmark = pytest.mark.filterwarnings("ignore")  # Celligner cuts its clustering to such few samples


def compendium(n=40, n_lines=12, genes=30, shift=2.0, seed=0):
    """Four cancer types, n tumours and n_lines lines each; lines are shifted, tumours carry stroma; log2 units."""
    rng = np.random.default_rng(seed)
    types = np.repeat(TYPES, n + n_lines)
    is_line = np.tile(np.arange(n + n_lines) >= n, len(TYPES))
    purity = np.where(is_line, 1.0, rng.uniform(0.3, 0.9, len(types)))
    X = 5 + rng.normal(size=(len(TYPES), genes))[pd.factorize(types)[0]] + 0.5 * rng.normal(size=(len(types), genes))
    X += np.outer(1 - purity, rng.normal(size=genes)) + shift * np.outer(is_line, rng.normal(size=genes))
    kinds = np.where(is_line, "cell line", "tumour")
    obs = pd.DataFrame({"sample_type": kinds, "cancer_type": types, "purity": purity}).rename(str)
    return ad.AnnData(
        X.astype(np.float32), obs, pd.DataFrame({"mean": X.mean(axis=0), "sd": X.std(axis=0)}).rename(str)
    )


def test_every_method_gives_the_same_float32_z_scores_twice():
    adata = compendium()
    found, again = methods.baselines(adata, 3), methods.baselines(adata, 3)
    assert list(found.aligned) == ["linear projection", "Celligner", "type mean", "ComBat", "Harmony"]
    assert found.skipped == {}
    for name, X in found.aligned.items():
        assert (X.shape, X.dtype) == (adata.shape, np.float32)
        assert np.array_equal(X, again.aligned[name])


def test_the_order_of_samples_does_not_matter():
    adata = compendium()
    mixed = np.random.default_rng(1).permutation(adata.n_obs)
    for method in (methods.linear_projection, methods.type_mean, methods.combat):
        assert method(adata[mixed].copy()) == pytest.approx(method(adata)[mixed], abs=1e-4)


def test_type_mean_is_a_collapse():
    adata = compendium()
    X, types = methods.type_mean(adata), adata.obs["cancer_type"]
    lung = (types == "Lung").to_numpy()
    assert within_type_variance_kept(X, adata.X, types).overall == 0
    assert delta_d(X[lung], adata.obs["sample_type"][lung]) == pytest.approx(0, abs=1e-6)


def test_linear_projection_leaves_lines_alone():
    adata = compendium()
    is_line = (adata.obs["sample_type"] == "cell line").to_numpy()
    X, given = methods.linear_projection(adata), curation.standardise(adata).X
    assert np.array_equal(X[is_line], given[is_line])
    assert not np.allclose(X[~is_line], given[~is_line])


def test_combat_and_celligner_remove_a_pure_shift():
    adata = compendium(shift=5)
    kind = adata.obs["sample_type"]
    before = delta_d(curation.standardise(adata).X, kind)
    for method in (methods.combat, methods.celligner):
        assert abs(delta_d(method(adata), kind)) < 0.1 * before


def test_celligner_keeps_the_lines_own_level():
    adata = compendium()
    is_line = (adata.obs["sample_type"] == "cell line").to_numpy()
    X, given = methods.celligner(adata), curation.standardise(adata).X
    assert X[is_line].mean(axis=0) == pytest.approx(given[is_line].mean(axis=0), abs=1e-4)
    assert np.abs(X[~is_line].mean(axis=0) - X[is_line].mean(axis=0)).max() < 0.3


def test_harmony_mixes_kinds_that_overlap():
    adata = compendium(shift=0.3)
    kind = adata.obs["sample_type"]
    assert delta_d(methods.harmony(adata), kind) < 0.8 * delta_d(curation.standardise(adata).X, kind)


def test_harmony_cuts_its_components_to_few_samples():
    few = compendium(n=3, n_lines=2, genes=60)[:10].copy()
    assert np.isfinite(methods.harmony(few, n_pcs=50)).all()


def test_combat_leaves_genes_that_are_constant_within_a_kind():
    adata = compendium()
    is_line = (adata.obs["sample_type"] == "cell line").to_numpy()
    adata.X[is_line, 0] = 4
    adata.X[:, 1] = 4
    adata.var["sd"] = adata.X.std(axis=0)
    X, given = methods.combat(adata), curation.standardise(adata).X
    assert np.array_equal(X[:, :2], given[:, :2])
    assert np.isfinite(X).all()


def test_a_type_with_a_single_line_and_a_constant_gene_is_no_obstacle():
    adata = compendium()
    single = (adata.obs["cancer_type"] == "Skin") & (adata.obs["sample_type"] == "cell line")
    adata = adata[~single | (np.arange(adata.n_obs) == np.flatnonzero(single)[0])].copy()
    adata.X[:, 3] = 2
    adata.var["sd"] = adata.X.std(axis=0)
    found = methods.baselines(adata)
    assert found.skipped == {}
    assert all(np.isfinite(X).all() for X in found.aligned.values())


def test_a_method_that_the_data_do_not_allow_is_skipped_with_its_reason():
    adata = compendium()
    adata.obs.loc["0", "purity"] = np.nan
    found = methods.baselines(adata)
    assert "missing for 1 of 160 tumours" in found.skipped["linear projection"]
    assert list(found.aligned) == ["Celligner", "type mean", "ComBat", "Harmony"]


@pytest.mark.parametrize("lines", [0, 1])
def test_one_batch_only_is_an_error(lines):
    adata = compendium()
    first = np.flatnonzero(adata.obs["sample_type"] == "cell line")[lines:]
    with pytest.raises(ValueError, match="expected two or more of tumour and of cell line"):
        methods.baselines(adata[np.setdiff1d(np.arange(adata.n_obs), first)].copy())


def test_nan_is_an_error_that_says_where():
    adata = compendium()
    adata.X[0, 0] = np.nan
    with pytest.raises(ValueError, match=r"adata\.X: found 1 NaN"):
        methods.baselines(adata)
