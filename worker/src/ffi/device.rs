//! The device of a slot. The program is linked against the CPU part of libtorch only; the CUDA part
//! is opened where it is asked for, so that one program serves both kinds of machine.

use std::ffi::{CStr, CString, c_char, c_int, c_void};

use muster_common::count::counted;
use tch::{Cuda, Device};

/// Name of libtorch's CUDA part; it lies beside the CPU part.
const CUDA_LIBRARY: &str = "libtorch_cuda.so";

/// Resolve every symbol at once, and let libraries opened later see them (`dlfcn.h`, Linux).
const RTLD_NOW_GLOBAL: c_int = 0x002 | 0x100;

unsafe extern "C" {
    fn dlopen(file: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    fn dlerror() -> *const c_char;
}

/// Why a device cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// The name is none of a device.
    #[error(
        "`{name}` is no device: write `cpu`, or `cuda:` and the number of a GPU, such as `cuda:0`"
    )]
    Name {
        /// What was given.
        name: String,
    },
    /// This libtorch has no CUDA part, or it does not load here.
    #[error(
        "`{name}` needs the CUDA part of libtorch, which cannot be opened: {reason}; write `cpu`, or set it up"
    )]
    Library {
        /// The device.
        name: String,
        /// What the loader says.
        reason: String,
    },
    /// There are fewer GPUs.
    #[error("`{name}` is not there: libtorch sees {}", counted(.found, "GPU"))]
    Missing {
        /// The device.
        name: String,
        /// How many there are.
        found: i64,
    },
}

/// The device called `name`, ready to be used. For a GPU this must come before everything else that
/// libtorch does in this process.
pub fn open_device(name: &str) -> Result<Device, DeviceError> {
    if name == "cpu" {
        return Ok(Device::Cpu);
    }
    let plain = |text: &str| text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
    let number: usize = name
        .strip_prefix("cuda:")
        .and_then(plain)
        .ok_or_else(|| DeviceError::Name { name: name.to_owned() })?;
    open_library(CUDA_LIBRARY)
        .map_err(|reason| DeviceError::Library { name: name.to_owned(), reason })?;
    let found = if Cuda::is_available() { Cuda::device_count() } else { 0 };
    if i64::try_from(number).is_ok_and(|number| number < found) {
        return Ok(Device::Cuda(number));
    }
    Err(DeviceError::Missing { name: name.to_owned(), found })
}

/// Opens a library for the rest of the process.
fn open_library(name: &str) -> Result<*mut c_void, String> {
    let file = CString::new(name).map_err(|error| error.to_string())?;
    // SAFETY: a NUL-terminated name; the library's own initialization is libtorch's or our plugin's.
    let handle = unsafe { dlopen(file.as_ptr(), RTLD_NOW_GLOBAL) };
    if handle.is_null() { Err(loader_error()) } else { Ok(handle) }
}

/// The function `name` of a library, which stays open for the rest of the process.
pub(super) fn open_function(library: &str, name: &CStr) -> Result<*mut c_void, String> {
    let handle = open_library(library)?;
    // SAFETY: an open library and a NUL-terminated name.
    let function = unsafe { dlsym(handle, name.as_ptr()) };
    if function.is_null() { Err(loader_error()) } else { Ok(function) }
}

fn loader_error() -> String {
    // SAFETY: after a failure it returns a NUL-terminated message, which is copied here, or null.
    let message = unsafe { dlerror() };
    if message.is_null() {
        return "the loader does not say why".to_owned();
    }
    // SAFETY: not null, see above.
    unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert_eq!(open_device("cpu"), Ok(Device::Cpu));
        for name in ["", "gpu", "cuda", "cuda:", "cuda:+1", "cuda:x", "CPU", "cuda:0 "] {
            assert_eq!(open_device(name), Err(DeviceError::Name { name: name.to_owned() }));
        }
    }

    #[test]
    fn a_library_that_is_not_there_is_named() {
        let reason = open_library("libmuster_nowhere.so").unwrap_err();
        assert!(reason.contains("libmuster_nowhere.so"), "{reason}");
        let reason = open_function("libc.so.6", c"muster_nowhere").unwrap_err();
        assert!(reason.contains("muster_nowhere"), "{reason}");
        assert!(open_function("libc.so.6", c"getpid").is_ok());
    }
}
