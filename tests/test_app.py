"""The web app on models of a few seconds: its answers, what it refuses, and its page in a real browser."""

import gzip
import io
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace

import anndata as ad
import chromium
import numpy as np
import pandas as pd
import pytest
import requests
from bokeh.models import HoverTool
from test_cli import GENES, change, drawn, folder  # noqa: F401 (the fixture of trained models)

from lib import answers, app, config, plots, web_plots
from lib.answers import Models, Question, Refusal


def content(table):
    return table.to_csv(index_label="sample").encode()


@pytest.fixture
def tpm():
    """Four samples in TPM, the first two blood (or Breast), the others brain (or Lung)."""
    return pd.DataFrame(2 ** drawn(["a", "a", "b", "b"], 7) - 1, [f"new{i}" for i in range(4)], GENES)


@pytest.fixture(scope="module")
def run_folder(folder, tmp_path_factory):  # noqa: F811
    """A run with a validation part, of which examples are made, and organ systems, which colour the atlas."""
    copy = tmp_path_factory.mktemp("app") / "run"
    shutil.copytree(folder, copy)
    tissue = ad.read_h5ad(copy / "tissue.h5ad")
    tissue.obs["split"] = ["validation"] * 10 + list(tissue.obs["split"][10:].astype(str))
    tissue.obs["organ_system"] = tissue.obs["tissue"].map({"blood": "Blood/Immune", "brain": "Brain"})
    tissue.write_h5ad(copy / "tissue.h5ad")
    return copy


@pytest.fixture(scope="module")
def models(run_folder):
    return Models(folder=run_folder)


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


def test_tissues_with_probabilities_references_and_a_place_on_the_atlas(models, tpm):
    answer = models.answer(Question(content(tpm)))
    assert list(answer.calls["tissue"]) == ["blood", "blood", "brain", "brain"]
    assert np.allclose(answer.probabilities.sum(axis=1), 1, atol=1e-5)
    near = answer.references[answer.references["sample"] == "new0"]
    assert set(near["tissue"]) == {"blood"}
    place = models.atlas.loc[near["reference"], ["tsne1", "tsne2"]].median()
    assert answer.places.loc["new0"].to_numpy() == pytest.approx(place.to_numpy())
    assert not len(answer.lines)
    assert "cancer type" in answer.no_lines


def test_what_a_confidence_is_worth_is_measured_on_held_out_samples(models, tpm):
    answer = models.answer(Question(content(tpm)))
    held_out = models.reference.obs["tissue"]
    assert answer.reliability["n"].sum() == answer.accuracy.n == answer.calibration_error.n == len(held_out) == 40
    of_few_genes = models.answer(Question(content(tpm.iloc[:, 25:55])))
    assert of_few_genes.calibration_error != answer.calibration_error


def test_a_tumour_s_cell_lines_before_and_after_with_the_visitor_s_columns(models, tpm):
    growth = pd.DataFrame({"growth": [0.5, 0.25], "TP53": ["mutated", "<b>"]}, ["s60", "s61"])
    labels = pd.DataFrame({"cancer_type": ["breast", "", "Lung", ""], "purity": [0.4, "", 0.6, ""]}, tpm.index)
    answer = models.answer(Question(content(tpm), labels=content(labels), line_table=content(growth)))
    assert list(answer.lines["sample"].unique()) == ["new0", "new2"]
    counted = answer.lines.groupby(["sample", "alignment"]).size()
    assert list(counted) == [10, 10, 10, 10]
    assert answer.lines.set_index("line").loc["s60", "growth"].eq(0.5).all()
    after = answer.lines[answer.lines["alignment"] == "after"]
    assert (after["low"] < after["high"]).all()
    assert set(after.loc[after["rank"] == 1, "cancer_type"]) == {"Breast", "Lung"}


def test_answers_can_be_downloaded_and_carry_the_note(models, tpm):
    answer = models.answer(Question(content(tpm), cancer_type="Breast", purity=0.5))
    calls, lines = (pd.read_csv(io.StringIO(text)) for text in (answer.calls_csv(), answer.lines_csv()))
    assert calls["note"].str.contains("not for diagnosis").all()
    assert lines["note"].str.contains("not for diagnosis").all()
    assert calls[["probability: blood", "probability: brain"]].max(axis=1).to_numpy() == pytest.approx(
        calls["probability"].to_numpy(), rel=1e-4
    )
    assert len(lines) == 4 * 20


