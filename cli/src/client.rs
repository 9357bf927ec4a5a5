//! `fedveil client`: one device in a federation.

use crate::config::{self, ClientConfig, Config};
use crate::device::{Honest, Share};
use crate::exit::{Exit, Failure};
use fedveil_client::agent::{self, AgentError, AgentOptions};
use fedveil_client::enroll::{EnrollError, enroll};
use fedveil_client::keystore::{CredentialError, Keystore, KeystoreError};
use fedveil_client::record::RecordFile;
use fedveil_client::tls::ConnectError;
use fedveil_client_core::Refusal;
use fedveil_proto::{ErrorCode, JoinToken};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::Semaphore;

/// How long a client goes on trying to reach its coordinator.
const PATIENCE: Duration = Duration::from_mins(10);

/// Options of a client.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Coordinator to join, https://HOST:PORT; overrides the configuration.
    #[arg(long, value_name = "URL", requires = "token_file")]
    join: Option<String>,
    /// File with the join token; overrides the configuration.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Name of this client; overrides the configuration.
    #[arg(long)]
    name: Option<String>,
    /// Folder for this client's keys; overrides the configuration.
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
    /// Share of the digits to train on, INDEX/CLIENTS, the first index being 0; overrides the configuration.
    #[arg(long, value_name = "SHARE")]
    data: Option<String>,
    /// Print every key with its default and its meaning, and end.
    #[arg(long)]
    print_config: bool,
}

/// Runs a client until its task is over.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    if args.print_config {
        print!("{}", config::print_config::<ClientConfig>());
        return Ok(());
    }
    let config = args.config()?;
    let share = Share {
        clients: config.data.clients,
        index: config.data.index,
        alpha: config.data.alpha,
        seed: config.data.seed,
    };
    let data = share.load().map_err(|error| Failure::new(Exit::Usage, error))?;
    let keystore = Keystore::open(&config.keys).map_err(|error| keystore_failure(&error))?;
    let enrolled = match keystore.load(unix_seconds()).map_err(|error| keystore_failure(&error))? {
        Some(enrolled) => enrolled,
        None => enroll(&config.url, &read_token(&config.token_file)?, &config.name, &keystore)
            .await
            .map_err(|error| enroll_failure(&error))?,
    };
    let options = AgentOptions {
        url: config.url.clone(),
        policy: config.policy.clone(),
        record: RecordFile::File(config.state.clone()),
        workers: Arc::new(Semaphore::new(1)),
        patience: PATIENCE,
    };
    let finished = agent::run(&enrolled, Box::new(Honest::new(data, config.data.seed)), options)
        .await
        .map_err(|error| agent_failure(&error))?;
    let round = finished.model.map_or(0, |(round, _)| round);
    println!(
        "{}; last verified model is of round {round}, epsilon charged {:.2}",
        finished.reason, finished.epsilon
    );
    Ok(())
}

impl Args {
    fn config(&self) -> Result<ClientConfig, Failure> {
        let usage = |message: String| Failure::new(Exit::Usage, message);
        let mut config = match &self.config {
            Some(path) => config::load(path).map_err(|error| usage(error.to_string()))?,
            None if self.join.is_some() => ClientConfig::default(),
            None => return Err(usage("give --config FILE, or --join URL with --token-file FILE".to_owned())),
        };
        if let Some(url) = &self.join {
            config.url.clone_from(url);
        }
        if let Some(path) = &self.token_file {
            config.token_file.clone_from(path);
        }
        if let Some(name) = &self.name {
            config.name.clone_from(name);
        }
        if let Some(keys) = &self.keys {
            config.keys.clone_from(keys);
            config.state = keys.join("record.json");
        }
        if let Some(share) = &self.data {
            let parsed = share.split_once('/').and_then(|(index, clients)| {
                Some((index.parse().ok()?, clients.parse().ok().filter(|&clients| clients > 0)?))
            });
            (config.data.index, config.data.clients) = parsed.ok_or_else(|| {
                usage(format!("--data is {share}, accepted is INDEX/CLIENTS, such as 0/10"))
            })?;
        }
        config.check().map_err(|error| usage(error.to_string()))?;
        Ok(config)
    }
}

/// An error and its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        cause = error.source();
    }
    text
}

