"""Finding a test in the EXP-LOG: what the gate, `calcamp validate` and `calcamp status` look at.

Standard library only: a waiting gate imports this and little else.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from calcamp.campaign import structure
from calcamp.data.explog import count_rows, find_explogs, read_explog


@dataclass
class Look:
    """What one look at the log found."""

    alignment: structure.Alignment
    exposures: list  # those that were aligned, in order of acquisition
    rows_logged: int
    problems: list[str]

    @property
    def assigned(self) -> list[tuple]:
        """(logged exposure, column, frame), in order of acquisition."""
        return [(self.exposures[index], column, frame) for index, column, frame in self.alignment.assignments]


def look_at_log(gate: dict, declared: dict) -> Look:
    """Read the EXP-LOGs of the day-folders and align the test's rows with its declared columns."""
    columns = [structure.Declared(c["frames"], c["keys"]) for c in declared["columns"]]
    paths = [path for folder in gate["folders"] for path in find_explogs(Path(folder))]
    log = read_explog(paths) if paths else None
    first, last = gate["obsids"] or (gate["start_obsid"] or 0, 1 << 62)
    logged = log.exposures() if log else []
    mine = [e for e in logged if e.test == declared["log_name"] and first <= e.obsid <= last]
    if not declared["colour_blind"]:
        waves = {c.values.get("wave") for c in columns}
        mine = [e for e in mine if e.values.get("wave") in waves]
    alignment = structure.align(
        columns,
        mine,
        waived=declared["waived"],
        equipment=declared["equipment"],
        entry=gate["occurrence"],
        entries=gate["entries"],
    )
    problems = [str(problem) for problem in log.problems] if log else ["no EXP-LOG in the day-folder"]
    return Look(alignment, mine, _rows_named(paths, declared["log_name"]), problems)


def _rows_named(paths: list[Path], test: str) -> int:
    """Lines of the logs that name the test, counted as `Plan.rows_logged` counts them."""
    return sum(count_rows(path, test) for path in paths)


RAW_SUFFIXES = (".fits", ".fits.gz", ".fits.fz")


def raw_file(folder: Path, stem: str) -> Path | None:
    """The raw frame called `stem` in a folder, plain or compressed; None when there is none."""
    for suffix in RAW_SUFFIXES:
        path = folder / f"{stem}{suffix}"
        if path.is_file():
            return path
    return None


def files_missing(look: Look) -> list[str]:
    """Names of raw frames that the log lists and the folder does not hold."""
    absent = []
    for logged, _, _ in look.assigned:
        for row in logged.ccds.values():
            if raw_file(Path(row["_folder"]), str(row["File_name"])) is None:
                absent.append(str(row["File_name"]))
    return absent


def settled(look: Look, settle_s: float) -> bool:
    """Whether every raw frame has been quiet for `settle_s` (a copy still going on is not)."""
    now = time.time()
    for logged, _, _ in look.assigned:
        for row in logged.ccds.values():
            path = raw_file(Path(row["_folder"]), str(row["File_name"]))
            if path is None or now - path.stat().st_mtime < settle_s:
                return False
    return True


def incomplete_reason(look: Look) -> str:
    """What is missing, in words."""
    if not look.assigned:
        return "no exposures of the test in the EXP-LOG"
    absent = look.alignment.declared - len(look.assigned)
    partly = sum(1 for item in look.alignment.missing if "ccds" in item)
    parts = [f"{absent} of {look.alignment.declared} frames missing"] if absent else []
    return "; ".join(parts + ([f"{partly} frames without all CCDs"] if partly else []))
