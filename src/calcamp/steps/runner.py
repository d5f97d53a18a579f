"""What every step shares: arguments, the context given to a task, the record that ends it.

A step is one process: one sub-task of one test on one CCD (or on the block). It reads the manifest
and the raw frames, calls `calcamp.analysis`, writes tables and products to ``DIR.part``, renames it
to ``DIR`` and last writes ``DIR/<subtask>.json``: the record, which the rule declares as its output.

Bad data are not failures: they become flags, NaN and a report that says so. A fault of the programme
is named with the exposure that was being read and ends the step with exit 1; `calcamp.steps.crashed`
then writes a record that says so, and the rest of the session goes on.

Standard library only until a task runs.
"""

from __future__ import annotations

import argparse
import errno
import json
import math
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from calcamp.data.files import InputError, read_json, sha256, write_json
from calcamp.detector.geometry import QUADRANTS, Detector
from calcamp.steps import orphan

RECORD_SCHEMA = 1


@dataclass(frozen=True)
class Exposure:
    """One exposure of the test, as the manifest lists it."""

    obsid: int
    column: int
    frame: int
    folder: Path
    values: dict  # the EXP-LOG row, by column name
    hk: str | None  # house-keeping file, relative to `folder`
    files: dict[int, dict]  # ccd -> {name, size, sha256}; a CCD without a file is absent


