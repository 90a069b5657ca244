//! The certificate that a coordinator shows: one of its own, signed by an authority that it makes once and keeps, or
//! the user's. Either is looked at again while the coordinator runs: the own one is renewed, the user's read again
//! when its file is another one.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use muster_common::access::{AccessError, Fingerprint, OWN_NAME, read_private, write_private};
use muster_common::time::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::ServerCertVerifier as _;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};
use tokio_util::sync::CancellationToken;

/// Directory of the authority in the state directory.
pub(super) const DIRECTORY: &str = "tls";
const AUTHORITY: &str = "authority.pem";
const AUTHORITY_KEY: &str = "authority.key";
const CERTIFICATE: &str = "certificate.pem";
const CERTIFICATE_KEY: &str = "certificate.key";
/// How long a certificate is good for.
const LIFETIME: Duration = Duration::from_secs(90 * 86_400);
/// It is renewed when less is left.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 86_400);
/// Clocks of others may be behind by so much.
const CLOCK_SKEW: Duration = Duration::from_secs(86_400);
/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(60);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A private file.
    #[error(transparent)]
    File(#[from] AccessError),
    /// A file of the user.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Certificate and key cannot be used.
    #[error("{} and {} are no certificate with its key: {reason}", certificate.display(), key.display())]
    Unusable {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The kept authority is damaged. It is not replaced: everybody has its fingerprint.
    #[error(
        "the authority in {} is damaged: {reason}; bring it back from a copy, or delete the directory and give \
         everybody the new fingerprint", directory.display()
    )]
    Authority {
        /// Where.
        directory: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Nothing can be signed.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// Where the certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Made here, and kept in the state directory.
    Own {
        /// The state directory.
        state: PathBuf,
        /// Host names and addresses that it is for, besides those it is always for.
        names: Vec<String>,
    },
    /// The user's, PEM. The key may be in the same file.
    Files {
        /// The certificate and those that vouch for it.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
    },
}

/// When a certificate may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Not before.
    pub since: Timestamp,
    /// Not after.
    pub until: Timestamp,
}

impl Source {
    /// Looks at the certificate that is there, and makes and changes nothing. `None`: the next start makes one.
    pub fn validity(&self) -> Result<Option<Validity>, CertificateError> {
        let [certificate, key] = match self {
            Self::Files { certificate, key } => [certificate.clone(), key.clone()],
            Self::Own { state, .. } => {
                let directory = state.join(DIRECTORY);
                // Without one it would be made.
                if directory.join(AUTHORITY).exists() {
                    Authority::open(&directory)?;
                }
                [CERTIFICATE, CERTIFICATE_KEY].map(|name| directory.join(name))
            }
        };
        let known = read_pair(&certificate, &key).and_then(|pair| {
            validity_of(&pair).map_err(|reason| CertificateError::Unusable {
                certificate,
                key,
                reason,
            })
        });
        match (self, known) {
            (_, Ok(validity)) => Ok(Some(validity)),
            // Whatever is wrong with an own one, it is made anew.
            (Self::Own { .. }, Err(_)) => Ok(None),
            (Self::Files { .. }, Err(error)) => Err(error),
        }
    }
}

fn validity_of(pair: &CertifiedKey) -> Result<Validity, String> {
    let first = pair.cert.first().map_or(&[][..], |certificate| certificate.as_ref());
    let (_, parsed) =
        x509_parser::parse_x509_certificate(first).map_err(|error| error.to_string())?;
    let at = |seconds: i64| Timestamp(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000));
    let validity = parsed.validity();
    let [since, until] =
        [&validity.not_before, &validity.not_after].map(|time| at(time.timestamp()));
    Ok(Validity { since, until })
}

/// What is shown to those who connect.
#[derive(Debug)]
struct Shown {
    current: RwLock<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// A certificate in use. Clones are the same.
#[derive(Debug, Clone)]
pub struct Certificates {
    source: Source,
    shown: Arc<Shown>,
}

impl Certificates {
    /// Reads or makes it.
    pub fn open(source: Source, now: SystemTime) -> Result<Self, CertificateError> {
        let current = RwLock::new(Arc::new(load(&source, now)?));
        Ok(Self { source, shown: Arc::new(Shown { current }) })
    }

    fn current(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.shown.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What clients and workers pin: the authority, which stays, or the user's certificate.
    pub fn fingerprint(&self) -> Fingerprint {
        let current = self.current();
        let pinned = match &self.source {
            Source::Own { .. } => current.cert.last(),
            Source::Files { .. } => current.cert.first(),
        };
        Fingerprint::of(pinned.map_or(&[], |certificate| certificate.as_ref()))
    }

    /// Of the certificate itself.
    pub fn own_fingerprint(&self) -> Fingerprint {
        let current = self.current();
        Fingerprint::of(current.cert.first().map_or(&[], |certificate| certificate.as_ref()))
    }

    /// How connections are taken: TLS 1.3, gRPC or HTTP/1.1.
    pub fn config(&self) -> Result<ServerConfig, CertificateError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&self.shown) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    /// Takes what is there now, or a new one if that is due. `true`: it is another one than before.
    pub fn renew(&self, now: SystemTime) -> Result<bool, CertificateError> {
        let fresh = load(&self.source, now)?;
        if fresh.cert == self.current().cert {
            return Ok(false);
        }
        *self.shown.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
        Ok(true)
    }

    /// Renews until `shutdown`.
    pub async fn keep(self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = shutdown.cancelled() => return,
            }
            match self.renew(SystemTime::now()) {
                Ok(true) => {
                    let certificate = self.own_fingerprint();
                    tracing::info!(%certificate, "another certificate is in use");
                }
                Ok(false) => {}
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "the certificate is not renewed");
                }
            }
        }
    }
}

