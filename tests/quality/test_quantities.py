"""docs/quantities.md and the names in code are one."""

import ast
from pathlib import Path

from calcamp.quality.quantities import QUANTITIES, page

ROOT = Path(__file__).parents[2]

#: Names that the design promises.
PROMISED = [
    "offset",
    "read_noise",
    "dark_current",
    "dsnu",
    "gain",
    "full_well",
    "bloom_level",
    "bf_a00",
    "bf_a01",
    "bf_a10",
    "nonlinearity_max",
    "prnu",
    "her",
    "best_focus",
    "fwhm_best",
    "crosstalk_max",
    "injection_level",
    "injection_threshold",
    "notch",
    "trap_count",
    "trap_tau",
    "persistence",
    "bad_pixels",
    "fwhm_best_vison",
    "hot_pixels",
]


def test_page_is_up_to_date():
    text = (ROOT / "docs" / "quantities.md").read_text()
    assert text == page(), "run: python -m calcamp.quality.quantities > docs/quantities.md"


def test_promised_names_are_there():
    assert not set(PROMISED) - set(QUANTITIES)


def test_every_name_has_a_unit_and_a_sentence():
    for q in QUANTITIES.values():
        assert q.unit, q.name
        assert q.definition.endswith("."), q.name
    source = ast.parse((ROOT / "src/calcamp/quality/quantities.py").read_text())
    names = [
        n.args[0].value
        for n in ast.walk(source)
        if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "Quantity"
    ]
    assert len(names) == len(set(names)) == len(QUANTITIES)
