"""The 31 flags: bits, what they speak about, and which one is a cause of which.

Bit numbers and names are those of the predecessor (data formats, section 9). A flag here always carries
its cause in words and its scope (CCD, quadrant, column, OBSIDs ...). Flags never stop an analysis.

A *data* flag says that the input is not as it should be, a *result* flag that what was measured is not,
a *programme* flag that calcamp or the computer failed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

NAMES = (
    "MISSDATA",
    "POORQUALDATA",
    "BADDATA",
    "WRONGTEST",
    "WRONG_ROE_CONF",
    "SOURCEON",
    "SOURCEOFF",
    "WRONGSOURCE",
    "HK_OOL",
    "CCDTEMP_OOL",
    "UNDERPERFORM",
    "REQNOTMET",
    "BADDATAPROD",
    "DEADCCD",
    "DEADQUAD",
    "LOWMEMORY",
    "TOOSLOW",
    "UNKNOWN",
    "RON_OOL",
    "FLUENCE_OOL",
    "FLUENCEGRAD_OOL",
    "FOCUS_OOL",
    "BGD_OOL",
    "CCDSATUR",
    "FLUX_OOL",
    "STARS_MISSING",
    "SUBTASKCRASH",
    "BADFIT",
    "SATURATION",
    "LOSTPIXELS",
    "NONSATURATION",
)
BITS = {name: bit for bit, name in enumerate(NAMES)}

MEANINGS = {
    "MISSDATA": "acquired data are not as the expected structure, or files or readings are missing",
    "POORQUALDATA": "a limit on the quality of the images is broken",
    "BADDATA": "a file is truncated, unreadable or of the wrong shape",
    "WRONGTEST": "the exposures are not those of this test",
    "WRONG_ROE_CONF": "voltages or read mode are not as commanded",
    "SOURCEON": "light in an exposure that should be dark",
    "SOURCEOFF": "no light in an exposure that should have light",
    "WRONGSOURCE": "flat light where spots are expected, or the reverse",
    "HK_OOL": "house-keeping out of performance or safe limits",
    "CCDTEMP_OOL": "a CCD temperature out of its performance limits",
    "UNDERPERFORM": "a result is outside expected performance",
    "REQNOTMET": "a result does not meet a requirement",
    "BADDATAPROD": "more than the allowed fraction of a product is invalid",
    "DEADCCD": "no live quadrant on a CCD",
    "DEADQUAD": "a quadrant without noise, with constant pixels",
    "LOWMEMORY": "a step ran out of memory",
    "TOOSLOW": "a step ran out of time",
    "UNKNOWN": "the state of the test is not known",
    "RON_OOL": "read noise out of limits",
    "FLUENCE_OOL": "fluence, peak or injection level out of limits",
    "FLUENCEGRAD_OOL": "injection gradient out of limits",
    "FOCUS_OOL": "width of the spots out of limits",
    "BGD_OOL": "background out of limits",
    "CCDSATUR": "a CCD is saturated as a whole",
    "FLUX_OOL": "saturation time differs from the chamber's",
    "STARS_MISSING": "spots not locked",
    "SUBTASKCRASH": "a sub-task ended with a fault of the programme",
    "BADFIT": "a fit did not converge or does not describe the data",
    "SATURATION": "too many saturated pixels",
    "LOSTPIXELS": "pixels of value 0 in the rows read",
    "NONSATURATION": "too few saturated pixels where saturation is wanted",
}

#: Causes before consequences (decisions 7: HK, missing, dead quadrant, offset, noise, injection, flat, spots).
PRECEDENCE = (
    "WRONGTEST",
    "HK_OOL",
    "CCDTEMP_OOL",
    "WRONG_ROE_CONF",
    "MISSDATA",
    "BADDATA",
    "LOSTPIXELS",
    "DEADCCD",
    "DEADQUAD",
    "SOURCEON",
    "POORQUALDATA",  # of its own, it stands for offsets and gradients
    "RON_OOL",
    "FLUENCEGRAD_OOL",
    "SOURCEOFF",
    "WRONGSOURCE",
    "CCDSATUR",
    "SATURATION",
    "NONSATURATION",
    "STARS_MISSING",  # without a lock, flux and fluence of spots mean nothing
    "FLUX_OOL",
    "FLUENCE_OOL",
    "BGD_OOL",
    "FOCUS_OOL",
    "LOWMEMORY",
    "TOOSLOW",
    "SUBTASKCRASH",
    "BADFIT",
    "BADDATAPROD",
    "UNDERPERFORM",
    "REQNOTMET",
    "UNKNOWN",
)
_RANK = {name: rank for rank, name in enumerate(PRECEDENCE)}

# What a flag means for the verdict: ``fail``, ``open`` (it cannot be told), or ``note`` (for information).
_OPEN = frozenset({"MISSDATA", "BADDATA", "SUBTASKCRASH", "LOWMEMORY", "UNKNOWN"})
_NOTES = frozenset({"TOOSLOW"})

PROGRAMME_FLAGS = frozenset({"SUBTASKCRASH", "LOWMEMORY", "TOOSLOW", "UNKNOWN"})
RESULT_FLAGS = frozenset({"UNDERPERFORM", "REQNOTMET", "BADDATAPROD", "BADFIT"})
DATA_FLAGS = frozenset(NAMES) - PROGRAMME_FLAGS - RESULT_FLAGS

# cause -> flags that it explains where the scopes meet
_IMAGE = {
    "POORQUALDATA",
    "RON_OOL",
    "FLUENCE_OOL",
    "FLUENCEGRAD_OOL",
    "FLUX_OOL",
    "BGD_OOL",
    "STARS_MISSING",
    "FOCUS_OOL",
}
_RESULTS = {"BADFIT", "BADDATAPROD", "UNDERPERFORM", "REQNOTMET"}
EXPLAINS: dict[str, frozenset[str]] = {
    "DEADCCD": frozenset(_IMAGE | _RESULTS | {"DEADQUAD", "SOURCEOFF", "NONSATURATION"}),
    "DEADQUAD": frozenset(_IMAGE | _RESULTS | {"SOURCEOFF", "NONSATURATION"}),
    "WRONGTEST": frozenset(_IMAGE | _RESULTS | {"MISSDATA"}),
    "WRONG_ROE_CONF": frozenset(_IMAGE | _RESULTS),
    "CCDTEMP_OOL": frozenset({"SOURCEON", "FLUENCE_OOL", "BGD_OOL"} | _RESULTS),
    "BADDATA": frozenset({"BADDATAPROD", "SUBTASKCRASH"}),
    "SOURCEON": frozenset({"POORQUALDATA", "RON_OOL", "FLUENCE_OOL", "BGD_OOL", "SATURATION"} | _RESULTS),
    "SOURCEOFF": frozenset({"FLUENCE_OOL", "FLUX_OOL", "STARS_MISSING", "NONSATURATION"} | _RESULTS),
    "WRONGSOURCE": frozenset({"FLUENCE_OOL", "FLUX_OOL", "STARS_MISSING", "BGD_OOL"} | _RESULTS),
    "CCDSATUR": frozenset({"SATURATION", "FLUENCE_OOL", "BGD_OOL"} | _RESULTS),
    "STARS_MISSING": frozenset({"FOCUS_OOL", "FLUENCE_OOL"} | _RESULTS),
    "RON_OOL": frozenset(_RESULTS),
    "SUBTASKCRASH": frozenset({"UNKNOWN"}),
    "LOWMEMORY": frozenset({"SUBTASKCRASH"}),
    "TOOSLOW": frozenset({"SUBTASKCRASH"}),
}


@dataclass(frozen=True)
class Flag:
    """One flag: its name, its cause in words, and what it is about.

    ``scope`` may hold ccd, quadrant, column, region, key, subtask (one value each) and obsids (a list).
    ``effect`` is what it means for the verdict: ``fail``, ``open`` (it cannot be told) or ``note``; by
    default missing data and faults of the programme leave it open and everything else fails.
    """

    name: str
    cause: str
    scope: dict = field(default_factory=dict)
    consequence_of: tuple[str, ...] = ()
    effect: str = ""

    def __post_init__(self):
        if self.name not in BITS:
            raise ValueError(f"unknown flag {self.name!r}; known are {', '.join(NAMES)}")
        if not self.effect:
            default = "open" if self.name in _OPEN else "note" if self.name in _NOTES else "fail"
            object.__setattr__(self, "effect", default)

    @property
    def bit(self) -> int:
        return BITS[self.name]

    @property
    def kind(self) -> str:
        """``data``, ``result`` or ``programme``."""
        return kind_of(self.name)

    def as_dict(self) -> dict:
        """As in verdict.json."""
        return {
            "name": self.name,
            "cause": self.cause,
            "scope": dict(self.scope),
            "bit": self.bit,
            "kind": self.kind,
            "effect": self.effect,
            "consequence_of": list(self.consequence_of),
        }

    @classmethod
    def from_dict(cls, data: Mapping) -> Flag:
        """From a sub-task's record or a verdict."""
        return cls(
            data["name"],
            data.get("cause", ""),
            _clean(data.get("scope") or {}),
            tuple(data.get("consequence_of", ())),
            data.get("effect", ""),
        )