@dataclass
class Context:
    """What a task gets: the test, its exposures, its options, and the ways to leave results.

    Attributes
    ----------
    test, subtask, family, block, serial : str
    ccd : int or None
        None for a sub-task of the whole block.
    detector : Detector
    options : dict
        Options of this sub-task, complete (defaults filled in).
    prep_options : dict
        Options of image preparation of this test, used by `prepared`.
    products : dict
        Calibration products named for this test: kind -> {"path", "sha256", ...}.
    exposures : list of Exposure
        All that were found, in order of acquisition.
    into : Path
        The part folder that tables and products go to.
    """

    test: str
    subtask: str
    family: str
    ccd: int | None
    detector: Detector
    options: dict
    prep_options: dict
    products: dict
    exposures: list[Exposure]
    folder: Path  # final place of the results of this sub-task
    into: Path
    job: dict
    manifest: dict
    current: int | None = None  # OBSID being read: named if the step crashes
    tables: list[dict] = field(default_factory=list)
    made: list[dict] = field(default_factory=list)
    flags: list[dict] = field(default_factory=list)
    excluded: list[dict] = field(default_factory=list)
    notes: dict = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    _cache: dict = field(default_factory=dict)

    @property
    def block(self) -> str:
        return self.job.get("block", "UNKNOWN")

    @property
    def serial(self) -> str:
        """Serial number of this CCD from the block YAML."""
        return self.job.get("serial") or "unknown"

    # ---- reading ---------------------------------------------------------------------------------
    def sibling(self, subtask: str, ccd: int | None = None) -> Path:
        """Folder of another sub-task of this test on the same CCD (or on `ccd`)."""
        if ccd is None:
            return self.folder.parent / subtask
        return self.folder.parent.parent / f"ccd{ccd}" / subtask

    def rows(self, subtask: str, subject: str, ccd: int | None = None) -> list[dict]:
        """Rows of a table that another sub-task wrote, NaN as None; empty when it has none."""
        from calcamp.data.tables import table_rows

        path = self.sibling(subtask, ccd) / f"{subject}.ecsv"
        return table_rows(path) if path.is_file() else []

    def selection(self) -> dict[tuple[int, str], str]:
        """(obsid, quadrant) -> cause, for the frames that `check` or the analyst left out."""
        if "selection" not in self._cache:
            self._cache["selection"] = {
                (row["obsid"], row["quadrant"]): row["cause"] or "left out"
                for row in self.rows("check", "selection")
                if not row["use"]
            }
        return self._cache["selection"]

    def used(self, quadrant: str, column: int | None = None) -> list[Exposure]:
        """Exposures whose `quadrant` may be measured, optionally of one column."""
        out = self.selection()
        return [
            e
            for e in self.exposures
            if (e.obsid, quadrant) not in out and (column is None or e.column == column)
        ]

    def readable(self) -> list[Exposure]:
        """Exposures of which at least one quadrant may be measured."""
        out = self.selection()
        return [e for e in self.exposures if any((e.obsid, q) not in out for q in QUADRANTS)]

    def read(self, exposure: Exposure, ccd: int | None = None, whole: bool = True, out=None):
        """Raw frame of `exposure`: `calcamp.data.raw.Raw` (data uint16, stored orientation; header).

        Without `whole`, only the parts that are sliced from its data are read (`calcamp.data.raw.open_raw`). `out` is
        an array of a frame that may be used for the data.

        Raises `calcamp.data.raw.RawError` when the file is missing, truncated or of another shape.
        """
        from calcamp.data.raw import RawError, find_raw, open_raw, read_raw

        ccd = self.ccd if ccd is None else ccd
        self.current = exposure.obsid
        known = exposure.files.get(ccd)
        if known is None:
            raise RawError("missing", f"OBSID {exposure.obsid} CCD{ccd}: no FITS file")
        path = exposure.folder / known["name"]
        if not path.is_file():
            path = find_raw(exposure.folder, Path(known["name"]).name.split(".fits")[0]) or path
        return read_raw(path, self.detector, out=out) if whole else open_raw(path, self.detector)

    def product(self, kind: str) -> dict | None:
        """The calibration product of a kind named for this test, None when none is."""
        return self.products.get(kind)

    def dq_plane(self):
        """Data-quality plane of this CCD from the mask and DQ products named, or None.

        uint32, stored orientation, shape of a frame. The serial was compared with the block YAML's.
        """
        if "dq" not in self._cache:
            from calcamp.data.products import load_mask

            plane = None
            for kind in ("mask", "dq"):
                product = self.product(kind)
                if product and self.prep_options.get("use_mask", True):
                    bits, _ = load_mask(Path(product["path"]), self.detector, serial=self.serial)
                    plane = bits if plane is None else plane | bits
            self._cache["dq"] = plane
        return self._cache["dq"]

    def plane(self, kind: str):
        """Master bias or flat of this CCD as `calcamp.analysis.prepare.Plane`, or None when none is named."""
        if kind not in self._cache:
            from calcamp.analysis.prepare import Plane
            from calcamp.data.products import load_image_product

            product = self.product(kind)
            if product is None or not self.prep_options.get(f"use_{kind}", True):
                self._cache[kind] = None
            else:
                path = Path(product["path"])
                made = load_image_product(kind, path, self.detector, self.serial, self.ccd)
                method, _, scan = made.info.offset.partition(" ")
                self._cache[kind] = Plane(
                    made.data, made.error, made.dq, method or None, scan or None, path.name
                )
        return self._cache[kind]

    def calibration(self, vstart: int, vend: int):
        """What all frames of this CCD share in their preparation, worked out once."""
        if ("calibration", vstart, vend) not in self._cache:
            from calcamp.analysis.prepare import calibration

            self._cache["calibration", vstart, vend] = calibration(
                self.detector,
                dq=self.dq_plane(),
                bias=self.plane("bias"),
                flat=self.plane("flat"),
                vstart=vstart,
                vend=vend,
            )
        return self._cache["calibration", vstart, vend]

    def gains(self, ccd: int | None = None) -> dict[str, tuple[float, float | None, bool]]:
        """quadrant -> (gain e-/ADU, its error, nominal?) of this CCD (or of `ccd`, in a sub-task of the block).

        Without a measured gain the detector's nominal one, with ``nominal`` True: results say so.
        """
        ccd = self.ccd if ccd is None else ccd
        product = self.products.get("gain")
        if product and self.ccd is None and "numbers" in product:
            # A sub-task of the block is given those of all CCDs.
            own = product["numbers"].get(str(ccd))
            product = {"path": own} if isinstance(own, str) else own and {"numbers": own}
        if product:
            if "numbers" in product:
                return {q: (product["numbers"][q], None, False) for q in QUADRANTS}
            from calcamp.data.products import load_gain

            table = load_gain(Path(product["path"]))
            found = {q: table[(ccd, q)] for q in QUADRANTS if (ccd, q) in table}
            if len(found) == len(QUADRANTS):
                return {q: (gain, err, False) for q, (gain, err) in found.items()}
        return dict.fromkeys(QUADRANTS, (self.detector.nominal_gain, None, True))

    def temperature(self, exposures: Iterable[Exposure]) -> tuple[float, float]:
        """Mean temperature of this CCD over exposures and half the range, K; NaN without house-keeping."""
        from calcamp.data.hk import read_hk

        values, keys = [], (f"CCD{self.ccd}_TEMP_T", f"CCD{self.ccd}_TEMP_B")
        for exposure in exposures:
            if exposure.hk:
                try:
                    found = read_hk(exposure.folder / exposure.hk, only=keys).summary(keys)
                except InputError:  # missing or damaged: sub-task hk says so
                    continue
                values += [s.mean + 273.15 for s in found.values() if math.isfinite(s.mean)]
        if not values:
            return math.nan, math.nan
        return sum(values) / len(values), 0.5 * (max(values) - min(values))

    def prepared(
        self,
        exposure: Exposure,
        ccd: int | None = None,
        quadrants=QUADRANTS,
        in_place: bool = False,
        room: int = 0,
        on_demand: bool = False,
    ):
        """Prepared image of `exposure` (`calcamp.analysis.prepare.Prepared`), as rule `prep` would write it.

        With `in_place` the arrays of the last frame of the same `room` are used again: for loops that keep no frame
        (or few, each in a room of its own), a third faster. With `on_demand` pixels stay raw until they are looked
        at: for stacks of frames.
        """
        from calcamp.analysis.prepare import prepare

        vstart = int(exposure.values.get("vstart") or 0)
        vend = int(exposure.values.get("vend") or self.detector.commanded_rows)
        # nothing of the raw frame is kept, but for data on demand
        raw = self.read(exposure, ccd, out=None if on_demand else self._room("raw"))
        own = {"out": self._room("frame", room), "dq_out": self._room("dq", room)} if in_place else {}
        return prepare(
            raw.data,
            self.detector,
            self.prep_options,
            vstart=vstart,
            vend=vend,
            calibration=self.calibration(vstart, vend),
            quadrants=quadrants,
            on_demand=on_demand,
            **own,
        )

    def _room(self, kind: str, number: int = 0):
        """An array for one frame, made once: float32 ``frame``, uint32 ``dq``, uint16 ``raw``."""
        if (kind, number) not in self._cache:
            import numpy as np

            dtype = {"frame": np.float32, "dq": np.uint32, "raw": np.uint16}[kind]
            self._cache[kind, number] = np.empty(self.detector.ccd_shape, dtype)
        return self._cache[kind, number]

    # ---- leaving results -------------------------------------------------------------------------
    def write_table(
        self,
        subject: str,
        columns: dict,
        units: dict | None = None,
        descriptions: dict | None = None,
        meta: dict | None = None,
    ) -> None:
        """Write ``<subject>.ecsv``: a long table, keys first."""
        from calcamp.data.tables import write_table

        name = f"{subject}.ecsv"
        write_table(
            self.into / name, columns, units=units or {}, meta=meta or {}, descriptions=descriptions or {}
        )
        self.tables.append({"subject": subject, "file": name})

    def write_product(
        self,
        kind: str,
        name: str,
        images: Iterable,
        header: dict | None = None,
        fits_tables: list | None = None,
        **keys,
    ) -> None:
        """Write ``products/<name>`` (FITS) with provenance; `kind` and `keys` let others find it.

        `images` gives (EXTNAME, array in stored orientation, unit, extra header cards) one after the other, `fits_tables`
        one of (EXTNAME, columns, units).
        """
        from calcamp.data.fitsfile import write_product
        from calcamp.data.products import provenance

        prep = self.prep_options
        cards = provenance(
            session=self.job.get("session", ""),
            block=self.block,
            chamber=self.job.get("chamber", ""),
            test=self.test,
            obsids=[e.obsid for e in self.exposures],
            ccd=self.ccd,
            serial=self.serial,
            inputs={Path(p["path"]).name: p["sha256"] for p in self.products.values() if "path" in p},
            subtask=self.subtask,
            offset=f"{prep.get('offset', '')} {prep.get('scan', '')}".strip(),
        ) | (header or {})
        folder = self.into / "products"
        folder.mkdir(exist_ok=True)
        write_product(folder / name, cards, images, fits_tables or [])
        self.made.append(
            {"kind": kind, "file": f"products/{name}", "ccd": self.ccd, "serial": self.serial, **keys}
        )

    def flag(self, name: str, cause: str, **scope) -> None:
        """Raise a flag with its cause; scope as ccd, quadrant, column, obsid."""
        if self.ccd is not None:
            scope.setdefault("ccd", self.ccd)
        self.flags.append({"name": name, "cause": cause, "scope": scope})

    def exclude(self, obsid: int, cause: str, quadrant: str | None = None, by: str = "rule") -> None:
        """Note that a frame, or one quadrant of it, was left out, and why."""
        self.excluded.append(
            {"obsid": obsid, "ccd": self.ccd, "quadrant": quadrant, "cause": cause, "by": by}
        )

    def progress(self, done: int, total: int) -> None:
        """One line in the step's log."""
        print(
            f"{self.test} {self.subtask}{f' CCD{self.ccd}' if self.ccd else ''}: {done}/{total}", flush=True
        )


