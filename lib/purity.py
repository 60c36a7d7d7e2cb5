"""Tumour purity: a column of the data, PUREE's web service, or a linear model of our own on expression ranks.

Purity is the share of cancer cells in a sample, 0 to 1; a cell line has 1. Everything here returns one value per
sample as a Series. Only `from_puree` sends anything anywhere, and only with `consent=True` (`python -m lib purity
--puree` says what it would send, and asks).
"""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from urllib.parse import urlsplit

import anndata as ad
import numpy as np
import pandas as pd
import requests
import scipy.sparse as sp
from requests.adapters import HTTPAdapter
from scipy.stats import rankdata
from sklearn.base import BaseEstimator
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted
from urllib3.util import Retry

from lib import curation
from lib.files import replacing
from lib.metrics.bootstrap import interval
from lib.models import training

PUREE = "https://puree.genome.sg/server"
PUREE_BATCH = 500  # tumours in one upload: a file of some 100 MB; the service takes 10,000 rows for genes
LOOPBACK = ("localhost", "127.0.0.1", "::1")
CHUNK = 1024  # samples ranked at once
ALPHAS = tuple(10 ** (half / 2) for half in range(11))  # 1 to 100,000


def from_column(adata: ad.AnnData, column: str = "purity") -> pd.Series:
    """Purities as a column of adata.obs has them; NaN where a tumour has none, 1 for cell lines.

    ValueError for a missing column, text that is no number, and values outside 0 to 1.
    """
    if column not in adata.obs:
        raise ValueError(f"adata.obs: no column {column!r}, found {', '.join(adata.obs) or 'none'}")
    given = adata.obs[column].astype(object).replace("", np.nan)
    purity = pd.to_numeric(given, errors="coerce")
    if (wrong := given.notna() & purity.isna()).any():
        raise ValueError(f"adata.obs[{column!r}]: found {given[wrong].iloc[0]!r}, expected numbers from 0 to 1")
    kind = np.where(_is_tumour(adata.obs), "tumour", "cell line")
    obs = pd.DataFrame({"sample_type": kind, "cancer_type": "", "source": "", "purity": purity}, adata.obs_names)
    return curation.fill_purity(obs, "keep")[0]["purity"]


def rank_percentiles(X: np.ndarray) -> np.ndarray:
    """Rank of every gene within its sample ÷ genes, float32; ties get the lowest rank of theirs, as in PUREE.

    X: samples × genes in any unit that keeps the order of genes within a sample (counts, TPM, their logarithms; not
    z-scores).
    """
    return (rankdata(X, method="min", axis=1) / X.shape[1]).astype(np.float32)


# --- a linear model on ranks --------------------------------------------------------------------------------


