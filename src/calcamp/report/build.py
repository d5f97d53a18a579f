"""Build the report of one test: figures, HTML and PDF, from the test's results folder only."""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from calcamp.report.base import CCDS, Note, ReportData, Section

#: Modules of this package that are not families.
_NOT_FAMILIES = {
    *("base", "build", "common", "figures", "lit", "pdf", "summary", "tables"),
    *("custodian", "session"),  # reports of other things than a test
    *("crosstalk", "psf"),  # parts of the family point
}


@dataclass
class BuiltReport:
    """What was made. ``pdf_note`` is empty when the PDF is the full one; seconds are wall time."""

    html: Path
    pdf: Path | None
    pages: int = 0
    figures: list[str] = field(default_factory=list)
    missing_figures: list[tuple[str, str]] = field(default_factory=list)
    pdf_note: str = ""
    seconds: float = 0.0


def build_report(
    test_folder: Path | str,
    *,
    people: list[dict] | None = None,
    documents: list[dict] | None = None,
    reference: str = "",
    issue: str = "1",
    draft: bool = False,
    date: str | None = None,
    pdf: bool = True,
    detector=None,
    pdf_seconds: float = 120.0,
    pdf_memory: int = 2 * 1024**3,
) -> BuiltReport:
    """Write ``figures/``, ``<TEST>_report.html`` and ``<TEST>_report.pdf`` into a test's results folder.

    Parameters
    ----------
    test_folder : holds manifest.json, verdict.json, tables/, products/; whatever is missing is said so
    people : [{role, name, position}], role one of author, contributor, approval, authorisation or free
    documents : [{reference, title, issue}], applicable and reference documents
    reference, issue, draft : of the document; `draft` prints a watermark
    date : of the document, ISO; default today (SOURCE_DATE_EPOCH where set)
    pdf : False writes the HTML only
    detector : `Detector`; default from verdict or manifest, else the full CCD273
    pdf_seconds, pdf_memory : limits of the PDF process, seconds and bytes

    Returns
    -------
    BuiltReport. Bad or missing data never raise; an unwritable folder does (OSError).
    """
    started = time.perf_counter()
    folder = Path(test_folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such results folder")
    process = None
    if pdf:
        from calcamp.report.pdf import PdfProcess

        process = PdfProcess(pdf_memory, pdf_seconds)  # lays the page out while the figures are drawn
    try:
        from calcamp.report.figures import FigureBook

        data = ReportData(folder, FigureBook(folder, later=True), detector)
        date = date or _today()
        frame = {
            "people": people if people is not None else _people_of(data),
            "documents": documents if documents is not None else list(data.verdict.get("documents") or []),
            "reference": reference,
            "issue": issue,
            "date": date,
        }
        page = _page(data, frame, draft)
        name = _safe_name(folder.name)
        built = BuiltReport(folder / f"{name}_report.html", None)
        html = _render("report.html.j2", page)  # one text for both: file links are for the summary only
        if process is not None:
            process.lay_out(html, folder)
        if data.figures.draw():
            html = _render("report.html.j2", page)
            if process is not None:
                process.lay_out(html, folder)
        _write(built.html, html)
        if process is not None:
            _write_pdf(process, data, folder / f"{name}_report.pdf", built)
    finally:
        if process is not None:
            process.close()
    built.figures, built.missing_figures = data.figures.made, data.figures.failed
    built.seconds = time.perf_counter() - started
    return built


def _people_of(data: ReportData) -> list[dict]:
    """People that the verdict names: who filled in the session is its author."""
    from calcamp.report.base import as_dict, as_list

    named = [as_dict(p) for p in as_list(data.verdict.get("people"))]
    author = data.verdict.get("filled_in_by")
    if author and not any(p.get("role") == "author" for p in named):
        named.insert(0, {"role": "author", "name": str(author), "position": "Analyst"})
    return named


def _safe_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)


def _today() -> str:
    stamp = os.environ.get("SOURCE_DATE_EPOCH")
    return time.strftime("%Y-%m-%d", time.gmtime(int(stamp) if stamp and stamp.isdigit() else None))


def _page(data: ReportData, frame: dict, draft: bool) -> dict:
    """Values for the template: sections are made once and serve HTML and PDF alike."""
    from calcamp import __version__
    from calcamp.report import common

    sections = _sections(data, frame)
    number_sections(sections)
    test, block = data.test, data.verdict.get("block", "–")
    reference = frame["reference"] or "no reference"
    return {
        "title": f"{test} report, block {block}",
        "description": f"calcamp report of test {test}, block {block}, session {data.verdict.get('session', '–')}",
        "author": next(
            (p["name"] for p in frame["people"] if p.get("role") == "author" and p.get("name")), "calcamp"
        ),
        "created": frame["date"],
        "version": __version__,
        "draft": draft,
        "running": {
            "test": f"VIS calibration campaign: {test}, block {block}",
            "reference": f"Ref. {reference}  Issue {frame['issue']}  {frame['date']}",
            "foot": f"Session {data.verdict.get('session', '–')}, made with calcamp {__version__}",
        },
        "front": common.front(data),
        "sections": sections,
        "counters": Counter,
        "ccds": CCDS,
        "beam_rows": (("E", "F"), ("H", "G")),
    }


def _sections(data: ReportData, frame: dict) -> list[Section]:
    from calcamp.report import common

    versions = [{"name": "Python", "version": sys.version.split()[0]}, *_package_versions()]
    issue = {
        "issue": frame["issue"],
        "date": frame["date"],
        "pages": "all",
        "change": "made from the results",
        "comment": "",
    }
    makers = [
        lambda d: common.front_matter(d, frame["people"], frame["documents"], versions, issue),
        common.flags,
        common.inventory,
        common.structure,
        common.house_keeping,
        common.saturation,
        common.compliance,
        common.checks,
        common.preparation,
        _family_sections,
        _other_headlines,
        common.inputs,
        common.appendix,
    ]
    sections: list[Section] = []
    for maker in makers:
        made = guarded(maker, data)
        sections += made if isinstance(made, list) else [made]
    return [section for section in sections if section is not None]


