"""Judging FLAT01, FLAT02, FLAT_STB and FLATFLUX00: response, lamp, brightness of the source."""

from __future__ import annotations

from calcamp.quality.family import Case, FamilyRules, channels, entry, from_table
from calcamp.quality.flags import Flag
from calcamp.quality.limits import number
from calcamp.quality.lit import FLUENCE, FLUX, REFERENCES

#: Difference between measured and tabled t0 that is worth a note, s (analysis of flats, 11: SHUTTER_OFF).
SHUTTER_OFF_S = 3e-3


def headline(case: Case) -> list[dict]:
    """PRNU per level, lamp; saturation time and shutter offset of FLATFLUX00."""
    if case.judging.get("test", "").startswith("FLATFLUX00"):
        nm = case.judging.get("wavelength")
        out = from_table(case.rows("flux"), "saturation_time", "saturation_time")
        out = [{**item, "wavelength": nm, "source": "flat"} for item in out]
        for row in case.rows("shutter") or [{}]:
            out.append(entry("shutter_offset", row.get("t0"), row.get("t0_err"), row.get("n")))
        return out
    rows = case.rows("prnu")
    out = []
    for column in sorted({row.get("column") for row in rows}) or [1]:
        own = {(r.get("ccd"), r.get("quadrant")): r for r in rows if r.get("column") == column}
        for ccd, quadrant in channels():
            row = own.get((ccd, quadrant), {})
            out.append(
                entry(
                    "prnu", row.get("prnu"), row.get("prnu_err"), row.get("n"), ccd=ccd, quadrant=quadrant,
                    column=column, wavelength=case.judging.get("wavelength"),
                )
            )  # fmt: skip
    lamp = case.rows("lamp")
    for column in sorted({row.get("column") for row in lamp}):
        own = [r for r in lamp if r.get("column") == column]
        common = next(
            (number(r.get("rms_common")) for r in own if number(r.get("rms_common")) is not None), None
        )
        out.append(entry("lamp_rms", common, None, own[0].get("n"), column=column))
        drifts = [number(r.get("drift")) for r in own if number(r.get("drift")) is not None]
        errors = [number(r.get("drift_err")) for r in own if number(r.get("drift_err")) is not None]
        # The lamp is common to the channels: their errors are one error.
        mean = sum(drifts) / len(drifts) if drifts else None
        out.append(
            entry(
                "lamp_drift",
                mean,
                sum(errors) / len(errors) if errors else None,
                own[0].get("n"),
                column=column,
            )
        )
    return out


def extra(case: Case, cells) -> list[Flag]:
    flags = []
    for row in case.rows("shutter"):
        t0, known = number(row.get("t0")), number(row.get("table"))
        if t0 is not None and known is not None and abs(t0 - known) > SHUTTER_OFF_S:
            cause = f"shutter offset {1e3 * t0:.1f} ms, the chamber's table says {1e3 * known:.1f} ms"
            flags.append(Flag("UNDERPERFORM", cause, {}, effect="note"))
    for row in case.rows("lamp"):
        common = number(row.get("rms_common"))
        if common is not None and common > 1.0:
            cause = f"the source scatters by {common:.2f} % rms in column {row.get('column')}"
            flags.append(Flag("UNDERPERFORM", cause, {"column": row.get("column")}, effect="note"))
    return flags


FAMILY = FamilyRules(
    "flat",
    checks=(FLUENCE, FLUX),
    headline=headline,
    extra=extra,
    products=(("masterflat", "flat"), ("prmask", "flat_mask")),
    references=REFERENCES,
)
