"""Figures of a report: one style, the beam layout, and a book that never lets a figure stop the report.

Only ``matplotlib.figure.Figure`` with the Agg canvas is used, never pyplot: no global state, no
display. A page costs little because figures have many light panels: inner panels draw no tick
labels, and files are palette PNG of 120 dpi.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from calcamp.detector.geometry import CCDS, QUADRANTS
from calcamp.report.base import BEAM, Figure, power_of_ten

DPI = 120
WIDTH = 7.1  # inches: the text width of an A4 page
#: Okabe and Ito's colours: told apart by colour-blind readers and in grey.
COLOURS = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "red": "#D55E00",
    "sky": "#56B4E9",
    "black": "#222222",
}
QUADRANT_COLOURS = dict(
    zip(QUADRANTS, (COLOURS[c] for c in ("blue", "orange", "green", "purple")), strict=True)
)
REGION_COLOURS = {
    "pre": COLOURS["blue"],
    "img": COLOURS["orange"],
    "ove": COLOURS["green"],
    "pov": COLOURS["purple"],
}
MARKERS = {"E": "o", "F": "s", "G": "^", "H": "D", "pre": "o", "img": "s", "ove": "^", "pov": "D"}
LIMIT = {"color": COLOURS["red"], "linestyle": "--", "linewidth": 0.8, "zorder": 1}

_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "axes.linewidth": 0.6,
    "axes.edgecolor": "#555555",
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-4, 6),
    "xtick.labelsize": 6,
    "ytick.labelsize": 6,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.major.width": 0.5,
    "ytick.major.width": 0.5,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "lines.linewidth": 0.9,
    "lines.markersize": 2.8,
    "path.simplify": True,
    "path.simplify_threshold": 0.5,
    "agg.path.chunksize": 20000,
}


class FigureBook:
    """Makes figures into ``<folder>/figures``; one that cannot be made is a `Figure` with its reason.

    With `later`, `make` only notes what to draw and leaves an empty image of the right size, so that the page
    can be laid out meanwhile; `draw` then draws all.
    """

    def __init__(self, folder: Path, dpi: int = DPI, later: bool = False):
        self.folder = Path(folder)
        self.dpi = dpi
        self.later = later
        self.made: list[str] = []
        self.failed: list[tuple[str, str]] = []
        self._waiting: list[tuple[str, Figure, Callable, float]] = []

    def make(
        self,
        name: str,
        caption: str,
        draw: Callable,
        height: float = 2.8,
        alt: str = "",
        width: float = 100.0,
    ) -> Figure:
        """One figure: `draw(figure)` gets an empty figure of the page's width and `height` inches."""
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
        figure = Figure(f"figures/{name}.png", caption, alt or caption, width)
        if self.later:
            self._leave_empty(name, width, height)
            self._waiting.append((name, figure, draw, height))
        else:
            self._draw(name, figure, draw, height)
        return figure

    def draw(self) -> bool:
        """Draw what waits. True when a figure failed: the page must be laid out anew."""
        waiting, self._waiting = self._waiting, []
        failed = len(self.failed)
        for item in waiting:
            self._draw(*item)
        return len(self.failed) > failed

    def _draw(self, name: str, figure: Figure, draw: Callable, height: float) -> None:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure as Canvas

        try:
            with matplotlib.rc_context(_STYLE):
                page = Canvas(figsize=self._size(figure.width, height), dpi=self.dpi)
                canvas = FigureCanvasAgg(page)
                draw(page)
                draw_frames(page)
                canvas.draw()
                self._save(canvas, name)
        except Exception as error:  # whatever the data are, the report goes on
            figure.reason = str(error) if isinstance(error, NoData) else f"{type(error).__name__}: {error}"
            self.failed.append((name, figure.reason))
            (self.folder / figure.file).unlink(missing_ok=True)
        else:
            self.made.append(name)

    @staticmethod
    def _size(width: float, height: float) -> tuple[float, float]:
        return WIDTH * width / 100, height

    def _leave_empty(self, name: str, width: float, height: float) -> None:
        from PIL import Image

        pixels = tuple(int(inches * self.dpi) for inches in self._size(width, height))
        self._write(Image.new("RGB", pixels, "white"), name, compress_level=1)

    def _save(self, canvas, name: str) -> None:
        from PIL import Image

        # Few colours, yet an RGB file: the PDF takes it as it is, a palette it would encode anew.
        pixels = np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])
        image = Image.fromarray(pixels).quantize(
            128, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE
        )
        self._write(image.convert("RGB"), name, compress_level=3)

    def _write(self, image, name: str, compress_level: int) -> None:
        folder = self.folder / "figures"
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{name}.png.part"
        image.save(part, format="PNG", compress_level=compress_level, dpi=(self.dpi, self.dpi))
        part.replace(folder / f"{name}.png")


