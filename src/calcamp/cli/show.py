"""``calcamp show``: any product, table, raw frame or record in words, and a plot."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)
MAX_ROWS = 20


def describe_fits(path: Path) -> list[str]:
    """Header and extensions of a FITS file in words, with statistics of its images."""
    import numpy as np

    from calcamp.data.fitsfile import extensions, read_header, read_image

    header = read_header(path)
    lines = [f"{path.name}: FITS"]
    skip = {"SIMPLE", "BITPIX", "NAXIS", "EXTEND", "CHECKSUM", "DATASUM", "", "END"}
    lines += [f"  {key} = {value}" for key, value in header.items() if key not in skip]
    for number, (name, card) in enumerate(extensions(path)):
        if not card.get("NAXIS"):
            continue
        lines.append(
            f"extension {number} {name or '(no name)'}: {card.get('NAXIS1')} x {card.get('NAXIS2', 1)} {card.get('BUNIT', '')}".rstrip()
        )
        if card.get("XTENSION", "IMAGE").strip() == "BINTABLE":
            columns = [card.get(f"TTYPE{n}") for n in range(1, int(card.get("TFIELDS", 0)) + 1)]
            lines.append(f"  columns: {', '.join(map(str, columns))}")
            continue
        try:
            data, _ = read_image(path, name or None, verify=False)
        except Exception as error:
            lines.append(f"  cannot be read: {getattr(error, 'problem', None) or type(error).__name__}")
            continue
        values = np.asarray(data, float)
        good = values[np.isfinite(values)]
        if good.size:
            p = np.percentile(good, (1, 50, 99))
            lines.append(
                f"  mean {good.mean():.6g}, std {good.std():.6g}, min {good.min():.6g}, 1 % {p[0]:.6g}, median {p[1]:.6g}, "
                f"99 % {p[2]:.6g}, max {good.max():.6g}, {np.count_nonzero(good)} not 0, {values.size - good.size} not finite"
            )
    return lines


def describe_raw(path: Path) -> list[str]:
    """A raw frame: header, and offset, noise, level per quadrant."""
    from calcamp.data.raw import read_raw
    from calcamp.monitor.images import detector_of, known_detectors, quadrant_statistics

    raw = read_raw(path)
    lines = [f"{path.name}: raw frame, {raw.data.shape[1]} x {raw.data.shape[0]} pixels"]
    lines += [f"  {key} = {value}" for key, value in list(raw.header.items())[:120]]
    detector = detector_of(raw.data.shape, known_detectors())
    if detector:
        lines.append(
            f"detector {detector.name}; quadrant, offset, noise, level (ADU), saturated, lost pixels"
        )
        for q in quadrant_statistics(raw.data, detector):
            lines.append("  " + "  ".join(str(v) for v in q.values()))
    return lines


def describe_table(path: Path, columns: list[str] | None, rows: int) -> list[str]:
    """Columns with units and ranges, then the first rows."""
    from calcamp.data.tables import table_columns

    found, head = table_columns(path)
    chosen = [c for c in found if not columns or c in columns]
    count = len(next(iter(found.values()), []))
    lines = [f"{path.name}: table, {count} rows, {len(found)} columns"]
    for name in chosen:
        numbers = [
            v for v in found[name] if isinstance(v, int | float) and not isinstance(v, bool) and v == v
        ]
        span = (
            f"{min(numbers):.6g} … {max(numbers):.6g}"
            if numbers
            else ", ".join(dict.fromkeys(map(str, found[name][:200])))[:60]
        )
        lines.append(
            f"  {name} [{head['units'].get(name) or ''}] {span}  {head['descriptions'].get(name) or ''}".rstrip()
        )
    cells = [[_short(found[c][k]) for c in chosen] for k in range(min(rows, count))]
    widths = [max([len(c), *(len(r[i]) for r in cells)]) for i, c in enumerate(chosen)]
    for row in [chosen, *cells]:
        lines.append("  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)))
    if count > rows:
        lines.append(f"… {count - rows} more rows (--rows)")
    return lines


def describe_json(path: Path) -> list[str]:
    """A verdict or manifest in words, any other JSON as it is."""
    from calcamp.data.files import read_json

    data = read_json(path)
    if isinstance(data, dict) and "compliance" in data and "flags" in data:
        lines = [
            f"{data.get('test')}: verdict {data.get('verdict')}, status {data.get('status')}, OBSIDs {data.get('obsids')}"
        ]
        lines += [f"  flag {f.get('name')}: {f.get('cause')}" for f in data["flags"]]
        bad = [c for c in data["compliance"] if c.get("ok") is False]
        lines.append(f"  {len(data['compliance'])} checks, {len(bad)} failed")
        for h in (data.get("headline") or [])[:60]:
            where = f"CCD{h['ccd']}" if h.get("ccd") else ""
            lines.append(
                f"  {h.get('quantity')} {where}{h.get('quadrant') or ''} = {_short(h.get('value'))} ± {_short(h.get('err'))} {h.get('unit', '')}"
            )
        return lines
    if isinstance(data, dict) and "exposures" in data and "status" in data:
        return [
            f"{data.get('test')}: {data['status']} {data.get('reason', '')}".rstrip(),
            f"  {len(data['exposures'])} of {data.get('declared')} exposures, OBSIDs {data.get('obsids')}",
            *(
                f"  {m.get('obsid')}: {m.get('key')} is {m.get('found')}, declared {m.get('expected')}"
                for m in (data.get("mismatches") or [])[:40]
            ),
        ]
    return json.dumps(data, indent=1, ensure_ascii=False).splitlines()


def _short(value) -> str:
    if value is None:
        return "–"
    return f"{value:.6g}" if isinstance(value, float) else str(value)[:40]


def plot_table(path: Path, columns: list[str] | None, target: Path) -> None:
    """Numbers of a table against its first key that varies."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from calcamp.data.tables import table_columns

    found, head = table_columns(path)
    units = head["units"]
    numeric = [
        c
        for c, v in found.items()
        if v and all(isinstance(x, int | float) or x is None for x in v) and not isinstance(v[0], bool)
    ]
    x = next((c for c in numeric if len(set(found[c])) > 1), None)
    keys = {"obsid", "ccd", "column", "frame", "n", "row", "region"}
    names = [
        c
        for c in (columns or numeric)
        if c in numeric and c != x and c not in keys and not c.endswith("_err")
    ][:6]
    if x is None or not names:
        from calcamp.data.files import InputError

        raise InputError("has no numbers to plot", file=path)
    figure = Figure(figsize=(8, 2.2 * len(names)), dpi=120)
    FigureCanvasAgg(figure)
    for ax, name in zip(figure.subplots(len(names), 1, squeeze=False, sharex=True)[:, 0], names, strict=True):
        err = [e or 0.0 for e in found[f"{name}_err"]] if f"{name}_err" in found else None
        y = [float("nan") if v is None else v for v in found[name]]
        ax.errorbar(found[x], y, yerr=err, fmt=".", ms=3, lw=0.7)
        ax.set_ylabel(f"{name} [{units.get(name) or '1'}]", fontsize=8)
    ax.set_xlabel(f"{x} [{units.get(x) or '1'}]")
    figure.suptitle(path.name, fontsize=9)
    figure.savefig(target)


