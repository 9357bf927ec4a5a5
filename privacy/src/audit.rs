//! Audits: lower bounds on ε from guesses about canaries.
//!
//! A canary is a client whose part in a run was decided by a fair coin that the mechanism never saw. An auditor scores
//! every canary by what the mechanism released, guesses coins from the scores, and counts how often it is right. A
//! mechanism that keeps its promise leaves little to guess by, so that many right guesses refute the promise. No audit
//! proves one: a bound of zero says that this auditor saw nothing.
//!
//! | bound | what it refutes | where it holds |
//! |---|---|---|
//! | [`Guesses::epsilon`] | (ε, δ)-differential privacy | all canaries in one run |
//! | [`Guesses::mu`], [`Guesses::epsilon_of_gaussian`] | a trade-off curve at least as good as a Gaussian mechanism's | all canaries in one run |
//! | [`Detections::epsilon`] | (ε, δ)-differential privacy | independent scores, as of one canary a run |
//!
//! The first is Steinke, Nasr and Jagielski, "Privacy Auditing with One (1) Training Run" (2023, arXiv 2305.08846,
//! theorem 5.2); the second Mahloujifar, Melis and Chaudhuri, "Auditing f-Differential Privacy in One Run" (2024, arXiv
//! 2410.22235, algorithm 3), whose hypothesis is the whole curve and not one point of it: with few canaries it sees much
//! further. The third bounds error rates after Clopper and Pearson (1934), as in Nasr et al. (2021, arXiv 2101.04535).
//!
//! How much m canaries can show is limited by m alone: 100 coins, all guessed right, refute ε = 3.5 of
//! differential privacy and ε = 8.2 of a Gaussian mechanism (δ = 10⁻⁵, confidence 95 %), and 1000 coins 5.8 and 12.3.
//!
//! A bound holds for one rule of guessing, fixed before the scores are seen. Whoever tries several and keeps the best
//! gives each its [part](Significance::over) of the significance (Bonferroni): then all bounds hold together, however
//! they depend on one another. Rules here are ranks ([`Scores::guess`]) or thresholds ([`Scores::detect`]). Choosing
//! thresholds by looking at the scores, and dividing by the number of the chosen alone, is not covered by that.

use crate::{Composition, Delta, Neighbours, NoiseMultiplier, ParamError, Sampling, Significance};

/// Most canaries of one audit; it bounds memory and time.
const MAX_CANARIES: u32 = 1 << 20;

/// How well coins were guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guesses {
    canaries: u32,
    made: u32,
    correct: u32,
}

impl Guesses {
    /// `correct` right guesses among `made`, about as many of `canaries` coins; for the others the auditor abstained.
    ///
    /// # Errors
    /// No canary or more than 2^20, more guesses than canaries, or more right guesses than guesses.
    pub fn new(canaries: u32, made: u32, correct: u32) -> Result<Self, ParamError> {
        check_canaries(canaries)?;
        let count = |name, found: u32, accepted, most: u32| {
            ParamError::check(name, f64::from(found), accepted, found <= most)
        };
        count("guesses made", made, "a number up to that of the canaries", canaries)?;
        count("correct guesses", correct, "a number up to that of the guesses", made)?;
        Ok(Self { canaries, made, correct })
    }

    /// Coins there were.
    pub fn canaries(&self) -> u32 {
        self.canaries
    }

    /// Coins that were guessed.
    pub fn made(&self) -> u32 {
        self.made
    }

    /// Guesses that were right.
    pub fn correct(&self) -> u32 {
        self.correct
    }

    /// A bound on the probability of as many right guesses about the outputs of an (ε, δ)-differentially private
    /// mechanism, whoever guesses and however.
    ///
    /// # Errors
    /// An ε below 0, a δ outside [0, 1], or a NaN.
    pub fn p_value(&self, epsilon: f64, delta: f64) -> Result<f64, ParamError> {
        ParamError::check("epsilon", epsilon, "a number of at least 0", epsilon >= 0.0)?;
        ParamError::check("delta", delta, "a number from 0 to 1", (0.0..=1.0).contains(&delta))?;
        Ok(self.chance(epsilon, delta))
    }

    /// The ε up to which (ε, δ)-differential privacy is refuted, for `canaries` coins in one run. 0 where nothing is.
    pub fn epsilon(&self, significance: Significance, delta: Delta) -> f64 {
        // No number of guesses refutes the upper end: all of them are right with probability 1 − 2^20·e^-64 or more.
        last(64.0, |epsilon| self.chance(epsilon, delta.get()) < significance.get())
    }

