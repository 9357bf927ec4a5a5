//! Files out of a gzipped tar archive (POSIX ustar): those that are expected, by their names without folders.

use super::fetch::unwritable;
use crate::exit::{Exit, Failure};
use fedveil_simulations::datasets::catalog::Content;
use flate2::read::GzDecoder;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::Path;

/// Headers and files are padded to this.
const BLOCK: u64 = 512;

/// Whether `folder` has every file in its length.
pub(super) fn is_unpacked(contents: &[Content], folder: &Path) -> bool {
    let right = |content: &Content| {
        fs::metadata(folder.join(content.file)).is_ok_and(|metadata| metadata.len() == content.bytes)
    };
    contents.iter().all(right)
}

/// Puts the files of `contents` into `folder`, each under its name only when it is whole.
pub(super) fn tar_gz(archive: &Path, contents: &[Content], folder: &Path) -> Result<(), Failure> {
    let malformed = |found: String| Failure::new(Exit::General, format!("{}: {found}", archive.display()));
    let unreadable = |error: io::Error| malformed(error.to_string());
    let mut tar = GzDecoder::new(BufReader::new(File::open(archive).map_err(unreadable)?));
    let mut missing: Vec<&Content> = contents.iter().collect();
    while !missing.is_empty() {
        let mut header = [0; BLOCK as usize];
        tar.read_exact(&mut header).map_err(unreadable)?;
        if header == [0; BLOCK as usize] {
            return Err(malformed(format!(
                "found the end of the archive, which holds no {}",
                missing[0].file
            )));
        }
        let length = octal(&header[124..136])
            .ok_or_else(|| malformed("found a length that is no octal number".to_owned()))?;
        let name = header[..100].split(|byte| *byte == 0).next().unwrap_or_default();
        let name = name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let wanted = missing.iter().position(|content| content.file.as_bytes() == name);
        let mut content = tar.by_ref().take(length);
        match wanted {
            Some(at) => {
                let Content { file, bytes } = *missing.swap_remove(at);
                if length != bytes {
                    return Err(malformed(format!("found {file} of {length} bytes, accepted is {bytes}")));
                }
                let part = folder.join(format!("{file}.part"));
                let mut write = || {
                    let mut out = File::create(&part)?;
                    io::copy(&mut content, &mut out)?;
                    out.sync_all()?;
                    if out.metadata()?.len() != bytes {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    fs::rename(&part, folder.join(file))
                };
                write().map_err(|error: io::Error| unwritable(&folder.join(file), &error))?;
            }
            None => {
                io::copy(&mut content, &mut io::sink()).map_err(unreadable)?;
            }
        }
        let padding = length.next_multiple_of(BLOCK) - length;
        io::copy(&mut tar.by_ref().take(padding), &mut io::sink()).map_err(unreadable)?;
    }
    Ok(())
}

/// A number in octal digits, between spaces or zero bytes.
fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
    // A file of a terabyte is in no archive that is fetched.
    u64::from_str_radix(text, 8).ok().filter(|length| *length < 1 << 40)
}
