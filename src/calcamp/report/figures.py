"""Figures of a report: one style, the beam layout, and a book that never lets a figure stop the report.

Only ``matplotlib.figure.Figure`` with the Agg canvas is used, never pyplot: no global state, no
display. A page costs little because figures have many light panels: inner panels draw no tick
labels, and files are palette PNG of 120 dpi.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from calcamp.detector.geometry import CCDS, QUADRANTS
from calcamp.report.base import BEAM, Figure, MissingFigure

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
    """Makes figures into ``<folder>/figures``; a failure becomes a `MissingFigure` with its reason."""

    def __init__(self, folder: Path, dpi: int = DPI):
        self.folder = Path(folder)
        self.dpi = dpi
        self.made: list[str] = []
        self.failed: list[tuple[str, str]] = []

    def make(
        self,
        name: str,
        caption: str,
        draw: Callable,
        height: float = 2.8,
        alt: str = "",
        width: float = 100.0,
    ) -> Figure | MissingFigure:
        """Draw one figure: `draw(figure)` gets an empty figure of the page's width and `height` inches."""
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure as Canvas

        name = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
        try:
            with matplotlib.rc_context(_STYLE):
                figure = Canvas(figsize=(WIDTH * width / 100, height), dpi=self.dpi)
                canvas = FigureCanvasAgg(figure)
                draw(figure)
                canvas.draw()
                self._save(canvas, name)
        except Exception as error:  # whatever the data are, the report goes on
            reason = str(error) if isinstance(error, NoData) else f"{type(error).__name__}: {error}"
            self.failed.append((name, reason))
            return MissingFigure(name, caption, reason)
        self.made.append(name)
        return Figure(f"figures/{name}.png", caption, alt or caption, width)

    def _save(self, canvas, name: str) -> None:
        from PIL import Image

        pixels = np.asarray(canvas.buffer_rgba())[..., :3]
        image = Image.fromarray(np.ascontiguousarray(pixels)).quantize(
            128, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE
        )
        folder = self.folder / "figures"
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{name}.png.part"
        image.save(part, format="PNG", compress_level=6, dpi=(self.dpi, self.dpi))
        part.replace(folder / f"{name}.png")


class NoData(Exception):
    """There is nothing to draw; the text says what is missing."""


# ---- panels ---------------------------------------------------------------------------------------------
def beam_panels(figure, left=0.075, right=0.99, bottom=0.13, top=0.87, gap=0.022, share=True) -> dict:
    """2 x 6 panels as the beam sees the block: CCD1..3 left to right, E F above H G.

    Returns {(ccd, quadrant): axes}. Only outer panels carry tick labels; a share of limits is set at
    the end by `share_limits`.
    """
    panel = (right - left - 2 * gap) / 6
    inner = 0.006
    height = (top - bottom - 0.03) / 2
    axes = {}
    for c, ccd in enumerate(CCDS):
        x0 = left + c * (2 * panel + gap)
        for r, row in enumerate(BEAM):
            for q, quadrant in enumerate(row):
                rect = (x0 + q * panel + inner / 2, top - (r + 1) * height - r * 0.03, panel - inner, height)
                ax = figure.add_axes(rect)
                ax.text(0.04, 0.95, quadrant, transform=ax.transAxes, va="top", weight="bold", fontsize=7.5)
                bare(ax, x=r == 1 or not share, y=(c == 0 and q == 0) or not share)
                axes[ccd, quadrant] = ax
        figure.text(x0 + panel, top + 0.015, f"CCD{ccd}", ha="center", va="bottom", weight="bold", fontsize=8)
    return axes


def ccd_panels(figure, left=0.085, right=0.99, bottom=0.17, top=0.86, gap=0.03) -> dict:
    """Three panels, one per CCD, with shared limits and tick labels on the left one only."""
    panel = (right - left - 2 * gap) / 3
    axes = {}
    for c, ccd in enumerate(CCDS):
        ax = figure.add_axes((left + c * (panel + gap), bottom, panel, top - bottom))
        ax.set_title(f"CCD{ccd}", weight="bold", pad=3)
        bare(ax, x=True, y=c == 0)
        axes[ccd] = ax
    return axes


def bare(ax, x: bool, y: bool) -> None:
    """Few ticks, and labels only where asked: ticks are what a panel costs."""
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(3, prune="both"))
    ax.yaxis.set_major_locator(MaxNLocator(4))
    ax.tick_params(labelbottom=x, labelleft=y)


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
    """Points with error bars where an error is known; the line only guides the eye."""
    ax.plot(x, y, color=colour, marker=marker, linewidth=0.7 if line else 0, markeredgewidth=0)
    if error is not None and np.isfinite(error).any():
        ax.vlines(x, y - error, y + error, color=colour, linewidth=0.7)


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
            ax.set_xticks([])
            ax.set_yticks([])
            _mark_quadrants(ax)
        figure.text(
            rect[0] + rect[2] / 2, 0.9, f"CCD{ccd}", ha="center", va="bottom", weight="bold", fontsize=8
        )
    bar = figure.colorbar(mappable, cax=figure.add_axes((0.935, 0.08, 0.012, 0.76)))
    bar.ax.tick_params(labelsize=6, direction="out")
    figure.text(0.94, 0.865, f"{label} [{unit}]" if label else unit, ha="center", va="bottom", fontsize=6.5)


def _joined(quadrants: dict[str, np.ndarray]) -> np.ndarray:
    shape = next(iter(quadrants.values())).shape
    gap = max(1, shape[0] // 150)
    out = np.full((2 * shape[0] + gap, 2 * shape[1] + gap), np.nan, dtype=np.float32)
    for quadrant, image in quadrants.items():
        row = shape[0] + gap if quadrant in "EF" else 0
        column = shape[1] + gap if quadrant in "FG" else 0
        out[row : row + shape[0], column : column + shape[1]] = image
    return out


def _mark_quadrants(ax) -> None:
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

    from calcamp.data.names import parse_stamp

    log = exposure.get("log_row") if isinstance(exposure.get("log_row"), dict) else {}
    raw = exposure.get("time") or exposure.get("date") or log.get("date") or log.get("DATE")
    for read in (parse_stamp, datetime.fromisoformat):
        try:
            return read(str(raw)).timestamp()
        except Exception:  # not a stamp of this kind
            continue
    return None


def abscissa(obsids: np.ndarray, times: dict[int, float]) -> np.ndarray:
    return np.array([times.get(int(o), np.nan) for o in obsids], dtype=float)
