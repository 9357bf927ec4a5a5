//! What every field accepts.

use fedveil_aggregation::optimizer::{Adaptive, ServerOptimizer};
use fedveil_aggregation::robust::Rule;

use super::*;

#[test]
fn every_bad_field_is_named_with_what_is_accepted() {
    type Change = fn(&mut TaskPlan);
    let cases: [(Change, &str); 45] = [
        (|plan| plan.version = 1, "version is 1, accepted is 3 to 3"),
        (|plan| plan.mode = "plain".into(), "mode is plain, accepted is secagg"),
        (|plan| plan.task = String::new(), "task is , accepted is a name of 1 to 64 bytes"),
        (|plan| plan.task = "x".repeat(65), "accepted is a name of 1 to 64 bytes"),
        (|plan| plan.rounds = 0, "rounds is 0, accepted is 1 to 100000"),
        (|plan| plan.phase_seconds = 0, "phase_seconds is 0, accepted is 1 to 86400"),
        (|plan| plan.model.parameters = 0, "model.parameters is 0, accepted is 1 to 4194304"),
        (|plan| plan.model.parameters = MAX_PARAMETERS + 1, "model.parameters is 4194305"),
        (|plan| plan.cohort.clients = 1, "cohort.clients is 1, accepted is 2 to 20000"),
        (|plan| plan.cohort.clients = MAX_CLIENTS + 1, "cohort.clients is 20001"),
        (|plan| plan.cohort.minimum = 13, "cohort.minimum is 13, accepted is 2 to 12"),
        (|plan| plan.cohort.minimum = 1, "cohort.minimum is 1, accepted is 2 to 12"),
        (|plan| plan.cohort.assumed_malicious = 10, "cohort.assumed_malicious is 10, accepted is 0 to 9"),
        (|plan| plan.training.epochs = 0, "training.epochs is 0, accepted is 1 to 1000"),
        (|plan| plan.training.learning_rate = 0.0, "training.learning_rate is 0, accepted is more than 0"),
        (|plan| plan.training.learning_rate = f64::NAN, "training.learning_rate is NaN"),
        (
            |plan| plan.privacy.clip_norm = 0.0,
            "privacy.clip_norm is 0, accepted is a number from 1e-12 to 1e12",
        ),
        (|plan| plan.privacy.clip_norm = f64::INFINITY, "privacy.clip_norm is inf"),
        (|plan| plan.privacy.noise_multiplier = 0.0, "privacy.noise_multiplier is 0"),
        (|plan| plan.privacy.noise_multiplier = f64::NAN, "privacy.noise_multiplier is NaN"),
        (|plan| plan.privacy.resolution = 0, "privacy.resolution is 0, accepted is a number of steps"),
        (
            |plan| plan.privacy.placement = "central".into(),
            "privacy.placement is central, accepted is distributed, local",
        ),
        (
            |plan| plan.privacy.mechanism = "laplace".into(),
            "privacy.mechanism is laplace, accepted is discrete-gaussian, skellam",
        ),
        (|plan| plan.privacy.epsilon = 0.0, "privacy.epsilon is 0, accepted is a finite number above 0"),
        (|plan| plan.privacy.delta = f64::NAN, "privacy.delta is NaN, accepted is a number above 0"),
        (
            |plan| plan.privacy.delta = 0.1,
            "privacy.delta is 0.1, accepted is a number above 0, at most 1/12 (one in cohort.clients)",
        ),
        (|plan| plan.privacy.epsilon = -1.0, "privacy.epsilon is -1, accepted is a finite number above 0"),
        (|plan| plan.privacy.delta = 0.0, "privacy.delta is 0, accepted is a number above 0 and below 1"),
        (|plan| plan.privacy.delta = 1.0, "privacy.delta is 1, accepted is a number above 0 and below 1"),
        (|plan| plan.aggregation.group_size = 2, "aggregation.group_size is 2, accepted is 3 to 10"),
        (|plan| plan.aggregation.group_size = 11, "aggregation.group_size is 11, accepted is 3 to 10"),
        (|plan| plan.aggregation.group_size = 10, "aggregation.group_size is 10, accepted is up to 9"),
        (
            |plan| plan.aggregation.protocol = "plain".into(),
            "aggregation.protocol is plain, accepted is pairwise-mask, rlwe-two-layer",
        ),
        (|plan| plan.aggregation.degree = 1, "aggregation.degree is 1, accepted is 2 to 20000"),
        (|plan| plan.aggregation.degree = 9, "aggregation.degree is 9, accepted is an even number, or 11"),
        (|plan| plan.aggregation.threshold = 8, "aggregation.threshold is 8, accepted is 2 to 7"),
        (
            |plan| plan.aggregation.break_probability = 1.0,
            "aggregation.break_probability is 1, accepted is 0 or more, below 1",
        ),
        (|plan| plan.aggregation.min_survivors = 10, "aggregation.min_survivors is 10, accepted is 3 to 9"),
        (
            |plan| plan.aggregation.max_missing_reveals = 2,
            "aggregation.max_missing_reveals is 2, accepted is 0 to 1",
        ),
        (
            |plan| plan.aggregation.masks = "rot13".into(),
            "aggregation.masks is rot13, accepted is aes-256-ctr, chacha20",
        ),
        (|plan| plan.server.rule = "average".into(), "server.rule is average, accepted is mean"),
        (
            |plan| plan.server.assumed_byzantine = 1 << 31,
            "server.assumed_byzantine is 2147483648, accepted is 0 to 12",
        ),
        (|plan| plan.server.learning_rate = -1.0, "server.learning_rate is -1, accepted is more than 0"),
        (|plan| plan.server.momentum = 1.0, "server.momentum is 1, accepted is 0 or more, below 1"),
        (|plan| plan.server.momentum = f64::NAN, "server.momentum is NaN"),
    ];
    for (change, expected) in cases {
        let found = refusal(change);
        assert!(found.contains(expected), "{found}, expected: {expected}");
    }
}

