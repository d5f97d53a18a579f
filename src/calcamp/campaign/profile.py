"""Changing a chamber profile: focus, saturation times and spot pattern, with history, source, and a way back.

Only the workspace's copy of a profile is written, never the one that comes with calcamp. A change is one
entry of the profile's ``history``; what it changed stands there in words that `undo` reads again.
"""

from __future__ import annotations

import getpass
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from calcamp.campaign import scripts as writer
from calcamp.campaign.core import find_test
from calcamp.campaign.workspace import of as workspace_of
from calcamp.config import lookup
from calcamp.config.chamber import Pattern
from calcamp.config.yamlfile import dump_yaml, edit_yaml
from calcamp.data.files import InputError, read_json, write_atomic
from calcamp.detector.geometry import CCDS, Detector
from calcamp.paths import packaged_config

#: A change beyond these is refused unless it is forced: it is more likely a slip.
MAX_FOCUS_STEP_MM = 2.0
MAX_FLUX_RATIO = 2.0
_CHANGE = re.compile(r"(\w+(?:\.\w+)+) ([-+0-9.eE]+) -> ([-+0-9.eE]+)|(pattern) ([\w.-]+) -> ([\w.-]+)")
_UNDO = "undo: "


@dataclass(frozen=True)
class Measured:
    """A new value and where it is from."""

    value: float
    err: float | None
    source: str
    chamber: str | None = None
    test: str | None = None


@dataclass(frozen=True)
class Change:
    """What was changed in a profile: path of the key → (old, new)."""

    file: Path
    values: dict[tuple, tuple[float | str, float | str]]
    source: str

    def lines(self) -> list[str]:
        return [
            f"{'.'.join(map(str, key))}: {_told(old)} -> {_told(new)}"
            for key, (old, new) in self.values.items()
        ]


