"""HTML to PDF/A in a process of its own, with limits of time and memory.

WeasyPrint asks its users to set such limits themselves: a hostile or unlucky page can take for ever.
The process is started early (`PdfProcess()`), so that its imports, and the layout of the page that it gets on
standard input, run while figures are drawn. It reads files of the report's folder and ``data:`` addresses only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

VARIANT = "pdf/a-3b"
SECONDS = 120.0
MEMORY = 2 * 1024**3


class PdfError(Exception):
    """The PDF could not be made; the text says why, in one line."""


class PdfProcess:
    """A waiting process that turns one HTML page into a PDF."""

    def __init__(self, memory: int = MEMORY, seconds: float = SECONDS):
        self.seconds = seconds
        self._process = subprocess.Popen(
            [sys.executable, "-m", "calcamp.report.pdf", str(int(memory)), str(int(seconds) + 5)],
            # No programme can be found: the search for shared libraries asks ldconfig, and no compiler and linker.
            # An empty path would mean the current folder.
            env={**os.environ, "PATH": os.devnull},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def lay_out(self, html: str, folder: Path) -> None:
        """Begin to lay out a page; returns at once. Of images only the size counts, until `finish`.

        Given again, the last page counts.
        """
        try:
            self._process.stdin.write(json.dumps({"html": html, "folder": str(folder)}).encode() + b"\n")
            self._process.stdin.flush()
        except (OSError, ValueError):
            pass  # the process has ended: `finish` says why

    def finish(self, target: Path, variant: str = VARIANT) -> int:
        """Write the page laid out to `target`; returns the number of pages, raises `PdfError`.

        `target` appears whole or not.
        """
        job = json.dumps({"target": str(target), "variant": variant})
        try:
            out, err = self._process.communicate(job.encode() + b"\n", timeout=self.seconds)
        except subprocess.TimeoutExpired:
            self.close()
            raise PdfError(f"PDF took longer than {self.seconds:.0f} s and was stopped") from None
        except ValueError:
            raise PdfError("the PDF process was closed") from None
        finally:
            Path(f"{target}.part").unlink(missing_ok=True)
        if self._process.returncode != 0:
            lines = err.decode("utf-8", "replace").strip().splitlines()
            reason = lines[-1] if lines else f"process ended with {self._process.returncode}"
            if "MemoryError" in err.decode("utf-8", "replace"):
                reason = "PDF needed more memory than allowed"
            raise PdfError(f"PDF process failed: {reason[:300]}")
        return json.loads(out)["pages"]

    def write(self, html: str, folder: Path, target: Path, variant: str = VARIANT) -> int:
        """`lay_out` and `finish` in one."""
        self.lay_out(html, folder)
        return self.finish(target, variant)

    def close(self) -> None:
        """End the process if it still waits."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


def make_fetcher(folder: Path):
    """A URL fetcher that serves ``data:`` and regular files whose resolved path lies inside `folder`."""
    from urllib.request import url2pathname

    from weasyprint.urls import URLFetcher, URLFetcherResponse

    root = Path(folder).resolve()

    class FolderFetcher(URLFetcher):
        """Nothing from the network, nothing from elsewhere on the disk."""

        def __init__(self):
            super().__init__(allowed_protocols=("data", "file"), allow_redirects=False)

        def fetch(self, url, headers=None):
            scheme, _, rest = url.partition(":")
            if scheme.lower() == "data":
                return super().fetch(url, headers)
            if scheme.lower() != "file" or not rest.startswith("///"):
                raise ValueError("only data: and files of the report's folder may be used")
            path = Path(url2pathname(rest[2:].split("?")[0].split("#")[0])).resolve()
            if not path.is_relative_to(root) or not path.is_file():
                raise ValueError("only data: and files of the report's folder may be used")
            return URLFetcherResponse(url, path.read_bytes())

    return FolderFetcher()


def lay_out(html: str, folder: Path):
    """The page laid out: a `weasyprint.Document`. Images are read for their size now, for their content on writing."""
    import weasyprint

    return weasyprint.HTML(
        string=html, base_url=f"{Path(folder).resolve().as_uri()}/", url_fetcher=make_fetcher(folder)
    ).render()


def write(document, target: Path, variant: str = VARIANT) -> int:
    """Write a page laid out to `target` (through ``.part``); returns the number of pages."""
    part = Path(f"{target}.part")
    document.write_pdf(part, pdf_variant=variant, pdf_identifier=b"calcamp" if variant else None)
    part.replace(target)
    return len(document.pages)


def main() -> int:
    import gc
    import resource

    memory, cpu = int(sys.argv[1]), int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    gc.disable()  # one page, then the end: looking for cycles would cost a tenth
    import weasyprint  # noqa: F401  (imported while the caller still draws)

    document = None
    for line in sys.stdin:  # it may end before a page comes: the caller changed its mind
        job = json.loads(line)
        if "html" in job:
            document = lay_out(job["html"], Path(job["folder"]))
        else:
            pages = write(document, Path(job["target"]), job["variant"])
            sys.stdout.write(json.dumps({"pages": pages}))
    gc.freeze()  # nor at the end
    return 0


def plain_pdf(lines: list[str], target: Path) -> None:
    """A plain text PDF without WeasyPrint: what is left when the layout failed."""
    import textwrap

    import matplotlib
    from matplotlib.backends.backend_pdf import PdfPages
    from matplotlib.figure import Figure

    wrapped = [part for line in lines for part in (textwrap.wrap(line, 100) or [""])]
    part = Path(f"{target}.part")
    with (
        matplotlib.rc_context(
            {"pdf.fonttype": 42, "font.family": "DejaVu Sans Mono", "text.parse_math": False}
        ),
        PdfPages(part) as pdf,
    ):
        for start in range(0, max(1, len(wrapped)), 75):
            figure = Figure(figsize=(8.27, 11.69))
            figure.text(
                0.07,
                0.96,
                "\n".join(wrapped[start : start + 75]),
                va="top",
                fontsize=7.5,
                linespacing=1.35,
            )
            figure.text(0.93, 0.03, f"page {start // 75 + 1}", ha="right", fontsize=7)
            pdf.savefig(figure)
    part.replace(target)


if __name__ == "__main__":
    sys.exit(main())
