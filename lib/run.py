"""What ./run_all.sh does: parse the command line, hand over to Snakemake, say what was built."""

from __future__ import annotations

import argparse
import csv
import difflib
import fcntl
import os
import shlex
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

from lib import config, notebooks

WALKTHROUGH = "smoke"  # the profile of 00_walkthrough
SNAKEFILE = "notebooks/Snakefile"
USAGE = """./run_all.sh [OPTIONS] [ID ...]
       every figure and table, or just these (a-fig2c, b-table2, or a group: a-fig2) and what they need
       ./run_all.sh test [PYTEST ARGS]    the linter, the tests, every notebook on the smoke profile
       ./run_all.sh lab                   JupyterLab on notebooks/
       ./run_all.sh app [--port N]        a web page on this machine: your samples to the trained models
       ./run_all.sh template DIR          an example of your own data, with its profile, to run and to replace
       ./run_all.sh student DIR           a copy for a class: exercises without solutions, no git needed
       ./run_all.sh publish               refresh what git shows of the demo: figures/demo/, outputs in notebooks/
       ./run_all.sh fetch --to DIR        download the public archives on a node with internet"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./run_all.sh", usage=USAGE, add_help=True)
    parser.add_argument("ids", nargs="*", metavar="ID", help="figures and tables to build; all when none is named")
    parser.add_argument("--profile", default="demo", help="name in profiles/ or path of an own .yaml (default: demo)")
    parser.add_argument(
        "--data", metavar="DIR", help="folder of your files (profiles like mini) or of fetched archives"
    )
    parser.add_argument("--seed", type=int, help="another seed than the profile's; results go to folders of their own")
    parser.add_argument("--cores", type=_cores, default=os.cpu_count(), help="notebooks to run side by side at most")
    parser.add_argument("--list", action="store_true", help="every figure and table: id, paper, notebook, state")
    parser.add_argument("--dry-run", action="store_true", help="what would run, with minutes, memory, disk, download")
    parser.add_argument("--venv", metavar="PATH", help="use this environment instead of making .venv")
    return parser


def _cores(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text}, expected a whole number of at least 1")
    return int(text)


class RunError(Exception):
    """A reason to stop that the user can act on; shown as one line."""


def _select(wanted: list[str]) -> list[str]:
    """Ids that were asked for; a group such as a-fig2 stands for a-fig2a, a-fig2b, …"""
    known = notebooks.catalogue()
    chosen: list[str] = []
    for word in wanted:
        group = [i for i in known if i == word or (i.startswith(word) and i[len(word) :].isalpha())]
        if not group:
            near = difflib.get_close_matches(word, known, n=1, cutoff=0)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise RunError(f"{word}: found no such figure or table{hint}; --list shows all")
        chosen += [i for i in group if i not in chosen]
    return chosen or list(known)


def _check_files(run: config.Profile) -> None:
    """The user's files must be there before anything starts."""
    for name in run.data.files if run.data.kind == "files" else []:
        if not (run.raw / name).is_file():
            raise RunError(f"{run.raw / name}: found no such file, expected it in --data DIR by profile {run.name}")


def _snakemake(
    args: argparse.Namespace, run: config.Profile, targets: list[str], *extra: str, **popen
) -> subprocess.CompletedProcess:
    settings = [f"profile={_absolute(args.profile)}"]
    settings += [f"data_dir={run.data_dir}"] if run.data_dir else []
    settings += [f"seed={args.seed}"] if args.seed is not None else []
    command = [
        sys.executable,
        "-m",
        "snakemake",
        *targets,
        "--snakefile",
        SNAKEFILE,
        "--nolock",
        "--rerun-incomplete",
    ]
    command += [
        "--rerun-triggers",
        "mtime",
        "params",
        "input",
        "--cores",
        str(args.cores),
        "--keep-going",
        *extra,
        "--config",
        *settings,
    ]
    return subprocess.run(command, cwd=config.ROOT, **popen)


def _absolute(profile: str) -> str:
    return str(Path(profile).resolve()) if profile.endswith((".yaml", ".yml")) else profile


