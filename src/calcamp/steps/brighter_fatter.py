"""BF01, MOT_FF: covariances (extract_COV), coefficients and kernels (extract_BF), correction verified (meta); converter, edge."""

from __future__ import annotations

import math
import sys

from calcamp.detector.geometry import CCDS, QUADRANTS
from calcamp.steps import ptc, runner
from calcamp.steps.lit import errs, stream, table


def extract_bf(ctx: runner.Context) -> None:
    """Covariance model of the twelve channels, boundary shifts, kernel product."""
    from calcamp.analysis.brighter_fatter import solve_kernel

    channels = ptc.read_channels(ctx, "extract_COV")
    rows, curve, coefficients, kernels, widths = [], [], [], {}, []
    for ccd in CCDS:
        for quadrant in QUADRANTS:
            keys = {"ccd": ccd, "quadrant": quadrant}
            channel = channels.get((ccd, quadrant))
            if channel is None:
                ctx.flag("BADDATAPROD", "no pair of flats", **keys)
                rows.append({**keys, **dict.fromkeys(_BF.split(), math.nan), "n": 0, "flag": "no pair"})
                continue
            row, fit, off = ptc.fit_channel(ctx, channel, ptc.overscan_noise(ctx, ccd, quadrant))
            kernel = solve_kernel(fit.a, fit.a_err, ctx.options.get("kernel_lags", 5))
            ratio = fit.a[1, 0] / fit.a[0, 1]
            relative = (
                math.hypot(fit.a_err[1, 0] / fit.a[1, 0], fit.a_err[0, 1] / fit.a[0, 1])
                if fit.ok
                else math.nan
            )
            trend, trend_err = _trend(channel, fit)
            width, levels = _width(channel, fit, kernel)
            widths += [{**keys, **r} for r in levels]
            rows.append(
                {
                    **keys,
                    **{k: row[k] for k in _BF.split() if k in row},
                    **width,
                    "ratio": ratio,
                    "ratio_err": abs(ratio) * relative,
                    "trend": trend,
                    "trend_err": trend_err,
                    "model_scale": kernel.scale,
                    "model_amplitude": kernel.amplitude,
                    "n": row["n"],
                    "flag": row["flag"] or kernel.flag,
                }
            )
            if row["flag"] or kernel.flag:
                ctx.flag("BADFIT", f"brighter-fatter: {row['flag'] or kernel.flag}", **keys)
            curve += [{**keys, **r} for r in ptc.curve_rows(channel, fit, off)]
            if fit.ok:
                coefficients += [{**keys, **r} for r in ptc.coefficient_rows(fit)]
            if kernel.ok:
                kernels[ccd, quadrant] = (kernel, fit.gain)
    inverse = "1/electron"
    ctx.write_table(
        "bf",
        table(rows, f"ccd quadrant {_BF} n flag"),
        units={
            **errs("gain", "electron/adu"),
            **errs("a00 a01 a10 a11 sum_a", inverse),
            "model_amplitude": inverse,
            **errs("trend", "%/(10 ke-)"),
            "model_scale": "1/pix",
            **errs("fwhm_x fwhm_y", "um"),
            **errs("fwhm_x_slope fwhm_y_slope", "um/(10 kADU)"),
        },
        descriptions={
            "a01": "parallel neighbour",
            "a10": "serial neighbour",
            "ratio": "a01 over a10: parallel over serial",
            "trend": "change of C01/(V mu) with the signal beyond the model",
            "fwhm_x": "of a single pixel of 32768 ADU, from the shifts of its own boundaries, serial direction",
            "fwhm_x_slope": "its change with the signal",
            "ellipticity": "(sx² - sy²)/(sx² + sy²) of that pixel",
            "model_scale": "p1 of the smooth model of boundary shifts, p0 Ei(-p1 r) cos(angle)",
        },
    )
    ctx.write_table(
        "bf_width",
        table(widths, "column ccd quadrant signal fwhm_x fwhm_x_err fwhm_y fwhm_y_err ellipticity"),
        units={"signal": "ADU", **errs("fwhm_x fwhm_y", "um")},
    )
    ptc.write_curve(ctx, curve)
    ptc.write_coefficients(ctx, coefficients)
    _write_kernels(ctx, kernels)


_BF = (
    "gain gain_err a00 a00_err a01 a01_err a10 a10_err a11 a11_err sum_a sum_a_err ratio ratio_err trend trend_err "
    "fwhm_x fwhm_x_err fwhm_y fwhm_y_err fwhm_x_slope fwhm_x_slope_err fwhm_y_slope fwhm_y_slope_err ellipticity "
    "model_scale model_amplitude turn_off far_lags_rms chi2_dof"
)


