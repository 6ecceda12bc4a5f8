//! Every bound of the replica, in one place, with the arithmetic between them checked when the
//! crate is compiled. Sizes are bytes unless the name says otherwise.
//!
//! A number that two modules must agree on lives here and nowhere else. Bounds that an operator
//! may change (journal size, sessions) have their defaults and their allowed ranges here; the
//! value in force is in the superblock, because every replica of a cluster must use the same one.

/// The unit of direct I/O, of journal padding and of buffer alignment.
pub const SECTOR_SIZE: usize = 4096;

/// Header of a message, ours and the foreign protocol's alike.
pub const HEADER_SIZE: usize = 256;

/// Header and body together.
pub const MESSAGE_SIZE_MAX: usize = 1 << 20;

/// What a message can carry.
pub const BODY_SIZE_MAX: usize = MESSAGE_SIZE_MAX - HEADER_SIZE;

/// Bytes before the message header in a pooled buffer: the journal's frame header goes there, so
/// that frame and message leave in one device write without a copy.
pub const HEADROOM_SIZE: usize = 256;

/// A buffer that holds the largest message with its headroom, in whole sectors.
pub const BUFFER_SIZE_LARGE: usize = MESSAGE_SIZE_MAX + SECTOR_SIZE;
/// Replies of full batches (8189 results of 16 bytes) fit a medium buffer.
pub const BUFFER_SIZE_MEDIUM: usize = 132 * 1024;
/// Control messages, and batches of up to about sixty events.
pub const BUFFER_SIZE_SMALL: usize = 8 * 1024;

/// Replicas that vote.
pub const REPLICAS_MAX: usize = 6;

/// Standbys: they follow without voting.
pub const STANDBYS_MAX: usize = 6;

/// Replicas and standbys together: who is dialled, and who has an index.
pub const MEMBERS_MAX: usize = REPLICAS_MAX + STANDBYS_MAX;

/// Prepares between the last executed operation and the head of the log, on the primary.
pub const PIPELINE_MAX: usize = 64;

/// Checksums of the log's suffix that view change messages carry. A prepare is only made when
/// the head is less than `PIPELINE_MAX` ahead of the commit point, and each prepare names that
/// commit point, so whoever holds a head knows all but this many entries to be committed.
pub const SUFFIX_MAX: usize = PIPELINE_MAX + 1;

/// Prepares asked for in one repair request.
pub const REPAIR_WINDOW: usize = 16;

/// Journal reads in flight, for execution after a restart and for peers together: three peers may
/// ask for a repair window each.
pub const READS_MAX: usize = 64;

/// Prepares read ahead of execution when the log is replayed: a mebibyte each, and the disk is busy
/// with two.
pub const REPLAY_WINDOW: usize = 8;

/// Committed prepares handed to the executor and not yet answered.
pub const EXECUTE_MAX: usize = 16;

/// Blocks of a checkpoint that are asked for, or here and not yet written, while one is fetched. Each
/// takes a large buffer.
pub const TRANSFER_WINDOW: usize = 32;

/// Files of which it is asked whether they are here, or known not to be, before the first of them is asked
/// for: enough small ones to keep those who write busy while others are looked for.
pub const FILES_AHEAD: usize = 8;

/// Blocks being read for other replicas at once; more requests wait in a queue. Many, because each time that
/// the librarian is woken it waits for a core; under load it was seen with eleven at most.
pub const LENDING_READS_MAX: usize = 16;

/// Damaged checkpoint files that are known and wait to be fetched again; the scrub finds more of them when
/// these are whole.
pub const MENDING_FILES_MAX: usize = 64;

/// Client sessions: the default of `format --clients-max`, and its range.
pub const SESSIONS_DEFAULT: usize = 1024;
pub const SESSIONS_MAX: usize = 10_000;

/// Bodies of replies kept for clients that may ask again, together: at most this, and at most an eighth of
/// the journal, so that the table costs the disk little more than the log between two checkpoints did.
///
/// With the default journal a client that only creates always finds its reply: a full batch is answered
/// with 8190 times 16 bytes, and that for every default session fits. Of the largest replies there
/// is room for twice the pipeline: all that were on the way when a primary failed, and as many after
/// them. Where replies are larger, sessions more or the journal smaller, the oldest replies are dropped.
pub const REPLY_BYTES_MAX: u64 = 128 << 20;

pub const fn reply_bytes_max(journal_size: u64) -> u64 {
    let share = journal_size / 8;
    if share < REPLY_BYTES_MAX {
        share
    } else {
        REPLY_BYTES_MAX
    }
}

/// Connections at once, clients and replicas together: each session's own, and a thousand for clients
/// that have none (not yet, or not any more) and for replicas.
pub const fn connections_max(sessions_max: usize) -> usize {
    sessions_max + 1024
}

