//! Who shares masks and secrets with whom inside a group.
//!
//! A group's members stand on a ring in the order of the beacon's shuffle. With a degree k, every member's neighbours
//! are the k/2 before it and the k/2 after it: the Harary graph H(k, s), the k-connected graph on s vertices with the
//! fewest edges (Harary 1962; for secure aggregation Bell et al., CCS 2020, §3). Since the order is random, so is the
//! graph. A group of at most k + 1 members is a complete graph.

/// The graph of one group. Vertices are positions on the ring, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Graph {
    members: usize,
    degree: usize,
}

impl Graph {
    /// The graph on `members` vertices; `degree` is even or at least `members` − 1.
    pub(super) fn new(members: usize, degree: usize) -> Self {
        debug_assert!(degree.is_multiple_of(2) || members <= degree + 1);
        Self { members, degree: degree_of(members, degree) }
    }

    /// Vertices.
    pub(super) fn members(&self) -> usize {
        self.members
    }

    /// Neighbours of every vertex: k, or all others in a complete graph.
    pub(super) fn degree(&self) -> usize {
        self.degree
    }

    /// The neighbours of `position`, ascending.
    pub(super) fn neighbours(&self, position: usize) -> Vec<usize> {
        let mut neighbours: Vec<usize> = if self.degree + 1 == self.members {
            (0..self.members).filter(|&other| other != position).collect()
        } else {
            let half = self.degree / 2;
            let before = (1..=half).map(|offset| (position + self.members - offset) % self.members);
            before.chain((1..=half).map(|offset| (position + offset) % self.members)).collect()
        };
        neighbours.sort_unstable();
        neighbours
    }
}

/// Neighbours of every member of a group of `members` where the session's degree is `degree`.
pub(super) fn degree_of(members: usize, degree: usize) -> usize {
    degree.min(members - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn graph() -> impl Strategy<Value = Graph> {
        (2_usize..60, 1_usize..40).prop_map(|(members, half)| Graph::new(members, 2 * half))
    }

    proptest! {
        #[test]
        fn it_is_regular_and_symmetric(graph in graph()) {
            for position in 0..graph.members() {
                let neighbours = graph.neighbours(position);
                prop_assert_eq!(neighbours.len(), graph.degree());
                prop_assert!(neighbours.is_sorted_by(|a, b| a < b));
                prop_assert!(!neighbours.contains(&position));
                for neighbour in neighbours {
                    prop_assert!(neighbour < graph.members());
                    prop_assert!(graph.neighbours(neighbour).contains(&position));
                }
            }
        }

        #[test]
        fn neighbours_are_the_nearest_on_the_ring(graph in graph()) {
            let distance = |a: usize, b: usize| a.abs_diff(b).min(graph.members() - a.abs_diff(b));
            for position in 0..graph.members() {
                let neighbours = graph.neighbours(position);
                let farthest = neighbours.iter().map(|&other| distance(position, other)).max();
                let nearest_other = (0..graph.members())
                    .filter(|other| *other != position && !neighbours.contains(other))
                    .map(|other| distance(position, other))
                    .min();
                prop_assert!(nearest_other.is_none_or(|nearest| Some(nearest) > farthest));
            }
        }
    }

    #[test]
    fn known_answers() {
        let ring = Graph::new(7, 4);
        assert_eq!(ring.neighbours(0), [1, 2, 5, 6]);
        assert_eq!(ring.neighbours(3), [1, 2, 4, 5]);
        assert_eq!(ring.neighbours(6), [0, 1, 4, 5]);
        assert_eq!(Graph::new(5, 4).neighbours(2), [0, 1, 3, 4]);
        let complete = Graph::new(4, 9);
        assert_eq!((complete.degree(), complete.neighbours(1)), (3, vec![0, 2, 3]));
    }
}
