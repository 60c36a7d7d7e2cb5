"""Profiles: every setting of a run, read from profiles/<name>.yaml and checked.

Nothing but the profile differs between two runs. A profile may start from another one (`base: demo`) and
then says only what differs. `load` is the one way in, for notebooks, `run_all.sh` and tests alike.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

ROOT = Path(__file__).resolve().parents[1]
PROFILES = ROOT / "profiles"

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0, le=1)]


def _ascending(bounds: list[float]) -> list[float]:
    if bounds[0] > bounds[1]:
        raise ValueError("lower bound first")
    return bounds


FloatRange = Annotated[list[float], Field(min_length=2, max_length=2), AfterValidator(_ascending)]
Choices = Field(min_length=1)


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class DemoData(Section):
    """Archives drawn by lib.synthetic, in the public archives' own formats."""

    kind: Literal["demo"]
    size: Literal["smoke", "demo"]


class ArchiveData(Section):
    """The public archives of data/sources.yaml."""

    kind: Literal["archives"]


class Columns(Section):
    """Names of the columns of a user's sample table that play each role; null where there is none."""

    sample_type: str | None = None
    cancer_type: str | None = None
    purity: str | None = None
    subtype: str | None = None
    name: str | None = None
    tissue: str | None = None
    group: str | None = None
    source: str | None = None
    study: str | None = None
    donor: str | None = None


class FileRole(Section):
    """One expression file of the user: path relative to --data DIR, unit, and what its columns mean."""

    file: str
    samples: str | None = None
    unit: Literal["counts", "TPM", "log2(TPM+1)", "log2(TPM+0.001)", "log2"] | None = None
    columns: Columns
    exclude: dict[str, list[str]] = {}
    gene_ids: str | None = None


class Panel(FileRole):
    """A cohort with few genes, and the tissues expected of its groups (05_target_transfer)."""

    expected: dict[str, list[str]]


class FileData(Section):
    """A user's own files, one for each role."""

    kind: Literal["files"]
    alignment: FileRole
    tissue: FileRole
    cohort: FileRole
    cohort_expected: dict[str, list[str]] = {}
    panels: dict[str, Panel] = {}
    gene_sets: str | None = None
    drug_response: str | None = None
    survival: str | None = None

    @property
    def files(self) -> list[str]:
        """Every file that the profile needs, relative to --data DIR (a panel can do without its gene table)."""
        roles = [f for r in (self.alignment, self.tissue, self.cohort) for f in (r.file, r.samples, r.gene_ids)]
        roles += [f for panel in self.panels.values() for f in (panel.file, panel.samples)]
        return list(dict.fromkeys(f for f in (*roles, self.gene_sets, self.drug_response, self.survival) if f))


class Alignment(Section):
    """Alignment compendium (paper A, A.2); `min_per_kind`: tumours and lines that a cancer type needs to stay."""

    genes: Positive
    min_per_kind: Annotated[int, Field(ge=0)]
    validation_fraction: Fraction
    test_fraction: Fraction
    missing_purity: Literal["type median", "drop"]


class Search(Section):
    """How long to search for hyper-parameters; `trials: 0`: not at all.

    use_best: whether the best trial's hyper-parameters replace the profile's.
    """

    trials: Annotated[int, Field(ge=0)]
    epochs: Positive
    selection: Literal["validation", "test"]
    use_best: bool


class RNAlignSearch(Search):
    """Search space of paper A's Table 2; log-uniform rows give exponents of ten."""

    log10_lr: FloatRange
    n_layers: Annotated[list[int], Choices]
    log10_weight_decay: FloatRange
    dropout: Annotated[list[float], Choices]
    batch_size: Annotated[list[int], Choices]
    purity_multiplier: FloatRange
    sigma: FloatRange
    epsilon: FloatRange
    log10_beta: FloatRange
    log10_lambda_cor: FloatRange
    log10_lambda_grad: FloatRange


class RNAlignSettings(Section):
    """Hyper-parameters of lib.models.rnalign.RNAlign (paper A, section 3.2 and Table 2)."""

    epochs: Positive
    n_layers: Annotated[int, Field(ge=1, le=6)]
    hidden: Positive
    latent: Positive
    dropout: Fraction
    lr: Rate
    weight_decay: NonNegative
    batch_size: Annotated[int, Field(ge=2)]
    purity_multiplier: NonNegative
    sigma: Annotated[float, Field(gt=0)]
    epsilon: Annotated[float, Field(gt=0)]
    beta: NonNegative
    lambda_cor: NonNegative
    lambda_grad: NonNegative
    annealing: Literal["cyclical", "warmup", "none"]
    checkpoint_every: Positive


class RNAlignControls(Section):
    """RNAligns trained beside the main one, with its settings: folds in which cell lines are held out."""

    folds: Annotated[int, Field(ge=2)]


