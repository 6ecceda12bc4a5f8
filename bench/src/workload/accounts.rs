//! Who pays whom: pairs of different account indexes, drawn by the workload's distribution.
//!
//! Zipf's law is drawn from an alias table (Vose's construction): one random number and one cache line
//! per draw whatever the skew, where a draw by inversion costs two logarithms, which at 16,000 draws a
//! batch would be the most expensive thing the generator does. Ranks are dealt to account indexes at
//! random, so that popular accounts are not neighbours in the server's memory.

use std::sync::Arc;

use crate::args::WorkloadKind;
use crate::random::Random;

/// Two different accounts, by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    pub debit: u32,
    pub credit: u32,
}

#[derive(Clone, Debug)]
pub enum Picker {
    Uniform {
        accounts: u32,
    },
    Table {
        /// Shared by all clients: it has eight bytes for each account.
        table: Arc<AliasTable>,
    },
    /// Account 0 takes part in `share` (of 2^32) of all transfers.
    Hot {
        accounts: u32,
        share: u64,
    },
}

impl Picker {
    /// `accounts` is at least 2.
    pub fn new(kind: WorkloadKind, accounts: u32, theta: f64, share: f64, seed: u64) -> Picker {
        assert!(accounts >= 2, "a transfer needs two accounts");
        match kind {
            WorkloadKind::Uniform | WorkloadKind::TwoPhase | WorkloadKind::Linked => {
                Picker::Uniform { accounts }
            }
            WorkloadKind::Zipfian => {
                let ranks = shuffled(accounts, seed);
                let weight = |account: u32| {
                    let rank = f64::from(ranks[account as usize]) + 1.0;
                    rank.powf(-theta)
                };
                Picker::Table {
                    table: Arc::new(AliasTable::new((0..accounts).map(weight).collect())),
                }
            }
            #[expect(clippy::cast_possible_truncation, reason = "a share of at most 2^32")]
            #[expect(clippy::cast_sign_loss, reason = "the command line admits 0 to 1")]
            WorkloadKind::Hot => Picker::Hot {
                accounts,
                share: (share * (1_u64 << 32) as f64) as u64,
            },
        }
    }

    #[inline]
    pub fn pair(&self, random: &mut Random) -> Pair {
        match self {
            Picker::Uniform { accounts } => uniform_pair(*accounts, 0, random.next_u64()),
            Picker::Table { table } => {
                let debit = table.draw(random.next_u64());
                // An account that draws nearly all the weight would be drawn again and again.
                for _ in 0..8 {
                    let credit = table.draw(random.next_u64());
                    if credit != debit {
                        return Pair { debit, credit };
                    }
                }
                Pair {
                    debit,
                    credit: (debit + 1) % table.len(),
                }
            }
            Picker::Hot { accounts, share } => {
                let bits = random.next_u64();
                if (bits >> 32) < *share || *accounts == 2 {
                    let other = 1 + scale(low_half(random.next_u64()), accounts - 1);
                    if bits & 1 == 0 {
                        Pair {
                            debit: 0,
                            credit: other,
                        }
                    } else {
                        Pair {
                            debit: other,
                            credit: 0,
                        }
                    }
                } else {
                    uniform_pair(accounts - 1, 1, random.next_u64())
                }
            }
        }
    }
}

/// A pair from `first..first + accounts`, all ordered pairs equally likely: the second account is
/// drawn among the others and steps over the first.
#[inline]
fn uniform_pair(accounts: u32, first: u32, bits: u64) -> Pair {
    if accounts == 1 {
        return Pair {
            debit: first,
            credit: 0,
        };
    }
    let debit = scale(low_half(bits), accounts);
    let credit = scale(low_half(bits >> 32), accounts - 1);
    Pair {
        debit: first + debit,
        credit: first + credit + u32::from(credit >= debit),
    }
}

#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the low half is what is wanted"
)]
fn low_half(bits: u64) -> u32 {
    bits as u32
}

/// Maps 32 random bits to `0..bound` by multiply-shift.
#[inline]
fn scale(bits: u32, bound: u32) -> u32 {
    ((u64::from(bits) * u64::from(bound)) >> 32) as u32
}

/// `0..count` in an order fixed by the seed (Fisher-Yates).
#[expect(
    clippy::cast_possible_truncation,
    reason = "indexes are below count, a u32"
)]
fn shuffled(count: u32, seed: u64) -> Vec<u32> {
    let mut random = Random::new(seed, 0x5a1f);
    let mut order: Vec<u32> = (0..count).collect();
    for last in (1..order.len()).rev() {
        order.swap(last, random.below(last as u64 + 1) as usize);
    }
    order
}

/// Draws an index with a given weight in constant time.
#[derive(Clone, Debug)]
pub struct AliasTable {
    /// For each column: draws below the threshold (of 2^32) are the column's own, others its alias's.
    columns: Vec<Column>,
}

#[derive(Clone, Copy, Debug)]
struct Column {
    threshold: u32,
    alias: u32,
}