def _width(channel: dict, fit, kernel) -> tuple[dict, list[dict]]:
    """(columns of table bf, rows of table bf_width): FWHM of a bright pixel, at half FDR and at the levels used."""
    import numpy as np

    from calcamp.analysis.brighter_fatter import pixel_width

    names = ("fwhm_x", "fwhm_y", "fwhm_x_slope", "fwhm_y_slope")
    out = dict.fromkeys([*names, *(f"{n}_err" for n in names), "ellipticity"], math.nan)
    if not (fit.ok and kernel.ok):
        return out, []
    columns = np.unique(channel["column"][fit.used])
    signals = np.array([channel["mu"][fit.used & (channel["column"] == c)].mean() for c in columns])
    made = pixel_width(kernel, np.append(signals, 32768.0) * fit.gain)
    for axis in "xy":
        value, err = getattr(made, axis), getattr(made, f"{axis}_err")
        out[f"fwhm_{axis}"], out[f"fwhm_{axis}_err"] = value[-1], err[-1]
        good = np.isfinite(value[:-1])
        if good.sum() >= 3:
            # A slope of a smooth curve through the levels: its error is that of the shift, common to them.
            slope = np.polyfit(signals[good] / 1e4, value[:-1][good], 1)[0]
            out[f"fwhm_{axis}_slope"] = slope
            out[f"fwhm_{axis}_slope_err"] = abs(slope) * float(np.median(err[:-1][good] / value[:-1][good]))
    out["ellipticity"] = made.ellipticity[-1]
    rows = [
        {"column": int(c), "signal": m, "fwhm_x": made.x[k], "fwhm_x_err": made.x_err[k],
         "fwhm_y": made.y[k], "fwhm_y_err": made.y_err[k], "ellipticity": made.ellipticity[k]}
        for k, (c, m) in enumerate(zip(columns, signals, strict=True))
    ]  # fmt: skip
    return out, rows


def _trend(channel: dict, fit) -> tuple[float, float]:
    """Slope of measured over modelled C01 with the signal, % per 10 ke-: 0 where the model holds."""
    import numpy as np

    from calcamp.analysis.statistics import fit_linear

    if not fit.ok:
        return math.nan, math.nan
    mu, moments = channel["mu"][fit.used], channel["moments"][fit.used]
    model = fit.model(mu, moments)[:, 1, 0]
    ratio, err = channel["covariance"][fit.used, 1, 0] / model, channel["err"][fit.used, 1, 0] / model
    line = fit_linear(
        np.stack([np.ones(len(mu)), mu * fit.gain / 1e4], axis=1), ratio, np.abs(err), sigma=None
    )
    return (100 * line.parameters[1], 100 * line.errors[1]) if line.ok else (math.nan, math.nan)


def _write_kernels(ctx: runner.Context, kernels: dict) -> None:
    """Table ``bf_kernel`` and the kernel product of the block."""
    import numpy as np

    from calcamp import __version__
    from calcamp.data.fitsfile import write_product
    from calcamp.steps.flat import wavelength

    rows, images = [], []
    for (ccd, quadrant), (kernel, gain) in kernels.items():
        n = kernel.serial.shape[0]
        for i in range(n):
            for j in range(n):
                rows.append(
                    {"ccd": ccd, "quadrant": quadrant, "lag": i, "distance": j + 1,
                     "serial": kernel.serial[i, j], "serial_err": kernel.serial_err[i, j],
                     "parallel": kernel.parallel[j, i], "parallel_err": kernel.parallel_err[j, i]}
                )  # fmt: skip
        cube = np.stack([kernel.serial, kernel.parallel, kernel.serial_err, kernel.parallel_err])
        images.append(
            (
                f"SHIFT_{ccd}{quadrant}",
                cube,
                "1/electron",
                {"GAIN": gain, "PLANES": "serial parallel serial_err parallel_err"},
            )
        )
    ctx.write_table(
        "bf_kernel",
        table(rows, "ccd quadrant lag distance serial serial_err parallel parallel_err"),
        units=errs("serial parallel", "1/electron"),
        descriptions={
            "lag": "along the boundary, px",
            "distance": "of the charge from the pixel before the boundary, across it, px",
            "serial": "shift of the boundary towards higher columns, px per electron",
            "parallel": "the same towards higher rows",
        },
    )
    if images:
        nm = wavelength(ctx)
        folder = ctx.into / "products"
        folder.mkdir(exist_ok=True)
        name = f"EUC_BFKERNEL_{nm}nm_{ctx.block}.fits"
        header = {
            "BLOCKID": ctx.block,
            "CHAMBER": ctx.job.get("chamber", ""),
            "TEST": ctx.test,
            "WAVEL": nm,
            "CALCAMP": __version__,
        }
        write_product(folder / name, header, images)
        ctx.made.append(
            {"kind": "bf_kernel", "file": f"products/{name}", "ccd": None, "serial": "", "wavelength": nm}
        )


