"""Accounts and transfers with the official Python client, checked against the ledger's rules.

Usage: ledger.py CLUSTER ADDRESSES
"""

import threading
import time

import tigerbeetle as tb

from compat import CREATED
from run import AMOUNT_MAX, CODE, LEDGER, A, T, fresh, main, post, transfer, void


def account_precedence(run):
    """An event that is wrong in every way, repaired one step at a time."""
    good = dict(id=fresh(), ledger=LEDGER, code=CODE, flags=A.NONE)
    both = A.DEBITS_MUST_NOT_EXCEED_CREDITS | A.CREDITS_MUST_NOT_EXCEED_DEBITS
    wrong = dict(
        timestamp=1,
        id=0,
        flags=both,
        debits_pending=1,
        debits_posted=1,
        credits_pending=1,
        credits_posted=1,
        ledger=0,
        code=0,
    )
    steps = [
        ("timestamp", 3),
        ("id", 6),
        ("flags", 8),
        ("debits_pending", 9),
        ("debits_posted", 10),
        ("credits_pending", 11),
        ("credits_posted", 12),
        ("ledger", 13),
        ("code", 14),
    ]
    for field, status in steps:
        run.check.equal(run.accounts(tb.Account(**wrong)), [status], f"account: {field}")
        wrong[field] = good.get(field, 0)
    run.check.equal(run.accounts(tb.Account(**wrong)), [CREATED], "account: repaired")
    run.check.equal(run.accounts(tb.Account(**wrong)), [21], "account: exists")
    differences = [
        ("flags", A.HISTORY, 15),
        ("user_data_128", 1, 16),
        ("user_data_64", 1, 17),
        ("user_data_32", 1, 18),
        ("ledger", LEDGER + 1, 19),
        ("code", CODE + 1, 20),
    ]
    for field, value, status in differences:
        event = tb.Account(**{**wrong, field: value})
        run.check.equal(run.accounts(event), [status], f"account: other {field}")


def transfer_precedence(run):
    debit, credit = run.pair()
    other = tb.Account(id=fresh(), ledger=LEDGER + 1, code=CODE)
    run.check.equal(run.accounts(other), [CREATED], "an account of another ledger")
    good = dict(id=fresh(), debit_account_id=debit, credit_account_id=credit, amount=5)
    good.update(ledger=LEDGER, code=CODE, pending_id=0, timeout=0, flags=T.NONE)
    wrong = dict(good, timestamp=1, id=0, debit_account_id=0, credit_account_id=0)
    wrong.update(pending_id=1, timeout=1, flags=T.CLOSING_DEBIT, ledger=0, code=0)
    steps = [
        ("timestamp", 3, 0),
        ("id", 5, good["id"]),
        ("debit_account_id", 8, credit),
        ("credit_account_id", 10, credit),
        ("debit_account_id", 12, debit),
        ("pending_id", 13, 0),
        ("timeout", 17, 0),
        ("flags", 64, T.NONE),
        ("ledger", 19, LEDGER + 9),
        ("code", 20, CODE),
        ("ledger", 24, LEDGER),
    ]
    for field, status, value in steps:
        run.check.equal(run.transfers(tb.Transfer(**wrong)), [status], f"transfer: {field}")
        wrong[field] = value
    run.check.equal(run.transfers(tb.Transfer(**wrong)), [CREATED], "transfer: repaired")
    run.check.equal(run.transfers(tb.Transfer(**wrong)), [46], "transfer: exists")
    run.check.equal(
        run.transfers(transfer(debit, other.id, 1)), [23], "accounts of different ledgers"
    )
    differences = [
        ("flags", T.PENDING, 36),
        ("pending_id", 3, 40),
        ("timeout", 3, 44),
        ("debit_account_id", other.id, 37),
        ("credit_account_id", other.id, 38),
        ("amount", 6, 39),
        ("user_data_128", 1, 41),
        ("user_data_64", 1, 42),
        ("user_data_32", 1, 43),
        ("ledger", LEDGER + 1, 67),
        ("code", CODE + 1, 45),
    ]
    for field, value, status in differences:
        event = tb.Transfer(**{**good, field: value})
        run.check.equal(run.transfers(event), [status], f"transfer: other {field}")


def linked(run):
    debit, credit = run.pair()
    before = run.balances(debit)
    events = [
        transfer(debit, credit, 1, T.LINKED),
        transfer(debit, fresh(), 1, T.LINKED),
        transfer(debit, credit, 1),
        transfer(debit, credit, 7),
        transfer(debit, credit, 1, T.LINKED),
    ]
    run.check.equal(run.transfers(*events), [1, 22, 1, CREATED, 2], "a chain that breaks")
    run.check.equal(run.balances(debit), (0, before[1] + 7, 0, 0), "only the loose one counts")
    whole = [transfer(debit, credit, 1, T.LINKED), transfer(debit, credit, 2)]
    run.check.equal(run.transfers(*whole), [CREATED] * 2, "a chain that holds")
    # The first of the chain exists, which is no success: it breaks the chain.
    run.check.equal(run.transfers(*whole), [46, 1], "a chain that exists")


