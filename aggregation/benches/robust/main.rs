//! What the robust rules cost: time of one aggregation, on one thread and on two.
//!
//! ```text
//! cargo bench -p fedveil-aggregation --bench robust -- [--quick] [--only TEXT] [--json FILE] [--byzfl PYTHON]
//! ```
//!
//! 50 rows, 10 of them Byzantine, of 10^5 and of 10^6 `f32`. Ratios are against what was measured in the same run: one
//! streaming pass over the rows, and with `--byzfl` the rules of byzfl in NumPy (PYTHON: an interpreter that has byzfl),
//! on the same rows, the results compared. `--quick` takes short rows, to see that all of it runs; `--only` takes the
//! rules whose name has TEXT in it.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark reports on its standard streams")]

#[path = "../secagg/clock.rs"]
#[expect(dead_code, reason = "memory is of no interest here")]
mod clock;
mod report;

use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use chacha20::ChaCha20Rng;
use fedveil_aggregation::robust::{PRE_AGGREGATORS, RULES, Rule, Runner, Task};
use rand_core::{Rng, SeedableRng};
use serde_json::Value;

use clock::median;
use report::{Measured, Report, Times};

/// Rows, and how many of them are Byzantine.
pub(crate) const ROWS: usize = 50;
pub(crate) const BYZANTINE: usize = 10;

/// Repetitions of a measurement: at least this many, and more while they take less than [`PATIENCE`] together.
const REPETITIONS: usize = 3;
const PATIENCE: Duration = Duration::from_millis(500);

struct Options {
    quick: bool,
    only: String,
    json: Option<String>,
    byzfl: Option<String>,
}

impl Options {
    fn parse() -> Result<Self, String> {
        let mut options = Self { quick: false, only: String::new(), json: None, byzfl: None };
        let mut arguments = env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} takes a value"));
            match argument.as_str() {
                "--quick" => options.quick = true,
                "--only" => options.only = value()?,
                "--json" => options.json = Some(value()?),
                "--byzfl" => options.byzfl = Some(value()?),
                // What cargo itself passes on.
                "--bench" => {}
                _ => {
                    let accepted = "--quick, --only TEXT, --json FILE, --byzfl PYTHON";
                    return Err(format!("option {argument}, accepted are {accepted}"));
                }
            }
        }
        Ok(options)
    }
}

fn main() -> Result<(), String> {
    let options = Options::parse()?;
    let dimensions: &[usize] = if options.quick { &[1_000] } else { &[100_000, 1_000_000] };
    let report = Report {
        dimensions: dimensions
            .iter()
            .map(|&dimension| measure(dimension, &options))
            .collect::<Result<_, String>>()?,
    };
    report.print();
    if let Some(path) = options.json {
        let text = format!("{:#}\n", report.to_json());
        fs::write(&path, text).map_err(|error| format!("cannot write {path}: {error}"))?;
    }
    Ok(())
}

/// Threads of this process, as many as asked for.
struct Threads(usize);

impl Runner for Threads {
    fn threads(&self) -> usize {
        self.0
    }

    fn run(&self, mut tasks: Vec<Task<'_>>) {
        let own = tasks.pop();
        thread::scope(|scope| {
            for task in tasks {
                scope.spawn(task);
            }
            if let Some(task) = own {
                task();
            }
        });
    }
}

/// Every rule and pre-aggregator by name. A pre-aggregator is measured as the difference that it makes to the mean.
fn candidates(dimension: usize) -> Vec<(&'static str, Rule)> {
    let reference = vec!["1"; dimension].join(",");
    let rules = RULES.iter().map(|spec| {
        let name = spec.about.name;
        let settings: &[_] = match name {
            "fltrust" => &[("reference", reference.as_str())],
            // As byzfl runs them.
            "krum" | "multi-krum" => &[("variant", "byzfl")],
            "rfa" => &[("nu", "0.1"), ("iterations", "3")],
            _ => &[],
        };
        (name, Rule::new(name, &[], settings))
    });
    let pre =
        PRE_AGGREGATORS.iter().map(|spec| (spec.about.name, Rule::new("mean", &[spec.about.name], &[])));
    rules
        .chain(pre)
        .map(|(name, rule)| (name, rule.expect("the registry's names, and settings of its options")))
        .collect()
}

