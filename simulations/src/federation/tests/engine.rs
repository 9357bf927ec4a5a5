//! What the engine itself promises: threads that change nothing, devices that come and go, memory that stays flat.

use super::attendance::Shuffle;
use super::*;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A scenario that is a function of names, as those of users should be: updates, training times, delays and drop-outs.
pub(super) struct Named {
    seed: u64,
    /// Clients that are there at a time.
    online: f64,
    /// Contributions that were asked for.
    trained: AtomicUsize,
}

impl Named {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, online: 1.0, trained: AtomicUsize::new(0) }
    }
}

impl Scenario for Named {
    fn contribute(&self, work: &Work<'_>) -> Result<Trained, String> {
        self.trained.fetch_add(1, Ordering::Relaxed);
        let mut rng = stream(self.seed, "update", work.client, work.round);
        let update = (0..PARAMETERS).map(|_| draws::unit(&mut rng) as f32 / 10.0).collect();
        // What a client keeps counts its trainings.
        let times = work.memory.map_or(0, |memory| memory[0]);
        let memory = Some(Bytes::copy_from_slice(&[times + 1]));
        Ok(Trained { contribution: Contribution::Update(update), memory })
    }

    fn training_time(&self, client: usize, round: u32) -> u64 {
        500 + (fraction(self.seed, "training time", client, round) * 4.0) as u64 * 500
    }

    fn available(&self, client: usize, now: Millis) -> bool {
        fraction(self.seed, "available", client, (now.0 / 60_000) as u32) < self.online
    }

    fn vanishes(&mut self, client: usize, round: u32, before: Kind) -> bool {
        [Kind::Input, Kind::PlainInput].contains(&before)
            && fraction(self.seed, "vanishes", client, round) < 0.05
    }

    fn route(&mut self, now: Millis, message: Message) -> Vec<(Millis, Message)> {
        let delay = fraction(self.seed, "delay", message.client, 0) * 20.0;
        vec![(Millis(now.0 + delay as u64), message)]
    }
}

fn setups() -> Vec<Setup> {
    let groups = groups_of_nine(3);
    let mut checking_in = plain::in_the_clear("local");
    checking_in.plan.rounds = 4;
    checking_in.clients = 500;
    checking_in.attendance = Attendance::CheckIn { clients: 14 };
    let mut groups_checking_in = groups.clone();
    groups_checking_in.clients = 100;
    groups_checking_in.attendance = Attendance::CheckIn { clients: 27 };
    let mut buffered = checking_in.clone();
    buffered.plan.cohort.minimum = 12;
    buffered.attendance = Attendance::Buffered { concurrency: 50, max_staleness: 5 };
    let mut groups_buffered = groups_checking_in.clone();
    groups_buffered.attendance = Attendance::Buffered { concurrency: 60, max_staleness: 5 };
    vec![groups, plain::in_the_clear("local"), checking_in, groups_checking_in, buffered, groups_buffered]
}

/// All that a run leaves, as bytes.
fn history(setup: Setup, threads: usize) -> Vec<u8> {
    let setup = Setup { threads: NonZeroUsize::new(threads).unwrap(), ..setup };
    let rounds = setup.plan.rounds;
    let mut federation = Federation::new(setup, Named::new(3)).unwrap();
    let mut told = Vec::new();
    while let Some(round) = federation.run_round() {
        told.push((round, federation.model().unwrap().to_vec()));
    }
    assert!(federation.failure().is_none());
    let events = federation.events();
    assert_eq!(end(&events), format!("all {rounds} rounds are done"));
    assert_eq!(told.len(), rounds as usize);
    assert!(published(&events).len() > 1, "{:?}", aborted(&events));
    serde_json::to_vec(&(events, told)).unwrap()
}

#[test]
fn one_history_on_any_number_of_threads() {
    for setup in setups() {
        let one = history(setup.clone(), 1);
        for threads in [2, 5] {
            assert!(history(setup.clone(), threads) == one, "{threads} threads, {:?}", setup.attendance);
        }
    }
}

#[test]
fn trainings_that_end_apart_are_computed_together_and_once() {
    let setup = plain::in_the_clear("local");
    let cohort = setup.clients;
    let mut federation = Federation::new(setup, Named::new(3)).unwrap();
    assert!(federation.run_until(|federation| federation.scenario.trained.load(Ordering::Relaxed) > 0));
    assert_eq!(federation.scenario.trained.load(Ordering::Relaxed), cohort, "all at the first one's end");
    federation.run();
    assert_eq!(federation.scenario.trained.load(Ordering::Relaxed), 2 * cohort, "once in each round");
}

#[test]
fn devices_come_for_a_round_and_leave_two_numbers() {
    let mut setup = plain::in_the_clear("local");
    setup.plan.rounds = 30;
    (setup.clients, setup.attendance) = (1_000_000, Attendance::CheckIn { clients: 12 });
    setup.keep = Keep::Nothing;
    let mut federation = Federation::new(setup, Named::new(5)).unwrap();
    let mut inputs = 0;
    while let Some(round) = federation.run_round() {
        assert!(federation.devices().len() <= 12, "{} devices", federation.devices().len());
        assert_eq!(round.cohort, 12);
        inputs += round.inputs;
    }
    assert_eq!(federation.coordinator().closed(), Some("all 30 rounds are done"));
    // A client that is drawn twice within 30 rounds of 12 of a million would be chance.
    let (clients, bytes) = federation.remembered();
    assert!(clients > 350 && clients <= 360 && bytes <= 12 * 360, "{clients} clients, {bytes} bytes");
    assert!((300..=360).contains(&inputs), "{inputs} inputs");
    assert!(federation.store().blobs().len() <= 3, "models of rounds that are over are gone");
    assert_eq!(federation.events(), []);
}