/// Connections of the largest number of sessions: what is sized for all of them costs little for each.
pub const CONNECTIONS_MAX: usize = connections_max(SESSIONS_MAX);

/// Messages waiting to be sent on one connection. More are dropped for a replica (repair brings
/// them again); a client that does not read loses its connection.
pub const SEND_QUEUE_MAX: usize = 256;

/// Bytes of them that wait for one replica. They are in buffers, and two replicas that have stopped
/// reading must leave the better half of what clients may take: sixteen of 64 large ones each.
pub const SEND_BYTES_MAX: usize = 16 << 20;

/// Journal segments.
pub const SEGMENT_SIZE_DEFAULT: u64 = 64 << 20;
pub const JOURNAL_SIZE_DEFAULT: u64 = 1 << 30;
pub const JOURNAL_SIZE_MIN: u64 = 64 << 20;

/// Journal bytes on their way to the disk at once: a full pipeline waits in order for the rest.
pub const INFLIGHT_BYTES_MAX: u64 = 32 << 20;

/// A checkpoint is due when so many bytes of a journal have been filled since the former one: an eighth, of
/// a larger one 64 MiB, of one beyond a gibibyte a sixteenth. One such share is filling, one is being
/// checkpointed, and the rest is kept for replicas that were away.
///
/// What was created in two of them is in memory, and what a restart executes again. Tables that change in
/// place are written once in each: with millions of accounts a larger journal writes less.
pub const fn checkpoint_bytes(journal_size: u64) -> u64 {
    let (small, large) = (journal_size / 8, journal_size / 16);
    let usual = if small < 64 << 20 { small } else { 64 << 20 };
    if large > usual { large } else { usual }
}

/// Bytes of log that count for a prepare of this size, when a checkpoint is due: whole sectors.
pub const fn log_bytes(size: u32) -> u64 {
    (size as u64).next_multiple_of(SECTOR_SIZE as u64)
}

/// Log entries (operations) known in memory at once. Bounded by the journal: an entry takes at
/// least one sector.
pub const fn log_entries_max(journal_size: u64) -> u64 {
    journal_size / SECTOR_SIZE as u64
}

/// Copies of the superblock, one sector each.
pub const SUPERBLOCK_COPIES: usize = 4;

const _: () = {
    assert!(BUFFER_SIZE_LARGE >= HEADROOM_SIZE + MESSAGE_SIZE_MAX);
    assert!(BUFFER_SIZE_LARGE.is_multiple_of(SECTOR_SIZE));
    assert!(BUFFER_SIZE_MEDIUM.is_multiple_of(SECTOR_SIZE));
    assert!(BUFFER_SIZE_SMALL.is_multiple_of(SECTOR_SIZE));
    assert!(BUFFER_SIZE_MEDIUM >= HEADROOM_SIZE + HEADER_SIZE + 8190 * 16);
    // View change messages with their suffix of 16-byte checksums fit a small buffer.
    assert!(HEADROOM_SIZE + HEADER_SIZE + SUFFIX_MAX * 16 <= BUFFER_SIZE_SMALL);
    assert!(REPAIR_WINDOW <= PIPELINE_MAX);
    // A whole repair window is read for a peer: what is dropped costs it a timeout.
    assert!(3 * REPAIR_WINDOW + REPLAY_WINDOW <= READS_MAX);
    assert!(EXECUTE_MAX <= PIPELINE_MAX);
    // A checkpoint that is fetched, or lent, takes the large buffers of a part of the pipeline. Who fetches
    // executes nothing meanwhile, and what is lent takes only buffers that nobody else claims.
    assert!(TRANSFER_WINDOW <= PIPELINE_MAX / 2 && LENDING_READS_MAX <= PIPELINE_MAX / 2);
    // A checkpoint of a small, of the default, and of a large journal.
    assert!(checkpoint_bytes(JOURNAL_SIZE_MIN) == 8 << 20);
    assert!(checkpoint_bytes(JOURNAL_SIZE_DEFAULT) == 64 << 20);
    assert!(checkpoint_bytes(512 << 20) == 64 << 20);
    assert!(checkpoint_bytes(8 << 30) == 512 << 20);
    // What the default journal and the default number of sessions promise about replies.
    assert!(reply_bytes_max(JOURNAL_SIZE_DEFAULT) == REPLY_BYTES_MAX);
    assert!(SESSIONS_DEFAULT as u64 * 8190 * 16 <= REPLY_BYTES_MAX);
    assert!(2 * (PIPELINE_MAX * MESSAGE_SIZE_MAX) as u64 <= REPLY_BYTES_MAX);
};