    /// The μ up to which a trade-off curve as good as that of N(0, 1) and N(μ, 1) is refuted. 0 where nothing is.
    pub fn mu(&self, significance: Significance) -> f64 {
        // Φ(z − 64) is zero in f64 for every z that occurs, and then nothing is refuted.
        last(64.0, |mu| self.refutes_gaussian(mu, significance.get()))
    }

    /// [`mu`](Self::mu) in terms of ε: the exact ε at δ of that Gaussian mechanism.
    ///
    /// It says that a Gaussian mechanism which allows so many right guesses spends more than this ε. Other mechanisms of
    /// that ε may have other curves, so compare it with claims about Gaussian noise only.
    pub fn epsilon_of_gaussian(&self, significance: Significance, delta: Delta) -> f64 {
        // Below the least μ that a noise multiplier can express lies no ε that anyone would state.
        NoiseMultiplier::new(1.0 / self.mu(significance)).map_or(0.0, |noise| {
            Composition::new(Neighbours::AddRemove)
                .then(Sampling::Full, noise, 1)
                .map_or(0.0, |rounds| rounds.epsilon(delta).lower)
        })
    }

    /// P[X ≥ v] + 2mδ·max_i P[v − i ≤ X < v]/i for X binomial, each of r guesses right with probability
    /// e^ε/(1 + e^ε).
    fn chance(&self, epsilon: f64, delta: f64) -> f64 {
        let pmf = binomial(self.made, epsilon.min(700.0).exp());
        let (below, from) = pmf.split_at(self.correct as usize);
        let beta: f64 = from.iter().rev().sum();
        let mut interval = 0.0;
        let mut alpha = 0.0f64;
        for (i, probability) in below.iter().rev().enumerate() {
            interval += probability;
            alpha = alpha.max(interval / (i + 1) as f64);
        }
        (beta + 2.0 * f64::from(self.canaries) * delta * alpha).min(1.0)
    }

    /// Algorithm 3 of arXiv 2410.22235 for coins of two sides and the curve f(x) = Φ(Φ⁻¹(1 − x) − μ): whether so many
    /// right guesses have a probability below `significance`. Supposing that they do not, r and h bound from below how
    /// much of the probability lies in right and in wrong guesses; more than there are guesses is a contradiction.
    fn refutes_gaussian(&self, mu: f64, significance: f64) -> bool {
        let (canaries, made, correct) =
            (f64::from(self.canaries), f64::from(self.made), f64::from(self.correct));
        let mut r = significance * correct / canaries;
        let mut h = significance * (made - correct) / canaries;
        for i in (0..self.correct).rev() {
            let next = h.max(normal_cdf(normal_quantile(r) - mu));
            if next == h {
                // From here on neither would change.
                break;
            }
            r = (r + f64::from(i) / f64::from(self.made - i) * (next - h)).min(1.0);
            h = next;
        }
        r + h > made / canaries
    }
}

/// How often scores passed a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detections {
    included: u32,
    included_above: u32,
    excluded: u32,
    excluded_above: u32,
}

impl Detections {
    /// Of `included` canaries that took part, `included_above` scored at or above the threshold; likewise of those that
    /// did not take part.
    ///
    /// # Errors
    /// More than 2^20 canaries on a side, or more detections than canaries.
    pub fn new(
        included: u32,
        included_above: u32,
        excluded: u32,
        excluded_above: u32,
    ) -> Result<Self, ParamError> {
        for (name, above, all) in [
            ("included canaries above the threshold", included_above, included),
            ("excluded canaries above the threshold", excluded_above, excluded),
        ] {
            let accepted = "a number up to that of the canaries, of which there are at most 2^20";
            ParamError::check(name, f64::from(above), accepted, above <= all && all <= MAX_CANARIES)?;
        }
        Ok(Self { included, included_above, excluded, excluded_above })
    }

    /// The ε up to which (ε, δ)-differential privacy is refuted, if the scores are independent. 0 where nothing is.
    ///
    /// Half of the significance goes to each error rate; the bounds on both then hold for either side of the coin.
    pub fn epsilon(&self, significance: Significance, delta: Delta) -> f64 {
        let (misses, false_alarms) = self.error_rates(significance);
        ratio(1.0 - misses, false_alarms, delta).max(ratio(1.0 - false_alarms, misses, delta))
    }

