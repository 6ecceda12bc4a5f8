//! Why a drill could not go on as it should. Wrong results are not troubles: the verdict counts them.

use std::fmt::Display;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Trouble {
    /// The cluster, or what the drill needs of the machine, did not do what it must.
    #[error("{0}")]
    Failed(String),
    /// This machine cannot play it, which says nothing about the cluster.
    #[error("skipped: {0}")]
    Skipped(String),
    /// Somebody pressed Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

impl Trouble {
    pub(crate) fn failed(message: impl Display) -> Self {
        Self::Failed(message.to_string())
    }

    pub(crate) fn skipped(message: impl Display) -> Self {
        Self::Skipped(message.to_string())
    }
}
