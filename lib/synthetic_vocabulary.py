"""Names that the demo archives are written with: genes, tissues, cancer types, and phrases as GEO submitters write them.

Only facts live here; how values are drawn is in lib/synthetic.py. Gene symbols are real where the field knows the marker.
"""

# ruff: noqa: E501
# Tables: one row, one line.
# fmt: off
from __future__ import annotations

from dataclasses import dataclass

# --- genes ---

MITOCHONDRIAL = [
    "MT-ND1", "MT-ND2", "MT-CO1", "MT-CO2", "MT-ATP8", "MT-ATP6", "MT-CO3", "MT-ND3", "MT-ND4L", "MT-ND4",
    "MT-ND5", "MT-ND6", "MT-CYB",
]
RIBOSOMAL = [
    "RPL3", "RPL4", "RPL5", "RPL6", "RPL7", "RPL7A", "RPL8", "RPL10", "RPL10A", "RPL11", "RPL12", "RPL13",
    "RPL13A", "RPL15", "RPL18", "RPL19", "RPL23", "RPL27", "RPL30", "RPL32", "RPL35", "RPL37", "RPL38",
    "RPLP0", "RPLP1", "RPLP2", "RPS2", "RPS3", "RPS3A", "RPS4X", "RPS5", "RPS6", "RPS8", "RPS9", "RPS11",
    "RPS12", "RPS14", "RPS15", "RPS18", "RPS19", "RPS23", "RPS24", "RPS27", "RPSA", "EEF1A1", "EEF2",
    "TPT1",
]
HOUSEKEEPING = [
    "ACTB", "ACTG1", "GAPDH", "B2M", "PPIA", "TBP", "HPRT1", "SDHA", "YWHAZ", "UBC", "HMBS", "GUSB",
    "PGK1", "LDHA", "TUBB", "FTL", "FTH1", "HSP90AB1",
]
STROMA = [
    "COL1A1", "COL1A2", "COL3A1", "COL5A1", "COL5A2", "COL6A1", "COL6A2", "COL6A3", "COL11A1", "FN1",
    "DCN", "LUM", "POSTN", "SPARC", "THBS2", "FAP", "PDGFRB", "PDGFRA", "ACTA2", "TAGLN", "MMP2", "MMP11",
    "VCAN", "BGN", "THY1", "CTHRC1", "SFRP2", "FBLN1", "LOX", "LOXL2", "ASPN", "PECAM1", "CDH5", "KDR",
    "TEK", "ENG",
]
IMMUNE = [
    "PTPRC", "CD3D", "CD3E", "CD2", "CD4", "CD8A", "CD8B", "CD19", "MS4A1", "CD79A", "CD27", "CD28",
    "CTLA4", "PDCD1", "LCK", "ZAP70", "SYK", "BTK", "NKG7", "GNLY", "PRF1", "GZMA", "GZMB", "CCL5",
    "CXCL9", "CXCL10", "CD14", "CD68", "CD163", "CSF1R", "FCGR2A", "FCGR3A", "LYZ", "AIF1", "TYROBP",
    "C1QA", "C1QB", "HLA-DRA", "HLA-DRB1", "CD74", "IL7R", "IL2RG", "IKZF1", "CORO1A", "LCP1", "SPI1",
]
INTERFERON = [
    "ISG15", "IFIT1", "IFIT2", "IFIT3", "IFI6", "IFI44", "IFI44L", "MX1", "MX2", "OAS1", "OAS2", "STAT1",
    "IRF1", "IRF7", "HLA-A", "HLA-B", "HLA-C", "CD274", "IDO1",
]
PROLIFERATION = [
    "MKI67", "TOP2A", "PCNA", "MCM2", "MCM3", "MCM5", "MCM6", "MCM7", "CDK1", "CCNB1", "CCNB2", "CCNA2",
    "AURKA", "AURKB", "PLK1", "BUB1", "BUB1B", "FOXM1", "E2F1", "MAD2L1", "NUSAP1", "PRC1", "KIF11",
    "KIF20A", "HMMR", "DLGAP5", "TTK", "CENPA", "CENPE", "CDKN3", "GINS2", "RFC5", "SMC4", "STIL",
]
EMBRYONIC = [
    "LIN28A", "LIN28B", "IGF2", "H19", "HMGA2", "SALL4", "DLK1", "MEIS2", "PEG10", "TRIM71", "IGF2BP1",
    "IGF2BP3", "NR6A1", "SIX1", "SIX2", "EYA1",
]
CANCER_GENES = [
    "TP53", "KRAS", "NRAS", "HRAS", "BRAF", "PIK3CA", "PTEN", "RB1", "CDKN2A", "MYC", "EGFR", "ERBB3",
    "ERBB4", "MET", "APC", "CTNNB1", "SMAD4", "NF1", "NF2", "ATM", "BRCA1", "BRCA2", "NOTCH1", "NOTCH2",
    "FBXW7", "VHL", "STK11", "ARID1A", "SMARCA4", "SMARCB1", "KMT2D", "EP300", "CREBBP", "DNMT3A", "TET2",
    "IDH1", "IDH2", "JAK1", "JAK2", "STAT3", "MDM2", "CDK4", "CDK6", "CCND1", "MAP2K1", "RAF1", "AKT1",
    "MTOR", "TSC1", "TSC2", "RET", "ALK", "ROS1", "KIT", "FGFR1", "FGFR2", "FGFR3", "NPM1", "FLT3",
    "RUNX1", "GATA1",
]

