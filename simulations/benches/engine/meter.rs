//! What the process uses: wall time, CPU time of all its threads, memory.

use std::fs;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

/// Wall and CPU time since it was made.
pub(crate) struct Meter(Instant, Duration);

/// What a round takes, in milliseconds.
#[derive(Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) wall: f64,
    pub(crate) cpu: f64,
}

impl Meter {
    pub(crate) fn start() -> Self {
        Self(Instant::now(), cpu_time())
    }

    /// The time so far, divided by so many rounds.
    pub(crate) fn per_round(&self, rounds: u32) -> Cost {
        let ms = |time: Duration| 1e3 * time.as_secs_f64() / f64::from(rounds.max(1));
        Cost { wall: ms(self.0.elapsed()), cpu: ms(cpu_time().saturating_sub(self.1)) }
    }
}

/// CPU time of the process, all threads together.
pub(crate) fn cpu_time() -> Duration {
    time_of(ClockId::ProcessCPUTime)
}

/// CPU time of this thread.
pub(crate) fn thread_time() -> Duration {
    time_of(ClockId::ThreadCPUTime)
}

fn time_of(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Resident memory in MiB: now, and at most since [`reset_peak`]. 0 where /proc does not tell.
pub(crate) fn resident() -> [f64; 2] {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    ["VmRSS:", "VmHWM:"].map(|name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) / 1024.0
    })
}

/// Lets the peak of [`resident`] start from what is resident; without effect where /proc does not allow it.
pub(crate) fn reset_peak() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// The machine and what else it does, for whoever reads the numbers later.
pub(crate) fn machine() -> Value {
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processor.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    json!({ "processor": model.trim_start_matches([' ', '\t', ':']), "threads": threads, "load": load() })
}

/// Mean number of processes that wanted to run, over the last minute.
pub(crate) fn load() -> f64 {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(f64::NAN)
}
