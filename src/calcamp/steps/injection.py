"""CHINJ01, CHINJ02: injected lines frame by frame (extract), uniformity (basic), per CCD; curves (meta), of the block."""

from __future__ import annotations

import math
import sys

from calcamp.campaign.injection import WINDOWS, scanned
from calcamp.detector.geometry import CCDS, QUADRANTS, SCRIPT_SUFFIX_HALF, half_of
from calcamp.steps import runner

_LETTER = {half: letter for letter, half in SCRIPT_SUFFIX_HALF.items()}
_KEYS = "obsid column frame ccd quadrant half matched delay_ratio ig1 ig2 idl"
#: Of quadrants without matching delay every so many columns are measured.
_FEW = 4
_PROFILES = "EUC_INJPROFIMG_CCD{ccd}_{block}.fits"


def commanded(exposure: runner.Exposure, ccd: int, quadrant: str) -> dict:
    """What decides the injection of a quadrant: voltages of its half, delay in units of the clock, match."""
    half, values = half_of(quadrant), exposure.values

    def number(key):
        try:
            return float(values.get(key))
        except (TypeError, ValueError):
            return math.nan

    toi = number("toi_ch")
    ratio = number("id_dly") / toi if toi > 0 else math.nan
    low, high = WINDOWS[half]
    return {
        "half": half,
        "matched": bool(low <= ratio <= high),
        "delay_ratio": ratio,
        "ig1": number(f"IG1_{ccd}_{_LETTER[half]}"),
        "ig2": number(f"IG2_{_LETTER[half]}"),
        "idl": number("IDL"),
    }


def keys(ctx: runner.Context, exposure: runner.Exposure, quadrant: str) -> dict:
    """Key columns of a row."""
    return {
        "obsid": exposure.obsid,
        "column": exposure.column,
        "frame": exposure.frame,
        "ccd": ctx.ccd,
        "quadrant": quadrant,
        **commanded(exposure, ctx.ccd, quadrant),
    }


def window(ctx: runner.Context, exposure: runner.Exposure) -> tuple[int, int]:
    """Canonical rows read, [first, last)."""
    vend = int(exposure.values.get("vend") or ctx.detector.commanded_rows)
    return ctx.detector.read_rows(int(exposure.values.get("vstart") or 0), vend)


# ---- extract ------------------------------------------------------------------------------------------------
_VALUES = (
    "level level_err std signal signal_err background columns_rms columns_rms_err pixel_noise line_noise trend trend_err "
    "first_line first_line_err spill spill_err shutdown shutdown_err cti cti_err"
)
_PERCENT = "minimum p5 p25 p50 p75 p95 maximum"


def extract(ctx: runner.Context) -> None:
    """Measure the injected lines of every frame in one pass; profiles of matched halves go to a product."""
    import numpy as np

    from calcamp.analysis.injection import measure_injection
    from calcamp.data.raw import RawError

    rows, blocks, lines = [], [], []
    profiles = {q: {"keys": [], "value": [], "err": []} for q in QUADRANTS}
    for number, exposure in enumerate(ctx.readable(), 1):
        try:
            prepared = ctx.prepared(exposure, in_place=True)
        except RawError as error:
            ctx.exclude(exposure.obsid, f"{error.kind}: {error}")
            continue
        on, off = (int(exposure.values.get(key) or 0) for key in ("chinj_on", "chinj_of"))
        first, last = window(ctx, exposure)
        for quadrant in QUADRANTS:
            if (exposure.obsid, quadrant) in ctx.selection():
                continue
            row = keys(ctx, exposure, quadrant)
            # Where the delay is that of the other half only the level is wanted: some columns tell it.
            image, mask = prepared.image(quadrant), prepared.image_mask(quadrant)
            if not row["matched"]:
                image, mask = np.ascontiguousarray(image[:, ::_FEW]), mask[:, ::_FEW]
            found = measure_injection(
                image,
                on,
                off,
                mask if mask[first:last].any() else None,
                first,
                last,
                ctx.options.get("sigma", 6.0),
            )
            rows.append({**row, **_values(found)})
            blocks += _blocks(row, found)
            if row["matched"]:
                lines += _lines(row, found)
                profile = profiles[quadrant]
                profile["keys"].append(row)
                profile["value"].append(found.columns.astype(np.float32))
                profile["err"].append(found.columns_err.astype(np.float32))
            saturated = prepared.saturated[quadrant]
            if row["matched"] and saturated > ctx.options.get("max_saturated", 1000):
                ctx.flag(
                    "SATURATION", f"{saturated} saturated pixels", quadrant=quadrant, obsid=exposure.obsid
                )
        ctx.progress(number, len(ctx.exposures))
    ctx.current = None
    _write_injection(ctx, rows)
    _write_blocks(ctx, blocks)
    _write_lines(ctx, lines)
    if any(p["keys"] for p in profiles.values()):
        _write_profiles(ctx, profiles)
    if not rows:
        ctx.flag("MISSDATA", "no usable frame")


