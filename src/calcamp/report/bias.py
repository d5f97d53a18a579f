"""Sections of BIAS01 and BIAS02: read noise and its parts, offsets, spectrum, profiles, settling, master bias."""

from __future__ import annotations

import numpy as np

from calcamp.report import figures as fig
from calcamp.report.base import (
    QUADRANTS,
    REGION_NAMES,
    Beam,
    Cell,
    Note,
    ReportData,
    Section,
    TableBlock,
    Text,
    beam_values,
    label,
    plain_table,
    with_error,
)
from calcamp.report.tables import read_reduced


def sections(data: ReportData) -> list[Section]:
    """The family's sections, in order."""
    measured = Section(
        "Read noise and offset structure",
        [],
        "bias",
        [
            Section("Read noise and its parts", read_noise(data), "read-noise"),
            Section("Offsets: level, drift and gradients", offsets(data), "bias-offsets"),
            Section("Noise spectrum", spectrum(data), "spectrum"),
            Section("Profiles and settling", [*profiles(data), *settling(data)], "bias-profiles"),
        ],
    )
    return [measured, Section("Master bias", master(data), "master-bias")]


# ---- read noise ---------------------------------------------------------------------------------------
PARTS = (
    ("total", "total", "black", "o"),
    ("white", "pixel noise", "blue", "s"),
    ("row_noise", "row to row", "orange", "D"),
    ("fixed_pattern", "fixed pattern", "sky", "P"),
    ("column_pattern", "of it columns", "green", "^"),
    ("row_pattern", "of it rows", "red", "<"),
    ("drift", "drift", "purple", "v"),
)


def read_noise(data: ReportData) -> list:
    """Noise from frame differences and from the overscan, split into its parts."""
    table = data.table("read_noise")
    if table is None:
        return data.missing("read_noise")
    blocks: list = [
        Text(
            "Read noise comes from differences of consecutive frames where the method is “pairs”, quantisation (1/12 ADU²) "
            "removed. The parts that add in quadrature to the total: pixel noise, row-to-row noise, fixed pattern, drift between frames."
        )
    ]
    image = _image_rows(table)
    method = (image.distinct("method") or [""])[0]
    caption = f"Read noise of the image area{f', from {method}' if method else ''} [{table.unit('read_noise') or 'ADU'}]"
    blocks.append(beam_values(image, "read_noise", caption))
    blocks.append(
        data.figures.make("bias_noise_parts", _PARTS_CAPTION, lambda f: _draw_parts(f, table), height=2.4)
    )
    blocks += [_parts_table(table), _regions_table(table)]
    return blocks


_PARTS_CAPTION = "Parts of the noise in the image area, by CCD and quadrant, with 1 σ errors."


def _image_rows(table):
    """Rows of the image area, from pairs where there are any: one per CCD and quadrant."""
    for keys in ({"region": "img", "method": "pairs"}, {"region": "img"}, {"method": "pairs"}, {}):
        part = table.select(**keys)
        if len(part):
            return part
    return table


def _draw_parts(figure, table) -> None:
    rows = _image_rows(table)
    parts = [part for part in PARTS if part[0] in rows]
    if not parts:
        raise fig.NoData("table read_noise has no parts (white, row_noise, fixed_pattern, drift)")
    axes = fig.ccd_panels(figure, bottom=0.1)
    for ccd, ax in axes.items():
        part = rows.select(ccd=ccd)
        x = np.array([QUADRANTS.index(q) for q in part["quadrant"]], dtype=float)
        for k, (name, _, colour, marker) in enumerate(parts):
            values = part.floats(name)
            values = np.where(values > 0, values, np.nan)
            at = x + 0.1 * (k - (len(parts) - 1) / 2)
            fig.points(ax, at, values, part.floats(f"{name}_err"), fig.COLOURS[colour], marker, line=False)
        ax.set_xlim(-0.6, 3.6)
        fig.name_ticks(ax, QUADRANTS)
        ax.set_yscale("log")
    fig.share_limits(axes, x=False)
    fig.axis_labels(figure, y=f"noise [{table.unit('read_noise') or 'ADU'}]")
    entries = {
        text: {"color": fig.COLOURS[colour], "marker": marker, "linewidth": 0}
        for _, text, colour, marker in parts
    }
    fig.legend(figure, entries)


