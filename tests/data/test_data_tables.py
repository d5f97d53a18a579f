import math

import numpy as np
import pytest
from astropy.table import Table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calcamp.data.files import InputError
from calcamp.data.tables import (
    join_tables,
    read_table,
    table_arrays,
    table_columns,
    table_rows,
    unit_text,
    write_table,
)

NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF), min_size=1, max_size=8).filter(
    str.isprintable
)
CELLS = st.one_of(
    st.tuples(st.just("int64"), st.integers(-(2**62), 2**62)),
    st.tuples(st.just("float64"), st.floats()),
    st.tuples(
        st.just("string"),
        st.text(
            st.characters(blacklist_categories=("Cc", "Cs", "Zl", "Zp"), blacklist_characters="\x85"),
            max_size=12,
        ),
    ),
    st.tuples(st.just("bool"), st.booleans()),
)


@st.composite
def tables(draw):
    rows = draw(st.integers(1, 5))
    columns = {}
    for name in draw(st.lists(NAMES, min_size=1, max_size=5, unique=True)):
        kind, first = draw(CELLS)
        more = CELLS.filter(lambda cell, kind=kind: cell[0] == kind).map(lambda cell: cell[1])
        columns[name] = [first, *draw(st.lists(more, min_size=rows - 1, max_size=rows - 1))]
    return columns


def same(a, b):
    return a == b or (isinstance(b, float) and math.isnan(b) and a is None)


@settings(max_examples=150, suppress_health_check=[HealthCheck.filter_too_much])
@given(columns=tables())
def test_tables_round_trip_and_astropy_agrees(tmp_path_factory, columns):
    path = tmp_path_factory.getbasetemp() / "t.ecsv"
    write_table(path, columns)
    back, _ = table_columns(path)
    assert list(back) == list(columns)
    for name, values in columns.items():
        assert all(same(a, b) for a, b in zip(back[name], values, strict=True)), (back[name], values)
    arrays, _ = table_arrays(path)
    for name, values in columns.items():
        assert all(
            same(a, b) or (a != a and b != b) for a, b in zip(arrays[name].tolist(), values, strict=True)
        )
    table = read_table(path)
    assert table.colnames == list(columns)
    for name, values in columns.items():
        other = table[name].tolist()
        if isinstance(values[0], str):  # astropy takes blanks off the ends of texts
            other, values = [(a or "").strip() for a in other], [b.strip() for b in values]
        assert all(a == b or a is None or (a != a and b != b) for a, b in zip(other, values, strict=True))


def test_units_descriptions_meta_and_missing(tmp_path):
    path = write_table(
        tmp_path / "t.ecsv",
        {
            "ccd": [1, 2],
            "v": [1.5, None],
            "n": [None, 3],
            "quadrant": ["E", ""],
            "f": np.array([0.1, np.nan], np.float32),
        },
        units={"v": "e-/ADU", "f": "ADU"},
        meta={"test": "BIAS01", "limits": {"a": [1, None]}, "nan": math.nan},
        descriptions={"v": 'gain of a "quadrant": mean'},
    )
    assert table_rows(path) == [
        {"ccd": 1, "v": 1.5, "n": None, "quadrant": "E", "f": 0.1},
        {"ccd": 2, "v": None, "n": 3, "quadrant": "", "f": None},
    ]
    table = read_table(path)
    assert (str(table["v"].unit), table["v"].description) == ("electron / adu", 'gain of a "quadrant": mean')
    assert dict(table.meta) == {"test": "BIAS01", "limits": {"a": [1, None]}, "nan": None}
    assert table["f"].dtype == np.float32
    _, header = table_columns(path)
    assert header["units"] == {"v": "electron/adu", "f": "adu"}


