"""What a report is made of: data read from a results folder, and blocks that templates lay out.

A section is a title and a list of blocks. Families return sections (``sections(data)``) and never
write HTML: the one place where text becomes HTML is the templates, with autoescape on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from calcamp.data.files import read_json
from calcamp.detector.geometry import CCDS, QUADRANTS, Detector
from calcamp.quality.quantities import QUANTITIES
from calcamp.report.tables import Table, pretty_unit, read_table

#: States of a sub-task that say that something is not there.
BAD_STATES = ("failed", "crashed", "error", "missing")
#: Rows of a long table that a report prints; the rest is in the ECSV file beside it.
LONG_TABLE = 60
#: Quadrants as the beam sees a CCD: E F above H G.
BEAM = (("E", "F"), ("H", "G"))


# ---- blocks -----------------------------------------------------------------------------------------
@dataclass
class Text:
    """A paragraph."""

    text: str
    kind = "text"


@dataclass
class Note:
    """A framed remark; ``level`` is ``info``, ``warning``, ``bad`` or ``missing``."""

    text: str
    level: str = "info"
    kind = "note"


@dataclass
class Cell:
    """One table cell. ``state`` is pass, fail, none (not measured) or empty; limits are shown small."""

    text: str
    state: str = ""
    low: str = ""
    high: str = ""
    obsids: tuple[int, ...] = ()
    align: str = ""  # "l" for text
    anchors: tuple[str, ...] = ()  # ids that links can point to

    @property
    def characters(self) -> float:
        """Width of the widest line, in characters of the table's type; capitals and bold print are wider."""
        small = 0.77 * max(len(self.low), len(self.high))
        text = (len(self.text) + 0.12 * sum(map(str.isupper, self.text))) * (
            1.13 if self.state == "fail" else 1
        )
        return max(text + small, 0.77 * (5 * min(len(self.obsids), 4) + 4 * (len(self.obsids) > 4)))


@dataclass
class TableBlock:
    """A table; ``more`` counts rows left out, ``source`` names the file that holds them all."""

    header: list[str]
    rows: list[list[Cell]]
    caption: str = ""
    more: int = 0
    source: str = ""
    compact: bool = False
    kind = "table"

    @cached_property
    def _needs(self) -> list[tuple[float, float]]:
        """Characters that each column needs, and would like so that nothing in it breaks."""
        needs = []
        for k, header in enumerate(self.header):
            cells = [row[k].characters for row in self.rows if k < len(row)]
            full = max(cells, default=0)
            # A header may break between words, and is bold; long texts break too.
            least = max(min(full, 40), 1.1 * max((len(word) for word in header.split()), default=0))
            needs.append((least + 1.7, max(full, len(header)) + 1.7))
        return needs

    @cached_property
    def _room(self) -> tuple[str, int]:
        """Class of the type size in which the widest row fits the page, and characters of a line."""
        need = sum(least for least, _ in self._needs)
        sizes = (("", 110), ("compact", 122), ("small", 140), ("tiny", 164))[1 if self.compact else 0 :]
        return next((size for size in sizes if need <= size[1]), sizes[-1])

    @property
    def size(self) -> str:
        """Class of the type size."""
        return self._room[0]

    @property
    def widths(self) -> list[str]:
        """Width of each column, % of the page's: a table with given widths is laid out in half the time."""
        least = [need for need, _ in self._needs]
        wanted = [full - need for need, full in self._needs]
        share = min(1.0, max(0.0, self._room[1] - sum(least)) / max(sum(wanted), 1e-9))
        widths = [need + share * want for need, want in zip(least, wanted, strict=True)]
        return [f"{100 * width / sum(widths):.2f}" for width in widths]


@dataclass
class Facts:
    """Parameter/value pairs."""

    pairs: list[tuple[str, str]]
    caption: str = ""
    columns: int = 1
    kind = "facts"