# ---- correction ---------------------------------------------------------------------------------------
def _kernels(ctx: runner.Context) -> dict:
    """quadrant -> (kernel, gain) of this CCD from the sub-task extract_BF."""
    from calcamp.analysis.brighter_fatter import Kernel
    from calcamp.data.tables import table_rows

    folder = ctx.folder.parent.parent / "block" / "extract_BF"
    if not (folder / "bf_kernel.ecsv").is_file():
        return {}
    shifts, results = table_rows(folder / "bf_kernel.ecsv"), table_rows(folder / "bf.ecsv")
    out = {}
    for row in results:
        own = [r for r in shifts if r["ccd"] == ctx.ccd and r["quadrant"] == row["quadrant"]]
        if row["ccd"] != ctx.ccd or not own or row["gain"] is None:
            continue
        out[row["quadrant"]] = (Kernel.from_rows(own), row["gain"], row["turn_off"])
    return out


def meta(ctx: runner.Context) -> None:
    """Table ``bf_check``: correlations and variance over signal, before and after the correction of flats."""
    kernels = _kernels(ctx)
    if not kernels:
        ctx.flag("BADDATAPROD", "no kernel to correct with")
    chosen, taken, waiting = [], {}, {}
    most = 2 * ctx.options.get("pairs_per_level", 1)
    for exposure in ctx.readable() if kernels else ():
        if taken.get(exposure.column, 0) < most:
            taken[exposure.column] = taken.get(exposure.column, 0) + 1
            chosen.append(exposure)
    rows = []
    for lit in stream(ctx, chosen):
        before = waiting.pop(lit.exposure.column, None)
        if before is None:
            waiting = {lit.exposure.column: lit}
            continue
        for quadrant, (kernel, gain, top) in kernels.items():
            if not any((x.exposure.obsid, quadrant) in ctx.selection() for x in (before, lit)):
                row = _verify(ctx, before, lit, quadrant, kernel, gain, top)
                if row is not None:
                    rows.append(row)
    ctx.write_table(
        "bf_check",
        table(rows, f"column obsid ccd quadrant signal {_CHECK} charge_kept n flag"),
        units={"signal": "ADU"},
        descriptions={
            "v_over_mu": "variance times gain over signal, read noise taken off: 1 without the effect",
            "rho01": "correlation with the parallel neighbour",
            "v_over_mu_after": "the same after the correction",
            "charge_kept": "relative change of the total charge by the correction",
        },
    )


_CHECK = " ".join(
    f"{n}{end} {n}{end}_err" for n in ("v_over_mu", "rho01", "rho10", "rho11") for end in ("", "_after")
)


