//! The connections between rank 0 and the others: signs of life both ways, and word of failures.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use muster_common::run::FailureClass;
use muster_common::storage::CheckpointPart;
use rustix::net::sockopt::{set_tcp_nodelay, set_tcp_user_timeout};

use super::identity::Identity;
use super::message::{Lines, Message, RankFailure};

/// Time between two signs of life.
const BEAT: Duration = Duration::from_millis(200);
/// A host that does not even acknowledge for so long is cut off.
const UNACKNOWLEDGED: Duration = Duration::from_secs(3);
/// Longest wait in one look at a connection.
const LOOK: Duration = Duration::from_millis(50);
/// Time that a new connection has to say who it is.
const HELLO_DEADLINE: Duration = Duration::from_secs(10);
/// Time that word of a failure has to reach the others before this process may end.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// What happens when another rank has failed.
pub(super) type OnFailure = Box<dyn Fn(&RankFailure) + Send + Sync>;

/// What the threads of a rank share.
pub(super) struct Shared {
    pub(super) generation: u64,
    pub(super) rank: u32,
    pub(super) world_size: u32,
    /// A rank that says nothing for so long hangs.
    pub(super) silence: Duration,
    pub(super) on_failure: OnFailure,
    pub(super) state: Mutex<State>,
    pub(super) changed: Condvar,
}

/// What is known of the others. Rank 0 knows every rank, the others rank 0.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) peers: BTreeMap<u32, Peer>,
    /// Port of the store, once all are there.
    pub(super) go: Option<u16>,
    /// Of rank 0: all were ready, and from here on they join. Nobody leaves alone any more.
    pub(super) is_decided: bool,
    /// Of the others: rank 0 does not count on this rank.
    pub(super) is_released: bool,
    pub(super) refused: Option<String>,
    pub(super) failure: Option<RankFailure>,
    /// What other ranks have in the store of the checkpoint of a step.
    pub(super) written: BTreeMap<(u64, u32), Vec<CheckpointPart>>,
    /// Nobody is interested any more.
    pub(super) is_over: bool,
}

#[derive(Debug)]
pub(super) struct Peer {
    stream: TcpStream,
    pub(super) identity: Option<Identity>,
    pub(super) has_left: bool,
    /// The line to it ended before it had said anything: whether it left in good order is not known.
    pub(super) is_cut: bool,
}

impl Peer {
    /// Says something; a connection that does not take it is noticed by its thread.
    pub(super) fn tell(&mut self, message: &Message) {
        let _noticed_elsewhere = self.stream.write_all(&message.line());
    }
}

impl State {
    /// Tells everybody it knows but the one that failed.
    pub(super) fn pass_on(&mut self, failure: &RankFailure) {
        let message = Message::Failed(failure.clone());
        for (rank, peer) in &mut self.peers {
            if *rank != failure.rank && !peer.has_left {
                peer.tell(&message);
            }
        }
    }
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The run is over because of `failure`, of another rank or one that another rank told of.
    fn fail(&self, failure: &RankFailure) {
        {
            let mut state = self.state();
            if state.failure.is_some() || state.is_over {
                return;
            }
            state.failure = Some(failure.clone());
            state.pass_on(failure);
        }
        self.changed.notify_all();
        thread::sleep(LAST_WORDS);
        (self.on_failure)(failure);
    }

    /// Nothing comes of `rank`, and nothing has come.
    fn cut_off(&self, rank: u32) {
        if let Some(peer) = self.state().peers.get_mut(&rank) {
            (peer.has_left, peer.is_cut) = (true, true);
        }
        self.changed.notify_all();
    }

    /// Whether `rank` needs no watching: it went in good order, or is about to.
    fn has_left(&self, rank: u32) -> bool {
        self.state().peers.get(&rank).is_some_and(|peer| peer.has_left)
    }

    fn admit(&self, rank: u32, stream: &TcpStream) -> Result<(), String> {
        let mut state = self.state();
        if state.peers.contains_key(&rank) {
            return Err(format!("rank {rank} is here already"));
        }
        let stream = stream.try_clone().map_err(|error| error.to_string())?;
        state.peers.insert(rank, Peer { stream, identity: None, has_left: false, is_cut: false });
        drop(state);
        self.changed.notify_all();
        Ok(())
    }
}

/// Settings of every connection between ranks.
fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(LOOK))?;
    stream.set_write_timeout(Some(UNACKNOWLEDGED))?;
    set_tcp_nodelay(stream, true)?;
    set_tcp_user_timeout(stream, u32::try_from(UNACKNOWLEDGED.as_millis()).unwrap_or(u32::MAX))?;
    Ok(())
}

/// Takes in the other ranks, for rank 0.
pub(super) fn host(shared: &Arc<Shared>, listener: TcpListener) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let shared = Arc::clone(shared);
    let span = tracing::Span::current();
    let accept = move || {
        let _run = span.entered();
        let all = shared.world_size as usize - 1;
        loop {
            {
                let state = shared.state();
                if state.is_over || state.failure.is_some() || state.peers.len() >= all {
                    return;
                }
            }
            match listener.accept() {
                Ok((stream, from)) => {
                    let shared = Arc::clone(&shared);
                    let span = tracing::Span::current();
                    let talk = move || {
                        let _run = span.entered();
                        if let Err(reason) = receive(&shared, stream) {
                            tracing::warn!(%from, reason, "a connection was refused");
                        }
                    };
                    if let Err(error) = thread::Builder::new().name("rank".to_owned()).spawn(talk) {
                        tracing::warn!(%error, "no thread for a rank");
                    }
                }
                Err(_none_waits) => thread::sleep(LOOK / 5),
            }
        }
    };
    thread::Builder::new().name("ranks".to_owned()).spawn(accept).map(|_| ())
}

