"""Linear projection and type mean against known truth and bad input."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lib.models.linear_projection import LinearProjection, type_mean


def generated(counts=(40, 30, 4), n_lines=6, noise=0.0, seed=0):
    """Tumours = type mean + slope · (1 - purity); impure types sit higher, confounding a pooled slope."""
    rng = np.random.default_rng(seed)
    n_genes = 25
    slopes = np.tile(rng.normal(0, 3, n_genes), (len(counts), 1))
    pure = rng.normal(5, 1, (len(counts), n_genes)) + 4 * np.arange(len(counts))[:, None]
    codes = np.repeat(np.arange(len(counts)), counts)
    purity = np.concatenate([rng.uniform(0.5 - 0.2 * i, 0.9 - 0.2 * i, n) for i, n in enumerate(counts)])
    tumours = pure[codes] + slopes[codes] * (1 - purity)[:, None] + rng.normal(0, noise, (len(codes), n_genes))
    obs = pd.DataFrame(
        {
            "cancer_type": [f"type{i}" for i in codes] + ["type0"] * n_lines,
            "sample_type": ["tumour"] * len(codes) + ["cell line"] * n_lines,
            "purity": np.append(purity, np.ones(n_lines)),
        },
        index=[f"s{i}" for i in range(len(codes) + n_lines)],
    )
    return ad.AnnData(np.vstack([tumours, rng.normal(5, 1, (n_lines, n_genes))]), obs), pure[codes], slopes


def test_tumours_become_pure_and_lines_stay():
    adata, pure, slopes = generated()
    model = LinearProjection()
    projected = model.fit_transform(adata)
    np.testing.assert_allclose(projected[: len(pure)], pure, atol=1e-9)
    np.testing.assert_array_equal(projected[len(pure) :], adata.X[len(pure) :])
    np.testing.assert_allclose(model.slopes_.loc["type1"], slopes[1])
    assert model.pan_cancer_types_ == ["type2"]


def test_slope_is_least_squares_per_type():
    adata, *_ = generated(noise=1.0)
    model = LinearProjection()
    projected = model.fit_transform(adata)
    own = (adata.obs["cancer_type"] == "type1").to_numpy()
    for gene in (0, 11):
        fit = stats.linregress(1 - adata.obs["purity"][own], adata.X[own, gene])
        expected = adata.X[own, gene] - fit.slope * (1 - adata.obs["purity"][own])
        np.testing.assert_allclose(projected[own, gene], expected, atol=1e-9)


def test_a_type_of_one_tumour_or_one_purity_takes_the_pan_cancer_slope():
    adata, _, slopes = generated(counts=(30, 12, 1))
    adata.obs.loc[adata.obs["cancer_type"] == "type1", "purity"] = 0.6
    model = LinearProjection()
    projected = model.fit_transform(adata)
    assert model.pan_cancer_types_ == ["type1", "type2"]
    np.testing.assert_allclose(model.slopes_.loc["type2"], slopes[0])
    assert np.isfinite(projected).all()


def test_unadjusted_types_stay_and_need_no_purity():
    adata, *_ = generated()
    blood = (adata.obs["cancer_type"] == "type1").to_numpy()
    adata.obs.loc[blood, "purity"] = np.nan
    projected = LinearProjection(unadjusted=["type1"]).fit_transform(adata)
    np.testing.assert_array_equal(projected[blood], adata.X[blood])


def test_purity_genes_are_dropped():
    adata, _, slopes = generated(noise=0.2)
    model = LinearProjection(drop_purity_genes=True)
    projected = model.fit_transform(adata)
    own = (adata.obs["cancer_type"] == "type0").to_numpy() & (adata.obs["sample_type"] == "tumour").to_numpy()
    rho, p = stats.spearmanr(np.column_stack([adata.obs["purity"][own], adata.X[own]]))
    rho, p = rho[0, 1:], p[0, 1:]
    by_hand = (rho < -0.4) & (p * 25 < 0.01)  # Bonferroni drops no gene that Holm keeps
    assert by_hand.any()
    assert model.purity_genes_.loc["type0"].to_numpy()[by_hand].all()
    assert not model.purity_genes_.loc["type0"].to_numpy()[(rho > -0.4) | (p > 0.01)].any()
    assert projected.shape[1] == len(model.genes_) < 25
    assert slopes[0][[int(gene) for gene in model.genes_]].max() < 2


def test_genes_of_largest_iqr():
    adata, *_ = generated(noise=0.5)
    model = LinearProjection(n_iqr_genes=8)
    projected = model.fit_transform(adata)
    everything = LinearProjection().fit_transform(adata)
    spread = stats.iqr(everything[(adata.obs["sample_type"] == "tumour").to_numpy()], axis=0)
    np.testing.assert_array_equal(projected, everything[:, np.sort(np.argsort(-spread)[:8])])


def test_type_mean_keeps_means_and_no_variance():
    adata, *_ = generated(noise=1.0)
    collapsed = type_mean(adata)
    for name in ("type0", "type1", "type2"):
        own = (adata.obs["cancer_type"] == name).to_numpy()
        np.testing.assert_allclose(collapsed[own], np.tile(adata.X[own].mean(axis=0), (own.sum(), 1)))
    assert np.unique(collapsed, axis=0).shape[0] == 3


def test_float32_stays_and_missing_purity_of_lines_is_no_matter():
    adata, pure, _ = generated()
    adata = ad.AnnData(adata.X.astype(np.float32), adata.obs.copy())
    adata.obs.loc[adata.obs["sample_type"] == "cell line", "purity"] = np.nan
    projected = LinearProjection().fit_transform(adata)
    assert projected.dtype == np.float32
    np.testing.assert_allclose(projected[: len(pure)], pure, atol=1e-4)


def changed(column, value, rows=slice(0, 2)):
    def change(adata):
        adata.obs[column] = adata.obs[column].astype(object)
        adata.obs.iloc[rows, adata.obs.columns.get_loc(column)] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed("purity", np.nan), r"purity'\]: missing for 2 of 74 tumours"),
        (changed("purity", 60.0), "expected fractions from 0 to 1"),
        (changed("purity", 0.5, slice(0, 74)), "no variation within any cancer type"),
        (changed("cancer_type", None), r"cancer_type'\]: found 2 missing"),
        (changed("sample_type", "tumor"), "expected 'tumour' and 'cell line'"),
        (lambda adata: adata.obs.__setitem__("purity", "high"), r"purity'\]: found text"),
        (lambda adata: adata.obs.pop("purity"), "expected 'purity' among them"),
        (lambda adata: adata.X.__setitem__((0, 0), np.inf), "1 NaN or infinite"),
    ],
)
def test_bad_input(change, message):
    adata, *_ = generated()
    change(adata)
    with pytest.raises(ValueError, match=message):
        LinearProjection().fit_transform(adata)
