//! Cluster time: the primary's wall clock, held within what a majority of the replicas' clocks says.
//!
//! ```text
//!   primary, monotonic clock                        replica, wall clock
//!       t0 ──── commit (timestamp t0) ──────────────────► w
//!       t1 ◄─── prepare_ok (timestamp w, echo t0) ───────
//!
//!   The replica's clock showed w at a moment between t0 and t1, so it is ahead of our monotonic clock
//!   by at least w - t1 and at most w - t0: an interval as wide as the round trip.
//! ```
//!
//! The interval of each replica, and the primary's own clock as one without width, go through
//! Marzullo's algorithm (Marzullo and Owicki, *Maintaining the time in a distributed system*, PODC
//! 1983): which clocks can be right together, if right clocks may differ by [`TOLERANCE_NS`]? When
//! the most that can are a majority of all replicas, down or not, cluster time is the primary's wall
//! clock, clamped between the lowest and the highest that they can show.
//!
//! - A sample widens as it ages, by as much as two clocks may drift apart, and expires.
//! - A new primary waits with new operations until it has samples of a majority: one round trip.
//!   When they do not come for [`WAIT_NS`], it goes on without.
//! - Without a majority that agrees, time goes on by the monotonic clock, from where it was last
//!   agreed on; a new primary goes on from the last prepare of the one before it. When there was
//!   neither, from its own wall clock.
//! - A single replica is a majority: cluster time is its wall clock.
//!
//! **Promised**: while a majority of the clocks is right (they differ by less than the tolerance) and
//! heard of, cluster time lies between clocks of that majority, give or take a round trip, whatever
//! the others show. So a minority of wrong clocks does not matter, nor somebody who sets the
//! primary's. Never going back, and more than the last operation's, is the business of `normal`.
//! **Not promised**: anything about clocks that are wrong together.
//!
//! Knows no clock: time comes with each call. Offsets are of wall clocks from the monotonic clock of
//! this process, in nanoseconds; 128 bits, because a peer's clock may show anything.

use super::quorum;
use crate::limits::REPLICAS_MAX;
use crate::mutant::Mutant;
use crate::protocol::{ReplicaIndex, Time};

/// Two clocks that are both right differ by at most this: what NTP reaches over bad links, and less
/// than people notice.
pub const TOLERANCE_NS: u64 = 500_000_000;

/// How far two clocks drift apart in a second of either: twice the 100 ppm of a bad quartz.
const DRIFT_PPM: u64 = 200;

/// A sample is of no use any more: two clocks drift apart by a millisecond.
pub const SAMPLE_NS: u64 = 5_000_000_000;

/// How long a new primary waits for samples of a majority. They come with the first round trip; a view
/// begins with a majority, so this passes only when one of it is lost at the same time.
pub const WAIT_NS: u64 = 1_000_000_000;

/// How a primary's clock stands to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Agreement {
    /// Not enough of them were heard.
    #[default]
    Unheard,
    /// A majority agrees, and this clock is ahead of it (or behind) by so many nanoseconds: zero when
    /// it is among them.
    Agreed { ahead: i64 },
    /// A majority was heard and does not agree.
    Disagreed,
}

/// Offsets that a clock may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Interval {
    low: i128,
    high: i128,
}

impl Interval {
    fn widened(self, by: u64) -> Self {
        Self {
            low: self.low - i128::from(by),
            high: self.high + i128::from(by),
        }
    }

    fn contains(self, offset: i128) -> bool {
        self.low <= offset && offset <= self.high
    }

    fn meets(self, other: Self) -> bool {
        self.low <= other.high && other.low <= self.high
    }

    fn width(self) -> i128 {
        self.high - self.low
    }
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    offset: Interval,
    taken: u64,
}

impl Sample {
    /// What it still says.
    fn at(&self, now: u64) -> Option<Interval> {
        let age = now.saturating_sub(self.taken);
        (age < SAMPLE_NS).then(|| self.offset.widened(age * DRIFT_PPM / 1_000_000))
    }
}

