"""Summary of a session (JSON, HTML, PDF) and its readable log, from verdicts and records on disk."""

from __future__ import annotations

import platform
import re
import textwrap
from datetime import UTC, datetime
from pathlib import Path

from calcamp.data import alive
from calcamp.data.files import read_json, write_atomic, write_json
from calcamp.report import custodian
from calcamp.report.base import BAD_STATES, as_dict, as_list, is_number, scope_text

SUMMARY_SCHEMA = 1
_RULE = "#" * 70


def write_summary(
    results: Path | str,
    *,
    failed: bool = False,
    planned: list[str] | None = None,
    pipeline_id: str | None = None,
    pdf: bool = True,
    now: datetime | None = None,
) -> dict:
    """Write ``summary.json``, ``summary.html``, ``summary.pdf`` and ``<pipeline id>_<session>.log``.

    Parameters
    ----------
    results : results folder of one session; each sub-folder with a manifest or verdict is a test
    failed : the run ended with errors: tests planned but without verdict are named as not executed. Of a run without
        errors the reports are named that are still being made.
    planned : tests of the session in order; default those with a plan file in ``config/plan/``
    pipeline_id : default that of the last run in ``config/run.json``, or ``FM<YYYYMMDD_HHMMSS>`` of the first start that
        a verdict holds
    pdf : False leaves out the PDF
    now : time of writing (UTC), for tests

    Returns
    -------
    The content of summary.json.
    """
    from calcamp.report.pdf import PdfProcess

    root = Path(results)
    now = now or datetime.now(UTC)
    process = PdfProcess() if pdf else None  # gets ready meanwhile
    try:
        summary = collect(root, failed, planned, pipeline_id, now)
        html = _html(summary)
        if process is not None:
            # Links to files are relative in the HTML; in the PDF they would become paths of this machine.
            process.lay_out(re.sub(r'<a class="file" href="[^"]*">(.*?)</a>', r"\1", html), root)
        write_json(root / "summary.json", summary)
        write_atomic(root / "summary.html", html)
        log = root / f"{_safe(summary['pipeline_id'])}_{_safe(summary['session'])}.log"
        write_atomic(log, log_text(summary, root, now))
        if process is not None:
            _pdf(process, root, summary)
    finally:
        if process is not None:
            process.close()
    return summary


def _safe(name) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", str(name))


# ---- what is known ------------------------------------------------------------------------------------
def collect(
    root: Path, failed: bool, planned: list[str] | None, pipeline_id: str | None, now: datetime
) -> dict:
    """Everything that the summary says, as plain data."""
    planned = planned if planned is not None else [p.stem for p in _plans(root)]
    found = sorted(
        p.name for p in root.iterdir() if (p / "verdict.json").is_file() or (p / "manifest.json").is_file()
    )
    names = list(dict.fromkeys([*planned, *found]))
    run = _read(root / "config" / "run.json")
    verdicts = {name: _read(root / name / "verdict.json") for name in names}
    tests = [_test(root, name, verdicts[name], failed) for name in names]
    words = [t["verdict"] or "not judged" for t in tests]
    first = next((v for v in verdicts.values() if v), {})
    starts = sorted(str(v["started"]) for v in verdicts.values() if v.get("started"))
    ends = sorted(str(v["ended"]) for v in verdicts.values() if v.get("ended"))
    return {
        "schema": SUMMARY_SCHEMA,
        "session": str(first.get("session") or root.name),
        "pipeline_id": pipeline_id or str(run.get("pipeline_id") or _pipeline_id(starts, now)),
        "block": first.get("block"),
        "chamber": first.get("chamber"),
        "elvis": first.get("elvis"),
        "calcamp_version": _version(),
        "configuration": _configuration(root, run),
        "host": platform.node(),
        "user": alive.me()["user"],
        "started": starts[0] if starts else None,
        "ended": ends[-1] if ends else None,
        "written": now.isoformat(timespec="seconds"),
        "minutes": round(sum(t["minutes"] for t in tests if is_number(t["minutes"])), 2),
        "ended_with_errors": bool(failed or any(t["errors"] for t in tests)),
        "counts": {word: words.count(word) for word in dict.fromkeys(words)},
        "tests": tests,
        "custodian": custodian.proposals(
            root, verdicts, {p.stem: as_dict(_read(p).get("judging")) for p in _plans(root)}
        ),
    }


