"""The generator's own programmes as gene sets: an archive beside the demo's others.

reactome/ReactomePathways.gmt.zip   name, identifier, symbols; the layout of Reactome's file, the demo's sets

What an enrichment analysis should find on the demo is thereby known; the random sets are what it should not find.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lib import synthetic_vocabulary as vocabulary
from lib.files import replacing
from lib.synthetic_programmes import random

if TYPE_CHECKING:
    from lib.synthetic import Demo

GENE_SETS = "reactome/ReactomePathways.gmt.zip"
SHARE = 0.04  # of all genes: the most changed ones of a programme that changes every gene
RANDOM_SETS = 5


def write_gene_sets(demo: Demo, out: Path) -> None:
    """Write the gene sets under `out`, the same bytes for the same seed."""
    lines = [
        "\t".join([name, f"DEMO-{i:03d}", *symbols]) for i, (name, symbols) in enumerate(gene_sets(demo).items(), 1)
    ]
    member = zipfile.ZipInfo("ReactomePathways.gmt", date_time=(1980, 1, 1, 0, 0, 0))
    with replacing(out / GENE_SETS) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, "\n".join(lines) + "\n", compress_type=zipfile.ZIP_DEFLATED)


def gene_sets(demo: Demo) -> dict[str, list[str]]:
    """Name -> symbols: culture up and down, infiltrates and named groups, tissue programmes, random sets."""
    programmes, genes = demo.programmes, demo.genes.index
    n = max(10, round(SHARE * len(genes)))
    sets = {
        "Culture up": _largest(programmes.culture, genes, n),
        "Culture down": _largest(-programmes.culture, genes, n),
        "Stroma": vocabulary.STROMA,
        "Immune infiltrate": vocabulary.IMMUNE,
        "Interferon response": vocabulary.INTERFERON,
        "Proliferation": vocabulary.PROLIFERATION,
        "Embryonic": vocabulary.EMBRYONIC,
    }
    for tissue, programme in programmes.tissue.items():
        sets[f"Tissue: {tissue}"] = _largest(programme - programmes.average, genes, n)
    rng = random(demo.seed, "random gene sets")
    for i in range(1, RANDOM_SETS + 1):
        sets[f"Random {i}"] = sorted(genes[rng.choice(len(genes), n, replace=False)])
    return sets


def _largest(effect: np.ndarray, genes, n: int) -> list[str]:
    return genes[np.argsort(-effect, kind="stable")[:n]].tolist()