fn read_token(path: &Path) -> Result<JoinToken, Failure> {
    let failure =
        |detail: String| Failure::new(Exit::Token, format!("join token {}: {detail}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| failure(error.to_string()))?;
    text.trim().parse().map_err(|error: fedveil_proto::TokenParseError| failure(error.to_string()))
}

fn enroll_failure(error: &EnrollError) -> Failure {
    let exit = match error {
        EnrollError::InvalidToken(_) | EnrollError::TokenAlreadyUsed(_) => Exit::Token,
        EnrollError::ProtocolVersion(_) => Exit::Protocol,
        EnrollError::Refused { code, .. } => code_exit(*code),
        EnrollError::Pin { .. } | EnrollError::Credentials(_) => Exit::Certificate,
        EnrollError::Name(_) => Exit::Usage,
        EnrollError::Connect(error) => connect_exit(error),
        EnrollError::Keystore(_) => Exit::Output,
        _ => Exit::General,
    };
    Failure::new(exit, chain(error))
}

fn agent_failure(error: &AgentError) -> Failure {
    let exit = match error {
        AgentError::Rejected(code, _) => code_exit(*code),
        AgentError::Connect(error) => connect_exit(error),
        AgentError::Credential(_) => Exit::Certificate,
        AgentError::Refused(Refusal::Policy(_) | Refusal::Total(_)) => Exit::Policy,
        AgentError::Record(_) => Exit::Output,
        _ => Exit::General,
    };
    Failure::new(exit, chain(error))
}

fn keystore_failure(error: &KeystoreError) -> Failure {
    let exit = match error {
        KeystoreError::Credentials {
            source: CredentialError::Expired { .. } | CredentialError::Identity(_),
            ..
        } => Exit::Certificate,
        _ => Exit::Output,
    };
    Failure::new(exit, chain(error))
}

fn code_exit(code: ErrorCode) -> Exit {
    match code {
        ErrorCode::InvalidToken | ErrorCode::TokenAlreadyUsed => Exit::Token,
        ErrorCode::CertificateExpired | ErrorCode::NotEnrolled => Exit::Certificate,
        ErrorCode::ProtocolVersion => Exit::Protocol,
        _ => Exit::General,
    }
}

fn connect_exit(error: &ConnectError) -> Exit {
    match error {
        ConnectError::WrongAuthority(_) | ConnectError::Certificate { .. } => Exit::Certificate,
        ConnectError::Url { .. } => Exit::Usage,
        _ => Exit::General,
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expired() -> CredentialError {
        CredentialError::Expired { not_after: 1_000, now: 2_000 }
    }

    #[test]
    fn refusals_of_enrolment_have_their_exit_codes() {
        let refused = |code| EnrollError::Refused { code, message: "the reason".to_owned() };
        for (error, exit) in [
            (EnrollError::InvalidToken("the reason".to_owned()), Exit::Token),
            (EnrollError::TokenAlreadyUsed("the reason".to_owned()), Exit::Token),
            (EnrollError::ProtocolVersion("the reason".to_owned()), Exit::Protocol),
            (refused(ErrorCode::CertificateExpired), Exit::Certificate),
            (refused(ErrorCode::Internal), Exit::General),
        ] {
            let failure = enroll_failure(&error);
            assert_eq!(failure.exit, exit);
            assert!(failure.message.contains("the reason"), "{failure}");
        }
        assert_eq!(enroll_failure(&EnrollError::Credentials(expired())).exit, Exit::Certificate);
    }

    #[test]
    fn refusals_of_a_session_have_their_exit_codes() {
        for (code, exit) in [
            (ErrorCode::ProtocolVersion, Exit::Protocol),
            (ErrorCode::CertificateExpired, Exit::Certificate),
            (ErrorCode::NotEnrolled, Exit::Certificate),
            (ErrorCode::TaskClosed, Exit::General),
        ] {
            let failure = agent_failure(&AgentError::Rejected(code, "the reason".to_owned()));
            assert_eq!(failure.exit, exit);
            assert!(failure.message.contains("the reason"), "{failure}");
        }
    }

    #[test]
    fn an_expired_certificate_is_named_wherever_it_is_found() {
        let stored = KeystoreError::Credentials { folder: PathBuf::from("keys"), source: expired() };
        for failure in [agent_failure(&AgentError::Credential(expired())), keystore_failure(&stored)] {
            assert_eq!(failure.exit, Exit::Certificate);
            assert!(failure.message.contains("expired"), "{failure}");
        }
    }
}
