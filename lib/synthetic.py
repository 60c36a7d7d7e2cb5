"""The demo's ground truth and what each archive measures of it.

`generate(out_dir, size, seed)` draws tumours, cell lines and tissue samples, measures them as each public archive
would, and writes raw archives in the native formats (lib/synthetic_archives.py and lib/synthetic_clinical.py list the
files) with the truth beside them in truth.h5ad. What they are drawn from, and every number that shapes it, is in
lib/synthetic_programmes.py.

Profiles are linear (TPM), samples × genes, float32. All Ensembl, Entrez and HGNC ids are invented, also those of
real symbols: no real measurement is in here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from lib import synthetic_vocabulary as vocabulary
from lib.synthetic_archives import describe_archs4, write_archives
from lib.synthetic_clinical import write_clinical
from lib.synthetic_gene_sets import write_gene_sets
from lib.synthetic_programmes import (
    BRANCH_OF,
    SUBTYPES,
    Parameters,
    Programmes,
    draw_genes,
    laplace,
    random,
    saturated,
    total_to_million,
)  # fmt: skip
from lib.synthetic_vocabulary import CANCERS, TARGET_GROUPS


@dataclass(frozen=True)
class DemoSize:
    """How much to draw; `tissue_samples`: labelled ones, not of cell lines, after ARCHS4's random subset."""

    genes: int = 2400
    tumours: int = 1320
    cell_lines: int = 330
    tissue_samples: int = 6200
    tissue_floor: int = 12  # added to every tissue, so that the rarest can be split
    gtex_samples: int = 600
    archs4_subset: float = 411_318 / 605_614  # share of its bulk samples that the profile's random subset keeps
    target: float = 1.0  # share of TARGET's 734 samples


SIZES = {
    "demo": DemoSize(),
    "smoke": DemoSize(800, 330, 90, 950, 6, 130, 1.0, 0.2),
}


# --- samples ---


def mix(tumour, stroma, immune, purity, immune_share, interferon, matrix) -> np.ndarray:
    """Linear mixture of the three compartments, with cross-talk that vanishes at purity 1.

    tumour, stroma, immune: n × genes, linear, each summing to a million; purity, immune_share: n; interferon,
    matrix: log2 response of tumour cells to immune cells and of stroma to tumour cells. Returns n × genes,
    summing to a million.
    """
    purity, immune_share = purity[:, None], immune_share[:, None]
    answering = tumour * np.exp2((1 - purity) * immune_share * interferon)
    activated = stroma * np.exp2(purity * (1 - purity) * matrix)
    infiltrate = immune_share * immune + (1 - immune_share) * activated
    return total_to_million(purity * answering + (1 - purity) * infiltrate)


def _beta(rng: np.random.Generator, mean: np.ndarray | float, concentration: float, n: int) -> np.ndarray:
    return rng.beta(np.multiply(mean, concentration), np.subtract(1, mean) * concentration, n).astype(np.float32)


def _apportion(weights: list[float], total: int) -> np.ndarray:
    """Whole numbers proportional to `weights` (at least 1 where one is positive) that sum to about `total`."""
    weights = np.asarray(weights, float)
    return np.where(weights > 0, np.maximum(1, np.round(weights / weights.sum() * total)), 0).astype(int)