def guarded(maker, data: ReportData):
    """A section, or one that says why it could not be made: surprising data never cost the report."""
    try:
        return maker(data)
    except Exception as error:
        name = getattr(maker, "__name__", "section").strip("_<>").replace("_", " ")
        return Section(
            name.capitalize(),
            [Note(f"This section could not be made: {type(error).__name__}: {error}", "bad")],
        )


def _other_headlines(data: ReportData):
    from calcamp.report.common import PAGE_ONE, headline_blocks

    rest = headline_blocks(data, start=PAGE_ONE)
    return Section("Further headline numbers", rest, "headlines") if rest else []


def _package_versions() -> list[dict]:
    from importlib.metadata import PackageNotFoundError, version

    out = []
    for name in ("numpy", "matplotlib", "weasyprint"):
        try:
            out.append({"name": name, "version": version(name)})
        except PackageNotFoundError:
            continue
    return out


def family_modules() -> dict[str, object]:
    """Modules of this package that make a family's sections, by name; a new family is one new file."""
    import calcamp.report as package

    names = [info.name for info in pkgutil.iter_modules(package.__path__) if info.name not in _NOT_FAMILIES]
    return {name: f"{package.__name__}.{name}" for name in names}


def _family_sections(data: ReportData) -> list[Section]:
    module = family_modules().get(data.family)
    if module is None:
        text = f"calcamp has no report sections for the family {data.family or 'of this test'}; its tables are shown as they are."
        return [Section("Results", [Note(text, "missing"), *_bare_tables(data)], "results")]
    sections = getattr(importlib.import_module(module), "sections", None)
    if sections is None:
        return []
    made = guarded(sections, data)
    return made if isinstance(made, list) else [made]


def _bare_tables(data: ReportData) -> list:
    from calcamp.report.base import plain_table, title

    blocks = []
    known = {"hk", "frames", "offsets", "selection"}
    for path in sorted((data.folder / "tables").glob("*.ecsv")):
        table = data.table(path.stem)
        if path.stem not in known and table is not None:
            blocks.append(plain_table(table, caption=title(path.stem), limit=20))
    return blocks


def number_sections(sections: list[Section]) -> None:
    """Give sections numbers and distinct anchors."""
    seen: set[str] = set()
    for k, section in enumerate(sections, 1):
        section.number = f"{k}"
        section.key = _anchor(section, seen)
        for j, sub in enumerate(section.sections, 1):
            sub.number = f"{k}.{j}"
            sub.key = _anchor(sub, seen)


def _anchor(section: Section, seen: set[str]) -> str:
    base = re.sub(r"[^a-z0-9-]", "-", (section.key or section.title).lower())[:40] or "section"
    key, n = base, 1
    while key in seen:
        n += 1
        key = f"{base}-{n}"
    seen.add(key)
    return key


class Counter:
    """Numbers figures in the order in which the template prints them."""

    def __init__(self):
        self.value = 0

    def next(self) -> int:
        self.value += 1
        return self.value


def _render(template: str, page: dict) -> str:
    return environment().get_template(template).render({**page, "counters": Counter()})


def environment():
    """The one template environment: autoescape always on, undefined names are errors."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("calcamp.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _write(path: Path, text: str) -> None:
    from calcamp.data.files import write_atomic

    write_atomic(path, text)


def _write_pdf(process, data: ReportData, target: Path, built: BuiltReport) -> None:
    """The laid-out PDF, or a plain one with a note when its process failed or hit a limit."""
    from calcamp.report.pdf import PdfError, plain_pdf

    try:
        built.pages = process.finish(target)
    except PdfError as error:
        built.pdf_note = str(error)
        plain_pdf(_plain_lines(data, built), target)
    built.pdf = target


def _plain_lines(data: ReportData, built: BuiltReport) -> list[str]:
    from calcamp.report.base import label, limit_sign, scope_text, title, with_error

    verdict = data.verdict
    lines = [f"{data.test}, block {verdict.get('block', '-')}, session {verdict.get('session', '-')}", ""]
    lines += [
        f"NOTE: the laid-out PDF could not be made ({built.pdf_note}).",
        f"The full report is {built.html.name}.",
        "",
    ]
    lines += [
        f"Verdict: {verdict.get('verdict')}",
        f"Status: {verdict.get('status')}",
        f"Frames: {verdict.get('frames')}",
        "",
        "Flags:",
    ]
    lines += [f"  {f.get('name')}: {f.get('cause')} {scope_text(f.get('scope'))}" for f in data.flags] or [
        "  none"
    ]
    lines += ["", "Headline numbers:"]
    for item in data.headline[:400]:
        where = label(item.get("ccd"), item.get("quadrant"))
        value = with_error(item.get("value"), item.get("err"), limit_sign(item))
        lines.append(
            f"  {title(item.get('quantity', '?'))} {where} {item.get('region') or ''}: {value} {item.get('unit') or ''}"
        )
    failed = [c for c in data.compliance if c.get("ok") is False]
    lines += ["", f"Compliance: {len(failed)} of {len(data.compliance)} cells outside limits"]
    for cell in failed[:200]:
        where = label(cell.get("ccd"), cell.get("quadrant"))
        lines.append(
            f"  {cell.get('check')} {where}: {cell.get('value')} not in {cell.get('low')}..{cell.get('high')}, OBSIDs {cell.get('obsids')}"
        )
    return lines
