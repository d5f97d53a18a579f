"""The test record: tab ``TESTS_RECORD`` of a workbook that people keep and calcamp fills in.

Rows are found by (block, test, session), columns by their names in the header row. Only calcamp's own
columns are written, and in them only cells that nobody has typed into: what calcamp wrote last stands in a
hidden sheet, and a cell that differs from it is a person's. The file is replaced as a whole, under a lock.
openpyxl and filelock are loaded by the functions that need them.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import time
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date as Date
from datetime import datetime
from pathlib import Path

from calcamp.data.files import InputError, write_atomic
from calcamp.data.scripts import open_workbook, set_cell

SHEET = "TESTS_RECORD"
#: Columns of calcamp in the order in which a new sheet has them.
COLUMNS = (
    *("block", "test", "session", "day_folder", "obsid_first", "obsid_last", "script", "status", "verdict"),
    *("flags", "headline", "n_frames", "started", "ended", "report", "version", "operator_comment"),
)
KEY = ("block", "test", "session")
#: Never written: it belongs to people.
PEOPLES = ("operator_comment",)
#: Names that people give to these columns.
SYNONYMS = {
    "first_obsid": "obsid_first",
    "last_obsid": "obsid_last",
    "obsid_1": "obsid_first",
    "obsid_2": "obsid_last",
    "obsid_start": "obsid_first",
    "obsid_end": "obsid_last",
    "dayfolder": "day_folder",
    "date_folder": "day_folder",
    "test_name": "test",
    "session_name": "session",
    "test_script": "script",
    "test_script_name": "script",
    "script_name": "script",
    "comment": "operator_comment",
    "comments": "operator_comment",
    "frames": "n_frames",
}
LAST_WRITTEN = "calcamp_last_written"  # hidden sheet
_HEADER_ROWS = 50  # the header is looked for in these
LOCK_SECONDS = 30.0
_MAX_CELL = 32_000  # characters

# Parts of a workbook that openpyxl does not write again and that nobody misses.
_EXPENDABLE = (
    "xl/calcChain.xml",
    "xl/sharedStrings.xml",
    "docProps/",
    "xl/printerSettings/",
    "[Content_Types].xml",
)
# Elements inside kept parts that openpyxl may drop, and what they are for a person.
_FRAGILE_SHEET = {
    rb"<(?:\w+:)?extLst[ >]": "extensions of a sheet (new conditional formats, sparklines, slicers)",
    rb"<(?:\w+:)?oleObject[ >]": "embedded objects",
    rb"<(?:\w+:)?controls[ >]": "form controls",
    rb"<(?:\w+:)?dataValidation[ >]": "rules for input",
    rb"<(?:\w+:)?cfRule[ >]": "conditional formats",
    rb"<(?:\w+:)?f[ >]": "formulas",
}
_FRAGILE_DRAWING = {
    rb"<(?:\w+:)?sp[ >]": "shapes",
    rb"<(?:\w+:)?cxnSp[ >]": "connectors",
    rb"<(?:\w+:)?grpSp[ >]": "grouped shapes",
    rb"<(?:\w+:)?pic[ >]": "pictures",
    rb"<(?:\w+:)?graphicFrame[ >]": "charts",
}
_FRAGILE = {
    r"xl/worksheets/[^/]+\.xml": _FRAGILE_SHEET,
    r"xl/drawings/[^/]+\.xml": _FRAGILE_DRAWING,
    r"xl/workbook\.xml": {rb"<(?:\w+:)?definedName[ >]": "names of ranges"},
}


@dataclass
class Outcome:
    """What a writing of the record did.

    ``state`` is written, unchanged, queued (open elsewhere) or beside (written to a side file, because a part
    of the workbook would have been lost).
    """

    state: str
    path: Path
    new_rows: int = 0
    changed_rows: int = 0
    kept: list[str] = field(default_factory=list)  # cells of people that calcamp would have changed
    copy: Path | None = None  # dated copy made before this writing
    queued: int = 0
    reason: str = ""


# ---- rows from results ---------------------------------------------------------------------------
def row_from_verdict(verdict: Mapping, folder: Path) -> dict[str, object]:
    """A row of the record from a test's verdict.json; `folder` holds it and the report."""
    obsids = [*(verdict.get("obsids") or []), None, None]
    frames = verdict.get("frames") or {}
    flags = [flag.get("name") for flag in verdict.get("flags") or [] if isinstance(flag, Mapping)]
    report = verdict.get("report")
    report = report.get("pdf") if isinstance(report, Mapping) else report
    script = verdict.get("script")
    return {
        "block": verdict.get("block"),
        "test": verdict.get("test"),
        "session": verdict.get("session"),
        "day_folder": ", ".join(map(str, verdict.get("day_folders") or [])),
        "obsid_first": obsids[0],
        "obsid_last": obsids[1],
        "script": ", ".join(map(str, script)) if isinstance(script, list) else script,
        "status": _status(verdict),
        "verdict": {"pass": "pass", "fail": "FAIL", "go": "GO", "no_go": "NO-GO"}.get(
            verdict.get("verdict") or "", ""
        ),
        "flags": ", ".join(dict.fromkeys(name for name in flags if name)),
        "headline": headline_text(verdict.get("headline") or []),
        "n_frames": frames.get("used", frames.get("found")) if isinstance(frames, Mapping) else frames,
        "started": _when(verdict.get("started")),
        "ended": _when(verdict.get("ended")),
        "report": _report_file(report, verdict, folder),
        "version": verdict.get("calcamp_version"),
    }


