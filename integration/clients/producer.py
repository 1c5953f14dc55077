"""`shardwell put` and `shardwell tail`, against the AWS SDK for Python and the library aws_kinesis_agg."""

import base64
import collections
import json
import os
import random
import re
import signal
import socket
import subprocess
import tempfile
import time
import unittest

import boto3
from aws_kinesis_agg.deaggregator import deaggregate_records

import harness

kinesis = boto3.client("kinesis")
QUICK = {"Delay": 0.05, "MaxAttempts": 200}
COMMAND = os.environ["SHARDWELL_COMMAND"]
LONG = os.environ.get("SHARDWELL_LONG") == "1"


def lines(count):
    """Lines of JSON with a key and something that tells each from all others."""
    source = random.Random(1)
    for number in range(count):
        yield json.dumps({"tail": f"N{source.randrange(200)}", "number": number, "text": "x" * source.randrange(300)})


def start(*arguments):
    command = [COMMAND, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


class Putting:
    """`shardwell put` with what it says in files, so that it never waits for somebody to read it."""

    def __init__(self, *arguments):
        self.out, self.err = tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")
        command = [COMMAND, "put", *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=self.out, stderr=self.err, text=True)

    def write(self, some_lines):
        for line in some_lines:
            self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def finish(self):
        """The exit code, and what it said."""
        self.process.stdin.close()
        code = self.process.wait(timeout=120)
        texts = []
        for file in (self.out, self.err):
            with file:
                file.seek(0)
                texts.append(file.read())
        return code, *texts


def records_of(name):
    """Every record of a stream, by shard."""
    for shard in kinesis.list_shards(StreamName=name)["Shards"]:
        shard = shard["ShardId"]
        iterator = kinesis.get_shard_iterator(StreamName=name, ShardId=shard, ShardIteratorType="TRIM_HORIZON")
        iterator = iterator["ShardIterator"]
        while iterator:
            answer = kinesis.get_records(ShardIterator=iterator)
            for record in answer["Records"]:
                yield shard, record
            if not answer["Records"] and answer["MillisBehindLatest"] == 0:
                break
            iterator = answer.get("NextShardIterator")


def user_records_of(name):
    """Every user record: shard, sequence number, sub-sequence number, key, line."""
    for shard, record in records_of(name):
        kinesis_form = {
            "data": base64.b64encode(record["Data"]).decode(),
            "partitionKey": record["PartitionKey"],
            "sequenceNumber": record["SequenceNumber"],
            "approximateArrivalTimestamp": 0,
            "kinesisSchemaVersion": "1.0",
        }
        for place, user_record in enumerate(deaggregate_records([{"kinesis": kinesis_form}])):
            user_record = user_record["kinesis"]
            line = base64.b64decode(user_record["data"]).decode()
            yield shard, record["SequenceNumber"], place, user_record["partitionKey"], line


class Put(unittest.TestCase):
    def setUp(self):
        self.name = self.id().rsplit(".", 1)[-1]
        kinesis.create_stream(StreamName=self.name, ShardCount=3)
        self.active()
        self.addCleanup(kinesis.delete_stream, StreamName=self.name)

    def active(self):
        kinesis.get_waiter("stream_exists").wait(StreamName=self.name, WaiterConfig=QUICK)

    def reshard(self):
        shards = kinesis.list_shards(StreamName=self.name, ShardFilter={"Type": "AT_LATEST"})["Shards"]
        start, end = harness.ranges(shards[:1])[0]
        kinesis.split_shard(StreamName=self.name, ShardToSplit=shards[0]["ShardId"], NewStartingHashKey=str((start + end) // 2))
        self.active()
        kinesis.merge_shards(StreamName=self.name, ShardToMerge=shards[1]["ShardId"], AdjacentShardToMerge=shards[2]["ShardId"])
        self.active()

    def put(self, *options, reshards=True):
        """Puts lines while the stream is resharded; gives them, and what was told of each."""
        all_lines = list(lines(40_000 if LONG else 6_000))
        put = Putting("--stream", self.name, "--key-field", "tail", "--json", *options)
        half = len(all_lines) // 2
        put.write(all_lines[:half])
        if reshards:
            self.reshard()
        put.write(all_lines[half:])
        code, out, err = put.finish()
        self.assertEqual(code, 0, err)
        told = [json.loads(line) for line in out.splitlines()]
        self.assertEqual([place["line"] for place in told], list(range(1, len(all_lines) + 1)))
        return all_lines, told

    def check(self, all_lines, told):
        """Everything is there, where it was said, and twice only if it was put again."""
        found = collections.defaultdict(list)
        for shard, sequence, place, key, line in user_records_of(self.name):
            self.assertEqual(key, json.loads(line)["tail"])
            found[line].append((shard, sequence, place))
        self.assertEqual(set(found), set(all_lines), "nothing is lost, and nothing else is there")
        for line, place in zip(all_lines, told):
            where = (place["shard"], place["sequence_number"], place["sub_sequence_number"])
            self.assertIn(where, found[line])
            self.assertLessEqual(len(found[line]), place["attempts"])
        return found

    def test_lines_are_read_back_by_others_through_a_reshard(self):
        self.check(*self.put())

    def test_lines_that_are_not_aggregated(self):
        all_lines, told = self.put("--no-aggregation", reshards=False)
        self.check(all_lines, told)
        self.assertEqual(sum(1 for _ in records_of(self.name)), len(all_lines))

    def test_lines_of_a_key_keep_their_order(self):
        all_lines, told = self.put("--ordered")
        self.check(all_lines, told)
        shards = {shard["ShardId"]: shard for shard in kinesis.list_shards(StreamName=self.name)["Shards"]}

        def generation(shard):
            parents = [shards[shard].get("ParentShardId"), shards[shard].get("AdjacentParentShardId")]
            return 1 + max((generation(parent) for parent in parents if parent in shards), default=0)

        newest = {}
        for line, place in zip(all_lines, told):
            key = json.loads(line)["tail"]
            at = (generation(place["shard"]), int(place["sequence_number"]), place["sub_sequence_number"])
            self.assertLess(newest.get(key, (0,)), at, f"{line} came before an earlier one of its key")
            newest[key] = at

    def test_tail_shows_what_is_there(self):
        all_lines, _ = self.put()
        tail = start("tail", "--stream", self.name, "--from", "trim-horizon", "--no-follow")
        out, err = tail.communicate(timeout=120)
        self.assertEqual(tail.returncode, 0, err)
        self.assertEqual(set(out.splitlines()), set(all_lines))
        tail = start("tail", "--stream", self.name, "--from", "trim-horizon", "--no-follow", "--json")
        out, err = tail.communicate(timeout=120)
        shown = set()
        for record in map(json.loads, out.splitlines()):
            line = base64.b64decode(record["data"]).decode()
            shown.add((record["shard"], record["sequence_number"], record["sub_sequence_number"], record["partition_key"], line))
        self.assertEqual(shown, set(user_records_of(self.name)))

    def test_a_stream_that_is_not_there_is_told_at_once(self):
        put = Putting("--stream", "nowhere")
        began = time.monotonic()
        put.write(["a line"])
        code, _, err = put.finish()
        self.assertEqual(code, 1)
        self.assertIn("line 1 is not in the stream", err)
        self.assertIn("no such stream", err)
        self.assertLess(time.monotonic() - began, 20)


class Restart(unittest.TestCase):
    """The engine is killed while records are put, and comes again; its streams are new then."""

    def engine(self, port):
        engine = start("local", "--port", str(port), "--stream", "flights:2")
        self.addCleanup(self.end, engine)
        for line in engine.stdout:
            if re.search(rf":{port}\b", line):
                return engine
        self.fail(f"the engine does not say where it listens: {engine.stderr.read()}")

    def end(self, engine):
        if engine.poll() is None:
            engine.send_signal(signal.SIGKILL)
        engine.communicate()

    def test_every_line_is_put_or_told(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        first = self.engine(port)
        put = Putting("--stream", "flights", "--endpoint", f"http://127.0.0.1:{port}", "--key", "k", "--json")
        all_lines = list(lines(3_000))
        half = len(all_lines) // 2
        put.write(all_lines[:half])
        self.end(first)
        self.engine(port)
        put.write(all_lines[half:])
        code, out, err = put.finish()
        landed = {json.loads(line)["line"] for line in out.splitlines()}
        failed = {int(number) for number in re.findall(r"line (\d+) is not in the stream", err)}
        self.assertEqual(landed | failed, set(range(1, len(all_lines) + 1)), "every ticket is resolved")
        self.assertFalse(landed & failed)
        self.assertEqual(code, 1 if failed else 0)
        self.assertTrue(any(json.loads(line)["line"] == len(all_lines) for line in out.splitlines()), "it goes on")


if __name__ == "__main__":
    harness.main()
