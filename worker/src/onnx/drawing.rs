//! A graph of operations, drawn one after the other.

use tch::{Device, Kind, Tensor};

use super::message::{
    Attribute, Dimension, FLOAT, Graph, INT64, Node, Shape, TensorType, ValueInfo, ValueType,
    Values,
};
use crate::model::ModelError;

/// A value of the graph, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wire(String);

/// An attribute of an operation.
#[derive(Debug, Clone, Copy)]
pub(super) enum Setting<'a> {
    /// A whole number.
    Whole(i64),
    /// A 32-bit float.
    Real(f32),
    /// A list of whole numbers.
    List(&'a [i64]),
}

/// What was drawn so far.
#[derive(Debug, Default)]
pub(super) struct Drawing {
    graph: Graph,
}

impl Drawing {
    /// An input of 64-bit integers, `[batch, sequence]`, whose sizes are known when the model runs.
    pub(super) fn input(&mut self, name: &str) -> Wire {
        let shape = [Err("batch"), Err("sequence")];
        self.graph.input.push(value_info(name, INT64, &shape));
        Wire(name.to_owned())
    }

    /// An operation with one output.
    pub(super) fn apply(
        &mut self,
        operation: &str,
        inputs: &[&Wire],
        settings: &[(&str, Setting<'_>)],
    ) -> Wire {
        let name = format!("{operation}_{}", self.graph.node.len());
        let attribute = settings.iter().map(|(name, setting)| attribute(name, *setting)).collect();
        self.graph.node.push(Node {
            input: inputs.iter().map(|wire| wire.0.clone()).collect(),
            output: vec![name.clone()],
            name: Some(name.clone()),
            op_type: Some(operation.to_owned()),
            attribute,
        });
        Wire(name)
    }

    /// Weights, as 32-bit floats.
    pub(super) fn weights(&mut self, name: &str, tensor: &Tensor) -> Result<Wire, ModelError> {
        let values = tensor.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?;
        let flat = Vec::<f32>::try_from(&values.f_view([-1])?)?;
        let bytes = flat.iter().flat_map(|value| value.to_le_bytes()).collect();
        Ok(self.constant(name, FLOAT, tensor.size(), bytes))
    }

    /// One 32-bit float.
    pub(super) fn real(&mut self, value: f32) -> Wire {
        let name = format!("real_{}", self.graph.initializer.len());
        self.constant(&name, FLOAT, Vec::new(), value.to_le_bytes().to_vec())
    }

    /// One 64-bit integer.
    pub(super) fn whole(&mut self, value: i64) -> Wire {
        let name = format!("whole_{}", self.graph.initializer.len());
        self.constant(&name, INT64, Vec::new(), value.to_le_bytes().to_vec())
    }

    /// A list of 64-bit integers.
    pub(super) fn list(&mut self, values: &[i64]) -> Wire {
        let name = format!("list_{}", self.graph.initializer.len());
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let size = crate::model::extent(values.len());
        self.constant(&name, INT64, vec![size], bytes)
    }

    fn constant(&mut self, name: &str, kind: i32, dims: Vec<i64>, bytes: Vec<u8>) -> Wire {
        self.graph.initializer.push(Values {
            dims,
            data_type: Some(kind),
            name: Some(name.to_owned()),
            raw_data: Some(bytes),
        });
        Wire(name.to_owned())
    }

    /// Names `wire` as the output, `[batch, size]` 32-bit floats, and gives the graph.
    pub(super) fn finish(mut self, wire: &Wire, name: &str, size: i64) -> Graph {
        self.graph.node.push(Node {
            input: vec![wire.0.clone()],
            output: vec![name.to_owned()],
            name: Some(name.to_owned()),
            op_type: Some("Identity".to_owned()),
            attribute: Vec::new(),
        });
        self.graph.output.push(value_info(name, FLOAT, &[Err("batch"), Ok(size)]));
        self.graph.name = Some("classifier".to_owned());
        self.graph
    }
}

fn attribute(name: &str, setting: Setting<'_>) -> Attribute {
    let mut attribute = Attribute { name: Some(name.to_owned()), ..Attribute::default() };
    match setting {
        Setting::Real(value) => (attribute.f, attribute.r#type) = (Some(value), Some(1)),
        Setting::Whole(value) => (attribute.i, attribute.r#type) = (Some(value), Some(2)),
        Setting::List(values) => {
            (attribute.ints, attribute.r#type) = (values.to_vec(), Some(7));
        }
    }
    attribute
}

/// A value with its sizes, each known or named.
fn value_info(name: &str, kind: i32, sizes: &[Result<i64, &str>]) -> ValueInfo {
    let dimension = |size: &Result<i64, &str>| match size {
        Ok(size) => Dimension { dim_value: Some(*size), dim_param: None },
        Err(name) => Dimension { dim_value: None, dim_param: Some((*name).to_owned()) },
    };
    let shape = Shape { dim: sizes.iter().map(dimension).collect() };
    let tensor_type = TensorType { elem_type: Some(kind), shape: Some(shape) };
    let r#type = Some(ValueType { tensor_type: Some(tensor_type) });
    ValueInfo { name: Some(name.to_owned()), r#type }
}
