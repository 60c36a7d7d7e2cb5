"""Trained models applied to a user's own samples: tissue calls, alignment, nearest cell lines, predicted drug response.

Each class is made once for the genes that a file has, and then called with chunks of its samples: samples × genes,
log2(TPM+1), gene symbols. Genes that the file lacks are hidden from the references too, so that both are treated alike.
Results do not depend on what else is in the file, but for harmonising over the cohort.
"""

from __future__ import annotations

from collections.abc import Sequence

import anndata as ad
import numpy as np
import pandas as pd

from lib import curation, drug_response
from lib.abstention import LEVEL, limit
from lib.metrics.bootstrap import Estimate, interval
from lib.models.rnalign import RNAlign
from lib.models.tissue_vae import TissueVAE
from lib.neighbours import most_similar, nearest_lines
from lib.own_cohort import on_model_genes
from lib.purity import PurityEstimator, error_in_words
from lib.transfer import NEIGHBOURS, harmonise, nearest, reference_quantiles, vote
from lib.uncertainty import aligned_draws, staying

DRAWS = 40  # of the posterior, behind every interval
LINES = 10
DRUGS = 40


class TissueCaller:
    """Tissues of own samples: the network's call and probability, whether to abstain, and the nearest references.

    reference: labelled samples that the model was not trained on, log2(TPM+1) with var mean and sd, obs tissue;
    genes: those that the file has; how: as lib.transfer.harmonise. `accuracy`: share of the references that the
    network names rightly by these genes (`right`, with which `confidence`); `threshold`: distance above which a call
    is withheld (lib.abstention).
    """

    def __init__(
        self,
        model: TissueVAE,
        reference: ad.AnnData,
        genes: Sequence[str],
        how: str = "none",
        k: int = NEIGHBOURS,
        level: float = LEVEL,
        seed: int = 0,
    ):
        self.model, self.how, self.k = model, how, k
        present = np.isin(model.genes_, list(genes))
        reference = reference[reference.obs["tissue"].notna().to_numpy(), model.genes_].to_memory()
        self.quantiles = reference_quantiles(reference, present) if how == "reference" else None
        given = curation.standardise(reference)
        given.X[:, ~present] = 0
        self.references, self.tissues = reference.obs_names, reference.obs["tissue"].to_numpy(dtype=str)
        self.codes = model.embed(given)
        self.threshold = limit(ad.AnnData(self.codes, obs=reference.obs), k, level)
        held_out = model.predict_proba(given)
        self.confidence = held_out.max(axis=1).to_numpy()
        self.right = held_out.idxmax(axis=1).to_numpy() == self.tissues
        self.accuracy: Estimate = interval(self.right.astype(float), np.mean, seed=seed)

    def __call__(self, chunk: ad.AnnData) -> pd.DataFrame:
        """Per sample: tissue, probability, too_far, distance (÷ threshold), the k nearest references and their vote."""
        return self.calls(chunk.obs_names, *self.place(chunk))

    def place(self, chunk: ad.AnnData) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
        """(probabilities, samples × tissues; distances ÷ threshold and positions of the nearest references, n × k)."""
        own = harmonise(on_model_genes(self.model, chunk), self.how, self.quantiles)
        distances, found = nearest(self.codes, self.model.embed(own), self.k)
        return self.model.predict_proba(own), distances / self.threshold, found

    def calls(self, samples: pd.Index, probabilities: pd.DataFrame, ratios, found: np.ndarray) -> pd.DataFrame:
        """The table of `__call__`, from what `place` found."""
        neighbours, share = vote(self.tissues[found])
        ratio = ratios[:, -1]
        named = [f"{sample} ({tissue})" for sample, tissue in zip(self.references, self.tissues, strict=True)]
        return pd.DataFrame({
            "tissue": probabilities.idxmax(axis=1).to_numpy(), "probability": probabilities.max(axis=1).to_numpy(),
            "too_far": ratio > 1, "distance": ratio, "neighbours_tissue": neighbours, "neighbours_share": share,
            "nearest_references": ["; ".join(named[i] for i in row) for row in found],
        }, index=samples)  # fmt: skip