def _values(found) -> dict:
    values = {
        "level": found.above_offset,
        "level_err": found.level_err,
        "std": found.std,
        "signal": found.level,
        "signal_err": found.level_err,
        **{name: getattr(found, name) for name in _VALUES.split()[5:]},
        **dict(zip(_PERCENT.split(), found.percentiles, strict=True)),
    }
    p5, p50, p95 = values["p5"], values["p50"], values["p95"]
    values["nonuniformity_vison"] = (p95 - p5) / p50 if p50 else math.nan
    pattern = found.pattern
    return {
        **values,
        "phase": pattern.phase,
        "lines_on": pattern.on,
        "lines_off": pattern.off,
        "pattern_found": pattern.found,
        "n": found.n,
        "flag": found.flag,
    }


def _table(rows: list[dict], names: str) -> dict[str, list]:
    return {name: [row[name] for row in rows] for name in names.split()}


def _write_injection(ctx, rows) -> None:
    adu = [
        "level",
        "level_err",
        "std",
        "signal",
        "signal_err",
        "background",
        "pixel_noise",
        "line_noise",
        *_PERCENT.split(),
    ]
    ctx.write_table(
        "injection",
        _table(
            rows,
            f"{_KEYS} {_VALUES} {_PERCENT} nonuniformity_vison phase lines_on lines_off pattern_found n flag",
        ),
        units={**dict.fromkeys(adu, "ADU"), **dict.fromkeys(("ig1", "ig2", "idl"), "V"), "n": "px"},
        descriptions={
            "matched": "the delay of the drain pulse suits this half",
            "delay_ratio": "id_dly over toi_ch",
            "level": "median of the injected lines above the offset",
            "std": "standard deviation of the injected lines",
            "signal": "mean of the middle half of the columns, plateau above the lines without injection",
            "columns_rms": "pattern from column to column, share of the signal, noise taken off",
            "first_line": "deficit of the first injected line, share of the signal",
            "spill": "first line after a block, share of the signal",
            "shutdown": "charge after a block at zero transfers, share of the signal",
            "cti": "deferred charge per transfer from the growth of the tail with the row",
            "phase": "first injected line",
            "pattern_found": "phase and length are measured; else as commanded",
            "nonuniformity_vison": "(p95 - p5) / p50 of the injected pixels",
        },
    )


def _blocks(row: dict, found) -> list[dict]:
    if found.blocks is None or not row["matched"]:
        return []
    b = found.blocks
    names = [n for n in _BLOCKS.split() if n not in ("n", "flag")]
    return [
        {**row, **{n: float(getattr(b, n)[k]) for n in names}, "n": int(b.lines[k]), "flag": ""}
        for k in range(b.cycle.size)
    ]


_BLOCKS = "cycle first_row level level_err first_line first_line_err spill spill_err tail tail_err n flag"


def _write_blocks(ctx, rows) -> None:
    ctx.write_table(
        "blocks",
        _table(rows, f"obsid column frame ccd quadrant ig1 ig2 idl {_BLOCKS}"),
        units={**dict.fromkeys(("level", "level_err"), "ADU"), **dict.fromkeys(("ig1", "ig2", "idl"), "V")},
        descriptions={
            "level": "plateau of the block above the lines without injection",
            "tail": "first 20 lines after the block, sum, share of the level",
            "n": "lines of the plateau",
        },
    )


def _lines(row: dict, found) -> list[dict]:
    """Profile along a cycle; every place near the edges of the block, every fourth elsewhere."""
    out, on = [], found.pattern.on
    for place, (value, err) in enumerate(zip(found.lines, found.lines_err, strict=True)):
        if place % 4 and not (place < 4 or on - 3 <= place < on + 30):
            continue
        out.append({**row, "place": place, "value": float(value), "value_err": float(err)})
    return out


def _write_lines(ctx, rows) -> None:
    ctx.write_table(
        "line_profiles",
        _table(rows, "obsid column ccd quadrant ig1 ig2 idl place value value_err"),
        units={"value": "ADU", "value_err": "ADU", "ig1": "V", "ig2": "V", "idl": "V"},
        descriptions={"place": "line of the cycle, 0 is the first injected one"},
    )


