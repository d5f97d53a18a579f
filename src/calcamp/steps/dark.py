"""DARK01: dark current, hot pixels and columns, master dark and mask (meta), per CCD."""

from __future__ import annotations

import math
import sys

from calcamp.detector.geometry import QUADRANTS
from calcamp.steps import runner


def meta(ctx: runner.Context) -> None:
    """Everything that the darks of one CCD tell; master dark and mask of hot pixels and columns."""
    import numpy as np

    from calcamp.analysis.dark import analyse_quadrant

    options, gains = ctx.options, ctx.gains()
    prepared, frames, invalid, calibration = _prepare(ctx)
    bias = calibration and calibration.bias
    used: dict[str, list] = {}
    for quadrant in QUADRANTS:
        picked = [e for e in frames if (e.obsid, quadrant) not in ctx.selection()]
        if not picked:
            ctx.flag("BADDATAPROD", "no usable dark frame", quadrant=quadrant)
            continue
        used[quadrant] = picked
        if len(picked) < 3:
            ctx.flag(
                "MISSDATA", f"{len(picked)} dark frames: cosmic rays are not rejected well", quadrant=quadrant
            )

    # Frames stay raw; one quadrant of each at a time is made float, always in the same memory.
    rooms = [np.empty(ctx.detector.quadrant_shape, np.float32) for _ in frames]
    planes = _Planes(ctx.detector, used)

    def analyse(quadrant: str):
        picked = [k for k, e in enumerate(frames) if e in used[quadrant]]
        gain, gain_err, _ = gains[quadrant]
        result = analyse_quadrant(
            [_pixels(prepared[k][quadrant], rooms[k]) for k in picked],
            [float(frames[k].values["exptime"]) for k in picked],
            ctx.detector,
            gain,
            gain_err if gain_err and math.isfinite(gain_err) else None,
            mask=_known_bad(calibration, quadrant, ctx.detector),
            invalid=[invalid[k][quadrant] for k in picked],
            bias_error=_bias_error(ctx, bias, quadrant),
            vstart=int(frames[0].values.get("vstart") or 0),
            vend=int(frames[0].values.get("vend") or ctx.detector.commanded_rows),
            cosmic_sigma=options.get("cosmic_sigma", 5.0),
            cosmic_grow=options.get("cosmic_grow", 1),
            hot_sigma=options.get("hot_sigma", 5.0),
            hot_rate=options.get("hot_rate_e_s", 0.05),
            column_sigma=options.get("column_sigma", 7.0),
            background_box=options.get("background_box", 64),
        )
        if result.current.reason:
            ctx.flag("POORQUALDATA", f"dark current {result.current.reason}", quadrant=quadrant)
        return planes.take(quadrant, result)

    results = {quadrant: analyse(quadrant) for quadrant in used}
    ctx.current = None
    temperature = ctx.temperature(frames)
    _write_dark(ctx, results, used, gains, temperature, bias is not None)
    _write_exposures(ctx, results, used, gains)
    _write_hot(ctx, results, used, gains)
    _write_columns(ctx, results, used, gains)
    _write_profiles(ctx, results)
    _write_histogram(ctx, results)
    _write_tiles(ctx, results, used, gains)
    if results:
        prepared.clear()
        rooms.clear()
        _write_products(ctx, results, planes, used, temperature)


class _Planes:
    """Planes of the master of the whole CCD, stored orientation; `take` fills those of the quadrants `used`."""

    def __init__(self, detector, used):
        import numpy as np

        from calcamp.detector.arrays import quadrant_view
        from calcamp.detector.dq import DQ

        self.detector = detector
        self.mean = np.empty(detector.ccd_shape, np.float32)
        self.count = np.empty(detector.ccd_shape, np.uint8)
        self.dq = np.empty(detector.ccd_shape, np.uint32)
        for quadrant in set(QUADRANTS) - set(used):
            quadrant_view(self.mean, quadrant, detector)[...] = np.nan
            quadrant_view(self.count, quadrant, detector)[...] = 0
            quadrant_view(self.dq, quadrant, detector)[...] = int(DQ.NON_IMAGE)

    def take(self, quadrant: str, result):
        """The result with its planes moved here."""
        from dataclasses import replace

        from calcamp.detector.arrays import quadrant_view

        views = {}
        for name in ("mean", "count", "dq"):
            views[name] = quadrant_view(getattr(self, name), quadrant, self.detector)
            views[name][...] = getattr(result.master, name)
        return replace(result, master=replace(result.master, **views))


def _pixels(data, room):
    """Pixels of a quadrant of a prepared frame, float32."""
    return data if hasattr(data, "dtype") else data.into(room)


