//! A coordinator that lies together with some of the members. Every attack is shown to work as well: with as many
//! colluders as it takes, or without the defence that stops it. Member 0 is the victim.

use std::collections::BTreeSet;

use super::super::agreement::{pairwise_mask_key, self_mask_key};
use super::super::graph::Graph;
use super::super::messages::{Delivery, MemberSet};
use super::super::prg::Sign;
use super::super::shamir::Share;
use super::adversary::{Attack, Shared};
use super::*;

/// One group of fourteen on a ring of degree six: the smallest that can be cut into two arcs.
fn fourteen() -> SessionParameters {
    SessionParameters { length: 14, group_size: 14, min_cohort: 14, max_cohort: 14, ..twelve() }
}

/// B19, with a coordinator that keeps to the protocol: the shares in the hands of t of the victim's neighbours are
/// its secrets, and those of t − 1 are nothing.
#[test]
fn colluding_holders_below_the_threshold_learn_nothing_and_at_it_everything() {
    for parameters in graphs_and_protocols() {
        let threshold = parameters.threshold;
        for colluders in 0..=6 {
            let neighbours = Graph::new(parameters.group_size, parameters.degree).neighbours(0);
            let mut attack = Attack::new(parameters.clone(), &neighbours[..colluders]);
            let everyone = attack.members();
            attack.run(&everyone, &everyone);
            attack.assert_sum(&everyone);
            if colluders < threshold {
                assert_eq!(attack.sum(&[0]), None, "{colluders} colluders");
            } else {
                attack.assert_sum(&[0]);
            }
        }
    }
}

/// A1, in one request: an answer is one share of one kind for each neighbour, the one that the signed set says.
#[test]
fn one_answer_never_carries_both_share_kinds() {
    for parameters in graphs_and_protocols() {
        // What member 1 holds, from its boxes; then it answers as an honest member does.
        let held = Attack::new(parameters.clone(), &[1]).shares;
        let mut attack = Attack::new(parameters, &[]);
        let submitters = attack.without(&[0]);
        let (answers, _) = attack.tell(&submitters, &submitters);
        attack.hear(&submitters, &answers);
        for owner in attack.graph.neighbours(1) {
            let (told, kept) =
                if owner == 0 { (Shared::Mask, Shared::Seed) } else { (Shared::Seed, Shared::Mask) };
            let share = |shares: &BTreeMap<_, BTreeMap<usize, Share>>, kind| {
                shares.get(&(owner, kind)).and_then(|by_holder| by_holder.get(&1)).map(Share::encode)
            };
            assert_eq!(share(&attack.shares, told), share(&held, told));
            assert_eq!(share(&attack.shares, kept), None);
            assert_ne!(share(&held, kept), share(&held, told));
        }
    }
}

/// A1, in two sessions: what the coordinator learns of a client that drops out of one says nothing about its input in
/// another.
#[test]
fn share_kinds_of_two_sessions_do_not_combine() {
    let first = {
        let mut attack = Attack::new(seven(), &[]);
        attack.run(&[0, 1, 2, 3, 4, 5, 6], &[0, 1, 2, 3, 4, 5, 6]);
        attack
    };
    let victim = first.session.id(0);
    let second = {
        let session = Session::of_seven(2);
        let secrets = session.secrets();
        secrets.into_iter().find(|secrets| secrets.id == victim).unwrap()
    };
    assert_eq!(first.sum(&[0]), None);
    // Say that in the second session its mask secret became known.
    let unmask = |masks: &Secret| {
        let seed = first.secret(0, Shared::Seed).unwrap();
        let own = (self_mask_key(&first.transcript, seed.as_bytes(), 0), Sign::Minus);
        let pairwise = (1..7).map(|other| {
            let key = pairwise_mask_key(&first.transcript, masks, 0, &first.mask_keys[other], other);
            (key, Sign::Minus)
        });
        let mut layers = first.uploads[0].clone();
        Prg::Aes256Ctr.apply(std::iter::once(own).chain(pairwise), &mut layers.masked);
        first.session.config.protocol().decode(&first.transcript, layers)
    };
    assert_ne!(unmask(&second.masks), first.session.inputs[0]);
    let its_own = Session::of_seven(1).secrets().into_iter().find(|secrets| secrets.id == victim).unwrap();
    assert_eq!(unmask(&its_own.masks), first.session.inputs[0]);
}