def kind_of(name: str) -> str:
    """``data``, ``result`` or ``programme``."""
    if name in PROGRAMME_FLAGS:
        return "programme"
    return "result" if name in RESULT_FLAGS else "data"


def mask(flags: Iterable[Flag | str]) -> int:
    """The flags as one number, the OR of 2**bit."""
    value = 0
    for flag in flags:
        value |= 1 << BITS[flag if isinstance(flag, str) else flag.name]
    return value


def names_of(value: int) -> list[str]:
    """Names of the flags in a mask value, in order of bits."""
    return [name for name, bit in BITS.items() if value >> bit & 1]


def arrange(flags: Iterable[Flag]) -> list[Flag]:
    """Merge equal flags, put causes before consequences, and note on each which flags explain it."""
    merged: dict[tuple, Flag] = {}
    for flag in flags:
        key = (flag.name, flag.cause, *((k, repr(v)) for k, v in sorted(flag.scope.items()) if k != "obsids"))
        known = merged.get(key)
        if known is None:
            merged[key] = flag
            continue
        obsids = sorted({*known.scope.get("obsids", ()), *flag.scope.get("obsids", ())})
        scope = {**known.scope, **({"obsids": obsids} if obsids else {})}
        merged[key] = replace(
            known, scope=scope, consequence_of=(*known.consequence_of, *flag.consequence_of)
        )
    found = list(merged.values())
    marked = []
    for flag in found:
        causes = set(flag.consequence_of)
        causes |= {
            o.name for o in found if flag.name in EXPLAINS.get(o.name, ()) and covers(o.scope, flag.scope)
        }
        marked.append(replace(flag, consequence_of=tuple(sorted(causes, key=_RANK.get))))
    return sorted(marked, key=lambda f: (bool(f.consequence_of), _RANK[f.name], _order(f.scope)))


def covers(cause: Mapping, effect: Mapping) -> bool:
    """Whether something of scope `cause` can be behind something of scope `effect`.

    It can when they agree on every key that both have, and the cause is not narrower in CCD or quadrant.
    """
    for key in ("ccd", "quadrant"):
        if key in cause and key not in effect:
            return False
    for key in ("ccd", "quadrant", "column"):
        if key in cause and key in effect and cause[key] != effect[key]:
            return False
    a, b = cause.get("obsids"), effect.get("obsids")
    return not (a and b) or bool(set(a) & set(b))


def _clean(scope: Mapping) -> dict:
    """``obsid`` of a record becomes ``obsids``; keys that say nothing are dropped."""
    out = {key: value for key, value in scope.items() if value is not None and key != "obsid"}
    if scope.get("obsid") is not None:
        out["obsids"] = sorted({*out.get("obsids", ()), scope["obsid"]})
    return out


def _order(scope: Mapping) -> tuple:
    return (
        scope.get("ccd") or 0,
        str(scope.get("quadrant", "")),
        scope.get("column") or 0,
        str(scope.get("key", "")),
    )
