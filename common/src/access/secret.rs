//! Tokens and fingerprints. A token is a secret: it has no `Display`, and `Debug` shows its name tag only.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::digest::hexadecimal;

/// What every token begins with, so that it is recognised where it should not be.
const TOKEN_PREFIX: &str = "muster_";

/// A random secret of 256 bits that a coordinator has given out, with the tag under which it knows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    tag: [u8; 4],
    secret: [u8; 32],
}

/// Text that is no token. Does not repeat it: it may be a mistyped one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no token; one looks like muster_TAG_SECRET, with 8 and 64 hexadecimal digits")]
pub struct TokenError;

impl Token {
    /// Of random bytes.
    pub fn new(tag: [u8; 4], secret: [u8; 32]) -> Self {
        Self { tag, secret }
    }

    /// The name tag, 8 hexadecimal digits. Not a secret.
    pub fn tag(&self) -> String {
        hexadecimal(&self.tag)
    }

    /// SHA-256 of the secret: what a coordinator keeps. The secret is random, so nothing slower is needed.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.secret).into()
    }

    /// The whole token, secret included. Only for private files and for the wire.
    pub fn reveal(&self) -> String {
        format!("{TOKEN_PREFIX}{}_{}", self.tag(), hexadecimal(&self.secret))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}, secret)", self.tag())
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let (tag, secret) = text
            .strip_prefix(TOKEN_PREFIX)
            .and_then(|rest| rest.split_once('_'))
            .ok_or(TokenError)?;
        let tag = bytes(tag).ok_or(TokenError)?;
        Ok(Self { tag, secret: bytes(secret).ok_or(TokenError)? })
    }
}

/// SHA-256 of a certificate in DER, as `openssl x509 -fingerprint -sha256` gives it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

/// Text that is no fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no fingerprint; write sha256: and 64 hexadecimal digits, as `muster serve` prints it"
)]
pub struct FingerprintError {
    text: String,
}

impl Fingerprint {
    /// Of a certificate's DER.
    pub fn of(certificate: &[u8]) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hexadecimal(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    /// With or without `sha256:`, in either case, with or without colons between the bytes.
    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let plain = text.trim().to_ascii_lowercase();
        let digits = plain.strip_prefix("sha256:").unwrap_or(&plain).replace(':', "");
        bytes(&digits).map(Self).ok_or_else(|| FingerprintError { text: text.to_owned() })
    }
}

fn bytes<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let is_hexadecimal = digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    if digits.len() != 2 * N || !is_hexadecimal {
        return None;
    }
    let mut bytes = [0; N];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(bytes)
}