def draw_patients(size: DemoSize, seed: int, p: Parameters) -> pd.DataFrame:
    """All tumours of Treehouse, TCGA and TARGET by sample id; a patient has the same id in every archive."""
    counts = _apportion([s.tumours for s in CANCERS], size.tumours)
    rows = []
    for s, n in zip(CANCERS, counts, strict=True):
        code = next((g[3] for g in TARGET_GROUPS.values() if g[1] == s.subtype), "40")
        rows += [(s.subtype, s.cohort, code, True) for _ in range(n)]
    for n, subtype, _, code in TARGET_GROUPS.values():
        have = sum(r[0] == subtype and r[1] == "TARGET" and r[2] == code for r in rows)
        wanted = max(3, round(n * size.target))
        rows += [(subtype, "TARGET", code, False) for _ in range(max(0, wanted - have))]
    patients = pd.DataFrame(rows, columns=["subtype", "cohort", "code", "in_treehouse"])
    patients["cancer_type"] = patients["subtype"].map({s.subtype: s.cancer_type for s in SUBTYPES})
    number = np.arange(1, len(patients) + 1)
    ids = {
        "TCGA": [f"TCGA-D{i % 10}-{i:04d}-01" for i in number],
        "TARGET": [f"TARGET-{c}-D{i:05d}-01" for c, i in zip(patients["code"], number, strict=True)],
        "THR": [f"THR99_{i:04d}_S01" for i in number],
    }
    patients.index = pd.Index([ids[c][i] for i, c in enumerate(patients["cohort"])], name="sample")
    patients["group"] = _target_group(patients, size)
    rng = random(seed, "patients")
    purity = patients["subtype"].map({s.subtype: s.purity for s in SUBTYPES}).to_numpy()
    patients["purity"] = np.clip(_beta(rng, purity, p.purity_concentration, len(patients)), 0.1, 0.99)
    patients["immune_share"] = _beta(rng, 0.45, p.infiltrate_concentration, len(patients))
    return patients


def _target_group(patients: pd.DataFrame, size: DemoSize) -> pd.Series:
    """TARGET group of the samples in the TARGET archive ("" for others), with exactly the published counts."""
    group = pd.Series("", patients.index)
    for name, (n, _, _, code) in TARGET_GROUPS.items():
        members = patients.index[(patients["cohort"] == "TARGET") & (patients["code"] == code)]
        group[members[: max(3, round(n * size.target))]] = name
    return group


