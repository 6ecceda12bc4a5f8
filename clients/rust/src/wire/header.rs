//! The 256-byte headers of the five messages that clients and servers exchange.
//!
//! ```text
//!   0         32        64      80       96    100   104   108      112       114      115      116   128
//!   ├ checksum ┼ body's  ┼ zero ─┼ cluster┼ size┼ zero┼ view┼ release┼ zero ────┼ command┼ replica┼ zero┼ per command
//! ```
//!
//! Reading is in the order that decides what the reader does about a failure: first what makes the byte stream
//! untrustworthy (`frame`, `verify_body`, `verify_cluster`: close the connection), then what makes one message
//! meaningless (`validate`: drop it). `Refusal::reaction` says which. Nothing after a failed step is looked at.
//!
//! Writing: fill in the fields, then `seal` computes size and both checksums, body first, because the header's checksum
//! covers the body's.

use super::REGISTER_REPLY_BODY_SIZE;
use super::checksum::{CHECKSUM_EMPTY, checksum};
use super::operation::Operation;
use super::release::Release;
use super::{BODY_SIZE_MAX, HEADER_SIZE, MESSAGE_SIZE_MAX, REGISTER_BODY_SIZE, REPLICAS_MAX};
use core::mem::{offset_of, size_of};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Largest command number of the protocol. Clients stop their process at a larger one.
pub const COMMAND_MAX: u8 = 24;

/// The commands that a client sends or receives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Command {
    PingClient = 3,
    PongClient = 4,
    Request = 5,
    Reply = 8,
    Eviction = 18,
}

impl Command {
    pub const fn from_code(code: u8) -> Option<Command> {
        match code {
            3 => Some(Command::PingClient),
            4 => Some(Command::PongClient),
            5 => Some(Command::Request),
            8 => Some(Command::Reply),
            18 => Some(Command::Eviction),
            _ => None,
        }
    }
}

/// Why a server ends a client's session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum EvictionReason {
    NoSession = 1,
    ClientReleaseTooLow = 2,
    ClientReleaseTooHigh = 3,
    InvalidRequestOperation = 4,
    InvalidRequestBody = 5,
    InvalidRequestBodySize = 6,
    SessionTooLow = 7,
    SessionReleaseMismatch = 8,
}

impl EvictionReason {
    /// Every reason, ascending by code.
    pub const ALL: [EvictionReason; 8] = [
        EvictionReason::NoSession,
        EvictionReason::ClientReleaseTooLow,
        EvictionReason::ClientReleaseTooHigh,
        EvictionReason::InvalidRequestOperation,
        EvictionReason::InvalidRequestBody,
        EvictionReason::InvalidRequestBodySize,
        EvictionReason::SessionTooLow,
        EvictionReason::SessionReleaseMismatch,
    ];

    pub const fn from_code(code: u8) -> Option<EvictionReason> {
        match code {
            1..=8 => Some(EvictionReason::ALL[code as usize - 1]),
            _ => None,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            EvictionReason::NoSession => "no_session",
            EvictionReason::ClientReleaseTooLow => "client_release_too_low",
            EvictionReason::ClientReleaseTooHigh => "client_release_too_high",
            EvictionReason::InvalidRequestOperation => "invalid_request_operation",
            EvictionReason::InvalidRequestBody => "invalid_request_body",
            EvictionReason::InvalidRequestBodySize => "invalid_request_body_size",
            EvictionReason::SessionTooLow => "session_too_low",
            EvictionReason::SessionReleaseMismatch => "session_release_mismatch",
        }
    }
}

impl core::fmt::Display for EvictionReason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

/// What the receiver of a refused message does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reaction {
    /// The byte stream cannot be trusted or is not ours: close the connection.
    Close,
    /// One message has no meaning: ignore it, keep the connection.
    Drop,
}

macro_rules! refusals {
    ($($variant:ident, $name:literal, $reaction:ident, $text:literal;)*) => {
        /// Why a message is refused.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, thiserror::Error)]
        #[repr(u8)]
        pub enum Refusal {
            $(#[error($text)] $variant,)*
        }

        impl Refusal {
            /// Every refusal; `refusal as usize` is its place, so an array of `ALL.len()` counts them.
            pub const ALL: &'static [Refusal] = &[$(Refusal::$variant,)*];

            pub const fn name(self) -> &'static str {
                match self { $(Refusal::$variant => $name,)* }
            }

            pub const fn reaction(self) -> Reaction {
                match self { $(Refusal::$variant => Reaction::$reaction,)* }
            }
        }
    };
}

