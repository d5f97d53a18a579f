"""NL01, NL02: signals of exposures (extract), joint fit (NL), charge transfer near the full well (satCTE)."""

from __future__ import annotations

import math
import sys

from calcamp.detector.geometry import CCDS, QUADRANTS
from calcamp.steps import runner
from calcamp.steps.flat import shutter_prior
from calcamp.steps.lit import errs, seconds, stream, table

STAB, BACKGROUND = 0, -1  # levels that are not a column of their own
TILES = "tiles.npz"


def kind_of(exposure: runner.Exposure) -> str:
    """``background``, ``stability`` or ``level``, from the script's comment (the exposure time may be a level's)."""
    comment = str(exposure.values.get("comments") or "").strip().upper()
    if comment.startswith("BGD") or not float(exposure.values.get("exptime") or 0) > 0:
        return "background"
    return "stability" if comment.startswith("STAB") else "level"


# ---- extract ------------------------------------------------------------------------------------------
def extract(ctx: runner.Context) -> None:
    """One pass: mean signal of every exposure, variance of like neighbours, profiles behind the last row."""
    rows, pairs, edges, last = [], [], [], None
    tiles: dict[str, list] = {quadrant: [] for quadrant in QUADRANTS}
    for lit in stream(ctx):
        kept = {}
        for quadrant in QUADRANTS:
            if (lit.exposure.obsid, quadrant) in ctx.selection():
                continue
            row, image, bad, mean = _signal(ctx, lit, quadrant)
            rows.append(row)
            tiles[quadrant].append((lit.exposure.obsid, mean))
            if kind_of(lit.exposure) != "level":
                continue
            kept[quadrant] = (image, bad)
            edge = _edge(ctx, lit, quadrant, bad)
            if edge is not None:
                edges.append((lit.exposure, quadrant, edge))
            if last is not None and last[0] == lit.exposure.column and quadrant in last[1]:
                pairs.append(_variance(ctx, lit, quadrant, last, image, bad))
        used = last is not None and last[0] == lit.exposure.column
        last = None if used or not kept else (lit.exposure.column, kept, lit.exposure.obsid)
    ctx.write_table(
        "nl_frames",
        table(
            rows,
            "obsid column frame ccd quadrant kind time exptime wave signal signal_err spread saturated_fraction n flag",
        ),
        units={"time": "s", "exptime": "s", **errs("signal", "ADU")},
        descriptions={
            "kind": "background (time 0), stability or level",
            "time": "since the first exposure of the test",
            "signal": "mean of the image area above the prescan, bad pixels left out",
            "signal_err": "photon noise and offset, without lamp and shutter",
            "spread": "relative rms of the tiles: illumination",
        },
    )
    ctx.write_table(
        "nl_variance",
        table(pairs, "column obsid obsid2 ccd quadrant mu variance variance_err n flag"),
        units={"mu": "ADU", **errs("variance", "ADU2")},
    )
    _write_edges(ctx, edges)
    _save_tiles(ctx, tiles)


def _save_tiles(ctx: runner.Context, tiles: dict[str, list]) -> None:
    """Means of the tiles of every exposure as a plain array file: what the joint fit is checked with."""
    import numpy as np

    arrays = {}
    for quadrant, items in tiles.items():
        arrays[f"{quadrant}_obsid"] = np.array([obsid for obsid, _ in items], np.int64)
        arrays[f"{quadrant}_mean"] = np.array([mean.reshape(-1) for _, mean in items], np.float64)
    with (ctx.into / TILES).open("wb") as out:
        np.savez(out, **arrays)


