"""Sections of NL01 and NL02: curves, residuals, lamp and shutter, charge transfer near the full well."""

from __future__ import annotations

import numpy as np

from calcamp.report import figures as fig
from calcamp.report.base import ReportData, Section, Text, beam_values, plain_table
from calcamp.report.bias import quadrant_entries
from calcamp.report.lit import curves

KILO = 1e-3


def sections(data: ReportData) -> list[Section]:
    """The family's sections, in order."""
    return [
        Section(
            "Non-linearity",
            [],
            "nl",
            [
                Section("Signal and exposure time", raw_flux(data), "nl-flux"),
                Section("Curves", curve(data), "nl-curve"),
                Section("Residuals after correction", residuals(data), "nl-residuals"),
                Section("Lamp and shutter", lamp(data), "nl-lamp"),
            ],
        ),
        Section("Transfer near the full well", saturation(data), "sat-cte"),
    ]


def curve(data: ReportData) -> list:
    """Extremes and curves with their error bands."""
    table, line, points = data.table("nl"), data.table("nl_curve"), data.table("nl_points")
    tiles = data.table("nl_tiles")
    if table is None or line is None:
        return data.missing("nl", "nl_curve")
    blocks: list = [
        Text(
            "Non-linearity is 100 (measured − linear)/linear. Linear means: in proportion to the light, with the gauge that 0 and 25 % of FDR "
            "(16 384 ADU) are right. All channels, both filters, every exposure, the lamp's track and jitter, the shutter offset and the background are "
            "fitted together. The extreme is taken from 1 % of FDR to the end of the valid range."
        ),
        beam_values(table, "nonlinearity_max", "Extreme of the non-linearity [%]"),
        plain_table(
            table,
            caption="Non-linearity by quadrant: extreme and where, valid range, residuals, background, turn-off",
        ),
        data.figures.make(
            "nl_curve",
            "Non-linearity against measured signal (log): curve with its 1 σ band, the exposures (orange) and groups of tiles (grey): measured over expected; the lamp's jitter, common to all, is taken off.",
            lambda f: _curve_panels(f, line, points, True, tiles),
            height=2.8,
        ),
        data.figures.make(
            "nl_curve_linear",
            "The same on a linear scale of signal.",
            lambda f: _curve_panels(f, line, points, False),
            height=2.8,
        ),
    ]
    return blocks


def raw_flux(data: ReportData) -> list:
    """Signal over exposure time, before and after the lamp's track is taken off."""
    points, shutter, lamp_ = (data.table(n) for n in ("nl_points", "shutter", "nl_lamp"))
    if points is None or shutter is None or lamp_ is None:
        return data.missing("nl_points", "shutter", "nl_lamp")
    t0 = float(shutter.floats("t0")[0])
    names = [lamp_.floats(n) for n in ("obsid", "track", "wave")]
    course = {int(o): (t, w) for o, t, w in zip(*names, strict=True)}

    def draw(ax, part):
        keep = (part.floats("exptime") > 0) & (part.floats("signal") > 300)
        signal, time = part.floats("signal")[keep], part.floats("exptime")[keep] + t0
        track, wave = np.array([course[int(o)] for o in part.floats("obsid")[keep]]).reshape(-1, 2).T
        values = []
        for slot, colour in zip(np.unique(wave), ("blue", "orange"), strict=False):
            here = wave == slot
            flux = signal[here] / time[here]
            for track_, shade in ((1.0, "#bbbbbb"), (track[here], fig.COLOURS[colour])):
                y = flux / track_
                y = 100 * (y / np.median(y) - 1)
                ax.plot(np.log10(signal[here]), y, ".", color=shade, markersize=2, markeredgewidth=0)
                values.append(y)
        return values or [np.array([np.nan])]

    entries = {
        "before": {"color": "#bbbbbb", "marker": "o", "linewidth": 0},
        "after, first filter": {"color": fig.COLOURS["blue"], "marker": "o", "linewidth": 0},
        "after, second": {"color": fig.COLOURS["orange"], "marker": "o", "linewidth": 0},
    }
    return [
        data.figures.make(
            "nl_flux",
            "Signal over true exposure time t + t₀ of each filter, over its median, before and after the lamp's slow track is taken off. "
            "What is left is non-linearity, background and jitter.",
            lambda f: curves(
                f, points, draw, "log₁₀ signal [ADU]", "F/(t + t₀) [%]", least=0.2, entries=entries
            ),
            height=2.7,
        )
    ]


