"""Genes and noise-free programmes of the demo: tissues, cancers, infiltrates, culture, source effects.

`Parameters` holds every number that shapes the demo's values. They were fixed by lib/calibration.py, without any
model.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from lib import synthetic_vocabulary as vocabulary
from lib.synthetic_vocabulary import CANCERS, TARGET_ONLY, TISSUE_MARKERS, TISSUE_TREE

TISSUES = [tissue for groups in TISSUE_TREE.values() for group in groups for tissue in group]
BRANCH_OF = {t: [x for g in groups for x in g] for groups in TISSUE_TREE.values() for g in groups for t in g}
SUBTYPES = CANCERS + TARGET_ONLY


@dataclass(frozen=True)
class Parameters:
    """What shapes the values; log2 units unless said otherwise. Fixed by lib/calibration.py."""

    baseline_quantiles: tuple[float, ...] = (-12.0, -3.2, -0.1, 1.6, 2.7, 3.6, 4.2, 4.7, 5.3, 5.8, 9.0)
    branch_sd: float = 0.35
    sister_sd: float = 0.3
    tissue_sd: float = 0.4
    ceiling: float = 12.0  # log2 TPM at which transcription levels off (mitochondrial genes lie above)
    marker_up: tuple[float, float] = (4.0, 8.0)
    gene_scale_spread: float = 0.4  # sd of the log of each gene's own variability
    scale_by_level: float = 0.42  # genes below a baseline of 5 vary more: scale x exp(this x (5 - baseline)), 4 at most
    individual_sd: float = 0.35  # between individuals of one tissue
    individual_factors: int = 15
    factor_share: float = 0.6  # of the individual variance that lies on common factors
    tumour_heterogeneity: float = 1.4  # individual_sd of tumours and of lines when derived, relative to tissues
    largest_change: float = 5.0  # of a gene in culture
    drift: float = 1.5  # the same for what each line changes by itself in culture
    cancer_sd: float = 0.35
    type_sd: float = 0.4
    subtype_sd: float = 0.35
    purity_concentration: float = 12.0
    infiltrate_concentration: float = 6.0
    tissue_infiltrate: tuple[float, float] = (
        1.5,
        9.0,
    )  # beta distribution of the infiltrate's share in tissues
    neighbour: tuple[float, float] = (
        0.4,
        1.75,
    )  # the same for another tissue of the branch, cut along with it
    crosstalk: float = 2.0
    culture_sd: float = 0.26
    culture_type_sd: float = 0.2
    culture_conditions: int = 3  # directions on which only lines vary
    culture_condition_sd: float = 0.3
    dedifferentiation: float = 1.4  # share of the tissue programme that a line of culture strength 1 loses
    strayed: tuple[float, float] = (1.0, 0.95)  # beta distribution: how far a line has moved to another cancer
    aligns_below: float = 1.5  # culture strength; and less than half strayed
    mislabelled: float = 0.06
    source_slope_sd: float = 0.05
    source_offset_sd: float = 0.2
    kind_offset_sd: float = 0.12  # between the tumour and the cell-line compendium, on top
    study_sd: float = 0.3
    donor_sd: float = 0.3
    library_sd: float = 0.45  # of the log of the library size
    dispersion: float = 0.03
    dropout: float = 0.1
    purity_error: float = 0.06
    library_size: dict[str, float] = field(default_factory=lambda: {"bulk": 4e7, "ARCHS4": 2.5e7, "single cell": 4e5})


def random(seed: int, name: str) -> np.random.Generator:
    """An independent stream for each named part, so that changing one part leaves the others as they were."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def laplace(rng: np.random.Generator, scale: np.ndarray | float, size) -> np.ndarray:
    """Heavy-tailed effects with standard deviation `scale`, cut at 3.5 of them."""
    return (rng.laplace(0, 1 / np.sqrt(2), size).clip(-3.5, 3.5) * scale).astype(np.float32)


def saturated(log2: np.ndarray, limit: float) -> np.ndarray:
    """Log2 changes that level off at ±`limit`, so that no gene takes over a whole library."""
    return limit * np.tanh(log2 / limit)


def total_to_million(linear: np.ndarray) -> np.ndarray:
    return linear * (1e6 / linear.sum(-1, keepdims=True))


# --- genes ---


def _symbols(n: int) -> list[str]:
    groups = [
        vocabulary.MITOCHONDRIAL, vocabulary.RIBOSOMAL, vocabulary.HOUSEKEEPING, vocabulary.PROLIFERATION,
        vocabulary.STROMA, vocabulary.IMMUNE, vocabulary.INTERFERON, vocabulary.EMBRYONIC,
        *TISSUE_MARKERS.values(), *vocabulary.SUBTYPE_MARKERS.values(), vocabulary.CANCER_GENES,
    ]  # fmt: skip
    known = list(dict.fromkeys(symbol for group in groups for symbol in group))
    if n <= len(known):
        raise ValueError(f"genes: found {n}, expected more than the {len(known)} named marker genes")
    return known + [f"DEMOG{i:05d}" for i in range(1, n - len(known) + 1)]


