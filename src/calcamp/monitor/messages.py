"""Texts of warnings: one message for all that happened in a look, worded for each kind of channel."""

from __future__ import annotations

import time
from collections.abc import Sequence

from calcamp.monitor.alarms import BACK, RAISED, STILL_OUT, WORSE, Effect

_WORDS = {
    RAISED: "OUT OF LIMITS",
    WORSE: "WORSE",
    BACK: "back within limits",
    STILL_OUT: "still out of limits",
}
#: What the sources are called in texts; keys of house-keeping go by their name.
SOURCES = {
    "HK_STOPPED": "house-keeping has stopped",
    "ACQUISITION_STOPPED": "the acquisition has stopped",
    "BACKUP_LATE": "the back-up is late",
    "BROADCAST_LATE": "the broadcast is late",
    "BACKUP_DIFFERS": "a file of the back-up differs from the original",
    "BROADCAST_DIFFERS": "a file of the broadcast differs from the original",
}


def compose(
    effects: Sequence[Effect], tag: str, now: float, readings: Sequence[tuple[str, str]] = ()
) -> dict:
    """A message of `effects`: severity, title, and the texts for e-mail or chat, SMS, and voice.

    Parameters
    ----------
    readings : (time, value) of the last readings of the first key, for the e-mail; may be empty: a
        warning goes out all the same.
    """
    stamp = time.strftime("%Y%m%d_%H%M%S", time.localtime(now))
    severity = max(effect.severity for effect in effects)
    ordered = sorted(effects, key=lambda e: (-e.severity, e.key))
    first = ordered[0]
    head = "HK WARNING" if any(e.kind != BACK for e in effects) else "HK back within limits"
    if all(e.key in SOURCES for e in effects):
        head = head.replace("HK ", "")
    name = first.key if len(effects) == 1 else f"{first.key} and {len(effects) - 1} more"
    title = f"calcamp monitor{f' {tag}' if tag else ''}: {head} {name} {stamp}"
    lines = [line_of(effect) for effect in ordered]
    long = [
        *lines,
        "",
        f"Time of detection (local): {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(now))}",
    ]
    if readings:
        long += ["", f"Last readings of {first.key}:", *(f"{when}  {value}" for when, value in readings)]
    short = f"HK OOL WARNING {'; '.join(lines[:3])}"
    if len(lines) > 3:
        short += f"; {len(lines) - 3} more"
    return {
        "severity": severity,
        "title": _plain(title),
        "long": "\n".join(map(_plain, long)),
        "short": _plain(f"{short} {stamp}")[:300],
        "spoken": _plain(spoken(ordered)),
        "keys": [effect.key for effect in ordered],
    }


def line_of(effect: Effect) -> str:
    """One line: key, what happened, value, limits."""
    if effect.key in SOURCES:
        state = "over" if effect.kind == BACK else "still so" if effect.kind == STILL_OUT else "now"
        return f"{SOURCES[effect.key]}: {state}{f' ({effect.limits})' if effect.limits else ''}"
    text = f"{effect.key} {_WORDS[effect.kind]}"
    if effect.kind != BACK:
        text += f" ({effect.reading})"
    text += f": value {_value(effect.value)}"
    if effect.worst is not None and effect.worst != effect.value:
        text += f", worst {_value(effect.worst)}"
    return text + (f", limits {effect.limits}" if effect.limits else "")


def spoken(effects: Sequence[Effect]) -> str:
    """A sentence for a voice call."""
    first = effects[0]
    kind = "temperature" if "TEMP" in first.key else "value"
    part = (
        f"C C D {first.key[3]}"
        if first.key.startswith("CCD")
        else "video board"
        if first.key.startswith("VID")
        else "F P G A board"
        if first.key.startswith("FPGA")
        else ""
    )
    if first.key in SOURCES:
        return f"Calibration campaign warning: {SOURCES[first.key]}."
    return f"Calibration campaign warning: {part} {kind} is {first.reading}. {len(effects)} warnings."


def _value(value: float | None) -> str:
    return "none" if value is None else f"{value:.6g}"


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)
