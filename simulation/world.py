"""The run of one history: the product's functions with everything around them."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from http import HTTPStatus
from typing import Any

from local.stripe_double.client import StripeDoubleClient
from simulation.aws import APPLYING, SimulatedDatabase, SimulatedService
from simulation.chance import chance
from simulation.custom_handlers import REFERENCE as HANDLER
from simulation.custom_handlers import CustomHandlers
from simulation.database import Database
from simulation.database.transport import responding
from simulation.deliveries import SECRET, URL, Deliveries
from simulation.deployment import TABLE_NAME, mapping_rules, table_definition
from simulation.faults import Faults
from simulation.history import PRIOR_CUSTOMERS, Action, History, generate
from simulation.invariants import (
    ApiCall,
    FinalState,
    check_adopted,
    check_creates,
    check_erasures,
    check_events,
    check_replay,
    check_state,
    check_updates,
    check_verified,
    check_walks,
    listed_customers,
    released_customers,
    unknown_customers,
    users_with_failed_events,
)
from simulation.mapping import StreamMapping
from simulation.processes import Fleet, Invocation, Outcome, sleep
from simulation.runtime import client
from simulation.schedule import START, Schedule
from simulation.sizes import sized
from simulation.stripe_actor import ACTIONS, USER_METADATA, StripeActor
from simulation.stripe_side import API_KEY, SimulatedStripe, StripeConnection
from simulation.timer import EVERY_SECONDS, Timer
from simulation.walks import WALK, WALKING, Walks
from simulation.watch import Violation, Watch, text
from simulation.worker import RELEASE, VERIFY
from stripe_integrations.adapters.stripe_gateway import READ_SECONDS
from stripe_integrations.config import ExistingCustomers, Settings, UnassignedCustomers
from stripe_integrations.errors import InvocationFailedError, StripeIntegrationsError
from stripe_integrations.models import KINDS
from stripe_integrations.models.event import QUEUES, WAITING_QUEUE
from tools.lambda_events import api_event

Json = dict[str, Any]

_DEPLOYED_SECONDS = 60.0
"""Seconds between the deployment of the stack and the first action."""
_FAULTS_STOP_AFTER_SECONDS = 1.0
_LONGEST_SECONDS = 5 * 86_400.0
_INDEX_SECONDS = 15.0
"""Seconds after which the index has every failed event."""
_REPLAY_SECONDS = 2 * 86_400.0
_IDLE_SECONDS = 4 * 3600.0
_OVERTAKING_SECONDS = 0.1
_WALKED_PAGE = 2
"""How many objects a page of the account's lists has in histories with runs."""
_WITHOUT_BODY = {"get": ("GET", ""), "sync": ("POST", "/sync"), "soft_delete": ("DELETE", "")}
"""The method of these calls, and what follows the user's path."""
_NEW_USER = 100
"""The number of the first user who has no customer before the history ends."""


@dataclass
class Report:
    """The result of a history.

    Parameters
    ----------
    violations : list of Violation
        The promises that were broken.
    counts : Counter
        What happened, and how often.
    happened : list of str
        The faults that happened, by name.
    trace : str
        A digest of every step in order.
    log : list of str
        Every step in words, for a verbose run.
    seed : int
        The seed of the history.
    seconds : float
        Processor time that the run took.
    """

    violations: list[Violation] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    happened: list[str] = field(default_factory=list)
    trace: str = ""
    log: list[str] = field(default_factory=list)
    seed: int = 0
    seconds: float = 0.0


def run_history(history: History, *, verbose: bool = False) -> Report:
    """Run a history to its end and check the invariants.

    Parameters
    ----------
    history : History
        What is to happen.
    verbose : bool
        Whether the report has every step in words.
    """
    dynamodb = client()
    begun = time.process_time()
    with sized(history.sizes):
        world = World(history, verbose=verbose)
        CustomHandlers.running = world.handlers
        with responding(dynamodb, world.database_side.respond):
            world.run()
    world.report.seconds = time.process_time() - begun
    return world.report


def run_seed(seed: int) -> Report:
    """Run the history of a seed; the entry point of the worker processes."""
    return run_history(generate(seed))


