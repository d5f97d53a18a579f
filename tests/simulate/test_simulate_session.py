"""A simulated session, read back by the readers of calcamp."""

import itertools
import json
import os
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from tests.simulate.simulated import digests, simulate, write_session

from calcamp.campaign.core import find_test
from calcamp.campaign.structure import expected_keys
from calcamp.data import elvis
from calcamp.data.explog import find_explogs, read_explog
from calcamp.data.files import InputError
from calcamp.data.hk import find_hk, find_hk_masters, read_hk
from calcamp.data.raw import RawError, read_raw
from calcamp.detector.arrays import quadrant_view

FOLDER = "12_Mar_19"
ONE_BIAS = "\n  BIAS01: {obsids: [17283, 17292]}\n"
ONE_DARK = "\n  DARK01: {obsids: [17405, 17408]}\n"


def folder_of(made):
    return made.folders[0]


def log_of(made):
    return read_explog(find_explogs(folder_of(made)))


def image(made, obsid, ccd, mini):
    row = next(e for e in log_of(made).exposures() if e.obsid == obsid).ccds[ccd]
    return read_raw(folder_of(made) / f"{row['File_name']}.fits", mini).data


def truth_of(made):
    return json.loads(made.truth.read_text())


# ---- a clean session -----------------------------------------------------------------------------
def test_log_has_three_complete_rows_per_obsid(session):
    made, _ = session
    log = log_of(made)
    assert not log.problems
    assert log.versions == [elvis.explog_version(elvis.explog_columns())]
    assert len(log.columns) == 81
    exposures = log.exposures()
    assert [e.obsid for e in exposures] == list(range(17273, 17297))
    assert all(e.complete for e in exposures)
    assert log.tests() == {
        "BIAS02": list(range(17273, 17283)),
        "BIAS01": list(range(17283, 17293)),
        "DARK01": list(range(17293, 17297)),
    }
    assert all(value is not None for row in log.rows for value in row.values())


def test_log_holds_what_the_scripts_command(session):
    made, _ = session
    from calcamp.config.lookup import load_block

    equipment = load_block("NOSTROMO").equipment
    for exposure in log_of(made).exposures():
        column = find_test(exposure.test).columns(None)[0]
        expected = expected_keys(column) | equipment
        for key in elvis.COMPARED_KEYS:
            assert exposure.values[key] == expected[key], (exposure.obsid, key)


def test_exposures_follow_each_other_as_the_duration_model_says(session):
    made, _ = session
    times = [e.time for e in log_of(made).exposures()]
    assert times[0] == datetime(2019, 3, 12, 7, 0, 0)
    steps = [(b - a).total_seconds() for a, b in itertools.pairwise(times)]
    assert steps[:9] == [94.0] * 9
    assert steps[9] == 94 + 60  # between tests
    assert steps[-3:] == [659.0] * 3


def test_images_read_back_with_their_header(session, mini):
    made, _ = session
    for row in log_of(made).rows[::7]:
        raw = read_raw(folder_of(made) / f"{row['File_name']}.fits", mini)
        assert raw.data.dtype == np.uint16
        assert raw.data.shape == mini.ccd_shape
        header = raw.header
        assert header["EXTNAME"] == f"ROE1_{row['CCD']}"
        for name in elvis.explog_columns():
            if name not in ("File_name", "wave", "mirr_pos") and name.upper() in header:
                assert header[name.upper()] == row[name], name
        for key in (
            "OBSID",
            "VSTART",
            "VEND",
            "EXPTIME",
            "IPHI",
            "RDMODE",
            "SN_CCD1",
            "R1C3_TB",
            "IG1_2_B",
            "RD_T",
        ):
            assert key in header
        assert header["WAVE"] == row["wave"]
        assert header["OBJECT"] == row["test"]


def test_images_open_with_astropy(session, mini):
    fits = pytest.importorskip("astropy.io.fits")
    made, _ = session
    path = sorted(folder_of(made).glob("*.fits"))[0]
    with fits.open(path) as hdus:
        hdus.verify("exception")
        assert len(hdus) == 2
        assert hdus[0].data is None
        assert hdus[1].header["BZERO"] == 32768
        assert np.array_equal(hdus[1].data, read_raw(path, mini).data)


