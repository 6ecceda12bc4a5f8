//! What balances were: not stored, but found again from where they began.
//!
//! ```text
//!   transfers    0 ······ 65536 ················· 131072 ·····
//!   expiries           0 ·········· 65536 ············
//!   periods      ├── 0 ────┼── 1 ────┼───── 2 ─────┼── 3 ── goes on
//!                          ends where a chunk of either table is full
//!
//!   of each period: the balances of every account that it touches, as they were before it did
//! ```
//!
//! The balance of an account after any transfer is its opening in that period, and then what its own
//! transfers and expiries of the period did, in order. An event of the books is a transfer or an
//! expiry; an expiry is before the next transfer, so one that happens when a chunk is exactly full
//! belongs to the period after it.
//!
//! The mark in an account's row ([`AccountRow::opened`]) says whether the present period has its opening
//! already: so one comparison in a line that is at hand, and about a dozen bytes for each account
//! that a period touches. A period has at most a chunk of transfers and a chunk of expiries: that
//! bounds the work of finding any balance.
//!
//! A chain that breaks takes its openings back with its transfers: the marks become what they were,
//! even if the chain had reached into another period. Periods are closed when an operation is over.

use std::sync::Arc;

use super::openings::{Balances, Openings, OpeningsView, Released, Side};
use super::row::AccountRow;
use crate::store::{Blob, Changing};

/// What a file holds is verified as it is read: what makes no sense was written so.
const SENSELESS: &str = "openings make no sense though their checksums hold: \
    look at the checkpoint with `stampede inspect verify`, and do not trust this release with it";

/// A point in time: so many transfers, so many expiries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Point {
    pub(super) transfers: u32,
    pub(super) expired: u32,
}

impl Point {
    fn events(self) -> u64 {
        u64::from(self.transfers) + u64::from(self.expired)
    }

    /// Events from an earlier point of the same period to this one.
    pub(super) fn events_since(self, start: Self) -> u32 {
        u32::try_from(self.events() - start.events()).expect("a period is bounded")
    }
}

/// A period that is over.
#[derive(Debug, Clone)]
pub(super) struct Period {
    pub(super) end: Point,
    pub(super) openings: PeriodOpenings,
}

#[derive(Debug, Clone)]
pub(super) enum PeriodOpenings {
    Memory(Arc<Openings>),
    /// [`Openings::encode`].
    File(Blob),
}

impl PeriodOpenings {
    fn view(&self) -> OpeningsView<'_> {
        match self {
            Self::Memory(openings) => openings.view(),
            Self::File(blob) => OpeningsView::of(blob.span()).expect(SENSELESS),
        }
    }

    /// As they are in a file.
    pub(super) fn encoded(&self) -> Blob {
        match self {
            Self::Memory(openings) => Blob::of_words(openings.encode()),
            Self::File(blob) => blob.clone(),
        }
    }

    pub(super) fn encoded_size(&self) -> usize {
        match self {
            Self::Memory(openings) => openings.encoded_size(),
            Self::File(blob) => blob.len(),
        }
    }
}

#[derive(Debug)]
struct Open {
    number: u32,
    start: Point,
    openings: Openings,
}

/// An opening made by the operation that is being applied, to be taken back.
#[derive(Debug)]
struct Opened {
    events: u64,
    account: u32,
    /// The account's mark before.
    former: u32,
}

/// See the module.
#[derive(Debug)]
pub(super) struct History {
    pub(super) periods: Vec<Period>,
    /// The present period, once an event has opened an account; more than one while an operation that
    /// has crossed an end is being applied.
    open: Vec<Open>,
    opened: Vec<Opened>,
    chunk_rows_log2: u32,
}

/// One period, to be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct PeriodView<'a> {
    pub(super) start: Point,
    pub(super) end: Point,
    pub(super) openings: OpeningsView<'a>,
}

impl History {
    pub(super) fn new(chunk_rows_log2: u32) -> Self {
        Self {
            periods: Vec::new(),
            open: Vec::new(),
            opened: Vec::new(),
            chunk_rows_log2,
        }
    }

    /// The history back from its periods that are over and the openings of the present one.
    pub(super) fn restore(chunk_rows_log2: u32, periods: Vec<Period>, openings: Openings) -> Self {
        let mut history = Self::new(chunk_rows_log2);
        history.periods = periods;
        if openings.view().count() > 0 {
            history.open.push(Open {
                number: history.number_open(),
                start: history.start_open(),
                openings,
            });
        }
        history
    }