def test_examples_are_answered_and_a_question_does_not_change_the_next(models, tpm):
    examples = models.examples()
    assert examples
    before = models.answer(Question(content(tpm))).calls_csv()
    for example in examples.values():
        assert set(models.answer(example).calls["tissue"]) == {"blood", "brain"}
    assert models.answer(Question(content(tpm))).calls_csv() == before


def test_the_atlas_tells_tissue_and_source_of_every_reference_and_names_the_visitor_s_sample(models, tpm):
    fig = web_plots.atlas(models.atlas, models.answer(Question(content(tpm))), "new1")
    hover = {h.renderers[0]: h.tooltips for h in fig.select(HoverTool)}
    data = {len(r.data_source.data["tsne1"]): r for r in fig.renderers}
    assert hover[data[40]] == [("reference", "@sample"), ("tissue", "@tissue"), ("source", "@source")]
    assert set(data[40].data_source.data["source"]) == {"GTEx"}
    assert set(data[40].data_source.data["colour"]) == {plots.ORGAN_SYSTEMS[name] for name in ("Blood/Immune", "Brain")}
    assert hover[data[4]][0] == ("your sample", "@sample")
    assert data[4].data_source.data["sample"][-1] == "new1"
    assert data[5] not in hover  # the rings of its nearest references


# --- what is refused -----------------------------------------------------------------------------------------

FILES = {
    "empty": (b"", "an empty file"),
    "page": (b"<!DOCTYPE html><html>", "a web page"),
    "spreadsheet": (b"PK\x03\x04", "spreadsheet"),
    "binary": (b"sample,GA0\n\x00", "binary data"),
    "cut": (gzip.compress(b"sample,GA0\n" * 1000)[:20], "truncated"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + b"x" * 50, "damaged"),
}
TABLES = {
    "nan": "expected a number", "negative": "negative values", "zeros": "only zeros in sample 'new1'",
    "script": "sample name", "formula": "sample name", "twice": "sample ids twice", "date": "turned into dates",
    "other": "0 of the model's 60 genes", "one gene": "1 of the model's 60 genes",
}  # fmt: skip


def refusal(models, question):
    with pytest.raises(Refusal) as refused:
        models.answer(question)
    return str(refused.value)


@pytest.mark.parametrize("how", [*FILES, *TABLES])
def test_bad_input_is_refused_in_a_line_that_names_the_visitor_s_file_and_leaves_nothing(
    models, tpm, how, own_temporary_folder
):
    given, reason = FILES[how] if how in FILES else (content(change(tpm, how)), TABLES[how])
    said = refusal(models, Question(given, "mine.csv"))
    assert reason in said
    assert "mine.csv" in said or how == "zeros"
    assert "\n" not in said
    assert str(own_temporary_folder) not in said
    assert list(own_temporary_folder.iterdir()) == []


def test_what_is_too_large_is_refused(models, tpm, monkeypatch):
    bomb = gzip.compress(b"s1," + b"1,\n" * 10**6, 1)
    monkeypatch.setattr(answers, "MAX_UNPACKED_GB", 0.001)
    assert "once unpacked" in refusal(models, Question(bomb, "bomb.csv.gz"))
    monkeypatch.setattr(answers, "MAX_UNPACKED_GB", 0.5)
    monkeypatch.setattr(answers, "MAX_SAMPLES", 3)
    assert "4 samples, expected at most 3" in refusal(models, Question(content(tpm)))
    monkeypatch.setattr(answers, "MAX_MB", 0.001)
    assert "MB, expected at most" in refusal(models, Question(content(tpm)))


def test_wrong_labels_purity_and_line_tables_are_refused(models, tpm):
    good = Question(content(tpm), cancer_type="Breast", purity=0.5)
    assert "expected 0 to 1" in refusal(models, replace(good, purity=2.0))
    labels = content(pd.DataFrame({"cancer_type": ["Bone"] * 4}, tpm.index))
    assert "found 'Bone'" in refusal(models, replace(good, labels=labels))
    said = refusal(models, replace(good, line_table=b"id,growth\nACH-1,2\n"))
    assert said.startswith("table of cell lines: found none")


def test_without_models_it_says_what_makes_them(tmp_path):
    with pytest.raises(FileNotFoundError, match="found no models/"):
        Models(folder=tmp_path)
    (tmp_path / "models").mkdir()
    with pytest.raises(FileNotFoundError, match=r"run_all.sh --profile demo"):
        Models(folder=tmp_path)


def test_no_probability_is_shown_as_certain():
    shown = [web_plots.percent(p) for p in (1.0, 0.9999, 0.9994, 0.5, 0.0001)]
    assert shown == ["> 99.9%", "> 99.9%", "99.9%", "50.0%", "< 0.1%"]


