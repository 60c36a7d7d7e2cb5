"""The claims ledger: every claim is mapped or excused, what is mapped exists, and verdicts follow their rules."""

from pathlib import Path

import pandas as pd
import pytest

from lib import claims, config, ledger, measured
from lib.ledger import Comparison
from lib.measured import Measured, Source

REAL = Path(__file__).parents[1].parent / "shared" / "real"
NUMBER = {"id": "a-t1-dd-rnalign", "kind": "result", "quantity": "ΔD", "value": 4.75}
SETTING = {"id": "a-hp-knn", "kind": "hyperparameter", "quantity": "neighbours", "value": 25}
FOUND = Source(ids=["a-t1-dd-rnalign"], file="data/a-table1.csv")


def test_every_claim_has_a_mapping_or_a_reason():
    assert set(measured.sources()) == set(claims.load())
    for claim_id, entry in measured.sources().items():
        assert entry.reason or entry.compare or any(getattr(entry, way) is not None for way in measured.WAYS), claim_id


def test_a_claim_without_either_fails(monkeypatch):
    monkeypatch.setattr(claims, "load", lambda: {"a-new": {"id": "a-new"}})
    monkeypatch.setattr(measured, "sources", dict)
    with pytest.raises(KeyError, match="a-new: found neither a mapping nor a reason"):
        measured.measure(config.load("smoke"), "a-new")


@pytest.mark.parametrize("field", ["compare", "derive"])
def test_mapped_claims_exist(field):
    for entry in measured.sources().values():
        ids = (entry.derive or [None])[1:] if field == "derive" else [i for pair in entry.compare for i in pair]
        assert set(ids) <= set(claims.load())


def test_compared_claims_print_numbers():
    for claim_id, entry in measured.sources().items():
        printed = [claims.load()[i].get("value") for pair in entry.compare for i in pair]
        assert all(isinstance(value, int | float) for value in printed if value is not None), claim_id
        assert not printed or any(value is not None for value in printed), claim_id


@pytest.mark.slow
def test_every_mapped_table_column_and_row_is_made(smoke):
    assert measured.unfound(smoke) == []


@pytest.mark.slow
def test_every_measured_value_names_the_cell_that_made_it(smoke):
    rows = ledger.ledger(smoke)
    from_files = rows[rows["source"].str.contains(".csv", regex=False)]
    assert len(from_files) > 200
    assert not rows["made_by"].str.startswith("?").any()
    assert from_files["made_by"].str.match(r"\d\d_\w+ \[[ab]-[\w-]+\]$").all()


@pytest.mark.slow
def test_values_are_those_of_the_tables(smoke):
    table = pd.read_csv(smoke.figures / "data" / "a-table1.csv").set_index(["method", "metric"])
    found = measured.measure(smoke, "a-t1-dd-rnalign")
    assert (found.value, found.n) == pytest.approx(tuple(table.loc[("RNAlign", "delta_d"), ["value", "n"]]))
    match = pd.read_csv(smoke.figures / "data" / "b-fig2.csv").set_index("class")
    assert measured.measure(smoke, "b-fig2-acc-blood").value == pytest.approx(match.loc["blood", "accuracy"])
    assert measured.measure(smoke, "b-acc-spleen").value == pytest.approx(100 * match.loc["spleen", "accuracy"])


def check_verdicts(rows):
    assert list(rows["id"]) == list(claims.load())
    assert set(rows["verdict"]) <= set(ledger.RULES)
    assert (rows["reason"] != "").all()
    assert (rows["profile"] != "paper").all()
    number = rows["kind"].isin(["result", "dataset", "runtime", "figure", "qualitative"])
    settings = rows["source"].str.startswith("profile ")
    assert not (rows[number & ~settings]["verdict"] == ledger.REPRODUCED).any()


@pytest.mark.slow
def test_all_claims_have_a_verdict_on_generated_data(smoke):
    check_verdicts(ledger.ledger(smoke))


@pytest.mark.parametrize("name", ["mini", "mini474"])
def test_all_claims_have_a_verdict_on_real_data(name):
    run = config.load(name, str(REAL))
    if not (run.figures / "data" / "a-table1.csv").is_file():
        pytest.skip(f"figures/{name} is not built: ./run_all.sh --profile {name} --data DIR")
    check_verdicts(ledger.ledger(run))


@pytest.mark.parametrize(
    ("value", "own", "verdict"),
    [
        (Measured(4.8, 4.0, 5.0), True, ledger.REPRODUCED),
        (Measured(4.754, 4.751, 4.759), True, ledger.REPRODUCED),
        (Measured(5.8, 5.0, 6.0), True, ledger.NOT),
        (Measured(4.8, 4.0, 5.0), False, ledger.PAPER_ONLY),
        (Measured(reason="no row"), True, ledger.PAPER_ONLY),
    ],
)
def test_a_number_is_only_held_against_the_papers_own_data(value, own, verdict):
    assert ledger.judge(NUMBER, FOUND, value, [], own)[0] == verdict


