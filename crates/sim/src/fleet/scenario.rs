//! What a seed draws before anything happens.

use std::time::Duration;

use fastrand::Rng;

use super::kind::Kind;

/// A seed's fleet, its settings, and what will happen to it.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    pub(crate) workers: usize,
    pub(crate) streams: usize,
    /// How many shards the streams have together, about.
    pub(crate) shards: u32,
    pub(crate) keys: u32,
    pub(crate) records: usize,
    /// How long things happen. The stretch without faults comes after it.
    pub(crate) troubled: Duration,
    pub(crate) lanes: u32,
    pub(crate) batch_records: usize,
    /// Retries before a record is dead; `None`: there is no sink, and nothing ever dies.
    pub(crate) max_retries: Option<u32>,
    pub(crate) max_record_age: Option<Duration>,
    pub(crate) filter: bool,
    pub(crate) handoff_deadline: Duration,
    /// How long a processor takes for a batch, at most.
    pub(crate) batch_time: Duration,
    /// How much faster or slower than the world's a worker's clock may run.
    pub(crate) drift: f64,
    pub(crate) acts: Vec<(Duration, Kind)>,
}

/// How far a clock may be off for the margins of leases to hold: a tenth of the lease duration.
const DRIFT: f64 = 0.03;

impl Scenario {
    pub(crate) fn draw(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let troubled = Duration::from_secs(random.u64(90..660));
        let max_retries = (random.f64() < 0.8).then(|| random.u32(1..4));
        let streams = if random.f64() < 0.4 { 2 } else { 1 };
        let acts = acts(&mut random, troubled, max_retries.is_some(), streams > 1);
        let has = |kind| acts.iter().any(|(_, drawn)| *drawn == kind);
        Self {
            seed,
            workers: random.usize(2..=6),
            streams,
            shards: random.u32(4..=20),
            keys: random.u32(10..80),
            records: random.usize(1000..2200),
            troubled,
            lanes: [1, 1, 2, 4, 8][random.usize(..5)],
            batch_records: [1, 5, 20, 100][random.usize(..4)],
            max_record_age: (max_retries.is_some() && random.f64() < 0.1).then(|| Duration::from_secs(90)),
            filter: random.f64() < 0.25,
            handoff_deadline: Duration::from_secs([10, 30][random.usize(..2)]),
            batch_time: Duration::from_millis([20, 200, 1000][random.usize(..3)]),
            drift: if has(Kind::ClockRates) { DRIFT } else { 0.0 },
            max_retries,
            acts,
        }
    }
}

/// The longest pause makes iterators expire, after five minutes (Kinesis API).
pub(crate) const LONG_PAUSE: Duration = Duration::from_secs(310);

fn acts(random: &mut Rng, troubled: Duration, has_sink: bool, has_streams: bool) -> Vec<(Duration, Kind)> {
    let possible = |kind: &Kind| match kind {
        Kind::PoisonRecords | Kind::FailingSink => has_sink,
        Kind::StreamLeft => has_streams,
        // In what follows it must be over.
        Kind::ExpiredIterators => troubled > LONG_PAUSE + Duration::from_secs(60),
        _ => true,
    };
    let kinds: Vec<Kind> = Kind::ALL.iter().copied().filter(possible).collect();
    let mut acts: Vec<(Duration, Kind)> = (0..random.usize(5..14))
        .map(|_| {
            let kind = kinds[random.usize(..kinds.len())];
            // At any time, so that some overlap, and some leave windows between them.
            (troubled.mul_f64(random.f64()), kind)
        })
        .collect();
    if possible(&Kind::ExpiredIterators) && random.f64() < 0.15 {
        acts.push((Duration::from_secs(random.u64(1..50)), Kind::ExpiredIterators));
    }
    if has_streams && random.f64() < 0.3 {
        acts.push((troubled.mul_f64(random.f64()), Kind::StreamLeft));
    }
    for (at, kind) in &mut acts {
        match kind {
            // It lasts for the whole run.
            Kind::ClockRates | Kind::PoisonRecords => *at = Duration::ZERO,
            Kind::ExpiredIterators => *at = (*at).min(troubled - LONG_PAUSE),
            _ => {}
        }
    }
    acts.sort();
    acts
}
