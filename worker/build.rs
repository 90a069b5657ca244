//! Compiles the C++ shim and tells the linker where libtorch lies when the program runs.

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};

/// Files of the shim.
const SHIM: [&str; 9] = [
    "attention",
    "autocast",
    "collective",
    "dropout",
    "guard",
    "linear",
    "optimizer",
    "rows",
    "version",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    println!("cargo::rerun-if-changed=shim");
    let libtorch = PathBuf::from(env::var("LIBTORCH").map_err(|_| {
        "LIBTORCH is not set: run deploy/setup/libtorch.sh, or set it to a libtorch 2.11 directory"
    })?);
    let include = libtorch.join("include");
    if !include.join("ATen/Tensor.h").is_file() {
        let problem = format!(
            "no libtorch headers in {}: run deploy/setup/libtorch.sh, or set LIBTORCH",
            include.display()
        );
        return Err(problem.into());
    }
    let runtime = runtime_directory(&libtorch)?;
    let openmp = openmp_of(&runtime)?;
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++17")
        .pic(true)
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        // Headers of others are not ours to warn about.
        .flag(format!("-isystem{}", include.display()))
        .flag(format!("-isystem{}", include.join("torch/csrc/api/include").display()))
        // The same sums with and without fused instructions, on every machine and in every loop.
        .flag("-ffp-contract=off")
        .flag("-fno-math-errno")
        .include("shim/include")
        .files(SHIM.map(|name| format!("shim/{name}.cpp")));
    if openmp.is_some() {
        build.flag("-fopenmp");
    }
    build.try_compile("muster_shim")?;
    if let Some(openmp) = openmp {
        println!("cargo::rustc-link-search=native={}", runtime.display());
        println!("cargo::rustc-link-lib=dylib:+verbatim={openmp}");
    }
    println!("cargo::rustc-link-arg=-Wl,-rpath,{}", runtime.display());
    // Link arguments do not reach crates that depend on this one; their build scripts read it as
    // DEP_MUSTER_SHIM_RPATH.
    println!("cargo::metadata=rpath={}", runtime.display());
    Ok(())
}

/// Where the shared objects really are. LIBTORCH may be a farm of links made for linking only; the
/// library finds its own companions relative to its real place.
fn runtime_directory(libtorch: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let library = libtorch.join("lib/libtorch_cpu.so");
    let real = library.canonicalize().map_err(|error| {
        format!("{}: {error}; run deploy/setup/libtorch.sh, or set LIBTORCH", library.display())
    })?;
    println!("cargo::rerun-if-changed={}", library.display());
    let directory = real.parent().ok_or("a library without a directory")?;
    Ok(directory.to_path_buf())
}

/// libtorch's own OpenMP, by the name of its file. Its headers deal loops out to threads only in code that is compiled
/// for OpenMP, and with a second copy of it a process would have two sets of threads.
fn openmp_of(runtime: &Path) -> Result<Option<String>, Box<dyn Error>> {
    let mut names = Vec::new();
    for entry in runtime.read_dir()? {
        names.extend(entry?.file_name().into_string());
    }
    names.sort();
    Ok(names.into_iter().find(|name| name.starts_with("libgomp") && name.contains(".so")))
}