Task = Callable[[Context], None]


def load_exposures(manifest: dict, folders: Iterable[str] = ()) -> Iterator[Exposure]:
    """Exposures of a manifest, in order.

    `folders` are the day-folders as the session has them now: where the data have been moved since the manifest was
    written, the one of the same name is taken. Without any the frames are out of reach, which says nothing about
    them: `InputError`, so that the next run tries again.
    """
    present = {Path(folder).name: Path(folder) for folder in folders}
    found: dict[str, Path] = {}
    for item in manifest["exposures"]:
        named = item["day_folder"]
        if named not in found:
            found[named] = Path(named) if Path(named).is_dir() else present.get(Path(named).name, Path(named))
            if not found[named].is_dir():
                raise InputError(
                    f"the day-folder of OBSID {item['obsid']} is not there",
                    file=named,
                    expected="the folder of the raw frames",
                    remedy="Mount it, or correct data.root in the session, and run again",
                )
        yield Exposure(
            obsid=item["obsid"],
            column=item["column"],
            frame=item["frame"],
            folder=found[named],
            values=item["log_row"],
            hk=item.get("hk"),
            files={int(ccd): entry for ccd, entry in item.get("files", {}).items() if entry},
        )


def arguments(argv: list[str], family: str, names) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m calcamp.steps.{family}",
        description="One sub-task of one test. Rules call it; it runs by hand too.",
    )
    parser.add_argument("subtask", choices=sorted(names))
    parser.add_argument("--manifest", required=True, type=Path, help="manifest.json of the test")
    parser.add_argument(
        "--ccd", type=int, choices=(1, 2, 3), help="CCD; left out for a sub-task of the block"
    )
    parser.add_argument(
        "--options", required=True, help="JSON (or @file) made by the plan: options, detector, products"
    )
    parser.add_argument("--into", required=True, type=Path, help="folder of the results")
    parser.add_argument("--attempt", default="0", help="counter that the workflow raises after a crash")
    return parser.parse_args(argv)


