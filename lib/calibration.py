"""Is the demo as hard as real data? Measures both, and says where they differ by more than is allowed.

    python -m lib.calibration --real DIR [--seed N]      # five generator seeds from N on -> figures/calibration/

DIR holds the real sets (alignment_192genes.h5ad, alignment_474genes.h5ad, tissue_counts.h5ad). No model is
fitted here.

What is compared with what, so that it is fair:

* alignment sets ↔ demo's Treehouse and DepMap archives. The same nine cancer types and the same units: the real
  tumours are RSEM normalised counts (upper quartile 1,000, no length correction), the real lines TPM, so the
  demo's tumours are turned into the same counts with their gene lengths. The real sets are small and selected,
  so each real gene is paired with the demo gene most like it in the mean and standard deviation of tumours' log2
  expression. ΔD is given in these units (`as stored`), where most of it is the units, and after scaling each
  sample to one total (`common scale`), which is what is left of it.
* tissue_counts ↔ demo's GTEx, TCGA and ARCHS4 archives. The same tissues, as many samples of each (as far as the
  demo has them), the real share of tumours (from TCGA), log2(CPM+1) of counts with the real mean per gene. All
  invented genes and one named gene in ten: markers are a quarter of the demo's genes, but a thirtieth of the real.
* The last three rows are ranges, measured on the compendia that the demo profile trains on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import matplotlib.figure
import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment
from sklearn.decomposition import PCA
from sklearn.model_selection import StratifiedKFold

from lib import synthetic_vocabulary as vocabulary
from lib.config import ROOT
from lib.files import replacing
from lib.metrics.alignment import delta_d_per_type, match_rate
from lib.metrics.classification import knn_predict
from lib.metrics.pvca import pvca
from lib.synthetic import SIZES, Demo, random

ALIGNMENT_SETS = {"192 genes": "alignment_192genes.h5ad", "474 genes": "alignment_474genes.h5ad"}
ONE_PIPELINE = {"192 genes"}  # the other set's lines put RPKM of 282 genes beside TPM of 192, which no archive does
TISSUE_SET = "tissue_counts.h5ad"
REAL_TISSUE_NAMES = {
    "bile_duct": "biliary tract", "fibroblast_culture": "fibroblast", "head_neck": "head and neck",
    "salivary_gland": "salivary gland",
}  # fmt: skip
MIN_SAMPLES = 9  # of a real tissue
ALIGNMENT_GENES = 1000  # as the demo profile selects
QUANTILES = (0.1, 0.5, 0.9)


# --- what is measured ---


def mean_variance_slope(linear: np.ndarray) -> float:
    """Slope of log10 variance on log10 mean over the genes; linear: samples × genes."""
    mean, variance = linear.mean(0), linear.var(0)
    expressed = mean > 0.1
    return float(np.polyfit(np.log10(mean[expressed]), np.log10(variance[expressed]), 1)[0])


def correlation_quantiles(log2: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """10, 50 and 90 % quantiles of Pearson's r between samples of one label and of two."""
    upper = np.triu_indices(len(log2), 1)
    r = np.corrcoef(log2)[upper]
    same = (labels[:, None] == labels[None, :])[upper]
    out = {}
    for name, mask in (("within", same), ("between", ~same)):
        out |= {f"r {name}, {q:.0%}": float(v) for q, v in zip(QUANTILES, np.quantile(r[mask], QUANTILES), strict=True)}
    return out


def zscore(X: np.ndarray) -> np.ndarray:
    sd = X.std(0)
    return (X - X.mean(0)) / np.where(sd > 0, sd, 1)


def distance_ratio(log2: np.ndarray, kind: np.ndarray, cancer_type: np.ndarray) -> float:
    """Median over cancer types (≥ 10 of each kind) of ΔD ÷ mean median distance within a kind; z-scored genes."""
    return float(delta_d_per_type(zscore(log2), kind, cancer_type)["ratio"].median())


def on_common_scale(log2: np.ndarray) -> np.ndarray:
    """log2(x+1) with every sample's x scaled to the same total, a mean of 50 per gene."""
    linear = np.exp2(log2.astype(float)) - 1
    return np.log2(linear * (50 * linear.shape[1] / linear.sum(1, keepdims=True)) + 1)


