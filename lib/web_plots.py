"""The web app's pictures: the atlas, probabilities, reliability. Their colours are those of lib/plots.py."""

from __future__ import annotations

import pandas as pd
from bokeh.models import ColumnDataSource, HoverTool, Range1d, Whisker
from bokeh.plotting import figure

from lib import plots
from lib.answers import Answer

SHOWN = 6  # tissues
MOST_TOLD = 3  # samples under the pointer


def _figure(**options) -> figure:
    fig = figure(sizing_mode="stretch_width", toolbar_location=None, tools="", **options)
    fig.outline_line_color = None
    for axis in fig.axis:
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font_size = axis.major_label_text_font_size = "13px"
    fig.grid.grid_line_color = plots.LIGHT
    return fig


def atlas(places: pd.DataFrame, answer: Answer, sample: str) -> figure:
    """The visitor's samples (diamonds; `sample` is the large one) among the references; its nearest ones are ringed."""
    fig = _figure(height=440, output_backend="webgl" if len(places) > 5000 else "canvas")
    colour = places["organ_system"].map(plots.ORGAN_SYSTEMS).fillna(plots.GREY)
    references = places.assign(colour=colour).rename_axis("sample").reset_index()
    dots = fig.scatter("tsne1", "tsne2", color="colour", size=5, alpha=0.7, source=ColumnDataSource(references))
    own = answer.places.join(answer.calls["tissue"]).rename_axis("sample").reset_index()
    own["size"] = [24 if name == sample else 11 for name in own["sample"]]
    own = own.sort_values("size")
    marks = {"marker": "diamond", "fill_color": plots.YELLOW, "line_color": plots.BLACK}
    diamonds = fig.scatter("tsne1", "tsne2", size="size", source=ColumnDataSource(own), **marks)
    near = answer.references.loc[answer.references["sample"] == sample, "reference"]
    ring = {"fill_color": None, "line_color": plots.BLACK, "line_width": 1, "line_alpha": 0.6, "size": 8}
    fig.scatter("tsne1", "tsne2", source=ColumnDataSource(places.loc[near, ["tsne1", "tsne2"]]), **ring)
    said = [("reference", "@sample"), ("tissue", "@tissue"), ("source", "@source")]
    fig.add_tools(
        HoverTool(renderers=[dots], tooltips=said, limit=MOST_TOLD),
        HoverTool(renderers=[diamonds], tooltips=[("your sample", "@sample"), ("called", "@tissue")], limit=MOST_TOLD),
    )
    fig.axis.visible = False
    fig.grid.visible = False
    return fig


def percent(p: float) -> str:
    """A probability of a network, which is never certain."""
    return "> 99.9%" if p > 0.9995 else "< 0.1%" if p < 0.0005 else f"{p:.1%}"


def organ_systems(places: pd.DataFrame) -> dict[str, str]:
    """The colours of the organ systems that are on the map."""
    return {name: colour for name, colour in plots.ORGAN_SYSTEMS.items() if (places["organ_system"] == name).any()}


def probabilities(of_sample: pd.Series) -> figure:
    """The most probable tissues of a sample, the first on top."""
    top = of_sample.sort_values(ascending=False, kind="stable")[:SHOWN][::-1]
    source = ColumnDataSource({"tissue": list(top.index), "p": top, "said": [percent(p) for p in top]})
    fig = _figure(height=40 + 30 * len(top), y_range=list(top.index), x_range=Range1d(0, 1.3))
    fig.hbar(y="tissue", right="p", height=0.7, color=plots.BLUE, source=source)
    fig.text(x="p", y="tissue", text="said", source=source, x_offset=5, text_baseline="middle", text_font_size="13px")
    fig.xaxis.visible, fig.ygrid.visible = False, False
    return fig


def reliability(table: pd.DataFrame) -> figure:
    """Share of right calls (Wilson, 95 %) by stated confidence, against the diagonal of a perfect one."""
    fig = _figure(height=320, x_range=Range1d(0, 1.02), y_range=Range1d(0, 1.02))
    fig.line([0, 1], [0, 1], color=plots.GREY, line_dash="dashed")
    said = table.assign(
        share=[f"{x:.0%} ({a:.0%} to {b:.0%})" for x, a, b in table[["right", "low", "high"]].to_numpy()]
    )
    source = ColumnDataSource(said)
    fig.add_layout(Whisker(base="confidence", upper="high", lower="low", source=source, line_color=plots.BLUE))
    points = fig.scatter("confidence", "right", size=8, color=plots.BLUE, source=source)
    fig.add_tools(HoverTool(renderers=[points], tooltips=[("right", "@share"), ("samples", "@n")]))
    fig.xaxis.axis_label, fig.yaxis.axis_label = "probability of the call (mean of its bin)", "share that is right"
    return fig
