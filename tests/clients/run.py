"""What the scripts share: a connection, events with ids that nobody has used, checks that count.

A script is called with CLUSTER ADDRESSES, runs its sections one after the other, and prints the number
of checks; any difference ends it with a message. Sections use ids of their own, so that a script can
run against a cluster again and again, with any release of the client.
"""

import os
import sys

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
        fields.setdefault("ledger", LEDGER)
        account = tb.Account(id=fresh(), code=CODE, flags=flags, **fields)
        self.check.equal(self.accounts(account), [CREATED], "a plain account")
        return account.id

    def pair(self):
        return self.account(), self.account()

    def balances(self, account):
        return balances_of(self.look_up(account))

    def look_up(self, account):
        [found] = self.client.lookup_accounts([account])
        return found

    def is_closed(self, account):
        return bool(self.look_up(account).flags & A.CLOSED)


def balances_of(row):
    """Of an account, or of its balance at some time."""
    return row.debits_pending, row.debits_posted, row.credits_pending, row.credits_posted


def transfer(debit, credit, amount, flags=T.NONE, **fields):
    fields.setdefault("id", fresh())
    fields.setdefault("ledger", LEDGER)
    fields.setdefault("code", CODE)
    return tb.Transfer(
        debit_account_id=debit, credit_account_id=credit, amount=amount, flags=flags, **fields
    )


def post(pending, amount=AMOUNT_MAX, **fields):
    flags = T.POST_PENDING_TRANSFER
    return tb.Transfer(id=fresh(), pending_id=pending.id, amount=amount, flags=flags, **fields)


def void(pending, amount=0, **fields):
    flags = T.VOID_PENDING_TRANSFER
    return tb.Transfer(id=fresh(), pending_id=pending.id, amount=amount, flags=flags, **fields)


def main(sections):
    run = Run(int(sys.argv[1]), sys.argv[2])
    for section in sections:
        section(run)
        print(f"{section.__name__}: {run.check.checks} checks so far", flush=True)
    print(f"ok: {run.check.checks} checks")