@dataclass
class Beam:
    """A CCD x quadrant table laid out as the beam sees the block: one ``Cell`` per (ccd, quadrant)."""

    cells: dict[tuple[int, str], Cell]
    caption: str = ""
    kind = "beam"


@dataclass
class Figure:
    """A figure file in figures/, by relative path; with a `reason` when it could not be made."""

    file: str
    caption: str
    alt: str
    width: float = 100.0  # per cent of the text width
    reason: str = ""

    @property
    def kind(self) -> str:
        return "missing_figure" if self.reason else "figure"


@dataclass
class Verbatim:
    """Preformatted text (tracebacks, options)."""

    text: str
    caption: str = ""
    kind = "verbatim"


@dataclass
class Section:
    """A chapter of the report; ``key`` is its anchor, sub-sections are numbered below it."""

    title: str
    blocks: list = field(default_factory=list)
    key: str = ""
    sections: list[Section] = field(default_factory=list)
    page_break: bool = False


# ---- data -------------------------------------------------------------------------------------------
class ReportData:
    """Everything a report may read: a test's results folder, and nothing else.

    Attributes: ``folder``, ``manifest``, ``verdict`` (dictionaries, empty when the file is missing, the
    reason in ``problems``), ``detector``, ``figures`` (a `figures.FigureBook`).
    """

    def __init__(self, folder: Path, figures, detector: Detector | None = None):
        self.folder = Path(folder)
        self.figures = figures
        self.problems: list[str] = []
        self.manifest = self._json("manifest.json")
        self.verdict = self._json("verdict.json")
        self._tables: dict[str, Table | str] = {}
        self._detector = detector

    def _json(self, name: str) -> dict:
        if not (self.folder / name).is_file():
            self.problems.append(f"{name} is missing")
            return {}
        try:
            found = read_json(self.folder / name)
        except Exception as error:  # damaged: said on page one, without the path of this machine
            self.problems.append(f"{name} cannot be used: {getattr(error, 'problem', error)}")
            return {}
        if isinstance(found, dict):
            return found
        self.problems.append(f"{name} does not hold an object")
        return {}

    @property
    def test(self) -> str:
        return str(self.verdict.get("test") or self.manifest.get("test") or self.folder.name)

    @cached_property
    def definition(self):
        """The campaign's definition of the test, None for a test that it does not know."""
        from calcamp.campaign.core import CampaignError, find_test

        for name in (self.test, self.test.split(".")[0]):
            try:
                return find_test(name)
            except CampaignError:
                continue
        return None

    @property
    def family(self) -> str:
        return str(self.verdict.get("family") or getattr(self.definition, "family", "") or "")

    @cached_property
    def detector(self) -> Detector:
        if self._detector is not None:
            return self._detector
        for source in (self.verdict, self.manifest):
            described = source.get("detector")
            if isinstance(described, dict):
                try:
                    return Detector.from_dict(described)
                except (TypeError, ValueError, AttributeError) as error:
                    self.problems.append(f"the detector described is not usable ({error})")
        return Detector("ccd273")

    def table(self, subject: str) -> Table | None:
        """A table of the test, None when it is not there or not readable (then `why_no_table` tells)."""
        if subject not in self._tables:
            path = self.folder / "tables" / f"{subject}.ecsv"
            try:
                self._tables[subject] = read_table(path) if path.exists() else self._why_absent(subject)
            except Exception as error:  # a damaged table must not cost the report
                self._tables[subject] = f"tables/{path.name} cannot be read: {type(error).__name__}: {error}"
        found = self._tables[subject]
        return found if isinstance(found, Table) and len(found) else None

    def has_table(self, subject: str) -> bool:
        """Whether a table is there, without reading it."""
        return (self.folder / "tables" / f"{subject}.ecsv").is_file()

    def why_no_table(self, subject: str) -> str:
        self.table(subject)
        found = self._tables[subject]
        return f"tables/{subject}.ecsv has no rows." if isinstance(found, Table) else found

    def _why_absent(self, subject: str) -> str:
        text = f"Table {subject} was not made"
        states = [
            f"{name}: {entry.get('status')}"
            for name, entry in as_dict(self.verdict.get("subtasks")).items()
            if isinstance(entry, dict) and entry.get("status") not in (None, "ok", "done", "complete")
        ]
        if states:
            return f"{text} (sub-tasks: {', '.join(states)})."
        return f"{text}: its sub-task was not requested or gave no rows."

    def is_empty(self, subject: str) -> bool:
        """Whether the table was made and has no rows: nothing was found, which is a result."""
        return self.table(subject) is None and isinstance(self._tables[subject], Table)

    def missing(self, *subjects: str) -> list[Note]:
        """A note for each of `subjects` that is not there."""
        return [Note(self.why_no_table(s), "missing") for s in subjects if self.table(s) is None]

    @cached_property
    def products(self) -> list[Path]:
        folder = self.folder / "products"
        return sorted(p for p in folder.glob("*") if p.is_file()) if folder.is_dir() else []

    def product(self, prefix: str, ccd: int) -> Path | None:
        """Product file ``<prefix>_CCD<ccd>_…``, None when there is none."""
        return next((p for p in self.products if p.name.startswith(f"{prefix}_CCD{ccd}_")), None)

    # -- parts of the verdict, whatever their shape
    @cached_property
    def flags(self) -> list[dict]:
        return [f if isinstance(f, dict) else {"name": str(f)} for f in as_list(self.verdict.get("flags"))]

    @cached_property
    def compliance(self) -> list[dict]:
        """Compliance cells, flat: key values beside check, ok, value, low, high, obsids."""
        flat = []
        for cell in as_list(self.verdict.get("compliance")):
            if isinstance(cell, dict):
                keys = as_dict(cell.get("cell") or cell.get("keys"))
                flat.append({**{k: v for k, v in cell.items() if k not in ("cell", "keys")}, **keys})
        return flat

    @cached_property
    def headline(self) -> list[dict]:
        return [h for h in as_list(self.verdict.get("headline")) if isinstance(h, dict)]

    @cached_property
    def exposures(self) -> list[dict]:
        return [e for e in as_list(self.manifest.get("exposures")) if isinstance(e, dict)]

    @cached_property
    def obsids(self) -> list[int]:
        return [int(e["obsid"]) for e in self.exposures if _is_int(e.get("obsid"))]

    def checks(self, *starts: str) -> list[dict]:
        """Compliance cells whose check begins with one of `starts`."""
        return [c for c in self.compliance if str(c.get("check", "")).startswith(starts)]


