"""Sections of PERSIST01: saturated areas, released charge and its decay, maps."""

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
    is_true,
    label,
    number,
    plain_table,
    with_error,
)
from calcamp.report.bias import quadrant_entries
from calcamp.report.tables import read_reduced


def sections(data: ReportData) -> list[Section]:
    """The family's sections, in order."""
    return [
        Section(
            "Persistence",
            [],
            "persistence",
            [
                Section("Released charge", released(data), "persistence-result"),
                Section("Decay", decay(data), "persistence-decay"),
                Section("Maps", maps(data), "persistence-maps"),
            ],
        ),
        Section("Saturated areas", areas(data), "saturated-areas"),
    ]


def released(data: ReportData) -> list:
    """Charge in the first latent frame, or its limit; time constant."""
    table = data.table("persistence")
    if table is None:
        return data.missing("persistence")
    cells, rows = {}, []
    for row in table.rows():
        limit = is_true(row.get("is_limit"))
        value = row.get("limit95") if limit else row.get("persistence")
        text = with_error(value, row.get("persistence_err"), limit)
        cells[row["ccd"], row["quadrant"]] = Cell(text, "none" if row.get("persistence") is None else "")
        rows.append(
            [
                Cell(label(row["ccd"], row["quadrant"])),
                Cell(with_error(row.get("persistence"), row.get("persistence_err"))),
                Cell(number(row.get("significance"), 3)),
                Cell(number(row.get("limit95"), 3)),
                Cell("limit" if limit else "value", align="l"),
                Cell(with_error(row.get("tau"), row.get("tau_err"))),
                Cell(with_error(row.get("trapped"), row.get("trapped_err"))),
                Cell(number(row.get("chi2_dof"), 2)),
                Cell(with_error(row.get("persistence_vison"), row.get("persistence_vison_err"))),
                Cell(str(row.get("flag") or ""), align="l"),
            ]
        )
    header = [
        "Quadrant",
        "First frame",
        "σ",
        "95 % limit",
        "Quoted",
        "τ [s]",
        "Trapped",
        "χ²/dof",
        "Old way [ADU]",
        "",
    ]
    blocks: list = [
        Text(
            "Saturated pixels above their surroundings (10 to 60 px away) in each latent dark less the mean reference dark, pixel by "
            "pixel and row by row. Below 3.5 sigma the 95 % upper limit is quoted (<). The decay is that of one time constant: "
            "N (exp(−t/τ) − exp(−(t+T)/τ)) in an exposure of T that starts t after the light."
        ),
        Beam(cells, "Persistence in the first latent dark [e⁻/px]"),
        TableBlock(header, rows, "Persistence [e⁻/px] and its decay", compact=True),
    ]
    if any(is_true(row.get("gain_nominal")) for row in table.rows()):
        blocks.append(Note("Electrons are with the nominal gain: the block has no measured one yet.", "info"))
    if all(is_true(row.get("is_limit")) for row in table.rows() if row.get("persistence") is not None):
        blocks.append(Note("No measurable persistence in any quadrant.", "info"))
    return blocks


def decay(data: ReportData) -> list:
    """Signal of each frame against time, with the fitted decay."""
    table = data.table("persistence_frames")
    if table is None:
        return data.missing("persistence_frames")
    caption = (
        "Signal of the saturated pixels in each dark against the time since the light ended (middle of the exposure). Darks before it "
        "are reference frames against the others. Lines: the fitted decay, per exposure of this length."
    )
    return [
        data.figures.make(
            "persistence_decay",
            caption,
            lambda f: _draw_decay(f, table, data.table("persistence")),
            height=2.6,
        ),
        plain_table(
            table,
            [
                "obsid",
                "ccd",
                "quadrant",
                "kind",
                "t_start",
                "signal_e",
                "signal_e_err",
                "p25",
                "p50",
                "p75",
                "n",
                "flag",
            ],
            "Frames",
            limit=72,
        ),
    ]


def _draw_decay(figure, table, result) -> None:
    axes = fig.ccd_panels(figure)
    for ccd, ax in axes.items():
        ax.axhline(0, color="#bbbbbb", linewidth=0.6, zorder=0)
        ax.axvline(0, color="#999999", linewidth=0.6, linestyle=":", zorder=0)
        for k, quadrant in enumerate(QUADRANTS):
            part = table.select(ccd=ccd, quadrant=quadrant)
            if not len(part):
                continue
            colour = fig.QUADRANT_COLOURS[quadrant]
            length = part.floats("exptime")
            middle = part.floats("t_start") + 0.5 * length
            fig.points(
                ax,
                middle + 25 * (k - 1.5),
                part.floats("signal_e"),
                part.floats("signal_e_err"),
                colour,
                fig.MARKERS[quadrant],
                line=False,
            )
            fit = result.select(ccd=ccd, quadrant=quadrant) if result is not None else ()
            if len(fit) and np.isfinite(fit.floats("tau")[0]):
                tau, trapped, exposed = fit.floats("tau")[0], fit.floats("trapped")[0], float(np.max(length))
                start = np.linspace(0, float(np.max(middle)), 120)
                model = trapped * (np.exp(-start / tau) - np.exp(-(start + exposed) / tau))
                ax.plot(start + 0.5 * exposed, model, color=colour, linewidth=0.7)
        ax.autoscale_view()
    fig.share_limits(axes, least_y=1.0)
    fig.axis_labels(figure, "s since the end of the light", "e⁻/px")
    fig.legend(figure, quadrant_entries())


def maps(data: ReportData) -> list:
    """First latent dark less the reference."""
    images = {}
    for ccd in (1, 2, 3):
        path = next(
            (p for p in data.products if p.name.startswith("PERSIST01_LATENT") and f"_CCD{ccd}." in p.name),
            None,
        )
        if path is not None:
            images[ccd] = path
    if not images:
        return [Note("No map of the first latent dark was made.", "missing")]

    def draw(figure):
        reduced = {ccd: read_reduced(p, "LATENT", data.detector) for ccd, p in images.items()}
        fig.beam_images(figure, reduced, "ADU", (1, 99.5))

    caption = "First latent dark less the mean reference dark (means of square blocks), quadrants as seen."
    return [data.figures.make("persistence_latent", caption, draw, height=2.55)]


def areas(data: ReportData) -> list:
    """Where and how much saturated."""
    table = data.table("saturated_areas")
    if table is None:
        return data.missing("saturated_areas")
    blocks: list = [plain_table(table, caption="Saturated areas of the exposure to light")]
    images = {}
    for ccd in (1, 2, 3):
        path = next(
            (p for p in data.products if p.name.startswith("PERSIST01_SATMASK") and f"_CCD{ccd}." in p.name),
            None,
        )
        if path is not None:
            images[ccd] = path
    if images:

        def draw(figure):
            reduced = {ccd: read_reduced(p, "MASK", data.detector) for ccd, p in images.items()}
            fig.beam_images(figure, reduced, "share", (0, 100))

        blocks.append(
            data.figures.make("persistence_areas", "Saturated pixels, quadrants as seen.", draw, height=2.55)
        )
    return blocks
