//! `shardwell fleet`, against lease tables as fleets leave them, and against a fleet of one.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Lines, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdout, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use shardwell::core::delivery::ResumeState;
use shardwell::core::leasing::plan::CPU;
use shardwell::core::{Assignment, FleetSettings, HandoffStart, Heartbeat, LeaderLock, WorkerMetrics};
use shardwell::memory::MemoryStream;
use shardwell::sqlite::SqliteLeaseStore;
use shardwell::{
    Batch, Checkpoint, Env, Lease, LeaseKey, LeaseStore, Outcome, ProcessError, RecordProcessor, SystemEnv, Worker,
    WorkerId, async_trait,
};

use super::row::row;
use super::{assert_code, command, run, stderr, stdout};

/// So long that nothing expires while a test looks.
const LONG: Duration = Duration::from_secs(3600);

/// A lease table of application `delays` that holds nothing but settings.
struct Fleet {
    _directory: tempfile::TempDir,
    path: PathBuf,
    store: SqliteLeaseStore,
}

impl Fleet {
    async fn new(lease_duration: Duration) -> Self {
        let fleet = Self::without_settings().await;
        let settings = FleetSettings::new(lease_duration);
        assert!(fleet.store.swap_fleet_settings(None, &settings).await.expect("written"));
        fleet
    }

    async fn without_settings() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("leases.sqlite");
        let store = SqliteLeaseStore::open(&path, "delays").await.expect("opened");
        Self { _directory: directory, path, store }
    }

    /// A lease of everything that a fleet can be at: `a` and `b` are registered, `ghost` is not.
    async fn of_all_kinds() -> Self {
        let fleet = Self::new(LONG).await;
        let mut finished = lease("finished");
        finished.checkpoint = Checkpoint::ShardEnd;
        let mut waiting = lease("waiting");
        waiting.parents = ["owned".into()].into();
        fleet.create(&[finished, waiting, lease("free")]).await;
        for (shard, owner) in [("owned", "a"), ("moving", "a"), ("lost", "ghost")] {
            fleet.create(&[lease(shard)]).await;
            fleet.assign(shard, owner).await;
        }
        let handoff = HandoffStart { key: "moving".into(), from: "a".into(), to: "b".into() };
        fleet.store.start_handoff(&handoff).await.expect("written").applied().expect("as seen");
        let mut busy = item("a");
        busy.samples = BTreeMap::from([(CPU.to_owned(), vec![7.0, 92.0])]);
        busy.operating_range = BTreeMap::from([(CPU.to_owned(), vec![80.0])]);
        fleet.register(&busy).await;
        fleet.register(&item("b")).await;
        fleet.lead("a", &["b"]).await;
        fleet
    }

    async fn create(&self, leases: &[Lease]) {
        for lease in leases {
            self.store.create_lease(lease).await.expect("created");
        }
    }

    /// Gives a lease to a worker, which raises its counter.
    async fn assign(&self, shard: &str, worker: &str) {
        let lease = self.store.lease(&shard.into()).await.expect("read").expect("there");
        let assignment = Assignment::of(&lease, worker.into());
        self.store.assign(&assignment).await.expect("written").applied().expect("as seen");
    }

    async fn register(&self, item: &WorkerMetrics) {
        self.store.put_worker_metrics(item).await.expect("written");
    }

    async fn lead(&self, owner: &str, standbys: &[&str]) {
        let lock = LeaderLock {
            owner: owner.into(),
            duration: Duration::from_secs(10),
            version: "1".to_owned(),
            released: false,
            standbys: standbys.iter().map(|id| WorkerId::from(*id)).collect(),
        };
        assert!(self.store.swap_leader_lock(None, Some(&lock)).await.expect("written"));
    }

    async fn drained(&self) -> BTreeSet<WorkerId> {
        self.store.fleet_settings().await.expect("read").expect("there").draining
    }

    fn arguments<'a>(&'a self, verb: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let file = self.path.to_str().expect("UTF-8");
        [&["fleet", verb, "--sqlite", file, "--application", "delays"], more].concat()
    }

    fn run(&self, verb: &str, more: &[&str]) -> Output {
        run(&self.arguments(verb, more))
    }

    fn spawn(&self, verb: &str, more: &[&str]) -> Running {
        let mut command = command(&self.arguments(verb, more));
        Running(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command starts"))
    }

    /// Who has which lease, whatever its counter.
    async fn owners(&self) -> Vec<(LeaseKey, Option<WorkerId>)> {
        let leases = self.store.leases().await.expect("read").leases;
        leases.into_iter().map(|lease| (lease.key, lease.owner)).collect()
    }

    /// `plan --json`, while these workers write their items and renew their leases.
    async fn plan(&self, alive: &[&str], more: &[&str]) -> Value {
        let mut plan = self.spawn("plan", &[&["--json"], more].concat());
        while plan.0.try_wait().expect("it can be asked").is_none() {
            for mut item in self.store.worker_metrics().await.expect("read") {
                if alive.contains(&item.worker.as_str()) {
                    item.heartbeat = item.heartbeat.map(|last| Heartbeat { beat: last.beat + 1, ..last });
                    self.register(&item).await;
                    for key in self.store.leases_of(&item.worker).await.expect("read") {
                        self.assign(key.as_str(), item.worker.as_str()).await;
                    }
                }
            }
        }
        let output = plan.end();
        assert_code(&output, 0);
        serde_json::from_slice(&output.stdout).expect("JSON")
    }
}

