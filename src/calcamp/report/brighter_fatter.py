"""Sections of BF01 and MOT_FF: coefficients, kernel, what the correction leaves; converter and edge of MOT_FF."""

from __future__ import annotations

import numpy as np

from calcamp.report import figures as fig
from calcamp.report.base import ReportData, Section, Text, plain_table
from calcamp.report.lit import Rows, channel_table, curves, scaled
from calcamp.report.ptc import covariances, curve, hard_edge

KILO = 1e-3


def sections(data: ReportData) -> list[Section]:
    """The family's sections, in order."""
    made = [
        Section(
            "Brighter-fatter effect",
            [],
            "bf",
            [
                Section("Coefficients", coefficients(data), "bf-coefficients"),
                Section("Variance and model", curve(data), "bf-curve"),
                Section("Covariances of neighbours", covariances(data), "bf-covariances"),
                Section("Kernel", kernel(data), "bf-kernel"),
                Section("Width of a pixel", width(data), "bf-width"),
            ],
        ),
    ]
    if data.test.startswith("MOT_FF"):
        return [
            *made,
            Section("Converter", converter(data), "adc"),
            Section("Hard-edge response", hard_edge(data), "her"),
        ]
    return [*made, Section("Correction", correction(data), "bf-correction")]


def converter(data: ReportData) -> list:
    """Code density: numbers by channel, mean deviation by bit."""
    table, bits = data.table("adc"), data.table("adc_bits")
    if table is None or bits is None:
        return data.missing("adc", "adc_bits")
    columns = [
        ("dnl_rms", "rms DNL [LSB]", "err"),
        ("dnl_worst", "worst [LSB]", 3),
        ("worst_code", "at code", 5),
        ("worst_significance", "its significance [σ]", 3),
        ("missing_codes", "missing codes", 3),
        ("n", "codes tested", 6),
    ]

    def draw(ax, part):
        y, e = part.floats("dnl"), part.floats("dnl_err")
        ax.axhline(0, color="#bbbbbb", linewidth=0.6, zorder=0)
        fig.points(ax, part.floats("bit"), y, e, fig.COLOURS["blue"], line=False)
        return [y[e < 0.1]]

    return [
        Text(
            "Differential non-linearity (DNL): pixels of each code, all flats together, over what 32 codes to either side lead to expect, minus one. Only codes "
            "that light fills well are tested. A bit of wrong weight shows where it comes on."
        ),
        channel_table(table, columns, "Code density of the converters", "tables/adc.ecsv"),
        data.figures.make(
            "adc_bits",
            "Mean DNL of the codes at which a bit comes on (0 the least), with 1 σ errors.",
            lambda f: curves(f, bits, draw, "bit", "DNL [LSB]", least=0.02),
            height=2.4,
        ),
    ]


def coefficients(data: ReportData) -> list:
    """a by channel, ratio, trend."""
    table = data.table("bf")
    if table is None:
        return data.missing("bf")
    rows = scaled(table, ("a00", "a01", "a10", "a11", "sum_a"), 1e7)
    columns = [
        ("a00", "a₀₀", "err"),
        ("a01", "a₀₁ parallel", "err"),
        ("a10", "a₁₀ serial", "err"),
        ("a11", "a₁₁", "err"),
        ("sum_a", "Σ a", "err"),
        ("ratio", "a₀₁/a₁₀", "err"),
        ("trend", "trend [%/10 ke⁻]", "err"),
        ("far_lags_rms", "rms a/σ, lags ≥ 5", 3),
    ]
    return [
        Text(
            "Coefficients of the covariance model of Astier et al. 2019 (Eq. 20), fitted to all levels together. The trend is what the covariance with the parallel "
            "neighbour changes with the signal beyond the model: compatible with 0 where one set of coefficients holds for all levels."
        ),
        channel_table(
            Rows(rows),
            columns,
            "Coefficients [10⁻⁷/e⁻], ratio of the axes, dependence on signal",
            "tables/bf.ecsv",
        ),
    ]


