"""The eight headline figures, drawn from made-up data: no text on other text, none outside the canvas."""

from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from lib import config, plots

DATA = config.ROOT / "data"
TYPES = pd.read_csv(DATA / "cancer_type_map.csv")["cancer_type"].dropna().drop_duplicates().sort_values()
TISSUES = pd.read_csv(DATA / "tissue_map.csv")["tissue"].dropna().drop_duplicates().sort_values()
COHORT = pd.read_csv(DATA / "target_expected.csv").drop_duplicates(["group", "tissue"])


def visible_texts(fig) -> list[Text]:
    """What a reader sees: without hidden texts and the labels of ticks outside the axes."""
    hidden = set()
    for ax in fig.axes:
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
            out = [t for t in ticks if not low - 1e-9 <= t.get_loc() <= high + 1e-9]
            hidden |= {id(text) for t in out for text in (t.label1, t.label2)}
    texts = fig.findobj(lambda a: isinstance(a, Text) and a.get_visible() and a.get_text().strip())
    return [t for t in texts if id(t) not in hidden]


def problems(fig) -> list[str]:
    """Pairs of texts that overlap by more than a pixel, and texts that stick out of the canvas."""
    fig.canvas.draw()
    boxes = [(t.get_text().replace("\n", " "), Text.get_window_extent(t)) for t in visible_texts(fig)]
    canvas = fig.bbox
    found = []
    for (a, x), (b, y) in combinations(boxes, 2):
        width, height = min(x.x1, y.x1) - max(x.x0, y.x0), min(x.y1, y.y1) - max(x.y0, y.y0)
        if width > 1 and height > 1:
            found.append(f"{a!r} on {b!r}")
    for text, box in boxes:
        if min(box.x0 - canvas.x0, box.y0 - canvas.y0, canvas.x1 - box.x1, canvas.y1 - box.y1) < -1:
            found.append(f"{text!r} outside the canvas")
    return found


def clusters(names, n: int, rng) -> tuple[np.ndarray, pd.Series]:
    """Samples around one random centre for each name, some centres side by side."""
    groups = pd.Series(np.repeat(list(names), n))
    centres = rng.uniform(-10, 10, (len(names), 2))
    centres[1] = centres[0] + 0.3
    return np.repeat(centres, n, axis=0) + rng.normal(0, 0.7, (len(groups), 2)), groups


def with_interval(value: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"value": value, "low": np.maximum(value - 8, 0), "high": np.minimum(value + 8, 100)})


def umap(seed: int) -> plt.Figure:
    xy, groups = clusters(TYPES[:26], 20, np.random.default_rng(seed))
    kinds = np.where(np.arange(len(groups)) % 5 == 0, "cell line", "tumour")
    obs = pd.DataFrame({"sample_type": kinds, "cancer_type": groups})
    fig, ax = plt.subplots(figsize=(plots.COLUMN, plots.COLUMN))
    colours = plots.cancer_type_colours(list(TYPES))
    plots.alignment_map(ax, xy, obs, "cancer_type", colours, sorted(TYPES[:26], key=len)[-8:])
    plots.sample_type_legend(ax)
    ax.set_title("RNAlign")
    return fig


def a_fig2c() -> plt.Figure:
    methods = ["input", "linear projection", "Celligner", "RNAlign"]
    fig, axes = plt.subplots(2, 1, figsize=(plots.COLUMN * 1.3, 0.5 * len(methods) + 1.6), sharex=True)
    for ax, reading in zip(axes, ("share of all lines", "median over cancer types"), strict=True):
        rows = with_interval(np.array([35.9551, 46.0674, 66.2921, 100.0])).assign(method=methods, n=1249)
        plots.bars_with_interval(ax, rows, "method", "value", "")
        plots.published_marks(ax, rows, "method", {"input": 45.3, "RNAlign": 72.3})
        ax.set(title=reading, xlim=(0, 100))
    axes[1].set_xlabel("cell lines matched to their own cancer type, %")
    axes[1].legend(loc="upper left", bbox_to_anchor=(-0.3, -0.2), borderaxespad=0)
    return fig


