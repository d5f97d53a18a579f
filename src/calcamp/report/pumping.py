"""Sections of TP01, TP11, TP02, TP21: background, dipoles, efficiency, emission times, species."""

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
    beam_values,
    is_true,
    label,
    number,
    plain_table,
    with_error,
)
from calcamp.report.bias import quadrant_entries


def sections(data: ReportData) -> list[Section]:
    """The family's sections, in order."""
    return [
        Section(
            "Dipoles",
            [],
            "dipoles",
            [
                Section("Injected background", background(data), "pumping-background"),
                Section("Search and efficiency", search(data), "pumping-search"),
                Section("Where the traps are", places(data), "pumping-map"),
            ],
        ),
        Section(
            "Traps",
            [],
            "traps",
            [
                Section("Species", species(data), "trap-species"),
                Section("Emission times and probabilities of capture", fits(data), "trap-fits"),
                Section("Amplitude against time", examples(data), "trap-examples"),
                Section("Catalogue", catalogue(data), "trap-catalogue"),
            ],
        ),
    ]


def _used(table):
    return table.where(np.array([v in (True, 1, "True", "true") for v in table["use"].tolist()]))


def background(data: ReportData) -> list:
    """Level and noise of the frames that dipoles are taken from."""
    table = data.table("injection")
    if table is None:
        return data.missing("injection")
    used = _used(table)
    cells = {}
    for ccd in (1, 2, 3):
        for quadrant in QUADRANTS:
            part = used.select(ccd=ccd, quadrant=quadrant)
            if len(part):
                level, noise = np.nanmedian(part.floats("level")), np.nanmedian(part.floats("noise"))
                cells[ccd, quadrant] = Cell(f"{level:.0f} / {noise:.1f}")
            else:
                cells[ccd, quadrant] = Cell("–", "none")
    return [
        Text(
            "Only frames whose drain delay suits the half of the quadrant are used. The noise is that of a pixel against its neighbours "
            "in the column; it sets which traps can be seen."
        ),
        Beam(cells, "Injected background / noise of a pixel, medians over the frames used [ADU]"),
        data.figures.make(
            "pumping_background",
            "Injected background of the frames used, over their median.",
            lambda f: _draw_background(f, used, data),
            height=2.2,
        ),
    ]


def _draw_background(figure, table, data) -> None:
    times, xlabel = fig.frame_times(data)
    axes = fig.ccd_panels(figure, bottom=0.2)
    for ccd, ax in axes.items():
        for quadrant in QUADRANTS:
            part = table.select(ccd=ccd, quadrant=quadrant)
            if len(part):
                level = part.floats("level")
                x = fig.abscissa(part["obsid"], times)
                y = 100 * (level / np.nanmedian(level) - 1)
                fig.points(ax, x, y, None, fig.QUADRANT_COLOURS[quadrant], fig.MARKERS[quadrant])
    fig.share_limits(axes, least_y=0.2)
    fig.axis_labels(figure, xlabel, "level − median [%]")
    fig.legend(figure, quadrant_entries())


def search(data: ReportData) -> list:
    """Cut, numbers, completeness of the fakes."""
    table, complete = data.table("search"), data.table("completeness")
    if table is None:
        return data.missing("search")
    out = [
        Text(
            "A dipole is half the difference of the two pixels of a pair. At every pair the amplitudes at all times of a mode are compared "
            "with what traps of all emission times would give: the joint significance. The cut leaves the stated number of false dipoles. "
            "Single pixels, cosmic rays, what is in one frame only, and the ends of the columns (the other packet lies outside) are not counted."
        ),
        beam_values(table, "n_dipoles", "Dipoles found, all modes"),
        plain_table(
            table,
            ["ccd", "quadrant", "pairs", "cut", "level", "n_dipoles", "expected_false", "flag"],
            "Search: pairs searched, joint significance required, false dipoles expected from noise",
        ),
    ]
    if complete is None:
        return [*out, *data.missing("completeness")]
    out.append(
        data.figures.make(
            "pumping_completeness",
            "Share of fake dipoles put on the data that were found, against their amplitude summed over times in sigma. Bars are 1 σ.",
            lambda f: _draw_completeness(f, complete),
            height=2.3,
        )
    )
    eff = data.table("efficiency")
    if eff is not None:
        out.append(
            data.figures.make(
                "pumping_efficiency",
                "Efficiency against emission time, probabilities of capture evenly from 0.2 to 1: what the densities are corrected with.",
                lambda f: _draw_efficiency(f, eff),
                height=2.3,
            )
        )
    return out