def _regions_table(table) -> TableBlock:
    """Read noise of every region and method, a row per quadrant."""
    kinds = list(dict.fromkeys((row.get("region"), row.get("method")) for row in table.rows()))
    found = {(r.get("ccd"), r.get("quadrant"), r.get("region"), r.get("method")): r for r in table.rows()}
    rows = []
    for ccd, quadrant in dict.fromkeys((r.get("ccd"), r.get("quadrant")) for r in table.rows()):
        cells = [Cell(label(ccd, quadrant))]
        for region, method in kinds:
            row = found.get((ccd, quadrant, region, method), {})
            text = with_error(row.get("read_noise"), row.get("read_noise_err"))
            flag = row.get("flag") not in (None, "", 0, "0")
            cells.append(
                Cell(
                    text + (f" {row['flag']}" if flag else ""),
                    "fail" if flag else "none" if text == "–" else "",
                )
            )
        rows.append(cells)
    header = [
        "Quadrant",
        *[" ".join(filter(None, (REGION_NAMES.get(r, r), m and f"({m})"))) for r, m in kinds],
    ]
    return TableBlock(
        header, rows, f"Read noise by region and method [{table.unit('read_noise') or 'ADU'}]", compact=True
    )


def _parts_table(table) -> TableBlock:
    """The parts of the noise of the image area, a row per quadrant."""
    titles = {name: text for name, text, *_ in PARTS if name in table}
    names = list(titles)
    rows = [
        [Cell(label(row.get("ccd"), row.get("quadrant")))]
        + [
            Cell(with_error(row.get(n), row.get(f"{n}_err")), "none" if row.get(n) is None else "")
            for n in names
        ]
        for row in _image_rows(table).rows(60)
    ]
    header = ["Quadrant", *[titles[n].capitalize() for n in names]]
    caption = f"Parts of the noise, image area [{table.unit('read_noise') or 'ADU'}]"
    return TableBlock(header, rows, caption, source="tables/read_noise.ecsv", compact=True)


# ---- offsets --------------------------------------------------------------------------------------------
def offsets(data: ReportData) -> list:
    """Level per quadrant, drift with time, gradients inside the image."""
    table = data.table("offset_frames")
    if table is None:
        return data.missing("offset_frames")
    return [
        _offset_table(table),
        data.figures.make(
            "bias_drift",
            "Drift of the offset against the first frame, and gradients of the offset inside the image along rows and along "
            "columns. Bars are 1 σ errors.",
            lambda f: _draw_drift(f, table, data),
            height=4.3,
        ),
    ]


def _offset_table(table) -> Beam:
    cells = {}
    for ccd in table.distinct("ccd"):
        for quadrant in QUADRANTS:
            part = table.select(ccd=ccd, quadrant=quadrant)
            values = part.floats("offset")
            values = values[np.isfinite(values)]
            text = f"{values.mean():.2f} (rms {values.std(ddof=1):.2f})" if len(values) > 1 else "–"
            cells[ccd, quadrant] = Cell(text, "" if len(values) else "none")
    return Beam(cells, f"Offset: mean over frames and rms of the frames [{table.unit('offset') or 'ADU'}]")


_DRIFT_ROWS = (
    ("offset", "offset − first [ADU]"),
    ("gradient_rows", "slope with row\n[ADU/1000 px]"),
    ("gradient_columns", "slope with column\n[ADU/1000 px]"),
)


def _draw_drift(figure, table, data) -> None:
    times, xlabel = fig.frame_times(data)
    for r, (name, ylabel) in enumerate(_DRIFT_ROWS):
        top = 0.91 - r * 0.29
        axes = fig.ccd_panels(figure, bottom=top - 0.25, top=top, left=0.1, lowest=r == 2, titles=r == 0)
        for ccd, ax in axes.items():
            ax.axhline(0, color="#bbbbbb", linewidth=0.6, zorder=0)
            for quadrant in QUADRANTS:
                part = table.select(ccd=ccd, quadrant=quadrant)
                if not len(part):
                    continue
                y = part.floats(name)
                y = y - (y[np.isfinite(y)][:1].sum() if name == "offset" else 0)
                error = part.floats(f"{name}_err")
                x = fig.abscissa(part["obsid"], times)
                fig.points(ax, x, y, error, fig.QUADRANT_COLOURS[quadrant], fig.MARKERS[quadrant])
        fig.share_limits(axes, least_y=0.02)
        text = ylabel.replace(" [ADU]", "\n[ADU]")
        figure.text(0.004, top - 0.125, text, va="center", rotation=90, fontsize=6.5, ha="left")
    fig.axis_labels(figure, xlabel)
    fig.legend(figure, quadrant_entries())


