"""What the demo's cancers answer to drugs, how long its patients live, and organoids: archives beside the others.

prism/primary-screen-replicate-collapsed-logfold-change.csv   lines × `DRUG::dose::screen`, log2 fold change
tcga/Survival_SupplementalTable_S1_20171025_xena_sp           sample, _PATIENT, OS, OS.time (days)
organoids/organoid_expression.csv, organoid_info.csv          as DepMap's files; a sample type of their own
truth_drugs.tsv, truth_drug_response.tsv                      drug, driver, genes; noise-free response by sample
truth_survival.tsv                                            log hazard and its parts (no archive has these three)

Cells answer to a drug by what they express: a line as it is in culture, a tumour by its pure programme. The hazard
follows the pure programme, too, beside type and purity, so that infiltrate and culture are a nuisance in both.
Every stream of random numbers is its own: the other archives are the same bytes with and without these.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lib import synthetic_vocabulary as vocabulary
from lib.synthetic_archives import text_file
from lib.synthetic_programmes import random, saturated
from lib.synthetic_vocabulary import CANCERS

if TYPE_CHECKING:
    from lib.synthetic import Demo

DRUG_RESPONSE = "prism/primary-screen-replicate-collapsed-logfold-change.csv"
SURVIVAL = "tcga/Survival_SupplementalTable_S1_20171025_xena_sp"
ORGANOIDS = "organoids/organoid_expression.csv"
ORGANOID_INFO = "organoids/organoid_info.csv"
TRUTH_DRUGS = "truth_drugs.tsv"
TRUTH_DRUG_RESPONSE = "truth_drug_response.tsv"
TRUTH_SURVIVAL = "truth_survival.tsv"

DRIVERS = {"few genes": 14, "subtype markers": 10, "proliferation": 6, "none": 10}  # drugs of each kind
GENES_PER_DRUG = 8  # of a drug driven by a few genes
STRONGEST_ANSWER = 3.0  # standard deviations of the lines at which the effect of a drug levels off
EXPLAINED = (0.4, 0.8)  # share of the variance between lines that a drug's genes explain; the rest is noise
UNSCREENED_LINES, MISSING_VALUES = 0.08, 0.05
HAZARD = {"programme": 0.8, "type": 0.5, "purity": -0.25}  # log hazard per standard deviation
HAZARD_GENES = 20
WEIBULL_SHAPE, MEDIAN_DAYS = 1.2, 1500.0
FOLLOW_UP_DAYS = (300, 4000)
MISSING_SURVIVAL = 0.02
ORGANOID_TYPES = ["Bowel", "Breast", "Esophagus", "Liver", "Lung", "Ovary", "Pancreas", "Prostate", "Stomach"]
ORGANOIDS_PER_LINE = 1 / 6
ORGANOID_CULTURE, ORGANOID_DRIFT = 0.35, 0.3  # of what lines undergo


def write_clinical(demo: Demo, out: Path) -> None:
    """Write the files of the list above under `out`, as `lib.synthetic_archives.write_archives` does the others."""
    drugs, response = drug_truth(demo)
    _write(measured_response(demo, drugs, response), out / DRUG_RESPONSE, index_label="")
    _write(drugs.drop(columns="noise"), out / TRUTH_DRUGS)
    _write(response, out / TRUTH_DRUG_RESPONSE, index_label="sample")
    hazard = hazard_truth(demo)
    _write(survival(demo, hazard), out / SURVIVAL)
    _write(hazard, out / TRUTH_SURVIVAL)
    organoids = draw_organoids(demo)
    genes = [f"{s} ({e})" for s, e in demo.genes["ensembl"].items()]
    expression = pd.DataFrame(np.log2(measured_organoids(demo, organoids) + 1), organoids.index, genes)
    _write(expression, out / ORGANOIDS, index_label="")
    _write(_organoid_info(organoids), out / ORGANOID_INFO)


def _write(table: pd.DataFrame, path: Path, index_label: str | None = None) -> None:
    separator = "," if path.suffix == ".csv" else "\t"
    with text_file(path) as stream:
        stream.write(table.to_csv(sep=separator, index_label=index_label, float_format="%.4f", lineterminator="\n"))


# --- drugs ---


def _relative(demo: Demo, linear: np.ndarray) -> np.ndarray:
    """log2(TPM+1) in standard deviations of the pure tumours: what a drug, or a patient's fate, goes by."""
    tumours = np.log2(demo.tumour_programme + 1)
    sd = tumours.std(axis=0)
    return ((np.log2(linear + 1) - tumours.mean(axis=0)) / np.where(sd > 0, sd, 1)).clip(-4, 4)