TISSUE_MARKERS = {
    "brain": "GFAP OLIG1 OLIG2 SOX10 MBP PLP1 SYT1 SNAP25 NEFL NRGN AQP4 GRIN2A",
    "spinal cord": "MOBP MAG MOG HOXC8 HOXC10",
    "nerve": "MPZ PMP22 NGFR S100B CDH19",
    "pituitary": "GH1 PRL POMC TSHB LHB CGA POU1F1",
    "blood": "HBB HBA1 HBA2 S100A8 S100A9 S100A12 FCN1 PPBP",
    "blood vessel": "MYH11 CNN1 LMOD1 MYOCD ELN",
    "bone marrow": "MPO ELANE PRTN3 AZU1 CD34 GYPA",
    "lymphoid": "CR2 CXCL13 PAX5 CD22 FCER2 BCL6",
    "spleen": "CD5L STAB2 TLX1 CLEC4M",
    "thymus": "CD1A CD1B PTCRA RAG1 TSSK6",
    "lung": "SFTPA1 SFTPB SFTPC SCGB1A1 NKX2-1 NAPSA AGER",
    "pleura": "MSLN CALB2 WT1 UPK3B",
    "heart": "MYH6 MYH7 TNNT2 TNNI3 NPPA NPPB MYL7",
    "liver": "ALB APOA1 APOA2 APOB AFP TTR SERPINA1 CYP3A4 CYP2D6 FGB HNF1A",
    "colon": "CDX2 VIL1 LGR5 SATB2 CEACAM5 CA1 KRT20",
    "stomach": "GKN1 GKN2 TFF1 TFF2 MUC5AC PGC GIF",
    "pancreas": "PRSS1 CPA1 CTRB1 CELA3A AMY2A INS GCG PNLIP",
    "esophagus": "CRNN KRT13 MUC21 SPINK5 KRT4",
    "small intestine": "FABP2 SI APOA4 LCT DEFA5 DEFA6",
    "biliary tract": "KRT19 SOX9 CFTR MUC6 SPP1",
    "kidney": "UMOD NPHS1 NPHS2 SLC12A1 SLC12A3 AQP2 CUBN LRP2 PAX8",
    "bladder": "UPK1A UPK1B UPK2 UPK3A",
    "breast": "SCGB2A2 PIP LALBA CSN1S1 CSN2 TFAP2B",
    "ovary": "OGN STAR INHA FOXL2 GATA4 MUC16",
    "uterus": "HOXA11 HOXA13 MSX1 PAEP EMX2",
    "cervix": "MUC5B OVGP1 CDKN2B",
    "vagina": "SPRR3 SPRR2E KRT6C RHCG",
    "testis": "TNP1 PRM1 PRM2 DAZL DDX4 ODF1 SYCP3",
    "prostate": "KLK3 KLK2 NKX3-1 TMPRSS2 ACPP AR STEAP2",
    "placenta": "CGB3 PSG1 CSH1 PAPPA PAPPA2 ERVW-1",
    "skin": "LOR FLG KRT1 KRT10 KRT2 DSC1 MLANA PMEL TYR DCT MITF",
    "fibroblast": "PRRX1 TWIST1 TWIST2 HAS2 SERPINE1 TNFRSF11B",
    "soft tissue": "MEOX1 SCX TNMD MKX",
    "muscle": "ACTA1 CKM MYH2 MYH1 MB TNNT3 MYOD1 MYOG DES",
    "bone": "IBSP BGLAP RUNX2 SP7 ALPL DMP1",
    "adipose": "ADIPOQ LEP PLIN1 FABP4 LPL CIDEC",
    "adrenal gland": "CYP11B1 CYP17A1 CYP21A2 NR5A1 TH DBH PNMT PHOX2B HAND2",
    "thyroid": "TG TPO TSHR SLC26A4 FOXE1",
    "salivary gland": "MUC7 STATH PRB1 HTN1 AMY1A",
    "head and neck": "KRT14 KRT6A DSG3 TP63 KRT16 SERPINB3",
    "eye": "RHO CRX RPE65 RLBP1 BEST1 OPN1SW",
    "stem cell": "POU5F1 NANOG SOX2 DPPA4 TDGF1 ZFP42 DNMT3B",
}
TISSUE_MARKERS = {tissue: symbols.split() for tissue, symbols in TISSUE_MARKERS.items()}

