"""Style as tests: where things stand, what may import what, how long things are, and what no file may say."""

from __future__ import annotations

import ast
import re
import warnings
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("schemas", "streams", "producers", "sinks", "governance", "selfserve")
CODE = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
EXAMPLES = sorted((ROOT / "examples").rglob("*.py"))
PYTHON = [*CODE, *TESTS, *EXAMPLES]
# Files that stay near 300 lines read at one sitting; over 600 nobody reads one.
NEAR_LINES, MOST_LINES, MOST_FUNCTION_LINES, MOST_PARAMETERS = 320, 600, 70, 6
PURE = (
    "governance/docket.py",
    "governance/marks.py",
    "governance/observing.py",
    "governance/proof.py",
    "governance/rules.py",
    "governance/windows.py",
    "producers/unions.py",
    "schemas/arrow_types.py",
    "schemas/avro.py",
    "schemas/changes.py",
    "schemas/compatibility/__init__.py",
    "schemas/compatibility/contracts.py",
    "schemas/compatibility/findings.py",
    "schemas/compatibility/graph.py",
    "schemas/compatibility/logical.py",
    "schemas/compatibility/pairs.py",
    "schemas/compatibility/resolution.py",
    "schemas/compatibility/table.py",
    "schemas/compatibility/tags.py",
    "schemas/compatibility/versions.py",
    "schemas/contract_layout.py",
    "schemas/contract_settings.py",
    "schemas/defaults.py",
    "schemas/durations.py",
    "schemas/errors.py",
    "schemas/evolution.py",
    "schemas/lineage.py",
    "schemas/mask_lineage.py",
    "schemas/masking.py",
    "schemas/masks.py",
    "schemas/matching.py",
    "schemas/names.py",
    "schemas/own_columns.py",
    "schemas/paths.py",
    "schemas/plain.py",
    "schemas/product.py",
    "schemas/registered.py",
    "schemas/shapes.py",
    "schemas/structs.py",
    "schemas/structure.py",
    "schemas/table_layout.py",
    "schemas/transforms.py",
    "schemas/types.py",
    "schemas/upkeep.py",
    "schemas/upkeep_settings.py",
    "schemas/verdicts.py",
    "selfserve/blanks.py",
    "selfserve/exports/addresses.py",
    "selfserve/exports/asyncapi.py",
    "selfserve/exports/markdown.py",
    "selfserve/exports/odcs.py",
    "selfserve/exports/yaml_text.py",
    "selfserve/kinds.py",
    "selfserve/lineage/columns.py",
    "selfserve/lineage/events.py",
    "selfserve/resources/difference.py",
    "selfserve/resources/following.py",
    "selfserve/resources/foreign.py",
    "selfserve/resources/verdict.py",
    "sinks/batch.py",
    "sinks/dead_letters/message.py",
    "sinks/dead_letters/redriving.py",
    "sinks/kept.py",
    "sinks/partitioning.py",
    "sinks/past_snapshots.py",
    "sinks/past_topics.py",
    "sinks/replay/boundary.py",
    "sinks/share.py",
    "sinks/stops.py",
    "sinks/upkeep/small_files.py",
    "sinks/upkeep/tiers.py",
    "sinks/watermark.py",
    "streams/branches.py",
    "streams/columns.py",
    "streams/frames.py",
    "streams/leaf_values.py",
    "streams/ledger.py",
    "streams/naming.py",
    "streams/portions.py",
    "streams/resolution.py",
    "streams/starts.py",
    "streams/storable.py",
    "streams/symbols.py",
    "streams/walk.py",
)
# Kafka, HTTP, clock, files and randomness: what an edge may touch and a core may not.
BANNED = {
    "confluent_kafka",
    "requests",
    "httpx",
    "urllib",
    "socket",
    "subprocess",
    "threading",
    "time",
    "os",
    "io",
    "pathlib",
    "shutil",
    "tempfile",
    "random",
    "secrets",
}
# Files that people read or that are run, besides Python.
TEXTS = (
    "*.md",
    "*.yml",
    "*.yaml",
    "*.toml",
    "*.txt",
    "*.cfg",
    "Makefile",
    "*.sh",
    "*.avsc",
    "*.properties",
    "*.sha256",
)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: Path) -> set[str]:
    """Every module that a file imports, with all its dots; relative imports as they are written."""
    found: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." * node.level + (node.module or ""))
    return found


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def test_there_is_something_to_look_at() -> None:
    assert len(CODE) > 40
    assert all((ROOT / name).is_file() for name in PURE)


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_folder_is_linked_into_the_package(folder: str) -> None:
    link = ROOT / "src" / "headrace" / folder
    assert link.is_symlink()
    assert str(link.readlink()) == f"../../{folder}"
    assert link.resolve() == ROOT / folder
    assert (ROOT / folder / "__init__.py").is_file()


