"""Every kind of picture, and the one place that knows style and colours."""

from __future__ import annotations

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.colors import LogNorm, to_hex
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox
from scipy.spatial.distance import cdist

from lib import config, notebooks
from lib.files import replacing

COLUMN = 3.5  # inches: a journal's single column
PAGE = 7.2  # inches: a journal's full width
DPI = 200

# Okabe & Ito (2008): told apart by readers of every kind of colour vision.
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
GREY, LIGHT = "#888888", "#DDDDDD"
PUBLISHED = {"marker": "D", "s": 18, "facecolor": "white", "edgecolor": BLACK, "lw": 0.8, "zorder": 3, "label": "paper"}

METHODS = {
    "input": BLUE,
    "RNAlign": VERMILION,
    "Celligner": GREEN,
    "Celligner, absolute order": "#66C2A5",
    "linear projection": PURPLE,
    "type mean": GREY,
    "ComBat": ORANGE,
    "Harmony": SKY,
    "tissue VAE": GREEN,
    "kNN, all genes": SKY,
    "logistic regression": ORANGE,
}
# Families of methods in paper B's figure 5, its hues.
FAMILIES = {
    "supervised VAE": GREEN,
    "kNN on expression": SKY,
    "reduction, then kNN": GREY,
    "supervised, no decoder": ORANGE,
    "foundation model": VERMILION,
}
VARIANTS = {
    "standard": GREY,
    "denoising": PURPLE,
    "corrected": SKY,
    "faithful": VERMILION,
    "faithful, mean decoded": ORANGE,
}
SOURCES = {"ARCHS4": "#E6A817", "GTEx": "#3498DB", "TCGA": "#C0392B", "DepMap": "#27AE60"}
# The published hues (paper B, figure 1), darkened where neighbours could not be told apart.
ORGAN_SYSTEMS = {
    "Brain": "#4472C4",
    "Blood/Immune": "#C0504D",
    "Thoracic": "#8DB33A",
    "GI tract": "#8064A2",
    "Urinary": "#00A5DC",
    "Reproductive": "#FF8C00",
    "Skin/Connective": "#7F4F24",
    "Endocrine": "#FF69B4",
    "Head & Neck": "#1B7F4B",
    "Other": "#8A8A8A",
}
# Expected tissues of figure 4 by developmental origin: haematopoietic red and neural blue as published, tissues of the
# intermediate mesoderm in the teal of the paper's figure 6b, since its greys can't be told from "other".
ORIGINS = {
    "blood": "#A93226",
    "bone marrow": "#D9705F",
    "lymphoid": "#F2B8A8",
    "brain": "#1F4E8C",
    "nerve": "#4A90D9",
    "adrenal gland": "#A9CCEE",
    "kidney": "#01564E",
    "ovary": "#2E9C8F",
    "uterus": "#7CCBBF",
    "testis": "#C3EAE2",
}
UNEXPECTED = "#EEEEEE"

_run: config.Profile | None = None


def use_style(run: config.Profile) -> None:
    """Set the style of all figures, and the profile whose folder `save` and `save_table` write to."""
    global _run
    _run = run
    sns.set_theme(context="paper", style="ticks", rc={
        "figure.dpi": 110, "savefig.dpi": DPI, "figure.constrained_layout.use": True,
        "font.family": "DejaVu Sans", "font.size": 8, "axes.titlesize": 9, "axes.labelsize": 8,
        "legend.fontsize": 7, "legend.frameon": False, "xtick.labelsize": 7, "ytick.labelsize": 7,
        "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "rnatlas",
    })  # fmt: skip


def cancer_type_colours(types: list[str]) -> dict[str, str]:
    """One colour for each cancer type: the same in every figure, by the order of data/cancer_type_map.csv."""
    known = pd.read_csv(config.ROOT / "data" / "cancer_type_map.csv")["cancer_type"].dropna().unique()
    names = [*sorted(known), *sorted(set(types) - set(known))]
    return _many_colours(names)


def source_colours(sources: list[str]) -> dict[str, str]:
    """One colour for each source of data; those that the paper does not have follow in a fixed order."""
    others = [s for s in sorted(sources) if s not in SOURCES]
    spare = [PURPLE, BLACK, BLUE, GREEN, GREY]
    return {s: c for s, c in SOURCES.items() if s in sources} | dict(zip(others, spare, strict=False))


def _shades(groups: pd.Series, colours: dict[str, str]) -> np.ndarray:
    return groups.astype(object).map(colours).fillna(LIGHT).to_numpy(dtype=str)


def _many_colours(names: list[str]) -> dict[str, str]:
    strong, pale = plt.get_cmap("tab10").colors, plt.get_cmap("tab20").colors[1::2]
    colours = [*strong, *plt.get_cmap("Dark2").colors, *pale, *plt.get_cmap("tab20b").colors]
    return {name: to_hex(colours[i % len(colours)]) for i, name in enumerate(names)}


def save(fig: Figure, figure_id: str, data: pd.DataFrame | None = None) -> None:
    """Save a figure as PNG and PDF under its id, with its profile at the foot and its data as CSV beside."""
    run = _run
    note = f"{figure_id} · {run.title} · seed {run.seed}"
    fig.supxlabel(note, fontsize=5.5, color=GREY, x=0.995, ha="right")
    made_by = f"notebooks/{notebooks.catalogue().get(figure_id, 'none')}.ipynb, cell tagged {figure_id}"
    source = f"{made_by}; profile {run.name}, seed {run.seed}, settings {notebooks.settings_digest(run)}"
    png = {"Title": figure_id, "Description": note, "Source": source}
    pdf = {"Title": figure_id, "Subject": note, "Keywords": source, "CreationDate": None}
    for kind, metadata in (("png", png), ("pdf", pdf)):
        with replacing(run.figures / f"{figure_id}.{kind}") as temporary:
            fig.savefig(temporary, format=kind, bbox_inches="tight", metadata=metadata)
    if data is not None:
        save_data(data, figure_id)


def save_data(data: pd.DataFrame, name: str) -> None:
    """Save the numbers behind a figure as CSV."""
    with replacing(_run.figures / "data" / f"{name}.csv") as p:
        data.to_csv(p, index=False, float_format="%.6g")


def save_table(table: pd.DataFrame, table_id: str, caption: str) -> pd.DataFrame:
    """Save a table as CSV and Markdown under its id, with the profile that made it; returns it to show."""
    run = _run
    table = table.apply(_without_nan)
    folder = run.figures / "tables"
    text = f"**{table_id}.** {caption} ({run.title}, seed {run.seed})\n\n" + _markdown(table)
    with replacing(folder / f"{table_id}.md") as p:
        p.write_text(text)
    made = table.assign(profile=run.name)
    with replacing(folder / f"{table_id}.csv") as p:
        made.to_csv(p, index=False, float_format="%.6g")
    return table


def _without_nan(column: pd.Series) -> pd.Series:
    if not column.isna().any():
        return column
    return column.map(lambda v: "not estimable" if pd.isna(v) else f"{v:.6g}" if isinstance(v, float) else v)


def _markdown(table: pd.DataFrame) -> str:
    counts = {c: table[c].map("{:,}".format) for c in table.select_dtypes("integer")}
    as_text = [*map(table.columns.get_loc, counts)] if len(table) else False
    return table.assign(**counts).to_markdown(index=False, floatfmt=".3g", disable_numparse=as_text) + "\n"


def _map_axes(ax, name: str) -> None:
    ax.set(xticks=[], yticks=[], xlabel=f"{name} 1", ylabel=f"{name} 2")
    ax.set_box_aspect(1)


