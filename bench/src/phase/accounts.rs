//! Creates the accounts of a run, as fast as all clients together can; never part of the figures.

use stampede_client::wire::{Account, CreateAccountStatus, Operation};
use zerocopy::FromBytes;

use super::create_results;
use crate::engine::work::{Done, Prepared, Side, Work};
use crate::failure::{Exit, Failure};
use crate::progress::Progress;
use crate::workload::events::{CODE, LEDGER};
use crate::workload::ids::Run;

pub struct CreateAccounts<'a> {
    run: Run,
    count: u32,
    next: u32,
    created: u32,
    batch: u32,
    progress: &'a Progress,
}

impl<'a> CreateAccounts<'a> {
    pub fn new(run: Run, count: u32, batch: u32, progress: &'a Progress) -> CreateAccounts<'a> {
        CreateAccounts {
            run,
            count,
            next: 0,
            created: 0,
            batch,
            progress,
        }
    }
}

impl Work for CreateAccounts<'_> {
    fn prepare(&mut self, _client: usize, _side: Side, events: &mut [u8]) -> Option<Prepared> {
        let events_count = self.batch.min(self.count - self.next);
        if events_count == 0 {
            return None;
        }
        let payload = &mut events[..events_count as usize * Account::SIZE];
        let accounts = <[Account]>::mut_from_bytes(payload).expect("bodies lie in aligned buffers");
        for (account, index) in accounts.iter_mut().zip(self.next..) {
            *account = Account {
                id: self.run.account(index),
                ledger: LEDGER,
                code: CODE,
                ..Account::default()
            };
        }
        self.next += events_count;
        Some(Prepared {
            operation: Operation::CreateAccounts,
            events: events_count,
        })
    }

    fn complete(&mut self, done: Done<'_>) -> Result<(), Failure> {
        let created = CreateAccountStatus::Created.code();
        let wrong = create_results(done.results)
            .iter()
            .find(|result| result.status != created);
        if let Some(result) = wrong {
            let status = result.account_status().map_or_else(
                || format!("unknown status {}", result.status),
                |status| status.to_string(),
            );
            return Err(Failure {
                exit: Exit::WrongResults,
                message: format!("an account could not be created: {status}"),
            });
        }
        self.created += done.events;
        Ok(())
    }

    fn tick(&mut self, _now: u64) {
        self.progress.set(u64::from(self.created));
    }
}
