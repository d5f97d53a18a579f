"""What a test is: families, handles, tests, columns and sub-tasks, as declarations.

A family module in this package (``campaign/<family>.py``) exports one ``FAMILY``. It is found by
scanning the package, so a new family is one new file here. Standard library and pydantic only:
the Snakefile is parsed by every job.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from calcamp.config.errors import did_you_mean


class CampaignError(Exception):
    """Something asked of the campaign that it does not have; the text says what to do."""

    is_input_error = True


class Options(BaseModel):
    """Options of a sub-task: strict, every field described and bounded. Sub-class it per sub-task."""

    # A whole number passes for a number; a quoted one, or true, does not.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    def in_order(self, *names: str) -> Options:
        """Refuse fields that are not in ascending order; for validators."""
        for first, second in pairwise(names):
            low, high = getattr(self, first), getattr(self, second)
            if low > high:
                raise ValueError(
                    f"{first} {low:g} is above {second} {high:g}, expected {' <= '.join(names)}; correct them"
                )
        return self


@dataclass(frozen=True)
class Column:
    """A number of identical exposures.

    ``keys`` holds every commanded ELVIS key of the column that differs from the ELVIS default, by its
    script name (``frames`` is not among them). `expected_keys` of the catalogue fills in the defaults.
    """

    frames: int
    keys: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Need:
    """A calibration product that a sub-task can use, taken only if block or session names it."""

    kind: str  # mask, dq, gain, flat, bias, dark, linearity, bf_kernel, crosstalk, lock, shutter, traps
    per_wavelength: bool = False
    required: bool = False


@dataclass(frozen=True)
class Subtask:
    """One step of a test.

    ``scope`` is ``ccd`` (one process per CCD) or ``block`` (one process, all CCDs). ``after`` names
    sub-tasks whose results are read; they are run when this one is asked for. ``version`` is raised by
    the developer when the results change: it re-runs the sub-task.
    """

    name: str
    scope: str = "ccd"
    after: tuple[str, ...] = ()
    options: type[Options] = Options
    needs: tuple[Need, ...] = ()
    version: int = 1
    production: bool = True  # part of `do: all`
    # (test, chamber, detector) -> what the step must know of the chamber, as plain data; None: nothing
    chamber_data: Callable[[object, object, object], dict] | None = None
    aliases: tuple[str, ...] = ()
    # For the cluster profile, from benchmarks at full size: peak memory of the step and of the Snakemake that a
    # cluster starts around it (300 MB), minutes for a start on a busy node, seconds for each frame of a CCD.
    mem_mb: int = 1500
    runtime_min: int = 5
    frame_s: float = 4.0


@dataclass(frozen=True)
class Test:
    """One test: one script, one results folder."""

    name: str  # e.g. FOCUS00_800
    handle: str  # e.g. FOCUS00
    family: str
    columns: Callable[[object], list[Column]]  # chamber profile -> columns; raises CampaignError
    title: str = ""  # what the test is, for the report's title page
    purpose: str = ""
    subtasks: tuple[Subtask, ...] = ()  # in order; `check` and `prep` included
    waived: tuple[str, ...] = ("motr_siz",)  # keys that the structure check does not compare
    colour_blind: bool = True  # rows are selected whatever their filter
    surrogate: str | None = None  # reads the rows of this test
    wavelength: int | None = None  # nm; 0 neutral density, 2000 open
    clocks: str | None = None  # register (parallel, serial) whose clock table the sub-tasks read
    campaign_types: tuple[str, ...] = ("Full",)
    # (test, chamber, detector) -> what limits are relative to, as plain data for the judge
    chamber_data: Callable[[object, object, object], dict] | None = None

    def subtask(self, name: str) -> Subtask:
        for subtask in self.subtasks:
            if name == subtask.name or name in subtask.aliases:
                return subtask
        raise CampaignError(
            f"{self.name} has no sub-task {name!r}: it has {', '.join(s.name for s in self.subtasks)}"
        )

    @property
    def log_name(self) -> str:
        """The name under which the EXP-LOG holds the exposures (commanded key ``test``)."""
        return self.surrogate or self.name


@dataclass(frozen=True)
class Family:
    """A family of tests that share analysis, steps, report and rules of the same file name."""

    name: str
    tests: tuple[Test, ...]


class PrepOptions(Options):
    """How images are prepared. The same options steer the streamed and the written images."""

    # As METHODS and SCANS of analysis/offset.py, which is a floor above.
    offset: Literal["row", "median", "smooth", "none"] = Field(
        "row", description="row; median: one per quadrant; smooth: row means smoothed along rows; none"
    )
    scan: Literal["pre", "ove", "both"] = Field(
        "pre", description="the offset is taken from prescan, overscan or both"
    )
    use_mask: bool = Field(True, description="use the mask and dq products, where named")
    use_bias: bool = Field(True, description="subtract the bias product, where one is named")
    use_flat: bool = Field(True, description="divide by the flat product, where one is named")
    cosmics: bool = Field(False, description="look for cosmic rays and mask them")


CHECK = Subtask("check", version=1, mem_mb=600, runtime_min=5)
HK = Subtask("hk", scope="block", version=1, mem_mb=500, runtime_min=2, production=False)


def prep(**defaults) -> Subtask:
    """The sub-task `prep` with a test's own defaults."""
    base = PrepOptions(**defaults)
    declared = PrepOptions.model_fields
    fields = {
        name: (declared[name].annotation, Field(value, description=declared[name].description))
        for name, value in base.model_dump().items()
    }
    options = create_model("PrepOptions", __base__=PrepOptions, **fields)
    return Subtask(
        "prep",
        after=("check",),
        options=options,
        needs=(Need("mask"), Need("dq"), Need("bias"), Need("gain")),
        production=False,
    )


@cache
def families() -> dict[str, Family]:
    """All families, by name, in alphabetical order of their modules."""
    import calcamp.campaign as package

    found = {}
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        family = getattr(module, "FAMILY", None)
        if family is not None:
            found[family.name] = family
    return found


@cache
def tests() -> dict[str, Test]:
    """All tests by name."""
    return {test.name: test for family in families().values() for test in family.tests}


def find_test(name: str) -> Test:
    """The test called `name`; a generic handle or an unknown name is refused with what would be right."""
    known = tests()
    if name in known:
        return known[name]
    of_handle = [test.name for test in known.values() if test.handle == name]
    if of_handle:
        raise CampaignError(f"{name} is a handle, not a test: name one of {', '.join(of_handle)}")
    raise CampaignError(f"unknown test {name!r}; {did_you_mean(name, known)}")
