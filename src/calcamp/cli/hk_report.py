"""``calcamp hk-report``: house-keeping of a day or a period as HTML and PDF."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)
PER_FIGURE = 8  # keys: four rows of two


def read_readings(folder: Path):
    """All readings of a day-folder's master files, as the monitor keeps them."""
    import numpy as np

    from calcamp.monitor.housekeeping import History, HouseKeepingWatch

    watch = HouseKeepingWatch(folder, history=History(np.float64, None))
    watch.look()
    while watch.loading:
        watch.look()
    return watch


def exposure_means(
    folder: Path, first: int | None, last: int | None
) -> tuple[list[float], list[dict], list[str]]:
    """(times, means by key, problems) of the per-exposure files of a span of OBSIDs, by time."""
    from calcamp.data.files import InputError
    from calcamp.data.hk import index_hk, read_hk
    from calcamp.monitor.housekeeping import EPOCH

    found, problems = [], []
    for obsid, paths in sorted(index_hk(folder).items()):
        if (first is not None and obsid < first) or (last is not None and obsid > last):
            continue
        for path in paths:
            try:
                hk = read_hk(path)
            except InputError as error:
                problems.append(str(error.problem))
                continue
            if hk.times:
                middle = hk.times[0] + (hk.times[-1] - hk.times[0]) / 2
                means = {key: s.mean for key, s in hk.summary().items() if s.n}
                found.append(((middle - EPOCH).total_seconds(), means))
    found.sort(key=lambda item: item[0])
    return [t for t, _ in found], [m for _, m in found], problems


def excursions(times, values, kinds, excess) -> list[tuple[float, float, int, float]]:
    """(start, end, readings, worst value) of the periods that a key was out; arrays of one key."""
    import numpy as np

    out = []
    edges = np.flatnonzero(np.diff(np.concatenate([[0], (kinds > 0).astype(int), [0]])))
    for start, end in zip(edges[0::2], edges[1::2], strict=True):
        worst = start + int(np.argmax(excess[start:end]))
        out.append((float(times[start]), float(times[end - 1]), int(end - start), float(values[worst])))
    return out


