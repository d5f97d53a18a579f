"""Session folders: scripts in the order of their execution, the skeleton for the analyst, the delivery.

All tests of all sessions are resolved and all checksums verified before anything is written.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints, model_validator

from calcamp.campaign import scripts as writer
from calcamp.campaign.catalogue import split_tag
from calcamp.campaign.core import CampaignError
from calcamp.campaign.duration import test_minutes
from calcamp.config.errors import likely, raise_all
from calcamp.config.shape import File
from calcamp.data import scripts as files
from calcamp.data.files import InputError, read_json, sha256, sync_folder, write_atomic, write_json

SessionName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]{1,64}$")]
#: Beside the delivered folders: what was delivered when, so that the next delivery can tell what changed.
DELIVERIES = "DELIVERIES.json"
_SEQUENCE = re.compile(r"TEST_SEQUENCE_([A-Za-z0-9_]{1,64})\.txt")


class SessionsInput(File):
    """Input of the session builder."""

    inpath: str = Field(min_length=1, description="folder with the scripts")
    outpath: str = Field(min_length=1, description="folder for the sessions, made if absent (one level)")
    sessions: dict[SessionName, list[str]] = Field(description="session: tests in the order of execution")

    @model_validator(mode="after")
    def _some(self):
        if not self.sessions:
            raise ValueError("sessions is empty; name at least one")
        return self

    @property
    def folder_in(self) -> Path:
        return self.path_to(self.inpath)

    @property
    def folder_out(self) -> Path:
        """Paths are relative to the input file."""
        return self.path_to(self.outpath)


@dataclass(frozen=True)
class SessionPlan:
    """A session with its scripts, in the order of execution; a script may come twice."""

    name: str
    tests: tuple[str, ...]
    scripts: tuple[Path, ...]

    @property
    def sequence_name(self) -> str:
        return f"TEST_SEQUENCE_{self.name}.txt"

    @property
    def files(self) -> tuple[Path, ...]:
        """Scripts to be copied, each once."""
        return tuple(dict.fromkeys(self.scripts))


@dataclass(frozen=True)
class Built:
    """What the session builder left behind."""

    folders: tuple[Path, ...]
    moved: tuple[tuple[Path, Path], ...] = ()  # (old folder, where it went)
    unchecked: tuple[str, ...] = ()  # scripts without a checksum in their folder


def read_input(path: Path | str) -> SessionsInput:
    """Input of the session builder; ConfigError with file, line and key when it is not usable."""
    read = SessionsInput.from_document(writer.read_document(path))
    faults = []
    for session, tests in read.sessions.items():
        for number, test in enumerate(tests):
            try:
                split_tag(test)
            except CampaignError as error:
                faults.append(read.error(("sessions", session, number), str(error), "correct it"))
        if not tests:
            faults.append(
                read.error(("sessions", session), "the list of tests is empty", "name at least one test")
            )
    raise_all(faults)
    return read


# ---- resolving -----------------------------------------------------------------------------------
def resolve(read: SessionsInput) -> list[SessionPlan]:
    """The script of every test of every session.

    Raises
    ------
    InputError
        Every missing and every ambiguous script, all at once; or no folder of scripts.
    """
    if not read.folder_in.is_dir():
        raise InputError(
            "the folder with the scripts does not exist",
            file=read.file,
            where="inpath",
            expected=str(read.folder_in),
            remedy="Write the scripts first, or correct inpath.",
        )
    available = files.find_scripts(read.folder_in)
    problems, plans = [], []
    for session, tests in read.sessions.items():
        chosen = []
        for test in tests:
            found = available.get(test, [])
            if not found:
                problems.append(f"Did not find test {test} in session {session}{_near(test, available)}")
            elif len(found) > 1:
                names = ", ".join(path.name for path in found)
                problems.append(f"Found more than 1 script for test {test} in session {session}: {names}")
            else:
                chosen.append(found[0])
        plans.append(SessionPlan(session, tuple(tests), tuple(chosen)))
    if problems:
        raise InputError(
            "\n".join(dict.fromkeys(problems)) + f"\nlooked in {read.folder_in}; nothing was written"
        )
    return plans


def _near(test: str, available) -> str:
    generic = sorted(name for name in available if name.startswith(f"{test}_"))
    close = generic or likely(test, available)
    return f" (there are {', '.join(close)})" if close else ""


def verify_sums(plans: Sequence[SessionPlan], folder: Path) -> list[str]:
    """Compare the scripts with the checksums written beside them; names of those that have none.

    Raises
    ------
    InputError
        A script is not the one that was written.
    """
    sums = files.read_check_sums(folder)
    changed, unchecked = [], []
    for path in dict.fromkeys(path for plan in plans for path in plan.scripts):
        if path.name not in sums:
            unchecked.append(path.name)
        elif files.md5(path) not in sums[path.name]:
            changed.append(path.name)
    if changed:
        raise InputError(
            f"changed since they were written: {', '.join(changed)}",
            file=folder,
            where="CHECK_SUMS",
            remedy="Write the scripts again. Nothing was written.",
        )
    return unchecked


# ---- building ------------------------------------------------------------------------------------
def build(
    read: SessionsInput, replace: bool = False, when: datetime | None = None
) -> tuple[list[SessionPlan], Built]:
    """Make the session folders.

    Parameters
    ----------
    read : the input
    replace : move an existing session folder aside instead of refusing
    when : time for the name of a folder moved aside

    Raises
    ------
    InputError
        Missing or ambiguous script, script that was changed, existing folder: nothing has been written then.
    """
    plans = resolve(read)
    unchecked = verify_sums(plans, read.folder_in)
    out = read.folder_out
    existing = [plan.name for plan in plans if (out / plan.name).exists() or (out / plan.name).is_symlink()]
    if existing and not replace:
        raise InputError(
            f"session folders exist: {', '.join(existing)}",
            file=out,
            remedy="Use --replace to move them aside, or another outpath. Nothing was written.",
        )
    if not out.is_dir():
        make_folder(out)
    ready = [(plan, _fill(plan, out)) for plan in plans]
    moved = []
    for plan, part in ready:
        folder = out / plan.name
        if plan.name in existing:
            moved.append((folder, move_aside(folder, when)))
        os.replace(part, folder)
    sync_folder(out)
    return plans, Built(tuple(out / plan.name for plan in plans), tuple(moved), tuple(unchecked))


def make_folder(folder: Path) -> None:
    """Make one level of folders."""
    try:
        folder.mkdir()
    except FileNotFoundError:
        raise InputError(
            "cannot be made: its parent folder does not exist", file=folder, remedy="Only one level is made."
        ) from None
    except OSError as error:
        raise InputError(f"cannot be made ({error.strerror})", file=folder) from error


def _fill(plan: SessionPlan, out: Path) -> Path:
    """A hidden folder with the content of the session, each copy read back and compared."""
    part = out / f".{plan.name}.{os.getpid()}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        for script in plan.files:
            copy_verified(script, part / script.name)
        write_atomic(part / plan.sequence_name, "".join(f"{script.name}\n" for script in plan.scripts))
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return part


def copy_verified(source: Path, target: Path) -> str:
    """Copy a file, read the copy back and compare; its SHA-256."""
    digest = sha256(source)
    write_atomic(target, source.read_bytes())
    shutil.copystat(source, target)
    if sha256(target) != digest:
        raise InputError(
            "the copy differs from its source", file=target, remedy="Check the disk, then try again."
        )
    return digest


def move_aside(folder: Path, when: datetime | None = None) -> Path:
    """Rename a folder to ``<name>_replaced_<time>``; never over another one."""
    stamp = f"{when or writer.now():%Y%m%dT%H%M%S}"
    for suffix in ("", *(f"_{n}" for n in range(2, 1000))):
        target = folder.with_name(f"{folder.name}_replaced_{stamp}{suffix}")
        if not target.exists():
            folder.rename(target)
            return target
    raise InputError("cannot be moved aside", file=folder)


# ---- delivery ------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Delivered:
    """A session folder on the acquisition disk."""

    name: str
    folder: Path
    scripts: tuple[str, ...]  # in the order of execution
    frames: int
    minutes: float
    changes: tuple[str, ...] | None  # since the last delivery; None when there was none
    digests: dict[str, str] = field(default_factory=dict)


def session_folders(folder: Path) -> list[Path]:
    """Session folders below `folder`, or `folder` itself if it is one, in order of their names."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError("is not a folder", file=folder, expected="a folder made by calcamp sessions")
    if _sequence_of(folder):
        return [folder]
    # What was moved aside, and what is half made, is not delivered.
    found = [
        sub
        for sub in sorted(folder.iterdir())
        if sub.is_dir()
        and not sub.name.startswith(".")
        and "_replaced_" not in sub.name
        and _sequence_of(sub)
    ]
    if not found:
        raise InputError(
            "holds no session folders", file=folder, expected="folders with TEST_SEQUENCE_<SESSION>.txt"
        )
    return found