def kernel(data: ReportData) -> list:
    """Boundary shifts against distance."""
    table = data.table("bf_kernel")
    if table is None:
        return data.missing("bf_kernel")

    def draw(ax, part):
        values = []
        for name, colour, marker in (("serial", "orange", "s"), ("parallel", "blue", "o")):
            lag, d, v, e = (part.floats(n) for n in ("lag", "distance", name, f"{name}_err"))
            r = np.hypot(lag, d - 0.5)
            keep = v > 2 * e
            ax.plot(r[keep], np.log10(v[keep]), marker, color=fig.COLOURS[colour], markeredgewidth=0)
            values.append(np.log10(v[keep]))
        return values

    entries = {
        n: {"color": fig.COLOURS[c], "marker": m, "linewidth": 0}
        for n, c, m in (("serial boundary", "orange", "s"), ("parallel boundary", "blue", "o"))
    }
    model = data.table("covariance_model")
    images = []
    if model is not None and len(model):
        images = [
            data.figures.make(
                "bf_image",
                "Coefficients |a| by lag, log₁₀ from 10⁻⁹·⁵ (dark) to 10⁻⁶ per electron (bright).",
                lambda f: curves(f, model, _images, "serial lag", "parallel lag"),
                height=2.7,
            )
        ]
    return [
        *images,
        data.figures.make(
            "bf_kernel",
            "Shift of pixel boundaries per electron against the distance of the charge, log scale, where it exceeds two errors. The serial boundary is that towards the next column.",
            lambda f: curves(f, table, draw, "distance [px]", "log₁₀ shift [px/e⁻]", entries=entries),
            height=2.7,
        ),
        data.figures.make(
            "bf_boundaries",
            f"Boundaries of pixels about a Gaussian spot (grey; σ {SPOT_SIGMA} px, peak {SPOT_PEAK / 1e3:.0f} ke⁻) when it is complete, shifts "
            f"enlarged {EXAGGERATION} times.",
            lambda f: curves(f, table, _boundaries, "serial [px]", "parallel [px]"),
            height=3.0,
        ),
    ]


SPOT_SIGMA, SPOT_PEAK, EXAGGERATION = 1.6, 150e3, 20  # px, e-, of the drawing


def _boundaries(ax, part):
    """Boundaries of pixels about a bright spot, their shifts enlarged."""
    from matplotlib.collections import LineCollection

    from calcamp.analysis.brighter_fatter import Corrector, Kernel

    size = 15
    x = np.arange(size) - size // 2
    spot = SPOT_PEAK * np.exp(-0.5 * (x[:, None] ** 2 + x[None, :] ** 2) / SPOT_SIGMA**2)
    corrector = Corrector(Kernel.from_rows(list(part.rows())), spot.shape)
    serial, parallel = (2 * EXAGGERATION * s for s in corrector.shifts(spot.astype(np.float32)))
    lines = [
        [(x[j] + 0.5 + serial[i, j], x[i] - 0.5), (x[j] + 0.5 + serial[i, j], x[i] + 0.5)]
        for i in range(size)
        for j in range(size - 1)
    ]
    lines += [
        [(x[j] - 0.5, x[i] + 0.5 + parallel[i, j]), (x[j] + 0.5, x[i] + 0.5 + parallel[i, j])]
        for i in range(size - 1)
        for j in range(size)
    ]
    ax.imshow(
        spot,
        origin="lower",
        extent=(x[0] - 0.5, x[-1] + 0.5) * 2,
        cmap="Greys",
        vmax=2 * SPOT_PEAK,
        aspect="auto",
    )
    ax.add_collection(LineCollection(lines, colors=fig.COLOURS["blue"], linewidths=0.5))
    ax.set_xlim(-4.5, 4.5)
    return [np.array([-4.0, 4.0])]


def _images(ax, part):
    """a by lag as an image, colours of its logarithm."""
    i, j, a = part["lag_parallel"].astype(int), part["lag_serial"].astype(int), part.floats("a")
    grid = np.full((i.max() + 1, j.max() + 1), np.nan)
    grid[i, j] = np.log10(np.maximum(np.abs(a), 1e-10))
    ax.imshow(grid, origin="lower", cmap="cividis", vmin=-9.5, vmax=-6.0, aspect="auto")
    return [np.array([-0.5, i.max() + 0.5])]