def _verify(ctx, one, two, quadrant, kernel, gain, top):
    """Row of one pair and quadrant; None where it is saturated or above the turn-off."""
    import numpy as np

    from calcamp.analysis.brighter_fatter import Corrector
    from calcamp.analysis.ptc import measure_pair

    size = ctx.options.get("window", 1024)
    rows, columns = ctx.detector.image_shape
    cut = tuple(slice(max(0, (n - size) // 2), min(n, (n + size) // 2)) for n in (rows, columns))
    images, masks = [], []
    for lit in (one, two):
        bad, saturated = lit.masks(quadrant)
        if saturated is not None and saturated[cut].any():
            return None
        images.append(np.ascontiguousarray(lit.image(quadrant)[cut]))
        masks.append(None if bad is None else bad[cut])
    mask = ptc._either(*masks)
    shape = images[0].shape
    edges = tuple([round(k * n / 4) for k in range(5)] for n in shape)
    found = measure_pair(*images, edges, mask, lags=3)
    if not found.n or (top and found.mu > 0.97 * top):
        return None
    corrector = Corrector(kernel, shape)
    charge = [image * np.float32(gain) for image in images]
    true = [corrector.correct(c, ctx.options.get("passes", 3)) for c in charge]
    kept = float(true[0].sum(dtype=float) / charge[0].sum(dtype=float) - 1)
    after = measure_pair(*(t / np.float32(gain) for t in true), edges, mask, lags=3)
    noise = ptc.overscan_noise(ctx, ctx.ccd, quadrant) or (1.3, 0.0)
    row = {
        "column": one.exposure.column,
        "obsid": one.exposure.obsid,
        "ccd": ctx.ccd,
        "quadrant": quadrant,
        "signal": found.mu,
    }
    for end, pair in (("", found), ("_after", after)):
        c, e = pair.covariance, pair.err
        row |= {
            f"v_over_mu{end}": (c[0, 0] - noise[0] ** 2 - 1 / 12) * gain / pair.mu,
            f"v_over_mu{end}_err": e[0, 0] * gain / pair.mu,
        }
        for name, lag in (("rho01", (1, 0)), ("rho10", (0, 1)), ("rho11", (1, 1))):
            row |= {f"{name}{end}": c[lag] / c[0, 0], f"{name}{end}_err": e[lag] / c[0, 0]}
    return {**row, "charge_kept": kept, "n": found.n, "flag": ""}


# ---- converter, hard edge (MOT_FF) ------------------------------------------------------------------------
#: Mean signal up to which a flat tells about the converter, FDR.
ADC_MOST = 0.75


def extract_adc(ctx: runner.Context) -> None:
    """Table ``adc``: code density of the converters over all frames."""
    import numpy as np

    from calcamp.analysis.adc import code_density
    from calcamp.analysis.statistics import histogram
    from calcamp.data.raw import RawError
    from calcamp.detector.arrays import quadrant_view

    counts = {q: np.zeros(65536, np.int64) for q in QUADRANTS}
    # Near the full well pixels pile up at the same charge: a step of the histogram that no converter made.
    bright = {
        (row["obsid"], row["quadrant"])
        for row in ctx.rows("check", "frames")
        if (row["level_image"] or 0.0) > ADC_MOST * 65536
    }
    for exposure in ctx.readable():
        try:
            raw = ctx.read(exposure)
        except RawError as error:
            ctx.exclude(exposure.obsid, f"{error.kind}: {error}")
            continue
        for quadrant in QUADRANTS:
            if (exposure.obsid, quadrant) not in ctx.selection().keys() | bright:
                counts[quadrant] += histogram(
                    quadrant_view(raw.data, quadrant, ctx.detector)[ctx.detector.region("img")]
                )
    ctx.current = None
    rows, bits = [], []
    for quadrant, count in counts.items():
        found = code_density(count)
        row = {"ccd": ctx.ccd, "quadrant": quadrant, "dnl_rms": found.rms, "dnl_rms_err": found.rms_err}
        row |= {"dnl_worst": found.worst, "worst_code": found.worst_code}
        row |= {"worst_significance": found.worst_significance, "missing_codes": len(found.missing)}
        rows.append(row | {"n": int(found.codes.size), "flag": "" if found.codes.size else "too few counts"})
        for bit, (dnl, err) in enumerate(zip(found.bits.tolist(), found.bits_err.tolist(), strict=True)):
            bits.append({"ccd": ctx.ccd, "quadrant": quadrant, "bit": bit, "dnl": dnl, "dnl_err": err})
        if found.missing:
            codes = ", ".join(map(str, found.missing[:5]))
            cause = f"{len(found.missing)} codes of the converter never occur: {codes}"
            ctx.flag("UNDERPERFORM", cause, quadrant=quadrant)
    names = "ccd quadrant dnl_rms dnl_rms_err dnl_worst worst_code worst_significance missing_codes n flag"
    ctx.write_table(
        "adc",
        table(rows, names),
        units={"dnl_rms": "LSB", "dnl_rms_err": "LSB", "dnl_worst": "LSB"},
        descriptions={
            "dnl_rms": "differential non-linearity, counting noise taken off",
            "dnl_worst": "of the code that deviates most significantly",
            "n": "codes with enough counts",
        },
    )
    ctx.write_table(
        "adc_bits",
        table(bits, "ccd quadrant bit dnl dnl_err"),
        units={"dnl": "LSB", "dnl_err": "LSB"},
        descriptions={"dnl": "mean of the codes at which the bit comes on"},
    )


if __name__ == "__main__":
    sys.exit(
        runner.run(
            "brighter_fatter",
            {
                "extract_COV": ptc.extract,
                "extract_BF": extract_bf,
                "meta": meta,
                "extract_ADC": extract_adc,
                "extract_HER": lambda ctx: ptc.extract_her(ctx, "extract_COV"),
            },
        )
    )
