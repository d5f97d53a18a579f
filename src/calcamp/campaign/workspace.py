"""The workspace of a block: folders, links to the disks, filled-in files, and what is wrong with one.

<DIR>/
   config/        block and chamber of this campaign; linked into both folders below
   SCRIPTS/       inputs of the script writer and the session builder, scripts, session folders
   ANALYSIS/      session YAMLs, Snakefile, profiles, results_atCALDATA, calproducts
   atCALDATA  ->  the block's folder on the analysis disk
   atMSSL3M   ->  the block's folder on the acquisition disk
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from calcamp.campaign import scripts as writer
from calcamp.campaign.catalogue import FULL
from calcamp.config import lookup
from calcamp.config.block import Block
from calcamp.config.chamber import Chamber
from calcamp.config.errors import ConfigError
from calcamp.config.yamlfile import dump_yaml
from calcamp.data.files import InputError, write_atomic
from calcamp.data.names import MONTHS, day_folder_name, parse_day_folder
from calcamp.paths import packaged_config, workflow_root

DATA_LINK, ACQUISITION_LINK, RESULTS_LINK = "atCALDATA", "atMSSL3M", "results_atCALDATA"
#: Handles that a first input file does not ask for: special temperatures and voltages, repeats, analyses.
_NOT_AT_FIRST = {
    *("TP11", "TP21", "FLAT_STB", "PTC02TEMP", "PTC02RD", "BF01", "BF01WAVE", "NL01", "NL02RD", "PSF02"),
}
#: The sessions of a campaign as the cook-book has them.
SESSIONS = {
    "D00": ("MOT_WARM",),
    "D11": ("COSMETICS00", "FOCUS00_800", "FLATFLUX00_800", "PSFLUX00_800", "PTC02_730"),
    "D12": (
        *("BIAS02", "BIAS01", "CHINJ01", "CHINJ02", "TP01", "TP02", "PTC01", "NL02", "FLAT01", "DARK01"),
        *("PTC02_590", "PTC02_880", "PERSIST01"),
    ),
    "D21": ("BIAS02", "PSF01_590", "FLAT02_590"),
    "D22": ("BIAS02", "PSF01_730", "FLAT02_730", "PSF01_800", "FLAT02_880", "PSF01_880"),
}
_SNAKEFILE = """\
# The workflow of calcamp, run from this folder:
#
#   snakemake -n                --configfile D11.yaml      preview
#   snakemake -c4               --configfile D11.yaml      run on this machine
#   snakemake --profile cluster --configfile D11.yaml      run on the cluster
from calcamp.paths import workflow_root


include: str(workflow_root() / "Snakefile")


