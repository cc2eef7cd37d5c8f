"""A folder's files as a git ref has them, by git's plumbing: nothing of the user's working tree is touched."""

from __future__ import annotations

import hashlib
import os
import posixpath
import subprocess
from bisect import bisect_left
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from headrace.schemas.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["GitFolder", "GitReader", "repository_of"]

# A hook's git names its own repository in these, relative to its own folder.
_OF_A_HOOK = frozenset(
    {
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
        "GIT_COMMON_DIR",
        "GIT_DIR",
        "GIT_INDEX_FILE",
        "GIT_NAMESPACE",
        "GIT_OBJECT_DIRECTORY",
        "GIT_PREFIX",
        "GIT_SHALLOW_FILE",
        "GIT_WORK_TREE",
    }
)
_SHA1_DIGITS = 40
_FILES, _LINK = frozenset({"100644", "100755"}), "120000"
# A link's target is a path, and no system has longer ones.
_MAX_TARGET_BYTES = 4096
# Links through links: as many as Linux follows. Files that are seen through links: a limit on everything.
_MAX_HOPS, _MAX_LINKED = 40, 100_000


@dataclass(frozen=True, slots=True)
class GitFolder:
    """A folder at a ref. Two processes of git, however many files: one lists, one reads; one more where links are.

    Attributes:
        root: the folder in the working tree.
        ref: the ref.
        blobs: the object ids of its files by path relative to the folder, files that are seen through links among
            them, as long as those stay in the folder; submodules are not.
    """

    root: Path
    ref: str
    blobs: Mapping[str, str]

    @classmethod
    def at(cls, root: Path, ref: str) -> GitFolder:
        """List a folder's files at a ref; none, if the ref does not have the folder.

        Raises:
            UserError: if there is no git, the folder is in no repository, or the ref does not exist there.
        """
        if not ref.strip():
            raise UserError("no ref was named", hint="name a branch, tag or commit, such as origin/main")
        # Their sizes would be told too, but a clone without blobs would fetch each of them for that.
        listed = _git(root, "ls-tree", "-r", "-z", "--end-of-options", f"{ref}^{{commit}}", ".")
        if listed.returncode != 0:
            raise _refused(root, ref, listed.stderr.decode(errors="replace").strip())
        blobs: dict[str, str] = {}
        links: dict[str, str] = {}
        for line in listed.stdout.split(b"\0"):
            attributes, _, name = line.partition(b"\t")
            if not name:
                continue
            mode, _, oid = attributes.decode("ascii").split()
            if mode in _FILES:
                blobs[os.fsdecode(name)] = oid
            elif mode == _LINK:
                links[os.fsdecode(name)] = oid
        if links:
            with cls(root, ref, links).reading() as git:
                targets = {path: os.fsdecode(git.read(path, _MAX_TARGET_BYTES)) for path in links}
            blobs |= _linked(blobs, targets, ref)
        return cls(root, ref, blobs)

    def holds(self, path: str, data: bytes) -> bool:
        """Tell whether these bytes are a file's. Git may keep other line ends than the working tree has."""
        oid = self.blobs[path]
        # Git names a file by this hash: no secret depends on it.
        make = hashlib.sha1 if len(oid) == _SHA1_DIGITS else hashlib.sha256
        return make(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest() == oid

    @contextmanager
    def reading(self) -> Iterator[GitReader]:
        """Yield what reads the files, one process of git for all of them."""
        with _started(self.root, "cat-file", "--batch") as process:
            assert process.stdin is not None
            assert process.stdout is not None
            yield GitReader(self, process.stdin, process.stdout)

    def unchecked(self) -> frozenset[str]:
        """Return the paths of files that a sparse checkout leaves out of the working tree."""
        listed = _git(self.root, "ls-files", "-t", "-z").stdout.split(b"\0")
        return frozenset(os.fsdecode(line[2:]) for line in listed if line.startswith(b"S "))


@dataclass(frozen=True, slots=True)
class GitReader:
    """Reads files of a folder at a ref; `GitFolder.reading` makes it."""

    folder: GitFolder
    asked: IO[bytes]
    told: IO[bytes]

    def read(self, path: str, limit: int) -> bytes:
        """Return a file's contents, at most one byte more than the limit; of what is larger, no more is kept.

        Raises:
            UserError: if git cannot read it.
        """
        oid = self.folder.blobs[path]
        try:
            self.asked.write(f"{oid}\n".encode("ascii"))
            self.asked.flush()
        except BrokenPipeError:
            raise self._lost(path) from None
        # An object's line is "<id> blob <size>", or "<id> missing"; a line end stands behind its contents.
        parts = self.told.readline(_HEAD_BYTES).split()
        if len(parts) != _HEAD_PARTS or parts[0].decode("ascii", "replace") != oid:
            raise self._lost(path)
        size = int(parts[2])
        data = self.told.read(min(size, limit + 1))
        rest = size + 1 - len(data)
        while rest > 0 and (passed := self.told.read(min(rest, _PIECE_BYTES))):
            rest -= len(passed)
        return data

    def _lost(self, path: str) -> UserError:
        return UserError(
            f"git cannot read {path} at {self.folder.ref}", where=str(self.folder.root), hint="run: git fsck"
        )


# An object id of 64 digits, the word blob, a size, and the spaces between.
_HEAD_BYTES, _HEAD_PARTS = 100, 3
_PIECE_BYTES = 1 << 20


def repository_of(folder: Path) -> Path | None:
    """Return the top of the repository that a folder lies in, None if it lies in none."""
    return next((each for each in (folder, *folder.parents) if (each / ".git").exists()), None)


def _linked(blobs: Mapping[str, str], targets: Mapping[str, str], ref: str) -> dict[str, str]:
    """Return the files that are seen through links: object ids by path.

    Args:
        blobs: the files that are there themselves.
        targets: where each link leads, by its path.
        ref: the ref, for the error.

    Raises:
        UserError: if they are more than a mesh can have.
    """
    leads = {link: posixpath.normpath(posixpath.join(posixpath.dirname(link), text)) for link, text in targets.items()}
    found: dict[str, str] = {}
    for _ in range(_MAX_HOPS):
        seen = {**blobs, **found}
        paths = sorted(seen)
        before = len(found)
        for link, target in leads.items():
            # A link to a folder above itself shows that folder without end.
            if target != "." and not f"{link}/".startswith(f"{target}/"):
                found |= {link + path[len(target) :]: seen[path] for path in _at_or_below(paths, target)}
            if len(found) > _MAX_LINKED:
                raise UserError(f"links at {ref} show more than {_MAX_LINKED:,} files", hint="remove some of the links")
        if len(found) == before:
            break
    return found


def _at_or_below(paths: Sequence[str], target: str) -> Iterator[str]:
    """Yield the path itself and those below it, out of sorted ones."""
    at = bisect_left(paths, target)
    if paths[at : at + 1] == [target]:
        yield target
    for number in range(bisect_left(paths, f"{target}/"), len(paths)):
        if not paths[number].startswith(f"{target}/"):
            return
        yield paths[number]


def _git(root: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    with _started(root, *arguments) as process:
        out, error = process.communicate()
    return subprocess.CompletedProcess(arguments, process.returncode, out, error)


def _started(root: Path, *arguments: str) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            ["git", *arguments],
            cwd=root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if arguments[0] != "cat-file" else subprocess.DEVNULL,
            env=_environment(),
        )
    except FileNotFoundError:
        raise UserError(
            "there is no git on this machine", where=str(root), hint="install git, or compare with --against live"
        ) from None


def _environment() -> dict[str, str]:
    """Return what git is told besides its arguments."""
    kept = {name: value for name, value in os.environ.items() if name not in _OF_A_HOOK}
    given = kept.get("GIT_CONFIG_COUNT", "")
    number = int(given) if given.isdecimal() else 0
    return {
        **kept,
        # Its messages tell what is wrong: they must not be translated. Nobody is there to type a password.
        "LC_ALL": "C",
        "GIT_TERMINAL_PROMPT": "0",
        # Files of a mesh can form a bare repository, and a repository's settings can name programs that git runs: who
        # checks somebody's mesh has not asked for those.
        "GIT_CONFIG_COUNT": str(number + 1),
        f"GIT_CONFIG_KEY_{number}": "safe.bareRepository",
        f"GIT_CONFIG_VALUE_{number}": "explicit",
    }


def _refused(root: Path, ref: str, said: str) -> UserError:
    if "not a git repository" in said or "cannot use bare repository" in said:
        return UserError("the mesh lies in no git repository", where=str(root), hint="run: git init, and commit it")
    if "Not a valid object name" in said or "not a tree object" in said:
        return UserError(
            f"git knows no {ref} here",
            where=str(root),
            hint="fetch it: git fetch origin; in a CI job, check out with the whole history (fetch-depth: 0)",
        )
    return UserError(
        f"git refuses: {said.removeprefix('fatal: ').splitlines()[0] if said else 'no reason'}", where=str(root)
    )
