"""How a family of tests is judged: declarations, and what they can ask about a test.

A family module of this package (``quality/<family>.py``) exports one ``FAMILY``, found by scanning, so a
new family is one new file. It says which measured values are compared with which limit beyond what the
limits file says itself, which numbers are headlines, and what else raises flags.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property

from calcamp.detector.geometry import CCDS, QUADRANTS
from calcamp.quality.compliance import Cell, judge_cells
from calcamp.quality.flags import Flag
from calcamp.quality.limits import HkLimit, Limit, number
from calcamp.quality.quantities import QUANTITIES


@dataclass
class Case:
    """All that is known of the test being judged.

    Attributes
    ----------
    judging : dict
        What the plan says: test, block, options, offsets, sub-tasks, limits ...
    manifest : dict
    tables : dict
        Subject -> rows of the table joined over CCDs, None for not measured.
    records : list of dict
        Records of the sub-tasks.
    products : list of dict
        Products made: kind, file, ccd, ...
    """

    judging: dict
    manifest: dict
    tables: Mapping[str, Sequence[Mapping]]
    records: list[dict]
    products: list[dict]
    limits: dict[str, Limit]
    hk_limits: dict[str, HkLimit]
    references: dict[str, Callable] = field(default_factory=dict)
    column_limits: dict[int, dict[str, Limit | None]] = field(default_factory=dict)

    def limit(self, name: str) -> Limit | None:
        """The limit of the test as a whole; one that holds in some columns only says which."""
        whole = self.limits.get(name)
        if whole is not None:
            return whole
        own = {column: limits[name] for column, limits in self.column_limits.items() if limits.get(name)}
        return replace(next(iter(own.values())), columns=tuple(sorted(own))) if own else None

    def limit_of(self, limit: Limit, row: Mapping) -> Limit | None:
        """The limit that holds for a row: that of its column where it differs; None is not judged."""
        return self.column_limits.get(row.get("column"), {}).get(limit.name, limit)

    @cached_property
    def exposures(self) -> list[dict]:
        return self.manifest.get("exposures") or []

    @cached_property
    def logged(self) -> dict[int, dict]:
        """EXP-LOG row by OBSID."""
        return {e["obsid"]: e.get("log_row") or {} for e in self.exposures}

    @cached_property
    def columns(self) -> list[int]:
        """Columns of the test, from 1."""
        declared = (self.judging.get("structure") or {}).get("columns")
        if declared:
            return list(range(1, len(declared) + 1))
        return sorted({e["column"] for e in self.exposures})

    @cached_property
    def by_analyst(self) -> list[dict]:
        """Frames that the analyst left out: neither judged nor in headlines."""
        return list(self.judging.get("excluded") or [])

    @cached_property
    def by_rule(self) -> list[dict]:
        """Frames left out by a rule of the check: judged all the same, not in headlines."""
        out = [
            row for row in self.tables.get("selection", []) if row.get("use") is False or row.get("use") == 0
        ]
        for record in self.records:
            out += [item for item in record.get("excluded") or [] if item.get("by") != "analyst"]
        return out

    def rows(self, subject: str) -> list[dict]:
        """Rows of a table without what the analyst left out."""
        return without(self.tables.get(subject, []), self.by_analyst)

    def used(self, subject: str) -> list[dict]:
        """Rows of a table of frames that are used in the analysis."""
        return without(self.rows(subject), self.by_rule)

    def reference(self, limit: Limit, row: Mapping) -> float | None:
        """What a limit is relative to, for one row; None when it cannot be made."""
        make = self.references.get(limit.reference)
        return None if make is None else make(self, row, limit)

    def offset(self, ccd, quadrant) -> float | None:
        """Expected offset of the block, ADU."""
        offsets = self.judging.get("offsets") or {}
        if f"{ccd}{quadrant}" in offsets:
            return number(offsets[f"{ccd}{quadrant}"])
        of_ccd = offsets.get(str(ccd)) or offsets.get(ccd) or {}
        return number(of_ccd.get(quadrant))

    def gain(self, ccd: int, quadrant: str) -> tuple[float | None, float | None, bool]:
        """(gain e-/ADU, its error, nominal?): the block's measured gain, else the nominal one."""
        measured = self._gains.get((ccd, quadrant))
        if measured and number(measured[0]) is not None:
            return number(measured[0]), number(measured[1]), False
        return number(self.detector.get("nominal_gain")), None, True

    @cached_property
    def detector(self) -> dict:
        """The detector as plain data."""
        if self.judging.get("detector"):
            return self.judging["detector"]
        return next((r["job"]["detector"] for r in self.records if (r.get("job") or {}).get("detector")), {})

    @cached_property
    def _gains(self) -> dict[tuple[int, str], tuple]:
        given = self.judging.get("gains") or self.judging.get("gain")
        if given is None:
            named = [(r.get("job") or {}).get("products", {}).get("gain") for r in self.records]
            named = next((g for g in (self.judging.get("gain_product"), *named) if g), None)
            given = self._load_gain(named) if named else {}
        out = {}
        for key, value in given.items():
            if isinstance(key, tuple):
                out[key] = _pair(value)
            else:
                out.update({(int(key), quadrant): _pair(item) for quadrant, item in value.items()})
        return out

    @staticmethod
    def _load_gain(named: Mapping) -> Mapping:
        if "numbers" in named:
            return named["numbers"]
        from pathlib import Path

        from calcamp.data.products import load_gain

        try:
            return load_gain(Path(named["path"]))
        except Exception as error:
            # Moved away since it was used, or damaged: electrons then show as nominal, the verdict is made.
            if isinstance(error, OSError) or getattr(error, "is_input_error", False):
                return {}
            raise


