"""`python -m lib`: tissue calls, alignment, codes and imputation of a user's samples by the trained models.

Results go to --out, or as CSV to the standard output; what was read and how, and every refusal (one line, exit code
2), to the standard error. A run that fails leaves no file.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from lib import config
from lib.cli_output import refuse_unusable_paths, say, write_aligned, write_matrix, write_table

CHUNK = 256  # samples in hand at once
BAR_FROM = 1000  # samples
DEMO = "demo"
COMMANDS = {
    "classify": (
        "tissue of every sample: call, probability, whether it is too far from all references, nearest references",
        "tumours.csv --out calls.csv\ncounts.tsv.gz --unit counts --gtf gencode.v41.annotation.gtf.gz\n"
        "ensembl.csv --gene-ids hgnc_complete_set.txt --harmonise reference",
    ),
    "align": (
        "every sample as if it were a cell line of purity 1, its nearest cell lines, drugs if a table is there",
        "tumours.csv --cancer-type Breast --out aligned.h5ad\n"
        "tumours.csv --samples labels.csv --out aligned.csv   (columns: sample, cancer_type, purity)",
    ),
    "embed": ("latent code of every sample", "tumours.csv --out codes.csv"),
    "impute": ("fill in the model's genes that the file lacks", "panel.csv --min-overlap 0.2 --out filled.csv"),
    "reconstruct": ("every sample as the tissue VAE rebuilds it", "tumours.csv --out rebuilt.h5ad"),
    "purity": (
        "share of cancer cells in every tumour, by a model on ranks of its genes, or by PUREE's web service",
        "tumours.csv --out purity.csv\ntumours.csv --puree --out purity.csv   (says what it would send, and asks)",
    ),
}
UNITS = ("counts", "TPM", "log2(TPM+1)", "log2(TPM+0.001)", "log2")


class _Parser(argparse.ArgumentParser):
    """Refuses in one line."""

    def error(self, message):
        self.exit(2, f"{self.prog}: {message}; --help shows examples\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m lib", description=__doc__.splitlines()[0].partition(": ")[2])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (what, examples) in COMMANDS.items():
        lines = [f"  python -m lib {name} {line}" for line in examples.splitlines()]
        formats = "FILE: CSV, TSV, GCT (.gz too), H5 or h5ad; samples in rows or in columns. Not for diagnosis."
        command = commands.add_parser(
            name, help=what, description=f"{what[0].upper()}{what[1:]}.",
            epilog="\n".join([formats, "", "examples:", *lines]), formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        _add_common(command)
        if name == "classify":
            command.add_argument(
                "--harmonise", choices=("none", "reference", "cohort"), default="none",
                help="none: the training part's scale; reference: the references' quantiles, for other units or labs; "
                "cohort: z-scores over this file, as published (default: none)",
            )  # fmt: skip
        if name == "align":
            _add_labels(command)
        if name == "purity":
            command.add_argument("--puree", action="store_true", help="ask PUREE's web service: uploads expression")
        if name == "impute":
            command.add_argument(
                "--hide", metavar="GENES", default="", help="also impute these (A,B,…) as if not measured"
            )
    return parser


def _add_common(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", metavar="FILE", type=Path, help="your samples: see below")
    model = command.add_mutually_exclusive_group()
    model.add_argument("--profile", default=DEMO, help="the models of this profile's run (default: demo)")
    model.add_argument("--model", metavar="DIR", type=Path, help="folder with models/ and compendia, as of a run")
    command.add_argument("--unit", choices=UNITS, help="what the values are (default: told by the values, and said)")
    command.add_argument(
        "--gene-ids", metavar="FILE", type=Path, help="HGNC's complete set (TSV): translates Ensembl ids"
    )
    command.add_argument("--gtf", metavar="FILE", type=Path, help="gene lengths: counts become TPM (else CPM)")
    command.add_argument(
        "--min-overlap",
        metavar="SHARE",
        type=_share,
        default=0.5,
        help="least share of the model's genes (default: 0.5)",
    )
    command.add_argument(
        "--max-gb", metavar="GB", type=_above_zero, default=2.0, help="largest file, unpacked (default: 2)"
    )
    command.add_argument("--out", metavar="FILE", type=_out, help="a new .csv or .h5ad (default: CSV on screen)")
    command.add_argument("--replace", action="store_true", help="let --out replace files that are there")


def _add_labels(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--samples", metavar="FILE", type=Path, help="CSV or TSV: sample id first, then cancer_type, …"
    )
    command.add_argument("--cancer-type", metavar="TYPE", help="of all samples that the table gives none")
    command.add_argument("--sample-type", metavar="TYPE", default="tumour", help="likewise (default: tumour)")
    command.add_argument("--purity", metavar="SHARE", type=_share, help="likewise; without, estimated")
    command.add_argument("--lines", metavar="N", type=_count, default=10, help="nearest cell lines (default: 10)")
    command.add_argument(
        "--drug-response", metavar="FILE", type=Path, help="PRISM or GDSC; default: the profile's, if any"
    )


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a number from 0 to 1")
    return value


def _above_zero(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a number above 0")
    return value


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number of at least 1")
    return int(text)


def _out(text: str) -> Path:
    path = Path(text)
    if path.suffix not in (".csv", ".h5ad") or path.is_dir():
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a file name ending in .csv or .h5ad")
    return path


# --- models and samples --------------------------------------------------------------------------------------


class Trained:
    """A run's folder (models/ and compendia), what is known of its training data, and its own tables, if any."""

    def __init__(self, profile: str, folder: Path | None):
        from lib import model_card

        self.run = None if folder else config.load(profile)
        self.folder = folder or self.run.processed
        if not (self.folder / "models").is_dir():
            how = "" if folder else f"; ./run_all.sh --profile {profile} trains them"
            raise FileNotFoundError(f"{self.folder}: found no models/, expected the folder of a finished run{how}")
        if cards := sorted((self.folder / "models").glob("*.card.json")):
            self.note = model_card.note(model_card.read(cards[0]))
        elif self.run:
            self.note = model_card.note(model_card.describe(self.run))
        else:
            self.note = f"{model_card.NOT_FOR_DIAGNOSIS}; training data not stated (no card in models/)"

    def gene_ids(self) -> Path | None:
        """The gene id table of the run's archives, where they are there."""
        from lib import compendia, sources

        if self.run is None or self.run.data.kind == "files":
            return None
        path = sources.load_sources()[compendia.ALIGNMENT["gene_ids"]].path(self.run.raw)
        return path if path.is_file() else None

    def drug_response(self) -> Path | None:
        from lib import compendia

        if self.run is None or (self.run.data.kind == "files" and not self.run.data_dir):
            return None
        path = compendia.application_files(self.run).get("drug_response")
        return path if path and path.is_file() else None


