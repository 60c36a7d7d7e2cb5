"""The reviewer's page, built from one small made-up notebook."""

import hashlib
import json
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import nbformat.v4 as nb
import pandas as pd
import pytest
from PIL import Image

from lib import config, notebooks, plots, report
from lib import run as run_all

TITLE = "# 01 · A made-up notebook\n\n**Question.** Does the page show it?"
TEXT = (
    "## Two points\n\nThe *line* through [two](x.md) [points](01_made_up.ipynb); `x` is what `y` is not.\n\nMore of it."
)
TABLE = pd.DataFrame({"name": ["<script>alert(1)</script>", "b"], "value": [1.5, 2.0]})


def made_up_notebook(executed: bool):
    def code(source, count, tags=(), outputs=()):
        done = {"execution_count": count, "outputs": list(outputs)} if executed else {}
        return nb.new_code_cell(source, metadata={"tags": list(tags)}, **done)

    html = f"<div><style scoped>p {{}}</style>{TABLE.to_html()}</div>"
    cells = [
        nb.new_markdown_cell(TITLE),
        code('profile = "demo"', 1, ["parameters"]),
        nb.new_markdown_cell(TEXT),
        code('save("a-fig1")', 2, ["a-fig1"], [nb.new_output("display_data", {"image/png": "aGk=", "text/plain": ""})]),
        code('save("a-table1")', 3, ["a-table1"], [nb.new_output("execute_result", {"text/html": html})]),
        code("say()", 4, ["headline"], [nb.new_output("execute_result", {"text/markdown": "It **does**."})]),
    ]
    about = {"papermill": {"duration": 12.3, "start_time": "2026-01-02T03:04:05"}} if executed else {}
    return nb.new_notebook(cells=cells, metadata=about)


@pytest.fixture
def run(empty_repository):
    notebooks.nbformat.write(made_up_notebook(executed=False), notebooks.FOLDER / "01_made_up.ipynb")
    loaded = config.load("smoke")
    loaded.raw.mkdir(parents=True)
    (loaded.raw / "counts.tsv").write_text("gene\t1\n")
    return loaded


def draw():
    fig, ax = plt.subplots(figsize=(1, 1))
    ax.plot([1, 2], [3, 4])
    plots.save(fig, "a-fig1", data=pd.DataFrame({"x": [1, 2]}))
    plt.close(fig)


@pytest.fixture
def built(run):
    plots.use_style(run)
    draw()
    plots.save_table(TABLE, "a-table1", "A table")
    executed = notebooks.executed_path(run, "01_made_up")
    executed.parent.mkdir()
    notebooks.nbformat.write(made_up_notebook(executed=True), executed)
    claims = {
        "id": ["a-one", "a-two"],
        "measured": [1, 2],
        "unit": ["%", "–"],
        "published": [2, "–"],
        "low": [0.5, "–"],
    }
    claims |= {"high": [1.5, "–"], "n": 9, "verdict": "reproduced", "made_by": ["01 [a-fig1]", "01 [a-fig12]"]}
    claims |= {"where": "Sec 1", "quantity": "q", "reason": "r"}
    pd.DataFrame(claims).to_csv(run.figures / "claims.csv", index=False)
    return run


