//! Training a federation on real data: here, in a plain PyTorch loop, in pfl-research and in Flower's simulator.
//!
//! Every system is a process of its own, this crate's too, and runs its rounds when it is told to: all take turns in one
//! run, and memory is that of one system. They start from the same initial model and have the same clients; each draws its
//! cohorts and shuffles by a seed of its own.

use std::env;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use fedveil_coordinator_core::Millis;
use fedveil_proto::Kind;
use fedveil_simulations::datasets::{DataSpec, Files, Part};
use fedveil_simulations::federation::{Federation, Message, RoundOutcome, Scenario, Trained, Work};
use fedveil_simulations::partition::{Partitioner, Split};
use fedveil_simulations::scenario::{Fleet, Measure, Spec};
use serde_json::{Value, json};

use crate::Options;
use crate::meter::{self, Cost, Meter};
use crate::peer::Peer;

/// Times that the whole job of [`LOGISTIC`] is run.
const REPETITIONS: usize = 3;
/// Rows that are handed to peers at a time, which bounds memory.
const ROWS_AT_ONCE: usize = 1024;

/// One pass of plain SGD at each of a cohort's clients, who hold equally much; their mean is the next model. Nothing is
/// masked, and there is no noise.
struct Job {
    name: &'static str,
    data: DataSpec,
    /// Width of the input, of hidden layers, and of the output.
    layers: &'static [usize],
    clients: u32,
    cohort: u32,
    batch: u32,
    rate: f64,
    rounds: u32,
}

/// As in `scenarios/fedavg-fashion-mnist-iid.toml`.
const FASHION: Job = Job {
    name: "fashion-mnist",
    data: DataSpec::FashionMnist {},
    layers: &[784, 200, 10],
    clients: 100,
    cohort: 10,
    batch: 32,
    rate: 0.05,
    rounds: 20,
};

const LOGISTIC: Job = Job {
    name: "mnist",
    data: DataSpec::Mnist {},
    layers: &[784, 10],
    clients: 1_000,
    cohort: 10,
    batch: 10,
    rate: 0.03,
    rounds: 100,
};

impl Job {
    fn scenario(&self, quick: bool) -> Spec {
        let widths: Vec<String> = self.layers.iter().map(ToString::to_string).collect();
        let kind = if widths.len() == 2 { "softmax" } else { "mlp" };
        let mut spec = Spec {
            name: self.name.to_owned(),
            rounds: self.rounds(quick),
            data: self.data.clone(),
            partition: Partitioner::Iid {},
            ..Spec::default()
        };
        (spec.population.clients, spec.population.cohort) = (self.clients, Some(self.cohort));
        spec.model.architecture = format!("{kind}:{}", widths.join("x"));
        (spec.training.epochs, spec.training.batch_size) = (1, self.batch);
        spec.training.learning_rate = self.rate;
        "insecure_plain".clone_into(&mut spec.aggregation.mode);
        (spec.privacy.placement, spec.privacy.clip_norm) = ("insecure_none".to_owned(), f64::INFINITY);
        spec
    }

    fn rounds(&self, quick: bool) -> u32 {
        if quick { 3 } else { self.rounds }
    }
}

/// Both jobs: the first a round at a time by turns, the second as a whole.
pub(crate) fn measure(options: &Options) -> Result<String, String> {
    if options.data.is_none() {
        return Ok("Not measured: it takes --data DIR.".to_owned());
    }
    Ok(format!("{}\n\n{}", by_turns(options)?, wholes(options)?))
}

/// What is compared, and on how many threads it trains.
struct System {
    name: &'static str,
    threads: usize,
    command: Command,
}

