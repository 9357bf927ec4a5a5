//! Why a call was refused, as a small set of codes that both ends know.
//!
//! A code decides the gRPC status and travels in the metadata entry [`METADATA_KEY`], so that a client can act on the
//! reason without reading prose. The message beside it is for people.

use std::fmt;

use tonic::{Code, Status, metadata::MetadataValue};

/// Name of the metadata entry that holds [`ErrorCode::as_str`].
pub const METADATA_KEY: &str = "fedveil-error";

/// The reason for which a call or a stream was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ErrorCode {
    /// The coordinator never issued this join token.
    InvalidToken,
    /// The join token has been spent.
    TokenAlreadyUsed,
    /// The client's certificate is past its end.
    CertificateExpired,
    /// The client speaks another version of the protocol.
    ProtocolVersion,
    /// The request breaks the protocol.
    InvalidRequest,
    /// The request, or the number of requests, exceeds a limit.
    LimitExceeded,
    /// The call needs a client certificate, or the client that it names is unknown.
    NotEnrolled,
    /// The task has ended, or takes no more clients.
    TaskClosed,
    /// The coordinator is stopping, or cannot serve at present: worth another try.
    Unavailable,
    /// The coordinator failed; its log says why.
    Internal,
}

impl ErrorCode {
    /// Every code.
    pub const ALL: [Self; 10] = [
        Self::InvalidToken,
        Self::TokenAlreadyUsed,
        Self::CertificateExpired,
        Self::ProtocolVersion,
        Self::InvalidRequest,
        Self::LimitExceeded,
        Self::NotEnrolled,
        Self::TaskClosed,
        Self::Unavailable,
        Self::Internal,
    ];

    /// The stable name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidToken => "invalid-token",
            Self::TokenAlreadyUsed => "token-already-used",
            Self::CertificateExpired => "certificate-expired",
            Self::ProtocolVersion => "protocol-version",
            Self::InvalidRequest => "invalid-request",
            Self::LimitExceeded => "limit-exceeded",
            Self::NotEnrolled => "not-enrolled",
            Self::TaskClosed => "task-closed",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }

    /// The gRPC code that a peer which knows nothing of Fedveil sees.
    pub fn grpc(self) -> Code {
        match self {
            Self::InvalidToken | Self::CertificateExpired | Self::NotEnrolled => Code::Unauthenticated,
            Self::TokenAlreadyUsed => Code::PermissionDenied,
            Self::ProtocolVersion | Self::TaskClosed => Code::FailedPrecondition,
            Self::InvalidRequest => Code::InvalidArgument,
            Self::LimitExceeded => Code::ResourceExhausted,
            Self::Unavailable => Code::Unavailable,
            Self::Internal => Code::Internal,
        }
    }

    /// The status to answer with. `message` goes to the peer: it holds nothing that the peer should not know.
    pub fn status(self, message: impl Into<String>) -> Status {
        let mut status = Status::new(self.grpc(), message);
        status.metadata_mut().insert(METADATA_KEY, MetadataValue::from_static(self.as_str()));
        status
    }

    /// The code that a received status carries; none if it comes from elsewhere, such as the transport.
    pub fn of(status: &Status) -> Option<Self> {
        let name = status.metadata().get(METADATA_KEY)?.to_str().ok()?;
        Self::ALL.into_iter().find(|code| code.as_str() == name)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_survive_the_status() {
        for code in ErrorCode::ALL {
            let status = code.status("why");
            assert_eq!(ErrorCode::of(&status), Some(code));
            assert_eq!((status.code(), status.message()), (code.grpc(), "why"));
        }
    }

    #[test]
    fn foreign_statuses_have_no_code() {
        let mut status = Status::new(Code::Internal, "internal");
        assert_eq!(ErrorCode::of(&status), None);
        status.metadata_mut().insert(METADATA_KEY, MetadataValue::from_static("made-up"));
        assert_eq!(ErrorCode::of(&status), None);
    }
}