class Tissue(Section):
    """Tissue compendium (paper B, Methods and Table 1)."""

    source: Literal["archives", "deposit"]
    single_cell_max: Annotated[float, Field(gt=0, le=1)]
    subset: Positive | None
    subset_seed: int
    exclude_cell_lines: bool
    cap: Positive | None
    genes: Positive | None
    gene_filter: Literal["faithful", "corrected"]
    min_samples: Positive
    split: Literal["sample", "study"]
    validation_fraction: Fraction
    test_fraction: Fraction


class TissueVAESettings(Section):
    """Hyper-parameters of lib.models.tissue_vae.TissueVAE (paper B, Methods)."""

    variant: Literal["faithful", "corrected"]
    latent: Positive
    hidden_factor: Annotated[float, Field(gt=0, le=1)]
    supervisor_hidden: Positive
    lr: Rate
    batch_size: Annotated[int, Field(ge=2)]
    mask_fraction: Fraction
    patience: Positive
    max_epochs: Positive
    selection: Literal["validation", "test"]
    checkpoint_every: Positive


class TissueVAESearch(Search):
    """Search space of paper B's Bayesian optimisation (Methods): latent size and batch size."""

    latent: Annotated[list[Positive], Field(min_length=2, max_length=2), AfterValidator(_ascending)]
    batch_size: Annotated[list[Annotated[int, Field(ge=2)]], Choices]


class TissueControls(Section):
    """Tissue VAEs trained beside the main one to be compared with each other: epochs of each, at most.

    samples: training samples of the ablations' full model at most, drawn at random (07_ablations); null: all.
    """

    epochs: Positive
    samples: Positive | None


class Applications(Section):
    """Drug response and survival (09_applications): most variable drugs, nearest lines, folds, epochs of a network."""

    drugs: Positive
    neighbours: Positive
    folds: Annotated[int, Field(ge=2)]
    epochs: Positive


class Evaluation(Section):
    """Settings of metrics and pictures; `repeats`: how many seeds stand behind a table.

    min_per_kind, min_per_subtype: tumours and lines that a cancer type, or a subtype, needs to be measured.
    """

    bootstrap: Positive
    match_neighbours: Positive
    min_per_kind: Positive
    min_per_subtype: Positive
    mixing_neighbours: Positive
    baseline_neighbours: Positive
    hvg: Positive
    tsne_perplexity: Annotated[float, Field(gt=1)]
    tsne_iterations: Annotated[int, Field(ge=250)]
    umap_neighbours: Annotated[int, Field(ge=2)]
    umap_min_dist: NonNegative
    umap_pcs: Positive
    repeats: Positive


class Estimate(Section):
    """What a step costs on the machine named in the README; printed by --dry-run."""

    minutes: NonNegative
    memory_gb: NonNegative
    disk_gb: NonNegative
    download_gb: NonNegative = 0.0


class Profile(Section):
    """A validated profile and the folders that belong to it."""

    name: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    title: str
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    threads: Positive
    data: Annotated[DemoData | ArchiveData | FileData, Field(discriminator="kind")]
    alignment: Alignment
    rnalign: RNAlignSettings
    rnalign_search: RNAlignSearch
    rnalign_controls: RNAlignControls
    tissue: Tissue
    tissue_vae: TissueVAESettings
    tissue_vae_search: TissueVAESearch
    tissue_controls: TissueControls
    applications: Applications
    evaluation: Evaluation
    estimates: dict[str, Estimate]
    data_dir: str | None = None

    @model_validator(mode="after")
    def _sections_fit_together(self):
        for part in (self.alignment, self.tissue):
            if part.validation_fraction + part.test_fraction >= 0.9:
                raise ValueError("validation_fraction + test_fraction must stay below 0.9")
        models = (
            ("alignment", self.alignment, "rnalign_search", self.rnalign_search),
            ("tissue", self.tissue, "tissue_vae", self.tissue_vae),
            ("tissue", self.tissue, "tissue_vae_search", self.tissue_vae_search),
        )
        for section, part, model, settings in models:
            used = getattr(settings, "trials", 1) > 0
            if used and not getattr(part, f"{settings.selection}_fraction"):
                raise ValueError(f"{section}.{settings.selection}_fraction: found 0, but {model} selects on that part")
        if self.tissue.source == "deposit" and self.data.kind == "files":
            raise ValueError("tissue.source: found deposit with data of kind files, expected archives")
        return self

    @property
    def raw(self) -> Path:
        """Folder of the raw archives."""
        if self.data.kind == "demo":
            deposit = "-deposit" if self.tissue.source == "deposit" else ""
            return ROOT / "data" / "raw" / f"demo-{self.data.size}{deposit}-seed{self.seed}"
        if self.data_dir:
            return Path(self.data_dir).expanduser().resolve()
        if self.data.kind == "files":
            raise ValueError(f"profile {self.name}: its files are relative to --data DIR; no --data was given")
        return ROOT / "data" / "raw"

    @property
    def processed(self) -> Path:
        """Folder of compendia and models."""
        return ROOT / "data" / "processed" / self.name

    @property
    def figures(self) -> Path:
        """Folder of figures, and of tables below it."""
        return ROOT / "figures" / self.name

    def repeats(self, profile: str | Path) -> list[Profile]:
        """This run and its repeats with the seeds that follow, each with folders of its own."""
        seeds = range(self.seed + 1, self.seed + self.evaluation.repeats)
        return [self, *(load(profile, self.data_dir, seed) for seed in seeds)]

    def trials(self, search: Search, profile: str | Path) -> int:
        """Trials of a search: none under another seed than the profile's own where the result would not be used."""
        return search.trials if search.use_best or self.seed == load(profile, self.data_dir).seed else 0

    def settings(self, *sections: str) -> dict[str, Any]:
        """The named sections (and what always counts) as plain values, for records and change detection."""
        return self.model_dump(mode="json", include={"seed", "threads", *sections})