def draw_genes(n: int, seed: int, p: Parameters) -> pd.DataFrame:
    """The gene table, by symbol: ids, length (bp), baseline (log2 TPM), scale (relative variability)."""
    rng = random(seed, "genes")
    symbols = pd.Index(_symbols(n), name="symbol")
    grid = np.linspace(0, 1, len(p.baseline_quantiles))
    genes = pd.DataFrame(
        {
            "ensembl": [f"ENSG00990{i:06d}" for i in range(1, n + 1)],
            "version": rng.integers(1, 16, n),
            "entrez": np.arange(990000001, 990000001 + n),
            "hgnc": [f"HGNC:99{i:05d}" for i in range(1, n + 1)],
            "length": np.clip(np.exp(rng.normal(np.log(2800), 0.6, n)), 300, 15000).astype(int),
            "baseline": np.interp(rng.uniform(0, 1, n), grid, p.baseline_quantiles),
            "scale": np.exp(rng.normal(0, p.gene_scale_spread, n) - p.gene_scale_spread**2),
        },
        index=symbols,
    )
    genes["scale"] *= np.exp(p.scale_by_level * (5 - genes["baseline"]).clip(0)).clip(upper=4)
    genes["invented"] = symbols.str.startswith("DEMOG")
    named = ~genes["invented"]
    genes.loc[named, "baseline"] = rng.normal(4.5, 1.5, named.sum())
    for group, level in ((vocabulary.STROMA, 2.5), (vocabulary.IMMUNE, 1.0), (vocabulary.EMBRYONIC, -1.0)):
        genes.loc[group, "baseline"] = rng.normal(level, 1.0, len(group))
    markers = sorted({symbol for group in TISSUE_MARKERS.values() for symbol in group})
    genes.loc[markers, "baseline"] = rng.normal(0.0, 1.2, len(markers))
    # Mitochondrial and ribosomal genes hold most reads, so that few genes can still add up to a million TPM.
    for group, level in ((vocabulary.MITOCHONDRIAL, 15.4), (vocabulary.RIBOSOMAL, 12.6)):
        genes.loc[group, ["baseline", "scale"]] = np.c_[rng.normal(level, 0.7, len(group)), np.full(len(group), 0.6)]
        genes.loc[group, "length"] = rng.integers(400, 1600, len(group))
    return genes


# --- programmes ---


