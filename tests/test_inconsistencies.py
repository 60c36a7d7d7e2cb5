"""The papers' inconsistencies: every one is listed, and its arithmetic really disagrees."""

import pytest

from lib import claims, inconsistencies

ALL = {s["id"]: s for s in inconsistencies.statements()}


def test_every_inconsistency_is_listed_once():
    expected = [f"A{i}" for i in range(1, 23)] + [f"B{i}" for i in range(1, 37)] + [f"C{i}" for i in range(1, 19)]
    assert [s["id"] for s in inconsistencies.statements()] == expected


@pytest.mark.parametrize("name", ALL)
def test_statements_have_place_severity_and_claims(name):
    said = ALL[name]
    assert said["severity"] in ("H", "M", "L")
    assert said["where"]
    assert len(said["conflict"]) > 20
    assert said["claims"]
    assert set(said["claims"]) <= set(claims.load())


@pytest.mark.parametrize("name", inconsistencies.ARITHMETIC)
def test_what_follows_is_not_what_is_printed(name):
    found = inconsistencies.ARITHMETIC[name]()
    assert found.follows != found.printed
    assert any(character.isdigit() for character in found.text)


@pytest.mark.parametrize(
    ("name", "follows"),
    [("B1", 16129), ("B2", 133), ("B3", 81), ("B6", 7.5), ("B9", 45619), ("B13", 86.1), ("B19", 68), ("B22", False)],
)
def test_known_results(name, follows):
    assert inconsistencies.ARITHMETIC[name]().follows == follows


def test_the_arithmetic_is_recomputed_from_the_claims(monkeypatch):
    changed = claims.load() | {"b-n-genes-nzv": {"value": 177}}
    monkeypatch.setattr(claims, "load", lambda: changed)
    found = inconsistencies.b1()
    assert found.follows == found.printed == 16115
    assert "16,292 − 177 = 16,115" in found.text


def test_tables_show_all_of_a_paper():
    a, b = inconsistencies.table("a"), inconsistencies.table("b")
    assert (len(a), len(b)) == (22, 54)
    assert "16,292 − 163 = 16,129" in b.set_index("id").loc["B1", "arithmetic"]
    assert not (a == "").any().any()
    assert not (b == "").any().any()
