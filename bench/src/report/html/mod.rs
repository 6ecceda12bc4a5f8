//! One or several runs as one HTML file that needs nothing else: style, tables and plots are inside.
//!
//! For several runs, first a table with one row each and their percentile curves in one plot. Then for
//! each run its headline figures, throughput and latency over time, the percentile curve, and everything
//! that one has to know to compare it with another.

pub mod chart;

use std::fmt::Write;

use self::chart::{Axis, Band, Chart, Line, WIDTH, WIDTH_WIDE};
use super::RunReport;
use super::numbers::{grouped, millis, plural, rounded};
use super::text::{load_line, workload_line};
use crate::figures::{FiguresReport, Point, SeriesReport};

/// The style sheet of every report.
pub const STYLE: &str = include_str!("style.css");
/// Colours that the style sheet has.
const COLOURS: usize = 6;
/// Runs at least this long are plotted by the second.
const BY_SECOND_S: f64 = 20.0;
/// Fewer intervals than this are no curve.
const POINTS_MIN: usize = 4;
/// Shorter stalls are in the figures but not worth a mark in the plot.
const STALL_SHARE_MIN: f64 = 0.01;

pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// The page.
pub fn page(reports: &[RunReport]) -> String {
    let mut page = String::new();
    write_page(&mut page, reports).expect("strings can be written to");
    page
}

fn write_page(page: &mut String, reports: &[RunReport]) -> std::fmt::Result {
    writeln!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">"
    )?;
    writeln!(
        page,
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">"
    )?;
    writeln!(
        page,
        "<title>Stampede bench</title>\n<style>\n{STYLE}</style>\n</head>\n<body><main>"
    )?;
    writeln!(page, "<h1>Stampede bench</h1>")?;
    if let Some(first) = reports.first() {
        let machine = &first.machine;
        writeln!(
            page,
            "<p class=\"sub\">{} &middot; load generator on {}, {}, {:.0} GiB, Linux {}</p>",
            date(first.started_unix_s),
            escape(&machine.cpu),
            plural(machine.cores as u64, "core", "cores"),
            machine.memory_gib,
            escape(&machine.kernel)
        )?;
    }
    if reports.len() > 1 {
        overview(page, reports)?;
    }
    for report in reports {
        run(page, report)?;
    }
    writeln!(
        page,
        "<footer>Latency is that of a batch: closed loop, from its sending; open loop, from the instant \
         it was due; always to the verified reply. A stall is a time without any acknowledgement while \
         a batch was waiting for one. Creating the accounts and checking the balances afterwards are \
         not part of the figures.</footer>"
    )?;
    writeln!(page, "</main></body>\n</html>")
}

fn overview(page: &mut String, reports: &[RunReport]) -> std::fmt::Result {
    writeln!(
        page,
        "<section class=\"wide\"><table><tr><th>run</th><th colspan=\"2\">transfers/s</th>"
    )?;
    let names = [
        "slowest second",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "max ms",
        "stall ms",
        "checked",
    ];
    for name in names {
        write!(page, "<th>{name}</th>")?;
    }
    writeln!(page, "</tr>")?;
    let fastest = reports
        .iter()
        .map(|report| report.figures.events_per_s)
        .fold(1.0, f64::max);
    for report in reports {
        overview_row(page, report, fastest)?;
    }
    writeln!(page, "</table></section>")?;
    let lines = reports
        .iter()
        .enumerate()
        .map(|(index, report)| curve(&report.figures, &report.label, index % COLOURS + 1))
        .collect();
    writeln!(page, "<div class=\"grid\">")?;
    let chart = percentiles(lines, WIDTH_WIDE).svg("latency by percentile");
    panel(page, "Batch latency by percentile", "milliseconds", &chart)?;
    writeln!(page, "</div>")
}