def _plans(root: Path) -> list[Path]:
    return sorted((root / "config" / "plan").glob("*.json"))


def _read(path: Path) -> dict:
    """A verdict or manifest, empty when it is not there or damaged: the summary goes on."""
    try:
        return as_dict(read_json(path))
    except Exception:
        return {}


def _version() -> str:
    from calcamp import __version__

    return __version__


def _pipeline_id(starts: list[str], now: datetime) -> str:
    stamp = now
    for text in starts[:1]:
        try:
            stamp = datetime.fromisoformat(text)
        except ValueError:
            continue
    return f"FM{stamp:%Y%m%d_%H%M%S}"


def _configuration(root: Path, run: dict) -> list[dict]:
    """The configuration as used by the last run, with checksums."""
    from calcamp.data.files import sha256

    folder = root / "config" / str(run.get("configuration") or "")
    return [
        {"file": str(path.relative_to(root)), "sha256": sha256(path)}
        for path in sorted(folder.glob("*.yaml"))
    ]


def _test(root: Path, name: str, verdict: dict, failed: bool) -> dict:
    manifest = _read(root / name / "manifest.json")
    folder = root / name
    subtasks = {k: as_dict(v) for k, v in as_dict(verdict.get("subtasks")).items()}
    minutes = [s["minutes"] for s in subtasks.values() if is_number(s.get("minutes"))]
    crashed = [k for k, s in subtasks.items() if s.get("status") in BAD_STATES]
    flags = [f if isinstance(f, dict) else {"name": str(f)} for f in as_list(verdict.get("flags"))]
    obsids = as_list(verdict.get("obsids")) or as_list(manifest.get("obsids"))
    return {
        "test": name,
        "executed": bool(verdict),
        "reason": "" if verdict else str(manifest.get("reason") or "no verdict was written"),
        "status": verdict.get("status") or manifest.get("status") or "not executed",
        "verdict": verdict.get("verdict"),
        "minutes": round(sum(minutes), 2) if minutes else None,
        "peak_memory_mb": _peak_memory(folder),
        "obsids": [obsids[0], obsids[-1]] if obsids else [-1, -1],
        "frames": as_dict(verdict.get("frames")),
        "flags": [
            {
                "name": str(f.get("name")),
                "cause": str(f.get("cause") or ""),
                "where": scope_text(f.get("scope")),
            }
            for f in flags
        ],
        "failed_cells": sum(as_dict(c).get("ok") is False for c in as_list(verdict.get("compliance"))),
        "subtasks": [
            {"name": k, "status": s.get("status"), "minutes": s.get("minutes")} for k, s in subtasks.items()
        ],
        "errors": bool(crashed or any(f.get("name") == "SUBTASKCRASH" for f in flags)),
        "report": _there(folder, f"{_safe(name)}_report.pdf", coming=bool(verdict) and not failed),
        "html": _there(folder, f"{_safe(name)}_report.html", coming=bool(verdict) and not failed),
        "results": _there(folder, "verdict.json"),
    }


def _there(folder: Path, file: str, coming: bool = False) -> str | None:
    return f"{folder.name}/{file}" if coming or (folder / file).is_file() else None


def _peak_memory(folder: Path) -> float | None:
    """Largest memory of a process of the test, MB, from the records of its sub-tasks."""
    records = [_read(path) for path in folder.glob("*/*/*.json") if path.stem == path.parent.name]
    return max((r["peak_mb"] for r in records if is_number(r.get("peak_mb"))), default=None)


# ---- log ----------------------------------------------------------------------------------------------
class _Log:
    """Records of the old form: time, level, message wrapped at 80 columns, a blank line after each."""

    def __init__(self, now: datetime):
        self.lines: list[str] = []
        self.stamp = f"{now:%Y-%m-%d %H:%M:%S},{now.microsecond // 1000:03d}"

    def add(self, *messages: str, level: str = "INFO", when: str = "") -> None:
        first = True
        for message in messages:
            for line in textwrap.wrap(
                _one_line(message), 80, subsequent_indent="  ", break_long_words=False
            ) or [""]:
                self.lines.append(f"{when or self.stamp} - {level} - {line}" if first else line)
                first = False
        self.lines.append("")

    def text(self) -> str:
        return "\n".join(self.lines) + "\n"


