"""What each choice of Celligner's originals changes, where ours is another: match, ΔD and the aligned matrices.

    python benchmarks/celligner_choices.py --out benchmarks/results/celligner_choices.md

On the demo's generated tumours and cell lines (several draws), with the same clusters for all. The first row is our
defaults; each further row switches one setting of `Celligner` to the original's choice, the last two all of them. The
best 200 genes of each data set are matched on: of the demo's 2,400 genes more in proportion than the originals'
1,000 of 19,000, so that the choice of genes matters. Differences are to our defaults, in log2 units, both less the gene
means of their aligned lines.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from lib.files import replacing
from lib.metrics.alignment import delta_d_per_type, match_rate, within_type_variance_kept
from lib.models.celligner import Celligner
from lib.synthetic import SIZES, Demo

GENES = 200
PYTHON = {"order": "abs", "integer_expression": True, "intercept": False}
R = {"order": "abs", "trend": True, "min_cluster": 3, "centre": False, "n_genes": GENES - 1}
CHOICES = {
    "our defaults": {},
    "order by absolute eigenvalue (both)": {"order": "abs"},
    "expression cut to integers (Python)": {"integer_expression": True},
    "F of no intercept (Python)": {"intercept": False},
    "limma's trend (R)": {"trend": True},
    "clusters of 1 and 2 in the baseline (R)": {"min_cluster": 3},
    "not centred (R)": {"centre": False},
    "one gene fewer (R)": {"n_genes": GENES - 1},
    "all of the Python original's": PYTHON,
    "all of the R original's": R,
}


def draw(size: str, seed: int):
    """log2(TPM + 1) of tumours and lines, and the obs of both: sample_type, cancer_type."""
    demo = Demo(SIZES[size], seed)
    X = [np.log2(tpm + 1).astype(np.float64) for tpm in demo.measured_alignment()]
    tumours = demo.patients[demo.patients["in_treehouse"].to_numpy()]
    types = [*tumours["cancer_type"], *demo.lines["cancer_type"]]
    kinds = ["tumour"] * len(X[0]) + ["cell line"] * len(X[1])
    return *X, pd.DataFrame({"sample_type": kinds, "cancer_type": types})


def scores(size: str, seed: int) -> pd.DataFrame:
    """A row per choice for one draw of the demo."""
    tumours, lines, obs = draw(size, seed)
    kind, types = (obs[c].to_numpy(dtype=str) for c in ("sample_type", "cancer_type"))
    is_line = kind == "cell line"
    given, clusters, ours, rows = np.concatenate([tumours, lines]), (), None, []
    for choice, settings in CHOICES.items():
        model = Celligner(**{"n_genes": GENES} | settings, seed=seed)
        X = np.concatenate(model.fit_transform(tumours, lines, *clusters))
        X -= X[is_line].mean(axis=0)
        clusters = model.tumour_clusters_, model.line_clusters_
        ours = X if ours is None else ours
        matched = match_rate(X[~is_line], types[~is_line], X[is_line], types[is_line]).overall
        rows.append({
            "choice": choice,
            "match, %": 100 * matched,
            "ΔD": delta_d_per_type(X, kind, types)["delta_d"].median(),
            "variance kept": within_type_variance_kept(X, given, types, kind).overall,
            "components removed, of them with more variance in lines": [
                len(model.eigenvalues_), int((model.eigenvalues_ < 0).sum())
            ],
            "genes matched on": len(model.genes_),
            "largest difference": np.abs(X - ours).max(),
            "median difference": np.median(np.abs(X - ours)),
        })  # fmt: skip
    return pd.DataFrame(rows).assign(seed=seed)


def table(found: pd.DataFrame) -> pd.DataFrame:
    """Mean over the draws, and its range; counts of each draw."""
    rows = []
    for choice, own in found.groupby("choice", sort=False):
        row = {"choice": choice}
        for column in own.columns.drop(["choice", "seed"]):
            values = own[column].tolist()
            if isinstance(values[0], list):
                row[column] = "; ".join(f"{n}, {negative}" for n, negative in values)
            elif isinstance(values[0], int):
                row[column] = " ".join(f"{v:,}" for v in values)
            else:
                row[column] = f"{np.mean(values):.3g} ({min(values):.3g} to {max(values):.3g})"
        rows.append(row)
    return pd.DataFrame(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="demo", help="size of the demo")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="draws of the demo")
    parser.add_argument("--out", type=Path, help="Markdown file to write; without, the table is printed only")
    arguments = parser.parse_args()
    found = pd.concat([scores(arguments.size, seed) for seed in arguments.seeds], ignore_index=True)
    text = table(found).to_markdown(index=False, disable_numparse=True)
    print(text)
    if arguments.out:
        arguments.out.parent.mkdir(exist_ok=True)
        said = f"`benchmarks/celligner_choices.py`, demo of size {arguments.size}, draws {arguments.seeds}"
        with replacing(arguments.out) as temporary:
            temporary.write_text(
                f"# Celligner: what each choice of the originals changes\n\n{said}: mean (range).\n\n{text}\n"
            )


if __name__ == "__main__":
    main()
