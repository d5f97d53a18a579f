"""Finding a test in the EXP-LOG: what the gate, `calcamp validate` and `calcamp status` look at.

Standard library only: a waiting gate imports this and little else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
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
    later: list[str] = field(default_factory=list)  # other tests logged after this one
    other_filter: list = field(default_factory=list)  # rows of the test in a filter that it does not use
    tests: dict = field(default_factory=dict)  # OBSIDs of every test in the log

    @property
    def assigned(self) -> list[tuple]:
        """(logged exposure, column, frame), in order of acquisition."""
        return [(self.exposures[index], column, frame) for index, column, frame in self.alignment.assignments]


@lru_cache(maxsize=2)
def _read_logs(paths: tuple[Path, ...], _signature: tuple):
    """The logs, read anew when one of them changed: many tests of a session look at the same."""
    return read_explog(list(paths))


def look_at_log(gate: dict, declared: dict) -> Look:
    """Read the EXP-LOGs of the day-folders and align the test's rows with its declared columns."""
    columns = columns_of(declared)
    paths = logs_of(gate)
    log = _read_logs(tuple(paths), signature(gate)) if paths else None
    first, last = gate["obsids"] or (gate["start_obsid"] or 0, 1 << 62)
    logged = log.exposures() if log else []
    named = [e for e in logged if e.test == declared["log_name"] and first <= e.obsid <= last]
    mine = named
    if not declared["colour_blind"]:
        waves = {c.values.get("wave") for c in columns}
        mine = [e for e in named if e.values.get("wave") in waves]
    alignment = structure.align(
        columns,
        mine,
        waived=declared["waived"],
        equipment=declared["equipment"],
        entry=gate["occurrence"],
        entries=gate["entries"],
    )
    problems = [str(problem) for problem in log.problems] if log else ["no EXP-LOG in the day-folder"]
    rows = sum(count_rows(path, declared["log_name"]) for path in paths)  # as `Plan.rows_logged` counts
    after = max((e.obsid for e in mine), default=None)
    later = sorted({e.test for e in logged if after is not None and e.obsid > after and e not in named})
    other = [e for e in named if e not in mine]
    return Look(alignment, mine, rows, problems, later, other, log.tests() if log else {})


def selection(gate: dict) -> dict:
    """What of the session decides which exposures are taken; folders by name, so that data may move."""
    keys = ("obsids", "start_obsid", "occurrence", "entries")
    return {"folders": [Path(f).name for f in gate["folders"]], **{key: gate[key] for key in keys}}


def columns_of(declared: dict) -> list[structure.Declared]:
    """Columns of a test from its plan file."""
    return [structure.Declared(c["frames"], c["keys"]) for c in declared["columns"]]


def logs_of(gate: dict) -> list[Path]:
    """EXP-LOGs of the day-folders, in the order of the folders and their dates."""
    return [path for folder in gate["folders"] for path in find_explogs(Path(folder))]


def signature(gate: dict) -> tuple:
    """What tells that no log changed: the same value means that another look finds the same."""
    found = []
    for path in logs_of(gate):
        status = path.stat()
        found.append((str(path), status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)


def wrong_exposures(look: Look, declared: dict) -> list[str]:
    """What is being acquired otherwise than declared, in words; equipment is not looked at.

    It is told while the test goes on, so that the operator can stop a wrong script.
    """
    columns = columns_of(declared)
    said = [
        f"OBSID {e.obsid}: wave {e.values.get('wave')}, which no column of the test declares"
        for e in look.other_filter
    ]
    runs = structure.candidate_runs(columns, look.exposures, finished=False)
    if not runs:
        return said + [f"OBSID {e.obsid}: nothing that the test declares" for e in look.exposures]
    run = runs[-1]
    column_of = [number for number, c in enumerate(columns, 1) for _ in range(c.frames)]
    taken = {index: column for index, column, _ in run.assignments}
    place = 0  # of the next frame in the declared list
    for index in range(run.first, len(look.exposures)):
        exposure = look.exposures[index]
        column = taken.get(index) or column_of[min(place, len(column_of) - 1)]
        if index in taken or place < len(column_of):
            place += 1
            wrong = structure.differences(columns[column - 1], exposure, declared["waived"])
        else:
            wrong = None
        if wrong is None or (index not in taken and len(wrong) not in (1, 2, 3)):
            said.append(f"OBSID {exposure.obsid}: nothing that the test declares at this place")
            continue
        said += [
            f"OBSID {exposure.obsid}, col{column:03d}: {key} {found} in place of {expected}"
            for key, expected, found in wrong
        ]
    return said


def suspended(look: Look, declared: dict) -> bool:
    """Whether a pause inside the test looks like an abort and a new start: then more frames may follow."""
    from calcamp.campaign.duration import frame_seconds

    times = [(logged.time, column) for logged, column, _ in look.assigned]
    for (before, column), (now, _) in pairwise(times):
        if before is None or now is None:
            continue
        model = frame_seconds(declared["commanded"][column - 1])
        if (now - before).total_seconds() > 1.5 * model + 30:
            return True
    return False


RAW_SUFFIXES = (".fits", ".fits.gz", ".fits.fz")


def raw_file(folder: Path, stem: str) -> Path | None:
    """The raw frame called `stem` in a folder, plain or compressed; None when there is none."""
    for suffix in RAW_SUFFIXES:
        path = folder / f"{stem}{suffix}"
        if path.is_file():
            return path
    return None


def hk_file(folder: Path, obsid: int) -> Path | None:
    """The house-keeping file of an exposure; None when there is none, or several and nobody knows which is right."""
    found = list(folder.glob(f"HK_{obsid}_*_ROE1.txt"))
    return found[0] if len(found) == 1 else None


def frames_of(look: Look) -> list[tuple[str, Path | None]]:
    """(name in the log, file) of every raw frame of the test; None where there is no file yet."""
    return [
        (str(row["File_name"]), raw_file(Path(row["_folder"]), str(row["File_name"])))
        for logged, _, _ in look.assigned
        for row in logged.ccds.values()
    ]


def incomplete_reason(look: Look) -> str:
    """What is missing, in words."""
    if not look.assigned:
        return "no exposures of the test in the EXP-LOG"
    absent = look.alignment.declared - len(look.assigned)
    partly = sum(1 for item in look.alignment.missing if "ccds" in item)
    parts = [f"{absent} of {look.alignment.declared} frames missing"] if absent else []
    return "; ".join(parts + ([f"{partly} frames without all CCDs"] if partly else []))
