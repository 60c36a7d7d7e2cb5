"""Celligner against the original R and Python tools (golden cases), known truth, and bad input."""

import tracemalloc
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from lib.models.celligner import (
    Celligner,
    cluster,
    cluster_de,
    contrastive_components,
    mnn_correct,
    mnn_pairs,
)

GOLDEN = Path(__file__).parent / "golden"
ORACLE = Path(__file__).parents[1].parent / "shared" / "oracle" / "celligner"
PYTHON_ORIGINAL = {"order": "abs", "integer_expression": True, "intercept": False, "n_genes": 60}
R_ORIGINAL = {"trend": True, "min_cluster": 3, "centre": False, "n_genes": 59}
SMALL_K = {"k1": 3, "k2": 8, "fk": 4}


def golden(name):
    with np.load(GOLDEN / name, allow_pickle=False) as file:
        return dict(file)


def subspace_error(a, b):
    return np.linalg.norm(a - b @ (b.T @ a), 2)


def fit(original, **settings):
    case, model = golden("celligner_mini/input.npz"), Celligner(**settings)
    clusters = case[f"{original}_tumour_clusters"], case[f"{original}_line_clusters"]
    aligned, lines = model.fit_transform(case["tumours"], case["lines"], *clusters)
    return model, aligned, lines


def generated(n_tumours=160, n_lines=80, n_genes=200, n_types=4, seed=0, dtype=np.float64):
    """Types with a programme each; tumours carry a varying stroma programme, lines a culture shift."""
    rng = np.random.default_rng(seed)
    programme = rng.normal(0, 2, (n_types, n_genes))
    stroma = rng.normal(0, 1, n_genes)
    types = np.arange(n_tumours) % n_types, np.arange(n_lines) % n_types
    tumours, lines = (programme[t] + rng.normal(0, 0.5, (len(t), n_genes)) for t in types)
    tumours += rng.normal(2, 1, n_tumours)[:, None] * stroma
    lines += rng.normal(0, 1, n_genes)
    return tumours.astype(dtype), lines.astype(dtype), *types, stroma / np.linalg.norm(stroma)


def test_cluster_de_is_limmas_f():
    case = golden("limma/groups.npz")
    found = cluster_de(case["expression"], case["group"])
    np.testing.assert_allclose(found["F"], case["f"], rtol=1e-9)
    assert found["rank"].iloc[case["f"].argmax()] == 1
    assert sorted(found["rank"]) == list(range(1, len(found) + 1))


def test_de_options_are_the_originals():
    model, _, _ = fit("py", **PYTHON_ORIGINAL)
    case = golden("celligner_mini/python.npz")
    np.testing.assert_allclose(model.tumour_de_["F"], case["tumour_f"], rtol=1e-9)
    np.testing.assert_allclose(model.line_de_["F"], case["line_f"], rtol=1e-9)
    model, _, _ = fit("R", **R_ORIGINAL)  # R fits its trend on rounding noise: F is defined to some percent only
    np.testing.assert_allclose(model.tumour_de_["F"], golden("celligner_mini/r.npz")["tumour_f"], rtol=0.06)


@pytest.mark.parametrize("order", ["abs", "signed"])
def test_components_are_the_originals(order):
    case = golden("cpca_signed/case.npz")
    data = [case[key] for key in ("tumours", "tumour_clusters", "lines", "line_clusters")]
    loadings, eigenvalues = contrastive_components(*data, n=4, order=order)
    assert subspace_error(loadings, case[order]) < 1e-8
    np.testing.assert_allclose(np.abs((loadings * case[order]).sum(axis=0)), 1, atol=1e-8)
    if order == "signed":
        np.testing.assert_allclose(eigenvalues, case["eigenvalues"], rtol=1e-8)
    else:  # lines vary more along some of them: what the "abs" order removes against the method's intention
        assert (eigenvalues < 0).any()


