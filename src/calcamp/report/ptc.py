"""Sections of PTC01 and PTC02: gain and full well, the curve and its model, covariances, tiles, hard edge."""

from __future__ import annotations

import numpy as np

from calcamp.report import figures as fig
from calcamp.report.base import Note, ReportData, Section, Text, beam_values
from calcamp.report.lit import Rows, channel_table, curves, scaled, tile_map, truth

KILO = 1e-3


def sections(data: ReportData) -> list[Section]:
    """The family's sections, in order."""
    return [
        Section(
            "Photon transfer curve",
            [],
            "ptc",
            [
                Section("Gain, full well and noise", gain(data), "ptc-gain"),
                Section("The curve and its model", curve(data), "ptc-curve"),
                Section("Covariances of neighbours", covariances(data), "ptc-covariances"),
                Section("Gain over the CCDs", tiles(data), "ptc-tiles"),
            ],
        ),
        Section("Hard-edge response", hard_edge(data), "her"),
    ]


def gain(data: ReportData) -> list:
    """Tables of the fits."""
    table = data.table("ptc")
    if table is None:
        return data.missing("ptc")
    blocks: list = [
        Text(
            "Gain is that of the covariance model of Astier et al. 2019 (A&A 629, A36, Eq. 20), fitted to all covariances of "
            "pairs of flats to 8 × 8 lags below the turn-off. A parabola, as fitted by the predecessor, stands beside it: it is "
            "biased. Full well is the signal at which the variance no longer follows (turn-off) times gain; where it was "
            "not reached (>) the brightest good level is given."
        ),
        beam_values(table, "gain", "Gain [e⁻/ADU]"),
        *_linearity(table),
        channel_table(
            table,
            [
                ("gain", "Gain", "err"),
                ("gain_err_linearity", "σ of linearity", 2),
                ("gain_free_noise", "noise free", "err"),
                ("gain_eq16", "Eq. 16", "err"),
                ("gain_quadratic", "parabola", "err"),
                ("read_noise", "Noise of curve [ADU]", "upper"),
                ("overscan_noise", "of scans [ADU]", "err"),
                ("chi2_variance", "χ²/dof var.", 3),
                ("chi2_dof", "all lags", 4),
                ("n", "Pairs", 3),
            ],
            "Gain [e⁻/ADU] by model, noise at zero signal, quality of the fit",
            "tables/ptc.ecsv",
        ),
    ]
    rows = scaled(table, ("turn_off", "full_well", "bloom_level_vison"), KILO)
    for row in rows:
        row["full_well_is_limit"] = row["turn_off_is_limit"]
        row["bloom_level_vison_is_limit"] = row.get("bloom_is_limit")
    columns = [
        ("turn_off", "Turn-off [kADU]", "limit"),
        ("full_well", "Full well [ke⁻]", "limit"),
        ("bloom_level_vison", "Bloom level, old rule [kADU]", "limit"),
    ]
    blocks.append(channel_table(Rows(rows), columns, "Turn-off and full well", "tables/ptc.ecsv"))
    rows = scaled(table, ("a00", "a01", "a10", "a11", "b00", "sum_a"), 1e7)
    columns = [
        ("a00", "a₀₀", "err"),
        ("a01", "a₀₁ parallel", "err"),
        ("a10", "a₁₀ serial", "err"),
        ("a11", "a₁₁", "err"),
        ("sum_a", "Σ a", "err"),
        ("far_lags_rms", "rms of a/σ, lags ≥ 5", 3),
        ("b_improvement", "Δχ² of b", 3),
    ]
    blocks.append(
        channel_table(
            Rows(rows),
            columns,
            "Coefficients of the brighter-fatter effect [10⁻⁷/e⁻]; charge is conserved when Σ a = 0",
            "tables/ptc.ecsv",
        )
    )
    return blocks


def _linearity(table) -> list:
    """What the linearity product adds to the errors, in words."""
    part = table.floats("gain_err_linearity")
    if not np.any(part > 0):
        text = "No linearity product with errors was used: the gain is the slope of the scale as it was measured."
        return [Text(text)]
    share, gain = np.nanmedian(part), np.nanmedian(table.floats("gain"))
    whole = np.nanmedian(table.floats("gain_err"))
    return [
        Text(
            f"Pixels were made linear by a product whose own error is in every error here: of the {100 * whole / gain:.3f} % of "
            f"a gain (median), it makes {100 * share / gain:.3f} %. It is common to the pairs, and largely to the channels."
        )
    ]


