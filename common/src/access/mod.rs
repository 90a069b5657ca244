//! How one gets at a coordinator: its URL, what its certificate is known by, and a token. Clients and workers find
//! the three in the same places: flags and environment variables first, then an access file, which has all of them.

mod file;
mod secret;

use std::path::{Path, PathBuf};

use url::{Host, Url};

pub use file::{read_private, write_private};
pub use secret::{Fingerprint, FingerprintError, Token, TokenError};

/// Where a coordinator is when nothing says otherwise.
pub const DEFAULT_URL: &str = "http://127.0.0.1:7700";
/// Names an access file.
pub const ACCESS_VARIABLE: &str = "MUSTER_ACCESS";
/// Holds a fingerprint.
pub const FINGERPRINT_VARIABLE: &str = "MUSTER_FINGERPRINT";
/// Holds a token.
pub const TOKEN_VARIABLE: &str = "MUSTER_TOKEN";
/// Names a file with nothing but a token.
pub const TOKEN_FILE_VARIABLE: &str = "MUSTER_TOKEN_FILE";
/// All of them, for those who start a process that is not to have them.
pub const VARIABLES: [&str; 4] =
    [ACCESS_VARIABLE, FINGERPRINT_VARIABLE, TOKEN_VARIABLE, TOKEN_FILE_VARIABLE];
/// A name that every certificate has which a coordinator makes for itself. Whoever pins an authority accepts it
/// in place of the host's, since machines are reached by more names than they know of; no other authority can
/// give it to anybody, the domain being reserved for private use.
pub const OWN_NAME: &str = "coordinator.muster.internal";

/// All that is needed to talk to a coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Its URL, `http://HOST:PORT` or `https://HOST:PORT`.
    pub coordinator: String,
    /// Of its certificate, or of the authority that has signed it. Absent: whom this machine trusts.
    pub fingerprint: Option<Fingerprint>,
    /// Absent: none is asked for, it is hoped.
    pub token: Option<Token>,
}

/// What flags said, or the environment variables of the same meaning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessFlags {
    /// URL of the coordinator.
    pub coordinator: Option<String>,
    /// Of its certificate or authority.
    pub fingerprint: Option<String>,
    /// An access file.
    pub file: Option<PathBuf>,
}

/// Why nobody can be talked to.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A private file cannot be read or written.
    #[error("{}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A file with a secret is open to others.
    #[error(
        "{} holds a secret and others may read it (mode {mode:04o}); `chmod 600 {}`",
        path.display(),
        path.display()
    )]
    Open {
        /// Which.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A file is not what it should be.
    #[error("{} is no access file: {reason}; `muster token create --output FILE` writes one", path.display())]
    Format {
        /// Which.
        path: PathBuf,
        /// What is wrong; never the secret itself.
        reason: String,
    },
    /// A token that is none.
    #[error("{place}: {error}")]
    Token {
        /// Where it stands.
        place: String,
        /// What is wrong.
        error: TokenError,
    },
    /// A fingerprint that is none.
    #[error("{0}")]
    Fingerprint(#[from] FingerprintError),
    /// Not a URL.
    #[error("`{url}` is no URL of a coordinator; write https://HOST:PORT, or http://HOST:PORT")]
    Url {
        /// As given.
        url: String,
    },
    /// Nothing says where the coordinator is.
    #[error(
        "no coordinator is named; --coordinator (MUSTER_COORDINATOR) or --access (MUSTER_ACCESS) does"
    )]
    Nowhere,
    /// A secret would be sent in clear text.
    #[error("a token would travel to {url} in clear text; write https://, or take the token away")]
    ClearText {
        /// Where to.
        url: String,
    },
    /// There is no certificate to compare.
    #[error("a fingerprint is given, but {url} shows no certificate; write https://")]
    NoCertificate {
        /// Where.
        url: String,
    },
}

impl Access {
    /// Puts together what flags, environment and files say. Of `usual_files` the first counts that is there
    /// and, where a coordinator is named, is about that one; what was named stands for itself.
    pub fn find(
        flags: &AccessFlags,
        usual_files: &[PathBuf],
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, AccessError> {
        let named = flags.coordinator.as_deref().map(|url| url.trim_end_matches('/'));
        let file = match &flags.file {
            Some(path) => Some(Self::read(path)?),
            None => usual(usual_files, named)?,
        };
        let (url, fingerprint, token) = match file {
            Some(file) => (Some(file.coordinator), file.fingerprint, file.token),
            None => (None, None, None),
        };
        let coordinator = named.map(ToOwned::to_owned).or(url).ok_or(AccessError::Nowhere)?;
        let fingerprint = match &flags.fingerprint {
            Some(text) => Some(text.parse()?),
            None => fingerprint,
        };
        let token = match environment_token(environment)? {
            Some(token) => Some(token),
            None => token,
        };
        Self { coordinator, fingerprint, token }.checked()
    }

    /// Refuses what would give the token away or promise what cannot be kept.
    fn checked(self) -> Result<Self, AccessError> {
        let url = self.coordinator.clone();
        let parsed =
            Url::parse(&url).ok().filter(|url| url.has_host() && url.username().is_empty());
        let Some(parsed) = parsed else { return Err(AccessError::Url { url }) };
        match parsed.scheme() {
            "http" if self.fingerprint.is_some() => Err(AccessError::NoCertificate { url }),
            "http" if self.token.is_some() && !is_loopback(&parsed) => {
                Err(AccessError::ClearText { url })
            }
            "http" | "https" => Ok(self),
            _ => Err(AccessError::Url { url }),
        }
    }

    /// Whether the connection is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.coordinator.starts_with("https://")
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn usual(files: &[PathBuf], named: Option<&str>) -> Result<Option<Access>, AccessError> {
    for path in files.iter().filter(|path| path.is_file()) {
        let access = Access::read(path)?;
        if named.is_none_or(|named| named == access.coordinator) {
            return Ok(Some(access));
        }
    }
    Ok(None)
}

fn environment_token(
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Option<Token>, AccessError> {
    let parse = |place: String, text: &str| {
        text.trim().parse().map(Some).map_err(|error| AccessError::Token { place, error })
    };
    if let Some(text) = environment(TOKEN_VARIABLE).filter(|text| !text.is_empty()) {
        return parse(TOKEN_VARIABLE.to_owned(), &text);
    }
    let Some(path) = environment(TOKEN_FILE_VARIABLE).filter(|path| !path.is_empty()) else {
        return Ok(None);
    };
    let text = read_private(Path::new(&path))?;
    parse(path, &text)
}

/// Where a user's access file lies: `muster/access.json` in `XDG_CONFIG_HOME`, else in `.config` of the home.
pub fn home_file(environment: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let set = |name: &str| environment(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let config = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")))?;
    Some(config.join("muster/access.json"))
}

#[cfg(test)]
mod tests;