def row_from_manifest(manifest: Mapping, block: str | None, session: str) -> dict[str, object]:
    """A row for a test that is acquired and has no verdict yet."""
    exposures = manifest.get("exposures") or []
    obsids = [*(manifest.get("obsids") or []), None, None]
    days = dict.fromkeys(str(e.get("day_folder")) for e in exposures if e.get("day_folder"))
    return {
        "block": block,
        "test": manifest.get("test"),
        "session": session,
        "day_folder": ", ".join(Path(day).name for day in days),
        "obsid_first": obsids[0],
        "obsid_last": obsids[1],
        "status": "acquired" if manifest.get("status") == "complete" else "incomplete",
        "n_frames": len(exposures),
    }


def rows_of_session(folder: Path, block: str | None = None) -> list[dict[str, object]]:
    """Rows of every test below a session's results folder, in the order of their OBSIDs.

    Raises
    ------
    InputError
        The folder holds no results.
    """
    from calcamp.data.files import read_json

    folder = Path(folder)
    rows = []
    for sub in sorted(folder.iterdir()) if folder.is_dir() else []:
        if (sub / "verdict.json").is_file():
            found = read_json(sub / "verdict.json")
            if not isinstance(found, Mapping) or not found.get("test"):
                raise InputError("is not a verdict of calcamp", file=sub / "verdict.json")
            rows.append(row_from_verdict(found, sub))
        elif (sub / "manifest.json").is_file():
            found = read_json(sub / "manifest.json")
            if isinstance(found, Mapping) and found.get("test") and found.get("exposures"):
                rows.append(row_from_manifest(found, block, folder.name))
    if not rows:
        raise InputError(
            "holds no results",
            file=folder,
            expected="folders of tests with verdict.json",
            remedy="Run the session first.",
        )
    return sorted(
        rows, key=lambda row: (row["obsid_first"] is None, row["obsid_first"] or 0, str(row["test"]))
    )


def _status(verdict: Mapping) -> str:
    """acquired, checked, analysed or failed, as the record of the campaign says it; incomplete where frames lack."""
    status = verdict.get("status")
    if status == "failed":
        return "failed"
    if status == "incomplete":
        return "incomplete"
    done = verdict.get("subtasks") or {}
    names = {
        name
        for name, item in done.items()
        if not isinstance(item, Mapping) or item.get("status") != "skipped"
    }
    return (
        "analysed"
        if names - {"hk", "check", "lock", "relock", "prep"}
        else "checked"
        if names
        else "acquired"
    )