def two_phase(run):
    debit, credit = run.pair()
    first = transfer(debit, credit, 10, T.PENDING)
    second = transfer(debit, credit, 20, T.PENDING)
    third = transfer(debit, credit, 30, T.PENDING, timeout=1)
    run.check.equal(run.transfers(first, second, third), [CREATED] * 3, "pending")
    run.check.equal(run.balances(debit), (60, 0, 0, 0), "pending debits")
    run.check.equal(run.balances(credit), (0, 0, 60, 0), "pending credits")

    run.check.equal(run.transfers(post(first, 11)), [31], "more than was pending")
    run.check.equal(run.transfers(void(second, 19)), [32], "a void of a part")
    run.check.equal(run.transfers(post(first, 4)), [CREATED], "a post of a part")
    run.check.equal(run.transfers(post(first, 4)), [33], "posted already")
    run.check.equal(run.transfers(void(second, 0)), [CREATED], "a void")
    run.check.equal(run.transfers(void(second, 0)), [34], "voided already")
    run.check.equal(run.balances(debit), (30, 4, 0, 0), "what is left")
    run.check.equal(run.transfers(void(transfer(0, 0, 0))), [25], "no such pending transfer")
    plain = transfer(debit, credit, 1)
    run.check.equal(run.transfers(plain), [CREATED], "a plain one")
    run.check.equal(run.transfers(void(plain, 0)), [26], "not pending")

    # Time alone ends the third: nobody asks for anything while it runs out.
    time.sleep(2)
    run.check.equal(run.balances(debit), (0, 5, 0, 0), "expired")
    run.check.equal(run.transfers(post(third, AMOUNT_MAX)), [35], "too late")


def limits(run):
    limited = run.account(A.DEBITS_MUST_NOT_EXCEED_CREDITS)
    other = run.account()
    over = transfer(limited, other, 1)
    run.check.equal(run.transfers(over), [54], "more than there is")
    run.check.equal(run.transfers(transfer(other, limited, 5)), [CREATED], "some credit")
    run.check.equal(run.transfers(over), [68], "an id that failed stays failed")
    run.check.equal(run.client.lookup_transfers([over.id]), [], "and is no transfer")
    balancing = transfer(limited, other, 9, T.BALANCING_DEBIT)
    run.check.equal(run.transfers(balancing), [CREATED], "as much as there is")
    [found] = run.client.lookup_transfers([balancing.id])
    run.check.equal(found.amount, 5, "the amount that was there")
    closing = transfer(limited, other, 0, T.PENDING | T.CLOSING_DEBIT)
    run.check.equal(run.transfers(closing), [CREATED], "closing")
    run.check.equal(run.transfers(transfer(other, limited, 1)), [66], "closed")
    run.check.equal(run.transfers(void(closing)), [CREATED], "reopening")
    run.check.equal(run.transfers(transfer(other, limited, 1)), [CREATED], "open again")


def balancing(run):
    """Amounts that the ledger works out."""
    debit, credit = run.pair()
    run.check.equal(
        run.transfers(transfer(credit, debit, 100), transfer(debit, credit, 30, T.PENDING)),
        [CREATED] * 2,
        "100 received, 30 of them promised",
    )

    def moved(*arguments, **fields):
        event = transfer(*arguments, **fields)
        run.check.equal(run.transfers(event), [CREATED], "balancing")
        [found] = run.client.lookup_transfers([event.id])
        run.check.equal(run.transfers(event), [46], "the same again exists")
        return found.amount

    other = run.account()
    run.check.equal(moved(debit, other, 20, T.BALANCING_DEBIT), 20, "less than there is")
    run.check.equal(moved(debit, other, AMOUNT_MAX, T.BALANCING_DEBIT), 50, "what is left of it")
    run.check.equal(moved(debit, other, 9, T.BALANCING_DEBIT), 0, "nothing is left")
    run.check.equal(moved(debit, credit, 9, T.BALANCING_CREDIT), 9, "less than it lacks")
    both = T.BALANCING_DEBIT | T.BALANCING_CREDIT | T.PENDING
    run.check.equal(moved(other, credit, AMOUNT_MAX, both), 61, "the smaller of two")
    run.check.equal(run.balances(credit), (0, 100, 30 + 61, 9), "all of it")


