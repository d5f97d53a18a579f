"""ELVIS acquisition scripts and the files beside them: cells, checksums, inventory, scheduler sheet.

A script is one sheet without a header: keys down column A, one column per test column, then ``End``.
The first row holds the *cumulative* number of frames. In memory a column keeps its own number.
openpyxl is loaded by the functions that need it.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date as Date
from datetime import datetime
from pathlib import Path

from calcamp.data.elvis import SCRIPT_DEFAULTS
from calcamp.data.files import InputError, write_atomic
from calcamp.data.names import MONTHS, full_year

#: Keys of a script in the order of its rows.
SCRIPT_KEYS = tuple(SCRIPT_DEFAULTS)
#: Keys whose cells hold text.
TEXT_KEYS = tuple(key for key, value in SCRIPT_DEFAULTS.items() if isinstance(value, str))

SCRIPT_RE = re.compile(
    r"vis_CalCamp_(?P<test>[A-Z][0-9A-Z_]*(?:\.[0-9]+)?)_(?P<date>[0-9]{2}[A-Z][a-z]{2}[0-9]{2})_v(?P<elvis>[0-9][0-9A-Za-z.]*)\.xlsx"
)
#: A workbook larger than this when unpacked, or packed more tightly, is refused: no script comes near.
MAX_UNPACKED_BYTES = 64 * 1024 * 1024
MAX_RATIO = 200
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class ScriptColumn:
    """One column of a script: its own number of frames, and the value of every other key."""

    frames: int
    keys: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class ScriptName:
    """What the name of a script says."""

    test: str  # with its iteration tag
    day: Date
    elvis: str


# ---- names ---------------------------------------------------------------------------------------
def day_text(day: Date) -> str:
    """``01Apr19``, in English whatever the locale."""
    return f"{day.day:02d}{MONTHS[day.month - 1]}{day.year % 100:02d}"


def script_name(test: str, day: Date, elvis: str) -> str:
    """``vis_CalCamp_FOCUS00_800_01Apr19_v7.5.X.xlsx``."""
    return f"vis_CalCamp_{test}_{day_text(day)}_v{elvis}.xlsx"


def parse_script_name(name: str) -> ScriptName | None:
    """What a file name says; None when it is not the name of a script."""
    match = SCRIPT_RE.fullmatch(name)
    if match is None:
        return None
    text = match["date"]
    try:
        day = Date(full_year(int(text[5:])), MONTHS.index(text[2:5]) + 1, int(text[:2]))
    except ValueError:
        return None
    return ScriptName(match["test"], day, match["elvis"])


def find_scripts(folder: Path) -> dict[str, list[Path]]:
    """Test name → its scripts in a folder, oldest first; other files are passed over."""
    found: dict[str, list[tuple[Date, str, Path]]] = {}
    for path in sorted(Path(folder).iterdir()):
        name = parse_script_name(path.name)
        if name is not None and path.is_file():
            found.setdefault(name.test, []).append((name.day, path.name, path))
    return {test: [path for *_, path in sorted(files)] for test, files in found.items()}


# ---- workbooks -----------------------------------------------------------------------------------
def set_cell(sheet, row: int, column: int, value) -> None:
    """Put a value in a cell; text stays text, also when it begins with ``=``.

    Numbers are number cells, an empty text leaves the cell empty.
    """
    if value is None or value == "":
        return
    cell = sheet.cell(row=row, column=column)
    if isinstance(value, str):
        cell.value = _CONTROL.sub("?", value)
        cell.data_type = "s"  # openpyxl takes a leading = for a formula
    else:
        cell.value = value


def open_workbook(source: Path | bytes, *, name: str | None = None, **options):
    """An openpyxl workbook from a file that a person gave.

    Raises
    ------
    InputError
        Not a workbook, damaged, or one that unpacks to an absurd size.
    """
    import warnings

    import openpyxl

    label = name or str(source)
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", file=label) from error
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            unpacked = sum(member.file_size for member in members)
        if unpacked > MAX_UNPACKED_BYTES or unpacked > MAX_RATIO * max(len(data), 50_000):
            raise InputError(
                f"unpacks to {unpacked / 1e6:.0f} MB, which no workbook of a campaign does",
                file=label,
                remedy="Do not open it; ask where it comes from.",
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return openpyxl.load_workbook(io.BytesIO(data), **options)
    except InputError:
        raise
    except Exception as error:  # zipfile, xml and openpyxl raise many kinds for a damaged file
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(
            f"cannot be read as a workbook ({reason})",
            file=label,
            expected="an .xlsx file",
            remedy="Write it again, or save it again as .xlsx.",
        ) from error


def _save(book, path: Path) -> Path:
    stream = io.BytesIO()
    book.save(stream)
    return write_atomic(path, stream.getvalue())


# ---- scripts -------------------------------------------------------------------------------------
def script_columns(columns: Iterable, campaign: Mapping[str, object] | None = None) -> list[ScriptColumn]:
    """Complete columns from declared ones.

    Parameters
    ----------
    columns
        Objects with ``frames`` and ``keys`` (the values that differ from the ELVIS defaults).
    campaign
        Values that win over everything in every column: serials and operator.

    Raises
    ------
    InputError
        A key that ELVIS does not know, or no frames.
    """
    made = []
    for number, column in enumerate(columns, 1):
        keys = {**SCRIPT_DEFAULTS, **column.keys, **(campaign or {})}
        unknown = set(keys) - set(SCRIPT_DEFAULTS)
        if unknown:
            raise InputError(f"keys unknown to ELVIS: {', '.join(sorted(unknown))}", where=f"column {number}")
        if int(column.frames) < 1:
            raise InputError("a column needs at least one frame", where=f"column {number}")
        del keys["frames"]
        made.append(ScriptColumn(int(column.frames), keys))
    return made


def write_script(path: Path, columns: Sequence[ScriptColumn]) -> Path:
    """Write a script, atomically. `columns` hold all keys (see `script_columns`)."""
    import openpyxl

    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Sheet1"
    for row, key in enumerate(SCRIPT_KEYS, 1):
        set_cell(sheet, row, 1, key)
    total = 0
    for number, column in enumerate(columns, 2):
        total += column.frames
        set_cell(sheet, 1, number, total)
        for row, key in enumerate(SCRIPT_KEYS[1:], 2):
            set_cell(sheet, row, number, column.keys[key])
    set_cell(sheet, 1, len(columns) + 2, "End")
    return _save(book, Path(path))


def read_script(path: Path) -> list[ScriptColumn]:
    """Columns of a script.

    Raises
    ------
    InputError
        Names the file and the cell: keys that are not those of ELVIS, no ``End``, frames that do not grow,
        a formula, text where a number belongs.
    """
    book = open_workbook(path, data_only=False)
    try:
        if not book.worksheets:
            raise InputError("holds no sheet", file=path, remedy="Write it again.")
        sheet = book.worksheets[0]
        if sheet.max_row > 10_000 or sheet.max_column > 2_000:
            raise InputError("is far larger than a script", file=path)
        rows = [[cell.value for cell in row] for row in sheet.iter_rows()]
        formulas = [cell.coordinate for row in sheet.iter_rows() for cell in row if cell.data_type == "f"]
    finally:
        book.close()
    if formulas:
        raise InputError("holds a formula", file=path, where=f"cell {formulas[0]}", expected="plain values")
    names = [_text(row[0]) if row else "" for row in rows]
    if tuple(names[: len(SCRIPT_KEYS)]) != SCRIPT_KEYS or any(names[len(SCRIPT_KEYS) :]):
        row, expected = _first_difference(names)
        raise InputError(
            f"holds {names[row] if row < len(names) else ''!r}",
            file=path,
            where=f"cell A{row + 1}",
            expected=f"the key {expected}" if expected else "nothing below the last key",
        )
    header = rows[0]
    end = next((i for i, value in enumerate(header) if _text(value) == "End"), None)
    if end is None or end < 2:
        raise InputError("has no column of frames before 'End' in row 1", file=path, where="row 1")
    columns, total = [], 0
    for i in range(1, end):
        cumulative = header[i]
        if not isinstance(cumulative, int | float) or cumulative != int(cumulative) or cumulative <= total:
            raise InputError(
                f"holds {cumulative!r}",
                file=path,
                where=f"cell {_coordinate(1, i + 1)}",
                expected=f"a whole number above {total}: frames are counted from the first column",
            )
        keys = {key: _value(key, rows[r][i], path, r + 1, i + 1) for r, key in enumerate(SCRIPT_KEYS) if r}
        columns.append(ScriptColumn(int(cumulative) - total, keys))
        total = int(cumulative)
    return columns


def _first_difference(names: Sequence[str]) -> tuple[int, str | None]:
    for i, key in enumerate(SCRIPT_KEYS):
        if i >= len(names) or names[i] != key:
            return i, key
    return next(i for i in range(len(SCRIPT_KEYS), len(names)) if names[i]), None


def _value(key: str, value, path: Path, row: int, column: int):
    if key in TEXT_KEYS:
        return _text(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(
            f"holds {value!r} for {key}",
            file=path,
            where=f"cell {_coordinate(row, column)}",
            expected="a number",
        )
    return value


def _text(value) -> str:
    return "" if value is None else str(value).strip()


def _coordinate(row: int, column: int) -> str:
    from openpyxl.utils import get_column_letter

    return f"{get_column_letter(column)}{row}"


# ---- differences ---------------------------------------------------------------------------------
def compare_scripts(old: Sequence[ScriptColumn], new: Sequence[ScriptColumn]) -> list[dict]:
    """What changed between two writings of a test.

    Returns
    -------
    list of {"key", "columns", "old", "new"}
        One entry per key and stretch of columns with the same change; columns are numbered from 1, ``old``
        and ``new`` are the values of those columns. A different number of columns has key ``columns``.
    """
    changes: list[dict] = []
    if len(old) != len(new):
        changes.append({"key": "columns", "columns": [], "old": [len(old)], "new": [len(new)]})
    pairs = list(zip(old, new, strict=False))
    for key in SCRIPT_KEYS:
        differing = [
            (number, _of(a, key), _of(b, key))
            for number, (a, b) in enumerate(pairs, 1)
            if not same_value(_of(a, key), _of(b, key))
        ]
        if differing:
            changes.append(
                {
                    "key": key,
                    "columns": [number for number, *_ in differing],
                    "old": [before for _, before, _ in differing],
                    "new": [after for *_, after in differing],
                }
            )
    return changes


def _of(column: ScriptColumn, key: str):
    return column.frames if key == "frames" else column.keys[key]


def same_value(a, b) -> bool:
    """Numbers by value with a relative tolerance of 1e-9, all else exactly."""
    if isinstance(a, int | float) and isinstance(b, int | float):
        return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)
    return a == b


# ---- files beside the scripts --------------------------------------------------------------------
def md5(path: Path) -> str:
    """Hexadecimal MD5 of a file, as the operators' checksum files hold it; against accidents, not attacks."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def write_check_sums(path: Path, scripts: Iterable[Path]) -> Path:
    """One line per script: name in 60 characters, a tab, MD5."""
    return write_atomic(path, "".join(f"{script.name:<60}\t{md5(script)}\n" for script in scripts))