def _read_yaml(path: Path) -> dict:
    try:
        values = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path.name}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path.name}: found {type(values).__name__}, expected a mapping of settings")
    return values


def _merge(base: dict, changes: dict) -> dict:
    """`changes` over `base`, section by section; a section whose `kind` changes is replaced whole."""
    merged = dict(base)
    for key, value in changes.items():
        old = base.get(key)
        both = isinstance(value, dict) and isinstance(old, dict)
        other_kind = both and value.get("kind", old.get("kind")) != old.get("kind")
        merged[key] = _merge(old, value) if both and not other_kind else value
    return merged


def _profile_path(profile: str | Path) -> Path:
    path = Path(profile)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise FileNotFoundError(f"--profile {profile}: no such file")
        return path
    path = PROFILES / f"{profile}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in PROFILES.glob("*.yaml"))
        near = difflib.get_close_matches(str(profile), known, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise FileNotFoundError(f"--profile {profile}: found no such profile{hint}, expected one of {', '.join(known)}")
    return path


def _values(path: Path, seen: tuple[Path, ...] = ()) -> dict:
    values = _read_yaml(path)
    base = values.pop("base", None)
    if base is None:
        return values
    base_path = _profile_path(base)
    if base_path in seen or base_path == path:
        raise ValueError(f"{path.name}: key base: '{base}' leads back to itself")
    return _merge(_values(base_path, (*seen, path)), values)


def _own_name(path: Path) -> str:
    """The name in a user's profile, else its file name; not a shipped profile's, whose results it would replace."""
    name = _read_yaml(path).get("name", path.stem)
    if (PROFILES / f"{name}.yaml").exists():
        raise ValueError(f"{path.name}: key name: found {name!r}, a profile of this repository; expected another name")
    return name


def _one_line(error: ValidationError, path: Path) -> str:
    problems = []
    for e in error.errors():
        key = ".".join(str(k) for k in e["loc"] if k not in ("demo", "archives", "files")) or "(profile)"
        if e["type"] == "extra_forbidden":
            problems.append(f"unknown key {key}{_nearest_key(e['loc'])}")
        elif e["type"] == "missing":
            problems.append(f"key {key}: missing")
        elif e["type"] == "value_error":
            problems.append(f"key {key}: {e['msg'].removeprefix('Value error, ')}")
        else:
            problems.append(f"key {key}: found {e['input']!r}, expected: {e['msg'].removeprefix('Input should be ')}")
    return f"{path.name}: " + "; ".join(problems)


def _nearest_key(loc: tuple) -> str:
    model: Any = Profile
    for part in loc[:-1]:
        field = getattr(model, "model_fields", {}).get(part)
        model = field.annotation if field else None
    near = difflib.get_close_matches(str(loc[-1]), list(getattr(model, "model_fields", {})), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def load(profile: str | Path = "demo", data_dir: str | Path | None = None, seed: int | None = None) -> Profile:
    """Read, merge and check a profile.

    profile: a name in profiles/ or the path of an own .yaml; data_dir: folder of the user's files (`--data`);
    seed: another seed than the profile's; its results then live in folders of their own (`demo-seed7`).
    Raises FileNotFoundError for an unknown profile and ValueError, in one line, for a key that is unknown,
    missing, of the wrong type or out of range.
    """
    path = _profile_path(profile)
    values = _values(path)
    if path.parent.resolve() != PROFILES:
        values["name"] = _own_name(path)
    if seed is not None and seed != values.get("seed"):
        values |= {"seed": seed, "name": f"{values.get('name')}-seed{seed}"}
    values["data_dir"] = str(data_dir) if data_dir else None
    try:
        return TypeAdapter(Profile).validate_python(values)
    except ValidationError as error:
        raise ValueError(_one_line(error, path)) from error