class PurityEstimator(BaseEstimator):
    """Purity by ridge regression on within-sample rank percentiles, in the manner of PUREE (Revkov et al. 2023).

    PUREE is a linear model on rank percentiles trained on consensus purities of TCGA; its weights are closed. This
    one learns from the purities that the data carry. Ranks do not change with a sample's unit, depth or monotone
    normalisation, so that it can be applied to other sources that have the same genes.

    alphas: penalties to choose from, by leave-one-out error on the training samples; folds, seed: of the
    cross-validation.

    After `fit`: genes_, coef_ (per gene, on percentiles), intercept_, alpha_, cv_ (see `fit`), cv_predictions_ (per
    reference tumour: purity, predicted, type_median).
    """

    def __init__(self, alphas: tuple[float, ...] = ALPHAS, folds: int = 5, seed: int = 0):
        self.alphas = alphas
        self.folds = folds
        self.seed = seed

    def fit(self, adata: ad.AnnData, groups: str = "donor") -> PurityEstimator:
        """Learn from the tumours with a purity of their own (obs purity, not flagged by purity_imputed).

        adata: samples × genes, not z-scored; obs sample_type, purity. Samples alike in obs[groups] stay in one fold
        (those without a value are each a group, as are all where there is no donor column); groups="cancer_type" gives
        the error for types never seen.

        cv_: rows "ridge on ranks" and "type median" (what curation fills in where a purity is missing), columns
        rmse, mae, pearson_r, each with _low and _high (95 % bootstrap over tumours), and n. A correlation with
        constant predictions counts as 0.
        ValueError for z-scores, NaN, too few reference tumours or groups, or purities that are all the same.
        """
        reference = adata[self._has_reference(adata)]
        purity = from_column(reference)
        fold_of = self._fold_of(reference.obs, groups)
        if np.ptp(purity) == 0:
            raise ValueError(f"purity: found {purity.iloc[0]:g} for all {len(purity)} tumours, expected some variation")
        ranks = _percentiles(reference)
        self.cv_predictions_ = self._cross_validate(ranks, purity, _types(reference.obs), fold_of)
        self.cv_ = self._errors()
        scaler, ridge = self._model().fit(ranks, purity).named_steps.values()
        self.genes_ = list(reference.var_names)
        self.alpha_ = float(ridge.alpha_)
        self.coef_ = ridge.coef_ / scaler.scale_
        self.intercept_ = float(ridge.intercept_ - scaler.mean_ @ self.coef_)
        return self

    def predict(self, adata: ad.AnnData) -> pd.Series:
        """Purity of every sample, clipped to 0 to 1; 1 for those whose obs sample_type is "cell line".

        adata: samples × genes, not z-scored; it must have all of genes_, and only these are ranked. ValueError for
        missing genes, z-scores or NaN.
        """
        check_is_fitted(self, "coef_")
        purity = pd.Series(1.0, adata.obs_names, name="purity")
        tumour = _is_tumour(adata.obs)
        if tumour.any():
            ranks = _percentiles(training.reorder_genes(adata, self.genes_)[tumour])
            purity[tumour] = np.clip(ranks @ self.coef_ + self.intercept_, 0, 1)
        return purity

    def save(self, path: str | Path) -> None:
        """Write genes, weights, settings and the cross-validated error as JSON; no samples."""
        check_is_fitted(self, "coef_")
        path = Path(path)
        record = {"kind": "PurityEstimator", "settings": self.get_params(), "intercept": self.intercept_}
        record |= {"alpha": self.alpha_, "genes": self.genes_, "coef": self.coef_.tolist()}
        record["cv"] = self.cv_.reset_index().to_dict("list")
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(record, indent=1))

    @classmethod
    def load(cls, path: str | Path) -> PurityEstimator:
        """Read what `save` wrote. FileNotFoundError, or ValueError when the file is something else."""
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file, expected a saved PurityEstimator (.json)")
        try:
            record = json.loads(path.read_text())
            self = cls(**record["settings"] | {"alphas": tuple(record["settings"]["alphas"])})
            self.genes_, self.coef_ = record["genes"], np.array(record["coef"], float)
            self.intercept_, self.alpha_ = float(record["intercept"]), float(record["alpha"])
            self.cv_ = pd.DataFrame(record["cv"]).set_index("method")
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path}: not a saved PurityEstimator ({type(error).__name__})") from error
        if len(self.genes_) != len(self.coef_):
            raise ValueError(f"{path}: found {len(self.coef_)} weights for {len(self.genes_)} genes, expected as many")
        return self

    def _model(self):
        return make_pipeline(StandardScaler(), RidgeCV(self.alphas))

    def _has_reference(self, adata: ad.AnnData) -> np.ndarray:
        known = _is_tumour(adata.obs) & from_column(adata).notna().to_numpy()
        if "purity_imputed" in adata.obs:
            known &= ~adata.obs["purity_imputed"].to_numpy(bool)
        if known.sum() < 2 * self.folds:
            raise ValueError(
                f"purity: found {known.sum()} tumours with a purity of their own, expected at least {2 * self.folds}"
            )
        return known

    def _fold_of(self, obs: pd.DataFrame, groups: str) -> np.ndarray:
        """Number of the fold that each sample is left out with."""
        if groups != "donor" and groups not in obs:
            raise ValueError(f"groups: found {groups!r}, expected a column of adata.obs ({', '.join(obs)})")
        together = curation.sample_groups(obs.assign(donor=obs.get(groups, ""), study=""))
        if together.nunique() < self.folds:
            raise ValueError(f"{groups}: found {together.nunique()} groups, expected at least {self.folds} (folds)")
        fold_of = np.empty(len(obs), int)
        folds = GroupKFold(self.folds, shuffle=True, random_state=self.seed).split(obs, groups=together)
        for fold, (_, left_out) in enumerate(folds):
            fold_of[left_out] = fold
        return fold_of

    def _cross_validate(self, ranks, purity: pd.Series, types: pd.Series, fold_of: np.ndarray) -> pd.DataFrame:
        table = pd.DataFrame({"purity": purity, "predicted": np.nan, "type_median": np.nan})
        for fold in range(self.folds):
            out, rest = fold_of == fold, fold_of != fold
            predicted = self._model().fit(ranks[rest], purity[rest]).predict(ranks[out])
            table.loc[out, "predicted"] = np.clip(predicted, 0, 1)
            medians = purity[rest].groupby(types[rest]).median()
            table.loc[out, "type_median"] = types[out].map(medians).fillna(purity[rest].median())
        return table

    def _errors(self) -> pd.DataFrame:
        truth, rows = self.cv_predictions_["purity"].to_numpy(), {}
        for method, column in {"ridge on ranks": "predicted", "type median": "type_median"}.items():
            predicted, rows[method] = self.cv_predictions_[column].to_numpy(), {}
            for name, measure in {"rmse": _rmse, "mae": _mae, "pearson_r": _pearson}.items():
                estimate = interval(np.arange(len(truth)), _resampled(measure, predicted, truth), seed=self.seed)
                rows[method] |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
            rows[method]["n"] = len(truth)
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def cross_validated(
    adata: ad.AnnData, groupings: dict[str, str], seed: int = 0
) -> tuple[dict[str, PurityEstimator], dict[str, str]]:
    """One fitted estimator per grouping of the samples that allows it, and why the others do not.

    adata: as for `PurityEstimator.fit`; groupings: name -> column of obs whose samples are left out together.
    """
    fitted, reasons = {}, {}
    for name, groups in groupings.items():
        try:
            fitted[name] = PurityEstimator(seed=seed).fit(adata, groups)
        except ValueError as error:
            reasons[name] = str(error)
    return fitted, reasons


