//! One account over unlike tasks.
//!
//! A task's ε holds at the task's δ, and ε of several tasks do not add up to anything tight. What adds up, order by order,
//! are Rényi divergences; so of each task its curve is kept, and ε is computed once, from the sum, at one δ for all of
//! it. Adding stays sound where tasks run at the same time (Lyu 2022), and where the next one is chosen after seeing
//! what the ones before released (Feldman, Zrnic 2021).

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Delta, RdpCurve};

/// What a task costs a client, in a form that outlives the task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskLoss {
    /// Rényi divergences of one participation, as pairs of order and divergence.
    pub participation: RdpCurve,
    /// Whether the first participation costs all of it, however many follow.
    pub once: bool,
    /// The probability with which the noise is less than the curve says, in any round: a part of δ that is spent once,
    /// by the first participation.
    #[serde(deserialize_with = "probability")]
    pub failure: f64,
}

impl TaskLoss {
    /// The loss of a task of which nothing is known.
    pub(crate) fn unbounded() -> Self {
        Self { participation: RdpCurve::from_zcdp(f64::INFINITY), once: false, failure: 1.0 }
    }
}

/// The participations of one client in any tasks.
#[derive(Clone, Debug, PartialEq)]
pub struct Account {
    curve: RdpCurve,
    failure: f64,
}

impl Default for Account {
    /// Nothing spent.
    fn default() -> Self {
        Self { curve: RdpCurve::from_zcdp(0.0), failure: 0.0 }
    }
}

impl Account {
    /// Adds all participations in one task. A task must be added once.
    pub fn add(&mut self, task: &TaskLoss, participations: u32) {
        if participations > 0 {
            let losses = if task.once { 1 } else { participations };
            self.curve = self.curve.plus(&task.participation, u64::from(losses));
            self.failure += task.failure;
        }
    }

    /// The ε of everything at this δ; infinite where what may fail by itself is as likely.
    pub fn epsilon(&self, delta: Delta) -> f64 {
        match Delta::new(delta.get() - self.failure) {
            Ok(delta) => self.curve.epsilon(delta).epsilon,
            Err(_) => f64::INFINITY,
        }
    }
}

/// A curve is written as its finite points, pairs of order and divergence.
impl Serialize for RdpCurve {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.points().filter(|(_, divergence)| divergence.is_finite()))
    }
}

/// An order that was not written, or that this version does not know, bounds nothing: losing one costs tightness alone.
impl<'de> Deserialize<'de> for RdpCurve {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Vec::<(f64, f64)>::deserialize(deserializer)?;
        let is_point = |&(order, divergence): &(f64, f64)| order > 1.0 && divergence >= 0.0;
        if let Some((order, divergence)) = written.iter().find(|point| !is_point(point)) {
            return Err(serde::de::Error::custom(format!(
                "divergence {divergence} at order {order}, accepted are divergences from 0 up at orders above 1"
            )));
        }
        Ok(Self::on_default_orders(|order| {
            let at = written.iter().find(|(written, _)| (written / order - 1.0).abs() < 1e-12);
            at.map_or(f64::INFINITY, |(_, divergence)| *divergence)
        }))
    }
}

