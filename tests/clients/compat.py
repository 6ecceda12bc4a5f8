"""What differs between the releases of the official Python client, in one place.

Releases from 0.17 answer creates with one result for each event, older ones with failures only.
Both are turned into one status number for each event; CREATED stands for success in either.
"""

import tigerbeetle as tb

CREATED = 0xFFFF_FFFF


def statuses(results, count):
    """One status for each of `count` events."""
    found = [CREATED] * count
    if results and hasattr(results[0], "index"):
        for result in results:
            found[result.index] = int(result.result)
        return found
    if hasattr(tb, "CreateTransferStatus"):
        assert len(results) == count, f"{len(results)} results for {count} events"
        return [int(result.status) for result in results]
    assert not results
    return found


def connect(cluster, addresses):
    return tb.ClientSync(cluster_id=cluster, replica_addresses=addresses)


def account_filter(account_id, **fields):
    """A filter with the fields that differ from zero: releases from 0.17 have no defaults."""
    fields.setdefault("flags", tb.AccountFilterFlags.DEBITS | tb.AccountFilterFlags.CREDITS)
    names = ["user_data_128", "user_data_64", "user_data_32", "code"]
    names += ["timestamp_min", "timestamp_max"]
    return tb.AccountFilter(account_id=account_id, **{**dict.fromkeys(names, 0), **with_limit(fields)})


def query_filter(**fields):
    fields.setdefault("flags", tb.QueryFilterFlags.NONE)
    names = ["user_data_128", "user_data_64", "user_data_32", "ledger", "code"]
    names += ["timestamp_min", "timestamp_max"]
    return tb.QueryFilter(**{**dict.fromkeys(names, 0), **with_limit(fields)})


def with_limit(fields):
    return {"limit": 8189, **fields}


class Counter:
    """Checks that count themselves, and say what they saw when they fail."""

    def __init__(self):
        self.checks = 0

    def equal(self, found, expected, what):
        self.checks += 1
        assert found == expected, f"{what}: found {found!r}, expected {expected!r}"
