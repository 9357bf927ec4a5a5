//! Exact sampling from a symmetric, unimodal law on the integers, mostly by one look into a table.
//!
//! Sign and magnitude are drawn apart, so that 0 has half its ratio. The magnitudes up to some 8σ fall into at most 2047
//! cells of 2^s each. S times the ratio of each magnitude is its *height*: S is a whole number, a height is not.
//!
//! ```text
//!  height ▲▓▓
//!         │▒▒▓▓            ▒ certain: whole, and below the height of every magnitude of the cell
//!         │▒▒▒▒▓▓          ▓ doubt:   whole, and reaches above the height of every magnitude of the cell
//!         │▒▒▒▒▒▒▓▓░░      ░ tail:    above all heights beyond the cells, halved every σ/8 or so
//!         └──────────────► magnitude
//! ```
//!
//! A point is drawn evenly from all areas together, whose widths and heights are whole numbers. In ▒ its magnitude is the
//! sample; in ▓ and ░ it is one if the point lies below the height, and otherwise everything starts again. That is
//! rejection sampling, and exact: a magnitude's chance is its height over the sum of all heights.
//!
//! The choice between the cells' certain areas and all else is Walker's alias method, on weights that add up to the
//! number of columns times 2^40: one random word pays for column, coin, sign and, up to σ of some 2^19, the place in the
//! cell. Doubt is at most 1.2 % of the area. There [`Ratio::approximate`] compares in registers, and a comparison that it
//! cannot decide, about one sample in 2^35, goes to integers of any size.
//!
//! What takes time: nothing depends on the value of a sample in certain areas but which line of a 16 KiB table is read.
//! The time of the others tells that a sample, or one before it that was refused, came from ▓ or ░.

use rand_core::CryptoRng;

use super::{
    NoiseKind,
    exact::below_ratio,
    fixed::{ERROR, POINT, Ratio},
};

#[derive(Clone, Debug)]
pub(super) struct Table {
    kind: NoiseKind,
    variance: u64,
    ratio: Ratio,
    /// s: a cell holds 2^s magnitudes.
    cell_bits: u32,
    column_bits: u32,
    fraction_bits: u32,
    /// Per column the coin's threshold, in units of 2^-fraction_bits, and in the low 16 bits the cell for a lost coin.
    columns: Vec<u64>,
    /// S.
    scale: u64,
    /// Heights of the certain areas. The cell after the last stands for doubt, tail and what no area needs.
    certain: Vec<u64>,
    /// Sums of the heights of the doubt areas, from the first cell to each.
    doubt: Vec<u64>,
    /// The weight of all of the last cell.
    uncertain: u64,
    tail: Tail,
}

/// Magnitudes from `start` on, in blocks of `2^s·cells`. The height of block g is at most height·2^-g.
#[derive(Clone, Debug)]
struct Tail {
    start: u64,
    cells: u64,
    height: u64,
}

/// How fine a table is. Samples follow the law whatever it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// The coin of a column has this many bits.
    pub(super) fraction_bits: u32,
    pub(super) max_cells: u64,
    /// The tail starts at about so many σ, at most 8, …
    pub(super) sigmas: u64,
    /// … and so much more, at most 24: a Skellam tail is long where μ is small.
    pub(super) margin: u64,
}

/// One look is enough in all but a per cent of cases.
pub(super) const FINE: Shape = Shape { fraction_bits: 40, max_cells: 2_047, sigmas: 8, margin: 24 };