def test_the_package_holds_nothing_else() -> None:
    found = {path.name for path in (ROOT / "src" / "headrace").iterdir() if path.name != "__pycache__"}
    assert found == {*FOLDERS, "__init__.py", "py.typed"}


@pytest.mark.parametrize("path", PYTHON, ids=relative)
def test_everything_is_imported_as_headrace(path: Path) -> None:
    """A service that installs the library must not find packages called ``schemas`` or ``sinks``."""
    wrong = {name for name in imports(path) if name.partition(".")[0] in FOLDERS or name.startswith(".")}
    assert not wrong


@pytest.mark.parametrize("path", PYTHON, ids=relative)
def test_no_file_is_too_long(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= MOST_LINES
    if lines > NEAR_LINES and path in CODE:
        warnings.warn(f"{relative(path)} has {lines} lines: split it by noun", stacklevel=1)


@pytest.mark.parametrize("path", PYTHON, ids=relative)
def test_no_function_is_too_long_or_takes_too_much(path: Path) -> None:
    for function in functions(path):
        length = (function.end_lineno or 0) - function.lineno + 1
        given = function.args
        names = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
        taken = [name for name in names if name not in ("self", "cls")]
        assert length <= MOST_FUNCTION_LINES, f"{function.name} has {length} lines"
        assert len(taken) <= MOST_PARAMETERS, f"{function.name} takes {len(taken)} parameters"


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_touch_nothing(name: str) -> None:
    path = ROOT / name
    roots = {module.partition(".")[0] for module in imports(path)}
    assert not roots & BANNED
    assert not any(module.startswith(("pyiceberg.catalog", "pyiceberg.io")) for module in imports(path))
    calls = {node.attr for node in ast.walk(tree_of(path)) if isinstance(node, ast.Attribute)}
    assert not calls & {"now", "utcnow", "today", "urandom"}


@pytest.mark.parametrize("path", [path for path in CODE if not relative(path).startswith("selfserve/")], ids=relative)
def test_only_the_command_line_prints_or_exits(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"print", "exit", "quit", "input", "breakpoint"}, f"line {node.lineno}"
    assert "sys.exit" not in path.read_text()


@pytest.mark.parametrize("path", TESTS, ids=relative)
def test_no_test_sleeps_a_fixed_time(path: Path) -> None:
    """Waiting is polling with a deadline: a sleep stands in a loop, and is short."""
    loops = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.While | ast.For)]
    polled = {call for loop in loops for call in ast.walk(loop)}
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "sleep":
            assert node in polled, f"line {node.lineno}"


def texts() -> list[Path]:
    skipped = {
        ".git",
        ".venv",
        ".headrace",
        "__pycache__",
        ".mypy_cache",
        ".ruff_cache",
        ".pytest_cache",
        ".hypothesis",
    }
    found = {path for pattern in TEXTS for path in ROOT.rglob(pattern)}
    return sorted(path for path in found if path.is_file() and not skipped & set(path.relative_to(ROOT).parts))


# Written so that this file does not find itself.
MACHINE_PATHS = re.compile(r"(?<![\w$}.-])/(?:work|tmp|root|home/\w+)/")
REGISTRIES = re.compile(
    r"\b(?:files\.python"
    r"hosted\.org|py"
    r"pi\.org|repo1?\.ma"
    r"ven|ma"
    r"ven\.org|proxy\.go"
    r"lang\.org|registry\.npm"
    r"js)"
)


@pytest.mark.parametrize("path", [*PYTHON, *texts()], ids=relative)
def test_no_file_speaks_of_one_machine_or_of_a_registry(path: Path) -> None:
    text = path.read_text()
    for pattern in (MACHINE_PATHS, REGISTRIES):
        found = [text.count("\n", 0, match.start()) + 1 for match in pattern.finditer(text)]
        assert not found, f"lines {found}"


@pytest.mark.parametrize("path", PYTHON, ids=relative)
def test_a_file_says_what_it_is_for(path: Path) -> None:
    if path.read_text():
        assert ast.get_docstring(tree_of(path))
