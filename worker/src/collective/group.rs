//! What the ranks compute together.

use std::time::Duration;

use tch::{Kind, Tensor};

use crate::ffi::{PendingReduction, ProcessGroup, Reduction, ShimError};

/// The ranks of a run, joined. Cheap to clone; belongs to the training thread.
#[derive(Debug, Clone)]
pub struct Group {
    processes: ProcessGroup,
    rank: u32,
    world_size: u32,
    step_deadline: Duration,
}

impl Group {
    pub(super) fn new(
        processes: ProcessGroup,
        rank: u32,
        world_size: u32,
        step_deadline: Duration,
    ) -> Self {
        Self { processes, rank, world_size, step_deadline }
    }

    /// This process among the others, from 0.
    pub fn rank(&self) -> u32 {
        self.rank
    }

    /// How many there are.
    pub fn world_size(&self) -> u32 {
        self.world_size
    }

    /// The processes, for the reduction of gradients.
    pub(crate) fn processes(&self) -> &ProcessGroup {
        &self.processes
    }

    /// Replaces `tensor`, which lies in the host's memory, by its sum over all ranks.
    pub fn sum(&self, tensor: &Tensor) -> Result<(), ShimError> {
        self.processes.all_reduce(tensor, Reduction::Sum, self.step_deadline)
    }

    /// The sum of these numbers over all ranks.
    pub fn sum_all(&self, values: &[f64]) -> Result<Vec<f64>, ShimError> {
        let tensor = Tensor::f_from_slice(values)?;
        self.sum(&tensor)?;
        Ok(Vec::<f64>::try_from(tensor)?)
    }

    /// The largest of the ranks' values.
    pub fn max(&self, value: i64) -> Result<i64, ShimError> {
        self.begin_max(value)?.finish()
    }

    /// The same, in the background.
    pub fn begin_max(&self, value: i64) -> Result<PendingMax, ShimError> {
        let tensor = Tensor::f_from_slice(&[value])?;
        let reduction =
            self.processes.begin_all_reduce(&tensor, Reduction::Max, self.step_deadline)?;
        Ok(PendingMax { tensor, reduction })
    }

    /// Waits until every rank is here, for a rank that may take longer than a step.
    pub fn meet(&self, deadline: Duration) -> Result<(), ShimError> {
        let nothing = Tensor::f_zeros([1], (Kind::Int64, tch::Device::Cpu))?;
        self.processes.all_reduce(&nothing, Reduction::Sum, deadline.max(self.step_deadline))
    }

    /// Gives every rank the values of rank 0.
    pub fn broadcast(&self, tensors: &[Tensor]) -> Result<(), ShimError> {
        self.processes.broadcast(tensors)
    }

    /// Tears the group down, when this is its last copy. Only for ranks that end in good order; one
    /// that is dropped stays until the process ends, because tearing it down waits for the others.
    pub fn close(self) {
        self.processes.close();
    }
}

/// A largest value on its way.
#[derive(Debug)]
#[must_use = "the other ranks wait for it"]
pub struct PendingMax {
    tensor: Tensor,
    reduction: PendingReduction,
}

impl PendingMax {
    /// Waits for it.
    pub fn finish(self) -> Result<i64, ShimError> {
        self.reduction.finish()?;
        Ok(self.tensor.f_int64_value(&[0])?)
    }
}
