//! How long a leader plans: 10,000 leases over 500 workers.

use std::hint::black_box;

use criterion::Criterion;
use shardwell_core::WorkerId;
use shardwell_core::leasing::plan::{Held, PlanSettings, PlannedLease, PlannedWorker, plan};

const LEASES: usize = 10_000;
const WORKERS: usize = 500;

fn worker(number: usize) -> WorkerId {
    format!("worker-{number:03}").into()
}

fn workers() -> Vec<PlannedWorker> {
    (0..WORKERS)
        .map(|number| PlannedWorker { id: worker(number), is_busy: false, is_draining: false, streams: None })
        .collect()
}

/// Leases of very different throughput.
fn leases(held: impl Fn(usize) -> Held) -> Vec<PlannedLease> {
    let mut random = fastrand::Rng::with_seed(7);
    let lease = |number: usize| PlannedLease {
        key: format!("shardId-{number:012}").as_str().into(),
        stream: None,
        throughput_kbps: Some(10f64.powf(3.0 * random.f64())),
        held: held(number),
    };
    (0..LEASES).map(lease).collect()
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let settings = PlanSettings::default();
    let cases = [
        ("everything_is_new", leases(|_| Held::Free)),
        ("one_worker_died", leases(|n| if n % WORKERS == 7 { Held::Free } else { Held::By(worker(n % WORKERS)) })),
        ("a_tenth_joined", leases(|n| Held::By(worker(n % (WORKERS * 9 / 10))))),
        ("one_has_everything", leases(|_| Held::By(worker(0)))),
    ];
    for (name, leases) in cases {
        let workers = workers();
        criterion.bench_function(&format!("plan/{name}"), |bencher| {
            bencher.iter(|| black_box(plan(&leases, &workers, &settings)));
        });
        println!("  {} moves", plan(&leases, &workers, &settings).moves.len());
    }
    criterion.final_summary();
}
