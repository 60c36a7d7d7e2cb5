"""What the README says must be so: its paths exist, its numbers are those of the committed tables."""

import re

import pandas as pd

from lib import comparison, config, tissue_tables

README = (config.ROOT / "README.md").read_text()
STUDY = config.ROOT / "figures" / "study" / "tables"


def words(text):
    return " ".join(re.sub(r"^> ?", "", text, flags=re.M).split())


def test_every_path_that_it_names_exists():
    linked = re.findall(r"\]\(([^)#:]+)\)", README)
    quoted = [p for p in re.findall(r"`((?:lib|data|profiles|notebooks|tests)/[\w./*-]+)`", README) if "*" not in p]
    built = ("data/raw", "data/processed")
    missing = [p for p in linked + quoted if not p.startswith(built) and not (config.ROOT / p).exists()]
    assert linked
    assert missing == []


def test_study_s_numbers_are_those_of_its_tables():
    alignment = pd.read_csv(STUDY / "a-table-alignment.csv", na_values="not estimable")
    tissue = pd.read_csv(STUDY / "b-table-classification.csv")
    assert words(comparison.alignment_in_words(alignment)) in words(README)
    assert words(tissue_tables.tissue_in_words(tissue)) in words(README)


def test_every_profile_and_notebook_is_explained():
    for path in [*config.PROFILES.glob("*.yaml"), *(config.ROOT / "notebooks").glob("*.ipynb")]:
        assert path.stem in README
