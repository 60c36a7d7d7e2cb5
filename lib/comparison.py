"""Methods side by side: alignment scores of paper A, tissue calls of paper B, each with intervals and n."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lib.config import Evaluation
from lib.metrics.alignment import delta_d_per_type, match_rate, truth_scores, within_type_variance_kept
from lib.metrics.bootstrap import Estimate, interval
from lib.metrics.classification import balanced_accuracy, knn_predict, paired_difference, weighted_f1
from lib.metrics.mixing import expected_source_mixing, knn_source_mixing, lisi

SCORES = {
    "match": "lines whose nearest tumours are of their type (share)",
    "match_types": "the same, median over cancer types",
    "delta_d": "ΔD, median over cancer types",
    "delta_d_ratio": "ΔD ÷ median distance within, median over types",
    "variance_kept": "share of the variance within types that is kept",
    "truth_tumours": "correlation with the pure tumour programme, median",
    "truth_lines": "correlation with the un-adapted line, median",
    "truth_among_tumours": "the same among tumours only: a shift common to all of them does not count",
    "truth_among_lines": "the same among lines only",
}


def alignment_scores(
    X: np.ndarray,
    reference: np.ndarray,
    obs: pd.DataFrame,
    truth: np.ndarray | None,
    by: Evaluation,
    seed: int,
) -> pd.DataFrame:
    """Scores of one aligned matrix: rows `SCORES`, columns value, low, high, n; NaN where there is no truth.

    X, reference: samples × genes (aligned; input); obs: sample_type, cancer_type; truth: samples × genes, the
    programme without infiltrate or culture, or None. Paper A, sections 4.1 and A.3; the rows below ΔD are ours.
    """
    is_line = (obs["sample_type"] == "cell line").to_numpy()
    types = obs["cancer_type"].to_numpy(dtype=str)
    match = match_rate(X[~is_line], types[~is_line], X[is_line], types[is_line], k=by.match_neighbours)
    matched = (np.asarray(match.predicted) == types[is_line]).astype(float)
    distances = delta_d_per_type(X, obs["sample_type"].to_numpy(dtype=str), types, by.min_per_kind)

    def over_types(values: pd.Series) -> Estimate:
        values = values.dropna()
        return interval(values, np.median, by.bootstrap, seed) if len(values) else _not_estimable()

    rows = {
        "match": interval(matched, np.mean, by.bootstrap, seed),
        "match_types": over_types(match.per_type),
        "delta_d": over_types(distances["delta_d"]),
        "delta_d_ratio": over_types(distances["ratio"]),
        "variance_kept": over_types(within_type_variance_kept(X, reference, types).per_type),
    }
    rows |= {score: _not_estimable() for score in SCORES if score.startswith("truth")}
    if truth is not None:
        kind = obs["sample_type"].to_numpy(dtype=str)
        # over both kinds together, a shift between them that is left counts as an error; within one kind it does not
        summary = truth_scores(X, truth, kind, by.bootstrap, seed).summary
        for row, value in (("tumours", "tumour"), ("lines", "cell line")):
            among = truth_scores(X[kind == value], truth[kind == value], None, by.bootstrap, seed).summary
            rows[f"truth_{row}"] = Estimate(*summary.loc[value])
            rows[f"truth_among_{row}"] = Estimate(*among.loc["all"])
    table = pd.DataFrame(rows, index=Estimate._fields).T.loc[list(SCORES)].rename_axis("score")
    return table.astype({"n": int})


def _not_estimable() -> Estimate:
    return Estimate(np.nan, np.nan, np.nan, 0)


def source_mixing(Z: np.ndarray, source: pd.Series, tissue: pd.Series, by: Evaluation, seed: int) -> pd.DataFrame:
    """Mixing of sources among nearest neighbours in a latent space, beside that of shuffled sources (paper B, Fig 1).

    Z: samples × latent. Columns quantity, mean, low, high, n; NaN where there is one source only.
    """
    source, tissue = source.astype(str).to_numpy(), tissue.astype(str)
    k, n_sources = min(by.mixing_neighbours, len(Z) - 1), len(np.unique(source))
    names = ("source mixing", "source mixing, shuffled within tissue", f"LISI (1 to {n_sources})")
    if n_sources < 2:
        estimates = [_not_estimable()] * 3
    else:
        several = (
            tissue.map(tissue.value_counts()) > 1
        ).to_numpy()  # a sample alone in its tissue has none to mix with
        shuffled = expected_source_mixing(source[several], tissue[several].to_numpy())
        values = (knn_source_mixing(Z, source, k), shuffled, lisi(Z, source, k))
        estimates = [interval(v, np.mean, by.bootstrap, seed) for v in values]
    rows = [
        {"quantity": q, "mean": e.value, "low": e.low, "high": e.high, "n": e.n}
        for q, e in zip(names, estimates, strict=True)
    ]
    return pd.DataFrame(rows)


def highly_variable(X: np.ndarray, n: int) -> np.ndarray:
    """Indices of the n genes of largest variance; X: samples × genes on the log scale."""
    return np.sort(np.argsort(-X.var(axis=0), kind="stable")[:n])


def baseline_calls(
    train: ad.AnnData, test: ad.AnnData, log_train: np.ndarray, by: Evaluation, n_pcs: int, seed: int
) -> dict[str, np.ndarray]:
    """Tissue calls of the baselines for `test`, all fitted on `train` only.

    train, test: standardised; log_train: the training part as log2(TPM+1), on which genes are ranked by variance.
    """
    genes = highly_variable(log_train, by.hvg)
    n_pcs = min(n_pcs, *train.shape)
    labels = train.obs["tissue"].to_numpy(dtype=str)
    regression = make_pipeline(
        PCA(n_pcs, svd_solver="randomized", random_state=seed),
        StandardScaler(),
        LogisticRegression(max_iter=2000),
    )
    return {
        f"kNN, {len(genes):,} genes": knn_predict(train.X[:, genes], labels, test.X[:, genes], by.baseline_neighbours),
        f"logistic regression, {n_pcs} PCs": regression.fit(train.X, labels).predict(test.X),
    }


def tissue_scores(
    truth: np.ndarray, calls: dict[str, np.ndarray], against: str, by: Evaluation, seed: int
) -> pd.DataFrame:
    """Balanced accuracy and weighted F1 of every method, and its difference to `against`, paired by sample."""
    rows = []
    for method, called in calls.items():
        row = {"method": method, "n": len(truth), "classes": len(np.unique(truth))}
        for name, score in (("balanced_accuracy", balanced_accuracy), ("weighted_f1", weighted_f1)):
            row |= _columns(name, score(truth, called, by.bootstrap, seed))
        if method != against:
            difference = paired_difference(truth, calls[against], called, "balanced_accuracy", by.bootstrap, seed)
            row |= _columns("difference", difference)
        else:
            row |= {"difference": 0.0, "difference_low": 0.0, "difference_high": 0.0}
        rows.append(row)
    return pd.DataFrame(rows)


def _columns(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def alignment_in_words(scores: pd.DataFrame) -> str:
    """What the alignment scores say, as one paragraph: gains, and whether the method is a collapse."""
    mean = scores.groupby(["method", "score"])["value"].mean().unstack()
    n = scores[scores["method"] == "RNAlign"].drop_duplicates("score").set_index("score")["n"].astype(int)
    ours, none, collapse = mean.loc["RNAlign"], mean.loc["input"], mean.loc["type mean"]
    said = [
        f"RNAlign's match is {ours['match']:.0%} against {none['match']:.0%} for the input (n = {n['match']:,} lines), "
        f"and its ΔD {ours['delta_d']:.2f} against {none['delta_d']:.2f} (n = {n['delta_d']} types).",
        f"Of the variance within cancer types it keeps {ours['variance_kept']:.0%}: distances shrink with it, so "
        f"ΔD is also given in units of the distance within ({ours['delta_d_ratio']:.2f} against "
        f"{none['delta_d_ratio']:.2f}).",
    ]
    if np.isnan(ours["truth_tumours"]):
        return " ".join([*said, _kept_in_words(ours["variance_kept"]), "There is no truth to compare real data with."])
    for score, what in (("truth_tumours", "aligned tumours"), ("truth_lines", "aligned lines")):
        better = "more" if ours[score] > none[score] else "less"
        said.append(
            f"The {what} are {better} like the truth than the input is ({ours[score]:.2f} against {none[score]:.2f})."
        )
    said.append(
        f"Among lines only, where a shift common to all of them does not count, the correlation is "
        f"{ours['truth_among_lines']:.2f} against {none['truth_among_lines']:.2f}: " + _what_is_lost(ours, none)
    )
    low = scores[scores["method"] == "RNAlign"].groupby("score")["low"].mean()
    beaten = all(low[score] > collapse[score] for score in ("truth_tumours", "truth_lines"))
    verdict = "beats it on both." if beaten else "does not beat it on both, so by this measure it is *collapsed*."
    said.append(
        f"The mean of the given type scores {collapse['truth_tumours']:.2f} and {collapse['truth_lines']:.2f}: "
        f"RNAlign {verdict}"
    )
    return " ".join(said)


def _kept_in_words(share: float) -> str:
    if share < 0.1:
        return (
            "With so little left of what tells samples of one type apart, match and ΔD are those of a near *collapse*."
        )
    return "How much of what is gone was unwanted, these scores cannot say."


def _what_is_lost(ours: pd.Series, none: pd.Series) -> str:
    """Which of two errors the aligned lines carry: a shift that is left, or differences that are gone."""
    shift = ours["truth_among_lines"] - ours["truth_lines"]
    gone = none["truth_among_lines"] - ours["truth_among_lines"]
    if max(shift, gone) < 0.05:
        return "the alignment leaves no shift and takes no difference away, but neither does it undo what culture did."
    if shift > gone:
        return "what is wrong with the aligned lines is mostly the shift between the kinds that is left."
    return "what is wrong with the aligned lines is mostly that differences between them are gone."


def tissue_in_words(table: pd.DataFrame) -> str:
    """Every method's scores, and whether the VAE is better than each baseline by the paired intervals."""
    mean = table.groupby("method", sort=False).mean(numeric_only=True)
    seeds = f" (means of {table['seed'].nunique()} seeds)" if table["seed"].nunique() > 1 else ""
    scores = "; ".join(
        f"{method} {row['balanced_accuracy']:.3f} ({row['balanced_accuracy_low']:.3f} to "
        f"{row['balanced_accuracy_high']:.3f}) and {row['weighted_f1']:.3f}"
        for method, row in mean.iterrows()
    )
    first = table.iloc[0]
    said = [f"Balanced accuracy and weighted F1, n = {first['n']:,}, {first['classes']} tissues{seeds}: {scores}."]
    for method, rows in table[table["method"] != "tissue VAE"].groupby("method", sort=False):
        gain, low, high = (rows[c].mean() for c in ("difference", "difference_low", "difference_high"))
        verdict = "better than" if low > 0 else "worse than" if high < 0 else "not distinguishable from"
        sure = f"in {(rows['difference_low'] > 0).sum()} of {len(rows)} seeds by itself"
        seeds = f"; means of the seeds; {sure}" if len(rows) > 1 else ""
        said.append(
            f"The VAE is {verdict} {method}: {100 * gain:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f}{seeds})."
        )
    return " ".join(said)


def cohort_calls(cohort: pd.DataFrame, expected: dict[str, list[str]], known: set[str]) -> pd.DataFrame:
    """Per group of an unseen cohort: n, share called one of its expected tissues, and the commonest calls.

    cohort: columns `group`, `predicted`; expected: group -> tissues decided on beforehand; known: tissues that the
    model was trained on. A group none of whose expected tissues is known has no share: it could only be wrong.
    """
    rows = []
    for group, calls in cohort.astype(str).groupby("group")["predicted"]:
        tissues = [tissue for tissue in expected.get(group, []) if tissue in known]
        absent = [tissue for tissue in expected.get(group, []) if tissue not in known]
        common = calls.value_counts().head(3)
        rows.append({
            "group": group,
            "n": len(calls),
            "expected": ", ".join([*tissues, *(f"{tissue} (not in training)" for tissue in absent)]) or "none",
            "called_as_expected": calls.isin(tissues).mean() if tissues else np.nan,
            "commonest_calls": "; ".join(f"{tissue} {n}" for tissue, n in common.items()),
        })  # fmt: skip
    return pd.DataFrame(rows)
