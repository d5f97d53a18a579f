"""The summary of a session (JSON, HTML, PDF), its readable log and its page, from the results on disk."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m calcamp.steps.summary", description=__doc__)
    parser.add_argument("--results", required=True, type=Path, help="results folder of the session")
    parser.add_argument(
        "--ended-with-errors", action="store_true", help="the run failed: say which tests are not there"
    )
    parser.add_argument(
        "--session-report", action="store_true", help="only the page of the whole session, from summary.json"
    )
    args = parser.parse_args(argv)
    from calcamp.data.files import read_json
    from calcamp.report.session import write_session_report

    if args.session_report:
        write_session_report(args.results, read_json(args.results / "summary.json"))
        return 0
    from calcamp.report.summary import write_summary

    os.nice(10)  # made beside the last report, which is waited for
    summary = write_summary(args.results, failed=args.ended_with_errors)
    if args.ended_with_errors:
        write_session_report(args.results, summary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
