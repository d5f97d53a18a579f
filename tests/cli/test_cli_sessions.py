"""calcamp sessions: folders, order, refusals, replacing, delivery."""

import contextlib
import copy
import json
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cli.cli_support import NOSTROMO, SESSIONS, tree, write_json

from calcamp.campaign.sessions import read_input
from calcamp.config.errors import ConfigError

D11 = [
    f"vis_CalCamp_{test}_01Apr19_v7.5.X.xlsx" for test in ("BIAS01", "BIAS02", "CHINJ01", "CHINJ02", "TP01")
]


@pytest.fixture
def builder(tmp_path, scripts):
    return write_json(tmp_path / "sessions.json", SESSIONS)


def test_the_cook_books_sessions(calcamp, builder, tmp_path):
    done = calcamp("sessions", "sessions.json")
    assert done.code == 0, done.err
    out = tmp_path / SESSIONS["outpath"]
    assert (out / "D11" / "TEST_SEQUENCE_D11.txt").read_text() == "".join(f"{name}\n" for name in D11)
    assert sorted(p.name for p in (out / "D11").iterdir()) == sorted([*D11, "TEST_SEQUENCE_D11.txt"])
    assert sorted(p.name for p in (out / "D00").iterdir()) == [
        "TEST_SEQUENCE_D00.txt",
        "vis_CalCamp_FOCUS00_800_01Apr19_v7.5.X.xlsx",
    ]
    assert done.out.splitlines()[:8] == [
        "session: D00",
        "vis_CalCamp_FOCUS00_800_01Apr19_v7.5.X.xlsx",
        "session: D11",
        *D11,
    ]
    for name in D11:
        assert (out / "D11" / name).read_bytes() == (tmp_path / SESSIONS["inpath"] / name).read_bytes()


def test_the_session_yaml_for_the_analyst(calcamp, builder, tmp_path):
    from calcamp.config.lookup import load_session

    calcamp("sessions", "sessions.json", "--block", "NOSTROMO")
    session = load_session(tmp_path / SESSIONS["outpath"] / "D11.yaml")
    assert (session.session, session.block, session.elvis, session.mode) == (
        "D11",
        "NOSTROMO",
        "7.5.X",
        "wait",
    )
    assert list(session.tests)[:2] == ["BIAS01", "BIAS02"]


def test_an_edited_session_yaml_is_kept_and_an_untouched_one_renewed(calcamp, builder, tmp_path):
    calcamp("sessions", "sessions.json")
    mine = tmp_path / SESSIONS["outpath"] / "D11.yaml"
    untouched = tmp_path / SESSIONS["outpath"] / "D00.yaml"
    mine.write_text(mine.read_text().replace('filled_in_by: ""', "filled_in_by: me"))
    before = untouched.read_text()
    done = calcamp("sessions", "--replace", "sessions.json", "--block", "BORN")
    assert done.code == 0
    assert "filled_in_by: me" in mine.read_text()
    assert "kept as it is" in done.out
    assert untouched.read_text() == before.replace("UNKNOWN", "BORN").rpartition("replaced. ")[0] + (
        "replaced. " + untouched.read_text().rpartition(" ")[2]
    )


def refuses(calcamp, tmp_path, said, *args):
    before = tree(tmp_path)
    done = calcamp("sessions", "sessions.json", *args)
    assert done.code == 2
    for text in said if isinstance(said, tuple) else (said,):
        assert text in done.err
    assert tree(tmp_path) == before
    assert not list(tmp_path.rglob("*.part"))


def test_a_missing_script(calcamp, builder, tmp_path, scripts):
    (scripts / D11[2]).unlink()
    refuses(calcamp, tmp_path, "Did not find test CHINJ01 in session D11")
    assert not (tmp_path / SESSIONS["outpath"]).exists()


def test_an_ambiguous_script(calcamp, builder, tmp_path, scripts):
    shutil.copy(scripts / D11[0], scripts / D11[0].replace("01Apr19", "02Apr19"))
    refuses(calcamp, tmp_path, "Found more than 1 script for test BIAS01 in session D11")


