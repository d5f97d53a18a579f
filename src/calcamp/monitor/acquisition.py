"""The EXP-LOG of a day-folder as it grows, and where the session stands."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from calcamp.data.explog import ExpLog, LogParser, Merger, find_explogs, read_explog
from calcamp.data.files import InputError, read_json
from calcamp.data.follow import RowFollower
from calcamp.data.names import parse_stamp

#: Columns that the table shows at first.
SHOWN = [
    "ObsID",
    "CCD",
    "date",
    "test",
    "exptime",
    "wave",
    "source",
    "vstart",
    "vend",
    "chinj",
    "v_tpump",
    "s_tpump",
    "mirr_pos",
]
MAX_ROWS = 200_000


@dataclass
class LogWatch:
    """Follows the EXP-LOGs of one day-folder."""

    folder: Path
    log: ExpLog = field(default_factory=ExpLog)
    fault: str = ""
    last_arrival: float | None = None
    generation: int = 0  # raised when the rows begin anew
    followers: dict[str, RowFollower] = field(default_factory=dict)
    _merger: Merger | None = None
    _bad: set[str] = field(default_factory=set)

    def look(self) -> int:
        """Read new rows; returns how many."""
        new = 0
        if self._merger is None:
            self._merger = Merger(self.log)
        for path in find_explogs(self.folder):
            if path.name in self._bad:
                continue
            follower = self.followers.get(path.name)
            if follower is None:
                follower = self.followers[path.name] = RowFollower(path, LogParser)
                self._merger.start(follower.parser)
            try:
                rows, restarted = follower.read()
            except InputError as error:
                self.fault = str(error.problem)
                self._bad.add(path.name)
                continue
            if restarted:
                return self._anew()
            for row in rows:
                if len(self.log.rows) < MAX_ROWS:
                    _share(row, self.log.rows[-1] if self.log.rows else {})
                    new += self._merger.add(row)
            for name in follower.parser.columns:
                if name not in self.log.columns:
                    self.log.columns.append(name)
        if new:
            first = self.last_arrival is None
            self.last_arrival = self._newest_file_time() if first else time.time()
        return new

    def _anew(self) -> int:
        """A log was replaced: read all again."""
        self.log, self.followers, self._merger, self.fault = ExpLog(), {}, None, ""
        self._bad = set()
        self.generation += 1
        return self.look()

    def _newest_file_time(self) -> float:
        newest = 0.0
        for path in find_explogs(self.folder):
            try:
                newest = max(newest, path.stat().st_mtime)
            except OSError:
                continue
        return min(newest or time.time(), time.time())

    @property
    def problems(self) -> int:
        return len(self.log.problems) + sum(len(f.parser.problems) for f in self.followers.values())

    def about(self, obsid: int) -> dict | None:
        """What was commanded for an exposure, in short; None when the log does not have it."""
        row = next((row for row in reversed(self.log.rows[-3000:]) if row["ObsID"] == obsid), None)
        return row and {name: row.get(name) for name in ("test", "exptime", "wave", "source")}

    def table(self, after: int = 0) -> dict:
        """Rows from number `after` on, as lists in the order of the columns."""
        columns = [c for c in self.log.columns if not c.startswith("_")]
        return {
            "generation": self.generation,
            "columns": columns,
            "shown": [c for c in SHOWN if c in columns],
            "from": after,
            "rows": [[row.get(c) for c in columns] for row in self.log.rows[after:]],
        }


def _share(row: dict, before: dict) -> None:
    """Let equal values of two rows be one object: most of the 81 columns repeat, and a week of rows stays small."""
    for name, value in row.items():
        known = before.get(name)
        if type(known) is type(value) and known == value and (value != 0 or str(known) == str(value)):
            row[name] = known


def _time_of(exposure) -> datetime | None:
    try:
        return parse_stamp(str(exposure.values["date"]))
    except ValueError:
        return None


@dataclass
class SessionWatch:
    """Progress of a session against its EXP-LOGs, and the verdicts of its tests."""

    session: Path | None
    results: Path | None = None
    fault: str = ""
    progress: list[dict] = field(default_factory=list)
    wrong: dict[int, str] = field(default_factory=dict)  # OBSID -> what is wrong with its rows
    verdicts: list[dict] = field(default_factory=list)
    expected_end: str | None = None
    _plan: object = None
    _read: object = None
    _seen_logs: object = None
    _seen_verdicts: dict[str, tuple] = field(default_factory=dict)

    @property
    def unfinished(self) -> bool:
        """Whether frames are still to come, as far as known: without a session nobody knows."""
        return (
            self.session is None
            or bool(self.fault)
            or any(t["frames"] < t["declared"] for t in self.progress)
        )

    @property
    def results_root(self) -> Path | None:
        if self.results is not None:
            return self.results
        return self._plan.results.root if self._plan is not None else None

    def look(self) -> bool:
        """Look at logs and verdicts; True when something is new. Faults of the session are kept as text."""
        changed = False
        if self.session is not None:
            try:
                changed = self._look_at_logs()
            except Exception as error:  # a session that is being edited must not end the monitor
                text = (
                    str(error)
                    if getattr(error, "is_input_error", False)
                    else f"{type(error).__name__}: {error}"
                )
                changed, self.fault = text != self.fault, text[:500]
        return self._look_at_verdicts() or changed

    # ---- progress
    def _look_at_logs(self) -> bool:
        from calcamp.campaign import plan

        stamp = os.stat(self.session).st_mtime_ns
        fresh = stamp != self._read
        if fresh:
            self._read = stamp
            self._plan = plan.load([self.session], {})
            self.fault = ""
        folders = {folder: None for name in self._plan.tests for folder in self._plan.folders(name)}
        paths = [path for folder in folders for path in find_explogs(folder)]
        seen = {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in paths}
        if seen == self._seen_logs and not fresh:
            return False
        self._seen_logs = seen
        exposures = read_explog(paths).exposures() if paths else []
        self.progress, self.wrong = [], {}
        for name in self._plan.tests:
            self.progress.append(self._test(name, exposures))
        self._expect(exposures)
        return True

    def _test(self, name: str, exposures: list) -> dict:
        from calcamp.campaign import structure
        from calcamp.campaign.duration import minutes_left

        gate, declared = self._plan.gate(name), self._plan.structure(name)
        first, last = gate["obsids"] or (gate["start_obsid"] or 0, 1 << 62)
        folders = set(gate["folders"])
        mine = [
            e
            for e in exposures
            if e.test == declared["log_name"]
            and first <= e.obsid <= last
            and (str(e.folder) in folders or not folders)
        ]
        if not declared["colour_blind"]:
            waves = {c["keys"].get("wave") for c in declared["columns"]}
            mine = [e for e in mine if e.values.get("wave") in waves]
        columns = [structure.Declared(c["frames"], c["keys"]) for c in declared["columns"]]
        total = sum(c.frames for c in columns)
        found = structure.align(
            columns,
            mine,
            waived=declared["waived"],
            equipment=declared["equipment"],
            entry=gate["occurrence"],
            entries=gate["entries"],
        )
        for obsid in found.unexpected:
            self.wrong[obsid] = f"{name}: no declared frame"
        for item in found.mismatches:
            text = f"{name} column {item['column']}: {item['key']} is {item['found']}, declared {item['expected']}"
            known = self.wrong.get(item["obsid"])
            self.wrong[item["obsid"]] = f"{known}; {text}" if known and len(known) < 300 else text
        done = len(found.assignments)
        commanded = [
            {"frames": c["frames"], "keys": keys}
            for c, keys in zip(declared["columns"], declared["commanded"], strict=True)
        ]
        obsids = [mine[index].obsid for index, _, _ in found.assignments]
        return {
            "test": name,
            "frames": done,
            "declared": total,
            "wrong": len(found.unexpected) + len({m["obsid"] for m in found.mismatches}),
            "obsids": [min(obsids), max(obsids)] if obsids else None,
            "minutes_left": round(minutes_left(commanded, done), 1),
            "current": False,
        }

    def _expect(self, exposures: list) -> None:
        """Which test is being taken, and when the session should end by the acquisition's clock."""
        begun = [t for t in self.progress if t["obsids"] and t["frames"] < t["declared"]]
        if begun:
            max(begun, key=lambda t: t["obsids"][1])["current"] = True
        left = sum(t["minutes_left"] for t in self.progress)
        times = [t for t in map(_time_of, exposures[-1:]) if t]
        self.expected_end = (
            (times[0] + timedelta(minutes=left)).isoformat(timespec="minutes") if times and left else None
        )

    # ---- verdicts
    def _look_at_verdicts(self) -> bool:
        root = self.results_root
        if root is None or not root.is_dir():
            return False
        stamps: dict[str, tuple] = {}
        for folder in sorted(root.iterdir()):
            if folder.is_symlink():
                continue
            try:
                status = (folder / "verdict.json").stat()
            except OSError:
                continue
            reports = tuple(kind for kind in ("html", "pdf") if report_path(root, folder.name, kind))
            stamps[folder.name] = (status.st_mtime_ns, status.st_size, reports)
        if stamps == self._seen_verdicts:
            return False
        self._seen_verdicts = stamps
        self.verdicts = [v for v in (verdict_of(root, name) for name in stamps) if v]
        return True


