//! One population, several tasks: what clients have spent in one counts in the next, whatever crashes.

use super::*;
use fedveil_coordinator_core::Population;
use fedveil_privacy::{Account, Delta, Limit, Participations};

/// A limit that pays for so many rounds of the tests' plan.
fn paying_for(participations: u32) -> Limit {
    let delta = Delta::new(1e-5).unwrap();
    let mut account = Account::default();
    account.add(&one_group().plan.check().unwrap().guarantee.task_loss(), participations);
    Limit { epsilon: account.epsilon(delta) * 1.000_001, delta }
}

/// A task with the clients of [`one_group`]: the same seed makes the same identities.
fn task(name: &str, rounds: u32, population: &MemoryPopulation, script: Script) -> Scripted {
    let mut setup = one_group();
    setup.plan.id = Digest::of(name);
    setup.plan.rounds = rounds;
    let mut federation = federation(setup, script);
    federation.bind(population);
    federation
}

fn run(name: &str, rounds: u32, population: &MemoryPopulation) -> Scripted {
    let mut federation = task(name, rounds, population, Script::default());
    federation.run();
    federation
}

/// Charged and reserved participations over all tasks.
fn standing(population: &MemoryPopulation, client: &Client) -> (u32, u32) {
    let entries = population.participations(client);
    let sum = |of: fn(&Participations) -> u32| entries.values().map(of).sum();
    (sum(|entry| entry.charged), sum(|entry| entry.reserved))
}

#[test]
fn a_task_refuses_clients_that_have_spent_all_elsewhere() {
    let limit = paying_for(3);
    let population = MemoryPopulation::new(limit);
    let first = run("first", 2, &population);
    assert_eq!(published(&first.events()), [0, 1, 2]);
    for device in first.devices() {
        assert_eq!(standing(&population, &device.id()), (2, 0));
    }

    let second = run("second", 2, &population);
    assert_eq!(published(&second.events()), [0, 1], "one round is left");
    let reason = end(&second.events()).to_owned();
    assert!(
        reason.starts_with(
            "12 of 12 clients cannot pay for one more round, and cohort.minimum is 10; for client "
        ),
        "{reason}"
    );
    let (spent, asked) = (paying_for(3).epsilon / 1.000_001, paying_for(4).epsilon / 1.000_001);
    let numbers = format!(
        "population.epsilon is {} at delta 0.00001 over all tasks; {spent:.4} is spent, with what is under way \
         {spent:.4}, and one more participation would bring it to {asked:.4}",
        limit.epsilon
    );
    assert!(reason.ends_with(&numbers), "{reason}, expected: {numbers}");
    for device in second.devices() {
        assert_eq!(device.finished(), Some(reason.as_str()));
        assert_eq!(standing(&population, &device.id()), (3, 0));
    }

    let third = run("third", 2, &population);
    assert_eq!(published(&third.events()), [0], "a third task does not begin");
    assert!(end(&third.events()).contains("cannot pay for one more round"));
}

#[test]
fn who_cannot_pay_is_not_drawn_and_the_others_go_on() {
    let population = MemoryPopulation::new(paying_for(2));
    let first = run("first", 1, &population);
    let poor: Vec<Client> = first.devices()[..2].iter().map(|device| device.id()).collect();
    let loss = first.coordinator().terms().guarantee.task_loss();
    population.of_task(Digest::of("elsewhere"), loss).charge(1, &poor).unwrap();

    // All twelve are there, ten are enough.
    let second = run("second", 1, &population);
    assert_eq!(published(&second.events()), [0, 1]);
    let cohort = |event: &Event| match event {
        Event::RoundOpened { cohort, .. } => Some(cohort.clone()),
        _ => None,
    };
    let cohort: Vec<Client> = second.events().iter().find_map(cohort).unwrap();
    assert!(cohort.len() == 10 && !cohort.iter().any(|client| poor.contains(client)));
    assert!(poor.iter().all(|client| standing(&population, client) == (2, 0)));
}

#[test]
fn without_a_limit_everything_is_recorded() {
    let delta = Delta::new(1e-5).unwrap();
    let population = MemoryPopulation::new(Limit { epsilon: f64::INFINITY, delta });
    let all: Vec<Scripted> = ["a", "b", "c"].iter().map(|name| run(name, 2, &population)).collect();
    for device in all[0].devices() {
        assert_eq!(standing(&population, &device.id()), (6, 0));
        assert_eq!(population.participations(&device.id()).len(), 3);
    }
}

