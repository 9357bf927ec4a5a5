//! One file for each rule; kin share one.

pub(super) mod bulyan;
pub(super) mod caf;
pub(super) mod centered_clipping;
pub(super) mod dnc;
pub(super) mod fltrust;
pub(super) mod foolsgold;
pub(super) mod geometric_median;
pub(super) mod krum;
pub(super) mod mda;
pub(super) mod meamed;
pub(super) mod mean;
pub(super) mod median;
pub(super) mod monna;
pub(super) mod norm_bound;
pub(super) mod robust_learning_rate;
pub(super) mod sign_guard;
pub(super) mod smea;
pub(super) mod trimmed_mean;
