"""From a profile to the three compendia, and back to what the demo's generator really drew."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd

from lib import curation, labels, readers, sources
from lib.config import FileRole, Panel, Profile
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
GENE_SETS = "reactome_gene_sets"
COHORT = {"expression": "target_expression", "phenotype": "target_phenotype", "gene_ids": "hgnc_2018"}
DEPOSIT = "deposit_expression"
DEPOSIT_FOLDER = "processed_scaled_411k_tissue_B_h5"
BALANCE = {"cap", "genes", "gene_filter", "min_samples", "split", "validation_fraction", "test_fraction"}
METHODS = ("input", "linear projection", "Celligner", "RNAlign", "type mean", "ComBat", "Harmony")  # order of tables
APPLICATIONS = {"drug_response": "prism_primary", "survival": "tcga_survival"}  # used by 09_applications where present
ORGANOIDS = ("organoids/organoid_expression.csv", "organoids/organoid_info.csv")  # of the demo only
TRUTH = "truth.h5ad"  # beside the demo's archives, written by lib.synthetic


def archives(run: Profile) -> list[str]:
    """Ids, in data/sources.yaml, of the archives that a profile reads."""
    tissue = [DEPOSIT] if run.tissue.source == "deposit" else TISSUE.values()
    return list(dict.fromkeys([*ALIGNMENT.values(), *tissue, *COHORT.values(), GENE_SETS]))


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
        folder = deposit_folder(run) / DEPOSIT_FOLDER
        settings = {"gene_filter": tissue.gene_filter, "validation_fraction": tissue.validation_fraction}
        return curation.curate_deposit(out, folder=folder, seed=run.seed, **settings)
    if run.data.kind == "files":
        settings = tissue.model_dump(include=BALANCE) | {"seed": run.seed}
        return curation.curate_tissue_file(out, **_role(run, run.data.tissue), **settings)
    return curate_archives(run, out)


def curate_archives(run: Profile, out: Path) -> curation.Compendium:
    """The tissue compendium from the archives (paper B, Methods and Table 1), written to `out`."""
    funnel = {"single_cell_max", "subset", "subset_seed", "exclude_cell_lines"}
    settings = run.tissue.model_dump(include=BALANCE | funnel) | {"seed": run.seed}
    return curation.curate_tissue(out, **_paths(run, TISSUE), **settings)


def curate_pool(run: Profile, out: Path) -> None:
    """The tissue compendium before cell lines fall out and tissues are capped, written to `out`.

    obs.cell_line marks what the cell-line filter would have removed (Table 1, step 9). Archives only.
    """
    paths, tissue = _paths(run, TISSUE), run.tissue
    settings = tissue.model_dump(include={"min_samples", "split", "validation_fraction", "test_fraction"})
    settings |= tissue.model_dump(include={"single_cell_max", "subset", "subset_seed"})
    kept = {"exclude_cell_lines": False, "cap": None, "gene_filter": "corrected", "seed": run.seed}
    curation.curate_tissue(out, **paths, **settings, **kept)
    pool = ad.read_h5ad(out, backed="r")
    obs, genes = pool.obs, pool.var_names
    pool.file.close()
    with readers.open_expression(paths["archs4"], "archs4_h5") as archs4:
        lines = readers.depmap_sample_info(paths["depmap_info"])["stripped_cell_line_name"].dropna()
        texts = archs4.obs.loc[obs.index[obs["source"] == "ARCHS4"]]
    tokens = labels.cell_line_tokens(texts, labels.cell_line_names(lines, genes)).reindex(obs.index, fill_value="")
    with h5py.File(out, "a") as file:
        ad.io.write_elem(file, "obs", obs.assign(cell_line=(tokens != "") | (obs["source"] == "DepMap")))


def curate_cohort(run: Profile) -> curation.Compendium:
    """The cohort that training never sees, on the tissue compendium's genes, written to cohort.h5ad."""
    out, compendium = run.processed / "cohort.h5ad", run.processed / "tissue.h5ad"
    if run.data.kind == "files":
        return curation.curate_cohort_file(out, compendium=compendium, **_role(run, run.data.cohort))
    return curate_target(run, out, compendium)