class Profiles:
    """Expression as the tissue VAE rebuilds it, in log2(TPM+1), and its latent codes."""

    def __init__(self, model: TissueVAE, genes: Sequence[str]):
        self.model, self.missing = model, ~np.isin(model.genes_, list(genes))
        self.mean, self.sd = (np.array(model.gene_scaling_[c], np.float32) for c in ("mean", "sd"))

    def embed(self, chunk: ad.AnnData) -> pd.DataFrame:
        """Mean of the latent code: samples × latent."""
        Z = self.model.embed(self._scaled(chunk))
        return pd.DataFrame(Z, chunk.obs_names, [f"z{i}" for i in range(1, Z.shape[1] + 1)])

    def reconstruct(self, chunk: ad.AnnData) -> pd.DataFrame:
        """All of the model's genes, as decoded from the code."""
        return self._log2(chunk, self.model.reconstruct(self._scaled(chunk)))

    def impute(self, chunk: ad.AnnData, hide: Sequence[str] = ()) -> pd.DataFrame:
        """The file's own values, and the model's for the genes that it lacks and those to `hide`.

        ValueError when there is nothing to impute, or a hidden gene is not the model's.
        """
        if unknown := [gene for gene in hide if gene not in self.model.genes_]:
            raise ValueError(
                f"--hide: found {unknown[0]!r}, expected genes of the model such as {self.model.genes_[0]}"
            )
        hidden = self.missing | np.isin(self.model.genes_, list(hide))
        if not hidden.any():
            raise ValueError(f"found all of the model's {len(hidden):,} genes, expected some to impute (or --hide)")
        scaled = self._scaled(chunk)
        decoded = self.model.impute(scaled, np.tile(hidden, (chunk.n_obs, 1)))
        return self._log2(chunk, np.where(hidden, decoded, scaled.X))

    def _scaled(self, chunk: ad.AnnData) -> ad.AnnData:
        return harmonise(on_model_genes(self.model, chunk), "none")

    def _log2(self, chunk: ad.AnnData, Z: np.ndarray) -> pd.DataFrame:
        return pd.DataFrame(np.maximum(Z * self.sd + self.mean, 0), chunk.obs_names, self.model.genes_)


def sample_labels(obs: pd.DataFrame, model: RNAlign, **given) -> pd.DataFrame:
    """cancer_type, sample_type and purity of own samples (purity NaN where unknown; 1 for cell lines).

    obs: columns of the samples table, if any, which go first; given: values for all others, None where not given.
    Names are compared without case. ValueError for labels that are missing or that the model does not know.
    """
    classes = {"sample_type": model.sample_types_, "cancer_type": model.cancer_types_}
    labels = pd.DataFrame(index=obs.index)
    for column, known in classes.items():
        spelled = {name.lower(): name for name in known}
        values = obs.get(column, pd.Series(np.nan, obs.index)).astype(object).replace("", np.nan)
        values = values.fillna(given.get(column) or np.nan)
        labels[column] = values.astype(str).str.strip().str.lower().map(spelled)
        bad = labels[column].isna()
        if known and bad.any():
            found = "none" if pd.isna(values[bad].iloc[0]) else repr(str(values[bad].iloc[0])[:40])
            where = f"{column} of sample {bad.idxmax()!r}"
            option = f"--samples FILE or --{column.replace('_', '-')}"
            raise ValueError(f"{where}: found {found}, expected ({option}) one of {', '.join(known)}")
    text = obs.get("purity", pd.Series(np.nan, obs.index)).astype(object).replace("", np.nan)
    purity = pd.to_numeric(text, errors="coerce")
    unreadable = text.notna() & purity.isna()
    purity = purity.fillna(np.nan if given.get("purity") is None else given["purity"])
    bad = unreadable | (purity < 0) | (purity > 1)
    if bad.any():
        found = str((text if unreadable[bad].iloc[0] else purity)[bad].iloc[0])[:40]
        raise ValueError(f"purity of sample {bad.idxmax()!r}: found {found!r}, expected 0 to 1")
    return labels.assign(purity=purity.where(labels["sample_type"] != "cell line", 1.0))