def _pair(value) -> tuple:
    if isinstance(value, Mapping):
        return value.get("gain"), value.get("err")
    return tuple(value)[:2] if isinstance(value, (list, tuple)) and len(value) > 1 else (value, None)


def without(rows: list[dict], items: Iterable[Mapping]) -> list[dict]:
    """Rows that none of `items` leaves out."""
    of_obsid: dict[int, list] = {}
    for item in items:
        of_obsid.setdefault(item.get("obsid"), []).append(item)
    if not of_obsid:
        return list(rows)
    return [row for row in rows if not left_out(row, of_obsid.get(row.get("obsid"), ()))]


def left_out(row: Mapping, items: Iterable[Mapping]) -> bool:
    """Whether a row belongs to an exposure, CCD or quadrant that was left out."""
    obsid = row.get("obsid")
    if obsid is None:
        return False
    for item in items:
        if item.get("obsid") != obsid:
            continue
        if all(
            item.get(key) in (None, "") or row.get(key) is None or item[key] == row[key]
            for key in ("ccd", "quadrant")
        ):
            return True
    return False


@dataclass(frozen=True)
class Check:
    """Measured values compared with a limit. What is not given here is as the limits file says.

    ``rows`` gives the rows to judge from the case and the limit; each has the value under ``value``.
    """

    limit: str
    name: str = ""
    table: str = ""
    value: str = ""
    by: tuple[str, ...] = ()
    flags: tuple[str, ...] | None = None
    rows: Callable[[Case, Limit], list[dict]] | None = None

    def run(self, case: Case) -> tuple[list[Cell], list[Flag]]:
        """Cells and flags; none when the limit does not hold for this test."""
        limit = case.limit(self.limit)
        if limit is None:
            return [], []
        rows = self.rows(case, limit) if self.rows else case.rows(self.table or limit.table)
        judged = [row for row in rows if _concerns(limit, row) and _concerns(case.limit_of(limit, row), row)]

        def bounds(row):
            own = case.limit_of(limit, row)
            return own.bounds(None if own.mode == "absolute" else case.reference(own, row))

        by = self.by or limit.cell
        cells = judge_cells(
            self.name or self.limit,
            judged,
            self.value or limit.value,
            by,
            bounds,
            expected=_expected(case, limit, by),
            unit=limit.unit if limit.mode == "absolute" or limit.unit != "1" else "",
            limit=limit.name,
        )
        return cells, flags_of(cells, limit.flags if self.flags is None else self.flags)


def _concerns(limit: Limit | None, row: Mapping) -> bool:
    if limit is None:
        return False
    if limit.regions is not None and row.get("region") is not None and row["region"] not in limit.regions:
        return False
    return limit.columns is None or row.get("column") is None or row["column"] in limit.columns


def _expected(case: Case, limit: Limit, by: Sequence[str]) -> list[dict]:
    """Cells that must be there although nothing was measured."""
    choices = {
        "ccd": CCDS,
        "quadrant": QUADRANTS,
        "region": limit.regions,
        "column": [c for c in limit.columns or case.columns if case.limit_of(limit, {"column": c})],
    }
    cells: list[dict] = [{}]
    for key in by:
        if not choices.get(key):
            return []
        cells = [{**cell, key: value} for cell in cells for value in choices[key]]
    return cells


def flags_of(cells: Iterable[Cell], names: Sequence[str]) -> list[Flag]:
    """Flags of the failing cells: one per flag, check, CCD and quadrant, with the exposures.

    POORQUALDATA beside a more telling flag is listed as its consequence.
    """
    groups: dict[tuple, list[Cell]] = {}
    for cell in cells:
        if cell.ok is False:
            groups.setdefault((cell.keys.get("ccd"), cell.keys.get("quadrant")), []).append(cell)
    telling = tuple(name for name in names if name != "POORQUALDATA")
    out = []
    for (ccd, quadrant), members in groups.items():
        scope = {"ccd": ccd, "quadrant": quadrant}
        scope = {k: v for k, v in scope.items() if v is not None}
        obsids = sorted({obsid for cell in members for obsid in cell.obsids})
        if obsids:
            scope["obsids"] = obsids
        columns = {cell.keys.get("column") for cell in members}
        if len(columns) == 1 and None not in columns:
            scope["column"] = columns.pop()
        cause = "; ".join(_cause(cell) for cell in members[:6])
        if len(members) > 6:
            cause += f"; and {len(members) - 6} more"
        for name in names:
            of = telling if name == "POORQUALDATA" else ()
            out.append(Flag(name, cause, scope, of))
    return out


