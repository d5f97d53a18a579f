"""calcamp scripts: the cook-book's example, YAML and JSON, differences, and every kind of bad input."""

import contextlib
import copy
import json
import re
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cli.cli_support import NOSTROMO, tree, write_json

from calcamp.campaign.catalogue import FULL
from calcamp.campaign.scripts import read_input
from calcamp.config.errors import ConfigError
from calcamp.config.yamlfile import dump_yaml


def test_the_cook_books_example(calcamp, scripts, tmp_path):
    assert (
        (scripts / "TESTS_INVENTORY_01Apr19.txt")
        .read_text()
        .endswith("\n 168 Frames Total\n\n 310.33 Minutes Total\n")
    )
    done = calcamp("scripts", "scripts.json")
    assert done.out.splitlines()[:3] == ["WRITING SCRIPTS...", "CHINJ02...", "BIAS01..."]
    assert "9 tests, 168 frames, 310.33 minutes (5 h 10 min)" in done.out
    assert "vis_CalCamp_FOCUS00_800_01Apr19_v7.5.X.xlsx" in done.out


def test_yaml_gives_the_same_scripts_as_json(calcamp, scripts, tmp_path):
    from calcamp.data.scripts import compare_scripts, read_script

    (tmp_path / "scripts.yaml").write_text(dump_yaml({**NOSTROMO, "outpath": "again"}))
    assert calcamp("scripts", "scripts.yaml").code == 0
    for path in scripts.glob("vis_*.xlsx"):
        assert compare_scripts(read_script(path), read_script(tmp_path / "again" / path.name)) == []


def test_a_block_gives_serials_and_chamber(calcamp, scripts, tmp_path):
    data = {k: v for k, v in NOSTROMO.items() if k not in ("equipment", "CHAMBER")} | {"block": "NOSTROMO"}
    (tmp_path / "block.yaml").write_text(dump_yaml({**data, "outpath": "again"}))
    done = calcamp("scripts", "block.yaml", "--diff", scripts)
    assert done.code == 0, done.err
    assert "9 tests unchanged" in done.out


def test_dry_run_writes_nothing(calcamp, tmp_path):
    write_json(tmp_path / "scripts.json", NOSTROMO)
    before = tree(tmp_path)
    done = calcamp("scripts", "scripts.json", "-n")
    assert done.code == 0
    assert "BIAS01: 1 [15.58 min] cols: [10]" in done.out
    assert tree(tmp_path) == before


def test_json_for_programs(calcamp, tmp_path):
    write_json(tmp_path / "scripts.json", NOSTROMO)
    done = calcamp("scripts", "scripts.json", "--json", "-o", tmp_path / "here")
    found = json.loads(done.out)
    assert (found["frames"], len(found["tests"])) == (168, 9)
    assert round(found["minutes"], 2) == 310.33


def test_diff_shows_exactly_what_changed(calcamp, scripts, tmp_path):
    changed = copy.deepcopy(NOSTROMO)
    changed["equipment"]["sn_ccd2"] = "14888-88-99"
    changed["outpath"] = "new"
    changed["toWrite"] = {"BIAS01": 1, "FOCUS00": 1, "DARK01": 1}
    write_json(tmp_path / "changed.json", changed)
    shutil.copytree(config_with(tmp_path, 47.31), tmp_path / "config", dirs_exist_ok=True)
    done = calcamp("scripts", "changed.json", "--diff", scripts)
    told = done.out.split("changes since")[1].splitlines()[1:]
    assert [line.strip() for line in told] == [
        "all tests:",
        "sn_ccd2: 14888-88-82 -> 14888-88-99",
        "FOCUS00_590:",
        "mirr_pos: 46.4, 46.6 .. 48 -> 46.51, 46.71 .. 48.11 (columns 1-9, +0.11)",
        "FOCUS00_730:",
        "mirr_pos: 46.4, 46.6 .. 48 -> 46.51, 46.71 .. 48.11 (columns 1-9, +0.11)",
        "FOCUS00_800:",
        "mirr_pos: 46.4, 46.6 .. 48 -> 46.51, 46.71 .. 48.11 (columns 1-9, +0.11)",
        "FOCUS00_880:",
        "mirr_pos: 46.4, 46.6 .. 48 -> 46.51, 46.71 .. 48.11 (columns 1-9, +0.11)",
        "DARK01: not in the old folder",
        *(f"{test}: not written now" for test in ("BIAS02", "CHINJ01", "CHINJ02", "TP01")),
    ]


