//! Sums of honest sessions against a reference model: who is in which sum, and which groups end without one.

use proptest::prelude::*;

use super::*;

/// The last thing that a client does. Ordered: a client does all before it, and nothing after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Last {
    Advertise,
    Reveal,
    Share,
    Submit,
    Sign,
    Unmask,
}

pub(super) const ALL: [Last; 6] =
    [Last::Advertise, Last::Reveal, Last::Share, Last::Submit, Last::Sign, Last::Unmask];

/// What becomes of a group whose members, on the ring, end so: the positions in the sum, or why there is none.
pub(super) fn model(config: &SessionConfig, members: &[(ClientId, Last)]) -> Result<Vec<usize>, Abort> {
    let SessionParameters { threshold: min, min_survivors, degree, .. } = *config.parameters();
    let all = members.len();
    let are_neighbours = |a: usize, b: usize| {
        let distance = a.abs_diff(b).min(all - a.abs_diff(b));
        a != b && (all <= degree + 1 || distance <= degree / 2)
    };
    let neighbours = |of: usize, among: &[usize]| among.iter().filter(|&&at| are_neighbours(of, at)).count();
    let reach = |among: &[usize], least: Last| -> Vec<usize> {
        among.iter().copied().filter(|&at| members[at].1 >= least).collect()
    };
    let recoverable = |owners: &[usize], left: &[usize]| match owners
        .iter()
        .find(|&&at| neighbours(at, left) < min)
    {
        Some(&at) => Err(Abort::TooFewNeighbours { owner: members[at].0, found: neighbours(at, left), min }),
        None => Ok(()),
    };

    let everyone: Vec<usize> = (0..all).collect();
    let mut sharers = reach(&everyone, Last::Share);
    loop {
        let core: Vec<usize> =
            sharers.iter().copied().filter(|&at| neighbours(at, &sharers) >= min).collect();
        if core == sharers {
            break;
        }
        sharers = core;
    }
    if sharers.len() < min_survivors {
        return Err(Abort::TooFewSharers { found: sharers.len(), min: min_survivors });
    }
    let submitters = reach(&sharers, Last::Submit);
    if submitters.len() < min_survivors {
        return Err(Abort::TooFewSurvivors { found: submitters.len(), min: min_survivors });
    }
    recoverable(&sharers, &submitters)?;
    let signers = reach(&submitters, Last::Sign);
    let asked: Vec<usize> = signers.iter().copied().filter(|&at| neighbours(at, &signers) >= min).collect();
    recoverable(&sharers, &asked)?;
    recoverable(&sharers, &reach(&asked, Last::Unmask))?;
    Ok(submitters)
}

/// Runs one group to its end.
fn run_group(
    session: &mut Session,
    mut server: GroupServer,
    mut clients: BTreeMap<usize, (AwaitDelivery, Vec<u8>)>,
    lasts: &[Last],
) -> Result<Sum, Abort> {
    clients.retain(|client, _| lasts[*client] >= Last::Share);
    for (client, (_, message)) in &clients {
        let shares = server.check_shares(session.id(*client), message).unwrap();
        server.apply_shares(session.id(*client), shares);
    }
    let deliveries = server.close_sharing()?;
    let mut parts = [server.accumulator(), server.accumulator()];
    let mut submitted = BTreeMap::new();
    for (client, (state, _)) in clients {
        let id = session.id(client);
        let Some(delivery) = deliveries.get(&id) else { continue };
        let state = ok(state.on_delivery(delivery));
        if lasts[client] >= Last::Submit {
            let (state, message) = ok(state.submit(&session.inputs[client], &mut session.rng));
            assert_eq!(message.len(), session.config.limits().masked_input);
            let input = session.decode(&message).unwrap();
            server.check_masked_input(id, &input).unwrap();
            parts[client % 2].add(id, &input).unwrap();
            server.apply_masked_input(id, *input.digest());
            submitted.insert(client, state);
        }
    }
    let [mut sum, other] = parts;
    sum.merge(&other).unwrap();

    let message = server.close_collecting()?;
    let mut signed = BTreeMap::new();
    for (client, state) in submitted.into_iter().filter(|(client, _)| lasts[*client] >= Last::Sign) {
        let (state, reply) = ok(state.on_survivors(&message));
        let consistency = server.check_consistency(session.id(client), &reply).unwrap();
        server.apply_consistency(session.id(client), consistency);
        signed.insert(client, state);
    }
    let messages = server.close_consistency()?;
    for (client, state) in signed.into_iter().filter(|(client, _)| lasts[*client] >= Last::Unmask) {
        let Some(message) = messages.get(&session.id(client)) else { continue };
        let reply = ok(state.on_signatures(message));
        let shares = server.check_unmask(session.id(client), &reply).unwrap();
        server.apply_unmask(session.id(client), shares);
    }
    server.close_unmasking()?.sum(&sum)
}

