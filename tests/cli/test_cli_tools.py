"""The analyst's tools as a user types them."""

import json
import os
import pty
import select
import shutil
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.monitor.monitor_support import KEYS, START, Day, nominal

from calcamp.data.hk import HKWriter

needs_rsync = pytest.mark.skipif(not shutil.which("rsync"), reason="rsync is not installed")


@pytest.fixture
def day(tmp_path):
    found = Day(tmp_path / "12_Mar_19")
    found.hk(40)
    found.hk(3, CCD1_TEMP_T=-140.0)
    found.hk(20)
    found.expose(17283)
    return found


# ---- clean -----------------------------------------------------------------------------------------------
def results_tree(root):
    """Results of a session with bulky files, and what must stay."""
    test = root / "BIAS01"
    gone = {
        "prepared": [test / "ccd1/prep/EUC_1_CCD1.fits", test / "ccd3/prep/EUC_2_CCD3.fits"],
        "figures": [test / "figures/a.png", test / "figures/b.svg"],
        "logs": [root / "logs/basic/BIAS01_ccd1.log", root / "benchmarks/basic/BIAS01.tsv"],
    }
    kept = [
        test / "products/EUC_MASTERBIAS.fits",
        test / "ccd1/meta/products/x.fits",
        test / "ccd1/prep/prep.json",
        test / "tables/read_noise.ecsv",
        test / "verdict.json",
        test / "manifest.json",
        test / "BIAS01_report.pdf",
        root / "config/run.json",
        root / "config/logs/x.log",
        root / "FM1_D11.log",
    ]
    for path in [*kept, *(p for group in gone.values() for p in group)]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x" * 100)
    return gone, kept


@pytest.mark.parametrize("kind", ["prepared", "figures", "logs", "all-but-products"])
def test_clean_removes_its_kind_and_nothing_else(tmp_path, calcamp, kind):
    root = tmp_path / "results" / "D11"
    gone, kept = results_tree(root)
    outside = tmp_path / "outside"
    for folder in ("prep", "figures", "logs"):
        (outside / folder).mkdir(parents=True)
        (outside / folder / "precious.fits").write_text("x")
        (outside / folder / "precious.png").write_text("x")
        (outside / folder / "precious.log").write_text("x")
    (root / "BIAS01" / "ccd2").mkdir()
    (root / "BIAS01" / "ccd2" / "prep").symlink_to(outside / "prep")
    (root / "TP01").symlink_to(outside)
    (root / "BIAS01" / "figures" / "link.png").symlink_to(outside / "figures" / "precious.png")
    (root / "logs" / "more").symlink_to(outside / "logs")
    before = sorted(p for p in outside.rglob("*"))
    asked = calcamp("clean", root, "--kind", kind)
    assert asked.code == 1, "not on a terminal: nothing without --yes"
    assert all(p.exists() for group in gone.values() for p in group)
    listed = json.loads(calcamp("clean", root, "--kind", kind, "--dry-run", "--json").out)
    done = calcamp("clean", root, "--kind", kind, "--yes")
    assert done.code == 0, done.err
    for name, group in gone.items():
        for path in group:
            assert path.exists() == (kind not in (name, "all-but-products")), path
    assert listed["files"] == (6 if kind == "all-but-products" else 2)
    assert all(path.is_file() for path in kept)
    assert sorted(p for p in outside.rglob("*")) == before
    assert "removed BIAS01" in (root / "cleaned.log").read_text() or kind == "logs"


def test_clean_refuses_what_is_no_results(tmp_path, calcamp):
    (tmp_path / "home" / "logs").mkdir(parents=True)
    (tmp_path / "home" / "logs" / "a.log").write_text("x")
    assert calcamp("clean", tmp_path / "home", "--kind", "logs", "--yes").code == 2
    (tmp_path / "link").symlink_to(tmp_path / "home")
    assert calcamp("clean", tmp_path / "link", "--kind", "logs", "--yes").code == 2
    assert (tmp_path / "home" / "logs" / "a.log").exists()


def on_a_terminal(arguments, answers, cwd):
    """Run calcamp on a pseudo-terminal and type the answers, each when a question stands there; (code, screen)."""
    command = [str(Path(sys.executable).with_name("calcamp")), *map(str, arguments)]
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(cwd)
        os.execv(command[0], command)
    screen, answers = "", list(answers)
    while select.select([terminal], [], [], 30)[0]:
        try:
            piece = os.read(terminal, 4096).decode(errors="replace")
        except OSError:
            break
        if not piece:
            break
        screen += piece
        if screen.rstrip().endswith("[y/N]:") and answers:
            os.write(terminal, answers.pop(0).encode() + b"\n")
            screen += " "
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), screen


