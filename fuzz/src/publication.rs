//! Publications, as they reach a client that follows a history, and one that has just joined.

use std::sync::LazyLock;

use fedveil_provenance::{Digest, Head, Lineage, Log, Pins, Publication};

use super::{
    Seeds,
    history::{ORIGIN, claim, key, logs, manifest as made, task},
    seed,
};

/// The last round of the history.
const ROUNDS: u32 = 4;

/// The round that the following client accepted last.
const FOLLOWED: u64 = 1;

static LOGS: LazyLock<Vec<(Log, String)>> = LazyLock::new(|| logs(ROUNDS));

/// Whether one of the two clients accepts it.
pub fn run(input: &[u8]) -> bool {
    let clients = [newcomer(), follower()];
    clients.into_iter().filter(|client| accepts(client.clone(), input)).count() > 0
}

fn accepts(mut client: Lineage, input: &[u8]) -> bool {
    let Ok(accepted) = client.accept(input) else { return false };
    let (log, _) = &LOGS[accepted.head.log.size as usize - 1];
    assert_eq!(accepted.head.log, log.head(), "the log is one that was signed");
    let round = u64::from(accepted.head.round);
    let leaf = log.leaf(round).expect("the round is in that log");
    assert_eq!(accepted.head.manifest, Digest::of(leaf), "the manifest is that round's");
    client.apply(&accepted);
    assert!(client.accept(input).is_err(), "nothing is accepted twice");
    true
}

fn newcomer() -> Lineage {
    Lineage::new(pins(), None)
}

fn follower() -> Lineage {
    let (log, _) = &LOGS[FOLLOWED as usize];
    let manifest = Digest::of(log.leaf(FOLLOWED).expect("the newest leaf"));
    let round = FOLLOWED as u32;
    let epsilon_spent = made(round, None).round.privacy.epsilon_spent;
    Lineage::new(pins(), Some(Head { log: log.head(), manifest, round, epsilon_spent }))
}

fn pins() -> Pins {
    let signers = vec![key().verifying_key()];
    let (origin, task_digest, privacy) = (ORIGIN.to_owned(), task(), claim(0.0));
    Pins { signers, threshold: 1, origin, task_digest, privacy }
}

pub fn seeds() -> Seeds {
    let publication = |rounds: usize, leaf: u64, known_size: u64| {
        let (log, checkpoint) = &LOGS[rounds];
        Publication::new(log, checkpoint.clone(), leaf, known_size).expect("the leaf is in the log")
    };
    let change = |change: fn(&mut Publication)| {
        let mut publication = publication(4, 2, 2);
        change(&mut publication);
        publication.to_bytes()
    };
    vec![
        seed("accepted-first", publication(0, 0, 0).to_bytes()),
        seed("accepted-newest-by-a-newcomer", publication(4, 4, 0).to_bytes()),
        seed("accepted-next", publication(2, 2, 2).to_bytes()),
        seed("accepted-next-in-a-longer-log", publication(4, 2, 2).to_bytes()),
        seed("refused-skips-a-round", publication(3, 3, 2).to_bytes()),
        seed("refused-for-a-shorter-log", publication(1, 1, 1).to_bytes()),
        seed("refused-fork", change(|publication| publication.consistency.reverse())),
        seed(
            "refused-no-consistency-proof-is-one",
            change(|publication| publication.consistency.truncate(1)),
        ),
        seed("refused-other-leaf", change(|publication| publication.leaf_index = 3)),
        seed("refused-leaf-out-of-range", change(|publication| publication.leaf_index = u64::MAX)),
        seed(
            "refused-long-proof",
            change(|publication| {
                let proof = publication.inclusion.repeat(40);
                publication.inclusion = proof;
            }),
        ),
        seed("refused-checkpoint-altered", change(|publication| publication.checkpoint.insert(0, 'x'))),
        seed("refused-manifest-altered", change(|publication| publication.manifest[20] ^= 1)),
        seed("refused-cut-short", &publication(2, 2, 2).to_bytes()[..300]),
        seed("refused-not-json", "\u{feff}{}"),
    ]
}
