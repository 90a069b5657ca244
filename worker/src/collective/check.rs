//! Whether this process can reduce what lies on its device: a group of one rank.

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::time::Duration;

use tch::{Device, Kind, Tensor};

use super::gpu;
use super::rendezvous::RendezvousError;
use crate::ffi::{Place, ProcessGroup, Reduction, Store};

/// For each of the steps.
const DEADLINE: Duration = Duration::from_secs(60);
/// 4 MiB of float32: as large as a bucket of gradients.
const LENGTH: i64 = 1 << 20;

/// Joins a group of one rank and sums a tensor on `device`; what it went through, for people. Fails with
/// the reason, also when the sum is wrong.
pub fn check(device: Device) -> Result<&'static str, RendezvousError> {
    let gpu = match device {
        Device::Cuda(number) => Some((number, gpu::collectives()?)),
        _ => None,
    };
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let refused = |source| RendezvousError::Listen { address, source };
    let listener = TcpListener::bind((address, 0)).map_err(refused)?;
    let store = Store::serve(listener, DEADLINE)?;
    let place = Place {
        name: "check",
        rank: 0,
        world_size: 1,
        interface: None,
        address,
        gpu,
        deadline: DEADLINE,
    };
    let group = ProcessGroup::open(store, &place)?;
    let tensor =
        Tensor::f_arange(LENGTH, (Kind::Float, device)).map_err(crate::ffi::ShimError::from)?;
    let wanted = tensor.sum(Kind::Double).double_value(&[]);
    group.all_reduce(&tensor, Reduction::Sum, DEADLINE)?;
    let found = tensor.sum(Kind::Double).double_value(&[]);
    group.close();
    if (found - wanted).abs() > wanted * 1e-6 {
        let reason = format!("a sum over one rank is {found} instead of {wanted}");
        return Err(RendezvousError::Refused { reason });
    }
    Ok(gpu.map_or("gloo", |(_, collectives)| gpu::name(collectives)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_rank_on_the_cpu_is_right() {
        assert_eq!(check(Device::Cpu).unwrap(), "gloo");
    }
}