def _write_profiles(ctx, profiles) -> None:
    """Product: level of every column (image columns, canonical) in every matched frame."""
    import numpy as np

    images, tables = [], []
    for quadrant, profile in profiles.items():
        if not profile["keys"]:
            continue
        images.append((f"LEVEL_{quadrant}", np.stack(profile["value"]), "ADU", {}))
        images.append((f"ERROR_{quadrant}", np.stack(profile["err"]), "ADU", {}))
        names = ("obsid", "ig1", "ig2", "idl")
        tables.append(
            (
                f"FRAMES_{quadrant}",
                {n: np.array([k[n] for k in profile["keys"]]) for n in names},
                {"ig1": "V", "ig2": "V", "idl": "V"},
            )
        )
    name = _PROFILES.format(ccd=ctx.ccd, block=ctx.block)
    ctx.write_product("injection_profiles", name, images, {}, tables)


# ---- basic ------------------------------------------------------------------------------------------------
def basic(ctx: runner.Context) -> None:
    """Uniformity along a line, at the setting nearest the nominal one; columns that take no charge."""
    import numpy as np

    from calcamp.analysis.injection import bad_columns
    from calcamp.data.fitsfile import read_image

    name = _PROFILES.format(ccd=ctx.ccd, block=ctx.block)
    path = ctx.sibling("extract") / "products" / name
    uniform, profile, bad = [], [], []
    frames = {(r["obsid"], r["quadrant"]): r for r in ctx.rows("extract", "injection") if r["matched"]}
    for quadrant in QUADRANTS:
        row = _nominal([r for (_, q), r in frames.items() if q == quadrant], scanned(ctx.test))
        if row is None or not path.is_file():
            uniform.append(_no_uniformity(ctx, quadrant))
            continue
        # Frames of a quadrant are in the order of the table.
        order = [o for (o, q) in frames if q == quadrant]
        k = order.index(row["obsid"])
        values = read_image(path, f"LEVEL_{quadrant}")[0][k].astype(float)
        errors = read_image(path, f"ERROR_{quadrant}")[0][k].astype(float)
        defect = bad_columns(values)
        good = np.isfinite(values)
        good[defect] = False
        uniform.append(
            {
                **{
                    key: row[key]
                    for key in ("obsid", "column", "frame", "ccd", "quadrant", "ig1", "ig2", "idl")
                },
                "level": row["signal"],
                "level_err": row["signal_err"],
                "nonuniformity": 100 * row["columns_rms"] if row["columns_rms"] is not None else math.nan,
                "nonuniformity_err": 100 * row["columns_rms_err"]
                if row["columns_rms_err"] is not None
                else math.nan,
                "nonuniformity_vison": 100 * row["nonuniformity_vison"],
                "lowest": 100 * float(np.nanmin(values) / np.nanmedian(values) - 1)
                if good.any()
                else math.nan,
                "highest": 100 * float(np.nanmax(values) / np.nanmedian(values) - 1)
                if good.any()
                else math.nan,
                "n_bad": int(defect.size),
                "n": int(good.sum()),
                "flag": "" if good.any() else "no usable column",
            }
        )
        bad += [
            {
                "ccd": ctx.ccd,
                "quadrant": quadrant,
                "image_column": int(c),
                "level": float(values[c]),
                "share": float(values[c] / np.nanmedian(values)),
            }
            for c in defect
        ]
        profile += _column_rows(ctx, quadrant, values, errors)
    _write_basic(ctx, uniform, profile, bad)


def _nominal(rows: list[dict], kind: str) -> dict | None:
    """The frame that stands for the test: IG1 nearest 4.5 V (IDL 11 V), as in the predecessor's profiles."""
    at, key = (4.5, "ig1") if kind == "IG1" else (11.0, "idl")
    rows = [r for r in rows if r["signal"] is not None and r[key] is not None]
    return min(rows, key=lambda r: abs(r[key] - at), default=None)


def _no_uniformity(ctx, quadrant: str) -> dict:
    row = dict.fromkeys((*_UNIFORM.split(), "ig1", "ig2", "idl"), math.nan)
    return {
        **row,
        "obsid": 0,
        "column": 0,
        "frame": 0,
        "ccd": ctx.ccd,
        "quadrant": quadrant,
        "n_bad": 0,
        "n": 0,
        "flag": "no frame with the delay of this half",
    }


