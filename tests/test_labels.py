"""Tables and look-ups of lib/labels.py: tissues from free text, cell lines from names, cancer types."""

import re

import pandas as pd
import pytest

from lib import labels

# Names as DepMap 19Q4 strips them, the traps among them: patients, samples, a gene, a number.
DEPMAP = [
    "A375",
    "A549",
    "HT29",
    "HCT116",
    "PANC1",
    "MDAMB231",
    "T47D",
    "U87MG",
    "SKMEL28",
    "22RV1",
    "SHSY5Y",
    "CALU3",
    "CACO2",
    "HUH7",
    "HS578T",
    "NCIH1299",
    "NCIH460",
    "RPMI8226",
    "BEAS2B",
    "HCC15",
    "HCC44",
    "HCC56",
    "SCC25",
    "LN18",
    "NOMO1",
    "TALL1",
    "5637",
    "PC3",
    "T24",
    "AGS",
]
NAMES = labels.cell_line_names(DEPMAP, genes=["NOMO1", "TP53"])


@pytest.mark.parametrize(
    ("fields", "tissue"),
    [
        (("bone marrow",), "bone marrow"),
        (("bone marrow-derived macrophages",), "bone marrow"),
        (("trabecular bone",), "bone"),
        (("Spinal cord, brain bank",), "spinal cord"),
        (("umbilical cord blood",), "blood"),
        (("uveal melanoma",), "eye"),
        (("renal cortex",), "kidney"),
        (("adipose-derived stem cells",), "stem cell"),
        (("brain metastasis of lung adenocarcinoma",), ""),
        (("liver and kidney",), ""),
        (("sample 12", "", "sample 12"), ""),
        (("brain-derived neurotrophic factor",), ""),
        (("HEK293 kidney",), "kidney"),
        (("biopsy", "tissue: lung, left lobe,age: 40"), "lung"),
        (("cells", "age: 40,cell type: hepatocytes"), "liver"),
        (("cells", "cell type: T cells,tissue: spleen"), "spleen"),
        (("RNA", "disease: lung cancer", "Thyroid rep 1"), "thyroid"),
        (("liver", "tissue: colon", "kidney"), "liver"),
        (("liver", "", "liver metastasis"), ""),
        (("cerebrum's CORTEX",), "brain"),
        (("boneless", "", "livery"), ""),
    ],
)
def test_map_tissue(fields, tissue):
    assert labels.map_tissue(*fields)[0] == tissue


def test_map_tissue_says_why():
    assert labels.map_tissue("lung and liver") == ("", "source_name", "two tissues")
    assert labels.map_tissue("x", "tissue: colon") == ("colon", "tissue:", "mapped")
    assert labels.map_tissue("x") == ("", "", "no tissue word")


def test_tissue_table_is_consistent():
    table = labels.tissue_table()
    named = table[~table["tissue"].isin(["ignore", "unmapped"])]
    assert not table.duplicated(["field", "keyword"]).any()
    assert (named.groupby("tissue")[["uberon_id", "organ_system"]].nunique() == 1).all().all()
    assert named["uberon_id"].str.fullmatch(r"(UBERON|CL):\d{7}").all()
    assert named["tissue"].nunique() == 42 and named["uberon_id"].nunique() == 42
    free = table.loc[table["field"] == "free text", "keyword"]
    assert (free == free.map(labels.normalise)).all()


def test_archive_vocabularies_are_complete():
    fields = labels.tissue_table().groupby("field").size()
    assert fields["GTEx SMTSD"] >= 54 and fields["TCGA"] == 66
    gtex = pd.Series(["Brain - Spinal cord (cervical c-1)", "Cells - EBV-transformed lymphocytes", "no such", None])
    assert labels.map_labels(gtex, "GTEx SMTSD").tolist() == ["spinal cord", "lymphoid", "", ""]
    assert labels.map_labels(pd.Series(["READ", "mesothelioma"]), "TCGA").tolist() == ["colon", "pleura"]


def test_organ_systems_know_a_users_names():
    table = labels.organ_systems(pd.Series(["blood", "salivary_gland", "bile_duct", "mystery"]))
    assert table["organ_system"].tolist() == ["Blood/Immune", "Endocrine", "GI tract", "Other"]
    assert table["uberon_id"].tolist()[-1] == ""


def test_score_tissue_map_on_a_hand_count():
    strings = pd.DataFrame(
        {"source_name": ["liver", "liver", "hepatic lung", "none"], "characteristics": "", "title": ""}
    ).assign(tissue=["liver", "lung", "lung", "unmapped"])
    table = labels.score_tissue_map(strings)
    assert table.loc["liver", ["n", "called", "correct"]].tolist() == [1, 2, 1]
    assert table.loc["lung", "recall"] == 0 and table.loc["liver", "precision"] == 0.5
    assert table.loc["all tissues", ["n", "called", "correct"]].tolist() == [3, 2, 1]


def test_labelled_strings_reach_their_floor():
    strings, table = labels.labelled_strings(), labels.score_tissue_map()
    assert len(strings) >= 300 and strings["tissue"].nunique() == 43
    development, held_out = (table.loc[f"all tissues, {s}"] for s in ("development", "held out"))
    assert development["precision"] > 0.98 and development["recall"] > 0.93
    assert 0.55 < held_out["precision"] < 1 and held_out["recall"] > 0.4  # hard on purpose: traps and rare wording


