//! What a message of the training stream is.

use thiserror::Error;

/// The kind of one message; its number is the `kind` of every [`Frame`](crate::v1::Frame) that carries it.
///
/// Each kind has one direction, told by [`Kind::is_from_client`]. A number is never given a second meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Kind {
    /// Opens the session: protocol version and identity certificate.
    Hello = 1,
    /// Accepts the plan, and says how much of the log the client has verified.
    Join = 2,
    /// Ephemeral keys and a nonce commitment, signed by the identity key.
    Advertise = 3,
    /// The nonce committed to by `Advertise`.
    Reveal = 4,
    /// Sealed Shamir shares for the neighbours in the group.
    Shares = 5,
    /// The masked client update.
    Input = 6,
    /// Signature on the survivor set.
    Consistency = 7,
    /// One kind of share for every peer of the survivor set.
    Unmask = 8,
    /// The client will not do what it was asked, and why.
    Decline = 9,
    /// The client update in the clear, in plans whose mode is `insecure_plain`.
    PlainInput = 10,

    /// The signed plan of the task.
    Plan = 34,
    /// A round begins.
    RoundOpen = 35,
    /// The advertised keys of the cohort.
    Roster = 36,
    /// The cohort's nonces, from which everyone computes groups and graphs.
    Reveals = 37,
    /// The sealed shares that neighbours sent to this client.
    Delivery = 38,
    /// The clients of the group whose input arrived.
    Survivors = 39,
    /// The cohort's signatures on the survivor set.
    Signatures = 40,
    /// Manifest and log proofs of a new global model.
    Publication = 41,
    /// The file of a global model.
    Model = 42,
    /// The round ended, and how.
    RoundClosed = 43,
    /// The task ended, and how.
    TaskClosed = 44,
    /// The client's last message was refused, and why.
    Reject = 45,
    /// A new model of this round is to be judged: a signed statement about it.
    EvaluationOpen = 46,
    /// The file of that model.
    Candidate = 47,
}

impl Kind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 24] = [
        Self::Hello,
        Self::Join,
        Self::Advertise,
        Self::Reveal,
        Self::Shares,
        Self::Input,
        Self::Consistency,
        Self::Unmask,
        Self::Decline,
        Self::PlainInput,
        Self::Plan,
        Self::RoundOpen,
        Self::Roster,
        Self::Reveals,
        Self::Delivery,
        Self::Survivors,
        Self::Signatures,
        Self::Publication,
        Self::Model,
        Self::RoundClosed,
        Self::TaskClosed,
        Self::Reject,
        Self::EvaluationOpen,
        Self::Candidate,
    ];

    /// Whether clients send this kind; the coordinator sends the others.
    pub fn is_from_client(self) -> bool {
        self < Self::Plan
    }
}

impl From<Kind> for u32 {
    fn from(kind: Kind) -> Self {
        kind as Self
    }
}

impl TryFrom<u32> for Kind {
    type Error = UnknownKind;

    fn try_from(number: u32) -> Result<Self, UnknownKind> {
        Self::ALL.into_iter().find(|&kind| u32::from(kind) == number).ok_or(UnknownKind(number))
    }
}

/// No kind has this number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("message kind {0} is unknown; accepted are 1 to 10 from a client and 34 to 47 from a coordinator")]
pub struct UnknownKind(pub u32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_stable_and_complete() {
        let numbers: Vec<u32> = Kind::ALL.into_iter().map(u32::from).collect();
        assert_eq!(numbers, (1..=10).chain(34..=47).collect::<Vec<_>>());
        for number in 0..=300 {
            match Kind::try_from(number) {
                Ok(kind) => assert_eq!(u32::from(kind), number),
                Err(error) => {
                    assert_eq!(error, UnknownKind(number));
                    assert!(!numbers.contains(&number));
                }
            }
        }
    }

    #[test]
    fn direction() {
        let (up, down): (Vec<Kind>, Vec<Kind>) =
            Kind::ALL.into_iter().partition(|kind| kind.is_from_client());
        assert_eq!((up.len(), down.len()), (10, 14));
        assert_eq!(down[0], Kind::Plan);
    }
}