class Page(HTMLParser):
    """Every start tag of a page with its attributes."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.text = [], path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def values(self, attribute, *tags):
        return [attrs[attribute] for tag, attrs in self.tags if attribute in attrs and (not tags or tag in tags)]


def test_every_link_is_alive_and_nothing_is_asked_of_the_network(built):
    page = Page(report.build(built, [built]))
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    links = page.values("href", "a")
    assert {"a-fig1.png", "a-fig1.pdf", "data/a-fig1.csv", "tables/a-table1.md", "#a-fig1", "#main"} <= set(links)
    for link in links:
        assert link[1:] in ids if link.startswith("#") else (built.figures / link).is_file(), link
    assert all(source.startswith("data:") for source in page.values("src") + page.values("href", "link"))
    assert "script" not in [tag for tag, _ in page.tags]


def test_the_page_is_valid_html(built):
    html5lib = pytest.importorskip("html5lib", reason="html5lib, the validating parser, is not installed")
    parser = html5lib.HTMLParser(strict=True)
    parser.parse(report.build(built, [built]).read_text(encoding="utf-8"))
    assert parser.errors == []


def test_every_picture_has_a_text_and_the_page_fits_a_phone(built):
    page = Page(report.build(built, [built]))
    said = "a-fig1: Two points. The line through two points; x is what y is not."
    assert [attrs.get("alt") for tag, attrs in page.tags if tag == "img"] == [said]
    assert "width=device-width, initial-scale=1" in page.values("content")
    assert page.values("lang") == ["en"]
    scrolled = [attrs for _, attrs in page.tags if attrs.get("class") == "scroll"]
    assert scrolled
    assert all(attrs["tabindex"] == "0" and attrs["aria-label"] for attrs in scrolled)


def test_the_page_says_what_stands_behind_a_figure(built):
    text = report.build(built, [built]).read_text(encoding="utf-8")
    raw = hashlib.sha256(b"gene\t1\n").hexdigest()
    version = report.metadata.version("torch")
    expected = ["cell [2], tagged a-fig1", "12 s for the whole notebook", "It <strong>does</strong>", raw, version]
    for words in [*expected, "unknown (not a git repository)", "CC BY 4.0", "min_per_kind: ", "&lt;script&gt;"]:
        assert words in text, words
    assert "<style scoped>" not in text


def test_a_figure_carries_its_provenance_and_repeats_to_the_bit(built):
    paths = [built.figures / f"a-fig1.{kind}" for kind in ("png", "pdf")]
    source = "notebooks/01_made_up.ipynb, cell tagged a-fig1; profile smoke, seed 42, settings "
    with Image.open(paths[0]) as picture:
        assert picture.text["Source"] == source + notebooks.settings_digest(built)
    assert b"/Keywords (notebooks/01_made_up.ipynb, cell tagged a-fig1" in paths[1].read_bytes()
    before = [path.read_bytes() for path in paths]
    draw()
    assert [path.read_bytes() for path in paths] == before


def test_the_command_line_prints_what_stands_behind_a_figure(built, capsys):
    run_all._print_provenance(built, ["a-fig1"])
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "a-fig1"
    assert said[1] == "  files     figures/smoke/a-fig1.png, figures/smoke/a-fig1.pdf, figures/smoke/data/a-fig1.csv"
    assert said[2] == "  made by   notebooks/01_made_up.ipynb, cell [2], tagged a-fig1"
    assert said[5].startswith("  data      data/raw/demo-smoke-seed42: generated by lib/synthetic.py; 1 files, 0.0 MB")
    assert said[-1] == "  took      12 s for the whole notebook, 2026-01-02 03:04 UTC"


def test_a_claim_stands_beside_the_figure_that_its_row_names(built):
    claims = report.claim_rows(built)
    assert report.claims_of(claims, "a-fig1").values.tolist() == [
        ["a-one", "Sec 1", "q", "2 %", "1", "0.5 to 1.5", "9", "reproduced", "r"]
    ]
    assert claims.loc[1, ["published", "95 % interval"]].tolist() == ["–", "–"]
    assert report.claims_of(claims, "a-table1").empty


def test_what_is_not_there_is_said(run):
    text = report.build(run, [run]).read_text(encoding="utf-8")
    assert "Not built in this profile yet: <code>./run_all.sh --profile smoke a-fig1</code>" in text
    assert "notebook 08_claims makes it" in text
    assert report.provenance(run, "a-fig1")["took"] == "not known"


def test_what_git_shows_of_another_run_is_not_taken_for_this_one(run):
    committed = notebooks.output_paths(run, "a-table1")[1]
    committed.parent.mkdir(parents=True)
    committed.write_text("**a-table1.** A table\n\n| name |\n|---|\n| a, b |\n")
    text = report.build(run, [run]).read_text(encoding="utf-8")
    assert "./run_all.sh --profile smoke a-table1</code>" in text


def test_the_settings_are_those_that_snakemake_recorded(built):
    target = report.local(notebooks.executed_path(built, "01_made_up"))
    record = config.ROOT / ".snakemake" / "metadata" / report.base64.urlsafe_b64encode(target.encode()).decode()
    record.parent.mkdir(parents=True)
    record.write_text(
        json.dumps({"params": ["'01_made_up'", "{'seed': 42, 'threads': 1, 'evaluation': {'hvg': 200}}"]})
    )
    assert report.recorded_settings(built, "01_made_up")["evaluation"] == {"hvg": 200}
    assert report.provenance(built, "a-fig1")["settings"] == "profile smoke, seed 42; it uses: evaluation"


def test_a_raw_file_is_hashed_once_until_it_changes(run, monkeypatch):
    first = report.checksums(run)
    hashed = []
    monkeypatch.setattr(report, "_sha256", lambda path: hashed.append(path.name) or "0" * 64)
    assert report.checksums(run).equals(first)
    (run.raw / "counts.tsv").write_text("gene\t22\n")
    assert report.checksums(run)["SHA-256"].tolist() == ["0" * 64]
    assert hashed == ["counts.tsv"]


def test_a_caption_is_the_heading_above_and_the_nearest_paragraph():
    cells = [
        nb.new_markdown_cell("# A\n\nFirst."),
        nb.new_code_cell("x"),
        nb.new_markdown_cell("More of *A*, `q(z|x)`.\n\n| a |\n"),
    ]
    cells.append(nb.new_code_cell("y", metadata={"tags": ["a-fig1"]}))
    assert report.caption(cells, "a-fig1") == ("A", "More of A, q(z|x).")
    assert [report.in_words(heading, "Yes.") for heading in ("Is it A?", "A")] == ["Is it A? Yes.", "A. Yes."]


@pytest.mark.slow
def test_the_page_of_the_smoke_profile_is_whole():
    run = config.load("smoke")
    if not (run.figures / "notebooks").is_dir():
        pytest.skip("figures/smoke is not built: ./run_all.sh --profile smoke")
    page = Page(report.build(run, [run]))
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    for link in page.values("href", "a"):
        assert link[1:] in ids if link.startswith("#") else (run.figures / link).is_file(), link
    assert all(source.startswith("data:") for source in page.values("src") + page.values("href", "link"))
    assert set(notebooks.catalogue()) <= set(ids)
    assert all(attrs["alt"].strip() for tag, attrs in page.tags if tag == "img")
