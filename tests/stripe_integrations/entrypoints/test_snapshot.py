"""Processes that Lambda starts from one snapshot of an initialized process."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from stripe_integrations.entrypoints import snapshot
from tests.stripe_integrations.entrypoints.test_initialization import IN_LAMBDA, ROOT, SETTINGS

Json = dict[str, Any]

PROGRAM = """
import json, os
import functions.create_customer.app
import snapshot_restore_py as hooks
from stripe_integrations.context import current
from stripe_integrations.models.table import Record

def work(process):
    Record.read_one(process, "KEY")
    current().stripe.retrieve_customer("cus_" + process)

def run(registered):
    while registered:
        function, arguments, keywords = registered.pop(0)
        function(*arguments, **keywords)

def sockets():
    names = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")[:-1]]
    return [name for name in names if name.startswith("socket:")]

work("snapshot")
assert sockets(), "nothing is connected"
run(hooks.get_before_snapshot())
print(json.dumps({"sockets": sockets()}), flush=True)
for copy in ("one", "two"):
    if os.fork() == 0:
        run(hooks.get_after_restore())
        work(copy)
        print(json.dumps({"token": current().new_token()}), flush=True)
        os._exit(0)
    os.wait()
"""


class Services(ThreadingHTTPServer):
    """DynamoDB, Secrets Manager with a key that is replaced after it was read, and Stripe.

    Attributes
    ----------
    connections : dict
        The ports of the clients, by the process that they belong to.
    keys : dict
        The API key with which each process has called Stripe.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.connections: defaultdict[str, set[int]] = defaultdict(set)
        self.keys: dict[str, str] = {}
        self.stored_keys = ["sk_test_old"]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Services
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "secretsmanager" in self.headers["X-Amz-Target"]:
            stored = self.server.stored_keys
            self.respond({"SecretString": stored.pop() if stored else "sk_test_new"})
            return
        self.server.connections[body["Key"]["pk"]["S"]].add(self.client_address[1])
        self.respond({})

    def do_GET(self) -> None:
        process = self.path.partition("?")[0].rpartition("cus_")[2]
        self.server.connections[process].add(self.client_address[1])
        self.server.keys[process] = self.headers["Authorization"].removeprefix("Bearer ")
        self.respond({"id": f"cus_{process}", "object": "customer", "livemode": False})

    def respond(self, body: Json) -> None:
        text = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def services() -> Iterator[Services]:
    with Services() as services:
        thread = threading.Thread(target=services.serve_forever, args=(0.05,))
        thread.start()
        yield services
        services.shutdown()
        thread.join()


@pytest.fixture
def printed(services: Services) -> list[Json]:
    """What a process before its snapshot and two copies of it have printed."""
    environment = {
        **SETTINGS,
        **IN_LAMBDA,
        "AWS_ENDPOINT_URL": services.url,
        "NO_PROXY": "127.0.0.1",
        "STRIPE_API_BASE": services.url,
        "STRIPE_API_KEY_NAME": "secretsmanager:stripe/api-key",
        "PYTHONPATH": ":".join([str(ROOT / "shared"), str(ROOT), *sys.path]),
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_copies_share_no_connection_token_or_secret(
    services: Services, printed: list[Json]
) -> None:
    before, one, two = printed
    assert before["sockets"] == []
    assert one["token"] != two["token"]
    processes = ("snapshot", "one", "two")
    ports = [port for process in processes for port in services.connections[process]]
    assert len(ports) == len(set(ports)) >= len(processes)
    assert services.keys == {
        "snapshot": "sk_test_old",
        "one": "sk_test_new",
        "two": "sk_test_new",
    }


def test_copies_draw_different_random_numbers() -> None:
    """A forked process is seeded by Python itself, so that this is not seen there."""
    state = random.getstate()
    drawn = set()
    for _ in range(2):
        random.setstate(state)
        snapshot.reseed()
        drawn.add(random.random())
    assert len(drawn) == 2