def test_bias_levels_are_those_of_the_block_and_the_truth(session, mini):
    made, _ = session
    truth = truth_of(made)
    from calcamp.config.lookup import load_block

    block = load_block("NOSTROMO")
    for channel in truth["channels"]:
        ccd, quadrant = channel["ccd"], channel["quadrant"]
        assert abs(channel["offset_adu"] - block.expected_offset(ccd, quadrant)) <= 15
        frame = next(
            f for f in truth["frames"] if (f["obsid"], f["ccd"], f["quadrant"]) == (17285, ccd, quadrant)
        )
        view = quadrant_view(image(made, 17285, ccd, mini), quadrant, mini)
        # the prescan lies below the recorded offset by nothing but settling and column pattern
        assert view[mini.region("pre")].mean() == pytest.approx(frame["offset"], abs=0.8)
        assert view[mini.region("pre")].std() == pytest.approx(
            np.hypot(channel["read_noise_adu"], 12**-0.5), rel=0.05
        )


def test_house_keeping_is_inside_limits_and_follows_commands(session):
    made, _ = session
    from calcamp.config.lookup import load_limits

    for exposure in log_of(made).exposures()[::6]:
        readings = read_hk(find_hk(folder_of(made), exposure.obsid))
        assert not readings.problems
        assert [*readings.values] == list(elvis.hk_columns()[1:])
        seconds = (readings.times[-1] - readings.times[0]).total_seconds()
        assert len(readings.times) == seconds + 1
        assert readings.times[0] == exposure.time
        summary = readings.summary()
        for key, command in elvis.HK_COMMANDED.items():
            worst = max(abs(s - exposure.values[command]) for s in (summary[key].min, summary[key].max))
            assert worst < 0.2, key
        for key in elvis.hk_columns()[1:]:
            if "CCD" in key and "TEMP" in key:
                assert -121 < summary[key].min <= summary[key].max < -119
                sensor = f"R1C{key[3]}_T{key[-1]}"
                assert summary[key].mean == pytest.approx(exposure.values[sensor], abs=0.15)
        assert summary["SPW_STATUS_REG"].mean == 12192
    assert load_limits() is not None


def test_house_keeping_master_holds_every_second_of_every_exposure(session):
    made, _ = session
    (master,) = find_hk_masters(folder_of(made))
    times = read_hk(master).times
    assert times == sorted(times)
    per_exposure = [read_hk(find_hk(folder_of(made), e.obsid)).times for e in log_of(made).exposures()]
    assert times == [moment for readings in per_exposure for moment in readings]


def test_truth_lies_outside_the_data_and_is_complete(session):
    made, folder = session
    assert made.truth == folder / "data_truth" / "D11_truth.json"
    truth = truth_of(made)
    assert truth["seed"] == 5
    assert len(truth["channels"]) == 12
    assert len(truth["frames"]) == 24 * 12
    with np.load(made.truth.with_name(truth["arrays"])) as arrays:
        channel = truth["channels"][0]
        rates = arrays["ccd1_E_dark_warm_e_s"]
        mean = channel["params"]["dark"]["base_e_s"] + rates.sum(dtype=float) / (516 * 512)
        assert channel["dark_e_s"] == pytest.approx(mean)
    assert not [path for path in folder_of(made).iterdir() if "truth" in path.name]


def test_dark_exposures_hold_the_dark_current_of_the_truth(session, mini):
    """Image over prescan in dark minus bias frames, in electrons, against rate times time."""
    made, _ = session
    truth = truth_of(made)

    def step(obsid, channel):
        view = quadrant_view(image(made, obsid, channel["ccd"], mini), channel["quadrant"], mini).astype(
            float
        )
        img = view[mini.region("img")]
        return img[img < np.median(img) + 20].mean() - view[mini.region("pre")].mean()

    ratios = []
    for channel in truth["channels"]:
        dark, bias = (
            np.mean([step(n, channel) for n in of]) for of in (range(17293, 17297), range(17283, 17293))
        )
        ratios.append((dark - bias) * channel["gain_e_adu"] / (channel["dark_e_s"] * 565))
    # the cut loses some warm pixels, temperatures move rates by a percent or two
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.06)


