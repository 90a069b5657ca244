//! What kind of failure an error is, and the end of a run in which another rank has failed.

use std::error::Error;
use std::thread;
use std::time::Duration;

use muster_common::id::Generation;
use muster_common::run::{Directive, FailureClass, RunExit};

use super::outbox::Outbox;
use super::task::TaskError;
use crate::collective::{RankFailure, RendezvousError};

/// Words of libtorch, of Gloo and of operating systems, in lower case, and what they mean. Their types
/// do not tell.
const WORDS: [(&str, FailureClass); 14] = [
    ("no space left on device", FailureClass::DiskFull),
    ("disk quota exceeded", FailureClass::DiskFull),
    ("storage full", FailureClass::DiskFull),
    ("out of memory", FailureClass::OutOfMemory),
    ("not enough memory", FailureClass::OutOfMemory),
    ("can't allocate memory", FailureClass::OutOfMemory),
    ("cannot allocate memory", FailureClass::OutOfMemory),
    ("timed out waiting", FailureClass::Hang),
    ("application timeout", FailureClass::Hang),
    ("connection closed by peer", FailureClass::Lost),
    ("connection reset by peer", FailureClass::Lost),
    ("broken pipe", FailureClass::Lost),
    ("connectfullmesh failed", FailureClass::Lost),
    ("gloo/transport", FailureClass::Lost),
];

/// Word of the rank that failed first comes within this time, if one has: in no time, unless rank 0, which passes it
/// on, is not scheduled for some seconds. Who gives up before would blame the connection, and name nobody.
const WORD_DEADLINE: Duration = Duration::from_secs(10);

/// What kind of failure this is.
pub(super) fn class_of(error: &TaskError) -> FailureClass {
    if let TaskError::Rendezvous(RendezvousError::Peer(failure)) = error {
        return failure.class;
    }
    let mut text = String::new();
    let mut cause: Option<&dyn Error> = Some(error);
    while let Some(error) = cause {
        text.push_str(&error.to_string().to_lowercase());
        text.push('\n');
        cause = error.source();
    }
    let by_word = WORDS.iter().find(|(word, _)| text.contains(word)).map(|(_, class)| *class);
    by_word.unwrap_or(match error {
        // Whoever misses rank 0 knows nothing; rank 0's own end says more.
        TaskError::Rendezvous(RendezvousError::Connect { .. }) => FailureClass::Lost,
        _ if error.is_permanent() => FailureClass::BadData,
        _ => FailureClass::Other,
    })
}

/// Ends run `generation` and the process: the thread that trains waits for a rank that is gone, and cannot be
/// asked. Does nothing when that thread has ended the run already; what goes on then is another one.
pub(super) fn end_with_rank(
    outbox: &Outbox,
    generation: Generation,
    told: Option<Directive>,
    failure: &RankFailure,
) {
    let RankFailure { rank, class, message, permanent } = failure;
    let message = format!("rank {rank}: {message}");
    let has_ended = if told == Some(Directive::Preempt) {
        // Ranks that were told to save themselves and leave miss those that were quicker, or were killed because they
        // were too slow. That is no failure: the supervisor, which knows what was told, says how this one ended.
        tracing::warn!("{message}");
        !outbox.end(generation)
    } else {
        tracing::error!("{message}");
        let exit = RunExit::Failed { message, permanent: *permanent, class: *class };
        !outbox.conclude(generation, exit)
    };
    if !has_ended {
        crate::ffi::leave_process(1);
    }
}

/// Gives the watch time to say which rank failed first, and to end this process with that. Comes back
/// when none is known to have.
pub(super) fn await_word(class: FailureClass) {
    if matches!(class, FailureClass::Lost | FailureClass::Hang) {
        thread::sleep(WORD_DEADLINE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ffi::ShimError;
    use crate::model::ModelError;
    use crate::train::TrainError;

    fn shim(message: &str) -> TaskError {
        let message = message.to_owned();
        TaskError::Model(ModelError::from(ShimError { operation: "a sum over ranks", message }))
    }

    #[test]
    fn words_tell_what_kind_of_failure_it_is() {
        let gloo =
            "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer";
        let hang = "[gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 3000ms for recv";
        let memory =
            "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: not enough memory: you tried";
        let cases = [
            (shim(gloo), FailureClass::Lost),
            (shim(hang), FailureClass::Hang),
            (shim("Application timeout caused pair closure"), FailureClass::Hang),
            (shim(memory), FailureClass::OutOfMemory),
            (shim("CUDA out of memory. Tried to allocate"), FailureClass::OutOfMemory),
            (shim("shapes do not fit"), FailureClass::Other),
            (TrainError::Float16.into(), FailureClass::BadData),
        ];
        for (error, wanted) in cases {
            assert_eq!(class_of(&error), wanted, "{error}");
        }
        let full = std::io::Error::from_raw_os_error(28);
        let error = RendezvousError::Connect { address: "a:1".to_owned(), source: full };
        assert_eq!(class_of(&error.into()), FailureClass::DiskFull);
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let error = RendezvousError::Connect { address: "a:1".to_owned(), source: refused };
        assert_eq!(class_of(&error.into()), FailureClass::Lost);
    }
}