/// A connection to rank 0: who is it?
fn receive(shared: &Arc<Shared>, mut stream: TcpStream) -> Result<(), String> {
    prepare(&stream).map_err(|error| error.to_string())?;
    let begun = Instant::now();
    let mut lines = Lines::default();
    let mut heard = Vec::new();
    while heard.is_empty() {
        if begun.elapsed() > HELLO_DEADLINE || shared.state().is_over {
            return Err("it did not say who it is".to_owned());
        }
        heard = read(&mut stream, &mut lines)?;
    }
    let rank = match heard.remove(0) {
        Message::Hello { generation, rank, world_size }
            if (generation, world_size) == (shared.generation, shared.world_size)
                && (1..world_size).contains(&rank) =>
        {
            rank
        }
        other => {
            let reason = format!("this is run {}, not that of {other:?}", shared.generation);
            let _gone = stream.write_all(&Message::Refused { reason: reason.clone() }.line());
            return Err(reason);
        }
    };
    shared.admit(rank, &stream)?;
    converse(shared, rank, stream, lines, heard);
    Ok(())
}

/// Connects to rank 0, for the others.
pub(super) fn join(shared: &Arc<Shared>, mut stream: TcpStream) -> std::io::Result<()> {
    prepare(&stream)?;
    let (generation, rank, world_size) = (shared.generation, shared.rank, shared.world_size);
    stream.write_all(&Message::Hello { generation, rank, world_size }.line())?;
    shared.admit(0, &stream).map_err(std::io::Error::other)?;
    let shared = Arc::clone(shared);
    let span = tracing::Span::current();
    let talk = move || {
        let _run = span.entered();
        converse(&shared, 0, stream, Lines::default(), Vec::new());
    };
    thread::Builder::new().name("rank".to_owned()).spawn(talk).map(|_| ())
}

/// Messages that have come; empty when none came for a while. `Err`: the connection is of no use.
fn read(stream: &mut TcpStream, lines: &mut Lines) -> Result<Vec<Message>, String> {
    let mut block = [0u8; 16 << 10];
    match stream.read(&mut block) {
        Ok(0) => Err("its process is gone".to_owned()),
        Ok(count) => lines.push(block.get(..count).unwrap_or_default()),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            Ok(Vec::new())
        }
        Err(error) if error.kind() == ErrorKind::TimedOut => {
            Err("the way to its host is cut".to_owned())
        }
        Err(error) => Err(format!("its process is gone: {error}")),
    }
}

/// Listens to `peer` and gives signs of life, until one of the two leaves or fails.
fn converse(
    shared: &Shared,
    peer: u32,
    mut stream: TcpStream,
    mut lines: Lines,
    mut messages: Vec<Message>,
) {
    let (mut heard, mut beaten) = (Instant::now(), Instant::now());
    // Who hosts has heard who it is that came.
    let mut is_received = shared.rank == 0;
    let failed = |class, message: String| {
        shared.fail(&RankFailure { rank: peer, class, message, permanent: false });
    };
    loop {
        for message in messages.drain(..) {
            heard = Instant::now();
            is_received = true;
            if take(shared, peer, message) {
                return;
            }
        }
        if shared.state().is_over {
            return;
        }
        match read(&mut stream, &mut lines) {
            Ok(found) => messages = found,
            // Rank 0 left, in good order or not, before it took this connection in.
            Err(_cut) if !is_received => return shared.cut_off(peer),
            Err(_gone) if shared.has_left(peer) => return,
            Err(reason) => return failed(FailureClass::Lost, reason),
        }
        if messages.is_empty() && heard.elapsed() > shared.silence {
            let seconds = shared.silence.as_secs_f64();
            return failed(FailureClass::Hang, format!("no sign of life for {seconds} s"));
        }
        if beaten.elapsed() >= BEAT {
            beaten = Instant::now();
            if let Some(peer) = shared.state().peers.get_mut(&peer) {
                peer.tell(&Message::Beat);
            }
        }
    }
}

/// Acts on a message of `peer`. `true`: nothing follows that matters.
fn take(shared: &Shared, peer: u32, message: Message) -> bool {
    let mut state = shared.state();
    match message {
        Message::Beat | Message::Hello { .. } => return false,
        Message::Ready { identity } => {
            if let Some(peer) = state.peers.get_mut(&peer) {
                peer.identity = Some(identity);
            }
        }
        Message::Go { store_port } => state.go = Some(store_port),
        Message::Written { step, parts } => {
            state.written.insert((step, peer), parts);
        }
        Message::Refused { reason } => state.refused = Some(reason),
        // Without an answer it waits for word that all join, which is on its way.
        Message::Told if state.is_decided => {}
        Message::Told => {
            if let Some(peer) = state.peers.get_mut(&peer) {
                peer.has_left = true;
                peer.tell(&Message::Released);
            }
        }
        Message::Released => state.is_released = true,
        Message::Leaving => {
            if let Some(peer) = state.peers.get_mut(&peer) {
                peer.has_left = true;
            }
            drop(state);
            shared.changed.notify_all();
            return true;
        }
        Message::Failed(failure) => {
            drop(state);
            shared.fail(&failure);
            return true;
        }
    }
    drop(state);
    shared.changed.notify_all();
    false
}