@pytest.mark.parametrize("delimiter", [" ", ","])
def test_tables_of_astropy_are_read(tmp_path, delimiter):
    table = Table(
        {"a": np.array([1, 2], np.int16), "t": ['x "y", z', "#1"], "b": [True, False], "v": [1.0, np.nan]},
        meta={"k": 1},
    )
    table["v"].unit = "V"
    table.write(tmp_path / "t.ecsv", delimiter=delimiter)
    assert table_rows(tmp_path / "t.ecsv") == [
        {"a": 1, "t": 'x "y", z', "b": True, "v": 1.0},
        {"a": 2, "t": "#1", "b": False, "v": None},
    ]


def test_no_rows_and_numpy_types(tmp_path):
    path = write_table(tmp_path / "t.ecsv", {"a": [], "b": np.array([], np.uint16)})
    assert table_columns(path)[1]["datatype"] == {"a": "float64", "b": "uint16"}
    assert len(read_table(path)) == 0
    path = write_table(
        tmp_path / "u.ecsv",
        {
            "a": [np.int64(1), 2],
            "b": [np.float32(0.5), None],
            "c": np.array(["x", "y"]),
            "d": np.array([True, False]),
        },
    )
    assert table_rows(path)[0] == {"a": 1, "b": 0.5, "c": "x", "d": True}


def test_arrays(tmp_path):
    path = write_table(
        tmp_path / "t.ecsv",
        {"n": [1, 2], "m": [None, 2], "v": [1.5, None], "t": ["a b", ""], "ok": [True, None]},
        {"v": "V"},
        {"k": 1},
    )
    arrays, header = table_arrays(path)
    assert {name: array.dtype.kind for name, array in arrays.items()} == {
        "n": "i",
        "m": "f",
        "v": "f",
        "t": "O",
        "ok": "O",
    }
    assert np.array_equal(arrays["m"], [np.nan, 2], equal_nan=True)
    assert (arrays["t"].tolist(), arrays["ok"].tolist()) == (["a b", ""], [True, None])
    assert (header["units"], header["meta"]) == ({"v": "V"}, {"k": 1})


def test_arrays_of_many_dimensions(tmp_path):
    Table({"a": [1, 2], "m": np.arange(6.0).reshape(2, 3)}).write(tmp_path / "t.ecsv")
    arrays, _ = table_arrays(tmp_path / "t.ecsv")
    assert arrays["m"].tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("read", [table_columns, table_arrays])
@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("1.5 2.0 x", "'1.5' is not a int64"),
        ("1 1,5 x", "column v: '1,5'"),
        ("1 2.0", "2 values for 3"),
        ('1 2.0 "x', "quoted text"),
    ],
)
def test_a_damaged_row_is_told_by_its_line(tmp_path, read, line, problem):
    path = write_table(tmp_path / "t.ecsv", {"a": [1, 2, 3], "v": [2.0, 1.0, 0.0], "t": ["a b", "c", "d"]})
    lines = path.read_text().splitlines()
    lines[-2] = line
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=problem) as error:
        read(path)
    assert error.value.where == f"line {len(lines) - 1}"


def test_masked_columns(tmp_path):
    path = write_table(
        tmp_path / "t.ecsv",
        {"a": np.ma.masked_array([1, 2], [False, True]), "v": np.ma.masked_array([1.0, 2.0], [True, False])},
    )
    assert table_rows(path) == [{"a": 1, "v": None}, {"a": None, "v": 2.0}]


