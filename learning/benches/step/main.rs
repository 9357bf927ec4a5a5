//! What one step of local training costs, and where it goes: an MLP 784-200-10 on batches of 32, on one thread.
//!
//! ```text
//! cargo bench -p fedveil-learning --bench step -- [--quick] [--json FILE] [--data FOLDER] [--pytorch PYTHON]
//! ```
//!
//! Times are CPU times of the thread, the median of many, against the matrix products of the same shapes alone. Then 20
//! rounds of federated averaging, 10 of 100 clients each with 600 examples, one epoch, step size 0.05: with `--pytorch`
//! (an interpreter that has torch and numpy) turn by turn with a plain PyTorch loop of one thread, from the same initial
//! weights, on the same clients; its matrix products are timed too. `--data` is a folder with the four files of
//! Fashion-MNIST, `*-ubyte.gz`; without it examples are waves, and there is no accuracy. `--quick` takes few repetitions
//! and rounds, to see that all of it runs.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark reports on its standard streams")]

#[path = "../../../aggregation/benches/secagg/clock.rs"]
#[expect(dead_code, reason = "memory is of no interest here")]
mod clock;
mod examples;
mod peer;

use std::hint::black_box;
use std::path::PathBuf;
use std::time::Duration;
use std::{env, fs};

use burn::tensor::loss::cross_entropy_with_logits;
use burn::tensor::{Device, Tensor, TensorData, activation};
use chacha20::ChaCha20Rng;
use fedveil_learning::{Dataset, LocalTraining, ModelSpec, evaluate, permutation, train};
use rand_core::SeedableRng;
use serde_json::json;

use clock::{median, timed};
use examples::Examples;
use peer::Peer;

/// As in the command: what matters most to a step that allocates 2 MB and frees them again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const MODEL: &str = "mlp:784x200x10";
const INPUTS: usize = 784;
const HIDDEN: usize = 200;
const CLASSES: usize = 10;
const BATCH: usize = 32;
const TRAINING: LocalTraining = LocalTraining::sgd(1, BATCH as u32, 0.05);
const CLIENTS: usize = 100;
const COHORT: usize = 10;

#[derive(Default)]
struct Options {
    quick: bool,
    json: Option<PathBuf>,
    data: Option<PathBuf>,
    pytorch: Option<String>,
}

impl Options {
    fn parse() -> Result<Self, String> {
        let mut options = Self::default();
        let mut arguments = env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} takes a value"));
            match argument.as_str() {
                "--quick" => options.quick = true,
                "--json" => options.json = Some(value()?.into()),
                "--data" => options.data = Some(value()?.into()),
                "--pytorch" => options.pytorch = Some(value()?),
                // What cargo itself passes on.
                "--bench" => {}
                other => return Err(format!("unknown argument {other}")),
            }
        }
        Ok(options)
    }
}

