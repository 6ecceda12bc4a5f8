//! The table of operations: number, element sizes, how bodies are arranged.
//!
//! A number never changes its meaning; a changed operation gets a new number, so old and new clients are served side by
//! side by what the number says. `Kind` is what to do, `Form` is how the bodies look:
//!
//! ```text
//!   Batched    multi-batch bodies; creates answer with one 16-byte result for each event
//!   Sparse     multi-batch bodies; creates answer with 8-byte results for failed events only
//!   Unbatched  elements back to back; creates answer as in Sparse
//! ```

use super::record::{
    Account, AccountBalance, AccountFilter, ChangeEvent, ChangeEventsFilter, CreateResult,
    QueryFilter, RegisterRequest, RegisterResult, SparseResult, Transfer,
};

/// What an operation does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    Register,
    Noop,
    Pulse,
    GetChangeEvents,
    CreateAccounts,
    CreateTransfers,
    LookupAccounts,
    LookupTransfers,
    GetAccountTransfers,
    GetAccountBalances,
    QueryAccounts,
    QueryTransfers,
}

/// How an operation's bodies are arranged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Form {
    Unbatched,
    Sparse,
    Batched,
}

/// The byte names no operation of the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("operation {0} is not known")]
pub struct UnknownOperation(pub u8);

macro_rules! operations {
    ($($variant:ident = $code:literal, $text:literal, $kind:ident, $form:ident, $event:expr, $result:expr;)*) => {
        /// An operation by its number on the wire.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum Operation {
            $($variant = $code,)*
        }

        impl Operation {
            /// Every operation, ascending by code.
            pub const ALL: &'static [Operation] = &[$(Operation::$variant,)*];

            pub const fn from_code(code: u8) -> Option<Operation> {
                match code {
                    $($code => Some(Operation::$variant),)*
                    _ => None,
                }
            }

            pub const fn name(self) -> &'static str {
                match self {
                    $(Operation::$variant => $text,)*
                }
            }

            pub const fn kind(self) -> Kind {
                match self {
                    $(Operation::$variant => Kind::$kind,)*
                }
            }

            pub const fn form(self) -> Form {
                match self {
                    $(Operation::$variant => Form::$form,)*
                }
            }

            /// Bytes of one element of the request; 0 if it has none.
            pub const fn event_size(self) -> usize {
                match self {
                    $(Operation::$variant => $event,)*
                }
            }

            /// Bytes of one element of the reply; 0 if it has none.
            pub const fn result_size(self) -> usize {
                match self {
                    $(Operation::$variant => $result,)*
                }
            }
        }
    };
}

/// Bytes of an id, the event of a lookup.
const ID_SIZE: usize = size_of::<u128>();

