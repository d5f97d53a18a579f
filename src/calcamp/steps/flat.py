"""FLAT01, FLAT02, FLAT_STB, FLATFLUX00: stacks (indivflats), masters, masks, lamp (stability), flux (meta)."""

from __future__ import annotations

import math
import sys

from calcamp.detector.geometry import CCDS, QUADRANTS
from calcamp.steps import runner
from calcamp.steps.lit import errs, seconds, stream, table


def wavelength(ctx: runner.Context) -> int:
    """Of the test, nm."""
    from calcamp.campaign.core import find_test

    return find_test(ctx.test.split(".")[0]).wavelength or 0


# ---- individual flats, stacks ---------------------------------------------------------------------------
def indivflats(ctx: runner.Context) -> None:
    """One pass over the frames: signal of each, its tiles, and the sums of each level in two halves."""
    rows, tiles, stacks, column = [], [], {}, None
    for lit in stream(ctx, keep=1):
        if lit.exposure.column != column:
            _save(ctx, column, stacks)
            column, stacks = lit.exposure.column, {}
        models = {}
        for quadrant in QUADRANTS:
            if (lit.exposure.obsid, quadrant) in ctx.selection():
                continue
            _add(ctx, lit, quadrant, stacks, rows, tiles, models)
        if ctx.options.get("write") and models:
            _write_individual(ctx, lit, models)
    _save(ctx, column, stacks)
    ctx.write_table(
        "flat_frames",
        table(
            rows,
            "obsid column frame ccd quadrant time exptime signal signal_err tilt_rows tilt_columns n flag",
        ),
        units={"time": "s", "exptime": "s", **errs("signal", "ADU"), "tilt_rows": "%", "tilt_columns": "%"},
        descriptions={
            "time": "since the first frame",
            "signal": "mean of the image area, bad pixels left out",
            "tilt_rows": "change of the illumination along the rows against the first frame of the level, whole quadrant",
        },
    )


def _add(ctx, lit, quadrant, stacks, rows, tiles, models) -> None:
    """One quadrant of one frame into its stack and the rows."""
    import numpy as np

    from calcamp.analysis.flat import Stack, illumination_model

    image, (bad, saturated) = lit.image(quadrant), lit.masks(quadrant)
    exposure = lit.exposure
    keys = {"obsid": exposure.obsid, "column": exposure.column, "frame": exposure.frame, "ccd": ctx.ccd}
    row = {
        **keys,
        "quadrant": quadrant,
        "time": seconds(exposure) - seconds(ctx.exposures[0]),
        "exptime": float(exposure.values.get("exptime") or 0),
    }
    share = 0.0 if saturated is None else float(saturated.mean())
    if share > 0.01:
        rows.append(
            {
                **row,
                **dict.fromkeys(("signal", "signal_err", "tilt_rows", "tilt_columns"), math.nan),
                "n": 0,
                "flag": f"{100 * share:.1f} % saturated",
            }
        )
        return
    if quadrant not in stacks:
        stacks[quadrant] = Stack(ctx.detector.tile_edges(), ctx.options.get("cosmic_sigma", 6.0))
        stacks[quadrant].shape = None
    stack = stacks[quadrant]
    signal, shape = stack.add(image, bad)
    if stack.shape is None:
        stack.shape = shape
    with np.errstate(invalid="ignore", divide="ignore"):
        change = shape / stack.shape - 1.0
    used = int(image.size if bad is None else image.size - np.count_nonzero(bad))
    rows.append(
        {
            **row,
            "signal": signal,
            # photon noise with the nominal gain; the lamp's scatter is far above it
            "signal_err": math.sqrt(max(signal, 1.0) / ctx.detector.nominal_gain / max(used, 1))
            if signal == signal
            else math.nan,
            "tilt_rows": 100 * _tilt(change, 0),
            "tilt_columns": 100 * _tilt(change, 1),
            "n": used,
            "flag": "" if signal == signal else "no pixels",
        }
    )
    if ctx.options.get("write"):
        model = illumination_model(image, bad, ctx.options.get("box", 25))
        models[quadrant] = (image / model, model)


