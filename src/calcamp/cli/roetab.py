"""Cross-talk of a bench (ROE-TAB): catalogue and frames in; tables, product and report out."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace

#: Columns that get charge, canonical, 1-based; those after `_BACKGROUND` less the last 20 get none.
_CHARGED = 1600
_BACKGROUND = (1620, 20)


def read_catalogue(path: Path) -> dict[str, int]:
    """Channel -> OBSID of a catalogue with the columns CHANNELS and OBSID; comma, semicolon or blanks between.

    Raises
    ------
    InputError : no such columns, a channel that is none or given twice, an OBSID that is no number.
    """
    from calcamp.analysis.crosstalk import CHANNELS
    from calcamp.data.files import InputError, read_bounded

    text = read_bounded(path, 1 << 20).decode("utf-8", "replace")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    mark = next((m for m in ",;\t" if lines and m in lines[0]), None)
    rows = list(csv.reader(lines, delimiter=mark)) if mark else [line.split() for line in lines]
    rows = [[cell.strip().strip("\"'") for cell in row] for row in rows]
    head = [name.upper() for name in rows[0]] if rows else []
    for name in ("CHANNELS", "OBSID"):
        if name not in head:
            raise InputError(f"has no column {name}", file=path, expected="columns CHANNELS and OBSID")
    out: dict[str, int] = {}
    for number, row in enumerate(rows[1:], 2):
        channel, obsid = (
            row[head.index(n)] if head.index(n) < len(row) else "" for n in ("CHANNELS", "OBSID")
        )
        if channel not in CHANNELS or not obsid.isdigit():
            raise InputError(
                f"row {number}: {channel or 'nothing'} {obsid or 'nothing'}",
                file=path,
                expected="a channel 1E to 3H and a whole number",
            )
        if channel in out:
            raise InputError(
                f"row {number}: {channel} is given twice", file=path, expected="each source once"
            )
        out[channel] = int(obsid)
    if not out:
        raise InputError("names no exposure", file=path, expected="one row per source channel")
    return out


def find_frames(folder: Path, obsid: int) -> dict[int, Path]:
    """CCD -> raw file of an exposure.

    Raises
    ------
    InputError : a CCD has none.
    """
    from calcamp.data.files import InputError
    from calcamp.data.names import RAW_RE

    found = {}
    for path in sorted(folder.glob(f"EUC_{obsid}_*")):
        match = RAW_RE.fullmatch(path.name)
        if match and int(match["obsid"]) == obsid:
            found.setdefault(int(match["ccd"]), path)
    lost = [f"CCD{ccd}" for ccd in (1, 2, 3) if ccd not in found]
    if lost:
        raise InputError(f"has no frame of OBSID {obsid}, {' and '.join(lost)}", file=folder)
    return found


def measure(catalogue: dict[str, int], folder: Path, detector, told=None) -> list[tuple]:
    """(source, OBSID, `Steps`, `Lines`) of every exposure."""
    from calcamp.analysis.crosstalk import CHANNELS
    from calcamp.analysis.crosstalk_bench import above_background, fit_steps, measure_steps
    from calcamp.data.files import InputError
    from calcamp.data.raw import RawError, read_raw
    from calcamp.detector.arrays import quadrant_view
    from calcamp.detector.geometry import QUADRANTS

    charged = round(_CHARGED * detector.columns / 2119)
    first = round(_BACKGROUND[0] * detector.columns / 2119)
    made = []
    for source, obsid in catalogue.items():
        channels = []
        for _, path in sorted(find_frames(folder, obsid).items()):
            try:
                data = read_raw(path, detector).data
            except RawError as error:
                raise InputError(error.text, file=path) from error
            for quadrant in QUADRANTS:
                view = quadrant_view(data, quadrant, detector)
                level = above_background(view, first, detector.columns - _BACKGROUND[1])
                channels.append(level[:, 1:charged])
        steps = measure_steps(channels, CHANNELS.index(source), detector.columns - _BACKGROUND[1] - first)
        made.append((source, obsid, steps, fit_steps(steps, CHANNELS.index(source))))
        if told:
            told(f"{source}: OBSID {obsid}, {len(steps.level)} levels")
    return made


def bench_crosstalk(
    catalogue: Path, folder: Path, into: Path, block: str, detector, *,
    label: str = "", against: Path | None = None, report: bool = True, told=None,
) -> dict:  # fmt: skip
    """Work out the matrix of a bench run and write ``steps.ecsv``, ``crosstalk.ecsv``, ``crosstalk_victims.ecsv``, product, report.

    Parameters
    ----------
    catalogue : file with columns CHANNELS and OBSID.
    folder : raw frames.
    against : crosstalk product (of spots) to compare with.

    Returns
    -------
    dict as `calcamp.cli.joined.join_crosstalk`, and ``agreement``.
    """
    import numpy as np

    from calcamp.analysis.crosstalk import victim_rows
    from calcamp.analysis.crosstalk_bench import compare
    from calcamp.cli import joined
    from calcamp.data.products import load_crosstalk

    made = measure(read_catalogue(catalogue), folder, detector, told)
    matrix, error = np.full((12, 12), np.nan), np.full((12, 12), np.nan)
    pairs = _pair_rows(made, matrix, error)
    victims = victim_rows(matrix, error)
    into.mkdir(parents=True, exist_ok=True)
    _write(into, made, pairs, victims, label or catalogue.stem)
    product = _write_product(into, block, matrix, error, catalogue, made)
    run = [{"session": label or catalogue.stem, "test": "ROE-TAB"}]
    out = joined._told(block, run, pairs, victims, joined.REQUIREMENT)
    out["agreement"] = None
    if against is not None:
        agreement = compare((matrix, error), load_crosstalk(against))
        out["agreement"] = {name: getattr(agreement, name) for name in agreement.__dataclass_fields__}
        out["text"].append(
            f"against {against.name}: {agreement.n} pairs, rms difference {65536 * agreement.rms:.2f} ADU at full "
            f"scale, chi2 {agreement.chi2:.0f}"
            + (f"; beyond 4 errors: {', '.join(agreement.differing)}" if agreement.differing else "")
        )
    page = _write_report(into, block, out["text"]) if report else None
    return {**out, "product": str(product), "report": page and str(page)}


def _pair_rows(made: list[tuple], matrix, error) -> list[dict]:
    """Rows of table ``crosstalk``; fills the matrices [source, victim]."""
    from calcamp.analysis.crosstalk import CHANNELS, pair_strength

    rows = []
    for v, victim in enumerate(CHANNELS):
        for source, obsid, _, lines in made:
            s = CHANNELS.index(source)
            if s == v:
                continue
            matrix[s, v], error[s, v] = lines.coefficient[v], lines.err[v]
            rows.append(
                {
                    "ccd": int(victim[0]),
                    "quadrant": victim[1],
                    "source": source,
                    "obsid": obsid,
                    "coefficient": float(matrix[s, v]),
                    "coefficient_err": float(error[s, v]),
                    **pair_strength(float(matrix[s, v]), float(error[s, v])),
                    **{
                        name: float(getattr(lines, name)[v])
                        for name in ("at_largest", "at_largest_err", "quadratic", "quadratic_err", "chi2_dof")
                    },
                    "n": lines.n,
                    "flag": lines.reason,
                }
            )
    return rows


def _write(into: Path, made: list[tuple], pairs: list[dict], victims: list[dict], label: str) -> None:
    from calcamp.analysis.crosstalk import CHANNELS
    from calcamp.data.products import CROSSTALK_UNITS, CROSSTALK_WORDS
    from calcamp.data.tables import write_table

    steps = [
        {
            "source": source,
            "obsid": obsid,
            "ccd": int(victim[0]),
            "quadrant": victim[1],
            "level": float(found.level[k]),
            "mean": float(found.mean[v, k]),
            "mean_err": float(found.err[v, k]),
            "n": int(found.n[k]),
        }
        for source, obsid, found, _ in made
        for v, victim in enumerate(CHANNELS)
        for k in range(len(found.level))
    ]
    meta = {"tests": [f"{label}/ROE-TAB"]}
    words = {"level": "of the source's plateau", "mean": "of the channel over the same pixels"}
    units = dict.fromkeys(("level", "mean", "mean_err"), "ADU")
    for name, rows, unit, word in (
        ("steps", steps, units, words),
        (
            "crosstalk",
            pairs,
            {**CROSSTALK_UNITS, "quadratic": "1/ADU", "quadratic_err": "1/ADU"},
            {**CROSSTALK_WORDS, "n": "levels", "at_largest": "victim over source at the highest level"},
        ),
        ("crosstalk_victims", victims, {}, {"ccd": "of the victim"}),
    ):
        columns = {key: [row[key] for row in rows] for key in rows[0]} if rows else {}
        if columns:
            write_table(into / f"{name}.ecsv", columns, unit, meta, word)


def _write_product(into: Path, block: str, matrix, error, catalogue: Path, made: list[tuple]) -> Path:
    from calcamp.analysis.crosstalk import CHANNELS
    from calcamp.data.files import sha256
    from calcamp.data.fitsfile import write_product
    from calcamp.data.products import crosstalk_images, product_name, provenance

    cards = provenance(
        session="",
        block=block,
        chamber="",
        test="ROE-TAB",
        obsids=[obsid for _, obsid, _, _ in made],
        inputs={catalogue.name: sha256(catalogue)},
        channels=" ".join(CHANNELS),
    )
    return write_product(into / product_name("crosstalk", block), cards, crosstalk_images(matrix, error))


def _write_report(into: Path, block: str, lead: list[str]) -> Path:
    from calcamp.cli import joined
    from calcamp.cli.document import write_document
    from calcamp.report import crosstalk as pages
    from calcamp.report.base import Section
    from calcamp.report.figures import FigureBook
    from calcamp.report.tables import read_table

    table, victims, steps = (
        read_table(into / f"{name}.ecsv") for name in ("crosstalk", "crosstalk_victims", "steps")
    )
    data = SimpleNamespace(figures=FigureBook(into))
    limits = tuple(joined.REQUIREMENT.values())
    blocks = [
        *pages.matrix(data, table),
        *pages.worst(table),
        *pages.victims(victims, limits),
        *pages.bench_lines(data, table, steps),
    ]
    section = Section("Steps of injected charge", blocks, "crosstalk")
    title = f"Cross-talk of block {block} on the bench"
    return write_document(into, f"crosstalk_bench_{block}", title, lead, [section])[-1]
