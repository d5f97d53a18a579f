"""The exposure log (EXP-LOG) of ELVIS: read, merged over day-folders, written. Standard library only.

A log is tab separated text: one header line, then one row per OBSID and CCD. Columns are found by
their name in the header, whatever the version; rows carry the names of ELVIS 7.5, and the original
name beside it where a version had another one.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date as Date
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from calcamp.data import elvis
from calcamp.data.files import InputError, read_bounded
from calcamp.data.names import parse_explog_name, parse_stamp

#: Columns without which an exposure cannot be placed: they are always demanded.
NEEDED = ("ObsID", "File_name", "CCD", "date", "test")
MAX_BYTES = 256 * 1024 * 1024
MAX_LINE = 64 * 1024
MAX_PROBLEMS = 1000  # kept in full; a log full of garbage must not fill the memory

_NUMBER = re.compile(r"[+-]?(?:\d{1,40}\.?\d{0,40}|\.\d{1,40})(?:[eE][+-]?\d{1,3})?", re.ASCII)
_MISSING = frozenset(("", "nan", "-nan", "+nan", "inf", "-inf", "+inf"))


class Problem(NamedTuple):
    """Something in a log that does not stop the reading. ``line`` 0 stands for the whole file.

    Kinds: ``bad_line``, ``bad_value``, ``duplicate`` (same content again), ``conflict`` (same OBSID and
    CCD, other content: the first is kept), ``unfinished`` (last line still being written),
    ``unknown_column``, ``missing_column``, ``incomplete`` (an OBSID without all three CCDs).
    """

    kind: str
    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}{f', line {self.line}' if self.line else ''}: {self.text}"


class LoggedExposure(NamedTuple):
    """One OBSID: the rows of its CCDs."""

    obsid: int
    test: str
    ccds: dict[int, dict]  # CCD number -> row

    @property
    def values(self) -> dict:
        """The row of the lowest CCD: what was commanded is the same for all."""
        return self.ccds[min(self.ccds)]

    @property
    def complete(self) -> bool:
        """Whether all three CCDs are logged."""
        return set(self.ccds) >= {1, 2, 3}

    @property
    def time(self) -> datetime | None:
        """Start of the exposure, None when the log's stamp is not one."""
        try:
            return parse_stamp(str(self.values["date"]))
        except ValueError:
            return None

    @property
    def folder(self) -> Path:
        """Day-folder of the log that holds this exposure."""
        return Path(self.values["_folder"])

    @property
    def file_names(self) -> dict[int, str]:
        """File name without extension, by CCD."""
        return {ccd: row["File_name"] for ccd, row in self.ccds.items()}


class ExpLog:
    """Rows of one or several exposure logs, in the order of dates.

    Attributes
    ----------
    rows : typed values by 7.5 column name, None where nothing was logged, and ``_folder``, ``_log`` (file
        name), ``_lognumber`` (0-based), ``_line`` (1-based).
    problems : what was wrong and did not stop the reading.
    logs : the files read.
    versions : ELVIS version of each log by its header, None when the columns are no known list.
    columns : names of all columns, 7.5 names and the others, in the order met.
    """

    def __init__(
        self,
        rows: list[dict] | None = None,
        problems: list[Problem] | None = None,
        logs: list[Path] | None = None,
        versions: list[str | None] | None = None,
        columns: list[str] | None = None,
    ):
        self.rows = [] if rows is None else rows
        self.problems = [] if problems is None else problems
        self.logs = [] if logs is None else logs
        self.versions = [] if versions is None else versions
        self.columns = [] if columns is None else columns

    def exposures(self) -> list[LoggedExposure]:
        """Rows grouped by OBSID, in the order of their first row."""
        grouped: dict[int, dict[int, dict]] = {}
        for row in self.rows:
            grouped.setdefault(row["ObsID"], {})[_ccd_number(row["CCD"])] = row
        return [LoggedExposure(obsid, ccds[min(ccds)]["test"], ccds) for obsid, ccds in grouped.items()]

    def tests(self) -> dict[str, list[int]]:
        """OBSIDs of each test, in the order met."""
        found: dict[str, list[int]] = {}
        for exposure in self.exposures():
            found.setdefault(exposure.test, []).append(exposure.obsid)
        return found

    def from_obsid(self, first: int) -> ExpLog:
        """The log from the first row of OBSID `first` on (the start OBSID of a session)."""
        start = next((i for i, row in enumerate(self.rows) if row["ObsID"] == first), len(self.rows))
        return ExpLog(self.rows[start:], self.problems, self.logs, self.versions, self.columns)


