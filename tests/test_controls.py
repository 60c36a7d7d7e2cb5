"""Controls: labels permuted, withheld and held out as they say; types by ranks; paired tables and their words."""

import re
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from lib import comparison, config, control_tables, controls
from lib.models.rnalign import RNAlign
from lib.models.type_transfer import CLASSIFIERS, TypeTransfer, normal_scores

TYPES = np.array(["breast", "lung", "skin"])
SMALL = dict(hidden=16, latent=4, batch_size=64, epochs=5, lr=3e-3, device="cpu")
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
    obs["split"] = np.where(np.arange(210) % 10 < 8, "train", "test")
    z = ((log - log.mean(0)) / log.std(0)).astype(np.float32)
    data = ad.AnnData(z, obs=pd.DataFrame(obs, index=[f"s{i}" for i in range(210)]))
    return controls.Case(data, log, None, TYPES[true], 0)


@pytest.fixture(scope="module")
def trainer(tmp_path_factory) -> controls.Trainer:
    return controls.Trainer(RNAlign(**SMALL).get_params(), 0, tmp_path_factory.mktemp("controls"), 5)


@pytest.fixture(scope="module")
def published(case, trainer) -> RNAlign:
    return trainer.fit("RNAlign", case.data[case.train])


@pytest.fixture(scope="module")
def held_out(case, trainer) -> dict[str, np.ndarray | controls.ByFold]:
    return controls.without_labels(case, trainer, controls.folds_of_lines(case, 3), controls.folds_of_lines(case, 2))


def relabelled(case: controls.Case, lines: np.ndarray) -> controls.Case:
    """The case with other types for some of the lines, and one that no tumour has."""
    types = np.where(lines, np.where(case.types == "skin", "eye", "skin"), case.types)
    return replace(case, data=controls.with_types(case.data, types))


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


def test_a_line_is_compared_with_tumours_of_its_own_model(case, held_out):
    of_fold = controls.folds_of_lines(case, 3)
    given, seen = held_out[controls.GIVEN], held_out[controls.SEEN]
    lines = case.is_line
    np.testing.assert_array_equal(given.model, of_fold)
    np.testing.assert_array_equal(seen.model[lines], (of_fold[lines] + 1) % 3)
    for i, (rows, X) in enumerate(controls.parts(given)):
        assert set(rows) == set(np.flatnonzero(~lines | (of_fold == i)))
        np.testing.assert_array_equal(X[~lines[rows]], given.tumours[i])
        np.testing.assert_array_equal(X[lines[rows]], given.X[of_fold == i])
    called = control_tables.calls(case, {"x": given}, EVALUATION)
    assert sorted(called["line"]) == sorted(case.names[lines])


def test_untold_variants_never_read_the_type_of_any_line(case, trainer, held_out, tmp_path):
    few, fresh = controls.folds_of_lines(case, 2), replace(trainer, folder=tmp_path)
    other = relabelled(case, case.is_line)
    guesses = [controls.guessed_types(c, t, few) for c, t in ((case, trainer), (other, fresh))]
    for name, types in guesses[0].items():
        np.testing.assert_array_equal(types[case.is_line], guesses[1][name][case.is_line])
    changed = controls.without_labels(other, fresh, few, few)
    for name in ("no type in y", "types of tumours only", "rank input, no type in y"):
        np.testing.assert_array_equal(held_out[name].X, changed[name].X)
        ours, theirs = (control_tables.calls(c, {"x": m[name]}, EVALUATION)["called"].tolist()
                        for c, m in ((case, held_out), (other, changed)))  # fmt: skip
        assert ours == theirs
    for classifier in CLASSIFIERS:
        np.testing.assert_array_equal(*(controls.shifted(c, classifier, few) for c in (case, other)))


def test_a_line_that_is_not_told_its_type_is_aligned_the_same_under_any(case, trainer, held_out, tmp_path):
    fold, few = controls.folds_of_lines(case, 3), controls.folds_of_lines(case, 2)
    out = fold == 1
    other = relabelled(case, out)
    changed = controls.without_labels(other, replace(trainer, folder=tmp_path), fold, few)
    untold = [name for name in held_out if name not in ("input", controls.GIVEN, controls.SEEN)]
    assert len(untold) == 12
    for name in untold:
        ours, theirs = (m[name].X if isinstance(m[name], controls.ByFold) else m[name] for m in (held_out, changed))
        np.testing.assert_array_equal(ours[out], theirs[out])
    assert not np.array_equal(held_out[controls.GIVEN].X[out], changed[controls.GIVEN].X[out])