class Samples:
    """The user's file on a model's genes, and how it was read (said on the standard error)."""

    def __init__(self, args: argparse.Namespace, trained: Trained, genes: list[str]):
        from lib import own_file

        table = args.gene_ids or trained.gene_ids()
        self.opened = own_file.open_own(
            args.file, genes, args.unit, table, args.gtf, getattr(args, "samples", None), args.max_gb, args.min_overlap
        )
        self.file, self.names, self.obs = args.file, self.opened.samples, self.opened.obs
        self.genes = own_file.shared_genes(self.opened, genes)
        told = "as stated" if args.unit else "told by the file; --unit states it"
        say(f"{args.file}: {len(self.names):,} samples × {len(self.opened.genes):,} genes, {self.opened.unit} ({told})")
        say(f"  {self.opened.unit_note}")
        share = f"{len(self.genes) / len(genes):.0%}, at least {args.min_overlap:.0%} wanted: --min-overlap"
        say(f"  {len(self.genes):,} of the model's {len(genes):,} genes found ({share})")
        say(f"  {trained.note}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.opened.close()

    def compare_unit(self, compendium) -> None:
        """Say so when the file gives another unit than the model was trained on."""
        trained_on, given = str(compendium.uns.get("unit", "")), self.opened.output_unit
        if trained_on != given:
            say(f"  caution: the model was trained on {trained_on or 'an unknown unit'}, this file gives {given}")

    def chunks(self, size: int = CHUNK) -> Iterator:
        """AnnData of the shared genes, a few samples at a time, with a bar where there are many."""
        from tqdm import tqdm

        with tqdm(total=len(self.names), unit="sample", disable=len(self.names) <= BAR_FROM, mininterval=0.5) as bar:
            for chunk in self.opened.chunks(size, genes=self.genes):
                empty = chunk.obs_names[chunk.X.sum(axis=1) == 0]
                if len(empty):
                    raise ValueError(f"{self.file}: found only zeros in sample {empty[0]!r}, expected expression")
                yield chunk
                bar.update(chunk.n_obs)


# --- commands ------------------------------------------------------------------------------------------------


def classify(args: argparse.Namespace) -> None:
    import pandas as pd

    from lib import apply, curation
    from lib.models.tissue_vae import TissueVAE

    trained = Trained(args.profile, args.model)
    model = TissueVAE.load(trained.folder / "models" / "tissue_vae")
    with Samples(args, trained, model.genes_) as samples:
        reference = curation.load(trained.folder / "tissue.h5ad", "test")
        if reference.uns.get("unit") == "scaled" and args.harmonise != "cohort":
            raise ValueError("--harmonise: the model's references are standardised values, expected cohort")
        samples.compare_unit(reference)
        if args.harmonise == "cohort" and len(samples.names) < 2:
            raise ValueError(f"--harmonise cohort: found 1 sample in {args.file}, expected several")
        caller = apply.TissueCaller(model, reference, samples.genes, args.harmonise)
        worth = caller.accuracy
        say(
            f"  by these genes the model names {worth.value:.1%} ({worth.low:.1%} to {worth.high:.1%}) of {worth.n:,} "
            f"samples that it was not trained on rightly"
        )
        if caller.threshold == float("inf"):
            say("  these are too few to tell what is too far from all of them: no sample is flagged")
        size = len(samples.names) if args.harmonise == "cohort" else CHUNK
        calls = pd.concat([caller(chunk) for chunk in samples.chunks(size)]).rename_axis("sample")
    far = int(calls["too_far"].sum())
    say(f"{len(calls):,} samples called; {far:,} of them too far from every reference to be named (too_far)")
    write_table(calls.assign(note=trained.note).reset_index(), args, trained, samples)


def align(args: argparse.Namespace) -> None:
    import anndata as ad
    import pandas as pd

    from lib import apply, curation, drug_response
    from lib.models.rnalign import RNAlign

    trained = Trained(args.profile, args.model)
    model = RNAlign.load(trained.folder / "models" / "rnalign")
    with Samples(args, trained, model.genes_) as samples:
        given = {"cancer_type": args.cancer_type, "sample_type": args.sample_type, "purity": args.purity}
        labels = apply.sample_labels(samples.obs, model, **given)
        compendium = curation.load(trained.folder / "alignment.h5ad")
        samples.compare_unit(compendium)
        aligner = apply.Aligner(model, compendium, samples.genes, args.lines)
        response = args.drug_response or trained.drug_response()
        drugs = response and apply.DrugTable(aligner, drug_response.read_drug_response(response))
        if labels["purity"].isna().any():
            say("  purity is not given for every sample: fitting its estimator, up to a minute")
        parts = [aligner(chunk, labels.loc[chunk.obs_names]) for chunk in samples.chunks()]
    if note := aligner.purity_note(labels):
        say(f"  {note}")
    say("  similarity: Pearson's, at the mean of the latent code; draws_low, draws_high: 95 % of draws of the code,")
    say("  whose noise tends to lower it; in_draws: share of the draws in which the line stays among the nearest")
    aligned = ad.concat([part for part, _ in parts])
    tables = {"lines": pd.concat([near for _, near in parts])}
    tables |= {"drugs": drugs(aligned)} if drugs else {}
    say(f"  drug table: {response or 'none (--drug-response FILE)'}")
    aligned.X = aligner.in_log2(aligned.X)
    tables = {name: table.assign(note=trained.note) for name, table in tables.items()}
    write_aligned(aligned, tables, args, trained, samples)


def purity(args: argparse.Namespace) -> None:
    from lib.models.rnalign import RNAlign

    trained = Trained(args.profile, args.model)
    model = RNAlign.load(trained.folder / "models" / "rnalign")
    with Samples(args, trained, model.genes_) as samples:
        values = _by_puree(samples) if args.puree else _by_ranks(samples, trained, model.seed)
    table = values.rename("purity").rename_axis("sample").reset_index().assign(note=trained.note)
    write_table(table, args, trained, samples)


def _by_puree(samples: Samples):
    """Purities by PUREE's web service, of all genes in the file (it ranks them), once the user agrees."""
    from lib import purity as estimators

    _ask_to_send(estimators.puree_upload(len(samples.names), len(samples.opened.genes), estimators.PUREE))
    return estimators.from_puree(_tumours(samples.opened.chunks(CHUNK)), consent=True, url=estimators.PUREE)


def _by_ranks(samples: Samples, trained: Trained, seed: int):
    """Purities by the estimator, fitted on the compendium's tumours by the genes that the file has."""
    from lib import curation
    from lib import purity as estimators

    say("  fitting the estimator, up to a minute")
    known = curation.load(trained.folder / "alignment.h5ad")[:, samples.genes].to_memory()
    estimator = estimators.PurityEstimator(seed=seed).fit(known)
    say(f"  {estimators.error_in_words(estimator)}")
    return estimator.predict(_tumours(samples.chunks()))


def _tumours(chunks: Iterator):
    """The samples of all chunks, which are tumours for all that is known."""
    import anndata as ad

    tumours = ad.concat(list(chunks))
    tumours.obs = tumours.obs[[]].assign(sample_type="tumour")
    return tumours


def _ask_to_send(what: str) -> None:
    """Ask the user, on the terminal, whether this may leave the machine. ValueError for anything but yes."""
    say(f"  this sends {what}. Send it? (yes or no)")
    answer = sys.stdin.readline().strip()
    if answer.lower() != "yes":
        raise ValueError(f"--puree: found the answer {answer!r}, expected yes; nothing was sent")


def embed(args: argparse.Namespace) -> None:
    _profiles(args, lambda profiles, chunk: profiles.embed(chunk))


def reconstruct(args: argparse.Namespace) -> None:
    _profiles(args, lambda profiles, chunk: profiles.reconstruct(chunk))


def impute(args: argparse.Namespace) -> None:
    hide = [gene.strip() for gene in args.hide.split(",") if gene.strip()]
    _profiles(args, lambda profiles, chunk: profiles.impute(chunk, hide))


def _profiles(args: argparse.Namespace, of: Callable) -> None:
    import pandas as pd

    from lib import apply
    from lib.models.tissue_vae import TissueVAE

    trained = Trained(args.profile, args.model)
    model = TissueVAE.load(trained.folder / "models" / "tissue_vae")
    with Samples(args, trained, model.genes_) as samples:
        profiles = apply.Profiles(model, samples.genes)
        table = pd.concat([of(profiles, chunk) for chunk in samples.chunks()]).rename_axis("sample")
    write_matrix(table, args, trained, samples)


def main(arguments: list[str]) -> int:
    """Run a command: 0, or 2 after one line on the standard error."""
    args = _parser().parse_args(arguments)
    warnings.filterwarnings("ignore")
    try:
        refuse_unusable_paths(args)
        globals()[args.command](args)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        say("stopped")
        return 130
    except (ValueError, OSError, RuntimeError) as error:
        return _refuse(" ".join(str(error).split()))
    except Exception as error:  # a stranger's file may break any reader: its user gets a line, too, not our stack
        return _refuse(f"{args.file}: could not be used ({type(error).__name__}: {' '.join(str(error).split())[:200]})")
    return 0


def _refuse(reason: str) -> int:
    say(f"python -m lib: {reason}")
    return 2
