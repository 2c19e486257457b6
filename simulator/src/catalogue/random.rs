//! Reproducible random numbers: the same seed gives the same catalogue on every machine and with every version of every
//! crate.

/// The characters of [`SeededRandom::noise`]: six bits each, so that noise keeps three quarters of its size when
/// compressed.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// `SplitMix64`: small, fast, and good enough to make names and schemas.
#[derive(Clone, Debug)]
pub(super) struct SeededRandom(u64);

impl SeededRandom {
    /// The generator for one name: its numbers depend on the seed and the name alone.
    pub(super) fn new(seed: u64, name: &str) -> Self {
        name.bytes().fold(Self(seed), |random, byte| {
            Self((random.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)).mixed()
        })
    }

    fn mixed(mut self) -> Self {
        Self(self.number())
    }

    pub(super) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From `least` to `most`, both included.
    pub(super) fn between(&mut self, least: usize, most: usize) -> usize {
        let span = (most - least + 1) as u64;
        // The remainder is below `span`, which came from a usize.
        least + usize::try_from(self.number() % span).unwrap_or_default()
    }

    /// True in that many of a hundred cases.
    pub(super) fn percent(&mut self, chance: usize) -> bool {
        self.between(1, 100) <= chance
    }

    pub(super) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.between(0, from.len() - 1)]
    }

    /// `length` characters without any pattern.
    pub(super) fn noise(&mut self, length: usize) -> String {
        let mut text = String::with_capacity(length);
        while text.len() < length {
            let mut bits = self.number();
            for _ in 0..(length - text.len()).min(10) {
                text.push(char::from(ALPHABET[usize::from(bits.to_le_bytes()[0] & 63)]));
                bits >>= 6;
            }
        }
        text
    }
}
