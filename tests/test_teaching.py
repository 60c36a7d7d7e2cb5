"""The notebooks as a course: openings, exercises and their solutions, the sliders, and a class's copy without git."""

import ast
import os
import re
import shutil
import subprocess
import sys

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import lib.run
from lib import config, notebooks, plots, sliders, teaching, walkthrough

NAMES = notebooks.names()
TOOLS = ("bash", "env", "sed", "cksum", "dirname", "cat")  # of run_all.sh; no git


def tagged(name, tag, kind="code"):
    return [c for c in notebooks.read(name).cells if teaching.is_tagged(c, tag) and c.cell_type == kind]


def names_in(cells, context):
    tree = ast.parse("\n".join(c.source for c in cells))
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, context)}


@pytest.mark.parametrize("name", NAMES)
def test_opens_with_question_what_to_know_and_time(name):
    opening = " ".join(notebooks.read(name).cells[0].source.split())
    minutes = sum(m for _, m in teaching.exercises(notebooks.read(name)))
    code = teaching.code_time(config.load("demo").estimates[name].minutes)
    assert re.search(r"\*\*Question\.\*\* .*\*\*What you need to know\.\*\* \w.*\*\*How long it takes\.\*\*", opening)
    assert re.search(
        rf"\d+ minutes to read, {minutes} for the exercises; the code runs for {code} on demo data", opening
    )
    assert "[glossary](GLOSSARY.md)" in opening


@pytest.mark.parametrize("name", NAMES)
def test_every_box_explains_in_some_sentences(name):
    cells = [c.source for c in notebooks.read(name).cells if c.cell_type == "markdown"]
    boxes = [box for text in cells for box in re.findall(r"(?:^>.*\n?)+", text, flags=re.M)]
    assert boxes
    for box in boxes:
        assert re.match(r"> \*\*\w[^*]*[.?]\*\* ", box.replace("\n> ", " ")), box
        assert 3 <= len(re.findall(r"[.?!:;](?:\s|$)", box)) <= 12, box


@pytest.mark.parametrize("name", NAMES)
def test_three_exercises_each_with_a_solution_that_checks_itself(name):
    headings = [m.groups() for c in tagged(name, "exercise", "markdown") for m in teaching.HEADING.finditer(c.source)]
    assert [number for number, _ in headings] == ["1", "2", "3"]
    assert all(5 <= int(minutes) <= 30 for _, minutes in headings)
    kinds = [
        "solution" if teaching.is_tagged(c, "solution") else c.cell_type
        for c in notebooks.read(name).cells
        if set(c.metadata.get("tags", [])) & {"exercise", "solution"}
    ]
    order = "".join({"markdown": "e", "code": "", "solution": "s"}[kind] for kind in kinds)
    assert order == "eseses"
    for cell in tagged(name, "solution"):
        assert any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(cell.source)))
        assert cell.metadata["jupyter"]["source_hidden"] is True


@pytest.mark.parametrize("name", NAMES)
def test_what_a_student_runs_needs_no_solution(name):
    solved, others = tagged(name, "solution"), [c for c in notebooks.read(name).cells if c.cell_type == "code"]
    others = [c for c in others if not teaching.is_tagged(c, "solution")]
    tree = ast.parse("\n".join(c.source for c in others))
    imported = {(a.asname or a.name).split(".")[0] for n in ast.walk(tree) for a in getattr(n, "names", []) if n}
    defined = names_in(others, ast.Store) | imported | {n.name for n in ast.walk(tree) if hasattr(n, "name")}
    defined |= {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}
    only_in_solutions = names_in(solved, ast.Store) - defined
    assert not names_in(tagged(name, "exercise"), ast.Load) & only_in_solutions


def test_the_glossary_names_notebooks_that_exist():
    text = (notebooks.FOLDER / "GLOSSARY.md").read_text()
    entries = re.findall(r"^\* \*\*(.+?)\.?\*\*", text, flags=re.M)
    assert len(entries) > 50
    assert len(entries) == len(set(entries))
    for short in re.findall(r"\[([\w]+)\]", text):
        assert any(name == short or name.startswith(f"{short}_") for name in NAMES), short


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("class") / "a course"
    assert lib.run.main(["student", str(folder)]) == 0
    return folder


def test_a_student_s_copy_has_no_solution_and_no_output(copy):
    for name in NAMES:
        text = (copy / "notebooks" / f"{name}.ipynb").read_text()
        given = notebooks.nbformat.reads(text, as_version=4)
        assert not any(teaching.is_tagged(c, "solution") or c.get("outputs") for c in given.cells)
        assert sum(c.source == teaching.ANSWER for c in given.cells) == 3
        sources = "\n".join(c.source for c in given.cells)
        for cell in tagged(name, "solution"):
            nodes = ast.walk(ast.parse(cell.source))
            checks = [ast.get_source_segment(cell.source, n) for n in nodes if isinstance(n, ast.Assert)]
            assert checks
            assert not [c for c in checks if c in sources]
        assert len(teaching.exercises(given)) == 3


