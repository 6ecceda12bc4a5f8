//! All runs of a ledger, and the filter in front of them, which another thread makes.
//!
//! ```text
//!   id ──► greatest      above all ids of runs: ids that ascend with time end here             a compare
//!     └──► filter        in none of the runs that it covers                                     one line
//!     └──► runs          newest first: each one's range of ids, its own filter, its entries     a page, rarely two
//!
//!   executor: push a run ──► board: runs ──► maker: adds the ids of one after another to a filter
//!   executor: refresh ◄───── board: a filter, and how many of the runs it covers ◄──┘
//! ```
//!
//! The filter makes one line of memory of one line for each run, for ids that are new and lie between others: random
//! ones. Nothing waits for it: a run that it does not cover yet is asked by its own filter, in its file. So a restart
//! reads no ids of runs, and the memory of the filter is that of the ids there are: it doubles with them, which means
//! that a larger one is made from all runs while the former one is in use.
//!
//! Promises: what is found does not depend on how far the filter is.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::filter::{Filter, FilterWriter};
use super::id_hash::IdHash;
use super::index::ROW_NONE;
use super::run::Run;

/// Bits of the filter for an id, where its size allows it: one that is new then is mistaken once in 150 times or more.
pub const FILTER_BITS: u64 = 12;

/// Buckets of a run whose ids go to a filter at once: a quarter of a million ids, a few milliseconds.
const SLICE_BUCKETS: usize = 1024;

/// A run goes to the filter when it has been asked by its own as often as a 64th of its ids: an ask costs about 0.1 us,
/// and adding an id a tenth of that.
const ASKS_SHARE: usize = 64;

/// What the two threads share. Locked to look at or to hand over a handle, never while a filter is made.
#[derive(Debug, Default)]
struct Board {
    /// Changes of `made`.
    news: AtomicU32,
    /// How often runs were asked that are not in the filter, since it last had all of them. May wrap: it is a hint.
    asks: AtomicU32,
    shared: Mutex<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    runs: Vec<Arc<Run>>,
    /// Covers so many of the runs, the first ones.
    made: Option<(Arc<Filter>, usize)>,
    /// Not asked any more. Giving its memory back takes a millisecond or more: it is the maker's to do.
    retired: Option<Arc<Filter>>,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().expect("nothing panics with the lock")
    }
}

/// See the module.
#[derive(Debug)]
pub struct Runs {
    runs: Vec<Arc<Run>>,
    /// No id of a run is greater; zero if there are none.
    id_greatest: u128,
    filter: Option<Arc<Filter>>,
    /// Runs that the filter covers.
    covered: usize,
    seen: u32,
    filter_size: u64,
    board: Arc<Board>,
}