def config_with(tmp_path, focus):
    from calcamp.config.lookup import find_file

    folder = tmp_path / "made" / "config" / "chambers"
    folder.mkdir(parents=True)
    text = find_file("chambers", "B_NOSTROMO", tmp_path).read_text()
    (folder / "B_NOSTROMO.yaml").write_text(text.replace("47.2,", f"{focus},").replace("47.2}", f"{focus}}}"))
    return folder.parent


def test_older_scripts_in_the_folder_are_told(calcamp, scripts, tmp_path):
    old = scripts / "vis_CalCamp_BIAS01_01Apr19_v7.5.X.xlsx"
    old.rename(scripts / "vis_CalCamp_BIAS01_02Mar19_v7.5.X.xlsx")
    done = calcamp("scripts", "scripts.json")
    assert done.code == 0
    assert "vis_CalCamp_BIAS01_02Mar19_v7.5.X.xlsx" in done.err


# ---- bad input -----------------------------------------------------------------------------------
def without(key):
    return lambda d: d.pop(key)


BAD = {
    "missing outpath": (without("outpath"), "outpath"),
    "missing equipment": (without("equipment"), "equipment"),
    "missing CHAMBER": (without("CHAMBER"), "CHAMBER"),
    "missing elvis": (without("elvis"), "elvis"),
    "missing camptype": (without("camptype"), "camptype"),
    "missing toWrite": (without("toWrite"), "toWrite"),
    "missing serial": (lambda d: d["equipment"].pop("sn_roe"), "sn_roe"),
    "number as serial": (lambda d: d["equipment"].update(sn_roe=15), "sn_roe"),
    "control character": (lambda d: d["equipment"].update(sn_roe="a\x07b"), "sn_roe"),
    "extra key": (lambda d: d.update(chamber="B_BORN"), "chamber"),
    "misspelt serial": (lambda d: d["equipment"].update(sn_rpus="x"), "sn_rpus.*sn_rpsu"),
    "unknown handle": (lambda d: d["toWrite"].update(BIAS03=1), "BIAS03.*BIAS01"),
    "unknown handle not asked for": (lambda d: d["toWrite"].update(BIAS03=0), "BIAS03"),
    "handle of MOT": (lambda d: d["toWrite"].update(MOT_FF=1), "MOT_FF.*MOT"),
    "test in place of handle": (lambda d: d["toWrite"].update(PTC02_730=1), "PTC02_730.*PTC02WAVE"),
    "malformed tag": (lambda d: d["toWrite"].update({"BIAS01.x": 1}), r"BIAS01\.x"),
    "two in place of one": (lambda d: d["toWrite"].update(BIAS01=2), "BIAS01"),
    "nothing asked for": (lambda d: d.update(toWrite={"BIAS01": 0}), "no handle"),
    "unsupported ELVIS": (lambda d: d.update(elvis="6.0.0"), r"6\.0\.0.*7\.5\.X"),
    "unknown campaign": (lambda d: d.update(camptype="Medium"), "Medium.*Full"),
    "unknown chamber": (lambda d: d.update(CHAMBER="B_NOSTRMO"), "B_NOSTRMO.*B_NOSTROMO"),
    "chamber is a path": (lambda d: d.update(CHAMBER="../../etc/passwd"), "CHAMBER|passwd"),
    "no parent folder": (lambda d: d.update(outpath="a/b/c"), "parent"),
    "outpath is a file": (lambda d: d.update(outpath="scripts.json"), "is a file"),
    "missing wavelength": (
        lambda d: d.update(CHAMBER="A_CBE_AUG18", toWrite={"FLATFLUX00": 1}),
        "A_CBE_AUG18.*2000 nm",
    ),
    "not an object": (None, "mapping|list"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_stops_before_anything_is_written(calcamp, tmp_path, name):
    change, said = BAD[name]
    data = copy.deepcopy(NOSTROMO)
    if change is None:
        data = [data]
    else:
        change(data)
    write_json(tmp_path / "scripts.json", data)
    before = tree(tmp_path)
    done = calcamp("scripts", "scripts.json")
    assert done.code == 2
    assert re.search(said, done.err, re.S), done.err
    assert "Traceback" not in done.err
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"elvis": "7.5.X", # version\n}', "line 1|:1.*comments"),
        ('{"elvis": "7.5.X", "elvis": "7.5.X"}', "twice"),
        ('{"toWrite": {"BIAS01": 1,\n "BIAS01": 0}}', ":2.*BIAS01.*twice"),
        ("", "JSON"),
        ("[" * 100_000, "JSON"),
        ('{"elvis": NaN}', "NaN"),
        ("\udcff".encode("utf-8", "surrogateescape").decode("latin-1"), "JSON|UTF-8"),
    ],
)
def test_files_that_are_not_json(calcamp, tmp_path, text, said):
    (tmp_path / "scripts.json").write_text(text, encoding="utf-8")
    done = calcamp("scripts", "scripts.json")
    assert done.code == 2
    assert re.search(said, done.err), done.err


