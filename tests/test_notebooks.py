"""The notebooks: their hygiene, and a headless run of all of them on the smoke profile."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from lib import config, notebooks, run

NAMES = notebooks.names()
SKELETON = ["notebooks", "lib", "profiles", "data", "pyproject.toml", "run_all.sh"]


def cells(name, kind):
    return [c for c in notebooks.read(name).cells if c.cell_type == kind]


def test_library_is_committed():
    listed = subprocess.run(["git", "ls-files", "lib"], cwd=config.ROOT, capture_output=True, text=True, check=True)
    assert len(listed.stdout.split()) > 5


@pytest.mark.parametrize("name", NAMES)
def test_opens_with_a_title_and_has_one_parameters_cell(name):
    first = notebooks.read(name).cells[0]
    tagged = [c for c in cells(name, "code") if "parameters" in c.metadata.get("tags", [])]
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")
    assert len(tagged) == 1
    assert not any("injected-parameters" in c.metadata.get("tags", []) for c in cells(name, "code"))


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_clean(name):
    counts = [c.execution_count for c in cells(name, "code")]
    assert counts in ([None] * len(counts), list(range(1, len(counts) + 1)))
    outputs = [o for c in cells(name, "code") for o in c.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]


@pytest.mark.parametrize("name", NAMES)
def test_no_machine_path(name):
    text = (notebooks.FOLDER / f"{name}.ipynb").read_text()
    assert str(config.ROOT) not in text
    assert not re.search(r"/(home|root|Users)/\w", text)


@pytest.mark.parametrize("name", NAMES)
def test_no_function_is_longer_than_a_screen(name):
    assert max(len(c.source.splitlines()) for c in cells(name, "code")) <= 40


def test_each_figure_is_saved_once_by_the_cell_tagged_with_its_id():
    ids = [i for name in NAMES for i in notebooks.figure_ids(name)]
    assert len(ids) == len(set(ids))
    for name in NAMES:
        for cell in cells(name, "code"):
            for tag in filter(notebooks.FIGURE_ID.match, cell.metadata.get("tags", [])):
                assert f'"{tag}"' in cell.source


@pytest.mark.slow
def test_every_figure_and_table_is_made(smoke):
    for name in NAMES:
        assert notebooks.executed_path(smoke, name).is_file()
        for figure_id in notebooks.figure_ids(name):
            assert notebooks.output_path(smoke, figure_id).stat().st_size > 0


@pytest.mark.slow
def test_executed_notebooks_are_clean(smoke):
    for name in NAMES:
        executed = notebooks.nbformat.read(notebooks.executed_path(smoke, name), as_version=4)
        code = [c for c in executed.cells if c.cell_type == "code"]
        assert [c.execution_count for c in code] == list(range(1, len(code) + 1))
        assert not [o for c in code for o in c.outputs if o.output_type == "error" or o.get("name") == "stderr"]


@pytest.mark.slow
def test_no_table_holds_a_nan(smoke):
    for path in (smoke.figures / "tables").glob("*.csv"):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        assert not table.apply(lambda column: column.str.lower() == "nan").any(axis=None), path.name
        numbers = [c for c in table if pd.to_numeric(table[c], errors="coerce").notna().any()]
        assert not (table[numbers] == "").any(axis=None), path.name


@pytest.mark.slow
def test_headlines_are_what_the_executed_notebook_says(smoke):
    said = {"04_benchmarks": "RNAlign's match is", "04_benchmarks_tissue": "Balanced accuracy and weighted F1"}
    for name, sentence in said.items():
        assert any(sentence in line for line in notebooks.headlines(smoke, name))


@pytest.mark.slow
def test_second_run_has_nothing_to_do(smoke, run_smoke):
    done = run_smoke(config.ROOT)
    assert done.returncode == 0
    assert "everything is up to date" in done.stdout


@pytest.mark.slow
def test_a_table_that_is_new_to_a_notebook_on_the_way_makes_it_out_of_date(smoke, tmp_path):
    table = smoke.figures / "tables" / "b-table-sources.csv"
    shutil.move(table, tmp_path)
    try:
        arguments = run._parser().parse_args(["--profile", "smoke"])
        stale, targets = run._plan(arguments, smoke, [run._target(smoke, "b-fig1a")])
    finally:
        shutil.move(tmp_path / table.name, table)
    assert stale["01_curation"] == 1 and os.path.relpath(table, config.ROOT) in targets


@pytest.mark.slow
def test_a_fresh_copy_in_a_folder_with_a_space_makes_the_same_tables(smoke, run_smoke, tmp_path):
    copy = tmp_path / "a copy"
    copy.mkdir()
    ignore = shutil.ignore_patterns("raw", "processed", "__pycache__", ".ipynb_checkpoints")
    for item in SKELETON:
        source = config.ROOT / item
        if source.is_dir():
            shutil.copytree(source, copy / item, ignore=ignore)
        else:
            shutil.copy2(source, copy / item)
    done = run_smoke(copy)
    assert done.returncode == 0, done.stdout + done.stderr
    tables = sorted(p.name for p in (smoke.figures / "tables").iterdir())
    assert tables
    for table in tables:
        made, again = (folder / "figures" / "smoke" / "tables" / table for folder in (config.ROOT, copy))
        assert made.read_bytes() == again.read_bytes(), table


@pytest.mark.parametrize("name", NAMES)
def test_reads_only_what_its_rule_declares(name):
    rules, _, _ = (notebooks.FOLDER / "Snakefile").read_text().partition("rule all:")
    made = {"config": {"profile": "smoke"}}
    exec(rules, made)  # its part that is plain Python
    reads, writes, _ = made["steps"](made["run"])[name]
    declared = {part for path in reads + writes for part in Path(path).parts}
    code = "\n".join(cell.source for cell in cells(name, "code"))
    used = set(re.findall(r'"(\w+\.h5ad)"', code)) | set(re.findall(r'run\.processed / "(\w+)" / ', code))
    assert used <= declared


def test_a_notebook_that_fails_names_cell_error_and_copy(tmp_path, monkeypatch, capfd):
    source = notebooks.nbformat.v4.new_notebook(
        metadata=notebooks.read(NAMES[0]).metadata,
        cells=[
            notebooks.nbformat.v4.new_code_cell("profile = data_dir = seed = None", metadata={"tags": ["parameters"]}),
            notebooks.nbformat.v4.new_code_cell("raise ValueError('no such gene')"),
        ],
    )
    folder = tmp_path / "notebooks"
    folder.mkdir()
    notebooks.nbformat.write(source, folder / "99_broken.ipynb")
    monkeypatch.setattr(notebooks, "FOLDER", folder)
    monkeypatch.setattr(notebooks, "executed_path", lambda run, name: tmp_path / "executed" / f"{name}.ipynb")
    monkeypatch.setitem(os.environ, "RNATLAS_PROGRESS", "")
    assert not notebooks.execute("99_broken", "smoke", None, None)
    said = capfd.readouterr().out
    assert "FAILED in cell [3]: ValueError: no such gene" in said
    assert (tmp_path / "executed" / "99_broken.failed.ipynb").is_file()
    assert not (tmp_path / "executed" / "99_broken.ipynb").exists()


def test_only_code_counts_for_what_is_out_of_date():
    code = "from lib import config\nx = 1"
    assert notebooks.code_digest(code) == notebooks.code_digest(code + "  # a comment")
    assert notebooks.code_digest(code) != notebooks.code_digest(code + "\ny = 2")
    assert Path(notebooks._module_file("lib.config")).name == "config.py"


def test_a_user_s_files_are_run_without_the_exercises():
    whole = notebooks.read("03_alignment")
    kept = notebooks.without_exercises(whole).cells
    tags = {tag for cell in kept for tag in cell.metadata.get("tags", [])}
    assert not {"exercise", "solution"} & tags
    assert kept == whole.cells[: len(kept)]  # they are the last cells: the figures' cells keep their numbers
    assert len(kept) < len(whole.cells)
