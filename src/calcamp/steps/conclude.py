"""The last word on a test: exit 1 when one of its sub-tasks crashed, after its report was made."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from calcamp.data.files import read_json, write_atomic


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m calcamp.steps.conclude", description=__doc__)
    parser.add_argument("--verdict", required=True, type=Path)
    parser.add_argument("--into", required=True, type=Path)
    args = parser.parse_args(argv)
    verdict = read_json(args.verdict)
    crashes = [flag for flag in verdict["flags"] if flag["name"] == "SUBTASKCRASH"]
    for flag in crashes:
        print(f"{verdict['test']}: {flag['cause']}", file=sys.stderr)
    if crashes:
        print(f"the report says so: {verdict['report']}; the next run tries just that again", file=sys.stderr)
        return 1
    write_atomic(args.into, f"{verdict['verdict']}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
