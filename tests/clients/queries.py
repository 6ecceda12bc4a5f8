"""The five queries with the official Python client, against lists that this script goes through.

Usage: queries.py CLUSTER ADDRESSES

Everything is made in a ledger of its own, and what a query must find is written as a condition over all
transfers that were made. Change events have no method in this client: they are asked for through its
native library, as its own methods do, by the releases that have them.
"""

import ctypes
import random
import time

import tigerbeetle as tb
from tigerbeetle import bindings

from compat import CREATED, account_filter, query_filter
from run import CODE, A, T, balances_of, fresh, main, post, transfer, void

F = tb.AccountFilterFlags
REVERSED = tb.QueryFilterFlags.REVERSED
BOTH = F.DEBITS | F.CREDITS
TIMESTAMP_MAX = (1 << 63) - 1


def own_ledger():
    return 1 + fresh() % ((1 << 32) - 1)


def made(run, *events):
    """Creates transfers and gives them as they are stored."""
    found = []
    for start in range(0, len(events), 1000):
        part = events[start : start + 1000]
        run.check.equal(run.transfers(*part), [CREATED] * len(part), "transfers are made")
        found += run.client.lookup_transfers([event.id for event in part])
    return found


def ids(records):
    return [record.id for record in records]


class Market:
    """Accounts and transfers of a ledger of their own, with rare values far apart.

    `rare` marks every 97th transfer, `odd` every 89th: both together, one in 8,633. `hub` is in every
    fifth transfer, on either side.
    """

    TRANSFERS = 9000

    def __init__(self, run):
        self.ledger = own_ledger()
        self.rare, self.odd = fresh(), fresh() % (1 << 63) + 1
        self.accounts = [
            run.account(ledger=self.ledger, user_data_64=1 + n % 3, user_data_32=1 + n % 4)
            for n in range(12)
        ]
        self.hub = self.accounts[0]
        events = []
        for n in range(self.TRANSFERS):
            debit, credit = self.accounts[1 + n % 7], self.accounts[8 + n % 4]
            if n % 5 == 0:
                debit = self.hub
            if n % 10 == 5:
                debit, credit = credit, self.hub
            events.append(
                transfer(
                    debit,
                    credit,
                    1,
                    ledger=self.ledger,
                    code=1 + n % 2,
                    user_data_128=self.rare if n % 97 == 0 else 0,
                    user_data_64=self.odd if n % 89 == 0 else 1 + n % 11,
                    user_data_32=n // 1000,
                )
            )
        self.all = made(run, *events)


def meets(record, filter):
    """Whether a record has every value that a filter names, and a timestamp in its range."""
    names = ["user_data_128", "user_data_64", "user_data_32", "code", "ledger"]
    asked = [(name, getattr(filter, name, 0)) for name in names]
    return all(value in (0, getattr(record, name)) for name, value in asked) and (
        filter.timestamp_min <= record.timestamp <= (filter.timestamp_max or TIMESTAMP_MAX)
    )


def of_account(record, filter):
    return (filter.flags & F.DEBITS and record.debit_account_id == filter.account_id) or (
        filter.flags & F.CREDITS and record.credit_account_id == filter.account_id
    )


def answer(records, filter, is_reversed):
    """What a query finds among records that are in order of their timestamps."""
    found = [record for record in records if meets(record, filter)]
    return (found[::-1] if is_reversed else found)[: filter.limit]


