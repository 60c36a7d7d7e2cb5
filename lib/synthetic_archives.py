"""Writes a `lib.synthetic.Demo` as raw archives, in the public archives' own formats and under their own names:

treehouse/TumorCompendium_v10_PolyA_hugo_log2tpm_58581genes_2019-07-25.tsv   genes × samples, log2(TPM+1)
treehouse/clinical_TumorCompendium_v10_PolyA_2019-07-25.tsv                  th_sampleid, disease, ...
depmap/CCLE_expression_full.csv                                              lines × `SYMBOL (ENSG…)`, log2(TPM+1)
depmap/sample_info.csv                                                       DepMap_ID, lineage, disease, ...
celligner/Celligner_info.csv                                                 lineage, subtype, estimated purity
celligner/hgnc_complete_set_7.24.2018.txt                                    symbols, ids, previous symbols
gtex/GTEx_Analysis_2017-06-05_v8_RNASeQCv1.1.9_gene_tpm.gct.gz               TPM
gtex/GTEx_Analysis_v8_Annotations_SampleAttributesDS.txt                     SAMPID, SMTS, SMTSD
archs4/human_gene_v2.5.h5                                                    genes × samples, counts
tcga/tcga_RSEM_gene_tpm.gz, target/target_RSEM_gene_tpm.gz                   genes × samples, log2(TPM+0.001)
tcga/TCGA_phenotype_denseDataOnlyDownload.tsv.gz, target/TARGET_phenotype.gz sample, _primary_disease
gencode/gencode.v41.annotation.gtf.gz                                        exons
truth.h5ad, truth_archs4.tsv                                                 what was drawn (no archive has this)

Drug response, survival and organoids are written beside them by lib/synthetic_clinical.py.

Warts on purpose: versioned ids, second loci that share a symbol, previous symbols in DepMap's header, a few genes
missing from each archive, free text, single cells, unmappable samples, cell lines among ARCHS4's samples, missing
purities.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import h5py
import numpy as np
import pandas as pd

from lib import synthetic_vocabulary as vocabulary
from lib.files import replacing
from lib.synthetic_programmes import random
from lib.synthetic_vocabulary import CANCERS, GEO_CONDITIONS, GEO_PHRASES, TARGET_GROUPS, UNMAPPABLE_PHRASES

if TYPE_CHECKING:
    from lib.synthetic import Demo

TREEHOUSE = "treehouse/TumorCompendium_v10_PolyA_hugo_log2tpm_58581genes_2019-07-25.tsv"
TREEHOUSE_CLINICAL = "treehouse/clinical_TumorCompendium_v10_PolyA_2019-07-25.tsv"
DEPMAP = "depmap/CCLE_expression_full.csv"
DEPMAP_INFO = "depmap/sample_info.csv"
CELLIGNER_INFO = "celligner/Celligner_info.csv"
HGNC = "celligner/hgnc_complete_set_7.24.2018.txt"
GTEX = "gtex/GTEx_Analysis_2017-06-05_v8_RNASeQCv1.1.9_gene_tpm.gct.gz"
GTEX_ATTRIBUTES = "gtex/GTEx_Analysis_v8_Annotations_SampleAttributesDS.txt"
ARCHS4 = "archs4/human_gene_v2.5.h5"
TCGA = "tcga/tcga_RSEM_gene_tpm.gz"
TCGA_PHENOTYPE = "tcga/TCGA_phenotype_denseDataOnlyDownload.tsv.gz"
TARGET = "target/target_RSEM_gene_tpm.gz"
TARGET_PHENOTYPE = "target/TARGET_phenotype.gz"
GTF = "gencode/gencode.v41.annotation.gtf.gz"
TRUTH = "truth.h5ad"
TRUTH_ARCHS4 = "truth_archs4.tsv"

SECOND_LOCI = 8  # genes with a second locus of the same symbol
SECOND_SHARE = 0.1  # of a gene's transcripts that come from it
MISSING_GENES = 0.01  # of the invented genes, per archive
MISSING_PURITY = 0.03
# Shares of ARCHS4's samples; the published funnel has 0.32, 0.48 and 0.22, but unmappable ones only cost disk.
SINGLE_CELL, UNMAPPABLE, CELL_LINES = 0.32, 0.22, 0.2


def write_archives(demo: Demo, out: Path) -> None:
    """Write every archive of the list above under `out`; each file appears only when complete."""
    for folder in {Path(name).parent for name in (TREEHOUSE, DEPMAP, HGNC, GTEX, ARCHS4, TCGA, TARGET, GTF)}:
        (out / folder).mkdir(parents=True, exist_ok=True)
    _write_gene_tables(demo, out)
    _write_alignment(demo, out)
    _write_celligner_info(demo, out)
    _write_gtex(demo, out)
    _write_toil(demo, demo.tcga, out / TCGA, "TCGA")
    _write_toil(demo, demo.target, out / TARGET, "TARGET")
    _write_phenotypes(demo, out)
    _write_archs4(demo, out / ARCHS4)
    _write_truth(demo, out)


# --- files ---


@contextmanager
def text_file(path: Path):
    """Text to write to, gzipped if the name ends in .gz, without a time stamp: same content, same bytes."""
    with replacing(path) as temporary, open(temporary, "wb") as raw:
        if path.suffix == ".gz":
            with gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=1, mtime=0) as stream:
                yield _Encoded(stream)
        else:
            yield _Encoded(raw)


class _Encoded:
    def __init__(self, stream):
        self.stream = stream

    def write(self, text: str) -> None:
        self.stream.write(text.encode())


def _write_rows(stream, labels: list[str], values: np.ndarray, separator: str) -> None:
    """One line per row: label, then the values with 4 decimals."""
    row_format = separator + separator.join(["%.4f"] * values.shape[1]) + "\n"
    for label, row in zip(labels, values, strict=True):
        stream.write(label + row_format % tuple(row.tolist()))


def _write_table(table: pd.DataFrame, path: Path, separator: str = "\t") -> None:
    with text_file(path) as stream:
        stream.write(table.to_csv(sep=separator, index=False, lineterminator="\n"))


# --- genes of an archive ---


def _second_loci(demo: Demo) -> pd.Index:
    return demo.genes.index[demo.genes["invented"]][:SECOND_LOCI]


def _present(demo: Demo, archive: str) -> np.ndarray:
    """Indices of the genes that an archive holds: all but a few invented ones."""
    missing = random(demo.seed, f"genes of {archive}").random(len(demo.genes)) < MISSING_GENES
    return np.flatnonzero(~(missing & demo.genes["invented"].to_numpy()))


def _loci(demo: Demo, archive: str) -> pd.DataFrame:
    """Rows of an archive: symbol, Ensembl id, its gene (index into demo.genes), share of its transcripts."""
    present = _present(demo, archive)
    genes = demo.genes.iloc[present]
    rows = pd.DataFrame({"symbol": genes.index, "ensembl": genes["ensembl"].to_numpy(), "gene": present, "share": 1.0})
    rows["id"] = rows["ensembl"] + "." + genes["version"].astype(str).to_numpy()
    doubled = rows["symbol"].isin(_second_loci(demo))
    second = rows[doubled].assign(share=SECOND_SHARE)
    second["ensembl"] = second["ensembl"].str.replace("ENSG00990", "ENSG00991")
    second["id"] = second["ensembl"] + ".1"
    rows.loc[doubled, "share"] = 1 - SECOND_SHARE
    return pd.concat([rows, second], ignore_index=True)


def _write_gene_tables(demo: Demo, out: Path) -> None:
    genes = demo.genes
    table = pd.DataFrame(
        {"hgnc_id": genes["hgnc"], "symbol": genes.index, "name": [f"demo gene {s}" for s in genes.index]}
    )
    table["locus_group"], table["locus_type"] = "protein-coding gene", "gene with protein product"
    table["status"], table["location"], table["alias_symbol"], table["alias_name"] = (
        "Approved",
        "1p36",
        "",
        "",
    )
    table["prev_symbol"] = [vocabulary.PREVIOUS_SYMBOLS.get(s, "") for s in genes.index]
    table["entrez_id"], table["ensembl_gene_id"] = genes["entrez"].to_numpy(), genes["ensembl"].to_numpy()
    _write_table(table, out / HGNC)
    with text_file(out / GTF) as stream:
        stream.write("##description: invented annotation of the demo genes\n##provider: demo\n##format: gtf\n")
        for line in _gtf_lines(_loci(demo, "GENCODE"), genes["length"].to_numpy()):
            stream.write(line)


def _gtf_lines(loci: pd.DataFrame, lengths: np.ndarray) -> Iterator[str]:
    """Two overlapping transcripts per locus whose exons' union is the gene's length."""
    start = 1000
    for row in loci.itertuples():
        half, length = lengths[row.gene] // 2, lengths[row.gene]
        a, b = (start, start + half - 1), (start + half + 500, start + length + 499)
        within = (start + half // 2, start + half - 1)
        name = f'gene_id "{row.id}"; gene_type "protein_coding"; gene_name "{row.symbol}";'
        yield _gtf_line("gene", start, b[1], name)
        for transcript, exons in (("1", (a, b)), ("2", (within, b))):
            ids = f'{name} transcript_id "{row.id.replace("ENSG", "ENST")}-{transcript}";'
            yield _gtf_line("transcript", exons[0][0], b[1], ids)
            for exon in exons:
                yield _gtf_line("exon", *exon, ids)
        start = b[1] + 10000


def _gtf_line(feature: str, start: int, end: int, attributes: str) -> str:
    return f"chr1\tDEMO\t{feature}\t{start}\t{end}\t.\t+\t.\t{attributes}\n"


# --- alignment archives ---


def _write_alignment(demo: Demo, out: Path) -> None:
    tumours, lines = demo.measured_alignment()
    patients, present = demo.patients[demo.patients["in_treehouse"]], _present(demo, "Treehouse")
    with text_file(out / TREEHOUSE) as stream:
        stream.write("Gene\t" + "\t".join(patients.index) + "\n")
        _write_rows(stream, list(demo.genes.index[present]), np.log2(tumours[:, present].T + 1), "\t")
    _write_table(_clinical(demo, patients), out / TREEHOUSE_CLINICAL)
    present = _present(demo, "DepMap")
    genes = demo.genes.iloc[present]
    symbols = [vocabulary.PREVIOUS_SYMBOLS.get(s, s) for s in genes.index]
    with text_file(out / DEPMAP) as stream:
        stream.write("," + ",".join(f"{s} ({e})" for s, e in zip(symbols, genes["ensembl"], strict=True)) + "\n")
        _write_rows(stream, list(demo.lines.index), np.log2(lines[:, present] + 1), ",")
    _write_table(_sample_info(demo), out / DEPMAP_INFO, ",")


def _clinical(demo: Demo, patients: pd.DataFrame) -> pd.DataFrame:
    rng, of = random(demo.seed, "clinical"), {s.subtype: s for s in CANCERS}
    young = np.array([of[s].cohort != "TCGA" for s in patients["subtype"]])
    age = np.where(young, rng.uniform(0, 25, len(patients)), rng.normal(60, 12, len(patients)).clip(18, 90)).round(1)
    table = pd.DataFrame({"th_sampleid": patients.index, "age_at_dx": age})
    table["pedaya"] = np.where(age < 30, "Yes, age < 30 years", "No")
    table["gender"] = rng.choice(["male", "female"], len(patients))
    table["disease"] = [of[s].treehouse for s in patients["subtype"]]
    table["site_donor_id"] = [i.rsplit("-", 1)[0] for i in patients.index]
    table["site_sampleid"] = patients.index
    return table


def _sample_info(demo: Demo) -> pd.DataFrame:
    of, lines = {s.subtype: s for s in CANCERS}, demo.lines
    disease, lineage, subtype, molecular = zip(*(of[s].lineage for s in lines["subtype"]), strict=True)
    table = pd.DataFrame({"DepMap_ID": lines.index, "stripped_cell_line_name": lines["name"].to_numpy()})
    table["CCLE_Name"] = [f"{n}_{x.upper()}" for n, x in zip(lines["name"], lineage, strict=True)]
    table["alias"], table["COSMIC_ID"] = "", ""
    table["lineage"], table["lineage_subtype"], table["lineage_sub_subtype"] = lineage, subtype, ""
    table["lineage_molecular_subtype"] = molecular
    table["sex"], table["source"], table["primary_or_metastasis"] = "Unknown", "demo", "Primary"
    table["disease"], table["disease_subtype"], table["age"], table["additional_info"] = disease, "", "", ""
    return table


def _write_celligner_info(demo: Demo, out: Path) -> None:
    """Celligner's sample table: lineage, subtype and an estimated purity, which is what a user would have."""
    rng, of = random(demo.seed, "purity estimates"), {s.subtype: s for s in CANCERS}
    patients, lines = demo.patients[demo.patients["in_treehouse"]], demo.lines
    estimate = np.clip(patients["purity"] + rng.normal(0, demo.p.purity_error, len(patients)), 0.05, 1).round(3)
    estimate[rng.random(len(patients)) < MISSING_PURITY] = np.nan
    names = [f"{n}_{of[s].lineage[1].upper()}" for n, s in zip(lines["name"], lines["subtype"], strict=True)]
    table = pd.DataFrame(
        {"sampleID": [*patients.index, *lines.index], "sampleID_CCLE_Name": [""] * len(patients) + names}
    )
    subtypes = [*patients["subtype"], *lines["subtype"]]
    table["lineage"] = [of[s].lineage[1] for s in subtypes]
    table["subtype"] = [_celligner_subtype(s) for s in subtypes]
    table["purity"] = [*estimate, *[np.nan] * len(lines)]
    table["type"] = ["tumor"] * len(patients) + ["CL"] * len(lines)
    table["Primary/Metastasis"] = "Primary"
    _write_table(table, out / CELLIGNER_INFO, ",")


