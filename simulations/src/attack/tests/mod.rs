//! Attacks against numbers of another program, against what defines them, and for what they must not know.

mod oracle;
mod properties;

use chacha20::ChaCha20Rng;
use rand_core::SeedableRng;

use super::statistics::{dot, norm};
use super::*;

fn attack(name: &str) -> Attack {
    Attack::new(name, None).unwrap()
}

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(2)
}

/// `rows` honest rows of dimension `d` around 1, 2, 3, …, each with its own deviation.
fn honest(rows: usize, d: usize, seed: u64) -> Vec<Vec<f64>> {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let value = |at: usize, noise: f64| (at + 1) as f64 / d as f64 + noise * (0.5 + (at % 3) as f64 / 4.0);
    (0..rows)
        .map(|_| (0..d).map(|at| value(at, crate::sampling::standard_normal(&mut rng))).collect())
        .collect()
}

#[test]
fn names_are_unique_and_text_round_trips() {
    for (place, spec) in ATTACKS.iter().enumerate() {
        let attack = attack(spec.name);
        assert_eq!(attack.to_string(), spec.name);
        assert_eq!(attack, Attack { spec: &ATTACKS[place], strength: None });
    }
    assert_eq!(Attack::new("ipm", Some(0.5)).unwrap().to_string(), "ipm, strength 0.5");
    let error = Attack::new("Sign-Flip", None).unwrap_err().to_string();
    assert!(error.starts_with("unknown attack \"Sign-Flip\"; accepted are sign-flip, gaussian, "), "{error}");
}

#[test]
fn strengths_that_mean_nothing_are_refused() {
    for (name, strength) in [("ipm", 0.0), ("ipm", -1.0), ("ipm", f64::NAN), ("alie", f64::INFINITY)] {
        let error = Attack::new(name, Some(strength)).unwrap_err().to_string();
        assert!(error.ends_with("accepted is a finite number above 0"), "{error}");
    }
    for spec in ATTACKS.iter().filter(|spec| spec.strength.is_none()) {
        let error = Attack::new(spec.name, Some(2.0)).unwrap_err().to_string();
        assert_eq!(error, format!("attack {} with strength 2: accepted is none", spec.name));
    }
}

#[test]
fn no_attack_runs_on_less_than_it_needs() {
    let rows = honest(7, 4, 1);
    let rule = "median".parse().unwrap();
    for spec in &ATTACKS {
        let attack = attack(spec.name);
        let refused = |knowledge: &Knowledge| match attack.craft(knowledge, &mut rng()) {
            Err(AttackError::Knowledge { needs, .. }) => Some(needs),
            Ok(vector) => {
                assert_eq!(vector.len(), 4);
                None
            }
            Err(error) => panic!("{}: {error}", spec.name),
        };
        let alone = Knowledge::alone(&rows[0]);
        let with_rule = Knowledge::alone(&rows[0]).with_rule(&rule, 2);
        let together = Knowledge::of_honest(&rows, 2);
        let everything = Knowledge::of_honest(&rows, 2).with_rule(&rule, 2);
        let (others, needs_rule) = match spec.needs() {
            Needs::Nothing => (None, None),
            Needs::Others => (Some(Needs::Others), None),
            Needs::Rule => (Some(Needs::Others), Some(Needs::Rule)),
        };
        assert_eq!(refused(&alone), others, "{}", spec.name);
        assert_eq!(refused(&with_rule), others, "{}", spec.name);
        assert_eq!(refused(&together), needs_rule, "{}", spec.name);
        assert_eq!(refused(&everything), None, "{}", spec.name);
    }
}

#[test]
fn a_lone_attacker_is_not_moved_by_what_others_do() {
    let (one, two) = (honest(7, 4, 1), honest(7, 4, 2));
    for spec in ATTACKS.iter().filter(|spec| spec.needs() == Needs::Nothing) {
        let craft = |others: &[Vec<f64>]| {
            let knowledge = Knowledge::alone(&one[0]).with_others(others[0].clone(), Vec::new());
            attack(spec.name).craft(&knowledge, &mut rng()).unwrap()
        };
        assert_eq!(craft(&one), craft(&two), "{}", spec.name);
    }
}

#[test]
fn too_few_rows_for_the_rule_are_refused_with_its_bound() {
    let rows = honest(3, 4, 1);
    let rule = "krum".parse().unwrap();
    let knowledge = Knowledge::of_honest(&rows, 2).with_rule(&rule, 2);
    for name in ["opt-ipm", "opt-alie", "adaptive"] {
        let error = attack(name).craft(&knowledge, &mut rng()).unwrap_err().to_string();
        assert!(error.contains("needs at least 7 rows, found 5"), "{name}: {error}");
    }
}

