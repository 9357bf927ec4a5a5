//! Line and scatter plots as inline SVG.
//!
//! Colours are CSS classes of `style.css`, so that one drawing serves the light and the dark scheme. Every series
//! differs from the others by its marker or dash as well as by its colour, and every marker carries its value
//! as a `title`. Values that are not finite are left out.

use maud::{Markup, PreEscaped, html};

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 280.0;
/// Height of title and legend in a file of its own.
const HEADER: f64 = 56.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = WIDTH - 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = HEIGHT - 48.0;
/// A line with more points than this is drawn without markers.
const MOST_MARKERS_ON_A_LINE: usize = 60;

/// A plot: two axes and what is drawn between them.
pub(super) struct Chart {
    pub(super) title: &'static str,
    /// What the plot shows, for a reader who does not see it.
    pub(super) alt: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) series: Vec<Series>,
}

/// An axis: its label with the unit, and the values at its two ends.
pub(super) struct Axis {
    label: String,
    scale: Scale,
    low: f64,
    high: f64,
    ticks: Vec<f64>,
    format: fn(f64) -> String,
}

#[derive(Clone, Copy)]
enum Scale {
    Linear,
    Logarithmic,
}

pub(super) struct Series {
    pub(super) name: String,
    /// CSS class that gives the colour.
    pub(super) class: &'static str,
    pub(super) mark: Mark,
    pub(super) points: Vec<Point>,
}

pub(super) struct Point {
    pub(super) x: f64,
    /// Without a value, the point is drawn on the bottom edge.
    pub(super) y: Option<f64>,
    pub(super) title: String,
}

#[derive(Clone, Copy)]
pub(super) enum Mark {
    Line(Marker),
    Dashes,
    Scatter(Marker),
}

#[derive(Clone, Copy)]
pub(super) enum Marker {
    Circle,
    Cross,
    Triangle,
}

impl Axis {
    /// From `low` to `high`, which are finite; equal ends are moved apart.
    pub(super) fn linear(label: impl Into<String>, low: f64, high: f64, format: fn(f64) -> String) -> Self {
        let high = if high > low { high } else { low + low.abs().max(1.0) };
        let ticks = steps(low, high, step(low, high, 5.0));
        Self { label: label.into(), scale: Scale::Linear, low, high, ticks, format }
    }

    /// Whole numbers from `low` on, with half a unit of room after `high`.
    pub(super) fn counts(label: impl Into<String>, low: u32, high: u32) -> Self {
        let (low, high) = (f64::from(low), f64::from(high) + 0.5);
        let ticks = steps(low, high, step(low, high, 12.0).max(1.0));
        Self {
            label: label.into(),
            scale: Scale::Linear,
            low,
            high,
            ticks,
            format: |value| value.to_string(),
        }
    }

    /// Logarithmic from `low` to `high`, with `0 < low <= high`.
    pub(super) fn logarithmic(
        label: impl Into<String>,
        low: f64,
        high: f64,
        format: fn(f64) -> String,
    ) -> Self {
        let (low, high) = (low / 1.5, high * 1.5);
        let (first, last) = (low.log10().floor(), high.log10().ceil());
        let multiples: &[f64] = if high <= 1e4 * low { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let ticks = steps(first, last, ((last - first) / 8.0).ceil().max(1.0))
            .iter()
            .flat_map(|exponent| multiples.iter().map(|multiple| multiple * 10f64.powf(*exponent)))
            .filter(|tick| (low..=high).contains(tick))
            .collect();
        Self { label: label.into(), scale: Scale::Logarithmic, low, high, ticks, format }
    }

    /// Where `value` lies between the ends, as a share of the way.
    fn share(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Logarithmic => (value / self.low).ln() / (self.high / self.low).ln(),
        }
    }
}

impl Chart {
    /// The plot with its title and legend.
    pub(super) fn figure(&self) -> Markup {
        html! {
            figure {
                figcaption {
                    strong { (self.title) }
                    @for series in &self.series {
                        span.key {
                            svg.(series.class) viewBox="0 0 26 12" width="26" height="12" aria-hidden="true" {
                                @match series.mark {
                                    Mark::Line(shape) => {
                                        path.line d="M1 6H25" {}
                                        (marker(shape, 13.0, 6.0, None))
                                    }
                                    Mark::Dashes => path.line.dashed d="M1 6H25" {},
                                    Mark::Scatter(shape) => (marker(shape, 13.0, 6.0, None)),
                                }
                            }
                            (series.name)
                        }
                    }
                }
                svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label=(self.alt) {
                    (self.axes())
                    @for series in &self.series {
                        g.(series.class) { (self.draw(series)) }
                    }
                }
            }
        }
    }