/// Ours, and those whose interpreter is there, on the job in `folder`.
fn systems(job: &Job, options: &Options, folder: &Path) -> Result<Vec<System>, String> {
    let mut systems = Vec::new();
    for threads in [1, 2] {
        let mut command = Command::new(env::current_exe().map_err(text)?);
        command.arg("--worker").arg(format!("{},{threads}", job.name));
        command.args(options.data.iter().flat_map(|data| ["--data", data]));
        command.args(options.quick.then_some("--quick"));
        systems.push(System { name: "Fedveil", threads, command });
    }
    let python = |interpreter: &Option<String>, name, threads, script: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/engine").join(script);
        let mut command = Command::new(interpreter.as_ref()?);
        command.arg(path).arg(folder).env("OMP_NUM_THREADS", "1").env("MKL_NUM_THREADS", "1");
        Some(System { name, threads, command })
    };
    systems.extend(python(&options.peers, PYTORCH, 1, "training_torch.py"));
    systems.extend(python(&options.pfl, "pfl-research", 1, "training_pfl.py"));
    systems.extend(python(&options.peers, "Flower", 2, "training_flower.py"));
    Ok(systems)
}

const PYTORCH: &str = "plain PyTorch loop";

/// Rounds of the first job, one of each system after the other.
fn by_turns(options: &Options) -> Result<String, String> {
    let (job, rounds) = (&FASHION, FASHION.rounds(options.quick));
    let folder = handed_over(job, options)?;
    let mut running = Vec::new();
    for mut system in systems(job, options, folder.path())? {
        let peer = Peer::start(&mut system.command)?;
        eprintln!("{}: {}", system.name, peer.version);
        running.push((system, peer, Vec::new(), Vec::new()));
    }
    for _ in 0..rounds {
        for (_, peer, costs, trainings) in &mut running {
            let (cost, answer) = peer.rounds(1)?;
            costs.push(cost);
            trainings.extend(answer["training_ms"].as_f64());
        }
    }
    let mut table = vec![format!(
        "| Fashion-MNIST, MLP 784-200-10, {rounds} rounds | threads | CPU s a round | wall s a round \
             | CPU ÷ Fedveil's | peak MiB | accuracy |\n|---|---|---|---|---|---|---|"
    )];
    let mut base = None;
    for (system, peer, costs, trainings) in running {
        let (cost, version) = (median_cost(&costs), peer.version.clone());
        let (end, _) = peer.finish()?;
        let training = (!trainings.is_empty()).then(|| median(trainings.iter().copied()));
        println!(
            "{}",
            json!({
                "bench": "training", "job": job.name, "system": system.name, "version": version,
                "threads": system.threads, "rounds": rounds, "wall_ms": cost.wall, "cpu_ms": cost.cpu,
                "cpu_ms_each": costs.iter().map(|cost| cost.cpu).collect::<Vec<_>>(), "training_ms": training,
                "peak_mib": end["peak_mib"], "accuracy": end["accuracy"], "load": meter::load(),
            })
        );
        let base = *base.get_or_insert(cost.cpu);
        let training =
            training.map_or(String::new(), |ms| format!(" ({:.3} in clients' training)", ms / 1e3));
        table.push(format!(
            "| {} | {} | {:.3}{training} | {:.3} | {:.2} | {:.0} | {:.4} |",
            system.name,
            system.threads,
            cost.cpu / 1e3,
            cost.wall / 1e3,
            cost.cpu / base,
            number(&end, "peak_mib")?,
            number(&end, "accuracy")?,
        ));
    }
    Ok(table.join("\n"))
}