def _label_groups(ax, xy: np.ndarray, groups: pd.Series, names: list[str], drawn: np.ndarray | None = None) -> None:
    """Write each group's name near its most central sample, on no other name and on few samples; a line if moved.

    drawn: all samples on the map, where others than those of the groups are on it, too.
    """
    ax.autoscale_view()  # what follows is in pixels
    ax.apply_aspect()
    points, placed = ax.transData.transform(xy if drawn is None else drawn), []
    for name, centre in sorted(_medoids(xy, groups, names).items(), key=lambda item: item[1][1]):
        halo = [withStroke(linewidth=2, foreground="white")]  # hides less of the samples than a box
        look = {"ha": "center", "va": "center", "fontsize": 6.5, "fontweight": "bold", "path_effects": halo}
        text = ax.annotate(name, centre, centre, arrowprops={"arrowstyle": "-", "lw": 0.5, "color": GREY}, **look)
        box = text.get_window_extent().padded(2)
        spot = _free_spot(box, points, placed, ax.bbox)
        placed.append(box.translated(*(spot - (box.p0 + box.p1) / 2)))
        text.set_position(ax.transData.inverted().transform(spot))
        if placed[-1].padded(box.height / 2).contains(*ax.transData.transform(centre)):
            text.arrow_patch.set_visible(False)


def _free_spot(box: Bbox, points: np.ndarray, placed: list[Bbox], inside: Bbox) -> np.ndarray:
    """Where the centre of a text's `box` goes: near where it is, inside the axes, on no `placed` one and few points."""
    middle, spots = (box.p0 + box.p1) / 2, []
    for ring in np.arange(0.8, 8, 0.4):
        for angle in np.deg2rad([90, 270, 45, 135, 225, 315, 0, 180]):
            spot = middle + ring * box.height * np.array([0, np.sin(angle)])
            spot = spot + np.array([np.cos(angle) * (box.width / 2 + (ring - 0.8) * box.height), 0])
            at = box.translated(*(spot - middle))
            covered = np.all((points > at.p0) & (points < at.p1), axis=1).sum()
            fits = inside.x0 <= at.x0 and at.x1 <= inside.x1 and inside.y0 <= at.y0 and at.y1 <= inside.y1
            if fits and not any(at.overlaps(other) for other in placed):
                spots.append((ring + 0.2 * min(covered, 40), len(spots), spot))
    return min(spots)[2] if spots else middle


def _medoids(xy: np.ndarray, groups: pd.Series, names: list[str]) -> dict[str, np.ndarray]:
    """The sample of each group with the smallest median distance to the others: a mean may lie in no group at all.

    A group without samples has none.
    """
    points = {name: xy[(groups == name).to_numpy()][:500] for name in names}
    return {name: p[np.median(cdist(p, p), axis=1).argmin()] for name, p in points.items() if len(p)}


def alignment_map(ax, xy: np.ndarray, obs: pd.DataFrame, by: str, colours: dict, labelled: list[str]) -> None:
    """Tumours (dots) and cell lines (triangles) on a map, coloured by a column; some groups named at their tumours.

    xy: samples × 2; obs: `sample_type` and the column `by`.
    """
    is_line = (obs["sample_type"] == "cell line").to_numpy()
    shade = _shades(obs[by], colours)
    ax.scatter(*xy[~is_line].T, c=shade[~is_line], s=5, alpha=0.6, linewidths=0, rasterized=True)
    ax.scatter(*xy[is_line].T, c=shade[is_line], s=16, marker="^", edgecolors="black", linewidths=0.4)
    _map_axes(ax, "UMAP")
    _label_groups(ax, xy[~is_line], obs[by][~is_line], labelled, drawn=xy)


def _sample_type_handles() -> list[plt.Line2D]:
    dot = plt.Line2D([], [], marker="o", ls="", ms=3, color=GREY, label="tumour")
    triangle = plt.Line2D([], [], marker="^", ls="", ms=5, mfc=GREY, mec="black", mew=0.4, label="cell line")
    return [dot, triangle]


def sample_type_legend(ax) -> None:
    """Legend of the two markers of `alignment_map`, below the axes."""
    ax.legend(handles=_sample_type_handles(), loc="upper left", bbox_to_anchor=(0, -0.08), ncols=2, borderaxespad=0)


def category_map(ax, xy: np.ndarray, groups: pd.Series, colours: dict, on_map: bool) -> None:
    """Samples on a map coloured by group, with a legend below; `on_map`: names at the groups' centres, too."""
    order = np.random.default_rng(0).permutation(len(xy))  # no group drawn on top of all others
    shade = _shades(groups, colours)[order]
    ax.scatter(*xy[order].T, c=shade, s=3, alpha=0.7, linewidths=0, rasterized=True)
    _map_axes(ax, "t-SNE")
    present = [g for g in colours if (groups == g).any()]
    if on_map:
        _label_groups(ax, xy, groups, present)
    dots = [plt.Line2D([], [], marker="o", ls="", ms=4, color=colours[g], label=g) for g in present]
    place = {"loc": "upper left", "bbox_to_anchor": (0, -0.08), "borderaxespad": 0}
    ax.legend(handles=dots, ncols=min(4, len(dots)), columnspacing=1, handletextpad=0.2, **place)


def loss_curves(history: pd.DataFrame, panels: dict[str, list[str]]) -> Figure:
    """Loss terms against epochs, one panel for each group of columns of a history."""
    fig, axes = plt.subplots(1, len(panels), figsize=(PAGE, 2.8), squeeze=False)
    palette = [BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY]
    for ax, (title, columns) in zip(axes[0], panels.items(), strict=True):
        for column, colour in zip(columns, palette, strict=False):
            if column in history:
                ax.plot(history["epoch"], history[column], color=colour, lw=1.2, label=column.replace("_", " "))
        ax.set(title=title, xlabel="epoch")
        ax.legend(loc="upper left", bbox_to_anchor=(-0.05, -0.25), borderaxespad=0)
    return fig


def bars_with_interval(ax, table: pd.DataFrame, label: str, value: str, xlabel: str) -> None:
    """Horizontal bars with 95 % intervals (`low`, `high`), n and value written at the right."""
    y = np.arange(len(table))[::-1]
    colours = [METHODS.get(m, GREY) for m in table[label]]
    spread = np.abs(table[["low", "high"]].to_numpy().T - table[value].to_numpy())
    ax.barh(y, table[value], color=colours, height=0.65)
    ax.errorbar(table[value], y, xerr=spread, fmt="none", ecolor=BLACK, elinewidth=0.8, capsize=2)
    for yi, (_, row) in zip(y, table.iterrows(), strict=True):
        ax.annotate(
            f"{row[value]:.3g}  (n = {row['n']:,})",
            (1.02, yi),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=7,
        )
    ax.set_yticks(y, table[label])
    ax.set_xlabel(xlabel)


def accuracy_by_class(table: pd.DataFrame, overall: float, note: str) -> Figure:
    """Accuracy of each class, sorted; bar colour = test n on a log scale, n beside the label, overall dashed.

    table: columns `class`, `accuracy` (0–1), `n`.
    """
    table = table.sort_values(["accuracy", "n"])
    fig, ax = plt.subplots(figsize=(COLUMN * 1.35, 0.155 * len(table) + 1.2))
    norm = LogNorm(max(1, table["n"].min()), max(2, table["n"].max()))
    cmap = plt.get_cmap("viridis_r")
    y = np.arange(len(table))
    ax.barh(y, 100 * table["accuracy"], color=cmap(norm(table["n"])), height=0.8)
    ax.axvline(100 * overall, color=VERMILION, ls="--", lw=1)
    ax.set_yticks(y, [f"{c}  ({n:,})" for c, n in zip(table["class"], table["n"], strict=True)])
    ax.set(xlim=(0, 100), ylim=(-0.6, len(table) - 0.4), xlabel="accuracy on the test part, %", title=note)
    fig.colorbar(plt.cm.ScalarMappable(norm, cmap), ax=ax, label="test samples", shrink=0.4, aspect=12)
    return fig


