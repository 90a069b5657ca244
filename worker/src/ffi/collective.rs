//! Collectives of libtorch's c10d. Everything here belongs to the thread that made it.

use std::ffi::{CString, c_char, c_int, c_void};
use std::net::{IpAddr, TcpListener};
use std::os::fd::IntoRawFd;
use std::path::Path;
use std::ptr::{null, null_mut};
use std::rc::Rc;
use std::time::Duration;

use tch::{Kind, Tensor};

use super::device::open_function;
use super::{RawTensor, ShimError, checked, raw};

/// Bucket of the gradients that are ready first; that of `DistributedDataParallel`.
const FIRST_BUCKET_BYTES: usize = 1 << 20;
/// Buckets of the others on GPUs; those of `DistributedDataParallel`.
const BUCKET_BYTES: usize = 25 << 20;
/// The same on CPUs. The last bucket is sent when nothing is left to compute, so a small one is better; a
/// CPU needs no large ones to be fast.
const BUCKET_BYTES_CPU: usize = 4 << 20;

type RawStore = *mut c_void;
type RawGroup = *mut c_void;
type RawWork = *mut c_void;
type RawReducer = *mut c_void;

unsafe extern "C" {
    fn muster_store_open(
        host: *const c_char,
        port: u16,
        listener: c_int,
        deadline: i64,
        result: *mut RawStore,
    ) -> c_int;
    fn muster_store_close(store: RawStore);
    fn muster_group_open(
        store: RawStore,
        name: *const c_char,
        rank: c_int,
        world_size: c_int,
        interface: *const c_char,
        address: *const c_char,
        device: c_int,
        nccl: *const c_void,
        deadline: i64,
        result: *mut RawGroup,
    ) -> c_int;
    fn muster_group_close(group: RawGroup);
    fn muster_all_reduce(
        group: RawGroup,
        tensor: RawTensor,
        largest: bool,
        deadline: i64,
        result: *mut RawWork,
    ) -> c_int;
    fn muster_work_finish(work: RawWork) -> c_int;
    fn muster_broadcast(group: RawGroup, tensors: *const RawTensor, count: usize) -> c_int;
    fn muster_reducer_open(
        group: RawGroup,
        parameters: *const RawTensor,
        names: *const *const c_char,
        count: usize,
        first_bucket_bytes: usize,
        bucket_bytes: usize,
        format: i8,
        result: *mut RawReducer,
    ) -> c_int;
    fn muster_reducer_close(reducer: RawReducer);
    fn muster_reducer_forward(reducer: RawReducer) -> c_int;
    fn muster_reducer_backward(reducer: RawReducer) -> c_int;
    fn muster_reducer_times(reducer: RawReducer, times: *mut i64) -> c_int;
}

/// Where the processes of a group find each other: a small table over TCP.
#[derive(Debug)]
pub struct Store(RawStore);

impl Store {
    /// Serves one on `listener`.
    pub fn serve(listener: TcpListener, deadline: Duration) -> Result<Self, ShimError> {
        let address = listener.local_addr().map_err(|error| ShimError {
            operation: "the store of a gang",
            message: error.to_string(),
        })?;
        Self::open(address.ip(), address.port(), listener.into_raw_fd(), deadline)
    }

    /// Connects to the one that is served there.
    pub fn connect(host: IpAddr, port: u16, deadline: Duration) -> Result<Self, ShimError> {
        Self::open(host, port, -1, deadline)
    }

    fn open(
        host: IpAddr,
        port: u16,
        listener: c_int,
        deadline: Duration,
    ) -> Result<Self, ShimError> {
        let host = text(&host.to_string())?;
        let mut store = null_mut();
        // SAFETY: a NUL-terminated name and a place for the result; a listener changes hands.
        let status = unsafe {
            muster_store_open(host.as_ptr(), port, listener, milliseconds(deadline), &raw mut store)
        };
        checked(status, "the store of a gang").map(|()| Self(store))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: made by `muster_store_open` and closed once; groups hold references of their own.
        unsafe { muster_store_close(self.0) }
    }
}

/// The plugin that holds NCCL's process group: it is linked to CUDA, which this program is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NcclPlugin(*mut c_void);

