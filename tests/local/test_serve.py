"""The invocations that `make serve` shows, matched with their requests."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.cloud import ROOT, STACK
from local.function_logs import OVERLAP_MILLISECONDS
from local.live_line import live_lines
from local.serve import MATCH_SECONDS, SERVED, Watcher, request
from stripe_integrations.models import Customer
from tests.local.live_cloud import API, PREFIX, WEBHOOK, LiveCloud, custom_handlers
from tests.world import World

INVOKE = f"/2015-03-31/functions/{STACK}-GetCustomer-41DB8F91D0D0F/invocations?Qualifier=live"

DOCUMENT = ROOT / "docs" / "local.md"


@pytest.mark.parametrize(
    ("line", "function", "status", "cause"),
    [
        (f"POST {API}/customers 201 9000", "create_customer", "201", "POST /customers"),
        (f"GET {API}/customers/u 404 9000", "get_customer", "404", "GET /customers/u"),
        (f"POST {API}/customers/u/sync 200 9", "sync_customer", "200", "POST /customers/u/sync"),
        (f"PATCH {API}/customers/u 200 9", "update_customer", "200", "PATCH /customers/u"),
        (f"DELETE {API}/customers/u 204 9", "soft_delete_customer", "204", "DELETE /customers/u"),
        (f"POST {WEBHOOK} 400 9000", "link_customer", "400", "POST webhook"),
        (f"POST {API}/webhook 200 9000", "link_customer", "200", "POST /webhook"),
        (
            f"GET {API}/customers?user_id=a%2Fb 404 9000",
            "get_customer",
            "404",
            "GET /customers?user_id=a%2Fb",
        ),
        (f"GET {API}/elsewhere 404 9000", "-", "404", "GET /elsewhere"),
        (f"POST {INVOKE} 200 9000", "get_customer", "200", "invoke"),
        (f"POST {INVOKE.replace('GetCustomer', 'Other')} 404 9000", "-", "404", "invoke"),
    ],
)
def test_request_names_its_function(line: str, function: str, status: str, cause: str) -> None:
    served = SERVED.search(PREFIX + line)
    assert served
    shown = request(served)
    assert (shown.function, shown.status, shown.cause) == (function, status, cause)


def test_calls_to_aws_are_left_out() -> None:
    assert not SERVED.search(PREFIX + "POST / 200 900")
    assert not SERVED.search(PREFIX + "PUT /artifacts/key 200 900")


@pytest.fixture
def live(world: World, log: io.StringIO, tmp_path: Path) -> LiveCloud:
    return LiveCloud(world, log, tmp_path)


@pytest.fixture
def watcher(world: World, live: LiveCloud) -> Watcher:
    return Watcher(live, clock=lambda: world.time)  # type: ignore[arg-type]


class TestDocument:
    def test_shows_the_live_log(
        self,
        world: World,
        live: LiveCloud,
        watcher: Watcher,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.delenv("VERBOSE", raising=False)
        shown: list[str] = []
        with custom_handlers(world, tmp_path):
            for _ in self.story(world, live):
                for seen in [*watcher.new(), *watcher.new()]:
                    shown += [line.plain for line in live_lines(seen, "10:31:07")]
        (block,) = re.findall(
            r"^```text\n(.*?)^```$", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE
        )
        assert self.comparable("\n".join(shown)) == self.comparable(block.rstrip("\n"))

    def story(self, world: World, live: LiveCloud) -> Iterator[None]:
        """Do what the document shows, one step after the other."""
        with live.invoking("create_customer", f"POST {API}/customers 201 9000"):
            customer = str(world.create("user-1")["json"]["stripe_id"])
        yield
        with live.invoking("link_customer", f"POST {WEBHOOK} 200 9000"):
            world.deliver()
        yield
        with live.invoking("apply_event"):
            world.stream()
        yield
        with live.invoking("get_customer", f"GET {API}/customers/user-2 404 9000"):
            world.get("user-2")
        yield
        for kind in ("invoice.paid", "invoice.voided"):
            live.emit(kind, customer=customer)
            with live.invoking("link_customer", f"POST {WEBHOOK} 200 9000"):
                world.deliver()
            yield
        with live.invoking("apply_event"):
            world.stream()
        yield
        with live.invoking("reconcile_events"):
            world.reconcile()
        yield

    def comparable(self, text: str) -> list[str]:
        """The lines of a live log in a fixed order, without what differs each time."""
        for pattern, shown in (
            (r"\d\d:\d\d:\d\d", "TIME"),
            (r" +\d+ ms", " N ms"),
            (r"evt_\w+", "evt"),
            (r"in \d+ s", "in N s"),
            (r"swept=\d+", "swept=N"),
            (r"\d \w+, \d \w+$", "counts"),
        ):
            text = re.sub(pattern, shown, text, flags=re.MULTILINE)
        return sorted(text.splitlines())


class TestWatcher:
    def new(self, watcher: Watcher) -> list[tuple[str, str, float, str, str]]:
        return [
            (seen.function, seen.status, seen.milliseconds, seen.cause, seen.outcome)
            for seen in watcher.new()
        ]

    def test_request_has_the_outcome_that_its_function_logged(
        self, world: World, live: LiveCloud, watcher: Watcher
    ) -> None:
        with live.invoking("get_customer", f"GET {API}/customers/u-1 404 80000"):
            world.get()
        outcome = "Not Found: CustomerNotFoundError: this user has no customer"
        expected = ("get_customer", "404", 80.0, "GET /customers/u-1", outcome)
        assert self.new(watcher) == [expected]
        assert self.new(watcher) == []

    def test_requests_at_once_are_matched_by_status(
        self, world: World, live: LiveCloud, watcher: Watcher, customer: Customer
    ) -> None:
        with live.invoking("get_customer"):
            world.get("u-2")
        with live.invoking("get_customer", f"GET {API}/customers/{customer.user_id} 200 9000"):
            world.get()
        live.serve(f"GET {API}/customers/u-2 404 9000")
        found, missing = self.new(watcher)
        assert found[3:] == ("GET /customers/u-1", "")
        assert missing[3:] == (
            "GET /customers/u-2",
            "Not Found: CustomerNotFoundError: this user has no customer",
        )

    def test_request_without_invocation_is_shown(self, live: LiveCloud, watcher: Watcher) -> None:
        live.serve(f"GET {API}/elsewhere 404 2000")
        live.serve(f"GET {API}/customers/u-1 499 3000")
        assert self.new(watcher) == [
            ("-", "404", 2.0, "GET /elsewhere", "Not Found"),
            ("get_customer", "499", 3.0, "GET /customers/u-1", ""),
        ]

    def test_invoked_function_has_its_own_status(
        self, world: World, live: LiveCloud, watcher: Watcher
    ) -> None:
        with live.invoking("get_customer", f"POST {INVOKE} 200 80000"):
            world.get()
        outcome = "CustomerNotFoundError: this user has no customer"
        assert self.new(watcher) == [("get_customer", "404", 12.3, "invoke", outcome)]

    def test_refused_invoke_is_shown(self, live: LiveCloud, watcher: Watcher) -> None:
        live.serve(f"POST {INVOKE} 202 1000")
        live.serve(f"POST {INVOKE} 429 1000")
        refused = ("get_customer", "429", 1.0, "invoke", "Too Many Requests")
        assert self.new(watcher) == [refused]

    def test_invocation_without_request_has_its_usual_cause(
        self, world: World, live: LiveCloud, watcher: Watcher
    ) -> None:
        with live.invoking("reconcile_events"):
            world.reconcile()
        assert self.new(watcher) == []
        outcome = "swept=0 recovered=0 attempted=0"
        assert self.new(watcher) == [("reconcile_events", "ok", 12.3, "schedule", outcome)]
        assert self.new(watcher) == []

    def test_invoked_background_function_is_shown_once(
        self, world: World, live: LiveCloud, watcher: Watcher
    ) -> None:
        with live.invoking("reconcile_events"):
            world.reconcile()
        assert self.new(watcher) == []
        live.serve(f"POST {INVOKE.replace('GetCustomer', 'ReconcileEvents')} 200 80000")
        (shown,) = self.new(watcher)
        assert (shown[0], shown[3]) == ("reconcile_events", "invoke")
        assert self.new(watcher) == []

    def test_webhook_of_event_bridge_has_no_request(
        self, world: World, live: LiveCloud, customer: Customer
    ) -> None:
        live.webhook_url = ""
        watcher = Watcher(live, clock=lambda: world.time)  # type: ignore[arg-type]
        with live.invoking("link_customer"):
            world.deliver()
        shown = [*watcher.new(), *watcher.new()]
        assert [(seen.cause, seen.events[0].stored.owner) for seen in shown] == [
            ("EventBridge", customer.user_id)
        ]

    def test_log_of_lost_request_is_not_that_of_a_later_one(
        self, world: World, live: LiveCloud, watcher: Watcher
    ) -> None:
        with live.invoking("get_customer", f"GET {API}/elsewhere 404 1000"):
            world.get()
        live.serve(f"GET {API}/customers/u-2 200 1000")
        assert len(self.new(watcher)) == 2
        world.time += MATCH_SECONDS
        assert self.new(watcher) == []
        live.serve(f"GET {API}/customers/u-2 404 1000")
        (shown,) = self.new(watcher)
        assert shown[4] == "Not Found"

    def test_each_invocation_is_shown_once(
        self, world: World, live: LiveCloud, watcher: Watcher
    ) -> None:
        shown = []
        for _ in range(5):
            with live.invoking("reconcile_events"):
                world.reconcile()
            shown += self.new(watcher)
            world.time += OVERLAP_MILLISECONDS / 2000
        shown += [*self.new(watcher), *self.new(watcher)]
        assert len(shown) == 5

    def test_earlier_invocations_are_not_shown(self, world: World, live: LiveCloud) -> None:
        with live.invoking("reconcile_events", f"GET {API}/customers/u-1 404 1000"):
            world.reconcile()
        world.time += 1
        watcher = Watcher(live, clock=lambda: world.time)  # type: ignore[arg-type]
        assert [*watcher.new(), *watcher.new()] == []