class Programmes:
    """Noise-free log2 programmes (one value per gene): of tissues, infiltrates, cancers and the culture."""

    def __init__(self, genes: pd.DataFrame, seed: int, p: Parameters):
        self.genes, self.seed, self.p = genes, seed, p
        self.baseline = genes["baseline"].to_numpy(np.float32)
        self.scale = genes["scale"].to_numpy(np.float32)

    def vector(self, effects: dict[tuple[str, ...], float]) -> np.ndarray:
        """A vector over the genes that is zero but for the named groups of symbols."""
        out = pd.Series(0.0, self.genes.index)
        for symbols, value in effects.items():
            out[list(symbols)] = value
        return out.to_numpy(np.float32)

    @cached_property
    def tissue(self) -> dict[str, np.ndarray]:
        """tissue -> programme: baseline + effects of its branch, its sisters and itself + its markers."""
        p, rng, n = self.p, random(self.seed, "tissues"), len(self.genes)
        programmes = {}
        for groups in TISSUE_TREE.values():
            branch = laplace(rng, p.branch_sd * self.scale, n)
            for group in groups:
                sisters = laplace(rng, p.sister_sd * self.scale, n)
                for name in group:
                    programmes[name] = self.baseline + branch + sisters + laplace(rng, p.tissue_sd * self.scale, n)
        self._raise_markers(programmes, rng)
        return programmes

    def _raise_markers(self, programmes: dict[str, np.ndarray], rng: np.random.Generator) -> None:
        for groups in TISSUE_TREE.values():
            for group in groups:
                for name in group:
                    symbols = TISSUE_MARKERS[name]
                    up = self.vector({}) + 0
                    up[self.genes.index.get_indexer(symbols)] = rng.uniform(*self.p.marker_up, len(symbols))
                    programmes[name] = programmes[name] + up
                    for sister in set(group) - {name}:
                        programmes[sister] = programmes[sister] + 0.4 * up
        immune, stroma = tuple(vocabulary.IMMUNE), tuple(vocabulary.STROMA)
        for branch, effect in (
            ("blood", self.vector({immune: 5.0})),
            ("connective", self.vector({stroma: 4.0})),
        ):
            for name in (t for group in TISSUE_TREE[branch] for t in group):
                programmes[name] = programmes[name] + effect
        growing = {
            "stem cell": 2.0,
            "bone marrow": 1.5,
            "testis": 1.5,
            "fibroblast": 1.5,
            "thymus": 1.0,
            "lymphoid": 1.0,
        }
        for name, amount in growing.items():
            programmes[name] = programmes[name] + self.vector({tuple(vocabulary.PROLIFERATION): amount})
        for name in ("stem cell", "placenta"):
            programmes[name] = programmes[name] + self.vector({tuple(vocabulary.EMBRYONIC): 5.0})

    def mean_of(self, tissues: tuple[str, ...]) -> np.ndarray:
        return np.mean([self.tissue[t] for t in tissues], axis=0)

    @cached_property
    def average(self) -> np.ndarray:
        return self.mean_of(tuple(TISSUES))

    @cached_property
    def immune(self) -> np.ndarray:
        return self.mean_of(("blood", "lymphoid", "spleen"))

    @cached_property
    def stroma(self) -> np.ndarray:
        return self.mean_of(("fibroblast", "blood vessel", "adipose"))

    @cached_property
    def cancer(self) -> dict[str, np.ndarray]:
        """subtype -> pure programme: tissue(s) of origin + what all, its type's and its subtype's cancers add."""
        p, rng, n = self.p, random(self.seed, "cancers"), len(self.genes)
        common = laplace(rng, p.cancer_sd * self.scale, n) + self.vector({tuple(vocabulary.PROLIFERATION): 2.0})
        embryonic = laplace(rng, p.cancer_sd * self.scale, n) + self.vector({tuple(vocabulary.EMBRYONIC): 4.0})
        types = {s.cancer_type: laplace(rng, p.type_sd * self.scale, n) for s in SUBTYPES}
        programmes = {}
        for s in SUBTYPES:
            own = laplace(rng, p.subtype_sd * self.scale * (3.0 if s.subtype == "CCSK" else 1.0), n)
            own += self.vector({tuple(vocabulary.SUBTYPE_MARKERS.get(s.subtype, ())): 3.0})
            programme = self.mean_of(s.origin) + common + types[s.cancer_type] + own
            programmes[s.subtype] = programme + (embryonic if s.embryonic else 0)
        return programmes

    @cached_property
    def average_cancer(self) -> np.ndarray:
        return np.mean([self.cancer[s.subtype] for s in CANCERS], axis=0)

    @cached_property
    def culture(self) -> np.ndarray:
        """Adaptation to culture at strength 1: proliferation up, matrix and immune genes down, and more."""
        rng = random(self.seed, "culture")
        known = {
            tuple(vocabulary.PROLIFERATION): 1.0,
            tuple(vocabulary.STROMA): -2.0,
            tuple(vocabulary.IMMUNE): -1.5,
        }
        return laplace(rng, self.p.culture_sd * self.scale, len(self.genes)) + self.vector(known)

    @cached_property
    def culture_directions(self) -> np.ndarray:
        shape = (self.p.culture_conditions, len(self.genes))
        return laplace(random(self.seed, "culture directions"), self.p.culture_condition_sd * self.scale, shape)

    @cached_property
    def culture_of_type(self) -> dict[str, np.ndarray]:
        rng, n = random(self.seed, "culture of types"), len(self.genes)
        return {s.cancer_type: laplace(rng, self.p.culture_type_sd * self.scale, n) for s in SUBTYPES}

    def individuals(self, rng: np.random.Generator, n: int, relative: float = 1.0) -> np.ndarray:
        """Differences between `n` individuals: on factors common to all samples, and each gene's own."""
        p, sd = self.p, self.p.individual_sd * self.scale * relative
        own = rng.standard_normal((n, len(self.genes)), dtype=np.float32)
        scores = rng.standard_normal((n, p.individual_factors), dtype=np.float32)
        return (np.sqrt(p.factor_share) * scores @ self._factors + np.sqrt(1 - p.factor_share) * own) * sd

    @cached_property
    def _factors(self) -> np.ndarray:
        shape = (self.p.individual_factors, len(self.genes))
        loadings = random(self.seed, "factors").standard_normal(shape, dtype=np.float32)
        return loadings / np.sqrt(self.p.individual_factors)

    def express(self, log2: np.ndarray) -> np.ndarray:
        """Log2 levels -> linear profiles summing to a million; transcription levels off at the ceiling."""
        ceiling = np.exp2(np.maximum(self.p.ceiling, self.baseline + 2))
        linear = np.exp2(np.minimum(log2, 60))
        return total_to_million(linear * ceiling / (linear + ceiling))

    def source(self, name: str, sd: float) -> tuple[np.ndarray, np.ndarray]:
        """Gene-wise affine effect of a source: (slope, offset)."""
        rng, n = random(self.seed, f"source {name}"), len(self.genes)
        slope = rng.normal(1, self.p.source_slope_sd, n).astype(np.float32)
        return slope, rng.normal(0, sd, n).astype(np.float32)
