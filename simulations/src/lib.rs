//! Datasets, partitions, attacks and the deterministic runner over the two cores
