"""Walking the account: a worker leases windows, and reads each from its newest page to its oldest.

What is done with a page depends on the kind of the run. After the pages of a verification, its
suspicions are checked, window by window, when they are due. A repair reads the pages of a report in
place of Stripe's lists.

A run has few workers, which share its budgets. A worker that finds no window asks for one: another
divides its own between two pages. A run that is stopped, or whose workers die, is resumed where the
windows' cursors are.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import count, islice

from stripe_integrations import errors, limits
from stripe_integrations.actions.account.backfill import write_customers, write_subscriptions
from stripe_integrations.actions.account.candidates import assign_candidates, note_candidates
from stripe_integrations.actions.account.check import check_suspicions, differences_of
from stripe_integrations.actions.account.mapping import process_rows, read_rows
from stripe_integrations.actions.account.metadata import write_metadata_of_page
from stripe_integrations.actions.account.page import Finding, Page, Result
from stripe_integrations.actions.account.rate_limiter import Limits, RateLimiter
from stripe_integrations.actions.account.rebuild import rebuild_customers, store_restored_name
from stripe_integrations.actions.account.repair import repair_page
from stripe_integrations.actions.account.undo import undo_customers
from stripe_integrations.actions.account.verify import verify_customers, verify_subscriptions
from stripe_integrations.actions.customers.refresh import retrieve_if_known
from stripe_integrations.config import ExistingCustomers
from stripe_integrations.context import current
from stripe_integrations.models import Subscription, stored_kinds
from stripe_integrations.models.customer import created_between
from stripe_integrations.models.deployment import store_deployment_name
from stripe_integrations.models.difference import RECHECK_SECONDS, DifferenceKind
from stripe_integrations.models.lookup_cursor import LookupCursor
from stripe_integrations.models.observation import Observation
from stripe_integrations.models.retry import retry_on_conflict
from stripe_integrations.models.run import PaymentMethodPolicy, Run, RunKind, RunState
from stripe_integrations.models.sweep_cursor import SweepCursor
from stripe_integrations.models.window import WalkedList, Window
from stripe_integrations.observability import Metric

_LISTED_AFTER_SECONDS = 10
"""How long after a run's upper bound its newest objects are certainly listed."""
_IDLE_SECONDS = 5
_LONGEST_WAIT_SECONDS = 60
"""After this, a worker that waits for due suspicions looks whether the run was stopped."""
_MAX_PARTS = 8
"""The largest number of parts into which a window is divided at a time."""
_PART_PAGES = 2
"""The fewest pages of a part: a window with fewer than two such parts is not divided."""
_CHECKED_CUSTOMERS = 3
"""How many stored customers show whether the key is of their account."""
_PART_LINES = 10_000
"""The number of differences in a part of the report."""


@dataclass(frozen=True)
class Step:
    """A page that a worker has written, or suspicions that it has checked.

    Parameters
    ----------
    window : Window
        Its window, with the progress so far.
    page : Page
        The page, with what became of its objects.
    rate_limiter : RateLimiter
        Has the worker's calls and write units so far.
    """

    window: Window
    page: Page
    rate_limiter: RateLimiter


def start_run(
    kind: RunKind,
    run_id: str | None = None,
    *,
    payment_methods: PaymentMethodPolicy = PaymentMethodPolicy.NONE,
    mapping: str | None = None,
    by_metadata: bool = False,
    allows_refused: bool = False,
    of_run: str | None = None,
) -> Run:
    """Start a run: see `StripeAccount.start`."""
    _check_options(kind, mapping, of_run, by_metadata=by_metadata)
    lists = _lists_of(kind)
    if kind is not RunKind.VERIFY:
        _check_account()
    if kind is RunKind.UNDO:
        if unfinished := _resume_undo(str(of_run)):
            return unfinished
        _check_has_no_worker(str(of_run))
    if mapping:
        next(read_rows(mapping), None)  # a file that is missing, or has no header, starts no run
        lists = [WalkedList.MAPPING, *lists, WalkedList.UNLISTED]
    if by_metadata:
        lists.append(WalkedList.CANDIDATES)
    return Run.start(
        kind,
        payment_methods,
        lists,
        run_id,
        mapping=mapping,
        by_metadata=by_metadata,
        allows_refused=allows_refused,
        of_run=of_run,
    )


