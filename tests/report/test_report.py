"""Reports of tests: whole, empty, damaged and hostile results folders."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tests.report.report_fixtures import FIRST, ecsv, make_test, manifest, too_wide

from calcamp.report.build import build_report, family_modules

PAYLOADS = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<svg/onload=alert(1)>", "\"><script>x</script>", "'><b>bold</b>",
    "</style><script>x</script>", "</title><script>x</script>", "<iframe src='file:///etc/passwd'></iframe>", "<a href='javascript:x'>x</a>",
    "{{ 7*7 }}", "{% raw %}", "<link rel=stylesheet href=http://evil/x.css>", "<style>@import 'http://evil'</style>",
    "<object data=file:///etc/passwd></object>", "<embed src=x>", "<base href=http://evil/>", "<meta http-equiv=refresh content=0>",
    "<body onload=x>", "<input autofocus onfocus=x>", "<details open ontoggle=x>", "<math><mi//xlink:href='x'>", "<!--", "-->", "]]>",
    "<![CDATA[x]]>", "&lt;script&gt;", "\" onmouseover=\"x", "' style='background:url(http://evil)", "$\\frac{1}{2$", "<x\u2028y>\x0b",
]  # fmt: skip
ALLOWED = {
    "html", "head", "meta", "title", "style", "body", "div", "small", "h1", "h2", "h3", "p", "b", "table", "thead", "tbody", "tr", "th", "td",
    "span", "br", "nav", "ol", "li", "a", "section", "figure", "col", "figcaption", "img", "pre",
}  # fmt: skip


class Elements(HTMLParser):
    """Counts elements and collects attribute names."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def pdf_text(path: Path) -> tuple[int, str]:
    from pypdf import PdfReader

    pages = PdfReader(path).pages
    return len(pages), "\n".join(page.extract_text() for page in pages)


@pytest.fixture(scope="module")
def bias(tmp_path_factory):
    folder = make_test(tmp_path_factory.mktemp("bias"), "BIAS01")
    return folder, build_report(folder, date="2026-01-02", reference="EUCL-MSS-TR-7-001")


@pytest.fixture(scope="module")
def dark(tmp_path_factory):
    folder = make_test(tmp_path_factory.mktemp("dark"), "DARK01", failing=False)
    return folder, build_report(folder)


def test_bias_is_whole(bias):
    folder, built = bias
    assert built.missing_figures == []
    assert built.pdf_note == ""
    pages, text = pdf_text(built.pdf)
    assert pages == built.pages > 5
    for expected in ("FAIL", "NOSTROMO", "HK_OOL", "POORQUALDATA", "Read noise and its parts", "Master bias", "EUCL-MSS-TR-7-001",
                     "14471-19-01", "17286", "Contents", f"Page 1 / {pages}", "CCD2_TEMP_T", "9c9c"):  # fmt: skip
        assert expected in text, expected
    assert all((folder / "figures" / f"{name}.png").stat().st_size > 1000 for name in built.figures)
    assert not list(folder.rglob("*.part"))


def test_pdf_is_marked_as_pdfa_with_embedded_fonts_and_no_paths(bias):
    from pypdf import PdfReader

    folder, built = bias
    reader = PdfReader(built.pdf)
    xmp = reader.trailer["/Root"]["/Metadata"].get_object().get_data().decode()
    assert re.search(r"pdfaid:part[>=\"']+3", xmp)
    assert "/OutputIntents" in reader.trailer["/Root"]
    for page in reader.pages:
        for font in page["/Resources"].get("/Font", {}).values():
            descriptor = font.get_object()["/DescendantFonts"][0].get_object()["/FontDescriptor"].get_object()
            assert "/FontFile2" in descriptor or "/FontFile3" in descriptor
        for note in page.get("/Annots", []):
            assert "/URI" not in note.get_object().get("/A", {})
    assert str(folder).encode() not in built.pdf.read_bytes()


def test_nothing_stands_out_of_the_page(bias, dark):
    for _, built in (bias, dark):
        assert too_wide(built.html) == []


