"""The summary of a session (JSON, HTML, PDF) and its readable log, from the verdicts on disk."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m calcamp.steps.summary", description=__doc__)
    parser.add_argument("--results", required=True, type=Path, help="results folder of the session")
    parser.add_argument(
        "--ended-with-errors", action="store_true", help="the run failed: say which tests are not there"
    )
    args = parser.parse_args(argv)
    from calcamp.data.files import read_json
    from calcamp.report.session import write_session_report
    from calcamp.report.summary import write_summary

    run = args.results / "config" / "run.json"
    pipeline_id = read_json(run)["pipeline_id"] if run.is_file() else None
    summary = write_summary(args.results, failed=args.ended_with_errors, pipeline_id=pipeline_id)
    write_session_report(args.results, summary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