impl NcclPlugin {
    /// Opens it for the rest of the process. The CUDA part of libtorch must be open, see
    /// [`super::open_device`]. `Err`: what the loader says.
    pub fn open(file: &Path) -> Result<Self, String> {
        open_function(&file.display().to_string(), c"muster_nccl_open").map(Self)
    }
}

/// What tensors of a GPU are reduced with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GpuCollectives {
    /// Through the host's memory.
    Gloo,
    /// From GPU to GPU.
    Nccl(NcclPlugin),
}

/// This process's place in a group.
#[derive(Debug, Clone)]
pub struct Place<'a> {
    /// Told apart by it from other groups of the same store.
    pub name: &'a str,
    /// From 0.
    pub rank: u32,
    /// How many there are.
    pub world_size: u32,
    /// Network interface to use, by name; absent: the one with the address.
    pub interface: Option<&'a str>,
    /// Own address.
    pub address: IpAddr,
    /// The GPU whose tensors are reduced too, and how.
    pub gpu: Option<(usize, GpuCollectives)>,
    /// Longest wait for the others, in every operation that has no deadline of its own.
    pub deadline: Duration,
}

/// Processes that compute together. After a failure of any operation the group is of no use, and is
/// not torn down either: that would wait for what is in flight.
#[derive(Debug, Clone)]
pub struct ProcessGroup(Rc<RawHandle>);

#[derive(Debug)]
struct RawHandle {
    group: RawGroup,
    _store: Store,
}

/// Who wins when several values meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduction {
    /// All count.
    Sum,
    /// The largest.
    Max,
}

impl ProcessGroup {
    /// Joins; returns when every process has.
    pub fn open(store: Store, place: &Place<'_>) -> Result<Self, ShimError> {
        let (name, address) = (text(place.name)?, text(&place.address.to_string())?);
        let interface = place.interface.map(text).transpose()?;
        let (device, nccl) = match place.gpu {
            None => (-1, null()),
            Some((device, GpuCollectives::Gloo)) => (device_number(device), null()),
            Some((device, GpuCollectives::Nccl(NcclPlugin(open)))) => {
                (device_number(device), open.cast_const())
            }
        };
        let mut group = null_mut();
        // SAFETY: a live store, NUL-terminated names or null, the plugin's function or null, and a
        // place for the result.
        let status = unsafe {
            muster_group_open(
                store.0,
                name.as_ptr(),
                number(place.rank),
                number(place.world_size),
                interface.as_ref().map_or(null(), |name| name.as_ptr()),
                address.as_ptr(),
                device,
                nccl,
                milliseconds(place.deadline),
                &raw mut group,
            )
        };
        checked(status, "joining a gang")
            .map(|()| Self(Rc::new(RawHandle { group, _store: store })))
    }

    /// Replaces `tensor` by its reduction over all processes.
    pub fn all_reduce(
        &self,
        tensor: &Tensor,
        reduction: Reduction,
        deadline: Duration,
    ) -> Result<(), ShimError> {
        self.begin_all_reduce(tensor, reduction, deadline)?.finish()
    }

    /// The same, in the background: until it is finished, `tensor` has no value.
    pub fn begin_all_reduce(
        &self,
        tensor: &Tensor,
        reduction: Reduction,
        deadline: Duration,
    ) -> Result<PendingReduction, ShimError> {
        let mut work = null_mut();
        let largest = reduction == Reduction::Max;
        // SAFETY: a live group and tensor; the work keeps a reference to the tensor's memory.
        let status = unsafe {
            muster_all_reduce(
                self.0.group,
                tensor.as_ptr().cast(),
                largest,
                milliseconds(deadline),
                &raw mut work,
            )
        };
        checked(status, "a sum over ranks").map(|()| PendingReduction(work))
    }

    /// Gives every process the values of rank 0.
    pub fn broadcast(&self, tensors: &[Tensor]) -> Result<(), ShimError> {
        let values = raw(tensors);
        // SAFETY: the pointers are live tensors borrowed for the call.
        let status = unsafe { muster_broadcast(self.0.group, values.as_ptr(), values.len()) };
        checked(status, "handing out the values of rank 0")
    }

    /// Tears it down, after everything in flight. The last copy counts; without this call it stays
    /// until the process ends.
    pub fn close(self) {
        if let Ok(handle) = Rc::try_unwrap(self.0) {
            // SAFETY: made by `muster_group_open`; this is the only copy, so it is closed once.
            unsafe { muster_group_close(handle.group) }
        }
    }
}

