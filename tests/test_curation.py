"""Funnels, splits, caps, gene filters and the compendia that lib/curation.py writes."""

from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest

from lib import curation, readers, synthetic
from lib import synthetic_archives as names

GOLDEN = Path(__file__).parent / "golden" / "mad"
REAL = Path(__file__).parents[1].parent / "shared" / "real"
GENES = [f"GENE{i}" for i in range(40)]


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return synthetic.generate(tmp_path_factory.mktemp("raw"), "smoke", 1)


def alignment_of(raw, out, **settings):
    files = {"tumours": names.TREEHOUSE, "clinical": names.TREEHOUSE_CLINICAL, "lines": names.DEPMAP}
    files |= {"line_info": names.DEPMAP_INFO, "celligner_info": names.CELLIGNER_INFO, "gene_ids": names.HGNC}
    paths = {role: raw / file for role, file in files.items()}
    return curation.curate_alignment(out / "alignment.h5ad", **(paths | settings))


def tissue_of(raw, out, **settings):
    files = {"archs4": names.ARCHS4, "gtex": names.GTEX, "gtex_attributes": names.GTEX_ATTRIBUTES}
    files |= {"tcga": names.TCGA, "tcga_phenotype": names.TCGA_PHENOTYPE, "gene_ids": names.HGNC}
    files |= {"depmap": names.DEPMAP, "depmap_info": names.DEPMAP_INFO, "gtf": names.GTF}
    paths = {role: raw / file for role, file in files.items()}
    return curation.curate_tissue(out / "tissue.h5ad", **(paths | {"subset": 900} | settings))


@pytest.fixture(scope="module")
def alignment(raw, tmp_path_factory):
    return alignment_of(raw, tmp_path_factory.mktemp("alignment"), genes=300)


@pytest.fixture(scope="module")
def tissue(raw, tmp_path_factory):
    return tissue_of(raw, tmp_path_factory.mktemp("tissue"), cap=60, gene_filter="corrected")