# Genes that are up in a cancer type's subtype; the breast and lung ones hold PAM50 and the usual immunostains.
SUBTYPE_MARKERS = {
    "Luminal": "ESR1 PGR GATA3 FOXA1 XBP1 TFF3 BCL2 NAT1 MLPH SLC39A6 MAPT CXXC5 BLVRA MDM2 CCND1 GPR160 ACTR3B",
    "HER2-enriched": "ERBB2 GRB7 TMEM45B FGFR4 STARD3 PGAP3",
    "Basal": "KRT5 KRT14 KRT17 EGFR FOXC1 CDH3 SFRP1 MIA PHGDH CCNE1 MYBL2 MELK CDC20 CDC6 EXO1 UBE2C UBE2T TYMS RRM2 NDC80 "
    "BIRC5 CEP55 ORC6 PTTG1 ANLN KIF2C NUF2",
    "LUAD": "NKX2-1 NAPSA SFTPB SFTPC KRT7 MUC1 SLC34A2",
    "LUSC": "TP63 KRT5 KRT6A SOX2 DSG3 CALML3 PKP1",
    "SCLC": "ASCL1 NEUROD1 CHGA SYP INSM1 DLL3 NCAM1 CHRNA3",
    "KIRC": "CA9 NDUFA4L2 EGLN3 ANGPTL4",
    "KIRP": "MET AMACR KRT7 ACSM3",
    "Wilms": "WT1 SIX1 SIX2 EYA1 IGF2 H19 CITED1",
    "AML": "MPO KIT FLT3 HOXA9 MEIS1 CD33",
    "ALL": "CD19 PAX5 RAG1 DNTT VPREB1 CD79A MME",
    "Melanoma": "MLANA PMEL TYR MITF SOX10",
    "Neuroblastoma": "PHOX2B HAND2 TH DBH MYCN GATA2 CHGA LMO1",
    "Myeloma": "SDC1 TNFRSF17 IRF4 PRDM1 XBP1 CCND2",
    "Uveal": "MLANA PMEL GNAQ GNA11 HTR2B",
    "Ewing": "NR0B1 NKX2-2 CAV1 STEAP1",
}
SUBTYPE_MARKERS = {subtype: symbols.split() for subtype, symbols in SUBTYPE_MARKERS.items()}

# DepMap's demo header still uses these; the HGNC table knows them (current symbol: previous symbol).
PREVIOUS_SYMBOLS = {"PGAP3": "PERLD1", "ORC6": "ORC6L", "NUF2": "CDCA1", "NDC80": "KNTC2", "FOXC1": "FKHL7"}

# --- tissues ---