def test_every_link_of_the_html_has_its_target(bias):
    folder, built = bias
    elements = Elements(built.html.read_text()).found
    ids = [attrs["id"] for _, attrs in elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = [attrs["href"] for tag, attrs in elements if tag == "a"]
    assert "#obs-17286" in links
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    for tag, attrs in elements:
        if tag == "img":
            assert (folder / attrs["src"]).is_file()
            assert attrs["alt"]


def test_dark_is_whole(dark):
    _, built = dark
    assert built.missing_figures == []
    _, text = pdf_text(built.pdf)
    for expected in (
        "PASS",
        "Dark current",
        "No flag was raised",
        "< 0.24",
        "Hot pixels, hottest first",
        "12 of 240 rows",
    ):
        assert expected in text, expected


def test_without_tables_and_products_the_sections_say_so(tmp_path):
    folder = make_test(tmp_path, "BIAS01", tables=False, images=False)
    built = build_report(folder)
    _, text = pdf_text(built.pdf)
    assert "Table read_noise was not made" in text
    assert "No master bias" in text
    assert built.figures == []


def test_empty_folder_and_damaged_files_still_give_a_report(tmp_path):
    folder = tmp_path / "BIAS01"
    folder.mkdir()
    (folder / "verdict.json").write_text("{broken")
    built = build_report(folder)
    _, text = pdf_text(built.pdf)
    assert "This report is not complete" in text
    assert "VERDICT not judged" in re.sub(r"(VERDICT)\s*", r"\1 ", text)


def test_crashed_subtask_is_named_where_its_table_is_missing(tmp_path):
    folder = make_test(tmp_path, "BIAS01", tables=False, images=False)
    verdict = json.loads((folder / "verdict.json").read_text())
    crash = {
        "status": "crashed",
        "minutes": 0.1,
        "reason": "CCD2: OBSID 17285",
        "traceback": ["line 1", "ZeroDivisionError: x"],
    }
    verdict["subtasks"]["basic"] = crash
    (folder / "verdict.json").write_text(json.dumps(verdict))
    text = build_report(folder, pdf=False).html.read_text()
    assert "basic: crashed" in text
    assert "ZeroDivisionError" in text


def test_figure_that_fails_becomes_a_panel(tmp_path):
    folder = make_test(tmp_path, "BIAS01", images=False)
    ecsv(
        folder / "tables" / "spectrum.ecsv",
        {"ccd": [1], "quadrant": ["E"], "frequency": [0.0], "power": [-1.0]},
    )
    (folder / "products").mkdir()
    for ccd in (1, 2, 3):
        (folder / "products" / f"EUC_MASTERBIAS_CCD{ccd}_SN_1_B.fits").write_bytes(
            b"SIMPLE  = T" + b" " * 5000
        )
    ecsv(folder / "tables" / "offsets.ecsv", {"obsid": [1], "ccd": [1], "quadrant": ["E"], "region": ["pre"]})
    built = build_report(folder, pdf=False)
    assert {"bias_spectrum", "bias_master", "check_noise"} <= {name for name, _ in built.missing_figures}
    assert "no positive powers" in built.html.read_text()


def _poison(value, payload):
    """Every text, and every key of a free mapping, carries the payload."""
    if isinstance(value, dict):
        return {key: _poison(item, payload) for key, item in value.items()}
    if isinstance(value, list):
        return [_poison(item, payload) for item in value]
    return payload if isinstance(value, str) else value


@pytest.mark.parametrize("payload", PAYLOADS)
def test_hostile_text_makes_no_element(tmp_path, payload, monkeypatch):
    from calcamp.report import figures

    def not_drawn(self, name, caption, draw, height=2.8, alt="", width=100.0):
        return figures.Figure(f"figures/{name}.png", caption, alt or caption, width)

    monkeypatch.setattr(figures.FigureBook, "make", not_drawn)
    folder = make_test(tmp_path, "BIAS01", images=False)
    for name in ("manifest.json", "verdict.json"):
        content = json.loads((folder / name).read_text())
        kept = {
            "test": "BIAS01",
            "family": "bias",
            "compliance": _poison(content.get("compliance", [])[:30], payload),
        }
        poisoned = {**_poison(content, payload), **{k: v for k, v in kept.items() if name == "verdict.json"}}
        poisoned["inputs"] = {payload: payload}
        poisoned["options"] = {payload: {payload: payload}}
        poisoned["subtasks"] = {
            payload: {"status": "crashed", "minutes": 1, "reason": payload, "traceback": [payload]}
        }
        poisoned["missing"] = poisoned["mismatches"] = [
            {"obsid": 1, "key": payload, "expected": payload, "found": payload, payload: payload}
        ]
        poisoned["products_used"] = {payload: {payload: payload}}
        (folder / name).write_text(json.dumps(poisoned))
    rows = {
        "ccd": [1],
        "quadrant": ["E"],
        "frequency": [1.0],
        "power": [2.0],
        "flag": [payload.replace("\x0b", "").replace("\u2028", "")],
    }
    ecsv(folder / "tables" / "spectrum_peaks.ecsv", rows)
    people = [{"role": payload, "name": payload, "position": payload}]
    built = build_report(
        folder,
        people=people,
        documents=[{"reference": payload, "title": payload}],
        reference=payload,
        issue=payload,
        pdf=False,
    )
    for tag, attrs in Elements(built.html.read_text()).found:
        assert tag in ALLOWED, tag
        assert not [name for name in attrs if name.startswith("on")], attrs
        if tag == "a":
            assert attrs["href"].startswith("#")
        if tag == "img":
            assert attrs["src"].startswith("figures/")
        if tag == "meta":
            assert attrs.get("http-equiv", "Content-Security-Policy") == "Content-Security-Policy"
        if tag in ("div", "span", "td"):
            assert "url(" not in attrs.get("style", "")


def test_hostile_names_in_figures(tmp_path):
    folder = make_test(tmp_path, "BIAS01", images=False)
    keys = [p.replace("\x0b", "").replace("\u2028", "") for p in PAYLOADS]
    ecsv(
        folder / "tables" / "hk.ecsv",
        {"obsid": [17283] * len(keys), "key": keys, "mean": [1.0] * len(keys), "min": [0.9] * len(keys)},
    )
    assert build_report(folder, pdf=False).missing_figures == []


def test_table_of_2000_rows_is_cut_with_its_count(tmp_path):
    folder = make_test(tmp_path, "DARK01", images=False, hot=2400)
    built = build_report(folder)
    _, text = pdf_text(built.pdf)
    assert "12 of 2400 rows are shown" in text
    assert built.pages < 25


def test_a_long_test_lists_runs_of_exposures_and_one_checksum(tmp_path):
    """Rows break where the column, a fact or the use changes, and at a gap; every OBSID stays a target of links."""
    folder = make_test(tmp_path, "BIAS01", tables=False, images=False)
    whole = manifest("BIAS01", 90, 0.0)
    for exposure in whole["exposures"][60:]:
        exposure["column"], exposure["frame"] = 2, exposure["frame"] - 60
    whole["exposures"][20]["files"]["2"] = None
    del whole["exposures"][70]
    verdict = json.loads((folder / "verdict.json").read_text())
    verdict["excluded"] = [{"obsid": FIRST + 40, "ccd": 1, "quadrant": "E", "cause": "offset", "by": "rule"}]
    raw = {f"EUC_{FIRST + k}_CCD{c}.fits": f"raw {k} {c}" for k in range(90) for c in (1, 2, 3)}
    for name, content in raw.items():
        (tmp_path / name).write_text(content)
    verdict["inputs"] = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in raw.items()}
    (folder / "manifest.json").write_text(json.dumps(whole))
    (folder / "verdict.json").write_text(json.dumps(verdict))
    built = build_report(folder)
    html = built.html.read_text()
    rows = re.findall(r"</span>(\d+–\d+|\d+)</td><td>(col\d+)</td><td>([\d–]+)</td>", html)
    single = re.findall(r'<td id="obs-\d+">(\d+)</td><td>(col\d+)</td><td>(\d+)</td>', html)
    assert rows == [
        (f"{FIRST + a}–{FIRST + b}", f"col{c:03d}", f"{f}–{t}")
        for a, b, c, f, t in (
            (0, 19, 1, 1, 20),
            (21, 39, 1, 22, 40),
            (41, 59, 1, 42, 60),
            (60, 69, 2, 1, 10),
            (71, 89, 2, 12, 30),
        )
    ]
    assert single == [(str(FIRST + 20), "col001", "21"), (str(FIRST + 40), "col001", "41")]
    ids = [attrs["id"] for _, attrs in Elements(html).found if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {f"obs-{FIRST + k}" for k in range(90) if k != 70} <= set(ids)
    # What an analyst types to find the checksum again.
    typed = "LC_ALL=C; export LC_ALL; sha256sum $(ls *.fits | sort) | sha256sum"
    found = subprocess.run(typed, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "The 270 inputs are listed in verdict.json" in html
    assert found.split()[0] in html


def test_verdict_with_2000_compliance_cells_and_flags(tmp_path):
    folder = make_test(tmp_path, "BIAS01", tables=False, images=False)
    verdict = json.loads((folder / "verdict.json").read_text())
    verdict["compliance"] = [
        {"check": "many", "obsid": n, "ok": n % 2 == 0, "value": n, "low": 0, "high": 1, "obsids": [n]}
        for n in range(2000)
    ]
    verdict["flags"] = [{"name": "X", "cause": "c", "scope": {"obsids": list(range(50))}} for _ in range(500)]
    (folder / "verdict.json").write_text(json.dumps(verdict))
    built = build_report(folder)
    assert built.pdf_note == ""
    assert built.pages < 40


def test_unknown_family_shows_its_tables(tmp_path):
    folder = make_test(tmp_path, "BIAS01", tables=False, images=False).rename(tmp_path / "NEW99")
    verdict = json.loads((folder / "verdict.json").read_text())
    (folder / "verdict.json").write_text(json.dumps({**verdict, "test": "NEW99"}))
    ecsv(
        folder / "tables" / "novelty.ecsv",
        {"ccd": [1, 2], "novelty": [1.25, float("nan")], "novelty_err": [0.01, 0.02]},
    )
    text = build_report(folder, pdf=False).html.read_text()
    assert "Novelty" in text
    assert "1.250 ± 0.010" in text


def test_columns_without_a_fault_are_one_row():
    from calcamp.report.common import compliance_blocks

    cells = [
        {
            "check": "injection",
            "ccd": ccd,
            "column": column,
            "quadrant": quadrant,
            "value": 100.0 + column + (5 if quadrant == "H" else 0),
            "low": 90.0,
            "high": 200.0,
            "ok": None if (ccd, column) == (2, 7) else (ccd, column, quadrant) != (2, 3, "E"),
            "obsids": [1],
        }
        for ccd in (1, 2)
        for column in range(1, 31)
        for quadrant in "EFGH"
    ]
    (table,) = compliance_blocks(cells)
    rows = [[cell.text for cell in row] for row in table.rows]
    assert [row[:2] for row in rows] == [
        ["CCD1", "30 columns"],
        ["CCD2", "28 columns"],
        ["CCD2", "col003"],
        ["CCD2", "col007"],
    ]
    assert rows[0][2:] == ["101", "101", "101", "106"]  # nearest to the lower limit
    assert [cell.state for cell in table.rows[2][2:]] == ["fail", "pass", "pass", "pass"]
    assert {cell.state for cell in table.rows[3][2:]} == {"none"}
    assert "235 of 240 within limits, 1 outside, 4 not measured" in table.caption
    (short,) = compliance_blocks(cells[: 4 * 20])
    assert len(short.rows) == 20


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (1.2, 0.013, "1.200 ± 0.013"),
        (3.4999769, 6.78e-6, "3.4999769 ± 0.0000068"),
        (1.2e-6, 3.4e-7, "(1.20 ± 0.34)·10⁻⁶"),
        (2.5e7, 1.2e5, "(2.500 ± 0.012)·10⁷"),
        (152.0, 12.0, "152 ± 12"),
    ],
)
def test_values_are_printed_with_two_digits_of_their_error(value, error, text):
    from calcamp.report.base import with_error

    assert with_error(value, error) == text


