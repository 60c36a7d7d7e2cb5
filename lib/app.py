"""The web app: a page on which visitors ask the trained models about their own samples (`./run_all.sh app`).

A thin layer: what is answered, and refused, is lib/answers.py's. One process, one set of models; every visitor has a
session of their own, which ends with their browser tab. The page needs nothing from elsewhere than this server.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import signal
import sys
import tempfile
from html import escape
from pathlib import Path

import pandas as pd
import panel as pn
from panel.io.resources import LOCAL_DIST
from tornado.netutil import bind_sockets

from lib import answers, cli, plots, transfer, web_plots
from lib.answers import Answer, Models, Question, Refusal
from lib.model_card import NOT_FOR_DIAGNOSIS

CSS = Path(__file__).with_suffix(".css").read_text()
COLOURS = f":root {{ --caution: {plots.VERMILION}; --light: {plots.LIGHT}; }}"
NOT_A_TUMOUR = "none: not tumours, or in the table below"
CHUNK_BYTES = 4_000_000  # of an upload, in a message
LARGEST_MESSAGE = 64 * 2**20
MAX_PASTE = 10_000_000  # characters
# A browser that keeps to this policy asks no other server for anything, whatever a library of the page would like.
PAGE = """{% block preamble %}<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:;
connect-src 'self' {{ sockets }}; form-action 'none'">{% endblock %}"""
PAGE_WIDTH = 1100
FILE, TEXT, EXAMPLE = "Upload a file", "Paste a table", "Try an example"
STRETCH = {"sizing_mode": "stretch_width"}
HEADS = {
    "tissue": "Called", "probability": "Probability", "too_far": "Abstains", "distance": "Distance ÷ limit",
    "neighbours_tissue": "Nearest references say", "neighbours_share": "Share of them", "rank": "#",
    "reference": "Reference", "source": "Source", "line": "DepMap id", "name": "Name", "cancer_type": "Cancer type",
    "similarity": "Similarity", "interval": "95 % of draws", "in_draws": "In draws",
}  # fmt: skip


class Upload(pn.widgets.FileDropper):
    """A file in memory; the server stops listening to one that is larger than the limit, whatever the browser does."""

    def __init__(self, **params):
        limit = f"{answers.MAX_MB}MB"
        super().__init__(max_file_size=limit, chunk_size=CHUNK_BYTES, previews=[], min_height=90, **STRETCH, **params)

    def _process_event(self, event) -> None:
        if event.event_name == "upload_event":
            name, held = event.data["name"], sum(len(part) for parts in self._file_buffer.values() for part in parts)
            if held + len(event.data["data"]) > answers.MAX_MB * 1e6:
                self._file_buffer.pop(name, None)
                return
            if event.data["chunk"] > 1 and name not in self._file_buffer:  # the rest of one that was refused
                return
        super()._process_event(event)

    def last(self) -> tuple[str, bytes] | None:
        """Name and content of the file given last."""
        if not self.value:
            return None
        name, content = list(self.value.items())[-1]
        return name, content.encode() if isinstance(content, str) else bytes(content)


def html(text: str) -> pn.pane.HTML:
    """A piece of the page; whatever a visitor gave has been escaped."""
    return pn.pane.HTML(text, stylesheets=[CSS], **STRETCH)


def heading(title: str) -> str:
    return f"<h2>{escape(title)} <small>{NOT_FOR_DIAGNOSIS}</small></h2>"