def closing(run):
    """Closing transfers, undone by a void, or by time."""
    debit, credit = run.pair()
    wrong = transfer(debit, credit, 0, T.CLOSING_DEBIT)
    run.check.equal(run.transfers(wrong), [64], "closing must be pending")
    first = transfer(debit, credit, 3, T.PENDING | T.CLOSING_CREDIT)
    run.check.equal(run.transfers(first), [CREATED], "the credit account is closed")
    run.check.equal([run.is_closed(a) for a in (debit, credit)], [False, True], "that one only")
    run.check.equal(run.transfers(transfer(debit, credit, 1)), [66], "no credits")
    run.check.equal(run.transfers(transfer(credit, debit, 1)), [65], "and no debits")
    run.check.equal(run.transfers(post(first)), [66], "a closing transfer cannot be posted")
    run.check.equal(run.transfers(void(first)), [CREATED], "but it can be voided")
    run.check.equal([run.is_closed(credit), run.balances(debit)], [False, (0, 0, 0, 0)], "open")
    again = transfer(debit, credit, 4, T.PENDING | T.CLOSING_DEBIT | T.CLOSING_CREDIT, timeout=1)
    run.check.equal(run.transfers(again), [CREATED], "both closed for a second")
    run.check.equal([run.is_closed(a) for a in (debit, credit)], [True, True], "both")
    time.sleep(2)
    run.check.equal([run.is_closed(a) for a in (debit, credit)], [False, False], "time opens both")
    run.check.equal(run.balances(debit), (0, 0, 0, 0), "and gives back the amount")
    shut = run.account(A.CLOSED)
    run.check.equal(run.transfers(transfer(shut, debit, 1)), [65], "closed from the beginning")


def many_expiries(run):
    """Expiries of one moment are not lost, however many a pulse may take."""
    debit, credit = run.pair()
    count = 3000
    events = [transfer(debit, credit, 1, T.PENDING, timeout=1 + n % 2) for n in range(count)]
    run.check.equal(run.transfers(*events), [CREATED] * count, "for one and for two seconds")
    run.check.equal(run.transfers(post(events[0])), [CREATED], "in time")
    time.sleep(3.5)
    run.check.equal(run.balances(debit), (0, 1, 0, 0), "all others have expired")
    run.check.equal(run.balances(credit), (0, 0, 0, 1), "on both sides")
    late = [post(events[1]), void(events[2]), post(events[0])]
    run.check.equal(run.transfers(*late), [35, 35, 33], "too late, too late, done already")


def transient(run):
    """Failures that depend on others' state poison their id; all others do not."""
    debit, credit = run.pair()
    poor = run.account(A.DEBITS_MUST_NOT_EXCEED_CREDITS)
    full = run.account(A.CREDITS_MUST_NOT_EXCEED_DEBITS)
    shut = run.account(A.CLOSED)
    good = transfer(debit, credit, 1)
    failures = [
        (transfer(fresh(), credit, 1), 21),
        (transfer(debit, fresh(), 1), 22),
        (post(transfer(debit, credit, 1)), 25),
        (transfer(poor, credit, 1), 54),
        (transfer(debit, full, 1), 55),
        (transfer(shut, credit, 1), 65),
        (transfer(debit, shut, 1), 66),
    ]
    for event, status in failures:
        again = transfer(debit, credit, 1, id=event.id)
        run.check.equal(run.transfers(event), [status], f"{status}")
        run.check.equal(run.transfers(event, again), [68, 68], f"{status} is remembered")
    found = run.client.lookup_transfers([event.id for event, _ in failures])
    run.check.equal(found, [], "none of them is a transfer")
    wrong = transfer(debit, credit, 1, id=good.id, ledger=LEDGER + 1)
    run.check.equal(run.transfers(wrong, good), [24, CREATED], "others may be tried again")
    # In a chain: only the one that failed itself is remembered.
    chain = [transfer(debit, credit, 1, T.LINKED), transfer(poor, credit, 1)]
    run.check.equal(run.transfers(*chain), [1, 54], "a chain")
    again = [transfer(debit, credit, 1, id=event.id) for event in chain]
    run.check.equal(run.transfers(*again), [CREATED, 68], "its members one by one")


