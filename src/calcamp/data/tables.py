"""Tables as ECSV: text that a person can read, units and descriptions in the header.

Written and read here without importing astropy, whose start costs more than most tables; `read_table`
gives an astropy Table where one is wanted. The files follow ECSV 1.0 and any ECSV reader takes them.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from calcamp.data.files import InputError, plain, read_bounded, write_atomic

if TYPE_CHECKING:
    import numpy as np
    from astropy.table import Table

MAX_HEADER_BYTES = 1024 * 1024
MAX_BYTES = 1024 * 1024 * 1024
_INTEGERS = frozenset(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
_FLOATS = frozenset(("float16", "float32", "float64"))
#: Types of values that are written as they are.
_PLAIN = frozenset((bool, int, float, str, type(None)))
_NULL = '""'
#: Everyday names of units and those of the FITS and astropy vocabulary.
_UNITS = {
    "ADU": "adu",
    "e-": "electron",
    "e⁻": "electron",
    "px": "pix",
    "degC": "deg_C",
    "deg C": "deg_C",
    "°C": "deg_C",
}
_UNIT_WORD = re.compile(r"e[-⁻](?![0-9])|°C|deg C|[A-Za-z_]+")


def unit_text(unit: str) -> str:
    """`unit` in the spelling that astropy reads: ``ADU/s`` -> ``adu/s``, ``e-/ADU`` -> ``electron/adu``."""
    return _UNIT_WORD.sub(lambda match: _UNITS.get(match[0], match[0]), unit)


# ---- writing -------------------------------------------------------------------------------------
def write_table(
    path: Path | str,
    columns: Mapping[str, Sequence],
    units: Mapping[str, str] | None = None,
    meta: Mapping[str, object] | None = None,
    descriptions: Mapping[str, str] | None = None,
) -> Path:
    """Write columns of equal length as an ECSV table, atomically.

    Parameters
    ----------
    path : ``….ecsv``.
    columns : name -> values: Python or numpy integers, floats, texts or booleans, one-dimensional. None is
        a missing value; in a float column it becomes NaN. Columns of keys come first, by convention.
    units : name -> unit, for the columns that have one; ADU, e-, px and degC are written as astropy spells them.
    meta : anything that JSON can hold, written in the header.
    descriptions : name -> a short sentence.

    Raises
    ------
    ValueError : lengths differ, a column mixes texts and numbers, or a unit names no column.
    """
    units = {name: unit_text(unit) for name, unit in (units or {}).items()}
    descriptions = dict(descriptions or {})
    stray = [name for name in (*units, *descriptions) if name not in columns]
    if stray:
        raise ValueError(f"units or descriptions of columns that are not there: {', '.join(stray)}")
    if not all(isinstance(name, str) and name.isprintable() and name.strip() for name in columns):
        raise ValueError(f"a column has no printable name: {list(columns)!r}")
    lists = {name: _as_list(values) for name, values in columns.items()}
    lengths = {name: len(values) for name, (values, _) in lists.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"columns of different lengths: {lengths}")
    kinds = {name: dtype or _kind(name, values) for name, (values, dtype) in lists.items()}
    text = io.StringIO()
    text.write(_header(kinds, units, descriptions, dict(meta or {})))
    text.write(" ".join(_quoted(name) for name in columns) + "\n")
    cells = [_cells(values, kinds[name]) for name, (values, _) in lists.items()]
    text.writelines(" ".join(row) + "\n" for row in zip(*cells, strict=True))
    return write_atomic(path, text.getvalue())


def _as_list(values: Sequence) -> tuple[list, str | None]:
    """(plain Python list, ECSV type where the values' own type says it)."""
    dtype = getattr(values, "dtype", None)
    if dtype is None:
        values = list(values)
        if not set(map(type, values)) <= _PLAIN:
            values = [item.item() if hasattr(item, "item") else item for item in values]
        return values, None
    if getattr(values, "ndim", 1) != 1:
        raise ValueError(f"a column has one dimension, not {values.ndim}")
    name = str(dtype.name)
    masked = getattr(values, "mask", None)
    items = values.tolist()
    if masked is not None and getattr(masked, "ndim", 0) == 1:
        items = [None if hidden else item for item, hidden in zip(items, masked.tolist(), strict=True)]
    if name == "float32":  # the shortest text that gives the same float32
        items = [
            None if item is None else float(str(value)) for item, value in zip(items, values, strict=True)
        ]
    known = name if name in _INTEGERS | _FLOATS | {"bool"} else None
    return items, known


def _kind(name: str, values: list) -> str:
    """ECSV type of a list: bool, int64, float64 or string."""
    types = {type(value) for value in values if value is not None}
    if types <= {bool} and types:
        return "bool"
    if types <= {int} and types:
        return "int64"
    if types <= {int, float}:
        return "float64"
    if all(issubclass(kind, str) for kind in types):
        return "string"
    raise ValueError(f"column {name} mixes {', '.join(sorted(kind.__name__ for kind in types))}")


def _cells(values: list, kind: str) -> list[str]:
    if kind in _FLOATS:
        return ["nan" if value is None else repr(float(value)) for value in values]
    if kind == "string":
        texts = {
            value: _NULL if value is None else _quoted(str(value)) for value in set(values)
        }  # few differ
        return [texts[value] for value in values]
    return [_NULL if value is None else str(value) for value in values]


def _quoted(text: str) -> str:
    """A text as one field: quoted where blanks, quotes or nothing would break it."""
    text = " ".join(text.split("\0")).replace("\r", " ").replace("\n", " ")
    if text and not any(c in text for c in ' "\t#') and text == text.strip() and text.isprintable():
        return text
    return '"' + text.replace('"', '""') + '"'


def _header(kinds: dict, units: dict, descriptions: dict, meta: dict) -> str:
    lines = ["%ECSV 1.0", "---", "datatype:"]
    for name, kind in kinds.items():
        entry = f"- {{name: {_yaml(name)}, datatype: {kind}"
        entry += f", unit: {_yaml(units[name])}" if units.get(name) else ""
        entry += f", description: {_yaml(descriptions[name])}" if descriptions.get(name) else ""
        lines.append(entry + "}")
    if meta:
        lines.append(f"meta: {_yaml(plain(meta))}")
    lines.append("schema: astropy-2.0")
    return "".join(f"# {line}\n" for line in lines)


def _yaml(value: object) -> str:
    """`value` as YAML on one line: JSON is YAML, and JSON in ASCII has no line breaks."""
    import json

    return json.dumps(value, ensure_ascii=True)


# ---- reading -------------------------------------------------------------------------------------
def read_table(path: Path | str) -> Table:
    """A table as an astropy Table (units as astropy units, missing values masked)."""
    from astropy.table import Table

    _read_text(Path(path))
    return Table.read(path, format="ascii.ecsv")


def table_rows(path: Path | str) -> list[dict]:
    """Rows as dictionaries of plain Python values; NaN and missing numbers are None, missing texts ``""``.

    Raises
    ------
    InputError : not a table, or a row that does not fit it.
    """
    columns, _ = table_columns(path)
    names = list(columns)
    return [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def table_columns(path: Path | str) -> tuple[dict[str, list], dict]:
    """(columns as lists, header); the header has ``datatype``, ``units``, ``descriptions``, ``meta``."""
    text = _read_text(Path(path))
    columns = {
        name: _typed(cells, text, number, _reader(text.kinds[name]))
        for number, (name, cells) in enumerate(text.columns.items())
    }
    return columns, text.header()


def table_arrays(path: Path | str) -> tuple[dict[str, np.ndarray], dict]:
    """(columns as numpy arrays, header as in `table_columns`), for long tables.

    Floats are float64 with NaN where nothing was measured, integers int64 (float64 when one is missing),
    texts and truth values object arrays (None for a missing truth value). A file with multi-dimensional
    columns (of another writer) is read by astropy.
    """
    import numpy as np

    path = Path(path)
    text = _read_text(path)
    if text.nested:
        table = read_table(path)
        return {name: np.asarray(table[name]) for name in table.colnames}, text.header()
    arrays = {}
    for number, (name, cells) in enumerate(text.columns.items()):
        kind = text.kinds[name]
        if kind in _FLOATS | _INTEGERS:
            try:
                arrays[name] = np.array(cells, dtype=np.float64 if kind in _FLOATS else np.int64)
            except (ValueError, OverflowError):  # empty cells, or one that is no number: told by its line
                values = _typed(cells, text, number, _reader(kind))
                arrays[name] = np.array(values, dtype=np.float64)
        else:
            arrays[name] = np.array(_typed(cells, text, number, _reader(kind)), dtype=object)
    return arrays, text.header()


@dataclass(frozen=True)
class _Text:
    """An ECSV file taken apart: the cells as they are written, column by column."""

    path: Path
    head: dict
    lines: list[str]
    columns: dict[str, tuple[str, ...]]

    @property
    def kinds(self) -> dict[str, str]:
        return {entry["name"]: entry["datatype"] for entry in self.head["datatype"]}

    @property
    def nested(self) -> bool:
        return any("subtype" in entry for entry in self.head["datatype"])

    def header(self) -> dict:
        described = self.head["datatype"]
        return {
            "datatype": self.kinds,
            "units": {entry["name"]: str(entry["unit"]) for entry in described if entry.get("unit")},
            "descriptions": {e["name"]: str(e["description"]) for e in described if e.get("description")},
            "meta": self.head.get("meta") or {},
        }

    def fault(self, problem: str, row: int) -> InputError:
        """The error for data row `row` (-1: the line of names), with its line in the file."""
        numbers = [number for number, line in enumerate(self.lines, start=1) if _is_data(line)]
        return InputError(problem, file=self.path, where=numbers[min(row + 1, len(numbers) - 1)])


def _is_data(line: str) -> bool:
    return not line.startswith("#") and not (not line or line.isspace())


def _typed(cells: tuple[str, ...], text: _Text, column: int, read: Callable) -> list:
    try:
        return list(map(read, cells))
    except ValueError:
        for row, cell in enumerate(cells):
            try:
                read(cell)
            except ValueError as error:
                name, kind = list(text.kinds.items())[column]
                raise text.fault(f"column {name}: {cell[:40]!r} is not a {kind}", row) from error
        raise


def _read_text(path: Path) -> _Text:
    """Take a file apart. The header's column names and the file's must agree."""
    try:
        text = read_bounded(path, MAX_BYTES).decode("utf-8")
    except OSError as error:
        raise InputError(f"the table cannot be read ({error.strerror})", file=path) from error
    except UnicodeDecodeError as error:
        raise InputError("is not UTF-8 text", file=path, expected="an ECSV table") from error
    lines = text.split("\n")
    comments = [line[2:] for line in lines if line.startswith("# ")]
    if not comments or not comments[0].startswith("%ECSV") or sum(map(len, comments)) > MAX_HEADER_BYTES:
        raise InputError("is not an ECSV table", file=path, expected="a first line '# %ECSV 1.0'")
    head = _parse_header("\n".join(comments[1:]), path)
    names = [entry["name"] for entry in head["datatype"]]
    found = _Text(path, head, lines, {})
    rows = _rows(found, [line.rstrip("\r") for line in lines if _is_data(line)])
    if not rows or rows[0] != names:
        raise found.fault("the line of column names does not agree with the header", -1)
    for number, row in enumerate(rows):
        if len(row) != len(names):
            raise found.fault(f"{len(row)} values for {len(names)} columns", number - 1)
    found.columns.update(zip(names, list(zip(*rows[1:], strict=True)) or [()] * len(names), strict=True))
    return found


def _rows(text: _Text, body: list[str]) -> list[list[str]]:
    """Fields of every data line, the line of names first."""
    delimiter = text.head.get("delimiter", " ")
    if delimiter not in (" ", ","):  # the two that ECSV knows
        raise InputError(f"the delimiter {str(delimiter)[:10]!r} is not known", file=text.path)
    if delimiter == " " and not any('"' in line for line in body):
        return [line.split(" ") if "  " not in line else line.split() for line in body]
    body = [line.strip(" ") for line in body] if delimiter == " " else body
    reader = csv.reader(body, delimiter=delimiter, skipinitialspace=delimiter == " ", strict=True)
    try:
        rows = list(reader)
    except csv.Error as error:
        raise text.fault(f"a quoted text does not end ({error})", _first_broken(body, delimiter)) from error
    if len(rows) != len(body):
        raise text.fault("a quoted text runs over the end of its line", _first_broken(body, delimiter))
    return rows


def _first_broken(body: list[str], delimiter: str) -> int:
    """Number of the first data row (-1: the line of names) that is no row by itself."""
    for number, line in enumerate(body):
        try:
            list(csv.reader([line], delimiter=delimiter, skipinitialspace=delimiter == " ", strict=True))
        except csv.Error:
            return number - 1
    return -1


def _parse_header(text: str, path: Path) -> dict:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        head = yaml.load(
            text.replace("!astropy.table.SerializedColumn", "").replace("!!omap", ""), Loader=loader
        )
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError("the header of the table is damaged", file=path) from error
    entries = head.get("datatype") if isinstance(head, dict) else None
    well_formed = isinstance(entries, list) and all(
        isinstance(e, dict) and {"name", "datatype"} <= set(e) for e in entries
    )
    if not well_formed:
        raise InputError("the header of the table names no columns", file=path)
    for entry in entries:
        entry["name"] = str(entry["name"])
    return head


def _reader(kind: str):
    if kind in _FLOATS:
        return _read_float
    if kind in _INTEGERS:
        return lambda cell: int(cell) if cell else None
    if kind == "bool":
        return _read_bool
    return str


def _read_float(cell: str) -> float | None:
    value = float(cell) if cell else math.nan
    return None if value != value else value


def _read_bool(cell: str) -> bool | None:
    if cell not in ("", "True", "False"):
        raise ValueError(cell)
    return None if not cell else cell == "True"


# ---- joining -------------------------------------------------------------------------------------
def join_tables(paths: Iterable[Path | str], out: Path | str) -> Path:
    """Put tables of the same subject under one another, in the order given.

    A column that a table lacks is missing in its rows. Units must agree; ``meta`` keeps what is the same
    in all.

    Raises
    ------
    InputError : no table, or units or types that do not agree.
    """
    paths = [Path(path) for path in paths]
    if not paths:
        raise InputError("no tables to join", file=out)
    same = _joined_text(paths)
    if same is not None:
        return write_atomic(out, same)
    read = [table_columns(path) for path in paths]
    kinds: dict[str, str] = {}
    filled: dict[str, bool] = {}  # a column without any value takes the type of another table's
    units: dict[str, str] = {}
    descriptions: dict[str, str] = {}
    for path, (columns, header) in zip(paths, read, strict=True):
        for name in columns:
            kind, unit = header["datatype"][name], header["units"].get(name, "")
            if name in kinds and units[name] != unit:
                raise InputError(
                    f"column {name} has the unit {unit or 'none'}", file=path, expected=units[name] or "none"
                )
            if name not in kinds or not filled[name]:
                kinds[name] = kind if name not in kinds or _has_values(columns[name]) else kinds[name]
            elif _has_values(columns[name]):
                kinds[name] = _common(kinds[name], kind, name, path)
            filled[name] = filled.get(name, False) or _has_values(columns[name])
            units[name] = unit
            descriptions.setdefault(name, header["descriptions"].get(name, ""))
    joined: dict[str, list] = {name: [] for name in kinds}
    for columns, _ in read:
        length = len(next(iter(columns.values()), []))
        for name, column in joined.items():
            column.extend(columns.get(name, [None] * length))
    return write_table(
        out,
        {name: [_to(kinds[name], value) for value in column] for name, column in joined.items()},
        {name: unit for name, unit in units.items() if unit},
        _same_in_all([header["meta"] for _, header in read]),
        {name: text for name, text in descriptions.items() if text},
    )


def _joined_text(paths: list[Path]) -> str | None:
    """Tables with the same header to the letter, as text; None for any others, and those not made here."""
    header, bodies = None, []
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return None
        if not text.endswith("\n"):
            return None  # cut short
        end = 0
        while text.startswith("#", end):
            end = text.find("\n", end) + 1
        end = text.find("\n", end) + 1  # the line of the names
        if not end or '\n"' in text or (header or text[:end]) != text[:end]:
            return None
        header = text[:end]
        bodies.append(text[end:])
    return "".join([header, *bodies])


def _has_values(column: list) -> bool:
    return any(value is not None and value != "" for value in column)


def _common(first: str, second: str, name: str, path: Path) -> str:
    """Type that holds both."""
    if first == second:
        return first
    if first in _INTEGERS | _FLOATS and second in _INTEGERS | _FLOATS:
        return "float64" if {first, second} & _FLOATS else "int64"
    raise InputError(f"column {name} is {second}", file=path, expected=first)


def _to(kind: str, value: object) -> object:
    if kind in _FLOATS:
        return math.nan if value is None or value == "" else float(value)
    if kind == "string":
        return "" if value is None else value
    return None if value == "" else value


def _same_in_all(metas: list[dict]) -> dict:
    return {key: value for key, value in metas[0].items() if all(meta.get(key) == value for meta in metas)}