/// Some are told that the victim survived, the members in `dropped` that it dropped out. An honest member takes part in
/// one of the two stories, colluders in both.
fn both_share_kinds(parameters: SessionParameters, colluders: &[usize], dropped: &[usize]) -> Attack {
    let mut attack = Attack::new(parameters, colluders);
    let everyone = attack.members();
    attack.run(&everyone, &attack.without(dropped));
    attack.run(&everyone[1..], dropped);
    attack
}

/// A1, A2. Seven members, six neighbours each, t = 4: it takes at least 2 · 4 − 6 = 2 colluders, however the honest are
/// divided. In a complete graph it takes one more, since those who are told that the victim dropped out want the
/// signatures of t others.
#[test]
fn both_share_kinds_for_one_client_take_the_stated_number_of_colluders() {
    for protocol in ProtocolKind::ALL {
        let parameters = SessionParameters { protocol, ..seven() };
        assert_eq!(SessionConfig::new(parameters.clone()).unwrap().colluders_to_break(7), 2);
        for colluders in [&[6][..], &[5, 6]] {
            let honest: Vec<usize> = (1..7).filter(|client| !colluders.contains(client)).collect();
            for split in 0..=honest.len() {
                let attack = both_share_kinds(parameters.clone(), colluders, &honest[split..]);
                assert_eq!(attack.sum(&[0]), None, "{colluders:?}, split {split}");
            }
        }
        both_share_kinds(parameters, &[4, 5, 6], &[2, 3]).assert_sum(&[0]);
    }
}

/// A1, A2. On a ring those who are told that the victim dropped out have neighbours besides its, so that the stated
/// number of colluders among its neighbours, and more elsewhere, can be enough. One fewer is not.
#[test]
fn both_share_kinds_on_a_ring_take_the_stated_number_of_neighbours() {
    // The victim's neighbours are 1, 2, 3, 9, 10 and 11.
    let far = [4, 5, 6, 7, 8];
    for protocol in ProtocolKind::ALL {
        let parameters = SessionParameters { protocol, ..twelve() };
        assert_eq!(SessionConfig::new(parameters.clone()).unwrap().colluders_to_break(12), 2);
        both_share_kinds(parameters, &[&[2, 10], &far[..]].concat(), &[3, 9]).assert_sum(&[0]);
    }
    let colluders = [&[10], &far[..]].concat();
    for split in 0..32_u32 {
        let dropped: Vec<usize> = [1, 2, 3, 9, 11]
            .into_iter()
            .enumerate()
            .filter_map(|(nth, at)| (split >> nth & 1 == 1).then_some(at))
            .collect();
        let attack = both_share_kinds(twelve(), &colluders, &dropped);
        assert_eq!(attack.sum(&[0]), None, "dropped for {dropped:?}");
    }
}

/// A3: a second sum of the same session, over all but the victim, would give its vector away by the difference. The
/// members answered once, so there is none; had they answered twice, there would be.
#[test]
fn difference_of_two_sums() {
    for parameters in graphs_and_protocols() {
        let mut attack = Attack::new(parameters.clone(), &[]);
        let everyone = attack.members();
        let others = attack.without(&[0]);
        attack.run(&everyone, &everyone);
        attack.assert_sum(&everyone);
        assert!(attack.waiting.is_empty(), "nobody is left to sign another set");
        assert_eq!(attack.sum(&others), None);
        assert_eq!(attack.sum(&[0]), None);

        // Equal seeds make equal sessions: the same members, asked as if they had not answered before.
        let mut twin = Attack::new(parameters, &[]);
        twin.run(&others, &others);
        for ((owner, kind), shares) in twin.shares {
            attack.shares.entry((owner, kind)).or_default().extend(shares);
        }
        attack.assert_sum(&others);
        attack.assert_sum(&[0]);
    }
}

