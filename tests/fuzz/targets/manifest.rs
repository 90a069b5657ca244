//! Manifests and what people mistake for them: taken or refused with a message, and taken ones come back from
//! the journal as they went in.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muster_common::manifest::Manifest;

fuzz_target!(|text: &str| {
    match Manifest::parse(text) {
        Ok(manifest) => {
            let written = serde_json::to_string(&manifest).expect("a manifest is JSON");
            let read: Manifest = serde_json::from_str(&written).expect("what was written is read");
            assert_eq!(read, manifest);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