def test_top_and_bottom_share_a_panel_and_nothing_else_does():
    from calcamp.report.common import _hk_groups

    keys = ["CCD1_OD_B", "CCD1_OD_T", "CCD1_OD", "FPGA_VCC", "RPSU_TEMP_T"]
    assert _hk_groups(keys) == [
        ("CCD1_OD", ["CCD1_OD_T", "CCD1_OD_B"]),
        ("CCD1_OD", ["CCD1_OD"]),
        ("FPGA_VCC", ["FPGA_VCC"]),
        ("RPSU_TEMP_T", ["RPSU_TEMP_T"]),
    ]


@pytest.mark.parametrize(
    ("unit", "text"),
    [
        ("adu2/Hz", "ADU²/Hz"),
        ("electron / (h pix)", "e⁻/px/h"),
        ("e-/pixel/h", "e⁻/px/h"),
        ("pix4", "px⁴"),
        ("mm/kpix2", "mm/kpx²"),
        ("us", "µs"),
        ("degC", "°C"),
        ("1/V", "1/V"),
        ("trap", "trap"),
        ("1", ""),
        ("%", "%"),
    ],
)
def test_units_are_printed_for_people(unit, text):
    from calcamp.report.tables import pretty_unit

    assert pretty_unit(unit) == text


