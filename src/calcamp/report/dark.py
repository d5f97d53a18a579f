"""Sections of DARK01: dark current, per-exposure values, tiles, histogram, hot pixels, profiles, master dark."""

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
    beam_values,
    is_true,
    label,
    number,
    plain_table,
    title,
    with_error,
)
from calcamp.report.bias import draw_master, profiles, quadrant_entries


def sections(data: ReportData) -> list[Section]:
    """The family's sections, in order."""
    return [
        Section(
            "Dark current",
            [],
            "dark",
            [
                Section("Dark current of the quadrants", current(data), "dark-current"),
                Section("Exposure by exposure", exposures(data), "dark-exposures"),
                Section("Tiles", tiles(data), "dark-tiles"),
                Section("Distribution", histogram(data), "dark-histogram"),
            ],
        ),
        Section("Hot pixels", hot_pixels(data), "hot-pixels"),
        Section(
            "Master dark",
            [*master(data), *profiles(data, what="master dark")],
            "master-dark",
        ),
    ]


def current(data: ReportData) -> list:
    """Dark current with error, upper limit and systematic."""
    table = data.table("dark")
    if table is None:
        return data.missing("dark")
    unit = table.unit("dark_current") or "e⁻/px/h"
    cells, rows = {}, []
    for row in table.rows():
        limit = is_true(row.get("is_limit"))
        value = row.get("dark_current_limit95") if limit else row.get("dark_current")
        text = with_error(value, row.get("dark_current_err"), limit)
        cells[row.get("ccd"), row.get("quadrant")] = Cell(
            text, "none" if row.get("dark_current") is None else ""
        )
        flag = row.get("flag")
        rows.append(
            [
                Cell(label(row.get("ccd"), row.get("quadrant"))),
                Cell(with_error(row.get("dark_current"), row.get("dark_current_err"))),
                Cell(number(row.get("systematic"), 2)),
                Cell(number(row.get("dark_current_limit95"), 3)),
                Cell("limit" if limit else "value", align="l"),
                Cell(with_error(row.get("dark_current_ref"), row.get("dark_current_ref_err"))),
                Cell(with_error(row.get("signal_adu"), row.get("signal_adu_err"))),
                Cell(number(row.get("chi2_dof"), 2)),
                Cell(with_error(row.get("dsnu"), row.get("dsnu_err"))),
                Cell(number(row.get("n_hot"))),
                Cell(number(row.get("n_hot_columns"))),
                Cell(number(row.get("n_unstable"))),
                Cell(number(row.get("cosmics"))),
                Cell(
                    "" if flag in (None, "", 0, "0") else str(flag),
                    "fail" if flag not in (None, "", 0, "0") else "",
                    align="l",
                ),
            ]
        )
    header = [
        "Quadrant",
        "Dark current ± stat.",
        "Syst.",
        "95 % limit",
        "Quoted",
        "At ref. T",
        "Signal [ADU]",
        "χ²/dof",
        "DSNU",
        "Hot px",
        "Hot col.",
        "Unstable",
        "Cosmics",
        "Flag",
    ]
    return [
        Text(
            "Dark current is the clipped mean of the image minus that of the overscan, minus the same in the bias frames where a "
            "bias is given, times gain over exposure time. Where it is compatible with zero the 95 % upper limit is quoted (<)."
        ),
        *_conditions(table),
        Beam(cells, f"Dark current [{unit}]"),
        TableBlock(header, rows, f"Dark current [{unit}], statistical and systematic error", compact=True),
    ]


def _conditions(table) -> list:
    """Temperature, bias and gain of the measurement, in words."""
    words = []
    for row in table.rows():
        if row.get("temperature") is not None and not any(w.startswith(f"CCD{row['ccd']} ") for w in words):
            words.append(f"CCD{row['ccd']} {with_error(row['temperature'], row.get('temperature_err'))} K")
    out = [Text(f"Temperature of the CCDs: {', '.join(words)}.")] if words else []
    rows = table.rows()
    if rows and "bias_subtracted" in table and not all(is_true(r.get("bias_subtracted")) for r in rows):
        out.append(
            Note(
                "No bias product was taken off everywhere: the signal of read-out is part of the figure.",
                "warning",
            )
        )
    if "gain_nominal" in table and any(is_true(r.get("gain_nominal")) for r in rows):
        out.append(Note("The gain is the nominal one, the block has no measured gain yet.", "warning"))
    return out


def exposures(data: ReportData) -> list:
    """Stability over the exposures."""
    table = data.table("dark_exposures")
    if table is None:
        return data.missing("dark_exposures")
    name = next((c for c in ("dark_current", "signal_adu", "signal", "value") if c in table), None)
    if name is None:
        return [plain_table(table)]
    return [
        data.figures.make(
            "dark_exposures",
            f"{title(name)} of each exposure, by CCD and quadrant. Bars are 1 σ errors. A light leak or a drift shows here.",
            lambda f: _draw_exposures(f, table, name, data),
            height=2.35,
        )
    ]