    /// The number of the period to which an event at this point belongs.
    #[inline(always)]
    pub(super) fn number(&self, point: Point) -> u32 {
        (point.transfers >> self.chunk_rows_log2) + (point.expired >> self.chunk_rows_log2)
    }

    /// The mark of accounts whose opening is there for an event at this point.
    #[inline(always)]
    pub(super) fn mark(&self, point: Point) -> u32 {
        self.number(point) + 1
    }

    /// An event at `point` is about to change the account, whose mark is not [`History::mark`].
    #[inline(never)]
    pub(super) fn open(&mut self, point: Point, side: Side, row: u32, account: &mut AccountRow) {
        let number = self.number(point);
        if self.open.last().is_none_or(|open| open.number != number) {
            self.open.push(Open {
                number,
                start: point,
                openings: match self.periods.last().map(|period| &period.openings) {
                    Some(PeriodOpenings::Memory(last)) => Openings::like(last),
                    Some(PeriodOpenings::File(_)) | None => Openings::default(),
                },
            });
        }
        let open = self.open.last_mut().expect("just pushed if need be");
        let event = point.events_since(open.start);
        open.openings.push(event, side, &Balances::of(account));
        self.opened.push(Opened {
            events: point.events(),
            account: row,
            former: account.opened,
        });
        account.opened = number + 1;
    }

    /// A resolution is about to be stored whose row does not say all it does. Its accounts are open.
    pub(super) fn release(&mut self, released: Released) {
        let open = self.open.last_mut().expect("its accounts are open");
        open.openings.release(released);
    }

    /// Takes back the openings since `point`.
    pub(super) fn undo(&mut self, point: Point, accounts: &mut Changing<AccountRow>) {
        while let Some(opened) = self.opened.pop_if(|opened| opened.events >= point.events()) {
            accounts.row_mut(opened.account).opened = opened.former;
        }
        while self.open.pop_if(|open| open.start >= point).is_some() {}
        if let Some(open) = self.open.last_mut() {
            let event = point.events_since(open.start);
            open.openings.truncate(event, point.transfers);
        }
    }

    /// An operation is over: closes the periods that have ended.
    pub(super) fn settle(&mut self, now: Point) {
        let number = self.number(now);
        while self.open.first().is_some_and(|open| open.number < number) {
            let end = self.open.get(1).map_or(now, |next| next.start);
            let open = self.open.remove(0);
            assert_eq!(open.number, self.number_open());
            assert_eq!(open.start, self.start_open());
            let openings = PeriodOpenings::Memory(Arc::new(open.openings));
            self.periods.push(Period { end, openings });
        }
        self.opened.clear();
    }

    /// The openings of the present period, encoded.
    pub(super) fn encode_open(&self) -> Vec<u32> {
        assert!(self.open.len() <= 1, "between operations");
        match self.open.first() {
            Some(open) => open.openings.encode(),
            None => Openings::default().encode(),
        }
    }

    /// The number of the present period, and of those that are over.
    pub(super) fn number_open(&self) -> u32 {
        u32::try_from(self.periods.len()).expect("periods are fewer than rows")
    }

    fn start_open(&self) -> Point {
        self.periods
            .last()
            .map_or_else(Point::default, |period| period.end)
    }

    /// The number of the period that has this transfer.
    pub(super) fn of_transfer(&self, row: u32) -> u32 {
        let before = self
            .periods
            .partition_point(|period| period.end.transfers <= row);
        u32::try_from(before).expect("periods are fewer than rows")
    }

    /// The number of the period that has this expiry.
    pub(super) fn of_expired(&self, row: u32) -> u32 {
        let before = self
            .periods
            .partition_point(|period| period.end.expired <= row);
        u32::try_from(before).expect("periods are fewer than rows")
    }

    /// A period that is over or, up to `now`, the present one.
    pub(super) fn period(&self, number: u32, now: Point) -> PeriodView<'_> {
        let number = number as usize;
        let start = number
            .checked_sub(1)
            .map_or_else(Point::default, |before| self.periods[before].end);
        match self.periods.get(number) {
            Some(Period { end, openings }) => PeriodView {
                start,
                end: *end,
                openings: openings.view(),
            },
            None => PeriodView {
                start,
                end: now,
                openings: self
                    .open
                    .first()
                    .map_or(OpeningsView::EMPTY, |open| open.openings.view()),
            },
        }
    }
}
