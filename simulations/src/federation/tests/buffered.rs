//! Buffered attendance: who contributes what, when, and from which model.

use super::no_noise::without_noise;
use super::*;
use std::sync::Mutex;

/// Client, round, staleness and model of a contribution.
type Told = (usize, u32, u32, Vec<f32>);

/// Clients that train for named times, and note what they trained on.
struct Paced {
    /// Milliseconds of a client's training that starts before a round.
    time: Box<dyn Fn(usize, u32) -> u64 + Send + Sync>,
    route: Box<Route>,
    told: Mutex<Vec<Told>>,
}

impl Paced {
    fn new(time: impl Fn(usize, u32) -> u64 + Send + Sync + 'static) -> Self {
        let route = Box::new(|now, message| vec![(now, message)]);
        Self { time: Box::new(time), route, told: Mutex::default() }
    }

    fn told(&mut self) -> &mut Vec<Told> {
        self.told.get_mut().unwrap()
    }
}

/// Towards a point of its own, less far from an old model, as an algorithm has it.
fn update(client: usize, model: &[f32], staleness: u32) -> Vec<f32> {
    let weight = (1.0 + staleness as f32).powf(-0.5);
    let towards =
        |(at, value): (usize, &f32)| weight * 0.5 * (f32::from(u8::from(at % 12 == client % 12)) - value);
    model.iter().enumerate().map(towards).collect()
}

impl Scenario for Paced {
    fn contribute(&self, work: &Work<'_>) -> Result<Trained, String> {
        let (_, model) = model_file::from_safetensors(work.model).unwrap();
        let update = update(work.client, &model, work.staleness);
        self.told.lock().unwrap().push((work.client, work.round, work.staleness, model));
        Ok(Contribution::Update(update).into())
    }

    fn training_time(&self, client: usize, round: u32) -> u64 {
        (self.time)(client, round)
    }

    fn route(&mut self, now: Millis, message: Message) -> Vec<(Millis, Message)> {
        (self.route)(now, message)
    }
}

/// A buffer of 4, without noise.
fn buffered(clients: usize, concurrency: usize, max_staleness: u32, rounds: u32) -> Setup {
    let mut setup = without_noise(f64::INFINITY);
    setup.plan.rounds = rounds;
    setup.plan.cohort = Cohort { clients: 4, minimum: 4, assumed_malicious: 0, population: None };
    setup.clients = clients;
    setup.attendance = Attendance::Buffered { concurrency, max_staleness };
    setup
}

/// From 0.1 to 100 seconds, most of them short.
fn heavy_tailed(client: usize, round: u32) -> u64 {
    (100.0 / (1e-3 + fraction(9, "time", client, round))) as u64
}

fn parameters_of(federation: &Federation<Paced>) -> Vec<Vec<f32>> {
    let models = models(&federation.events());
    let read = |digest| model_file::from_safetensors(&federation.store().blob(digest).unwrap()).unwrap().1;
    models.values().map(read).collect()
}

/// FedBuff as a loop without a framework has it, where everyone always trains: models, and when each was made.
fn loop_of_its_own(clients: usize, initial: Vec<f32>, rounds: u32) -> (Vec<Vec<f32>>, Vec<u64>) {
    let (mut models, mut times, mut now) = (vec![initial], Vec::new(), 0);
    // When it ends, the model, who.
    let mut training: Vec<(u64, usize, usize)> =
        (0..clients).map(|client| (heavy_tailed(client, 1), 0, client)).collect();
    for round in 1..=rounds {
        training.sort_unstable();
        now = training[3].0.max(now);
        let mut next: Vec<f64> = models.last().unwrap().iter().map(|value| f64::from(*value)).collect();
        let newest = models.len() - 1;
        for (ends, version, client) in &mut training[..4] {
            let update = update(*client, &models[*version], (newest - *version) as u32);
            next.iter_mut().zip(update).for_each(|(next, value)| *next += f64::from(value) / 4.0);
            (*ends, *version) = (now + heavy_tailed(*client, round + 1), newest + 1);
        }
        models.push(next.into_iter().map(|value| value as f32).collect());
        times.push(now);
    }
    (models, times)
}

#[test]
fn models_and_times_are_those_of_a_loop() {
    let mut federation = Federation::new(buffered(12, 12, 1_000, 30), Paced::new(heavy_tailed)).unwrap();
    let (mut times, mut staleness) = (Vec::new(), 0.0);
    while let Some(round) = federation.run_round() {
        assert_eq!((round.cohort, round.inputs), (4, 4));
        times.push(round.ended.0);
        staleness += round.staleness.unwrap();
    }
    let found = parameters_of(&federation);
    let (expected, expected_times) = loop_of_its_own(12, found[0].clone(), 30);
    assert_eq!(times, expected_times);
    assert_eq!(found.len(), expected.len());
    for (round, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let apart = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart < 1e-5, "round {round}: {apart}");
    }
    let told = std::mem::take(federation.scenario_mut().told());
    assert_eq!(told.len(), 4 * 30, "what nobody waits for is not computed");
    assert_eq!(staleness, told.iter().map(|(_, _, staleness, _)| f64::from(*staleness)).sum::<f64>() / 4.0);
    for (client, round, staleness, model) in &told {
        // The newest model of round r is number r - 1.
        assert_eq!(model, &found[(round - 1 - staleness) as usize], "client {client} in round {round}");
    }
    let most = told.iter().map(|(_, _, staleness, _)| *staleness).max().unwrap();
    assert!(most >= 5, "the slowest was {most} models behind");
}

