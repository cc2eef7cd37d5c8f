"""Programs are run from the list alone: whatever is missing or differs is fetched again or refused."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from headrace.schemas.errors import Bug, Unavailable
from headrace.selfserve.stack.artefacts import (
    APICURIO_VERSION,
    KAFKA_VERSION,
    Pins,
    Store,
    cache_folder,
    listed_pins,
    tree_digest,
)

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.selfserve.stack import Progress

JAR = "org/one/one/1.0/one-1.0.jar"
OTHER = "org/two/two/1.0/two-1.0.jar"
ARCHIVE = "io/app/app/1.0/app-1.0-all.tar.gz"


def archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in (("run.jar", b"run"), ("lib/deep.jar", b"deep")):
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text))
    return buffer.getvalue()


class Repository:
    """A Maven repository of three files that can lose its connection or serve something else a number of times."""

    def __init__(self) -> None:
        self.files = {JAR: b"first", OTHER: b"second", ARCHIVE: archive()}
        self.asked: Counter[str] = Counter()
        self.altered: set[str] = set()
        self.down = False

    def pins(self, scratch: Path) -> Pins:
        (scratch / "lib").mkdir(parents=True)
        (scratch / "run.jar").write_bytes(b"run")
        (scratch / "lib" / "deep.jar").write_bytes(b"deep")
        sha256 = {path: hashlib.sha256(content).hexdigest() for path, content in self.files.items()}
        return Pins(sha256, "app-1.0", tree_digest(scratch))

    def download(self, path: str, folder: Path, progress: Progress) -> None:
        self.asked[path] += 1
        target = folder / path
        assert not target.exists()
        target.parent.mkdir(parents=True, exist_ok=True)
        if self.down:
            target.write_bytes(self.files[path][:2])
            raise ConnectionResetError("the line is dead")
        target.write_bytes(b"altered" if path in self.altered else self.files[path])


@pytest.fixture
def repository() -> Repository:
    return Repository()


@pytest.fixture
def store(repository: Repository, tmp_path: Path) -> Store:
    return Store(tmp_path / "cache", repository.pins(tmp_path / "scratch"), repository.download)


def ignore(line: str) -> None:
    """Take a line of progress."""


def test_everything_is_fetched_once(store: Store, repository: Repository, tmp_path: Path) -> None:
    programs = store.fetch(ignore)
    assert programs == store.fetch(ignore)
    assert repository.asked == Counter([JAR, OTHER, ARCHIVE])
    assert programs.kafka_classpath == (tmp_path / "cache/maven" / JAR, tmp_path / "cache/maven" / OTHER)
    assert (programs.registry_home / "lib" / "deep.jar").read_bytes() == b"deep"


def test_a_damaged_file_is_fetched_again_and_nothing_is_written_into_it(store: Store, repository: Repository) -> None:
    jar = store.fetch(ignore).kafka_classpath[0]
    with jar.open("rb") as running:
        jar.unlink()
        jar.write_bytes(b"fir")
        damaged = jar.open("rb")
        store.fetch(ignore)
        assert (damaged.read(), running.read(), jar.read_bytes()) == (b"fir", b"first", b"first")
        damaged.close()
    assert repository.asked == Counter([JAR, JAR, OTHER, ARCHIVE])


def test_a_file_that_comes_altered_is_refused(store: Store, repository: Repository) -> None:
    repository.altered = {OTHER}
    with pytest.raises(Unavailable, match=r"two-1\.0\.jar was fetched and has not the sha256"):
        store.fetch(ignore)
    repository.altered = set()
    store.fetch(ignore)
    assert repository.asked == Counter([JAR, OTHER, OTHER, ARCHIVE])


def test_a_broken_line_is_an_error_with_a_next_step_and_the_next_start_goes_on(
    store: Store, repository: Repository
) -> None:
    repository.down = True
    with pytest.raises(Unavailable, match="the line is dead") as failure:
        store.fetch(ignore)
    assert failure.value.hint
    repository.down = False
    store.fetch(ignore)


@pytest.mark.parametrize("change", ["alter", "add", "remove", "link"])
def test_a_tree_that_differs_is_unpacked_again(store: Store, repository: Repository, change: str) -> None:
    home = store.fetch(ignore).registry_home
    if change == "alter":
        (home / "lib" / "deep.jar").write_bytes(b"DEEP")
    elif change == "add":
        (home / "lib" / "more.jar").write_bytes(b"more")
    elif change == "remove":
        (home / "run.jar").unlink()
    else:
        (home / "run.jar").unlink()
        (home / "run.jar").symlink_to(home / "lib" / "deep.jar")
    store.fetch(ignore)
    found = {path.relative_to(home).as_posix(): path.read_bytes() for path in home.rglob("*") if path.is_file()}
    assert found == {"run.jar": b"run", "lib/deep.jar": b"deep"}
    assert not (home / "run.jar").is_symlink()
    assert repository.asked[ARCHIVE] == 1
    assert [path.name for path in home.parent.iterdir() if path.name.startswith(".")] == []


def test_a_list_that_contradicts_itself_is_a_bug(repository: Repository, tmp_path: Path) -> None:
    pins = repository.pins(tmp_path / "scratch")
    wrong = Store(tmp_path / "cache", Pins(pins.sha256, pins.tree, "0" * 64), repository.download)
    with pytest.raises(Bug, match="does not unpack to the listed tree"):
        wrong.fetch(ignore)


def test_the_list_names_what_the_code_runs() -> None:
    pins = listed_pins()
    assert len(pins.jars) == 45
    assert f"org/apache/kafka/kafka_2.13/{KAFKA_VERSION}/kafka_2.13-{KAFKA_VERSION}.jar" in pins.jars
    # Of all clients that the resolver may find, the broker's own.
    assert f"org/apache/kafka/kafka-clients/{KAFKA_VERSION}/kafka-clients-{KAFKA_VERSION}.jar" in pins.jars
    assert pins.archive.endswith(f"-{APICURIO_VERSION}-all.tar.gz")
    assert pins.tree == f"apicurio-registry-app-{APICURIO_VERSION}"
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in [*pins.sha256.values(), pins.tree_digest])


def test_the_cache_is_the_folder_that_the_variable_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_CACHE_DIR", str(tmp_path / "elsewhere"))
    assert cache_folder() == tmp_path / "elsewhere"
    monkeypatch.delenv("HEADRACE_CACHE_DIR")
    assert cache_folder().name == "headrace"
