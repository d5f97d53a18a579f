"""The operator's page: its section of typed commands says what the page shows, from a fresh workspace."""

import os
import shutil

import pytest
from tests.workflow.conftest import ROOT
from tests.workflow.test_doc_cookbook import Shell, commands, shown

PAGE = ROOT / "docs" / "operator.md"


@pytest.mark.full
@pytest.mark.skipif(not shutil.which("rsync"), reason="rsync is not installed")
def test_every_command_of_the_page(tmp_path):
    (tmp_path / "caldata").mkdir()
    (tmp_path / "mssl3m").mkdir()
    shell = Shell(tmp_path)
    for command, expected in commands(PAGE.read_text()):
        if "verify-backup" in command:  # a minute has passed
            for path in (tmp_path / "mssl3m").rglob("*_*"):
                if path.is_file():
                    os.utime(path, (1.5e9, 1.5e9))
        found, code = shell.type(command)
        lacks = shown(expected, found)
        assert not lacks, f"$ {command}\nlacks: {lacks}\n" + "\n".join(found)
        refused = any(line.startswith("calcamp: ") for line in expected)
        assert bool(code) == refused or command.startswith("kill"), f"$ {command}\nexit {code}\n" + "\n".join(
            found
        )
    shell.close()
