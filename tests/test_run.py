"""The command line of run_all.sh, up to the point where notebooks run."""

import contextlib
import os
import signal
import subprocess
import sys

import chromium
import pytest
import requests

from lib import compendia, config, notebooks, run, sources


def run_all(*arguments, cwd="/"):
    command = [str(config.ROOT / "run_all.sh"), "--venv", sys.prefix, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["a-fig2z"], "a-fig2z: found no such figure or table (did you mean a-fig2"),
        (["--profile", "dmeo"], "--profile dmeo: found no such profile (did you mean demo?)"),
        (["--profile", "mini"], "no --data was given"),
        (["--profile", "mini", "--data", "nowhere"], "alignment_192genes.h5ad: found no such file"),
        (["--profile", "nowhere.yaml"], "--profile nowhere.yaml: no such file"),
        (["--venv", "nowhere"], "--venv nowhere: found no bin/python there"),
    ],
)
def test_bad_argument_is_one_clear_line(arguments, expected, tmp_path):
    done = run_all(*arguments, cwd=tmp_path)
    assert done.returncode != 0
    assert expected in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_unknown_option_is_refused():
    done = run_all("--sede", "3")
    assert done.returncode == 2
    assert "--sede" in done.stderr


def test_a_group_stands_for_its_members():
    assert run._select(["a-fig2"]) == [f"a-fig2{panel}" for panel in "abcde"]
    assert run._select(["b-fig2"]) == ["b-fig2"]
    assert run._select([]) == [i for name in notebooks.names() for i in notebooks.figure_ids(name)]


def test_list_names_every_figure_with_its_state():
    done = run_all("--list")
    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: line for line in done.stdout.splitlines()[1:]}
    assert list(rows) == run._select([])
    assert all(row.endswith(("not built", "out of date", "up to date")) for row in rows.values())


def test_dry_run_says_what_it_would_cost():
    done = run_all("--dry-run", "--seed", "987654")
    assert done.returncode == 0, done.stderr
    steps = [line.split()[0] for line in done.stdout.splitlines()]
    assert steps == ["step", "archives", *notebooks.names(), "all"]
    assert not config.load("demo", seed=987654).raw.exists()


def test_only_what_a_figure_needs_is_planned():
    done = run_all("--dry-run", "--seed", "987654", notebooks.figure_ids("01_curation")[0])
    steps = [line.split()[0] for line in done.stdout.splitlines()]
    assert steps == ["step", "archives", "01_curation", "all"]


def test_two_runs_of_one_profile_exclude_each_other(tmp_path):
    profile = tmp_path / "own.yaml"
    profile.write_text("base: smoke\nname: locked-for-a-test")
    own = config.load(profile)
    with (
        run._only_run(own),
        pytest.raises(run.RunError, match="another run of it is under way"),
        run._only_run(own),
    ):
        pass
    (own.processed / ".lock").unlink()
    os.rmdir(own.processed)


def test_another_way_to_a_profile_makes_nothing_out_of_date(tmp_path):
    plans = [run_all("--dry-run", "--profile", p).stdout for p in ("smoke", str(config.PROFILES / "smoke.yaml"))]
    assert plans[0] == plans[1]


def test_help_shows_every_way_in():
    done = run_all("--help")
    assert done.returncode == 0
    for word in ("--profile", "--data", "--list", "--dry-run", "--venv", "test", "lab", "fetch"):
        assert word in done.stdout


def test_fetch_takes_what_the_paper_profile_reads(tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr(sources, "fetch", lambda ids, to, *rest: asked.update(ids=ids, to=to))
    assert run.main(["fetch", "--to", str(tmp_path)]) == 0
    assert asked == {"ids": compendia.archives(config.load("paper")), "to": str(tmp_path)}


@pytest.mark.slow
def test_lab_serves_the_notebooks_and_asks_the_net_nothing():
    port = chromium.free_port()
    options = ["--no-browser", f"--port={port}", "--IdentityProvider.token=t"]
    command = [str(config.ROOT / "run_all.sh"), "--venv", sys.prefix, "lab", *options]
    said = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

    def ask(path):
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"http://127.0.0.1:{port}/{path}?token=t", timeout=20).json()

    with subprocess.Popen(command, start_new_session=True, **said) as served:
        try:
            chromium.wait_for(lambda: ask("api"), "JupyterLab starts")
            listed = {item["name"] for item in ask("api/contents")["content"]}
            assert {f"{name}.ipynb" for name in notebooks.names()} <= listed
            assert ask("lab/api/news") == {"news": []}
            assert ask("lab/api/update") == {"notification": None}
        finally:
            os.killpg(served.pid, signal.SIGTERM)