    /// The plot as a file of its own, with title and legend above it.
    pub(super) fn file(&self, style: &str) -> Markup {
        let (top, height) = (-HEADER, HEIGHT + HEADER);
        let mut left = LEFT;
        let keys = self.series.iter().map(|series| {
            let at = left;
            // A character takes some 7 units.
            left += 60.0 + 7.0 * series.name.chars().count() as f64;
            (at, series)
        });
        html! {
            svg xmlns="http://www.w3.org/2000/svg" viewBox={ "-8 " (top) " " (WIDTH + 16.0) " " (height) }
                width=(WIDTH + 16.0) height=(height) font-family="system-ui, sans-serif" role="img" aria-label=(self.alt) {
                style { (PreEscaped(style)) }
                rect x="-8" y=(top) width=(WIDTH + 16.0) height=(height) fill="var(--panel)" {}
                text x=(LEFT) y=(top + 22.0) font-weight="600" { (self.title) }
                @for (at, series) in keys {
                    g.(series.class) {
                        @match series.mark {
                            Mark::Line(shape) => {
                                path.line d={ "M" (at) " " (top + 40.0) "h24" } {}
                                (marker(shape, at + 12.0, top + 40.0, None))
                            }
                            Mark::Dashes => path.line.dashed d={ "M" (at) " " (top + 40.0) "h24" } {},
                            Mark::Scatter(shape) => (marker(shape, at + 12.0, top + 40.0, None)),
                        }
                    }
                    text x=(at + 30.0) y=(top + 44.0) { (series.name) }
                }
                (self.axes())
                @for series in &self.series {
                    g.(series.class) { (self.draw(series)) }
                }
            }
        }
    }

    fn axes(&self) -> Markup {
        let (middle_x, middle_y) = (LEFT.midpoint(RIGHT), TOP.midpoint(BOTTOM));
        html! {
            @for &tick in &self.y.ticks {
                @let y = self.vertical(tick);
                path.grid d=(format!("M{LEFT} {y:.1}H{RIGHT}")) {}
                text.tick x=(LEFT - 8.0) y=(format!("{:.1}", y + 4.0)) text-anchor="end" { ((self.y.format)(tick)) }
            }
            @for &tick in &self.x.ticks {
                @let x = self.horizontal(tick);
                path.axis d=(format!("M{x:.1} {BOTTOM}v5")) {}
                text.tick x=(format!("{x:.1}")) y=(BOTTOM + 19.0) text-anchor="middle" { ((self.x.format)(tick)) }
            }
            path.axis d={ "M" (LEFT) " " (TOP) "V" (BOTTOM) "H" (RIGHT) } {}
            text.label x=(middle_x) y=(HEIGHT - 8.0) text-anchor="middle" { (self.x.label) }
            text.label x="0" y="0" text-anchor="middle" transform={ "translate(14 " (middle_y) ") rotate(-90)" } {
                (self.y.label)
            }
        }
    }

    fn draw(&self, series: &Series) -> Markup {
        let finite = || series.points.iter().filter(|point| point.y.is_none_or(f64::is_finite));
        let places: Vec<(f64, f64, &str)> = finite()
            .map(|point| {
                let y = point.y.map_or(BOTTOM, |value| self.vertical(value));
                (self.horizontal(point.x), y, point.title.as_str())
            })
            .collect();
        let line = places.iter().map(|(x, y, _)| format!("{x:.1},{y:.1}")).collect::<Vec<_>>().join(" ");
        let markers = |shape| {
            html! {
                @for &(x, y, title) in &places { (marker(shape, x, y, Some(title))) }
            }
        };
        match series.mark {
            Mark::Line(shape) => html! {
                polyline.line points=(line) {}
                @if places.len() <= MOST_MARKERS_ON_A_LINE { (markers(shape)) }
            },
            Mark::Dashes => html! { polyline.line.dashed points=(line) {} },
            Mark::Scatter(shape) => markers(shape),
        }
    }

