"""Sections of FLAT01, FLAT02, FLAT_STB and FLATFLUX00: response, masters, defects, lamp, brightness of the source."""

from __future__ import annotations

import numpy as np

from calcamp.report import figures as fig
from calcamp.report.base import Note, ReportData, Section, Text, beam_values, plain_table
from calcamp.report.bias import quadrant_entries
from calcamp.report.lit import curves, tile_map


def sections(data: ReportData) -> list[Section]:
    """The family's sections, in order."""
    if data.test.startswith("FLATFLUX"):
        return [Section("Brightness of the flat source", flux(data), "flux")]
    return [
        Section("Pixel response", response(data), "prnu"),
        Section("Master flats", masters(data), "master-flats"),
        Section("Mask of deviant pixels", defects(data), "flat-defects"),
        Section("Lamp", lamp(data), "lamp"),
    ]


# ---- response -------------------------------------------------------------------------------------------
def response(data: ReportData) -> list:
    """PRNU per level and channel."""
    table = data.table("prnu")
    if table is None:
        return data.missing("prnu")
    blocks: list = [
        Text(
            "PRNU is the rms response of the pixels about the mean of their neighbourhood, in per cent. It comes from the covariance of two "
            "halves of the frames, whose noise is independent, so no noise is in it; the rms of the master stands beside it. "
            "The brighter-fatter effect lowers the contrast with the signal: “corrected” gives it back with the a₀₀ of the options."
        )
    ]
    for column in table.distinct("column"):
        part = table.select(column=column)
        level = np.nanmean(part.floats("signal"))
        blocks.append(beam_values(part, "prnu", f"PRNU of column {column}, {level / 1e3:.1f} kADU [%]"))
    names = "column ccd quadrant signal prnu prnu_err prnu_corrected prnu_corrected_err prnu_column prnu_column_err prnu_raw master_noise rejected frames flag"
    blocks.append(
        plain_table(
            table, names.split(), "PRNU with its parts, noise of the master, pixels rejected as cosmic rays"
        )
    )
    blocks.append(
        data.figures.make(
            "flat_prnu",
            "PRNU against signal: measured (full) and with the contrast of the brighter-fatter effect given back (open). Bars are 1 σ errors.",
            lambda f: _draw_prnu(f, table),
            height=2.3,
        )
    )
    split = data.table("flat_split")
    if split is not None and len(split):
        first = int(min(split.distinct("column")))
        blocks.append(
            data.figures.make(
                "flat_split",
                f"Response of a sample of pixels of column {first} in the two halves of its frames. Along the line is response, across it noise.",
                lambda f: _draw_split(f, split.select(column=first)),
                height=2.5,
            )
        )
    return blocks


def _draw_split(figure, table) -> None:
    axes = fig.ccd_panels(figure)
    for ccd, ax in axes.items():
        for quadrant in ("E", "F", "G", "H"):
            part = table.select(ccd=ccd, quadrant=quadrant)
            x, y = part.floats("half1"), part.floats("half2")
            keep = (np.abs(x) < 5) & (np.abs(y) < 5)  # defects are elsewhere
            colour = fig.QUADRANT_COLOURS[quadrant]
            ax.plot(x[keep], y[keep], fig.MARKERS[quadrant], color=colour, markersize=1.5, markeredgewidth=0)
        ax.axline((0, 0), slope=1, color="#999999", linewidth=0.6, zorder=0)
    fig.share_limits(axes)
    fig.axis_labels(figure, "first half, response − 1 [%]", "second half [%]")
    fig.legend(figure, quadrant_entries())