/// A11: of the victim's neighbours the honest ones are all declared dropped. With fewer than t colluders around it, it
/// refuses, and its self mask stays.
#[test]
fn isolation_of_a_client_takes_a_threshold_of_colluders_around_it() {
    for protocol in ProtocolKind::ALL {
        let parameters = SessionParameters { protocol, min_survivors: 5, ..twelve() };
        let neighbours = Graph::new(12, 6).neighbours(0);
        for colluders in 0..=6 {
            let mut attack = Attack::new(parameters.clone(), &neighbours[..colluders]);
            let submitters = attack.without(&neighbours[colluders..]);
            let refusals = attack.run(&submitters, &submitters);
            if colluders < 4 {
                assert_eq!(refusals[&0], Refusal::TooFewSignatures { found: colluders, min: 4 });
                assert_eq!(attack.sum(&[0]), None);
            } else {
                assert!(!refusals.contains_key(&0));
                attack.assert_sum(&[0]);
            }
        }
    }
}

/// A11, before the victim sends anything: too few of its neighbours' boxes.
#[test]
fn isolation_of_a_client_while_secrets_are_shared() {
    let on_delivery = |sharers: &[usize]| {
        let mut session = Session::of_twelve(1);
        let (mut clients, server, shares) = session.until_delivery();
        let graph = Graph::new(12, 6);
        let set = MemberSet::of(12, sharers.iter().copied());
        let neighbours = graph.neighbours(0);
        let boxes: Vec<_> = set
            .among(&neighbours)
            .map(|owner| {
                let nth = graph.neighbours(owner).binary_search(&0).unwrap();
                server.check_shares(session.id(owner), &shares[owner]).unwrap().boxes[nth]
            })
            .collect();
        clients.swap_remove(0).on_delivery(&Delivery::encode(&set, boxes.iter()))
    };
    ok(on_delivery(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]));
    let refused = refusal(on_delivery(&[0, 1, 2, 3, 4, 5, 6, 7, 8]));
    assert_eq!(refused, Refusal::TooFewNeighbours { found: 3, min: 4 });
}

/// Two runs of k/2 places that cut the ring into two arcs, a colluder in the middle of either. It is one set of
/// survivors, and everybody signs it.
const RUNS: [[usize; 3]; 2] = [[4, 5, 6], [11, 12, 13]];

fn cut(protocol: ProtocolKind, colluders: &[usize], alive: &[usize]) -> Attack {
    let mut attack = Attack::new(SessionParameters { protocol, ..fourteen() }, colluders);
    let dropped: Vec<usize> = RUNS.into_iter().flatten().filter(|at| !alive.contains(at)).collect();
    let submitters = attack.without(&dropped);
    attack.run(&submitters, &submitters);
    attack
}

/// A11: no neighbourhood has the colluders to break it, and yet two sums come out where one was meant to. It takes the
/// same number of them in the two runs together, and gives arcs of at least k − t + 2 = 4 honest members.
#[test]
fn a_ring_is_cut_in_two_by_the_stated_number_of_colluders() {
    let (arc, other) = ([0, 1, 2, 3], [7, 8, 9, 10]);
    for protocol in ProtocolKind::ALL {
        let attack = cut(protocol, &[5, 12], &[5, 12]);
        for member in attack.members() {
            let near = attack.graph.neighbours(member).iter().filter(|at| [5, 12].contains(at)).count();
            assert!(near < attack.session.config.colluders_to_break(14), "no neighbourhood falls");
            assert!([5, 12].contains(&member) || attack.sum(&[member]).is_none());
        }
        attack.assert_sum(&arc);
        attack.assert_sum(&other);
        for one in 0..4 {
            let without: Vec<usize> = arc.into_iter().filter(|at| *at != one).collect();
            assert_eq!(attack.sum(&without), None, "no part of an arc comes out");
        }
    }
    // One colluder less, wherever the other one is: the members beside a run without any refuse.
    for colluder in RUNS.into_iter().flatten() {
        let attack = cut(ProtocolKind::PairwiseMask, &[colluder], &[colluder]);
        assert_eq!((attack.sum(&arc), attack.sum(&other)), (None, None), "one colluder, at {colluder}");
    }
    // A run that is shorter by one honest member holds the ring together.
    for survivor in [4, 6, 11, 13] {
        let attack = cut(ProtocolKind::PairwiseMask, &[5, 12], &[5, 12, survivor]);
        assert_eq!((attack.sum(&arc), attack.sum(&other)), (None, None), "{survivor} survives");
    }
}