impl Table {
    pub(super) fn new(kind: NoiseKind, variance: u64, shape: Shape) -> Self {
        let ratio = Ratio::new(kind, variance);
        let reach = shape.sigmas * (variance.isqrt() + 1) + shape.margin;
        let cell_bits = reach.div_ceil(shape.max_cells).next_power_of_two().ilog2();
        let cells = reach.div_ceil(1 << cell_bits);
        let start = cells << cell_bits;
        // Beyond the start, ratios fall by half or more every ⌈σ²/start⌉: by exp(−start·L/σ²) for the Gaussian, by
        // exp(−L·asinh(start/μ)) for Skellam (see `fixed`), and asinh a ≥ 0.88·min(a, 1).
        let tail_cells = variance.div_ceil(start).div_ceil(1 << cell_bits);

        let cell_bounds: Vec<(u64, u64)> = (0..cells)
            .map(|cell| {
                let (first, last) = (cell << cell_bits, ((cell + 1) << cell_bits) - 1);
                let (low, high) = (bounds(&ratio, last).0, bounds(&ratio, first).1);
                // 0 is the one magnitude that does not have the largest ratio of its cell.
                if cell == 0 && last > 0 {
                    (low.min(HALF), bounds(&ratio, 1).1.max(HALF))
                } else {
                    (low, high)
                }
            })
            .collect();
        let tail_bound = bounds(&ratio, start).1;

        // The largest S for which all areas fit, each rounded up.
        let column_bits = (cells + 1).next_power_of_two().ilog2();
        let total = 1u128 << (column_bits + shape.fraction_bits);
        let heights: u128 = cell_bounds.iter().map(|&(_, high)| u128::from(high)).sum::<u128>()
            + 2 * u128::from(tail_cells) * u128::from(tail_bound);
        let rounding = u128::from(cells + 2 * tail_cells);
        let scale = ((total.saturating_sub(rounding) << POINT) / heights) as u64;

        let certain: Vec<u64> = cell_bounds.iter().map(|&(low, _)| scaled_down(scale, low)).collect();
        let mut sum = 0;
        let doubt: Vec<u64> = cell_bounds
            .iter()
            .zip(&certain)
            .map(|(&(_, high), certain)| {
                sum += scaled_up(scale, high) - certain;
                sum
            })
            .collect();
        let tail = Tail { start, cells: tail_cells, height: scaled_up(scale, tail_bound) };
        let uncertain = total as u64 - certain.iter().sum::<u64>();
        let columns = alias(certain.iter().copied().chain([uncertain]), column_bits, shape.fraction_bits);
        let fraction_bits = shape.fraction_bits;
        Self {
            kind,
            variance,
            ratio,
            cell_bits,
            column_bits,
            fraction_bits,
            columns,
            scale,
            certain,
            doubt,
            uncertain,
            tail,
        }
    }

    #[inline]
    pub(super) fn sample(&self, rng: &mut impl CryptoRng) -> i64 {
        loop {
            let word = rng.next_u64();
            let column = word >> (u64::BITS - self.column_bits);
            let coin = word << self.column_bits >> (u64::BITS - self.fraction_bits);
            let entry = self.columns[column as usize];
            let cell = if coin < entry >> 16 { column } else { entry & 0xffff };
            let magnitude = if cell < self.certain.len() as u64 {
                let spare = u64::BITS - self.column_bits - self.fraction_bits - 1;
                let place = if self.cell_bits <= spare { word >> 1 } else { rng.next_u64() };
                cell << self.cell_bits | place & ((1 << self.cell_bits) - 1)
            } else if let Some(magnitude) = self.try_uncertain(rng) {
                magnitude
            } else {
                continue;
            };
            let negative = -((word & 1) as i64);
            return (magnitude as i64 ^ negative) - negative;
        }
    }

    /// A magnitude from doubt or tail, or nothing.
    #[cold]
    #[inline(never)]
    fn try_uncertain(&self, rng: &mut impl CryptoRng) -> Option<u64> {
        let drawn = uniform_below(self.uncertain, rng);
        let all_doubt = self.doubt.last().copied().unwrap_or(0);
        if drawn < all_doubt {
            let cell = self.doubt.partition_point(|&sum| sum <= drawn);
            let before = if cell == 0 { 0 } else { self.doubt[cell - 1] };
            let magnitude = (cell as u64) << self.cell_bits | uniform_below(1 << self.cell_bits, rng);
            let point = self.certain[cell] + drawn - before;
            return self.lies_below(point, magnitude, rng).then_some(magnitude);
        }
        // The tail's blocks are as wide as the first and half as high from one to the next: twice the first.
        if drawn - all_doubt < 2 * self.tail.cells * self.tail.height {
            let point = uniform_below(self.tail.height, rng);
            let mut block = 0;
            while rng.next_u32() >> 31 == 1 {
                block += 1;
            }
            let width = self.tail.cells << self.cell_bits;
            let magnitude = self.tail.start + block * width + uniform_below(width, rng);
            let query = (point, self.scale, block as usize);
            return below_ratio(self.kind, self.variance, magnitude, query, rng).then_some(magnitude);
        }
        None
    }

