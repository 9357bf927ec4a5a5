//! The factor at which an attack does most harm.

/// Evaluations of the published line search.
const EVALUATIONS: usize = 20;
/// Its first step.
const STEP: f64 = 10.0;
/// Its contraction.
const RATIO: f64 = 0.8;

/// The largest factor of the scan.
pub(super) const LARGEST: f64 = 100.0;
/// Factors of the scan below [`LARGEST`], each 2^⅛ times the one before.
const SCANNED: usize = 96;
/// Hills of the scan that are looked at more closely.
const HILLS: usize = 3;
/// Points that each zoom looks at between two neighbours.
const ZOOMED: usize = 8;
/// Zooms; each narrows the interval by a factor of (`ZOOMED` + 1) / 2.
const ZOOMS: usize = 3;

/// The best factor that is found, from 0 up.
///
/// The published search climbs one hill. Rules that drop rows make an objective of many, with cliffs where a row is
/// found out; so a scan looks for the best hills up to [`LARGEST`], and zooms into their neighbourhoods.
pub(super) fn maximise(objective: impl Fn(f64) -> f64) -> f64 {
    let climbed = line_search(&objective);
    let mut best = (climbed, objective(climbed));
    let power = |at: usize| 2_f64.powf((at as f64 - SCANNED as f64) / 8.0);
    let factors = [0.0].into_iter().chain((0..=SCANNED).map(|at| LARGEST * power(at)));
    let scan: Vec<(f64, f64)> = factors.map(|factor| (factor, objective(factor))).collect();
    let last = scan.len() - 1;
    let around = |at: usize| (at.saturating_sub(1), (at + 1).min(last));
    let is_top = |at: &usize| scan[*at].1 >= scan[around(*at).0].1 && scan[*at].1 >= scan[around(*at).1].1;
    let mut hills: Vec<usize> = (0..=last).filter(is_top).collect();
    hills.sort_by(|one, two| scan[*two].1.total_cmp(&scan[*one].1));
    for top in hills.into_iter().take(HILLS) {
        let (mut low, mut high) = (scan[around(top).0].0, scan[around(top).1].0);
        let mut found = scan[top];
        for _ in 0..ZOOMS {
            let step = (high - low) / (ZOOMED + 1) as f64;
            for factor in (1..=ZOOMED).map(|at| low + step * at as f64) {
                let value = objective(factor);
                if value > found.1 {
                    found = (factor, value);
                }
            }
            (low, high) = ((found.0 - step).max(low), (found.0 + step).min(high));
        }
        if found.1 > best.1 {
            best = found;
        }
    }
    best.0
}

/// The line search of byzfl 0.0.11: from 0, steps that double while they help, then steps that shrink.
pub(super) fn line_search(objective: impl Fn(f64) -> f64) -> f64 {
    let (mut best, mut step, mut left) = ((0.0, objective(0.0)), STEP, EVALUATIONS - 1);
    let mut expanding = true;
    while left > 0 {
        let factor = best.0 + step;
        let value = objective(factor);
        left -= 1;
        if value > best.1 {
            best = (factor, value);
            step *= if expanding { 2.0 } else { RATIO };
        } else {
            expanding = false;
            step *= RATIO;
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hill_beyond_a_valley_is_found() {
        // The line search climbs from 10 on and misses what is before; the scan does not.
        let cliff = |x: f64| if x < 1.3 { 5.0 * x } else { 0.1 * x.min(30.0) };
        assert!((line_search(cliff) - 30.0).abs() < 5.0);
        assert!((1.29..1.3).contains(&maximise(cliff)), "{}", maximise(cliff));
        // And what lies beyond the scan is the line search's.
        assert!(maximise(|x| x) > 1e6);
        assert_eq!(maximise(|_| 1.0), 0.0);
    }

    #[test]
    fn a_smooth_hill_is_climbed_to_its_top() {
        for top in [0.3, 2.0, 7.7, 60.0] {
            let found = maximise(|x| -(x - top).powi(2));
            assert!((found / top - 1.0).abs() < 1e-2, "{top}: {found}");
        }
    }
}