@pytest.mark.parametrize(("prefix", "k"), [("", {}), ("smallk_", SMALL_K)])
def test_whole_python_original(prefix, k):
    case = golden("celligner_mini/python.npz")
    model, aligned, _ = fit("py", **PYTHON_ORIGINAL, **k)
    np.testing.assert_array_equal(model.genes_, case["genes"])
    np.testing.assert_array_equal(model.pairs_, case[prefix + "pairs"])
    assert subspace_error(model.components_, case["loadings"]) < 1e-4
    np.testing.assert_allclose(aligned[:, ::3], case[prefix + "corrected"], atol=1e-6)


@pytest.mark.parametrize("order", ["abs", "signed"])
def test_whole_r_original(order):
    case = golden("celligner_mini/r.npz")
    model, aligned, _ = fit("R", order=order, **R_ORIGINAL)
    np.testing.assert_array_equal(model.genes_, case["genes"])
    assert subspace_error(model.components_, case[order]) < 1e-8
    np.testing.assert_allclose(aligned[:, ::3], case[order + "_corrected"], atol=1e-9)


@pytest.mark.skipif(not ORACLE.exists(), reason="the larger case of the original is not on this machine")
def test_larger_python_original_stage_by_stage():
    data, stages = (np.load(ORACLE / f"{name}.npz", allow_pickle=False) for name in ("input", "py_default_stages"))
    clusters = [pd.read_csv(ORACLE / f"py_clusters_{kind}.csv", index_col=0)["cluster"] for kind in ("tumors", "lines")]
    tumours, lines = (X - X.mean(axis=0) for X in (data["tumor"], data["line"]))
    exact = stages["cpca_exact_svd_of_colcentred_diff"][:4].T
    loadings, _ = contrastive_components(tumours, clusters[0], lines, clusters[1])
    assert subspace_error(loadings, exact) < 1e-8
    genes, used = np.flatnonzero(stages["mnn_gene_mask"]), stages["cpca_loadings"].T
    tumours, lines = tumours - tumours @ used @ used.T, lines - lines @ used @ used.T
    pairs = np.column_stack([stages["mnn_pairs_ref_line_idx0"], stages["mnn_pairs_target_tumor_idx0"]])
    np.testing.assert_array_equal(mnn_pairs(lines[:, genes], tumours[:, genes]), np.unique(pairs, axis=0))
    np.testing.assert_allclose(mnn_correct(lines, tumours, genes), stages["tumor_corrected"], atol=1e-9)


def test_components_equal_dense_eigenvectors():
    rng = np.random.default_rng(1)
    tumours, lines = rng.normal(size=(60, 40)) * np.linspace(3, 0.5, 40), rng.normal(size=(30, 40))
    clusters = np.arange(60) % 3, np.arange(30) % 2
    cov = [
        np.cov(X - np.stack([X[c == k].mean(axis=0) for k in c]), rowvar=False)
        for X, c in zip((tumours, lines), clusters, strict=True)
    ]
    values, vectors = np.linalg.eigh(cov[0] - cov[1])
    loadings, eigenvalues = contrastive_components(tumours, clusters[0], lines, clusters[1], 3, "signed")
    np.testing.assert_allclose(eigenvalues, values[::-1][:3])
    assert subspace_error(loadings, vectors[:, ::-1][:, :3]) < 1e-8
    np.testing.assert_allclose(loadings.T @ loadings, np.eye(3), atol=1e-10)


@pytest.mark.parametrize("order", ["abs", "signed"])
def test_no_gene_by_gene_matrix(order):
    rng, n_genes = np.random.default_rng(2), 6000
    tumours, lines = rng.normal(size=(40, n_genes)), rng.normal(size=(20, n_genes))
    tracemalloc.start()
    contrastive_components(tumours, np.arange(40) % 2, lines, np.arange(20) % 2, 4, order)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < n_genes**2 * 8 / 10


