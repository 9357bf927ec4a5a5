//! Clients that poison are named and put in quarantine; others are not, and whoever is there can get out.

use super::*;
use fedveil_coordinator_core::{Quarantine, QuarantineMode};

/// Who poisons.
const POISONED: usize = 3;

/// 26 clients in six groups, of which the median bears one bad one; two clients more than a round needs.
fn setup(rounds: u32) -> Setup {
    let mut setup = one_group();
    setup.plan.cohort = Cohort { clients: 26, minimum: 24, assumed_malicious: 1, population: None };
    let aggregation = &mut setup.plan.aggregation;
    (aggregation.group_size, aggregation.threshold, aggregation.min_survivors) = (4, 3, 4);
    aggregation.max_missing_reveals = 0;
    (setup.policy.min_survivors, setup.policy.min_colluders_to_break) = (4, 2);
    setup.plan.rounds = rounds;
    setup.plan.privacy.epsilon = 200.0;
    (setup.plan.server.rule, setup.plan.server.assumed_byzantine) = ("median".to_owned(), 1);
    (setup.policy.max_epsilon, setup.policy.max_total_epsilon) = (200.0, 200.0);
    setup.clients = 26;
    setup
}

fn quarantine(mode: QuarantineMode) -> Quarantine {
    let contact = "ops@example.org".to_owned();
    Quarantine { mode, false_alarm: 0.05, clients: 26, minimum_rounds: 3, contact }
}

/// Everyone but the poisoned client contributes the same small update.
#[expect(clippy::unnecessary_wraps, reason = "the shape of a script's contributions")]
fn poisoned(client: usize, _round: u32) -> Result<Contribution, String> {
    Ok(match client {
        POISONED => Contribution::DangerUnbounded(vec![20 * 1024; PARAMETERS]),
        _ => Contribution::Update(vec![0.01; PARAMETERS]),
    })
}

fn watched(rounds: u32, mode: QuarantineMode, script: Script) -> Scripted {
    federation(setup(rounds), script).with_quarantine(quarantine(mode)).unwrap()
}

/// Rounds and clients of the events that `pick` picks.
fn decided(federation: &Scripted, pick: impl Fn(&Event) -> Option<(u32, Client)>) -> Vec<(u32, usize)> {
    let events = federation.events();
    let found = events.iter().filter_map(pick);
    found.map(|(round, client)| (round, federation.index_of(&client).unwrap())).collect()
}

fn suspected(federation: &Scripted) -> Vec<(u32, usize)> {
    decided(federation, |event| match event {
        Event::ClientSuspected { client, round, .. } => Some((*round, *client)),
        _ => None,
    })
}

fn quarantined(federation: &Scripted) -> Vec<(u32, usize)> {
    decided(federation, |event| match event {
        Event::ClientQuarantined { client, round, .. } => Some((*round, *client)),
        _ => None,
    })
}

/// Rounds whose cohort the client was in.
fn drawn(federation: &Scripted, client: usize) -> Vec<u32> {
    let id = federation.devices()[client].id();
    let opened = |event| match event {
        Event::RoundOpened { round, cohort, .. } => cohort.contains(&id).then_some(round),
        _ => None,
    };
    federation.events().into_iter().filter_map(opened).collect()
}

/// What the client was told about its quarantine.
fn told(federation: &mut Scripted, client: usize) -> Vec<String> {
    let is_it = |message: &&Message| (message.client, message.kind) == (client, Kind::Reject);
    let text = |message: &Message| String::from_utf8(message.bytes.to_vec()).unwrap();
    let told: Vec<String> = federation.scenario().sent.iter().filter(is_it).map(text).collect();
    told.into_iter().filter(|text| text.contains("quarantine")).collect()
}