/// The second job as a whole, here and in the plain loop.
fn wholes(options: &Options) -> Result<String, String> {
    let (job, rounds) = (&LOGISTIC, LOGISTIC.rounds(options.quick));
    let folder = handed_over(job, options)?;
    let is_compared = |system: &System| system.name == "Fedveil" || system.name == PYTORCH;
    let mut compared: Vec<_> = systems(job, options, folder.path())?
        .into_iter()
        .filter(is_compared)
        .map(|system| (system, Vec::new()))
        .collect();
    for _ in 0..if options.quick { 1 } else { REPETITIONS } {
        for (system, runs) in &mut compared {
            let mut peer = Peer::start(&mut system.command)?;
            let (cost, _) = peer.rounds(rounds)?;
            let (end, wall) = peer.finish()?;
            println!(
                "{}",
                json!({
                    "bench": "training", "job": job.name, "system": system.name, "threads": system.threads,
                    "rounds": rounds, "wall_ms": cost.wall, "cpu_ms": cost.cpu, "process_wall_s": wall.as_secs_f64(),
                    "process_cpu_s": end["cpu_s"], "peak_mib": end["peak_mib"], "accuracy": end["accuracy"],
                    "load": meter::load(),
                })
            );
            runs.push((cost, wall.as_secs_f64(), end));
        }
    }
    let mut table = vec![format!(
        "| MNIST, logistic regression, {} clients | threads | {rounds} rounds, CPU s | wall s | CPU ÷ Fedveil's \
             | the process from its start, CPU s | wall s | peak MiB | accuracy |\n|---|---|---|---|---|---|---|---|---|",
        job.clients
    )];
    let mut base = None;
    for (system, runs) in compared {
        let costs: Vec<Cost> = runs.iter().map(|(cost, ..)| *cost).collect();
        let middle = |name: &str| -> Result<f64, String> {
            let values: Vec<f64> =
                runs.iter().map(|(.., end)| number(end, name)).collect::<Result<_, _>>()?;
            Ok(median(values.into_iter()))
        };
        let cost = median_cost(&costs);
        let base = *base.get_or_insert(cost.cpu);
        table.push(format!(
            "| {} | {} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.0} | {:.4} |",
            system.name,
            system.threads,
            cost.cpu / 1e3,
            cost.wall / 1e3,
            cost.cpu / base,
            middle("cpu_s")?,
            median(runs.iter().map(|(_, wall, _)| *wall)),
            middle("peak_mib")?,
            middle("accuracy")?,
        ));
    }
    Ok(table.join("\n"))
}

/// A folder with all that peers need to know of a job, which is empty where there are no peers.
fn handed_over(job: &Job, options: &Options) -> Result<tempfile::TempDir, String> {
    let folder = tempfile::tempdir().map_err(text)?;
    if options.peers.is_none() && options.pfl.is_none() {
        return Ok(folder);
    }
    let spec = job.scenario(options.quick);
    let planned = spec.plan().map_err(text)?;
    let data = spec.data.load(&Folder::of(options), spec.seed).map_err(text)?;
    let split = Split::new(&data.train, &spec.partition, job.clients as usize, spec.seed).map_err(text)?;
    let clients: Vec<_> = (0..split.clients()).map(|client| split.rows_of(client)).collect();
    let settings = json!({
        "layers": job.layers, "cohort": job.cohort, "batch": job.batch, "rate": job.rate, "rounds": spec.rounds,
        "clients": clients,
    });
    let path = |name: &str| folder.path().join(name);
    fs::write(path("job.json"), settings.to_string()).map_err(text)?;
    let model = planned.model.initial(spec.seed);
    fs::write(path("model"), model.into_iter().flat_map(f32::to_le_bytes).collect::<Vec<u8>>())
        .map_err(text)?;
    for (name, part) in [("train", &data.train), ("test", &data.test)] {
        let labels: Vec<u8> = part.labels().iter().flat_map(|label| label.to_le_bytes()).collect();
        fs::write(path(&format!("{name}-labels")), labels).map_err(text)?;
        let mut file = BufWriter::new(File::create(path(&format!("{name}-features"))).map_err(text)?);
        features(part, |values| file.write_all(&values.to_le_bytes())).map_err(text)?;
        file.flush().map_err(text)?;
    }
    Ok(folder)
}

/// Every feature of a part, row by row.
fn features(part: &Part, mut visit: impl FnMut(f32) -> io::Result<()>) -> Result<(), String> {
    let rows: Vec<u32> = (0..part.rows() as u32).collect();
    for rows in rows.chunks(ROWS_AT_ONCE) {
        let data = part.dataset(rows).map_err(text)?;
        data.features().iter().try_for_each(|&value| visit(value)).map_err(text)?;
    }
    Ok(())
}

