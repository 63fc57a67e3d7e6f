"""A history: the actions, their times and the fault profile. Drawn from a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from simulation.chance import between, chance, pick
from simulation.faults import FaultProfile
from simulation.sizes import WALK_SIZES, Sizes, draw_sizes
from stripe_integrations.models.run import PaymentMethodPolicy

_DAY = 86_400.0

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Action:
    """One action of the backend or on Stripe.

    Parameters
    ----------
    name : str
        The name in the history; random draws and faults depend on it.
    at : float
        Seconds since the history's start.
    kind : str
        One of `stripe_actor.ACTIONS`, or a call of the backend.
    user : int
        The number of the user.
    values : mapping
        The arguments.
    """

    name: str
    at: float
    kind: str
    user: int
    values: Values = field(default_factory=dict)

    def __str__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in self.values.items())
        return f"{self.kind} u-{self.user}" + (f" ({values})" if values else "")


@dataclass(frozen=True)
class History:
    """Everything that determines a run.

    Parameters
    ----------
    seed : int
        The seed of every draw.
    actions : tuple of Action
        The actions in the order of their times.
    fault_profile : FaultProfile
        How often each kind of fault happens.
    only : set of str, optional
        The faults that may happen, by name; by default all that are drawn.
    endpoint_version : str or None
        The webhook endpoint's API version; None for the account's.
    has_bus : bool
        Whether applied changes are published.
    handled : tuple of str
        Types of event that have a custom handler.
    publish_types : tuple of str
        Patterns of types of event that are published though they change no record.
    emits_lost_defaults : bool
        Whether Stripe sends an update event for defaults that a removed card was.
    stores_optional_kinds : bool
        Whether the deployment stores every kind of child record, not only the default ones.
    checks_existing : bool
        Whether a create is refused beside a customer on Stripe that is no user's.
    stores_unassigned : bool
        Whether the deployment stores the customers that no user has.
    adopts_by_metadata : bool
        Whether the metadata of such a customer names the user who adopts it.
    sizes : mapping
        Limits of the product that are reduced: see `simulation.sizes`.
    """

    seed: int
    actions: tuple[Action, ...]
    fault_profile: FaultProfile = FaultProfile()  # noqa: RUF009 - it is frozen
    only: Set[str] | None = None
    endpoint_version: str | None = None
    has_bus: bool = False
    handled: tuple[str, ...] = ()
    publish_types: tuple[str, ...] = ()
    emits_lost_defaults: bool = True
    stores_optional_kinds: bool = False
    checks_existing: bool = False
    stores_unassigned: bool = False
    adopts_by_metadata: bool = False
    sizes: Sizes = field(default_factory=dict)

    @property
    def has_walks(self) -> bool:
        """Whether a run through the account is started."""
        return any(action.kind == "walk" for action in self.actions)

    @property
    def length(self) -> float:
        """Seconds until the last action."""
        return self.actions[-1].at if self.actions else 0.0


_BACKEND = (("sync", 4.0), ("soft_delete", 4.0), ("create", 6.0), ("get", 2.0), ("refused", 1.0))
_STRIPE = (
    ("update", 8.0),
    ("back_and_forth", 4.0),
    ("add_card", 4.0),
    ("attach_method", 4.0),
    ("add_other_method", 2.0),
    ("remove_other_method", 2.0),
    ("change_entitlements", 1.5),
    ("enlarge_subscription", 1.0),
    ("change_card", 2.0),
    ("remove_card", 4.0),
    ("replace_card", 1.5),
    ("set_default", 2.5),
    ("set_subscription_default", 2.0),
    ("subscribe", 4.0),
    ("change_subscription", 4.0),
    ("subscription_status", 3.0),
    ("cancel_subscription", 3.0),
    ("change_tax_ids", 2.5),
    ("delete", 2.5),
    ("checkout", 0.7),
    ("invoice", 4.0),
    ("unrelated_customer", 0.7),
    ("other_stack", 1.0),
    ("other_mode", 0.7),
    ("other_account", 0.4),
    ("forged", 0.4),
    ("test_clock", 0.4),
)
_RARE = (("replay", 0.3), ("rebuild", 0.5), ("move_metadata", 0.3))
_OPENING_SCENARIOS = (("churn", 0.05), ("contended claim", 0.06))
_LATER_SCENARIOS = (
    *_OPENING_SCENARIOS,
    ("short-lived card", 0.05),
    ("short-lived default", 0.03),
    ("short-lived source", 0.02),
    ("short-lived subscription default", 0.03),
    ("deletion of a subscribed customer", 0.05),
    ("short-lived other default", 0.05),
    ("rebuild after a copy", 0.03),
    ("replay of events in progress", 0.06),
)
_CLOSING_SCENARIOS = (("short-lived card", 0.12), *_LATER_SCENARIOS[3:])
_NEWEST = {"which": 0, "month": 1}
_SCENARIOS: dict[str, tuple[tuple[tuple[str, Values], ...], tuple[float, float]]] = {
    # A user is created, deleted and created again while the first create may be in progress.
    "churn": ((("create", {}), ("soft_delete", {}), ("create", {})), (0.3, 8.0)),
    # Callers wait for a claim whose create Stripe refuses.
    "contended claim": (
        (("refused", {}), ("create", {}), ("create", {}), ("create", {})),
        (0.001, 0.1),
    ),
    # A card is attached and removed, without another event that would cause a fetch of all cards.
    "short-lived card": (
        (("attach_method", {"default": False}), ("remove_card", _NEWEST)),
        (0.5, 60.0),
    ),
    "short-lived default": (
        (("attach_method", {"default": True}), ("remove_card", _NEWEST)),
        (0.5, 60.0),
    ),
    "short-lived source": (
        (("add_card", {"default": True}), ("remove_card", _NEWEST)),
        (0.5, 60.0),
    ),
    "short-lived subscription default": (
        (
            ("subscribe", {}),
            ("attach_method", {"default": False}),
            ("set_subscription_default", _NEWEST),
            ("remove_card", _NEWEST),
        ),
        (0.5, 30.0),
    ),
    "replay of events in progress": (
        (("update", {}), ("replay", {"how": "range"}), ("replay", {"how": "range"})),
        (0.2, 4.0),
    ),
    "rebuild after a copy": (
        (("subscribe", {}), ("move_metadata", {}), ("rebuild", {})),
        (0.5, 60.0),
    ),
    "short-lived other default": (
        (("add_other_method", {"default": True}), ("remove_other_method", {})),
        (0.5, 60.0),
    ),
    "deletion of a subscribed customer": (
        (("add_card", {"default": True}), ("subscribe", {}), ("update", {}), ("delete", {})),
        (0.1, 20.0),
    ),
}
_STALE_FETCH_SECONDS = (10.0, 120.0)
"""Seconds after which the last fetch is older than the next event."""
_FOREIGN_CUSTOMERS = 10
"""How many foreign customers there are for each of ours."""
PRIOR_CUSTOMERS = 12
"""How many customers Stripe had before the deployment, in histories with runs."""
_FIRST_PAGE_SECONDS = 10.0
"""Seconds from the start of a run to its first page."""
_WALKS = 0.25
"""The part of the histories in which runs walk through the account."""
_CHECKS_EXISTING = 0.15
"""The part of the histories whose creates check for existing customers."""
_HANDOVERS = 0.05
"""The part of the histories in which two users adopt a customer in turn."""
_OLD_VERSION = "2024-06-20"
_ATTACHED = "payment_method.attached"
_HANDLED = (
    "customer.updated",
    "customer.deleted",
    "customer.subscription.*",
    _ATTACHED,
    "product.created",
)
_PUBLISH_TYPES = ("invoice.*", "customer.tax_id.*", "payment_method.*", "product.created")

_PRIOR_CHANGES: Mapping[str, Values] = {
    "update": {"field": "name", "value": "Ada"},
    "back_and_forth": {},
    "delete": {},
    "attach_method": {},
    "remove_card": {},
    "subscribe": {"how": "charge"},
    "cancel_subscription": {},
}
"""What happens to customers that Stripe had before the deployment, while they are walked."""
_NAMES = ("Ada", "Bob", "Cy")
_EMAILS = ("a@example.com", "b@example.com")
_UPDATES: dict[str, Sequence[Any]] = {
    "name": (*_NAMES, None),
    "billing_email": (*_EMAILS, None),
    "phone": ("1", "2", None),
    "metadata": ({"plan": "pro"}, {"plan": None}, None),
    "description": (*_NAMES, None),
    "balance": (0, -500, 2000),
    "address": ({"city": "Ada", "country": "DE"}, None),
    "invoice_settings": ({"footer": "Ada"}, {"default_payment_method": None}, None),
    "default_source": ("tok_visa", "tok_amex"),
}
"""The fields that the backend updates."""
_CARDS = ("visa", "mastercard", "amex", "chargeCustomerFail")
_FIELDS: dict[str, Sequence[Any]] = {
    "name": _NAMES,
    "email": _EMAILS,
    "phone": ("1", "2"),
    "metadata": tuple({"plan": plan} for plan in ("free", "pro", "")),
    "description": _NAMES,
    "balance": (0, -500, 2000),
    "address": tuple({"city": name, "country": "DE"} for name in _NAMES),
}
_NEW_CARD: dict[str, Sequence[Any] | float] = {"card": _CARDS, "default": 0.3}
_OLD_CARD = {"which": range(3), "month": range(1, 13)}
_BURST_VALUES = {"card": ("visa",), "default": (False,), "type": ("sepa_debit", "bank_account")}
_CRAFTED = {"type": ("customer.updated", "customer.deleted")}
_DOMAINS: dict[str, Mapping[str, Sequence[Any] | float]] = {
    "create": {"email": _EMAILS, "name": _NAMES, "card": 0.15},
    "refused": {"email": _EMAILS, "how": ("card", "prefix")},
    **dict.fromkeys(("add_card", "attach_method", "replace_card"), _NEW_CARD),
    **dict.fromkeys(
        ("change_card", "remove_card", "set_default", "set_subscription_default"), _OLD_CARD
    ),
    "add_other_method": {
        "type": ("sepa_debit", "us_bank_account", "cashapp", "bank_account", "source"),
        "default": 0.5,
    },
    "change_entitlements": {"feature": ("seats", "exports")},
    "enlarge_subscription": {"which": range(2), "discounts": (40, 400)},
    "subscribe": {"how": ("charge", "trial", "invoice", "incomplete")},
    "change_subscription": {
        "which": range(2),
        "how": ("quantity", "metadata", "pause", "unpause", "end", "item"),
        "number": range(1, 5),
    },
    "subscription_status": {
        "which": range(2),
        "status": ("past_due", "unpaid", "active", "paused", "renew", "trial_end"),
    },
    "cancel_subscription": {"which": range(2)},
    "change_tax_ids": {
        "which": range(2),
        "how": ("add", "add", "verified", "unverified", "remove"),
    },
    **dict.fromkeys(("other_mode", "other_account", "forged"), _CRAFTED),
    "foreign_burst": {
        **_BURST_VALUES,
        "how": ("update", "update", "subscribe", "invoice", "delete"),
    },
    "replay": {"how": ("failed", "range")},
}
"""The arguments of each kind of action: the values to choose from, or a probability."""


def generate(seed: int) -> History:
    """The history of a seed: three to 35 actions of one to three users at short intervals."""
    random = chance("history", seed)
    users = random.choice((1, 1, 1, 2, 3))
    count = random.choice((3, 5, 8, 12, 16, 25))
    at = 0.0
    actions: list[Action] = []
    while len(actions) < count:
        user = random.randrange(users)
        begun = any(a.user == user and a.kind == "create" for a in actions)
        scenario = pick(_LATER_SCENARIOS if begun else _OPENING_SCENARIOS, random.random())
        if scenario is not None:
            at = _add_scenario(random, scenario, actions, at, user)
            continue
        kind = _kind(random, begun=begun)
        for number in range(_repeats(random, kind)):
            actions.append(_action(random, len(actions), at, kind, user))
            if number:
                at += random.choice((0.0, 0.01, 0.2))
        at += _gap(random)
    closing = pick(_CLOSING_SCENARIOS, random.random())
    if closing is not None:
        at = _add_scenario(random, closing, actions, at, random.randrange(users))
    all_actions = _with_updates(seed, _with_foreign_customers(random, actions, users))
    all_actions = _with_releases(seed, _with_adoptions(seed, all_actions, users), users)
    unassigned = chance("unassigned", seed)
    stores_unassigned = unassigned.random() < 0.5
    adopts_by_metadata = stores_unassigned and unassigned.random() < 0.6
    if adopts_by_metadata:
        all_actions = _with_named_users(unassigned, all_actions, users)
    all_actions = _with_erasures(seed, all_actions)
    checks_existing = chance("existing customers", seed).random() < _CHECKS_EXISTING
    if checks_existing:
        all_actions = _with_checks(seed, all_actions, users)
    walks = chance("walks", seed)
    if walks.random() < _WALKS:
        all_actions = _with_walks(walks, all_actions, users, checks_existing=checks_existing)
        all_actions = _with_metadata_runs(seed, all_actions)
    handovers = chance("handovers", seed)
    has_handovers = handovers.random() < _HANDOVERS
    return History(
        seed,
        _with_handovers(handovers, all_actions, users) if has_handovers else all_actions,
        FaultProfile.draw(random, at),
        endpoint_version=_OLD_VERSION if random.random() < 0.08 else None,
        has_bus=random.random() < 0.5,
        handled=_handled(random, has_handovers=has_handovers),
        emits_lost_defaults=random.random() >= 1 / 3,
        stores_optional_kinds=random.random() < 0.5,
        checks_existing=checks_existing,
        stores_unassigned=stores_unassigned,
        adopts_by_metadata=adopts_by_metadata,
        sizes={
            **(draw_sizes(random) if random.random() < 0.25 else {}),
            **(WALK_SIZES if any(action.kind == "walk" for action in all_actions) else {}),
        },
        publish_types=_some(random, _PUBLISH_TYPES) if random.random() < 0.6 else (),
    )


def _with_foreign_customers(
    random: Random, actions: list[Action], users: int
) -> tuple[Action, ...]:
    """Add bursts of changes of foreign customers, ten times as many as ours."""
    last = actions[-1].at
    for _ in range(random.choice((1, 1, 2, 3))):
        burst = _action(random, len(actions), last * random.random(), "foreign_burst", 0)
        values = {**burst.values, "customers": _FOREIGN_CUSTOMERS * users}
        actions.append(replace(burst, values=values))
    return tuple(sorted(actions, key=lambda action: action.at))


def _with_updates(seed: int, actions: tuple[Action, ...]) -> tuple[Action, ...]:
    """Add updates by the backend, shortly after other actions; some are repeated with their key.

    They are drawn by themselves, so that the other actions of a seed do not depend on them.
    """
    random = chance("updates", seed)
    updates: list[Action] = []
    for number in range(random.choice((0, 1, 2, 4, 8))):
        before = random.choice(actions)
        at = before.at + random.choice((0.0, 0.01, 0.3, 3.0, 30.0))
        field = random.choice(tuple(_UPDATES))
        values = {"field": field, "value": random.choice(_UPDATES[field])}
        values["key"] = f"key-{number}" if random.random() < 0.6 else None
        update = Action(f"u{number:02}", round(at, 3), "api_update", before.user, values)
        updates.append(update)
        if random.random() < 0.5:
            again = round(at + between(0.05, 7200.0, random.random()), 3)
            updates.append(replace(update, name=f"{update.name}'", at=again))
    return tuple(sorted((*actions, *updates), key=lambda action: action.at))


def _with_adoptions(seed: int, actions: tuple[Action, ...], users: int) -> tuple[Action, ...]:
    """Add customers that exist on Stripe, and adoptions of them, many of them at the same time.

    Two users have no other customer, so that they compete for these. The adoptions are drawn by
    themselves, so that the other actions of a seed do not depend on them.
    """
    random = chance("adoptions", seed)
    length = actions[-1].at
    added: list[Action] = []
    existing = random.choice((0, 0, 1, 1, 2))
    for number in range(existing):
        at = round(length * random.random() / 2, 3)
        added.append(Action(f"e{number:02}", at, "existing_customer", 0))
        at += random.choice((0.0, 1.0, 900.0))
        for again in range(random.choice((1, 2, 3, 5))):
            at += random.choice((0.0, 0.001, 0.05, 0.3, 10.0))
            values = {"which": random.randrange(existing), "take_over": random.random() < 0.2}
            user = random.randrange(users + 2)
            name = f"p{number:02}{again:02}"
            added.append(Action(name, round(at, 3), "adopt", user, values))
    return tuple(sorted((*actions, *added), key=lambda action: action.at))


def _with_releases(seed: int, actions: tuple[Action, ...], users: int) -> tuple[Action, ...]:
    """Add releases, shortly after other calls of the backend; after some the customer is adopted.

    They are drawn by themselves, so that the other actions of a seed do not depend on them.
    """
    random = chance("releases", seed)
    existing = sum(action.kind == "existing_customer" for action in actions)
    before = [a for a in actions if a.kind in ("adopt" if existing else "create", "api_update")]
    added: list[Action] = []
    for number in range(random.choice((0, 0, 1, 2, 4)) if before else 0):
        earlier = random.choice(before)
        at = earlier.at + random.choice((0.0, 0.05, 0.3, 3.0, 30.0, 300.0))
        added.append(Action(f"r{number:02}", round(at, 3), "release", earlier.user))
        if existing and random.random() < 0.6:
            at += random.choice((0.0, 0.05, 0.3, 1.0, 10.0, 300.0))
            user = random.choice((earlier.user, random.randrange(users + 2)))
            values = {"which": random.randrange(existing), "take_over": random.random() < 0.2}
            added.append(Action(f"q{number:02}", round(at, 3), "adopt", user, values))
    return tuple(sorted((*actions, *added), key=lambda action: action.at))


def _with_checks(seed: int, actions: tuple[Action, ...], users: int) -> tuple[Action, ...]:
    """Let some creates allow existing customers, and add users who share an e-mail.

    Their creates are concurrent: each may list the customers of others that are not stored yet.
    """
    random = chance("checks", seed)
    checked = [
        replace(action, values={**action.values, "allow_existing": random.random() < 0.3})
        if action.kind in ("create", "refused")
        else action
        for action in actions
    ]
    for number in range(random.choice((1, 2, 3))):
        at = actions[-1].at * random.random()
        for again in range(random.choice((2, 3, 5))):
            at += random.choice((0.0, 0.01, 0.3, 10.0))
            values = {"email": _EMAILS[1], "name": "Ada", "card": False, "allow_existing": False}
            user = users + 2 + random.randrange(2)
            checked.append(Action(f"c{number:02}{again:02}", round(at, 3), "create", user, values))
    return tuple(sorted(checked, key=lambda action: action.at))


def _with_named_users(
    random: Random, actions: tuple[Action, ...], users: int
) -> tuple[Action, ...]:
    """Let the metadata of existing customers name users, from the start or later.

    There are more of these customers, and some users are named by several of them.
    """
    length = actions[-1].at
    created = [action for action in actions if action.kind == "existing_customer"]
    added: list[Action] = []
    for number in range(random.choice((0, 1, 2))):
        at = round(length * random.random(), 3)
        user = random.randrange(users + 2)
        added.append(Action(f"n{number:02}", at, "existing_customer", user, {"is_named": True}))
    for number in range(random.choice((1, 2, 4)) if created else 0):
        at = random.choice(created).at + random.choice((0.0, 0.01, 0.3, 1.0, 3.0, 30.0, 300.0))
        values = {"which": random.randrange(len(created))}
        user = random.randrange(users + 2)
        added.append(Action(f"m{number:02}", round(at, 3), "name_user", user, values))
    return tuple(sorted((*actions, *added), key=lambda action: action.at))


def _with_handovers(random: Random, actions: tuple[Action, ...], users: int) -> tuple[Action, ...]:
    """Add a customer that two users adopt in turn, each shortly after a change of a card.

    The change may be handled for the second time when the customer has the next user.
    """
    which = sum(action.kind == "existing_customer" for action in actions)
    owner, other = users + 4, users + 5
    at = actions[-1].at
    drawn: list[tuple[str, int, Values]] = [("existing_customer", 0, {})]
    adoption = {"which": which, "take_over": False}
    drawn.append(("adopt", owner, adoption))
    for _ in range(random.choice((1, 2, 4))):
        drawn.append(("attach_method", owner, {"card": "visa", "default": False}))
        drawn += [("release", owner, {}), ("adopt", other, adoption)]
        owner, other = other, owner
    added: list[Action] = []
    for number, (kind, user, values) in enumerate(drawn):
        at += random.choice((0.05, 0.3, 3.0, 30.0))
        added.append(Action(f"h{number:02}", round(at, 3), kind, user, values))
    return (*actions, *added)


def _handled(random: Random, *, has_handovers: bool) -> tuple[str, ...]:
    """The types of event that have a custom handler."""
    handled = _some(random, _HANDLED) if random.random() < 0.3 else ()
    if has_handovers and _ATTACHED not in handled:
        return (*handled, _ATTACHED)
    return handled


def _with_walks(
    random: Random, actions: tuple[Action, ...], users: int, *, checks_existing: bool
) -> tuple[Action, ...]:
    """Add runs through the account, and what happens to its customers and users meanwhile."""
    length = actions[-1].at
    existing = sum(action.kind == "existing_customer" for action in actions)
    added: list[Action] = []
    for number in range(random.choice((1, 1, 2))):
        at = round(length * random.random(), 3)
        rows = tuple(_row(random, users, existing) for _ in range(random.choice((0, 2, 4, 8))))
        values = {
            "rows": rows,
            "policy": random.choice(list(PaymentMethodPolicy)).value,
            "workers": random.choice((1, 2, 3)),
            "stop": between(0.5, 120.0, random.random()) if random.random() < 0.3 else None,
            "resume": between(5.0, 900.0, random.random()),
            "undo": between(1.0, 3600.0, random.random()) if random.random() < 0.3 else None,
        }
        added.append(Action(f"walk{number}", at, "walk", 0, values))
        for again in range(random.choice((2, 6, 12))):
            name, later = f"w{number:02}{again:02}", round(at + _walk_gap(random), 3)
            action = _during_walk(random, name, later, rows)
            if action.kind == "create" and checks_existing:
                allows = {"allow_existing": random.random() < 0.3}
                action = replace(action, values={**action.values, **allows})
            added.append(action)
    return tuple(sorted((*actions, *added), key=lambda action: action.at))


def _with_metadata_runs(seed: int, actions: tuple[Action, ...]) -> tuple[Action, ...]:
    """Add runs that write our metadata to Stripe, and what happens to its customers meanwhile.

    They are drawn by themselves, so that the other actions of a seed do not depend on them.
    """
    random = chance("metadata runs", seed)
    copied = {action.user for action in actions if action.kind == "move_metadata"}
    walks = [action for action in actions if action.kind == "walk" and action.values["rows"]]
    added: list[Action] = []
    for number in range(random.choice((1, 1, 2)) if walks and random.random() < 0.7 else 0):
        walk = random.choice(walks)
        at = round(walk.at + between(20.0, 400.0, random.random()), 3)
        values = {
            "workers": random.choice((1, 2, 3)),
            "stop": between(0.5, 30.0, random.random()) if random.random() < 0.2 else None,
            "resume": between(5.0, 300.0, random.random()),
            "undo": None,
        }
        added.append(Action(f"metadata{number}", at, "metadata", 0, values))
        for again in range(random.choice((0, 3, 8))):
            name = f"t{number:02}{again:02}"
            later = round(at + _FIRST_PAGE_SECONDS + 10.0 * random.random(), 3)
            user, which, _ = random.choice(walk.values["rows"])
            added.append(_during_metadata_run(random, name, later, user, which))
    possible = [a for a in added if a.kind != "erase" or a.user not in copied]
    return tuple(sorted((*actions, *possible), key=lambda action: action.at))


def _during_metadata_run(random: Random, name: str, at: float, user: int, which: int) -> Action:
    """A call for a user whose customer is walked, or a change of the customer."""
    kind = random.choice(("release", "release", "soft_delete", "erase", "adopt", "change"))
    if kind == "erase":
        return Action(name, at, kind, user, {"delete_on_stripe": random.random() < 0.3})
    if kind == "adopt":
        values = {"which": which % PRIOR_CUSTOMERS, "take_over": False, "is_prior": True}
        return Action(name, at, kind, random.choice((user, random.randrange(6))), values)
    if kind == "change":
        changed = {"change": "update", "which": which % PRIOR_CUSTOMERS}
        return Action(name, at, "change_prior", 0, {**_PRIOR_CHANGES["update"], **changed})
    return Action(name, at, kind, user)


def _row(random: Random, users: int, existing: int) -> tuple[int, int, bool]:
    """A row of a mapping: a user, and which customer; also one that Stripe does not have."""
    is_prior = not existing or random.random() < 0.6
    customers = PRIOR_CUSTOMERS if is_prior else existing
    return random.randrange(users + 6), random.randrange(customers + 1), is_prior


def _walk_gap(random: Random) -> float:
    """Seconds from the start of a run to what happens meanwhile, often while it reads pages."""
    if random.random() < 0.5:
        return between(0.05, 600.0, random.random())
    return _FIRST_PAGE_SECONDS + 15.0 * random.random()


def _during_walk(
    random: Random, name: str, at: float, rows: Sequence[tuple[int, int, bool]]
) -> Action:
    """A change of a customer that is walked, or a call for a user who is to have one."""
    if random.random() < 0.5:
        how = random.choice(tuple(_PRIOR_CHANGES))
        values = {**_values(random, how), **_PRIOR_CHANGES[how]}
        which = random.randrange(PRIOR_CUSTOMERS)
        return Action(name, at, "change_prior", 0, {**values, "change": how, "which": which})
    user, which, _ = random.choice(rows) if rows else _row(random, 0, 0)
    kind = random.choice(("adopt", "adopt", "release", "create", "sync", "get", "soft_delete"))
    if kind == "adopt":
        values = {"which": which % PRIOR_CUSTOMERS, "take_over": False, "is_prior": True}
        return Action(name, at, kind, random.choice((user, random.randrange(6))), values)
    return Action(name, at, kind, user, _values(random, kind))


def _with_erasures(seed: int, actions: tuple[Action, ...]) -> tuple[Action, ...]:
    """Add erasures of users and of existing customers, with changes of these on Stripe after that.

    They are drawn by themselves, so that the other actions of a seed do not depend on them. A user
    whose metadata was copied is not erased: without the original, a copy can't be recognized.
    """
    random = chance("erasures", seed)
    added: list[Action] = []
    copied = {action.user for action in actions if action.kind == "move_metadata"}
    others = [action for action in actions if action.user not in copied]
    for number in range(random.choice((0, 0, 0, 1, 2)) if others else 0):
        before = random.choice(others)
        at = before.at + random.choice((0.0, 0.01, 0.3, 3.0, 30.0))
        values: dict[str, Any] = {"delete_on_stripe": random.random() < 0.3}
        added.append(Action(f"x{number:02}", round(at, 3), "erase", before.user, values))
        for change in range(random.choice((1, 2, 3))):
            at += random.choice((0.0, 0.05, 1.0, 60.0, 1200.0))
            name = f"x{number:02}{change:02}"
            added.append(Action(name, round(at, 3), "change_erased", before.user))
        if random.random() < 0.5:
            fields = {"email": _EMAILS[0], "name": _NAMES[0], "card": False}
            added.append(Action(f"x{number:02}'", round(at, 3), "create", before.user, fields))
    existing = [action for action in others if action.kind == "existing_customer"]
    nears = [action for action in others if action.kind in ("adopt", "name_user")] or existing
    for number in range(random.choice((0, 1)) if existing and not copied else 0):
        at = random.choice(nears).at + random.choice((0.0, 0.05, 0.3, 1.0, 30.0))
        which, deletes = random.randrange(len(existing)), random.random() < 0.3
        values = {"which": which, "delete_on_stripe": deletes}
        added.append(Action(f"y{number:02}", round(at, 3), "erase", 0, values))
        at += random.choice((0.05, 60.0, 1200.0))
        added.append(Action(f"y{number:02}'", round(at, 3), "change_erased", 0))
    return tuple(sorted((*actions, *added), key=lambda action: action.at))


def _some(random: Random, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if random.random() < 0.5)


def _add_scenario(
    random: Random, scenario: str, actions: list[Action], at: float, user: int
) -> float:
    """Add the actions of a scenario; returns the time when it ends."""
    steps, gap = _SCENARIOS[scenario]
    if scenario.startswith("short-lived"):
        at += between(*_STALE_FETCH_SECONDS, random.random())
    for kind, values in steps:
        action = _action(random, len(actions), at, kind, user)
        actions.append(replace(action, values={**action.values, **values}))
        at += between(*gap, random.random())
    return at


def _action(random: Random, number: int, at: float, kind: str, user: int) -> Action:
    return Action(f"a{number:02}", round(at, 3), kind, user, _values(random, kind))


def _kind(random: Random, *, begun: bool) -> str:
    if not begun and random.random() < 0.8:
        return "create"
    kinds = (*_BACKEND, *_STRIPE, *_RARE)
    return random.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])[0]


def _repeats(random: Random, kind: str) -> int:
    if kind == "create":
        return random.choice((1, 1, 1, 2, 3, 5))
    return random.choice((1, 1, 2, 4)) if kind == "update" else 1


def _gap(random: Random) -> float:
    """Seconds to the next action: mostly a few, sometimes days."""
    drawn = random.random()
    if drawn < 0.3:
        return 0.0
    if drawn < 0.75:
        return between(0.05, 5.0, random.random())
    if drawn < 0.93:
        return between(5.0, 900.0, random.random())
    return between(900.0, 3 * _DAY, random.random())


def _values(random: Random, kind: str) -> dict[str, Any]:
    if kind in ("update", "back_and_forth"):
        name = random.choice(tuple(_FIELDS))
        return {"field": name, "value": random.choice(_FIELDS[name])}
    domains = _DOMAINS.get(kind, {})
    return {name: _draw(random, domain) for name, domain in domains.items()}


def _draw(random: Random, domain: Sequence[Any] | float) -> Any:
    return random.random() < domain if isinstance(domain, float) else random.choice(domain)