def _variable_genes(demo: Demo) -> np.ndarray:
    """Symbols of the genes that pure tumours express and in which they differ."""
    tumours = np.log2(demo.tumour_programme + 1)
    return demo.genes.index[(tumours.mean(axis=0) > 1) & (tumours.std(axis=0) > 0.5)].to_numpy()


def _draw_drugs(demo: Demo) -> pd.DataFrame:
    """Drugs by name: driver, genes (space-separated, the sign of the weight in front), level, effect, noise."""
    rng, rows = random(demo.seed, "drugs"), []
    subtypes = sorted(vocabulary.SUBTYPE_MARKERS)
    subtypes = [subtypes[i] for i in rng.permutation(len(subtypes))]
    for driver, n in DRIVERS.items():
        for _ in range(n):
            if driver == "few genes":
                symbols = rng.choice(_variable_genes(demo), GENES_PER_DRUG, replace=False)
                genes = [f"{'+-'[rng.integers(2)]}{symbol}" for symbol in symbols]
            else:
                named = {"subtype markers": vocabulary.SUBTYPE_MARKERS[subtypes[len(rows) % len(subtypes)]]}
                named |= {"proliferation": vocabulary.PROLIFERATION, "none": []}
                genes = [f"+{symbol}" for symbol in named[driver]]
            size, share = rng.uniform(0.4, 0.9), rng.uniform(*EXPLAINED) if genes else 0.0
            row = {"driver": driver, "genes": " ".join(genes), "level": rng.uniform(-1, 0.1)}
            rows.append(row | {"effect": size * np.sqrt(share), "noise": size * np.sqrt(1 - share)})
    names = [f"DEMO-D{i:03d}" for i in range(1, len(rows) + 1)]
    return pd.DataFrame(rows, index=pd.Index(names, name="drug"))


def drug_truth(demo: Demo) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The drugs, and the noise-free log2 fold change of Treehouse's tumours and of the lines: samples × drugs."""
    drugs, kept = _draw_drugs(demo), demo.patients["in_treehouse"].to_numpy()
    lines, tumours = _relative(demo, demo.line_profile), _relative(demo, demo.tumour_programme[kept])
    response = {}
    for drug, row in drugs.iterrows():
        genes = row["genes"].split()
        weights = np.zeros(len(demo.genes), np.float32)
        weights[demo.genes.index.get_indexer([g[1:] for g in genes])] = [1 if g[0] == "+" else -1 for g in genes]
        signal = np.concatenate([tumours @ weights, lines @ weights])
        of_lines = signal[len(tumours) :]
        signal = saturated((signal - of_lines.mean()) / (of_lines.std() or 1), STRONGEST_ANSWER)
        response[drug] = row["level"] - row["effect"] * signal
    samples = demo.patients.index[kept].append(demo.lines.index)
    return drugs, pd.DataFrame(response, index=samples)


def measured_response(demo: Demo, drugs: pd.DataFrame, response: pd.DataFrame) -> pd.DataFrame:
    """What the screen reports: noise on top, some lines not screened, some values missing."""
    rng, lines = random(demo.seed, "drug screen"), demo.lines.index
    noise = rng.standard_normal((len(lines), len(drugs))) * drugs["noise"].to_numpy()
    measured = response.loc[lines] + noise
    measured = measured.mask(rng.random(measured.shape) < MISSING_VALUES)
    measured.columns = [f"{drug}::2.5::DEMO" for drug in measured.columns]
    return measured[rng.random(len(lines)) >= UNSCREENED_LINES]


# --- survival ---


def hazard_truth(demo: Demo) -> pd.DataFrame:
    """Log hazard of the TCGA tumours, and its parts by programme (within subtypes), cancer type and purity."""
    rng, patients = random(demo.seed, "hazard"), demo.patients
    kept = (patients["in_treehouse"] & (patients["cohort"] == "TCGA")).to_numpy()
    patients, relative = patients[kept], _relative(demo, demo.tumour_programme[kept])
    genes = demo.genes.index.get_indexer(rng.choice(_variable_genes(demo), HAZARD_GENES, replace=False))
    growth = relative[:, demo.genes.index.get_indexer(vocabulary.PROLIFERATION)].mean(axis=1)
    score = pd.Series(_scaled(relative[:, genes] @ rng.choice([-1, 1], HAZARD_GENES)) + _scaled(growth), patients.index)
    types = sorted(patients["cancer_type"].unique())
    of_type = dict(zip(types, rng.standard_normal(len(types)), strict=True))
    parts = pd.DataFrame(
        {
            "programme": _scaled(score - score.groupby(patients["subtype"]).transform("mean")),
            "type": patients["cancer_type"].map(of_type),
            "purity": _scaled(patients["purity"]),
        },
        patients.index,
    )
    parts = parts.mul(pd.Series(HAZARD))
    return parts.assign(log_hazard=parts.sum(axis=1)).rename_axis("sample")


