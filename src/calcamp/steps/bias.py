"""BIAS01, BIAS02: read noise, offset structure and spectrum (basic), master bias (meta), per CCD."""

from __future__ import annotations

import math
import sys

from calcamp.detector.geometry import QUADRANTS, REGIONS
from calcamp.steps import runner


def basic(ctx: runner.Context) -> None:
    """Stream the raw frames once; write noise, offsets, profiles, spectrum and settling."""
    from calcamp.analysis.bias import BiasStream
    from calcamp.data.raw import RawError
    from calcamp.detector.arrays import quadrant_view

    options = ctx.options
    keep = options.get("spectrum_frames", 1) if options.get("spectrum", True) else 0
    streams, rows = {}, {}
    sigma = options.get("clip_sigma", 5.0)
    known = _measured_by_check(ctx, sigma)
    for number, exposure in enumerate(ctx.readable(), 1):
        try:
            raw = ctx.read(exposure)
        except RawError as error:
            ctx.exclude(exposure.obsid, f"{error.kind}: {error}")
            continue
        window = _window(ctx, exposure)
        for quadrant in QUADRANTS:
            if (exposure.obsid, quadrant) in ctx.selection():
                continue
            if quadrant not in streams:
                bad = _bad_pixels(ctx, quadrant)
                streams[quadrant] = BiasStream(ctx.detector, *window, sigma, bad, keep)
                rows[quadrant] = []
            view = quadrant_view(raw.data, quadrant, ctx.detector)
            frame = streams[quadrant].add(view, known.get((exposure.obsid, quadrant)))
            rows[quadrant].append((exposure, frame))
        ctx.progress(number, len(ctx.exposures))
    ctx.current = None
    _write_noise(ctx, streams)
    _write_offsets(ctx, rows)
    _write_profiles(ctx, streams)
    _write_model(ctx, streams, options.get("model_degree", 3))
    _write_settling(ctx, streams)
    if keep:
        _write_spectrum(ctx, streams)


def _measured_by_check(ctx: runner.Context, sigma: float) -> dict[tuple[int, str], dict]:
    """(obsid, quadrant) -> region -> moments that `check` found with the same clip and mask."""
    from calcamp.analysis.check import CLIP_SIGMA
    from calcamp.analysis.statistics import Clipped

    known: dict[tuple[int, str], dict] = {}
    for row in ctx.rows("check", "offsets") if sigma == CLIP_SIGMA else ():
        if row["n"] and row["offset"] is not None:
            aside = round(row["clipped"] * row["n"])
            moments = (
                row[k] if row[k] is not None else math.nan
                for k in ("offset", "offset_err", "noise", "noise_err")
            )
            known.setdefault((row["obsid"], row["quadrant"]), {})[row["region"]] = Clipped(
                *moments, row["n"] - aside, aside
            )
    return known


def _window(ctx: runner.Context, exposure: runner.Exposure) -> tuple[int, int]:
    """Rows commanded: vstart, vend."""
    return (
        int(exposure.values.get("vstart") or 0),
        int(exposure.values.get("vend") or ctx.detector.commanded_rows),
    )


def _bad_pixels(ctx: runner.Context, quadrant: str):
    """Pixels of the masks named, canonical, or None when there are none."""
    from calcamp.detector.arrays import quadrant_view
    from calcamp.detector.dq import BADMASK

    plane = ctx.dq_plane()
    if plane is None:
        return None
    bad = (quadrant_view(plane, quadrant, ctx.detector) & int(BADMASK)) != 0
    return bad if bad.any() else None


def _table(rows: list[dict], names: str) -> dict[str, list]:
    return {name: [row[name] for row in rows] for name in names.split()}


def _adu(names: str, unit: str = "ADU") -> dict[str, str]:
    return {out: unit for name in names.split() for out in (name, f"{name}_err")}


# ---- tables of basic ----------------------------------------------------------------------------------
_PARTS = "white row_noise column_pattern row_pattern fixed_pattern drift total"