def intersections(run):
    """Rare values together, found wherever they are and nowhere else."""
    market = Market(run)
    choice = random.Random(market.ledger)
    stamps = [t.timestamp for t in market.all]

    def values(mask):
        all_values = [
            ("user_data_128", market.rare),
            ("user_data_64", choice.choice([market.odd, 1 + choice.randrange(12)])),
            ("user_data_32", choice.randrange(10)),
            ("code", 1 + choice.randrange(3)),
        ]
        chosen = {name: value for bit, (name, value) in enumerate(all_values) if mask >> bit & 1}
        if choice.random() < 0.5:
            chosen["timestamp_min"] = choice.choice(stamps) + choice.randrange(2)
        if choice.random() < 0.5:
            # Never before the beginning: that is a filter without sense, which `nonsense` tries.
            least = chosen.get("timestamp_min", stamps[0])
            later = [stamp for stamp in stamps if stamp >= least]
            chosen["timestamp_max"] = choice.choice(later or [TIMESTAMP_MAX])
        chosen["limit"] = choice.choice([1, 2, 10, 1000, 8189])
        return chosen

    for mask in list(range(16)) * 4:
        is_reversed = choice.random() < 0.5
        sides = choice.choice([F.DEBITS, F.CREDITS, BOTH, BOTH])
        flags = sides | (F.REVERSED if is_reversed else F.NONE)
        account = choice.choice(market.accounts + [market.hub] * 6)
        filter = account_filter(account, flags=flags, **values(mask))
        records = [t for t in market.all if of_account(t, filter)]
        found = run.client.get_account_transfers(filter)
        run.check.equal(ids(found), ids(answer(records, filter, is_reversed)), f"{filter}")

        flags = REVERSED if is_reversed else tb.QueryFilterFlags.NONE
        filter = query_filter(ledger=market.ledger, flags=flags, **values(mask))
        found = run.client.query_transfers(filter)
        run.check.equal(ids(found), ids(answer(market.all, filter, is_reversed)), f"{filter}")

    # The records are whole, and as the lookup gives them.
    filter = query_filter(user_data_128=market.rare)
    rare = [t for t in market.all if t.user_data_128 == market.rare]
    run.check.equal(run.client.query_transfers(filter), rare, "whole records")
    filter = query_filter(user_data_128=market.rare, user_data_64=market.odd)
    run.check.equal(
        ids(run.client.query_transfers(filter)), ids(market.all[:: 97 * 89]), "one in 8,633"
    )

    # Accounts: with the balances of now.
    accounts = run.client.lookup_accounts(market.accounts)
    for name, value in [("user_data_64", 2), ("user_data_32", 3), ("code", CODE), ("code", 9)]:
        for flags in (tb.QueryFilterFlags.NONE, REVERSED):
            filter = query_filter(ledger=market.ledger, flags=flags, **{name: value})
            expected = answer(accounts, filter, flags == REVERSED)
            run.check.equal(run.client.query_accounts(filter), expected, f"accounts: {filter}")
    filter = query_filter(ledger=market.ledger, user_data_64=2, user_data_32=1, limit=1)
    run.check.equal(ids(run.client.query_accounts(filter)), [market.accounts[4]], "both values")

    # A page after the other, either way, until nothing is left.
    for is_reversed in (False, True):
        seen, low, high = [], 0, 0
        while True:
            flags = BOTH | (F.REVERSED if is_reversed else F.NONE)
            filter = account_filter(
                market.hub, flags=flags, limit=700, timestamp_min=low, timestamp_max=high
            )
            page = run.client.get_account_transfers(filter)
            if not page:
                break
            seen += page
            low, high = (0, page[-1].timestamp - 1) if is_reversed else (page[-1].timestamp + 1, 0)
        hub = [t for t in market.all if market.hub in (t.debit_account_id, t.credit_account_id)]
        run.check.equal(ids(seen), ids(hub[::-1] if is_reversed else hub), "page by page")

    # As many as fit, of more than fit.
    filter = query_filter(ledger=market.ledger)
    run.check.equal(
        ids(run.client.query_transfers(filter)), ids(market.all[:8189]), "as many as fit"
    )
    if hasattr(tb, "TooMuchDataError"):
        try:
            run.client.query_transfers(query_filter(ledger=market.ledger, limit=8190))
            run.check.equal(True, False, "the client refuses a limit that cannot fit")
        except tb.TooMuchDataError:
            pass


def nonsense(run):
    """Filters that make no sense find nothing, and are no error."""
    debit, credit = run.account(A.HISTORY), run.account()
    ledger_filter = dict(code=CODE)
    made(run, transfer(debit, credit, 1))
    client = run.client
    wrong_ranges = [
        dict(timestamp_min=2, timestamp_max=1),
        dict(timestamp_min=TIMESTAMP_MAX + 1),
        dict(timestamp_max=TIMESTAMP_MAX + 1),
        dict(timestamp_min=(1 << 64) - 1, timestamp_max=(1 << 64) - 1),
        dict(limit=0),
    ]
    of_accounts = [account_filter(debit, **fields) for fields in wrong_ranges]
    of_accounts += [
        account_filter(debit, flags=F.NONE),
        account_filter(debit, flags=F.REVERSED),
        account_filter(debit, flags=8 | int(BOTH)),
        account_filter(0),
        account_filter((1 << 128) - 1),
        account_filter(fresh()),
        account_filter(debit, code=CODE + 1),
        account_filter(debit, flags=F.CREDITS),
        account_filter(debit, timestamp_max=1),
        account_filter(debit, timestamp_min=TIMESTAMP_MAX),
    ]
    for filter in of_accounts:
        run.check.equal(client.get_account_transfers(filter), [], f"transfers: {filter}")
        run.check.equal(client.get_account_balances(filter), [], f"balances: {filter}")
    of_queries = [query_filter(**ledger_filter, **fields) for fields in wrong_ranges]
    of_queries += [query_filter(**ledger_filter, flags=2), query_filter(code=CODE, ledger=own_ledger())]
    for filter in of_queries:
        run.check.equal(client.query_accounts(filter), [], f"accounts: {filter}")
        run.check.equal(client.query_transfers(filter), [], f"transfers: {filter}")
    run.check.equal(len(client.get_account_transfers(account_filter(debit))), 1, "one with sense")
    run.check.equal(len(client.get_account_balances(account_filter(debit))), 1, "and its balance")
    run.check.equal(
        client.get_account_balances(account_filter(credit)), [], "no history, no balances"
    )


