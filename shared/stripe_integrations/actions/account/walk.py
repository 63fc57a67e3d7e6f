"""Walking the account: a worker leases windows, and reads each from its newest page to its oldest.

A run has few workers, which share its budgets. A worker that finds no window asks for one: another
divides its own between two pages. A run that is stopped, or whose workers die, is resumed where the
windows' cursors are.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass

from stripe_integrations import errors, limits
from stripe_integrations.actions.account.backfill import write_customers, write_subscriptions
from stripe_integrations.actions.account.mapping import process_rows
from stripe_integrations.actions.account.pace import Limits, Pace
from stripe_integrations.actions.account.page import Page, Result
from stripe_integrations.actions.account.undo import undo_customers
from stripe_integrations.context import current
from stripe_integrations.models import Subscription, stored_kinds
from stripe_integrations.models.deployment import store_deployment_name
from stripe_integrations.models.lookup_cursor import LookupCursor
from stripe_integrations.models.observation import Observation
from stripe_integrations.models.retry import retry_on_conflict
from stripe_integrations.models.run import PaymentMethodPolicy, Run, RunState
from stripe_integrations.models.sweep_cursor import SweepCursor
from stripe_integrations.models.window import WalkedList, Window
from stripe_integrations.observability import Metric

_LISTED_AFTER_SECONDS = 10
"""How long after a run's upper bound its newest objects are certainly listed."""
_IDLE_SECONDS = 5


@dataclass(frozen=True)
class Step:
    """A page that a worker has written.

    Parameters
    ----------
    window : Window
        Its window, with the progress so far.
    page : Page
        The page, with what became of its objects.
    pace : Pace
        The worker's calls and write units so far.
    """

    window: Window
    page: Page
    pace: Pace


def start_run(
    payment_methods: PaymentMethodPolicy,
    run_id: str | None,
    mapping: str | None,
    *,
    allows_refused: bool,
) -> Run:
    """Start a run: see `StripeAccount.start`."""
    stored_kinds()  # an invalid setting is raised before anything is written
    if not SweepCursor.is_stored():
        raise errors.SweepMissingError("no sweep of Stripe's events has been completed yet")
    store_deployment_name()
    lists = [WalkedList.CUSTOMERS]
    if Subscription in stored_kinds():
        lists.append(WalkedList.SUBSCRIPTIONS)
    if mapping:
        lists = [WalkedList.MAPPING, *lists, WalkedList.UNLISTED]
    options = {"mapping": mapping, "allows_refused": allows_refused}
    return Run.start(payment_methods, lists, run_id, **options)


def start_undo(run_id: str) -> Run:
    """Start a run that undoes another one: see `StripeAccount.undo`."""
    Run.read(run_id)
    return Run.start(PaymentMethodPolicy.NONE, [WalkedList.CUSTOMERS], undoes=run_id)


def walk(run_id: str, worker: str, budgets: Limits) -> Generator[Step, None, None]:
    """Walk windows of a run until none is left, the run is stopped, or the time is short.

    Parameters
    ----------
    run_id : str
        The run.
    worker : str
        Identifies the worker. One that takes the place of a dead one has the same name.
    budgets : Limits
        What all workers of the run use together.

    Yields
    ------
    Step
        Each page that was written.
    """
    pace = Pace(run_id, budgets)
    steps = _steps(run_id, worker, pace)
    while True:
        with pace.applied():
            step = next(steps, None)
        if step is None:
            return
        yield step


def _steps(run_id: str, worker: str, pace: Pace) -> Iterator[Step]:
    while (run := Run.read(run_id)).state is RunState.RUNNING and _has_time():
        windows = Window.all_of(run_id)
        if all(window.is_done for window in windows):
            _finish(run)
            return
        _wait_until_listed(run)
        window = _lease(windows, worker)
        if window is None:
            _request_split(run_id, is_requested=True)
            current().sleep(_IDLE_SECONDS)
            continue
        # Another worker that has taken the window reads its page again.
        with suppress(errors.StaleRecordError):
            yield from _walk_window(run_id, window, pace)