def _write_noise(ctx: runner.Context, streams: dict) -> None:
    """Table ``read_noise``: from pairs with its parts, and from single frames in the scans."""
    rows = []
    for quadrant, stream in streams.items():
        for region in REGIONS:
            row = _noise_row(stream.noise(region))
            rows.append({"ccd": ctx.ccd, "quadrant": quadrant, "region": region, "method": "pairs", **row})
            if row["flag"] and region == "img":
                ctx.flag("BADDATA", f"read noise: {row['flag']}", quadrant=quadrant)
        for region in ("pre", "ove", "pov"):
            value, err, n = stream.single_frame_noise(region)
            row = dict.fromkeys((o for p in _PARTS.split() for o in (p, f"{p}_err")), math.nan)
            row |= {
                "read_noise": value,
                "read_noise_err": err,
                "n": n,
                "clipped": math.nan,
                "closure": math.nan,
            }
            row |= {"flag": "" if n else "no pixels"}
            rows.append({"ccd": ctx.ccd, "quadrant": quadrant, "region": region, "method": "overscan", **row})
    parts = " ".join(f"{p} {p}_err" for p in _PARTS.split())
    names = f"ccd quadrant region method read_noise read_noise_err {parts} closure n clipped flag"
    ctx.write_table(
        "read_noise",
        _table(rows, names),
        units=_adu(f"read_noise {_PARTS}"),
        descriptions={
            "read_noise": "pairs: differences of consecutive frames, white and row noise; overscan: single frames; rounding removed",
            "white": "noise within a row",
            "row_noise": "noise common to the pixels of a row, new in every frame",
            "column_pattern": "standing pattern of the columns",
            "row_pattern": "standing pattern of the rows",
            "fixed_pattern": "whole standing pattern, columns and rows included",
            "drift": "standard deviation of the level from frame to frame",
            "total": "all of it, measured directly",
            "closure": "white, row_noise, fixed_pattern and drift added in quadrature, over total",
            "clipped": "share of pixel differences clipped",
        },
    )


def _noise_row(parts) -> dict:
    noise, pattern = parts.noise, parts.pattern
    seen = noise.n + noise.n_clipped
    return {
        "read_noise": noise.read_noise,
        "read_noise_err": noise.read_noise_err,
        "white": noise.white,
        "white_err": noise.white_err,
        "row_noise": noise.row_noise,
        "row_noise_err": noise.row_noise_err,
        "column_pattern": pattern.column,
        "column_pattern_err": pattern.column_err,
        "row_pattern": pattern.row,
        "row_pattern_err": pattern.row_err,
        "fixed_pattern": pattern.fixed,
        "fixed_pattern_err": pattern.fixed_err,
        "drift": parts.drift,
        "drift_err": parts.drift_err,
        "total": parts.total,
        "total_err": parts.total_err,
        "closure": parts.closure,
        "n": noise.n,
        "clipped": noise.n_clipped / seen if seen else math.nan,
        "flag": noise.flag,
    }


def _write_offsets(ctx: runner.Context, frames: dict) -> None:
    """Table ``offset_frames``: offset, steps and gradients of every frame."""
    rows = []
    for quadrant, items in frames.items():
        mean = sum(frame.offset for _, frame in items) / len(items)
        for exposure, f in items:
            rows.append(
                {
                    "obsid": exposure.obsid,
                    "column": exposure.column,
                    "frame": exposure.frame,
                    "ccd": ctx.ccd,
                    "quadrant": quadrant,
                    "drift": f.offset - mean,
                    "flag": "" if math.isfinite(f.offset) else "no offset",
                    **{name: getattr(f, name) for name in _OFFSET_VALUES.split()},
                }
            )
    rows.sort(key=lambda row: row["obsid"])
    ctx.write_table(
        "offset_frames",
        _table(rows, f"obsid column frame ccd quadrant {_OFFSET_VALUES} drift n clipped flag"),
        units={
            **_adu("offset img_minus_pre ove_minus_pre"),
            "drift": "ADU",
            **_adu("gradient_rows gradient_columns"),
        },
        descriptions={
            "offset": "clipped mean of the prescan",
            "drift": "offset minus the mean over the frames",
            "gradient_rows": "slope of the image area with increasing row, per 1000 px",
            "gradient_columns": "slope of the image area with increasing column, per 1000 px",
        },
    )