def alignment_quantities(log2: np.ndarray, kind: np.ndarray, cancer_type: np.ndarray, name: str) -> dict[str, float]:
    tumour = kind == "tumour"
    out = {"mean–variance slope, tumours": mean_variance_slope(np.exp2(log2[tumour].astype(float)) - 1)}
    out |= {f"{k}, tumours": v for k, v in correlation_quantiles(log2[tumour], cancer_type[tumour]).items()}
    if name in ONE_PIPELINE:
        out |= {f"{k}, lines": v for k, v in correlation_quantiles(log2[~tumour], cancer_type[~tumour]).items()}
    out |= {
        "zeros, tumours": float((log2[tumour] == 0).mean()),
        "zeros, lines": float((log2[~tumour] == 0).mean()),
    }
    out["ΔD ÷ intra, as stored"] = distance_ratio(log2, kind, cancer_type)
    out["ΔD ÷ intra, common scale"] = distance_ratio(on_common_scale(log2), kind, cancer_type)
    return {f"{name}: {k}": v for k, v in out.items()}


def tissue_quantities(cpm: np.ndarray, tissue: np.ndarray) -> dict[str, float]:
    log2 = np.log2(cpm + 1)
    out = {"mean–variance slope": mean_variance_slope(cpm), **correlation_quantiles(log2, tissue)}
    return {f"tissues: {k}": v for k, v in (out | {"zeros": float((cpm == 0).mean())}).items()}


# --- the real side ---


@dataclass(frozen=True)
class RealSets:
    """The real files: per alignment set (log2, kind, cancer_type), and counts per million of tissues."""

    alignment: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
    cpm: np.ndarray
    tissue: np.ndarray
    tumour: np.ndarray

    def quantities(self) -> dict[str, float]:
        out = tissue_quantities(self.cpm, self.tissue)
        for name, (log2, kind, cancer_type) in self.alignment.items():
            out |= alignment_quantities(log2, kind, cancer_type, name)
        return out


def _read(path: Path) -> ad.AnnData:
    if not path.is_file():
        raise FileNotFoundError(f"--real: {path} not found, expected the real sets in that folder")
    return ad.read_h5ad(path)


def _dense(data: ad.AnnData) -> np.ndarray:
    return np.asarray(data.X.toarray() if hasattr(data.X, "toarray") else data.X, float)


def read_real(folder: str | Path) -> RealSets:
    """The real sets in `folder`: tissues of nine samples or more, no caveats. Raises FileNotFoundError."""
    alignment = {}
    for name, file in ALIGNMENT_SETS.items():
        data = _read(Path(folder) / file)
        alignment[name] = (
            _dense(data),
            *(data.obs[c].astype(str).to_numpy() for c in ("sample_type", "cancer_type")),
        )
    data = _read(Path(folder) / TISSUE_SET)
    data = data[data.obs["label_caveat"].astype(str).isin(["", "nan"]).to_numpy()]
    n = data.obs["tissue"].astype(str).map(data.obs["tissue"].astype(str).value_counts())
    data = data[(n >= MIN_SAMPLES).to_numpy()]
    counts, tissue = _dense(data), data.obs["tissue"].astype(str).replace(REAL_TISSUE_NAMES).to_numpy()
    cpm = counts / counts.sum(1, keepdims=True) * 1e6
    return RealSets(alignment, cpm, tissue, (data.obs["kind"] == "tumour").to_numpy())


# --- the demo's side ---


