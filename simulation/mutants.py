"""Mutants: deliberate faults in the product that show that the invariant checks can fail."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One fault.

    Parameters
    ----------
    name : str
        The mechanism that is missing.
    file : str
        The file, relative to the project's root.
    text : str
        The source text to replace; it occurs exactly once.
    replacement : str
        The text that replaces it.
    also : tuple
        Further texts of the file and their replacements.
    """

    name: str
    file: str
    text: str
    replacement: str
    also: tuple[tuple[str, str], ...] = ()


_MODELS = "shared/stripe_integrations/models"
_ACTIONS = "shared/stripe_integrations/actions"

_MARK = "outcome.beside_the_effect() for outcome in outcomes if outcome.goes_along"
_WRITE = "transaction.update(self, [_setting(name, value) for name, value in values.items()])"

MUTANTS = (
    Mutant(
        "no condition on the write",
        f"{_MODELS}/customer.py",
        _WRITE,
        _WRITE[:-1] + ", add_version_condition=False)",
    ),
    Mutant(
        "order of arrival instead of order of events",
        f"{_ACTIONS}/order.py",
        "return shown.order(event.created or 0) if shown else Order.IN_DOUBT",
        "return Order.NEWER",
    ),
    Mutant(
        "ambiguous order applied instead of fetched",
        f"{_MODELS}/validity.py",
        "if created > self.until:",
        "if created >= self.since:",
    ),
    Mutant(
        "no tombstone",
        f"{_ACTIONS}/order.py",
        "        card = known or Card.under(",
        "        if known is None:\n"
        "            return Order.OLDER\n"
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
        f"{_ACTIONS}/creation.py",
        'create_customer({**parameters, "metadata": metadata}, claim.token)',
        'create_customer({**parameters, "metadata": metadata}, current().new_token())',
    ),
    Mutant(
        "adoption by user id alone",
        f"{_ACTIONS}/creation.py",
        "return claim.is_creating and token_of(stripe_customer) in claim.tokens",
        "return claim.is_creating and token_of(stripe_customer) is not None",
    ),
    Mutant(
        "a replayed create observed now",
        f"{_ACTIONS}/creation.py",
        "Validity.of_event(created), is_first=True",
        "Validity.of_event(int(current().clock())), is_first=True",
    ),
    Mutant(
        "fetch before the read of the version",
        f"{_ACTIONS}/synchronisation.py",
        "    known = {child.sk: child for child in customer.children}\n",
        "    from stripe_integrations.models import UserRecords\n"
        "    read = UserRecords.read(user_id).customer(stripe_id)\n"
        "    customer.version = read.version if read else customer.version\n"
        "    known = {child.sk: child for child in customer.children}\n",
    ),
    Mutant(
        "sweep without overlap",
        f"{_ACTIONS}/reconciliation.py",
        "OVERLAP_SECONDS = 600\n",
        "OVERLAP_SECONDS = 0\n",
    ),
    Mutant(
        "children pruned from a payload",
        f"{_ACTIONS}/order.py",
        "        return self._keep(\n            card_from_payment_method(",
        "        for other in self._customer.cards:\n"
        "            if other.stripe_id != event.subject['id']:\n"
        "                self._keep(other.tombstone(Validity.of_event(event.created or 0)))\n"
        "        return self._keep(\n            card_from_payment_method(",
    ),
    Mutant(
        "deduplication by check-then-write",
        f"{_MODELS}/event.py",
        "            self.save(Event.pk.does_not_exist())\n",
        "            standing = Event.find(self.stripe_id or '')\n"
        "            if standing:\n"
        "                return standing\n"
        "            self.save()\n",
    ),
    Mutant(
        "event marked before its effect",
        f"{_ACTIONS}/application.py",
        f"        write(also=[{_MARK}])\n",
        "        for outcome in outcomes:\n"
        "            if not outcome.is_followed:\n"
        "                outcome.end()\n"
        f"        write(also=[{_MARK} and outcome.is_followed])\n",
    ),
    Mutant(
        "attempts counted after the try",
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
        "soft delete without a new version",
        f"{_MODELS}/customer.py",
        _WRITE,
        "actions = [_setting(name, value) for name, value in values.items()]\n"
        "            if 'date_purged' in values:\n"
        "                actions = type('Deaf', (list,), {'append': lambda *_: None})(actions)\n"
        "            transaction.update(self, actions)",
    ),
    Mutant(
        "claim released after a timeout",
        f"{_ACTIONS}/creation.py",
        "        if not error.replayed:\n            raise\n",
        "        if not error.replayed:\n            claim.release()\n            raise\n",
    ),
    Mutant(
        "404 taken as a deletion",
        f"{_ACTIONS}/synchronisation.py",
        "        stripe_customer = current().stripe.retrieve_customer(stripe_id)\n",
        "        try:\n"
        "            stripe_customer = current().stripe.retrieve_customer(stripe_id)\n"
        "        except StripeRefusedError:\n"
        "            stripe_customer = {'id': stripe_id, 'deleted': True}\n",
    ),
    Mutant(
        "unchanged answer does not raise the version",
        f"{_MODELS}/customer.py",
        "        self._update(news, rest, also)\n",
        "        if not all(fields_of(Customer)[name].private for name in news):\n"
        "            self._update(news, rest, also)\n"
        "        elif also:\n"
        "            transact(lambda t: [add(t) for add in also])\n",
    ),
    Mutant(
        "missing children not pruned",
        f"{_ACTIONS}/synchronisation.py",
        "return [child.tombstone(validity) for child in known if child.sk not in there]",
        "return []",
    ),
    Mutant(
        "event marked before it is published",
        f"{_ACTIONS}/application.py",
        "    try:\n        if outcome.is_followed:\n",
        "    outcome.end()\n    try:\n        if outcome.is_followed:\n",
    ),
    Mutant(
        "claim that never expires",
        f"{_MODELS}/event.py",
        '(Event.attempts == 0) | (Event.next_try <= int(now)) | (Event.state == "waiting")',
        '(Event.attempts == 0) | (Event.state == "waiting")',
    ),
    Mutant(
        "failed without a dead letter",
        f"{_ACTIONS}/application.py",
        "        current().report_dead_letter(message)\n",
        "        _ = message\n",
    ),
    Mutant(
        "waiting events ignored",
        f"{_ACTIONS}/application.py",
        "            event.keep_waiting()\n",
        '            event.finish("ignored", _UNKNOWN)\n',
    ),
    Mutant(
        "events of the other mode applied",
        f"{_ACTIONS}/application.py",
        "    if event.livemode is not current().settings.livemode:\n",
        "    if event.livemode is None:\n",
    ),
    Mutant(
        "no retry",
        f"{_ACTIONS}/application.py",
        "    if not isinstance(error, _FOR_GOOD):\n        _put_off(",
        "    if not isinstance(error, BaseException):\n        _put_off(",
    ),
    Mutant(
        "dead-lettered after one try",
        f"{_MODELS}/event.py",
        "MOST_ATTEMPTS = 40\n",
        "MOST_ATTEMPTS = 1\n",
    ),
    Mutant(
        "payload of another API version trusted",
        f"{_ACTIONS}/order.py",
        "        or event.api_version != API_VERSION\n",
        "",
    ),
    Mutant(
        "defaults of a removed card not refreshed",
        f"{_ACTIONS}/order.py",
        "        if self._is_named(stripe_id):\n            return Order.IN_DOUBT\n",
        "",
    ),
    Mutant(
        "a removed card accepted as a default",
        f"{_ACTIONS}/order.py",
        "        return card is not None and not card.is_attached\n",
        "        return False\n",
    ),
    Mutant(
        "sweep ends after its first page",
        f"{_ACTIONS}/reconciliation.py",
        '            cursor.reach(events[-1]["id"])\n',
        "            cursor.end()\n            return\n",
    ),
    Mutant(
        "custom handler's failure ignored",
        f"{_ACTIONS}/following.py",
        "            handle(self.event, customer)\n",
        "            try:\n"
        "                handle(self.event, customer)\n"
        "            except Exception:\n"
        "                continue\n",
    ),
    Mutant(
        "custom handler called before the effect",
        f"{_ACTIONS}/application.py",
        f"    if write:\n        write(also=[{_MARK}])\n",
        "    for outcome in outcomes:\n"
        "        if outcome.is_handled:\n"
        "            outcome.follow(customer)\n"
        f"    if write:\n        write(also=[{_MARK}])\n",
    ),
)