# An included file cannot name the default target.
workflow.default_target = "all"
"""
_MARK = "# As written by calcamp; edited files are never replaced. "


@dataclass(frozen=True)
class Workspace:
    """A workspace on disk."""

    root: Path

    @property
    def analysis(self) -> Path:
        return self.root / "ANALYSIS"

    @property
    def scripts(self) -> Path:
        return self.root / "SCRIPTS"

    @property
    def config(self) -> Path:
        return self.root / "config"

    @property
    def acquisition(self) -> Path | None:
        """The acquisition disk, if the workspace has a link to one."""
        link = self.root / ACQUISITION_LINK
        return link if link.is_symlink() or link.exists() else None

    @property
    def blocks(self) -> list[Path]:
        return sorted((self.config / "blocks").glob("*.yaml"))

    @property
    def block_name(self) -> str | None:
        """The block, where the workspace has just one."""
        return self.blocks[0].stem if len(self.blocks) == 1 else None

    @property
    def sessions(self) -> list[Path]:
        """Session YAMLs of the analyst."""
        return sorted(self.analysis.glob("*.yaml"))

    @property
    def data_root(self) -> Path:
        """Folder that holds the day-folders."""
        link = self.root / DATA_LINK
        return link if _has_day_folders(link) and not (link / "data").is_dir() else link / "data"


def of(path: Path | str) -> Workspace | None:
    """The workspace that holds `path`, None when it is in none."""
    path = Path(os.path.abspath(path))
    for folder in (path, *path.parents)[:8]:
        if (folder / "ANALYSIS").is_dir() and (folder / "SCRIPTS").is_dir():
            return Workspace(folder)
    return None


def is_workspace(folder: Path | str) -> bool:
    folder = Path(folder)
    return (folder / "ANALYSIS").is_dir() and (folder / "SCRIPTS").is_dir()


# ---- session YAMLs -------------------------------------------------------------------------------
def session_text(
    name: str,
    tests: Sequence[str],
    *,
    block: str = "UNKNOWN",
    filled_in_by: str = "",
    elvis: str = "7.5.X",
    data_root: str = "../atCALDATA/data",
    results: str = RESULTS_LINK,
    days: Sequence[str] = (),
    when: datetime | None = None,
) -> str:
    """Text of the session YAML that the analyst will run for a session.

    A test that comes again carries ``.2``, ``.3``, as session files want it. Tests whose analysis does not
    exist in this version are listed as comments. With `days` the data are there (mode aim), without them the
    day-folder is that of `when` (mode wait).
    """
    when = when or writer.now()
    head = {
        "session": name,
        "block": block,
        "filled_in_by": filled_in_by,
        "elvis": elvis,
        "mode": "aim" if days else "wait",
        "data": {"root": data_root, "day_folders": list(days) or [day_folder_name(when)]},
        "results": results,
    }
    note = (
        f"Session {name} of block {block}. Before running it, give the day-folder of the acquisition and your name.\n"
        "OBSID limits and a list of sub-tasks may be given to each test:\n"
        "  BIAS01: {do: [check, basic], obsids: [17283, 17292]}"
    )
    lines = [f"  {label}: {{do: all}}" for label in _labels(tests) if _runnable(label)]
    lines += [f"  # {label}: no analysis in this version" for label in _labels(tests) if not _runnable(label)]
    schema = "# yaml-language-server: $schema=config/schema/session.json\n"
    text = schema + dump_yaml(head, comment=note) + "tests:\n" + "".join(f"{line}\n" for line in lines)
    return f"{text}{_MARK}{_digest(text)}\n"


def _labels(tests: Sequence[str]) -> list[str]:
    from calcamp.campaign.catalogue import split_tag

    labels: list[str] = []
    for listed in tests:
        base, tag = split_tag(listed)
        label, count = (listed, int(tag[1:])) if tag else (base, 1)
        while label in labels:
            count += 1
            label = f"{base}.{count}"
        labels.append(label)
    return labels


def _runnable(label: str) -> bool:
    from calcamp.campaign.catalogue import split_tag
    from calcamp.campaign.core import tests
    from calcamp.campaign.plan import runnable_families

    test = tests().get(split_tag(label)[0])
    return test is not None and test.family in runnable_families()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def is_unedited(path: Path) -> bool:
    """Whether a session YAML is still as calcamp wrote it."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    body, mark, digest = text.rpartition(_MARK)
    return bool(mark) and digest.strip() == _digest(body)


def write_session(path: Path, text: str) -> bool:
    """Write a session YAML unless a person has edited the one that is there; whether it was written."""
    if path.exists() and not is_unedited(path):
        return False
    write_atomic(path, text)
    return True


def session_values(home: Workspace | None, folder: Path) -> dict:
    """What a session YAML in `folder` says of block, data and results."""
    if home is None:
        return {}
    values = {
        "data_root": os.path.relpath(home.data_root, folder),
        "results": os.path.relpath(home.analysis / RESULTS_LINK, folder),
    }
    if home.block_name:
        values["block"] = home.block_name
    return values


# ---- making --------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Asked:
    """What a workspace is made for."""

    root: Path
    block: str
    data: Path
    results: Path
    acquisition: Path | None = None
    chamber: str | None = None
    new_block: bool = False
    who: str = ""


def create(asked: Asked, when: datetime | None = None) -> tuple[Workspace, list[Path]]:
    """Make a workspace; nothing that exists is changed.

    Returns
    -------
    (Workspace, the files, folders and links made, relative to its root)

    Raises
    ------
    InputError, ConfigError
        The workspace or a part of it exists, a disk is absent, the block or chamber is unknown. Nothing has been
        written then.
    """
    when = when or writer.now()
    root = Path(os.path.abspath(asked.root))
    _check_places(asked, root)
    block_text, chamber = _block_text(asked)
    chamber_file = lookup.find_file("chambers", chamber, Path.cwd())
    home = Workspace(root)
    part = root.with_name(f".{root.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    root.parent.mkdir(parents=True, exist_ok=True)
    try:
        _fill(Workspace(part), home, asked, block_text, chamber_file, when)
        made_results = not asked.results.exists()
        if made_results:
            asked.results.mkdir()
        if root.is_dir():  # empty, as checked
            root.rmdir()
        os.rename(part, root)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    made = sorted(path.relative_to(root) for path in _walk(root))
    return home, made


def _walk(root: Path):
    for folder, names, files in os.walk(root):  # links are not followed
        for name in (*names, *files):
            yield Path(folder) / name


def _check_places(asked: Asked, root: Path) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}", asked.block):
        raise InputError(
            f"{asked.block!r} is not the name of a block", expected="letters, digits, _, - and ."
        )
    if root.is_symlink() or (root.exists() and (not root.is_dir() or any(root.iterdir()))):
        raise InputError(
            "exists and is not empty", file=root, remedy="Nothing is overwritten: choose another folder."
        )
    for option, folder in (("--data", asked.data), ("--acquisition", asked.acquisition)):
        if folder is not None and not folder.is_dir():
            raise InputError(
                "is not a folder", file=folder, where=option, remedy="Mount the disk, or correct the path."
            )
    if asked.results.exists() and not asked.results.is_dir():
        raise InputError("is not a folder", file=asked.results, where="--results")
    if not asked.results.exists() and not asked.results.parent.is_dir():
        raise InputError("its parent folder does not exist", file=asked.results, where="--results")