/// Runs a job as a [`Peer`]: `worker` is its name and a number of threads.
pub(crate) fn work(worker: &str, options: &Options) -> Result<(), String> {
    let known = worker.split_once(',').and_then(|(name, threads)| {
        let job = [FASHION, LOGISTIC].into_iter().find(|job| job.name == name)?;
        Some((job, threads.parse::<NonZeroUsize>().ok()?))
    });
    let (job, threads) =
        known.ok_or_else(|| format!("--worker {worker}, accepted is a job and a number of threads"))?;
    let spec = job.scenario(options.quick);
    let planned = spec.plan().map_err(text)?;
    let data = spec.data.load(&Folder::of(options), spec.seed).map_err(text)?;
    let fleet = Fleet::new(&spec, &planned, data).map_err(text)?;
    let measure = Measure::new(planned.model.clone(), &fleet, job.clients, 0, spec.seed);
    let mut setup = spec.setup(&planned, threads);
    let initial = planned.runner.initial(&planned.model.initial(spec.seed)).map_err(text)?;
    setup.initial = Some(initial.into());
    let clients = Timed { fleet, nanoseconds: AtomicU64::new(0) };
    let mut federation = Federation::new(setup, clients).map_err(text)?;
    println!("{}", json!({ "ready": format!("Fedveil, {threads} threads") }));
    let mut done = 0;
    while done < spec.rounds {
        let mut line = String::new();
        if io::stdin().read_line(&mut line).map_err(text)? == 0 {
            return Err("whoever asked is gone".to_owned());
        }
        let request: Value = serde_json::from_str(&line).map_err(text)?;
        let rounds = number(&request, "rounds")? as u32;
        let meter = Meter::start();
        federation.scenario().nanoseconds.store(0, Ordering::Relaxed);
        for _ in 0..rounds {
            let round = federation.run_round().ok_or("the task is over")?;
            if let RoundOutcome::Aborted { reason } = round.outcome {
                return Err(format!("round {}: {reason}", round.round));
            }
            done += 1;
        }
        let Cost { wall, cpu } = meter.per_round(1);
        let training = federation.scenario().nanoseconds.load(Ordering::Relaxed) as f64 / 1e6;
        println!("{}", json!({ "wall_ms": wall, "cpu_ms": cpu, "training_ms": training }));
    }
    let model = federation.model().ok_or("there is no model")?;
    let measured = measure.of(&federation.scenario().fleet, &model, |_| None).map_err(text)?;
    let [_, peak] = meter::resident();
    let cpu = meter::cpu_time().as_secs_f64();
    println!("{}", json!({ "accuracy": measured.accuracy, "peak_mib": peak, "cpu_s": cpu }));
    Ok(())
}

/// A fleet, and the CPU time that its clients' training takes, data and model made ready included.
struct Timed {
    fleet: Fleet,
    nanoseconds: AtomicU64,
}

impl Scenario for Timed {
    fn contribute(&self, work: &Work<'_>) -> Result<Trained, String> {
        let before = meter::thread_time();
        let trained = self.fleet.contribute(work);
        let spent = meter::thread_time().saturating_sub(before);
        self.nanoseconds.fetch_add(spent.as_nanos() as u64, Ordering::Relaxed);
        trained
    }

    fn training_time(&self, client: usize, round: u32) -> u64 {
        self.fleet.training_time(client, round)
    }

    fn available(&self, client: usize, now: Millis) -> bool {
        self.fleet.available(client, now)
    }

    fn sessions_over(&mut self) {
        self.fleet.sessions_over();
    }

    fn next_crash(&self, after: Millis) -> Option<Millis> {
        self.fleet.next_crash(after)
    }

    fn vanishes(&mut self, client: usize, round: u32, before: Kind) -> bool {
        self.fleet.vanishes(client, round, before)
    }

    fn route(&mut self, now: Millis, message: Message) -> Vec<(Millis, Message)> {
        self.fleet.route(now, message)
    }
}

/// The folder of data.
struct Folder(PathBuf);

impl Folder {
    fn of(options: &Options) -> Self {
        Self(options.data.as_deref().unwrap_or_default().into())
    }
}

impl Files for Folder {
    fn open(&self, path: &str) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(BufReader::new(File::open(self.0.join(path))?)))
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let names = fs::read_dir(self.0.join(folder))?;
        names.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }
}

fn median_cost(costs: &[Cost]) -> Cost {
    Cost { wall: median(costs.iter().map(|cost| cost.wall)), cpu: median(costs.iter().map(|cost| cost.cpu)) }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn number(answer: &Value, name: &str) -> Result<f64, String> {
    answer[name].as_f64().ok_or_else(|| format!("no {name} in {answer}"))
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn text(error: impl ToString) -> String {
    error.to_string()
}
