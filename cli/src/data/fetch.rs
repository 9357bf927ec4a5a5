//! A file from the network, checked before it has its name.
//!
//! ```text
//! FILE.part ─── bytes, by ranges where it was cut off ──► length and SHA-256 are right? ──► FILE
//!                                                          no: deleted, both digests told
//! ```
//!
//! Invariants: a file under its name has the digest that is inside this program. What is kept after a failure is only
//! ever a beginning, in `FILE.part`. No more is written than the file is long.

use crate::exit::{Exit, Failure};
use fedveil_provenance::Digest;
use fedveil_simulations::datasets::catalog::{Download, Unpack};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use sha2::{Digest as _, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use ureq::Agent;
use ureq::http::StatusCode;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// Connections that may be cut off one after the other without a byte in between.
const ATTEMPTS: u32 = 3;

/// How long a server may be silent.
const PATIENCE: Duration = Duration::from_secs(30);

/// Addresses that a server may send us on to.
const MOST_REDIRECTS: u32 = 5;

/// A client that speaks TLS by rustls and ring, trusts the system's certificates, and takes no other way than https.
pub(super) fn agent() -> Result<Agent, Failure> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let why = found.errors.first().map_or_else(|| "the system has none".to_owned(), ToString::to_string);
        let message = format!(
            "no certificates to check servers by: {why}; accepted is a file that SSL_CERT_FILE names"
        );
        return Err(Failure::new(Exit::Certificate, message));
    }
    let roots = found.certs.iter().map(|root| Certificate::from_der(root.as_ref()).to_owned());
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(roots.collect())))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    Ok(config().https_only(true).tls_config(tls).build().new_agent())
}

fn config() -> ureq::config::ConfigBuilder<ureq::typestate::AgentScope> {
    Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(MOST_REDIRECTS)
        .timeout_connect(Some(PATIENCE))
        .timeout_recv_response(Some(PATIENCE))
        .timeout_per_read(Some(PATIENCE))
        .user_agent(concat!("fedveil/", env!("CARGO_PKG_VERSION")))
}

/// Fetches a file into `folder`, which is made where it is not there, and unpacks it. What is there and right is not
/// fetched again. Gives the path of what is there in the end.
pub(super) fn fetch(agent: &Agent, download: &Download, folder: &Path) -> Result<PathBuf, Failure> {
    fs::create_dir_all(folder).map_err(|error| unwritable(folder, &error))?;
    if let Unpack::TarGz(contents) = download.unpack {
        if super::unpack::is_unpacked(contents, folder) {
            return Ok(folder.to_owned());
        }
        let archive = fetch_file(agent, download, folder)?;
        super::unpack::tar_gz(&archive, contents, folder)?;
        fs::remove_file(&archive).map_err(|error| unwritable(&archive, &error))?;
        return Ok(folder.to_owned());
    }
    fetch_file(agent, download, folder)
}

fn fetch_file(agent: &Agent, download: &Download, folder: &Path) -> Result<PathBuf, Failure> {
    let path = folder.join(download.file);
    if path.exists() {
        let found = digest(&path)?;
        if found != download.sha256 {
            let message = format!(
                "{} has SHA-256 {found}, accepted is {}: move it away to fetch the published file",
                path.display(),
                download.sha256
            );
            return Err(Failure::new(Exit::Output, message));
        }
        return Ok(path);
    }
    let part = folder.join(format!("{}.part", download.file));
    let bar = bar(download);
    let outcome = complete(agent, download, &part, &bar);
    bar.finish_and_clear();
    outcome?;
    let found = digest(&part)?;
    if found != download.sha256 {
        fs::remove_file(&part).map_err(|error| unwritable(&part, &error))?;
        let message = format!(
            "{} has SHA-256 {found}, accepted is {}: what was fetched is deleted",
            download.url, download.sha256
        );
        return Err(Failure::new(Exit::General, message));
    }
    fs::rename(&part, &path).map_err(|error| unwritable(&path, &error))?;
    Ok(path)
}

