"""The script writer's pages of the cook-book: every command is typed here, and its output is the one shown.

With ``CALCAMP_WRITE_DOCS=1`` the outputs in the page are written anew instead.
"""

import json
import os
import re
import shlex
import subprocess
from datetime import datetime
from pathlib import Path

from tests.cli.cli_support import write_json

PAGE = Path(__file__).resolve().parents[2] / "docs" / "script-writer.md"
HOME = "/home/analyst"
#: What differs from run to run or from machine to machine.
VARIABLE = [
    (re.compile(r"\b[0-9a-f]{32}\b"), "<md5>"),
    (re.compile(r"(calcamp version: ).*"), r"\1<version>"),
]


def blocks(text):
    """(start, end, commands with their outputs) of every console block."""
    for match in re.finditer(r"```console\n(.*?)```", text, re.S):
        items = []
        for line in match[1].splitlines():
            if line.startswith("$ "):
                items.append([line[2:], []])
            else:
                items[-1][1].append(line)
        yield match.start(1), match.end(1), items


class Shell:
    """Types commands: calcamp in this process, a few tools beside it; nothing else."""

    def __init__(self, calcamp, root):
        self.calcamp, self.root, self.cwd = calcamp, root, root

    def __call__(self, command):
        words = shlex.split(command)
        if words[0] == "cd":
            self.cwd = (self.cwd / words[1].replace(HOME, str(self.root))).resolve()
            return []
        if words[0] == "calcamp":
            done = self.calcamp(*words[1:], cwd=self.cwd)
            text = done.out + done.err
        else:
            assert words[0] in ("ls", "cat", "find", "mkdir", "head", "sort"), words
            files = [
                p for word in words[1:] for p in (sorted(self.cwd.glob(word)) if "*" in word else [word])
            ]
            names = [str(p.relative_to(self.cwd)) if isinstance(p, Path) else p for p in files]
            text = subprocess.run(
                [words[0], *names], cwd=self.cwd, capture_output=True, text=True, check=True
            ).stdout
            text = "\n".join(sorted(text.splitlines())) if words[0] in ("ls", "find") else text
        return [line.rstrip() for line in text.replace(str(self.root), HOME).rstrip("\n").splitlines()]


def shown(lines):
    """Lines with what differs from run to run taken out; a line of ``...`` stands for any number of lines."""
    made = []
    for line in lines:
        for pattern, words in VARIABLE:
            line = pattern.sub(words, line)
        made.append(line)
    return made


def agree(expected, found):
    if "..." not in expected:
        return shown(expected) == shown(found)
    cut = expected.index("...")
    tail = expected[cut + 1 :]
    start = shown(found[:cut]) == shown(expected[:cut])
    return start and (
        not tail or (len(found) >= len(tail) + cut and shown(found[-len(tail) :]) == shown(tail))
    )


def shorten(expected, found):
    """The new output, cut where the page cuts the old one."""
    if "..." not in expected:
        return found
    cut = expected.index("...")
    tail = len(expected) - cut - 1
    return [*found[:cut], "...", *(found[-tail:] if tail else [])]


def stage(root):
    """What the disks hold before the script writer comes, and the results that arrive on the way."""
    (root / "caldata" / "NOSTROMO" / "data").mkdir(parents=True)
    (root / "mssl3m" / "NOSTROMO").mkdir(parents=True)
    focus = [
        {"quantity": "best_focus", "ccd": c, "value": 47.208 + c / 1000, "err": 0.002, "unit": "mm", "n": 20}
        for c in (1, 2, 3)
    ]
    folder = root / "caldata" / "NOSTROMO" / "results_abc" / "D00" / "FOCUS00_800"
    folder.mkdir(parents=True)
    found = {"block": "NOSTROMO", "test": "FOCUS00_800", "session": "D00", "chamber": "B_NOSTROMO"}
    found |= {"status": "complete", "verdict": "pass", "obsids": [17200, 17208], "day_folders": ["02_Apr_19"]}
    found |= {
        "frames": {"declared": 9, "found": 9, "used": 9},
        "flags": [],
        "headline": focus,
        "calcamp_version": "0.1.0",
    }
    found |= {
        "started": "2019-04-02T09:00:00",
        "ended": "2019-04-02T09:04:00",
        "subtasks": {"check": {}, "meta": {}},
    }
    found |= {"script": "vis_CalCamp_FOCUS00_800_01Apr19_v7.5.X.xlsx"}
    write_json(folder / "verdict.json", found)


def test_every_command_of_the_page(calcamp, tmp_path, monkeypatch):
    import calcamp.campaign.profile as profile
    import calcamp.campaign.scripts as writer

    clock = {"now": datetime(2019, 4, 1, 12, 56, 31)}
    monkeypatch.setattr(writer, "now", lambda: clock["now"])
    monkeypatch.setattr(profile, "_user", lambda: "custodian")
    stage(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    renew = os.environ.get("CALCAMP_WRITE_DOCS") == "1"
    shell = Shell(calcamp, tmp_path)
    pieces, last, wrong = [], 0, []
    for start, end, items in blocks(text):
        for date in re.findall(r"<!-- date: (\S+) -->", text[last:start]):
            clock["now"] = datetime.fromisoformat(date)
        for name, content in re.findall(
            r"<!-- file: (\S+) -->\n+```(?:json|yaml)\n(.*?)```", text[last:start], re.S
        ):
            if name.endswith(".json"):
                json.loads(content)
            (shell.cwd / name).write_text(content)
        made = []
        for command, expected in items:
            found = shell(command)
            if not agree(expected, found):
                wrong.append((command, expected, found))
            made += [f"$ {command}", *shorten(expected, found)]
        pieces += [text[last:start], "\n".join(made) + "\n"]
        last = end
    if renew:
        PAGE.write_text("".join(pieces) + text[last:], encoding="utf-8")
        return
    assert not wrong, "\n".join(
        f"$ {c}\n-- the page shows:\n" + "\n".join(e) + "\n-- it prints:\n" + "\n".join(f)
        for c, e, f in wrong
    )