def _signal(ctx, lit, quadrant):
    import numpy as np

    from calcamp.analysis.tiles import area_mean, tile_means

    image, (bad, saturated) = lit.image(quadrant), lit.masks(quadrant)
    edges = ctx.detector.tile_edges()
    mean, _, n = tile_means(image, edges, bad)
    good = n > 0
    pixels, signal = float(n[good].sum()), area_mean(mean, n, edges)
    share = 0.0 if saturated is None else float(saturated.mean())
    e = lit.exposure
    offset = (
        lit.prepared.offsets[quadrant].level_err
        if hasattr(lit.prepared.offsets[quadrant], "level_err")
        else 0.01
    )
    flag = "no pixels" if signal != signal else f"{100 * share:.2g} % saturated" if share > 1e-3 else ""
    err = math.sqrt(
        max(signal, 1.0) / ctx.detector.nominal_gain / max(pixels, 1)
        + (offset if offset == offset else 0.01) ** 2
    )
    row = {
        "obsid": e.obsid,
        "column": e.column,
        "frame": e.frame,
        "ccd": ctx.ccd,
        "quadrant": quadrant,
        "kind": kind_of(e),
        "time": seconds(e) - seconds(ctx.exposures[0]),
        "exptime": float(e.values.get("exptime") or 0),
        "wave": int(e.values.get("wave") or 0),
        "signal": signal,
        "signal_err": err if pixels else math.nan,
        "spread": float(np.std(mean[good]) / signal) if pixels and signal > 100 else 0.0,
        "saturated_fraction": share,
        "n": int(pixels),
        "flag": flag,
    }
    return row, image, bad, mean


def _variance(ctx, lit, quadrant, last, image, bad) -> dict:
    """Variance of the difference to the frame before, for the turn-off."""
    from calcamp.analysis.ptc import measure_pair

    before, bad_before = last[1][quadrant]
    either = bad if bad_before is None else bad_before if bad is None else bad | bad_before
    saturated = lit.masks(quadrant)[1]
    pair = measure_pair(before, image, ctx.detector.tile_edges(), either, saturated, lags=1)
    return {
        "column": lit.exposure.column,
        "obsid": last[2],
        "obsid2": lit.exposure.obsid,
        "ccd": ctx.ccd,
        "quadrant": quadrant,
        "mu": pair.mu,
        "variance": float(pair.covariance[0, 0]),
        "variance_err": float(pair.err[0, 0]),
        "n": pair.n,
        "flag": pair.flag,
    }


def _edge(ctx, lit, quadrant, bad):
    from calcamp.analysis.her import edge_profile

    mask = None if bad is None else lit.prepared.mask(quadrant)
    return edge_profile(lit.prepared.data[quadrant], ctx.detector, "parallel", mask)


def _write_edges(ctx: runner.Context, edges: list) -> None:
    """Table ``nl_edges``: charge in the first parallel overscan rows, mean over the frames of a column."""
    import numpy as np

    groups: dict[tuple, list] = {}
    for exposure, quadrant, edge in edges:
        groups.setdefault((exposure.column, quadrant), []).append(edge)
    rows = []
    for (column, quadrant), items in groups.items():
        trail = np.mean([e.response[:8].sum() for e in items])
        err = math.sqrt(sum(float(np.sum(e.err[:8] ** 2)) for e in items)) / len(items)
        scatter = (
            np.std([e.response[:8].sum() for e in items], ddof=1) / math.sqrt(len(items))
            if len(items) > 1
            else 0.0
        )
        first = np.mean([e.response[0] for e in items])
        rows.append(
            {"column": column, "ccd": ctx.ccd, "quadrant": quadrant, "signal": float(np.mean([e.signal for e in items])),
             "trail": float(trail), "trail_err": max(err, float(scatter)), "first_row": float(first), "n": len(items)}
        )  # fmt: skip
    ctx.write_table(
        "nl_edges",
        table(rows, "column ccd quadrant signal trail trail_err first_row n"),
        units={"signal": "ADU", **errs("trail", "ADU"), "first_row": "ADU"},
        descriptions={
            "trail": "sum of the first eight parallel overscan rows above those from the eleventh on"
        },
    )


# ---- joint fit ------------------------------------------------------------------------------------------
def turn_offs(ctx: runner.Context, ccd: int) -> dict:
    """Turn-off of each quadrant of a CCD from the variances of neighbours."""
    import numpy as np

    from calcamp.analysis.ptc import find_turn_off

    rows = [r for r in ctx.rows("extract", "nl_variance", ccd) if r["variance"] is not None]
    found = {}
    for quadrant in QUADRANTS:
        own = [r for r in rows if r["quadrant"] == quadrant]
        columns = (np.array([r[n] for r in own], float) for n in ("mu", "variance", "variance_err"))
        found[quadrant] = find_turn_off(*columns)
    return found


