//! Checked parameters: a value of one of these types is inside its accepted range.

use std::fmt;

/// A parameter outside its accepted range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{name} is {found}, accepted is {accepted}")]
pub struct ParamError {
    /// The parameter, in words.
    pub name: &'static str,
    /// The value that was refused.
    pub found: f64,
    /// The range that is accepted, in words.
    pub accepted: &'static str,
}

impl ParamError {
    pub(crate) fn check(
        name: &'static str,
        found: f64,
        accepted: &'static str,
        holds: bool,
    ) -> Result<(), ParamError> {
        if holds { Ok(()) } else { Err(ParamError { name, found, accepted }) }
    }
}

macro_rules! parameter {
    ($(#[$doc:meta])* $type:ident, $name:literal, $accepted:literal, $holds:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
        pub struct $type(f64);

        impl $type {
            #[doc = concat!("Accepts ", $accepted, ".")]
            pub fn new(value: f64) -> Result<Self, ParamError> {
                let holds: fn(f64) -> bool = $holds;
                ParamError::check($name, value, $accepted, holds(value))?;
                Ok(Self(value))
            }

            /// The value.
            pub fn get(self) -> f64 {
                self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

parameter!(
    /// A bound on the privacy loss, in nats.
    Epsilon,
    "epsilon",
    "a finite number above 0",
    |value| value > 0.0 && value.is_finite()
);

parameter!(
    /// The probability with which the bound on the privacy loss may fail.
    Delta,
    "delta",
    "a number above 0 and below 1",
    |value| value > 0.0 && value < 1.0
);

parameter!(
    /// The probability with which a bound found by an audit may be wrong: one minus the confidence.
    Significance,
    "significance",
    "a number above 0 and below 0.5",
    |value| value > 0.0 && value < 0.5
);

impl Epsilon {
    /// No bound: what a plan without noise promises. No number is accepted in its place.
    pub const INFINITE: Self = Self(f64::INFINITY);
}

impl Significance {
    /// The part of each of `bounds` bounds that shall all hold together (Bonferroni). No bounds count as one.
    #[must_use]
    pub fn over(self, bounds: u32) -> Self {
        Self(self.0 / f64::from(bounds.max(1)))
    }
}

parameter!(
    /// The probability with which each client takes part in a round.
    SamplingRate,
    "sampling rate",
    "a number above 0, at most 1",
    |value| value > 0.0 && value <= 1.0
);

parameter!(
    /// The standard deviation of the noise divided by the L2 sensitivity.
    NoiseMultiplier,
    "noise multiplier",
    "a number from 0.001 to 1e6",
    |value| (1e-3..=1e6).contains(&value)
);

parameter!(
    /// The largest L2 norm that an update keeps, in the unit of the model's parameters.
    ///
    /// The range leaves room for every intermediate product in f32 and f64.
    ClipNorm,
    "clip norm",
    "a number from 1e-12 to 1e12",
    |value| (1e-12..=1e12).contains(&value)
);

impl ClipNorm {
    /// No bound: updates are as long as they are. For plans without noise alone, which size nothing by it.
    pub const INFINITE: Self = Self(f64::INFINITY);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_outside_the_range_are_refused_by_name() {
        for value in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Epsilon::new(value).is_err(), "{value}");
            assert!(Delta::new(value).is_err(), "{value}");
            assert!(SamplingRate::new(value).is_err(), "{value}");
            assert!(Significance::new(value).is_err(), "{value}");
            assert!(NoiseMultiplier::new(value).is_err(), "{value}");
            assert!(ClipNorm::new(value).is_err(), "{value}");
        }
        assert!(SamplingRate::new(1.0 + f64::EPSILON).is_err());
        assert!(Significance::new(0.5).is_err());
        assert_eq!(Significance::new(0.05).unwrap().over(5).get(), 0.01);
        let error = Delta::new(1.0).unwrap_err();
        assert_eq!(error.to_string(), "delta is 1, accepted is a number above 0 and below 1");
    }

    #[test]
    fn values_inside_come_back_unchanged() {
        assert_eq!(Epsilon::new(8.0).unwrap().get(), 8.0);
        assert_eq!(Delta::new(1e-5).unwrap().to_string(), "0.00001");
        assert_eq!(format!("{:.2}", NoiseMultiplier::new(1.4).unwrap()), "1.40");
        assert!(ClipNorm::new(0.5).unwrap() < ClipNorm::new(1.0).unwrap());
    }
}
