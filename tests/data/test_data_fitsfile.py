import gzip
import random
import warnings

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from calcamp.data.files import InputError
from calcamp.data.fitsfile import extensions, read_fits_table, read_header, read_image, write_product

TYPES = ["uint8", "int16", "uint16", "int32", "uint32", "int64", "float32", "float64"]
ARRAYS = st.sampled_from(TYPES).flatmap(
    lambda kind: hnp.arrays(kind, hnp.array_shapes(min_dims=1, max_dims=3, max_side=5))
)
TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200)
KEYS = st.text(st.sampled_from("ABCXYZ019_-"), min_size=1, max_size=8).filter(
    lambda key: key.strip("-") == key
)


def opened_strictly(path):
    warnings.simplefilter("error")
    return fits.open(path, checksum=True)


@settings(max_examples=100)
@given(arrays=st.lists(ARRAYS, min_size=1, max_size=3))
def test_images_round_trip_to_the_last_bit_and_astropy_agrees(tmp_path, arrays):
    path = write_product(
        tmp_path / "p.fits", {"BLOCKID": "X"}, [(f"I{n}", array, "adu") for n, array in enumerate(arrays)]
    )
    with warnings.catch_warnings(), opened_strictly(path) as hdus:
        hdus.verify("exception")
        for n, array in enumerate(arrays):
            back, header = read_image(path, f"i{n}")
            assert back.dtype == array.dtype
            assert back.dtype.isnative
            assert back.shape == array.shape
            assert back.tobytes() == array.tobytes()
            assert header["BUNIT"] == "adu"
            other = hdus[f"I{n}"].data
            assert other.dtype.newbyteorder("=") == array.dtype
            assert other.astype(array.dtype).tobytes() == array.tobytes()
    assert read_image(path)[1]["EXTNAME"] == f"I{len(arrays) - 1}"


@settings(max_examples=100)
@given(
    header=st.dictionaries(
        KEYS, TEXTS | st.integers(-(2**60), 2**60) | st.floats() | st.booleans() | st.none(), max_size=8
    )
)
def test_headers_round_trip(tmp_path, header):
    path = write_product(tmp_path / "p.fits", header)
    back = read_header(path)
    for key, value in header.items():
        if isinstance(value, str):
            value = value.rstrip()
        elif isinstance(value, float) and not np.isfinite(value):
            value = None
        assert back[key] == value
    with warnings.catch_warnings(), opened_strictly(path) as hdus:
        hdus.verify("exception")


def test_lists_mappings_history_and_long_keywords(tmp_path):
    path = write_product(
        tmp_path / "p.fits",
        {
            "LIST": [1, 2],
            "MAP": {"a": None},
            "HISTORY": ["one", "two " * 30],
            "long name": 3,
            "C": (1.5, "why"),
        },
    )
    back = read_header(path)
    assert (back["LIST"], back["MAP"], back["LONG NAME"], back["C"]) == ("[1, 2]", '{"a": null}', 3, 1.5)
    assert back["HISTORY"][0] == "one"
    assert "".join(back["HISTORY"][1:]).startswith("two two")
    assert back["CREATOR"].startswith("calcamp ")
    assert fits.getheader(path).comments["C"] == "why"


def test_keywords_of_the_file_itself_are_not_overwritten(tmp_path):
    path = write_product(
        tmp_path / "p.fits",
        {"BITPIX": 99, "NAXIS": 7},
        [("A", np.zeros((2, 2)), "", {"NAXIS1": 5, "CHECKSUM": "x", "BUNIT": "V"})],
    )
    assert read_header(path)["BITPIX"] == 8
    assert read_image(path, "A")[0].shape == (2, 2)


def test_booleans_views_and_slices(tmp_path):
    array = np.arange(24, dtype=np.float32).reshape(4, 6)
    path = write_product(
        tmp_path / "p.fits",
        {},
        [
            ("B", array > 3, ""),
            ("S", array[::-1, ::2], ""),
            ("T", array.T, ""),
            ("N", array.astype(">f4"), ""),
        ],
    )
    assert np.array_equal(read_image(path, "B")[0], array > 3)
    assert np.array_equal(read_image(path, "S")[0], array[::-1, ::2])
    assert np.array_equal(read_image(path, "T")[0], array.T)
    assert np.array_equal(read_image(path, "N")[0], array)