def test_withheld_type_is_the_mean_over_types_whatever_the_label(case, published):
    model = published
    lines = case.data[case.is_line]
    first = controls.decode_without_type(model, lines)
    np.testing.assert_array_equal(first, controls.decode_without_type(model, controls.with_types(lines, "skin")))
    each = [controls.decode(model, controls.with_types(lines, name)) for name in TYPES]
    np.testing.assert_allclose(first, np.mean(each, axis=0), atol=1e-6)


def test_trainings_resume_and_differ_in_what_was_changed(case, trainer, published):
    again = trainer.fit("RNAlign", case.data[case.train])
    np.testing.assert_array_equal(again.transform(case.data), published.transform(case.data))
    aligned = controls.ablations(case, trainer, published)
    np.testing.assert_array_equal(aligned["RNAlign"], published.transform(case.data))
    assert {p.name for p in trainer.folder.iterdir()} >= {"no_L_grad", "no_L_cor", "no_purity"}
    assert list(aligned) == ["input", *controls.ABLATIONS]
    assert len({matrix.tobytes() for matrix in aligned.values()}) == 5
    assert trainer.fit("no purity", case.data[case.train], use_purity=False).use_purity is False


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
    called = control_tables.calls(case, aligned, EVALUATION, {"means": case.types})
    table = control_tables.agreement(called, ["given", "true"], EVALUATION, 0).set_index(["method", "label"])
    assert table.loc[("means", "given"), "value"] == 1 and 0.9 < table.loc[("means", "given"), "low"] < 1
    assert table.loc[("means", "true"), "value"] == pytest.approx(0.9) and table.loc[("means", "true"), "n"] == 60
    assert ("input", "given") not in table.index
    gain = table.loc[("means", "true"), "value"] - table.loc[("input", "true"), "value"]
    assert table.loc[("means", "true"), "difference"] == pytest.approx(gain)
    wrong = control_tables.mislabelled(called, EVALUATION, 0).set_index(["method", "label"])["value"]
    assert wrong["means", "labelled"] == 1 and wrong["means", "true"] == 0


def test_where_no_line_is_known_to_be_mislabelled_a_row_says_so(case):
    called = control_tables.calls(case, {"input": case.data.X}, EVALUATION)
    none = control_tables.mislabelled(called.assign(true=called["labelled"]), EVALUATION, 0)
    assert none["n"].sum() == 0 and none["method"].item().startswith("not estimable")
    assert control_tables.mislabelled_in_words(none, ["input"]) == "No line is known to be mislabelled here."


def test_a_gain_is_judged_by_the_same_label_of_the_same_line():
    called = pd.DataFrame({"method": ["input"] * 4 + ["x"] * 4, "line": list("abcd") * 2, "seed": 0, "given": "",
                           "labelled": "t", "called": list("tuuu") + list("tttu")})  # fmt: skip
    called.loc[4:, "given"] = list("uuut")
    table = control_tables.agreement(called, ["given", "labelled"], EVALUATION, 0).set_index(["method", "label"])
    assert table.loc[("x", "labelled"), "difference"] == 0.5 and table.loc[("x", "labelled"), "pairs"] == 4
    assert table.loc[("x", "given"), "difference"] == -0.5  # of the given types b, c were the input's, none is x's


def test_paired_differences_pair_types_and_tell_seeds_apart():
    values = pd.DataFrame({"method": ["RNAlign"] * 3 + ["no purity"] * 2, "seed": 0, "score": "delta_d",
                           "unit": list("abcab"), "value": [1.0, 2, 9, 2, 4]})  # fmt: skip
    both = pd.concat([values, values.assign(seed=1, value=values["value"] * [1, 1, 1, 2, 2])])
    for table, expected, seeds in ((values, 1.5, (1.5, 1.5)), (both, 3.0, (1.5, 4.5))):
        by_method = control_tables.paired(table, "delta_d", "RNAlign", np.median, EVALUATION, 0).set_index("method")
        row = by_method.loc["no purity"]
        assert row["difference"] == expected and row["pairs"] == 2
        assert (row["smallest_seed"], row["largest_seed"]) == seeds
        assert by_method.loc["RNAlign", "difference"] == 0


