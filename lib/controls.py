"""Retrained variants of RNAlign: ablations (paper A, Table 5), and how much of its gain is the label it is given.

Every model here has the settings and epochs of the run's own RNAlign, so that only what is asked about differs.
Ablations and models of other labels are trained on the same part of the data, too; where cell lines are held out, on
all samples but them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from lib import compendia, curation, notebooks
from lib.config import Profile
from lib.models.rnalign import RNAlign
from lib.models.type_transfer import CLASSIFIERS, TypeTransfer, normal_scores
from lib.neighbours import why_no_match

ABLATIONS = {
    "RNAlign": {},
    "no L_grad": {"lambda_grad": 0.0},
    "no L_cor": {"lambda_cor": 0.0},
    "no purity": {"use_purity": False},
}
WITHHELD = "withheld"  # the cancer type of every line where lines have none
UNLABELLED_FOLDS = 2  # of the variants that read no line's type: half of the lines stand in for 4 of 5

GIVEN, SEEN = "RNAlign, type given", "RNAlign, type given, line seen"
UNTOLD = "RNAlign, mean over types"  # the published model on a line whose type is not given
BEST_REBUILT = "RNAlign, best-rebuilt type"  # the same under the type with which it rebuilds the line best

Decoder = Callable[[RNAlign, ad.AnnData], np.ndarray]
Fit = Callable[[int, ad.AnnData], RNAlign]


@dataclass(frozen=True)
class Case:
    """One alignment compendium to train variants on.

    data: z-scores; log: the same as log2(TPM+1); truth: samples × genes (programme without infiltrate or culture) or
    None; true_types: the samples' types by the generator where it is known, else as given.
    """

    data: ad.AnnData
    log: np.ndarray
    truth: np.ndarray | None
    true_types: np.ndarray
    seed: int

    @property
    def names(self) -> np.ndarray:
        """The samples' names; those of another draw of the generator are other samples and have other names."""
        names = self.data.obs_names.to_numpy(dtype=str)
        return names if self.truth is None else np.char.add(f"{self.seed}/", names)

    @property
    def train(self) -> np.ndarray:
        """The part that the run's RNAlign was trained on."""
        return (self.data.obs["split"] == "train").to_numpy()

    @property
    def is_line(self) -> np.ndarray:
        return (self.data.obs["sample_type"] == "cell line").to_numpy()

    @property
    def types(self) -> np.ndarray:
        return self.data.obs["cancer_type"].to_numpy(dtype=str)


@dataclass(frozen=True)
class Trainer:
    """Trains variants of RNAlign with one set of settings; each resumes from a folder of its own."""

    settings: dict
    seed: int
    folder: Path
    every: int = 10

    def fit(self, name: str, adata: ad.AnnData, **changes) -> RNAlign:
        """RNAlign with some settings changed, trained on adata; `name` becomes its checkpoints' folder."""
        model = RNAlign(**self.settings | {"seed": self.seed} | changes)
        return model.fit(adata, checkpoint_dir=self.folder / name.replace(" ", "_"), checkpoint_every=self.every)

    def folds(self, name: str, **changes) -> Fit:
        """`fit` for `held_out`: one model for every fold."""
        return lambda fold, adata: self.fit(f"{name} fold {fold}", adata, **changes)


def case_of(run: Profile) -> Case:
    """The alignment compendium of a run."""
    log = curation.load(run.processed / "alignment.h5ad")
    data, demo = curation.standardise(log), run.data.kind == "demo"
    true = compendia.true_labels(run, data.obs_names)["true_type"] if demo else data.obs["cancer_type"]
    truth = compendia.truth(run, data) if demo else None
    return Case(data, np.asarray(log.X), truth, true.to_numpy(dtype=str), run.seed)


def published_model(run: Profile) -> RNAlign:
    """RNAlign as 02_training trained it."""
    return RNAlign.load(run.processed / "models" / "rnalign")


