"""Constants of the acquisition software ELVIS: columns, keys, defaults, by version.

Source: interface description of the campaign (exposure log, house-keeping and script formats).
Version 7.5.X is supported in full; 7.2.X and 6.5.X have the same exposure log. The column list of an
older version serves to write test data; logs are read by the names in their header. Standard library only.
"""

from __future__ import annotations

from types import MappingProxyType

VERSIONS = ("7.5.X", "7.2.X", "6.5.X", "6.3.0", "6.1.0", "6.0.0", "5.7.05")
DEFAULT_VERSION = "7.5.X"


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# ---- exposure log --------------------------------------------------------------------------------
_EXPLOG_75 = _words(
    """
    ObsID File_name CCD ROE date program test calscrpt sn_ccd1 sn_ccd2 sn_ccd3 sn_roe sn_rpsu BUNIT
    operator con_file exptime fl_rdout ci_rdout IPHI vstart vend rdmode flushes siflsh siflsh_p swellw
    swelldly inisweep cdpu_clk chinj chinj_on chinj_of id_wid id_dly chin_dly v_tpump s_tpump v_tp_mod
    s_tp_mod v_tp_cnt s_tp_cnt dwell_v dwell_s toi_fl toi_tp toi_ro toi_ch fpga_ver egse_ver motr motr_cnt
    motr_siz source wave mirr_on mirr_pos R1C1_TT R1C1_TB R1C2_TT R1C2_TB R1C3_TT R1C3_TB IDL IDH IG1_1_T
    IG1_2_T IG1_3_T IG1_1_B IG1_2_B IG1_3_B IG2_T IG2_B OD_1_T OD_2_T OD_3_T OD_1_B OD_2_B OD_3_B RD_T
    RD_B
    """
)

_EXPLOG_60 = _words(
    """
    ObsID File_name CCD ROE DATE PROGRAM TEST CCD1_SN CCD2_SN CCD3_SN BUNIT Operator Lab_ver Con_file
    Exptime Flsh-Rdout_e_time C.Inj-Rdout_e_time N_P_high Chrg_inj On_cycle Off_cycl pls_leng pls_del
    SerRdDel Trappump TP_Ser_S TP_Ver_S TP_DW_V TP_DW_H TOI_flsh TOI_pump TOI_read TOI_CInj Invflshp
    Invflush Flushes Vstart Vend Ovrscn_H CLK_ROE CnvStart SumWell IniSweep SPW_clk FPGA_ver EGSE_ver
    M_Steps M_St_Sze Wavelength Mirr_pos Chmb_pre RPSU_SN ROE_SN CalScrpt R1CCD1TT R1CCD1TB R1CCD2TT
    R1CCD2TB R1CCD3TT R1CCD3TB IDL_V IDH_V IG1_T1_V IG1_T2_V IG1_T3_V IG1_B1_V IG1_B2_V IG1_B3_V IG2_T_V
    IG2_B_V OD_T1_V OD_T2_V OD_T3_V OD_B1_V OD_B2_V OD_B3_V RD_T_V RD_B_V
    """
)

# One name of this version has a blank in it, written ~ here.

_EXPLOG_5705 = tuple(
    name.replace("~", " ")
    for name in _words(
        """
    ObsID File_name CCD ROE DATE PROGRAM TEST CCD1_SN CCD2_SN CCD3_SN BUNIT Operator Lab_ver Con_file
    Exptime Flsh-Rdout_e_time C.Inj-Rdout_e_time N_P_high Chrg_inj On_cycle Off_cycl Rpeat_cy pls_leng
    pls_del Trappump TP_Ser_S TP_Ver_S TP_DW_V TP_DW_H TOI_flu TOI~_pump TOI_read Invflshp Invflush
    Flushes Vstart Vend Lim_scan Ovrscn_H Ovrscn_V V_clocks S_clocks CLK_ROE1 CLK_ROE2 FPGA_ver EGSE_ver
    M_Steps M_St_Sze Wavelength Mirr_pos Chmb_pre ROE_SN CalScrpt R1CCD1TT R1CCD1TB R1CCD2TT R1CCD2TB
    R1CCD3TT R1CCD3TB IDL_V IDH_V IG1_V IG2_V ODCCD1_V RDCCD1_V ODCCD2_V RDCCD2_V ODCCD3_V RDCCD3_V
    """
    )
)

