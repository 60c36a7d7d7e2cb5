"""Tables of paper B: tissue calls, what a split leaks, reconstruction, imputation and the mixing of sources."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd

from lib.config import Evaluation
from lib.curation import sample_groups
from lib.metrics.bootstrap import Estimate, interval, interval_by_group
from lib.metrics.classification import balanced_accuracy, paired_difference, unpaired_difference, weighted_f1
from lib.metrics.mixing import knn_source_mixing, lisi, shuffled_mixing
from lib.metrics.reconstruction import (
    doubled_ranks,
    spearman_of_sums,
    spearman_per_gene,
    spearman_per_sample,
    sums_of_ranks,
)
from lib.metrics.repeats import over_repeats
from lib.models.tissue_vae import TissueVAE, random_mask
from lib.tissue_baselines import Benchmark
from lib.tissue_scoring import imputed_values

FRACTIONS = (0.1, 0.2, 0.3)
PUBLISHED_SAMPLES = 500  # the published code imputed the first 500 test samples, the text says all
BEST = 3  # methods that a sentence names
NOT_ESTIMABLE = Estimate(np.nan, np.nan, np.nan, 0)


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


def tissue_in_words(table: pd.DataFrame) -> str:
    """The VAE's scores, how many methods it is better or worse than, and its difference to the best three of them."""
    own = table[table["method"] == "tissue VAE"]
    score, first = _over_seeds(own, "balanced_accuracy"), own.iloc[0]
    seeds = f" (means of {len(own)} seeds)" if len(own) > 1 else ""
    others = table[table["method"] != "tissue VAE"]
    gains = {method: _over_seeds(rows, "difference") for method, rows in others.groupby("method", sort=False)}
    better, worse = sum(g.low > 0 for g in gains.values()), sum(g.high < 0 for g in gains.values())
    ranked = (
        others.groupby("method", sort=False)["balanced_accuracy"].mean().sort_values(ascending=False, kind="stable")
    )
    best = "; ".join(f"{method} {ranked[method]:.3f} ({_points(gains[method])})" for method in ranked.index[:BEST])
    return (
        f"Balanced accuracy and weighted F1, n = {first['n']:,}, {first['classes']} tissues{seeds}: tissue VAE "
        f"{score.value:.3f} ({score.low:.3f} to {min(score.high, 1):.3f}) and {own['weighted_f1'].mean():.3f}. Of "
        f"{len(gains)} other methods it is better than {better}, worse than {worse} and not distinguishable from "
        f"{len(gains) - better - worse}. The best of them, and the VAE's difference in points: {best}."
    )


def _over_seeds(rows: pd.DataFrame, name: str) -> Estimate:
    """Mean over seeds; interval: the wider of the seeds' own (over samples) and, from three on, that over seeds."""
    low, high = rows[f"{name}_low"].mean(), rows[f"{name}_high"].mean()
    over = over_repeats(rows[name])
    bounds = [b for b in ((low, high), (over.low, over.high)) if not np.isnan(b).any()]
    low, high = min(b[0] for b in bounds), max(b[1] for b in bounds)
    return Estimate(float(rows[name].mean()), float(low), float(high), len(rows))


def _points(gain: Estimate) -> str:
    return f"{100 * gain.value:+.1f}, {100 * gain.low:+.1f} to {100 * gain.high:+.1f}"


def leak(splits: dict[str, Benchmark], by: Evaluation, seed: int) -> pd.DataFrame:
    """Balanced accuracy under the sample split minus that under the study split, per method, with its interval.

    splits: "sample" and "study"; NaN where one is missing or no tissue is in both test parts, since only such tissues
    count. Resampled are studies and donors, within their tissue.
    """
    methods = next(iter(splits.values())).methods
    columns = ["seed", "method", "tissues", "sample_split", "study_split", "gap", "gap_low", "gap_high"]
    columns += ["n_sample_split", "n_study_split"]
    shared = set.intersection(*(set(split.test["tissue"]) for split in splits.values()))
    if len(splits) < 2 or not shared:
        return pd.DataFrame([{"seed": seed, "method": method} for method in methods], columns=columns)
    rows = []
    for method in methods:
        parts = [_calls(splits[s], method, shared) for s in ("sample", "study")]
        gap = unpaired_difference(*parts, by.bootstrap, seed)
        accuracies = [float(np.mean(_recalls(*part[:2]))) for part in parts]
        row = [seed, method, len(shared), *accuracies, gap.value, gap.low, gap.high, *(len(part[0]) for part in parts)]
        rows.append(dict(zip(columns, row, strict=True)))
    return pd.DataFrame(rows)


