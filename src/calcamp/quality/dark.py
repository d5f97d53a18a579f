"""Judging DARK01: dark signal, dark current, hot pixels and columns, master dark."""

from __future__ import annotations

from calcamp.quality.compliance import Cell
from calcamp.quality.family import Case, Check, FamilyRules, channels, entry, from_table
from calcamp.quality.flags import Flag
from calcamp.quality.limits import Limit, number


def signal_rows(case: Case, limit: Limit) -> list[dict]:
    """Signal per exposure: of the analysis, else the level that the check measured on raw frames."""
    rows = case.rows(limit.table)
    if rows:
        return rows
    return [{**row, limit.value: row.get("level_image")} for row in case.rows("frames")]


def headline(case: Case) -> list[dict]:
    """Dark current (or its 95 % upper limit), its non-uniformity, hot pixels and columns."""
    rows = {(row.get("ccd"), row.get("quadrant")): row for row in case.rows("dark")}
    out = []
    for ccd, quadrant in channels():
        row = rows.get((ccd, quadrant), {})
        is_limit = bool(row.get("is_limit"))
        column = "dark_current_limit95" if is_limit else "dark_current"
        err = None if is_limit else row.get("dark_current_err")
        item = entry("dark_current", row.get(column), err, row.get("n"), ccd=ccd, quadrant=quadrant)
        item["is_limit"] = is_limit
        item["systematic"] = number(row.get("systematic"))
        item["gain_nominal"] = case.gain(ccd, quadrant)[2]
        out.append(item)
    table = list(rows.values())
    out += from_table(table, "dark_signal", "signal_adu")
    out += from_table(table, "dsnu", "dsnu")
    out += from_table(table, "hot_pixels", "n_hot")
    out += from_table(table, "hot_columns", "n_hot_columns")
    return out


def extra(case: Case, cells: list[Cell]) -> list[Flag]:
    """SOURCEON: more signal in a dark than its limit."""
    flags = []
    for cell in cells:
        if (
            cell.check == "dark_signal"
            and cell.ok is False
            and cell.high is not None
            and cell.value > cell.high
        ):
            cause = f"signal {cell.value:.4g} ADU in a dark exposure (at most {cell.high:g}): light, or a warm CCD"
            scope = {k: v for k, v in cell.keys.items() if k in ("ccd", "quadrant", "column")}
            flags.append(Flag("SOURCEON", cause, {**scope, "obsids": cell.obsids}))
    return flags


FAMILY = FamilyRules(
    "dark",
    checks=(Check("dark_signal", rows=signal_rows), Check("dark_scatter")),
    headline=headline,
    extra=extra,
    products=(("meta", "dark"),),
)