class NoData(Exception):
    """There is nothing to draw; the text says what is missing."""


# ---- panels ---------------------------------------------------------------------------------------------
def beam_panels(figure, left=0.075, right=0.99, bottom=0.13, top=0.85, gap=0.022, share=True) -> dict:
    """2 x 6 panels as the beam sees the block: CCD1..3 left to right, E F above H G.

    Returns {(ccd, quadrant): axes}. Only outer panels carry tick labels; a share of limits is set at
    the end by `share_limits`.
    """
    width = (right - left - 2 * gap) / 6
    inner = 0.006
    height = (top - bottom - 0.03) / 2
    axes = {}
    for c, ccd in enumerate(CCDS):
        x0 = left + c * (2 * width + gap)
        for r, row in enumerate(BEAM):
            for q, quadrant in enumerate(row):
                rect = (x0 + q * width + inner / 2, top - (r + 1) * height - r * 0.03, width - inner, height)
                ax = panel(figure, rect, x=r == 1 or not share, y=(c == 0 and q == 0) or not share)
                ax.text(0.04, 0.95, quadrant, transform=ax.transAxes, va="top", weight="bold", fontsize=7.5)
                axes[ccd, quadrant] = ax
        figure.text(x0 + width, top + 0.015, f"CCD{ccd}", ha="center", va="bottom", weight="bold", fontsize=8)
    return axes


def ccd_panels(
    figure, left=0.085, right=0.99, bottom=0.17, top=0.8, gap=0.03, lowest=True, titles=True
) -> dict:
    """Three panels, one per CCD, tick labels on the left one only; `lowest` rows label their x axis."""
    width = (right - left - 2 * gap) / 3
    axes = {}
    for c, ccd in enumerate(CCDS):
        ax = panel(figure, (left + c * (width + gap), bottom, width, top - bottom), x=lowest, y=c == 0)
        if titles:
            panel_title(ax, f"CCD{ccd}", weight="bold")
        axes[ccd] = ax
    return axes


def panel_title(ax, text: str, **style) -> None:
    """A title above a panel as plain text: matplotlib's own titles look for ticks to avoid."""
    x0, _, x1, y1 = ax.get_position().extents
    gap = 0.03 / ax.figure.get_size_inches()[1]
    ax.figure.text((x0 + x1) / 2, y1 + gap, text, ha="center", va="bottom", **{"fontsize": 7, **style})


def panel(figure, rect, x: bool, y: bool):
    """A light panel: `draw_frames` gives it a frame, tick marks, and tick labels where asked.

    Ticks and spines are most of what axes cost (7 ms a panel against 2 ms), and a report has a hundred.
    """
    ax = figure.add_axes(rect, axes_class=_light_axes())
    ax.set_axis_off()
    panels = getattr(figure, "calcamp_panels", [])
    panels.append((ax, x, y))
    figure.calcamp_panels = panels
    return ax


@lru_cache(maxsize=1)
def _light_axes() -> type:
    """Axes that never make ticks, grids or spines of their own."""
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import XAxis, YAxis

    class NoTicks:
        def set_tick_params(self, *_args, **_options):
            """There are no ticks to set."""

        def set_clip_path(self, path, transform=None):
            Artist.set_clip_path(self, path, transform)

    class LightX(NoTicks, XAxis):
        pass

    class LightY(NoTicks, YAxis):
        pass

    class LightAxes(Axes):
        def _init_axis(self):
            self.xaxis, self.yaxis = LightX(self, clear=False), LightY(self, clear=False)

        def _gen_axes_spines(self):
            return {}

        def grid(self, *_args, **_options):
            """There is no grid."""

    return LightAxes