#[test]
fn tasks_at_the_same_time_never_overspend() {
    let population = MemoryPopulation::new(paying_for(3));
    let mut tasks =
        [task("one", 2, &population, Script::default()), task("other", 2, &population, Script::default())];
    let clients: Vec<Client> = tasks[0].devices().iter().map(|device| device.id()).collect();
    let mut both_at_once = false;
    loop {
        let mut more = false;
        for task in &mut tasks {
            more |= task.step();
            for client in &clients {
                let (charged, reserved) = standing(&population, client);
                assert!(charged + reserved <= 3, "{charged} charged, {reserved} reserved");
            }
        }
        both_at_once |= tasks.iter().all(|task| task.coordinator().phase().is_some());
        if !more {
            break;
        }
    }
    assert!(both_at_once);
    let rounds: usize = tasks.iter().map(|task| published(&task.events()).len() - 1).sum();
    assert_eq!(rounds, 3, "what was paid for was done");
    assert!(clients.iter().all(|client| standing(&population, client) == (3, 0)));
}

#[test]
fn what_other_tasks_only_reserve_is_waited_for() {
    let population = MemoryPopulation::new(paying_for(1));
    // Nobody answers the first task once its round is open.
    let silent = |now, message: Message| {
        if message.kind == Kind::Advertise { Vec::new() } else { vec![(now, message)] }
    };
    let mut first = task("first", 1, &population, Script::default().routing(silent));
    assert!(first.run_until(|first| first.coordinator().phase().is_some()));
    let mut second = task("second", 1, &population, Script::default());
    for _ in 0..200 {
        second.step();
    }
    assert_eq!(second.coordinator().phase(), None);
    assert_eq!(second.coordinator().closed(), None, "it may come to nothing, so the second task waits");
    assert!(second.now() > Millis(0), "it tries again by itself");
    first.run();
    assert_eq!(aborted(&first.events()).len(), 1);
    second.run();
    assert_eq!(published(&second.events()), [0, 1]);
}

#[test]
fn what_a_group_reserved_is_released_when_it_is_withheld() {
    // Of three that vanish before their input, two are in one of the two groups, which bears one.
    let vanish = |client, _, before| before == Kind::Input && client < 3;
    let delta = Delta::new(1e-5).unwrap();
    let population = MemoryPopulation::new(Limit { epsilon: 1e3, delta });
    let setup = groups_of_nine(2);
    let mut federation = federation(setup, Script::unit_vectors().vanishing(vanish));
    federation.bind(&population);
    let withheld = |federation: &Scripted| {
        federation.events().iter().any(|event| matches!(event, Event::GroupWithheld { .. }))
    };
    let opened = |federation: &Scripted| {
        federation.events().iter().any(|event| matches!(event, Event::RoundOpened { .. }))
    };
    assert!(federation.run_until(opened));
    let clients: Vec<Client> = federation.devices().iter().map(|device| device.id()).collect();
    let count = |of: fn((u32, u32)) -> u32| -> u32 {
        clients.iter().map(|client| of(standing(&population, client))).sum()
    };
    assert_eq!((count(|(charged, _)| charged), count(|(_, reserved)| reserved)), (0, 18));
    assert!(federation.run_until(withheld));
    assert!(federation.coordinator().phase().is_some(), "the other group goes on");
    let (charged, reserved) = (count(|(charged, _)| charged), count(|(_, reserved)| reserved));
    assert!(charged + reserved <= 9, "{charged} charged, {reserved} reserved");
    assert_eq!(reserved as usize, federation.coordinator().reserved().len());
}

/// Rounds that the run charged to each client.
fn charged_by(federation: &Scripted) -> BTreeMap<Client, u32> {
    let mut counts = BTreeMap::new();
    for client in charges(&federation.events()).into_values().flatten() {
        *counts.entry(client).or_default() += 1;
    }
    counts
}

