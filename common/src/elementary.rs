//! Logarithms, exponentials and cosines whose last bit decides something.
//!
//! IEEE 754 says to the last bit what `+`, `-`, `*`, `/` and the square root give, and leaves these open. Those of the
//! standard library are the C library's: they differ from one of its versions to the next, and glibc chooses among
//! several by what the processor can do. Whatever is computed again when a journal is replayed must not depend on
//! that, as a hyperparameter with another last bit is another trial, whose checkpoints are refused.

use serde::{Deserialize, Serialize};

/// Who computes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Elementary {
    /// The C library of this machine. So it was before there was a choice, and what was decided then is decided
    /// again in the same way.
    #[default]
    Platform,
    /// The crate `libm`, which is made of exact operations only: the same bits on every machine.
    Portable,
    /// The same, and of long sums of exponentials several terms at a time.
    Lanes,
}

impl Elementary {
    /// Who computes them where nothing was decided before.
    pub const NEWEST: Self = Self::Lanes;

    /// The natural logarithm.
    #[inline]
    pub fn ln(self, x: f64) -> f64 {
        match self {
            Self::Platform => x.ln(),
            Self::Portable | Self::Lanes => libm::log(x),
        }
    }

    /// The exponential.
    #[inline]
    pub fn exp(self, x: f64) -> f64 {
        match self {
            Self::Platform => x.exp(),
            Self::Portable | Self::Lanes => libm::exp(x),
        }
    }

    /// The cosine of an angle in radians.
    #[inline]
    pub fn cos(self, x: f64) -> f64 {
        match self {
            Self::Platform => x.cos(),
            Self::Portable | Self::Lanes => libm::cos(x),
        }
    }
}

/// A power, by squaring. [`f64::powi`] makes these products too where it is not replaced by something else, which
/// its documentation leaves open.
pub fn power(base: f64, exponent: u32) -> f64 {
    let (mut square, mut rest, mut product) = (base, exponent, 1.0);
    loop {
        if rest % 2 == 1 {
            product *= square;
        }
        rest /= 2;
        if rest == 0 {
            return product;
        }
        square *= square;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Row = (f64, u64);

    /// Bits of the functions of `fdlibm`, worked out in Python from their published polynomials. That of 1 is off by
    /// one in the last place there, and a C library that rounds better gives another.
    const EXPONENTIALS: [Row; 6] = [
        (-30.0, 0x3d3a_56e0_c2ac_7f75),
        (-1.5, 0x3fcc_8f87_724b_5c1d),
        (-0.1, 0x3fec_f46d_99d5_2b3a),
        (0.3, 0x3ff5_9905_8c8c_1a96),
        (1.0, 0x4005_bf0a_8b14_576a),
        (7.25, 0x4096_006b_5d53_e8d9),
    ];
    const LOGARITHMS: [Row; 6] = [
        (1e-5, 0xc027_069e_2aa2_aa5b),
        (1e-3, 0xc01b_a18a_998f_ffa0),
        (0.1, 0xc002_6bb1_bbb5_5515),
        (0.7, 0xbfd6_d3c3_24e1_3f50),
        (2.0, 0x3fe6_2e42_fefa_39ef),
        (90.5, 0x4012_057a_6e67_47ed),
    ];
    const COSINES: [Row; 6] = [
        (0.5, 0x3fec_1528_065b_7d50),
        (1.0, 0x3fe1_4a28_0fb5_068c),
        (2.0, 0xbfda_a226_5753_7205),
        (3.5, 0xbfed_f774_03c1_1a5f),
        (4.0, 0xbfe4_eaa6_06db_24c1),
        (6.0, 0x3fee_b9b7_0978_22f5),
    ];

    #[test]
    fn the_bits_are_the_same_on_every_machine() {
        let portable = Elementary::Portable;
        let assert_bits = |name: &str, rows: [Row; 6], function: &dyn Fn(f64) -> f64| {
            for (x, bits) in rows {
                assert_eq!(function(x).to_bits(), bits, "{name} of {x}");
            }
        };
        assert_bits("exp", EXPONENTIALS, &|x| portable.exp(x));
        assert_bits("ln", LOGARITHMS, &|x| portable.ln(x));
        assert_bits("cos", COSINES, &|x| portable.cos(x));
    }

    proptest! {
        /// What was computed with [`f64::powi`] comes out as it did.
        #[test]
        fn powers_are_those_of_before(base in -3.0f64..3.0, exponent in 0u32..400) {
            let before = base.powi(i32::try_from(exponent).unwrap());
            prop_assert_eq!(power(base, exponent).to_bits(), before.to_bits());
        }

        #[test]
        fn both_are_all_but_equal(x in 1e-6f64..20.0) {
            let (a, b) = (Elementary::Platform, Elementary::Portable);
            for (a, b) in [(a.ln(x), b.ln(x)), (a.exp(x), b.exp(x)), (a.cos(x), b.cos(x))] {
                prop_assert!((a - b).abs() <= 1e-15 * a.abs().max(1.0), "{} {}", a, b);
            }
        }
    }
}
