"""What aligned profiles are good for (paper A, appendix A.10 and section 5): one table of scores for each use."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import anndata as ad
import numpy as np
import pandas as pd
from sklearn.decomposition import PCA

from lib import compendia, curation, drug_response
from lib import survival as cox
from lib.config import Profile
from lib.drug_response import Approach
from lib.metrics.alignment import delta_d_per_type, match_rate
from lib.metrics.bootstrap import Estimate, interval, percentile_interval
from lib.models.drug_transfer import DrugTransfer
from lib.models.rnalign import RNAlign

HELD_OUT, TUMOURS = "cell lines, held out", "tumours, true response"
NEAREST, REGRESSION = "nearest lines", "ridge regression"
NETWORK, ADAPTED = "network", "network + MMD"
TRANSFER_METHODS = ("input", "RNAlign")  # for which the network is trained, too
MIN_ORGANOIDS = 3


def over_repeats(scores_of: Callable[[Profile], pd.DataFrame], repeats: list[Profile], missing: str):
    """`scores_of` every repeat, below one another, and why there are none ("" where there are).

    missing: the reason where the profile lacks the table; a table that allows no scores gives its own.
    """
    try:
        scores = pd.concat([scores_of(repeat) for repeat in repeats], ignore_index=True)
    except ValueError as reason:
        return pd.DataFrame(), str(reason)
    return scores, "" if len(scores) else missing


# --- drug response ---


def drug_scores(run: Profile) -> pd.DataFrame:
    """Spearman correlation per drug for every method, approach and kind of sample; empty without a response table.

    Columns samples, approach, method, drug, value, low, high, within (cancer types), n, skill, seed. On the demo, the
    tumours are scored against the generator's true response; elsewhere nobody knows it.
    """
    files = compendia.application_files(run)
    if "drug_response" not in files:
        return pd.DataFrame(columns=["samples", "approach", "method"])
    given, matrices = compendia.aligned(run)
    response = drug_response.of_samples(drug_response.read_drug_response(files["drug_response"]), given.obs)
    response = drug_response.most_variable(response, run.applications.drugs)
    is_line, types = (given.obs["sample_type"] == "cell line").to_numpy(), given.obs["cancer_type"]
    truth = compendia.true_drug_response(run, given.obs_names, response.columns)
    settings = (run.applications.folds, run.seed)
    by_mean = drug_response.predict(drug_response.drug_mean, given.X, response, *settings)
    tables = []
    for method, X in matrices.items():
        for name, approach in _approaches(run, method, X[~is_line]):
            predicted = drug_response.predict(approach, X, response, *settings)
            for samples, rows, measured in ((HELD_OUT, is_line, response), (TUMOURS, ~is_line, truth)):
                if measured is None:
                    continue
                score = (predicted[rows], measured[rows], types[rows], run.evaluation.bootstrap, run.seed)
                table = drug_response.score(*score).assign(samples=samples, approach=name, method=method)
                if samples == HELD_OUT:
                    table["skill"] = drug_response.skill(predicted[rows], measured[rows], by_mean[rows])
                tables.append(table)
    return pd.concat(tables, ignore_index=True).assign(seed=run.seed)


def _approaches(run: Profile, method: str, tumours: np.ndarray) -> Iterator[tuple[str, Approach]]:
    yield NEAREST, drug_response.nearest_lines(run.applications.neighbours)
    yield REGRESSION, drug_response.ridge
    if method in TRANSFER_METHODS:
        for name, weight in ((NETWORK, 0.0), (ADAPTED, 1.0)):
            yield (
                name,
                _transfer(DrugTransfer(epochs=run.applications.epochs, mmd_weight=weight, seed=run.seed), tumours),
            )


def _transfer(model: DrugTransfer, tumours: np.ndarray) -> Approach:
    return lambda X_train, Y_train, X_new: model.fit(X_train, Y_train, tumours).predict(X_new)


def drugs_in_words(table: pd.DataFrame) -> str:
    """What the medians over drugs (`drug_response.over_drugs`) say of the alignment and of the MMD term."""
    by = table.set_index(["samples", "approach", "method"])
    said = []
    for samples in (s for s in (HELD_OUT, TUMOURS) if (s, REGRESSION, "RNAlign") in by.index):
        ours, none = (by.loc[(samples, REGRESSION, method)] for method in ("RNAlign", "input"))
        low, high = ours["difference_low"], ours["difference_high"]
        verdict = "helps" if low > 0 else "hurts" if high < 0 else "makes no difference that can be told"
        said.append(
            f"Drug response, {samples}: ridge regression on profiles aligned by RNAlign has a median Spearman "
            f"correlation of {ours['spearman']:.2f} against {none['spearman']:.2f} on the input (difference by drug "
            f"{ours['difference']:+.2f}, {low:+.2f} to {high:+.2f}; n = {int(none['n_drugs'])} drugs on "
            f"{int(none['n_samples']):,} {samples.split(',')[0]}{_seeds(none)}): the alignment {verdict}."
        )
        same = by.xs((samples, REGRESSION), level=("samples", "approach"))["spearman"].drop("RNAlign")
        said.append(f"Best of the others: {same.idxmax()} ({same.max():.2f}).")
        with_mmd, without = (by.loc[(samples, approach, "input")] for approach in (ADAPTED, NETWORK))
        said.append(
            f"A network pre-trained on lines has {without['spearman']:.2f} on the input, adapted to tumours by MMD "
            f"{with_mmd['spearman']:.2f}."
        )
    return " ".join(said)


def _seeds(row: pd.Series) -> str:
    return f" each in {int(row['seeds'])} seeds" if row["seeds"] > 1 else ""


# --- survival ---


def survival_scores(run: Profile) -> pd.DataFrame:
    """Concordance of the held-out risk by sets of features, over all patients and within types; empty without a table.

    Columns features, patients ("all", "within types"), value, low, high, n, deaths, difference (to type and purity) and
    its interval, seed.
    """
    files = compendia.application_files(run)
    if "survival" not in files:
        return pd.DataFrame(columns=["features", "patients"])
    given, table = compendia.aligned(run)[0], cox.read_survival(files["survival"])
    known = given[given.obs["sample_type"].eq("tumour") & given.obs_names.isin(table.index)]
    table, types = table.loc[known.obs_names], known.obs["cancer_type"].astype(str)
    risks = {
        name: cox.risk_held_out(features, table, run.applications.folds, run.seed)
        for name, features in _survival_features(run, known).items()
    }
    if (truth := compendia.true_hazard(run, known.obs_names)) is not None:
        risks["true hazard"] = truth.to_numpy()
    rows = []
    for patients, groups in (("all", None), ("within types", types)):
        draws = {
            name: cox.concordances(risk, table, groups, run.evaluation.bootstrap, run.seed)
            for name, risk in risks.items()
        }
        baseline = draws["type and purity"]
        for name, drawn in draws.items():
            row = {
                "features": name,
                "patients": patients,
                "value": drawn[0],
                "n": len(table),
                "deaths": table["OS"].sum(),
            }
            row["low"], row["high"] = percentile_interval(drawn[1:])
            if name != "type and purity":
                row["difference"] = drawn[0] - baseline[0]
                row["difference_low"], row["difference_high"] = percentile_interval(drawn[1:] - baseline[1:])
            rows.append(row)
    return pd.DataFrame(rows).assign(seed=run.seed)


def _survival_features(run: Profile, known: ad.AnnData) -> dict[str, pd.DataFrame]:
    plain = cox.type_and_purity(known.obs)
    latent = RNAlign.load(run.processed / "models" / "rnalign").embed(known)
    n = min(latent.shape[1], *known.shape)
    pcs = PCA(n, svd_solver="randomized", random_state=run.seed).fit_transform(known.X)
    latent, pcs = (pd.DataFrame(Z, known.obs_names).add_prefix(name) for name, Z in (("z", latent), ("pc", pcs)))
    return {
        "type and purity": plain,
        f"{n} PCs of the input": pcs,
        "RNAlign's latent space": latent,
        f"type, purity, {n} PCs": plain.join(pcs),
        "type, purity, latent space": plain.join(latent),
    }


def survival_in_words(scores: pd.DataFrame) -> str:
    """Whether the latent space tells more of survival than type and purity, and than principal components."""
    every = scores[scores["patients"] == "all"].groupby("features", sort=False).mean(numeric_only=True)
    latent, pcs = (
        every.loc["type, purity, latent space"],
        every[every.index.str.match(r"type, purity, \d+ PCs")].iloc[0],
    )
    low, high = latent["difference_low"], latent["difference_high"]
    verdict = "more than" if low > 0 else "less than" if high < 0 else "not distinguishable from"
    said = (
        f"Survival (n = {int(latent['n']):,} patients): type and purity alone have a concordance of "
        f"{every.loc['type and purity', 'value']:.2f}; with RNAlign's latent space it is {latent['value']:.2f} "
        f"(difference {latent['difference']:+.2f}, {low:+.2f} to {high:+.2f}), {verdict} type and purity alone. "
        f"As many principal components of the input in its place: {pcs['value']:.2f}."
    )
    if "true hazard" in every.index:
        said += f" The true hazard itself would reach {every.loc['true hazard', 'value']:.2f}."
    return said


# --- organoids ---


def align_three(run: Profile, organoids: ad.AnnData) -> tuple[ad.AnnData, np.ndarray]:
    """The compendium with organoids beside it, and all decoded as lines by an RNAlign trained on three sample types.

    organoids: log2(TPM+1) on the compendium's genes. Returns the z-scores (AnnData) and samples × genes.
    """
    given = curation.standardise(curation.load(run.processed / "alignment.h5ad"))
    own = curation.standardise(organoids)
    own.obs["split"] = "train"
    three = ad.concat([given, own], join="inner", merge="same")
    settings = run.rnalign.model_dump(exclude={"checkpoint_every"})
    model = RNAlign(**settings, seed=run.seed).fit(three[three.obs["split"] == "train"])
    return three, model.transform(three)


def organoid_scores(three: ad.AnnData, matrices: dict[str, np.ndarray], run: Profile) -> pd.DataFrame:
    """ΔD and match of every pair of sample types, before and after: columns pair, score, method, value, low, high, n.

    Over the cancer types that organoids have; ΔD: median over those with three or more samples of both kinds. Match:
    share of the first kind's samples whose nearest of the second are mostly of their type.
    """
    kind, types = (three.obs[c].to_numpy(dtype=str) for c in ("sample_type", "cancer_type"))
    shared = np.isin(types, types[kind == "organoid"])
    boot = (run.evaluation.bootstrap, run.seed)
    rows = []
    for a, b in (("organoid", "tumour"), ("organoid", "cell line"), ("cell line", "tumour")):
        for method, X in matrices.items():
            pair = shared & np.isin(kind, [a, b])
            deltas = delta_d_per_type(X[pair], kind[pair], types[pair], MIN_ORGANOIDS)["delta_d"].dropna()
            estimate = interval(deltas, np.median, *boot) if len(deltas) else Estimate(np.nan, np.nan, np.nan, 0)
            rows.append({"pair": f"{a} – {b}", "score": "ΔD", "method": method, **estimate._asdict()})
            first, second = (shared & (kind == a)), kind == b
            k = min(run.evaluation.match_neighbours if b == "tumour" else MIN_ORGANOIDS, second.sum())
            called = match_rate(X[second], types[second], X[first], types[first], k).predicted
            estimate = interval((called == types[first]).astype(float), np.mean, *boot)
            rows.append({"pair": f"{a} – {b}", "score": "match", "method": method, **estimate._asdict()})
    return pd.DataFrame(rows)


def organoids_in_words(scores: pd.DataFrame, run: Profile) -> str:
    """How near organoids come to tumours, beside lines, before and after."""
    value = scores.set_index(["pair", "score", "method"])["value"]
    ours, lines = "organoid – tumour", "cell line – tumour"
    n = int(scores.loc[(scores["pair"] == ours) & (scores["score"] == "match"), "n"].iloc[0])
    delta, match = (value.xs(score, level="score") for score in ("ΔD", "match"))
    return (
        f"Organoids (n = {n}, generated), with an RNAlign trained on three sample types for "
        f"{run.rnalign.epochs} epochs: their ΔD to tumours is {delta[ours, 'input']:.2f} before and "
        f"{delta[ours, 'RNAlign']:.2f} after (cell lines of the same cancer types {delta[lines, 'input']:.2f} and "
        f"{delta[lines, 'RNAlign']:.2f}), their match {match[ours, 'input']:.0%} and {match[ours, 'RNAlign']:.0%} "
        f"(cell lines {match[lines, 'input']:.0%} and {match[lines, 'RNAlign']:.0%}), the decoder being given each "
        f"sample's own cancer type. " + _nearer(delta[ours, "input"], delta[lines, "input"])
    )


def _nearer(organoids: float, lines: float) -> str:
    if np.isnan(organoids) or np.isnan(lines):
        return "Too few organoids of each type for a distance."
    nearer = "nearer to" if organoids < lines else "no nearer to"
    return f"Before any alignment, these organoids are {nearer} tumours than cell lines are."