def funnel(ax, steps: pd.DataFrame) -> None:
    """Samples left after each curation step as bars; at the right their number and what the step changed.

    steps: columns `operation`, `change`, `n`.
    """
    y = np.arange(len(steps))[::-1]
    colours = [GREEN if change > 0 else VERMILION if change < 0 else SKY for change in steps["change"]]
    ax.barh(y, steps["n"], color=SKY, height=0.7)
    for yi, n, change, colour in zip(y, steps["n"], steps["change"], colours, strict=True):
        ax.annotate(f"{n:,}", (n, yi), xytext=(3, 0), textcoords="offset points", va="center", fontsize=7)
        if change:
            ax.annotate(
                f"{change:+,}",
                (1.0, yi),
                xycoords=("axes fraction", "data"),
                va="center",
                ha="right",
                color=colour,
                fontsize=7,
            )
    ax.set_yticks(y, steps["operation"])
    ax.set_xlabel("samples left (at the right: what the step changed)")
    ax.margins(x=0.32)


def dots_by_method(ax, scores: pd.DataFrame, title: str) -> None:
    """One dot per seed and method with its 95 % interval; "not estimable" where there is no value.

    scores: columns `method`, `value`, `low`, `high`.
    """
    methods = list(dict.fromkeys(scores["method"]))[::-1]
    for y, method in enumerate(methods):
        rows = scores[(scores["method"] == method) & scores["value"].notna()]
        if rows.empty:
            ax.annotate("not estimable", (0.5, y), xycoords=("axes fraction", "data"), ha="center", color=GREY)
            continue
        offsets = y + 0.12 * (np.arange(len(rows)) - (len(rows) - 1) / 2)
        spread = np.abs(rows[["low", "high"]].to_numpy().T - rows["value"].to_numpy())
        ax.errorbar(rows["value"], offsets, xerr=spread, fmt="o", ms=3.5, lw=1, color=METHODS.get(method, GREY))
    ax.set_yticks(range(len(methods)), methods)
    ax.set(title=title, ylim=(-0.6, len(methods) - 0.4))
    ax.margins(x=0.15)


def dots_with_interval(ax, table: pd.DataFrame, series: dict[str, str], xlabel: str, bars: dict[str, float]) -> None:
    """One row per method, in it one dot with its 95 % interval for each series; bars: dashed reference lines.

    table: columns `method`, `label`, `value`, `low`, `high`, `n`; series: value of `label` -> its name in the legend.
    """
    methods = list(dict.fromkeys(table["method"]))
    y = dict(zip(methods, range(len(methods), 0, -1), strict=True))
    for i, (label, name) in enumerate(series.items()):
        rows = table[table["label"] == label]
        at = [y[m] + 0.26 * ((len(series) - 1) / 2 - i) for m in rows["method"]]
        spread = np.abs(rows[["low", "high"]].to_numpy().T - rows["value"].to_numpy())
        colour = (BLUE, VERMILION, GREEN)[i]
        ax.errorbar(rows["value"], at, xerr=spread, fmt="o", ms=3.5, lw=1, color=colour, label=name)
    for (name, x), style in zip(bars.items(), ("--", ":", "-."), strict=False):
        ax.axvline(x, color=GREY, lw=0.9, ls=style, zorder=0, label=name)
    n = table.groupby("method")["n"].max()
    ax.set_yticks(list(y.values()), [f"{m}  (n = {n[m]:,})" for m in methods])
    ax.set(xlabel=xlabel, ylim=(0.4, len(methods) + 0.6))
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)


def before_after(ax, table: pd.DataFrame, xlabel: str) -> None:
    """Each row's value by method, the range of the row drawn as a line; table: index = names, columns = methods."""
    y = np.arange(len(table))
    ax.hlines(y, table.min(axis=1), table.max(axis=1), color=LIGHT, lw=2, zorder=1)
    for method in table:
        ax.scatter(table[method], y, color=METHODS[method], s=16, label=method, zorder=2)
    ax.axvline(0, color=GREY, lw=0.8, ls=":")
    ax.set_yticks(y, table.index)
    ax.set_xlabel(xlabel)
    ax.legend(loc="lower left", bbox_to_anchor=(-0.3, 1), ncols=2, borderaxespad=0.2)


def paired_bars(ax, table: pd.DataFrame, xlabel: str) -> None:
    """Two horizontal bars on a log scale for every row; table: index = names, columns = the two series."""
    y = np.arange(len(table))
    for offset, colour, column in ((0.2, SKY, table.columns[0]), (-0.2, ORANGE, table.columns[1])):
        ax.barh(y + offset, table[column], height=0.38, color=colour, label=column)
    ax.set_yticks(y, table.index)
    ax.set(xlabel=xlabel, ylim=(-0.6, len(table) - 0.4), xscale="log")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)


def not_estimable(reason: str) -> Figure:
    """A figure that says why there is nothing to draw."""
    fig, ax = plt.subplots(figsize=(COLUMN, 1))
    ax.text(0.5, 0.5, f"not estimable: {reason}", ha="center", va="center", color=GREY, wrap=True)
    ax.set_axis_off()
    return fig


def published_marks(ax, table: pd.DataFrame, label: str, published: dict[str, float]) -> None:
    """Open diamonds on the rows of `bars_with_interval` where the paper prints a value; for reference only."""
    rows = {name: y for y, name in enumerate(reversed(list(table[label])))}
    shown = [name for name in published if name in rows]
    ax.scatter([published[name] for name in shown], [rows[name] for name in shown], **PUBLISHED)


def published_lines(ax, published: dict[str, float]) -> None:
    """Dashed vertical lines where the paper prints a value, named above the axes; for reference only."""
    x = list(published.values())
    for value in x:
        ax.axvline(value, color=BLACK, ls=(0, (4, 3)), lw=0.8)
    if not x:
        return
    ax.set_xlim(0, max(1, *x))
    words = ", ".join(f"{name} {value:.3g}" for name, value in published.items())
    ax.annotate(words, (1, 1.03), xycoords="axes fraction", ha="right", fontsize=6.5)


def subtype_maps(maps: dict[str, np.ndarray], obs: pd.DataFrame, order: list[str]) -> Figure:
    """Samples of one cancer type on a map per method, coloured by subtype, with the n of each in the legend.

    maps: method -> samples × 2; obs: sample_type, subtype; order: the subtypes.
    """
    fig, axes = plt.subplots(1, len(maps), figsize=(PAGE * 0.75, PAGE * 0.46), squeeze=False)
    colours = dict(zip(order, (BLUE, ORANGE, GREEN, PURPLE), strict=False))
    for ax, (method, xy) in zip(axes[0], maps.items(), strict=True):
        alignment_map(ax, xy, obs, "subtype", colours, [])
        ax.set_title(method)
    n = obs.groupby(["subtype", "sample_type"], observed=True).size()
    for name in order:
        tumours, lines = (n.get((name, kind), 0) for kind in ("tumour", "cell line"))
        axes[0, 0].plot([], [], "s", ms=5, color=colours[name], label=f"{name} ({tumours} tumours, {lines} lines)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper left", ncols=len(order))
    sample_type_legend(axes[0, -1])
    return fig


