//! The service: gRPC in and out, what operators ask over plain HTTP, and the dashboard, on the same port. Wire types
//! stop here.

mod claim;
mod control;
mod curves;
mod gate;
mod operate;
mod port;
mod view;
mod worker;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use muster_proto::v1::control_service_server::ControlServiceServer;
use muster_proto::v1::worker_service_server::WorkerServiceServer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::access::Guard;
use crate::access::certificates::{CertificateError, Certificates};
use crate::capacity::Capacity;
use crate::dashboard;
use crate::driver::Driver;
use crate::live::Live;
use crate::logs::Logs;

pub use view::{experiment_from_wire, experiment_to_wire};

/// What the services need.
#[derive(Debug, Clone)]
pub struct Service {
    /// The engine.
    pub driver: Driver,
    /// Soft state.
    pub live: Live,
    /// Where log lines go.
    pub logs: Logs,
    /// URL of the object store for new experiments.
    pub store: String,
    /// How long a worker may be silent.
    pub lease: Duration,
    /// How large a gang may be.
    pub capacity: Capacity,
    /// Stops open streams.
    pub shutdown: CancellationToken,
}

/// Why the service did not start or broke.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The transport failed.
    #[error("the gRPC transport failed")]
    Transport(#[from] tonic::transport::Error),
    /// Connections cannot be encrypted.
    #[error(transparent)]
    Certificates(#[from] CertificateError),
    /// A file that tells clients the address could not be written.
    #[error("cannot write {}", path.display())]
    Address {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// Binds the port.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })
}

/// Serves until `service.shutdown`, those whom `guard` lets in.
pub async fn serve(
    listener: TcpListener,
    service: Service,
    guard: &Guard,
) -> Result<(), ServeError> {
    let shutdown = service.shutdown.clone();
    let config = guard.certificates().map(Certificates::config).transpose()?;
    let tls = config.map(|config| TlsAcceptor::from(Arc::new(config)));
    let gate = gate::Gate::new(guard, service.driver.metrics().clone());
    let pages = operate::router(service.clone()).merge(dashboard::router(service.clone(), guard));
    let routes = tonic::service::Routes::from(pages)
        .add_service(ControlServiceServer::new(control::Control::new(service.clone())))
        .add_service(WorkerServiceServer::new(worker::Workers::new(
            service,
            guard.checker().cloned(),
        )));
    let checked = axum::middleware::from_fn_with_state(gate, gate::check);
    let routes = tonic::service::Routes::from(routes.into_axum_router().layer(checked));
    tonic::transport::Server::builder()
        // Scrapers and probes speak HTTP/1.1, gRPC is HTTP/2; the first bytes of a connection tell which.
        .accept_http1(true)
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .add_routes(routes)
        .serve_with_incoming_shutdown(port::connections(listener, tls), shutdown.cancelled_owned())
        .await?;
    Ok(())
}
