"""The servers' programs: fetched once into the user's cache, checked against the repository's list at each start.

The list ``artefacts.sha256`` is what is run: the class path is built from it and from nothing else, so a jar that the
list does not name is never loaded, and one whose bytes differ is fetched again or refused. It holds one line for each
file, its path as in a Maven repository, and one that ends in ``/`` for the tree that the registry's archive unpacks to.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs
from jgo.maven import MavenContext, PythonResolver

from headrace.schemas.errors import Bug, Unavailable
from headrace.selfserve.stack.locks import held

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from headrace.selfserve.stack import Progress

KAFKA_VERSION = "4.4.0"
APICURIO_VERSION = "3.3.3"

# Enough to hide the latency of 45 small files, few enough not to be told to slow down.
PARALLEL_DOWNLOADS = 4
REQUEST_TIMEOUT_S = 60
# A first start on a slow line (200 MB at 1 Mbit/s take 27 minutes): a second start waits that long for its downloads.
LOCK_TIMEOUT_S = 1800.0
BIG_BYTES = 20_000_000

Download = Callable[[str, Path, "Progress"], None]
"""Fetches the file of a Maven path into a Maven repository folder. May raise OSError or RuntimeError."""


@dataclass(frozen=True, slots=True)
class Programs:
    """Paths of checked programs."""

    kafka_classpath: tuple[Path, ...]
    registry_home: Path


@dataclass(frozen=True, slots=True)
class Pins:
    """The list: sha256 by Maven path; name and digest of the tree that the one archive among them unpacks to."""

    sha256: Mapping[str, str]
    tree: str
    tree_digest: str

    @property
    def archive(self) -> str:
        """The Maven path of the archive."""
        return next(path for path in self.sha256 if path.endswith(".tar.gz"))

    @property
    def jars(self) -> tuple[str, ...]:
        """The Maven paths of the class path."""
        return tuple(path for path in self.sha256 if path.endswith(".jar"))


class Store:
    """The cache of one user.

    Args:
        folder: where it is; shared by all meshes and versions.
        pins: what has to be there.
        download: how a file is fetched.
    """

    def __init__(self, folder: Path, pins: Pins, download: Download) -> None:
        self._folder = folder
        self._maven = folder / "maven"
        self._pins = pins
        self._download = download

    def fetch(self, progress: Progress) -> Programs:
        """Return the programs, every byte of them checked in this call; what is missing or damaged is fetched again.

        Raises:
            Unavailable: a download failed, or gave other bytes than the list names.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with held(self._folder / "artefacts.lock", LOCK_TIMEOUT_S, "another headrace fills the cache", progress):
            needed = list(self._pins.jars)
            tree = self._folder / self._pins.tree
            has_tree = tree.is_dir() and tree_digest(tree) == self._pins.tree_digest
            if not has_tree:
                needed.append(self._pins.archive)
            self._complete(needed, progress)
            if not has_tree:
                self._unpack(self._maven / self._pins.archive, tree, progress)
        return Programs(tuple(self._maven / path for path in self._pins.jars), tree)

    def _complete(self, paths: Sequence[str], progress: Progress) -> None:
        bad = self._bad(paths)
        if not bad:
            return
        progress(f"fetching {len(bad)} files of Apache Kafka {KAFKA_VERSION} and Apicurio Registry {APICURIO_VERSION}")
        for path in bad:
            # A running server may have the file open: it keeps the old one, because the new one is another file.
            (self._maven / path).unlink(missing_ok=True)
        try:
            with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
                list(pool.map(lambda path: self._download(path, self._maven, progress), bad))
        except (OSError, RuntimeError) as error:
            raise Unavailable(
                f"the servers' programs could not be fetched: {error}",
                where=str(self._maven),
                hint="the first start needs a connection to a Maven repository; what has arrived is kept, so try again",
            ) from error
        still_bad = self._bad(bad)
        if still_bad:
            raise Unavailable(
                f"{still_bad[0]} was fetched and has not the sha256 that this version of headrace lists",
                where=str(self._maven),
                hint="look for a proxy that changes downloads; headrace runs nothing that is not on its list",
            )

    def _bad(self, paths: Sequence[str]) -> list[str]:
        with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
            digests = pool.map(lambda path: file_digest(self._maven / path), paths)
            return [path for path, digest in zip(paths, digests, strict=True) if digest != self._pins.sha256[path]]

    def _unpack(self, archive: Path, tree: Path, progress: Progress) -> None:
        progress(f"unpacking {archive.name}")
        draft = Path(tempfile.mkdtemp(dir=self._folder, prefix=f".{tree.name}."))
        try:
            with tarfile.open(archive) as tar:
                # The safe filter where this Python has it (3.11.4); the archive's sha256 was checked in any case.
                tar.extraction_filter = getattr(tarfile, "data_filter", tar.extraction_filter)
                tar.extractall(draft)  # noqa: S202 - see above
            if tree_digest(draft) != self._pins.tree_digest:
                raise Bug(f"{archive.name} is as listed but does not unpack to the listed tree", where=str(tree))
            if tree.exists():
                shutil.rmtree(tree)
            draft.replace(tree)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def default_store() -> Store:
    """Return the store of this user's cache."""
    return Store(cache_folder(), listed_pins(), download_from_maven)