def test_what_a_visitor_gave_is_shown_escaped():
    shown = app.table(pd.DataFrame({"<script>": ["<img onerror=x>", "a"], "value": [0.12345, np.nan]}))
    assert "<script>" not in shown
    assert "<img" not in shown
    assert "0.123" in shown


def test_an_upload_beyond_the_limit_is_not_listened_to(monkeypatch):
    monkeypatch.setattr(answers, "MAX_MB", 1e-5)
    upload = app.Upload()
    for chunk, data in ((1, b"12345"), (2, b"67890123"), (3, b"4")):
        told = {"name": "x.csv", "chunk": chunk, "total_chunks": 3, "type": "text/csv", "data": data}
        upload._process_event(type("Event", (), {"event_name": "upload_event", "data": told}))
    assert upload.last() is None
    assert upload._file_buffer == {}


# --- the page ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address(run_folder, tmp_path_factory):
    """The app, served by a process of its own; its log must hold no trace of an error."""
    port, log = chromium.free_port(), tmp_path_factory.mktemp("log") / "log"
    command = [sys.executable, "-m", "lib.run", "app", "--model", str(run_folder), "--port", str(port)]
    with log.open("w") as output:
        served = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=config.ROOT)
    try:
        chromium.wait_for(lambda: served.poll() is not None or "Ctrl-C" in log.read_text(), "the app starts", 180)
        yield f"http://127.0.0.1:{port}/"
    finally:
        served.terminate()
        served.wait(30)
    assert "Traceback" not in log.read_text()


def test_a_port_that_is_taken_is_refused_before_anything_is_loaded(address):
    port = address.rstrip("/").rpartition(":")[2]
    with pytest.raises(OSError, match=f"--port {port}: .*expected a free port"):
        app.serve(["--port", port])


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http"])
def test_a_port_that_is_none_is_refused(port, capsys):
    with pytest.raises(SystemExit) as stopped:
        app.serve([f"--port={port}"])
    assert stopped.value.code == 2
    assert "expected a port from 1 to 65535" in capsys.readouterr().err


def test_it_listens_on_this_machine_only_and_refuses_another_site_s_socket(address):
    socket = address.replace("http", "ws") + "ws"
    with pytest.raises(Exception, match="403"):
        chromium.websocket.create_connection(socket, origin="http://elsewhere.example", timeout=20)
    page = requests.get(address, timeout=60).text
    assert "Content-Security-Policy" in page
    assert re.findall(r"(?:src|href)=\"https?:", page) == []


@pytest.mark.skipif(chromium.PROGRAM is None, reason="no Chromium on this machine")
def test_in_a_browser_visitors_upload_read_their_own_answers_and_are_told_what_is_wrong(address, tpm, tmp_path):
    files = {"mine.csv": content(tpm), "theirs.csv": content(tpm[2:].set_axis(["otherA", "otherB"]))}
    files |= {"empty.csv": b"", "script.csv": content(tpm.rename(index={"new0": "<img src=x onerror=window.hit=1>"}))}
    for name, given in files.items():
        (tmp_path / name).write_bytes(given)
    with chromium.browser(tmp_path / "browser") as open_page:
        first, second = open_page(address), open_page(address, 390, 844)
        for page, name, cancer_type in ((first, "mine.csv", "Breast"), (second, "theirs.csv", "Lung")):
            page.wait_for_text("Analyse")
            page.upload(tmp_path / name)
            page.wait_for_text("Upload complete")
            page.choose(cancer_type)
            page.click("Analyse")
        mine, theirs = first.wait_for_text("After alignment"), second.wait_for_text("After alignment")
        assert all(text in mine for text in ("new0", "blood", "not for diagnosis", "ref", "Download tissues.csv"))
        assert "otherA" in theirs
        assert "new0" not in theirs
        assert "otherA" not in mine
        assert "otherA" not in open_page(address).wait_for_text("Analyse")
        for name, said in (("empty.csv", "an empty file"), ("script.csv", "found the sample name '<img")):
            page = open_page(address)
            page.upload(tmp_path / name)
            page.wait_for_text("Upload complete")
            page.click("Analyse")
            assert "Traceback" not in page.wait_for_text(said)
            assert page.run("window.hit === undefined")
            assert page.console == []
        here = re.compile(f"({re.escape(address)}|{re.escape(address.replace('http', 'ws'))}|data:|blob:{address})")
        asked = first.requested + second.requested
        assert len(asked) > 10
        assert [url for url in asked if not here.match(url)] == []
        assert first.console == second.console == []