def a_fig4() -> plt.Figure:
    methods, order = ["input", "RNAlign", "Celligner"], list(TYPES[:26])
    columns = {"cancer_type": np.repeat(order, len(methods)), "method": methods * len(order), "n": 1234}
    table = with_interval(np.linspace(100, 0, len(order) * 3)).rename(columns={"value": "match"}).assign(**columns)
    table.loc[table["cancer_type"] == order[-1], ["match", "low", "high", "n"]] = [np.nan, np.nan, np.nan, 0]
    return plots.match_bars(table, order, methods, {order[3]: 40.0, order[20]: 0.0})


def b_fig1a(seed: int) -> plt.Figure:
    xy, groups = clusters(plots.ORGAN_SYSTEMS, 60, np.random.default_rng(seed))
    fig, ax = plt.subplots(figsize=(plots.PAGE * 0.65, plots.PAGE * 0.6))
    plots.category_map(ax, xy, groups, plots.ORGAN_SYSTEMS, on_map=True)
    ax.set_title("Organ system")
    return fig


def b_fig2() -> plt.Figure:
    accuracy = np.linspace(0, 1, len(TISSUES))
    table = pd.DataFrame({"class": TISSUES.to_numpy(), "accuracy": accuracy, "n": 1 + np.arange(len(TISSUES)) ** 2})
    return plots.accuracy_by_class(table, 0.871, "balanced accuracy 87.1%, weighted F1 93.4%")


def b_fig4() -> plt.Figure:
    table = COHORT[["group", "tissue"]].assign(expected=True, n=1234)
    table["fraction"] = 0.9 / table.groupby("group")["tissue"].transform("size")
    return plots.assignment_bars(table, pd.Series({g: 0.9 for g in COHORT["group"]} | {"CCSK": np.nan}))


def b_fig5a() -> plt.Figure:
    methods = [f"HVG by z-score + UMAP(50) + kNN {i}" for i in range(11)]
    value = with_interval(np.linspace(0, 100, 12)).div(100).add_prefix("balanced_accuracy_")
    table = value.rename(columns={"balanced_accuracy_value": "balanced_accuracy"})
    families = (list(plots.FAMILIES) * 3)[1:12]
    table = table.assign(method=["tissue VAE", *methods], family=["supervised VAE", *families])
    return plots.method_bars(table, {"tissue VAE": 94.9})


HEADLINE = {
    "a-fig2a": lambda: umap(0),
    "a-fig2b": lambda: umap(1),
    "a-fig2c": a_fig2c,
    "a-fig4": a_fig4,
    "b-fig1a": lambda: b_fig1a(2),
    "b-fig2": b_fig2,
    "b-fig4": b_fig4,
    "b-fig5a": b_fig5a,
}


@pytest.fixture(params=HEADLINE)
def figure(request, tmp_path, monkeypatch):
    run = config.load("smoke")
    plots.use_style(run)
    fig = HEADLINE[request.param]()
    monkeypatch.setattr(config, "ROOT", tmp_path)
    plots.save(fig, request.param)
    yield fig
    plt.close(fig)


def test_no_text_overlaps_another_leaves_the_canvas_or_is_too_small_for_print(figure):
    assert problems(figure) == []
    note = figure._supxlabel
    assert min(t.get_fontsize() for t in visible_texts(figure) if t is not note) >= 6
    assert figure.get_tightbbox().width <= plots.PAGE + 0.05


@pytest.mark.parametrize("seed", range(4))
def test_names_on_a_map_stand_beside_their_groups(seed):
    plots.use_style(config.load("smoke"))
    fig = b_fig1a(seed)
    assert problems(fig) == []
    height = max(Text.get_window_extent(t).height for t in fig.axes[0].texts)
    for text in fig.axes[0].texts:
        x, y = fig.axes[0].transData.transform(text.xy)
        box = Text.get_window_extent(text)
        away = np.hypot(max(box.x0 - x, x - box.x1, 0), max(box.y0 - y, y - box.y1, 0))
        assert away < 4 * height, text.get_text()
    plt.close(fig)


def test_the_check_sees_an_overlap_and_a_text_outside():
    fig = plt.figure(figsize=(2, 2))
    fig.text(0.5, 0.5, "one")
    fig.text(0.52, 0.5, "other")
    fig.text(0.9, 0.1, "sticks out of it")
    assert problems(fig) == ["'one' on 'other'", "'sticks out of it' outside the canvas"]
    plt.close(fig)
