//! What an event did to the balances of its accounts, from its row.

use stampede_client::wire::Transfer;
use stampede_client::wire::record::transfer_flags as flags;

use super::openings::{Balances, Released, Side};
use super::row::Expired;

/// What an event did: amounts on each account's own side, and closing.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Effect {
    pended: u128,
    released: u128,
    posted: u128,
    /// Closing flags of transfers: what was closed, what was opened again.
    closed: u16,
    reopened: u16,
}

const CLOSING: u16 = flags::CLOSING_DEBIT | flags::CLOSING_CREDIT;

impl Effect {
    /// `released` is for resolutions whose row does not say what they released.
    pub(super) fn of_transfer(transfer: &Transfer, released: Option<Released>) -> Self {
        let amount = transfer.amount;
        let of_pending = released.map_or(amount, |released| released.amount);
        if transfer.flags & flags::PENDING != 0 {
            Self {
                pended: amount,
                closed: transfer.flags & CLOSING,
                ..Self::default()
            }
        } else if transfer.flags & flags::POST_PENDING_TRANSFER != 0 {
            Self {
                released: of_pending,
                posted: amount,
                ..Self::default()
            }
        } else if transfer.flags & flags::VOID_PENDING_TRANSFER != 0 {
            Self {
                released: of_pending,
                reopened: released.map_or(0, |released| released.flags & CLOSING),
                ..Self::default()
            }
        } else {
            Self {
                posted: amount,
                ..Self::default()
            }
        }
    }

    pub(super) fn of_expired(expired: &Expired) -> Self {
        Self {
            released: expired.amount,
            reopened: expired.flags & CLOSING,
            ..Self::default()
        }
    }
}

impl Balances {
    /// The balances become those of the account on this side after the event.
    pub(super) fn apply(&mut self, side: Side, effect: &Effect) {
        let after = self.after(side, effect);
        *self = after.expect("an account's sums were checked when the event was");
    }

    /// The same, unless the balances do not allow of such an event.
    pub(super) fn after(mut self, side: Side, effect: &Effect) -> Option<Self> {
        let (pending, posted, closing) = match side {
            Side::Debit => (
                &mut self.debits_pending,
                &mut self.debits_posted,
                flags::CLOSING_DEBIT,
            ),
            Side::Credit => (
                &mut self.credits_pending,
                &mut self.credits_posted,
                flags::CLOSING_CREDIT,
            ),
        };
        *posted = posted.checked_add(effect.posted)?;
        *pending = pending
            .checked_add(effect.pended)?
            .checked_sub(effect.released)?;
        if effect.closed & closing != 0 {
            self.closed = true;
        }
        if effect.reopened & closing != 0 {
            self.closed = false;
        }
        Some(self)
    }
}
