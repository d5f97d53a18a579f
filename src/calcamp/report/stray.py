"""Sections of STRAY00: rates of light by configuration, what they are due to, maps."""

from __future__ import annotations

import numpy as np

from calcamp.report import figures as fig
from calcamp.report.base import QUADRANTS, Cell, ReportData, Section, TableBlock, Text, label, with_error


def sections(data: ReportData) -> list[Section]:
    """The family's sections, in order."""
    return [
        Section(
            "Stray light",
            [],
            "stray",
            [
                Section("Rates", rates(data), "stray-rates"),
                Section("Where the light comes from", sources(data), "stray-sources"),
                Section("Maps", maps(data), "stray-maps"),
            ],
        )
    ]


def _grid(table, key: str, value: str, caption: str) -> TableBlock:
    """A long table as key by quadrant, one row per key and CCD; red beyond 5 sigma is left to the limits."""
    rows = []
    for name in table.distinct(key):
        for ccd in (1, 2, 3):
            part = {r["quadrant"]: r for r in table.select(**{key: name, "ccd": ccd}).rows()}
            cells = [Cell(str(name), align="l"), Cell(label(ccd))]
            for quadrant in QUADRANTS:
                row = part.get(quadrant, {})
                scaled = [None if row.get(k) is None else 1000 * row[k] for k in (value, f"{value}_err")]
                cells.append(Cell(with_error(*scaled), "none" if scaled[0] is None else ""))
            rows.append(cells)
    return TableBlock([key.capitalize(), "CCD", *QUADRANTS], rows, caption, compact=True)


def rates(data: ReportData) -> list:
    """Rate of light of every configuration."""
    table = data.table("stray")
    if table is None:
        return data.missing("stray")
    return [
        Text(
            "Long less short exposure of each state of the chamber, over the difference of their times; the 300 s darks less the mean "
            "frame of exposure time 0. What was switched by hand between columns is as the script asks for it: the log does not say."
        ),
        _grid(table, "configuration", "rate_adu_s", "Rate of light [10⁻³ ADU/s]"),
    ]


def sources(data: ReportData) -> list:
    """Differences between configurations."""
    table = data.table("stray_sources")
    if table is None:
        return data.missing("stray_sources")
    return [_grid(table, "source", "rate_adu_s", "Differences of two configurations [10⁻³ ADU/s]")]


def maps(data: ReportData) -> list:
    """Tiles of every configuration that should be dark."""
    table = data.table("stray_tiles")
    if table is None:
        return data.missing("stray_tiles")
    blocks = []
    for name in table.distinct("configuration"):
        part = table.select(configuration=name)
        blocks.append(
            data.figures.make(
                f"stray_{name}",
                f"{name}: rate in tiles, quadrants as seen.",
                lambda f, p=part: _draw(f, p),
                height=2.3,
                width=70,
            )
        )
    return blocks


def _draw(figure, table) -> None:
    from calcamp.detector.arrays import canonical

    images: dict = {}
    for ccd in table.distinct("ccd"):
        images[ccd] = {}
        for quadrant in QUADRANTS:
            part = table.select(ccd=ccd, quadrant=quadrant)
            if len(part):
                rows, columns = part["tile_row"].astype(int), part["tile_column"].astype(int)
                grid = np.full((rows.max() + 1, columns.max() + 1), np.nan)
                grid[rows, columns] = 1000 * part.floats("rate_adu_s")
                images[ccd][quadrant] = canonical(grid, quadrant)
    fig.beam_images(figure, images, "10⁻³ ADU/s", (1, 99))