@pytest.mark.parametrize(
    ("answers", "questions", "removed"),
    [(["n"], 1, False), (["y", "n"], 2, False), (["y", "y"], 2, True), ([""], 1, False)],
)
def test_clean_asks_twice_on_a_terminal(tmp_path, answers, questions, removed):
    root = tmp_path / "results" / "D11"
    gone, kept = results_tree(root)
    (tmp_path / "results_atCALDATA").symlink_to(tmp_path / "results")
    code, screen = on_a_terminal(["clean", "results_atCALDATA/D11", "--kind", "prepared"], answers, tmp_path)
    assert screen.count("[y/N]:") == questions
    assert "BIAS01/ccd1/prep" in screen
    assert "2 files in all" in screen
    assert code == (0 if removed else 1), screen
    assert ("freed" if removed else "Nothing was removed") in screen
    assert all(path.exists() != removed for path in gone["prepared"])
    assert all(path.is_file() for path in [*kept, *gone["figures"], *gone["logs"]])


NAMES = st.sampled_from(
    ["ccd1", "prep", "figures", "logs", "products", "x.fits", "a.png", "b.log", "BIAS01", "tables"]
)
ENTRY = st.tuples(st.lists(NAMES, min_size=1, max_size=5), st.sampled_from(["file", "link", "folder"]))


def check_trees(base, trees):
    from calcamp.cli.clean import Kind, find, remove

    for number, entries in enumerate(trees):
        top = base / str(number)
        root, outside = top / "results", top / "outside"
        for folder in ("prep", "figures", "logs", "ccd1/prep"):
            (outside / folder).mkdir(parents=True)
            for name in ("x.fits", "a.png", "b.log"):
                (outside / folder / name).write_text("x")
        root.mkdir()
        (root / "summary.json").write_text("{}")
        for parts, kind in entries:
            path = root.joinpath(*parts)
            try:
                if kind == "folder":
                    path.mkdir(parents=True, exist_ok=True)
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                if kind == "file":
                    if not path.is_symlink():
                        path.write_text("x")
                else:
                    path.symlink_to(outside / parts[-1] if (outside / parts[-1]).exists() else outside)
            except OSError:
                continue  # a file where a folder is wanted
        before = {p: p.read_bytes() for p in outside.rglob("*") if p.is_file()}
        products = {
            p
            for p in root.rglob("*")
            if "products" in p.relative_to(root).parts and not p.is_symlink() and p.is_file()
        }
        remove(root, find(root, set(Kind)))
        assert {p: p.read_bytes() for p in outside.rglob("*") if p.is_file()} == before
        assert all(p.is_file() for p in products)
        shutil.rmtree(top)


@given(st.lists(ENTRY, max_size=14))
@settings(max_examples=150)
def test_clean_touches_nothing_outside(tmp_path_factory, entries):
    check_trees(tmp_path_factory.mktemp("tree"), [entries])


@pytest.mark.full
@given(st.lists(st.lists(ENTRY, max_size=14), min_size=50, max_size=50))
@settings(max_examples=20)
def test_clean_touches_nothing_outside_many(tmp_path_factory, trees):
    check_trees(tmp_path_factory.mktemp("trees"), trees)


# ---- logs, reports -----------------------------------------------------------------------------------------
def test_merge_logs(tmp_path, calcamp, day):
    log = day.folder / "EXP_LOG_120319.txt"
    one = calcamp("merge-logs", day.folder, "-O", "one.txt")
    assert one.code == 0, one.err
    assert (tmp_path / "one.txt").read_bytes() == log.read_bytes(), "one log stays as it is, to the byte"
    assert calcamp("merge-logs", day.folder, "-O", "one.txt").code == 2, "no output is overwritten"
    other = tmp_path / "EXP_LOG_130319.txt"
    other.write_bytes(log.read_bytes().replace(b"17283", b"17284"))
    (tmp_path / "bad.txt").write_text("nothing")
    (tmp_path / "list.txt").write_text(f"# logs\n{log}\nEXP_LOG_130319.txt\nbad.txt\n")
    assert calcamp("merge-logs", "-L", "list.txt", "-O", "two.txt").code == 2
    two = calcamp("merge-logs", "-L", "list.txt", "-O", "two.txt", "--skip-bad")
    assert two.code == 0
    assert "left out" in two.err
    assert len((tmp_path / "two.txt").read_text().splitlines()) == 7


