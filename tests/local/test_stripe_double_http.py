"""The double behind HTTP, under the real ``stripe`` library and in processes of their own."""

import http.client
import json
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import stripe

from local.stripe_double import StripeDouble, StripeDoubleServer

ROOT = Path(__file__).parents[2]
SECRET = "whsec_double"


@pytest.fixture
def server():
    with StripeDoubleServer(StripeDouble()) as running:
        yield running
    assert running.double.bugs == []


@pytest.fixture
def api(server):
    return client(server).v1


def client(server: StripeDoubleServer) -> stripe.StripeClient:
    addresses = {"api": server.url}
    return stripe.StripeClient("sk_test_double", base_addresses=addresses, max_network_retries=0)


class Endpoint:
    """A webhook endpoint that answers as it is told, 200 in the end."""

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

            def log_message(self, *_) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,))
        self.url = f"http://127.0.0.1:{self._http.server_port}/webhook"

    def __enter__(self) -> "Endpoint":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def events(self) -> list[stripe.Event]:
        return [stripe.Webhook.construct_event(*got, SECRET) for got in self.received]


def admin(server: StripeDoubleServer, method: str, name: str, given: dict | None = None) -> dict:
    body = None if given is None else json.dumps(given).encode()
    request = urllib.request.Request(f"{server.url}/_double/{name}", body, method=method)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


def test_the_library_works_over_http(api):
    given = {"name": "Zoë & co", "metadata": {"user_id": "u 1"}, "preferred_locales": ["en", "ga"]}
    customer = api.customers.create({**given, "source": "tok_visa"}, {"idempotency_key": "key-1"})
    again = api.customers.create({**given, "source": "tok_visa"}, {"idempotency_key": "key-1"})
    assert again.id == customer.id
    assert again.last_response.headers["Idempotent-Replayed"] == "true"
    found = api.customers.retrieve(customer.id, {"expand": ["sources"]})
    assert (found.name, found.preferred_locales) == ("Zoë & co", ["en", "ga"])
    assert found.metadata.to_dict() == {"user_id": "u 1"}
    assert found.sources.data[0].brand == "Visa"
    for _ in range(3):
        api.customers.create()
    assert len(list(api.customers.list({"limit": 2}).auto_paging_iter())) == 4
    api.customers.delete(customer.id)
    assert api.customers.retrieve(customer.id).deleted is True
    with pytest.raises(stripe.InvalidRequestError) as caught:
        api.customers.create({"nickname": "A"})
    assert (caught.value.param, caught.value.code) == ("nickname", "parameter_unknown")


def test_fifty_requests_at_once_with_one_key_make_one_customer(server):
    api = client(server).v1
    api.customers.list()

    def create(_: int) -> str:
        return api.customers.create({"name": "Ada"}, {"idempotency_key": "key-1"}).id

    with ThreadPoolExecutor(50) as pool:
        made = set(pool.map(create, range(50)))
    assert len(made) == 1
    assert len(server.double.account.customers) == 1


def test_a_rival_of_a_slow_request_is_told_409():
    clock = [0.0]
    double = StripeDouble(now=lambda: clock[0])
    double.faults.delay(0.1, match="POST /v1/customers")
    options = {"idempotency_key": "key-1"}

    with StripeDoubleServer(double) as server, ThreadPoolExecutor(1) as pool:
        slow = pool.submit(client(server).v1.customers.create, {}, options)
        # The clock stands still, so the first request is in progress for as long as we want.
        while not double.requests and not slow.done():
            threading.Event().wait(0.005)
        with pytest.raises(stripe.APIError) as caught:
            client(server).v1.customers.create({}, options)
        assert caught.value.http_status == 409
        assert caught.value.json_body["error"]["code"] == "idempotency_key_in_use"
        first = slow.result()
        clock[0] += 1
        assert client(server).v1.customers.create({}, options).id == first.id


def test_a_lost_answer_is_a_closed_connection(server, api):
    server.double.faults.time_out(when="before")
    server.double.faults.time_out(when="after")
    for made in (0, 1):
        with pytest.raises(stripe.APIConnectionError):
            api.customers.create()
        assert len(server.double.account.customers) == made


def test_a_bug_is_answered_as_500_without_a_trace(server, api, monkeypatch):
    monkeypatch.setattr(server.double.account, "emit", None)
    with pytest.raises(stripe.APIError) as caught:
        api.customers.create()
    assert caught.value.http_status == 500
    assert caught.value.json_body["error"]["type"] == "api_error"
    assert "Traceback" not in caught.value.http_body
    assert len(server.double.bugs) == 1
    server.double.bugs.clear()


def test_a_stopped_server_hangs_up():
    server = StripeDoubleServer(StripeDouble())
    server.start()
    connection = http.client.HTTPConnection(server.host, server.port, timeout=5)
    headers = {"Authorization": "Bearer sk_test_double"}
    connection.request("GET", "/v1/customers", headers=headers)
    connection.getresponse().read()
    server.stop()
    with pytest.raises((OSError, http.client.HTTPException)):
        connection.request("GET", "/v1/customers", headers=headers)
        connection.getresponse()


def test_webhooks_arrive_signed_and_are_retried_until_accepted(server, api):
    with Endpoint(500, 503) as endpoint:
        with server.use() as double:
            double.webhooks.first_backoff = 0.02
            double.webhooks.add_endpoint(endpoint.url, SECRET)
        customer = api.customers.create({"name": "Ada"})
        assert server.wait_until_delivered()
        kinds = [event.type for event in endpoint.events()]
        assert kinds == ["customer.created"] * 3
        assert endpoint.events()[-1].data.object.id == customer.id
        api.customers.update(customer.id, {"name": "Grace"})
        assert server.wait_until_delivered()
        assert endpoint.events()[-1].data.previous_attributes.name == "Ada"
        assert api.events.list({"delivery_success": True, "limit": 1}).data[0].pending_webhooks == 0