def _sequence_of(folder: Path) -> Path | None:
    found = [path for path in folder.iterdir() if _SEQUENCE.fullmatch(path.name) and path.is_file()]
    if len(found) > 1:
        raise InputError("holds more than one TEST_SEQUENCE file", file=folder)
    return found[0] if found else None


def read_sequence(folder: Path) -> list[str]:
    """Names of the scripts of a session folder in the order of execution, all of them there and readable."""
    sequence = _sequence_of(folder)
    names = [line.strip() for line in sequence.read_text(encoding="utf-8").splitlines() if line.strip()]
    for number, name in enumerate(names, 1):
        if files.parse_script_name(name) is None:
            raise InputError(f"{name!r} is not the name of a script", file=sequence, where=number)
        if not (folder / name).is_file():
            raise InputError(f"{name} is listed but not in the folder", file=sequence, where=number)
    extra = sorted({path.name for path in folder.glob("*.xlsx")} - set(names))
    if extra:
        raise InputError(f"not listed but in the folder: {', '.join(extra)}", file=sequence)
    return names


def deliver(
    source: Path, destination: Path, replace: bool = False, when: datetime | None = None
) -> list[Delivered]:
    """Copy session folders to the acquisition disk and verify the copies.

    Folders go to ``<destination>/<name of source>/<session>``. What was delivered is noted in
    ``<destination>/DELIVERIES.json``.

    Raises
    ------
    InputError
        Incomplete session folder, absent destination, or a folder of that name there with other content
        (`replace` moves it aside). Nothing has been written then.
    """
    when = when or writer.now()
    source, destination = Path(source).resolve(), Path(destination)
    folders = session_folders(source)
    if not destination.is_dir():
        raise InputError(
            "the acquisition disk is not there",
            file=destination,
            remedy="Mount it, or give another folder with --to.",
        )
    destination = destination.resolve()
    parent = destination / (source.name if folders != [source] else source.parent.name)
    sequences = {folder: read_sequence(folder) for folder in folders}
    contents = {folder: _read_all(folder, names) for folder, names in sequences.items()}
    known = _deliveries(destination)
    standing = [folder for folder in folders if (parent / folder.name).exists()]
    blocked = [folder for folder in standing if not _equal(folder, parent / folder.name)]
    if blocked and not replace:
        raise InputError(
            f"session folders with other content exist: {', '.join(folder.name for folder in blocked)}",
            file=parent,
            remedy="Use --replace to move them aside. Nothing was copied.",
        )
    parent.mkdir(exist_ok=True)
    delivered = []
    for folder in folders:
        target, names = parent / folder.name, sequences[folder]
        before = _last_content(known, folder.name, destination)
        if folder not in standing or folder in blocked:
            part = _copy_folder(folder, names, parent, when)
            if folder in blocked:
                _note_moved(known, target, move_aside(target, when), destination)
            os.replace(part, target)
            sync_folder(parent)
        digests = {name: sha256(target / name) for name in dict.fromkeys(names)}
        if any(digests[name] != sha256(folder / name) for name in digests):
            raise InputError(
                "the copy differs from its source", file=target, remedy="Check the disk, then try again."
            )
        delivered.append(_described(folder, target, names, contents[folder], before, digests))
    _note(destination, known, delivered, when)
    return delivered