def _plan(args: argparse.Namespace, run: config.Profile, targets: list[str]) -> tuple[Counter, list[str]]:
    """Steps that are out of date and needed for the targets, and for how many seeds; the targets to ask for.

    Among these are files that a step on the way declares and has not made: where one is new to a notebook, Snakemake
    knows nothing of it and would take the notebook as it was before for up to date.
    """
    rows = _summary(args, run, targets)
    if new := [row["output_file"] for row in rows if row["status"] == "missing" and row["plan"] == "no update"]:
        targets = targets + new
        rows = _summary(args, run, targets)
    stale = {row["rule"] for row in rows if row["plan"] != "no update"}
    return Counter(rule.rpartition("_")[0] for rule in stale), targets


def _summary(args: argparse.Namespace, run: config.Profile, targets: list[str]) -> list[dict[str, str]]:
    """Snakemake's state of every file on the way to the targets."""
    done = _snakemake(args, run, targets, "--summary", capture_output=True, text=True)
    if done.returncode:
        raise RunError(f"snakemake could not plan the run: {' '.join(done.stderr.split()[-60:])}")
    return list(csv.DictReader(done.stdout.splitlines(), delimiter="\t"))


def _target(run: config.Profile, figure_id: str) -> str:
    return os.path.relpath(notebooks.output_path(run, figure_id), config.ROOT)


def list_figures(args: argparse.Namespace, run: config.Profile) -> int:
    """Print every figure and table with its paper, notebook and state."""
    stale, _ = _plan(args, run, [_target(run, i) for i in notebooks.catalogue()])
    print(f"{'id':<24}{'paper':<12}{'notebook':<22}state ({run.name})")
    for figure_id, name in notebooks.catalogue().items():
        path = notebooks.output_path(run, figure_id)
        state = "not built" if not path.is_file() else "out of date" if name in stale else "up to date"
        print(f"{figure_id:<24}{'RNAlign' if figure_id[0] == 'a' else 'tissue VAE':<12}{name:<22}{state}")
    return 0


def _costs(run: config.Profile) -> dict[str, config.Estimate]:
    """The profile's estimates; for public archives, the download is what is still missing of their stated sizes."""
    if run.data.kind != "archives":
        return run.estimates
    from lib import compendia, sources

    wanted = sources.select(compendia.archives(run), sources.load_sources())
    missing = round(sources.missing_bytes(wanted, run.raw) / 1e9, 1)
    return run.estimates | {"archives": run.estimates["archives"].model_copy(update={"download_gb": missing})}


def dry_run(args: argparse.Namespace, run: config.Profile, chosen: list[str]) -> int:
    """Print the steps that would run and what they are estimated to cost."""
    stale, _ = _plan(args, run, [_target(run, i) for i in chosen])
    if not stale:
        print("everything is up to date")
        return 0
    columns = ("minutes", "memory_gb", "disk_gb", "download_gb")
    print(f"{'step':<22}" + "".join(f"{c:>13}" for c in columns))
    costs = _costs(run)
    combine = {"minutes": sum, "memory_gb": max, "disk_gb": sum, "download_gb": sum}
    steps = [step for step in ("archives", *notebooks.names()) for _ in range(stale[step])]
    for step in [*steps, None]:
        chosen_steps = [step] if step else steps
        figures = (combine[c](getattr(costs[s], c) for s in chosen_steps) for c in columns)
        print(f"{step or 'all':<22}" + "".join(f"{value:>13g}" for value in figures))
    return 0


@contextmanager
def _only_run(run: config.Profile):
    """One run of a profile at a time; the lock is the kernel's, so it never outlives a killed run."""
    run.processed.mkdir(parents=True, exist_ok=True)
    with open(run.processed / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"profile {run.name}: another run of it is under way") from None
        yield