_INTEGERS = _words(
    """
    ObsID vstart vend flushes siflsh inisweep cdpu_clk chinj chinj_on chinj_of chin_dly v_tpump s_tpump
    v_tp_mod s_tp_mod v_tp_cnt s_tp_cnt toi_fl toi_tp toi_ro toi_ch motr motr_cnt wave mirr_on
    """
)

_TEXTS = _words(
    """
    File_name CCD ROE date program test calscrpt sn_ccd1 sn_ccd2 sn_ccd3 sn_roe sn_rpsu BUNIT operator
    con_file IPHI rdmode fpga_ver egse_ver source
    """
)

_HK_75 = _words(
    """
    TimeStamp CCD3_OD_T CCD2_OD_T CCD1_OD_T COMM_RD_T CCD2_IG1_T CCD1_IG1_T CCD3_TEMP_T CCD2_TEMP_T
    CCD1_TEMP_T CCD3_IG1_T COMM_IG2_T VID_PCB_TEMP_T FPGA_PCB_TEMP_T CCD1_OD_B CCD2_OD_B CCD3_OD_B
    COMM_RD_B CCD2_IG1_B CCD3_IG1_B CCD1_TEMP_B CCD2_TEMP_B CCD3_TEMP_B CCD1_IG1_B COMM_IG2_B
    VID_PCB_TEMP_B FPGA_PCB_TEMP_B FPGA_BIAS_DD FPGA_BIAS_OG FPGA_BIAS_ID1 FPGA_BIAS_ID2 FPGA_BIAS_ID_T
    FPGA_BIAS_ID_B FPGA_VRCLK_V FPGA_10VA_P_V FPGA_VICLK_V FPGA_5VA_P_V FPGA_5VREF_V FPGA_VCCD_V
    FPGA_1V5VD_P_V FPGA_3V2_N_V FPGA_5VA_N_V RPSU_VCCD_V RPSU_VCLK_V RPSU_VAN_P_V RPSU_VAN_N_V
    RPSU_3V3VD_V RPSU_1V5VD_V RPSU_28V_PRI_V RPSU_TEMP1 RPSU_VCCD_I RPSU_VCLK_I RPSU_VAN_P_I RPSU_VAN_N_I
    RPSU_3V3VD_I RPSU_1V5VD_I RPSU_28V_PRI_I RPSU_TEMP_2 ProtOvRideFlg hkInvalidFlg SPI_Inh_n 3v3ProtErr
    5vProtErr V3v3ProtCnt V5ProtCnt VccdErrFlg VclkErrFlg VanErrFlg dacExeErr hkTmErr spwTmTOFlg
    spwTmRspErrFlg spwTcPktErrFlg adcBsyErrFlg CDPUClkSw hkRamErr ADC_BSY_ERR_CNT pixelToErr spwStatus
    spwTmPtypeFlag TwoCmdsErr SPW_STATUS_REG Out_of_range
    """
)

