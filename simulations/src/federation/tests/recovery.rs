//! Crashes: what is durable is enough to go on, and nothing is done twice.

use super::*;

/// 5 clients in one group, small enough to crash after every single step.
pub(super) fn small() -> Setup {
    let mut setup = one_group();
    setup.plan.cohort = Cohort { clients: 5, minimum: 4, assumed_malicious: 1, population: None };
    setup.plan.aggregation = Aggregation {
        protocol: "pairwise-mask".to_owned(),
        group_size: 4,
        degree: 64,
        threshold: 3,
        min_survivors: 4,
        max_missing_reveals: 0,
        masks: "aes-256-ctr".to_owned(),
        break_probability: 0.0,
    };
    setup.clients = 5;
    setup.policy = Policy { min_survivors: 4, min_colluders_to_break: 2, ..Policy::default() };
    setup
}

/// The same without groups; with a population, cohorts are drawn by coins.
fn small_in_the_clear(placement: &str, population: Option<u32>) -> Setup {
    let mut setup = plain::in_the_clear(placement);
    let cohort = Cohort { clients: 5, minimum: 4, assumed_malicious: 1, population };
    (setup.plan.cohort, setup.clients) = (cohort, 5);
    setup
}

fn setups() -> [Setup; 4] {
    [
        small(),
        small_in_the_clear("local", None),
        small_in_the_clear("central", None),
        small_in_the_clear("central", Some(10)),
    ]
}

/// All that a coordinator tells of its state.
pub(super) fn state(core: &Coordinator) -> impl PartialEq + std::fmt::Debug + use<> {
    (
        core.phase(),
        core.closed().map(str::to_owned),
        core.epsilon_spent(),
        core.model(),
        core.log().head(),
        core.poll_timeout(),
    )
}

pub(super) fn replayed(settings: &Settings, events: &[Event]) -> Coordinator {
    let mut core = Coordinator::new(settings.clone()).unwrap();
    for event in events {
        core.apply(event);
    }
    core
}

#[test]
fn replaying_the_events_gives_the_state_after_every_step() {
    for setup in setups() {
        let vanish = |client, round, before| {
            [Kind::Input, Kind::PlainInput].contains(&before) && client == 1 && round == 1
        };
        let mut federation = federation(setup, Script::default().vanishing(vanish));
        loop {
            let core = replayed(&federation.settings, &federation.events());
            assert_eq!(state(&core), state(federation.coordinator()));
            if !federation.step() {
                break;
            }
        }
        assert_eq!(published(&federation.events()), [0, 1, 2]);
    }
}

#[test]
fn every_prefix_of_the_events_recovers_into_a_task_without_a_round() {
    setups().into_iter().for_each(recovers_from_every_prefix);
}

fn recovers_from_every_prefix(setup: Setup) {
    let federation = finished(setup, Script::default());
    let events = federation.events();
    for length in 0..=events.len() {
        let before = replayed(&federation.settings, &events[..length]);
        let store = Archive::new(&Keep::Everything);
        store.append(&events[..length], &[]).unwrap();
        let mut driver = Driver::new(Coordinator::new(federation.settings.clone()).unwrap(), store).unwrap();
        let outcomes = driver.handle(vec![Command::Recover], Millis(1), [0; 32]).unwrap();

        let core = driver.core();
        assert_eq!(core.phase(), None, "after {length} events");
        assert_eq!(core.epsilon_spent(), before.epsilon_spent(), "after {length} events");
        assert_eq!((core.model(), core.log().head()), (before.model(), before.log().head()));
        let was_in_a_round = before.phase().is_some();
        assert_eq!(aborted(&outcomes.events).len(), usize::from(was_in_a_round), "after {length} events");
        let harmless = |event: &Event| {
            matches!(event, Event::ClientLeft { .. } | Event::RoundAborted { .. } | Event::TaskClosed { .. })
        };
        assert!(outcomes.events.iter().all(harmless), "after {length} events: {:?}", outcomes.events);
    }
}

