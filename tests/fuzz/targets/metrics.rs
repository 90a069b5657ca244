//! Files of metrics: any bytes are refused or taken, and what is taken is written as it was read.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use muster_common::metric::{decode, encode};

fuzz_target!(|bytes: &[u8]| {
    let Ok(points) = decode(Bytes::copy_from_slice(bytes)) else { return };
    let written = encode(&points).expect("points are written");
    let read = decode(written.clone()).expect("what was written is read");
    assert_eq!(read.len(), points.len());
    // Bytes, for a value may be no number, which is not equal to itself.
    assert_eq!(encode(&read).expect("points are written"), written);
});
