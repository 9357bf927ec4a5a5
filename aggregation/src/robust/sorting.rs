//! Sorting many columns at once.
//!
//! Batcher's merge exchange (Knuth, The Art of Computer Programming 3, §5.2.2, algorithm M) compares positions in an
//! order that does not depend on the values. Applied to columns that lie side by side, each comparison is a minimum and a
//! maximum of vectors. Comparisons that no needed position depends on are left out. Values keep their type: an order
//! is as exact in `f32`, and twice as many fit a vector.

use super::lanes::{TILE, Tile};
use super::rows::Scalar;
use std::ops::RangeInclusive;

/// Rows beyond which a network makes more comparisons than sorting each column by itself is worth.
const MAX_NETWORK_ROWS: usize = 192;

/// How the columns of a given number of rows are sorted.
pub(super) enum Sorter {
    /// Positions to compare, in order.
    Network(Vec<(usize, usize)>),
    /// Each column by itself.
    Columns,
}

impl Sorter {
    /// A sorter of columns of `rows` values, of which the positions `needed` will be read.
    pub(super) fn new(rows: usize, needed: RangeInclusive<usize>) -> Self {
        if rows > MAX_NETWORK_ROWS {
            return Self::Columns;
        }
        let mut network = merge_exchange(rows);
        let mut live: Vec<bool> = (0..rows).map(|position| needed.contains(&position)).collect();
        network.reverse();
        network.retain(|&(low, high)| {
            let is_needed = live[low] || live[high];
            if is_needed {
                (live[low], live[high]) = (true, true);
            }
            is_needed
        });
        network.reverse();
        Self::Network(network)
    }

    /// Sorts columns that lie side by side: `columns` has their values at each position.
    pub(super) fn sort<S: Scalar>(&self, columns: &mut [Tile<S>]) {
        match self {
            Self::Network(network) => {
                for &(low, high) in network {
                    let (head, tail) = columns.split_at_mut(high);
                    exchange(&mut head[low], &mut tail[0]);
                }
            }
            Self::Columns => {
                let mut column = Vec::with_capacity(columns.len());
                for lane in 0..TILE {
                    column.clear();
                    column.extend(columns.iter().map(|values| values[lane]));
                    column.sort_unstable_by(|a: &S, b| a.partial_cmp(b).expect("rows have no NaN"));
                    for (to, from) in columns.iter_mut().zip(&column) {
                        to[lane] = *from;
                    }
                }
            }
        }
    }
}

/// The comparisons of Batcher's merge exchange, in order.
fn merge_exchange(rows: usize) -> Vec<(usize, usize)> {
    let mut network = Vec::new();
    let top = rows.next_power_of_two() / 2;
    let mut p = top;
    while p > 0 {
        let (mut q, mut r, mut d) = (top, 0, p);
        loop {
            network.extend((0..rows - d).filter(|i| i & p == r).map(|i| (i, i + d)));
            if q == p {
                break;
            }
            (d, q, r) = (q - p, q / 2, p);
        }
        p /= 2;
    }
    network
}

fn exchange<S: Scalar>(low: &mut Tile<S>, high: &mut Tile<S>) {
    // Not f64::min and f64::max, which cost more because they look for NaN; and in two loops over copies, since one loop
    // over both is read as a swap under a condition, for which vectors have only slow instructions. For the same reason it
    // is not made wide: what is short and fast in narrow vectors becomes masked stores.
    let (a, b) = (**low, **high);
    for lane in 0..TILE {
        low[lane] = if a[lane] < b[lane] { a[lane] } else { b[lane] };
    }
    for lane in 0..TILE {
        high[lane] = if a[lane] > b[lane] { a[lane] } else { b[lane] };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A network sorts everything if it sorts every sequence of zeros and ones (Knuth, theorem Z).
    #[test]
    fn networks_sort_every_sequence_of_zeros_and_ones() {
        for rows in 1..=12 {
            for needed in [0..=rows - 1, (rows - 1) / 2..=rows / 2] {
                let sorter = Sorter::new(rows, needed.clone());
                for first in (0..1_usize << rows).step_by(TILE) {
                    let bit = |row: usize, lane: usize| f32::from(u8::from((first + lane) >> row & 1 == 1));
                    let mut columns: Vec<Tile<f32>> =
                        (0..rows).map(|row| Tile(std::array::from_fn(|lane| bit(row, lane)))).collect();
                    sorter.sort(&mut columns);
                    for position in needed.clone() {
                        for (lane, found) in columns[position].iter().enumerate() {
                            let ones = ((first + lane) % (1 << rows)).count_ones() as usize;
                            let expected = f32::from(u8::from(position >= rows - ones));
                            assert_eq!(*found, expected, "{rows} rows, {first} + {lane}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn large_columns_are_sorted_too() {
        let rows = MAX_NETWORK_ROWS + 1;
        let value = |row: usize, lane: usize| ((row * TILE + lane) * 7919 % 1009) as f64;
        let mut columns: Vec<Tile<f64>> =
            (0..rows).map(|row| Tile(std::array::from_fn(|lane| value(row, lane)))).collect();
        Sorter::new(rows, 0..=rows - 1).sort(&mut columns);
        for lane in 0..TILE {
            let mut expected: Vec<f64> = (0..rows).map(|row| value(row, lane)).collect();
            expected.sort_by(f64::total_cmp);
            assert!(columns.iter().map(|values| values[lane]).eq(expected));
        }
    }

    #[test]
    fn the_median_needs_fewer_comparisons_than_a_sort() {
        let comparisons = |needed| match Sorter::new(50, needed) {
            Sorter::Network(network) => network.len(),
            Sorter::Columns => panic!("50 rows are few"),
        };
        assert!(comparisons(24..=25) < comparisons(0..=49));
    }
}