def trainer_of(run: Profile, published: RNAlign) -> Trainer:
    """Trains with all settings of the run's RNAlign; where a search chose some of them, with those."""
    folder = notebooks.checkpoint_dir(run, "lib.models.rnalign") / "controls"
    return Trainer(published.get_params(), run.seed, folder, run.rnalign.checkpoint_every)


# --- labels -------------------------------------------------------------------------------------------------


def with_types(adata: ad.AnnData, types) -> ad.AnnData:
    """The samples under other cancer types (one for all, or one per sample); the matrix is shared, not copied."""
    obs = adata.obs.assign(cancer_type=types if np.ndim(types) == 0 else np.asarray(types, dtype=str))
    return ad.AnnData(adata.X, obs=obs, var=adata.var)


def permuted_types(case: Case) -> np.ndarray:
    """Types of all samples, the lines' permuted among the lines."""
    types, lines = case.types.astype(object), np.flatnonzero(case.is_line)
    types[lines] = types[np.random.default_rng(case.seed).permutation(lines)]
    return types.astype(str)


def withheld_types(case: Case) -> np.ndarray:
    """Types of all samples, every line's replaced by `WITHHELD`."""
    return np.where(case.is_line, WITHHELD, case.types)


def folds_of_lines(case: Case, n: int) -> np.ndarray:
    """Fold (0 to n - 1) in which each line is held out, types spread over the folds; -1 for tumours.

    ValueError for fewer lines than folds.
    """
    lines = np.flatnonzero(case.is_line)
    if len(lines) < n:
        raise ValueError(f"folds: found {n} for {len(lines)} cell lines, expected at most as many as lines")
    shuffled = np.random.default_rng(case.seed).permutation(lines)
    fold = np.full(len(case.types), -1)
    fold[shuffled[np.argsort(case.types[shuffled], kind="stable")]] = np.arange(len(lines)) % n
    return fold


# --- decoding -----------------------------------------------------------------------------------------------


def decode(model: RNAlign, adata: ad.AnnData) -> np.ndarray:
    """As a cell line of purity 1 under the samples' own types (paper A, section 4.1).

    A type that the model does not know counts as not given.
    """
    types = adata.obs["cancer_type"].to_numpy(dtype=str)
    unknown = ~np.isin(types, model.cancer_types_) & model.use_cancer_type
    if not unknown.any():
        return model.transform(adata)
    aligned = np.empty(adata.shape, np.float32)
    aligned[unknown] = decode_without_type(model, adata[unknown])
    if not unknown.all():
        aligned[~unknown] = model.transform(adata[~unknown])
    return aligned


def decode_without_type(model: RNAlign, adata: ad.AnnData) -> np.ndarray:
    """The mean over all types of encoding and decoding under each: what a model says that isn't told the type."""
    return np.mean([model.transform(with_types(adata, name)) for name in model.cancer_types_], axis=0)


def best_reconstructed_type(model: RNAlign, adata: ad.AnnData) -> np.ndarray:
    """For every sample the type under which the model rebuilds its expression with the smallest error."""
    errors = []
    for name in model.cancer_types_:
        rebuilt = model.transform(with_types(adata, name), sample_type=None, purity=None)
        errors.append(((rebuilt - adata.X) ** 2).mean(axis=1))
    return np.array(model.cancer_types_)[np.argmin(errors, axis=0)]


def decode_as_best_rebuilt(model: RNAlign, adata: ad.AnnData) -> np.ndarray:
    """Decoded under `best_reconstructed_type`."""
    return decode(model, with_types(adata, best_reconstructed_type(model, adata)))


def type_from_code(model: RNAlign, tumours: ad.AnnData, lines: ad.AnnData) -> np.ndarray:
    """Types of lines by a logistic regression on the latent codes of tumours; for a model whose y has no type."""
    codes = model.embed(tumours)
    scale = np.where(codes.std(axis=0) > 0, codes.std(axis=0), 1)
    regression = LogisticRegression(max_iter=2000).fit(codes / scale, tumours.obs["cancer_type"].to_numpy(dtype=str))
    return regression.predict(model.embed(lines) / scale)


# --- held-out lines -----------------------------------------------------------------------------------------


