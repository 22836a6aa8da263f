//! Values of fixed width, little endian, one after another. What everything else is measured against.

use super::selection::Selection;
use super::{Flaw, Input, check_decoded_bytes};

/// A value of fixed width and its bytes.
pub trait Fixed: Copy + Default {
    const WIDTH_BYTES: usize;

    fn write(self, out: &mut [u8]);
    fn read(bytes: &[u8]) -> Self;
}

macro_rules! fixed {
    ($($native:ty),*) => {$(
        impl Fixed for $native {
            const WIDTH_BYTES: usize = size_of::<$native>();

            #[inline(always)]
            fn write(self, out: &mut [u8]) {
                out.copy_from_slice(&self.to_le_bytes());
            }

            #[inline(always)]
            fn read(bytes: &[u8]) -> Self {
                let mut array = [0; size_of::<$native>()];
                array.copy_from_slice(bytes);
                <$native>::from_le_bytes(array)
            }
        }
    )*};
}

fixed!(i16, i32, i64, i128, f32, f64);

impl Fixed for [u8; 16] {
    const WIDTH_BYTES: usize = 16;

    #[inline(always)]
    fn write(self, out: &mut [u8]) {
        out.copy_from_slice(&self);
    }

    #[inline(always)]
    fn read(bytes: &[u8]) -> Self {
        let mut array = [0; 16];
        array.copy_from_slice(bytes);
        array
    }
}

pub fn estimate<T: Fixed>(rows: usize) -> usize {
    rows * T::WIDTH_BYTES
}

pub fn encode<T: Fixed>(values: &[T], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + estimate::<T>(values.len()), 0);
    for (target, value) in out[start..].chunks_exact_mut(T::WIDTH_BYTES).zip(values) {
        value.write(target);
    }
}

pub fn decode<T: Fixed>(input: &mut Input<'_>, selection: &Selection<'_>) -> Result<Vec<T>, Flaw> {
    check_decoded_bytes(selection.rows(), T::WIDTH_BYTES)?;
    let bytes = input.take(estimate::<T>(selection.rows()))?;
    let mut values = Vec::with_capacity(selection.count());
    for range in selection.ranges() {
        let bytes = &bytes[range.start * T::WIDTH_BYTES..range.end * T::WIDTH_BYTES];
        values.extend(bytes.chunks_exact(T::WIDTH_BYTES).map(T::read));
    }
    Ok(values)
}
