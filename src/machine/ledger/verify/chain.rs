//! Whether chains are whole.

/// What the last row says of the one after it: an event that is linked was created only if the next one was.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chain {
    #[default]
    Over,
    /// The next event of the batch, and so the next timestamp.
    Linked { next: u64 },
    /// The same of imported events, whose timestamps are given.
    LinkedImported,
}

impl Chain {
    pub(super) fn is_over(self) -> bool {
        self == Self::Over
    }

    /// The next row. Whether it is one that the row before can be linked to, if that is linked.
    pub(super) fn goes_on(&mut self, linked: bool, imported: bool, timestamp: u64) -> bool {
        let holds = match *self {
            Self::Over => true,
            Self::Linked { next } => !imported && timestamp == next,
            Self::LinkedImported => imported,
        };
        *self = match (linked, imported) {
            (false, _) => Self::Over,
            (true, false) => Self::Linked {
                next: timestamp.saturating_add(1),
            },
            (true, true) => Self::LinkedImported,
        };
        holds
    }
}
