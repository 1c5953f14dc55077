//! What Linux tells of the processors: of the control group, where that is limited, else of the machine (the KCL's sources).

use std::time::Duration;

use crate::CpuTime;

/// What the processors have done, `up` after some moment that stays the same.
pub(super) fn cpu_time(up: Duration) -> Option<CpuTime> {
    let read = |path| std::fs::read_to_string(path).ok();
    read("/sys/fs/cgroup/cpu.max")
        .and_then(|limit| of_group(&limit, &read("/sys/fs/cgroup/cpu.stat")?, up))
        .or_else(|| of_machine(&read("/proc/stat")?))
}

/// From `cpu.max` and `cpu.stat` of a control group (version 2); `None` where it has no limit.
fn of_group(limit: &str, stat: &str, up: Duration) -> Option<CpuTime> {
    let (quota, period) = limit.trim().split_once(' ')?;
    let share = quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?;
    let usage = stat.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
    let busy = Duration::from_micros(usage.trim().parse().ok()?);
    Some(CpuTime { busy, total: Duration::try_from_secs_f64(up.as_secs_f64() * share).ok()? })
}

/// From `/proc/stat`, whose unit is a hundredth of a second: user, nice, system, idle, iowait, irq, softirq, steal.
fn of_machine(stat: &str) -> Option<CpuTime> {
    const TICK: Duration = Duration::from_millis(10);
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u32> = line.split_whitespace().take(8).map(|field| field.parse().ok()).collect::<Option<_>>()?;
    let total: Duration = ticks.iter().map(|ticks| TICK * *ticks).sum();
    let idle = TICK * *ticks.get(3)? + TICK * ticks.get(4).copied().unwrap_or(0);
    Some(CpuTime { busy: total.saturating_sub(idle), total })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_machine_is_busy_when_it_is_not_idle_or_waiting() {
        let stat = "cpu  300 0 100 500 100 0 0 0 7 7\ncpu0 1 2 3 4\n";
        assert_eq!(of_machine(stat), Some(CpuTime { busy: 4 * SECOND, total: 10 * SECOND }));
        assert_eq!(of_machine("cpu  a b"), None);
        assert_eq!(of_machine(""), None);
    }

    #[test]
    fn a_limited_group_is_measured_by_its_limit() {
        let stat = "usage_usec 3000000\nuser_usec 1\n";
        let half = Some(CpuTime { busy: 3 * SECOND, total: 5 * SECOND });
        assert_eq!(of_group("50000 100000\n", stat, 10 * SECOND), half);
        assert_eq!(of_group("max 100000\n", stat, 10 * SECOND), None);
        assert_eq!(of_group("50000 100000\n", "", 10 * SECOND), None);
    }

    #[test]
    fn a_share_is_of_the_time_between_two_looks() {
        let at = |busy, total| CpuTime { busy: busy * SECOND, total: total * SECOND };
        assert_eq!(at(4, 20).percent_since(&at(1, 10)), Some(30.0));
        assert_eq!(at(4, 20).percent_since(&at(4, 20)), None);
        assert_eq!(at(4, 10).percent_since(&at(1, 20)), None, "the machine was started again");
    }
}