class Demo:
    """All that is drawn for one size and seed: the truth as attributes, what archives measure as methods."""

    def __init__(self, size: DemoSize, seed: int, p: Parameters | None = None):
        self.size, self.seed, self.p = size, seed, p or Parameters()
        self.genes = draw_genes(size.genes, seed, self.p)
        self.programmes = Programmes(self.genes, seed, self.p)
        self.patients = draw_patients(size, seed, self.p)
        self.lines = self._draw_lines()

    # tumours and lines

    @cached_property
    def tumour_programme(self) -> np.ndarray:
        """Each patient's own pure tumour programme, linear, summing to a million."""
        rng = random(self.seed, "tumour programmes")
        log2 = np.array([self.programmes.cancer[s] for s in self.patients["subtype"]], np.float32)
        log2 += self.programmes.individuals(rng, len(log2), self.p.tumour_heterogeneity)
        return self.programmes.express(log2)

    @cached_property
    def tumour_profile(self) -> np.ndarray:
        """What a noise-free measurement of each tumour sample would give: its programme in its infiltrate."""
        rng, programmes = random(self.seed, "tumour infiltrates"), self.programmes
        n = len(self.patients)
        stroma = programmes.express(programmes.stroma + programmes.individuals(rng, n))
        immune = programmes.express(programmes.immune + programmes.individuals(rng, n))
        interferon = programmes.vector({tuple(vocabulary.INTERFERON): 2 * self.p.crosstalk})
        matrix = programmes.vector({tuple(vocabulary.STROMA): 4 * self.p.crosstalk})
        purity, immune_share = (self.patients[c].to_numpy(np.float32) for c in ("purity", "immune_share"))
        return mix(self.tumour_programme, stroma, immune, purity, immune_share, interferon, matrix)

    def _draw_lines(self) -> pd.DataFrame:
        counts = _apportion([s.lines for s in CANCERS], self.size.cell_lines)
        rng = random(self.seed, "lines")
        rows = [s for s, n in zip(CANCERS, counts, strict=True) for _ in range(n)]
        lines = pd.DataFrame({"subtype": [s.subtype for s in rows], "cancer_type": [s.cancer_type for s in rows]})
        lines["true_subtype"] = lines["subtype"]
        wrong = rng.random(len(lines)) < self.p.mislabelled
        for i in np.flatnonzero(wrong):
            others = lines.loc[lines["cancer_type"] != lines.at[i, "cancer_type"], "subtype"]
            lines.at[i, "true_subtype"] = rng.choice(others.to_numpy())
        of = {s.subtype: s for s in SUBTYPES}
        lines["true_type"] = [of[s].cancer_type for s in lines["true_subtype"]]
        lines["mislabelled"] = lines["true_type"] != lines["cancer_type"]
        strength = np.array([of[s].culture for s in lines["true_subtype"]])
        lines["culture_strength"] = (strength * np.exp(rng.normal(0, 0.15, len(lines)))).round(4)
        lines["strayed"] = rng.beta(*self.p.strayed, len(lines)).round(4)
        lines["strayed_to"] = rng.choice([s.subtype for s in CANCERS], len(lines))
        aligns = (strength < self.p.aligns_below) & (lines["strayed"] < 0.5)
        lines["truly_aligns"] = aligns & ~lines["mislabelled"]
        lines["name"] = self._line_names(lines)
        lines.index = pd.Index([f"ACH-9{i:05d}" for i in range(1, len(lines) + 1)], name="DepMap_ID")
        return lines

    @staticmethod
    def _line_names(lines: pd.DataFrame) -> list[str]:
        known = {subtype: list(names) for subtype, names in vocabulary.KNOWN_LINES.items()}
        return [
            known[s].pop(0) if known.get(s) else f"DM{t[:2].upper()}{i:03d}"
            for i, (s, t) in enumerate(zip(lines["subtype"], lines["cancer_type"], strict=True), 1)
        ]

    @cached_property
    def line_programme(self) -> np.ndarray:
        """Each line's un-adapted self: the programme it was derived with, linear, summing to a million."""
        rng = random(self.seed, "line programmes")
        log2 = np.array([self.programmes.cancer[s] for s in self.lines["true_subtype"]], np.float32)
        log2 += self.programmes.individuals(rng, len(log2), self.p.tumour_heterogeneity)
        return self.programmes.express(log2)

    @cached_property
    def line_profile(self) -> np.ndarray:
        """What a noise-free measurement of each line would give: its programme after its time in culture."""
        programmes, strength = self.programmes, self.lines["culture_strength"].to_numpy(np.float32)[:, None]
        log2 = np.log2(self.line_programme + 1e-3)
        lost = 1 - np.exp(-self.p.dedifferentiation * strength)
        own = np.array([programmes.culture_of_type[t] for t in self.lines["true_type"]])
        strayed = self.lines["strayed"].to_numpy(np.float32)[:, None]
        elsewhere = np.array([programmes.cancer[s] for s in self.lines["strayed_to"]], np.float32)
        log2 += saturated(strayed * (elsewhere - log2), self.p.largest_change)
        adapted = lost * (programmes.average_cancer - log2) + strength * (programmes.culture + own)
        drift = programmes.individuals(random(self.seed, "line drift"), len(log2), self.p.drift)
        log2 += saturated(adapted + drift + self._culture_conditions(), self.p.largest_change)
        return self.programmes.express(log2)

    def _culture_conditions(self) -> np.ndarray:
        """Log2 differences between lines on a few directions that only culture has (medium, density, passage)."""
        rng, directions = random(self.seed, "culture conditions"), self.programmes.culture_directions
        return rng.standard_normal((len(self.lines), len(directions)), dtype=np.float32) @ directions

    # tissues

    @cached_property
    def tissue_totals(self) -> pd.Series:
        """Labelled samples per tissue, all sources together, with the published imbalance."""
        size, published = self.size, pd.Series(vocabulary.PUBLISHED_TEST_COUNTS, dtype=float)
        share = published / published.sum()
        base = size.tissue_samples - size.tissue_floor * len(share)
        return (share * base).round().astype(int) + size.tissue_floor

    @cached_property
    def gtex(self) -> pd.DataFrame:
        """GTEx samples: tissue, SMTS, SMTSD, donor."""
        rng, rows = random(self.seed, "gtex samples"), []
        sites = [(t, *site) for t, all_sites in vocabulary.GTEX_SITES.items() for site in all_sites]
        counts = _apportion([s[3] for s in sites], self.size.gtex_samples)
        for (tissue, smts, smtsd, _), n in zip(sites, counts, strict=True):
            share = len(vocabulary.GTEX_SITES[tissue])
            n = min(n, max(1, self.tissue_totals[tissue] // share - 1))
            rows += [(tissue, smts, smtsd)] * n
        samples = pd.DataFrame(rows, columns=["tissue", "SMTS", "SMTSD"])
        donors = rng.integers(0, max(2, len(samples) // 8), len(samples))
        samples["donor"] = [f"GTEX-D{d:04d}" for d in donors]
        ids = [f"{d}-{i:04d}-SM-D{i:04d}" for i, d in enumerate(samples["donor"], 1)]
        return samples.set_index(pd.Index(ids, name="SAMPID"))

    @cached_property
    def tcga(self) -> pd.DataFrame:
        """The patients that the TCGA archive holds: at most half of what their tissue may have."""
        patients = self.patients[self.patients["cohort"] == "TCGA"].copy()
        patients["tissue"] = patients["subtype"].map(
            {s.subtype: TCGA_TISSUE.get(s.subtype, s.origin[0]) for s in CANCERS}
        )
        rank = patients.groupby("tissue").cumcount()
        return patients[rank < patients["tissue"].map(self.tissue_totals) // 2]

    @cached_property
    def target(self) -> pd.DataFrame:
        """The patients that the TARGET archive holds."""
        return self.patients[self.patients["group"] != ""]

    # measurements

    def measured_alignment(self) -> tuple[np.ndarray, np.ndarray]:
        """TPM of Treehouse's tumours (patients with in_treehouse) and of DepMap's lines."""
        kept = self.patients["in_treehouse"].to_numpy()
        return self.measured_tumours(kept, "Treehouse"), self.measured_lines()

    def measured_tumours(self, kept: np.ndarray, archive: str) -> np.ndarray:
        """TPM of some patients (mask) as one archive measures them; each cohort has its own source effect."""
        profile, out = self.tumour_profile[kept], np.empty((kept.sum(), self.size.genes), np.float32)
        for cohort in ("TCGA", "TARGET", "THR"):
            rows = (self.patients["cohort"] == cohort).to_numpy()[kept]
            effect = self.programmes.source(cohort, self.p.source_offset_sd)
            out[rows] = self.tpm(self.counts(profile[rows], effect, random(self.seed, f"{archive} {cohort}")))
        return out

    def measured_lines(self) -> np.ndarray:
        """TPM of the lines as DepMap measures them."""
        effect = self.programmes.source("DepMap", np.hypot(self.p.source_offset_sd, self.p.kind_offset_sd))
        return self.tpm(self.counts(self.line_profile, effect, random(self.seed, "DepMap")))

    def measured_gtex(self) -> np.ndarray:
        """TPM of the GTEx samples."""
        rng, samples = random(self.seed, "gtex"), self.gtex
        donors, code = np.unique(samples["donor"], return_inverse=True)
        donor = rng.normal(0, self.p.donor_sd * self.programmes.scale, (len(donors), self.size.genes))
        sites, site_code = np.unique(samples["SMTSD"], return_inverse=True)
        site = laplace(rng, 0.5 * self.p.tissue_sd * self.programmes.scale, (len(sites), self.size.genes))
        profile = self.tissue_profile(samples["tissue"], rng, donor[code] + site[site_code])
        effect = self.programmes.source("GTEx", self.p.source_offset_sd)
        return self.tpm(self.counts(profile, effect, rng))

    def tissue_profile(self, tissues, rng: np.random.Generator, shift: np.ndarray | float = 0.0) -> np.ndarray:
        """Noise-free samples of tissues, linear: programme + individual + `shift` (log2), in some infiltrate."""
        programmes, n = self.programmes, len(tissues)
        own_programme = np.array([programmes.tissue[t] for t in tissues], np.float32)
        log2 = own_programme + programmes.individuals(rng, n)
        neighbours = np.array([programmes.tissue[rng.choice(BRANCH_OF[t])] for t in tissues], np.float32)
        share = rng.beta(*self.p.neighbour, n).astype(np.float32)[:, None]
        log2 += np.log2(1 - share + share * np.exp2(neighbours - own_programme))
        own = programmes.express(log2 + np.asarray(shift, np.float32))
        amount = rng.beta(*self.p.tissue_infiltrate, n).astype(np.float32)[:, None]
        immune_share = _beta(rng, 0.45, self.p.infiltrate_concentration, n)[:, None]
        around = immune_share * programmes.express(programmes.immune)
        around = around + (1 - immune_share) * programmes.express(programmes.stroma)
        return (1 - amount) * own + amount * around

    def counts(self, profile: np.ndarray, effect: tuple, rng: np.random.Generator, library="bulk") -> np.ndarray:
        """Reads of profiles (n × genes): source effect, library size, over-dispersion, dropout."""
        slope, offset = effect
        centre, length = self.programmes.average, self.genes["length"].to_numpy(np.float32)
        log2 = np.log2(profile + 0.01)
        expected = np.exp2(centre + slope * (log2 - centre) + offset) * length
        size = self.p.library_size[library] * np.exp(rng.normal(0, self.p.library_sd, (len(profile), 1)))
        expected *= (size / expected.sum(1, keepdims=True)).astype(np.float32)
        shape = np.float32(1 / self.p.dispersion)
        rate = rng.standard_gamma(shape, expected.shape, dtype=np.float32) * (expected / shape)
        counts = rng.poisson(rate).astype(np.float32)
        lost = rng.random(counts.shape, dtype=np.float32) < self.p.dropout * np.exp(-expected / 20)
        counts[lost] = 0
        return counts

    def tpm(self, counts: np.ndarray) -> np.ndarray:
        return total_to_million(counts / self.genes["length"].to_numpy(np.float32))

    # ARCHS4

    @cached_property
    def archs4(self) -> pd.DataFrame:
        """ARCHS4 samples: what they really are, their study, and what their submitters wrote."""
        return describe_archs4(self)

    def archs4_counts(self, block: int = 2048) -> Iterator[tuple[slice, np.ndarray]]:
        """Blocks of samples × genes raw counts, in the order of `archs4`."""
        samples, source = self.archs4, self.programmes.source("ARCHS4", self.p.source_offset_sd)
        study_codes = samples["study"].to_numpy()
        for start in range(0, len(samples), block):
            rows = slice(start, min(start + block, len(samples)))
            rng = random(self.seed, f"archs4 block {start}")
            yield rows, self._archs4_block(samples.iloc[rows], study_codes[rows], source, rng)

    def _archs4_block(self, samples, studies, source, rng) -> np.ndarray:
        names, code = np.unique(studies, return_inverse=True)
        effects = np.array([self.study_effect(name) for name in names])
        profile = self.tissue_profile(samples["true_tissue"], rng, effects[code])
        lines = np.flatnonzero(samples["line"].to_numpy() >= 0)
        profile[lines] = self.line_profile[samples["line"].to_numpy()[lines]]
        single = (samples["single_cell_probability"] >= 0.5).to_numpy()
        counts = np.empty_like(profile)
        counts[~single] = self.counts(profile[~single], source, rng, "ARCHS4")
        counts[single] = self.counts(profile[single], source, rng, "single cell")
        return counts

    def study_effect(self, study: str) -> np.ndarray:
        rng = random(self.seed, f"study {study}")
        return (rng.standard_normal(self.size.genes, dtype=np.float32) * self.p.study_sd) * np.sqrt(
            self.programmes.scale
        )


TCGA_TISSUE = {"PDAC": "pancreas", "LUSC": "lung", "Uveal": "eye", "Sarcoma": "soft tissue"}


def generate(out_dir: str | Path, size: str | DemoSize = "demo", seed: int = 42) -> Path:
    """Write the demo's raw archives and truth.h5ad under `out_dir` (file names: lib/synthetic_archives.py).

    size: "demo", "smoke" or a DemoSize. The same size and seed give the same bytes. Returns `out_dir`.
    Raises ValueError for an unknown size or too few genes.
    """
    if isinstance(size, str):
        if size not in SIZES:
            raise ValueError(f"size: found {size!r}, expected one of {', '.join(SIZES)} or a DemoSize")
        size = SIZES[size]
    demo = Demo(size, seed)
    write_archives(demo, Path(out_dir))
    write_clinical(demo, Path(out_dir))
    write_gene_sets(demo, Path(out_dir))
    return Path(out_dir)