def _check_options(
    kind: RunKind, mapping: str | None, of_run: str | None, *, by_metadata: bool
) -> None:
    for name, is_given in (("mapping", mapping), ("by_metadata", by_metadata)):
        if is_given and kind is not RunKind.BACKFILL:
            raise errors.InvalidFieldError(name, "is only for a backfill")
    settings = current().settings
    # Otherwise a create during the walk makes a second customer of a user whom metadata names.
    is_guarded = settings.existing_customers is ExistingCustomers.CHECK
    if by_metadata and not (settings.adopt_from and is_guarded):
        raise errors.InvalidFieldError("by_metadata", "needs AdoptFrom and ExistingCustomers=check")
    if bool(of_run) is not kind.needs_earlier_run:
        reason = "is required" if kind.needs_earlier_run else "is only for a repair or an undo"
        raise errors.InvalidFieldError("of_run", reason)
    if of_run:
        _check_earlier_run(kind, Run.read(of_run))


def _check_earlier_run(kind: RunKind, earlier: Run) -> None:
    if kind is RunKind.UNDO and earlier.kind is not RunKind.BACKFILL:
        raise errors.InvalidFieldError("of_run", "is not a backfill")
    is_verified = earlier.kind is RunKind.VERIFY and earlier.state is RunState.FINISHED
    if kind is RunKind.REPAIR and not is_verified:
        raise errors.RunNotFinishedError(f"run {earlier.run_id} is not a finished verification")


def _lists_of(kind: RunKind) -> list[WalkedList]:
    """Stripe's lists that a run reads, once it can store their objects.

    A rebuild needs no sweep: the schedule is closed until it is done, and sweeps afterwards.
    """
    if kind in (RunKind.UNDO, RunKind.METADATA):
        return [WalkedList.CUSTOMERS]
    kinds = stored_kinds()  # an invalid setting is raised before anything is written
    if kind is RunKind.REBUILD:
        store_restored_name()
        return [WalkedList.CUSTOMERS]
    if not SweepCursor.is_stored():
        raise errors.SweepMissingError("no sweep of Stripe's events has been completed yet")
    store_deployment_name()
    subscriptions = [WalkedList.SUBSCRIPTIONS] if Subscription in kinds else []
    return [WalkedList.CUSTOMERS, *subscriptions]


def _check_account() -> None:
    """Refuse the key of another account: Stripe knows none of the newest stored customers.

    It returns those that it has deleted. Not every restricted key may read the id of its account.
    """
    newest = list(islice(created_between(None, None), _CHECKED_CUSTOMERS))
    if newest and not any(retrieve_if_known(entry.stripe_id) for entry in newest):
        raise errors.OtherAccountError("Stripe knows none of the newest stored customers")


def _check_has_no_worker(run_id: str) -> None:
    """Refuse while a worker of a stopped run may still write the page that it has read."""
    if any(window.is_leased for window in Window.all_of(run_id)):
        raise errors.RunInProgressError(f"a worker of run {run_id} is writing its last page")


def _resume_undo(run_id: str) -> Run | None:
    """Resume the run that undoes another one, if it was started and is not finished."""
    latest = Run.latest()
    if not latest or latest.of_run != run_id or latest.kind is not RunKind.UNDO:
        return None
    if latest.state is RunState.FINISHED:
        return None
    retry_on_conflict(lambda _: Run.read(latest.run_id).resume())
    return latest


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
    rate_limiter = RateLimiter(run_id, budgets)
    steps = _steps(run_id, worker, rate_limiter)
    while True:
        with rate_limiter.applied():
            step = next(steps, None)
        if step is None:
            return
        yield step


def _steps(run_id: str, worker: str, rate_limiter: RateLimiter) -> Iterator[Step]:
    while (run := Run.read(run_id)).state is RunState.RUNNING and _has_time():
        windows = Window.all_of(run_id)
        if all(window.is_done for window in windows):
            _finish(run, windows)
            return
        _wait_until_listed(run)
        window = _lease(windows, worker)
        checked_at = None if window else next_check_at(windows)
        del windows  # a large run has thousands: a waiting worker does not hold them
        if window is None:
            if not _wait(run, checked_at):
                return
            continue
        # Another worker that has taken the window reads its page again.
        with suppress(errors.StaleRecordError):
            if window.is_read:
                yield from _check_window(run_id, window, rate_limiter)
            else:
                yield from _walk_window(run_id, window, rate_limiter)


