"""FOCUS00, PSFLUX00, PSF01, PSF02: star lock and a first look (lock), shapes (basic), focus, flux and kernel (meta)."""

from __future__ import annotations

import math
import sys

from calcamp.detector.geometry import CCDS, QUADRANTS
from calcamp.steps import runner

NAN = math.nan
_KEYS = "obsid column frame ccd quadrant spot"


# ---- the CCD's stars --------------------------------------------------------------------------------------


def image_area(detector, quadrant: str) -> tuple[slice, slice]:
    """(rows, columns) of a quadrant's image area in a stored frame."""
    row, column = detector.origin(quadrant)
    row += detector.parallel_overscan if quadrant in "EF" else 0
    column += detector.overscan if quadrant in "FG" else detector.prescan
    return slice(row, row + detector.image_rows), slice(column, column + detector.image_columns)


def centre_of(detector) -> tuple[float, float]:
    """Centre of the silicon, (x, y), px."""
    rows, columns = detector.phys_shape
    return (columns - 1) / 2, (rows - 1) / 2


def on_silicon(detector, positions, margin: float = 5.0):
    """Which silicon positions (n, 2) are on image pixels, `margin` px from every edge."""
    x, y = positions[:, 0], positions[:, 1]
    rows, columns = detector.phys_shape
    half, gap = detector.image_rows, detector.injection_rows
    across = (x >= margin) & (x <= columns - 1 - margin)
    lower = (y >= margin) & (y <= half - 1 - margin)
    upper = (y >= half + gap + margin) & (y <= rows - 1 - margin)
    return across & (lower | upper)


def _bad_plane(ctx: runner.Context):
    """Bad pixels of the masks named, stored orientation, or None."""
    from calcamp.detector.dq import BADMASK

    plane = ctx.dq_plane()
    if plane is None:
        return None
    bad = (plane & int(BADMASK)) != 0
    return bad if bad.any() else None


def pattern_of(ctx: runner.Context) -> dict[str, tuple[float, float]] | None:
    """Silicon positions of the stars of this CCD: of the lock product named, else of the chamber's pattern."""
    product = ctx.product("lock")
    if product:
        from pathlib import Path

        from calcamp.data.tables import table_rows

        rows = [r for r in table_rows(Path(product["path"])) if r.get("ccd") == ctx.ccd]
        return {
            f"{r['quadrant']}{r['spot']}": (r["x_phys"], r["y_phys"])
            for r in rows
            if r.get("x_phys") is not None
        }
    pattern = ctx.job.get("chamber_data", {}).get("pattern")
    return None if pattern is None else {name: tuple(xy) for name, xy in pattern[str(ctx.ccd)].items()}


def _sources(ctx: runner.Context, data, bad, thorough: bool = False) -> dict:
    """Sources of a frame: phys and CCD positions, what they look like, likeliest stars first."""
    import numpy as np

    from calcamp.analysis.lock import find_sources, find_sources_again, star_like

    look = find_sources_again if thorough else find_sources

    o, parts = ctx.options, []
    for quadrant in QUADRANTS:
        rows, columns = image_area(ctx.detector, quadrant)
        found = look(
            data[rows, columns],
            None if bad is None else bad[rows, columns],
            threshold=o["threshold"],
            least=o["least_adu"],
        )
        x, y = found.x + columns.start, found.y + rows.start
        px, py = ctx.detector.ccd_to_phys(x, y, quadrant)
        parts.append(
            {
                "quadrant": np.full(len(found), quadrant),
                "x_phys": px,
                "y_phys": py,
                "x_ccd": x,
                "y_ccd": y,
                "flux": found.flux,
                "width": found.width,
                "elongation": found.elongation,
                "star": star_like(found),
            }
        )
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.lexsort((-joined["flux"], ~joined["star"]))
    return {name: values[order] for name, values in joined.items()}


def _candidates(ctx: runner.Context) -> list[runner.Exposure]:
    """Frames to lock on, best first: nearest the middle of the mirror's scan, then the longest exposures."""
    import statistics

    seen = [e for e in ctx.exposures if e.files.get(ctx.ccd)]
    if not seen:
        return []
    mirror = statistics.median(float(e.values.get("mirr_pos") or 0.0) for e in seen)
    longest = max(float(e.values.get("exptime") or 0.0) for e in seen)

    def order(e):
        time = float(e.values.get("exptime") or 0.0)
        # Half to three quarters of saturation is best: bright, and not bleeding.
        return (
            round(abs(float(e.values.get("mirr_pos") or 0.0) - mirror), 3),
            abs(time - 0.75 * longest),
            e.obsid,
        )

    return sorted(seen, key=order)[:3]


def lock(ctx: runner.Context) -> None:
    """Tables ``lock``, ``stars``, ``sources`` and ``spots``: where the stars are, and a first look at each."""
    pattern = pattern_of(ctx)
    if not pattern:
        ctx.flag("STARS_MISSING", "the chamber profile has no spot pattern")
    bad = _bad_plane(ctx)
    found = _lock_on(ctx, pattern, bad) if pattern else None
    _write_lock(ctx, found)
    _write_stars(ctx, found, pattern or {})
    _write_sources(ctx, found)
    ctx.current = None
    _write_spots(ctx, _look(ctx, _star_rows(ctx, found, pattern or {}), bad))


def _tolerances(ctx: runner.Context):
    from calcamp.analysis.lock import Tolerances

    o = ctx.options
    return Tolerances(
        shift=o["shift_px"],
        rotation=math.radians(o["rotation_deg"]),
        scale=o["scale"],
        match=o["match_px"],
        residual=o["residual_px"],
        least=o["least_stars"],
        missing=o["missing_stars"],
    )


def _lock_on(ctx: runner.Context, pattern: dict, bad) -> dict | None:
    """Best lock of the candidate frames: {obsid, lock, sources}; None when no frame can be read."""
    candidates = _candidates(ctx)
    best = None
    # Quick looks first; only where they leave a star missing are the frames searched thoroughly.
    for exposure, thorough in [(e, False) for e in candidates] + [(e, True) for e in candidates[:1]]:
        made = _try_frame(ctx, exposure, pattern, bad, thorough)
        if made is not None and (best is None or _rank(made) > _rank(best)):
            best = made
        # A star that a cosmic ray hides in one frame is there in the next.
        if best is not None and best["lock"].ok and best["lock"].missing == 0:
            break
    if best is None:
        ctx.flag("STARS_MISSING", "no frame to lock on can be read")
    elif not _is_judged(ctx, best["lock"]):
        ctx.flag("STARS_MISSING", best["lock"].reason, obsid=best["obsid"])
    return best


