//! What a person reads: one verdict and one line of figures for each drill, a table for several.

use std::fmt::Write;

use stampede_bench::report::numbers::grouped;

use super::{Distribution, Outcome, Report, Verdict};

/// The lines of one drill.
pub(crate) fn lines(outcome: &Outcome) -> String {
    let mut text = String::new();
    write_lines(&mut text, outcome).expect("a string can be written");
    text
}

fn write_lines(text: &mut String, outcome: &Outcome) -> std::fmt::Result {
    write!(text, "{}: {}", outcome.name, outcome.verdict.name())?;
    if !outcome.complaints.is_empty() {
        write!(text, ": {}", outcome.complaints.join("; "))?;
    }
    writeln!(text)?;
    if outcome.verdict == Verdict::Skipped {
        return Ok(());
    }
    write!(
        text,
        "  {} acknowledged, {} lost, {} duplicated",
        grouped(outcome.acknowledged),
        outcome.lost,
        outcome.duplicated
    )?;
    if outcome.unknown > 0 {
        write!(text, ", {} batches of unknown fate", outcome.unknown)?;
    }
    for (name, distribution) in [
        ("longest gap", &outcome.gap),
        ("recovery", &outcome.recovery),
    ] {
        if let Some(distribution) = distribution {
            write!(text, ", {name} {}", figures(distribution))?;
        }
    }
    writeln!(text, " ({:.1} s)", outcome.seconds)?;
    for figure in &outcome.figures {
        writeln!(text, "  {}", figure.text())?;
    }
    for note in &outcome.notes {
        writeln!(text, "  {note}")?;
    }
    if let (Verdict::Red, Some(directory)) = (outcome.verdict, &outcome.directory) {
        writeln!(text, "  data and logs are in {directory}")?;
    }
    Ok(())
}

/// `31.4 ms`, or of several samples `p50 31.4, p99 40.2 ms of 50`.
pub(crate) fn figures(distribution: &Distribution) -> String {
    match distribution.samples.len() {
        1 => format!("{:.1} ms", distribution.max),
        count => format!(
            "p50 {:.1}, p99 {:.1} ms of {count}",
            distribution.p50, distribution.p99
        ),
    }
}

/// All drills, one row each.
pub(crate) fn table(report: &Report) -> String {
    let mut text = String::new();
    write_table(&mut text, report).expect("a string can be written");
    text
}

fn write_table(text: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(
        text,
        "\n{:<16} {:<8} {:>13} {:>5} {:>11} {:>12} {:>12} {:>14} {:>14}",
        "drill",
        "verdict",
        "acknowledged",
        "lost",
        "duplicated",
        "gap p50 ms",
        "gap p99 ms",
        "recov. p50 ms",
        "recov. p99 ms"
    )?;
    let cell = |distribution: &Option<Distribution>, value: fn(&Distribution) -> f64| {
        distribution
            .as_ref()
            .map_or_else(|| "-".to_owned(), |it| format!("{:.1}", value(it)))
    };
    for drill in &report.drills {
        writeln!(
            text,
            "{:<16} {:<8} {:>13} {:>5} {:>11} {:>12} {:>12} {:>14} {:>14}",
            drill.name,
            drill.verdict.name(),
            grouped(drill.acknowledged),
            drill.lost,
            drill.duplicated,
            cell(&drill.gap, |it| it.p50),
            cell(&drill.gap, |it| it.p99),
            cell(&drill.recovery, |it| it.p50),
            cell(&drill.recovery, |it| it.p99),
        )?;
    }
    let count = |verdict| {
        report
            .drills
            .iter()
            .filter(|drill| drill.verdict == verdict)
            .count()
    };
    writeln!(
        text,
        "{} green, {} red, {} skipped",
        count(Verdict::Green),
        count(Verdict::Red),
        count(Verdict::Skipped)
    )
}