def _draw_exposures(figure, table, name, data) -> None:
    times, xlabel = fig.frame_times(data)
    axes = fig.ccd_panels(figure)
    for ccd, ax in axes.items():
        ax.axhline(0, color="#bbbbbb", linewidth=0.6, zorder=0)
        for k, quadrant in enumerate(QUADRANTS):
            part = table.select(ccd=ccd, quadrant=quadrant)
            if len(part):
                x = fig.abscissa(part["obsid"], times)
                step = (np.nanmax(x) - np.nanmin(x)) / max(len(x), 1) if len(x) > 1 else 0
                fig.points(
                    ax,
                    x + 0.06 * (k - 1.5) * step,
                    part.floats(name),
                    part.floats(f"{name}_err"),
                    fig.QUADRANT_COLOURS[quadrant],
                    fig.MARKERS[quadrant],
                )
    fig.share_limits(axes, least_y=0.05)
    fig.axis_labels(figure, xlabel, f"{title(name)} [{table.unit(name) or 'ADU'}]")
    fig.legend(figure, quadrant_entries())


def tiles(data: ReportData) -> list:
    """Map of tiles: gradients and light leaks."""
    table = data.table("dark_tiles")
    if table is None:
        return data.missing("dark_tiles")
    caption = "Dark signal in tiles of the image area, quadrants as seen (the read-out node is at each quadrant's outer corner)."
    return [data.figures.make("dark_tiles", caption, lambda f: _draw_tiles(f, table), height=2.5)]


def _draw_tiles(figure, table) -> None:
    row_key = next((c for c in ("tile_row", "row", "ty") if c in table), None)
    column_key = next((c for c in ("tile_column", "column", "tx") if c in table), None)
    value = next(
        (c for c in ("dark_current", "rate", "signal_adu", "signal", "value", "dark") if c in table), None
    )
    if None in (row_key, column_key, value):
        raise fig.NoData("table dark_tiles lacks tile row, tile column or value")
    images = {}
    for ccd in table.distinct("ccd"):
        images[ccd] = {}
        for quadrant in QUADRANTS:
            part = table.select(ccd=ccd, quadrant=quadrant)
            if not len(part):
                continue
            rows, columns = part[row_key].astype(int), part[column_key].astype(int)
            grid = np.full(
                (table[row_key].astype(int).max() + 1, table[column_key].astype(int).max() + 1), np.nan
            )
            grid[rows, columns] = part.floats(value)
            images[ccd][quadrant] = as_seen(grid, quadrant)
    fig.beam_images(figure, images, table.unit(value) or "ADU", (2, 98), label=title(value))


def as_seen(grid: np.ndarray, quadrant: str) -> np.ndarray:
    """A canonical grid turned to the orientation of the CCD image."""
    from calcamp.detector.arrays import canonical

    return canonical(grid, quadrant)  # its own inverse


def histogram(data: ReportData) -> list:
    """Distribution of the pixels' dark signal, with percentiles."""
    table = data.table("dark_histogram")
    blocks: list = []
    if table is None:
        blocks += data.missing("dark_histogram")
    else:
        caption = "Distribution of the pixels of the master dark (logarithmic), by CCD and quadrant."
        blocks.append(
            data.figures.make("dark_histogram", caption, lambda f: _draw_histogram(f, table), height=2.3)
        )
    dark = data.table("dark")
    if dark is not None:
        names = sorted(
            (
                c
                for c in dark.columns
                if c.startswith(("p", "percentile")) and c.lstrip("percntil_").replace(".", "").isdigit()
            ),
            key=len,
        )
        if names:
            blocks.append(plain_table(dark, ["ccd", "quadrant", *names], "Percentiles of the pixels"))
    return blocks


def _draw_histogram(figure, table) -> None:
    if "value" not in table or "count" not in table:
        raise fig.NoData("table dark_histogram lacks value or count")
    centres = np.unique(table.floats("value"))
    width = np.diff(centres).min() if len(centres) > 1 else 1.0
    axes = fig.ccd_panels(figure)
    for ccd, ax in axes.items():
        for quadrant in QUADRANTS:
            part = table.select(ccd=ccd, quadrant=quadrant)
            fig.draw_counts(
                ax,
                part.floats("value"),
                part.floats("count"),
                width,
                fig.QUADRANT_COLOURS[quadrant],
            )
    fig.count_axes(axes)
    fig.axis_labels(figure, f"master dark [{table.unit('value') or 'ADU'}]", "pixels per bin")
    fig.legend(figure, quadrant_entries(marker=False))


