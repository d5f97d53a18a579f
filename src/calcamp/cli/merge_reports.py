"""``calcamp merge-reports``: one PDF of the reports of a session or a block, with contents."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@dataclass
class Chapter:
    """A report to bind."""

    session: str
    test: str
    pdf: Path
    verdict: dict
    pages: int = 0
    start: int = 0  # page of the document, from 0

    @property
    def title(self) -> str:
        return f"{self.session}: {self.test}"


def chapters_of(folder: Path) -> tuple[list[Chapter], list[str]]:
    """(chapters, tests without a report) below the results of a session, in the order of their first OBSID."""
    from calcamp.data.files import InputError, read_json

    found, lacking = [], []
    for path in sorted(folder.glob("*/verdict.json")):
        if path.parent.is_symlink():
            continue
        try:
            verdict = read_json(path)
        except InputError as error:
            lacking.append(f"{path.parent.name}: {error.problem}")
            continue
        if not isinstance(verdict, dict):
            lacking.append(f"{path.parent.name}: the verdict is no object")
            continue
        # session and test are what the verdict says, whatever the folders are called
        session, test = (
            str(verdict.get("session") or folder.name),
            str(verdict.get("test") or path.parent.name),
        )
        pdf = path.parent / f"{path.parent.name}_report.pdf"
        if pdf.is_file():
            found.append(Chapter(session, test, pdf, verdict))
        else:
            lacking.append(f"{session}: {test}: no report in PDF")
    return sorted(found, key=lambda c: (c.verdict.get("obsids") or [0])[0] or 0), lacking


def chosen(folder: Path) -> tuple[list[Chapter], list[str]]:
    """As `chapters_of`, of the results of a session or of a single test."""
    from calcamp.data.files import InputError

    if not folder.is_dir():
        raise InputError("no such folder", file=folder)
    if not (folder / "verdict.json").is_file():
        return chapters_of(folder)
    own, _ = chapters_of(folder.resolve().parent)
    found = [c for c in own if c.pdf.parent.name == folder.resolve().name]
    return found, [] if found else [f"{folder.name}: no report in PDF"]


def contents(folder: Path, title: str, lead: list[str], parts: dict[str, list[Chapter]]) -> Path:
    """Title, contents with page numbers, and the flags of each test, as a PDF."""
    from calcamp.cli.document import write_document
    from calcamp.report.base import Section, TableBlock

    head = ["Report", "Day", "OBSIDs", "Verdict", "Flags", "Page"]
    sections = [
        Section(name or "Reports, verdicts and flags", [TableBlock(head, [_row(c) for c in chapters])])
        for name, chapters in parts.items()
    ]
    return write_document(folder, "contents", title, lead, sections)[-1]


def _row(chapter: Chapter) -> list:
    from calcamp.report.base import Cell

    verdict = str(chapter.verdict.get("verdict") or chapter.verdict.get("status") or "–")
    flags = [str(f.get("name")) for f in chapter.verdict.get("flags") or [] if isinstance(f, dict)]
    state = {"pass": "pass", "go": "pass", "fail": "fail", "no_go": "fail"}.get(verdict, "none")
    obsids = chapter.verdict.get("obsids") or []
    days = [Path(str(day)).name for day in chapter.verdict.get("day_folders") or []]
    return [
        Cell(chapter.title, align="l"),
        Cell(", ".join(days) or "–"),
        Cell(f"{obsids[0]}–{obsids[-1]}" if obsids else "–"),
        Cell(verdict, state=state),
        Cell(", ".join(dict.fromkeys(flags)) or "none", align="l"),
        Cell(str(chapter.start + 1)),
    ]


def read_all(parts: dict[str, list[Chapter]], lacking: list[str]) -> dict[Path, object]:
    """PDF readers by file; a chapter that cannot be read is taken out and named in `lacking`."""
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    readers = {}
    for chapters in parts.values():
        for chapter in list(chapters):
            try:
                reader = PdfReader(chapter.pdf)
                chapter.pages = len(reader.pages)
                readers[chapter.pdf] = reader
            except (PyPdfError, OSError, ValueError) as error:
                lacking.append(f"{chapter.title}: the PDF cannot be read ({type(error).__name__})")
                chapters.remove(chapter)
    for name in [name for name, chapters in parts.items() if not chapters]:
        del parts[name]
    return readers


def bind(title: str, lead: list[str], parts: dict[str, list[Chapter]], readers: dict, output: Path) -> int:
    """Write the document; returns its number of pages."""
    from pypdf import PdfReader, PdfWriter

    from calcamp.data.files import replacing

    writer, chapters = PdfWriter(), [c for part in parts.values() for c in part]
    with tempfile.TemporaryDirectory() as scratch:
        offset = 1
        for _ in range(3):  # the contents shift the pages that they list
            page = offset
            for chapter in chapters:
                chapter.start, page = page, page + chapter.pages
            front = PdfReader(contents(Path(scratch), title, lead, parts))
            if len(front.pages) == offset:
                break
            offset = len(front.pages)
        writer.append(front, outline_item="Contents", import_outline=False)
        for name, own in parts.items():
            parent = None
            for chapter in own:
                start = len(writer.pages)
                reader = readers[chapter.pdf]
                writer.append(reader, import_outline=False)
                if name and parent is None:
                    parent = writer.add_outline_item(title=name, page_number=start, bold=True)
                _bookmark(writer, reader, chapter, start, parent)
        writer.add_metadata({"/Title": title, "/Author": "calcamp"})
        with replacing(output) as stream:
            writer.write(stream)
    return len(writer.pages)


def _bookmark(writer, reader, chapter: Chapter, start: int, parent) -> None:
    """A bookmark of the report, and its own first level of bookmarks below it."""
    item = writer.add_outline_item(title=chapter.title, page_number=start, parent=parent)
    for entry in reader.outline:
        if isinstance(entry, list):
            continue
        number = reader.get_destination_page_number(entry)
        if number is not None and number >= 0:
            writer.add_outline_item(title=str(entry.title), page_number=start + number, parent=item)


@app.command()
def merge_reports(
    results: Annotated[
        list[Path],
        typer.Argument(help="results of sessions, or of single tests, in the order wanted; or one YAML file"),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="the PDF", show_default="reports.pdf")
    ] = None,
    title: Annotated[str | None, typer.Option(help="title; by default 'Test Reports, <block>'")] = None,
    reference: Annotated[str | None, typer.Option(help="reference of the document")] = None,
    issue: Annotated[str | None, typer.Option(help="issue of the document", show_default="1.0")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="replace the output if it is there")] = False,
) -> None:
    """Bind the reports of sessions into one PDF: title, contents with page numbers and flags, bookmarks.

    A YAML file describes the document of a whole block: its parts, and the sessions or tests of each part
    (keys: docs/configuration.md). Exit 1 when a test has no report; it is named, and the others are bound.

    Example:  calcamp merge-reports results/D11 results/D12 -o NOSTROMO_reports.pdf --reference EUCL-MSS-TR-1
              calcamp merge-reports reports_NOSTROMO.yaml
    """
    from calcamp.config.reports import Reports
    from calcamp.data.files import InputError

    wanted: dict[str, list[Path]] = {"": results}
    plan = None
    if len(results) == 1 and results[0].suffix.lower() in (".yaml", ".yml"):
        plan = Reports.load(results[0])
        wanted = plan.folders()
        title, reference, issue = title or plan.title, reference or plan.reference, issue or plan.issue
        output = output or (plan.path_to(plan.output) if plan.output else None)
    output = output or Path("reports.pdf")
    if output.exists() and not replace:
        raise InputError("is there already", file=output, remedy="Add --replace, or give another --output")
    parts: dict[str, list[Chapter]] = {}
    lacking: list[str] = []
    for name, folders in wanted.items():
        parts[name] = []
        for folder in folders:
            found, missing = chosen(folder)
            parts[name] += found
            lacking += missing
    readers = read_all(parts, lacking)
    for text in lacking:
        print(text, file=sys.stderr)
    if not parts:
        raise InputError(
            "no report to bind", file=results[0], expected="<test>/<test>_report.pdf beside verdict.json"
        )
    chapters = [c for part in parts.values() for c in part]
    block = (
        plan.block
        if plan
        else next((str(c.verdict["block"]) for c in chapters if c.verdict.get("block")), "")
    )
    title = title or f"Test Reports, {block or 'block not known'}"
    lead = [f"Reference {reference or '–'}, issue {issue or '1.0'}"]
    if plan and plan.programme:
        lead.append(f"Programme {plan.programme}, block {block}")
    lead.append(f"Sessions {', '.join(dict.fromkeys(c.session for c in chapters))}")
    pages = bind(title, lead, parts, readers, output)
    print(f"{output}: {len(chapters)} reports, {pages} pages")
    raise typer.Exit(1 if lacking else 0)