def _calls(split: Benchmark, method: str, tissues: set[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(true tissues, calls, groups) of the test samples of some tissues."""
    kept = split.test["tissue"].isin(tissues).to_numpy()
    truth, groups = (split.test[column].to_numpy(dtype=str)[kept] for column in ("tissue", "group"))
    return truth, split.methods[method].calls[kept], groups


def _recalls(truth: np.ndarray, called: np.ndarray) -> pd.Series:
    return pd.Series(truth == called).groupby(truth).mean()


def with_relatives(obs: pd.DataFrame) -> float:
    """Share of the test samples of the sample split whose study or donor is in its training part."""
    groups, part = sample_groups(obs), obs["split_sample"]
    return float(groups[part == "test"].isin(groups[part == "train"]).mean())


def leak_in_words(table: pd.DataFrame, relatives: float, epochs: int) -> str:
    """What the gap between the splits says of the VAE; relatives: share of test samples with one in training."""
    rows = table[table["method"] == "tissue VAE"]
    if rows["gap"].isna().all():
        return (
            "The compendium has one split only, or no tissue in the test parts of both, so the leak between samples of "
            "one study or donor is not estimable."
        )
    over = _over_seeds(rows, "gap")
    gap, low, high = 100 * over.value, 100 * over.low, 100 * over.high
    seeds = f", means of {len(rows)} seeds" if len(rows) > 1 else ""
    verdict = (
        "a leak" if low > 0 else "the opposite of a leak" if high < 0 else "no leak that this test part could show"
    )
    return (
        f"Split by sample, {relatives:.0%} of the test samples have a relative (same study or donor) in training. "
        f"The VAE's balanced accuracy is {rows['sample_split'].mean():.3f} on that split and "
        f"{rows['study_split'].mean():.3f} when whole studies and donors are held out: a gap of {gap:+.1f} points "
        f"({low:+.1f} to {high:+.1f}{seeds}; {rows['tissues'].iloc[0]} tissues, at most {epochs} epochs): {verdict}."
    )


def reconstruction(original: np.ndarray, models: dict[str, np.ndarray], by: Evaluation, seed: int):
    """Spearman correlation of original and reconstruction: (per gene, per sample, table of their medians).

    original: samples × genes; models: name -> reconstruction. Genes and samples that are constant have no correlation;
    they are counted in the table (`constant`) and left out of the medians.
    """
    per_gene, per_sample = {}, {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Spearman is NaN")  # counted in the table
        for name, reconstructed in models.items():
            per_gene[name] = spearman_per_gene(original, reconstructed)
            per_sample[name] = spearman_per_sample(original, reconstructed)
    rows = []
    for quantity, values in (("per gene", per_gene), ("per sample", per_sample)):
        for name, rho in values.items():
            defined = rho[~np.isnan(rho)]
            median = interval(defined, np.median, by.bootstrap, seed) if len(defined) else NOT_ESTIMABLE
            row = {"quantity": quantity, "model": name, "median": median.value, "low": median.low, "high": median.high}
            rows.append(row | {"n": median.n, "constant": len(rho) - len(defined)})
    return pd.DataFrame(per_gene), pd.DataFrame(per_sample), pd.DataFrame(rows)


def imputation(models: dict[str, TissueVAE], test: ad.AnnData, by: Evaluation, seed: int) -> pd.DataFrame:
    """Spearman correlation of genes set to zero with what the models put there; every model gets the same masks.

    One correlation over all masked values: of the whole test part, and of its first 500 samples as published.
    """
    scopes, rows = {"all": test.n_obs, f"first {PUBLISHED_SAMPLES}": min(PUBLISHED_SAMPLES, test.n_obs)}, []
    for fraction in FRACTIONS:
        mask = random_mask(*test.shape, fraction, seed)
        per_sample, original = mask.sum(axis=1), test.X[mask]
        ranks = {scope: doubled_ranks(original[: per_sample[:n].sum()], "test") for scope, n in scopes.items()}
        for name, model in models.items():
            imputed = imputed_values(model, test, mask)
            for scope, n in scopes.items():
                sums = sums_of_ranks(ranks[scope], imputed[: len(ranks[scope])], per_sample[:n])
                rho = spearman_of_sums(sums, by.bootstrap, seed)
                row = {"masked": fraction, "model": name, "samples": scope, "rho": rho.value}
                rows.append(row | {"low": rho.low, "high": rho.high, "n": rho.n, "values": len(ranks[scope])})
    return pd.DataFrame(rows)


def source_mixing(Z: np.ndarray, source: pd.Series, tissue: pd.Series, by: Evaluation, seed: int):
    """Mixing of sources among nearest neighbours in a latent space, and what chance within tissues would give (Fig 1).

    Z: samples × latent. Returns (overall, by tissue): columns quantity, mean, low, high, n, and `expected`: the mean if
    sources were shuffled within each tissue; by tissue also the number of sources. NaN where there is one source only.
    """
    source, tissue = source.astype(str).to_numpy(), tissue.astype(str).to_numpy()
    k, sources = min(by.mixing_neighbours, len(Z) - 1), pd.Series(source).nunique()
    quantities = ("source mixing", f"LISI (1 to {sources})")
    if sources < 2:
        empty = pd.DataFrame({"quantity": quantities, "mean": np.nan, "low": np.nan, "high": np.nan, "n": 0})
        return empty.assign(expected=np.nan), empty.assign(tissue="all", expected=np.nan, sources=sources)
    found = (knn_source_mixing(Z, source, k), lisi(Z, source, k))
    shuffled = shuffled_mixing(Z, source, tissue, k, seed=seed)
    tables = []
    for groups in (np.full(len(Z), "all"), tissue):
        labels = pd.DataFrame({"tissue": groups, "source": source})
        for quantity, values, chance in zip(quantities, found, shuffled, strict=True):
            each = labels.assign(expected=chance).groupby("tissue")
            means = interval_by_group(values, groups, np.mean, by.bootstrap, seed).rename(columns={"value": "mean"})
            about = each.agg(expected=("expected", "mean"), sources=("source", "nunique"))
            tables.append(means.rename_axis("tissue").join(about).reset_index().assign(quantity=quantity))
    columns = ["quantity", "mean", "low", "high", "n", "expected"]
    overall, by_tissue = pd.concat(tables[:2]), pd.concat(tables[2:])
    return overall[columns].reset_index(drop=True), by_tissue[["tissue", "sources", *columns]].reset_index(drop=True)


def mixing_in_words(table: pd.DataFrame) -> str:
    """How much of the mixing that tissues allow is there."""
    mixing, lisi_row = table.iloc[0], table.iloc[1]
    if np.isnan(mixing["mean"]):
        return "The samples have one source, so mixing of sources is not estimable."
    if mixing["expected"] == 0:
        return "No neighbour could come from another source, even with sources shuffled: their mixing is not estimable."
    reached = (lisi_row["mean"] - 1) / (lisi_row["expected"] - 1)
    return (
        f"Of a test sample's nearest neighbours {mixing['mean']:.1%} ({mixing['low']:.1%} to {mixing['high']:.1%}) "
        f"come from another source; sources shuffled within tissues would give {mixing['expected']:.1%}. LISI is "
        f"{lisi_row['mean']:.3f} ({lisi_row['low']:.3f} to {lisi_row['high']:.3f}) against {lisi_row['expected']:.3f}. "
        f"So {mixing['mean'] / mixing['expected']:.0%} of the possible mixing of neighbours is there, and "
        f"{reached:.0%} of the possible rise of LISI above 1 (n = {mixing['n']:,})."
    )
