"""House-keeping (HK) files of ELVIS: found by OBSID, read, summed up, written. Standard library only.

From 6.0 on a file has a header with the keys, then one line per reading, tab separated, the time first.
Prototypes wrote times without a date, and some one line per key; both are read.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection, Iterable, Mapping
from datetime import date as Date
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from calcamp.data import elvis
from calcamp.data.explog import Problem
from calcamp.data.files import InputError, read_bounded
from calcamp.data.names import (
    HK_EXPOSURE_RE,
    format_hk_time,
    parse_hk_master_name,
    parse_hk_time,
    parse_stamp,
)

MAX_BYTES = 512 * 1024 * 1024
MAX_PROBLEMS = 200
_TIME_NAMES = ("timestamp", "hk_timestamp")
_CLOCK = re.compile(r"(\d{1,2}):(\d{2}):(\d{2})", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:\d{1,40}\.?\d{0,40}|\.\d{1,40})(?:[eE][+-]?\d{1,3})?", re.ASCII)
_PLAIN = re.compile(rf"{_NUMBER.pattern}(?:\t{_NUMBER.pattern})*", re.ASCII)
_HEX = re.compile(r"(?:0[xX])?([0-9A-Fa-f]{4})", re.ASCII)


class Summary(NamedTuple):
    """Readings of one key over an exposure, NaN left out; ``std`` divides by n."""

    mean: float
    std: float
    min: float
    max: float
    n: int


NOT_MEASURED = Summary(math.nan, math.nan, math.nan, math.nan, 0)


class HouseKeeping:
    """Readings of one file: ``values[key][i]`` at ``times[i]``, NaN where there is no number."""

    def __init__(
        self,
        times: list[datetime] | None = None,
        values: dict[str, list[float]] | None = None,
        problems: list[Problem] | None = None,
        path: Path | None = None,
    ):
        self.times = [] if times is None else times
        self.values = {} if values is None else values
        self.problems = [] if problems is None else problems
        self.path = path

    def summary(self, keys: Iterable[str] | None = None) -> dict[str, Summary]:
        """Mean, standard deviation, minimum, maximum and number of readings per key.

        A key that the file does not have, or without any number, gives NaN with n = 0.
        """
        wanted = self.values if keys is None else keys
        return {key: summarise(self.values.get(key, ())) for key in wanted}

    def between(self, start: datetime, end: datetime) -> HouseKeeping:
        """Readings with start <= time <= end."""
        keep = [i for i, time in enumerate(self.times) if start <= time <= end]
        values = {key: [column[i] for i in keep] for key, column in self.values.items()}
        return HouseKeeping([self.times[i] for i in keep], values, self.problems, self.path)


def summarise(values: Iterable[float]) -> Summary:
    """`Summary` of the numbers among `values`; the sums are exact (``math.fsum``)."""
    numbers = [value for value in values if math.isfinite(value)]
    if not numbers:
        return NOT_MEASURED
    n = len(numbers)
    mean = math.fsum(numbers) / n
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in numbers) / n)
    return Summary(mean, std, min(numbers), max(numbers), n)


# ---- finding -------------------------------------------------------------------------------------
def index_hk(folder: Path | str) -> dict[int, list[Path]]:
    """House-keeping files per OBSID of a day-folder, by time; one listing serves all OBSIDs."""
    found: dict[int, list[tuple[str, Path]]] = {}
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries]
    except OSError:
        return {}
    for name in sorted(names):
        match = HK_EXPOSURE_RE.fullmatch(name)
        if match:
            found.setdefault(int(match["obsid"]), []).append((match["stamp"], Path(folder) / name))
    return {obsid: [path for _, path in sorted(files)] for obsid, files in found.items()}


def find_hk(folder: Path | str, obsid: int, index: Mapping[int, list[Path]] | None = None) -> Path | None:
    """House-keeping file of an OBSID, None when there is none.

    `index` (from `index_hk`) saves the listing of the folder.

    Raises
    ------
    InputError : several files for the OBSID, so that nobody knows which one belongs to it.
    """
    files = (index_hk(folder) if index is None else index).get(obsid, [])
    if len(files) > 1:
        raise InputError(
            f"{len(files)} house-keeping files for OBSID {obsid}: {', '.join(path.name for path in files)}",
            file=folder,
            expected="one",
            remedy="Move the file that does not belong to this exposure out of the folder",
        )
    return files[0] if files else None


def find_hk_masters(folder: Path | str) -> list[Path]:
    """Master house-keeping files of a day-folder, by date, then part."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if parse_hk_master_name(entry.name)]
    except OSError:
        return []
    return [Path(folder) / name for name in sorted(names, key=lambda n: (parse_hk_master_name(n), n))]


