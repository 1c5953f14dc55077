"""The AWS SDK for Python against `shardwell local`: each class and exception as the SDK itself shows it."""

import datetime
import unittest

import boto3
from botocore.exceptions import ClientError

import harness

kinesis = boto3.client("kinesis")
QUICK = {"Delay": 0.05, "MaxAttempts": 200}


class StreamTest(unittest.TestCase):
    """A stream of its own for each test, deleted at its end."""

    shards = 2

    def setUp(self):
        self.name = self.id().rsplit(".", 1)[-1]
        kinesis.create_stream(StreamName=self.name, ShardCount=self.shards)
        self.active()
        self.arn = self.summary()["StreamARN"]

    def tearDown(self):
        try:
            kinesis.delete_stream(StreamName=self.name)
        except kinesis.exceptions.ResourceNotFoundException:
            pass

    def active(self):
        kinesis.get_waiter("stream_exists").wait(StreamName=self.name, WaiterConfig=QUICK)

    def summary(self):
        return kinesis.describe_stream_summary(StreamName=self.name)["StreamDescriptionSummary"]

    def list(self, **arguments):
        return kinesis.list_shards(StreamName=self.name, **arguments)["Shards"]

    def ids(self, **shard_filter):
        shards = self.list(ShardFilter=shard_filter) if shard_filter else self.list()
        return [shard["ShardId"] for shard in shards]

    def put(self, data, key="key", **arguments):
        return kinesis.put_record(StreamName=self.name, Data=data, PartitionKey=key, **arguments)

    def iterator(self, shard, kind, **arguments):
        answer = kinesis.get_shard_iterator(
            StreamName=self.name, ShardId=shard, ShardIteratorType=kind, **arguments
        )
        return answer["ShardIterator"]

    def read(self, shard, kind, **arguments):
        return kinesis.get_records(ShardIterator=self.iterator(shard, kind, **arguments))

    def payloads(self, shard, kind, **arguments):
        return [record["Data"] for record in self.read(shard, kind, **arguments)["Records"]]

    def drain(self, shard):
        """All records of a closed shard, and the answer that ended it."""
        records, iterator = [], self.iterator(shard, "TRIM_HORIZON")
        for _ in range(20):
            answer = kinesis.get_records(ShardIterator=iterator)
            records += answer["Records"]
            iterator = answer.get("NextShardIterator")
            if iterator is None:
                return records, answer
        self.fail(f"{shard} does not end")

    def refused(self, code):
        """Expects the error code, raised as the exception class that the SDK made for it."""
        return self.assertRaises(getattr(kinesis.exceptions, code))