/// A12: what others release of a client that was declared dropped takes the pairwise masks off its late input. The self
/// mask stays.
#[test]
fn false_dropout_of_a_client_whose_input_comes_late() {
    for parameters in graphs_and_protocols() {
        let mut attack = Attack::new(parameters, &[]);
        let others = attack.without(&[0]);
        attack.run(&others, &others);
        attack.assert_sum(&others);
        assert!(attack.secret(0, Shared::Mask).is_some(), "its mask secret is known");
        assert_eq!(attack.sum(&[0]), None);
        // Nothing but the self mask hides it.
        let seeds = Session::new(attack.session.config.parameters().clone(), others.len() + 1, 1).secrets();
        let victim = seeds.into_iter().find(|secrets| secrets.id == attack.session.id(0)).unwrap();
        attack.colluders.insert(0, (victim.masks, victim.seed));
        attack.assert_sum(&[0]);
    }
}

/// A13: with everyone else colluding, a sum is over one. A coordinator that only claims so is refused.
#[test]
fn sum_over_a_single_client() {
    for parameters in graphs_and_protocols() {
        let group = parameters.group_size;
        let mut attack = Attack::new(parameters.clone(), &[]);
        let refusals = attack.run(&[0], &[0]);
        let min = parameters.min_survivors;
        assert_eq!(refusals[&0], Refusal::TooFewSurvivors { found: 1, min });
        assert_eq!(attack.sum(&[0]), None);

        let everyone: Vec<usize> = (0..group).collect();
        let mut attack = Attack::new(parameters, &everyone[1..]);
        attack.run(&everyone, &[0]);
        attack.assert_sum(&[0]);
    }
}

/// C: more members are lost before their last message than the group bears. Whatever it answered until then, no sum over
/// any of its members comes out.
#[test]
fn too_few_answers_release_no_sum_over_anybody() {
    for parameters in graphs_and_protocols() {
        if parameters.group_size > 7 {
            continue;
        }
        for answered in 0..=7 {
            let mut attack = Attack::new(parameters.clone(), &[]);
            let everyone = attack.members();
            let (mut answers, _) = attack.tell(&everyone, &everyone);
            answers.retain(|holder, _| *holder < answered);
            attack.hear(&everyone, &answers);
            for subset in 1..1_usize << 7 {
                let of: Vec<usize> = everyone.iter().copied().filter(|at| subset >> at & 1 == 1).collect();
                let recoverable = of.len() == 7 && answered >= 5;
                assert_eq!(attack.sum(&of).is_some(), recoverable, "{answered} answers, sum over {of:?}");
            }
        }
    }
}

/// The secrets of all are as the protocol draws them, so that what the harness calls a colluder's is its own.
#[test]
fn the_harness_knows_the_secrets_of_colluders() {
    let attack = Attack::new(twelve(), &[0, 5]);
    for (colluder, (masks, _)) in &attack.colluders {
        assert_eq!(masks.public_key(), attack.mask_keys[*colluder]);
    }
    assert_eq!(attack.colluders.keys().copied().collect::<BTreeSet<_>>(), BTreeSet::from([0, 5]));
}
