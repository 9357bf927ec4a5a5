//! Drawing without replacement.

use rand_core::Rng;

/// `count` of the numbers below `below`, in random order (Fisher, Yates).
pub(super) fn draw(below: usize, count: usize, rng: &mut impl Rng) -> Vec<usize> {
    let mut numbers: Vec<usize> = (0..below).collect();
    for at in 0..count {
        let other = at + uniform((below - at) as u64, rng) as usize;
        numbers.swap(at, other);
    }
    numbers.truncate(count);
    numbers
}

/// A number below `below`, each with the same probability.
fn uniform(below: u64, rng: &mut impl Rng) -> u64 {
    // The largest multiple of `below` that fits; what lies beyond would favour small numbers.
    let fair = u64::MAX - u64::MAX % below;
    loop {
        let drawn = rng.next_u64();
        if drawn < fair {
            return drawn % below;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chacha20::ChaCha20Rng;
    use rand_core::SeedableRng;

    #[test]
    fn every_number_comes_up_in_every_place_about_as_often() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let mut counts = [[0_u32; 5]; 3];
        for _ in 0..10_000 {
            let drawn = draw(5, 3, &mut rng);
            for (place, number) in drawn.iter().enumerate() {
                assert!(!drawn[..place].contains(number), "{drawn:?}");
                counts[place][*number] += 1;
            }
        }
        // 2000 expected, with a standard deviation of 40.
        assert!(counts.iter().flatten().all(|count| count.abs_diff(2000) < 200), "{counts:?}");
    }
}
