"""Judging COSMETICS00: lost area, bad columns and clusters of the merged mask; what it was made from."""

from __future__ import annotations

from calcamp.quality.compliance import Cell
from calcamp.quality.family import Case, Check, FamilyRules, channels, entry
from calcamp.quality.flags import Flag
from calcamp.quality.limits import Limit, number


def merged_rows(case: Case, limit: Limit | None = None) -> list[dict]:
    """Counts of the merged mask; those of a mask without one of its two parts are not judged."""
    return [row for row in case.rows("cosmetics") if row.get("mask") == "merged" and not row.get("flag")]


def headline(case: Case) -> list[dict]:
    """Bad pixels and columns of the merged mask."""
    rows = {(row.get("ccd"), row.get("quadrant")): row for row in merged_rows(case)}
    out = []
    for quantity in ("bad_pixels", "bad_columns", "lost_area", "clusters"):
        for ccd, quadrant in channels():
            row = rows.get((ccd, quadrant), {})
            out.append(entry(quantity, row.get(quantity), None, row.get("n"), ccd=ccd, quadrant=quadrant))
    return out


def extra(case: Case, cells: list[Cell]) -> list[Flag]:
    """SOURCEON: light in a frame of exposure time 0."""
    flags = []
    time = {obsid: number(row.get("exptime")) for obsid, row in case.logged.items()}
    for row in case.rows("frames"):
        level = number(row.get("level_image"))
        if time.get(row.get("obsid")) == 0 and level is not None and level > 200:
            cause = f"{level:.4g} ADU in a frame of exposure time 0: light, or a warm CCD"
            scope = {"ccd": row["ccd"], "quadrant": row["quadrant"], "obsids": [row["obsid"]]}
            flags.append(Flag("SOURCEON", cause, scope))
    return flags


FAMILY = FamilyRules(
    "cosmetics",
    checks=tuple(Check(name, rows=merged_rows) for name in ("lost_area", "bad_columns", "clusters")),
    headline=headline,
    extra=extra,
    products=(("masks", "mask"), ("masks", "dq")),
)