# ---- reproducible --------------------------------------------------------------------------------
def test_same_seed_same_bytes_whatever_the_processes(tmp_path):
    tests = "\n  BIAS01: {obsids: [17283, 17292]}\n  DARK01: {}\n"
    for name, options in {"a": {}, "b": {"jobs": 2}, "c": {"seed": 2}}.items():
        (tmp_path / name).mkdir()
        simulate(tmp_path / name, tests, **options)
    a, b, c = (digests(tmp_path / name) for name in "abc")
    assert a == b
    images = [name for name in a if name.endswith(".fits")]
    assert len(images) == 42
    assert all(a[name] != c[name] for name in images)


def test_a_test_alone_gives_the_same_frames_as_in_its_session(session, tmp_path):
    made, _ = session
    alone = simulate(tmp_path, "\n  BIAS02: {obsids: [17273, 17282]}\n", seed=5)
    for path in folder_of(alone).glob("*.fits"):
        assert path.read_bytes() == (folder_of(made) / path.name).read_bytes()


# ---- faults --------------------------------------------------------------------------------------
def test_missing_frame_loses_its_obsid(tmp_path):
    made = simulate(tmp_path, ONE_BIAS, faults=["missing_frame:17286"])
    assert [e.obsid for e in log_of(made).exposures()] == [n for n in range(17283, 17293) if n != 17286]
    assert not list(folder_of(made).glob("*_17286_*"))


def test_extra_frame_and_restart_move_later_obsids(tmp_path):
    tests = ONE_BIAS + "  BIAS02: {}\n  DARK01: {obsids: [17310, 17313]}\n"
    made = simulate(tmp_path, tests, faults=["extra_frame:17284", "aborted_restart:17297"])
    assert log_of(made).tests() == {
        "BIAS01": list(range(17283, 17294)),
        "BIAS02": list(range(17294, 17294 + 14)),
        "DARK01": list(range(17310, 17314)),
    }
    restarted = [e for e in made.exposures if e.test == "BIAS02"]
    assert [e.frame for e in restarted] == [1, 2, 3, 4, *range(1, 11)]


def test_aborted_restart_is_resolved_by_the_alignment(tmp_path):
    structure = pytest.importorskip("calcamp.campaign.structure")
    if not hasattr(structure, "align"):
        pytest.skip("no alignment yet")
    made = simulate(tmp_path, ONE_BIAS, faults=["aborted_restart:17286"])
    test = find_test("BIAS01")
    alignment = structure.align(structure.declare(test.columns(None), test), log_of(made).exposures())
    assert alignment.complete
    assert alignment.unexpected == [17283, 17284, 17285, 17286]


FAULTS = (
    *("missing_fits:17284:3", "missing_hk:17285", "truncated:17286:3", "zero_frame:17287:1"),
    *("offset_step:17285:2:F", "noisy_frame:17287:3", "dead_quadrant::1:H"),
    *("hk_out:17284:2", "hk_nan:17286:3", "wrong_serial", "log_partial_line", "log_garbage:17285"),
)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """A session with faults that do not disturb each other."""
    return simulate(tmp_path_factory.mktemp("faulty"), ONE_BIAS, faults=FAULTS)


def test_missing_and_damaged_files(faulty, mini):
    made = faulty
    folder = folder_of(made)
    assert len(list(folder.glob("EUC_17284_*.fits"))) == 2
    assert not list(folder.glob("EUC_17284_*CCD3.fits"))
    assert find_hk(folder, 17285) is None
    assert find_hk(folder, 17284) is not None
    with pytest.raises(RawError) as caught:
        image(made, 17286, 3, mini)
    assert caught.value.kind == "truncated"
    assert not image(made, 17287, 1, mini).any()
    assert image(made, 17287, 2, mini).any()