def table(rows: pd.DataFrame) -> str:
    """A table with everything in it escaped; numbers to three decimals."""
    numeric = [pd.api.types.is_numeric_dtype(d) and not pd.api.types.is_bool_dtype(d) for d in rows.dtypes]
    kinds = [' class="number"' if number else "" for number in numeric]
    names = [escape(HEADS.get(str(c), str(c))) for c in rows.columns]
    head = "".join(f"<th{kind}>{name}</th>" for kind, name in zip(kinds, names, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{_cell(value)}</td>" for kind, value in zip(kinds, row, strict=True)) + "</tr>"
        for row in rows.itertuples(index=False)
    )
    return f'<div class="wide" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if pd.isna(value):
        return ""
    return f"{value:,.3f}" if isinstance(value, float) else escape(str(value))


class Visit:
    """One visitor's page and what they gave: nothing of it is shared or kept."""

    def __init__(self, models: Models, examples: dict[str, Question]):
        self.models, self.examples = models, examples
        self._make_inputs()
        self.ask = pn.widgets.Button(name="Analyse", button_type="primary", width=160)
        self.ask.on_click(self._on_ask)
        self.result = pn.Column(**STRETCH)

    def _make_inputs(self) -> None:
        self.file, self.labels, self.line_table = Upload(), Upload(), Upload()
        hint = "gene\tsample1\tsample2\nTP53\t5.3\t7.1\n…"
        self.text = pn.widgets.TextAreaInput(placeholder=hint, max_length=2 * MAX_PASTE, height=150, **STRETCH)
        self.example = pn.widgets.Select(options=list(self.examples), **STRETCH)
        self.source = pn.widgets.RadioButtonGroup(name="Samples", options=list(SOURCES))
        inputs = (self.file, self.text, pn.Column(self.example, self._download_example(), **STRETCH))
        self.inputs = [
            pn.Column(
                html(said), field, visible=pn.bind(lambda chosen, name=name: chosen == name, self.source), **STRETCH
            )
            for (name, said), field in zip(SOURCES.items(), inputs, strict=True)
        ]
        types = {NOT_A_TUMOUR: ""} | {name: name for name in self.models.rnalign.cancer_types_}
        self.cancer_type = pn.widgets.Select(name="Cancer type, for the nearest cell lines", options=types, width=320)
        self.purity = pn.widgets.TextInput(name="Purity, 0 to 1", placeholder="empty: estimated", width=150)
        units = {"told by the values": ""} | {unit: unit for unit in cli.UNITS}
        self.unit = pn.widgets.Select(name="Unit of the values", options=units, width=180)
        self.harmonise = pn.widgets.Select(name="Scale", options=SCALES, width=320)

    def _download_example(self) -> pn.widgets.FileDownload:
        def content() -> io.BytesIO:
            return io.BytesIO(self.examples[self.example.value].content)

        return pn.widgets.FileDownload(
            callback=content, filename="example.csv", label="Its file, as a pattern", width=220
        )

    def page(self) -> pn.Column:
        """Everything that the visitor sees."""
        more = pn.Card(
            html(LABELS), self.labels, html(LINE_TABLE), self.line_table, html(SCALE), self.harmonise,
            title="More: types of each sample, your own table of cell lines, scale", collapsed=True, margin=(12, 10),
            **STRETCH,
        )  # fmt: skip
        options = pn.FlexBox(self.cancer_type, self.purity, self.unit)
        top = html(
            TITLE.format(
                note=escape(self.models.note.removeprefix(f"{NOT_FOR_DIAGNOSIS}; ")),
                tissues=len(self.models.vae.classes_),
            )
        )
        parts = [top, self.source, *self.inputs, options, more, self.ask, self.result]
        return pn.Column(*parts, max_width=PAGE_WIDTH, styles={"margin": "0 auto"}, **STRETCH)

    def question(self) -> Question:
        """What the visitor asks. `Refusal` when they gave no samples, or a purity that is none."""
        try:
            purity = float(self.purity.value) if self.purity.value.strip() else None
        except ValueError:
            raise Refusal(f"purity: found {self.purity.value[:40]!r}, expected a number from 0 to 1") from None
        tables = {name: given and given[1] for name, given in self._tables().items()}
        said = {"cancer_type": self.cancer_type.value or None, "purity": purity, "harmonise": self.harmonise.value}
        if self.source.value == EXAMPLE:
            example = self.examples[self.example.value]
            labels = tables["labels"] or (None if self.cancer_type.value else example.labels)
            return Question(example.content, example.name, example.unit, **said, **(tables | {"labels": labels}))
        given = self.file.last() if self.source.value == FILE else self._pasted()
        if given is None:
            raise Refusal(
                "no samples: found none, expected a file (whose upload has ended), pasted text, or an example"
            )
        return Question(given[1], given[0], self.unit.value or None, **said, **tables)

    def _tables(self) -> dict[str, tuple[str, bytes] | None]:
        return {"labels": self.labels.last(), "line_table": self.line_table.last()}

    def _pasted(self) -> tuple[str, bytes] | None:
        if len(self.text.value) > MAX_PASTE:
            raise Refusal(f"pasted text: found more than {MAX_PASTE:,} characters, expected less, or a file")
        return ("pasted text", self.text.value.encode()) if self.text.value.strip() else None

    async def _on_ask(self, _) -> None:
        """Answer beside the server's own loop, so that other visitors are served meanwhile."""
        self.ask.loading = True
        self.result.objects = [html("<p role=status>Working …</p>")]
        try:
            answer = await asyncio.to_thread(self.models.answer, self.question())
            self.result.objects = Shown(answer, self.models.atlas).parts()
        except Refusal as refusal:
            self.result.objects = [html(f'<p class="refused" role="alert">{escape(str(refusal))}</p>')]
        finally:
            self.ask.loading = False


class Shown:
    """An answer on the page: the table of all samples, and the pictures of the one that is picked."""

    def __init__(self, answer: Answer, atlas: pd.DataFrame):
        self.answer, self.atlas = answer, atlas
        samples = [str(name) for name in answer.calls.index]
        self.pick = pn.widgets.Select(name="Sample shown below", options=samples, width=320)

    def parts(self) -> list:
        """The page's parts below the button."""
        read = f"<p>{' '.join(map(escape, self.answer.remarks))}</p>"
        note = f'<p class="caution">{escape(self.answer.note[0].upper() + self.answer.note[1:])}.</p>'
        calls = self.answer.calls.drop(columns="nearest_references").rename_axis("Sample").reset_index()
        far = int(calls["too_far"].sum())
        calls["probability"] = calls["probability"].map(web_plots.percent)
        calls["neighbours_share"] = calls["neighbours_share"].map("{:.0%}".format)
        calls.insert(2, "too_far", calls.pop("too_far"))
        said = f"<p>{far or 'None'} of {len(calls)} too far from every reference to be named"
        said += ": do not use their calls.</p>" if far else ".</p>"
        return [
            html(heading("Tissue of every sample") + note + read + table(calls) + said),
            self._downloads(), self.pick, pn.bind(self._of_sample, self.pick), *self._calibration(),
        ]  # fmt: skip

    def _downloads(self) -> pn.FlexBox:
        files = {"tissues.csv": self.answer.calls_csv}
        files |= {"cell_lines.csv": self.answer.lines_csv} if len(self.answer.lines) else {}
        return pn.FlexBox(*(
            pn.widgets.FileDownload(callback=lambda of=of: io.StringIO(of()), filename=name, label=f"Download {name}",
                                    width=220)
            for name, of in files.items()
        ))  # fmt: skip

    def _of_sample(self, sample: str) -> pn.Column:
        call = self.answer.calls.loc[sample]
        said = escape(web_plots.percent(call["probability"]))
        verdict = f"<p><b>{escape(sample)}</b>: {escape(call['tissue'])}, probability {said}.</p>"
        if call["too_far"]:
            verdict += f'<p class="caution">Abstains: {call["distance"]:.2g} times the distance from the nearest '
            verdict += "references within which 95 % of samples of known tissues stay. Do not use the call.</p>"
        near = self.answer.references[self.answer.references["sample"] == sample].drop(columns="sample")
        near = near.rename(columns={"tissue": "Tissue"})
        return pn.Column(
            html(heading("Tissue") + verdict),
            web_plots.probabilities(self.answer.probabilities.loc[sample]),
            html(heading("On the atlas") + self._map_legend()),
            web_plots.atlas(self.atlas, self.answer, sample),
            html(heading("Nearest references") + "<p>In the latent space.</p>" + table(near)),
            html(heading("Nearest cell lines") + self._lines(sample)),
            **STRETCH,
        )

    def _map_legend(self) -> str:
        colours = web_plots.organ_systems(self.atlas)
        dots = "".join(
            f'<span class="key"><span class="dot" style="background:{c}"></span>{escape(n)}</span> '
            for n, c in colours.items()
        )
        said = (
            f"<p>t-SNE of {len(self.atlas):,} samples that the model was not trained on; point at one for its tissue "
        )
        said += "and source. A diamond is a sample of yours: it is not embedded anew, but stands at the median of its "
        return said + f"{transfer.NEIGHBOURS} nearest references (ringed for the one picked).</p><p>{dots}</p>"

    def _lines(self, sample: str) -> str:
        if not len(self.answer.lines):
            return f"<p>{escape(self.answer.no_lines)}</p>"
        mine = self.answer.lines[self.answer.lines["sample"] == sample]
        if not len(mine):
            return "<p>This sample has no cancer type.</p>"
        before, after = (mine[mine["alignment"] == when].drop(columns="alignment") for when in ("before", "after"))
        after = after.assign(interval=[f"{a:.3f} to {b:.3f}" for a, b in after[["low", "high"]].to_numpy()])
        shown = ["rank", "line", "name", "cancer_type", "similarity"]
        own = [c for c in mine if c not in (*shown, "sample", "alignment", "low", "high", "in_draws")]
        return (
            '<div class="beside"><div><h3>Before alignment</h3>' + table(before[[*shown, *own]])
            + "</div><div><h3>After alignment by RNAlign</h3>" + table(after[[*shown, "interval", "in_draws", *own]])
            + "</div></div>" + LINES + f"<p>{escape(self.answer.purity_note.capitalize())}</p>"
        )  # fmt: skip

    def _calibration(self) -> list:
        right, error = self.answer.accuracy, self.answer.calibration_error
        said = (
            f"<p>By the genes of this file the model names {right.value:.1%} ({right.low:.1%} to {right.high:.1%}) of "
        )
        said += f"{right.n:,} held-out samples rightly. Mean distance from the diagonal, weighted by samples: "
        said += f"{error.value:.3f} ({error.low:.3f} to {error.high:.3f}). Bars: 95 % intervals.</p>"
        bins = self.answer.reliability
        counts = pd.DataFrame({
            "probability": [f"{a:.0%} to {b:.0%}" for a, b in bins[["above", "up_to"]].to_numpy()],
            "samples": bins["n"],
            "right": [f"{r:.0%} ({a:.0%} to {b:.0%})" for r, a, b in bins[["right", "low", "high"]].to_numpy()],
        })  # fmt: skip
        return [
            html(heading("What the probability is worth") + said),
            web_plots.reliability(bins),
            html(table(counts)),
        ]


SOURCES = {
    FILE: f"""<p>Expression of one or many samples: CSV, TSV, GCT (.gz too), H5 or h5ad; genes in rows or in columns;
HGNC symbols or Ensembl ids; counts, TPM or log2(TPM+1). At most {answers.MAX_MB} MB and {answers.MAX_SAMPLES} samples.
</p>""",
    TEXT: """<p>A table with a header line: genes in the first column, one column per sample (or the other way round).
</p>""",
    EXAMPLE: "<p>Samples that no model was trained on.</p>",
}
LABELS = "<p>A table of your samples (CSV or TSV): sample, cancer_type, and purity where known.</p>"
LINE_TABLE = """<p>A table of cell lines (CSV or TSV), the DepMap id (ACH-…) first: growth, mutations, or what you have;
its columns are shown beside every line.</p>"""
SCALE = "<p>How values are brought to the scale of the training data.</p>"
SCALES = {
    "the training part's mean and spread": "none", "the references' quantiles: for other labs": "reference",
    "z-scores over your file: many samples": "cohort",
}  # fmt: skip
LINES = """<p>Similarity: Pearson correlation of z-scores, after alignment at the mean of the latent code. Draws: of the
code from its posterior, whose noise tends to lower a similarity; “in draws”: the share of them in which the line stays
among the nearest. The alignment is given the sample's cancer type: that lines of this type come first is in part by
construction.</p>"""
TITLE = """<h1>Which tissue, and which cell lines?</h1>
<p>A tissue VAE calls each sample one of {tissues} tissues, or says that it is too far from all that it knows; RNAlign
finds the cell lines that are nearest to a tumour. Your files stay in this server's memory until you close the page;
nothing is stored, and nothing is sent anywhere.</p>
<p class="caution"><b>Not for diagnosis.</b> Models {note}.</p>"""


def visit(models: Models, examples: dict[str, Question], origins: list[str]) -> pn.Column:
    """The page of a new visitor; its styles and scripts come from this server, where Panel would ask its own."""
    document = pn.state.curdoc
    document.template_variables["dist_url"] = LOCAL_DIST
    document.template_variables["sockets"] = " ".join(f"ws://{origin} wss://{origin}" for origin in origins)
    document.template = PAGE
    return Visit(models, examples).page()


def serve(arguments: list[str]) -> int:
    """Serve the page until stopped."""
    args = _parser().parse_args(arguments)
    _refuse_unusable(args.address, args.port)
    models = Models(args.profile, args.model)
    examples = models.examples()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the folder below is deleted then, too
    pn.extension("filedropper", raw_css=[COLOURS], sizing_mode=None)
    origins = [args.origin or f"{args.address}:{args.port}", f"localhost:{args.port}"]
    with tempfile.TemporaryDirectory(prefix="rnatlas-app-") as folder:
        tempfile.tempdir = folder  # nothing of a visitor outlives the server, whatever a reader leaves behind
        server = pn.serve(
            lambda: visit(models, examples, origins), port=args.port, address=args.address, websocket_origin=origins,
            show=False, start=False, title="rnatlas", websocket_max_message_size=LARGEST_MESSAGE, verbose=False,
        )  # fmt: skip
        server.start()
        print(f"http://{origins[0]}/  (to stop: Ctrl-C)", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.io_loop.start()
    return 0


def _refuse_unusable(address: str, port: int) -> None:
    """Before the models are loaded. OSError when something else listens there already."""
    try:
        bind_sockets(port, address).pop().close()
    except (OSError, OverflowError) as error:
        raise OSError(f"--address {address} --port {port}: {error}, expected a free port (--port N)") from None


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a port from 1 to 65535")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./run_all.sh app", description="Ask the trained models on a web page.")
    models = parser.add_mutually_exclusive_group()
    models.add_argument("--profile", default=cli.DEMO, help="the models of this profile's run (default: demo)")
    models.add_argument("--model", metavar="DIR", type=Path, help="folder with models/ and compendia, as of a run")
    parser.add_argument("--port", type=_port, default=5006, help="default: 5006")
    parser.add_argument("--address", default="127.0.0.1", help="to listen on (default: 127.0.0.1, this machine only)")
    parser.add_argument(
        "--origin", metavar="HOST:PORT", help="what visitors type, where it is another than the address"
    )
    return parser