def _walk_window(run_id: str, window: Window, pace: Pace) -> Iterator[Step]:
    may_be_repeated = True
    while not window.is_done:
        run = Run.read(run_id)
        if run.state is not RunState.RUNNING or not _has_time():
            window.release()
            return
        if run.split_requested and window.divide(run_id):
            _request_split(run_id, is_requested=False)
        process = process_rows if WalkedList(window.walked_list).has_rows else _process_objects
        page, cursor = process(window, run)
        pace.pay_for_writes()
        if page.findings or may_be_repeated:
            _report(run_id, window, page)
        if page.results[Result.REFUSED] and not run.allows_refused:
            _stop(run_id)
            return
        window.advance(cursor, {str(result): count for result, count in page.results.items()})
        may_be_repeated = False
        current().add_metric(Metric.OBJECTS_WALKED, page.results.total())
        current().add_metric(Metric.OBJECTS_REPORTED, len(page.findings))
        yield Step(window, page, pace)


def _has_time() -> bool:
    return current().has_time_for(limits.WALK_PAGE_SECONDS)


def _process_objects(window: Window, run: Run) -> tuple[Page, tuple[int, str] | None]:
    """Read and write the next page of a list; the cursor is of its last object, None at the end."""
    page, has_more = _read_page(window)
    if run.undoes:
        undo_customers(page, run)
    elif window.walked_list is WalkedList.CUSTOMERS:
        write_customers(page, run)
    else:
        write_subscriptions(page, run)
    last = page.objects[-1] if has_more else None
    return page, (int(last["created"]), str(last["id"])) if last else None


def _report(run_id: str, window: Window, page: Page) -> None:
    """Store the findings of a page, before the cursor moves.

    A page that is read again after a kill has the same name: its findings replace the earlier ones,
    even if there are none any more.
    """
    lines = [json.dumps(asdict(finding)) + "\n" for finding in page.findings]
    current().put_report(f"runs/{run_id}/{window.id}/{window.page}.jsonl", "".join(lines))


def _read_page(window: Window) -> tuple[Page, bool]:
    """Read the next page of a window; where the cursor's object is gone, its second again."""
    stripe = current().stripe
    read = {
        WalkedList.CUSTOMERS: stripe.list_customers_page,
        WalkedList.SUBSCRIPTIONS: stripe.list_subscriptions_page,
    }[WalkedList(window.walked_list)]
    # With the cursor's object, the list continues after it, whatever else its second has.
    before = window.created_before if window.cursor_id else window.created_until
    sent = current().clock()
    try:
        objects, has_more = read(window.created_from, before, window.cursor_id)
    except errors.StripeObjectChangedError:
        if window.cursor_id is None:
            raise
        window.forget_cursor_id()
        return _read_page(window)
    observation = Observation.of_fetch(sent, received=current().clock())
    return Page(objects, observation), has_more


def _lease(windows: list[Window], worker: str) -> Window | None:
    """Lease a window that no other worker has, of the first list that is not read completely."""
    for walked_list in WalkedList:
        unfinished = [w for w in windows if w.walked_list == walked_list and not w.is_done]
        for window in unfinished:
            if window.is_free_for(worker):
                with suppress(errors.StaleRecordError):
                    window.lease(worker)
                    return window
        if unfinished:
            return None
    return None


def _stop(run_id: str) -> None:
    retry_on_conflict(lambda _: Run.read(run_id).stop())


def _wait_until_listed(run: Run) -> None:
    """Wait until the list has every object of before the run's upper bound."""
    seconds = run.created_before + _LISTED_AFTER_SECONDS - current().clock()
    if seconds > 0:
        current().sleep(seconds)


def _request_split(run_id: str, *, is_requested: bool) -> None:
    with suppress(errors.StaleRecordError):
        Run.read(run_id).request_split(is_requested=is_requested)


def _finish(run: Run) -> None:
    """End a run whose windows are walked, and let the schedule look up all waiting events again.

    Those whose first lookup preceded the record of their customer are older than the page that has
    the customer: only their custom handlers waited.
    """

    def attempt(_: int) -> None:
        stored = Run.read(run.run_id)
        if stored.state is RunState.RUNNING:
            LookupCursor.read().advance(0)
            stored.finish()

    retry_on_conflict(attempt)
