//! All drills as one HTML file that needs nothing else: a table, and for each drill a timeline with
//! what was done to the cluster.

use std::fmt::Write;

use stampede_bench::report::html::chart::{Axis, Band, Chart, Line, WIDTH_WIDE};
use stampede_bench::report::html::{STYLE, date, escape, short};
use stampede_bench::report::numbers::grouped;

use super::text::figures;
use super::{Figure, Outcome, Report, Verdict};

/// A plot names no more events than it has room for; all of them are in the JSON.
const MARKS_MAX: usize = 12;

/// The page.
pub(crate) fn page(report: &Report) -> String {
    let mut page = String::new();
    write_page(&mut page, report).expect("a string can be written");
    page
}

fn write_page(page: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Stampede drills</title>\n<style>\n{STYLE}</style>\n</head>\n<body><main>\n\
         <h1>Stampede drills</h1>"
    )?;
    writeln!(
        page,
        "<p class=\"sub\">{} &middot; {} replicas, {} clients, batches of {}, all on {}, {} cores, {:.0} GiB, \
         Linux {}</p>",
        date(report.started_unix_s),
        report.replicas,
        report.clients,
        report.batch,
        escape(&report.machine.cpu),
        report.machine.cores,
        report.machine.memory_gib,
        escape(&report.machine.kernel)
    )?;
    write!(page, "<section class=\"wide\"><table><tr>")?;
    for name in [
        "drill",
        "verdict",
        "acknowledged",
        "lost",
        "duplicated",
        "longest gap",
        "recovery",
    ] {
        write!(page, "<th>{name}</th>")?;
    }
    writeln!(page, "</tr>")?;
    for drill in &report.drills {
        write_row(page, drill)?;
    }
    writeln!(page, "</table></section>")?;
    for drill in &report.drills {
        write_drill(page, drill)?;
    }
    writeln!(
        page,
        "<footer>Every acknowledged transfer was looked up after its drill and compared with what was sent; \
         every account was compared with the transfers found. A gap is the longest time without any \
         acknowledgement to any client.</footer>\n</main></body>\n</html>"
    )
}

fn verdict(drill: &Outcome) -> String {
    let class = match drill.verdict {
        Verdict::Green => "good",
        Verdict::Red => "bad",
        Verdict::Skipped => "sub",
    };
    format!("<span class=\"{class}\">{}</span>", drill.verdict.name())
}

fn write_row(page: &mut String, drill: &Outcome) -> std::fmt::Result {
    let dash = || "&ndash;".to_owned();
    writeln!(
        page,
        "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
        drill.name,
        verdict(drill),
        grouped(drill.acknowledged),
        drill.lost,
        drill.duplicated,
        drill.gap.as_ref().map_or_else(dash, figures),
        drill.recovery.as_ref().map_or_else(dash, figures),
    )
}

fn write_drill(page: &mut String, drill: &Outcome) -> std::fmt::Result {
    writeln!(
        page,
        "<h2>{} {}</h2>\n<p class=\"sub\">{}</p>",
        drill.name,
        verdict(drill),
        escape(drill.summary)
    )?;
    let figures: Vec<String> = drill.figures.iter().map(Figure::text).collect();
    for text in drill.complaints.iter().chain(&figures).chain(&drill.notes) {
        writeln!(page, "<p>{}</p>", escape(text))?;
    }
    if drill.timeline.acknowledged.len() > 1 {
        let svg = timeline(drill).svg("acknowledged transfers over time");
        let interval = drill.timeline.interval_ms;
        writeln!(
            page,
            "<section><h3>Acknowledged <small>transfers/s, each {interval} ms</small></h3>\n{svg}</section>"
        )?;
    }
    Ok(())
}

fn timeline(drill: &Outcome) -> Chart {
    let interval = drill.timeline.interval_ms / 1000.0;
    let points = drill.timeline.acknowledged.iter().enumerate();
    let points: Vec<(f64, f64)> = points
        .map(|(index, count)| ((index as f64 + 0.5) * interval, *count as f64 / interval))
        .collect();
    let most = points.iter().map(|(_, y)| *y).fold(1.0, f64::max);
    let named = drill.marks.len() <= MARKS_MAX;
    let bands = drill.marks.iter().map(|mark| Band {
        from: mark.at_s,
        to: mark.at_s,
        name: if named {
            mark.text.clone()
        } else {
            String::new()
        },
    });
    Chart {
        width: WIDTH_WIDE,
        x_name: "seconds",
        x: Axis::linear(0.0, drill.seconds, short),
        y: Axis::rounded(0.0, most * 1.02, short),
        lines: vec![Line {
            name: String::new(),
            colour: 1,
            points,
            filled: true,
        }],
        bands: bands.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog;
    use crate::report::{Mark, Timeline};

    #[test]
    fn a_page_has_a_plot_for_each_drill_that_was_played() {
        let mut played = Outcome::new(&catalog::ALL[0], false);
        played.seconds = 1.0;
        played.timeline = Timeline::of(&[(1, 10), (2, 10), (999_000_000, 10)], 1_000_000_000);
        played.marks.push(Mark {
            at_s: 0.5,
            text: "<kill>".into(),
        });
        let mut failed = Outcome::new(&catalog::ALL[1], false);
        failed.verdict = Verdict::Red;
        failed.complaints.push("a & b".into());
        let report = Report {
            started_unix_s: 0,
            machine: Default::default(),
            program: String::new(),
            replicas: 3,
            clients: 4,
            batch: 10,
            seed: 0,
            drills: vec![played, failed],
        };
        let page = page(&report);
        assert_eq!(page.matches("<svg").count(), 1);
        assert!(page.contains("&lt;kill&gt;") && page.contains("a &amp; b"));
        assert!(!page.contains("NaN"));
    }
}
