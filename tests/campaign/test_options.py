"""Options of sub-tasks: described, bounded, strict, and refused with file, line, key and what was expected."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError
from pydantic_core import PydanticUndefined

from calcamp.analysis.offset import METHODS, SCANS
from calcamp.campaign import core, plan
from calcamp.campaign.core import PrepOptions, prep
from calcamp.config.errors import ConfigError

MODELS = {
    f"{test.family}.{subtask.name}": subtask.options
    for test in core.tests().values()
    for subtask in test.subtasks
    if subtask.options.model_fields
}
FIELDS = [(model, name) for model in MODELS.values() for name in model.model_fields]
NUMBERS = [
    (m, n) for m, n in FIELDS if set(get_args(a := m.model_fields[n].annotation) or (a,)) & {int, float}
]


def load(folder: Path, test: str, entry: str):
    file = folder / "D11.yaml"
    file.write_text(
        "session: D11\nblock: NOSTROMO\nresults: results\n"
        f"data: {{root: data, day_folders: [12_Mar_19]}}\ntests:\n  {test}:\n    do: all\n{entry}\n"
    )
    return plan.load([file])


def refused(folder: Path, test: str, entry: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(folder, test, entry)
    return [str(error) for error in caught.value.errors]


def test_every_family_with_options_is_seen():
    assert {"bias.basic", "dark.meta", "point.lock", "ptc.extract_PTC", "flat.prmask"} <= set(MODELS)


@pytest.mark.parametrize(("model", "name"), FIELDS, ids=lambda v: getattr(v, "__name__", v))
def test_every_option_is_described_and_its_default_is_right(model, name):
    field = model.model_fields[name]
    assert field.description
    assert field.default is not PydanticUndefined
    model(**{name: field.default})


@pytest.mark.parametrize(("model", "name"), NUMBERS, ids=lambda v: getattr(v, "__name__", v))
@pytest.mark.parametrize("value", ["5", True, float("nan"), float("inf")])
def test_no_number_is_guessed(model, name, value):
    with pytest.raises(ValidationError):
        model(**{name: value})


@pytest.mark.parametrize(("model", "name"), NUMBERS, ids=lambda v: getattr(v, "__name__", v))
def test_every_number_has_bounds(model, name):
    """A number that is absurd on one side at least is refused, so none is without any bound."""
    wrong = 0
    for value in (-(10**9), 10**9):
        try:
            model(**{name: value})
        except ValidationError:
            wrong += 1
    assert wrong


def test_yaml_numbers(tmp_path):
    options = (
        "    options: {meta: {cosmic_sigma: 5, hot_rate_e_s: 0.01, cosmic_grow: 2}, prep: {cosmics: true}}"
    )
    made = load(tmp_path, "DARK01", options)
    found = made.options("DARK01", "meta")
    assert (found["cosmic_sigma"], type(found["cosmic_sigma"])) == (5.0, float)
    assert (found["hot_rate_e_s"], found["cosmic_grow"]) == (0.01, 2)
    assert made.options("DARK01", "prep")["cosmics"] is True


def test_methods_and_scans_are_those_of_the_analysis():
    fields = PrepOptions.model_fields
    assert get_args(fields["offset"].annotation) == METHODS
    assert get_args(fields["scan"].annotation) == SCANS


def test_prep_with_other_defaults_keeps_types_and_words():
    own = prep(offset="smooth", use_flat=False).options
    assert own().offset == "smooth"
    for name, field in PrepOptions.model_fields.items():
        assert own.model_fields[name].annotation == field.annotation
        assert own.model_fields[name].description == field.description
    with pytest.raises(ValidationError):
        own(offset="rwo")


@pytest.mark.parametrize(
    ("test", "subtask", "key", "value", "expected"),
    [
        ("BIAS01", "prep", "offset", "rwo", "found \"rwo\", expected 'row', 'median', 'smooth' or 'none'"),
        ("BIAS01", "prep", "scan", "both_of_them", "expected 'pre', 'ove' or 'both'"),
        ("BIAS01", "prep", "use_mask", "1", "found 1, expected true or false"),
        ("BIAS01", "basic", "clip_sigma", '"5"', 'found "5", expected a number'),
        ("BIAS01", "basic", "model_degree", "3.0", "found 3.0, expected a whole number"),
        ("BIAS01", "meta", "clip_sgma", "4", "unknown key; did you mean 'clip_sigma'"),
        ("BIAS01", "check", "x", "1", "check has no options"),
        ("PTC01", "extract_PTC", "max_flux_difference", "-3", "found -3, expected a number > 0"),
        ("PTC01", "meta", "noise", "fre", "expected 'overscan' or 'free'"),
        ("DARK01", "meta", "cosmic_grow", "-1", "expected a number >= 0"),
        ("FOCUS00_800", "lock", "least_stars", "0", "expected a number >= 3"),
    ],
)
def test_a_wrong_option_is_told_at_its_key(tmp_path, test, subtask, key, value, expected):
    (said,) = refused(tmp_path, test, f"    options:\n      {subtask}:\n        {key}: {value}")
    assert said.startswith(f"{tmp_path}/D11.yaml:10: tests.{test}.options.{subtask}.{key}: ")
    assert expected in said


def test_all_wrong_options_are_told_at_once(tmp_path):
    said = refused(
        tmp_path, "BIAS01", "    options: {prep: {offset: a, scan: b}, meta: {clip_iterations: 0}}"
    )
    assert [line.split(": ")[1].rpartition(".")[2] for line in said] == ["clip_iterations", "offset", "scan"]


def test_an_option_of_no_subtask_is_told_once(tmp_path):
    (said,) = refused(tmp_path, "BIAS01", "    options: {bascic: {clip_sigma: 4}}")
    assert "no sub-task 'bascic'" in said


@pytest.mark.parametrize(
    ("test", "subtask", "options"),
    [
        ("TP01", "basic", "{tau_min_us: 50000}"),
        ("TP02", "basic", "{serial_tau_max_us: 0.5}"),
        ("PERSIST01", "basic", "{inner: 70}"),
        ("COSMETICS00", "masks", "{dead: 0.9}"),
        ("FLAT01", "prmask", "{over: 1.1}"),
    ],
)
def test_options_in_a_wrong_order(tmp_path, test, subtask, options):
    (said,) = refused(tmp_path, test, f"    options: {{{subtask}: {options}}}")
    assert f":8: tests.{test}.options.{subtask}: " in said
    assert "is above" in said


# ---- limits of house-keeping, as the session gives them ------------------------------------------------
def test_open_ends_of_house_keeping(tmp_path):
    made = load(tmp_path, "BIAS01", "    limits: {CCD1_TEMP_T: [null, -118], CCD1_OD_T: {low: -0.3}}")
    found = {key: limit.performance for key, limit in made.hk_limits("BIAS01").items()}
    assert (found["CCD1_TEMP_T"].low, found["CCD1_TEMP_T"].high) == (-1e9, -118)
    assert (found["CCD1_OD_T"].low, found["CCD1_OD_T"].high) == (-0.3, 1e9)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("CCD1_TEMP_T", "{columns: [1]}", "found columns, expected low and high"),
        ("CCD1_TEMP_T", "{low: -125, high: -115, regions: [pre]}", "found regions, expected low and high"),
        ("CCD1_TEMP_T", "[null, null]", "neither low nor high is given"),
        ("SPW_STATUS_REG", "[0, 1]", "compared with fixed values"),
        ("hkInvalidFlg", "false", "change it in the limits file"),
    ],
)
def test_a_wrong_limit_of_house_keeping_is_told_at_its_key(tmp_path, key, value, expected):
    (said,) = refused(tmp_path, "BIAS01", f"    limits:\n      {key}: {value}")
    assert said.startswith(f"{tmp_path}/D11.yaml:9: tests.BIAS01.limits.{key}: ")
    assert expected in said


def test_a_band_for_fixed_values_of_a_limits_file(tmp_path):
    from calcamp.config.lookup import load_limits

    text = load_limits().file.read_text().replace(
        "performance: {type: absolute, low: 21.8, high: 22.2}", "performance: {type: identity, values: [22]}"
    )  # fmt: skip
    (tmp_path / "own.yaml").write_text(text.replace("limits: default", "limits: own"))
    with pytest.raises(ConfigError, match=r"tests\.BIAS01\.limits: FPGA_BIAS_DD: .*fixed values"):
        load(tmp_path, "BIAS01", "    limits: {FPGA_BIAS_DD: [21, 23]}\nlimits: own.yaml")
    load(tmp_path, "BIAS01", "    limits: {FPGA_BIAS_DD: false}\nlimits: own.yaml")
