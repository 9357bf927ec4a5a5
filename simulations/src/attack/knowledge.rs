//! What an attack may look at. Each kind of attack gets a type of its own, so that none can look further.

use std::fmt;

use fedveil_aggregation::robust::Rule;
use rand_core::Rng;

use super::statistics::mean;

/// What an attacker has seen. Without more it is alone.
pub struct Knowledge<'a> {
    pub(super) own: Own<'a>,
    pub(super) others: Option<Others>,
    pub(super) defence: Option<Defence<'a>>,
}

/// What an attack wants to know beyond its own data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// Updates of others: of all honest clients, or of fellows in their place.
    Others,
    /// Updates of others, and the robust rule.
    Rule,
}

/// A client's own.
pub(super) struct Own<'a> {
    /// The update that its data gives, poisoned where the attack poisons data; unclipped.
    pub(super) update: &'a [f64],
    /// The last published model minus the one before; none before there are two.
    pub(super) last_step: Option<&'a [f64]>,
}

/// Updates of others.
pub(super) struct Others {
    /// An honest update, of an honest client or of a fellow.
    pub(super) first: Vec<f64>,
    /// What the rule may be about to see. At least one, all of the same shape.
    pub(super) scenes: Vec<Scene>,
}

/// The rows of one aggregation, as the attacker imagines or knows them.
#[derive(Clone)]
pub(super) struct Scene {
    /// The honest rows. At least one.
    pub(super) honest: Vec<Vec<f64>>,
    /// For each Byzantine row, what comes on top of what the attacker makes it: nothing where it sends the row
    /// itself, the noise and the spread of its group where it sends one addend of it.
    pub(super) veils: Vec<Vec<f64>>,
}

/// The robust rule.
pub(super) struct Defence<'a> {
    pub(super) rule: &'a Rule,
    /// The f that it is set to bear.
    pub(super) byzantine: usize,
}

/// An attack's formula, with all that it takes.
#[derive(Clone, Copy)]
pub(super) enum Craft {
    /// Its own update and the published models, the strength, and the random stream.
    Alone(fn(&Own, Option<f64>, &mut dyn Rng) -> Vec<f64>),
    /// Others' updates besides.
    Together(fn(&Others, Option<f64>) -> Vec<f64>),
    /// The rule besides.
    KnowingRule(fn(&Others, &Defence) -> Vec<f64>),
}

impl<'a> Knowledge<'a> {
    /// One's own update.
    pub fn alone(update: &'a [f64]) -> Self {
        Self { own: Own { update, last_step: None }, others: None, defence: None }
    }

    /// Omniscient: the updates of all honest clients, of which `byzantine` others are to be forged. The first honest
    /// one stands for the attacker's own where an attack starts from that. Panics where there is none.
    pub fn of_honest(updates: &'a [Vec<f64>], byzantine: usize) -> Self {
        let own = updates.first().expect("an omniscient attacker sees an honest update");
        let scene = Scene { honest: updates.to_vec(), veils: vec![vec![0.0; own.len()]; byzantine] };
        Self::alone(own).with_others(own.clone(), vec![scene])
    }

    /// The published models, by the last step from one to the next.
    #[must_use]
    pub fn with_last_step(mut self, step: &'a [f64]) -> Self {
        self.own.last_step = Some(step);
        self
    }

    /// The robust rule and the f that it is set to bear.
    #[must_use]
    pub fn with_rule(mut self, rule: &'a Rule, byzantine: usize) -> Self {
        self.defence = Some(Defence { rule, byzantine });
        self
    }

    pub(super) fn with_others(mut self, first: Vec<f64>, scenes: Vec<Scene>) -> Self {
        self.others = Some(Others { first, scenes });
        self
    }
}

impl Others {
    /// Rows of an aggregation.
    pub(super) fn rows(&self) -> usize {
        self.scenes[0].honest.len() + self.byzantine()
    }

    /// Byzantine rows of an aggregation.
    pub(super) fn byzantine(&self) -> usize {
        self.scenes[0].veils.len()
    }

    /// Honest rows, of all scenes.
    pub(super) fn honest(&self) -> Vec<&[f64]> {
        self.scenes.iter().flat_map(|scene| &scene.honest).map(Vec::as_slice).collect()
    }
}

impl Scene {
    /// The rows that the rule sees when the attacker aims at `target`, the Byzantine ones last.
    pub(super) fn rows(&self, target: &[f64]) -> Vec<Vec<f64>> {
        let forged = self.veils.iter().map(|veil| veil.iter().zip(target).map(|(a, b)| a + b).collect());
        self.honest.iter().cloned().chain(forged).collect()
    }

    /// What the rule makes of those rows, minus the mean of the honest. None where it refuses them.
    pub(super) fn deviation(&self, defence: &Defence, target: &[f64]) -> Option<Vec<f64>> {
        let honest: Vec<&[f64]> = self.honest.iter().map(Vec::as_slice).collect();
        let aggregate = defence.rule.aggregate(&self.rows(target), defence.byzantine).ok()?.vector;
        Some(aggregate.iter().zip(mean(&honest)).map(|(found, honest)| found - honest).collect())
    }
}

impl Craft {
    pub(super) const fn needs(self) -> Needs {
        match self {
            Self::Alone(_) => Needs::Nothing,
            Self::Together(_) => Needs::Others,
            Self::KnowingRule(_) => Needs::Rule,
        }
    }
}

impl fmt::Display for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Nothing => "its own data and the published models",
            Self::Others => "the honest updates; in groups, those of its fellows alone",
            Self::Rule => "the rule and the honest updates; in groups, those of its fellows alone",
        })
    }
}