def test_times_of_old_logs_survive_the_merge(tmp_path, calcamp):
    """Before 6.3 exposure times were in ms: read once, they are seconds, also beside a log of today."""
    from calcamp.data.explog import ExpLogWriter, read_explog

    for obsid, (version, name) in enumerate({"6.1.0": "110319", "7.5.X": "120319"}.items(), 100):
        row = {"ObsID": obsid, "date": f"{name}D071040T", "test": "BIAS01", "exptime": 2.5}
        writer = ExpLogWriter(tmp_path / f"EXP_LOG_{name}.txt", version)
        writer.write(
            *(
                {**row, "CCD": f"CCD{c}", "File_name": f"EUC_{obsid}_{name}D071040T_ROE1_CCD{c}"}
                for c in (1, 2, 3)
            )
        )
    (tmp_path / "old.txt").write_text("EXP_LOG_110319.txt\n")
    assert calcamp("merge-logs", "-L", "old.txt", "-O", "one.txt").code == 0
    assert {row["exptime"] for row in read_explog(tmp_path / "one.txt").rows} == {2.5}
    (tmp_path / "both.txt").write_text("EXP_LOG_110319.txt\nEXP_LOG_120319.txt\n")
    assert calcamp("merge-logs", "-L", "both.txt", "-O", "two.txt").code == 0
    merged = read_explog(tmp_path / "two.txt")
    assert [(row["ObsID"], row["exptime"]) for row in merged.rows] == [
        (n, 2.5) for n in (100,) * 3 + (101,) * 3
    ]


def test_merge_reports(tmp_path, calcamp):
    from pypdf import PdfReader

    from calcamp.report.pdf import plain_pdf

    for n, (session, test) in enumerate((("D11", "TP01"), ("D11", "BIAS01"), ("D12", "DARK01"))):
        folder = tmp_path / session / test
        folder.mkdir(parents=True)
        verdict = {
            "session": session,
            "test": test,
            "block": "NOSTROMO",
            "verdict": "fail",
            "obsids": [100 - n, 101 - n],
        }
        (folder / "verdict.json").write_text(
            json.dumps({**verdict, "flags": [{"name": "HK_OOL", "cause": "<b>"}]})
        )
        plain_pdf([f"line of {test}"] * 100, folder / f"{test}_report.pdf")
    (tmp_path / "D12" / "FLAT01").mkdir()
    (tmp_path / "D12" / "FLAT01" / "verdict.json").write_text("{}")
    done = calcamp("merge-reports", "D11", "D12", "-o", "all.pdf", "--reference", "REF-1")
    assert done.code == 1, "one test has no report"
    assert "FLAT01: no report" in done.err
    reader = PdfReader(tmp_path / "all.pdf")
    assert [item.title for item in reader.outline] == ["Contents", "D11: BIAS01", "D11: TP01", "D12: DARK01"]
    front = reader.pages[0].extract_text()
    for text in ("NOSTROMO", "REF-1", "HK_OOL", "D12: DARK01"):
        assert text in front
    for item in reader.outline[1:]:
        page = reader.get_destination_page_number(item)
        assert f"line of {item.title.split()[1]}" in reader.pages[page].extract_text()
        row = next(line for line in front.splitlines() if item.title in line)
        assert row.split()[-1] == str(page + 1)
    assert calcamp("merge-reports", "D11", "-o", "all.pdf").code == 2