def _curve_panels(figure, line, points, logarithmic: bool, tiles=None) -> None:
    def draw(ax, part):
        def scale(v):
            return np.log10(v) if logarithmic else KILO * v

        x, y, e = (part.floats(n) for n in ("signal", "nonlinearity", "nonlinearity_err"))
        ax.axhline(0, color="#bbbbbb", linewidth=0.6, zorder=0)
        if tiles is not None and len(tiles):
            own = tiles.select(ccd=part["ccd"][0], quadrant=part["quadrant"][0])
            ax.plot(scale(own.floats("signal")), own.floats("deviation"), ".", color="#555555", markersize=1.5, markeredgewidth=0, zorder=3)  # fmt: skip
        if points is not None:
            own = points.select(ccd=part["ccd"][0], quadrant=part["quadrant"][0])
            keep = own.floats("exptime") > 0
            # measured over expected is (1 + Z) times the residual
            s, z = own.floats("signal")[keep], own.floats("deviation")[keep]
            ax.plot(
                scale(s), z, ".", color=fig.COLOURS["orange"], markersize=2.5, markeredgewidth=0, zorder=4
            )
        ax.fill_between(scale(x), y - e, y + e, color=fig.COLOURS["sky"], alpha=0.5, linewidth=0)
        ax.plot(scale(x), y, color=fig.COLOURS["blue"], linewidth=0.8)
        return [y[x > 500], (y - e)[x > 500], (y + e)[x > 500]]

    label = "log₁₀ signal [ADU]" if logarithmic else "signal [kADU]"
    curves(figure, line, draw, label, "non-linearity [%]", least=0.2)


def residuals(data: ReportData) -> list:
    """Residuals against signal and time."""
    points = data.table("nl_points")
    if points is None:
        return data.missing("nl_points")

    def draw(name, scale):
        def panel(ax, part):
            keep = (part.floats("exptime") > 0) & (part.floats("signal") > 300)
            x, y = scale(part.floats(name)[keep]), part.floats("residual")[keep]
            ax.axhline(0, color="#bbbbbb", linewidth=0.6, zorder=0)
            ax.plot(x, y, ".", color=fig.COLOURS["blue"], markersize=2, markeredgewidth=0)
            return [y]

        return panel

    return [
        data.figures.make(
            "nl_residual_signal",
            "Signal after correction over the model, minus one, against signal: what the channels do not have in common.",
            lambda f: curves(
                f,
                points,
                draw("signal", np.log10),
                "log₁₀ signal [ADU]",
                "residual [%]",
                robust=1,
                least=0.01,
            ),
            height=2.6,
        ),
        data.figures.make(
            "nl_residual_time",
            "The same against time.",
            lambda f: curves(
                f,
                points,
                draw("time", lambda t: t / 60),
                "minutes since the first frame",
                "residual [%]",
                robust=1,
                least=0.01,
            ),
            height=2.6,
        ),
        *tile_residuals(data),
    ]


def tile_residuals(data: ReportData) -> list:
    """Residuals of bright and dark tiles against their own signal."""
    tiles = data.table("nl_tiles")
    if tiles is None:
        return data.missing("nl_tiles")

    def panel(ax, part):
        x, group = np.log10(np.maximum(part.floats("signal"), 1.0)), part.floats("group")
        y, e = part.floats("residual"), part.floats("residual_err")
        ax.axhline(0, color="#bbbbbb", linewidth=0.6, zorder=0)
        for keep, colour, marker in _groups(group):
            fig.points(ax, x[keep], y[keep], e[keep], fig.COLOURS[colour], marker, line=False)
        return [y[e < 0.05]]

    entries = {
        text: {"color": fig.COLOURS[colour], "marker": marker, "linewidth": 0}
        for text, (colour, marker) in zip(
            ("darkest eighth", "middle", "brightest eighth"), GROUPS, strict=True
        )
    }
    return [
        data.figures.make(
            "nl_residual_tiles",
            "Tiles against their own signal: signal after correction over illumination times model, minus one, means of the darkest, middle and brightest "
            "tiles of each level. Lamp and shutter are the same for all tiles of an exposure: a curve that is wrong between their signals sets the three apart.",
            lambda f: curves(
                f,
                tiles,
                panel,
                "log₁₀ signal of the tiles [ADU]",
                "residual [%]",
                least=0.02,
                entries=entries,
            ),
            height=2.6,
        )
    ]


GROUPS = (("blue", "o"), ("green", "D"), ("orange", "s"))


