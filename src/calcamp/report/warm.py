"""Sections of MOT_WARM: the GO / NO-GO table, profiles, spots, bits."""

from __future__ import annotations

import numpy as np

from calcamp.report import figures as fig
from calcamp.report.base import (
    CCDS,
    QUADRANTS,
    Cell,
    Note,
    ReportData,
    Section,
    TableBlock,
    Text,
    label,
    number,
    plain_table,
    state_of,
    with_error,
)
from calcamp.report.bias import quadrant_entries

#: Checks of the GO table: check of the verdict, heading.
CHECKS = (
    ("offset", "Offset [ADU]"),
    ("offset_gradient", "Gradient [ADU]"),
    ("read_noise", "Noise [ADU]"),
    ("ramp_slope", "Ramp [ADU/row]"),
    ("ramp_uniformity", "Ramp/median"),
    ("injection_significance", "Injection [σ]"),
    ("flat_signal", "Flat [ADU]"),
    ("spots_found", "Spots of 5"),
    ("her", "HER"),
    ("saturation", "Saturated"),
)


def sections(data: ReportData) -> list[Section]:
    """The family's sections, in order."""
    return [
        Section(
            "Go or no-go",
            [*go_table(data), *reasons(data)],
            "go",
            [
                Section("Profiles along the rows", profiles(data), "warm-profiles"),
                Section("Spots", spots(data), "warm-spots"),
                Section("Hard edge and ADC bits", bits(data), "warm-bits"),
                Section("What each frame is", roles(data), "warm-roles"),
            ],
        )
    ]


def go_table(data: ReportData) -> list:
    """One row per quadrant, one column per proof; the worst value of each, red where it fails."""
    checks = [(name, text) for name, text in CHECKS if data.checks(name)]
    if not checks:
        return [Note("Nothing was judged: no GO.", "bad")]
    rows = []
    for ccd in CCDS:
        for quadrant in QUADRANTS:
            cells = [Cell(label(ccd, quadrant))]
            for name, _ in checks:
                cells.append(_worst(data, name, ccd, quadrant))
            states = {cell.state for cell in cells[1:] if cell.text != "not asked"}
            word = "NO GO" if "fail" in states else "not proved" if "none" in states else "GO"
            state = {"NO GO": "fail", "not proved": "none", "GO": "pass"}[word]
            rows.append([*cells, Cell(word, state)])
    text = (
        "GO needs every proof of every quadrant, house-keeping within its safe limits and all frames. "
        "Frames are told by what was commanded, not by their place."
    )
    return [
        Text(text),
        TableBlock(["Quadrant", *(t for _, t in checks), ""], rows, "Proofs by quadrant", compact=True),
    ]


def _worst(data: ReportData, check: str, ccd: int, quadrant: str) -> Cell:
    cells = [
        c
        for c in data.compliance
        if c.get("check") == check and (c.get("ccd"), c.get("quadrant")) == (ccd, quadrant)
    ]
    if not cells:
        return Cell("–", "none")
    failed = [c for c in cells if c.get("ok") is False]
    unknown = [c for c in cells if c.get("ok") is None]
    chosen = (failed or unknown or cells)[0]
    if (
        check == "injection_significance"
        and not failed
        and len(unknown) == len(cells)
        and not _asked(data, ccd, quadrant)
    ):
        return Cell("not asked", "")
    return Cell(number(chosen.get("value"), 4), state_of(chosen.get("ok")))


def _asked(data: ReportData, ccd, quadrant) -> bool:
    table = data.table("go")
    if table is None:
        return True
    part = table.select(ccd=ccd, quadrant=quadrant)
    return not len(part) or part.rows()[0].get("injection_wanted") in (True, 1, "True")


def reasons(data: ReportData) -> list:
    """Causes in order."""
    failing = [f for f in data.flags if f.get("effect") != "note"]
    if not failing:
        return [Note("Every proof was given.", "info")]
    from calcamp.report.base import scope_text

    rows = [
        [
            Cell(str(f.get("name"))),
            Cell(str(f.get("cause")), align="l"),
            Cell(scope_text(f.get("scope")), align="l"),
            Cell(
                "cause" if not f.get("consequence_of") else f"follows {', '.join(f['consequence_of'])}",
                align="l",
            ),
        ]
        for f in failing[:40]
    ]
    return [
        TableBlock(
            ["Flag", "Reason", "Where", ""], rows, "Reasons, causes first", more=max(0, len(failing) - 40)
        )
    ]


def profiles(data: ReportData) -> list:
    """Ramp, injection and flat along the rows."""
    table = data.table("warm_profiles")
    if table is None:
        return data.missing("warm_profiles")
    words = {
        "RAMP": "Warm dark current along the rows (frame RAMP), above the prescan.",
        "CHINJ": "Injected lines on the ramp (frame CHINJ).",
        "FLAT": "Flat light on the ramp (frame FLAT).",
    }
    blocks = []
    for kind, caption in words.items():
        part = table.select(kind=kind)
        if not len(part):
            blocks.append(Note(f"No frame {kind}: no profile.", "missing"))
            continue
        blocks.append(
            data.figures.make(
                f"warm_{kind.lower()}", caption, lambda f, part=part: _draw(f, part), height=2.1
            )
        )
    go = data.table("go")
    if go is not None:
        names = ["ccd", "quadrant", "ramp_slope", "ramp_slope_err", "ramp_start", "ramp_start_err"]
        names += ["injection_level", "flat_level", "flat_level_err", "n", "flag"]
        blocks.append(plain_table(go, names, "Ramp, injection and flat"))
    return blocks