class World:
    """The product's functions and everything around them in one history."""

    def __init__(self, history: History, *, verbose: bool = False) -> None:
        self.history = history
        self.report = Report(seed=history.seed)
        self._verbose = verbose
        self._digest = blake2b(digest_size=16)
        self.schedule = Schedule(START - _DEPLOYED_SECONDS)
        profile = history.fault_profile
        every_kind = frozenset(kind.__name__ for kind in KINDS)
        self.faults = Faults(history.seed, profile, history.only)
        self.stripe = SimulatedStripe(
            history.seed,
            self.schedule,
            profile.list_lag,
            emits_lost_defaults=history.emits_lost_defaults,
        )
        self.stripe.double.webhooks.add_endpoint(URL, SECRET, api_version=history.endpoint_version)
        self.fleet = Fleet(
            seed=history.seed,
            schedule=self.schedule,
            settings=Settings(
                table_name=TABLE_NAME,
                api_key=API_KEY,
                webhook_secret=SECRET,
                deployment_name="stripe-customers",
                event_bus_name="bus" if history.has_bus else None,
                publish_types=history.publish_types,
                event_handlers=dict.fromkeys(history.handled, HANDLER),
                stored_records=every_kind if history.stores_optional_kinds else None,
                existing_customers=ExistingCustomers.CHECK
                if history.checks_existing
                else ExistingCustomers.IGNORE,
                unassigned_customers=(
                    UnassignedCustomers.STORE
                    if history.stores_unassigned
                    else UnassignedCustomers.IGNORE
                ),
                adopt_from=USER_METADATA if history.adopts_by_metadata else None,
            ),
            faults=self.faults,
            make_http_client=self._make_http_client,
        )
        self.fleet.trace = self._trace
        self.queue = SimulatedService("queue", self.fleet)
        self.bus = SimulatedService("bus", self.fleet)
        self.erasure_log = SimulatedService("queue", self.fleet)
        lag = chance(history.seed, "index")
        self.database = Database(
            clock=lambda: self.schedule.now,
            index_delay=(lambda: lag.random() * profile.index_lag) if profile.index_lag else None,
        )
        self.database.request("CreateTable", table_definition())
        self.database_side = SimulatedDatabase(
            self.database, self.fleet, self._changed, self._on_success
        )
        stream = self.database.stream(TABLE_NAME)
        self.watch = Watch(
            stream.records, self.stripe.double, self._record_violation, lambda: self.schedule.now
        )
        self.handlers = CustomHandlers(
            history.handled, self.fleet, self.watch, self._record_violation
        )
        self.mapping = StreamMapping(
            schedule=self.schedule,
            shards=stream.shards,
            rules=mapping_rules(),
            invoke=self._invoke_with_records,
            on_failure=lambda message: self.queue.messages.append(json.dumps(message)),
            is_on=self._is_stream_on,
        )
        self.deliveries = Deliveries(
            self.schedule, self.stripe, self.fleet, self.faults, self._check_delivery
        )
        self.stripe.changed = self._on_stripe_event
        self.stripe_actor = StripeActor(history.seed, self.stripe, self.deliveries)
        if history.has_walks:
            self.stripe_actor.add_prior_customers(PRIOR_CUSTOMERS)
            self.stripe.page_limit = _WALKED_PAGE
            self.stripe.overtake = self._overtake
        self.walks = Walks(
            schedule=self.schedule,
            fleet=self.fleet,
            actor=self.stripe_actor,
            watch=self.watch,
            check_outcome=self._check_outcome,
            note_change=self._note_change,
        )
        self.fleet.context_options = {
            "send_dead_letter": self.queue.send,
            "publish": self.bus.send,
            "log_erasure": lambda ids: self.erasure_log.send({"customer_ids": ids}),
            "store_report": self.walks.bucket.store,
            "read_file": self.walks.bucket.read_lines,
        }
        self.final = FinalState(
            watch=self.watch,
            stripe=self.stripe,
            stripe_actor=self.stripe_actor,
            dead_letters=self.queue.messages,
            bus=self.bus if history.has_bus else None,
            publish_types=history.publish_types,
            stores_unassigned=history.stores_unassigned,
            handlers=self.handlers,
            kinds=[k for k in KINDS if k.IS_DEFAULT or history.stores_optional_kinds],
            poisonous=self.faults.poisonous,
            walks=self.walks,
        )
        self.timer = Timer(
            self.schedule,
            history.seed,
            self.fleet,
            self._longest_pause,
            partial(self._check_outcome, "reconcile_events"),
        )
        self._last_change = START
        self._is_verifying = False

    def _make_http_client(self) -> StripeDoubleClient:
        connection = StripeConnection(self.stripe, lambda: self.fleet)
        return StripeDoubleClient(connection, sleep, READ_SECONDS)

    def run(self) -> None:
        """Run all actions until nothing is in progress, and check the invariants."""
        self.timer.run()
        for action in self.history.actions:
            self.schedule.at(START + action.at, partial(self._do, action))
        end = START + self.history.length
        self.schedule.at(end + _FAULTS_STOP_AFTER_SECONDS, self._stop_faults)
        self._run_until_quiet(end + _LONGEST_SECONDS)
        self._report_violations(check_events(self.final))
        self._report_violations(check_updates(self.final))
        self._report_violations(check_creates(self.final))
        self._report_violations(check_walks(self.final))
        self._report_violations(check_erasures(self.final))
        skipped_users = users_with_failed_events(self.final)
        self._report_violations(check_state(self.final, skipped_users))
        if self._replay_failed():
            self._run_until_quiet(self.schedule.now + _REPLAY_SECONDS)
            self._report_violations(check_replay(self.final))
            self._report_violations(check_walks(self.final))
            self._report_violations(check_state(self.final))
        if self._adopt_released():
            self._run_until_quiet(self.schedule.now + _REPLAY_SECONDS)
            self._report_violations(check_adopted(self.final))
            self._report_violations(check_state(self.final))
        if self.history.has_walks:
            self.stripe_actor.add_prior_customers(1)
            unknown = unknown_customers(self.final)
            self._verify()
            self._run_until_quiet(self.schedule.now + _REPLAY_SECONDS)
            self._report_violations(check_verified(self.final, unknown))
            self._report_violations(check_state(self.final))
        self.fleet.end()
        self._complete_report()

    def _do(self, action: Action) -> None:
        self._trace("action", action.name, str(action))
        if action.kind == "move_metadata" and self._is_ambiguous(action.user):
            pass
        elif action.kind == "release" and self._has_copy(action.user):
            pass  # nothing would remember that the copy is one
        elif action.kind == "change_erased":
            self.stripe_actor.change_erased(action, sorted(self.watch.erased))
        elif action.kind in ACTIONS:
            self.stripe_actor.do(action)
        elif action.kind in ("adopt", "erase") and not self._has_existing(action):
            pass  # the customer does not exist yet
        else:
            self._call(action)
        self._note_change()

    def _has_existing(self, action: Action) -> bool:
        """Return whether the existing customer that an action names, if it does, exists yet."""
        is_prior = bool(action.values.get("is_prior"))
        which = int(action.values.get("which", -1))
        return is_prior or which < len(self.stripe_actor.existing)

    def _is_ambiguous(self, user: int) -> bool:
        """Return whether a copy could not be told from the customer of the user.

        Its create is unfinished, or it is being released, or the undoing of a run may release it.
        """
        images = self.watch.images
        claim = images.get((f"USER#u-{user}", "CLAIM"))
        is_creating = claim is not None and "stripe_id" not in claim
        pointer = images.get((f"STRIPE#{text(claim or {}, 'stripe_id')}", "POINTER"), {})
        return is_creating or "has_metadata" in pointer or self.watch.releasing[f"u-{user}"] > 0

    def _has_copy(self, user: int) -> bool:
        claim = self.watch.images.get((f"USER#u-{user}", "CLAIM"), {})
        return text(claim, "stripe_id") in self.stripe_actor.moved

    def _stop_faults(self) -> None:
        """Let no further faults happen."""
        self.faults.is_stopped = True
        self._note_change()
        self.mapping.poll()

    # ---- the backend

    def _call(self, action: Action) -> None:
        if action.kind == "replay":
            self._replay(action)
            return
        if action.kind == "rebuild":
            self.walks.rebuild(action)
            return
        if action.kind == "walk":
            self.report.counts["runs"] += 1
            self.walks.begin(action)
            return
        if action.kind == "metadata":
            self.walks.write_metadata(action)
            return
        if action.kind == "erase":
            self._erase(action)
            return
        is_prior = action.values.get("is_prior")
        actor = self.stripe_actor
        self._invoke_api(action, actor.prior if is_prior else actor.existing)

    def _invoke_api(self, action: Action, existing: Sequence[str]) -> None:
        user_id = f"u-{action.user}"
        function, event = _api_call(action, user_id, existing)
        known = self._existing_customers(action)
        call = ApiCall(action.kind, user_id, self.schedule.now, name=action.name, existing=known)
        self.final.calls.append(call)
        is_release = action.kind == "release"
        is_adoption = action.kind == "adopt"
        self.watch.releasing[user_id] += is_release
        self.watch.adopting[user_id] += is_adoption

        def then(outcome: Outcome) -> None:
            call.ended, call.status = self.schedule.now, outcome.status
            self.watch.releasing[user_id] -= is_release
            self.watch.adopting[user_id] -= is_adoption
            self._trace("response", action.name, call.status)
            self.report.counts[f"responses {call.status}"] += 1
            if call.status == HTTPStatus.CONFLICT:
                call.refused_for = tuple(json.loads(outcome.response["body"]).get("stripe_ids", ()))
                self.report.counts["creates beside existing customers"] += bool(call.refused_for)
            self._check_outcome(function, outcome)
            if call.status == 500:
                detail = f"{action.kind} {user_id}: {outcome.response['body']}"
                self._record_violation(Violation("the API never returns 500", detail))

        self.fleet.invoke(function, event, action.name, then)

    def _existing_customers(self, action: Action) -> set[str]:
        """The customers on Stripe that a create must not create another one beside."""
        if not self.history.checks_existing or action.values.get("allow_existing", True):
            return set()
        with_email = self.stripe_actor.existing_with(action.values["email"])
        images = self.watch.images
        return {
            i
            for i in with_email
            if not images.get((f"STRIPE#{i}", "POINTER"), {}).keys() & {"user_id", "erased_at"}
        }

    def _erase(self, action: Action) -> None:
        which = action.values.get("which")
        named = {"user_id": f"u-{action.user}"}
        if which is not None:
            named = {"stripe_id": self.stripe_actor.existing[which]}
        event = {**named, "delete_on_stripe": action.values["delete_on_stripe"]}
        call = ApiCall("erase", named.get("user_id", ""), self.schedule.now, name=action.name)
        self.final.calls.append(call)

        def then(outcome: Outcome) -> None:
            self._check_outcome("erase_customer", outcome)
            if not outcome.died and outcome.error is None:
                call.ended = self.schedule.now
                self.report.counts["customers erased"] += len(outcome.response["customer_ids"])

        self.fleet.invoke("erase_customer", event, action.name, then)

    def _replay(self, action: Action) -> None:
        event: Json = {"failed": True}
        if action.values["how"] == "range":
            event = {"created_from": int(START), "created_to": int(self.schedule.now)}
        self._invoke_replay(event, action.name)

    def _replay_failed(self) -> bool:
        failed = any(e["state"]["S"] == "failed" for e in self.watch.events.values())
        if not failed:
            return False
        self.faults.is_cured = True
        self.report.counts["replays of failed events"] += 1
        again = partial(self._invoke_replay, {"failed": True}, "replay at the end")
        self.schedule.after(_INDEX_SECONDS, again)
        self._note_change()
        return True

    def _invoke_replay(self, event: Json, name: str) -> None:
        then = partial(self._check_outcome, "replay_events")
        self.fleet.invoke("replay_events", event, name, then)

    def _adopt_released(self) -> bool:
        """Let other users adopt what was released; return whether there is any."""
        released = released_customers(self.final)
        for number in range(len(released)):
            self.report.counts["adoptions of released customers"] += 1
            values = {"which": number, "take_over": False}
            adoption = Action(
                f"adoption {number} at the end", 0, "adopt", _NEW_USER + number, values
            )
            self._invoke_api(adoption, released)
        self._note_change()
        return bool(released)

    def _verify(self) -> None:
        """Compare the account with the table, after a change that no event reports."""
        self.stripe.page_limit = None
        for stripe_id in listed_customers(self.final)[:1]:
            self.stripe_actor.change_silently(stripe_id)

        def then(outcome: Outcome) -> None:
            self._is_verifying = False
            self._check_outcome(VERIFY, outcome)
            if not outcome.died and not outcome.error:
                self.final.differences = outcome.response["differences"]
                self.report.counts["differences verified"] += len(self.final.differences)

        self._is_verifying = True
        self.fleet.invoke(VERIFY, {}, "verification at the end", then)
        self._note_change()

    # ---- stream, webhook and schedule

    def _invoke_with_records(self, records: list[Json], then: Callable[[Outcome], None]) -> None:
        def finished(outcome: Outcome) -> None:
            self._check_outcome("apply_event", outcome)
            then(outcome)
            self.mapping.poll()

        first = records[0]["dynamodb"]
        name = f"stream {first['Keys']['pk']['S'][:16]} {len(records)}"
        self.fleet.invoke("apply_event", {"Records": records}, name, finished)

    def _is_stream_on(self) -> bool:
        off_from, off_until = self.history.fault_profile.stream_off
        return not off_from <= self.schedule.now - START < off_until

    def _on_stripe_event(self, event: Json) -> None:
        self._trace("event", event["type"], event["id"])
        self._note_change()
        self.schedule.after(0, self.deliveries.send_due)

    def _overtake(self, name: str, objects: list[Json]) -> None:
        """Let a change happen after a page of a walk was read, and before it arrives."""
        if not self.faults.is_stopped:
            change = partial(self.stripe_actor.overtake, f"overtaking {name}", objects)
            self.schedule.after(_OVERTAKING_SECONDS, change)

    def _changed(self) -> None:
        self.watch.check_changes()
        self.mapping.poll()

    def _on_success(self, invocation: Invocation, operation: str, body: Json) -> None:
        self.watch.writer = invocation.function
        self._check_order(invocation, operation, body)

    def _check_order(self, invocation: Invocation, operation: str, body: Json) -> None:
        """Check that the schedule reads the pending events before the waiting ones."""
        if operation != "Query" or "<=" not in body["KeyConditionExpression"]:
            return
        values = {value.get("S") for value in body["ExpressionAttributeValues"].values()}
        is_early = WAITING_QUEUE in values and not invocation.queues_read.issuperset(QUEUES)
        if is_early and not invocation.has_fault:
            self._record_violation(
                Violation("pending events are read before waiting ones", invocation.name)
            )
        invocation.queues_read |= values & {*QUEUES}

    def _note_change(self) -> None:
        self._last_change = self.schedule.now
        self.timer.reset_pause()

    def _run_until_quiet(self, latest: float) -> None:
        self.schedule.run(lambda: self.schedule.now < latest and not self._is_done())

    def _is_done(self) -> bool:
        return (
            self.faults.is_stopped
            and self._is_quiet()
            and not self.watch.unfinished
            and not self.watch.metadata_updates
            and not self.watch.due_fetches
            and self.walks.are_over
            and not self._is_verifying
            and not self.watch.erasures
            and self.timer.has_run_since(self._last_change)
        )

    def _longest_pause(self) -> float:
        """Maximum pause of the schedule in seconds: while idle, until something is due."""
        if not self._is_stream_idle() or self.fleet.is_busy():
            return EVERY_SECONDS
        watch = self.watch
        due = [*watch.unfinished, *watch.metadata_updates, *watch.due_fetches, *watch.erasures]
        times = [float(item["next_attempt"]["N"]) for item in due]
        if not self.deliveries.is_idle:
            times.append(self.deliveries.next_at())
        until = min(times, default=self.schedule.now + _IDLE_SECONDS) - self.schedule.now
        return max(EVERY_SECONDS, until + EVERY_SECONDS)

    def _is_quiet(self) -> bool:
        """Return whether nothing is in progress except what the schedule has to recover."""
        return self.deliveries.is_idle and self._is_stream_idle() and not self.fleet.is_busy()

    def _is_stream_idle(self) -> bool:
        return self.mapping.is_idle or not self._is_stream_on()

    def _check_delivery(self, event_id: str, outcome: Outcome) -> None:
        self._check_outcome("link_customer", outcome)
        if 200 <= outcome.status < 300:
            self.final.accepted.add(event_id)
            if event_id not in self.watch.events:
                self._record_violation(Violation("an accepted event is stored", event_id))

    # ---- invariants

    def _check_outcome(self, function: str, outcome: Outcome) -> None:
        error = outcome.error
        is_retried = function in (*APPLYING, *WALKING, "erase_customer")
        is_bug = function in WALKING and isinstance(error, InvocationFailedError)
        if is_retried and isinstance(error, StripeIntegrationsError) and not is_bug:
            # Lambda, or the operator who invoked it, retries.
            return
        if error is not None:
            detail = f"{function}: {type(error).__name__}: {error}"
            self._record_violation(Violation("no exception leaves a handler", detail))

    def _report_violations(self, violations: Iterable[Violation]) -> None:
        for violation in violations:
            self._record_violation(violation)

    def _record_violation(self, violation: Violation) -> None:
        if violation not in self.report.violations:
            self.report.violations.append(violation)
            self._trace("VIOLATION", str(violation))

    def _complete_report(self) -> None:
        counts = self.report.counts
        counts += self.faults.counts
        counts += self.fleet.counts
        counts += self.deliveries.counts
        counts += self.mapping.counts
        counts["metadata written by runs"] += sum(
            function == WALK for function, _, _ in self.stripe.writes
        )
        counts["events recovered by the sweep"] += len(
            self.deliveries.lost & self.watch.events.keys()
        )
        for event in self.watch.events.values():
            counts[f"events {event['state']['S']}"] += 1
        self.report.happened = self.faults.happened
        self.report.trace = self._digest.hexdigest()

    def _trace(self, *parts: object) -> None:
        line = f"{self.schedule.now - START:12.3f} {' '.join(map(str, parts))}"
        self._digest.update(line.encode())
        if self._verbose:
            self.report.log.append(line)


