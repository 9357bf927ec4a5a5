//! `fedveil data`: sets that are known by name, their download, and who would hold what of a set.

mod fetch;
mod folder;
mod inline;
mod unpack;

use crate::exit::{Exit, Failure};
use clap::{Args, Subcommand};
use fedveil_simulations::datasets::{Data, DataSpec, catalog};
use fedveil_simulations::partition::{Holdings, Partitioner, Quantiles, Split};
use fedveil_simulations::report;
use indicatif::HumanBytes;
use serde_json::json;
use std::fmt::Write as _;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

pub(crate) use folder::DataFolder;

/// What to do with data.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Print every set that has a name, with its source, its licence and where its files are looked for.
    List,
    /// Download a set, check it, and put it where simulations look for it.
    ///
    /// Its licence and source are printed first. Every file is checked against a SHA-256 that is inside this program. A
    /// download that was cut off goes on where it stopped when the command is run again. The system's certificates are
    /// trusted; HTTPS_PROXY is used.
    Fetch(FetchArgs),
    /// Print how a set falls to clients, without training anything.
    #[command(after_help = SHOW_HELP)]
    Show(ShowArgs),
}

const SHOW_HELP: &str = "\
Examples:
  fedveil data show digits --clients 50 --partition dirichlet,alpha=0.3
  fedveil data show fashion-mnist --data DIR --clients 100 --partition shards,per_client=2 --html split.html
  fedveil data show csv,path=bank.csv,label=y,client=branch --data DIR --partition natural
  fedveil data show shakespeare --data DIR --partition natural,min_size=2

Data: digits, mnist, fashion-mnist, emnist (split=byclass, bymerge, balanced, letters, digits or mnist), cifar-10,
shakespeare (sequence), idx (folder, classes, mean, deviation), csv (path, test, header, label, client, standardise),
leaf (folder), text (path, sequence, speakers).
Partitions: iid, dirichlet (alpha, min_size), even-dirichlet (alpha), size-dirichlet (alpha, min_size), power-law
(exponent, min_size), shards (per_client), pathological (classes), similarity (gamma), label-sort, natural (min_size),
draw (rows, alpha).";

/// Where data is.
#[derive(Args, Clone)]
pub(crate) struct DataOption {
    /// Folder of data, with a folder for every set. [default: what FEDVEIL_DATA says]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// Options of `fedveil data fetch`.
#[derive(Args)]
pub(crate) struct FetchArgs {
    /// Its name in `fedveil data list`.
    name: String,
    #[command(flatten)]
    folder: DataOption,
}

/// Options of `fedveil data show`.
#[derive(Args)]
pub(crate) struct ShowArgs {
    /// Which data: a name, and settings after commas.
    spec: String,
    #[command(flatten)]
    folder: DataOption,
    /// How rows fall to clients: a name, and settings after commas.
    #[arg(long, default_value = "iid", value_name = "KIND[,KEY=VALUE]")]
    partition: String,
    /// Clients. [default: 10, or with `natural` all there are]
    #[arg(long, value_name = "N")]
    clients: Option<usize>,
    /// Fixes what is drawn.
    #[arg(long, default_value_t = 1, value_name = "SEED")]
    seed: u64,
    /// Print the split as one JSON object.
    #[arg(long)]
    json: bool,
    /// Write a line for every client to this file.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write a page with the heat map to this file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write the heat map to this file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

impl DataOption {
    /// The folder that the option or the environment names.
    pub(crate) fn folder(&self) -> Result<DataFolder, Failure> {
        let named = self.data.clone().or_else(|| std::env::var_os("FEDVEIL_DATA").map(PathBuf::from));
        named.map(DataFolder::new).ok_or_else(|| {
            Failure::new(
                Exit::Usage,
                "no folder of data: accepted is --data DIR, or the environment variable FEDVEIL_DATA",
            )
        })
    }

