//! How the libraries below a process that computes are set up. They read it when they are loaded, so
//! whoever starts such a process puts it into its environment.

/// Names and values, for those names that the environment does not have yet.
///
/// Each was worth something on two cores with MiniLM on SST-2 (real tokens per second, medians):
/// kernels kept, a third of a step; memory kept and threads that wait, 1,770 to 2,150 together.
const SETTINGS: [(&str, &str); 6] = [
    // oneDNN compiles kernels for each shape of a linear layer; by default it keeps 1024 and throws
    // out what is needed again.
    ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192"),
    // glibc gives large blocks back at once, and every step has the kernel clear the same pages again.
    ("MALLOC_MMAP_MAX_", "0"),
    ("MALLOC_TRIM_THRESHOLD_", "17179869184"),
    ("MALLOC_TOP_PAD_", "67108864"),
    // Threads of GNU OpenMP sleep after a wait of microseconds, and wake up late.
    ("GOMP_SPINCOUNT", "1000000"),
    // Only in this mode does MKL promise reductions in one order and work dealt out the same each time, which a
    // resume to the bit rests on; its kernels stay those of the processor. Intel's Developer Guide for oneMKL,
    // "Obtaining Numerically Reproducible Results".
    ("MKL_CBWR", "AUTO"),
];

/// What to add to the environment of a process that computes. What the user has set is left as it is.
pub fn environment() -> impl Iterator<Item = (&'static str, &'static str)> {
    SETTINGS.into_iter().filter(|(name, _)| std::env::var_os(name).is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_already_is_left() {
        // Of this very process nothing is set, unless whoever runs the tests has done so.
        for (name, value) in SETTINGS {
            let added = environment().any(|setting| setting == (name, value));
            assert_eq!(added, std::env::var_os(name).is_none(), "{name}");
        }
    }
}