def _tilt(change, axis: int) -> float:
    """Difference between the two ends of the quadrant of a map of tiles, by a straight line."""
    import numpy as np

    profile = np.nanmean(change, axis=1 - axis)
    good = np.isfinite(profile)
    if good.sum() < 2:
        return math.nan
    return float(np.polyfit(np.arange(len(profile))[good] / len(profile), profile[good], 1)[0])


def _save(ctx: runner.Context, column: int | None, stacks: dict) -> None:
    """Sums of a level as a plain array file: what masterflat reads."""
    if column is None or not stacks:
        return
    import numpy as np

    with (ctx.into / f"stack_col{column:03d}.npy").open("wb") as out:
        # One array after another: an archive would take checksums that the record takes too.
        np.save(out, np.array(list(stacks)))
        for stack in stacks.values():
            made = stack.finish()
            np.save(out, np.array([made.flux, made.frames, made.rejected], float))
            for name in _SUMS:
                np.save(out, getattr(made, name))


_SUMS = ("sum1", "sum2", "count1", "count2", "noise")


def _load(path):
    """{quadrant: `calcamp.analysis.flat.StackResult`} as `_save` left them, one after another."""
    import numpy as np

    from calcamp.analysis.flat import StackResult

    with path.open("rb") as source:
        for quadrant in np.load(source, allow_pickle=False).tolist():
            flux, frames, rejected = np.load(source, allow_pickle=False)
            sums = [np.load(source, allow_pickle=False) for _ in _SUMS]
            yield quadrant, StackResult(*sums, flux, int(frames), int(rejected))


def _write_individual(ctx: runner.Context, lit, models: dict) -> None:
    """A single flat: response and model, stored orientation, 1 in the scans."""
    images = [
        ("FLAT", _whole(ctx, {q: flat for q, (flat, _) in models.items()}, 1.0), "", {}),
        ("MODEL", _whole(ctx, {q: model for q, (_, model) in models.items()}, 1.0), "ADU", {}),
    ]
    e = lit.exposure
    name = f"EUC_FF_{wavelength(ctx)}nm_col{e.column:03d}_ROE1_{e.obsid}_CCD{ctx.ccd}.fits"
    ctx.write_product(
        "individual_flat", name, images, {"OBSID": e.obsid, "WAVEL": wavelength(ctx)}, column=e.column
    )


def _area(ctx: runner.Context, frame, quadrant: str):
    """Image area of a quadrant of a stored frame, canonical: a view."""
    from calcamp.detector.arrays import quadrant_view

    return quadrant_view(frame, quadrant, ctx.detector)[ctx.detector.region("img", trimmed=False)]


def _whole(ctx: runner.Context, areas: dict, fill):
    """Stored frame from image areas."""
    import numpy as np

    frame = np.full(ctx.detector.ccd_shape, fill, next(iter(areas.values())).dtype)
    for quadrant, area in areas.items():
        _area(ctx, frame, quadrant)[...] = area
    return frame


