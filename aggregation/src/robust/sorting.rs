//! Sorting many columns at once.
//!
//! Batcher's merge exchange (Knuth, The Art of Computer Programming 3, §5.2.2, algorithm M) compares positions in an
//! order that does not depend on the values. Applied to blocks of columns that lie side by side, each comparison is a
//! minimum and a maximum of two contiguous slices, which the compiler turns into vector instructions. Comparisons
//! that no needed position depends on are left out.

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

    /// Sorts columns that lie side by side: `values` has `width` numbers for each position.
    pub(super) fn sort(&self, values: &mut [f64], width: usize) {
        match self {
            Self::Network(network) => {
                for &(low, high) in network {
                    let (head, tail) = values.split_at_mut(high * width);
                    exchange(&mut head[low * width..][..width], &mut tail[..width]);
                }
            }
            Self::Columns => {
                let mut column = Vec::with_capacity(values.len() / width);
                for at in 0..width {
                    column.clear();
                    column.extend(values[at..].iter().step_by(width));
                    column.sort_unstable_by(f64::total_cmp);
                    for (to, from) in values[at..].iter_mut().step_by(width).zip(&column) {
                        *to = *from;
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

fn exchange(low: &mut [f64], high: &mut [f64]) {
    for (low, high) in low.iter_mut().zip(high) {
        let (a, b) = (*low, *high);
        // Not f64::min and f64::max, which cost more because they look for NaN.
        *low = if a < b { a } else { b };
        *high = if a < b { b } else { a };
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
                let width = 1 << rows;
                let bit = |row: usize, column: usize| (column >> row & 1) as f64;
                let mut values: Vec<f64> =
                    (0..rows).flat_map(|row| (0..width).map(move |column| bit(row, column))).collect();
                sorter.sort(&mut values, width);
                for column in 0..width {
                    let ones = column.count_ones() as usize;
                    for position in needed.clone() {
                        let expected = f64::from(u8::from(position >= rows - ones));
                        assert_eq!(
                            values[position * width + column],
                            expected,
                            "{rows} rows, column {column:b}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn large_columns_are_sorted_too() {
        let rows = MAX_NETWORK_ROWS + 1;
        let mut values: Vec<f64> = (0..rows * 3).map(|at| (at * 7919 % 1009) as f64).collect();
        let mut sorted: Vec<Vec<f64>> =
            (0..3).map(|column| values[column..].iter().step_by(3).copied().collect()).collect();
        for column in &mut sorted {
            column.sort_by(f64::total_cmp);
        }
        Sorter::new(rows, 0..=rows - 1).sort(&mut values, 3);
        for (column, expected) in sorted.iter().enumerate() {
            assert!(values[column..].iter().step_by(3).eq(expected));
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