operations! {
    Register = 2, "register", Register, Unbatched, RegisterRequest::SIZE, RegisterResult::SIZE;
    Noop = 6, "noop", Noop, Unbatched, 0, 0;
    Pulse = 128, "pulse", Pulse, Unbatched, 0, 0;
    CreateAccountsUnbatched = 129, "create_accounts_unbatched", CreateAccounts, Unbatched, Account::SIZE, SparseResult::SIZE;
    CreateTransfersUnbatched = 130, "create_transfers_unbatched", CreateTransfers, Unbatched, Transfer::SIZE, SparseResult::SIZE;
    LookupAccountsUnbatched = 131, "lookup_accounts_unbatched", LookupAccounts, Unbatched, ID_SIZE, Account::SIZE;
    LookupTransfersUnbatched = 132, "lookup_transfers_unbatched", LookupTransfers, Unbatched, ID_SIZE, Transfer::SIZE;
    GetAccountTransfersUnbatched = 133, "get_account_transfers_unbatched", GetAccountTransfers, Unbatched, AccountFilter::SIZE, Transfer::SIZE;
    GetAccountBalancesUnbatched = 134, "get_account_balances_unbatched", GetAccountBalances, Unbatched, AccountFilter::SIZE, AccountBalance::SIZE;
    QueryAccountsUnbatched = 135, "query_accounts_unbatched", QueryAccounts, Unbatched, QueryFilter::SIZE, Account::SIZE;
    QueryTransfersUnbatched = 136, "query_transfers_unbatched", QueryTransfers, Unbatched, QueryFilter::SIZE, Transfer::SIZE;
    GetChangeEvents = 137, "get_change_events", GetChangeEvents, Unbatched, ChangeEventsFilter::SIZE, ChangeEvent::SIZE;
    CreateAccountsSparse = 138, "create_accounts_sparse", CreateAccounts, Sparse, Account::SIZE, SparseResult::SIZE;
    CreateTransfersSparse = 139, "create_transfers_sparse", CreateTransfers, Sparse, Transfer::SIZE, SparseResult::SIZE;
    LookupAccounts = 140, "lookup_accounts", LookupAccounts, Batched, ID_SIZE, Account::SIZE;
    LookupTransfers = 141, "lookup_transfers", LookupTransfers, Batched, ID_SIZE, Transfer::SIZE;
    GetAccountTransfers = 142, "get_account_transfers", GetAccountTransfers, Batched, AccountFilter::SIZE, Transfer::SIZE;
    GetAccountBalances = 143, "get_account_balances", GetAccountBalances, Batched, AccountFilter::SIZE, AccountBalance::SIZE;
    QueryAccounts = 144, "query_accounts", QueryAccounts, Batched, QueryFilter::SIZE, Account::SIZE;
    QueryTransfers = 145, "query_transfers", QueryTransfers, Batched, QueryFilter::SIZE, Transfer::SIZE;
    CreateAccounts = 146, "create_accounts", CreateAccounts, Batched, Account::SIZE, CreateResult::SIZE;
    CreateTransfers = 147, "create_transfers", CreateTransfers, Batched, Transfer::SIZE, CreateResult::SIZE;
}

impl Operation {
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Whether both bodies are multi-batch.
    pub const fn is_multi_batch(self) -> bool {
        match self.form() {
            Form::Batched | Form::Sparse => true,
            Form::Unbatched => false,
        }
    }

    /// Whether a client may ask for it: the pulse is the server's own.
    pub const fn is_for_clients(self) -> bool {
        !matches!(self, Operation::Pulse)
    }

    /// Whether the state of the ledger may change.
    pub const fn is_create(self) -> bool {
        matches!(self.kind(), Kind::CreateAccounts | Kind::CreateTransfers)
    }

    pub const fn is_lookup(self) -> bool {
        matches!(self.kind(), Kind::LookupAccounts | Kind::LookupTransfers)
    }

    /// Whether an event is a filter, whose `limit` says how many results may follow.
    pub const fn is_query(self) -> bool {
        match self.kind() {
            Kind::GetChangeEvents
            | Kind::GetAccountTransfers
            | Kind::GetAccountBalances
            | Kind::QueryAccounts
            | Kind::QueryTransfers => true,
            Kind::Register
            | Kind::Noop
            | Kind::Pulse
            | Kind::CreateAccounts
            | Kind::CreateTransfers
            | Kind::LookupAccounts
            | Kind::LookupTransfers => false,
        }
    }
}

impl TryFrom<u8> for Operation {
    type Error = UnknownOperation;

    fn try_from(code: u8) -> Result<Operation, UnknownOperation> {
        Operation::from_code(code).ok_or(UnknownOperation(code))
    }
}

impl core::fmt::Display for Operation {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let known = (0..=u8::MAX).filter(|&code| Operation::try_from(code).is_ok());
        assert_eq!(
            known.collect::<Vec<_>>(),
            [2, 6].into_iter().chain(128..=147).collect::<Vec<_>>()
        );
        for &operation in Operation::ALL {
            assert_eq!(Operation::try_from(operation.code()), Ok(operation));
            assert_eq!(operation.is_multi_batch(), operation.code() >= 138);
        }
        assert_eq!(Operation::try_from(148), Err(UnknownOperation(148)));
    }
}