def type_panels(xy: np.ndarray, obs: pd.DataFrame, cancer_types: list[str], colours: dict[str, str]) -> Figure:
    """One panel per cancer type: all samples of the map in grey, the type's tumours and lines in its colour."""
    n_columns = min(5, len(cancer_types))
    n_rows = -(-len(cancer_types) // n_columns)
    width = PAGE / 5
    fig, axes = plt.subplots(n_rows, n_columns, figsize=(max(COLUMN, width * n_columns), (width + 0.25) * n_rows + 0.3))
    axes = np.atleast_1d(axes).ravel()
    is_line = (obs["sample_type"] == "cell line").to_numpy()
    for ax, name in zip(axes, cancer_types, strict=False):
        of_type = (obs["cancer_type"] == name).to_numpy()
        tumours, lines = xy[of_type & ~is_line], xy[of_type & is_line]
        # hard edges: smooth grey ones take most of the file
        ax.scatter(*xy.T, c=LIGHT, s=1.5, linewidths=0, antialiaseds=False, rasterized=True)
        ax.scatter(*tumours.T, c=colours[name], s=5, alpha=0.7, linewidths=0, rasterized=True)
        ax.scatter(*lines.T, c=colours[name], s=8, marker="^", edgecolors="black", linewidths=0.4)
        ax.set_title(f"{name}\n{len(tumours):,} tumours, {len(lines):,} lines", fontsize=7)
        _map_axes(ax, "UMAP")
        ax.set(xlabel="", ylabel="")
    for ax in axes[len(cancer_types) :]:
        ax.set_axis_off()
    fig.legend(handles=_sample_type_handles(), loc="outside upper left", ncols=2)
    return fig


def match_bars(table: pd.DataFrame, order: list[str], methods: list[str], published: dict[str, float]) -> Figure:
    """Match of each cancer type by each method as grouped bars with intervals; diamonds = the paper's RNAlign.

    table: cancer_type, method, match, low, high (percent), n; order: cancer types from top to bottom.
    """
    fig, ax = plt.subplots(figsize=(PAGE * 0.8, 0.27 * len(order) + 0.9))
    y, height = np.arange(len(order))[::-1], 0.8 / len(methods)
    for i, method in enumerate(methods):
        rows = table[table["method"] == method].set_index("cancer_type").loc[order]
        at = y + 0.4 - (i + 0.5) * height
        ax.barh(at, rows["match"], height=height, color=METHODS[method], label=method)
        ax.vlines(rows["match"], at - height / 2, at + height / 2, color=METHODS[method], lw=1.5)  # shows a bar of 0 %
        ax.hlines(at, rows["low"], rows["high"], color=BLACK, lw=0.5)
    n = rows["n"].astype(int)
    for yi in y[(n == 0).to_numpy()]:
        ax.annotate("not estimable: no cell lines", (1, yi), va="center", fontsize=7, color=GREY)
    shown = [name for name in published if n.get(name, 0)]
    ax.scatter([published[name] for name in shown], [y[order.index(name)] for name in shown], **PUBLISHED)
    ax.set_yticks(y, [f"{name}  ({n[name]:,})" for name in order])
    ax.set(xlim=(-1, 101), ylim=(-0.6, len(order) - 0.4), xlabel="cell lines matched to their own cancer type, %")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderaxespad=0.2)
    return fig


def posterior_spread(by_type: pd.DataFrame, kept: np.ndarray) -> Figure:
    """Left: match per cancer type and its range over posterior draws. Right: how often the r-th line stays near.

    by_type: cancer_type, n, match, low, high (percent); kept: tumours × k, share of draws in the k nearest.
    """
    fig, (left, right) = plt.subplots(
        1, 2, figsize=(PAGE, 0.17 * max(len(by_type), 10) + 1.2), gridspec_kw={"width_ratios": [1.4, 1]}
    )
    y = np.arange(len(by_type))
    left.hlines(y, by_type["low"], by_type["high"], color=SKY, lw=3, label="95 % of the draws of z")
    left.scatter(by_type["match"], y, s=10, color=METHODS["RNAlign"], zorder=2, label="mean of z")
    left.set_yticks(y, [f"{name}  ({n:,})" for name, n in zip(by_type["cancer_type"], by_type["n"], strict=True)])
    left.set(xlim=(-2, 102), ylim=(-0.6, len(by_type) - 0.4), xlabel="lines matched to their own cancer type, %")
    left.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)
    boxes = right.boxplot(100 * kept, patch_artist=True, widths=0.6, showfliers=False, medianprops={"color": BLACK})
    for box in boxes["boxes"]:
        box.set_facecolor(SKY)
    right.set(ylim=(0, 102), xlabel="rank among a tumour's nearest lines", ylabel="draws in which the line stays, %")
    return fig


def assignment_bars(table: pd.DataFrame, as_expected: pd.Series) -> Figure:
    """Paper B's figure 4: per group the share called each expected tissue, the rest one light block, % at the right.

    table: columns group, tissue, expected, fraction, n (of the group), in the order of drawing; as_expected: the share
    of each group, NaN where it can't be told.
    """
    groups = list(dict.fromkeys(table["group"]))
    wanted = set(table.loc[table["expected"], "tissue"])
    colours = {t: c for t, c in ORIGINS.items() if t in wanted} | _many_colours(sorted(wanted - set(ORIGINS)))
    shares = table[table["expected"]].pivot(index="group", columns="tissue", values="fraction")
    shares = shares.reindex(index=groups, columns=list(colours)).fillna(0.0)
    fig, ax = plt.subplots(figsize=(PAGE, 0.34 * len(groups) + 1.1))
    y, left = np.arange(len(groups))[::-1], np.zeros(len(groups))
    for tissue, colour in (colours | {"other": UNEXPECTED}).items():
        width = 1 - left if tissue == "other" else shares[tissue].to_numpy()
        ax.barh(y, width, left=left, color=colour, edgecolor="white", lw=0.5, height=0.75, label=tissue)
        left = left + width
    for yi, group in zip(y, groups, strict=True):
        share = as_expected[group]
        words = "not estimable" if np.isnan(share) else f"{share:.0%}"
        weight = "bold" if share >= 0.8 else "normal"
        place = {"xycoords": ("axes fraction", "data"), "va": "center", "fontsize": 8}
        ax.annotate(words, (1.01, yi), fontweight=weight, **place)
    n = table.drop_duplicates("group").set_index("group")["n"]
    ax.set_yticks(y, [f"{group} (n = {n[group]:,})" for group in groups])
    ax.set(xlim=(0, 1), xlabel="share of samples (at the right: called as expected)")
    ax.xaxis.set_major_formatter("{x:.0%}")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=6, borderaxespad=0.2)
    return fig


def distances_by_group(table: pd.DataFrame, groups: list[str], panels: dict[str, str]) -> Figure:
    """Distance to the reference ÷ threshold: median, middle half and 5–95 % of every group; dashed: the threshold.

    table: columns `panel`, `group`, `ratio`; the last of `groups`, in grey, is the reference itself; panels: value
    of `panel` -> title.
    """
    fig, axes = plt.subplots(1, len(panels), figsize=(PAGE, 0.24 * len(groups) + 1.2), sharey=True, squeeze=False)
    y = np.arange(len(groups))[::-1]
    for ax, (panel, title) in zip(axes[0], panels.items(), strict=True):
        mine = table[table["panel"] == panel]
        for yi, group in zip(y, groups, strict=True):
            low, first, median, third, high = np.percentile(
                mine.loc[mine["group"] == group, "ratio"], [5, 25, 50, 75, 95]
            )
            colour = GREY if group == groups[-1] else BLUE
            ax.hlines(yi, low, high, color=colour, lw=1)
            ax.hlines(yi, first, third, color=colour, lw=5)
            ax.plot(median, yi, "o", ms=3.5, mfc="white", mec=colour)
        ax.axvline(1, color=VERMILION, ls="--", lw=1)
        ax.set_title(title)
        ax.set_xlim(left=0)
    axes[0, 0].set_yticks(y, groups)
    axes[0, len(panels) // 2].set_xlabel("distance to the 5th nearest reference sample ÷ threshold")
    return fig


def call_counts(ax, table: pd.DataFrame, title: str) -> None:
    """Counts as a heat map, the shade by row share; table: rows = given labels, columns = called ones."""
    shares = table.div(table.sum(axis=1).clip(lower=1), axis=0)
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1.3, aspect="auto")
    for y, row in enumerate(table.to_numpy()):
        for x, n in enumerate(row):
            colour = "white" if shares.iat[y, x] > 0.8 else BLACK
            ax.text(x, y, f"{n:,}" if n else "·", ha="center", va="center", fontsize=7, color=colour)
    ax.set_xticks(range(table.shape[1]), table.columns, rotation=30, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(table)), table.index)
    ax.tick_params(length=0)
    ax.set(title=title)