def _celligner_subtype(subtype: str) -> str:
    names = {
        "Luminal": "luminal A",
        "HER2-enriched": "HER2-enriched",
        "Basal": "basal",
        "LUAD": "lung adenocarcinoma",
    }
    names |= {"LUSC": "lung squamous cell carcinoma", "SCLC": "small cell lung cancer"}
    return names.get(subtype, next(s.treehouse for s in CANCERS if s.subtype == subtype))


# --- tissue archives ---


def _write_gtex(demo: Demo, out: Path) -> None:
    samples, loci = demo.gtex, _loci(demo, "GTEx")
    tpm = demo.measured_gtex()[:, loci["gene"]] * loci["share"].to_numpy(np.float32)
    with text_file(out / GTEX) as stream:
        stream.write(f"#1.2\n{len(loci)}\t{len(samples)}\nName\tDescription\t" + "\t".join(samples.index) + "\n")
        _write_rows(stream, [f"{i}\t{s}" for i, s in zip(loci["id"], loci["symbol"], strict=True)], tpm.T, "\t")
    table = samples.reset_index()[["SAMPID", "SMTS", "SMTSD"]]
    table.insert(1, "SMATSSCR", "")
    table["SMAFRZE"] = "RNASEQ"
    _write_table(table, out / GTEX_ATTRIBUTES)