/// See the module.
#[derive(Debug)]
pub struct Clock {
    replica: ReplicaIndex,
    replica_count: u8,
    /// Of the other replicas, in this view.
    samples: [Option<Sample>; REPLICAS_MAX],
    /// When the view began here.
    began: u64,
    /// New operations need not wait any more.
    ready: bool,
    /// The offset that was last agreed on, or followed.
    offset: Option<i128>,
    agreement: Agreement,
}

impl Clock {
    pub fn new(replica: ReplicaIndex, replica_count: u8) -> Self {
        Self {
            replica,
            replica_count,
            samples: [None; REPLICAS_MAX],
            began: 0,
            ready: false,
            offset: None,
            agreement: Agreement::Unheard,
        }
    }

    /// A view begins, and this replica is its primary.
    pub fn begin(&mut self, now: Time) {
        self.samples = [None; REPLICAS_MAX];
        self.began = now.monotonic;
        self.ready = false;
        self.agreement = Agreement::Unheard;
    }

    /// The primary of the view has made an operation of this time (backup).
    pub fn follow(&mut self, timestamp: u64, now: Time) {
        self.offset = Some(i128::from(timestamp) - i128::from(now.monotonic));
    }

    /// A replica answers what was said at `echo` with what its wall clock showed.
    pub fn sample(&mut self, from: ReplicaIndex, echo: u64, wall: u64, now: Time) {
        // Not from this view, or not from this life of the process.
        if echo < self.began || echo > now.monotonic {
            return;
        }
        let sample = Sample {
            offset: Interval {
                low: i128::from(wall) - i128::from(now.monotonic),
                high: i128::from(wall) - i128::from(echo),
            },
            taken: now.monotonic,
        };
        let place = &mut self.samples[usize::from(from)];
        // The sharper one stays, unless they contradict each other: then the clock has been set.
        let sharper = place
            .and_then(|former| former.at(now.monotonic))
            .is_some_and(|former| {
                former.meets(sample.offset) && former.width() <= sample.offset.width()
            });
        if !sharper {
            *place = Some(sample);
        }
    }

    /// Whether new operations may have a time. Once it is so, it stays so in this view.
    pub fn is_ready(&mut self, now: Time) -> bool {
        self.ready = self.ready
            || self.measured(now).1 >= self.majority()
            || now.monotonic >= self.began.saturating_add(WAIT_NS);
        self.ready
    }

    /// Cluster time; the caller sees to it that it never goes back.
    pub fn cluster_time(&mut self, now: Time) -> u64 {
        let own = own_offset(now);
        let (measured, heard) = self.measured(now);
        let bounds = agree(&measured[..heard], self.majority());
        let offset = match bounds {
            Some(_) if Mutant::PrimaryClockAlone.is_on() => own,
            Some(bounds) => own.clamp(bounds.low, bounds.high),
            None => self.offset.unwrap_or(own),
        };
        self.offset = Some(offset);
        self.agreement = match bounds {
            Some(_) => Agreement::Agreed {
                ahead: i64::try_from(own - offset).unwrap_or(i64::MAX),
            },
            None if heard >= self.majority() => Agreement::Disagreed,
            None => Agreement::Unheard,
        };
        u64::try_from(i128::from(now.monotonic) + offset).unwrap_or(0)
    }

    /// As it was when time was last asked for.
    pub fn agreement(&self) -> Agreement {
        self.agreement
    }

    /// Also the number of replicas with which a view begins.
    fn majority(&self) -> usize {
        quorum::view_change(self.replica_count)
    }

    /// The clocks that are known, and how many.
    fn measured(&self, now: Time) -> ([Interval; REPLICAS_MAX], usize) {
        let mut measured = [Interval::default(); REPLICAS_MAX];
        let mut count = 0;
        for replica in 0..self.replica_count {
            let offset = if replica == self.replica {
                let own = own_offset(now);
                Some(Interval {
                    low: own,
                    high: own,
                })
            } else {
                self.samples[usize::from(replica)].and_then(|sample| sample.at(now.monotonic))
            };
            if let Some(offset) = offset {
                measured[count] = offset;
                count += 1;
            }
        }
        (measured, count)
    }
}