def quadrant_entries(marker: bool = True) -> dict:
    """Legend entries of the four quadrants."""
    return {
        q: {"color": fig.QUADRANT_COLOURS[q], "marker": fig.MARKERS[q] if marker else ""} for q in QUADRANTS
    }


# ---- spectrum ---------------------------------------------------------------------------------------------
def spectrum(data: ReportData) -> list:
    """Power spectrum of the read-out stream, peaks marked and listed."""
    table, peaks = data.table("spectrum"), data.table("spectrum_peaks")
    blocks: list = []
    if table is None:
        blocks += data.missing("spectrum")
    else:
        caption = "Power spectrum of the read-out stream (pixels in the order of reading), by CCD and quadrant; triangles mark the peaks listed."
        blocks.append(
            data.figures.make("bias_spectrum", caption, lambda f: _draw_spectrum(f, table, peaks), height=2.7)
        )
    if peaks is not None:
        blocks.append(plain_table(peaks, caption="Peaks of the spectrum", limit=40))
    elif data.is_empty("spectrum_peaks"):
        blocks.append(Text("No peak stands out of the noise spectrum."))
    elif table is not None:
        blocks.append(Note(data.why_no_table("spectrum_peaks"), "missing"))
    return blocks


def _draw_spectrum(figure, table, peaks) -> None:
    axes = fig.beam_panels(figure)
    everything, entries = [], {}
    for (ccd, quadrant), ax in axes.items():
        part = table.select(ccd=ccd, quadrant=quadrant)
        for component, colour in zip(
            part.distinct("component") or [None], ("blue", "orange", "green"), strict=False
        ):
            rows = part if component is None else part.select(component=component)
            x, y = rows.floats("frequency"), rows.floats("power")
            good = (x > 0) & (y > 0)
            if good.any():
                x, low, high = _envelope(np.log10(x[good]), np.log10(y[good]))
                ax.fill_between(x, low, high, color=fig.COLOURS[colour], linewidth=0.4)
                everything += [low, high]
                if component is not None:
                    entries[f"from {component}"] = {"color": fig.COLOURS[colour]}
        if peaks is not None and "frequency" in peaks:
            at = peaks.select(ccd=ccd, quadrant=quadrant).floats("frequency")
            at = np.log10(at[at > 0])
            ax.plot(
                at,
                np.full(len(at), 0.93),
                "v",
                color=fig.COLOURS["red"],
                transform=ax.get_xaxis_transform(),
                markersize=3,
            )
    if not everything:
        raise fig.NoData("table spectrum has no positive powers")
    fig.span(axes, everything, margin=0.15)
    fig.share_limits(axes, y=False)
    if entries:
        fig.legend(figure, entries)
    unit_f, unit_p = table.unit("frequency") or "Hz", table.unit("power") or "ADU²/Hz"
    fig.axis_labels(figure, f"log₁₀ frequency [{unit_f}]", f"log₁₀ power [{unit_p}]")


def _envelope(x: np.ndarray, y: np.ndarray, bins: int = 220):
    """Least and largest value per bin of `x`: narrow peaks survive the thinning."""
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    if len(x) <= bins:
        return x, y, y
    edges = np.linspace(x[0], x[-1], bins + 1)
    start = np.unique(np.searchsorted(x, edges[:-1]))
    start = start[start < len(x)]
    return x[start], np.minimum.reduceat(y, start), np.maximum.reduceat(y, start)


