//! NVML, NVIDIA's management library, which comes with the driver: how busy a GPU is and what memory
//! is in use on it. Opened when it is asked for, so the program runs where there is none. Functions and
//! structures are those of `nvml.h`, version 2 of the calls where there is one, as every driver since
//! 2012 has them.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};

use muster_common::equipment::Gpu;

use super::device::open_function;

/// Where drivers put it.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// What calls return when they have done what was asked.
const SUCCESS: c_int = 0;

/// Room for a text: `NVML_DEVICE_NAME_V2_BUFFER_SIZE`, the larger of the two that are asked for.
const TEXT_BYTES: usize = 96;

type Device = *mut c_void;
type GetUse = unsafe extern "C" fn(Device, *mut UtilizationRates) -> c_int;
type GetMemory = unsafe extern "C" fn(Device, *mut Memory) -> c_int;
type GetName = unsafe extern "C" fn(Device, *mut c_char, c_uint) -> c_int;
type GetDriver = unsafe extern "C" fn(*mut c_char, c_uint) -> c_int;

/// `nvmlUtilization_t`, percent of the last sample period of the driver.
#[repr(C)]
#[derive(Default)]
struct UtilizationRates {
    gpu: c_uint,
    memory: c_uint,
}

/// `nvmlMemory_t`, bytes.
#[repr(C)]
#[derive(Default)]
struct Memory {
    total: u64,
    free: u64,
    used: u64,
}

/// What a GPU is doing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GpuUse {
    /// Share of the last moments in which it computed, 0 to 1.
    pub share: f64,
    /// Memory in use on it, bytes, whoever uses it.
    pub memory_bytes: u64,
}

/// One GPU, as the driver shows it.
#[derive(Debug)]
pub struct Nvml {
    device: Device,
    get_use: GetUse,
    get_memory: GetMemory,
    get_name: Option<GetName>,
    get_driver: Option<GetDriver>,
}

// SAFETY: NVML is thread-safe (its documentation says so of all calls), and a device is a name only.
unsafe impl Send for Nvml {}

impl Nvml {
    /// The GPU with this index (`3`) or this UUID (`GPU-...`, `MIG-...`), as `CUDA_VISIBLE_DEVICES` and
    /// `nvidia-smi` call it. The error says why there is none.
    pub fn open(gpu: &str) -> Result<Self, String> {
        Self::open_in(LIBRARY, gpu)
    }

    fn open_in(library: &str, gpu: &str) -> Result<Self, String> {
        let function = |name: &CStr| open_function(library, name);
        let init = function(c"nvmlInit_v2")?;
        // SAFETY: `nvmlReturn_t nvmlInit_v2(void)`; it counts its callers and may be called again.
        let init: unsafe extern "C" fn() -> c_int = unsafe { std::mem::transmute(init) };
        // SAFETY: takes nothing.
        check("nvmlInit_v2", unsafe { init() })?;
        let mut device: Device = std::ptr::null_mut();
        if let Ok(index) = gpu.parse::<c_uint>() {
            let find = function(c"nvmlDeviceGetHandleByIndex_v2")?;
            // SAFETY: `nvmlReturn_t (unsigned int index, nvmlDevice_t *device)`.
            let find: unsafe extern "C" fn(c_uint, *mut Device) -> c_int =
                unsafe { std::mem::transmute(find) };
            // SAFETY: `device` is a place for a handle.
            check("nvmlDeviceGetHandleByIndex_v2", unsafe { find(index, &raw mut device) })?;
        } else {
            let uuid = CString::new(gpu).map_err(|error| error.to_string())?;
            let find = function(c"nvmlDeviceGetHandleByUUID")?;
            // SAFETY: `nvmlReturn_t (const char *uuid, nvmlDevice_t *device)`.
            let find: unsafe extern "C" fn(*const c_char, *mut Device) -> c_int =
                unsafe { std::mem::transmute(find) };
            // SAFETY: a NUL-terminated text, and a place for a handle.
            let status = unsafe { find(uuid.as_ptr(), &raw mut device) };
            check("nvmlDeviceGetHandleByUUID", status)?;
        }
        let get_use = function(c"nvmlDeviceGetUtilizationRates")?;
        let get_memory = function(c"nvmlDeviceGetMemoryInfo")?;
        Ok(Self {
            device,
            // SAFETY: `nvmlReturn_t (nvmlDevice_t device, nvmlUtilization_t *utilization)`.
            get_use: unsafe { std::mem::transmute::<*mut c_void, GetUse>(get_use) },
            // SAFETY: `nvmlReturn_t (nvmlDevice_t device, nvmlMemory_t *memory)`.
            get_memory: unsafe { std::mem::transmute::<*mut c_void, GetMemory>(get_memory) },
            // What it is called is good to know, and nothing that a run waits for.
            get_name: function(c"nvmlDeviceGetName").ok().map(|found| {
                // SAFETY: `nvmlReturn_t (nvmlDevice_t device, char *name, unsigned int length)`.
                unsafe { std::mem::transmute::<*mut c_void, GetName>(found) }
            }),
            get_driver: function(c"nvmlSystemGetDriverVersion").ok().map(|found| {
                // SAFETY: `nvmlReturn_t (char *version, unsigned int length)`.
                unsafe { std::mem::transmute::<*mut c_void, GetDriver>(found) }
            }),
        })
    }

