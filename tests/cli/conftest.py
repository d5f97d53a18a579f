"""The calcamp command as a user types it, in this process."""

import sys
from dataclasses import dataclass

import pytest
from tests.cli.cli_support import NOSTROMO, write_json


@dataclass
class Ran:
    code: int
    out: str
    err: str


@pytest.fixture
def calcamp(tmp_path, monkeypatch, capsys):
    """Run ``calcamp ...`` in an empty folder: exit code, stdout, stderr. A traceback fails the test."""
    from calcamp.cli import main

    monkeypatch.chdir(tmp_path)

    def run(*args, cwd=None):
        monkeypatch.chdir(cwd or tmp_path)
        monkeypatch.setattr(sys, "argv", ["calcamp", *map(str, args)])
        capsys.readouterr()
        code = 0
        try:
            main.main()
        except SystemExit as stop:
            code = stop.code or 0
        done = capsys.readouterr()
        return Ran(code, done.out, done.err)

    return run


@pytest.fixture
def freeze(monkeypatch):
    """Make the script writer's clock show 1 April 2019, 12:56:31."""
    from datetime import datetime

    import calcamp.campaign.scripts

    monkeypatch.setattr(calcamp.campaign.scripts, "now", lambda: datetime(2019, 4, 1, 12, 56, 31))


@pytest.fixture
def scripts(tmp_path, calcamp, freeze):
    """The cook-book's folder of scripts, of 1 April 2019."""
    write_json(tmp_path / "scripts.json", NOSTROMO)
    done = calcamp("scripts", "scripts.json")
    assert done.code == 0, done.err
    return tmp_path / NOSTROMO["outpath"]
