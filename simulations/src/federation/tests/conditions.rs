//! Links, speeds, availability and faults: what they promise, and what they do to a federation.

use super::*;

/// A scenario in a world.
struct Worldly(World);

impl Scenario for Worldly {
    fn contribute(&self, _work: &Work<'_>) -> Result<Trained, String> {
        Ok(Contribution::Update(vec![0.01; PARAMETERS]).into())
    }

    fn training_time(&self, client: usize, round: u32) -> u64 {
        self.0.training_time(client, round)
    }

    fn available(&self, client: usize, now: Millis) -> bool {
        self.0.available(client, now)
    }

    fn sessions_over(&mut self) {
        self.0.sessions_over();
    }

    fn next_crash(&self, after: Millis) -> Option<Millis> {
        self.0.next_crash(after)
    }

    fn vanishes(&mut self, client: usize, round: u32, before: Kind) -> bool {
        self.0.vanishes(client, round, before)
    }

    fn route(&mut self, now: Millis, message: Message) -> Vec<(Millis, Message)> {
        self.0.route(now, message)
    }
}

fn conditions(json: &str) -> Conditions {
    serde_json::from_str(json).unwrap()
}

fn world(json: &str) -> World {
    World::new(conditions(json), 5).unwrap()
}

fn finished_in(setup: Setup, json: &str) -> Federation<Worldly> {
    let mut federation = Federation::new(setup, Worldly(world(json))).unwrap();
    federation.run();
    federation
}