def test_merge_reports_of_a_block(tmp_path, calcamp):
    """A block of two sessions over three days, in parts; reports keep their own bookmarks."""
    from pypdf import PdfReader, PdfWriter

    from calcamp.report.pdf import plain_pdf

    tests = {
        "D11/BIAS01": "12_Mar_19",
        "D11/TP01": "12_Mar_19",
        "D12/DARK01": "13_Mar_19",
        "D12/TP01": "14_Mar_19",
    }
    for n, (place, day) in enumerate(tests.items()):
        session, test = place.split("/")
        folder = tmp_path / "results" / place
        folder.mkdir(parents=True)
        verdict = {"session": session, "test": test, "verdict": "pass", "obsids": [10 * n, 10 * n + 9]}
        (folder / "verdict.json").write_text(json.dumps({**verdict, "day_folders": [f"../data/{day}"]}))
        plain_pdf([f"line of {place}"] * 100, tmp_path / "one.pdf")
        writer = PdfWriter()
        writer.append(tmp_path / "one.pdf")
        writer.add_outline_item(title="Results", page_number=1)
        writer.write(folder / f"{test}_report.pdf")
    (tmp_path / "results_link").symlink_to(tmp_path / "results")
    text = (
        "block: NOSTROMO\nprogramme: FM\nreference: EUCL-MSS-TR-7\nissue: 2.0\noutput: out/all.pdf\n"
        "parts:\n  Bias and dark: [results_link/D11/BIAS01, results/D12/DARK01]\n  Trap pumping: [results/D11/TP01, results/D12/TP01]\n"
        "  All of D12: [results/D12]\n"
    )
    (tmp_path / "reports.yaml").write_text(text)
    (tmp_path / "out").mkdir()
    done = calcamp("merge-reports", "reports.yaml")
    assert done.code == 0, done.err
    reader = PdfReader(tmp_path / "out" / "all.pdf")
    front = reader.pages[0].extract_text()
    for words in (
        "Test Reports, NOSTROMO",
        "EUCL-MSS-TR-7",
        "issue 2.0",
        "Programme FM",
        "14_Mar_19",
        "Trap pumping",
    ):
        assert words in front, words
    titles = [item if isinstance(item, list) else item.title for item in reader.outline]
    assert [t for t in titles if isinstance(t, str)] == [
        "Contents",
        "Bias and dark",
        "Trap pumping",
        "All of D12",
    ]
    first = titles[2]
    assert [i.title for i in first if not isinstance(i, list)] == ["D11: BIAS01", "D12: DARK01"]
    assert [i.title for i in first[1]] == ["Results"]
    for item in (i for part in titles if isinstance(part, list) for i in part if not isinstance(i, list)):
        page = reader.get_destination_page_number(item)
        assert f"line of {item.title.replace(': ', '/')}" in reader.pages[page].extract_text()
    assert calcamp("merge-reports", "reports.yaml").code == 2, "the output is there"
    (tmp_path / "bad.yaml").write_text(text.replace("parts:", "part:"))
    bad = calcamp("merge-reports", "bad.yaml")
    assert bad.code == 2
    assert "did you mean parts" in bad.err or "parts" in bad.err
    (tmp_path / "gone.yaml").write_text(
        text.replace("results/D11/TP01", "results/D99").replace("out/all", "out/b")
    )
    gone = calcamp("merge-reports", "gone.yaml")
    assert (gone.code, "results/D99" in gone.err) == (2, True)


# ---- show, hk-report, quicklook --------------------------------------------------------------------------
def test_show(tmp_path, calcamp, day):
    from calcamp.data.fitsfile import write_product
    from calcamp.data.tables import write_table

    table = tmp_path / "noise.ecsv"
    write_table(
        table,
        {
            "obsid": [1, 2, 3],
            "quadrant": ["E", "F", "G"],
            "noise": [1.0, None, 1.5],
            "noise_err": [0.1, None, 0.1],
        },
        units={"noise": "adu"},
    )
    shown = calcamp("show", table, "--plot", "noise.png")
    assert "noise [adu] 1 … 1.5" in shown.out
    assert (tmp_path / "noise.png").read_bytes()[:4] == b"\x89PNG"
    assert calcamp("show", table, "--csv", "--column", "noise").out.split() == ["noise", "1.0", '""', "1.5"]
    product = tmp_path / "EUC_MASK.fits"
    write_product(product, {"BLOCK": "NOSTROMO"}, [("MASK", np.eye(40, dtype=np.int32), "", {})])
    shown = calcamp("show", product, "--plot", "mask.png")
    assert "BLOCK = NOSTROMO" in shown.out
    assert "40 not 0" in shown.out
    raw = next(day.folder.glob("*CCD1.fits"))
    assert "ccd273-mini" in calcamp("show", raw).out
    assert "1 exposures" in calcamp("show", day.folder / "EXP_LOG_120319.txt").out
    assert "min -140" in calcamp("show", day.hk_file.path, "--column", "CCD1_TEMP_T").out
    (tmp_path / "verdict.json").write_text(
        json.dumps({"test": "B", "flags": [{"name": "X\x1b[31m"}], "compliance": []})
    )
    assert "\x1b" not in calcamp("show", tmp_path).out
    (tmp_path / "a.pkl").write_text("x")
    for name in ("a.pkl", "absent", raw.parent / "nothing.txt"):
        assert calcamp("show", name).code == 2
    (tmp_path / "broken.fits").write_bytes(b"SIMPLE  =" + b"x" * 5000)
    assert calcamp("show", tmp_path / "broken.fits").code == 2


