//! When a parameter is first trained: gradual unfreezing (Howard, Ruder 2018).

use muster_common::manifest::Unfreezing;

use crate::model::{Depth, Frozen};

/// The groups of a model and the time between them. Group 0 is the head with the pooler; then come
/// the encoder layers from the top, a few at a time, then the embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stages {
    /// Steps from one group to the next; 0: all are trained from the start.
    every_steps: u64,
    layers_per_group: usize,
    num_layers: usize,
    frozen_layers: usize,
}

impl Stages {
    /// For a model of `num_layers` encoder layers. `steps` are those of [`Unfreezing::every`].
    pub(super) fn new(
        unfreezing: Option<Unfreezing>,
        steps: u64,
        num_layers: usize,
        frozen: Frozen,
    ) -> Self {
        let layers_per_group = unfreezing.map_or(1, |unfreezing| unfreezing.layers);
        Self {
            every_steps: if unfreezing.is_some() { steps } else { 0 },
            layers_per_group: usize::try_from(layers_per_group).unwrap_or(usize::MAX).max(1),
            num_layers,
            frozen_layers: frozen.layers.min(num_layers),
        }
    }

    fn group(&self, depth: Depth) -> u64 {
        let layers_above = match depth {
            Depth::Head | Depth::Pooler => return 0,
            Depth::Layer(number) => self.num_layers.saturating_sub(number + 1),
            // Layers that never train leave no gap before the embeddings.
            Depth::Embeddings => {
                let groups = (self.num_layers - self.frozen_layers).div_ceil(self.layers_per_group);
                return groups as u64 + 1;
            }
        };
        (layers_above / self.layers_per_group) as u64 + 1
    }

    /// Updates done before parameters of `depth` get their first one.
    pub(super) fn begins_after(&self, depth: Depth) -> u64 {
        self.group(depth).saturating_mul(self.every_steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_common::manifest::Budget;

    fn begins(layers: u32, frozen: Frozen, depth: Depth) -> u64 {
        let unfreezing = Unfreezing { every: Budget::Steps(10), layers };
        Stages::new(Some(unfreezing), 10, 6, frozen).begins_after(depth)
    }

    #[test]
    fn groups_join_from_the_top_down() {
        let plain = Frozen::default();
        let order = [Depth::Head, Depth::Pooler, Depth::Layer(5), Depth::Layer(4), Depth::Layer(0)];
        let steps: Vec<u64> = order.iter().map(|depth| begins(1, plain, *depth)).collect();
        assert_eq!(steps, [0, 0, 10, 20, 60]);
        assert_eq!(begins(1, plain, Depth::Embeddings), 70);
        let steps: Vec<u64> = (0..6).map(|layer| begins(4, plain, Depth::Layer(layer))).collect();
        assert_eq!(steps, [20, 20, 10, 10, 10, 10]);
        assert_eq!(begins(4, plain, Depth::Embeddings), 30);
    }

    #[test]
    fn frozen_layers_leave_no_gap() {
        let frozen = Frozen { embeddings: false, layers: 4 };
        assert_eq!(begins(1, frozen, Depth::Layer(4)), 20);
        assert_eq!(begins(1, frozen, Depth::Embeddings), 30);
    }

    #[test]
    fn without_unfreezing_everything_trains_from_the_start() {
        let stages = Stages::new(None, 10, 6, Frozen::default());
        assert_eq!(stages.begins_after(Depth::Embeddings), 0);
    }
}
