"""Meta of PSF01 and PSF02: size and shape against fluence, growth, the detector's kernel, motion of the spots."""

from __future__ import annotations

import math

from calcamp.detector.geometry import CCDS, QUADRANTS, canonical_sign_e2
from calcamp.steps import runner

NAN = math.nan
_MEAN = (
    "fwhm",
    "fwhm_x",
    "fwhm_y",
    "r2",
    "e1",
    "e2",
    "flux",
    "peak_centred",
    "trail_serial",
    "trail_parallel",
)


def psf_meta(ctx: runner.Context) -> None:
    """Tables ``psf``, ``psf_spots``, ``growth``, ``growth_spots``, ``psf_kernel``, ``motion``, ``point_flux``."""
    from calcamp.steps.point import _by_spot, _shapes, flux

    shapes = _shapes(ctx)
    spots = []
    for rows in shapes.values():
        by_column: dict[tuple, list[dict]] = {}
        for row in rows:
            if not row["flag"]:
                by_column.setdefault((row["ccd"], row["quadrant"], row["spot"], row["column"]), []).append(
                    row
                )
        spots += [_column_mean(key, members) for key, members in by_column.items()]
    _write_psf(ctx, spots)
    lines, growth = [], []
    for kind, subject in (("measured", "shapes"), ("corrected", "shapes_corrected")):
        of = shapes if kind == "measured" else _shapes(ctx, subject)
        groups = {key: members for rows in of.values() for key, members in _by_spot(rows).items()}
        if groups or kind == "measured":
            made = _lines(ctx, groups, kind)
            lines, growth = lines + made, growth + _growth(ctx, made, kind)
    _write_growth(ctx, lines, growth)
    # The kernel is what is left at no signal: the same before and after, so that without a product counts.
    _write_kernel(ctx, [g for g in growth if g["kind"] == "measured"])
    _write_motion(ctx, shapes)
    flux(ctx)


# ---- means by column --------------------------------------------------------------------------------------
def _column_mean(key, rows: list[dict]) -> dict:
    """Weighted means over the frames of a column of one spot; errors with the scatter of the frames in mind."""
    import numpy as np

    from calcamp.analysis.point import mean_with_scatter

    out = dict(zip(("ccd", "quadrant", "spot", "column"), key, strict=True))
    out["exptime"] = rows[0]["exptime"]
    for name in _MEAN:
        if name == "peak_centred":
            values = np.array([NAN if r[name] is None else r[name] for r in rows], float)
            n = np.isfinite(values).sum()
            out[name] = float(np.nanmean(values)) if n else NAN
            out[f"{name}_err"] = float(np.nanstd(values) / math.sqrt(max(n - 1, 1))) if n else NAN
            continue
        values = [NAN if r[name] is None else r[name] for r in rows]
        errors = [NAN if r[f"{name}_err"] is None else r[f"{name}_err"] for r in rows]
        out[name], out[f"{name}_err"], _, _ = mean_with_scatter(values, errors)
    out["n"] = len(rows)
    return out


def _write_psf(ctx: runner.Context, spots: list[dict]) -> None:
    both = " ".join(f"{n} {n}_err" for n in _MEAN)
    names = f"ccd quadrant spot column exptime {both} n"
    ctx.write_table("psf_spots", {n: [r[n] for r in spots] for n in names.split()}, units=_units())
    rows = []
    groups: dict[tuple, list[dict]] = {}
    for row in spots:
        groups.setdefault((row["ccd"], row["quadrant"], row["column"]), []).append(row)
    for ccd in CCDS:
        for quadrant in QUADRANTS:
            for column in sorted({r["column"] for r in spots}):
                rows.append(_quadrant_mean(ccd, quadrant, column, groups.get((ccd, quadrant, column), [])))
    both = " ".join(f"{n} {n}_err" for n in (*_MEAN, "e2_canonical"))
    names = f"ccd quadrant column exptime {both} scatter spots n flag"
    ctx.write_table(
        "psf",
        {n: [r[n] for r in rows] for n in names.split()},
        units={**_units(), "scatter": "px"},
        descriptions={
            "fwhm": "2.3548 sigma, pixel not included; mean over spots and frames",
            "e1": "positive along FITS x",
            "e2": "positive along +x+y",
            "e2_canonical": "e2 with the quadrant turned so that its node is at the lower left",
            "trail_serial": "light 1 to 3 px later in the read-out of a line less that 1 to 3 px earlier, over the flux, beyond the model",
            "trail_parallel": "the same along the columns",
            "scatter": "of the FWHM from spot to spot",
        },
    )


