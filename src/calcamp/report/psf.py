"""Sections of PSF01 and PSF02 on size and shape: against fluence, growth, kernel, trails, motion."""

from __future__ import annotations

import numpy as np

from calcamp.report import figures as fig
from calcamp.report.base import (
    QUADRANTS,
    Beam,
    Cell,
    Note,
    ReportData,
    Section,
    TableBlock,
    Text,
    is_number,
    number,
    plain_table,
    with_error,
)
from calcamp.report.bias import quadrant_entries


def sections(data: ReportData) -> list[Section]:
    return [
        Section(
            "Size and shape of the spots",
            [],
            "psf",
            [
                Section("Size against fluence", growth(data), "psf-growth"),
                Section("Kernel of the detector", kernel(data), "psf-kernel"),
                *(
                    [Section("Forward model", forward(data), "psf-forward")]
                    if data.table("forward") is not None
                    else []
                ),
                Section("Ellipticity and trails", shape(data), "psf-shape"),
                Section("Motion of the spots", motion(data), "psf-motion"),
                Section("By quadrant and column", table_of(data), "psf-table"),
            ],
        )
    ]


def growth(data: ReportData) -> list:
    table, spots, psf = data.table("growth"), data.table("growth_spots"), data.table("psf_spots")
    if table is None:
        return data.missing("growth")
    kinds = table.distinct("kind")
    cells = {
        kind: {
            (r["ccd"], r["quadrant"]): Cell(
                _thousandths(r, "slope"), "" if is_number(r.get("slope")) else "none"
            )
            for r in table.rows()
            if r["kind"] == kind
        }
        for kind in kinds
    }
    blocks: list = [
        Text(
            "Charge already collected pushes later charge away (brighter-fatter effect), so bright spots are wider. Line of FWHM "
            "against the peak of the spot (were it centred on a pixel), spot by spot; the value is the mean over the spots of a "
            "quadrant, with their differences in the error. Widths: 2.3548 σ of a Gaussian integrated over the pixels, pixel not included."
        ),
        *(Beam(cells[kind], f"Growth of the FWHM, {kind} [10⁻³ px per 10 kADU of peak]") for kind in kinds),
    ]
    if "corrected" in kinds:
        blocks.insert(
            1,
            Text(
                "Corrected: the same after boundaries between pixels were put back with the brighter-fatter kernel of the block "
                "(charge kept); a slope compatible with 0 shows that the kernel of flats holds for spots."
            ),
        )
    if psf is not None and spots is not None:
        caption = "FWHM of each spot (mean over the frames of a column) against its peak, with the line fitted to all frames."
        blocks.append(
            data.figures.make("psf_growth", caption, lambda f: _draw_growth(f, psf, spots), height=3.2)
        )
    rows = []
    for r in table.rows():
        rows.append(
            [
                Cell(f"CCD{r['ccd']} {r['quadrant']}"),
                Cell(r["kind"]),
                *(Cell(_thousandths(r, n)) for n in ("slope_x", "slope_y")),
                Cell(with_error(r.get("zero"), r.get("zero_err"))),
                Cell(number(r.get("n"))),
                Cell(r.get("flag") or "", "fail" if r.get("flag") else "", align="l"),
            ]
        )
    header = [
        "Quadrant",
        "",
        "Growth x [10⁻³ px/10 kADU]",
        "Growth y [10⁻³ px/10 kADU]",
        "FWHM at no signal [px]",
        "Spots",
        "Remark",
    ]
    blocks.append(
        TableBlock(
            header, rows, "Growth along both axes (FITS x, y), and the width at no signal", compact=True
        )
    )
    return blocks


def _thousandths(r: dict, name: str) -> str:
    value, err = r.get(name), r.get(f"{name}_err")
    return with_error(1e3 * value, 1e3 * err) if is_number(value) and is_number(err) else "–"