def run(family: str, tasks: dict[str, Task], argv: list[str] | None = None) -> int:
    """Run one task of a family from the command line; the ``main`` of every step module."""
    args = arguments(sys.argv[1:] if argv is None else argv, family, tasks)
    if argv is None:
        orphan.end_with_the_workflow()
    text = Path(args.options[1:]).read_text() if args.options.startswith("@") else args.options
    return execute(
        family,
        args.subtask,
        tasks[args.subtask],
        args.manifest,
        args.ccd,
        json.loads(text),
        args.into,
        args.attempt,
    )


def _folders(manifest_path: Path) -> list[str]:
    """Day-folders of the test in this run, from its plan file; none when a step is run by hand without one."""
    folder = manifest_path.absolute().parent
    try:
        return read_json(folder.parent / "config" / "plan" / f"{folder.name}.json")["gate"]["folders"]
    except (OSError, ValueError, KeyError, InputError):
        return []


def execute(family, subtask, task, manifest_path, ccd, job, into, attempt="0") -> int:
    """Run `task` and write its record. Returns the exit status."""
    started = time.time()
    manifest = read_json(manifest_path)
    crash_note = into.parent / f"{into.name}.crash.json"
    crash_note.unlink(missing_ok=True)
    # Tables of an earlier run must not be taken for those of this one should it crash or be skipped.
    shutil.rmtree(into, ignore_errors=True)
    base = {
        "schema": RECORD_SCHEMA,
        "test": manifest["test"],
        "subtask": subtask,
        "ccd": ccd,
        "attempt": attempt,
        "job": job,
    }
    missing = _unusable(into, job.get("after", []))
    if missing:
        into.mkdir(parents=True, exist_ok=True)
        write_json(into / f"{subtask}.json", {**base, "status": "skipped", "reason": missing, "minutes": 0.0})
        return 0
    part = into.parent / f"{into.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    ctx = Context(
        test=manifest["test"],
        subtask=subtask,
        family=family,
        ccd=ccd,
        detector=Detector.from_dict(job["detector"]),
        options=job.get("options", {}),
        prep_options=job.get("prep_options", {}),
        products=job.get("products", {}),
        exposures=[],
        folder=into,
        into=part,
        job=job,
        manifest=manifest,
    )
    try:
        ctx.exposures = list(load_exposures(manifest, _folders(manifest_path)))
        task(ctx)
    except Exception as error:
        if getattr(error, "is_input_error", False):
            # A product of the wrong serial or shape: the message is all that a person needs.
            detail, tail = str(error), ""
        else:
            detail, tail = f"{type(error).__name__}: {error}{_space(error, into)}", traceback.format_exc()
        where = f" while reading OBSID {ctx.current}" if ctx.current is not None else ""
        print(
            f"{tail}{manifest['test']} {subtask}{f' CCD{ccd}' if ccd else ''} crashed{where}: {detail}",
            file=sys.stderr,
        )
        write_json(crash_note, {"obsid": ctx.current, "error": detail, "traceback": tail.splitlines()[-12:]})
        shutil.rmtree(part, ignore_errors=True)
        return 1
    files = {str(p.relative_to(part)): sha256(p) for p in sorted(part.rglob("*")) if p.is_file()}
    _swap(part, into)
    write_json(
        into / f"{subtask}.json",
        {
            **base,
            "status": "done",
            "reason": "",
            "calcamp_version": _version(),
            "minutes": (time.time() - started) / 60,
            "peak_mb": _peak_mb(),
            "files": files,
            "tables": ctx.tables,
            "products": ctx.made,
            "flags": ctx.flags,
            "excluded": ctx.excluded,
            "notes": ctx.notes,
            "inputs": {
                **{p["path"]: p.get("sha256") for p in ctx.products.values() if "path" in p},
                **ctx.inputs,
            },
        },
    )
    return 0


