"""`./run_all.sh template DIR`: a filled-in example of a user's own data, to run first and to replace piece by piece."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from lib import config, synthetic

GENERATOR_SEED = 42  # of the demo, so that the demo's models know the example's genes and tissues
SIZE = synthetic.DemoSize(tumours=330, cell_lines=90, tissue_samples=950, tissue_floor=6, gtex_samples=130, target=0.2)
TYPES = ("Breast", "Lung", "Skin", "Kidney", "Bowel")
TUMOURS, LINES = 6, 5  # of each type
TISSUES, TISSUE_SAMPLES = ("blood", "kidney", "liver", "lung"), 12
COHORT = {"blood": 10, "kidney": 10}

PROFILE = """\
# A profile for your own data, filled in for the example files beside it. All paths are relative to this folder.
#
#   ./run_all.sh --profile {folder}/own.yaml --data {folder}
#
base: smoke          # its settings hold for all that is not said here. smoke: minutes, and the numbers mean nothing;
                     # demo, with a few more lines as in profiles/mini.yaml: for real data. All keys: lib/config.py
name: "{name}"       # results go to figures/{name} and data/processed/{name}
title: example data (generated)   # stands beside every result; say what your data are

data:
  kind: files
  alignment:                          # RNAlign: tumours and cell lines in one file
    file: tumours_and_lines.csv       # CSV, TSV, GCT (.gz too), H5 or h5ad; samples in rows or in columns
    samples: tumours_and_lines_samples.csv   # sample ids in its first column; none for an h5ad whose obs has all
    unit: TPM                         # counts, TPM, log2(TPM+1), log2(TPM+0.001) or log2; leave out: told by the values
    columns:                          # what your columns are called; leave out those that you do not have
      sample_type: kind               # needed. Its values: "tumour" and "cell line"
      cancer_type: diagnosis          # needed. Any words, the same for tumours and lines
      purity: tumour_content          # 0 to 1; a tumour without one gets its type's median
      subtype: histology              # for Breast: Basal, HER2-enriched, Luminal; Lung: LUAD, LUSC, SCLC
      name: line_name                 # of a cell line, for drug tables and figures
    # gene_ids: hgnc_complete_set.txt # HGNC's table (TSV): needed for Ensembl or Entrez ids, good for old symbols
    # exclude: {{remark: ["*"]}}        # leaves out samples whose column has one of these values ("*": any)
  tissue:                             # tissue VAE: samples whose tissue is known
    file: tissues.tsv.gz
    samples: tissues_samples.tsv
    unit: counts
    columns:
      tissue: organ                   # needed. Any words
      study: experiment               # where there are several: no study (or donor) then lies in two parts of a split
  cohort:                             # samples that training never sees
    file: cohort.csv
    samples: cohort_samples.csv
    unit: log2(TPM+1)
    columns: {{group: ward}}            # needed. What you know of them, such as the diagnosis
  cohort_expected:                    # the tissues that count as right for each group; leave out what you cannot say
    ward A: [blood]
    ward B: [kidney]
  # drug_response: prism.csv          # lines × drugs of PRISM, or GDSC's table
  # survival: survival.tsv            # TCGA's columns: sample, OS, OS.time

alignment: {{genes: 300, min_per_kind: 1, validation_fraction: 0.2, test_fraction: 0.2}}   # of each type's few samples
tissue: {{subset: null, exclude_cell_lines: false, cap: null, genes: 300, test_fraction: 0.25}}
"""

README = """\
# Your own data: a filled-in example

The files here are drawn by a generator: no measurement is in them. Run them as they are, from the repository's folder:

    ./run_all.sh --profile {folder}/own.yaml --data {folder}

`own.yaml` explains every line. Then replace one file after the other by yours and correct its lines in `own.yaml`.

| file | layout | its samples |
|---|---|---|
| `tumours_and_lines.csv` | samples in rows, TPM | `tumours_and_lines_samples.csv` |
| `tissues.tsv.gz` | genes in rows, counts | `tissues_samples.tsv` |
| `cohort.csv` | genes in rows, log2(TPM+1) | `cohort_samples.csv` |

A few samples and models that are trained already (the demo's, after `./run_all.sh`; or your own profile's):

    .venv/bin/python -m lib classify {folder}/cohort.csv
    .venv/bin/python -m lib align {folder}/tumours_and_lines.csv --cancer-type Breast
    .venv/bin/python -m lib classify FILE --profile {folder}/own.yaml