def _block_text(asked: Asked) -> tuple[str, str]:
    """(text of the block YAML, name of its chamber)."""
    here = Path.cwd()
    try:
        path = lookup.find_file("blocks", asked.block, here)
    except ConfigError:
        if not asked.new_block:
            raise
        path = None
    if path is not None:
        block = lookup.load_block(asked.block, here)
        text = path.read_text(encoding="utf-8")
        chamber = asked.chamber or block.chamber
        if asked.chamber and asked.chamber != block.chamber:
            text = _with_chamber(text, asked.chamber, block.chamber)
    else:
        chamber = asked.chamber
        text = _new_block(asked.block, chamber) if chamber else ""
    if chamber is None:
        raise InputError(
            f"block {asked.block} names no chamber", where="--chamber", remedy="Give its profile."
        )
    lookup.load_chamber(chamber, here)
    return text, chamber


def _with_chamber(text: str, new: str, old: str | None) -> str:
    if old is None:
        return text.rstrip("\n") + f"\nchamber: {new}\n"
    return re.sub(r"(?m)^chamber:.*$", f"chamber: {new}", text, count=1)


def _new_block(name: str, chamber: str) -> str:
    offsets = "".join(f"  {ccd}: {{E: 2800, F: 2800, G: 2800, H: 2800}}\n" for ccd in (1, 2, 3))
    return (
        "# yaml-language-server: $schema=../schema/block.json\n"
        f"# Block {name}. Fill in the serials: the campaign director has them.\n"
        f"block: {name}\nchamber: {chamber}\ndetector: ccd273\n"
        "hardware: {roe: FMXX, rpsu: FMXX, ccd1: 14XXX-XX-XX, ccd2: 14XXX-XX-XX, ccd3: 14XXX-XX-XX, operator: unk}\n"
        f"offsets:  # expected, ADU; put the measured ones as soon as there are any\n{offsets}"
    )


def _fill(part: Workspace, home: Workspace, asked: Asked, block_text: str, chamber_file: Path, when) -> None:
    for folder in (part.analysis, part.scripts, part.config / "blocks", part.config / "chambers"):
        folder.mkdir(parents=True)
    (part.root / DATA_LINK).symlink_to(asked.data.resolve())
    if asked.acquisition is not None:
        (part.root / ACQUISITION_LINK).symlink_to(asked.acquisition.resolve())
    for folder in (part.analysis, part.scripts):
        (folder / "config").symlink_to("../config")
    (part.analysis / RESULTS_LINK).symlink_to(_results_target(asked))
    if (asked.data / "calproducts").is_dir():
        (part.analysis / "calproducts").symlink_to(f"../{DATA_LINK}/calproducts")
    else:
        (part.analysis / "calproducts").mkdir()
    write_atomic(part.config / "blocks" / f"{asked.block}.yaml", block_text)
    shutil.copy(chamber_file, part.config / "chambers" / chamber_file.name)
    if (packaged_config() / "schema").is_dir():
        shutil.copytree(packaged_config() / "schema", part.config / "schema")
    write_atomic(part.analysis / "Snakefile", _SNAKEFILE)
    shutil.copytree(workflow_root() / "profiles", part.analysis / "profiles")
    (part.analysis / "cluster").symlink_to("profiles/cluster")
    _write_inputs(part, asked, when)
    days = _day_folders(part.data_root)
    root = os.path.relpath(part.data_root, part.analysis)
    for name, tests in SESSIONS.items():
        if any(_runnable(label) for label in _labels(tests)):
            text = session_text(
                name, tests, block=asked.block, filled_in_by=asked.who, data_root=root, days=days, when=when
            )
            write_atomic(part.analysis / f"{name}.yaml", text)


def _results_target(asked: Asked) -> str:
    data, results = asked.data.resolve(), asked.results.resolve()
    if results.is_relative_to(data) and results != data:
        return f"../{DATA_LINK}/{results.relative_to(data)}"
    return str(results)