def build(args: argparse.Namespace, run: config.Profile, chosen: list[str]) -> int:
    """Build what is out of date, then say what stands where; non-zero unless all of it is there."""
    began = time.time()
    targets = [_target(run, i) for i in chosen]
    with _only_run(run):
        stale, targets = _plan(args, run, targets)
        still_stale: Counter = Counter()
        if not stale:
            print("everything is up to date")
        else:
            print(f"profile {run.name} ({run.title}); to run: {', '.join(sorted(stale))}", flush=True)
            done = _snakemake(args, run, targets, "--quiet", "all")
            if done.returncode:
                still_stale, _ = _plan(args, run, targets)
        there = any((config.ROOT / target).is_file() for target in targets)
        page = _page(args, run, written_anew=bool(stale)) if there else None
    status = _closing_table(run, chosen, began, still_stale)
    if args.ids:
        _print_provenance(run, chosen)
    if page:
        print(f"everything on one page: {os.path.relpath(page, config.ROOT)}")
    return status


def _page(args: argparse.Namespace, run: config.Profile, written_anew: bool) -> Path:
    """The reviewer's page, written anew after a build."""
    path = run.figures / "index.html"
    if written_anew or not path.is_file():
        from lib import report

        report.build(run, run.repeats(args.profile))
    return path


def _print_provenance(run: config.Profile, chosen: list[str]) -> None:
    """What stands behind each of the figures and tables that were asked for by name."""
    from lib import report

    for figure_id in chosen:
        print(f"{figure_id}")
        for what, said in report.provenance(run, figure_id).items():
            print(f"  {what:<10}{said}")


def publish(arguments: list[str]) -> int:
    """Refresh what a code-hosting page shows of the demo: figures/demo/ and the notebooks with their outputs."""
    from lib import publish as shown

    args = _parser().parse_args([*arguments, "--profile", "demo"])
    run = config.load("demo")
    with _only_run(run):
        if stale := _plan(args, run, [_target(run, i) for i in notebooks.catalogue()])[0]:
            raise RunError(f"publish: found {', '.join(sorted(stale))} out of date, expected the whole demo built")
        print("\n".join(shown.publish(run)))
    return 0


def _closing_table(run: config.Profile, chosen: list[str], began: float, still_stale: Counter) -> int:
    """Print what stands where; the exit code."""
    catalogue = notebooks.catalogue()
    lost = []
    for i in chosen:
        path = notebooks.output_path(run, i)
        if not path.is_file() or catalogue[i] in still_stale:
            lost.append(i)
        state = "missing" if not path.is_file() else "out of date" if i in lost else "up to date"
        made = "built" if state == "up to date" and path.stat().st_mtime >= began else state
        print(f"  {i:<24} {made:<12} {os.path.relpath(path, config.ROOT)}")
    for name in dict.fromkeys(catalogue[i] for i in chosen if i not in lost):
        for line in notebooks.headlines(run, name):
            print(f"  {name}: {line}")
    if lost:
        print(f"not everything was made: {', '.join(lost)}", file=sys.stderr)
        return 1
    where = os.path.relpath(run.figures, config.ROOT)
    print(f"{len(chosen)} figures and tables in {where}, {time.time() - began:.0f} s")
    return 0


def make_archives(run: config.Profile) -> None:
    """The raw archives of a profile: drawn (demo) or downloaded (public)."""
    if run.data.kind == "demo":
        from lib import synthetic

        synthetic.generate(run.raw, run.data.size, run.seed)
        if run.tissue.source == "deposit":
            from lib import synthetic_deposit

            synthetic_deposit.write_deposit(run)
    else:
        from lib import compendia, sources

        sources.fetch(compendia.archives(run), run.raw)
    (run.raw / "archives.complete").write_text(f"profile {run.name}, seed {run.seed}\n")


