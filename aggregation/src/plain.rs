//! A client's update in the clear, as it travels where the plan's mode is `insecure_plain`.
//!
//! ```text
//!  round: u32 little-endian ‖ step: i32, or value: f32, little-endian, once for each parameter
//! ```
//!
//! An update has one length and one encoding, and is of one round: one that comes late counts in no other. Thirty-two bits
//! hold whatever the grid and a client's own noise make of a parameter; a narrower message would save a client bytes, and
//! would have to know the noise to do so. Where the plan has no noise there is no grid either, and a parameter travels as
//! the f32 that training made of it: nothing is rounded.
//!
//! Absent: masks, and every promise that rests on them. Who decodes an update sees it.

/// Length of the message of an update, in bytes.
pub const fn message_len(parameters: usize) -> usize {
    4 + 4 * parameters
}

/// The message of an update.
pub fn encode(round: u32, values: &Values) -> Vec<u8> {
    let mut words = Vec::with_capacity(1 + values.len());
    words.push(round.to_le_bytes());
    match values {
        Values::Steps(steps) => words.extend(steps.iter().map(|step| step.to_le_bytes())),
        Values::Reals(reals) => words.extend(reals.iter().map(|real| real.to_le_bytes())),
    }
    words.into_flattened()
}

/// What an update is made of, which the plan says.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Steps of the plan's grid.
    Steps(Vec<i32>),
    /// Model units, in plans without noise. They are what came in, NaN and infinity included.
    Reals(Vec<f32>),
}

impl Values {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Self::Steps(steps) => steps.len(),
            Self::Reals(reals) => reals.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A client's update.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    /// The round that it is for.
    pub round: u32,
    /// One for each parameter.
    pub values: Values,
}

/// The message is not of an update of as many parameters as the plan's model has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LengthError {
    /// It ends before its last step.
    #[error("an update of {parameters} parameters has {} bytes, the message has {found}", message_len(*.parameters))]
    Short {
        /// Parameters of the model.
        parameters: usize,
        /// Bytes of the message.
        found: usize,
    },
    /// It goes on after its last step.
    #[error("an update of {parameters} parameters has {} bytes, the message has more", message_len(*.parameters))]
    Long {
        /// Parameters of the model.
        parameters: usize,
    },
}

/// Takes an update in pieces of any size. It holds the update's memory and a few bytes.
#[derive(Debug)]
pub struct Upload {
    parameters: usize,
    round: Option<u32>,
    values: Values,
    /// The beginning of a number whose end is in a later piece.
    carry: Vec<u8>,
    /// The first error is also the last word.
    failed: Option<LengthError>,
}

impl Upload {
    /// For steps, of a model of so many parameters.
    pub fn steps(parameters: usize) -> Self {
        Self::of(parameters, Values::Steps(Vec::with_capacity(parameters)))
    }

    /// For model units, of a model of so many parameters.
    pub fn reals(parameters: usize) -> Self {
        Self::of(parameters, Values::Reals(Vec::with_capacity(parameters)))
    }

    fn of(parameters: usize, values: Values) -> Self {
        Self { parameters, round: None, values, carry: Vec::with_capacity(4), failed: None }
    }

    /// Takes the next bytes of the message. What failed once fails always.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), LengthError> {
        let left = message_len(self.parameters) - self.taken();
        if self.failed.is_none() && bytes.len() > left {
            self.failed = Some(LengthError::Long { parameters: self.parameters });
        }
        self.failed.map_or(Ok(()), Err)?;
        let missing = if self.carry.is_empty() { 0 } else { 4 - self.carry.len() };
        let (head, rest) = bytes.split_at(missing.min(bytes.len()));
        self.carry.extend_from_slice(head);
        if let Ok(number) = self.carry.as_slice().try_into() {
            self.carry.clear();
            self.take(&[number]);
        }
        let (numbers, tail) = rest.as_chunks::<4>();
        self.take(numbers);
        self.carry.extend_from_slice(tail);
        Ok(())
    }

    /// Ends the message; fails unless all of it was there.
    pub fn finish(self) -> Result<Update, LengthError> {
        self.failed.map_or(Ok(()), Err)?;
        match self.round {
            Some(round) if self.values.len() == self.parameters => Ok(Update { round, values: self.values }),
            _ => Err(LengthError::Short { parameters: self.parameters, found: self.taken() }),
        }
    }

    fn take(&mut self, mut numbers: &[[u8; 4]]) {
        if let (None, [round, rest @ ..]) = (self.round, numbers) {
            self.round = Some(u32::from_le_bytes(*round));
            numbers = rest;
        }
        match &mut self.values {
            Values::Steps(steps) => steps.extend(numbers.iter().map(|step| i32::from_le_bytes(*step))),
            Values::Reals(reals) => reals.extend(numbers.iter().map(|real| f32::from_le_bytes(*real))),
        }
    }

    fn taken(&self) -> usize {
        4 * (usize::from(self.round.is_some()) + self.values.len()) + self.carry.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode<'a>(
        parameters: usize,
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Update, LengthError> {
        let mut upload = Upload::steps(parameters);
        pieces.into_iter().try_for_each(|piece| upload.push(piece))?;
        upload.finish()
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_make_the_same_update(
            steps in prop::collection::vec(any::<i32>(), 1..60),
            round in any::<u32>(),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
        ) {
            let update = Update { round, values: Values::Steps(steps.clone()) };
            let message = encode(round, &update.values);
            prop_assert_eq!(message.len(), message_len(steps.len()));
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(message.len() + 1)).collect();
            cuts.extend([0, message.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|cut| &message[cut[0]..cut[1]]);
            prop_assert_eq!(decode(steps.len(), pieces), Ok(update.clone()));
            prop_assert_eq!(decode(steps.len(), message.chunks(1)), Ok(update));
        }

        #[test]
        fn model_units_arrive_to_the_bit(bits in prop::collection::vec(any::<u32>(), 1..60), chunk in 1_usize..9) {
            let message = encode(7, &Values::Reals(bits.iter().map(|&bits| f32::from_bits(bits)).collect()));
            let mut upload = Upload::reals(bits.len());
            message.chunks(chunk).try_for_each(|piece| upload.push(piece)).unwrap();
            let Update { round: 7, values: Values::Reals(reals) } = upload.finish().unwrap() else {
                panic!("not what was sent");
            };
            prop_assert_eq!(reals.into_iter().map(f32::to_bits).collect::<Vec<_>>(), bits);
        }

        #[test]
        fn short_and_long_ones_are_refused(parameters in 1_usize..20, chunk in 1_usize..9) {
            let message = vec![7; message_len(parameters) + 1];
            for found in 0..message_len(parameters) {
                let error = decode(parameters, message[..found].chunks(chunk)).err();
                prop_assert_eq!(error, Some(LengthError::Short { parameters, found }));
            }
            let error = decode(parameters, message.chunks(chunk)).err();
            prop_assert_eq!(error, Some(LengthError::Long { parameters }));
        }
    }

    #[test]
    fn an_error_is_not_forgotten() {
        let mut upload = Upload::steps(1);
        let error = LengthError::Long { parameters: 1 };
        assert_eq!(upload.push(&[0; 9]), Err(error));
        assert_eq!(upload.push(&[]), Err(error));
        assert_eq!(upload.finish(), Err(error));
        assert_eq!(error.to_string(), "an update of 1 parameters has 8 bytes, the message has more");
    }
}