def test_signal_faults_strike_their_frame_only(faulty, mini):
    made = faulty
    pre = mini.region("pre")
    levels = [np.median(quadrant_view(image(made, n, 2, mini), "F", mini)[pre]) for n in range(17283, 17288)]
    assert levels[2] - np.median(levels) == pytest.approx(60, abs=1.5)
    noise = [quadrant_view(image(made, n, 3, mini), "G", mini)[pre].std() for n in (17285, 17287)]
    assert noise[1] / noise[0] == pytest.approx(3, rel=0.1)
    assert np.ptp(quadrant_view(image(made, 17290, 1, mini), "H", mini)) == 0


def test_light_leak_is_in_the_dark_frames(tmp_path, mini):
    made = simulate(tmp_path, ONE_DARK, faults=["light_leak"])
    view = quadrant_view(image(made, 17405, 1, mini), "H", mini)
    near, far = (np.median(view[rows, 100:500]) for rows in (slice(0, 50), slice(460, 510)))
    gain = truth_of(made)["channels"][3]["gain_e_adu"]
    assert near - np.median(view[:50, 25:45]) == pytest.approx(0.5 * 565 * 0.93 / gain, rel=0.1)
    assert near > far + 30


def test_house_keeping_faults(faulty):
    made = faulty
    out = read_hk(find_hk(folder_of(made), 17284)).summary()
    assert out["CCD2_TEMP_T"].mean == pytest.approx(-110, abs=0.5)
    assert out["CCD2_OD_T"].mean == pytest.approx(26.5, abs=0.1)
    assert out["CCD1_TEMP_T"].mean == pytest.approx(-120, abs=0.5)
    gone = read_hk(find_hk(folder_of(made), 17286)).summary()
    assert gone["CCD3_TEMP_T"].n == 0
    assert gone["CCD3_TEMP_B"].n == 94
    assert {row["sn_ccd1"] for row in log_of(made).rows} == {"99999-99-99"}
    assert {row["sn_ccd2"] for row in log_of(made).rows} == {truth_of(made)["serials"]["ccd2"]}


def test_log_faults(faulty):
    made = faulty
    log = log_of(made)
    kinds = [problem.kind for problem in log.problems]
    assert kinds.count("bad_line") == 2  # the third line of garbage is tabs only, an empty line
    assert "unfinished" in kinds
    assert len(log.rows) == 29
    assert log.exposures()[-1].ccds.keys() == {1, 2}


def test_truth_names_the_faults_with_their_places(tmp_path):
    made = simulate(tmp_path, ONE_DARK, faults=["offset_step"])
    assert truth_of(made)["faults"] == [{"name": "offset_step", "obsid": 17407, "ccd": 1, "quadrant": "E"}]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("offset_stepp", "did you mean 'offset_step'"),
        ("offset_step:99", "has no OBSID 99"),
        ("offset_step:17283:4", "names no place"),
        ("offset_step:17283:1:A", "names no place"),
        ("offset_step:17283:1:E:9", "names no place"),
    ],
)
def test_a_wrong_fault_is_refused(tmp_path, fault, message):
    with pytest.raises(InputError, match=message):
        simulate(tmp_path, ONE_BIAS, faults=[fault])
    assert not (tmp_path / "data").exists()


# ---- time and folders ----------------------------------------------------------------------------
def test_past_midnight_in_the_same_folder(tmp_path):
    made = simulate(tmp_path, ONE_BIAS, start=datetime(2019, 3, 12, 23, 52, 0))
    folder = folder_of(made)
    assert [path.name for path in find_explogs(folder)] == ["EXP_LOG_120319.txt", "EXP_LOG_130319.txt"]
    assert [path.name for path in find_hk_masters(folder)] == [
        "HK_12-03-19_ROE1_01.txt",
        "HK_13-03-19_ROE1_01.txt",
    ]
    exposures = log_of(made).exposures()
    assert [e.obsid for e in exposures] == list(range(17283, 17293))
    assert exposures[0].time.date() == date(2019, 3, 12)
    assert exposures[-1].time.date() == date(2019, 3, 13)
    times = [moment for path in find_hk_masters(folder) for moment in read_hk(path).times]
    assert all(b - a == timedelta(seconds=1) for a, b in itertools.pairwise(times))


