"""The session report: one file, everything inside, nothing fetched, nothing executed."""

import base64
import json
import re
from html.parser import HTMLParser

from calcamp.data.files import write_json
from calcamp.report.session import write_session_report
from calcamp.report.summary import write_summary

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
HOSTILE = "<script>alert(1)</script>"


def session(root, names=("BIAS01", "DARK01")):
    for name in names:
        (root / name / "figures").mkdir(parents=True)
        (root / name / "figures" / "noise.png").write_bytes(PNG)
        (root / name / f"{name}_report.pdf").write_bytes(b"%PDF")
        (root / name / f"{name}_report.html").write_text("<p>")
        write_json(
            root / name / "verdict.json",
            {
                "session": "D11",
                "test": name,
                "block": "NOSTROMO",
                "title": HOSTILE,
                "verdict": "fail",
                "status": "complete",
                "obsids": [1, 10],
                "frames": {"declared": 10, "found": 10, "used": 9},
                "flags": [{"name": "RON_OOL", "cause": f"noise {HOSTILE}", "scope": {}}],
                "compliance": [],
                "headline": [
                    {
                        "quantity": "read_noise",
                        "ccd": c,
                        "quadrant": q,
                        "region": "img",
                        "value": v,
                        "err": 0.1,
                        "unit": "ADU",
                    }
                    for c, q, v in ((1, "E", 1.0), (1, "F", 2.0), (2, "E", None))
                ],
                "subtasks": {},
                "started": None,
                "ended": None,
            },
        )
    return write_session_report(root, write_summary(root, pdf=False))


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.tags = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.found += [(tag, key, value) for key, value in attrs if key in ("src", "href")]


def test_one_file_with_everything(tmp_path):
    path = session(tmp_path / "D11")
    text = path.read_text()
    page = Links()
    page.feed(text)
    images = [value for tag, key, value in page.found if tag == "img"]
    assert len(images) == 2
    assert all(value.startswith("data:image/png;base64,") for value in images)
    assert base64.b64decode(images[0].split(",")[1]) == PNG
    for _, key, value in page.found:
        assert not re.match(r"(?:https?:)?//", value)
        if key == "href" and not value.startswith("#"):
            assert (path.parent / value).is_file()
    assert "script" not in page.tags
    assert "&lt;script&gt;" in text
    assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text
    assert re.search(
        r"Read noise</td><td>image</td><td class=\"number\">1.5</td><td class=\"number\">0.1</td><td class=\"number\">2<",
        text,
    )
    for word in ("BIAS01", "DARK01", "RON_OOL", "BIAS01_report.pdf"):
        assert word in text


def test_a_test_without_a_verdict_is_named(tmp_path):
    root = tmp_path / "D11"
    session(root, ("BIAS01",))
    (root / "DARK01").mkdir()
    write_json(
        root / "DARK01" / "manifest.json", {"status": "incomplete", "reason": "absent", "obsids": None}
    )
    (root / "BIAS01" / "verdict.json").write_text("{ not JSON")
    text = write_session_report(root, write_summary(root, pdf=False)).read_text()
    assert "DARK01" in text
    assert json.loads((root / "summary.json").read_text())["tests"]