def marker_fidelity(ranks: pd.DataFrame, confusions: dict[str, pd.DataFrame]) -> Figure:
    """Rank correlation of marker genes with the input by method and kind, above subtype calls before and after.

    ranks: method, kind, value, low, high; confusions: title -> table as `call_counts` takes it; may be empty.
    """
    fig = plt.figure(figsize=(PAGE, 4.6 if confusions else 2.4), layout="constrained")
    grid = fig.add_gridspec(2 if confusions else 1, 2, height_ratios=(1.1, 1) if confusions else None)
    for i, (kind, rows) in enumerate(ranks.groupby("kind", sort=False)):
        ax = fig.add_subplot(grid[0, i], sharex=fig.axes[0] if i else None)
        dots_by_method(ax, rows, f"{kind}s: order of PAM50 genes kept")
        ax.set_xlabel("Spearman correlation with the input")
    for i, (title, table) in enumerate(confusions.items()):
        call_counts(fig.add_subplot(grid[1, i]), table, title)
    return fig


def enrichment_map(tables: dict[str, pd.DataFrame], sets: list[str], types: list[str]) -> Figure:
    """Gene sets × cancer types, one panel per table: colour = NES, a dot where the FDR is below 5 %.

    tables: title -> columns set, cancer_type, nes, fdr.
    """
    rows = -(-len(tables) // 2)
    size = (PAGE * 0.9, rows * (0.145 * len(sets) + 0.4) + 1.0)
    fig, axes = plt.subplots(rows, 2, figsize=size, squeeze=False, sharex=True, sharey=True)
    for ax, (title, table) in zip(axes.flat, tables.items(), strict=True):
        nes, fdr = (table.pivot(index="set", columns="cancer_type", values=v).reindex(sets, columns=types)
                    for v in ("nes", "fdr"))  # fmt: skip
        image = ax.imshow(nes, cmap="RdBu_r", vmin=-3, vmax=3, aspect="auto", interpolation="nearest")
        y, x = np.nonzero(fdr.to_numpy() < 0.05)
        ax.plot(x, y, ".", color=BLACK, ms=2.5)
        ax.set_xticks(range(len(types)), types, rotation=45, ha="right", rotation_mode="anchor")
        ax.set_yticks(range(len(sets)), sets)
        ax.set(title=title)
    label = "NES: > 0 higher in lines; dot: FDR < 5 %"
    fig.colorbar(image, ax=axes, label=label, shrink=0.6, aspect=25)
    return fig


def evidence_panels(calls: dict[str, dict[str, pd.Series]], published: dict[str, float]) -> Figure:
    """One panel per cancer type: where its lines go, % by method; diamond: the published match of the own type.

    calls: cancer type -> method -> the type that each line is called.
    """
    columns = 3
    rows = -(-len(calls) // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(PAGE, 1.45 * rows + 0.5), squeeze=False, sharex=True)
    for ax in axes.flat[len(calls) :]:
        ax.set_axis_off()
    for ax, (cancer_type, called) in zip(axes.flat, calls.items(), strict=False):
        share = 100 * pd.DataFrame({m: c.value_counts(normalize=True) for m, c in called.items()}).fillna(0)
        others = share.drop(index=cancer_type, errors="ignore").sum(axis=1).sort_values(ascending=False, kind="stable")
        shown = [cancer_type, *others.index[:3]]
        for i, method in enumerate(called):
            y = np.arange(len(shown))[::-1] + 0.2 - 0.4 * i
            ax.barh(y, share[method].reindex(shown).fillna(0), height=0.38, color=METHODS[method], label=method)
        if cancer_type in published:
            ax.scatter(published[cancer_type], len(shown) - 1, **PUBLISHED)
        ax.set_yticks(np.arange(len(shown))[::-1], shown)
        ax.set(title=f"{cancer_type} (n = {len(next(iter(called.values())))})", xlim=(-4, 104))
    for ax in axes.flat[max(0, len(calls) - columns) : len(calls)]:
        ax.set_xlabel("lines called this type, %")
        ax.tick_params(labelbottom=True)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper left", ncols=3)
    return fig


def confusion_map(table: pd.DataFrame) -> Figure:
    """Share of each true class (row) that is called each class (column), 0 to 1; names on both axes."""
    fig, ax = plt.subplots(figsize=(PAGE, PAGE * 0.93))
    image = ax.imshow(table, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    ax.set_xticks(range(table.shape[1]), table.columns, rotation=90, fontsize=6)
    ax.set_yticks(range(len(table)), table.index, fontsize=6)
    ax.set(xlabel="called", ylabel="true tissue")
    fig.colorbar(image, ax=ax, label="share of the true tissue's test samples", shrink=0.5, aspect=18)
    return fig


def correlation_histograms(ax, values: pd.DataFrame, xlabel: str, span: tuple[float, float] | None = None) -> None:
    """Outlined histograms of the columns on common bins; dashed: medians, which the legend names."""
    low, high = span or (values.min().min(), values.max().max())
    for name, rho in values.items():
        rho, colour = rho.dropna(), VARIANTS[name]
        label = f"{name}, median {rho.median():.3f}"
        ax.hist(rho, bins=np.linspace(low, high, 51), histtype="stepfilled", color=colour, alpha=0.3)
        ax.hist(rho, bins=np.linspace(low, high, 51), histtype="step", color=colour, lw=1.1, label=label)
        ax.axvline(rho.median(), color=colour, ls="--", lw=1)
    ax.set(xlabel=xlabel, xlim=(low, high))
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)


def grouped_bars(ax, table: pd.DataFrame, group: str, series: str, value: str, ylabel: str) -> None:
    """Bars side by side for every group, with intervals (`low`, `high`) and their values above; colour = series."""
    groups, names = list(dict.fromkeys(table[group])), list(dict.fromkeys(table[series]))
    width = 0.8 / len(names)
    for i, name in enumerate(names):
        rows = table[table[series] == name].set_index(group).loc[groups]
        x = np.arange(len(groups)) + width * (i - (len(names) - 1) / 2)
        spread = np.abs(rows[["low", "high"]].to_numpy().T - rows[value].to_numpy())
        ax.bar(x, rows[value], width * 0.92, color=VARIANTS[name], label=name)
        ax.errorbar(x, rows[value], yerr=spread, fmt="none", ecolor=BLACK, elinewidth=0.8, capsize=2)
        for xi, shown, top in zip(x, rows[value], rows["high"], strict=True):
            ax.annotate(
                f"{shown:.3f}", (xi, max(top, 0)), xytext=(0, 3), textcoords="offset points", ha="center", fontsize=6
            )
    ax.set_xticks(range(len(groups)), groups)
    ax.set_ylabel(ylabel)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(names), borderaxespad=0.2)


def against_identity(ax, values: pd.DataFrame, note: str) -> None:
    """One dot per row: second column against the first, with the line on which they are equal."""
    x, y = values.columns
    low, high = values.min().min(), values.max().max()
    ax.plot([low, high], [low, high], color=BLACK, lw=0.8, ls="--")
    ax.scatter(values[x], values[y], s=3, color=BLUE, alpha=0.3, linewidths=0, rasterized=True)
    ax.set(xlabel=f"Spearman ρ per gene, {x}", ylabel=f"Spearman ρ per gene, {y}", title=note)
    ax.set_box_aspect(1)


def method_bars(table: pd.DataFrame, published: dict[str, float]) -> Figure:
    """Balanced accuracy (%) of every method with its interval, best at the top, colour = family; dashed: the VAE.

    published: what the paper prints for a method, as open diamonds (its data, not ours). table: columns method, family,
    balanced_accuracy, balanced_accuracy_low, balanced_accuracy_high (0–1).
    """
    table = table.sort_values("balanced_accuracy", ignore_index=True)
    value = 100 * table["balanced_accuracy"]
    bounds = 100 * table[["balanced_accuracy_low", "balanced_accuracy_high"]].to_numpy().T
    fig, ax = plt.subplots(figsize=(PAGE * 0.72, 0.2 * len(table) + 1.2))
    y = np.arange(len(table))
    ax.barh(y, value, color=[FAMILIES[f] for f in table["family"]], height=0.72)
    ax.errorbar(value, y, xerr=np.abs(bounds - value.to_numpy()), fmt="none", ecolor=BLACK, elinewidth=0.8, capsize=2)
    ax.axvline(value[table["method"] == "tissue VAE"].iloc[0], color=FAMILIES["supervised VAE"], ls="--", lw=1)
    for yi, shown in zip(y, value, strict=True):
        ax.annotate(f"{shown:.1f}", (1.01, yi), xycoords=("axes fraction", "data"), va="center", fontsize=7)
    ax.set_yticks(y, table["method"])
    ax.set(xlim=(0, 100), ylim=(-0.6, len(table) - 0.4), xlabel="balanced accuracy on the test part, %")
    shown = [y for y, method in enumerate(table["method"]) if method in published]
    ax.scatter([published[table["method"][y]] for y in shown], shown, **PUBLISHED | {"label": "paper (its own data)"})
    _family_legend(ax, table["family"])
    return fig


def _family_legend(ax, families: pd.Series) -> None:
    present = [f for f in FAMILIES if f in set(families)]
    dots = [plt.Line2D([], [], marker="s", ls="", ms=5, color=FAMILIES[f], label=f) for f in present]
    dots += ax.get_legend_handles_labels()[0]
    ax.legend(handles=dots, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)


def accuracy_by_dimensions(table: pd.DataFrame) -> Figure:
    """Balanced accuracy (%) against the dimensions (log) that a method decides on; numbers name the methods.

    table: as for `method_bars`, with `dimensions`. Methods of the same number of dimensions are moved apart sideways.
    """
    table = table.sort_values(["dimensions", "balanced_accuracy"], ignore_index=True)
    place = table.groupby("dimensions").cumcount() - (table.groupby("dimensions")["method"].transform("size") - 1) / 2
    x, y = table["dimensions"] * 1.1**place, 100 * table["balanced_accuracy"]
    fig, ax = plt.subplots(figsize=(PAGE * 0.9, 3.1))
    ax.scatter(x, y, s=70, color=[FAMILIES[f] for f in table["family"]], linewidths=0)
    for i, (xi, yi) in enumerate(zip(x, y, strict=True), 1):
        ax.annotate(str(i), (xi, yi), ha="center", va="center", fontsize=6.5)
    names = [f"{i}  {method}" for i, method in enumerate(table["method"], 1)]
    ax.annotate("\n".join(names), (1.03, 1), xycoords="axes fraction", va="top", fontsize=7, linespacing=1.5)
    ticks = sorted(table["dimensions"].unique())
    ax.set(xscale="log", xlabel="dimensions (log scale; equal ones moved apart)", ylabel="balanced accuracy, %")
    ax.set_xticks(ticks, [f"{t:,}" for t in ticks])
    ax.minorticks_off()
    _family_legend(ax, table["family"])
    return fig


def mixing_by_tissue(table: pd.DataFrame) -> Figure:
    """Mixing of sources by tissue, one panel per quantity: dot and interval = found, bar = shuffled in the tissue.

    table: columns quantity, tissue, n, mean, low, high, expected; only rows with an expectation.
    """
    quantities = list(dict.fromkeys(table["quantity"]))
    order = table[table["quantity"] == quantities[0]].sort_values("expected")
    fig, axes = plt.subplots(1, len(quantities), figsize=(PAGE, 0.16 * len(order) + 1.2), sharey=True)
    y = np.arange(len(order))
    for ax, quantity in zip(axes, quantities, strict=True):
        rows = table[table["quantity"] == quantity].set_index("tissue").loc[order["tissue"]]
        start = 1 if quantity.startswith("LISI") else 0
        ax.barh(y, rows["expected"] - start, left=start, color=LIGHT, height=0.8, label="shuffled within the tissue")
        spread = np.abs(rows[["low", "high"]].to_numpy().T - rows["mean"].to_numpy())
        found = {"fmt": "o", "ms": 3, "lw": 1, "color": BLUE, "label": "found"}
        ax.errorbar(rows["mean"], y, xerr=spread, **found)
        ax.set(xlabel=quantity, ylim=(-0.6, len(order) - 0.4), xlim=(start, None))
    axes[0].set_yticks(y, [f"{t} ({n:,})" for t, n in zip(order["tissue"], order["n"], strict=True)])
    axes[0].legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)
    return fig