@pytest.mark.parametrize(
    ("columns", "units"),
    [
        ({"a": [1], "b": [1, 2]}, {}),
        ({"a": [1, "x"]}, {}),
        ({"a": [1]}, {"b": "V"}),
        ({"a": np.zeros((2, 2))}, {}),
        ({"a": [object()]}, {}),
        ({"a\n": [1]}, {}),
    ],
)
def test_wrong_use_is_a_value_error(tmp_path, columns, units):
    with pytest.raises(ValueError, match=r"column|units"):
        write_table(tmp_path / "t.ecsv", columns, units)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: "a b\n1 2\n",
        lambda text: text.replace("a v", "a w"),
        lambda text: text + "1\n",
        lambda text: text + "x 1\n",
        lambda text: text + '1 "x\n',
        lambda text: text.replace("datatype:", "other:"),
        lambda text: text.replace("# - {", "# - {{{"),
        lambda text: text.replace("# - {", "# - !!python/object/apply:os.system {"),
        lambda text: text.replace('name: "a"', "nome: 1"),
    ],
)
def test_damaged_tables_are_input_errors(tmp_path, change):
    path = write_table(tmp_path / "t.ecsv", {"a": [1], "v": [2.0]})
    path.write_text(change(path.read_text()))
    with pytest.raises(InputError, match=r"t\.ecsv"):
        table_rows(path)


def test_missing_table(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        table_rows(tmp_path / "t.ecsv")
    with pytest.raises(InputError, match="cannot be read"):
        read_table(tmp_path / "t.ecsv")


def test_join(tmp_path):
    meta = {"test": "X"}
    one = write_table(
        tmp_path / "1.ecsv", {"ccd": [1], "v": [1.5], "n": [1]}, {"v": "V"}, meta | {"ccd": 1}, {"v": "volts"}
    )
    two = write_table(
        tmp_path / "2.ecsv",
        {"ccd": [2, 2], "v": [None, 2.5], "flag": ["a", ""]},
        {"v": "V"},
        meta | {"ccd": 2},
    )
    out = join_tables([one, two], tmp_path / "out.ecsv")
    assert table_rows(out) == [
        {"ccd": 1, "v": 1.5, "n": 1, "flag": ""},
        {"ccd": 2, "v": None, "n": None, "flag": "a"},
        {"ccd": 2, "v": 2.5, "n": None, "flag": ""},
    ]
    _, header = table_columns(out)
    assert (header["meta"], header["units"], header["descriptions"]) == (
        {"test": "X"},
        {"v": "V"},
        {"v": "volts"},
    )


def test_join_of_a_table_cut_in_its_header_ends(tmp_path):
    one = write_table(tmp_path / "1.ecsv", {"ccd": [1]})
    cut = tmp_path / "2.ecsv"
    cut.write_bytes(one.read_bytes()[:40])
    with pytest.raises(InputError):
        join_tables([one, cut], tmp_path / "out.ecsv")


def test_join_of_nothing_measured_takes_the_other_type(tmp_path):
    one = write_table(tmp_path / "1.ecsv", {"t": [None]})
    two = write_table(tmp_path / "2.ecsv", {"t": ["text"]})
    for order, expected in (((two, one), ["text", ""]), ((one, two), ["", "text"])):
        rows = table_rows(join_tables(order, tmp_path / "o.ecsv"))
        assert [row["t"] for row in rows] == expected


def test_join_refuses_what_does_not_agree(tmp_path):
    one = write_table(tmp_path / "1.ecsv", {"v": [1.0]}, {"v": "V"})
    two = write_table(tmp_path / "2.ecsv", {"v": [1.0]}, {"v": "mV"})
    text = write_table(tmp_path / "3.ecsv", {"v": ["x"]}, {"v": "V"})
    with pytest.raises(InputError, match="unit mV"):
        join_tables([one, two], tmp_path / "o.ecsv")
    with pytest.raises(InputError, match="is string"):
        join_tables([one, text], tmp_path / "o.ecsv")
    with pytest.raises(InputError, match="no tables"):
        join_tables([], tmp_path / "o.ecsv")


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("ADU", "adu"),
        ("e-/ADU", "electron/adu"),
        ("ADU/s", "adu/s"),
        ("e-", "electron"),
        ("px", "pix"),
        ("deg C", "deg_C"),
        ("1e-3", "1e-3"),
        ("ADU2", "adu2"),
        ("ms", "ms"),
    ],
)
def test_units_are_spelled_as_astropy_reads_them(given, written):
    from astropy import units

    assert unit_text(given) == written
    units.Unit(written)