refusals! {
    HeaderChecksum, "header_checksum", Close, "the header's checksum is wrong";
    CommandUnknown, "command_unknown", Close, "the command is above 24";
    SizeOutOfRange, "size_out_of_range", Close, "the size is not within 256 bytes and 1 MiB";
    BodyChecksum, "body_checksum", Close, "the body's checksum is wrong";
    ClusterOther, "cluster_other", Close, "the message belongs to another cluster";
    FramePadding, "frame_padding", Drop, "reserved bytes of the frame are not zero";
    EpochNotZero, "epoch_not_zero", Drop, "the epoch is not zero";
    ProtocolNotZero, "protocol_not_zero", Drop, "the protocol version is not zero";
    CommandUnexpected, "command_unexpected", Drop, "the command is not one for this receiver";
    ReservedNotZero, "reserved_not_zero", Drop, "reserved bytes of the header are not zero";
    ReleaseZero, "release_zero", Drop, "the release is zero";
    ClientZero, "client_zero", Drop, "the client's id is zero";
    ReplicaInvalid, "replica_invalid", Drop, "the replica index is not allowed here";
    ViewNotZero, "view_not_zero", Drop, "a ping's view is not zero";
    BodyUnexpected, "body_unexpected", Drop, "the message may not have a body";
    RegisterFields, "register_fields", Drop, "a register's parent, session or request is not zero";
    RegisterSize, "register_size", Drop, "a register has another size than its body";
    SessionZero, "session_zero", Drop, "the session is zero outside a register";
    RequestZero, "request_zero", Drop, "the request number is zero outside a register";
    OperationReserved, "operation_reserved", Drop, "the operation belongs to the cluster itself";
    OpInvalid, "op_invalid", Drop, "a reply's op is zero or not its commit";
    TimestampZero, "timestamp_zero", Drop, "a reply's timestamp is zero";
    EvictionReason, "eviction_reason", Drop, "the eviction's reason is not known";
}

/// Bytes 0 to 127 of every message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Frame {
    /// Of header bytes 16 to 255.
    pub checksum: u128,
    pub checksum_padding: u128,
    pub checksum_body: u128,
    pub checksum_body_padding: u128,
    pub nonce_reserved: u128,
    pub cluster: u128,
    /// Header and body.
    pub size: u32,
    pub epoch: u32,
    pub view: u32,
    pub release: Release,
    pub protocol: u16,
    pub command: u8,
    pub replica: u8,
    pub reserved_frame: [u8; 12],
}

impl Frame {
    /// The body's bytes, or `None` for a size that no message has.
    pub const fn body_size(&self) -> Option<usize> {
        let size = self.size as usize;
        if size < HEADER_SIZE || size > MESSAGE_SIZE_MAX {
            None
        } else {
            Some(size - HEADER_SIZE)
        }
    }

    /// Fields that have one value in every message.
    fn validate(&self, command: Command) -> Result<(), Refusal> {
        if self.command != command as u8 {
            return Err(Refusal::CommandUnexpected);
        }
        let padding = self.checksum_padding | self.checksum_body_padding | self.nonce_reserved;
        if padding != 0 || self.reserved_frame != [0; 12] {
            return Err(Refusal::FramePadding);
        }
        if self.epoch != 0 {
            return Err(Refusal::EpochNotZero);
        }
        if self.protocol != 0 {
            return Err(Refusal::ProtocolNotZero);
        }
        Ok(())
    }
}