#[test]
fn stragglers_hold_nobody_up() {
    // Both make a model of 4 updates. The synchronous one trains 4 clients at a time and waits for the slowest, without a
    // deadline that would cut it off; the buffered one trains 32.
    let end = |attendance| {
        let mut setup = buffered(500, 32, 50, 40);
        setup.plan.phase_seconds = 3_600;
        setup.attendance = attendance;
        let mut federation = Federation::new(setup, Paced::new(heavy_tailed)).unwrap();
        federation.run();
        assert_eq!(published(&federation.events()).len(), 41);
        federation.now().0
    };
    let synchronous = end(Attendance::CheckIn { clients: 4 });
    let buffered = end(Attendance::Buffered { concurrency: 32, max_staleness: 50 });
    let times = synchronous as f64 / buffered as f64;
    println!("40 models in {synchronous} ms and in {buffered} ms: {times:.1} times as many in an hour");
    assert!(times > 10.0, "{times}");
}

#[test]
fn who_is_too_stale_is_given_up_and_holds_no_model() {
    // The first ten of forty would take a year.
    let time = |client, _| if client < 10 { 31_536_000_000 } else { 1_000 };
    let mut setup = buffered(40, 20, 3, 60);
    setup.keep = Keep::Nothing;
    let mut federation = Federation::new(setup, Paced::new(time)).unwrap();
    let mut slow = 0;
    while federation.run_round().is_some() {
        assert!(federation.flights.len() <= 20 && federation.devices().len() <= 4);
        // The newest and its three elders, and one more until the next check-in, beside what the store keeps.
        assert!(federation.store().blobs().len() <= 7, "{} models", federation.store().blobs().len());
        slow += federation.flights.iter().filter(|flight| flight.client() < 10).count();
    }
    assert!(slow > 60, "they start again and again");
    assert_eq!(federation.coordinator().closed(), Some("all 60 rounds are done"));
    assert!(federation.now() < Millis(3_600_000));
    for (client, _, staleness, _) in federation.scenario_mut().told() {
        assert!(*client >= 10 && *staleness <= 3, "client {client}, {staleness} models behind");
    }
}

#[test]
fn memory_is_that_of_those_who_train() {
    let mut setup = buffered(1_000_000, 24, 10, 30);
    setup.keep = Keep::Nothing;
    let mut federation = Federation::new(setup, Paced::new(heavy_tailed)).unwrap();
    while federation.run_round().is_some() {
        assert!(federation.flights.len() <= 24 && federation.devices().len() <= 4);
        assert!(federation.store().blobs().len() <= 13);
    }
    assert_eq!(federation.coordinator().last_round(), 30);
    let (clients, _) = federation.remembered();
    assert!(clients <= 120, "{clients} are remembered");
}

#[test]
fn a_client_that_is_cut_off_at_check_in_is_replaced_by_the_next() {
    let mut scenario = Paced::new(|client, _| 1_000 * (client as u64 + 1));
    // Nothing reaches client 2.
    scenario.route = Box::new(|now, message| {
        let is_lost = (message.client, message.direction) == (2, Direction::Down);
        if is_lost { Vec::new() } else { vec![(now, message)] }
    });
    let mut federation = Federation::new(buffered(8, 8, 100, 1), scenario).unwrap();
    let round = federation.run_round().unwrap();
    assert_eq!((round.opened, round.inputs), (Millis(64_000), 4));
    let told = std::mem::take(federation.scenario_mut().told());
    let mut clients: Vec<usize> = told.iter().map(|(client, ..)| *client).collect();
    clients.sort_unstable();
    assert_eq!(clients, [0, 1, 3, 4]);
}

#[test]
fn who_is_far_away_is_waited_for() {
    for attendance in
        [Attendance::Buffered { concurrency: 12, max_staleness: 20 }, Attendance::CheckIn { clients: 4 }]
    {
        let mut setup = Setup { attendance, ..buffered(40, 12, 20, 2) };
        setup.plan.phase_seconds = 600;
        let mut scenario = Paced::new(|client, _| 1_000 * (client as u64 + 1));
        scenario.route = Box::new(|now, message| {
            // Longer than until more clients are asked.
            let delay = if message.direction == Direction::Down { 70_000 } else { 0 };
            vec![(Millis(now.0 + delay), message)]
        });
        let mut federation = Federation::new(setup, scenario).unwrap();
        let mut last = 0;
        for number in [1, 2] {
            let round = federation.run_round().unwrap();
            assert_eq!((round.round, round.cohort, round.inputs), (number, 4, 4));
            let waited = round.opened.0 - last;
            assert!((70_000..=110_000).contains(&waited), "opened after {waited} ms");
            last = round.ended.0;
        }
    }
}

