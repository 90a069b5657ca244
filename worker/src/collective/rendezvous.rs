//! How the ranks of a run find each other. Rank 0 opens a port and says which; the others connect.
//! When each has its model, they compare what they train and join the process group.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::ops::ControlFlow;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use muster_common::id::Generation;
use muster_common::run::{FailureClass, Gang};
use tch::Device;

use super::gpu::{self, GpuCollectivesError};
use super::group::Group;
use super::identity::Identity;
use super::ledger::Ledger;
use super::message::{Message, RankFailure};
use super::watch::{self, OnFailure, Peer, Shared, State};
use crate::ffi::{Place, ProcessGroup, ShimError, Store};

/// Longest wait for the slowest rank to load its data and its model.
const READY_DEADLINE: Duration = Duration::from_secs(15 * 60);
/// Longest wait for rank 0 to answer a connection; its port was open before its address was known.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// Shortest time for joining, whatever the deadline of a step is.
const JOIN_DEADLINE_MIN: Duration = Duration::from_secs(30);
/// A rank that left before it was ready was told to; the same is heard here within this time.
const WORD_DEADLINE: Duration = Duration::from_secs(10);
/// Between two looks for a directive.
const LOOK: Duration = Duration::from_millis(50);

/// Address of this host that other ranks can reach; the supervisor sets it.
pub(crate) const ADDRESS_VARIABLE: &str = "MUSTER_HOST_ADDRESS";
/// Name of the network interface that gradients go through; Gloo's own variable.
const INTERFACE_VARIABLE: &str = "GLOO_SOCKET_IFNAME";