def imported(run):
    """Events of another time: between the last one of their kind and now."""
    debit, credit = run.pair()
    last = run.look_up(credit).timestamp
    time.sleep(0.01)

    def account(timestamp, flags=A.IMPORTED, **fields):
        fields.setdefault("id", fresh())
        return tb.Account(ledger=LEDGER, code=CODE, flags=flags, timestamp=timestamp, **fields)

    old = account(last + 1000)
    run.check.equal(run.accounts(old), [CREATED], "an account of a while ago")
    run.check.equal(run.look_up(old.id).timestamp, last + 1000, "its own timestamp")
    run.check.equal(run.accounts(old), [21], "exists, whatever its timestamp")
    cases = [
        ([account(last + 1000)], [26], "not later than the last account"),
        ([account(0)], [24], "no timestamp"),
        ([account(1 << 63)], [24], "out of range"),
        ([account((1 << 63) - 1)], [25], "in the future"),
        ([account(last + 2000), account(0, A.NONE)], [CREATED, 22], "imported, and not"),
        ([account(0, A.NONE), account(last + 3000)], [CREATED, 23], "not, and imported"),
        ([account(5, A.NONE)], [3], "a timestamp without the flag"),
    ]
    for events, expected, what in cases:
        run.check.equal(run.accounts(*events), expected, what)

    newest = account(0, A.NONE)
    run.check.equal(run.accounts(newest), [CREATED], "an account of now")
    last = run.look_up(newest.id).timestamp
    time.sleep(0.01)

    def imports(timestamp, debit=debit, credit=credit, flags=T.NONE, **fields):
        return transfer(debit, credit, 5, flags | T.IMPORTED, timestamp=timestamp, **fields)

    first = imports(last + 1000)
    run.check.equal(run.transfers(first), [CREATED], "a transfer of a while ago")
    [found] = run.client.lookup_transfers([first.id])
    run.check.equal(found.timestamp, last + 1000, "its own timestamp")
    run.check.equal(run.transfers(first), [46], "exists, whatever its timestamp")
    future = (1 << 63) - 1
    cases = [
        ([imports(last + 1000)], [60], "not later than the last transfer"),
        ([imports(0)], [58], "no timestamp"),
        ([imports(future + 1)], [58], "out of range"),
        ([imports(future)], [59], "in the future"),
        ([imports(last + 2000, flags=T.PENDING, timeout=1)], [63], "a timeout"),
        ([imports(last + 2000), transfer(debit, credit, 1)], [CREATED, 56], "imported, and not"),
        ([transfer(debit, credit, 1), imports(last + 3000)], [CREATED, 57], "not, and imported"),
    ]
    for events, expected, what in cases:
        run.check.equal(run.transfers(*events), expected, what)
    # Transfers come after their accounts; and no timestamp is used twice.
    late = run.account()
    created = run.look_up(late).timestamp
    time.sleep(0.01)
    cases = [
        ([imports(created)], [60], "the timestamp of an account"),
        ([imports(created - 1, debit=late)], [61], "before its debit account"),
        ([imports(created - 1, credit=late)], [62], "before its credit account"),
        ([imports(created + 1, debit=late)], [CREATED], "after them"),
    ]
    for events, expected, what in cases:
        run.check.equal(run.transfers(*events), expected, what)
    run.check.equal(run.balances(late), (0, 5, 0, 0), "it counts")


def lookups(run):
    debit, credit = run.pair()
    events = [transfer(debit, credit, n, user_data_128=n, user_data_64=n) for n in range(1, 50)]
    run.check.equal(run.transfers(*events), [CREATED] * 49, "a batch")
    ids = [event.id for event in events]
    asked = ids[::-1] + [fresh(), 0, (1 << 128) - 1] + ids[:3]
    found = run.client.lookup_transfers(asked)
    run.check.equal([t.id for t in found], ids[::-1] + ids[:3], "in the order asked for")
    stamps = {t.id: t.timestamp for t in found}
    run.check.equal(
        [stamps[i] - stamps[ids[0]] for i in ids], list(range(49)), "consecutive timestamps"
    )
    run.check.equal([t.user_data_64 for t in found[:3]], [49, 48, 47], "as they were given")
    accounts = run.client.lookup_accounts([credit, fresh(), debit, credit])
    run.check.equal([a.id for a in accounts], [credit, debit, credit], "accounts in order")
    total = sum(range(1, 50))
    run.check.equal(run.balances(debit), (0, total, 0, 0), "the sum")
    run.check.equal(run.accounts(), [], "an empty batch")


def many_at_once(run):
    """Calls of many threads travel in one message as several batches."""
    debit, credit = run.pair()
    outcomes = []

    def work():
        for _ in range(10):
            event = transfer(debit, credit, 1)
            outcomes.append(run.transfers(event, event))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run.check.equal(outcomes, [[CREATED, 46]] * 80, "each call its own results")
    run.check.equal(run.balances(credit), (0, 0, 0, 80), "each transfer once")


def full_batch(run):
    debit, credit = run.pair()
    count = 8189 if hasattr(tb, "CreateTransferStatus") else 8000
    events = [transfer(debit, credit, 1) for _ in range(count)]
    run.check.equal(run.transfers(*events), [CREATED] * count, "as many as fit")
    run.check.equal(run.balances(debit), (0, count, 0, 0), "all of them")


main(
    [
        account_precedence,
        transfer_precedence,
        linked,
        two_phase,
        limits,
        balancing,
        closing,
        many_expiries,
        transient,
        imported,
        lookups,
        many_at_once,
        full_batch,
    ]
)