    /// Upper bounds on the rates at which the included fall below and the excluded come out above.
    fn error_rates(&self, significance: Significance) -> (f64, f64) {
        let half = significance.get() / 2.0;
        let missed = self.included - self.included_above;
        (upper_rate(missed, self.included, half), upper_rate(self.excluded_above, self.excluded, half))
    }
}

/// Scores of canaries, each with its coin.
#[derive(Clone, Debug)]
pub struct Scores {
    /// From the highest score to the lowest.
    ranked: Vec<(f64, bool)>,
}

impl Scores {
    /// `(score, included)` of every canary; included ones are expected to score higher. Equal scores keep their order,
    /// which must not depend on the coins.
    ///
    /// # Errors
    /// No canary or more than 2^20, or a score that is not finite.
    pub fn new(scores: impl IntoIterator<Item = (f64, bool)>) -> Result<Self, ParamError> {
        let mut ranked: Vec<_> = scores.into_iter().take(MAX_CANARIES as usize + 1).collect();
        check_canaries(ranked.len() as u32)?;
        for (score, _) in &ranked {
            ParamError::check("score", *score, "a finite number", score.is_finite())?;
        }
        ranked.sort_by(|(one, _), (two, _)| two.total_cmp(one));
        Ok(Self { ranked })
    }

    /// Canaries.
    pub fn canaries(&self) -> u32 {
        self.ranked.len() as u32
    }

    /// Guesses that the `top` highest were included and the `bottom` lowest were not.
    ///
    /// # Errors
    /// More guesses than canaries.
    pub fn guess(&self, top: u32, bottom: u32) -> Result<Guesses, ParamError> {
        let made = top.saturating_add(bottom);
        Guesses::new(self.canaries(), made, 0)?;
        let (highest, rest) = self.ranked.split_at(top as usize);
        let lowest = &rest[rest.len() - bottom as usize..];
        let right = highest.iter().filter(|(_, included)| *included).count()
            + lowest.iter().filter(|(_, included)| !*included).count();
        Guesses::new(self.canaries(), made, right as u32)
    }

    /// How often scores are at or above `threshold`.
    pub fn detect(&self, threshold: f64) -> Detections {
        let count = |of: bool, least: f64| {
            self.ranked.iter().filter(|(score, included)| *included == of && *score >= least).count() as u32
        };
        Detections {
            included: count(true, f64::NEG_INFINITY),
            included_above: count(true, threshold),
            excluded: count(false, f64::NEG_INFINITY),
            excluded_above: count(false, threshold),
        }
    }
}

/// What an audit found: bounds that hold together, each with the guesses that gave it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Audit {
    /// The largest [`Guesses::epsilon`].
    pub one_run: (f64, Guesses),
    /// The largest [`Guesses::epsilon_of_gaussian`].
    pub gaussian: (f64, Guesses),
    /// The larger bound that all guesses right would have given: what so many canaries can show at most.
    pub reach: f64,
}

impl Audit {
    /// The larger bound.
    pub fn epsilon(&self) -> f64 {
        self.one_run.0.max(self.gaussian.0)
    }
}

impl Scores {
    /// Bounds on the ε of a Gaussian mechanism from one run, all of them together right at this significance.
    ///
    /// Guessed are all coins, the half of which the scores say most, or a quarter: as many from the top as from the
    /// bottom. That is fixed before any score is seen. Each of these for both methods gets its part of the significance.
    pub fn audit(&self, significance: Significance, delta: Delta) -> Audit {
        let part = significance.over(2 * SHARES.len() as u32);
        let mut rules = SHARES.map(|share| {
            let made = (self.canaries() / share).max(1);
            self.guess(made - made / 2, made / 2).expect("a share of the canaries is not more than there are")
        });
        let best = |bound: &dyn Fn(&Guesses) -> f64| {
            let bounds = rules.iter().map(|guesses| (bound(guesses), *guesses));
            bounds.max_by(|one, two| one.0.total_cmp(&two.0)).expect("there are rules")
        };
        let one_run = |guesses: &Guesses| guesses.epsilon(part, delta);
        let gaussian = |guesses: &Guesses| guesses.epsilon_of_gaussian(part, delta);
        let (found_one_run, found_gaussian) = (best(&one_run), best(&gaussian));
        for guesses in &mut rules {
            guesses.correct = guesses.made;
        }
        let reach = rules.iter().map(|guesses| one_run(guesses).max(gaussian(guesses))).fold(0.0, f64::max);
        Audit { one_run: found_one_run, gaussian: found_gaussian, reach }
    }
}

