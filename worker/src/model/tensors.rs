//! Tensors in and out of safetensors files, with the texts beside them.

use std::collections::BTreeMap;
use std::path::Path;

use muster_common::model::DirectoryError;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use tch::{Kind, Tensor};

use super::ModelError;
use super::batch::extent;
use super::parameters::NamedTensors;

/// The tensors of the safetensors file at `path`, floats of any width as 32-bit floats.
pub fn read_tensors(path: &Path) -> Result<NamedTensors, ModelError> {
    let shown = || path.display().to_string();
    let bytes =
        std::fs::read(path).map_err(|source| DirectoryError::Read { path: shown(), source })?;
    named_tensors(&bytes).map_err(|reason| ModelError::Damaged { path: shown(), reason })
}

/// Tensors of a safetensors file, floats of any width as 32-bit floats, integers as they are; what is wrong with
/// it, in words.
pub fn named_tensors(bytes: &[u8]) -> Result<NamedTensors, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let mut tensors = NamedTensors::new();
    for (name, view) in file.iter() {
        let tensor = tensor_of(&view).map_err(|reason| format!("{name}: {reason}"))?;
        tensors.insert(name.to_owned(), tensor);
    }
    Ok(tensors)
}

/// The texts beside the tensors of a safetensors file.
pub(crate) fn texts_of(bytes: &[u8]) -> Result<BTreeMap<String, String>, String> {
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
    Ok(metadata.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect())
}

fn tensor_of(view: &TensorView<'_>) -> Result<Tensor, String> {
    let kind = match view.dtype() {
        Dtype::F64 => Kind::Double,
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        other => return Err(format!("elements of type {other:?} are not read")),
    };
    let shape: Vec<i64> = view.shape().iter().map(|size| extent(*size)).collect();
    let tensor = Tensor::f_from_data_size(view.data(), &shape, kind);
    let tensor = match kind {
        Kind::Int64 | Kind::Float => tensor,
        _ => tensor.and_then(|tensor| tensor.f_to_kind(Kind::Float)),
    };
    tensor.map_err(|error| error.to_string())
}

/// A safetensors file of 32-bit float tensors, sorted by name, with a few texts beside them.
pub(crate) fn serialize_tensors<'a>(
    tensors: impl IntoIterator<Item = (String, &'a Tensor)>,
    texts: BTreeMap<String, String>,
) -> Result<Vec<u8>, ModelError> {
    let mut contents = Vec::new();
    for (name, tensor) in tensors {
        let shape: Vec<usize> =
            tensor.size().iter().map(|size| usize::try_from(*size).unwrap_or(0)).collect();
        let count = tensor.numel();
        let mut data = vec![0; count * 4];
        let flat = tensor.f_detach()?.f_to_kind(Kind::Float)?.f_contiguous()?;
        flat.f_copy_data_u8(&mut data, count)?;
        contents.push((name, shape, data));
    }
    let views = contents
        .iter()
        .map(|(name, shape, data)| {
            let view = TensorView::new(Dtype::F32, shape.clone(), data);
            view.map(|view| (name.as_str(), view))
        })
        .collect::<Result<Vec<_>, _>>();
    let texts = (!texts.is_empty()).then(|| texts.into_iter().collect());
    views
        .and_then(|views| safetensors::serialize(views, texts))
        .map_err(|error| ModelError::Torch(format!("cannot write safetensors: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrow_floats_are_widened() {
        let tensor = Tensor::from_slice(&[1.5f32, -0.25]);
        for kind in [Kind::Half, Kind::BFloat16, Kind::Double] {
            let narrow = tensor.to_kind(kind);
            let mut data = vec![0; narrow.numel() * kind.elt_size_in_bytes()];
            narrow.copy_data_u8(&mut data, narrow.numel());
            let dtype = match kind {
                Kind::Half => Dtype::F16,
                Kind::BFloat16 => Dtype::BF16,
                _ => Dtype::F64,
            };
            let view = TensorView::new(dtype, vec![2], &data).unwrap();
            let bytes = safetensors::serialize([("x", view)], None).unwrap();
            assert_eq!(named_tensors(&bytes).unwrap()["x"], tensor);
        }
        assert!(named_tensors(b"no tensors at all").is_err());
    }
}
