"""Write the record of a sub-task that did not end: called by the rule's shell when the step fails.

It runs after any end that is not 0, a kill by the system included, so that the verdict and the report
of the test are made and say SUBTASKCRASH. It exits 0; rule ``conclude`` makes the run fail at the end.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from calcamp.data.files import read_json, write_json


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m calcamp.steps.crashed", description=__doc__)
    parser.add_argument("--into", required=True, type=Path)
    parser.add_argument("--manifest", required=True, type=Path)
    parser.add_argument("--log", required=True, type=Path)
    parser.add_argument("--status", default="1", help="exit status of the step")
    parser.add_argument("--attempt", default="0")
    parser.add_argument("--ccd", type=int)
    args = parser.parse_args(argv)
    note = args.into.parent / f"{args.into.name}.crash.json"
    if note.is_file():
        crash = read_json(note)
        note.unlink()
    else:
        status = int(args.status)
        ended = f"killed by signal {status - 128}" if status > 128 else f"ended with exit status {status}"
        lines = args.log.read_text(errors="replace").splitlines() if args.log.is_file() else []
        crash = {"obsid": None, "error": ended, "traceback": lines[-12:]}
    args.into.mkdir(parents=True, exist_ok=True)
    subtask = args.into.name
    write_json(
        args.into / f"{subtask}.json",
        {
            "schema": 1,
            "test": read_json(args.manifest)["test"],
            "subtask": subtask,
            "ccd": args.ccd,
            "attempt": args.attempt,
            "status": "crashed",
            "reason": crash["error"],
            "crash": crash,
            "minutes": 0.0,
        },
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