class Streams(StreamTest):
    def test_a_new_stream_is_described(self):
        summary = self.summary()
        self.assertEqual(summary["StreamName"], self.name)
        self.assertEqual(summary["StreamStatus"], "ACTIVE")
        self.assertEqual(summary["OpenShardCount"], 2)
        self.assertEqual(summary["RetentionPeriodHours"], 24)
        self.assertRegex(self.arn, rf"^arn:aws:kinesis:[\w-]+:\d{{12}}:stream/{self.name}$")
        age = datetime.datetime.now(datetime.timezone.utc) - summary["StreamCreationTimestamp"]
        self.assertLess(abs(age.total_seconds()), 60)

    def test_describe_stream_pages_through_the_shards(self):
        whole = kinesis.describe_stream(StreamName=self.name)["StreamDescription"]
        self.assertFalse(whole["HasMoreShards"])
        self.assertTrue(harness.covers_all(whole["Shards"]))
        first = kinesis.describe_stream(StreamName=self.name, Limit=1)["StreamDescription"]
        self.assertTrue(first["HasMoreShards"])
        self.assertEqual(first["Shards"], whole["Shards"][:1])
        pages = kinesis.get_paginator("describe_stream").paginate(
            StreamName=self.name, PaginationConfig={"PageSize": 1}
        )
        paged = [shard for page in pages for shard in page["StreamDescription"]["Shards"]]
        self.assertEqual(paged, whole["Shards"])

    def test_streams_are_listed_in_pages(self):
        other = self.name + "_2"
        kinesis.create_stream(StreamName=other, ShardCount=1)
        self.addCleanup(kinesis.delete_stream, StreamName=other)
        kinesis.get_waiter("stream_exists").wait(StreamName=other, WaiterConfig=QUICK)
        names = set(kinesis.list_streams()["StreamNames"])
        self.assertLessEqual({self.name, other}, names)
        self.assertTrue(kinesis.list_streams(Limit=1)["HasMoreStreams"])
        pages = list(kinesis.get_paginator("list_streams").paginate(PaginationConfig={"PageSize": 1}))
        self.assertEqual([len(page["StreamNames"]) for page in pages], [1] * len(names))
        self.assertEqual({name for page in pages for name in page["StreamNames"]}, names)

    def test_a_name_is_taken_once(self):
        with self.refused("ResourceInUseException"):
            kinesis.create_stream(StreamName=self.name, ShardCount=1)

    def test_a_deleted_stream_is_gone(self):
        shard = self.ids()[0]
        iterator = self.iterator(shard, "TRIM_HORIZON")
        kinesis.delete_stream(StreamName=self.name)
        kinesis.get_waiter("stream_not_exists").wait(StreamName=self.name, WaiterConfig=QUICK)
        with self.refused("ResourceNotFoundException"):
            self.summary()
        with self.refused("ResourceNotFoundException"):
            kinesis.get_records(ShardIterator=iterator)
        self.assertNotIn(self.name, kinesis.list_streams()["StreamNames"])

    def test_every_call_takes_the_arn(self):
        arn = {"StreamARN": self.arn}
        shards = kinesis.list_shards(**arn)["Shards"]
        self.assertEqual(kinesis.describe_stream(**arn)["StreamDescription"]["Shards"], shards)
        self.assertEqual(kinesis.describe_stream_summary(**arn)["StreamDescriptionSummary"]["OpenShardCount"], 2)
        placed = kinesis.put_record(Data=b"one", PartitionKey="key", **arn)
        many = kinesis.put_records(Records=[{"Data": b"two", "PartitionKey": "key"}], **arn)
        self.assertEqual(many["FailedRecordCount"], 0)
        iterator = kinesis.get_shard_iterator(
            ShardId=placed["ShardId"], ShardIteratorType="TRIM_HORIZON", **arn
        )["ShardIterator"]
        records = kinesis.get_records(ShardIterator=iterator, **arn)["Records"]
        self.assertEqual([record["Data"] for record in records], [b"one", b"two"])
        kinesis.merge_shards(ShardToMerge=shards[0]["ShardId"], AdjacentShardToMerge=shards[1]["ShardId"], **arn)
        self.active()
        merged = kinesis.list_shards(ShardFilter={"Type": "AT_LATEST"}, **arn)["Shards"][0]["ShardId"]
        kinesis.split_shard(ShardToSplit=merged, NewStartingHashKey=str(2**100), **arn)
        self.active()
        kinesis.update_shard_count(TargetShardCount=1, ScalingType="UNIFORM_SCALING", **arn)
        self.active()
        self.assertEqual(len(kinesis.list_shards(ShardFilter={"Type": "AT_LATEST"}, **arn)["Shards"]), 1)
        kinesis.delete_stream(**arn)
        kinesis.get_waiter("stream_not_exists").wait(WaiterConfig=QUICK, **arn)