def lab(arguments: list[str]) -> int:
    """JupyterLab on notebooks/, on the loopback address, with the arguments given; it asks the net nothing.

    The walkthrough's tiny data are made first where no build has: it is the notebook that people open first.
    """
    if not (config.load(WALKTHROUGH).processed / "alignment.h5ad").is_file():
        main(["--profile", WALKTHROUGH, "b-table1"])
    root = ["--allow-root"] if os.geteuid() == 0 else []
    silent = ["check_for_updates_class=jupyterlab.NeverCheckForUpdate", "news_url=None", "extension_manager=readonly"]
    options = ["--ip=127.0.0.1", *root, *(f"--LabApp.{setting}" for setting in silent)]
    command = [sys.executable, "-m", "jupyterlab", *options, *arguments, str(notebooks.FOLDER)]
    return subprocess.call(command, cwd=config.ROOT)


def test(arguments: list[str]) -> int:
    """The linter, then pytest with the arguments given."""
    if not (config.ROOT / "tests").is_dir():
        raise RunError("test: found no tests/ here, expected the whole repository (a student's copy has none)")
    lint = subprocess.call([sys.executable, "-m", "ruff", "check", "--quiet", "."], cwd=config.ROOT)
    return subprocess.call([sys.executable, "-m", "pytest", *arguments], cwd=config.ROOT) or lint


def template(arguments: list[str]) -> int:
    """A filled-in example of a user's own data in the folder named."""
    from lib import template as example

    if len(arguments) != 1 or arguments[0].startswith("-"):
        raise RunError(f"template: found {' '.join(arguments) or 'nothing'}, expected one folder (template DIR)")
    folder = Path(arguments[0])
    files = example.write(folder)
    print(f"{', '.join(file.name for file in files)} in {folder}; next:")
    print(f"  ./run_all.sh --profile {folder / 'own.yaml'} --data {folder}")
    return 0


def student(arguments: list[str]) -> int:
    """The class's copy of the repository, without solutions, in the folder named."""
    from lib import teaching

    if len(arguments) != 1 or arguments[0].startswith("-"):
        raise RunError(f"student: found {' '.join(arguments) or 'nothing'}, expected one folder (student DIR)")
    names = teaching.write_student(arguments[0])
    print(f"{len(names)} notebooks without solutions, and all that they need, in {arguments[0]}; next:")
    print(f"  cd {shlex.quote(arguments[0])} && ./run_all.sh --profile smoke --cores 2")
    return 0


def _internal(command: str, arguments: list[str]) -> int:
    """The steps as Snakemake calls them: `archives` and `notebook NAME`."""
    parser = argparse.ArgumentParser(prog=f"lib.run {command}")
    if command == "notebook":
        parser.add_argument("name")
    parser.add_argument("--profile", required=True)
    parser.add_argument("--data")
    parser.add_argument("--seed", type=int)
    args = parser.parse_args(arguments)
    if command == "notebook":
        return 0 if notebooks.execute(args.name, args.profile, args.data, args.seed) else 1
    began = time.monotonic()
    run = config.load(args.profile, args.data, args.seed)
    make_archives(run)
    notebooks.say(f"archives  {time.monotonic() - began:.0f} s: {os.path.relpath(run.raw, config.ROOT)}")
    return 0


def main(arguments: list[str]) -> int:
    """Dispatch the command line; 0 only when everything asked for was made."""
    command = arguments[0] if arguments else ""
    if command in ("archives", "notebook"):
        return _internal(command, arguments[1:])
    if command == "test":
        return test(arguments[1:])
    if command == "lab":
        return lab(arguments[1:])
    if command == "app":
        from lib import app

        return app.serve(arguments[1:])
    if command == "publish":
        return publish(arguments[1:])
    if command == "template":
        return template(arguments[1:])
    if command == "student":
        return student(arguments[1:])
    if command == "fetch":
        from lib import compendia, sources

        return sources.main(arguments[1:], default=compendia.archives(config.load("paper")))
    args = _parser().parse_args(arguments)
    chosen = _select(args.ids)
    run = config.load(args.profile, args.data and Path(args.data).resolve(), args.seed)
    _check_files(run)
    if args.list:
        return list_figures(args, run)
    if args.dry_run:
        return dry_run(args, run, chosen)
    return build(args, run, chosen)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (RunError, OSError, ValueError) as error:
        print(f"run_all.sh: {error}", file=sys.stderr)
        sys.exit(2)
