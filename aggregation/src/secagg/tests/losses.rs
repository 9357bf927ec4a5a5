//! Losses of every size in every phase, crashes, and numbers at the edges.

use super::honest::{ALL, Last, run};
use super::*;

/// C: in every phase, from nobody to everybody is lost. Up to what the graph bears the sum is that of the others, and beyond it
/// the group ends; the model of `honest` says which, and `run` holds the session against it.
#[test]
fn every_phase_loses_every_number_of_members() {
    for parameters in graphs_and_protocols() {
        let members = parameters.group_size;
        // What the group bears does not depend on what is under the masks.
        let most = if parameters.protocol == ProtocolKind::PairwiseMask { members } else { 3 };
        for last in &ALL[1..] {
            for lost in 0..=most {
                let mut lasts = vec![*last; lost];
                lasts.resize(members, Last::Unmask);
                run(parameters.clone(), &lasts, lost as u64).unwrap();
            }
        }
    }
}

/// C: nobody is asked to unmask a group that lost too many before, so nothing of it was revealed. Two members of seven
/// can be lost before their shares are due, whatever the phase, and not three.
#[test]
fn a_group_that_lost_too_many_asks_nobody_for_shares() {
    for protocol in ProtocolKind::ALL {
        let parameters = SessionParameters { protocol, ..seven() };
        let everyone: Vec<usize> = (0..7).collect();
        for left in 0..=7 {
            let mut session = Session::new(parameters.clone(), 7, 1);
            let (_, mut server, shares) = session.until_delivery();
            for (client, message) in shares.iter().enumerate().take(left) {
                let id = session.id(client);
                server.apply_shares(id, server.check_shares(id, message).unwrap());
            }
            let closed = server.close_sharing();
            if left < 5 {
                assert!(matches!(closed, Err(Abort::TooFewSharers { min: 5, .. })));
                assert_over(server);
            }

            let mut session = Session::new(parameters.clone(), 7, 1);
            let (_, mut server, _) = session.until_survivors(&everyone[..left]);
            let closed = server.close_collecting();
            if left < 5 {
                assert_eq!(closed, Err(Abort::TooFewSurvivors { found: left, min: 5 }));
                assert_over(server);
            }

            let mut session = Session::new(parameters.clone(), 7, 1);
            let (clients, mut server, _) = session.until_survivors(&everyone);
            let message = server.close_collecting().unwrap();
            for (client, state) in clients.into_iter().enumerate().take(left) {
                let (id, (_, reply)) = (session.id(client), ok(state.on_survivors(&message)));
                server.apply_consistency(id, server.check_consistency(id, &reply).unwrap());
            }
            let closed = server.close_consistency();
            assert_eq!(closed.is_ok(), left >= 5, "{left} signatures");
            if left < 5 {
                assert!(matches!(closed, Err(Abort::TooFewNeighbours { min: 4, .. })));
                assert_over(server);
            }
        }
    }
}

fn assert_over(mut server: GroupServer) {
    assert_eq!(server.phase(), Phase::Over);
    assert!(server.awaited().is_empty());
    let over = |expected| Abort::OutOfOrder { phase: Phase::Over, expected };
    assert_eq!(server.close_consistency(), Err(over(Phase::Consistency)));
    assert_eq!(server.close_unmasking().err(), Some(over(Phase::Unmasking)));
}

/// A3, C: the coordinator loses its memory after the sum, goes on from what it had before the survivors were fixed, and
/// closes with one input fewer. The members have signed once: no second set gets its signatures, and the old answers do
/// not open it.
#[test]
fn a_resumed_coordinator_gets_no_second_sum_of_a_session() {
    for parameters in graphs_and_protocols() {
        let members = parameters.group_size;
        let mut session = Session::new(parameters, members, 1);
        let (states, mut server) = session.until_input();
        let mut sums = [server.accumulator(), server.accumulator()];
        let mut before = None;
        let mut waiting = Vec::new();
        for (client, state) in states.into_iter().enumerate() {
            let (state, message) = ok(state.submit(&session.inputs[client], &mut session.rng));
            let (id, input) = (session.id(client), session.decode(&message).unwrap());
            if client == members - 1 {
                before = Some(server.clone());
            } else {
                sums[1].add(id, &input).unwrap();
            }
            server.apply_masked_input(id, *input.digest());
            sums[0].add(id, &input).unwrap();
            waiting.push(state);
        }

        let message = server.close_collecting().unwrap();
        let mut replies = Vec::new();
        let mut signed = Vec::new();
        for (client, state) in waiting.into_iter().enumerate() {
            let (state, reply) = ok(state.on_survivors(&message));
            let id = session.id(client);
            server.apply_consistency(id, server.check_consistency(id, &reply).unwrap());
            replies.push(reply);
            signed.push(state);
        }
        let signatures = server.close_consistency().unwrap();
        let mut answers = Vec::new();
        for (client, state) in signed.into_iter().enumerate() {
            let id = session.id(client);
            answers.push(ok(state.on_signatures(&signatures[&id])));
            server.apply_unmask(id, server.check_unmask(id, &answers[client]).unwrap());
        }
        let unmasking = server.close_unmasking().unwrap();
        assert_eq!(unmasking.sum(&sums[0]).unwrap().values, vec![1; members]);
        assert_eq!(unmasking.sum(&sums[1]), Err(Abort::OtherInputs));

        let mut resumed = before.unwrap();
        let second = resumed.close_collecting().unwrap();
        assert_ne!(second, message);
        for (client, reply) in replies.iter().enumerate().take(members - 1) {
            assert_eq!(resumed.check_consistency(session.id(client), reply), Err(Fault::BadSignature));
            let early = Fault::Phase { phase: Phase::Consistency, expected: Phase::Unmasking };
            assert_eq!(resumed.check_unmask(session.id(client), &answers[client]).err(), Some(early));
        }
        assert!(matches!(resumed.close_consistency(), Err(Abort::TooFewNeighbours { found: 0, .. })));
        assert_over(resumed);
    }
}

