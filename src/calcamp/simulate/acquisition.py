"""What ELVIS writes about an exposure: rows of the EXP-LOG, header cards, house-keeping."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np

from calcamp.data import elvis
from calcamp.data.names import format_stamp, raw_stem
from calcamp.data.raw import raw_cards
from calcamp.simulate.exposure import Exposure
from calcamp.simulate.seeds import stream

LOG_CONSTANTS = {
    "ROE": "ROE1",
    "BUNIT": "ADU",
    "con_file": "vis_roe_config_cotsqm_273_vn.txt",
    "ci_rdout": 0.0,
    "cdpu_clk": 0,
    "fpga_ver": "2AC",
}

#: Mean and rms of house-keeping that no command sets; all inside the limits of 7.5.X.
_HK_FREE = {
    **dict.fromkeys(("VID_PCB_TEMP_T", "VID_PCB_TEMP_B", "FPGA_PCB_TEMP_T", "FPGA_PCB_TEMP_B"), (22.0, 0.4)),
    "RPSU_TEMP1": (24.0, 0.4),
    "RPSU_TEMP_2": (24.5, 0.4),
    "FPGA_BIAS_DD": (22.0, 0.01),
    "FPGA_BIAS_OG": (2.0, 0.01),
    "FPGA_VRCLK_V": (10.0, 0.01),
    "FPGA_10VA_P_V": (10.0, 0.01),
    "FPGA_VICLK_V": (8.0, 0.01),
    "FPGA_5VA_P_V": (5.0, 0.005),
    "FPGA_5VREF_V": (5.0, 0.003),
    "FPGA_VCCD_V": (30.0, 0.02),
    "FPGA_1V5VD_P_V": (1.5, 0.002),
    "FPGA_3V2_N_V": (-3.2, 0.005),
    "FPGA_5VA_N_V": (-5.4, 0.005),
    "RPSU_VCCD_V": (33.5, 0.02),
    "RPSU_VCLK_V": (12.8, 0.02),
    "RPSU_VAN_P_V": (7.1, 0.01),
    "RPSU_VAN_N_V": (-7.1, 0.01),
    "RPSU_3V3VD_V": (3.35, 0.005),
    "RPSU_1V5VD_V": (1.505, 0.002),
    "RPSU_28V_PRI_V": (27.6, 0.03),
    "RPSU_VCCD_I": (0.04, 0.001),
    "RPSU_VCLK_I": (0.05, 0.001),
    "RPSU_VAN_P_I": (0.31, 0.002),
    "RPSU_VAN_N_I": (0.29, 0.002),
    "RPSU_3V3VD_I": (0.08, 0.001),
    "RPSU_1V5VD_I": (0.07, 0.001),
    "RPSU_28V_PRI_I": (0.43, 0.002),
}
_SPW_STATUS = 12192
_VOLTAGE_NOISE = 0.006  # V, one reading
_VOLTAGE_ERROR = 0.02  # V, rms of the calibration of a line, constant for a block
_TEMPERATURE_NOISE = 0.012  # K, one reading
_COLD_C, _AIR_C = -120.0, 20.0
_TEMPERATURE_SWING = 0.06  # K, slow course of the cold plate
_TEMPERATURE_PERIOD_S = 5400.0


def ccd_temperature_c(
    seed: int, ccd: int, side: str, elapsed_s, warm: bool = False, set_k: float | None = None
) -> np.ndarray:
    """True course of a CCD temperature, deg C, at `elapsed_s` since the session began.

    `warm`: in air. `set_k`: what the operator has set the cold plate to, K; by default 153 K.
    """
    rng = stream(seed, "temperature", ccd)
    phase, level = rng.uniform(0, 2 * np.pi), rng.normal(_COLD_C, 0.05)
    gradient = rng.normal(0, 0.03) * (1 if side == "T" else -1)
    course = _TEMPERATURE_SWING * np.sin(2 * np.pi * np.asarray(elapsed_s) / _TEMPERATURE_PERIOD_S + phase)
    shift = _AIR_C - _COLD_C if warm else 0.0 if set_k is None else set_k - 273.15 - _COLD_C
    return level + gradient + course + shift


def mean_temperature_k(
    seed: int, ccd: int, elapsed_s: float, warm: bool = False, set_k: float | None = None
) -> float:
    """Temperature of the silicon, K: mean of both sensors."""
    return 273.15 + float(
        np.mean([ccd_temperature_c(seed, ccd, side, elapsed_s, warm, set_k) for side in "TB"])
    )


# ---- exposure log and header cards ---------------------------------------------------------------
def log_rows(exposure: Exposure, seed: int) -> dict[int, dict[str, object]]:
    """EXP-LOG values of an exposure by CCD, typed as data formats 3.2, names of ELVIS 7.5."""
    keys = exposure.keys
    common = {elvis.log_name(key): value for key, value in keys.items()}
    common |= LOG_CONSTANTS | {
        "ObsID": exposure.obsid,
        "date": format_stamp(exposure.start),
        "calscrpt": f"vis_CalCamp_{exposure.test}",
        "egse_ver": elvis.DEFAULT_VERSION,
        "fl_rdout": 1000 * exposure.exptime + (float(keys["siflsh_p"]) if int(keys["siflsh"]) else 0.0),
        "IPHI": elvis.iphi_text(keys),
    }
    for ccd in (1, 2, 3):
        for side in "TB":
            value = float(
                ccd_temperature_c(seed, ccd, side, exposure.elapsed_s, exposure.warm, exposure.set_k)
            )
            common[f"R1C{ccd}_T{side}"] = round(value, 2)
    typed = {name: elvis.EXPLOG_TYPES[name](common[name]) for name in elvis.EXPLOG_TYPES if name in common}
    return {
        ccd: {**typed, "File_name": raw_stem(exposure.obsid, exposure.start, ccd), "CCD": f"CCD{ccd}"}
        for ccd in (1, 2, 3)
    }


def header_cards(row: dict[str, object], exposure: Exposure) -> list[tuple[str, object]]:
    """Cards of HDU 1 of a raw image from its EXP-LOG row."""
    more = {
        "fullpath": f"{row['File_name']}.fits",
        "lab_ver": "13.0.1f2",
        "comments": str(exposure.keys.get("comments", "")),
    }
    return raw_cards(row | more)


# ---- house-keeping -------------------------------------------------------------------------------
def hk_readings(exposure: Exposure, seed: int, changes: dict[str, float] | None = None):
    """Readings during an exposure, one per second: list of (time, values by key).

    Parameters
    ----------
    changes : faults, key → what is added to every reading (NaN: nothing is read).
    """
    seconds = np.arange(int((exposure.end - exposure.start).total_seconds()))
    rng = stream(seed, "hk", exposure.obsid)
    columns = {}
    for key in elvis.hk_columns()[1:]:
        columns[key] = _hk_course(key, exposure, seed, seconds, rng) + (changes or {}).get(key, 0.0)
    times = [exposure.start + timedelta(seconds=int(second)) for second in seconds]
    flags = {key for key in columns if elvis.hk_unit(key) == ""}
    series = {key: [_plain(v, key in flags) for v in column.tolist()] for key, column in columns.items()}
    return [(time, {key: series[key][i] for key in series}) for i, time in enumerate(times)]


def _plain(value: float, integer: bool):
    return int(value) if integer and value == value else value


def _hk_course(key: str, exposure: Exposure, seed: int, seconds: np.ndarray, rng) -> np.ndarray:
    """Readings of one key, in its unit."""
    noise = rng.standard_normal(seconds.size)
    if key.startswith("CCD") and "_TEMP_" in key:
        course = ccd_temperature_c(
            seed, int(key[3]), key[-1], exposure.elapsed_s + seconds, exposure.warm, exposure.set_k
        )
        return course + _TEMPERATURE_NOISE * noise
    command = elvis.HK_COMMANDED.get(key) or ("IDL" if key in ("FPGA_BIAS_ID_T", "FPGA_BIAS_ID_B") else None)
    if command:
        error = np.clip(stream(seed, "hk line", key).normal(0, _VOLTAGE_ERROR), -0.06, 0.06)
        return float(exposure.keys[command]) + error + _VOLTAGE_NOISE * noise
    if key in _HK_FREE:
        mean, rms = _HK_FREE[key]
        if "TEMP" in key:  # boards warm up and cool down slowly
            slow = np.sin(2 * np.pi * (exposure.elapsed_s + seconds) / 7200.0)
            return mean + rms * slow + 0.03 * noise
        return mean + rms * noise
    return np.full(seconds.size, float(_SPW_STATUS if key == "SPW_STATUS_REG" else 0))


def by_date(readings: list[tuple[datetime, dict]]) -> dict:
    """Readings by the date on which they were taken."""
    found: dict = {}
    for reading in readings:
        found.setdefault(reading[0].date(), []).append(reading)
    return found
