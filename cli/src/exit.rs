//! How a command ends: the exit codes, which scripts may rely on, and the failure that carries one of them.

use std::process::ExitCode;

/// Why a command ended without success. The numbers are part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Verification failed, or anything that has no code of its own.
    General = 1,
    /// Wrong arguments, configuration or plan.
    Usage = 2,
    /// The listen address cannot be had.
    Listen = 3,
    /// The join token is wrong, or was used before.
    Token = 4,
    /// A certificate expired, or is not trusted.
    Certificate = 5,
    /// The other side speaks another protocol version.
    Protocol = 6,
    /// The plan is outside of what the client's owner allows.
    Policy = 7,
    /// The output folder cannot be written.
    Output = 8,
    /// More was asked for than a privacy budget pays or a robust rule bears.
    Tolerance = 9,
    /// Interrupted; what was written is complete.
    Interrupted = 130,
}

impl Exit {
    /// Every code, in order.
    pub(crate) const ALL: [Self; 10] = [
        Self::General,
        Self::Usage,
        Self::Listen,
        Self::Token,
        Self::Certificate,
        Self::Protocol,
        Self::Policy,
        Self::Output,
        Self::Tolerance,
        Self::Interrupted,
    ];

    /// The number that the process returns.
    pub(crate) fn code(self) -> u8 {
        self as u8
    }

    /// One line for help texts.
    pub(crate) fn meaning(self) -> &'static str {
        match self {
            Self::General => "verification failed, or another failure",
            Self::Usage => "wrong arguments, configuration or plan",
            Self::Listen => "the listen address is not available",
            Self::Token => "the join token is wrong or was used before",
            Self::Certificate => "a certificate expired or is not trusted",
            Self::Protocol => "the other side speaks another protocol version",
            Self::Policy => "the client's policy refuses the plan",
            Self::Output => "the output folder cannot be written",
            Self::Tolerance => "the privacy budget or the robust rule does not bear what was asked for",
            Self::Interrupted => "interrupted; the run folder is valid",
        }
    }

    /// The table of all codes for `--help`.
    pub(crate) fn help() -> String {
        let lines = Self::ALL.map(|exit| format!("  {:>3}  {}\n", exit.code(), exit.meaning()));
        format!("Exit codes:\n    0  success\n{}", lines.concat())
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

/// A failure as its user sees it: one message, one exit code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    /// The code that the process returns.
    pub(crate) exit: Exit,
    /// What is wrong: a lower-case fragment that names what was found and what is accepted.
    pub(crate) message: String,
}

impl Failure {
    /// A failure with the text of `message`.
    #[expect(clippy::needless_pass_by_value, reason = "errors and literals are given away here")]
    pub(crate) fn new(exit: Exit, message: impl ToString) -> Self {
        Self { exit, message: message.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_stable() {
        assert_eq!(Exit::ALL.map(Exit::code), [1, 2, 3, 4, 5, 6, 7, 8, 9, 130]);
    }

    #[test]
    fn help_lists_every_code() {
        let help = Exit::help();
        for exit in Exit::ALL {
            assert!(help.contains(&format!("{:>5}  {}\n", exit.code(), exit.meaning())), "{help}");
        }
        assert_eq!(help.lines().count(), 2 + Exit::ALL.len());
    }

    #[test]
    fn failure_reads_as_its_message() {
        let failure = Failure::new(Exit::Token, "the join token was used before");
        assert_eq!(
            (failure.exit, failure.to_string().as_str()),
            (Exit::Token, "the join token was used before")
        );
    }
}