_HK_5705 = _words(
    """
    HK_timestamp HK_OD_Top_CCD1 HK_OD_Bottom_CCD1 HK_OD_Top_CCD2 HK_OD_Bottom_CCD2 HK_OD_Top_CCD3
    HK_OD_Bottom_CCD3 HK_RD_Top_CCD1 HK_RD_Bottom_CCD1 HK_RD_Top_CCD2 HK_RD_Bottom_CCD2 HK_RD_Top_CCD3
    HK_RD_Bottom_CCD3 HK_temp_top_CCD1 HK_temp_bottom_CCD1 HK_temp_top_CCD2 HK_temp_bottom_CCD2
    HK_temp_top_CCD3 HK_temp_bottom_CCD3 HK_IG1_top HK_IG1_bot HK_IG2_top HK_IG2_bot HK_IDH HK_IDL
    HK_DD_bias HK_OG_bias HK_1.5V_ROE HK_VCCD_ROE HK_5VA_pos_ROE HK_5V_ref_ROE HK_10VA_ROE HK_5.2V_neg_ROE
    HK_3V_neg_ROE HK_VRclk_ROE HK_VRClk_Lo_ROE HK_3.3V_DIG_RPSU HK_I3.3V_DIG_RPSU HK_1.5V_DIG_RPSU
    HK_I1.5V_DIG_RPSU HK_28V_Pri_RPSU HK_I28V_RPSU HK_VAN_pos_RPSU HK_I+VAN_RPSU HK_VAN_neg_RPSU
    HK_I-VAN_RPSU HK_VCLK_RPSU HK_IVCLK_RPSU HK_VCCD_RPSU HK_IVCCD_RPSU HK_Temp1_RPSU HK_3.3V_ROE
    HK_Temp2_RPSU HK_VClk_ROE Video_TOP Video_BOT
    """
)

#: Names of 6.3.0 that differ from 7.5.X.
_RENAMED_63 = {"cdpu_clk": "spw_clk", "v_tp_mod": "v_tpmod", "s_tp_mod": "s_tpmod", "motr": "motr_on"}

# Names before 6.3 and the 7.5 name(s) that they stand for. A prototype with one voltage for several
# lines stands for all of them. The trap-pumping switch of these versions is not mapped: it does not
# say which clocks were pumped.
_OLD_NAMES = {
    "DATE": ("date",),
    "PROGRAM": ("program",),
    "TEST": ("test",),
    "CalScrpt": ("calscrpt",),
    "CCD1_SN": ("sn_ccd1",),
    "CCD2_SN": ("sn_ccd2",),
    "CCD3_SN": ("sn_ccd3",),
    "ROE_SN": ("sn_roe",),
    "RPSU_SN": ("sn_rpsu",),
    "Operator": ("operator",),
    "Con_file": ("con_file",),
    "Exptime": ("exptime",),
    "Flsh-Rdout_e_time": ("fl_rdout",),
    "C.Inj-Rdout_e_time": ("ci_rdout",),
    "N_P_high": ("IPHI",),
    "Chrg_inj": ("chinj",),
    "On_cycle": ("chinj_on",),
    "Off_cycl": ("chinj_of",),
    "pls_leng": ("id_wid",),
    "pls_del": ("id_dly",),
    "SerRdDel": ("chin_dly",),
    "TP_Ser_S": ("s_tp_cnt",),
    "TP_Ver_S": ("v_tp_cnt",),
    "TP_DW_V": ("dwell_v",),
    "TP_DW_H": ("dwell_s",),
    "TOI_flsh": ("toi_fl",),
    "TOI_flu": ("toi_fl",),
    "TOI_pump": ("toi_tp",),
    "TOI_read": ("toi_ro",),
    "TOI_CInj": ("toi_ch",),
    "Invflshp": ("siflsh_p",),
    "Invflush": ("siflsh",),
    "Flushes": ("flushes",),
    "Vstart": ("vstart",),
    "Vend": ("vend",),
    "IniSweep": ("inisweep",),
    "SPW_clk": ("cdpu_clk",),
    "FPGA_ver": ("fpga_ver",),
    "EGSE_ver": ("egse_ver",),
    "M_Steps": ("motr_cnt",),
    "M_St_Sze": ("motr_siz",),
    "Wavelength": ("wave",),
    "Mirr_pos": ("mirr_pos",),
    "IDL_V": ("IDL",),
    "IDH_V": ("IDH",),
    "IG1_V": ("IG1_1_T", "IG1_2_T", "IG1_3_T", "IG1_1_B", "IG1_2_B", "IG1_3_B"),
    "IG2_V": ("IG2_T", "IG2_B"),
    "IG2_T_V": ("IG2_T",),
    "IG2_B_V": ("IG2_B",),
    "RD_T_V": ("RD_T",),
    "RD_B_V": ("RD_B",),
    "RDCCD1_V": ("RD_T", "RD_B"),
    **{f"R1CCD{n}T{side}": (f"R1C{n}_T{side}",) for n in (1, 2, 3) for side in "TB"},
    **{f"IG1_{side}{n}_V": (f"IG1_{n}_{side}",) for n in (1, 2, 3) for side in "TB"},
    **{f"OD_{side}{n}_V": (f"OD_{n}_{side}",) for n in (1, 2, 3) for side in "TB"},
    **{f"ODCCD{n}_V": (f"OD_{n}_T", f"OD_{n}_B") for n in (1, 2, 3)},
    "spw_clk": ("cdpu_clk",),
    "v_tpmod": ("v_tp_mod",),
    "s_tpmod": ("s_tp_mod",),
    "motr_on": ("motr",),
}