def cache_folder() -> Path:
    """Return the folder that HEADRACE_CACHE_DIR names, otherwise the platform's folder for this user's caches."""
    named = os.environ.get("HEADRACE_CACHE_DIR") or platformdirs.user_cache_dir("headrace")
    return Path(named).expanduser().resolve()


def listed_pins() -> Pins:
    """Return the repository's list."""
    return parse_pins(files(__package__).joinpath("artefacts.sha256").read_text(encoding="utf-8"))


def parse_pins(text: str) -> Pins:
    """Read the list: lines of a sha256, two spaces and a path; ``#`` starts a comment line."""
    lines = [line.split("  ", 1) for line in text.splitlines() if line and not line.startswith("#")]
    entries = {path: digest for digest, path in lines}
    (tree,) = (path for path in entries if path.endswith("/"))
    return Pins({path: entries[path] for path in entries if path != tree}, tree.rstrip("/"), entries[tree])


def file_digest(path: Path) -> str | None:
    """Return a file's sha256, None if it is no readable file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def tree_digest(folder: Path) -> str:
    """Return one sha256 over the names and contents of all files below a folder; a link counts as a changed file."""
    paths = sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
        digests = pool.map(lambda path: "link" if path.is_symlink() else file_digest(path), paths)
        lines = [
            f"{digest}  {path.relative_to(folder).as_posix()}\n" for path, digest in zip(paths, digests, strict=True)
        ]
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def download_from_maven(path: str, repository: Path, progress: Progress) -> None:
    """Fetch one file with jgo, which writes it to its place in the repository folder and may leave half of it there."""
    *group, artifact, version, name = path.split("/")
    rest = name.removeprefix(f"{artifact}-{version}")
    classifier, _, packaging = rest.removeprefix("-").partition(".")
    context = MavenContext(
        resolver=PythonResolver(progress_callback=_big_file_progress(progress)),
        repo_cache=repository,
        timeout=REQUEST_TIMEOUT_S,
    )
    component = context.project(".".join(group), artifact).at_version(version)
    component.artifact(classifier, packaging).resolve()


def _big_file_progress(progress: Progress) -> Callable[[str, int], AbstractContextManager[Callable[[int], None]]]:
    @contextmanager
    def reporter(name: str, total_bytes: int) -> Iterator[Callable[[int], None]]:
        done_bytes = 0

        def update(count: int) -> None:
            nonlocal done_bytes
            before, done_bytes = done_bytes, done_bytes + count
            fifth = total_bytes // 5
            if total_bytes >= BIG_BYTES and before // fifth != done_bytes // fifth:
                progress(f"  {name}: {done_bytes / 1e6:.0f} of {total_bytes / 1e6:.0f} MB")

        yield update

    return reporter