/// C: a coordinator that resumes with the same inputs gets the same set, the same bytes, and the same sum.
#[test]
fn a_coordinator_that_repeats_what_it_recorded_gets_the_same_sum() {
    for parameters in graphs_and_protocols() {
        let members = parameters.group_size;
        let everyone: Vec<usize> = (0..members).collect();
        let mut session = Session::new(parameters, members, 1);
        let (clients, mut server, sum) = session.until_signatures(&everyone[1..]);
        let mut resumed = server.clone();
        let signatures = server.close_consistency().unwrap();
        assert_eq!(resumed.close_consistency().unwrap(), signatures);
        for (client, state) in clients {
            let id = session.id(client);
            let answer = ok(state.on_signatures(&signatures[&id]));
            for server in [&mut server, &mut resumed] {
                server.apply_unmask(id, server.check_unmask(id, &answer).unwrap());
            }
        }
        let sums = [server, resumed].map(|mut server| server.close_unmasking().unwrap().sum(&sum).unwrap());
        assert_eq!(sums[0], sums[1]);
    }
}

/// C: an upload that is cut, anywhere, or goes on too long. Nothing of it is in the sum.
#[test]
fn upload_cut_in_the_middle() {
    for protocol in ProtocolKind::ALL {
        let mut session = Session::new(SessionParameters { protocol, length: 9_000, ..seven() }, 7, 1);
        let (mut clients, server) = session.until_input();
        let values = vec![1; 9_000];
        let (_, message) = ok(clients.swap_remove(0).submit(&values, &mut session.rng));
        assert!(session.decode(&message).is_ok());
        for len in (0..message.len()).step_by(997).chain([message.len() - 1]) {
            let error = session.decode(&message[..len]).unwrap_err();
            assert!(matches!(error, CodecError::Truncated { .. }), "{len} bytes: {error}");
        }
        let longer = [message.as_slice(), &[0]].concat();
        assert_eq!(session.decode(&longer).unwrap_err(), CodecError::Trailing { extra: 1 });
        assert_eq!(server.accumulator().contributors().len(), 0);
        assert_eq!(server.expects_input(session.id(0)), Ok(()), "the client may still send all of it");
    }
}

/// C: both protocols sum residues of every width, the least one (-2^(b-1), `i32::MIN` for b = 32) included.
#[test]
fn every_ring_width_and_the_least_residue() {
    for protocol in ProtocolKind::ALL {
        for bits in 8..=32_u32 {
            assert_awkward_sum(&SessionParameters { protocol, ring_bits: bits, ..seven() }, 6);
        }
    }
}

/// C: lengths around one and two blocks of coefficients, and of one element.
#[test]
fn lengths_that_fill_no_block() {
    for protocol in ProtocolKind::ALL {
        for bits in [20, 32] {
            let parameters = SessionParameters { protocol, ring_bits: bits, ..seven() };
            for coefficients in [4_096, 8_192] {
                // To a coefficient goes one element of 32 bits, or two of 20.
                for slots in [1, 2] {
                    for length in slots * coefficients - 1..=slots * coefficients + 1 {
                        assert_awkward_sum(&parameters, length);
                    }
                }
            }
            assert_awkward_sum(&parameters, 1);
        }
    }
}

/// Sums that stay in [-2^(b-1), 2^(b-1)), at both of its ends, in turn for `length` elements.
#[track_caller]
fn assert_awkward_sum(parameters: &SessionParameters, length: usize) {
    let bits = parameters.ring_bits;
    let mask = u32::MAX >> (32 - bits);
    let least = 1 << (bits - 1);
    let [first, second, others] =
        [[least, least - 1, mask, least, 3, least], [0, 0, mask, least - 1, mask, 1], [0, 0, mask, 0, 1, 0]];
    let sums = [least, least - 1, mask - 6, mask, 7, least + 1];
    let repeat = |pattern: [u32; 6]| -> Vec<u32> { pattern.into_iter().cycle().take(length).collect() };
    let mut session = Session::new(SessionParameters { length, ..parameters.clone() }, 7, 1);
    session.inputs = [vec![repeat(first), repeat(second)], vec![repeat(others); 5]].concat();
    let (clients, server, sum) = session.until_signatures(&[0, 1, 2, 3, 4, 5, 6]);
    let values = session.finish(clients, server, &sum).unwrap().values;
    assert!(values == repeat(sums), "{bits} bits, {length} elements");
}
