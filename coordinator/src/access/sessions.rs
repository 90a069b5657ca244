//! Browsers of people who have shown a token once. A browser keeps a random number in a cookie that scripts cannot
//! read and that other sites' pages do not send along; here it stands for the token. In memory only: after a restart
//! people show their token again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use muster_common::digest::{ContentHash, hexadecimal};
use muster_common::time::Timestamp;
use tokio_rustls::rustls::crypto::aws_lc_rs;

/// A session lasts so long, whatever it is used for.
const LIFETIME: Duration = Duration::from_secs(12 * 3600);
/// Most sessions; the oldest ends when there is another.
const SESSIONS_MAX: usize = 1000;

/// The system gives no random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random numbers")]
pub struct NoRandom;

#[derive(Debug)]
struct Session {
    /// Of the token.
    tag: String,
    began_at: Timestamp,
}

/// All sessions of a coordinator. Clones are the same.
#[derive(Debug, Clone)]
pub struct Sessions {
    cookie: String,
    is_encrypted: bool,
    /// By digest of the cookie: how long a look-up takes says nothing of the secret.
    known: Arc<Mutex<BTreeMap<ContentHash, Session>>>,
}

impl Sessions {
    /// For a coordinator at `port`. Cookies know hosts and no ports, so two coordinators of a host need two names.
    pub fn new(port: u16, is_encrypted: bool) -> Self {
        // The prefix has browsers refuse it unless it is secure, of this host alone, and for the whole of it.
        let prefix = if is_encrypted { "__Host-" } else { "" };
        let cookie = format!("{prefix}muster-{port}");
        Self { cookie, is_encrypted, known: Arc::default() }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<ContentHash, Session>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a session of the token with this tag; the value of the header `set-cookie`.
    pub fn begin(&self, tag: &str, now: Timestamp) -> Result<String, NoRandom> {
        let mut secret = [0; 32];
        let source = aws_lc_rs::default_provider().secure_random;
        source.fill(&mut secret).map_err(|_| NoRandom)?;
        let secret = hexadecimal(&secret);
        let mut known = self.known();
        known.retain(|_, session| now.since(session.began_at) < LIFETIME);
        while known.len() >= SESSIONS_MAX {
            let oldest = known.iter().min_by_key(|(_, session)| session.began_at);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else { break };
            known.remove(&oldest);
        }
        let session = Session { tag: tag.to_owned(), began_at: now };
        known.insert(ContentHash::of(secret.as_bytes()), session);
        Ok(self.header(&secret, LIFETIME.as_secs()))
    }

    fn header(&self, value: &str, seconds: u64) -> String {
        let secure = if self.is_encrypted { "; Secure" } else { "" };
        let name = &self.cookie;
        format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}")
    }

    /// Tag of the token that the browser has shown which sends this header `cookie`.
    pub fn find(&self, cookies: &str, now: Timestamp) -> Option<String> {
        let secret = self.secret(cookies)?;
        let known = self.known();
        let session = known.get(&ContentHash::of(secret.as_bytes()))?;
        (now.since(session.began_at) < LIFETIME).then(|| session.tag.clone())
    }

    /// Ends the session of a browser; the header `set-cookie` that has it forget.
    pub fn end(&self, cookies: &str) -> String {
        if let Some(secret) = self.secret(cookies) {
            self.known().remove(&ContentHash::of(secret.as_bytes()));
        }
        self.header("", 0)
    }

    fn secret<'a>(&self, cookies: &'a str) -> Option<&'a str> {
        let mut pairs = cookies.split(';').filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(name, _)| *name == self.cookie).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookie(header: &str) -> String {
        header.split(';').next().unwrap().to_owned()
    }

    #[test]
    fn a_session_is_found_until_it_ends() {
        let sessions = Sessions::new(7700, true);
        let begun = sessions.begin("aa", Timestamp(0)).unwrap();
        for part in ["__Host-muster-7700=", "; HttpOnly", "; SameSite=Strict", "; Secure", "Path=/"]
        {
            assert!(begun.contains(part), "{begun}");
        }
        let other = sessions.begin("bb", Timestamp(0)).unwrap();
        let shown = format!("theme=dark; {}; x=y", cookie(&begun));
        assert_eq!(sessions.find(&shown, Timestamp(1)), Some("aa".to_owned()));
        assert_eq!(sessions.find(&shown, Timestamp(0).after(LIFETIME)), None);
        assert!(sessions.end(&shown).contains("Max-Age=0"));
        assert_eq!(sessions.find(&shown, Timestamp(1)), None);
        assert_eq!(sessions.find(&cookie(&other), Timestamp(1)), Some("bb".to_owned()));
        for wrong in ["", "a", "__Host-muster-7700=", "__Host-muster-7700=00", "muster-7700=aa"] {
            assert_eq!(sessions.find(wrong, Timestamp(1)), None);
        }
    }

    #[test]
    fn there_is_an_end_to_how_many() {
        let sessions = Sessions::new(1, false);
        let first = sessions.begin("t", Timestamp(0)).unwrap();
        assert!(!first.contains("Secure") && first.starts_with("muster-1="), "{first}");
        let mut last = String::new();
        for at in 1..=SESSIONS_MAX as u64 {
            last = sessions.begin("t", Timestamp(at)).unwrap();
        }
        assert_eq!(sessions.known().len(), SESSIONS_MAX);
        assert_eq!(sessions.find(&cookie(&first), Timestamp(2000)), None);
        assert!(sessions.find(&cookie(&last), Timestamp(2000)).is_some());
        sessions.begin("t", Timestamp(0).after(LIFETIME * 2)).unwrap();
        assert_eq!(sessions.known().len(), 1, "those that are over are forgotten");
    }
}
