"""Faults on request: ``NAME[:obsid[:ccd[:quadrant]]]``."""

from __future__ import annotations

from dataclasses import dataclass

from calcamp.config.errors import did_you_mean
from calcamp.data.files import InputError
from calcamp.detector.geometry import CCDS, QUADRANTS
from calcamp.simulate.exposure import Disturbance


@dataclass(frozen=True)
class Kind:
    """What a fault does, and where it strikes when that is not given."""

    text: str
    default: str = "middle"  # exposure: middle of the session, or all
    ccd: int | None = None  # None: all CCDs
    quadrant: str | None = None  # None: all quadrants
    value: float | None = None  # of a disturbance of the signal


KINDS = {
    # the sequence
    "missing_frame": Kind("the exposure is not there at all; its OBSID is lost"),
    "extra_frame": Kind("one exposure more, after this one"),
    "aborted_restart": Kind("the test stops after this exposure and begins again, with contiguous OBSIDs"),
    # files
    "missing_fits": Kind("the image is logged but not there", ccd=1),
    "missing_hk": Kind("no house-keeping file for the OBSID"),
    "truncated": Kind("the image file ends early", ccd=1),
    "wrong_serial": Kind("another serial number of the CCD in log and header", default="all", ccd=1),
    "log_partial_line": Kind("the last line of the last EXP-LOG is not finished"),
    "log_garbage": Kind("lines of garbage in the EXP-LOG after this exposure"),
    # house-keeping
    "hk_out": Kind("CCD temperature 10 K too warm and OD 0.5 V too high", ccd=1),
    "hk_unsafe": Kind("CCD temperature 30 K and RPSU temperature 20 K too warm", ccd=1),
    "hk_nan": Kind("no numbers for a temperature, a voltage and a current", ccd=1),
    # signal
    "zero_frame": Kind("all pixels 0", ccd=1, value=1.0),
    "offset_step": Kind("60 ADU more in one quadrant", ccd=1, quadrant="E", value=60.0),
    "noisy_frame": Kind("read noise three times as high", ccd=1, value=3.0),
    "dead_quadrant": Kind("all pixels equal", default="all", ccd=1, quadrant="E", value=1.0),
    "no_injection": Kind("no charge is injected", default="all", value=1.0),
    "lamp_off": Kind("no light in the exposure", value=0.0),
    "lamp_low": Kind("the lamp gives 5 % less light", value=0.95),
    "light_leak": Kind("light that falls off along the rows, 0.5 e-/s", default="all", value=0.5),
}


@dataclass(frozen=True)
class Fault:
    """A fault asked for. ``obsid`` None: where its kind says."""

    name: str
    obsid: int | None = None
    ccd: int | None = None
    quadrant: str | None = None

    @property
    def kind(self) -> Kind:
        return KINDS[self.name]

    def disturbance(self) -> Disturbance | None:
        """The change of the signal, None when the fault is elsewhere."""
        if self.kind.value is None:
            return None
        return Disturbance(self.name, self.kind.value, self.ccd, self.quadrant)

    def hits(self, obsid: int, ccd: int | None = None) -> bool:
        """Whether an exposure (and CCD) is meant."""
        return self.obsid in (None, obsid) and (ccd is None or self.ccd in (None, ccd))


def parse_fault(text: str) -> Fault:
    """``offset_step:17203:2:F`` → Fault.

    Raises
    ------
    InputError : unknown fault, or a place that is none.
    """
    name, *place = text.strip().split(":")
    if name not in KINDS:
        raise InputError(f"there is no fault {name!r}", remedy=did_you_mean(name, KINDS))
    obsid, ccd, quadrant = ([p.strip() for p in place] + ["", "", ""])[:3]
    valid = (not obsid or obsid.isdecimal()) and (not ccd or ccd in {str(n) for n in CCDS})
    if len(place) > 3 or not valid or (quadrant and quadrant not in QUADRANTS):
        raise InputError(
            f"fault {text!r} names no place",
            expected="NAME[:obsid[:ccd[:quadrant]]], e.g. offset_step:17203:2:F",
        )
    kind = KINDS[name]
    return Fault(
        name,
        int(obsid) if obsid else None,
        int(ccd) if ccd else kind.ccd,
        # a CCD without a quadrant: the kind's own choice, which may be all
        quadrant or kind.quadrant,
    )


def parse_faults(texts) -> tuple[Fault, ...]:
    """Several faults; `Fault` objects pass unchanged."""
    return tuple(text if isinstance(text, Fault) else parse_fault(text) for text in texts)


def placed(fault: Fault, obsids: list[int]) -> Fault:
    """`fault` with its exposure filled in: the middle one unless its kind strikes all.

    Raises
    ------
    InputError : the session has no such OBSID.
    """
    if fault.obsid is None:
        if fault.kind.default == "all":
            return fault
        return Fault(fault.name, obsids[len(obsids) // 2], fault.ccd, fault.quadrant)
    if fault.obsid not in obsids:
        raise InputError(
            f"fault {fault.name}: the session has no OBSID {fault.obsid}",
            expected=f"{obsids[0]} to {obsids[-1]}",
        )
    return fault


def hk_changes(faults, obsid: int) -> dict[str, float]:
    """What is added to house-keeping readings of an exposure, NaN where nothing is read."""
    changes: dict[str, float] = {}
    for fault in faults:
        if fault.hits(obsid):
            for ccd in CCDS if fault.ccd is None else (fault.ccd,):
                if fault.name == "hk_out":
                    changes |= {f"CCD{ccd}_TEMP_T": 10.0, f"CCD{ccd}_OD_T": 0.5}
                elif fault.name == "hk_unsafe":
                    changes |= {f"CCD{ccd}_TEMP_T": 30.0, "RPSU_TEMP1": 20.0}
                elif fault.name == "hk_nan":
                    nan = float("nan")
                    changes |= {f"CCD{ccd}_TEMP_T": nan, f"CCD{ccd}_OD_T": nan, "RPSU_28V_PRI_I": nan}
    return changes
