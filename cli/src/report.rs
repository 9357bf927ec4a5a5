//! `fedveil report`: runs beside one another.

use crate::exit::{Exit, Failure};
use crate::folder::unwritable;
use crate::simulate::SWEEP_FILE;
use fedveil_simulations::record::{RoundRecord, Summary};
use fedveil_simulations::report::{Compared, comparison_csv, comparison_html};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Options of a comparison.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run folders, of simulations, demos or coordinators, or the folder of a sweep.
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// Write the comparison as a page with plots, in one file without scripts.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write the comparison as a CSV table.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Print the comparison as JSON: the name, the swept keys and the summary of each run.
    #[arg(long)]
    json: bool,
}

/// The points of a sweep, as its folder lists them.
#[derive(Serialize, Deserialize)]
pub(crate) struct SweepFile {
    /// Name of the scenario.
    pub(crate) name: String,
    /// Each point's folder and swept values.
    pub(crate) points: Vec<SweptPoint>,
}

/// One point of a sweep.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct SweptPoint {
    /// Its folder inside the sweep's.
    pub(crate) folder: String,
    /// Each swept key and its value, in the order of the axes.
    pub(crate) values: Vec<(String, String)>,
}

/// Compares runs.
pub(crate) fn run(args: &Args, out: &mut impl Write) -> Result<(), Failure> {
    let mut runs = Vec::new();
    for path in &args.runs {
        runs.extend(read(path)?);
    }
    if let Some(path) = &args.out {
        fs::write(path, comparison_html("Comparison of runs", &runs))
            .map_err(|error| unwritable(path, &error))?;
    }
    if let Some(path) = &args.csv {
        fs::write(path, comparison_csv(&runs)).map_err(|error| unwritable(path, &error))?;
    }
    let text = if args.json { as_json(&runs)? } else { as_table(&runs) };
    out.write_all(text.as_bytes())
        .map_err(|error| Failure::new(Exit::General, format!("cannot print the comparison: {error}")))
}

/// Runs as JSON, with the names that `summary.json` has.
pub(crate) fn as_json(runs: &[Compared]) -> Result<String, Failure> {
    let run = |run: &Compared| {
        serde_json::json!({
            "run": run.name,
            "point": run.point.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
            "worst_tenth_accuracy": run.worst_tenth(),
            "summary": run.summary,
        })
    };
    let runs: Vec<_> = runs.iter().map(run).collect();
    let text = serde_json::to_string_pretty(&runs).map_err(|error| Failure::new(Exit::General, error))?;
    Ok(text + "\n")
}

/// Runs as lines for a terminal.
pub(crate) fn as_table(runs: &[Compared]) -> String {
    let percent =
        |share: Option<f64>| share.map_or("-".to_owned(), |share| format!("{:.1} %", 100.0 * share));
    let width = runs.iter().map(|run| run.name.chars().count()).max().unwrap_or(0).max(3);
    let mut text = format!(
        "{:<width$}  {:>6}  {:>8}  {:>11}  {:>8}  {:>8}  {:>10}  {:>10}\n",
        "run", "rounds", "accuracy", "worst tenth", "attack", "epsilon", "up/round", "down/round"
    );
    for run in runs {
        let summary = &run.summary;
        writeln!(
            text,
            "{:<width$}  {:>6}  {:>8}  {:>11}  {:>8}  {:>8.2}  {:>10}  {:>10}",
            run.name,
            summary.rounds,
            percent(summary.test_accuracy),
            percent(run.worst_tenth()),
            percent(summary.attack_success),
            summary.epsilon,
            indicatif::HumanBytes(summary.bytes_up_per_client_round).to_string(),
            indicatif::HumanBytes(summary.bytes_down_per_client_round).to_string(),
        )
        .expect("a string can be written to");
    }
    text
}

/// The run in a folder, or every finished point of the sweep in it.
fn read(path: &Path) -> Result<Vec<Compared>, Failure> {
    let sweep = path.join(SWEEP_FILE);
    if !sweep.exists() {
        return Ok(vec![read_run(path, path.display().to_string(), Vec::new())?]);
    }
    let sweep: SweepFile = parsed(&sweep)?;
    let is_done = |point: &&SweptPoint| path.join(&point.folder).join("summary.json").exists();
    let read = |point: &SweptPoint| {
        if Path::new(&point.folder).components().count() != 1 || point.folder.starts_with('.') {
            let message =
                format!("{}: a point's folder is {:?}, accepted is a name", path.display(), point.folder);
            return Err(Failure::new(Exit::Usage, message));
        }
        read_run(&path.join(&point.folder), point.folder.clone(), point.values.clone())
    };
    sweep.points.iter().filter(is_done).map(read).collect()
}

/// The run in a folder under a name.
pub(crate) fn read_run(path: &Path, name: String, point: Vec<(String, String)>) -> Result<Compared, Failure> {
    let summary: Summary = parsed(&path.join("summary.json"))?;
    let file = path.join("rounds.jsonl");
    let text = fs::read_to_string(&file).map_err(|error| unreadable(&file, &error))?;
    let round = |(number, line): (usize, &str)| {
        let mut round: RoundRecord = serde_json::from_str(line)
            .map_err(|error| unreadable(&file, &format!("line {}: {error}", number + 1)))?;
        // Nothing of single groups is compared.
        round.groups = Vec::new();
        Ok(round)
    };
    let rounds = text.lines().enumerate().map(round).collect::<Result<_, Failure>>()?;
    Ok(Compared { name, point, summary, rounds })
}

fn parsed<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    let text = fs::read(path).map_err(|error| unreadable(path, &error))?;
    serde_json::from_slice(&text).map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(
        Exit::Usage,
        format!("{}: {error}; accepted is the folder of a run that is over, or of a sweep", path.display()),
    )
}
