"""Sections of COSMETICS00: counts, maps of defects and of response, lists, histograms, changes."""

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
    label,
    number,
    plain_table,
)
from calcamp.report.bias import quadrant_entries
from calcamp.report.tables import Table, read_reduced

#: Kinds of the count table: column, heading.
COUNTS = (
    ("bad_pixels", "Bad px"),
    ("lost_area", "Lost [%]"),
    ("bad_columns", "Bad col."),
    ("partial_columns", "partial"),
    ("clusters", "Clusters"),
    ("hot", "Hot"),
    ("dead", "Dead"),
    ("low", "Low"),
    ("high", "High"),
    ("over", "Over"),
    ("unstable", "Unstable"),
    ("old_columns", "Col. old rule"),
)


def sections(data: ReportData) -> list[Section]:
    """The family's sections, in order."""
    return [
        Section(
            "Masks",
            [],
            "masks",
            [
                Section("Counts", counts(data), "mask-counts"),
                Section("Maps of defects", maps(data), "mask-maps"),
                Section("Response and bias structure", response(data), "mask-response"),
                Section("Distributions", histograms(data), "mask-histograms"),
            ],
        ),
        Section("Lists of defects", lists(data), "defect-lists"),
        Section("Against the mask in use", changes(data), "mask-changes"),
    ]


def counts(data: ReportData) -> list:
    """Counts of the merged mask by quadrant, those of its parts, and how they were found."""
    table = data.table("cosmetics")
    if table is None:
        return data.missing("cosmetics")
    merged = table.select(mask="merged")
    cells = {
        (row.get("ccd"), row.get("quadrant")): Cell(
            f"{number(row.get('bad_pixels'))} ({number(row.get('lost_area'), 2)} %)",
            "none" if row.get("bad_pixels") is None else "",
        )
        for row in merged.rows()
    }
    blocks: list = [
        Text(
            "Bad pixels have a defect bit that keeps them out of every measurement: hot, bright column, dead, over-responsive, "
            "bad column, lost, saturated. Low (0.5 to 0.8), high (1.2 to 1.5) and unstable pixels are marked in the DQ product and "
            "not in the 0/1 mask. A pixel counts when it stands out of its surroundings by the cut in local scatters, in most frames."
        ),
        Beam(cells, "Bad pixels of the merged mask"),
        _count_table(merged, "Merged mask"),
        _count_table(table.select(mask="dark"), "Defects in frames without light"),
        _count_table(table.select(mask="flat"), "Defects in flats"),
    ]
    stacks = data.table("cosmetics_stacks")
    if stacks is not None:
        if stacks.meta.get("flat_levels") == 1:
            blocks.append(
                Note(
                    "One flat level only: name a flat product in the block file to confirm dead pixels at a second one.",
                    "info",
                )
            )
        if stacks.meta.get("hot_pixels_from") != "master dark":
            blocks.append(
                Note(
                    "No master dark is named: frames of exposure time 0 show hot columns and only very hot pixels (above 300 e⁻/s). "
                    "Promote the master dark of DARK01 to have the others.",
                    "info",
                )
            )
        blocks.append(plain_table(stacks, caption="Frames stacked, level and local scatter"))
    return blocks


def _count_table(table: Table, caption: str) -> TableBlock:
    names = [(name, text) for name, text in COUNTS if name in table and np.isfinite(table.floats(name)).any()]
    rows = []
    for row in table.rows():
        cells = [Cell(label(row.get("ccd"), row.get("quadrant")))]
        for name, _ in names:
            value = row.get(name)
            digits = 2 if name == "lost_area" else 6
            cells.append(Cell(number(value, digits), "none" if value is None else ""))
        rows.append(cells)
    return TableBlock(["Quadrant", *(text for _, text in names)], rows, caption, compact=True)


# ---- maps ------------------------------------------------------------------------------------------------
_STYLE = {
    "hot": ("red", "o", "hot"),
    "dead": ("blue", "s", "dead"),
    "low": ("sky", "v", "low"),
    "high": ("orange", "^", "high"),
    "over": ("purple", "D", "over"),
    "weak": ("green", ".", "weak"),
}