def draw_frames(figure) -> None:
    """Frames, tick marks and tick labels of the light panels: one line collection, and texts."""
    from matplotlib.collections import LineCollection

    frames, marks = [], []
    width, height = figure.get_size_inches()
    for ax, show_x, show_y in getattr(figure, "calcamp_panels", []):
        x0, y0, x1, y1 = ax.get_position().extents
        frames.append([(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)])
        for at, text in ticks(ax.get_xlim(), ax.get_xscale(), getattr(ax, "calcamp_names", None), 3):
            x = x0 + at * (x1 - x0)
            marks.append([(x, y0), (x, y0 + 0.035 / height)])
            if show_x and at < 0.94:  # a label at the edge would run into the next panel's
                figure.text(x, y0 - 0.03 / height, text, ha="center", va="top", fontsize=6)
        for at, text in ticks(ax.get_ylim(), ax.get_yscale(), None, 3):
            y = y0 + at * (y1 - y0)
            marks.append([(x0, y), (x0 + 0.035 / width, y)])
            if show_y:
                figure.text(x0 - 0.03 / width, y, text, ha="right", va="center_baseline", fontsize=6)
    for lines, size in ((frames, 0.6), (marks, 0.5)):
        figure.add_artist(
            LineCollection(lines, colors="#555555", linewidths=size, transform=figure.transFigure)
        )


def name_ticks(ax, names) -> None:
    """Names at 0, 1, 2 … along x of a light panel."""
    ax.calcamp_names = dict(enumerate(names))


