"""An account and transfer run with the official Python client, checked against the ledger's rules.

Usage: ledger.py CLUSTER ADDRESSES

Each section uses ids of its own, so that the script can run against a cluster again and again, with
any release of the client. Prints the number of checks; any difference ends it with a message.
"""

import os
import sys
import threading
import time

import tigerbeetle as tb

from compat import CREATED, Counter, connect, statuses

A = tb.AccountFlags
T = tb.TransferFlags
LEDGER, CODE = 700, 10
AMOUNT_MAX = (1 << 128) - 1


def fresh():
    """An id that nobody has used."""
    return int.from_bytes(os.urandom(15), "little") + 1


class Run:
    def __init__(self, cluster, addresses):
        self.client = connect(cluster, addresses)
        self.check = Counter()

    def accounts(self, *events):
        return statuses(self.client.create_accounts(list(events)), len(events))

    def transfers(self, *events):
        return statuses(self.client.create_transfers(list(events)), len(events))

    def account(self, flags=A.NONE, **fields):
        """An account that exists."""
        account = tb.Account(id=fresh(), ledger=LEDGER, code=CODE, flags=flags, **fields)
        self.check.equal(self.accounts(account), [CREATED], "a plain account")
        return account.id

    def pair(self):
        return self.account(), self.account()

    def balances(self, account):
        [found] = self.client.lookup_accounts([account])
        return (
            found.debits_pending,
            found.debits_posted,
            found.credits_pending,
            found.credits_posted,
        )


def transfer(debit, credit, amount, flags=T.NONE, **fields):
    fields.setdefault("id", fresh())
    fields.setdefault("ledger", LEDGER)
    fields.setdefault("code", CODE)
    return tb.Transfer(
        debit_account_id=debit, credit_account_id=credit, amount=amount, flags=flags, **fields
    )


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

    def ends(pending, amount, flags):
        return tb.Transfer(id=fresh(), pending_id=pending.id, amount=amount, flags=flags)

    post, void = T.POST_PENDING_TRANSFER, T.VOID_PENDING_TRANSFER
    run.check.equal(run.transfers(ends(first, 11, post)), [31], "more than was pending")
    run.check.equal(run.transfers(ends(second, 19, void)), [32], "a void of a part")
    run.check.equal(run.transfers(ends(first, 4, post)), [CREATED], "a post of a part")
    run.check.equal(run.transfers(ends(first, 4, post)), [33], "posted already")
    run.check.equal(run.transfers(ends(second, 0, void)), [CREATED], "a void")
    run.check.equal(run.transfers(ends(second, 0, void)), [34], "voided already")
    run.check.equal(run.balances(debit), (30, 4, 0, 0), "what is left")
    missing = tb.Transfer(id=fresh(), pending_id=fresh(), amount=0, flags=void)
    run.check.equal(run.transfers(missing), [25], "no such pending transfer")
    plain = transfer(debit, credit, 1)
    run.check.equal(run.transfers(plain), [CREATED], "a plain one")
    run.check.equal(run.transfers(ends(plain, 0, void)), [26], "not pending")

    # Time alone ends the third: nobody asks for anything while it runs out.
    time.sleep(2)
    run.check.equal(run.balances(debit), (0, 5, 0, 0), "expired")
    run.check.equal(run.transfers(ends(third, AMOUNT_MAX, post)), [35], "too late")


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
    reopen = tb.Transfer(id=fresh(), pending_id=closing.id, flags=T.VOID_PENDING_TRANSFER)
    run.check.equal(run.transfers(reopen), [CREATED], "reopening")
    run.check.equal(run.transfers(transfer(other, limited, 1)), [CREATED], "open again")


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


def main():
    cluster, addresses = int(sys.argv[1]), sys.argv[2]
    run = Run(cluster, addresses)
    sections = [
        account_precedence,
        transfer_precedence,
        linked,
        two_phase,
        limits,
        lookups,
        many_at_once,
        full_batch,
    ]
    for section in sections:
        section(run)
        print(f"{section.__name__}: {run.check.checks} checks so far", flush=True)
    print(f"ok: {run.check.checks} checks")


main()
