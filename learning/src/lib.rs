//! Models and local training with burn