#[test]
fn who_comes_back_has_kept_its_account_and_its_memory() {
    let mut setup = plain::in_the_clear("local");
    setup.plan.rounds = 6;
    (setup.clients, setup.attendance) = (16, Attendance::CheckIn { clients: 12 });
    let mut federation = Federation::new(setup, Named::new(5)).unwrap();
    federation.run();
    let events = federation.events();
    assert_eq!(published(&events), [0, 1, 2, 3, 4, 5, 6]);
    let charged = charges(&events);
    let enrolment = &federation.enrolment;
    let mut total = 0;
    for client in 0..16 {
        let kept = federation.kept.get(&client).copied().unwrap_or_default();
        let device = Device::enrol(enrolment, client as usize, Some(kept), None);
        let rounds: Vec<u32> = charged
            .iter()
            .filter(|(_, who)| who.contains(&device.id()))
            .map(|((round, _), _)| *round)
            .collect();
        // Who vanishes before its input leaves has charged itself, and nobody else has.
        assert!(kept.participations as usize >= rounds.len());
        assert!(kept.last_round >= rounds.last().copied().unwrap_or(0));
        let memory = federation.memories.get(&client).map_or(0, |memory| u32::from(memory[0]));
        assert_eq!(memory, kept.participations, "client {client} has trained as often as it was charged");
        total += memory;
    }
    assert_eq!(total, 6 * 12);
}

#[test]
fn a_round_waits_for_clients_that_are_not_there() {
    let mut setup = plain::in_the_clear("local");
    setup.plan.rounds = 3;
    (setup.clients, setup.attendance) = (40, Attendance::CheckIn { clients: 12 });
    let scenario = Named { online: 0.1, ..Named::new(5) };
    let mut federation = Federation::new(setup.clone(), scenario).unwrap();
    federation.run();
    assert_eq!(published(&federation.events()), [0, 1, 2, 3]);
    assert!(federation.now() > Millis(3 * 60_000), "{:?}", federation.now());

    let nobody = Named { online: 0.0, ..Named::new(5) };
    let mut federation = Federation::new(setup, nobody).unwrap();
    federation.run();
    let events = federation.events();
    let expected = "no round could open for a week: cohort.minimum is 10, 0 clients are there";
    assert_eq!((published(&events), end(&events)), (vec![0], expected));
}

#[test]
fn a_policy_that_nobody_can_keep_is_named_in_the_end() {
    let mut setup = plain::in_the_clear("local");
    setup.policy.allow_insecure_plain = false;
    setup.attendance = Attendance::CheckIn { clients: 12 };
    let federation = {
        let mut federation = Federation::new(setup, Named::new(1)).unwrap();
        federation.run();
        federation
    };
    let reason = federation.coordinator().closed().unwrap();
    assert!(
        reason.contains("one has left: this client's policy has allow_insecure_plain = false"),
        "{reason}"
    );
}

#[test]
fn a_crash_in_a_round_with_check_ins_costs_that_round() {
    let mut setup = groups_of_nine(2);
    setup.plan.rounds = 3;
    (setup.clients, setup.attendance) = (60, Attendance::CheckIn { clients: 18 });
    let mut federation = federation(setup, Script::default());
    assert!(federation.run_until(|federation| federation.coordinator().phase() == Some((2, "collecting"))));
    federation.crash();
    federation.run();
    let events = federation.events();
    assert_eq!(aborted(&events), [(2, "the coordinator restarted")]);
    assert_eq!(published(&events), [0, 1, 3]);
}

#[test]
fn check_ins_that_cannot_make_a_round_are_refused() {
    for (clients, population) in [(9, 12), (13, 12)] {
        let mut setup = plain::in_the_clear("local");
        (setup.clients, setup.attendance) = (population, Attendance::CheckIn { clients });
        let error = Federation::new(setup, Named::new(1)).err().unwrap().to_string();
        let expected = format!(
            "{clients} clients check in for a round; accepted are 10 (cohort.minimum of the plan) to 12 (all there are)"
        );
        assert_eq!(error, expected);
    }
}

#[test]
fn a_shuffle_gives_every_number_once_and_all_orders_alike() {
    let mut rng = stream(1, "shuffle", 0, 0);
    let mut orders: BTreeMap<Vec<usize>, u32> = BTreeMap::new();
    for _ in 0..6_000 {
        let mut shuffle = Shuffle::new(3);
        let order: Vec<usize> = std::iter::from_fn(|| shuffle.next(&mut rng)).collect();
        *orders.entry(order).or_default() += 1;
    }
    assert_eq!(orders.len(), 6);
    // Five standard deviations of a binomial with p = 1/6.
    assert!(orders.values().all(|&count| count.abs_diff(1_000) < 145), "{orders:?}");
}
