"""The Docker engine, and the image that `sam local` needs."""

from __future__ import annotations

import ipaddress
import json
import platform
import socket
import subprocess
import sys

from tools import engine

SAM_PYTHON = engine.CACHE / "sam" / "bin" / "python"
RUNTIME = f"python{sys.version_info.major}.{sys.version_info.minor}"
ARCHITECTURE = "arm64" if platform.machine() in {"aarch64", "arm64"} else "x86_64"


def install() -> None:
    """Fetch Lambda's base image for this Python version unless it is present.

    Raises
    ------
    NotRunError
        There is no engine, its containers can't reach this machine, or the image is unavailable.
    """
    bridge_address()
    imported = "from samcli.local.docker.lambda_image import LambdaImage as i;"
    result = subprocess.run(
        [SAM_PYTHON, "-c", f"{imported} print(i._INVOKE_REPO_PREFIX)"],
        capture_output=True,
        text=True,
        check=True,
    )
    tag = f"{RUNTIME.removeprefix('python')}-{ARCHITECTURE}"
    image = f"{result.stdout.strip()}/python:{tag}"
    docker = _docker()
    known = subprocess.run([docker, "image", "inspect", image], capture_output=True, check=False)
    if known.returncode:
        engine.fetch([docker, "pull", "--quiet", image], registry="the registry of Lambda's images")


def bridge_address() -> str:
    """Return the address at which containers reach this machine.

    Raises
    ------
    NotRunError
        No Docker engine is running, or its containers run on another machine.
    """
    docker = _docker()
    if subprocess.run([docker, "info"], capture_output=True, check=False).returncode:
        raise engine.NotRunError("no Docker engine is running")
    seen = subprocess.run(
        [docker, "network", "inspect", "bridge"], capture_output=True, text=True, check=True
    )
    (config,) = json.loads(seen.stdout)[0]["IPAM"]["Config"]
    first = str(next(ipaddress.ip_network(config["Subnet"]).hosts()))
    address: str = config.get("Gateway", first)
    try:
        socket.create_server((address, 0)).close()
    except OSError as why:
        raise engine.NotRunError(f"containers can't reach this machine at {address}") from why
    return address


def _docker() -> str:
    return engine.require("docker", "sam local runs functions in containers")
