//! The addresses of a cluster's replicas, in the order of their indexes.
//!
//! `10.0.0.1:3001,10.0.0.2:3001,10.0.0.3:3001`; a port alone is on this machine; a host alone has the
//! usual port. Names are looked up once, at start.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

/// The port when none is given: the one that clients of this protocol use.
pub(crate) const PORT_DEFAULT: u16 = 3001;

/// Reads one address.
///
/// # Errors
/// What is wrong, for the command line.
pub(crate) fn parse(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("an address is empty: write them like 10.0.0.1:3001,10.0.0.2:3001".to_owned());
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let port = text.parse().ok().filter(|port| *port > 0);
        let port = port.ok_or_else(|| format!("`{text}` is not a port: 1 to 65535"))?;
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return match address.port() {
            0 => Err(format!("`{text}` has no port that others could dial")),
            _ => Ok(address),
        };
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(SocketAddr::from((address, PORT_DEFAULT)));
    }
    let found = if text.contains(':') {
        text.to_socket_addrs()
    } else {
        (text, PORT_DEFAULT).to_socket_addrs()
    };
    let found: Vec<SocketAddr> = found
        .map_err(|error| format!("`{text}` is not an address, and no host has this name: {error}"))?
        .collect();
    found
        .iter()
        .find(|address| address.is_ipv4())
        .or_else(|| found.first())
        .copied()
        .ok_or_else(|| format!("`{text}` has no address"))
}

/// Two replicas on one address: the list was meant otherwise.
pub(crate) fn repeated(addresses: &[SocketAddr]) -> Option<SocketAddr> {
    let mut sorted = addresses.to_vec();
    sorted.sort_unstable();
    sorted
        .windows(2)
        .find(|pair| pair[0] == pair[1])
        .map(|pair| pair[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_hosts_and_addresses_are_read() {
        for (text, expected) in [
            ("3001", "127.0.0.1:3001"),
            (" 3002 ", "127.0.0.1:3002"),
            ("10.0.0.7:4000", "10.0.0.7:4000"),
            ("10.0.0.7", "10.0.0.7:3001"),
            ("[::1]:3003", "[::1]:3003"),
            ("::1", "[::1]:3001"),
            ("localhost:3004", "127.0.0.1:3004"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), expected, "{text}");
        }
        for text in [
            "",
            "0",
            "65536",
            "10.0.0.1:",
            "10.0.0.1:0",
            "no such host.invalid:1",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn repetitions_are_found() {
        let list = |text: &str| -> Vec<SocketAddr> {
            text.split(',').map(|one| parse(one).unwrap()).collect()
        };
        assert_eq!(repeated(&list("3001,3002,3003")), None);
        let twice = repeated(&list("3001,3002,127.0.0.1:3001"));
        assert_eq!(twice.unwrap().port(), 3001);
    }
}
