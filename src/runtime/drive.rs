//! The replica as the loop's driver, its executor and its builder on their threads.
//!
//! Nothing but names: the loop's traits on one side, the replica's methods on the other, and one
//! judgement, which tasks are quick.

use stampede_client::wire::operation::{Kind, Operation};

use super::workers::{Build, Execute};
use super::{Driver, Output};
use crate::limits::{BUFFER_SIZE_SMALL, HEADER_SIZE};
use crate::protocol::Time;
use crate::replica::Replica;
use crate::replica::executor::{CheckpointDone, CheckpointTask, Done, Executor, Task};
use crate::replica::ingress::{Inspected, inspect};
use crate::replica::io::Input;
use crate::store::Storage;

impl Driver for Replica {
    fn inspect(header: &[u8; HEADER_SIZE]) -> Result<Inspected, &'static str> {
        inspect(header)
    }

    fn start(&mut self, now: Time, outputs: &mut Vec<Output>) {
        Replica::start(self, now, outputs);
    }

    fn on_input(&mut self, input: Input, now: Time, outputs: &mut Vec<Output>) {
        Replica::on_input(self, input, now, outputs);
    }
}

impl Execute for Executor {
    fn run(&mut self, task: Task) -> Option<Done> {
        Executor::run(self, task)
    }

    /// A small body is at most some sixty events of about a microsecond. Queries are never quick:
    /// a filter is small, but what it asks for may lie on the disk.
    fn is_quick(task: &Task) -> bool {
        let Task::Apply {
            prepare,
            checkpoint: false,
            ..
        } = task
        else {
            return false;
        };
        let header = prepare.header();
        let kind = Operation::from_code(header.operation).map(Operation::kind);
        header.size as usize <= BUFFER_SIZE_SMALL
            && matches!(
                kind,
                Some(
                    Kind::Register
                        | Kind::Noop
                        | Kind::CreateAccounts
                        | Kind::CreateTransfers
                        | Kind::LookupAccounts
                )
            )
    }
}

/// The builder's disk.
impl<S: Storage + 'static> Build for S {
    fn build(&mut self, task: CheckpointTask) -> CheckpointDone {
        task.write(self)
    }
}