def _one_line(text) -> str:
    """Control characters of data must not forge log lines."""
    return "".join(c if c.isprintable() else " " for c in str(text))


def log_text(summary: dict, root: Path, now: datetime) -> str:
    """The whole readable log: banner, one part per test, closing summary."""
    log = _Log(now)
    log.add("_", "Starting FM Calib. Pipeline", *_header(summary))
    log.add(f"Results will be saved in: {root.name}")
    for test in summary["tests"]:
        _log_test(
            log,
            test,
            _read(root / test["test"] / "verdict.json"),
            _read(root / test["test"] / "manifest.json"),
        )
    log.add(*closing(summary), level="WARNING" if summary["ended_with_errors"] else "INFO")
    return log.text()


def _header(summary: dict) -> list[str]:
    return [
        f"Pipeline ID: {summary['pipeline_id']}",
        f"BLOCK ID: {summary['block']}",
        f"Chamber: {summary['chamber']}",
        f"calcamp version: {summary['calcamp_version']}",
        f"Tasks: {[t['test'] for t in summary['tests']]}",
    ]


def _log_test(log: _Log, test: dict, verdict: dict, manifest: dict) -> None:
    name = test["test"]
    when = _log_time(verdict.get("started"))
    if not test["executed"]:
        log.add(f"Task {name} was not executed: {test['reason']}", level="WARNING")
        return
    options = [
        f"{k}.{j} = {w}" for k, v in as_dict(verdict.get("options")).items() for j, w in as_dict(v).items()
    ]
    log.add(f"Running Task: {name}", "Inputs:", *options, when=when)
    consistent = manifest.get("status") == "complete" and not as_list(manifest.get("mismatches"))
    messages = [
        f"{m.get('obsid')}: {m.get('key')} expected {m.get('expected')}, found {m.get('found')}"
        for m in map(as_dict, as_list(manifest.get("mismatches")))
    ]
    log.add(
        f"{name} acquisition consistent with expectations: {consistent}",
        *(
            [
                f"failed columns: {sorted({str(as_dict(m).get('column')) for m in as_list(manifest.get('missing'))})}"
            ]
            if manifest.get("missing")
            else []
        ),
        *(
            [
                f"failed keys: {sorted({str(as_dict(m).get('key')) for m in as_list(manifest.get('mismatches'))})}"
            ]
            if messages
            else []
        ),
        *messages[:40],
        level="INFO" if consistent else "WARNING",
        when=when,
    )
    for subtask in test["subtasks"]:
        minutes = subtask["minutes"] if is_number(subtask["minutes"]) else 0.0
        bad = subtask["status"] in BAD_STATES
        log.add(
            f"Executing {subtask['name']}: calcamp.steps",
            f"{minutes:.1f} minutes in running Sub-task: {subtask['name']}",
            when=when,
        )
        if bad:
            log.add(f'SUBTASK "{subtask["name"]}" FAILED', level="ERROR", when=when)
    _log_compliance(log, verdict, when)
    for flag in test["flags"]:
        where = f" ({flag['where']})" if flag["where"] else ""
        log.add(f"FLAG {flag['name']}: {flag['cause']}{where}", level="WARNING", when=when)
    end = _log_time(verdict.get("ended"))
    log.add(f"Finished {name}", when=end)
    log.add(
        f"{_minutes(test)} minutes in running Task: {name}",
        f"Task {name} exited with Errors: {test['errors']}",
        when=end,
    )


def _log_compliance(log: _Log, verdict: dict, when: str) -> None:
    cells = [c for c in as_list(verdict.get("compliance")) if isinstance(c, dict)]
    hk = [c for c in cells if str(c.get("check", "")).lower().startswith("hk")]
    for title, words in (("HK-Performance", ("command", "perf")), ("HK-Safe", ("safe",))):
        part = [c for c in hk if any(w in str(c.get("check")).lower() for w in words)]
        if part:
            bad = sorted(
                {str(c.get("key") or as_dict(c.get("cell")).get("key")) for c in part if c.get("ok") is False}
            )
            log.add(
                f"{title}, Parameters not passing Tests:",
                ", ".join(bad) or "ALL PASSED",
                level="WARNING" if bad else "INFO",
                when=when,
            )
    for check in dict.fromkeys(str(c.get("check")) for c in cells if c not in hk):
        part = [c for c in cells if str(c.get("check")) == check]
        bad = [c for c in part if c.get("ok") is False]
        lines = [_cell_line(c) for c in bad[:20]]
        log.add(
            f"Compliance {check}: {len(part) - len(bad)} of {len(part)} not failing",
            *lines,
            level="WARNING" if bad else "INFO",
            when=when,
        )