def ticks(span_: tuple[float, float], scale: str, names: dict | None, most: int) -> list[tuple[float, str]]:
    """(position as a fraction of the axis, text) of ticks inside a span."""
    low, high = span_
    if scale == "log":
        low, high = np.log10(low), np.log10(high)
        values = np.arange(np.ceil(low), np.floor(high) + 1)
        values = values[:: max(1, -(-len(values) // 5))]
        # Not the $10^4$ of matplotlib: one such text costs a tenth of a second.
        texts = [power_of_ten(round(v)) if not -3 < v < 4 else f"{10**v:g}" for v in values]
    elif names is not None:
        values, texts = np.array(list(names), dtype=float), [str(name) for name in names.values()]
    else:
        from matplotlib.ticker import MaxNLocator

        values = MaxNLocator(most + 1, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
        inside = (values >= low - 1e-9 * (high - low)) & (values <= high + 1e-9 * (high - low))
        values = values[inside]
        step = values[1] - values[0] if len(values) > 1 else 1.0
        decimals = min(10, max(0, -int(np.floor(np.log10(step) + 1e-9)) + (1 if _needs_half(step) else 0)))
        large = len(values) and max(abs(values)) >= 1e5
        texts = [
            f"{v:.1e}" if large else f"{v + 0.0:.{decimals}f}"
            for v in np.where(abs(values) < 1e-12, 0, values)
        ]
    return [((v - low) / (high - low), t) for v, t in zip(values, texts, strict=True)] if high > low else []


def _needs_half(step: float) -> bool:
    """Whether a step such as 0.25 or 2.5 needs one decimal more than its size says."""
    mantissa = step / 10 ** np.floor(np.log10(step) + 1e-9)
    return abs(mantissa - 2.5) < 0.01


def share_limits(axes: dict, x: bool = True, y: bool = True, least_y: float = 0.0) -> None:
    """Give all panels the union of their limits; `least_y` is the smallest height that makes sense."""
    panels = list(axes.values())
    if x:
        low, high = zip(*(ax.get_xlim() for ax in panels), strict=True)
        for ax in panels:
            ax.set_xlim(min(low), max(high))
    if y:
        low, high = zip(*(ax.get_ylim() for ax in panels), strict=True)
        bottom, top = min(low), max(high)
        if top - bottom < least_y:
            middle = (top + bottom) / 2
            bottom, top = middle - least_y / 2, middle + least_y / 2
        for ax in panels:
            ax.set_ylim(bottom, top)


def draw_counts(ax, centres: np.ndarray, counts: np.ndarray, width: float, colour: str) -> None:
    """A histogram of bins of `width` as an outline; bins that are not given are empty, not bridged."""
    if not len(centres):
        return
    places = np.rint((centres - centres.min()) / width).astype(int)
    filled = np.zeros(places.max() + 1)
    filled[places] = counts
    edges = centres.min() + width * (np.arange(len(filled) + 1) - 0.5)
    ax.stairs(filled, edges, color=colour, linewidth=0.8)


def count_axes(axes: dict) -> None:
    """Logarithmic counts, from below one: call it when all is drawn."""
    for ax in axes.values():
        ax.set_yscale("log")
        ax.set_ylim(bottom=0.7)
    share_limits(axes)


def span(
    axes: dict, values: list[np.ndarray], margin: float = 0.08, robust: float = 0.0, least: float = 0.0
) -> None:
    """Common y limits from the data: all of them, or percentiles `robust`..100-`robust`."""
    pool = np.concatenate([np.ravel(v) for v in values]) if values else np.array([])
    pool = pool[np.isfinite(pool)]
    if not len(pool):
        return
    low, high = np.percentile(pool, (robust, 100 - robust))
    height = max(high - low, least, 1e-12)
    middle = (high + low) / 2
    for ax in axes.values():
        ax.set_ylim(middle - height * (0.5 + margin), middle + height * (0.5 + margin))


def robust_limits(axes: dict, curves: list[tuple], least: float) -> None:
    """Common y limits that a few outliers cannot stretch; points beyond them become arrows at the edge.

    `curves` are (axes, x, y, colour). Limits reach to all points unless they lie far outside the bulk.
    """
    pool = np.concatenate([curve[2] for curve in curves]) if curves else np.array([])
    pool = pool[np.isfinite(pool)]
    if not len(pool):
        raise NoData("no finite value in the table")
    low, high = np.percentile(pool, (2, 98))
    spread = max(high - low, least)
    full_low, full_high = pool.min(), pool.max()
    bottom = full_low if full_low > low - 3 * spread else low - 0.3 * spread
    top = full_high if full_high < high + 3 * spread else high + 0.3 * spread
    height, middle = max(top - bottom, least), (top + bottom) / 2
    bottom, top = middle - 0.58 * height, middle + 0.72 * height  # room for the panel's letter
    for ax in axes.values():
        ax.set_ylim(bottom, top)
    for ax, x, y, colour in curves:
        for beyond, marker, at in (
            (y > top, "^", top - 0.02 * height),
            (y < bottom, "v", bottom + 0.02 * height),
        ):
            if beyond.any():
                ax.plot(
                    x[beyond], np.full(beyond.sum(), at), marker, color=colour, markersize=4, clip_on=False
                )


def axis_labels(figure, x: str = "", y: str = "") -> None:
    """Labels common to all panels."""
    if x:
        figure.text(0.53, 0.012, x, ha="center", va="bottom", fontsize=7)
    if y:
        figure.text(0.004, 0.5, y, ha="left", va="center", rotation=90, fontsize=7)


def legend(figure, entries: dict[str, dict], title: str = "") -> None:
    """One legend for the whole figure, in its upper right corner; entries: label -> line properties."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], label=name, **style) for name, style in entries.items()]
    figure.legend(
        handles=handles,
        loc="upper right",
        ncols=len(handles),
        bbox_to_anchor=(0.995, 1.005),
        handlelength=1.8,
        columnspacing=1.2,
    )
    if title:
        figure.text(0.004, 0.988, title, ha="left", va="top", fontsize=7, weight="bold")


def title_only(figure, text: str) -> None:
    figure.text(0.004, 0.988, text, ha="left", va="top", fontsize=7, weight="bold")


def points(ax, x, y, error=None, colour=COLOURS["blue"], marker="o", line: bool = True) -> None:
    """Points with error bars where an error is known; the line only guides the eye.

    Artists are added directly: ``plot`` and ``vlines`` take three times as long, and there are hundreds.
    """
    from matplotlib.lines import Line2D

    ax.add_line(Line2D(x, y, color=colour, marker=marker, linewidth=0.7 if line else 0, markeredgewidth=0))
    if error is not None and np.isfinite(error).any():
        bars(ax, x, y - error, y + error, colour, 0.7)
    ax.autoscale(None)  # asked for, done once when the limits are needed


def bars(ax, x, low, high, colour, width: float) -> None:
    """Vertical bars from `low` to `high`."""
    from matplotlib.collections import LineCollection

    ends = np.stack([np.stack([x, low], axis=-1), np.stack([x, high], axis=-1)], axis=1)
    ends = ends[np.isfinite(ends).all(axis=(1, 2))]
    ax.add_collection(LineCollection(ends, colors=colour, linewidths=width), autolim=False)
    if len(ends):
        ax.update_datalim(ends.reshape(-1, 2))


def limits(ax, low, high) -> None:
    """Dashed lines at the limits that are numbers, without widening the view."""
    for value in (low, high):
        if value is not None and np.isfinite(value):
            ax.axhline(value, **LIMIT)


def thin(x: np.ndarray, y: np.ndarray, most: int = 350) -> tuple[np.ndarray, np.ndarray]:
    """A long curve as means of equal runs, at most `most` of them: more do not show on a page."""
    step = max(1, -(-len(y) // most))
    if step == 1:
        return x, y
    stop = len(y) // step * step
    return x[:stop].reshape(-1, step).mean(axis=1), y[:stop].reshape(-1, step).mean(axis=1)


def beam_images(
    figure,
    images: dict[int, dict[str, np.ndarray]],
    unit: str,
    percentiles=(5, 95),
    cmap="cividis",
    label: str = "",
) -> None:
    """Images of all CCDs, four quadrants joined as seen, each on its own offset, one common scale.

    Parameters
    ----------
    images : {ccd: {quadrant: array in stored orientation}}
    unit : unit of the colour bar
    percentiles : of all pixels together, the ends of the grey scale
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    pool = [image[np.isfinite(image)] for ccd in images.values() for image in ccd.values()]
    pool = np.concatenate(pool) if pool else np.array([])
    if not len(pool):
        raise NoData("no finite pixels in the images")
    low, high = np.percentile(pool, percentiles)
    norm = Normalize(low, high if high > low else low + 1)
    mappable = ScalarMappable(norm, cmap)
    for c, ccd in enumerate(CCDS):
        rect = (0.02 + c * 0.305, 0.04, 0.295, 0.84)
        if ccd not in images:
            figure.text(rect[0] + rect[2] / 2, 0.46, "no image", ha="center", color="#777777")
        else:
            joined = _joined(images[ccd])
            ax = figure.add_axes(rect)
            ax.imshow(
                mappable.to_rgba(joined, bytes=True), origin="lower", interpolation="nearest", aspect="equal"
            )
            ax.set_axis_off()
            mark_quadrants(ax)
        figure.text(
            rect[0] + rect[2] / 2, 0.9, f"CCD{ccd}", ha="center", va="bottom", weight="bold", fontsize=8
        )
    bar = figure.colorbar(mappable, cax=figure.add_axes((0.935, 0.08, 0.012, 0.76)))
    bar.ax.tick_params(labelsize=6, direction="out")
    figure.text(0.995, 0.9, f"{label} [{unit}]" if label else unit, ha="right", va="bottom", fontsize=6.5)


def _joined(quadrants: dict[str, np.ndarray]) -> np.ndarray:
    coarse = max(next(iter(quadrants.values())).shape) < 60  # tiles: enlarged, so that the gap stays thin
    if coarse:
        quadrants = {q: np.repeat(np.repeat(image, 20, axis=0), 20, axis=1) for q, image in quadrants.items()}
    shape = next(iter(quadrants.values())).shape
    gap = max(1, shape[0] // 100)
    out = np.full((2 * shape[0] + gap, 2 * shape[1] + gap), np.nan, dtype=np.float32)
    for quadrant, image in quadrants.items():
        row = shape[0] + gap if quadrant in "EF" else 0
        column = shape[1] + gap if quadrant in "FG" else 0
        out[row : row + shape[0], column : column + shape[1]] = image
    return out


def mark_quadrants(ax) -> None:
    for quadrant, (x, y) in {
        "E": (0.03, 0.97),
        "F": (0.97, 0.97),
        "H": (0.03, 0.03),
        "G": (0.97, 0.03),
    }.items():
        ax.text(
            x,
            y,
            quadrant,
            transform=ax.transAxes,
            ha="left" if x < 0.5 else "right",
            va="top" if y > 0.5 else "bottom",
            color="white",
            weight="bold",
            bbox={"facecolor": "#00000088", "edgecolor": "none", "pad": 1.2},
        )


def frame_times(data) -> tuple[dict[int, float], str]:
    """{obsid: abscissa} and its label: minutes since the first frame where the log has times, else frames."""
    stamps = {}
    for exposure in data.exposures:
        moment = _moment(exposure)
        if moment is None:
            stamps = {}
            break
        stamps[int(exposure["obsid"])] = moment
    if stamps:
        first = min(stamps.values())
        return {
            obsid: (stamp - first) / 60 for obsid, stamp in stamps.items()
        }, "minutes since the first frame"
    first = min(data.obsids, default=0)
    return {obsid: obsid - first for obsid in data.obsids}, f"OBSID − {first}"


def _moment(exposure: dict) -> float | None:
    """Start of an exposure, seconds, from ELVIS's stamp or ISO text; None when there is none."""
    from datetime import datetime

    from calcamp.data.names import clock_seconds

    log = exposure.get("log_row") if isinstance(exposure.get("log_row"), dict) else {}
    raw = exposure.get("time") or exposure.get("date") or log.get("date") or log.get("DATE")
    seconds = clock_seconds(str(raw))
    if math.isnan(seconds):
        try:
            seconds = clock_seconds(datetime.fromisoformat(str(raw)))
        except ValueError:
            return None
    return seconds


def abscissa(obsids: np.ndarray, times: dict[int, float]) -> np.ndarray:
    return np.array([times.get(int(o), np.nan) for o in obsids], dtype=float)
