"""Sections of CHINJ01 and CHINJ02: curves, levels, uniformity, line profiles, deferred charge, halves."""

from __future__ import annotations

import numpy as np

from calcamp.report import figures as fig
from calcamp.report.base import (
    QUADRANTS,
    Beam,
    Cell,
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


def sections(data: ReportData) -> list[Section]:
    """The family's sections, in order."""
    kind = "IG1" if data.test.startswith("CHINJ01") else "IDL"
    return [
        Section(
            f"Injected charge against {kind}",
            [],
            "injection",
            [
                Section("Threshold and level", curve(data, kind), "injection-curve"),
                Section("Which half is injected", delays(data), "injection-halves"),
            ],
        ),
        Section(
            "Uniformity and shape of the blocks",
            [],
            "injection-shape",
            [
                Section("From column to column", uniformity(data), "injection-columns"),
                Section("Along the lines of a cycle", lines(data), "injection-lines"),
                Section("Block by block", blocks(data), "injection-blocks"),
            ],
        ),
    ]


def curve(data: ReportData, kind: str) -> list:
    """Fitted curves, their parameters, and the points."""
    table, points = data.table("injection_fit"), data.table("injection")
    if table is None or points is None:
        return data.missing("injection_fit", "injection")
    gate = kind == "IG1"
    text = (
        "The level of the injected lines is the mean of the middle half of the columns over their plateau, above the lines without injection of the "
        "same cycle; the first two lines of a block and the parallel overscan are left out. "
    )
    text += (
        "The curve is background + rise at the threshold × (straight line falling to the knee + notch). "
        if gate
        else "The curve is background + amplitude × fall at the threshold. "
    )
    text += (
        "The threshold is where the level is half of what it would be without the transition. Errors: those of the frames, a scatter from "
        "frame to frame and an error of the transition's shape, both found from the residuals"
        + _found_errors(table)
        + ". V0 = IDL − IG1 at the threshold is the same in CHINJ01 and CHINJ02."
    )
    cells = {
        (r.get("ccd"), r.get("quadrant")): Cell(
            with_error(r.get("threshold"), r.get("threshold_err")),
            "none" if r.get("threshold") is None else "",
        )
        for r in table.rows()
    }
    out = [Text(text), Beam(cells, f"Threshold in {kind} [V]")]
    out.append(
        data.figures.make(
            "injection_curve",
            f"Level of the injected lines against {kind} in the frames with the delay of each half, and the fitted curves. Errors are "
            "smaller than the points.",
            lambda f: _draw_curve(f, data, kind),
            height=2.6,
        )
    )
    nominal = any(is_true(r.get("gain_nominal")) for r in table.rows())
    header = ["Quadrant", "Threshold [V]", "V0 [V]", "K [1/V]"]
    header += (
        ["Knee [V]", "Slope [e⁻/V]", "Notch [ADU]", "Notch [e⁻]"] if gate else ["Level [ADU]", "Level [e⁻]"]
    )
    header += ["Backgr. [ADU]", "χ²/dof", "Flag"]
    rows = []
    for r in table.rows():
        row = [
            label(r.get("ccd"), r.get("quadrant")),
            with_error(r.get("threshold"), r.get("threshold_err")),
            with_error(r.get("v0"), r.get("v0_err")),
            _steepness(r),
        ]
        names = ("knee", "slope_e", "notch", "notch_e") if gate else ("amplitude", "amplitude_e")
        row += [with_error(r.get(n), r.get(f"{n}_err")) for n in names]
        dof = r.get("dof") or 0
        chi2 = r.get("chi2")
        row += [
            with_error(r.get("background"), r.get("background_err")),
            number(chi2 / dof, 2) if dof and chi2 is not None else "–",
        ]
        flag = r.get("flag") or ""
        rows.append([*(Cell(v) for v in row), Cell(str(flag), "fail" if flag else "", align="l")])
    out.append(
        TableBlock(
            header,
            rows,
            "Parameters of the curves"
            + ("; electrons with the nominal gain, without its error" if nominal else ""),
            source="tables/injection_fit.ecsv",
            compact=True,
        )
    )
    return out


def _found_errors(table) -> str:
    """Size of the errors that the fit found, for the text."""
    scatter, shape = table.floats("scatter"), table.floats("shape")
    if not np.isfinite(scatter).any():
        return ""
    typical = 100 * np.nanmedian(scatter)
    return (
        f" (here {'less than 0.001' if typical < 1e-3 else number(typical, 2)} % of the level, median of the quadrants, and "
        f"{number(100 * np.nanmedian(shape), 2)} % of the charge)"
    )


def _steepness(row) -> str:
    if row.get("steepness_err") is None or not np.isfinite(row["steepness_err"]):
        return f"> {number(row.get('steepness'), 2)}" if row.get("steepness") is not None else "–"
    return with_error(row.get("steepness"), row.get("steepness_err"))


def _matched(table):
    return table.where(np.array([is_true(v) for v in table["matched"].tolist()]))


def _draw_curve(figure, data, kind) -> None:
    points, model = _matched(data.table("injection")), data.table("injection_curve")
    axes = fig.ccd_panels(figure)
    volts = "ig1" if kind == "IG1" else "idl"
    for ccd, ax in axes.items():
        for quadrant in QUADRANTS:
            part = points.select(ccd=ccd, quadrant=quadrant)
            colour = fig.QUADRANT_COLOURS[quadrant]
            if len(part):
                fig.points(
                    ax,
                    part.floats(volts),
                    part.floats("signal") / 1e3,
                    None,
                    colour,
                    fig.MARKERS[quadrant],
                    line=False,
                )
            if model is not None:
                line = model.select(ccd=ccd, quadrant=quadrant)
                ax.plot(line.floats("volts"), line.floats("level") / 1e3, color=colour, linewidth=0.7)
    fig.share_limits(axes)
    fig.axis_labels(figure, f"{kind} [V]", "level [kADU]")
    fig.legend(figure, quadrant_entries())


def delays(data: ReportData) -> list:
    """Highest level per half and delay."""
    table = data.table("delays")
    if table is None:
        return data.missing("delays")
    ratios = table.distinct("delay_ratio")
    found = {(r["ccd"], r["quadrant"], r["delay_ratio"]): r for r in table.rows()}
    rows = []
    for ccd, quadrant in dict.fromkeys((r["ccd"], r["quadrant"]) for r in table.rows()):
        cells = [Cell(label(ccd, quadrant))]
        for ratio in ratios:
            r = found.get((ccd, quadrant, ratio), {})
            text = with_error(r.get("signal"), r.get("signal_err"))
            cells.append(Cell(text + (" ●" if is_true(r.get("expected")) else ""), "none" if not r else ""))
        rows.append(cells)
    header = ["Quadrant", *[f"id_dly = {number(r, 2)} × toi_ch" for r in ratios]]
    return [
        Text(
            "Highest level of the scan for each delay of the drain pulse; ● marks the delay that suits the half. The other half takes "
            "no defined charge and is not used."
        ),
        TableBlock(header, rows, "Highest level above the lines without injection [ADU]", compact=True),
    ]


def uniformity(data: ReportData) -> list:
    """Column pattern at the nominal setting."""
    table, profile = data.table("uniformity"), data.table("profiles")
    if table is None:
        return data.missing("uniformity")
    out = [
        plain_table(
            table,
            [
                "ccd",
                "quadrant",
                "ig1",
                "idl",
                "level",
                "nonuniformity",
                "nonuniformity_vison",
                "lowest",
                "highest",
                "n_bad",
                "flag",
            ],
            "Uniformity at the setting nearest the nominal one: rms from column to column (noise taken off); columns farthest from the median",
        )
    ]
    if profile is not None:
        out.append(
            data.figures.make(
                "injection_columns",
                "Level across the columns, over their median, at the nominal setting (means of neighbouring columns).",
                lambda f: _draw_columns(f, profile),
                height=2.5,
            )
        )
    bad = data.table("bad_columns")
    if bad is not None:
        out.append(plain_table(bad, caption="Columns that take too little or too much charge", limit=40))
    return out


def _draw_columns(figure, table) -> None:
    axes = fig.beam_panels(figure)
    curves = []
    for (ccd, quadrant), ax in axes.items():
        part = table.select(ccd=ccd, quadrant=quadrant)
        if len(part):
            ax.plot(part.floats("position"), part.floats("value"), color=fig.COLOURS["blue"], linewidth=0.6)
            curves.append(part.floats("value"))
    fig.span(axes, curves, robust=0.5, least=0.02)
    fig.share_limits(axes, y=False)
    fig.axis_labels(figure, "image column", "level / median")


def lines(data: ReportData) -> list:
    """Profile along a cycle: start, plateau, shut-down."""
    table = data.table("line_profiles")
    if table is None:
        return data.missing("line_profiles")
    return [
        data.figures.make(
            "injection_lines",
            "Mean level at each line of a cycle over its plateau, highest setting of every quadrant: the deficit of the first lines "
            "(above) and the charge after the block (below), in per cent of the plateau.",
            lambda f: _draw_lines(f, table),
            height=3.9,
        )
    ]


def _draw_lines(figure, table) -> None:
    from calcamp.report.figures import NoData

    drawn = False
    for r, (title, after) in enumerate((("start of a block", False), ("after a block", True))):
        top = 0.9 - r * 0.46
        axes = fig.ccd_panels(figure, bottom=top - 0.34, top=top, titles=r == 0)
        for ccd, ax in axes.items():
            for quadrant in QUADRANTS:
                part = table.select(ccd=ccd, quadrant=quadrant)
                if not len(part):
                    continue
                place, value = part.floats("place"), part.floats("value")
                obsids = part["obsid"]
                best = max(
                    set(obsids.tolist()), key=lambda o: np.nanmedian(value[(obsids == o) & (place < 20)])
                )
                mine = obsids == best
                x, y, e = place[mine], value[mine], part.floats("value_err")[mine]
                plateau = np.nanmedian(y[(x > 2) & (x < 20)])
                if not plateau > 0:
                    continue
                on = x[y > 0.5 * plateau].max() + 1
                keep = (x >= on) & (x < on + 26) if after else x < min(12, on)
                shift = on if after else 0
                scaled = 100 * y / plateau if after else 100 * (y / plateau - 1)
                fig.points(
                    ax,
                    x[keep] - shift,
                    scaled[keep],
                    100 * e[keep] / plateau,
                    fig.QUADRANT_COLOURS[quadrant],
                    fig.MARKERS[quadrant],
                )
                drawn = True
        fig.share_limits(axes)
        figure.text(
            0.004,
            top - 0.17,
            "level [%]" if after else "level − plateau [%]",
            va="center",
            rotation=90,
            fontsize=6.5,
        )
        figure.text(0.53, top - 0.425, f"line, {title}", ha="center", va="bottom", fontsize=7)
    if not drawn:
        raise NoData("no injected block in the table")
    fig.legend(figure, quadrant_entries())


def blocks(data: ReportData) -> list:
    """Levels block by block, deferred charge."""
    table, frames = data.table("blocks"), data.table("injection")
    if table is None or frames is None:
        return data.missing("blocks")
    out = [
        data.figures.make(
            "injection_blocks",
            "Level of each block over the mean of its frame, highest setting of every quadrant, against the row of its first line.",
            lambda f: _draw_blocks(f, table),
            height=2.2,
        )
    ]
    rows = []
    matched = _matched(frames)
    for ccd in (1, 2, 3):
        for quadrant in QUADRANTS:
            part = [
                r for r in matched.select(ccd=ccd, quadrant=quadrant).rows() if r.get("signal") is not None
            ]
            if not part:
                continue
            r = max(part, key=lambda r: r["signal"])
            rows.append(
                [
                    Cell(label(ccd, quadrant)),
                    Cell(number(r.get("phase"))),
                    Cell(with_error(r.get("signal"), r.get("signal_err"))),
                    *(
                        Cell(with_error(_percent(r, n), _percent(r, f"{n}_err")))
                        for n in ("first_line", "spill", "shutdown", "trend")
                    ),
                    Cell(with_error(_scaled(r, "cti"), _scaled(r, "cti_err"))),
                    Cell(number(r.get("line_noise"), 2)),
                    Cell(number(r.get("pixel_noise"), 3)),
                ]
            )
    header = [
        "Quadrant",
        "First line",
        "Level [ADU]",
        "First-line deficit [%]",
        "Spill [%]",
        "Shut-down [%]",
        "Trend [%]",
        "CTI [10⁻⁶]",
        "Line noise [ADU]",
        "Pixel noise [ADU]",
    ]
    out.append(
        TableBlock(
            header,
            rows,
            "Shape of the blocks at the highest level of the scan",
            source="tables/injection.ecsv",
            compact=True,
        )
    )
    return out


def _percent(row, name):
    return None if row.get(name) is None else 100 * row[name]


def _scaled(row, name):
    return None if row.get(name) is None else 1e6 * row[name]


def _draw_blocks(figure, table) -> None:
    axes = fig.ccd_panels(figure, bottom=0.2)
    for ccd, ax in axes.items():
        for quadrant in QUADRANTS:
            part = table.select(ccd=ccd, quadrant=quadrant)
            if not len(part):
                continue
            obsids, level = part["obsid"], part.floats("level")
            best = max(set(obsids.tolist()), key=lambda o: np.nanmean(level[obsids == o]))
            mine = obsids == best
            mean = np.nanmean(level[mine])
            fig.points(
                ax,
                part.floats("first_row")[mine],
                100 * (level[mine] / mean - 1),
                100 * part.floats("level_err")[mine] / mean,
                fig.QUADRANT_COLOURS[quadrant],
                fig.MARKERS[quadrant],
            )
    fig.share_limits(axes, least_y=0.1)
    fig.axis_labels(figure, "first row of the block", "level − mean [%]")
    fig.legend(figure, quadrant_entries())
