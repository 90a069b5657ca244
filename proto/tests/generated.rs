//! The committed code in `src/generated` is what the proto files give. Nobody needs a proto compiler
//! to build Muster; after changing a proto file run `make bless`, which is
//! `MUSTER_BLESS=1 cargo test --release -p muster-proto --no-default-features`.

use std::fs;
use std::path::Path;

const FILES: [&str; 3] =
    ["muster/v1/run.proto", "muster/v1/worker.proto", "muster/v1/control.proto"];

#[test]
fn generated_code_is_fresh() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scratch = tempfile::tempdir().unwrap();
    let descriptors = protox::compile(FILES, [root]).unwrap();
    tonic_prost_build::configure()
        .out_dir(scratch.path())
        .btree_map(".")
        .codec_path("crate::codec::LeanCodec")
        // A queue of responses keeps room for the largest kind many times over.
        .boxed(".muster.v1.SessionResponse.message.assign")
        .compile_fds(descriptors)
        .unwrap();
    let fresh = fs::read_to_string(scratch.path().join("muster.v1.rs")).unwrap();
    let committed = root.join("src/generated/muster.v1.rs");
    if std::env::var_os("MUSTER_BLESS").is_some() {
        fs::create_dir_all(committed.parent().unwrap()).unwrap();
        fs::write(&committed, &fresh).unwrap();
    }
    let found = fs::read_to_string(&committed).unwrap_or_default();
    assert!(found == fresh, "proto files changed: run `make bless`");
}