def leak_table(published, withheld):
    """A table as of 100 lines, of which a share is matched by the published way and with types withheld; input 0.5."""
    shares = {"input": 0.5, "as published": published, "trained with types withheld": withheld}
    shares |= {"trained with permuted types": 0.1, "decoded under permuted types": 0.1}
    rows = []
    for method, share in (shares | {"decoded with types withheld": 0.2}).items():
        called = np.where(np.arange(100) < 100 * share, "t", "u")
        rows.append(pd.DataFrame({"method": method, "line": np.arange(100), "seed": 0, "called": called,
                                  "labelled": "t", "given": "t"}))  # fmt: skip
    return control_tables.agreement(pd.concat(rows), ["given", "labelled"], EVALUATION, 0)


@pytest.mark.parametrize(
    ("published", "withheld", "verdict"),
    [
        (0.9, 0.4, "label leakage: without"),
        (0.9, 0.7, "50% of it goes with the label"),
        (0.9, 0.95, "all of it is left"),
        (0.52, 0.4, "no gain beyond chance"),
        (0.4, 0.3, "no gain beyond chance"),
    ],
)
def test_the_verdict_follows_the_numbers(published, withheld, verdict):
    assert verdict in control_tables.leak_in_words(leak_table(published, withheld))


@pytest.mark.parametrize(("match", "gains"), [(0.9, True), (0.52, False), (0.4, False)])
def test_a_gain_without_the_label_is_said_beside_the_verdict(match, gains):
    words = control_tables.variants_in_words(leak_table(0.9, match), ["as published"])
    assert ("can gain without their label" in words) == gains
    assert "trained with types withheld" in words


@pytest.mark.parametrize(("value", "verdict"), [(0.5, "beaten: +0.20"), (0.1, "not beaten: -0.20")])
def test_words_on_the_truth_say_who_is_beaten(value, verdict):
    noise = 0.01 * np.random.default_rng(0).normal(size=30)
    rows = [
        pd.DataFrame({"method": method, "seed": 0, "score": score, "unit": np.arange(30), "value": mean + noise})
        for method, mean in (("input", 0.3), ("ours", value))
        for score in ("truth_lines", "truth_among_lines")
    ]
    said = control_tables.truth_in_words(pd.concat(rows), "ours", ["input"], EVALUATION, 0)
    assert f"*ours*: over both kinds {value:.2f} against input 0.30 ({verdict}" in said
    none = control_tables.truth_in_words(pd.concat(rows).assign(score="match"), "ours", ["input"], EVALUATION, 0)
    assert none.startswith("There is no truth")


def test_label_leak_changes_the_labels_of_lines_only(case, trainer, published):
    aligned = controls.label_leak(case, trainer, published)
    tumours = ~case.is_line
    for method in ("decoded under permuted types", "decoded with types withheld"):
        np.testing.assert_array_equal(aligned[method][tumours], aligned["as published"][tumours])
        assert not np.allclose(aligned[method][~tumours], aligned["as published"][~tumours])
    called = control_tables.calls(case, aligned, EVALUATION, controls.told_types(case))
    told = called.groupby("method")["given"].agg(lambda given: (given != "").all())
    assert set(told.index[told]) == {"as published", *(m for m in aligned if "permuted" in m)}


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
    assert "n = 60 lines" in control_tables.seen_in_words(called, EVALUATION, 0)


def test_scores_of_one_matrix_are_those_of_the_other_tables(case):
    known = replace(case, truth=np.asarray(case.data.X) + 0.1 * np.random.default_rng(0).normal(size=case.data.shape))
    aligned = {"half": np.asarray(case.data.X) / 2}
    scores = [s for s in comparison.SCORES if s not in ("match_types", "truth_among_tumours")]
    table = control_tables.estimates(control_tables.measured(known, aligned, EVALUATION), scores, EVALUATION, 0)
    expected = comparison.alignment_scores(aligned["half"], case.data.X, case.data.obs, known.truth, EVALUATION, 0).loc[
        scores
    ]
    np.testing.assert_allclose(table["value"].astype(float), expected["value"].astype(float), rtol=1e-6)
    assert table["n"].tolist() == expected["n"].tolist()