fn load(source: &Source, now: SystemTime) -> Result<CertifiedKey, CertificateError> {
    match source {
        Source::Own { state, names } => load_own(&state.join(DIRECTORY), names, now),
        Source::Files { certificate, key } => read_pair(certificate, key),
    }
}

fn read_pair(certificate: &Path, key: &Path) -> Result<CertifiedKey, CertificateError> {
    let source = |source| CertificateError::Read { path: certificate.to_owned(), source };
    let chain = fs::read_to_string(certificate).map_err(source)?;
    // A key that others may read is no secret.
    certified(&chain, &read_private(key)?).map_err(|reason| CertificateError::Unusable {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        reason,
    })
}

fn certified(chain: &str, key: &str) -> Result<CertifiedKey, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
    let chain = chain.map_err(|error| error.to_string())?;
    if chain.is_empty() {
        return Err("there is no certificate".to_owned());
    }
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|_| "there is no private key in PEM".to_owned())?;
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
        .map_err(|error| error.to_string())
}

fn load_own(
    directory: &Path,
    names: &[String],
    now: SystemTime,
) -> Result<CertifiedKey, CertificateError> {
    let authority = Authority::open(directory)?;
    let (chain, key) = (directory.join(CERTIFICATE), directory.join(CERTIFICATE_KEY));
    let mut wanted = vec![OWN_NAME.to_owned(), "localhost".to_owned()];
    wanted.extend(["127.0.0.1", "::1"].map(ToOwned::to_owned));
    wanted.extend(names.iter().filter(|name| ServerName::try_from(name.as_str()).is_ok()).cloned());
    wanted.sort();
    wanted.dedup();
    if let (Ok(chain), Ok(key)) = (read_private(&chain), read_private(&key))
        && let Ok(kept) = certified(&chain, &key)
        && authority.vouches_for(&kept, &wanted, now + RENEW_BEFORE)
    {
        return Ok(kept);
    }
    let (new_chain, new_key) = authority.sign(&wanted, now)?;
    // Key and certificate that do not belong together, after a crash in between, are made anew.
    write_private(&key, new_key.as_bytes())?;
    write_private(&chain, new_chain.as_bytes())?;
    certified(&new_chain, &new_key).map_err(|reason| CertificateError::Unusable {
        certificate: chain,
        key,
        reason,
    })
}

/// Signs the coordinator's certificates. Its fingerprint is what others pin, so it does not expire.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    certificate: CertificateDer<'static>,
}

impl Authority {
    fn parameters() -> CertificateParams {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, "Muster coordinator authority");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        parameters.not_before = date_time_ymd(2020, 1, 1);
        // RFC 5280: a certificate that has no end. Its last second; this is its last day.
        parameters.not_after = date_time_ymd(9999, 12, 31);
        parameters
    }

    fn open(directory: &Path) -> Result<Self, CertificateError> {
        let (path, key_path) = (directory.join(AUTHORITY), directory.join(AUTHORITY_KEY));
        let damaged = |reason: String| CertificateError::Authority {
            directory: directory.to_owned(),
            reason,
        };
        if !path.exists() {
            let key = KeyPair::generate()?;
            let certificate = Self::parameters().self_signed(&key)?;
            // The certificate last: with it the authority exists.
            write_private(&key_path, key.serialize_pem().as_bytes())?;
            write_private(&path, certificate.pem().as_bytes())?;
        }
        let pem = read_private(&path)?;
        let key = read_private(&key_path)?;
        certified(&pem, &key).map_err(damaged)?;
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| damaged(error.to_string()))?;
        let issuer = Issuer::new(Self::parameters(), KeyPair::from_pem(&key)?);
        Ok(Self { issuer, pem, certificate })
    }

    /// A certificate and the authority's, and its key; PEM.
    fn sign(
        &self,
        names: &[String],
        now: SystemTime,
    ) -> Result<(String, String), CertificateError> {
        let mut parameters = CertificateParams::new(names)?;
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, "Muster coordinator");
        parameters.use_authority_key_identifier_extension = true;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let epoch = date_time_ymd(1970, 1, 1);
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        parameters.not_before = epoch + since.saturating_sub(CLOCK_SKEW);
        parameters.not_after = epoch + since + LIFETIME;
        let key = KeyPair::generate()?;
        let certificate = parameters.signed_by(&key, &self.issuer)?;
        Ok((certificate.pem() + &self.pem, key.serialize_pem()))
    }

    /// Whether a certificate is signed by it, for all of these names, and good at that time.
    fn vouches_for(&self, kept: &CertifiedKey, names: &[String], at: SystemTime) -> bool {
        let Some(leaf) = kept.cert.first() else { return false };
        let mut roots = RootCertStore::empty();
        if roots.add(self.certificate.clone()).is_err() {
            return false;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        let Ok(verifier) = verifier.build() else { return false };
        let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let at = UnixTime::since_unix_epoch(since);
        names.iter().all(|name| {
            ServerName::try_from(name.as_str())
                .is_ok_and(|name| verifier.verify_server_cert(leaf, &[], &name, &[], at).is_ok())
        })
    }
}

/// Names by which this machine is known, and an address that it listens on.
pub fn names_of(listen: IpAddr, advertised: Option<&str>) -> Vec<String> {
    let mut names: Vec<String> = host_name().into_iter().collect();
    if !listen.is_unspecified() {
        names.push(listen.to_string());
    }
    let host = advertised.and_then(|url| url.parse::<axum::http::Uri>().ok());
    let host = host.and_then(|url| url.host().map(ToOwned::to_owned));
    names.extend(host.map(|host| host.trim_matches(['[', ']']).to_owned()));
    names
}

/// This machine's name.
pub(crate) fn host_name() -> Option<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}