def test_past_midnight_into_the_next_folder(tmp_path):
    made = simulate(tmp_path, ONE_BIAS, "[12_Mar_19, 13_Mar_19]", start=datetime(2019, 3, 12, 23, 52, 0))
    assert [len(list(folder.glob("*.fits"))) for folder in made.folders] == [18, 12]
    log = read_explog([path for folder in made.folders for path in find_explogs(folder)])
    assert [e.obsid for e in log.exposures()] == list(range(17283, 17293))


def test_repeats_are_logged_under_the_plain_name(tmp_path):
    made = simulate(tmp_path, "\n  BIAS01: {}\n  BIAS01.2: {}\n", first_obsid=500)
    assert log_of(made).tests() == {"BIAS01": list(range(500, 520))}


def test_existing_data_are_not_touched(tmp_path):
    simulate(tmp_path, ONE_DARK)
    before = digests(tmp_path)
    with pytest.raises(InputError, match="already holds data"):
        simulate(tmp_path, ONE_DARK, seed=9)
    assert digests(tmp_path) == before


@pytest.mark.parametrize(
    ("tests", "message"),
    [
        ("\n  BIAS01: {obsids: [17283, 17290]}\n", "takes 10 exposures"),
        (
            "\n  BIAS01: {obsids: [17283, 17292]}\n  BIAS02: {obsids: [17290, 17299]}\n",
            "belongs to two tests",
        ),
        ("\n  BIAS99: {}\n", "BIAS99"),
    ],
)
def test_sessions_that_cannot_be_simulated_are_refused(tmp_path, tests, message):
    with pytest.raises(InputError, match=message):
        simulate(tmp_path, tests)


def test_truth_inside_the_day_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="would lie in the day-folder"):
        simulate(tmp_path, ONE_DARK, truth=tmp_path / "data" / FOLDER / "truth.json")


# ---- against data of another hand ------------------------------------------------------------------
@pytest.fixture
def sample():
    """Day-folder of a full-size test written by a generator that shares no code with calcamp."""
    above = Path(__file__).resolve().parents[3] / "shared" / "samples" / "full-size" / FOLDER
    if not above.is_dir():
        pytest.skip("no folder shared/samples beside the repository")
    return above


@pytest.mark.samples
def test_files_have_the_columns_and_cards_of_the_sample(session, sample):
    made, _ = session
    theirs, mine = read_explog(find_explogs(sample)), log_of(made)
    assert theirs.columns == mine.columns
    row, reference = mine.rows[-1], theirs.rows[-1]
    own = {"ObsID", "File_name", "date", "calscrpt", "operator", "fl_rdout"}
    own |= {name for name in row if name.startswith(("sn_", "R1C", "_"))}
    assert {k: v for k, v in row.items() if k not in own} == {
        k: v for k, v in reference.items() if k not in own
    }
    assert {type(row[k]) for k in own if k[0] != "_"} == {type(reference[k]) for k in own if k[0] != "_"}
    hk = [read_hk(find_hk(folder, obsid)) for folder, obsid in ((sample, 17200), (folder_of(made), 17293))]
    assert [*hk[0].values] == [*hk[1].values]
    cards = [
        set(read_raw(next(iter(sorted(folder.glob("EUC_*CCD1.fits*")))), None, verify=False).header)
        for folder in (sample, folder_of(made))
    ]
    # WAVELENG is what the generator of the predecessor wrote in place of WAVE
    assert cards[0] - cards[1] == {"WAVELENG"}


# ---- played live ---------------------------------------------------------------------------------
def test_live_play_ends_with_the_same_files(session, tmp_path):
    _made, _folder = session
    tests = "\n  BIAS02: {obsids: [17273, 17282]}\n"
    plain, played = tmp_path / "plain", tmp_path / "played"
    plain.mkdir()
    played.mkdir()
    simulate(plain, tests)
    simulate(played, tests, speed=1e9)
    assert digests(plain) == digests(played)