# ---- master flats ---------------------------------------------------------------------------------------
def masterflat(ctx: runner.Context) -> None:
    """Master flats of each level with error and count, pixel response non-uniformity, large-scale flat."""
    columns = sorted({e.column for e in ctx.exposures})
    rows, splits, histograms = [], [], []
    for column in columns:
        path = ctx.sibling("indivflats") / f"stack_col{column:03d}.npy"
        if not path.is_file():
            for quadrant in QUADRANTS:
                rows.append(_no_master(ctx, column, quadrant, "no usable frame"))
                ctx.flag(
                    "BADDATAPROD", f"no usable frame of column {column}", quadrant=quadrant, column=column
                )
            continue
        rows += _master(ctx, column, path, splits, histograms)
    ctx.write_table(
        "flat_histogram",
        table(histograms, "column ccd quadrant response pixels"),
        descriptions={"response": "middle of a bin of 0.01; 0 and 2 hold what lies beyond"},
    )
    ctx.write_table(
        "flat_split",
        table(splits, "column ccd quadrant half1 half2"),
        units={"half1": "%", "half2": "%"},
        descriptions={"half1": "response minus one of a sample of pixels in the first half of the frames"},
    )
    values = " ".join(f"{n} {n}_err" for n in _PRNU.split())
    ctx.write_table(
        "prnu",
        table(
            rows, f"column ccd quadrant signal signal_e {values} prnu_raw master_noise rejected frames n flag"
        ),
        units={
            "signal": "ADU",
            "signal_e": "electron",
            **errs(_PRNU, "%"),
            "prnu_raw": "%",
            "master_noise": "%",
        },
        descriptions={
            "prnu": "rms of pixels about the mean of their box: covariance of two half stacks, so without noise",
            "prnu_corrected": "contrast lost by the brighter-fatter effect given back (option a00)",
            "prnu_column": "part common to the pixels of a column",
            "prnu_raw": "rms of the master, noise included",
            "master_noise": "noise of a pixel of the master, of its signal",
            "rejected": "pixels left out as cosmic rays, all frames",
        },
    )


_PRNU = "prnu prnu_corrected prnu_column"


def _no_master(ctx, column, quadrant, flag) -> dict:
    names = f"signal signal_e {_PRNU} prnu_raw master_noise rejected"
    errors = [f"{n}_err" for n in _PRNU.split()]
    return {"column": column, "ccd": ctx.ccd, "quadrant": quadrant, **dict.fromkeys([*names.split(), *errors], math.nan), "frames": 0, "n": 0, "flag": flag}  # fmt: skip


def _master(ctx: runner.Context, column: int, path, splits: list[dict], histograms: list[dict]) -> list[dict]:
    """Master flat of one level: product and rows."""
    import numpy as np

    from calcamp.analysis.flat import bf_contrast, illumination_model, measure_prnu
    from calcamp.analysis.tiles import expand
    from calcamp.detector.dq import DQ

    options, edges = ctx.options, ctx.detector.tile_edges()
    frames = {
        name: np.full(ctx.detector.ccd_shape, fill, dtype)
        for name, fill, dtype in (
            ("FLAT", 1, np.float32),
            ("ERROR", 0, np.float32),
            ("LFLAT", 1, np.float32),
            ("COUNT", 0, np.int16),
            ("DQ", int(DQ.NON_IMAGE), np.uint32),
        )
    }
    rows, header, levels = [], {}, {}
    for quadrant, stack in _load(path):
        flux, count = stack.flux, stack.count
        mean, seen = stack.mean(), count > 0
        model = illumination_model(mean, ~seen, options.get("box", 25))
        response = mean / model  # NaN where no frame had a value
        error = expand(stack.noise / flux, edges) * np.sqrt(np.maximum(response, np.float32(0.05)))
        error /= np.sqrt(np.maximum(count, 1)).astype(np.float32)
        half1, half2 = (half / model for half in stack.halves())
        if not stack.count2.any():
            half2 = np.full_like(half1, np.nan)
        found = measure_prnu(half1, half2, None, edges, options.get("defect_sigma", 5.0))
        splits += _split(ctx.ccd, column, quadrant, half1, half2)
        histograms += _histogram(ctx.ccd, column, quadrant, response)
        gain = ctx.gains()[quadrant][0]
        contrast = bf_contrast(flux * gain, options.get("a00", -8.7e-7))
        levels[quadrant] = float(np.nanmean(model, dtype=np.float64))
        planes = {"FLAT": response, "ERROR": error, "LFLAT": model, "COUNT": count}
        planes["DQ"] = np.where(response > 0.1, np.uint32(0), np.uint32(DQ.FLAT_INVALID))
        for name, plane in planes.items():
            _area(ctx, frames[name], quadrant)[...] = plane
        header[f"AVFLU_{quadrant}"] = float(flux)
        rows.append(
            {
                "column": column,
                "ccd": ctx.ccd,
                "quadrant": quadrant,
                "signal": float(flux),
                "signal_e": float(flux * gain),
                "prnu": found.small,
                "prnu_err": found.small_err,
                "prnu_corrected": found.small / contrast,
                "prnu_corrected_err": found.small_err / contrast,
                "prnu_column": found.column,
                "prnu_column_err": found.column_err,
                "prnu_raw": found.raw,
                "master_noise": 100 * float(np.nanmedian(error[::4, ::4])),
                "rejected": stack.rejected,
                "frames": stack.frames,
                "n": found.n,
                "flag": "" if found.small == found.small else "one frame: no split",
            }
        )
    for quadrant in QUADRANTS:
        if quadrant not in levels:
            rows.append(_no_master(ctx, column, quadrant, "no usable frame"))
            ctx.flag("BADDATAPROD", f"no usable frame of column {column}", quadrant=quadrant, column=column)
    if not levels:
        return rows
    # The large-scale flat is relative to the mean of the CCD, gains taken out with the nominal ratio of levels.
    average = sum(levels.values()) / len(levels)
    for quadrant in levels:
        _area(ctx, frames["LFLAT"], quadrant)[...] /= np.float32(average)
    images = [(name, frame, "", {}) for name, frame in frames.items()]
    nm = wavelength(ctx)
    ctx.write_product(
        "flat",
        f"EUC_FF_{nm}nm_col{column:03d}_ROE1_CCD{ctx.ccd}.fits",
        images,
        {
            "NCOMB": max(row["frames"] for row in rows),
            "WAVEL": nm,
            "CCDSN": ctx.serial,
            "ID": f"{ctx.test} col{column:03d}",
            "BOX": options.get("box", 25),
            "LINEAR": bool(ctx.product("linearity")),
            **header,
        },
        column=column,
        wavelength=nm,
    )
    return rows