class MeasuredDemo:
    """What the archives of one demo hold, as they hold it, without the detour over files."""

    def __init__(self, demo: Demo):
        self.demo = demo
        self.tumours, self.lines = demo.measured_alignment()
        patients = demo.patients[demo.patients["in_treehouse"]]
        self.tumour_types, self.line_types = (
            patients["cancer_type"].to_numpy(),
            demo.lines["cancer_type"].to_numpy(),
        )
        self.tissues, self.tissue, self.source = self._labelled_tissues()
        named = ~demo.genes["invented"].to_numpy()
        self.common = ~demo.genes.index.isin([*vocabulary.MITOCHONDRIAL, *vocabulary.RIBOSOMAL])
        self.ordinary = ~named | (self.common & (np.cumsum(named) % 10 == 0))

    def _labelled_tissues(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """TPM, tissue and source of the samples that curation keeps, before its cap on common tissues."""
        demo, size = self.demo, self.demo.size
        clean = (demo.archs4["kind"] == "tissue").to_numpy()
        clean &= random(demo.seed, "calibration subset").random(len(clean)) < size.archs4_subset
        archs4 = np.vstack([demo.tpm(counts[clean[rows]]) for rows, counts in demo.archs4_counts()])
        tcga = demo.measured_tumours(demo.patients.index.isin(demo.tcga.index), "TCGA")
        tissues = [demo.archs4["true_tissue"][clean], demo.gtex["tissue"], demo.tcga["tissue"]]
        source = np.repeat(["ARCHS4", "GTEx", "TCGA"], [len(t) for t in tissues])
        return np.vstack([archs4, demo.measured_gtex(), tcga]), np.concatenate(tissues), source

    def like_alignment_set(self, log2: np.ndarray, kind: np.ndarray, cancer_type: np.ndarray) -> tuple:
        """The demo's samples of the same types, in the same units, on the genes most like the real ones."""
        types = np.unique(cancer_type)
        kept, kept_lines = np.isin(self.tumour_types, types), np.isin(self.line_types, types)
        tumours = self._normalised_counts(self.tumours[kept])
        lines = np.log2(self.lines[kept_lines] + 1)
        genes = most_alike(log2[kind == "tumour"], tumours)
        kinds = np.repeat(["tumour", "cell line"], [len(tumours), len(lines)])
        labels = np.concatenate([self.tumour_types[kept], self.line_types[kept_lines]])
        return np.vstack([tumours, lines])[:, genes], kinds, labels

    def _normalised_counts(self, tpm: np.ndarray) -> np.ndarray:
        """log2(x+1) of RSEM normalised counts: reads, a sample's upper quartile of expressed genes is 1,000."""
        reads = tpm * self.demo.genes["length"].to_numpy(np.float32)
        upper = np.array([np.percentile(r[r > 0], 75) for r in reads[:, self.common]])
        reads = np.where(self.common, reads, 0)
        return np.log2(reads * (1000 / upper[:, None]) + 1)

    def like_tissue_set(self, real: RealSets) -> tuple[np.ndarray, np.ndarray]:
        """CPM and tissue: as many samples per real tissue, tumours from TCGA, the rest from GTEx, then ARCHS4."""
        rows = []
        for tissue in np.unique(real.tissue):
            here = real.tissue == tissue
            n_tumours = real.tumour[here].sum()
            tumours = np.flatnonzero((self.tissue == tissue) & (self.source == "TCGA"))[:n_tumours]
            rest = [np.flatnonzero((self.tissue == tissue) & (self.source == s)) for s in ("GTEx", "ARCHS4")]
            rows += [*tumours, *np.concatenate(rest)[: here.sum() - n_tumours]]
        reads = (self.tissues[rows] * self.demo.genes["length"].to_numpy(np.float32))[:, self.ordinary]
        per_gene = real.cpm.shape[1] / reads.shape[1]
        return reads / reads.sum(1, keepdims=True) * (1e6 / per_gene), self.tissue[rows]

    def quantities(self, real: RealSets) -> dict[str, float]:
        out = tissue_quantities(*self.like_tissue_set(real))
        for name, real_set in real.alignment.items():
            out |= alignment_quantities(*self.like_alignment_set(*real_set), name)
        return out | {
            "source's share of ten PCs, tissues": self.source_share(),
            "raw match, alignment": self.raw_match(),
            "raw kNN, balanced accuracy, tissues": self.knn_balanced_accuracy(),
        }

    def raw_match(self) -> float:
        """Share of lines whose 25 nearest tumours are mostly of their given type; z-scored genes of largest MAD."""
        log2 = np.log2(np.vstack([self.tumours, self.lines]) + 1)
        mad = np.median(np.abs(log2 - np.median(log2, axis=0)), axis=0)
        z = zscore(log2[:, np.argsort(-mad, kind="stable")[:ALIGNMENT_GENES]])
        n = len(self.tumours)
        return match_rate(z[:n], self.tumour_types, z[n:], self.line_types).overall

    def source_share(self, n: int = 1000) -> float:
        """PVCA's share of the source, beside the tissue's, in the first ten PCs of n random tissue samples."""
        rows = random(self.demo.seed, "pvca").choice(len(self.tissue), min(n, len(self.tissue)), replace=False)
        log2 = np.log2(self.tissues[rows] + 1)
        components = PCA(10, random_state=0).fit(log2)
        ten = components.inverse_transform(components.transform(log2))
        factors = pd.DataFrame({"source": self.source[rows], "tissue": self.tissue[rows]})
        return float(pvca(ten, factors, threshold=1.0, interactions=False)["source"])

    def knn_balanced_accuracy(self, folds: int = 5) -> float:
        """Mean recall over the tissues of kNN (k = 5, cosine) on log2(TPM+1), every sample held out once."""
        log2, right = np.log2(self.tissues + 1), np.zeros(len(self.tissue), bool)
        for train, test in StratifiedKFold(folds, shuffle=True, random_state=0).split(log2, self.tissue):
            right[test] = knn_predict(log2[train], self.tissue[train], log2[test]) == self.tissue[test]
        return float(pd.Series(right).groupby(self.tissue).mean().mean())


def most_alike(real: np.ndarray, demo: np.ndarray) -> np.ndarray:
    """For each gene (column) of `real`, a demo gene of its own that is most like it in mean and deviation."""
    real, demo = (np.c_[x.mean(0), 2 * x.std(0)] for x in (real, demo))
    cost = np.abs(real[:, None] - demo[None]).sum(-1)
    return linear_sum_assignment(cost)[1]


# --- the verdict ---


@dataclass(frozen=True)
class Rule:
    """Which quantities (by a part of their name), what is allowed, and the interval around the real value."""

    part: str
    allowed: str
    interval: Callable[[float], tuple[float, float]]


RULES = [
    Rule("slope", "real ±20 %", lambda v: (0.8 * v, 1.2 * v)),
    Rule("r within", "real ±0.1", lambda v: (v - 0.1, v + 0.1)),
    Rule("r between", "real ±0.1", lambda v: (v - 0.1, v + 0.1)),
    Rule("zeros", "real ±0.05", lambda v: (v - 0.05, v + 0.05)),
    Rule("ΔD", "real ±30 %", lambda v: (0.7 * v, 1.3 * v)),
    Rule("source", "0.05 to 0.20", lambda _: (0.05, 0.20)),
    Rule("match", "0.40 to 0.60", lambda _: (0.40, 0.60)),
    Rule("kNN", "0.85 to 0.95", lambda _: (0.85, 0.95)),
]
COMPARED = {  # by the beginning of a quantity's name
    "192 genes": "alignment_192genes.h5ad ↔ Treehouse, DepMap archives: same 9 types, same units, 192 paired genes",
    "474 genes": "alignment_474genes.h5ad ↔ Treehouse, DepMap archives: same 9 types, same units, 474 paired genes",
    "tissues": "tissue_counts.h5ad ↔ GTEx, TCGA, ARCHS4: same 16 tissues and unit (CPM), as many samples if there are",
    "source": "a range; 1,000 random samples of the demo's tissue compendium, factors source and tissue",
    "raw match": "a range; the demo's alignment compendium, 1,000 genes of largest MAD (real: 0.626, 0.521)",
    "raw kNN": "a range; the demo's tissue compendium, all 42 tissues, five folds",
}


def calibration_table(real: dict[str, float], demos: dict[int, dict[str, float]]) -> pd.DataFrame:
    """One row per quantity: real value, what is allowed, each seed's value, whether all are within, what with what."""
    rows = []
    for name in next(iter(demos.values())):
        rule = next(r for r in RULES if r.part in name)
        low, high = rule.interval(real.get(name, np.nan))
        values = {f"seed {seed}": values[name] for seed, values in demos.items()}
        row = {
            "quantity": name,
            "real": real.get(name, np.nan),
            "allowed": rule.allowed,
            "low": low,
            "high": high,
            **values,
        }
        row["met"] = "yes" if all(low <= v <= high for v in values.values()) else "no"
        row["compared"] = next(text for start, text in COMPARED.items() if name.startswith(start))
        rows.append(row)
    return pd.DataFrame(rows)


def measure_seeds(real: RealSets, seeds: list[int], size: str = "demo") -> dict[int, dict[str, float]]:
    """The demo's quantities for every generator seed."""
    return {seed: MeasuredDemo(Demo(SIZES[size], seed)).quantities(real) for seed in seeds}


PANELS = [  # title, parts of the names of its quantities
    ("Correlation between samples (Pearson r)", ("r within", "r between")),
    ("Mean–variance slope", ("slope",)),
    ("Share of zeros", ("zeros",)),
    ("ΔD ÷ median distance within", ("ΔD",)),
    ("Allowed range, no real value", ("source", "match", "kNN")),
]


def draw(table: pd.DataFrame) -> matplotlib.figure.Figure:
    """Each quantity's allowed interval (band), real value (line) and demo values (one dot per seed)."""
    sizes = [sum(any(p in q for p in parts) for q in table["quantity"]) for _, parts in PANELS]
    figure = matplotlib.figure.Figure(figsize=(7.2, 8.8), layout="constrained")
    left, right = figure.subfigures(1, 2)
    axes = [left.subplots(1, 1), *right.subplots(4, 1, gridspec_kw={"height_ratios": sizes[1:]})]
    for axis, (title, parts) in zip(axes, PANELS, strict=True):
        rows = table[[any(p in q for p in parts) for q in table["quantity"]]].reset_index(drop=True)
        _draw_panel(axis, rows, title)
    handles, labels = axes[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure


def _draw_panel(axis, rows: pd.DataFrame, title: str) -> None:
    seeds = [c for c in rows if c.startswith("seed ")]
    y = np.arange(len(rows))
    axis.barh(y, rows["high"] - rows["low"], 0.8, left=rows["low"], color="#DDDDDD", label="allowed")
    axis.vlines(rows["real"], y - 0.4, y + 0.4, color="black", linewidth=1.5, label="real")
    shift = np.linspace(-0.25, 0.25, len(seeds))
    for i, seed in enumerate(seeds):
        label = f"demo, {len(seeds)} seeds" if i == 0 else None
        axis.plot(rows[seed], y + shift[i], "o", color="#0072B2", markersize=2.5, label=label)
    axis.set_yticks(y, [_short(q) for q in rows["quantity"]], fontsize=6.5)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_title(title, fontsize=8, loc="left")
    axis.locator_params(axis="x", nbins=5)
    axis.tick_params(axis="x", labelsize=6.5)
    axis.spines[["top", "right"]].set_visible(False)


def _short(quantity: str) -> str:
    """A quantity's name without what its panel's title says already."""
    for part in (
        " mean–variance slope,",
        " mean–variance slope",
        " zeros,",
        " zeros",
        "ΔD ÷ intra, ",
        ", tissues",
        ", alignment",
    ):
        quantity = quantity.replace(part, "")
    return quantity.rstrip(":")


def write(table: pd.DataFrame, folder: Path) -> None:
    """calibration.csv, .md and .png in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "calibration.csv") as path:
        table.to_csv(path, index=False, float_format="%.4f")
    with replacing(folder / "calibration.md") as path:
        path.write_text(_markdown(table))
    with replacing(folder / "calibration.png") as path:
        draw(table).savefig(path, format="png", dpi=200, metadata={"Software": None})


def _markdown(table: pd.DataFrame) -> str:
    numbers = [c for c in table if c in ("real", "low", "high") or c.startswith("seed ")]
    shown = table.drop(columns=["compared"]).astype(dict.fromkeys(numbers, object))
    for column in numbers:
        shown[column] = ["–" if pd.isna(v) else f"{v:.3f}" for v in table[column]]
    rows = [shown.columns, ["---"] * shown.shape[1], *shown.to_numpy()]
    met = (table["met"] == "yes").sum()
    notes = [f"* **{start}**: {text}" for start, text in COMPARED.items()]
    return "\n".join(
        [
            "# Calibration of the demo data",
            "",
            f"{met} of {len(table)} quantities are within what is allowed for every seed. How each is measured, and",
            "why the comparison is fair, is written at the head of lib/calibration.py. No model was fitted.",
            "",
            *("| " + " | ".join(map(str, row)) + " |" for row in rows),
            "",
            *notes,
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m lib.calibration", description="Demo data against real data.")
    parser.add_argument("--real", required=True, metavar="DIR", help="folder of the real sets")
    parser.add_argument("--seed", type=int, default=42, help="first of five generator seeds")
    arguments = parser.parse_args()
    try:
        real = read_real(arguments.real)
    except (OSError, ValueError) as error:
        parser.exit(1, f"{error}\n")
    demos = measure_seeds(real, list(range(arguments.seed, arguments.seed + 5)))
    table = calibration_table(real.quantities(), demos)
    write(table, ROOT / "figures" / "calibration")
    print(table.drop(columns=["low", "high", "compared"]).round(3).to_string(index=False))


if __name__ == "__main__":
    main()
