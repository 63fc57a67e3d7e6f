"""AWS's DynamoDB Local, from Maven Central: the real engine's rules without an account."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools import engine

SOURCES = engine.ROOT / "tools" / "dynamodb-local"
OLDEST_JAVA = 17


def version() -> str:
    """Return the version that the pom pins."""
    found = re.search(r"<version>(\d+\.\d+\.\d+)</version>", (SOURCES / "pom.xml").read_text())
    if found is None:
        raise engine.EngineError("tools/dynamodb-local/pom.xml pins no version")
    return found[1]


def install() -> Path:
    """Fetch it unless it is installed; returns the folder with its jars."""
    java = engine.require("java", "DynamoDB Local is a Java program")
    compiler = engine.require("javac", "a JDK confines DynamoDB Local to one address")
    java_version = subprocess.run(
        [java, "-version"], capture_output=True, text=True, check=True
    ).stderr
    release = re.search(r'version "(\d+)', java_version)
    if release is None or int(release[1]) < OLDEST_JAVA:
        raise engine.NotRunError(f"Java is older than {OLDEST_JAVA}")
    home = engine.CACHE / f"dynamodb-local-{version()}"
    if home.exists():
        return home
    maven = engine.require("mvn", "DynamoDB Local comes from Maven Central")
    with engine.complete_folder(home) as building:
        engine.fetch(
            [
                maven,
                "--batch-mode",
                "--quiet",
                "--strict-checksums",
                # Otherwise Maven caches a failed download for a day.
                "--update-snapshots",
                f"--file={SOURCES / 'pom.xml'}",
                "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies",
                f"-DoutputDirectory={building}",
            ],
            registry="Maven Central",
        )
        subprocess.run(
            [compiler, "-cp", f"{building}/*", "-d", building, SOURCES / "LoopbackServer.java"],
            check=True,
        )
    return home


@contextmanager
def serve(host: str = "127.0.0.1") -> Iterator[str]:
    """Run it, empty and in memory, within the block; yields its address.

    Every access key and region has a database of its own.
    """
    home = install()
    port = engine.free_port(host)
    command = [
        engine.require("java", "DynamoDB Local is a Java program"),
        "-Xmx512m",
        "-XX:+UseSerialGC",
        f"-Djava.library.path={home}",
        "-cp",
        f"{home}:{home}/*",
        "LoopbackServer",
        host,
        "-inMemory",
        "-disableTelemetry",
        "-port",
        str(port),
    ]
    with engine.running(command, name="dynamodb-local", ready=lambda: engine.listens(host, port)):
        yield f"http://{host}:{port}"