def _groups(group: np.ndarray):
    """(rows, colour, marker) of the darkest, the middle and the brightest tiles."""
    last = group.max(initial=1)
    middle = np.isin(group, (last // 2, last // 2 + 1))
    return [(keep, *look) for keep, look in zip((group == 1, middle, group == last), GROUPS, strict=True)]


def lamp(data: ReportData) -> list:
    """Track, jitter, shutter offset."""
    table, shutter = data.table("nl_lamp"), data.table("shutter")
    if table is None:
        return data.missing("nl_lamp")
    blocks = []
    if shutter is not None:
        blocks.append(
            plain_table(
                shutter,
                caption="Shutter offset (the chamber's table is one of its measurements), lamp and shutter jitter",
            )
        )
    blocks.append(
        data.figures.make(
            "nl_lamp",
            "Lamp: slow track (line), stability exposures and levels with their jitter. Bars are not shown: the scatter is the jitter.",
            lambda f: _draw_lamp(f, table),
            height=2.2,
        )
    )
    if shutter is not None:
        blocks.append(
            data.figures.make(
                "nl_shutter",
                "Shutter offset: the chamber's table, what these exposures say alone, and both together (the result), as probability densities of height 1.",
                lambda f: _draw_shutter(f, next(iter(shutter.rows()))),
                height=1.9,
            )
        )
    flux = data.table("nl_flux")
    if flux is not None:
        blocks.append(plain_table(flux, caption="Flux by quadrant and filter slot", limit=24))
    return blocks


def _draw_lamp(figure, table) -> None:
    ax = fig.panel(figure, (0.1, 0.17, 0.88, 0.68), x=True, y=True)
    time, level = table.floats("time") / 60, table.floats("level")
    lamp_, track = 100 * (table.floats("lamp") - 1), 100 * (table.floats("track") - 1)
    for keep, colour, marker in ((level == 0, "red", "s"), (level > 0, "blue", "o")):
        ax.plot(time[keep], lamp_[keep], marker, color=fig.COLOURS[colour], markeredgewidth=0)
    lit = np.isfinite(lamp_)
    order = np.argsort(time[lit])
    ax.plot(time[lit][order], track[lit][order], color="#333333", linewidth=0.8)
    fig.axis_labels(figure, "minutes since the first frame", "lamp − mean [%]")
    entries = {
        "stability": {"color": fig.COLOURS["red"], "marker": "s", "linewidth": 0},
        "levels": {"color": fig.COLOURS["blue"], "marker": "o", "linewidth": 0},
        "track": {"color": "#333333"},
    }
    fig.legend(figure, entries)


def _draw_shutter(figure, row) -> None:
    """Densities of t0 before and after the exposures are looked at."""
    t0, err, table, table_err = (row.get(n) for n in ("t0", "t0_err", "table", "table_err"))
    if t0 is None or not err:
        raise fig.NoData("no shutter offset was fitted")
    known = {"result": (t0, err, "blue")}
    if table is not None and table_err:
        known["table"] = (table, table_err, "orange")
        weight = 1 / err**2 - 1 / table_err**2  # the result holds the table as one measurement
        if weight > 0:
            alone = (t0 / err**2 - table / table_err**2) / weight
            known["exposures alone"] = (alone, weight**-0.5, "green")
    ax = fig.panel(figure, (0.1, 0.22, 0.88, 0.6), x=True, y=True)
    widest = max(e for _, e, _ in known.values())
    middle = [v for v, _, _ in known.values()]
    x = np.linspace(min(middle) - 3.5 * widest, max(middle) + 3.5 * widest, 1001)
    for value, error, colour in known.values():
        ax.plot(1e3 * x, np.exp(-0.5 * ((x - value) / error) ** 2), color=fig.COLOURS[colour])
    fig.axis_labels(figure, "true − commanded exposure time [ms]", "density")
    fig.legend(figure, {name: {"color": fig.COLOURS[c]} for name, (_, _, c) in known.items()})


def saturation(data: ReportData) -> list:
    """Parallel transfer inefficiency against signal."""
    table, summary = data.table("sat_cte"), data.table("saturation")
    if table is None or summary is None:
        return data.missing("sat_cte", "saturation")
    return [
        Text(
            "Charge found in the first parallel overscan rows, over the signal of the last image rows and the number of transfers. Near the full well it "
            "rises; the turn-off is where the variance of pairs of levels no longer follows."
        ),
        plain_table(summary, caption="Parallel transfer and full well by quadrant"),
        data.figures.make(
            "nl_sat_cte",
            "Inefficiency per parallel transfer against signal (log–log), by CCD and quadrant.",
            lambda f: _draw_cte(f, table),
            height=2.3,
        ),
    ]


def _draw_cte(figure, table) -> None:
    axes = fig.ccd_panels(figure)
    for ccd, ax in axes.items():
        for quadrant in ("E", "F", "G", "H"):
            part = table.select(ccd=ccd, quadrant=quadrant)
            x, y = part.floats("signal"), part.floats("cti")
            keep = (y > 0) & (x > 0)
            if keep.any():
                order = np.argsort(x[keep])
                ax.plot(
                    np.log10(x[keep][order]),
                    np.log10(y[keep][order]),
                    color=fig.QUADRANT_COLOURS[quadrant],
                    marker=fig.MARKERS[quadrant],
                    linewidth=0.7,
                    markeredgewidth=0,
                )
    fig.share_limits(axes)
    fig.axis_labels(figure, "log₁₀ signal [ADU]", "log₁₀ CTI per transfer")
    fig.legend(figure, quadrant_entries())
