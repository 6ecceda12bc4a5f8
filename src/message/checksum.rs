//! XXH3-128, the checksum of headers, bodies and files.
//!
//! It detects what disks and networks do by accident; it is no defence against forgery. The crate
//! chooses its vector code when it is compiled, which is why the build targets x86-64-v3.

/// The checksum of `bytes`.
#[inline]
pub fn checksum(bytes: &[u8]) -> u128 {
    xxhash_rust::xxh3::xxh3_128(bytes)
}

#[cfg(test)]
mod tests {
    use super::checksum;

    #[test]
    fn empty_input_has_the_published_value() {
        assert_eq!(checksum(b""), 0x99aa_06d3_0147_98d8_6001_c324_468d_497f);
    }
}