pub(super) fn run(parameters: SessionParameters, lasts: &[Last], seed: u64) -> Result<(), TestCaseError> {
    let mut session = Session::new(parameters, lasts.len(), seed);
    let (clients, roster, mut nonces) = session.until_reveals();
    nonces.retain(|id, _| lasts[roster.index_of(*id).unwrap()] >= Last::Reveal);
    let missing = lasts.len() - nonces.len();
    let max = session.config.parameters().max_missing_reveals;
    let formed = roster.form_groups(&session.config, &nonces);
    if missing > max {
        prop_assert_eq!(formed.unwrap_err(), Abort::MissingReveals { missing, max });
        return Ok(());
    }
    let (message, groups) = formed.unwrap();
    prop_assert_eq!(groups.iter().map(|group| group.members().len()).sum::<usize>(), nonces.len());

    let mut shared = BTreeMap::new();
    for (client, state) in
        clients.into_iter().enumerate().filter(|(client, _)| lasts[*client] >= Last::Reveal)
    {
        let (state, reply) = ok(state.on_reveals(&message, NOW, &mut session.rng));
        prop_assert!(groups[state.group_index()].members().contains(&client));
        shared.insert(client, (state, reply));
    }
    for group in &groups {
        let members = group.members().iter().map(|client| (*client, shared.remove(client).unwrap()));
        let server = GroupServer::new(&session.config, &roster, group);
        let result = run_group(&mut session, server, members.collect(), lasts);

        let fates: Vec<(ClientId, Last)> =
            group.members().iter().map(|&client| (session.id(client), lasts[client])).collect();
        let expected = model(&session.config, &fates).map(|submitters| {
            let mut values = vec![0; session.config.parameters().length];
            for position in submitters {
                values[group.members()[position]] = 1;
            }
            Sum { values, blamed: Vec::new() }
        });
        prop_assert_eq!(result, expected);
    }
    Ok(())
}

