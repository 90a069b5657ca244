//! AdamW over a table of which a step reads a few rows; see `shim/rows.cpp`.

use std::ffi::{c_int, c_void};
use std::ptr;

use tch::Tensor;

use super::{AdamW, RawTensor, ShimError, checked};

/// What an update is for every row of its table.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowUpdate {
    /// Learning rate times weight decay.
    decay: f32,
    /// Learning rate over the bias correction of the first moment.
    step_size: f32,
    /// Root of the bias correction of the second moment.
    spread: f32,
}

/// What does not change from update to update.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq)]
struct Constants {
    beta1: f32,
    beta2: f32,
    epsilon: f32,
}

#[repr(C)]
struct RawTable {
    values: RawTensor,
    first: RawTensor,
    second: RawTensor,
    seen: RawTensor,
}

unsafe extern "C" {
    fn muster_rows_refresh(
        table: *const RawTable,
        rows: RawTensor,
        updates: *const RowUpdate,
        count: i64,
        base: i64,
        constants: *const Constants,
    ) -> c_int;
    fn muster_rows_gather(
        values: RawTensor,
        rows: *mut *mut c_void,
        sums: *mut *mut c_void,
    ) -> c_int;
    fn muster_rows_update(
        table: *const RawTable,
        rows: RawTensor,
        gradients: RawTensor,
        update: *const RowUpdate,
        number: i64,
        divisor: f32,
        constants: *const Constants,
    ) -> c_int;
}

#[expect(clippy::cast_possible_truncation, reason = "computed in 64 bits, used in 32")]
impl RowUpdate {
    /// Of `update`, whose number counts from 1.
    pub fn of(update: &AdamW) -> Self {
        let number = update.step as f64;
        let correction = |beta: f64| 1.0 - beta.powf(number);
        Self {
            decay: (update.learning_rate * update.weight_decay) as f32,
            step_size: (update.learning_rate / correction(update.beta1)) as f32,
            spread: correction(update.beta2).sqrt() as f32,
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "used in 32 bits")]
impl Constants {
    fn of(update: &AdamW) -> Self {
        Self {
            beta1: update.beta1 as f32,
            beta2: update.beta2 as f32,
            epsilon: update.epsilon as f32,
        }
    }
}

/// A table `[V, D]` on the CPU, its moments `[V, D]` (32-bit floats), and the number of updates that each row has
/// had, `[V]` (64-bit). All contiguous.
#[derive(Debug)]
pub struct RowTable {
    /// The table.
    pub values: Tensor,
    /// First moments.
    pub first_moment: Tensor,
    /// Second moments.
    pub second_moment: Tensor,
    /// Updates of each row.
    pub seen: Tensor,
}

/// The gradient of the rows that were read.
#[derive(Debug)]
pub struct RowGradient {
    rows: Tensor,
    /// Of each of them, `[N, D]`.
    pub sums: Tensor,
}

impl RowTable {
    fn raw(&self) -> RawTable {
        let pointer = |tensor: &Tensor| -> RawTensor { tensor.as_ptr().cast() };
        RawTable {
            values: pointer(&self.values),
            first: pointer(&self.first_moment),
            second: pointer(&self.second_moment),
            seen: pointer(&self.seen),
        }
    }

    /// Makes up for the updates that `rows` (`[N]`, 64-bit; absent: all) have not had. `updates` are those after
    /// update number `base`; `constants` gives betas and epsilon.
    pub fn refresh(
        &self,
        rows: Option<&Tensor>,
        updates: &[RowUpdate],
        base: i64,
        constants: &AdamW,
    ) -> Result<(), ShimError> {
        let (table, constants) = (self.raw(), Constants::of(constants));
        let rows = rows.map_or(ptr::null(), |rows| rows.as_ptr().cast());
        let count = i64::try_from(updates.len()).unwrap_or(i64::MAX);
        // SAFETY: live tensors borrowed for the call, or null for `rows`; `updates` has `count` entries. The shim
        // checks the rows' numbers against the table.
        let status = unsafe {
            muster_rows_refresh(
                &raw const table,
                rows,
                updates.as_ptr(),
                count,
                base,
                &raw const constants,
            )
        };
        checked(status, "bringing rows up to date")
    }

    /// The gradient that backward has left at the table, which was read through sparse lookups.
    pub fn gradient(&self) -> Result<RowGradient, ShimError> {
        let (mut rows, mut sums) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: a live tensor borrowed for the call, and places for two results.
        let status = unsafe {
            muster_rows_gather(self.values.as_ptr().cast(), &raw mut rows, &raw mut sums)
        };
        checked(status, "the gradient of rows")?;
        // SAFETY: on success the shim wrote two new `at::Tensor*`, which nobody else owns.
        let [rows, sums] = [rows, sums].map(|tensor| unsafe { Tensor::from_ptr(tensor.cast()) });
        Ok(RowGradient { rows, sums })
    }

    /// Update `number` of the rows of `gradient`, which is divided by `divisor`. Fails when one of them has not had
    /// the updates before it.
    pub fn update(
        &self,
        gradient: &RowGradient,
        update: &RowUpdate,
        number: i64,
        divisor: f32,
        constants: &AdamW,
    ) -> Result<(), ShimError> {
        let (table, constants) = (self.raw(), Constants::of(constants));
        // SAFETY: live tensors borrowed for the call; the shim checks the rows' numbers against the table, and
        // `sums` has as many rows as there are numbers.
        let status = unsafe {
            muster_rows_update(
                &raw const table,
                gradient.rows.as_ptr().cast(),
                gradient.sums.as_ptr().cast(),
                update,
                number,
                divisor,
                &raw const constants,
            )
        };
        checked(status, "the update of rows")
    }
}
