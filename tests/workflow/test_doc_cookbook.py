"""The analyst's cook-book: every command of the page is typed here, in one shell, and says what the page shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.workflow.conftest import ROOT, until

pytestmark = pytest.mark.full  # minutes of sessions: make test keeps to the foundation's

PAGE = ROOT / "docs" / "cookbook.md"
OPTIONS = ROOT / "docs" / "vison-options.md"
SECONDS = 900
SESSION = re.compile(r"\$ cat D11\.yaml\n(.*?)```", re.S)


def commands(text: str):
    """(command, lines shown after it) of every console block."""
    for block in re.findall(r"```console\n(.*?)```", text, re.S):
        item = None
        for line in block.splitlines():
            if line.startswith("$ "):
                if item:
                    yield item
                item = (line[2:], [])
            else:
                item[1].append(line)
        yield item


class Shell:
    """One bash, typed into line by line."""

    def __init__(self, folder: Path):
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._bash = subprocess.Popen(
            ["timeout", "-k", "10", str(SECONDS), "bash"],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"PATH": path, "COLUMNS": "160", "NO_COLOR": "1"},
        )

    def type(self, command: str) -> tuple[list[str], int]:
        self._bash.stdin.write(
            f"{command}\necho; echo END:$?\n".replace("echo; echo END:$?", 'code=$?; echo; echo "END:$code"')
        )
        self._bash.stdin.flush()
        lines = []
        for line in self._bash.stdout:
            if line.startswith("END:"):
                return [text for text in lines if text.strip()], int(line[4:])
            lines.append(line.rstrip())
        raise AssertionError(f"the shell ended at: {command}\n" + "\n".join(lines))

    def close(self) -> None:
        self._bash.stdin.close()
        self._bash.wait(60)


def shown(expected: list[str], found: list[str]) -> str:
    """The first line of the page that the output lacks, in order; empty when all are there."""
    place = 0
    for line in expected:
        if not line.strip() or line.strip() == "...":
            continue
        wanted = re.compile(
            r"\s*"
            + r".*".join(re.escape(p.strip()).replace(r"\ ", r"\s+") for p in line.split("..."))
            + r"\s*$"
        )
        while place < len(found) and not wanted.match(found[place]):
            place += 1
        if place == len(found):
            return line
        place += 1
    return ""


def test_every_command_of_the_page(tmp_path):
    text = PAGE.read_text()
    (tmp_path / "caldata" / "data").mkdir(parents=True)
    shell = Shell(tmp_path)
    written = False
    for command, expected in commands(text):
        if "NOSTROMO/ANALYSIS" in command:
            found, code = shell.type(command)
            (tmp_path / "NOSTROMO" / "ANALYSIS" / "D11.yaml").write_text(SESSION.search(text)[1])
            written = True
            continue
        if command.startswith("sleep"):  # a busy machine starts later
            until(lambda: len(list(tmp_path.glob("results/D11/*/waiting.json"))) == 2, SECONDS)
        found, code = shell.type(command)
        lacks = shown(expected, found)
        assert not lacks, f"$ {command}\nlacks: {lacks}\n" + "\n".join(found)
        refused = any(line.startswith("calcamp: ") for line in expected)
        assert bool(code) == refused, f"$ {command}\nexit {code}\n" + "\n".join(found)
    shell.close()
    assert written


def test_every_option_of_the_old_pipeline_has_a_line():
    rows = [line.split("|")[1].strip() for line in OPTIONS.read_text().splitlines() if line.startswith("| `")]
    named = {row.strip("`").split()[0] for row in rows}
    assert named == {*(f"-{c}" for c in "yRjdvgmtlikOTrWCFh"), "nohup"}


@pytest.mark.parametrize("page", [PAGE, OPTIONS], ids=lambda p: p.stem)
def test_keys_and_commands_named_exist(page):
    from calcamp.cli.main import available
    from calcamp.config.session import Session, TestEntry, Wait

    text = page.read_text()
    for name in set(re.findall(r"(?:`|\$ )calcamp ([a-z][a-z0-9-]*)", text)):
        assert name in available(), name
    keys = {*Session.model_fields, *TestEntry.model_fields, *Wait.model_fields}
    for key in re.findall(r"`([a-z_]+):[ `]", text):
        assert key in keys or key in ("detector", "wrong"), key
    for target in re.findall(r"\]\(([a-z-]+\.md)?(?:#[^)]*)?\)", text):
        assert not target or (page.parent / target).is_file()