@pytest.mark.parametrize(
    ("text", "token"),
    [
        ("SK-MEL-28_r1", "SKMEL28"),
        ("MDA-MB-231 cells", "MDAMB231"),
        ("A549-shCtrl", "A549"),
        ("MCF-7", "MCF7"),
        ("U-2 OS", "U2OS"),
        ("HCT 116 p53-/-", "HCT116"),
        ("cell line: HeLa,passage: 4", "HELA"),
        ("Hep G2", "HEPG2"),
        ("HCC15 tumour", ""),
        ("HCC 44", ""),
        ("T-ALL1", ""),
        ("patient 5637", ""),
        ("siNOMO1", ""),
        ("NOMO1 knockdown", ""),
        ("MCF70 plate", ""),
        ("brain", ""),
        ("PC-3", ""),
    ],
)
def test_cell_line_token(text, token):
    assert labels.cell_line_token([text], NAMES) == token


def test_cell_line_names_follow_the_rule():
    names = labels.cell_line_names(["SK-MEL-28", "AGS", "LOVO", "T24", "A549", "H3K27AC"])
    assert names["SKMEL28"] == "DepMap" and names["A549"] == "ENCODE"
    assert not {"AGS", "LOVO", "T24", "H3K27AC"} & set(names)


def test_cell_line_filter_on_labelled_strings():
    outcome = labels.score_cell_line_filter(NAMES)["outcome"].value_counts()
    precision = outcome["true positive"] / (outcome["true positive"] + outcome["false positive"])
    recall = outcome["true positive"] / (outcome["true positive"] + outcome["false negative"])
    assert 0.9 < precision < 1 and 0.8 < recall < 1  # names without a digit or too short escape the rule


def test_cancer_types():
    treehouse = pd.Series(["Glioma", "wilms tumor", "germ cell tumor", "something new", None])
    assert labels.map_cancer_types(treehouse, "treehouse").tolist() == ["Brain", "Kidney", "", "", ""]
    assert labels.map_cancer_types(pd.Series(["urinary_tract", "mesothelioma"]), "depmap").tolist() == [
        "Bladder",
        "Mesothelioma",
    ]
    table = pd.read_csv(labels.DATA / "cancer_type_map.csv", keep_default_na=False)
    assert table.loc[table["cancer_type"] != "", "cancer_type"].nunique() == 26
    assert not table.assign(label=table["source_label"].str.lower()).duplicated(["source", "label"]).any()


@pytest.mark.parametrize(
    ("cancer_type", "text", "expected"),
    [
        ("Breast", "breast_carcinoma luminal_HER2_amp", "Luminal"),
        ("Breast", "HER2_amp", "HER2-enriched"),
        ("Breast", "basal_A", "Basal"),
        ("Breast", "breast invasive carcinoma", ""),
        ("Lung", "NSCLC NSCLC_adenocarcinoma", "LUAD"),
        ("Lung", "lung squamous cell carcinoma", "LUSC"),
        ("Lung", "small cell lung cancer", "SCLC"),
        ("Lung", "non-small cell lung cancer, large cell", "LCC"),
        ("Lung", "NSCLC adenosquamous", "other"),
        ("Lung", "NSCLC", "other"),
        ("Lung", "", ""),
        ("Kidney", "luminal", ""),
    ],
)
def test_subtype(cancer_type, text, expected):
    assert labels.subtype(cancer_type, text) == expected


def test_target_table_holds_both_rubrics():
    table = labels.expected_tissues()
    assert table.drop_duplicates("group")["n_published"].sum() == 734
    code = table[table["expected_code"]].groupby("group")["tissue"].agg(set)
    text = table[table["expected_text"]].groupby("group")["tissue"].agg(set)
    assert code["rhabdoid"] == code["CCSK"] == {"kidney"} and "CCSK" not in text
    assert text["rhabdoid"] == code["Wilms"] == {"kidney", "ovary", "uterus", "testis"}
    assert set(table["tissue"]) <= set(labels.tissue_classes().index)
    ids = pd.Index(["TARGET-20-PANGDM-09A", "TARGET-21-PASMHY-09A", "TARGET-40-PAKUZU-01A", "TCGA-20-1-01"])
    assert labels.target_groups(ids).tolist() == ["AML", "AML-IF", "", ""]


def test_map_tissues_takes_an_archs4_table():
    obs = pd.DataFrame({"source_name_ch1": ["liver", None], "title": ["a", "Spleen 2"]}, index=["s1", "s2"])
    mapped = labels.map_tissues(obs)
    assert mapped["tissue"].tolist() == ["liver", "spleen"] and mapped["field"].tolist() == [
        "source_name",
        "title",
    ]


def test_no_keyword_is_a_gene_or_antibody_token():
    keywords = labels.tissue_table().query("field == 'free text'")["keyword"]
    assert not keywords.str.fullmatch(re.compile(r"cd\d+|h3k\d+\w+|tp53|fat1|skin1")).any()
