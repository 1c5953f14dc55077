//! The workers of a mixed fleet: ours in this process, the KCL's in processes of their own.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use shardwell_aws::{DynamoLeaseStore, KinesisStream};
use shardwell_consumer::{
    Batch, Checkpointer, InitialPosition, LaneContext, Outcome, ProcessError, RecordProcessor, Start, Worker,
    WorkerError, WorkerHandle,
};
use shardwell_core::{Checkpoint, CpuTime, Env, Monotonic, Place, SystemEnv, Timestamp};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinHandle;

use crate::log::{Event, Log};
use crate::world::{APPLICATION, STREAM, Timing};

/// A worker of ours.
pub(crate) struct Ours {
    pub(crate) handle: WorkerHandle,
    run: JoinHandle<Result<(), WorkerError>>,
}

struct Recorder {
    lane: LaneContext,
    log: Log,
}

impl Recorder {
    fn names(&self) -> (String, String) {
        (self.lane.worker.to_string(), self.lane.shard.to_string())
    }
}

#[async_trait]
impl RecordProcessor for Recorder {
    async fn initialize(&mut self, _: &Start) -> Result<Option<Checkpoint>, ProcessError> {
        let (worker, shard) = self.names();
        self.log.push(Event::Began { worker, shard });
        Ok(None)
    }

    async fn process(&mut self, batch: &Batch) -> Result<Outcome, ProcessError> {
        for record in batch {
            let number = std::str::from_utf8(&record.data)?.parse()?;
            let key = record.partition_key.as_ref().map(ToString::to_string).unwrap_or_default();
            self.log.push(Event::Record { worker: self.lane.worker.to_string(), key, number });
        }
        Ok(Outcome::Done)
    }

    async fn lease_lost(&mut self) {
        let (worker, shard) = self.names();
        self.log.push(Event::Lost { worker, shard });
    }

    async fn shard_ended(&mut self, _: &Checkpointer) -> Result<(), ProcessError> {
        let (worker, shard) = self.names();
        self.log.push(Event::Ended { worker, shard });
        Ok(())
    }
}

/// The system, but that nobody can tell how busy the machine is: all are on the same one, and to a Java leader, which goes by that,
/// they would all be equally loaded whatever they have.
#[derive(Debug)]
struct UnknownLoad(SystemEnv);

impl Env for UnknownLoad {
    fn now(&self) -> Monotonic {
        self.0.now()
    }

    fn timestamp(&self) -> Timestamp {
        self.0.timestamp()
    }

    fn sleep_until(&self, deadline: Monotonic) -> BoxFuture<'static, ()> {
        self.0.sleep_until(deadline)
    }

    fn spawn_detached(&self, place: Place, task: BoxFuture<'static, ()>) {
        self.0.spawn_detached(place, task);
    }

    fn random(&self) -> u64 {
        self.0.random()
    }

    fn cpu_time(&self) -> Option<CpuTime> {
        None
    }
}

impl Ours {
    /// Starts one, at its default settings.
    pub(crate) fn start(id: &str, stream: &KinesisStream, leases: DynamoLeaseStore, log: &Log) -> Self {
        let log = log.clone();
        let env = Arc::new(UnknownLoad(SystemEnv::new().expect("threads")));
        let worker = Worker::builder(APPLICATION, stream.clone(), leases, move |lane: &LaneContext| Recorder {
            lane: lane.clone(),
            log: log.clone(),
        });
        let worker = worker.initial_position(InitialPosition::TrimHorizon).worker_id(id).env(env);
        let worker = worker.build().expect("good settings");
        Self { handle: worker.handle(), run: tokio::spawn(worker.run()) }
    }

    /// Stops in good order.
    pub(crate) async fn stop(self) {
        self.handle.request_shutdown();
        self.run.await.expect("it does not panic").expect("a clean stop");
    }

    /// Stops at once, as a process that is killed. What its tasks were about to do is not done.
    pub(crate) async fn kill(self) {
        self.run.abort();
        assert!(self.run.await.is_err_and(|error| error.is_cancelled()), "it ran until now");
    }
}

/// A worker of the KCL.
pub(crate) struct Java {
    process: Child,
    stdin: Option<ChildStdin>,
    heard: JoinHandle<()>,
}

/// Where the classes are, if they are: `integration/run` says so.
pub(crate) fn classpath() -> Option<String> {
    let classpath = std::env::var("SHARDWELL_JAVA_CLASSPATH").ok();
    if classpath.is_none() {
        eprintln!("SKIPPED: SHARDWELL_JAVA_CLASSPATH does not say where the KCL is");
    }
    classpath
}

impl Java {
    /// Starts one.
    pub(crate) fn start(id: &str, classpath: &str, kinesis: &str, dynamodb: &str, timing: Timing, log: &Log) -> Self {
        let mut command = Command::new("java");
        // What the environment says of AWS is not for this process.
        command.env_clear().envs(std::env::var("PATH").map(|path| ("PATH", path)));
        command.env("AWS_EC2_METADATA_DISABLED", "true");
        command.args(["-Xmx256m", "-Daws.cborEnabled=false", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]);
        command.args(["-cp", classpath, "KclWorker"]);
        command.args(["--kinesis", kinesis, "--dynamodb", dynamodb, "--stream", STREAM]);
        command.args(["--application", APPLICATION, "--worker", id]).args(timing.java_arguments());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().expect("java starts");
        let stdout = process.stdout.take().expect("it is piped");
        let (log, worker) = (log.clone(), id.to_owned());
        let heard = tokio::spawn(async move {
            let mut lines = BufReader::new(stdout).lines();
            while let Some(line) = lines.next_line().await.expect("text") {
                if let Some(event) = parse(&worker, &line) {
                    log.push(event);
                } else {
                    println!("{worker}: {line}");
                }
            }
        });
        Self { stdin: process.stdin.take(), process, heard }
    }

    /// Stops in good order.
    pub(crate) async fn stop(mut self) {
        drop(self.stdin.take());
        let status = tokio::time::timeout(Duration::from_secs(90), self.process.wait()).await;
        assert!(status.expect("it ends in time").expect("it ran").success(), "a clean stop");
        self.heard.await.expect("all was heard");
    }

    /// Kills the process.
    pub(crate) async fn kill(mut self) {
        self.process.kill().await.expect("it ran until now");
        self.heard.await.expect("all was heard");
    }
}

fn parse(worker: &str, line: &str) -> Option<Event> {
    let mut words = line.split(' ');
    let (what, shard, worker) = (words.next()?, words.next()?.to_owned(), worker.to_owned());
    Some(match what {
        "record" => Event::Record { worker, key: words.next()?.to_owned(), number: words.next()?.parse().ok()? },
        "begins" => Event::Began { worker, shard },
        "ends" => Event::Ended { worker, shard },
        "loses" => Event::Lost { worker, shard },
        _ => return None,
    })
}
