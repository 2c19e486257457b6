//! How long to wait, and how objects that would act together are spread out.

use std::time::Duration;

use jiff::Timestamp;

/// Longest wait between two tries.
pub const MAX_BACKOFF: Duration = Duration::from_mins(5);
/// Wait after the first failure; it doubles with each further one.
pub const FIRST_BACKOFF: Duration = Duration::from_secs(2);

/// The wait after the `failures`-th failure in a row (from 1): `first`, doubled each time, at most [`MAX_BACKOFF`].
pub fn backoff(first: Duration, failures: i64) -> Duration {
    let doublings = u32::try_from(failures.clamp(1, 16) - 1).unwrap_or(0);
    first
        .saturating_mul(2_u32.saturating_pow(doublings))
        .min(MAX_BACKOFF)
}

/// Adds up to a quarter, the same for the same seed and count.
pub fn jittered(wait: Duration, failures: i64, seed: u64) -> Duration {
    let spread = spread(seed ^ failures.unsigned_abs());
    wait + wait.mul_f64(spread / 4.0)
}

/// A number in 0..1 that looks random but is the same for the same seed.
#[allow(clippy::cast_precision_loss, reason = "53 bits are all that is kept")]
pub fn spread(seed: u64) -> f64 {
    // The finaliser of SplitMix64: neighbouring seeds end far apart.
    let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Time from `now` until `then`, zero if it has passed.
pub fn until(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(then.duration_since(now)).unwrap_or_default()
}
