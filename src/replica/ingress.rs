//! The first look at what arrives on the shared port: 256 bytes that are a header of ours or of the
//! foreign client protocol.
//!
//! The world calls this between the two steps of a receive, to know how long the body is and how it
//! may be treated. A header that passes has a good checksum and a size within bounds; everything else
//! is checked when the message is whole.

use stampede_client::wire;
use zerocopy::FromBytes;

use crate::limits::HEADER_SIZE;
use crate::message::{Header, Refusal, is_ours};

/// The reason that a replica of another release is refused for.
pub const PEER_VERSION: &str = "peer_version";

/// What a header says before its body is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inspected {
    /// Header and body.
    pub size: usize,
    /// From a replica, not from a client.
    pub ours: bool,
}

/// Looks at a header.
///
/// # Errors
/// Why the connection is to be closed.
pub fn inspect(header: &[u8; HEADER_SIZE]) -> Result<Inspected, &'static str> {
    if is_ours(header) {
        let header = Header::read_from_bytes(header).expect("as long as a header");
        header.verify().map_err(refusal_name)?;
        Ok(Inspected {
            size: header.size as usize,
            ours: true,
        })
    } else {
        let header = wire::header::frame_unaligned(header).map_err(wire::Refusal::name)?;
        Ok(Inspected {
            size: header.frame.size as usize,
            ours: false,
        })
    }
}

/// A refusal's name, for counters and logs.
pub fn refusal_name(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::HeaderChecksum => "peer_header_checksum",
        Refusal::BodyChecksum => "peer_body_checksum",
        Refusal::Version(_) => PEER_VERSION,
        Refusal::Command(_) => "peer_command",
        Refusal::Size(_) => "peer_size",
        Refusal::Cluster(_) => "peer_cluster",
        Refusal::Replica(_) => "peer_replica",
        Refusal::Reserved => "peer_reserved",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Command;

    #[test]
    fn both_kinds_of_peer_are_told_from_their_first_header() {
        let mut ours = Header::new(Command::Commit, 0, 1, 0);
        ours.seal(&[]);
        assert_eq!(
            inspect(&zerocopy::transmute!(ours)),
            Ok(Inspected {
                size: 256,
                ours: true
            })
        );

        let mut foreign: wire::header::PingClient = wire::header::Header::zeroed();
        wire::header::Header::seal(&mut foreign, &[]);
        let foreign: [u8; HEADER_SIZE] = zerocopy::transmute!(foreign);
        assert_eq!(
            inspect(&foreign),
            Ok(Inspected {
                size: 256,
                ours: false
            })
        );

        assert_eq!(inspect(&[0; HEADER_SIZE]), Err("header_checksum"));
    }
}
