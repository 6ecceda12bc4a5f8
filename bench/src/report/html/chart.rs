//! Line charts as inline SVG: axes with round numbers, lines labelled where they end, no script.
//!
//! ```text
//!   title, unit
//!   ┌ plot ───────────────────┐
//!   │        ______/  p99     │ names of the lines
//!   │ ______/                 │
//!   └─────────────────────────┘
//!     ticks
//! ```
//!
//! Colours come from classes that the page's style sheet resolves for a light or a dark background. A
//! point whose value is not finite breaks the line: an interval without answers has no latency.

use std::fmt::Write;

/// Sizes are about the pixels that a chart has on a wide screen, so that its text has the page's size.
pub const WIDTH: f64 = 530.0;
pub const WIDTH_WIDE: f64 = 1100.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 46.0;
const TOP: f64 = 10.0;
/// Room for the names of lines: some at least, so that charts below each other line up.
const RIGHT_MIN: f64 = 44.0;
const RIGHT_MAX: f64 = 190.0;
const CHARACTER: f64 = 7.2;
const BOTTOM: f64 = 34.0;
/// Height of a line's name; names closer than this are moved apart.
const NAME_HEIGHT: f64 = 14.0;
const BAND_NAME_ROWS: usize = 4;

/// Where values lie and which of them are written on the axis.
#[derive(Clone, Debug)]
pub struct Axis {
    min: f64,
    max: f64,
    log: bool,
    ticks: Vec<(f64, String)>,
}

impl Axis {
    /// From zero (or `min`) to at least `max`, with round numbers.
    pub fn linear(min: f64, max: f64, label: impl Fn(f64) -> String) -> Axis {
        let step = round_step((max - min).max(f64::MIN_POSITIVE) / 4.0);
        let mut ticks = Vec::new();
        let mut value = (min / step).ceil() * step;
        while value <= max + step * 1e-6 {
            ticks.push((value, label(value)));
            value += step;
        }
        Axis {
            min,
            max: max.max(min + step),
            log: false,
            ticks,
        }
    }

    /// As `linear`, ending at a round number too.
    pub fn rounded(min: f64, max: f64, label: impl Fn(f64) -> String) -> Axis {
        let step = round_step((max - min).max(f64::MIN_POSITIVE) / 4.0);
        Axis::linear(min, (max / step).ceil() * step, label)
    }

    /// From the power of ten below `min` to the one above `max`, or half of that where it suffices.
    pub fn log(min: f64, max: f64, label: impl Fn(f64) -> String) -> Axis {
        let floor = 10_f64.powf(min.max(1e-9).log10().floor());
        let mut top = floor;
        let mut ticks = vec![(floor, label(floor))];
        while top < max && ticks.len() < 24 {
            top *= 10.0;
            ticks.push((top, label(top)));
        }
        if ticks.len() == 1 {
            top *= 10.0;
            ticks.push((top, label(top)));
        }
        // A decade that would be nearly empty is cut in the middle.
        let (mut low, mut high) = (floor, top);
        if min > floor * 2.1 {
            low = floor * 2.0;
        }
        if max < top / 2.1 && top / 2.0 > low {
            high = top / 2.0;
        }
        // Within few decades their powers alone are too few lines to read values from.
        if high / low < 150.0 {
            let powers: Vec<f64> = ticks.iter().map(|(value, _)| *value).collect();
            for power in powers {
                ticks.extend([2.0, 5.0].map(|factor| (power * factor, label(power * factor))));
            }
        }
        ticks.retain(|(value, _)| (low * 0.999..=high * 1.001).contains(value));
        Axis {
            min: low,
            max: high,
            log: true,
            ticks,
        }
    }

    /// With ticks of the caller's choice.
    pub fn custom(min: f64, max: f64, ticks: Vec<(f64, String)>) -> Axis {
        Axis {
            min,
            max,
            log: false,
            ticks,
        }
    }

    /// 0 at the start of the axis, 1 at its end.
    fn place(&self, value: f64) -> f64 {
        let place = if self.log {
            (value.max(self.min) / self.min).ln() / (self.max / self.min).ln()
        } else {
            (value - self.min) / (self.max - self.min)
        };
        place.clamp(0.0, 1.0)
    }
}

/// The smallest of 1, 2, 5, 10, 20, ... that is not below `least`.
fn round_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|factor| factor * power >= least * 0.999);
    power * factor.unwrap_or(10.0)
}

#[derive(Clone, Debug)]
pub struct Line {
    pub name: String,
    /// Number of the colour in the style sheet.
    pub colour: usize,
    pub points: Vec<(f64, f64)>,
    pub filled: bool,
}

/// A marked stretch of the horizontal axis, or an instant if it ends where it begins.
#[derive(Clone, Debug)]
pub struct Band {
    pub from: f64,
    pub to: f64,
    pub name: String,
}