def _scaled(values):
    return (values - values.mean()) / values.std()


def survival(demo: Demo, hazard: pd.DataFrame) -> pd.DataFrame:
    """Overall survival as Xena's table gives it: OS (1: died), OS.time in days; some patients lost."""
    rng, n = random(demo.seed, "survival"), len(hazard)
    scale = MEDIAN_DAYS / np.log(2) ** (1 / WEIBULL_SHAPE)
    died = scale * (rng.exponential(size=n) / np.exp(hazard["log_hazard"])) ** (1 / WEIBULL_SHAPE)
    left = rng.uniform(*FOLLOW_UP_DAYS, n)
    table = pd.DataFrame({"_PATIENT": hazard.index.str.rsplit("-", n=1).str[0]}, hazard.index)
    lost = rng.random(n) < MISSING_SURVIVAL
    table["OS"] = np.where(lost, np.nan, died <= left)
    table["OS.time"] = np.where(lost, np.nan, np.minimum(died, left).clip(lower=1).round())
    return table.astype({"OS": "Int64", "OS.time": "Int64"})


# --- organoids ---


def draw_organoids(demo: Demo) -> pd.DataFrame:
    """Organoids by id: subtype, cancer type, strength of their culture; only of carcinomas that grow as such."""
    rng = random(demo.seed, "organoids")
    grown = [s for s in CANCERS if s.cancer_type in ORGANOID_TYPES and s.tumours > 0]
    weights = np.array([s.tumours for s in grown], float)
    more = max(0, round(demo.size.cell_lines * ORGANOIDS_PER_LINE) - len(grown))
    chosen = np.append(np.arange(len(grown)), rng.choice(len(grown), more, p=weights / weights.sum()))
    rows = [grown[i] for i in np.sort(chosen)]
    table = pd.DataFrame({"subtype": [s.subtype for s in rows], "cancer_type": [s.cancer_type for s in rows]})
    strength = ORGANOID_CULTURE * np.array([s.culture for s in rows])
    table["culture_strength"] = strength * np.exp(rng.normal(0, 0.15, len(rows)))
    return table.set_index(pd.Index([f"ORG-9{i:05d}" for i in range(1, len(rows) + 1)], name="DepMap_ID"))


def measured_organoids(demo: Demo, organoids: pd.DataFrame) -> np.ndarray:
    """TPM of organoids: no infiltrate, a weak culture programme, little drift, a source effect of their own."""
    rng, programmes, p = random(demo.seed, "organoid programmes"), demo.programmes, demo.p
    strength = organoids["culture_strength"].to_numpy(np.float32)[:, None]
    log2 = np.array([programmes.cancer[s] for s in organoids["subtype"]], np.float32)
    log2 += programmes.individuals(rng, len(log2), p.tumour_heterogeneity)
    own = np.array([programmes.culture_of_type[t] for t in organoids["cancer_type"]])
    lost = 1 - np.exp(-p.dedifferentiation * strength)
    adapted = lost * (programmes.average_cancer - log2) + strength * (programmes.culture + own)
    drift = programmes.individuals(rng, len(log2), ORGANOID_DRIFT * p.drift)
    profile = programmes.express(log2 + saturated(adapted + drift, p.largest_change))
    effect = programmes.source("organoids", p.source_offset_sd)
    return demo.tpm(demo.counts(profile, effect, random(demo.seed, "organoids measured")))


def _organoid_info(organoids: pd.DataFrame) -> pd.DataFrame:
    of = {s.subtype: s.lineage for s in CANCERS}
    table = pd.DataFrame({"stripped_cell_line_name": [f"DEMO{i[-4:]}" for i in organoids.index]}, organoids.index)
    table["lineage"] = [of[s][1] for s in organoids["subtype"]]
    table["lineage_subtype"] = [of[s][2] for s in organoids["subtype"]]
    table["lineage_molecular_subtype"] = [of[s][3] for s in organoids["subtype"]]
    return table
