"""Sections of FOCUS00, PSFLUX00, PSF01 and PSF02: star lock, spots, focus, brightness; shapes and cross-talk."""

from __future__ import annotations

import math

import numpy as np

from calcamp.report import figures as fig
from calcamp.report.base import (
    CCDS,
    QUADRANTS,
    Beam,
    Cell,
    Note,
    ReportData,
    Section,
    TableBlock,
    Text,
    is_number,
    label,
    number,
    with_error,
)

SPOTS = "ABCDE"
SPOT_COLOURS = dict(
    zip(SPOTS, (fig.COLOURS[c] for c in ("blue", "orange", "green", "purple", "red")), strict=True)
)
SPOT_NAMES = {"A": "ALPHA", "B": "BRAVO", "C": "CHARLIE", "D": "DELTA", "E": "ECHO"}
FWHM = math.sqrt(8.0 * math.log(2.0))


def sections(data: ReportData) -> list[Section]:
    """The family's sections, in order."""
    out = []
    if data.test.startswith("FOCUS00"):
        out.append(Section("Focus", [], "focus", focus_sections(data)))
    elif data.test.startswith(("PSF01", "PSF02")):
        from calcamp.report import crosstalk, psf

        out += psf.sections(data)
        out += crosstalk.sections(data)
    if data.table("point_flux") is not None or data.test.startswith("PSFLUX00"):
        out.append(Section("Brightness of the sources", brightness(data), "brightness"))
    out.append(Section("Star lock", star_lock(data), "lock"))
    out.append(Section("Spots in the raw frames", spots(data), "spots"))
    return out


def spot_entries() -> dict:
    """Legend entries of the five spots of a quadrant."""
    return {SPOT_NAMES[s]: {"color": SPOT_COLOURS[s], "marker": "o"} for s in SPOTS}


# ---- focus ------------------------------------------------------------------------------------------------
def focus_sections(data: ReportData) -> list[Section]:
    return [
        Section("Best focus", best_focus(data), "best-focus"),
        Section("Focus curves", focus_curves(data), "focus-curves"),
        Section("Focal plane", focal_plane(data), "focal-plane"),
        Section("Spot by spot", focus_spots(data), "focus-spots"),
    ]


def best_focus(data: ReportData) -> list:
    """The numbers of the test, by CCD and for the block."""
    table, block = data.table("focus"), data.table("focus_block")
    if table is None:
        return data.missing("focus")
    rows = []
    for row in table.rows():
        rows.append(
            [
                Cell(f"CCD{row['ccd']}"),
                *(
                    Cell(
                        with_error(row.get(name), row.get(f"{name}_err")),
                        "" if is_number(row.get(name)) else "none",
                    )
                    for name in ("best_focus", "fwhm_best")
                ),
                Cell(number(row.get("fwhm_best_vison"))),
                Cell(number(row.get("depth"), 2)),
                Cell(number(row.get("n"))),
                Cell(row.get("flag") or "", "fail" if row.get("flag") else "", align="l"),
            ]
        )
    for row in block.rows() if block is not None else ():
        rows.append(
            [
                Cell("Block"),
                Cell(with_error(row.get("best_focus"), row.get("best_focus_err"))),
                Cell(with_error(row.get("fwhm_best"), row.get("fwhm_best_err"))),
                Cell(number(row.get("fwhm_best_vison"))),
                Cell(""),
                Cell(number(row.get("spots"))),
                Cell(row.get("flag") or "", "fail" if row.get("flag") else "", align="l"),
            ]
        )
    header = ["", "Best focus [mm]", "FWHM there [px]", "old FWHM [px]", "Depth [mm]", "Spots", "Remark"]
    return [
        Text(
            "Defocus blurs a spot in proportion to the distance from focus, so the square of its size is a parabola of the "
            "mirror position, σ² = σ₀² + k²(z − z₀)². Best focus of a CCD is the plane through the z₀ of its spots, taken at "
            "the CCD's centre; that of the block is the mean over the CCDs. The FWHM is 2.3548 σ of a Gaussian integrated "
            "over the pixels, pixel not included, mean of the spots at best focus. “Old FWHM” is the predecessor's figure from "
            "moments in a box, pixel and wings included. Depth: to either side until the FWHM has grown by 5 %."
        ),
        TableBlock(header, rows, "Best focus and width of the spots there"),
        *_step(data),
    ]