fn own_offset(now: Time) -> i128 {
    i128::from(now.wall) - i128::from(now.monotonic)
}

/// Marzullo's algorithm. Sweeps over the edges of the intervals, each widened by half of the tolerance,
/// and finds where the most of them meet. When those are `majority` or more: from the lowest to the
/// highest that they measured. Of several such places the one that says most; then the lowest.
fn agree(measured: &[Interval], majority: usize) -> Option<Interval> {
    // Beginnings sort before ends of the same place: intervals that touch do meet.
    let mut edges = [(0, false); 2 * REPLICAS_MAX];
    for (interval, pair) in measured.iter().zip(edges.as_chunks_mut::<2>().0) {
        let widened = interval.widened(TOLERANCE_NS / 2);
        *pair = [(widened.low, false), (widened.high, true)];
    }
    let edges = &mut edges[..2 * measured.len()];
    edges.sort_unstable();
    let mut best: Option<(usize, Interval)> = None;
    let mut meeting = 0;
    for (offset, is_end) in edges.iter() {
        if *is_end {
            meeting -= 1;
            continue;
        }
        meeting += 1;
        let says_more = |hull: Interval| {
            best.is_none_or(|(most, narrowest)| {
                meeting > most || (meeting == most && hull.width() < narrowest.width())
            })
        };
        if meeting >= majority
            && let Some(hull) = hull_at(measured, *offset)
            && says_more(hull)
        {
            best = Some((meeting, hull));
        }
    }
    best.map(|(_, hull)| hull)
}