#: Columns by version, in the order in which ELVIS writes them.
_EXPLOG = {
    **dict.fromkeys(("7.5.X", "7.2.X", "6.5.X"), _EXPLOG_75),
    "6.3.0": tuple(_RENAMED_63.get(name, name) for name in _EXPLOG_75),
    **dict.fromkeys(("6.1.0", "6.0.0"), _EXPLOG_60),
    "5.7.05": _EXPLOG_5705,
}
#: Type of each 7.5 column: int, float or str. Widths of texts are not limits.
EXPLOG_TYPES = MappingProxyType(
    {name: int if name in _INTEGERS else str if name in _TEXTS else float for name in _EXPLOG_75}
)


def squeezed(name: str) -> str:
    """Column name without blanks and in small letters: headers differ in both between versions."""
    return "".join(name.split()).lower()


_BY_SQUEEZED = {squeezed(old): new for old, new in _OLD_NAMES.items()} | {
    squeezed(name): (name,) for name in _EXPLOG_75
}


def version_key(version: str) -> str:
    """The entry of `VERSIONS` for a version text such as ``7.5.3`` or ``7.5.X``.

    Raises
    ------
    ValueError : a version that calcamp does not know.
    """
    text = version.strip()
    if text in VERSIONS:
        return text
    found = next((known for known in VERSIONS if known.split(".")[:2] == text.split(".")[:2]), None)
    if found is None:
        raise ValueError(f"ELVIS version {version[:20]!r} is not known; known are {', '.join(VERSIONS)}")
    return found


def explog_columns(version: str = DEFAULT_VERSION) -> tuple[str, ...]:
    """Columns of the exposure log of an ELVIS version, in the order written."""
    return _EXPLOG[version_key(version)]


def current_names(name: str) -> tuple[str, ...]:
    """The 7.5 column name(s) that a header name of any version stands for; empty when none is known."""
    return _BY_SQUEEZED.get(squeezed(name), ())


def written_before_63(names) -> bool:
    """Whether a header is of a version before 6.3 (exposure times then are in ms)."""
    return squeezed("Chrg_inj") in {squeezed(name) for name in names}


def explog_version(names) -> str | None:
    """The newest known version that writes exactly these columns in this order, else None."""
    wanted = tuple(squeezed(name) for name in names)
    return next((v for v in VERSIONS if tuple(map(squeezed, _EXPLOG[v])) == wanted), None)