_OFFSET_VALUES = (
    "offset offset_err img_minus_pre img_minus_pre_err ove_minus_pre ove_minus_pre_err "
    "gradient_rows gradient_rows_err gradient_columns gradient_columns_err n clipped"
)


def _write_profiles(ctx: runner.Context, streams: dict) -> None:
    """Table ``profiles``: mean frame along rows and columns, above the prescan."""
    columns = {name: [] for name in ("ccd", "quadrant", "axis", "position", "value", "value_err")}
    for quadrant, stream in streams.items():
        for axis, (position, value, err) in stream.profiles().items():
            _extend(columns, ctx.ccd, quadrant, axis, position=position, value=value, value_err=err)
    ctx.write_table("profiles", columns, units={"position": "px", "value": "ADU", "value_err": "ADU"})


def _extend(columns: dict, ccd: int, quadrant: str, axis: str | None, **arrays) -> None:
    n = len(next(iter(arrays.values())))
    columns["ccd"] += [ccd] * n
    columns["quadrant"] += [quadrant] * n
    if axis is not None:
        columns["axis"] += [axis] * n
    for name, values in arrays.items():
        columns[name] += values.tolist()


def _write_model(ctx: runner.Context, streams: dict, degree: int) -> None:
    """Table ``offset_model``: low-order surface of the image area of the mean frame."""
    rows = []
    for quadrant, stream in streams.items():
        surface = stream.surface(degree)
        for (i, j), value, err in zip(surface.terms, surface.fit.parameters, surface.fit.errors, strict=True):
            rows.append(
                {
                    "ccd": ctx.ccd,
                    "quadrant": quadrant,
                    "degree_rows": i,
                    "degree_columns": j,
                    "coefficient": float(value),
                    "coefficient_err": float(err),
                    "rms": surface.rms,
                    "n": surface.fit.n,
                    "flag": surface.fit.reason,
                }
            )
        if surface.fit.reason:
            ctx.flag("BADFIT", f"offset model: {surface.fit.reason}", quadrant=quadrant)
    ctx.write_table(
        "offset_model",
        _table(rows, "ccd quadrant degree_rows degree_columns coefficient coefficient_err rms n flag"),
        units={**_adu("coefficient"), "rms": "ADU"},
        descriptions={
            "coefficient": "of Legendre polynomials in row and column, scaled to -1..1 over the image area",
            "rms": "scatter of the box means about the surface",
        },
    )


def _write_settling(ctx: runner.Context, streams: dict) -> None:
    """Table ``settling``: exponential settling at the start of a row and of the frame."""
    names = "amplitude amplitude_err scale scale_err chi2_dof significance flag"
    rows = [
        {"ccd": ctx.ccd, "quadrant": quadrant, "start_of": of, **{n: getattr(s, n) for n in names.split()}}
        for quadrant, stream in streams.items()
        for of, s in stream.settling().items()
    ]
    ctx.write_table(
        "settling",
        _table(rows, f"ccd quadrant start_of {names}"),
        units={**_adu("amplitude"), **_adu("scale", "px")},
        descriptions={
            "amplitude": "at the first pixel or row",
            "scale": "e-folding length, NaN when not significant",
        },
    )