fn probability<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let value = f64::deserialize(deserializer)?;
    if (0.0..=1.0).contains(&value) {
        return Ok(value);
    }
    Err(serde::de::Error::custom(format!("failure is {value}, accepted is 0 to 1")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Composition, Neighbours, NoiseMultiplier, Sampling, SamplingRate};

    fn delta(value: f64) -> Delta {
        Delta::new(value).unwrap()
    }

    fn gaussian(multiplier: f64, failure: f64) -> TaskLoss {
        let participation = RdpCurve::gaussian(NoiseMultiplier::new(multiplier).unwrap());
        TaskLoss { participation, once: false, failure }
    }

    fn sampled() -> TaskLoss {
        let sampling = Sampling::Poisson(SamplingRate::new(0.01).unwrap());
        let noise = NoiseMultiplier::new(1.0).unwrap();
        let participation = Composition::new(Neighbours::AddRemove).then(sampling, noise, 1).unwrap().rdp();
        TaskLoss { participation, once: false, failure: 0.0 }
    }

    fn account(parts: &[(&TaskLoss, u32)]) -> Account {
        let mut account = Account::default();
        for (task, participations) in parts {
            account.add(task, *participations);
        }
        account
    }

    #[test]
    fn unlike_tasks_add_up_as_their_curves_do() {
        let (a, b) = (gaussian(1.12, 0.0), sampled());
        let ours = account(&[(&a, 8), (&b, 1_000)]).epsilon(delta(1e-5));
        let noise = |multiplier| NoiseMultiplier::new(multiplier).unwrap();
        let sampling = Sampling::Poisson(SamplingRate::new(0.01).unwrap());
        let together = Composition::new(Neighbours::AddRemove)
            .then(Sampling::Full, noise(1.12), 8)
            .and_then(|rounds| rounds.then(sampling, noise(1.0), 1_000))
            .unwrap();
        let rdp = together.rdp().epsilon(delta(1e-5)).epsilon;
        assert!((ours / rdp - 1.0).abs() < 1e-9, "{ours}, not {rdp}");
        // Sound: not below the exact loss of all rounds together, and less than ε added to ε.
        assert!(ours >= together.epsilon(delta(1e-5)).lower);
        let apart =
            account(&[(&a, 8)]).epsilon(delta(0.5e-5)) + account(&[(&b, 1_000)]).epsilon(delta(0.5e-5));
        assert!(ours < apart, "{ours}, {apart} apart");
        assert_eq!(account(&[(&b, 1_000), (&a, 8)]).epsilon(delta(1e-5)), ours);
    }

    #[test]
    fn nothing_costs_nothing_and_every_participation_costs() {
        let task = gaussian(2.0, 1e-7);
        assert_eq!(account(&[]).epsilon(delta(1e-9)), 0.0);
        assert_eq!(account(&[(&task, 0)]), Account::default());
        let mut before = 0.0;
        for participations in 1..20 {
            let epsilon = account(&[(&task, participations)]).epsilon(delta(1e-5));
            assert!(epsilon > before);
            before = epsilon;
        }
    }

    #[test]
    fn a_loss_of_the_whole_task_is_paid_by_the_first_participation() {
        let whole = TaskLoss { once: true, ..gaussian(2.0, 1e-7) };
        let one = account(&[(&gaussian(2.0, 1e-7), 1)]);
        assert_eq!((account(&[(&whole, 1)]), account(&[(&whole, 50)])), (one.clone(), one));
        assert_eq!(account(&[(&whole, 0)]), Account::default());
    }

    #[test]
    fn what_may_fail_in_any_task_comes_off_delta_once_for_each() {
        let (sure, unsure) = (gaussian(2.0, 0.0), gaussian(2.0, 4e-6));
        let once = account(&[(&unsure, 3)]).epsilon(delta(1e-5));
        assert_eq!(once, account(&[(&sure, 3)]).epsilon(delta(1e-5 - 4e-6)));
        let twice = account(&[(&unsure, 3), (&unsure, 3)]).epsilon(delta(1e-5));
        assert!(twice.is_finite() && twice > account(&[(&sure, 6)]).epsilon(delta(1e-5)));
        let thrice = account(&[(&unsure, 1), (&unsure, 1), (&unsure, 1)]);
        assert_eq!(thrice.epsilon(delta(1e-5)), f64::INFINITY, "1.2e-5 of 1e-5");
    }

    #[test]
    fn a_loss_reads_as_it_was_written() {
        for task in [gaussian(1.12, 3e-7), sampled()] {
            let json = serde_json::to_string(&task).unwrap();
            assert_eq!(serde_json::from_str::<TaskLoss>(&json).unwrap(), task);
        }
        let boundless =
            TaskLoss { participation: RdpCurve::from_zcdp(f64::INFINITY), once: true, failure: 0.0 };
        let json = serde_json::to_string(&boundless).unwrap();
        assert_eq!(json, r#"{"participation":[],"once":true,"failure":0.0}"#);
        let read: TaskLoss = serde_json::from_str(&json).unwrap();
        assert_eq!(account(&[(&read, 1)]).epsilon(delta(1e-5)), f64::INFINITY);
    }

    #[test]
    fn an_order_that_is_not_known_bounds_nothing() {
        let read = |json: &str| serde_json::from_str::<TaskLoss>(json);
        let known = read(r#"{"participation":[[2.0,0.5]],"once":false,"failure":0.0}"#).unwrap();
        let unknown = read(r#"{"participation":[[2.0,0.5],[2.03,0.0]],"once":false,"failure":0.0}"#).unwrap();
        assert_eq!(known, unknown);
        assert!(account(&[(&known, 1)]).epsilon(delta(1e-5)).is_finite());
    }

    #[test]
    fn losses_that_are_none_are_refused() {
        for (json, expected) in [
            (r#"{"participation":[[1.0,0.5]],"once":false,"failure":0.0}"#, "divergence 0.5 at order 1"),
            (r#"{"participation":[[2.0,-0.5]],"once":false,"failure":0.0}"#, "divergence -0.5 at order 2"),
            (r#"{"participation":[],"once":false,"failure":1.5}"#, "failure is 1.5, accepted is 0 to 1"),
            (r#"{"participation":[],"once":false,"failure":-0.1}"#, "failure is -0.1"),
            (r#"{"participation":[[2.0]],"once":false,"failure":0.0}"#, "invalid length"),
            (r#"{"participation":[],"once":false,"failure":0.0,"more":1}"#, "unknown field `more`"),
        ] {
            let error = serde_json::from_str::<TaskLoss>(json).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}, expected: {expected}");
        }
    }
}
