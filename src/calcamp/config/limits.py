"""Limits YAML: what measurements and house-keeping are judged by. All bounds are inclusive.

A limit has a name (`NAMES`), and rules that say for which tests, columns, read modes and blocks it
holds. Rules are read from top to bottom; what a later rule sets replaces what earlier ones set, as
in a style sheet. `Limits.resolve` gives what holds for one test.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from calcamp.config.errors import ConfigError, did_you_mean
from calcamp.config.shape import File, Name, Shape

#: Names of limits, and what each one bounds. The limits file declares exactly these.
NAMES: dict[str, str] = {
    "offset": "offset of a region, above or below the expected offset of the block's quadrant",
    "offset_gradient": "offset of image or overscan minus that of the prescan",
    "read_noise": "noise of a region",
    "saturation": "fraction of saturated pixels of a quadrant",
    "nonsaturation": "fraction of saturated pixels where saturation is wanted (PERSIST01)",
    "lost_pixels": "number of pixels at 0 in the read window",
    "dark_signal": "signal of a dark exposure",
    "dark_scatter": "standard deviation of the dark signal over the exposures",
    "fluence": "flat fluence, as a fraction of the expected one",
    "background_fluence": "fluence of a background column, exposure time 0",
    "flux": "saturation time of the flat source, as a fraction of the chamber's",
    "her": "hard-edge response",
    "injection": "injected level, as a fraction of the predicted one",
    "injection_gradient": "spread of the injected level, as a fraction of the predicted level",
    "injection_significance": "injected lines above the others, in standard deviations",
    "background": "background of the image area",
    "fwhm": "size of a spot",
    "spot_fluence": "fluence of a spot, as a fraction of that of a spot that saturates",
    "peak": "peak of a spot, as a fraction of the expected one",
    "point_flux": "saturation time of the point source, as a fraction of the chamber's",
    "lock_scale": "scale of the star lock",
    "lock_rotation": "rotation of the star lock",
    "lock_shift": "shift of the star lock",
    "lock_missing": "stars that are missing",
    "psf_kernel": "width of the detector's part of the point spread function",
    "crosstalk_largest": "largest cross-talk coefficient of a victim",
    "crosstalk_second": "second largest cross-talk coefficient of a victim",
    "lamp_peak": "largest deviation of the lamp from its mean",
    "lamp_rms": "rms of the lamp about its trend",
    "ramp_slope": "slope of the warm ramp",
    "ramp_uniformity": "slope of the warm ramp over the median of the quadrants",
    "flat_signal": "level of the flat of the warm test",
    "spots_found": "spots of a quadrant that were found, of five",
    "lost_area": "bad pixels over the pixels of the image area",
    "bad_columns": "columns with a run of bad pixels",
    "clusters": "groups of touching bad pixels",
    "persistence": "charge released in the first dark after saturation",
    "stray_light": "rate of light in an exposure that should be dark",
}

#: Other names that are understood: of the field, and of the predecessor.
ALIASES: dict[str, str] = {
    "RON": "read_noise",
    "RONs_lims": "read_noise",
    "offsets": "offset",
    "offsets_lims": "offset",
    "offsets_gradients": "offset_gradient",
    "gradient": "offset_gradient",
    "SATUR": "saturation",
    "HER": "her",
    "HER_lims": "her",
    "BGD_lims": "background",
    "bgd": "background",
    "FWHM_lims": "fwhm",
    "FWHM": "fwhm",
    "PeakFlu_lims": "peak",
    "FLU_lims": "fluence",
    "FluGrad_lims": "injection_gradient",
}

HK_KEY = re.compile(
    r"^(?:CCD[123]_(?:TEMP|OD|IG1)_[TB]|COMM_(?:RD|IG2)_[TB]|VID_PCB_TEMP_[TB]|(?:FPGA|RPSU)_[A-Z0-9_]+)$"
)

_FLAGS = """
    SPW_STATUS_REG ProtOvRideFlg hkInvalidFlg SPI_Inh_n 3v3ProtErr 5vProtErr V3v3ProtCnt V5ProtCnt VccdErrFlg
    VclkErrFlg VanErrFlg dacExeErr hkTmErr spwTmTOFlg spwTmRspErrFlg spwTcPktErrFlg adcBsyErrFlg CDPUClkSw hkRamErr
    ADC_BSY_ERR_CNT pixelToErr spwStatus spwTmPtypeFlag TwoCmdsErr Out_of_range CDPUClkSt CDPUClkLost fpgaSpwErr
    stTMRErrFlg hkTMRErrFlg stRamErr
