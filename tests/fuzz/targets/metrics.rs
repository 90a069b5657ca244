//! Files of metrics: any bytes are refused or taken, and what is taken is written as it was read.
#![no_main]

use std::panic;
use std::sync::Once;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use muster_common::columnar::is_contained;
use muster_common::metric::{decode, encode};

/// The fuzzer's hook ends the process at every panic; one of the Parquet reader that becomes an error is none of
/// its business.
fn leave_contained_panics_alone() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !is_contained() {
                hook(info);
            }
        }));
    });
}

fuzz_target!(|bytes: &[u8]| {
    leave_contained_panics_alone();
    let Ok(points) = decode(Bytes::copy_from_slice(bytes)) else { return };
    let written = encode(&points).expect("points are written");
    let read = decode(written.clone()).expect("what was written is read");
    assert_eq!(read.len(), points.len());
    // Bytes, for a value may be no number, which is not equal to itself.
    assert_eq!(encode(&read).expect("points are written"), written);
});
