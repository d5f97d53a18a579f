"""What single parts cost that every job, every page or every script pays: seconds beside what they may take."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parents[1]

#: Modules of data that need the standard library only.
STANDARD = ("elvis", "explog", "files", "follow", "hk", "names")
IMPORT = "import time; t = time.process_time(); import calcamp.data.{}; print(time.process_time() - t)"
SESSION = "import sys; from calcamp.config.lookup import load_all; load_all(sys.argv[1])"


def best(repeats: int, work: Callable[[], object]) -> float:
    """Seconds of the fastest of some runs, as other work of the machine disturbs the clock."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def imports() -> float:
    """CPU seconds of the slowest of the modules that gates and Snakefile import, in a fresh process each."""

    def one(module: str) -> float:
        return float(subprocess.check_output([sys.executable, "-c", IMPORT.format(module)], text=True))

    return max(min(one(module) for _ in range(5)) for module in STANDARD)


def session() -> float:
    command = [sys.executable, "-c", SESSION, str(ROOT / "config" / "sessions" / "example.yaml")]
    return best(5, lambda: subprocess.run(command, check=True))


def log(folder: Path) -> float:
    """2000 exposures of three CCDs from disk."""
    from calcamp.data import elvis
    from calcamp.data.explog import ExpLogWriter, read_explog
    from calcamp.data.names import explog_name, format_stamp, raw_stem

    begun, path, rows = datetime(2019, 3, 12), folder / explog_name(date(2019, 3, 12)), []
    row = {
        name: elvis.SCRIPT_DEFAULTS.get(name, {int: 0, float: 0.0, str: "x"}[kind])
        for name, kind in elvis.EXPLOG_TYPES.items()
    }
    for obsid in range(2000):
        taken = begun + timedelta(seconds=40 * obsid)
        for ccd in (1, 2, 3):
            changes = {
                "File_name": raw_stem(obsid, taken, ccd),
                "CCD": f"CCD{ccd}",
                "date": format_stamp(taken),
            }
            rows.append(row | changes | {"ObsID": obsid, "test": "BIAS01"})
    ExpLogWriter(path).write(*rows)
    return best(3, lambda: read_explog(path).exposures())


def alignment() -> float:
    """2000 logged frames against the 109 columns of a test of 327 frames, run after run."""
    from calcamp.campaign.structure import align, declare

    columns = [
        {"frames": 3, "keys": {"test": "NL02", "exptime": 0.1 * n, "wave": 4 + n % 3}} for n in range(109)
    ]
    declared, logged = declare(columns), []
    while len(logged) < 2000:
        for column in declared:
            for _ in range(column.frames):
                ccds = dict.fromkeys((1, 2, 3), column.values)
                logged.append(SimpleNamespace(obsid=len(logged), values=column.values, ccds=ccds))
    return best(3, lambda: align(declared, logged[:2000]))


def scripts(folder: Path) -> float:
    """The scripts of a whole campaign: 29 handles, 56 workbooks, inventory and check sums."""
    from calcamp.campaign.catalogue import FULL, expand
    from calcamp.campaign.scripts import prepare, write
    from calcamp.config.lookup import load_chamber

    equipment = {"operator": "unk", "sn_roe": "FM15", "sn_rpsu": "FM15"}
    equipment |= {f"sn_ccd{ccd}": f"14888-88-8{ccd}" for ccd in (1, 2, 3)}
    ready = prepare(
        [item for handle in FULL for item in expand(handle)], load_chamber("B_NOSTROMO"), equipment
    )
    return best(1, lambda: write(ready, folder / "scripts", datetime(2019, 4, 1)))


def frame(folder: Path) -> float:
    """A raw frame of full size, checked, into memory."""
    import numpy as np

    from calcamp.data.raw import read_raw, write_raw
    from calcamp.detector.geometry import Detector

    detector = Detector("ccd273")
    path = write_raw(
        folder / "EUC_1_120319D071130T_ROE1_CCD1.fits", np.full(detector.ccd_shape, 2500, np.uint16), {}
    )
    return best(8, lambda: read_raw(path, detector))


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [
            ("import of a module of data that a gate needs, CPU", imports(), 0.030),
            ("session, block, chamber and limits in a fresh process", session(), 0.35),
            ("EXP-LOG of 2000 exposures", log(folder), 0.5),
            ("alignment of 2000 frames with 109 columns", alignment(), 0.5),
            ("scripts of a whole campaign, 56 workbooks", scripts(folder), 5.0),
            ("a raw frame of full size into memory", frame(folder), 0.05),
        ]
    lines = [
        "| part | s | limit |",
        "|---|---|---|",
        *(f"| {what} | {s:.3f} | {limit} |" for what, s, limit in rows),
    ]
    text = "\n".join([*lines, ""])
    (ROOT / "bench").mkdir(exist_ok=True)
    (ROOT / "bench" / "parts.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