def as_list(value) -> list:
    return value if isinstance(value, list) else []


def as_dict(value) -> dict:
    return value if isinstance(value, dict) else {}


def _is_int(value) -> bool:
    try:
        int(value)
    except (TypeError, ValueError):
        return False
    return True


# ---- numbers ------------------------------------------------------------------------------------------
NOT_MEASURED = "–"


def is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def number(value, digits: int = 4) -> str:
    """A number for people: `digits` significant ones, exponent only far from 1, a dash when missing."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not is_number(value):
        return NOT_MEASURED if value is None or isinstance(value, float) else str(value)
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e7):
        return f"{int(value)}"
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if -4 < exponent < 6:
        return f"{value:.{max(0, digits - 1 - exponent)}f}"
    return _power(f"{value:.{digits - 1}e}")


def bound(value) -> str:
    """A limit, without zeros that say nothing; empty when there is none."""
    if not is_number(value):
        return ""
    digits, times, power = number(value, 5).partition("·")
    return (digits.rstrip("0").rstrip(".") if "." in digits else digits) + times + power


def limit_sign(item: dict) -> str:
    """``<`` or ``>`` for a headline entry that is a limit, else nothing."""
    if not item.get("is_limit"):
        return ""
    known = QUANTITIES.get(item.get("quantity", ""))
    return ">" if known is not None and known.lower else "<"


def is_true(value) -> bool:
    """Whether a cell of a table says yes."""
    return value in (True, 1, "True", "true")


def with_error(value, error, limit: bool | str = False) -> str:
    """``value ± error`` with two digits of the error; ``< value`` for a limit, or with the sign that `limit` gives."""
    if not is_number(value):
        return NOT_MEASURED
    if limit:
        return f"{'<' if limit is True else limit} {number(value, 3 if limit != '>' else 4)}"
    if not is_number(error) or error <= 0:
        return number(value)
    decimals = max(0, 1 - math.floor(math.log10(error)))
    scale = math.floor(math.log10(max(abs(value), error)))
    if scale >= 6 or (decimals > 6 and scale < -1):
        places = max(0, scale - math.floor(math.log10(error)) + 1)
        return f"({value / 10**scale:.{places}f} ± {error / 10**scale:.{places}f}){_exponent(scale)}"
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"


_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def power_of_ten(exponent: int) -> str:
    """10 with its exponent in raised digits."""
    return f"10{str(int(exponent)).translate(_SUPERSCRIPTS)}"


def _exponent(scale: int) -> str:
    return f"·{power_of_ten(scale)}"


def _power(text: str) -> str:
    mantissa, exponent = text.split("e")
    return f"{mantissa}{_exponent(int(exponent))}"


def state_of(ok) -> str:
    """Name of the state of a compliance value: pass, fail, none."""
    return {True: "pass", False: "fail"}.get(ok if isinstance(ok, bool) else None, "none")


def worst(states) -> str:
    """The state that a group of cells has: a fail wins, then a pass, then nothing measured."""
    states = set(states)
    return next((s for s in ("fail", "pass", "none") if s in states), "none")


def obsid_tuple(value) -> tuple[int, ...]:
    return tuple(int(v) for v in as_list(value) if _is_int(v))


def scope_text(scope) -> str:
    """Scope of a flag in words: ``CCD2 E, OBSID 17283``."""
    if not isinstance(scope, dict):
        return "" if scope is None else str(scope)
    parts = []
    if scope.get("ccd") is not None:
        parts.append(f"CCD{scope['ccd']}" + (f" {scope['quadrant']}" if scope.get("quadrant") else ""))
    elif scope.get("quadrant"):
        parts.append(f"quadrant {scope['quadrant']}")
    for key, value in scope.items():
        if key in ("ccd", "quadrant") or value in (None, [], ""):
            continue
        name = {"obsid": "OBSID", "obsids": "OBSIDs"}.get(key, key)
        if isinstance(value, list):
            more = f" and {len(value) - 8} more" if len(value) > 8 else ""
            value = ", ".join(map(str, value[:8])) + more
        parts.append(f"{name} {value}")
    return ", ".join(parts)


def label(ccd=None, quadrant=None) -> str:
    """``CCD1 E``: labels appear only in reports, keys are numbers and letters."""
    return " ".join(part for part in (f"CCD{ccd}" if ccd is not None else "", quadrant or "") if part)


#: Reading names of quantities and checks; what is not listed loses its underscores.
NAMES = {
    "hk": "House-keeping",
    "read_noise": "Read noise",
    "read_noise_e": "Read noise in electrons",
    "chi2_dof": "χ²/dof",
    "rate_adu": "Rate",
    "rate_e": "Rate",
    "log10_chance": "log₁₀ chance",
    "dark_current": "Dark current",
    "dsnu": "Dark signal non-uniformity",
    "saturated_fraction": "Saturated fraction",
    "lost": "Lost pixels",
    "bad_pixels": "Bad pixels",
    "t0": "t₀",
    "k": "k",
    "e1": "e1",
    "e2": "e2",
}
_WORDS = {
    "ccd": "CCD",
    "obsid": "OBSID",
    "adu": "ADU",
    "hk": "HK",
    "n": "n",
    "dq": "DQ",
    "err": "error",
    "fwhm": "FWHM",
    "her": "HER",
    "ptc": "PTC",
    "psf": "PSF",
    "bf": "BF",
    "cti": "CTI",
    "prnu": "PRNU",
    "ig1": "IG1",
    "idl": "IDL",
    "tau": "τ",
    "pc": "Pc",
    "chi2": "χ²",
}
REGION_NAMES = {"pre": "prescan", "img": "image", "ove": "overscan", "pov": "parallel overscan"}


def title(name: str) -> str:
    name = str(name)
    if name in NAMES:
        return NAMES[name]
    words = [_WORDS.get(word, word) for word in name.replace("_", " ").split()]
    text = " ".join(words)
    return text if text == "n" or not text[:1].isascii() else text[:1].upper() + text[1:]


def named_key(key: str, value) -> str:
    """What tells one headline number from another, in words: ``temperature_K`` 153 is temperature 153 K."""
    if key == "region":
        return str(REGION_NAMES.get(value, value))
    if key == "wavelength":
        return f"wavelength {value} nm"
    name, _, unit = key.rpartition("_")
    if name and unit in ("K", "V", "mm", "nm", "s", "us"):
        return f"{name.replace('_', ' ')} {value} {pretty_unit(unit)}"
    return f"{key.replace('_', ' ')} {value}"


# ---- tables of tables -----------------------------------------------------------------------------------
def plain_table(
    table: Table, columns: list[str] | None = None, caption: str = "", limit: int = LONG_TABLE
) -> TableBlock:
    """A table as it is; values with ``<name>_err`` are joined, long ones truncated with their count."""
    names = [name for name in (columns or list(table.columns)) if name in table]
    shown = [name for name in names if not (name.endswith("_err") and name[:-4] in names)]
    header = [column_title(table, name) for name in shown]
    rows = []
    wanted = table.rows(limit)
    for row in wanted:
        rows.append([table_cell(row, name) for name in shown])
    return TableBlock(
        header, rows, caption, max(0, len(table) - len(rows)), f"tables/{table.name}.ecsv", True
    )


def column_title(table: Table, name: str) -> str:
    unit = table.unit(name)
    return f"{title(name)} [{unit}]" if unit else title(name)


def table_cell(row: dict, name: str) -> Cell:
    value = row.get(name)
    if name == "flag":
        return Cell(
            "" if value in (None, "", 0, "0") else str(value),
            "fail" if value not in (None, "", 0, "0") else "",
        )
    if name == "ccd" and value is not None:
        return Cell(f"CCD{value}")
    if isinstance(value, str):
        return Cell(value, align="l")
    text = with_error(value, row.get(f"{name}_err")) if f"{name}_err" in row else number(value)
    return Cell(text, "none" if value is None else "")


def beam_values(table: Table, name: str, caption: str = "", limit_column: str = "") -> Beam:
    """A quantity of a table with ccd and quadrant as a beam table, with errors."""
    cells = {}
    for row in table.rows():
        key = (row.get("ccd"), row.get("quadrant"))
        limit = bool(limit_column and row.get(limit_column))
        text = with_error(row.get(name), row.get(f"{name}_err"), limit)
        cells[key] = Cell(text, "none" if row.get(name) is None else "")
    unit = table.unit(name)
    return Beam(cells, caption or (f"{title(name)} [{unit}]" if unit else title(name)))


__all__ = [
    "BEAM",
    "CCDS",
    "QUADRANTS",
    "Beam",
    "Cell",
    "Facts",
    "Figure",
    "Note",
    "ReportData",
    "Section",
    "TableBlock",
    "Text",
    "Verbatim",
    "beam_values",
    "is_true",
    "number",
    "plain_table",
    "pretty_unit",
    "title",
    "with_error",
]
