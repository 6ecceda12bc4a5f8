//! The account afterwards: what was promised, what is there.
//!
//! Every acknowledged transfer is looked up and compared field by field: *lost* if it is not there as
//! it was sent. A batch of unknown fate must be there as a whole or not at all. Then each client's
//! account must have been debited by exactly the transfers that were found, and the pots credited by
//! them: more is a transfer that was applied twice (*duplicated*), less is one that is there in name
//! only (*lost*). Last, a request that was sent and acknowledged while it could not have been, because
//! no majority was there, is *forbidden*.

use stampede_bench::pace::Nanos;
use stampede_client::Client;
use stampede_client::wire::{Account, Transfer};

use crate::books::{self, Books};
use crate::trouble::Trouble;

/// Transfers asked for in one look-up.
const LOOK_UP_MAX: usize = 8000;

/// Where transfers and balances are looked up: the cluster, or a made-up one that lies.
pub(crate) trait Archive {
    fn transfers(&mut self, ids: &[u128]) -> Result<Vec<Transfer>, Trouble>;
    fn accounts(&mut self, ids: &[u128]) -> Result<Vec<Account>, Trouble>;
}

impl Archive for Client {
    fn transfers(&mut self, ids: &[u128]) -> Result<Vec<Transfer>, Trouble> {
        self.lookup_transfers(ids)
            .map_err(|error| Trouble::failed(format!("transfers cannot be looked up: {error}")))
    }

    fn accounts(&mut self, ids: &[u128]) -> Result<Vec<Account>, Trouble> {
        self.lookup_accounts(ids)
            .map_err(|error| Trouble::failed(format!("accounts cannot be looked up: {error}")))
    }
}

/// What the account came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Audit {
    /// Transfers acknowledged.
    pub(crate) acknowledged: u64,
    /// Acknowledged transfers that are not there, or are not what was sent.
    pub(crate) lost: u64,
    /// Requests executed twice: transfers answered as existing, and accounts with too much.
    pub(crate) duplicated: u64,
    /// Batches whose answer never came, and how many of them are there.
    pub(crate) unknown: u64,
    pub(crate) unknown_found: u64,
    /// Batches of unknown fate that are there in part.
    pub(crate) torn: u64,
    /// Reads that were answered from an old state, and those with more than was ever sent.
    pub(crate) stale: u64,
    pub(crate) invented: u64,
    /// Requests acknowledged while no majority was there.
    pub(crate) forbidden: u64,
}

impl Audit {
    /// What is wrong, in words; nothing for a clean account.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let counts = [
            (self.lost, "acknowledged transfers lost"),
            (self.duplicated, "transfers applied twice"),
            (self.torn, "batches applied in part"),
            (self.stale, "reads answered from an old state"),
            (self.invented, "reads with more than was ever sent"),
            (self.forbidden, "requests acknowledged without a majority"),
        ];
        let wrong = counts.iter().filter(|(count, _)| *count > 0);
        wrong
            .map(|(count, what)| format!("{count} {what}"))
            .collect()
    }
}

/// Debits and credits that the transfers found amount to.
#[derive(Debug, Default)]
struct Totals {
    clients: Vec<u128>,
    pots: Vec<u128>,
}

impl Totals {
    fn add(&mut self, client: usize, transfer: &Transfer) {
        self.clients[client] += transfer.amount;
        let pots = (0..books::POTS).map(books::pot_of);
        for (pot, total) in pots.zip(&mut self.pots) {
            if transfer.credit_account_id == pot {
                *total += transfer.amount;
            }
        }
    }
}

/// Holds the books against the archive.
pub(crate) fn audit(
    books: &Books,
    forbidden: &[(Nanos, Nanos)],
    archive: &mut impl Archive,
) -> Result<Audit, Trouble> {
    let mut audit = Audit::default();
    let mut totals = Totals {
        clients: vec![0; books.clients.len()],
        pots: vec![0; usize::try_from(books::POTS).expect("a small constant")],
    };
    for (index, client) in books.clients.iter().enumerate() {
        audit.duplicated += client.repeated;
        audit.stale += client.stale;
        audit.invented += client.invented;
        look_up_all(books, index, &mut audit, &mut totals, archive)?;
    }
    for captive in &books.captives {
        audit.stale += captive.stale;
        audit.invented += captive.invented;
    }
    audit.forbidden = forbidden_replies(books, forbidden);
    compare_balances(&totals, &mut audit, archive)?;
    Ok(audit)
}

