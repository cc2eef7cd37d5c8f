"""The CI job of the example mesh: it does what it says, and needs nobody's actions but GitHub's own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

AIRLINE = Path(__file__).parents[2] / "examples" / "airline"
WORKFLOW = AIRLINE / ".github" / "workflows" / "check.yml"


def steps() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]["check"]["steps"]
    return found


def test_it_uses_github_s_own_actions_alone_and_fetches_what_it_compares_with() -> None:
    used = [step["uses"].partition("@")[0] for step in steps() if "uses" in step]
    assert used == ["actions/checkout", "actions/setup-python"]
    assert steps()[0]["with"]["fetch-depth"] == 0


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone of a repository that is the example mesh: its main is the clone's origin/main."""
    origin = tmp_path / "origin"
    shutil.copytree(AIRLINE, origin, ignore=shutil.ignore_patterns("__pycache__", ".headrace"))
    for words in (
        ["init", "--quiet", "--initial-branch", "main"],
        ["add", "."],
        ["-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "--message", "the mesh"],
        ["clone", "--quiet", ".", str(tmp_path / "clone")],
    ):
        subprocess.run(["git", *words], cwd=origin, check=True)
    return tmp_path / "clone"


def test_its_command_fails_a_change_that_breaks_somebody(clone: Path) -> None:
    command = steps()[-1]["run"].split()
    assert command[0] == "headrace"
    words = [sys.executable, "-m", "headrace.selfserve.main", *command[1:]]

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, cwd=clone, capture_output=True, text=True, timeout=60, check=False)

    clean = run()
    assert (clean.returncode, clean.stdout) == (0, "")
    schema = clone / "domains" / "fleet" / "aircraft" / "schema.avsc"
    text = schema.read_text(encoding="utf-8")
    assert '"name": "tailnum"' in text
    schema.write_text(text.replace('"name": "tailnum"', '"name": "tail_number"'), encoding="utf-8")
    broken = run()
    assert broken.returncode == 1
    assert "::error file=domains/fleet/aircraft/" in broken.stdout
