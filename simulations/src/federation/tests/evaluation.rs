//! Federated evaluation: a new model is judged by those who made it, before it is anybody's.

use super::*;
use fedveil_proto_plan::{FederatedEvaluation, Gate};
use fedveil_provenance::Candidate;

/// A gate that asks clients alone.
fn asking() -> Gate {
    Gate {
        max_step_norm: None,
        max_accuracy_drop: None,
        max_trigger_success: None,
        evaluation: Some(FederatedEvaluation {
            max_accuracy_drop: 0.1,
            noise_multiplier: 0.5,
            confidence: 2.0,
        }),
        max_rejections: 3,
    }
}

/// Three groups under a rule that bears one bad one.
fn judged() -> Setup {
    let mut setup = groups_of_nine(3);
    setup.plan.server.rule = "median".to_owned();
    setup.plan.server.assumed_byzantine = 1;
    setup.plan.server.gate = Some(asking());
    setup.plan.privacy.epsilon = 100.0;
    setup.policy = Policy { max_epsilon: 100.0, max_total_epsilon: 100.0, ..Policy::default() };
    setup
}

/// Five clients, small enough to crash after every single step.
fn small_and_judged() -> Setup {
    let mut setup = recovery::small();
    setup.plan.server.gate = Some(asking());
    setup.plan.privacy.epsilon = 100.0;
    setup.policy.max_epsilon = 100.0;
    setup.policy.max_total_epsilon = 100.0;
    setup
}

fn rejected(events: &[Event]) -> Vec<(u32, &str)> {
    let rejection = |event| match event {
        &Event::ModelRejected { round, ref reason, .. } => Some((round, reason.as_str())),
        _ => None,
    };
    events.iter().filter_map(rejection).collect()
}

/// The evaluations: round, cohort, digest of the model.
fn evaluations(events: &[Event]) -> Vec<(u32, BTreeSet<Client>, Digest)> {
    let evaluation = |event: &Event| match event {
        Event::EvaluationOpened { round, cohort, proposed, .. } => {
            Some((*round, cohort.iter().copied().collect(), proposed.model))
        }
        _ => None,
    };
    events.iter().filter_map(evaluation).collect()
}

#[test]
fn a_model_that_clients_find_better_is_published_and_charged_for_once() {
    let mut federation = finished(judged(), Script::default().judging(|_, _| Ok(0.2)));
    let events = federation.events();
    assert_eq!(published(&events), [0, 1, 2], "{:?} {:?}", aborted(&events), rejected(&events));
    for event in &events {
        let Event::Published { round: 1.., measured: Some(measured), model, .. } = event else { continue };
        let (difference, deviation) = (measured.difference.unwrap(), measured.deviation.unwrap());
        assert!((difference - 0.2).abs() < 5.0 * deviation && deviation < 0.1, "{measured:?}");
        assert!(evaluations(&events).iter().any(|(_, _, judged)| judged == model));
    }
    // A participation is charged in its round once, for update and answer.
    let charged = charges(&events);
    for (round, cohort, _) in evaluations(&events) {
        let paid: BTreeSet<Client> = charged
            .iter()
            .filter(|((of, _), _)| *of == round)
            .flat_map(|(_, clients)| clients)
            .copied()
            .collect();
        assert!(cohort.len() == 27 && cohort.is_subset(&paid), "round {round}");
    }
    let terms = federation.coordinator().terms();
    assert_eq!(federation.coordinator().epsilon_spent(), terms.guarantee.epsilon(2));
    let mut without = judged();
    without.plan.server.gate = None;
    let (both, updates) = (terms.guarantee.epsilon(2), without.plan.check().unwrap().guarantee.epsilon(2));
    assert!(both > 1.5 * updates, "{both}, {updates}");
    for client in 0..27 {
        assert_eq!(sent_by(&mut federation, client, Kind::Input), 4);
        let device = &federation.devices()[client];
        assert!(device.refusals().is_empty(), "{:?}", device.refusals());
        assert_eq!(device.participant().epsilon_spent(), both);
        let task = device.record().tasks.values().next().unwrap();
        assert_eq!((task.participations, task.last_judged), (2, 2));
        let sent: Vec<_> = task.contributions.iter().map(|sent| (sent.round, sent.judged)).collect();
        assert_eq!(sent, [(1, false), (1, true), (2, false), (2, true)]);
        assert_eq!(device.model().unwrap().0, 2);
    }
}