def curve(ctx: runner.Context) -> None:
    """Joint fit of the block; curves, lamp, shutter, correction product."""
    import numpy as np

    from calcamp.analysis.nonlinearity import FDR, Frames, fit_nonlinearity

    channels = [(ccd, quadrant) for ccd in CCDS for quadrant in QUADRANTS]
    rows = [row for ccd in CCDS for row in ctx.rows("extract", "nl_frames", ccd)]
    obsids = sorted({row["obsid"] for row in rows})
    if not obsids:
        ctx.flag("BADDATAPROD", "no usable exposure")
        return
    offs = {(ccd, q): off for ccd in CCDS for q, off in turn_offs(ctx, ccd).items()}
    index = {obsid: k for k, obsid in enumerate(obsids)}
    shape = (len(obsids), len(channels))
    signal, err, spread = np.full(shape, np.nan), np.full(shape, 1.0), np.zeros(shape)
    time, exptime = np.zeros(len(obsids)), np.zeros(len(obsids))
    group, level = np.zeros(len(obsids), int), np.zeros(len(obsids), int)
    for row in rows:
        e, c = index[row["obsid"]], channels.index((row["ccd"], row["quadrant"]))
        time[e], exptime[e], group[e] = row["time"], row["exptime"], row["wave"]
        level[e] = {"background": BACKGROUND, "stability": STAB}.get(row["kind"], row["column"])
        off = offs[row["ccd"], row["quadrant"]]
        top = off.level - off.err if not off.is_limit and off.level == off.level else math.inf
        # Most tiles must be below the turn-off too; beyond it charge moves, the mean hardly changes.
        bright = (row["signal"] or 0.0) * (1 + (row["spread"] or 0.0))
        if row["signal"] is not None and not row["flag"] and bright < top:
            signal[e, c], err[e, c], spread[e, c] = row["signal"], row["signal_err"], row["spread"]
    exptime[level == BACKGROUND] = 0.0
    prior = shutter_prior(ctx, exptime)
    options = ctx.options
    fit = fit_nonlinearity(
        Frames(time, exptime, group, level, signal, err, spread),
        prior,
        track_degree=options.get("track_degree", 2),
        lamp_floor=options.get("lamp_floor", 5e-5),
    )
    if fit.flag:
        ctx.flag("BADFIT", f"non-linearity: {fit.flag}")
    filters = np.unique(group[exptime > 0])
    if len(filters) > 1 and fit.overlap < 3:
        cause = f"{fit.overlap} levels common to the filters (NL_DEGENERATE): they are joined by the smoothness of the curve"
        ctx.flags.append({"name": "BADFIT", "cause": cause, "scope": {}, "effect": "note"})
    _write_curves(ctx, fit, channels, offs)
    _write_points(ctx, fit, channels, obsids, time, exptime, level, signal)
    _write_tiles(ctx, fit, channels, index, group, level)
    _write_nuisance(ctx, fit, channels, prior)
    lamp = [
        {
            "obsid": o,
            "time": time[k],
            "exptime": exptime[k],
            "wave": int(group[k]),
            "level": int(level[k]),
            "lamp": fit.lamp[k],
            "track": fit.track[k],
        }
        for o, k in index.items()
    ]
    ctx.write_table(
        "nl_lamp",
        table(lamp, "obsid time exptime wave level lamp track"),
        units={"time": "s", "exptime": "s"},
        descriptions={
            "lamp": "track and jitter, 1 on the mean",
            "level": "column; 0 stability, -1 background",
        },
    )
    _write_product(ctx, fit, channels, FDR)


_NL = "nonlinearity_max nonlinearity_max_err at_signal valid_min valid_max residual_rms residual_max background background_err turn_off turn_off_err"


