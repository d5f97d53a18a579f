"""Inputs of the cook-book and small helpers of the command tests."""

import json

NOSTROMO = {
    "equipment": {
        "sn_roe": "FM15",
        "sn_rpsu": "FM15",
        "operator": "unk",
        "sn_ccd1": "14888-88-81",
        "sn_ccd2": "14888-88-82",
        "sn_ccd3": "14888-88-83",
    },
    "elvis": "7.5.X",
    "CHAMBER": "B_NOSTROMO",
    "camptype": "Full",
    "outpath": "Scripts_NOSTROMO_APR19_W18",
    "toWrite": {"CHINJ02": 1, "BIAS01": 1, "DARK01": 0, "TP01": 1, "BIAS02": 1, "CHINJ01": 1, "FOCUS00": 1},
}
SESSIONS = {
    "inpath": "Scripts_NOSTROMO_APR19_W18",
    "outpath": "SEQUENCES_NOSTROMO_APR19_W18",
    "sessions": {"D00": ["FOCUS00_800"], "D11": ["BIAS01", "BIAS02", "CHINJ01", "CHINJ02", "TP01"]},
}


def write_json(path, data):
    path.write_text(json.dumps(data, indent=2))
    return path


def tree(folder):
    """Every file below a folder with its content."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
