"""The script writer: from an input file and a chamber profile to a folder of acquisition scripts.

The input is YAML, or the predecessor's JSON as it is. Everything is resolved and computed before the
first file is written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from calcamp.campaign.catalogue import CAMPAIGN_TYPES, Planned, expand
from calcamp.campaign.core import CampaignError
from calcamp.campaign.duration import test_minutes
from calcamp.config.errors import ConfigError, raise_all
from calcamp.config.shape import File, Shape
from calcamp.config.yamlfile import Document, parse_yaml, read_yaml
from calcamp.data import scripts as files
from calcamp.data.files import InputError, write_atomic

#: Version of the acquisition software for which scripts are written.
ELVIS = "7.5.X"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufffe\uffff]|[\ud800-\udfff]")
MAX_TEXT = 64  # characters of a serial


class Equipment(Shape):
    """Serials and operator, as ELVIS writes them into images and logs."""

    operator: str = Field(description="operator, unk where it is not known beforehand")
    sn_ccd1: str = Field(description="serial of CCD1, such as 14888-88-81")
    sn_ccd2: str = Field(description="serial of CCD2")
    sn_ccd3: str = Field(description="serial of CCD3")
    sn_roe: str = Field(description="serial of the ROE, such as FM15")
    sn_rpsu: str = Field(description="serial of the RPSU")

    @field_validator("*")
    @classmethod
    def _plain(cls, value: str) -> str:
        if _CONTROL.search(value):
            raise ValueError("found a control character; write plain text")
        value = value.strip()
        if len(value) > MAX_TEXT:
            raise ValueError(f"found {len(value)} characters, expected at most {MAX_TEXT}; shorten it")
        return value


class ScriptInput(File):
    """Input of the script writer."""

    equipment: Equipment | None = Field(None, description="serials and operator; or give block")
    block: str | None = Field(None, min_length=1, description="block whose YAML gives serials and chamber")
    elvis: str = Field(description="version of the acquisition software, 7.5.X")
    CHAMBER: str | None = Field(None, min_length=1, description="chamber profile, such as B_NOSTROMO")
    camptype: str = Field(description="campaign type: Full for the flight campaign")
    outpath: str = Field(min_length=1, description="folder for the scripts, made if absent (one level)")
    toWrite: dict[str, bool | Literal[0, 1]] = Field(description="handle: 1 to write it, 0 not to")

    @field_validator("elvis")
    @classmethod
    def _supported(cls, value: str) -> str:
        if value != ELVIS:
            raise ValueError(f"ELVIS version {value!r} is not supported; scripts are written for {ELVIS}")
        return value

    @field_validator("camptype")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in CAMPAIGN_TYPES:
            raise ValueError(f"unknown campaign type {value!r}; it is one of {', '.join(CAMPAIGN_TYPES)}")
        return value

    @field_validator("outpath")
    @classmethod
    def _a_path(cls, value: str) -> str:
        if _CONTROL.search(value) or not value.strip():
            raise ValueError(f"found {value!r}, expected the path of a folder; correct it")
        return value

    @model_validator(mode="after")
    def _whole(self):
        if self.block is None:
            missing = [key for key in ("equipment", "CHAMBER") if getattr(self, key) is None]
            if missing:
                raise ValueError(f"{' and '.join(missing)} missing; add it, or name the block")
        return self

    @property
    def folder_out(self) -> Path:
        """Folder for the scripts: relative paths start at the input file."""
        return self.path_to(self.outpath)

    def asked(self) -> list[str]:
        """Handles to be written, in the order of the file."""
        return [handle for handle, wanted in self.toWrite.items() if wanted]


@dataclass(frozen=True)
class Prepared:
    """A test ready to be written."""

    name: str  # with its iteration tag
    columns: tuple[files.ScriptColumn, ...]
    minutes: float

    @property
    def line(self) -> files.InventoryLine:
        return files.InventoryLine(self.name, tuple(c.frames for c in self.columns), self.minutes)


@dataclass(frozen=True)
class Written:
    """What a run of the script writer left in its folder."""

    folder: Path
    scripts: tuple[Path, ...]
    check_sums: Path
    inventory: Path
    scheduler: Path
    lines: tuple[files.InventoryLine, ...] = field(default=())

    @property
    def frames(self) -> int:
        return sum(line.frames for line in self.lines)

    @property
    def minutes(self) -> float:
        return sum(line.minutes for line in self.lines)


def read_document(path: Path | str) -> Document:
    """A YAML file, or strict JSON where the name ends in ``.json``."""
    path = Path(path)
    if path.suffix.lower() != ".json":
        return read_yaml(path)
    return read_json_document(path)


def read_json_document(path: Path) -> Document:
    """JSON with the limits of YAML files: size, depth, no key twice; lines where they can be had."""
    try:
        with open(path, "rb") as stream:
            raw = stream.read(1_000_001)
    except FileNotFoundError:
        raise ConfigError(path, None, "", "no such file", "check the path") from None
    except OSError as error:
        raise ConfigError(path, None, "", f"cannot be read: {error.strerror}", "check the path") from None
    if len(raw) > 1_000_000:
        raise ConfigError(path, None, "", "larger than 1000 kB", "this is not an input file")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(path, None, "", "not UTF-8 text", "save the file as UTF-8") from None
    doubles: list[str] = []

    def no_doubles(pairs):
        doubles.extend(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
        return dict(pairs)

    try:
        data = json.loads(text, object_pairs_hook=no_doubles, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        remedy = (
            "JSON knows no comments: remove them, or save the file as .yaml" if "#" in text else "correct it"
        )
        raise ConfigError(path, error.lineno, "", f"not valid JSON: {error.msg}", remedy) from None
    except (RecursionError, ValueError) as error:
        raise ConfigError(path, None, "", f"not usable JSON: {error}", "correct it") from None
    if doubles:
        line = text.count("\n", 0, text.rfind(f'"{doubles[0]}"')) + 1
        raise ConfigError(path, line, doubles[0], "the key is there twice", "keep one of the two")
    return Document(data, _lines(text, path), path)


def _no_constant(name: str):
    raise ValueError(f"{name} is no number")


def _lines(text: str, path: Path) -> dict[tuple, int]:
    """Lines of the keys, read as YAML; none where JSON is not YAML (tabs)."""
    try:
        return parse_yaml(text, path).lines
    except ConfigError:
        return {}


def read_input(path: Path | str) -> ScriptInput:
    """Input of the script writer.

    Raises
    ------
    ConfigError, ConfigErrors
        With file, line and key: missing or unknown keys, unsupported ELVIS, unknown campaign type, unknown
        handle, malformed tag, nothing asked for.
    """
    read = ScriptInput.from_document(read_document(path))
    faults = []
    for handle, wanted in read.toWrite.items():
        try:
            expand(handle, read.camptype)
        except CampaignError as error:
            # A handle that is not asked for may belong to another campaign type: templates list them all.
            if wanted or "belongs to" not in str(error):
                faults.append(read.error(("toWrite", handle), str(error), "correct it or take it out"))
    if not faults and not read.asked():
        faults.append(read.error(("toWrite",), "no handle is set to 1", "set those to be written"))
    raise_all(faults)
    return read


def chamber_and_equipment(read: ScriptInput) -> tuple[object, dict[str, str]]:
    """The chamber profile and the six campaign values that an input file stands for."""
    from calcamp.config.lookup import load_block, load_chamber

    block = None
    if read.block is not None:
        try:
            block = load_block(read.block, read.folder)
        except ConfigError as error:
            raise _at(read, "block", error) from None
    name = read.CHAMBER or block.chamber
    if name is None:
        raise read.error(("CHAMBER",), f"block {read.block} names no chamber", "add CHAMBER to this file")
    try:
        chamber = load_chamber(name, read.folder)
    except ConfigError as error:
        raise _at(read, "CHAMBER", error) from None
    equipment = read.equipment.model_dump() if read.equipment else dict(block.equipment)
    return chamber, equipment


def _at(read: ScriptInput, key: str, error: ConfigError) -> ConfigError:
    """The error as one of this file, where it is the name that is wrong and not the file named."""
    return error if error.line else read.error((key,), error.message, error.remedy)


def prepare(asked: Sequence[Planned], chamber, equipment: dict[str, str]) -> list[Prepared]:
    """Complete columns and durations of tests.

    Raises
    ------
    InputError
        The chamber lacks a wavelength: names the chamber, the wavelength and the tests that need it.
    """
    made, lacking = [], {}
    for planned in asked:
        try:
            columns = planned.test.columns(chamber)
        except ConfigError as error:
            lacking.setdefault(error.message, []).append(planned.name)
            continue
        complete = files.script_columns(columns, equipment)
        made.append(Prepared(planned.name, tuple(complete), test_minutes(complete)))
    if lacking:
        reasons = "; ".join(f"{message}, needed by {', '.join(names)}" for message, names in lacking.items())
        raise InputError(
            reasons,
            file=getattr(chamber, "file", None),
            remedy="Add it to the profile, use another chamber, or do not ask for these tests.",
        )
    return made


def prepare_input(read: ScriptInput) -> list[Prepared]:
    """Everything that an input file asks for, in its order; no file is written."""
    chamber, equipment = chamber_and_equipment(read)
    planned = [item for handle in read.asked() for item in expand(handle, read.camptype)]
    return prepare(planned, chamber, equipment)


def now() -> datetime:
    """The time that file names, inventories and histories carry; one place, so that examples can set it."""
    return datetime.now()


def write(prepared: Sequence[Prepared], folder: Path, when: datetime | None = None, progress=None) -> Written:
    """Write scripts, checksums, inventory and the scheduler's sheet.

    Parameters
    ----------
    prepared : tests in the order of writing
    folder : made if absent; its parent must be there
    when : time that names and inventory carry, now by default
    progress : called with the name of each test before it is written

    Raises
    ------
    InputError
        The folder cannot be made.
    """
    from calcamp import __version__

    when = when or now()
    folder = Path(folder)
    if not folder.is_dir():
        _make(folder)
    day = files.day_text(when)
    paths = []
    for test in prepared:
        if progress:
            progress(test.name)
        paths.append(files.write_script(folder / files.script_name(test.name, when, ELVIS), test.columns))
    lines = tuple(test.line for test in prepared)
    sums = files.write_check_sums(folder / f"CHECK_SUMS_{day}.txt", paths)
    text = files.inventory_text(lines, when, sums.name, __version__)
    inventory = write_atomic(folder / f"TESTS_INVENTORY_{day}.txt", text)
    scheduler = files.write_scheduler(
        folder / f"TESTS_SCHEDULER_{day}.xlsx", lines, when, sums.name, __version__, str(folder)
    )
    return Written(folder, tuple(paths), sums, inventory, scheduler, lines)


def _make(folder: Path) -> None:
    try:
        folder.mkdir()
    except FileNotFoundError:
        raise InputError(
            "cannot be made: its parent folder does not exist", file=folder, remedy="Only one level is made."
        ) from None
    except FileExistsError:
        raise InputError("is a file, not a folder", file=folder, remedy="Choose another outpath.") from None
    except OSError as error:
        raise InputError(f"cannot be made ({error.strerror})", file=folder) from error


def strangers(folder: Path, prepared: Sequence[Prepared], when: datetime) -> list[Path]:
    """Scripts of the same tests but another date or version in `folder`: they make sessions ambiguous."""
    if not folder.is_dir():
        return []
    own = {files.script_name(test.name, when, ELVIS) for test in prepared}
    names = {test.name for test in prepared}
    return [
        p
        for test, paths in files.find_scripts(folder).items()
        if test in names
        for p in paths
        if p.name not in own
    ]


# ---- what changed since another writing ----------------------------------------------------------
@dataclass(frozen=True)
class Difference:
    """What changed in one test; ``changes`` as `calcamp.data.scripts.compare_scripts` gives them."""

    test: str
    status: str  # changed, new, gone, same
    changes: tuple[dict, ...] = ()


def latest(folder: Path) -> dict[str, tuple[files.ScriptColumn, ...]]:
    """Test → columns of its newest script in a folder."""
    if not Path(folder).is_dir():
        raise InputError("is not a folder", file=folder, expected="a folder of scripts")
    found = {test: tuple(files.read_script(paths[-1])) for test, paths in files.find_scripts(folder).items()}
    if not found:
        raise InputError(
            "holds no scripts", file=folder, expected="files vis_CalCamp_<TEST>_<DATE>_v<ELVIS>.xlsx"
        )
    return found


def differences(
    old: dict[str, Sequence[files.ScriptColumn]], new: dict[str, Sequence[files.ScriptColumn]]
) -> list[Difference]:
    """What changed between two writings, new tests in their order, then those that are gone."""
    found = []
    for name, columns in new.items():
        if name not in old:
            found.append(Difference(name, "new"))
            continue
        changes = tuple(files.compare_scripts(old[name], columns))
        found.append(Difference(name, "changed" if changes else "same", changes))
    return found + [Difference(name, "gone") for name in old if name not in new]


def difference_lines(found: Sequence[Difference]) -> list[str]:
    """`differences` in words: changes that are the same in all tests are told once."""
    common = _common_changes([item for item in found if item.status in ("changed", "same")])
    lines = []
    if common:
        lines.append("all tests:")
        lines += [f"  {key}: {_show(before)} -> {_show(after)}" for key, before, after in common]
    for item in found:
        if item.status in ("new", "gone"):
            lines.append(
                f"{item.test}: {'not in the old folder' if item.status == 'new' else 'not written now'}"
            )
            continue
        own = [change for change in item.changes if _single(change) not in common]
        if own:
            lines.append(f"{item.test}:")
            lines += [f"  {_change_text(change)}" for change in own]
    same = sum(1 for item in found if item.status == "same")
    if same:
        lines.append(f"{same} test{'s' if same > 1 else ''} unchanged")
    return lines


def _single(change: dict):
    """(key, old, new) of a change that is one and the same in its columns, else None."""
    values = {(str(a), str(b)) for a, b in zip(change["old"], change["new"], strict=True)}
    return (change["key"], change["old"][0], change["new"][0]) if len(values) == 1 else None


def _common_changes(items: Sequence[Difference]) -> list[tuple]:
    if len(items) < 2:
        return []
    sets = [
        [_single(change) for change in item.changes if change["key"].startswith(("sn_", "operator"))]
        for item in items
    ]
    return [single for single in sets[0] if single and all(single in other for other in sets[1:])]


def _change_text(change: dict) -> str:
    if change["key"] == "columns":
        return f"columns: {change['old'][0]} -> {change['new'][0]}"
    where = f"column{'s' if len(change['columns']) > 1 else ''} {ranges(change['columns'])}"
    if _single(change):
        return f"{change['key']}: {_show(change['old'][0])} -> {_show(change['new'][0])} ({where})"
    shift = _common_shift(change["old"], change["new"])
    text = f"{change['key']}: {_list(change['old'])} -> {_list(change['new'])} ({where}"
    return text + (f", {shift})" if shift else ")")


def _common_shift(old: Sequence, new: Sequence) -> str:
    """One number for a change of many values: the same step, or the same ratio."""
    if not all(isinstance(value, int | float) for value in (*old, *new)):
        return ""
    steps = {f"{b - a:+.6g}" for a, b in zip(old, new, strict=True)}
    if len(steps) == 1:
        return steps.pop()
    ratios = {f"{b / a:.6g}" if a else "" for a, b in zip(old, new, strict=True)}
    return f"x {ratios.pop()}" if len(ratios) == 1 and "" not in ratios else ""


def _list(values: Sequence) -> str:
    if len(values) > 4:
        return f"{_show(values[0])}, {_show(values[1])} .. {_show(values[-1])}"
    return ", ".join(_show(value) for value in values)


def _show(value) -> str:
    return f"{value:.6g}" if isinstance(value, int | float) else (str(value) or "(empty)")


def ranges(numbers: Sequence[int]) -> str:
    """``1-3, 5`` for [1, 2, 3, 5]."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)
