"""TP01, TP11, TP02, TP21 and TP00: trap pumping, parallel and serial."""

from __future__ import annotations

from pydantic import Field, model_validator

from calcamp.campaign.common import INJECTION_DELAYS, injection_gate1, injection_gate2
from calcamp.campaign.core import CHECK, HK, Column, Family, Need, Options, Subtask, Test, prep

_TOI_CH = 250  # us
V_MODES = (123, 234, 341, 412)  # order of the image phases that are clocked
S_MODES = (23, 31)
V_TIMES = (50, 200, 1000, 2000, 4000, 8000)  # us, toi_tp
S_DWELLS = (0, 4.75, 14.3, 28.6)  # us, dwell_s


def _common(name: str, drain: float) -> dict:
    return {
        "test": name,
        "shuttr": 0,
        "IDL": drain,
        "IDH": 18,
        **injection_gate1(4),
        **injection_gate2(6),
        "chinj": 1,
        "chinj_on": 2066,
        "chinj_of": 0,
        "id_wid": 60,
        "toi_ch": _TOI_CH,
    }


def parallel_columns(name: str, drain: float, times=V_TIMES):
    """TP01, TP11: per half a background frame, then every pumping time in every mode."""

    def columns(chamber) -> list[Column]:
        made = []
        for delay in INJECTION_DELAYS:
            keys = {**_common(name, drain), "v_tp_cnt": 5000, "s_tpump": 0, "id_dly": delay * _TOI_CH}
            made.append(Column(1, {**keys, "v_tpump": 0, "comments": "BGD"}))
            made += [
                Column(1, {**keys, "v_tpump": 1, "toi_tp": time, "v_tpmod": mode})
                for time in times
                for mode in V_MODES
            ]
        return made

    return columns


def serial_columns(name: str, drain: float):
    """TP02, TP21: per half a background frame, then every dwell in both modes; only 100 lines are read."""

    def columns(chamber) -> list[Column]:
        made = []
        for delay in INJECTION_DELAYS:
            keys = {
                **_common(name, drain),
                "vstart": 0,
                "vend": 100,
                "v_tpump": 0,
                "s_tp_cnt": 5000,
                "id_dly": delay * _TOI_CH,
            }
            made.append(Column(1, {**keys, "s_tpump": 0, "comments": "BGD"}))
            made += [
                Column(1, {**keys, "s_tpump": 1, "dwell_s": dwell, "s_tpmod": mode})
                for dwell in S_DWELLS
                for mode in S_MODES
            ]
        return made

    return columns


def functional_columns(serial_count: int = 100):
    """TP00: both kinds of pumping on 20 lines; `serial_count` serial shuffles."""

    def columns(chamber) -> list[Column]:
        toi_ch = 500
        common = {
            **_common("TP00", 11),
            **injection_gate1(6),
            **injection_gate2(5),
            "vend": 20,
            "toi_ch": toi_ch,
        }
        delays = [delay * toi_ch for delay in INJECTION_DELAYS]
        parallel = {**common, "v_tpump": 1, "s_tpump": 0, "v_tp_cnt": 500}
        serial = {**common, "v_tpump": 0, "s_tpump": 1, "s_tp_cnt": serial_count}
        return [
            *(
                Column(1, {**parallel, "id_dly": d, "v_tpmod": m, "toi_tp": t, "comments": f"V{m}_{t}"})
                for d in delays
                for m in V_MODES
                for t in (200, 1000, 4000)
            ),
            *(
                Column(1, {**serial, "id_dly": d, "s_tpmod": m, "dwell_s": t, "comments": f"S{m}_{t}"})
                for d in delays
                for m in S_MODES
                for t in (0, 16, 32)
            ),
        ]

    return columns


_NEEDS = (Need("mask"), Need("dq"), Need("gain"))


class ExtractOptions(Options):
    """Injected background of every frame."""

    max_saturated: int = Field(
        1000, ge=0, description="saturated pixels of a quadrant above which its frame is left out"
    )