fn overview_row(page: &mut String, report: &RunReport, fastest: f64) -> std::fmt::Result {
    let figures = &report.figures;
    let slowest = figures.seconds.by_second();
    write!(
        page,
        "<tr><td>{}</td><td>{}</td><td class=\"bar\"><i style=\"width:{:.1}%\"></i></td><td>{}</td>",
        escape(&report.label),
        rounded(figures.events_per_s),
        figures.events_per_s / fastest * 100.0,
        slowest.map_or_else(|| "&ndash;".into(), |by| grouped(by.min))
    )?;
    let latency = &figures.latency;
    for micros in [
        latency.p50_us,
        latency.p99_us,
        latency.p999_us,
        latency.max_us,
    ] {
        write!(page, "<td>{}</td>", millis(micros))?;
    }
    let stall = millis(figures.stall.longest_ms * 1000.0);
    writeln!(page, "<td>{stall}</td><td>{}</td></tr>", verdict(report))
}

/// Whether the run's results can be believed.
fn verdict(report: &RunReport) -> &'static str {
    match (report.is_good(), report.verified.is_some()) {
        (true, true) => "<span class=\"good\">yes</span>",
        (true, false) => "results only",
        (false, _) => "<span class=\"bad\">WRONG</span>",
    }
}

fn run(page: &mut String, report: &RunReport) -> std::fmt::Result {
    let figures = &report.figures;
    writeln!(page, "<h2>{}</h2>", escape(&report.label))?;
    writeln!(
        page,
        "<p class=\"sub\">{}<br>{}</p>",
        escape(&load_line(&report.load)),
        escape(&workload_line(&report.load))
    )?;
    writeln!(page, "<div class=\"cards\">")?;
    card(page, &rounded(figures.events_per_s), "transfers/s")?;
    card(
        page,
        &format!("{} ms", millis(figures.latency.p50_us)),
        "median batch latency",
    )?;
    card(
        page,
        &format!("{} ms", millis(figures.latency.p99_us)),
        "99th percentile",
    )?;
    card(
        page,
        &format!("{} ms", millis(figures.stall.longest_ms * 1000.0)),
        "longest stall",
    )?;
    writeln!(page, "</div>\n<div class=\"grid\">")?;
    if let Some(series) = series(figures) {
        let interval = interval_text(series);
        let chart = throughput(figures, series).svg("throughput over time");
        panel(
            page,
            "Throughput",
            &format!("transfers/s, {interval}"),
            &chart,
        )?;
        let chart = latency(series).svg("latency over time");
        panel(
            page,
            "Batch latency",
            &format!("milliseconds, {interval}"),
            &chart,
        )?;
    }
    let chart = percentiles(vec![curve(figures, "", 1)], WIDTH).svg("latency by percentile");
    let content = format!("{chart}{}", percentile_table(figures));
    panel(
        page,
        "Batch latency by percentile",
        "milliseconds, whole run",
        &content,
    )?;
    writeln!(page, "<section class=\"wide\"><h3>What, where, how</h3>")?;
    facts(page, report)?;
    writeln!(page, "</section>\n</div>")
}

fn percentile_table(figures: &FiguresReport) -> String {
    let columns = figures.latency.columns();
    let names: String = columns
        .iter()
        .map(|(name, _)| format!("<th>{name}</th>"))
        .collect();
    let values: String = columns
        .iter()
        .map(|(_, micros)| format!("<td>{}</td>", millis(*micros)))
        .collect();
    format!(
        "<div class=\"wide\"><table class=\"even\"><tr>{names}</tr><tr>{values}</tr></table></div>"
    )
}

fn card(page: &mut String, figure: &str, name: &str) -> std::fmt::Result {
    writeln!(
        page,
        "<section class=\"card\"><b>{figure}</b><span>{name}</span></section>"
    )
}

fn panel(page: &mut String, title: &str, detail: &str, content: &str) -> std::fmt::Result {
    writeln!(
        page,
        "<section><h3>{title} <small>{detail}</small></h3>\n{content}</section>"
    )
}

