//! The links between replicas, where a drill wants to cut them: the kernel's own where it permits, a
//! relay otherwise.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::namespaces::Namespaces;
use crate::relay::Relays;
use crate::trouble::Trouble;

#[derive(Debug)]
pub(crate) enum Links {
    /// Packets are dropped.
    Namespaces(Namespaces),
    /// Bytes wait.
    Relays(Relays),
}

impl Links {
    /// Lays links between replicas with these addresses on loopback. With namespaces they get others.
    pub(crate) fn lay(
        addresses: &[SocketAddr],
        namespaces: bool,
    ) -> Result<(Self, Option<String>), Trouble> {
        let refused = if namespaces {
            match Namespaces::make(addresses) {
                Ok(made) => return Ok((Self::Namespaces(made), None)),
                Err(reason) => Some(format!(
                    "links are cut in a relay, because network namespaces are not permitted: {reason}"
                )),
            }
        } else {
            None
        };
        Ok((Self::Relays(Relays::between(addresses)?), refused))
    }

    /// Where clients reach a replica, if that has changed.
    pub(crate) fn address_of(&self, replica: usize) -> Option<SocketAddr> {
        match self {
            Self::Namespaces(namespaces) => Some(namespaces.addresses()[replica]),
            Self::Relays(_) => None,
        }
    }

    /// The addresses of all replicas, as one of them has to dial them.
    pub(crate) fn addresses_for(&self, replica: usize) -> &[SocketAddr] {
        match self {
            Self::Namespaces(namespaces) => namespaces.addresses(),
            Self::Relays(relays) => relays.addresses_for(replica),
        }
    }

    /// A command that runs `program` where a replica lives.
    pub(crate) fn command(&self, replica: usize, program: &Path) -> Command {
        match self {
            Self::Namespaces(namespaces) => namespaces.command(replica, program),
            Self::Relays(_) => Command::new(program),
        }
    }

    /// Lets what one replica sends to another pass, or not.
    pub(crate) fn set(&mut self, from: usize, to: usize, open: bool) -> Result<(), Trouble> {
        match self {
            Self::Namespaces(namespaces) => namespaces.set(from, to, open),
            Self::Relays(relays) => {
                relays.set(from, to, open);
                Ok(())
            }
        }
    }
}
