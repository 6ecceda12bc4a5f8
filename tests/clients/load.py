"""Load from the official Python client while replicas are killed, then an account of everything.

Usage: load.py CLUSTER ADDRESSES SECONDS

Threads make transfers until the time is over. A call that returns has been acknowledged: each of its
transfers must be found at the end, as it was made, and the accounts must add up to exactly those.
"""

import os
import sys
import threading
import time

import tigerbeetle as tb

from compat import CREATED, connect, statuses

THREADS = 4
BATCH = 20
LEDGER, CODE = 800, 10


def fresh():
    return int.from_bytes(os.urandom(15), "little") + 1


def main():
    cluster, addresses, seconds = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    client = connect(cluster, addresses)
    accounts = [fresh() for _ in range(8)]
    events = [tb.Account(id=a, ledger=LEDGER, code=CODE) for a in accounts]
    assert statuses(client.create_accounts(events), 8) == [CREATED] * 8
    print("begun", flush=True)

    end = time.monotonic() + seconds
    acknowledged = []
    wrong = []

    def work(thread):
        mine = connect(cluster, addresses)
        while time.monotonic() < end:
            batch = [
                tb.Transfer(
                    id=fresh(),
                    debit_account_id=accounts[(thread + n) % 8],
                    credit_account_id=accounts[(thread + n + 1) % 8],
                    amount=1 + n,
                    ledger=LEDGER,
                    code=CODE,
                )
                for n in range(BATCH)
            ]
            found = statuses(mine.create_transfers(batch), BATCH)
            if found != [CREATED] * BATCH:
                wrong.append(found)
            acknowledged.extend(batch)
        mine.close()

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, wrong[:3]

    debits = dict.fromkeys(accounts, 0)
    credits = dict.fromkeys(accounts, 0)
    for start in range(0, len(acknowledged), 1000):
        part = acknowledged[start : start + 1000]
        found = client.lookup_transfers([t.id for t in part])
        assert len(found) == len(part), f"{len(part) - len(found)} acknowledged transfers are lost"
        for made, kept in zip(part, found):
            assert (made.id, made.amount, made.debit_account_id, made.credit_account_id) == (
                kept.id,
                kept.amount,
                kept.debit_account_id,
                kept.credit_account_id,
            )
            debits[kept.debit_account_id] += kept.amount
            credits[kept.credit_account_id] += kept.amount
    for account in client.lookup_accounts(accounts):
        assert account.debits_posted == debits[account.id], "debits do not add up"
        assert account.credits_posted == credits[account.id], "credits do not add up"
    print(f"ok: {len(acknowledged)} transfers")


main()