    fn horizontal(&self, value: f64) -> f64 {
        LEFT + self.x.share(value) * (RIGHT - LEFT)
    }

    fn vertical(&self, value: f64) -> f64 {
        BOTTOM - self.y.share(value) * (BOTTOM - TOP)
    }
}

fn marker(shape: Marker, x: f64, y: f64, title: Option<&str>) -> Markup {
    let path = match shape {
        Marker::Circle => format!("M{:.1} {y:.1}a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0Z", x - 3.5),
        Marker::Cross => format!("M{:.1} {:.1}l8 8m0 -8l-8 8", x - 4.0, y - 4.0),
        Marker::Triangle => format!("M{x:.1} {:.1}l4.5 8h-9Z", y - 5.0),
    };
    let class = if matches!(shape, Marker::Cross) { "stroked" } else { "filled" };
    html! {
        path.(class) d=(path) {
            @if let Some(title) = title { title { (title) } }
        }
    }
}

/// The least of 1, 2, 5, 10, … times a power of ten that divides the way into at most `parts`.
fn step(low: f64, high: f64, parts: f64) -> f64 {
    let least = (high - low) / parts;
    let unit = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0].into_iter().map(|factor| factor * unit).find(|&step| step >= least).unwrap_or(10.0 * unit)
}

/// The multiples of `step` from `low` to `high`.
fn steps(low: f64, high: f64, step: f64) -> Vec<f64> {
    // A hair of tolerance, so that rounding does not lose the last multiple.
    let (first, last) = ((low / step - 1e-9).ceil(), (high / step + 1e-9).floor());
    (0..=(last - first) as usize).map(|count| (first + count as f64) * step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_ticks_are_round_and_inside() {
        assert_eq!(Axis::linear("", 0.0, 10.0, |v| v.to_string()).ticks, [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(Axis::linear("", 0.0, 13.0, |v| v.to_string()).ticks, [0.0, 5.0, 10.0]);
        assert_eq!(Axis::linear("", -3.0, 3.0, |v| v.to_string()).ticks, [-2.0, 0.0, 2.0]);
    }

    #[test]
    fn counts_are_whole_numbers() {
        assert_eq!(Axis::counts("", 0, 1).ticks, [0.0, 1.0]);
        assert_eq!(Axis::counts("", 0, 12).ticks, (0..=12).step_by(2).map(f64::from).collect::<Vec<_>>());
        assert_eq!(Axis::counts("", 5, 5).ticks, [5.0]);
        assert!(Axis::counts("", 0, 100_000).ticks.len() <= 13);
    }

    #[test]
    fn logarithmic_ticks_stay_few() {
        let ticks = |low, high| Axis::logarithmic("", low, high, |v| v.to_string()).ticks;
        assert_eq!(ticks(1.0, 100.0), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
        assert_eq!(ticks(1.0, 1e6), [1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6]);
        assert!(ticks(1e-200, 1e200).len() <= 10);
    }

    #[test]
    fn equal_ends_are_moved_apart() {
        for value in [0.0, 7.0, -1e200, 1e200] {
            let axis = Axis::linear("", value, value, |v| v.to_string());
            assert!(axis.share(value) == 0.0 && axis.ticks.len() <= 7, "{value}: {:?}", axis.ticks);
        }
    }

    #[test]
    fn points_land_in_proportion_and_missing_values_on_the_bottom() {
        let chart = Chart {
            title: "",
            alt: String::new(),
            x: Axis::linear("", 0.0, 10.0, |v| v.to_string()),
            y: Axis::linear("", 0.0, 1.0, |v| v.to_string()),
            series: Vec::new(),
        };
        assert_eq!(chart.horizontal(5.0), LEFT.midpoint(RIGHT));
        assert_eq!(chart.vertical(1.0), TOP);
        let point = |y| Point { x: 0.0, y, title: String::new() };
        let points = vec![point(Some(0.5)), point(Some(f64::NAN)), point(None)];
        let series = Series { name: String::new(), class: "a", mark: Mark::Dashes, points };
        let middle = TOP.midpoint(BOTTOM);
        let drawn = chart.draw(&series).into_string();
        assert!(
            drawn.contains(&format!("points=\"{LEFT:.1},{middle:.1} {LEFT:.1},{BOTTOM:.1}\"")),
            "{drawn}"
        );
    }
}