/// A reduction on its way.
#[derive(Debug)]
#[must_use = "the tensor has no value until it is finished"]
pub struct PendingReduction(RawWork);

impl PendingReduction {
    /// Waits for it.
    pub fn finish(self) -> Result<(), ShimError> {
        // SAFETY: made by `muster_all_reduce`; `self` is consumed, so it is freed once.
        let status = unsafe { muster_work_finish(self.0) };
        checked(status, "a sum over ranks")
    }
}

/// Where the time of the backward passes went, in nanoseconds; means over sampled steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReductionTimes {
    /// Backward computation.
    pub compute_ns: i64,
    /// Communication, from the first bucket's start to the last one's end.
    pub communication_ns: i64,
    /// What of it went on while computation did.
    pub overlap_ns: i64,
}

/// Adds the gradients of all processes up while the backward pass still runs. Its buckets never
/// change.
#[derive(Debug)]
pub struct GradientReducer {
    reducer: RawReducer,
    _group: ProcessGroup,
}

impl GradientReducer {
    /// For these parameters, all of which get a gradient in every step; the last of the list get
    /// theirs first. All processes give the same list. `format`: what gradients are sent in, where
    /// that is not their own.
    pub fn new(
        group: &ProcessGroup,
        parameters: &[(String, Tensor)],
        format: Option<Kind>,
    ) -> Result<Self, ShimError> {
        let tensors: Vec<RawTensor> =
            parameters.iter().map(|(_, tensor)| tensor.as_ptr().cast()).collect();
        let names: Vec<CString> =
            parameters.iter().map(|(name, _)| text(name)).collect::<Result<_, _>>()?;
        let names: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        let format = match format {
            Some(Kind::Half) => 5,
            Some(Kind::BFloat16) => 15,
            _ => 0,
        };
        let on_gpu = parameters.first().is_some_and(|(_, tensor)| tensor.device().is_cuda());
        let bucket_bytes = if on_gpu { BUCKET_BYTES } else { BUCKET_BYTES_CPU };
        let mut reducer = null_mut();
        // SAFETY: a live group, two lists of `count` live entries, and a place for the result.
        let status = unsafe {
            muster_reducer_open(
                group.0.group,
                tensors.as_ptr(),
                names.as_ptr(),
                tensors.len(),
                FIRST_BUCKET_BYTES,
                bucket_bytes,
                format,
                &raw mut reducer,
            )
        };
        checked(status, "the reduction of gradients")
            .map(|()| Self { reducer, _group: group.clone() })
    }

    /// Comes before the forward whose backward reduces.
    pub fn before_forward(&self) -> Result<(), ShimError> {
        // SAFETY: a live reducer.
        checked(unsafe { muster_reducer_forward(self.reducer) }, "the reduction of gradients")
    }

    /// Comes between that forward and its backward. A backward without it adds up locally.
    pub fn before_backward(&self) -> Result<(), ShimError> {
        // SAFETY: a live reducer.
        checked(unsafe { muster_reducer_backward(self.reducer) }, "the reduction of gradients")
    }

    /// Where the time went.
    pub fn times(&self) -> Result<ReductionTimes, ShimError> {
        let mut times = [0i64; 3];
        // SAFETY: a live reducer and a place for three numbers.
        let status = unsafe { muster_reducer_times(self.reducer, times.as_mut_ptr()) };
        let [compute_ns, communication_ns, overlap_ns] = times;
        checked(status, "the times of the reduction").map(|()| ReductionTimes {
            compute_ns,
            communication_ns,
            overlap_ns,
        })
    }
}

impl Drop for GradientReducer {
    fn drop(&mut self) {
        // SAFETY: made by `muster_reducer_open` and closed once.
        unsafe { muster_reducer_close(self.reducer) }
    }
}

fn text(text: &str) -> Result<CString, ShimError> {
    let operation = "a name with a NUL in it";
    CString::new(text).map_err(|error| ShimError { operation, message: error.to_string() })
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn number(rank: u32) -> c_int {
    c_int::try_from(rank).unwrap_or(c_int::MAX)
}

fn device_number(device: usize) -> c_int {
    c_int::try_from(device).unwrap_or(c_int::MAX)
}