def width(data: ReportData) -> list:
    """FWHM of a single pixel against its signal, lines of the literature."""
    from calcamp.analysis.brighter_fatter import niemi
    from calcamp.campaign.core import find_test

    table = data.table("bf_width")
    if table is None:
        return data.missing("bf_width")
    nm = find_test(data.test.split(".")[0]).wavelength

    def draw(ax, part):
        x, values = KILO * part.floats("signal"), []
        for k, (axis, colour, marker) in enumerate((("x", "orange", "s"), ("y", "blue", "o"))):
            y = part.floats(f"fwhm_{axis}")
            fig.points(ax, x, y, part.floats(f"fwhm_{axis}_err"), fig.COLOURS[colour], marker)
            values.append(y)
            if nm:
                ax.axhline(niemi(nm)[k], color=fig.COLOURS[colour], linewidth=0.6, linestyle=":")
        return values

    entries = {
        "serial": {"color": fig.COLOURS["orange"], "marker": "s"},
        "parallel": {"color": fig.COLOURS["blue"], "marker": "o"},
        "Niemi et al. 2015": {"color": "#555555", "linestyle": ":"},
    }
    found = data.table("bf")
    columns = [
        ("fwhm_x", "FWHM x [µm]", "err"),
        ("fwhm_y", "FWHM y [µm]", "err"),
        ("fwhm_x_slope", "slope x [µm/10 kADU]", "err"),
        ("fwhm_y_slope", "slope y", "err"),
        ("ellipticity", "ellipticity", 3),
    ]
    return [
        Text(
            "FWHM that a single bright pixel gets from the shifts of its own boundaries, as the predecessor quotes it. "
            "It compares detectors; the width of spots is measured by the point-source tests."
        ),
        *(
            []
            if found is None
            else [channel_table(found, columns, "FWHM at 32 768 ADU and its change", "tables/bf.ecsv")]
        ),
        data.figures.make(
            "bf_width",
            "FWHM of a single pixel against its signal; dotted, what Niemi et al. 2015 give for the wavelength.",
            lambda f: curves(f, table, draw, "signal [kADU]", "FWHM [µm]", least=0.5, entries=entries),
            height=2.7,
        ),
    ]


def correction(data: ReportData) -> list:
    """Correlations before and after."""
    table = data.table("bf_check")
    if table is None:
        return data.missing("bf_check")

    def draw(factor, looks):
        def panel(ax, part):
            order = np.argsort(part.floats("signal"))
            x, values = KILO * part.floats("signal")[order], []
            for name, colour, marker in looks:
                y, e = (factor * part.floats(f"{name}{end}")[order] for end in ("", "_err"))
                fig.points(ax, x, y, e, fig.COLOURS[colour], marker)
                values.append(y)
            ax.axhline(1.0 if factor == 1.0 else 0.0, color="#bbbbbb", linewidth=0.6, zorder=0)
            return values

        return panel

    variance = (("v_over_mu", "red", "s"), ("v_over_mu_after", "blue", "o"))
    neighbours = (
        ("rho01", "red", "s"),
        ("rho10", "orange", "D"),
        ("rho01_after", "blue", "o"),
        ("rho10_after", "sky", "v"),
    )
    entries = {
        "before": {"color": fig.COLOURS["red"], "marker": "s"},
        "after": {"color": fig.COLOURS["blue"], "marker": "o"},
    }
    names = ("parallel before", "serial before", "parallel after", "serial after")
    both = {
        text: {"color": fig.COLOURS[colour], "marker": marker}
        for text, (_, colour, marker) in zip(names, neighbours, strict=True)
    }
    return [
        Text(
            "Pairs of flats are corrected with the kernel of their own channel (iterated, charge kept), and their covariances measured again. After a perfect correction the "
            "correlations are 0 and variance × gain over signal is 1."
        ),
        data.figures.make(
            "bf_rho01",
            "Correlation with the neighbours (C/C₀₀) before and after the correction.",
            lambda f: curves(
                f, table, draw(1e3, neighbours), "signal [kADU]", "correlation [10⁻³]", entries=both
            ),
            height=2.6,
        ),
        data.figures.make(
            "bf_variance",
            "Variance × gain over signal, read noise taken off, before and after.",
            lambda f: curves(f, table, draw(1.0, variance), "signal [kADU]", "V g / signal", entries=entries),
            height=2.6,
        ),
        plain_table(
            table,
            [
                "column",
                "ccd",
                "quadrant",
                "signal",
                "v_over_mu",
                "v_over_mu_err",
                "v_over_mu_after",
                "v_over_mu_after_err",
                "rho01",
                "rho01_err",
                "rho01_after",
                "rho01_after_err",
                "rho10_after",
                "rho10_after_err",
                "charge_kept",
            ],
            "Pairs corrected",
            48,
        ),
    ]