def _wait(run: Run, checked_at: int | None) -> bool:
    """Wait for a window: one to read, which another worker divides, or one whose checks are due.

    Returns whether there may be one: an invocation does not wait long for checks, but ends.
    """
    if checked_at is None:
        _request_split(run.run_id, is_requested=True)
        current().sleep(_IDLE_SECONDS)
        return True
    seconds = checked_at - current().clock()
    if seconds > _LONGEST_WAIT_SECONDS and current().is_invocation:
        return False
    current().sleep(min(max(seconds, _IDLE_SECONDS), _LONGEST_WAIT_SECONDS))
    return True


def next_check_at(windows: list[Window]) -> int | None:
    """When the next suspicions are due, in Unix seconds; None where there is anything else to do.

    It is in the past where a worker checks them.
    """
    unfinished = [window for window in windows if not window.is_done]
    if not unfinished or not all(window.is_read for window in unfinished):
        return None
    return min(window.due_at or 0 for window in unfinished)


def _walk_window(run_id: str, window: Window, rate_limiter: RateLimiter) -> Iterator[Step]:
    may_be_repeated = True
    page_seconds = 0
    while not window.is_read:
        run = Run.read(run_id)
        if run.state is not RunState.RUNNING or not _has_time():
            window.release()
            return
        is_repair = run.kind is RunKind.REPAIR
        parts = _number_of_parts(window, page_seconds)
        if run.split_requested and not is_repair and window.divide(run_id, parts):
            _request_split(run_id, is_requested=False)
        until = window.created_until
        page = _process(window, run, rate_limiter)
        rate_limiter.wait_for_writes()
        if page.findings or may_be_repeated:
            _report(run_id, window, page)
        if page.results[Result.REFUSED] and not run.allows_refused:
            _stop(run_id)
            window.release()
            return
        _advance(window, page)
        page_seconds = until - window.created_until
        may_be_repeated = False
        current().add_metric(Metric.OBJECTS_WALKED, page.results.total())
        current().add_metric(Metric.OBJECTS_REPORTED, len(page.findings))
        yield Step(window, page, rate_limiter)