def test_hk_report(tmp_path, calcamp, day):
    done = calcamp("hk-report", day.folder, "--no-pdf", "--key", "CCD1_TEMP_T", "--key", "FPGA_VCCD_V")
    assert done.code == 1, done.err
    assert "1 periods" in done.out
    html = (tmp_path / "hk_report" / "HK_12_Mar_19.html").read_text()
    assert "2019-03-12 07:00:40" in html
    assert "2019-03-12 07:00:42" in html
    assert (tmp_path / "hk_report" / "figures" / "hk_01.png").is_file()
    quiet = calcamp(
        "hk-report", day.folder, "--no-pdf", "--until", "2019-03-12T07:00:30", "--key", "CCD1_TEMP_T"
    )
    assert quiet.code == 0
    assert calcamp("hk-report", day.folder, "--since", "yesterday").code == 2
    # nothing looked at is no all-clear
    for span in (
        ["--obsid", 9, 5],
        ["--obsid", 5, 9],
        ["--since", "2030-01-01"],
        ["--since", "2019-03-13", "--until", "2019-03-11"],
    ):
        refused = calcamp("hk-report", day.folder, "--no-pdf", *span)
        assert refused.code == 2, span
        assert "periods out of limits" not in refused.out
    # with the files of single exposures: their means are drawn, and --obsid chooses the period
    for n in (0, 1):
        start = START + timedelta(seconds=10 * n)
        own = HKWriter(day.folder / f"HK_{17283 + n}_{start:%d%m%yD%H%M%ST}_ROE1.txt")
        own.write(*((start + timedelta(seconds=k), {key: nominal(key) for key in KEYS}) for k in range(5)))
    means = calcamp(
        "hk-report",
        day.folder,
        "--obsid",
        "17283",
        "17284",
        "--no-pdf",
        "--key",
        "FPGA_VCCD_V",
        "--into",
        "m",
    )
    assert means.code == 0, means.err
    assert "could not be made" not in means.err
    assert "2 exposures" in (tmp_path / "m" / "HK_12_Mar_19_17283-17284.html").read_text()
    assert calcamp("hk-report", tmp_path).code == 2


def test_quicklook(tmp_path, calcamp, day):
    (day.folder / "EUC_17284_120319D071130T_ROE1_CCD1.fits").write_bytes(b"SIMPLE")
    done = calcamp("quicklook", day.folder, "-c", "1", "--no-pdf")
    assert done.code == 1, "one image cannot be read"
    html = (tmp_path / "quicklook" / "quicklook_12_Mar_19_CCD1.html").read_text()
    assert "OBSID 17283, CCD1" in html
    assert "OBSID 17284, CCD1" in html
    assert html.count("<img") >= 2


# ---- ds9, back-up, monitor -----------------------------------------------------------------------------
FAKE = """#!/bin/sh
echo "$(basename $0) $*" >> {log}
case "$0 $*" in
*"xpaget xpans"*) printf 'DS9 one gs {one} me\\nDS9 two gs {two} me\\n';;
*regions*) cat >> {log};;
esac
"""


@pytest.fixture
def xpa(tmp_path, monkeypatch):
    """XPA programs that write down what they are asked, with two DS9s running."""
    folder, log = tmp_path / "bin", tmp_path / "calls"
    folder.mkdir()
    for name in ("xpaget", "xpaset", "ds9"):
        (folder / name).write_text(FAKE.format(log=log, one="/s/one", two="/s/two"))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XPA_METHOD", "unix")
    return log


def test_ds9_names_one_instance(tmp_path, calcamp, day, xpa):
    assert calcamp("ds9", "--list").out == "one\t/s/one\ntwo\t/s/two\n"
    refused = calcamp("ds9", "-p", day.folder, "17283")
    assert refused.code == 2
    assert "one (/s/one), two (/s/two)" in refused.err
    assert calcamp("ds9", "-p", day.folder, "17283", "-d", "*").code == 2
    xpa.unlink()
    done = calcamp("ds9", "-p", day.folder, "-c", "1", "-c", "3", "-d", "two", "17283", "17284")
    assert done.code == 0, done.err
    assert "OBSID 17284 CCD1: no image, skipped" in done.err
    calls = [line for line in xpa.read_text().splitlines() if line.startswith("xpaset")]
    assert len([c for c in calls if " file " in c]) == 2
    assert all(c.split()[2] == "/s/two" for c in calls), "no command reaches another instance"
    assert calcamp("ds9", "-p", day.folder, "-t", "../%i%i%i", "-d", "one", "1").code == 2


