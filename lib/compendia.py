"""From a profile to the three compendia, and back to what the demo's generator really drew."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd

from lib import curation, labels, sources
from lib.config import FileRole, Profile
from lib.files import replacing

ALIGNMENT = {  # argument of curation.curate_alignment: archive in data/sources.yaml
    "tumours": "treehouse_expression",
    "clinical": "treehouse_clinical",
    "lines": "depmap_expression",
    "line_info": "depmap_samples",
    "celligner_info": "celligner_info",
    "gene_ids": "hgnc_2018",
}
TISSUE = {
    "archs4": "archs4",
    "gtex": "gtex_expression",
    "gtex_attributes": "gtex_samples",
    "tcga": "tcga_expression",
    "tcga_phenotype": "tcga_phenotype",
    "depmap": "depmap_expression",
    "depmap_info": "depmap_samples",
    "gene_ids": "hgnc_2018",
    "gtf": "gencode_41",
}
COHORT = {"expression": "target_expression", "phenotype": "target_phenotype", "gene_ids": "hgnc_2018"}
DEPOSIT = "deposit_expression"
DEPOSIT_FOLDER = "processed_scaled_411k_tissue_B_h5"
TRUTH = "truth.h5ad"  # beside the demo's archives, written by lib.synthetic


def archives(run: Profile) -> list[str]:
    """Ids, in data/sources.yaml, of the archives that a profile reads."""
    tissue = [DEPOSIT] if run.tissue.source == "deposit" else TISSUE.values()
    return list(dict.fromkeys([*ALIGNMENT.values(), *tissue, *COHORT.values()]))


def _paths(run: Profile, wanted: dict[str, str]) -> dict[str, Path]:
    catalogue = sources.load_sources()
    return {argument: catalogue[archive].path(run.raw) for argument, archive in wanted.items()}


def raw_files(run: Profile) -> list[Path]:
    """The raw files that a profile reads, those that exist."""
    if run.data.kind == "files":
        return [run.raw / name for name in run.data.files]
    return sorted(path for path in run.raw.rglob("*") if path.is_file() and path.parent != run.raw)


def curate_alignment(run: Profile) -> curation.Compendium:
    """The alignment compendium of a profile (paper A, A.2), written to alignment.h5ad."""
    out, settings = run.processed / "alignment.h5ad", run.alignment.model_dump() | {"seed": run.seed}
    if run.data.kind == "files":
        return curation.curate_alignment_file(out, **_role(run, run.data.alignment), **settings)
    return curation.curate_alignment(out, **_paths(run, ALIGNMENT), **settings)


def curate_tissue(run: Profile) -> curation.Compendium:
    """The tissue compendium of a profile (paper B, Methods and Table 1), written to tissue.h5ad."""
    out, tissue = run.processed / "tissue.h5ad", run.tissue
    if tissue.source == "deposit":
        folder = run.raw / "deposit" / DEPOSIT_FOLDER
        settings = {"gene_filter": tissue.gene_filter, "validation_fraction": tissue.validation_fraction}
        return curation.curate_deposit(out, folder=folder, seed=run.seed, **settings)
    balance = {"cap", "genes", "gene_filter", "min_samples", "split", "validation_fraction", "test_fraction"}
    settings = tissue.model_dump(include=balance) | {"seed": run.seed}
    if run.data.kind == "files":
        return curation.curate_tissue_file(out, **_role(run, run.data.tissue), **settings)
    funnel = {"single_cell_max", "subset", "subset_seed", "exclude_cell_lines"}
    settings |= tissue.model_dump(include=funnel)
    return curation.curate_tissue(out, **_paths(run, TISSUE), **settings)


def curate_cohort(run: Profile) -> curation.Compendium:
    """The cohort that training never sees, on the tissue compendium's genes, written to cohort.h5ad."""
    out, compendium = run.processed / "cohort.h5ad", run.processed / "tissue.h5ad"
    if run.data.kind == "files":
        return curation.curate_cohort_file(out, compendium=compendium, **_role(run, run.data.cohort))
    return curation.curate_cohort(out, compendium=compendium, **_paths(run, COHORT))


def _role(run: Profile, role: FileRole) -> dict:
    """A user's file as the arguments that curation takes."""
    at = {key: run.raw / name for key in ("file", "samples", "gene_ids") if (name := getattr(role, key))}
    return at | {"unit": role.unit, "columns": role.columns.model_dump(), "exclude": role.exclude}


def expected_tissues(run: Profile) -> dict[str, list[str]]:
    """Tissues decided on beforehand for every group of the unseen cohort (paper B's code, or the profile's own)."""
    if run.data.kind == "files":
        return run.data.cohort_expected
    table = labels.expected_tissues().query("expected_code")
    return {group: rows["tissue"].tolist() for group, rows in table.groupby("group", sort=False)}


def truth(run: Profile, adata: ad.AnnData) -> np.ndarray:
    """What the demo's generator drew for the samples and genes of a compendium, in its z-scores: samples × genes.

    Tumours: the pure tumour programme, without infiltrate; cell lines: the line before it adapted to culture.
    """
    drawn = ad.read_h5ad(run.raw / TRUTH)[adata.obs_names, adata.var_names].layers["programme"]
    mean, sd = (adata.var[c].to_numpy() for c in ("mean", "sd"))
    return (np.asarray(drawn) - mean) / np.where(sd > 0, sd, 1)


def true_labels(run: Profile, samples: pd.Index) -> pd.DataFrame:
    """The generator's own labels of alignment samples: true_type, mislabelled, truly_aligns, culture_strength, …"""
    return ad.read_h5ad(run.raw / TRUTH, backed="r").obs.loc[samples]


def write(adata: ad.AnnData, path: Path) -> None:
    """Write an .h5ad through a temporary name, so that a killed run leaves no half file."""
    with replacing(path) as temporary:
        adata.write_h5ad(temporary)
