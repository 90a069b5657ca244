//! The port: connections are taken, encrypted if that is asked for, and handed to the service with a note of what
//! they are.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

/// Time that a connection has to become an encrypted one.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections that may be on the way to it.
const HANDSHAKES_MAX: usize = 512;
/// Connections that wait for the service to take them.
const TAKEN_MAX: usize = 16;
/// Pause after the system has refused a connection: it has too many files open.
const PAUSE: Duration = Duration::from_millis(50);
/// First byte of a TLS connection.
const TLS_HANDSHAKE: u8 = 22;

/// What is known of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    /// Whose; unknown if it closed at once.
    pub(super) address: Option<SocketAddr>,
    /// Whether others can read along.
    pub(super) is_encrypted: bool,
}

/// A connection.
pub(super) enum Connection {
    Clear(TcpStream),
    Encrypted(Box<TlsStream<TcpStream>>),
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        let (stream, is_encrypted) = match self {
            Self::Clear(stream) => (stream, false),
            Self::Encrypted(stream) => (stream.get_ref().0, true),
        };
        Peer { address: stream.peer_addr().ok(), is_encrypted }
    }
}

/// Connections as they come in, until nobody takes them any more. With `tls`, one that speaks in clear text is
/// handed over too, for the service to say that it should not.
pub(super) fn connections(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
) -> ReceiverStream<io::Result<Connection>> {
    let (sender, receiver) = mpsc::channel(TAKEN_MAX);
    tokio::spawn(accept(listener, tls, sender));
    ReceiverStream::new(receiver)
}

async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    sender: mpsc::Sender<io::Result<Connection>>,
) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let Ok(place) = Arc::clone(&handshakes).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = sender.closed() => return,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be taken");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        // Without it an answer waits 40 ms for the client's acknowledgement of the one before.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection closed at once");
            continue;
        }
        let Some(tls) = tls.clone() else {
            if sender.send(Ok(Connection::Clear(stream))).await.is_err() {
                return;
            }
            continue;
        };
        let sender = sender.clone();
        tokio::spawn(async move {
            match timeout(HANDSHAKE, begin(stream, &tls)).await {
                Ok(Ok(connection)) => {
                    let _stopping = sender.send(Ok(connection)).await;
                }
                // A probe that only connects.
                Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    tracing::debug!(%address, "a connection closed at once");
                }
                Ok(Err(error)) => tracing::info!(%address, %error, "no encrypted connection"),
                Err(_) => tracing::info!(%address, "an encrypted connection took too long"),
            }
            drop(place);
        });
    }
}

async fn begin(stream: TcpStream, tls: &TlsAcceptor) -> io::Result<Connection> {
    let mut first = [0];
    let count = stream.peek(&mut first).await?;
    if count == 1 && first != [TLS_HANDSHAKE] {
        return Ok(Connection::Clear(stream));
    }
    Ok(Connection::Encrypted(Box::new(tls.accept(stream).await?)))
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Encrypted(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_write(context, buffer),
            Self::Encrypted(stream) => Pin::new(stream).poll_write(context, buffer),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_flush(context),
            Self::Encrypted(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Encrypted(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
