"""Flags from the manifest: frames, files and keys that are not as declared."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from calcamp.quality.flags import Flag

EQUIPMENT = re.compile(r"^(operator|sn_.+)$")
#: Keys that say how the read-out electronics was configured.
ROE_KEYS = re.compile(
    r"^(IDL|IDH|IG[12]_.+|OD_.+|RD_.+|IPHI|rdmode|swellw|swelldly|toi_.+|id_wid|id_dly|chin_dly|vstart|vend)$"
)
SOURCE_KEYS = {"source"}
MANY = 6


def flags(manifest: Mapping) -> list[Flag]:
    """MISSDATA, WRONG_ROE_CONF, WRONGSOURCE and WRONGTEST of a test."""
    exposures = manifest.get("exposures") or []
    if not exposures:
        return [Flag("MISSDATA", manifest.get("reason") or "no exposure of the test in the EXP-LOG")]
    out = [*_missing_frames(manifest, len(exposures)), *_missing_files(exposures)]
    out += _mismatches(manifest.get("mismatches") or [])
    if manifest.get("status") == "incomplete" and not out:
        out.append(Flag("MISSDATA", manifest.get("reason") or "the test is incomplete"))
    return out


def _missing_frames(manifest: Mapping, found: int) -> list[Flag]:
    missing = manifest.get("missing") or []
    frames = [m for m in missing if "ccds" not in m]
    columns: dict[int, list[int]] = {}
    for m in frames:
        columns.setdefault(m["column"], []).append(m["frame"])
    out = []
    if len(columns) > MANY:
        cause = f"{len(frames)} of {found + len(frames)} frames missing, in {len(columns)} columns from {_col(min(columns))} to {_col(max(columns))}"
        out.append(Flag("MISSDATA", cause, {"columns": sorted(columns)}))
    else:
        for column, gone in sorted(columns.items()):
            word = "frame" if len(gone) == 1 else "frames"
            cause = f"{_col(column)}: {word} {_ranges(gone)} missing"
            out.append(Flag("MISSDATA", cause, {"column": column}))
    for m in missing:
        if "ccds" in m:
            names = ", ".join(f"CCD{n}" for n in m["ccds"])
            scope = {"column": m["column"], "obsids": [m["obsid"]]}
            if len(m["ccds"]) == 1:
                scope["ccd"] = m["ccds"][0]
            out.append(Flag("MISSDATA", f"the EXP-LOG has no row of {names} for OBSID {m['obsid']}", scope))
    return out


def _missing_files(exposures: Iterable[Mapping]) -> list[Flag]:
    absent: dict[int, list[int]] = {}
    for exposure in exposures:
        for ccd, entry in (exposure.get("files") or {}).items():
            if not entry:
                absent.setdefault(int(ccd), []).append(exposure["obsid"])
    return [
        Flag(
            "MISSDATA",
            f"no FITS file of CCD{ccd} for OBSID {_ranges(obsids)}",
            {"ccd": ccd, "obsids": sorted(obsids)},
        )
        for ccd, obsids in sorted(absent.items())
    ]


def _mismatches(mismatches: list[Mapping]) -> list[Flag]:
    groups: dict[tuple, list[Mapping]] = {}
    for m in mismatches:
        groups.setdefault((m["key"], str(m["expected"]), str(m["found"])), []).append(m)
    out = []
    for (key, expected, found), members in groups.items():
        obsids = sorted({m["obsid"] for m in members})
        cause = f'{key}: "{expected}" NE "{found}", OBSID {_ranges(obsids)}'
        scope = {"key": key, "obsids": obsids}
        if EQUIPMENT.match(key):
            # Wrong serials stop nothing: real data have them (decisions 4).
            out.append(Flag("MISSDATA", cause, scope, effect="note"))
            continue
        telling = _telling(key)
        if telling:
            out.append(Flag(telling, f"logged, not as commanded: {cause}", scope))
        out.append(Flag("MISSDATA", cause, scope, (telling,) if telling else (), effect="fail"))
    return out


def _telling(key: str) -> str:
    if key == "test":
        return "WRONGTEST"
    if key in SOURCE_KEYS:
        return "WRONGSOURCE"
    return "WRONG_ROE_CONF" if ROE_KEYS.match(key) else ""


def _col(column: int) -> str:
    return f"col{column:03d}"


def _ranges(numbers: Iterable[int]) -> str:
    """``5-8, 11``."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in parts)