# ---- reading -------------------------------------------------------------------------------------
def read_hk(path: Path | str, day: Date | None = None, only: Collection[str] | None = None) -> HouseKeeping:
    """Read a house-keeping file.

    Parameters
    ----------
    path : per-exposure or master file.
    day : date of readings that carry only a time of day (prototypes); by default the date in the name.
    only : keys that are wanted (all by default): a few take a fifth of the time of all.

    Raises
    ------
    InputError : the file cannot be read or has no header with a time column. Bad lines are problems.
    """
    path = Path(path)
    lines, unfinished = _lines(path)
    parser = HKParser(path, day=day, only=only)
    housekeeping = HouseKeeping(path=path, problems=parser.problems)
    if _is_transposed(lines):
        _read_transposed(lines, parser, housekeeping)
        return housekeeping
    parser.collect(lines, housekeeping)
    if unfinished:
        parser.note("unfinished", len(lines) + 1, "the last line has no line end and is left out")
    if parser.keys is None:
        raise _no_header(path)
    return housekeeping


def _lines(path: Path) -> tuple[list[str], bool]:
    """(complete lines, whether an unfinished one follows)."""
    try:
        data = read_bounded(path, MAX_BYTES)
    except OSError as error:
        raise InputError(f"the house-keeping file cannot be read ({error.strerror})", file=path) from error
    lines = data.decode("utf-8", errors="replace").split("\n")
    last = lines.pop()
    return lines, bool(last.strip())


def _no_header(path: Path) -> InputError:
    return InputError(
        "has no header with a time column",
        file=path,
        where=1,
        expected="TimeStamp and the keys, tab separated",
        remedy="Copy the file again from the acquisition PC, or move it out of the folder",
    )


class HKParser:
    """Turns lines of a house-keeping file into readings; keeps the header between calls.

    With `only`, cells of other keys are not looked at, and the keys are "".
    """

    def __init__(self, path: Path | str, day: Date | None = None, only: Collection[str] | None = None):
        self.path = Path(path)
        self.keys: list[str] | None = None
        self.line = 0
        self.problems: list[Problem] = []
        self._only = only
        self._wanted: list[int] = []  # places of those keys
        self._day = day or _day_of(self.path)
        self._last: datetime | None = None

    def note(self, kind: str, line: int, text: str) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(kind, str(self.path), line, text))

    def collect(self, lines: Iterable[str], into: HouseKeeping) -> None:
        """Add the readings of `lines` to `into`."""
        readings = self.feed(lines)
        if self.keys is None:
            return
        into.times.extend(time for time, _ in readings)
        columns = (
            zip(*(numbers for _, numbers in readings), strict=True) if readings else ([] for _ in self.keys)
        )
        for key, column in zip(self.keys, columns, strict=True):
            if key:
                into.values.setdefault(key, []).extend(column)
        for key in self.keys:  # the 7.5 names of prototype keys, beside them
            new = elvis.hk_current_name(key)
            if new and new not in self.keys:
                into.values[new] = into.values[key]

    def feed(self, lines: Iterable[str]) -> list[tuple[datetime, list[float]]]:
        """(time, values in the order of ``keys``) of each reading in `lines`."""
        readings = []
        for line in lines:
            self.line += 1
            text = line.rstrip("\r\n")
            if not text.strip() or text.lstrip().startswith("#"):
                continue
            if self.keys is None:
                self._header(text)
                continue
            reading = self._reading(text)
            if reading is not None:
                readings.append(reading)
        return readings

    def _header(self, text: str) -> None:
        names = [name.strip() for name in text.lstrip("\ufeff").split("\t")]
        if names[0].lower() not in _TIME_NAMES:
            raise _no_header(self.path)
        while names and not names[-1]:
            names.pop()
        keys: list[str] = []
        for name in names[1:]:
            if name in keys:
                self.note("unknown_column", self.line, f"key {name} is there twice: the first counts")
            keys.append("" if name in keys else name)
        if self._only is not None:
            keys = [
                key if key in self._only or elvis.hk_current_name(key) in self._only else "" for key in keys
            ]
            self._wanted = [place for place, key in enumerate(keys) if key]
        self.keys = keys

    def _reading(self, text: str) -> tuple[datetime, list[float]] | None:
        cells = text.split("\t")
        if len(cells) == len(self.keys) + 2 and not cells[-1].strip():
            cells.pop()
        if len(cells) != len(self.keys) + 1:
            self.note(
                "bad_line",
                self.line,
                f"{len(cells)} values for {len(self.keys) + 1} columns: reading left out",
            )
            return None
        time = self.time(cells[0])
        if time is None:
            self.note("bad_line", self.line, "the time cannot be read: reading left out")
            return None
        if self._only is not None:
            numbers = [math.nan] * len(self.keys)
            for place in self._wanted:
                numbers[place] = _number(cells[1 + place], self.keys[place])
            return time, numbers
        numbers = _plain_numbers(cells[1:])
        if numbers is not None:
            return time, numbers
        numbers = [_number(cell, key) for key, cell in zip(self.keys, cells[1:], strict=True)]
        bad = [
            key
            for key, cell, number in zip(self.keys, cells[1:], numbers, strict=True)
            if math.isnan(number) and cell.strip().lower().lstrip("+-") not in ("", "nan", "inf", "infinity")
        ]
        if bad:
            self.note("bad_value", self.line, f"no number: {', '.join(bad[:8])}")
        return time, numbers

    def time(self, text: str) -> datetime | None:
        """Time of a reading; one without a date belongs to the file's day, or a later one after midnight."""
        try:
            return parse_hk_time(text)
        except ValueError:
            match = _CLOCK.fullmatch(text.strip())
        if not match:
            return None
        hour, minute, second = map(int, match.groups())
        if hour > 23 or minute > 59 or second > 59:
            return None
        time = datetime(self._day.year, self._day.month, self._day.day, hour, minute, second)
        if self._last and self._last - time > timedelta(hours=12):
            time += timedelta(days=1)
            self._day = time.date()
        self._last = time
        return time