def _draw_completeness(figure, table) -> None:
    axes = fig.ccd_panels(figure)
    for ccd, ax in axes.items():
        ax.axhline(0.95, **fig.LIMIT)
        for quadrant in QUADRANTS:
            part = table.select(ccd=ccd, quadrant=quadrant)
            if len(part):
                x = np.sqrt(part.floats("snr_low") * np.minimum(part.floats("snr_high"), 30))
                fig.points(
                    ax,
                    x,
                    part.floats("efficiency"),
                    part.floats("efficiency_err"),
                    fig.QUADRANT_COLOURS[quadrant],
                    fig.MARKERS[quadrant],
                )
        ax.set_xlim(0, 26)
    fig.share_limits(axes)
    fig.axis_labels(figure, "amplitude put in [σ]", "found")
    fig.legend(figure, quadrant_entries())


def _draw_efficiency(figure, table) -> None:
    axes = fig.ccd_panels(figure)
    for ccd, ax in axes.items():
        for quadrant in QUADRANTS:
            part = table.select(ccd=ccd, quadrant=quadrant)
            if len(part):
                fig.points(
                    ax,
                    np.sqrt(part.floats("tau_low") * part.floats("tau_high")),
                    part.floats("efficiency"),
                    part.floats("efficiency_err"),
                    fig.QUADRANT_COLOURS[quadrant],
                    fig.MARKERS[quadrant],
                )
        ax.set_xscale("log")
    fig.share_limits(axes)
    fig.axis_labels(figure, "emission time [µs]", "found")
    fig.legend(figure, quadrant_entries())


def _traps(data):
    return data.table("traps")


_STATUS_COLOURS = {
    "ok": "blue",
    "upper": "sky",
    "lower": "orange",
    "multiple": "purple",
    "poor": "red",
    "static": "black",
}


def places(data: ReportData) -> list:
    """Map of the traps."""
    table = _traps(data)
    if table is None:
        return data.missing("traps")
    if not (table["row"].astype(float) >= 0).any():
        return [
            data.figures.make(
                "pumping_register",
                "Traps of the registers: place under the image columns and emission time. Colours: status.",
                lambda f: _draw_register(f, table),
                height=2.4,
            )
        ]
    return [
        data.figures.make(
            "pumping_map",
            "Traps of the image area, quadrants as seen; colours tell the status of the fit.",
            lambda f: _draw_map(f, table, data.detector),
            height=2.8,
        )
    ]


def _draw_map(figure, table, detector) -> None:
    rows_n, columns_n = detector.image_shape
    for c, ccd in enumerate((1, 2, 3)):
        ax = figure.add_axes((0.02 + c * 0.325, 0.02, 0.31, 0.8))
        for quadrant in QUADRANTS:
            part = table.select(ccd=ccd, quadrant=quadrant)
            for status, colour in _STATUS_COLOURS.items():
                here = part.select(status=status)
                if not len(here):
                    continue
                row, column = here.floats("row"), here.floats("image_column")
                x = column if quadrant in "EH" else 2 * columns_n - 1 - column
                y = row if quadrant in "GH" else 2 * rows_n - 1 - row
                size = max(0.3, min(3.0, 2000 / max(len(table), 1)))
                ax.scatter(x, y, s=size, color=fig.COLOURS[colour], linewidths=0, rasterized=True)
        ax.axhline(rows_n, color="#999999", linewidth=0.5)
        ax.axvline(columns_n, color="#999999", linewidth=0.5)
        ax.set(xlim=(0, 2 * columns_n), ylim=(0, 2 * rows_n), xticks=[], yticks=[], aspect="equal")
        fig.mark_quadrants(ax)
        figure.text(
            0.02 + c * 0.325 + 0.155, 0.84, f"CCD{ccd}", ha="center", va="bottom", weight="bold", fontsize=8
        )
    fig.legend(figure, _status_entries())