def test_an_endpoint_that_is_down_is_tried_again(server, api):
    with Endpoint() as gone:
        url = gone.url
    with server.use() as double:
        double.webhooks.first_backoff = 0.02
        double.webhooks.backoff_factor = 10_000
        double.webhooks.max_age = 60
        double.webhooks.add_endpoint(url, SECRET)
    api.customers.create()
    assert server.wait_until_delivered()
    assert {entry["status"] for entry in server.double.webhooks.log} == {0}
    assert len(server.double.webhooks.log) == 2


def test_the_doubles_own_surface(server, api):
    with Endpoint() as endpoint:
        made = admin(server, "POST", "webhook_endpoints", {"url": endpoint.url, "secret": [SECRET]})
        assert admin(server, "GET", "webhook_endpoints")["data"][0]["id"] == made["id"]
        admin(server, "POST", "faults/fail_next", {"status": 503, "match": "POST /v1/customers"})
        assert admin(server, "GET", "faults")["data"][0]["kind"] == "refuse"
        with pytest.raises(stripe.APIError):
            api.customers.create()
        admin(server, "POST", "deliveries/duplicate_next", {"event_type": "customer.created"})
        customer = api.customers.create({"metadata": {"user_id": "u1"}}, {"idempotency_key": "k"})
        answer = admin(server, "GET", "wait_until_delivered?timeout=10")
        assert answer == {"delivered": True, "pending": 0}
        assert len({event.id for event in endpoint.events()}) == 1
        assert len(endpoint.received) == 2
        given = {"customer": customer.id, "metadata": {"a": "1"}}
        event = admin(server, "POST", "helpers/complete_checkout_session", given)["data"]
        assert api.events.retrieve(event).data.object.metadata.a == "1"
        admin(server, "GET", "wait_until_delivered")
        assert len(admin(server, "GET", "deliveries")["data"]) == 3
        admin(server, "DELETE", f"webhook_endpoints/{made['id']}")
        assert admin(server, "GET", "webhook_endpoints") == {"data": []}
    assert admin(server, "GET", "customers?metadata=user_id") == {"u1": 1}
    state = admin(server, "GET", "state")
    assert (state["customers"], state["events"], state["bugs"]) == (1, 2, [])
    logged = admin(server, "GET", "requests")["data"]
    shown = [(request["method"], request["path"], request["status"]) for request in logged[:2]]
    assert shown == [("POST", "/v1/customers", 503), ("POST", "/v1/customers", 200)]
    assert logged[1]["idempotency_key"] == "k"
    admin(server, "DELETE", "requests")
    admin(server, "DELETE", "faults")
    assert admin(server, "GET", "requests") == {"data": []}


@pytest.mark.parametrize(
    ("method", "name", "given", "status"),
    [
        ("GET", "nonsense", None, 404),
        ("POST", "faults/clear", {}, 404),
        ("POST", "faults/delay", {"minutes": 1}, 400),
        ("POST", "helpers/set_status", {"subscription": "sub_none", "status": "active"}, 404),
        ("GET", "customers", None, 400),
        ("POST", "faults/delay", [], 400),
    ],
)
def test_the_surface_refuses_what_it_does_not_have(server, method, name, given, status):
    with pytest.raises(urllib.error.HTTPError) as caught:
        admin(server, method, name, given)
    assert caught.value.code == status


CHILD = """
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
headers = {"Authorization": "Bearer sk_test_double", "Idempotency-Key": "key-1"}
connection.request("POST", "/v1/customers", "name=Ada", headers)
connection.getresponse().read()
connection.request("GET", "/v1/customers", headers=headers)
connection.getresponse().read()
"""


@pytest.mark.parametrize("answered", [True, False])
def test_the_clients_process_is_killed_after_the_effect(server, answered):
    server.double.faults.kill_client_after(match="POST /v1/customers", answered=answered)
    command = [sys.executable, "-S", "-c", CHILD, str(server.port)]
    assert subprocess.run(command, check=False, timeout=20).returncode == -signal.SIGKILL
    assert len(server.double.account.customers) == 1
    assert subprocess.run(command, check=False, timeout=20).returncode == 0
    assert len(server.double.account.customers) == 1


def test_the_servers_own_process_is_never_killed(server, api):
    server.double.faults.kill_client_after()
    assert api.customers.create({"name": "Ada"}).name == "Ada"
    assert "must not be killed" in str(server.double.bugs.pop())


def test_the_command_serves_until_it_is_told_to_stop():
    with Endpoint() as endpoint:
        command = [sys.executable, "-m", "local.stripe_double", "--port", "0", "--log"]
        command += ["--webhook-url", endpoint.url, "--webhook-secret", SECRET, "--seed", "1"]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            url = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
            assert url is not None
            addresses = {"api": url[0]}
            api = stripe.StripeClient("sk_test_double", base_addresses=addresses).v1
            api.customers.create({"name": "Ada"})
            assert process.stdout.readline() == "POST /v1/customers 200\n"
            waiting = f"{url[0]}/_double/wait_until_delivered"
            with urllib.request.urlopen(waiting, timeout=20) as answer:
                assert json.load(answer)["delivered"] is True
            process.terminate()
            assert process.wait(10) == 0
        assert [event.type for event in endpoint.events()] == ["customer.created"]