fn lease(shard: &str) -> Lease {
    Lease::new(shard.into(), Checkpoint::TrimHorizon)
}

/// The item of a worker that has just written it.
fn item(worker: &str) -> WorkerMetrics {
    let now = SystemEnv::new().expect("threads").timestamp();
    let mut metrics = WorkerMetrics::new(worker.into(), now);
    metrics.heartbeat = Some(Heartbeat { incarnation: 1, beat: 1 });
    metrics
}

#[track_caller]
fn find<'a>(list: &'a Value, key: &str, name: &str) -> &'a Value {
    let items = list.as_array().expect("a list");
    items.iter().find(|item| item[key] == name).unwrap_or_else(|| panic!("no {key} {name} in {list:#}"))
}

#[test]
fn help_names_the_verbs_and_arguments_that_make_no_sense_end_with_code_2() {
    let help = stdout(&run(&["fleet", "--help"]));
    assert!(["status", "plan", "drain"].iter().all(|verb| help.contains(verb)), "{help}");
    let table = ["--sqlite", "f", "--application", "a"];
    for (verb, arguments) in [
        ("status", &["--watch", "0"][..]),
        ("status", &["--watch", "soon"]),
        ("plan", &["--max-leases", "0"]),
        ("plan", &["--strategy", "luck"]),
        ("drain", &[]),
        ("drain", &["w", "--undo", "--wait"]),
        ("drain", &["w", "--timeout", "1s"]),
    ] {
        assert_code(&run(&[&["fleet", verb], &table[..], arguments].concat()), 2);
    }
    for table in
        [&[][..], &["--sqlite", "f", "--dynamodb", "t"], &["--sqlite", "f", "--endpoint", "http://127.0.0.1:1"]]
    {
        assert_code(&run(&[&["fleet", "plan"], table].concat()), 2);
    }
}

