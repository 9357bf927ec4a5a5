//! The measurements as Markdown and as JSON.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{BYZANTINE, ROWS};

/// Of one measurement, each the median.
pub(crate) struct Times {
    pub(crate) wall: Duration,
    /// Of the thread that asked.
    pub(crate) cpu: Duration,
}

/// All that was measured on rows of one dimension.
pub(crate) struct Measured {
    pub(crate) dimension: usize,
    /// One streaming pass over the rows.
    pub(crate) floor: Times,
    /// Name, times on one thread, times on two.
    pub(crate) rules: Vec<(&'static str, Times, Times)>,
    /// Name, and why the rule refuses as many rows.
    pub(crate) refused: Vec<(&'static str, String)>,
    /// What byzfl reports of itself.
    pub(crate) byzfl: Option<Value>,
}

/// All of one run.
pub(crate) struct Report {
    pub(crate) dimensions: Vec<Measured>,
}

fn ms(time: Duration) -> f64 {
    1e3 * time.as_secs_f64()
}

impl Report {
    pub(crate) fn print(&self) {
        for measured in &self.dimensions {
            measured.print();
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "rows": ROWS,
            "byzantine": BYZANTINE,
            "dimensions": self.dimensions.iter().map(Measured::to_json).collect::<Vec<_>>(),
        })
    }
}

impl Measured {
    /// byzfl's CPU time of a rule, in milliseconds.
    fn byzfl_ms(&self, name: &str) -> Option<f64> {
        Some(1e3 * self.byzfl.as_ref()?["seconds"][name].as_f64()?)
    }

    fn print(&self) {
        let floor = ms(self.floor.cpu);
        println!("\n## n = {ROWS}, f = {BYZANTINE}, d = {}\n", self.dimension);
        println!("One streaming pass over the rows: {floor:.2} ms.");
        if let Some(byzfl) = &self.byzfl {
            let version = |name: &str| byzfl[name].as_str().unwrap_or("?").to_owned();
            let [byzfl, numpy, scipy] = ["byzfl", "numpy", "scipy"].map(version);
            println!("byzfl {byzfl} on NumPy {numpy} and SciPy {scipy}, CPU time, one thread.");
        }
        println!(
            "\n| rule | CPU ms | × pass | wall ms, one thread | two threads | byzfl ms | ÷ CPU ms |\n|---|---|---|---|---|---|---|"
        );
        for (name, one, two) in &self.rules {
            let (byzfl, ratio) = match self.byzfl_ms(name) {
                Some(byzfl) => (format!("{byzfl:.0}"), format!("{:.1}", byzfl / ms(one.cpu))),
                None => (String::new(), String::new()),
            };
            println!(
                "| {name} | {:.1} | {:.1} | {:.1} | {:.1} | {byzfl} | {ratio} |",
                ms(one.cpu),
                ms(one.cpu) / floor,
                ms(one.wall),
                ms(two.wall),
            );
        }
        for (name, reason) in &self.refused {
            println!("| {name} | refused: {reason} | | | | | |");
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "dimension": self.dimension,
            "pass_ms": ms(self.floor.cpu),
            "rules": self.rules.iter().map(|(name, one, two)| json!({
                "rule": name,
                "cpu_ms": ms(one.cpu),
                "wall_ms": ms(one.wall),
                "two_threads_wall_ms": ms(two.wall),
                "byzfl_cpu_ms": self.byzfl_ms(name),
            })).collect::<Vec<_>>(),
            "refused": self.refused.iter().map(|(name, reason)| json!({
                "rule": name,
                "reason": reason,
            })).collect::<Vec<_>>(),
            "byzfl": self.byzfl,
        })
    }
}
