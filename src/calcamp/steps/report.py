"""The report of one test: figures, HTML and PDF, from its results folder alone."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from calcamp.steps import orphan


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m calcamp.steps.report", description=__doc__)
    parser.add_argument("--folder", required=True, type=Path, help="results folder of the test")
    args = parser.parse_args(argv)
    if argv is None:
        orphan.end_with_the_workflow()
    import gc

    from calcamp.report.build import build_report

    gc.disable()  # figures leave many cycles behind; the process ends before they matter

    build_report(args.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