def _write_curves(ctx, fit, channels, offs) -> None:
    """Tables ``nl``, ``nl_curve``, ``nl_knots``."""
    import numpy as np

    rows, curves, knots = [], [], []
    for k, (ccd, quadrant) in enumerate(channels):
        c, off, keys = fit.curves[k], offs[ccd, quadrant], {"ccd": ccd, "quadrant": quadrant}
        z, err, at = c.extreme()
        rows.append(
            {
                **keys,
                "nonlinearity_max": z,
                "nonlinearity_max_err": err,
                "at_signal": at,
                "valid_min": c.valid[0],
                "valid_max": c.valid[1],
                "residual_rms": c.residual_rms,
                "residual_max": c.residual_max,
                "background": c.background,
                "background_err": c.background_err,
                "turn_off": off.level,
                "turn_off_err": off.err,
                "turn_off_is_limit": off.is_limit,
                "n": c.n,
                "flag": c.flag,
            }
        )
        if c.flag:
            ctx.flag("BADFIT", f"non-linearity: {c.flag}", **keys)
            continue
        grid = np.concatenate(
            [np.geomspace(max(c.valid[0], 50.0), 5000.0, 40), np.linspace(5200.0, c.valid[1], 120)]
        )
        s, s_err = c.at(grid)
        percent, percent_err = c.nonlinearity(grid)
        curves += [
            {
                **keys,
                "signal": g,
                "correction": a,
                "correction_err": b,
                "nonlinearity": p,
                "nonlinearity_err": q,
            }
            for g, a, b, p, q in zip(grid, s, s_err, percent, percent_err, strict=True)
        ]
        errors = np.sqrt(np.diag(c.covariance))
        knots += [
            {**keys, "knot": x, "correction": v, "correction_err": e}
            for x, v, e in zip(c.knots, c.value, errors, strict=True)
        ]
    ctx.write_table(
        "nl",
        table(rows, f"ccd quadrant {_NL} turn_off_is_limit n flag"),
        units={
            **errs("nonlinearity_max", "%"),
            **errs("background turn_off", "ADU"),
            **dict.fromkeys(("at_signal", "valid_min", "valid_max"), "ADU"),
            **dict.fromkeys(("residual_rms", "residual_max"), "%"),
        },
        descriptions={
            "nonlinearity_max": "signed extreme of 100 (measured - linear)/linear from 1 % FDR to the end of the range",
            "residual_rms": "of the means of the levels after correction, 1 % FDR and above",
            "background": "light in an exposure of time 0",
        },
        meta={"gauge": "linear at 0 and at 25 % of FDR (16384 ADU)"},
    )
    ctx.write_table(
        "nl_curve",
        table(curves, "ccd quadrant signal correction correction_err nonlinearity nonlinearity_err"),
        units={"signal": "ADU", **errs("correction", "ADU"), **errs("nonlinearity", "%")},
        descriptions={"correction": "S: linear = measured - S"},
    )
    ctx.write_table(
        "nl_knots",
        table(knots, "ccd quadrant knot correction correction_err"),
        units={"knot": "ADU", **errs("correction", "ADU")},
    )


def _write_points(ctx, fit, channels, obsids, time, exptime, level, signal) -> None:
    """Table ``nl_points``: every exposure and channel that was used, before and after correction."""
    import numpy as np

    rows = []
    for e, obsid in enumerate(obsids):
        for k, (ccd, quadrant) in enumerate(channels):
            if not np.isfinite(fit.linear[e, k]):
                continue
            before = 100 * (signal[e, k] / fit.expected[e, k] - 1) if exptime[e] > 0 else math.nan
            rows.append(
                {"obsid": obsid, "level": int(level[e]), "ccd": ccd, "quadrant": quadrant, "time": time[e], "exptime": exptime[e],
                 "signal": signal[e, k], "linear": fit.linear[e, k], "expected": fit.expected[e, k],
                 "deviation": before, "residual": fit.residual[e, k]}
            )  # fmt: skip
    ctx.write_table(
        "nl_points",
        table(rows, "obsid level ccd quadrant time exptime signal linear expected deviation residual"),
        units={
            "time": "s",
            "exptime": "s",
            **dict.fromkeys(("signal", "linear", "expected"), "ADU"),
            "deviation": "%",
            "residual": "%",
        },
        descriptions={
            "expected": "flux, lamp, shutter and background of the fit",
            "deviation": "measured over expected, minus one",
            "residual": "corrected over expected, minus one",
        },
    )