def test_all_faults_are_told_at_once(calcamp, builder, tmp_path, scripts):
    (scripts / D11[2]).unlink()
    (scripts / D11[3]).unlink()
    refuses(
        calcamp,
        tmp_path,
        ("Did not find test CHINJ01 in session D11", "Did not find test CHINJ02 in session D11"),
    )


def test_names_are_exact(calcamp, tmp_path, scripts):
    """A tagged script does not answer for the untagged test, nor a longer name for a shorter one."""
    (scripts / D11[0]).rename(scripts / D11[0].replace("BIAS01", "BIAS01.1"))
    write_json(tmp_path / "sessions.json", {**SESSIONS, "sessions": {"D11": ["BIAS01"]}})
    refuses(calcamp, tmp_path, "Did not find test BIAS01 in session D11")
    write_json(tmp_path / "sessions.json", {**SESSIONS, "sessions": {"D11": ["BIAS01.1"]}})
    (scripts / "CHECK_SUMS_01Apr19.txt").unlink()
    done = calcamp("sessions", "sessions.json")
    assert done.code == 0
    assert "no checksum" in done.err


def test_a_generic_handle_is_not_a_script(calcamp, tmp_path, scripts):
    write_json(tmp_path / "sessions.json", {**SESSIONS, "sessions": {"D11": ["FOCUS00"]}})
    refuses(calcamp, tmp_path, ("Did not find test FOCUS00 in session D11", "FOCUS00_590"))


def test_a_script_that_was_changed(calcamp, builder, tmp_path, scripts):
    shutil.copy(scripts / D11[1], scripts / D11[0])
    refuses(calcamp, tmp_path, ("changed since they were written", D11[0]))


def test_an_existing_folder(calcamp, builder, tmp_path):
    assert calcamp("sessions", "sessions.json").code == 0
    refuses(calcamp, tmp_path, "session folders exist: D00, D11")


def test_replace_moves_the_old_folder_aside(calcamp, builder, tmp_path):
    calcamp("sessions", "sessions.json")
    out = tmp_path / SESSIONS["outpath"]
    (out / "D11" / "note.txt").write_text("from the operators")
    before = tree(out / "D11")
    done = calcamp("sessions", "sessions.json", "--replace")
    assert done.code == 0
    (moved,) = out.glob("D11_replaced_*")
    assert tree(moved) == before
    assert "note.txt" not in tree(out / "D11")


def test_the_same_test_twice_repeats_its_line(calcamp, tmp_path, scripts):
    from calcamp.config.lookup import load_session

    write_json(tmp_path / "sessions.json", {**SESSIONS, "sessions": {"D21": ["BIAS02", "BIAS01", "BIAS02"]}})
    assert calcamp("sessions", "sessions.json").code == 0
    out = tmp_path / SESSIONS["outpath"]
    assert (out / "D21" / "TEST_SEQUENCE_D21.txt").read_text().splitlines() == [D11[1], D11[0], D11[1]]
    assert list(load_session(out / "D21.yaml").tests) == ["BIAS02", "BIAS01", "BIAS02.2"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.pop("inpath"), "inpath"),
        (lambda d: d.update(inpath="absent"), "does not exist"),
        (lambda d: d.update(outpath="a/b"), "parent"),
        (lambda d: d.update(sessions={}), "sessions"),
        (lambda d: d.update(sessions={"D 11": ["BIAS01"]}), "D 11"),
        (lambda d: d.update(sessions={"../x": ["BIAS01"]}), "../x"),
        (lambda d: d.update(sessions={"D11": []}), "empty"),
        (lambda d: d.update(sessions={"D11": ["BIAS01", 3]}), "sessions"),
        (lambda d: d.update(sessions={"D11": ["../BIAS01"]}), "../BIAS01"),
        (lambda d: d.update(more=1), "more"),
    ],
)
def test_bad_input(calcamp, tmp_path, scripts, change, said):
    data = copy.deepcopy(SESSIONS)
    change(data)
    write_json(tmp_path / "sessions.json", data)
    refuses(calcamp, tmp_path, said)


