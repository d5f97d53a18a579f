"""What the families of flat light share: expected fluence, saturation time, flux of the lamp."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from calcamp.quality.family import Case, Check
from calcamp.quality.limits import Limit, number

FDR = 65536.0  # ADU above offset


def saturation_time(case: Case, slot) -> float | None:
    """The chamber's saturation time of the flat source in a filter slot, s."""
    times = (case.judging.get("chamber_data") or {}).get("saturation_time") or {}
    return number(times.get(str(slot)))


def true_time(case: Case, commanded: float | None) -> float | None:
    """Exposure time by the chamber's shutter table, s; the commanded one without a table."""
    table = (case.judging.get("chamber_data") or {}).get("shutter")
    if commanded is None or not table or commanded <= 0:
        return commanded
    points = list(zip(table["commanded"], table["actual"], strict=True))
    # 0 stays 0, but the shutter is late as soon as it opens: below the first entry its delay holds.
    points = [p for p in points if p[0] > 0]
    if commanded <= points[0][0]:
        return commanded + points[0][1] - points[0][0]
    for (x0, y0), (x1, y1) in pairwise(points):
        if commanded <= x1:
            return y0 + (y1 - y0) * (commanded - x0) / (x1 - x0)
    return commanded + points[-1][1] - points[-1][0]


def exposure_of(case: Case, row: Mapping) -> tuple[float | None, object]:
    """(true exposure time, filter slot) of the exposure that a row belongs to."""
    log = case.logged.get(row.get("obsid")) or {}
    return true_time(case, number(log.get("exptime"))), log.get("wave")


def flat_fluence(case: Case, row: Mapping, limit: Limit) -> float | None:
    """Expected fluence: min(t/tF, 1) of the full range, ADU."""
    time, slot = exposure_of(case, row)
    full = saturation_time(case, slot)
    if time is None or not full or time <= 0:
        return None
    return min(time / full, 1.0) * FDR


def flat_saturation_time(case: Case, row: Mapping, limit: Limit) -> float | None:
    """The chamber's saturation time of the row's filter, s."""
    return saturation_time(case, row.get("wave"))


def flux_rows(case: Case, limit: Limit) -> list[dict]:
    """Saturation time per channel and filter: of the analysis, else from the levels of the raw frames.

    From levels: k of F = k t through the origin, t the true time, levels below 80 % of FDR.
    """
    rows = case.rows(limit.table)
    if rows:
        return rows
    sums: dict[tuple, list] = {}
    for row in case.used("frames"):
        time, slot = exposure_of(case, row)
        level = number(row.get("level_image"))
        if time is None or level is None or time <= 0 or not 0 < level < 0.8 * FDR:
            continue
        item = sums.setdefault((row["ccd"], row["quadrant"], slot), [0.0, 0.0, 0, []])
        # Relative errors are equal (lamp): every ratio level/time weighs the same.
        item[0] += level / time
        item[2] += 1
        item[3].append(row["obsid"])
    return [
        {"ccd": ccd, "quadrant": quadrant, "wave": slot, limit.value: FDR / (total / n), "n": n}
        for (ccd, quadrant, slot), (total, _, n, _) in sums.items()
        if total > 0
    ]


def fluence_rows(case: Case, limit: Limit) -> list[dict]:
    """Mean level of the quadrants of each CCD and frame: the limit is for the CCD."""
    groups: dict[tuple, list[dict]] = {}
    for row in case.rows(limit.table):
        if number(row.get(limit.value)) is not None:
            groups.setdefault((row["obsid"], row["ccd"]), []).append(row)
    return [
        {**rows[0], "quadrant": None, limit.value: sum(row[limit.value] for row in rows) / len(rows)}
        for rows in groups.values()
    ]


REFERENCES = {"flat_fluence": flat_fluence, "flat_saturation_time": flat_saturation_time}
FLUX = Check("flux", rows=flux_rows)
FLUENCE = Check("fluence", rows=fluence_rows)