#[test]
fn a_poisoned_client_is_named_and_drawn_no_more() {
    let script = Script::default().contributing(poisoned);
    let mut federation = watched(14, QuarantineMode::Automatic, script);
    federation.run();
    let (named, held) = (suspected(&federation), quarantined(&federation));
    let [(first, POISONED)] = named[..] else { panic!("{named:?} were suspected") };
    let [(last, POISONED)] = held[..] else { panic!("{held:?} are in quarantine") };
    assert!(first <= 7 && first < last && last <= 10, "suspected in round {first}, in quarantine in {last}");
    assert_eq!(drawn(&federation, POISONED), (1..=last).collect::<Vec<_>>());
    assert_eq!(drawn(&federation, 0), (1..=14).collect::<Vec<_>>());
    assert_eq!(published(&federation.events()).len(), 15, "the others went on");
    // It is told why and whom to ask, and is given every model all the same.
    let told = told(&mut federation, POISONED);
    let [text] = &told[..] else { panic!("{told:?}") };
    assert!(text.starts_with("in quarantine: its group was among the 1 most suspicious in "), "{text}");
    assert!(text.contains("to appeal, turn to ops@example.org"), "{text}");
    assert_eq!(federation.devices()[POISONED].model().unwrap().0, 14);
    let suspicion = federation.coordinator().suspicion();
    let again = fedveil_coordinator_core::Suspicion::of(
        &quarantine(QuarantineMode::Automatic),
        federation.coordinator().plan().plan(),
        &federation.events(),
    )
    .unwrap();
    let ranking = |of: &fedveil_coordinator_core::Suspicion| of.decoder().unwrap().ranking();
    assert_eq!(ranking(suspicion), ranking(&again), "the events say all that the coordinator knew");
    assert_eq!(suspicion.quarantined(), again.quarantined());
}

#[test]
fn reports_name_and_do_nothing() {
    let script = Script::default().contributing(poisoned);
    let mut federation = watched(9, QuarantineMode::Report, script);
    federation.run();
    assert_eq!(suspected(&federation).iter().map(|(_, client)| *client).collect::<Vec<_>>(), [POISONED]);
    assert_eq!(quarantined(&federation), []);
    assert_eq!(drawn(&federation, POISONED), (1..=9).collect::<Vec<_>>());
    assert_eq!(told(&mut federation, POISONED), Vec::<String>::new());
}

#[test]
fn nobody_is_named_where_nobody_poisons_nor_where_it_is_off() {
    let mut honest = watched(12, QuarantineMode::Automatic, Script::default());
    honest.run();
    assert_eq!((suspected(&honest), quarantined(&honest)), (vec![], vec![]));
    assert_eq!(honest.coordinator().suspicion().decoder().unwrap().ranking().len(), 26);
    let mut off = watched(9, QuarantineMode::Off, Script::default().contributing(poisoned));
    off.run();
    assert_eq!((suspected(&off), quarantined(&off)), (vec![], vec![]));
}

#[test]
fn a_released_client_is_drawn_again_and_its_evidence_begins_anew() {
    let script = Script::default().contributing(poisoned);
    let mut federation = watched(14, QuarantineMode::Automatic, script);
    assert!(
        federation.run_until(|federation| !federation.coordinator().suspicion().quarantined().is_empty())
    );
    let client = federation.devices()[POISONED].id();
    let held = quarantined(&federation)[0].0;
    assert!(federation.run_until(|federation| drawn(federation, 0).contains(&(held + 1))));
    federation.command(Command::Release { client, reason: "its data\nwas checked".to_owned() });
    let event = Event::ClientReleased { client, reason: "its data?was checked".to_owned() };
    assert_eq!(federation.events().last(), Some(&event));
    assert_eq!(
        told(&mut federation, POISONED).last().unwrap(),
        "released from quarantine: its data?was checked"
    );
    assert_eq!(federation.coordinator().suspicion().decoder().unwrap().evidence(&client), None);
    // Who is not there cannot be released.
    let events = federation.events().len();
    federation.command(Command::Release { client, reason: "again".to_owned() });
    assert_eq!(federation.events().len(), events);
    assert!(federation.run_until(|federation| drawn(federation, POISONED).contains(&(held + 2))));
    assert_eq!(quarantined(&federation), [(held, POISONED)]);
}

