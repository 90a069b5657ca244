//! The tokens that a coordinator has given out, in a private file of its state directory. Only digests are kept:
//! who reads the file can take tokens away, and not use them. `muster token` changes it while a coordinator runs,
//! which looks at it again at every call.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use muster_common::access::{AccessError, Token, read_private, write_private};
use muster_common::digest::hexadecimal;
use muster_common::time::Timestamp;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use tokio_rustls::rustls::crypto::aws_lc_rs;

/// Its name in the state directory.
pub(super) const FILE: &str = "tokens.json";
/// Longest wait for another process that changes the file.
const LOCK_DEADLINE: Duration = Duration::from_secs(5);
/// Tokens that are over are forgotten after so long; until then their name says what became of them.
const REMEMBERED: Duration = Duration::from_secs(90 * 86_400);
/// Longest name.
const NAME_MAX: usize = 64;

/// What a token opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// All that clients ask for: submit, cancel, look
    User,
    /// Looking only: lists, logs, curves, metrics
    Read,
    /// The service of workers, and nothing else
    Worker,
}

impl Scope {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Read => "read",
            Self::Worker => "worker",
        }
    }

    /// Whether it opens what asks for `needed`.
    pub fn opens(self, needed: Self) -> bool {
        self == needed || (self == Self::User && needed == Self::Read)
    }
}

/// A token as the coordinator knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenEntry {
    /// The tag, 8 hexadecimal digits; part of the token.
    pub tag: String,
    /// For people.
    pub name: String,
    /// What it opens.
    pub scope: Scope,
    /// SHA-256 of its secret, hexadecimal.
    digest: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends; absent: never.
    pub expires_at: Option<Timestamp>,
    /// When it was taken away.
    #[serde(default)]
    pub revoked_at: Option<Timestamp>,
}

impl TokenEntry {
    /// Whether it can be used.
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && !self.has_expired(now)
    }

    /// Whether its time is over.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// Whether this is it, compared in a time that does not tell how much of it is right.
    pub(super) fn is(&self, token: &Token) -> bool {
        bool::from(self.digest.as_bytes().ct_eq(hexadecimal(&token.digest()).as_bytes()))
    }

    fn ended_at(&self) -> Option<Timestamp> {
        self.revoked_at.or(self.expires_at)
    }
}

/// A token to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    /// For people; unique among those that can be used.
    pub name: String,
    /// What it opens.
    pub scope: Scope,
    /// How long it lives; absent: until it is revoked.
    pub lifetime: Option<Duration>,
}

/// What is in the file.
#[derive(Default, Serialize, Deserialize)]
struct Written {
    format: u32,
    tokens: Vec<TokenEntry>,
}

const FORMAT: u32 = 1;

/// Why tokens could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum BookError {
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] AccessError),
    /// The file is damaged, or of a newer build.
    #[error("{} is no list of tokens ({reason}); without it every token is refused", path.display())]
    Format {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Another process holds it.
    #[error("{} is being changed by another process for more than {} s", path.display(), LOCK_DEADLINE.as_secs())]
    Locked {
        /// Which.
        path: PathBuf,
    },
    /// Taken.
    #[error("there is a token `{name}`; revoke it first, or choose another name")]
    Taken {
        /// The name.
        name: String,
    },
    /// Not a name.
    #[error(
        "`{name}` is no name of a token: letters, digits and . - _, at most {NAME_MAX}, a letter or digit first"
    )]
    Name {
        /// As given.
        name: String,
    },
    /// Unknown.
    #[error("there is no token `{name}`; `muster token ls` lists them")]
    Unknown {
        /// Name or tag.
        name: String,
    },
    /// No random numbers.
    #[error("the system gives no random numbers")]
    Random,
}

/// The file.
#[derive(Debug, Clone)]
pub struct TokenBook {
    path: PathBuf,
}

