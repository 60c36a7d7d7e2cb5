"""Linear projection of tumours to purity 1, and the collapse of samples to their type's mean.

Source: Yu et al., Nature Communications 2019 (TCGA_CCLE_paper), as used by paper A.
"""

import numpy as np
import pandas as pd
from scipy import stats


class LinearProjection:
    """Per cancer type and gene, tumours become x - beta · (1 - purity); cell lines stay as they are.

    beta: least squares slope of the type's tumours on (1 - purity), as limma's. Types with fewer than
    `min_tumours` tumours, or of one purity only, take the pan-cancer slope: all tumours, centred per type, so
    that differences between types are not mistaken for purity. Options of the original, off by default:

    * `unadjusted`: types left as they are, their purity may be missing ("LAML", "DLBC" in the original).
    * `drop_purity_genes`: drops the genes that rise with impurity in any type with a slope of its own:
      Spearman(expression, purity) < -0.4 and Holm p < 0.01. (The original treats one type at a time.)
    * `n_iqr_genes`: keeps the genes of largest inter-quartile range over the projected tumours (5,000).
    """

    def __init__(self, *, min_tumours=10, unadjusted=(), drop_purity_genes=False, n_iqr_genes=None):
        self.min_tumours, self.unadjusted = min_tumours, unadjusted
        self.drop_purity_genes, self.n_iqr_genes = drop_purity_genes, n_iqr_genes

    def fit_transform(self, adata):
        """Projected expression, samples × kept genes, in adata's order and precision.

        adata: `X` log expression; `obs` cancer_type, sample_type ("tumour" or "cell line"), purity in [0, 1].
        Sets `slopes_` (types × genes), `pan_cancer_types_`, `purity_genes_` (types × genes, where asked for)
        and `genes_` (names of the kept genes).
        Raises ValueError on missing columns, purities or types, values out of range, or no slope to be had.
        """
        X = _expression(adata)
        types, is_tumour = _types(adata), _is_tumour(adata)
        adjusted = is_tumour & ~np.isin(types, list(self.unadjusted))
        impurity = 1 - _purity(adata, adjusted)
        self._fit_slopes(X[adjusted], types[adjusted], impurity[adjusted], adata.var_names)
        projected = X.copy()
        projected[adjusted] -= self._stroma(types[adjusted], impurity[adjusted]).astype(X.dtype)
        kept = self._kept_genes(projected, is_tumour, adata.var_names)
        self.genes_ = adata.var_names[kept]
        return projected[:, kept]

    def _fit_slopes(self, X, types, impurity, genes):
        cross, spread, own, falling = {}, {}, {}, {}
        for name in pd.unique(types):
            x, w = X[types == name].astype(np.float64), impurity[types == name]
            centred = w - w.mean()
            cross[name], spread[name] = centred @ (x - x.mean(axis=0)), centred @ centred
            own[name] = len(w) >= self.min_tumours and np.ptp(w) > 0
            if self.drop_purity_genes and own[name]:
                falling[name] = _falls_with_purity(x, 1 - w)
        self.pan_cancer_types_ = [name for name in own if not own[name]]
        slopes = {name: cross[name] / spread[name] for name in own if own[name]}
        if self.pan_cancer_types_:
            slopes |= dict.fromkeys(self.pan_cancer_types_, _pan_cancer_slope(cross, spread))
        self.slopes_ = pd.DataFrame.from_dict(slopes, orient="index", columns=genes)
        self.purity_genes_ = pd.DataFrame.from_dict(falling, orient="index", columns=genes)

    def _stroma(self, types, impurity):
        return self.slopes_.reindex(types).to_numpy() * impurity[:, None]

    def _kept_genes(self, projected, is_tumour, genes):
        kept = ~self.purity_genes_.any(axis=0).to_numpy(dtype=bool)
        if self.n_iqr_genes is not None:
            spread = np.where(kept, stats.iqr(projected[is_tumour], axis=0), -1)
            kept &= np.isin(np.arange(len(genes)), np.argsort(-spread, kind="stable")[: self.n_iqr_genes])
        if not kept.any():
            raise ValueError("drop_purity_genes: every gene falls with purity in some type, expected some to remain")
        return kept