def _cell_line(cell: dict) -> str:
    values = {"check", "ok", "value", "err", "low", "high", "obsids", "unit", "n"}
    keys = " ".join(
        f"{k}={v}"
        for k, v in {**as_dict(cell.get("cell")), **cell}.items()
        if k not in values | {"cell"} and v is not None
    )
    return f"{keys}: {cell.get('value')} not in {cell.get('low')}..{cell.get('high')}, OBSIDs {as_list(cell.get('obsids'))[:10]}"


def _log_time(text) -> str:
    try:
        stamp = datetime.fromisoformat(str(text))
    except ValueError:
        return ""
    return f"{stamp:%Y-%m-%d %H:%M:%S},{stamp.microsecond // 1000:03d}"


def _minutes(test: dict) -> str:
    return f"{test['minutes']:.1f}" if is_number(test["minutes"]) else "?"


def closing(summary: dict) -> list[str]:
    """The closing summary, framed by rulers, a few lines per test."""
    lines = ["_", "_", "_", "_", _RULE, *_header(summary)]
    lines += [
        f"Start, end (UTC): {summary['started']}, {summary['ended']}",
        f"Total: {summary['minutes']:.1f} minutes",
        f"Host, user: {summary['host']}, {summary['user']}",
        *[f"Configuration: {c['file']} sha256 {c['sha256']}" for c in summary["configuration"]],
    ]
    for test in summary["tests"]:
        lines += ["_", test["test"]]
        if not test["executed"]:
            lines.append(f"Not executed: {test['reason']}")
            continue
        frames = test["frames"]
        lines += [
            f"Executed in {_minutes(test)} minutes",
            f"OBSIDs range = [{test['obsids'][0]}, {test['obsids'][1]}]",
            f"Frames used/found/declared = {frames.get('used')}/{frames.get('found')}/{frames.get('declared')}",
            f"Raised Flags = {[f['name'] for f in test['flags']]}",
            f"Verdict = {test['verdict']}",
            f"Report = {test['report']}; results = {test['results']}",
        ]
        if test["errors"]:
            lines.append("Executed with ERROR(s)")
    proposed = custodian.lines(summary.get("custodian") or [])
    if proposed:
        lines += ["_", "For the custodian of the chamber profile:", *proposed]
    return [*lines, "_", "_", "_", "_", _RULE]


# ---- pages --------------------------------------------------------------------------------------------
def _html(summary: dict) -> str:
    from calcamp.report.build import environment

    date = summary["written"][:10]
    return (
        environment()
        .get_template("summary.html.j2")
        .render(
            s=summary,
            title=f"Session {summary['session']} summary",
            description="calcamp summary of a session",
            author="calcamp",
            created=date,
            version=summary["calcamp_version"],
            draft=False,
            running={
                "test": f"VIS calibration campaign: session {summary['session']}, block {summary['block']}",
                "reference": date,
                "foot": f"{summary['pipeline_id']}, made with calcamp {summary['calcamp_version']}",
            },
            counters=None,
            ccds=(1, 2, 3),
            beam_rows=(("E", "F"), ("H", "G")),
            state={"pass": "pass", "go": "pass", "fail": "fail", "no_go": "fail"},
        )
    )


def _pdf(process, root: Path, summary: dict) -> None:
    """The page laid out by `process`, or a plain one that says why not."""
    from calcamp.report.pdf import PdfError, plain_pdf

    try:
        process.finish(root / "summary.pdf")
    except PdfError as error:
        plain_pdf(
            [f"NOTE: the laid-out PDF could not be made ({error}).", "", *closing(summary)],
            root / "summary.pdf",
        )
