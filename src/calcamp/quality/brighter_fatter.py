"""Judging BF01 and MOT_FF: coefficients of the brighter-fatter effect and what its correction leaves."""

from __future__ import annotations

from calcamp.quality.family import Case, Check, FamilyRules, from_table
from calcamp.quality.flags import Flag
from calcamp.quality.limits import number
from calcamp.quality.lit import FLUENCE, FLUX, REFERENCES
from calcamp.quality.ptc import serial_edge

#: Significance of a correlation left by the correction that is worth a note.
SIGMA = 5.0


def headline(case: Case) -> list[dict]:
    """Coefficients a, hard-edge response where it was measured."""
    table = case.rows("bf")
    out = []
    for name in ("a00", "a01", "a10"):
        out += from_table(table, f"bf_{name}", name)
    if case.rows("her"):
        out += from_table(case.rows("her"), "her", "her", edge="serial")
    return out


def extra(case: Case, cells) -> list[Flag]:
    flags = []
    for row in case.rows("bf_check"):
        left, err = number(row.get("rho01_after")), number(row.get("rho01_after_err"))
        if left is not None and err and abs(left) > SIGMA * err:
            cause = f"correlation with the parallel neighbour {left:+.4f} +- {err:.4f} after correction at {row.get('signal') or 0:.0f} ADU"
            scope = {"ccd": row.get("ccd"), "quadrant": row.get("quadrant")}
            flags.append(Flag("UNDERPERFORM", cause, scope, effect="note"))
    return flags


FAMILY = FamilyRules(
    "brighter_fatter",
    checks=(FLUENCE, FLUX, Check("her", rows=serial_edge)),
    headline=headline,
    extra=extra,
    references=REFERENCES,
)