# ---- profiles ---------------------------------------------------------------------------------------------
def profiles(data: ReportData, subject: str = "profiles", what: str = "offset") -> list:
    """Mean profiles along both axes, by CCD and quadrant."""
    if not data.has_table(subject):
        return data.missing(subject)
    blocks = []
    for axis, text in (
        ("column", "across columns (serial direction)"),
        ("row", "across rows (parallel direction)"),
    ):
        caption = (
            f"Profile of the {what} {text}: mean over the other direction, canonical pixel (0 is read first)."
        )

        def draw(figure, axis=axis):
            table = data.table(subject)  # the longest of all: read when the page is being laid out already
            if table is None:
                raise fig.NoData(data.why_no_table(subject))
            draw_profiles(figure, table.select(axis=axis), axis)

        blocks.append(data.figures.make(f"{data.family or 'test'}_profile_{axis}", caption, draw, height=2.4))
    return blocks


def draw_profiles(figure, table, axis: str, robust: float = 0.7) -> None:
    """Beam panels of value against position; limits from percentiles, so that one column cannot flatten all."""
    if not len(table):
        raise fig.NoData(f"no profile along {axis}s in the table")
    axes = fig.beam_panels(figure)
    values = []
    for (ccd, quadrant), ax in axes.items():
        part = table.select(ccd=ccd, quadrant=quadrant)
        x, y = part.floats("position"), part.floats("value")
        order = np.argsort(x, kind="stable")
        x, y = x[order], y[order]
        x, y = fig.thin(x, y)
        ax.plot(x, y, color=fig.COLOURS["blue"], linewidth=0.6)
        ax.axhline(0, color="#bbbbbb", linewidth=0.5, zorder=0)
        values.append(y)
    fig.span(axes, values, robust=robust, least=0.1, margin=0.25)
    fig.share_limits(axes, y=False)
    fig.axis_labels(figure, f"{axis} [px]", f"value [{table.unit('value') or 'ADU'}]")


def settling(data: ReportData) -> list:
    """Settling of the offset after the start of a line and of a frame."""
    table = data.table("settling")
    if table is None:
        return data.missing("settling")
    if not table.has("position", "value"):
        return [
            plain_table(
                table, caption="Settling of the offset after the start of a line and of a frame", limit=48
            )
        ]
    return [
        data.figures.make(
            "bias_settling",
            "Settling of the offset after the start of a line and of a frame.",
            lambda f: draw_profiles(f, table, "pixel", robust=0),
            height=2.4,
        )
    ]


# ---- master bias --------------------------------------------------------------------------------------------
_MASTER_COLUMNS = [
    "ccd",
    "quadrant",
    "frames",
    "fixed_pattern",
    "row_pattern",
    "column_pattern",
    "residual_pattern",
    "noise",
]
_MASTER_COLUMNS += ["image_level", "mean_count", "unstable", "flag"]


def master(data: ReportData) -> list:
    """Master bias images in the beam layout with one scale, and fixed-pattern numbers."""
    blocks: list = []
    table = data.table("master_bias")
    if table is None:
        blocks += data.missing("master_bias")
    else:
        blocks.append(
            plain_table(table, _MASTER_COLUMNS, "Fixed pattern of the master bias: rms and its parts")
        )
    if any(data.product("EUC_MASTERBIAS", ccd) for ccd in (1, 2, 3)):
        caption = "Master bias (image area, means of square blocks), quadrants as seen, one common scale from the 5th to the 95th percentile."
        blocks.append(
            data.figures.make(
                "bias_master",
                caption,
                lambda f: draw_master(f, data, "EUC_MASTERBIAS", "STACK", "ADU"),
                height=2.55,
            )
        )
    else:
        blocks.append(Note("No master bias (EUC_MASTERBIAS_CCD…) is among the products.", "missing"))
    return blocks


def draw_master(
    figure, data: ReportData, prefix: str, extname: str, unit: str, percentiles=(5, 95), label: str = ""
) -> None:
    """Images of a product of the three CCDs; a CCD without the product stays empty."""
    images = {}
    for ccd in (1, 2, 3):
        path = data.product(prefix, ccd)
        if path is not None:
            images[ccd] = read_reduced(path, extname, data.detector)
    if not images:
        raise fig.NoData(f"no product {prefix} was made")
    fig.beam_images(figure, images, unit, percentiles, label=label)
