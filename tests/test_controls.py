"""Controls: labels permuted, withheld and held out as they say; types by ranks; paired tables and their words."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from lib import config, control_tables, controls
from lib.models.rnalign import RNAlign
from lib.models.type_transfer import CLASSIFIERS, TypeTransfer, normal_scores

TYPES = np.array(["breast", "lung", "skin"])
SMALL = dict(hidden=16, latent=4, batch_size=64, epochs=15, lr=3e-3, device="cpu")
EVALUATION = config.load("smoke").evaluation


@pytest.fixture(scope="module")
def case() -> controls.Case:
    """210 samples of 3 types, 60 genes, the first 150 tumours; lines carry a culture shift; 6 are mislabelled."""
    rng = np.random.default_rng(1)
    true, line = np.arange(210) % 3, np.arange(210) >= 150
    log = 5 + 1.5 * rng.normal(size=(3, 60))[true] + np.outer(line, rng.normal(size=60)) + rng.normal(size=(210, 60))
    given = true.copy()
    given[-6:] = (true[-6:] + 1) % 3
    obs = {"cancer_type": TYPES[given], "sample_type": np.where(line, "cell line", "tumour"), "purity": 1 - 0.4 * ~line}
    z = ((log - log.mean(0)) / log.std(0)).astype(np.float32)
    data = ad.AnnData(z, obs=pd.DataFrame(obs, index=[f"s{i}" for i in range(210)]))
    return controls.Case(data, log, None, TYPES[true], 0)


@pytest.fixture(scope="module")
def trainer(tmp_path_factory) -> controls.Trainer:
    return controls.Trainer(RNAlign(**SMALL).get_params(), 0, tmp_path_factory.mktemp("controls"), 5)


@pytest.fixture(scope="module")
def held_out(case, trainer) -> dict[str, np.ndarray]:
    return controls.without_labels(case, trainer, 3)


def test_permuting_and_withholding_leave_tumours_and_counts_alone(case):
    permuted, withheld = controls.permuted_types(case), controls.withheld_types(case)
    assert (permuted[~case.is_line] == case.types[~case.is_line]).all()
    assert sorted(permuted[case.is_line]) == sorted(case.types[case.is_line])
    assert (permuted[case.is_line] != case.types[case.is_line]).any()
    assert set(withheld[case.is_line]) == {controls.WITHHELD}
    assert (withheld[~case.is_line] == case.types[~case.is_line]).all()


def test_every_line_is_held_out_once_and_types_are_spread(case):
    fold = controls.folds_of_lines(case, 5)
    assert (fold[~case.is_line] == -1).all()
    counts = pd.crosstab(case.types[case.is_line], fold[case.is_line])
    assert counts.shape == (3, 5) and (counts.max(axis=1) - counts.min(axis=1) <= 1).all()
    with pytest.raises(ValueError, match="61 for 60 cell lines"):
        controls.folds_of_lines(case, 61)


def test_a_line_is_aligned_by_models_that_never_saw_it(case):
    seen = {}

    def fit(fold, samples):
        seen[fold] = set(samples.obs_names)
        return RNAlign(**SMALL | {"epochs": 1}).fit(samples)

    fold = controls.folds_of_lines(case, 2)
    decoded = []
    controls.held_out(case.data, fold, fit, {"x": lambda m, d: decoded.append(set(d.obs_names)) or m.transform(d)})
    assert all(not (seen[i] & decoded[i]) for i in range(2))
    assert set().union(*decoded) == set(case.data.obs_names[case.is_line])


def test_unlabelled_variants_do_not_read_the_types_of_lines(case, trainer, held_out, tmp_path):
    other = controls.Case(
        controls.with_types(case.data, controls.permuted_types(case)), case.log, None, case.true_types, case.seed
    )
    fold = controls.folds_of_lines(case, 2)
    for classifier in CLASSIFIERS:
        np.testing.assert_array_equal(
            controls.shifted(case, classifier, fold), controls.shifted(other, classifier, fold)
        )
    for types in (controls.withheld_types(case), controls.withheld_types(other)):
        assert (types == controls.withheld_types(case)).all()
    assert not np.array_equal(held_out[controls.GIVEN], held_out[controls.UNTOLD])


def test_withheld_type_is_the_mean_over_types_whatever_the_label(case, trainer):
    model = trainer.fit("RNAlign", case.data)
    lines = case.data[case.is_line]
    first = controls.decode_without_type(model, lines)
    np.testing.assert_array_equal(first, controls.decode_without_type(model, controls.with_types(lines, "skin")))
    each = [controls.decode(model, controls.with_types(lines, name)) for name in TYPES]
    np.testing.assert_allclose(first, np.mean(each, axis=0), atol=1e-6)


def test_trainings_resume_and_differ_in_what_was_changed(case, trainer):
    again = trainer.fit("RNAlign", case.data)
    np.testing.assert_array_equal(again.transform(case.data), trainer.fit("RNAlign", case.data).transform(case.data))
    assert (trainer.folder / "RNAlign").is_dir()
    aligned = controls.ablations(case, trainer)
    assert list(aligned) == ["input", *controls.ABLATIONS]
    assert len({matrix.tobytes() for matrix in aligned.values()}) == 5
    assert trainer.fit("no purity", case.data, use_purity=False).use_purity is False


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_types_by_ranks_find_the_true_type_and_its_tumours(case, classifier):
    transfer = TypeTransfer(classifier).fit(case.data[~case.is_line], case.log[~case.is_line])
    lines, log = case.data[case.is_line], case.log[case.is_line]
    probability = transfer.predict_proba(lines, log)
    np.testing.assert_allclose(probability.sum(axis=1), 1, atol=1e-6)
    assert (transfer.predict(lines, log) == case.true_types[case.is_line]).mean() > 0.6
    np.testing.assert_array_equal(transfer.align(lines, log), lines.X)  # no line to learn a shift from
    moved = TypeTransfer(classifier).fit(case.data, case.log)
    seems, aligned = moved.predict(lines, log), moved.align(lines, log)
    for i, name in enumerate(moved.types_):
        if (seems == name).any():
            np.testing.assert_allclose(aligned[seems == name].mean(axis=0), moved.tumour_means_[i], atol=1e-5)


def test_normal_scores_keep_the_order_and_ignore_the_unit():
    X = np.random.default_rng(0).gamma(2, size=(4, 30))
    np.testing.assert_array_equal(normal_scores(X), normal_scores(np.log2(X + 1)))
    assert np.abs(normal_scores(X).mean(axis=1)).max() < 1e-6
    assert normal_scores(np.array([[0.0, 0.0, 1.0]]))[0, 0] == normal_scores(np.array([[0.0, 0.0, 1.0]]))[0, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classifier": "oracle"}, "classifier: found 'oracle'"),
        ({"log": np.zeros((3, 3))}, r"log: found shape"),
        ({"log": None}, "log: found NaN"),
    ],
)
def test_type_transfer_names_what_is_wrong(case, change, message):
    log = change.get("log", case.log)
    log = np.full(case.log.shape, np.nan) if log is None else log
    log = log[:150] if log.shape == case.log.shape else log
    with pytest.raises(ValueError, match=message):
        TypeTransfer(change.get("classifier", "two views")).fit(case.data[:150], log)


def test_agreement_counts_lines_by_label(case):
    aligned = {"input": case.data.X, "means": case.data.X.copy()}
    for name in TYPES:  # a collapse onto the given type
        rows = case.types == name
        aligned["means"][rows] = case.data.X[rows].mean(axis=0)
    called = control_tables.calls(case, aligned, EVALUATION)
    table = control_tables.agreement(called, ["given", "true"], EVALUATION, 0).set_index(["method", "label"])
    assert table.loc[("means", "given"), "value"] == 1
    assert table.loc[("means", "true"), "value"] == pytest.approx(0.9) and table.loc[("means", "true"), "n"] == 60
    wrong = control_tables.mislabelled(called, EVALUATION, 0).set_index(["method", "label"])["value"]
    assert wrong["means", "labelled"] == 1 and wrong["means", "true"] == 0
    none = control_tables.mislabelled(called.assign(true=called["labelled"]), EVALUATION, 0)
    assert (
        none["n"].sum() == 0
        and control_tables.mislabelled_in_words(none, ["input"]) == "No line is known to be mislabelled here."
    )


def test_paired_differences_pair_lines_and_types():
    called = pd.DataFrame({"method": ["input"] * 4 + ["x"] * 4, "line": list("abcd") * 2, "seed": 0,
                           "labelled": "t", "called": list("tuuu") + list("tttu")})  # fmt: skip
    row = control_tables.paired_matches(called, "input", EVALUATION, 0).set_index("method").loc["x"]
    assert row["difference"] == 0.5 and row["pairs"] == 4 and row["difference_low"] >= 0
    distances = pd.DataFrame({"method": ["RNAlign"] * 3 + ["no purity"] * 2, "seed": 0,
                              "cancer_type": list("abcab"), "delta_d": [1.0, 2, 9, 2, 4]})  # fmt: skip
    row = control_tables.paired_distances(distances, "RNAlign", EVALUATION, 0).set_index("method").loc["no purity"]
    assert row["difference"] == 1.5 and row["pairs"] == 2


def leak_tables(published, retrained, withheld):
    """Tables as of 100 lines, of which a share is matched by the published way and with types withheld; input 0.5."""
    shares = {"input": 0.5, "as published": published, "retrained": retrained, "trained with types withheld": withheld}
    shares |= {"trained with permuted types": 0.1, "decoded under permuted types": 0.1}
    rows = []
    for method, share in (shares | {"decoded with types withheld": 0.2}).items():
        called = np.where(np.arange(100) < 100 * share, "t", "u")
        rows.append(pd.DataFrame({"method": method, "line": np.arange(100), "seed": 0, "called": called,
                                  "labelled": "t", "given": "t"}))  # fmt: skip
    called = pd.concat(rows)
    return (
        control_tables.agreement(called, ["given", "labelled"], EVALUATION, 0),
        control_tables.paired_matches(called, "input", EVALUATION, 0),
    )


@pytest.mark.parametrize(
    ("published", "retrained", "withheld", "verdict"),
    [
        (0.9, 0.9, 0.4, "label leakage"),
        (0.9, 0.9, 0.7, "50% of it goes with the label"),
        (0.9, 0.9, 0.95, "all of it is left"),
        (0.9, 0.4, 0.7, "too short"),
        (0.9, 0.5, 0.75, "cannot tell"),
        (0.52, 0.9, 0.4, "no gain beyond chance"),
        (0.4, 0.4, 0.3, "no gain beyond chance"),
    ],
)
def test_the_verdict_follows_the_numbers(published, retrained, withheld, verdict):
    assert verdict in control_tables.leak_in_words(*leak_tables(published, retrained, withheld))


def test_label_leak_changes_the_labels_of_lines_only(case, trainer):
    published = trainer.fit("RNAlign", case.data)
    aligned = controls.label_leak(case, trainer, published)
    tumours = ~case.is_line
    for method in ("decoded under permuted types", "decoded with types withheld"):
        np.testing.assert_array_equal(aligned[method][tumours], aligned["as published"][tumours])
        assert not np.allclose(aligned[method][~tumours], aligned["as published"][~tumours])
    np.testing.assert_array_equal(aligned["retrained"], aligned["as published"])


def test_variants_say_which_is_best_and_whether_it_is_enough(case, held_out):
    told = [controls.GIVEN, controls.SEEN]
    called = control_tables.calls(case, held_out, EVALUATION)
    table = control_tables.agreement(called, ["labelled", "true"], EVALUATION, 0)
    words = control_tables.variants_in_words(table, told)
    free = table[(table["label"] == "labelled") & ~table["method"].isin([*told, "input"])]
    best = free.loc[free["value"].idxmax()]
    assert f"*{best['method']}*" in words and f"Of {len(free)} ways" in words
    assert ("reaches" in words) == (best["low"] >= control_tables.TARGET)
    assert ("stays below" in words) == (best["high"] < control_tables.TARGET)


def test_a_type_that_the_model_does_not_know_counts_as_not_given(case, trainer):
    model = trainer.fit("RNAlign", case.data)
    lines = case.data[case.is_line]
    odd = controls.with_types(lines, np.where(np.arange(60) < 5, "eye", lines.obs["cancer_type"]))
    decoded = controls.decode(model, odd)
    np.testing.assert_allclose(decoded[:5], controls.decode_without_type(model, lines)[:5], atol=1e-5)
    np.testing.assert_allclose(decoded[5:], model.transform(lines)[5:], atol=1e-5)


def test_a_single_tumour_of_a_type_and_a_type_without_lines_are_no_obstacle(case):
    types = np.where(np.arange(210) == 0, "eye", np.where(case.is_line & (case.types == "skin"), "lung", case.types))
    odd = controls.Case(controls.with_types(case.data, types), case.log, None, types, 0)
    for classifier in CLASSIFIERS:
        assert np.isfinite(controls.shifted(odd, classifier, controls.folds_of_lines(odd, 3))).all()


def test_too_few_of_a_kind_leave_no_distance_and_words_that_say_so(case):
    few = EVALUATION.model_copy(update={"min_per_kind": 500})
    aligned = {"input": case.data.X, "RNAlign": case.data.X, "no purity": case.data.X}
    scores = control_tables.scores(case, aligned, few)
    table = control_tables.wide(scores, ["delta_d", "match"])
    paired = control_tables.paired_distances(control_tables.distances(case, aligned, few), "RNAlign", few, 0)
    assert paired.empty and table["delta_d_n"].eq(0).all() and table["match"].notna().all()
    table = table.merge(paired, on="method", how="left")
    assert "not estimable" in control_tables.order_in_words(table, {"input": 2.0, "RNAlign": 1.0})
    assert control_tables.ablations_in_words(table).startswith("No ablation")