def own_file(folder, n=60, **columns) -> Path:
    """An h5ad of a user: three tissues, 20 donors, log2(TPM+1)-like values."""
    rng = np.random.default_rng(0)
    obs = pd.DataFrame(
        {
            "organ": np.repeat(["liver", "lung", "skin"], n // 3),
            "who": [f"d{i % 20}" for i in range(n)],
            "caveat": "",
        },
        index=[f"s{i}" for i in range(n)],
    ).assign(**columns)
    values = rng.gamma(2, 2, (n, len(GENES))).astype(np.float32)
    ad.AnnData(values, obs, pd.DataFrame(index=GENES)).write_h5ad(folder / "own.h5ad")
    return folder / "own.h5ad"


TISSUE_COLUMNS = {"tissue": "organ", "donor": "who", "study": None}


# --- splits and caps ---


def test_split_by_sample_gives_the_shares_of_every_stratum():
    strata = pd.Series(np.repeat(["a", "b", "c"], [100, 20, 3]))
    split = curation.split_by_sample(strata, 0.1, 0.15, seed=1)
    counts = pd.crosstab(strata, split)
    assert counts.loc["a", ["train", "validation", "test"]].tolist() == [75, 10, 15]
    assert counts.loc["b", ["train", "validation", "test"]].tolist() == [15, 2, 3]
    assert counts.loc["c", "train"] == 3
    assert split.equals(curation.split_by_sample(strata, 0.1, 0.15, seed=1))
    assert not split.equals(curation.split_by_sample(strata, 0.1, 0.15, seed=2))


def test_split_by_group_leaks_no_group_and_keeps_the_shares():
    rng = np.random.default_rng(3)
    groups = pd.Series([f"GSE{i}" for i in rng.zipf(1.6, 3000).clip(max=400)])
    strata = pd.Series(rng.choice(["a", "b", "c"], 3000, p=[0.7, 0.25, 0.05]))
    split = curation.split_by_group(strata, groups, 0.1, 0.15, seed=0)
    assert (pd.DataFrame({"g": groups, "s": split}).groupby("g")["s"].nunique() == 1).all()
    large = groups.value_counts().iloc[0] / 3000
    shares = split.value_counts(normalize=True)
    assert abs(shares["test"] - 0.15) < 0.03 and abs(shares["train"] - 0.75) < max(0.05, large)
    assert split.equals(curation.split_by_group(strata, groups, 0.1, 0.15, seed=0))


def test_split_by_group_of_single_samples_is_stratified():
    strata = pd.Series(np.repeat(["a", "b"], [100, 40]))
    split = curation.split_by_group(strata, pd.Series(range(140)), 0.1, 0.2, seed=0)
    assert pd.crosstab(strata, split).to_numpy().tolist() == [[20, 70, 10], [8, 28, 4]]


def test_sample_groups_prefer_donors_and_join_super_series():
    study = ["GSE1,GSE2", "GSE2", "GSE3", "GTEx", "GTEx", ""]
    obs = pd.DataFrame({"donor": ["", "", "", "d1", "d2", ""], "study": study}, index=list("abcdef"))
    groups = curation.sample_groups(obs)
    assert groups["a"] == groups["b"] != groups["c"]
    assert groups["d"] != groups["e"] and groups.nunique() == 5


def test_cap_leaves_the_test_part_or_caps_all():
    obs = pd.DataFrame({"tissue": np.repeat(["blood", "eye"], [1000, 20])})
    obs["split"] = curation.split_by_sample(obs["tissue"], 0.1, 0.15)
    counts = obs[curation.under_cap(obs, 100)].groupby(["tissue", "split"]).size()
    assert counts["blood"]["test"] == 150 and counts["blood"].drop("test").sum() == 100
    assert counts["eye"].sum() == 20
    whole = obs[curation.under_cap(obs, 100, "compendium")]
    assert whole["tissue"].value_counts().to_dict() == {"blood": 100, "eye": 20}
    assert curation.under_cap(obs, None).all()


def test_random_subset_is_seeded_and_exact():
    first = curation.random_subset(1000, 300, 42)
    assert first.sum() == 300 and (first == curation.random_subset(1000, 300, 42)).all()
    assert (first != curation.random_subset(1000, 300, 43)).any()
    assert curation.random_subset(10, 300, 42).all() and curation.random_subset(10, None, 42).all()


# --- genes ---


def test_mad_equals_r():
    X = pd.read_csv(GOLDEN / "expr_samples_by_genes.csv", index_col=0)
    expected = pd.read_csv(GOLDEN / "mad_R.csv", index_col="gene")
    values = curation.mad(X.to_numpy())
    assert np.allclose(values, expected.loc[X.columns, "mad"], rtol=1e-12)
    order = np.argsort(-values, kind="stable")
    assert (expected.loc[X.columns[order], "rank_desc"].to_numpy() == np.arange(1, X.shape[1] + 1)).all()


def test_gene_statistics_are_those_of_the_training_part(monkeypatch):
    X = np.random.default_rng(0).normal(5, 2, (50, 200)).astype(np.float32)
    train = np.arange(50) < 30
    monkeypatch.setattr(curation, "BLOCK_VALUES", 50 * 64)
    table = curation.gene_statistics(X, train, ~train)
    assert np.allclose(table["mean"], X[train].mean(0), atol=1e-5) and np.allclose(
        table["sd"], X[train].std(0), atol=1e-5
    )
    assert np.allclose(table["mad"], curation.mad(X[train]))
    scaled = (X[~train] - X[train].mean(0)) / X[train].std(0)
    assert np.allclose(table["scaled_test"], scaled.var(axis=0, ddof=1), rtol=1e-4)


def test_one_percent_filter_takes_163_of_16292():
    variances = np.random.default_rng(0).gamma(2, 1, 16_292)
    assert (~curation.above_one_percent(variances)).sum() == 163


def test_variable_genes_in_both_readings():
    rng = np.random.default_rng(0)
    X = rng.normal(0, 1, (300, 16_292 // 4)).astype(np.float32)
    X[:, :10] = 3  # constant
    X[:, 10:15] *= 0.01  # near constant, far from it once standardised
    train = np.arange(300) < 240
    statistics = curation.gene_statistics(X, train, ~train)
    corrected = curation.variable_genes(statistics, "corrected")
    assert corrected[15:].all() and not corrected[:15].any()
    faithful = curation.variable_genes(statistics, "faithful")
    one_percent = int(np.ceil((X.shape[1] - 1) * 0.01))
    assert one_percent < (~faithful).sum() <= 2 * one_percent
    assert not faithful[:10].any() and faithful[10:15].any()
    with pytest.raises(ValueError, match="gene_filter: found 'none'"):
        curation.variable_genes(statistics, "none")


def test_top_genes_keep_file_order():
    table = pd.DataFrame({"mad": [1.0, 3.0, 2.0, 3.0, 0.0]})
    assert curation.top_genes(table, 2, "mad").tolist() == [1, 3]
    assert curation.top_genes(table, 9, "mad").tolist() == [0, 1, 2, 3, 4]


# --- funnel and purity ---


def test_funnel_refuses_counts_that_do_not_add_up():
    funnel, obs = curation.Funnel(), pd.DataFrame(index=range(10))
    funnel.add("in", 10)
    assert len(funnel.keep("half", obs, obs.index < 5)) == 5
    table = funnel.table()
    assert (table["change"].cumsum() == table["n"]).all()
    with pytest.raises(RuntimeError, match="counts add up to"):
        funnel.keep("again", obs, obs.index < 5)


def test_fill_purity():
    obs = pd.DataFrame(
        {
            "sample_type": ["tumour"] * 4 + ["cell line"],
            "cancer_type": ["a", "a", "a", "b", "a"],
            "source": "x",
        }
    ).assign(purity=[0.4, 0.8, None, None, None])
    filled, listed = curation.fill_purity(obs, "type median")
    assert filled["purity"].tolist() == pytest.approx([0.4, 0.8, 0.6, 0.6, 1.0])
    assert filled["purity_imputed"].tolist() == [False, False, True, True, False] and len(listed) == 2
    assert len(curation.fill_purity(obs, "drop")[0]) == 3
    assert curation.fill_purity(obs, "keep")[0]["purity"].isna().sum() == 2
    with pytest.raises(ValueError, match="expected fractions from 0 to 1"):
        curation.fill_purity(obs.assign(purity=45.0), "drop")
    with pytest.raises(ValueError, match="found none for any tumour"):
        curation.fill_purity(obs.assign(purity=np.nan), "type median")


# --- compendia from the demo's archives ---


def test_alignment_compendium(alignment):
    data = curation.load(alignment.path)
    assert data.shape == (alignment.funnel["n"].iloc[-1], 300) and data.X.dtype == np.float32
    assert (alignment.funnel["change"].cumsum() == alignment.funnel["n"]).all()
    assert data.obs["cancer_type"].nunique() == 26
    assert (data.obs.loc[data.obs["sample_type"] == "cell line", "purity"] == 1).all()
    assert len(alignment.reports["missing_purity"]) == data.obs["purity_imputed"].sum() > 0
    lineages = alignment.reports["celligner_lineages"]  # Celligner files mesothelioma under lung
    assert len(lineages) == 25 and lineages["tumour"].sum() == (data.obs["sample_type"] == "tumour").sum()
    breast = data.obs.loc[data.obs["cancer_type"] == "Breast", "subtype"]
    assert set(breast) == {"Basal", "HER2-enriched", "Luminal"}
    train = data[data.obs["split"] == "train"]
    assert np.allclose(data.var["mad"], curation.mad(train.X), rtol=1e-5)


def test_alignment_genes_have_the_highest_mad(raw, alignment, tmp_path):
    everything = curation.load(alignment_of(raw, tmp_path, genes=None).path)
    chosen = everything.var_names.isin(curation.load(alignment.path).var_names)
    assert chosen.sum() == 300
    assert everything.var["mad"][chosen].min() >= everything.var["mad"][~chosen].max()


def test_compendium_values_are_the_archives(raw, alignment):
    data = curation.load(alignment.path)
    with readers.open_expression(raw / names.DEPMAP, "depmap_csv", gene_ids=raw / names.HGNC) as lines:
        expected = lines.read(lines.samples[:5], data.var_names)
    assert np.array_equal(data[lines.samples[:5]].X, expected.X)


def test_standardise_is_fitted_on_train(alignment):
    scaled = curation.standardise(curation.load(alignment.path, "train"))
    assert np.allclose(scaled.X.mean(0), 0, atol=1e-4) and np.allclose(scaled.X.std(0), 1, atol=1e-4)
    test = curation.load(alignment.path, "test")
    assert set(test.obs["split"]) == {"test"} and not np.allclose(curation.standardise(test).X.mean(0), 0, atol=0.01)
    with pytest.raises(ValueError, match="standardised already"):
        curation.standardise(scaled)
    with pytest.raises(ValueError, match="no mean and sd"):
        curation.standardise(ad.AnnData(np.ones((2, 2))))


def test_standardise_leaves_constant_genes_at_zero():
    var = pd.DataFrame({"mean": [1.0, 2.0], "sd": [0.0, 2.0]}, index=["a", "b"])
    scaled = curation.standardise(ad.AnnData(np.array([[1.0, 4.0], [5.0, 0.0]], np.float32), var=var))
    assert scaled.X.tolist() == [[0, 1], [0, -1]]


def test_same_seed_same_bytes(raw, alignment, tmp_path):
    again = alignment_of(raw, tmp_path, genes=300)
    assert again.path.read_bytes() == alignment.path.read_bytes()
    other = curation.load(alignment_of(raw, tmp_path, genes=300, seed=7).path)
    assert (other.obs["split"] != curation.load(alignment.path).obs["split"]).any()
    assert [p.name for p in tmp_path.iterdir()] == ["alignment.h5ad"]


def test_tissue_funnel_has_the_ten_steps(tissue):
    steps = tissue.funnel.set_index("operation")
    assert (steps["change"].cumsum() == steps["n"]).all()
    order = [
        "ARCHS4, all samples",
        "single cells",
        "random subset",
        "no tissue in free text",
        "+ TCGA",
        "+ GTEx",
    ]
    order += ["+ DepMap", "no tissue for the label", "cell-line identifiers", "tissues with too few samples"]
    assert list(steps.index) == [*order, "cap per tissue", "compendium"]
    assert steps.loc["random subset", "n"] == 900
    data = curation.load(tissue.path)
    assert data.n_obs == steps["n"].iloc[-1] and data.obs["tissue"].nunique() == 42
    assert set(data.obs["source"]) == {"ARCHS4", "GTEx", "TCGA"} and set(data.obs["unit"]) == {"log2(TPM+1)"}


def test_tissue_splits_and_cap(tissue):
    obs = curation.load(tissue.path).obs
    groups = curation.sample_groups(obs)
    parts = pd.DataFrame({"group": groups, "part": obs["split_study"]}).groupby("group")["part"].nunique()
    assert (parts == 1).all() and (obs["split"] == obs["split_sample"]).all()
    training = obs[obs["split"] != "test"].groupby("tissue", observed=True).size()
    assert training.max() == training["blood"] == 60
    assert abs((obs["split_study"] == "test").mean() - 0.15) < 0.05


def test_cell_lines_leave_and_are_reported(raw, tissue):
    truth = pd.read_csv(raw / names.TRUTH_ARCHS4, sep="\t", index_col=0, keep_default_na=False)
    kept = truth.reindex(curation.load(tissue.path).obs_names).dropna()
    lines = kept.loc[kept["kind"] == "line", "line"]
    assert ((lines.str.len() < 4) | ~lines.str.contains(r"\d")).all()  # what the rule cannot see
    assert (kept["kind"] != "single cell").all()
    hits = tissue.reports["cell_line_tokens"]
    removed = -tissue.funnel.set_index("operation").loc["cell-line identifiers", "change"]
    assert hits["n"].sum() == removed - 89 and {"DepMap", "ENCODE"} == set(hits["list"])  # 89 DepMap lines


def test_study_split_and_other_readings(raw, tmp_path):
    settings = {"split": "study", "cap": 50, "cap_on": "compendium", "gene_filter": "faithful", "genes": 100}
    made = tissue_of(raw, tmp_path, exclude_cell_lines=False, min_samples=8, **settings)
    data = curation.load(made.path)
    counts = data.obs["tissue"].value_counts()
    assert counts.max() == 50 and "DepMap" in set(data.obs["source"]) and data.n_vars == 100
    assert (data.obs["split"] == data.obs["split_study"]).all()
    genes = made.reports["genes"]["n"].tolist()
    assert genes[0] * 0.97 < genes[1] < genes[0] and genes[2] == 100
    assert made.reports["genes"]["change"].tolist() == [0, genes[1] - genes[0], 100 - genes[1]]
    by_source = made.reports["sources"].set_index("source")["samples"]
    assert by_source.to_dict() == data.obs["source"].value_counts().to_dict()


def test_cohort_on_the_compendiums_genes(raw, tissue, tmp_path):
    files = {
        "expression": raw / names.TARGET,
        "phenotype": raw / names.TARGET_PHENOTYPE,
        "gene_ids": raw / names.HGNC,
    }
    made = curation.curate_cohort(tmp_path / "cohort.h5ad", compendium=tissue.path, **files)
    cohort, reference = curation.load(made.path), curation.load(tissue.path)
    assert (cohort.var_names == reference.var_names).all() and np.allclose(cohort.var["mean"], reference.var["mean"])
    assert set(cohort.obs["group"]) == {"AML", "ALL", "AML-IF", "NBL", "Wilms", "rhabdoid", "CCSK"}
    missing = cohort.var["missing"].to_numpy()
    assert missing.sum() > 0 and np.allclose(curation.standardise(cohort).X[:, missing], 0, atol=1e-5)
    assert np.abs(curation.standardise(cohort).X[:, ~missing]).mean() > 0.1


# --- a user's own files, and the deposit ---


def test_tissue_from_a_users_file(tmp_path):
    caveat = ["doubtful"] * 3 + [""] * 57
    file = own_file(tmp_path, caveat=caveat)
    settings = {
        "exclude": {"caveat": ["*"]},
        "unit": "log2(TPM+1)",
        "split": "study",
        "cap": None,
        "genes": 10,
    }
    made = curation.curate_tissue_file(
        tmp_path / "t.h5ad",
        file=file,
        columns=TISSUE_COLUMNS,
        gene_filter="corrected",
        min_samples=18,
        **settings,
    )
    data = curation.load(made.path)
    assert set(data.obs["tissue"]) == {"lung", "skin"} and data.shape == (40, 10)
    assert (data.obs.groupby("donor", observed=True)["split"].nunique() == 1).all()
    assert data.obs.loc[data.obs["tissue"] == "lung", "organ_system"].unique().tolist() == ["Thoracic"]


def test_alignment_from_a_users_file(tmp_path):
    kind, site = ["tumour"] * 40 + ["cell line"] * 20, ["Lung", "Skin"] * 30
    file = own_file(tmp_path, kind=kind, site=site, share=[0.5] * 40 + [None] * 20)
    columns = {"sample_type": "kind", "cancer_type": "site", "purity": "share", "subtype": None}
    made = curation.curate_alignment_file(tmp_path / "a.h5ad", file=file, columns=columns, unit="log2(TPM+1)", genes=15)
    data = curation.load(made.path)
    assert data.shape == (60, 15) and set(data.obs["purity"]) == {0.5, 1.0}
    assert pd.crosstab(data.obs["cancer_type"], data.obs["sample_type"]).to_numpy().tolist() == [[10, 20]] * 2


@pytest.mark.parametrize("layout", [("expression", "gene_symbols"), ("matrix", "feature_names")])
def test_deposit(tmp_path, layout):
    rng = np.random.default_rng(0)
    for part, n in (("train", 60), ("test", 12)):
        (tmp_path / part).mkdir()
        samples = [f"{part}{i}" for i in range(n)]
        with h5py.File(tmp_path / part / "gex.h5", "w") as file:
            values = rng.normal(size=(n, 200)).astype(np.float32)
            values[0, 0] = np.nan
            file[layout[0]], file[layout[1]] = values, np.array([f"G{i}" for i in range(200)], "S")
            file["sample_ids"] = np.array(samples, "S")
        labels = (["blood", "liver", "nan"] * n)[:n]
        clin = pd.DataFrame({"uberon_tissue": labels, "source": "GTEx"}, index=samples)
        clin.to_csv(tmp_path / part / "clin.csv")
    made = curation.curate_deposit(tmp_path / "tissue.h5ad", folder=tmp_path)
    data = curation.load(made.path)
    assert data.obs["tissue"].isna().sum() == 24 and set(data.obs["tissue"].dropna()) == {"blood", "liver"}
    assert data.obs["split"].value_counts().to_dict() == {"train": 54, "validation": 6, "test": 12}
    assert np.isfinite(data.X).all() and 196 <= data.n_vars <= 198 and data.uns["unit"] == "scaled"
    own, samples = tmp_path / "cohort.csv", [f"T{i}" for i in range(20)]
    genes = [f"G{i}" for i in range(150)]
    pd.DataFrame(rng.uniform(0, 9, (20, 150)), samples, genes).to_csv(own, index_label="sample")
    pd.DataFrame({"group": "AML"}, samples).to_csv(tmp_path / "samples.csv")
    cohort = curation.curate_cohort_file(
        tmp_path / "cohort.h5ad", compendium=made.path, file=own, samples=tmp_path / "samples.csv",
        unit="log2(TPM+1)", columns={"group": "group"},
    )  # fmt: skip
    z = curation.standardise(curation.load(cohort.path)).X
    assert np.allclose(z.mean(0), 0, atol=1e-5) and set(np.round(z.std(0), 3)) == {0, 1}


# --- bad input: one line, and nothing half-written ---


def refuses(tmp_path, call, error, *words):
    before = set(tmp_path.rglob("*"))
    with pytest.raises(error) as raised:
        call()
    message = str(raised.value)
    assert "\n" not in message and all(word in message for word in words), message
    assert set(tmp_path.rglob("*")) == before


def test_bad_user_files(tmp_path):
    file, out = own_file(tmp_path), tmp_path / "x.h5ad"
    given = {"file": file, "unit": "log2(TPM+1)", "columns": TISSUE_COLUMNS, "gene_filter": "corrected"}

    def tissue(**changed):
        return lambda: curation.curate_tissue_file(out, **(given | changed))

    refuses(tmp_path, tissue(columns={"tissue": "tisue"}), ValueError, "own.h5ad", "tisue", "organ")
    refuses(tmp_path, tissue(file=tmp_path / "no.h5ad"), FileNotFoundError, "no.h5ad")
    refuses(tmp_path, tissue(min_samples=21), ValueError, "own.h5ad", "0 tissues")
    refuses(tmp_path, tissue(gene_filter="x"), ValueError, "gene_filter", "'x'")
    refuses(tmp_path, tissue(split="donor"), ValueError, "split", "'donor'")
    refuses(tmp_path, tissue(cap_on="test", cap=5), ValueError, "cap_on", "'test'")
    columns = {"sample_type": "organ", "cancer_type": "who"}
    call = lambda: curation.curate_alignment_file(out, file=file, columns=columns, unit="log2(TPM+1)")  # noqa: E731
    refuses(tmp_path, call, ValueError, "own.h5ad", "'liver'", "'cell line'")


def test_bad_archives(raw, tmp_path):
    (tmp_path / "clinical.tsv").write_text("th_sampleid\tdisease\nX1\tglioma\n")
    refuses(
        tmp_path,
        lambda: alignment_of(raw, tmp_path, clinical=tmp_path / "clinical.tsv"),
        ValueError,
        "clinical",
        "X1",
    )
    refuses(
        tmp_path,
        lambda: alignment_of(raw, tmp_path, lines=tmp_path / "none.csv"),
        FileNotFoundError,
        "none.csv",
    )
    refuses(
        tmp_path,
        lambda: alignment_of(raw, tmp_path, missing_purity="mean"),
        ValueError,
        "missing_purity",
        "'mean'",
    )
    refuses(tmp_path, lambda: curation.load(tmp_path / "none.h5ad"), FileNotFoundError, "none.h5ad")


def test_cohort_without_a_common_gene(tissue, tmp_path):
    file = own_file(tmp_path)
    given = {"compendium": tissue.path, "file": file, "columns": {"group": "organ"}, "unit": "log2(TPM+1)"}
    call = lambda: curation.curate_cohort_file(tmp_path / "c.h5ad", **given)  # noqa: E731
    refuses(tmp_path, call, ValueError, "own.h5ad", "60 samples", "0 of the compendium's")


def test_real_tissues(tmp_path):
    if not (REAL / "tissue_counts.h5ad").exists():
        pytest.skip("the real expression data are not beside the repository")
    columns = {"tissue": "tissue", "study": "study", "donor": "donor", "source": "study"}
    settings = {"cap": None, "genes": 5000, "gene_filter": "corrected", "min_samples": 9, "split": "study"}
    made = curation.curate_tissue_file(
        tmp_path / "t.h5ad",
        file=REAL / "tissue_counts.h5ad",
        columns=columns,
        exclude={"label_caveat": ["*"]},
        unit="counts",
        test_fraction=0.3,
        **settings,
    )
    obs = curation.load(made.path).obs
    assert obs["tissue"].nunique() == 16 and len(obs) == 880
    assert (obs.groupby("donor", observed=True)["split"].nunique() == 1).all()
    assert obs.groupby("tissue", observed=True)["split"].nunique().min() == 3