class ByFold(NamedTuple):
    """Samples aligned by several models: each line by one of them, tumours by all.

    X: samples × genes, tumours as the mean over models; tumours: models × tumours × genes; model: which one aligned
    each line, -1 for tumours.
    """

    X: np.ndarray
    tumours: np.ndarray
    model: np.ndarray


def parts(aligned: np.ndarray | ByFold) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For every model the positions of the samples that it aligned, and their profiles.

    A line is compared with tumours of its own model only: no shift between two models then counts as one between lines
    and tumours.
    """
    if not isinstance(aligned, ByFold):
        yield np.arange(len(aligned)), aligned
        return
    for i, tumours in enumerate(aligned.tumours):
        rows = np.flatnonzero((aligned.model < 0) | (aligned.model == i))
        X = aligned.X[rows]
        X[aligned.model[rows] < 0] = tumours
        yield rows, X


def held_out(data: ad.AnnData, fold: np.ndarray, fit: Fit, decoders: dict[str, Decoder]) -> dict[str, ByFold]:
    """Per decoder the samples with every line decoded by the model that never saw it.

    fold: as by `folds_of_lines`; fit(i, samples) trains without the lines of fold i. One more, `SEEN`: every line
    decoded, under its type, by the next fold's model, which was trained with it.
    """
    n, is_tumour = int(fold.max()) + 1, fold < 0
    lines = {name: np.zeros(data.shape, np.float32) for name in [*decoders, SEEN]}
    tumours = np.empty((n, is_tumour.sum(), data.n_vars), np.float32)
    following = np.where(is_tumour, -1, (fold + 1) % n)
    for i in range(n):
        model, out, seen = fit(i, data[fold != i]), fold == i, following == i
        tumours[i] = decode(model, data[is_tumour])
        for name, decoder in decoders.items():
            lines[name][out] = decoder(model, data[out])
        lines[SEEN][seen] = decode(model, data[seen])
    for X in lines.values():
        X[is_tumour] = tumours.mean(axis=0)
    return {name: ByFold(X, tumours, following if name == SEEN else fold) for name, X in lines.items()}


# --- the experiments ----------------------------------------------------------------------------------------


def obstacle(case: Case, folds: int, neighbours: int) -> str:
    """Why lines can't be held out of training and called by their nearest tumours; "" where they can."""
    lines, types = case.is_line.sum(), pd.Series(case.types[~case.is_line]).value_counts()
    if lines < folds:
        return f"{lines} cell lines, fewer than the {folds} folds in which they are held out"
    if reason := why_no_match(case.data.obs, neighbours):
        return reason
    if (types > 1).sum() < 2:
        return f"{(types > 1).sum()} cancer type(s) of two tumours or more: there is nothing to tell apart"
    return ""


def ablations(case: Case, trainer: Trainer, published: RNAlign) -> dict[str, np.ndarray]:
    """Aligned matrices of the input, the full model and every ablation (paper A, Table 5).

    The full model is `published`, trained on the same part of the data with the same settings.
    """
    data, aligned = case.data, {"input": case.data.X}
    for name, changes in ABLATIONS.items():
        model = trainer.fit(name, data[case.train], **changes) if changes else published
        aligned[name] = decode(model, data)
    return aligned


def label_leak(case: Case, trainer: Trainer, published: RNAlign) -> dict[str, np.ndarray]:
    """Aligned matrices of the published way, and with the lines' types permuted or withheld.

    Decoded so: `published`, whose training had the types. Trained so: they were so in training, too, which was on the
    same samples and as long as that of `published`.
    """
    data, permuted, lines = case.data, with_types(case.data, permuted_types(case)), case.is_line
    withheld = decode(published, data)
    withheld[lines] = decode_without_type(published, data[lines])
    hidden = with_types(data, withheld_types(case))
    return {
        "input": data.X,
        "as published": decode(published, data),
        "decoded under permuted types": decode(published, permuted),
        "decoded with types withheld": withheld,
        "trained with permuted types": decode(trainer.fit("permuted types", permuted[case.train]), permuted),
        "trained with types withheld": decode(trainer.fit("withheld types", hidden[case.train]), hidden),
    }


