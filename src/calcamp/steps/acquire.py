"""The gate of a test: find its exposures in the EXP-LOG, list them in manifest.json.

``--plan`` is the plan file of the test, written when a run starts. In aim mode the gate looks once; in
wait mode it polls until the log shows the test complete and its files are whole. It ends well with
status ``complete`` or ``incomplete``; the manifest's ``end`` says how: ``complete``, ``absent`` (aim mode),
``timeout`` (the log was silent too long), ``overtaken`` (the test broke off and others follow), ``yielded``
(nothing came, and the place is needed by a test whose data are there), ``stopped`` (calcamp stop). It fails
only for faults of the programme; exit 7 when the workflow that started it has died.

Each minute it says where it stands, in its log and in ``waiting.json`` beside the manifest, which
``calcamp status`` reads. A wrong script is told as soon as it shows.

Standard library only: a waiting gate costs a few MB and no CPU.
"""

from __future__ import annotations

import argparse
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from calcamp.campaign import acquisition
from calcamp.campaign.acquisition import Look, hk_file, incomplete_reason, look_at_log, raw_file
from calcamp.campaign.duration import minutes_left
from calcamp.data import alive
from calcamp.data.files import InputError, read_json, sha256, write_json
from calcamp.detector.geometry import CCDS
from calcamp.steps import orphan
from calcamp.steps.settling import Settling

MANIFEST_SCHEMA = 1
NOTE_S = 60.0  # between two notes of progress


def manifest_of(gate: dict, look: Look, token: str, end: str, reason: str) -> dict:
    """The manifest, checksums of the raw frames included."""
    from concurrent.futures import ThreadPoolExecutor

    exposures, paths = [], []
    for logged, column, frame in look.assigned:
        folder = logged.folder
        files = {}
        for ccd in CCDS:
            row = logged.ccds.get(ccd)
            path = raw_file(folder, str(row["File_name"])) if row else None
            files[str(ccd)] = path and _seen(path, paths)
        hk = hk_file(folder, logged.obsid)
        exposures.append(
            {
                "obsid": logged.obsid,
                "column": column,
                "frame": frame,
                "day_folder": str(folder),
                "log_row": {k: v for k, v in logged.values.items() if not k.startswith("_")},
                "hk": hk.name if hk else None,
                "hk_file": hk and _seen(hk, paths),
                "files": files,
            }
        )
    with ThreadPoolExecutor(2) as pool:  # hashing releases the interpreter lock
        for (entry, _), digest in zip(paths, pool.map(lambda item: sha256(item[1]), paths), strict=True):
            entry["sha256"] = digest
    obsids = [e["obsid"] for e in exposures]
    return {
        "schema": MANIFEST_SCHEMA,
        "test": gate["name"],
        "status": "complete" if end == "complete" else "incomplete",
        "end": end,
        "reason": reason,
        "obsids": [min(obsids), max(obsids)] if obsids else None,
        "look": token,
        "rows_logged": look.rows_logged,
        "selection": acquisition.selection(gate),
        "declared": look.alignment.declared,
        "exposures": exposures,
        "missing": look.alignment.missing,
        "unexpected": look.alignment.unexpected,
        "mismatches": look.alignment.mismatches,
        "messages": look.alignment.messages,
        "problems": look.problems,
    }


