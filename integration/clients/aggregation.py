"""Aggregated records: `shardwell records` against `aws_kinesis_agg` on random input.

Each run takes another seed and tells it; SHARDWELL_SEED repeats a run, SHARDWELL_LONG=1 does ten times as much.
`aws_kinesis_agg` 1.2.3 has defects of its own. Where the tests step around one, a comment there says so.
"""

import os
import random
import re
import secrets
import unittest

import harness
import user_records
from aws_kinesis_agg import MAGIC
from aws_kinesis_agg import messages_pb2
from aws_kinesis_agg.aggregator import RecordAggregator
from google.protobuf.message import DecodeError
from user_records import ENVELOPE_BYTES, Record, Source, contribution, decode, encode, line_of, library_decode, seal

SEED = os.environ.get("SHARDWELL_SEED") or str(secrets.randbelow(10**9))
LENGTH = 10 if os.environ.get("SHARDWELL_LONG") == "1" else 1
USER_RECORDS = 4000 * LENGTH
DAMAGED_RECORDS = 3000 * LENGTH
MIB = 1024 * 1024


class Differential(unittest.TestCase):
    maxDiff = 2000

    def setUp(self):
        # Each test has numbers of its own, so that a test that is run alone finds what it found among the others.
        self.random = random.Random(f"{SEED} {self.id()}")

    def assert_same(self, found, expected):
        """Compares lists, and shows the first difference instead of megabytes."""
        for number, (one, other) in enumerate(zip(found, expected)):
            self.assertEqual(one, other, f"the first difference is at {number}; seed {SEED}")
        self.assertEqual(len(found), len(expected), f"seed {SEED}")

    def rounds(self):
        """Sources of user records, and how many of these to take, until there were enough."""
        left = USER_RECORDS
        while left > 0:
            count = min(left, self.random.choice([1, 2, self.random.randint(3, 100), self.random.randint(100, 900)]))
            left -= count
            yield Source(self.random), count


class FromTheLibrary(Differential):
    def test_what_it_encodes_is_decoded(self):
        total, blobs = 0, 0
        for source, count in self.rounds():
            records, expected, given = self.aggregated(source, count)
            self.assertGreaterEqual(given, count)
            self.assert_same(decode(records), expected)
            total, blobs = total + given, blobs + len(records)
        print(f"{total} user records in {blobs} records ... ", end="", flush=True)

    def aggregated(self, source, count):
        """Records of Kinesis, what is to be found in them, and how many user records they hold."""
        limit = self.random.choice([150, 1024, 25_600, 51_200, MIB])
        # A user record that adds limit - 20 to limit bytes is lost by the library: it passes the first check, and the
        # empty aggregated record then refuses it.
        room = limit - ENVELOPE_BYTES
        taken = source.records(count, room, lambda record: contribution(record) <= room)
        if self.random.random() < 0.5:
            # A payload that is itself an aggregated record stays a payload.
            nested = Record(seal(b"\x0a\x01a\x1a\x05\x08\x00\x1a\x01x"), "nested")
            taken.insert(self.random.randint(0, count), nested)
        finished = self.fill(limit, taken)
        records, expected, rest = [], [], iter(taken)
        for whole in finished:
            key, hash_key, data = whole.get_contents()
            records.append(Record(data, as_text(key), None if hash_key is None else int(hash_key)))
            held = whole.get_num_user_records()
            expected += [(next(rest), number, "aggregated") for number in range(held)]
        self.assertEqual(next(rest, None), None, "the library lost user records")
        return records, expected, len(taken)

    def fill(self, limit, taken):
        # Keys that are text are counted again for each record, which ends a blob early and does no harm here. The same
        # key as text and as bytes is in the table twice, which the format allows.
        forms = self.random.choice([[str.encode], [str], [str.encode, str]])
        aggregator = RecordAggregator(max_size=limit)
        finished = []
        for record in taken:
            form = self.random.choice(forms)
            finished.append(aggregator.add_user_record(*user_records.arguments_of(record, form)))
        finished.append(aggregator.clear_and_get())
        return [whole for whole in finished if whole is not None]