/// Why ranks did not come together.
#[derive(Debug, thiserror::Error)]
pub enum RendezvousError {
    /// The variable holds no address.
    #[error("{ADDRESS_VARIABLE} is `{text}`, not an IP address")]
    Address {
        /// What it holds.
        text: String,
    },
    /// Rank 0 cannot listen.
    #[error("rank 0 cannot listen on {address}; {ADDRESS_VARIABLE} names another address")]
    Listen {
        /// Where.
        address: IpAddr,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Rank 0 is not there.
    #[error("rank 0 cannot be reached at {address}")]
    Connect {
        /// Where.
        address: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The ranks do not train the same, or are not of the same run.
    #[error("{reason}")]
    Refused {
        /// Why.
        reason: String,
    },
    /// Another rank failed meanwhile.
    #[error("rank {}: {}", .0.rank, .0.message)]
    Peer(RankFailure),
    /// Not all came.
    #[error("the ranks were not ready within {} s; missing: {missing}", READY_DEADLINE.as_secs())]
    Overdue {
        /// Who is missing.
        missing: String,
    },
    /// What gradients on GPUs are to go through is not there.
    #[error(transparent)]
    Gpu(#[from] GpuCollectivesError),
    /// The process group did not come about.
    #[error(transparent)]
    Shim(#[from] ShimError),
}

/// Who one is.
#[derive(Debug, Clone)]
pub struct Membership {
    /// Names the run.
    pub generation: Generation,
    /// The place in it.
    pub gang: Gang,
    /// Longest time without a sign of life of another rank, or without its part of a step.
    pub step_deadline: Duration,
}

/// Ranks that come together, and afterwards watch each other.
pub struct Rendezvous {
    membership: Membership,
    /// Own address, as the others see it.
    host: IpAddr,
    /// Of rank 0: where it waits. Of the others: where they found it.
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Rendezvous {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rendezvous").field("membership", &self.membership).finish_non_exhaustive()
    }
}

impl Rendezvous {
    /// Opens the port as rank 0, or connects to it. `on_failure` is called on another thread, once,
    /// when another rank is known to have failed. `None`: `go_on`, asked while rank 0 cannot be
    /// reached, said to stop.
    pub fn open(
        membership: Membership,
        on_failure: impl Fn(&RankFailure) + Send + Sync + 'static,
        go_on: impl FnMut() -> ControlFlow<()>,
    ) -> Result<Option<Self>, RendezvousError> {
        let shared = shared(&membership, Box::new(on_failure));
        let Some(address) = &membership.gang.rendezvous else {
            let host = host_address()?;
            let refused = |source| RendezvousError::Listen { address: host, source };
            let listener = TcpListener::bind((host, 0)).map_err(refused)?;
            let address = listener.local_addr().map_err(refused)?;
            watch::host(&shared, listener).map_err(refused)?;
            return Ok(Some(Self { membership, host, address, shared }));
        };
        let refused = |source| RendezvousError::Connect { address: address.clone(), source };
        let reached = reach(&shared, address, go_on).map_err(refused)?;
        let Some((peer, host)) = reached else { return Ok(None) };
        Ok(Some(Self { membership, host: host.ip(), address: peer, shared }))
    }

    /// Where rank 0 waits.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until every rank has its model, compares what they train, and joins. `None`: `go_on`,
    /// asked now and then, said to stop.
    pub fn join(
        &self,
        mut identity: Identity,
        device: Device,
        mut go_on: impl FnMut() -> ControlFlow<()>,
    ) -> Result<Option<Group>, RendezvousError> {
        let gpu = match device {
            Device::Cuda(number) => Some((number, gpu::collectives()?)),
            _ => None,
        };
        if let Some((_, collectives)) = gpu {
            identity.fact("gradients through", &gpu::name(collectives));
        }
        let Membership { gang, step_deadline, .. } = &self.membership;
        let deadline = (*step_deadline).max(JOIN_DEADLINE_MIN);
        let store = if gang.rank == 0 {
            if !self.wait(&mut go_on, |state| self.all_ready(state))? {
                return Ok(None);
            }
            self.compare(&identity)?;
            let refused = |source| RendezvousError::Listen { address: self.host, source };
            let listener = TcpListener::bind((self.host, 0)).map_err(refused)?;
            let store_port = listener.local_addr().map_err(refused)?.port();
            let store = Store::serve(listener, deadline)?;
            for peer in self.shared.state().peers.values_mut() {
                peer.tell(&Message::Go { store_port });
            }
            store
        } else {
            // Before it is ready nobody counts on it.
            if go_on().is_break() {
                return Ok(None);
            }
            if let Some(peer) = self.shared.state().peers.get_mut(&0) {
                peer.tell(&Message::Ready { identity });
            }
            if !self.wait(&mut go_on, |state| state.go.is_some())? {
                return Ok(None);
            }
            let port = self.shared.state().go.unwrap_or_default();
            Store::connect(self.address.ip(), port, deadline)?
        };
        let interface = std::env::var(INTERFACE_VARIABLE).ok().filter(|name| !name.is_empty());
        let place = Place {
            name: &format!("run-{}", self.membership.generation),
            rank: gang.rank,
            world_size: gang.world_size,
            interface: interface.as_deref(),
            address: self.host,
            gpu,
            deadline: *step_deadline,
        };
        let processes = ProcessGroup::open(store, &place)?;
        Ok(Some(Group::new(processes, gang.rank, gang.world_size, *step_deadline)))
    }

    /// How the ranks tell each other what of a checkpoint is written.
    pub fn ledger(&self) -> Ledger {
        Ledger::new(Arc::clone(&self.shared))
    }

    /// Says that this rank ends in good order, and watches no more.
    pub fn leave(self) {
        self.end(&Message::Leaving);
    }

    /// Tells the others that this rank has failed, and watches no more.
    pub fn fail(self, class: FailureClass, message: String, permanent: bool) {
        let rank = self.membership.gang.rank;
        self.end(&Message::Failed(RankFailure { rank, class, message, permanent }));
    }

    fn end(&self, message: &Message) {
        let mut state = self.shared.state();
        state.is_over = true;
        for peer in state.peers.values_mut().filter(|peer| !peer.has_left) {
            peer.tell(message);
        }
    }

    fn all_ready(&self, state: &State) -> bool {
        let is_ready = |peer: &&Peer| peer.identity.is_some() && !peer.has_left;
        let ready = state.peers.values().filter(is_ready).count();
        ready + 1 == self.membership.gang.world_size as usize
    }

    /// Whether this rank, which was told to leave, can do so alone. Rank 0 says when all join. The others ask it,
    /// since it may just have said so, and who does not come then is waited for; after their first step all leave
    /// together. `asked_at`: when it was asked.
    fn may_leave(&self, state: &mut State, asked_at: &mut Option<Instant>) -> bool {
        if self.membership.gang.rank == 0 {
            return true;
        }
        if state.go.is_some() {
            return false;
        }
        let Some(first) = state.peers.get_mut(&0).filter(|first| !first.has_left) else {
            return true;
        };
        if state.is_released || state.failure.is_some() || state.refused.is_some() {
            return true;
        }
        let asked_at = asked_at.get_or_insert_with(|| {
            first.tell(&Message::Told);
            Instant::now()
        });
        asked_at.elapsed() > WORD_DEADLINE
    }

    /// Waits until `done`. `false`: told to stop.
    fn wait(
        &self,
        go_on: &mut impl FnMut() -> ControlFlow<()>,
        done: impl Fn(&State) -> bool,
    ) -> Result<bool, RendezvousError> {
        let begun = Instant::now();
        let (mut left_at, mut asked_at) = (None::<Instant>, None::<Instant>);
        loop {
            let is_told = go_on().is_break();
            let mut state = self.shared.state();
            if is_told && self.may_leave(&mut state, &mut asked_at) {
                return Ok(false);
            }
            if let Some(failure) = &state.failure {
                return Err(RendezvousError::Peer(failure.clone()));
            }
            if let Some(reason) = &state.refused {
                return Err(RendezvousError::Refused { reason: reason.clone() });
            }
            if done(&state) {
                state.is_decided = true;
                return Ok(true);
            }
            if let Some((rank, peer)) = state.peers.iter().find(|(_, peer)| peer.has_left)
                && left_at.get_or_insert_with(Instant::now).elapsed() > WORD_DEADLINE
            {
                return Err(RendezvousError::Peer(RankFailure {
                    rank: *rank,
                    // Who leaves in good order was told to. Had it failed, its own end would say so.
                    class: if peer.is_cut { FailureClass::Lost } else { FailureClass::Preempted },
                    message: "it left before it was ready".to_owned(),
                    permanent: false,
                }));
            }
            if begun.elapsed() > READY_DEADLINE {
                return Err(RendezvousError::Overdue { missing: self.missing(&state) });
            }
            let waited = self.shared.changed.wait_timeout(state, LOOK);
            drop(waited);
        }
    }

    fn missing(&self, state: &State) -> String {
        if self.membership.gang.rank != 0 {
            return "word of rank 0".to_owned();
        }
        let is_ready =
            |rank: &u32| state.peers.get(rank).is_some_and(|peer| peer.identity.is_some());
        let missing: BTreeSet<u32> =
            (1..self.membership.gang.world_size).filter(|rank| !is_ready(rank)).collect();
        let names: Vec<String> = missing.iter().map(|rank| format!("rank {rank}")).collect();
        names.join(", ")
    }

    /// Refuses everybody when one trains something else than rank 0.
    fn compare(&self, own: &Identity) -> Result<(), RendezvousError> {
        let mut state = self.shared.state();
        let difference = state.peers.iter().find_map(|(rank, peer)| {
            peer.identity.as_ref().and_then(|identity| own.difference(identity, *rank))
        });
        let Some(reason) = difference else { return Ok(()) };
        for peer in state.peers.values_mut() {
            peer.tell(&Message::Refused { reason: reason.clone() });
        }
        Err(RendezvousError::Refused { reason })
    }
}

impl Drop for Rendezvous {
    fn drop(&mut self) {
        self.shared.state().is_over = true;
    }
}

fn shared(membership: &Membership, on_failure: OnFailure) -> Arc<Shared> {
    Arc::new(Shared {
        generation: membership.generation.0,
        rank: membership.gang.rank,
        world_size: membership.gang.world_size,
        silence: membership.step_deadline,
        on_failure,
        state: Mutex::new(State::default()),
        changed: Condvar::new(),
    })
}

fn host_address() -> Result<IpAddr, RendezvousError> {
    match std::env::var(ADDRESS_VARIABLE) {
        Ok(text) => text.parse().map_err(|_| RendezvousError::Address { text }),
        Err(_) => Ok(Ipv4Addr::LOCALHOST.into()),
    }
}

/// Connects to rank 0; the addresses of the two ends. A port that was open and is not has been left by
/// rank 0 for a reason, of which word may be on its way here. `None`: `go_on` said to stop.
fn reach(
    shared: &Arc<Shared>,
    address: &str,
    mut go_on: impl FnMut() -> ControlFlow<()>,
) -> std::io::Result<Option<(SocketAddr, SocketAddr)>> {
    let begun = Instant::now();
    loop {
        let reached = connect(address).and_then(|stream| {
            let ends = (stream.peer_addr()?, stream.local_addr()?);
            watch::join(shared, stream)?;
            Ok(ends)
        });
        match reached {
            Ok(ends) => return Ok(Some(ends)),
            Err(_) if go_on().is_break() => return Ok(None),
            Err(error) if begun.elapsed() > WORD_DEADLINE => return Err(error),
            Err(_) => thread::sleep(LOOK),
        }
    }
}

fn connect(address: &str) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::other("the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_DEADLINE) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rank of a gang of `world_size`; the others come to rank 0 at `rendezvous`.
    fn open(rank: u32, world_size: u32, rendezvous: Option<String>) -> Rendezvous {
        let gang = Gang { rank, world_size, rendezvous };
        let step_deadline = Duration::from_secs(10);
        let membership = Membership { generation: Generation(1), gang, step_deadline };
        let go_on = || ControlFlow::Continue(());
        Rendezvous::open(membership, |_failure| {}, go_on).unwrap().unwrap()
    }

    /// Whether it joins; it leaves in good order either way.
    fn joins(rendezvous: Rendezvous, go_on: impl FnMut() -> ControlFlow<()>) -> bool {
        let group = rendezvous.join(Identity::default(), Device::Cpu, go_on).unwrap();
        let has_joined = group.is_some();
        if let Some(group) = group {
            // Whoever closes at once may do so before the others have found everybody.
            assert_eq!(group.max(1).unwrap(), 1);
            group.close();
        }
        rendezvous.leave();
        has_joined
    }

    /// Said once it is ready, after `wait`.
    fn told_when_ready(wait: Duration) -> impl FnMut() -> ControlFlow<()> {
        let mut is_ready = false;
        move || {
            if !is_ready {
                is_ready = true;
                return ControlFlow::Continue(());
            }
            thread::sleep(wait);
            ControlFlow::Break(())
        }
    }

    #[test]
    fn who_leaves_after_being_ready_is_not_waited_for() {
        for world_size in [2, 3] {
            let first = open(0, world_size, None);
            let address = Some(first.address().to_string());
            let others: Vec<Rendezvous> =
                (1..world_size).map(|rank| open(rank, world_size, address.clone())).collect();
            for other in others {
                assert!(!joins(other, told_when_ready(Duration::ZERO)));
            }
            // Its own word comes later.
            let begun = Instant::now();
            let told = move || {
                if begun.elapsed() > Duration::from_millis(300) {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            };
            assert!(!joins(first, told), "{world_size} ranks");
        }
    }

    #[test]
    fn who_is_told_when_all_join_joins_too() {
        let first = open(0, 2, None);
        let second = open(1, 2, Some(first.address().to_string()));
        let first = thread::spawn(move || joins(first, || ControlFlow::Continue(())));
        let second = thread::spawn(move || joins(second, told_when_ready(Duration::from_secs(2))));
        assert_eq!([first.join().unwrap(), second.join().unwrap()], [true, true]);
    }

    #[test]
    fn a_rank_that_misses_one_which_has_left_does_not_call_it_a_failure() {
        let first = open(0, 2, None);
        let second = open(1, 2, Some(first.address().to_string()));
        assert!(!joins(second, told_when_ready(Duration::ZERO)));
        let go_on = || ControlFlow::Continue(());
        let error = first.join(Identity::default(), Device::Cpu, go_on).unwrap_err();
        let RendezvousError::Peer(failure) = &error else { panic!("{error}") };
        assert_eq!((failure.rank, failure.class), (1, FailureClass::Preempted));
        assert!(!failure.permanent);
    }
}
