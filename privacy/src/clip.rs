//! L2 clipping of a client update.

use crate::ClipNorm;

/// What clipping found and did. It depends on the client's data: it stays with the client unless it is paid for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clipped {
    /// L2 norm before clipping.
    pub norm_before: f64,
    /// Whether the update was scaled down.
    pub clipped: bool,
}

/// An update that holds a NaN or an infinity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("coordinate {index} of the update is not finite")]
pub struct NonFinite {
    /// The first such coordinate.
    pub index: usize,
}

/// The L2 norm, accumulated in f64. Finite if and only if all coordinates are: f32 squares do not overflow f64.
pub fn l2_norm(update: &[f32]) -> f64 {
    // Sums that do not wait for one another.
    let mut sums = [0.0; 8];
    let parts = update.chunks_exact(sums.len());
    let rest: f64 = parts.remainder().iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    for part in parts {
        for (sum, &x) in sums.iter_mut().zip(part) {
            *sum += f64::from(x) * f64::from(x);
        }
    }
    (rest + sums.iter().sum::<f64>()).sqrt()
}

/// Scales the update down to norm `clip` if it is longer, so that `l2_norm(update) <= clip` holds afterwards.
///
/// An update with a NaN or an infinity is refused and left as it was.
pub fn clip_l2(update: &mut [f32], clip: ClipNorm) -> Result<Clipped, NonFinite> {
    let norm_before = l2_norm(update);
    if !norm_before.is_finite() {
        let index =
            update.iter().position(|x| !x.is_finite()).expect("finite coordinates have a finite norm");
        return Err(NonFinite { index });
    }
    let clipped = norm_before > clip.get();
    if clipped {
        let factor = clip.get() / norm_before * ROUNDING_MARGIN;
        for x in update.iter_mut() {
            *x = (f64::from(*x) * factor) as f32;
        }
    }
    Ok(Clipped { norm_before, clipped })
}

/// Rounding to f32 can lengthen each coordinate by 2^-24 of itself: shrinking by twice that keeps the norm inside.
const ROUNDING_MARGIN: f64 = 1.0 - 1.0 / (1u64 << 23) as f64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_short_update_is_untouched() {
        let mut update = [3.0, -4.0];
        let seen = clip_l2(&mut update, ClipNorm::new(5.0).unwrap()).unwrap();
        assert_eq!(seen, Clipped { norm_before: 5.0, clipped: false });
        assert_eq!(update, [3.0, -4.0]);
    }

    #[test]
    fn a_long_update_keeps_its_direction() {
        let mut update = [30.0, -40.0, 0.0];
        let seen = clip_l2(&mut update, ClipNorm::new(5.0).unwrap()).unwrap();
        assert_eq!(seen, Clipped { norm_before: 50.0, clipped: true });
        assert!((update[0] - 3.0).abs() < 1e-5 && (update[1] + 4.0).abs() < 1e-5 && update[2] == 0.0);
    }

    #[test]
    fn a_non_finite_update_is_refused_and_left_alone() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut update = [100.0, bad, bad];
            assert_eq!(clip_l2(&mut update, ClipNorm::new(1.0).unwrap()), Err(NonFinite { index: 1 }));
            assert_eq!(update[0], 100.0);
        }
    }

    proptest! {
        #[test]
        fn the_norm_is_within_the_clip(
            mut update in prop::collection::vec(-f32::MAX..f32::MAX, 0..200),
            exponent in -12.0..12.0f64,
        ) {
            let clip = ClipNorm::new(10f64.powf(exponent)).unwrap();
            let seen = clip_l2(&mut update, clip).unwrap();
            let norm = l2_norm(&update);
            prop_assert!(norm <= clip.get(), "{norm} > {clip}");
            if seen.clipped {
                prop_assert!(norm >= clip.get() * (1.0 - 1e-6));
            }
        }

        #[test]
        fn small_updates_too(mut update in prop::collection::vec(-1.0..1.0f32, 0..200), clip in 0.001..20.0f64) {
            let clip = ClipNorm::new(clip).unwrap();
            let before = update.clone();
            let seen = clip_l2(&mut update, clip).unwrap();
            prop_assert!(l2_norm(&update) <= clip.get());
            prop_assert_eq!(seen.clipped, l2_norm(&before) > clip.get());
            prop_assert_eq!(!seen.clipped, before == update);
        }
    }
}