def read_check_sums(folder: Path) -> dict[str, set[str]]:
    """Script name → the checksums that the folder's ``CHECK_SUMS_*.txt`` give for it."""
    found: dict[str, set[str]] = {}
    for path in sorted(Path(folder).glob("CHECK_SUMS_*.txt")):
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if not line.strip():
                continue
            name, _, digest = line.rpartition("\t")
            if not re.fullmatch(r"[0-9a-fA-F]{32}", digest.strip()) or not name.strip():
                raise InputError(
                    "is not a line of checksums", file=path, where=number, expected="file name, tab, MD5"
                )
            found.setdefault(name.strip(), set()).add(digest.strip().lower())
    return found


@dataclass(frozen=True)
class InventoryLine:
    """A test as the inventory and the scheduler's sheet list it."""

    test: str
    columns: tuple[int, ...]  # frames of each column
    minutes: float

    @property
    def frames(self) -> int:
        return sum(self.columns)

    def text(self) -> str:
        """``BIAS01: 1 [15.58 min] cols: [10]``: the number after the name is that of columns."""
        return f"{self.test}: {len(self.columns)} [{self.minutes:.2f} min] cols: {list(self.columns)}"


def inventory_text(lines: Sequence[InventoryLine], when: datetime, checksums: str, version: str) -> str:
    """Text of TESTS_INVENTORY; totals are made from unrounded values."""
    head = [
        f"Scripts written on {day_text(when)} {when:%H:%M:%S}",
        f"checksumf: {checksums}",
        f"calcamp version: {version}",
        "",
    ]
    tail = [
        "",
        f" {sum(line.frames for line in lines)} Frames Total",
        "",
        f" {sum(line.minutes for line in lines):.2f} Minutes Total",
    ]
    return "\n".join(head + [line.text() for line in lines] + tail) + "\n"


def write_scheduler(
    path: Path, lines: Sequence[InventoryLine], when: datetime, checksums: str, version: str, folder: str
) -> Path:
    """The summary as a workbook, whose rows of sheet ``Tests`` paste into the scheduler's sheet."""
    import openpyxl

    book = openpyxl.Workbook()
    meta = book.active
    meta.title = "Meta"
    values = {
        "date": f"{day_text(when)} {when:%H:%M:%S}",
        "checksumfile": checksums,
        "version": version,
        "path": folder,
        "Nframes": str(sum(line.frames for line in lines)),
        "Total_duration": f"{sum(line.minutes for line in lines):.2f}",
    }
    for row, (key, value) in enumerate(values.items(), 5):
        set_cell(meta, row, 1, key)
        set_cell(meta, row, 2, value)
    sheet = book.create_sheet("Tests")
    for column, name in enumerate(("Test", "Ncols", "Nframes", "Duration_min"), 1):
        set_cell(sheet, 1, column, name)
    for row, line in enumerate(lines, 2):
        for column, value in enumerate((line.test, len(line.columns), line.frames, f"{line.minutes:.2f}"), 1):
            set_cell(sheet, row, column, value)
    return _save(book, Path(path))