def _rank(found: dict) -> tuple:
    return found["lock"].ok, found["lock"].matched


def _try_frame(ctx: runner.Context, exposure, pattern: dict, bad, thorough: bool) -> dict | None:
    """Lock on one frame; None when it cannot be read."""
    import numpy as np

    from calcamp.analysis import lock as stars
    from calcamp.data.raw import RawError

    try:
        raw = ctx.read(exposure)
    except RawError:
        return None  # the check reports it
    sources = _sources(ctx, raw.data, bad, thorough)
    positions = np.stack([sources["x_phys"], sources["y_phys"]], axis=1)[sources["star"]]
    made = stars.lock(
        np.array(list(pattern.values()), float),
        positions,
        centre_of(ctx.detector),
        lambda p: on_silicon(ctx.detector, p),
        _tolerances(ctx),
    )
    return {"obsid": exposure.obsid, "lock": made, "sources": sources}


def _all(value, names: str) -> dict:
    """The same value, such as a unit, for several names."""
    return dict.fromkeys(names.split(), value)


def _is_judged(ctx: runner.Context, made) -> bool:
    """Whether the limits of the session judge all of it: scale, rotation, shift and missing stars of a found pattern."""
    found = made.transform is not None and made.matched >= ctx.options["least_stars"]
    return found and not made.rms > ctx.options["residual_px"]


def _columns(rows: list[dict], names: str) -> dict[str, list]:
    return {name: [row[name] for row in rows] for name in names.split()}


def _write_lock(ctx: runner.Context, found: dict | None) -> None:
    """Table ``lock``: the transform from pattern to image."""
    row = _all(
        NAN,
        "scale scale_err rotation rotation_err shift shift_x shift_x_err shift_y shift_y_err rms affine_rms",
    )
    row |= {"ccd": ctx.ccd, "obsid": -1, "matched": 0, "missing": None, "outside": None, "sources": 0}
    row |= {"ok": False, "reason": "no frame", "flag": "no frame"}
    if found is not None:
        made = found["lock"]
        row |= {"obsid": found["obsid"], "sources": len(found["sources"]["flux"]), "ok": made.ok}
        row |= {"reason": made.reason, "flag": "" if made.ok else "no lock", "matched": made.matched}
        t = made.transform
        if t is not None:
            err = [math.sqrt(v) for v in t.covariance.diagonal()] if t.covariance is not None else [NAN] * 4
            row |= {"missing": made.missing, "outside": int(made.outside.sum()), "rms": made.rms}
            row |= {"affine_rms": made.affine_rms, "scale": t.scale, "scale_err": err[2]}
            row |= {"rotation": math.degrees(t.rotation), "rotation_err": math.degrees(err[3])}
            row |= {"shift": math.hypot(*t.shift), "shift_x": t.shift[0], "shift_x_err": err[0]}
            row |= {"shift_y": t.shift[1], "shift_y_err": err[1]}
    pixels = "shift shift_x shift_x_err shift_y shift_y_err rms affine_rms"
    names = (
        "ccd obsid matched missing outside sources scale scale_err rotation rotation_err "
        f"{pixels} ok reason flag"
    )
    ctx.write_table(
        "lock",
        _columns([row], names),
        units={**_all("px", pixels), "rotation": "deg", "rotation_err": "deg"},
        descriptions={
            "rotation": "about the CCD's centre, silicon coordinates, counter-clockwise positive, pattern to image",
            "shift": "length of the shift of the CCD's centre",
            "matched": "of 20 stars",
            "missing": "stars that should be on the silicon and are not seen",
            "outside": "stars that the transform puts beside the silicon",
            "rms": "residual of the stars per axis",
            "affine_rms": "the same when a general linear transform is allowed",
        },
    )


def _star_rows(ctx: runner.Context, found: dict | None, pattern: dict) -> list[dict]:
    """One row per star: nominal, expected and found position, silicon and CCD."""
    rows = []
    made = found["lock"] if found else None
    for k, (name, nominal) in enumerate(pattern.items()):
        quadrant = name[0]
        row = {"ccd": ctx.ccd, "quadrant": quadrant, "spot": name[1:], "status": "unknown"}
        row |= _all(NAN, "x_expected y_expected x_phys y_phys x_ccd y_ccd residual_x residual_y")
        row |= {"x_nominal": nominal[0], "y_nominal": nominal[1]}
        if made is not None and made.transform is not None:
            row |= {"x_expected": made.expected[k, 0], "y_expected": made.expected[k, 1]}
            if made.source[k] >= 0:
                x, y = made.position[k]
                row |= {"x_phys": x, "y_phys": y, "status": "found"}
                row |= {"residual_x": made.residual[k, 0], "residual_y": made.residual[k, 1]}
            else:
                row["status"] = "outside" if made.outside[k] else "missing"
            # A star may lie in the quadrant beside its own when the pattern is far off.
            lies_in = ctx.detector.quadrant_at_phys(row["x_phys"], row["y_phys"])
            if row["status"] == "found" and lies_in != quadrant:
                row["status"] = "outside"
            elif row["status"] == "found":
                row["x_ccd"], row["y_ccd"] = ctx.detector.phys_to_ccd(row["x_phys"], row["y_phys"], quadrant)
        rows.append(row)
    return rows


_STARS = (
    "ccd quadrant spot status x_nominal y_nominal x_expected y_expected x_phys y_phys x_ccd y_ccd "
    "residual_x residual_y"
)