def _write_inputs(part: Workspace, asked: Asked, when: datetime) -> None:
    label = (
        f"{asked.block}_{MONTHS[when.month - 1].upper()}{when.year % 100:02d}_W{when.isocalendar().week:02d}"
    )
    handles = {handle: 0 if handle in _NOT_AT_FIRST else 1 for handle in FULL}
    scripts = {
        "block": asked.block,
        "elvis": "7.5.X",
        "camptype": "Full",
        "outpath": f"Scripts_{label}",
        "toWrite": handles,
    }
    note = (
        "Input of: calcamp scripts. Serials and chamber come from config/blocks/, exposure times and focus from\n"
        "config/chambers/. 1: write the scripts of this handle, 0: do not."
    )
    write_atomic(part.scripts / f"scripts_inputs_{label}.yaml", dump_yaml(scripts, comment=note))
    sessions = {
        "inpath": f"Scripts_{label}",
        "outpath": f"SEQUENCES_{label}",
        "sessions": {name: list(tests) for name, tests in SESSIONS.items()},
    }
    note = "Input of: calcamp sessions. Tests are executed in the order given here."
    write_atomic(part.scripts / f"sessions_builder_{label}.yaml", dump_yaml(sessions, comment=note))


def _day_folders(root: Path) -> list[str]:
    found = []
    if root.is_dir():
        for path in root.iterdir():
            try:
                found.append((parse_day_folder(path.name), path.name))
            except ValueError:
                continue
    return [name for _, name in sorted(found)]


def _has_day_folders(root: Path) -> bool:
    return bool(_day_folders(root))


# ---- checking ------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Problem:
    """Something of a workspace that needs a person. `where` is a path, with a line where there is one."""

    where: str
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.text}" + (f"; {self.remedy}" if self.remedy else "")


def problems(folder: Path | str) -> list[Problem]:
    """What is wrong with a workspace: broken links, missing serials, unusable or dataless sessions."""
    home = Workspace(Path(folder))
    if not is_workspace(home.root):
        return [
            Problem(
                str(home.root), "is not a workspace: it has no ANALYSIS and SCRIPTS", "make one: calcamp init"
            )
        ]
    found = [
        Problem(str(path), f"broken link to {os.readlink(path)}", "mount the disk, or make the link again")
        for path in sorted(_walk(home.root))
        if path.is_symlink() and not path.exists()
    ]
    for name in ("Snakefile", "profiles", "cluster", RESULTS_LINK):
        path = home.analysis / name
        if not path.exists() and not path.is_symlink():
            found.append(Problem(str(path), "is missing", "take it from a new workspace (calcamp init)"))
    if not home.blocks:
        found.append(Problem(str(home.config / "blocks"), "holds no block", "copy the block's YAML there"))
    for path in home.blocks:
        found += _block_problems(path)
    for path in sorted((home.config / "chambers").glob("*.yaml")):
        found += _faults(lambda path=path: Chamber.load(path))
    for path in home.sessions:
        found += _session_problems(path)
    for path in sorted((*home.scripts.glob("*.yaml"), *home.scripts.glob("*.json"))):
        found += _input_problems(path)
    return list(dict.fromkeys(found))


def _faults(load) -> list[Problem]:
    try:
        load()
    except ConfigError as error:
        return [
            Problem(
                one.file + (f":{one.line}" if one.line else ""),
                f"{one.key}: {one.message}" if one.key else one.message,
                one.remedy,
            )
            for one in error.errors
        ]
    return []


def _block_problems(path: Path) -> list[Problem]:
    found = _faults(lambda: Block.load(path))
    if found:
        return found
    block = Block.load(path)
    for key, value in block.serials.items():
        if not value.strip() or "XX" in value:
            one = block.error(
                ("hardware", key), f"the serial of {key} is missing (found {value!r})", "fill it in"
            )
            found.append(
                Problem(
                    f"{one.file}:{one.line}" if one.line else one.file,
                    f"{one.key}: {one.message}",
                    one.remedy,
                )
            )
    return found


def _input_problems(path: Path) -> list[Problem]:
    """Faults of an input of the script writer or the session builder; other files are passed over."""
    from calcamp.campaign import sessions

    found = _faults(lambda: writer.read_document(path))
    if found:
        return found
    data = writer.read_document(path).data
    keys = set(data) if isinstance(data, dict) else set()
    if "toWrite" in keys:
        return _faults(lambda: writer.chamber_and_equipment(writer.read_input(path)))
    return _faults(lambda: sessions.read_input(path)) if "sessions" in keys else []


def _session_problems(path: Path) -> list[Problem]:
    found = _faults(lambda: lookup.load_all(path))
    if found:
        return found
    session = lookup.load_session(path)
    if session.mode == "wait":
        return []
    folders = {folder for test in session.tests for folder in session.data_folders(test)}
    for folder in sorted(folders):
        if not folder.is_dir():
            one = session.error(
                ("data", "day_folders"), f"the day-folder {folder} does not exist", "correct it"
            )
            found.append(Problem(f"{one.file}:{one.line}", f"{one.key}: {one.message}", one.remedy))
    return found
