//! `fedveil simulate`: a scenario file, run in virtual time.
//!
//! ```text
//! SCENARIO.toml ─► Draft ─► --set ─► Sweep ─► Spec, one for each point ─► Ready ─► run folder
//! ```
//!
//! Everything in a run folder follows from the scenario but `timing.json`, which says how long it took here, and the
//! signed index, which lists that file too.

mod estimate;
mod point;
mod sweep;

use crate::config::{self, Draft};
use crate::data::DataOption;
use crate::demo::table;
use crate::exit::{Exit, Failure};
use crate::folder::unwritable;
use crate::report::{SweepFile, as_json, as_table, read_run};
use estimate::Estimate;
use fedveil_simulations::report::{Compared, comparison_csv, comparison_html, grids, grids_csv};
use fedveil_simulations::scenario::Spec;
use point::{Earlier, Manner, Ready, opening};
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use sweep::{Point, Sweep};

/// In the folder of a sweep, the list of its points.
pub(crate) const SWEEP_FILE: &str = "sweep.json";

const HELP: &str = "\
Examples:
  fedveil simulate scenarios/quickstart.toml --out run
  fedveil simulate scenarios/quickstart.toml --out run2 --set robustness.rule=mean --set seed=2
  fedveil simulate scenarios/quickstart.toml --out curve --set privacy.epsilon=[4,8,15]
  fedveil simulate scenarios/quickstart.toml --out curve --set privacy.epsilon=[4,8,15] --resume
  fedveil simulate scenarios/quickstart.toml --check
  fedveil report run run2 --out comparison.html

A run folder holds the signed models with their manifests (`fedveil verify`), report.html, summary.json, rounds.jsonl,
metrics.csv and tensorboard/, which TensorBoard reads. Keys and noise follow from the seed: nothing in it is private.";

/// Options of a simulation.
#[derive(clap::Args)]
#[command(after_help = HELP)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(crate) struct Args {
    /// Scenario file (TOML).
    #[arg(value_name = "SCENARIO.toml", required_unless_present = "print_scenario")]
    scenario: Option<PathBuf>,
    /// Run folder; it must be new or empty. A sweep makes a folder in it for each point. [default: runs/<scenario>]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Threads that compute; what comes out does not depend on it. [default: as many as there are processors]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    #[command(flatten)]
    data: DataOption,
    /// Set a key of the scenario, as in training.learning_rate=0.1; with a list, as in privacy.epsilon=[1,2,4], go through
    /// its values. Repeat for more: every combination is one run.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Go on in a folder where this very scenario was cut off, from the last round that was kept. The end is the same as if
    /// nothing had happened.
    #[arg(long)]
    resume: bool,
    /// Rounds from one place that --resume goes on from to the next. 0: none, and a run that is cut off starts again.
    #[arg(long, value_name = "ROUNDS", default_value_t = 10)]
    checkpoint_every: u32,
    /// Say what the scenario means, what it spends, and what it will cost by a short calibration; run nothing.
    #[arg(long)]
    check: bool,
    /// Print every key with its default and its meaning, and end.
    #[arg(long, alias = "print-config")]
    print_scenario: bool,
    /// Print nothing but the summary, as JSON; of a sweep, a list of all points.
    #[arg(long)]
    json: bool,
}

/// Runs a scenario, or every point of its sweep.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    if args.print_scenario {
        print!("{}", config::print_config::<Spec>());
        return Ok(());
    }
    let path = args.scenario.clone().unwrap_or_default();
    let draft = Draft::load::<Spec>(&path).map_err(|error| Failure::new(Exit::Usage, error))?;
    let sweep = Sweep::new(draft, &args.set)?;
    // All points are checked before the first one runs.
    let points = sweep.points()?;
    if args.check {
        return args.check(&points);
    }
    let out = args.out.clone().unwrap_or_else(|| default_folder(&path));
    if let [point] = points.as_slice()
        && point.values.is_empty()
    {
        args.simulate(point, &out)?;
        let Compared { summary, .. } = read_run(&out, String::new(), Vec::new())?;
        if args.json {
            return print_json(&summary);
        }
        println!("\n{}\n", table(&summary));
        println!("  fedveil verify {}", out.display());
        println!("  open {}", out.join("report.html").display());
        return Ok(());
    }
    let runs = args.run_all(&points, &out)?;
    if args.json {
        print!("{}", as_json(&runs)?);
        return Ok(());
    }
    println!("\n{}", as_table(&runs));
    println!("  open {}", out.join("report.html").display());
    Ok(())
}

