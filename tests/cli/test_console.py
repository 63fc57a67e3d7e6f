"""The console's pages, and who may open them."""

from __future__ import annotations

import http.client
import json
import re
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from queue import Empty, Queue
from threading import Thread, current_thread
from typing import cast
from urllib.parse import urlsplit

import boto3
import pytest
from flask.testing import FlaskClient

from stripe_integrations.actions import StripeCustomer, StripeEvent, User
from stripe_integrations.config import UnassignedCustomers
from stripe_integrations.models import Customer, Event
from stripe_integrations.observability import NAMESPACE, Metric
from stripe_integrations_cli.console import charts, live
from stripe_integrations_cli.console.paging import MAX_READ, PAGE_ROWS, Place, page_of, place_in
from stripe_integrations_cli.console.server import application, served
from stripe_integrations_cli.errors import CommandError
from stripe_integrations_cli.stack import Stack
from tests.cli.conftest import STACK, Run
from tests.stripe_changes import rename_later
from tests.world import EMAIL, World, exhaust, stored_event


@pytest.fixture
def pages(stack: str) -> FlaskClient:
    return application(Stack(stack, boto3.Session())).test_client()


@pytest.fixture
def failed(world: World, customer: Customer) -> str:
    stripe_id = rename_later(world, customer, "Newest")
    exhaust(stripe_id)
    StripeEvent.apply(stripe_id)
    return stripe_id


def text_of(html: str) -> str:
    """What a reader sees."""
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


class TestCustomers:
    def test_lists_those_of_users_and_of_none(
        self, pages: FlaskClient, world: World, customer: Customer
    ) -> None:
        world.configure(unassigned_customers=UnassignedCustomers.STORE)
        StripeCustomer.create(User("u-2"), EMAIL, allow_existing=True)
        unassigned = StripeCustomer.require(User("u-2")).stripe_id
        StripeCustomer.release(User("u-2"))
        assert {customer.stripe_id, unassigned} <= set(
            text_of(pages.get("/customers").text).split()
        )
        active = text_of(pages.get("/customers?state=active").text)
        assert customer.stripe_id in active
        assert unassigned not in active
        assert customer.stripe_id not in pages.get("/customers?state=unassigned").text

    def test_shows_what_is_stored_and_why(
        self, pages: FlaskClient, world: World, customer: Customer, failed: str
    ) -> None:
        subscription = world.subscribe(customer.stripe_id)
        world.deliver_and_apply()
        shown = text_of(pages.get(f"/customers/{customer.stripe_id}").text)
        assert f"Customer of user {customer.user_id}" in shown
        assert f"{subscription} active" in shown
        assert f"failed customer.updated {failed}" in shown
        assert "too many attempts" in shown

    def test_updates_from_stripe(
        self, pages: FlaskClient, world: World, customer: Customer
    ) -> None:
        world.request("POST", f"/v1/customers/{customer.stripe_id}", {"name": "Renamed"})
        world.time += 10
        path = f"/customers/{customer.stripe_id}/sync"
        response = pages.post(path, follow_redirects=True)
        assert "Renamed" in response.text
        assert "synchronized with Stripe" in response.text

    def test_shows_events_of_one_that_is_not_stored(
        self, pages: FlaskClient, world: World, customer: Customer, failed: str
    ) -> None:
        foreign = world.request("POST", "/v1/customers", {"email": EMAIL})["id"]
        world.deliver_and_apply()
        StripeCustomer.erase(User("u-1"))
        (waiting,) = (each.stripe_id for each in StripeEvent.find(state="waiting"))
        for stripe_id, event in ((foreign, waiting), (customer.stripe_id, failed)):
            assert f"/customers/{stripe_id}" in pages.get(f"/events/{event}").text
            shown = pages.get(f"/customers/{stripe_id}")
            assert shown.status_code == 200
            assert "not stored" in shown.text
            assert event in shown.text
        assert pages.post(f"/customers/{foreign}/sync").status_code == 404

    def test_shows_no_markup_of_others(
        self, pages: FlaskClient, world: World, customer: Customer
    ) -> None:
        name = "<script>alert(1)</script>"
        StripeCustomer.update(customer, name=name)
        shown = pages.get(f"/customers/{customer.stripe_id}").text
        assert name not in shown
        assert "&lt;script&gt;" in shown

    @pytest.mark.parametrize(
        "path",
        [
            "/customers/cus_none",
            "/customers?state=none",
            "/none",
            *(
                f"/{name}/{given}"
                for name in ("customers", "events")
                for given in ("a" * 3000, "%00", "%ED%A0%80", "a%0Ab", "%E2%80%AE")
            ),
        ],
    )
    def test_says_what_does_not_exist(self, pages: FlaskClient, path: str) -> None:
        assert pages.get(path).status_code == 404