def growth_panels(scores: pd.DataFrame, titles: dict[str, str], kinds: dict[str, pd.DataFrame]) -> Figure:
    """Metrics against the number of training samples (log scale), a panel each; kinds: legend -> rows of `scores`.

    scores: columns metric, design, seed, samples, value, low, high. One seed: whiskers from low to high; several: the
    mean, and whiskers from the lowest to the highest of them. The first of `kinds` is joined by a line.
    """
    fig, axes = plt.subplots(2, -(-len(titles) // 2), figsize=(PAGE, 4.4), sharex=True)
    styles = list(zip((BLUE, VERMILION, GREEN), "osD", (1.0, 1.1, 0.9), strict=True))  # shifted: equal sizes overlap
    sizes = np.unique(next(iter(kinds.values())).groupby("design")["samples"].mean().round())
    ticks = [n for i, n in enumerate(sizes) if i == 0 or n > 1.3 * sizes[i - 1]]
    for ax, (metric, title) in zip(axes.flat, titles.items(), strict=False):
        mine = scores[(scores["metric"] == metric) & scores["value"].notna()]
        for (label, rows), (colour, marker, shift) in zip(kinds.items(), styles, strict=False):
            points = _over_seeds(mine.loc[mine.index.intersection(rows.index)])
            spread = np.abs(points[["low", "high"]].to_numpy().T - points["value"].to_numpy())
            look = {"fmt": marker, "ms": 4, "lw": 0.9, "capsize": 2, "color": colour}
            ax.errorbar(shift * points["samples"], points["value"], yerr=spread, label=label, **look)
            if label == next(iter(kinds)):
                ax.plot(points["samples"], points["value"], color=colour, lw=1)
        if mine.empty:
            ax.annotate("not estimable", (0.5, 0.5), xycoords="axes fraction", ha="center", color=GREY)
        ax.set_title(title)
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(FixedLocator(ticks))
        ax.xaxis.set_major_formatter("{x:,.0f}")
        ax.xaxis.set_minor_locator(NullLocator())
    for ax in axes[-1]:
        ax.set_xlabel("training samples")
    fig.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside upper left", ncols=len(kinds))
    return fig


def _over_seeds(points: pd.DataFrame) -> pd.DataFrame:
    """Per design: samples and value (means), low and high: of the one seed, or the lowest and the highest seed."""
    if points["seed"].nunique() > 1:
        points = points.assign(low=points["value"], high=points["value"])
    ways = {"samples": "mean", "value": "mean", "low": "min", "high": "max"}
    return points.groupby("design").agg(ways).sort_values("samples")


def published_pairs(ax, table: pd.DataFrame, published: dict[tuple[str, str], float]) -> None:
    """Marks the paper's values on `dots_with_interval`; published: (method, label) -> value, others are left out."""
    methods, labels = (list(dict.fromkeys(table[column])) for column in ("method", "label"))
    marks = {}
    for (method, label), value in published.items():
        if method in methods and label in labels:
            y = len(methods) - methods.index(method) + 0.26 * ((len(labels) - 1) / 2 - labels.index(label))
            marks[y] = value
    if marks:
        ax.scatter(list(marks.values()), list(marks), **PUBLISHED)
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2)


def differences_by_model(table: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """A panel per metric: every model's difference with its 95 % interval; blue: a verdict, open: one training each.

    table: columns model, against, metric, difference, difference_low, difference_high, verdict.
    """
    table = table[table["against"] != ""]
    against = table.groupby("model", sort=False)["against"].first()[::-1]
    names = [textwrap.fill(m, 28) + ("" if a.startswith("full") else f"\n(against {a})") for m, a in against.items()]
    fig, axes = plt.subplots(2, -(-len(titles) // 2), figsize=(PAGE, 0.46 * len(names) + 1.7), sharey=True)
    for ax, (metric, title) in zip(axes.flat, titles.items(), strict=False):
        rows = table[table["metric"] == metric].set_index("model").reindex(against.index)
        for y, row in enumerate(rows.itertuples()):
            value, low, high = row.difference, row.difference_low, row.difference_high
            if np.isnan(value):
                ax.annotate("not estimable", (0.98, y), xycoords=("axes fraction", "data"), ha="right", va="center",
                            color=GREY, fontsize=6, backgroundcolor="white")  # fmt: skip
                continue
            colour = BLUE if row.verdict in ("up", "down") else GREY
            face = "white" if row.verdict.startswith("one training") else colour
            ax.errorbar(value, y, xerr=[[value - low], [high - value]], fmt="o", ms=3, lw=1, color=colour, mfc=face)
        ax.axvline(0, color=BLACK, lw=0.8, zorder=0)
        ax.set_title("\n".join(textwrap.wrap(title, 22)), fontsize=7.5)
        ax.xaxis.set_major_locator(MaxNLocator(3))
        ax.grid(axis="y", lw=0.4, color=GREY, alpha=0.3)
        ax.set(yticks=range(len(names)), yticklabels=names, ylim=(-0.6, len(names) - 0.4))
    for ax in axes.flat[len(titles) :]:
        ax.set_axis_off()
    for ax in axes[-1]:
        ax.set_xlabel("difference")
    return fig


def spread_by_method(ax, table: pd.DataFrame, xlabel: str) -> None:
    """One row per method: a dot per drug (or type), their median as a bar; "not estimable" where there is none.

    table: columns `method`, `value`.
    """
    methods = list(dict.fromkeys(table["method"]))[::-1]
    rng = np.random.default_rng(0)
    for y, method in enumerate(methods):
        values = table.loc[table["method"] == method, "value"].dropna().to_numpy()
        if not len(values):
            ax.annotate("not estimable", (0.5, y), xycoords=("axes fraction", "data"), ha="center", color=GREY)
            continue
        jitter = y + rng.uniform(-0.28, 0.28, len(values))
        ax.scatter(values, jitter, s=6, alpha=0.5, linewidths=0, color=METHODS.get(method, GREY))
        ax.plot([np.median(values)] * 2, [y - 0.38, y + 0.38], color=BLACK, lw=1.5)
    ax.axvline(0, color=GREY, lw=0.8, ls=":")
    ax.set_yticks(range(len(methods)), methods)
    ax.set(xlabel=xlabel, ylim=(-0.6, len(methods) - 0.4))


def sample_type_map(ax, xy: np.ndarray, kinds: pd.Series) -> None:
    """Samples of up to three types on a map, by marker and colour; xy: samples × 2."""
    markers = {"tumour": (SKY, "o", 5), "cell line": (VERMILION, "^", 12), "organoid": (BLACK, "s", 9)}
    for kind, (colour, marker, size) in markers.items():
        at = (kinds == kind).to_numpy()
        if at.any():
            ax.scatter(*xy[at].T, c=colour, marker=marker, s=size, alpha=0.8, linewidths=0, label=kind, rasterized=True)
    _map_axes(ax, "UMAP")
    ax.legend(loc="upper left", bbox_to_anchor=(0, -0.08), ncols=3, borderaxespad=0, columnspacing=1)


def network_diagram(layers: pd.DataFrame, labels: dict[str, int], settings: dict) -> Figure:
    """RNAlign as it was trained: its layers as boxes, the labels that enter, the two regularisers, what is changed.

    layers: columns `part` (encoder, encoder_mean, encoder_sd, decoder, decoder_mean), inputs, outputs, in the network's
    order; labels: name -> width of each block of y; settings: weights of the loss.
    """
    fig, ax = plt.subplots(figsize=(PAGE, 3.3))
    parts = layers.groupby("part", sort=False)["outputs"].agg(list)
    n_labels, latent, genes = sum(labels.values()), parts["encoder_mean"][0], parts["decoder_mean"][0]
    steps = [("x", genes, LIGHT), *((f"encoder\n{i + 1}", w, SKY) for i, w in enumerate(parts["encoder"]))]
    steps += [("mean\nand sd", latent, YELLOW), ("z", latent, YELLOW)]
    steps += [(f"decoder\n{i + 1}", w, ORANGE) for i, w in enumerate(parts["decoder"])]
    steps += [("x,\ndecoded", genes, LIGHT)]
    at = {name: i for i, (name, *_) in enumerate(steps)}
    for x, (name, width, colour) in enumerate(steps):
        half = np.log(max(width, 2)) / np.log(genes)
        ax.add_patch(plt.Rectangle((x - 0.3, -half), 0.6, 2 * half, facecolor=colour, edgecolor=BLACK, lw=0.6))
        ax.text(x, 0, f"{name}\n({width:,})", ha="center", va="center", fontsize=6)
        if x:
            ax.annotate("", (x - 0.32, 0), (x - 0.68, 0), arrowprops={"arrowstyle": "->", "lw": 0.8})
    told = "\n".join(f"{name} ({width})" for name, width in labels.items())
    _label_box(ax, 0.5, f"y, the sample's labels ({n_labels}):\n{told}", GREEN, 0.5)
    changed = "sample type → cell line, purity → 1;\nthe other labels stay"
    _label_box(ax, at["z"] + 0.5, f"y to decode ({n_labels}); to align:\n{changed}", VERMILION, at["z"] + 0.5)
    cor, grad, beta = (settings[name] for name in ("lambda_cor", "lambda_grad", "beta"))
    of_z = f"{beta:.3g} × KL divergence to the prior, annealed\n{cor:.3g} × L_cor: y should not be read from z"
    of_x = f"reconstruction, σ = {settings['sigma']:.3g}\n{grad:.3g} × L_grad: should react to y"
    for x, text in ((at["z"], of_z), (len(steps) - 1, of_x)):
        ax.text(x, -1.25, text, ha="center", va="top", fontsize=6.5, color=BLUE)
    ax.set(xlim=(-0.9, len(steps) - 0.1), ylim=(-1.8, 2.3))
    ax.axis("off")
    return fig


def _label_box(ax, x: float, text: str, colour: str, into: float) -> None:
    """A box above the network, with an arrow down between two of its layers."""
    box = {"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": colour}
    ax.annotate(
        text, (into, 0.05), (x, 1.75), ha="center", va="center", fontsize=6.5, bbox=box,
        arrowprops={"arrowstyle": "->", "lw": 0.8, "color": colour},
    )  # fmt: skip


def search_trials(trials: pd.DataFrame, ranges: dict[str, list], selection: str) -> Figure:
    """Total loss of every trial against each hyper-parameter, and in the last panel against the squared error.

    trials: a row per trial, columns of the hyper-parameters, state, rank_loss, <selection>_loss and <selection>_mse;
    may be empty. ranges: row of table 2 (log10_… for exponents of ten) -> its limits or choices.
    """
    fig, axes = plt.subplots(3, 4, figsize=(PAGE, 5.2), sharey=True)
    done = trials[trials["state"] == "complete"] if len(trials) else trials
    for ax, (row, limits) in zip(axes.flat, [*ranges.items(), (f"{selection}_mse", [])], strict=True):
        name = row.removeprefix("log10_")
        ax.set_xlabel(name.replace("_", " ") + ("" if name == row else " (log10)"))
        if limits:
            margin = 0.08 * (max(limits) - min(limits))
            ax.set_xlim(min(limits) - margin, max(limits) + margin)
        if len(limits) > 2:
            ax.set_xticks(limits)
        if not len(done):
            ax.annotate("no search", (0.5, 0.5), xycoords="axes fraction", ha="center", color=GREY)
            continue
        x, loss = done[name] if name == row else np.log10(done[name]), done[f"{selection}_loss"]
        lowest = done["rank_loss"] == 1
        ax.scatter(x, loss, s=14, color=SKY)
        ax.scatter(x[lowest], loss[lowest], s=28, color=VERMILION, label="trial of lowest loss")
    for ax in axes[:, 0]:
        ax.set_ylabel(f"{selection} loss")
    if len(done):
        axes[0, 0].legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)
    return fig


def tissue_search(trials: pd.DataFrame, published: list[tuple[int, int]]) -> Figure:
    """Latent size and batch size of every trial, coloured by its loss; diamonds: the paper's trials.

    trials: a row per trial, columns latent, batch_size, loss, state; may be empty.
    """
    fig, ax = plt.subplots(figsize=(COLUMN * 1.2, 2.6))
    sizes = sorted({*trials["batch_size"], *(batch for _, batch in published)})
    ended = trials[trials["loss"].notna()]
    for state, marker in (("complete", "o"), ("pruned", "X")):
        rows = ended[ended["state"] == state]
        y = [sizes.index(batch) - 0.12 for batch in rows["batch_size"]]
        if len(rows):
            limits = {"vmin": ended["loss"].min(), "vmax": ended["loss"].max(), "cmap": "viridis_r"}
            points = ax.scatter(
                rows["latent"], y, c=rows["loss"], marker=marker, s=30, label=f"trial, {state}", **limits
            )
    ax.scatter(*zip(*((latent, sizes.index(batch) + 0.12) for latent, batch in published), strict=True), **PUBLISHED)
    if len(ended):
        fig.colorbar(points, ax=ax, label="loss that selects")
    ax.set_yticks(range(len(sizes)), sizes)
    ax.set(xlabel="latent dimensions", ylabel="batch size", ylim=(-0.6, len(sizes) - 0.4))
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2)
    return fig


def agreement(x: pd.Series, y: pd.Series, xlabel: str, ylabel: str) -> Figure:
    """Two estimates of the same share (0 to 1) against each other, with the line of equality."""
    fig, ax = plt.subplots(figsize=(COLUMN, COLUMN * 0.9))
    ax.scatter(x, y, s=5, alpha=0.4, linewidths=0, color=BLUE, rasterized=True, clip_on=False)
    ax.axline((0, 0), slope=1, color=GREY, lw=0.8, ls=":")
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel=xlabel, ylabel=ylabel, title=f"n = {len(x):,} tumours")
    ax.set_box_aspect(1)
    return fig


def labels_played(
    maps: dict[str, np.ndarray], kinds: pd.Series, table: pd.DataFrame, before: float, at: tuple[str, float]
) -> Figure:
    """Maps of one cancer type (samples × 2, by title) and ΔD by the purity at decoding; `at` and `before` are marked.

    table: columns decoded as (sample type of the tumours), purity, delta_d.
    """
    fig, axes = plt.subplots(1, 3, figsize=(PAGE, 2.6))
    for ax, (title, xy) in zip(axes, maps.items(), strict=False):
        sample_type_map(ax, xy, kinds)
        ax.set(title=title, xlabel="PC 1", ylabel="PC 2")
    axes[0].sharex(axes[1])
    axes[0].sharey(axes[1])
    colours = {"tumour": SKY, "cell line": VERMILION}
    for kind, rows in table.groupby("decoded as", sort=False):
        colour = colours.get(kind, BLACK)
        axes[2].plot(rows["purity"], rows["delta_d"], color=colour, lw=1.2, marker="o", ms=3, label=kind)
    axes[2].axhline(before, color=GREY, lw=0.8, ls=":", label="input")
    chosen = table[(table["decoded as"] == at[0]) & (table["purity"] == at[1])]
    axes[2].scatter(chosen["purity"], chosen["delta_d"], s=60, facecolor="none", edgecolor=BLACK, zorder=3)
    axes[2].set(xlabel="purity at decoding", ylabel="ΔD", title="tumours decoded as")
    axes[2].legend(loc="upper left", bbox_to_anchor=(-0.1, -0.2), ncols=3, borderaxespad=0, columnspacing=1)
    return fig


def mask_played(pairs: pd.DataFrame, table: pd.DataFrame, at: float) -> Figure:
    """Hidden values against what was filled in, and the correlation by share hidden and model; `at` is marked.

    pairs: columns measured, filled in; table: hidden, model, value, low, high.
    """
    fig, axes = plt.subplots(1, 2, figsize=(PAGE * 0.8, 2.8))
    axes[0].scatter(pairs["measured"], pairs["filled in"], s=3, color=BLUE, alpha=0.3, linewidths=0, rasterized=True)
    low, high = np.percentile(pairs.to_numpy(), [0.5, 99.5])
    axes[0].plot([low, high], [low, high], color=GREY, lw=0.8, ls=":")
    axes[0].set(xlim=(low, high), ylim=(low, high), xlabel="hidden value (z-score)", ylabel="filled in")
    axes[0].set_title(f"{at:.0%} of the genes hidden")
    for model, rows in table.groupby("model", sort=False):
        colour = VARIANTS.get(model, BLACK)
        axes[1].fill_between(rows["hidden"], rows["low"], rows["high"], color=colour, alpha=0.2, linewidth=0)
        axes[1].plot(rows["hidden"], rows["value"], color=colour, lw=1.2, marker="o", ms=3, label=model)
    axes[1].axvline(at, color=BLACK, lw=0.8, ls=":")
    axes[1].set(xlabel="share of genes hidden", ylabel="Spearman ρ of hidden values")
    axes[1].legend(loc="upper left", bbox_to_anchor=(0, -0.2), ncols=2, borderaxespad=0)
    return fig


def before_after_scaling(log2, genes: list[str]) -> Figure:
    """Values of some genes in log2(TPM + 1) and as z-scores; log2: AnnData with var.mean and var.sd."""
    fig, axes = plt.subplots(1, 2, figsize=(PAGE * 0.8, 2.3), sharey=True)
    values = pd.DataFrame(np.asarray(log2[:, genes].X), columns=genes)
    scaled = (values - log2.var.loc[genes, "mean"]) / log2.var.loc[genes, "sd"]
    for ax, table, xlabel in ((axes[0], values, "log2(TPM + 1)"), (axes[1], scaled, "z-score")):
        sns.boxplot(table, orient="h", ax=ax, color=SKY, fliersize=0.8, linewidth=0.8)
        ax.set(xlabel=xlabel)
    return fig