/// The series to plot: by the second if the run was long enough, else the fine one.
fn series(figures: &FiguresReport) -> Option<&SeriesReport> {
    let long = figures.elapsed_s >= BY_SECOND_S || figures.fine.cut;
    let series = if long {
        &figures.seconds
    } else {
        &figures.fine
    };
    (series.whole >= POINTS_MIN).then_some(series)
}

fn interval_text(series: &SeriesReport) -> String {
    if series.interval_ms >= 1000.0 {
        "each second".into()
    } else {
        format!("each {} ms", series.interval_ms)
    }
}

/// The complete intervals, each at its middle, with the value that `value` takes from it.
fn line_of(series: &SeriesReport, value: impl Fn(&Point) -> f64) -> Vec<(f64, f64)> {
    let seconds = series.interval_ms / 1000.0;
    let middle = |index: usize| (index as f64 + 0.5) * seconds;
    let points = series.points[..series.whole].iter().enumerate();
    points
        .map(|(index, point)| (middle(index), value(point)))
        .collect()
}

fn time_axis(series: &SeriesReport) -> Axis {
    let end = series.whole as f64 * series.interval_ms / 1000.0;
    Axis::linear(0.0, end, short)
}

fn throughput(figures: &FiguresReport, series: &SeriesReport) -> Chart {
    let per_second = 1000.0 / series.interval_ms;
    let points = line_of(series, |point| point.events as f64 * per_second);
    let most = points.iter().map(|(_, y)| *y).fold(1.0, f64::max);
    let stall = figures.stall;
    let (from, to) = (stall.at_s, stall.at_s + stall.longest_ms / 1000.0);
    let band =
        (to - from >= figures.elapsed_s * STALL_SHARE_MIN && to - from >= 0.05).then(|| Band {
            from,
            to,
            name: format!("longest stall {} ms", millis(stall.longest_ms * 1000.0)),
        });
    Chart {
        width: WIDTH,
        x_name: "seconds",
        x: time_axis(series),
        y: Axis::rounded(0.0, most * 1.02, short),
        lines: vec![Line {
            name: String::new(),
            colour: 1,
            points,
            filled: true,
        }],
        bands: band.into_iter().collect(),
    }
}

fn latency(series: &SeriesReport) -> Chart {
    let empty = |point: &Point, value: f64| {
        if point.batches == 0 {
            f64::NAN
        } else {
            value / 1000.0
        }
    };
    let line = |name: &str, colour, value: fn(&Point) -> f64| Line {
        name: name.into(),
        colour,
        points: line_of(series, |point| empty(point, value(point))),
        filled: false,
    };
    let lines = vec![
        line("max", 6, |point| point.max_us),
        line("p99", 5, |point| point.p99_us),
        line("p90", 2, |point| point.p90_us),
        line("p50", 1, |point| point.p50_us),
    ];
    Chart {
        width: WIDTH,
        x_name: "seconds",
        x: time_axis(series),
        y: millis_axis(&lines),
        lines,
        bands: Vec::new(),
    }
}

fn millis_axis(lines: &[Line]) -> Axis {
    let values = || {
        lines
            .iter()
            .flat_map(|line| &line.points)
            .map(|(_, y)| *y)
            .filter(|y| *y > 0.0)
    };
    let least = values().fold(f64::INFINITY, f64::min);
    let most = values().fold(0.0, f64::max);
    let (least, most) = if most > 0.0 {
        (least, most)
    } else {
        (1.0, 1.0)
    };
    Axis::log(least, most, short)
}

/// A percentile curve; each nine takes the same room.
fn curve(figures: &FiguresReport, name: &str, colour: usize) -> Line {
    let mut points: Vec<(f64, f64)> = Vec::with_capacity(figures.curve.len());
    // What one batch in all of them decides is the maximum, not a percentile.
    let nines_max = (figures.batches as f64).max(10.0).log10();
    for &(quantile, micros) in &figures.curve {
        let nines = -(1.0 - quantile).max(1e-12).log10();
        points.push((nines.min(nines_max), micros / 1000.0));
        if nines >= nines_max {
            break;
        }
    }
    Line {
        name: name.into(),
        colour,
        points,
        filled: false,
    }
}