def _prepare(ctx: runner.Context):
    """Pixels, exposure and invalid pixels of each frame, and what their preparation shares.

    A frame that cannot be read is left out.
    """
    from calcamp.data.raw import RawError

    ctx.prep_options = {**ctx.prep_options, "use_flat": False}
    prepared, frames, invalid, calibration = [], [], [], None
    for number, exposure in enumerate(ctx.readable(), 1):
        try:
            made = ctx.prepared(exposure, on_demand=True)
        except RawError as error:
            ctx.exclude(exposure.obsid, f"{error.kind}: {error}")
            continue
        frames.append(exposure)
        prepared.append(made.data)
        invalid.append({q: made.invalid(q) for q in QUADRANTS})
        calibration = made.calibration
        del made  # its data quality, before the next one's is made
        ctx.progress(number, len(ctx.exposures))
    return prepared, frames, invalid, calibration


def _known_bad(calibration, quadrant: str, detector):
    """Static bad pixels from the masks named, or None."""
    if not calibration.has_mask:
        return None
    from calcamp.detector.arrays import quadrant_view
    from calcamp.detector.dq import BADMASK

    return (quadrant_view(calibration.dq, quadrant, detector) & int(BADMASK)) != 0


def _bias_error(ctx: runner.Context, bias, quadrant: str):
    """Error plane of the bias that was subtracted; zero where the product has none; None without a bias."""
    import numpy as np

    from calcamp.detector.arrays import quadrant_view

    if bias is None:
        return None
    if bias.error is None:
        ctx.flag("BADDATAPROD", f"{bias.name} has no error plane: its error is taken as 0", quadrant=quadrant)
        return np.zeros(ctx.detector.quadrant_shape, np.float32)
    return quadrant_view(bias.error, quadrant, ctx.detector)


def _table(rows: list[dict], names: str) -> dict[str, list]:
    return {name: [row[name] for row in rows] for name in names.split()}


def _mean_time(frames) -> float:
    return sum(float(e.values["exptime"]) for e in frames) / len(frames)


RATE = "e-/px/h"
_VALUES = (
    "dark_current dark_current_err dark_current_limit95 is_limit systematic dark_current_ref dark_current_ref_err "
    "temperature temperature_err dsnu dsnu_err signal_adu signal_adu_err signal_scatter noise_adu chi2_dof "
    "n_hot n_unstable n_clusters n_hot_columns n_dead_columns cosmics cosmic_rate"
)


# ---- tables ---------------------------------------------------------------------------------------------
def _write_dark(ctx, results, used, gains, temperature, with_bias) -> None:
    """Table ``dark``: the result of every quadrant."""
    from calcamp.analysis.dark import PERCENTILES

    percent = [f"p{p:g}" for p in PERCENTILES]
    rows = [
        {
            "ccd": ctx.ccd,
            "quadrant": q,
            **_dark_row(ctx, results.get(q), used.get(q), gains[q], temperature, percent),
        }
        for q in QUADRANTS
    ]
    for row in rows:
        row |= {"bias_subtracted": with_bias, "gain_nominal": gains[row["quadrant"]][2]}
    rates = ["dark_current", "dark_current_err", "dark_current_limit95", "systematic", "dark_current_ref"]
    rates += ["dark_current_ref_err", "dsnu", "dsnu_err", *percent]
    ctx.write_table(
        "dark",
        _table(rows, f"ccd quadrant {_VALUES} {' '.join(percent)} bias_subtracted gain_nominal n flag"),
        units={
            **dict.fromkeys(rates, RATE),
            **dict.fromkeys(("signal_adu", "signal_adu_err", "signal_scatter", "noise_adu"), "ADU"),
            **dict.fromkeys(("temperature", "temperature_err"), "K"),
            **dict.fromkeys(("n_hot", "n_unstable"), "px"),
            "cosmic_rate": "1/min/cm2",
        },
        descriptions={
            "dark_current": "image minus overscan of the same rows (of the bias product taken off when there is one)",
            "dark_current_err": "statistical, with the errors of bias and gain and what the exposures disagree by",
            "dark_current_limit95": "upper end of the 95 % interval (Feldman and Cousins), systematic error included",
            "is_limit": "compatible with zero: quote the limit",
            "systematic": "offset of the image area against the scans: without a bias product what is seen of it, with "
            "one what is below zero",
            "dark_current_ref": f"scaled to {ctx.options.get('reference_temperature_K', 153.0):g} K (Arrhenius, "
            f"{ctx.options.get('activation_eV', 0.65):g} eV)",
            "dark_current_ref_err": "with the error of the temperature",
            "temperature_err": "half the range over exposures and sensors",
            "signal_scatter": "standard deviation of the signal over the exposures",
            "dsnu": "standard deviation of the good pixels, noise removed",
            "noise_adu": "of a pixel of one prepared frame, rounding included",
            "chi2_dof": "of the exposures about their mean",
            "n_hot": "pixels above the cuts in sigma and rate, columns not counted",
            "n_unstable": "pixels not repeatable between exposures",
            "cosmics": "hits in all exposures; one exposure alone shows tracks, and its single pixels count as hot",
            **{f"p{p:g}": f"{p:g} % of the pixels are below" for p in PERCENTILES},
        },
        meta={"hot_sigma": ctx.options.get("hot_sigma"), "hot_rate_e_s": ctx.options.get("hot_rate_e_s")},
    )