# ---- house-keeping -------------------------------------------------------------------------------
_HK_72 = tuple(
    name
    for known in _HK_75
    if known not in ("CDPUClkSw", "pixelToErr", "spwStatus", "spwTmPtypeFlag", "TwoCmdsErr")
    for name in ((known, "CDPUClkSt", "CDPUClkLost") if known == "adcBsyErrFlg" else (known,))
)
_HK_65 = tuple(
    name
    for known in _HK_72
    if known
    not in ("dacExeErr", "spwTmRspErrFlg", "spwTcPktErrFlg", "adcBsyErrFlg", "CDPUClkSt", "CDPUClkLost")
    for name in ((known, "CDPUClkSt", "fpgaSpwErr") if known == "spwTmTOFlg" else (known,))
)
_HK_63 = (
    "TimeStamp",
    *_words("CCD1_OD_T CCD2_OD_T CCD3_OD_T COMM_RD_T CCD2_IG1_T CCD3_IG1_T"),
    *_words("CCD1_TEMP_T CCD2_TEMP_T CCD3_TEMP_T CCD1_IG1_T COMM_IG2_T"),
    *_HK_75[12 : _HK_75.index("RPSU_TEMP_2") + 1],
    *_words("stTMRErrFlg hkTMRErrFlg spwTmTOFlg CDPUClkSt fpgaSpwErr V3v3ProtCnt V5ProtCnt VccdErrFlg"),
    *_words("VclkErrFlg VanErrFlg stRamErr hkRamErr ADC_BSY_ERR_CNT SPW_STATUS_REG"),
)
_HK = {"7.5.X": _HK_75, "7.2.X": _HK_72, "6.5.X": _HK_65, "6.3.0": _HK_63, "5.7.05": _HK_5705}

# House-keeping names of the prototypes that name one sensor or line of 7.5.
_HK_OLD_NAMES = {
    **{
        f"HK_OD_{long}_CCD{n}": f"CCD{n}_OD_{side}"
        for n in (1, 2, 3)
        for long, side in (("Top", "T"), ("Bottom", "B"))
    },
    **{
        f"HK_temp_{long}_CCD{n}": f"CCD{n}_TEMP_{side}"
        for n in (1, 2, 3)
        for long, side in (("top", "T"), ("bottom", "B"))
    },
    "HK_IG2_top": "COMM_IG2_T",
    "HK_IG2_bot": "COMM_IG2_B",
    "HK_IDH": "FPGA_BIAS_ID1",
    "HK_IDL": "FPGA_BIAS_ID2",
    "HK_DD_bias": "FPGA_BIAS_DD",
    "HK_OG_bias": "FPGA_BIAS_OG",
    "HK_Temp1_RPSU": "RPSU_TEMP1",
    "HK_Temp2_RPSU": "RPSU_TEMP_2",
}

#: House-keeping keys kept with every test: 32.
HK_LOADED_KEYS = (
    *(f"CCD{n}_TEMP_{side}" for n in (1, 2, 3) for side in "TB"),
    *(f"CCD{n}_OD_{side}" for n in (1, 2, 3) for side in "TB"),
    *(f"CCD{n}_IG1_{side}" for n in (1, 2, 3) for side in "TB"),
    *_words("COMM_RD_T COMM_RD_B COMM_IG2_T COMM_IG2_B FPGA_BIAS_ID2"),
    *_words("VID_PCB_TEMP_T VID_PCB_TEMP_B FPGA_PCB_TEMP_T FPGA_PCB_TEMP_B RPSU_TEMP1 RPSU_TEMP_2"),
    *_words("FPGA_VCCD_V RPSU_VCCD_V RPSU_28V_PRI_I"),
)

#: House-keeping key -> commanded exposure-log key. IG1_B of CCD2 and CCD3 go with their own B command.
HK_COMMANDED = MappingProxyType(
    {
        **{f"CCD{n}_OD_{side}": f"OD_{n}_{side}" for n in (1, 2, 3) for side in "TB"},
        **{f"CCD{n}_IG1_{side}": f"IG1_{n}_{side}" for n in (1, 2, 3) for side in "TB"},
        **{f"COMM_{key}_{side}": f"{key}_{side}" for key in ("RD", "IG2") for side in "TB"},
        "FPGA_BIAS_ID1": "IDH",
        "FPGA_BIAS_ID2": "IDL",
    }
)