def error_in_words(estimator: PurityEstimator) -> str:
    """How well a fitted estimator does on samples that it did not see."""
    error = estimator.cv_.loc["ridge on ranks"]
    return f"cross-validated mean absolute error {error['mae']:.2f} ({error['mae_low']:.2f} to {error['mae_high']:.2f})"


def _resampled(measure, predicted: np.ndarray, truth: np.ndarray):
    """`measure` of the samples at given positions, in the form that `interval` resamples."""

    def of(positions: np.ndarray, axis: int) -> np.ndarray:
        positions = positions.astype(int)
        return measure(predicted[positions], truth[positions])

    return of


def _rmse(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.sqrt(np.mean((a - b) ** 2, axis=-1))


def _mae(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.mean(np.abs(a - b), axis=-1)


def _pearson(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = (v - v.mean(axis=-1, keepdims=True) for v in (a, b))
    covariance, norm = np.sum(a * b, axis=-1), np.sqrt(np.sum(a * a, axis=-1) * np.sum(b * b, axis=-1))
    return np.where(norm > 1e-12, covariance / np.maximum(norm, 1e-12), 0.0)


def _is_tumour(obs: pd.DataFrame) -> np.ndarray:
    """All samples that are not cell lines; all of them where obs does not say."""
    return (obs["sample_type"] != "cell line").to_numpy() if "sample_type" in obs else np.ones(len(obs), bool)


def _types(obs: pd.DataFrame) -> pd.Series:
    return obs["cancer_type"].astype(str) if "cancer_type" in obs else pd.Series("", obs.index)


def _refuse_z_scores(adata: ad.AnnData) -> None:
    if adata.uns.get("unit") == "z-score":
        raise ValueError("adata: found z-scores, expected TPM or counts, whose order within a sample has a meaning")


def _percentiles(adata: ad.AnnData) -> np.ndarray:
    """`rank_percentiles` of adata.X, dense or sparse, a block of samples at a time."""
    _refuse_z_scores(adata)
    ranks = np.empty(adata.shape, np.float32)
    for start in range(0, adata.n_obs, CHUNK):
        chunk = adata[start : start + CHUNK].X
        chunk = chunk.toarray() if sp.issparse(chunk) else np.asarray(chunk)
        if bad := int((~np.isfinite(chunk)).sum()):
            raise ValueError(f"adata.X: found {bad} NaN or infinite values, expected finite expression values")
        ranks[start : start + CHUNK] = rank_percentiles(chunk)
    return ranks


# --- PUREE's web service ------------------------------------------------------------------------------------


def from_puree(
    adata: ad.AnnData,
    consent: bool = False,
    *,
    url: str = PUREE,
    timeout: float = 60.0,
    wait: float = 1800.0,
    poll: float = 10.0,
) -> pd.Series:
    """Purities by PUREE's web service (Revkov et al. 2023), at puree.genome.sg: uploads expression.

    Sent, over https: the expression values of the tumours and the gene names, samples renamed Sample_1, Sample_2, …;
    no labels, no cell lines (they have 1). Without consent=True nothing is sent and a ValueError says what would be.

    adata: samples × genes in any unit but z-scores, Ensembl ids or HGNC symbols; give all genes, not a selection:
    the service ranks them within each sample. timeout: seconds for one answer; wait: for the result of each batch of
    500 tumours, asked for every `poll` seconds. Purities are clipped to 0 to 1.
    ValueError for bad input; OSError (TimeoutError when `wait` is over), naming the host, when the service fails.
    """
    _host(url)
    _refuse_z_scores(adata)
    tumour = _is_tumour(adata.obs)
    purity = pd.Series(1.0, adata.obs_names, name="purity")
    if not tumour.any():
        return purity
    if consent is not True:
        would = puree_upload(int(tumour.sum()), adata.n_vars, url)
        raise ValueError(f"consent: found {consent!r}; this would send {would}; expected consent=True")
    positions = np.flatnonzero(tumour)
    with _session(backoff=poll / 10) as session:
        for start in range(0, len(positions), PUREE_BATCH):
            batch = positions[start : start + PUREE_BATCH]
            job = _submit(session, url, timeout, adata[batch])
            purity.iloc[batch] = _await_result(session, url, timeout, job, len(batch), time.monotonic() + wait, poll)
    return purity


def puree_upload(tumours: int, genes: int, url: str = PUREE) -> str:
    """What `from_puree` sends, and to whom, in words."""
    return (
        f"the expression of {tumours:,} tumours × {genes:,} genes (gene names, samples without names) to {_host(url)}"
    )


def _host(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in LOOPBACK:
        raise ValueError(f"url: found {url!r}, expected https://…")
    return parts.hostname or url


def _session(backoff: float) -> requests.Session:
    """Connections are tried four times; answers of an overloaded server too, but never a second upload."""
    session = requests.Session()
    retry = Retry(
        total=3, backoff_factor=backoff, status_forcelist=(429, 502, 503, 504), allowed_methods={"GET"},
        raise_on_status=False,
    )  # fmt: skip
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    return session


def _request(session: requests.Session, method: str, url: str, timeout: float, **content) -> requests.Response:
    """One request to the host that was consented to: redirects are not followed."""
    host = urlsplit(url).hostname
    try:
        answer = session.request(method, url, timeout=timeout, allow_redirects=False, **content)
    except requests.Timeout as error:
        raise TimeoutError(f"{host}: no answer within {timeout:g} s") from error
    except requests.RequestException as error:
        raise OSError(f"{host}: could not be reached ({type(error).__name__})") from error
    if answer.is_redirect:
        raise OSError(f"{host}: redirects to {answer.headers['Location']}; nothing was sent there")
    return answer


def _submit(session: requests.Session, url: str, timeout: float, tumours: ad.AnnData) -> str:
    """Upload a batch; returns the id of the job."""
    table = tumours.to_df().set_axis(_anonymous(tumours.n_obs))
    text = table.to_csv(sep="\t", index_label="sample", float_format="%.7g")
    ensembl = tumours.var_names.str.startswith("ENSG").mean() > 0.5
    fields = {"gene_identifier_type": "ENSEMBL" if ensembl else "HGNC", "run_mode": "PUREE_genes"}
    fields["file_name"] = "expression.tsv"
    answer = _request(session, "POST", f"{url}/main", timeout, data=fields, files={"file": (fields["file_name"], text)})
    job = _json(answer)
    if not job or "id" not in job or str(job.get("success", True)).lower() != "true":
        raise OSError(f"{urlsplit(url).hostname}: upload not accepted, {_excerpt(answer)}")
    return str(job["id"])


def _await_result(session, url: str, timeout: float, job: str, n: int, deadline: float, poll: float) -> np.ndarray:
    """Purities of the batch in its order, once the service has them; until then it answers in JSON."""
    host = urlsplit(url).hostname
    while True:
        answer = _request(session, "GET", f"{url}/get_file", timeout, params={"id": job})
        state = _json(answer)
        if state is None:
            return _parse_result(answer, n, host)
        if "ERROR" in str(state.get("error", "")).upper():
            raise OSError(f"{host}: job {job} failed: {' '.join(str(state['error']).split())}")
        if time.monotonic() + poll > deadline:
            raise TimeoutError(f"{host}: job {job} not ready in time, last answer {_excerpt(answer)}")
        time.sleep(poll)


def _parse_result(answer: requests.Response, n: int, host: str | None) -> np.ndarray:
    problem = f"{host}: found no table of {n} purities, {_excerpt(answer)}"
    if answer.status_code != 200:
        raise OSError(problem)
    try:
        purity = pd.read_csv(io.StringIO(answer.text), sep="\t", index_col=0).iloc[:, 0]
        if sorted(purity.index) == sorted(_anonymous(n)):
            purity = purity[_anonymous(n)]
        values = purity.to_numpy(float)
    except (ValueError, TypeError, IndexError) as error:
        raise OSError(problem) from error
    if len(values) != n or not np.isfinite(values).all():
        raise OSError(problem)
    return np.clip(values, 0, 1)


def _anonymous(n: int) -> list[str]:
    return [f"Sample_{i}" for i in range(1, n + 1)]


def _json(answer: requests.Response) -> dict | None:
    """The answer as a mapping, or None when it is none."""
    try:
        content = answer.json()
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def _excerpt(answer: requests.Response) -> str:
    """Status and first words of an answer, in one line."""
    return f"HTTP {answer.status_code}: {' '.join(answer.text[:120].split())!r}"