fn main() -> Result<(), String> {
    let options = Options::parse()?;
    let repetitions = if options.quick { 20 } else { 2_000 };
    let parts = parts(repetitions);
    let floor = parts[0].1;
    println!("| part of a step | µs | × the matrix products |\n|---|---|---|");
    for (name, time) in &parts {
        println!("| {name} | {:.0} | {:.2} |", micros(*time), micros(*time) / micros(floor));
    }

    let examples = match &options.data {
        Some(folder) => Examples::fashion_mnist(folder)?,
        None => Examples::waves(),
    };
    let rounds = if options.quick { 2 } else { 20 };
    let (ours, theirs) = rounds_of_averaging(&examples, rounds, repetitions, options.pytorch.as_deref())?;
    println!(
        "\n| {COHORT} clients × 600 examples | CPU s per round | accuracy after {rounds} rounds |\n|---|---|---|"
    );
    for (name, run) in [("fedveil-learning", Some(&ours)), ("plain PyTorch loop", theirs.as_ref())] {
        let Some(Run { times, accuracy, .. }) = run else { continue };
        let [least, most] = [times[0], times[times.len() - 1]].map(|time| time.as_secs_f64());
        let middle = times[times.len() / 2].as_secs_f64();
        let accuracy = accuracy.map_or("-".to_owned(), |accuracy| format!("{accuracy:.3}"));
        println!("| {name} | {middle:.3} ({least:.3} to {most:.3}) | {accuracy} |");
    }
    let products = theirs.as_ref().and_then(|theirs| theirs.products);
    if let Some(products) = products {
        let (floor, found) = (micros(floor), micros(products));
        println!("\nThe five matrix products in PyTorch: {found:.0} µs, {:.2} × those above.", found / floor);
    }
    if let Some(path) = options.json {
        let run = |run: &Run| {
            let products = run.products.map(micros);
            json!({ "cpu_seconds": seconds(&run.times), "accuracy": run.accuracy, "products_microseconds": products })
        };
        let parts: Vec<_> =
            parts.iter().map(|(name, time)| json!({ "part": name, "microseconds": micros(*time) })).collect();
        let report = json!({ "parts": parts, "fedveil": run(&ours), "pytorch": theirs.as_ref().map(run) });
        fs::write(&path, format!("{report:#}\n")).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

/// Parts of a step and their median times, the matrix products first.
fn parts(repetitions: usize) -> Vec<(&'static str, Duration)> {
    let device = Device::flex();
    let tensor = |rows: usize, columns: usize| -> Tensor<2> {
        let values = (0..rows * columns).map(|at| 0.05 * (at as f32 * 0.7).sin()).collect();
        Tensor::from_data(TensorData::new::<f32, _>(values, [rows, columns]), &device)
    };
    let (features, hidden, scores) = (tensor(BATCH, INPUTS), tensor(BATCH, HIDDEN), tensor(BATCH, CLASSES));
    let (first, second) = (tensor(INPUTS, HIDDEN), tensor(HIDDEN, CLASSES));
    let biases = [tensor(1, HIDDEN), tensor(1, CLASSES)];
    let mut values: Vec<f32> = (0..INPUTS * HIDDEN).map(|at| at as f32).collect();
    let gradient = values.clone();

    let spec: ModelSpec = MODEL.parse().expect("a built-in model");
    let start = spec.initial(1);
    let data = waves(BATCH * 20, 1);
    let whole = |epochs| {
        let training = LocalTraining { epochs, ..TRAINING };
        black_box(train(&spec, &start, &data, &training, 1).expect("waves can be learned"));
    };
    let few = (repetitions / 40).max(3);
    let (one, two) = (repeat(few, || whole(1)), repeat(few, || whole(2)));

    vec![
        (
            "the five matrix products, no gradients",
            repeat(repetitions, || {
                black_box(features.clone().matmul(first.clone()));
                black_box(hidden.clone().matmul(second.clone()));
                black_box(hidden.clone().transpose().matmul(scores.clone()));
                black_box(scores.clone().matmul(second.clone().transpose()));
                black_box(features.clone().transpose().matmul(hidden.clone()));
            }),
        ),
        (
            "forward, loss and backward in burn",
            repeat(repetitions, || {
                let leaf = |tensor: &Tensor<2>| tensor.clone().autodiff().require_grad();
                let leaves = [leaf(&first), leaf(&biases[0]), leaf(&second), leaf(&biases[1])];
                let [w1, b1, w2, b2] = leaves.clone();
                let inner = activation::relu(features.clone().matmul(w1) + b1);
                let loss = cross_entropy_with_logits(inner.matmul(w2) + b2, scores.clone());
                let mut gradients = loss.backward();
                for leaf in leaves {
                    black_box(leaf.grad_remove(&mut gradients));
                }
            }),
        ),
        (
            "the update of the large matrix",
            repeat(repetitions, || {
                for (value, slope) in values.iter_mut().zip(&gradient) {
                    *value -= 1e-9 * *slope;
                }
                black_box(&mut values);
            }),
        ),
        ("a whole step, without what a call costs", (two.saturating_sub(one)) / 20),
        ("a whole step, with it, in a call of 20", one / 20),
    ]
}

/// The median CPU time of `work`, after a few that do not count.
fn repeat(repetitions: usize, mut work: impl FnMut()) -> Duration {
    (0..repetitions / 10).for_each(|_| work());
    let mut times: Vec<Duration> = (0..repetitions).map(|_| timed(&mut work).0).collect();
    median(&mut times)
}

/// CPU times of rounds, in order of size, and the accuracy at the end where there is one.
struct Run {
    times: Vec<Duration>,
    accuracy: Option<f64>,
    /// What a step's five matrix products take in a peer.
    products: Option<Duration>,
}

/// Federated averaging, here and in the peer by turns.
fn rounds_of_averaging(
    examples: &Examples,
    rounds: usize,
    repetitions: usize,
    python: Option<&str>,
) -> Result<(Run, Option<Run>), String> {
    let spec: ModelSpec = MODEL.parse().map_err(text)?;
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let rows = permutation(examples.train.len(), &mut rng);
    let clients: Vec<&[usize]> = rows.chunks(examples.train.len() / CLIENTS).take(CLIENTS).collect();
    let mut model = spec.initial(1);
    let mut peer = python.map(|python| Peer::start(python, examples, &clients, &model)).transpose()?;
    let products = peer.as_mut().map(|peer| peer.products(repetitions)).transpose()?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let cohort = permutation(CLIENTS, &mut rng)[..COHORT].to_vec();
        let data: Vec<Dataset> = cohort
            .iter()
            .map(|&client| examples.train.subset(clients[client]).map_err(text))
            .collect::<Result<_, _>>()?;
        let (time, next) = timed(|| average(&spec, &model, &data, round as u64));
        model = next?;
        ours.push(time);
        if let Some(peer) = &mut peer {
            theirs.push(peer.round(&cohort)?);
        }
    }
    let accuracy = match &examples.test {
        Some(test) => Some(evaluate(&spec, &model, test).map_err(text)?.accuracy),
        None => None,
    };
    ours.sort_unstable();
    theirs.sort_unstable();
    let peer = match peer {
        Some(peer) => Some(Run { times: theirs, accuracy: peer.accuracy()?, products }),
        None => None,
    };
    Ok((Run { times: ours, accuracy, products: None }, peer))
}

/// One round: the mean of what the clients make of `model`.
fn average(spec: &ModelSpec, model: &[f32], cohort: &[Dataset], round: u64) -> Result<Vec<f32>, String> {
    let mut sum = vec![0.0_f32; model.len()];
    for (index, data) in cohort.iter().enumerate() {
        let trained = train(spec, model, data, &TRAINING, 1_000 * round + index as u64).map_err(text)?;
        for (sum, value) in sum.iter_mut().zip(&trained.parameters) {
            *sum += value / cohort.len() as f32;
        }
    }
    Ok(sum)
}

/// Examples that cost as much as any.
fn waves(rows: usize, seed: usize) -> Dataset {
    let features = (0..rows * INPUTS).map(|at| ((at + seed) as f32 * 1.3).sin()).collect();
    let labels = (0..rows).map(|row| (row * 7 % CLASSES) as u32).collect();
    Dataset::new(features, labels, INPUTS, CLASSES).expect("a table of finite numbers")
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn seconds(times: &[Duration]) -> Vec<f64> {
    times.iter().map(Duration::as_secs_f64).collect()
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn text(error: impl ToString) -> String {
    error.to_string()
}
