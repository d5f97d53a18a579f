"""Made data played as an acquisition."""

import pytest
from tests.simulate.simulated import digests, simulate

from calcamp.data.files import InputError
from calcamp.simulate.replay import replay, taken

DAY = "12_Mar_19"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    simulate(folder, "\n  BIAS02: {obsids: [17273, 17282]}\n")
    return folder / "data" / DAY


class Wall:
    """A wall clock that only counts."""

    def __init__(self):
        self.time = 0.0

    def sleep(self, seconds):
        self.time += seconds

    def now(self):
        return self.time


def test_a_replay_ends_with_the_same_files(made, tmp_path):
    wall = Wall()
    replay(made, tmp_path / DAY, 60, sleep=wall.sleep, now=wall.now)
    assert digests(tmp_path / DAY) == digests(made)
    exposures = taken(made)
    lasts = (exposures[-1].end - exposures[0].start).total_seconds()
    assert wall.time == pytest.approx(lasts / 60, abs=0.5)


def test_frames_grow_and_the_log_comes_last_and_in_pieces(made, tmp_path):
    wall, seen = Wall(), []

    def sleep(seconds):
        wall.sleep(seconds)
        log = next((tmp_path / DAY).glob("EXP_LOG*"), None)
        frames = {p.name: p.stat().st_size for p in (tmp_path / DAY).glob("*.fits")}
        seen.append((log.read_bytes() if log else b"", frames))

    replay(made, tmp_path / DAY, 60, sleep=sleep, now=wall.now)
    whole = max(size for _, frames in seen for size in frames.values())
    assert any(0 < size < whole for _, frames in seen for size in frames.values())
    assert any(text and not text.endswith(b"\n") for text, _ in seen)
    for text, frames in seen:
        for line in text.split(b"\r\n")[1:-1]:
            assert frames[line.split(b"\t")[1].decode() + ".fits"] == whole


def test_a_pause(made, tmp_path):
    plain, paused = Wall(), Wall()
    replay(made, tmp_path / "a" / DAY, 60, sleep=plain.sleep, now=plain.now)
    replay(made, tmp_path / "b" / DAY, 60, pauses={17275: 600}, sleep=paused.sleep, now=paused.now)
    assert paused.time - plain.time == pytest.approx(10, abs=0.5)


def test_data_are_not_played_over_others(made):
    with pytest.raises(InputError, match="already holds data"):
        replay(made, made, 60)