/// Looks up every transfer of one client, many batches at once.
fn look_up_all(
    books: &Books,
    index: usize,
    audit: &mut Audit,
    totals: &mut Totals,
    archive: &mut impl Archive,
) -> Result<(), Trouble> {
    let client = u32::try_from(index).expect("few clients");
    let book = &books.clients[index];
    let size = usize::try_from(book.batch).expect("a batch fits a message");
    for batches in book.batches.chunks((LOOK_UP_MAX / size.max(1)).max(1)) {
        let numbers = |first: u64| first..first + book.batch;
        let ids: Vec<u128> = batches
            .iter()
            .flat_map(|batch| numbers(batch.first))
            .map(|number| books::id_of(client, number))
            .collect();
        // What is not there is left out of the answer; the rest is in the order of the question.
        let found = archive.transfers(&ids)?;
        let mut found = found.iter().peekable();
        for batch in batches {
            let mut there = 0;
            for number in numbers(batch.first) {
                let sent = books::transfer(client, number);
                let Some(kept) = found.next_if(|kept| kept.id == sent.id) else {
                    continue;
                };
                totals.add(index, kept);
                there += u64::from(
                    Transfer {
                        timestamp: 0,
                        ..*kept
                    } == sent,
                );
            }
            if batch.answered.is_some() {
                audit.acknowledged += book.batch;
                audit.lost += book.batch - there;
            } else {
                audit.unknown += 1;
                audit.unknown_found += u64::from(there == book.batch);
                audit.torn += u64::from(0 < there && there < book.batch);
            }
        }
        if let Some(extra) = found.next() {
            return Err(Trouble::failed(format!(
                "a look-up was answered with transfer {}, which it did not ask for",
                extra.id
            )));
        }
    }
    Ok(())
}

/// Balances against the transfers that were found.
fn compare_balances(
    totals: &Totals,
    audit: &mut Audit,
    archive: &mut impl Archive,
) -> Result<(), Trouble> {
    let clients = u32::try_from(totals.clients.len()).expect("few clients");
    let pots = (0..books::POTS).map(books::pot_of).zip(&totals.pots);
    let pots = pots.map(|(id, total)| (id, 0, *total));
    let own = (0..clients).map(books::account_of).zip(&totals.clients);
    let own = own.map(|(id, total)| (id, *total, 0));
    let expected: Vec<(u128, u128, u128)> = pots.chain(own).collect();
    let ids: Vec<u128> = expected.iter().map(|(id, ..)| *id).collect();
    let accounts = archive.accounts(&ids)?;
    for (id, debits, credits) in expected {
        let Some(account) = accounts.iter().find(|account| account.id == id) else {
            audit.lost += 1;
            continue;
        };
        let sides = [
            (account.debits_posted, debits),
            (account.credits_posted, credits),
        ];
        for (is, must) in sides {
            audit.duplicated += u64::from(is > must);
            audit.lost += u64::from(is < must);
        }
    }
    Ok(())
}

/// Requests that were both sent and answered within one of the windows. One sent before may have been
/// committed before, and only its answer came late.
fn forbidden_replies(books: &Books, windows: &[(Nanos, Nanos)]) -> u64 {
    let within = |sent: Nanos, answered: Nanos| {
        windows
            .iter()
            .any(|(from, to)| sent >= *from && answered <= *to)
    };
    let mut count = 0;
    for client in &books.clients {
        let batches = client.batches.iter();
        let replies = batches.filter_map(|batch| Some((batch.sent, batch.answered?)));
        let reads = client.reads.iter().map(|read| (read.sent, read.answered));
        count += replies
            .chain(reads)
            .filter(|(sent, answered)| within(*sent, *answered))
            .count() as u64;
    }
    count
}

