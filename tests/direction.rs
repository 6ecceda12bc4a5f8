//! Who may import whom: reads every file under `src/` and compares what it names with the table below.
//!
//! A path counts wherever it stands: in a `use` (groups included), inside a function, in a type. What
//! counts is the first segment after `crate::` or after enough `super::` to leave the file's own room,
//! and the name of another crate of this workspace. Comments and string literals do not count.
//!
//! ```text
//!   limits ◄─ message ◄─┬─ gateway ◄──────┐
//!                       ├─ protocol ◄ vsr ┼─ replica ◄─┬─ runtime ◄─┐
//!                       └─ store ◄ machine┘            └─ sim ◄─────┴─ cli, main
//! ```
//!
//! A module that wants a forbidden import usually wants an event, an input or an output instead. The
//! check is code, so it has tests of its own: a made-up violation must be found.

use std::fs;
use std::path::{Path, PathBuf};

/// What everybody may name: it knows nothing, and does nothing in a product.
const EVERYWHERE: &[&str] = &["mutant"];

/// What a place may name, itself excepted: rooms of this crate, and crates of this workspace.
struct Rule {
    place: &'static str,
    rooms: &'static [&'static str],
    crates: &'static [&'static str],
}

/// The table of the architecture. A place that is not here is a violation, so that a new room is
/// thought about once.
const RULES: &[Rule] = &[
    rule("limits", &[], &[]),
    rule("mutant", &[], &[]),
    // One trait of the journal: it writes its frames straight from message buffers.
    rule("message", &["limits"], &["stampede_journal"]),
    rule("gateway", &["limits", "message"], &["stampede_client"]),
    rule("protocol", &["limits", "message"], &[]),
    rule("vsr", &["limits", "message", "protocol"], &[]),
    rule("store", &["limits", "message"], &["stampede_journal"]),
    rule(
        "machine",
        &["limits", "message", "store"],
        // The records of the ledger have one definition, which server and clients share.
        &["stampede_client"],
    ),
    rule(
        "replica",
        &[
            "limits", "message", "gateway", "protocol", "vsr", "store", "machine",
        ],
        &["stampede_client", "stampede_journal"],
    ),
    rule(
        "runtime",
        &[
            "limits", "message", "gateway", "protocol", "vsr", "store", "machine", "replica",
        ],
        &["stampede_client", "stampede_journal"],
    ),
    rule(
        "sim",
        &[
            "limits", "message", "gateway", "protocol", "vsr", "store", "machine", "replica",
        ],
        &["stampede_client", "stampede_journal"],
    ),
    rule(
        "cli",
        &[
            "limits", "message", "gateway", "protocol", "vsr", "store", "machine", "replica",
            "runtime", "sim",
        ],
        &[
            "stampede_client",
            "stampede_journal",
            "stampede_bench",
            "stampede_drill",
        ],
    ),
    // The binary: a client of the library, and the home of `cli` if that is not in the library.
    rule(
        "main",
        &["cli"],
        &["stampede", "stampede_client", "stampede_bench"],
    ),
    // The library's root declares the rooms and uses none.
    rule("lib", &[], &[]),
];

/// The crates that depend on nothing of ours, whatever their own files would like.
const MANIFESTS: &[(&str, &[&str])] = &[
    ("journal/Cargo.toml", &[]),
    ("clients/rust/Cargo.toml", &[]),
    ("bench/Cargo.toml", &["stampede-client"]),
    ("drill/Cargo.toml", &["stampede-bench", "stampede-client"]),
];

/// Names of the outside world, and the only places that may say them: elsewhere, sockets, processes
/// and rings arrive as inputs and leave as outputs.
const OUTSIDE: &[(&[&str], &[&str])] = &[
    (&["io_uring"], &["runtime"]),
    (&["core_affinity"], &["runtime", "cli", "main"]),
    (&["std", "net"], &["runtime", "cli", "main"]),
    (&["std", "process"], &["runtime", "cli", "main"]),
    (&["std", "os", "fd"], &["runtime", "store", "cli", "main"]),
];

const CRATES: &[&str] = &[
    "stampede",
    "stampede_bench",
    "stampede_client",
    "stampede_drill",
    "stampede_journal",
];

const fn rule(
    place: &'static str,
    rooms: &'static [&'static str],
    crates: &'static [&'static str],
) -> Rule {
    Rule {
        place,
        rooms,
        crates,
    }
}