def _day_of(path: Path) -> Date:
    """Date in the name of a house-keeping file; 1 Jan 1970 when it has none."""
    match = HK_EXPOSURE_RE.fullmatch(path.name)
    if match:
        try:
            return parse_stamp(match["stamp"]).date()
        except ValueError:
            pass
    master = parse_hk_master_name(path.name)
    return master[0] if master else Date(1970, 1, 1)


def _plain_numbers(cells: list[str]) -> list[float] | None:
    """The numbers of a line on which every cell is a plain finite one, None for any other line: the fast way."""
    if not _PLAIN.fullmatch("\t".join(cells)):
        return None
    numbers = list(map(float, cells))
    return numbers if all(map(math.isfinite, numbers)) else None


def _number(cell: str, key: str) -> float:
    """Number in a cell, NaN when it is none. The status register of 6.3 is hexadecimal text."""
    text = cell.strip()
    if _NUMBER.fullmatch(text):
        value = float(text)
        return value if math.isfinite(value) else math.nan
    match = _HEX.fullmatch(text) if key == "SPW_STATUS_REG" else None
    return float(int(match[1], 16)) if match else math.nan


def _is_transposed(lines: list[str]) -> bool:
    """Whether the file has one line per key: its first line is the time key followed by times."""
    first = next((line for line in lines if line.strip() and not line.lstrip().startswith("#")), "")
    cells = [cell.strip() for cell in first.rstrip("\r\n").split("\t")]
    return (
        cells[0].lower() in _TIME_NAMES and len(cells) > 1 and any(_CLOCK.search(cell) for cell in cells[1:])
    )


def _read_transposed(lines: list[str], parser: HKParser, into: HouseKeeping) -> None:
    for number, line in enumerate(lines, start=1):
        cells = [cell.strip() for cell in line.rstrip("\r\n").split("\t")]
        if not cells[0] or cells[0].startswith("#"):
            continue
        while cells and not cells[-1]:
            cells.pop()
        if cells[0].lower() in _TIME_NAMES:
            times = [parser.time(cell) for cell in cells[1:]]
            if None in times:
                raise _no_header(parser.path)
            into.times = times
        elif len(cells) != len(into.times) + 1:
            parser.note(
                "bad_line", number, f"{len(cells) - 1} values for {len(into.times)} times: key left out"
            )
        else:
            into.values[cells[0]] = [_number(cell, cells[0]) for cell in cells[1:]]
            new = elvis.hk_current_name(cells[0])
            if new:
                into.values.setdefault(new, into.values[cells[0]])


# ---- writing -------------------------------------------------------------------------------------
def format_hk_header(version: str = elvis.DEFAULT_VERSION) -> str:
    """Header line of a version, without line end."""
    return "\t".join(elvis.hk_columns(version))


def format_hk_rows(
    readings: Iterable[tuple[datetime, Mapping[str, float]]],
    version: str = elvis.DEFAULT_VERSION,
    decimals: int = 3,
) -> list[str]:
    """One line per (time, values by key), as ELVIS writes them, without line ends.

    Numbers carry `decimals` decimals, integers none; a key without a value is written NaN.
    """
    keys = elvis.hk_columns(version)[1:]
    return [
        "\t".join([format_hk_time(time), *(_cell(values.get(key), decimals) for key in keys)])
        for time, values in readings
    ]


def _cell(value: float | None, decimals: int) -> str:
    if value is None or value != value:
        return "NaN"
    return str(int(value)) if isinstance(value, int) else f"{float(value):.{decimals}f}"


class HKWriter:
    """Appends readings to a per-exposure or master house-keeping file; header when the file is new."""

    def __init__(
        self, path: Path | str, version: str = elvis.DEFAULT_VERSION, eol: str = "\r\n", decimals: int = 3
    ):
        self.path = Path(path)
        self.version = elvis.version_key(version)
        self._eol = eol
        self._decimals = decimals

    def write(self, *readings: tuple[datetime, Mapping[str, float]]) -> None:
        """Append (time, values by key) pairs."""
        rows = format_hk_rows(readings, self.version, self._decimals)
        text = "".join(row + self._eol for row in rows)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="utf-8", newline="") as stream:
            if stream.tell() == 0:
                text = format_hk_header(self.version) + self._eol + text
            stream.write(text)