#[test]
fn a_plan_that_would_spend_more_on_an_example_is_refused() {
    let with = |change: fn(&mut ExamplePrivacy)| {
        let mut section = examples();
        change(&mut section);
        refusal(|plan| plan.training.example_privacy = Some(section))
    };
    let spent = with(|section| section.epsilon = 0.5);
    assert!(
        spent.contains("training.example_privacy: ") && spent.contains("of 10 steps spend epsilon"),
        "{spent}"
    );
    assert!(spent.contains("its epsilon accepts 0.5"), "{spent}");
    for (change, expected) in [
        (
            (|section| section.clip_norm = 0.0) as fn(&mut ExamplePrivacy),
            "clip_norm is 0, accepted is a number from",
        ),
        (|section| section.noise_multiplier = 0.0, "noise_multiplier is 0, accepted is a number from 0.001"),
        (
            |section| section.noise_multiplier = 1e3,
            "noise_multiplier is 1000, accepted is a number from 0.001 to 250",
        ),
        (|section| section.noise_multiplier = f64::NAN, "noise_multiplier is NaN"),
        (
            |section| section.sampling_rate = 1.5,
            "sampling_rate is 1.5, accepted is a number above 0, at most 1",
        ),
        (
            |section| section.sampling_rate = 1e-9,
            "sampling_rate is 0.000000001, accepted is at least 0.000001",
        ),
        (|section| section.epsilon = 0.0, "epsilon is 0, accepted is a finite number above 0"),
        (|section| section.delta = 1.0, "delta is 1, accepted is a number above 0 and below 1"),
    ] {
        let found = with(change);
        assert!(
            found.contains(&format!("training.example_privacy.{expected}")),
            "{found}, expected: {expected}"
        );
    }
}

#[test]
fn an_adaptive_clip_norm_out_of_range_is_refused_by_key() {
    let mut fits = plan();
    fits.privacy.adaptive_clip = Some(adaptive_clip());
    assert!(fits.check().is_ok());
    let cases: [(AdaptiveClipping, &str); 6] = [
        (
            AdaptiveClipping { quantile: 1.0, ..adaptive_clip() },
            "privacy.adaptive_clip.quantile is 1, accepted",
        ),
        (
            AdaptiveClipping { learning_rate: 0.0, ..adaptive_clip() },
            "privacy.adaptive_clip.learning_rate is 0",
        ),
        (
            AdaptiveClipping { noise_multiplier: 0.0, ..adaptive_clip() },
            "privacy.adaptive_clip.noise_multiplier is 0",
        ),
        (AdaptiveClipping { minimum: 0.0, ..adaptive_clip() }, "privacy.adaptive_clip.minimum is 0"),
        (AdaptiveClipping { maximum: 0.05, ..adaptive_clip() }, "privacy.adaptive_clip.maximum is 0.05"),
        (
            AdaptiveClipping { minimum: 2.0, ..adaptive_clip() },
            "privacy.clip_norm is 1, accepted is a number from",
        ),
    ];
    for (section, reason) in cases {
        let mut refused = plan();
        refused.privacy.adaptive_clip = Some(section);
        let error = refused.check().unwrap_err().to_string();
        assert!(error.contains(reason), "{error}, expected {reason}");
    }
}

