"""Which logged exposure is which declared frame: alignment by content, not by counting.

The rows of a test in the EXP-LOG are matched with the frames its script declares by dynamic programming.
A missing frame then damages only its own column, an aborted and restarted test resolves to its last
complete run even with contiguous OBSIDs, and equipment keys (serials, operator) never disturb the
matching: they are only reported. Standard library only: a waiting gate imports this module and little else.

The model. The exposures, in order of OBSID, are explained as one or more *runs* of the declared list of
frames. Costs: a frame passed over, an exposure that is nothing declared, an exposure that differs from
its frame in keys, and a new start. A step in OBSID that equals the number of frames passed over is
evidence for a lost frame and makes that cheaper; a jump in OBSID makes a new start cheaper.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

RELATIVE_TOLERANCE = 0.005  # data formats, section 3.6
ABSOLUTE_TOLERANCE = 1e-8
EQUIPMENT_KEYS = ("operator", "sn_ccd1", "sn_ccd2", "sn_ccd3", "sn_roe", "sn_rpsu")
#: Told apart by these too where the log records them, although old logs hold constants there.
WEAK_KEYS = ("v_tp_mod", "s_tp_mod")

# Costs of the alignment, in units of one exposure that nothing declared explains.
_UNEXPECTED = 1.0
_UNEXPECTED_LEADING = 0.98  # of two equal solutions the one with the later window is taken
_MISSING, _MISSING_TAIL = 0.8, 0.79  # of equal solutions the one that lacks the last frames
_MISMATCH = 1.7  # dearer than passing one frame over, cheaper than a missing plus an unexpected one
_MISMATCH_MORE, _MISMATCH_MAX = 0.01, 1.78
_CONSTANT, _CONSTANT_MAX = 0.2, 0.4  # keys equal in all columns cannot tell columns apart
_DEVIATION = 0.3  # inside the tolerance: 0.2 mm of mirror position are within 0.5 %
_WEAK = 0.3
_RESTART, _RESTART_AT_GAP = 3.0, 1.5
_ABORTED, _OPEN = 0.01, 0.02  # per frame not reached by an aborted run, by the run still going on
_GAP = 0.3  # going on after a jump in OBSID without a missing frame
_LOST, _LOST_MORE = 0.5, 0.1  # frames passed over exactly as many as OBSIDs are absent

_INFINITE = math.inf


@dataclass(frozen=True)
class Declared:
    """A column as the EXP-LOG should show it: number of frames, complete values by EXP-LOG name."""

    frames: int
    values: dict[str, object]


@dataclass(frozen=True)
class Run:
    """A stretch of exposures that follows the declared frames from their beginning.

    ``assignments`` are (exposure index, column, frame), columns and frames from 1.
    """

    assignments: tuple[tuple[int, int, int], ...]
    declared: int

    @property
    def frames(self) -> int:
        return len(self.assignments)

    @property
    def complete(self) -> bool:
        return self.frames == self.declared

    @property
    def first(self) -> int:
        """Index of the first exposure."""
        return self.assignments[0][0]

    @property
    def last(self) -> int:
        return self.assignments[-1][0]


@dataclass
class Alignment:
    """Result of `align`.

    Attributes
    ----------
    assignments : list of (exposure index, column, frame)
    missing : list of {"column", "frame"}, with "obsid" and "ccds" when only some CCDs lack their row
    unexpected : list of OBSIDs that are no declared frame (aborted runs included)
    mismatches : list of {"obsid", "column", "key", "expected", "found"}; with "ccd" when one row differs
    other_runs : list of {"obsids": [first, last], "frames", "complete"} of the same test
    complete : bool
        Every declared frame is there with all its CCDs. Mismatches do not make it False.
    messages : list of str
    """

    assignments: list[tuple[int, int, int]] = field(default_factory=list)
    missing: list[dict] = field(default_factory=list)
    unexpected: list[int] = field(default_factory=list)
    mismatches: list[dict] = field(default_factory=list)
    other_runs: list[dict] = field(default_factory=list)
    declared: int = 0
    messages: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return not self.missing and self.declared > 0

    @property
    def checks_out(self) -> bool:
        """Complete, and every compared key as declared."""
        return self.complete and not self.mismatches

    @property
    def wrong_columns(self) -> list[int]:
        """Columns with a missing frame or a key that differs, equipment apart."""
        wrong = {m["column"] for m in self.missing}
        wrong |= {m["column"] for m in self.mismatches if m["key"] not in EQUIPMENT_KEYS}
        return sorted(wrong)

    def as_dict(self) -> dict:
        """Plain data for manifest.json."""
        return {
            "missing": self.missing,
            "unexpected": self.unexpected,
            "mismatches": self.mismatches,
            "other_runs": self.other_runs,
            "messages": self.messages,
        }


# ---- what is expected ----------------------------------------------------------------------------
def expected_keys(column, test=None, defaults: Mapping[str, object] | None = None) -> dict[str, object]:
    """Every value that the EXP-LOG should hold for a column, by EXP-LOG name.

    Parameters
    ----------
    column
        Has ``frames`` and ``keys`` (commanded values by script or EXP-LOG name), as attributes or items.
    test
        Test object or name; its EXP-LOG name is taken where the column does not command ``test``.
    defaults
        Script key -> ELVIS default; by default `calcamp.data.elvis.SCRIPT_DEFAULTS`.
    """
    from calcamp.data.elvis import SCRIPT_DEFAULTS, SCRIPT_TO_LOG

    keys = dict(_item(column, "keys"))
    if test is not None:
        keys.setdefault("test", getattr(test, "log_name", test))
    script = {**(SCRIPT_DEFAULTS if defaults is None else defaults)}
    script.pop("frames", None)
    values = {SCRIPT_TO_LOG.get(name, name): value for name, value in script.items()}
    values.update({SCRIPT_TO_LOG.get(name, name): value for name, value in keys.items()})
    if "IPHI" not in values:
        phases = [n for n in (1, 2, 3, 4) if f"IPHI{n}" in values]
        if phases:
            values["IPHI"] = "".join(f"I{n}" for n in phases if values[f"IPHI{n}"])
    for n in (1, 2, 3, 4):
        values.pop(f"IPHI{n}", None)
    return values


def declare(columns: Iterable, test=None, defaults: Mapping[str, object] | None = None) -> list[Declared]:
    """`Declared` columns from columns as written in the campaign; those already declared stay."""
    return [
        c if isinstance(c, Declared) else Declared(int(_item(c, "frames")), expected_keys(c, test, defaults))
        for c in columns
    ]


def same(expected, found) -> bool:
    """Whether a logged value agrees: numbers to 0.5 % and 1e-8, everything else exactly."""
    a, b = _number(expected), _number(found)
    if a is None or b is None:
        return str(expected).strip() == str(found).strip()
    return abs(a - b) <= ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * abs(a)  # False for NaN


# ---- alignment -----------------------------------------------------------------------------------
def align(
    columns: Sequence,
    exposures: Sequence,
    *,
    compared: Iterable[str] | None = None,
    waived: Iterable[str] = ("motr_siz",),
    equipment: Mapping[str, object] | None = None,
    ccds: Iterable[int] = (1, 2, 3),
    entry: int = 1,
    entries: int = 1,
    test=None,
) -> Alignment:
    """Match the logged exposures of a test with its declared columns.

    Parameters
    ----------
    columns
        Columns of the test (``frames``, ``keys``) or `Declared` ones.
    exposures
        Logged exposures of this test in order of OBSID: ``obsid``, ``values`` (row by EXP-LOG name)
        and ``ccds`` (CCD -> row, or the CCDs present).
    compared
        Keys to compare; by default `calcamp.data.elvis.COMPARED_KEYS`.
    waived
        Keys not to compare for this test.
    equipment
        Expected serials and operator; reported when they differ, never used to align.
    ccds
        CCDs that every exposure must have a row of.
    entry, entries
        This is the `entry`-th of `entries` runs of the test in the session: it takes the `entry`-th
        fitting run; with more runs than entries the last ones are taken.
    test
        Gives the expected ``test`` where columns do not command it.
    """
    declared = declare(columns, test)
    keys = _keys_to_compare(compared, waived)
    total = sum(d.frames for d in declared)
    runs = candidate_runs(declared, exposures, compared=keys)
    run = _choose(runs, entry, entries)
    result = Alignment(declared=total)
    if run is not None:
        result.assignments = list(run.assignments)
    _note_missing(result, declared, exposures, tuple(ccds))
    taken = {index for index, _, _ in result.assignments}
    for other in runs:
        if other is run:
            continue
        result.other_runs.append(
            {
                "obsids": [exposures[other.first].obsid, exposures[other.last].obsid],
                "frames": other.frames,
                "complete": other.complete,
            }
        )
        if other.complete:  # a repeat, not a surplus
            taken.update(index for index, _, _ in other.assignments)
    result.unexpected = [e.obsid for index, e in enumerate(exposures) if index not in taken]
    _note_mismatches(result, declared, exposures, keys, equipment or {})
    result.messages = _messages(result, declared, exposures, runs, run)
    return result


def candidate_runs(
    columns: Sequence, exposures: Sequence, *, compared: Iterable[str] | None = None, finished: bool = True
) -> list[Run]:
    """Split the exposures of a test in runs, each following the declared frames from the beginning.

    `finished` False is for an acquisition still going on: frames that a last run has not reached cost
    nothing, so that a restarted test is seen as such from its first frames on.
    """
    declared = declare(columns)
    total = sum(d.frames for d in declared)
    if not exposures or not total:
        return []
    keys = _keys_to_compare(compared, ())
    column_of = [c for c, d in enumerate(declared) for _ in range(d.frames)]
    costs = _match_costs(declared, exposures, keys)
    gaps = [0] + [int(b.obsid) - int(a.obsid) for a, b in pairwise(exposures)]
    path = _best_path(costs, gaps, column_of, finished)
    first_of = [0] * len(declared)
    for c in range(1, len(declared)):
        first_of[c] = first_of[c - 1] + declared[c - 1].frames
    runs = []
    for steps in path:
        assignments = tuple((i, column_of[j] + 1, j - first_of[column_of[j]] + 1) for i, j in steps)
        runs.append(Run(assignments, total))
    return runs


def progress(
    columns: Sequence,
    exposures: Sequence,
    *,
    compared: Iterable[str] | None = None,
    waived: Iterable[str] = ("motr_siz",),
    entry: int = 1,
) -> tuple[int, int, int]:
    """(frames seen, frames declared, wrong rows) of the run that is being acquired.

    Wrong rows are exposures of the present run that are no declared frame, or differ from it.
    """
    declared = declare(columns)
    total = sum(d.frames for d in declared)
    keys = _keys_to_compare(compared, waived)
    runs = candidate_runs(declared, exposures, compared=keys, finished=False)
    complete = [run for run in runs if run.complete]
    if len(complete) >= entry:
        run = complete[-1] if entry == 1 else complete[entry - 1]
    elif runs and not runs[-1].complete:
        run = runs[-1]
    else:
        return 0, total, 0
    later = [r.first for r in runs if r.first > run.last]
    end = min(later) if later else len(exposures)
    wrong = end - run.first - run.frames
    for index, column, _ in run.assignments:
        values, expected = exposures[index].values, declared[column - 1].values
        wrong += any(
            k in expected and values.get(k) is not None and not same(expected[k], values[k]) for k in keys
        )
    return run.frames, total, wrong


def differences(declared: Declared, exposure, waived: Iterable[str] = ()) -> list[tuple[str, object, object]]:
    """(key, expected, found) of an exposure that differs from its column; equipment is left out."""
    return [
        (key, declared.values[key], exposure.values[key])
        for key in _keys_to_compare(None, waived)
        if key in declared.values
        and exposure.values.get(key) is not None
        and not same(declared.values[key], exposure.values[key])
    ]


# ---- parts ---------------------------------------------------------------------------------------
def _item(thing, name):
    return thing[name] if isinstance(thing, Mapping) else getattr(thing, name)


def _number(value) -> float | None:
    if isinstance(value, (int, float)):
        return float(value)
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _keys_to_compare(compared, waived) -> tuple[str, ...]:
    if compared is None:
        from calcamp.data.elvis import COMPARED_KEYS

        compared = COMPARED_KEYS
    waived = {*waived, *EQUIPMENT_KEYS}
    return tuple(key for key in compared if key not in waived)


def _match_costs(declared: list[Declared], exposures, keys) -> list[list[float]]:
    """Cost of each exposure in each column; equal exposures share one list."""
    present = [key for key in keys if any(key in d.values for d in declared)]
    present += [key for key in WEAK_KEYS if key not in present]
    varying, constant = [], []
    for key in present:
        wanted = {repr(d.values.get(key)) for d in declared}
        (varying if len(wanted) > 1 else constant).append(key)
    varying_cost, constant_cost = {}, {}
    rows = []
    for exposure in exposures:
        values = exposure.values
        v = tuple(map(values.get, varying))
        c = tuple(map(values.get, constant))
        if c not in constant_cost:
            wanted = declared[0].values
            wrong = sum(
                f is not None and k not in WEAK_KEYS and not same(wanted[k], f)
                for k, f in zip(constant, c, strict=True)
            )
            constant_cost[c] = min(_CONSTANT + 0.01 * wrong, _CONSTANT_MAX) if wrong else 0.0
        if (v, c) not in varying_cost:
            varying_cost[v, c] = [_column_cost(d.values, varying, v) + constant_cost[c] for d in declared]
        rows.append(varying_cost[v, c])
    return rows


def _column_cost(wanted: dict, keys: list[str], found: tuple) -> float:
    wrong, deviation, weak = 0, 0.0, 0.0
    for key, value in zip(keys, found, strict=True):
        expected = wanted.get(key)
        if value is None or expected is None:
            continue
        if not same(expected, value):
            if key in WEAK_KEYS:
                weak = _WEAK
            else:
                wrong += 1
            continue
        a, b = _number(expected), _number(value)
        if a and b is not None:
            deviation = max(deviation, abs(a - b) / (RELATIVE_TOLERANCE * abs(a)))
    if wrong:
        return min(_MISMATCH + _MISMATCH_MORE * (wrong - 1), _MISMATCH_MAX)
    return _DEVIATION * min(deviation, 1.0) + weak


def _best_path(costs, gaps, column_of, finished) -> list[list[tuple[int, int]]]:
    """Cheapest explanation of the exposures: per run the pairs (exposure, declared frame)."""
    frames = len(column_of)
    last = frames - 1
    state = [_INFINITE] * frames  # cost so far with frame j as the last one assigned
    idle = 0.0  # cost so far when no run has begun
    history = []
    stay, begin = -1, -2
    for i, cost in enumerate(costs):
        gap = gaps[i]
        jump = gap > 1
        restart, restart_from = _INFINITE, begin
        for j, value in enumerate(state):
            value += _ABORTED * (last - j)
            if value < restart:
                restart, restart_from = value, j
        restart += _RESTART_AT_GAP if jump else _RESTART
        # A new run may follow an old one or be the first; its first frames may be missing.
        start, start_from = (idle, begin) if idle <= restart else (restart, -3 - restart_from)
        carry, carry_from = _INFINITE, begin
        extra = _GAP if jump else 0.0
        new, back = [0.0] * frames, [stay] * frames
        for j in range(frames):
            if j:
                carry += _MISSING
                if state[j - 1] <= carry:
                    carry, carry_from = state[j - 1], j - 1
            best, origin = carry + extra, carry_from
            if jump and j >= gap:
                lost = state[j - gap] + _LOST + _LOST_MORE * (gap - 1)
                if lost < best:
                    best, origin = lost, j - gap
            if start < best:
                best, origin = start, start_from
            start += _MISSING
            best += cost[column_of[j]]
            kept = state[j] + _UNEXPECTED
            if kept < best:
                new[j] = kept
            else:
                new[j], back[j] = best, origin
        state = new
        idle += _UNEXPECTED_LEADING
        history.append(back)
    per_frame = _MISSING_TAIL if finished else _OPEN
    end = min(range(frames), key=lambda j: (state[j] + per_frame * (last - j), -j))
    if idle < state[end]:
        return []
    return _trace(history, end, stay, begin)


def _trace(history, j, stay, begin) -> list[list[tuple[int, int]]]:
    runs, run = [], []
    for i in range(len(history) - 1, -1, -1):
        origin = history[i][j]
        if origin == stay:
            continue
        run.append((i, j))
        if origin >= 0:
            j = origin
            continue
        runs.append(run[::-1])
        run = []
        if origin == begin:
            break
        j = -3 - origin
    return runs[::-1]


def _choose(runs: list[Run], entry: int, entries: int) -> Run | None:
    """The run that belongs to the `entry`-th of `entries` entries of the session."""
    complete = [run for run in runs if run.complete]
    if len(complete) >= entries:
        return complete[-entries:][entry - 1]
    # Not enough complete runs: the fullest ones stand in, if at least half is there or nothing better is.
    usable = [run for run in runs if 2 * run.frames >= run.declared] or runs
    best = sorted(usable, key=lambda run: (run.frames, run.first))[-entries:]
    best.sort(key=lambda run: run.first)
    return best[entry - 1] if entry <= len(best) else None


def _note_missing(result: Alignment, declared, exposures, ccds) -> None:
    assigned = {(column, frame): index for index, column, frame in result.assignments}
    for c, d in enumerate(declared, start=1):
        for f in range(1, d.frames + 1):
            if (c, f) not in assigned:
                result.missing.append({"column": c, "frame": f})
                continue
            exposure = exposures[assigned[c, f]]
            absent = [n for n in ccds if n not in exposure.ccds]
            if absent:
                result.missing.append({"column": c, "frame": f, "obsid": exposure.obsid, "ccds": absent})


def _note_mismatches(result: Alignment, declared, exposures, keys, equipment) -> None:
    used = [exposures[index] for index, _, _ in result.assignments]
    weak = [k for k in WEAK_KEYS if k not in keys and len({e.values.get(k) for e in used}) > 1]
    pump = {"v_tp_mod": "v_tpump", "s_tp_mod": "s_tpump"}
    for index, column, _ in result.assignments:
        exposure, expected = exposures[index], declared[column - 1].values
        wanted = {k: expected[k] for k in keys if k in expected}
        wanted.update({k: expected[k] for k in weak if k in expected and expected.get(pump[k])})
        wanted.update(equipment)
        rows = exposure.ccds if isinstance(exposure.ccds, Mapping) else {}
        for key, value in wanted.items():
            found = exposure.values.get(key)
            if found is None:
                continue  # an older log without this key
            if not same(value, found):
                result.mismatches.append(
                    {"obsid": exposure.obsid, "column": column, "key": key, "expected": value, "found": found}
                )
                continue
            for ccd, row in rows.items():
                of_ccd = row.get(key) if isinstance(row, Mapping) else None
                if of_ccd is not None and of_ccd != found and not same(value, of_ccd):
                    result.mismatches.append(
                        {
                            "obsid": exposure.obsid,
                            "column": column,
                            "ccd": ccd,
                            "key": key,
                            "expected": value,
                            "found": of_ccd,
                        }
                    )


def _messages(result: Alignment, declared, exposures, runs, run) -> list[str]:
    out = []
    if not exposures:
        return ["No exposure of this test is in the EXP-LOG"]
    found = len(result.assignments)
    lacking = [m for m in result.missing if "ccds" not in m]
    reached = result.assignments[-1][1:] if result.assignments else (0, 0)
    tail = [m for m in lacking if (m["column"], m["frame"]) > reached]
    if tail:
        out.append(
            f"Test ended too early: {found} of {result.declared} frames, nothing after col{reached[0]:03d} frame {reached[1]}"
        )
    inside = [m for m in lacking if (m["column"], m["frame"]) < reached]
    for column in sorted({m["column"] for m in inside}):
        gone = [m["frame"] for m in inside if m["column"] == column]
        frames = declared[column - 1].frames
        out.append(f"col{column:03d}: {len(gone)} of {frames} frames missing")
    for m in result.missing:
        if "ccds" in m:
            names = ", ".join(f"CCD{n}" for n in m["ccds"])
            out.append(f"col{m['column']:03d} frame {m['frame']}: OBSID {m['obsid']} has no row of {names}")
    if result.unexpected:
        out.append(f"Number of exposures exceeds what is declared: {_obsid_list(result.unexpected)} not used")
    for other in result.other_runs:
        if other["complete"]:
            first, last = other["obsids"]
            out.append(
                f"Another complete run of the test, OBSID {first}-{last}, belongs to another entry or is superseded"
            )
    groups: dict[tuple, list] = {}
    for m in result.mismatches:
        column = None if m["key"] in EQUIPMENT_KEYS else m["column"]
        groups.setdefault((m["key"], column, str(m["expected"])), []).append(m)
    for (key, column, expected), members in groups.items():
        values = list(dict.fromkeys(str(m["found"]) for m in members))
        where = f" in col{column:03d}" if column else ""
        obsids = _obsid_list(sorted({m["obsid"] for m in members}))
        out.append(f'{key}: "{expected}" NE "{", ".join(values)}"{where}, {obsids}')
    return out


def _obsid_list(obsids: list[int]) -> str:
    """``OBSID 5-8, 11`` from sorted OBSIDs."""
    parts, start, previous = [], None, None
    for obsid in [*obsids, None]:
        if start is not None and obsid is not None and obsid == previous + 1:
            previous = obsid
            continue
        if start is not None:
            parts.append(f"{start}" if start == previous else f"{start}-{previous}")
        start = previous = obsid
    return f"OBSID {', '.join(parts)}"
