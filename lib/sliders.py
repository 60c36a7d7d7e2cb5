"""Two places where playing helps: the labels under which RNAlign decodes, and the share of genes that is hidden."""

from __future__ import annotations

import os
from collections.abc import Callable

import anndata as ad
import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import display
from matplotlib.figure import Figure
from sklearn.decomposition import PCA

from lib import plots
from lib.metrics.alignment import delta_d
from lib.metrics.reconstruction import masked_spearman
from lib.models.rnalign import RNAlign
from lib.models.tissue_vae import TissueVAE, random_mask

PURITIES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
HIDDEN = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
SHOWN = 200  # samples behind the picture of the mask: enough to see, and quick
DOTS = 1500  # hidden values drawn


def play(draw: Callable[..., Figure], **controls: widgets.Widget) -> None:
    """Show `draw(**values)`, and in a live notebook the controls (named as draw's arguments) above it.

    Headless, what stays is the picture at the controls' first values, for readers without a kernel.
    """

    def show(**values):
        fig = draw(**values)
        display(fig)
        plt.close(fig)

    if os.environ.get("RNATLAS_PROGRESS"):  # set where a notebook runs headlessly
        show(**{name: control.value for name, control in controls.items()})
    else:
        display(widgets.VBox([*controls.values(), widgets.interactive_output(show, controls)]))


# --- labels at decoding ---------------------------------------------------------------------------------------


def commonest_type(obs: pd.DataFrame) -> str:
    """The cancer type that has most of its rarer sample type. ValueError where no type has both kinds."""
    counts = obs.groupby(["cancer_type", "sample_type"], observed=True).size().unstack(fill_value=0).min(axis=1)
    if not len(counts) or counts.max() < 2 or obs["sample_type"].nunique() < 2:
        raise ValueError("obs: found no cancer type with two tumours and two cell lines, expected one")
    return str(counts.idxmax())


def decodings(rnalign: RNAlign, samples: ad.AnnData) -> dict[tuple[str, float], np.ndarray]:
    """Tumours decoded under every sample type and purity, lines as cell lines of purity 1, as in the paper."""
    tumours = (samples.obs["sample_type"] == "tumour").to_numpy()
    as_published, decoded = rnalign.transform(samples), {}
    for kind in rnalign.sample_types_:
        for purity in PURITIES:
            decoded[kind, purity] = as_published.copy()
            decoded[kind, purity][tumours] = rnalign.transform(samples[tumours], kind, purity)
    return decoded


def play_with_labels(rnalign: RNAlign, given: ad.AnnData) -> pd.DataFrame:
    """Sliders over the labels under which the tumours of one cancer type are decoded; returns ΔD under each.

    given: samples × genes in z-scores, obs as RNAlign needs it. Left: the samples on the principal components of the
    input; right: ΔD between tumours and lines.
    """
    samples = given[(given.obs["cancer_type"] == commonest_type(given.obs)).to_numpy()].to_memory()
    kinds, decoded = samples.obs["sample_type"], decodings(rnalign, samples)
    distances = {key: delta_d(X, kinds) for key, X in decoded.items()}
    table = pd.DataFrame([{"decoded as": k, "purity": p, "delta_d": d} for (k, p), d in distances.items()])
    before, components = delta_d(samples.X, kinds), PCA(2, random_state=0).fit(samples.X)
    maps = {key: components.transform(X) for key, X in decoded.items()}

    def draw(sample_type: str, purity: float) -> Figure:
        shown = {
            "input": components.transform(samples.X),
            f"as {sample_type}, purity {purity:g}": maps[sample_type, purity],
        }
        return plots.labels_played(shown, kinds, table, before, (sample_type, purity))

    kinds_of_tumours = widgets.Dropdown(options=rnalign.sample_types_, value="cell line", description="tumours as")
    slider = widgets.SelectionSlider(options=PURITIES, value=1.0, description="purity")
    play(draw, sample_type=kinds_of_tumours, purity=slider)
    return table


# --- share of genes hidden ------------------------------------------------------------------------------------


def play_with_mask(vaes: dict[str, TissueVAE], test: ad.AnnData, seed: int) -> pd.DataFrame:
    """A slider over the share of genes that is hidden from each sample; returns the Spearman correlation of each.

    test: samples × genes in z-scores, of which `SHOWN` at most are used. Left: hidden values and what the last of
    the models fills in; right: the correlation over all of them, by model.
    """
    rows = np.random.default_rng(seed).permutation(test.n_obs)[:SHOWN]
    samples = test[np.sort(rows)].to_memory()
    table, pairs = [], {}
    for share in HIDDEN:
        mask = random_mask(*samples.shape, share, seed)
        for name, vae in vaes.items():
            imputed = vae.impute(samples, mask)
            estimate = masked_spearman(samples.X, imputed, mask, n_boot=200, seed=seed)
            table.append({"hidden": share, "model": name} | estimate._asdict())
        pairs[share] = pd.DataFrame({"measured": samples.X[mask], "filled in": imputed[mask]})
        pairs[share] = pairs[share].sample(min(DOTS, len(pairs[share])), random_state=seed)
    table = pd.DataFrame(table)
    slider = widgets.SelectionSlider(options=HIDDEN, value=0.3, description="hidden")
    play(lambda hidden: plots.mask_played(pairs[hidden], table, hidden), hidden=slider)
    return table