class TestFind:
    def find(self, pages: FlaskClient, by: str, text: str) -> str:
        response = pages.post("/find", data={"by": by, "text": text})
        return response.headers.get("Location") or text_of(response.text)

    def test_leads_to_the_page_of_an_id(
        self, pages: FlaskClient, customer: Customer, failed: str
    ) -> None:
        own_page = f"/customers/{customer.stripe_id}"
        assert self.find(pages, "user", "u-1") == own_page
        assert self.find(pages, "stripe", customer.stripe_id) == own_page
        assert self.find(pages, "stripe", failed) == f"/events/{failed}"

    def test_lists_customers_with_an_email(self, pages: FlaskClient, customer: Customer) -> None:
        assert customer.stripe_id in self.find(pages, "email", EMAIL)
        assert "Stripe has none" in self.find(pages, "email", "none@example.com")

    @pytest.mark.parametrize("by", ["user", "stripe", "email"])
    def test_says_that_nothing_was_given(self, pages: FlaskClient, by: str) -> None:
        assert "nothing to look for" in self.find(pages, by, " ")

    @pytest.mark.parametrize(
        "text", [EMAIL, "u-1", "..", "a/b", "\N{RIGHT-TO-LEFT OVERRIDE}", "a" * 3000]
    )
    def test_makes_no_address_of_what_is_no_id(
        self, pages: FlaskClient, customer: Customer, text: str
    ) -> None:
        response = pages.post("/find", data={"by": "stripe", "text": text})
        assert response.status_code == 404
        assert response.location is None

    def test_links_to_no_customer_that_is_not_stored(
        self, pages: FlaskClient, world: World, customer: Customer
    ) -> None:
        world.configure(unassigned_customers=UnassignedCustomers.STORE)
        StripeCustomer.release(User("u-1"))
        foreign = world.request("POST", "/v1/customers", {"email": EMAIL})["id"]
        found = pages.post("/find", data={"by": "email", "text": EMAIL}).text
        assert foreign in found
        linked = re.findall(r'href="/customers/(cus_\w+)"', found)
        assert linked == [customer.stripe_id]

    def test_never_puts_a_user_or_an_email_into_an_address(
        self, pages: FlaskClient, customer: Customer
    ) -> None:
        for path in ("/customers", f"/customers/{customer.stripe_id}"):
            for address in re.findall(r'(?:href|action|src)="([^"]*)"', pages.get(path).text):
                assert EMAIL not in address
                assert "u-1" not in address


