//! The commands that replicas exchange. `docs/vsr.md` says who sends which to whom, and why.

/// What a message is for. The numbers are the wire format; none is ever reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Command {
    /// First on a connection: which replica is speaking, and how the cluster is made up.
    Hello = 1,
    /// A client's request, checked and in our own form; also forwarded from backup to primary.
    Request = 2,
    /// Primary to backups: store this operation at this place in the log.
    Prepare = 3,
    /// Backup to primary: everything up to this operation is durable here.
    PrepareOk = 4,
    /// Primary to backups: it is alive, and the log is committed up to here.
    Commit = 5,
    /// Send me these prepares; I lack them.
    GetPrepares = 6,
    /// Checksums of a stretch of the log: what the prepares that follow must be.
    Headers = 7,
    /// I would like to leave this view: its primary seems to be gone.
    ExitView = 8,
    /// To the next primary: I have left the old view, and this is my log.
    JoinView = 9,
    /// From the primary of a view: it has begun, and this is its log.
    View = 10,
    /// What is the state of this view?
    GetView = 11,
    /// The stored form of a reply: never on the wire between replicas.
    Reply = 12,
    /// Answer to a hello: I have taken note of your present life; or: I know a later one.
    Welcome = 13,
    /// I need a checkpoint that reaches this operation: which is your newest?
    GetCheckpoint = 14,
    /// This is mine, and I keep its files for you.
    Checkpoint = 15,
    /// Send me this stretch of one of its files.
    GetBlock = 16,
    /// Here it is, or: I do not have it any more.
    Block = 17,
}

impl Command {
    /// All commands, for tables and tests.
    pub const ALL: [Self; 17] = [
        Self::Hello,
        Self::Request,
        Self::Prepare,
        Self::PrepareOk,
        Self::Commit,
        Self::GetPrepares,
        Self::Headers,
        Self::ExitView,
        Self::JoinView,
        Self::View,
        Self::GetView,
        Self::Reply,
        Self::Welcome,
        Self::GetCheckpoint,
        Self::Checkpoint,
        Self::GetBlock,
        Self::Block,
    ];

    /// The command with this number on the wire.
    pub fn from_wire(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|command| *command as u8 == byte)
    }
}

#[cfg(test)]
mod tests {
    use super::Command;

    #[test]
    fn numbers_round_trip() {
        for byte in 0..=u8::MAX {
            if let Some(command) = Command::from_wire(byte) {
                assert_eq!(command as u8, byte);
            }
        }
        assert_eq!(
            Command::ALL
                .iter()
                .filter(|c| Command::from_wire(**c as u8) == Some(**c))
                .count(),
            Command::ALL.len()
        );
    }
}