def _units() -> dict:
    px = ("fwhm", "fwhm_x", "fwhm_y")
    return {
        "exptime": "s",
        **{n: u for name in px for n, u in ((name, "px"), (f"{name}_err", "px"))},
        "r2": "px2",
        "r2_err": "px2",
        **dict.fromkeys(("flux", "flux_err", "peak_centred", "peak_centred_err"), "ADU"),
    }


def _quadrant_mean(ccd, quadrant, column, members: list[dict]) -> dict:
    """Plain mean over the spots of a quadrant: they are what is there, so their differences are no error."""
    import numpy as np

    out = {"ccd": ccd, "quadrant": quadrant, "column": column}
    out["exptime"] = members[0]["exptime"] if members else NAN
    for name in _MEAN:
        values = [m[name] for m in members if math.isfinite(m[name]) and math.isfinite(m[f"{name}_err"])]
        errors = [
            m[f"{name}_err"] for m in members if math.isfinite(m[name]) and math.isfinite(m[f"{name}_err"])
        ]
        out[name] = sum(values) / len(values) if values else NAN
        out[f"{name}_err"] = math.sqrt(sum(e * e for e in errors)) / len(errors) if errors else NAN
    out["e2_canonical"] = canonical_sign_e2(quadrant) * out["e2"]
    out["e2_canonical_err"] = out["e2_err"]
    widths = [m["fwhm"] for m in members if math.isfinite(m["fwhm"])]
    out["scatter"] = float(np.std(widths, ddof=1)) if len(widths) > 1 else NAN
    out["spots"], out["n"] = len(members), sum(m["n"] for m in members)
    out["flag"] = "" if members else "no spot measured"
    return out


# ---- growth -----------------------------------------------------------------------------------------------
def _lines(ctx: runner.Context, groups: dict[tuple, list[dict]], kind: str) -> list[dict]:
    """Lines of width against peak, spot by spot and axis by axis."""
    from calcamp.analysis.point import fit_growth

    spots = []
    for key, rows in groups.items():
        for name in ("fwhm", "fwhm_x", "fwhm_y"):
            take = [
                r
                for r in rows
                if not r["flag"]
                and r[name] is not None
                and (r["peak_centred"] or 0) > ctx.options["least_peak"]
            ]
            made = fit_growth(
                [r["peak_centred"] for r in take], [r[name] for r in take], [r[f"{name}_err"] for r in take]
            )
            values = {
                f: getattr(made, f) for f in ("slope", "slope_err", "zero", "zero_err", "chi2_dof", "n")
            }
            spots.append(
                {
                    **dict(zip(("ccd", "quadrant", "spot"), key, strict=True)),
                    "width": name,
                    "kind": kind,
                    **values,
                    "at_half": made.width,
                    "at_half_err": made.width_err,
                    "flag": made.reason,
                }
            )
    return spots


def _growth(ctx: runner.Context, spots: list[dict], kind: str) -> list[dict]:
    """Means over the spots of each quadrant."""
    import numpy as np

    from calcamp.analysis.point import mean_with_scatter

    rows = []
    for ccd in CCDS:
        for quadrant in QUADRANTS:
            row = {"ccd": ccd, "quadrant": quadrant, "kind": kind}
            for name, suffix in (("fwhm", ""), ("fwhm_x", "_x"), ("fwhm_y", "_y")):
                mine = [
                    s
                    for s in spots
                    if (s["ccd"], s["quadrant"], s["width"]) == (ccd, quadrant, name) and not s["flag"]
                ]
                value, err, _, n = mean_with_scatter(
                    [s["slope"] for s in mine], [s["slope_err"] for s in mine]
                )
                row[f"slope{suffix}"], row[f"slope{suffix}_err"] = value, err
                if name == "fwhm":
                    row["n"] = n
                    zeros = [s["zero"] for s in mine]
                    row["zero"] = float(np.mean(zeros)) if zeros else NAN
                    row["zero_err"] = math.sqrt(sum(s["zero_err"] ** 2 for s in mine)) / n if n else NAN
            row["flag"] = "" if row["n"] else "no spot with a line"
            rows.append(row)
            if not row["n"]:
                cause = f"no spot with a line of width against peak ({kind})"
                ctx.flag("BADFIT", cause, ccd=ccd, quadrant=quadrant)
    return rows