def headline_text(headline: Sequence[Mapping]) -> str:
    """The headline numbers in one cell: value with error, or the range over CCDs and quadrants."""
    groups: dict[tuple, list[Mapping]] = {}
    for entry in headline:
        if isinstance(entry, Mapping) and isinstance(entry.get("value"), int | float):
            others = tuple(
                f"{k} {v}"
                for k, v in entry.items()
                if k not in _HEADLINE_KEYS and isinstance(v, str | int | float)
            )
            groups.setdefault((entry.get("quantity"), entry.get("unit") or "", others), []).append(entry)
    parts = []
    for (quantity, unit, others), entries in groups.items():
        values = [entry["value"] for entry in entries]
        if len(entries) == 1:
            err = entries[0].get("err")
            text = f"{values[0]:.6g}" + (f" ± {err:.2g}" if isinstance(err, int | float) else "")
        else:
            text = f"{min(values):.4g} to {max(values):.4g}"
        where = f" ({', '.join(others)})" if others else ""
        sign = ">= " if quantity in _LOWER_LIMITS else "<= "
        below = sign if any(entry.get("is_limit") for entry in entries) else ""
        parts.append(f"{quantity}{where} {below}{text} {unit}".rstrip())
    return "; ".join(parts)


_LOWER_LIMITS = ("full_well", "bloom_level")  # signals that were not reached: docs/quantities.md
_HEADLINE_KEYS = {"quantity", "ccd", "quadrant", "value", "err", "unit", "n", "is_limit", "flag", "label"}


def _when(value) -> object:
    try:
        return datetime.fromisoformat(str(value)).replace(tzinfo=None, microsecond=0)
    except ValueError:
        return value


def _report_file(report, verdict: Mapping, folder: Path) -> Path | None:
    """The report that exists, PDF before HTML."""
    test = verdict.get("test")
    names = [report, f"{test}_report.pdf", f"{test}_report.html"]
    for name in names:
        if isinstance(name, str) and name and (path := folder / Path(name).name).is_file():
            return path
    return None


# ---- writing -------------------------------------------------------------------------------------
def update(
    workbook: Path,
    rows: Sequence[Mapping],
    *,
    force: bool = False,
    retry_s: float = 0.0,
    today: Date | None = None,
) -> Outcome:
    """Put rows into the record.

    Parameters
    ----------
    workbook : made if absent
    rows : values by column name; block, test and session are the key
    force : also overwrite cells of calcamp's columns that a person has typed into
    retry_s : how long to wait for a workbook that is open elsewhere, s
    today : date of the copy kept before the first writing of a day

    Returns
    -------
    Outcome
        With state ``queued`` the rows are in ``<name>.pending.jsonl`` and go in with the next writing.

    Raises
    ------
    InputError
        Not an .xlsx workbook, damaged, or locked by another calcamp for half a minute.
    """
    workbook = Path(os.path.abspath(workbook))
    if workbook.suffix.lower() != ".xlsx":
        raise InputError(
            "is not an .xlsx workbook", file=workbook, remedy="Save it as .xlsx; macros cannot be kept."
        )
    if workbook.is_symlink():
        workbook = workbook.resolve()
    if not workbook.parent.is_dir():
        raise InputError("its folder does not exist", file=workbook)
    rows = [_clean(row) for row in rows]
    with _lock(workbook):
        holder = _open_elsewhere(workbook)
        until = time.monotonic() + retry_s
        while holder and time.monotonic() < until:
            time.sleep(0.5)
            holder = _open_elsewhere(workbook)
        if holder:
            queued = _enqueue(workbook, rows)
            return Outcome("queued", workbook, queued=queued, reason=holder)
        return _write(workbook, rows, force, today or Date.today())