"""
#: Flags and registers, which are compared with fixed values: no band can replace these.
HK_FLAGS = frozenset(_FLAGS.split())
#: Open ends of a house-keeping band, whose both ends are numbers: HK files and plots need them.
OPEN = (-1e9, 1e9)

#: What a limit can be relative to. The caller gives the value; how it is made is told in the limits file.
REFERENCES = (
    "block_offset",
    "flat_fluence",
    "flat_saturation_time",
    "injection_prediction",
    "spot_fluence",
    "spot_peak",
    "point_saturation_time",
)

Region = Literal["pre", "img", "ove", "pov"]
Bound = Annotated[float, Field(allow_inf_nan=False)]


def canonical_name(name: str) -> str:
    """The name of a limit from itself or an alias; house-keeping keys stay. ValueError otherwise."""
    if name in NAMES or HK_KEY.match(name):
        return name
    if name in ALIASES:
        return ALIASES[name]
    if name in HK_FLAGS:
        raise ValueError(
            f"{name} is compared with fixed values, expected a limit that has bounds; change it in the limits file"
        )
    raise ValueError(f"unknown limit {name!r}; {did_you_mean(name, [*NAMES, *ALIASES])}")


def _name(value: object) -> object:
    if isinstance(value, str):
        canonical_name(value)
    return value


def _as_mapping(value: object) -> object:
    """``[low, high]`` and ``false`` as mappings."""
    if isinstance(value, list):
        if len(value) != 2:
            raise ValueError(f"found a list of {len(value)}, expected [low, high]; null is an open end")
        return {"low": value[0], "high": value[1]}
    if value is False:
        return {"applies": False}
    if not isinstance(value, dict):
        raise ValueError(
            f"found {value!r}, expected [low, high], false, or a mapping with low and high; correct it"
        )
    if isinstance(value, _HkMapping):
        stray = [key for key in ("columns", "regions") if key in value]
        if stray:
            raise ValueError(
                f"found {' and '.join(stray)}, expected low and high: house-keeping is judged over the whole test; "
                f"take {' and '.join(stray)} out"
            )
        return dict(value)
    return value


def _ordered(low: float | None, high: float | None) -> None:
    if low is not None and high is not None and low > high:
        raise ValueError(f"low {low:g} is above high {high:g}; swap them")


class LimitOverride(Shape):
    """A limit that differs from the limits file: ``[low, high]``, ``false``, or the mapping."""

    low: Bound | None = Field(None, description="lower bound, inclusive; null: open")
    high: Bound | None = Field(None, description="upper bound, inclusive; null: open")
    applies: bool = Field(True, description="false: not judged")
    columns: list[int] | None = Field(None, description="only in these columns of the test")
    regions: list[Region] | None = Field(None, description="only these regions")

    @model_validator(mode="after")
    def _check(self):
        _ordered(self.low, self.high)
        if (
            self.applies
            and self.low is None
            and self.high is None
            and self.columns is None
            and self.regions is None
        ):
            raise ValueError("neither low nor high is given, expected [low, high] or false; add one")
        return self


_OVERRIDE_SCHEMA = {
    "anyOf": [
        {"type": "array", "items": {"type": ["number", "null"]}, "minItems": 2, "maxItems": 2},
        {"const": False},
        {
            "type": "object",
            "properties": {
                "low": {"type": ["number", "null"]},
                "high": {"type": ["number", "null"]},
                "applies": {"type": "boolean"},
                "columns": {"type": "array", "items": {"type": "integer"}},
                "regions": {"type": "array", "items": {"enum": ["pre", "img", "ove", "pov"]}},
            },
            "additionalProperties": False,
        },
    ]
}
LimitName = Annotated[str, BeforeValidator(_name)]
Override = Annotated[LimitOverride, BeforeValidator(_as_mapping), WithJsonSchema(_OVERRIDE_SCHEMA)]


def _no_doubles(overrides: dict) -> dict:
    seen: dict[str, str] = {}
    for name in overrides:
        known = seen.setdefault(canonical_name(name), name)
        if known != name:
            raise ValueError(f"{known} and {name} are the same limit; keep one")
    return overrides


class _HkMapping(dict):
    """A mapping given for a house-keeping key, which `_as_mapping` holds to less: it does not see the key."""


def _marked(overrides: object) -> object:
    """`overrides` with the mappings of house-keeping keys marked."""
    if not isinstance(overrides, dict):
        return overrides
    return {
        name: _HkMapping(item)
        if isinstance(name, str) and HK_KEY.match(name) and isinstance(item, dict)
        else item
        for name, item in overrides.items()
    }


Overrides = Annotated[dict[LimitName, Override], BeforeValidator(_marked), AfterValidator(_no_doubles)]


def canonical_overrides(overrides: dict) -> dict[str, dict]:
    """Overrides by canonical name as plain data: only what was set."""
    plain = {}
    for name, item in _marked(overrides).items():
        model = item if isinstance(item, LimitOverride) else LimitOverride.model_validate(_as_mapping(item))
        plain[canonical_name(name)] = model.model_dump(exclude_unset=True)
    return plain


# ---- the file ------------------------------------------------------------------------------------
Pair = Annotated[list[Bound], Field(min_length=2, max_length=2)]


class Rule(Shape):
    """Where a limit holds, and its bounds. What is not given stays as earlier rules have it."""

    tests: list[str] = Field(["*"], description="tests, as patterns: [BIAS*, DARK01]")
    blocks: list[str] = Field(["*"], description="blocks, as patterns")
    rdmode: list[str] | None = Field(None, description="only these read modes")
    warm: bool | None = Field(None, description="only warm (true) or cold (false) tests")
    columns: list[int] | None = Field(None, description="only these columns of the test")
    regions: list[Region] | None = Field(None, description="regions that are judged")
    low: Bound | None = Field(None, description="lower bound, inclusive; null: open")
    high: Bound | None = Field(None, description="upper bound, inclusive; null: open")
    unpredicted: Pair | None = Field(
        None, description="[low, high] of the value itself where no prediction can be made"
    )
    none_expected: Pair | None = Field(
        None, description="[low, high] of the value itself where no signal is expected"
    )
    applies: bool = Field(True, description="false: not judged for these tests")
    source: str = Field(description="where the figures are from")

    @model_validator(mode="after")
    def _check(self):
        _ordered(self.low, self.high)
        for pair in (self.unpredicted, self.none_expected):
            if pair is not None:
                _ordered(*pair)
        return self


class Quantity(Shape):
    """One limit: what it bounds, against what, which flags a failure raises, and its rules."""

    description: str = Field(description="what is bounded")
    table: str = Field(description="table (tables/<table>.ecsv) that holds the measured values")
    value: str = Field(description="column of the table that is judged")
    unit: str = Field(description="unit of the bounds; 1 for fractions")
    mode: Literal["absolute", "difference", "factor"] = Field(
        "absolute", description="bounds of the value; of value minus reference; of value over reference"
    )
    reference: Literal[REFERENCES] | None = Field(None, description="what difference and factor refer to")
    parameters: dict[str, float | list[float]] = Field({}, description="figures of the reference's formula")
    formula: str = Field("", description="how the reference is made from the parameters")
    cell: list[str] = Field(["ccd", "quadrant"], description="keys of a compliance cell")
    flags: list[str] = Field(description="flags raised by a failure")
    rules: list[Rule] = Field(min_length=1, description="where the limit holds, later rules win")

    @model_validator(mode="after")
    def _check(self):
        if (self.mode == "absolute") != (self.reference is None):
            raise ValueError(
                f"mode {self.mode} with reference {self.reference}; a reference belongs to difference and factor"
            )
        return self


class Band(Shape):
    """Bounds of a house-keeping value."""

    type: Literal["relative", "absolute", "identity"] = Field(
        description="relative: reading minus commanded value; absolute: the reading; identity: equal to a value"
    )
    low: Bound | None = Field(None, description="lower bound, inclusive")
    high: Bound | None = Field(None, description="upper bound, inclusive")
    values: list[int | str] | None = Field(None, description="values that are right (identity)")

    @model_validator(mode="after")
    def _check(self):
        if (self.type == "identity") != (self.values is not None):
            raise ValueError("values belong to identity, and identity needs values; correct it")
        if self.type != "identity" and (self.low is None or self.high is None):
            raise ValueError("low and high are needed; add them")
        _ordered(self.low, self.high)
        return self


class Severity(Shape):
    """How bad a violation is for the monitor: 1 e-mail, 2 e-mail and SMS."""

    low: Literal[0, 1, 2] = Field(description="severity of a value below the safe limits")
    high: Literal[0, 1, 2] = Field(description="severity of a value above the safe limits")


class HkRule(Shape):
    """Another performance band for some tests."""

    tests: list[str] = Field(description="tests, as patterns")
    performance: Band = Field(description="the band for these tests")
    source: str = Field(description="where the figures are from")


class HkGroup(Shape):
    """House-keeping keys that share limits."""

    keys: list[str] = Field(min_length=1, description="house-keeping keys")
    unit: str = Field(description="unit of the readings")
    performance: Band = Field(description="performance: against the command (relative) or absolute")
    safe: Band = Field(description="safety: what the hardware stands; used by the monitor")
    commanded: dict[str, str] = Field(
        {}, description="EXP-LOG key of the commanded value, by house-keeping key"
    )
    in_tests: bool = Field(False, description="checked for every test; the others only by the monitor")
    severity: Severity | None = Field(None, description="critical for the monitor, and how bad")
    rules: list[HkRule] = Field([], description="bands that differ for some tests")
    source: str = Field(description="where the figures are from")

    @model_validator(mode="after")
    def _check(self):
        unknown = [key for key in self.commanded if key not in self.keys]
        if unknown:
            raise ValueError(f"commanded names {unknown[0]}, which is not among keys; correct it")
        if self.performance.type == "relative" and len(self.commanded) != len(self.keys):
            raise ValueError("relative limits need the commanded key of every key; add them")
        return self


# ---- what holds for a test -----------------------------------------------------------------------
@dataclass(frozen=True)
class EffectiveLimit:
    """A limit as it holds for one test, with where it comes from."""

    name: str
    low: float | None
    high: float | None
    unit: str
    mode: str
    reference: str | None
    table: str
    value: str
    cell: tuple[str, ...]
    flags: tuple[str, ...]
    regions: tuple[str, ...] | None = None
    columns: tuple[int, ...] | None = None  # None: all
    unpredicted: tuple[float, float] | None = None
    none_expected: tuple[float, float] | None = None
    parameters: dict = field(default_factory=dict)
    source: str = ""
    origin: str = "limits"  # limits | block | session

    def bounds(self, reference: float | None = None) -> tuple[float | None, float | None]:
        """Bounds of the value itself, inclusive; None is an open end.

        `reference` is what the limit is relative to; for a factor it is taken as it is, so a negative
        reference swaps nothing.
        """
        if self.mode == "absolute":
            return self.low, self.high
        if reference is None or reference != reference:
            return None, None
        if self.mode == "difference":
            return (
                None if self.low is None else reference + self.low,
                None if self.high is None else reference + self.high,
            )
        return (
            None if self.low is None else reference * self.low,
            None if self.high is None else reference * self.high,
        )

    def judge(self, value: float | None, reference: float | None = None) -> bool | None:
        """True within, False outside, None if not measured or without its reference."""
        if value is None or value != value:
            return None
        if self.mode != "absolute" and (reference is None or reference != reference):
            return None
        low, high = self.bounds(reference)
        return (low is None or value >= low) and (high is None or value <= high)

    def as_dict(self) -> dict:
        """Plain data for JSON."""
        return {key: list(item) if isinstance(item, tuple) else item for key, item in asdict(self).items()}


@dataclass(frozen=True)
class HkLimit:
    """Limits of one house-keeping key as they hold for one test."""

    key: str
    unit: str
    performance: Band | None  # None: not judged (warm)
    safe: Band
    commanded: str | None  # EXP-LOG key
    in_tests: bool
    severity: Severity | None
    source: str
    origin: str = "limits"

    def passes(self) -> dict[str, Band]:
        """Bands by pass: ``command`` (performance against the command), ``performance``, ``safe``."""
        found = {}
        if self.performance is not None:
            found["command" if self.performance.type == "relative" else "performance"] = self.performance
        found["safe"] = self.safe
        return found

    def severity_of(self, violation: int | None) -> int:
        """Severity for the monitor of a violation of the safe limits (-1, 0, 1, 2)."""
        if self.severity is None or violation not in (-1, 1):
            return 0
        return self.severity.low if violation < 0 else self.severity.high

    def as_dict(self) -> dict:
        """Plain data for JSON."""
        return {
            "key": self.key,
            "unit": self.unit,
            "performance": self.performance.model_dump(exclude_none=True) if self.performance else None,
            "safe": self.safe.model_dump(exclude_none=True),
            "commanded": self.commanded,
            "in_tests": self.in_tests,
            "severity": self.severity.model_dump() if self.severity else None,
            "source": self.source,
            "origin": self.origin,
        }


def _fits(patterns: list[str], name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def untagged(test: str) -> str:
    """Test name without its repetition tag: ``BIAS02.2`` -> ``BIAS02``."""
    return re.sub(r"\.\d+$", "", test)


class Limits(File):
    """A limits file."""

    limits: Name = Field(description="name of the limits, that of the file")
    version: str = Field(description="version of the figures; verdicts cite it")
    warm_tests: list[str] = Field([], description="tests taken warm, as patterns")
    performance: dict[str, Quantity] = Field(description="limits of measured quantities, by name")
    hk: list[HkGroup] = Field(description="limits of house-keeping")

    @model_validator(mode="after")
    def _complete(self):
        unknown = [name for name in self.performance if name not in NAMES]
        if unknown:
            raise ValueError(f"unknown limit {unknown[0]!r}; {did_you_mean(unknown[0], NAMES)}")
        missing = [name for name in NAMES if name not in self.performance]
        if missing:
            raise ValueError(
                f"no limit {missing[0]!r}, expected all of {', '.join(NAMES)}; add it (applies: false to switch it off)"
            )
        seen: set[str] = set()
        for group in self.hk:
            for key in group.keys:
                if key in seen:
                    raise ValueError(f"house-keeping key {key} is in two groups; keep one")
                seen.add(key)
        return self

    def is_warm(self, test: str) -> bool:
        """Whether a test is taken warm."""
        return _fits(self.warm_tests, untagged(test))

    def checksum(self) -> str:
        """sha256 of the figures (comments and layout do not count)."""
        import hashlib

        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def identity(self) -> dict[str, str]:
        """``{name, version, checksum}``, for verdicts."""
        return {"name": self.limits, "version": self.version, "checksum": self.checksum()}

    # ---- performance
    def resolve(
        self,
        test: str,
        rdmode: str | None = None,
        warm: bool = False,
        column: int | None = None,
        block_overrides: dict | None = None,
        session_overrides: dict | None = None,
        block: str = "",
    ) -> dict[str, EffectiveLimit]:
        """Limits that hold for a test.

        Parameters
        ----------
        test : str
            Name of the test, with or without its repetition tag.
        rdmode, warm, column
            Read mode of the frames judged, whether the test is warm (tests listed in ``warm_tests`` are
            in any case), column from 1. Without `column` the limits of the test as a whole; a limit
            that holds in some columns only then says which in ``columns``.
        block_overrides, session_overrides : dict
            By name, ``[low, high]``, ``False`` or the mapping (`canonical_overrides`). The block's
            change limits that the test has; the session's also add a limit to a test.

        Returns
        -------
        dict
            `EffectiveLimit` by canonical name; a limit that does not hold is absent.
        """
        test = untagged(test)
        warm = warm or self.is_warm(test)
        block_layer = canonical_overrides(block_overrides or {})
        session_layer = canonical_overrides(session_overrides or {})
        found = {}
        for name, quantity in self.performance.items():
            limit = self._from_rules(name, quantity, test, rdmode, warm, column, block)
            if limit is not None and name in block_layer:
                limit = _overridden(limit, block_layer[name], column, "block")
            if name in session_layer:
                limit = _overridden(limit or _bare(name, quantity), session_layer[name], column, "session")
            if limit is not None and not (limit.low is None and limit.high is None):
                found[name] = limit
        return found

    def _from_rules(self, name, quantity, test, rdmode, warm, column, block) -> EffectiveLimit | None:
        fitting = [
            rule
            for rule in quantity.rules
            if _fits(rule.tests, test)
            and _fits(rule.blocks, block)
            and (rule.rdmode is None or rdmode in rule.rdmode)
            and (rule.warm is None or rule.warm == warm)
        ]
        if column is not None:
            return _cascade(name, quantity, [r for r in fitting if r.columns is None or column in r.columns])
        limit = _cascade(name, quantity, [rule for rule in fitting if rule.columns is None])
        if limit is None and any(rule.columns for rule in fitting):
            limit = _cascade(name, quantity, fitting)
            if limit is not None:
                columns = sorted(
                    {column for rule in fitting if rule.applies for column in rule.columns or []}
                )
                limit = replace(limit, columns=tuple(columns))
        return limit

    # ---- house-keeping
    def hk_limits(
        self,
        test: str = "",
        warm: bool = False,
        block_overrides: dict | None = None,
        session_overrides: dict | None = None,
    ) -> dict[str, HkLimit]:
        """House-keeping limits by key, in the order of the file.

        Absolute performance limits are left out (``performance`` is None) for warm tests. Overrides
        named by a house-keeping key replace its performance band, an end that is not given is open; safe
        limits are changed in the limits file only. ConfigError for a band in place of fixed values.
        """
        test = untagged(test)
        warm = warm or self.is_warm(test)
        layers = [("block", canonical_overrides(block_overrides or {}))]
        layers.append(("session", canonical_overrides(session_overrides or {})))
        found = {}
        for group in self.hk:
            band, source = group.performance, group.source
            for rule in group.rules:
                if _fits(rule.tests, test):
                    band, source = rule.performance, rule.source
            skip = warm and band.type != "relative"
            for key in group.keys:
                limit = HkLimit(
                    key,
                    group.unit,
                    None if skip else band,
                    group.safe,
                    group.commanded.get(key),
                    group.in_tests,
                    group.severity,
                    source,
                )
                for origin, layer in layers:
                    if key in layer:
                        limit = _hk_overridden(limit, band.type, layer[key], origin)
                found[key] = limit
        return found

    def critical_keys(self) -> dict[str, Severity]:
        """Keys that the monitor warns of, with their severities."""
        return {key: group.severity for group in self.hk if group.severity for key in group.keys}

    def override_faults(self, overrides: dict) -> dict[str, str]:
        """Names among `overrides` that this file cannot serve, with the reason."""
        keys = {key for group in self.hk for key in group.keys if key not in HK_FLAGS}
        return {
            name: did_you_mean(name, keys)
            for name in overrides
            if canonical_name(name) not in NAMES and name not in keys
        }


def _cascade(name: str, quantity: Quantity, rules: list[Rule]) -> EffectiveLimit | None:
    """The limit that `rules` give together, None if the last word is that it does not apply."""
    if not rules:
        return None
    layer: dict = {}
    for rule in rules:
        layer.update(rule.model_dump(exclude_unset=True, exclude={"tests", "blocks", "rdmode", "warm"}))
        layer["applies"] = rule.applies
    if not layer["applies"]:
        return None
    return replace(
        _bare(name, quantity),
        low=layer.get("low"),
        high=layer.get("high"),
        regions=tuple(layer["regions"]) if layer.get("regions") else None,
        columns=tuple(layer["columns"]) if layer.get("columns") else None,
        unpredicted=tuple(layer["unpredicted"]) if layer.get("unpredicted") else None,
        none_expected=tuple(layer["none_expected"]) if layer.get("none_expected") else None,
        source=layer["source"],
    )


def _bare(name: str, quantity: Quantity) -> EffectiveLimit:
    """The limit without bounds."""
    return EffectiveLimit(
        name,
        None,
        None,
        quantity.unit,
        quantity.mode,
        quantity.reference,
        quantity.table,
        quantity.value,
        tuple(quantity.cell),
        tuple(quantity.flags),
        parameters=dict(quantity.parameters),
    )


def _overridden(
    limit: EffectiveLimit, change: dict, column: int | None, origin: str
) -> EffectiveLimit | None:
    columns = change.get("columns")
    if columns is not None and column is not None and column not in columns:
        return limit
    if not change.get("applies", True):
        return None
    bounds = {key: change[key] for key in ("low", "high") if key in change}
    regions = tuple(change["regions"]) if change.get("regions") else limit.regions
    columns = tuple(columns) if columns is not None else limit.columns
    source = f"{origin} file" if bounds else limit.source
    return replace(limit, **bounds, regions=regions, columns=columns, source=source, origin=origin)


def _hk_overridden(limit: HkLimit, kind: str, change: dict, origin: str) -> HkLimit:
    if not change.get("applies", True):
        return replace(limit, performance=None, origin=origin)
    if kind == "identity":
        raise ConfigError(
            key=limit.key,
            message=f"the {origin} file gives bounds, expected false: the key is compared with fixed values",
            remedy="change it in the limits file",
        )
    low, high = change.get("low"), change.get("high")
    low, high = OPEN[0] if low is None else low, OPEN[1] if high is None else high
    band = Band(type=kind, low=low, high=high)
    return replace(limit, performance=band, source=f"{origin} file", origin=origin)
