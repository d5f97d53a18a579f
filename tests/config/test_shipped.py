"""The YAML that comes with calcamp: complete, and equal to the specification's figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from calcamp.config import schema
from calcamp.config.chamber import SPOTS, Pattern, ShutterTable
from calcamp.config.lookup import load_block, load_chamber, load_detector, load_limits, load_session, names_of
from calcamp.config.yamlfile import read_yaml
from calcamp.paths import packaged_config, workflow_root

CONFIG = packaged_config()
BLOCKS = (
    "ALBERT ALBERT2 ALBERT3 ALBERT4 ALBERT5 BORN CURIE DIRAC EINSTEIN ERWIN FOWLER GUYE HEISENBERG JULES JULES2 "
    "KRAMERS LORENTZ MAX NIELS NOSTROMO OWEN QUASIMODO SKLODOWSKA UNKNOWN WILSON"
)
CHAMBERS = (
    "A_CBE_AUG18 A_CBE_NOV18_ND3 A_CBE_NOV18_ND4 A_CBE_SEP18 A_DIRAC A_FEB18 A_FOWLER A_JUL18 A_JULES A_JUN18 A_JUN18B "
    "A_MAX A_OWEN B_BORN B_CBE_DEC18 B_CBE_MAR19 B_CURIE B_EINSTEIN B_ERWIN B_GUYE B_HEISENBERG B_JULES2 B_KRAMERS "
    "B_LORENTZ B_NIELS B_NOSTROMO B_SKLODOWSKA"
)


def packaged(kind: str) -> list[str]:
    return sorted(path.stem for path in (CONFIG / kind).glob("*.yaml"))


def test_names():
    assert packaged("blocks") == sorted(BLOCKS.split())
    assert packaged("chambers") == sorted(CHAMBERS.split())
    assert set(packaged("detectors")) >= {"ccd273", "ccd273-mini"}
    assert packaged("chambers/patterns") == ["A_CBE_AUG18", "A_JUN18", "B_JAN19"]


@pytest.mark.parametrize("name", BLOCKS.split())
def test_block_loads(name):
    block = load_block(name)
    assert all(1900 <= value <= 3300 for value in block.expected_offsets().values())
    assert load_detector(block.detector).name == "ccd273"
    if block.chamber:
        assert load_chamber(block.chamber).chamber == block.chamber


@pytest.mark.parametrize("name", CHAMBERS.split())
def test_chamber_loads(name):
    chamber = load_chamber(name)
    assert sorted(chamber.filter_wheel) == [1, 2, 3, 4, 5, 6]
    for slot, wave in chamber.filter_wheel.items():
        assert chamber.slot(wave) == slot
        assert chamber.t_flat(wave) > 0
        assert chamber.t_point(wave) > 0
        assert chamber.expected_fwhm(wave) > 0
        assert chamber.mirror_nominal(slot) > 0
    assert chamber.history
    if chamber.pattern:
        chamber.spots()
    chamber.shutter_table()


@pytest.mark.parametrize(
    ("chamber", "flat", "point", "mirror"),
    [
        ("B_NOSTROMO", (12.4, 0.1, 3.6, 3.5, 7.2, 73.4), (12, 0.02, 2.5, 2.2, 4, 45), 47.2),
        ("A_MAX", (10.1, 0.05, 4, 4, 7, 530), (4.25, 0.011, 1.3, 1.3, 1.3, 85), 96.2),
        ("A_JUN18", (15, 15, 15, 54, 54, 60), (14.4, 28.8, 24, 1.6, 0.8, 0.8), 86),
        ("B_EINSTEIN", (13, 0.08, 3.8, 3.4, 6.8, 72), (12, 0.02, 2.5, 2.1, 4, 45), 47.47),
    ],
)
def test_figures_of_chambers(chamber, flat, point, mirror):
    profile = load_chamber(chamber)
    for slot in range(1, 7):
        wave = profile.wavelength(slot)
        assert (profile.t_flat(wave), profile.t_point(wave)) == (flat[slot - 1], point[slot - 1])
        assert profile.mirror_nominal(slot) == mirror


@pytest.mark.parametrize(
    ("block", "ccd", "offsets"),
    [
        ("ALBERT5", 2, (2500, 2600, 2400, 2500)),
        ("NOSTROMO", 1, (2650, 2640, 2540, 2610)),
        ("LORENTZ", 1, (2978, 3081, 2883, 3128)),
        ("NIELS", 3, (2975, 3163, 3095, 2882)),
        ("QUASIMODO", 2, (2600, 2800, 3000, 2500)),
        ("WILSON", 3, (2000,) * 4),
        ("UNKNOWN", 3, (2800,) * 4),
    ],
)
def test_figures_of_blocks(block, ccd, offsets):
    assert tuple(load_block(block).expected_offset(ccd, quadrant) for quadrant in "EFGH") == offsets


@pytest.mark.parametrize("name", ["A_CBE_AUG18", "A_JUN18", "B_JAN19"])
def test_patterns(name):
    """20 sources a CCD, each in its own quadrant of the silicon."""
    pattern = Pattern.load(CONFIG / f"chambers/patterns/{name}.yaml")
    detector = load_detector("ccd273")
    for ccd in (1, 2, 3):
        assert tuple(pattern.positions[ccd]) == SPOTS
        for spot in SPOTS:
            assert detector.quadrant_at_phys(*pattern.xy(ccd, spot)) == spot[0]


@pytest.mark.parametrize("name", packaged("chambers/shutters"))
def test_shutters(name):
    table = ShutterTable.load(CONFIG / f"chambers/shutters/{name}.yaml")
    assert max(abs(a - c) for a, c in zip(table.actual, table.commanded, strict=True)) < 0.05
    assert (table.superseded_by is not None) == name.endswith("superseded")


def test_example_session():
    session = load_session(CONFIG / "sessions/example.yaml")
    assert list(session.tests) == ["BIAS01", "BIAS02", "DARK01"]


# ---- schemas and reference ------------------------------------------------------------------------------
def test_schemas_are_up_to_date():
    assert schema.stale(CONFIG / "schema") == []


def test_reference_is_up_to_date():
    page = workflow_root() / "docs/configuration.md"
    if not page.is_file():
        pytest.skip("an installed calcamp has no docs/")
    assert page.read_text(encoding="utf-8") == schema.reference()


FOLDERS = {
    "block": "blocks",
    "chamber": "chambers",
    "pattern": "chambers/patterns",
    "shutter": "chambers/shutters",
    "limits": "limits",
    "detector": "detectors",
}


@pytest.mark.parametrize("name", FOLDERS)
def test_schema_accepts_what_is_shipped(name):
    wanted = schema.schemas()[name]
    jsonschema.Draft202012Validator.check_schema(wanted)
    validator = jsonschema.Draft202012Validator(wanted)
    for path in sorted((CONFIG / FOLDERS[name]).glob("*.yaml")):
        data = json.loads(json.dumps(read_yaml(path).data))  # whole-number keys as text, as editors see them
        assert [error.message for error in validator.iter_errors(data)] == [], path.name


def test_session_schema():
    validator = jsonschema.Draft202012Validator(schema.schemas()["session"])
    path = CONFIG / "sessions/example.yaml"
    data = json.loads(json.dumps(read_yaml(path).data))
    assert not list(validator.iter_errors(data))
    data["tests"]["BIAS01"] |= {
        "exclude": {"18011": "lamp"},
        "limits": {"RON": [0.8, None], "her": False, "fwhm": {"low": 1}},
        "products": {
            "mask": {"1": "a"},
            "gain": {"1": {"E": 1, "F": 1, "G": 1, "H": 1}},
            "flat": {"nm800": {"1": "a"}},
        },
    }
    assert not list(validator.iter_errors(data))
    for bad in (
        {"obsid": [1, 2]},
        {"do": "some"},
        {"obsids": [1]},
        {"products": {"masks": "a"}},
        {"limits": {"RON": [1]}},
    ):
        assert list(validator.iter_errors({**data, "tests": {"BIAS01": bad}})), bad


def test_every_field_is_described():
    from calcamp.config.shape import _models_in

    def walk(model, seen):
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"
            for inner in _models_in(field.annotation):
                if inner not in seen:
                    seen.add(inner)
                    walk(inner, seen)

    for model in schema.models().values():
        walk(model, set())


def test_schema_command(tmp_path):
    from typer.testing import CliRunner

    from calcamp.cli.schema import app

    run = CliRunner().invoke
    assert run(app, ["--into", str(tmp_path), "--check"]).exit_code == 1
    assert run(app, ["--into", str(tmp_path), "--docs", str(tmp_path / "c.md")]).exit_code == 0
    assert run(app, ["--into", str(tmp_path), "--docs", str(tmp_path / "c.md"), "--check"]).exit_code == 0
    (tmp_path / "block.json").write_text("{}")
    assert run(app, ["--into", str(tmp_path), "--check"]).exit_code == 1


# ---- start-up ----------------------------------------------------------------------------------------------
CODE = """
import sys
from calcamp.config.lookup import load_all
load_all(sys.argv[1])
heavy = {"numpy", "astropy", "scipy", "matplotlib", "ruamel"} & {name.split(".")[0] for name in sys.modules}
assert not heavy, heavy
"""


def test_start_up_is_light():
    """A session with its block, chamber and limits in a fresh process: every job pays this."""
    subprocess.run([sys.executable, "-c", CODE, str(CONFIG / "sessions/example.yaml")], check=True)


def test_names_of_finds_the_workspace(tmp_path: Path):
    (tmp_path / "config/blocks").mkdir(parents=True)
    (tmp_path / "config/blocks/OWN.yaml").write_text("block: OWN\n")
    assert "OWN" in names_of("blocks", tmp_path)
    assert "BORN" in names_of("blocks", tmp_path)


def test_limits_load():
    assert load_limits().version == "1.0.0"