def _write_toil(demo: Demo, patients: pd.DataFrame, path: Path, archive: str) -> None:
    """A matrix as the Toil recompute writes it: versioned Ensembl ids × samples, log2(TPM+0.001)."""
    loci = _loci(demo, archive)
    tpm = demo.measured_tumours(demo.patients.index.isin(patients.index), archive)
    tpm = tpm[:, loci["gene"]] * loci["share"].to_numpy(np.float32)
    with text_file(path) as stream:
        stream.write("sample\t" + "\t".join(patients.index) + "\n")
        _write_rows(stream, list(loci["id"]), np.log2(tpm.T + 0.001), "\t")


def _write_phenotypes(demo: Demo, out: Path) -> None:
    of = {s.subtype: s for s in CANCERS}
    tcga = pd.DataFrame({"sample": demo.tcga.index, "sample_type_id": 1, "sample_type": "Primary Tumor"})
    tcga["_primary_disease"] = [of[s].tcga for s in demo.tcga["subtype"]]
    _write_table(tcga, out / TCGA_PHENOTYPE)
    target = pd.DataFrame({"sample_id": demo.target.index, "sample_type": "Primary Tumor"})
    target["primary_disease_code"] = demo.target["code"].to_numpy()
    target["_primary_disease"] = [TARGET_GROUPS[g][2] for g in demo.target["group"]]
    _write_table(target, out / TARGET_PHENOTYPE)


