//! What a runner keeps between runs, so that the second trial of an experiment starts at once.

use std::ops::ControlFlow;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use muster_common::id::ExperimentId;
use muster_common::run::RunSpec;
use muster_common::seed::Seed;
use muster_common::storage::Store;
use tch::Device;
use tokio::runtime::Handle;

use super::task::TaskError;
use crate::data::{self, Dataset};
use crate::model::{Adaptation, Classifier, Pretrained, PretrainedStamp};
use crate::prefix::{Prefix, PrefixCache, PrefixProgress};

/// Reading and tokenizing a large file takes minutes; longer than this it hangs.
const DATA_DEADLINE: Duration = Duration::from_secs(60 * 60);

/// Things that many runs need and that no run changes.
#[derive(Debug)]
pub struct Warm {
    device: Device,
    data: Option<(ExperimentId, String, Rc<Dataset>)>,
    pretrained: Option<(PretrainedStamp, Rc<Pretrained>)>,
    prefix: Option<Rc<PrefixCache>>,
}

impl Warm {
    /// Nothing yet; models will lie on `device`.
    pub fn new(device: Device) -> Self {
        Self { device, data: None, pretrained: None, prefix: None }
    }

    /// The dataset of the experiment, read once.
    pub(super) fn data(
        &mut self,
        spec: &RunSpec,
        store: &Store,
        runtime: &Handle,
    ) -> Result<Rc<Dataset>, TaskError> {
        if let Some((experiment, url, data)) = &self.data
            && *experiment == spec.experiment
            && url == store.url()
        {
            return Ok(Rc::clone(data));
        }
        let loading =
            async { tokio::time::timeout(DATA_DEADLINE, data::load(store, &spec.manifest)).await };
        let data =
            runtime.block_on(loading).map_err(|_| TaskError::DataOverdue(DATA_DEADLINE))??;
        let data = Rc::new(data);
        self.data = Some((spec.experiment.clone(), store.url().to_owned(), Rc::clone(&data)));
        Ok(data)
    }

    /// The pretrained weights of the manifest, read once.
    pub(super) fn pretrained(&mut self, directory: &str) -> Result<Rc<Pretrained>, TaskError> {
        let stamp = PretrainedStamp::of(Path::new(directory))?;
        if let Some((known, pretrained)) = &self.pretrained
            && *known == stamp
        {
            return Ok(Rc::clone(pretrained));
        }
        let pretrained = Rc::new(Pretrained::read(Path::new(directory))?);
        self.pretrained = Some((stamp, Rc::clone(&pretrained)));
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
    ) -> Result<Option<Option<Rc<PrefixCache>>>, TaskError> {
        let Some(prefix) = prefix else { return Ok(Some(None)) };
        if let Some(cache) = &self.prefix
            && cache.is_of(&prefix)
        {
            return Ok(Some(Some(Rc::clone(cache))));
        }
        if !prefix.compute(runtime, model, data, (0, 1), go_on)? {
            return Ok(None);
        }
        let cache = Rc::new(prefix.open(runtime)?);
        self.prefix = Some(Rc::clone(&cache));
        Ok(Some(Some(cache)))
    }

    /// A model to train for this run; the head is drawn from `seed`.
    pub(super) fn model(
        &mut self,
        spec: &RunSpec,
        data: &Dataset,
        seed: Seed,
    ) -> Result<(Rc<Pretrained>, Classifier), TaskError> {
        let settings = &spec.manifest.model;
        let pretrained = self.pretrained(&settings.pretrained)?;
        let (labels, adaptation) = (data.summary.labels.clone(), Adaptation::from(settings));
        let model = Classifier::to_train(&pretrained, labels, adaptation, seed, self.device)?;
        Ok((pretrained, model))
    }
}
