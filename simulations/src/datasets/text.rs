//! Plain text as sequences of characters, for models that say which character comes next.
//!
//! A text is cut into sequences of equal length, one beginning where the one before ends; every sequence is followed
//! by one character more, its last target. What is left at an end and too short for a sequence is left out.
//! A play may be cut by speaker: a blank line, a name with a colon, then lines of speech. Each speaker is then a
//! natural client, and each one's last sequences are for testing.

use std::collections::{BTreeMap, BTreeSet};

use super::read::{Files, Input, malformed};
use super::table::Part;
use super::{Data, DatasetError};

/// The characters of a text in the order of their code points; a token is a place among them.
pub(super) struct Vocabulary(Vec<char>);

impl Vocabulary {
    /// The different characters of a text.
    pub(super) fn of(characters: impl Iterator<Item = char>, file: &str) -> Result<Self, DatasetError> {
        let characters: BTreeSet<char> = characters.collect();
        if characters.len() > 1 << 16 {
            let found = format!("{} different characters", characters.len());
            return Err(malformed(file, "text".to_owned(), found, format!("at most {}", 1 << 16)));
        }
        Ok(Self(characters.into_iter().collect()))
    }

    /// Places of characters, all of which it has.
    pub(super) fn tokens(&self, characters: impl Iterator<Item = char>) -> Vec<u16> {
        let place = |character| self.0.binary_search(&character).expect("the vocabulary has every character");
        characters.map(|character| place(character) as u16).collect()
    }

    /// Number of different characters.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The characters by token.
    pub(super) fn into_characters(self) -> Vec<char> {
        self.0
    }
}

/// Reads a text and cuts it into sequences of `length` characters. Of every speaker's sequences (of the whole text,
/// where speakers are of no interest) the share `test_share`, rounded down, is for testing: the last ones.
pub(super) fn data(
    files: &dyn Files,
    path: &str,
    length: usize,
    by_speaker: bool,
    test_share: f64,
) -> Result<Data, DatasetError> {
    let mut input = Input::open(files, &[path])?;
    let text = input.text()?.replace("\r\n", "\n");
    let file = input.file();
    let vocabulary = Vocabulary::of(text.chars(), file)?;
    let pieces = if by_speaker { speeches(&text, file)? } else { vec![(String::new(), text)] };

    let (mut stream, mut names) = (Vec::new(), Vec::new());
    let (mut train, mut test) = (Rows::default(), Rows::default());
    for (name, speech) in pieces {
        let begin = stream.len();
        stream.extend(vocabulary.tokens(speech.chars()));
        let sequences = (stream.len() - begin).saturating_sub(1) / length;
        if sequences == 0 {
            stream.truncate(begin);
            continue;
        }
        let kept = sequences - (test_share * sequences as f64) as usize;
        for sequence in 0..sequences {
            let rows = if sequence < kept.max(1) { &mut train } else { &mut test };
            rows.starts.push((begin + sequence * length) as u32);
            rows.owners.push(names.len() as u32);
        }
        names.push(name);
    }
    if train.starts.is_empty() || test.starts.is_empty() {
        let found = format!("{} sequences", train.starts.len() + test.starts.len());
        let expected = format!("enough text for sequences of {length} characters, to train and to test");
        return Err(malformed(file, "text".to_owned(), found, expected));
    }
    let part = |rows: Rows, stream: Vec<u16>| {
        let part = Part::tokens(stream, rows.starts, length, vocabulary.len());
        if by_speaker { part.owned_by(rows.owners) } else { part }
    };
    Ok(Data {
        name: String::new(),
        train: part(train, stream.clone()),
        test: part(test, stream),
        class_names: Vec::new(),
        clients: if by_speaker { names } else { Vec::new() },
        characters: vocabulary.into_characters(),
    })
}

#[derive(Default)]
struct Rows {
    starts: Vec<u32>,
    owners: Vec<u32>,
}

