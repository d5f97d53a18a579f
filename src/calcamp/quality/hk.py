"""House-keeping limits: three passes over every exposure, and one value at a time for the monitor.

1. ``command``: reading minus commanded value within the performance limits,
2. ``performance``: reading within absolute performance limits (left out for warm tests),
3. ``safe``: reading within what the hardware stands.

The minimum and the maximum over an exposure are judged, not only the mean. A reading that is not there
is not measured, never good.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from calcamp.quality.compliance import Cell, excess
from calcamp.quality.flags import Flag
from calcamp.quality.limits import Band, HkLimit, number, side

PASSES = ("command", "performance", "safe")
_TEMPERATURE = re.compile(r"^CCD([123])_TEMP_[TB]$")
_OF_CCD = re.compile(r"^CCD([123])_")

# ok, not measured, or what is wrong; the order of growing trouble
OK, NOT_MEASURED, UNCOMPARED = "ok", "not measured", "no command"
BELOW, ABOVE, DIFFERS = "below", "above", "differs"


@dataclass(frozen=True)
class State:
    """State of one value: per pass ``ok``, ``below``, ``above``, ``differs``, ``not measured``, ``no command``."""

    key: str
    value: float | None
    passes: dict[str, str]

    @property
    def performance(self) -> str:
        """State of the performance pass that the key has (against the command or absolute)."""
        return self.passes.get("command", self.passes.get("performance", OK))

    @property
    def safe(self) -> str:
        return self.passes.get("safe", OK)

    @property
    def ok(self) -> bool | None:
        """False when a pass fails, None when not measured."""
        if self.value is None:
            return None
        return not any(state in (BELOW, ABOVE, DIFFERS) for state in self.passes.values())


def commanded_key(key: str) -> str | None:
    """EXP-LOG key of the value commanded for a house-keeping key, by name; None when there is none.

    The bottom injection gates compare with the bottom commands (the predecessor took those of the top).
    """
    match = re.fullmatch(r"CCD([123])_(OD|IG1)_([TB])", key)
    if match:
        ccd, name, half = match.groups()
        return f"{name}_{ccd}_{half}"
    match = re.fullmatch(r"COMM_(RD|IG2)_([TB])", key)
    if match:
        return "_".join(match.groups())
    return {"FPGA_BIAS_ID1": "IDH", "FPGA_BIAS_ID2": "IDL"}.get(key)


def judge_band(value, band: Band, commanded=None) -> str:
    """State of one value in one band."""
    if band.type == "identity":
        if value is None or value != value:
            return NOT_MEASURED
        return OK if _plain(value) in {_plain(v) for v in band.values} else DIFFERS
    value = number(value)
    if value is None:
        return NOT_MEASURED
    if band.type == "relative":
        commanded = number(commanded)
        if commanded is None:
            return UNCOMPARED
        value -= commanded
    return {-1: BELOW, 0: OK, 1: ABOVE}[side(value, band.low, band.high)]


def judge_value(key: str, value, commanded, limits: Mapping[str, HkLimit]) -> State:
    """State of one reading, e.g. for the live monitor.

    Parameters
    ----------
    key, value
        House-keeping key and reading; None or NaN is not measured.
    commanded
        Commanded value, a number or the EXP-LOG row (mapping); None when not known.
    limits
        From `calcamp.quality.limits.read_hk_limits`. A key without limits is ok in no pass.
    """
    limit = limits.get(key)
    if limit is None:
        return State(key, number(value), {})
    if isinstance(commanded, Mapping):
        commanded = commanded.get(limit.commanded or commanded_key(key))
    passes = {name: judge_band(value, band, commanded) for name, band in limit.passes().items()}
    return State(key, number(value), passes)


def judge_hk(
    rows: Iterable[Mapping],
    limits: Mapping[str, HkLimit],
    *,
    logged: Mapping[int, Mapping] | None = None,
    obsids: Sequence[int] = (),
    calibration: Mapping[str, Mapping] | None = None,
) -> tuple[list[Cell], list[Flag]]:
    """The three passes over a test.

    Parameters
    ----------
    rows
        Table ``hk``: obsid, key, commanded, mean, min, max, n; None where not measured.
    limits
        Limits by key; keys with ``in_tests`` False are for the monitor only.
    logged
        EXP-LOG row by OBSID: commanded values are taken from it where the table lacks them.
    obsids
        Exposures that must have readings; one without is not measured.
    calibration
        Key -> {slope, intercept}: true value from reading, of this ROE, for the pass against the command.

    Returns
    -------
    cells : list of Cell
        One per pass and key, checks ``hk_command``, ``hk_performance``, ``hk_safe``.
    flags : list of Flag
        HK_OOL, CCDTEMP_OOL, WRONG_ROE_CONF, and MISSDATA for readings that are not there.
    """
    by_key: dict[str, dict[int, Mapping]] = {}
    for row in rows:
        by_key.setdefault(row["key"], {})[row["obsid"]] = row
    wanted = [key for key, limit in limits.items() if limit.in_tests]
    seen = sorted({*obsids, *(obsid for table in by_key.values() for obsid in table)})
    cells, flags = [], []
    unmeasured: dict[tuple[int, ...], list[str]] = {}
    for key in wanted:
        limit, table = limits[key], by_key.get(key, {})
        absent = tuple(obsid for obsid in seen if number(table.get(obsid, {}).get("mean")) is None)
        if absent:
            unmeasured.setdefault(absent, []).append(key)
        of_key = []
        for name, band in limit.passes().items():
            line = (calibration or {}).get(key) if name == "command" else None
            of_key.append(_pass_cell(name, limit, band, table, seen, logged or {}, line))
        cells += of_key
        flags += _flags_of(limit, of_key, len(seen))
    flags += [_missing_flag(keys, absent, len(wanted), len(seen)) for absent, keys in unmeasured.items()]
    return cells, flags


# ---- parts ---------------------------------------------------------------------------------------
def _plain(value) -> str:
    """Identity of a register value, whatever it was read as: 12192 is 12192.0, -0.0 is 0, 12192.04 is neither."""
    as_number = number(value)
    if as_number is None:
        return str(value).strip()
    return str(int(value)) if as_number.is_integer() else repr(as_number)


def _extremes(row: Mapping, line: Mapping | None) -> list[float]:
    """Minimum, mean and maximum of an exposure, calibrated; empty when not measured."""
    values = [number(row.get(name)) for name in ("min", "mean", "max")]
    values = [v for v in values if v is not None]
    if number(row.get("mean")) is None:
        return []
    if line:
        values = [line.get("slope", 1.0) * v + line.get("intercept", 0.0) for v in values]
    return values


def _pass_cell(name, limit: HkLimit, band: Band, table, seen, logged, line) -> Cell:
    partner = limit.commanded or commanded_key(limit.key)
    worst, compared, bad, means = None, 0, [], []
    uncompared = False
    for obsid in seen:
        row = table.get(obsid, {})
        values = _extremes(row, line)
        if not values:
            continue
        commanded = 0.0
        if band.type == "relative":
            commanded = number(row.get("commanded"))
            if commanded is None:
                commanded = number(logged.get(obsid, {}).get(partner))
            if commanded is None:
                uncompared = True
                continue
        compared += 1
        means.append(values[len(values) // 2] - commanded)
        states = [judge_band(v, band, commanded) for v in values]
        if any(state != OK for state in states):
            bad.append(obsid)
        for value in values:
            deviation = value - commanded
            away = _away(deviation, band)
            if worst is None or away > worst[0]:
                worst = (away, deviation)
    keys = {"key": limit.key}
    match = _OF_CCD.match(limit.key)
    if match:
        keys["ccd"] = int(match[1])
    reason = ""
    if not compared:
        reason = f"no commanded value {partner}" if uncompared else "not measured"
    return Cell(
        f"hk_{name}",
        keys,
        None if not compared else not bad,
        worst[1] if worst else None,
        mean=sum(means) / len(means) if means else None,
        n=compared,
        n_unmeasured=len(seen) - compared,
        n_violating=len(bad),
        obsids=bad,
        low=band.low,
        high=band.high,
        unit=limit.unit,
        limit=limit.key,
        reason=reason,
    )


def _away(deviation: float, band: Band) -> float:
    if band.type == "identity":
        return 0.0 if judge_band(deviation, band) == OK else 1.0
    return excess(deviation, band.low, band.high)


_WORDS = {
    "command": "minus its command",
    "performance": "against performance limits",
    "safe": "against safe limits",
}


def _flags_of(limit: HkLimit, cells: list[Cell], frames: int) -> list[Flag]:
    out = []
    for cell in cells:
        if cell.ok is not False:
            continue
        name = cell.check.removeprefix("hk_")
        bounds = f"{_show(cell.low)}…{_show(cell.high)}"
        text = f"{limit.key} {_WORDS[name]}: {_show(cell.value)} {limit.unit} in {bounds}, {len(cell.obsids)} of {cell.n} exposures"
        scope = {"key": limit.key, "obsids": cell.obsids}
        match = _TEMPERATURE.match(limit.key)
        if match and name == "performance":
            out.append(Flag("CCDTEMP_OOL", text, {"ccd": int(match[1]), **scope}))
            continue
        out.append(Flag("HK_OOL", text, scope))
        # A reading that is off in every exposure is a setting, not a glitch. IG1 is known to disagree with
        # its command while the default calibration of the read-out electronics is in use.
        if name == "command" and cell.n == cell.n_violating and cell.n and "_IG1_" not in limit.key:
            cause = f"{limit.key} is off its command by {_show(cell.mean)} {limit.unit} in every exposure"
            out.append(Flag("WRONG_ROE_CONF", cause, scope))
    return out


def _missing_flag(keys: list[str], absent: tuple[int, ...], wanted: int, frames: int) -> Flag:
    what = "No house-keeping" if len(keys) == wanted else f"No reading of {', '.join(keys)}"
    where = "of any exposure" if len(absent) == frames else f"of {len(absent)} of {frames} exposures"
    return Flag("MISSDATA", f"{what} {where}", {"obsids": list(absent), "subtask": "hk"})


def _show(value) -> str:
    return "open" if value is None else f"{value:.4g}"