def _draw(figure, table) -> None:
    axes = fig.ccd_panels(figure)
    for ccd, ax in axes.items():
        for quadrant in QUADRANTS:
            part = table.select(ccd=ccd, quadrant=quadrant)
            if len(part):
                ax.plot(
                    part.floats("row"),
                    part.floats("value"),
                    color=fig.QUADRANT_COLOURS[quadrant],
                    linewidth=0.7,
                )
    fig.share_limits(axes)
    fig.axis_labels(figure, "row", "ADU above prescan")
    fig.legend(figure, quadrant_entries(marker=False))


def spots(data: ReportData) -> list:
    """Number of spots, and where they are."""
    table = data.table("spots")
    if table is None:
        return data.missing("spots")
    waves = sorted(table.distinct("wavelength"))
    rows = []
    for ccd in CCDS:
        for quadrant in QUADRANTS:
            cells = [Cell(label(ccd, quadrant))]
            for wave in waves:
                part = table.select(ccd=ccd, quadrant=quadrant, wavelength=wave).rows()
                cells.append(
                    Cell(
                        f"{number(part[0]['found'])} ({number(part[0]['flux'], 3)} ADU)" if part else "–",
                        "" if part else "none",
                    )
                )
            rows.append(cells)
    blocks: list = [
        TableBlock(
            ["Quadrant", *(f"{w} nm" for w in waves)],
            rows,
            "Spots found, of five (median flux)",
            compact=True,
        )
    ]
    found = data.table("spot_list")
    if found is not None:
        caption = "Where spots were found, quadrants as seen; one symbol per wavelength."
        blocks.append(
            data.figures.make(
                "warm_spots", caption, lambda f: _draw_spots(f, found, waves, data.detector), height=2.7
            )
        )
    return blocks


def _draw_spots(figure, table, waves, detector) -> None:
    rows_n, columns_n = detector.image_shape
    marks = dict(zip(waves, ("o", "+", "x", "s"), strict=False))
    for c, ccd in enumerate(CCDS):
        ax = figure.add_axes((0.02 + c * 0.325, 0.03, 0.31, 0.8))
        for quadrant in QUADRANTS:
            for wave, marker in marks.items():
                part = table.select(ccd=ccd, quadrant=quadrant, wavelength=wave)
                if not len(part):
                    continue
                x, y = part.floats("x"), part.floats("y")
                x = x if quadrant in "EH" else 2 * columns_n - 1 - x
                y = y if quadrant in "GH" else 2 * rows_n - 1 - y
                style = (
                    {"facecolors": "none", "edgecolors": fig.COLOURS["blue"]}
                    if marker in "os"
                    else {"c": fig.COLOURS["red"]}
                )
                ax.scatter(x, y, s=14, marker=marker, linewidths=0.7, **style)
        ax.axhline(rows_n, color="#999999", linewidth=0.5)
        ax.axvline(columns_n, color="#999999", linewidth=0.5)
        ax.set(xlim=(0, 2 * columns_n), ylim=(0, 2 * rows_n), xticks=[], yticks=[], aspect="equal")
        fig.mark_quadrants(ax)
        figure.text(
            0.02 + c * 0.325 + 0.155, 0.845, f"CCD{ccd}", ha="center", va="bottom", weight="bold", fontsize=8
        )
    fig.legend(
        figure,
        {f"{w} nm": {"marker": m, "linestyle": "", "color": fig.COLOURS["blue"]} for w, m in marks.items()},
    )


def bits(data: ReportData) -> list:
    """Hard-edge response, and the rate of each bit of the converters."""
    her = data.table("her")
    blocks: list = (
        data.missing("her")
        if her is None
        else [
            TableBlock(
                ["Quadrant", "HER", "Step [ADU]", "Rows", ""],
                [
                    [
                        Cell(label(r["ccd"], r["quadrant"])),
                        Cell(with_error(r["her"], r["her_err"])),
                        Cell(number(r["signal"])),
                        Cell(number(r["n"])),
                        Cell(str(r.get("flag") or ""), align="l"),
                    ]
                    for r in her.rows()
                ],
                "Hard-edge response in the serial overscan of the ramp, rows of 1000 to 40000 ADU",
                compact=True,
            )
        ]
    )
    table = data.table("bits")
    if table is None:
        return [*blocks, *data.missing("bits")]
    caption = "Share of the pixels of RAMP with each bit of the converter set. A bit at 0 or 1 that the data should toggle is stuck."
    return [*blocks, data.figures.make("warm_bits", caption, lambda f: _draw_bits(f, table), height=2.0)]


def _draw_bits(figure, table) -> None:
    axes = fig.ccd_panels(figure)
    for ccd, ax in axes.items():
        for k, quadrant in enumerate(QUADRANTS):
            part = table.select(ccd=ccd, quadrant=quadrant)
            if len(part):
                fig.points(
                    ax,
                    part.floats("bit") + 0.12 * (k - 1.5),
                    part.floats("rate"),
                    None,
                    fig.QUADRANT_COLOURS[quadrant],
                    fig.MARKERS[quadrant],
                    line=False,
                )
        ax.axhline(0.5, color="#bbbbbb", linewidth=0.6, zorder=0)
        ax.set_ylim(-0.05, 1.05)
        ax.set_xlim(-0.8, 15.8)
    fig.axis_labels(figure, "bit", "share set")
    fig.legend(figure, quadrant_entries())


def roles(data: ReportData) -> list:
    """Frames with what they are."""
    table = data.table("roles")
    if table is None:
        return data.missing("roles")
    one = table.select(ccd=int(np.min(table["ccd"].astype(int))))
    return [plain_table(one, ["obsid", "column", "role", "wavelength", "comments", "flag"], "Frames")]