def test_seeds_of_the_same_lines_do_not_make_more_lines(case):
    aligned = {"input": case.data.X}
    real = [control_tables.calls(replace(case, seed=seed), aligned, EVALUATION) for seed in range(3)]
    drawn = [replace(case, seed=seed, truth=np.asarray(case.data.X)) for seed in range(3)]
    generated = [control_tables.calls(c, aligned, EVALUATION) for c in drawn]
    for called, lines in ((real, 60), (generated, 180)):
        table = control_tables.agreement(control_tables.together(called), ["labelled"], EVALUATION, 0)
        assert (table["n"] == 60).all() and (table["seeds"] == 3).all()
        assert control_tables.together(called)["line"].nunique() == lines


def test_a_type_that_the_model_does_not_know_counts_as_not_given(case, published):
    model = published
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
    values = control_tables.measured(case, {m: case.data.X for m in ("input", "RNAlign", "no purity")}, few)
    table = control_tables.wide(control_tables.estimates(values, ["delta_d", "delta_d_ratio", "match"], few, 0))
    paired = control_tables.paired(values, "delta_d", "RNAlign", np.median, few, 0)
    assert paired.empty and table["delta_d_n"].eq(0).all() and table["match"].notna().all()
    table = table.merge(paired.drop(columns="seeds"), on="method", how="left")
    assert "not estimable" in control_tables.order_in_words(table, {"input": 2.0, "RNAlign": 1.0})
    assert control_tables.ablations_in_words(table).startswith("No ablation")


def subset(case: controls.Case, rows: np.ndarray) -> controls.Case:
    return controls.Case(case.data[rows], case.log[rows], None, case.true_types[rows], case.seed)


@pytest.mark.parametrize(
    ("kept", "why"),
    [
        (lambda case: case.is_line | (np.arange(210) < 12), "12 tumours, fewer than the 25 nearest"),
        (lambda case: case.types == "skin", r"1 cancer type\(s\)"),
        (lambda case: ~case.is_line | (np.arange(210) < 154), "4 cell lines, fewer than the 5 folds"),
        (lambda case: ~case.is_line, "0 cell lines"),
    ],
)
def test_data_that_allow_no_control_are_named_and_make_empty_tables(case, kept, why):
    small = subset(case, kept(case))
    assert re.match(why, controls.obstacle(small, 5, EVALUATION.match_neighbours))
    assert controls.obstacle(case, 5, EVALUATION.match_neighbours) == ""
    empty = control_tables.agreement(control_tables.together([]), ["labelled"], EVALUATION, 0)
    table = control_tables.or_reason(empty, why)
    assert len(table) == 1 and why in table["method"].item() and not table.isna().to_numpy().any()


def test_ablations_of_few_tumours_or_one_type_are_scored_as_far_as_they_go(case, published):
    for rows in (case.is_line | (np.arange(210) < 12), case.types == "skin"):
        small = subset(case, rows)
        values = control_tables.measured(small, {"input": small.data.X, "RNAlign": small.data.X / 2}, EVALUATION)
        table = control_tables.estimates(values, ["match", "variance_kept"], EVALUATION, 0).set_index("score")
        assert table.loc["variance_kept", "value"].tolist() == pytest.approx([1, 0.25])
        tumours = (~small.is_line).sum()
        assert (table.loc["match", "n"] == (0 if tumours < 25 else small.is_line.sum())).all()


@pytest.mark.parametrize(("types", "said"), [(6, "no purity worsens it"), (2, "can't be judged by so few types")])
def test_an_ablation_is_not_judged_by_two_types(types, said):
    score = {"input": 3.0, "RNAlign": 1.0, "no purity": 2.0}
    rows = [
        pd.DataFrame({"method": m, "seed": 0, "score": s, "unit": np.arange(types).astype(str), "value": v})
        for m, v in score.items()
        for s in ("delta_d", "delta_d_ratio", "variance_kept")
    ]
    values = pd.concat(rows)
    table = control_tables.wide(
        control_tables.estimates(values, ["delta_d", "delta_d_ratio", "variance_kept"], EVALUATION, 0)
    )
    for name, prefix in (("delta_d", ""), ("delta_d_ratio", "ratio_")):
        paired = control_tables.paired(values, name, "RNAlign", np.median, EVALUATION, 0).set_index("method")
        table = table.join(paired.drop(columns="seeds").add_prefix(prefix), on="method")
    assert said in control_tables.ablations_in_words(table)
