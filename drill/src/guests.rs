//! Guests: clients that speak rarely, and more of them than the cluster keeps sessions for.
//!
//! The clients of the load speak all the time, so theirs are never the oldest sessions; the rest is for
//! guests. One guest speaks at a time, so who has a session is known here too, without asking:
//!
//! ```text
//!    spoke long ago ──────────────────────► spoke last
//!    evicted, evicted, evicted │ seated, seated, seated
//!                              └─ a guest that registers pushes the next one out
//! ```
//!
//! Each is held against that: a seated guest must be answered, an evicted one must be told, and what it had
//! sent may not have been executed when it sends the same again in a new session.

use std::collections::VecDeque;
use std::time::Duration;

use stampede_bench::engine::Clock;
use stampede_client::wire::status::CreateTransferStatus;
use stampede_client::wire::{EvictionReason, Transfer};
use stampede_client::{Client, Error, Options};

use crate::books::{self, Batch, ClientBooks};
use crate::load;
use crate::trouble::Trouble;

/// Of these, so many times as there are sessions for them.
const PER_SEAT: u32 = 2;
/// How long a guest may wait for an answer or for its eviction; without either it was ignored.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many guests there are where so many can have a session.
pub(crate) fn count(seats: u32) -> u32 {
    seats * PER_SEAT
}

#[derive(Debug)]
struct Guest {
    /// Its number among all clients of the drill.
    number: u32,
    client: Option<Client>,
    books: ClientBooks,
}

#[derive(Debug)]
pub(crate) struct Guests {
    guests: Vec<Guest>,
    seats: Seats,
    clock: Clock,
}

impl Guests {
    /// Guests for so many seats; the first of them is client number `first`.
    pub(crate) fn new(seats: u32, first: u32, batch: u32, clock: Clock) -> Self {
        let guest = |index| Guest {
            number: first + index,
            client: None,
            books: ClientBooks {
                batch: batch.into(),
                ..ClientBooks::default()
            },
        };
        Self {
            guests: (0..count(seats)).map(guest).collect(),
            seats: Seats::new(seats as usize),
            clock,
        }
    }

    pub(crate) fn all(&self) -> Vec<usize> {
        (0..self.guests.len()).collect()
    }

    /// Those that have a session, who spoke least recently first.
    pub(crate) fn seated(&self) -> Vec<usize> {
        self.seats.order.iter().copied().collect()
    }

    /// Those that were pushed out and have not spoken since.
    pub(crate) fn evicted(&self) -> Vec<usize> {
        let mut evicted = self.all();
        evicted.retain(|index| !self.seats.has(*index));
        evicted
    }

    /// A guest registers, also if it had a session before, and speaks.
    pub(crate) fn arrives(&mut self, index: usize, cluster: &Options) -> Result<(), Trouble> {
        self.register(index, cluster)?;
        let transfers = self.guests[index].next_batch(self.clock);
        self.answered(index, &transfers)
    }

    /// A seated guest speaks: it must be answered.
    pub(crate) fn is_answered(&mut self, index: usize) -> Result<(), Trouble> {
        assert!(self.seats.has(index), "the story asks who is seated");
        let transfers = self.guests[index].next_batch(self.clock);
        self.answered(index, &transfers)
    }

    /// An evicted guest speaks: it must be told, registers, and says the same again.
    pub(crate) fn is_told(&mut self, index: usize, cluster: &Options) -> Result<(), Trouble> {
        let transfers = self.guests[index].next_batch(self.clock);
        let refused = self.guests[index].client().create_transfers(&transfers);
        match refused {
            Err(Error::Evicted(EvictionReason::NoSession)) => {}
            Err(error) => {
                return Err(failed(index, &format!("not told of its eviction: {error}")));
            }
            Ok(_) => {
                return Err(failed(index, "answered in a session that was pushed out"));
            }
        }
        self.register(index, cluster)?;
        self.answered(index, &transfers)
    }

