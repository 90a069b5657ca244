//! What ranks say to rank 0 and rank 0 to them: JSON lines.

use muster_common::run::FailureClass;
use muster_common::storage::CheckpointPart;
use serde::{Deserialize, Serialize};

use super::identity::Identity;

/// Longest line: the names of some ten thousand parameters.
const LINE_BYTES_MAX: usize = 4 << 20;

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Message {
    /// The first line of a rank.
    Hello { generation: u64, rank: u32, world_size: u32 },
    /// It has its model and waits.
    Ready { identity: Identity },
    /// All are there: join the process group through the store at this port of rank 0's host.
    Go { store_port: u16 },
    /// Rank 0 does not train with this rank.
    Refused { reason: String },
    /// These objects of the checkpoint of `step` are in the store.
    Written { step: u64, parts: Vec<CheckpointPart> },
    /// A sign of life.
    Beat,
    /// A rank has failed, and with it the run.
    Failed(RankFailure),
    /// This rank was told to leave: may it, or do all join already?
    Told,
    /// Rank 0 does not count on this rank any more.
    Released,
    /// The run has ended for this rank in good order.
    Leaving,
}

/// How a rank failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RankFailure {
    /// Which.
    pub rank: u32,
    /// What kind of failure.
    pub class: FailureClass,
    /// For people.
    pub message: String,
    /// Trying again cannot help.
    pub permanent: bool,
}

impl Message {
    pub(super) fn line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

/// Cuts what comes over a connection into messages.
#[derive(Debug, Default)]
pub(super) struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// Takes in more bytes. `Err`: what comes is no message.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Message>, String> {
        self.rest.extend_from_slice(bytes);
        let mut messages = Vec::new();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            messages.push(serde_json::from_slice(&line).map_err(|error| error.to_string())?);
        }
        if self.rest.len() > LINE_BYTES_MAX {
            return Err("a line without end".to_owned());
        }
        Ok(messages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_being_cut_anywhere() {
        let failure = RankFailure {
            rank: 2,
            class: FailureClass::OutOfMemory,
            message: "a\nb".to_owned(),
            permanent: false,
        };
        let sent = [Message::Beat, Message::Failed(failure), Message::Go { store_port: 7 }];
        let bytes: Vec<u8> = sent.iter().flat_map(Message::line).collect();
        for cut in 0..bytes.len() {
            let mut lines = Lines::default();
            let mut found = lines.push(&bytes[..cut]).unwrap();
            found.extend(lines.push(&bytes[cut..]).unwrap());
            assert_eq!(found, sent);
        }
        assert!(Lines::default().push(b"GET / HTTP/1.1\r\n").is_err());
        assert!(Lines::default().push(&vec![b'x'; LINE_BYTES_MAX + 1]).is_err());
    }
}