# Developmental tree: branch -> groups of sister tissues, which share more.
TISSUE_TREE = {
    "neural": [["brain", "spinal cord"], ["nerve"], ["pituitary"], ["eye"]],
    "surface": [["skin"], ["head and neck", "esophagus"], ["salivary gland", "breast"], ["vagina", "cervix"]],
    "blood": [["blood", "bone marrow"], ["lymphoid", "spleen", "thymus"]],
    "connective": [
        ["adipose"],
        ["fibroblast", "soft tissue", "bone"],
        ["muscle", "heart"],
        ["blood vessel"],
        ["pleura"],
    ],
    "urogenital": [["kidney"], ["ovary", "uterus"], ["testis"], ["prostate", "bladder"], ["adrenal gland"]],
    "endoderm": [
        ["liver", "biliary tract"],
        ["colon", "small intestine"],
        ["stomach", "pancreas"],
        ["lung"],
        ["thyroid"],
    ],
    "extraembryonic": [["placenta"], ["stem cell"]],
}

# Test samples per tissue in the published figure (they are 15 % of each tissue); bone, the 42nd, is not shown there.
PUBLISHED_TEST_COUNTS = {
    "blood": 8377, "stem cell": 2189, "skin": 2160, "brain": 1718, "lung": 1628, "breast": 1542, "lymphoid": 1273,
    "liver": 1100, "colon": 824, "bone marrow": 780, "blood vessel": 742, "prostate": 707, "adipose": 694, "muscle": 670,
    "kidney": 657, "fibroblast": 366, "ovary": 330, "stomach": 325, "thyroid": 306, "heart": 240, "esophagus": 212,
    "placenta": 208, "uterus": 176, "bladder": 165, "cervix": 136, "pancreas": 116, "nerve": 99, "testis": 78,
    "adrenal gland": 74, "spleen": 68, "head and neck": 66, "small intestine": 44, "pituitary": 36, "soft tissue": 35,
    "thymus": 32, "bone": 28, "eye": 24, "salivary gland": 21, "spinal cord": 20, "vagina": 20, "pleura": 12,
    "biliary tract": 4,
}

# GTEx v8: tissue -> (SMTS, SMTSD, RNA-seq samples).
GTEX_SITES = {
    "adipose": [("Adipose Tissue", "Adipose - Subcutaneous", 663), ("Adipose Tissue", "Adipose - Visceral (Omentum)", 541)],
    "adrenal gland": [("Adrenal Gland", "Adrenal Gland", 258)],
    "blood vessel": [("Blood Vessel", "Artery - Tibial", 663), ("Blood Vessel", "Artery - Aorta", 432)],
    "bladder": [("Bladder", "Bladder", 21)],
    "brain": [("Brain", "Brain - Cortex", 255), ("Brain", "Brain - Cerebellum", 241), ("Brain", "Brain - Hippocampus", 197)],
    "spinal cord": [("Brain", "Brain - Spinal cord (cervical c-1)", 159)],
    "breast": [("Breast", "Breast - Mammary Tissue", 459)],
    "fibroblast": [("Skin", "Cells - Cultured fibroblasts", 504)],
    "lymphoid": [("Blood", "Cells - EBV-transformed lymphocytes", 174)],
    "cervix": [("Cervix Uteri", "Cervix - Ectocervix", 9), ("Cervix Uteri", "Cervix - Endocervix", 10)],
    "colon": [("Colon", "Colon - Sigmoid", 373), ("Colon", "Colon - Transverse", 406)],
    "esophagus": [("Esophagus", "Esophagus - Mucosa", 555), ("Esophagus", "Esophagus - Muscularis", 515)],
    "heart": [("Heart", "Heart - Left Ventricle", 432), ("Heart", "Heart - Atrial Appendage", 429)],
    "kidney": [("Kidney", "Kidney - Cortex", 85)],
    "liver": [("Liver", "Liver", 226)],
    "lung": [("Lung", "Lung", 578)],
    "salivary gland": [("Salivary Gland", "Minor Salivary Gland", 162)],
    "muscle": [("Muscle", "Muscle - Skeletal", 803)],
    "nerve": [("Nerve", "Nerve - Tibial", 619)],
    "ovary": [("Ovary", "Ovary", 180)],
    "pancreas": [("Pancreas", "Pancreas", 328)],
    "pituitary": [("Pituitary", "Pituitary", 283)],
    "prostate": [("Prostate", "Prostate", 245)],
    "skin": [("Skin", "Skin - Sun Exposed (Lower leg)", 701), ("Skin", "Skin - Not Sun Exposed (Suprapubic)", 604)],
    "small intestine": [("Small Intestine", "Small Intestine - Terminal Ileum", 187)],
    "spleen": [("Spleen", "Spleen", 241)],
    "stomach": [("Stomach", "Stomach", 359)],
    "testis": [("Testis", "Testis", 361)],
    "thyroid": [("Thyroid", "Thyroid", 653)],
    "uterus": [("Uterus", "Uterus", 142)],
    "vagina": [("Vagina", "Vagina", 156)],
    "blood": [("Blood", "Whole Blood", 755)],
}

