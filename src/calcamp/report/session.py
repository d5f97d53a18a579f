"""The session report: one HTML file with every test's verdict, numbers and figures, that opens without a network.

Figures are inside the file; PDF reports are linked beside it, as they are too large to be in it.
"""

from __future__ import annotations

import base64
import math
from pathlib import Path

from calcamp.data.files import read_json, write_atomic
from calcamp.report.base import as_dict, as_list, is_number, named_key, pretty_unit, title

MAX_FIGURES = 40  # of a test
MAX_BYTES = 3_000_000  # of a figure; larger ones are in the PDF
_KEYS = (
    "value",
    "err",
    "unit",
    "n",
    "ccd",
    "quadrant",
    "quantity",
    "is_limit",
    "systematic",
    "flag",
    "limit95",
)


def write_session_report(root: Path | str, summary: dict) -> Path:
    """Write ``<session>_report.html`` into the results of a session.

    Parameters
    ----------
    root : results of the session.
    summary : content of ``summary.json``.
    """
    from calcamp.report.build import environment

    root = Path(root)
    tests = [_test(root, as_dict(test)) for test in summary["tests"]]
    html = environment().get_template("session.html.j2").render(summary=summary, tests=tests)
    path = root / f"{root.name}_report.html"
    write_atomic(path, html)
    return path


def _test(root: Path, test: dict) -> dict:
    name = str(test["test"])
    verdict = _read(root / name / "verdict.json")
    flags = [as_dict(flag) for flag in as_list(verdict.get("flags"))]
    links = (("PDF", "report"), ("HTML", "html"), ("verdict", "results"))
    return {
        **test,
        "title": str(verdict.get("title") or ""),
        "flag_names": " ".join(sorted({str(flag.get("name")) for flag in flags})),
        "causes": [(str(flag.get("name")), str(flag.get("cause") or "")) for flag in flags],
        "links": [(text, str(test[key])) for text, key in links if test.get(key)],
        "numbers": _numbers(as_list(verdict.get("headline"))),
        "figures": [(path.stem, _inside(path)) for path in _figures(root / name / "figures")],
        "failed_cells": test.get("failed_cells") or 0,
    }


def _numbers(headline: list) -> list[dict]:
    """Means over the channels of each quantity (and region, level, ...) with the error of a channel, as text."""
    groups: dict[tuple, list[float]] = {}
    errors: dict[tuple, list[float]] = {}
    for item in map(as_dict, headline):
        of = ", ".join(
            named_key(key, value)
            for key, value in item.items()
            if key not in _KEYS and isinstance(value, str | int | float) and not isinstance(value, bool)
        )
        key = (str(item.get("quantity")), of, str(item.get("unit") or ""))
        groups.setdefault(key, [])
        if is_number(item.get("value")):
            groups[key].append(item["value"])
            if is_number(item.get("err")):
                errors.setdefault(key, []).append(item["err"])
    return [
        {
            "quantity": title(quantity),
            "of": of,
            "unit": pretty_unit(unit),
            "channels": len(values),
            "value": f"{sum(values) / len(values):.5g}" if values else "not measured",
            "error": _rms(errors.get((quantity, of, unit), [])),
        }
        for (quantity, of, unit), values in list(groups.items())[:60]
    ]


def _rms(errors: list[float]) -> str:
    return f"{math.sqrt(sum(e * e for e in errors) / len(errors)):.2g}" if errors else ""


def _figures(folder: Path) -> list[Path]:
    found = sorted(folder.glob("*.png")) if folder.is_dir() else []
    return [p for p in found if p.is_file() and p.stat().st_size <= MAX_BYTES][:MAX_FIGURES]


def _inside(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _read(path: Path) -> dict:
    """A verdict, empty when it is not there or damaged: the report goes on."""
    try:
        return as_dict(read_json(path))
    except Exception:
        return {}