#[test]
fn a_quarantined_client_keeps_no_buffer_from_its_round() {
    let mut federation =
        Federation::new(buffered(8, 8, 100, 3), Paced::new(|client, _| 1_000 * (client as u64 + 1))).unwrap();
    // It is in the first buffer, and checks in for the second.
    let client = Device::enrol(&federation.enrolment, 0, None, None).id();
    assert_eq!(federation.run_round().unwrap().ended, Millis(4_000));
    federation.command(Command::Quarantine { client, reason: "test".to_owned() });
    let second = federation.run_round().unwrap();
    assert_eq!((second.opened, second.inputs), (Millis(66_000), 4), "another has come in its place");
    federation.run();
    let events = federation.events();
    assert_eq!(published(&events), [0, 1, 2, 3]);
    let cohorts: Vec<bool> = events
        .iter()
        .filter_map(|event| match event {
            Event::RoundOpened { cohort, .. } => Some(cohort.contains(&client)),
            _ => None,
        })
        .collect();
    assert_eq!(cohorts, [true, false, false]);
}

#[test]
fn who_has_passed_its_budget_does_not_start_and_the_task_ends_when_no_buffer_is_left() {
    let mut setup = plain::in_the_clear("local");
    setup.plan.cohort.minimum = 12;
    setup.plan.privacy.noise_multiplier = 1.5;
    setup.plan.rounds = 9;
    setup.plan.privacy.epsilon = setup.plan.check().unwrap().guarantee.epsilon(2) * 1.000_001;
    setup.clients = 30;
    setup.attendance = Attendance::Buffered { concurrency: 20, max_staleness: 20 };
    let mut federation = Federation::new(setup, Paced::new(heavy_tailed)).unwrap();
    federation.run();
    let events = federation.events();
    let mut times: BTreeMap<Client, u32> = BTreeMap::new();
    charges(&events).values().flatten().for_each(|client| *times.entry(*client).or_default() += 1);
    assert!(times.values().all(|&times| times <= 2));
    let rounds = published(&events).len() as u32 - 1;
    assert_eq!(times.values().sum::<u32>(), 12 * rounds);
    let left = 30 - times.values().filter(|&&times| times == 2).count();
    let expected =
        format!("{left} of 30 clients can pay for one more round, and the buffer (cohort.clients) is 12");
    assert!(left < 12 && rounds >= 4, "{left} left after {rounds} rounds");
    assert_eq!(end(&events), expected);
}

#[test]
fn a_crash_of_the_coordinator_costs_what_has_checked_in() {
    for delay in [0, 50] {
        for attendance in
            [Attendance::Buffered { concurrency: 12, max_staleness: 20 }, Attendance::CheckIn { clients: 4 }]
        {
            let setup = Setup { attendance, ..buffered(40, 12, 20, 5) };
            let scenario = || {
                let mut scenario = Paced::new(heavy_tailed);
                scenario.route = Box::new(move |now, message| vec![(Millis(now.0 + delay), message)]);
                scenario
            };
            // In a round, and before one, when clients have connected and no round is open.
            let mut federation = Federation::new(setup.clone(), scenario()).unwrap();
            assert!(federation.run_until(|it| it.coordinator().phase().is_some_and(|(round, _)| round == 2)));
            let flights = federation.flights.clone();
            federation.crash();
            assert!(flights.is_subset(&federation.flights));
            federation.run();
            let events = federation.events();
            assert_eq!(aborted(&events), [(2, "the coordinator restarted")]);
            assert_eq!(published(&events), [0, 1, 3, 4, 5]);

            let mut federation = Federation::new(setup, scenario()).unwrap();
            let is_between = |it: &Federation<Paced>| {
                let core = it.coordinator();
                core.last_round() == 2 && core.phase().is_none() && !it.devices.is_empty()
            };
            if federation.run_until(is_between) {
                federation.crash();
                federation.run();
                assert_eq!(published(&federation.events()), [0, 1, 2, 3, 4, 5]);
            } else {
                assert_eq!(delay, 0);
            }
        }
    }
}

#[test]
fn setups_that_are_no_buffer_are_refused() {
    let refused = |setup| Federation::new(setup, Paced::new(heavy_tailed)).err().unwrap().to_string();
    for concurrency in [3, 41] {
        let expected = format!(
            "{concurrency} clients train at a time; accepted are 4 (cohort.clients of the plan) to 40 (all there are)"
        );
        assert_eq!(refused(buffered(40, concurrency, 5, 1)), expected);
    }
    let mut setup = buffered(40, 12, 5, 1);
    setup.plan.cohort.minimum = 3;
    let expected = "cohort.minimum is 3; with buffered attendance the cohort is the buffer, and 4 (cohort.clients) is accepted";
    assert_eq!(refused(setup), expected);
    let mut setup = buffered(40, 12, 5, 1);
    setup.plan.cohort.population = Some(40);
    assert!(refused(setup).starts_with("cohort.population amplifies privacy by coins, and with buffered"));
}