    /// Reads a set. One that is inside the program needs no folder.
    pub(crate) fn load(&self, spec: &DataSpec, seed: u64) -> Result<Data, Failure> {
        let folder = if spec.needs_files() { self.folder()? } else { DataFolder::new(PathBuf::new()) };
        spec.load(&folder, seed).map_err(|error| folder.explain(&error))
    }
}

/// Runs the command and writes to `out` what it prints.
pub(crate) fn run(command: &Command, out: &mut impl Write) -> Result<(), Failure> {
    let text = match command {
        Command::List => list(),
        Command::Fetch(args) => return fetch(args, out),
        Command::Show(args) => show(args)?,
    };
    print(out, &text)
}

fn print(out: &mut impl Write, text: &str) -> Result<(), Failure> {
    out.write_all(text.as_bytes())
        .map_err(|error| Failure::new(Exit::General, format!("cannot print the result: {error}")))
}

fn list() -> String {
    let mut text = String::new();
    for known in catalog::KNOWN {
        let bytes: u64 = known.downloads.iter().map(|download| download.bytes).sum();
        let place = if known.folder.is_empty() {
            "inside the program".to_owned()
        } else {
            format!("DIR/{}/, {} to fetch", known.folder, HumanBytes(bytes))
        };
        writeln!(
            text,
            "{}\n  {}\n  source: {}\n  licence: {}\n  {place}\n",
            known.name, known.summary, known.source, known.licence
        )
        .expect("a string takes everything");
    }
    text.push_str(
        "emnist\n  814,255 digits and letters of 28 x 28 pixels, in six splits\n  source: Cohen, Afshar, Tapson and \
         van Schaik (arXiv:1702.05373), NIST\n  licence: none is stated with the files\n  DIR/emnist/emnist-byclass-train-images-idx3-ubyte.gz \
         and so on: not fetched; unpack gzip.zip of\n  https://www.nist.gov/itl/products-and-services/emnist-dataset there\n\n\
         Other data: idx, csv, leaf and text; see `fedveil data show --help`.\n",
    );
    text
}

fn fetch(args: &FetchArgs, out: &mut impl Write) -> Result<(), Failure> {
    let known = catalog::known(&args.name).ok_or_else(|| {
        let names: Vec<&str> = catalog::KNOWN.iter().map(|known| known.name).collect();
        Failure::new(
            Exit::Usage,
            format!("no set is called {:?}, accepted is {}", args.name, names.join(", ")),
        )
    })?;
    print(
        out,
        &format!("{}: {}\nsource: {}\nlicence: {}\n", known.name, known.summary, known.source, known.licence),
    )?;
    if known.downloads.is_empty() {
        return print(out, "it is inside the program: there is nothing to fetch\n");
    }
    let folder = args.folder.folder()?.path(known.folder);
    let agent = fetch::agent()?;
    for download in known.downloads {
        let file = fetch::fetch(&agent, download, &folder)?;
        print(out, &format!("{} is complete, and its SHA-256 is right\n", file.display()))?;
    }
    Ok(())
}

fn show(args: &ShowArgs) -> Result<String, Failure> {
    let usage = |what: &str, error: String| Failure::new(Exit::Usage, format!("{what}: {error}"));
    let spec: DataSpec = inline::parse(&args.spec).map_err(|error| usage("data", error))?;
    let partitioner: Partitioner =
        inline::parse(&args.partition).map_err(|error| usage("--partition", error))?;
    let data = args.folder.load(&spec, args.seed)?;
    let clients = args.clients.unwrap_or_else(|| match &partitioner {
        Partitioner::Natural { min_size } => natural_clients(&data, *min_size),
        _ => 10,
    });
    let split = Split::new(&data.train, &partitioner, clients, args.seed)
        .map_err(|error| usage("--partition", error.to_string()))?;
    let holdings = Holdings::of(&split, &data.train, &data.class_names);
    if let Some(path) = &args.csv {
        let write = || {
            let mut file = BufWriter::new(std::fs::File::create(path)?);
            Holdings::csv(&split, &data.train, &data.class_names, &mut file)?;
            file.flush()
        };
        write().map_err(|error| unwritable(path, &error))?;
    }
    if let Some(path) = &args.html {
        let page =
            report::split_html(&data.name, &format!("{}, seed {}", args.partition, args.seed), &holdings);
        std::fs::write(path, page).map_err(|error| unwritable(path, &error))?;
    }
    if let Some(path) = &args.svg {
        std::fs::write(path, report::split_svg(&holdings)).map_err(|error| unwritable(path, &error))?;
    }
    if args.json {
        let object = json!({
            "data": data.name,
            "training_rows": data.train.rows(),
            "test_rows": data.test.rows(),
            "inputs": data.train.inputs(),
            "partition": partitioner,
            "seed": args.seed,
            "split": holdings,
        });
        return Ok(format!("{object}\n"));
    }
    Ok(table(&data, &holdings))
}

/// Natural clients with enough rows.
fn natural_clients(data: &Data, min_size: usize) -> usize {
    let mut rows = vec![0_usize; data.clients.len()];
    for &owner in data.train.owners() {
        rows[owner as usize] += 1;
    }
    rows.into_iter().filter(|rows| *rows >= min_size.max(1)).count().max(1)
}

/// Clients that are printed.
const PRINTED: usize = 20;

/// Classes that are printed.
const PRINTED_CLASSES: usize = 16;

fn table(data: &Data, holdings: &Holdings) -> String {
    let kind = if data.train.is_text() { "tokens" } else { "inputs" };
    let mut text = format!(
        "{}: {} rows to train, {} to test, {} {kind} a row, {} {}\n",
        data.name,
        data.train.rows(),
        data.test.rows(),
        data.train.inputs(),
        data.train.classes(),
        if data.train.is_text() { "characters" } else { "classes" },
    );
    let quantiles = |found: &Quantiles| {
        format!(
            "{} to {}, median {}, nine in ten at most {}, mean {:.1}",
            found.least, found.most, found.median, found.nine_tenths, found.mean
        )
    };
    let mut line = |words: String| {
        text.push_str(&words);
        text.push('\n');
    };
    line(format!("clients: {}", holdings.clients));
    if holdings.repeats {
        line("rows are drawn by each client for itself: several may hold the same one".to_owned());
    }
    line(format!("rows of a client: {}", quantiles(&holdings.sizes)));
    if let Some(held) = &holdings.classes_held {
        line(format!("classes of a client: {}", quantiles(held)));
    }
    let classes = holdings.classes.len().min(PRINTED_CLASSES);
    let name = |class: usize| holdings.classes[class].chars().take(8).collect::<String>();
    let names: Vec<String> = (0..classes).map(|class| format!(" {:>8}", name(class))).collect();
    let more = if holdings.classes.len() > classes { " …" } else { "" };
    line(format!("\n{:>8} {:>8}{}{more}", "client", "rows", names.concat()));
    for client in holdings.shown.iter().take(PRINTED) {
        let counts: Vec<String> =
            client.of_class.iter().take(classes).map(|rows| format!(" {rows:>8}")).collect();
        line(format!("{:>8} {:>8}{}{more}", client.client, client.rows, counts.concat()));
    }
    if holdings.clients > PRINTED as u64 {
        line(format!("and {} more", holdings.clients - PRINTED as u64));
    }
    text
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Output, format!("{}: {error}", path.display()))
}
