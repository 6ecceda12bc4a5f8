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
//!
//! Only who is pushed out while its request is under way cannot know: it is told as well, and asks in a new
//! session what has become of it.

use std::collections::VecDeque;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use stampede_bench::engine::Clock;
use stampede_client::wire::status::CreateTransferStatus;
use stampede_client::wire::{CreateResult, EvictionReason, Transfer};
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

/// A guest that is about to lose its session: another one registers, and then it speaks itself.
#[derive(Debug)]
pub(crate) struct Crossing {
    newcomer: usize,
    registers: JoinHandle<Result<Client, Trouble>>,
    speaker: usize,
    transfers: Vec<Transfer>,
    speaks: Option<JoinHandle<Spoken>>,
}

type Spoken = (Client, Result<Vec<CreateResult>, Error>);

/// What became of a request that was under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Answered: the session was there still.
    Answered,
    /// Its sender was told of its eviction, and found that it had been executed, or that it had not.
    Executed,
    Refused,
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

    /// A guest without a session registers, in the place of the one that spoke least recently; it is not
    /// waited for.
    pub(crate) fn newcomer_registers(&mut self, cluster: &Options) -> Crossing {
        let newcomer = self.evicted()[0];
        let speaker = self.seats.order[0];
        let cluster = cluster.clone();
        Crossing {
            newcomer,
            registers: thread::spawn(move || load::connect(&cluster, PATIENCE)),
            speaker,
            transfers: self.guests[speaker].next_batch(self.clock),
            speaks: None,
        }
    }

    /// The one that is to lose its session speaks; it is not waited for either.
    pub(crate) fn oldest_speaks(&mut self, crossing: &mut Crossing) {
        let guest = &mut self.guests[crossing.speaker];
        let transfers = crossing.transfers.clone();
        let mut client = guest.client.take().expect("it has a session");
        crossing.speaks = Some(thread::spawn(move || {
            let results = client.create_transfers(&transfers);
            (client, results)
        }));
    }

    /// Waits for both. Who lost its session is told, registers again and finds out.
    pub(crate) fn crossed(
        &mut self,
        crossing: Crossing,
        cluster: &Options,
    ) -> Result<Fate, Trouble> {
        let Crossing {
            newcomer,
            registers,
            speaker,
            transfers,
            speaks,
        } = crossing;
        let registered = registers.join().expect("it does not panic");
        let (client, results) = speaks.expect("it speaks").join().expect("nor does it");
        self.guests[newcomer].client = Some(registered?);
        self.guests[speaker].client = Some(client);
        match results {
            Ok(results) => {
                // It was faster than the other one, which has pushed out the next.
                self.judge(speaker, &results)?;
                self.seats.take(newcomer);
                Ok(Fate::Answered)
            }
            Err(Error::Evicted(EvictionReason::NoSession)) => {
                self.seats.take(newcomer);
                self.register(speaker, cluster)?;
                self.finds_out(speaker, &transfers)
            }
            Err(error) => {
                let what = format!("neither answered nor told of its eviction: {error}");
                Err(failed(speaker, &what))
            }
        }
    }

    /// A guest looks up what it had sent; what is not there it sends again.
    fn finds_out(&mut self, index: usize, transfers: &[Transfer]) -> Result<Fate, Trouble> {
        let ids: Vec<u128> = transfers.iter().map(|transfer| transfer.id).collect();
        let found = self.guests[index].client().lookup_transfers(&ids);
        let found = found.map_err(|error| failed(index, &error.to_string()))?;
        self.seats.take(index);
        if found.is_empty() {
            self.answered(index, transfers)?;
            return Ok(Fate::Refused);
        }
        let as_sent = |transfer: &Transfer| Transfer {
            timestamp: 0,
            ..*transfer
        };
        if !found.iter().map(as_sent).eq(transfers.iter().copied()) {
            let what = format!("{} transfers of {}, or others", found.len(), ids.len());
            return Err(failed(
                index,
                &format!("its request had an effect in part: {what}"),
            ));
        }
        self.guests[index].closes_batch(self.clock);
        Ok(Fate::Executed)
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
        let results = self.guests[index].client().create_transfers(transfers);
        self.judge(
            index,
            &results.map_err(|error| failed(index, &error.to_string()))?,
        )
    }

    /// A guest was answered.
    fn judge(&mut self, index: usize, results: &[CreateResult]) -> Result<(), Trouble> {
        let guest = &mut self.guests[index];
        for result in results {
            if result.status == CreateTransferStatus::Exists.code() {
                guest.books.repeated += 1;
            } else if !result.is_created() {
                let what = format!("a transfer was not created: {result:?}");
                return Err(failed(index, &what));
            }
        }
        guest.closes_batch(self.clock);
        self.seats.take(index);
        Ok(())
    }
}

impl Guest {
    fn client(&mut self) -> &mut Client {
        let client = self.client.as_mut();
        client.expect("the story lets guests arrive before they speak")
    }

    /// The batch that it sent last is known to be there.
    fn closes_batch(&mut self, clock: Clock) {
        if let Some(batch) = self.books.batches.last_mut() {
            batch.answered = Some(clock.now());
        }
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
