//! Secure aggregation: the coordinator learns the sum of a group's vectors and nothing else about any of them.
//!
//! The protocol is that of Bonawitz et al. (CCS 2017) in its malicious-server form, in random groups and with a sparse
//! random graph of masks in each (Bell et al., CCS 2020). What goes under the masks is a [`protocol::Protocol`]'s choice:
//! the vector itself, or the key under which it is encrypted. Client i sends, over Z_{2^b},
//!
//! ```text
//!   y_i = m_i + PRG(b_i) + Σ_{j ∈ N(i) ∩ U1, j > i} PRG(k_ij) − Σ_{j ∈ N(i) ∩ U1, j < i} PRG(k_ij)   mod 2^b
//! ```
//!
//! with m_i what the protocol masks, N(i) the neighbours of i, and k_ij agreed between i and j. In the sum over U2 ⊆ U1,
//! who submitted, the pairwise masks cancel but for those with members of U1∖U2; these, and the self masks b_i, come off
//! with secrets recovered from shares, which each member dealt to its neighbours.
//!
//! ```text
//!  client                                                              coordinator
//!  advertise: certificate, keys, commitments, signature  ────────────► Cohort
//!  on_roster:    everyone's advertisements               ◄──────────── Roster
//!     └─ nonce                                           ────────────► check_reveal
//!  on_reveals:   nonces → beacon → groups, rings         ◄──────────── form_groups → GroupServer
//!     └─ sealed Shamir shares of mask key and b_i        ────────────► Sharing
//!  on_delivery:  U1, the neighbours' shares              ◄──────────── close_sharing
//!  submit        body, y_i                               ────────────► Upload → Collecting → Accumulator
//!  on_survivors: U1, U2                                  ◄──────────── close_collecting
//!     └─ signature on exactly these                      ────────────► Consistency
//!  on_signatures: at least t neighbours' signatures      ◄──────────── close_consistency
//!     └─ one share per neighbour in U1                   ────────────► Unmasking → Sum
//! ```
//!
//! Who checks what, the coordinator being anything but trusted:
//!
//! | attack | stopped by |
//! |---|---|
//! | invented, forged or expired clients; swapped keys | authority's and identity's signatures on the entry of every member of the own group |
//! | different plan, round or model for different clients | configuration digest in every signature, commitment and key |
//! | chosen groups or neighbours | commit-reveal beacon; at most w nonces missing |
//! | different rosters or groups for different clients | root and beacon in the group transcript, which keys every box |
//! | boxes swapped, replayed, altered | a key for each sender, recipient and group |
//! | a sum over too few | u_min, checked on U1 and on U2; t neighbours in U1 |
//! | two survivor sets | one signature per client; t neighbours' signatures on one set before any share leaves |
//! | both share kinds for one client | the set decides the kind; the state is consumed by the answer |
//! | a late input, unmasked by what was recovered of a drop-out | self mask b_i, and the coordinator's refusal |
//! | another member's input, copied | one digest per group |
//! | false shares by clients | recovered secrets are compared with what was committed to; wrong shares are corrected, or there is no sum |
//!
//! With c colluders among the k' neighbours of a client all this holds for c < 2t − k'
//! ([`SessionConfig::colluders_to_break`]); [`parameters`] says how likely more are.
//!
//! Everything is sans-IO: bytes, time and randomness come in, bytes go out; what is signed and hashed are the bytes
//! received. Absent on purpose: persistence of client secrets, retries (a transport repeats bytes it kept), blame that
//! is not proved, any check of what a client's vector says.

mod agreement;
mod announced;
pub mod client;
mod codec;
mod config;
mod correction;
mod graph;
mod groups;
mod identity;
mod messages;
pub mod parameters;
mod prg;
pub mod protocol;
mod ring;
pub mod server;
mod shamir;
mod signature;
mod transcript;
mod unmasking;
mod upload;

pub use announced::AnnouncedGroups;
pub use client::Refusal;
pub use codec::{CodecError, VERSION};
pub use config::{ConfigError, Limits, MAX_COHORT, MAX_LENGTH, SessionConfig, SessionParameters};
pub use groups::{ClaimedRoster, Group, Roster, RosterError, random_groups};
pub use identity::{ClientId, IdentityCertificate, IdentityError, MAX_CERTIFICATE_LEN, MAX_NAME_LEN};
pub use messages::{Advertisement, AdvertisementError, Consistency, Nonce, Shares, Unmask};
pub use prg::Prg;
pub use protocol::ProtocolKind;
pub use server::{Abort, Cohort, Fault, GroupServer, Phase};
pub use unmasking::{AccumulateError, Accumulator, Sum, Unmasking};
pub use upload::{MaskedInput, Upload};

#[cfg(test)]
mod tests;