class ToTheLibrary(Differential):
    def test_what_is_encoded_it_decodes(self):
        total, blobs = 0, 0
        for source, count in self.rounds():
            limit = self.random.choice([self.random.randint(400, 2000), 25_600, 51_200, MIB, 10 * MIB])
            taken = source.records(count, limit, lambda record: alone(record) <= limit)
            rest = taken
            for record in encode(taken, limit):
                rest = self.check(record, rest, limit)
                blobs += 1
            self.assertEqual(len(rest), 0, f"user records are lost; seed {SEED}")
            total += count
        print(f"{total} user records in {blobs} records ... ", end="", flush=True)

    def check(self, record, rest, limit):
        """Checks one record of Kinesis against the user records that are still to come, and gives those after it."""
        self.assertLessEqual(alone(record), limit)
        self.assertEqual(record.explicit_hash_key, user_records.effective_hash_key(rest[0]))
        found = library_decode(record)
        if found is None:
            # One user record alone is not wrapped.
            held = rest[:1]
            self.assertEqual((record.data, record.partition_key), (rest[0].data, rest[0].partition_key))
        else:
            held = rest[: len(found)]
            self.assertGreater(len(held), 1)
            self.assertEqual(record.partition_key, "a")
            # What the library makes up for user records without explicit hash key is expected of it, and no more.
            expected = zip(user_records.as_library_decodes(held), range(len(held)))
            self.assert_same(found, list(expected))
            # The other encoder agrees on every byte, and on the size.
            blob, size = user_records.library_encode(held)
            self.assertEqual(record.data, blob, f"seed {SEED}")
            self.assertEqual(len(record.data), size)
        if len(rest) > len(held):
            _, size = user_records.library_encode(rest[: len(held) + 1])
            self.assertGreater(size + len("a"), limit, f"there was room for one more; seed {SEED}")
        return rest[len(held) :]

    def test_what_was_encoded_is_decoded(self):
        source = Source(self.random)
        taken = source.records(1000, MIB // 4, lambda record: True)
        found = decode(encode(taken, MIB))
        # Not as the library gives them back: here the absence of an explicit hash key survives. Only a user record that
        # is alone in its record, as the last one may be, is put with the one that follows from its partition key.
        expected = [
            user if kind == "aggregated" else user._replace(explicit_hash_key=user_records.effective_hash_key(user))
            for user, (_, _, kind) in zip(taken, found)
        ]
        self.assert_same([record for record, _, _ in found], expected)
        self.assertEqual(len(found), len(taken))


class Damage(Differential):
    """Records that are not aggregated, or not any more, or badly."""

    def test_it_is_recognised(self):
        records = [self.damaged() for _ in range(DAMAGED_RECORDS)]
        expected, kinds = [], {}
        for record in records:
            kind, users = outcome(record.data)
            kinds[kind] = kinds.get(kind, 0) + 1
            expected += self.lines(record, kind, users)
        self.assert_same(decode(records), expected)
        print(", ".join(f"{kinds[kind]} {kind}" for kind in sorted(kinds)), end=" ... ", flush=True)
        every = {"too_short", "other_magic", "digest_mismatch", "unparsable", "partition_key_index", "empty"}
        every |= {"explicit_hash_key_index", "partition_key_encoding", "explicit_hash_key", "aggregated"}
        self.assertEqual(every - set(kinds), set(), f"a kind was not tried; seed {SEED}")

    def lines(self, record, kind, users):
        """What the command is to say of a record. The library has to agree wherever it does what it should."""
        numbered = [(user, number) for number, user in enumerate(users)]
        if kind not in ("aggregated", "empty"):
            if library_passes_through(kind, record.data):
                self.assertIsNone(library_decode(record), f"{kind}: {line_of(record)}; seed {SEED}")
            return [(record, 0, kind)]
        # The library makes up explicit hash keys where there is a table of them and a user record without.
        if not makes_up_hash_keys(record.data):
            self.assertEqual(library_decode(record), numbered, f"{kind}: {line_of(record)}; seed {SEED}")
        return [(user, number, kind) for user, number in numbered]

    def damaged(self):
        random = self.random
        kind = random.randrange(10)
        if kind == 0:
            data = random.choice([b"", MAGIC[: random.randint(1, 4)], MAGIC]) + random.randbytes(random.randint(0, 60))
        elif kind == 1:
            data = seal(random.randbytes(random.randint(0, 12)))
        elif kind == 2:
            data = seal(self.message().SerializeToString())
        elif kind == 3:
            data = self.mutated(self.blob())
        else:
            data = self.blob()
            # The digest is right again after the damage, so that the body is looked at.
            data = seal(self.mutated(data[len(MAGIC) : -16]))
        hash_key = random.choice([None, 0, harness.LAST_HASH_KEY, random.getrandbits(128)])
        return Record(data, random.choice([None, "outer", "внешний"]), hash_key)

    def message(self):
        """A message that is well formed, with any indexes and hash keys, good and bad."""
        random = self.random
        hash_keys = ["0", "7", str(harness.LAST_HASH_KEY), str(2**128), "007", "-1", "+1", " 1", "", "abc", "٣", "9" * 40]
        message = messages_pb2.AggregatedRecord()
        message.partition_key_table.extend(random.choices(["a", "", "ключ"], k=random.randint(0, 3)))
        message.explicit_hash_key_table.extend(random.choices(hash_keys, k=random.randint(0, 3)))
        for _ in range(random.randint(0, 3)):
            entry = message.records.add(partition_key_index=random.choice([0, 0, 1, 2, 2**32, 2**63]), data=b"data")
            if random.random() < 0.5:
                entry.explicit_hash_key_index = random.choice([0, 0, 1, 2, 2**32, 2**64 - 1])
        return message

    def blob(self):
        source = Source(self.random)
        records = source.records(self.random.randint(1, 6), 40, lambda record: len(record.data) <= 40)
        return user_records.library_encode(records)[0]

    def mutated(self, data):
        """The same with one to three places changed."""
        random = self.random
        data = bytearray(data)
        for _ in range(random.randint(1, 3)):
            at = random.randint(0, len(data))
            kind = random.randrange(6)
            if kind == 0:
                data[at:at] = random.randbytes(random.randint(1, 3))
            elif kind == 1:
                del data[at : at + random.randint(1, 3)]
            elif kind == 2:
                del data[at:]
            elif kind == 3 and at < len(data):
                data[at] = random.choice([0, 1, 2, 7, 8, 10, 16, 18, 26, 34, 0x7F, 0x80, 0xFF])
            elif at < len(data):
                data[at] ^= 1 << random.randrange(8)
        return bytes(data)


def as_text(key):
    return key.decode() if isinstance(key, bytes) else key


def alone(record):
    """What a record takes of the limit of the service."""
    return len(record.data) + len(record.partition_key.encode())


def message_of(data):
    """The message in an aggregated record, required fields or not; none if there is none."""
    message = messages_pb2.AggregatedRecord()
    try:
        message.ParseFromString(data[len(MAGIC) : -16])
    except DecodeError:
        return None
    return message


def library_passes_through(kind, data):
    """Whether the library too is to deliver a record as it is."""
    if kind == "unparsable":
        # It does not ask for required fields: it takes index 0 and no data for what is not there.
        return message_of(data) is None
    # For a bad index or key it delivers a part and drops the rest, raises an exception, or delivers a key that is none.
    return kind in ("too_short", "other_magic", "digest_mismatch")


def makes_up_hash_keys(data):
    message = message_of(data)
    return bool(message.explicit_hash_key_table) and any(explicit_index(entry) is None for entry in message.records)


def outcome(data):
    """What a record is and which user records it holds, by the rules of the format in their order, with the message
    read by protobuf itself."""
    if len(data) <= ENVELOPE_BYTES:
        return "too_short", []
    if not data.startswith(MAGIC):
        return "other_magic", []
    if data != seal(data[len(MAGIC) : -16]):
        return "digest_mismatch", []
    message = message_of(data)
    if message is None or not message.IsInitialized():
        return "unparsable", []
    if not message.records:
        return "empty", []
    fault = bad_index(message) or bad_key(message)
    return (fault, []) if fault else ("aggregated", list(users_of(message)))


def explicit_index(entry):
    return entry.explicit_hash_key_index if entry.HasField("explicit_hash_key_index") else None


def bad_index(message):
    for entry in message.records:
        if entry.partition_key_index >= len(message.partition_key_table):
            return "partition_key_index"
        index = explicit_index(entry)
        if index is not None and index >= len(message.explicit_hash_key_table):
            return "explicit_hash_key_index"
    return None


def bad_key(message):
    for entry in message.records:
        # What is not UTF-8 comes as bytes.
        if not isinstance(message.partition_key_table[entry.partition_key_index], str):
            return "partition_key_encoding"
        index = explicit_index(entry)
        if index is not None and not is_hash_key(message.explicit_hash_key_table[index]):
            return "explicit_hash_key"
    return None


def is_hash_key(text):
    canonical = isinstance(text, str) and re.fullmatch("0|[1-9][0-9]{0,38}", text)
    return bool(canonical) and int(text) <= harness.LAST_HASH_KEY


def users_of(message):
    for entry in message.records:
        index = explicit_index(entry)
        hash_key = None if index is None else int(message.explicit_hash_key_table[index])
        yield Record(entry.data, message.partition_key_table[entry.partition_key_index], hash_key)


class BrokenLines(unittest.TestCase):
    """A line that cannot be read is named, and the others are done."""

    NEVER_RECORDS = [
        b"nonsense",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"partition_key": "key"}',
        b'{"data": 7, "partition_key": "key"}',
        b'{"data": "YQ", "partition_key": "key"}',
        b'{"data": "?", "partition_key": "key"}',
        b'{"data": "YQ==", "partition_key": "key", "explicit_hash_key": "007"}',
        b'{"data": "YQ==", "partition_key": "key", "explicit_hash_key": "-1"}',
        b'{"data": "YQ==", "partition_key": "key", "explicit_hash_key": ""}',
        b'{"data": "YQ==", "partition_key": "key", "explicit_hash_key": "%d"}' % 2**128,
    ]
    NEVER_USER_RECORDS = [
        line_of(Record(b"no key", None)),
        line_of(Record(b"empty key", "")),
        line_of(Record(b"long key", "x" * 257)),
        line_of(Record(b"x" * 1000, "too large")),
    ]

    def check(self, arguments, good, broken):
        """Mixes good lines and broken ones; only the messages and the status may differ from the good lines alone."""
        status, expected, errors = user_records.run_command(arguments, good)
        self.assertEqual((status, errors), (0, ""))
        self.assertGreater(len(expected), 1)
        mixed, numbers = [good[0]], []
        for number, line in enumerate(broken, start=1):
            mixed += [line, b"", good[number]]
            numbers.append(len(mixed) - 2)
        mixed += good[len(broken) + 1 :]
        status, found, errors = user_records.run_command(arguments, mixed)
        self.assertEqual(status, 1)
        self.assertEqual([int(number) for number in re.findall(r"^line (\d+): ", errors, re.MULTILINE)], numbers)
        self.assertEqual(found, expected)

    def test_in_decode(self):
        good = [line_of(Record(b"data %d" % number, None, number)) for number in range(20)]
        self.check(["decode"], good, self.NEVER_RECORDS)

    def test_in_encode(self):
        good = [line_of(Record(b"data %d" % number, f"key {number}")) for number in range(30)]
        broken = self.NEVER_RECORDS + self.NEVER_USER_RECORDS
        self.check(["encode", "--max-record-bytes", "200"], good, broken)


if __name__ == "__main__":
    print(f"SHARDWELL_SEED={SEED}", flush=True)
    harness.main()
