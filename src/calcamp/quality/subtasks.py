"""What became of the sub-tasks of a test, and the flags that says so."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from calcamp.quality.flags import Flag

#: From best to worst; a sub-task is as bad as its worst CCD.
ORDER = ("done", "skipped", "missing", "crashed")
_MEMORY = re.compile(r"MemoryError|out of memory|signal 9\b", re.IGNORECASE)
_TIME = re.compile(r"time.?out|time limit|signal (14|24)\b", re.IGNORECASE)


def subtask_states(records: Sequence[Mapping], planned: Sequence[str]) -> dict[str, dict]:
    """Name -> {status, minutes, reason, ccds, traceback}; minutes are summed over the CCDs."""
    out = {}
    for name in dict.fromkeys((*planned, *(r["subtask"] for r in records))):
        of_task = [r for r in records if r["subtask"] == name]
        if not of_task:
            out[name] = {"status": "missing", "minutes": None, "reason": "no record was left"}
            continue
        worst = max(of_task, key=lambda r: ORDER.index(r["status"]) if r["status"] in ORDER else len(ORDER))
        minutes = [r["minutes"] for r in of_task if r.get("minutes") is not None]
        bad = [r for r in of_task if r["status"] != "done"]
        state = {"status": worst["status"], "minutes": sum(minutes) if minutes else None}
        state["reason"] = "; ".join(f"{_where(r)}{r.get('reason') or r['status']}" for r in bad)
        if bad:
            state["ccds"] = [r["ccd"] for r in bad if r.get("ccd") is not None]
        trace = (worst.get("crash") or {}).get("traceback")
        if trace:
            state["traceback"] = list(trace)
        out[name] = state
    return out


def subtask_flags(records: Sequence[Mapping], planned: Sequence[str]) -> list[Flag]:
    """SUBTASKCRASH with the frame, LOWMEMORY and TOOSLOW where the end tells so, UNKNOWN for a lost record."""
    out = []
    for record in records:
        if record["status"] != "crashed":
            continue
        crash = record.get("crash") or {}
        error = crash.get("error") or record.get("reason") or "no message"
        scope = {"subtask": record["subtask"]}
        if record.get("ccd") is not None:
            scope["ccd"] = record["ccd"]
        where = (
            f"{record['subtask']} of CCD{record['ccd']}"
            if record.get("ccd") is not None
            else record["subtask"]
        )
        reading = ""
        if crash.get("obsid") is not None:
            scope["obsids"] = [crash["obsid"]]
            reading = f" while reading OBSID {crash['obsid']}"
        out.append(Flag("SUBTASKCRASH", f"{where} crashed{reading}: {error}", scope))
        if _MEMORY.search(error):
            out.append(Flag("LOWMEMORY", f"{where}: {error}", scope))
        if _TIME.search(error):
            out.append(Flag("TOOSLOW", f"{where}: {error}", scope))
    known = {r["subtask"] for r in records}
    lost = [name for name in planned if name not in known]
    out += [Flag("UNKNOWN", f"sub-task {name} left no record", {"subtask": name}) for name in lost]
    return out


def _where(record: Mapping) -> str:
    return f"CCD{record['ccd']}: " if record.get("ccd") is not None else ""