macro_rules! headers {
    ($($(#[$doc:meta])* $name:ident, $command:expr, { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub struct $name {
            pub frame: Frame,
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl Header for $name {
            const COMMAND: Option<Command> = $command;

            fn frame(&self) -> &Frame {
                &self.frame
            }

            fn frame_mut(&mut self) -> &mut Frame {
                &mut self.frame
            }
        }

        const _: () = assert!(size_of::<$name>() == HEADER_SIZE);
    )*};
}

headers! {
    /// Any header, before its command has been looked at.
    AnyHeader, None, {
        command: [u8; 128],
    }

    /// Client to server: is anybody there, and how far away?
    PingClient, Some(Command::PingClient), {
        client: u128,
        /// The client's own clock in nanoseconds; 0 from old clients.
        ping_timestamp_monotonic: u64,
        /// 0 before registering and from old clients.
        session: u64,
        reserved: [u8; 96],
    }

    /// Server to client: the answer to a ping.
    PongClient, Some(Command::PongClient), {
        /// The ping's value, unchanged.
        ping_timestamp_monotonic: u64,
        reserved: [u8; 120],
    }

    /// Client to server: execute an operation.
    Request, Some(Command::Request), {
        /// `context` of the session's previous reply; 0 for a register.
        parent: u128,
        parent_padding: u128,
        client: u128,
        session: u64,
        timestamp: u64,
        request: u32,
        operation: u8,
        padding: [u8; 3],
        /// For the server's statistics alone.
        previous_request_latency: u32,
        reserved: [u8; 52],
    }

    /// Server to client: what the operation gave.
    Reply, Some(Command::Reply), {
        request_checksum: u128,
        request_checksum_padding: u128,
        /// What the session's next request names as its parent.
        context: u128,
        context_padding: u128,
        client: u128,
        op: u64,
        /// Equal to `op`.
        commit: u64,
        timestamp: u64,
        request: u32,
        operation: u8,
        reserved: [u8; 19],
    }

    /// Server to client: the session is over.
    Eviction, Some(Command::Eviction), {
        client: u128,
        reserved: [u8; 111],
        reason: u8,
    }
}

/// What all headers have in common.
pub trait Header: FromBytes + IntoBytes + Immutable + KnownLayout + Copy {
    /// The command of this type; `None` for `AnyHeader`.
    const COMMAND: Option<Command>;

    fn frame(&self) -> &Frame;

    fn frame_mut(&mut self) -> &mut Frame;

    /// A header with its command set and everything else zero.
    fn zeroed() -> Self {
        let mut header = Self::new_zeroed();
        if let Some(command) = Self::COMMAND {
            header.frame_mut().command = command as u8;
        }
        header
    }

    /// The checksum over bytes 16 to 255, as the fields are.
    fn checksum_compute(&self) -> u128 {
        checksum(&self.as_bytes()[size_of::<u128>()..])
    }

    /// Sets size and both checksums. The body has at most `BODY_SIZE_MAX` bytes.
    fn seal(&mut self, body: &[u8]) {
        let checksum_body = if body.is_empty() {
            CHECKSUM_EMPTY
        } else {
            checksum(body)
        };
        self.seal_with(checksum_body, body.len());
    }

    /// As `seal`, for a body whose checksum is already known.
    fn seal_with(&mut self, checksum_body: u128, body_size: usize) {
        assert!(body_size <= BODY_SIZE_MAX);
        let frame = self.frame_mut();
        frame.size = u32::try_from(HEADER_SIZE + body_size).expect("a message is at most 1 MiB");
        frame.checksum_body = checksum_body;
        frame.checksum = 0;
        let checksum = self.checksum_compute();
        self.frame_mut().checksum = checksum;
    }
}

/// First look at 256 received bytes: header checksum, command number, size. The bytes lie at a 16-byte aligned address.
pub fn frame(bytes: &[u8; HEADER_SIZE]) -> Result<&AnyHeader, Refusal> {
    let header = AnyHeader::ref_from_bytes(bytes).expect("received headers lie in aligned buffers");
    verify_frame(header)?;
    Ok(header)
}

/// As `frame`, for bytes at any address.
pub fn frame_unaligned(bytes: &[u8; HEADER_SIZE]) -> Result<AnyHeader, Refusal> {
    let header = AnyHeader::read_from_bytes(bytes).expect("both have the header's size");
    verify_frame(&header)?;
    Ok(header)
}

fn verify_frame(header: &AnyHeader) -> Result<(), Refusal> {
    if header.frame.checksum != header.checksum_compute() {
        return Err(Refusal::HeaderChecksum);
    }
    if header.frame.command > COMMAND_MAX {
        return Err(Refusal::CommandUnknown);
    }
    match header.frame.body_size() {
        Some(_) => Ok(()),
        None => Err(Refusal::SizeOutOfRange),
    }
}

impl AnyHeader {
    /// The body whose size the frame gave.
    pub fn verify_body(&self, body: &[u8]) -> Result<(), Refusal> {
        let expected = if body.is_empty() {
            CHECKSUM_EMPTY
        } else {
            checksum(body)
        };
        if Some(body.len()) == self.frame.body_size() && expected == self.frame.checksum_body {
            Ok(())
        } else {
            Err(Refusal::BodyChecksum)
        }
    }

    pub const fn verify_cluster(&self, cluster: u128) -> Result<(), Refusal> {
        if self.frame.cluster == cluster {
            Ok(())
        } else {
            Err(Refusal::ClusterOther)
        }
    }

    /// The header as what its command says; commands that are known but not exchanged with clients are unexpected.
    pub fn typed(&self) -> Result<Typed<'_>, Refusal> {
        let typed = match Command::from_code(self.frame.command) {
            Some(Command::PingClient) => Typed::PingClient(self.cast()),
            Some(Command::PongClient) => Typed::PongClient(self.cast()),
            Some(Command::Request) => Typed::Request(self.cast()),
            Some(Command::Reply) => Typed::Reply(self.cast()),
            Some(Command::Eviction) => Typed::Eviction(self.cast()),
            None => return Err(Refusal::CommandUnexpected),
        };
        Ok(typed)
    }

    fn cast<H: Header>(&self) -> &H {
        H::ref_from_bytes(self.as_bytes()).expect("all headers have one size and alignment")
    }
}