def maps(data: ReportData) -> list:
    """Where the defects are: pixels by kind, columns as lines; then tiles of bad pixels."""
    pixels, columns = data.table("defects"), data.table("defect_columns")
    if pixels is None and columns is None:
        blocks = [Note("No defect was found, or none was looked for.", "info")]
    else:
        caption = (
            "Positions of the defects, quadrants as seen. Lines are columns (red: bright without light, blue: in response). "
            "Weak: significant, response within the limits, not in the mask."
        )
        blocks = [
            data.figures.make(
                "defect_map", caption, lambda f: _draw_map(f, pixels, columns, data.detector), height=2.75
            )
        ]
    tiles = data.table("defect_tiles")
    if tiles is not None:
        caption = "Bad pixels of the merged mask in tiles of the image area, decimal logarithm of 1 + number."
        blocks.append(data.figures.make("defect_tiles", caption, lambda f: _draw_tiles(f, tiles), height=2.5))
    return blocks


def _as_seen(row, column, quadrant, rows_n, columns_n):
    x = column if quadrant in "EH" else 2 * columns_n - 1 - column
    y = row if quadrant in "GH" else 2 * rows_n - 1 - row
    return x, y


def _draw_map(figure, pixels, columns, detector) -> None:
    rows_n, columns_n = detector.image_shape
    shown = set()
    for c, ccd in enumerate((1, 2, 3)):
        ax = figure.add_axes((0.02 + c * 0.325, 0.03, 0.31, 0.8))
        for quadrant in QUADRANTS:
            _draw_columns(ax, columns, ccd, quadrant, rows_n, columns_n)
            part = pixels.select(ccd=ccd, quadrant=quadrant) if pixels is not None else ()
            if not len(part):
                continue
            kinds = np.array(part["kind"].tolist())
            for kind, (colour, marker, _) in _STYLE.items():
                at = kinds == kind
                if at.any():
                    shown.add(kind)
                    x, y = _as_seen(
                        part.floats("row")[at], part.floats("column")[at], quadrant, rows_n, columns_n
                    )
                    size = 4 if kind != "weak" else 1.5
                    ax.scatter(x, y, s=size, marker=marker, c=fig.COLOURS[colour], linewidths=0)
        ax.axhline(rows_n, color="#999999", linewidth=0.5)
        ax.axvline(columns_n, color="#999999", linewidth=0.5)
        ax.set(xlim=(0, 2 * columns_n), ylim=(0, 2 * rows_n), xticks=[], yticks=[], aspect="equal")
        fig.mark_quadrants(ax)
        figure.text(
            0.02 + c * 0.325 + 0.155, 0.845, f"CCD{ccd}", ha="center", va="bottom", weight="bold", fontsize=8
        )
    entries = {
        text: {"color": fig.COLOURS[colour], "marker": marker, "linestyle": ""}
        for kind, (colour, marker, text) in _STYLE.items()
        if kind in shown
    }
    if entries:
        fig.legend(figure, entries)


def _draw_columns(ax, columns, ccd, quadrant, rows_n, columns_n) -> None:
    part = columns.select(ccd=ccd, quadrant=quadrant) if columns is not None else ()
    if not len(part):
        return
    from matplotlib.collections import LineCollection

    lines, colours = [], []
    for row in part.rows():
        ends = [
            _as_seen(row[key], row["column"], quadrant, rows_n, columns_n)
            for key in ("first_row", "last_row")
        ]
        lines.append(ends)
        colours.append(fig.COLOURS["red" if row["source"] == "dark" else "blue"])
    ax.add_collection(LineCollection(lines, colors=colours, linewidths=0.6))