    /// What it is doing now. `None`: the driver does not say, as for parts of a GPU.
    pub fn now(&self) -> Option<GpuUse> {
        let (mut rates, mut memory) = (UtilizationRates::default(), Memory::default());
        // SAFETY: a handle of this library and a place for its answer.
        let status = unsafe { (self.get_use)(self.device, &raw mut rates) };
        check("nvmlDeviceGetUtilizationRates", status).ok()?;
        // SAFETY: the same.
        let status = unsafe { (self.get_memory)(self.device, &raw mut memory) };
        check("nvmlDeviceGetMemoryInfo", status).ok()?;
        Some(GpuUse { share: f64::from(rates.gpu) / 100.0, memory_bytes: memory.used })
    }

    /// What it is. `None`: the driver does not say.
    pub fn identity(&self) -> Option<Gpu> {
        let (get_name, get_driver) = (self.get_name?, self.get_driver?);
        let name = text("nvmlDeviceGetName", |room, length| {
            // SAFETY: a handle of this library, and room for as much as is said.
            unsafe { get_name(self.device, room, length) }
        });
        let driver = text("nvmlSystemGetDriverVersion", |room, length| {
            // SAFETY: room for as much as is said.
            unsafe { get_driver(room, length) }
        });
        let mut memory = Memory::default();
        // SAFETY: a handle of this library and a place for its answer.
        let status = unsafe { (self.get_memory)(self.device, &raw mut memory) };
        check("nvmlDeviceGetMemoryInfo", status).ok()?;
        Some(Gpu { name: name?, memory_bytes: memory.total, driver: driver? })
    }
}

/// A text that a call writes into the room that it gets.
fn text(call: &str, ask: impl FnOnce(*mut c_char, c_uint) -> c_int) -> Option<String> {
    let mut room = [0u8; TEXT_BYTES];
    let status = ask(room.as_mut_ptr().cast(), c_uint::try_from(TEXT_BYTES).ok()?);
    check(call, status).ok()?;
    Some(CStr::from_bytes_until_nul(&room).ok()?.to_string_lossy().into_owned())
}

fn check(call: &str, status: c_int) -> Result<(), String> {
    if status == SUCCESS { Ok(()) } else { Err(format!("{call} gives error {status}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A library with NVML's functions and two made-up GPUs: a machine without any can test the calls.
    const STAND_IN: &str = r#"
        #include <string.h>
        typedef struct { unsigned gpu, memory; } utilization;
        typedef struct { unsigned long long total, free, used; } memory;
        static int ready, first, second;
        int nvmlInit_v2(void) { ready = 1; return 0; }
        int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
            if (!ready) return 1;
            if (index > 1) return 2;
            *device = index ? &second : &first;
            return 0;
        }
        int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
            if (strcmp(uuid, "GPU-beef")) return 6;
            *device = &second;
            return 0;
        }
        int nvmlDeviceGetUtilizationRates(void *device, utilization *u) {
            if (device == &first) return 3;
            u->gpu = 37; u->memory = 5;
            return 0;
        }
        int nvmlDeviceGetMemoryInfo(void *device, memory *m) {
            m->total = 80ULL << 30; m->free = 79ULL << 30; m->used = (1ULL << 30) + 5;
            return device == &second ? 0 : 3;
        }
        int nvmlDeviceGetName(void *device, char *name, unsigned length) {
            if (length < 96) return 7;
            strcpy(name, device == &second ? "NVIDIA H200" : "NVIDIA L4");
            return 0;
        }
        int nvmlSystemGetDriverVersion(char *version, unsigned length) {
            if (length < 80) return 7;
            strcpy(version, "570.86.15");
            return 0;
        }
    "#;

    #[test]
    fn gpus_are_asked_as_the_header_says() {
        let folder = tempfile::tempdir().unwrap();
        let (source, library) = (folder.path().join("nvml.c"), folder.path().join("libnvml.so"));
        std::fs::write(&source, STAND_IN).unwrap();
        let compiled = std::process::Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .args([&library, &source])
            .status()
            .unwrap();
        assert!(compiled.success());
        let open = |gpu: &str| Nvml::open_in(library.to_str().unwrap(), gpu);
        let expected = GpuUse { share: 0.37, memory_bytes: (1 << 30) + 5 };
        assert_eq!(open("1").unwrap().now(), Some(expected));
        assert_eq!(open("GPU-beef").unwrap().now(), Some(expected));
        assert_eq!(open("0").unwrap().now(), None);
        let (name, driver) = ("NVIDIA H200".to_owned(), "570.86.15".to_owned());
        let expected = Gpu { name, memory_bytes: 80 << 30, driver };
        assert_eq!(open("1").unwrap().identity(), Some(expected));
        assert_eq!(open("0").unwrap().identity(), None, "it does not tell its memory");
        assert!(open("2").unwrap_err().contains("GetHandleByIndex_v2 gives error 2"));
        assert!(open("GPU-dead").unwrap_err().contains("GetHandleByUUID gives error 6"));
        assert!(Nvml::open_in("libmuster_nowhere.so", "0").is_err());
    }
}