# --- ARCHS4 ---


def describe_archs4(demo: Demo) -> pd.DataFrame:
    """ARCHS4's samples in file order: kind (tissue, line, unmappable, single cell), truth, study, free text."""
    rng = random(demo.seed, "archs4 samples")
    wanted = demo.tissue_totals - demo.gtex["tissue"].value_counts().reindex(demo.tissue_totals.index, fill_value=0)
    wanted -= demo.tcga["tissue"].value_counts().reindex(wanted.index, fill_value=0)
    clean = (wanted.clip(lower=3) / demo.size.archs4_subset).round().astype(int)
    bulk = clean.sum() / ((1 - UNMAPPABLE) * (1 - CELL_LINES))
    samples = pd.concat(
        [
            _with_studies(rng, np.repeat(clean.index, clean), "tissue"),
            _line_samples(demo, rng, round(bulk * (1 - UNMAPPABLE) * CELL_LINES)),
            _with_studies(rng, _any_tissue(rng, clean, round(bulk * UNMAPPABLE)), "unmappable"),
            _with_studies(rng, _any_tissue(rng, clean, round(bulk * SINGLE_CELL / (1 - SINGLE_CELL))), "single cell"),
        ],
        ignore_index=True,
    )
    samples["study"] = "GSE" + (990000 + samples.groupby(["kind", "study"]).ngroup()).astype(str)
    samples = samples.iloc[rng.permutation(len(samples))].reset_index(drop=True)
    samples.insert(0, "geo_accession", [f"GSM{99000000 + i}" for i in range(1, len(samples) + 1)])
    single = samples["kind"] == "single cell"
    probability = np.where(single, rng.beta(8, 1.5, len(samples)) * 0.5 + 0.5, rng.beta(1, 8, len(samples)) * 0.5)
    samples["single_cell_probability"] = probability.astype(np.float32).clip(0, 0.999)
    return samples.join(_free_text(demo, rng, samples))