class Records(StreamTest):
    def test_a_record_lands_where_its_key_belongs(self):
        shards = self.list()
        for key in ("N14228", "N24211", "N619AA", "ключ", "x" * 256):
            placed = self.put(key.encode(), key)
            self.assertEqual(placed["ShardId"], harness.owner(shards, harness.hash_key(key)), key)
            self.assertRegex(placed["SequenceNumber"], r"^[1-9]\d{0,128}$")

    def test_an_explicit_hash_key_wins(self):
        shards = self.list()
        for start, end in harness.ranges(shards):
            for key in (start, end):
                placed = self.put(b"", ExplicitHashKey=str(key))
                self.assertEqual(placed["ShardId"], harness.owner(shards, key))

    def test_put_records_answers_for_each_entry_in_order(self):
        shards = self.list()
        keys = [f"key-{number}" for number in range(500)]
        answer = kinesis.put_records(
            StreamName=self.name, Records=[{"Data": key.encode(), "PartitionKey": key} for key in keys]
        )
        self.assertEqual(answer["FailedRecordCount"], 0)
        placed = {key: (entry["ShardId"], entry["SequenceNumber"]) for key, entry in zip(keys, answer["Records"])}
        self.assertEqual(len(placed), 500)
        found = {}
        for shard in shards:
            for record in self.read(shard["ShardId"], "TRIM_HORIZON")["Records"]:
                self.assertEqual(record["Data"].decode(), record["PartitionKey"])
                found[record["PartitionKey"]] = (shard["ShardId"], record["SequenceNumber"])
        self.assertEqual(found, placed)

    def test_every_kind_of_iterator(self):
        placed = [self.put(data) for data in (b"a", b"b")]
        shard, first, second = placed[0]["ShardId"], placed[0]["SequenceNumber"], placed[1]["SequenceNumber"]
        latest = self.iterator(shard, "LATEST")
        third = self.put(b"c")["SequenceNumber"]
        self.assertEqual(self.payloads(shard, "TRIM_HORIZON"), [b"a", b"b", b"c"])
        self.assertEqual(self.payloads(shard, "AT_SEQUENCE_NUMBER", StartingSequenceNumber=second), [b"b", b"c"])
        self.assertEqual(self.payloads(shard, "AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=second), [b"c"])
        self.assertEqual(self.payloads(shard, "AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=third), [])
        answer = kinesis.get_records(ShardIterator=latest)
        self.assertEqual([record["Data"] for record in answer["Records"]], [b"c"])
        self.assertLess(int(first), int(second))
        self.assertLess(int(second), int(third))

    def test_reading_from_a_time(self):
        shard = self.put(b"a")["ShardId"]
        arrival = self.read(shard, "TRIM_HORIZON")["Records"][0]["ApproximateArrivalTimestamp"]
        self.assertLess(abs((datetime.datetime.now(datetime.timezone.utc) - arrival).total_seconds()), 60)
        before = arrival - datetime.timedelta(hours=1)
        self.assertEqual(self.payloads(shard, "AT_TIMESTAMP", Timestamp=before), [b"a"])
        self.assertEqual(self.payloads(shard, "AT_TIMESTAMP", Timestamp=arrival), [b"a"])
        after = arrival + datetime.timedelta(milliseconds=1)
        self.assertEqual(self.payloads(shard, "AT_TIMESTAMP", Timestamp=after), [])

    def test_a_reader_goes_on_where_it_stopped_and_learns_its_lag(self):
        shard = [self.put(bytes([number]))["ShardId"] for number in range(5)][0]
        answer = kinesis.get_records(ShardIterator=self.iterator(shard, "TRIM_HORIZON"), Limit=2)
        self.assertEqual([record["Data"] for record in answer["Records"]], [b"\x00", b"\x01"])
        self.assertGreater(answer["MillisBehindLatest"], 0)
        answer = kinesis.get_records(ShardIterator=answer["NextShardIterator"])
        self.assertEqual([record["Data"] for record in answer["Records"]], [b"\x02", b"\x03", b"\x04"])
        self.assertEqual(answer["MillisBehindLatest"], 0)
        again = kinesis.get_records(ShardIterator=answer["NextShardIterator"])
        self.assertEqual((again["Records"], again["MillisBehindLatest"]), ([], 0))

    def test_payloads_are_bytes(self):
        payload = bytes(range(256)) * 40
        shard = self.put(payload)["ShardId"]
        self.assertEqual(self.payloads(shard, "TRIM_HORIZON"), [payload])

    def test_what_is_too_large_is_refused(self):
        with self.assertRaises(ClientError) as caught:
            self.put(b"x" * (10 * 2**20 + 1))
        self.assertIn(caught.exception.response["Error"]["Code"], ("ValidationException", "InvalidArgumentException"))
        with self.assertRaises(ClientError) as caught:
            kinesis.put_records(StreamName=self.name, Records=[{"Data": b"", "PartitionKey": "k"}] * 501)
        self.assertIn(caught.exception.response["Error"]["Code"], ("ValidationException", "InvalidArgumentException"))


class Resharding(StreamTest):
    def test_a_split_shard_ends_and_names_its_children(self):
        old = self.list()[0]
        shard, start = old["ShardId"], int(old["HashKeyRange"]["StartingHashKey"])
        middle = (start + int(old["HashKeyRange"]["EndingHashKey"])) // 2
        self.put(b"before", ExplicitHashKey=str(start))
        kinesis.split_shard(StreamName=self.name, ShardToSplit=shard, NewStartingHashKey=str(middle))
        self.active()
        shards = {entry["ShardId"]: entry for entry in self.list()}
        self.assertIn("EndingSequenceNumber", shards[shard]["SequenceNumberRange"])
        children = [entry for entry in shards.values() if entry.get("ParentShardId") == shard]
        self.assertEqual(harness.ranges(children), [(start, middle - 1), (middle, int(old["HashKeyRange"]["EndingHashKey"]))])
        records, last = self.drain(shard)
        self.assertEqual([record["Data"] for record in records], [b"before"])
        self.assertEqual({child["ShardId"] for child in last["ChildShards"]}, {child["ShardId"] for child in children})
        self.assertEqual([child["ParentShards"] for child in last["ChildShards"]], [[shard], [shard]])
        self.assertEqual(harness.ranges(last["ChildShards"]), harness.ranges(children))
        self.assertEqual(self.put(b"after", ExplicitHashKey=str(middle))["ShardId"], harness.owner(shards.values(), middle))

    def test_merged_shards_end_and_name_their_child(self):
        one, two = self.ids()
        kinesis.merge_shards(StreamName=self.name, ShardToMerge=one, AdjacentShardToMerge=two)
        self.active()
        child = self.list(ShardFilter={"Type": "AT_LATEST"})
        self.assertTrue(harness.covers_all(child))
        self.assertEqual((child[0]["ParentShardId"], child[0]["AdjacentParentShardId"]), (one, two))
        for parent in (one, two):
            _, last = self.drain(parent)
            self.assertEqual([entry["ShardId"] for entry in last["ChildShards"]], [child[0]["ShardId"]])
            self.assertEqual(set(last["ChildShards"][0]["ParentShards"]), {one, two})

    def test_the_number_of_shards_is_changed(self):
        answer = kinesis.update_shard_count(
            StreamName=self.name, TargetShardCount=4, ScalingType="UNIFORM_SCALING"
        )
        self.assertEqual((answer["CurrentShardCount"], answer["TargetShardCount"]), (2, 4))
        self.active()
        self.assertEqual(self.summary()["OpenShardCount"], 4)
        open_shards = self.list(ShardFilter={"Type": "AT_LATEST"})
        self.assertEqual(len(open_shards), 4)
        self.assertTrue(harness.covers_all(open_shards))

    def test_every_filter_of_shards(self):
        parents = self.ids()
        created = self.summary()["StreamCreationTimestamp"]
        kinesis.merge_shards(StreamName=self.name, ShardToMerge=parents[0], AdjacentShardToMerge=parents[1])
        self.active()
        everything = self.ids()
        child = [shard for shard in everything if shard not in parents]
        self.assertEqual(len(child), 1)
        now = datetime.datetime.now(datetime.timezone.utc)
        self.assertEqual(self.ids(Type="AT_LATEST"), child)
        self.assertEqual(self.ids(Type="AT_TRIM_HORIZON"), parents)
        self.assertEqual(self.ids(Type="FROM_TRIM_HORIZON"), everything)
        self.assertEqual(self.ids(Type="AT_TIMESTAMP", Timestamp=now), child)
        self.assertEqual(self.ids(Type="FROM_TIMESTAMP", Timestamp=now), child)
        self.assertEqual(self.ids(Type="FROM_TIMESTAMP", Timestamp=created), everything)
        self.assertEqual(self.ids(Type="AFTER_SHARD_ID", ShardId=parents[0]), [parents[1], *child])
        self.assertEqual(
            [shard["ShardId"] for shard in self.list(ExclusiveStartShardId=parents[1])], child
        )

    def test_shards_are_listed_in_pages(self):
        kinesis.update_shard_count(StreamName=self.name, TargetShardCount=4, ScalingType="UNIFORM_SCALING")
        self.active()
        everything = self.list()
        first = kinesis.list_shards(StreamName=self.name, MaxResults=3)
        rest = kinesis.list_shards(NextToken=first["NextToken"], MaxResults=1000)
        self.assertEqual(first["Shards"] + rest["Shards"], everything)
        self.assertNotIn("NextToken", rest)
        pages = list(
            kinesis.get_paginator("list_shards").paginate(StreamName=self.name, PaginationConfig={"PageSize": 2})
        )
        self.assertEqual(len(pages), 3)
        self.assertEqual([shard for page in pages for shard in page["Shards"]], everything)
        with self.refused("InvalidArgumentException"):
            kinesis.list_shards(NextToken="not-a-token")

    def test_reshards_that_make_no_sense_are_refused(self):
        one, two = self.list()
        closed = one["ShardId"]
        middle = str(int(one["HashKeyRange"]["EndingHashKey"]) // 2)
        foreign = two["HashKeyRange"]["EndingHashKey"]
        with self.refused("InvalidArgumentException"):
            kinesis.split_shard(StreamName=self.name, ShardToSplit=closed, NewStartingHashKey=foreign)
        with self.refused("ResourceNotFoundException"):
            kinesis.split_shard(
                StreamName=self.name, ShardToSplit="shardId-000000000099", NewStartingHashKey=middle
            )
        kinesis.split_shard(StreamName=self.name, ShardToSplit=closed, NewStartingHashKey=middle)
        with self.refused("ResourceInUseException"):
            kinesis.merge_shards(
                StreamName=self.name, ShardToMerge=closed, AdjacentShardToMerge=two["ShardId"]
            )
        self.active()
        with self.refused("InvalidArgumentException"):
            kinesis.split_shard(StreamName=self.name, ShardToSplit=closed, NewStartingHashKey=middle)


class Errors(StreamTest):
    def test_what_does_not_exist(self):
        with self.refused("ResourceNotFoundException"):
            kinesis.describe_stream_summary(StreamName="nowhere")
        with self.refused("ResourceNotFoundException"):
            kinesis.put_record(StreamName="nowhere", Data=b"", PartitionKey="key")
        with self.refused("ResourceNotFoundException"):
            kinesis.list_shards(StreamName="nowhere")
        with self.refused("ResourceNotFoundException"):
            kinesis.delete_stream(StreamName="nowhere")
        with self.refused("ResourceNotFoundException"):
            self.iterator("shardId-000000000099", "LATEST")

    def test_arguments_that_cannot_be(self):
        one, two = self.ids()
        number = self.put(b"", ExplicitHashKey="0")["SequenceNumber"]
        with self.refused("InvalidArgumentException"):
            self.iterator(two, "AT_SEQUENCE_NUMBER", StartingSequenceNumber=number)
        with self.refused("InvalidArgumentException"):
            self.iterator(one, "AT_TIMESTAMP")
        with self.refused("InvalidArgumentException"):
            kinesis.get_records(ShardIterator="not-an-iterator")
        with self.refused("InvalidArgumentException"):
            self.put(b"", ExplicitHashKey=str(2**128))

    def test_an_error_tells_a_request_id(self):
        with self.refused("ResourceNotFoundException") as caught:
            kinesis.list_shards(StreamName="nowhere")
        response = caught.exception.response
        self.assertEqual(response["ResponseMetadata"]["HTTPStatusCode"], 400)
        self.assertTrue(response["ResponseMetadata"]["RequestId"])
        self.assertIn("nowhere", response["Error"]["Message"])


if __name__ == "__main__":
    harness.main()
