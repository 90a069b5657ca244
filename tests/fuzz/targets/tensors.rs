//! Safetensors files, whose header says where tensors lie: any bytes are refused or taken, and each tensor that
//! is taken has as many elements as its shape says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muster_worker::model::named_tensors;

fuzz_target!(|bytes: &[u8]| {
    let Ok(tensors) = named_tensors(bytes) else { return };
    for (name, tensor) in &tensors {
        let elements: i64 = tensor.size().iter().product();
        assert_eq!(usize::try_from(elements), Ok(tensor.numel()), "{name}");
        assert!(tensor.numel() <= bytes.len(), "{name} is larger than its file");
    }
});