# How GEO submitters name a sample of each tissue (source_name or `tissue:`).
GEO_PHRASES = {
    "brain": [
        "prefrontal cortex", "Brain", "hippocampus", "post-mortem brain tissue", "Cerebellum",
        "glioblastoma tumor",
    ],
    "spinal cord": ["spinal cord", "lumbar spinal cord"],
    "nerve": ["sciatic nerve", "Peripheral nerve", "schwannoma, vestibular nerve"],
    "pituitary": ["pituitary gland", "Pituitary adenoma"],
    "blood": [
        "whole blood", "PBMC", "peripheral blood mononuclear cells", "Whole Blood", "peripheral blood",
        "monocytes",
    ],
    "blood vessel": ["aorta", "umbilical vein endothelial cells", "Carotid artery", "HUVEC"],
    "bone marrow": ["bone marrow", "Bone marrow aspirate", "bone marrow mononuclear cells"],
    "lymphoid": ["lymph node", "Lymph Node biopsy", "tonsil", "lymphoid tissue"],
    "spleen": ["spleen", "Spleen tissue"],
    "thymus": ["thymus", "pediatric thymus"],
    "lung": ["lung", "Lung tissue", "lung adenocarcinoma", "bronchial epithelium", "normal lung"],
    "pleura": ["pleura", "malignant pleural mesothelioma"],
    "heart": ["heart", "left ventricle", "Heart tissue, failing"],
    "liver": ["liver", "Liver biopsy", "hepatocellular carcinoma, liver", "primary human hepatocytes"],
    "colon": ["colon", "colon mucosa", "colorectal tumor", "Colonic biopsy"],
    "stomach": ["stomach", "gastric mucosa", "gastric cancer tissue"],
    "pancreas": ["pancreas", "pancreatic islets", "pancreatic ductal adenocarcinoma"],
    "esophagus": ["esophagus", "Esophageal biopsy"],
    "small intestine": ["small intestine", "duodenum", "ileum biopsy"],
    "biliary tract": ["bile duct", "gallbladder"],
    "kidney": ["kidney", "Kidney cortex", "renal biopsy", "clear cell renal cell carcinoma"],
    "bladder": ["bladder", "urinary bladder tumor", "urothelial carcinoma"],
    "breast": ["breast", "breast tumor", "Breast cancer tissue", "mammary gland"],
    "ovary": ["ovary", "ovarian tumor", "high-grade serous ovarian cancer"],
    "uterus": ["endometrium", "uterus", "endometrial biopsy", "myometrium"],
    "cervix": ["cervix", "cervical tissue"],
    "vagina": ["vagina", "vaginal epithelium"],
    "testis": ["testis", "testicular biopsy"],
    "prostate": ["prostate", "prostate tumor", "Prostate cancer, radical prostatectomy"],
    "placenta": ["placenta", "placental villi", "Placenta, term"],
    "skin": ["skin", "skin biopsy", "epidermal keratinocytes", "lesional skin", "melanoma tumor, skin"],
    "fibroblast": ["dermal fibroblasts", "primary fibroblasts", "fibroblast"],
    "soft tissue": ["soft tissue", "soft tissue sarcoma"],
    "muscle": ["skeletal muscle", "vastus lateralis", "muscle biopsy"],
    "bone": ["bone", "osteosarcoma, bone"],
    "adipose": ["adipose tissue", "subcutaneous adipose tissue", "visceral fat"],
    "adrenal gland": ["adrenal gland", "adrenocortical tissue"],
    "thyroid": ["thyroid", "thyroid gland", "papillary thyroid carcinoma"],
    "salivary gland": ["salivary gland", "parotid gland"],
    "head and neck": ["oral cavity", "head and neck squamous cell carcinoma"],
    "eye": ["retina", "Eye", "macular RPE/choroid"],
    "stem cell": ["iPSC", "human embryonic stem cells", "induced pluripotent stem cells", "hESC"],
}
UNMAPPABLE_PHRASES = [
    "organoid, passage 4", "patient-derived xenograft", "sorted cells", "Universal Human Reference RNA", "plasma exosomes",
    "primary culture", "tumor", "biopsy", "metastasis", "not available", "ChIP input", "pooled brain and liver RNA",
    "mixed tissue pool", "treated cells 24h", "siRNA control",
]
GEO_CONDITIONS = [
    "control", "treated", "healthy", "patient", "untreated", "disease", "vehicle", "donor", "case", "rep",
    "tumor", "normal",
]

