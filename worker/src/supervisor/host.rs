//! The address of this host for the other ranks of a gang.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};

use tonic::transport::Uri;

/// The local address that faces the coordinator: workers on other hosts come from the same network.
/// With a coordinator on this host it is the loopback address, which is right when all are here.
/// `None` when the name of the coordinator has no address now.
pub(super) fn address_towards(coordinator: &str) -> Option<IpAddr> {
    let uri: Uri = coordinator.parse().ok()?;
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(80);
    let mut addresses = (host, port).to_socket_addrs().ok()?;
    addresses.find_map(|peer| {
        let any: SocketAddr =
            if peer.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
        // Nothing is sent: connecting a datagram socket only chooses the way.
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(peer).ok()?;
        Some(socket.local_addr().ok()?.ip())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coordinator_on_this_host_is_faced_from_loopback() {
        for url in ["http://127.0.0.1:9", "https://127.0.0.1:9/", "http://127.0.0.1"] {
            assert_eq!(address_towards(url), Some(IpAddr::from([127, 0, 0, 1])), "{url}");
        }
        assert_eq!(address_towards("nothing at all"), None);
    }
}