def _write_stars(ctx: runner.Context, found: dict | None, pattern: dict) -> None:
    """Table ``stars``: every star of the pattern and where it is."""
    rows = _star_rows(ctx, found, pattern)
    ctx.write_table(
        "stars",
        _columns(rows, _STARS),
        units=dict.fromkeys(_STARS.split()[4:], "px"),
        descriptions={
            "x_nominal": "of the pattern, silicon coordinates",
            "x_expected": "pattern moved by the transform",
            "x_phys": "found, silicon coordinates",
            "x_ccd": "found, as in the FITS image, 0-based",
            "status": "found, missing, outside (beside its quadrant's silicon) or unknown",
        },
    )


def _write_sources(ctx: runner.Context, found: dict | None) -> None:
    """Table ``sources``: all that was detected in the frame of the lock."""
    names = ["quadrant", "x_phys", "y_phys", "x_ccd", "y_ccd", "flux", "width", "elongation", "star"]
    sources = found["sources"] if found else {name: [] for name in names}
    used = set(found["lock"].source.tolist()) if found else set()
    number = len(sources["flux"])
    likely = [k for k in range(number) if sources["star"][k]]
    rank = {k: n for n, k in enumerate(likely)}
    ctx.write_table(
        "sources",
        {
            "ccd": [ctx.ccd] * number,
            **{name: list(sources[name]) for name in names},
            "matched": [rank.get(k, -2) in used for k in range(number)],
        },
        units={**_all("px", "x_phys y_phys x_ccd y_ccd width"), "flux": "ADU"},
        descriptions={
            "star": "looks like a spot: neither a single pixel nor a track",
            "matched": "taken as a star",
        },
    )


# ---- a first look at every frame ---------------------------------------------------------------------------


def _found(rows: list[dict]) -> list[dict]:
    return [row for row in rows if row["status"] == "found" and math.isfinite(row["x_ccd"])]


def _look(ctx: runner.Context, stars: list[dict], bad) -> list[dict]:
    """Rows of table ``spots``: adaptive moments and aperture of each star in each raw frame."""
    from calcamp.data.raw import RawError

    rows = []
    known = _found(stars)
    gains = ctx.gains()
    for number, exposure in enumerate(ctx.exposures, 1):
        try:
            if known:
                raw = ctx.read(exposure, whole=False)
                rows += _look_at(ctx, exposure, raw.data, known, bad, gains)
        except RawError:
            continue  # the check reports it
        ctx.progress(number, len(ctx.exposures))
    ctx.current = None
    return rows


def _stamps(ctx: runner.Context, frame, bad, stars: list[dict], radius: int):
    """(stamps, good, corners, saturated pixels) of stars; the quadrant's image area only."""
    import numpy as np

    from calcamp.analysis.spots import cut_stamps

    areas = [image_area(ctx.detector, star["quadrant"]) for star in stars]
    x, y = [s["x_ccd"] for s in stars], [s["y_ccd"] for s in stars]
    stamps, corners, _ = cut_stamps(frame, x, y, radius, areas)
    good = np.isfinite(stamps)
    if bad is not None:
        masks, _, _ = cut_stamps(bad, x, y, radius, areas)
        good &= ~(masks > 0)
    return stamps, good, corners


def _full(ctx: runner.Context, stamps, level):
    """Saturated pixels: at the end of the range, or so high that charge may bleed."""
    return (stamps >= ctx.detector.full_scale) | (
        stamps - level[:, None, None] >= ctx.options["saturation_adu"]
    )


def _look_at(ctx: runner.Context, exposure, data, stars, bad, gains) -> list[dict]:
    import numpy as np

    from calcamp.analysis.spots import FWHM, adaptive_moments, aperture_flux, ring_background

    o = ctx.options
    stamps, good, corners = _stamps(ctx, data, bad, stars, o["stamp_radius"])
    gain = np.array([gains[s["quadrant"]][0] for s in stars])
    level = ring_background(stamps, good, o["ring_px"])
    full = _full(ctx, stamps, level.level)
    signal = np.maximum(stamps - level.level[:, None, None], 0.0)
    variance = signal / gain[:, None, None] + level.noise[:, None, None] ** 2
    moments = adaptive_moments(stamps, good, level.level, variance)
    flux, flux_err = aperture_flux(stamps, good, level, moments.x, moments.y, o["aperture_px"], gain)
    saturated = full.sum(axis=(1, 2))
    size = moments.xx + moments.yy
    rows = []
    with np.errstate(invalid="ignore", divide="ignore"):
        e1, e2 = (moments.xx - moments.yy) / size, 2 * moments.xy / size
        fx, fy = FWHM * np.sqrt(moments.xx), FWHM * np.sqrt(moments.yy)
        share = _central_share(moments.fwhm)
    for k, star in enumerate(stars):
        edge = not np.isfinite(stamps[k]).all()
        flag = " ".join(
            text
            for bad_, text in (
                (saturated[k] > 0, "saturated"),
                (not math.isfinite(moments.flux[k]), "not measured"),
                (edge, "edge"),
            )
            if bad_
        )
        rows.append(
            {
                "obsid": exposure.obsid,
                "column": exposure.column,
                "frame": exposure.frame,
                "ccd": ctx.ccd,
                "quadrant": star["quadrant"],
                "spot": star["spot"],
                "x_ccd": corners[k, 1] + moments.x[k],
                "y_ccd": corners[k, 0] + moments.y[k],
                "fluence": flux[k],
                "fluence_err": flux_err[k],
                "peak": moments.peak[k],
                "peak_centred": moments.flux[k] * share[k],
                "fwhm": moments.fwhm[k],
                "fwhm_err": moments.fwhm_err[k],
                "fwhm_x": fx[k],
                "fwhm_y": fy[k],
                "e1": e1[k],
                "e2": e2[k],
                "level": level.level[k],
                "level_err": level.err[k],
                "saturated": int(saturated[k]),
                "flag": flag,
            }
        )
    return rows


def _central_share(fwhm):
    """Share of a Gaussian spot's light in the pixel that it is centred on."""
    import numpy as np

    from calcamp.analysis.spots import FWHM

    half = [0.5 * FWHM / (math.sqrt(2.0) * w) if w > 0 else NAN for w in np.ravel(fwhm)]
    return np.array([math.erf(t) ** 2 if math.isfinite(t) else NAN for t in half])


_SPOTS = (
    f"{_KEYS} x_ccd y_ccd fluence fluence_err peak peak_centred fwhm fwhm_err fwhm_x fwhm_y e1 e2 level level_err "
    "saturated flag"
)