def _draw_prnu(figure, table) -> None:
    axes = fig.ccd_panels(figure)
    for ccd, ax in axes.items():
        for quadrant in ("E", "F", "G", "H"):
            part = table.select(ccd=ccd, quadrant=quadrant)
            if not len(part):
                continue
            x = part.floats("signal") / 1e3
            fig.points(
                ax,
                x,
                part.floats("prnu"),
                part.floats("prnu_err"),
                fig.QUADRANT_COLOURS[quadrant],
                fig.MARKERS[quadrant],
            )
            ax.plot(
                x,
                part.floats("prnu_corrected"),
                fig.MARKERS[quadrant],
                color=fig.QUADRANT_COLOURS[quadrant],
                markerfacecolor="none",
                markeredgewidth=0.6,
            )
    fig.share_limits(axes, least_y=0.02)
    fig.axis_labels(figure, "signal [kADU]", "PRNU [%]")
    fig.legend(figure, quadrant_entries())


# ---- masters --------------------------------------------------------------------------------------------
def masters(data: ReportData) -> list:
    """Small- and large-scale flats of each level, histogram."""
    from calcamp.report.tables import read_reduced

    files = [p for p in data.products if p.name.startswith("EUC_FF_") and p.name.count("_") == 5]
    if not files:
        return [Note("No master flat (EUC_FF_…) is among the products.", "missing")]
    blocks = []
    levels = sorted({p.name.split("_")[3] for p in files})
    for level in levels:
        own = {int(p.name.split("CCD")[1][0]): p for p in files if p.name.split("_")[3] == level}

        def images(extension, own=own):
            smooth = extension == "LFLAT"
            return {
                ccd: read_reduced(path, extension, data.detector, smooth=smooth) for ccd, path in own.items()
            }

        def draw(figure, extension, own=own, percentiles=(2, 98)):
            made = images(extension, own)
            scaled = {c: {q: 100 * (a - 1) for q, a in image.items()} for c, image in made.items()}
            fig.beam_images(figure, scaled, "%", percentiles, label="response − 1")

        blocks.append(
            data.figures.make(
                f"flat_small_{level}",
                f"Small-scale flat of {level} (means of square blocks), quadrants as seen: response of the pixels over their neighbourhood.",
                lambda f, draw=draw: draw(f, "FLAT"),
                height=2.55,
            )
        )
        blocks.append(
            data.figures.make(
                f"flat_large_{level}",
                f"Large-scale flat of {level}, relative to the mean of the CCD: illumination, gain of the quadrants and response larger than the boxes.",
                lambda f, draw=draw: draw(f, "LFLAT", percentiles=(0, 100)),
                height=2.55,
            )
        )
    histogram = data.table("flat_histogram")
    if histogram is None:
        return [*blocks, *data.missing("flat_histogram")]
    first = histogram.distinct("column")[0]
    blocks.append(
        data.figures.make(
            "flat_histogram",
            f"Distribution of the response of the pixels, column {first}, with the limits of dead, low, high and over pixels.",
            lambda f: _draw_histogram(f, histogram.select(column=first)),
            height=2.2,
        )
    )
    return blocks


def _draw_histogram(figure, table) -> None:
    axes = fig.ccd_panels(figure)
    for ccd, ax in axes.items():
        for quadrant in ("E", "F", "G", "H"):
            part = table.select(ccd=ccd, quadrant=quadrant)
            fig.draw_counts(
                ax, part.floats("response"), part.floats("pixels"), 0.01, fig.QUADRANT_COLOURS[quadrant]
            )
        for limit in (0.5, 0.8, 1.2, 1.5):
            ax.axvline(limit, **fig.LIMIT)
    fig.count_axes(axes)
    fig.axis_labels(figure, "response", "pixels per bin")
    fig.legend(figure, quadrant_entries(marker=False))


# ---- defects ----------------------------------------------------------------------------------------------
def defects(data: ReportData) -> list:
    """Counts and lists of deviant pixels and columns."""
    table = data.table("flat_defects")
    if table is None:
        return data.missing("flat_defects")
    blocks: list = [
        Text(
            "Dead, low, high and over pixels answer below 0.5 or 0.8, above 1.2 or 1.5 of their neighbourhood at every level; deviant ones "
            "lie beyond the cut in rms of the response map at every level; changing ones differ between the levels."
        ),
        plain_table(table, caption="Deviant pixels, columns and clusters by quadrant"),
    ]
    for subject, caption in (
        ("flat_defect_columns", "Column defects"),
        ("flat_defect_pixels", "Deviant pixels, most deviant first"),
    ):
        found = data.table(subject)
        if found is not None:
            blocks.append(plain_table(found, caption=caption, limit=24))
    return blocks


