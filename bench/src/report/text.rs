//! A run as a table for a terminal, and several runs as one row each.
//!
//! Every figure stands beside its unit, and what was asked of which server stands above the figures, so
//! that a pasted table can be understood without its command line.

use std::fmt::Write;

use super::numbers::{grouped, millis, plural, rounded};
use super::{LoadReport, RunReport};
use crate::args::WorkloadKind;

/// Names and values, in groups.
#[derive(Default)]
struct Table {
    rows: Vec<(String, String)>,
    /// Rows before which a new group begins.
    groups: Vec<usize>,
}

impl Table {
    fn row(&mut self, name: &str, value: &str) {
        self.rows.push((name.into(), value.into()));
    }

    fn gap(&mut self) {
        self.groups.push(self.rows.len());
    }
}

fn table(report: &RunReport) -> Table {
    let mut table = Table::default();
    described(report, &mut table);
    table.gap();
    measured(report, &mut table);
    table.gap();
    judged(report, &mut table);
    table
}

/// One run, for a terminal.
pub fn run(report: &RunReport) -> String {
    let table = table(report);
    let mut text = format!("\n{}\n\n", report.label);
    for (index, (name, value)) in table.rows.iter().enumerate() {
        if table.groups.contains(&index) {
            text.push('\n');
        }
        for (index, line) in value.lines().enumerate() {
            let name = if index == 0 { name } else { "" };
            writeln!(text, "  {name:<15} {line}").expect("strings can be written to");
        }
    }
    text
}

/// The same rows, to be shown in another way.
pub fn rows(report: &RunReport) -> Vec<(String, String)> {
    table(report).rows
}

fn described(report: &RunReport, table: &mut Table) {
    let server = &report.server;
    table.row(
        "server",
        &format!(
            "{} ({}), cluster {}, view {}",
            plural(server.addresses.len() as u64, "replica", "replicas"),
            server.addresses.join(", "),
            server.cluster,
            server.view
        ),
    );
    let unknown = "not stated: a client cannot see it (say it with --note)";
    table.row("durability", server.note.as_deref().unwrap_or(unknown));
    table.row(
        "load",
        &format!(
            "{}\n{}",
            load_line(&report.load),
            workload_line(&report.load)
        ),
    );
    let machine = &report.machine;
    table.row(
        "generator on",
        &format!(
            "{}, {}, {:.0} GiB, Linux {}",
            machine.cpu,
            plural(machine.cores as u64, "core", "cores"),
            machine.memory_gib,
            machine.kernel
        ),
    );
}

/// How much, how fast, by how many.
pub fn load_line(load: &LoadReport) -> String {
    let mut text = match (load.transfers, load.duration_s) {
        (Some(transfers), _) => plural(transfers, "transfer", "transfers"),
        (None, seconds) => format!("{} s of transfers", seconds.unwrap_or_default()),
    };
    let clients = plural(u64::from(load.clients), "client", "clients");
    write!(
        text,
        " in batches of {}, {clients}, ",
        grouped(u64::from(load.batch))
    )
    .expect("strings can be written to");
    text.push_str(&match load.rate {
        None => "closed loop (one request in flight per client)".into(),
        Some(rate) => format!("open loop at {} transfers/s", grouped(rate)),
    });
    if load.warmup > 0 {
        write!(text, ", after {} not counted", grouped(load.warmup))
            .expect("strings can be written to");
    }
    text
}

/// Which accounts and ids.
pub fn workload_line(load: &LoadReport) -> String {
    let accounts = plural(u64::from(load.accounts), "account", "accounts");
    let workload = match load.workload {
        WorkloadKind::Uniform => format!("uniform over {accounts}"),
        WorkloadKind::Zipfian => format!("zipfian (theta {}) over {accounts}", load.zipf_theta),
        WorkloadKind::Hot => {
            format!(
                "one hot account in {}% of transfers, {accounts}",
                load.hot_share * 100.0
            )
        }
        WorkloadKind::TwoPhase => format!("two-phase (pending, then post or void) over {accounts}"),
        WorkloadKind::Linked => format!("chains of four linked transfers over {accounts}"),
    };
    format!("{workload}, ids by {}, seed {}", id_order(load), load.seed)
}

fn id_order(load: &LoadReport) -> &'static str {
    match load.ids {
        crate::args::IdOrder::Time => "time",
        crate::args::IdOrder::Random => "random",
        crate::args::IdOrder::Reversed => "reversed time",
    }
}

fn measured(report: &RunReport, table: &mut Table) {
    let figures = &report.figures;
    table.row(
        "throughput",
        &format!(
            "{} transfers/s  ({} in {:.3} s)",
            rounded(figures.events_per_s),
            plural(figures.batches, "batch", "batches"),
            figures.elapsed_s
        ),
    );
    if let Some(by) = figures.seconds.by_second() {
        table.row(
            "by the second",
            &format!(
                "min {}  median {}  max {} transfers/s  (over {})",
                grouped(by.min),
                grouped(by.median),
                grouped(by.max),
                plural(by.seconds as u64, "whole second", "whole seconds")
            ),
        );
    }
    let columns = figures.latency.columns();
    let names: String = columns
        .iter()
        .map(|(name, _)| format!("{name:>8}"))
        .collect();
    let values: String = columns
        .iter()
        .map(|(_, micros)| format!("{:>8}", millis(*micros)))
        .collect();
    let since = if report.load.rate.is_some() {
        "when it was due"
    } else {
        "its sending"
    };
    let mut note = format!("milliseconds, from {since} to the verified reply");
    // A percentile that less than one batch lies above is the slowest batch.
    if figures.batches < 10_000 {
        let highest = if figures.batches < 1_000 {
            "p99.9 and p99.99"
        } else {
            "p99.99"
        };
        write!(note, " ({highest}: too few batches, shown is the slowest)")
            .expect("strings can be written to");
    }
    table.row("batch latency", &format!("{names}\n{values}\n{note}"));
    table.row(
        "longest stall",
        &format!(
            "{} ms without any acknowledgement, {:.2} s after the start",
            millis(figures.stall.longest_ms * 1000.0),
            figures.stall.at_s
        ),
    );
    if let Some(probe) = &report.probe {
        table.row(
            "disk floor",
            &format!(
                "4 KiB durable write p50 {} ms, p99 {} ms; single transfer p50 {} ms, p99 {} ms: \
                 {:.1} times the disk",
                millis(probe.disk.p50_us),
                millis(probe.disk.p99_us),
                millis(probe.request_p50_us),
                millis(probe.request_p99_us),
                probe.ratio_p50
            ),
        );
    }
}