def hk_columns(version: str = DEFAULT_VERSION) -> tuple[str, ...]:
    """Columns of a house-keeping file of an ELVIS version, ``TimeStamp`` first.

    Raises
    ------
    ValueError : a version whose list is not known (6.0 and 6.1 among them).
    """
    key = version_key(version)
    if key not in _HK:
        raise ValueError(
            f"the house-keeping columns of ELVIS {version} are not known; known are {', '.join(_HK)}"
        )
    return _HK[key]


def hk_current_name(name: str) -> str | None:
    """The 7.5 key that a house-keeping name of the prototypes stands for, None when it is none."""
    return _HK_OLD_NAMES.get(name.strip())


def hk_unit(key: str) -> str:
    """Unit of a house-keeping key: V, A, deg_C, or empty for a flag or counter."""
    if "TEMP" in key:
        return "deg_C"
    if key.endswith("_I"):
        return "A"
    return (
        "V"
        if key in _HK_75 and _HK_75.index(key) < _HK_75.index("ProtOvRideFlg") and key != "TimeStamp"
        else ""
    )


# ---- acquisition scripts -------------------------------------------------------------------------
#: Script keys in row order, with their defaults.
SCRIPT_DEFAULTS: dict[str, object] = {
    "frames": 1,
    "program": "CALCAMP",
    "test": "Test",
    "IDL": 13.0,
    "IDH": 18.0,
    "IG1_1_T": 6.0,
    "IG1_2_T": 6.0,
    "IG1_3_T": 6.0,
    "IG1_1_B": 6.0,
    "IG1_2_B": 6.0,
    "IG1_3_B": 6.0,
    "IG2_T": 2.0,
    "IG2_B": 2.0,
    "OD_1_T": 26.0,
    "OD_1_B": 26.0,
    "OD_2_T": 26.0,
    "OD_2_B": 26.0,
    "OD_3_T": 26.0,
    "OD_3_B": 26.0,
    "RD_T": 16.0,
    "RD_B": 16.0,
    "IPHI1": 1,
    "IPHI2": 1,
    "IPHI3": 1,
    "IPHI4": 0,
    "rdmode": "fwd_bas",
    "flushes": 7,
    "siflsh": 1,
    "siflsh_p": 500,
    "swellw": 8.4,
    "swelldly": 5.625,
    "inisweep": 1,
    "vstart": 0,
    "vend": 2086,
    "toi_fl": 143,
    "toi_tp": 1000,
    "toi_ro": 1000,
    "toi_ch": 1000,
    "chinj": 0,
    "chinj_on": 1,
    "chinj_of": 1,
    "id_wid": 100,
    "id_dly": 1500,
    "chin_dly": 0,
    "s_tpump": 0,
    "s_tpmod": 23,
    "v_tpump": 0,
    "v_tpmod": 123,
    "s_tp_cnt": 1000,
    "v_tp_cnt": 1000,
    "dwell_v": 0,
    "dwell_s": 0,
    "exptime": 0,
    "shuttr": 1,
    "e_shuttr": 0,
    "mirr_on": 0,
    "mirr_pos": 70,
    "wave": 4,
    "motr_on": 0,
    "motr_cnt": 2,
    "motr_siz": 50,
    "source": "flat",
    "operator": "cpf",
    "sn_ccd1": "CCD273-XX-X-XXX",
    "sn_ccd2": "CCD273-XX-X-XXX",
    "sn_ccd3": "CCD273-XX-X-XXX",
    "sn_roe": "ROEXX",
    "sn_rpsu": "RPSUXX",
    "comments": "",
    "roe-tab": "hrdstart",
}