#[test]
fn every_room_imports_only_what_the_table_allows() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut violations = Vec::new();
    let mut files = 0;
    for path in rust_files(&source) {
        let relative = path.strip_prefix(&source).expect("found under the source");
        let text = fs::read_to_string(&path).expect("a source file is text");
        violations.extend(violations_of(relative, &text));
        files += 1;
    }
    assert!(
        files > 5,
        "only {files} files found in {}",
        source.display()
    );
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

#[test]
fn crates_below_depend_on_nothing_above() {
    for (manifest, allowed) in MANIFESTS {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(manifest);
        let text = fs::read_to_string(&path).expect("the workspace has this crate");
        for name in own_dependencies(&text) {
            assert!(
                allowed.contains(&name.as_str()),
                "{manifest} depends on {name}"
            );
        }
    }
}

#[test]
fn a_made_up_violation_is_found() {
    let found = |file: &str, text: &str| violations_of(Path::new(file), text).len();
    // Plain, grouped, renamed, in a function, fully qualified.
    assert_eq!(found("vsr/normal.rs", "use crate::replica::Replica;"), 1);
    assert_eq!(
        found(
            "vsr/mod.rs",
            "use crate::{limits::A, replica::{io, B}, sim::C};"
        ),
        3
    );
    assert_eq!(found("message/pool.rs", "use crate::vsr as v;"), 1);
    assert_eq!(
        found("limits.rs", "fn f() { crate::message::checksum(b\"\"); }"),
        1
    );
    assert_eq!(
        found("machine/ledger/row.rs", "type A = crate :: vsr :: Vsr;"),
        1
    );
    // By the back door.
    assert_eq!(found("vsr/normal.rs", "use super::super::sim::Network;"), 1);
    assert_eq!(found("vsr/mod.rs", "use super::sim::Network;"), 1);
    assert_eq!(
        found(
            "vsr/quorum.rs",
            "mod tests { use super::super::super::sim; }"
        ),
        1
    );
    // Other crates of ours, and the outside world.
    assert_eq!(found("vsr/mod.rs", "use stampede_journal::WriteOp;"), 1);
    assert_eq!(
        found(
            "gateway/tigerbeetle/mod.rs",
            "use std::{fmt, net::TcpStream};"
        ),
        1
    );
    assert_eq!(found("sim/network.rs", "use io_uring::IoUring;"), 1);
    assert_eq!(found("sim/mod.rs", "use crate::runtime::ring;"), 1);
    // A room nobody has thought about.
    assert_eq!(found("common/mod.rs", ""), 1);
}

#[test]
fn what_is_allowed_passes() {
    let found = |file: &str, text: &str| violations_of(Path::new(file), text);
    let none: Vec<String> = Vec::new();
    assert_eq!(
        found(
            "vsr/normal.rs",
            "use crate::{limits::PIPELINE_MAX, message::{Op, View}, vsr::quorum};
             use super::quorum::Quorum; use super::super::protocol::Event;
             mod tests { use super::*; use super::super::Vsr; }
             pub(crate) fn f() {} pub(in crate::vsr) fn g() {}"
        ),
        none
    );
    // Comments, strings, characters, raw strings and lifetimes.
    assert_eq!(
        found(
            "limits.rs",
            "//! crate::vsr
             /* crate::vsr /* crate::sim */ crate::vsr */
             const A: &str = \"crate::vsr \\\" crate::sim\"; const B: char = '\"';
             const C: &str = r#\"crate::vsr \" crate::sim\"#;
             fn f<'a>(x: &'a u8) -> &'a u8 { x }
             const D: &[u8] = b\"crate::vsr\"; const E: u8 = b'\\'';"
        ),
        none
    );
    assert_eq!(found("replica/mod.rs", "use crate::vsr::Vsr;"), none);
    assert_eq!(
        found("main.rs", "fn main() { stampede::cli::main() }"),
        none
    );
}

#[test]
fn dependencies_of_ours_are_read_from_manifests() {
    let manifest = "[package]\nname = \"stampede-journal\"\n[dependencies]\nlibc.workspace = true\n\
                    stampede-client.workspace = true\n[dev-dependencies]\nstampede = { path = \"..\" }\n";
    assert_eq!(own_dependencies(manifest), ["stampede-client", "stampede"]);
}

