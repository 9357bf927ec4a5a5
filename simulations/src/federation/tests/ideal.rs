//! Mode `insecure_ideal`: everything as with secure aggregation, and sums in the clear.

use super::*;
use fedveil_client_core::{PolicyRefusal, Refusal};

/// The same plan without masks, which its clients allow.
fn ideal(mut setup: Setup) -> Setup {
    setup.plan.mode = "insecure_ideal".to_owned();
    setup.policy.allow_insecure_plain = true;
    setup
}

#[test]
fn sums_are_those_of_secure_aggregation() {
    let vanish = |client, round, before| {
        [Kind::Input, Kind::PlainInput].contains(&before) && client == 4 && round == 2
    };
    let masked = finished(one_group(), Script::unit_vectors().vanishing(vanish));
    let clear = finished(ideal(one_group()), Script::unit_vectors().vanishing(vanish));
    assert_eq!(sums(&masked), sums(&clear));
    let members = |federation: &Scripted| charges(&federation.events());
    assert_eq!(members(&masked), members(&clear), "the same clients pay");
    let models = |federation: &Scripted| {
        published(&federation.events());
        federation.model().unwrap()
    };
    // Rotations follow from task, round and model, and the plan of the other mode is no other task by name.
    assert_eq!(models(&masked), models(&clear));
}

#[test]
fn the_noise_of_honest_clients_is_in_the_sums() {
    let zero = || Script::default().contributing(|_, _| Ok(Contribution::Update(vec![0.0; PARAMETERS])));
    let spread = |federation: &Scripted| {
        let sums = sums(federation);
        assert_eq!(sums.len(), 4);
        let squares = sums.values().flatten().map(|&value| (value as f64).powi(2));
        squares.sum::<f64>() / (4 * PARAMETERS) as f64
    };
    let clear = finished(ideal(groups_of_nine(2)), zero());
    let share = clear.coordinator().terms().guarantee.share.get() as f64;
    // 108 values of variance 9 shares each; five standard errors are 68 %.
    let found = spread(&clear) / (9.0 * share);
    assert!((0.32..1.68).contains(&found), "{found}");
}

#[test]
fn groups_are_as_large_and_drawn_anew_in_each_round() {
    let federation = finished(ideal(groups_of_nine(3)), Script::unit_vectors());
    let charged = charges(&federation.events());
    assert_eq!(charged.values().map(BTreeSet::len).collect::<Vec<_>>(), [9; 6]);
    let of = |round| -> BTreeSet<_> { (0..3).map(|group| charged[&(round, group)].clone()).collect() };
    assert_ne!(of(1), of(2));
    for (group, sum) in sums(&federation) {
        let expected: Vec<i64> = (0..PARAMETERS)
            .map(|client| charged[&group].contains(&federation.devices()[client].id()).into())
            .collect();
        assert_eq!(sum, expected, "round and group {group:?}");
    }
}

#[test]
fn a_group_that_is_too_small_is_withheld_and_a_rule_works_on_the_rest() {
    let mut setup = ideal(groups_of_nine(4));
    (setup.plan.server.rule, setup.plan.server.assumed_byzantine) = ("mda".to_owned(), 1);
    let poisoned = |client: usize, _| {
        let value = if client == 5 { 1 << 15 } else { 1 };
        Ok(Contribution::DangerUnbounded(vec![value; PARAMETERS]))
    };
    let federation = finished(setup, Script::default().contributing(poisoned));
    let decisions = |federation: &Scripted, decision| -> Vec<usize> {
        let count = |event: Event| match event {
            Event::Published { round: 1.., groups, .. } => {
                Some(groups.iter().filter(|group| group.decision == decision).count())
            }
            _ => None,
        };
        federation.events().into_iter().filter_map(count).collect()
    };
    assert_eq!(decisions(&federation, fedveil_provenance::Decision::Dropped), [1, 1]);

    // Two of one group are gone in round 1: with 7 of 9 it is withheld, whichever group that is.
    let ids = finished(ideal(groups_of_nine(2)), Script::default());
    let first = charges(&ids.events()).remove(&(1, 0)).unwrap();
    let gone: Vec<usize> = first.iter().take(2).map(|client| ids.index_of(client).unwrap()).collect();
    let vanish =
        move |client, round, before| before == Kind::PlainInput && round == 1 && gone.contains(&client);
    let federation = finished(ideal(groups_of_nine(2)), Script::default().vanishing(vanish));
    assert_eq!(decisions(&federation, fedveil_provenance::Decision::Withheld), [1, 0]);
    assert!(!charges(&federation.events()).contains_key(&(1, 0)), "who is not in a sum is not charged");
}

#[test]
fn a_plan_without_masks_is_refused_unless_the_owner_allows_it() {
    let mut setup = ideal(one_group());
    setup.policy.allow_insecure_plain = false;
    let mut federation = finished(setup, Script::default());
    assert_eq!(published(&federation.events()), [0], "nobody takes part");
    let refusals = federation.devices()[0].refusals();
    assert!(matches!(refusals, [Refusal::Policy(PolicyRefusal::InsecureIdeal)]), "{refusals:?}");
    assert_eq!(sent_by(&mut federation, 0, Kind::PlainInput), 0);
}

#[test]
fn inputs_that_are_not_awaited_are_refused() {
    let twice = |now, message: Message| {
        let copies = if message.client == 0 && message.kind == Kind::PlainInput { 2 } else { 1 };
        vec![(now, message); copies]
    };
    let federation = finished(ideal(one_group()), Script::unit_vectors().routing(twice));
    for (_, sum) in sums(&federation) {
        assert!(sum[0] <= 1, "{sum:?}");
    }
    let told = federation.scenario().sent.iter().filter(|message| message.kind == Kind::Reject).count();
    assert_eq!(told, 2, "one in each round");
    // A masked input has no place here, nor has a message of a session.
    for kind in [Kind::Input, Kind::Advertise, Kind::Shares] {
        let mut federation = super::federation(ideal(one_group()), Script::unit_vectors());
        assert!(
            federation.run_until(|federation| federation.coordinator().phase() == Some((1, "collecting")))
        );
        let bytes = Bytes::from_static(&[0; 8]);
        federation.inject(Message { client: 0, direction: Direction::Up, kind, bytes });
        federation.run();
        let is_it = |event: &Event| matches!(event, Event::ClientDropped { reason, .. } if *reason == format!("{kind:?} message in the phase collecting"));
        assert!(federation.events().iter().any(is_it), "{kind:?}");
    }
}

#[test]
fn replaying_the_events_gives_the_same_state() {
    let mut federation = federation(ideal(groups_of_nine(2)), Script::default());
    loop {
        let mut core = Coordinator::new(federation.settings.clone()).unwrap();
        federation.events().iter().for_each(|event| core.apply(event));
        let told =
            |core: &Coordinator| (core.phase(), core.model(), core.epsilon_spent(), core.poll_timeout());
        assert_eq!(told(&core), told(federation.coordinator()));
        if !federation.step() {
            break;
        }
    }
    assert_eq!(published(&federation.events()), [0, 1, 2]);
}