/// One of how many coins is guessed.
const SHARES: [u32; 3] = [1, 2, 4];

fn check_canaries(found: u32) -> Result<(), ParamError> {
    let accepted = "a number from 1 to 1048576";
    ParamError::check("canaries", f64::from(found), accepted, (1..=MAX_CANARIES).contains(&found))
}

/// The largest number in [0, high) up to which `holds`, a condition that ends before `high`; rounded down.
fn last(mut high: f64, holds: impl Fn(f64) -> bool) -> f64 {
    if !holds(0.0) {
        return 0.0;
    }
    let mut low = 0.0;
    while high - low > 1e-12 * high {
        let middle = f64::midpoint(low, high);
        if holds(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

/// P[X = 0], …, P[X = n] for n trials whose success has these odds: p/(1 − p).
///
/// Every probability is the product of ratios of neighbours, starting at the largest, over the sum of all. Nothing is
/// subtracted and nothing leaves the range of f64 but what is zero next to the largest.
fn binomial(n: u32, odds: f64) -> Vec<f64> {
    let most = f64::from(n);
    let mode = (((most + 1.0) * (odds / (1.0 + odds))).floor() as usize).min(n as usize);
    let mut pmf = vec![1.0; n as usize + 1];
    for k in mode..n as usize {
        pmf[k + 1] = pmf[k] * ((most - k as f64) / (k as f64 + 1.0) * odds);
    }
    for k in (0..mode).rev() {
        pmf[k] = pmf[k + 1] * ((k as f64 + 1.0) / (most - k as f64) / odds);
    }
    let total: f64 = pmf.iter().sum();
    for probability in &mut pmf {
        *probability /= total;
    }
    pmf
}

/// The least rate at which `events` or fewer of `trials` have a probability of at most `significance`; rounded up.
fn upper_rate(events: u32, trials: u32, significance: f64) -> f64 {
    if events == trials {
        return 1.0;
    }
    let (mut low, mut high) = (0.0, 1.0);
    while high - low > 1e-13 * high {
        let rate = f64::midpoint(low, high);
        let at_most: f64 = binomial(trials, rate / (1.0 - rate))[..=events as usize].iter().sum();
        if at_most <= significance {
            high = rate;
        } else {
            low = rate;
        }
    }
    high
}

/// The ε of a detection rate of at least `hits` with false alarms of at most `alarms`.
fn ratio(hits: f64, alarms: f64, delta: Delta) -> f64 {
    let beyond_delta = hits - delta.get();
    if beyond_delta > alarms { (beyond_delta / alarms).ln() } else { 0.0 }
}

fn normal_cdf(x: f64) -> f64 {
    0.5 * libm::erfc(-x / std::f64::consts::SQRT_2)
}

/// The inverse of [`normal_cdf`]; infinite at 0 and 1.
fn normal_quantile(p: f64) -> f64 {
    let tail = p.min(1.0 - p);
    if tail <= 0.0 {
        return if p < 0.5 { f64::NEG_INFINITY } else { f64::INFINITY };
    }
    // Abramowitz and Stegun 26.2.23, within 4.5e-4; each step of Halley's method triples the digits.
    let t = (-2.0 * tail.ln()).sqrt();
    let mut z = t
        - (2.515_517 + t * (0.802_853 + t * 0.010_328))
            / (1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308)));
    for _ in 0..2 {
        let density = (-0.5 * z * z).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let step = (normal_cdf(-z) - tail) / density;
        z += step / (1.0 - 0.5 * z * step);
    }
    if p < 0.5 { -z } else { z }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    fn significance(value: f64) -> Significance {
        Significance::new(value).unwrap()
    }

    fn delta(value: f64) -> Delta {
        Delta::new(value).unwrap()
    }

    #[test]
    fn p_values_of_the_reference() {
        // jax_privacy's auditing.py on scipy 1.17.
        for (canaries, made, correct, epsilon, delta, expected) in [
            (1_000, 1_000, 600, 0.2, 0.0, 7.652_334_289_671_225e-4),
            (1_000, 200, 180, 1.0, 1e-5, 4.362_245_385_791_604e-4),
            (1_000, 1_000, 600, 0.2, 1e-5, 1.023_241_215_225_459_9e-3),
            (10_000, 500, 450, 1.5, 1e-5, 3.475_423_329_446_625_4e-3),
        ] {
            let found = Guesses::new(canaries, made, correct).unwrap().p_value(epsilon, delta).unwrap();
            assert!((found / expected - 1.0).abs() < 1e-11, "{made} guesses: {found}, not {expected}");
        }
    }

    #[test]
    fn p_values_by_hand() {
        // Three right of three: q³ with q = e^ε/(1 + e^ε), and δ adds 2mδ·max(3q²(1 − q), …).
        let all = Guesses::new(10, 3, 3).unwrap();
        let q = 2.0 / 3.0;
        let found = |delta| all.p_value(f64::ln(2.0), delta).unwrap();
        assert!((found(0.0) - q * q * q).abs() < 1e-15);
        assert!((found(1e-3) - (q * q * q + 20.0 * 1e-3 * 3.0 * q * q * (1.0 - q))).abs() < 1e-15);
        // Whatever is guessed, nobody is wrong more often than always.
        assert_eq!(Guesses::new(10, 3, 0).unwrap().p_value(0.0, 1.0).unwrap(), 1.0);
        assert_eq!(Guesses::new(10, 0, 0).unwrap().p_value(0.0, 0.0).unwrap(), 1.0);
        assert_eq!(all.p_value(f64::INFINITY, 0.0).unwrap(), 1.0);
        assert_eq!(found(1.0), 1.0);
    }

    #[test]
    fn all_right_refutes_what_its_closed_form_says() {
        // q^r = significance.
        let guesses = Guesses::new(100, 100, 100).unwrap();
        let q = 0.05f64.powf(0.01);
        let expected = (q / (1.0 - q)).ln();
        assert!((guesses.epsilon(significance(0.05), delta(1e-30)) - expected).abs() < 1e-9);
        // Independent Gaussian scores would all be guessed right with probability Φ(μ/2)^100; the algorithm allows for
        // any dependence between them. 1.703160 is its answer in Python.
        let mu = guesses.mu(significance(0.05));
        assert!((mu - 1.703_160_3).abs() < 1e-6 && mu < 2.0 * normal_quantile(q), "{mu}");
    }

    #[derive(Deserialize)]
    struct Vectors {
        bounds: Bounds,
        included: Vec<f64>,
        excluded: Vec<f64>,
    }

    #[derive(Deserialize)]
    struct Bounds {
        one_run: f64,
        one_run_fdp: f64,
        clopper_pearson: f64,
    }

    /// The thresholds that the reference considers: vertices of the concave hull of hits over false alarms. It takes
    /// them from the scores and divides the significance by their number, which this module says not to rely on.
    fn hull(scores: &Scores) -> Vec<f64> {
        let mut vertices: Vec<(f64, Detections)> = Vec::new();
        let thresholds = std::iter::once(f64::INFINITY).chain(scores.ranked.iter().map(|(score, _)| *score));
        let point = |at: &Detections| (i64::from(at.excluded_above), i64::from(at.included_above));
        for threshold in thresholds {
            let next = scores.detect(threshold);
            while let [.., (_, before), (_, last)] = vertices.as_slice() {
                let ((x0, y0), (x1, y1), (x2, y2)) = (point(before), point(last), point(&next));
                if (y1 - y0) * (x2 - x1) > (y2 - y1) * (x1 - x0) {
                    break;
                }
                vertices.pop();
            }
            vertices.push((threshold, next));
        }
        vertices.into_iter().map(|(threshold, _)| threshold).collect()
    }

    #[test]
    fn bounds_of_the_reference() {
        let text = include_str!("../../tests/vectors/privacy/audit_scores.json");
        let Vectors { bounds, included, excluded } = serde_json::from_str(text).unwrap();
        let coins = included.iter().map(|&score| (score, true));
        let scores = Scores::new(coins.chain(excluded.iter().map(|&score| (score, false)))).unwrap();
        let thresholds = hull(&scores);
        assert_eq!(thresholds.len(), 17);
        let (part, delta) = (significance(0.05).over(17), delta(1e-5));
        let best = |bound: &dyn Fn(Detections) -> f64| {
            thresholds.iter().map(|&at| bound(scores.detect(at))).fold(0.0, f64::max)
        };
        let guesses = |at: Detections| scores.guess(at.included_above + at.excluded_above, 0).unwrap();
        for (found, expected) in [
            (best(&|at| guesses(at).epsilon(part, delta)), bounds.one_run),
            (best(&|at| guesses(at).epsilon_of_gaussian(part, delta)), bounds.one_run_fdp),
            // The reference looks at one side of the coin by default.
            (
                best(&|at| {
                    let (misses, false_alarms) = at.error_rates(part);
                    ratio(1.0 - misses, false_alarms, delta)
                }),
                bounds.clopper_pearson,
            ),
            (best(&|at| at.epsilon(part, delta)), 1.235_890_6),
        ] {
            assert!((found - expected).abs() < 2e-6, "{found}, not {expected}");
        }
    }

    #[test]
    fn bounds_are_where_the_p_value_crosses() {
        for (made, correct) in [(1_000, 700), (200, 180), (50, 50), (1_000, 500)] {
            let guesses = Guesses::new(1_000, made, correct).unwrap();
            let epsilon = guesses.epsilon(significance(0.05), delta(1e-5));
            let p = |epsilon: f64| guesses.p_value(epsilon, 1e-5).unwrap();
            assert!(epsilon == 0.0 || p(epsilon) < 0.05, "{made}, {correct}");
            assert!(p(epsilon + 1e-9) >= 0.05, "{made}, {correct}");
        }
    }

    /// Standard normal numbers at the midpoints of equal slices, in a scrambled order.
    fn normals(count: u32) -> impl Iterator<Item = f64> {
        (0..count).map(move |i| {
            let slice = (u64::from(i) * 7_919) % u64::from(count);
            normal_quantile((slice as f64 + 0.5) / f64::from(count))
        })
    }

    #[test]
    fn bounds_stay_below_a_gaussian_mechanism_and_come_near_it() {
        // As many canaries as it takes: the bounds approach what N(0, 1) and N(1, 1) spend, and do not pass it.
        let truth = Composition::new(Neighbours::AddRemove)
            .then(Sampling::Full, NoiseMultiplier::new(1.0).unwrap(), 1)
            .unwrap()
            .epsilon(delta(1e-5))
            .upper;
        let count = 100_000;
        let coins = normals(count).map(|x| (x + 1.0, true)).chain(normals(count).map(|x| (x, false)));
        let scores = Scores::new(coins).unwrap();
        let guesses = scores.guess(4_000, 4_000).unwrap();
        let found = guesses.epsilon_of_gaussian(significance(0.05), delta(1e-5));
        assert!(found < truth && found > 0.7 * truth, "{found} of {truth}");
        let found = guesses.epsilon(significance(0.05), delta(1e-5));
        assert!(found < truth && found > 0.4 * truth, "{found} of {truth}");
        let found = scores.detect(3.5).epsilon(significance(0.05), delta(1e-5));
        assert!(found < truth && found > 0.4 * truth, "{found} of {truth}");
    }

    #[test]
    fn an_audit_takes_the_best_of_its_rules() {
        let audit = |gap: f64| {
            let coins = normals(200).enumerate().map(|(i, x)| {
                let included = i % 2 == 0;
                (if included { x + gap } else { x }, included)
            });
            Scores::new(coins).unwrap().audit(significance(0.06), delta(1e-5))
        };
        let part = significance(0.01);
        let certain = audit(1e3);
        let all = Guesses::new(200, 200, 200).unwrap();
        assert_eq!(certain.one_run, (all.epsilon(part, delta(1e-5)), all));
        assert_eq!(certain.gaussian, (all.epsilon_of_gaussian(part, delta(1e-5)), all));
        assert_eq!(certain.epsilon(), certain.reach);
        assert!(certain.gaussian.0 > 7.0, "{certain:?}");
        let weak = audit(1.0);
        assert!(weak.epsilon() > 0.0 && weak.epsilon() < 2.0 && weak.reach == certain.reach, "{weak:?}");
        assert_eq!(audit(0.0).epsilon(), 0.0);
        // One canary shows nothing, whoever guesses.
        let one = Scores::new([(1.0, true)]).unwrap().audit(significance(0.05), delta(1e-5));
        assert_eq!((one.epsilon(), one.one_run.1), (0.0, Guesses::new(1, 1, 1).unwrap()));
    }

    #[test]
    fn chance_refutes_nothing() {
        let scores = Scores::new(normals(1_000).enumerate().map(|(i, x)| (x, i % 2 == 0))).unwrap();
        let guesses = scores.guess(500, 500).unwrap();
        assert!(guesses.correct().abs_diff(500) < 50, "{guesses:?}");
        assert_eq!(guesses.epsilon(significance(0.05), delta(1e-5)), 0.0);
        assert_eq!(guesses.epsilon_of_gaussian(significance(0.05), delta(1e-5)), 0.0);
        assert_eq!(scores.detect(0.0).epsilon(significance(0.05), delta(1e-5)), 0.0);
        // Nothing was detected because nothing was there.
        let nothing = Detections::new(0, 0, 0, 0).unwrap();
        assert_eq!(nothing.epsilon(significance(0.05), delta(1e-5)), 0.0);
    }

    #[test]
    fn ranks_guess_from_both_ends() {
        let scores =
            Scores::new([(0.1, false), (0.9, true), (0.5, true), (0.5, false), (-3.0, false)]).unwrap();
        let counts = |top, bottom| scores.guess(top, bottom).map(|found| (found.made(), found.correct()));
        assert_eq!(counts(1, 1).unwrap(), (2, 2));
        assert_eq!(counts(3, 0).unwrap(), (3, 2));
        // Of the equal scores the first counts as the higher one.
        assert_eq!(counts(2, 3).unwrap(), (5, 5));
        assert_eq!(counts(0, 0).unwrap(), (0, 0));
        assert!(counts(3, 3).is_err() && counts(u32::MAX, 2).is_err());
        assert_eq!(scores.detect(0.5), Detections::new(2, 2, 3, 1).unwrap());
    }

    #[test]
    fn bad_input_is_refused_by_name() {
        let name = |result: Result<Guesses, ParamError>| result.unwrap_err().to_string();
        assert_eq!(name(Guesses::new(0, 0, 0)), "canaries is 0, accepted is a number from 1 to 1048576");
        assert!(name(Guesses::new(MAX_CANARIES + 1, 0, 0)).starts_with("canaries is 1048577"));
        assert_eq!(
            name(Guesses::new(5, 6, 0)),
            "guesses made is 6, accepted is a number up to that of the canaries"
        );
        assert_eq!(
            name(Guesses::new(5, 4, 5)),
            "correct guesses is 5, accepted is a number up to that of the guesses"
        );
        let guesses = Guesses::new(5, 4, 3).unwrap();
        for (epsilon, delta) in [(-1.0, 0.0), (f64::NAN, 0.0), (1.0, -1e-9), (1.0, 1.1), (1.0, f64::NAN)] {
            assert!(guesses.p_value(epsilon, delta).is_err(), "{epsilon}, {delta}");
        }
        for score in [f64::NAN, f64::INFINITY] {
            let error = Scores::new([(0.0, true), (score, false)]).unwrap_err();
            assert_eq!((error.name, error.accepted), ("score", "a finite number"));
        }
        assert_eq!(Scores::new([]).unwrap_err().name, "canaries");
        assert!(Detections::new(3, 4, 1, 0).is_err() && Detections::new(3, 3, 1, 2).is_err());
    }

    #[test]
    fn quantile_inverts_the_normal_distribution() {
        for p in [1e-300, 1e-100, 1e-12, 1e-5, 0.01, 0.3, 0.499_999, 0.5, 0.7, 0.999] {
            let back = normal_cdf(normal_quantile(p));
            assert!((back / p - 1.0).abs() < 1e-11, "{p}: {back}");
        }
        assert_eq!((normal_quantile(0.0), normal_quantile(1.0)), (f64::NEG_INFINITY, f64::INFINITY));
    }

    #[test]
    fn binomials_are_exact_where_they_are_easy() {
        assert_eq!(binomial(0, 3.0), [1.0]);
        for (k, expected) in [0.0625, 0.25, 0.375, 0.25, 0.0625].into_iter().enumerate() {
            assert!((binomial(4, 1.0)[k] - expected).abs() < 1e-16);
        }
        // Far out in a tail: 10000 successes of 10000 at p = 1/4 is 4^-10000, which is zero in f64; of 500, it is not.
        assert_eq!(binomial(10_000, 1.0 / 3.0)[10_000], 0.0);
        assert!((binomial(500, 1.0 / 3.0)[500] / 0.25f64.powi(500) - 1.0).abs() < 1e-12);
    }
}
