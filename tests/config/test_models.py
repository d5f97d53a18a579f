"""Sessions, blocks, chambers: bad input told with line and remedy, round trips, lookup."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calcamp.config.block import Block
from calcamp.config.chamber import Chamber, ShutterTable
from calcamp.config.errors import ConfigError, ConfigErrors
from calcamp.config.limits import NAMES
from calcamp.config.lookup import (
    find_file,
    load_all,
    load_block,
    load_chamber,
    load_detector,
    load_limits,
    load_session,
)
from calcamp.config.products import pick_product
from calcamp.config.session import Exclusion, Session
from calcamp.config.yamlfile import dump_yaml

GOOD = """\
session: D11
block: NOSTROMO
elvis: 7.5.X
data: {root: ../data, day_folders: [12_Mar_19, 13_Mar_19]}
results: res
tests:
  BIAS01: {obsids: [17283, 17292], do: [check, basic, meta]}
  DARK01:
    exclude: {18011: lamp off, CCD2/18013: dropped rows, CCD3/E/18014: glitch}
    limits: {RON: [0.8, 1.5], fwhm: {low: 1, high: null, columns: [2]}, her: false}
"""


@pytest.fixture
def workspace(tmp_path) -> Path:
    (tmp_path / "config/sessions").mkdir(parents=True)
    (tmp_path / "config/blocks").mkdir()
    (tmp_path / "config/sessions/D11.yaml").write_text(GOOD)
    return tmp_path


def told(text: str, model=Session) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        model.from_text(text, "D11.yaml")
    lines = str(caught.value).splitlines()
    assert all(line.startswith("D11.yaml") for line in lines)
    assert len(lines) == len(caught.value.errors)
    return lines


def test_good_session(workspace):
    session = load_session(workspace / "config/sessions/D11.yaml")
    here = workspace / "config"
    assert session.data_folders() == [here / "data/12_Mar_19", here / "data/13_Mar_19"]
    assert session.results_root == here / "sessions/res"
    assert session.tests["BIAS01"].obsids == [17283, 17292]
    assert session.tests["DARK01"].do == "all"
    assert session.tests["DARK01"].exclusions() == [
        Exclusion(18011, "lamp off"),
        Exclusion(18013, "dropped rows", 2),
        Exclusion(18014, "glitch", 3, "E"),
    ]
    assert session.tests["DARK01"].limit_overrides() == {
        "read_noise": {"low": 0.8, "high": 1.5},
        "fwhm": {"low": 1.0, "high": None, "columns": [2]},
        "her": {"applies": False},
    }


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("results: res", "result: res", 5, "result: unknown key; did you mean 'results'?"),
        ("obsids:", "obsid:", 7, "tests.BIAS01.obsid: unknown key; did you mean 'obsids'"),
        ("elvis: 7.5.X", "elvis: 7.5", 3, "found 7.5, expected '7.5.X'"),
        ("elvis: 7.5.X", "mode: watch", 3, "found \"watch\", expected 'aim' or 'wait'"),
        ("elvis: 7.5.X", "check_only: maybe", 3, 'found "maybe", expected true or false'),
        ("elvis: 7.5.X", "check_only: 1", 3, "found 1, expected true or false"),
        ("elvis: 7.5.X", "wait: {poll_s: 0}", 3, "found 0, expected a number > 0"),
        ("elvis: 7.5.X", "wait: {poll: 5}", 3, "did you mean 'poll_s'"),
        ("elvis: 7.5.X", "wait: {poll_s: fast}", 3, "time between two looks"),
        ("session: D11", "session: a/b", 1, "expected a name"),
        ("session: D11", "session: ..", 1, "expected a name"),
        ("session: D11", "session: $(reboot)", 1, "expected a name"),
        ("block: NOSTROMO", "block: 3", 2, "found 3, expected text"),
        ("block: NOSTROMO\n", "", 1, "block: missing"),
        ("[17283, 17292]", "[17283]", 7, "at least 2 items"),
        ("[17283, 17292]", "[17292, 17283]", 7, "swap them"),
        ("[17283, 17292]", "[a, 17292]", 7, 'tests.BIAS01.obsids[0]: found "a", expected a whole number'),
        ("[17283, 17292]", "[1.5, 2]", 7, "found 1.5, expected a whole number"),
        ("[17283, 17292]", "[-1, 2]", 7, "expected a number >= 0"),
        ("[check, basic, meta]", "basic", 7, "expected all, or a list"),
        ("[check, basic, meta]", "[]", 7, "empty list"),
        ("[check, basic, meta]", "[check, check]", 7, "listed twice"),
        ("[check, basic, meta]", "[check, 3]", 7, "found 3 in the list"),
        ("BIAS01:", "bias01:", 7, "expected the name of a test"),
        ("BIAS01:", '"BIAS01; rm":', 7, "expected the name of a test"),
        ("CCD2/18013", "CCD4/18013", 9, "expected an OBSID"),
        ("lamp off", "", 9, "expected the reason"),
        ("RON:", "RONN:", 10, "did you mean 'RON'"),
        ("[0.8, 1.5]", "[1.5, 0.8]", 10, "swap them"),
        ("[0.8, 1.5]", "[0.8]", 10, "expected [low, high]"),
        ("[0.8, 1.5]", "[few, 1.5]", 10, 'limits.RON[0]: found "few", expected a number'),
        ("[0.8, 1.5]", "[0.8, .nan]", 10, "limits.RON[1]: found nan, expected a finite number"),
        ("[0.8, 1.5]", "[-.inf, 1.5]", 10, "expected a finite number"),
        ("[0.8, 1.5]", "[null, null]", 10, "neither low nor high"),
        ("her: false", "read_noise: [1, 2]", 10, "RON and read_noise are the same limit"),
        ("day_folders: [12_Mar_19, 13_Mar_19]", "day_folders: 12_Mar_19", 4, "expected a list"),
        ("day_folders: [12_Mar_19, 13_Mar_19]", "day_folders: []", 4, "at least 1 item"),
        ("data: {root: ../data, day_folders: [12_Mar_19, 13_Mar_19]}\n", "", 1, "no data for BIAS01"),
        ("elvis: 7.5.X", "products: {masks: {1: a}}", 3, "did you mean 'mask'"),
        ("elvis: 7.5.X", "products: {mask: {4: a}}", 3, "expected 1, 2 or 3"),
        ("elvis: 7.5.X", "products: {gain: a.pick}", 3, "pickles are not read"),
        ("elvis: 7.5.X", "products: {gain: {1: {E: 3.5}}}", 3, "E, F, G and H"),
        ("elvis: 7.5.X", "products: {flat: {800nm: {1: a}}}", 3, "nm800"),
    ],
)
def test_one_fault(old, new, line, words):
    assert old in GOOD
    lines = told(GOOD.replace(old, new, 1))
    assert len(lines) == 1, lines
    assert words in lines[0]
    assert lines[0].startswith(f"D11.yaml:{line}: ") or words.startswith("no data")


def test_all_faults_of_a_file_at_once():
    text = (
        GOOD.replace("elvis: 7.5.X", "elvis: yes\nmod: aim\nelvis: 7.5.X")
        .replace("17283", "x")
        .replace("RON", "RNO")
    )
    lines = told(text)
    assert [line.split(":")[1] for line in lines] == ["3", "4", "5", "9", "12"]


@pytest.mark.parametrize("text", ["", "# only a comment\n", "[]", "3", "just text"])
def test_not_a_mapping(text):
    assert "expected keys such as session, block" in told(text)[0]


def test_generous_where_harmless():
    session = Session.from_text(GOOD + 'filled_in_by: "12"\n')
    assert session.filled_in_by == "12"
    assert Session.from_text(GOOD.replace("[0.8, 1.5]", "[null, 1]")).tests["DARK01"].limit_overrides()[
        "read_noise"
    ] == {
        "low": None,
        "high": 1.0,
    }


def test_overrides(workspace):
    path = workspace / "config/sessions/D11.yaml"
    session = load_session(path, {"mode": "wait", "wait.poll_s": 1, "tests": {"BIAS01": {"priority": 3}}})
    assert (session.mode, session.wait.poll_s, session.tests["BIAS01"].priority) == ("wait", 1, 3)
    assert session.tests["BIAS01"].obsids == [17283, 17292]
    # Snakemake hands on the words of its command line as they are
    assert load_session(path, {"check_only": "true"}).check_only is True
    assert load_session(path, {"check_only": "False"}).check_only is False
    with pytest.raises(ConfigError, match="command line: mode: found"):
        load_session(path, {"mode": "wat"})
    with pytest.raises(ConfigError, match="command line: mod: unknown key; did you mean 'mode'"):
        load_session(path, {"mod": "wait"})


# ---- lookup -----------------------------------------------------------------------------------------
def test_lookup_order(workspace):
    folder = workspace / "config/sessions"
    packaged = load_block("NOSTROMO", folder)
    own = workspace / "config/blocks/NOSTROMO.yaml"
    own.write_text(packaged.file.read_text().replace("2650", "2651"))
    assert load_block("NOSTROMO", folder).expected_offset(1, "E") == 2651
    assert load_block("NOSTROMO", workspace).expected_offset(1, "E") == 2651
    assert load_block("NOSTROMO", workspace.parent).expected_offset(1, "E") == 2650
    assert load_block("../blocks/NOSTROMO.yaml", folder).file == folder / "../blocks/NOSTROMO.yaml"


def test_load_all(workspace):
    found = load_all(workspace / "config/sessions/D11.yaml")
    assert (found.block.block, found.chamber.chamber, found.detector.name, found.limits.limits) == (
        "NOSTROMO",
        "B_NOSTROMO",
        "ccd273",
        "default",
    )


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("NOSTROMO", "NOSTRMO", "D11.yaml:2: block: unknown block 'NOSTRMO'"),
        ("NOSTROMO", "../blocks/none.yaml", "D11.yaml:2: block: no such block file"),
        ("NOSTROMO", "../../etc/passwd", "D11.yaml:2: block: no such block file"),
        ("elvis: 7.5.X", "chamber: B_NOSTRMO", "D11.yaml:3: chamber: unknown chamber 'B_NOSTRMO'"),
        ("elvis: 7.5.X", "limits: strict", "D11.yaml:3: limits: unknown limits file 'strict'"),
        ("NOSTROMO", "WILSON", "block WILSON names no chamber profile"),
        ("RON:", "FPGA_VOLT:", "D11.yaml:10: tests.DARK01.limits.FPGA_VOLT: unknown house-keeping key"),
    ],
)
def names_of_tests_that_lead_nowhere(workspace, old, new, words):
    path = workspace / "config/sessions/D11.yaml"
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        load_all(path)
    assert words in str(caught.value)
    assert len(caught.value.errors) == 1
    if "NOSTR" in new:
        assert "did you mean 'NOSTROMO'" in str(caught.value) or "'B_NOSTROMO'" in str(caught.value)


def test_faults_of_all_files_at_once(workspace):
    path = workspace / "config/sessions/D11.yaml"
    path.write_text(GOOD.replace("elvis: 7.5.X", "limits: strict"))
    block = load_block("NOSTROMO").file.read_text()
    (workspace / "config/blocks/NOSTROMO.yaml").write_text(
        block.replace("B_NOSTROMO", "C_1").replace("ccd273", "ccd274")
    )
    with pytest.raises(ConfigErrors) as caught:
        load_all(path)
    text = str(caught.value)
    assert "unknown chamber 'C_1'" in text
    assert "unknown detector 'ccd274'" in text
    assert "unknown limits file 'strict'" in text


def test_name_and_file_must_agree(workspace):
    (workspace / "config/blocks/X.yaml").write_text(load_block("BORN").file.read_text())
    with pytest.raises(ConfigError, match=r"X\.yaml:\d+: block: found 'BORN'"):
        load_block("X", workspace)


@pytest.mark.parametrize("name", ["", "..", "a b", "$(id)", "a\nb", "x" * 70])
def test_hostile_names(tmp_path, name):
    with pytest.raises(ConfigError, match="unknown block"):
        find_file("blocks", name, tmp_path)


def test_missing_file(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml: no such file"):
        load_session(tmp_path / "none.yaml")


# ---- block and chamber --------------------------------------------------------------------------------
def test_block():
    block = load_block("NOSTROMO")
    assert block.equipment == {
        "operator": "unk",
        "sn_ccd1": "14888-88-81",
        "sn_ccd2": "14888-88-82",
        "sn_ccd3": "14888-88-83",
        "sn_roe": "FM15",
        "sn_rpsu": "FM15",
    }
    assert block.expected_offset(3, "F") == 2690
    assert len(block.expected_offsets()) == 12
    assert load_block("BORN").known_serials() == {"roe": "FM01", "rpsu": "FM01"}
    assert load_block("UNKNOWN").known_serials() == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("block: X\noffsets: {1: {E: 1, F: 1, G: 1, H: 1}}", "no offsets for CCD 2, 3"),
        ("block: X\noffsets: {1: {E: 1, F: 1, G: 1}}", "offsets.1.H: missing"),
        ("block: X\noffsets: {4: {E: 1, F: 1, G: 1, H: 1}}", "offsets.4"),
        ("block: X\noffsets: {CCD1: {E: 1, F: 1, G: 1, H: 1}}", "offsets.CCD1"),
        ("block: X\nhardware: {ROE: FM1}", "did you mean 'roe'"),
        (
            "block: X\noffsets: {1: {E: .nan, F: 1, G: 1, H: 1}}",
            "offsets.1.E: found nan, expected a finite number",
        ),
    ],
)
def test_bad_block(text, words):
    assert any(words in line for line in told(text + "\n", Block))


def test_chamber():
    chamber = load_chamber("B_NOSTROMO")
    assert (chamber.t_flat(800), chamber.t_point(0), chamber.slot(880), chamber.mirror_nominal(4)) == (
        3.5,
        45,
        5,
        47.2,
    )
    assert chamber.wavelength(2) == 2000
    assert chamber.expected_fwhm(800) == 2
    assert chamber.spots().xy(3, "HE") == (1810.36, 388.78)
    assert chamber.shutter_table().actual[1] == 0.125
    for ask in (lambda: chamber.t_flat(640), lambda: chamber.slot(640), lambda: chamber.mirror_nominal(7)):
        with pytest.raises(ConfigError, match=r"B_NOSTROMO\.yaml:\d+: .*chamber B_NOSTROMO has no"):
            ask()


def test_chamber_without_pattern():
    with pytest.raises(ConfigError, match="chamber A_FEB18 has no spot pattern"):
        load_chamber("A_FEB18").spots()
    assert load_chamber("A_FEB18").shutter_table() is None


def test_chamber_with_wrong_names(tmp_path):
    text = load_chamber("B_NOSTROMO").file.read_text()
    path = tmp_path / "B.yaml"
    path.write_text(text.replace("pattern: B_JAN19", "pattern: B_JAN18"))
    with pytest.raises(
        ConfigError, match=r"B\.yaml:\d+: pattern: unknown spot pattern 'B_JAN18'.*did you mean 'B_JAN19'"
    ):
        Chamber.load(path).spots()


def test_own_pattern_beside_own_chamber(tmp_path):
    folder = tmp_path / "config/chambers"
    (folder / "patterns").mkdir(parents=True)
    packaged = load_chamber("B_NOSTROMO")
    (folder / "B_NOSTROMO.yaml").write_text(packaged.file.read_text())
    (folder / "patterns/B_JAN19.yaml").write_text(
        packaged.spots().file.read_text().replace("490.39", "491.39")
    )
    assert load_chamber("B_NOSTROMO", tmp_path).spots().xy(1, "EA") == (491.39, 3729.01)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("730: 3.6", "730: 0", "expected a number > 0"),
        ("3: 730", "3: 800", "800 nm twice"),
        ("1: 590, 2: 2000", "7: 590, 2: 2000", "filter_wheel.7"),
        (", 6: 47.2}", "}", "the same positions"),
        ("saturation_time:", "saturation_times:", "did you mean 'saturation_time'"),
    ],
)
def test_bad_chamber(old, new, words):
    text = load_chamber("B_NOSTROMO").file.read_text()
    assert old in text
    assert any(words in line for line in told(text.replace(old, new, 1), Chamber))


def test_inline_pattern():
    chamber = load_chamber("B_NOSTROMO")
    positions = {ccd: dict(spots) for ccd, spots in chamber.spots().positions.items()}
    data = chamber.model_dump() | {"pattern": positions}
    inline = Chamber.from_text(dump_yaml(data))
    assert inline.spots().positions == positions
    del positions[1]["EA"]
    with pytest.raises(ConfigError, match="no position for EA"):
        Chamber.from_text(dump_yaml(data | {"pattern": positions}))


def test_bad_shutter():
    assert "must grow" in told("shutter: X\ncommanded: [0, 1, 1]\nactual: [0, 1, 2]\n", ShutterTable)[0]
    assert "as many" in told("shutter: X\ncommanded: [0, 1]\nactual: [0, 1, 2]\n", ShutterTable)[0]


def test_detector():
    mini = load_detector("ccd273-mini")
    assert (mini.image_columns, mini.image_rows, mini.trims["pre"]) == (512, 516, (25, 5))


# ---- products -----------------------------------------------------------------------------------------
def test_products_precedence(tmp_path):
    text = GOOD.replace(
        "elvis: 7.5.X", "products: {mask: {1: m1.fits}, gain: {1: {E: 3.5, F: 3.5, G: 3.5, H: 3.5}}}"
    )
    text = text.replace("    exclude:", "    products: {mask: dark.fits}\n    exclude:")
    path = tmp_path / "s.yaml"
    path.write_text(text)
    session = load_session(path)
    block = Block.from_text(
        load_block("BORN").file.read_text() + "products: {mask: {1: old.fits}, bias: b.fits}\n"
    )
    assert session.product_paths("DARK01", block)["mask"] == str(tmp_path / "dark.fits")
    paths = session.product_paths("BIAS01", block)
    assert paths["mask"] == {1: str(tmp_path / "m1.fits")}
    assert paths["bias"].endswith("b.fits")
    assert paths["gain"][1]["E"] == 3.5


@pytest.mark.parametrize(
    ("value", "ccd", "nm", "expected"),
    [
        ("a", 1, 800, "a"),
        ({1: "a", 2: "b"}, 2, None, "b"),
        ({1: "a"}, 3, None, None),
        ({"nm800": {1: "a"}}, 1, 800, "a"),
        ({"nm800": "f"}, 1, 800, "f"),
        ({"nm800": {1: "a"}}, 1, 730, None),
        ({"nm800": {1: "a"}}, 1, None, None),
        ({1: {"E": 3.5}}, 1, 800, {"E": 3.5}),
        (None, 1, 800, None),
    ],
)
def test_pick_product(value, ccd, nm, expected):
    assert pick_product(value, ccd, nm) == expected


# ---- round trips ----------------------------------------------------------------------------------------
names = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,20}", fullmatch=True)
texts = st.text(
    st.characters(
        blacklist_categories=("Cs", "Cc"), blacklist_characters="\ufeff\u2028\u2029\x85\ufffe\uffff"
    ),
    min_size=1,
    max_size=30,
)
paths = texts.filter(lambda text: text.strip() and not text.endswith((".pick", ".pkl", ".pickle")))
numbers = st.floats(-1e12, 1e12, allow_nan=False)
bounds = st.lists(numbers, min_size=2, max_size=2).map(sorted)
obsid = st.integers(0, 999_999_999)
data = st.fixed_dictionaries({"root": texts, "day_folders": st.lists(texts, min_size=1, max_size=3)})
products = st.dictionaries(
    st.sampled_from(["mask", "bias", "dark"]),
    st.one_of(paths, st.dictionaries(st.sampled_from([1, 2, 3]), paths, min_size=1)),
)
entry = st.fixed_dictionaries(
    {},
    optional={
        "obsids": st.lists(obsid, min_size=2, max_size=2).map(sorted),
        "do": st.one_of(
            st.just("all"),
            st.lists(st.sampled_from(["check", "prep", "basic", "meta"]), min_size=1, unique=True),
        ),
        "priority": st.integers(-100, 100),
        "options": st.dictionaries(
            st.sampled_from(["prep", "basic"]),
            st.dictionaries(names.filter(str), st.one_of(texts, numbers, st.booleans(), st.none())),
        ),
        "limits": st.dictionaries(st.sampled_from(sorted(NAMES)), st.one_of(bounds, st.just(False))),
        "exclude": st.dictionaries(
            st.one_of(obsid, obsid.map("CCD2/{}".format), obsid.map("CCD3/G/{}".format)),
            texts.filter(str.strip),
        ),
        "start_obsid": st.one_of(st.none(), obsid),
        "data": data,
        "products": products,
    },
)
names_of_tests = st.from_regex(r"[A-Z]{3,6}[0-9]{2}(_[0-9]{1,4})?(\.[1-9])?", fullmatch=True)
sessions = st.fixed_dictionaries(
    {
        "session": names,
        "block": texts,
        "results": texts,
        "data": data,
        "tests": st.dictionaries(names_of_tests, entry, min_size=1, max_size=4),
    },
    optional={
        "filled_in_by": texts,
        "elvis": st.sampled_from(["7.5.X", "6.3.0"]),
        "mode": st.sampled_from(["aim", "wait"]),
        "check_only": st.booleans(),
        "wait": st.fixed_dictionaries(
            {}, optional={"poll_s": st.floats(1e-6, 3600), "settle_s": st.floats(0, 3600)}
        ),
        "products": products,
    },
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.data_too_large])
@given(sessions)
def test_round_trip(data):
    """A valid session, written and read, is the same session; and so is what the model gives back."""
    once = Session.from_text(dump_yaml(data))
    assert once.model_dump(exclude_unset=True)["tests"].keys() == data["tests"].keys()
    for name, value in data.items():
        if name not in ("tests", "products", "wait", "data"):
            assert getattr(once, name) == value
    assert once.data.day_folders == data["data"]["day_folders"]
    twice = Session.from_text(dump_yaml(once.model_dump(exclude_unset=True)))
    assert twice.model_dump() == once.model_dump()


@settings(max_examples=100)
@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), numbers, texts),
        lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
        max_leaves=12,
    )
)
def test_any_data_gives_messages_not_tracebacks(value):
    """Whatever the file holds: a model or a ConfigError."""
    text = dump_yaml({"session": value, "tests": value, "offsets": value, "data": value, "hk": value})
    for model in (Session, Block, Chamber):
        with pytest.raises(ConfigError) as caught:
            model.from_text(text)
        assert all(fault.message for fault in caught.value.errors)


def test_limits_and_detector_load_from_package():
    assert load_limits().limits == "default"