def type_mean(adata):
    """Each sample becomes the mean of its given cancer type, lines included: a collapse.

    adata: `X` expression, `obs` cancer_type. Returns samples × genes. Raises ValueError on missing types or
    values.
    """
    X, (codes, names) = _expression(adata), pd.factorize(_types(adata))
    means = np.stack([X[codes == code].mean(axis=0, dtype=np.float64) for code in range(len(names))])
    return means.astype(X.dtype)[codes]


def _pan_cancer_slope(cross, spread):
    if sum(spread.values()) < 1e-12:
        raise ValueError("adata.obs['purity']: found no variation within any cancer type, expected some for a slope")
    return sum(cross.values()) / sum(spread.values())


def _falls_with_purity(x, purity, rho=-0.4, alpha=0.01):
    """Genes whose Spearman correlation with purity is below rho at Holm p (t approximation) below alpha."""
    ranks, purity_ranks = stats.rankdata(x, axis=0), stats.rankdata(purity)
    ranks -= ranks.mean(axis=0)
    purity_ranks -= purity_ranks.mean()
    norm = np.linalg.norm(ranks, axis=0) * np.linalg.norm(purity_ranks)
    r = np.divide(purity_ranks @ ranks, norm, out=np.zeros(x.shape[1]), where=norm > 0)
    with np.errstate(divide="ignore"):
        t = r * np.sqrt((len(x) - 2) / np.maximum(1 - r**2, 0))
    p = 2 * stats.t.sf(np.abs(t), len(x) - 2)
    return (r < rho) & (_holm(p, n_tests=(norm > 0).sum()) < alpha)


def _holm(p, n_tests):
    order = np.argsort(p)
    steps = np.maximum(n_tests - np.arange(len(p)), 1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * steps), 1)
    return adjusted


def _expression(adata):
    X = adata.X.toarray() if hasattr(adata.X, "toarray") else np.asarray(adata.X)
    X = X if X.dtype in (np.float32, np.float64) else X.astype(np.float64)
    if not np.isfinite(X).all():
        raise ValueError(f"adata.X: found {(~np.isfinite(X)).sum()} NaN or infinite values, expected none")
    return X


def _column(adata, name):
    if name not in adata.obs:
        raise ValueError(f"adata.obs: found columns {list(adata.obs.columns)}, expected '{name}' among them")
    return adata.obs[name]


def _types(adata):
    types = _column(adata, "cancer_type")
    if types.isna().any():
        raise ValueError(f"adata.obs['cancer_type']: found {types.isna().sum()} missing, expected a type per sample")
    return types.to_numpy(dtype=object)


def _is_tumour(adata):
    sample_type = _column(adata, "sample_type").to_numpy(dtype=object)
    unknown = set(sample_type) - {"tumour", "cell line"}
    if unknown or "tumour" not in sample_type:
        found = sorted(map(str, set(sample_type)))
        raise ValueError(f"adata.obs['sample_type']: found {found}, expected 'tumour' and 'cell line'")
    return sample_type == "tumour"


def _purity(adata, needed):
    purity = _column(adata, "purity")
    try:
        purity = purity.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        raise ValueError("adata.obs['purity']: found text, expected fractions from 0 to 1") from None
    missing = np.isnan(purity[needed]).sum()
    if missing:
        raise ValueError(f"adata.obs['purity']: missing for {missing} of {needed.sum()} tumours, expected a value each")
    if ((purity[needed] < 0) | (purity[needed] > 1)).any():
        low, high = purity[needed].min(), purity[needed].max()
        raise ValueError(f"adata.obs['purity']: found {low:g} to {high:g}, expected fractions from 0 to 1")
    return purity