def curve(data: ReportData) -> list:
    """V/mu with model, residuals, normality."""
    table = data.table("ptc_curve")
    if table is None:
        return data.missing("ptc_curve")
    ptc = data.table("ptc")
    entries = {
        "used": {"color": fig.COLOURS["blue"], "marker": "o", "linewidth": 0},
        "not used": {"color": fig.COLOURS["red"], "marker": "s", "linewidth": 0},
        "model": {"color": "#333333"},
    }
    return [
        data.figures.make(
            "ptc_curve",
            "Variance over signal against signal, with the model. Without the brighter-fatter effect it would be flat at 1/gain. "
            "The dashed line is the turn-off.",
            lambda f: curves(
                f,
                table,
                lambda ax, p: _ratio(ax, p, ptc),
                "signal [kADU]",
                "variance / signal [ADU]",
                entries=entries,
            ),
            height=2.8,
        ),
        data.figures.make(
            "ptc_residuals",
            "Variance over model minus one, of the levels used. Bars are 1 σ errors. A non-linear response bends this curve.",
            lambda f: curves(f, table, _residual, "signal [kADU]", "variance / model − 1 [%]", least=0.2),
            height=2.6,
        ),
        data.figures.make(
            "ptc_normality",
            "Probability that the difference of a pair is normal (Kolmogorov–Smirnov, 10 000 px), median over the pairs of a level. "
            "Above the full well it falls.",
            lambda f: curves(f, table, _normality, "signal [kADU]", "log₁₀ p", least=2.0),
            height=2.4,
        ),
    ]


def _used(part) -> np.ndarray:
    return np.array([truth(v) for v in part["used"].tolist()])


def _ratio(ax, part, ptc):
    mu, v, e, model = (part.floats(n) for n in ("mu", "variance", "variance_err", "variance_model"))
    used, order = _used(part), np.argsort(mu)
    for keep, colour, marker in ((used, "blue", "o"), (~used, "red", "s")):
        fig.points(
            ax,
            KILO * mu[keep],
            v[keep] / mu[keep],
            e[keep] / mu[keep],
            fig.COLOURS[colour],
            marker,
            line=False,
        )
    ax.plot(KILO * mu[order], (model / mu)[order], color="#333333", linewidth=0.7)
    if ptc is not None:
        here = ptc.select(ccd=part["ccd"][0], quadrant=part["quadrant"][0])
        off = here.floats("turn_off")
        if len(off) and np.isfinite(off[0]) and not truth(here["turn_off_is_limit"].tolist()[0]):
            ax.axvline(KILO * off[0], **fig.LIMIT)
    return [(v / mu)[used], (model / mu)[used]]


def _residual(ax, part):
    used = _used(part)
    mu, v, e, model = (part.floats(n)[used] for n in ("mu", "variance", "variance_err", "variance_model"))
    ax.axhline(0, color="#bbbbbb", linewidth=0.6, zorder=0)
    fig.points(ax, KILO * mu, 100 * (v / model - 1), 100 * e / model, fig.COLOURS["blue"])
    return [100 * (v / model - 1)]


def _normality(ax, part):
    mu, p = part.floats("mu"), np.log10(np.maximum(part.floats("ks_p"), 1e-12))
    fig.points(ax, KILO * mu, p, None, fig.COLOURS["blue"])
    ax.axhline(-2, **fig.LIMIT)
    return [p]


NEIGHBOURS = (
    ("c_parallel", "parallel", "blue", "o"),
    ("c_serial", "serial", "orange", "s"),
    ("c_diagonal", "diagonal", "green", "D"),
)


def covariances(data: ReportData) -> list:
    """C/mu² of the neighbours against the signal."""
    table = data.table("ptc_curve")
    if table is None:
        return data.missing("ptc_curve")
    entries = {text: {"color": fig.COLOURS[c], "marker": m} for _, text, c, m in NEIGHBOURS}
    blocks = [
        data.figures.make(
            "ptc_neighbours",
            "Covariance with the next pixel over the square of the signal, with the model (lines), levels used. To first order "
            "this is the coefficient a; noise common to neighbours shows as a rise at low signal.",
            lambda f: curves(
                f, table, _neighbours, "signal [kADU]", "C / signal² [10⁻⁷ /e⁻]", entries=entries
            ),
            height=2.8,
        )
    ]
    model = data.table("covariance_model")
    if model is None:
        return [*blocks, *data.missing("covariance_model")]
    blocks.append(
        data.figures.make(
            "ptc_coefficients",
            "Coefficients |a| against distance, log scale; negative ones and a₀₀ are open. The line is the power law through those above "
            "four errors; lags without an effect scatter at the level of their errors.",
            lambda f: curves(f, model, _distance, "distance [px]", "log₁₀ |a| [1/e⁻]"),
            height=2.6,
        )
    )
    return blocks


