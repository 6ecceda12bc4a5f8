//! The load: batches of transfers from the books, paced, answered, counted.
//!
//! A batch's latency counts from the instant it was sent (closed loop) or due (open loop) until its
//! reply had been read and verified; checking every result happens after that instant.

#![expect(clippy::disallowed_methods, reason = "ids carry the wall clock")]

use std::time::{SystemTime, UNIX_EPOCH};

use stampede_client::wire::{Operation, Transfer};
use zerocopy::FromBytes;

use super::{create_results, transfers};
use crate::books::Books;
use crate::engine::work::{Done, Prepared, Side, Work};
use crate::failure::Failure;
use crate::figures::Figures;
use crate::pace::{Nanos, Pace, Start};
use crate::progress::Progress;

pub struct Load<'a> {
    pub books: &'a mut Books,
    pub pace: Pace,
    pub figures: Figures,
    pub progress: &'a Progress,
    /// The stream to draw from, instead of one for each client; other clients rest.
    pub only: Option<usize>,
}

fn unix_ms() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

impl Work for Load<'_> {
    fn prepare(&mut self, client: usize, side: Side, events: &mut [u8]) -> Option<Prepared> {
        if self.only.is_some() && client != 0 {
            return None;
        }
        let count = self.pace.reserve()?;
        let payload = &mut events[..count as usize * Transfer::SIZE];
        let batch = <[Transfer]>::mut_from_bytes(payload).expect("bodies lie in aligned buffers");
        self.books
            .fill(self.only.unwrap_or(client), side as usize, batch, unix_ms());
        Some(Prepared {
            operation: Operation::CreateTransfers,
            events: count,
        })
    }

    fn start(&mut self, now: Nanos) -> Start {
        self.pace.start(now)
    }

    fn on_start(&mut self, intended: Nanos) {
        self.figures.on_waiting(intended);
    }

    fn complete(&mut self, done: Done<'_>) -> Result<(), Failure> {
        let Load { books, figures, .. } = self;
        figures.on_acknowledged(done.now, done.intended, done.events, done.waiting_since);
        books.on_answered(
            self.only.unwrap_or(done.client),
            done.side as usize,
            transfers(done.request),
            create_results(done.results),
            |status| figures.on_unexpected(status),
        );
        Ok(())
    }

    fn overdue_since(&self, now: Nanos) -> Option<Nanos> {
        self.pace.overdue_since(now)
    }

    fn tick(&mut self, now: Nanos) {
        if let Some(since) = self.pace.overdue_since(now) {
            self.figures.on_waiting(since);
        }
        self.progress.load(
            self.figures.events(),
            now.saturating_sub(self.figures.start()),
        );
    }
}