def test_stroma_is_removed_and_types_meet():
    tumours, lines, tumour_types, line_types, stroma = generated()
    model = Celligner(n_components=1, resolution=1.0)
    aligned, fixed = model.fit_transform(tumours, lines)
    assert abs(model.components_[:, 0] @ stroma) > 0.98
    assert model.eigenvalues_[0] > 0
    nearest = np.linalg.norm(aligned[:, None] - fixed[None], axis=2).argmin(axis=1)
    assert (line_types[nearest] == tumour_types).mean() > 0.95
    gap = np.linalg.norm(aligned.mean(axis=0) - fixed.mean(axis=0))
    assert gap < 0.2 * np.linalg.norm(tumours.mean(axis=0) - lines.mean(axis=0))


def test_same_seed_same_bits_and_precision_kept():
    tumours, lines, *_ = generated(dtype=np.float32)
    first, second = (Celligner(seed=3).fit_transform(tumours, lines) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert a.dtype == np.float32
        np.testing.assert_array_equal(a, b)
    model = Celligner(seed=3)
    given = model.fit_transform(tumours.astype(float), lines.astype(float))
    np.testing.assert_allclose(first[0], given[0], atol=1e-3)


def test_anndata_in_arrays_out_and_input_untouched():
    tumours, lines, *_ = generated()
    before = tumours.copy()
    expected, _ = Celligner().fit_transform(tumours, lines)
    found, _ = Celligner().fit_transform(ad.AnnData(tumours), ad.AnnData(lines))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(tumours, before)


def test_clusters_find_types():
    tumours, _, types, *_ = generated(n_types=5)
    labels = cluster(tumours, n_pcs=10, resolution=0.5)
    assert all(len(set(types[labels == label])) == 1 for label in set(labels))


def test_mnn_undoes_a_shift():
    rng = np.random.default_rng(4)
    centres = rng.normal(0, 3, (6, 30))
    reference = centres.repeat(5, axis=0) + rng.normal(0, 0.1, (30, 30))
    shift = rng.normal(0, 1, 30)
    target = centres.repeat(8, axis=0) + rng.normal(0, 0.1, (48, 30)) + shift
    left = mnn_correct(reference, target, np.arange(30)) - centres.repeat(8, axis=0)
    # along the batch vector itself all variation is flattened, as in the originals
    batch = shift / np.linalg.norm(shift)
    assert np.abs(left - np.outer(left @ batch, batch)).max() < 1


def test_equal_sets_stay():
    X = np.random.default_rng(8).normal(size=(20, 12))
    np.testing.assert_allclose(mnn_correct(X, X, np.arange(12), k1=1, k2=1, fk=1), X, atol=1e-12)


def test_pairs_are_mutual():
    rng = np.random.default_rng(5)
    lines, tumours = rng.normal(size=(12, 6)), rng.normal(size=(25, 6))
    distance = np.linalg.norm(lines[:, None] - tumours[None], axis=2)
    near_line = distance.argsort(axis=0).argsort(axis=0) < 3
    near_tumour = distance.argsort(axis=1).argsort(axis=1) < 4
    np.testing.assert_array_equal(mnn_pairs(lines, tumours, 3, 4), np.argwhere(near_line & near_tumour))


def test_fewer_samples_than_neighbours():
    rng = np.random.default_rng(6)
    corrected = mnn_correct(rng.normal(size=(3, 8)), rng.normal(size=(4, 8)), [0, 1, 2])
    assert corrected.shape == (4, 8)
    assert np.isfinite(corrected).all()


def test_constant_genes_rank_last_and_stay_finite():
    tumours, lines, *_ = generated()
    tumours[:, 7], lines[:, [7, 9]] = 3.3, 0.0
    model = Celligner(n_genes=50)
    aligned, fixed = model.fit_transform(tumours, lines)
    assert np.isfinite(aligned).all()
    assert np.isfinite(fixed).all()
    assert model.tumour_de_["rank"][7] == 200
    assert model.tumour_de_["F"][7] < 1e-10


def test_more_components_than_samples_is_said():
    tumours, lines, *_ = generated(n_lines=15)
    with pytest.warns(UserWarning, match="n_pcs: found 70, cut to 14"):
        aligned, _ = Celligner().fit_transform(tumours, lines)
    assert np.isfinite(aligned).all()


def with_nan(X):
    return np.where(np.arange(X.size).reshape(X.shape) == 5, np.nan, X)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, n: (with_nan(t), n), "tumours: found 1 NaN"),
        (lambda t, n: (t, n[:, :-1]), "found 200 and 199 genes"),
        (lambda t, n: (np.zeros_like(t), n), "only constant genes"),
        (lambda t, n: (t, n[0]), r"lines: found float64 of shape \(200,\)"),
        (lambda t, n: (t, n[:1]), "lines: .* expected numbers"),
        (lambda t, n: (t.astype(str), n), "tumours: .* expected numbers"),
    ],
)
def test_bad_matrices(change, message):
    tumours, lines = change(*generated()[:2])
    with pytest.raises(ValueError, match=message):
        Celligner().fit_transform(tumours, lines)