#[tokio::test]
async fn a_status_shows_the_leader_the_workers_and_every_lease() {
    let fleet = Fleet::of_all_kinds().await;
    let status = fleet.run("status", &[]);
    assert_code(&status, 0);
    let text = stdout(&status);
    assert!(text.starts_with("Application delays: 6 leases, lease duration 3600s\nLeader: a; standbys: b\n"), "{text}");
    let a = row(&text, "a");
    assert_eq!([&*a[1], &a[2], &a[4]], ["registered, busy", "2, 1 leaving", "92% of 80%"]);
    assert!(a[3].ends_with(" ago"), "{a:?}");
    assert_eq!(row(&text, "b")[1..3], ["registered", "0, 1 coming"]);
    assert_eq!(row(&text, "ghost")[1..], ["(not registered)", "1", "", ""]);
    for (shard, state, owner, parents) in [
        ("finished", "finished", "-", ""),
        ("free", "free", "-", ""),
        ("lost", "owned", "ghost", ""),
        ("moving", "handing over", "a", ""),
        ("owned", "owned", "a", ""),
        ("waiting", "waiting for parents", "-", "owned"),
    ] {
        assert_eq!(row(&text, shard), [shard, state, owner, parents, ""]);
    }
    assert!(text.contains("-> b"), "{text}");
}

#[tokio::test]
async fn a_status_as_json_says_what_it_does_not_know() {
    let fleet = Fleet::of_all_kinds().await;
    assert_code(&fleet.run("drain", &["b"]), 0);
    let status = fleet.run("status", &["--json"]);
    assert_code(&status, 0);
    let value: Value = serde_json::from_slice(&status.stdout).expect("JSON");
    let fleet = &value[0];
    assert_eq!((&fleet["application"], &fleet["lease_duration_ms"]), (&json!("delays"), &json!(3_600_000)));
    assert_eq!((&fleet["draining"], &fleet["watched_for_ms"]), (&json!(["b"]), &Value::Null));
    let leader = &fleet["leader"];
    assert_eq!(
        (&leader["worker"], &leader["state"], &leader["standbys"]),
        (&json!("a"), &json!("leads"), &json!(["b"]))
    );
    let [a, b, ghost] = ["a", "b", "ghost"].map(|id| find(&fleet["workers"], "worker", id));
    assert_eq!((&a["registered"], &a["alive"], &a["cpu_percent"]), (&json!(true), &Value::Null, &json!(92.0)));
    assert_eq!((&b["draining"], &b["leases"], &b["leases_coming"]), (&json!(true), &json!(0), &json!(1)));
    assert_eq!((&ghost["registered"], &ghost["last_update"]), (&json!(false), &Value::Null));
    let [moving, waiting] = ["moving", "waiting"].map(|shard| find(&fleet["leases"], "shard", shard));
    assert_eq!((&moving["checkpoint_owner"], &moving["owner"]), (&json!("a"), &json!("b")));
    assert!(moving["handoff"].is_null() && moving["renewed"].is_null(), "{moving}");
    assert_eq!(waiting["waits_for"], json!(["owned"]));
}

/// A command that runs, killed when a test is done with it.
struct Running(Child);

impl Running {
    fn stdout(&mut self) -> Lines<BufReader<ChildStdout>> {
        BufReader::new(self.0.stdout.take().expect("piped")).lines()
    }

    fn stderr(&mut self) -> Lines<BufReader<ChildStderr>> {
        BufReader::new(self.0.stderr.take().expect("piped")).lines()
    }