/// Every Rust file under `directory`, in the order of their names.
fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut entries: Vec<PathBuf> = fs::read_dir(directory)
        .expect("the source is readable")
        .map(|entry| entry.expect("the source is readable").path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// Names of our own crates in the dependency tables of a manifest.
fn own_dependencies(manifest: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut inside = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.contains("dependencies");
        } else if inside && line.starts_with("stampede") {
            let end = line
                .find(|c: char| c != '-' && !c.is_alphanumeric())
                .unwrap_or(line.len());
            names.push(line[..end].to_owned());
        }
    }
    names
}

/// What the file names against the table; one line for each violation.
fn violations_of(file: &Path, text: &str) -> Vec<String> {
    let modules = module_path(file);
    let place = modules.first().map_or("lib", String::as_str);
    let Some(rule) = RULES.iter().find(|rule| rule.place == place) else {
        return vec![format!(
            "src/{}: `{place}` has no line in the table of tests/direction.rs",
            file.display()
        )];
    };
    let mut violations = Vec::new();
    for named in paths_of(&tokens_of(text), &modules) {
        let segments: Vec<&str> = named.segments.iter().map(String::as_str).collect();
        let complaint = match segments.as_slice() {
            ["crate", room, ..] if *room == place || rule.rooms.contains(room) => None,
            ["crate", room, ..] if EVERYWHERE.contains(room) => None,
            // Items of the crate's root are not rooms; there are none, by the rule for `lib`.
            ["crate", room, ..] if place != "lib" => Some(format!("may not import `{room}`")),
            [name, ..] if CRATES.contains(name) && !rule.crates.contains(name) => {
                Some(format!("may not depend on `{name}`"))
            }
            _ => OUTSIDE
                .iter()
                .find(|(prefix, places)| segments.starts_with(prefix) && !places.contains(&place))
                .map(|(prefix, _)| format!("may not touch `{}`", prefix.join("::"))),
        };
        if let Some(complaint) = complaint {
            violations.push(format!(
                "src/{}:{}: `{place}` {complaint}: {}",
                file.display(),
                named.line,
                segments.join("::")
            ));
        }
    }
    violations
}

/// `vsr/normal.rs` is `["vsr", "normal"]`; `vsr/mod.rs` is `["vsr"]`; `lib.rs` is `[]`.
fn module_path(file: &Path) -> Vec<String> {
    let mut path: Vec<String> = file
        .with_extension("")
        .components()
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .collect();
    let last = path.last().map(String::as_str);
    if last == Some("mod") || path == ["lib"] {
        path.pop();
    }
    path
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    /// `::`
    Path,
    Mark(char),
}

/// Words, `::` and marks with their line; literals and comments are left out.
fn tokens_of(text: &str) -> Vec<(Token, usize)> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut at = 0;
    while at < chars.len() {
        let start = at;
        let rest = &chars[at..];
        match rest {
            ['/', '/', ..] => at += rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()),
            ['/', '*', ..] => at += block_comment(rest),
            ['"', ..] => at += quoted(rest, '"'),
            ['\'', '\\', ..] | ['\'', _, '\'', ..] => at += quoted(rest, '\''),
            ['r' | 'b' | 'c', ..] if literal_prefix(rest).is_some() => {
                at += literal_prefix(rest).expect("the guard has seen it");
            }
            [c, ..] if c.is_alphanumeric() || *c == '_' => {
                let length = rest
                    .iter()
                    .position(|c| !c.is_alphanumeric() && *c != '_')
                    .unwrap_or(rest.len());
                tokens.push((Token::Word(rest[..length].iter().collect()), line));
                at += length;
            }
            [':', ':', ..] => {
                tokens.push((Token::Path, line));
                at += 2;
            }
            [c, ..] => {
                if !c.is_whitespace() {
                    tokens.push((Token::Mark(*c), line));
                }
                at += 1;
            }
            [] => unreachable!("the loop ends before"),
        }
        line += chars[start..at].iter().filter(|c| **c == '\n').count();
    }
    tokens
}

