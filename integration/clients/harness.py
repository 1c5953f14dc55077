"""Runs the checks of one client and leaves the counts where `integration/run` finds them."""

import hashlib
import os
import sys
import unittest

LAST_HASH_KEY = 2**128 - 1


def hash_key(partition_key):
    """Where a partition key falls: the MD5 of its bytes as a number (Kinesis API)."""
    return int.from_bytes(hashlib.md5(partition_key.encode(), usedforsecurity=False).digest(), "big")


def owner(shards, key):
    """The id of the open shard among `shards`, as the API returns them, that owns a hash key."""
    owners = [
        shard["ShardId"]
        for shard in shards
        if "EndingSequenceNumber" not in shard["SequenceNumberRange"]
        and int(shard["HashKeyRange"]["StartingHashKey"]) <= key <= int(shard["HashKeyRange"]["EndingHashKey"])
    ]
    assert len(owners) == 1, f"{len(owners)} open shards own {key}"
    return owners[0]


def ranges(shards):
    """The hash key ranges of shards, in order, as pairs of numbers."""
    pairs = (shard["HashKeyRange"] for shard in shards)
    return sorted((int(pair["StartingHashKey"]), int(pair["EndingHashKey"])) for pair in pairs)


def covers_all(shards):
    """Whether ranges follow each other without gap or overlap, from the first hash key to the last."""
    expected = 0
    for start, end in ranges(shards):
        if start != expected or end < start:
            return False
        expected = end + 1
    return expected == LAST_HASH_KEY + 1


def main():
    """Runs the tests of the calling module."""
    program = unittest.main(module="__main__", verbosity=2, exit=False)
    result = program.result
    failed = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
    passed = result.testsRun - failed - len(result.skipped)
    with open(os.environ["COUNTS"], "w", encoding="ascii") as counts:
        print(passed, failed, file=counts)
    sys.exit(0 if failed == 0 else 1)