#[test]
fn what_is_not_said_is_perfect_and_what_is_unknown_is_refused() {
    let perfect = world("{}");
    assert_eq!(perfect.training_time(1, 1), 0);
    assert!(perfect.available(1, Millis(77)) && !perfect.vanishes(1, 1, Kind::Input));
    assert_eq!(perfect.next_crash(Millis(0)), None);
    let error = serde_json::from_str::<Conditions>(r#"{"network": {"latency": 3}}"#).unwrap_err();
    assert!(error.to_string().contains("unknown field `latency`"), "{error}");
    let written = r#"{"network":{"latency_ms":{"median":40.0,"sigma":0.5},"loss":0.01}}"#;
    let read = conditions(written);
    assert_eq!(read.network.latency_ms, Spread { median: 40.0, sigma: 0.5 });
    assert_eq!(conditions(&serde_json::to_string(&read).unwrap()), read);
    assert_eq!(conditions(r#"{"network":{"latency_ms":3.0}}"#).network.latency_ms.median, 3.0);
}

#[test]
fn numbers_that_cannot_be_are_refused_by_key() {
    for (json, expected) in [
        (r#"{"network":{"loss":1.5}}"#, "network.loss is 1.5, accepted is a probability, 0 to 1"),
        (
            r#"{"network":{"latency_ms":-1.0}}"#,
            "network.latency_ms is -1, accepted is a median from 0 to 1e9",
        ),
        (
            r#"{"compute":{"training_ms":{"median":1.0,"sigma":11.0}}}"#,
            "compute.training_ms is 11, accepted is a sigma from 0 to 10",
        ),
        (r#"{"compute":{"slowdown":0.5}}"#, "compute.slowdown is 0.5, accepted is 1 to 1e6"),
        (r#"{"availability":{"slot_minutes":0}}"#, "availability.slot_minutes is 0, accepted is 1 to 1440"),
        (
            r#"{"availability":{"diurnal":{"amplitude":0.5,"peak_hour":25.0}}}"#,
            "availability.diurnal.peak_hour is 25, accepted is an hour, 0 to 24",
        ),
        (
            r#"{"faults":{"coordinator_crashes":[-1.0]}}"#,
            "faults.coordinator_crashes is -1, accepted is seconds from the start, 0 or more",
        ),
    ] {
        assert_eq!(World::new(conditions(json), 1).unwrap_err().to_string(), expected);
    }
}

#[test]
fn traces_are_read_or_refused_by_line() {
    let trace = Trace::parse("# two clients\n0-10 20-30.5\n\n5-25\n").unwrap();
    let mut world = world("{}");
    world.set_trace(trace);
    let there = |client: usize, seconds: u64| world.available(client, Millis(seconds * 1000));
    assert!(there(0, 0) && there(0, 9) && !there(0, 10) && there(0, 20) && there(0, 30));
    assert!(!there(1, 6) && there(2, 6) && there(5, 6), "the lines are taken in turns");
    assert!(there(2, 36), "after 30.5 seconds the trace begins again");
    for (text, expected) in [
        ("0-10\n20-15", "availability trace, line 2: \"20-15\""),
        ("0-10 5-12", "availability trace, line 1: \"5-12\""),
        ("3", "availability trace, line 1: \"3\""),
        ("# nothing\n\n", "there is no interval in it"),
    ] {
        let error = Trace::parse(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn the_spread_of_clients_is_log_normal_and_stays_theirs() {
    let world = world(r#"{"compute":{"training_ms":{"median":1000.0,"sigma":0.5},"stragglers":0.1}}"#);
    let mut times: Vec<u64> = (0..4_000).map(|client| world.training_time(client, 1)).collect();
    assert!((0..100).all(|client| world.training_time(client, 1) == world.training_time(client, 9)));
    times.sort_unstable();
    // A tenth is ten times as slow, so that half of all is the 0.5/0.9 quantile of the others: 1000 e^(0.5 · 0.14).
    assert!((1_030..1_120).contains(&times[2_000]), "{}", times[2_000]);
    // Of the others hardly one in a thousand takes more than 5 s, of stragglers nearly all.
    let slow = times.iter().filter(|&&time| time > 4_700).count();
    assert!((330..470).contains(&slow), "{slow} of 4,000");
}

#[test]
fn clients_are_there_as_often_as_the_hour_says() {
    let json = r#"{"availability":{"probability":0.5,"diurnal":{"amplitude":1.0,"peak_hour":20.0}}}"#;
    let world = world(json);
    let share = |hour: u64| {
        let there = |client: &usize| world.available(*client, Millis(hour * 3_600_000));
        (0..4_000).filter(there).count() as f64 / 4_000.0
    };
    for (hour, expected) in [(20, 0.5), (44, 0.5), (8, 0.0), (14, 0.25), (2, 0.25)] {
        assert!((share(hour) - expected).abs() < 0.04, "hour {hour}: {}", share(hour));
    }
}

#[test]
fn messages_take_their_time_and_do_not_overtake() {
    let json = r#"{"network":{"latency_ms":{"median":50.0,"sigma":1.0},"up_kbit_per_second":8.0}}"#;
    let mut world = world(json);
    let mut send = |now, bytes: usize, direction| {
        let message = Message { client: 3, direction, kind: Kind::Input, bytes: vec![0; bytes].into() };
        world.route(Millis(now), message)[0].0.0
    };
    let latency = send(0, 0, Direction::Down);
    assert!(latency > 0);
    let big = send(0, 1_000, Direction::Up);
    assert!(big.abs_diff(latency + 1_000) <= 1, "8 kbit/s are a byte a millisecond: {big}");
    assert_eq!(send(1, 0, Direction::Up), big, "what is sent later does not arrive earlier");
    assert!(send(1, 0, Direction::Down).abs_diff(latency + 1) <= 1, "the other way is another link");
}

#[test]
fn a_federation_lives_with_all_of_it() {
    let json = r#"{
        "network": {"latency_ms": {"median": 60.0, "sigma": 0.6}, "up_kbit_per_second": 500.0, "loss": 0.002},
        "compute": {"training_ms": {"median": 3000.0, "sigma": 0.7}, "variation": 0.2, "stragglers": 0.05},
        "availability": {"probability": 0.7, "diurnal": {"amplitude": 0.5, "peak_hour": 3.0, "zones_hours": 6.0}},
        "faults": {"client_crash": 0.05, "coordinator_crashes": [2.0]}
    }"#;
    let setup = || {
        let mut setup = plain::in_the_clear("local");
        setup.plan.rounds = 5;
        (setup.clients, setup.attendance) = (200, Attendance::CheckIn { clients: 12 });
        setup
    };
    let federation = finished_in(setup(), json);
    let events = federation.events();
    assert_eq!(end(&events), "all 5 rounds are done");
    assert!(published(&events).len() > 3, "{:?}", aborted(&events));
    assert!(aborted(&events).iter().any(|(_, reason)| *reason == "the coordinator restarted"));
    assert!(federation.now() > Millis(60_000), "somebody was waited for");
    let again = finished_in(setup(), json);
    assert!(again.events() == events, "one seed gave two histories");
}

#[test]
fn a_coordinator_that_is_to_crash_must_keep_its_events() {
    let setup = Setup { keep: Keep::Nothing, ..plain::in_the_clear("local") };
    let scenario = Worldly(world(r#"{"faults":{"coordinator_crashes":[1.0]}}"#));
    let error = Federation::new(setup, scenario).err().unwrap().to_string();
    assert!(error.contains("no event is kept from which it could start again"), "{error}");
}
