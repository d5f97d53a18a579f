"""Pieces of the reports of flat-light families: values by channel, curves in beam panels, tile maps."""

from __future__ import annotations

import numpy as np

from calcamp.report import figures as fig
from calcamp.report.base import Cell, TableBlock, label, number, with_error


def channel_table(table, columns, caption: str, source: str) -> TableBlock:
    """A row per channel; `columns` are (name, heading, kind): kind ``err`` with the error, else digits.

    Kind ``limit`` and ``upper``: as ``err``, or a lower or upper limit where ``<name>_is_limit`` says so.
    """
    rows = []
    for row in table.rows():
        cells = [Cell(label(row.get("ccd"), row.get("quadrant")))]
        for name, _, kind in columns:
            value = row.get(name)
            limit = kind in ("limit", "upper") and truth(row.get(f"{name}_is_limit"))
            if limit:
                text = f"{'>' if kind == 'limit' else '<'} {number(value, 4 if kind == 'limit' else 3)}"
            elif kind in ("err", "limit", "upper"):
                text = with_error(value, row.get(f"{name}_err"))
            else:
                text = number(value, kind)
            cells.append(Cell(text, "none" if value is None else ""))
        flag = row.get("flag")
        cells.append(Cell(str(flag), "fail", align="l") if flag not in (None, "", 0, "0") else Cell(""))
        rows.append(cells)
    header = ["Quadrant", *[heading for _, heading, _ in columns], "Flag"]
    return TableBlock(header, rows, caption, source=source, compact=True)


def truth(value) -> bool:
    return value in (True, 1, "True", "true")


def scaled(table, names, factor: float):
    """Rows of a table with some columns multiplied, as plain dictionaries."""
    out = []
    for row in table.rows():
        row = dict(row)
        for name in names:
            for key in (name, f"{name}_err"):
                if row.get(key) is not None:
                    row[key] *= factor
        out.append(row)
    return out


class Rows:
    """Rows given directly, where a table is expected."""

    def __init__(self, rows):
        self._rows = rows

    def rows(self, *_):
        return self._rows


def curves(
    figure, table, draw, x: str, y: str, robust: float = 0.0, least: float = 0.0, entries=None
) -> None:
    """Beam panels; `draw(ax, part)` draws a channel and returns the y values that set the limits."""
    axes = fig.beam_panels(figure)
    values = []
    for (ccd, quadrant), ax in axes.items():
        part = table.select(ccd=ccd, quadrant=quadrant)
        if len(part):
            values += [np.asarray(v, float) for v in draw(ax, part)]
    if not any(np.isfinite(v).any() for v in values):
        raise fig.NoData("nothing was measured")
    fig.span(axes, values, robust=robust, least=least, margin=0.12)
    fig.share_limits(axes, y=False)
    fig.axis_labels(figure, x, y)
    if entries:
        fig.legend(figure, entries)


def tile_map(
    figure, table, value: str, label_text: str, unit: str, percentiles=(1, 99), relative: bool = False
) -> None:
    """Tiles of all quadrants as the CCD is seen; `relative`: % of each quadrant's mean."""
    from calcamp.report.dark import as_seen

    shape = tuple(int(table[n].astype(int).max()) + 1 for n in ("tile_row", "tile_column"))
    images = {}
    for ccd in table.distinct("ccd"):
        images[ccd] = {}
        for quadrant in ("E", "F", "G", "H"):
            part = table.select(ccd=ccd, quadrant=quadrant)
            if not len(part):
                continue
            grid = np.full(shape, np.nan)
            grid[part["tile_row"].astype(int), part["tile_column"].astype(int)] = part.floats(value)
            if relative:
                grid = 100 * (grid / np.nanmean(grid) - 1)
            images[ccd][quadrant] = as_seen(grid, quadrant)
    fig.beam_images(figure, images, unit, percentiles, label=label_text)