@pytest.mark.parametrize(
    "array", [np.zeros(3, complex), np.array(["x"]), np.zeros(3, np.uint64), np.float64(1)]
)
def test_what_fits_cannot_hold_is_refused_and_nothing_left(tmp_path, array):
    with pytest.raises(ValueError, match="cannot be written"):
        write_product(tmp_path / "p.fits", {}, [("A", array, "")])
    assert not list(tmp_path.iterdir())


def test_tables(tmp_path):
    columns = {"ccd": [1, 2], "quadrant": ["E", "F"], "gain": [3.5, float("nan")]}
    path = write_product(
        tmp_path / "p.fits", {}, [("A", np.zeros(2), "")], [("GAIN", columns, {"gain": "e-/ADU"})]
    )
    back = read_fits_table(path, "GAIN")
    assert (back["ccd"], back["quadrant"], back["gain"][0]) == ([1, 2], ["E", "F"], 3.5)
    with warnings.catch_warnings(), opened_strictly(path) as hdus:
        assert hdus["GAIN"].header["TUNIT3"] == "electron/adu"
    assert [name for name, _ in extensions(path)] == ["META", "A", "GAIN"]
    with pytest.raises(InputError, match="no extension NONE"):
        read_fits_table(path, "NONE")


def test_images_of_others_are_read(tmp_path):
    hdu = fits.ImageHDU(np.arange(6, dtype=np.int16).reshape(2, 3), name="A")
    hdu.header["BSCALE"], hdu.header["BZERO"] = 0.5, 10.0
    fits.HDUList([fits.PrimaryHDU(np.ones((2, 2), np.float32)), hdu]).writeto(tmp_path / "p.fits")
    assert np.array_equal(read_image(tmp_path / "p.fits", "A")[0], fits.getdata(tmp_path / "p.fits", "A"))
    with pytest.raises(InputError, match="no image B; expected one of: number 0, A"):
        read_image(tmp_path / "p.fits", "B")


def test_bad_files_are_input_errors(tmp_path):
    path = write_product(tmp_path / "p.fits", {}, [("A", np.arange(9000.0), "")])
    whole = path.read_bytes()
    for name, content in {
        "cut": whole[:-3000],
        "empty": b"",
        "text": b"hello" * 1000,
        "bit": whole[:20000] + bytes([whole[20000] ^ 4]) + whole[20001:],
        "gz": gzip.compress(whole),
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name):
            read_image(tmp_path / name, "A")
    with pytest.raises(InputError, match="cannot be read"):
        read_image(tmp_path / "none.fits")
    with pytest.raises(InputError, match=r"not a regular file|cannot be read"):
        read_image(tmp_path)


def test_mutated_products_end_in_an_image_or_an_input_error(tmp_path):
    rng = random.Random(4)
    original = write_product(
        tmp_path / "o.fits",
        {"A": "x"},
        [("A", np.arange(500, dtype=np.float32), ""), ("B", np.arange(99, dtype=np.uint32), "")],
    ).read_bytes()
    images = [read_image(tmp_path / "o.fits", name)[0].tobytes() for name in "AB"]
    for _ in range(1500):
        content = bytearray(original)
        for _ in range(rng.choice([1, 2, 10])):
            content[rng.randrange(len(content))] = rng.randrange(256)
        (tmp_path / "m.fits").write_bytes(content)
        for name, wanted in zip("AB", images, strict=True):
            try:
                back, header = read_image(tmp_path / "m.fits", name)
            except InputError:
                continue
            if header.get("CHECKSUM") is not None:  # the card itself may have been hit
                assert back.tobytes() == wanted


def test_a_failed_write_leaves_the_old_product(tmp_path):
    path = write_product(tmp_path / "p.fits", {"A": 1}, [("A", np.zeros(3), "")])
    with pytest.raises(ValueError, match="keyword"):
        write_product(path, {"not\na keyword": 1}, [("A", np.ones(3), "")])
    assert read_header(path)["A"] == 1
    assert len(list(tmp_path.iterdir())) == 1
