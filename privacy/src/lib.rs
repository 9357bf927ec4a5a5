//! Differential privacy: clipping, exact integer noise, accounting, budgets