impl AliasTable {
    /// Weights are finite, not negative, and not all zero; there are fewer than 2^32.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "there are fewer than 2^32 columns"
    )]
    #[expect(clippy::cast_sign_loss, reason = "weights are not negative")]
    pub fn new(mut weights: Vec<f64>) -> AliasTable {
        let count = weights.len();
        let total: f64 = weights.iter().sum();
        assert!(total > 0.0 && total.is_finite());
        for weight in &mut weights {
            *weight *= count as f64 / total;
        }
        let (mut small, mut large): (Vec<u32>, Vec<u32>) =
            (0..count as u32).partition(|&index| weights[index as usize] < 1.0);
        let mut columns: Vec<Column> = (0..count as u32)
            .map(|alias| Column {
                threshold: u32::MAX,
                alias,
            })
            .collect();
        // Each short column is filled up by one long one, which becomes shorter by what it gave.
        while let (Some(&donor), Some(short)) = (large.last(), small.pop()) {
            let own = weights[short as usize];
            columns[short as usize] = Column {
                threshold: (own * f64::from(u32::MAX)) as u32,
                alias: donor,
            };
            let left = &mut weights[donor as usize];
            *left -= 1.0 - own;
            if *left < 1.0 {
                large.pop();
                small.push(donor);
            }
        }
        // What is left is full up to rounding, and is its own alias.
        AliasTable { columns }
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "built with fewer than 2^32 columns"
    )]
    pub fn len(&self) -> u32 {
        self.columns.len() as u32
    }

    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    #[inline]
    fn draw(&self, bits: u64) -> u32 {
        let index = scale(low_half(bits >> 32), self.len());
        let column = self.columns[index as usize];
        if low_half(bits) <= column.threshold {
            index
        } else {
            column.alias
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWS: u32 = 400_000;

    fn frequencies(picker: &Picker, accounts: u32) -> Vec<u32> {
        let mut random = Random::new(11, 3);
        let mut seen = vec![0; accounts as usize];
        for _ in 0..DRAWS {
            let pair = picker.pair(&mut random);
            assert_ne!(pair.debit, pair.credit);
            seen[pair.debit as usize] += 1;
            seen[pair.credit as usize] += 1;
        }
        seen
    }

    #[test]
    fn uniform_pairs_are_flat() {
        let picker = Picker::new(WorkloadKind::Uniform, 7, 0.0, 0.0, 1);
        let mut random = Random::new(2, 2);
        let mut pairs = [[0_u32; 7]; 7];
        for _ in 0..DRAWS {
            let pair = picker.pair(&mut random);
            pairs[pair.debit as usize][pair.credit as usize] += 1;
        }
        let expected = f64::from(DRAWS) / 42.0;
        for (debit, row) in pairs.iter().enumerate() {
            for (credit, &count) in row.iter().enumerate() {
                if debit == credit {
                    assert_eq!(count, 0);
                } else {
                    assert!(
                        (f64::from(count) / expected - 1.0).abs() < 0.06,
                        "{pairs:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn zipfian_debits_follow_the_law() {
        const ACCOUNTS: u32 = 1000;
        let theta = 0.99;
        let picker = Picker::new(WorkloadKind::Zipfian, ACCOUNTS, theta, 0.0, 5);
        let mut random = Random::new(3, 3);
        let mut seen = vec![0_u32; ACCOUNTS as usize];
        for _ in 0..DRAWS {
            seen[picker.pair(&mut random).debit as usize] += 1;
        }
        let weight = |rank: u32| f64::from(rank).powf(-theta);
        let total: f64 = (1..=ACCOUNTS).map(weight).sum();
        let ranks = shuffled(ACCOUNTS, 5);
        // Chi-squared over all ranks: the expectation is 999 and its standard deviation 45.
        let mut chi_squared = 0.0;
        for (account, &count) in seen.iter().enumerate() {
            let expected = f64::from(DRAWS) * weight(ranks[account] + 1) / total;
            chi_squared += (f64::from(count) - expected).powi(2) / expected;
        }
        assert!(
            (770.0..1230.0).contains(&chi_squared),
            "chi squared {chi_squared}"
        );
        // And the most popular account is not where a naive generator would put it.
        assert_ne!(ranks[0], 0);
    }

    #[test]
    fn an_extreme_skew_still_finds_a_second_account() {
        let picker = Picker::new(WorkloadKind::Zipfian, 2, 10.0, 0.0, 5);
        let seen = frequencies(&picker, 2);
        assert_eq!(seen, [DRAWS, DRAWS]);
    }

    #[test]
    fn a_flat_alias_table_is_uniform() {
        let picker = Picker::new(WorkloadKind::Zipfian, 10, 0.0, 0.0, 5);
        for count in frequencies(&picker, 10) {
            assert!((f64::from(count) / (f64::from(DRAWS) / 5.0) - 1.0).abs() < 0.03);
        }
    }

    #[test]
    fn the_hot_account_has_its_share() {
        for share in [0.0, 0.25, 0.9, 1.0] {
            let picker = Picker::new(WorkloadKind::Hot, 100, 0.0, share, 1);
            let seen = frequencies(&picker, 100);
            let found = f64::from(seen[0]) / f64::from(DRAWS);
            assert!((found - share).abs() < 0.01, "{share}: {found}");
            let others: u32 = seen[1..].iter().sum();
            let expected = f64::from(others) / 99.0;
            for &count in &seen[1..] {
                assert!((f64::from(count) / expected - 1.0).abs() < 0.15);
            }
        }
    }

    #[test]
    fn two_accounts_are_enough_for_every_workload() {
        for kind in [
            WorkloadKind::Uniform,
            WorkloadKind::Zipfian,
            WorkloadKind::Hot,
        ] {
            let picker = Picker::new(kind, 2, 0.99, 0.3, 1);
            assert_eq!(frequencies(&picker, 2), [DRAWS, DRAWS]);
        }
    }
}