/// Rounds in which each client was charged by the coordinator.
fn charged(events: &[Event]) -> BTreeMap<Client, u32> {
    let mut counts = BTreeMap::new();
    for client in charges(events).into_values().flatten() {
        *counts.entry(client).or_default() += 1;
    }
    counts
}

fn check_after_crashes(federation: &mut Scripted) {
    let events = federation.events();
    assert_eq!(end(&events), "all 2 rounds are done");
    // Panics if a group was summed twice.
    sums(federation);
    let rounds: Vec<u32> = events
        .iter()
        .filter_map(|event| match event {
            Event::RoundOpened { round, .. } => Some(*round),
            _ => None,
        })
        .collect();
    assert_eq!(rounds, [1, 2], "a round number is used once");
    let charged = charged(&events);
    let models: Vec<Digest> = events
        .iter()
        .filter_map(|event| match event {
            Event::Published { model, .. } => Some(*model),
            _ => None,
        })
        .collect();
    for client in 0..federation.devices().len() {
        let inputs = sent_by(federation, client, Kind::Input) + sent_by(federation, client, Kind::PlainInput);
        let unmaskings = sent_by(federation, client, Kind::Unmask);
        let device = &federation.devices()[client];
        assert!(device.refusals().is_empty(), "{:?}", device.refusals());
        // Who was away when the task closed may have missed the last one.
        assert!(device.model().is_none_or(|(_, file)| models.contains(&Digest::of(file))));
        let participations = device.record().tasks.values().next().unwrap().participations;
        // With coins, who was not drawn is charged too.
        let by_coins = federation.coordinator().plan().plan().cohort.population.is_some();
        assert!(by_coins || participations >= charged.get(&device.id()).copied().unwrap_or(0));
        let charged = participations as usize;
        assert!(
            charged == inputs || (by_coins && charged > inputs),
            "client {client} charges itself for every input"
        );
        assert!(
            unmaskings <= inputs && inputs <= 2,
            "client {client}: {inputs} inputs, {unmaskings} answers"
        );
    }
}

#[test]
fn a_crash_after_any_step_costs_at_most_the_round_and_never_its_charge() {
    let steps = setups().map(|setup| crashes_after_every_step(&setup));
    assert!(steps[0] > 60 && steps[1..].iter().all(|&steps| steps > 20), "{steps:?} steps in the whole task");
}

/// Gives how many steps there are.
fn crashes_after_every_step(setup: &Setup) -> usize {
    let mut steps = 0;
    loop {
        let mut federation = federation(setup.clone(), Script::default());
        let mut more = true;
        for _ in 0..steps {
            more = federation.step();
        }
        let before = federation.events();
        let (phase, log, spent) = {
            let core = federation.coordinator();
            (core.phase(), core.log().clone(), core.epsilon_spent())
        };
        if !more || federation.coordinator().closed().is_some() {
            break;
        }
        federation.crash();
        federation.run();
        let events = federation.events();
        assert_eq!(events[..before.len()], before, "history was rewritten after step {steps}");
        check_after_crashes(&mut federation);
        let lost: Vec<u32> = aborted(&events).into_iter().map(|(round, _)| round).collect();
        assert_eq!(lost, phase.map(|(round, _)| round).into_iter().collect::<Vec<_>>(), "step {steps}");
        let core = federation.coordinator();
        assert!(core.epsilon_spent() >= spent);
        for leaf in 0..log.size() {
            assert_eq!(core.log().leaf(leaf), log.leaf(leaf), "what was published stays published");
        }
        steps += 1;
    }
    steps
}

#[test]
fn however_often_the_coordinator_crashes_the_task_ends() {
    for every in [1, 7, 40] {
        let mut federation = federation(small(), Script::default());
        let mut crashes = 0;
        while federation.coordinator().closed().is_none() && crashes < 50 {
            for _ in 0..every {
                federation.step();
            }
            federation.crash();
            crashes += 1;
        }
        federation.run();
        check_after_crashes(&mut federation);
    }
}