def _write_growth(ctx: runner.Context, spots: list[dict], rows: list[dict]) -> None:
    """Tables ``growth_spots`` and ``growth``: measured, and corrected where a kernel was named."""
    words = "measured, or corrected for the brighter-fatter effect"
    names = "ccd quadrant spot width kind slope slope_err zero zero_err at_half at_half_err chi2_dof n flag"
    ctx.write_table(
        "growth_spots",
        {n: [r[n] for r in spots] for n in names.split()},
        units=dict.fromkeys(("zero", "zero_err", "at_half", "at_half_err"), "px"),
        descriptions={
            "kind": words,
            "slope": "px per 10 000 ADU of the centred peak",
            "zero": "width at no signal",
            "at_half": "at 32768 ADU",
        },
    )
    names = "ccd quadrant kind slope slope_err slope_x slope_x_err slope_y slope_y_err zero zero_err n flag"
    ctx.write_table(
        "growth",
        {n: [r[n] for r in rows] for n in names.split()},
        units={"zero": "px", "zero_err": "px"},
        descriptions={
            "kind": words,
            "slope": "px per 10 000 ADU of the centred peak",
            "zero": "FWHM at no signal",
        },
    )


# ---- kernel -----------------------------------------------------------------------------------------------
def _write_kernel(ctx: runner.Context, growth: list[dict]) -> None:
    """Table ``psf_kernel``: what the detector adds to the optics, at no signal."""
    from calcamp.analysis.point import kernel

    optics = ctx.job.get("chamber_data", {})
    width, width_err = optics.get("optics_fwhm"), optics.get("optics_err") or 0.0
    rows = []
    for ccd in CCDS:
        mine = [g for g in growth if g["ccd"] == ccd and not g["flag"]]
        n = len(mine)
        total = sum(g["zero"] for g in mine) / n if n else NAN
        err = math.sqrt(sum(g["zero_err"] ** 2 for g in mine)) / n if n else NAN
        made = kernel(total, err, width, width_err)
        rows.append(
            {
                "ccd": ccd,
                "total": total,
                "total_err": err,
                "optics": NAN if width is None else width,
                "optics_err": NAN if width is None else width_err,
                "kernel": made.fwhm,
                "kernel_err": made.err,
                "is_limit": made.is_limit,
                # without a figure of the optics the requirement cannot be judged: the total is no bound on a fault
                "upper95": made.upper95 if width is not None else NAN,
                "n": sum(g["n"] for g in mine),
                "flag": "" if n else "not measured",
            }
        )
    px = "total total_err optics optics_err kernel kernel_err upper95"
    ctx.write_table(
        "psf_kernel",
        {n: [r[n] for r in rows] for n in f"ccd {px} is_limit n flag".split()},
        units=dict.fromkeys(px.split(), "px"),
        descriptions={
            "total": "FWHM at no signal, pixel not included",
            "optics": "of the chamber profile",
            "kernel": "total minus optics in quadrature; with is_limit a 95 % upper limit",
        },
    )


# ---- motion -----------------------------------------------------------------------------------------------
def _write_motion(ctx: runner.Context, shapes: dict) -> None:
    """Table ``motion``: how the spots of a CCD moved from frame to frame."""
    import numpy as np

    rows = []
    for ccd, members in shapes.items():
        good = [r for r in members if not r["flag"] and r["x_ccd"] is not None]
        keys = sorted({(r["quadrant"], r["spot"]) for r in good})
        obsids = sorted({r["obsid"] for r in good})
        if not good:
            continue
        place = np.full((len(obsids), len(keys), 2), np.nan)
        err = np.full((len(obsids), len(keys)), np.nan)
        at = {o: n for n, o in enumerate(obsids)}, {k: n for n, k in enumerate(keys)}
        for r in good:
            i, j = at[0][r["obsid"]], at[1][r["quadrant"], r["spot"]]
            place[i, j] = r["x_ccd"], r["y_ccd"]
            err[i, j] = r["x_err"]
        moved = place - np.nanmedian(place, axis=0)
        column = {r["obsid"]: (r["column"], r["frame"]) for r in good}
        for i, obsid in enumerate(obsids):
            n = int(np.isfinite(moved[i, :, 0]).sum())
            rows.append(
                {
                    "obsid": obsid,
                    "column": column[obsid][0],
                    "frame": column[obsid][1],
                    "ccd": ccd,
                    "dx": float(np.nanmean(moved[i, :, 0])) if n else NAN,
                    "dy": float(np.nanmean(moved[i, :, 1])) if n else NAN,
                    "err": float(np.sqrt(np.nansum(err[i] ** 2)) / n) if n else NAN,
                    "scatter": float(np.nanstd(moved[i])) if n else NAN,
                    "n": n,
                }
            )
    names = "obsid column frame ccd dx dy err scatter n"
    ctx.write_table(
        "motion",
        {n: [r[n] for r in rows] for n in names.split()},
        units=dict.fromkeys(("dx", "dy", "err", "scatter"), "px"),
        descriptions={
            "dx": "mean shift of the CCD's spots from their median places, FITS x",
            "scatter": "of the spots about it",
        },
    )


