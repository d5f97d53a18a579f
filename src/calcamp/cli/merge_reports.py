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


def contents(folder: Path, title: str, lead: list[str], chapters: list[Chapter], offset: int) -> Path:
    """Title, contents with page numbers, and the flags of each test, as a PDF."""
    from calcamp.cli.document import write_document
    from calcamp.report.base import Cell, Section, TableBlock

    rows, page = [], offset + 1
    for chapter in chapters:
        verdict = str(chapter.verdict.get("verdict") or chapter.verdict.get("status") or "–")
        flags = list(
            dict.fromkeys(
                str(f.get("name")) for f in chapter.verdict.get("flags") or [] if isinstance(f, dict)
            )
        )
        state = {"pass": "pass", "go": "pass", "fail": "fail", "no_go": "fail"}.get(verdict, "none")
        obsids = chapter.verdict.get("obsids") or []
        rows.append(
            [
                Cell(chapter.title, align="l"),
                Cell(f"{obsids[0]}–{obsids[-1]}" if obsids else "–"),
                Cell(verdict, state=state),
                Cell(", ".join(flags) or "none", align="l"),
                Cell(str(page)),
            ]
        )
        page += chapter.pages
    table = TableBlock(["Report", "OBSIDs", "Verdict", "Flags", "Page"], rows)
    return write_document(folder, "contents", title, lead, [Section("Reports, verdicts and flags", [table])])[
        -1
    ]


@app.command()
def merge_reports(
    results: Annotated[
        list[Path], typer.Argument(help="results of sessions, or of single tests, in the order wanted")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="the PDF")] = Path("reports.pdf"),
    title: Annotated[str | None, typer.Option(help="title; by default 'Test Reports, <block>'")] = None,
    reference: Annotated[str, typer.Option(help="reference of the document")] = "",
    issue: Annotated[str, typer.Option(help="issue of the document")] = "1.0",
    replace: Annotated[bool, typer.Option("--replace", help="replace the output if it is there")] = False,
) -> None:
    """Bind the reports of sessions into one PDF: title, contents with page numbers and flags, bookmarks.

    Exit 1 when a test has no report; it is named, and the others are bound.

    Example:  calcamp merge-reports results/D11 results/D12 -o NOSTROMO_reports.pdf --reference EUCL-MSS-TR-1
    """
    from pypdf import PdfReader, PdfWriter
    from pypdf.errors import PyPdfError

    from calcamp.data.files import InputError, replacing

    if output.exists() and not replace:
        raise InputError("is there already", file=output, remedy="Add --replace, or give another --output")
    chapters, lacking = [], []
    for folder in results:
        if not folder.is_dir():
            raise InputError("no such folder", file=folder)
        if (folder / "verdict.json").is_file():
            own, missing = chapters_of(folder.parent)
            chosen = [c for c in own if c.pdf.parent.name == folder.resolve().name]
            lacking += [] if chosen else [f"{folder.name}: no report in PDF"]
            chapters += chosen
        else:
            own, missing = chapters_of(folder)
            chapters, lacking = chapters + own, lacking + missing
    readers = []
    for chapter in list(chapters):
        try:
            reader = PdfReader(chapter.pdf)
            chapter.pages = len(reader.pages)
            readers.append(reader)
        except (PyPdfError, OSError, ValueError) as error:
            lacking.append(f"{chapter.title}: the PDF cannot be read ({type(error).__name__})")
            chapters.remove(chapter)
    for text in lacking:
        print(text, file=sys.stderr)
    if not chapters:
        raise InputError(
            "no report to bind", file=results[0], expected="<test>/<test>_report.pdf beside verdict.json"
        )
    block = next((str(c.verdict["block"]) for c in chapters if c.verdict.get("block")), "")
    title = title or f"Test Reports, {block or 'block not known'}"
    lead = [
        f"Reference {reference or '–'}, issue {issue}; sessions {', '.join(dict.fromkeys(c.session for c in chapters))}"
    ]
    writer = PdfWriter()
    with tempfile.TemporaryDirectory() as scratch:
        offset = 1
        for _ in range(3):  # the contents shift the pages that they list
            front = PdfReader(contents(Path(scratch), title, lead, chapters, offset))
            if len(front.pages) == offset:
                break
            offset = len(front.pages)
        writer.append(front, outline_item="Contents", import_outline=False)
        for chapter, reader in zip(chapters, readers, strict=True):
            writer.append(reader, outline_item=chapter.title, import_outline=False)
        writer.add_metadata({"/Title": title, "/Author": "calcamp"})
        with replacing(output) as stream:
            writer.write(stream)
    print(f"{output}: {len(chapters)} reports, {offset + sum(c.pages for c in chapters)} pages")
    raise typer.Exit(1 if lacking else 0)