class BasicOptions(Options):
    """Detection of dipoles and their amplitudes at every time."""

    false_per_quadrant: float = Field(
        0.05, gt=0, description="false dipoles that noise may give in a quadrant, all modes together"
    )
    serial_false_per_quadrant: float = Field(
        0.02, gt=0, description="the same for a register, which has few places"
    )
    detection_sigma: float | None = Field(
        None, gt=2, description="detection cut [sigma], instead of that from false_per_quadrant"
    )
    tau_min_us: float = Field(20.0, gt=0, description="shortest emission time searched, image area [us]")
    tau_max_us: float = Field(30000.0, gt=0, description="longest emission time searched, image area [us]")
    serial_tau_min_us: float = Field(1.0, gt=0, description="shortest emission time searched, register [us]")
    serial_tau_max_us: float = Field(60.0, gt=0, description="longest emission time searched, register [us]")
    tau_c_us: float = Field(2.0, ge=0, description="capture time, image area; 0 for immediate capture [us]")
    serial_tau_c_us: float = Field(0.4, ge=0, description="capture time, register [us]")
    fakes: int = Field(
        2000, ge=0, description="fake dipoles per quadrant and mode that measure the efficiency"
    )
    maps: bool = Field(True, description="write the maps of signed significance as a product")
    max_column_noise: float = Field(
        2.0, gt=1, description="columns noisier than this, over the others, are left out"
    )

    @model_validator(mode="after")
    def _order(self):
        return self.in_order("tau_min_us", "tau_max_us").in_order("serial_tau_min_us", "serial_tau_max_us")


class MetaOptions(Options):
    """Emission times, probabilities of capture, species."""

    poor_chi2: float = Field(4.0, gt=1, description="chi2/dof above which the fit of a trap is poor")
    amplitude_error: float = Field(
        0.01,
        gt=0,
        description="usual error of the model, share of an amplitude; what the residuals tell is held to about this",
    )
    tau_c_us: float = Field(2.0, ge=0, description="capture time, image area [us]")
    serial_tau_c_us: float = Field(0.4, ge=0, description="capture time, register [us]")
    max_species: int = Field(5, ge=1, le=10, description="largest number of clusters in log tau")
    reference_temperature_K: float = Field(153.0, gt=0, description="temperature that tau is scaled to [K]")
    activation_eV: float = Field(0.23, gt=0, description="energy level used to scale tau [eV]")


def _subtasks(use_mask: bool):
    return (
        HK,
        CHECK,
        prep(offset="row", scan="pre", use_bias=False, use_flat=False, use_mask=use_mask),
        # Background injection and pumping maps come from one pass over the frames.
        Subtask(
            "extract",
            after=("check",),
            options=ExtractOptions,
            needs=_NEEDS,
            aliases=("injection",),
            mem_mb=1000,
        ),
        Subtask("basic", after=("check", "extract"), options=BasicOptions, needs=_NEEDS, mem_mb=1800),
        Subtask(
            "meta",
            after=("check", "extract", "basic"),
            options=MetaOptions,
            needs=_NEEDS,
            mem_mb=600,
            runtime_min=5,
        ),
    )


def _test(name: str, columns, title: str, purpose: str, use_mask: bool) -> Test:
    return Test(
        name,
        name,
        "pumping",
        columns,
        title=title,
        purpose=purpose,
        subtasks=_subtasks(use_mask),
        clocks="parallel" if use_mask else "serial",
    )


_IMAGE = (
    "Single traps of the image area from dipoles on an injected background: emission times and densities."
)
_REGISTER = (
    "Traps of the serial register from dipoles on an injected background: emission times and densities."
)

FAMILY = Family(
    "pumping",
    (
        _test("TP01", parallel_columns("TP01", 11), "Parallel trap pumping", _IMAGE, True),
        _test("TP11", parallel_columns("TP11", 10.5), "Parallel trap pumping, high injection", _IMAGE, True),
        # A mask of the image area says nothing of the register.
        _test("TP02", serial_columns("TP02", 11), "Serial trap pumping", _REGISTER, False),
        _test("TP21", serial_columns("TP21", 10.5), "Serial trap pumping, high injection", _REGISTER, False),
        Test(
            "TP00",
            "TP00",
            "pumping",
            functional_columns(),
            title="Functional check of trap pumping",
            purpose="Trap pumping works in both directions and halves; not for performance.",
            subtasks=(HK, CHECK),
            waived=(),
            campaign_types=("Mini", "devel"),
        ),
    ),
)
