import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calcamp.data.explog import ExpLogWriter, LogParser
from calcamp.data.follow import MAX_LINE, Follower, RowFollower
from calcamp.data.hk import HKParser


def append(path, data):
    with open(path, "ab") as stream:
        stream.write(data)


def test_only_new_complete_lines(tmp_path):
    path = tmp_path / "log"
    follower = Follower(path)
    assert follower.read().missing
    append(path, b"one\r\ntw")
    assert follower.read().lines == ["one"]
    assert follower.read().lines == []
    append(path, b"o\nthree\n")
    news = follower.read()
    assert (news.lines, news.first_line, news.restarted) == (["two", "three"], 2, False)


@settings(max_examples=100)
@given(
    st.lists(st.text(st.characters(blacklist_characters="\n\r", codec="utf-8"), max_size=20), max_size=20),
    st.data(),
)
def test_random_chunks_lose_and_double_nothing(tmp_path_factory, lines, data):
    path = tmp_path_factory.mktemp("follow") / "log"
    content = "".join(line + "\n" for line in lines).encode()
    follower, got, state = Follower(path), [], None
    while content:
        size = data.draw(st.integers(1, len(content)))
        append(path, content[:size])
        content = content[size:]
        got += follower.read().lines
        state = follower.state
        if data.draw(st.booleans()):
            follower = Follower(path, state)  # the program was restarted
    assert got == lines


def test_a_new_copy_with_the_same_beginning_goes_on(tmp_path):
    path = tmp_path / "log"
    append(path, b"a\nb\n")
    follower = Follower(path)
    follower.read()
    append(tmp_path / "copy", b"a\nb\nc\n")
    os.replace(tmp_path / "copy", path)  # as rsync does
    news = follower.read()
    assert (news.lines, news.restarted) == (["c"], False)


@pytest.mark.parametrize("content", [b"x\ny\nz\n", b"a\n", b"A\nb\nc\n"])
def test_another_file_is_read_from_its_start(tmp_path, content):
    path = tmp_path / "log"
    append(path, b"a\nb\n")
    follower = Follower(path)
    follower.read()
    path.write_bytes(content)
    news = follower.read()
    assert (news.lines, news.restarted, news.first_line) == (content.decode().split(), True, 1)


def test_cut_to_nothing_then_grown(tmp_path):
    path = tmp_path / "log"
    append(path, b"a\nb\n")
    follower = Follower(path)
    follower.read()
    path.write_bytes(b"")
    assert follower.read().restarted
    append(path, b"n\n")
    assert follower.read().lines == ["n"]


def test_gone_and_back(tmp_path):
    path = tmp_path / "log"
    append(path, b"a\n")
    follower = Follower(path)
    follower.read()
    path.unlink()
    assert follower.read().missing
    append(path, b"a\nb\n")
    assert follower.read().lines == ["b"]


def test_endless_line_is_stepped_over(tmp_path):
    path = tmp_path / "log"
    append(path, b"x" * (MAX_LINE + 1))
    follower = Follower(path)
    assert follower.read().skipped == MAX_LINE + 1
    append(path, b"\nnext\n")
    assert follower.read().lines == ["", "next"]


def test_a_pipe_in_the_way_does_not_stop(tmp_path):
    os.mkfifo(tmp_path / "log")
    news = Follower(tmp_path / "log").read()
    assert news.lines == []


def test_state_is_plain(tmp_path):
    import json

    append(tmp_path / "log", b"a\n")
    follower = Follower(tmp_path / "log")
    follower.read()
    assert json.loads(json.dumps(follower.state)) == follower.state


def test_rows_of_a_growing_exposure_log(tmp_path, row):
    path = tmp_path / "EXP_LOG_120319.txt"
    follower = RowFollower(path, LogParser)
    assert follower.read() == ([], False)
    writer = ExpLogWriter(path)
    writer.write(row)
    assert [r["CCD"] for r in follower.read()[0]] == ["CCD1"]
    writer.write(row | {"CCD": "CCD2"})
    rows, restarted = follower.read()
    assert ([r["CCD"] for r in rows], rows[0]["_line"], restarted) == (["CCD2"], 3, False)
    path.unlink()
    ExpLogWriter(path).write(row | {"ObsID": 5})
    rows, restarted = follower.read()
    assert ([r["ObsID"] for r in rows], restarted) == ([5], True)


def test_rows_of_a_growing_house_keeping_file(tmp_path):
    path = tmp_path / "HK_12-03-19_ROE1_01.txt"
    follower = RowFollower(path, HKParser)
    append(path, b"TimeStamp\tA\r\n12-03-19_07:10:40\t1\r\n12-03-19_07:1")
    assert [values for _, values in follower.read()[0]] == [[1.0]]
    append(path, b"0:41\t2\r\n")
    assert [values for _, values in follower.read()[0]] == [[2.0]]