def curate_target(run: Profile, out: Path, compendium: Path) -> curation.Compendium:
    """TARGET on the genes of `compendium`, written to `out`."""
    return curation.curate_cohort(out, compendium=compendium, **_paths(run, COHORT))


def deposit_folder(run: Profile) -> Path:
    """Where paper B's deposit is, if the profile reads it."""
    return run.raw / "deposit"


def has_deposited_bulkformer(run: Profile) -> bool:
    """Whether the profile reads the deposit, and the authors' BulkFormer embeddings are there."""
    files = (deposit_folder(run) / f"{part}_emb_bf93M.npy" for part in ("ref", "tgt"))
    return run.tissue.source == "deposit" and all(file.is_file() for file in files)


def deposited_codes(run: Profile, samples: pd.Index) -> np.ndarray | None:
    """The authors' own codes of the deposit's samples, samples × latent; None where a profile has none.

    embeddings_train.csv and embeddings_test.csv: a row per sample, its id first; columns that are no numbers are left
    out. ValueError when a sample has no row.
    """
    files = [deposit_folder(run) / f"embeddings_{part}.csv" for part in ("train", "test")]
    if run.tissue.source != "deposit" or not all(file.is_file() for file in files):
        return None
    codes = pd.concat([pd.read_csv(file, index_col=0).rename(index=str) for file in files]).select_dtypes("number")
    missing = samples.difference(codes.index)
    if len(missing) or codes.index.has_duplicates:
        found = f"no row for {len(missing):,} samples ({missing[0]})" if len(missing) else "a sample twice"
        raise ValueError(f"{files[0]}, {files[1].name}: found {found}, expected one row for each")
    return codes.loc[samples].to_numpy(np.float32)


def _role(run: Profile, role: FileRole) -> dict:
    """A user's file as the arguments that curation takes."""
    at = {key: run.raw / name for key in ("file", "samples", "gene_ids") if (name := getattr(role, key))}
    return at | {"unit": role.unit, "columns": role.columns.model_dump(), "exclude": role.exclude}


def open_panel(run: Profile, panel: Panel) -> ad.AnnData:
    """A panel of a user's profile: log2(x+1), samples × gene symbols; obs group and the other columns that it names.

    FileNotFoundError where its gene table is not there.
    """
    if panel.gene_ids and not (run.raw / panel.gene_ids).is_file():
        raise FileNotFoundError(f"{panel.gene_ids}: found no such gene table, expected one for the ids of {panel.file}")
    at = _role(run, panel)
    options = {"unit": at["unit"], "gene_ids": at.get("gene_ids"), "obs": at.get("samples")}
    with readers.open_expression(at["file"], **options) as opened:
        obs = curation.file_obs(opened, at["columns"], at["exclude"], ("group", "donor", "study"))
        data = opened.read(obs.index)
    return ad.AnnData(data.X, obs, data.var)


def application_files(run: Profile) -> dict[str, Path]:
    """The tables of drug response and of survival that a profile has, by those names."""
    if run.data.kind == "files":
        named = {name: getattr(run.data, name) for name in APPLICATIONS}
        return {name: run.raw / file for name, file in named.items() if file}
    return {name: path for name, path in _paths(run, APPLICATIONS).items() if path.is_file()}


def organoids(run: Profile) -> ad.AnnData | None:
    """The demo's organoids on the alignment compendium's genes, log2(TPM+1); None where a profile has none."""
    if run.data.kind != "demo":
        return None
    expression, info = (run.raw / name for name in ORGANOIDS)
    var = ad.read_h5ad(run.processed / "alignment.h5ad", backed="r").var
    with readers.open_expression(expression, "depmap_csv", gene_ids=_paths(run, ALIGNMENT)["gene_ids"]) as opened:
        obs = curation.depmap_obs(opened, readers.depmap_sample_info(info))
        X = opened.read(genes=var.index).X
    return ad.AnnData(X, obs.assign(sample_type="organoid", source="organoids"), var)