    /// What they were told, in the order of their numbers; they leave.
    pub(crate) fn take_books(&mut self) -> Vec<ClientBooks> {
        let guests = std::mem::take(&mut self.guests).into_iter();
        guests.map(|guest| guest.books).collect()
    }

    fn register(&mut self, index: usize, cluster: &Options) -> Result<(), Trouble> {
        self.guests[index].client = Some(load::connect(cluster, PATIENCE)?);
        self.seats.take(index);
        Ok(())
    }

    fn answered(&mut self, index: usize, transfers: &[Transfer]) -> Result<(), Trouble> {
        let guest = &mut self.guests[index];
        let results = guest.client().create_transfers(transfers);
        for result in results.map_err(|error| failed(index, &error.to_string()))? {
            if result.status == CreateTransferStatus::Exists.code() {
                guest.books.repeated += 1;
            } else if !result.is_created() {
                let what = format!("a transfer was not created: {result:?}");
                return Err(failed(index, &what));
            }
        }
        if let Some(batch) = guest.books.batches.last_mut() {
            batch.answered = Some(self.clock.now());
        }
        self.seats.take(index);
        Ok(())
    }
}

impl Guest {
    fn client(&mut self) -> &mut Client {
        let client = self.client.as_mut();
        client.expect("the story lets guests arrive before they speak")
    }

    /// Transfers that it has not sent yet, entered in its books as sent.
    fn next_batch(&mut self, clock: Clock) -> Vec<Transfer> {
        let first = self.books.batches.len() as u64 * self.books.batch;
        self.books.batches.push(Batch {
            first,
            sent: clock.now(),
            answered: None,
        });
        let numbers = first..first + self.books.batch;
        numbers
            .map(|number| books::transfer(self.number, number))
            .collect()
    }
}

fn failed(guest: usize, what: &str) -> Trouble {
    Trouble::failed(format!("guest {guest}: {what}"))
}

/// Who has a session, as the cluster must see it.
#[derive(Debug)]
struct Seats {
    count: usize,
    /// Who spoke least recently comes first.
    order: VecDeque<usize>,
}

impl Seats {
    fn new(count: usize) -> Self {
        Self {
            count,
            order: VecDeque::new(),
        }
    }

    fn has(&self, guest: usize) -> bool {
        self.order.contains(&guest)
    }

    /// A guest has registered or spoken.
    fn take(&mut self, guest: usize) {
        self.order.retain(|other| *other != guest);
        if self.order.len() == self.count {
            self.order.pop_front();
        }
        self.order.push_back(guest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_spoke_least_recently_is_pushed_out() {
        let mut guests = Guests::new(2, 6, 10, Clock::start());
        assert_eq!(guests.evicted(), [0, 1, 2, 3]);
        let mut take = |guest| {
            guests.seats.take(guest);
            (guests.seated(), guests.evicted())
        };
        assert_eq!(take(0), (vec![0], vec![1, 2, 3]));
        assert_eq!(take(1), (vec![0, 1], vec![2, 3]));
        // Words count, not arrivals.
        assert_eq!(take(0), (vec![1, 0], vec![2, 3]));
        assert_eq!(take(2), (vec![0, 2], vec![1, 3]));
        assert_eq!(take(1), (vec![2, 1], vec![0, 3]));
    }

    #[test]
    fn guests_number_their_transfers_in_their_books() {
        let clock = Clock::start();
        let mut guests = Guests::new(1, 6, 10, clock);
        let first = guests.guests[1].next_batch(clock);
        let second = guests.guests[1].next_batch(clock);
        assert_eq!(first[0], books::transfer(7, 0));
        assert_eq!(second[9], books::transfer(7, 19));
        let books = guests.take_books();
        assert_eq!(books[0].batches.len(), 0);
        assert_eq!((books[1].batches[1].first, books[1].batch), (10, 10));
        assert_eq!(books[1].batches[1].answered, None);
    }
}