def _write_spots(ctx: runner.Context, rows: list[dict]) -> None:
    ctx.write_table(
        "spots",
        _columns(rows, _SPOTS),
        units={
            **_all("px", "x_ccd y_ccd fwhm fwhm_err fwhm_x fwhm_y saturated"),
            **_all("ADU", "fluence fluence_err peak peak_centred level level_err"),
        },
        descriptions={
            "x_ccd": "as in the FITS image, 0-based",
            "fluence": "in the aperture, local level taken off",
            "peak": "highest pixel within 3 px of the centre, above the local level",
            "peak_centred": "what the peak would be with the spot centred on a pixel",
            "fwhm": "from adaptive moments, sqrt((fwhm_x² + fwhm_y²)/2), pixel taken off",
            "e1": "positive along FITS x",
            "e2": "positive along +x+y",
            "level": "raw level beside the spot, offset included",
            "saturated": "pixels of the stamp at full scale",
        },
    )


# ---- shapes ------------------------------------------------------------------------------------------------


def basic(ctx: runner.Context) -> None:
    """Table ``shapes``: pixel-integrated Gaussians fitted to every star of every frame that is used."""
    from calcamp.data.raw import RawError

    stars = [
        {**row, "x_ccd": NAN if row["x_ccd"] is None else row["x_ccd"]} for row in ctx.rows("lock", "stars")
    ]
    known = _found(stars)
    bad = _bad_plane(ctx)
    gains = ctx.gains()
    scans = {
        (row["obsid"], row["quadrant"]): row for row in ctx.rows("check", "offsets") if row["region"] == "pre"
    }
    correctors = _correctors(ctx)
    rows, again = [], []
    exposures = ctx.readable() if known else []
    for number, exposure in enumerate(exposures, 1):
        here = [s for s in known if (exposure.obsid, s["quadrant"]) not in ctx.selection()]
        try:
            if here:
                made, without = _shapes_of(ctx, exposure, here, bad, gains, scans, correctors)
                rows, again = rows + made, again + without
        except RawError as error:
            ctx.exclude(exposure.obsid, f"{error.kind}: {error}")
        ctx.progress(number, len(exposures))
    ctx.current = None
    _flag_bad_fits(ctx, rows)
    _write_shapes(ctx, rows)
    if correctors:
        _write_shapes(ctx, again, "shapes_corrected")


def _correctors(ctx: runner.Context) -> dict:
    """quadrant -> (`Corrector` of the stamps, gain) of the brighter-fatter kernel named; empty without one."""
    product = ctx.product("bf_kernel")
    if product is None or not ctx.options.get("correct_bf"):
        return {}
    from pathlib import Path

    import numpy as np

    from calcamp.analysis.brighter_fatter import Corrector, Kernel
    from calcamp.data.products import load_bf_kernel

    side = 2 * ctx.options["stamp_radius"] + 1
    out = {}
    for (ccd, quadrant), (serial, parallel, gain) in load_bf_kernel(Path(product["path"])).items():
        if ccd == ctx.ccd and np.isfinite(serial).all() and np.isfinite(parallel).all() and gain > 0:
            kernel = Kernel(serial, parallel, serial * 0, parallel * 0, NAN, NAN)
            out[quadrant] = Corrector(kernel, (side, side)), gain
    lost = [q for q in QUADRANTS if q not in out]
    if lost:
        ctx.flag("BADDATAPROD", f"the brighter-fatter kernel has none for {', '.join(lost)}")
    return out


def _is_raw(ctx: runner.Context) -> bool:
    """FOCUS00 is measured on raw frames with the level beside each spot, the others on prepared ones."""
    return ctx.test.startswith("FOCUS00")


def _frame(ctx: runner.Context, exposure, bad, scans):
    """(frame, bad pixels, {quadrant: (level without photon noise, read noise)})."""
    from calcamp.detector.dq import BADMASK

    if _is_raw(ctx):
        data = ctx.read(exposure, whole=False).data
        known = {}
        for quadrant in QUADRANTS:
            row = scans.get((exposure.obsid, quadrant)) or {}
            known[quadrant] = (row.get("offset"), row.get("noise"))
        return data, bad, known
    image = ctx.prepared(exposure)
    wrong = (image.dq_frame & int(BADMASK)) != 0
    return image.frame, wrong, {q: (0.0, image.offsets[q].noise) for q in QUADRANTS}


def _shapes_of(
    ctx: runner.Context, exposure, stars, bad, gains, scans, correctors
) -> tuple[list[dict], list[dict]]:
    """Rows of table ``shapes`` of one frame, and those after the brighter-fatter correction."""
    import numpy as np

    from calcamp.analysis.spots import corrected, ring_background

    frame, wrong, scan = _frame(ctx, exposure, bad, scans)
    stamps, good, corners = _stamps(ctx, frame, wrong, stars, ctx.options["stamp_radius"])
    level = ring_background(stamps, good, ctx.options["ring_px"])
    full = _full(ctx, stamps, level.level)
    measure = _Measure(ctx, exposure, stars, good, full, corners, level, gains, scan)
    rows = measure(stamps)
    again = []
    for quadrant, (corrector, gain) in correctors.items():
        at = np.array([s["quadrant"] == quadrant for s in stars])
        stamps[at] = corrected(
            stamps[at], good[at], np.nan_to_num(level.level[at]), gain, corrector, ctx.options["bf_passes"]
        )
    if correctors:
        again = [row for row in measure(stamps) if row["quadrant"] in correctors]
    return rows, again


