//! When a run gets nowhere: noticing it, and saying what the user can do.
//!
//! A run ends early for four reasons: no server is there, servers close every connection, nothing is
//! acknowledged any more, or the server says something after which a session cannot go on.

use stampede_client::session::{RequestError, Violation};
use stampede_client::wire::EvictionReason;
use stampede_client::wire::header::Refusal;

use super::link::Link;
use super::{Engine, MILLISECOND};
use crate::failure::Failure;
use crate::pace::Nanos;

/// Without any connection for so long at the start, there is no server.
const CONNECT_PATIENCE: Nanos = 3_000 * MILLISECOND;
/// Connections that are closed without a word this often will not get better.
const CLOSED_SILENTLY_MAX: u32 = 8;

impl Engine {
    /// Ends a run that gets nowhere.
    pub(super) fn give_up(&self, now: Nanos) -> Result<(), Failure> {
        let oldest = self
            .clients
            .iter()
            .filter_map(|client| Some(client.flight.as_ref()?.started))
            .min();
        let Some(oldest) = oldest else { return Ok(()) };
        let waited = now.saturating_sub(oldest.max(self.progress_at));
        if !self.registered {
            let heard = self.links.iter().any(|link| link.heard);
            let closed: u32 = self.links.iter().map(|link| link.closed).sum();
            if !heard && closed >= CLOSED_SILENTLY_MAX {
                return Err(Failure::unreachable(format!(
                    "the server closes every connection without an answer: it was formatted for \
                     another cluster (see --cluster), it takes no more connections, or it is not a \
                     server of this protocol\n{}",
                    self.replicas_text()
                )));
            }
            let open = self.links.iter().any(Link::is_open);
            if !heard && !open && waited >= CONNECT_PATIENCE.min(self.timeout) {
                return Err(Failure::unreachable(format!(
                    "no server answers: start one, or name its addresses with --addresses\n{}",
                    self.replicas_text()
                )));
            }
        }
        if waited >= self.timeout {
            return Err(Failure::unreachable(format!(
                "nothing was acknowledged for {:.1} s: see the replicas' logs (is a quorum of them \
                 up?), or allow more time with --timeout\n{}",
                waited as f64 / 1e9,
                self.replicas_text()
            )));
        }
        Ok(())
    }

    /// One line for each replica: how many clients are connected, and why others are not.
    fn replicas_text(&self) -> String {
        let mut text = String::new();
        for replica in 0..self.replicas {
            let links = || self.links.iter().skip(replica).step_by(self.replicas);
            let open = links().filter(|link| link.is_open()).count();
            let error = links().find_map(|link| link.error.as_deref());
            let address = self.links[replica].address;
            text.push_str(&format!(
                "  {address}: {open} of {} connections",
                self.clients.len()
            ));
            if let Some(error) = error {
                text.push_str(&format!(", {error}"));
            }
            text.push('\n');
        }
        let view = self.counters().view;
        text.push_str(&format!(
            "  view {view}, primary expected at replica {}",
            view as usize % self.replicas
        ));
        text
    }
}

pub(super) fn refused(error: RequestError) -> Failure {
    Failure::protocol(format!("a request cannot be sent: {error}"))
}

pub(super) fn violation(violation: Violation) -> Failure {
    Failure::protocol(format!("the server broke the protocol: {violation}"))
}

pub(super) fn refusal_text(refusal: Refusal) -> String {
    format!("a message was refused: {refusal}")
}

pub(super) fn evicted(reason: EvictionReason) -> Failure {
    let advice = match reason {
        EvictionReason::NoSession => {
            "the server does not know the session: it lost its state, or more than 64 clients came"
        }
        EvictionReason::ClientReleaseTooLow | EvictionReason::ClientReleaseTooHigh => {
            "the server does not serve clients of release 0.17.9"
        }
        EvictionReason::InvalidRequestBodySize => "the request is too large: use a smaller --batch",
        EvictionReason::InvalidRequestOperation
        | EvictionReason::InvalidRequestBody
        | EvictionReason::SessionTooLow
        | EvictionReason::SessionReleaseMismatch => "see the server's log",
    };
    Failure::protocol(format!("the server ended a session ({reason}): {advice}"))
}
