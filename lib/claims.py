"""The papers' claims, by id: data/claims.yaml is the one place where published values stand."""

from __future__ import annotations

from functools import cache

import yaml

from lib import config

CLAIMS = config.ROOT / "data" / "claims.yaml"


@cache
def load() -> dict[str, dict]:
    """Every claim of both papers by its id."""
    return {claim["id"]: claim for claim in yaml.safe_load(CLAIMS.read_text())}


def published(claim_id: str) -> float:
    """The number that a paper prints; KeyError for an unknown claim, ValueError for one without a number."""
    value = load()[claim_id].get("value")
    if not isinstance(value, int | float):
        raise ValueError(f"{CLAIMS.name}: claim {claim_id}: found {value!r}, expected a number")
    return float(value)
