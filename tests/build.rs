//! Test binaries that use the worker crate must find libtorch when they run: link arguments of the
//! worker's build script end with its own binaries.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if let Ok(directory) = std::env::var("DEP_MUSTER_SHIM_RPATH") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{directory}");
    }
}