# --- cancers ---


@dataclass(frozen=True)
class Subtype:
    """One row of the cancer table: how many, what it comes from, and what each archive calls it.

    tumours, lines: relative numbers; origin: tissues whose programmes it starts from; treehouse, tcga: disease strings (tcga ""
    for types TCGA does not hold); cohort: sample-id prefix of its tumours; lineage: (DepMap disease, lineage, lineage_subtype,
    lineage_molecular_subtype); purity: mean; culture: strength of the adaptation of its lines (2 or more: they do not align).
    """

    cancer_type: str
    subtype: str
    tumours: int
    lines: int
    origin: tuple[str, ...]
    treehouse: str
    tcga: str
    cohort: str
    lineage: tuple[str, str, str, str]
    purity: float = 0.68
    culture: float = 1.0
    embryonic: bool = False


_BREAST = ("Breast Cancer", "breast", "breast_carcinoma")
_LUNG = ("Lung Cancer", "lung")
_KIDNEY = ("Kidney Cancer", "kidney", "renal_cell_carcinoma", "")
CANCERS = [
    Subtype("Breast", "Luminal", 62, 9, ("breast",), "breast invasive carcinoma", "breast invasive carcinoma", "TCGA", (*_BREAST, "luminal")),
    Subtype("Breast", "HER2-enriched", 20, 5, ("breast",), "breast invasive carcinoma", "breast invasive carcinoma", "TCGA", (*_BREAST, "HER2_amp")),
    Subtype("Breast", "Basal", 28, 10, ("breast",), "breast invasive carcinoma", "breast invasive carcinoma", "TCGA", (*_BREAST, "basal_A")),
    Subtype("Lung", "LUAD", 54, 20, ("lung",), "lung adenocarcinoma", "lung adenocarcinoma", "TCGA", (*_LUNG, "NSCLC", "NSCLC_adenocarcinoma")),
    Subtype("Lung", "LUSC", 46, 10, ("lung", "head and neck"), "lung squamous cell carcinoma", "lung squamous cell carcinoma", "TCGA", (*_LUNG, "NSCLC", "NSCLC_squamous")),
    Subtype("Lung", "SCLC", 14, 13, ("lung", "nerve"), "small cell lung cancer", "", "THR", (*_LUNG, "SCLC", "")),
    Subtype("Brain", "Glioma", 80, 18, ("brain",), "glioma", "glioblastoma multiforme", "TCGA", ("Brain Cancer", "central_nervous_system", "glioma", ""), 0.75, 2.2),
    Subtype("Bowel", "COAD", 64, 18, ("colon",), "colon adenocarcinoma", "colon adenocarcinoma", "TCGA", ("Colon/Colorectal Cancer", "colorectal", "colorectal_adenocarcinoma", "")),
    Subtype("Kidney", "KIRC", 48, 10, ("kidney",), "kidney clear cell carcinoma", "kidney clear cell carcinoma", "TCGA", _KIDNEY, 0.6),
    Subtype("Kidney", "KIRP", 26, 3, ("kidney",), "kidney papillary cell carcinoma", "kidney papillary cell carcinoma", "TCGA", _KIDNEY, 0.7),
    Subtype("Kidney", "Wilms", 36, 0, ("kidney", "uterus", "ovary", "testis"), "wilms tumor", "", "TARGET", _KIDNEY, 0.8, 1.0, True),
    Subtype("Liver", "HCC", 44, 9, ("liver",), "hepatocellular carcinoma", "liver hepatocellular carcinoma", "TCGA", ("Liver Cancer", "liver", "hepatocellular_carcinoma", ""), 0.72, 2.0),
    Subtype("Bladder", "Urothelial", 40, 9, ("bladder",), "bladder urothelial carcinoma", "bladder urothelial carcinoma", "TCGA", ("Bladder Cancer", "urinary_tract", "bladder_carcinoma", ""), 0.62),
    Subtype("Head and Neck", "HNSC", 48, 12, ("head and neck",), "head & neck squamous cell carcinoma", "head & neck squamous cell carcinoma", "TCGA", ("Head and Neck Cancer", "upper_aerodigestive", "upper_aerodigestive_squamous", ""), 0.6),
    Subtype("Thyroid", "PTC", 50, 6, ("thyroid",), "thyroid carcinoma", "thyroid carcinoma", "TCGA", ("Thyroid Cancer", "thyroid", "thyroid_carcinoma", ""), 0.75, 2.4),
    Subtype("Prostate", "PRAD", 50, 4, ("prostate",), "prostate adenocarcinoma", "prostate adenocarcinoma", "TCGA", ("Prostate Cancer", "prostate", "prostate_adenocarcinoma", ""), 0.65),
    Subtype("Stomach", "STAD", 42, 12, ("stomach",), "stomach adenocarcinoma", "stomach adenocarcinoma", "TCGA", ("Gastric Cancer", "gastric", "gastric_adenocarcinoma", ""), 0.58),
    Subtype("Esophagus", "ESCC", 30, 9, ("esophagus",), "esophageal carcinoma", "esophageal carcinoma", "TCGA", ("Esophageal Cancer", "esophagus", "esophagus_squamous", ""), 0.6, 2.0),
    Subtype("Pancreas", "PDAC", 32, 13, ("pancreas", "biliary tract"), "pancreatic adenocarcinoma", "pancreatic adenocarcinoma", "TCGA", ("Pancreatic Cancer", "pancreas", "exocrine", ""), 0.42),
    Subtype("Bile Duct", "CHOL", 14, 7, ("biliary tract",), "cholangiocarcinoma", "cholangiocarcinoma", "TCGA", ("Bile Duct Cancer", "bile_duct", "cholangiocarcinoma", ""), 0.6, 2.2),
    Subtype("Ovary", "HGSOC", 46, 14, ("ovary",), "ovarian serous cystadenocarcinoma", "ovarian serous cystadenocarcinoma", "TCGA", ("Ovarian Cancer", "ovary", "ovary_adenocarcinoma", ""), 0.74),
    Subtype("Uterus", "UCEC", 42, 9, ("uterus",), "uterine corpus endometrioid carcinoma", "uterine corpus endometrioid carcinoma", "TCGA", ("Endometrial/Uterine Cancer", "uterus", "endometrial_adenocarcinoma", ""), 0.7),
    Subtype("Cervix", "CESC", 30, 6, ("cervix",), "cervical & endocervical cancer", "cervical & endocervical cancer", "TCGA", ("Cervical Cancer", "cervix", "cervical_carcinoma", "")),
    Subtype("Skin", "Melanoma", 52, 16, ("skin",), "skin cutaneous melanoma", "skin cutaneous melanoma", "TCGA", ("Skin Cancer", "skin", "melanoma", ""), 0.76, 0.7),
    Subtype("Eye", "Uveal", 18, 3, ("eye", "skin"), "uveal melanoma", "uveal melanoma", "TCGA", ("Eye Cancer", "eye", "uveal_melanoma", ""), 0.85, 2.0),
    Subtype("Bone", "Osteosarcoma", 24, 6, ("bone",), "osteosarcoma", "", "TARGET", ("Bone Cancer", "bone", "osteosarcoma", ""), 0.75, 1.0, True),
    Subtype("Bone", "Ewing", 16, 7, ("bone", "nerve"), "Ewing sarcoma", "", "THR", ("Bone Cancer", "bone", "Ewing_sarcoma", ""), 0.8, 0.7, True),
    Subtype("Soft Tissue", "Sarcoma", 34, 8, ("soft tissue", "muscle"), "sarcoma", "sarcoma", "TCGA", ("Sarcoma", "soft_tissue", "leiomyosarcoma", "")),
    Subtype("Leukaemia", "AML", 56, 13, ("bone marrow", "blood"), "acute myeloid leukemia", "", "TARGET", ("Leukemia", "blood", "AML", ""), 0.9, 0.7),
    Subtype("Leukaemia", "ALL", 48, 11, ("bone marrow", "lymphoid"), "acute lymphoblastic leukemia", "", "TARGET", ("Leukemia", "blood", "ALL", ""), 0.9, 0.7),
    Subtype("Lymphoma", "DLBCL", 24, 14, ("lymphoid",), "diffuse large B-cell lymphoma", "diffuse large B-cell lymphoma", "TCGA", ("Lymphoma", "lymphocyte", "lymphoma_unspecified", ""), 0.8, 0.7),
    Subtype("Multiple Myeloma", "Myeloma", 20, 8, ("bone marrow", "lymphoid"), "multiple myeloma", "", "THR", ("Myeloma", "plasma_cell", "multiple_myeloma", ""), 0.85, 2.0),
    Subtype("Neuroblastoma", "Neuroblastoma", 46, 9, ("nerve", "brain", "adrenal gland"), "neuroblastoma", "", "TARGET", ("Neuroblastoma", "peripheral_nervous_system", "neuroblastoma", ""), 0.78, 0.7, True),
    Subtype("Mesothelioma", "Pleural", 22, 5, ("pleura",), "mesothelioma", "mesothelioma", "TCGA", ("Lung Cancer", "lung", "mesothelioma", ""), 0.62),
]