def _seen(path: Path, paths: list[tuple[dict, Path]]) -> dict:
    """What tells later whether a file is still the same; its checksum is added with those of all `paths`."""
    status = path.stat()
    entry = {"name": path.name, "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    paths.append((entry, path))
    return entry


class Watch:
    """A gate that waits: one look at the log per poll, until the test has come to one of its ends.

    Parameters
    ----------
    gate, declared : of the plan file.
    folder : of the test's results; ``waiting.json`` goes there.
    say : takes the lines for the log.
    """

    def __init__(self, gate: dict, declared: dict, folder: Path, say=print, now=time.monotonic):
        self.gate, self.declared, self.folder, self._say, self._now = gate, declared, folder, say, now
        self.note_path = folder / "waiting.json"
        self.settling = Settling(gate["settle_s"], now)
        self.look = Look(acquisition.structure.Alignment(), [], 0, [])
        self.trouble = ""  # why the log cannot be read now
        self.waiting_for: list[str] = []
        self._signature: tuple | None = None
        self._state: tuple | None = None
        self._own_grown = self._log_grown = now()
        self._cadence = 0.0  # longest time between two exposures that was seen
        self._told: set[str] = set()
        self._noted, self._noted_state = -NOTE_S, None
        self._wanted_since: float | None = None

    # ---- what was found --------------------------------------------------------------------------
    def see(self) -> None:
        """Look at the log if it changed. A log that cannot be read now leaves what was seen before."""
        try:
            signature = acquisition.signature(self.gate)
            if signature == self._signature and not self.trouble:
                return
            if not signature and self._signature:
                raise InputError("the EXP-LOG or its day-folder has gone; waiting for it to come back")
            look = look_at_log(self.gate, self.declared)
        except (OSError, InputError) as error:
            if str(error) != self.trouble:
                self._tell(str(error))
            self.trouble = str(error)
            return
        if self.trouble:
            self._tell("the EXP-LOG can be read again")
        self.trouble = ""
        now, first = self._now(), self._signature is None
        self._signature, self.look = signature, look
        state = (look.rows_logged, len(look.assigned))
        # What was there before the gate started is as old as the log, so that no new silence begins with it.
        age = (
            max(0.0, time.time() - max((s[3] for s in signature), default=0) / 1e9)
            if first and signature
            else 0.0
        )
        self._log_grown = now - min(age, 1e7)
        if state != self._state:
            if self._state and self._state[1]:
                self._cadence = max(self._cadence, now - self._own_grown)
            self._state, self._own_grown = state, self._log_grown
        for text in acquisition.wrong_exposures(look, self.declared):
            if text not in self._told:
                self._tell(f"wrong: {text}")

    def _tell(self, text: str) -> None:
        self._told.add(text.removeprefix("wrong: "))
        self._say(f"{self.gate['name']}: {text}", flush=True)

    @property
    def wrong(self) -> list[str]:
        return acquisition.wrong_exposures(self.look, self.declared)

    # ---- ends ------------------------------------------------------------------------------------
    def end(self) -> tuple[str, str] | None:
        """(end, reason) when the test has come to one, else None."""
        gate, look, now = self.gate, self.look, self._now()
        silent, frozen = now - self._log_grown, now - self._own_grown
        if look.alignment.complete and not self.trouble:
            self.waiting_for = self.settling.waiting_for(look)
            if frozen >= self._quiet_needed():
                if not self.waiting_for:
                    return "complete", ""
                if now - self.settling.changed > gate["overtaken_min"] * 60:
                    self._tell(
                        f"gone on without {len(self.waiting_for)} frames: {'; '.join(self.waiting_for[:3])}"
                    )
                    return "complete", ""
        if Path(gate["stop_file"]).exists():
            return "stopped", f"stopped by the analyst; {self._lacking()}"
        if silent > gate["timeout_h"] * 3600:
            return "timeout", f"nothing new in the log for {gate['timeout_h']:g} h; {self._lacking()}"
        if look.assigned and look.later and frozen > gate["overtaken_min"] * 60:
            return (
                "overtaken",
                f"{', '.join(look.later[:3])} came after it and no frame for {gate['overtaken_min']:g} min; "
                + self._lacking(),
            )
        if not look.assigned and self._place_is_needed(now):
            return "yielded", f"{self._lacking()}, and other tests of the session are there already"
        return None

    def _lacking(self) -> str:
        if self.trouble:
            return self.trouble
        if self.look.alignment.complete and self.waiting_for:
            return f"{len(self.waiting_for)} frames not whole: {'; '.join(self.waiting_for[:3])}"
        return incomplete_reason(self.look)

    def _quiet_needed(self) -> float:
        """Time without a new row of the test after which it has ended.

        Another test in the log ends it at once. A pause inside the test may be an abort and a new start with
        OBSIDs going on: then the number of frames passes through the right one, so wait for more than a cadence.
        """
        settle = self.gate["settle_s"]
        if self.look.later:
            return 0.0
        if acquisition.suspended(self.look, self.declared):
            return max(settle, 2.5 * self._cadence)
        return settle

    def _place_is_needed(self, now: float) -> bool:
        """Whether all places of gates are taken and this one should be given to a test that is there.

        Snakemake runs few gates at once. Of the gates whose test has not begun, the first one gives way.
        """
        waiting, starved = [], False
        for other in self.gate["others"]:
            if other["name"] == self.gate["name"]:
                waiting.append(other["name"])
                continue
            folder = self.folder.parent / other["name"]
            note = _read(folder / "waiting.json")
            if note and alive.is_running(note):
                if not note["frames"]:
                    waiting.append(other["name"])
            elif str(_read(folder / "manifest.json").get("look")) != other["look"]:
                starved |= len(self.look.tests.get(other["log_name"], ())) >= other["frames"]
        if not starved or not waiting or waiting[0] != self.gate["name"]:
            self._wanted_since = None
            return False
        if self._wanted_since is None:
            self._wanted_since = now
        return now - self._wanted_since > max(self.gate["settle_s"], 5 * self.gate["poll_s"])

    # ---- telling ---------------------------------------------------------------------------------
    def note(self) -> None:
        """Say where it stands: in waiting.json when it changed, in the log each minute."""
        look, now = self.look, self._now()
        silent = (now - self._log_grown) / 60
        state = (self._state, self.trouble, tuple(self.waiting_for), len(self._told))
        due = now - self._noted >= NOTE_S
        if state == self._noted_state and not due:
            return
        left = minutes_left(self._commanded(), len(look.assigned))
        obsids = [logged.obsid for logged, _, _ in look.assigned]
        write_json(
            self.note_path,
            {
                **alive.me(),
                "frames": len(obsids),
                "declared": look.alignment.declared or sum(c["frames"] for c in self.declared["columns"]),
                "obsids": [obsids[0], obsids[-1]] if obsids else None,
                "last_obsid": obsids[-1] if obsids else None,
                "silent_min": round(silent, 2),
                "left_min": round(left, 1),
                "wrong": self.wrong[:20],
                "trouble": self.trouble,
                "files": self.waiting_for[:20] if look.alignment.complete else [],
                "written": datetime.now(UTC).isoformat(timespec="seconds"),
            },
        )
        self._noted_state = state
        if due:
            self._noted = now
            self._say(
                f"{datetime.now(UTC):%H:%M:%S} waiting for {self.gate['name']}: {len(obsids)}/{look.alignment.declared} "
                f"frames, last OBSID {obsids[-1] if obsids else '-'}, log silent {silent:.1f} min, about {left:.0f} min left"
                + (f"; {len(self.waiting_for)} files not whole" if self.waiting_for else ""),
                flush=True,
            )

    def _commanded(self) -> list[dict]:
        return [
            {"frames": column["frames"], "keys": keys}
            for column, keys in zip(self.declared["columns"], self.declared["commanded"], strict=True)
        ]

    def wait(self, sleep=time.sleep) -> tuple[Look, str, str]:
        """Poll until the test has come to an end: (look, end, reason)."""
        self.folder.mkdir(parents=True, exist_ok=True)
        while True:
            self.see()
            found = self.end()
            self.note()
            if found:
                return self.look, *found
            sleep(self.gate["poll_s"])


def _read(path: Path) -> dict:
    try:
        return read_json(path)
    except (OSError, ValueError, InputError):
        return {}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m calcamp.steps.acquire", description=__doc__.split("\n")[0]
    )
    parser.add_argument(
        "--plan", required=True, type=Path, help="plan file of the test (config/plan/<TEST>.json)"
    )
    parser.add_argument("--look", default="0", help="counter that the workflow raises to look again")
    parser.add_argument("--into", required=True, type=Path, help="manifest.json to write")
    args = parser.parse_args(argv)
    if argv is None:
        orphan.end_with_the_workflow()
    plan = read_json(args.plan)
    gate, declared = plan["gate"], plan["structure"]
    folder = args.into.parent
    try:
        if gate["mode"] == "wait":
            look, end, reason = Watch(gate, declared, folder).wait()
        else:
            look = look_at_log(gate, declared)
            complete = look.alignment.complete
            end, reason = ("complete", "") if complete else ("absent", incomplete_reason(look))
    except InputError as error:
        print(f"calcamp: {error}", file=sys.stderr)
        return 2
    folder.mkdir(parents=True, exist_ok=True)
    write_json(args.into, manifest_of(gate, look, args.look, end, reason))
    (folder / "waiting.json").unlink(missing_ok=True)
    print(f"{gate['name']}: {end} {reason}".rstrip())
    return 0


if __name__ == "__main__":
    sys.exit(main())
