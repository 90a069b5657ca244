//! What tests of training share: one at a time, tensors by name, gradients that several ranks add up.

use std::sync::{Mutex, MutexGuard, PoisonError};

use muster_worker::model::NamedTensors;
use muster_worker::train::{TrainError, Trainer};
use tch::Tensor;

/// Held by a test that draws or computes: the generator and the number of threads are the process's.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    tch::set_num_threads(1);
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The tensors as they are now.
pub fn copied<'a>(tensors: impl Iterator<Item = (&'a str, Tensor)>) -> NamedTensors {
    tensors.map(|(name, tensor)| (name.to_owned(), tensor.detach().copy())).collect()
}

/// Largest difference over the largest value, of all tensors together; infinite where the names differ.
pub fn distance(a: &NamedTensors, b: &NamedTensors) -> f64 {
    if !a.keys().eq(b.keys()) {
        return f64::INFINITY;
    }
    let largest = |tensors: &mut dyn Iterator<Item = Tensor>| {
        tensors.map(|tensor| tensor.abs().max().double_value(&[])).fold(0.0, f64::max)
    };
    let differences = largest(&mut a.values().zip(b.values()).map(|(a, b)| a - b));
    differences / largest(&mut b.values().map(Tensor::shallow_clone))
}

/// The gradient of a parameter; that of a table whose rows were looked up is sparse.
pub fn gradient_of(parameter: &Tensor) -> Tensor {
    let gradient = parameter.grad();
    if gradient.is_sparse() { gradient.to_dense(None, false) } else { gradient }
}

/// Gradient and loss of the first step: one list of examples per rank, each cut into micro-batches.
/// The ranks' gradients add up; every rank divides by what all examples count.
pub fn summed_gradient<'a>(
    mut trainer: impl FnMut(u32) -> Trainer<'a>,
    shards: &[&[u32]],
) -> Result<(NamedTensors, f64), TrainError> {
    let whole = shards.concat();
    let (mut sum, mut total) = (NamedTensors::new(), 0.0);
    for (rank, shard) in (0..).zip(shards) {
        let mut trainer = trainer(rank);
        let normalizer = trainer.normalizer(1, &whole);
        total += trainer.accumulate(1, shard, normalizer)?.double_value(&[]);
        for (name, tensor) in trainer.model()?.trained() {
            let own = gradient_of(tensor);
            let so_far = sum.remove(name);
            sum.insert(name.to_owned(), so_far.map_or_else(|| own.copy(), |so_far| so_far + &own));
        }
    }
    Ok((sum, total))
}
