"""Judging MOT_WARM: GO or NO-GO for pumping down, the cause first."""

from __future__ import annotations

from calcamp.detector.geometry import half_of
from calcamp.quality.compliance import Cell
from calcamp.quality.family import Case, Check, FamilyRules, channels, entry, from_table
from calcamp.quality.flags import Flag
from calcamp.quality.limits import Limit, number

#: What each frame proves: role -> (checks of it, in words).
PROVES = {
    "BIAS_RVS": (("read_noise",), "read noise"),
    "BIAS_RV": (("offset", "offset_gradient"), "offsets"),
    "RAMP": (("ramp_slope", "ramp_uniformity"), "dark-current ramp"),
    "CHINJ": (("injection_significance",), "charge injection"),
    "FLAT": (("flat_signal",), "flat light"),
    "PNT": (("spots_found",), "spots"),
}


def ramp_rows(case: Case, limit: Limit) -> list[dict]:
    """Slopes over the median of the live quadrants."""
    rows = case.rows("go")
    slopes = sorted(v for v in (number(r.get("ramp_slope")) for r in rows) if v is not None and v > 0)
    middle = slopes[len(slopes) // 2] if slopes else None
    out = []
    for row in rows:
        slope = number(row.get("ramp_slope"))
        ratio = slope / middle if slope is not None and middle else None
        out.append({**row, limit.value: ratio})
    return out


def injected_rows(case: Case, limit: Limit) -> list[dict]:
    """Quadrants in the half that is commanded to take charge."""
    return [row for row in case.rows("go") if row.get("injection_wanted") in (True, 1, "True")]


def headline(case: Case) -> list[dict]:
    """Offsets, read noise, ramp, injection, flat, spots."""
    out = []
    for quantity, role, region in (("offset", "BIAS_RV", "pre"), ("read_noise", "BIAS_RVS", "img")):
        column = {"offset": "offset", "read_noise": "noise"}[quantity]
        obsids = {r["obsid"] for r in case.rows("roles") if r.get("role") == role}
        rows = [
            {**r, quantity: r.get(column), f"{quantity}_err": r.get(f"{column}_err")}
            for r in case.rows("offsets")
            if r.get("obsid") in obsids and r.get("region") == region
        ]
        out += from_table(rows, quantity, quantity, region=region)
    table = case.rows("go")
    out += from_table(table, "ramp_slope", "ramp_slope")
    wanted = {(r["ccd"], r["quadrant"]) for r in injected_rows(case, None)}
    out += [
        item
        for item in from_table(table, "injection_significance", "injection_significance")
        if not wanted or (item["ccd"], item["quadrant"]) in wanted
    ]
    for ccd, quadrant in channels():
        rows = [r for r in case.rows("spots") if (r["ccd"], r["quadrant"]) == (ccd, quadrant)]
        for row in rows or [{}]:
            keys = {"wavelength": row["wavelength"]} if row else {}
            out.append(entry("spots_found", row.get("found"), None, 1, ccd=ccd, quadrant=quadrant, **keys))
    return out


def extra(case: Case, cells: list[Cell]) -> list[Flag]:
    """What is not proved is NO-GO; no light at all is named as such."""
    return [*_not_proved(case, cells), *_no_light(case, cells)]


def _not_proved(case: Case, cells: list[Cell]) -> list[Flag]:
    """REQNOTMET for everything that a frame should prove and that was not measured: no GO without proof."""
    flags = []
    missing = _missing_roles(case)
    for role, count in missing.items():
        words = PROVES[role][1]
        cause = f"{words} not proved: no {role} frame" + (f" ({count} missing)" if count > 1 else "")
        flags.append(Flag("REQNOTMET", cause, {}, ("MISSDATA",), effect="fail"))
    for role, (checks, words) in PROVES.items():
        unknown = [c for c in cells if c.check in checks and c.ok is None and _wanted(case, c)]
        if role in missing or not unknown:
            continue
        for ccd, quadrant in sorted({(c.keys.get("ccd"), c.keys.get("quadrant")) for c in unknown}):
            scope = {k: v for k, v in (("ccd", ccd), ("quadrant", quadrant)) if v is not None}
            flags.append(Flag("REQNOTMET", f"{words} not proved: not measured", scope, effect="fail"))
    return flags


def _missing_roles(case: Case) -> dict[str, int]:
    """Frames of the declared test that were not taken, by role."""
    declared = (case.judging.get("structure") or {}).get("columns") or []
    wanted: dict[str, int] = {}
    for column in declared:
        what = _role(column.get("keys") or {})
        wanted[what] = wanted.get(what, 0) + int(column.get("frames") or 1)
    for exposure in case.exposures:
        what = _role(exposure.get("log_row") or {})
        wanted[what] = wanted.get(what, 0) - 1
    return {what: n for what, n in wanted.items() if what in PROVES and n > 0}


def _role(keys) -> str:
    mode = str(keys.get("rdmode") or "fwd_bas")
    if mode.startswith("rwd"):
        return "BIAS_RVS" if mode.endswith("vs") else "BIAS_RV"
    if number(keys.get("chinj")):
        return "CHINJ"
    if number(keys.get("shuttr", 1)) and number(keys.get("exptime")):
        return "PNT" if str(keys.get("source") or "flat") == "point" else "FLAT"
    return "RAMP"


def _wanted(case: Case, cell: Cell) -> bool:
    """The half that takes no charge is not asked for injection."""
    if cell.check != "injection_significance" or not cell.keys.get("quadrant"):
        return True
    wanted = {half_of(r["quadrant"]) for r in injected_rows(case, None)}
    return not wanted or half_of(cell.keys["quadrant"]) in wanted


def _no_light(case: Case, cells: list[Cell]) -> list[Flag]:
    """SOURCEOFF once where a whole CCD, or the block, sees no flat or no spots; quadrants are its consequences."""
    flags = []
    for check, role, words in (
        ("flat_signal", "FLAT", "no flat light"),
        ("spots_found", "PNT", "no spots"),
    ):
        bad = {
            (c.keys.get("ccd"), c.keys.get("quadrant")) for c in cells if c.check == check and c.ok is False
        }
        obsids = sorted({r["obsid"] for r in case.rows("roles") if r.get("role") == role})
        if len(bad) == 12:
            flags.append(
                Flag("SOURCEOFF", f"{words} on any CCD: lamp, filter or shutter", {"obsids": obsids})
            )
            continue
        for ccd in (1, 2, 3):
            if len([key for key in bad if key[0] == ccd]) == 4:
                flags.append(Flag("SOURCEOFF", f"{words} on this CCD", {"ccd": ccd, "obsids": obsids}))
    return flags


FAMILY = FamilyRules(
    "warm",
    checks=(
        Check("ramp_uniformity", rows=ramp_rows),
        Check("injection_significance", rows=injected_rows, flags=("FLUENCE_OOL",)),
    ),
    headline=headline,
    extra=extra,
)
