//! A foreign request becomes one of ours, in place: a new header in front of the body, which does not move.
//!
//! ```text
//!   foreign header   │ body          AEGIS checksums
//!        ▼           │   ═
//!   our header       │ body          XXH3 checksum of the body; the header is sealed by whoever completes it
//! ```

use super::RequestView;
use crate::message::{Command, Header, MessageMut, View, checksum};

/// Rewrites the header of a parsed request. What the replies need later (the foreign checksum, release, operation) is
/// carried along, so that any replica can write them.
pub fn adopt(
    mut message: MessageMut,
    request: &RequestView,
    cluster: u128,
    replica: u8,
    view: View,
) -> MessageMut {
    let mut header = Header::new(Command::Request, cluster, replica, view);
    header.release = request.release.0;
    // Only creates give their events timestamps.
    header.events = if request.operation.is_create() {
        request.events
    } else {
        0
    };
    header.client = request.client;
    header.request_checksum = request.checksum;
    header.context = request.parent;
    header.session = request.session;
    header.request = request.request;
    header.operation = request.operation.code();
    header.checksum_body = checksum(message.body_of_size(request.body_size));
    *message.header_mut() = header;
    message.set_body_size(request.body_size);
    message
}
