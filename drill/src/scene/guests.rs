//! The guests of a scene: who speaks when, so that it is known whose session is the oldest.

use std::time::Duration;

use super::{Measure, Scene};
use crate::guests::{self, Fate};
use crate::signal;
use crate::trouble::Trouble;

/// How long a request may take to be in a primary's log when nothing is in its way.
const ON_ITS_WAY: Duration = Duration::from_millis(200);
/// How often two requests are tried to be there in the order that is wanted.
const CROSSINGS_MAX: usize = 10;

impl Scene {
    /// All guests register, one after the other. There is no room for all of them: the last ones push out the
    /// first, and every session that neither they nor the load have.
    pub(crate) fn guests_arrive(&mut self) -> Result<(), Trouble> {
        self.mark("guests arrive");
        let options = self.cluster.options();
        for index in self.guests.all() {
            self.load_is_newest()?;
            self.guests.arrives(index, &options)?;
        }
        Ok(())
    }

    /// Of the guests that have a session, one of so many parts speak: it is theirs still.
    pub(crate) fn seated_guests_are_answered(&mut self, parts: usize) -> Result<(), Trouble> {
        self.mark("guests with a session speak");
        for index in first_of(parts, self.guests.seated()) {
            signal::check()?;
            self.guests.is_answered(index)?;
        }
        Ok(())
    }

    /// The same of those that have none any more: each is told, and comes back in the place of another. Gives
    /// how many.
    pub(crate) fn evicted_guests_are_told(&mut self, parts: usize) -> Result<usize, Trouble> {
        self.mark("evicted guests speak");
        let options = self.cluster.options();
        let evicted = first_of(parts, self.guests.evicted());
        for index in &evicted {
            self.load_is_newest()?;
            self.guests.is_told(*index, &options)?;
        }
        Ok(evicted.len())
    }

    /// The guest with the oldest session is pushed out while its request is under way: told so, it finds in a
    /// new session that the request was executed all the same, once. Gives how many were told.
    ///
    /// The request must follow the newcomer's register in the log before that is executed, so nothing is
    /// committed meanwhile.
    pub(crate) fn oldest_guest_is_pushed_out_under_way(&mut self) -> Result<usize, Trouble> {
        self.mark("a guest is pushed out while its request is under way");
        let options = self.cluster.options();
        let mut told = 0;
        for _ in 0..CROSSINGS_MAX {
            self.load_is_newest()?;
            let backups = self.backups();
            backups.iter().for_each(|index| self.pause(*index));
            let mut crossing = self.guests.newcomer_registers(&options);
            self.pass(ON_ITS_WAY)?;
            self.guests.oldest_speaks(&mut crossing);
            self.pass(ON_ITS_WAY)?;
            backups.iter().for_each(|index| self.resume(*index));
            let fate = self.guests.crossed(crossing, &options)?;
            told += usize::from(fate != Fate::Answered);
            if fate == Fate::Executed {
                return Ok(told);
            }
        }
        Err(Trouble::failed(
            "no request was under way when its session ended".to_owned(),
        ))
    }

    /// Waits until every client of the load has spoken after all guests: the oldest session is a guest's,
    /// however slow a machine is to wake one of them.
    fn load_is_newest(&mut self) -> Result<(), Trouble> {
        let now = self.now();
        self.wait_until("every client is answered", |scene| {
            scene.load().serves_all_since(now)
        })
    }

    /// How many guests were told that their session is over.
    pub(crate) fn evictions(&mut self, under_way: usize, before: usize, after: usize) {
        let seats = self.drill.seats.unwrap_or(0);
        self.figures.push(Measure::Evictions {
            clients: self.settings.clients + guests::count(seats),
            sessions: self.settings.clients + seats,
            under_way,
            before,
            after,
        });
    }
}

/// The first one of so many parts.
fn first_of(parts: usize, mut guests: Vec<usize>) -> Vec<usize> {
    guests.truncate(guests.len() / parts);
    guests
}
