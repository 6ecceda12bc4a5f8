//! What replicas send each other.

use stampede::limits::{HEADER_SIZE, MESSAGE_SIZE_MAX};
use stampede::message::{Command, Header, is_ours};
use stampede::replica::ingress;
use zerocopy::{FromBytes, IntoBytes};

use super::recipe::Recipe;

/// A header between replicas: what passes is of this version, has a command and a possible size.
pub fn header(input: &[u8]) {
    let mut recipe = Recipe::new(input);
    let command = Command::ALL[usize::from(recipe.byte()) % Command::ALL.len()];
    let mut header = Header::new(command, 7, recipe.byte(), 3);
    header.seal(&[]);
    let mut bytes = header.as_bytes().to_vec();
    recipe.damage(&mut bytes);
    bytes.resize(HEADER_SIZE, 0);
    if !recipe.one_in(4) {
        let mut header = Header::read_from_bytes(&bytes).expect("as long as a header");
        header.seal_header();
        bytes = header.as_bytes().to_vec();
    }
    let first: &[u8; HEADER_SIZE] = bytes.first_chunk().expect("as long as a header");
    let inspected = ingress::inspect(first);
    if is_ours(first) {
        let header = Header::read_from_bytes(first).expect("as long as a header");
        assert_eq!(inspected.is_ok(), header.verify().is_ok());
    }
    if let Ok(inspected) = inspected {
        assert!((HEADER_SIZE..=MESSAGE_SIZE_MAX).contains(&inspected.size));
    }
}
