"""What a check of many products costs: alone, against a ref where nothing differs, and where everything does.

Run it with ``python -m tests.bench.check [PRODUCTS]``. It makes a mesh in a temporary folder and a git repository, and
prints seconds of this process's CPU; git's own are printed beside them. Nothing is asserted, because machines differ.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import tempfile
import time
from pathlib import Path

from headrace.selfserve.checking import checked_mesh
from tests.support.many import write_many


def main() -> None:
    """Make the mesh and measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("products", nargs="?", type=int, default=1000)
    count: int = parser.parse_args().products
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary).resolve()
        write_many(root, count)
        for words in (
            ["init", "--quiet"],
            ["add", "."],
            ["-c", "user.name=b", "-c", "user.email=b@example.org", "commit", "--quiet", "--message", "a mesh"],
        ):
            subprocess.run(["git", *words], cwd=root, check=True)
        measure("files alone", root, None)
        measure("nothing differs", root, "HEAD")
        policy = root / "policies" / "pii.yaml"
        policy.write_text(policy.read_text().replace("replace-with-null", "mask-to-fixed-value"))
        measure("the policy differs", root, "HEAD")
        for schema in root.rglob("schema.avsc"):
            schema.write_text(schema.read_text().replace('"type": "int"', '"type": "string"'))
        measure("every schema differs", root, "HEAD")


def measure(name: str, root: Path, against: str | None) -> None:
    """Check the mesh once and print what it cost."""
    own, children = time.process_time(), resource.getrusage(resource.RUSAGE_CHILDREN)
    checked, _ = checked_mesh(root, None, against)
    own, after = time.process_time() - own, resource.getrusage(resource.RUSAGE_CHILDREN)
    of_git = after.ru_utime + after.ru_stime - children.ru_utime - children.ru_stime
    print(f"{name:22}{own:6.2f} s{of_git:6.2f} s git{len(checked.findings):7,} findings")


if __name__ == "__main__":
    main()