def _number_of_parts(window: Window, page_seconds: int) -> int:
    """Into how many parts to divide a window: each has some pages, if all are like the last one.

    `page_seconds` is how far its last page went back; 0 where none was read yet.
    """
    if page_seconds <= 0:
        return _MAX_PARTS
    pages = (window.created_until - window.created_since) // page_seconds
    return min(pages // _PART_PAGES, _MAX_PARTS)


def _advance(window: Window, page: Page) -> None:
    counts = {str(result): count for result, count in page.results.items()}
    suspected = window.counts.get(Result.SUSPECTED, 0) + page.results[Result.SUSPECTED]
    due_at = int(current().clock()) + RECHECK_SECONDS if suspected else None
    window.advance(page.cursor, counts, page.cursor_second_ids, due_at)


def _has_time() -> bool:
    return current().has_time_for(limits.WALK_PAGE_SECONDS)


def _report(run_id: str, window: Window, page: Page) -> None:
    """Store the findings of a page, before the cursor moves.

    A page that is read again after a kill has the same name: its findings replace the earlier ones,
    even if there are none any more.
    """
    _store_report(f"runs/{run_id}/{window.id}/{window.page}.jsonl", page.findings)


def _check_window(run_id: str, window: Window, rate_limiter: RateLimiter) -> Iterator[Step]:
    for page in check_suspicions(window, Run.read(run_id)):
        rate_limiter.wait_for_writes()
        unreadable = [found for found in page.findings if found.result is Result.UNREADABLE]
        if unreadable:
            first = unreadable[0].stripe_id
            _store_report(f"runs/{run_id}/{window.id}/checks-{first}.jsonl", unreadable)
        yield Step(window, page, rate_limiter)
        if Run.read(run_id).state is not RunState.RUNNING or not _has_time():
            window.release()
            return


def _process(window: Window, run: Run, rate_limiter: RateLimiter) -> Page:
    """Process the next differences, rows, or objects of Stripe's after the window's cursor."""
    if run.kind is RunKind.REPAIR:
        return repair_page(window, run)
    if window.walked_list is WalkedList.CANDIDATES:
        return assign_candidates(window, run)
    if WalkedList(window.walked_list).has_rows:
        return process_rows(window, run)
    return _process_objects(window, run, rate_limiter)


def _process_objects(window: Window, run: Run, rate_limiter: RateLimiter) -> Page:
    """Read the next page of a list, and write or compare it."""
    page = _read_page(window)
    is_of_customers = window.walked_list is WalkedList.CUSTOMERS
    if run.kind is RunKind.UNDO:
        undo_customers(page, run, rate_limiter.wait_for_metadata_write)
    elif run.kind is RunKind.METADATA:
        write_metadata_of_page(page, rate_limiter.wait_for_metadata_write)
    elif run.kind is RunKind.REBUILD:
        rebuild_customers(page)
    elif run.kind is RunKind.VERIFY and is_of_customers:
        verify_customers(page, window, run)
    elif run.kind is RunKind.VERIFY:
        verify_subscriptions(page, window, run)
    elif is_of_customers:
        write_customers(page, run)
        if run.by_metadata:
            note_candidates(page, run)
    else:
        write_subscriptions(page, run)
    return page


def _read_page(window: Window) -> Page:
    """Read the next page of a window; if the cursor's object was deleted, its second again."""
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
    last = objects[-1] if has_more else None
    cursor = (int(last["created"]), str(last["id"])) if last else None
    return Page(objects, observation, cursor)


def _lease(windows: list[Window], worker: str) -> Window | None:
    """Lease a window, of the first list that is not read completely; checks come at the end."""
    unread = [window for window in windows if not window.is_read]
    for walked_list in WalkedList:
        in_list = [window for window in unread if window.walked_list == walked_list]
        if in_list:
            return _lease_one(in_list, worker)
    return _lease_one(windows, worker)


def _lease_one(windows: list[Window], worker: str) -> Window | None:
    for window in windows:
        if window.is_free_for(worker):
            with suppress(errors.StaleRecordError):
                window.lease(worker)
                return window
    return None


def _stop(run_id: str) -> None:
    retry_on_conflict(lambda _: Run.read(run_id).stop())


def _wait_until_listed(run: Run) -> None:
    """Wait until the list has every object that was created before the run's upper bound."""
    seconds = run.created_before + _LISTED_AFTER_SECONDS - current().clock()
    if seconds > 0:
        current().sleep(seconds)


def _request_split(run_id: str, *, is_requested: bool) -> None:
    with suppress(errors.StaleRecordError):
        Run.read(run_id).request_split(is_requested=is_requested)


def _finish(run: Run, windows: list[Window]) -> None:
    """End a run whose windows are done.

    After records were stored, the schedule looks up all waiting events again: those whose first
    lookup preceded the record of their customer are older than the page that has the customer, and
    only their custom handlers waited.
    """
    if run.kind is RunKind.VERIFY:
        _report_differences(run.run_id)

    def attempt(_: int) -> bool:
        stored = Run.read(run.run_id)
        if stored.state is not RunState.RUNNING:
            return False
        if run.kind is not RunKind.VERIFY:
            LookupCursor.read().advance(0)
        stored.finish()
        return True

    if run.kind is RunKind.VERIFY:
        # Before the run is finished: otherwise a kill, or a lost response, loses it for good.
        found = sum(window.counts.get(kind, 0) for window in windows for kind in DifferenceKind)
        current().add_metric(Metric.ACCOUNT_DIFFERENCES, found)
    retry_on_conflict(attempt)


def _report_differences(run_id: str) -> None:
    """Store the report of a verification in the bucket; repeated, its parts are the same.

    Without a difference it has one part, which is empty.
    """
    findings = differences_of(run_id)
    for number in count(1):
        part = list(islice(findings, _PART_LINES))
        if part or number == 1:
            _store_report(f"runs/{run_id}/differences/{number:05d}.jsonl", part)
        if len(part) < _PART_LINES:
            return


def _store_report(key: str, findings: Iterable[Finding]) -> None:
    lines = [json.dumps(asdict(finding)) + "\n" for finding in findings]
    current().put_report(key, "".join(lines))