/// What each speaker says in the whole play, speeches joined by a blank line; in the order of names.
fn speeches(text: &str, file: &str) -> Result<Vec<(String, String)>, DatasetError> {
    let mut said: BTreeMap<&str, String> = BTreeMap::new();
    let mut speaker = None;
    let mut after_blank = true;
    for (number, line) in (1..).zip(text.lines()) {
        if after_blank && let Some(name) = line.strip_suffix(':') {
            let speech = said.entry(name).or_default();
            if !speech.is_empty() {
                speech.push('\n');
            }
            speaker = Some(name);
        } else if !line.is_empty() {
            // A blank line inside a speech does not end it.
            let Some(name) = speaker else {
                let found = format!("{:?}", line.chars().take(40).collect::<String>());
                let expected = "the name of a speaker and a colon".to_owned();
                return Err(malformed(file, format!("line {number}"), found, expected));
            };
            let speech = said.get_mut(name).expect("a speaker has an entry");
            speech.push_str(line);
            speech.push('\n');
        }
        after_blank = line.is_empty();
    }
    Ok(said.into_iter().map(|(name, speech)| (name.to_owned(), speech)).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLAY: &str = "B:\nno, no\n\nA:\nyes yes yes\nbut\n\nB:\nno!\n";

    fn load(text: &str, length: usize, by_speaker: bool) -> Result<Data, DatasetError> {
        let files = BTreeMap::from([("play.txt".to_owned(), text.as_bytes().to_vec())]);
        data(&files, "play.txt", length, by_speaker, 0.5)
    }

    fn words(data: &Data, part: &Part, row: u32) -> (String, String) {
        let found = part.dataset(&[row]).unwrap();
        let text = |tokens: &[u32]| tokens.iter().map(|&token| data.characters[token as usize]).collect();
        (text(found.tokens()), text(found.labels()))
    }

    #[test]
    fn speakers_own_what_they_say() {
        let found = load(PLAY, 3, true).unwrap();
        assert_eq!(found.clients, ["A", "B"]);
        // A says "yes yes yes⏎but⏎": five sequences, of which two are for testing; B "no, no⏎⏎no!⏎": three and one.
        assert_eq!((found.train.owners(), found.test.owners()), (&[0, 0, 0, 1, 1][..], &[0, 0, 1][..]));
        assert_eq!(words(&found, &found.train, 1), (" ye".to_owned(), "yes".to_owned()));
        assert_eq!(words(&found, &found.test, 1), ("but".to_owned(), "ut\n".to_owned()));
        assert_eq!(words(&found, &found.train, 4), (" no".to_owned(), "no\n".to_owned()));
        assert_eq!(words(&found, &found.test, 2), ("\n\nn".to_owned(), "\nno".to_owned()));
        assert_eq!(found.train.classes(), found.characters.len());
    }

    #[test]
    fn a_plain_text_is_cut_from_its_beginning() {
        let found = load("abcdefghij", 2, false).unwrap();
        assert_eq!((found.train.rows(), found.test.rows(), found.clients.len()), (2, 2, 0));
        assert_eq!(words(&found, &found.train, 0), ("ab".to_owned(), "bc".to_owned()));
        assert_eq!(words(&found, &found.test, 1), ("gh".to_owned(), "hi".to_owned()));
        assert!(found.train.owners().is_empty());
    }

    #[test]
    fn broken_files_are_told_by_place_and_reason() {
        assert_eq!(
            load("\nno name\n", 2, true).unwrap_err().to_string(),
            "play.txt, line 2: found \"no name\", expected the name of a speaker and a colon"
        );
        assert_eq!(
            load("abc", 2, false).unwrap_err().to_string(),
            "play.txt, text: found 1 sequences, expected enough text for sequences of 2 characters, to train and to test"
        );
        assert!(load("", 2, true).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[aB:\\n ]{0,60}", length in 1_usize..5, by_speaker: bool) {
            if let Ok(found) = load(&text, length, by_speaker) {
                for part in [&found.train, &found.test] {
                    prop_assert!(part.dataset(&(0..part.rows() as u32).collect::<Vec<_>>()).is_ok());
                }
            }
        }
    }
}
