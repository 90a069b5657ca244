//! The table of the word embeddings while it is trained, on the CPU: a step reads a few of its rows and updates those
//! only; what AdamW does to the others in the meantime is made up for when they are read. That saves two passes
//! over half of a small model's weights and their moments in every step.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tch::{Device, Kind, Tensor};

use super::ModelError;
use crate::ffi::{AdamW, RowGradient, RowTable, RowUpdate, ShimError};

/// A trained table, its moments, and what its rows have not had yet. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct LazyTable(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    table: RowTable,
    /// Betas and epsilon are those of every update.
    constants: AdamW,
    /// All rows have had the updates up to this one.
    base: i64,
    /// Those after it.
    updates: Vec<RowUpdate>,
}

impl State {
    fn refresh(&self, rows: Option<&Tensor>) -> Result<(), ShimError> {
        self.table.refresh(rows, &self.updates, self.base, &self.constants)
    }

    fn number(&self) -> i64 {
        self.base.saturating_add(i64::try_from(self.updates.len()).unwrap_or(i64::MAX))
    }
}

impl LazyTable {
    /// Of `values`, `[V, D]`, 32-bit floats on the CPU, whose memory it shares; moments of zero.
    pub(crate) fn new(values: &Tensor, constants: AdamW) -> Result<Self, ModelError> {
        let (num_rows, _) = values.size2()?;
        let zeros = || Tensor::f_zeros(values.size(), (Kind::Float, Device::Cpu));
        let table = RowTable {
            values: values.shallow_clone(),
            first_moment: zeros()?,
            second_moment: zeros()?,
            seen: Tensor::f_zeros([num_rows], (Kind::Int64, Device::Cpu))?,
        };
        let state = State { table, constants, base: 0, updates: Vec::new() };
        Ok(Self(Arc::new(Mutex::new(state))))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings the rows of these tokens up to date, `[T]`, 64-bit: they are about to be read.
    pub(crate) fn refresh(&self, ids: &Tensor) -> Result<(), ModelError> {
        Ok(self.state().refresh(Some(ids))?)
    }

    /// Brings all rows up to date: the table or its moments are about to be read.
    pub(crate) fn settle(&self) -> Result<(), ModelError> {
        let mut state = self.state();
        state.refresh(None)?;
        state.base = state.number();
        state.updates.clear();
        Ok(())
    }

    /// The values, and the first and second moments; they share their memory with it. Up to date after
    /// [`LazyTable::settle`].
    pub(crate) fn tensors(&self) -> [Tensor; 3] {
        let RowTable { values, first_moment, second_moment, .. } = &self.state().table;
        [values, first_moment, second_moment].map(Tensor::shallow_clone)
    }

    /// The values and moments were overwritten: nothing is to be made up for.
    pub(crate) fn forget(&self) -> Result<(), ModelError> {
        let mut state = self.state();
        state.updates.clear();
        state.base = 0;
        let _zeroed = state.table.seen.f_zero_()?;
        Ok(())
    }

    /// The gradient of the rows that were read since gradients were cleared.
    pub(crate) fn gradient(&self) -> Result<RowGradient, ModelError> {
        Ok(self.state().table.gradient()?)
    }

    /// An update of the whole table: of the rows of `gradient`, divided by `divisor`, now. Betas and epsilon are
    /// those it was made with.
    pub(crate) fn update(
        &self,
        gradient: &RowGradient,
        update: &AdamW,
        divisor: f32,
    ) -> Result<(), ModelError> {
        let mut state = self.state();
        let update = RowUpdate::of(update);
        let number = state.number() + 1;
        state.table.update(gradient, &update, number, divisor, &state.constants)?;
        state.updates.push(update);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ffi;
    use muster_common::seed::Seed;

    const UPDATE: AdamW = AdamW {
        step: 0,
        learning_rate: 1e-2,
        beta1: 0.9,
        beta2: 0.999,
        weight_decay: 0.1,
        epsilon: 1e-8,
    };

    fn weights() -> Tensor {
        let values: Vec<f32> = (0..40 * 19u16).map(|n| f32::from(n % 41) / 20.0 - 1.0).collect();
        Tensor::from_slice(&values).view([40, 19]).set_requires_grad(true)
    }

    /// Tokens of step `step`; some rows come seldom, some never.
    fn ids(step: u64) -> Tensor {
        let mut draws = Seed(step).draws();
        let ids = (0..12).map(|_| {
            let most = draws.below(38);
            i64::try_from(draws.below(1 + most)).unwrap()
        });
        Tensor::from_slice(&ids.collect::<Vec<i64>>())
    }

    /// Something that has gradients that differ from step to step.
    fn loss(looked_up: &Tensor) -> Tensor {
        (looked_up.sin() * looked_up.cumsum(0, Kind::Float)).sum(Kind::Float)
    }

    /// Twenty updates of a lazy table that is settled after those steps; its tensors.
    fn lazily(settles: impl Fn(u64) -> bool) -> [Tensor; 3] {
        let values = weights();
        let table = LazyTable::new(&values, UPDATE).unwrap();
        for step in 1..=20 {
            let ids = ids(step);
            table.refresh(&ids).unwrap();
            loss(&Tensor::embedding(&values, &ids, 0, false, true)).backward();
            let gradient = table.gradient().unwrap();
            table.update(&gradient, &AdamW { step, ..UPDATE }, 2.0).unwrap();
            ffi::clear_gradients(&[values.shallow_clone()]).unwrap();
            if settles(step) {
                table.settle().unwrap();
            }
        }
        table.settle().unwrap();
        table.tensors().map(|tensor| tensor.detach())
    }

    #[test]
    fn rows_are_the_same_whenever_they_are_brought_up_to_date() {
        let every_step = lazily(|_| true);
        assert_eq!(lazily(|_| false), every_step);
        assert_eq!(lazily(|step| step % 7 == 0), every_step);
    }

    #[test]
    fn updates_are_those_of_the_dense_optimizer() {
        let values = weights();
        let moments = [(); 2].map(|()| Tensor::zeros([40, 19], (Kind::Float, Device::Cpu)));
        let list = [values.shallow_clone()];
        let two = Tensor::from(2.0f32);
        for step in 1..=20 {
            loss(&Tensor::embedding(&values, &ids(step), 0, false, false)).backward();
            let [first, second] = moments.each_ref().map(|moment| [moment.shallow_clone()]);
            // A norm of two where one is the limit: gradients are halved.
            let clip = ffi::Clip { norm: &two, max_norm: 1.0 };
            let update = AdamW { step, ..UPDATE };
            ffi::adamw(&list, &first, &second, &update, Some(clip), None).unwrap();
            ffi::clear_gradients(&list).unwrap();
        }
        let [first, second] = moments;
        for (dense, lazy) in [values.detach(), first, second].iter().zip(lazily(|_| false)) {
            let distance = (dense - lazy).abs().max().double_value(&[]);
            assert!(distance < 2e-6, "{distance}");
        }
    }

    #[test]
    fn what_was_read_too_early_is_refused() {
        let values = weights();
        let table = LazyTable::new(&values, UPDATE).unwrap();
        let read = |ids: &[i64]| {
            loss(&Tensor::embedding(&values, &Tensor::from_slice(ids), 0, false, true)).backward();
            let gradient = table.gradient().unwrap();
            ffi::clear_gradients(&[values.shallow_clone()]).unwrap();
            gradient
        };
        table.update(&read(&[1, 2]), &AdamW { step: 1, ..UPDATE }, 1.0).unwrap();
        let error = table.update(&read(&[2, 3]), &AdamW { step: 2, ..UPDATE }, 1.0).unwrap_err();
        assert!(error.to_string().contains("row 3"), "{error}");
        assert!(table.refresh(&Tensor::from_slice(&[40i64])).is_err());
        assert!(table.gradient().is_err());
    }
}
