"""Drug response, survival and organoids of the demo: the same bytes, the public layouts, and a truth that holds."""

import hashlib

import numpy as np
import pandas as pd
import pytest

from lib import sources, synthetic, synthetic_clinical
from lib.synthetic import Demo, DemoSize, generate

TINY = DemoSize(700, 200, 60, 700, 5, 80, 1.0, 0.1)
OWN = [
    v
    for k, v in vars(synthetic_clinical).items()
    if k.startswith(("DRUG_R", "SURV", "ORGANOIDS", "ORGANOID_I", "TRUTH"))
]
OWN = {v for v in OWN if isinstance(v, str)}


@pytest.fixture(scope="module")
def demo() -> Demo:
    return Demo(TINY, seed=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return generate(tmp_path_factory.mktemp("demo"), TINY, seed=3)


def digests(folder):
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_the_other_archives_are_the_same_bytes_without_these(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "write_clinical", lambda demo, out: None)
    without, with_them = digests(generate(tmp_path, TINY, seed=3)), digests(folder)
    assert with_them.keys() - without.keys() == OWN
    assert {name: with_them[name] for name in without} == without


def test_same_seed_same_bytes_other_seed_others(demo, folder, tmp_path):
    synthetic_clinical.write_clinical(Demo(TINY, seed=3), tmp_path / "again")
    synthetic_clinical.write_clinical(Demo(TINY, seed=4), tmp_path / "other")
    again, other, first = digests(tmp_path / "again"), digests(tmp_path / "other"), digests(folder)
    assert again == {name: first[name] for name in OWN}
    assert all(other[name] != first[name] for name in OWN - {synthetic_clinical.ORGANOID_INFO})


def test_tables_have_the_places_of_the_public_ones():
    places = {str(s.path("")) for s in sources.load_sources().values()}
    assert {synthetic_clinical.DRUG_RESPONSE, synthetic_clinical.SURVIVAL} <= places


def test_screen_is_the_truth_with_noise_and_gaps(demo):
    drugs, truth = synthetic_clinical.drug_truth(demo)
    measured = synthetic_clinical.measured_response(demo, drugs, truth)
    assert len(drugs) == sum(synthetic_clinical.DRIVERS.values())
    assert set(measured.index) < set(demo.lines.index) and 0.01 < measured.isna().mean().mean() < 0.12
    measured.columns = truth.columns
    r = measured.corrwith(truth.loc[measured.index])
    assert (r[drugs["driver"] != "none"] > 0.4).all() and (truth.loc[:, drugs["driver"] == "none"].std() < 1e-6).all()


def test_a_drug_acts_through_the_genes_it_names(demo):
    drugs, truth = synthetic_clinical.drug_truth(demo)
    row = drugs[drugs["driver"] == "proliferation"].iloc[0]
    genes = [g[1:] for g in row["genes"].split()]
    level = np.log2(demo.line_profile[:, demo.genes.index.get_indexer(genes)] + 1).mean(axis=1)
    assert np.corrcoef(level, truth.loc[demo.lines.index, row.name])[0, 1] < -0.8


def test_higher_hazard_dies_earlier_and_does_not_come_from_type_alone(demo):
    hazard = synthetic_clinical.hazard_truth(demo)
    table = synthetic_clinical.survival(demo, hazard).dropna()
    died = table[table["OS"] == 1]
    assert hazard.loc[died.index, "log_hazard"].corr(died["OS.time"].astype(float), method="spearman") < -0.2
    assert hazard["programme"].std() > hazard["type"].std() > hazard["purity"].std() > 0
    assert set(hazard.index) == set(demo.patients.query("in_treehouse and cohort == 'TCGA'").index)


def test_organoids_are_between_tumours_and_lines(demo):
    organoids = synthetic_clinical.draw_organoids(demo)
    log2 = np.log2(synthetic_clinical.measured_organoids(demo, organoids) + 1)
    lines, pure = (np.log2(x + 1) for x in (demo.line_profile, demo.tumour_programme))
    types, distance = set(organoids["cancer_type"]), []
    for X, labels in ((log2, organoids["cancer_type"]), (lines, demo.lines["cancer_type"])):
        of_tumours = {t: pure[(demo.patients["cancer_type"] == t).to_numpy()].mean(axis=0) for t in types}
        kept = labels.isin(types).to_numpy()
        distance.append(
            np.median([np.linalg.norm(x - of_tumours[t]) for x, t in zip(X[kept], labels[kept], strict=True)])
        )
    assert distance[0] < distance[1]
    assert len(types) > 5


def test_organoid_files_are_laid_out_as_depmap_s(folder):
    expression = pd.read_csv(folder / synthetic_clinical.ORGANOIDS, index_col=0)
    info = pd.read_csv(folder / synthetic_clinical.ORGANOID_INFO, index_col="DepMap_ID")
    assert list(expression.index) == list(info.index)
    assert expression.columns.str.fullmatch(r"\S+ \(ENSG009\d{8}\)").all()
    assert info["lineage"].notna().all()
