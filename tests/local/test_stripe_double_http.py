"""The double behind HTTP, under the real ``stripe`` library and in processes of their own."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import stripe

from local.stripe_double import StripeDouble, StripeDoubleServer

ROOT = Path(__file__).parents[2]
SECRET = "whsec_double"
OPTIONS: Any = {"idempotency_key": "key-1"}


@pytest.fixture
def server() -> Iterator[StripeDoubleServer]:
    with StripeDoubleServer(StripeDouble()) as running:
        yield running
    assert running.double.bugs == []


@pytest.fixture
def api(server: StripeDoubleServer) -> Any:
    return client(server)


def client(server: StripeDoubleServer) -> Any:
    addresses: Any = {"api": server.url}
    return stripe.StripeClient("sk_test_double", base_addresses=addresses, max_network_retries=0).v1


class Endpoint:
    """A webhook endpoint that returns these statuses, and 200 from then on."""

    def __init__(self, *statuses: int) -> None:
        self.received: list[tuple[bytes, str]] = []
        left = list(statuses)
        received = self.received

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                received.append((body, self.headers["Stripe-Signature"]))
                self.send_response(left.pop(0) if left else 200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,))
        self.url = f"http://127.0.0.1:{self._http.server_port}/webhook"

    def __enter__(self) -> Endpoint:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def events(self) -> list[stripe.Event]:
        construct: Any = stripe.Webhook.construct_event
        return [construct(body, signature, SECRET) for body, signature in self.received]


def control(server: StripeDoubleServer, method: str, name: str, given: Any = None) -> Any:
    body = None if given is None else json.dumps(given).encode()
    request = urllib.request.Request(f"{server.url}/_double/{name}", body, method=method)
    with urllib.request.urlopen(request, timeout=20) as response:
        return json.load(response)


def wait_until(condition: Callable[[], object]) -> None:
    while not condition():
        threading.Event().wait(0.005)


class TestServer:
    def test_library_works(self, api: Any) -> None:
        given = {"name": "Zoë & co", "preferred_locales": ["en", "ga"], "metadata": {"a": "u 1"}}
        customer = api.customers.create({**given, "source": "tok_visa"})
        found = api.customers.retrieve(customer.id, {"expand": ["sources"]})
        assert (found.name, found.preferred_locales) == ("Zoë & co", ["en", "ga"])
        assert found.metadata.to_dict() == {"a": "u 1"}
        assert found.sources.data[0].brand == "Visa"
        for _ in range(3):
            api.customers.create()
        assert len(list(api.customers.list({"limit": 2}).auto_paging_iter())) == 4
        with pytest.raises(stripe.InvalidRequestError) as caught:
            api.customers.create({"nickname": "A"})
        assert (caught.value.param, caught.value.code) == ("nickname", "parameter_unknown")

    def test_concurrent_requests_make_one_customer(self, server: StripeDoubleServer) -> None:
        api = client(server)

        def create(_: int) -> str:
            return str(api.customers.create({"name": "Ada"}, OPTIONS).id)

        api.customers.list()
        with ThreadPoolExecutor(50) as pool:
            assert len(set(pool.map(create, range(50)))) == 1
        assert len(server.double.account.customers) == 1

    def test_lost_response_closes_connection(self, server: StripeDoubleServer, api: Any) -> None:
        server.double.faults.time_out(when="before")
        server.double.faults.time_out(when="after")
        for made in (0, 1):
            with pytest.raises(stripe.APIConnectionError):
                api.customers.create()
            assert len(server.double.account.customers) == made

    def test_delivers_webhooks_until_accepted(self, server: StripeDoubleServer, api: Any) -> None:
        with Endpoint(500, 503) as endpoint:
            with server.use() as double:
                double.webhooks.first_backoff = 0.02
                double.webhooks.add_endpoint(endpoint.url, SECRET)
            customer = api.customers.create({"name": "Ada"})
            assert server.wait_until_delivered()
            assert [event.type for event in endpoint.events()] == ["customer.created"] * 3
            assert endpoint.events()[-1].data.object.id == customer.id

    def test_delivers_to_the_address_of_a_url(self, server: StripeDoubleServer, api: Any) -> None:
        with Endpoint() as endpoint:
            with server.use() as double:
                double.webhooks.address_of = {"https://x.on.aws/": endpoint.url}.__getitem__
                double.webhooks.add_endpoint("https://x.on.aws/", SECRET)
            api.customers.create()
            assert server.wait_until_delivered()
        assert [event.type for event in endpoint.events()] == ["customer.created"]


class TestControl:
    """The paths under ``/_double/``."""

    def test_steers_faults_and_deliveries(self, server: StripeDoubleServer, api: Any) -> None:
        with Endpoint() as endpoint:
            given = {"url": endpoint.url, "secret": [SECRET]}
            made = control(server, "POST", "webhook_endpoints", given)
            fault = {"status": 503, "match": "POST /v1/customers"}
            control(server, "POST", "faults/fail_next", fault)
            with pytest.raises(stripe.APIError):
                api.customers.create()
            control(server, "POST", "deliveries/duplicate_next", {"event_type": "customer.created"})
            customer = api.customers.create({"metadata": {"user_id": "u1"}}, OPTIONS)
            response = control(server, "GET", "wait_until_delivered?timeout=10")
            assert response == {"delivered": True, "pending": 0}
            assert len(endpoint.received) == 2
            session = {"customer": customer.id, "metadata": {"a": "1"}}
            event = control(server, "POST", "helpers/complete_checkout_session", session)["data"]
            assert api.events.retrieve(event).data.object.metadata.a == "1"
            control(server, "GET", "wait_until_delivered")
            control(server, "DELETE", f"webhook_endpoints/{made['id']}")
        assert control(server, "GET", "customers?metadata=user_id") == {"u1": 1}
        assert control(server, "GET", "state")["events"] == 2
        requests = control(server, "GET", "requests")["data"]
        assert [request["status"] for request in requests[:2]] == [503, 200]
        assert requests[1]["idempotency_key"] == "key-1"

    def test_limits_rate_and_counts(self, server: StripeDoubleServer, api: Any) -> None:
        control(server, "POST", "rate_limits", {"account": 5, "endpoint": 1})
        with server.use() as double:
            double.account.clock = lambda: 0
        api.customers.list()
        with pytest.raises(stripe.RateLimitError) as caught:
            api.customers.list()
        assert (caught.value.headers or {})["Stripe-Rate-Limited-Reason"] == "endpoint-rate"
        counts = {"made": {"GET /v1/customers": 2}, "refused": {"GET /v1/customers": 1}}
        assert control(server, "GET", "rate_limits") == {"account": 5, "endpoint": 1, **counts}
        control(server, "DELETE", "rate_limits")
        customer = api.customers.create().id
        control(server, "POST", "faults/lock", {"object_id": customer})
        with pytest.raises(stripe.RateLimitError) as caught:
            api.customers.retrieve(customer)
        assert caught.value.error is not None
        assert caught.value.error.code == "lock_timeout"
        assert api.customers.retrieve(customer).id == customer

    def test_fills_account(self, server: StripeDoubleServer, api: Any) -> None:
        control(server, "POST", "helpers/fill", {"customers": 50})
        assert control(server, "GET", "state")["customers"] == 50
        assert len(list(api.customers.list({"limit": 20}).auto_paging_iter())) == 50


CHILD = """
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
headers = {"Authorization": "Bearer sk_test_double", "Idempotency-Key": "key-1"}
connection.request("POST", "/v1/customers", "name=Ada", headers)
connection.getresponse().read()
connection.request("GET", "/v1/customers", headers=headers)
connection.getresponse().read()
"""


class TestProcesses:
    @pytest.mark.parametrize("responds", [True, False])
    def test_client_is_killed_after_effect(
        self, server: StripeDoubleServer, responds: bool
    ) -> None:
        server.double.faults.kill_client_after(match="POST /v1/customers", responds=responds)
        command = [sys.executable, "-S", "-c", CHILD, str(server.port)]
        assert subprocess.run(command, check=False, timeout=20).returncode == -signal.SIGKILL
        assert subprocess.run(command, check=False, timeout=20).returncode == 0
        assert len(server.double.account.customers) == 1

    def test_command_serves(self) -> None:
        with Endpoint() as endpoint:
            command = [sys.executable, "-m", "local.stripe_double", "--port", "0", "--log"]
            command += ["--webhook-url", endpoint.url, "--webhook-secret", SECRET]
            with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                url = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
                assert url is not None
                addresses: Any = {"api": url[0]}
                stripe.StripeClient(
                    "sk_test_double", base_addresses=addresses
                ).v1.customers.create()
                assert process.stdout.readline() == "POST /v1/customers 200\n"
                waiting = f"{url[0]}/_double/wait_until_delivered"
                with urllib.request.urlopen(waiting, timeout=20) as response:
                    assert json.load(response)["delivered"] is True
                process.terminate()
                assert process.wait(10) == 0
            assert [event.type for event in endpoint.events()] == ["customer.created"]