@pytest.mark.parametrize(
    ("held", "verdict"),
    [([True], ledger.DIRECTION), ([True, False, None], ledger.NOT), ([True, None], ledger.PAPER_ONLY)],
)
def test_on_other_data_only_a_direction_counts(held, verdict):
    stated = [Comparison(h, "a < b") for h in held]
    assert ledger.judge(NUMBER, FOUND, Measured(4.75, 4.0, 5.0), stated, False)[0] == verdict


def test_a_setting_is_compared_on_any_data():
    entry = Source(ids=["a-hp-knn"], setting="evaluation.match_neighbours")
    assert ledger.judge(SETTING, entry, Measured(25), [], False)[0] == ledger.REPRODUCED
    assert ledger.judge(SETTING, entry, Measured(10), [], False)[0] == ledger.PAPER_ONLY
    assert ledger.judge(SETTING, entry, Measured(10), [], True)[0] == ledger.NOT


def test_agreement_of_lists_words_and_limits():
    assert ledger.agrees([-5, -2], Measured([-5.0, -2.0]))
    assert not ledger.agrees([2, 3], Measured([0, 3]))
    assert ledger.agrees("Adam", Measured("adam"))
    assert ledger.agrees(98, Measured(98.2), bound="above")
    assert not ledger.agrees(75, Measured(75.0), bound="above")
    assert ledger.agrees(105_000_000, Measured(104_900_000), approximate=True)
    assert not ledger.agrees(12236, Measured(12235))


def test_an_order_needs_intervals_apart(monkeypatch):
    ours = {"a-t1-dd-rnalign": Measured(3.0, 2.0, 4.0), "a-t1-dd-input": Measured(9.0, 8.0, 10.0)}
    monkeypatch.setattr(measured, "measure", lambda run, claim_id: ours[claim_id])
    pair = [list(ours)]
    assert ledger.compare(None, pair)[0].holds is True
    ours["a-t1-dd-input"] = Measured(3.5, 2.5, 4.5)
    assert ledger.compare(None, pair)[0].holds is None
    ours["a-t1-dd-input"] = Measured(1.0, 0.5, 1.5)
    assert ledger.compare(None, pair)[0].holds is False
    ours["a-t1-dd-input"] = Measured(reason="not estimable")
    assert ledger.compare(None, pair) == []


def test_files_of_the_ledger_are_whole_and_escaped(tmp_path, monkeypatch):
    run = config.load("smoke")
    monkeypatch.setattr(config.Profile, "figures", property(lambda self: tmp_path))
    rows = ledger.ledger(run)
    rows.loc[0, "quantity"] = "a <b> | c"
    ledger.write(rows, run)
    written = pd.read_csv(tmp_path / "claims.csv", keep_default_na=False)
    assert list(written["id"]) == list(claims.load())
    assert not (written == "").any().any()
    assert written.set_index("id").loc["a-hp-lr", "made_by"] == "profile smoke: rnalign_search.log10_lr"
    assert (written.loc[written["measured"] != "–", "made_by"] != "–").all()
    page = (tmp_path / "claims.html").read_text()
    assert "a &lt;b&gt; | c" in page
    assert page.count("<tr") == len(rows) + 2
    assert r"a <b> \| c" in (tmp_path / "claims.md").read_text()


def test_a_mapping_with_two_ways_is_refused():
    with pytest.raises(ValueError, match="expected one of"):
        Source(ids=["a-x"], setting="seed", figure="a-fig1")


def test_what_is_derived_has_the_widest_interval_of_its_parts():
    parts = [Measured(3.0, 2.0, 4.0), Measured(2.0, 1.0, 2.5)]
    assert measured._widest("difference", parts) == (-0.5, 3.0)
    assert measured._widest("ratio", parts) == (0.8, 4.0)
    assert measured._widest("rest", [Measured(20.0, 10.0, 40.0)]) == (60.0, 90.0)
    assert measured._widest("difference", [parts[0], Measured(2.0)]) == (None, None)
    assert measured._widest("gap", parts) == (None, None)  # not monotone: 0 lies within


def test_a_lowest_value_comes_with_the_interval_and_n_of_its_row():
    rows = pd.DataFrame({"value": [3.0, 1.0, 2.0], "low": [2.5, 0.5, 1.0], "high": [4.0, 1.5, 3.0], "n": [9, 8, 7]})
    entry = Source(ids=["a-x"], file="data/x.csv", take="lowest", scale=100)
    found = measured._several(rows, entry, {"source": "x", "figure_id": "x"})
    assert (found.value, found.low, found.high, found.n) == (100, 50, 150, 8)


@pytest.mark.slow
def test_a_count_has_no_n_and_a_score_has_interval_and_n(smoke):
    rows = ledger.ledger(smoke).set_index("id")
    assert rows.loc[rows["kind"].isin(ledger.COUNTS), "n"].isna().all()
    scores = rows.loc[["a-t1-dd-rnalign", "b-ba", "b-target-acc", "b-base-margin", "b-acc-floor", "b-target-nbl-rest"]]
    assert scores[["low", "high", "n"]].notna().all(axis=None)
    assert scores["measured"].between(scores["low"], scores["high"]).all()
