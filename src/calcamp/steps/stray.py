"""STRAY00: rate of light in each state of the chamber (basic)."""

from __future__ import annotations

import math
import sys

from calcamp.detector.geometry import QUADRANTS
from calcamp.steps import runner


def basic(ctx: runner.Context) -> None:
    """Long less short exposure of each configuration, whole quadrants and tiles; what differences say."""
    from calcamp.campaign.stray import CONFIGURATIONS

    by_column = {e.column: e for e in ctx.exposures}
    zeros = [e for e in ctx.exposures if float(e.values.get("exptime") or 0) == 0]
    rows, tiles = [], []
    reference = _mean(ctx, zeros)
    for number, configuration in enumerate(CONFIGURATIONS, 1):
        found = _configuration(ctx, configuration, by_column, reference)
        for quadrant in QUADRANTS:
            row, grid = _row(ctx, configuration, found, quadrant)
            rows.append(row)
            tiles += grid
        ctx.progress(number, len(CONFIGURATIONS))
    ctx.current = None
    _write(ctx, rows, tiles)


def _prepared(ctx, exposure):
    from calcamp.data.raw import RawError

    if exposure is None or all((exposure.obsid, q) in ctx.selection() for q in QUADRANTS):
        return None
    try:
        return ctx.prepared(exposure)
    except RawError as error:
        ctx.exclude(exposure.obsid, f"{error.kind}: {error}")
        return None


def _mean(ctx, exposures) -> dict:
    """Mean image area of the frames of exposure time 0, by quadrant."""
    total: dict = {}
    number: dict[str, int] = {}
    for exposure in exposures:
        made = _prepared(ctx, exposure)
        if made is None:
            continue
        for quadrant in QUADRANTS:
            if (exposure.obsid, quadrant) not in ctx.selection():
                area = made.image(quadrant)
                total[quadrant] = area.copy() if quadrant not in total else total[quadrant] + area
                number[quadrant] = number.get(quadrant, 0) + 1
    return {q: area / number[q] for q, area in total.items()}


def _configuration(ctx, configuration, by_column, reference):
    """(long frame, its exposure, short image areas, difference of times, cause when there is none)."""
    long = by_column.get(configuration.long)
    short = by_column.get(configuration.short) if configuration.short else None
    if long is None or (configuration.short and short is None):
        return None, long, {}, math.nan, "frame missing"
    made = _prepared(ctx, long)
    if made is None:
        return None, long, {}, math.nan, "frame left out"
    time = float(long.values.get("exptime") or 0)
    if short is None:
        return made, long, reference, time, "" if reference else "no frame of exposure time 0"
    before = _prepared(ctx, short)
    if before is None:
        return None, long, {}, math.nan, "frame left out"
    areas = {q: before.image(q) for q in QUADRANTS if (short.obsid, q) not in ctx.selection()}
    return made, long, areas, time - float(short.values.get("exptime") or 0), ""


def _row(ctx, configuration, found, quadrant):
    from calcamp.analysis.stray import measure
    from calcamp.detector.dq import BADMASK

    made, exposure, short, seconds, cause = found
    gain = ctx.gains()[quadrant][0]
    row = {
        "obsid": exposure.obsid if exposure is not None else -1,
        "ccd": ctx.ccd,
        "quadrant": quadrant,
        "configuration": configuration.name,
        "text": configuration.text,
        "judged": configuration.dark,
        "seconds": seconds,
        **dict.fromkeys(("rate_adu_s", "rate_adu_s_err", "rate_e_s", "rate_e_s_err"), math.nan),
        "n": 0,
        "flag": cause,
    }
    usable = made is not None and quadrant in short and (exposure.obsid, quadrant) not in ctx.selection()
    if not usable:
        return row | {"flag": cause or "left out"}, []
    bad = made.image_mask(quadrant, int(BADMASK))
    light = measure(made.image(quadrant) - short[quadrant], seconds, ctx.detector.tiles, bad)
    row |= {
        "rate_adu_s": light.rate,
        "rate_adu_s_err": light.err,
        "rate_e_s": light.rate * gain,
        "rate_e_s_err": light.err * gain,
        "n": light.n,
    }
    grid = [
        {
            "ccd": ctx.ccd,
            "quadrant": quadrant,
            "configuration": configuration.name,
            "tile_row": i,
            "tile_column": j,
            "rate_adu_s": float(light.tiles[i, j]),
            "rate_adu_s_err": float(light.tiles_err[i, j]),
        }
        for i in range(light.tiles.shape[0])
        for j in range(light.tiles.shape[1])
    ]
    return row, grid


def _table(rows: list[dict], names: str) -> dict[str, list]:
    return {name: [row[name] for row in rows] for name in names.split()}


def _write(ctx: runner.Context, rows, tiles) -> None:
    from calcamp.campaign.stray import ATTRIBUTION

    values = "rate_adu_s rate_adu_s_err rate_e_s rate_e_s_err n flag"
    units = {"rate_adu_s": "ADU/s", "rate_adu_s_err": "ADU/s", "rate_e_s": "e-/s", "rate_e_s_err": "e-/s"}
    ctx.write_table(
        "stray",
        _table(rows, f"obsid ccd quadrant configuration text judged seconds {values}"),
        units={**units, "seconds": "s", "n": "px"},
        descriptions={
            "configuration": "state of the chamber, by column of the test",
            "seconds": "difference of the exposure times, long less short (or less frames of 0 s)",
            "judged": "no light is wanted",
        },
    )
    ctx.write_table(
        "stray_tiles",
        _table(tiles, "ccd quadrant configuration tile_row tile_column rate_adu_s rate_adu_s_err"),
        units={key: unit for key, unit in units.items() if "adu" in key},
    )
    of = {(r["configuration"], r["quadrant"]): r for r in rows}
    differences = []
    for source, with_, without in ATTRIBUTION:
        for quadrant in QUADRANTS:
            a, b = of[with_, quadrant], of[without, quadrant]
            rate = a["rate_adu_s"] - b["rate_adu_s"]
            err = math.hypot(a["rate_adu_s_err"], b["rate_adu_s_err"])
            differences.append(
                {
                    "ccd": ctx.ccd,
                    "quadrant": quadrant,
                    "source": source,
                    "with": with_,
                    "without": without,
                    "rate_adu_s": rate,
                    "rate_adu_s_err": err,
                    "significance": rate / err if err > 0 else math.nan,
                }
            )
    ctx.write_table(
        "stray_sources",
        _table(differences, "ccd quadrant source with without rate_adu_s rate_adu_s_err significance"),
        units={key: unit for key, unit in units.items() if "adu" in key},
        descriptions={"source": "what the difference of two configurations is due to"},
    )


if __name__ == "__main__":
    sys.exit(runner.run("stray", {"basic": basic}))
