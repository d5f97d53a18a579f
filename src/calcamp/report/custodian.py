"""What should change in the chamber profile, from all tests of a session: one list for its custodian.

Focus, saturation times and the place of the spot pattern, each with the value used, the value found and its
error, the test it is from, and the command that would make the change. It is a list of proposals: nothing is
changed here.
"""

from __future__ import annotations

import math
from pathlib import Path

from calcamp.report.base import as_dict, as_list, is_number, with_error

#: Differences below both of these need no change.
ERRORS = 3.0
FOCUS_MM = 0.005
FLUX_FRACTION = 0.01
SHIFT_PX = 20.0
#: Handles whose result a command takes.
_FOCUS = ("FOCUS00", "PSF01")
_FLUX = ("FLATFLUX00", "PSFLUX00")


def proposals(root: Path, verdicts: dict[str, dict], plans: dict[str, dict]) -> list[dict]:
    """One entry per value that a test of the session says of the chamber.

    Parameters
    ----------
    root : results folder of the session
    verdicts : {test: verdict.json}
    plans : {test: judging part of its plan file}, for the values that the profile held
    """
    out = []
    for test, verdict in verdicts.items():
        if verdict.get("status") not in ("complete", "incomplete"):
            continue
        known = as_dict(as_dict(plans.get(test)).get("chamber_data"))
        headline = [h for h in as_list(verdict.get("headline")) if isinstance(h, dict)]
        place = f"{root.parent.name}/{root.name}/{test}"
        out += _focus(test, verdict, headline, known, place)
        out += _flux(test, verdict, headline, known, place)
        out += _pattern(test, verdict, headline, place)
    return out


def _whole(headline: list[dict], quantity: str) -> dict | None:
    """The entry of the block; else the mean of the channels."""
    entries = [h for h in headline if h.get("quantity") == quantity and is_number(h.get("value"))]
    block = [h for h in entries if h.get("ccd") is None]
    if block or not entries:
        return block[0] if block else None
    errors = [h.get("err") for h in entries]
    known = all(is_number(e) for e in errors)
    n = len(entries)
    err = math.sqrt(sum(e * e for e in errors)) / n if known else None
    return {**entries[0], "ccd": None, "value": sum(h["value"] for h in entries) / n, "err": err}


def _focus(test, verdict, headline, known, place) -> list[dict]:
    found = _whole(headline, "best_focus")
    if found is None:
        return []
    entry = _entry(test, "focus", found, known.get("mirror"), "mm")
    entry["needed"] = _differs(entry, FOCUS_MM)
    if test.startswith(_FOCUS):
        entry["command"] = f"calcamp chamber set-focus {verdict.get('chamber')} {place}"
    return [entry]


def _flux(test, verdict, headline, known, place) -> list[dict]:
    found = _whole(headline, "saturation_time")
    if found is None:
        return []
    source = found.get("source") or "flat"
    held = known.get("saturation_time")
    if isinstance(held, dict):  # by filter slot
        slots = {nm: slot for slot, nm in as_dict(known.get("wavelength")).items()}
        held = held.get(slots.get(found.get("wavelength")))
    entry = _entry(test, f"saturation time, {source} source", found, held, "s")
    present = entry["present"]
    entry["needed"] = _differs(entry, FLUX_FRACTION * present if is_number(present) else 0.0)
    if test.startswith(_FLUX):
        entry["command"] = f"calcamp chamber set-flux {verdict.get('chamber')} {place}"
    elif entry["needed"]:
        entry["note"] = f"the profile with the result of {' or '.join(_FLUX)}"
    return [entry]


def _pattern(test, verdict, headline, place) -> list[dict]:
    """The pattern's place: how far the lock found it from where the profile has it, by CCD."""
    shifts = {}
    for axis in "xy":
        for h in headline:
            if h.get("quantity") == f"lock_shift_{axis}" and is_number(h.get("value")):
                shifts.setdefault(h.get("ccd"), {})[axis] = h["value"], h.get("err")
    shifts = {ccd: found for ccd, found in shifts.items() if len(found) == 2}
    if not shifts:
        return []
    lengths = {ccd: math.hypot(s["x"][0], s["y"][0]) for ccd, s in shifts.items()}
    widest = max(lengths, key=lengths.get)
    errors = [err for _, err in shifts[widest].values()]
    err = max(errors) if all(is_number(e) for e in errors) else None
    entry = _entry(test, "spot pattern, largest shift", {"value": lengths[widest], "err": err}, 0.0, "px")
    entry["change"] = "; ".join(
        f"CCD{ccd} " + ", ".join(f"{axis} {with_error(*s[axis])}" for axis in "xy")
        for ccd, s in sorted(shifts.items())
    )
    entry["needed"] = _differs(entry, SHIFT_PX)
    entry["command"] = f"calcamp chamber set-pattern {verdict.get('chamber')} {place}"
    return [entry]


def _entry(test, what, found, present, unit) -> dict:
    value, err = found["value"], found.get("err")
    change = None
    if is_number(present):
        change = with_error(value - present, err)
        change = change if change.startswith("-") else f"+{change}"
    return {
        "test": test,
        "what": what,
        "wavelength": found.get("wavelength"),
        "present": present if is_number(present) else None,
        "found": value,
        "err": err if is_number(err) else None,
        "text": with_error(value, err),
        "unit": unit,
        "change": change,
        "needed": False,
        "command": None,
        "note": "",
    }


def _differs(entry: dict, least: float) -> bool | None:
    """Whether the profile should change; None when it is not known what it held."""
    if entry["present"] is None:
        return None
    away = abs(entry["found"] - entry["present"])
    return bool(away > least and away > ERRORS * (entry["err"] or 0.0))


def lines(entries: list[dict]) -> list[str]:
    """The list in words, for the session's log."""
    out = []
    for e in entries:
        wave = f" at {e['wavelength']} nm" if e["wavelength"] not in (None, 0) else ""
        text = f"{e['test']}: {e['what']}{wave} {with_error(e['found'], e['err'])} {e['unit']}"
        if e["present"] is not None:
            text += f", profile {e['present']:g} {e['unit']} ({e['change']})"
        text += {True: "; CHANGE", False: "; no change needed", None: ""}[e["needed"]]
        out.append(text + (f": {e['command']}" if e["needed"] and e["command"] else ""))
    return out