def _dark_row(ctx, result, frames, gain_of, temperature, percent) -> dict:
    from calcamp.analysis.dark import BOLTZMANN, arrhenius

    if result is None:
        row = dict.fromkeys([*_VALUES.split(), *percent], math.nan)
        counts = ("n_hot", "n_unstable", "n_clusters", "n_hot_columns", "n_dead_columns", "cosmics")
        return {**row, **dict.fromkeys(counts, None), "is_limit": False, "n": 0, "flag": "no usable frame"}
    gain, time = gain_of[0], _mean_time(frames)
    scale = gain / time * 3600
    current, kelvin = result.current, temperature[0]
    reference, activation = (
        ctx.options.get("reference_temperature_K", 153.0),
        ctx.options.get("activation_eV", 0.65),
    )
    factor = arrhenius(kelvin, reference, activation) if math.isfinite(kelvin) else math.nan
    # d ln(factor)/dT
    steepness = activation / (BOLTZMANN * kelvin**2)
    warmth = steepness * temperature[1] if math.isfinite(temperature[1]) else 0.0
    rows, columns = ctx.detector.image_shape
    area = rows * columns * (ctx.detector.pixel_um * 1e-4) ** 2
    hits = sum(result.cosmics.events)
    bright = [c for c in result.columns if c.level > 0]
    return {
        "dark_current": current.rate,
        "dark_current_err": current.rate_err,
        "dark_current_limit95": current.limit.high,
        "is_limit": bool(current.limit.is_limit),
        "systematic": current.systematic,
        "dark_current_ref": current.rate * factor,
        "dark_current_ref_err": math.hypot(current.rate_err, current.rate * warmth) * factor,
        "temperature": kelvin,
        "temperature_err": temperature[1],
        "dsnu": result.dsnu.fixed * scale,
        "dsnu_err": result.dsnu.fixed_err * scale,
        "signal_adu": current.signal,
        "signal_adu_err": current.signal_err,
        "signal_scatter": current.scatter,
        "noise_adu": result.noise,
        "chi2_dof": current.chi2_dof,
        "n_hot": int(result.hot.row.size),
        "n_unstable": result.n_unstable,
        "n_clusters": result.n_clusters,
        "n_hot_columns": len({c.column for c in bright}),
        "n_dead_columns": len({c.column for c in result.columns} - {c.column for c in bright}),
        "cosmics": hits,
        "cosmic_rate": hits / (len(frames) * time / 60 * area),
        **{name: value * scale for name, value in zip(percent, result.percentiles.values(), strict=True)},
        "n": len(frames),
        "flag": current.reason if math.isfinite(current.rate) else "not measured",
    }