def expected_tissues(run: Profile) -> dict[str, list[str]]:
    """Tissues decided on beforehand for every group of the unseen cohort (paper B's code, or the profile's own)."""
    if run.data.kind == "files":
        return run.data.cohort_expected
    table = labels.expected_tissues().query("expected_code")
    return {group: rows["tissue"].tolist() for group, rows in table.groupby("group", sort=False)}


def rubrics(run: Profile) -> dict[str, dict[str, list[str]]]:
    """Expected tissues by group, as paper B's code and as its text have them; a user's own profile has one rubric."""
    if run.data.kind == "files":
        return {"profile": run.data.cohort_expected}
    table = labels.expected_tissues()
    groups = table["group"].unique()
    chosen = {rubric: table[table[f"expected_{rubric}"]] for rubric in ("code", "text")}
    return {r: {g: t.loc[t["group"] == g, "tissue"].tolist() for g in groups} for r, t in chosen.items()}


def aligned(run: Profile) -> tuple[ad.AnnData, dict[str, np.ndarray]]:
    """The alignment compendium in z-scores, and its samples × genes as every method of `METHODS` aligned them.

    "input" is the compendium itself, "RNAlign" is X of aligned.h5ad, the others are its layers. A method that the
    data did not allow is absent; its reason is in `skipped`.
    """
    given = curation.standardise(curation.load(run.processed / "alignment.h5ad"))
    found = curation.load(run.processed / "aligned.h5ad")
    matrices = {"input": given.X, "RNAlign": found.X, **found.layers}
    return given, {method: np.asarray(matrices[method]) for method in METHODS if method in matrices}


def skipped(run: Profile) -> dict[str, str]:
    """The methods that the alignment compendium did not allow, each with its reason."""
    return dict(ad.read_h5ad(run.processed / "aligned.h5ad", backed="r").uns.get("skipped", {}))


def gene_sets(run: Profile) -> Path | None:
    """The GMT file of a profile, or None where it has none. (The demo's sets are its generator's own programmes.)"""
    if run.data.kind == "files":
        return run.raw / run.data.gene_sets if run.data.gene_sets else None
    path = sources.load_sources()[GENE_SETS].path(run.raw)
    return path if path.is_file() else None


def truth(run: Profile, adata: ad.AnnData) -> np.ndarray:
    """What the demo's generator drew for the samples and genes of a compendium, in its z-scores: samples × genes.

    Tumours: the pure tumour programme, without infiltrate; cell lines: the line before it adapted to culture.
    """
    drawn = ad.read_h5ad(run.raw / TRUTH)[adata.obs_names, adata.var_names].layers["programme"]
    mean, sd = (adata.var[c].to_numpy() for c in ("mean", "sd"))
    return (np.asarray(drawn) - mean) / np.where(sd > 0, sd, 1)


def true_drug_response(run: Profile, samples: pd.Index, drugs: pd.Index) -> pd.DataFrame | None:
    """The generator's noise-free response: samples × drugs; None where there is no truth."""
    if run.data.kind != "demo":
        return None
    return pd.read_csv(run.raw / "truth_drug_response.tsv", sep="\t", index_col=0).loc[samples, drugs]


def true_hazard(run: Profile, samples: pd.Index) -> pd.Series | None:
    """The generator's log hazard of patients, None where there is no truth."""
    if run.data.kind != "demo":
        return None
    return pd.read_csv(run.raw / "truth_survival.tsv", sep="\t", index_col=0).loc[samples, "log_hazard"]


def true_labels(run: Profile, samples: pd.Index) -> pd.DataFrame:
    """The generator's own labels of alignment samples: true_type, mislabelled, truly_aligns, culture_strength, …"""
    return ad.read_h5ad(run.raw / TRUTH, backed="r").obs.loc[samples]


def write(adata: ad.AnnData, path: Path) -> None:
    """Write an .h5ad through a temporary name, so that a killed run leaves no half file."""
    with replacing(path) as temporary:
        adata.write_h5ad(temporary)