fn measure(dimension: usize, options: &Options) -> Result<Measured, String> {
    let rows = rows(dimension);
    let floor = times(1, |_| black_box(stream(&rows)));
    let mut measured = Measured { dimension, floor, rules: Vec::new(), refused: Vec::new(), byzfl: None };
    let mut heads = Vec::new();
    for (name, rule) in candidates(dimension) {
        if !name.contains(&options.only) {
            continue;
        }
        if let Err(error) = rule.check_counts(ROWS, BYZANTINE) {
            measured.refused.push((name, error.to_string()));
            continue;
        }
        let aggregate = |threads: usize| {
            rule.aggregate_on(&Threads(threads), &rows, BYZANTINE).expect("rows and f are accepted")
        };
        let [one, two] = [1, 2].map(|threads| times(threads, aggregate));
        let serial = aggregate(1);
        assert!(aggregate(2) == serial, "{name} depends on the number of threads");
        eprintln!("measured: {name}, d = {dimension}");
        heads.push((name, serial.vector));
        measured.rules.push((name, one, two));
    }
    if let Some(python) = &options.byzfl {
        let found = byzfl(python, &rows, &options.only)?;
        compare(&heads, &found)?;
        measured.byzfl = Some(found);
    }
    Ok(measured)
}

/// Standard normal rows, of which the last ones are moved by three in every coordinate.
fn rows(dimension: usize) -> Vec<Vec<f32>> {
    let mut rng = ChaCha20Rng::seed_from_u64(5);
    // Above zero, so that it has a logarithm.
    let mut uniform = || (rng.next_u32() as f32 + 1.0) / 4_294_967_296.0;
    (0..ROWS)
        .map(|row| {
            let shift = if row < ROWS - BYZANTINE { 0.0 } else { 3.0 };
            (0..dimension)
                .map(|_| (-2.0 * uniform().ln()).sqrt() * (std::f32::consts::TAU * uniform()).cos() + shift)
                .collect()
        })
        .collect()
}

/// One pass over all rows: each is added up, in sixteen sums, so that nothing but memory is waited for.
fn stream(rows: &[Vec<f32>]) -> f32 {
    let add = |row: &Vec<f32>| {
        let mut sums = [0.0; 16];
        for values in row.as_chunks::<16>().0 {
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum += value;
            }
        }
        sums.iter().sum::<f32>()
    };
    rows.iter().map(add).sum()
}

/// Median wall time of `work` on so many threads, and CPU time, if it is one.
fn times<T>(threads: usize, work: impl Fn(usize) -> T) -> Times {
    drop(work(threads));
    let start = Instant::now();
    let (mut wall, mut cpu) = (Vec::new(), Vec::new());
    while wall.len() < REPETITIONS || start.elapsed() < PATIENCE {
        let before = Instant::now();
        let (time, result) = clock::timed(|| work(threads));
        wall.push(before.elapsed());
        cpu.push(time);
        drop(black_box(result));
    }
    Times { wall: median(&mut wall), cpu: median(&mut cpu) }
}

/// Runs byzfl on the rows, and returns what it reports.
fn byzfl(python: &str, rows: &[Vec<f32>], only: &str) -> Result<Value, String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/robust/byzfl_rules.py");
    let file = env::temp_dir().join(format!("fedveil-bench-robust-{}", std::process::id()));
    let bytes: Vec<u8> = rows.iter().flatten().flat_map(|value| value.to_ne_bytes()).collect();
    fs::write(&file, bytes).map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    let found = run(python, script, &file, only);
    let _ = fs::remove_file(&file);
    found
}

fn run(python: &str, script: &str, rows: &Path, only: &str) -> Result<Value, String> {
    let mut command = Command::new(python);
    command.arg(script).arg("--rows").arg(rows);
    for (name, value) in [("--count", ROWS), ("--byzantine", BYZANTINE)] {
        command.arg(name).arg(value.to_string());
    }
    let output =
        command.args(["--only", only]).output().map_err(|error| format!("cannot run {python}: {error}"))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{python} {script} failed: {}", reason.trim()));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("{script} printed no JSON: {error}"))
}

/// Rules that byzfl computes from random numbers, or whose mean is not that of the pre-aggregator's first row.
const NOT_COMPARED: [&str; 5] = ["caf", "clip", "arc", "nnm", "bucketing"];

/// Refuses a rule whose result is not byzfl's. byzfl computes in `f32`, so that the last digits differ.
fn compare(ours: &[(&str, Vec<f64>)], byzfl: &Value) -> Result<(), String> {
    for (name, vector) in ours.iter().filter(|(name, _)| !NOT_COMPARED.contains(name)) {
        let Some(head) = byzfl["head"][name].as_array() else { continue };
        for (at, (ours, theirs)) in vector.iter().zip(head).enumerate() {
            let theirs = theirs.as_f64().ok_or_else(|| format!("byzfl made no number of {name}"))?;
            if theirs.is_nan() || (ours - theirs).abs() > 1e-4 {
                return Err(format!("{name} has {ours} at coordinate {at}, byzfl has {theirs}"));
            }
        }
    }
    Ok(())
}
