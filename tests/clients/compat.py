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


class Counter:
    """Checks that count themselves, and say what they saw when they fail."""

    def __init__(self):
        self.checks = 0

    def equal(self, found, expected, what):
        self.checks += 1
        assert found == expected, f"{what}: found {found!r}, expected {expected!r}"
