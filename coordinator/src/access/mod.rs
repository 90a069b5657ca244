//! Who may talk to a coordinator, and how they know that it is the right one. [`Guard`] has what its port asks for:
//! a certificate ([`certificates`]) and tokens ([`token_book`], [`checker`], and [`sessions`] of browsers), either,
//! both or, on the loopback address, neither. It also writes access files: the owner's, and those that launchers hand
//! to workers.

pub mod certificates;
pub mod checker;
pub mod sessions;
pub mod token_book;

#[cfg(test)]
mod tests;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use muster_common::access::{Access, AccessError, Fingerprint};
use muster_common::time::Timestamp;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::settings::{Settings, Tls};
use certificates::{CertificateError, Certificates, Source};
use checker::Checker;
use sessions::Sessions;
use token_book::{BookError, NewToken, Scope, TokenBook, TokenEntry};

/// In the state directory: for whoever owns it, with all rights.
const OWNER_FILE: &str = "access.json";
/// In the state directory: URL and fingerprint for others, without a token.
const ADDRESS_FILE: &str = "address.json";
/// In the state directory: access files of workers that were launched.
const WORKERS_DIRECTORY: &str = "access";
/// Tokens of the coordinator's own live so long, and get a successor when half of it is over.
const LIFETIME: Duration = Duration::from_secs(30 * 86_400);
/// How often that is looked at.
const LOOK: Duration = Duration::from_secs(3600);

/// Why the port cannot be guarded.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// Tokens.
    #[error(transparent)]
    Tokens(#[from] BookError),
    /// Certificates.
    #[error(transparent)]
    Certificates(#[from] CertificateError),
    /// Access files.
    #[error(transparent)]
    File(#[from] AccessError),
}

/// What a worker is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerAccess {
    /// URL of the coordinator, for `--coordinator`.
    pub url: String,
    /// What `MUSTER_ACCESS` names for the worker. Absent: nothing is asked for.
    pub file: Option<PathBuf>,
}

/// An access file that is kept good.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Issued {
    path: PathBuf,
    name: String,
    scope: Scope,
    url: String,
}

/// What the port of a coordinator asks for. Clones are the same.
#[derive(Debug, Clone)]
pub struct Guard {
    certificates: Option<Certificates>,
    checker: Option<Checker>,
    sessions: Sessions,
    state: PathBuf,
    /// URLs for processes on this machine, and for others.
    near: String,
    far: String,
    issued: Arc<Mutex<Vec<Issued>>>,
}

impl Guard {
    /// Reads or makes what settings ask for, for a port that is open at `address`.
    pub fn open(
        settings: &Settings,
        state: &Path,
        address: SocketAddr,
    ) -> Result<Self, GuardError> {
        let names = certificates::names_of(address.ip(), settings.advertise.as_deref());
        let source = certificate_source(settings, state, names);
        let open = |source| Certificates::open(source, SystemTime::now());
        let certificates = source.map(open).transpose()?;
        let checker = settings.asks_for_tokens().then(|| Checker::new(TokenBook::new(state)));
        let scheme = if certificates.is_some() { "https" } else { "http" };
        let near = format!("{scheme}://{}", SocketAddr::new(near(address.ip()), address.port()));
        let far = settings.advertise.clone().unwrap_or_else(|| {
            let host = certificates::host_name().filter(|_| address.ip().is_unspecified());
            let host = host.map(|host| format!("{host}:{}", address.port()));
            format!("{scheme}://{}", host.unwrap_or_else(|| address.to_string()))
        });
        let issued = Arc::default();
        let sessions = Sessions::new(address.port(), certificates.is_some());
        let state = state.to_owned();
        let guard = Self { certificates, checker, sessions, state, near, far, issued };
        guard.write_addresses()?;
        Ok(guard)
    }

    /// How connections are encrypted.
    pub fn certificates(&self) -> Option<&Certificates> {
        self.certificates.as_ref()
    }

    /// How calls are checked.
    pub fn checker(&self) -> Option<&Checker> {
        self.checker.as_ref()
    }

