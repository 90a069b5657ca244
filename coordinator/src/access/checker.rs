//! Says of every call whether its token opens what it asks for, and ends calls that go on when their token is
//! taken away.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use muster_common::access::Token;
use muster_common::count::counted;
use muster_common::time::Timestamp;
use tokio_util::sync::CancellationToken;

use super::token_book::{Scope, TokenBook, TokenEntry};

/// How soon a token that was taken away ends what it had opened.
const LOOK: Duration = Duration::from_millis(500);

/// Why a call is refused. Never says anything of the secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing was shown.
    #[error(
        "this coordinator asks for a token: `muster token create` on its machine makes one; an access file \
         (--access, MUSTER_ACCESS) or MUSTER_TOKEN hands it over"
    )]
    Missing,
    /// Something was shown that is no token, or one of another coordinator.
    #[error(
        "this token is none of this coordinator's; `muster token create` on its machine makes one"
    )]
    Unknown,
    /// Its time is over.
    #[error("the token `{name}` has expired {ago} ago; `muster token create` makes another")]
    Expired {
        /// Its name.
        name: String,
        /// Since when.
        ago: String,
    },
    /// It was taken away.
    #[error("the token `{name}` was revoked {ago} ago")]
    Revoked {
        /// Its name.
        name: String,
        /// Since when.
        ago: String,
    },
    /// It is for something else.
    #[error("the token `{name}` has the scope `{}`, and this asks for `{}`", scope.name(), needed.name())]
    Scope {
        /// Its name.
        name: String,
        /// What it opens.
        scope: Scope,
        /// What would be needed.
        needed: Scope,
    },
    /// Nobody can be told apart.
    #[error("the coordinator cannot read its list of tokens; its log says why")]
    Damaged,
    /// A worker calls itself as one that came in with another token.
    #[error(
        "the worker id `{worker}` is in use by a worker with another token; choose another --worker-id, or come \
         back with that token"
    )]
    Taken {
        /// The id.
        worker: String,
    },
    /// A secret was on its way in clear text, or would be.
    #[error("this port speaks TLS; write https:// in place of http://")]
    ClearText,
}

impl Refusal {
    /// For metrics.
    pub const LABELS: [&'static str; 8] =
        ["missing", "unknown", "expired", "revoked", "scope", "damaged", "taken", "clear_text"];

    /// One of [`Self::LABELS`].
    pub fn label(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Unknown => "unknown",
            Self::Expired { .. } => "expired",
            Self::Revoked { .. } => "revoked",
            Self::Scope { .. } => "scope",
            Self::Damaged => "damaged",
            Self::Taken { .. } => "taken",
            Self::ClearText => "clear_text",
        }
    }
}

/// Who calls.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Tag of the token.
    pub tag: String,
    /// Its name.
    pub name: String,
    /// What it opens.
    pub scope: Scope,
    /// Set when the token is taken away or expires.
    pub cut: CancellationToken,
}

/// What is known of the file.
#[derive(Debug, Default)]
struct Known {
    /// Of the file when it was read: which one, when it was written, how long it is.
    stamp: Option<(u64, i64, i64, u64)>,
    /// By tag; absent when it cannot be read.
    entries: Option<BTreeMap<String, TokenEntry>>,
    /// Of calls that were let in, by tag.
    open: BTreeMap<String, CancellationToken>,
}

/// Shared by all connections.
#[derive(Debug, Clone)]
pub struct Checker {
    book: TokenBook,
    known: Arc<Mutex<Known>>,
}

impl Checker {
    /// For the tokens of a book.
    pub fn new(book: TokenBook) -> Self {
        Self { book, known: Arc::default() }
    }

    /// The tokens.
    pub fn book(&self) -> &TokenBook {
        &self.book
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who shows `text`, if that opens what asks for `needed`.
    pub fn check(
        &self,
        text: Option<&str>,
        needed: Scope,
        now: Timestamp,
    ) -> Result<Caller, Refusal> {
        let text = text.ok_or(Refusal::Missing)?;
        let token: Token = text.parse().map_err(|_| Refusal::Unknown)?;
        self.admit(&token.tag(), |entry| entry.is(&token), needed, now)
    }

    /// Who has shown the token with this tag before, if it still opens what asks for `needed`.
    pub fn check_again(&self, tag: &str, needed: Scope, now: Timestamp) -> Result<Caller, Refusal> {
        self.admit(tag, |_| true, needed, now)
    }

    fn admit(
        &self,
        tag: &str,
        is_it: impl Fn(&TokenEntry) -> bool,
        needed: Scope,
        now: Timestamp,
    ) -> Result<Caller, Refusal> {
        let mut known = self.known();
        self.refresh(&mut known);
        let entries = known.entries.as_ref().ok_or(Refusal::Damaged)?;
        let entry = entries.get(tag).filter(|entry| is_it(entry));
        let entry = entry.cloned().ok_or(Refusal::Unknown)?;
        let TokenEntry { tag, name, scope, expires_at, revoked_at, .. } = entry;
        if let Some(at) = revoked_at {
            return Err(Refusal::Revoked { name, ago: span(now.since(at)) });
        }
        if let Some(at) = expires_at.filter(|at| *at <= now) {
            return Err(Refusal::Expired { name, ago: span(now.since(at)) });
        }
        if !scope.opens(needed) {
            return Err(Refusal::Scope { name, scope, needed });
        }
        let cut = known.open.entry(tag.clone()).or_default().clone();
        Ok(Caller { tag, name, scope, cut })
    }

    /// Whether somebody may show a token of this name. Where the tokens cannot be read, nothing was taken away.
    pub fn is_usable(&self, name: &str, now: Timestamp) -> bool {
        let mut known = self.known();
        self.refresh(&mut known);
        let Some(entries) = &known.entries else { return true };
        entries.values().any(|entry| entry.name == name && entry.is_valid(now))
    }

    /// Reads the file again if it is another one.
    fn refresh(&self, known: &mut Known) {
        let stamp = std::fs::metadata(self.book.path())
            .map(|file| (file.ino(), file.mtime(), file.mtime_nsec(), file.len()))
            .ok();
        if known.entries.is_some() && known.stamp == stamp {
            return;
        }
        let had_any = known.entries.is_some() || known.stamp.is_none();
        known.stamp = stamp;
        known.entries = match self.book.entries() {
            Ok(entries) => {
                Some(entries.into_iter().map(|entry| (entry.tag.clone(), entry)).collect())
            }
            Err(error) => {
                if had_any {
                    tracing::error!(error = &error as &dyn std::error::Error, "no tokens");
                }
                None
            }
        };
    }

    /// Ends calls whose token can no longer be used, until `shutdown`.
    pub async fn keep(self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => self.cut(Timestamp::now()),
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// One look of [`Checker::keep`].
    pub fn cut(&self, now: Timestamp) {
        let mut known = self.known();
        self.refresh(&mut known);
        let Known { entries, open, .. } = &mut *known;
        open.retain(|tag, cut| {
            let entry = entries.as_ref().and_then(|entries| entries.get(tag));
            // A file that cannot be read for a moment refuses what is new, and ends nothing.
            let is_good = entries.is_none() || entry.is_some_and(|entry| entry.is_valid(now));
            if !is_good {
                cut.cancel();
            }
            is_good
        });
    }
}

/// A time for people.
pub fn span(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..=119 => format!("{seconds} s"),
        seconds @ 120..=7199 => format!("{} min", seconds / 60),
        seconds @ 7200..=172_799 => format!("{} h", seconds / 3600),
        seconds => counted(seconds / 86_400, "day"),
    }
}