def test_live_play_keeps_the_order_of_an_acquisition(tmp_path, monkeypatch):
    """At each pause: house-keeping up to now, no image of an exposure that has not ended, logs last."""
    from calcamp.simulate import live

    seen = []
    wait = live.Clock.wait_until

    def spy(clock, moment):
        data = tmp_path / "data" / FOLDER
        seen.append((moment, sorted(os.listdir(data)), _lines(data / "EXP_LOG_120319.txt")))
        wait(clock, moment)

    monkeypatch.setattr(live.Clock, "wait_until", spy)
    _play(monkeypatch, live, tmp_path)
    start = datetime(2019, 3, 12, 7, 0, 0)
    first = [entry for entry in seen if start < entry[0] < start + timedelta(seconds=94)]
    assert len(first) == 4
    assert all(not any(name.endswith(".fits") for name in names) for _, names, _ in first)
    assert any(names and names[0].startswith("HK_") for _, names, _ in first)
    counts = [lines for _, _, lines in seen]
    assert counts == sorted(counts)
    assert set(counts) <= {0, *(1 + 3 * n for n in range(11))}


def _play(monkeypatch, live, tmp_path):
    """Play at 20 times with a wall clock that only counts."""
    wall = [0.0]
    original = live.Clock.__init__

    def counted(clock, start, speed, **_):
        original(clock, start, speed, sleep=lambda s: wall.__setitem__(0, wall[0] + s), now=lambda: wall[0])

    monkeypatch.setattr(live.Clock, "__init__", counted)
    simulate(tmp_path, ONE_BIAS, speed=20.0)
    assert wall[0] == pytest.approx(10 * 94 / 20, abs=1.5)


def _lines(path: Path) -> int:
    return len(path.read_bytes().splitlines()) if path.exists() else 0


# ---- command -------------------------------------------------------------------------------------
def run(*arguments):
    import subprocess
    import sys

    command = [
        sys.executable,
        "-c",
        "from calcamp.cli.main import main; main()",
        "simulate",
        *map(str, arguments),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_command(tmp_path):
    path = write_session(tmp_path, ONE_DARK)
    truth = tmp_path / "t" / "what.json"
    options = [
        "--detector",
        "ccd273-mini",
        "--truth",
        truth,
        "--fault",
        "offset_step:17405:2:F",
        "--set",
        "dark.rts=3",
    ]
    done = run(path, "--into", tmp_path / "else", *options)
    assert done.returncode == 0, done.stderr
    assert "4 exposures, OBSID 17405 to 17408" in done.stdout
    # quiet in a pipe, but for what a person should know
    assert done.stderr.splitlines() == [
        "calcamp: simulated ccd273-mini; block NOSTROMO says detector: ccd273, analyse with the same"
    ]
    assert len(json.loads(truth.read_text())["channels"][0]["rts_pixels"]) == 3
    assert len(list((tmp_path / "else" / FOLDER).glob("*.fits"))) == 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fault", "nonsense"], "there is no fault 'nonsense'"),
        (["--set", "dark.nothing=1"], "there is no setting"),
        (["--set", "dark.rts"], "expected KEY=NUMBER"),
        (["--start", "yesterday"], "is not a date"),
        (["--start", "2019-03-12T07:00:00+01:00"], "no time zone"),
        (["--detector", "ccd999"], "ccd999"),
        (["--test", "BIAS07"], "the session has no test BIAS07"),
    ],
)
def test_command_with_bad_input_ends_with_2(tmp_path, arguments, message):
    path = write_session(tmp_path, ONE_DARK)
    done = run(path, "--into", tmp_path / "else", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "else").exists()


def test_command_help_and_lists():
    from typer.testing import CliRunner

    from calcamp.cli.simulate import app

    invoke = CliRunner().invoke
    done = invoke(app, ["--help"])
    assert done.exit_code == 0
    assert "calcamp simulate config/sessions/D11.yaml" in " ".join(done.output.replace("│", " ").split())
    assert "aborted_restart" in invoke(app, ["--list-faults"]).output
    assert "row_noise.sigma" in invoke(app, ["--list-settings"]).output
    assert invoke(app, ["a.yaml", "--seed", "-1"]).exit_code == 2