/// From the lowest to the highest of the intervals that meet here.
fn hull_at(measured: &[Interval], offset: i128) -> Option<Interval> {
    measured
        .iter()
        .filter(|interval| interval.widened(TOLERANCE_NS / 2).contains(offset))
        .copied()
        .reduce(|a, b| Interval {
            low: a.low.min(b.low),
            high: a.high.max(b.high),
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const HOUR: u64 = 3_600 * SECOND;
    const RTT: u64 = 200_000;
    const EPOCH: u64 = 1_700_000_000 * SECOND;

    /// `seconds` after the start, with a wall clock that is ahead by so much.
    fn time(seconds: u64, ahead: i64) -> Time {
        Time {
            monotonic: 1 + seconds * SECOND,
            wall: (EPOCH + seconds * SECOND).saturating_add_signed(ahead),
        }
    }

    /// A primary of three, at second 0, whose own clock and the others' are ahead by so much.
    fn three(own: i64, others: [i64; 2]) -> (Clock, Time) {
        let mut clock = Clock::new(0, 3);
        clock.begin(time(0, own));
        let now = hear(&mut clock, own, others, 0);
        (clock, now)
    }

    /// Both others answer; gives the time of the answers.
    fn hear(clock: &mut Clock, own: i64, others: [i64; 2], seconds: u64) -> Time {
        let sent = time(seconds, own);
        let mut now = sent;
        now.monotonic += RTT;
        now.wall += RTT;
        for (replica, ahead) in [1, 2].into_iter().zip(others) {
            let wall = time(seconds, ahead).wall + RTT / 2;
            clock.sample(replica, sent.monotonic, wall, now);
        }
        now
    }

    fn hour(sign: i64) -> i64 {
        sign * i64::try_from(HOUR).unwrap()
    }

    #[test]
    fn a_single_replica_uses_its_own_clock() {
        let mut clock = Clock::new(0, 1);
        clock.begin(time(0, 0));
        assert!(clock.is_ready(time(0, 0)));
        assert_eq!(clock.cluster_time(time(1, 0)), time(1, 0).wall);
        assert_eq!(clock.cluster_time(time(2, hour(1))), time(2, hour(1)).wall);
    }

    #[test]
    fn a_new_primary_waits_for_a_majority_but_not_for_ever() {
        let mut clock = Clock::new(0, 3);
        clock.begin(time(5, 0));
        let mut now = time(5, 0);
        assert!(!clock.is_ready(now));
        now.monotonic += WAIT_NS - 1;
        assert!(!clock.is_ready(now));
        now.monotonic += 1;
        assert!(clock.is_ready(now));
        clock.begin(time(9, 0));
        assert!(!clock.is_ready(time(9, 0)));
        clock.sample(2, time(9, 0).monotonic, time(9, 0).wall, time(9, 0));
        assert!(clock.is_ready(time(9, 0)));
    }

    #[test]
    fn a_clock_among_the_others_is_used_as_it_is() {
        let (mut clock, now) = three(300_000_000, [0, 290_000_000]);
        assert_eq!(clock.cluster_time(now), now.wall);
        assert_eq!(clock.agreement(), Agreement::Agreed { ahead: 0 });
    }

    #[test]
    fn a_primary_an_hour_off_is_held_within_the_others() {
        for off in [hour(1), hour(-1)] {
            let (mut clock, now) = three(off, [1_000_000, -1_000_000]);
            let right = time(0, 0).wall + RTT;
            let cluster = clock.cluster_time(now);
            assert!(cluster.abs_diff(right) <= 1_000_000 + RTT, "{cluster}");
            let Agreement::Agreed { ahead } = clock.agreement() else {
                panic!("{:?}", clock.agreement());
            };
            assert!(ahead.abs_diff(off) < 2_000_000, "{ahead}");
        }
    }

    #[test]
    fn a_backup_with_a_wrong_clock_changes_nothing() {
        for off in [hour(1), hour(-1), i64::MAX, i64::MIN] {
            let (mut clock, now) = three(0, [off, 1_000_000]);
            assert_eq!(clock.cluster_time(now), now.wall);
            assert_eq!(clock.agreement(), Agreement::Agreed { ahead: 0 });
        }
    }

    #[test]
    fn without_agreement_time_goes_on_where_it_was() {
        let (mut clock, now) = three(0, [0, 0]);
        let agreed = clock.cluster_time(now);
        let now = hear(&mut clock, hour(2), [hour(1), hour(-1)], 1);
        assert_eq!(clock.cluster_time(now), agreed + SECOND);
        assert_eq!(clock.agreement(), Agreement::Disagreed);
        // All samples expire.
        assert_eq!(
            clock.cluster_time(time(60, hour(3))),
            agreed + 60 * SECOND - RTT
        );
        assert_eq!(clock.agreement(), Agreement::Unheard);
        let now = hear(&mut clock, hour(3), [0, 0], 61);
        assert!(clock.cluster_time(now).abs_diff(agreed + 61 * SECOND) <= RTT);
    }

    #[test]
    fn a_new_primary_without_agreement_goes_on_from_the_one_before() {
        let mut clock = Clock::new(1, 2);
        clock.follow(time(3, 0).wall, time(3, hour(5)));
        clock.begin(time(4, hour(5)));
        clock.sample(0, time(4, 0).monotonic, time(4, 0).wall, time(4, 0));
        assert_eq!(clock.cluster_time(time(6, hour(5))), time(6, 0).wall);
        assert_eq!(clock.agreement(), Agreement::Disagreed);
    }

    #[test]
    fn a_clock_that_is_set_replaces_its_sharper_sample() {
        let (mut clock, _) = three(0, [0, 0]);
        let now = hear(&mut clock, 0, [hour(1), hour(1)], 1);
        // An agreement of two, an hour later than the primary.
        assert!(clock.cluster_time(now).abs_diff(time(1, hour(1)).wall) <= 2 * RTT);
    }

    #[test]
    fn answers_to_another_view_or_life_are_no_samples() {
        let mut clock = Clock::new(0, 3);
        clock.begin(time(10, 0));
        clock.sample(1, time(9, 0).monotonic, time(9, 0).wall, time(10, 0));
        clock.sample(2, time(11, 0).monotonic, time(11, 0).wall, time(10, 0));
        assert!(!clock.is_ready(time(10, 0)));
    }

    #[test]
    fn samples_widen_with_age() {
        let sample = Sample {
            offset: Interval { low: 0, high: 10 },
            taken: 7,
        };
        let widened = sample.at(7 + SECOND).unwrap();
        assert_eq!((widened.low, widened.high), (-200_000, 200_010));
        assert_eq!(sample.at(7 + SAMPLE_NS), None);
    }

    /// By trying every group of clocks: the largest in which each two can be right together, then
    /// the narrowest, then the lowest.
    fn agree_naively(measured: &[Interval], majority: usize) -> Option<Interval> {
        let groups = (1u32..1 << measured.len()).map(|bits| {
            let chosen = (0..measured.len()).filter(|i| bits & 1 << i != 0);
            chosen.map(|i| measured[i]).collect::<Vec<_>>()
        });
        let together = |group: &Vec<Interval>| {
            let half = TOLERANCE_NS / 2;
            let meet = |a: &Interval, b: &Interval| a.widened(half).meets(b.widened(half));
            group.iter().all(|a| group.iter().all(|b| meet(a, b)))
        };
        groups
            .filter(|group| group.len() >= majority && together(group))
            .map(|group| {
                let low = group.iter().map(|i| i.low).min().unwrap();
                let high = group.iter().map(|i| i.high).max().unwrap();
                (group.len(), Interval { low, high })
            })
            .min_by_key(|(len, hull)| (usize::MAX - len, hull.width(), hull.low))
            .map(|(_, hull)| hull)
    }

    fn interval() -> impl Strategy<Value = Interval> {
        // Multiples of a quarter of the tolerance touch and tie often.
        let quarter = i128::from(TOLERANCE_NS / 4);
        (-10i32..10, 0i32..4).prop_map(move |(low, width)| Interval {
            low: i128::from(low) * quarter,
            high: i128::from(low + width) * quarter,
        })
    }

    proptest! {
        #[test]
        fn the_sweep_finds_what_trying_every_group_finds(
            measured in prop::collection::vec(interval(), 1..=REPLICAS_MAX),
            majority in 1usize..5,
        ) {
            prop_assert_eq!(agree(&measured, majority), agree_naively(&measured, majority));
        }

        /// The promise: whatever a minority shows, time lies between clocks of the majority.
        #[test]
        fn a_minority_cannot_move_time(
            replicas in 3u8..=6,
            right in prop::collection::vec(-200_000_000i64..200_000_000, REPLICAS_MAX),
            wrong in prop::collection::vec(any::<i64>(), REPLICAS_MAX),
            first_wrong in 0usize..REPLICAS_MAX,
        ) {
            let count = usize::from(replicas);
            let minority = count - quorum::view_change(replicas);
            let far = |off: i64| off.unsigned_abs() > 2 * SECOND;
            let is_wrong = |replica: usize| {
                (replica + count - first_wrong % count) % count < minority && far(wrong[replica])
            };
            let off = |r: usize| if is_wrong(r) { wrong[r] } else { right[r] };
            let mut clock = Clock::new(0, replicas);
            let sent = time(0, off(0));
            clock.begin(sent);
            let mut now = sent;
            now.monotonic += RTT;
            for replica in 1..count {
                let wall = time(0, off(replica)).wall;
                let from = u8::try_from(replica).unwrap();
                clock.sample(from, sent.monotonic, wall, now);
            }
            let cluster = clock.cluster_time(now);
            let rights = (0..count).filter(|r| !is_wrong(*r)).map(|r| time(0, off(r)).wall);
            let (low, high) = (rights.clone().min().unwrap(), rights.max().unwrap());
            prop_assert!(low - RTT <= cluster && cluster <= high + RTT);
        }
    }
}
