"""`make sam-local-invoke` and `make sam-local-start-api`: run `sam local` with the local cloud.

`sam local` runs the functions in Lambda's own container. By itself, it gives them no AWS, no
Stripe, and no names of the table and the secrets. Here they get those of the cloud that
`make serve` runs.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from urllib.parse import urlsplit

import yaml
from botocore.exceptions import BotoCoreError, ClientError

from local.cloud import SAM, CloudError, program, sam_build, sam_environment, work_folder
from local.invoke import UsageError, event_for
from local.running import FUNCTIONS, RunningCloud, logical_id, running_cloud
from tools import docker_engine, engine

CHUNK_BYTES = 65_536


class Relay(ThreadingTCPServer):
    """Forwards connections from an address of Docker's bridge to a server on this machine.

    A container can't reach the loopback interface, on which the local cloud listens. Only
    this machine and its containers reach the bridge.

    Parameters
    ----------
    host : str
        The address to listen on, on a free port.
    target : tuple of str and int
        Host and port of the server.
    """

    daemon_threads = True

    def __init__(self, host: str, target: tuple[str, int]) -> None:
        self.target = target
        super().__init__((host, 0), RelayedConnection)

    @property
    def url(self) -> str:
        """The base URL for containers."""
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}"


class RelayedConnection(BaseRequestHandler):
    """One connection to the relay."""

    server: Relay

    def handle(self) -> None:
        """Copy in both directions until both ends have closed; at once if the server is gone."""
        with (
            suppress(ConnectionRefusedError),
            socket.create_connection(self.server.target) as upstream,
        ):
            back = threading.Thread(target=copy, args=(upstream, self.request))
            back.start()
            copy(self.request, upstream)
            back.join()


LONGEST_TIMEOUT = 300
"""The longest timeout of a function, in seconds."""


def copy(source: socket.socket, target: socket.socket) -> None:
    """Send what arrives from one socket to another, until the end."""
    with suppress(OSError):
        while received := source.recv(CHUNK_BYTES):
            target.sendall(received)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextmanager
def relayed(host: str, urls: Sequence[str]) -> Iterator[dict[str, str]]:
    """Forward connections to servers on this machine; yields the URL of each for containers."""
    with ExitStack() as running:
        forwarded = {}
        for url in urls:
            parts = urlsplit(url)
            relay = running.enter_context(Relay(host, (str(parts.hostname), int(parts.port or 80))))
            threading.Thread(target=relay.serve_forever, args=(0.05,), daemon=True).start()
            running.callback(relay.shutdown)
            forwarded[url] = relay.url
        yield forwarded


def local_urls(cloud: RunningCloud) -> list[str]:
    """Return the base URLs on this machine that the functions call: of AWS, and of a double."""
    return [url for url in (cloud.endpoint, cloud.parameters["StripeApiBase"]) if url]


def container_variables(
    cloud: RunningCloud, urls: Mapping[str, str], extra_variables: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    """Return the variables of each function: those that it is deployed with, for a container.

    Parameters
    ----------
    cloud : RunningCloud
    urls : mapping
        URLs on this machine, and the same for containers.
    extra_variables : mapping
        Variables for all functions.

    Returns
    -------
    dict
        By logical ids, as `sam local` reads it with `--env-vars`.
    """
    variables = {}
    for function in FUNCTIONS:
        text = json.dumps(cloud.variables(function))
        for url, for_containers in urls.items():
            text = text.replace(url, for_containers)
        endpoint = {"AWS_ENDPOINT_URL": urls[cloud.endpoint]}
        variables[logical_id(function)] = {**json.loads(text), **endpoint, **extra_variables}
    return variables


def build(folder: Path, function: str | None) -> Path:
    """Build one function, or all; returns the template for `sam local`.

    `sam local` sets only variables that the template has, so `AWS_ENDPOINT_URL` is added to it. It
    evaluates neither the condition of the functions' layers, which are removed, nor a timeout that
    depends on a parameter.
    """
    print(f"… building {function or 'the functions'}", file=sys.stderr, flush=True)
    command = [*sam_build(folder), *([function] if function else [])]
    with program("sam build", command, folder, is_isolated=False) as building:
        building.succeed()
    built = yaml.safe_load((folder / "build" / "template.yaml").read_text())
    built["Globals"]["Function"]["Environment"]["Variables"]["AWS_ENDPOINT_URL"] = ""
    for resource in built["Resources"].values():
        resource["Properties"].pop("Layers", None)
        if isinstance(resource["Properties"].get("Timeout"), dict):
            resource["Properties"]["Timeout"] = LONGEST_TIMEOUT
    template = folder / "build" / "sam-local.yaml"
    # Keep the template's order: SAM finds no route if a function comes before the API.
    template.write_text(yaml.safe_dump(built, sort_keys=False))
    return template


def sam_local(
    cloud: RunningCloud,
    command: Sequence[str],
    *,
    function: str | None = None,
    stdin: str = "",
    extra_variables: Mapping[str, str] | None = None,
) -> int:
    """Run a command of `sam local` with a running cloud; returns its exit code.

    Parameters
    ----------
    cloud : RunningCloud
    command : sequence of str
        The command and its options, such as `["invoke", "GetCustomer"]`.
    function : str, optional
        The logical id of the only function that it runs.
    stdin : str, optional
        Its standard input.
    extra_variables : mapping, optional
        Variables for all functions, in addition to those that they are deployed with.

    Raises
    ------
    CloudError
        The functions could not be built.
    NotRunError
        No Docker engine is running, or its containers can't reach this machine.
    """
    with (
        work_folder("sam-local") as folder,
        relayed(docker_engine.bridge_address(), local_urls(cloud)) as urls,
    ):
        variables = folder / "variables.json"
        variables.write_text(json.dumps(container_variables(cloud, urls, extra_variables or {})))
        options = [
            *("--template", str(build(folder, function))),
            *("--env-vars", str(variables)),
            "--skip-pull-image",
            *("--parameter-overrides", f"Runtime={docker_engine.RUNTIME}"),
            f"Architecture={docker_engine.ARCHITECTURE}",
        ]
        process = subprocess.Popen(
            [SAM, "local", *command, *options],
            env=environment(cloud),
            stdin=subprocess.PIPE,
            text=True,
        )
        try:
            process.communicate(stdin)
        except KeyboardInterrupt:
            # Ctrl-C has reached SAM too, which removes its containers.
            process.wait()
        return process.returncode


def environment(cloud: RunningCloud) -> dict[str, str]:
    """Return the caller's environment, with the local cloud as the only AWS.

    SAM passes its own credentials on to the functions, and asks for its account before each call.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    direct = {"NO_PROXY": "*", "no_proxy": "*", "SAM_CLI_TELEMETRY": "0"}
    return {**inherited, **sam_environment(cloud.endpoint), **direct}


def main() -> int:
    """Run `sam local`; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("command", choices=["invoke", "start-api"])
    parser.add_argument("--function", default="")
    parser.add_argument("--event", default="")
    options, passed_on = parser.parse_known_args()
    try:
        docker_engine.install()
        cloud = running_cloud()
        if options.command == "start-api":
            # SAM has no authorizer that the functions would accept.
            trusted = {"API_AUTHORIZER": "none"}
            return sam_local(
                cloud, ["start-api", "--disable-authorizer", *passed_on], extra_variables=trusted
            )
        event = json.dumps(event_for(cloud, options.function, options.event))
        function = logical_id(options.function)
        command = ["invoke", function, "--event", "-", *passed_on]
        return sam_local(cloud, command, function=function, stdin=event)
    except engine.NotRunError as why:
        print(
            f"sam local needs Docker: {why}. Without Docker, use `make invoke"
            f" FUNCTION={options.function or 'get_customer'}`.",
            file=sys.stderr,
        )
    except (UsageError, CloudError, engine.EngineError) as error:
        print(error, file=sys.stderr)
    except (BotoCoreError, ClientError) as error:
        print(f"The local cloud that `make serve` runs is not usable: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
