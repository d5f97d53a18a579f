"""How block and session files name calibration products."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, PlainValidator, WithJsonSchema

from calcamp.config.errors import did_you_mean
from calcamp.config.shape import Shape

CCDS = (1, 2, 3)
QUADRANTS = ("E", "F", "G", "H")
_WAVELENGTH = re.compile(r"^nm\d{1,4}$")

_PATH_SCHEMA = {"type": "string", "minLength": 1}
_PER_CCD = {
    "type": "object",
    "properties": {str(ccd): _PATH_SCHEMA for ccd in CCDS},
    "additionalProperties": False,
    "minProperties": 1,
}
_FILES_SCHEMA = {
    "anyOf": [
        _PATH_SCHEMA,
        _PER_CCD,
        {
            "type": "object",
            "patternProperties": {r"^nm\d{1,4}$": {"anyOf": [_PATH_SCHEMA, _PER_CCD]}},
            "additionalProperties": False,
            "minProperties": 1,
        },
    ]
}
_QUADRANT_NUMBERS = {
    "type": "object",
    "properties": {quadrant: {"type": "number", "exclusiveMinimum": 0} for quadrant in QUADRANTS},
    "required": list(QUADRANTS),
    "additionalProperties": False,
}
_GAIN_SCHEMA = {
    "anyOf": [
        _PATH_SCHEMA,
        {
            "type": "object",
            "properties": {str(ccd): {"anyOf": [_QUADRANT_NUMBERS, _PATH_SCHEMA]} for ccd in CCDS},
            "additionalProperties": False,
            "minProperties": 1,
        },
        _FILES_SCHEMA["anyOf"][2],
    ]
}


def _path(value: object, where: str) -> None:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"found {value!r}{where}, expected a path; name the product's file")
    if value.endswith((".pick", ".pickle", ".pkl")):
        raise ValueError(
            f"found {value!r}{where}: pickles are not read, they can run code; name the .xlsx written beside it"
        )


def _ccds(value: dict, where: str, leaf) -> None:
    for ccd, item in value.items():
        if ccd not in CCDS:
            raise ValueError(f"found the CCD {ccd!r}{where}, expected 1, 2 or 3; correct it")
        leaf(item, f"{where} for CCD {ccd}")


def check_files(value: object, leaf=_path) -> object:
    """One path, or ``{1: path, ...}`` by CCD, or ``{nm800: path or by CCD}`` by wavelength."""
    if isinstance(value, str):
        _path(value, "")
        return value
    if not isinstance(value, dict) or not value:
        raise ValueError(
            f"found {value!r}, expected a path, or paths by CCD (1: ...) or by wavelength (nm800: ...)"
        )
    if all(isinstance(key, str) for key in value):
        for wave, item in value.items():
            if not _WAVELENGTH.match(wave):
                raise ValueError(
                    f"found the key {wave!r}, expected a CCD (1, 2, 3) or a wavelength such as nm800; correct it"
                )
            if isinstance(item, dict) and item:
                _ccds(item, f" in {wave}", leaf)
            else:
                _path(item, f" in {wave}")
    else:
        _ccds(value, "", leaf)
    return value


def _gain_leaf(value: object, where: str) -> None:
    if isinstance(value, str):
        _path(value, where)
        return
    if not isinstance(value, dict) or set(value) != set(QUADRANTS):
        raise ValueError(f"found {value!r}{where}, expected a path, or e-/ADU for E, F, G and H; correct it")
    for quadrant, number in value.items():
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 < number < 1000:
            raise ValueError(
                f"found {number!r}{where}, quadrant {quadrant}, expected a gain in e-/ADU; correct it"
            )


Files = Annotated[object, PlainValidator(check_files), WithJsonSchema(_FILES_SCHEMA)]
Gain = Annotated[
    object, PlainValidator(lambda value: check_files(value, _gain_leaf)), WithJsonSchema(_GAIN_SCHEMA)
]


class Products(Shape):
    """Calibration products: one file, or files by CCD, or by wavelength and CCD.

    Paths are relative to the file that names them. What is not named is not used.
    """

    mask: Files | None = Field(None, description="cosmetics mask (old 0/1 form, EUC_MASK_*), by CCD")
    dq: Files | None = Field(None, description="mask with reasons as bits (EUC_DQ_*), by CCD")
    gain: Gain | None = Field(None, description="gain table, or numbers in e-/ADU: {1: {E: 3.5, F: ..}, ..}")
    flat: Files | None = Field(
        None, description="master flats, by wavelength and CCD: {nm800: {1: path, ..}}"
    )
    bias: Files | None = Field(None, description="master bias (EUC_MASTERBIAS_*), by CCD")
    dark: Files | None = Field(None, description="master dark (EUC_DARK_*), by CCD")
    linearity: Files | None = Field(None, description="linearity correction")
    bf_kernel: Files | None = Field(None, description="brighter-fatter kernel, by CCD or wavelength")
    crosstalk: Files | None = Field(None, description="electronic cross-talk matrix of the block")
    lock: Files | None = Field(None, description="star lock of another session")
    shutter: Files | None = Field(None, description="shutter table, in place of the chamber's")
    traps: Files | None = Field(None, description="trap catalogue")

    def named(self) -> dict[str, object]:
        """The products that are named, by kind."""
        return {kind: value for kind, value in self if value is not None}


KINDS = tuple(Products.model_fields)


def resolve_paths(value: object, to_path) -> object:
    """`value` with every path made absolute by `to_path`; numbers stay."""
    if isinstance(value, str):
        return str(to_path(value))
    if isinstance(value, dict):
        return {key: resolve_paths(item, to_path) for key, item in value.items()}
    return value


def pick_product(value: object, ccd: int | None = None, wavelength: int | None = None) -> object:
    """The path (or the numbers) for a CCD and a wavelength [nm]; None if not named.

    Files given without wavelength, or without CCD, serve for all.
    """
    if isinstance(value, dict) and any(isinstance(key, str) and key.startswith("nm") for key in value):
        value = value.get(f"nm{wavelength}") if wavelength is not None else None
    if isinstance(value, dict) and all(key in CCDS for key in value) and ccd is not None:
        value = value.get(ccd)
    return value


def check_kind(kind: str) -> str:
    """`kind` if it is a kind of product, else ValueError with the likely one."""
    if kind not in KINDS:
        raise ValueError(f"unknown kind of product {kind!r}; {did_you_mean(kind, KINDS)}")
    return kind