def history(run):
    """What an account's balances were after each transfer, through every fate of a pending one."""
    account, other = run.account(A.HISTORY), run.account()
    kept = transfer(account, other, 10, T.PENDING)
    dropped = transfer(other, account, 20, T.PENDING)
    timed = transfer(account, other, 40, T.PENDING, timeout=1)
    rows = made(run, transfer(account, other, 1), kept, dropped, timed)
    rows += made(run, post(kept, 7), void(dropped), transfer(other, account, 100, code=77))
    expected = [
        (0, 1, 0, 0),
        (10, 1, 0, 0),
        (10, 1, 20, 0),
        (50, 1, 20, 0),
        (40, 8, 20, 0),
        (40, 8, 0, 0),
        (40, 8, 0, 100),
    ]

    def balances(**fields):
        found = run.client.get_account_balances(account_filter(account, **fields))
        return [(row.timestamp, *balances_of(row)) for row in found]

    def stamped(chosen):
        return [(rows[n].timestamp, *expected[n]) for n in chosen]

    run.check.equal(balances(), stamped(range(7)), "after each transfer")
    time.sleep(2)
    run.check.equal(run.balances(account), (0, 8, 0, 100), "the last pending one has expired")
    run.check.equal(balances(), stamped(range(7)), "which has no row")
    rows += made(run, transfer(account, other, 5))
    expected.append((0, 13, 0, 100))
    run.check.equal(balances(), stamped(range(8)), "but is seen in the next")
    run.check.equal(balances(flags=F.DEBITS), stamped([0, 1, 3, 4, 7]), "debits")
    run.check.equal(balances(flags=F.CREDITS), stamped([2, 5, 6]), "credits")
    run.check.equal(balances(flags=BOTH | F.REVERSED), stamped(range(8))[::-1], "reversed")
    run.check.equal(balances(flags=BOTH | F.REVERSED, limit=2), stamped([7, 6]), "the last two")
    run.check.equal(balances(code=77), stamped([6]), "by the transfer's code")
    span = dict(timestamp_min=rows[2].timestamp, timestamp_max=rows[4].timestamp)
    run.check.equal(balances(**span), stamped([2, 3, 4]), "both ends belong to the range")


class Row(ctypes.LittleEndianStructure):
    _pack_ = 1

    @classmethod
    def from_param(cls, row):
        return row

    def to_python(self):
        # The client's buffer is gone after the callback.
        return type(self).from_buffer_copy(self)


def u128(name):
    return [(name, ctypes.c_uint64), (name + "_high", ctypes.c_uint64)]


class ChangeEventsFilter(Row):
    _fields_ = [
        ("timestamp_min", ctypes.c_uint64),
        ("timestamp_max", ctypes.c_uint64),
        ("limit", ctypes.c_uint32),
        ("reserved", ctypes.c_uint8 * 44),
    ]


def account_columns(side):
    return [
        *u128(f"{side}_account_id"),
        *u128(f"{side}_debits_pending"),
        *u128(f"{side}_debits_posted"),
        *u128(f"{side}_credits_pending"),
        *u128(f"{side}_credits_posted"),
        *u128(f"{side}_user_data_128"),
        (f"{side}_user_data_64", ctypes.c_uint64),
        (f"{side}_user_data_32", ctypes.c_uint32),
        (f"{side}_code", ctypes.c_uint16),
        (f"{side}_flags", ctypes.c_uint16),
    ]


class ChangeEvent(Row):
    _fields_ = [
        *u128("transfer_id"),
        *u128("amount"),
        *u128("pending_id"),
        *u128("user_data_128"),
        ("user_data_64", ctypes.c_uint64),
        ("user_data_32", ctypes.c_uint32),
        ("timeout", ctypes.c_uint32),
        ("code", ctypes.c_uint16),
        ("flags", ctypes.c_uint16),
        ("ledger", ctypes.c_uint32),
        ("type", ctypes.c_uint8),
        ("reserved", ctypes.c_uint8 * 39),
        *account_columns("debit"),
        *account_columns("credit"),
        ("timestamp", ctypes.c_uint64),
        ("transfer_timestamp", ctypes.c_uint64),
        ("debit_account_timestamp", ctypes.c_uint64),
        ("credit_account_timestamp", ctypes.c_uint64),
    ]

    def wide(self, name):
        return getattr(self, name) | getattr(self, name + "_high") << 64

    def balances(self, side):
        names = ["debits_pending", "debits_posted", "credits_pending", "credits_posted"]
        return tuple(self.wide(f"{side}_{name}") for name in names)


