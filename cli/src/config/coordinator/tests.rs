//! Configurations that hold, and the key that each other one is refused by.

use super::*;
use fedveil_proto_plan::Gate;

/// How the message begins, and the change that it refuses.
type Case = (&'static str, fn(&mut CoordinatorConfig));

fn refusal(change: impl FnOnce(&mut CoordinatorConfig)) -> String {
    let mut config = CoordinatorConfig::default();
    change(&mut config);
    config.check().unwrap_err().to_string()
}

#[test]
fn every_kind_of_model_is_named() {
    let accepted =
        CoordinatorConfig::KEYS.iter().find(|key| key.path == "model.architecture").unwrap().accepted;
    for kind in fedveil_learning::models::KINDS {
        let form = format!("{}:{}", kind.name, kind.sizes);
        assert!(accepted.split([',', ' ']).any(|word| word == form), "{form}");
    }
}

#[test]
fn defaults_are_an_acceptable_plan() {
    let config = CoordinatorConfig::default();
    config.check().unwrap();
    let id = Digest::of(b"id");
    let plan = config.plan(id, 650);
    assert_eq!((plan.version, plan.mode.as_str(), plan.id), (VERSION, "secagg", id));
    let CoordinatorConfig { task, model, cohort, training, privacy, aggregation, server, .. } = config;
    assert_eq!((plan.task, plan.rounds, plan.phase_seconds), (task.name, task.rounds, task.phase_seconds));
    assert_eq!(plan.model, Model { architecture: model.architecture, parameters: 650 });
    assert_eq!((plan.cohort, plan.training, plan.privacy), (cohort, training.plan(), privacy));
    let aggregation = Aggregation { protocol: "pairwise-mask".to_owned(), ..aggregation };
    assert_eq!((plan.aggregation, plan.server), (aggregation, server), "so small a model is masked itself");
}

#[test]
fn every_listed_word_is_accepted_by_the_plan() {
    let words = |path: &str| {
        let key = CoordinatorConfig::KEYS.iter().find(|key| key.path == path).unwrap();
        key.accepted.replace(" or ", ", ").split(", ").map(str::to_owned).collect::<Vec<_>>()
    };
    for rule in words("server.rule") {
        let mut config = CoordinatorConfig::default();
        (config.server.rule, config.server.assumed_byzantine) = (rule, 0);
        config.check().unwrap();
    }
    for protocol in words("aggregation.protocol") {
        let mut config = CoordinatorConfig::default();
        config.aggregation.protocol = protocol;
        config.check().unwrap();
    }
    for placement in words("privacy.placement") {
        for mechanism in words("privacy.mechanism") {
            let mut config = CoordinatorConfig::default();
            if ["central", NO_NOISE].contains(&placement.as_str()) {
                config.task.mode = "insecure_plain".to_owned();
                config.server.rule = "mean".to_owned();
            }
            (config.privacy.placement, config.privacy.mechanism) = (placement.clone(), mechanism);
            config.check().unwrap();
        }
    }
    for masks in words("aggregation.masks") {
        let mut config = CoordinatorConfig::default();
        config.aggregation.masks = masks;
        config.check().unwrap();
    }
}

#[test]
fn a_plan_in_the_clear_promises_no_groups() {
    let mut config = CoordinatorConfig::default();
    config.task.mode = "insecure_plain".to_owned();
    let error = refusal(|config| config.task.mode = "insecure_plain".to_owned());
    assert!(error.starts_with("privacy.placement is distributed, accepted is local, central"), "{error}");
    config.privacy.placement = "central".to_owned();
    config.server.rule = "mean".to_owned();
    config.check().unwrap();
    assert_eq!(config.plan(Digest::of([]), 650).aggregation, Aggregation::none());
    config.privacy.placement = NO_NOISE.to_owned();
    config.privacy.clip_norm = f64::INFINITY;
    config.check().unwrap();
    assert_eq!(config.plan(Digest::of([]), 650).privacy, Privacy::none(f64::INFINITY));
    config.privacy = Privacy { clip_norm: 0.5, placement: "central".to_owned(), ..config.privacy };
    config.cohort.population = Some(2_000);
    config.check().unwrap();
    let error = refusal(|config| config.task.mode = "open".to_owned());
    assert_eq!(error, "task.mode is open, accepted is secagg, insecure_plain, insecure_ideal");
}

#[test]
fn a_gate_has_the_examples_that_it_looks_at() {
    let mut config = CoordinatorConfig::default();
    config.server.gate = Some(Gate {
        max_step_norm: Some(5.0),
        max_accuracy_drop: None,
        max_trigger_success: None,
        evaluation: None,
        max_rejections: 3,
    });
    config.check().unwrap();
    let gate = config.server.gate.as_mut().unwrap();
    (gate.max_accuracy_drop, gate.max_trigger_success) = (Some(0.1), Some(0.5));
    let error = config.check().unwrap_err().to_string();
    assert!(error.starts_with("server.gate is a section") && error.contains("[hold_out]"), "{error}");
    let mut hold_out = HoldOutSection { examples: "mine.csv".into(), triggers: None, seed: 1 };
    config.hold_out = Some(hold_out.clone());
    let error = config.check().unwrap_err().to_string();
    assert!(error.starts_with("server.gate.max_trigger_success is 0.5, accepted"), "{error}");
    hold_out.triggers = Some("triggers.csv".into());
    config.hold_out = Some(hold_out);
    config.check().unwrap();
    config.hold_out = Some(HoldOutSection { examples: DIGITS.into(), triggers: None, seed: 1 });
    config.check().unwrap();
    let error = refusal(|config| {
        config.server.gate = Some(Gate {
            max_step_norm: Some(-1.0),
            max_accuracy_drop: None,
            max_trigger_success: None,
            evaluation: None,
            max_rejections: 3,
        });
    });
    assert_eq!(error, "server.gate.max_step_norm is -1, accepted is a finite number above 0");
}

#[test]
fn example_privacy_is_on_where_it_has_noise() {
    let mut config = CoordinatorConfig::default();
    assert_eq!(config.plan(Digest::of([]), 650).training.example_privacy, None);
    let section = &mut config.training.example_privacy;
    (section.noise_multiplier, section.epsilon) = (2.0, 20.0);
    config.check().unwrap();
    let planned = config.plan(Digest::of([]), 650).training.example_privacy;
    assert_eq!(planned.as_ref(), Some(&config.training.example_privacy));
    let error = refusal(|config| {
        (config.training.example_privacy.noise_multiplier, config.training.example_privacy.epsilon) =
            (1.0, 1.0);
    });
    assert!(error.contains("rounds of 50 steps spend epsilon"), "{error}");
    let error = refusal(|config| config.training.example_privacy.noise_multiplier = -1.0);
    assert!(error.starts_with("training.example_privacy.noise_multiplier is -1, accepted is"), "{error}");
}

#[test]
fn one_token_for_each_client_unless_told_otherwise() {
    let mut config = CoordinatorConfig::default();
    config.cohort.clients = 250;
    assert_eq!(config.tokens(), 250);
    config.tokens = 3;
    assert_eq!(config.tokens(), 3);
}

#[test]
fn values_out_of_range_are_refused_by_key() {
    let cases: [Case; 22] = [
        ("population.epsilon is 0, accepted is a number above 0, or inf", |config| {
            config.population.epsilon = 0.0;
        }),
        ("population.epsilon is NaN, accepted", |config| config.population.epsilon = f64::NAN),
        ("population.delta is 1, accepted is a number above 0, below 1", |config| {
            config.population.delta = 1.0;
        }),
        ("names is empty, accepted is a list", |config| config.names.clear()),
        ("names is a list with \"a b\", accepted", |config| config.names.push("a b".to_owned())),
        ("tokens is 20001, accepted", |config| config.tokens = 20_001),
        ("model.architecture is \"resnet\", accepted is softmax:", |config| {
            config.model.architecture = "resnet".to_owned();
        }),
        ("model.architecture is 10000010, accepted is", |config| {
            config.model.architecture = "softmax:1000000x10".to_owned();
        }),
        ("task.name is , accepted is a name", |config| config.task.name.clear()),
        ("task.rounds is 0, accepted is 1 to", |config| config.task.rounds = 0),
        ("task.phase_seconds is 0, accepted is 1 to", |config| config.task.phase_seconds = 0),
        ("cohort.minimum is 1, accepted is 2 to", |config| config.cohort.minimum = 1),
        ("privacy.epsilon is NaN, accepted is", |config| config.privacy.epsilon = f64::NAN),
        ("privacy.epsilon is 0, accepted is a finite number above 0", |config| {
            config.privacy.epsilon = 0.0;
        }),
        ("privacy.clip_norm is 0, accepted is", |config| config.privacy.clip_norm = 0.0),
        ("privacy.noise_multiplier is 0, accepted is", |config| config.privacy.noise_multiplier = 0.0),
        ("privacy.resolution is 0, accepted is", |config| config.privacy.resolution = 0),
        ("privacy.placement is here, accepted is", |config| config.privacy.placement = "here".to_owned()),
        ("privacy.mechanism is loud, accepted is", |config| config.privacy.mechanism = "loud".to_owned()),
        ("privacy.delta is 1, accepted is a number above 0", |config| config.privacy.delta = 1.0),
        (
            "privacy.delta is 0.006, accepted is a number above 0, at most 1/200 (one in cohort.clients)",
            |config| {
                config.privacy.delta = 0.006;
            },
        ),
        ("privacy.delta is 0.004, accepted is a number above 0, at most 1/300 (one in tokens)", |config| {
            (config.privacy.delta, config.tokens) = (0.004, 300);
        }),
    ];
    for (expected, change) in cases {
        let error = refusal(change);
        assert!(error.starts_with(expected), "{error}");
    }
    let error = refusal(|config| config.server.assumed_byzantine = 5_000);
    assert!(error.starts_with("server.assumed_byzantine is 5000, accepted is 0 to"), "{error}");
}

#[test]
fn a_quarantine_that_could_not_work_is_refused() {
    let cases: [Case; 9] = [
        ("cohort.assumed_malicious is 0, accepted is 1 or more with quarantine.mode automatic", |config| {
            (config.quarantine.mode, config.cohort.assumed_malicious) = ("automatic".to_owned(), 0);
        }),
        ("quarantine.mode is on, accepted is off, report or automatic", |config| {
            config.quarantine.mode = "on".to_owned();
        }),
        ("quarantine.false_alarm is 0, accepted is a number above 0, at most 0.5", |config| {
            config.quarantine.false_alarm = 0.0;
        }),
        ("quarantine.false_alarm is NaN, accepted", |config| config.quarantine.false_alarm = f64::NAN),
        ("quarantine.minimum_rounds is 0, accepted is 1 to 1000", |config| {
            config.quarantine.minimum_rounds = 0;
        }),
        ("quarantine.contact is ", |config| config.quarantine.contact = "a\nb".to_owned()),
        (
            "task plan: quarantine.mode automatic may take cohort.assumed_malicious 4 of 200 clients away, and \
             cohort.minimum 198 would never be there",
            |config| {
                (config.quarantine.mode, config.cohort.minimum) = ("automatic".to_owned(), 198);
            },
        ),
        (
            "task plan: quarantine.mode automatic would never name anyone: in 3 groups, 4 attackers can frame",
            |config| {
                config.quarantine.mode = "automatic".to_owned();
                let Aggregation { group_size, degree, threshold, min_survivors, .. } =
                    &mut config.aggregation;
                (*group_size, *degree, *threshold, *min_survivors) = (59, 100, 40, 50);
                config.server.assumed_byzantine = 1;
            },
        ),
        ("quarantine.mode is automatic, accepted is off, report (in mode insecure_plain", |config| {
            (config.task.mode, config.quarantine.mode) =
                ("insecure_plain".to_owned(), "automatic".to_owned());
            (config.privacy.placement, config.server.rule) = ("local".to_owned(), "mda".to_owned());
        }),
    ];
    for (expected, change) in cases {
        let error = refusal(change);
        assert!(error.starts_with(expected), "{error}");
    }
    let mut config = CoordinatorConfig::default();
    config.quarantine.mode = "automatic".to_owned();
    config.check().unwrap();
}

#[test]
fn errors_of_the_plan_name_the_line() {
    let text = "[cohort]\nclients = 200\nminimum = 201\n";
    let error = super::super::Draft::parse::<CoordinatorConfig>(Path::new("c.toml"), text)
        .unwrap()
        .finish::<CoordinatorConfig>()
        .unwrap_err();
    assert_eq!(error.to_string(), "c.toml:3: cohort.minimum is 201, accepted is 2 to 200");
}

#[test]
fn secrets_are_not_written_where_results_go() {
    let folder = tempfile::TempDir::new().unwrap();
    let config = |keys: &str, tokens: &str| CoordinatorConfig {
        out: folder.path().join("runs/one"),
        keys: folder.path().join(keys),
        tokens_dir: folder.path().join(tokens),
        ..CoordinatorConfig::default()
    };
    config("keys", "runs/one-tokens").check().unwrap();
    config("runs", "runs/two").check().unwrap();
    for inside in ["runs/one", "runs/one/keys", "runs/two/../one/keys", "./runs/./one/a/b"] {
        let error = config(inside, "tokens").check().unwrap_err().to_string();
        assert!(
            error.starts_with("keys is ") && error.ends_with("accepted is a folder outside of out"),
            "{error}"
        );
        assert!(config("keys", inside).check().unwrap_err().to_string().starts_with("tokens_dir is "));
    }
}

#[cfg(unix)]
#[test]
fn links_into_the_output_folder_are_seen_through() {
    let folder = tempfile::TempDir::new().unwrap();
    let out = folder.path().join("out");
    std::fs::create_dir(&out).unwrap();
    std::os::unix::fs::symlink(&out, folder.path().join("link")).unwrap();
    let keys = folder.path().join("link/keys");
    assert!(refusal(|config| (config.out, config.keys) = (out, keys)).starts_with("keys is "));
}

#[test]
fn host_names() {
    for name in ["localhost", "127.0.0.1", "::1", "fl-1.example.org"] {
        assert!(is_host(name), "{name}");
    }
    for name in ["", "a..b", "a b", "https://a", "localhost:7443", "a_b"] {
        assert!(!is_host(name), "{name}");
    }
}