#[test]
fn a_population_is_never_behind_the_run_whenever_that_crashes() {
    let mut steps = 0;
    loop {
        let population = MemoryPopulation::new(paying_for(2));
        let mut federation = task("crashing", 2, &population, Script::default());
        let mut more = true;
        for _ in 0..steps {
            more = federation.step();
        }
        if !more {
            break;
        }
        federation.crash();
        for device in federation.devices() {
            let (charged, reserved) = standing(&population, &device.id());
            assert_eq!(charged, charged_by(&federation).get(&device.id()).copied().unwrap_or(0));
            assert_eq!(reserved, 0, "the round is aborted, after step {steps}");
        }
        federation.run();
        for (client, count) in charged_by(&federation) {
            assert_eq!(standing(&population, &client), (count, 0), "after step {steps}");
        }
        // Not every step: a history is long, and neighbouring steps differ by a message.
        steps += 5;
    }
    assert!(steps > 60);
}

#[test]
fn a_crash_between_population_and_events_overcounts_and_never_undercounts() {
    let mut crashes = 0;
    for charge in 0..2 {
        let population = MemoryPopulation::new(paying_for(9));
        let mut federation = task("crashing", 2, &population, Script::default());
        let before = loop {
            let before = federation.events().len();
            assert!(federation.step(), "there are two charges");
            if charges(&federation.events()).len() == charge + 1 {
                break before;
            }
        };
        // The population knows of the charge, and the events of its batch are lost.
        federation.store = Arc::new(federation.store.after(before));
        federation.crash();
        crashes += 1;
        assert_eq!(charges(&federation.events()).len(), charge);
        federation.run();
        let by_run = charged_by(&federation);
        for device in federation.devices() {
            let (charged, reserved) = standing(&population, &device.id());
            let by_run = by_run.get(&device.id()).copied().unwrap_or(0);
            assert_eq!((charged, reserved), (by_run + 1, 0), "the lost round stays charged");
            let own = device.record().tasks.values().next().unwrap().participations;
            assert!(own <= charged, "the client itself has charged {own}");
        }
    }
    assert_eq!(crashes, 2);
}

#[test]
fn a_population_that_was_lost_learns_anew_what_the_run_has_charged() {
    let population = MemoryPopulation::new(paying_for(9));
    let mut federation = task("first", 2, &population, Script::default());
    assert!(federation.run_until(|federation| published(&federation.events()).contains(&1)));
    let fresh = MemoryPopulation::new(paying_for(9));
    federation.bind(&fresh);
    federation.crash();
    for device in federation.devices() {
        assert_eq!(standing(&fresh, &device.id()).0, 1);
    }
}

#[test]
fn a_round_whose_model_is_refused_stays_charged() {
    let population = MemoryPopulation::new(paying_for(9));
    let mut federation = task("refused", 2, &population, Script::default());
    let aggregating = |federation: &Scripted| {
        federation.events().iter().any(|event| matches!(event, Event::AggregationStarted))
    };
    assert!(federation.run_until(aggregating));
    // The job that closes the round fails, for whatever reason: here it finds none of its blobs.
    let Some(Next::Jobs(jobs)) = federation.queue.pop(1) else { panic!("the job is what is next") };
    let [job] = jobs.try_into().map_err(|_| "one job").unwrap();
    let computed = job.run(&fedveil_coordinator_core::MemoryStore::default(), &federation.secrets);
    federation.command(Command::Computed(computed));
    let events = federation.events();
    assert!(aborted(&events)[0].1.starts_with("store: no blob"), "{:?}", aborted(&events));
    let spent = federation.coordinator().epsilon_spent();
    assert!(spent > 0.0, "its charge is not taken back");
    assert_eq!(federation.coordinator().phase(), Some((2, "keys")));
    for device in federation.devices() {
        assert_eq!(standing(&population, &device.id()), (1, 1), "round 1 is charged, round 2 reserved");
    }
    federation.run();
    assert_eq!(published(&federation.events()), [0, 2]);
    assert!(federation.coordinator().epsilon_spent() > spent);
    let Some(Event::Published { manifest, .. }) =
        federation.events().into_iter().find(|event| matches!(event, Event::Published { round: 2, .. }))
    else {
        panic!("round 2 was published")
    };
    let key = federation.secrets.signing.verifying_key();
    let manifest = Manifest::verify(&manifest.0, &[key], 1).unwrap();
    let guarantee = &federation.coordinator().terms().guarantee;
    assert_eq!(manifest.round.privacy.epsilon_spent, guarantee.epsilon(2), "both rounds are in the manifest");
}