    /// How it ends, with the output that nobody took. There is little of it, so nobody waits for anybody.
    fn end(mut self) -> Output {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        self.0.stdout.take().map(|mut pipe| pipe.read_to_end(&mut stdout).expect("read"));
        self.0.stderr.take().map(|mut pipe| pipe.read_to_end(&mut stderr).expect("read"));
        Output { status: self.0.wait().expect("it ends"), stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails where the process has ended, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The rounds of `status --watch --json`.
struct Rounds(Lines<BufReader<ChildStdout>>);

impl Rounds {
    /// The first round with such an application; rounds come ten times a second.
    #[track_caller]
    fn until(&mut self, is_it: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        for _ in 0..600 {
            let line = self.0.next().expect("a round").expect("text");
            last = serde_json::from_str::<Value>(&line).expect("JSON")[0].take();
            if is_it(&last) {
                return last;
            }
        }
        panic!("it does not come: {last:#}")
    }
}

#[tokio::test]
async fn a_watch_sees_leases_expire_and_their_owners_come_back_and_ends_with_its_reader() {
    let fleet = Fleet::new(Duration::from_millis(300)).await;
    fleet.create(&[lease("one")]).await;
    fleet.assign("one", "w").await;
    fleet.register(&item("w")).await;
    fleet.lead("w", &[]).await;
    let mut watch = fleet.spawn("status", &["--watch", "0.1", "--json"]);
    let mut rounds = Rounds(watch.stdout());
    let state = |round: &Value, state: &str| round["leases"][0]["state"] == state;
    let first = rounds.until(|_| true);
    assert!(state(&first, "owned") && first["watched_for_ms"] == 0, "{first:#}");
    let expired = rounds.until(|round| state(round, "expired") && round["workers"][0]["alive"] == false);
    assert_eq!(expired["leases"][0]["renewed"]["change_was_seen"], false);
    assert_eq!(expired["leader"]["silent_for"]["change_was_seen"], false);
    fleet.assign("one", "w").await;
    let mut beats = item("w");
    beats.heartbeat = beats.heartbeat.map(|heartbeat| Heartbeat { beat: heartbeat.beat + 1, ..heartbeat });
    fleet.register(&beats).await;
    let back = rounds.until(|round| state(round, "owned") && round["workers"][0]["alive"] == true);
    assert_eq!(back["leases"][0]["renewed"]["change_was_seen"], true);
    drop(rounds);
    let output = watch.end();
    assert_code(&output, 0);
    assert_eq!(stderr(&output), "");
}

#[cfg(unix)]
#[tokio::test]
async fn a_watch_times_handoffs_and_ends_at_a_signal() {
    let fleet = Fleet::of_all_kinds().await;
    let mut watch = fleet.spawn("status", &["--watch", "0.1", "--handoff-deadline", "1m"]);
    let mut lines = watch.stdout();
    let mut rounds = String::new();
    // The table of the second round.
    while rounds.matches("handing over").count() < 2 {
        rounds.push_str(&(lines.next().expect("a line").expect("text") + "\n"));
    }
    let sent =
        std::process::Command::new("kill").args(["-INT", &watch.0.id().to_string()]).status().expect("kill runs");
    assert!(sent.success());
    assert_code(&watch.end(), 0);
    assert!(!rounds.contains('\u{1b}'), "only a terminal is cleared: {rounds}");
    assert!(rounds.contains("watched for ") && rounds.contains("checkpoint age"), "{rounds}");
    assert!(row(&rounds, "moving")[7].ends_with("ms of 1h 1m"), "{rounds}");
}

#[tokio::test]
async fn a_file_without_applications_is_no_error_and_an_unknown_application_is() {
    let fleet = Fleet::without_settings().await;
    let file = fleet.path.to_str().expect("UTF-8");
    let status = run(&["fleet", "status", "--sqlite", file]);
    assert_code(&status, 0);
    assert!(stdout(&status).contains("holds no application yet"), "{}", stdout(&status));
    for verb in [&["status"][..], &["plan"], &["drain", "w"]] {
        let output = fleet.run(verb[0], &verb[1..]);
        assert_code(&output, 1);
        assert!(stderr(&output).contains("no application `delays`"), "{}", stderr(&output));
    }
}

#[tokio::test]
async fn a_plan_gives_away_what_the_dead_and_the_drained_have_and_writes_nothing() {
    let fleet = Fleet::new(Duration::from_secs(1)).await;
    for (shard, owner) in [("1", "dead"), ("2", "gone"), ("3", "drained")] {
        fleet.create(&[lease(shard)]).await;
        fleet.assign(shard, owner).await;
    }
    fleet.create(&[lease("4")]).await;
    for id in ["alive", "dead", "drained"] {
        fleet.register(&item(id)).await;
    }
    assert_code(&fleet.run("drain", &["drained"]), 0);
    let before = fleet.owners().await;

    let plan = fleet.plan(&["alive", "drained"], &[]).await;
    let change = |lease, from: Option<&str>, why| json!({ "lease": lease, "from": from, "to": "alive", "why": why });
    let expected = [
        change("1", Some("dead"), "owner_dead"),
        change("2", Some("gone"), "expired"),
        change("3", Some("drained"), "drain"),
        change("4", None, "unowned"),
    ];
    assert_eq!(plan["moves"], json!(expected));
    assert_eq!((&plan["spillover"], &plan["leader"]), (&json!(0), &Value::Null));
    let alive = find(&plan["workers"], "worker", "alive");
    assert_eq!((&alive["alive"], &alive["load"]["after"]["leases"]), (&json!(true), &json!(4)));
    assert_eq!(find(&plan["workers"], "worker", "dead")["alive"], false);

    let plan = fleet.plan(&["alive", "drained"], &["--max-leases", "2", "--strategy", "count"]).await;
    assert_eq!((plan["moves"].as_array().map(Vec::len), &plan["spillover"]), (Some(2), &json!(1)));
    assert_eq!(fleet.owners().await, before);
}

#[tokio::test]
async fn a_plan_says_what_it_waits_for_and_what_a_short_watch_cannot_tell() {
    let fleet = Fleet::of_all_kinds().await;
    let plan = fleet.run("plan", &["--watch-for", "1ms"]);
    assert_code(&plan, 0);
    assert!(stderr(&plan).contains("Watching for 1ms"), "{}", stderr(&plan));
    assert!(stderr(&plan).contains("nobody will be known to be dead"), "{}", stderr(&plan));
    let text = stdout(&plan);
    assert!(text.contains("1 lease would move:"), "{text}");
    assert_eq!(row(&text, "free"), ["free", "-", "b", "nobody has it"]);
    assert_eq!(row(&text, "b")[2..4], ["0", "2"]);
    assert_eq!(row(&text, "ghost")[1..4], ["(not registered)", "1", "1"]);
}

#[tokio::test]
async fn a_drain_is_noted_in_the_settings_until_it_is_undone() {
    let fleet = Fleet::of_all_kinds().await;
    let drain = fleet.run("drain", &["a"]);
    assert_code(&drain, 0);
    for part in ["Worker a is being drained: the leader moves 2 leases off it", "fleet status --watch --sqlite"] {
        assert!(stdout(&drain).contains(part), "{part} is not in\n{}", stdout(&drain));
    }
    assert_eq!(stderr(&drain), "");
    assert_eq!(fleet.drained().await, ["a".into()].into());
    assert!(stdout(&fleet.run("drain", &["a"])).contains("is already being drained"));
    let rest = fleet.run("drain", &["ghost"]);
    assert!(stderr(&rest).contains("ghost is not registered"), "{}", stderr(&rest));

    let undone = fleet.run("drain", &["a", "--undo"]);
    assert_code(&undone, 0);
    assert!(stdout(&undone).contains("not drained any more"), "{}", stdout(&undone));
    assert!(stdout(&fleet.run("drain", &["a", "--undo"])).contains("was not being drained"));
    assert_eq!(fleet.drained().await, ["ghost".into()].into());
}

#[tokio::test]
async fn whom_nobody_knows_cannot_be_drained() {
    let fleet = Fleet::of_all_kinds().await;
    let unknown = fleet.run("drain", &["c"]);
    assert_code(&unknown, 1);
    assert!(stderr(&unknown).contains("has no worker `c`; it has: a, b, ghost"), "{}", stderr(&unknown));
    let fleet = Fleet::without_settings().await;
    fleet.create(&[lease("one")]).await;
    fleet.assign("one", "w").await;
    let too_early = fleet.run("drain", &["w"]);
    assert_code(&too_early, 1);
    assert!(stderr(&too_early).contains("no settings yet"), "{}", stderr(&too_early));
}

#[tokio::test]
async fn drains_at_the_same_time_are_all_noted() {
    let fleet = Fleet::new(LONG).await;
    let workers = ["a", "b", "c", "d", "e", "f"];
    for id in workers {
        fleet.register(&item(id)).await;
    }
    for drain in workers.map(|id| fleet.spawn("drain", &[id])) {
        assert_code(&drain.end(), 0);
    }
    assert_eq!(fleet.drained().await, workers.map(WorkerId::from).into());
}

#[tokio::test]
async fn a_drain_can_wait_until_the_last_lease_is_gone() {
    let fleet = Fleet::of_all_kinds().await;
    let late = fleet.run("drain", &["a", "--wait", "--timeout", "0s"]);
    assert_code(&late, 1);
    let told = stderr(&late);
    assert!(told.contains("2 leases to go, 1 being handed over") && told.contains("a stays drained"), "{told}");

    let mut drain = fleet.spawn("drain", &["a", "--wait", "--timeout", "5m"]);
    let mut lines = drain.stderr();
    let mut next = || lines.next().expect("a line").expect("text");
    assert_eq!(next(), "2 leases to go, 1 being handed over");
    fleet.assign("moving", "b").await;
    assert_eq!(next(), "1 lease to go");
    fleet.assign("owned", "b").await;
    assert_eq!(next(), "no leases to go");
    let output = drain.end();
    assert_code(&output, 0);
    assert!(stdout(&output).contains("Worker a has no leases."), "{}", stdout(&output));

    let mut drain = fleet.spawn("drain", &["b", "--wait"]);
    let mut lines = drain.stderr();
    let warning = lines.next().expect("a line").expect("text");
    assert!(warning.contains("No other worker is registered"), "{warning}");
    assert_eq!(lines.next().expect("a line").expect("text"), "2 leases to go");
    assert_code(&fleet.run("drain", &["b", "--undo"]), 0);
    let error = lines.next().expect("a line").expect("text");
    assert!(error.contains("somebody has undone it"), "{error}");
    assert_code(&drain.end(), 1);
}

struct Ignore;

#[async_trait]
impl RecordProcessor for Ignore {
    async fn process(&mut self, _: &Batch) -> Result<Outcome, ProcessError> {
        Ok(Outcome::Done)
    }
}

/// Whether it is noted when all of the shard was done.
fn is_caught_up(lease: &Lease) -> bool {
    lease.state().and_then(ResumeState::decode).is_some_and(|state| state.caught_up_at().is_some())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_runs_is_shown_with_what_it_wrote() {
    let fleet = Fleet::without_settings().await;
    let stream = MemoryStream::create(Arc::new(SystemEnv::new().expect("threads")), "flights", 1).expect("created");
    let worker = Worker::builder("delays", stream, fleet.store.clone(), |_lane| Ignore)
        .lease_duration(Duration::from_secs(1))
        .build()
        .expect("built");
    let mut shown = None;
    let stop = async {
        let caught_up = async || fleet.store.leases().await.expect("read").leases.iter().any(is_caught_up);
        while !caught_up().await {}
        shown = Some((fleet.run("status", &[]), fleet.run("status", &["--json"])));
    };
    worker.run_until(stop).await.expect("it ran");
    let (text, json) = shown.expect("it has caught up");
    assert!(row(&stdout(&text), "shardId-000000000000")[4].ends_with(" ago"), "{}", stdout(&text));
    let value: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    let (leader, worker, lease) = (&value[0]["leader"], &value[0]["workers"][0], &value[0]["leases"][0]);
    assert!(leader["state"] == "leads" && leader["worker"] == worker["worker"], "{value:#}");
    assert_eq!((&worker["registered"], &worker["leases"]), (&json!(true), &json!(1)));
    assert!(lease["state"] == "owned" && lease["caught_up_at"].is_string(), "{lease}");
}