_UNIFORM = "level level_err nonuniformity nonuniformity_err nonuniformity_vison lowest highest n_bad n flag"


def _column_rows(ctx, quadrant, values, errors, most: int = 256) -> list[dict]:
    """Profile across columns in means of neighbours, relative to the median."""
    import numpy as np

    step = max(1, values.size // most)
    size = values.size // step * step
    middle = np.nanmedian(values)
    groups = values[:size].reshape(-1, step) / middle
    counts = np.isfinite(groups).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.nansum(groups, axis=1) / counts
        error = np.sqrt(np.nansum(np.square(errors[:size].reshape(-1, step) / middle), axis=1)) / counts
    place = (np.arange(size // step) + 0.5) * step - 0.5
    return [
        {"ccd": ctx.ccd, "quadrant": quadrant, "position": float(p), "value": float(v), "value_err": float(e)}
        for p, v, e in zip(place, mean, error, strict=True)
    ]


def _write_basic(ctx, uniform, profile, bad) -> None:
    ctx.write_table(
        "uniformity",
        _table(uniform, f"obsid column frame ccd quadrant ig1 ig2 idl {_UNIFORM}"),
        units={
            **dict.fromkeys(("ig1", "ig2", "idl"), "V"),
            **dict.fromkeys(("level", "level_err"), "ADU"),
            **dict.fromkeys(
                ("nonuniformity", "nonuniformity_err", "nonuniformity_vison", "lowest", "highest"), "%"
            ),
        },
        descriptions={
            "nonuniformity": "rms from column to column, noise taken off",
            "nonuniformity_vison": "(p95 - p5)/p50 of the injected pixels",
            "lowest": "column farthest below the median",
            "n_bad": "columns that take too little or too much charge",
        },
    )
    ctx.write_table(
        "profiles",
        _table(profile, "ccd quadrant position value value_err"),
        units={"position": "px"},
        descriptions={"position": "image column", "value": "level over the median of the columns"},
    )
    ctx.write_table(
        "bad_columns",
        _table(bad, "ccd quadrant image_column level share"),
        units={"level": "ADU", "image_column": "px"},
        descriptions={"share": "level over the median of the columns"},
    )


# ---- meta ------------------------------------------------------------------------------------------------
_FIT = (
    "threshold threshold_err v0 v0_err steepness steepness_err background background_err notch notch_err notch_e notch_e_err "
    "knee knee_err slope slope_err slope_e slope_e_err amplitude amplitude_err amplitude_e amplitude_e_err width scatter shape "
    "chi2 dof"
)


def meta(ctx: runner.Context) -> None:
    """Curves of the injected level against the scanned voltage, all quadrants together; which half each delay injects."""
    from calcamp.analysis.injection import fit_curves

    kind = scanned(ctx.test)
    volts = "ig1" if kind == "IG1" else "idl"
    table = {ccd: ctx.rows("extract", "injection", ccd) for ccd in CCDS}
    found = {}
    for ccd, rows in table.items():
        for quadrant in QUADRANTS if rows else ():
            found[ccd, quadrant] = [
                r for r in rows if r["quadrant"] == quadrant and r["matched"] and r["signal"] is not None
            ]
    data = [tuple([r[n] for r in rows] for n in (volts, "signal", "signal_err")) for rows in found.values()]
    curves = fit_curves(kind, data, ctx.options.get("relative_error", 0.005))
    results, points = [], []
    for ((ccd, quadrant), rows), curve in zip(found.items(), curves, strict=True):
        results.append(
            _result(
                ccd,
                quadrant,
                kind,
                curve,
                rows,
                ctx.gains(ccd)[quadrant],
                ctx.options.get("linearity_error", 0.001),
            )
        )
        if curve.flag:
            ctx.flag("BADFIT", f"level against {kind}: {curve.flag}", ccd=ccd, quadrant=quadrant)
        if curve.parameters:
            points += _curve_rows(ccd, quadrant, curve, [r[volts] for r in rows])
    _write_meta(ctx, results, points, kind)
    _write_delays(ctx, table)


def _result(ccd, quadrant, kind, curve, rows, gain_of, linearity) -> dict:
    gain, gain_err, nominal = gain_of
    relative = gain_err / gain if gain_err and math.isfinite(gain_err) else 0.0
    other = {r["idl"] if kind == "IG1" else r["ig1"] for r in rows}
    fixed = other.pop() if len(other) == 1 else math.nan
    out = {
        "ccd": ccd,
        "quadrant": quadrant,
        "kind": kind,
        **{name: getattr(curve, name, math.nan) for name in _FIT.split()},
        "v0": (fixed - curve.threshold) if kind == "IG1" else (curve.threshold - fixed),
        "v0_err": curve.threshold_err,
        "gain_nominal": nominal,
        "n": curve.n,
        "flag": curve.flag,
    }
    for name in ("notch", "slope", "amplitude"):
        value, err = getattr(curve, name), getattr(curve, f"{name}_err")
        if name != "notch":
            # Levels of thousands of ADU are as linear as the chain is; those of the notch and of nothing differ little.
            out[f"{name}_err"] = err = math.hypot(err, value * linearity)
        out[f"{name}_e"] = value * gain
        out[f"{name}_e_err"] = gain * math.hypot(err, value * relative)
    return out


def _curve_rows(ccd, quadrant, curve, x) -> list[dict]:
    import numpy as np

    volts = np.linspace(min(x), max(x), 120)
    return [
        {"ccd": ccd, "quadrant": quadrant, "volts": float(v), "level": float(y)}
        for v, y in zip(volts, curve.evaluate(volts), strict=True)
    ]


def _write_meta(ctx, results, points, kind) -> None:
    adu = [n + s for n in ("background", "notch", "amplitude") for s in ("", "_err")]
    electrons = [n + s for n in ("notch_e", "amplitude_e") for s in ("", "_err")]
    volts = [n + s for n in ("threshold", "v0", "knee") for s in ("", "_err")] + ["width"]
    ctx.write_table(
        "injection_fit",
        _table(results, f"ccd quadrant kind {_FIT} gain_nominal n flag"),
        units={
            **dict.fromkeys(adu, "ADU"),
            **dict.fromkeys(electrons, "e-"),
            **dict.fromkeys(volts, "V"),
            **dict.fromkeys(("steepness", "steepness_err"), "1/V"),
            **dict.fromkeys(("slope", "slope_err"), "ADU/V"),
            **dict.fromkeys(("slope_e", "slope_e_err"), "e-/V"),
        },
        descriptions={
            "threshold": f"{kind} at half of the level drawn on from beyond",
            "v0": "IDL minus IG1 at the threshold: the same in CHINJ01 and CHINJ02",
            "steepness": "K of the transition; its error is inf when the scan does not resolve it",
            "notch": "level above background beyond the knee",
            "knee": "voltage where the straight part meets the notch",
            "slope": "of the straight part, falling; the error holds the non-linearity of the chain",
            "amplitude": "full level above background; the error holds the non-linearity of the chain",
            "scatter": "of the levels from frame to frame beyond their errors, share of the level",
            "shape": "share of the charge whose place in the transition the curve does not tell, all quadrants together",
        },
    )
    ctx.write_table(
        "injection_curve",
        _table(points, "ccd quadrant volts level"),
        units={"volts": "V", "level": "ADU"},
        descriptions={"volts": kind},
    )


def _write_delays(ctx, table) -> None:
    """Table ``delays``: highest level per half and delay: which half is injected for which."""
    rows = []
    for ccd, quadrant in ((c, q) for c, known in table.items() if known for q in QUADRANTS):
        own = [r for r in table[ccd] if r["quadrant"] == quadrant and r["signal"] is not None]
        highest = {}
        for ratio in sorted({r["delay_ratio"] for r in own if r["delay_ratio"] is not None}):
            part = [r for r in own if r["delay_ratio"] == ratio]
            best = max(part, key=lambda r: r["signal"])
            highest[bool(best["matched"])] = best["signal"]
            rows.append(
                {
                    "ccd": ccd,
                    "quadrant": quadrant,
                    "half": best["half"],
                    "delay_ratio": ratio,
                    "expected": best["matched"],
                    "signal": best["signal"],
                    "signal_err": best["signal_err"],
                    "n": len(part),
                }
            )
        if True in highest and highest.get(False, 0.0) > 0.5 * max(highest[True], 1.0):
            ctx.flag(
                "FLUENCE_OOL",
                f"the delay of the other half injects {highest[False]:.0f} ADU, its own {highest[True]:.0f} ADU",
                ccd=ccd,
                quadrant=quadrant,
            )
    ctx.write_table(
        "delays",
        _table(rows, "ccd quadrant half delay_ratio expected signal signal_err n"),
        units={"signal": "ADU", "signal_err": "ADU"},
        descriptions={"signal": "highest of the scan", "expected": "the delay suits this half"},
    )


if __name__ == "__main__":
    sys.exit(runner.run("injection", {"extract": extract, "basic": basic, "meta": meta}))
