"""Every kind of picture, and the one place that knows style and colours."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.colors import LogNorm, to_hex
from matplotlib.figure import Figure
from scipy.spatial.distance import cdist

from lib import config
from lib.files import replacing

COLUMN = 3.5  # inches: a journal's single column
PAGE = 7.2  # inches: a journal's full width
DPI = 200

# Okabe & Ito (2008): told apart by readers of every kind of colour vision.
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
GREY, LIGHT = "#888888", "#DDDDDD"

METHODS = {
    "input": BLUE,
    "RNAlign": VERMILION,
    "Celligner": GREEN,
    "linear projection": PURPLE,
    "type mean": GREY,
    "tissue VAE": GREEN,
    "kNN, all genes": SKY,
    "logistic regression": ORANGE,
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
    about = {"Title": figure_id, "Subject": note}
    png = {"Title": figure_id, "Description": note}
    pdf = about | {"CreationDate": None}
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
    return (
        table.assign(**counts).to_markdown(
            index=False, floatfmt=".3g", disable_numparse=[*map(table.columns.get_loc, counts)]
        )
        + "\n"
    )


def _map_axes(ax, name: str) -> None:
    ax.set(xticks=[], yticks=[], xlabel=f"{name} 1", ylabel=f"{name} 2")
    ax.set_box_aspect(1)


def _label_groups(ax, xy: np.ndarray, groups: pd.Series, names: list[str]) -> None:
    """Write each group's name at its most central sample, moved up where names would overlap."""
    height, width = 0.05 * np.ptp(ax.get_ylim()), 0.36 * np.ptp(ax.get_xlim())
    placed: list[tuple[float, float]] = []
    for name, (x, y) in sorted(_medoids(xy, groups, names).items(), key=lambda item: item[1][1]):
        while any(abs(x - px) < width and abs(y - py) < height for px, py in placed):
            y += 0.2 * height
        placed.append((x, y))
        box = {"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.7}
        ax.annotate(name, (x, y), ha="center", va="center", fontsize=6.5, fontweight="bold", bbox=box)


def _medoids(xy: np.ndarray, groups: pd.Series, names: list[str]) -> dict[str, np.ndarray]:
    """The sample of each group with the smallest median distance to the others: a mean may lie in no group at all."""
    points = {name: xy[(groups == name).to_numpy()][:500] for name in names}
    return {name: p[np.median(cdist(p, p), axis=1).argmin()] for name, p in points.items()}


def alignment_map(ax, xy: np.ndarray, obs: pd.DataFrame, by: str, colours: dict, labelled: list[str]) -> None:
    """Tumours (dots) and cell lines (triangles) on a map, coloured by a column; some groups named at their tumours.

    xy: samples × 2; obs: `sample_type` and the column `by`.
    """
    is_line = (obs["sample_type"] == "cell line").to_numpy()
    shade = _shades(obs[by], colours)
    ax.scatter(*xy[~is_line].T, c=shade[~is_line], s=5, alpha=0.6, linewidths=0, rasterized=True)
    ax.scatter(*xy[is_line].T, c=shade[is_line], s=16, marker="^", edgecolors="black", linewidths=0.4)
    _map_axes(ax, "UMAP")
    _label_groups(ax, xy[~is_line], obs[by][~is_line], labelled)


def sample_type_legend(ax) -> None:
    """Legend of the two markers of `alignment_map`, below the axes."""
    dot = plt.Line2D([], [], marker="o", ls="", ms=3, color=GREY, label="tumour")
    triangle = plt.Line2D([], [], marker="^", ls="", ms=5, mfc=GREY, mec="black", mew=0.4, label="cell line")
    ax.legend(handles=[dot, triangle], loc="upper left", bbox_to_anchor=(0, -0.08), ncols=2, borderaxespad=0)


def category_map(ax, xy: np.ndarray, groups: pd.Series, colours: dict, on_map: bool) -> None:
    """Samples on a map coloured by group; names at the groups' centres, or a legend at the right."""
    order = np.random.default_rng(0).permutation(len(xy))  # no group drawn on top of all others
    shade = _shades(groups, colours)[order]
    ax.scatter(*xy[order].T, c=shade, s=3, alpha=0.7, linewidths=0, rasterized=True)
    _map_axes(ax, "t-SNE")
    present = [g for g in colours if (groups == g).any()]
    if on_map:
        _label_groups(ax, xy, groups, present)
    else:
        dots = [plt.Line2D([], [], marker="o", ls="", ms=4, color=colours[g], label=g) for g in present]
        ax.legend(handles=dots, loc="upper left", bbox_to_anchor=(0, -0.08), ncols=len(dots), borderaxespad=0)


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


def before_after(ax, table: pd.DataFrame, xlabel: str) -> None:
    """A line from each row's value before to its value after; table: index = names, columns = the two methods."""
    y = np.arange(len(table))
    first, second = table.columns
    ax.hlines(y, table[first], table[second], color=LIGHT, lw=2, zorder=1)
    for method in (first, second):
        ax.scatter(table[method], y, color=METHODS[method], s=16, label=method, zorder=2)
    ax.axvline(0, color=GREY, lw=0.8, ls=":")
    ax.set_yticks(y, table.index)
    ax.set_xlabel(xlabel)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)


def paired_bars(ax, table: pd.DataFrame, xlabel: str) -> None:
    """Two horizontal bars on a log scale for every row; table: index = names, columns = the two series."""
    y = np.arange(len(table))
    for offset, colour, column in ((0.2, SKY, table.columns[0]), (-0.2, ORANGE, table.columns[1])):
        ax.barh(y + offset, table[column], height=0.38, color=colour, label=column)
    ax.set_yticks(y, table.index)
    ax.set(xlabel=xlabel, ylim=(-0.6, len(table) - 0.4), xscale="log")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)
