//! SHA-256 as the project writes it: lower-case hexadecimal.

use std::fmt::Write as _;
use std::io::{self, Read};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A SHA-256 in lower-case hexadecimal, 64 characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContentHash(String);

impl ContentHash {
    /// Of bytes in memory.
    pub fn of(bytes: &[u8]) -> Self {
        Self(hexadecimal(&Sha256::digest(bytes)))
    }

    /// Of bytes that lie in several pieces.
    pub fn of_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let hash = pieces.into_iter().fold(Sha256::new(), Digest::chain_update);
        Self(hexadecimal(&hash.finalize()))
    }

    /// Of everything a reader yields, read in blocks of 1 MiB.
    pub fn of_reader(mut reader: impl Read) -> io::Result<Self> {
        let mut hash = Sha256::new();
        let mut block = vec![0; 1 << 20];
        loop {
            let count = reader.read(&mut block)?;
            if count == 0 {
                return Ok(Self(hexadecimal(&hash.finalize())));
            }
            hash.update(&block[..count]);
        }
    }

    /// All 64 characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 16 characters, enough for a directory name.
    pub fn short(&self) -> &str {
        self.0.get(..16).unwrap_or(&self.0)
    }
}

/// Lower-case hexadecimal digits.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a String cannot fail.
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_input_has_the_published_digest() {
        let expected = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(ContentHash::of(b"").as_str(), expected);
        assert_eq!(ContentHash::of_reader(&b""[..]).unwrap().as_str(), expected);
        assert_eq!(ContentHash::of_pieces([]).as_str(), expected);
        let pieces = [&b"mus"[..], b"", b"ter"];
        assert_eq!(ContentHash::of_pieces(pieces), ContentHash::of(b"muster"));
    }
}