def _write_exposures(ctx, results, used, gains) -> None:
    """Table ``dark_exposures``: signal of every exposure."""
    rows = []
    for quadrant, result in results.items():
        gain = gains[quadrant][0]
        for k, (exposure, level) in enumerate(zip(used[quadrant], result.levels, strict=True)):
            time = float(exposure.values["exptime"])
            scale = gain / time * 3600 if time > 0 else math.nan
            rows.append(
                {
                    "obsid": exposure.obsid,
                    "column": exposure.column,
                    "frame": exposure.frame,
                    "ccd": ctx.ccd,
                    "quadrant": quadrant,
                    "exptime": time,
                    "signal_adu": level.signal,
                    "signal_adu_err": level.signal_err,
                    "dark_current": level.signal * scale,
                    "dark_current_err": level.signal_err * scale,
                    "img_minus_pre": level.img_minus_pre,
                    "img_minus_pre_err": level.img_minus_pre_err,
                    "ove_minus_pre": level.ove_minus_pre,
                    "ove_minus_pre_err": level.ove_minus_pre_err,
                    "cosmics": result.cosmics.events[k],
                    "cosmic_pixels": int(result.cosmics.pixels[k].size),
                    "n": level.n,
                    "flag": "" if math.isfinite(level.signal) else "not measured",
                }
            )
    rows.sort(key=lambda row: row["obsid"])
    values = "signal_adu dark_current img_minus_pre ove_minus_pre"
    both = " ".join(f"{v} {v}_err" for v in values.split())
    names = f"obsid column frame ccd quadrant exptime {both} cosmics cosmic_pixels n flag"
    adu = [o for v in ("signal_adu", "img_minus_pre", "ove_minus_pre") for o in (v, f"{v}_err")]
    ctx.write_table(
        "dark_exposures",
        _table(rows, names),
        units={
            "exptime": "s",
            **dict.fromkeys(adu, "ADU"),
            "dark_current": RATE,
            "dark_current_err": RATE,
            "cosmic_pixels": "px",
            "n": "px",
        },
        descriptions={
            "signal_adu": "image minus overscan of the same rows, prepared frame",
            "cosmic_pixels": "pixels left out, rims included",
        },
    )


def _write_hot(ctx, results, used, gains) -> None:
    """Table ``hot_pixels``: position in the image area, rates, repeatability."""
    columns = {name: [] for name in _HOT.split()}
    for quadrant, result in results.items():
        gain, gain_err, _ = gains[quadrant]
        relative = (gain_err or 0.0) / gain if gain_err is None or math.isfinite(gain_err) else 0.0
        hot = result.hot
        rate, err = hot.rates(_mean_time(used[quadrant]))
        n = rate.size
        columns["ccd"] += [ctx.ccd] * n
        columns["quadrant"] += [quadrant] * n
        rate_e_err = ((err * gain) ** 2 + (rate * gain * relative) ** 2) ** 0.5
        values = (hot.row, hot.column, rate, err, rate * gain, rate_e_err, hot.repeatable, hot.chi2, hot.n)
        for name, array in zip(_HOT.split()[2:], values, strict=True):
            columns[name] += array.tolist()
    ctx.write_table(
        "hot_pixels",
        columns,
        units={
            "row": "px",
            "column": "px",
            "rate_adu": "ADU/s",
            "rate_adu_err": "ADU/s",
            "rate_e": "e-/s",
            "rate_e_err": "e-/s",
        },
        descriptions={
            "row": "of the image area, canonical",
            "rate_adu": "above the local background",
            "repeatable": "exposures agree within noise",
            "chi2_dof": "of the exposures about their mean",
        },
    )


_HOT = "ccd quadrant row column rate_adu rate_adu_err rate_e rate_e_err repeatable chi2_dof n"


def _write_columns(ctx, results, used, gains) -> None:
    """Table ``hot_columns``: whole and partial columns, bright or dark."""
    rows = []
    for quadrant, result in results.items():
        time, gain = _mean_time(used[quadrant]), gains[quadrant][0]
        for c in result.columns:
            rows.append(
                {
                    "ccd": ctx.ccd,
                    "quadrant": quadrant,
                    "column": c.column,
                    "first_row": c.first,
                    "last_row": c.last,
                    "rate_adu": c.level / time,
                    "rate_adu_err": c.level_err / time,
                    "rate_e": c.level * gain / time,
                    "rate_e_err": c.level_err * gain / time,
                    "significance": c.significance,
                    "partial": c.partial,
                    "n": c.length,
                }
            )
    names = "ccd quadrant column first_row last_row rate_adu rate_adu_err rate_e rate_e_err significance partial n"
    ctx.write_table(
        "hot_columns",
        _table(rows, names),
        units={
            **dict.fromkeys(("column", "first_row", "last_row", "n"), "px"),
            **dict.fromkeys(("rate_adu", "rate_adu_err"), "ADU/s"),
            **dict.fromkeys(("rate_e", "rate_e_err"), "e-/s"),
        },
        descriptions={"rate_adu": "of its pixels above the neighbouring columns; negative for dead columns"},
    )