def verdict_of(root: Path, test: str) -> dict | None:
    """What the page shows of a verdict; None when it cannot be read."""
    try:
        data = read_json(root / test / "verdict.json")
    except InputError:
        return None
    if not isinstance(data, dict):
        return None
    flags = [f for f in data.get("flags") or [] if isinstance(f, dict)]
    return {
        "test": test,
        "verdict": _text(data.get("verdict")),
        "status": _text(data.get("status")),
        "ended": _text(data.get("ended")),
        "flags": [{"name": _text(f.get("name")), "cause": _text(f.get("cause"))} for f in flags[:50]],
        "reports": [kind for kind in ("html", "pdf") if report_path(root, test, kind)],
    }


def _text(value) -> str | None:
    return None if value is None else str(value)[:300]


def report_path(root: Path, test: str, kind: str) -> Path | None:
    """Report of a test, None when there is none or it leads out of the results."""
    if not test or Path(test).name != test or test in (".", ".."):
        return None
    return inside(root, root / test / f"{test}_report.{kind}")


def inside(root: Path, path: Path) -> Path | None:
    """The resolved `path` when it is a regular file inside `root`, links followed; else None."""
    try:
        resolved = path.resolve(strict=True)
    except (OSError, RuntimeError, ValueError):
        return None
    return resolved if resolved.is_file() and resolved.is_relative_to(root.resolve()) else None