def test_the_line_of_a_fault_is_told(calcamp, tmp_path):
    data = copy.deepcopy(NOSTROMO)
    data["toWrite"]["BIAS09"] = 1
    path = write_json(tmp_path / "scripts.json", data)
    line = next(n for n, text in enumerate(path.read_text().splitlines(), 1) if "BIAS09" in text)
    assert f"scripts.json:{line}:" in calcamp("scripts", "scripts.json").err


def test_no_file_and_no_old_folder(calcamp, tmp_path):
    assert calcamp("scripts", "absent.json").code == 2
    write_json(tmp_path / "scripts.json", NOSTROMO)
    done = calcamp("scripts", "scripts.json", "--diff", "absent")
    assert done.code == 2
    assert not (tmp_path / NOSTROMO["outpath"]).exists()


# ---- any valid input round-trips; any damage gives a message ---------------------------------------
words = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), max_size=30)
valid = st.fixed_dictionaries(
    {
        "equipment": st.fixed_dictionaries(dict.fromkeys(NOSTROMO["equipment"], words)),
        "elvis": st.just("7.5.X"),
        "CHAMBER": st.sampled_from(["B_NOSTROMO", "A_MAX", "B_BORN"]),
        "camptype": st.just("Full"),
        "outpath": st.text("abcXYZ_-. 0123", min_size=1, max_size=20).filter(lambda t: t.strip(" .")),
        "toWrite": st.dictionaries(
            st.builds(
                lambda h, n: h if n is None else f"{h}.{n}",
                st.sampled_from(FULL),
                st.none() | st.integers(0, 99),
            ),
            st.sampled_from([0, 1, True, False]),
            min_size=1,
            max_size=8,
        ).filter(lambda d: any(d.values())),
    }
)


@settings(max_examples=60)
@given(data=valid)
def test_any_valid_input_round_trips(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("v")
    write_json(folder / "x.json", data)
    (folder / "x.yaml").write_text(dump_yaml(data))
    from_json, from_yaml = read_input(folder / "x.json"), read_input(folder / "x.yaml")
    for read in (from_json, from_yaml):
        kept = read.model_dump(exclude={"block"})
        assert kept == data
        assert list(read.toWrite) == list(data["toWrite"])
        assert read.asked() == [handle for handle, wanted in data["toWrite"].items() if wanted]


@settings(max_examples=150)
@given(data=valid, rng=st.randoms(use_true_random=False), suffix=st.sampled_from([".json", ".yaml"]))
def test_any_damaged_input_gives_a_message(tmp_path_factory, data, rng, suffix):
    folder = tmp_path_factory.mktemp("d")
    text = bytearray((json.dumps(data) if suffix == ".json" else dump_yaml(data)).encode())
    for _ in range(rng.randrange(1, 4)):
        position = rng.randrange(len(text))
        match rng.randrange(4):
            case 0:
                text[position] ^= 1 << rng.randrange(8)
            case 1:
                del text[position : position + rng.randrange(1, 30)]
            case 2:
                text[position:position] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 8)))
            case 3:
                del text[position:]
        if not text:
            break
    path = folder / f"x{suffix}"
    path.write_bytes(bytes(text))
    with contextlib.suppress(ConfigError):  # anything else is a fault of ours
        read_input(path)
