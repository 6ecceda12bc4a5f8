//! Asks the server afterwards whether it has what it acknowledged.
//!
//! All accounts are looked up: the sums of debits and credits must be equal, be the amount of all
//! accepted transfers, and every account must have the balances that a replay of the run gives. Sampled
//! transfers are looked up by id and must be found with every field as it was sent.

use serde::{Deserialize, Serialize};
use stampede_client::wire::{Account, Operation, Transfer};
use zerocopy::IntoBytes;

use super::{accounts, transfers};
use crate::books::{Balance, Books};
use crate::engine::work::{Done, Prepared, Side, Work};
use crate::failure::Failure;

/// Differences that are spelled out.
const DIFFERENCES_MAX: usize = 5;

/// What verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    pub accounts: u64,
    pub transfers_accepted: u64,
    /// Amount in posted balances: expected, and found as debits and as credits.
    pub posted_expected: u64,
    pub debits_posted: u128,
    pub credits_posted: u128,
    pub pending_expected: u64,
    pub debits_pending: u128,
    pub credits_pending: u128,
    /// Accounts were compared one by one (not only by their sums).
    pub each_account: bool,
    pub samples: u64,
    /// The first differences, in words; empty if all is well.
    pub differences: Vec<String>,
    pub differences_count: u64,
}

impl Verified {
    pub fn is_good(&self) -> bool {
        self.differences_count == 0
    }

    fn differ(&mut self, text: impl FnOnce() -> String) {
        self.differences_count += 1;
        if self.differences.len() < DIFFERENCES_MAX {
            self.differences.push(text());
        }
    }

    /// Compares the sums, once all accounts have been seen; they come first.
    pub fn compare_sums(&mut self) {
        let sums = [
            ("debits_posted", self.debits_posted, self.posted_expected),
            ("credits_posted", self.credits_posted, self.posted_expected),
            ("debits_pending", self.debits_pending, self.pending_expected),
            (
                "credits_pending",
                self.credits_pending,
                self.pending_expected,
            ),
        ];
        for (name, found, expected) in sums.into_iter().rev() {
            if found != u128::from(expected) {
                self.differences_count += 1;
                let text = format!("the sum of {name} is {found}, expected {expected}");
                self.differences.insert(0, text);
            }
        }
    }
}

enum Question {
    Accounts,
    Transfers,
}

/// Looks up everything there is to compare.
pub struct Verify<'a> {
    books: &'a Books,
    expected: Option<Vec<Balance>>,
    question: Question,
    batch: usize,
    next: usize,
    pub verified: Verified,
}

impl<'a> Verify<'a> {
    pub fn accounts(books: &'a Books, batch: u32) -> Verify<'a> {
        let expected = books.balances();
        let effect = books.effect();
        let verified = Verified {
            transfers_accepted: books.created(),
            posted_expected: effect.posted,
            pending_expected: effect.pended - effect.released,
            each_account: expected.is_some(),
            ..Verified::default()
        };
        Verify {
            books,
            expected,
            question: Question::Accounts,
            batch: batch as usize,
            next: 0,
            verified,
        }
    }

    /// The second question, after the first has been answered.
    pub fn transfers(self) -> Verify<'a> {
        Verify {
            question: Question::Transfers,
            next: 0,
            ..self
        }
    }

    fn count(&self) -> usize {
        match self.question {
            Question::Accounts => self.books.accounts() as usize,
            Question::Transfers => self.books.samples().len(),
        }
    }

    fn id(&self, index: usize) -> u128 {
        match self.question {
            Question::Accounts => self
                .books
                .run()
                .account(u32::try_from(index).expect("below the number of accounts")),
            Question::Transfers => self.books.samples()[index].id,
        }
    }

    fn compare_accounts(&mut self, asked: usize, found: &[Account]) {
        if found.len() != asked {
            self.verified
                .differ(|| format!("{} of {asked} accounts were found", found.len()));
        }
        for account in found {
            let verified = &mut self.verified;
            verified.accounts += 1;
            verified.debits_posted += account.debits_posted;
            verified.credits_posted += account.credits_posted;
            verified.debits_pending += account.debits_pending;
            verified.credits_pending += account.credits_pending;
        }
        let Some(expected) = &self.expected else {
            return;
        };
        for account in found {
            let index = self.books.run().account_index(account.id);
            let Some(&balance) = index.and_then(|index| expected.get(index as usize)) else {
                self.verified
                    .differ(|| format!("account {} was not asked for", account.id));
                continue;
            };
            let fields = [
                (
                    "debits_posted",
                    account.debits_posted,
                    balance.debits_posted,
                ),
                (
                    "credits_posted",
                    account.credits_posted,
                    balance.credits_posted,
                ),
                (
                    "debits_pending",
                    account.debits_pending,
                    balance.debits_pending,
                ),
                (
                    "credits_pending",
                    account.credits_pending,
                    balance.credits_pending,
                ),
            ];
            let wrong = |(_, found, expected): &(&str, u128, u64)| *found != u128::from(*expected);
            if fields.iter().any(wrong) {
                self.verified.differ(|| {
                    let parts: Vec<String> = fields
                        .iter()
                        .filter(|field| wrong(field))
                        .map(|(name, found, expected)| {
                            format!("{name} {found} instead of {expected}")
                        })
                        .collect();
                    format!("account {} has {}", account.id, parts.join(", "))
                });
            }
        }
    }

    fn compare_transfers(&mut self, first: usize, asked: usize, found: &[Transfer]) {
        if found.len() != asked {
            self.verified.differ(|| {
                format!(
                    "{} of {asked} acknowledged transfers were found",
                    found.len()
                )
            });
        }
        let mut found = found.iter();
        for sample in &self.books.samples()[first..first + asked] {
            self.verified.samples += 1;
            let same = found
                .as_slice()
                .first()
                .is_some_and(|transfer| transfer.id == sample.id);
            if !same {
                self.verified
                    .differ(|| format!("transfer {:#034x} was not found", sample.id));
                continue;
            }
            let transfer = found.next().expect("looked at just above");
            if (Transfer {
                timestamp: 0,
                ..*transfer
            }) != *sample
                || transfer.timestamp == 0
            {
                self.verified.differ(|| {
                    format!(
                        "transfer {:#034x} is not as it was sent: {transfer:?}",
                        sample.id
                    )
                });
            }
        }
    }
}

impl Work for Verify<'_> {
    fn prepare(&mut self, client: usize, _side: Side, events: &mut [u8]) -> Option<Prepared> {
        // One client asks everything, so that answers come in the order of the questions.
        let count = self.batch.min(self.count() - self.next);
        if client != 0 || count == 0 {
            return None;
        }
        let operation = match self.question {
            Question::Accounts => Operation::LookupAccounts,
            Question::Transfers => Operation::LookupTransfers,
        };
        for (index, place) in (self.next..self.next + count).zip(events.chunks_exact_mut(16)) {
            place.copy_from_slice(self.id(index).as_bytes());
        }
        self.next += count;
        Some(Prepared {
            operation,
            events: u32::try_from(count).expect("at most a batch, a u32"),
        })
    }

    fn complete(&mut self, done: Done<'_>) -> Result<(), Failure> {
        let asked = done.events as usize;
        match self.question {
            Question::Accounts => self.compare_accounts(asked, accounts(done.results)),
            Question::Transfers => {
                let first = usize::try_from(self.verified.samples).expect("at most SAMPLES_MAX");
                self.compare_transfers(first, asked, transfers(done.results));
            }
        }
        Ok(())
    }
}
