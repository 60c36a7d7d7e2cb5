"""./run_all.sh template DIR: the example is whole, runs as it is, and never lands on somebody's files."""

import shutil
import subprocess
import sys

import anndata as ad
import pandas as pd
import pytest
import yaml

import lib.run
from lib import cli, config, curation, notebooks, readers, template

FILES = {"README.md", "own.yaml", "cohort.csv", "cohort_samples.csv", "tissues.tsv.gz", "tissues_samples.tsv"}
FILES |= {"tumours_and_lines.csv", "tumours_and_lines_samples.csv"}


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    folder = tmp_path_factory.mktemp("somewhere") / "my data"
    template.write(folder)
    return folder


def test_every_file_is_there_and_named_by_the_profile(example):
    assert {path.name for path in example.iterdir()} == FILES
    run = config.load(example / "own.yaml", example)
    assert run.name == "my-data"
    assert set(run.data.files) == FILES - {"README.md", "own.yaml"}


def test_the_profile_s_units_and_columns_are_those_of_the_files(example):
    data = config.load(example / "own.yaml", example).data
    for role in (data.alignment, data.tissue, data.cohort):
        with readers.open_expression(example / role.file, unit=role.unit, obs=example / role.samples) as opened:
            wanted = {column for column in role.columns.model_dump().values() if column}
            assert wanted <= set(opened.obs)
            assert not opened.obs[list(wanted - {"tumour_content", "line_name"})].isna().any(axis=None)
            assert 20 <= len(opened.samples) <= 60


def test_the_profile_curates(example, tmp_path):
    data = config.load(example / "own.yaml", example).data
    arguments = {"file": example / data.tissue.file, "samples": example / data.tissue.samples, "unit": "counts"}
    columns = data.tissue.columns.model_dump()
    made = curation.curate_tissue_file(tmp_path / "t.h5ad", columns=columns, test_fraction=0.25, **arguments)
    tissue = ad.read_h5ad(made.path)
    assert sorted(tissue.obs["tissue"].unique()) == sorted(template.TISSUES)
    assert set(tissue.obs["split"]) == {"train", "validation", "test"}


def test_every_key_of_the_profile_has_its_line_of_explanation(example):
    lines = (example / "own.yaml").read_text().splitlines()
    keys = [line for line in lines if line.strip() and not line.lstrip().startswith("#") and "file" not in line]
    explained = [line for line in keys if "#" in line]
    assert len(explained) > 0.6 * len(keys)
    assert set(yaml.safe_load("\n".join(lines))["data"]) == {"kind", "alignment", "tissue", "cohort", "cohort_expected"}


def test_the_same_example_every_time(example, tmp_path):
    template.write(tmp_path / "my data")
    for name in FILES - {"README.md", "own.yaml"}:
        assert (tmp_path / "my data" / name).read_bytes() == (example / name).read_bytes()


def test_a_folder_with_something_in_it_is_refused_and_left_alone(tmp_path):
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(FileExistsError, match="expected a new or an empty folder"):
        lib.run.main(["template", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    with pytest.raises(FileExistsError, match="a file of that name"):
        template.write(tmp_path / "mine")
    with pytest.raises(lib.run.RunError, match="expected one folder"):
        lib.run.main(["template"])


def test_an_empty_folder_is_filled_and_a_profile_s_name_not_taken(tmp_path):
    (tmp_path / "demo").mkdir()
    for folder, name in {"demo": "own-demo", "2026": "2026"}.items():
        template.write(tmp_path / folder)
        assert config.load(tmp_path / folder / "own.yaml", tmp_path / folder).name == name


@pytest.mark.slow
def test_the_example_runs_and_its_models_name_new_samples(tmp_path, capsys):
    folder = tmp_path / "template-test"
    template.write(folder)
    run = config.load(folder / "own.yaml", folder)
    try:
        command = [config.ROOT / "run_all.sh", "--venv", sys.prefix, "--profile", folder / "own.yaml", "--data", folder]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert all(notebooks.output_path(run, i).is_file() for n in notebooks.names() for i in notebooks.figure_ids(n))
        arguments = ["--profile", str(folder / "own.yaml"), "--out", str(tmp_path / "calls.csv")]
        assert cli.main(["classify", str(folder / "cohort.csv"), *arguments]) == 0, capsys.readouterr().err
        assert len(pd.read_csv(tmp_path / "calls.csv")) == 20
    finally:
        for made in (run.figures, run.processed):
            shutil.rmtree(made, ignore_errors=True)