def test_a_student_s_copy_is_whole_and_small(copy):
    for name in (
        "run_all.sh",
        "pyproject.toml",
        "README.md",
        "lib/run.py",
        "profiles/smoke.yaml",
        "data/tissue_map.csv",
    ):
        assert (copy / name).is_file()
    assert os.access(copy / "run_all.sh", os.X_OK)
    assert not [name for name in ("tests", "figures", ".git", "data/raw", "data/processed") if (copy / name).exists()]
    assert sum(p.stat().st_size for p in copy.rglob("*") if p.is_file()) < 10e6
    readme = (copy / "README.md").read_text()
    assert all(f"notebooks/{name}.ipynb" in readme for name in NAMES)


def test_a_folder_with_something_in_it_is_refused_and_left_alone(tmp_path):
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(FileExistsError, match="expected a new or an empty folder"):
        lib.run.main(["student", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    with pytest.raises(lib.run.RunError, match="expected one folder"):
        lib.run.main(["student"])
    with pytest.raises(ValueError, match="expected a folder outside of it"):
        teaching.write_student(config.ROOT / "lib" / "class")


def test_nothing_is_left_where_the_copy_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(teaching, "_readme", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        teaching.write_student(tmp_path / "class")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_student_s_copy_runs_without_git(copy, tmp_path):
    for tool in TOOLS:
        (tmp_path / tool).symlink_to(shutil.which(tool))
    command = ["./run_all.sh", "--venv", sys.prefix, "--profile", "smoke", "a-fig-types", "a-fig-walk-maps"]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, env=os.environ | {"PATH": str(tmp_path)})
    assert done.returncode == 0, done.stdout + done.stderr
    assert (copy / "figures" / "smoke" / "a-fig-walk-maps.png").is_file()
    assert "unknown (not a git repository)" in (copy / "figures" / "smoke" / "index.html").read_text()


@pytest.mark.parametrize("live", [True, False])
def test_a_slider_is_a_picture_where_nobody_can_slide(live, monkeypatch):
    shown = []
    monkeypatch.setattr(sliders, "display", shown.append)
    monkeypatch.setenv("RNATLAS_PROGRESS", "" if live else os.devnull)
    sliders.play(lambda k: plt.figure(num=f"k = {k}"), k=widgets.IntSlider(value=3, min=1, max=5))
    pictures = [x for x in shown if isinstance(x, plt.Figure)]
    assert [isinstance(x, widgets.VBox) for x in shown if x not in pictures] == ([True] if live else [])
    if not live:
        assert [fig.get_label() for fig in pictures] == ["k = 3"]
    assert not plt.get_fignums()


def test_the_type_to_play_with_has_both_kinds():
    obs = pd.DataFrame({"cancer_type": list("aaaaabbbbcc"), "sample_type": ["tumour", "cell line"] * 5 + ["tumour"]})
    assert sliders.commonest_type(obs) in "ab"
    with pytest.raises(ValueError, match="found no cancer type with two tumours and two cell lines"):
        sliders.commonest_type(obs[obs["sample_type"] == "tumour"])


def test_the_pictures_to_play_with_mark_the_chosen_value():
    table = pd.DataFrame({"hidden": [0.1, 0.5], "model": "denoising", "value": [0.8, 0.4], "low": 0.3, "high": 0.9})
    pairs = pd.DataFrame(np.random.default_rng(0).normal(size=(50, 2)), columns=["measured", "filled in"])
    fig = plots.mask_played(pairs, table, 0.5)
    assert fig.axes[0].get_title() == "50% of the genes hidden"
    assert [line.get_xdata()[0] for line in fig.axes[1].lines if len(set(line.get_xdata())) == 1] == [0.5]
    plt.close(fig)


def test_the_walkthrough_s_type_mean_matches_and_keeps_nothing():
    rng = np.random.default_rng(0)
    types = np.repeat(["a", "b"], 40)
    obs = pd.DataFrame({"cancer_type": types, "sample_type": np.tile(["tumour", "cell line"], 40)}, map(str, range(80)))
    data = walkthrough.ad.AnnData(rng.normal(size=(80, 30)) + (types == "a")[:, None], obs=obs)
    run = config.load("smoke")
    scores = walkthrough.scores(data, {"input": data.X, "type mean": walkthrough.type_means(data)}, run)
    value = scores.set_index(["method", "score"])["value"]
    assert value["input", "variance_kept"] == pytest.approx(1)
    assert value["type mean", "variance_kept"] == pytest.approx(0, abs=1e-9)
    assert value["type mean", "match"] == 1