def _write_profiles(ctx, results) -> None:
    """Table ``profiles``: master dark along rows and columns, defects left out."""
    import numpy as np

    from calcamp.analysis.profiles import clip_window, profiles

    columns = {name: [] for name in ("ccd", "quadrant", "axis", "position", "value", "value_err")}
    image = ctx.detector.region("img", trimmed=False)
    for quadrant, result in results.items():
        area, mask = result.master.mean[image], result.master.dq[image] != 0
        window = clip_window(area[::4, ::4], mask[::4, ::4])  # 260,000 pixels tell it to a per mille
        for axis, found in zip(("row", "column"), profiles(area, mask, window=window), strict=True):
            n = len(found.position)
            columns["ccd"] += [ctx.ccd] * n
            columns["quadrant"] += [quadrant] * n
            columns["axis"] += [axis] * n
            # positions of the whole quadrant, as in the profiles of the bias
            shift = 0 if axis == "row" else ctx.detector.prescan
            columns["position"] += (found.position + shift).tolist()
            columns["value"] += found.value.tolist()
            shared = result.row_err if axis == "row" else 0.0
            columns["value_err"] += np.hypot(found.err, shared).tolist()
    ctx.write_table("profiles", columns, units={"position": "px", "value": "ADU", "value_err": "ADU"})


def _write_histogram(ctx, results) -> None:
    """Table ``dark_histogram``: pixels of the image area of the master dark above the overscan."""
    from calcamp.analysis.dark import HISTOGRAM_BIN_ADU

    columns = {name: [] for name in ("ccd", "quadrant", "value", "count")}
    for quadrant, result in results.items():
        centres, counts = result.histogram
        filled = counts > 0
        columns["ccd"] += [ctx.ccd] * int(filled.sum())
        columns["quadrant"] += [quadrant] * int(filled.sum())
        columns["value"] += centres[filled].tolist()
        columns["count"] += counts[filled].tolist()
    ctx.write_table(
        "dark_histogram",
        columns,
        units={"value": "ADU", "count": "px"},
        descriptions={
            "value": f"centre of a bin of {HISTOGRAM_BIN_ADU} ADU, above the overscan; empty bins are left out",
            "count": "pixels in the bin",
        },
    )


def _write_tiles(ctx, results, used, gains) -> None:
    """Table ``dark_tiles``: dark current on the tile grid of the image area."""
    rows = []
    for quadrant, result in results.items():
        scale = gains[quadrant][0] / _mean_time(used[quadrant]) * 3600
        value, err, n = result.tiles
        for (i, j), v in _cells(value):
            rows.append(
                {
                    "ccd": ctx.ccd,
                    "quadrant": quadrant,
                    "tile_row": i,
                    "tile_column": j,
                    "dark_current": v * scale,
                    "dark_current_err": float(err[i, j]) * scale,
                    "signal_adu": v,
                    "signal_adu_err": float(err[i, j]),
                    "n": int(n[i, j]),
                }
            )
    names = "ccd quadrant tile_row tile_column dark_current dark_current_err signal_adu signal_adu_err n"
    ctx.write_table(
        "dark_tiles",
        _table(rows, names),
        units={
            "dark_current": RATE,
            "dark_current_err": RATE,
            "signal_adu": "ADU",
            "signal_adu_err": "ADU",
            "n": "px",
        },
    )


def _cells(grid):
    for i, line in enumerate(grid.tolist()):
        for j, value in enumerate(line):
            yield (i, j), value


# ---- products ---------------------------------------------------------------------------------------------
def _write_products(ctx, results, planes, used, temperature) -> None:
    """Master dark with error, count and data quality; 0/1 mask of its defects. `planes` are used up."""
    import numpy as np

    from calcamp.detector.dq import DQ

    def images():
        yield "DARK", planes.mean, "ADU"
        for result in results.values():
            result.master.write_err(result.master.mean)
        yield "ERROR", planes.mean, "ADU"
        yield "COUNT", planes.count
        yield "DQ", planes.dq

    first = next(iter(used.values()))
    header = {"NCOMB": max(len(f) for f in used.values()), "EXPTIME": _mean_time(first)}
    if math.isfinite(temperature[0]):
        header["CCDTEMP"] = round(temperature[0], 3)
    stem = f"CCD{ctx.ccd}_SN_{ctx.serial}_{ctx.block}.fits"
    ctx.write_product("dark", f"EUC_DARK_{stem}", images(), header)
    planes.dq &= int(DQ.HOT | DQ.BRIGHT_COL | DQ.BAD_COL)
    np.minimum(planes.dq, 1, out=planes.dq)  # in place: a plane made anew costs more than the rest of it
    ctx.write_product(
        "dark_mask",
        f"EUC_DKMSK_{stem}",
        [("MASK", planes.dq.view(np.int32), "", {})],
        {
            "MASKTYPE": "DARK",
            "SN": ctx.serial,
            "HOTSIGMA": ctx.options.get("hot_sigma", 5.0),
            "HOTRATE": ctx.options.get("hot_rate_e_s", 0.05),
        },
    )


if __name__ == "__main__":
    sys.exit(runner.run("dark", {"meta": meta}))