# ---- delivery ------------------------------------------------------------------------------------
@pytest.fixture
def built(calcamp, builder, tmp_path):
    assert calcamp("sessions", "sessions.json").code == 0
    (tmp_path / "disk").mkdir()
    return tmp_path / SESSIONS["outpath"]


def test_delivery_copies_verifies_and_tells(calcamp, built, tmp_path):
    done = calcamp("sessions", "deliver", built, "--to", "disk", "--text", "mail.txt")
    assert done.code == 0, done.err
    assert tree(tmp_path / "disk" / built.name / "D11") == tree(built / "D11")
    assert "Session D11: 5 tests, 132 frames" in done.out
    assert f"    1. {D11[0]}" in done.out
    assert done.out.count("first delivery of this session") == 2
    assert (tmp_path / "mail.txt").read_text() == done.out


def test_the_next_delivery_tells_what_changed(calcamp, built, tmp_path, scripts):
    calcamp("sessions", "deliver", built, "--to", "disk")
    changed = copy.deepcopy(NOSTROMO)
    changed["equipment"]["sn_roe"] = "FM16"
    write_json(tmp_path / "scripts.json", changed)
    shutil.rmtree(scripts)
    calcamp("scripts", "scripts.json")
    calcamp("sessions", "sessions.json", "--replace")
    refused = calcamp("sessions", "deliver", built, "--to", "disk")
    assert refused.code == 2
    assert "other content" in refused.err
    done = calcamp("sessions", "deliver", built, "--to", "disk", "--replace")
    assert done.code == 0
    assert done.out.count("sn_roe: FM15 -> FM16") == 2
    assert len(list((tmp_path / "disk" / built.name).glob("D11_replaced_*"))) == 1
    again = calcamp("sessions", "deliver", built / "D11", "--to", "disk", "--json")
    (item,) = json.loads(again.out)
    assert item["changes"] == ["5 tests unchanged"]


def test_an_incomplete_session_folder_is_not_delivered(calcamp, built, tmp_path):
    (built / "D11" / D11[3]).unlink()
    done = calcamp("sessions", "deliver", built, "--to", "disk")
    assert done.code == 2
    assert "line 4" in done.err
    assert list((tmp_path / "disk").iterdir()) == []


def test_a_sequence_cannot_lead_out_of_its_folder(calcamp, built, tmp_path):
    sequence = built / "D11" / "TEST_SEQUENCE_D11.txt"
    sequence.write_text("../../scripts.json\n")
    done = calcamp("sessions", "deliver", built, "--to", "disk")
    assert done.code == 2
    assert "not the name of a script" in done.err


def test_no_disk(calcamp, built):
    assert "--to" in calcamp("sessions", "deliver", built).err
    assert "not there" in calcamp("sessions", "deliver", built, "--to", "absent").err


def test_a_damaged_list_of_deliveries(calcamp, built, tmp_path):
    (tmp_path / "disk" / "DELIVERIES.json").write_text('{"deliveries": [3]}')
    done = calcamp("sessions", "deliver", built, "--to", "disk")
    assert done.code == 2
    assert "DELIVERIES.json" in done.err


# ---- any damage gives a message --------------------------------------------------------------------
@settings(max_examples=100)
@given(
    sessions=st.dictionaries(
        st.from_regex(r"[A-Za-z0-9_]{1,8}", fullmatch=True),
        st.lists(
            st.sampled_from(["BIAS01", "FOCUS00_800", "BIAS02.2", "PTC02_155R"]), min_size=1, max_size=4
        ),
        min_size=1,
        max_size=4,
    ),
    rng=st.randoms(use_true_random=False),
)
def test_any_input_round_trips_and_any_damage_gives_a_message(tmp_path_factory, sessions, rng):
    path = tmp_path_factory.mktemp("s") / "x.json"
    data = {"inpath": "in", "outpath": "out", "sessions": sessions}
    write_json(path, data)
    assert read_input(path).model_dump() == data
    text = bytearray(path.read_bytes())
    for _ in range(rng.randrange(1, 4)):
        text[rng.randrange(len(text))] = rng.randrange(256)
    path.write_bytes(bytes(text))
    with contextlib.suppress(ConfigError):  # anything else is a fault of ours
        read_input(path)