`python -m lib classify --help` says what a file may look like. Not for diagnosis.
"""


def write(folder: str | Path) -> list[Path]:
    """Write the example into `folder`, whole or not at all; returns its files.

    FileExistsError for a folder that is not empty, or a file.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        found = "files in it" if folder.is_dir() else "a file of that name"
        raise FileExistsError(f"template {folder}: found {found}, expected a new or an empty folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".template-") as temporary:
        whole = Path(temporary) / "whole"
        whole.mkdir()
        _write_files(whole, folder)
        if folder.exists():
            folder.rmdir()
        shutil.move(whole, folder)
    return sorted(folder.iterdir())


def _write_files(to: Path, folder: Path) -> None:
    words = {"folder": folder, "name": _name(folder)}
    (to / "own.yaml").write_text(PROFILE.format(**words))
    (to / "README.md").write_text(README.format(**words))
    demo, rng = synthetic.Demo(SIZE, GENERATOR_SEED), np.random.default_rng(0)
    _write_alignment(to, demo)
    _write_tissues(to, demo, _tissue_drawer(demo, "example", rng), rng)
    _write_cohort(to, demo, _tissue_drawer(demo, "example cohort", rng))


def _name(folder: Path) -> str:
    """The folder's name as that of a profile, and none of the repository's."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", folder.resolve().name).strip("-") or "own"
    return f"own-{name}" if (config.PROFILES / f"{name}.yaml").exists() else name


def _write_alignment(to: Path, demo: synthetic.Demo) -> None:
    tumours, lines = demo.patients, demo.lines
    chosen = np.zeros(len(tumours), bool)
    kept_lines = np.zeros(len(lines), bool)
    for cancer_type in TYPES:
        chosen[_spread((tumours["cancer_type"] == cancer_type) & tumours["in_treehouse"], TUMOURS)] = True
        kept_lines[_spread(lines["cancer_type"] == cancer_type, LINES)] = True
    tpm = np.vstack([demo.measured_tumours(chosen, "example"), demo.measured_lines()[kept_lines]])
    both = pd.concat([tumours[chosen].assign(kind="tumour"), lines[kept_lines].assign(kind="cell line")])
    ids = [f"patient-{i:02d}" for i in range(1, 1 + chosen.sum())]
    ids += [f"line-{i:02d}" for i in range(1, 1 + kept_lines.sum())]
    samples = pd.DataFrame({
        "kind": both["kind"].to_numpy(), "diagnosis": both["cancer_type"].to_numpy(),
        "tumour_content": both["purity"].round(2).to_numpy(), "line_name": both["name"].fillna("").to_numpy(),
        "histology": both["subtype"].to_numpy(),
    }, index=ids)  # fmt: skip
    samples.to_csv(to / "tumours_and_lines_samples.csv", index_label="sample")
    table = pd.DataFrame(tpm, ids, demo.genes.index)
    table.to_csv(to / "tumours_and_lines.csv", index_label="sample", float_format="%.4g")


def _spread(mask: pd.Series, n: int) -> np.ndarray:
    """Positions of n of the rows of a mask, evenly spread, so that every subtype has some."""
    rows = np.flatnonzero(mask)
    return rows[np.linspace(0, len(rows) - 1, n).astype(int)]


def _tissue_drawer(demo: synthetic.Demo, lab: str, rng: np.random.Generator) -> Callable[[list[str]], np.ndarray]:
    """Draws counts of samples of the tissues named, as one lab measures them: samples × genes."""
    effect = demo.programmes.source(lab, demo.p.source_offset_sd)
    return lambda tissues: demo.counts(demo.tissue_profile(tissues, rng), effect, rng)


def _write_tissues(to: Path, demo: synthetic.Demo, draw, rng: np.random.Generator) -> None:
    organs = np.repeat(TISSUES, TISSUE_SAMPLES)
    ids = [f"tissue-{i:02d}" for i in range(1, len(organs) + 1)]
    counts = pd.DataFrame(draw(list(organs)).astype(int), ids, demo.genes.index).T
    counts.to_csv(to / "tissues.tsv.gz", sep="\t", index_label="gene", compression={"method": "gzip", "mtime": 0})
    samples = pd.DataFrame({"organ": organs, "experiment": [f"exp-{n}" for n in rng.integers(1, 13, len(ids))]}, ids)
    samples.to_csv(to / "tissues_samples.tsv", sep="\t", index_label="sample")


def _write_cohort(to: Path, demo: synthetic.Demo, draw) -> None:
    tissues = [tissue for tissue, n in COHORT.items() for _ in range(n)]
    ids = [f"new-{i:02d}" for i in range(1, len(tissues) + 1)]
    log2 = pd.DataFrame(np.log2(demo.tpm(draw(tissues)) + 1), ids, demo.genes.index)
    log2.T.to_csv(to / "cohort.csv", index_label="gene", float_format="%.3f")
    ward = {tissue: f"ward {letter}" for tissue, letter in zip(COHORT, "AB", strict=True)}
    pd.DataFrame({"ward": [ward[t] for t in tissues]}, ids).to_csv(to / "cohort_samples.csv", index_label="sample")