/// Cohorts of one to three groups whose clients mostly stay to the end, on graphs complete or sparse, with the lowest
/// threshold that they allow.
fn scenario() -> impl Strategy<Value = (SessionParameters, Vec<Last>)> {
    let last = || prop_oneof![12 => Just(Last::Unmask), 1 => prop::sample::select(&ALL[..])];
    let lasts = (3_usize..12).prop_flat_map(move |group_size| {
        (Just(group_size), prop::collection::vec(last(), group_size..=3 * group_size))
    });
    let choices = (prop::sample::select(&ProtocolKind::ALL[..]), any::<bool>(), 8_u32..=32);
    let degree = prop::sample::select(vec![4_usize, 6, 8, 64]);
    (lasts, 0_usize..3, choices, degree).prop_filter_map(
        "no threshold is over half of so many neighbours",
        |((group_size, lasts), missing, (protocol, chacha, ring_bits), degree)| {
            let parameters = |threshold| SessionParameters {
                protocol,
                prg: if chacha { Prg::ChaCha20 } else { Prg::Aes256Ctr },
                ring_bits,
                length: lasts.len() + 3,
                group_size,
                degree,
                threshold,
                min_survivors: threshold + 1,
                min_cohort: lasts.len(),
                max_cohort: lasts.len(),
                max_missing_reveals: missing.min(lasts.len() - group_size),
                ..seven()
            };
            let works = |parameters: &SessionParameters| SessionConfig::new(parameters.clone()).is_ok();
            let parameters = (1..group_size).map(parameters).find(works)?;
            Some((parameters, lasts))
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn sums_are_those_of_the_model_whoever_drops_out_when(
        (parameters, lasts) in scenario(),
        seed: u64,
    ) {
        run(parameters, &lasts, seed)?;
    }

    /// One group of twelve, six neighbours each, any number lost in any phase.
    #[test]
    fn sums_over_a_sparse_graph_are_those_of_the_model(
        lasts in prop::collection::vec(prop_oneof![5 => Just(Last::Unmask), 1 => prop::sample::select(&ALL[1..])], 12),
        seed: u64,
    ) {
        run(twelve(), &lasts, seed)?;
    }
}

/// Every phase in turn loses as many as it may, and then one more.
#[test]
fn each_phase_bears_its_losses_and_no_more() {
    let parameters = SessionParameters { max_missing_reveals: 0, ..seven() };
    for last in &ALL[1..] {
        for lost in 0..=3 {
            let mut lasts = vec![*last; lost];
            lasts.resize(7, Last::Unmask);
            run(parameters.clone(), &lasts, 3).unwrap();
            let fates: Vec<_> = lasts.iter().map(|last| (ClientId([0; 32]), *last)).collect();
            assert_eq!(
                model(&Session::of_seven(3).config, &fates).is_ok(),
                lost <= 2 || *last == Last::Unmask
            );
        }
    }
}

#[test]
fn elements_wrap_around_in_the_ring() {
    let parameters = SessionParameters { ring_bits: 13, ..seven() };
    let mut session = Session::new(parameters, 7, 1);
    session.inputs = (0..7).map(|client| vec![(1 << 13) - 1, 1 << 12, 0, client, 1, 2, 3]).collect();
    let (clients, server, sum) = session.until_signatures(&[0, 1, 2, 3, 4, 5, 6]);
    let sum = session.finish(clients, server, &sum).unwrap();
    assert_eq!(sum.values, [(1 << 13) - 7, 1 << 12, 0, 21, 7, 14, 21]);
}

/// Every member can lose two of its six neighbours, which can be more in the whole group. A third is one too many, and
/// the group ends before anything is revealed.
#[test]
fn a_member_with_too_few_neighbours_left_ends_its_group() {
    let submitters = |lost: &[usize]| -> Vec<usize> { (0..12).filter(|at| !lost.contains(at)).collect() };
    let mut session = Session::of_twelve(1);
    let (clients, server, sum) = session.until_signatures(&submitters(&[0, 3, 6, 9]));
    let sum = session.finish(clients, server, &sum).unwrap();
    assert_eq!(sum.values, [0, 1, 1, 0, 1, 1, 0, 1, 1, 0, 1, 1]);

    let mut session = Session::of_twelve(1);
    let (_, mut server, _) = session.until_survivors(&submitters(&[0, 1, 3]));
    let abort = Abort::TooFewNeighbours { owner: session.id(2), found: 3, min: 4 };
    assert_eq!(server.close_collecting(), Err(abort));
    assert_eq!(server.phase(), Phase::Over);
}

/// χ² of the bytes of one client's masked zero vector; for 255 degrees of freedom the 99.99 % quantile is 347.7.
#[test]
fn a_masked_vector_looks_uniform() {
    for prg in [Prg::Aes256Ctr, Prg::ChaCha20] {
        let parameters = SessionParameters { prg, ring_bits: 8, length: 1 << 16, ..seven() };
        let mut session = Session::new(parameters, 7, 2);
        let (mut clients, _) = session.until_input();
        let (_, message) = ok(clients.swap_remove(0).submit(&vec![0; 1 << 16], &mut session.rng));
        let mut counts = [0_u32; 256];
        message[2..].iter().for_each(|byte| counts[usize::from(*byte)] += 1);
        let chi_squared: f64 = counts.iter().map(|&count| (f64::from(count) - 256.0).powi(2) / 256.0).sum();
        assert!((180.0..347.7).contains(&chi_squared), "{prg:?}: χ² = {chi_squared}");
    }
}

#[test]
fn no_message_is_longer_than_its_limit_and_the_fixed_ones_are_as_long() {
    for protocol in ProtocolKind::ALL {
        longest_messages(&SessionParameters { protocol, ..seven() });
        longest_messages(&SessionParameters { protocol, ..twelve() });
    }
}

fn longest_messages(parameters: &SessionParameters) {
    let members = parameters.group_size;
    let start = || Session::new(parameters.clone(), members, 1);
    let mut session = start();
    session.certificates = session
        .keys
        .iter()
        .map(|key| {
            let key = key.verifying_key().to_bytes();
            IdentityCertificate::issue(&authority(), &key, &"n".repeat(MAX_NAME_LEN), NOT_AFTER).unwrap()
        })
        .collect();
    let limits = session.config.limits();
    let (clients, advertisements) = session.until_roster();
    assert!(advertisements.iter().all(|message| message.len() == limits.advertise));
    let roster = session.seal(&advertisements);
    assert_eq!(roster.message().len(), limits.roster);
    let (states, replies): (Vec<_>, Vec<_>) =
        clients.into_iter().map(|state| ok(state.on_roster(roster.message()))).unzip();
    assert_eq!(replies[0].len(), limits.reveal);
    let nonces = replies
        .iter()
        .enumerate()
        .map(|(client, reply)| {
            let id = session.id(client);
            (id, roster.check_reveal(&session.config, id, reply).unwrap())
        })
        .collect();
    let (reveals, _) = roster.form_groups(&session.config, &nonces).unwrap();
    assert_eq!(reveals.len(), limits.reveals);
    drop(states);

    let mut session = start();
    let (mut clients, mut server, shares) = session.until_delivery();
    for (client, message) in shares.iter().enumerate() {
        assert_eq!(message.len(), limits.shares);
        let shares = server.check_shares(session.id(client), message).unwrap();
        server.apply_shares(session.id(client), shares);
    }
    let delivery = &server.close_sharing().unwrap()[&session.id(0)];
    assert_eq!(delivery.len(), limits.delivery);
    let state = ok(clients.swap_remove(0).on_delivery(delivery));
    let (_, message) = ok(state.submit(&session.inputs[0], &mut session.rng));
    assert_eq!(message.len(), limits.masked_input);
    let everyone: Vec<usize> = (0..members).collect();
    let mut session = start();
    let (clients, mut server, _) = session.until_survivors(&everyone);
    let survivors = server.close_collecting().unwrap();
    assert_eq!(survivors.len(), limits.survivors);
    for (client, state) in clients.into_iter().enumerate() {
        let (_, reply) = ok(state.on_survivors(&survivors));
        assert_eq!(reply.len(), limits.consistency);
        let consistency = server.check_consistency(session.id(client), &reply).unwrap();
        server.apply_consistency(session.id(client), consistency);
    }
    let signatures = server.close_consistency().unwrap();
    assert!(signatures.values().all(|message| message.len() == limits.signatures));

    let mut session = start();
    let (mut clients, mut server, _) = session.until_signatures(&everyone);
    let signatures = &server.close_consistency().unwrap()[&session.id(0)];
    assert_eq!(ok(clients.remove(&0).unwrap().on_signatures(signatures)).len(), limits.unmask);
}

#[test]
fn the_same_seed_makes_the_same_bytes() {
    let shares = |seed| Session::of_seven(seed).until_delivery().2;
    assert_eq!(shares(1), shares(1));
    assert_ne!(shares(1), shares(2));
}