def _write_tiles(ctx, fit, channels, index, group, level) -> None:
    """Table ``nl_tiles``: bright and dark tiles of the same exposures, whose ratios no lamp or shutter changes."""
    import numpy as np

    from calcamp.analysis.nonlinearity import tile_residuals

    rows, files = [], {}
    for k, (ccd, quadrant) in enumerate(channels):
        path = ctx.sibling("extract", ccd) / TILES
        if fit.curves[k].flag or not path.is_file():
            continue
        if ccd not in files:
            with np.load(path, allow_pickle=False) as data:
                files[ccd] = dict(data)
        known = files[ccd][f"{quadrant}_obsid"]
        places = np.array([index.get(int(obsid), -1) for obsid in known], int)
        means = files[ccd][f"{quadrant}_mean"][places >= 0]
        places = places[places >= 0]
        lit = np.isfinite(fit.expected[places, k]) & (level[places] >= STAB)
        here = places[lit]
        dark = means[level[places] == BACKGROUND]
        found = tile_residuals(
            fit.curves[k],
            means[lit],
            fit.expected[here, k],
            group[here],
            level[here],
            dark.mean(axis=0) if len(dark) else None,
        )
        rows += [{"ccd": ccd, "quadrant": quadrant, **row} for row in found]
    ctx.write_table(
        "nl_tiles",
        table(rows, "ccd quadrant level group illumination signal deviation residual residual_err n"),
        units={"signal": "ADU", "deviation": "%", **errs("residual", "%")},
        descriptions={
            "group": "an eighth of the tiles, 1 the darkest",
            "illumination": "of the group over the mean of the quadrant",
            "deviation": "measured over expected, minus one; expected: illumination of each tile times that of the joint fit",
            "residual": "the same after correction",
            "residual_err": "scatter of tiles and frames over the root of their number",
            "n": "tiles and frames",
        },
    )


def _write_nuisance(ctx, fit, channels, prior) -> None:
    """Tables ``shutter`` and ``nl_flux``: what is not the detector's."""
    import numpy as np

    track = fit.track[np.isfinite(fit.lamp)]
    ctx.write_table(
        "shutter",
        {
            "t0": [fit.t0],
            "t0_err": [fit.t0_err],
            "table": [prior[0] if prior else math.nan],
            "table_err": [prior[1] if prior else math.nan],
            "lamp_rms": [100 * fit.lamp_rms],
            "lamp_range": [100 * float(np.ptp(track)) if track.size else math.nan],
            "shutter_rms": [fit.shutter_rms],
            "chi2_dof": [fit.chi2_dof],
            "overlap": [fit.overlap],
            "n": [int(np.isfinite(fit.lamp).sum())],
            "flag": [fit.flag],
        },
        units={**errs("t0 table", "s"), "lamp_rms": "%", "lamp_range": "%", "shutter_rms": "s"},
        descriptions={"t0": "true minus commanded exposure time, the shutter table's value included where one is given",
                      "lamp_range": "of the slow track over the test", "overlap": "levels common to the filters"},
    )  # fmt: skip
    rows = [
        {"ccd": ccd, "quadrant": quadrant, "wave": wave, "k": value, "k_err": err}
        for k, (ccd, quadrant) in enumerate(channels)
        for wave, (value, err) in fit.curves[k].flux.items()
    ]
    ctx.write_table(
        "nl_flux",
        table(rows, "ccd quadrant wave k k_err"),
        units=errs("k", "ADU/s"),
        descriptions={"wave": "filter slot"},
    )