def _space(error: Exception, folder: Path) -> str:
    """What is left of a full disk, for the message."""
    if not isinstance(error, OSError) or error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return ""
    try:
        return f" ({shutil.disk_usage(folder.parent).free / 1e6:.1f} MB free for {folder.parent}; make room and run again)"
    except OSError:
        return ""


def _peak_mb() -> float | None:
    """Largest memory that this process had, MB; Snakemake's benchmarks look too seldom to see a short peak."""
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return None
    return round(int(text.split("VmHWM:")[1].split()[0]) / 1024, 1)


def _version() -> str:
    from calcamp import __version__

    return __version__


def _unusable(into: Path, after: list[str]) -> str:
    """Why this sub-task cannot run: an earlier one that it reads did not succeed."""
    for name in after:
        for record in (
            into.parent / name / f"{name}.json",
            into.parent.parent / "block" / name / f"{name}.json",
        ):
            if record.is_file():
                status = read_json(record).get("status")
                if status != "done":
                    return f"{name} {status}"
    return ""


def _swap(part: Path, final: Path) -> None:
    """Put `part` in the place of `final`; a reader never sees a mixture."""
    old = final.parent / f"{final.name}.old"
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        os.replace(final, old)
    os.replace(part, final)
    shutil.rmtree(old, ignore_errors=True)
