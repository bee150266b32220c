//! Random numbers that can be reproduced from a seed (splitmix64).

/// The sequence of random numbers of one seed.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// Takes the seed from the environment variable, or from the clock. The seed is printed, so that a failure can be reproduced.
    #[expect(clippy::print_stderr, reason = "a failure is worth nothing without its seed")]
    pub fn thrown(variable: &str) -> Self {
        let given = std::env::var(variable).ok().and_then(|text| text.parse().ok());
        let seed = given.unwrap_or_else(|| {
            let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            since.expect("after 1970").as_millis() as u64
        });
        eprintln!("{variable}={seed}");
        Self(seed)
    }

    /// A number from 0 to `limit` - 1.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// A number from the environment variable; `otherwise` if that is unset.
pub fn count(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}