def test_empty_bins_of_a_histogram_are_not_bridged():
    import numpy as np
    from matplotlib.figure import Figure

    from calcamp.report.figures import draw_counts

    ax = Figure().add_subplot()
    draw_counts(ax, np.array([0.25, 0.75, 60.25]), np.array([5.0, 3.0, 20.0]), 0.5, "black")
    counts, edges, _ = ax.patches[0].get_data()
    assert (counts[0], counts[1], counts[-1], counts.sum()) == (5, 3, 20, 28)
    assert (edges[0], edges[-1], len(counts)) == (0.0, 60.5, 121)


def test_small_headline_numbers_are_shown_in_millionths(tmp_path):
    from calcamp.report.common import _headline_beam

    items = {
        (1, q): {"quantity": "trap_density", "value": v, "err": 1.6e-5, "unit": "trap/pixel"}
        for q, v in zip("EF", (6.3e-5, 2.15e-4), strict=True)
    }

    class Data:
        compliance = ()

    beam = _headline_beam(Data(), "trap_density", (("temperature_K", 153), ("region", "img")), items)
    assert beam.caption == "Trap density, temperature 153 K, image [10⁻⁶ trap/px]"
    assert [beam.cells[1, q].text for q in "EF"] == ["63 ± 16", "215 ± 16"]