def _clean(row: Mapping) -> dict[str, object]:
    missing = [key for key in ("test", "session") if not row.get(key)]
    if missing:
        raise InputError(f"a row of the record has no {' and no '.join(missing)}")
    unknown = set(row) - set(COLUMNS)
    if unknown:
        raise InputError(f"the record has no column {sorted(unknown)[0]!r}", expected=", ".join(COLUMNS))
    plain = {name: _plain(value) if isinstance(value, str) else value for name, value in row.items()}
    return {name: value for name, value in plain.items() if name not in PEOPLES}


@contextlib.contextmanager
def _lock(workbook: Path):
    """One writer at a time; the lock file lies beside the workbook and is readable by its owner only."""
    import filelock

    path = workbook.with_name(workbook.name + ".lock")
    if path.is_symlink():
        raise InputError("the lock file is a link, which is not followed", file=path, remedy="Remove it.")
    try:
        lock = filelock.FileLock(str(path), mode=0o600)
        lock.acquire(timeout=LOCK_SECONDS)
    except (NotImplementedError, OSError) as error:
        if isinstance(error, filelock.Timeout):
            raise _held(workbook) from None
        lock = filelock.SoftFileLock(str(path))  # file systems without flock
        try:
            lock.acquire(timeout=LOCK_SECONDS)
        except filelock.Timeout:
            raise _held(workbook) from None
    try:
        yield
    finally:
        lock.release()


def _held(workbook: Path) -> InputError:
    return InputError(
        f"another calcamp has been writing it for {LOCK_SECONDS:.0f} s",
        file=workbook,
        remedy="Try again in a moment.",
    )


def _open_elsewhere(workbook: Path) -> str:
    """Who has the workbook open in Excel or LibreOffice, as far as their lock files tell; empty when nobody."""
    excel = workbook.with_name("~$" + workbook.name)
    office = workbook.with_name(f".~lock.{workbook.name}#")
    if office.exists():
        with contextlib.suppress(OSError):
            names = [
                part
                for part in office.read_text(encoding="utf-8", errors="replace").split(",")
                if part.strip()
            ]
            who = f" by {' at '.join(names[:2])}" if names else ""
            return f"open in LibreOffice{who} ({office.name})"
    return f"open in Excel ({excel.name})" if excel.exists() else ""


def pending_path(workbook: Path) -> Path:
    """Queue of rows for a workbook that was open elsewhere."""
    return workbook.with_name(workbook.stem + ".pending.jsonl")


def _enqueue(workbook: Path, rows: Sequence[Mapping]) -> int:
    path = pending_path(workbook)
    stamp = datetime.now().isoformat()
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    new = "".join(json.dumps({"recorded": stamp, "row": _jsonable(row)}) + "\n" for row in rows)
    write_atomic(path, old + new)
    return (old + new).count("\n")


def _jsonable(row: Mapping) -> dict:
    return {
        k: v.isoformat(sep=" ") if isinstance(v, datetime) else str(v) if isinstance(v, Path) else v
        for k, v in row.items()
    }


def _queue(workbook: Path) -> list[tuple[str, dict]]:
    """Rows that wait, oldest first; lines that are not rows are passed over."""
    path = pending_path(workbook)
    if not path.exists():
        return []
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError, TypeError, KeyError, InputError):
            item = json.loads(line)
            row = _clean({k: v for k, v in item["row"].items() if k in COLUMNS})
            row.update({k: _when(row[k]) for k in ("started", "ended") if row.get(k)})
            if row.get("report"):
                row["report"] = Path(row["report"])
            found.append((str(item["recorded"]), row))
    return found


