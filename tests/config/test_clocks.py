"""Clock tables: the shipped ones, what follows from them, wrong ones refused."""

from __future__ import annotations

import pytest

from calcamp.config.clocks import Clocks
from calcamp.config.errors import ConfigError, ConfigErrors
from calcamp.config.lookup import find_file, load_clocks
from calcamp.detector.clocks import Clocking


def test_shipped_tables_show_each_half_electrode_once():
    table = load_clocks("default").table("parallel")
    seen = table.signatures("half_EF")
    assert len(seen) == 8
    assert all(len(modes) == 1 for modes in seen.values())
    for modes in seen.values():
        (term,) = modes.values()
        assert (term.begin, term.end, term.hold) == (1.0, 2.0, 1.0)
        assert abs(term.donor - term.receiver) == 1
    serial = load_clocks("default").table("serial")
    assert serial.step_us(14.3) == pytest.approx(19.05)
    assert {(t.begin, t.end) for m in serial.signatures("half_GH").values() for t in m.values()} == {
        (0.0, 1.0)
    }


def test_a_table_survives_the_job_json():
    table = load_clocks("default").table("serial")
    assert Clocking.from_dict(table.as_dict()) == table


def test_reversed_phases_swap_the_signs():
    table = load_clocks("default").table("parallel")
    turned = Clocking(table.phases, table.modes, table.fixed_us, {"half_GH": (4, 3, 2, 1)})
    normal, other = table.signatures("half_EF"), turned.signatures("half_GH")
    for position, modes in normal.items():
        for mode, term in modes.items():
            assert other[5.0 - position][mode].sign == -term.sign
    assert table.steps(412, "half_EF") == [(4,), (5,), (6,), (5,)]
    serial = load_clocks("default").table("serial")
    assert serial.steps(23, "half_EF") == [(1, 2), (0, 1)]


def test_the_workspace_wins(tmp_path):
    folder = tmp_path / "config" / "clocks"
    folder.mkdir(parents=True)
    text = find_file("clocks", "default", tmp_path).read_text().replace("fixed_us: 4.75", "fixed_us: 5.0")
    (folder / "default.yaml").write_text(text)
    assert load_clocks("default", tmp_path).table("serial").fixed_us == 5.0


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("half_EF: [1, 2, 3, 4]", "half_EF: [1, 2, 3, 3]"),
        ("123: [[1], [2], [3], [2]]", "123: [[1]]"),
        ("phases: 4", "phases: one"),
    ],
)
def test_wrong_tables_are_refused(tmp_path, old, new):
    text = find_file("clocks", "default", tmp_path).read_text()
    assert old in text
    with pytest.raises((ConfigError, ConfigErrors)):
        Clocks.from_text(text.replace(old, new, 1))