def test_ds9_draws_masks_and_spots(tmp_path, calcamp, day, xpa):
    from calcamp.data.fitsfile import write_product
    from calcamp.data.tables import write_table

    mask = np.zeros((50, 40), np.int32)
    mask[10:20, 7] = 1
    write_product(tmp_path / "mask.fits", {}, [("MASK", mask, "", {})])
    write_table(
        tmp_path / "stars.ecsv",
        {"ccd": [1], "quadrant": ["E"], "star": ["ALPHA"], "x_ccd": [100.0], "y_ccd": [200.0]},
    )
    image = next(day.folder.glob("*CCD1.fits"))
    done = calcamp("ds9", "--file", image, "-d", "one", "--mask", "mask.fits", "--spots", "stars.ecsv")
    assert done.code == 0, done.err
    text = xpa.read_text()
    assert "box(8,15.5,1,10,0)" in text
    assert "circle(101.000,201.000,15) # text={EALPHA}" in text


@needs_rsync
def test_verify_backup(tmp_path, calcamp, day):
    shutil.copytree(day.folder, tmp_path / "young" / day.folder.name)
    young = calcamp("verify-backup", day.folder, tmp_path / "young", "--state", "young_state")
    assert young.code == 1, "nothing could be verified"
    assert "5 files changed in the last minute" in young.out
    for path in day.folder.iterdir():
        os.utime(path, (1e9, 1e9))
    target = tmp_path / "backup"
    shutil.copytree(day.folder, target / day.folder.name)
    good = calcamp("verify-backup", day.folder, target)
    assert good.code == 0, good.out + good.err
    assert "5 files verified" in good.out
    victim = next((target / day.folder.name).glob("*CCD2.fits"))
    data = bytearray(victim.read_bytes())
    data[9999] ^= 4
    victim.write_bytes(data)
    os.utime(victim, (1e9, 1e9))
    assert calcamp("verify-backup", day.folder, target).code == 0, "verified a moment ago"
    bad = calcamp("verify-backup", day.folder, target, "--hours", "0", "--json")
    assert bad.code == 1
    assert json.loads(bad.out)["differing"] == [victim.name]
    assert calcamp("verify-backup", day.folder, tmp_path / "nowhere").code == 2


def test_monitor_refuses_what_cannot_work(tmp_path, calcamp, monkeypatch):
    for kind in ("EMAIL", "SMS", "CALL", "CHAT"):
        monkeypatch.delenv(f"CALCAMP_WARN_{kind}", raising=False)
    assert "DAY_FOLDER" in calcamp("monitor").err
    assert "no channel" in calcamp("monitor", "12_Mar_19", "--warn").err
    monkeypatch.setenv("CALCAMP_WARN_SMS", "nothing://canary")
    done = calcamp("monitor", "12_Mar_19", "--warn")
    assert done.code == 2
    assert "canary" not in done.err
    assert calcamp("monitor", "12_Mar_19", "--tag", "../x").code == 2
    assert calcamp("monitor", "12_Mar_19", "--broadcast", "a@b::module").code == 2
    settings_file = tmp_path / "monitor.yaml"
    settings_file.write_text("periods: {house_keeping: 0}\n")
    bad = calcamp("monitor", "12_Mar_19", "--config", settings_file)
    assert bad.code == 2
    assert "monitor.yaml" in bad.err
    assert isinstance(tmp_path, Path)


def test_test_warning(tmp_path, calcamp, monkeypatch):
    from tests.monitor.monitor_support import webhook

    with webhook() as (port, got):
        monkeypatch.setenv("CALCAMP_WARN_SMS", f"json://127.0.0.1:{port}/")
        assert calcamp("monitor", "--test-warning").code == 0
        monkeypatch.setenv("CALCAMP_WARN_EMAIL", "json://127.0.0.1:9/")
        done = calcamp("monitor", "--test-warning")
    assert done.code == 1
    assert "email-1 (email): NOT sent" in done.out
    assert len(got) == 2
    assert "test of the warnings" in got[0]["message"]