def _draw_growth(figure, psf, spots) -> None:
    from calcamp.report.point import SPOT_COLOURS, SPOTS, spot_entries

    axes = fig.beam_panels(figure)
    for (ccd, quadrant), ax in axes.items():
        for spot in SPOTS:
            part = psf.select(ccd=ccd, quadrant=quadrant, spot=spot)
            line = spots.select(ccd=ccd, quadrant=quadrant, spot=spot, width="fwhm", kind="measured")
            if not len(part):
                continue
            x, y, e = part.floats("peak_centred") / 1e4, part.floats("fwhm"), part.floats("fwhm_err")
            fig.points(ax, x, y, e, SPOT_COLOURS[spot], line=False)
            if len(line) and np.isfinite(line.floats("slope")[0]):
                fine = np.array([0.0, np.nanmax(x)])
                ax.plot(
                    fine,
                    line.floats("zero")[0] + line.floats("slope")[0] * fine,
                    color=SPOT_COLOURS[spot],
                    linewidth=0.6,
                )
    fig.share_limits(axes)
    fig.axis_labels(figure, "peak [10 kADU]", "FWHM [px]")
    fig.legend(figure, spot_entries())


def kernel(data: ReportData) -> list:
    table = data.table("psf_kernel")
    if table is None:
        return data.missing("psf_kernel")
    rows = []
    for r in table.rows():
        limit = r.get("is_limit") in (True, 1, "True")
        rows.append(
            [
                Cell(f"CCD{r['ccd']}"),
                Cell(with_error(r.get("total"), r.get("total_err"))),
                Cell(with_error(r.get("optics"), r.get("optics_err"))),
                Cell(with_error(r.get("kernel"), r.get("kernel_err"), limit)),
                Cell(number(r.get("upper95"), 3)),
            ]
        )
    blocks: list = [
        Text(
            "The detector's kernel (diffusion of charge) is what the spots have beyond the optics: FWHM² = total² − optics², at no "
            "signal. The pixel is in neither. Without the width of the optics in the chamber profile only an upper limit can be given."
        ),
        TableBlock(
            ["", "Total FWHM [px]", "Optics [px]", "Kernel FWHM [px]", "95 % bound [px]"],
            rows,
            "Kernel of the detector",
        ),
    ]
    if not any(is_number(r.get("optics")) for r in table.rows()):
        blocks.append(
            Note(
                "The chamber profile has no figure for the optics (optics: {fwhm_px, err}): the kernel is not judged.",
                "warning",
            )
        )
    return blocks


def forward(data: ReportData) -> list:
    """Means of the posteriors over the spots of each quadrant; spots whose fit is poor by name."""
    table = data.table("forward")
    text = (
        "Posterior of a forward model fitted to the stamps of a spot at all levels together: a diffraction pattern, a "
        "Gaussian blur (optics and diffusion of charge, which one mirror position cannot tell apart) that grows with the signal, "
        "integrated over the pixels. FWHM, px; growth of the blur's σ² per 10 kADU of peak; means over the spots of a quadrant, "
        "errors are those of these spots. Worst: largest residual of any pixel, in errors."
    )
    rows, poor = [], []
    for ccd in table.distinct("ccd"):
        for quadrant in QUADRANTS:
            members = table.select(ccd=ccd, quadrant=quadrant).rows()
            if not members:
                continue
            poor += [f"CCD{ccd} {quadrant}{r['spot']} ({r['flag']})" for r in members if r["flag"]]
            cells = [Cell(f"CCD{ccd} {quadrant}")]
            for name, factor in (("airy", 1.0), ("blur", 1.0), ("growth", 1e3)):
                good = [r for r in members if is_number(r[name]) and is_number(r[f"{name}_err"])]
                n = max(len(good), 1)
                mean = factor * sum(r[name] for r in good) / n
                err = factor * sum(r[f"{name}_err"] ** 2 for r in good) ** 0.5 / n
                cells.append(Cell(with_error(mean, err) if good else "–"))
            for name in ("chi2_dof", "worst"):
                cells.append(
                    Cell(number(max((r[name] for r in members if is_number(r[name])), default=None), 3))
                )
            rows.append([*cells, Cell(number(len(members)))])
    header = [
        "Quadrant",
        "Diffraction [px]",
        "Blur [px]",
        "Growth [10⁻³ px²]",
        "Highest χ²/dof",
        "Worst",
        "Spots",
    ]
    blocks: list = [
        Text(text),
        TableBlock(header, rows, "Forward model; spot by spot in tables/forward.ecsv", compact=True),
    ]
    if poor:
        more = f" and {len(poor) - 12} more" if len(poor) > 12 else ""
        blocks.append(Note(f"Remarks: {', '.join(poor[:12])}{more}.", "warning"))
    return blocks