def _write(workbook: Path, rows: Sequence[Mapping], force: bool, today: Date) -> Outcome:
    existed = workbook.exists()
    before = workbook.read_bytes() if existed else b""
    outcome = Outcome("written", workbook)
    now = datetime.now().isoformat()
    work = [*_queue(workbook), *((now, row) for row in rows)]
    data = _updated(before, work, workbook, outcome, force)
    outcome.kept = list(dict.fromkeys(outcome.kept))
    if data is None:
        outcome.state = "unchanged"
        _drop_queue(workbook)
        return outcome
    lost = lost_parts(before, data) if existed else []
    if lost:
        return _write_beside(workbook, work, outcome, force, lost)
    if existed:
        outcome.copy = _dated_copy(workbook, before, today)
    write_atomic(workbook, data)
    _drop_queue(workbook)
    return outcome


def _drop_queue(workbook: Path) -> None:
    pending_path(workbook).unlink(missing_ok=True)


def _dated_copy(workbook: Path, before: bytes, today: Date) -> Path | None:
    copy = workbook.with_name(f"{workbook.stem}_{today:%Y%m%d}.xlsx")
    if copy.exists():
        return None
    return write_atomic(copy, before)


def _write_beside(workbook: Path, work, outcome: Outcome, force: bool, lost: list[str]) -> Outcome:
    """The rows in a workbook of their own, because this one cannot be written without loss."""
    side = workbook.with_name(workbook.stem + "_calcamp.xlsx")
    before = side.read_bytes() if side.exists() else b""
    fresh = Outcome("beside", side, reason=f"{workbook.name} would lose {', '.join(lost)}")
    data = _updated(before, work, side, fresh, force)
    if data is not None:
        write_atomic(side, data)
    _drop_queue(workbook)
    return fresh


# ---- the workbook --------------------------------------------------------------------------------
def _updated(
    before: bytes, work: Sequence[tuple[str, Mapping]], workbook: Path, outcome: Outcome, force: bool
):
    """The workbook with the rows put in, as bytes; None when nothing changes."""
    import openpyxl

    if before:
        book = open_workbook(before, name=str(workbook), rich_text=True)
    else:
        book = openpyxl.Workbook()
        book.active.title = SHEET
    sheet = book[SHEET] if SHEET in book.sheetnames else book.create_sheet(SHEET)
    table = _Table(sheet)
    memory = _Memory(book)
    changed = table.complete_header() or not before
    for recorded, row in work:
        changed = _upsert(table, memory, recorded, row, workbook, outcome, force) or changed
    if not changed:
        return None
    memory.store()
    _fit_columns(sheet, table)
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


def _name(value) -> str:
    """A header as a column name: ``Day-Folder`` is day_folder."""
    name = re.sub(r"[^a-z0-9]+", "_", str(value or "").strip().lower()).strip("_")
    return SYNONYMS.get(name, name)


class _Table:
    """The table of tests in a sheet: header row by name, rows by key."""

    def __init__(self, sheet):
        self.sheet = sheet
        self.header, self.columns = self._find_header()

    def _find_header(self) -> tuple[int, dict[str, int]]:
        for row in self.sheet.iter_rows(min_row=1, max_row=min(self.sheet.max_row, _HEADER_ROWS)):
            names: dict[str, int] = {}
            for cell in row:
                names.setdefault(_name(cell.value), cell.column)
            if "test" in names and "session" in names:
                return row[0].row, {name: column for name, column in names.items() if name in COLUMNS}
        # No header yet: below what people wrote above, if anything.
        return (1 if _is_empty(self.sheet) else self.sheet.max_row + 2), {}

    def complete_header(self) -> bool:
        """Add the columns that are missing, at the right end; whether any was."""
        used = [cell.column for cell in self.sheet[self.header] if cell.value not in (None, "")]
        free = max(used, default=0) + 1
        missing = [name for name in COLUMNS if name not in self.columns]
        for name in missing:
            cell = self.sheet.cell(row=self.header, column=free)
            cell.value = name
            _style_header(cell)
            self.columns[name] = free
            free += 1
        return bool(missing)

    def text(self, row: int, name: str) -> str:
        value = self.sheet.cell(row=row, column=self.columns[name]).value
        return "" if value is None else str(value).strip()

    def find(self, key: Mapping) -> tuple[int, bool]:
        """(row of a key, whether it is new). A row prepared by hand for the test is taken if there is just one."""
        wanted = {name: str(key.get(name) or "").strip() for name in KEY}
        prepared, last = [], self.header
        for row in range(self.header + 1, self.sheet.max_row + 1):
            test, session, block = (self.text(row, name) for name in ("test", "session", "block"))
            if test or session or self._row_used(row):
                last = row
            if test != wanted["test"] or (block and wanted["block"] and block != wanted["block"]):
                continue
            if session == wanted["session"]:
                return row, False
            if not session:
                prepared.append(row)
        if len(prepared) == 1:
            return prepared[0], False
        return last + 1, True

    def _row_used(self, row: int) -> bool:
        return any(cell.value not in (None, "") for cell in self.sheet[row])


