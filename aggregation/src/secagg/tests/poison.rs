//! Members that send what they like: what becomes of their own group, and that nothing becomes of another.

use super::super::agreement::{Route, seal};
use super::super::codec::HEADER_LEN;
use super::super::config::BOX_LEN;
use super::super::graph::Graph;
use super::super::messages::Offer;
use super::super::protocol::Layers;
use super::super::shamir::split;
use super::super::upload::encode_upload;
use super::adversary::add;
use super::*;
use rand_core::Rng;

/// A message of a member, on its way.
enum Sent<'a> {
    Shares(&'a mut Vec<u8>),
    Input(&'a mut Vec<u8>),
}

/// The groups of a cohort of fourteen, by roster index, with their results. `poison` sees all that members send, and
/// may change it. A member that refuses is gone.
fn two_groups(
    protocol: ProtocolKind,
    inputs: impl Fn(usize) -> Vec<u32>,
    mut poison: impl FnMut(usize, Sent<'_>),
) -> Vec<(Vec<usize>, Result<Sum, Abort>)> {
    let parameters = SessionParameters { protocol, length: 14, min_cohort: 14, max_cohort: 14, ..seven() };
    let mut session = Session::new(parameters, 14, 1);
    let (clients, roster, nonces) = session.until_reveals();
    let (message, groups) = roster.form_groups(&session.config, &nonces).unwrap();
    let mut states: BTreeMap<usize, AwaitReveals> = clients.into_iter().enumerate().collect();
    let mut run = |group: &Group| {
        let mut server = GroupServer::new(&session.config, &roster, group);
        let mut members = BTreeMap::new();
        for &member in group.members() {
            let state = states.remove(&member).unwrap();
            let (state, mut reply) = ok(state.on_reveals(&message, NOW, &mut session.rng));
            poison(member, Sent::Shares(&mut reply));
            let id = session.id(member);
            server.apply_shares(id, server.check_shares(id, &reply).unwrap());
            members.insert(member, state);
        }
        let deliveries = server.close_sharing()?;
        let mut sum = server.accumulator();
        let mut submitted = BTreeMap::new();
        for (member, state) in members {
            let id = session.id(member);
            let Ok(state) = state.on_delivery(&deliveries[&id]) else { continue };
            let (state, mut reply) = ok(state.submit(&inputs(member), &mut session.rng));
            poison(member, Sent::Input(&mut reply));
            let input = session.decode(&reply).unwrap();
            server.check_masked_input(id, &input).unwrap();
            sum.add(id, &input).unwrap();
            server.apply_masked_input(id, *input.digest());
            submitted.insert(member, state);
        }
        let survivors = server.close_collecting()?;
        let mut signed = BTreeMap::new();
        for (member, state) in submitted {
            let (id, (state, reply)) = (session.id(member), ok(state.on_survivors(&survivors)));
            server.apply_consistency(id, server.check_consistency(id, &reply).unwrap());
            signed.insert(member, state);
        }
        session.finish(signed, server, &sum)
    };
    groups.iter().map(|group| (group.members().to_vec(), run(group))).collect()
}

/// Client i has 1 at i.
fn unit(client: usize) -> Vec<u32> {
    (0..14).map(|at| u32::from(at == client)).collect()
}

fn units(members: &[usize]) -> Vec<u32> {
    (0..14).map(|at| u32::from(members.contains(&at))).collect()
}

/// B14: a vector chosen to make the sum any number it likes, by wrapping around. It does, in the attacker's own group:
/// sums say nothing about who moved them. The other group's is exact.
#[test]
fn wrap_around_shifts_the_sum_of_the_attackers_group_alone() {
    for protocol in ProtocolKind::ALL {
        // −5 where another member of its group has 1, and where nobody has anything.
        let attack = |target: usize| {
            let mut values = unit(0);
            (values[target], values[13]) = ((1 << 20) - 5, (1 << 20) - 5);
            values
        };
        let probe = two_groups(protocol, unit, |_, _| {});
        let own = probe.iter().position(|(members, _)| members.contains(&0)).unwrap();
        let target = *probe[own].0.iter().find(|member| **member != 0).unwrap();
        let groups =
            two_groups(protocol, |client| if client == 0 { attack(target) } else { unit(client) }, |_, _| {});
        for (nth, (members, result)) in groups.into_iter().enumerate() {
            let mut expected = units(&members);
            if nth == own {
                for at in [target, 13] {
                    expected[at] = expected[at].wrapping_sub(5) & ((1 << 20) - 1);
                }
            }
            assert_eq!(result.unwrap(), Sum { values: expected, blamed: Vec::new() });
        }
    }
}

/// B14: what overflows. In the ring it wraps; in a ciphertext it spoils the elements that share its coefficient, and no
/// others, in its own group alone.
#[test]
fn an_overflow_spoils_its_own_coefficient_alone() {
    for protocol in ProtocolKind::ALL {
        let groups = two_groups(
            protocol,
            |client| {
                if client == 0 {
                    vec![(1 << 19) - 1; 2].into_iter().chain([0; 12]).collect()
                } else {
                    vec![1; 14]
                }
            },
            |_, _| {},
        );
        for (members, result) in groups {
            let values = result.unwrap().values;
            if members.contains(&0) {
                assert_eq!(values[4..], [6; 10]);
                assert_ne!(values[..2], [6, 6]);
                if protocol == ProtocolKind::PairwiseMask {
                    assert_eq!(values[..4], [(1 << 19) + 5, (1 << 19) + 5, 6, 6]);
                }
            } else {
                assert_eq!(values, [7; 14]);
            }
        }
    }
}

/// B16: not a masked vector at all. Its group's sum is noise, as that group's members could always make it; the other's
/// is exact.
#[test]
fn garbage_masked_input() {
    for protocol in ProtocolKind::ALL {
        let mut rng = ChaCha20Rng::seed_from_u64(4);
        let groups = two_groups(protocol, unit, |client, sent| {
            if let (0, Sent::Input(message)) = (client, sent) {
                rng.fill_bytes(&mut message[HEADER_LEN..]);
            }
        });
        for (members, result) in groups {
            let values = result.unwrap().values;
            if members.contains(&0) {
                assert!(values.iter().zip(units(&members)).all(|(found, sum)| *found != sum));
            } else {
                assert_eq!(values, units(&members));
            }
        }
    }
}

/// B15: boxes that open nowhere. Those for whom they are leave, their group ends, and the other goes on.
#[test]
fn boxes_that_do_not_open_end_the_group_of_their_sender_alone() {
    for protocol in ProtocolKind::ALL {
        let groups = two_groups(protocol, unit, |client, sent| {
            if let (0, Sent::Shares(message)) = (client, sent) {
                message[HEADER_LEN..].fill(0x55);
            }
        });
        for (members, result) in groups {
            if members.contains(&0) {
                assert_eq!(result, Err(Abort::TooFewSurvivors { found: 1, min: 5 }));
            } else {
                assert_eq!(result.unwrap().values, units(&members));
            }
        }
    }
}

/// B16: an input that is made from another's: the victim's upload plus what the attacker would have sent for zeros, so
/// that the victim's vector would count twice. The bytes differ, so nothing is noticed; but the victim's masks are in
/// the sum twice as well, and come off once.
#[test]
fn correlated_ciphertext() {
    for parameters in graphs_and_protocols() {
        let members = parameters.group_size;
        for body_alone in [false, true] {
            if body_alone && parameters.protocol == ProtocolKind::PairwiseMask {
                continue;
            }
            let mut session = Session::new(parameters.clone(), members, 1);
            session.inputs[1] = vec![0; members];
            let (states, mut server) = session.until_input();
            let mut sum = server.accumulator();
            let mut waiting = BTreeMap::new();
            let mut victims: Option<Layers> = None;
            for (client, state) in states.into_iter().enumerate() {
                let (state, message) = ok(state.submit(&session.inputs[client], &mut session.rng));
                let (id, mut input) = (session.id(client), session.decode(&message).unwrap());
                match client {
                    0 => victims = Some(input.layers.clone()),
                    1 => {
                        let mut victims = victims.take().unwrap();
                        if body_alone {
                            victims.masked.fill(0);
                        }
                        let layers = add([&input.layers, &victims].into_iter());
                        input = session.decode(&encode_upload(&session.config.shape(), &layers)).unwrap();
                        assert_eq!(server.check_masked_input(id, &input), Ok(()));
                    }
                    _ => {}
                }
                sum.add(id, &input).unwrap();
                server.apply_masked_input(id, *input.digest());
                waiting.insert(client, state);
            }
            let message = server.close_collecting().unwrap();
            let mut signed = BTreeMap::new();
            for (client, state) in waiting {
                let (id, (state, reply)) = (session.id(client), ok(state.on_survivors(&message)));
                server.apply_consistency(id, server.check_consistency(id, &reply).unwrap());
                signed.insert(client, state);
            }
            let values = session.finish(signed, server, &sum).unwrap().values;
            let mut wanted = vec![1; members];
            (wanted[0], wanted[1]) = (2, 0);
            assert!(values.iter().zip(&wanted).all(|(found, wanted)| found != wanted), "{values:?}");
        }
    }
}

/// B16: a colluder advertises the victim's commitments as its own, to repeat what the victim reveals. Commitments are
/// to a client, so that it cannot open them.
#[test]
fn commitment_copied_from_a_victim() {
    let mut session = Session::of_seven(1);
    let (_, mut advertisements) = session.until_roster();
    let commitments = |entry: &[u8]| -> [[u8; 32]; 2] {
        [2, 1].map(|nth| *entry[entry.len() - 64 - nth * 32..].first_chunk().unwrap())
    };
    let [nonce_commitment, seed_commitment] = commitments(&advertisements[0]);
    let copied = Offer {
        certificate: &session.certificates[6],
        box_key: Secret::from_bytes(&[11; 32]).public_key(),
        mask_key: Secret::from_bytes(&[12; 32]).public_key(),
        nonce_commitment,
        seed_commitment,
    };
    advertisements[6] = copied.sign(&session.config, &session.keys[6]);
    let roster = session.seal(&advertisements);
    let mut same = Session::of_seven(1);
    let (_, _, nonces) = same.until_reveals();
    let victims = nonces[&session.id(0)];
    assert_eq!(roster.check_reveal(&session.config, session.id(0), &victims.encode()), Ok(victims));
    let fault = roster.check_reveal(&session.config, session.id(6), &victims.encode());
    assert_eq!(fault, Err(Fault::AlteredReveal));
    let seeds = session.secrets();
    let opens =
        |entry: usize| roster.members()[entry].commits_to_seed(&session.config, seeds[0].seed.as_bytes());
    assert!(opens(0) && !opens(6));
}

/// The sum of a group of twelve in which client 5 deals shares of other secrets than it committed to, to the holders for
/// which `is_false` holds; it may drop out after that.
fn sum_with_a_false_dealer(
    parameters: &SessionParameters,
    drops_out: bool,
    is_false: impl Fn(usize) -> bool,
) -> (Result<Sum, Abort>, ClientId) {
    let members = parameters.group_size;
    let mut session = Session::new(parameters.clone(), members, 1);
    let secrets = session.secrets();
    let (states, mut server, mut boxes) = session.until_delivery();
    let dealer = session.id(5);
    let own = secrets.into_iter().find(|secrets| secrets.id == dealer).unwrap();
    let holders = Graph::new(members, parameters.degree).neighbours(5);
    let mut deal = |secret: u8| split(&[secret; 32], 4, holders.iter().copied(), &mut session.rng);
    let (masks, seeds) = (deal(1), deal(2));
    for (nth, &holder) in holders.iter().enumerate().filter(|(_, holder)| is_false(**holder)) {
        let agreed = own.boxes.agree(server.advertisements()[holder].box_key());
        let route = Route { transcript: server.transcript(), sender: 5, recipient: holder };
        let sealed = seal(&agreed, route, [*masks[nth].encode(), *seeds[nth].encode()].as_flattened());
        boxes[5][HEADER_LEN + nth * BOX_LEN..][..BOX_LEN].copy_from_slice(&sealed);
    }
    for (client, message) in boxes.iter().enumerate() {
        let id = session.id(client);
        server.apply_shares(id, server.check_shares(id, message).unwrap());
    }
    let deliveries = server.close_sharing().unwrap();
    let mut sum = server.accumulator();
    let mut waiting = BTreeMap::new();
    for (client, state) in states.into_iter().enumerate().filter(|(client, _)| !(drops_out && *client == 5)) {
        let id = session.id(client);
        let state = ok(state.on_delivery(&deliveries[&id]));
        let (state, message) = ok(state.submit(&session.inputs[client], &mut session.rng));
        let input = session.decode(&message).unwrap();
        sum.add(id, &input).unwrap();
        server.apply_masked_input(id, *input.digest());
        waiting.insert(client, state);
    }
    let message = server.close_collecting().unwrap();
    let mut signed = BTreeMap::new();
    for (client, state) in waiting {
        let (id, (state, reply)) = (session.id(client), ok(state.on_survivors(&message)));
        server.apply_consistency(id, server.check_consistency(id, &reply).unwrap());
        signed.insert(client, state);
    }
    (session.finish(signed, server, &sum), dealer)
}

/// B15, B16: a dealer whose shares are no shares of what it committed to. To all holders: there is nothing to correct,
/// and the group ends with the dealer's secret named. To one: corrected, and nobody blamed.
#[test]
fn inconsistent_shares_of_a_dealer() {
    for parameters in graphs_and_protocols() {
        for drops_out in [false, true] {
            let (result, dealer) = sum_with_a_false_dealer(&parameters, drops_out, |_| true);
            assert_eq!(result, Err(Abort::BadShares { owner: dealer }));
            let holder = Graph::new(parameters.group_size, parameters.degree).neighbours(5)[0];
            let (result, _) = sum_with_a_false_dealer(&parameters, drops_out, |at| at == holder);
            let mut values = vec![1; parameters.group_size];
            values[5] = u32::from(!drops_out);
            assert_eq!(result.unwrap(), Sum { values, blamed: Vec::new() });
        }
    }
}

/// B17: field elements and signatures have one encoding; another one of the same value is refused.
#[test]
fn non_canonical_scalars_of_shares_and_signatures() {
    // The group's order, little-endian: added to a canonical scalar it makes a second encoding of it.
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let add_order = |scalar: &mut [u8]| {
        let mut carry = 0;
        for (byte, order) in scalar.iter_mut().zip(ORDER) {
            carry += u16::from(*byte) + u16::from(order);
            *byte = carry as u8;
            carry >>= 8;
        }
    };
    let everyone: Vec<usize> = (0..7).collect();
    let mut session = Session::of_seven(1);
    let (mut clients, mut server, _) = session.until_survivors(&everyone);
    let message = server.close_collecting().unwrap();
    let (_, mut reply) = ok(clients.swap_remove(0).on_survivors(&message));
    assert!(server.check_consistency(session.id(0), &reply).is_ok());
    let scalar = reply.len() - 32;
    add_order(&mut reply[scalar..]);
    assert_eq!(server.check_consistency(session.id(0), &reply), Err(Fault::BadSignature));

    let mut session = Session::of_seven(1);
    let (mut clients, mut server, _) = session.until_signatures(&everyone);
    let signatures = server.close_consistency().unwrap();
    let mut reply = ok(clients.remove(&0).unwrap().on_signatures(&signatures[&session.id(0)]));
    assert!(server.check_unmask(session.id(0), &reply).is_ok());
    add_order(&mut reply[HEADER_LEN..HEADER_LEN + 32]);
    let fault = Fault::Malformed(CodecError::Value { field: "secret share" });
    assert_eq!(server.check_unmask(session.id(0), &reply).err(), Some(fault));
}