def hot_pixels(data: ReportData) -> list:
    """Map and table of hot pixels, the hottest first."""
    blocks: list = []
    dark = data.table("dark")
    if dark is not None:
        for name in ("n_hot", "n_hot_columns"):
            if name in dark:
                blocks.append(
                    beam_values(dark, name, {"n_hot": "Hot pixels", "n_hot_columns": "Hot columns"}[name])
                )
    table = data.table("hot_pixels")
    if data.is_empty("hot_pixels"):
        return [*blocks, Text("No pixel is hot by the criteria of the options."), *hot_columns(data)]
    if table is None:
        return [*blocks, *data.missing("hot_pixels")]
    caption = "Positions of the hot pixels, quadrants as seen; larger and darker is hotter. Not repeatable between frames: open symbols."
    blocks.append(
        data.figures.make(
            "dark_hot_pixels", caption, lambda f: _draw_hot(f, table, data.detector), height=2.65
        )
    )
    rate = next((c for c in ("rate_e", "rate_adu") if c in table), None)
    if rate is not None:
        table = table.where(np.argsort(-np.nan_to_num(table.floats(rate)), kind="stable"))
    blocks.append(
        plain_table(table, caption="Hot pixels, hottest first (image area, canonical position)", limit=12)
    )
    return [*blocks, *hot_columns(data)]


def hot_columns(data: ReportData) -> list:
    """Table of whole and partial columns, when the test made one."""
    table = data.table("hot_columns")
    return [] if table is None else [plain_table(table, caption="Hot and dead columns", limit=30)]


def _draw_hot(figure, table, detector) -> None:
    from matplotlib.colors import LogNorm

    rate = table.floats("rate_e" if "rate_e" in table else "rate_adu")
    positive = rate[rate > 0]
    if not len(positive):
        raise fig.NoData("no hot pixel has a positive rate")
    norm = LogNorm(positive.min(), max(positive.max(), positive.min() * 1.01))
    points = None
    rows_n, columns_n = detector.image_shape
    for c, ccd in enumerate((1, 2, 3)):
        ax = figure.add_axes((0.02 + c * 0.305, 0.04, 0.295, 0.84))
        part = table.select(ccd=ccd)
        for quadrant in QUADRANTS:
            here = part.select(quadrant=quadrant)
            if len(here):
                points = _scatter_hot(ax, here, quadrant, rows_n, columns_n, norm) or points
        ax.axhline(rows_n, color="#999999", linewidth=0.5)
        ax.axvline(columns_n, color="#999999", linewidth=0.5)
        ax.set(xlim=(0, 2 * columns_n), ylim=(0, 2 * rows_n), xticks=[], yticks=[], aspect="equal")
        fig.mark_quadrants(ax)
        figure.text(
            0.02 + c * 0.305 + 0.1475, 0.9, f"CCD{ccd}", ha="center", va="bottom", weight="bold", fontsize=8
        )
    bar = figure.colorbar(points, cax=figure.add_axes((0.935, 0.08, 0.012, 0.76)))
    levels = np.geomspace(norm.vmin, norm.vmax, 4)
    bar.set_ticks(levels, labels=[f"{v:.3g}" for v in levels])
    bar.ax.minorticks_off()
    bar.ax.tick_params(labelsize=6)
    figure.text(
        0.94,
        0.865,
        table.unit("rate_e" if "rate_e" in table else "rate_adu") or "rate",
        ha="center",
        va="bottom",
        fontsize=6.5,
    )


def _scatter_hot(ax, table, quadrant, rows_n, columns_n, norm):
    row, column = table.floats("row"), table.floats("column")
    x = column if quadrant in "EH" else 2 * columns_n - 1 - column
    y = row if quadrant in "GH" else 2 * rows_n - 1 - row
    rate = table.floats("rate_e" if "rate_e" in table else "rate_adu")
    firm = (
        np.array([is_true(v) for v in table["repeatable"].tolist()])
        if "repeatable" in table
        else np.ones(len(x), dtype=bool)
    )
    size = 2 + 10 * np.clip(norm(np.where(rate > 0, rate, norm.vmin)), 0, 1)
    points = ax.scatter(
        x[firm],
        y[firm],
        s=size[firm],
        c=rate[firm],
        norm=norm,
        cmap="inferno_r",
        linewidths=0.2,
        edgecolors="#00000055",
    )
    ax.scatter(x[~firm], y[~firm], s=9, facecolors="none", edgecolors=fig.COLOURS["blue"], linewidths=0.5)
    return points


def master(data: ReportData) -> list:
    """Master dark image in the beam layout."""
    if not any(data.product("EUC_DARK", ccd) for ccd in (1, 2, 3)):
        return [Note("No master dark (EUC_DARK_CCD…) is among the products.", "missing")]
    caption = "Master dark (image area, means of square blocks), quadrants as seen, one common scale from the 5th to the 95th percentile."
    return [
        data.figures.make(
            "dark_master", caption, lambda f: draw_master(f, data, "EUC_DARK", "DARK", "ADU"), height=2.55
        )
    ]