def _write_product(ctx, fit, channels, full: float) -> None:
    """Correction product of the block: S on 1000 signals per channel, and the knots with their covariance."""
    import numpy as np

    from calcamp import __version__
    from calcamp.data.fitsfile import write_product

    columns = {
        n: [] for n in ("ccd", "quadrant", "signal", "correction", "correction_err", "valid_min", "valid_max")
    }
    images = []
    for k, (ccd, quadrant) in enumerate(channels):
        c = fit.curves[k]
        if c.flag or not len(c.knots):
            continue
        grid = np.linspace(0.0, c.valid[1], 1000)
        s, err = c.at(grid)
        columns["ccd"] += [ccd] * 1000
        columns["quadrant"] += [quadrant] * 1000
        for name, value in (("signal", grid), ("correction", s), ("correction_err", err)):
            columns[name] += value.tolist()
        columns["valid_min"] += [c.valid[0]] * 1000
        columns["valid_max"] += [c.valid[1]] * 1000
        images.append(
            (
                f"COV_{ccd}{quadrant}",
                c.covariance,
                "ADU2",
                {f"KNOT{n:02d}": float(x) for n, x in enumerate(c.knots)},
            )
        )
    if not columns["ccd"]:
        return
    folder = ctx.into / "products"
    folder.mkdir(exist_ok=True)
    name = f"EUC_LINEARITY_{ctx.block}.fits"
    header = {"BLOCKID": ctx.block, "CHAMBER": ctx.job.get("chamber", ""), "TEST": ctx.test, "CALCAMP": __version__,
              "GAUGE": "S = 0 at 0 and at 16384 ADU", "T0": fit.t0, "OBSFIRST": ctx.exposures[0].obsid, "OBSLAST": ctx.exposures[-1].obsid}  # fmt: skip
    units = dict.fromkeys(("signal", "correction", "correction_err", "valid_min", "valid_max"), "adu")
    write_product(folder / name, header, images, tables=[("LINEARITY", columns, units)])
    ctx.made.append({"kind": "linearity", "file": f"products/{name}", "ccd": None, "serial": ""})


# ---- transfer near the full well --------------------------------------------------------------------------
def sat_cte(ctx: runner.Context) -> None:
    """Tables ``sat_cte`` and ``saturation``: parallel transfer against signal, turn-off, for one CCD."""
    rows, summary = [], []
    edges = ctx.rows("extract", "nl_edges")
    offs = turn_offs(ctx, ctx.ccd)
    transfers = ctx.detector.image_rows
    for quadrant in QUADRANTS:
        own = sorted(
            (r for r in edges if r["quadrant"] == quadrant and (r["signal"] or 0) > 100),
            key=lambda r: r["signal"],
        )
        keys = {"ccd": ctx.ccd, "quadrant": quadrant}
        for r in own:
            cti, err = r["trail"] / r["signal"] / transfers, r["trail_err"] / r["signal"] / transfers
            rows.append(
                {
                    **keys,
                    "column": r["column"],
                    "signal": r["signal"],
                    "cti": cti,
                    "cti_err": err,
                    "cte": 1 - cti,
                    "n": r["n"],
                    "flag": "",
                }
            )
        off = offs[quadrant]
        middle = [r for r in rows if r["quadrant"] == quadrant and 0.15 * 65536 < r["signal"] < 0.6 * 65536]
        weight = sum(1 / r["cti_err"] ** 2 for r in middle if r["cti_err"] > 0)
        mean = (
            sum(r["cti"] / r["cti_err"] ** 2 for r in middle if r["cti_err"] > 0) / weight
            if weight
            else math.nan
        )
        summary.append(
            {**keys, "cti_parallel": mean, "cti_parallel_err": weight**-0.5 if weight else math.nan,
             "knee": _knee([r for r in rows if r["quadrant"] == quadrant], mean), "turn_off": off.level, "turn_off_err": off.err,
             "turn_off_is_limit": off.is_limit, "n": len(own), "flag": "" if own else "no level"}
        )  # fmt: skip
    ctx.write_table(
        "sat_cte",
        table(rows, "column ccd quadrant signal cti cti_err cte n flag"),
        units={"signal": "ADU"},
        descriptions={
            "cti": "charge in the first eight parallel overscan rows over the last rows' signal, per transfer (EPER)"
        },
    )
    ctx.write_table(
        "saturation",
        table(
            summary,
            "ccd quadrant cti_parallel cti_parallel_err knee turn_off turn_off_err turn_off_is_limit n flag",
        ),
        units={"knee": "ADU", **errs("turn_off", "ADU")},
        descriptions={
            "cti_parallel": "mean between 15 and 60 % of FDR",
            "knee": "first level whose inefficiency is three times that, by five errors",
        },
    )


def _knee(rows: list[dict], mean: float) -> float:
    for r in rows:
        if (
            r["signal"] > 0.3 * 65536
            and mean == mean
            and r["cti"] > 3 * abs(mean)
            and r["cti"] - 3 * abs(mean) > 5 * r["cti_err"]
        ):
            return r["signal"]
    return math.nan


if __name__ == "__main__":
    sys.exit(runner.run("nonlinearity", {"extract": extract, "NL": curve, "satCTE": sat_cte}))