    /// Browsers that have shown a token.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// What clients and workers pin.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.certificates.as_ref().map(Certificates::fingerprint)
    }

    /// URL for processes on this machine.
    pub fn near_url(&self) -> &str {
        &self.near
    }

    fn is_open(&self) -> bool {
        self.certificates.is_none() && self.checker.is_none()
    }

    /// The owner finds the coordinator by them, and `muster token` what to tell others.
    fn write_addresses(&self) -> Result<(), GuardError> {
        let (owner, address) = (self.state.join(OWNER_FILE), self.state.join(ADDRESS_FILE));
        if self.is_open() {
            // Of an earlier start: they would lead astray.
            for path in [owner, address] {
                let _absent = fs::remove_file(path);
            }
            return Ok(());
        }
        let others =
            Access { coordinator: self.far.clone(), fingerprint: self.fingerprint(), token: None };
        others.write(&address)?;
        let (name, url) = ("_owner".to_owned(), self.near.clone());
        self.issue(Issued { path: owner, name, scope: Scope::User, url })?;
        Ok(())
    }

    /// Where nothing is asked for, has commands find the coordinator by the owner's file from now on, as they find one
    /// that asks for tokens.
    pub fn announce(&self) -> Result<(), GuardError> {
        if self.is_open() {
            let (coordinator, fingerprint, token) = (self.near.clone(), None, None);
            let here = Access { coordinator, fingerprint, token };
            here.write(&self.state.join(OWNER_FILE))?;
        }
        Ok(())
    }

    /// Where nothing is asked for, the owner's file only says where the coordinator is: of no use when it is gone.
    pub fn retire(&self) {
        if self.is_open() {
            let _absent = fs::remove_file(self.state.join(OWNER_FILE));
        }
    }

    /// An access file for workers on this machine.
    pub fn local_worker_access(&self) -> Result<WorkerAccess, GuardError> {
        self.worker_access("local", &self.near)
    }

    /// An access file for workers that `launcher` starts on other machines, which read it where they run: the
    /// state directory has to be there too, or the file is carried over. Called again it gives the same file;
    /// its token is renewed in time, and workers that are refused read the file again. `url` is how they reach the
    /// coordinator, where it is not what the settings advertise.
    pub fn remote_worker_access(
        &self,
        launcher: &str,
        url: Option<&str>,
    ) -> Result<WorkerAccess, GuardError> {
        self.worker_access(launcher, url.unwrap_or(&self.far))
    }

    fn worker_access(&self, launcher: &str, url: &str) -> Result<WorkerAccess, GuardError> {
        let url = url.to_owned();
        if self.is_open() {
            return Ok(WorkerAccess { url, file: None });
        }
        let path = self.state.join(WORKERS_DIRECTORY).join(format!("{launcher}.json"));
        let name = format!("_workers-{launcher}");
        self.issue(Issued { path: path.clone(), name, scope: Scope::Worker, url: url.clone() })?;
        Ok(WorkerAccess { url, file: Some(path) })
    }

    /// Writes an access file, with the token it has if that is good, and keeps it good from now on.
    fn issue(&self, issued: Issued) -> Result<(), GuardError> {
        self.refresh(&issued, Timestamp::now())?;
        let mut all = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.contains(&issued) {
            all.push(issued);
        }
        Ok(())
    }

    fn refresh(&self, issued: &Issued, now: Timestamp) -> Result<(), GuardError> {
        let kept = Access::read(&issued.path).ok();
        let token = match &self.checker {
            None => None,
            Some(checker) => {
                let kept_token = kept.as_ref().and_then(|kept| kept.token.clone());
                let entries = checker.book().entries()?;
                let is_good = |entry: &TokenEntry| {
                    entry.scope == issued.scope && entry.is_valid(now.after(LIFETIME / 2))
                };
                let good = kept_token
                    .filter(|token| entries.iter().any(|entry| entry.is(token) && is_good(entry)));
                let (name, scope) = (issued.name.clone(), issued.scope);
                let new = NewToken { name, scope, lifetime: Some(LIFETIME) };
                Some(match good {
                    Some(token) => token,
                    None => checker.book().create_own(&new, now)?,
                })
            }
        };
        let coordinator = issued.url.clone();
        let access = Access { coordinator, fingerprint: self.fingerprint(), token };
        if kept.as_ref() != Some(&access) {
            access.write(&issued.path)?;
        }
        Ok(())
    }

    /// Starts what keeps certificates, tokens and access files good.
    pub fn keep(&self, tasks: &TaskTracker, shutdown: &CancellationToken) {
        if let Some(certificates) = self.certificates.clone() {
            tasks.spawn(certificates.keep(shutdown.clone()));
        }
        let Some(checker) = self.checker.clone() else { return };
        tasks.spawn(checker.keep(shutdown.clone()));
        let (guard, shutdown) = (self.clone(), shutdown.clone());
        tasks.spawn(async move {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(LOOK) => {}
                    () = shutdown.cancelled() => return,
                }
                let all = guard.issued.lock().unwrap_or_else(PoisonError::into_inner).clone();
                for issued in all {
                    if let Err(error) = guard.refresh(&issued, Timestamp::now()) {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(error, name = issued.name, "an access file is not renewed");
                    }
                }
            }
        });
    }
}

/// Where the certificate comes from, as settings say; an own one is for `names` too. `None`: nothing is encrypted.
pub fn certificate_source(settings: &Settings, state: &Path, names: Vec<String>) -> Option<Source> {
    match (&settings.tls_cert, &settings.tls_key) {
        (Some(certificate), Some(key)) => {
            Some(Source::Files { certificate: certificate.clone(), key: key.clone() })
        }
        _ if settings.tls == Tls::Auto => Some(Source::Own { state: state.to_owned(), names }),
        _ => None,
    }
}

/// The files of a state directory that only its owner may read, those that are there.
pub fn private_files(state: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        [OWNER_FILE, ADDRESS_FILE, token_book::FILE].map(|name| state.join(name)).into();
    for folder in [WORKERS_DIRECTORY, certificates::DIRECTORY] {
        let entries = fs::read_dir(state.join(folder)).into_iter().flatten().flatten();
        files.extend(entries.map(|entry| entry.path()));
    }
    files.retain(|path| path.is_file());
    files.sort();
    files
}

/// The access file of the owner of a state directory.
pub fn owner_file(state: &Path) -> PathBuf {
    state.join(OWNER_FILE)
}

/// Where others find the coordinator of a state directory, as it was started last.
pub fn address_of(state: &Path) -> Result<Access, AccessError> {
    Access::read(&state.join(ADDRESS_FILE))
}

/// An address at which a port is reached from the same machine.
fn near(listen: IpAddr) -> IpAddr {
    match listen {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    }
}