class TestEvents:
    def test_are_replayed(self, pages: FlaskClient, failed: str) -> None:
        listed = text_of(pages.get("/events").text)
        assert failed in listed
        response = pages.post(f"/events/{failed}/replay", follow_redirects=True)
        assert "applied to" in text_of(response.text)
        assert stored_event(failed).state == "applied"
        assert failed not in pages.get("/events").text

    def test_are_replayed_together(self, pages: FlaskClient, failed: str) -> None:
        pages.post("/events/replay-failed")
        assert stored_event(failed).state == "applied"

    def test_show_payloads_with_any_character(
        self, pages: FlaskClient, failed: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        event = StripeEvent.get(failed)
        assert event
        event.webhook_message = {"name": "a\ud800\u202eb\u00e9"}
        monkeypatch.setattr(StripeEvent, "get", lambda _: event)
        assert "a  b\u00e9" in pages.get(f"/events/{failed}").text

    def test_show_their_payload(self, pages: FlaskClient, failed: str) -> None:
        assert "&#34;previous_attributes&#34;" in pages.get(f"/events/{failed}").text


class Changes:
    """Stands for the stream: events that tests write, or an error."""

    def __init__(self) -> None:
        self.written: Queue[str | Exception] = Queue()
        self.readers: list[Thread] = []

    def read(self, _: Stack, *, is_wanted: Callable[[], bool]) -> Iterator[Event]:
        self.readers.append(current_thread())
        while is_wanted():
            try:
                written = self.written.get(timeout=0.01)
            except Empty:
                continue
            if isinstance(written, Exception):
                raise written
            yield stored_event(written)


class TestLive:
    @pytest.fixture
    def changes(self, monkeypatch: pytest.MonkeyPatch) -> Changes:
        changes = Changes()
        monkeypatch.setattr(live, "changed_events", changes.read)
        return changes

    def opened(self, pages: FlaskClient) -> Iterator[bytes]:
        """The lines that a page gets, after the first one."""
        response = pages.get("/live/changes")
        lines = cast("Iterator[bytes]", response.response)
        assert next(lines) == b": connected\n\n"
        return lines

    def test_is_read_once_for_all_pages_until_the_last_is_closed(
        self, pages: FlaskClient, changes: Changes, failed: str
    ) -> None:
        opened = [self.opened(pages) for _ in range(2)]
        changes.written.put(failed)
        for lines in opened:
            assert failed.encode() in next(lines)
        (reader,) = changes.readers
        for lines in opened:
            assert reader.is_alive()
            cast("Generator[bytes]", lines).close()
        reader.join(10)
        assert not reader.is_alive()

    def test_ends_with_an_error_and_is_read_again(
        self, pages: FlaskClient, changes: Changes, failed: str
    ) -> None:
        opened = [self.opened(pages) for _ in range(2)]
        changes.written.put(CommandError("the table has no stream"))
        for lines in opened:
            assert [json.loads(line.removeprefix(b"data: ")) for line in lines] == [
                {"error": "the table has no stream"}
            ]
        again = self.opened(pages)
        changes.written.put(failed)
        assert failed.encode() in next(again)
        assert len(changes.readers) == 2


class TestErrors:
    def test_of_the_stack_are_shown(
        self, pages: FlaskClient, failed: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refused(*_: object) -> None:
            raise PermissionError("not permitted to invoke")

        monkeypatch.setattr(Stack, "invoke", refused)
        response = pages.post(f"/events/{failed}/replay")
        assert response.status_code == 502
        assert "not permitted to invoke" in response.text

    def test_that_are_bugs_say_where_and_nothing_personal(
        self,
        pages: FlaskClient,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        def broken(*_: object, **__: object) -> None:
            raise RuntimeError(EMAIL)

        monkeypatch.setattr(StripeCustomer, "find", broken)
        response = pages.get("/customers")
        assert response.status_code == 500
        assert "RuntimeError at test_console.py" in response.text
        logged = "".join(capsys.readouterr())
        assert "RuntimeError" in logged
        assert EMAIL not in logged + response.text


@pytest.fixture
def address(stack: str) -> Iterator[str]:
    with served(application(Stack(stack, boto3.Session()))) as address:
        yield address


class Browser:
    """Sends requests as a browser does."""

    def __init__(self, address: str) -> None:
        self.netloc = urlsplit(address).netloc
        self.base = urlsplit(address).path.removesuffix("/")
        self.text = ""
        """The body of the last response."""

    def request(
        self, method: str, path: str, headers: Mapping[str, str] = {}, body: bytes | None = None
    ) -> tuple[int, http.client.HTTPMessage]:
        connection = http.client.HTTPConnection(self.netloc, timeout=10)
        connection.request(method, f"{self.base}{path}", body, dict(headers))
        response = connection.getresponse()
        self.text = response.read().decode()
        return response.status, response.headers

    def cookie(self, address: str) -> str:
        status, headers = self.request("GET", f"/?{urlsplit(address).query}")
        assert status == 302
        assert headers["Location"] == f"{self.base}/"
        cookie = headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert len(self.base) > 8
        assert f"Path={self.base}" in cookie.split("; ")
        return cookie.partition(";")[0]


class TestCommand:
    def test_says_what_is_not_installed(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in [each for each in sys.modules if each.split(".")[0] == "flask"]:
            monkeypatch.setitem(sys.modules, module, None)
        for module in [each for each in sys.modules if ".console." in each]:
            if not module.endswith(".command"):
                monkeypatch.delitem(sys.modules, module)
        result = run("console")
        assert result.exit_code == 1
        assert "flask is not installed: install the package with the extra cli" in result.stderr

    def test_says_that_the_port_is_in_use(self, run: Run, address: str) -> None:
        port = urlsplit(address).port
        result = run("console", "--port", str(port))
        assert result.exit_code == 1
        assert f"error: port {port} can't be used: Address already in use" in result.stderr


class TestGuard:
    def test_listens_on_loopback_alone(self, address: str) -> None:
        assert urlsplit(address).hostname == "127.0.0.1"

    def test_lets_the_operator_in(self, address: str) -> None:
        browser = Browser(address)
        status, headers = browser.request("GET", "/customers", {"Cookie": browser.cookie(address)})
        assert status == 200
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe-inline" not in headers["Content-Security-Policy"]

    @pytest.mark.parametrize("path", ["/", "/customers", "/static/console.js", "/live/changes"])
    @pytest.mark.parametrize("cookie", ["", "other", "\u00e9"])
    def test_shows_nothing_without_the_token(self, address: str, path: str, cookie: str) -> None:
        browser = Browser(address)
        name = browser.cookie(address).partition("=")[0]
        headers = {"Cookie": f"{name}={cookie}"} if cookie else {}
        for refused in (path, f"{path}?token=other", f"{path}?token=%C3%A9"):
            assert browser.request("GET", refused, headers)[0] == 403
            assert STACK not in browser.text

    def test_shows_nothing_at_other_addresses(self, address: str) -> None:
        browser = Browser(address)
        headers = {"Cookie": browser.cookie(address)}
        browser.base = ""
        for path in ("/", "/customers", "/static/console.js", f"/?{urlsplit(address).query}"):
            assert browser.request("GET", path, headers)[0] == 403
            assert STACK not in browser.text

    def test_links_to_its_own_pages(self, address: str) -> None:
        browser = Browser(address)
        browser.request("GET", "/events", {"Cookie": browser.cookie(address)})
        linked = re.findall(r'(?:href|action|src)="(/[^"]*)"', browser.text)
        assert linked
        assert [path for path in linked if not path.startswith(f"{browser.base}/")] == []

    @pytest.mark.parametrize(
        "foreign",
        [
            {"Host": "rebound.example"},
            {"Host": "127.0.0.1:1"},
            {"Origin": "null"},
            {"Origin": "http://127.0.0.1:1"},
            {"Sec-Fetch-Site": "same-site"},
            {"Sec-Fetch-Site": "cross-site"},
        ],
    )
    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_refuses_other_pages(
        self, address: str, foreign: dict[str, str], method: str, failed: str
    ) -> None:
        browser = Browser(address)
        headers = {"Cookie": browser.cookie(address), **foreign}
        path = "/events" if method == "GET" else f"/events/{failed}/replay"
        assert browser.request(method, path, headers)[0] == 403
        assert stored_event(failed).state == "failed"

    def test_accepts_its_own_forms(self, address: str, failed: str) -> None:
        browser = Browser(address)
        headers = {
            "Cookie": browser.cookie(address),
            "Origin": f"http://{browser.netloc}",
            "Sec-Fetch-Site": "same-origin",
        }
        assert browser.request("POST", f"/events/{failed}/replay", headers)[0] == 302
        assert stored_event(failed).state == "applied"

    def test_refuses_a_large_form(self, address: str) -> None:
        browser = Browser(address)
        headers = {
            "Cookie": browser.cookie(address),
            "Content-Type": "application/x-www-form-urlencoded",
        }
        body = b"by=user&text=" + b"a" * 100_000
        assert browser.request("POST", "/find", headers, body)[0] == 413


class TestPaging:
    def places(self, count: int) -> list[Place]:
        # Three of each second, in no order within it.
        return [Place(1000 - place // 3, f"id_{place * 7 % 3}{place}") for place in range(count)]

    @pytest.mark.parametrize("count", [0, 1, PAGE_ROWS, PAGE_ROWS + 1, 4 * PAGE_ROWS + 7])
    def test_has_each_row_once(self, count: int) -> None:
        rows, shown, before = self.places(count), [], None
        while True:
            left = (row for row in rows if before is None or row.created <= before.created)
            page = page_of(left, lambda row: row, before)
            shown += page.rows
            assert len(page.rows) <= PAGE_ROWS
            if page.before is None:
                break
            before = place_in(str(page.before))
        assert shown == sorted(rows, reverse=True)

    def test_reads_no_more_than_it_shows(self) -> None:
        rows = iter(self.places(1000))
        page_of(rows, lambda row: row, None)
        assert len(list(rows)) > 1000 - PAGE_ROWS - 7

    @pytest.mark.parametrize("place", [Place(0, "a-b"), Place(10**11, "a@b.example/\n")])
    def test_takes_every_id(self, place: Place) -> None:
        assert place_in(str(place)) == place

    def test_reads_no_whole_list_for_a_few_rows(self) -> None:
        rows, before, pages = self.places(2 * MAX_READ + 10), None, 0
        shown = list[Place]()
        wanted = {rows[0], rows[MAX_READ + 5], rows[-1]}
        while True:
            left = (row for row in rows if before is None or row.created <= before.created)
            page = page_of(left, lambda row: row, before, is_shown=wanted.__contains__)
            shown, pages = shown + page.rows, pages + 1
            if page.before is None:
                break
            before = place_in(str(page.before))
        assert (set(shown), len(shown), pages) == (wanted, 3, 3)

    @pytest.mark.parametrize("text", [None, "", "x", "1-", "-1", "9" * 20 + "-a", "\u0661-a"])
    def test_begins_at_the_beginning(self, text: str | None) -> None:
        assert place_in(text) is None


class TestLongLists:
    def test_page_takes_few_calls(
        self, pages: FlaskClient, world: World, customer: Customer
    ) -> None:
        """With 100,000 customers as with few: an index is read until the page is full."""
        for number in range(2, 70):
            StripeCustomer.create(User(f"u-{number}"), EMAIL, allow_existing=True)
        with world.counting() as counts:
            first = pages.get("/customers")
        assert [operation for operation in counts.operations if operation != "Query"] == []
        assert len(counts.operations) <= 8
        (older,) = re.findall(r'rel="next" href="([^"]+)"', first.text)
        second = pages.get(older.replace("&amp;", "&"))
        ids = re.findall(r"<code>(cus_\w+)</code>", first.text + second.text)
        assert len(ids) == len(set(ids)) == 69


class TestCharts:
    def test_have_metrics_of_the_product(self) -> None:
        shown = {each.metric for chart in charts.CHARTS for each in chart.series}
        assert shown <= {metric.title for metric in Metric}
        assert charts._NAMESPACE == NAMESPACE
