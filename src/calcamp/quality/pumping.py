"""Judging TP01, TP11, TP02, TP21: injected background against prediction, trap counts, densities, species."""

from __future__ import annotations

from calcamp.quality.compliance import Cell
from calcamp.quality.family import Case, FamilyRules, channels, entry
from calcamp.quality.flags import Flag
from calcamp.quality.injection import CHECKS, REFERENCES, in_electrons
from calcamp.quality.limits import number


def headline(case: Case) -> list[dict]:
    """Injected level, number and density of traps, emission times and probabilities of the species."""
    levels: dict[tuple, list[dict]] = {}
    for row in case.used("injection"):
        if row.get("use") in (True, 1):
            levels.setdefault((row["ccd"], row["quadrant"]), []).append(row)
    species: dict[tuple, list[dict]] = {}
    for row in case.rows("species"):
        species.setdefault((row["ccd"], row["quadrant"]), []).append(row)
    out = []
    for ccd, quadrant in channels():
        key = {"ccd": ccd, "quadrant": quadrant}
        out.append(_level(case, levels.get((ccd, quadrant), []), key))
        rows = species.get((ccd, quadrant), [{"species": 0}])
        for row in rows:
            more = {**key, "register": row.get("register"), "species": row.get("species")}
            n = row.get("n")
            # Counting: the error of a number is its root.
            out.append(entry("trap_count", n, None if n is None else max(n, 1) ** 0.5, n, **more))
            out.append(entry("trap_density", row.get("density"), row.get("density_err"), n, **more))
            if row.get("species"):
                # The exact temperature is in table species; here it only tells campaigns apart.
                kelvin = number(row.get("temperature_K"))
                warm = {**more, "temperature_K": None if kelvin is None else round(kelvin)}
                limit = row.get("is_limit") in (True, 1)
                item = entry("trap_tau", row.get("tau"), None if limit else row.get("tau_err"), n, **warm)
                out.append({**item, "is_limit": limit})
                out.append(entry("trap_pc", row.get("pc"), row.get("pc_err"), n, **more))
    return out


def _level(case: Case, rows: list[dict], key: dict) -> dict:
    values = sorted((r for r in rows if number(r.get("level")) is not None), key=lambda r: r["level"])
    if not values:
        return entry("injection_level", None, **key)
    value, err, nominal = in_electrons(case, values[len(values) // 2], "level")
    return {**entry("injection_level", value, err, len(values), **key), "gain_nominal": nominal}


def extra(case: Case, cells: list[Cell]) -> list[Flag]:
    """BADFIT where many of the dipoles follow no trap."""
    status: dict[tuple, list[str]] = {}
    for row in case.rows("traps"):
        status.setdefault((row["ccd"], row["quadrant"]), []).append(str(row.get("status")))
    flags = []
    for (ccd, quadrant), own in status.items():
        poor = own.count("poor")
        if len(own) >= 20 and poor > 0.3 * len(own):
            cause = f"{poor} of {len(own)} dipoles do not follow the pumping equation"
            flags.append(Flag("BADFIT", cause, {"ccd": ccd, "quadrant": quadrant}))
    return flags


FAMILY = FamilyRules("pumping", checks=CHECKS, headline=headline, extra=extra, references=REFERENCES)
