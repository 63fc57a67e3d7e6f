"""The ways in which the product is broken on purpose, to see that the judge judges."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One way.

    Parameters
    ----------
    name : str
        The promise's mechanism that is missing.
    file : str
        Where, from the project's root.
    text : str
        What stands there, exactly once.
    replacement : str
        What stands there instead.
    also : tuple
        Further texts of the same file and their replacements.
    """

    name: str
    file: str
    text: str
    replacement: str
    also: tuple[tuple[str, str], ...] = ()


_MODELS = "shared/stripe_integrations/models"
_ACTIONS = "shared/stripe_integrations/actions"

_MARK = "outcome.transaction_item() for outcome in outcomes if outcome.is_in_transaction"
_WRITE = "transaction.update(self, [_setting(name, value) for name, value in values.items()])"

MUTANTS = (
    Mutant(
        "no condition on the write",
        f"{_MODELS}/customer.py",
        _WRITE,
        _WRITE[:-1] + ", add_version_condition=False)",
    ),
    Mutant(
        "arrival order instead of the rule",
        f"{_ACTIONS}/events/ordering.py",
        "return shown.order(event.created or 0) if shown else Freshness.AMBIGUOUS",
        "return Freshness.NEWER",
    ),
    Mutant(
        "ties applied instead of fetched",
        f"{_MODELS}/observation.py",
        "if created > self.observed_to:",
        "if created >= self.observed_from:",
    ),
    Mutant(
        "no tombstone",
        f"{_ACTIONS}/events/ordering.py",
        "        card = known or Card.under(",
        "        if known is None:\n"
        "            return Freshness.OLDER\n"
        "        card = known or Card.under(",
    ),
    Mutant(
        "answer before the write",
        f"{_MODELS}/event.py",
        "            raise unavailable(error) from error\n        self.is_stored = True",
        "            return self\n        self.is_stored = True",
    ),
    Mutant(
        "claim without token",
        f"{_ACTIONS}/customers/create.py",
        'create_customer({**parameters, "metadata": metadata}, claim.token)',
        'create_customer({**parameters, "metadata": metadata}, current().new_token())',
    ),
    Mutant(
        "adoption by user id alone",
        f"{_ACTIONS}/customers/create.py",
        "return claim.is_creating and token_of(stripe_customer) in claim.tokens",
        "return claim.is_creating and token_of(stripe_customer) is not None",
    ),
    Mutant(
        "a replayed create stamped with now",
        f"{_ACTIONS}/customers/create.py",
        "Observation.of_event(created), is_first=True",
        "Observation.of_event(int(current().clock())), is_first=True",
    ),
    Mutant(
        "the fetch before the read",
        f"{_ACTIONS}/customers/refresh.py",
        "    known = {child.sk: child for child in customer.children}\n",
        "    from stripe_integrations.models import UserRecords\n"
        "    read = UserRecords.read(user_id).customer(stripe_id)\n"
        "    customer.version = read.version if read else customer.version\n"
        "    known = {child.sk: child for child in customer.children}\n",
    ),
    Mutant(
        "sweep without overlap",
        f"{_ACTIONS}/events/reconcile.py",
        "OVERLAP_SECONDS = 600\n",
        "OVERLAP_SECONDS = 0\n",
    ),
    Mutant(
        "prune from a payload",
        f"{_ACTIONS}/events/ordering.py",
        "        return self._keep(\n            card_from_payment_method(",
        "        for other in self._customer.cards:\n"
        "            if other.stripe_id != event.subject['id']:\n"
        "                self._keep(other.tombstone(Observation.of_event(event.created or 0)))\n"
        "        return self._keep(\n            card_from_payment_method(",
    ),
    Mutant(
        "dedupe by check-then-write",
        f"{_MODELS}/event.py",
        "            self.save(Event.pk.does_not_exist())\n",
        "            standing = Event.find(self.stripe_id or '')\n"
        "            if standing:\n"
        "                return standing\n"
        "            self.save()\n",
    ),
    Mutant(
        "mark before effect",
        f"{_ACTIONS}/events/apply.py",
        f"        write(also=[{_MARK}])\n",
        "        for outcome in outcomes:\n"
        "            if not outcome.has_side_effects:\n"
        "                outcome.end()\n"
        f"        write(also=[{_MARK} and outcome.has_side_effects])\n",
    ),
    Mutant(
        "attempts counted after the run",
        f"{_MODELS}/event.py",
        "            Event.attempts.add(1),\n",
        "",
        also=(
            (
                "        self._change(actions, _unfinished() & mine)\n",
                "        self._change([*actions, Event.attempts.add(1)], _unfinished() & mine)\n",
            ),
        ),
    ),
    Mutant(
        "soft delete that doesn't raise the version",
        f"{_MODELS}/customer.py",
        _WRITE,
        "actions = [_setting(name, value) for name, value in values.items()]\n"
        "            if 'date_purged' in values:\n"
        "                actions = type('Deaf', (list,), {'append': lambda *_: None})(actions)\n"
        "            transaction.update(self, actions)",
    ),
    Mutant(
        "claim released on a time-out",
        f"{_ACTIONS}/customers/create.py",
        "        if not error.replayed:\n            raise\n",
        "        if not error.replayed:\n            claim.release()\n            raise\n",
    ),
    Mutant(
        "404 as deletion",
        f"{_ACTIONS}/customers/refresh.py",
        "        stripe_customer = current().stripe.retrieve_customer(stripe_id)\n",
        "        try:\n"
        "            stripe_customer = current().stripe.retrieve_customer(stripe_id)\n"
        "        except StripeRefusedError:\n"
        "            stripe_customer = {'id': stripe_id, 'deleted': True}\n",
    ),
    Mutant(
        "an answer that changes nothing keeps the version",
        f"{_MODELS}/customer.py",
        "        self._update(news, rest, also)\n",
        "        if not all(fields_of(Customer)[name].private for name in news):\n"
        "            self._update(news, rest, also)\n"
        "        elif also:\n"
        "            transact(lambda t: [add(t) for add in also])\n",
    ),
    Mutant(
        "nothing is pruned",
        f"{_ACTIONS}/customers/refresh.py",
        "return [child.tombstone(observation) for child in known if child.sk not in there]",
        "return []",
    ),
    Mutant(
        "marked before it is published",
        f"{_ACTIONS}/events/apply.py",
        "    try:\n        if outcome.has_side_effects:\n",
        "    outcome.end()\n    try:\n        if outcome.has_side_effects:\n",
    ),
    Mutant(
        "a claim that is never over",
        f"{_MODELS}/event.py",
        '(Event.attempts == 0) | (Event.next_try <= int(now)) | (Event.state == "waiting")',
        '(Event.attempts == 0) | (Event.state == "waiting")',
    ),
    Mutant(
        "failed without a dead letter",
        f"{_ACTIONS}/events/apply.py",
        "        current().report_dead_letter(message)\n",
        "        _ = message\n",
    ),
    Mutant(
        "waiting events are forgotten",
        f"{_ACTIONS}/events/apply.py",
        "            event.continue_waiting()\n",
        '            event.finish("ignored", _UNKNOWN)\n',
    ),
    Mutant(
        "the other mode is ours too",
        f"{_ACTIONS}/events/apply.py",
        "    if event.livemode is not current().settings.livemode:\n",
        "    if event.livemode is None:\n",
    ),
    Mutant(
        "no retry",
        f"{_ACTIONS}/events/apply.py",
        "    if not isinstance(error, _FOR_GOOD):\n        _schedule_retry(",
        "    if not isinstance(error, BaseException):\n        _schedule_retry(",
    ),
    Mutant(
        "given up after one try",
        f"{_MODELS}/event.py",
        "MAX_ATTEMPTS = 40\n",
        "MAX_ATTEMPTS = 1\n",
    ),
    Mutant(
        "another version's payload taken at its word",
        f"{_ACTIONS}/events/ordering.py",
        "        or event.api_version != API_VERSION\n",
        "",
    ),
    Mutant(
        "a removed default card takes nothing with it",
        f"{_ACTIONS}/events/ordering.py",
        "        if self._is_named(stripe_id):\n            return Freshness.AMBIGUOUS\n",
        "",
    ),
    Mutant(
        "a removed card may be named as a default",
        f"{_ACTIONS}/events/ordering.py",
        "        return card is not None and not card.is_attached\n",
        "        return False\n",
    ),
    Mutant(
        "a sweep forgets its next page",
        f"{_ACTIONS}/events/reconcile.py",
        '            cursor.reach(events[-1]["id"])\n',
        "            cursor.end()\n            return\n",
    ),
    Mutant(
        "a handler's failure is forgotten",
        f"{_ACTIONS}/events/side_effects.py",
        "            handle(self.event, customer)\n",
        "            try:\n"
        "                handle(self.event, customer)\n"
        "            except Exception:\n"
        "                continue\n",
    ),
    Mutant(
        "handled before its effect",
        f"{_ACTIONS}/events/apply.py",
        f"    if write:\n        write(also=[{_MARK}])\n",
        "    for outcome in outcomes:\n"
        "        if outcome.is_handled:\n"
        "            outcome.follow(customer)\n"
        f"    if write:\n        write(also=[{_MARK}])\n",
    ),
)
