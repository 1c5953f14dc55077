"""The AWS command line against `shardwell local`: what a person types, and what comes back."""

import base64
import json
import subprocess
import unittest

import harness


def run(command, *arguments):
    return subprocess.run(
        ["aws", "kinesis", command, "--output", "json", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def aws(command, *arguments):
    """The answer of `aws kinesis COMMAND`, which must succeed."""
    done = run(command, *arguments)
    assert done.returncode == 0, f"aws kinesis {command}: {done.stderr.strip()}"
    return json.loads(done.stdout) if done.stdout.strip() else {}


def read(shard, kind, *arguments, stream):
    iterator = aws(
        "get-shard-iterator", *stream, "--shard-id", shard, "--shard-iterator-type", kind, *arguments
    )["ShardIterator"]
    answer = aws("get-records", "--shard-iterator", iterator)
    return [base64.b64decode(record["Data"]) for record in answer["Records"]], answer


class Journey(unittest.TestCase):
    """A stream from its creation to its end, in the order in which a person would go."""

    def test_by_name(self):
        aws("create-stream", "--stream-name", "by-name", "--shard-count", "2")
        self.journey("by-name", ["--stream-name", "by-name"])

    def test_by_arn(self):
        aws("create-stream", "--stream-name", "by-arn", "--shard-count", "2")
        aws("wait", "stream-exists", "--stream-name", "by-arn")
        summary = aws("describe-stream-summary", "--stream-name", "by-arn")["StreamDescriptionSummary"]
        self.journey("by-arn", ["--stream-arn", summary["StreamARN"]])

    def journey(self, name, stream):
        aws("wait", "stream-exists", *stream)
        self.describe(name, stream)
        shard = self.put_and_read(stream)
        self.reshard(shard, stream)
        self.list_shards(stream)
        aws("delete-stream", *stream)
        aws("wait", "stream-not-exists", *stream)
        gone = run("describe-stream-summary", *stream)
        self.assertNotEqual(gone.returncode, 0)
        self.assertIn("ResourceNotFoundException", gone.stderr)

    def describe(self, name, stream):
        summary = aws("describe-stream-summary", *stream)["StreamDescriptionSummary"]
        self.assertEqual((summary["StreamName"], summary["OpenShardCount"]), (name, 2))
        self.assertEqual(summary["StreamStatus"], "ACTIVE")
        shards = aws("describe-stream", *stream)["StreamDescription"]["Shards"]
        self.assertTrue(harness.covers_all(shards))
        self.assertIn(name, aws("list-streams")["StreamNames"])

    def put_and_read(self, stream):
        placed = aws("put-record", *stream, "--partition-key", "N14228", "--data", "first")
        shard = placed["ShardId"]
        shards = aws("list-shards", *stream)["Shards"]
        self.assertEqual(shard, harness.owner(shards, harness.hash_key("N14228")))
        many = aws(
            "put-records",
            *stream,
            "--records",
            json.dumps([{"Data": text, "PartitionKey": "N14228"} for text in ("second", "third")]),
        )
        self.assertEqual(many["FailedRecordCount"], 0)
        self.assertEqual([entry["ShardId"] for entry in many["Records"]], [shard, shard])

        at = ["--starting-sequence-number", many["Records"][0]["SequenceNumber"]]
        everything, answer = read(shard, "TRIM_HORIZON", stream=stream)
        self.assertEqual(everything, [b"first", b"second", b"third"])
        self.assertEqual(answer["MillisBehindLatest"], 0)
        self.assertEqual(read(shard, "AT_SEQUENCE_NUMBER", *at, stream=stream)[0], [b"second", b"third"])
        self.assertEqual(read(shard, "AFTER_SEQUENCE_NUMBER", *at, stream=stream)[0], [b"third"])
        self.assertEqual(read(shard, "LATEST", stream=stream)[0], [])
        since = ["--timestamp", "2013-01-01T00:00:00Z"]
        self.assertEqual(read(shard, "AT_TIMESTAMP", *since, stream=stream)[0], everything)
        return shard

    def reshard(self, shard, stream):
        old = next(entry for entry in aws("list-shards", *stream)["Shards"] if entry["ShardId"] == shard)
        middle = sum(int(key) for key in old["HashKeyRange"].values()) // 2
        aws("split-shard", *stream, "--shard-to-split", shard, "--new-starting-hash-key", str(middle))
        aws("wait", "stream-exists", *stream)
        children = [entry["ShardId"] for entry in aws("list-shards", *stream)["Shards"] if entry.get("ParentShardId") == shard]
        self.assertEqual(len(children), 2)
        _, last = read(shard, "TRIM_HORIZON", stream=stream)
        self.assertNotIn("NextShardIterator", last)
        self.assertEqual([child["ShardId"] for child in last["ChildShards"]], children)
        aws("merge-shards", *stream, "--shard-to-merge", children[0], "--adjacent-shard-to-merge", children[1])
        aws("wait", "stream-exists", *stream)
        change = aws("update-shard-count", *stream, "--target-shard-count", "4", "--scaling-type", "UNIFORM_SCALING")
        self.assertEqual((change["CurrentShardCount"], change["TargetShardCount"]), (2, 4))
        aws("wait", "stream-exists", *stream)

    def list_shards(self, stream):
        everything = aws("list-shards", *stream)["Shards"]
        latest = aws("list-shards", *stream, "--shard-filter", "Type=AT_LATEST")["Shards"]
        self.assertEqual(len(latest), 4)
        self.assertTrue(harness.covers_all(latest))
        oldest = aws("list-shards", *stream, "--shard-filter", "Type=AT_TRIM_HORIZON")["Shards"]
        self.assertEqual(len(oldest), 2)
        after = everything[1]["ShardId"]
        rest = aws("list-shards", *stream, "--shard-filter", f"Type=AFTER_SHARD_ID,ShardId={after}")["Shards"]
        self.assertEqual(rest, everything[2:])
        page = aws("list-shards", *stream, "--max-results", "2", "--no-paginate")
        self.assertEqual(page["Shards"], everything[:2])
        following = aws("list-shards", "--next-token", page["NextToken"], "--no-paginate")
        self.assertEqual(following["Shards"], everything[2:])
        self.assertEqual(aws("list-shards", *stream, "--page-size", "3")["Shards"], everything)


class Refusals(unittest.TestCase):
    def test_the_error_code_is_told(self):
        for command, *arguments in (
            ("describe-stream", "--stream-name", "nowhere"),
            ("put-record", "--stream-name", "nowhere", "--partition-key", "k", "--data", "x"),
            ("delete-stream", "--stream-name", "nowhere"),
        ):
            done = run(command, *arguments)
            self.assertNotEqual(done.returncode, 0, command)
            self.assertIn("ResourceNotFoundException", done.stderr, command)
            self.assertIn("nowhere", done.stderr, command)


if __name__ == "__main__":
    harness.main()
