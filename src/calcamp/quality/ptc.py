"""Judging PTC01 and PTC02: gain, full well, brighter-fatter coefficients, hard-edge response."""

from __future__ import annotations

from calcamp.quality.compliance import Cell
from calcamp.quality.family import Case, Check, FamilyRules, channels, entry, from_table
from calcamp.quality.flags import Flag
from calcamp.quality.limits import Limit, number
from calcamp.quality.lit import FLUENCE, FLUX, REFERENCES

#: Disagreement of two estimates that is worth a flag, in standard errors.
SIGMA = 5.0


def serial_edge(case: Case, limit: Limit) -> list[dict]:
    """The limit is for the serial edge."""
    return [row for row in case.rows("her") if row.get("edge") == "serial"]


def headline(case: Case) -> list[dict]:
    """Gain, full well, noise of the fit, coefficients a, hard-edge response."""
    table = case.rows("ptc")
    out = from_table(table, "gain", "gain")
    rows = {(row.get("ccd"), row.get("quadrant")): row for row in table}
    for ccd, quadrant in channels():
        row = rows.get((ccd, quadrant), {})
        is_limit = bool(row.get("turn_off_is_limit"))
        err = None if is_limit else row.get("full_well_err")
        item = entry("full_well", row.get("full_well"), err, row.get("n"), ccd=ccd, quadrant=quadrant)
        out.append({**item, "is_limit": is_limit})
    for item in from_table(table, "ptc_read_noise", "read_noise"):
        row = rows.get((item["ccd"], item["quadrant"]), {})
        out.append({**item, "is_limit": bool(row.get("read_noise_is_limit"))})
    for name in ("a00", "a01", "a10"):
        out += from_table(table, f"bf_{name}", name)
    for ccd, quadrant in channels():
        row = rows.get((ccd, quadrant), {})
        item = entry(
            "bloom_level", row.get("bloom_level_vison"), None, row.get("n"), ccd=ccd, quadrant=quadrant
        )
        out.append({**item, "is_limit": bool(row.get("bloom_is_limit"))})
    for edge in ("serial", "parallel"):
        out += from_table(case.rows("her"), "her", "her", edge=edge)
    return out


def consistency(case: Case) -> list[Flag]:
    """Checks of the curve with itself (analysis of flats, 3.4.8); notes, because the data may have causes of their own."""
    flags = []
    for row in case.rows("ptc"):
        scope = {"ccd": row.get("ccd"), "quadrant": row.get("quadrant")}

        def differ(a, b, scale=1.0, row=row):
            x, y = number(row.get(a)), number(row.get(b))
            ex, ey = number(row.get(f"{a}_err")), number(row.get(f"{b}_err"))
            if None in (x, y, ex, ey):
                return None
            return (x - y) / max((ex**2 + ey**2) ** 0.5, 1e-12) if abs(x - y) > scale * abs(y) else 0.0

        pull = differ("read_noise", "overscan_noise", 0.1)
        if pull is not None and abs(pull) > SIGMA:
            cause = f"noise of the curve {row['read_noise']:.3f} ADU, of the scans {row['overscan_noise']:.3f} ADU"
            flags.append(Flag("UNDERPERFORM", cause, scope, effect="note"))
        total, err = number(row.get("sum_a")), number(row.get("sum_a_err"))
        if total is not None and err and abs(total) > SIGMA * err:
            cause = f"sum of a {total:.2g} +- {err:.2g} 1/e-: charge is not conserved, or the response is not linear"
            flags.append(Flag("UNDERPERFORM", cause, scope, effect="note"))
        chi2 = number(row.get("chi2_variance"))
        if chi2 is not None and chi2 > 3:
            cause = f"chi2 per degree of freedom of the variances {chi2:.1f}: the model does not describe the curve"
            flags.append(Flag("BADFIT", cause, scope, effect="note"))
    return flags


def extra(case: Case, cells: list[Cell]) -> list[Flag]:
    return consistency(case)


FAMILY = FamilyRules(
    "ptc",
    checks=(FLUENCE, FLUX, Check("her", rows=serial_edge)),
    headline=headline,
    extra=extra,
    references=REFERENCES,
)