def _step(data: ReportData) -> list:
    """How far the chamber profile is from what was found, for the custodian."""
    block = data.table("focus_block")
    positions = [e.get("log_row", {}).get("mirr_pos") for e in data.exposures]
    positions = [float(p) for p in positions if is_number(p)]
    if block is None or not positions:
        return []
    found = block.rows()[0].get("best_focus")
    if not is_number(found):
        return []
    nominal = sorted(positions)[len(positions) // 2]
    text = (
        f"The middle of the scan was at {nominal:.3f} mm: best focus is {1000 * (found - nominal):+.1f} µm from it. "
        f"To use it: calcamp chamber set-focus {data.verdict.get('chamber') or 'PROFILE'} "
        f"{'/'.join(data.folder.resolve().parts[-3:])}"
    )
    return [Note(text, "info")]


def focus_curves(data: ReportData) -> list:
    shapes, curves = data.table("shapes"), data.table("focus_spots")
    if shapes is None or curves is None:
        return data.missing("shapes", "focus_spots")
    caption = (
        "FWHM of every spot against mirror position, with its fitted curve. The dashed line is the best focus of the CCD. "
        "Quadrants as the beam sees them."
    )
    more = "Residuals of the fitted curves, in errors of each point; points of the five spots side by side."
    return [
        data.figures.make(
            "focus_curves", caption, lambda f: _draw_curves(f, data, shapes, curves), height=3.4
        ),
        data.figures.make("focus_residuals", more, lambda f: _draw_residuals(f, shapes, curves), height=2.5),
    ]


def _draw_curves(figure, data, shapes, curves) -> None:
    axes = fig.beam_panels(figure)
    planes = (
        {row["ccd"]: row["best_focus"] for row in data.table("focus").rows()} if data.table("focus") else {}
    )
    z = shapes.floats("mirror")
    fine = np.linspace(np.nanmin(z), np.nanmax(z), 60)
    for (ccd, quadrant), ax in axes.items():
        ax.texts[0].set(x=0.5, ha="center")  # between the arms of the curves
        if is_number(planes.get(ccd)):
            ax.axvline(planes[ccd], color="#999999", linestyle="--", linewidth=0.6, zorder=0)
        for spot in SPOTS:
            part = shapes.select(ccd=ccd, quadrant=quadrant, spot=spot)
            fit = curves.select(ccd=ccd, quadrant=quadrant, spot=spot)
            colour = SPOT_COLOURS[spot]
            if len(part):
                ax.plot(
                    part.floats("mirror"),
                    part.floats("fwhm"),
                    "o",
                    color=colour,
                    markersize=2,
                    markeredgewidth=0,
                )
            if len(fit):
                s0, k, z0 = fit.floats("fwhm_best")[0], fit.floats("slope")[0], fit.floats("focus")[0]
                ax.plot(fine, np.sqrt(s0**2 + (FWHM * k * (fine - z0)) ** 2), color=colour, linewidth=0.6)
    fig.share_limits(axes)
    fig.axis_labels(figure, "mirror position [mm]", "FWHM [px]")
    fig.legend(figure, spot_entries())


def _draw_residuals(figure, shapes, curves) -> None:
    axes = fig.ccd_panels(figure)
    drawn = []
    for ccd, ax in axes.items():
        ax.axhline(0, color="#999999", linewidth=0.6, zorder=0)
        for s, spot in enumerate(SPOTS):
            for quadrant in QUADRANTS:
                part = shapes.select(ccd=ccd, quadrant=quadrant, spot=spot)
                fit = curves.select(ccd=ccd, quadrant=quadrant, spot=spot)
                if not len(part) or not len(fit):
                    continue
                z = part.floats("mirror")
                size = 0.5 * (part.floats("xx") + part.floats("yy"))
                err = 0.5 * np.sqrt(
                    part.floats("xx_err") ** 2 + part.floats("yy_err") ** 2 + 2 * part.floats("cov_xx_yy")
                )
                s0 = (fit.floats("fwhm_best")[0] / FWHM) ** 2
                model = s0 + (fit.floats("slope")[0] * (z - fit.floats("focus")[0])) ** 2
                x, y = z + 0.012 * (s - 2), (size - model) / err
                ax.plot(
                    x, y, fig.MARKERS[quadrant], color=SPOT_COLOURS[spot], markersize=1.8, markeredgewidth=0
                )
                drawn.append((ax, x, y, SPOT_COLOURS[spot]))
    fig.robust_limits(axes, drawn, least=6.0)
    fig.share_limits(axes, y=False)
    fig.axis_labels(figure, "mirror position [mm]", "residual of σ² / error")
    fig.legend(figure, spot_entries())


def focal_plane(data: ReportData) -> list:
    table, spots_table = data.table("focus"), data.table("focus_spots")
    if table is None or spots_table is None:
        return data.missing("focus", "focus_spots")
    rows = []
    for row in table.rows():
        cells = [Cell(f"CCD{row['ccd']}")]
        for name, factor in (("tilt_x", 1e3), ("tilt_y", 1e3), ("curvature", 1e3), ("astigmatism", 1e3)):
            value, err = row.get(name), row.get(f"{name}_err")
            known = is_number(value) and is_number(err)
            cells.append(Cell(with_error(value * factor, err * factor) if known else "–"))
        scatter = row.get("scatter")
        cells.append(Cell(number(1e3 * scatter, 2) if is_number(scatter) else "–"))
        cells.append(Cell(with_error(row.get("slope"), row.get("slope_err"))))
        rows.append(cells)
    header = [
        "",
        "Tilt x [µm/1000 px]",
        "Tilt y [µm/1000 px]",
        "Curvature [µm/(1000 px)²]",
        "Astigmatism [µm]",
        "Scatter [µm]",
        "k [px/mm]",
    ]
    caption = (
        "Best focus of each spot less that of its CCD at the centre, µm (colour and number), on the silicon as FITS "
        "shows it; lines of equal focus of the fitted plane."
    )
    return [
        TableBlock(
            header,
            rows,
            "Tilt and curvature of the focal plane in each CCD; astigmatism: focus along x minus along y; scatter: of spots about the plane beyond their errors",
            compact=True,
        ),
        data.figures.make(
            "focal_plane", caption, lambda f: _draw_plane(f, data, table, spots_table), height=2.7
        ),
    ]


def _draw_plane(figure, data, table, spots_table) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    planes = {row["ccd"]: row for row in table.rows()}
    z0 = {ccd: row["best_focus"] for ccd, row in planes.items()}
    rows = [r for r in spots_table.rows() if is_number(r["focus"]) and is_number(z0.get(r["ccd"]))]
    if not rows:
        raise fig.NoData("no spot has a focus")
    away = np.array([1e3 * (r["focus"] - z0[r["ccd"]]) for r in rows])
    reach = max(np.percentile(np.abs(away), 98), 1.0)
    mappable = ScalarMappable(Normalize(-reach, reach), "RdBu_r")
    height, width = data.detector.phys_shape
    for c, ccd in enumerate(CCDS):
        ax = figure.add_axes((0.02 + c * 0.305, 0.04, 0.295, 0.84))
        ax.set(xlim=(0, width), ylim=(0, height), xticks=[], yticks=[], aspect="equal")
        _draw_middle(ax, width, height)
        plane = planes.get(ccd, {})
        if is_number(plane.get("tilt_x")):
            _draw_levels(ax, plane["tilt_x"], plane["tilt_y"], width, height)
        mine = [
            (r["x_phys"], r["y_phys"], value) for r, value in zip(rows, away, strict=True) if r["ccd"] == ccd
        ]
        if mine:
            x, y, value = np.array(mine).T
            ax.scatter(x, y, s=64, c=mappable.to_rgba(value), edgecolors="#555555", linewidths=0.4, zorder=3)
        for x, y, value in mine:
            ax.text(x, y - 0.065 * height, f"{value:+.1f}", ha="center", va="center", fontsize=5)
        figure.text(
            0.02 + c * 0.305 + 0.1475, 0.9, f"CCD{ccd}", ha="center", va="bottom", weight="bold", fontsize=8
        )
    bar = figure.colorbar(mappable, cax=figure.add_axes((0.935, 0.08, 0.012, 0.76)))
    bar.ax.tick_params(labelsize=6)
    figure.text(0.995, 0.865, "focus − CCD [µm]", ha="right", va="bottom", fontsize=6.5)


def _draw_middle(ax, width: float, height: float) -> None:
    """Lines between the quadrants; NaN lifts the pen."""
    ax.plot(
        [0, width, np.nan, width / 2, width / 2],
        [height / 2, height / 2, np.nan, 0, height],
        color="#c4c4c4",
        linewidth=0.5,
    )


def _draw_levels(ax, tilt_x: float, tilt_y: float, width: float, height: float) -> None:
    """Seven lines of equal focus of a plane; they are straight, so no contours need to be sought."""
    steepest = math.hypot(tilt_x, tilt_y)
    if not steepest:
        return
    reach = (
        (abs(tilt_x) * width + abs(tilt_y) * height) / 2 / steepest
    )  # px from the centre to the last corner
    along = np.array([tilt_x, tilt_y]) / steepest
    middle = np.array([width, height]) / 2 + np.linspace(-reach, reach, 9)[1:-1, None] * along
    ends = np.array([-along[1], along[0]]) * math.hypot(width, height)
    segments = np.stack([middle - ends, middle + ends, np.full_like(middle, np.nan)], axis=1).reshape(-1, 2)
    ax.plot(*segments.T, color="#aaaaaa", linewidth=0.5)
    ax.set(xlim=(0, width), ylim=(0, height))


def focus_spots(data: ReportData) -> list:
    table = data.table("focus_spots")
    if table is None:
        return data.missing("focus_spots")
    return [
        spot_matrix(table, "focus", "Best focus of every spot [mm]"),
        spot_matrix(table, "fwhm_best", "FWHM there [px]"),
        *spot_remarks(table),
        Note("Slopes, χ², axes apart and the predecessor's parabola: tables/focus_spots.ecsv.", "info"),
    ]


def spot_matrix(table, name: str, caption: str) -> TableBlock:
    """A quantity of the sixty spots with its errors: quadrants down, the five spots across."""
    rows = []
    for ccd in CCDS:
        for quadrant in QUADRANTS:
            found = {r["spot"]: r for r in table.select(ccd=ccd, quadrant=quadrant).rows()}
            cells = []
            for spot in SPOTS:
                r = found.get(spot, {})
                known = is_number(r.get(name))
                text = with_error(r.get(name), r.get(f"{name}_err")) if known else "–"
                cells.append(Cell(text, "" if known and not r.get("flag") else "none"))
            rows.append([Cell(f"CCD{ccd} {quadrant}"), *cells])
    header = ["Quadrant", *(SPOT_NAMES[spot] for spot in SPOTS)]
    return TableBlock(header, rows, caption, compact=True)


def spot_remarks(table, most: int = 12) -> list:
    """Spots whose row has a flag, by name."""
    flagged = [
        f"{label(r['ccd'], r['quadrant'] + r['spot'])}: {r['flag']}" for r in table.rows() if r.get("flag")
    ]
    if not flagged:
        return []
    more = f" and {len(flagged) - most} more" if len(flagged) > most else ""
    return [Note(f"Grey: {'; '.join(flagged[:most])}{more}.", "warning")]


# ---- brightness -------------------------------------------------------------------------------------------
def brightness(data: ReportData) -> list:
    table = data.table("point_flux")
    if table is None:
        return data.missing("point_flux")
    cells = {}
    for row in table.rows():
        text = with_error(row.get("saturation_time"), row.get("saturation_time_err"))
        cells[row["ccd"], row["quadrant"]] = Cell(
            text, "" if is_number(row.get("saturation_time")) else "none"
        )
    blocks: list = [
        Text(
            "Saturation time: the exposure in which the peak of a spot, centred on a pixel and in focus, reaches 55 000 ADU. "
            "It is worked out from the fitted flux, which does not depend on where the spot falls on the pixels, and the "
            "spot's width; mean over the five spots of a quadrant. Spots differ in brightness; the error is that of these spots."
        ),
        Beam(cells, "Saturation time [s]"),
    ]
    lines = data.table("flux_spots")
    if lines is None:
        return blocks
    caption = "Fitted flux over exposure time, relative to the spot's own rate, against exposure time; bars are 1 σ."
    shapes = data.table("shapes")
    if shapes is not None:
        blocks.append(
            data.figures.make("flux_linearity", caption, lambda f: _draw_flux(f, shapes, lines), height=2.4)
        )
    blocks += [
        spot_matrix(lines, "saturation_time", "Saturation time of every spot [s]"),
        *spot_remarks(lines),
        *_exposure_beyond(lines),
        Note("Rates, widths and χ²: tables/flux_spots.ecsv.", "info"),
    ]
    return blocks


def _exposure_beyond(lines) -> list:
    """Weighted mean of the lines' zeros: one shutter serves all spots."""
    value, err = lines.floats("offset"), lines.floats("offset_err")
    good = np.isfinite(value) & np.isfinite(err) & (err > 0)
    if not good.any():
        return []
    weight = err[good] ** -2.0
    mean = float(np.average(value[good], weights=weight))
    text = with_error(1e3 * mean, 1e3 * float(weight.sum() ** -0.5))
    return [
        Note(
            f"Exposure beyond the commanded time, from the zeros of {int(good.sum())} lines: {text} ms (errors of the "
            "spots alone; a jitter of the shutter is common to them).",
            "info",
        )
    ]


def _draw_flux(figure, shapes, lines) -> None:
    axes = fig.ccd_panels(figure)
    drawn = []
    for ccd, ax in axes.items():
        ax.axhline(0, color="#999999", linewidth=0.6, zorder=0)
        for s, spot in enumerate(SPOTS):
            for quadrant in QUADRANTS:
                part = shapes.select(ccd=ccd, quadrant=quadrant, spot=spot)
                line = lines.select(ccd=ccd, quadrant=quadrant, spot=spot)
                if not len(part) or not len(line):
                    continue
                t = part.floats("exptime")
                offset = np.nan_to_num(line.floats("offset")[0])
                rate = line.floats("rate")[0]
                y = 100 * (part.floats("flux") / (rate * (t + offset)) - 1)
                err = 100 * part.floats("flux_err") / part.floats("flux")
                x = t * (1 + 0.012 * (s - 2))
                ax.vlines(x, y - err, y + err, color=SPOT_COLOURS[spot], linewidth=0.4)
                ax.plot(
                    x, y, fig.MARKERS[quadrant], color=SPOT_COLOURS[spot], markersize=2, markeredgewidth=0
                )
                drawn.append((ax, x, y, SPOT_COLOURS[spot]))
    fig.robust_limits(axes, drawn, least=0.5)
    longest = max((np.nanmax(x) for _, x, _, _ in drawn), default=1.0)
    for ax in axes.values():
        ax.set_xlim(0, 1.06 * longest)
    fig.axis_labels(figure, "exposure time [s]", "flux / (rate (t + t0)) − 1 [%]")
    fig.legend(figure, spot_entries())


# ---- lock -------------------------------------------------------------------------------------------------
def star_lock(data: ReportData) -> list:
    """The transform, and a picture of the stars: where they should be, where they are, what else was found."""
    table = data.table("lock")
    if table is None:
        return data.missing("lock")
    rows = []
    for row in table.rows():
        ok = row.get("ok") in (True, 1, "True")
        rows.append(
            [
                Cell(f"CCD{row['ccd']}"),
                Cell("locked" if ok else "no lock", "pass" if ok else "fail"),
                Cell(f"{row.get('matched')} / {20 - (row.get('outside') or 0)}"),
                Cell(with_error(row.get("shift_x"), row.get("shift_x_err"))),
                Cell(with_error(row.get("shift_y"), row.get("shift_y_err"))),
                Cell(with_error(row.get("rotation"), row.get("rotation_err"))),
                Cell(with_error(row.get("scale"), row.get("scale_err"))),
                Cell(number(row.get("rms"), 2)),
                Cell(number(row.get("sources"))),
                Cell(row.get("reason") or "", align="l"),
            ]
        )
    header = [
        "",
        "State",
        "Stars",
        "Shift x [px]",
        "Shift y [px]",
        "Rotation [deg]",
        "Scale",
        "rms [px]",
        "Sources",
        "Remark",
    ]
    blocks: list = [
        Text(
            "The chamber's pattern is laid on the sources that were found: shifted, and turned and scaled about the CCD's "
            "centre (silicon coordinates, counter-clockwise positive). Stars: those found of those that should be on the silicon."
        ),
        TableBlock(header, rows, "Transform from pattern to image", compact=True),
    ]
    stars = data.table("stars")
    if stars is None:
        return [*blocks, *data.missing("stars")]
    missing = [f"CCD{r['ccd']} {r['quadrant']}{r['spot']}" for r in stars.rows() if r["status"] == "missing"]
    if missing:
        blocks.append(Note(f"Stars without a source: {', '.join(missing)}.", "warning"))
    caption = (
        "Stars on the silicon as FITS shows it. Cross: pattern; circle: found, with its residual from the transform 200 "
        "times as long; red square: expected and not found; dot: other sources (grey ones look like hot pixels or cosmic rays)."
    )
    blocks.append(data.figures.make("star_lock", caption, lambda f: _draw_stars(f, data, stars), height=2.75))
    return blocks


def _draw_stars(figure, data, stars) -> None:
    height, width = data.detector.phys_shape
    sources = data.table("sources")
    long = 200 * width / 4096
    for c, ccd in enumerate(CCDS):
        left = 0.02 + c * 0.33
        ax = figure.add_axes((left, 0.02, 0.31, 0.87))
        ax.set(xlim=(0, width), ylim=(0, height), xticks=[], yticks=[], aspect="equal")
        _draw_middle(ax, width, height)
        if sources is not None:
            other = sources.select(ccd=ccd)
            free = np.array([str(m) not in ("True", "1") for m in other["matched"].tolist()], bool)
            like = np.array([str(m) in ("True", "1") for m in other["star"].tolist()], bool)
            for mask, colour in ((free & like, fig.COLOURS["orange"]), (free & ~like, "#999999")):
                ax.plot(
                    other.floats("x_phys")[mask],
                    other.floats("y_phys")[mask],
                    ".",
                    color=colour,
                    markersize=3,
                )
        _draw_pattern(ax, stars.select(ccd=ccd).rows(), long)
        figure.text(left + 0.155, 0.905, f"CCD{ccd}", ha="center", va="bottom", weight="bold", fontsize=8)


def _draw_pattern(ax, rows: list[dict], long: float) -> None:
    """Stars of one CCD: nominal places, found ones with their residuals, missing ones and those beside the silicon."""
    ax.plot(
        [r["x_nominal"] for r in rows],
        [r["y_nominal"] for r in rows],
        "+",
        color="#777777",
        markersize=5,
        mew=0.6,
    )
    found = [r for r in rows if r["status"] == "found" and is_number(r["x_phys"])]
    x, y = (np.array([r[name] for r in found], float) for name in ("x_phys", "y_phys"))
    ax.plot(x, y, "o", mfc="none", mec=fig.COLOURS["blue"], markersize=6, mew=0.8)
    tails = []
    for places, name in ((x, "residual_x"), (y, "residual_y")):
        ends = places + long * np.array([r[name] for r in found], float)
        tails.append(np.stack([places, ends, np.full_like(places, np.nan)], axis=1).ravel())
    ax.plot(*tails, color=fig.COLOURS["green"], linewidth=0.8)
    lost = [r for r in rows if r not in found and is_number(r["x_expected"])]
    for row in lost:
        colour = fig.COLOURS["red"] if row["status"] == "missing" else "#999999"
        ax.plot(row["x_expected"], row["y_expected"], "s", mfc="none", mec=colour, markersize=7, mew=1.0)
    below = 0.5 * long  # 100 px of the full-size CCD
    for row, name in [*((r, "phys") for r in found), *((r, "expected") for r in lost)]:
        colour = (
            "black" if name == "phys" else fig.COLOURS["red"] if row["status"] == "missing" else "#999999"
        )
        text = f"{row['quadrant']}{row['spot']}"
        at = row[f"x_{name}"], row[f"y_{name}"] - below
        ax.text(*at, text, ha="center", va="top", fontsize=5, color=colour, clip_on=True)


# ---- a first look -----------------------------------------------------------------------------------------
def spots(data: ReportData) -> list:
    """Width and fluence of every spot in every raw frame, as the lock measured them."""
    table = data.table("spots")
    if table is None:
        return data.missing("spots")
    x, name = _abscissa(data)
    blocks: list = [
        Text(
            "Adaptive moments and aperture photometry on the raw frames: a quick and robust look, made before anything is "
            "left out. Moments of a spot narrower than two pixels move with its place on the pixels by about 1 %."
        )
    ]
    looks = [("fwhm", "FWHM", "px"), ("fluence", "Fluence", "ADU")]
    if data.table("focus_spots") is not None:
        looks = looks[1:]  # the focus curves show the widths
    for column, title, unit in looks:
        caption = f"{title} of the spots [{unit}] against {name}, quadrants as the beam sees them."
        blocks.append(
            data.figures.make(
                f"spots_{column}",
                caption,
                lambda f, c=column, t=f"{title} [{unit}]": _draw_spots(f, table, x, name, c, t),
                height=2.6,
            )
        )
    saturated = [r for r in table.rows() if r["saturated"]]
    if saturated:
        worst = sorted({label(r["ccd"], r["quadrant"] + r["spot"]) for r in saturated})
        blocks.append(Note(f"Saturated spots, left out of the fits: {', '.join(worst[:30])}.", "warning"))
    return blocks


def _abscissa(data: ReportData) -> tuple[dict[int, float], str]:
    key, name = (
        ("mirr_pos", "mirror position [mm]")
        if data.test.startswith("FOCUS00")
        else ("exptime", "exposure time [s]")
    )
    found = {}
    for exposure in data.exposures:
        value = (exposure.get("log_row") or {}).get(key)
        if is_number(value):
            found[int(exposure["obsid"])] = float(value)
    return found, name


def _draw_spots(figure, table, x, xlabel, column, ylabel) -> None:
    axes = fig.beam_panels(figure)
    for (ccd, quadrant), ax in axes.items():
        for spot in SPOTS:
            part = table.select(ccd=ccd, quadrant=quadrant, spot=spot)
            if len(part):
                at = fig.abscissa(part["obsid"], x)
                ax.plot(
                    at, part.floats(column), "o", color=SPOT_COLOURS[spot], markersize=2, markeredgewidth=0
                )
    fig.share_limits(axes)
    fig.axis_labels(figure, xlabel, ylabel)
    fig.legend(figure, spot_entries())