def _cause(cell: Cell) -> str:
    where = [f"{cell.keys['region']}"] if cell.keys.get("region") else []
    where += [f"col{cell.keys['column']:03d}"] if cell.keys.get("column") else []
    where += [str(cell.keys[key]) for key in ("spot", "key", "edge", "kind") if cell.keys.get(key)]
    unit = f" {cell.unit}" if cell.unit and cell.unit != "1" else ""
    low, high = ("open" if b is None else f"{b:.6g}" for b in (cell.low, cell.high))
    name = " ".join([cell.check.replace("_", " "), *where])
    text = f"{name}: {cell.value:.6g}{unit} outside {low}…{high}"
    if cell.n > 1:
        text += f" in {cell.n_violating} of {cell.n}"
    return text


@dataclass(frozen=True)
class FamilyRules:
    """How one family is judged.

    ``checks`` come after the common ones; one of the same name replaces it. Limits that hold for the test
    and have no check are judged as the limits file describes them. ``headline`` returns entries made by `entry`. ``extra`` returns
    more flags from the case and the cells. ``products`` are (sub-task, kind) that every CCD must have.
    ``references`` make what a limit is relative to: name -> function(case, row, limit).
    """

    name: str
    checks: tuple[Check, ...] = ()
    headline: Callable[[Case], list[dict]] | None = None
    extra: Callable[[Case, list[Cell]], list[Flag]] | None = None
    products: tuple[tuple[str, str], ...] = ()
    references: dict[str, Callable] = field(default_factory=dict)


@cache
def families() -> dict[str, FamilyRules]:
    """All families that say how they are judged, by name."""
    import calcamp.quality as package

    found = {}
    for info in pkgutil.iter_modules(package.__path__):
        rules = getattr(importlib.import_module(f"{package.__name__}.{info.name}"), "FAMILY", None)
        if isinstance(rules, FamilyRules):
            found[rules.name] = rules
    return found


# ---- headlines -----------------------------------------------------------------------------------
def entry(quantity: str, value, err=None, n=None, **keys) -> dict:
    """One headline number with the unit of docs/quantities.md; what was not measured is None."""
    value, err = number(value), number(err)
    n = number(n)
    return {
        "quantity": quantity,
        **keys,
        "value": value,
        "err": err if value is not None else None,
        "unit": QUANTITIES[quantity].unit,
        "n": int(n) if n is not None and value is not None else None,
    }


def channels() -> list[tuple[int, str]]:
    """The twelve channels, (ccd, quadrant)."""
    return [(ccd, quadrant) for ccd in CCDS for quadrant in QUADRANTS]


def from_table(
    rows: Iterable[Mapping], quantity: str, value: str, keys: Sequence[str] = (), **fixed
) -> list[dict]:
    """Headline entries of a table with one row per channel; an absent channel is None.

    `keys` are further keys of the rows to carry over, `fixed` ones that rows must have and entries show.
    """
    found: dict[tuple, list] = {}
    for row in rows:
        if all(row.get(k) == v for k, v in fixed.items()):
            found.setdefault((row.get("ccd"), row.get("quadrant")), []).append(row)
    out = []
    for ccd, quadrant in channels():
        for row in found.get((ccd, quadrant), [{}]):
            more = {k: row[k] for k in keys if row.get(k) is not None}
            out.append(
                entry(
                    quantity,
                    row.get(value),
                    row.get(f"{value}_err"),
                    row.get("n"),
                    ccd=ccd,
                    quadrant=quadrant,
                    **fixed,
                    **more,
                )
            )
    return out


def mean_of(values: Iterable, errors: Iterable = ()) -> tuple[float | None, float | None, int]:
    """(mean, its error, n): the larger of the scatter over sqrt(n) and the given errors combined."""
    values = [v for v in map(number, values) if v is not None]
    errors = [e for e in map(number, errors) if e is not None]
    n = len(values)
    if not n:
        return None, None, 0
    mean = sum(values) / n
    scatter = (sum((v - mean) ** 2 for v in values) / (n - 1) / n) ** 0.5 if n > 1 else None
    given = sum(e * e for e in errors) ** 0.5 / n if len(errors) == n else None
    known = [e for e in (scatter, given) if e is not None]
    return mean, max(known, default=None), n