def test_frames_without_others_of_their_column_have_no_drift_figure(bias, tmp_path):
    import shutil

    folder = tmp_path / "BIAS01"
    whole, built = bias
    shutil.copytree(whole, folder)
    path = folder / "tables" / "offsets.ecsv"
    header, _, body = path.read_text().rpartition("\nobsid")
    names, *rows = ("obsid" + body).splitlines()
    place = names.split().index("delta")
    rows = [" ".join("0.0" if k == place else v for k, v in enumerate(row.split())) for row in rows]
    path.write_text("\n".join([header, names, *rows, ""]))
    text = build_report(folder, pdf=False).html.read_text()
    assert "No column has several frames" in text
    assert "check_delta_offset" not in text
    assert "check_delta_offset" in built.html.read_text()


@pytest.mark.parametrize(
    ("value", "text"), [(6e-4, "6·10⁻⁴"), (7.6e-5, "7.6·10⁻⁵"), (3e7, "3·10⁷"), (0.86, "0.86"), (None, "")]
)
def test_limits_are_printed_without_idle_zeros(value, text):
    from calcamp.report.base import bound

    assert bound(value) == text


@pytest.mark.parametrize(
    ("name", "text"),
    [("tau", "τ"), ("chi2_dof", "χ²/dof"), ("trap_density", "Trap density"), ("t0", "t₀"), ("fwhm", "FWHM")],
)
def test_names_are_printed_for_people(name, text):
    from calcamp.report.base import title

    assert title(name) == text


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("temperature_K", 153, "temperature 153 K"),
        ("wavelength", 800, "wavelength 800 nm"),
        ("region", "ove", "overscan"),
        ("column", 2, "column 2"),
    ],
)
def test_keys_of_numbers_are_printed_with_their_unit(key, value, text):
    from calcamp.report.base import named_key

    assert named_key(key, value) == text


def test_modules_of_families_are_the_families():
    from calcamp.campaign.core import families

    assert set(family_modules()) == set(families())