#[test]
fn pre_aggregators_and_options_make_the_rule() {
    let mut plan = plan();
    let options = |plan: &mut TaskPlan, pairs: &[(&str, Setting)]| {
        plan.server.options = pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    };
    let word = |text: &str| Setting::Word(text.to_owned());
    plan.server.rule = "centered-clipping".to_owned();
    plan.server.pre = vec!["clip".to_owned(), "nnm".to_owned()];
    options(&mut plan, &[("c", Setting::Number(1.5)), ("start", word("median"))]);
    let rule = plan.check().unwrap().rule;
    let expected =
        Rule::new("centered-clipping", &["clip", "nnm"], &[("c", "1.5"), ("start", "median")]).unwrap();
    assert!(rule == expected);
    assert_eq!(rule.to_string(), "clip+nnm+centered-clipping");

    // What is signed is what is read.
    let text = serde_json::to_string(&plan).unwrap();
    assert!(text.contains(r#""pre":["clip","nnm"],"options":{"c":1.5,"start":"median"}"#), "{text}");
    assert_eq!(serde_json::from_str::<TaskPlan>(&text).unwrap(), plan);

    for (key, value, expected) in [
        ("c", Setting::Number(-1.0), "option c of clip is \"-1\", accepted is a number above 0"),
        ("depth", Setting::Number(1.0), "clip + nnm + centered-clipping has no option \"depth\""),
        ("start", word("1,2"), "server.options is start = 1,2, accepted is zero, median"),
        ("start", Setting::Number(3.0), "server.options is start = 3, accepted is zero, median"),
    ] {
        options(&mut plan, &[(key, value)]);
        let error = plan.check().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    options(&mut plan, &[("seed", Setting::Number(4.0))]);
    plan.server.pre = vec!["bucketing".to_owned()];
    let error = plan.check().unwrap_err().to_string();
    assert!(error.contains("server.options is seed = 4, accepted is no value"), "{error}");
    options(&mut plan, &[]);
    plan.server.pre = vec!["mixing".to_owned()];
    let error = plan.check().unwrap_err().to_string();
    assert!(
        error.contains("unknown pre-aggregator \"mixing\"; accepted are clip, arc, nnm, bucketing"),
        "{error}"
    );
    plan.server.pre = vec!["clip".to_owned(); 5];
    let error = plan.check().unwrap_err().to_string();
    assert!(error.contains("server.pre is 5 names, accepted is up to 4"), "{error}");
}

#[test]
fn a_server_optimizer_is_of_the_plan() {
    type Case = (fn(&mut AdaptiveOptimizer), &'static str);

    let adaptive = |change: fn(&mut AdaptiveOptimizer)| {
        let mut plan = plan();
        let mut optimizer = AdaptiveOptimizer::of("yogi");
        change(&mut optimizer);
        plan.server.optimizer = Some(optimizer);
        plan
    };
    let expected = ServerOptimizer::Adaptive {
        rule: Adaptive::Yogi,
        learning_rate: 1.0,
        beta1: 0.9,
        beta2: 0.99,
        tau: 1e-3,
    };
    assert_eq!(adaptive(|_| ()).check().unwrap().optimizer, expected);
    let read: Server =
        serde_json::from_str(r#"{"rule":"mean","assumed_byzantine":0,"learning_rate":1.0,"momentum":0.0,"optimizer":{"name":"yogi"}}"#)
            .unwrap();
    assert_eq!(read.optimizer, Some(AdaptiveOptimizer::of("yogi")));
    let cases: [Case; 4] = [
        (|it| it.name = "adamw".into(), "server.optimizer.name is adamw, accepted is adagrad, adam, yogi"),
        (|it| it.beta1 = 1.0, "server.optimizer.beta1 is 1, accepted is a number from 0, below 1"),
        (|it| it.beta2 = -0.1, "server.optimizer.beta2 is -0.1, accepted is a number from 0, below 1"),
        (|it| it.tau = 0.0, "server.optimizer.tau is 0, accepted is a finite number above 0"),
    ];
    for (change, reason) in cases {
        let error = adaptive(change).check().unwrap_err().to_string();
        assert!(error.contains(reason), "{error}, expected {reason}");
    }
    let mut both = adaptive(|_| ());
    both.server.momentum = 0.5;
    let error = both.check().unwrap_err().to_string();
    assert!(error.contains("server.momentum is 0.5, accepted is 0 with server.optimizer"), "{error}");
}

#[test]
fn settings_of_local_training_are_of_the_plan() {
    type Case = (fn(&mut TaskPlan), &'static str);

    let mut fits = plan();
    (fits.training.momentum, fits.training.proximal) = (Some(0.9), Some(0.01));
    (fits.training.planned_steps, fits.training.batch_size) = (Some(10), 0);
    fits.check().unwrap();
    let text = serde_json::to_string(&fits).unwrap();
    assert!(
        text.contains(r#""learning_rate":0.1,"momentum":0.9,"proximal":0.01,"planned_steps":10}"#),
        "{text}"
    );
    let cases: [Case; 4] = [
        (|plan| plan.training.momentum = Some(1.0), "training.momentum is 1, accepted is 0 or more, below 1"),
        (|plan| plan.training.proximal = Some(f64::NAN), "training.proximal is NaN, accepted is more than 0"),
        (
            |plan| plan.training.planned_steps = Some(0),
            "training.planned_steps is 0, accepted is 1 to 1000000",
        ),
        (|plan| plan.training.batch_size = 65_537, "training.batch_size is 65537, accepted is 0 to 65536"),
    ];
    for (change, reason) in cases {
        let error = refusal(change);
        assert!(error.contains(reason), "{error}, expected {reason}");
    }
}