def _draw_tiles(figure, table) -> None:
    from calcamp.detector.arrays import canonical

    images: dict = {}
    for ccd in table.distinct("ccd"):
        images[ccd] = {}
        for quadrant in QUADRANTS:
            part = table.select(ccd=ccd, quadrant=quadrant)
            if not len(part):
                continue
            rows, columns = part["tile_row"].astype(int), part["tile_column"].astype(int)
            grid = np.zeros((rows.max() + 1, columns.max() + 1))
            grid[rows, columns] = np.log10(1 + part.floats("bad_pixels"))
            images[ccd][quadrant] = canonical(grid, quadrant)
    fig.beam_images(figure, images, "log(1 + bad px)", (0, 100))


def response(data: ReportData) -> list:
    """Images of the maps that were searched."""
    blocks = []
    for prefix, name, unit, what, ends in (
        (
            "EUC_FLMASK",
            "flat_defects",
            "1",
            "Flats over their surroundings (means of square blocks): what is left is dust, columns and structure.",
            (1, 99),
        ),
        (
            "EUC_DKMASK",
            "dark_defects",
            "ADU",
            "Frames without light less their surroundings (means of square blocks): columns and trails of hot pixels.",
            (1, 99.5),
        ),
    ):
        images = {}
        for ccd in (1, 2, 3):
            path = next(
                (p for p in data.products if p.name.startswith(prefix) and f"_CCD{ccd}_" in p.name), None
            )
            if path is not None:
                images[ccd] = path
        if not images:
            blocks.append(Note(f"No product {prefix}… was made.", "missing"))
            continue

        def draw(figure, images=images, unit=unit, ends=ends):
            reduced = {ccd: read_reduced(p, "DEFECTS", data.detector) for ccd, p in images.items()}
            fig.beam_images(figure, reduced, unit, ends)

        blocks.append(data.figures.make(name, what, draw, height=2.55))
    return blocks


def histograms(data: ReportData) -> list:
    """Distribution of all pixels in both maps."""
    table = data.table("cosmetics_histogram")
    if table is None:
        return data.missing("cosmetics_histogram")
    blocks = []
    for source, text, unit in (
        (
            "flat",
            "Response of the pixels relative to their surroundings; the ends collect what lies beyond.",
            "relative response",
        ),
        (
            "dark",
            "Pixels of the frames without light above their surroundings; the ends collect what lies beyond.",
            "ADU",
        ),
    ):
        part = table.select(source=source)
        if len(part):
            blocks.append(
                data.figures.make(
                    f"histogram_{source}",
                    text,
                    lambda f, part=part, unit=unit: _draw_histogram(f, part, unit),
                    height=2.2,
                )
            )
    return blocks


def _draw_histogram(figure, table, unit) -> None:
    axes = fig.ccd_panels(figure)
    for ccd, ax in axes.items():
        for quadrant in QUADRANTS:
            part = table.select(ccd=ccd, quadrant=quadrant)
            if len(part):
                ax.plot(
                    part.floats("value"),
                    part.floats("count"),
                    ".",
                    markersize=1.5,
                    color=fig.QUADRANT_COLOURS[quadrant],
                )
    fig.count_axes(axes)
    fig.axis_labels(figure, unit, "pixels per bin")
    fig.legend(figure, quadrant_entries())


# ---- lists, changes -----------------------------------------------------------------------------------------
def lists(data: ReportData) -> list:
    """Columns, clusters, and the most significant pixels."""
    blocks: list = []
    for subject, caption, limit in (
        ("defect_columns", "Columns (rows and columns of the image area, canonical)", 60),
        ("clusters", "Clusters", 24),
        ("defects", "Pixels, quadrant by quadrant, the most significant first", 24),
    ):
        table = data.table(subject)
        blocks += (
            [Note(f"No {caption.split(' (')[0].split(',')[0].lower()}.", "info")]
            if table is None
            else [plain_table(table, caption=caption, limit=limit)]
        )
    return blocks


def changes(data: ReportData) -> list:
    """New and vanished bad pixels."""
    table = data.table("mask_changes")
    if table is None:
        return data.missing("mask_changes")
    if all(row.get("new") is None for row in table.rows()):
        return [Note("The block names no mask yet: nothing to compare with.", "info")]
    return [plain_table(table, caption="Bad pixels of the new mask and of the mask in use")]