def _any_tissue(rng: np.random.Generator, counts: pd.Series, n: int) -> np.ndarray:
    return np.sort(rng.choice(counts.index.to_numpy(), n, p=counts / counts.sum()))


def _with_studies(rng: np.random.Generator, tissues: np.ndarray, kind: str, mean_size: int = 15) -> pd.DataFrame:
    """Samples in studies of one tissue each, of unequal size; a tissue has at least three if it has the samples."""
    table = pd.DataFrame({"kind": kind, "true_tissue": tissues, "line": -1, "study": ""})
    for tissue, rows in table.groupby("true_tissue").groups.items():
        n = max(3, round(len(rows) / mean_size))
        study = rng.choice(n, len(rows), p=rng.dirichlet(np.ones(n)))
        study[:n] = np.arange(n)[: len(rows)]
        table.loc[rows, "study"] = [f"{tissue} {i}" for i in study]
    return table


def _line_samples(demo: Demo, rng: np.random.Generator, n: int) -> pd.DataFrame:
    """Samples of cell lines, most of them of the few that every laboratory has."""
    famous = demo.lines["name"].isin([x for names in vocabulary.KNOWN_LINES.values() for x in names]).to_numpy()
    weight = np.where(famous, 8.0, 1.0)
    line = np.sort(rng.choice(len(demo.lines), n, p=weight / weight.sum()))
    of = {s.subtype: s for s in CANCERS}
    tissues = np.array([of[s].origin[0] for s in demo.lines["subtype"]])[line]
    return pd.DataFrame({"kind": "line", "true_tissue": tissues, "line": line, "study": (line // 3).astype(str)})


def _free_text(demo: Demo, rng: np.random.Generator, samples: pd.DataFrame) -> pd.DataFrame:
    """title, source_name_ch1, characteristics_ch1 as submitters write them: one way within a study."""
    style = samples["study"].str[3:].astype(int).to_numpy() % 4
    condition, number = rng.choice(GEO_CONDITIONS, len(samples)), rng.integers(1, 60, len(samples))
    pick = rng.random(len(samples))
    rows = []
    for i, row in enumerate(samples.itertuples()):
        extra = f"Sex: {'male' if number[i] % 2 else 'female'},age: {20 + number[i]}"
        if row.kind == "line":
            rows.append(_line_text(demo.lines["name"].iloc[row.line], row.true_tissue, condition[i], number[i]))
            continue
        phrases = UNMAPPABLE_PHRASES if row.kind == "unmappable" else GEO_PHRASES[row.true_tissue]
        phrase = phrases[int(pick[i] * len(phrases))]
        title = f"{condition[i]}_{number[i]}" if row.kind != "single cell" else f"cell_{number[i]}_{condition[i]}"
        rows.append(
            {
                0: (f"{phrase}, {title}", phrase, f"tissue: {phrase},{extra}"),
                1: (title, phrase, extra),
                2: (title, "total RNA", f"tissue: {phrase},{extra}"),
                3: (f"{phrase} {title}", phrase, f"disease state: {condition[i]},{extra}"),
            }[style[i]]
        )
    return pd.DataFrame(rows, columns=["title", "source_name_ch1", "characteristics_ch1"])


def _line_text(name: str, tissue: str, condition: str, number: int) -> tuple[str, str, str]:
    spelled = f"{name[:3]}-{name[3:]}" if number % 4 == 0 and len(name) > 4 else name
    return f"{spelled}_{condition}_{number}", f"{spelled} cells", f"cell line: {spelled},tissue: {tissue}"


def _write_archs4(demo: Demo, path: Path) -> None:
    samples, loci = demo.archs4, _loci(demo, "ARCHS4")
    with replacing(path) as temporary, h5py.File(temporary, "w", libver="earliest") as file:
        gene, sample = file.create_group("meta/genes"), file.create_group("meta/samples")
        gene["symbol"] = loci["symbol"].to_numpy("S")
        gene["ensembl_gene"] = loci["ensembl"].to_numpy("S")
        gene["biotype"] = np.full(len(loci), b"protein_coding")
        for name in ("geo_accession", "title", "source_name_ch1", "characteristics_ch1"):
            sample[name] = np.array([t.encode() for t in samples[name]])
        sample["series_id"] = samples["study"].to_numpy("S")
        sample["singlecellprobability"] = samples["single_cell_probability"].to_numpy()
        sample["library_source"] = np.full(len(samples), b"transcriptomic")
        sample["organism_ch1"] = np.full(len(samples), b"Homo sapiens")
        file["meta/info/version"] = b"2.5"
        shape = (len(loci), len(samples))
        expression = file.create_dataset(
            "data/expression", shape, "uint32", chunks=(shape[0], min(64, shape[1])), compression="gzip",
            compression_opts=1, shuffle=True,
        )  # fmt: skip
        for rows, counts in demo.archs4_counts():
            values = np.rint(counts[:, loci["gene"]] * loci["share"].to_numpy(np.float32))
            expression[:, rows] = values.T.astype("uint32")


# --- truth ---


def _write_truth(demo: Demo, out: Path) -> None:
    """truth.h5ad: X = noise-free profile, layer `programme` = pure tumour or un-adapted line, log2(TPM+1)."""
    kept = demo.patients["in_treehouse"].to_numpy()
    patients, lines = demo.patients[kept], demo.lines
    obs = pd.concat([_truth_of_patients(patients, demo), _truth_of_lines(lines)])
    data = ad.AnnData(
        np.log2(np.vstack([demo.tumour_profile[kept], demo.line_profile]) + 1).astype(np.float32),
        obs,
        demo.genes.drop(columns="invented"),
        layers={
            "programme": np.log2(np.vstack([demo.tumour_programme[kept], demo.line_programme]) + 1).astype(np.float32)
        },
    )
    data.var["culture"] = demo.programmes.culture
    for source in ("TCGA", "TARGET", "THR", "DepMap"):
        sd = np.hypot(demo.p.source_offset_sd, demo.p.kind_offset_sd if source == "DepMap" else 0)
        data.var[f"slope_{source}"], data.var[f"offset_{source}"] = demo.programmes.source(source, sd)
    data.uns = {"layout": "X: noise-free profile; layers/programme: before infiltrate and culture; log2(TPM+1)"}
    with replacing(out / TRUTH) as temporary:
        data.write_h5ad(temporary)
    columns = ["geo_accession", "kind", "true_tissue", "study", "line"]
    truth = demo.archs4[columns].copy()
    truth["line"] = [lines["name"].iloc[i] if i >= 0 else "" for i in truth["line"]]
    _write_table(truth, out / TRUTH_ARCHS4)


def _truth_of_patients(patients: pd.DataFrame, demo: Demo) -> pd.DataFrame:
    strength = {s.subtype: s.culture for s in CANCERS}
    aligns = [strength[s] < demo.p.aligns_below for s in patients["subtype"]]
    return pd.DataFrame(
        {
            "sample_type": "tumour", "cancer_type": patients["cancer_type"], "true_type": patients["cancer_type"],
            "subtype": patients["subtype"], "true_subtype": patients["subtype"], "purity": patients["purity"],
            "culture_strength": 0.0, "strayed": 0.0, "mislabelled": False, "truly_aligns": aligns,
            "source": patients["cohort"],
        }
    )  # fmt: skip


def _truth_of_lines(lines: pd.DataFrame) -> pd.DataFrame:
    columns = [
        "cancer_type",
        "true_type",
        "subtype",
        "true_subtype",
        "culture_strength",
        "strayed",
        "mislabelled",
        "truly_aligns",
    ]
    return lines[columns].assign(sample_type="cell line", purity=1.0, source="DepMap")