#[derive(Clone, Debug)]
pub struct Chart {
    pub width: f64,
    pub x_name: &'static str,
    pub x: Axis,
    pub y: Axis,
    pub lines: Vec<Line>,
    pub bands: Vec<Band>,
}

impl Chart {
    pub fn svg(&self, description: &str) -> String {
        let mut svg = String::new();
        self.draw(&mut svg, description)
            .expect("strings can be written to");
        svg
    }

    /// Where the plot ends and the names begin.
    fn right(&self) -> f64 {
        let longest = self
            .lines
            .iter()
            .map(|line| line.name.chars().count())
            .max()
            .unwrap_or(0);
        self.width - (longest as f64 * CHARACTER + 12.0).clamp(RIGHT_MIN, RIGHT_MAX)
    }

    fn at_x(&self, value: f64) -> f64 {
        LEFT + self.x.place(value) * (self.right() - LEFT)
    }

    fn at_y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.place(value) * (HEIGHT - TOP - BOTTOM)
    }

    fn draw(&self, svg: &mut String, description: &str) -> std::fmt::Result {
        writeln!(
            svg,
            r#"<svg viewBox="0 0 {} {HEIGHT}" role="img" aria-label="{}">"#,
            self.width,
            super::escape(description)
        )?;
        for (index, band) in self.bands.iter().enumerate() {
            self.draw_band(svg, band, index)?;
        }
        self.draw_axes(svg)?;
        for line in &self.lines {
            self.draw_line(svg, line)?;
        }
        self.draw_names(svg)?;
        writeln!(svg, "</svg>")
    }

    /// Names of neighbours stand at different heights.
    fn draw_band(&self, svg: &mut String, band: &Band, index: usize) -> std::fmt::Result {
        let (from, to) = (self.at_x(band.from), self.at_x(band.to));
        let width = (to - from).max(2.0);
        let height = HEIGHT - TOP - BOTTOM;
        writeln!(
            svg,
            r#"<rect class="band" x="{from:.1}" y="{TOP}" width="{width:.1}" height="{height}"/>"#
        )?;
        let (anchor, x) = if from > self.width / 2.0 {
            ("end", from - 4.0)
        } else {
            ("start", from + width + 4.0)
        };
        writeln!(
            svg,
            r#"<text class="mark" x="{x:.1}" y="{:.1}" text-anchor="{anchor}">{}</text>"#,
            TOP + 11.0 + (index % BAND_NAME_ROWS) as f64 * NAME_HEIGHT,
            super::escape(&band.name)
        )
    }

    fn draw_axes(&self, svg: &mut String) -> std::fmt::Result {
        let (right, bottom) = (self.right(), HEIGHT - BOTTOM);
        for (value, label) in &self.y.ticks {
            let y = self.at_y(*value);
            writeln!(svg, r#"<path class="rule" d="M{LEFT} {y:.1}H{right}"/>"#)?;
            writeln!(
                svg,
                r#"<text class="tick" x="{:.1}" y="{:.1}" text-anchor="end">{label}</text>"#,
                LEFT - 7.0,
                y + 3.5
            )?;
        }
        for (value, label) in &self.x.ticks {
            let x = self.at_x(*value);
            writeln!(svg, r#"<path class="axis" d="M{x:.1} {bottom}v4"/>"#)?;
            writeln!(
                svg,
                r#"<text class="tick" x="{x:.1}" y="{:.1}" text-anchor="middle">{label}</text>"#,
                bottom + 16.0
            )?;
        }
        writeln!(svg, r#"<path class="axis" d="M{LEFT} {bottom}H{right}"/>"#)?;
        writeln!(
            svg,
            r#"<text class="tick" x="{right}" y="{:.1}" text-anchor="end">{}</text>"#,
            bottom + 30.0,
            self.x_name
        )
    }

    fn draw_line(&self, svg: &mut String, line: &Line) -> std::fmt::Result {
        let mut path = String::new();
        let mut pen_down = false;
        for &(x, y) in &line.points {
            if y.is_finite() {
                let command = if pen_down { 'L' } else { 'M' };
                write!(path, "{command}{:.1} {:.1}", self.at_x(x), self.at_y(y))?;
            }
            pen_down = y.is_finite();
        }
        let colour = line.colour;
        if line.filled && !line.points.is_empty() {
            let (first, last) = (line.points[0].0, line.points[line.points.len() - 1].0);
            let bottom = HEIGHT - BOTTOM;
            writeln!(
                svg,
                r#"<path class="area c{colour}" d="{path}L{:.1} {bottom}L{:.1} {bottom}Z"/>"#,
                self.at_x(last),
                self.at_x(first)
            )?;
        }
        writeln!(
            svg,
            r#"<path class="line c{colour}" d="{path}"><title>{}</title></path>"#,
            super::escape(&line.name)
        )
    }

    /// Names stand at the right of the plot, at the height at which their lines end, not overlapping.
    fn draw_names(&self, svg: &mut String) -> std::fmt::Result {
        let mut names: Vec<(f64, &Line)> = self
            .lines
            .iter()
            .filter(|line| !line.name.is_empty())
            .filter_map(|line| {
                let (_, y) = line.points.iter().rev().find(|(_, y)| y.is_finite())?;
                Some((self.at_y(*y), line))
            })
            .collect();
        names.sort_by(|a, b| a.0.total_cmp(&b.0));
        let floor = HEIGHT - BOTTOM;
        for index in 0..names.len() {
            let least = if index == 0 {
                TOP
            } else {
                names[index - 1].0 + NAME_HEIGHT
            };
            names[index].0 = names[index].0.max(least);
        }
        let mut ceiling = floor;
        for name in names.iter_mut().rev() {
            name.0 = name.0.min(ceiling);
            ceiling = name.0 - NAME_HEIGHT;
        }
        for (y, line) in names {
            writeln!(
                svg,
                r#"<text class="name c{}" x="{:.1}" y="{:.1}">{}</text>"#,
                line.colour,
                self.right() + 8.0,
                y + 4.0,
                super::escape(&line.name)
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round() {
        for (least, step) in [
            (0.9, 1.0),
            (1.0, 1.0),
            (1.1, 2.0),
            (3.0, 5.0),
            (6.0, 10.0),
            (260_000.0, 500_000.0),
        ] {
            assert!((round_step(least) / step - 1.0).abs() < 1e-9, "{least}");
        }
    }

    #[test]
    fn a_linear_axis_has_round_ticks() {
        let axis = Axis::linear(0.0, 9.3, |value| format!("{value}"));
        let labels: Vec<&str> = axis.ticks.iter().map(|(_, label)| label.as_str()).collect();
        assert_eq!(labels, ["0", "5"]);
        let axis = Axis::linear(0.0, 8.0, |value| format!("{value}"));
        assert_eq!(axis.ticks.len(), 5);
        assert!((axis.place(4.0) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn a_log_axis_spans_its_values() {
        for (min, max) in [(0.2, 40.0), (1.0, 1.0), (0.011, 0.012), (5.0, 5_000.0)] {
            let axis = Axis::log(min, max, |value| format!("{value}"));
            assert!(
                axis.min <= min && axis.max >= max,
                "{min} to {max}: {axis:?}"
            );
            assert!(!axis.ticks.is_empty() && axis.place(max) <= 1.0);
        }
        let axis = Axis::log(1.0, 100.0, |value| format!("{value}"));
        assert!((axis.place(10.0) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn a_chart_is_drawn_as_expected() {
        let chart = Chart {
            width: WIDTH,
            x_name: "seconds",
            x: Axis::linear(0.0, 4.0, |value| format!("{value}")),
            y: Axis::linear(0.0, 100.0, |value| format!("{value}")),
            lines: vec![Line {
                name: "a<b".into(),
                colour: 1,
                points: vec![
                    (0.0, 0.0),
                    (1.0, 50.0),
                    (2.0, f64::NAN),
                    (3.0, 100.0),
                    (4.0, 100.0),
                ],
                filled: false,
            }],
            bands: Vec::new(),
        };
        let svg = chart.svg("throughput");
        // The line is broken at the missing point and stays within the plot.
        assert!(
            svg.contains(r#"d="M46.0 216.0L156.0 113.0M376.0 10.0L486.0 10.0""#),
            "{svg}"
        );
        assert!(svg.contains("a&lt;b") && !svg.contains("a<b"));
        assert_eq!(svg.matches("<path class=\"rule\"").count(), 3);
    }

    #[test]
    fn names_do_not_overlap_or_leave_the_plot() {
        let line = |name: &str, y| Line {
            name: name.into(),
            colour: 1,
            points: vec![(0.0, y), (1.0, y)],
            filled: false,
        };
        let chart = Chart {
            width: WIDTH,
            x_name: "seconds",
            x: Axis::linear(0.0, 1.0, |value| format!("{value}")),
            y: Axis::linear(0.0, 1.0, |value| format!("{value}")),
            lines: vec![
                line("a", 0.0),
                line("b", 0.01),
                line("c", 0.02),
                line("d", 1.0),
            ],
            bands: Vec::new(),
        };
        let svg = chart.svg("");
        let mut heights: Vec<f64> = svg
            .lines()
            .filter(|line| line.contains("class=\"name"))
            .map(|line| {
                line.split("y=\"")
                    .nth(1)
                    .unwrap()
                    .split('"')
                    .next()
                    .unwrap()
                    .parse()
                    .unwrap()
            })
            .collect();
        heights.sort_by(f64::total_cmp);
        assert!(
            heights
                .windows(2)
                .all(|pair| pair[1] - pair[0] >= NAME_HEIGHT - 0.2),
            "{heights:?}"
        );
        assert!(heights[0] >= TOP && heights[3] <= HEIGHT - BOTTOM + 5.0);
    }
}