def told_types(case: Case) -> dict[str, np.ndarray]:
    """Types of all samples as the methods of `label_leak` were told them; others were told none of a line."""
    permuted = permuted_types(case)
    told = {method: permuted for method in ("decoded under permuted types", "trained with permuted types")}
    return {"as published": case.types} | told


def guessed_types(case: Case, trainer: Trainer, few: np.ndarray) -> dict[str, np.ndarray]:
    """Types of all samples with the lines' guessed from what tumours' types teach; the lines' own are never read."""
    guess = case.types.astype(object)
    for i in range(int(few.max()) + 1):
        model = _untyped(trainer)(i, case.data[few != i])
        guess[few == i] = type_from_code(model, case.data[~case.is_line], case.data[few == i])
    guesses = {"type from a code": guess.astype(str)}
    for classifier in CLASSIFIERS:
        types = TypeTransfer(classifier).fit(case.data[~case.is_line], case.log[~case.is_line])
        guesses[f"type by ranks, {classifier}"] = np.where(case.is_line, types.predict(case.data, case.log), case.types)
    return guesses


def without_labels(case: Case, trainer: Trainer, fold: np.ndarray, few: np.ndarray) -> dict[str, np.ndarray | ByFold]:
    """Samples aligned with every line held out of training and its type withheld, but for the last two methods.

    fold, few: as by `folds_of_lines`; few: of the variants that read no line's type in training either. Keys in the
    order in which they are told. No setting was chosen on these lines.
    """
    data = case.data
    hidden, ranked = with_types(data, withheld_types(case)), rank_scored(case)
    aligned = {
        "input": data.X,
        "no type in y": held_out(data, few, _untyped(trainer), {"": decode})[""],
        "types of tumours only": held_out(hidden, few, trainer.folds("tumour types"), {"": decode})[""],
        "rank input, no type in y": held_out(ranked, few, _untyped(trainer, "rank input"), {"": decode})[""],
    }
    decoders = {UNTOLD: decode_without_type, BEST_REBUILT: decode_as_best_rebuilt}
    guesses = guessed_types(case, trainer, few)
    decoders |= {f"RNAlign, {name}": _decode_as(data, types) for name, types in guesses.items()}
    full = held_out(data, fold, trainer.folds("RNAlign"), decoders | {GIVEN: decode})
    aligned |= {method: full[method] for method in decoders}
    aligned |= {f"shift by ranks, {classifier}": shifted(case, classifier, fold) for classifier in CLASSIFIERS}
    return aligned | {GIVEN: full[GIVEN], SEEN: full[SEEN]}


def _untyped(trainer: Trainer, name: str = "no type") -> Fit:
    return trainer.folds(name, use_cancer_type=False)


def _decode_as(data: ad.AnnData, types: np.ndarray) -> Decoder:
    """Decodes any of the samples of `data` under the types given here for all of them."""
    types = pd.Series(types, data.obs_names)
    return lambda model, samples: decode(model, with_types(samples, types[samples.obs_names]))


def rank_scored(case: Case) -> ad.AnnData:
    """Normal scores of the within-sample ranks, each gene then of mean 0 and variance 1 over all samples."""
    scores = normal_scores(case.log)
    sd = scores.std(axis=0)
    scores = (scores - scores.mean(axis=0)) / np.where(sd > 0, sd, 1)
    return ad.AnnData(scores.astype(np.float32), obs=case.data.obs, var=case.data.var)


def shifted(case: Case, classifier: str, fold: np.ndarray) -> np.ndarray:
    """The input with every line moved by a `TypeTransfer` that never saw it; tumours as they are."""
    aligned = np.array(case.data.X, dtype=np.float32)
    for i in range(int(fold.max()) + 1):
        out = fold == i
        model = TypeTransfer(classifier).fit(case.data[~out], case.log[~out])
        aligned[out] = model.align(case.data[out], case.log[out])
    return aligned