fn judged(report: &RunReport, table: &mut Table) {
    let mut results = format!("{} created", grouped(report.created));
    for status in &report.unexpected {
        write!(results, ", {} {}", grouped(status.count), status.name)
            .expect("strings can be written to");
    }
    table.row("results", &results);
    match &report.verified {
        None => table.row("verified", "no"),
        Some(verified) if verified.is_good() => {
            let each = if verified.each_account {
                "each as replayed"
            } else {
                "sums only"
            };
            table.row(
                "verified",
                &format!(
                    "debits = credits = {} over {} ({each}); {} found as sent",
                    grouped(verified.posted_expected),
                    plural(verified.accounts, "account", "accounts"),
                    plural(verified.samples, "sampled transfer", "sampled transfers"),
                ),
            );
        }
        Some(verified) => {
            let mut text = format!(
                "NO: {}",
                plural(verified.differences_count, "difference", "differences")
            );
            for difference in &verified.differences {
                write!(text, "\n{difference}").expect("strings can be written to");
            }
            table.row("verified", &text);
        }
    }
    let generator = &report.generator;
    table.row(
        "generator cost",
        &format!(
            "{:.0} us processor time per batch ({:.0}% of one core); {} generated late, {} repeated, \
             {} lost",
            generator.cpu_us_per_batch,
            generator.cpu_share * 100.0,
            plural(generator.unprepared, "batch", "batches"),
            plural(generator.repeated, "request", "requests"),
            plural(generator.reconnected, "connection", "connections"),
        ),
    );
}

/// Several runs, one row each.
pub fn runs(reports: &[RunReport]) -> String {
    let header = [
        "run",
        "transfers/s",
        "min/s",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "max ms",
        "stall ms",
        "good",
    ]
    .map(str::to_string);
    let mut rows = vec![header];
    for report in reports {
        let figures = &report.figures;
        let by_second = figures.seconds.by_second();
        rows.push([
            report.label.clone(),
            rounded(figures.events_per_s),
            by_second.map_or_else(|| "-".into(), |by| grouped(by.min)),
            millis(figures.latency.p50_us),
            millis(figures.latency.p99_us),
            millis(figures.latency.p999_us),
            millis(figures.latency.max_us),
            millis(figures.stall.longest_ms * 1000.0),
            if report.is_good() { "yes" } else { "NO" }.into(),
        ]);
    }
    let widths: [usize; 9] = std::array::from_fn(|column| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    });
    let mut text = String::from("\n");
    for row in &rows {
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            let aligned = if column == 0 {
                format!("  {cell:<width$}")
            } else {
                format!("  {cell:>width$}")
            };
            text.push_str(&aligned);
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_what_people_read() {
        let expected = "
example

  server          2 replicas (127.0.0.1:3001, 127.0.0.1:3002), cluster 0, view 0
  durability      not stated: a client cannot see it (say it with --note)
  load            500,000 transfers in batches of 100, 1 client, closed loop (one request in flight per client)
                  uniform over 10,000 accounts, ids by time, seed 42
  generator on    A processor, 2 cores, 8 GiB, Linux 6.18

  throughput      100,000 transfers/s  (5,000 batches in 5.000 s)
  by the second   min 99,900  median 100,000  max 100,000 transfers/s  (over 5 whole seconds)
  batch latency         p1     p50     p90     p99   p99.9  p99.99     max
                     0.005   0.250   0.450   0.495   0.500   0.500   0.500
                  milliseconds, from its sending to the verified reply (p99.99: too few batches, shown is the slowest)
  longest stall   1.00 ms without any acknowledgement, 0.00 s after the start

  results         500,000 created
  verified        debits = credits = 123,456 over 10,000 accounts (each as replayed); 8,189 sampled transfers found as sent
  generator cost  0 us processor time per batch (0% of one core); 0 batches generated late, 0 requests repeated, 0 connections lost
";
        assert_eq!(run(&RunReport::example()), expected);
    }

    #[test]
    fn several_runs_are_one_row_each() {
        let mut second = RunReport::example();
        second.label = "a longer name".into();
        second.figures.seconds.whole = 0;
        let expected = "
  run            transfers/s   min/s  p50 ms  p99 ms  p99.9 ms  max ms  stall ms  good
  example            100,000  99,900   0.250   0.495     0.500   0.500      1.00   yes
  a longer name      100,000       -   0.250   0.495     0.500   0.500      1.00   yes
";
        assert_eq!(runs(&[RunReport::example(), second]), expected);
    }
}