impl Args {
    fn threads(&self) -> NonZeroUsize {
        self.threads.or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN)
    }

    /// Runs a scenario into a folder, unless it is to be resumed and was run there before.
    fn simulate(&self, point: &Point, folder: &Path) -> Result<(), Failure> {
        if self.resume && Earlier::of(&point.spec, folder)? == Earlier::Finished {
            return Ok(());
        }
        let threads = self.threads();
        let manner = Manner { threads, checkpoint_every: self.checkpoint_every, silent: self.json };
        self.ready(point)?.run(folder, &manner, self.resume)
    }

    fn ready<'a>(&self, point: &'a Point) -> Result<Ready<'a>, Failure> {
        let scenario = self.scenario.as_deref().and_then(Path::parent);
        Ready::new(&point.spec, &self.data, scenario.unwrap_or(Path::new("")))
    }

    /// Runs every point of a sweep into a folder of its own, and compares them.
    fn run_all(&self, points: &[Point], out: &Path) -> Result<Vec<Compared>, Failure> {
        fs::create_dir_all(out).map_err(|error| unwritable(out, &error))?;
        if !self.resume && fs::read_dir(out).map_err(|error| unwritable(out, &error))?.next().is_some() {
            let message = format!(
                "output folder {}: it is not empty; accepted is a new or an empty folder",
                out.display()
            );
            return Err(Failure::new(Exit::Output, message));
        }
        let name = points.first().map_or_else(String::new, |point| point.spec.name.clone());
        let sweep = SweepFile { name, points: points.iter().map(Point::swept).collect() };
        let json = serde_json::to_vec_pretty(&sweep).map_err(|error| Failure::new(Exit::General, error))?;
        let file = out.join(SWEEP_FILE);
        if file.exists() && fs::read(&file).map_err(|error| unwritable(&file, &error))? != json {
            let message =
                format!("{} lists other points; accepted is the folder of this very sweep", file.display());
            return Err(Failure::new(Exit::Output, message));
        }
        write(&file, &json)?;
        let mut runs = Vec::with_capacity(points.len());
        for (number, point) in (1..).zip(points) {
            if !self.json {
                eprintln!("[{number}/{}] {}", points.len(), point.name);
            }
            let folder = out.join(&point.name);
            self.simulate(point, &folder)?;
            runs.push(read_run(&folder, point.name.clone(), point.values.clone())?);
        }
        write(&out.join("report.html"), comparison_html(&sweep.name, &runs).as_bytes())?;
        write(&out.join("comparison.csv"), comparison_csv(&runs).as_bytes())?;
        write(&out.join("comparison.json"), as_json(&runs)?.as_bytes())?;
        let grids = grids(&runs);
        if !grids.is_empty() {
            let json =
                serde_json::to_string_pretty(&grids).map_err(|error| Failure::new(Exit::General, error))?;
            write(&out.join("matrix.csv"), grids_csv(&grids).as_bytes())?;
            write(&out.join("matrix.json"), (json + "\n").as_bytes())?;
        }
        Ok(runs)
    }

    fn check(&self, points: &[Point]) -> Result<(), Failure> {
        let mut told = Vec::new();
        for point in points {
            let ready = self.ready(point)?;
            let estimate = Estimate::of(&ready, self.threads())?;
            let (plan, terms) = (&ready.planned.plan, &ready.planned.terms);
            if self.json {
                told.push(serde_json::json!({
                    "point": point.name,
                    "scenario": point.spec,
                    "plan": plan,
                    "rounds": terms.affordable_rounds,
                    "epsilon": terms.guarantee.epsilon(terms.affordable_rounds),
                    "estimate": estimate,
                }));
            } else {
                let name = if point.name.is_empty() { String::new() } else { format!("{}\n", point.name) };
                println!("{name}{}\n{estimate}", opening(&point.spec, &ready.planned));
            }
        }
        if self.json { print_json(&told) } else { Ok(()) }
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    fs::write(path, bytes).map_err(|error| unwritable(path, &error))
}

fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let json = serde_json::to_string_pretty(value).map_err(|error| Failure::new(Exit::General, error))?;
    println!("{json}");
    Ok(())
}

fn default_folder(scenario: &Path) -> PathBuf {
    Path::new("runs").join(scenario.file_stem().unwrap_or_default())
}