def change_events(run):
    operation = getattr(bindings.Operation, "GET_CHANGE_EVENTS", None)
    if operation is None:
        print("this release has no change events")
        return
    assert ctypes.sizeof(ChangeEvent) == 384 and ctypes.sizeof(ChangeEventsFilter) == 64

    def events(least, most=0, limit=2730):
        filter = ChangeEventsFilter(timestamp_min=least, timestamp_max=most, limit=limit)
        return run.client._submit(operation, [filter], ChangeEventsFilter, ChangeEvent)

    debit, credit = run.account(user_data_64=5), run.account(user_data_32=6)
    closing = transfer(debit, credit, 4, T.PENDING | T.CLOSING_DEBIT, timeout=1)
    kept = transfer(debit, credit, 10, T.PENDING)
    dropped = transfer(debit, credit, 20, T.PENDING)
    plain = transfer(debit, credit, 1, user_data_128=7, user_data_64=8, user_data_32=9)
    rows = made(run, plain, kept, dropped, post(kept, 3), void(dropped), closing)
    time.sleep(2)
    found = events(rows[0].timestamp)
    run.check.equal([event.type for event in found], [0, 1, 1, 2, 3, 1, 4], "every type")
    subjects = rows + [rows[5]]
    run.check.equal([e.wide("transfer_id") for e in found], ids(subjects), "their transfers")
    run.check.equal(
        [e.transfer_timestamp for e in found], [t.timestamp for t in subjects], "and when"
    )
    run.check.equal(
        [e.timestamp for e in found[:6]], [t.timestamp for t in rows], "the event's own time"
    )
    run.check.equal([e.wide("amount") for e in found], [1, 10, 20, 3, 20, 4, 4], "amounts")
    run.check.equal(
        [e.wide("pending_id") for e in found], [0, 0, 0, kept.id, dropped.id, 0, 0], "of which"
    )
    run.check.equal([e.flags for e in found], [int(t.flags) for t in subjects], "flags")
    run.check.equal([e.timeout for e in found], [0, 0, 0, 0, 0, 1, 1], "timeouts")
    pending = [0, 10, 30, 20, 0, 4, 0]
    posted = [1, 1, 1, 4, 4, 4, 4]
    run.check.equal(
        [e.balances("debit") for e in found], [(a, b, 0, 0) for a, b in zip(pending, posted)], "debit"
    )
    run.check.equal(
        [e.balances("credit") for e in found],
        [(0, 0, a, b) for a, b in zip(pending, posted)],
        "credit",
    )
    closed = int(A.CLOSED)
    run.check.equal([e.debit_flags for e in found], [0] * 5 + [closed, 0], "closed while it was")
    first = found[0]
    run.check.equal(
        (first.wide("debit_account_id"), first.wide("credit_account_id")), (debit, credit), "accounts"
    )
    run.check.equal(
        (first.wide("user_data_128"), first.user_data_64, first.user_data_32), (7, 8, 9), "data"
    )
    run.check.equal((first.debit_user_data_64, first.credit_user_data_32), (5, 6), "of accounts")
    stamps = [run.look_up(account).timestamp for account in (debit, credit)]
    run.check.equal(
        [first.debit_account_timestamp, first.credit_account_timestamp], stamps, "their timestamps"
    )
    expired = found[6].timestamp
    run.check.equal(expired - rows[5].timestamp >= 1_000_000_000, True, "not before its time")

    def times(*arguments):
        return [event.timestamp for event in events(*arguments)]

    all_times = [event.timestamp for event in found]
    run.check.equal(times(all_times[1], all_times[3]), all_times[1:4], "both ends belong to it")
    run.check.equal(times(all_times[0], 0, 2), all_times[:2], "a limit")
    run.check.equal(times(expired, expired), [expired], "the expiry alone")
    run.check.equal(times(expired + 1), [], "nothing since")
    for filter in [(2, 1), (TIMESTAMP_MAX + 1,), (1, TIMESTAMP_MAX + 1), (1, 0, 0)]:
        run.check.equal(times(*filter), [], f"no sense in {filter}")


main([intersections, nonsense, history, change_events])
