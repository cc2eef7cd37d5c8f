"""A folder's files as a git ref has them, by git's plumbing: nothing of the user's working tree is touched."""

from __future__ import annotations

import hashlib
import os
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.schemas.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["GitFolder", "repository_of"]

# A hook's git names its own repository in these, relative to its own folder.
_OF_A_HOOK = frozenset({"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR"})
_SHA1_DIGITS = 40
_FILES = frozenset({"100644", "100755"})


@dataclass(frozen=True, slots=True)
class GitFolder:
    """A folder at a ref. Two processes of git at most, however many files: one lists, one reads.

    Attributes:
        root: the folder in the working tree.
        ref: the ref.
        blobs: the object ids of its files by path relative to the folder; links and submodules are not among them.
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
        # Their sizes would be told too, but a clone without blobs would fetch each of them for that.
        listed = _git(root, "ls-tree", "-r", "-z", "--end-of-options", ref, ".")
        if listed.returncode != 0:
            raise _refused(root, ref, listed.stderr.decode(errors="replace").strip())
        blobs: dict[str, str] = {}
        for line in listed.stdout.split(b"\0"):
            attributes, _, name = line.partition(b"\t")
            if name and (parts := attributes.decode("ascii").split())[0] in _FILES:
                blobs[os.fsdecode(name)] = parts[2]
        return cls(root, ref, blobs)

    def holds(self, path: str, data: bytes) -> bool:
        """Tell whether these bytes are a file's. Git may keep other line ends than the working tree has."""
        oid = self.blobs[path]
        # Git names a file by this hash: no secret depends on it.
        make = hashlib.sha1 if len(oid) == _SHA1_DIGITS else hashlib.sha256
        return make(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest() == oid

    def read(self, paths: Sequence[str], limit: int) -> dict[str, bytes]:
        """Return the contents of files, of each at most one byte more than the limit.

        Raises:
            UserError: if git cannot read one of them.
        """
        contents: dict[str, bytes] = {}
        if not paths:
            return contents
        asked = "".join(f"{self.blobs[path]}\n" for path in paths).encode("ascii")
        rest = memoryview(_git(self.root, "cat-file", "--batch", stdin=asked).stdout)
        for path in paths:
            # An object's line is "<id> blob <size>", or "<id> missing"; a line end stands behind its contents.
            head = bytes(rest[:_HEAD_BYTES]).partition(b"\n")[0]
            parts = head.split()
            if len(parts) != _HEAD_PARTS or parts[0].decode("ascii", "replace") != self.blobs[path]:
                raise UserError(f"git cannot read {path} at {self.ref}", where=str(self.root), hint="run: git fsck")
            start, size = len(head) + 1, int(parts[2])
            contents[path] = bytes(rest[start : start + min(size, limit + 1)])
            rest = rest[start + size + 1 :]
        return contents


# An object id of 64 digits, the word blob, a size, and the spaces between.
_HEAD_BYTES, _HEAD_PARTS = 100, 3


def repository_of(folder: Path) -> Path | None:
    """Return the top of the repository that a folder lies in, None if it lies in none."""
    return next((each for each in (folder, *folder.parents) if (each / ".git").exists()), None)


def _git(root: Path, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    environment = {name: value for name, value in os.environ.items() if name not in _OF_A_HOOK}
    try:
        return subprocess.run(
            ["git", *arguments],
            cwd=root,
            input=stdin,
            capture_output=True,
            check=False,
            # Its messages tell what is wrong: they must not be translated.
            env={**environment, "LC_ALL": "C"},
        )
    except FileNotFoundError:
        raise UserError(
            "there is no git on this machine", where=str(root), hint="install git, or compare with --against live"
        ) from None


def _refused(root: Path, ref: str, said: str) -> UserError:
    if "not a git repository" in said:
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
