//! Updates in the clear, in one piece and in many.
//!
//! The first two bytes of an input are the number of parameters and how the message is cut; the rest is the message.

use fedveil_aggregation::plain::{LengthError, Update, Upload, Values, encode, message_len};

use super::{Seeds, seed};

/// Whether the message is an update of so many parameters.
pub fn run(input: &[u8]) -> bool {
    let Some((&[parameters, cut], message)) = input.split_first_chunk() else { return false };
    let parameters = usize::from(parameters) + 1;
    let whole = decode(Upload::steps(parameters), [message]);
    let pieces = decode(Upload::steps(parameters), message.chunks(usize::from(cut % 11) + 1));
    assert_eq!(whole, pieces, "how the message is cut makes no difference");
    assert_eq!(
        whole.is_ok(),
        message.len() == message_len(parameters),
        "every message of the length is an update"
    );
    if let Ok(update) = &whole {
        assert_eq!(encode(update.round, &update.values), message, "an update has one encoding");
    }
    let reals = decode(Upload::reals(parameters), [message]);
    assert_eq!(reals.is_ok(), whole.is_ok(), "steps and model units are as long");
    if let Ok(update @ Update { values: Values::Reals(_), .. }) = &reals {
        assert_eq!(
            encode(update.round, &update.values),
            message,
            "a bit pattern survives, also that of a NaN"
        );
    }
    whole.is_ok()
}

fn decode<'a>(mut upload: Upload, pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Update, LengthError> {
    for piece in pieces {
        if let Err(error) = upload.push(piece) {
            assert_eq!(upload.push(&[]), Err(error), "an error stays");
            assert_eq!(upload.finish(), Err(error), "an error stays");
            return Err(error);
        }
    }
    upload.finish()
}

pub fn seeds() -> Seeds {
    let message = |parameters: u8, bytes: &[u8]| [&[parameters - 1, 2], bytes].concat();
    vec![
        seed("accepted-one-step", message(1, &[9, 0, 0, 0, 1, 2, 3, 4])),
        seed("accepted-least-and-most", message(2, &[255, 255, 255, 255, 0, 0, 0, 128, 255, 255, 255, 127])),
        seed("accepted-long", message(250, &[0x5a; 1004])),
        seed("refused-cut-short", message(2, &[0; 11])),
        seed("refused-byte-after", message(1, &[0; 9])),
        seed("refused-empty", message(1, &[])),
    ]
}