def _api_call(action: Action, user_id: str, existing: Sequence[str]) -> tuple[str, Json]:
    """The function that serves a call of the backend, and its event.

    Parameters
    ----------
    action : Action
        The call.
    user_id : str
        The user that it is about.
    existing : sequence of str
        The customers of Stripe's that users may adopt.
    """
    path = f"/customers/{user_id}"
    match action.kind:
        case "create" | "refused":
            body = {"user_id": user_id, "billing_email": action.values["email"], **_fields(action)}
            if "allow_existing" in action.values:
                body["allow_existing"] = action.values["allow_existing"]
            return "create_customer", api_event("POST", "/customers", body=json.dumps(body))
        case "adopt":
            which, take_over = action.values["which"], action.values["take_over"]
            body = {"stripe_id": existing[which], "take_over": take_over}
            return "adopt_customer", api_event("PUT", path, user_id, body=json.dumps(body))
        case "get" | "sync" | "soft_delete" as kind:
            method, under = _WITHOUT_BODY[kind]
            return f"{kind}_customer", api_event(method, f"{path}{under}", user_id)
        case "api_update":
            body = {action.values["field"]: action.values["value"]}
            key = action.values["key"]
            headers = {"Idempotency-Key": key} if key else {}
            event = api_event("PATCH", path, user_id, body=json.dumps(body), headers=headers)
            return "update_customer", event
        case "release":
            return RELEASE, {"user_id": user_id}
    raise ValueError(f"unknown kind of action: {action.kind}")


def _fields(action: Action) -> Json:
    match action.values.get("how"):
        case "card":
            return {"default_source": "tok_chargeDeclined"}
        case "prefix":
            return {"invoice_prefix": "no"}
    fields_given = {"name": action.values["name"], "metadata": {"plan": "free"}}
    return {**fields_given, **({"default_source": "tok_visa"} if action.values["card"] else {})}