class _Measure:
    """Fits the stamps of one frame, as they are or corrected; what they share is worked out once."""

    def __init__(self, ctx, exposure, stars, good, full, corners, level, gains, scan):
        import numpy as np

        self.ctx, self.exposure, self.stars = ctx, exposure, stars
        self.good, self.full, self.corners, self.level = good, full, corners, level
        self.gain = np.array([gains[s["quadrant"]][0] for s in stars])
        dark, noise = (
            np.array([v if (v := scan[s["quadrant"]][k]) is not None else NAN for s in stars], float)
            for k in (0, 1)
        )
        # Without a prescan: the level beside the spot has no photons of its own, and its noise is the read noise.
        self.dark = np.where(np.isfinite(dark), dark, level.level)
        self.noise = np.where(np.isfinite(noise) & (noise > 0), noise, level.noise)

    def __call__(self, stamps) -> list[dict]:
        import numpy as np

        from calcamp.analysis.spots import (
            adaptive_moments,
            aperture_flux,
            box_width,
            fit_gaussians,
            residual_trails,
            start_values,
        )

        o, good, level, gain, noise, dark = (
            self.ctx.options, self.good, self.level, self.gain, self.noise, self.dark
        )  # fmt: skip
        signal = np.maximum(stamps - dark[:, None, None], 0.0)
        moments = adaptive_moments(
            stamps, good, level.level, signal / gain[:, None, None] + noise[:, None, None] ** 2
        )
        fits = fit_gaussians(
            stamps,
            good & ~self.full,
            gain,
            np.nan_to_num(noise, nan=1.3),
            start_values(moments, level.level),
            radius=o["fit_radius"],
            reject=o["reject_sigma"],
            dark=np.nan_to_num(dark),
        )
        found = {
            "fits": fits,
            "derived": fits.derived(),
            "moments": moments,
            "aperture": aperture_flux(
                stamps, good, level, fits.get("x"), fits.get("y"), o["aperture_px"], gain
            ),
            "trails": residual_trails(stamps, good & ~self.full, fits, gain, noise, dark),
            "old": box_width(stamps, good, level.level, moments.x, moments.y),
        }
        found["share"] = _central_share(found["derived"]["fwhm"])
        found["saturated"] = self.full.sum(axis=(1, 2))
        return [self._row(k, star, **found) for k, star in enumerate(self.stars)]

    def _row(self, k, star, *, fits, derived, moments, aperture, trails, old, share, saturated) -> dict:
        exposure, detector = self.exposure, self.ctx.detector
        x, y = self.corners[k, 1] + fits.get("x")[k], self.corners[k, 0] + fits.get("y")[k]
        px, py = detector.ccd_to_phys(x, y, star["quadrant"])
        chi2 = fits.chi2[k] / fits.dof[k] if fits.dof[k] > 0 else NAN
        reason, largest = fits.reason[k], self.ctx.options["largest_chi2"]
        if not reason and largest and chi2 > largest:
            reason = f"chi2/dof {chi2:.3g}"
        if saturated[k]:
            reason = "; ".join(filter(None, ("saturated", reason)))
        return {
            "obsid": exposure.obsid,
            "column": exposure.column,
            "frame": exposure.frame,
            "ccd": self.ctx.ccd,
            "quadrant": star["quadrant"],
            "spot": star["spot"],
            "mirror": float(exposure.values.get("mirr_pos") or NAN),
            "exptime": float(exposure.values.get("exptime") or NAN),
            "x_ccd": x,
            "y_ccd": y,
            "x_phys": px,
            "y_phys": py,
            "x_err": fits.err("x")[k],
            "y_err": fits.err("y")[k],
            **{
                name: value
                for p in ("flux", "xx", "yy", "xy")
                for name, value in ((p, fits.get(p)[k]), (f"{p}_err", fits.err(p)[k]))
            },
            "cov_xx_yy": fits.covariance[k, 3, 4],
            **{name: derived[name][k] for name in derived},
            **_trails_of(trails, k, star["quadrant"]),
            "aperture": aperture[0][k],
            "aperture_err": aperture[1][k],
            "peak": moments.peak[k],
            "peak_centred": fits.get("flux")[k] * share[k],
            "fwhm_x_vison": old[0][k],
            "fwhm_y_vison": old[1][k],
            "chi2_dof": chi2,
            "rejected": int(fits.n_rejected[k]),
            "saturated": int(saturated[k]),
            "flag": reason,
        }


def _trails_of(trails: dict, k: int, quadrant: str) -> dict:
    """Trails along FITS x and y turned to the directions of the read-out: positive is later."""
    from calcamp.detector.geometry import flips

    rows, columns = flips(quadrant)
    return {
        "trail_serial": (-1 if columns else 1) * trails["x"][k],
        "trail_serial_err": trails["x_err"][k],
        "trail_parallel": (-1 if rows else 1) * trails["y"][k],
        "trail_parallel_err": trails["y_err"][k],
    }


_DERIVED = ("fwhm", "fwhm_x", "fwhm_y", "r2", "e1", "e2")
_FITTED = ("flux", "xx", "yy", "xy")
_SHAPES = (
    f"{_KEYS} mirror exptime x_ccd x_err y_ccd y_err x_phys y_phys "
    + " ".join(f"{n} {n}_err" for n in (*_FITTED, *_DERIVED, "trail_serial", "trail_parallel"))
    + " cov_xx_yy aperture aperture_err peak peak_centred fwhm_x_vison fwhm_y_vison chi2_dof rejected saturated flag"
)


def _write_shapes(ctx: runner.Context, rows: list[dict], subject: str = "shapes") -> None:
    """Table ``shapes``, or the same after the brighter-fatter correction."""
    adu = "flux flux_err aperture aperture_err peak peak_centred"
    px = "x_ccd x_err y_ccd y_err x_phys y_phys fwhm fwhm_err fwhm_x fwhm_x_err fwhm_y fwhm_y_err fwhm_x_vison fwhm_y_vison"
    px2 = "xx xx_err yy yy_err xy xy_err r2 r2_err"
    ctx.write_table(
        subject,
        _columns(rows, _SHAPES),
        units={
            **_all("ADU", adu),
            **_all("px", px),
            **_all("px2", px2),
            "cov_xx_yy": "px4",
            "mirror": "mm",
            "exptime": "s",
        },
        descriptions={
            "flux": "of the Gaussian fitted",
            "xx": "covariance matrix of the Gaussian, pixel not included, FITS orientation",
            "cov_xx_yy": "covariance of the errors of xx and yy",
            "fwhm": "2.3548 sigma, sqrt((fwhm_x² + fwhm_y²)/2), pixel not included",
            "r2": "xx + yy",
            "e1": "(xx - yy)/(xx + yy), positive along FITS x",
            "e2": "2 xy/(xx + yy), positive along +x+y",
            "trail_serial": "light 1 to 3 px later in the line than the spot less that as much earlier, beyond the model, over the flux",
            "trail_parallel": "the same along the column",
            "aperture": "flux in the aperture",
            "peak_centred": "peak of the fitted spot, were it centred on a pixel",
            "fwhm_x_vison": "2.355 rms in a floating box, pixel and wings included, as the predecessor measured it",
            "rejected": "pixels left out as far from the model",
        },
    )