#[test]
fn a_model_that_clients_find_worse_is_nobodys() {
    let judge = |_, round| Ok(if round == 1 { -0.5 } else { 0.0 });
    let federation = finished(judged(), Script::default().judging(judge));
    let events = federation.events();
    assert_eq!(published(&events), [0, 2]);
    let [(1, reason)] = rejected(&events)[..] else { panic!("{:?}", rejected(&events)) };
    assert!(reason.starts_with("clients say that it loses 0."), "{reason}");
    assert_eq!(charges(&events).iter().filter(|((round, _), _)| *round == 1).count(), 3, "it stays charged");
    let log = federation.coordinator().log();
    assert_eq!(log.size(), 2, "the candidate is not in the log");
    for device in federation.devices() {
        assert!(device.refusals().is_empty(), "{:?}", device.refusals());
        let (round, file) = device.model().unwrap();
        assert_eq!((round, Digest::of(file)), (2, federation.coordinator().model().unwrap()));
    }
}

#[test]
fn clients_never_adopt_what_they_judge() {
    let mut federation = federation(judged(), Script::default().judging(|_, _| Ok(-1.0)));
    federation.run();
    let sent: BTreeSet<Digest> = federation
        .scenario()
        .sent
        .iter()
        .filter(|message| message.kind == Kind::Candidate)
        .map(|message| Digest::of(&message.bytes))
        .collect();
    let events = federation.events();
    assert_eq!(sent, evaluations(&events).into_iter().map(|(_, _, model)| model).collect());
    assert_eq!(sent.len(), 2);
    for device in federation.devices() {
        assert_eq!(device.model().unwrap().0, 0, "the initial model is all that anyone ever held");
        let record = device.record().tasks.values().next().unwrap();
        assert!(!sent.contains(&record.model.unwrap()));
    }
}

#[test]
fn one_poisoned_group_praises_in_vain() {
    // The colluders may share one group of the three, or be in two: then the median is theirs.
    let judge = |client, _| Ok(if client == 0 { 1.0 } else { -0.6 });
    let federation = finished(judged(), Script::default().judging(judge));
    assert_eq!(published(&federation.events()), [0]);
    assert_eq!(rejected(&federation.events()).len(), 2);
    // And one that blames a good model is not heard either.
    let judge = |client, _| Ok(if client == 0 { -1.0 } else { 0.1 });
    let federation = finished(judged(), Script::default().judging(judge));
    assert_eq!(published(&federation.events()), [0, 1, 2]);
}

#[test]
fn a_model_that_too_few_can_judge_is_not_published() {
    // Client 0 leaves after it was charged and does not come back; a cohort has all 27.
    let mut joins = 0;
    let script = Script::default()
        .vanishing(|client, round, before| (client, round, before) == (0, 1, Kind::Unmask))
        .routing(move |now, message| {
            joins += usize::from((message.client, message.kind) == (0, Kind::Join));
            if message.kind == Kind::Join && message.client == 0 && joins > 1 {
                return Vec::new();
            }
            vec![(now, message)]
        });
    let federation = finished(judged(), script);
    let events = federation.events();
    assert_eq!(published(&events), [0]);
    let reason = "26 of the round's clients are there to judge its model, and cohort.minimum is 27";
    assert_eq!(aborted(&events)[0], (1, reason));

    // Those who cannot judge decline, and a group of too few gives nothing.
    let script = Script::default()
        .judging(|client, _| if client < 20 { Err("no examples".to_owned()) } else { Ok(0.0) });
    let federation = finished(judged(), script);
    let events = federation.events();
    assert_eq!(published(&events), [0]);
    assert!(aborted(&events)[0].1.ends_with("the evaluation needs 3"), "{:?}", aborted(&events));
    assert!(rejected(&events).is_empty(), "nobody has judged the model");
}