# ---- lamp ---------------------------------------------------------------------------------------------------
def lamp(data: ReportData) -> list:
    """Signal against time, drift and scatter."""
    table, frames = data.table("lamp"), data.table("flat_frames")
    if table is None or frames is None:
        return data.missing("lamp", "flat_frames")
    blocks = []
    for column in table.distinct("column"):
        part = frames.select(column=column)
        blocks.append(
            data.figures.make(
                f"flat_lamp_{column}",
                f"Signal of the frames of column {column} over their mean. What moves together in all quadrants is the lamp or the shutter.",
                lambda f, part=part: _draw_lamp(f, part),
                height=2.2,
            )
        )
    names = "column ccd quadrant deviation drift drift_err rms rms_common rms_channel adjacent tilt_rows tilt_columns n flag"
    blocks.append(plain_table(table, names.split(), "Drift and scatter of the flat signal [%, %/h]"))
    return blocks


def _draw_lamp(figure, frames) -> None:
    axes = fig.ccd_panels(figure)
    for ccd, ax in axes.items():
        ax.axhline(0, color="#bbbbbb", linewidth=0.6, zorder=0)
        for quadrant in ("E", "F", "G", "H"):
            part = frames.select(ccd=ccd, quadrant=quadrant)
            signal = part.floats("signal")
            if np.isfinite(signal).any():
                fig.points(
                    ax,
                    part.floats("time") / 60,
                    100 * (signal / np.nanmean(signal) - 1),
                    None,
                    fig.QUADRANT_COLOURS[quadrant],
                    fig.MARKERS[quadrant],
                )
    fig.share_limits(axes, least_y=0.1)
    fig.axis_labels(figure, "minutes since the first frame", "signal − mean [%]")
    fig.legend(figure, quadrant_entries())


# ---- brightness -----------------------------------------------------------------------------------------------
def flux(data: ReportData) -> list:
    """Saturation time and shutter offset."""
    table, levels, shutter = data.table("flux"), data.table("flux_levels"), data.table("shutter")
    if table is None:
        return data.missing("flux")
    blocks: list = [
        Text(
            "F = k (t + t0) is fitted to the levels that do not saturate: k is the flux of a quadrant, t0 what the shutter stays open "
            "beyond the command, common to all. The saturation time is FDR/k; `calcamp chamber set-flux` takes it from this result."
        ),
        beam_values(table, "saturation_time", "Saturation time [s]"),
        plain_table(table, caption="Flux and saturation time"),
    ]
    if shutter is not None:
        blocks.append(
            plain_table(
                shutter,
                caption="Shutter: t0 measured (the chamber's table is one of the measurements), scatter of the lamp",
            )
        )
    if levels is None:
        return [*blocks, *data.missing("flux_levels")]
    blocks.append(
        data.figures.make(
            "flux_levels",
            "Signal over F = k (t + t0), minus one, of the levels used.",
            lambda f: curves(f, levels, _draw_levels, "exposure time [s]", "residual [%]", least=0.2),
            height=2.6,
        )
    )
    light = data.table("illumination")
    if light is None or not len(light):
        return [*blocks, *data.missing("illumination")]
    blocks.append(
        data.figures.make(
            "flux_illumination",
            "Light over the quadrants: tiles of the brightest exposure that does not saturate over the mean of their quadrant, quadrants as seen.",
            lambda f: tile_map(f, light, "illumination", "light − mean", "%", (0, 100), relative=True),
            height=2.6,
        )
    )
    return blocks


def _draw_levels(ax, part):
    x, y = part.floats("exptime"), part.floats("residual")
    ax.axhline(0, color="#bbbbbb", linewidth=0.6, zorder=0)
    fig.points(ax, x, y, None, fig.COLOURS["blue"])
    return [y]