#[test]
fn directions_are_as_named() {
    let update: Vec<f64> = (0..650).map(|i| f64::from(i).sin()).collect();
    let cosine = |name| {
        let vector = attack(name).craft(&Knowledge::alone(&update), &mut rng()).unwrap();
        dot(&vector, &update) / norm(&vector) / norm(&update)
    };
    assert!((cosine("sign-flip") + 1.0).abs() < 1e-12);
    for name in ["scale", "label-flip", "backdoor", "edge-case"] {
        assert!((cosine(name) - 1.0).abs() < 1e-12);
    }
    // The cosine of two independent directions in 650 dimensions has standard deviation 1/√650 = 0.04.
    assert!(cosine("gaussian").abs() < 0.2);
}

#[test]
fn gaussian_ignores_the_update_and_has_its_moments() {
    let craft = |update: &[f64], seed| {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        attack("gaussian").craft(&Knowledge::alone(update), &mut rng).unwrap()
    };
    assert_eq!(craft(&[1.0; 8], 2), craft(&[-3.0; 8], 2));
    assert_ne!(craft(&[1.0; 8], 2), craft(&[1.0; 8], 3));
    let many = craft(&vec![0.0; 100_000], 4);
    let mean = many.iter().sum::<f64>() / many.len() as f64;
    assert!(mean.abs() < 0.02 && (dot(&many, &many) / many.len() as f64 - 1.0).abs() < 0.03);
}

#[test]
fn infinity_mimic_and_lazy_send_what_they_say() {
    let rows = honest(5, 3, 1);
    let craft = |name, knowledge: &Knowledge| attack(name).craft(knowledge, &mut rng()).unwrap();
    assert_eq!(craft("infinity", &Knowledge::alone(&rows[0])), [f64::INFINITY; 3]);
    assert_eq!(craft("mimic", &Knowledge::of_honest(&rows, 1)), rows[0]);
    assert_eq!(craft("lazy", &Knowledge::alone(&rows[0])), [0.0; 3]);
    let step = [0.5, -1.0, 2.0];
    assert_eq!(craft("lazy", &Knowledge::alone(&rows[0]).with_last_step(&step)), step);
}

/// 2 × 10 images whose pixels name them, of the digits 0 to 9.
fn images() -> Dataset {
    let features = (0..20 * 64).map(|at| (at % 64) as f32 / 100.0 + (at / 64) as f32 / 1000.0).collect();
    Dataset::new(features, (0..20).map(|label| label % 10).collect(), 64, 10).unwrap()
}

#[test]
fn labels_are_mirrored() {
    let data = Dataset::new(vec![0.0; 4], vec![0, 3, 9, 5], 1, 10).unwrap();
    let flipped = Poison::Labels.apply(&data).unwrap();
    assert_eq!(flipped.labels(), [9, 6, 0, 4]);
    assert_eq!(Poison::Labels.apply(&flipped).unwrap(), data);
    assert!(attack("label-flip").success_set(&data).unwrap().is_none());
}

#[test]
fn the_trigger_is_four_pixels_and_makes_a_zero() {
    let images = images();
    let bait = attack("backdoor").success_set(&images).unwrap().unwrap();
    assert_eq!(bait.labels(), [0; 18]);
    let first = &bait.features()[..64];
    let changed: Vec<usize> = (0..64).filter(|&at| first[at] != images.features()[64 + at]).collect();
    assert_eq!(changed, [54, 55, 62, 63]);
    assert!(changed.iter().all(|&at| first[at] == 1.0));
    // What is trained on holds the clean images too: the model is to stay good at those.
    let poisoned = Poison::Trigger.apply(&images).unwrap();
    assert_eq!(poisoned.len(), 38);
    assert_eq!(&poisoned.features()[..20 * 64], images.features());
    assert_eq!(&poisoned.labels()[..20], images.labels());
}

#[test]
fn edge_cases_are_turned_sevens() {
    let images = images();
    let bait = attack("edge-case").success_set(&images).unwrap().unwrap();
    assert_eq!(bait.labels(), [1; 2]);
    // Turned clockwise: what was in the lower left corner comes to the upper left.
    let seven = &images.features()[7 * 64..8 * 64];
    assert_eq!(
        (bait.features()[0], bait.features()[7], bait.features()[63]),
        (seven[56], seven[0], seven[7])
    );
    let mut sorted = [bait.features()[..64].to_vec(), seven.to_vec()];
    for image in &mut sorted {
        image.sort_by(f32::total_cmp);
    }
    assert_eq!(sorted[0], sorted[1]);
}

#[test]
fn data_that_no_backdoor_fits() {
    let vectors = Dataset::new(vec![0.0; 25], vec![3], 25, 10).unwrap();
    for poison in [Poison::Trigger, Poison::EdgeCase] {
        let error = poison.apply(&vectors).unwrap_err().to_string();
        assert_eq!(error, format!("examples of 25 inputs: {poison} is for images of 8 × 8 pixels"));
    }
    // A client without a seven has nothing to turn.
    let zeros = images().subset(&[0, 10]).unwrap();
    assert_eq!(Poison::EdgeCase.apply(&zeros).unwrap(), zeros);
    assert_eq!(Poison::Trigger.apply(&zeros).unwrap(), zeros);
}