    /// Whether point + U < height(magnitude) for U uniform on [0, 1).
    fn lies_below(&self, point: u64, magnitude: u64, rng: &mut impl CryptoRng) -> bool {
        let (low, high) = bounds(&self.ratio, magnitude);
        if point < scaled_down(self.scale, low) {
            return true;
        }
        if point >= scaled_up(self.scale, high) {
            return false;
        }
        if magnitude == 0 {
            // Half of S, and of the uniform draw only its first bit counts.
            return 2 * point + u64::from(rng.next_u32() >> 31) < self.scale;
        }
        below_ratio(self.kind, self.variance, magnitude, (point, self.scale, 0), rng)
    }
}

/// The ratio that 0 has on each of its two sides.
const HALF: u64 = 1 << (POINT - 1);

/// Around the ratio of a magnitude on one side, in units of 2^-60.
fn bounds(ratio: &Ratio, magnitude: u64) -> (u64, u64) {
    if magnitude == 0 {
        return (HALF, HALF);
    }
    let near = ratio.approximate(magnitude);
    (near.saturating_sub(ERROR), near + ERROR)
}

/// ⌊scale·ratio⌋.
fn scaled_down(scale: u64, ratio: u64) -> u64 {
    ((u128::from(scale) * u128::from(ratio)) >> POINT) as u64
}

/// ⌈scale·ratio⌉.
fn scaled_up(scale: u64, ratio: u64) -> u64 {
    (u128::from(scale) * u128::from(ratio)).div_ceil(1 << POINT) as u64
}

/// Walker's table in Vose's way: cell c is drawn with probability weight_c/2^(column_bits + fraction_bits), exactly. The
/// weights add up to that.
pub(super) fn alias(weights: impl Iterator<Item = u64>, column_bits: u32, fraction_bits: u32) -> Vec<u64> {
    let full = 1u64 << fraction_bits;
    let mut weights: Vec<u64> = weights.collect();
    weights.resize(1 << column_bits, 0);
    let mut columns = vec![full << 16; weights.len()];
    let (mut small, mut large): (Vec<usize>, Vec<usize>) =
        (0..weights.len()).partition(|&i| weights[i] < full);
    while let (Some(&short), Some(&donor)) = (small.last(), large.last()) {
        small.pop();
        columns[short] = weights[short] << 16 | donor as u64;
        weights[donor] -= full - weights[short];
        if weights[donor] < full {
            large.pop();
            small.push(donor);
        }
    }
    columns
}

/// Uniform on 0..bound, by rejection on the shortest sufficient bit string.
fn uniform_below(bound: u64, rng: &mut impl CryptoRng) -> u64 {
    if bound <= 1 {
        return 0;
    }
    let unused = (bound - 1).leading_zeros();
    loop {
        let draw = rng.next_u64() >> unused;
        if draw < bound {
            return draw;
        }
    }
}

#[cfg(test)]
impl Table {
    pub(super) fn uncertain_share(&self) -> f64 {
        self.uncertain as f64 / 2f64.powi((self.column_bits + self.fraction_bits) as i32)
    }

    /// The first magnitude that no cell holds.
    pub(super) fn reach(&self) -> u64 {
        self.tail.start
    }

    pub(super) fn scale(&self) -> u64 {
        self.scale
    }

    /// Bottom and top of the doubt over a magnitude below the reach.
    pub(super) fn doubt_of(&self, magnitude: u64) -> (u64, u64) {
        let cell = (magnitude >> self.cell_bits) as usize;
        let before = if cell == 0 { 0 } else { self.doubt[cell - 1] };
        (self.certain[cell], self.certain[cell] + self.doubt[cell] - before)
    }
}
