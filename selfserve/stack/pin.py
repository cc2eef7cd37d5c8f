"""Write the list of programs anew, after a version in ``artefacts.py`` was changed.

``python -m headrace.selfserve.stack.pin > selfserve/stack/artefacts.sha256``, then read the difference: it trusts what
the Maven repository answers today, every later start trusts only the list.
"""

from __future__ import annotations

import sys
import tarfile
import tempfile
from pathlib import Path

from jgo.env import EnvironmentBuilder, LinkStrategy
from jgo.maven import MavenContext, PythonResolver

from headrace.selfserve.stack.artefacts import (
    APICURIO_VERSION,
    KAFKA_VERSION,
    REQUEST_TIMEOUT_S,
    file_digest,
    tree_digest,
)

LOG4J_VERSION = "2.25.5"
# The last mark takes the versions that Kafka was built with; without it jgo takes the oldest kafka-clients it meets.
ENDPOINT = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}+org.apache.logging.log4j:log4j-slf4j-impl:{LOG4J_VERSION}!"


def main(folder: Path) -> str:
    """Resolve both programs into an empty folder and return the text of the list."""
    maven = folder / "maven"
    context = MavenContext(resolver=PythonResolver(), repo_cache=maven, timeout=REQUEST_TIMEOUT_S)
    builder = EnvironmentBuilder(context=context, cache_dir=folder / "envs", link_strategy=LinkStrategy.HARD)
    jars = {path.name for path in builder.from_endpoint(ENDPOINT).all_jars}
    project = context.project("io.apicurio", "apicurio-registry-app").at_version(APICURIO_VERSION)
    archive = project.artifact("all", "tar.gz").resolve()
    tree = folder / f"apicurio-registry-app-{APICURIO_VERSION}"
    with tarfile.open(archive) as tar:
        tar.extractall(tree)  # noqa: S202 - into an empty folder, by a maintainer
    paths = sorted(path for path in maven.rglob("*.jar") if path.name in jars)
    if len(paths) != len(jars):
        raise SystemExit(f"{len(jars)} jars were resolved and {len(paths)} are in the repository folder")
    lines = [f"{file_digest(path)}  {path.relative_to(maven).as_posix()}" for path in [*paths, archive]]
    heading = (
        f"# Apache Kafka {KAFKA_VERSION} and Apicurio Registry {APICURIO_VERSION}, written by pin.py: sha256 and path"
    )
    return "\n".join([heading, *lines, f"{tree_digest(tree)}  {tree.name}/", ""])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        sys.stdout.write(main(Path(scratch)))