impl TokenBook {
    /// That of a state directory.
    pub fn new(state: &Path) -> Self {
        Self { path: state.join(FILE) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// All tokens, oldest first; none when there is no file.
    pub fn entries(&self) -> Result<Vec<TokenEntry>, BookError> {
        if !self.path.exists() {
            return Ok(Vec::new());
        }
        let text = read_private(&self.path)?;
        let format = |reason: String| BookError::Format { path: self.path.clone(), reason };
        let written: Written =
            serde_json::from_str(&text).map_err(|error| format(error.to_string()))?;
        if written.format != FORMAT {
            return Err(format(format!("format {} instead of {FORMAT}", written.format)));
        }
        Ok(written.tokens)
    }

    /// Makes a token. This is the only time that it is seen.
    pub fn create(&self, new: &NewToken, now: Timestamp) -> Result<Token, BookError> {
        let NewToken { name, .. } = new;
        let is_inside = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        let first = name.chars().next().unwrap_or('.');
        if name.len() > NAME_MAX || !first.is_ascii_alphanumeric() || !name.chars().all(is_inside) {
            return Err(BookError::Name { name: name.clone() });
        }
        self.add(new, now, false)
    }

    /// Makes a token of the coordinator's own, whose name begins with `_`. Older ones of the same name live on
    /// until they expire.
    pub(super) fn create_own(&self, new: &NewToken, now: Timestamp) -> Result<Token, BookError> {
        self.add(new, now, true)
    }

    fn add(&self, new: &NewToken, now: Timestamp, is_own: bool) -> Result<Token, BookError> {
        let token = random_token()?;
        let entry = TokenEntry {
            tag: token.tag(),
            name: new.name.clone(),
            scope: new.scope,
            digest: hexadecimal(&token.digest()),
            created_at: now,
            expires_at: new.lifetime.map(|lifetime| now.after(lifetime)),
            revoked_at: None,
        };
        self.change(now, |tokens| {
            if !is_own && tokens.iter().any(|known| known.name == new.name && known.is_valid(now)) {
                return Err(BookError::Taken { name: new.name.clone() });
            }
            tokens.push(entry);
            Ok(token)
        })
    }

    /// Takes away what has this name or tag; says how many could still be used.
    pub fn revoke(&self, name: &str, now: Timestamp) -> Result<usize, BookError> {
        self.change(now, |tokens| {
            let named = |entry: &&mut TokenEntry| entry.name == name || entry.tag == name;
            let found: Vec<_> = tokens.iter_mut().filter(named).collect();
            if found.is_empty() {
                return Err(BookError::Unknown { name: name.to_owned() });
            }
            let valid = found.into_iter().filter(|entry| entry.is_valid(now));
            Ok(valid.map(|entry| entry.revoked_at = Some(now)).count())
        })
    }

    fn change<T>(
        &self,
        now: Timestamp,
        change: impl FnOnce(&mut Vec<TokenEntry>) -> Result<T, BookError>,
    ) -> Result<T, BookError> {
        let _held = self.lock()?;
        let mut tokens = self.entries()?;
        let outcome = change(&mut tokens)?;
        let is_remembered = |at: Timestamp| now.since(at) < REMEMBERED;
        tokens.retain(|entry| entry.ended_at().is_none_or(is_remembered));
        let written = Written { format: FORMAT, tokens };
        let text = serde_json::to_string_pretty(&written).map_err(|error| BookError::Format {
            path: self.path.clone(),
            reason: error.to_string(),
        })?;
        write_private(&self.path, format!("{text}\n").as_bytes())?;
        Ok(outcome)
    }

    /// The file itself is replaced at every change, so another one is locked.
    fn lock(&self) -> Result<File, BookError> {
        let path = self.path.with_extension("lock");
        let opened = || {
            fs::create_dir_all(path.parent().unwrap_or_else(|| Path::new(".")))?;
            File::options().create(true).truncate(false).write(true).open(&path)
        };
        let file = opened().map_err(|source| AccessError::File { path: path.clone(), source })?;
        let begun = Instant::now();
        while file.try_lock().is_err() {
            if begun.elapsed() > LOCK_DEADLINE {
                return Err(BookError::Locked { path: self.path.clone() });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(file)
    }
}

fn random_token() -> Result<Token, BookError> {
    let source = aws_lc_rs::default_provider().secure_random;
    let (mut tag, mut secret) = ([0; 4], [0; 32]);
    source.fill(&mut tag).map_err(|_| BookError::Random)?;
    source.fill(&mut secret).map_err(|_| BookError::Random)?;
    Ok(Token::new(tag, secret))
}