impl Runs {
    /// None yet; their filter will have `filter_size` bytes at most.
    pub fn new(filter_size: u64) -> Self {
        Self {
            runs: Vec::new(),
            id_greatest: 0,
            filter: None,
            covered: 0,
            seen: 0,
            filter_size,
            board: Arc::default(),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    pub fn push(&mut self, run: Run) {
        self.id_greatest = self.id_greatest.max(run.id_greatest());
        // Asked whenever an id may be in any of the runs.
        run.will_need_filter();
        let run = Arc::new(run);
        self.board.lock().runs.push(Arc::clone(&run));
        self.runs.push(run);
    }

    /// Takes over what has been made of the filter.
    #[inline]
    pub fn refresh(&mut self) {
        if self.board.news.load(Ordering::Acquire) != self.seen {
            self.take_filter();
        }
    }

    #[cold]
    fn take_filter(&mut self) {
        let mut shared = self.board.lock();
        self.seen = self.board.news.load(Ordering::Acquire);
        if let Some((filter, covered)) = &shared.made {
            self.covered = *covered;
            let former = self.filter.replace(Arc::clone(filter));
            shared.retired = former;
        }
    }

    /// Who makes the filter, on another thread.
    pub fn maker(&self) -> FilterMaker {
        FilterMaker {
            board: Arc::clone(&self.board),
            size_max: self.filter_size,
            making: None,
        }
    }

    /// Fetches what a search begins with.
    #[inline(always)]
    pub fn prefetch(&self, id: u128, hash: IdHash) {
        if id <= self.id_greatest
            && let Some(filter) = &self.filter
        {
            filter.prefetch(hash.for_runs());
        }
    }

    /// Whether the id may be in a run. False is certain.
    #[inline(always)]
    pub fn may_hold(&self, id: u128, hash: IdHash) -> bool {
        id <= self.id_greatest && self.some_may_hold(id, hash)
    }

    #[inline]
    fn some_may_hold(&self, id: u128, hash: IdHash) -> bool {
        self.filter_may_hold(hash) || self.uncovered_may_hold(id, hash)
    }

    #[inline(always)]
    fn filter_may_hold(&self, hash: IdHash) -> bool {
        let filter = self.filter.as_ref();
        filter.is_some_and(|filter| filter.may_hold(hash.for_runs()))
    }

    #[inline]
    fn uncovered_may_hold(&self, id: u128, hash: IdHash) -> bool {
        let uncovered = &self.runs[self.covered..];
        if uncovered.is_empty() {
            return false;
        }
        self.board.asks.fetch_add(1, Ordering::Relaxed);
        uncovered.iter().any(|run| run.may_hold(id, hash))
    }

    /// The runs that may have the id, newest first.
    fn that_may_hold(&self, id: u128, hash: IdHash) -> impl Iterator<Item = &Run> {
        let first = if self.filter_may_hold(hash) {
            0
        } else {
            self.covered
        };
        let newest_first = self.runs[first..].iter().rev();
        newest_first
            .map(|run| &**run)
            .filter(move |run| run.may_hold(id, hash))
    }

    /// Begins to read what a search will look at, so that the reads of many ids overlap.
    #[cold]
    #[inline(never)]
    pub fn will_need(&self, id: u128, hash: IdHash) {
        self.that_may_hold(id, hash)
            .for_each(|run| run.will_need(hash));
    }

    /// The row for which `is_it` agrees.
    #[cold]
    #[inline(never)]
    pub fn find(&self, id: u128, hash: IdHash, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let mut runs = self.that_may_hold(id, hash);
        runs.find_map(|run| run.find(hash, &is_it))
    }

    /// A row whose hash agrees, or [`ROW_NONE`] if there is none, which is certain.
    #[cold]
    #[inline(never)]
    pub fn candidate(&self, id: u128, hash: IdHash) -> u32 {
        self.find(id, hash, |_| true).unwrap_or(ROW_NONE)
    }
}

/// Makes the filter of a ledger's runs, slice by slice, whenever there is time.
#[derive(Debug)]
pub struct FilterMaker {
    board: Arc<Board>,
    size_max: u64,
    making: Option<Making>,
}

/// A filter, and how much has gone to it: so many whole runs, and so many buckets of the next one.
#[derive(Debug)]
struct Making {
    filter: FilterWriter,
    runs: usize,
    buckets: usize,
}

impl FilterMaker {
    /// A slice of the work, a few milliseconds; false if there is none to be done now.
    pub fn work(&mut self) -> bool {
        let mut shared = self.board.lock();
        let retired = shared.retired.take();
        let ids = shared.runs.iter().map(|run| run.rows().len() as u64).sum();
        let size = filter_size(ids, self.size_max);
        let fits = |making: &&Making| making.filter.size() >= size;
        let done = self
            .making
            .as_ref()
            .filter(fits)
            .map_or(0, |making| making.runs);
        let next = shared.runs.get(done).cloned();
        drop(shared);
        drop(retired);
        let Some(run) = next else {
            self.board.asks.store(0, Ordering::Relaxed);
            return false;
        };
        let asks = self.board.asks.load(Ordering::Relaxed);
        if (asks as usize) < run.rows().len() / ASKS_SHARE {
            return false;
        }
        self.making.take_if(|making| making.filter.size() < size);
        let making = self.making.get_or_insert_with(|| Making {
            filter: FilterWriter::new(size),
            runs: 0,
            buckets: 0,
        });
        let end = run.buckets().min(making.buckets + SLICE_BUCKETS);
        let slice = making.buckets..end;
        run.will_need_buckets(end..run.buckets().min(end + SLICE_BUCKETS));
        run.hashes(slice.clone())
            .for_each(|hash| making.filter.add(hash));
        run.release_buckets(slice);
        making.buckets = end;
        if end == run.buckets() {
            making.runs += 1;
            making.buckets = 0;
            self.board.publish(making);
        }
        true
    }
}

impl Board {
    /// A larger filter is in use as soon as it covers more than the former one.
    fn publish(&self, making: &Making) {
        let mut shared = self.lock();
        if shared
            .made
            .as_ref()
            .is_none_or(|(_, covered)| making.runs > *covered)
        {
            let former = shared.made.replace((making.filter.filter(), making.runs));
            self.news.fetch_add(1, Ordering::Release);
            drop(shared);
            drop(former);
        }
    }
}

/// Bytes for so many ids: it doubles as they do.
fn filter_size(ids: u64, size_max: u64) -> u64 {
    let wanted = (ids * FILTER_BITS).div_ceil(8).next_power_of_two();
    wanted.min(size_max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{FileKind, FileName, MemoryStorage, RunIds, write_run};
    use proptest::prelude::*;

    fn run_of(number: u64, ids: &[u128], first: u32) -> Run {
        let mut storage = MemoryStorage::default();
        let name = FileName::new(FileKind::TransferRun, number);
        let rows_log2 = ids.len().ilog2();
        let ids = Arc::new(RunIds::of(ids.iter().copied(), rows_log2));
        let entry = write_run(&mut storage, name, &[ids]).unwrap();
        Run::open(&storage, entry, first, rows_log2).unwrap()
    }

    /// The row of an id, looked for by every way.
    fn row_of(runs: &Runs, id: u128, row: Option<u32>) -> Option<u32> {
        let hash = IdHash::of(id);
        runs.prefetch(id, hash);
        runs.will_need(id, hash);
        let found = runs.find(id, hash, |found| Some(found) == row);
        assert!(found.is_none() || runs.may_hold(id, hash));
        assert!(found.is_none() || runs.candidate(id, hash) != ROW_NONE);
        found
    }

    /// As often as it takes for a filter to be made.
    fn ask(runs: &Runs) {
        (0..1 << 12).for_each(|_| {
            runs.may_hold(1, IdHash::of(1));
        });
    }

    #[test]
    fn the_filter_follows_and_grows() {
        const ROWS: u32 = 1 << 12;
        let ids_of = |number: u32| {
            let ids = number * ROWS..(number + 1) * ROWS;
            ids.map(|id| u128::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
        };
        let mut runs = Runs::new(1 << 20);
        let mut maker = runs.maker();
        assert!(!maker.work());
        for number in 0..12u32 {
            let ids: Vec<u128> = ids_of(number).collect();
            runs.push(run_of(number.into(), &ids, number * ROWS));
            assert_eq!(runs.covered, number as usize, "the former filter is in use");
            assert!(!maker.work(), "nobody has asked");
            ask(&runs);
            while maker.work() {
                runs.refresh();
            }
            assert_eq!(runs.covered, runs.len());
        }
        // Twelve bits an id, for between as many ids and half of them.
        let size = maker.making.as_ref().unwrap().filter.size();
        assert_eq!(size, 128 << 10);
        let others = (1..=100_000u128).map(|id| id << 96 | 77);
        let mistaken = others.filter(|id| runs.filter_may_hold(IdHash::of(*id)));
        assert!(mistaken.count() < 700);
        for (row, id) in (0..12).flat_map(ids_of).enumerate() {
            let row = u32::try_from(row).unwrap();
            assert_eq!(row_of(&runs, id, Some(row)), Some(row));
        }
        let mut again = Runs::new(0);
        for number in 0..12u32 {
            let ids: Vec<u128> = ids_of(number).collect();
            again.push(run_of(number.into(), &ids, number * ROWS));
        }
        let mut maker = again.maker();
        ask(&again);
        while maker.work() {
            again.refresh();
        }
        // A filter that is far too small is no help, and no harm.
        assert_eq!(
            (again.covered, maker.making.unwrap().filter.size()),
            (12, 64)
        );
        assert!(again.filter_may_hold(IdHash::of(77 << 64)));
        assert_eq!(row_of(&again, 77 << 64, None), None);
    }

    #[test]
    fn what_ascends_ends_at_a_compare() {
        let mut runs = Runs::new(1 << 20);
        assert!(!runs.may_hold(0, IdHash::of(0)));
        runs.push(run_of(0, &(1..=1024).collect::<Vec<u128>>(), 0));
        assert!(runs.may_hold(1024, IdHash::of(1024)));
        assert!((1025..100_000).all(|id| !runs.may_hold(id, IdHash::of(id))));
    }

    #[derive(Debug, Clone)]
    enum Step {
        /// A run of so many rows, as a power of two.
        Push(u32),
        Work(u8),
        Refresh,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1u32..9).prop_map(Step::Push),
            (1u8..4).prop_map(Step::Work),
            Just(Step::Refresh),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn behaves_like_a_map(
            steps in prop::collection::vec(step(), 1..40),
            seed in any::<u128>(),
            ordered in any::<bool>(),
            size in 0u64..4096,
        ) {
            let id_of = |row: u32| {
                let id = u128::from(row) + 1;
                if ordered { id } else { id.wrapping_mul(seed | 1) }
            };
            let mut runs = Runs::new(size);
            let mut maker = runs.maker();
            let mut rows = 0u32;
            for step in steps {
                match step {
                    Step::Push(log2) => {
                        let ids: Vec<u128> = (rows..rows + (1 << log2)).map(id_of).collect();
                        runs.push(run_of(runs.len() as u64, &ids, rows));
                        rows += 1 << log2;
                    }
                    Step::Work(times) => (0..times).for_each(|_| {
                        maker.work();
                    }),
                    Step::Refresh => runs.refresh(),
                }
                for row in (0..rows).step_by(7) {
                    prop_assert_eq!(row_of(&runs, id_of(row), Some(row)), Some(row));
                }
                for row in rows..rows + 20 {
                    prop_assert_eq!(row_of(&runs, id_of(row), None), None);
                }
            }
        }
    }
}
