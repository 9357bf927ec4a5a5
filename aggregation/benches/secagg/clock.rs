//! CPU time of this thread, and the process's memory.

use std::fs;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// CPU time that this thread has used: unlike wall time it stands still while others run.
pub(crate) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// CPU time of `work`, and its result.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = cpu_time();
    let result = work();
    (cpu_time().saturating_sub(start), result)
}

/// Resident memory in bytes: now, and at most since the last [`reset_peak`]. `None` where /proc does not tell.
pub(crate) fn resident() -> Option<(u64, u64)> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let field = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(1024 * line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().ok()?)
    };
    Some((field("VmRSS")?, field("VmHWM")?))
}

/// Lets the peak of [`resident`] start from what is resident; without effect where /proc does not allow it.
pub(crate) fn reset_peak() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// The middle one; of an even number the upper of the two in the middle. Zero for none.
pub(crate) fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
