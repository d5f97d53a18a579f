"""The PDF process: what it may fetch, and what happens at its limits."""

from __future__ import annotations

import http.server
import threading

import pytest
from tests.report.report_fixtures import make_test

from calcamp.report.build import build_report
from calcamp.report.pdf import PdfError, PdfProcess, lay_out, make_fetcher, write


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:9/x", "https://example.org/", "ftp://example.org/x", "file:///etc/passwd", "file://host/etc/passwd", "FILE:///etc/passwd",
     "gopher://x", "javascript:x", "file:/etc/passwd"],
)  # fmt: skip
def test_fetcher_refuses(tmp_path, url):
    with pytest.raises(ValueError, match=r"only data:|disallowed"):
        make_fetcher(tmp_path).fetch(url)


def test_fetcher_refuses_ways_out_of_the_folder(tmp_path):
    inside = tmp_path / "report"
    inside.mkdir()
    (tmp_path / "secret.png").write_bytes(b"canary")
    (inside / "link.png").symlink_to(tmp_path / "secret.png")
    (inside / "good one.png").write_bytes(b"good")
    fetcher = make_fetcher(inside)
    base = inside.resolve().as_uri()
    assert fetcher.fetch(f"{base}/good%20one.png").read() == b"good"
    assert fetcher.fetch("data:text/plain,hello").read() == b"hello"
    for url in ("../secret.png", "%2e%2e/secret.png", "link.png", "missing.png", "."):
        with pytest.raises(ValueError, match="only data:"):
            fetcher.fetch(f"{base}/{url}")


def test_no_request_leaves_and_no_foreign_file_comes_in(tmp_path):
    hits = []

    class Sink(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            hits.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Sink)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    outside = f"http://127.0.0.1:{server.server_port}"
    folder = tmp_path / "report"
    folder.mkdir()
    canary = tmp_path / "canary.txt"
    canary.write_text("CANARY-TEXT")
    (folder / "x.svg").write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"><image xlink:href="{outside}/svg"/></svg>'
    )
    page = f"""<html><head><link rel=stylesheet href="{outside}/css"><link rel=attachment href="{canary.as_uri()}">
    <style>@import "{outside}/import"; @font-face {{font-family: x; src: url({outside}/font)}} body {{font-family: x;
    background: url({outside}/bg)}} li {{list-style-image: url({outside}/li)}} p::before {{content: url({outside}/c)}}</style></head>
    <body background="{outside}/hint"><p>text</p><ul><li>x</ul><img src="{outside}/img"><img src="x.svg"><img src="{canary.as_uri()}">
    <a rel=attachment href="{canary.as_uri()}">a</a><object data="{outside}/o"></object><embed src="{outside}/e"></body></html>"""
    try:
        write(lay_out(page, folder), tmp_path / "out.pdf")
    finally:
        server.shutdown()
    assert hits == []
    assert b"CANARY-TEXT" not in (tmp_path / "out.pdf").read_bytes()
    from pypdf import PdfReader

    assert not PdfReader(tmp_path / "out.pdf").attachments


def test_time_limit_gives_a_plain_pdf_with_a_note(tmp_path):
    from pypdf import PdfReader

    folder = make_test(tmp_path, "BIAS01", tables=False, images=False)
    built = build_report(folder, pdf_seconds=0.05)
    assert "longer than" in built.pdf_note
    text = PdfReader(built.pdf).pages[0].extract_text()
    assert "could not be made" in text
    assert "POORQUALDATA" in text
    assert built.html.is_file()


def test_memory_limit_gives_a_plain_pdf_with_a_note(tmp_path):
    folder = make_test(tmp_path, "BIAS01", tables=False, images=False)
    built = build_report(folder, pdf_memory=60 * 1024**2)
    assert built.pdf_note
    assert built.pdf.is_file()
    assert not list(folder.glob("*.part"))


def test_process_that_is_not_needed_ends(tmp_path):
    process = PdfProcess()
    process.close()
    with pytest.raises((PdfError, ValueError)):
        process.write("<p>x", tmp_path, tmp_path / "x.pdf")
