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
    seed : int
        The seed of the first history that is run. For a fault that few histories show, it is one
        shortly before the first that does.
    """

    name: str
    file: str
    text: str
    replacement: str
    also: tuple[tuple[str, str], ...] = ()
    seed: int = 1


_MODELS = "shared/stripe_integrations/models"
_CUSTOMERS = "shared/stripe_integrations/actions/customers"
_EVENTS = "shared/stripe_integrations/actions/events"

_ACCOUNT = "shared/stripe_integrations/actions/account"

_WRITE = "transaction.update(self, actions, self._is_same_record())"
_ITEMS = "[outcome.add_to for outcome in plan.outcomes if outcome.in_transaction]"
_COMMIT = "    _commit(customer, plan)\n"

MUTANTS = (
    Mutant(
        "no condition on the write",
        f"{_MODELS}/customer.py",
        _WRITE,
        "transaction.update(self, actions, add_version_condition=False)",
        seed=18,
    ),
    Mutant(
        "order of arrival instead of order of events",
        f"{_EVENTS}/ordering.py",
        "Observation.of_event(event.created).compared_to(observation)",
        "Freshness.NEWER",
    ),
    Mutant(
        "ambiguous order applied instead of fetched",
        f"{_MODELS}/observation.py",
        "if self.observed_from > stored.observed_to:",
        "if self.observed_from >= stored.observed_from:",
        seed=8,
    ),
    Mutant(
        "different payload taken for an equal one",
        f"{_EVENTS}/ordering.py",
        "return Freshness.CURRENT if self._has_values(values) else freshness",
        "return Freshness.CURRENT",
        also=(("if child.has_state_of(stored) else freshness", "if stored else freshness"),),
    ),
    Mutant(
        "fetch serves a request that was counted after it was sent",
        f"{_MODELS}/customer.py",
        "{kind.COLLECTION: self.fetch_requests for",
        "{kind.COLLECTION: self.fetch_requests + 1 for",
        seed=59,
    ),
    Mutant(
        "no tombstone",
        f"{_EVENTS}/ordering.py",
        "        child = stored or self._child(",
        "        if stored is None:\n"
        "            return Freshness.OLDER\n"
        "        child = stored or self._child(",
        seed=33,
    ),
    Mutant(
        "response before the write",
        f"{_MODELS}/event.py",
        "            raise unavailable(error) from error\n        self.is_stored = True",
        "            return self\n        self.is_stored = True",
        seed=18,
    ),
    Mutant(
        "claim without token",
        f"{_CUSTOMERS}/create.py",
        'create_customer({**parameters, "metadata": metadata}, claim.token)',
        'create_customer({**parameters, "metadata": metadata}, current().new_token())',
        seed=31,
    ),
    Mutant(
        "adoption by user id alone",
        f"{_CUSTOMERS}/snapshot.py",
        "return claim.is_creating and self.token in claim.tokens",
        "return claim.is_creating and self.token is not None",
        seed=390,
    ),
    Mutant(
        "a replayed create observed now",
        f"{_CUSTOMERS}/snapshot.py",
        "cls(stripe_customer, Observation.of_event(created), is_initial=is_initial)",
        "cls(stripe_customer, Observation.of_event(int(current().clock())), is_initial=True)",
        seed=250,
    ),
    Mutant(
        "fetch before the read of the version",
        f"{_CUSTOMERS}/refresh.py",
        "        stored = {child.sk: child for child in customer.children}\n",
        "        read = read_customer(customer.owner)\n"
        "        customer.version = read.version if read else customer.version\n"
        "        stored = {child.sk: child for child in customer.children}\n",
    ),
    Mutant(
        "sweep without overlap",
        f"{_EVENTS}/reconcile.py",
        "OVERLAP_SECONDS = 600\n",
        "OVERLAP_SECONDS = 0\n",
    ),
    Mutant(
        "children pruned from a payload",
        f"{_EVENTS}/ordering.py",
        "        self._children[child.sk] = child\n        return freshness\n",
        "        for other in self._customer.attached(kind):\n"
        "            if other.sk != child.sk:\n"
        "                observation = Observation.of_event(event.created)\n"
        "                self._children[other.sk] = other.tombstone(observation)\n"
        "        self._children[child.sk] = child\n        return freshness\n",
        seed=31,
    ),
    Mutant(
        "deduplication by check-then-write",
        f"{_MODELS}/event.py",
        "            self.save(Event.pk.does_not_exist())\n",
        "            stored = Event.find(self.stripe_id)\n"
        "            if stored:\n"
        "                return stored\n"
        "            self.save()\n",
        seed=14,
    ),
    Mutant(
        "event marked before its effect",
        f"{_EVENTS}/apply.py",
        f"    extra_items = {_ITEMS}\n",
        "    for outcome in plan.outcomes:\n"
        "        if not outcome.has_side_effects:\n"
        "            outcome.mark()\n"
        f"    extra_items = {_ITEMS[:-1]} and outcome.has_side_effects]\n",
        seed=708,
    ),
    Mutant(
        "attempt counted after it is made",
        f"{_MODELS}/event.py",
        "            Event.attempts.add(1),\n",
        "",
        also=(("Event.attempts.set(self.attempts)", "Event.attempts.set(self.attempts + 1)"),),
    ),
    Mutant(
        "link of an event lost by the claim of its side effects",
        f"{_MODELS}/event.py",
        "        self.user_id, self.customer_id = owner\n        return is_written\n",
        "        return is_written\n",
        seed=25,
    ),
    Mutant(
        "soft delete without a new version",
        f"{_MODELS}/customer.py",
        _WRITE,
        "if 'date_purged' in values:\n"
        "                actions = type('Deaf', (list,), {'append': lambda *_: None})(actions)\n"
        f"            {_WRITE}",
    ),
    Mutant(
        "claim released after a timeout",
        f"{_CUSTOMERS}/create.py",
        "        if not error.replayed:\n            raise\n",
        "        if not error.replayed:\n            claim.release()\n            raise\n",
        seed=250,
    ),
    Mutant(
        "404 taken as a deletion",
        f"{_CUSTOMERS}/refresh.py",
        "        stripe_customer = current().stripe.retrieve_customer(customer.stripe_id)\n",
        "        try:\n"
        "            stripe_customer = current().stripe.retrieve_customer(customer.stripe_id)\n"
        "        except StripeRefusedError:\n"
        "            stripe_customer = {'id': customer.stripe_id, 'deleted': True}\n",
        seed=335,
    ),
    Mutant(
        "missing children not pruned",
        f"{_CUSTOMERS}/refresh.py",
        "            if child.is_attached and child.sk not in keys\n",
        "            if child.is_attached and child.sk in ()\n",
    ),
    Mutant(
        "event marked before it is published",
        f"{_EVENTS}/apply.py",
        "        try:\n            if outcome.has_side_effects:\n",
        "        outcome.mark()\n        try:\n            if outcome.has_side_effects:\n",
    ),
    Mutant(
        "claim that never expires",
        f"{_MODELS}/event.py",
        "            | (Event.next_attempt <= int(now))\n",
        "",
    ),
    Mutant(
        "failed without a dead letter",
        f"{_EVENTS}/failures.py",
        "        current().report_dead_letter(message)\n",
        "        _ = message\n",
        seed=25,
    ),
    Mutant(
        "waiting events ignored",
        f"{_EVENTS}/receive.py",
        "        event.wait()\n",
        "        event.ignore('unknown customer')\n",
    ),
    Mutant(
        "no retry",
        f"{_EVENTS}/failures.py",
        "    if not errors.is_permanent(error):\n",
        "    if not isinstance(error, BaseException):\n",
    ),
    Mutant(
        "dead-lettered after one attempt",
        f"{_MODELS}/event.py",
        "MAX_ATTEMPTS = 40\n",
        "MAX_ATTEMPTS = 1\n",
    ),
    Mutant(
        "payload of another API version trusted",
        f"{_EVENTS}/payload_trust.py",
        "        or event.api_version != API_VERSION\n",
        "",
        seed=642,
    ),
    Mutant(
        "removed default not cleared",
        f"{_EVENTS}/ordering.py",
        "return Freshness.AMBIGUOUS if self._is_default(stripe_id) else freshness",
        "return freshness",
        seed=37,
    ),
    Mutant(
        "late record not fetched",
        f"{_CUSTOMERS}/snapshot.py",
        "is_initial = current().clock() - created <= _INITIAL_SECONDS",
        "is_initial = current().clock() > created - _INITIAL_SECONDS",
        seed=250,
    ),
    Mutant(
        "subscriptions active after a deletion",
        f"{_MODELS}/subscription.py",
        "        if self.status in _FINAL_STATUSES or not self.is_attached:\n",
        "        if self.status is not None or not self.is_attached:\n",
        seed=7,
    ),
    Mutant(
        "final payload lost after a deletion",
        f"{_EVENTS}/apply.py",
        "        elif pending.add_final(event):\n            outcomes.append(Outcome(event))\n",
        "        elif event.kind.endswith('subscription.deleted'):\n"
        "            outcomes.append(Outcome(event))\n",
        seed=18,
    ),
    Mutant(
        "older event not published",
        f"{_EVENTS}/side_effects.py",
        "        return cls(event, Effect.OLDER, OLDER)\n",
        "        return cls(event, None, OLDER)\n",
        seed=10,
    ),
    Mutant(
        "event published only if it changes records",
        f"{_EVENTS}/apply.py",
        "effect = Effect.NONE if is_publish_type(event.kind) else None",
        "effect = None",
        seed=10,
    ),
    Mutant(
        "family of event types without its dot",
        "shared/stripe_integrations/config.py",
        'pattern.partition("*")',
        'pattern.partition(".*")',
        seed=115,
    ),
    Mutant(
        "published type that the sweep does not list",
        f"{_EVENTS}/reconcile.py",
        "settings.event_handlers or settings.publish_types",
        "settings.event_handlers",
    ),
    Mutant(
        "waiting event never ended",
        f"{_EVENTS}/reconcile.py",
        "            Event.finish_waiting(event.stripe_id)\n",
        "            continue\n",
    ),
    Mutant(
        "waiting events before pending ones",
        "shared/stripe_integrations/actions/stripe_event.py",
        "            reconcile.retry_due,\n            reconcile.look_up_waiting,\n",
        "            reconcile.look_up_waiting,\n            reconcile.retry_due,\n",
    ),
    Mutant(
        "fetch of a foreign customer",
        f"{_EVENTS}/apply.py",
        "    if not carries_our_token(event.data_object):\n        return None",
        "    if not carries_our_token(event.data_object):\n        return _fetch_customer(event)",
        seed=11,
    ),
    Mutant(
        "claim overwritten by a rebuild",
        f"{_ACCOUNT}/rebuild.py",
        "    if original:\n",
        "    if original is False:\n",
    ),
    Mutant(
        "pointer of another user overwritten",
        f"{_MODELS}/pointer.py",
        'transaction.save(self, is_free, return_values="ALL_OLD")',
        "transaction.save(self)",
        seed=30,
    ),
    Mutant(
        "claim overwritten by an adoption",
        f"{_MODELS}/claim.py",
        "            return ClaimReplacement(pointer, cls.pk.does_not_exist())\n",
        "            return ClaimReplacement(pointer, cls.pk.does_not_exist() | cls.pk.exists())\n",
    ),
    Mutant(
        "unassigned children not moved",
        f"{_MODELS}/customer.py",
        "                transaction.save(child)\n",
        "",
    ),
    Mutant(
        "children that were never listed not due",
        f"{_MODELS}/customer.py",
        '    return {"queue": _QUEUE, "next_attempt": claim_expires_at()}\n',
        "    return {}\n",
        seed=5038,
    ),
    Mutant(
        "metadata of an adoption never due",
        f"{_CUSTOMERS}/assign.py",
        "_store(customer, replacement, [update.add_to])",
        "_store(customer, replacement)",
        seed=58,
    ),
    Mutant(
        "metadata written before an adoption is stored",
        f"{_CUSTOMERS}/adopt.py",
        "    return _unless_stale(assign_adopted(",
        "    current().stripe.update_customer(\n"
        "        stripe_id,\n"
        '        {"metadata": {"stripe_integrations_user_id": user_id}},\n'
        "        current().new_token(),\n"
        "    )\n"
        "    return _unless_stale(assign_adopted(",
        seed=21,
    ),
    Mutant(
        "metadata left by a release",
        f"{_CUSTOMERS}/release.py",
        "    remove_metadata(stripe_id)\n",
        "",
    ),
    Mutant(
        "metadata claim not held by a release",
        f"{_CUSTOMERS}/release.py",
        "    update = MetadataUpdate.acquire(stripe_id)\n",
        "    update = MetadataUpdate.of(stripe_id)\n",
        also=(("free_customer(customer, [update.remove_in])", "free_customer(customer)"),),
        seed=70140,
    ),
    Mutant(
        "pointer left by a release",
        f"{_MODELS}/customer.py",
        "            Pointer.to(self.owner).remove_in(transaction)\n",
        "",
    ),
    Mutant(
        "children left by a release",
        f"{_CUSTOMERS}/release.py",
        "        child.delete_orphan()\n",
        "        pass\n",
        seed=39,
    ),
    Mutant(
        "create blocked by a customer that is being created",
        f"{_CUSTOMERS}/guard.py",
        "if customer.stripe_id not in recorded and not customer.is_claimed()",
        "if customer.stripe_id not in recorded",
        seed=338,
    ),
    Mutant(
        "create blocked by a soft-deleted customer",
        f"{_CUSTOMERS}/guard.py",
        "{i for i, pointer in pointers.items() if pointer.user_id or pointer.is_erased}",
        "set[str]()",
    ),
    Mutant(
        "gap between the windows of a walk",
        f"{_MODELS}/window.py",
        "        self.created_from = bounds[-1]\n",
        "        self.created_from = bounds[-1] + seconds // parts // 2\n",
        seed=7,
    ),
    Mutant(
        "page skipped after a kill",
        f"{_ACCOUNT}/walk.py",
        "    page = _read_page(window)\n",
        "    page = _read_page(window)\n"
        "    if page.cursor:\n"
        "        window.advance(page.cursor, {})\n",
        seed=8,
    ),
    Mutant(
        "stale page written over a newer state",
        f"{_ACCOUNT}/backfill.py",
        "        match page.observation.compared_to(record.observation):\n",
        "        match Freshness.NEWER:\n",
        also=(("page.observation.compared_to(observation) if observation else ", ""),),
        seed=109,
    ),
    Mutant(
        "children of a page taken for a complete list",
        f"{_ACCOUNT}/backfill.py",
        "    customer.run_id = run.run_id\n",
        "    customer.run_id = run.run_id\n"
        "    customer.listings = customer.listed(stored_kinds(), page.observation)['listings']\n",
        seed=31,
    ),
    Mutant(
        "conflict with a pointer overwritten by a mapping",
        f"{_ACCOUNT}/mapping.py",
        "        pointer.create_in(transaction)\n",
        "        transaction.save(pointer)\n",
        seed=22,
    ),
    Mutant(
        "conflict with a claim overwritten by a mapping",
        f"{_ACCOUNT}/mapping.py",
        "        replacement.add_to(transaction)\n",
        "        transaction.save(replacement.pointer)\n",
    ),
    Mutant(
        "undoing of what was assigned since",
        f"{_ACCOUNT}/undo.py",
        "return pointer if pointer and pointer.run_id == run_id else None",
        "return pointer if pointer and pointer.user_id else None",
        also=(("pointer.run_id != run.of_run", "pointer.user_id is None"),),
        seed=7,
    ),
    Mutant(
        "metadata written by a run not noted",
        f"{_MODELS}/pointer.py",
        "        self.has_metadata = True\n",
        "",
        seed=35,
    ),
    Mutant(
        "metadata left by an undo",
        f"{_ACCOUNT}/undo.py",
        "    values = remove_metadata(customer_id, retrieve_existing(customer_id))\n",
        "    values = retrieve_existing(customer_id) and {}\n",
        seed=155,
    ),
    Mutant(
        "missing customer not found by a verification",
        f"{_ACCOUNT}/compare.py",
        "Observed(DifferenceKind.MISSING) if is_ours or stores_unassigned() else None",
        "Observed(DifferenceKind.MISSING) if is_ours else None",
        seed=7,
    ),
    Mutant(
        "difference of a verification not checked again",
        f"{_ACCOUNT}/walk.py",
        "    due_at = int(current().clock()) + RECHECK_SECONDS if suspected else None\n",
        "    due_at = None if suspected else None\n",
    ),
    Mutant(
        "difference not repaired",
        f"{_ACCOUNT}/walk.py",
        "        return repair_page(window, run)\n",
        "        return Page([], Observation.of_event(int(current().clock())))\n",
    ),
    Mutant(
        "oversized object not stored",
        f"{_CUSTOMERS}/refresh.py",
        "        keys = {child.sk for child in listed}\n",
        "        listed = [child for child in listed if not child.is_incomplete]\n"
        "        keys = {child.sk for child in listed}\n",
        seed=24,
    ),
    Mutant(
        "sweep ends after its first page",
        f"{_EVENTS}/reconcile.py",
        '                cursor.advance(events[-1]["id"])\n',
        "                cursor.finish()\n                return\n",
        seed=36,
    ),
    Mutant(
        "replayed response of an update written",
        f"{_CUSTOMERS}/refresh.py",
        "    if response.is_replayed:\n        return {}\n",
        "",
        seed=45,
    ),
    Mutant(
        "update repeated after a conflict",
        f"{_CUSTOMERS}/update.py",
        "        return _fetch(read_again(customer))\n",
        "        return update_customer(read_again(customer), fields, idempotency_key)\n",
    ),
    Mutant(
        "every event taken for that of an own update",
        f"{_MODELS}/customer.py",
        "idempotency_key is not None and idempotency_key == self.update_key",
        "self.update_key is not None",
        seed=400,
    ),
    Mutant(
        "payload of an erased customer's event stored",
        f"{_EVENTS}/receive.py",
        "        event.ignore_as_erased()\n",
        '        event.ignore("erased")\n',
    ),
    Mutant(
        "no tombstone of an erased customer",
        f"{_MODELS}/customer.py",
        "            Pointer.erase_in(transaction, pointer, customer_id)\n",
        "            Pointer.to(owner).remove_in(transaction)\n",
    ),
    Mutant(
        "tombstone of an erased customer taken for no pointer",
        f"{_MODELS}/pointer.py",
        "            raise _erased(pointer)\n",
        "            return None\n",
        seed=23,
    ),
    Mutant(
        "replay of an erased customer's event keeps its user",
        f"{_MODELS}/event.py",
        "        elif reason == ERASED:\n            further = _erasing_actions()\n",
        "",
    ),
    Mutant(
        "erasure not completed by the schedule",
        f"{_EVENTS}/reconcile.py",
        "        if erasure.claim_due():\n            complete_erasure(erasure)\n",
        "        if erasure.claim_due():\n            erasure.finish()\n",
    ),
    Mutant(
        "custom handler's failure ignored",
        f"{_EVENTS}/side_effects.py",
        "            handle(self.event, customer)\n",
        "            try:\n"
        "                handle(self.event, customer)\n"
        "            except Exception:\n"
        "                continue\n",
    ),
    Mutant(
        "custom handler called before the effect",
        f"{_EVENTS}/apply.py",
        _COMMIT,
        "    for outcome in plan.outcomes:\n"
        "        if outcome.is_handled:\n"
        "            outcome.run_side_effects(customer)\n" + _COMMIT,
    ),
)