/// A header by its command; its fields are not validated yet.
#[derive(Clone, Copy, Debug)]
pub enum Typed<'a> {
    PingClient(&'a PingClient),
    PongClient(&'a PongClient),
    Request(&'a Request),
    Reply(&'a Reply),
    Eviction(&'a Eviction),
}

/// Number of the cluster-internal operation that a client's header may name, although no server executes it.
const OPERATION_RECONFIGURE: u8 = 3;
/// Numbers below are the cluster's own, the others the state machine's.
const OPERATION_STATE_MACHINE_MIN: u8 = 128;
/// Sizes of a register request: without a body from ancient clients, with its body otherwise.
pub const REGISTER_SIZES: [usize; 2] = [HEADER_SIZE, HEADER_SIZE + REGISTER_BODY_SIZE];

impl PingClient {
    pub fn validate(&self) -> Result<(), Refusal> {
        self.frame.validate(Command::PingClient)?;
        header_only(&self.frame)?;
        zero(&self.reserved)?;
        nonzero_release(&self.frame)?;
        nonzero_client(self.client)?;
        if self.frame.replica != 0 {
            return Err(Refusal::ReplicaInvalid);
        }
        if self.frame.view != 0 {
            return Err(Refusal::ViewNotZero);
        }
        Ok(())
    }
}

impl PongClient {
    pub fn validate(&self) -> Result<(), Refusal> {
        self.frame.validate(Command::PongClient)?;
        header_only(&self.frame)?;
        zero(&self.reserved)?;
        nonzero_release(&self.frame)?;
        if self.frame.replica >= REPLICAS_MAX {
            return Err(Refusal::ReplicaInvalid);
        }
        Ok(())
    }
}

impl Request {
    pub fn validate(&self) -> Result<(), Refusal> {
        self.frame.validate(Command::Request)?;
        if self.parent_padding != 0 || self.padding != [0; 3] {
            return Err(Refusal::ReservedNotZero);
        }
        zero(&self.reserved)?;
        nonzero_release(&self.frame)?;
        nonzero_client(self.client)?;
        if self.frame.replica != 0 {
            return Err(Refusal::ReplicaInvalid);
        }
        match (self.operation, Operation::from_code(self.operation)) {
            (_, Some(Operation::Register)) => {
                if self.parent != 0 || self.session != 0 || self.request != 0 {
                    return Err(Refusal::RegisterFields);
                }
                if !REGISTER_SIZES.contains(&(self.frame.size as usize)) {
                    return Err(Refusal::RegisterSize);
                }
                return Ok(());
            }
            (_, Some(Operation::Noop)) => header_only(&self.frame)?,
            (OPERATION_RECONFIGURE | OPERATION_STATE_MACHINE_MIN.., _) => {}
            _ => return Err(Refusal::OperationReserved),
        }
        if self.session == 0 {
            return Err(Refusal::SessionZero);
        }
        if self.request == 0 {
            return Err(Refusal::RequestZero);
        }
        Ok(())
    }
}

impl Reply {
    pub fn validate(&self) -> Result<(), Refusal> {
        self.frame.validate(Command::Reply)?;
        if self.request_checksum_padding != 0 || self.context_padding != 0 {
            return Err(Refusal::ReservedNotZero);
        }
        zero(&self.reserved)?;
        nonzero_release(&self.frame)?;
        nonzero_client(self.client)?;
        if self.op != self.commit || self.commit == 0 {
            return Err(Refusal::OpInvalid);
        }
        if self.timestamp == 0 {
            return Err(Refusal::TimestampZero);
        }
        if self.operation == Operation::Register as u8 {
            if self.frame.size as usize != HEADER_SIZE + REGISTER_REPLY_BODY_SIZE {
                return Err(Refusal::RegisterSize);
            }
            if self.request != 0 {
                return Err(Refusal::RegisterFields);
            }
        } else if self.request == 0 {
            return Err(Refusal::RequestZero);
        }
        Ok(())
    }

    /// The context that the reference server gives a reply: the header's checksum while `context` is still zero.
    /// Everything else, the body's checksum included, is final.
    pub fn context_compute(&self) -> u128 {
        Reply {
            context: 0,
            ..*self
        }
        .checksum_compute()
    }

    /// Sets size, body checksum, context and header checksum.
    pub fn seal_with_context(&mut self, body: &[u8]) {
        self.context = 0;
        self.seal(body);
        // With the context at zero the header's checksum is the context.
        self.context = self.frame.checksum;
        self.frame.checksum = self.checksum_compute();
    }
}

impl Eviction {
    pub fn validate(&self) -> Result<(), Refusal> {
        self.frame.validate(Command::Eviction)?;
        header_only(&self.frame)?;
        zero(&self.reserved)?;
        nonzero_release(&self.frame)?;
        nonzero_client(self.client)?;
        match EvictionReason::from_code(self.reason) {
            Some(_) => Ok(()),
            None => Err(Refusal::EvictionReason),
        }
    }
}

fn header_only(frame: &Frame) -> Result<(), Refusal> {
    let sized = frame.size as usize == HEADER_SIZE && frame.checksum_body == CHECKSUM_EMPTY;
    if sized {
        Ok(())
    } else {
        Err(Refusal::BodyUnexpected)
    }
}

fn zero(bytes: &[u8]) -> Result<(), Refusal> {
    if bytes.iter().all(|&byte| byte == 0) {
        Ok(())
    } else {
        Err(Refusal::ReservedNotZero)
    }
}

const fn nonzero_release(frame: &Frame) -> Result<(), Refusal> {
    if frame.release.0 != 0 {
        Ok(())
    } else {
        Err(Refusal::ReleaseZero)
    }
}

const fn nonzero_client(client: u128) -> Result<(), Refusal> {
    if client != 0 {
        Ok(())
    } else {
        Err(Refusal::ClientZero)
    }
}

// Offsets of the protocol's tables.
const _: () = {
    assert!(size_of::<Frame>() == 128);
    assert!(offset_of!(Frame, cluster) == 80);
    assert!(offset_of!(Frame, size) == 96);
    assert!(offset_of!(Frame, release) == 108);
    assert!(offset_of!(Frame, command) == 114);
    assert!(offset_of!(PingClient, session) == 152);
    assert!(offset_of!(PongClient, reserved) == 136);
    assert!(offset_of!(Request, client) == 160);
    assert!(offset_of!(Request, request) == 192);
    assert!(offset_of!(Request, operation) == 196);
    assert!(offset_of!(Request, previous_request_latency) == 200);
    assert!(offset_of!(Reply, context) == 160);
    assert!(offset_of!(Reply, op) == 208);
    assert!(offset_of!(Reply, operation) == 236);
    assert!(offset_of!(Eviction, reason) == 255);
};
