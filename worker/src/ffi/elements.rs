//! The elements of a tensor as bytes, where they lie.

use tch::{Device, Kind, TchError, Tensor};

// Files hold little-endian numbers, and here the memory is written as it is.
const _: () = assert!(cfg!(target_endian = "little"), "written for little-endian machines");

/// The elements of a tensor as 32-bit floats, the last dimension innermost: its own memory where it lies like
/// that on the CPU, else a copy.
#[derive(Debug)]
pub struct Elements {
    tensor: Tensor,
    num_bytes: usize,
}

impl Elements {
    /// Of a tensor that nobody writes to any more, through whatever handle.
    pub fn of(tensor: &Tensor) -> Result<Self, TchError> {
        let tensor = tensor.f_detach()?.f_to_device(Device::Cpu)?;
        let tensor = tensor.f_to_kind(Kind::Float)?.f_contiguous()?;
        let num_bytes = tensor.numel() * size_of::<f32>();
        Ok(Self { tensor, num_bytes })
    }
}

impl AsRef<[u8]> for Elements {
    fn as_ref(&self) -> &[u8] {
        if self.num_bytes == 0 {
            return &[];
        }
        // SAFETY: a contiguous tensor of 32-bit floats on the CPU has so many bytes from its data pointer on;
        // they live as long as the tensor does, and nobody writes to them.
        unsafe { std::slice::from_raw_parts(self.tensor.data_ptr().cast::<u8>(), self.num_bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_those_of_the_tensor_whatever_its_layout() {
        let table = Tensor::arange(6, (Kind::Float, Device::Cpu)).view([2, 3]);
        let bytes = |numbers: [f32; 6]| numbers.map(f32::to_le_bytes).concat();
        let elements = Elements::of(&table).unwrap();
        assert_eq!(elements.as_ref(), bytes([0.0, 1.0, 2.0, 3.0, 4.0, 5.0]));
        assert_eq!(elements.as_ref().as_ptr(), table.data_ptr().cast::<u8>().cast_const());
        let turned = Elements::of(&table.transpose(0, 1)).unwrap();
        drop(table);
        assert_eq!(turned.as_ref(), bytes([0.0, 3.0, 1.0, 4.0, 2.0, 5.0]));
        let whole = Tensor::from_slice(&[1i64, 2, 3, 4, 5, 6]);
        let whole = Elements::of(&whole).unwrap();
        assert_eq!(whole.as_ref(), bytes([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
        let none = Tensor::zeros([0, 3], (Kind::Float, Device::Cpu));
        assert!(Elements::of(&none).unwrap().as_ref().is_empty());
    }
}
