"""The meaning of a session: which sub-tasks run, on what, with which options, limits and products.

`load` is all that the Snakefile calls. Everything that a rule needs to know comes from `Plan`; rule
files only build names. Standard library and pydantic: the Snakefile is parsed by every job.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from calcamp.campaign.core import CampaignError, Subtask, Test, find_test
from calcamp.campaign.structure import expected_keys
from calcamp.config import lookup
from calcamp.config.errors import ConfigError, ConfigErrors, raise_all
from calcamp.config.products import pick_product
from calcamp.config.shape import translate
from calcamp.config.yamlfile import Document, read_yaml
from calcamp.data.files import InputError, read_json, sha256
from calcamp.detector.geometry import CCDS, Detector
from calcamp.paths import Results, workflow_root

#: A pattern that matches no test: the constraint of a family that the session does not use.
NOTHING = r"(?!)"
#: Sub-tasks that every test gets.
ALWAYS = ("hk", "check")


class PlanError(CampaignError):
    """The session asks for something that cannot be; the text names it and says what to do."""

    is_input_error = True


class OptionErrors(ConfigErrors):
    """Faults of the options of sub-tasks, each at its key of the session."""


def runnable_families() -> set[str]:
    """Families that have a rule file: only their tests can be analysed."""
    return {path.stem for path in (workflow_root() / "rules").glob("*.smk")}


@dataclass(frozen=True)
class PlannedTest:
    """One entry of the session."""

    name: str  # as in the YAML, e.g. BIAS02.2
    test: Test
    occurrence: int  # this is the k-th entry of the test in the session ...
    entries: int  # ... of so many
    asked: tuple[str, ...]  # sub-tasks named in `do`, in the test's order
    subtasks: tuple[str, ...]  # asked ones and those they read, in the test's order
    entry: object = field(repr=False)  # the session's own entry

    def planned(self) -> list[Subtask]:
        return [self.test.subtask(name) for name in self.subtasks]


def split_name(name: str) -> tuple[str, int | None]:
    """``BIAS02.2`` -> (``BIAS02``, 2); a name without a tag has None."""
    match = re.fullmatch(r"(.+?)\.(\d+)", name)
    return (match[1], int(match[2])) if match else (name, None)


def _with_needed(test: Test, asked: list[str]) -> list[str]:
    """`asked` and everything it reads, in the order in which the test declares its sub-tasks."""
    wanted, todo = set(), list(asked) + [n for n in ALWAYS if any(s.name == n for s in test.subtasks)]
    while todo:
        name = todo.pop()
        if name not in wanted:
            wanted.add(name)
            todo.extend(test.subtask(name).after)
    return [s.name for s in test.subtasks if s.name in wanted]


def _asked(test: Test, do, check_only: bool) -> list[str]:
    if check_only:
        names = [s.name for s in test.subtasks if s.name in ("check", "lock")]
    elif do == "all":
        names = [s.name for s in test.subtasks if s.production]
    else:
        chosen = {test.subtask(name).name for name in do}
        names = [s.name for s in test.subtasks if s.name in chosen]
    return names


class Plan:
    """What will run in a session.

    Parameters
    ----------
    session, block, chamber, detector, limits
        Loaded by `calcamp.config.lookup`.
    """

    def __init__(self, session, block, chamber, detector: Detector, limits):
        self.session, self.block, self.chamber, self.detector, self.limits = (
            session,
            block,
            chamber,
            detector,
            limits,
        )
        self.results = Results(_from_here(session.results_root), session.session)
        self.tests: dict[str, PlannedTest] = {}
        can_run = runnable_families()
        names = [split_name(name)[0] for name in session.tests]
        seen: dict[str, int] = {}
        faults = []
        for name, entry in session.tests.items():
            base = split_name(name)[0]
            try:
                test = find_test(base)
                if test.family not in can_run:
                    raise CampaignError(f"{base} has no analysis in this version of calcamp; take it out")
                asked = _asked(test, entry.do, session.check_only)
            except CampaignError as error:
                faults.append(session.error(("tests", name), str(error)))
                continue
            seen[base] = seen.get(base, 0) + 1
            needed = tuple(_with_needed(test, asked))
            self.tests[name] = PlannedTest(
                name, test, seen[base], names.count(base), tuple(asked), needed, entry
            )
            for place, step in (
                (("options",), lambda n=name: self._refuse_wrong_options(n)),
                (("options",), lambda n=name: self._refuse_stray_options(n)),
                (("limits",), lambda n=name: self.hk_limits(n)),
                ((), lambda n=name: self.columns(n)),
                ((), lambda n=name: self._refuse_absent_products(n)),
            ):
                try:
                    step()
                except Exception as error:
                    if not getattr(error, "is_input_error", False) and not isinstance(error, CampaignError):
                        raise
                    own_place = isinstance(error, OptionErrors)
                    faults.append(error if own_place else session.error(("tests", name, *place), str(error)))
                    if place == ("options",):
                        break  # later steps read the options and would tell the same again
        raise_all(faults)

    def _refuse_wrong_options(self, name: str) -> None:
        faults = []
        for subtask in dict.fromkeys((*self.tests[name].subtasks, "prep")):
            try:
                self.options(name, subtask)
            except OptionErrors as error:
                faults.append(error)
        if faults:
            raise OptionErrors(faults)

    def _refuse_stray_options(self, name: str) -> None:
        planned = self.tests[name]
        for subtask in planned.entry.options:
            if planned.test.subtask(subtask).name not in (*planned.subtasks, "prep"):
                raise PlanError(
                    f"options are given for {subtask}, which is not among the sub-tasks asked for"
                )

    def _refuse_absent_products(self, name: str) -> None:
        for subtask in self.tests[name].subtasks:
            for ccd in CCDS if self.tests[name].test.subtask(subtask).scope == "ccd" else (None,):
                for kind, path in self._product_files(name, subtask, ccd).items():
                    if isinstance(path, str) and not Path(path).is_file():
                        raise PlanError(
                            f"{kind} product not found: {path}; correct the path in the block or session YAML"
                        )

    # ---- what the rules ask ----------------------------------------------------------------------
    def pattern(self, family: str | None = None, subtask: str | None = None) -> str:
        """Regular expression of the test names of a family that run `subtask`: the wildcard constraint."""
        names = [
            re.escape(p.name)
            for p in self.tests.values()
            if (family is None or p.test.family == family) and (subtask is None or subtask in p.subtasks)
        ]
        return "|".join(names) or NOTHING

    def families(self) -> list[str]:
        """Families of the session: the rule files that it needs."""
        return sorted({p.test.family for p in self.tests.values()})

    def family(self, name: str) -> str:
        return self.tests[name].test.family

    def priority(self, name: str) -> int:
        """Of the work of a test: by the session's `priority` first, then in the order of the session.

        Rules add their kind: checks of all tests come before other work, and reports before more of it.
        """
        return 10_000 * self.tests[name].entry.priority - 10 * list(self.tests).index(name)

    def gate_priority(self, name: str) -> int:
        """Gates start in the order of the session."""
        return 10**9 - list(self.tests).index(name)

    def after(self, name: str, subtask: str, ccd: str | None) -> list[str]:
        """Records that `subtask` reads."""
        return [
            path
            for needed in self.tests[name].test.subtask(subtask).after
            for path in self._records(name, needed, ccd)
        ]

    def _records(self, name: str, subtask: str, ccd: str | int | None = None) -> list[str]:
        """Records of a sub-task: of one CCD, or of all when `ccd` is None."""
        if self.tests[name].test.subtask(subtask).scope == "block":
            return [str(self.results.record(name, subtask, None))]
        return [str(self.results.record(name, subtask, n)) for n in ((int(ccd),) if ccd else CCDS)]

    def records(self, name: str) -> list[str]:
        """Records of all sub-tasks of a test: what its verdict reads."""
        return [path for subtask in self.tests[name].subtasks for path in self._records(name, subtask)]

    def resource(self, name: str, subtask: str, key: str) -> int:
        """``mem_mb`` or ``runtime_min`` that a cluster is asked for; the time grows with the frames of the test."""
        declared = self.tests[name].test.subtask(subtask)
        if key == "runtime_min":
            frames = sum(column.frames for column in self.columns(name))
            return declared.runtime_min + math.ceil(frames * declared.frame_s / 60)
        return getattr(declared, key)

    def options(self, name: str, subtask: str) -> dict:
        """Options of a sub-task, complete and checked; `OptionErrors` otherwise."""
        from pydantic import ValidationError

        planned = self.tests[name]
        declared = (
            planned.test.subtask(subtask) if any(s.name == subtask for s in planned.test.subtasks) else None
        )
        if declared is None:
            return {}
        given, place = {}, subtask
        for key, value in planned.entry.options.items():
            if planned.test.subtask(key).name == declared.name:
                given, place = value, key
        try:
            return declared.options.model_validate(given).model_dump()
        except ValidationError as error:
            faults = translate(error, declared.options, given, Document(given))
        has_some = bool(declared.options.model_fields)
        raise OptionErrors(
            self.session.error(
                ("tests", name, "options", place, *((fault.key,) if fault.key else ())),
                fault.message,
                fault.remedy if has_some else f"{subtask} has no options",
            )
            for fault in faults
        )

    def columns(self, name: str) -> list:
        """Declared columns of a test, evaluated against the chamber."""
        return self.tests[name].test.columns(self.chamber)

    def _product_files(self, name: str, subtask: str, ccd: int | None) -> dict:
        """Products named for a sub-task: kind -> path (or numbers) of this CCD."""
        planned = self.tests[name]
        prep = self.options(name, "prep")
        # Prepared pixels do not depend on the gain: only rule prep, which writes it into headers, has it as input.
        prepared = {need.kind for s in _prep_of(planned.test) for need in s.needs} - {"gain"}
        needs = prepared | {need.kind for need in planned.test.subtask(subtask).needs}
        # A product whose use is switched off is no input: another one of it re-runs nothing.
        switches = {"mask": "use_mask", "dq": "use_mask", "bias": "use_bias", "flat": "use_flat"}
        needs -= {kind for kind, switch in switches.items() if not prep.get(switch, True)}
        named = self.session.product_paths(name, self.block)
        chosen = {
            kind: pick_product(named.get(kind), ccd=ccd, wavelength=planned.test.wavelength)
            for kind in sorted(needs)
        }
        return {kind: value for kind, value in chosen.items() if value is not None}

    def products(self, name: str, subtask: str, ccd: int | None) -> dict:
        """Calibration products of a sub-task: kind -> {path, sha256} or {numbers}, those of this CCD."""
        return {
            kind: {"path": value, "sha256": self._checksum(value)}
            if isinstance(value, str)
            else {"numbers": value}
            for kind, value in self._product_files(name, subtask, ccd).items()
        }

    def _checksum(self, path: str) -> str:
        if path not in self._checksums:
            self._checksums[path] = sha256(path)
        return self._checksums[path]

    @cached_property
    def _checksums(self) -> dict[str, str]:
        return {}

    def job(self, name: str, subtask: str, ccd: str | int | None = None) -> str:
        """All that decides the result of a sub-task, as JSON: the parameters of its rule.

        Nothing else is in it: no paths of results, no mode, no time-outs, so changing those re-runs nothing.
        """
        planned = self.tests[name]
        declared = planned.test.subtask(subtask)
        ccd = int(ccd) if ccd else None
        job = {
            "version": declared.version,
            "detector": self.detector.as_dict(),
            "block": self.block.block,
            "chamber": self.chamber.chamber,
            "serial": self.serial(ccd),
            "options": self.options(name, subtask),
            "prep_options": self.options(name, "prep") if declared.name not in ALWAYS else {},
            "products": self.products(name, subtask, ccd) if declared.needs else {},
            # Rule check waits for nothing, so nothing that went wrong elsewhere may keep it from running.
            "after": [] if subtask == "check" else list(declared.after),
        }
        if declared.chamber_data is not None:
            job["chamber_data"] = declared.chamber_data(planned.test, self.chamber, self.detector)
        if subtask == "check":
            job["exclude"] = self.exclusions(name, ccd)
            job["shutter_closed"] = {
                n: not c.keys.get("shuttr", 1) for n, c in enumerate(self.columns(name), 1)
            }
        if subtask == "hk":
            job["commanded"] = {key: limit.commanded for key, limit in self.hk_limits(name).items()}
        if planned.test.clocks and declared.name not in (*ALWAYS, "prep"):
            job["clocks"] = self.clocks.table(planned.test.clocks).as_dict()
        return json.dumps(job, sort_keys=True, separators=(",", ":"))

    @cached_property
    def clocks(self):
        """Clock tables of trap pumping: those of the workspace, else the standard ones."""
        return lookup.load_clocks("default", self.session.folder)

    def serial(self, ccd: int | None) -> str | None:
        return self.block.serials[f"ccd{ccd}"] if ccd else None

    def equipment(self) -> dict[str, str]:
        """Serials as the EXP-LOG should show them."""
        return {f"sn_{key}": value for key, value in self.block.known_serials().items()}

    def exclusions(self, name: str, ccd: int | None = None) -> list[dict]:
        """Frames left out by hand: [{obsid, ccd, quadrant, cause}], those of `ccd` when given."""
        return [
            {"obsid": e.obsid, "ccd": e.ccd, "quadrant": e.quadrant, "cause": e.cause}
            for e in self.tests[name].entry.exclusions()
            if ccd is None or e.ccd in (None, ccd)
        ]

    # ---- state on disk that decides a re-run -----------------------------------------------------
    def attempt(self, name: str, subtask: str, ccd: str | int | None = None) -> str:
        """Counter in the parameters of a rule: one more after a crash, so the next run tries it again."""
        record = self.results.record(name, subtask, int(ccd) if ccd else None)
        try:
            state = read_json(record)
        except (OSError, ValueError, InputError):
            return "0"
        attempt = str(state.get("attempt", "0"))
        return str(int(attempt) + 1) if state.get("status") == "crashed" else attempt

    def look(self, name: str) -> str:
        """Counter of the gate: one more when the next run should look at the data again.

        That is when the session asks for other exposures, when the test was incomplete and the EXP-LOG has other rows
        of it now, when house-keeping that was missing is there, or when the content of a raw or house-keeping file is
        not what the manifest says (size and time first, then the checksum).
        """
        try:
            manifest = read_json(self.results.manifest(name))
        except (OSError, ValueError, InputError):
            return "0"
        look = str(manifest.get("look", "0"))
        return str(int(look) + 1) if self._stale(name, manifest) else look

    def _stale(self, name: str, manifest: dict) -> bool:
        from calcamp.campaign.acquisition import hk_file

        if manifest["status"] != "complete":
            if self.rows_logged(name) != manifest.get("rows_logged"):
                return True
            if manifest.get("end") == "yielded" and self.session.mode == "wait":
                return True  # it gave its place to another test: wait for it again
        if self._chooses_others(name, manifest):
            return True
        for exposure in manifest["exposures"]:
            if not exposure["hk"] and hk_file(Path(exposure["day_folder"]), exposure["obsid"]):
                return True  # the house-keeping came late
            for entry in (*exposure["files"].values(), exposure.get("hk_file")):
                if not entry:
                    continue
                path = Path(exposure["day_folder"]) / entry["name"]
                try:
                    status = path.stat()
                except OSError:
                    continue  # raw data moved away or on another disk: the results stay valid
                if status.st_size != entry["size"]:
                    return True
                if status.st_mtime_ns != entry["mtime_ns"] and sha256(path) != entry["sha256"]:
                    return True
        return False

    def _chooses_others(self, name: str, manifest: dict) -> bool:
        """Whether the session now asks for other exposures than those of the manifest.

        Another day-folder, other OBSID limits or another entry of the test do not matter when they lead to the same
        exposures: limits may be written down after they were found.
        """
        from calcamp.campaign import acquisition

        before = manifest.get("selection")
        where = self._where(name)
        if before is None or before == acquisition.selection(where):
            return False
        try:
            look = acquisition.look_at_log(where, self.structure(name))
        except (OSError, InputError):
            return True  # the gate says what is wrong
        now = [
            (logged.obsid, Path(logged.folder).name, column, frame) for logged, column, frame in look.assigned
        ]
        return now != [
            (e["obsid"], Path(e["day_folder"]).name, e["column"], e["frame"]) for e in manifest["exposures"]
        ]

    def folders(self, name: str) -> list[Path]:
        """Day-folders that hold (or will hold) a test's data."""
        return self.session.data_folders(name)

    def rows_logged(self, name: str) -> int:
        """Number of lines of the EXP-LOGs that name the test: cheap, for telling whether to look again."""
        from calcamp.data.explog import count_rows, find_explogs

        return sum(
            count_rows(p, self.tests[name].test.log_name) for f in self.folders(name) for p in find_explogs(f)
        )

    # ---- plan files: what the gate, the judge and the report read ---------------------------------
    def structure(self, name: str) -> dict:
        """Declared structure of a test as plain data."""
        test = self.tests[name].test
        columns = self.columns(name)
        return {
            "log_name": test.log_name,
            "columns": [{"frames": c.frames, "keys": expected_keys(c, test)} for c in columns],
            "waived": list(test.waived),
            "colour_blind": test.colour_blind,
            "equipment": self.equipment(),
            "commanded": [dict(c.keys) for c in columns],
        }

    def limits_of(self, name: str) -> dict:
        """Effective limits of a test: of the test as a whole, of single columns where they differ, of house-keeping."""
        planned = self.tests[name]
        columns = self.columns(name)
        common = {
            "warm": self.limits.is_warm(planned.test.name),
            "block_overrides": self.block.limits,
            "session_overrides": planned.entry.limits,
            "block": self.block.block,
        }
        modes = [c.keys.get("rdmode", "fwd_bas") for c in columns]
        whole = self.limits.resolve(
            planned.test.name, rdmode=modes[0] if len(set(modes)) == 1 else None, **common
        )
        by_column = {}
        for number, mode in enumerate(modes, 1):
            own = self.limits.resolve(planned.test.name, rdmode=mode, column=number, **common)
            # None says that a limit of the test does not hold in this column.
            by_column[str(number)] = {
                **{key: limit.as_dict() for key, limit in own.items() if limit != whole.get(key)},
                **{key: None for key in whole if key not in own},
            }
        return {
            "limits": {key: limit.as_dict() for key, limit in whole.items()},
            "column_limits": {number: own for number, own in by_column.items() if own},
            "hk_limits": {key: limit.as_dict() for key, limit in self.hk_limits(name).items()},
        }

    def gain_numbers(self, name: str) -> dict | None:
        """Gains written as numbers in a YAML file, by CCD and quadrant; None where a product file holds them."""
        value = self.session.product_paths(name, self.block).get("gain")
        if not isinstance(value, dict) or not all(isinstance(value.get(ccd), dict) for ccd in CCDS):
            return None
        return {str(ccd): value[ccd] for ccd in CCDS}

    def _gain_product(self, name: str) -> dict | None:
        """The file that holds the gains, with its checksum; None without one."""
        path = pick_product(
            self.session.product_paths(name, self.block).get("gain"),
            ccd=None,
            wavelength=self.tests[name].test.wavelength,
        )
        return {"path": path, "sha256": self._checksum(path)} if isinstance(path, str) else None

    def hk_limits(self, name: str) -> dict:
        """House-keeping limits of a test that are checked in tests, by key."""
        planned = self.tests[name]
        limits = self.limits.hk_limits(
            planned.test.name, block_overrides=self.block.limits, session_overrides=planned.entry.limits
        )
        return {key: limit for key, limit in limits.items() if limit.in_tests}

    def judging(self, name: str) -> dict:
        """All that the verdict needs besides tables: changing it re-judges and re-measures nothing."""
        planned = self.tests[name]
        return {
            "test": planned.test.name,
            "name": name,
            "family": planned.test.family,
            "title": planned.test.title,
            "purpose": planned.test.purpose,
            "wavelength": planned.test.wavelength,
            "warm": self.limits.is_warm(planned.test.name),
            "session": self.session.session,
            "block": self.block.block,
            "chamber": self.chamber.chamber,
            "elvis": self.session.elvis,
            "serials": self.block.serials,
            "filled_in_by": self.session.filled_in_by,
            "offsets": {
                f"{ccd}{quadrant}": value for (ccd, quadrant), value in self.block.expected_offsets().items()
            },
            "subtasks": list(planned.subtasks),
            "asked": list(planned.asked),
            "options": {s: self.options(name, s) for s in dict.fromkeys((*planned.subtasks, "prep"))},
            "excluded": self.exclusions(name),
            **self.limits_of(name),
            **{f"limits_{key}": value for key, value in self.limits.identity().items()},
            "gains": self.gain_numbers(name),
            "gain_product": self._gain_product(name),
            "chamber_data": planned.test.chamber_data(planned.test, self.chamber, self.detector)
            if planned.test.chamber_data
            else {},
            "hk_calibration": {key: line.model_dump() for key, line in self.block.hk_calibration.items()},
            "detector": self.detector.as_dict(),
            "structure": {k: v for k, v in self.structure(name).items() if k != "commanded"},
        }

    def judging_digest(self, name: str) -> str:
        text = json.dumps(self.judging(name), sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def plan_path(self, name: str) -> Path:
        return self.results.root / "config" / "plan" / f"{name}.json"

    def write_run(self, runner: dict | None = None) -> None:
        """Before the first job of a run: plan files, and a copy of the configuration as used.

        `runner` says who runs it (`calcamp.data.alive.me`).
        """
        import shutil
        from datetime import UTC, datetime

        from calcamp.data.files import write_json

        self.refuse_absent_data()
        stamp = datetime.now(UTC).strftime("%Y%m%d_%H%M%S")
        copies = self.results.root / "config" / stamp
        copies.mkdir(parents=True, exist_ok=True)
        for item in (self.session, self.block, self.chamber, self.limits):
            shutil.copy2(item.file, copies / f"{type(item).__name__.lower()}_{item.file.name}")
        for name in self.tests:
            path = self.plan_path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(
                path,
                {"judging": self.judging(name), "structure": self.structure(name), "gate": self.gate(name)},
            )
        write_json(
            self.results.root / "config" / "run.json",
            {
                "pipeline_id": f"FM{stamp}",
                "started": datetime.now(UTC).isoformat(timespec="seconds"),
                **(runner or {}),
                "session": self.session.session,
                "session_file": str(self.session.file),
                "block": self.block.block,
                "chamber": self.chamber.chamber,
                "mode": self.session.mode,
                "tests": list(self.tests),
                "configuration": stamp,
            },
        )
        (self.results.root / "STOP").unlink(missing_ok=True)

    def end_run(self, status: str) -> None:
        """After the last job of a run: note that it ended, and how."""
        from datetime import UTC, datetime

        from calcamp.data.files import write_json

        path = self.results.root / "config" / "run.json"
        if path.is_file():
            ended = datetime.now(UTC).isoformat(timespec="seconds")
            write_json(path, {**read_json(path), "ended": ended, "status": status})

    def gate(self, name: str) -> dict:
        """What the gate needs to find the test in the EXP-LOG."""
        wait = self.session.wait
        return {
            "test": self.tests[name].test.name,
            "name": name,
            "mode": self.session.mode,
            **self._where(name),
            "poll_s": wait.poll_s,
            "timeout_h": wait.timeout_h,
            "settle_s": wait.settle_s,
            "overtaken_min": wait.overtaken_min,
            "others": self.gates,
            "stop_file": str(self.results.root / "STOP"),
        }

    def _where(self, name: str) -> dict:
        """Which exposures of the EXP-LOGs are the test's."""
        planned = self.tests[name]
        return {
            "folders": [str(folder) for folder in self.folders(name)],
            "obsids": list(planned.entry.obsids) if planned.entry.obsids else None,
            "start_obsid": self.session.start_obsid(name),
            "occurrence": planned.occurrence,
            "entries": planned.entries,
        }

    @cached_property
    def gates(self) -> list[dict]:
        """All gates of the session in their order: a gate that waits in vain gives its place to another."""
        return [
            {
                "name": name,
                "log_name": item.test.log_name,
                "frames": sum(c.frames for c in self.columns(name)),
                "look": self.look(name),
            }
            for name, item in self.tests.items()
        ]

    def refuse_absent_data(self) -> None:
        """In aim mode, day-folders that do not exist and OBSID limits without data are errors."""
        if self.session.mode != "aim":
            return
        problems = []
        for folder in sorted({f for name in self.tests for f in self.folders(name)}):
            if not folder.is_dir():
                problems.append(
                    f"{self.session.file}: data: day-folder {folder} does not exist; correct data.root or data.day_folders, or use mode: wait"
                )
        if not problems:
            from calcamp.data.explog import find_explogs, read_explog

            logs: dict[tuple, object] = {}
            for name in self.tests:
                if not self.tests[name].entry.obsids:
                    continue
                folders = tuple(self.folders(name))
                if folders not in logs:
                    logs[folders] = (
                        read_explog([p for f in folders for p in find_explogs(f)])
                        if any(find_explogs(f) for f in folders)
                        else None
                    )
                first, last = self.tests[name].entry.obsids
                log, wanted = logs[folders], self.tests[name].test.log_name
                if log is None or not any(
                    first <= r["ObsID"] <= last and r["test"] == wanted for r in log.rows
                ):
                    problems.append(
                        f"{self.session.file}: tests.{name}.obsids: the EXP-LOG of {', '.join(map(str, folders))} has no exposure of "
                        f"{wanted} from {first} to {last}; correct the limits or leave them out"
                    )
        if problems:
            raise PlanError("\n".join(problems))


def _from_here(path: Path) -> Path:
    """`path` relative to the working folder when it lies inside: a workspace that is moved stays as it was done."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _prep_of(test: Test) -> list[Subtask]:
    return [s for s in test.subtasks if s.name == "prep"]


def _unknown_tests(path: Path, told: set[str]) -> list[ConfigError]:
    """Test names that lead nowhere in a file that is wrong elsewhere too; keys in `told` have their fault already."""
    try:
        document = read_yaml(path, keep_faults=True)
    except ConfigError:
        return []
    tests = document.data.get("tests") if isinstance(document.data, dict) else None
    faults = []
    for name in tests if isinstance(tests, dict) else ():
        try:
            find_test(split_name(str(name))[0])
        except CampaignError as error:
            if f"tests.{name}" not in told:
                faults.append(ConfigError(path, document.line(("tests", name)), f"tests.{name}", str(error)))
    return faults


def load(configfiles, overrides: dict | None = None) -> Plan:
    """Plan of the session file given to Snakemake or to a command.

    Parameters
    ----------
    configfiles : list of path
        One session file.
    overrides : dict
        Values of ``--config``; they win over the file.
    """
    if len(configfiles) != 1:
        what = "none was given" if not configfiles else f"{len(configfiles)} were given"
        raise PlanError(
            f"one session file is needed, {what}: add --configfile config/sessions/<SESSION>.yaml"
        )
    path = Path(configfiles[0])
    try:
        found = lookup.load_all(path, overrides or {})
    except ConfigError as error:
        faults = [*error.errors, *_unknown_tests(path, {e.key for e in error.errors})]
        raise_all(sorted(faults, key=lambda e: (e.file != str(path), e.line or 0)))
    return Plan(found.session, found.block, found.chamber, found.detector, found.limits)
