"""Times `aws_kinesis_agg` on the records that the bench sends.

For each line on standard input with a number of bytes, and that many bytes after it, a line on standard output: how many
user records there are, and how many seconds it takes to read and to write them, one time, the best of many.
"""

import sys
import time

# The order matters: the aggregator sets the path by which the messages are found.
from aws_kinesis_agg.aggregator import RecordAggregator
from aws_kinesis_agg.deaggregator import iter_deaggregate_records
from aws_kinesis_agg import messages_pb2

SECONDS = 1.5
MIB = 1024 * 1024


def decode(blob):
    """The format that costs the library least: it takes the bytes as they are, and gives payloads in base64."""
    record = {"Data": blob, "PartitionKey": "a", "SequenceNumber": "1", "ApproximateArrivalTimestamp": 0}
    return list(iter_deaggregate_records([record], data_format="Boto3"))


def encode(records):
    aggregator = RecordAggregator(MIB)
    for key, data in records:
        assert aggregator.add_user_record(key, data) is None, "they fit into one record"
    return aggregator.clear_and_get().get_contents()[2]


def best(run):
    end = time.perf_counter() + SECONDS
    shortest = None
    while (start := time.perf_counter()) < end:
        run()
        taken = time.perf_counter() - start
        shortest = taken if shortest is None else min(shortest, taken)
    return shortest


def user_records(blob):
    """Partition keys as bytes: of texts the library takes the size wrongly, and fills records only in part."""
    message = messages_pb2.AggregatedRecord()
    message.ParseFromString(blob[4:-16])
    keys = [key.encode() for key in message.partition_key_table]
    return [(keys[record.partition_key_index], record.data) for record in message.records]


def main():
    for line in sys.stdin.buffer:
        blob = sys.stdin.buffer.read(int(line))
        records = user_records(blob)
        assert len(decode(blob)) == len(records), "user records were lost"
        assert encode(records) == blob, "it writes something else"
        print(len(records), best(lambda: decode(blob)), best(lambda: encode(records)), flush=True)


main()