#[test]
fn quarantine_outlives_a_crash_and_a_new_session() {
    let script = Script::default().contributing(poisoned);
    let mut federation = watched(11, QuarantineMode::Automatic, script);
    assert!(
        federation.run_until(|federation| !federation.coordinator().suspicion().quarantined().is_empty())
    );
    let evidence = federation.coordinator().suspicion().decoder().unwrap().ranking();
    federation.crash();
    assert_eq!(federation.coordinator().suspicion().decoder().unwrap().ranking(), evidence);
    let before = drawn(&federation, POISONED);
    federation.run();
    assert_eq!(drawn(&federation, POISONED), before);
    assert!(drawn(&federation, 0).len() > before.len(), "the others went on");
    // When it comes back it is told again.
    assert_eq!(told(&mut federation, POISONED).len(), 2);
}

#[test]
fn a_quarantine_that_would_leave_too_few_is_refused_or_waived() {
    let mut starved = setup(1);
    starved.plan.cohort.minimum = 26;
    let refused = federation(starved, Script::default())
        .with_quarantine(quarantine(QuarantineMode::Automatic))
        .err()
        .expect("one of 26 in quarantine leaves too few");
    let expected =
        "may take cohort.assumed_malicious 1 of 26 clients away, and cohort.minimum 26 would never be there";
    assert!(refused.to_string().contains(expected), "{refused}");
    // More clients may come than ever do.
    let mut short = setup(10);
    (short.clients, short.plan.cohort.minimum) = (24, 24);
    let settings = Quarantine { clients: 70, ..quarantine(QuarantineMode::Automatic) };
    let script = Script::default().contributing(poisoned);
    let mut federation = federation(short, script).with_quarantine(settings).unwrap();
    let is_waived = |event: &Event| matches!(event, Event::QuarantineWaived { .. });
    assert!(federation.run_until(|federation| federation.events().iter().any(is_waived)));
    let end = federation.events().len();
    let client = federation.devices()[0].id();
    federation.command(Command::Quarantine { client, reason: "no reason".to_owned() });
    assert_eq!(federation.events().len(), end, "nor by order");
    federation.run();
    assert_eq!(quarantined(&federation), []);
    let waived: Vec<Event> = federation.events().into_iter().filter(is_waived).collect();
    let [Event::QuarantineWaived { client, reason, .. }] = &waived[..] else { panic!("{waived:?}") };
    assert_eq!(federation.index_of(client), Some(POISONED));
    assert_eq!(reason, "fewer than cohort.minimum clients would be left");
    let end = federation.events().len();
    federation.command(Command::Quarantine { client: *client, reason: "too late".to_owned() });
    assert_eq!(federation.events().len(), end, "nor once the task is closed");
}

#[test]
fn the_operator_can_quarantine_a_client_of_the_round_in_progress() {
    let mut federation = watched(2, QuarantineMode::Report, Script::default());
    assert!(federation.run_until(|federation| federation.coordinator().phase() == Some((1, "keys"))));
    let client = federation.devices()[5].id();
    let order = |reason: &str| Command::Quarantine { client, reason: reason.to_owned() };
    federation.command(order("it asked to leave"));
    let stranger = Digest::of("nobody");
    let before = federation.events().len();
    federation.command(order("twice"));
    federation.command(Command::Quarantine { client: stranger, reason: "who".to_owned() });
    assert_eq!(federation.events().len(), before, "once, and nobody who never joined");
    federation.run();
    assert_eq!((drawn(&federation, 5), quarantined(&federation)), (vec![1], vec![(1, 5)]));
    assert!(told(&mut federation, 5)[0].starts_with("in quarantine: it asked to leave. "));
    assert_eq!(published(&federation.events()), [0, 1, 2]);
}