def _write_spectrum(ctx: runner.Context, streams: dict) -> None:
    """Tables ``spectrum`` and ``spectrum_peaks``."""
    from calcamp.analysis.spectrum import line_time

    detector = ctx.detector
    toi_ro = float(ctx.exposures[0].values.get("toi_ro") or 1000) if ctx.exposures else 1000.0
    line = line_time(toi_ro, detector.columns, detector.pixel_time_s, ctx.options.get("line_extra_px", 0))
    columns = {n: [] for n in ("ccd", "quadrant", "frequency", "power", "power_err", "component")}
    peaks = []
    for quadrant, stream in streams.items():
        found = stream.spectrum(detector.pixel_time_s, line)
        _extend(
            columns,
            ctx.ccd,
            quadrant,
            None,
            frequency=found.frequency,
            power=found.power,
            power_err=found.power_err,
            component=found.component,
        )
        for peak in found.peaks:
            peaks.append(
                {"ccd": ctx.ccd, "quadrant": quadrant, **{n: getattr(peak, n) for n in _PEAK.split()}}
            )
    ctx.write_table(
        "spectrum",
        columns,
        units={"frequency": "Hz", "power": "ADU2/Hz", "power_err": "ADU2/Hz"},
        descriptions={"component": "rows: from row means; pixels: from the pixels along the lines"},
    )
    ctx.write_table(
        "spectrum_peaks",
        _table(peaks, f"ccd quadrant {_PEAK}"),
        units={**_adu("frequency", "Hz"), **_adu("amplitude")},
        descriptions={
            "amplitude": "of the sine wave",
            "ratio": "power over the local noise power",
            "log10_chance": "log10 of the probability that noise makes such a peak anywhere in the spectrum",
        },
    )


_PEAK = "frequency frequency_err amplitude amplitude_err ratio log10_chance"


# ---- master bias ----------------------------------------------------------------------------------------
#: Frames held at once with all four quadrants; with more, fewer quadrants at a time are read.
FRAMES_AT_ONCE = 12


def meta(ctx: runner.Context) -> None:
    """Master bias: clipped mean with error, count and data quality; its fixed pattern."""
    import numpy as np

    from calcamp.detector.arrays import assemble
    from calcamp.detector.dq import DQ

    ctx.prep_options = {**ctx.prep_options, "use_bias": False, "use_flat": False}
    planes: dict[str, dict] = {"STACK": {}, "ERROR": {}, "COUNT": {}, "DQ": {}}
    rows = []
    for quadrants in _groups(len(ctx.readable())):
        for quadrant, frames, static in _stacks(ctx, quadrants):
            if not frames:
                ctx.flag("BADDATAPROD", "no usable frame for the master bias", quadrant=quadrant)
                rows.append(
                    {"ccd": ctx.ccd, "quadrant": quadrant, "frames": 0, **_NO_MASTER, "flag": "no frame"}
                )
                continue
            master, row = _master(ctx, frames)
            rows.append({"ccd": ctx.ccd, "quadrant": quadrant, **row})
            dq = static.copy()
            dq.reshape(-1)[master.unstable] |= np.uint32(DQ.UNSTABLE)
            dq[master.count == 0] |= np.uint32(DQ.MASKED)
            parts = (master.mean, master.err, master.count, dq)
            for name, plane in zip(planes, parts, strict=True):
                planes[name][quadrant] = plane
            frames.clear()
    _write_master_table(ctx, rows)
    if not planes["STACK"]:
        return
    fills = {"STACK": np.nan, "ERROR": np.nan, "COUNT": 0, "DQ": int(DQ.MASKED)}
    images = (  # one at a time in memory
        (
            name,
            assemble(planes.pop(name), ctx.detector, fill=fills[name]),
            "ADU" if name in ("STACK", "ERROR") else "",
            {},
        )
        for name in list(planes)
    )
    ctx.write_product(
        "bias",
        f"EUC_MASTERBIAS_CCD{ctx.ccd}_SN_{ctx.serial}_{ctx.block}.fits",
        images,
        header={"NCOMB": max(row["frames"] for row in rows), "CLIP": ctx.options.get("clip_sigma", 3.0)},
    )


def _groups(frames: int) -> list[tuple[str, ...]]:
    """Quadrants worked on together, so that memory does not grow with the number of frames."""
    together = 4 if frames <= FRAMES_AT_ONCE else 2 if frames <= 2 * FRAMES_AT_ONCE else 1
    return [QUADRANTS[k : k + together] for k in range(0, 4, together)]


