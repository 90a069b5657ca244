//! How clients and workers reach a coordinator: over TCP or TLS, with its certificate compared, and with a token
//! on every call.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::{io, iter};

use hyper_util::rt::TokioIo;
use muster_common::access::{Access, Fingerprint, OWN_NAME};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::client::{VerifierBuilderError, WebPkiServerVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{
    self, CertificateError, ClientConfig, DigitallySignedStruct, InvalidMessage, OtherError,
    RootCertStore, SignatureScheme,
};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint, Uri};

/// A connection on which every call carries the token.
pub type Line = InterceptedService<Channel, Bearer>;

/// Puts the token on a call.
#[derive(Clone, Default)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Bearer(secret)" } else { "Bearer(none)" })
    }
}

impl Interceptor for Bearer {
    fn call(
        &mut self,
        mut request: tonic::Request<()>,
    ) -> Result<tonic::Request<()>, tonic::Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

impl Bearer {
    fn of(access: &Access) -> Self {
        let value = access.token.as_ref().and_then(|token| {
            let mut value = MetadataValue::try_from(format!("Bearer {}", token.reveal())).ok()?;
            // Never in a table of compression, never in `Debug`.
            value.set_sensitive(true);
            Some(value)
        });
        Self(value)
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Not a URL.
    #[error("`{url}` is no URL of a coordinator; write https://HOST:PORT, or http://HOST:PORT")]
    Url {
        /// As given.
        url: String,
    },
    /// Nobody is there.
    #[error("no coordinator answers at {url}")]
    Silent {
        /// Where.
        url: String,
        /// The cause.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The port is open and speaks something else.
    #[error("{url} does not speak TLS; if this is the right port, write http://")]
    NotTls {
        /// Where.
        url: String,
    },
    /// Somebody else answers, or the coordinator has made a new authority.
    #[error(
        "{url} shows a certificate that is not the expected one: expected {expected}, shown {shown}; \
         take a fingerprint only from whoever runs the coordinator, whose `muster serve` prints it"
    )]
    OtherCertificate {
        /// Where.
        url: String,
        /// The pinned one.
        expected: Fingerprint,
        /// What its certificates have.
        shown: String,
    },
    /// Nothing is pinned and nobody vouches for it.
    #[error(
        "nobody whom this machine trusts vouches for the certificate of {url} ({reason}); name its \
         fingerprint, which `muster serve` prints, with --fingerprint or MUSTER_FINGERPRINT, or use an access file"
    )]
    Untrusted {
        /// Where.
        url: String,
        /// What the check said.
        reason: String,
    },
    /// It is the right authority, and its certificate is for another host, or has expired.
    #[error("the certificate of {url} is not good: {reason}")]
    Certificate {
        /// Where.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// TLS failed otherwise.
    #[error("no TLS connection to {url}: {reason}")]
    Tls {
        /// Where.
        url: String,
        /// What rustls said.
        reason: String,
    },
}

impl DialError {
    /// Whether it is not the network's fault: asking again would give the same.
    pub fn is_refusal(&self) -> bool {
        !matches!(self, Self::Silent { .. } | Self::Tls { .. })
    }
}

/// Connects. `prepare` sets deadlines and the like.
pub async fn dial(
    access: &Access,
    prepare: impl FnOnce(Endpoint) -> Endpoint,
) -> Result<Line, DialError> {
    let url = &access.coordinator;
    let endpoint = Endpoint::from_shared(url.clone())
        .map_err(|_| DialError::Url { url: url.clone() })
        .map(prepare)?;
    let connected = if access.is_encrypted() {
        let connector = Arc::new(Connector::new(access)?);
        let connect = tower::service_fn(move |uri: Uri| {
            let connector = Arc::clone(&connector);
            async move { connector.connect(uri).await }
        });
        endpoint.connect_with_connector(connect).await
    } else {
        endpoint.connect().await
    };
    let channel = connected.map_err(|error| explained(url, error))?;
    Ok(InterceptedService::new(channel, Bearer::of(access)))
}

/// What the connector said, wherever it is wrapped.
fn explained(url: &str, error: tonic::transport::Error) -> DialError {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(Failed(said)) = inner.downcast_ref::<Failed>()
            && let Some(said) = said.lock().ok().and_then(|mut said| said.take())
        {
            return said;
        }
        cause = inner.source();
    }
    DialError::Silent { url: url.to_owned(), source: error.into() }
}

