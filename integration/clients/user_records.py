"""Random user records, and the two codecs that `aggregation.py` holds against each other."""

import base64
import hashlib
import json
import os
import subprocess
from typing import NamedTuple, Optional

from aws_kinesis_agg import MAGIC
from aws_kinesis_agg.aggregator import AggRecord
from aws_kinesis_agg.deaggregator import deaggregate_records

import harness

ENVELOPE_BYTES = 20
PIECES_OF_KEYS = ["N14228", "a", "tail/", "ключ", "鍵", "🛫", "\x00", '"', "\\", "\n", "\u2028", "e\u0301", "\u00e9"]
LENGTHS = [0, 1, 2, 15, 16, 20, 21, 40, 119, 120, 121, 126, 127, 128, 129, 500, 1024, 16_382, 16_383, 16_384]


class Record(NamedTuple):
    """A user record, or a record of Kinesis: both have these."""

    data: bytes
    partition_key: Optional[str]
    explicit_hash_key: Optional[int] = None


def seal(body):
    """A body with magic and digest around it."""
    return MAGIC + body + hashlib.md5(body, usedforsecurity=False).digest()


def effective_hash_key(record):
    if record.explicit_hash_key is not None:
        return record.explicit_hash_key
    return harness.hash_key(record.partition_key)


class Source:
    """Random user records, with the keys of some of them used again and again."""

    def __init__(self, random):
        self.random = random
        self.keys = [self.new_key() for _ in range(12)]
        self.hash_keys = [0, harness.LAST_HASH_KEY] + [self.new_hash_key() for _ in range(6)]
        # Some rounds have no explicit hash keys, some nothing else, and the others both kinds side by side.
        self.explicit = random.choice([0, 0.1, 0.5, 1])

    def new_key(self):
        random = self.random
        kind = random.randrange(4)
        if kind == 0:
            return random.choice("xж鍵🛫") * random.choice([1, 127, 128, 255, 256])
        if kind == 1:
            return str(random.randrange(10**6))
        return "".join(random.choices(PIECES_OF_KEYS, k=random.randint(1, 8)))

    def new_hash_key(self):
        return self.random.getrandbits(self.random.randint(1, 128))

    def new_data(self, most):
        random = self.random
        kind = random.randrange(20)
        if kind == 0:
            # Every order of magnitude is as likely as the others.
            return random.randbytes(int((most + 1) ** random.random()))
        if kind == 1:
            # Not aggregated, but it begins as if it were.
            return MAGIC + random.randbytes(random.randint(0, 40))
        if kind < 8:
            return random.randbytes(random.choice(LENGTHS))
        return random.randbytes(int(random.expovariate(1 / 100)))

    def record(self, most):
        """A user record whose data may have `most` bytes, or somewhat more if `most` is small."""
        random = self.random
        key = random.choice(self.keys) if random.random() < 0.7 else self.new_key()
        hash_key = None
        if random.random() < self.explicit:
            hash_key = random.choice(self.hash_keys) if random.random() < 0.5 else self.new_hash_key()
        return Record(self.new_data(most), key, hash_key)

    def records(self, count, most, fits):
        """User records that `fits` agrees with."""
        found = []
        while len(found) < count:
            record = self.record(most)
            if fits(record):
                found.append(record)
        return found


def line_of(record):
    hash_key = None if record.explicit_hash_key is None else str(record.explicit_hash_key)
    line = {"data": base64.b64encode(record.data).decode(), "partition_key": record.partition_key}
    return json.dumps({**line, "explicit_hash_key": hash_key}, ensure_ascii=False).encode()


def run_command(arguments, lines):
    """Runs `shardwell records`; gives its status, the lines that it wrote, and its standard error."""
    done = subprocess.run(
        [os.environ["SHARDWELL_COMMAND"], "records", *arguments],
        input=b"".join(line + b"\n" for line in lines),
        capture_output=True,
        timeout=300,
        check=False,
    )
    # Only at the line feed: keys may hold what else Python takes for the end of a line.
    return done.returncode, [json.loads(line) for line in done.stdout.split(b"\n") if line], done.stderr.decode()


def must_run(arguments, records):
    status, lines, errors = run_command(arguments, [line_of(record) for record in records])
    assert status == 0, f"shardwell records {' '.join(arguments)} ended with {status}: {errors[-2000:]}"
    return lines


def record_of(line):
    """The record in a line. Nothing is taken for granted: every field must be there, in its canonical form."""
    hash_key = line["explicit_hash_key"]
    number = None if hash_key is None else int(hash_key)
    assert hash_key is None or str(number) == hash_key, f"the hash key {hash_key!r} is not canonical"
    return Record(base64.b64decode(line["data"], validate=True), line["partition_key"], number)


def decode(records):
    """What the command makes of records of Kinesis: user records, sub-sequence numbers, classifications."""
    lines = must_run(["decode"], records)
    fields = {"data", "partition_key", "explicit_hash_key", "sub_sequence_number", "classification"}
    assert all(set(line) == fields for line in lines), "fields are missing or unknown"
    return [(record_of(line), line["sub_sequence_number"], line["classification"]) for line in lines]


def encode(records, max_record_bytes):
    """The records of Kinesis that the command makes."""
    lines = must_run(["encode", "--max-record-bytes", str(max_record_bytes)], records)
    fields = {"data", "partition_key", "explicit_hash_key"}
    assert all(set(line) == fields for line in lines), "fields are missing or unknown"
    return [record_of(line) for line in lines]


def arguments_of(record, text=str.encode):
    """A user record as `aws_kinesis_agg` takes it."""
    hash_key = None if record.explicit_hash_key is None else text(str(record.explicit_hash_key))
    return text(record.partition_key), record.data, hash_key


def contribution(record):
    """What a user record adds to an aggregated record that is empty, as `aws_kinesis_agg` computes it."""
    key, data, hash_key = arguments_of(record)
    return AggRecord()._calculate_record_size(key, data, hash_key)


def library_encode(records):
    """One blob with all of the user records, and the size that `aws_kinesis_agg` predicted for it."""
    # The size is right for keys that are bytes; keys that are text are counted again for each record.
    whole = AggRecord(max_size=2**40)
    for record in records:
        assert whole.add_user_record(*arguments_of(record))
    return whole.get_contents()[2], whole.get_size_bytes()


def library_decode(record):
    """What `aws_kinesis_agg` makes of a record of Kinesis: none if it passes it through, else its user records with
    their sub-sequence numbers."""
    event = {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "sequenceNumber": "1",
            "approximateArrivalTimestamp": 0,
            "partitionKey": record.partition_key,
            "data": base64.b64encode(record.data),
        }
    }
    found = deaggregate_records([event])
    if len(found) == 1 and found[0] is event:
        return None
    return [library_record(entry["kinesis"]) for entry in found]


def library_record(entry):
    assert entry["aggregated"] is True
    hash_key = entry["explicitHashKey"]
    number = None if hash_key is None else int(hash_key)
    record = Record(base64.b64decode(entry["data"]), entry["partitionKey"], number)
    return record, entry["subSequenceNumber"]


def as_library_decodes(records):
    """User records as `aws_kinesis_agg` gives them back. It does not ask whether a user record has an explicit hash
    key: the ones without get the first of the table, if the table has any."""
    given = [record.explicit_hash_key for record in records if record.explicit_hash_key is not None]
    if not given:
        return list(records)
    return [
        record if record.explicit_hash_key is not None else record._replace(explicit_hash_key=given[0])
        for record in records
    ]