SCRIPT_UNITS: dict[str, str] = {
    "frames": "exposures",
    "program": "",
    "test": "",
    "IDL": "V",
    "IDH": "V",
    "IG1_1_T": "V",
    "IG1_2_T": "V",
    "IG1_3_T": "V",
    "IG1_1_B": "V",
    "IG1_2_B": "V",
    "IG1_3_B": "V",
    "IG2_T": "V",
    "IG2_B": "V",
    "OD_1_T": "V",
    "OD_1_B": "V",
    "OD_2_T": "V",
    "OD_2_B": "V",
    "OD_3_T": "V",
    "OD_3_B": "V",
    "RD_T": "V",
    "RD_B": "V",
    "IPHI1": "0/1",
    "IPHI2": "0/1",
    "IPHI3": "0/1",
    "IPHI4": "0/1",
    "rdmode": "",
    "flushes": "",
    "siflsh": "0/1",
    "siflsh_p": "ms",
    "swellw": "us",
    "swelldly": "us",
    "inisweep": "0/1",
    "vstart": "row",
    "vend": "row",
    "toi_fl": "us",
    "toi_tp": "us",
    "toi_ro": "us",
    "toi_ch": "us",
    "chinj": "0/1",
    "chinj_on": "rows",
    "chinj_of": "rows",
    "id_wid": "us",
    "id_dly": "us",
    "chin_dly": "serial lines",
    "s_tpump": "0/1",
    "s_tpmod": "23, 31",
    "v_tpump": "0/1",
    "v_tpmod": "123,234,341,412",
    "s_tp_cnt": "cycles",
    "v_tp_cnt": "cycles",
    "dwell_v": "us",
    "dwell_s": "us",
    "exptime": "s",
    "shuttr": "0/1",
    "e_shuttr": "0/1",
    "mirr_on": "0/1",
    "mirr_pos": "mm",
    "wave": "filter position 1-6",
    "motr_on": "0/1",
    "motr_cnt": "",
    "motr_siz": "",
    "source": "flat / point",
    "operator": "",
    "sn_ccd1": "",
    "sn_ccd2": "",
    "sn_ccd3": "",
    "sn_roe": "",
    "sn_rpsu": "",
    "comments": "",
    "roe-tab": "",
}

#: Script keys whose name in the exposure log differs.
SCRIPT_TO_LOG = MappingProxyType({"s_tpmod": "s_tp_mod", "v_tpmod": "v_tp_mod", "motr_on": "motr"})

#: Keys that the check of the acquired structure compares, as the predecessor does: 58 and IPHI.
COMPARED_KEYS = (
    *_words("program test IDL IDH IG1_1_T IG1_2_T IG1_3_T IG1_1_B IG1_2_B IG1_3_B IG2_T IG2_B"),
    *_words("OD_1_T OD_2_T OD_3_T OD_1_B OD_2_B OD_3_B RD_T RD_B"),
    *_words(
        "rdmode flushes siflsh siflsh_p swellw swelldly inisweep vstart vend toi_fl toi_tp toi_ro toi_ch"
    ),
    *_words(
        "chinj chinj_on chinj_of id_wid id_dly chin_dly s_tpump v_tpump s_tp_cnt v_tp_cnt dwell_v dwell_s"
    ),
    *_words("exptime mirr_on mirr_pos wave motr_cnt motr_siz source operator"),
    *_words("sn_ccd1 sn_ccd2 sn_ccd3 sn_roe sn_rpsu"),
    "IPHI",
)
#: Keys that the predecessor does not compare because script and log name them differently.
RENAMED_KEYS = tuple(SCRIPT_TO_LOG)

#: Summing-well width and delay [us] by read mode.
SUMMING_WELL = MappingProxyType(
    {
        "fwd_bas": (8.4, 5.625),
        "fwd_e2v": (7.15, 6.725),
        "rwd_bas_v": (8.4, 5.625),
        "rwd_bas_s": (6.5, 0.175),
        "rwd_bas_vs": (6.5, 0.175),
    }
)


def log_name(script_key: str) -> str:
    """Name in the exposure log of a script key."""
    return SCRIPT_TO_LOG.get(script_key, script_key)


def iphi_text(keys) -> str:
    """The log's ``IPHI`` for script keys IPHI1..IPHI4, e.g. ``I1I2I3``."""
    return "".join(
        f"I{n}" for n in (1, 2, 3, 4) if int(keys.get(f"IPHI{n}", SCRIPT_DEFAULTS[f"IPHI{n}"]) or 0)
    )