/// Carries a [`DialError`] through the transport's errors, which give out references only.
#[derive(Debug)]
struct Failed(std::sync::Mutex<Option<DialError>>);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.lock().as_deref() {
            Ok(Some(error)) => fmt::Display::fmt(error, f),
            _ => f.write_str("no TLS connection"),
        }
    }
}

impl StdError for Failed {}

/// Makes TLS connections to one coordinator.
struct Connector {
    url: String,
    expected: Option<Fingerprint>,
    tls: TlsConnector,
}

impl Connector {
    fn new(access: &Access) -> Result<Self, DialError> {
        let url = access.coordinator.clone();
        let failed = |reason: String| DialError::Tls { url: url.clone(), reason };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = if let Some(expected) = access.fingerprint {
            Arc::new(Pinned { expected, provider: Arc::clone(&provider) })
        } else {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            chain_verifier(roots, &provider).map_err(|_| DialError::Untrusted {
                url: url.clone(),
                reason: "it trusts nobody: no certificates of authorities are installed".to_owned(),
            })?
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| failed(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { expected: access.fingerprint, tls: TlsConnector::from(Arc::new(config)), url })
    }

    async fn connect(
        &self,
        uri: Uri,
    ) -> Result<TokioIo<TlsStream<TcpStream>>, Box<dyn StdError + Send + Sync>> {
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(443);
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(host.to_owned())?;
        let stream = self
            .tls
            .connect(name, stream)
            .await
            .map_err(|error| Failed(std::sync::Mutex::new(Some(self.explained(&error)))))?;
        Ok(TokioIo::new(stream))
    }

    fn explained(&self, error: &io::Error) -> DialError {
        let url = self.url.clone();
        let rustls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match rustls {
            Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
                DialError::NotTls { url }
            }
            Some(rustls::Error::InvalidCertificate(why)) => self.certificate_refused(why),
            Some(other) => DialError::Tls { url, reason: other.to_string() },
            // The other side hung up in the middle of the first words.
            None if error.kind() == io::ErrorKind::UnexpectedEof => DialError::NotTls { url },
            None => DialError::Tls { url, reason: error.to_string() },
        }
    }

    fn certificate_refused(&self, why: &CertificateError) -> DialError {
        let url = self.url.clone();
        let shown = match why {
            CertificateError::Other(OtherError(other)) => other.downcast_ref::<Mismatch>(),
            _ => None,
        };
        match (self.expected, shown) {
            (Some(expected), Some(Mismatch(shown))) => {
                DialError::OtherCertificate { url, expected, shown: shown.clone() }
            }
            (Some(_), None) => DialError::Certificate { url, reason: why.to_string() },
            (None, _) => DialError::Untrusted { url, reason: why.to_string() },
        }
    }
}

/// Fingerprints that were shown in place of the expected one.
#[derive(Debug)]
struct Mismatch(String);

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "another certificate is shown: {}", self.0)
    }
}

impl StdError for Mismatch {}

fn chain_verifier(
    roots: RootCertStore,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, VerifierBuilderError> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build()
}

/// Accepts one certificate, and those that one authority has signed for the host or for a coordinator as such.
#[derive(Debug)]
struct Pinned {
    expected: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    fn chained(
        &self,
        authority: &CertificateDer<'_>,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier = chain_verifier(roots, &self.provider)
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let verify = |name| verifier.verify_server_cert(end_entity, intermediates, name, &[], now);
        match ServerName::try_from(OWN_NAME) {
            // What is wrong with the name that was asked for says more.
            Ok(own) => verify(name).or_else(|first| verify(&own).map_err(|_| first)),
            Err(_) => verify(name),
        }
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let is_pinned = |shown: &CertificateDer<'_>| Fingerprint::of(shown) == self.expected;
        if is_pinned(end_entity) {
            // That the other side has its key is asked for below. Names and dates say nothing more.
            return Ok(ServerCertVerified::assertion());
        }
        if let Some(authority) = intermediates.iter().find(|shown| is_pinned(shown)) {
            return self.chained(authority, end_entity, intermediates, server_name, now);
        }
        let all = iter::once(end_entity).chain(intermediates);
        let shown: Vec<String> = all.map(|shown| Fingerprint::of(shown).to_string()).collect();
        let mismatch = Arc::new(Mismatch(shown.join(" and ")));
        Err(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(mismatch))))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