fn percentiles(lines: Vec<Line>, width: f64) -> Chart {
    let most = lines
        .iter()
        .flat_map(|line| &line.points)
        .map(|(x, _)| *x)
        .fold(1.0, f64::max);
    let mut ticks = vec![(0.0, "0".to_string()), (0.5_f64.log10().abs(), "50".into())];
    for (nines, label) in (1..).zip(["90", "99", "99.9", "99.99", "99.999", "99.9999"]) {
        if f64::from(nines) <= most + 1e-9 {
            ticks.push((f64::from(nines), label.into()));
        }
    }
    Chart {
        width,
        x_name: "percentile",
        x: Axis::custom(0.0, most, ticks),
        y: millis_axis(&lines),
        lines,
        bands: Vec::new(),
    }
}

fn facts(page: &mut String, report: &RunReport) -> std::fmt::Result {
    writeln!(page, "<table class=\"facts\">")?;
    // The cards, the plots and the subtitle say these already.
    let said = ["load", "throughput", "batch latency", "longest stall"];
    for (name, value) in super::text::rows(report) {
        if said.contains(&name.as_str()) {
            continue;
        }
        let value = escape(&value).replace('\n', "<br>");
        writeln!(page, "<tr><td>{}</td><td>{value}</td></tr>", escape(&name))?;
    }
    writeln!(page, "</table>")
}

/// A number on an axis: `0.05`, `3`, `250k`, `1.5M`.
pub fn short(value: f64) -> String {
    let trim = |value: f64, unit: &str| {
        let text = format!("{value:.2}");
        let text = text.trim_end_matches('0').trim_end_matches('.');
        format!("{text}{unit}")
    };
    match value {
        value if value >= 1e6 => trim(value / 1e6, "M"),
        value if value >= 1e4 => trim(value / 1e3, "k"),
        value if value > 0.0 && value < 0.01 => format!("{value}"),
        value => trim(value, ""),
    }
}

/// Seconds since 1970 as a date and time of day (UTC), by the civil calendar's arithmetic.
pub fn date(unix_s: u64) -> String {
    let (days, second) = (unix_s / 86_400, unix_s % 86_400);
    // Days since 1 March of year 0, in eras of 400 years, which all have the same length.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02} UTC",
        second / 3600,
        second / 60 % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_civil() {
        assert_eq!(date(0), "1970-01-01 00:00 UTC");
        assert_eq!(date(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(date(1_735_689_599), "2024-12-31 23:59 UTC");
    }

    #[test]
    fn axis_numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (0.001, "0.001"),
            (0.25, "0.25"),
            (3.0, "3"),
            (250_000.0, "250k"),
            (1_500_000.0, "1.5M"),
        ] {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn text_from_outside_is_escaped() {
        let mut report = RunReport::example();
        report.label = "<script>alert(1)</script>".into();
        report.server.note = Some("a \"b\" & c".into());
        let page = page(&[report.clone(), report]);
        assert!(!page.contains("<script"), "no label becomes markup");
        assert!(page.contains("a &quot;b&quot; &amp; c"));
    }

    #[test]
    fn a_page_has_a_section_for_each_run() {
        let page = page(&[RunReport::example(), RunReport::example()]);
        assert_eq!(page.matches("<h2>").count(), 2);
        // One plot for all runs, and three for each.
        assert_eq!(page.matches("<svg").count(), 7);
        assert!(!page.contains("NaN") && !page.contains("inf"));
        for tag in ["section", "table", "svg", "div", "tr", "td"] {
            let open = page.matches(&format!("<{tag}>")).count()
                + page.matches(&format!("<{tag} ")).count();
            assert_eq!(open, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }

    #[test]
    fn a_run_of_an_instant_is_not_plotted_over_time() {
        let mut report = RunReport::example();
        report.figures.fine = SeriesReport::default();
        report.figures.seconds = SeriesReport::default();
        assert_eq!(page(&[report]).matches("<svg").count(), 1);
    }
}