# ---- forward model ----------------------------------------------------------------------------------------
def bayes(ctx: runner.Context) -> None:
    """Table ``forward``: posterior of diffraction width, blur and growth of every spot, one frame of each column.

    Stamps are corrected for the brighter-fatter effect where a kernel is named: what it adds is no Gaussian blur, and
    makes the diffraction pattern 2 % too narrow.
    """
    import numpy as np

    from calcamp.analysis.forward import fit_spot
    from calcamp.analysis.spots import corrected, cut_stamps, ring_background
    from calcamp.detector.dq import BADMASK
    from calcamp.steps.point import _by_spot, _correctors, image_area

    shapes = [
        r
        for r in ctx.rows("basic", "shapes")
        if not r["flag"] and not r["saturated"] and r["x_ccd"] is not None
    ]
    first: dict[int, int] = {}
    for row in shapes:
        first.setdefault(row["column"], row["obsid"])
    chosen = set(first.values())
    radius = ctx.options["stamp_radius"]
    correctors = _correctors(ctx)
    held: dict[tuple, list] = {}
    noise: dict[str, list[float]] = {q: [] for q in QUADRANTS}
    for exposure in ctx.exposures:
        if exposure.obsid not in chosen:
            continue
        image = ctx.prepared(exposure)
        bad = (image.dq_frame & int(BADMASK)) != 0
        mine = [r for r in shapes if r["obsid"] == exposure.obsid]
        areas = [image_area(ctx.detector, r["quadrant"]) for r in mine]
        x, y = [r["x_ccd"] for r in mine], [r["y_ccd"] for r in mine]
        stamps, corners, _ = cut_stamps(image.frame, x, y, radius, areas)
        masks, _, _ = cut_stamps(bad, x, y, radius, areas)
        good = np.isfinite(stamps) & ~(masks > 0)
        for quadrant, (corrector, gain) in correctors.items():
            at = np.array([r["quadrant"] == quadrant for r in mine], bool)
            level = np.nan_to_num(ring_background(stamps[at], good[at], radius - 1).level)
            stamps[at] = corrected(stamps[at], good[at], level, gain, corrector, ctx.options["bf_passes"])
        for k, row in enumerate(mine):
            start = (
                row["flux"],
                row["x_ccd"] - corners[k, 1],
                row["y_ccd"] - corners[k, 0],
                0.8 * 0.5 * (row["xx"] + row["yy"]),
                0.0,
            )
            key = (ctx.ccd, row["quadrant"], row["spot"])
            held.setdefault(key, []).append((stamps[k], good[k], start))
        for quadrant in QUADRANTS:
            noise[quadrant].append(image.offsets[quadrant].noise)
    ctx.current = None
    gains = ctx.gains()
    rows = []
    for done, key in enumerate(_by_spot(shapes), 1):
        members = held.get(key, [])
        quadrant = key[1]
        made = fit_spot(
            np.array([m[0] for m in members]),
            np.array([m[1] for m in members]),
            np.array([m[2] for m in members]),
            gains[quadrant][0],
            float(np.nanmedian(noise[quadrant])) if noise[quadrant] else 1.3,
            np.linspace(0.0, 1.8, ctx.options["widths"]),
        )
        values = {name: getattr(made, name) for name in made.__dataclass_fields__ if name != "reason"}
        rows.append({"ccd": key[0], "quadrant": quadrant, "spot": key[2], **values, "flag": made.reason})
        ctx.progress(done, 20)
    names = "ccd quadrant spot airy airy_err blur blur_err growth growth_err chi2_dof worst n flag"
    ctx.write_table(
        "forward",
        {n: [r[n] for r in rows] for n in names.split()},
        units=dict.fromkeys(("airy", "airy_err", "blur", "blur_err"), "px"),
        descriptions={
            "airy": "FWHM of the diffraction pattern",
            "blur": "FWHM of the Gaussian blur (optics and diffusion together) at no signal",
            "growth": "of the blur's sigma², px² per 10 000 ADU of peak",
            "worst": "largest residual over its error",
            "flag": "poor fit: chi2/dof above 4 or a residual above 10 errors",
        },
    )
