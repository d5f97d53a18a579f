"""Session YAML: what an analyst asks to be done with the data of one acquisition session."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, WithJsonSchema, model_validator

from calcamp.config.limits import Overrides, canonical_overrides
from calcamp.config.products import Products, resolve_paths
from calcamp.config.shape import File, Name, Shape

ELVIS_VERSIONS = ("7.5.X", "7.2.X", "6.5.X", "6.3.0")

_EXCLUDE = re.compile(r"^(?:CCD([123])/(?:([EFGH])/)?)?(\d{1,9})$")
_SUBTASK = re.compile(r"^[A-Za-z][A-Za-z0-9_]{0,63}$")


@dataclass(frozen=True)
class Exclusion:
    """Data left out by hand: an exposure, of one CCD or quadrant if given."""

    obsid: int
    cause: str
    ccd: int | None = None
    quadrant: str | None = None


def _exclude_key(value: object) -> str:
    text = str(value)
    if isinstance(value, bool) or not _EXCLUDE.match(text):
        raise ValueError(f"found {text!r}, expected an OBSID (18011), CCD2/18013 or CCD2/E/18013; correct it")
    return text


def _cause(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"found {value!r}, expected the reason as text; the report shows it")
    return value


def _do(value: object) -> object:
    if value == "all":
        return value
    wanted = "expected all, or a list of sub-tasks such as [check, basic, meta]"
    if not isinstance(value, list):
        raise ValueError(f"found {value!r}, {wanted}; correct it")
    if not value:
        raise ValueError(f"found an empty list, {wanted}; take the test out to leave it alone")
    for item in value:
        if not isinstance(item, str) or not _SUBTASK.match(item):
            raise ValueError(f"found {item!r} in the list, {wanted}; correct it")
    doubles = {item for item in value if value.count(item) > 1}
    if doubles:
        raise ValueError(f"{sorted(doubles)[0]} is listed twice; keep one")
    return value


def _in_order(value: list[int] | None) -> list[int] | None:
    if value is not None and value[0] > value[1]:
        raise ValueError(f"found {value}, expected [first, last]; swap them")
    return value


def _test_name(value: str) -> str:
    if not re.match(r"^[A-Z][A-Z0-9]*(?:_[A-Za-z0-9]+)*(?:\.\d{1,3})?$", value):
        raise ValueError(
            f"found {value!r}, expected the name of a test such as BIAS01, FOCUS00_800 or BIAS02.2; correct it"
        )
    return value


Obsid = Annotated[int, Field(ge=0, le=999_999_999)]
Do = Annotated[
    object,
    PlainValidator(_do),
    WithJsonSchema(
        {"anyOf": [{"const": "all"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
    ),
]
ExcludeKey = Annotated[str, BeforeValidator(_exclude_key)]
Cause = Annotated[str, BeforeValidator(_cause)]
TestName = Annotated[str, AfterValidator(_test_name), Field(max_length=64)]
Text = Annotated[str, Field(min_length=1)]


class Data(Shape):
    """Where the acquired data are."""

    root: Text = Field(description="folder that holds the day-folders, relative to this file")
    day_folders: list[Text] = Field(
        min_length=1, description="day-folders of the session in date order, e.g. [12_Mar_19]"
    )


class Wait(Shape):
    """Following an acquisition (mode: wait)."""

    poll_s: float = Field(5.0, gt=0, le=3600, description="time between two looks at the EXP-LOG [s]")
    timeout_h: float = Field(
        4.0, gt=0, le=1000, description="give up when nothing new came for this time [h]"
    )
    settle_s: float = Field(
        30.0, ge=0, le=3600, description="a frame must not have changed for this time [s]"
    )
    overtaken_min: float = Field(
        30.0,
        gt=0,
        le=6000,
        description="give up a test that broke off when nothing of it came for this time and others did [min]",
    )
    start_obsid: Obsid | None = Field(None, description="leave out exposures before this OBSID")


class TestEntry(Shape):
    """One test of the session."""

    __test__ = False  # not a test of the test-suite

    obsids: Annotated[list[Obsid] | None, AfterValidator(_in_order)] = Field(
        None, min_length=2, max_length=2, description="first and last OBSID; left out: found in the EXP-LOG"
    )
    do: Do = Field("all", description="all, or a list of sub-tasks")
    priority: int = Field(
        0, description="tests of higher priority are done first, equal ones in the order of the session"
    )
    options: dict[str, dict[str, object]] = Field(
        {}, description="options by sub-task: {prep: {offset: row, scan: pre}}"
    )
    limits: Overrides = Field({}, description="limits of this test that differ: {RON: [0.8, 1.5]}")
    exclude: dict[ExcludeKey, Cause] = Field(
        {}, description="data left out by hand, with the reason: {18011: lamp off, CCD2/18013: dropped rows}"
    )
    start_obsid: Obsid | None = Field(None, description="leave out exposures of this test before this OBSID")
    data: Data | None = Field(None, description="data of this test, if from another place than the session's")
    products: Products = Field(
        default_factory=Products, description="calibration products for this test only"
    )

    def exclusions(self) -> list[Exclusion]:
        """Data left out by hand."""
        found = []
        for key, cause in self.exclude.items():
            ccd, quadrant, obsid = _EXCLUDE.match(key).groups()
            found.append(Exclusion(int(obsid), cause, int(ccd) if ccd else None, quadrant))
        return found

    def limit_overrides(self) -> dict[str, object]:
        """Limits of this test by canonical name, for `Limits.resolve`."""
        return canonical_overrides(self.limits)


class Session(File):
    """One session file."""

    session: Name = Field(description="name of the session, e.g. D11: results go into a folder of this name")
    block: str = Field(min_length=1, description="block: a name in blocks/, or a path")
    chamber: str | None = Field(
        None, description="chamber profile in place of the block's: a name in chambers/, or a path"
    )
    filled_in_by: str = Field("", description="the analyst who filled in this file")
    elvis: Literal["7.5.X", "7.2.X", "6.5.X", "6.3.0"] = Field(
        "7.5.X", description="version of the acquisition software"
    )
    mode: Literal["aim", "wait"] = Field(
        "aim", description="aim: the data are there; wait: follow the acquisition"
    )
    check_only: bool = Field(False, description="only check (and lock) and report, whatever the tests list")
    data: Data | None = Field(None, description="where the acquired data are")
    results: Text = Field(description="folder for results, relative to this file")
    limits: str = Field("default", description="limits file: a name in limits/, or a path")
    wait: Wait = Field(default_factory=Wait, description="following an acquisition")
    products: Products = Field(
        default_factory=Products, description="calibration products for all tests of the session"
    )
    tests: dict[TestName, TestEntry] = Field(
        min_length=1, description="tests in the order of the acquisition"
    )

    @model_validator(mode="after")
    def _data_somewhere(self):
        if self.data is None:
            homeless = [name for name, entry in self.tests.items() if entry.data is None]
            if homeless:
                raise ValueError(
                    f"no data for {homeless[0]}, expected data: {{root: .., day_folders: [..]}}; add it"
                )
        return self

    def entry(self, test: str) -> TestEntry:
        """The entry of a test; `ConfigError` with the likely name if there is none."""
        if test not in self.tests:
            from calcamp.config.errors import did_you_mean

            raise self.error(("tests",), f"the session has no test {test!r}", did_you_mean(test, self.tests))
        return self.tests[test]

    def data_folders(self, test: str | None = None) -> list[Path]:
        """Day-folders, absolute: of the session, or of `test` where it has its own."""
        data = self.entry(test).data if test is not None else None
        data = data or self.data
        return [self.path_to(data.root) / day for day in data.day_folders] if data else []

    @property
    def results_root(self) -> Path:
        """Absolute folder of results; those of the session are in ``<results_root>/<session>/``."""
        return self.path_to(self.results)

    def start_obsid(self, test: str) -> int | None:
        """First OBSID to look at for `test`: its own, else the session's."""
        own = self.entry(test).start_obsid
        return own if own is not None else self.wait.start_obsid

    def product_paths(self, test: str | None = None, block=None) -> dict[str, object]:
        """Products by kind with absolute paths: the test's win over the session's, these over the block's."""
        paths = dict(block.product_paths()) if block is not None else {}
        layers = [self.products] + ([self.entry(test).products] if test is not None else [])
        for layer in layers:
            paths.update({kind: resolve_paths(value, self.path_to) for kind, value in layer.named().items()})
        return paths