def shape(data: ReportData) -> list:
    table = data.table("psf")
    if table is None:
        return data.missing("psf")
    blocks: list = [
        Text(
            "e1 is positive for spots elongated along FITS x, e2 along +x+y; from the fitted Gaussian, pixel not included. "
            "Trails: light 1 to 3 px later in the read-out than the spot, less that as much earlier, beyond the fitted model."
        )
    ]
    for name, title in (("e1", "e1"), ("e2", "e2")):
        caption = f"{title} against the mean peak of the spots, by CCD and quadrant."
        blocks.append(
            data.figures.make(
                f"psf_{name}", caption, lambda f, n=name: _draw_by_level(f, table, n, n), height=2.2
            )
        )
    caption = (
        "Serial (filled) and parallel (open) trail over the flux against the mean peak, by CCD and quadrant."
    )
    blocks.append(data.figures.make("psf_trails", caption, lambda f: _draw_trails(f, table), height=2.2))
    return blocks


def _draw_by_level(figure, table, name: str, label: str) -> None:
    axes = fig.ccd_panels(figure)
    for ccd, ax in axes.items():
        ax.axhline(0, color="#bbbbbb", linewidth=0.6, zorder=0)
        for k, quadrant in enumerate(QUADRANTS):
            part = table.select(ccd=ccd, quadrant=quadrant)
            x = part.floats("peak_centred") / 1e4 + 0.05 * (k - 1.5)
            fig.points(
                ax,
                x,
                part.floats(name),
                part.floats(f"{name}_err"),
                fig.QUADRANT_COLOURS[quadrant],
                fig.MARKERS[quadrant],
            )
    fig.share_limits(axes)
    fig.axis_labels(figure, "peak [10 kADU]", label)
    fig.legend(figure, quadrant_entries())


def _draw_trails(figure, table) -> None:
    axes = fig.ccd_panels(figure)
    for ccd, ax in axes.items():
        ax.axhline(0, color="#bbbbbb", linewidth=0.6, zorder=0)
        for k, quadrant in enumerate(QUADRANTS):
            part = table.select(ccd=ccd, quadrant=quadrant)
            x = part.floats("peak_centred") / 1e4 + 0.05 * (k - 1.5)
            colour, marker = fig.QUADRANT_COLOURS[quadrant], fig.MARKERS[quadrant]
            fig.points(
                ax,
                x,
                1e3 * part.floats("trail_serial"),
                1e3 * part.floats("trail_serial_err"),
                colour,
                marker,
            )
            ax.plot(x, 1e3 * part.floats("trail_parallel"), marker, mfc="none", mec=colour, mew=0.6)
    fig.share_limits(axes)
    fig.axis_labels(figure, "peak [10 kADU]", "trail / flux [10⁻³]")
    fig.legend(figure, quadrant_entries())


def motion(data: ReportData) -> list:
    table = data.table("motion")
    if table is None:
        return data.missing("motion")
    caption = "Mean shift of a CCD's spots from their median places in each exposure, along FITS x and y."
    return [data.figures.make("psf_motion", caption, lambda f: _draw_motion(f, data, table), height=2.1)]


def _draw_motion(figure, data, table) -> None:
    times, label = fig.frame_times(data)
    axes = fig.ccd_panels(figure)
    for ccd, ax in axes.items():
        part = table.select(ccd=ccd)
        x = fig.abscissa(part["obsid"], times)
        fig.points(ax, x, part.floats("dx"), part.floats("err"), fig.COLOURS["blue"])
        fig.points(ax, x, part.floats("dy"), part.floats("err"), fig.COLOURS["orange"], "s")
    fig.share_limits(axes, least_y=0.05)
    fig.axis_labels(figure, label, "shift [px]")
    fig.legend(
        figure,
        {
            "along x": {"color": fig.COLOURS["blue"], "marker": "o"},
            "along y": {"color": fig.COLOURS["orange"], "marker": "s"},
        },
    )


def table_of(data: ReportData) -> list:
    table = data.table("psf")
    if table is None:
        return data.missing("psf")
    names = [
        "ccd",
        "quadrant",
        "column",
        "fwhm",
        "fwhm_err",
        "e1",
        "e1_err",
        "e2",
        "e2_err",
        "r2",
        "r2_err",
        "peak_centred",
        "n",
        "flag",
    ]
    return [plain_table(table, names, "Means over spots and frames")]