def _told(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"


# ---- new values ----------------------------------------------------------------------------------
def measured(result: str, quantity: str, handles: Sequence[str], unit: str) -> Measured:
    """A number as typed, or the headline `quantity` of a test's result.

    Parameters
    ----------
    result : a number, or the path of a verdict.json or of a test's results folder
    quantity : name of the headline quantity; entries of single CCDs are averaged with equal weights
    handles : tests that may give it
    unit : expected unit
    """
    try:
        value = float(result)
    except ValueError:
        return _from_verdict(Path(result), quantity, handles, unit)
    if not math.isfinite(value):
        raise InputError(f"{result} is not a value", expected=f"a number of {unit}")
    return Measured(value, None, "number given by hand")


def _from_verdict(path: Path, quantity: str, handles: Sequence[str], unit: str) -> Measured:
    path, verdict = _verdict(path, handles, f"a number of {unit}, a verdict.json or its folder")
    name = str(verdict["test"])
    entries = [e for e in verdict["headline"] if e.get("quantity") == quantity and e.get("value") is not None]
    if not entries:
        raise InputError(
            f"holds no measured {quantity}", file=path, where="headline", remedy="See the test's report."
        )
    wrong = {e.get("unit") for e in entries} - {unit}
    if wrong:
        raise InputError(f"{quantity} is in {wrong.pop()}", file=path, where="headline", expected=unit)
    whole = [e for e in entries if e.get("ccd") is None]
    value, err = _mean(whole[:1] or entries)
    told = f"{name} of session {verdict.get('session')}, {quantity} {value:.6g}"
    told += f" +- {err:.2g} {unit}" if err is not None else f" {unit}"
    return Measured(value, err, told, verdict.get("chamber"), name)


def _verdict(path: Path, handles: Sequence[str], expected: str) -> tuple[Path, Mapping]:
    """(path of verdict.json, its content) of a complete test of one of the `handles`."""
    path = path / "verdict.json" if path.is_dir() else path
    if not path.is_file():
        raise InputError("no such result", file=path, expected=expected)
    verdict = read_json(path)
    if not isinstance(verdict, Mapping) or not isinstance(verdict.get("headline"), list):
        raise InputError("is not a verdict of calcamp", file=path, expected="verdict.json")
    name = str(verdict.get("test"))
    if find_test(name.split(".")[0]).handle not in handles:
        raise InputError(f"is a result of {name}", file=path, where="test", expected=" or ".join(handles))
    if verdict.get("status") != "complete":
        raise InputError(
            f"the test is {verdict.get('status')}", file=path, where="status", expected="complete"
        )
    return path, verdict


def _mean(entries: Sequence[Mapping]) -> tuple[float, float | None]:
    values = [float(e["value"]) for e in entries]
    errors = [e.get("err") for e in entries]
    err = None if None in errors else math.sqrt(sum(float(e) ** 2 for e in errors)) / len(errors)
    return sum(values) / len(values), err


@dataclass(frozen=True)
class FoundPattern:
    """Places of the point sources as a star lock found them."""

    positions: dict[
        int, dict[str, tuple[float, float]]
    ]  # px, silicon of the full-size CCD, by CCD and source
    missing: tuple[str, ...]  # sources that were not seen, such as 1EA: where the transform puts them
    source: Measured


#: Tests that lock on the point sources.
LOCKED = ("FOCUS00", "PSFLUX00", "PSF01", "PSF02")


def stars_of(folder: Path) -> Path:
    """Table of the stars that a test's star lock found; `folder` is its results folder, or its verdict.json.

    Raises
    ------
    InputError : no such result, or another test.
    """
    path, _ = _verdict(folder, LOCKED, "a verdict.json or its folder")
    table = path.parent / "tables" / "stars.ecsv"
    if not table.is_file():
        raise InputError("the test has no table of its stars", file=table, remedy="Run its sub-task lock.")
    return table


def found_pattern(table: Path, rows: Sequence[Mapping]) -> FoundPattern:
    """The pattern that a test's star lock found.

    Parameters
    ----------
    table : `stars_of` a test
    rows : its rows

    Raises
    ------
    InputError : a CCD without a lock.
    """
    path = table.parent.parent / "verdict.json"
    verdict = read_json(path)
    positions: dict[int, dict] = {ccd: {} for ccd in CCDS}
    missing = []
    for row in rows:
        name = f"{row['quadrant']}{row['spot']}"
        seen = row["x_phys"] is not None
        xy = (row["x_phys"], row["y_phys"]) if seen else (row["x_expected"], row["y_expected"])
        if None in xy:
            raise InputError(f"CCD{row['ccd']} has no star lock", file=table, remedy="See the test's report.")
        positions[row["ccd"]][name] = xy
        if not seen:
            missing.append(f"{row['ccd']}{name}")
    record = path.parent / "ccd1" / "lock" / "lock.json"
    detector = Detector.from_dict(read_json(record)["job"]["detector"])
    shift = math.fsum(
        math.hypot(r["x_expected"] - r["x_nominal"], r["y_expected"] - r["y_nominal"]) for r in rows
    ) / max(len(rows), 1)
    told = f"{verdict['test']} of session {verdict.get('session')}, {len(rows) - len(missing)} of {len(rows)} stars"
    told += f", moved by {shift:.1f} px on average"
    source = Measured(shift, None, told, verdict.get("chamber"), str(verdict["test"]))
    return FoundPattern(Pattern.from_detector(positions, detector), tuple(missing), source)


# ---- the file to be edited -----------------------------------------------------------------------
def editable(name: str, here: Path) -> Path:
    """The workspace's copy of a profile; made from the one that comes with calcamp if there is none.

    Raises
    ------
    InputError
        There is no workspace to write to.
    """
    path = lookup.find_file("chambers", name, here).resolve()
    if not path.is_relative_to(packaged_config().resolve()):
        return path
    home = workspace_of(here)
    own = home.config / "chambers" if home else here / "config" / "chambers"
    if not own.is_dir() or own.resolve().is_relative_to(packaged_config().resolve()):
        raise InputError(
            "comes with calcamp and is not edited",
            file=path,
            remedy="Work in a workspace (calcamp init), or copy the profile to config/chambers/ here.",
        )
    copy = own / path.name
    shutil.copy(path, copy)
    return copy.resolve()


# ---- changing ------------------------------------------------------------------------------------
def set_focus(
    name: str, new: Measured, here: Path, *, wavelength: int | None = None, who="", reason="", force=False
) -> Change:
    """Put a new focus, mm, into a profile: at all filter positions, or at that of one wavelength."""
    chamber = lookup.load_chamber(name, here)
    slots = [chamber.slot(wavelength)] if wavelength is not None else list(chamber.mirror)
    _refuse_other_chamber(chamber, new, force)
    for slot in slots:
        if abs(new.value - chamber.mirror[slot]) > MAX_FOCUS_STEP_MM and not force:
            raise InputError(
                f"focus {new.value:g} mm is {new.value - chamber.mirror[slot]:+.3g} mm from the present one",
                file=chamber.file,
                expected=f"a step of at most {MAX_FOCUS_STEP_MM:g} mm",
                remedy="If it is meant, use --force.",
            )
    return _apply(name, here, {("mirror", slot): new.value for slot in slots}, new, who, reason)


def set_flux(
    name: str, new: Measured, here: Path, *, source: str, wavelength: int, who="", reason="", force=False
) -> Change:
    """Put a new saturation time, s, of a source (flat or point) at a wavelength into a profile."""
    chamber = lookup.load_chamber(name, here)
    _refuse_other_chamber(chamber, new, force)
    now = chamber.t_flat(wavelength) if source == "flat" else chamber.t_point(wavelength)
    if new.value <= 0:
        raise InputError(f"{new.value:g} s is not a saturation time", expected="a number above 0")
    if not 1 / MAX_FLUX_RATIO <= new.value / now <= MAX_FLUX_RATIO and not force:
        raise InputError(
            f"saturation time {new.value:g} s is {new.value / now:.3g} times the present one",
            file=chamber.file,
            expected=f"a change of at most a factor {MAX_FLUX_RATIO:g}",
            remedy="If it is meant, use --force.",
        )
    return _apply(name, here, {("saturation_time", source, wavelength): new.value}, new, who, reason)


def set_pattern(
    name: str,
    found: FoundPattern,
    here: Path,
    *,
    pattern: str,
    allow_missing: bool = False,
    who="",
    reason="",
    force=False,
) -> Change:
    """Make the found places the chamber's pattern: a new pattern file, named in the profile.

    The former pattern's file stays, and `undo` names it again.

    Parameters
    ----------
    pattern : name of the new pattern
    allow_missing : take it although stars were not seen; theirs are the places where the transform puts them
    """
    chamber = lookup.load_chamber(name, here)
    _refuse_other_chamber(chamber, found.source, force)
    if found.missing and not allow_missing:
        raise InputError(
            f"{len(found.missing)} stars were not seen: {', '.join(found.missing)}",
            expected="all 60",
            remedy="With --allow-missing theirs are the places where the transform of the others puts them.",
        )
    if not isinstance(chamber.pattern, str):
        raise InputError(
            "the profile names no pattern file",
            file=chamber.file,
            where="pattern",
            remedy="Put its positions into config/chambers/patterns/<name>.yaml and name that.",
        )
    path = editable(name, here)
    target = path.parent / "patterns" / f"{pattern}.yaml"
    if target.exists() or pattern == chamber.pattern:
        raise InputError("there is such a pattern already", file=target, remedy="Give another --name.")
    source = "; ".join(part for part in (found.source.source, reason) if part)
    entry = _entry(f"positions found, after pattern {chamber.pattern}", source, who)
    if found.missing:
        entry["what"] += f"; not seen, placed by the transform: {', '.join(found.missing)}"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(target, _pattern_text(pattern, found.positions, entry))
    values = {("pattern",): (chamber.pattern, pattern)}
    _write(path, chamber, {("pattern",): pattern}, f"pattern {chamber.pattern} -> {pattern}", source, who)
    return Change(path, values, source)


def _pattern_text(name: str, positions: Mapping, entry: Mapping[str, str]) -> str:
    """A pattern file, laid out like those that come with calcamp."""
    lines = [
        "# Positions of the point sources, found by a star lock and saved with calcamp chamber set-pattern.",
        f"pattern: {name}",
        "frame: phys  # silicon, 0-based pixels, injection rows included",
        "positions:",
    ]
    for ccd, spots in sorted(positions.items()):
        lines.append(f"  {ccd}:")
        lines += [f"    {spot}: [{x:.2f}, {y:.2f}]" for spot, (x, y) in sorted(spots.items())]
    return "\n".join(lines) + "\n" + dump_yaml({"history": [dict(entry)]})


def _refuse_other_chamber(chamber, new: Measured, force: bool) -> None:
    if new.chamber is not None and new.chamber != chamber.chamber and not force:
        raise InputError(
            f"the result was taken with chamber profile {new.chamber}",
            file=chamber.file,
            expected=chamber.chamber,
            remedy="If it is meant, use --force.",
        )


def _apply(name: str, here: Path, values: dict, new: Measured, who: str, reason: str) -> Change:
    path = editable(name, here)
    chamber = lookup.load_chamber(path, path.parent)
    # Six significant digits at most: below what mirror and lamp can do.
    changes = {key: (_present(chamber, key), float(f"{value:.6g}")) for key, value in values.items()}
    changes = {key: pair for key, pair in changes.items() if pair[0] != pair[1]}
    source = "; ".join(part for part in (new.source, reason) if part)
    if changes:
        what = ", ".join(
            f"{'.'.join(map(str, key))} {old!r} -> {after!r}" for key, (old, after) in changes.items()
        )
        _write(path, chamber, {key: after for key, (_, after) in changes.items()}, what, source, who)
    return Change(path, changes, source)


def _present(chamber, key: tuple) -> float | str:
    if key == ("pattern",):
        return chamber.pattern if isinstance(chamber.pattern, str) else ""
    if key[0] == "mirror":
        return float(chamber.mirror[key[1]])
    return float(getattr(chamber.saturation_time, key[1])[key[2]])


def _write(path: Path, chamber, values: dict, what: str, source: str, who: str) -> None:
    entry = _entry(what, source, who)
    history = ("history", len(chamber.history)) if chamber.history else ("history",)
    edit_yaml(path, {**values, history: entry if chamber.history else [entry]})


def _entry(what: str, source: str, who: str) -> dict[str, str]:
    """One entry of a history."""
    when = f"{writer.now():%Y-%m-%d %H:%M:%S}"
    return {"when": when, "who": who or _user(), "what": what, "source": source}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no such user in this container
        return "unknown"


# ---- the way back --------------------------------------------------------------------------------
def undo(name: str, here: Path, who: str = "", reason: str = "") -> Change:
    """Take back the last change that has not been taken back.

    Raises
    ------
    InputError
        There is none, or the values were edited by hand since.
    """
    path = lookup.find_file("chambers", name, here).resolve()
    chamber = lookup.load_chamber(path, path.parent)
    standing: list = []
    for entry in chamber.history:
        if entry.what.startswith(_UNDO) and standing:
            standing.pop()
        elif not entry.what.startswith(_UNDO) and _CHANGE.search(entry.what):
            standing.append(entry)
    if not standing:
        raise InputError("its history holds no change to take back", file=path)
    last = standing[-1]
    changes = {}
    for key_text, old, new in map(_change_of, _CHANGE.findall(last.what)):
        key = tuple(int(part) if part.isdigit() else part for part in key_text.split("."))
        if _present(chamber, key) != new:
            raise InputError(
                f"{key_text} is {_told(_present(chamber, key))}, not {_told(new)} as that change left it",
                file=path,
                remedy="It was edited by hand since: edit it by hand.",
            )
        changes[key] = (new, old)
    editable(str(path), here)  # refuses a profile that comes with calcamp
    what = _UNDO + ", ".join(f"{'.'.join(map(str, k))} {a} -> {b}" for k, (a, b) in changes.items())
    source = "; ".join(
        part for part in (f"taken back: change of {last.when} ({last.source})", reason) if part
    )
    _write(path, chamber, {key: back for key, (_, back) in changes.items()}, what, source, who)
    return Change(path, changes, source)


def _change_of(found: tuple[str, ...]) -> tuple[str, float | str, float | str]:
    """(key, old, new) of a match of `_CHANGE`."""
    key, old, new, *words = found
    return (key, float(old), float(new)) if key else tuple(words)


# ---- showing -------------------------------------------------------------------------------------
LEVELS = (5, 10, 25, 50, 75, 90, 100)


def table(chamber) -> list[dict]:
    """One row per filter position: wavelength, focus, spot width, times of both sources at `LEVELS` per cent."""
    rows = []
    for slot, wavelength in sorted(chamber.filter_wheel.items()):
        row = {
            "slot": slot,
            "wavelength": wavelength,
            "mirror_mm": chamber.mirror[slot],
            "fwhm_px": chamber.fwhm.get(wavelength),
        }
        for source in ("flat", "point"):
            full = getattr(chamber.saturation_time, source).get(wavelength)
            row[source] = None if full is None else {level: level / 100 * full for level in LEVELS}
        rows.append(row)
    return rows
