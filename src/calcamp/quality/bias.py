"""Judging BIAS01 and BIAS02: offsets and their structure, read noise and its parts, master bias."""

from __future__ import annotations

from calcamp.quality.compliance import Cell
from calcamp.quality.family import Case, Check, FamilyRules, channels, entry, from_table, mean_of
from calcamp.quality.flags import Flag
from calcamp.quality.limits import number

REGIONS = ("pre", "img", "ove", "pov")
#: Parts of the noise of the image area: quantity -> column of table read_noise.
PARTS = {
    "noise_white": "white",
    "noise_row": "row_noise",
    "noise_column": "column_pattern",
    "noise_drift": "drift",
    "noise_total": "total",
}


def _result_rows(case: Case, limit) -> list[dict]:
    return best_method(case.rows("read_noise"))


def best_method(rows: list[dict]) -> list[dict]:
    """One row per channel and region: from pairs of frames where there is one."""
    best: dict[tuple, dict] = {}
    for row in rows:
        key = (row.get("ccd"), row.get("quadrant"), row.get("region"))
        known = best.get(key)
        better = row.get("method") == "pairs" and number(row.get("read_noise")) is not None
        if known is None or better or number(known.get("read_noise")) is None:
            best[key] = row
    return list(best.values())


def headline(case: Case) -> list[dict]:
    """Offsets, read noise and its parts, fixed pattern of the master."""
    out = []
    frames: dict[tuple, list[dict]] = {}
    for row in case.used("offsets"):
        frames.setdefault((row["ccd"], row["quadrant"], row["region"]), []).append(row)
    for region in REGIONS[:3]:
        for ccd, quadrant in channels():
            rows = frames.get((ccd, quadrant, region), [])
            value, err, n = mean_of((r.get("offset") for r in rows), (r.get("offset_err") for r in rows))
            out.append(entry("offset", value, err, n, ccd=ccd, quadrant=quadrant, region=region))
    noise = best_method(case.rows("read_noise"))
    present = {row.get("region") for row in noise}
    for region in ("img", *(r for r in REGIONS if r in present and r != "img")):
        out += from_table(noise, "read_noise", "read_noise", ("method",), region=region)
    out += electrons(case, [e for e in out if e["quantity"] == "read_noise" and e["region"] == "img"])
    for quantity, column in PARTS.items():
        out += from_table(noise, quantity, column, region="img")
    out += from_table(case.rows("master_bias"), "fixed_pattern", "fixed_pattern")
    return out


def electrons(case: Case, entries: list[dict]) -> list[dict]:
    """Read noise in electrons, with the block's gain; ``gain_nominal`` says that it has none yet."""
    out = []
    for item in entries:
        gain, gain_err, nominal = case.gain(item["ccd"], item["quadrant"])
        value, err = item["value"], item["err"]
        if value is None or gain is None:
            total, total_err = None, None
        else:
            total = value * gain
            total_err = None if err is None else ((err * gain) ** 2 + (value * (gain_err or 0.0)) ** 2) ** 0.5
        keys = {k: item[k] for k in ("ccd", "quadrant", "region", "method") if k in item}
        out.append({**entry("read_noise_e", total, total_err, item["n"], **keys), "gain_nominal": nominal})
    return out


def extra(case: Case, cells: list[Cell]) -> list[Flag]:
    """SOURCEON: the image area of a bias stands above the prescan while the overscan does not."""
    gradient = {
        (c.keys.get("ccd"), c.keys.get("quadrant"), c.keys.get("region")): c
        for c in cells
        if c.check == "offset_gradient"
    }
    flags = []
    for (ccd, quadrant, region), cell in gradient.items():
        over = gradient.get((ccd, quadrant, "ove"))
        lit = region == "img" and cell.ok is False and cell.high is not None and cell.value > cell.high
        if lit and (over is None or over.ok is not False):
            cause = f"image area {cell.value:.4g} ADU above the prescan in a frame of exposure time 0: light, or a warm CCD"
            flags.append(Flag("SOURCEON", cause, {"ccd": ccd, "quadrant": quadrant, "obsids": cell.obsids}))
    return flags


FAMILY = FamilyRules(
    "bias",
    checks=(
        Check(
            "read_noise",
            name="read_noise_result",
            value="read_noise",
            by=("ccd", "quadrant", "region"),
            flags=("UNDERPERFORM",),
            rows=_result_rows,
        ),
    ),
    headline=headline,
    extra=extra,
    products=(("meta", "bias"),),
)