/// The longest time without an acknowledgement between two instants, the edges included.
pub(crate) fn longest_gap(acknowledgements: &[(Nanos, u64)], from: Nanos, to: Nanos) -> Nanos {
    let start = acknowledgements.partition_point(|(at, _)| *at < from);
    // The last one before counts: the gap may have begun there.
    let mut last = from;
    let mut longest = 0;
    for (at, _) in &acknowledgements[start..] {
        let at = (*at).min(to);
        longest = longest.max(at - last);
        last = at;
        if at == to {
            break;
        }
    }
    longest.max(to.saturating_sub(last))
}

/// Transfers acknowledged in each second between two instants.
pub(crate) fn rate(acknowledgements: &[(Nanos, u64)], from: Nanos, to: Nanos) -> f64 {
    let start = acknowledgements.partition_point(|(at, _)| *at < from);
    let end = acknowledgements.partition_point(|(at, _)| *at < to);
    let transfers: u64 = acknowledgements[start..end.max(start)]
        .iter()
        .map(|(_, count)| count)
        .sum();
    transfers as f64 * 1e9 / to.saturating_sub(from).max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::books::{Batch, ClientBooks, Read};

    /// An archive that was told everything in the books, and then tampered with.
    struct Made {
        transfers: Vec<Transfer>,
        accounts: Vec<Account>,
    }

    impl Made {
        fn from(books: &Books) -> Self {
            let clients = u32::try_from(books.clients.len()).unwrap();
            let mut made = Self {
                transfers: Vec::new(),
                accounts: books::accounts(clients),
            };
            for client in 0..clients {
                for batch in &books.clients[client as usize].batches {
                    for number in batch.first..batch.first + 4 {
                        made.apply(books::transfer(client, number));
                    }
                }
            }
            made
        }

        fn apply(&mut self, transfer: Transfer) {
            self.account(transfer.debit_account_id).debits_posted += transfer.amount;
            self.account(transfer.credit_account_id).credits_posted += transfer.amount;
            let timestamp = self.transfers.len() as u64 + 1;
            self.transfers.push(Transfer {
                timestamp,
                ..transfer
            });
        }

        fn revoke(&mut self, index: usize) {
            let transfer = self.transfers.remove(index);
            self.account(transfer.debit_account_id).debits_posted -= transfer.amount;
            self.account(transfer.credit_account_id).credits_posted -= transfer.amount;
        }

        fn account(&mut self, id: u128) -> &mut Account {
            self.accounts.iter_mut().find(|a| a.id == id).unwrap()
        }
    }

    impl Archive for Made {
        fn transfers(&mut self, ids: &[u128]) -> Result<Vec<Transfer>, Trouble> {
            let find = |id: &u128| self.transfers.iter().find(|t| t.id == *id).copied();
            Ok(ids.iter().filter_map(find).collect())
        }

        fn accounts(&mut self, ids: &[u128]) -> Result<Vec<Account>, Trouble> {
            let find = |id: &u128| self.accounts.iter().find(|a| a.id == *id).copied();
            Ok(ids.iter().filter_map(find).collect())
        }
    }

    /// Two clients with three batches of four; the last batch of the second was never answered.
    fn books() -> Books {
        let batch = |index: u64, answered| Batch {
            first: index * 4,
            sent: index * 100,
            answered,
        };
        let answered = |index: u64| batch(index, Some(index * 100 + 50));
        let first = vec![answered(0), answered(1), answered(2)];
        let second = vec![answered(0), answered(1), batch(2, None)];
        let client = |batches| ClientBooks {
            batch: 4,
            batches,
            ..ClientBooks::default()
        };
        Books {
            clients: vec![client(first), client(second)],
            captives: Vec::new(),
        }
    }

    fn judge(books: &Books, made: &mut Made) -> Audit {
        audit(books, &[], made).unwrap()
    }

    #[test]
    fn a_clean_account_has_no_complaints() {
        let books = books();
        let audit = judge(&books, &mut Made::from(&books));
        assert_eq!(
            (audit.acknowledged, audit.unknown, audit.unknown_found),
            (20, 1, 1)
        );
        assert_eq!(audit.complaints(), Vec::<String>::new());
    }

    #[test]
    fn a_batch_of_unknown_fate_may_be_missing_but_not_in_part() {
        let books = books();
        let mut made = Made::from(&books);
        for _ in 0..4 {
            made.revoke(20);
        }
        let audit = judge(&books, &mut made);
        assert_eq!((audit.unknown, audit.unknown_found), (1, 0));
        assert!(audit.complaints().is_empty());

        let mut made = Made::from(&books);
        made.revoke(21);
        assert_eq!(
            judge(&books, &mut made).complaints(),
            ["1 batches applied in part"]
        );
    }

    #[test]
    fn a_lost_transfer_is_found() {
        let books = books();
        for index in [0, 5, 19] {
            let mut made = Made::from(&books);
            made.revoke(index);
            let audit = judge(&books, &mut made);
            assert_eq!(
                audit.complaints(),
                ["1 acknowledged transfers lost"],
                "{index}"
            );
        }
    }

    #[test]
    fn a_transfer_that_is_there_in_name_only_is_found() {
        let books = books();
        let mut made = Made::from(&books);
        made.account(books::account_of(1)).debits_posted -= 1;
        assert_eq!(judge(&books, &mut made).lost, 1);
    }

    #[test]
    fn a_transfer_that_changed_is_lost() {
        let books = books();
        let mut made = Made::from(&books);
        made.transfers[3].user_data_64 ^= 1;
        assert_eq!(judge(&books, &mut made).lost, 1);
    }

    #[test]
    fn a_transfer_applied_twice_is_found() {
        let books = books();
        let mut made = Made::from(&books);
        let again = made.transfers[2];
        made.account(again.debit_account_id).debits_posted += again.amount;
        made.account(again.credit_account_id).credits_posted += again.amount;
        let audit = judge(&books, &mut made);
        // Both sides of it.
        assert_eq!((audit.lost, audit.duplicated), (0, 2));
    }

    #[test]
    fn a_request_executed_twice_and_bad_reads_are_counted() {
        let mut books = books();
        books.clients[0].repeated = 4;
        books.clients[1].stale = 2;
        books.clients[1].invented = 1;
        let audit = judge(&books, &mut Made::from(&books));
        assert_eq!((audit.duplicated, audit.stale, audit.invented), (4, 2, 1));
        books.captives.push(ClientBooks {
            stale: 1,
            ..ClientBooks::default()
        });
        assert_eq!(judge(&books, &mut Made::from(&books)).stale, 3);
        assert_eq!(audit.complaints().len(), 3);
    }

    #[test]
    fn an_answer_without_a_majority_is_found() {
        let mut books = books();
        books.clients[0].reads.push(Read {
            sent: 110,
            answered: 120,
        });
        let count = |window| {
            let found = audit(&books, &[window], &mut Made::from(&books));
            found.unwrap().forbidden
        };
        // Both clients' second batches, sent at 100 and answered at 150, and the read.
        assert_eq!(count((100, 150)), 3);
        // Sent before, or answered after.
        assert_eq!(count((101, 150)), 1);
        assert_eq!(count((100, 149)), 1);
        assert_eq!(count((121, 149)), 0);
    }

    #[test]
    fn a_reply_that_nobody_asked_for_is_refused() {
        struct Chatty(Made);
        impl Archive for Chatty {
            fn transfers(&mut self, ids: &[u128]) -> Result<Vec<Transfer>, Trouble> {
                let mut found = self.0.transfers(ids)?;
                found.push(books::transfer(9, 9));
                Ok(found)
            }
            fn accounts(&mut self, ids: &[u128]) -> Result<Vec<Account>, Trouble> {
                self.0.accounts(ids)
            }
        }
        let books = books();
        assert!(audit(&books, &[], &mut Chatty(Made::from(&books))).is_err());
    }

    #[test]
    fn gaps_are_measured_to_the_edges() {
        let acks = [(10, 4), (20, 4), (50, 4), (55, 8)];
        assert_eq!(longest_gap(&acks, 0, 60), 30);
        assert_eq!(longest_gap(&acks, 20, 50), 30);
        assert_eq!(longest_gap(&acks, 30, 40), 10);
        assert_eq!(longest_gap(&acks, 52, 155), 100);
        assert_eq!(longest_gap(&[], 5, 25), 20);
        assert!((rate(&acks, 20, 60) - 0.4e9).abs() < 1.0);
        assert!(rate(&acks, 60, 60).abs() < 1.0);
    }
}