# ---- reading -------------------------------------------------------------------------------------
def find_explogs(folder: Path | str) -> list[Path]:
    """Exposure logs of a day-folder, by the date in the name; an absent folder gives an empty list."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if parse_explog_name(entry.name)]
    except OSError:
        return []
    return [Path(folder) / name for name in sorted(names, key=lambda n: (parse_explog_name(n), n))]


def in_date_order(paths: Iterable[Path | str]) -> list[Path]:
    """Logs by the date in their name, then as given; names without a date come last."""
    return sorted((Path(path) for path in paths), key=lambda path: parse_explog_name(path.name) or Date.max)


def read_explog(
    paths: Path | str | Iterable[Path | str], needed: Sequence[str] = (), finished: bool = False
) -> ExpLog:
    """Read and merge exposure logs.

    Parameters
    ----------
    paths : one log or several (of one or more day-folders).
    needed : 7.5 column names, beside `NEEDED`, without which the caller cannot work.
    finished : take a last line without line end if it has all its values. By default it is left out,
        because ELVIS may still be writing it.

    Raises
    ------
    InputError : a log cannot be read, has no header, or lacks a needed column. Bad rows are problems, not errors.
    """
    single = isinstance(paths, str | os.PathLike)
    log = ExpLog()
    merger = Merger(log)
    for path in in_date_order([paths] if single else paths):
        parser = LogParser(path, needed=needed)
        merger.start(parser)
        for row in parser.feed(_lines(path, parser, finished)):
            merger.add(row)
        merger.finish(parser)
    for exposure in log.exposures():
        if not exposure.complete:
            row, have = exposure.values, ", ".join(f"CCD{n}" for n in sorted(exposure.ccds))
            merger.problem(
                Problem("incomplete", row["_log"], row["_line"], f"OBSID {exposure.obsid} has only {have}")
            )
    return log


def count_rows(path: Path | str, test: str) -> int:
    """Number of complete lines of a log that name `test`: cheap, for telling whether it grew. 0 for no file."""
    try:
        data = Path(path).read_bytes()
    except OSError:
        return 0
    return data[: data.rfind(b"\n") + 1].count(f"\t{test}\t".encode())


def _lines(path: Path, parser: LogParser, finished: bool) -> list[str]:
    """Complete lines of a log, without line ends."""
    try:
        data = read_bounded(path, MAX_BYTES)
    except OSError as error:
        raise InputError(
            f"the exposure log cannot be read ({error.strerror})",
            file=path,
            remedy="Check the day-folder of the session",
        ) from error
    lines = data.decode("utf-8", errors="replace").split("\n")
    last = lines.pop()
    if last.strip("\r\t "):
        if finished or not lines:
            lines.append(last)
        else:
            parser.note(
                "unfinished",
                len(lines) + 1,
                "the last line has no line end and is left out: still being written?",
            )
    return lines


class LogParser:
    """Turns the lines of one log into rows; the first line fed is the header.

    Feed it as lines arrive (`calcamp.data.follow`): it keeps the header and the line number.
    """

    def __init__(self, path: Path | str, needed: Sequence[str] = ()):
        self.path = Path(path)
        self.needed = tuple(dict.fromkeys((*NEEDED, *needed)))
        self.names: list[str] | None = None  # header as written, stripped
        self.version: str | None = None
        self.line = 0
        self.problems: list[Problem] = []
        self._cache: dict = {}

    def note(self, kind: str, line: int, text: str) -> None:
        """Keep a problem, up to a limit."""
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(kind, str(self.path), line, text))

    def feed(self, lines: Iterable[str]) -> list[dict]:
        """Rows of `lines` (without line ends)."""
        rows = []
        for line in lines:
            self.line += 1
            text = line.rstrip("\r\n")
            if self.names is None:
                if text.strip("\ufeff\t "):
                    self._header(text)
            elif text.strip():
                row = self._row(text)
                if row is not None:
                    rows.append(row)
        return rows

    @property
    def columns(self) -> list[str]:
        """7.5 names of the columns, the original names of others."""
        return [name for names in self._targets for name in names] if self.names else []

    def require_header(self) -> None:
        """`InputError` when no header has been seen."""
        if self.names is None:
            raise InputError(
                "is empty",
                file=self.path,
                expected="a header line with the column names",
                remedy="Wait for ELVIS, or copy the log again",
            )

    # ---- header ----------------------------------------------------------------------------------
    def _header(self, text: str) -> None:
        names = [name.strip() for name in text.lstrip("\ufeff").split("\t")]
        while names and not names[-1]:
            names.pop()
        current = [elvis.current_names(name) for name in names]
        if sum(map(bool, current)) < 3:
            raise InputError(
                "the first line is not the header of an exposure log",
                file=self.path,
                where=self.line,
                expected="tab separated column names such as ObsID, File_name, CCD",
                remedy="Logs without names cannot be read: export them with ELVIS 6.3 or later, or put the header line back",
            )
        self._targets = self._unique_targets(names, current)
        missing = [name for name in self.needed if all(name not in targets for targets in self._targets)]
        if missing:
            raise InputError(
                f"column {missing[0]} is missing"
                if len(missing) == 1
                else f"columns {', '.join(missing)} are missing",
                file=self.path,
                where=self.line,
                expected="the column names of ELVIS 7.5 or their older forms",
                remedy="Put the header line of ELVIS back, or leave this log out of the session",
            )
        self.version = elvis.explog_version(names)
        self._milliseconds = elvis.written_before_63(names)
        known = {name for targets in self._targets for name in targets}
        absent = [name for name in elvis.explog_columns() if name not in known]
        if absent:
            self.note("missing_column", self.line, f"columns not logged: {', '.join(absent)}")
        others = [name for name, targets in zip(names, current, strict=True) if not targets]
        if others:
            self.note("unknown_column", self.line, f"columns kept under their own name: {', '.join(others)}")
        self.names = names

    def _unique_targets(self, names: list[str], current: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
        """Row keys that each column fills; a name met again fills nothing and is reported."""
        seen: set[str] = set()
        targets = []
        for position, (name, new) in enumerate(zip(names, current, strict=True), start=1):
            wanted = tuple(key for key in (*new, name or f"column_{position}") if key not in seen)
            if not any(key in wanted for key in (new or (name,))):
                self.note(
                    "unknown_column",
                    self.line,
                    f"column {position} ({name or 'no name'}) is there twice: the first counts",
                )
                wanted = ()
            wanted = tuple(dict.fromkeys(wanted))
            seen.update(wanted)
            targets.append(wanted)
        return targets

    # ---- rows ------------------------------------------------------------------------------------
    def _row(self, text: str) -> dict | None:
        if len(text) > MAX_LINE:
            self.note("bad_line", self.line, f"{len(text)} characters: not a row")
            return None
        cells = text.split("\t")
        if len(cells) == len(self.names) + 1 and not cells[-1].strip():
            cells.pop()
        if len(cells) != len(self.names):
            self.note(
                "bad_line", self.line, f"{len(cells)} values for {len(self.names)} columns: row left out"
            )
            return None
        row: dict = {}
        bad: list[str] = []
        for targets, cell in zip(self._targets, cells, strict=True):
            for key in targets:
                value, fault = self._value(key, cell)
                row[key] = value
                if fault:
                    bad.append(f"{key} {fault}")
        if not self._placeable(row):
            return None
        if bad:
            self.note(
                "bad_value", self.line, f"OBSID {row['ObsID']}: {', '.join(bad[:8])}; taken as not logged"
            )
        if self._milliseconds and row.get("exptime") is not None:
            row["exptime"] /= 1000.0  # s from 6.3 on; the original column keeps the ms
        row.update(_folder=str(self.path.parent), _log=self.path.name, _line=self.line)
        return row

    def _placeable(self, row: dict) -> bool:
        """Whether a row says which exposure and CCD it is of."""
        problem = None
        if not isinstance(row.get("ObsID"), int) or row["ObsID"] < 0:
            problem = "ObsID is not a number"
        elif "CCD" in row and _ccd_number(row["CCD"]) is None:
            problem = f"CCD is {row['CCD'][:20]!r}, not CCD1 to CCD3"
        elif "File_name" in row and not _is_plain_name(row["File_name"]):
            problem = "File_name is not the name of a file"
        if problem:
            self.note("bad_line", self.line, f"{problem}: row left out")
        return problem is None

    def _value(self, key: str, cell: str) -> tuple[object, str]:
        """(typed value, fault); the same texts come back in every row, so they are kept."""
        kept = self._cache.get((key, cell))
        if kept is None:
            kept = _typed(elvis.EXPLOG_TYPES.get(key), cell.strip())
            if len(self._cache) < 100_000:
                self._cache[key, cell] = kept
        return kept


def _typed(kind: type | None, text: str) -> tuple[object, str]:
    """Value of a cell: int, float or str by column type, by its look where the type is not known."""
    if kind is str:
        return (
            (text, "")
            if text.isprintable() and "\ufffd" not in text
            else (_printable(text), "has unreadable characters")
        )
    if text.lower() in _MISSING:
        return (None, "") if kind is not None or text == "" else (text, "")
    if not _NUMBER.fullmatch(text):
        return (
            (_printable(text), "") if kind is None else (None, f"is not a number: {_printable(text)[:20]!r}")
        )
    value = float(text)
    if not math.isfinite(value) or abs(value) > 1e18:
        return None, "is out of range"
    if kind is float:
        return value, ""
    if value == int(value) and (kind is int or "." not in text):
        return int(value), ""
    return (value, "") if kind is None else (None, f"is not a whole number: {text[:20]}")


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def _ccd_number(text: str) -> int | None:
    """1 to 3 of ``CCD1`` to ``CCD3``."""
    text = str(text).strip().upper()
    return int(text[3]) if len(text) == 4 and text.startswith("CCD") and text[3] in "123" else None


def _is_plain_name(name: str) -> bool:
    """A file name that stays in its folder."""
    return (
        bool(name)
        and name not in (".", "..")
        and not any(c in name for c in "/\\\0\ufffd")  # the last stands for what was not printable
        and name.isprintable()
        and len(name.encode()) < 240  # with a suffix, at most what file systems take
    )


class Merger:
    """Adds rows of several logs to one `ExpLog`, leaving out what is there already.

    Two rows are the same exposure when OBSID and CCD agree. Equal content is a duplicate; other content
    is a conflict (the OBSID counter was reset, or a log was edited): the first is kept, and said so.
    """

    def __init__(self, log: ExpLog):
        self.log = log
        self._seen: dict[tuple, dict] = {}

    def problem(self, problem: Problem) -> None:
        if len(self.log.problems) < MAX_PROBLEMS:
            self.log.problems.append(problem)

    def start(self, parser: LogParser) -> None:
        """Begin with the log of `parser`."""
        self.log.logs.append(parser.path)
        self.log.versions.append(None)

    def add(self, row: dict) -> bool:
        """Keep `row` unless its exposure is there; True when kept."""
        key = (row["ObsID"], _ccd_number(row.get("CCD", "")))
        row["_lognumber"] = len(self.log.logs) - 1
        first = self._seen.get(key)
        if first is None:
            self._seen[key] = row
            self.log.rows.append(row)
            return True
        same = all(value == first.get(name) for name, value in row.items() if not name.startswith("_"))
        where = f"line {first['_line']} of {first['_log']}"
        text = f"OBSID {row['ObsID']} {row.get('CCD', '')} is there already ({where})"
        if not same:
            differing = [n for n, v in row.items() if not n.startswith("_") and v != first.get(n)]
            text += f" with other values of {', '.join(differing[:6])}: the first counts"
        self.problem(Problem("duplicate" if same else "conflict", row["_log"], row["_line"], text))
        return False

    def finish(self, parser: LogParser) -> None:
        """End of the log of `parser`: its problems, version and columns."""
        parser.require_header()
        for problem in parser.problems:
            self.problem(problem)
        self.log.versions[-1] = parser.version
        self.log.columns.extend(name for name in parser.columns if name not in self.log.columns)


# ---- writing -------------------------------------------------------------------------------------
def format_explog_header(version: str = elvis.DEFAULT_VERSION) -> str:
    """Header line of a version, without line end."""
    return "\t".join(elvis.explog_columns(version))


def format_explog_row(values: Mapping[str, object], version: str = elvis.DEFAULT_VERSION) -> str:
    """One row as ELVIS writes it, without line end.

    `values` go by 7.5 name, or by the version's own name, which comes first. A value that is absent or
    None is left empty.
    """
    before_63 = elvis.written_before_63(elvis.explog_columns(version))
    cells = []
    for name in elvis.explog_columns(version):
        new = elvis.current_names(name)
        value = values.get(name)
        if value is None and new and new[0] in values:
            value = values[new[0]]
            if before_63 and new[0] == "exptime" and value is not None:
                value = value * 1000.0
        cells.append(_cell(value, elvis.EXPLOG_TYPES.get(new[0] if new else name)))
    return "\t".join(cells)


def _cell(value: object, kind: type | None) -> str:
    if value is None:
        return ""
    if kind is int and isinstance(value, float) and value == int(value):
        value = int(value)
    if isinstance(value, bool):
        value = int(value)
    if isinstance(value, float):
        return repr(float(value))
    return " ".join(str(value).split()) if isinstance(value, str) else str(value)


class ExpLogWriter:
    """Appends rows to an exposure log, writing the header when the file is new.

    Parameters
    ----------
    path : the log, usually named by `calcamp.data.names.explog_name`.
    version : ELVIS version.
    eol : line end; ELVIS writes CRLF.
    trailing_tab : end each line with a tab, as some versions do.
    """

    def __init__(
        self,
        path: Path | str,
        version: str = elvis.DEFAULT_VERSION,
        eol: str = "\r\n",
        trailing_tab: bool = False,
    ):
        self.path = Path(path)
        self.version = elvis.version_key(version)
        self._end = ("\t" if trailing_tab else "") + eol

    def write(self, *rows: Mapping[str, object]) -> None:
        """Append `rows` (see `format_explog_row`) and hand them to the system."""
        text = "".join(format_explog_row(row, self.version) + self._end for row in rows)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="utf-8", newline="") as stream:
            if stream.tell() == 0:
                text = format_explog_header(self.version) + self._end + text
            stream.write(text)
