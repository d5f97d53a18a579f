"""What the room promises as a whole: floors, light imports, no code run from data."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import calcamp.data

ROOM = Path(calcamp.data.__file__).parent
MODULES = sorted(path.stem for path in ROOM.glob("*.py") if path.stem != "__init__")
LIGHT = (
    "elvis",
    "explog",
    "files",
    "follow",
    "hk",
    "names",
    "fitsblocks",
    "raw",
    "tables",
    "fitsfile",
    "products",
)
HEAVY = ("numpy", "astropy", "scipy", "matplotlib", "pydantic", "openpyxl", "yaml")


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("module", MODULES)
def test_no_module_of_data_imports_config_or_a_floor_above(module):
    for name in imported(ROOM / f"{module}.py"):
        assert not name.startswith("calcamp.") or name.split(".")[1] in (
            "data",
            "detector",
            "paths",
            "__version__",
        ), name


@pytest.mark.parametrize("module", MODULES)
def test_no_code_is_run_from_data(module):
    text = (ROOM / f"{module}.py").read_text()
    calls = {
        node.func.id
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not calls & {"eval", "exec", "__import__"}
    assert not {"pickle", "subprocess", "shelve", "marshal", "dill"} & {
        name.split(".")[0] for name in imported(ROOM / f"{module}.py")
    }


@pytest.mark.parametrize("module", LIGHT)
def test_imports_no_heavy_library(module):
    code = f"import sys, calcamp.data.{module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