# Tumours that only TARGET holds; clear cell sarcoma of the kidney starts from no kidney programme at all.
TARGET_ONLY = [
    Subtype("Kidney", "Rhabdoid", 0, 0, ("kidney", "soft tissue", "stem cell"), "rhabdoid tumor of the kidney", "", "TARGET", _KIDNEY, 0.85, 1.0, True),
    Subtype("Kidney", "CCSK", 0, 0, ("soft tissue", "nerve", "placenta"), "clear cell sarcoma of the kidney", "", "TARGET", _KIDNEY, 0.85, 1.0, True),
]

# TARGET groups: code -> (published n, subtype above, disease as Xena writes it, code in the sample id).
TARGET_GROUPS = {
    "AML": (196, "AML", "Acute Myeloid Leukemia", "20"),
    "ALL": (194, "ALL", "Acute Lymphoblastic Leukemia", "10"),
    "AML-IF": (32, "AML", "Acute Myeloid Leukemia, Induction Failure Subproject", "21"),
    "NBL": (162, "Neuroblastoma", "Neuroblastoma", "30"),
    "Wilms": (132, "Wilms", "Wilms Tumor", "50"),
    "rhabdoid": (5, "Rhabdoid", "Rhabdoid Tumor", "52"),
    "CCSK": (13, "CCSK", "Clear Cell Sarcoma of the Kidney", "51"),
}