def _stacks(ctx: runner.Context, quadrants):
    """For each quadrant: (quadrant, list of (frame, invalid pixels), static data quality).

    Only the quadrants asked for stay in memory: when all four are, the frame itself is kept.
    """
    from calcamp.data.raw import RawError
    from calcamp.detector.arrays import quadrant_view

    kept: dict[str, list] = {q: [] for q in quadrants}
    static = None
    for number, exposure in enumerate(ctx.readable(), 1):
        try:
            prepared = ctx.prepared(exposure, on_demand=len(quadrants) == 4)
        except RawError as error:
            ctx.exclude(exposure.obsid, f"{error.kind}: {error}")
            continue
        static = prepared.calibration.dq
        for quadrant in quadrants:
            if (exposure.obsid, quadrant) in ctx.selection():
                continue
            data = prepared.data[quadrant]
            kept[quadrant].append((data if len(quadrants) == 4 else data.copy(), prepared.invalid(quadrant)))
        ctx.progress(number, len(ctx.exposures))
    ctx.current = None
    for quadrant in quadrants:
        plane = None if static is None else quadrant_view(static, quadrant, ctx.detector)
        yield quadrant, kept[quadrant], plane


def _master(ctx: runner.Context, frames: list):
    """Master of one quadrant and its row of the table."""
    import numpy as np

    from calcamp.analysis.bias import clipped_stack, stack_noise
    from calcamp.analysis.statistics import clipped

    images = [data for data, _ in frames]
    area = ctx.detector.region("img")
    noise = stack_noise(images, area) if len(images) > 1 else clipped(images[0][area], 5.0, rounded=0).std
    options = ctx.options
    master = clipped_stack(
        images,
        noise,
        options.get("clip_sigma", 3.0),
        options.get("clip_iterations", 3),
        [invalid for _, invalid in frames],
        area=area,
    )
    level = {name: clipped(master.mean[ctx.detector.region(name)], 5.0, rounded=0) for name in ("img", "ove")}
    row = {
        "frames": len(images),
        "noise": noise,
        "image_level": level["img"].mean,
        "overscan_level": level["ove"].mean,
        "mean_count": float(np.mean(master.count, dtype=float)),
        "unstable": int(master.unstable.size),
        "flag": "" if len(images) > 1 else "one frame: no pattern, no clip",
    }
    for name, source in _PATTERN.items():
        row[name] = getattr(master.pattern, source) if master.pattern else math.nan
        row[f"{name}_err"] = getattr(master.pattern, f"{source}_err") if master.pattern else math.nan
    return master, row


_PATTERN = {
    "fixed_pattern": "fixed",
    "row_pattern": "row",
    "column_pattern": "column",
    "residual_pattern": "residual",
}
_NO_MASTER = {
    **dict.fromkeys((o for n in _PATTERN for o in (n, f"{n}_err")), math.nan),
    **dict.fromkeys(("noise", "image_level", "overscan_level", "mean_count"), math.nan),
    "unstable": 0,
}


def _write_master_table(ctx: runner.Context, rows: list[dict]) -> None:
    """Table ``master_bias``: fixed pattern of the image area and its parts."""
    patterns = " ".join(f"{n} {n}_err" for n in _PATTERN)
    names = f"ccd quadrant frames {patterns} noise image_level overscan_level mean_count unstable flag"
    ctx.write_table(
        "master_bias",
        _table(rows, names),
        units={
            **_adu(" ".join(_PATTERN)),
            "noise": "ADU",
            "image_level": "ADU",
            "overscan_level": "ADU",
            "unstable": "px",
        },
        descriptions={
            "fixed_pattern": "rms of the standing pattern of the image area, noise removed",
            "residual_pattern": "what is neither row nor column pattern",
            "noise": "of one prepared frame, rounding included",
            "image_level": "clipped mean above the prescan",
            "mean_count": "frames used per pixel, mean",
            "unstable": "pixels that scatter too much from frame to frame",
        },
    )


if __name__ == "__main__":
    sys.exit(runner.run("bias", {"basic": basic, "meta": meta}))
