//! Why a run could not be finished: who is at fault, what to do, and the exit status.
//!
//! Wrong *results* are not failures of the run: they are counted, shown and turned into
//! [`Exit::WrongResults`] at the end, after the table.

use std::process::ExitCode;

/// Exit statuses; 2 is also what clap uses for a command line it cannot read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Good = 0,
    /// The server answered, but not with what it should have.
    WrongResults = 1,
    Usage = 2,
    /// No server, or it stopped answering.
    Unreachable = 3,
    /// The server refused the client or broke the protocol.
    Protocol = 4,
    /// A file or directory of ours could not be used.
    Files = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub exit: Exit,
    pub message: String,
}

impl Failure {
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure {
            exit: Exit::Usage,
            message: message.into(),
        }
    }

    pub fn unreachable(message: impl Into<String>) -> Failure {
        Failure {
            exit: Exit::Unreachable,
            message: message.into(),
        }
    }

    pub fn protocol(message: impl Into<String>) -> Failure {
        Failure {
            exit: Exit::Protocol,
            message: message.into(),
        }
    }

    pub fn files(message: impl Into<String>) -> Failure {
        Failure {
            exit: Exit::Files,
            message: message.into(),
        }
    }
}