def _is_empty(sheet) -> bool:
    return all(cell.value in (None, "") for row in sheet.iter_rows() for cell in row)


class _Memory:
    """What calcamp wrote last, in a hidden sheet: (block, test, session) → values as text, and when."""

    def __init__(self, book):
        self.book = book
        self.values: dict[tuple[str, str, str], dict[str, str]] = {}
        self.recorded: dict[tuple[str, str, str], str] = {}
        if LAST_WRITTEN in book.sheetnames:
            for row in book[LAST_WRITTEN].iter_rows(min_row=2, values_only=True):
                with contextlib.suppress(ValueError, TypeError, IndexError):
                    key = tuple(str(part or "") for part in row[:3])
                    values = json.loads(str(row[4]))
                    if isinstance(values, dict):
                        self.values[key], self.recorded[key] = values, str(row[3])

    def store(self) -> None:
        if LAST_WRITTEN in self.book.sheetnames:
            del self.book[LAST_WRITTEN]
        sheet = self.book.create_sheet(LAST_WRITTEN)
        sheet.sheet_state = "hidden"
        for column, name in enumerate((*KEY, "recorded", "values"), 1):
            set_cell(sheet, 1, column, name)
        for row, (key, values) in enumerate(self.values.items(), 2):
            for column, value in enumerate((*key, self.recorded[key], json.dumps(values)), 1):
                set_cell(sheet, row, column, value)


def _upsert(
    table: _Table, memory: _Memory, recorded: str, row: Mapping, workbook: Path, outcome: Outcome, force: bool
) -> bool:
    """Put one row in; whether a cell changed."""
    key = tuple(str(row.get(name) or "") for name in KEY)
    if recorded < memory.recorded.get(key, ""):
        return False  # a queued row that newer results have overtaken
    number, new = table.find(row)
    last = memory.values.get(key, {})
    changed, kept = False, False
    for name in COLUMNS:
        if name in PEOPLES or name not in row:
            continue
        cell = table.sheet.cell(row=number, column=table.columns[name])
        value = _cell_value(row[name], workbook)
        found = _as_text(cell.value)
        if found == _as_text(value):
            last[name] = found
            continue
        typed = found != "" and found != last.get(name)
        if (typed and not force) or (found == "" and last.get(name) and not new and not force):
            # Typed by a person, or emptied by one.
            outcome.kept.append(
                f"{row['test']} {name}: {found or '(empty)'!s} (calcamp has {_as_text(value)})"
            )
            kept = True
            continue
        _put(table.sheet, number, table.columns[name], value, row[name], workbook)
        last[name] = _as_text(value)
        changed = True
    if changed or kept or key not in memory.values:
        memory.values[key] = last
    memory.recorded[key] = recorded
    if changed:
        outcome.new_rows += new
        outcome.changed_rows += not new
    return changed


def _cell_value(value, workbook: Path):
    if isinstance(value, Path):
        return value.name
    if isinstance(value, bool):
        return str(value).lower()
    if value is None or isinstance(value, int | float | datetime):
        return value
    return _plain(str(value))


