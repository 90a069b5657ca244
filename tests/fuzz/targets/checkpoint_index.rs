//! The index of a checkpoint: any bytes are refused or taken, and what is taken is written as it was read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muster_common::id::{Generation, TrialId};
use muster_common::storage::{CheckpointIndex, CheckpointKey};

fuzz_target!(|bytes: &[u8]| {
    let trial = TrialId { experiment: "demo-1".parse().expect("an id"), number: 1 };
    let key = CheckpointKey { trial, step: 40, generation: Generation(3) };
    let Ok(index) = CheckpointIndex::parse(&key, bytes) else { return };
    assert_eq!(index.checkpoint, key, "an index of another checkpoint is taken");
    let written = serde_json::to_vec(&index).expect("an index is JSON");
    assert_eq!(CheckpointIndex::parse(&key, &written).as_ref(), Ok(&index));
    for part in &index.parts {
        // A digest that fits would have to be found.
        assert!(index.verify(&part.name, bytes).is_err());
    }
});