class Aligner:
    """Own samples as cell lines of purity 1, and the cell lines nearest to them (paper A, sections 4.1 and 5).

    compendium: what the model was trained on, log2(TPM+1), whose cell lines are aligned by the same genes. Purities
    that are missing are estimated by `purity_estimator` (lib.purity), made when first needed.
    """

    def __init__(
        self, model: RNAlign, compendium: ad.AnnData, genes: Sequence[str], k: int = LINES, draws: int = DRAWS, seed=0
    ):
        self.model, self.compendium, self.seed = model, compendium, seed
        self.genes, self.missing = list(genes), ~np.isin(model.genes_, list(genes))
        self.mean, self.sd = (np.array(model.gene_scaling_[c], np.float32) for c in ("mean", "sd"))
        lines = compendium[(compendium.obs["sample_type"] == "cell line").to_numpy(), model.genes_].to_memory()
        if not lines.n_obs:
            raise ValueError("the model's compendium: found no cell line, expected some to compare with")
        self.k = min(k, lines.n_obs)
        lines = curation.standardise(lines)
        lines.X[:, self.missing] = 0
        self.unaligned = lines
        self.lines = ad.AnnData(model.transform(lines), obs=lines.obs, var=lines.var[[]])
        self.line_draws = list(aligned_draws(model, lines, draws, seed))
        self.purity_estimator: PurityEstimator | None = None

    def __call__(self, chunk: ad.AnnData, labels: pd.DataFrame) -> tuple[ad.AnnData, pd.DataFrame]:
        """(aligned samples × the model's genes, z-scores, obs the labels as used; nearest lines of every sample).

        labels: as `sample_labels`. Columns of the lines: sample, rank, line, name, cancer_type, similarity (Pearson
        correlation at the mean of the code), draws_low, draws_high (95 % of the draws of the code), in_draws (share of
        the draws in which the line is among the k nearest).
        """
        labels = labels.assign(purity=labels["purity"].fillna(self._estimated(chunk, labels)))
        own = ad.AnnData(self._scaled(chunk), obs=labels, var=self.lines.var)
        aligned = ad.AnnData(self.model.transform(own), obs=labels, var=self.lines.var)
        near = self._nearest(aligned, self.lines)
        near = near.assign(**self._over_draws(own, self.lines.obs_names.get_indexer(near["line"])))
        return aligned, near

    def before(self, chunk: ad.AnnData) -> pd.DataFrame:
        """The nearest lines without alignment, by the genes of the file: columns as `__call__`'s up to similarity."""
        own = ad.AnnData(self._scaled(chunk), pd.DataFrame(index=chunk.obs_names), self.lines.var)
        return self._nearest(own[:, ~self.missing], self.unaligned[:, ~self.missing])

    def in_log2(self, Z: np.ndarray) -> np.ndarray:
        """Aligned z-scores as log2(TPM+1)."""
        return np.maximum(Z * self.sd + self.mean, 0)

    def purity_note(self, labels: pd.DataFrame) -> str:
        """How many of the samples' purities were estimated, and how well; empty if none. labels: as `sample_labels`."""
        unknown = int(labels["purity"].isna().sum())
        if not unknown or self.purity_estimator is None:
            return ""
        return f"purity of {unknown:,} samples estimated; {error_in_words(self.purity_estimator)}"

    def _scaled(self, chunk: ad.AnnData) -> np.ndarray:
        """z-scores by the training part, samples × the model's genes; 0 for those that the file lacks."""
        X = np.zeros((chunk.n_obs, len(self.model.genes_)), np.float32)
        X[:, ~self.missing] = chunk[:, np.array(self.model.genes_)[~self.missing]].X
        X = np.where(self.missing | (self.sd == 0), 0, (X - self.mean) / np.where(self.sd > 0, self.sd, 1))
        return X.astype(np.float32)

    def _nearest(self, own: ad.AnnData, lines: ad.AnnData) -> pd.DataFrame:
        near = nearest_lines(own, lines, self.k).rename(columns={"tumour": "sample"})
        near.insert(4, "cancer_type", lines.obs["cancer_type"].astype(str).reindex(near["line"]).to_numpy())
        return near

    def _estimated(self, chunk: ad.AnnData, labels: pd.DataFrame) -> pd.Series:
        if labels["purity"].notna().all():
            return labels["purity"]
        if self.purity_estimator is None:
            self.purity_estimator = PurityEstimator(seed=self.seed).fit(self.compendium[:, self.genes].to_memory())
        return self.purity_estimator.predict(ad.AnnData(chunk.X, labels, chunk.var))

    def _over_draws(self, own: ad.AnnData, lines: np.ndarray) -> dict[str, np.ndarray]:
        """Interval of each similarity, and how often each line is among the nearest, over draws of the code."""
        reference = lines.reshape(own.n_obs, self.k)
        similarity, nearest_k = [], []
        draws = aligned_draws(self.model, own, len(self.line_draws), self.seed + 1)
        for drawn, drawn_lines in zip(draws, self.line_draws, strict=True):
            order, sorted_similarity = most_similar(drawn, drawn_lines, self.lines.n_obs)
            by_line = np.empty_like(sorted_similarity)
            np.put_along_axis(by_line, order, sorted_similarity, axis=1)
            similarity.append(np.take_along_axis(by_line, reference, axis=1))
            nearest_k.append(order[:, : self.k])
        low, high = np.percentile(similarity, [2.5, 97.5], axis=0)
        share = staying(np.array(nearest_k), reference)
        return {"draws_low": low.ravel(), "draws_high": high.ravel(), "in_draws": share.ravel()}


class DrugTable:
    """Predicted drug response: that of a sample's nearest measured cell lines (lib.drug_response.nearest_lines).

    response: lines × drugs (lib.drug_response.read_drug_response); the DRUGS most variable are kept. ValueError when
    none of the aligner's lines, or no drug in enough of them, was measured.
    """

    def __init__(self, aligner: Aligner, response: pd.DataFrame, k: int = LINES):
        self.lines, self.approach = aligner.lines, drug_response.nearest_lines(k)
        self.response = drug_response.most_variable(drug_response.of_samples(response, self.lines.obs), DRUGS)
        if self.response.empty:
            raise ValueError(f"drug response: found no drug measured in {drug_response.MIN_LINES} cell lines or more")

    def __call__(self, aligned: ad.AnnData) -> pd.DataFrame:
        """Columns sample, drug, predicted, lines_mean, lines_n; strongest answer first. aligned: as Aligner's."""
        predicted = self.approach(self.lines.X, self.response.to_numpy(float), aligned.X)
        table = pd.DataFrame(predicted, aligned.obs_names, self.response.columns).rename_axis("sample", axis=0)
        table = table.rename_axis("drug", axis=1).stack().rename("predicted").reset_index()
        table["lines_mean"] = table["drug"].map(self.response.mean())
        table["lines_n"] = table["drug"].map(self.response.notna().sum())
        below, row = table["predicted"] - table["lines_mean"], aligned.obs_names.get_indexer(table["sample"])
        return table.iloc[np.lexsort([below, row])]