def test_bad_clusters_and_settings():
    X = np.random.default_rng(7).normal(size=(10, 5))
    for labels, message in [
        (np.zeros(10), "found 1 cluster"),
        (np.arange(10), "one sample each"),
        (np.zeros(4), "expected a label for each of 10"),
        ([None] + ["a"] * 4 + ["b"] * 5, "1 missing labels"),
    ]:
        with pytest.raises(ValueError, match=message):
            cluster_de(X, labels)
    halves = np.arange(10) % 2
    for settings, message in [({"order": "largest"}, "order"), ({"n": 5}, "n: found 5"), ({"n": 2.5}, "n: found 2.5")]:
        with pytest.raises(ValueError, match=message):
            contrastive_components(X, halves, X, halves, **settings)
    with pytest.raises(ValueError, match="genes"):
        mnn_correct(X, X, [7])
    for settings in ({"k1": 0}, {"k2": 2.5}, {"fk": "5"}, {"ndist": -1}):
        with pytest.raises(ValueError, match=f"^{next(iter(settings))}: found"):
            mnn_correct(X, X, [0], **settings)
        with pytest.raises(ValueError, match=f"^{next(iter(settings))}: found"):
            Celligner(**settings).fit_transform(X, X, halves, halves)
    for settings in ({"n_genes": 0}, {"n_pcs": 0}, {"n_neighbours": 1.5}):
        with pytest.raises(ValueError, match=f"^{next(iter(settings))}: found"):
            Celligner(**settings).fit_transform(X, X)


def test_directions_in_which_lines_vary_more_are_not_removed():
    tumours, lines, tumour_types, line_types, stroma = generated()
    lines = lines + 3 * np.random.default_rng(9).normal(size=(len(lines), 1)) * np.roll(stroma, 1)
    model = Celligner(n_components=len(stroma) - 1)
    with pytest.warns(UserWarning, match="fewer than 199; only these are removed"):
        aligned, _ = model.fit_transform(tumours, lines, tumour_types, line_types)
    assert (model.eigenvalues_ > 0).all() and 0 < len(model.eigenvalues_) < 199 and np.isfinite(aligned).all()
    with pytest.warns(UserWarning, match="found 0 directions"):  # lines vary more along every direction
        model = Celligner(n_components=2)
        model.fit_transform(1e-3 * lines, lines + 0, line_types, line_types)
    assert model.components_.shape == (200, 0)
    kept = Celligner(n_components=199, order="abs")
    kept.fit_transform(tumours, lines, tumour_types, line_types)
    assert len(kept.eigenvalues_) == 199  # the originals' choice drops nothing
