//! How sure a share is: the score interval of Wilson 1927, which is right for small counts and near 0 and 1 too.

use super::bootstrap::Interval;

/// The 97.5 % quantile of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// Ends of the 95 % interval of a share of `part` in `whole`; `None` where `whole` is 0.
pub fn wilson(part: u64, whole: u64) -> Option<Interval> {
    if whole == 0 {
        return None;
    }
    let (count, share) = (whole as f64, part.min(whole) as f64 / whole as f64);
    let scale = 1.0 + Z * Z / count;
    let middle = (share + Z * Z / (2.0 * count)) / scale;
    let spread = (share * (1.0 - share) / count + Z * Z / (4.0 * count * count)).sqrt();
    let half = Z * spread / scale;
    Some(Interval { low: (middle - half).max(0.0), high: (middle + half).min(1.0) })
}