def _status_entries() -> dict:
    return {s: {"color": fig.COLOURS[c], "marker": "o", "linewidth": 0} for s, c in _STATUS_COLOURS.items()}


def _draw_register(figure, table) -> None:
    axes = fig.beam_panels(figure)
    for (ccd, quadrant), ax in axes.items():
        part = table.select(ccd=ccd, quadrant=quadrant)
        for status, colour in _STATUS_COLOURS.items():
            here = part.select(status=status)
            if len(here):
                ax.plot(here.floats("image_column"), here.floats("tau"), "o", color=fig.COLOURS[colour])
        ax.set_yscale("log")
    fig.share_limits(axes)
    fig.axis_labels(figure, "place in the register", "τ [µs]")
    fig.legend(figure, _status_entries())


def _tau(row) -> str:
    if is_true(row.get("is_limit")):
        return f"> {number(row.get('tau'), 3)}"
    return with_error(row.get("tau"), row.get("tau_err"))


def species(data: ReportData) -> list:
    """Clusters in log tau, with densities."""
    table = data.table("species")
    if table is None:
        return data.missing("species")
    rows = []
    for r in table.rows():
        total = not r.get("species")
        rows.append(
            [
                Cell(label(r.get("ccd"), r.get("quadrant"))),
                Cell("all" if total else str(r["species"])),
                Cell("" if total else _tau(r)),
                Cell("" if total else number(r.get("width"), 2)),
                Cell("" if total else with_error(r.get("pc"), r.get("pc_err"))),
                Cell(number(r.get("n"))),
                Cell(with_error(_million(r, "density"), _million(r, "density_err"))),
                Cell(str(r.get("flag") or ""), "fail" if r.get("flag") else "", align="l"),
            ]
        )
    kelvin = [r["temperature_K"] for r in table.rows() if r.get("temperature_K") is not None]
    at = f" at {np.mean(kelvin):.2f} K" if kelvin else ""
    header = ["Quadrant", "Species", "τ [µs]", "Width [dex]", "Pc", "Traps", "Density [10⁻⁶/px]", "Flag"]
    return [
        Text(
            f"Species are clusters in the logarithm of the emission time{at}: a mixture of normal distributions, widened by the error of each "
            "trap; their number is the one that the Bayesian information criterion prefers. Densities are corrected with the efficiency of "
            "the fakes; “all” counts every dipole, those without a firm emission time too. A species slower than the times of the scan has a "
            "lower limit (half of its traps are slower than that, each at 95 %)."
        ),
        TableBlock(
            header, rows, f"Species of every quadrant{at}", source="tables/species.ecsv", compact=True
        ),
    ]


def _million(row, name):
    return None if row.get(name) is None else 1e6 * row[name]


def fits(data: ReportData) -> list:
    """Histogram of tau, and tau against Pc."""
    table = _traps(data)
    if table is None:
        return data.missing("traps")
    counts = {}
    for status in table["status"].tolist():
        counts[status] = counts.get(status, 0) + 1
    texts = {
        "ok": "emission time measured",
        "upper": "upper limit of the emission time",
        "lower": "lower limit of the emission time",
        "multiple": "more than one trap in the pixel",
        "poor": "χ²/dof too high",
        "static": "the pair differs without pumping too",
    }
    rows = [[Cell(s), Cell(texts.get(s, ""), align="l"), Cell(str(n))] for s, n in sorted(counts.items())]
    return [
        TableBlock(["Status", "Meaning", "Traps"], rows, "Status of the fits, all quadrants", compact=True),
        data.figures.make(
            "pumping_tau",
            "Emission times of the traps with status ok, by CCD and quadrant; no correction for efficiency.",
            lambda f: _draw_tau(f, table),
            height=2.3,
        ),
        data.figures.make(
            "pumping_tau_pc",
            "Probability of capture against emission time, all quadrants of a CCD; colours tell the status.",
            lambda f: _draw_pc(f, table),
            height=2.6,
        ),
    ]


