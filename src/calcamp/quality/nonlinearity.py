"""Judging NL01 and NL02: non-linearity, shutter, lamp, charge transfer near the full well."""

from __future__ import annotations

from calcamp.quality.family import Case, FamilyRules, channels, entry, from_table
from calcamp.quality.flags import Flag
from calcamp.quality.flat import SHUTTER_OFF_S
from calcamp.quality.limits import number
from calcamp.quality.lit import FLUENCE, FLUX, REFERENCES

#: rms of the lamp's slow track and jitter above which the curve is not to be trusted, % (analysis of flats, 4.2).
UNSTABLE = 1.0


def headline(case: Case) -> list[dict]:
    """Extreme of the non-linearity, shutter offset, transfer inefficiency."""
    rows = {(r.get("ccd"), r.get("quadrant")): r for r in case.rows("nl")}
    out = []
    for ccd, quadrant in channels():
        row = rows.get((ccd, quadrant), {})
        item = entry(
            "nonlinearity_max",
            row.get("nonlinearity_max"),
            row.get("nonlinearity_max_err"),
            row.get("n"),
            ccd=ccd,
            quadrant=quadrant,
        )
        out.append({**item, "fluence": number(row.get("at_signal"))})
    for row in case.rows("shutter") or [{}]:
        out.append(entry("shutter_offset", row.get("t0"), row.get("t0_err"), row.get("n")))
        out.append(entry("lamp_rms", row.get("lamp_rms"), None, row.get("n")))
    out += from_table(case.rows("saturation"), "cti_parallel", "cti_parallel")
    return out


def extra(case: Case, cells) -> list[Flag]:
    flags = []
    for row in case.rows("shutter"):
        t0, known = number(row.get("t0")), number(row.get("table"))
        if t0 is not None and known is not None and abs(t0 - known) > SHUTTER_OFF_S:
            cause = f"shutter offset {1e3 * t0:.1f} ms, the chamber's table says {1e3 * known:.1f} ms"
            flags.append(Flag("UNDERPERFORM", cause, {}, effect="note"))
        jitter = number(row.get("lamp_rms"))
        if jitter is not None and jitter > UNSTABLE:
            flags.append(
                Flag("UNDERPERFORM", f"the source scatters by {jitter:.2f} % from exposure to exposure", {})
            )
    return flags


FAMILY = FamilyRules(
    "nonlinearity",
    checks=(FLUENCE, FLUX),
    headline=headline,
    extra=extra,
    references=REFERENCES,
)