/// Length of a literal with a prefix (`b"…"`, `r#"…"#`, `b'…'`), if this is one.
fn literal_prefix(text: &[char]) -> Option<usize> {
    let letters = text
        .iter()
        .take_while(|c| matches!(c, 'r' | 'b' | 'c'))
        .count();
    let raw = text[..letters].contains(&'r');
    let hashes = text[letters..].iter().take_while(|c| **c == '#').count();
    match text.get(letters + hashes)? {
        '"' if raw => {
            let body = letters + hashes + 1;
            let closes = |at: &usize| {
                text[*at] == '"'
                    && text[at + 1..]
                        .iter()
                        .take(hashes)
                        .filter(|c| **c == '#')
                        .count()
                        == hashes
            };
            let end = (body..text.len()).find(closes).unwrap_or(text.len());
            Some((end + 1 + hashes).min(text.len()))
        }
        quote @ ('"' | '\'') if hashes == 0 && !raw => {
            Some(letters + quoted(&text[letters..], *quote))
        }
        _ => None,
    }
}

/// Length of a quoted literal, escapes respected.
fn quoted(text: &[char], quote: char) -> usize {
    let mut at = 1;
    while at < text.len() {
        match text[at] {
            '\\' => at += 2,
            c if c == quote => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

/// Length of a block comment; they nest.
fn block_comment(text: &[char]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        match text[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// A path as it is named in a file, from the crate's root on, or from another crate's name on.
struct Named {
    segments: Vec<String>,
    line: usize,
}

/// Every path of two segments and more, groups taken apart, `self` and `super` resolved.
fn paths_of(tokens: &[(Token, usize)], modules: &[String]) -> Vec<Named> {
    let mut paths = Vec::new();
    // Inline modules, and the depth of braces at which each of them ends.
    let mut inline: Vec<(String, usize)> = Vec::new();
    let mut depth = 0;
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at..] {
            [
                (Token::Word(keyword), _),
                (Token::Word(name), _),
                (Token::Mark('{'), _),
                ..,
            ] if keyword == "mod" => {
                depth += 1;
                inline.push((name.clone(), depth));
                at += 3;
            }
            [(Token::Mark('{'), _), ..] => {
                depth += 1;
                at += 1;
            }
            [(Token::Mark('}'), _), ..] => {
                inline.retain(|(_, ends)| *ends < depth);
                depth = depth.saturating_sub(1);
                at += 1;
            }
            [(Token::Word(_), _), (Token::Path, _), ..] => {
                let mut here: Vec<String> = modules.to_vec();
                here.extend(inline.iter().map(|(name, _)| name.clone()));
                at = path(tokens, at, &mut Vec::new(), &here, &mut paths);
            }
            _ => at += 1,
        }
    }
    paths
}

/// Reads one path from `at`, with the groups in it; returns the index after it.
fn path(
    tokens: &[(Token, usize)],
    mut at: usize,
    prefix: &mut Vec<String>,
    here: &[String],
    paths: &mut Vec<Named>,
) -> usize {
    let outer = prefix.len();
    let line = tokens[at].1;
    loop {
        match tokens.get(at) {
            Some((Token::Word(word), _)) => prefix.push(word.clone()),
            Some((Token::Mark('{'), _)) => {
                at += 1;
                while at < tokens.len() && tokens[at].0 != Token::Mark('}') {
                    at = match tokens[at].0 {
                        Token::Word(_) | Token::Mark('{') => path(tokens, at, prefix, here, paths),
                        Token::Path | Token::Mark(_) => at + 1,
                    };
                }
                prefix.truncate(outer);
                return at + 1;
            }
            _ => break,
        }
        at += 1;
        if tokens
            .get(at)
            .is_none_or(|(token, _)| *token != Token::Path)
        {
            break;
        }
        at += 1;
    }
    if let Some(segments) = resolve(prefix, here) {
        paths.push(Named { segments, line });
    }
    prefix.truncate(outer);
    at
}

/// A path from the crate's root on. `None` for one that stays where it is.
fn resolve(segments: &[String], here: &[String]) -> Option<Vec<String>> {
    let first = segments.first()?.as_str();
    if first != "super" && first != "self" {
        return Some(segments.to_vec());
    }
    let climbs = segments.iter().take_while(|s| *s == "super").count();
    let stays = here.len().checked_sub(climbs)?;
    let mut resolved = vec!["crate".to_owned()];
    resolved.extend_from_slice(&here[..stays]);
    resolved.extend(
        segments
            .iter()
            .skip_while(|s| *s == "super" || *s == "self")
            .cloned(),
    );
    Some(resolved)
}
