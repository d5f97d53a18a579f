"""Judging STRAY00: light in the configurations that should be dark."""

from __future__ import annotations

from calcamp.quality.family import Case, Check, FamilyRules, channels, entry
from calcamp.quality.limits import Limit


def dark_rows(case: Case, limit: Limit | None = None) -> list[dict]:
    """Configurations in which no light is wanted."""
    return [row for row in case.rows("stray") if row.get("judged") in (True, 1, "True")]


def headline(case: Case) -> list[dict]:
    """Rate of light of every configuration."""
    out = []
    rows = case.rows("stray")
    for configuration in dict.fromkeys(row["configuration"] for row in rows):
        of = {(r["ccd"], r["quadrant"]): r for r in rows if r["configuration"] == configuration}
        for ccd, quadrant in channels():
            row = of.get((ccd, quadrant), {})
            keys = {"ccd": ccd, "quadrant": quadrant, "configuration": configuration}
            out.append(
                entry("stray_light", row.get("rate_e_s"), row.get("rate_e_s_err"), row.get("n"), **keys)
            )
    return out


FAMILY = FamilyRules("stray", checks=(Check("stray_light", rows=dark_rows),), headline=headline)