def _read_all(folder: Path, names: Sequence[str]) -> dict[str, list[files.ScriptColumn]]:
    return {
        files.parse_script_name(name).test: files.read_script(folder / name) for name in dict.fromkeys(names)
    }


def _described(folder, target, names, content, before, digests) -> Delivered:
    in_order = [content[files.parse_script_name(name).test] for name in names]
    return Delivered(
        name=folder.name,
        folder=target,
        scripts=tuple(names),
        frames=sum(column.frames for columns in in_order for column in columns),
        minutes=sum(test_minutes(columns) for columns in in_order),
        changes=None
        if before is None
        else tuple(writer.difference_lines(writer.differences(before, content))),
        digests=digests,
    )


def _equal(a: Path, b: Path) -> bool:
    names = {path.name for path in a.iterdir()}
    return names == {path.name for path in b.iterdir()} and all(sha256(a / n) == sha256(b / n) for n in names)


def _copy_folder(folder: Path, names: Sequence[str], parent: Path, when: datetime) -> Path:
    part = parent / f".{folder.name}.{os.getpid()}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        for name in (*dict.fromkeys(names), _sequence_of(folder).name):
            copy_verified(folder / name, part / name)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return part


def _deliveries(destination: Path) -> dict:
    path = destination / DELIVERIES
    if not path.exists():
        return {"deliveries": []}
    known = read_json(path)
    entries = known.get("deliveries") if isinstance(known, dict) else None
    if not isinstance(entries, list) or not all(
        isinstance(e, dict) and isinstance(e.get("folder"), str) for e in entries
    ):
        raise InputError(
            "is not a list of deliveries", file=path, remedy="Move it away; the next delivery begins anew."
        )
    return known


