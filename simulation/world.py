"""One history, played: the product's functions, what stands around them, and what is judged."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from typing import Any

from simulation.aws import SimulatedDatabase, SimulatedService
from simulation.chance import chance
from simulation.database import Database
from simulation.deliveries import SECRET, URL, Deliveries
from simulation.deployment import TABLE_NAME, mapping_rules, table_definition
from simulation.faults import Faults
from simulation.history import Action, History
from simulation.judge import (
    ApiCall,
    Evidence,
    judge_events,
    judge_replay,
    judge_state,
    users_with_failed_events,
)
from simulation.mapping import StreamMapping
from simulation.own_handlers import REFERENCE as HANDLER
from simulation.own_handlers import OwnHandlers
from simulation.processes import Fleet, Outcome
from simulation.runtime import settings, stage
from simulation.schedule import START, Schedule
from simulation.sizes import sized
from simulation.stripe_actions import ACTIONS, Others
from simulation.stripe_side import SimulatedHttpClient, SimulatedStripe
from simulation.timer import EVERY_SECONDS, Timer
from simulation.watch import Violation, Watch, text
from stripe_integrations.errors import StripeIntegrationsError
from tools.lambda_events import api_event

Json = dict[str, Any]

_HTTP_FUNCTIONS = (
    "create_customer",
    "get_customer",
    "sync_customer",
    "soft_delete_customer",
    "link_customer",
)
_DEPLOYED_SECONDS = 60.0
"""How long the stack is there, its schedule running, before anything happens."""
_CALM_AFTER_SECONDS = 1.0
_LONGEST_SECONDS = 5 * 86_400.0
_INDEX_SECONDS = 15.0
"""After which the index is sure to show what has failed."""
_REPLAY_SECONDS = 2 * 86_400.0
_TRYING_SECONDS, _WAITING_SECONDS = 1800.0, 4 * 3600.0


@dataclass
class Report:
    """What came of a history.

    Parameters
    ----------
    violations : list of Violation
        The promises that were broken.
    counts : Counter
        What happened, and how often.
    happened : list of str
        The faults, by name.
    trace : str
        A digest of everything that was done, in its order.
    log : list of str
        The same in words, where it was asked for.
    """

    violations: list[Violation] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    happened: list[str] = field(default_factory=list)
    trace: str = ""
    log: list[str] = field(default_factory=list)


def play(history: History, *, is_told: bool = False) -> Report:
    """Play a history to its end and judge it.

    Parameters
    ----------
    history : History
        What is to happen.
    is_told : bool
        Whether the report says every step in words.
    """
    with sized(history.sizes):
        world = World(history, is_told=is_told)
        stage().answer = world.database_side.answer
        stage().heed = world.handlers.heed
        world.play()
    return world.report


class World:
    """Everything that one history is played with."""

    def __init__(self, history: History, *, is_told: bool = False) -> None:
        self.history = history
        self.report = Report()
        self._is_told = is_told
        self._digest = blake2b(digest_size=16)
        self.schedule = Schedule(START - _DEPLOYED_SECONDS)
        weather = history.weather
        self.faults = Faults(history.seed, weather, history.only)
        self.stripe = SimulatedStripe(
            history.seed,
            self.schedule,
            self.faults,
            weather.list_lag,
            tells_of_lost_defaults=history.tells_of_lost_defaults,
        )
        self.stripe.double.webhooks.add_endpoint(URL, SECRET, api_version=history.endpoint_version)
        self.fleet = Fleet(
            seed=history.seed,
            schedule=self.schedule,
            settings=settings(
                event_bus_name="bus" if history.has_bus else None,
                event_handlers=dict.fromkeys(history.handled, HANDLER),
            ),
            faults=self.faults,
            surroundings={"send_dead_letter": self._send_dead_letter, "publish": self._publish},
            make_http_client=lambda: SimulatedHttpClient(self.stripe, lambda: self.fleet),
        )
        self.fleet.trace = self._trace
        self.queue = SimulatedService("queue", self.fleet)
        self.bus = SimulatedService("bus", self.fleet)
        lag = chance(history.seed, "index")
        self.database = Database(
            clock=lambda: self.schedule.now,
            index_delay=(lambda: lag.random() * weather.lag) if weather.lag else None,
        )
        self.database.request("CreateTable", table_definition())
        self.database_side = SimulatedDatabase(self.database, self.fleet, self._changed)
        stream = self.database.stream(TABLE_NAME)
        self.watch = Watch(
            stream.records, self.stripe.double, self._found, lambda: self.schedule.now
        )
        self.handlers = OwnHandlers(history.handled, self.fleet, self.watch, self._found)
        self.mapping = StreamMapping(
            schedule=self.schedule,
            shards=stream.shards,
            rules=mapping_rules(),
            invoke=self._invoke_with_records,
            give_up=lambda message: self.queue.messages.append(json.dumps(message)),
            is_on=self._is_stream_on,
        )
        self.accepted: set[str] = set()
        self.deliveries = Deliveries(
            self.schedule, self.stripe, self.fleet, self.faults, self._look_at_delivery
        )
        self.stripe.changed = self._happened_on_stripe
        self.others = Others(history.seed, self.stripe, self.deliveries)
        self.calls: list[ApiCall] = []
        self.timer = Timer(
            self.schedule,
            history.seed,
            self.fleet,
            self._longest_pause,
            self._expect("reconcile_events"),
        )
        self._last_change = START

    def play(self) -> None:
        """Play everything, until it is quiet, and judge what came of it."""
        self.timer.start()
        for action in self.history.actions:
            self.schedule.at(START + action.at, partial(self._do, action))
        end = START + self.history.length
        self.schedule.at(end + _CALM_AFTER_SECONDS, self._calm)
        self._run_until_quiet(end + _LONGEST_SECONDS)
        evidence = self._evidence()
        self._judge(judge_events(evidence))
        spared = users_with_failed_events(evidence)
        self._judge(judge_state(evidence, spared))
        if self._replay_failed():
            self._run_until_quiet(self.schedule.now + _REPLAY_SECONDS)
            self._judge(judge_replay(evidence))
            self._judge(judge_state(evidence))
        self.fleet.end()
        self._sum_up()

    def _do(self, action: Action) -> None:
        self._trace("action", action.name, str(action))
        if action.kind in ACTIONS:
            self.others.do(action)
        else:
            self._call(action)
        self._touch()

    def _calm(self) -> None:
        """From now on nothing goes wrong any more."""
        self.faults.is_over = True
        self._touch()
        self.mapping.notice()

    # ---- the backend

    def _call(self, action: Action) -> None:
        user_id = f"u-{action.user}"
        if action.kind == "replay":
            self._replay(action)
            return
        function, event = _api_call(action, user_id)
        call = ApiCall(action.kind, user_id, self.schedule.now)
        self.calls.append(call)

        def then(outcome: Outcome) -> None:
            call.ended, call.status = self.schedule.now, outcome.status
            self._trace("answer", action.name, call.status)
            self.report.counts[f"answers {call.status}"] += 1
            self._look_at(function, outcome)
            if call.status == 500:
                detail = f"{action.kind} {user_id}: {outcome.answer['body']}"
                self._found(Violation("the API never answers 500", detail))

        self.fleet.invoke(function, event, action.name, then)

    def _replay(self, action: Action) -> None:
        event: Json = {"failed": True}
        if action.values["how"] == "range":
            event = {"created_from": int(START), "created_to": int(self.schedule.now)}
        self.fleet.invoke("replay_events", event, action.name, self._expect("replay_events"))

    def _replay_failed(self) -> bool:
        failed = any(e["state"]["S"] == "failed" for e in self.watch.events.values())
        if not failed:
            return False
        self.faults.is_cured = True
        self.report.counts["replays of failed events"] += 1
        self.schedule.after(_INDEX_SECONDS, self._replay_all_failed)
        self._touch()
        return True

    def _replay_all_failed(self) -> None:
        then = self._expect("replay_events")
        self.fleet.invoke("replay_events", {"failed": True}, "replay at the end", then)

    # ---- what happens by itself

    def _invoke_with_records(self, records: list[Json], then: Callable[[Outcome], None]) -> None:
        def looked_at(outcome: Outcome) -> None:
            self._look_at("apply_event", outcome)
            then(outcome)
            self.mapping.notice()

        first = records[0]["dynamodb"]
        name = f"stream {first['Keys']['pk']['S'][:16]} {len(records)}"
        self.fleet.invoke("apply_event", {"Records": records}, name, looked_at)

    def _is_stream_on(self) -> bool:
        off_from, off_until = self.history.weather.stream_off
        return not off_from <= self.schedule.now - START < off_until

    def _happened_on_stripe(self, event: Json) -> None:
        self._trace("event", event["type"], event["id"])
        self._touch()
        self.schedule.after(0, self.deliveries.look)

    def _changed(self) -> None:
        self.watch.look()
        self.mapping.notice()

    def _touch(self) -> None:
        self._last_change = self.schedule.now
        self.timer.hurry()

    def _run_until_quiet(self, latest: float) -> None:
        self.schedule.run(lambda: self.schedule.now < latest and not self._is_done())

    def _is_done(self) -> bool:
        return (
            self.faults.is_over
            and self._is_quiet()
            and not self.watch.unfinished
            and self.timer.has_run_since(self._last_change)
        )

    def _longest_pause(self) -> float:
        """Seconds to which the schedule's pauses may grow: little is missed while all is quiet."""
        if not self._is_quiet():
            return EVERY_SECONDS
        is_trying = any(
            text(event, "state") == "pending" or "claimed_at" in event
            for event in self.watch.unfinished
        )
        return _TRYING_SECONDS if is_trying else _WAITING_SECONDS

    def _is_quiet(self) -> bool:
        """Whether nothing is under way, apart from what the schedule has to bring home."""
        return (
            self.deliveries.is_idle
            and (self.mapping.is_idle or not self._is_stream_on())
            and not self.fleet.is_busy()
        )

    def _send_dead_letter(self, message: Mapping[str, Any]) -> None:
        self.queue.send(message)

    def _publish(self, message: Mapping[str, Any]) -> None:
        self.bus.send(message)

    def _look_at_delivery(self, event_id: str, outcome: Outcome) -> None:
        self._look_at("link_customer", outcome)
        if 200 <= outcome.status < 300:
            self.accepted.add(event_id)
            if event_id not in self.watch.events:
                self._found(Violation("an accepted event is stored", event_id))

    # ---- judging

    def _look_at(self, function: str, outcome: Outcome) -> None:
        error = outcome.error
        may_refuse = function not in _HTTP_FUNCTIONS
        if may_refuse and isinstance(error, StripeIntegrationsError):
            # Lambda, or whoever called it by hand, tries again.
            return
        if error is not None:
            detail = f"{function}: {type(error).__name__}: {error}"
            self._found(Violation("no exception leaves a handler", detail))

    def _expect(self, function: str) -> Callable[[Outcome], None]:
        return lambda outcome: self._look_at(function, outcome)

    def _evidence(self) -> Evidence:
        return Evidence(
            watch=self.watch,
            double=self.stripe.double,
            others=self.others,
            calls=self.calls,
            accepted=self.accepted,
            dead_letters=self.queue.messages,
            published=self.bus.messages,
            has_bus=self.history.has_bus,
            handlers=self.handlers,
            poisonous={
                key.removeprefix("EVENT#") for key, is_so in self.faults.poisonous.items() if is_so
            },
        )

    def _judge(self, violations: Iterable[Violation]) -> None:
        for violation in violations:
            self._found(violation)

    def _found(self, violation: Violation) -> None:
        if violation not in self.report.violations:
            self.report.violations.append(violation)
            self._trace("VIOLATION", str(violation))

    def _sum_up(self) -> None:
        counts = self.report.counts
        counts += self.faults.counts
        counts += self.fleet.counts
        counts += self.deliveries.counts
        counts += self.mapping.counts
        counts["events recovered by the sweep"] += len(
            self.deliveries.lost & self.watch.events.keys()
        )
        for event in self.watch.events.values():
            counts[f"events {event['state']['S']}"] += 1
        self.report.counts = counts
        self.report.happened = self.faults.happened
        self.report.trace = self._digest.hexdigest()

    def _trace(self, *parts: object) -> None:
        line = f"{self.schedule.now - START:12.3f} {' '.join(map(str, parts))}"
        self._digest.update(line.encode())
        if self._is_told:
            self.report.log.append(line)


def _api_call(action: Action, user_id: str) -> tuple[str, Json]:
    """The function that a call of the backend's goes to, and its event."""
    path = f"/customers/{user_id}"
    match action.kind:
        case "create" | "refused":
            body = {"user_id": user_id, "billing_email": action.values["email"], **_fields(action)}
            return "create_customer", api_event("POST", "/customers", body=json.dumps(body))
        case "get":
            return "get_customer", api_event("GET", path, user_id)
        case "sync":
            return "sync_customer", api_event("POST", f"{path}/sync", user_id)
        case "soft_delete":
            return "soft_delete_customer", api_event("DELETE", path, user_id)
    raise ValueError(f"not something that happens: {action.kind}")


def _fields(action: Action) -> Json:
    match action.values.get("how"):
        case "card":
            return {"default_source": "tok_chargeDeclined"}
        case "prefix":
            return {"invoice_prefix": "no"}
    fields_given = {"name": action.values["name"], "metadata": {"plan": "free"}}
    return {**fields_given, **({"default_source": "tok_visa"} if action.values["card"] else {})}
