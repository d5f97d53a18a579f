import json
import os
import pickle
import stat

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calcamp.data import files

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_json_round_trips(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "value.json"
    assert files.read_json(files.write_json(path, value)) == value
    assert path.read_bytes().endswith(b"\n")


def test_json_of_numpy_and_nan(tmp_path):
    value = {
        "a": np.float32(1.5),
        "b": np.array([1, 2]),
        "c": float("nan"),
        "d": np.nan,
        "e": {3: (1, float("inf"))},
        "p": tmp_path,
        "t": np.bool_(True),
    }
    back = files.read_json(files.write_json(tmp_path / "x.json", value))
    assert back == {
        "a": 1.5,
        "b": [1, 2],
        "c": None,
        "d": None,
        "e": {"3": [1, None]},
        "p": str(tmp_path),
        "t": True,
    }
    assert list(back) == list(value)


@pytest.mark.parametrize("text", ["", "{", '{"a": 1,}', "[" * 100_000, "\xff", '{"a": ' + "9" * 5000 + "}"])
def test_bad_json_is_an_input_error_with_the_file(tmp_path, text):
    path = tmp_path / "bad.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(files.InputError, match=r"bad\.json"):
        files.read_json(path)


def test_missing_json(tmp_path):
    with pytest.raises(files.InputError, match="cannot be read"):
        files.read_json(tmp_path / "none.json")


def test_json_line_is_named(tmp_path):
    (tmp_path / "bad.json").write_text('{\n"a": 1\n"b": 2}')
    with pytest.raises(files.InputError, match="line 3"):
        files.read_json(tmp_path / "bad.json")


def test_input_error_says_all_and_survives_a_pool():
    error = files.InputError("is wrong", file="a.txt", where=3, expected="right", remedy="Mend it")
    assert str(error) == "a.txt, line 3: is wrong; expected right. Mend it"
    assert error.is_input_error
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error)
    assert (copy.file, copy.where, copy.expected, copy.remedy) == ("a.txt", "line 3", "right", "Mend it")


def test_write_replaces_whole_and_leaves_no_part(tmp_path):
    path = tmp_path / "sub" / "x.txt"
    files.write_atomic(path, "one")
    files.write_atomic(path, b"two")
    assert path.read_text() == "two"
    assert os.listdir(path.parent) == ["x.txt"]


def test_failed_write_keeps_the_old_content(tmp_path):
    path = files.write_atomic(tmp_path / "x.txt", "old")

    def half(stream):
        stream.write(b"half")
        raise RuntimeError

    with pytest.raises(RuntimeError), files.replacing(path) as stream:
        half(stream)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["x.txt"]


@pytest.mark.parametrize("call", ["fsync", "replace", "chmod"])
def test_every_failing_call_keeps_the_old_content(tmp_path, monkeypatch, call):
    path = files.write_atomic(tmp_path / "x.txt", "old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="No space"):
        files.write_atomic(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["x.txt"]


def test_permissions_follow_umask_and_are_kept(tmp_path):
    path = files.write_atomic(tmp_path / "x", "a")
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask
    path.chmod(0o600)
    files.write_atomic(path, "b")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_link_or_copy(tmp_path, monkeypatch):
    source = files.write_atomic(tmp_path / "a", "content")
    target = files.link_or_copy(source, tmp_path / "sub" / "b")
    assert target.samefile(source)
    files.link_or_copy(source, target)  # again is fine
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(18, "cross-device")))
    copy = files.link_or_copy(source, tmp_path / "c")
    assert copy.read_text() == "content"
    assert not copy.samefile(source)
    assert sorted(os.listdir(tmp_path)) == ["a", "c", "sub"]


def test_a_link_is_followed_so_that_results_can_move(tmp_path):
    source = files.write_atomic(tmp_path / "a", "content")
    (tmp_path / "l").symlink_to(source)
    assert not files.link_or_copy(tmp_path / "l", tmp_path / "b").is_symlink()


def test_sha256(tmp_path):
    path = files.write_atomic(tmp_path / "x", b"abc")
    assert files.sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_json_text_is_strict():
    assert json.loads(files.json_text({"a": float("nan")})) == {"a": None}
    with pytest.raises(TypeError):
        files.json_text({"a": object()})


def test_pipes_and_too_large_files_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="regular"):
        files.read_bounded(tmp_path / "pipe", 10)
    files.write_atomic(tmp_path / "x", "12345")
    assert files.read_bounded(tmp_path / "x", 5) == b"12345"
    with pytest.raises(OSError, match="more than"):
        files.read_bounded(tmp_path / "x", 4)
    with pytest.raises(files.InputError, match="regular"):
        files.read_json(tmp_path / "pipe")
