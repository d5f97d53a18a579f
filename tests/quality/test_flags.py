"""Flags: bits of the predecessor, causes before consequences."""

import pytest

from calcamp.quality.flags import (
    BITS,
    DATA_FLAGS,
    EXPLAINS,
    MEANINGS,
    NAMES,
    PRECEDENCE,
    PROGRAMME_FLAGS,
    RESULT_FLAGS,
    Flag,
    arrange,
    mask,
    names_of,
)


def test_bits_of_the_predecessor():
    assert len(NAMES) == 31
    assert BITS["MISSDATA"] == 0
    assert BITS["HK_OOL"] == 8
    assert BITS["UNKNOWN"] == 17
    assert BITS["RON_OOL"] == 18
    assert BITS["CCDSATUR"] == 23
    assert BITS["SUBTASKCRASH"] == 26
    assert BITS["NONSATURATION"] == 30


def test_tables_are_complete():
    assert sorted(PRECEDENCE) == sorted(NAMES) == sorted(MEANINGS)
    assert set(NAMES) == DATA_FLAGS | RESULT_FLAGS | PROGRAMME_FLAGS
    rank = {name: n for n, name in enumerate(PRECEDENCE)}
    for cause, effects in EXPLAINS.items():
        assert all(rank[cause] < rank[effect] for effect in effects), cause


def test_mask():
    assert mask(["MISSDATA", "RON_OOL", "RON_OOL"]) == 1 | 1 << 18
    assert mask([Flag("NONSATURATION", "x")]) == 1 << 30
    assert names_of(mask(NAMES)) == list(NAMES)


def test_unknown_flag():
    with pytest.raises(ValueError, match="unknown flag 'RONOOL'"):
        Flag("RONOOL", "x")


def test_causes_come_first_and_explain():
    flags = arrange(
        [
            Flag("POORQUALDATA", "offset", {"ccd": 1, "quadrant": "E"}),
            Flag("RON_OOL", "noise", {"ccd": 1, "quadrant": "E"}),
            Flag("RON_OOL", "noise", {"ccd": 2, "quadrant": "E"}),
            Flag("DEADQUAD", "constant", {"ccd": 1, "quadrant": "E"}),
            Flag("HK_OOL", "28 V", {}),
        ]
    )
    assert [(f.name, f.scope.get("ccd")) for f in flags] == [
        ("HK_OOL", None),
        ("DEADQUAD", 1),
        ("RON_OOL", 2),
        ("POORQUALDATA", 1),
        ("RON_OOL", 1),
    ]
    assert [f.consequence_of for f in flags] == [(), (), (), ("DEADQUAD",), ("DEADQUAD",)]


def test_equal_flags_are_merged():
    (flag,) = arrange(
        [
            Flag("BADDATA", "truncated", {"ccd": 1, "obsids": [5]}),
            Flag("BADDATA", "truncated", {"ccd": 1, "obsids": [4]}),
        ]
    )
    assert flag.scope == {"ccd": 1, "obsids": [4, 5]}


def test_flag_of_a_record():
    flag = Flag.from_dict(
        {"name": "BADDATA", "cause": "x", "scope": {"ccd": 2, "obsid": 7, "quadrant": None}}
    )
    assert flag.scope == {"ccd": 2, "obsids": [7]}
    assert flag.as_dict()["kind"] == "data"
    assert Flag.from_dict(flag.as_dict()) == flag