#[test]
fn no_crash_publishes_what_clients_have_not_approved() {
    for (difference, approved) in [(-1.0, false), (1.0, true)] {
        let mut steps = 0;
        loop {
            let script = Script::default().judging(move |_, _| Ok(difference));
            let mut federation = federation(small_and_judged(), script);
            let mut more = true;
            for _ in 0..steps {
                more = federation.step();
            }
            if !more || federation.coordinator().closed().is_some() {
                break;
            }
            let (before, phase) = (federation.events(), federation.coordinator().phase());
            federation.crash();
            federation.run();
            let events = federation.events();
            assert_eq!(events[..before.len()], before, "history was rewritten after step {steps}");
            let lost = phase.map(|(round, _)| round);
            let expected: Vec<u32> =
                [0].into_iter().chain((1..=2).filter(|round| approved && lost != Some(*round))).collect();
            assert_eq!(published(&events), expected, "after step {steps}");
            for client in 0..5 {
                assert!(sent_by(&mut federation, client, Kind::Input) <= 4);
                let device = &federation.devices()[client];
                assert!(device.refusals().is_empty(), "{:?}", device.refusals());
                assert!(approved || device.model().is_none_or(|(round, _)| round == 0));
            }
            steps += 3;
        }
        assert!(steps > 150, "{steps} steps in the whole task");
    }
}

#[test]
fn replaying_an_evaluation_gives_the_same_state() {
    let mut federation = federation(small_and_judged(), Script::default());
    loop {
        let core = recovery::replayed(&federation.settings, &federation.events());
        assert_eq!(recovery::state(&core), recovery::state(federation.coordinator()));
        if !federation.step() {
            break;
        }
    }
    assert_eq!(published(&federation.events()), [0, 1, 2]);
}

/// Client 0 has answered in round 1 and waits for the verdict; also the statement that it was sent.
fn after_an_answer() -> (Scripted, Candidate) {
    let mut federation = federation(judged(), Script::default());
    let answered = |federation: &Scripted| {
        let record = federation.devices()[0].record().tasks.values().next();
        record.is_some_and(|task| task.contributions.iter().any(|sent| sent.judged))
    };
    assert!(federation.run_until(answered));
    let statement = federation.scenario().sent.iter().find(|message| message.kind == Kind::EvaluationOpen);
    let bytes = statement.unwrap().bytes.clone();
    let candidate = Candidate::verify(&bytes, &federation.secrets.signing.verifying_key()).unwrap();
    (federation, candidate)
}

fn down(kind: Kind, bytes: impl AsRef<[u8]>) -> Message {
    let bytes = Bytes::copy_from_slice(bytes.as_ref());
    Message { client: 0, direction: Direction::Down, kind, bytes }
}

/// Injects messages to client 0, and checks that it refuses for this reason, says nothing else, and stays in the task.
fn refuses(federation: &mut Scripted, messages: Vec<Message>, reason: &str) {
    let inputs = sent_by(federation, 0, Kind::Input);
    let advertised = sent_by(federation, 0, Kind::Advertise);
    for message in messages {
        federation.inject(message);
    }
    assert!(
        federation.run_until(|federation| !federation.devices()[0].refusals().is_empty()),
        "client 0 refused nothing, expected: {reason}"
    );
    let refusal = &federation.devices()[0].refusals()[0];
    assert!(refusal.to_string().contains(reason), "{refusal}, expected: {reason}");
    assert!(!refusal.is_final());
    assert_eq!(sent_by(federation, 0, Kind::Input), inputs);
    assert_eq!(sent_by(federation, 0, Kind::Advertise), advertised);
}