def draw_keys(figure, keys, history, limits, means, span) -> None:
    """Panels of some keys: all readings as points (lowest and highest of each bin), means of exposures on top."""
    import numpy as np
    from matplotlib.dates import AutoDateLocator, DateFormatter, date2num

    from calcamp.report.figures import COLOURS, LIMIT

    rows = -(-len(keys) // 2)
    axes = figure.subplots(rows, 2, squeeze=False)
    stamps, readings = means
    for ax, key in zip(axes.flat, keys, strict=False):
        t, v = history.decimated([key], *span, points=1200)
        x = date2num(t.astype("datetime64[s]"))
        ax.plot(x, v[:, 0], ".", ms=1.2, color=COLOURS["blue"], rasterized=True)
        gaps = np.isnan(v[:, 0])
        own = [(s, m[key]) for s, m in zip(stamps, readings, strict=True) if key in m]
        if own:
            ax.plot(
                date2num(np.array([s for s, _ in own], float).astype("datetime64[s]")),
                [m for _, m in own],
                "_",
                ms=5,
                color=COLOURS["orange"],
            )
        finite = v[~gaps, 0]
        limit = limits.get(key)
        if len(finite):
            low, high = finite.min(), finite.max()
            margin = max(high - low, abs(high) * 1e-3, 1e-6)
            for bound in _bounds(limit, "safe"):
                if low - 2 * margin <= bound <= high + 2 * margin:
                    ax.axhline(bound, **LIMIT)
            for bound in _bounds(limit, "performance"):
                if low - 2 * margin <= bound <= high + 2 * margin:
                    ax.axhline(bound, color=COLOURS["orange"], linestyle=":", linewidth=0.7)
        if gaps.any():
            ax.plot(x[gaps], np.full(gaps.sum(), ax.get_ylim()[0]), "o", ms=3, color=COLOURS["red"])
        unit = {"degC": "°C", "1": ""}.get(limit.unit, limit.unit) if limit else ""
        ax.set_title(f"{key}{f' [{unit}]' if unit else ''}", fontsize=7, pad=2)
        ax.xaxis.set_major_locator(AutoDateLocator(maxticks=5))
        ax.xaxis.set_major_formatter(DateFormatter("%d/%b-%H:%M"))
    for ax in list(axes.flat)[len(keys) :]:
        ax.set_axis_off()
    figure.subplots_adjust(left=0.075, right=0.985, top=0.965, bottom=0.045, hspace=0.42, wspace=0.2)


def _bounds(limit, name: str) -> list[float]:
    band = getattr(limit, name, None)
    if band is None or band.type == "relative":
        return []
    return [v for v in (band.values or [band.low, band.high]) if isinstance(v, int | float)][:2]


@app.command()
def hk_report(
    day_folder: Annotated[Path, typer.Argument(help="day-folder with HK files")],
    into: Annotated[Path, typer.Option(help="folder of the report")] = Path("hk_report"),
    obsid: Annotated[tuple[int, int] | None, typer.Option(help="first and last OBSID")] = None,
    since: Annotated[str | None, typer.Option(help="start, as 2019-03-12T07:00")] = None,
    until: Annotated[str | None, typer.Option(help="end, as 2019-03-12T19:00")] = None,
    key: Annotated[
        list[str] | None, typer.Option(help="only these keys; may be given more than once")
    ] = None,
    limits: Annotated[str, typer.Option(help="limits file, by name or path")] = "default",
    pdf: Annotated[bool, typer.Option("--pdf/--no-pdf", help="write the PDF too")] = True,
) -> None:
    """Plot every house-keeping key of a day or a period, and list the times it was out of its safe limits.

    All readings of the master files are used, also those between exposures; the means of the exposures are
    drawn on top. Exit 1 when a key was out of limits.

    Example:  calcamp hk-report data/21_Feb_80 --obsid 17283 17292
    """
    import numpy as np

    from calcamp.cli.document import write_document
    from calcamp.config.lookup import load_limits
    from calcamp.data.files import InputError
    from calcamp.monitor.housekeeping import Bounds
    from calcamp.report.base import Cell, Note, Section, TableBlock
    from calcamp.report.figures import FigureBook

    if not day_folder.is_dir():
        raise InputError("no such folder", file=day_folder)
    first, last = obsid or (None, None)
    if obsid and first > last:
        raise InputError(f"--obsid {first} {last}", expected="first and last, in this order")
    watch = read_readings(day_folder)
    history = watch.history
    means = exposure_means(day_folder, first, last)
    if not history.n:
        raise InputError("no readings", file=day_folder, expected="master files HK_DD-MM-YY_ROE1_NN.txt")
    if obsid and not means[0]:
        raise InputError(f"no house-keeping file of OBSID {first} to {last}", file=day_folder)
    span = _span(means[0] if obsid else [], since, until)
    known = load_limits(limits).hk_limits()
    keys = [k for k in history.keys if not key or k in key]
    if not keys:
        raise InputError(
            f"no key called {', '.join(key or [])}", expected=f"keys such as {', '.join(history.keys[:4])}"
        )
    book = FigureBook(into)
    bounds = Bounds(history.keys, known)
    start, end = span
    inside = (history.times >= (start if start is not None else -np.inf)) & (
        history.times <= (end if end is not None else np.inf)
    )
    if not inside.any():
        first_time, last_time = _time(history.times.min()), _time(history.times.max())
        raise InputError(
            "no readings in this span", file=day_folder, expected=f"within {first_time} to {last_time}"
        )
    times, values = history.times[inside], history.values[inside].astype(float)
    kinds, excess = bounds.judge(values), bounds.excess(values)
    rows = []
    for k in keys:
        i = history.keys.index(k)
        for begin, finish, count, worst in excursions(times, values[:, i], kinds[:, i], excess[:, i]):
            cells = [
                k,
                _time(begin),
                _time(finish),
                str(count),
                "no value" if np.isnan(worst) else f"{worst:.6g}",
                bounds.texts[i],
            ]
            rows.append([Cell(text) for text in cells])
    header = ["Key", "From", "To", "Readings", "Worst value", "Safe limits"]
    table = TableBlock(
        header, rows[:400], caption="Periods out of the safe limits", more=max(0, len(rows) - 400)
    )
    notes = [Note(text, "warning") for text in [*watch.faults, *means[2]][:10]]
    if watch.bad_lines:
        notes.append(Note(f"{watch.bad_lines} lines could not be read and are left out", "warning"))
    sections = [
        Section("Out of limits", [*notes, table if rows else Note("Every key was within its safe limits.")])
    ]
    figures = []
    for n in range(0, len(keys), PER_FIGURE):
        part = keys[n : n + PER_FIGURE]
        figures.append(
            book.make(
                f"hk_{n // PER_FIGURE + 1:02d}",
                f"{part[0]} to {part[-1]}: all readings (blue), means of exposures (orange), safe limits (red), no value (red dots)",
                lambda figure, part=part: draw_keys(figure, part, history, known, means[:2], span),
                height=2.3 * -(-len(part) // 2),
            )
        )
    sections.append(Section("Readings", figures))
    count = int(inside.sum())
    lead = [
        f"{count} readings"
        + (f" from {_time(times[0])} to {_time(times[-1])} (acquisition clock)" if count else ""),
        f"{len(means[0])} exposures, {len(keys)} keys",
    ]
    name = f"HK_{day_folder.resolve().name}" + (f"_{first}-{last}" if obsid else "")
    into.mkdir(parents=True, exist_ok=True)
    for path in write_document(
        into, name, f"House-keeping, {day_folder.resolve().name}", lead, sections, pdf
    ):
        print(path)
    for figure, reason in book.failed:
        print(f"figure {figure} could not be made: {reason}", file=sys.stderr)
    print(f"{len(rows)} periods out of limits")
    raise typer.Exit(1 if rows or book.failed else 0)


def _span(stamps: list[float], since: str | None, until: str | None) -> tuple[float | None, float | None]:
    """Start and end in seconds; exposures given by OBSID reach a minute further on both sides."""
    from calcamp.monitor.housekeeping import EPOCH

    start = stamps[0] - 60 if stamps else None
    end = stamps[-1] + 60 if stamps else None
    for text, which in ((since, "since"), (until, "until")):
        if text is None:
            continue
        try:
            seconds = (datetime.fromisoformat(text).replace(tzinfo=None) - EPOCH).total_seconds()
        except ValueError as error:
            raise typer.BadParameter(
                f"{text!r} is no time such as 2019-03-12T07:00", param_hint=f"--{which}"
            ) from error
        start, end = (seconds, end) if which == "since" else (start, seconds)
    return start, end


def _time(seconds: float) -> str:
    from calcamp.monitor.housekeeping import EPOCH

    return f"{EPOCH + timedelta(seconds=round(seconds)):%Y-%m-%d %H:%M:%S}"