def _neighbours(ax, part):
    used = _used(part)
    mu, values = part.floats("mu")[used], []
    order = np.argsort(mu)
    for name, _, colour, marker in NEIGHBOURS:
        c, e, m = (1e7 * part.floats(f"{name}{end}")[used] / mu**2 for end in ("", "_err", "_model"))
        fig.points(ax, KILO * mu, c, e, fig.COLOURS[colour], marker, line=False)
        ax.plot(KILO * mu[order], m[order], color=fig.COLOURS[colour], linewidth=0.7)
        good = e < 0.3 * np.nanmax(np.abs(m)) if np.isfinite(m).any() else np.zeros(len(c), bool)
        values += [c[good], m]
    return values


def _distance(ax, part):
    i, j, a, e = (part.floats(n) for n in ("lag_parallel", "lag_serial", "a", "a_err"))
    r, y = np.hypot(i, j), np.log10(np.maximum(np.abs(a), 1e-12))
    firm = (a > 2 * e) & (r > 0)
    ax.plot(r[firm], y[firm], "o", color=fig.COLOURS["blue"], markeredgewidth=0)
    ax.plot(
        r[~firm],
        y[~firm],
        "o",
        color="#999999",
        markerfacecolor="none",
        markeredgewidth=0.5,
    )
    sure = (a > 4 * e) & (r > 0)
    if sure.sum() >= 3:
        law = np.polyfit(np.log10(r[sure]), y[sure], 1, w=(a / e)[sure])
        reach = np.linspace(1.0, r[sure].max(), 50)
        ax.plot(reach, np.polyval(law, np.log10(reach)), color="#333333", linewidth=0.7)
    return [y]


def tiles(data: ReportData) -> list:
    """Gain in tiles."""
    table = data.table("ptc_tiles")
    if table is None:
        return data.missing("ptc_tiles")
    errors = 100 * np.nanmedian(table.floats("gain_err") / table.floats("gain"))
    return [
        data.figures.make(
            "ptc_tiles",
            f"Gain of tiles relative to the mean of their quadrant, quadrants as seen. The median error of a tile is {errors:.2f} %.",
            lambda f: tile_map(f, table, "gain", "gain − mean", "%", relative=True),
            height=2.6,
        ),
        data.figures.make(
            "ptc_turn_off",
            "Turn-off of tiles, each with its neighbours; where it was not reached, the brightest level of the tile.",
            lambda f: tile_map(f, table, "turn_off", "turn-off", "ADU", (0, 100)),
            height=2.6,
        ),
    ]


def hard_edge(data: ReportData) -> list:
    """Response behind the edges of the image."""
    table = data.table("her")
    if table is None:
        return data.missing("her")
    rows = [row for row in scaled(table, ("her", "linear"), 1e4) if row.get("edge") == "serial"]
    columns = [
        ("her", "Response [10⁻⁴]", "err"),
        ("linear", "linear part [10⁻⁴]", "err"),
        ("deferred", "deferred [ADU]", "err"),
        ("deferred_scale", "scale [ADU]", 3),
        ("significance", "deferred [σ]", 3),
        ("chi2_dof", "χ²/dof", 3),
    ]
    blocks: list = [
        Text(
            "Level of the first overscan pixel over the step at the end of the image, at a step of half FDR. The part in "
            "proportion to the step is the electronics'; the part that saturates with the signal is charge that comes late."
        ),
        channel_table(Rows(rows), columns, "Hard-edge response, serial edge", "tables/her.ecsv"),
    ]
    profiles = data.table("edge_profiles")
    if profiles is None:
        return [*blocks, *data.missing("edge_profiles")]
    serial = profiles.select(edge="serial")
    if not len(serial):
        return [*blocks, Note("No profile behind the serial edge.", "missing")]
    blocks.append(
        data.figures.make(
            "ptc_her",
            "Response behind the serial edge over the step, first eight overscan pixels, one line per level (brighter levels darker).",
            lambda f: curves(
                f, serial, _edge_profile, "overscan pixel", "response [10⁻⁴ of the step]", least=1.0
            ),
            height=2.6,
        )
    )
    return blocks


def _edge_profile(ax, part):
    signal, values = part.floats("signal"), []
    levels = [s for s in np.unique(signal) if 1000 < s < 0.75 * 65536]
    for k, level in enumerate(levels):
        here = signal == level
        pixel, y = part.floats("pixel")[here], 1e4 * part.floats("response")[here] / level
        keep = pixel <= 8
        shade = 0.75 - 0.65 * k / max(len(levels) - 1, 1)
        ax.plot(
            pixel[keep],
            y[keep],
            color=(shade * 0.6, shade * 0.8, 1 - 0.4 * (1 - shade)),
            marker=".",
            markersize=2,
        )
        values.append(y[keep])
    return values or [np.array([np.nan])]