def _plain(text: str) -> str:
    text = re.sub(r"[\x00-\x08\x0b-\x1f\x7f\ufffe\uffff\ud800-\udfff]", "?", text).strip()
    return text if len(text) <= _MAX_CELL else text[: _MAX_CELL - 3] + "..."


def _as_text(value) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _put(sheet, row: int, column: int, value, original, workbook: Path) -> None:
    """Write a cell; text is typed as text whatever it begins with, a report gets its link."""
    cell = sheet.cell(row=row, column=column)
    cell.hyperlink = None
    if value is None or value == "":
        cell.value = None
        return
    if isinstance(value, str):
        cell.value = value
        cell.data_type = "s"  # never a formula
    else:
        cell.value = value
        if isinstance(value, datetime):
            cell.number_format = "yyyy-mm-dd hh:mm:ss"
    if isinstance(original, Path):
        from urllib.parse import quote

        target = os.path.relpath(original.resolve(), workbook.parent.resolve())
        cell.hyperlink = quote(Path(target).as_posix(), safe="/.-_~")
        cell.value = value
        cell.data_type = "s"


def _style_header(cell) -> None:
    from openpyxl.styles import Font, PatternFill

    cell.font = Font(bold=True)
    cell.fill = PatternFill("solid", start_color="FFB2A8A6")


def _fit_columns(sheet, table: _Table) -> None:
    """Widths that show the text, for columns whose width nobody has set."""
    from openpyxl.utils import get_column_letter

    for column in table.columns.values():
        letter = get_column_letter(column)
        if letter in sheet.column_dimensions and sheet.column_dimensions[letter].customWidth:
            continue
        widest = max(
            (len(_as_text(sheet.cell(row=r, column=column).value)) for r in range(1, sheet.max_row + 1)),
            default=0,
        )
        sheet.column_dimensions[letter].width = min(max(widest + 2, 12), 60)


# ---- what would be lost --------------------------------------------------------------------------
def lost_parts(before: bytes, after: bytes) -> list[str]:
    """Parts and elements of a workbook that are gone after openpyxl wrote it, in words for a person."""
    old, new = _inventory(before), _inventory(after)
    return [name for name, count in old.items() if new[name] < count]


def _inventory(data: bytes) -> Counter:
    """Number of parts by kind, and of fragile elements in sheets and drawings."""
    found: Counter = Counter()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for name in archive.namelist():
            if name.endswith(("/", ".rels")) or name.startswith(_EXPENDABLE):
                continue
            found[_kind_of_part(name)] += 1
            for place, patterns in _FRAGILE.items():
                if re.fullmatch(place, name):
                    content = archive.read(name)
                    for pattern, words in patterns.items():
                        found[words] += len(re.findall(pattern, content))
    return found


_PARTS = {
    "xl/vbaProject": "macros",
    "xl/pivotTables": "pivot tables",
    "xl/pivotCache": "pivot caches",
    "xl/threadedComments": "threaded comments",
    "xl/persons": "authors of threaded comments",
    "xl/slicers": "slicers",
    "xl/embeddings": "embedded objects",
    "xl/ctrlProps": "form controls",
    "xl/media": "pictures",
    "xl/charts": "charts",
    "xl/drawings": "drawings",
    "xl/tables": "tables",
    "xl/worksheets": "sheets",
    "xl/externalLinks": "links to other workbooks",
    "customXml": "custom data",
}


def _kind_of_part(name: str) -> str:
    # openpyxl puts comments in places of its own; they are counted whatever the place.
    if re.search(r"comments?[^/]*\.xml$", name) and "threaded" not in name:
        return "comments"
    if name.endswith(".vml"):
        return "drawings of comments"
    for start, words in _PARTS.items():
        if name.startswith(start):
            return words
    return re.sub(r"\d+", "", name)