def _last_content(known: dict, session: str, destination: Path) -> dict | None:
    """Scripts of the last delivery of a session that is still readable."""
    for entry in reversed(known["deliveries"]):
        folder = (destination / entry["folder"]).resolve()
        inside = destination.resolve() in folder.parents
        if entry.get("session") == session and inside and folder.is_dir() and _sequence_of(folder):
            try:
                return _read_all(folder, read_sequence(folder))
            except InputError:
                continue
    return None


def _note_moved(known: dict, old: Path, new: Path, destination: Path) -> None:
    for entry in known["deliveries"]:
        if entry["folder"] == str(old.relative_to(destination)):
            entry["folder"] = str(new.relative_to(destination))


def _note(destination: Path, known: dict, delivered: Sequence[Delivered], when: datetime) -> None:
    for item in delivered:
        entry = {
            "session": item.name,
            "when": f"{when:%Y-%m-%dT%H:%M:%S}",
            "folder": str(item.folder.relative_to(destination)),
            "sha256": item.digests,
        }
        last = next((e for e in reversed(known["deliveries"]) if e.get("session") == item.name), None)
        if last is None or last.get("folder") != entry["folder"] or last.get("sha256") != entry["sha256"]:
            known["deliveries"].append(entry)
    write_json(destination / DELIVERIES, known)


def operators_text(delivered: Sequence[Delivered], block: str | None = None) -> str:
    """The text for the operators: where the sessions are, their tests in order, what changed."""
    lines = [
        f"Scripts{f' of block {block}' if block else ''} are ready for acquisition:",
        "",
    ]
    for item in delivered:
        hours, minutes = divmod(round(item.minutes), 60)
        lines += [
            f"Session {item.name}: {len(item.scripts)} test{'s' if len(item.scripts) != 1 else ''}, {item.frames} frames, about {hours} h {minutes:02d} min",
            f"  folder:   {item.folder}",
            f"  sequence: TEST_SEQUENCE_{item.name}.txt",
            *(f"    {number}. {name}" for number, name in enumerate(item.scripts, 1)),
        ]
        if item.changes is None:
            lines.append("  first delivery of this session")
        else:
            lines += ["  since the last delivery:", *(f"    {line}" for line in item.changes)]
        lines.append("")
    lines.append("The copies were read back and agree with the originals (SHA-256).")
    return "\n".join(lines) + "\n"