def _flag_bad_fits(ctx: runner.Context, rows: list[dict]) -> None:
    for quadrant in QUADRANTS:
        failed = [r for r in rows if r["quadrant"] == quadrant and r["flag"] and "saturated" not in r["flag"]]
        if failed:
            first = failed[0]
            cause = f"fit of spot {quadrant}{first['spot']}: {first['flag']}"
            if len(failed) > 1:
                cause += f", and {len(failed) - 1} more fits of the quadrant"
            ctx.flag("BADFIT", cause, quadrant=quadrant, obsid=first["obsid"])


# ---- focus -------------------------------------------------------------------------------------------------


def _arrays(rows: list[dict], names: str) -> dict:
    import numpy as np

    return {
        name: np.array([NAN if r[name] is None else r[name] for r in rows], float) for name in names.split()
    }


def _by_spot(rows: list[dict]) -> dict[tuple, list[dict]]:
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault((row["ccd"], row["quadrant"], row["spot"]), []).append(row)
    return groups


def _shapes(ctx: runner.Context, subject: str = "shapes") -> dict[int, list[dict]]:
    """Rows of ``shapes`` of the CCDs, spots that saturate left out."""
    return {ccd: [r for r in ctx.rows("basic", subject, ccd) if not r["saturated"]] for ccd in CCDS}


def meta(ctx: runner.Context) -> None:
    """What the test is for: focus, brightness, or growth and kernel."""
    if ctx.test.startswith("FOCUS00"):
        focus(ctx)
    elif ctx.test.startswith("PSFLUX00"):
        flux(ctx)
    else:
        from calcamp.steps.psf import psf_meta

        psf_meta(ctx)


def focus(ctx: runner.Context) -> None:
    """Tables ``focus_spots``, ``focus``, ``focus_block``, ``point_flux``: curves, planes, best focus."""
    spots, planes, curves = [], [], {}
    for ccd, rows in _shapes(ctx).items():
        made = {key: _curves_of(ctx, members) for key, members in _by_spot(rows).items()}
        spots += [_spot_row(key, found) for key, found in made.items()]
        curves[ccd] = made
        planes.append(_plane_row(ctx, ccd, made))
    block = _block_row(ctx, planes, curves)
    _widths_at_best(planes, curves)
    _write_focus(ctx, spots, planes, block)
    _write_flux(ctx, _focus_flux(ctx, curves))


def _curves_of(ctx: runner.Context, rows: list[dict]) -> dict:
    """Focus curves of one spot: of both axes together, of x, of y; and the predecessor's parabola."""
    import numpy as np

    from calcamp.analysis.point import fit_focus, parabola_vison

    a = _arrays(
        rows,
        "mirror xx yy xx_err yy_err cov_xx_yy x_phys y_phys fwhm_x_vison fwhm_y_vison flux flux_err exptime",
    )
    mean = 0.5 * (a["xx"] + a["yy"])
    err = 0.5 * np.sqrt(a["xx_err"] ** 2 + a["yy_err"] ** 2 + 2 * a["cov_xx_yy"])
    clip = ctx.options["clip_sigma"]
    old = np.sqrt(0.5 * (a["fwhm_x_vison"] ** 2 + a["fwhm_y_vison"] ** 2))
    with np.errstate(all="ignore"):
        position = [
            float(np.nanmedian(a[name])) if np.isfinite(a[name]).any() else NAN
            for name in ("x_phys", "y_phys")
        ]
    return {
        "both": fit_focus(a["mirror"], mean, err, clip),
        "x": fit_focus(a["mirror"], a["xx"], a["xx_err"], clip),
        "y": fit_focus(a["mirror"], a["yy"], a["yy_err"], clip),
        "vison": parabola_vison(a["mirror"], old),
        "old": (a["mirror"], old),
        "position": position,
        "arrays": a,
    }


def _spot_row(key, found: dict) -> dict:
    both, x, y = found["both"], found["x"], found["y"]
    return {
        "ccd": key[0],
        "quadrant": key[1],
        "spot": key[2],
        "x_phys": found["position"][0],
        "y_phys": found["position"][1],
        "focus": both.focus,
        "focus_err": both.focus_err,
        "focus_x": x.focus,
        "focus_x_err": x.focus_err,
        "focus_y": y.focus,
        "focus_y_err": y.focus_err,
        "fwhm_best": both.fwhm,
        "fwhm_best_err": both.fwhm_err,
        "slope": both.slope,
        "slope_err": both.slope_err,
        "focus_vison": found["vison"][0],
        "fwhm_best_vison": found["vison"][1],
        "chi2_dof": both.chi2_dof,
        "n": both.n,
        "flag": both.reason,
    }


def _good(found: dict) -> list[dict]:
    return [f for f in found.values() if not f["both"].reason]


