"""The demo's tissue samples in the layout of what paper B's authors deposited, for `tissue: {source: deposit}`.

deposit/processed_scaled_411k_tissue_B_h5/{train,test}/gex.h5   expression, gene_symbols, sample_ids; standardised
                                          {train,test}/clin.csv uberon_tissue, source; some labels "nan"
deposit/embeddings_{train,test}.csv                             a code per sample
deposit/{train,test}_clin.csv                                   the same labels, in an order of their own
deposit/{ref,tgt}_emb_bf93M.npy                                 test part, in the order of test_clin.csv, and TARGET

The codes are principal components: stand-ins for the authors' VAE and for BulkFormer, in their files' form.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import anndata as ad
import h5py
import numpy as np
import pandas as pd
from sklearn.decomposition import PCA

from lib import compendia, curation
from lib.config import Profile

COMPONENTS = 32
UNLABELLED_EVERY = 50  # every so manieth label is "nan", as some of the deposit's are


def write_deposit(run: Profile) -> Path:
    """Curate the demo's archives and write them as the deposit, below `run.raw`; returns its folder."""
    folder = run.raw / "deposit"
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as scratch:
        tissue, cohort = (Path(scratch) / f"{name}.h5ad" for name in ("tissue", "cohort"))
        compendia.curate_archives(run, tissue)
        compendia.curate_target(run, cohort, tissue)
        data, target = (curation.standardise(curation.load(path)) for path in (tissue, cohort))
    is_test = (data.obs["split"] == "test").to_numpy()
    parts = {"train": data[~is_test], "test": data[is_test]}
    pca = PCA(min(COMPONENTS, *data.shape), svd_solver="randomized", random_state=run.seed).fit(parts["train"].X)
    order = np.random.default_rng(run.seed)
    for name, part in parts.items():
        clin = _write_part(folder / compendia.DEPOSIT_FOLDER / name, part)
        clin = clin.iloc[order.permutation(len(clin))]
        clin.to_csv(folder / f"{name}_clin.csv", index_label="sample_id")
        parts[name] = part[clin.index]
        codes = pd.DataFrame(pca.transform(part.X).astype(np.float32), index=part.obs_names)
        codes.to_csv(folder / f"embeddings_{name}.csv", index_label="sample_id", float_format="%.6g")
    for name, part in (("ref", parts["test"]), ("tgt", target)):
        np.save(folder / f"{name}_emb_bf93M.npy", pca.transform(part.X).astype(np.float32))
    return folder


def _write_part(folder: Path, part: ad.AnnData) -> pd.DataFrame:
    """gex.h5 and clin.csv of a part; returns the latter."""
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / "gex.h5", "w") as file:
        file.create_dataset("expression", data=np.asarray(part.X, np.float32), chunks=(1, part.n_vars))
        file["sample_ids"] = np.array(part.obs_names, "S")
        file["gene_symbols"] = np.array(part.var_names, "S")
    labels = part.obs["tissue"].astype(str).to_numpy(dtype=object)
    labels[UNLABELLED_EVERY - 1 :: UNLABELLED_EVERY] = "nan"
    clin = pd.DataFrame({"uberon_tissue": labels, "source": part.obs["source"].astype(str).to_numpy()}, part.obs_names)
    clin.to_csv(folder / "clin.csv", index_label="sample_id")
    return clin