def _draw_tau(figure, table) -> None:
    good = table.select(status="ok")
    tau = good.floats("tau")
    tau = tau[np.isfinite(tau) & (tau > 0)]
    if not len(tau):
        raise fig.NoData("no trap has a firm emission time")
    edges = np.logspace(np.floor(np.log10(tau.min()) * 5) / 5, np.ceil(np.log10(tau.max()) * 5) / 5, 41)
    axes = fig.ccd_panels(figure)
    for ccd, ax in axes.items():
        for quadrant in QUADRANTS:
            part = good.select(ccd=ccd, quadrant=quadrant).floats("tau")
            count, _ = np.histogram(part[np.isfinite(part)], edges)
            ax.step(
                np.sqrt(edges[1:] * edges[:-1]),
                count,
                where="mid",
                color=fig.QUADRANT_COLOURS[quadrant],
                linewidth=0.8,
            )
        ax.set_xscale("log")
    fig.share_limits(axes)
    fig.axis_labels(figure, "emission time [µs]", "traps per bin")
    fig.legend(figure, quadrant_entries(marker=False))


def _draw_pc(figure, table) -> None:
    axes = fig.ccd_panels(figure)
    for ccd, ax in axes.items():
        part = table.select(ccd=ccd)
        for status, colour in _STATUS_COLOURS.items():
            here = part.select(status=status)
            if len(here):
                ax.plot(here.floats("tau"), here.floats("pc"), ".", color=fig.COLOURS[colour], markersize=2)
        ax.set_xscale("log")
        ax.set_ylim(0, 1.05)
    fig.share_limits(axes)
    fig.axis_labels(figure, "emission time [µs]", "Pc")
    fig.legend(figure, _status_entries())


def examples(data: ReportData) -> list:
    """Amplitudes of the most significant traps of each CCD."""
    table = data.table("dipoles")
    if table is None:
        return data.missing("dipoles")
    times = sorted(float(c[2:]) for c in table.columns if c.startswith("a_"))
    if not times:
        return data.missing("dipoles")
    return [
        data.figures.make(
            "pumping_examples",
            "Amplitude at every time of four dipoles of each CCD, from strong to faint, over the error of one time.",
            lambda f: _draw_examples(f, table, times),
            height=2.3,
        )
    ]


def _draw_examples(figure, table, times) -> None:
    axes = fig.ccd_panels(figure)
    x = np.maximum(np.array(times), min([t for t in times if t > 0] or [1]) / 3)
    for ccd, ax in axes.items():
        part = table.select(ccd=ccd, kind="dipole")
        if not len(part):
            continue
        order = np.argsort(-part.floats("significance"))
        picks = order[[int(q * (len(order) - 1)) for q in (0.05, 0.3, 0.6, 0.9)]]
        for k, colour in zip(picks, ("blue", "orange", "green", "purple"), strict=True):
            sign = part.floats("sign")[k]
            y = np.array([part.floats(f"a_{t:g}")[k] for t in times]) * sign
            e = np.array([part.floats(f"e_{t:g}")[k] for t in times])
            fig.points(ax, x, y, e, fig.COLOURS[colour], "o")
        ax.set_xscale("log")
    fig.share_limits(axes)
    fig.axis_labels(figure, "commanded time [µs]", "amplitude [ADU]")


def catalogue(data: ReportData) -> list:
    """The strongest traps."""
    table = _traps(data)
    if table is None:
        return data.missing("traps")
    strongest = table.where(np.argsort(-np.nan_to_num(table.floats("significance")), kind="stable"))
    names = [
        "ccd",
        "quadrant",
        "row",
        "image_column",
        "mode",
        "position",
        "sign",
        "significance",
        "tau",
        "pc",
        "chi2",
        "status",
        "species",
    ]
    return [
        plain_table(
            strongest, names, "Traps, strongest first; all of them in the product EUC_TRAPS", limit=40
        )
    ]