def _plane_row(ctx: runner.Context, ccd: int, made: dict) -> dict:
    from calcamp.analysis.point import depth_of_focus, fit_surface, mean_with_scatter

    good = _good(made)
    args = [[f["position"][0] for f in good], [f["position"][1] for f in good]]
    surface = fit_surface(
        *args,
        [f["both"].focus for f in good],
        [f["both"].focus_err for f in good],
        centre_of(ctx.detector),
        ctx.options["plane_clip_sigma"],
    )
    reason = surface.reason
    if not reason and len(good) < ctx.options["least_spots"]:
        reason = f"{len(good)} spots with a focus, at least {ctx.options['least_spots']} needed"
    slope, slope_err, _, _ = mean_with_scatter(
        [f["both"].slope for f in good], [f["both"].slope_err for f in good]
    )
    astig = [f["x"].focus - f["y"].focus for f in good]
    astig_err = [math.hypot(f["x"].focus_err, f["y"].focus_err) for f in good]
    astigmatism, astigmatism_err, _, _ = mean_with_scatter(astig, astig_err)
    width, _, _, _ = mean_with_scatter([f["both"].fwhm for f in good], [f["both"].fwhm_err for f in good])
    bad = [f["both"].reason for f in made.values() if f["both"].reason]
    if reason or bad:
        text = reason or f"focus curve of {len(bad)} of {len(made)} spots: {bad[0]}"
        ctx.flag("BADFIT", text, ccd=ccd)
    return {
        "ccd": ccd,
        "best_focus": surface.value,
        "best_focus_err": surface.err,
        "tilt_x": surface.tilt_x,
        "tilt_x_err": surface.tilt_x_err,
        "tilt_y": surface.tilt_y,
        "tilt_y_err": surface.tilt_y_err,
        "curvature": surface.curvature,
        "curvature_err": surface.curvature_err,
        "scatter": surface.scatter,
        "astigmatism": astigmatism,
        "astigmatism_err": astigmatism_err,
        "slope": slope,
        "slope_err": slope_err,
        "depth": depth_of_focus(width, slope),
        "chi2_dof": surface.chi2_dof,
        "n": surface.n,
        "flag": reason,
    }


def _block_row(ctx: runner.Context, planes: list[dict], curves: dict) -> dict:
    """Best focus of the block: mean over the CCDs, and the widths there."""
    import numpy as np

    from calcamp.analysis.point import widths_at

    known = [p for p in planes if math.isfinite(p["best_focus"]) and not p["flag"]]
    n = len(known)
    focus = sum(p["best_focus"] for p in known) / n if n else NAN
    focus_err = math.sqrt(sum(p["best_focus_err"] ** 2 for p in known)) / n if n else NAN
    every = [f["both"] for made in curves.values() for f in made.values()]
    widths = widths_at(every, focus, focus_err) if n else widths_at([], NAN)
    old = []
    for made in curves.values():
        for found in made.values():
            z, width = found["old"]
            good = np.isfinite(z) & np.isfinite(width)
            if n and len(np.unique(z[good])) >= 3:
                c = np.polyfit(z[good] - focus, width[good], 2)
                old.append(c[2])
    vison = [f["vison"][0] for made in curves.values() for f in made.values() if math.isfinite(f["vison"][0])]
    spread = [p["best_focus"] for p in known]
    return {
        "best_focus": focus,
        "best_focus_err": focus_err,
        "range": max(spread) - min(spread) if n > 1 else NAN,
        "fwhm_best": widths.fwhm,
        "fwhm_best_err": widths.err,
        "fwhm_scatter": widths.scatter,
        "best_focus_vison": float(np.mean(vison)) if vison else NAN,
        "fwhm_best_vison": float(np.mean(old)) if old else NAN,
        "ccds": n,
        "spots": widths.n,
        "flag": "" if n == len(CCDS) else f"{n} of {len(CCDS)} CCDs",
    }


def _widths_at_best(planes: list[dict], curves: dict) -> None:
    """Add the mean FWHM of each CCD's spots at its own best focus, and the predecessor's."""
    import numpy as np

    from calcamp.analysis.point import widths_at

    for plane in planes:
        made = curves[plane["ccd"]]
        z = plane["best_focus"]
        known = math.isfinite(z)
        widths = widths_at([f["both"] for f in made.values()] if known else [], z, plane["best_focus_err"])
        old = []
        for found in made.values() if known else ():
            at, width = found["old"]
            good = np.isfinite(at) & np.isfinite(width)
            if len(np.unique(at[good])) >= 3:
                old.append(np.polyfit(at[good] - z, width[good], 2)[2])
        plane["fwhm_best"], plane["fwhm_best_err"], plane["fwhm_scatter"] = (
            widths.fwhm,
            widths.err,
            widths.scatter,
        )
        plane["fwhm_best_vison"] = float(np.mean(old)) if old else NAN


def _write_focus(ctx: runner.Context, spots: list[dict], planes: list[dict], block: dict) -> None:
    both = "focus focus_x focus_y fwhm_best slope"
    names = "ccd quadrant spot x_phys y_phys " + " ".join(f"{n} {n}_err" for n in both.split())
    mm = "focus focus_err focus_x focus_x_err focus_y focus_y_err focus_vison"
    px = "x_phys y_phys fwhm_best fwhm_best_err fwhm_best_vison"
    ctx.write_table(
        "focus_spots",
        _columns(spots, f"{names} focus_vison fwhm_best_vison chi2_dof n flag"),
        units={
            **_all("mm", mm),
            **_all("px", px),
            "slope": "px/mm",
            "slope_err": "px/mm",
        },
        descriptions={
            "focus": "mirror position of least size, from sigma² = S0 + slope² (z - focus)²",
            "focus_x": "the same along FITS x",
            "fwhm_best": "2.3548 sigma at that position, pixel not included",
            "slope": "sigma per mm far from focus",
            "focus_vison": "vertex of an unweighted parabola of the moment FWHM",
        },
    )
    both = "best_focus fwhm_best tilt_x tilt_y curvature astigmatism slope"
    names = "ccd " + " ".join(f"{n} {n}_err" for n in both.split())
    ctx.write_table(
        "focus",
        _columns(planes, f"{names} scatter fwhm_scatter fwhm_best_vison depth chi2_dof n flag"),
        units={
            **_all("mm", "best_focus best_focus_err scatter astigmatism astigmatism_err depth"),
            **_all("px", "fwhm_best fwhm_best_err fwhm_scatter fwhm_best_vison"),
            **_all("mm/kpix", "tilt_x tilt_x_err tilt_y tilt_y_err"),
            **_all("mm/kpix2", "curvature curvature_err"),
            **_all("px/mm", "slope slope_err"),
        },
        descriptions={
            "best_focus": "plane through the spots' best positions, at the CCD's centre",
            "fwhm_best": "mean over the spots of the FWHM at best_focus, pixel not included",
            "tilt_x": "along FITS x, mm per 1000 px",
            "curvature": "fitted beside the plane",
            "astigmatism": "best focus along x minus along y",
            "scatter": "of the spots about the plane beyond their errors",
            "depth": "to each side until the FWHM has grown by 5 %",
        },
    )
    names = list(block)
    ctx.write_table(
        "focus_block",
        {name: [block[name]] for name in names},
        units={
            **_all("mm", "best_focus best_focus_err range best_focus_vison"),
            **_all("px", "fwhm_best fwhm_best_err fwhm_scatter fwhm_best_vison"),
        },
        descriptions={
            "best_focus": "mean over the CCDs",
            "range": "from the lowest to the highest CCD",
            "fwhm_best": "mean over all spots of the FWHM at best_focus",
            "best_focus_vison": "mean of the spots' parabolas, as the predecessor",
        },
    )