def plot_image(path: Path, target: Path, raw: bool) -> None:
    """The last image of a FITS file, zscale."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from calcamp.data.fitsfile import read_image
    from calcamp.data.raw import read_raw
    from calcamp.monitor.images import zscale

    data = np.asarray(read_raw(path).data if raw else read_image(path, verify=False)[0], float)
    if data.ndim != 2:
        data = np.atleast_2d(data.reshape(-1, data.shape[-1]))
    step = max(1, max(data.shape) // 1200)
    low, high = zscale(data[::step, ::step])
    figure = Figure(figsize=(8, 8 * min(2, max(0.2, data.shape[0] / data.shape[1])) * 0.9), dpi=120)
    FigureCanvasAgg(figure)
    ax = figure.add_subplot()
    shown = ax.imshow(
        data[::step, ::step],
        origin="lower",
        cmap="gray",
        vmin=low,
        vmax=high,
        extent=(-0.5, data.shape[1] - 0.5, -0.5, data.shape[0] - 0.5),
    )
    ax.set_title(path.name, fontsize=9)
    figure.colorbar(shown, ax=ax, shrink=0.8)
    figure.savefig(target)


@app.command()
def show(
    file: Annotated[
        Path, typer.Argument(help="FITS, ECSV, JSON, EXP-LOG or HK file, or the results of a test")
    ],
    column: Annotated[
        list[str] | None, typer.Option("--column", help="only these columns; may be given more than once")
    ] = None,
    rows: Annotated[int, typer.Option(help="rows of a table to print", min=0)] = MAX_ROWS,
    plot: Annotated[Path | None, typer.Option(help="draw it into this PNG or PDF")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="the whole table as CSV on stdout")] = False,
) -> None:
    """Say in words what is in a file: header, columns with units and ranges, verdict, statistics of images.

    Example:  calcamp show results/D11/BIAS01/tables/read_noise.ecsv --plot noise.png
    """
    from calcamp.data.files import InputError
    from calcamp.data.names import parse_explog_name, parse_raw_name

    if file.is_dir() and (file / "verdict.json").is_file():
        _print(describe_json(file / "verdict.json"))
        for table in sorted((file / "tables").glob("*.ecsv")):
            print(f"table {table.stem}: {table}")
        return
    if not file.is_file():
        raise InputError("no such file", file=file)
    kind = "".join(file.suffixes[-2:]).lower()
    is_raw = parse_raw_name(file.name) is not None
    is_fits = ".fits" in kind or file.suffix.lower() == ".fits"
    if plot is not None and plot.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise typer.BadParameter("a file that ends with .png, .pdf or .svg", param_hint="--plot")
    try:
        if is_fits:
            _print(describe_raw(file) if is_raw else describe_fits(file))
        elif file.suffix == ".ecsv":
            _csv(file, column) if as_csv else _print(describe_table(file, column, rows))
        elif file.suffix == ".json":
            _print(describe_json(file))
        elif parse_explog_name(file.name):
            _print(_log(file))
        elif file.name.startswith("HK_") and file.suffix == ".txt":
            _print(_hk(file, column))
        elif file.suffix.lower() in (".pkl", ".pickle", ".pick"):
            raise InputError(
                "is a pickle, which is never read", file=file, remedy="Export it as FITS, ECSV or XLSX"
            )
        else:
            raise InputError(
                "is no file that calcamp knows", file=file, expected="FITS, ECSV, JSON, EXP-LOG or HK"
            )
        if plot is not None:
            if not is_fits and file.suffix != ".ecsv":
                raise InputError(
                    "cannot be plotted",
                    file=file,
                    expected="FITS or ECSV",
                    remedy="For HK use calcamp hk-report",
                )
            plot_image(file, plot, is_raw) if is_fits else plot_table(file, column, plot)
            print(plot)
    except Exception as error:
        if type(error).__name__ in ("RawError", "FitsError"):
            raise InputError(str(getattr(error, "text", error)), file=file) from error
        raise


def _print(lines: list[str]) -> None:
    for line in lines:
        print("".join(c if c.isprintable() else "\ufffd" for c in line))


def _csv(path: Path, columns: list[str] | None) -> None:
    from calcamp.data.tables import table_columns

    found, _ = table_columns(path)
    chosen = [c for c in found if not columns or c in columns]
    writer = csv.writer(sys.stdout)
    writer.writerow(chosen)
    writer.writerows(zip(*(found[c] for c in chosen), strict=True))


def _log(path: Path) -> list[str]:
    from calcamp.data.explog import read_explog

    log = read_explog(path)
    lines = [
        f"{path.name}: EXP-LOG {log.versions[0] or 'of unknown version'}, {len(log.rows)} rows, {len(log.exposures())} exposures"
    ]
    lines += [
        f"  {test}: {len(ids)} exposures, OBSID {min(ids)} to {max(ids)}" for test, ids in log.tests().items()
    ]
    return lines + [f"  {problem}" for problem in log.problems[:20]]


def _hk(path: Path, columns: list[str] | None) -> list[str]:
    from calcamp.data.hk import read_hk

    hk = read_hk(path)
    lines = [
        f"{path.name}: house-keeping, {len(hk.times)} readings"
        + (f", {hk.times[0]} to {hk.times[-1]}" if hk.times else "")
    ]
    for key, s in hk.summary(columns or None).items():
        lines.append(
            f"  {key}: mean {s.mean:.6g}, std {s.std:.3g}, min {s.min:.6g}, max {s.max:.6g}, n {s.n}"
        )
    return lines
