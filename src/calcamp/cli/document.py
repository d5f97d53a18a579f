"""A document of sections as HTML and PDF, for commands that are no test of a session."""

from __future__ import annotations

import time
from pathlib import Path

_TEMPLATE = """{% extends "page.html.j2" %}
{% import "blocks.html.j2" as blocks with context %}
{% block body %}
<h1>{{ title }}</h1>
{% for line in lead %}<p>{{ line }}</p>{% endfor %}
<nav class="toc" style="break-before: auto"><h2 style="margin-top:0">Contents</h2><ol>{% for s in sections %}<li><a href="#{{ s.key }}">{{ s.number }} {{ s.title }}</a></li>{% endfor %}</ol></nav>
{% for s in sections %}<section class="chapter{{ ' breaks' if s.page_break }}"><h2 id="{{ s.key }}">{{ s.number }} {{ s.title }}</h2>
{% for b in s.blocks %}{{ blocks.block(b, counters) }}{% endfor %}</section>
{% endfor %}
{% endblock %}
"""


def write_document(
    folder: Path, name: str, title: str, lead: list[str], sections: list, pdf: bool = True
) -> list[Path]:
    """Write ``<name>.html`` and ``<name>.pdf`` into `folder`; figures lie in its ``figures/``. Returns the files."""
    from calcamp import __version__
    from calcamp.data.files import write_atomic
    from calcamp.report.build import Counter, environment, number_sections
    from calcamp.report.pdf import PdfError, PdfProcess, plain_pdf

    number_sections(sections)
    date = time.strftime("%Y-%m-%d")
    page = {
        "title": title,
        "lead": lead,
        "sections": sections,
        "description": title,
        "author": "calcamp",
        "created": date,
        "version": __version__,
        "draft": False,
        "running": {
            "test": f"VIS calibration campaign: {title}",
            "reference": date,
            "foot": f"made with calcamp {__version__}",
        },
        "counters": Counter(),
        "ccds": (1, 2, 3),
        "beam_rows": (("E", "F"), ("H", "G")),
    }
    html = environment().from_string(_TEMPLATE).render(page)
    made = [write_atomic(folder / f"{name}.html", html)]
    if pdf:
        target = folder / f"{name}.pdf"
        process = PdfProcess()
        try:
            process.write(html, folder, target)
        except PdfError as error:
            plain_pdf([title, "", f"NOTE: the laid-out PDF could not be made ({error}).", *lead], target)
        finally:
            process.close()
        made.append(target)
    return made