def _split(ccd: int, column: int, quadrant: str, half1, half2, size: int = 300) -> list[dict]:
    """A sample of pixels in both halves, for the scatter plot: what they share is response, the rest noise."""
    import numpy as np

    step = max(1, half1.size // size)
    pairs = np.stack([half1.reshape(-1)[step // 3 :: step], half2.reshape(-1)[step // 3 :: step]], axis=1)
    pairs = 100 * (pairs[np.isfinite(pairs).all(axis=1)].astype(float) - 1)
    keys = {"column": column, "ccd": ccd, "quadrant": quadrant}
    return [{**keys, "half1": round(a, 4), "half2": round(b, 4)} for a, b in pairs.tolist()]


def _histogram(ccd: int, column: int, quadrant: str, response) -> list[dict]:
    """Pixels by response in bins of 0.01, empty bins left out."""
    import numpy as np

    scaled = response * np.float32(100)
    scaled += np.float32(0.5)
    known = np.isfinite(scaled)
    if not known.all():
        scaled = scaled[known]
    counts = np.bincount(np.clip(scaled, 0, 200, out=scaled).astype(np.int16).reshape(-1), minlength=201)
    keys = {"column": column, "ccd": ccd, "quadrant": quadrant}
    return [{**keys, "response": k / 100, "pixels": int(counts[k])} for k in np.flatnonzero(counts)]


# ---- mask -------------------------------------------------------------------------------------------------
def prmask(ctx: runner.Context) -> None:
    """Pixels and columns whose response deviates at every level; mask of photo-response defects."""
    import numpy as np

    from calcamp.analysis.defects import clusters, find_columns
    from calcamp.data.fitsfile import read_image
    from calcamp.detector.dq import DQ

    options = ctx.options
    files = sorted((ctx.sibling("masterflat") / "products").glob("EUC_FF_*.fits"))
    if not files:
        ctx.flag("BADDATAPROD", "no master flat")
        return
    flats = [read_image(path, "FLAT")[0] for path in files]
    # only where levels are compared
    errors = [read_image(path, "ERROR")[0] for path in (files[0], files[-1])] if len(files) > 1 else []
    rows, pixels, columns, planes = [], [], [], {}
    for quadrant in QUADRANTS:
        maps = [np.ascontiguousarray(_area(ctx, f, quadrant)) for f in flats]
        noise = [_area(ctx, f, quadrant) for f in errors]
        dq = np.zeros(maps[0].shape, np.uint32)
        known = np.isfinite(maps[0])
        for m in maps[1:]:
            known &= np.isfinite(m)
        if not known.any():
            rows.append(
                {
                    "ccd": ctx.ccd,
                    "quadrant": quadrant,
                    **dict.fromkeys(_DEFECTS.split()),
                    "spread": math.nan,
                    "n": 0,
                    "flag": "no master",
                }
            )
            continue
        lowest, highest = maps[0], maps[0]
        for m in maps[1:]:
            lowest, highest = np.fmin(lowest, m), np.fmax(highest, m)
        deviant = known.copy()
        spreads = []
        for m in maps:
            sample = m.reshape(-1)[::7]
            inner = np.percentile(sample[np.isfinite(sample)], (15.87, 50, 84.13))
            spreads.append(0.5 * (inner[2] - inner[0]))
            deviant &= np.abs(m - inner[1]) > options.get("deviant_sigma", 7.0) * spreads[-1]
        dead, low = options.get("dead", 0.5), options.get("low", 0.8)
        high, over = options.get("high", 1.2), options.get("over", 1.5)
        # Few pixels are so far off: the rest is looked at once.
        odd = np.flatnonzero(((highest < low) | (lowest > high)) & known)
        top, bottom = highest.reshape(-1)[odd], lowest.reshape(-1)[odd]
        kinds = np.select(
            [top < dead, top < low, bottom > over], [int(DQ.DEAD), int(DQ.LOW), int(DQ.OVER)], int(DQ.HIGH)
        ).astype(np.uint32)
        dq.reshape(-1)[odd] |= kinds
        changing = 0
        if len(maps) > 1:
            wide = np.maximum(8 * np.hypot(*noise), 0.05)
            changing = int(np.count_nonzero(known & (np.abs(maps[0] - maps[-1]) > wide)))
        best = int(np.argmin(spreads))
        found = find_columns(
            maps[best] - 1,
            spreads[best],
            options.get("column_depth", 0.03),
            options.get("column_sigma", 7.0),
            mask=~known,
        )
        for c in found:
            dq[c.first : c.last + 1, c.column] |= np.uint32(DQ.BAD_COL) | (
                np.uint32(DQ.PARTIAL_COL) if c.partial else np.uint32(0)
            )
            columns.append(
                {"ccd": ctx.ccd, "quadrant": quadrant, "column": c.column, "first_row": c.first, "last_row": c.last,
                 "deviation": c.level, "deviation_err": c.level_err, "significance": c.significance}
            )  # fmt: skip
        bad = deviant | (dq != 0)
        index = np.flatnonzero(bad & ((dq & np.uint32(DQ.BAD_COL)) == 0))
        groups = clusters(index, dq.shape)
        in_cluster = index[groups.members(2)] if index.size else index
        dq.reshape(-1)[in_cluster] |= np.uint32(DQ.CLUSTER)
        r, c = np.divmod(index, dq.shape[1])
        order = np.argsort(-np.abs(maps[best].reshape(-1)[index] - 1), kind="stable")[:400]
        for k in order:
            pixels.append(
                {
                    "ccd": ctx.ccd,
                    "quadrant": quadrant,
                    "row": int(r[k]),
                    "column": int(c[k]),
                    "response": float(maps[best][r[k], c[k]]),
                }
            )

        def count(bit, kinds=kinds):
            return int(np.count_nonzero(kinds == np.uint32(bit)))

        rows.append(
            {
                "ccd": ctx.ccd,
                "quadrant": quadrant,
                "n_dead": count(DQ.DEAD),
                "n_low": count(DQ.LOW),
                "n_high": count(DQ.HIGH),
                "n_over": count(DQ.OVER),
                "n_deviant": int(np.count_nonzero(deviant)),
                "n_changing": changing,
                "n_columns": len({c.column for c in found}),
                "n_clusters": int(
                    np.count_nonzero(np.unique(groups.labels[groups.members(2)], return_counts=True)[1])
                )
                if index.size
                else 0,
                "spread": 100 * float(spreads[best]),
                "n": int(known.sum()),
                "flag": "",
            }
        )
        others = np.flatnonzero(deviant)
        others = others[dq.reshape(-1)[others] == 0]
        dq.reshape(-1)[others] = np.uint32(DQ.MASKED)
        planes[quadrant] = dq
    ctx.write_table(
        "flat_defects",
        table(rows, f"ccd quadrant {_DEFECTS} spread n flag"),
        units={"spread": "%", "n": "pix"},
        descriptions={
            "n_deviant": "pixels beyond the cut in rms of the response map, at every level",
            "n_changing": "pixels whose response differs between the levels",
            "spread": "robust rms of the response map, which the cut is counted in",
        },
    )
    ctx.write_table(
        "flat_defect_pixels",
        table(pixels, "ccd quadrant row column response"),
        descriptions={"row": "image area, canonical"},
    )
    ctx.write_table(
        "flat_defect_columns",
        table(columns, "ccd quadrant column first_row last_row deviation deviation_err significance"),
    )
    if planes:
        dq = _whole(ctx, planes, int(DQ.NON_IMAGE))
        bad = np.uint32(DQ.DEAD | DQ.OVER | DQ.BAD_COL | DQ.MASKED)
        ctx.write_product(
            "flat_mask",
            f"EUC_FLMSK_CCD{ctx.ccd}_SN_{ctx.serial}_{ctx.block}.fits",
            [("DQ", dq, "", {}), ("MASK", ((dq & bad) != 0).astype("int32"), "", {})],
            {"MASKTYPE": "FLAT", "SN": ctx.serial},
        )


_DEFECTS = "n_dead n_low n_high n_over n_deviant n_changing n_columns n_clusters"


# ---- lamp -------------------------------------------------------------------------------------------------
def stability(ctx: runner.Context) -> None:
    """Tables ``lamp`` and ``lamp_frames``: drift and scatter of the source, common and per channel."""
    import numpy as np

    from calcamp.analysis.flat import stability as measure

    frames = {ccd: ctx.rows("indivflats", "flat_frames", ccd) for ccd in CCDS}
    channels = [(ccd, quadrant) for ccd in CCDS for quadrant in QUADRANTS]
    every = [row for rows in frames.values() for row in rows]
    lamp, series = [], []
    for column in sorted({row["column"] for row in every}):
        obsids = sorted({row["obsid"] for row in every if row["column"] == column})
        time = {row["obsid"]: row["time"] for row in every}
        signal = np.full((len(obsids), len(channels)), np.nan)
        tilts = {}
        for row in every:
            if row["column"] == column and row["signal"] is not None:
                key = (row["ccd"], row["quadrant"])
                signal[obsids.index(row["obsid"]), channels.index(key)] = row["signal"]
                tilts.setdefault(key, []).append((row["tilt_rows"] or 0.0, row["tilt_columns"] or 0.0))
        found = measure(np.array([time[o] for o in obsids]), signal)
        for k, (ccd, quadrant) in enumerate(channels):
            tilt = np.array(tilts.get((ccd, quadrant), [(math.nan, math.nan)]))
            lamp.append(
                {
                    "column": column,
                    "ccd": ccd,
                    "quadrant": quadrant,
                    "deviation": found.deviation[k],
                    "drift": found.drift[k],
                    "drift_err": found.drift_err[k],
                    "rms": found.rms[k],
                    "rms_common": found.rms_common,
                    "rms_channel": found.rms_channel[k],
                    "adjacent": found.adjacent[k],
                    "tilt_rows": float(np.std(tilt[:, 0])),
                    "tilt_columns": float(np.std(tilt[:, 1])),
                    "n": int(np.isfinite(signal[:, k]).sum()),
                    "flag": "" if np.isfinite(signal[:, k]).any() else "no frame",
                }
            )
        series += [
            {"obsid": o, "column": column, "time": time[o], "lamp": float(c)}
            for o, c in zip(obsids, found.common, strict=True)
        ]
    ctx.write_table(
        "lamp",
        table(
            lamp,
            "column ccd quadrant deviation drift drift_err rms rms_common rms_channel adjacent tilt_rows tilt_columns n flag",
        ),
        units={
            **dict.fromkeys(
                ("deviation", "rms", "rms_common", "rms_channel", "adjacent", "tilt_rows", "tilt_columns"),
                "%",
            ),
            **errs("drift", "%/h"),
        },
        descriptions={
            "deviation": "largest of a frame from the mean of its level, signed",
            "rms": "about the linear trend",
            "rms_common": "part common to the channels: the lamp and the shutter",
            "rms_channel": "part that is not",
            "adjacent": "rms of differences of neighbouring frames over sqrt(2)",
        },
    )
    ctx.write_table(
        "lamp_frames",
        table(series, "obsid column time lamp"),
        units={"time": "s"},
        descriptions={"lamp": "mean over the channels of signal over mean of the level"},
    )


# ---- brightness of the source -------------------------------------------------------------------------------
def flux(ctx: runner.Context) -> None:
    """Tables ``flux``, ``flux_levels`` and ``shutter``: k, t0 and saturation time of FLATFLUX00."""
    import numpy as np

    from calcamp.analysis.flat import fit_flux

    channels = [(ccd, quadrant) for ccd in CCDS for quadrant in QUADRANTS]
    times = {e.obsid: float(e.values.get("exptime") or 0) for e in ctx.exposures}
    obsids = sorted(times)
    signal = np.full((len(obsids), len(channels)), np.nan)
    for ccd in CCDS:
        left_out = {(r["obsid"], r["quadrant"]) for r in ctx.rows("check", "selection", ccd) if not r["use"]}
        for row in ctx.rows("check", "frames", ccd):
            clean = (row["saturated_fraction"] or 0.0) < 1e-3 and (
                row["obsid"],
                row["quadrant"],
            ) not in left_out
            if row["level_image"] is not None and clean and row["obsid"] in times:
                signal[obsids.index(row["obsid"]), channels.index((ccd, row["quadrant"]))] = row[
                    "level_image"
                ]
    time = np.array([times[o] for o in obsids])
    prior = shutter_prior(ctx, time)
    options = ctx.options
    found = fit_flux(time, signal, prior, options.get("lamp_rms", 5e-4), options.get("max_fraction", 0.8))
    if found.reason:
        ctx.flag("BADFIT", f"brightness of the source: {found.reason}")
    wave = next((e.values.get("wave") for e in ctx.exposures), None)
    chamber = (ctx.job.get("chamber_data") or {}).get("saturation_time", {}).get(str(wave))
    rows = []
    for k, (ccd, quadrant) in enumerate(channels):
        rows.append(
            {
                "ccd": ccd,
                "quadrant": quadrant,
                "wave": wave,
                "k": found.k[k],
                "k_err": found.k_err[k],
                "saturation_time": found.saturation_time[k],
                "saturation_time_err": found.saturation_time_err[k],
                "ratio_to_chamber": found.saturation_time[k] / chamber if chamber else math.nan,
                "n": int(found.used[:, k].sum()),
                "flag": found.reason or ("" if found.k[k] == found.k[k] else "not measured"),
            }
        )
    ctx.write_table(
        "flux",
        table(rows, "ccd quadrant wave k k_err saturation_time saturation_time_err ratio_to_chamber n flag"),
        units={**errs("k", "ADU/s"), **errs("saturation_time", "s")},
        descriptions={"k": "F = k (t + t0)", "saturation_time": "FDR/k, true time", "wave": "filter slot"},
    )
    _illumination(ctx, obsids, signal)
    levels = []
    for e, obsid in enumerate(obsids):
        for k, (ccd, quadrant) in enumerate(channels):
            levels.append(
                {"obsid": obsid, "ccd": ccd, "quadrant": quadrant, "exptime": time[e], "signal": signal[e, k],
                 "expected": found.k[k] * (time[e] + found.t0) if found.k[k] == found.k[k] else math.nan,
                 "residual": 100 * found.residual[e, k], "used": bool(found.used[e, k])}
            )  # fmt: skip
    ctx.write_table(
        "flux_levels",
        table(levels, "obsid ccd quadrant exptime signal expected residual used"),
        units={"exptime": "s", "signal": "ADU", "expected": "ADU", "residual": "%"},
    )
    ctx.write_table(
        "shutter",
        {
            "t0": [found.t0],
            "t0_err": [found.t0_err],
            "table": [prior[0] if prior else math.nan],
            "table_err": [prior[1] if prior else math.nan],
            "lamp_rms": [100 * found.lamp],
            "n": [found.n],
            "flag": [found.reason],
        },
        units={**errs("t0 table", "s"), "lamp_rms": "%"},
        descriptions={
            "t0": "true minus commanded exposure time, the shutter table's value included where one is given"
        },
    )


def _illumination(ctx: runner.Context, obsids: list[int], signal) -> None:
    """Table ``illumination``: tiles of the brightest usable exposure over the mean of their quadrant."""
    import numpy as np

    from calcamp.analysis.tiles import area_mean, tile_means
    from calcamp.data.raw import RawError

    rows = []
    exposures = {e.obsid: e for e in ctx.exposures}
    edges = ctx.detector.tile_edges()
    for c, ccd in enumerate(CCDS):
        own = signal[:, 4 * c : 4 * c + 4]
        # all four quadrants of one exposure, well below the full well
        fit = np.flatnonzero(np.isfinite(own).all(axis=1) & (own < 0.8 * 65536).all(axis=1))
        if not fit.size:
            continue
        best = obsids[fit[np.argmax(own[fit].mean(axis=1))]]
        try:
            raw = ctx.read(exposures[best], ccd)
        except RawError:
            continue
        offsets = {
            r["quadrant"]: r["offset"]
            for r in ctx.rows("check", "offsets", ccd)
            if r["obsid"] == best and r["region"] == "pre"
        }
        for quadrant in QUADRANTS:
            image = np.ascontiguousarray(_area(ctx, raw.data, quadrant), np.float32)
            image -= np.float32(offsets.get(quadrant) or 0.0)
            mean, _, n = tile_means(image, edges)
            middle = area_mean(mean, n, edges)
            rows += [
                {"obsid": best, "ccd": ccd, "quadrant": quadrant, "tile_row": i, "tile_column": j,
                 "illumination": float(mean[i, j] / middle), "n": int(n[i, j])}
                for i, j in np.ndindex(mean.shape)
            ]  # fmt: skip
    ctx.current = None
    ctx.write_table(
        "illumination",
        table(rows, "obsid ccd quadrant tile_row tile_column illumination n"),
        units={"n": "pix"},
        descriptions={
            "illumination": "mean of the tile over that of its quadrant",
            "tile_row": "canonical, from the node",
        },
    )


def shutter_prior(ctx: runner.Context, time) -> tuple[float, float] | None:
    """(t0, error) of the chamber's shutter table at these exposure times, s."""
    import numpy as np

    table_ = (ctx.job.get("chamber_data") or {}).get("shutter")
    if not table_ or not ctx.options.get("use_shutter_table", True):
        return None
    commanded, actual = np.array(table_["commanded"]), np.array(table_["actual"])
    # Times of exactly no offset at the end of a table are an artefact (analysis of flats, 4.2).
    keep = (commanded > 0) & (actual > commanded)
    lit = np.asarray(time)[np.asarray(time) > 0]
    if not keep.any() or not lit.size:
        return None
    late = np.interp(lit, commanded[keep], (actual - commanded)[keep])
    return float(np.mean(late)), float(ctx.options.get("shutter_error_s", 1e-3))


if __name__ == "__main__":
    sys.exit(
        runner.run(
            "flat",
            {
                "indivflats": indivflats,
                "masterflat": masterflat,
                "prmask": prmask,
                "stability": stability,
                "meta": flux,
            },
        )
    )