# ---- brightness ------------------------------------------------------------------------------------------


def _focus_flux(ctx: runner.Context, curves: dict) -> list[dict]:
    """Saturation time from the flux of the spots and their width at best focus."""
    import numpy as np

    from calcamp.analysis.point import mean_with_scatter

    level = ctx.options["effective_saturation"]
    rows = []
    for ccd, made in curves.items():
        for quadrant in QUADRANTS:
            times, errors = [], []
            for (_, q, _), found in made.items():
                a = found["arrays"]
                good = np.isfinite(a["flux"]) & np.isfinite(a["flux_err"]) & (a["exptime"] > 0)
                if q != quadrant or not good.any() or found["both"].reason:
                    continue
                weight = 1 / a["flux_err"][good] ** 2
                rate = np.average(a["flux"][good] / a["exptime"][good], weights=weight)
                scatter = np.std(a["flux"][good] / a["exptime"][good]) / math.sqrt(max(good.sum() - 1, 1))
                share = _central_share([found["both"].fwhm])[0]
                times.append(level / (rate * share))
                # a wider spot is less peaked: d ln share = -2 d ln fwhm
                errors.append(
                    times[-1] * math.hypot(scatter / rate, 2 * found["both"].fwhm_err / found["both"].fwhm)
                )
            rows.append(_flux_row(ccd, quadrant, times, errors, mean_with_scatter))
    return rows


def _flux_row(ccd, quadrant, times, errors, mean) -> dict:
    """Mean over the spots of a quadrant, which differ in brightness: the error is that of these spots."""
    n = len(times)
    _, _, scatter, _ = mean(times, errors)
    return {
        "ccd": ccd,
        "quadrant": quadrant,
        "saturation_time": sum(times) / n if n else NAN,
        "saturation_time_err": math.sqrt(sum(e * e for e in errors)) / n if n else NAN,
        "scatter": scatter,
        "n": n,
        "flag": "" if n else "no spot measured",
    }


def _write_flux(ctx: runner.Context, rows: list[dict]) -> None:
    names = "ccd quadrant saturation_time saturation_time_err scatter n flag"
    ctx.write_table(
        "point_flux",
        _columns(rows, names),
        units=dict.fromkeys(("saturation_time", "saturation_time_err", "scatter"), "s"),
        descriptions={
            "saturation_time": "exposure in which the peak of a spot centred on a pixel, at its best focus, reaches the "
            "effective saturation; mean over the spots",
            "scatter": "from spot to spot",
        },
    )


def flux(ctx: runner.Context) -> None:
    """Tables ``flux_spots`` and ``point_flux``: signal against exposure time of every spot."""
    import numpy as np

    from calcamp.analysis.point import fit_rate, mean_with_scatter

    o = ctx.options
    level = o["effective_saturation"]
    spots, rows = [], []
    for ccd, shapes in _shapes(ctx).items():
        groups = _by_spot(shapes)
        for quadrant in QUADRANTS:
            times, errors = [], []
            for key, members in groups.items():
                if key[1] != quadrant:
                    continue
                a = _arrays(members, "exptime flux flux_err peak peak_centred fwhm fwhm_err")
                use = a["peak"] <= o["max_fraction"] * level
                width = (
                    float(np.nanmedian(a["fwhm"][use]))
                    if use.any() and np.isfinite(a["fwhm"][use]).any()
                    else NAN
                )
                share = _central_share([width])[0]
                light = fit_rate(
                    a["exptime"][use], a["flux"][use], a["flux_err"][use], level / share, o["exposure_jitter"]
                )
                spots.append(_flux_spot(key, light, width, share))
                if not light.reason:
                    times.append(light.saturation)
                    errors.append(light.saturation_err)
            rows.append(_flux_row(ccd, quadrant, times, errors, mean_with_scatter))
            if not times:
                ctx.flag(
                    "BADFIT", "no spot with a straight line of flux against time", ccd=ccd, quadrant=quadrant
                )
    _write_flux(ctx, rows)
    names = (
        "ccd quadrant spot rate rate_err peak_rate offset offset_err saturation_time saturation_time_err fwhm "
        "chi2_dof n flag"
    )
    ctx.write_table(
        "flux_spots",
        _columns(spots, names),
        units={
            **dict.fromkeys(("rate", "rate_err", "peak_rate"), "ADU/s"),
            **dict.fromkeys(("offset", "offset_err", "saturation_time", "saturation_time_err"), "s"),
            "fwhm": "px",
        },
        descriptions={
            "rate": "slope of the fitted flux against the commanded time",
            "peak_rate": "of the peak of a spot centred on a pixel",
            "offset": "true minus commanded time, from the line's zero",
        },
    )


def _flux_spot(key, light, width: float, share: float) -> dict:
    return {
        "ccd": key[0],
        "quadrant": key[1],
        "spot": key[2],
        "rate": light.rate,
        "rate_err": light.rate_err,
        "peak_rate": light.rate * share,
        "offset": light.offset,
        "offset_err": light.offset_err,
        "saturation_time": light.saturation,
        "saturation_time_err": light.saturation_err,
        "fwhm": width,
        "chi2_dof": light.chi2_dof,
        "n": light.n,
        "flag": light.reason,
    }


def bayes(ctx: runner.Context) -> None:
    """Forward model of the spots of PSF tests."""
    from calcamp.steps.psf import bayes as fit

    fit(ctx)


TASKS = {"lock": lock, "basic": basic, "meta": meta, "bayes": bayes}

if __name__ == "__main__":
    sys.exit(runner.run("point", TASKS))
