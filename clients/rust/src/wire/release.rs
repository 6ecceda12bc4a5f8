//! A client or server release as one comparable integer: `major << 16 | minor << 8 | patch`.

use core::fmt;
use core::str::FromStr;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A release; ordering is numeric. Zero is no release and is never valid on the wire.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(transparent)]
pub struct Release(pub u32);

impl Release {
    pub const ZERO: Release = Release(0);
    /// Oldest release whose clients the protocol of this crate can serve.
    pub const CLIENT_MIN: Release = Release::new(0, 16, 4);
    /// The release this crate speaks.
    pub const CURRENT: Release = Release::new(0, 17, 9);

    pub const fn new(major: u16, minor: u8, patch: u8) -> Release {
        Release((major as u32) << 16 | (minor as u32) << 8 | patch as u32)
    }

    /// Major, minor, patch.
    pub const fn triple(self) -> (u16, u8, u8) {
        let [patch, minor, major_low, major_high] = self.0.to_le_bytes();
        (u16::from_le_bytes([major_low, major_high]), minor, patch)
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor, patch) = self.triple();
        write!(f, "{major}.{minor}.{patch}")
    }
}

impl fmt::Debug for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Release({self})")
    }
}

/// The text is not `major.minor.patch` with 16, 8 and 8 bits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a release: write major.minor.patch, at most 65535.255.255")]
pub struct ReleaseError(String);

impl FromStr for Release {
    type Err = ReleaseError;

    fn from_str(text: &str) -> Result<Release, ReleaseError> {
        let mut parts = text.split('.');
        let mut next = || {
            parts
                .next()
                .filter(|part| part.bytes().all(|b| b.is_ascii_digit()))
        };
        let triple = (|| {
            let major = next()?.parse().ok()?;
            let minor = next()?.parse().ok()?;
            let patch = next()?.parse().ok()?;
            Some(Release::new(major, minor, patch))
        })();
        match (triple, parts.next()) {
            (Some(release), None) => Ok(release),
            _ => Err(ReleaseError(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn encoding() {
        assert_eq!(Release::CURRENT.as_bytes(), &[0x09, 0x11, 0x00, 0x00]);
        assert_eq!(Release::CURRENT.0, 4361);
        assert!(Release::new(0, 16, 78) < Release::new(0, 17, 0));
        for text in [
            "",
            "1",
            "1.2",
            "1.2.3.4",
            "0.256.0",
            "65536.0.0",
            "+1.2.3",
            "a.b.c",
            "1..2",
        ] {
            assert!(text.parse::<Release>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_roundtrip(value in any::<u32>()) {
            prop_assert_eq!(Release(value).to_string().parse(), Ok(Release(value)));
        }
    }
}