# Names of lines that everybody knows, by cancer type and subtype; the demo's other lines get invented names.
KNOWN_LINES = {
    "Luminal": ["MCF7", "T47D", "ZR751"], "HER2-enriched": ["SKBR3", "BT474"], "Basal": ["MDAMB231", "MDAMB468", "BT549"],
    "LUAD": ["A549", "NCIH1975", "PC9"], "LUSC": ["NCIH520"], "SCLC": ["NCIH69", "DMS53"], "Glioma": ["U87MG", "T98G"],
    "COAD": ["HCT116", "HT29", "SW480", "LOVO"], "KIRC": ["786O", "A498"], "HCC": ["HEPG2", "HUH7"], "Urothelial": ["T24", "RT4"],
    "HNSC": ["CAL27", "FADU"], "PTC": ["TPC1", "K1"], "PRAD": ["PC3", "DU145", "LNCAP"], "STAD": ["AGS", "MKN45"],
    "ESCC": ["KYSE30", "TE1"], "PDAC": ["PANC1", "MIAPACA2", "ASPC1"], "HGSOC": ["OVCAR3", "OVCAR8"], "UCEC": ["ISHIKAWA", "HEC1A"],
    "CESC": ["HELA", "SIHA"], "Melanoma": ["A375", "SKMEL5"], "Uveal": ["MEL202"], "Osteosarcoma": ["U2OS", "SAOS2"],
    "Ewing": ["A673"], "Sarcoma": ["HT1080"], "AML": ["HL60", "THP1", "K562"], "ALL": ["JURKAT", "MOLT4", "NALM6"],
    "DLBCL": ["RAJI", "DAUDI"], "Myeloma": ["RPMI8226", "U266B1"], "Neuroblastoma": ["SHSY5Y", "KELLY"], "Pleural": ["NCIH2452"],
}
