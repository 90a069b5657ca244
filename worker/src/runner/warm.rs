//! What a runner keeps between runs, so that the second trial of an experiment starts at once.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use muster_common::id::ExperimentId;
use muster_common::run::RunSpec;
use muster_common::seed::Seed;
use muster_common::storage::Store;
use tokio::runtime::Handle;

use super::task::TaskError;
use super::SLOT_DEVICE;
use crate::data::{self, Dataset};
use crate::model::{Classifier, Frozen, Pretrained, WEIGHTS_FILE};
use crate::prefix::{Prefix, PrefixCache, PrefixProgress};

/// Reading and tokenizing a large file takes minutes; longer than this it hangs.
const DATA_DEADLINE: Duration = Duration::from_hours(1);

/// Things that many runs need and that no run changes.
#[derive(Debug, Default)]
pub struct Warm {
    data: Option<(ExperimentId, String, Arc<Dataset>)>,
    pretrained: Option<(WeightsStamp, Arc<Pretrained>)>,
    prefix: Option<Arc<PrefixCache>>,
}

/// Tells a file from one that was written over it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct WeightsStamp {
    directory: String,
    bytes: u64,
    modified: Option<SystemTime>,
}

impl Warm {
    /// The dataset of the experiment, read once.
    pub(super) fn data(
        &mut self,
        spec: &RunSpec,
        store: &Store,
        runtime: &Handle,
    ) -> Result<Arc<Dataset>, TaskError> {
        if let Some((experiment, url, data)) = &self.data {
            if *experiment == spec.experiment && url == store.url() {
                return Ok(Arc::clone(data));
            }
        }
        let loading = async {
            tokio::time::timeout(DATA_DEADLINE, data::load(store, &spec.manifest)).await
        };
        let data = runtime.block_on(loading).map_err(|_| TaskError::DataOverdue(DATA_DEADLINE))??;
        let data = Arc::new(data);
        self.data = Some((spec.experiment.clone(), store.url().to_owned(), Arc::clone(&data)));
        Ok(data)
    }

    /// The pretrained weights of the manifest, read once.
    pub(super) fn pretrained(&mut self, directory: &str) -> Result<Arc<Pretrained>, TaskError> {
        let file = std::fs::metadata(Path::new(directory).join(WEIGHTS_FILE));
        let stamp = WeightsStamp {
            directory: directory.to_owned(),
            bytes: file.as_ref().map_or(0, std::fs::Metadata::len),
            modified: file.and_then(|file| file.modified()).ok(),
        };
        if let Some((known, pretrained)) = &self.pretrained {
            if *known == stamp {
                return Ok(Arc::clone(pretrained));
            }
        }
        let pretrained = Arc::new(Pretrained::read(Path::new(directory))?);
        self.pretrained = Some((stamp, Arc::clone(&pretrained)));
        Ok(pretrained)
    }

    /// The activations of the frozen prefix; blocks that are missing are computed. `None` inside:
    /// nothing is cached for this model; `None` outside: `go_on` said to stop.
    #[expect(clippy::option_option, reason = "the two say different things, see above")]
    pub(super) fn prefix(
        &mut self,
        prefix: Option<Prefix>,
        model: &Classifier,
        data: &Dataset,
        runtime: &Handle,
        go_on: impl FnMut(PrefixProgress) -> ControlFlow<()>,
    ) -> Result<Option<Option<Arc<PrefixCache>>>, TaskError> {
        let Some(prefix) = prefix else { return Ok(Some(None)) };
        if let Some(cache) = &self.prefix {
            if cache.is_of(&prefix) {
                return Ok(Some(Some(Arc::clone(cache))));
            }
        }
        if !prefix.compute(runtime, model, data, (0, 1), go_on)? {
            return Ok(None);
        }
        let cache = Arc::new(prefix.open(runtime)?);
        self.prefix = Some(Arc::clone(&cache));
        Ok(Some(Some(cache)))
    }

    /// A model to train for this run; the head is drawn from `seed`.
    pub(super) fn model(
        &mut self,
        spec: &RunSpec,
        data: &Dataset,
        seed: Seed,
    ) -> Result<(Arc<Pretrained>, Classifier), TaskError> {
        let settings = &spec.manifest.model;
        let pretrained = self.pretrained(&settings.pretrained)?;
        let (labels, frozen) = (data.summary.labels.clone(), Frozen::from(settings));
        let model = Classifier::to_train(&pretrained, labels, frozen, seed, SLOT_DEVICE)?;
        Ok((pretrained, model))
    }
}