#[test]
fn a_candidate_is_not_taken_for_a_model() {
    let (mut federation, candidate) = after_an_answer();
    let file = federation.store().blob(&candidate.model).unwrap();
    refuses(&mut federation, vec![down(Kind::Model, file)], "Model message without its publication");
    assert_eq!(federation.devices()[0].model().unwrap().0, 0);
}

#[test]
fn a_model_is_judged_once_and_by_those_who_took_part_in_its_round() {
    let (mut federation, candidate) = after_an_answer();
    let key = federation.secrets.signing.clone();
    let again = down(Kind::EvaluationOpen, candidate.sign(&key));
    refuses(&mut federation, vec![again], "round 1 is not one");
    let (mut federation, candidate) = after_an_answer();
    let later = Candidate { round: 2, ..candidate };
    refuses(&mut federation, vec![down(Kind::EvaluationOpen, later.sign(&key))], "round 2 is not one");
}

#[test]
fn a_candidate_that_is_not_what_it_says_is_not_judged() {
    let other = |change: fn(&mut Candidate)| {
        let (federation, mut candidate) = after_an_answer();
        change(&mut candidate);
        let statement = candidate.sign(&federation.secrets.signing);
        (federation, statement)
    };
    let (mut federation, statement) = other(|candidate| candidate.parent = Digest::of("other"));
    refuses(&mut federation, vec![down(Kind::EvaluationOpen, statement)], "does not follow the one in use");
    let (mut federation, statement) = other(|candidate| candidate.task = Digest::of("other"));
    refuses(&mut federation, vec![down(Kind::EvaluationOpen, statement)], "the model to judge is of task");

    let (mut federation, candidate) = after_an_answer();
    let forged = candidate.sign(&SigningKey::from_bytes(&[9; 32]));
    refuses(
        &mut federation,
        vec![down(Kind::EvaluationOpen, forged)],
        "declined to judge a model: candidate:",
    );

    let (mut federation, candidate) = after_an_answer();
    let file = federation.store().blob(&candidate.model).unwrap();
    refuses(&mut federation, vec![down(Kind::Candidate, file)], "without a statement about it");
}

#[test]
fn another_file_than_the_announced_one_is_not_judged() {
    let script = Script::default().altering(0, Kind::Candidate, |bytes| *bytes.last_mut().unwrap() ^= 1);
    let mut federation = federation(judged(), script);
    assert!(federation.run_until(|federation| !federation.devices()[0].refusals().is_empty()));
    let device = &federation.devices()[0];
    let refusal = device.refusals()[0].to_string();
    assert!(refusal.contains("the statement about it says"), "{refusal}");
    let record = device.record().tasks.values().next().unwrap();
    assert!(record.last_judged == 0 && !record.contributions.iter().any(|sent| sent.judged));
}

#[test]
fn nobody_is_asked_where_the_plan_does_not_say_so() {
    let mut federation = federation(groups_of_nine(3), Script::default());
    assert!(federation.run_until(|federation| federation.devices()[0].round() == 1));
    let [task, parent, model] = ["task", "parent", "model"].map(Digest::of);
    let candidate = Candidate { task, round: 1, parent, model }.sign(&federation.secrets.signing);
    let asked = vec![down(Kind::EvaluationOpen, candidate)];
    refuses(&mut federation, asked, "in a task whose plan asks for no answers");
}

#[test]
fn plans_that_cannot_ask_are_refused() {
    let refusal = |setup: Setup| Federation::new(setup, Script::default()).err().unwrap().to_string();
    let mut setup = plain::in_the_clear("local");
    setup.plan.server.gate = Some(asking());
    assert!(
        refusal(setup)
            .contains("server.gate.evaluation is a section, accepted is nothing but in mode secagg")
    );
    let mut setup = judged();
    setup.plan.server.rule = "mean".to_owned();
    setup.plan.server.assumed_byzantine = 2;
    assert!(refusal(setup).contains("bears 2 poisoned groups only among 5 or more"));
}
