"""Judging CHINJ01 and CHINJ02: levels against the prediction, thresholds, notch, uniformity."""

from __future__ import annotations

from calcamp.quality.compliance import Cell
from calcamp.quality.family import Case, Check, FamilyRules, channels, entry
from calcamp.quality.flags import Flag
from calcamp.quality.limits import Limit, number

_FORMULA = {
    "base": 600,
    "slope": 6000,
    "drain_margin": 7.5,
    "min_id_wid": 10,
    "transition": 0.3,
    "window_half_EF": (2, 3),
    "window_half_GH": (1, 2),
}


def prediction(case: Case, row, limit: Limit) -> float | None:
    """Predicted level of the injected lines, ADU; 0 where none is expected, None where nothing is predicted.

    The rule is that of the limits file: half by delay, threshold by drain and gate, a straight line in IG1.
    """
    parameters = {**_FORMULA, **(case.limit("injection") or limit).parameters, **limit.parameters}
    log = case.logged.get(row.get("obsid"), {})
    ig1, ig2, idl = (number(row.get(key)) for key in ("ig1", "ig2", "idl"))
    if not int(number(log.get("chinj")) or 0) or (number(log.get("id_wid")) or 0) < parameters["min_id_wid"]:
        return 0.0
    if None in (ig1, ig2, idl):
        return None
    beyond = idl - ig1 - parameters["drain_margin"]
    if abs(beyond) < parameters["transition"]:
        return None
    if beyond > 0:
        return 0.0
    half = row.get("half")
    low, high = parameters[f"window_{half}"] if half else (0, 0)
    ratio = number(row.get("delay_ratio"))
    if ratio is None or not low <= ratio <= high:
        return None
    return parameters["base"] + parameters["slope"] * max(0.0, ig2 - ig1)


CHECKS = (Check("injection"), Check("injection_gradient"))
REFERENCES = {"injection_prediction": prediction}


def in_electrons(case: Case, row, name: str) -> tuple[float | None, float | None, bool]:
    """(value, error, whether the gain is nominal) of a level of a row in ADU."""
    gain, gain_err, nominal = case.gain(row.get("ccd"), row.get("quadrant"))
    value, err = number(row.get(name)), number(row.get(f"{name}_err"))
    if value is None or gain is None:
        return None, None, nominal
    total = None if err is None else ((err * gain) ** 2 + (value * (gain_err or 0.0)) ** 2) ** 0.5
    return value * gain, total, nominal


def by_channel(rows: list[dict]) -> dict[tuple, dict]:
    return {(row.get("ccd"), row.get("quadrant")): row for row in rows}


def headline(case: Case) -> list[dict]:
    """Level at the nominal setting, threshold, notch, uniformity of every quadrant."""
    level, fits = by_channel(case.rows("uniformity")), by_channel(case.rows("injection_fit"))
    kind = "IG1" if str(case.judging.get("test", "")).startswith("CHINJ01") else "IDL"
    out = []
    for ccd, quadrant in channels():
        key = {"ccd": ccd, "quadrant": quadrant}
        row, fit = level.get((ccd, quadrant), {}), fits.get((ccd, quadrant), {})
        value, err, nominal = in_electrons(case, row | key, "level")
        out.append({**entry("injection_level", value, err, row.get("n"), **key), "gain_nominal": nominal})
        out.append(
            entry(
                "injection_threshold",
                fit.get("threshold"),
                fit.get("threshold_err"),
                fit.get("n"),
                **key,
                kind=kind,
            )
        )
        if kind == "IG1":
            value, err, nominal = in_electrons(case, fit | key, "notch")
            out.append({**entry("notch", value, err, fit.get("n"), **key), "gain_nominal": nominal})
        out.append(
            entry(
                "injection_nonuniformity",
                row.get("nonuniformity"),
                row.get("nonuniformity_err"),
                row.get("n"),
                **key,
            )
        )
    return out


def misplaced(case: Case, cells: list[Cell]) -> list[Flag]:
    """The injected lines stand elsewhere than commanded."""
    found: dict[tuple, set] = {}
    for row in case.rows("injection"):
        if not row.get("pattern_found"):
            continue
        log = case.logged.get(row.get("obsid"), {})
        on, off = (number(log.get(key)) for key in ("chinj_on", "chinj_of"))
        if off and (row.get("phase") != 0 or row.get("lines_on") != on):
            found.setdefault((row["ccd"], row["quadrant"]), set()).add(
                (row.get("phase"), row.get("lines_on"))
            )
    return [
        Flag(
            "UNDERPERFORM",
            "injected lines not where commanded: "
            + ", ".join(f"first line {phase}, {on} lines" for phase, on in sorted(places)),
            {"ccd": ccd, "quadrant": quadrant},
        )
        for (ccd, quadrant), places in found.items()
    ]


FAMILY = FamilyRules(
    "injection",
    checks=CHECKS,
    headline=headline,
    extra=misplaced,
    products=(("extract", "injection_profiles"),),
    references=REFERENCES,
)
