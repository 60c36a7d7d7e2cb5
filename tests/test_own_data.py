"""A user's own files, with the fewest columns that do, through all notebooks."""

import gzip
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from lib import config, notebooks

PROFILE = """
base: smoke
title: a user's data
data:
  kind: files
  alignment:
    {file: align.tsv, samples: align.csv, columns: {sample_type: kind, cancer_type: cancer, purity: purity}}
  tissue: {file: tissue.tsv.gz, samples: tissue.csv, unit: log2(TPM+1), columns: {tissue: organ, study: study}}
  cohort: {file: cohort.tsv, samples: cohort.csv, unit: log2(TPM+1), columns: {group: group}}
alignment: {genes: 30, min_per_kind: 0}
tissue: {subset: null, exclude_cell_lines: false, cap: null, genes: 30}
rnalign: {epochs: 3}
rnalign_search: {trials: 0}
"""


@pytest.fixture
def own(tmp_path):
    """Profile and folder of three small genes × samples tables."""
    rng = np.random.default_rng(0)
    tables = {
        "align": pd.DataFrame({"kind": ["tumour"] * 40 + ["cell line"] * 20, "cancer": ["lung", "breast"] * 30}),
        "tissue": pd.DataFrame({"organ": ["lung", "liver", "blood"] * 30, "study": [f"s{i // 5}" for i in range(90)]}),
        "cohort": pd.DataFrame({"group": ["AML"] * 20}),
    }
    tables["align"]["purity"] = 0.7
    for name, samples in tables.items():
        samples.index = [f"{name}-{i}" for i in range(len(samples))]
        values = np.log2(1 + rng.gamma(2, 20, (40, len(samples))))
        file = tmp_path / ("tissue.tsv.gz" if name == "tissue" else f"{name}.tsv")
        genes = [f"GENE{i}" for i in range(40)]
        pd.DataFrame(values, genes, samples.index).to_csv(file, sep="\t", index_label="gene", float_format="%.3f")
        samples.to_csv(tmp_path / f"{name}.csv", index_label="sample")
    profile = tmp_path / "own-data-test.yaml"
    profile.write_text(PROFILE)
    run = config.load(profile, tmp_path)
    clear(run)
    yield profile, run
    clear(run)


def clear(run):
    """Nothing of this test stays in the repository's folders, and nothing that was there counts."""
    for folder in (run.figures, run.processed):
        shutil.rmtree(folder, ignore_errors=True)


def run_all(profile, folder, *ids):
    command = [config.ROOT / "run_all.sh", "--venv", sys.prefix, "--profile", profile, "--data", folder, *ids]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.slow
def test_the_fewest_columns_are_enough_and_a_broken_file_leaves_nothing_half_written(own):
    profile, run = own
    folder = run.raw
    whole = (folder / "tissue.tsv.gz").read_bytes()
    (folder / "tissue.tsv.gz").write_bytes(whole[: len(whole) // 2])
    done = run_all(profile, folder)
    assert done.returncode == 1
    failed = [line for line in done.stdout.splitlines() if "FAILED" in line]
    assert len(failed) == 1
    assert "tissue.tsv.gz: found" in failed[0]
    assert "expected" in failed[0]
    assert [p.name for p in run.figures.rglob("*") if p.is_file()] == ["01_curation.failed.ipynb"]
    assert not list(run.processed.glob("*.h5ad"))

    (folder / "tissue.tsv.gz").write_bytes(gzip.compress(gzip.decompress(whole)))
    asked = ["a-table1", "a-fig2a", "a-table5", "a-table-leak", "b-table-mixing", "b-fig2", "b-fig4"]
    done = run_all(profile, folder, *asked)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(notebooks.output_path(run, figure_id).is_file() for figure_id in asked)
    assert "not estimable" in (run.figures / "tables" / "b-table-mixing.csv").read_text()  # one source only