/// Fetches until `part` is as long as the file. Every connection that brings something pays for another.
fn complete(agent: &Agent, download: &Download, part: &Path, bar: &ProgressBar) -> Result<(), Failure> {
    let mut attempts = ATTEMPTS;
    loop {
        let have = match fs::metadata(part) {
            Ok(metadata) if metadata.len() <= download.bytes => metadata.len(),
            Ok(_) => {
                fs::remove_file(part).map_err(|error| unwritable(part, &error))?;
                0
            }
            Err(_) => 0,
        };
        bar.set_position(have);
        if have == download.bytes {
            return Ok(());
        }
        attempts -= 1;
        match append(agent, download, part, have, bar) {
            Ok(true) => attempts = ATTEMPTS,
            Ok(false) if attempts > 0 => {}
            Ok(false) => {
                let message = format!(
                    "{} ended after {have} of {} bytes; run the command again to go on from there",
                    download.url, download.bytes
                );
                return Err(Failure::new(Exit::General, message));
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// One request for what is missing. Gives whether it brought anything.
fn append(
    agent: &Agent,
    download: &Download,
    part: &Path,
    have: u64,
    bar: &ProgressBar,
) -> Result<bool, Failure> {
    let unreachable = |error: &dyn std::fmt::Display| {
        let message = format!(
            "cannot fetch {}: {error}. Without a network, put the file into {} by other means",
            download.url,
            part.parent().unwrap_or(part).display()
        );
        Failure::new(Exit::General, message)
    };
    let mut request = agent.get(download.url);
    if have > 0 {
        request = request.header("Range", format!("bytes={have}-"));
    }
    let mut response = request.call().map_err(|error| unreachable(&error))?;
    let range = response.headers().get("content-range").and_then(|range| range.to_str().ok());
    let goes_on = range.is_some_and(|range| range.starts_with(&format!("bytes {have}-")));
    let mut file = match response.status() {
        StatusCode::PARTIAL_CONTENT if goes_on => OpenOptions::new().append(true).open(part),
        // A server that knows no ranges sends the whole.
        StatusCode::OK => File::create(part),
        status => return Err(unreachable(&format!("the server answers {status}"))),
    }
    .map_err(|error| unwritable(part, &error))?;

    let start = file.metadata().map_err(|error| unwritable(part, &error))?.len();
    bar.set_position(start);
    // One byte more than is missing tells a file that is too long.
    let mut body = response.body_mut().as_reader().take(download.bytes - start + 1);
    let mut buffer = vec![0; 1 << 16];
    let mut length = start;
    loop {
        let count = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // What came before the connection broke is kept.
            Err(_) => break,
        };
        length += count as u64;
        if length > download.bytes {
            drop(file);
            fs::remove_file(part).map_err(|error| unwritable(part, &error))?;
            let message =
                format!("{} is longer than the {} bytes it should have", download.url, download.bytes);
            return Err(Failure::new(Exit::General, message));
        }
        file.write_all(&buffer[..count]).map_err(|error| unwritable(part, &error))?;
        bar.inc(count as u64);
    }
    file.sync_all().map_err(|error| unwritable(part, &error))?;
    Ok(length > start)
}

fn digest(path: &Path) -> Result<String, Failure> {
    let unreadable = |error: io::Error| Failure::new(Exit::Output, format!("{}: {error}", path.display()));
    let mut hash = Sha256::new();
    let mut file = File::open(path).map_err(unreadable)?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = file.read(&mut buffer).map_err(unreadable)?;
        if count == 0 {
            return Ok(Digest(hash.finalize().into()).to_string());
        }
        hash.update(&buffer[..count]);
    }
}

/// A bar on a terminal; elsewhere one line.
fn bar(download: &Download) -> ProgressBar {
    if !io::stderr().is_terminal() {
        eprintln!("fetching {} ({})", download.url, HumanBytes(download.bytes));
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(download.bytes);
    let style =
        ProgressStyle::with_template("{msg} [{bar:24}] {bytes}/{total_bytes} {bytes_per_sec} {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
    bar.set_message(download.file);
    bar
}

pub(super) fn unwritable(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Exit::Output, format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests;
