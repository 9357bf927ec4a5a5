//! Who holds what, as inline SVG: a column for every client, a row for every class, and bars of sizes above them.
//!
//! A cell is as dark as the class's share of the client's rows. Colours are CSS classes of `style.css`.

use maud::{Markup, PreEscaped, html};

use crate::partition::{ClientHoldings, Holdings};

const WIDTH: f64 = 560.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = WIDTH - 12.0;
/// Height of the bars, and where they stand.
const BARS: f64 = 64.0;
const BARS_BOTTOM: f64 = 12.0 + BARS;
const GRID_TOP: f64 = BARS_BOTTOM + 8.0;
/// Classes that are drawn.
const MOST_CLASSES: usize = 64;
/// Cells that carry their numbers as a `title`.
const MOST_TITLES: usize = 4000;
/// Longest name of a class, in characters.
const LONGEST_NAME: usize = 10;

/// The heat map of the clients that are told one by one.
pub(super) struct HeatMap<'a>(pub(super) &'a Holdings);

impl HeatMap<'_> {
    /// The map with its title and legend.
    pub(super) fn figure(&self) -> Markup {
        html! {
            figure {
                figcaption {
                    strong { "Who holds what" }
                    @if self.classes() > 0 {
                        span.key {
                            svg.blue viewBox="0 0 60 12" width="60" height="12" aria-hidden="true" {
                                @for step in 0..5_u8 {
                                    rect.cell x=(12 * step) y="0" width="12" height="12"
                                        fill-opacity=(opacity(f64::from(step) / 4.0)) {}
                                }
                            }
                            "none to all of the client's rows"
                        }
                    }
                    span.key { "bars: rows of each client" }
                }
                svg viewBox={ "0 0 " (WIDTH) " " (self.height()) } role="img" aria-label=(self.alt()) {
                    (self.drawing())
                }
            }
        }
    }

    /// The map as a file of its own.
    pub(super) fn file(&self, style: &str) -> Markup {
        let height = self.height();
        html! {
            svg xmlns="http://www.w3.org/2000/svg" viewBox={ "-8 -32 " (WIDTH + 16.0) " " (height + 40.0) }
                width=(WIDTH + 16.0) height=(height + 40.0) font-family="system-ui, sans-serif" role="img"
                aria-label=(self.alt()) {
                style { (PreEscaped(style)) }
                rect x="-8" y="-32" width=(WIDTH + 16.0) height=(height + 40.0) fill="var(--panel)" {}
                text x=(LEFT) y="-10" font-weight="600" { "Who holds what" }
                (self.drawing())
            }
        }
    }

    fn drawing(&self) -> Markup {
        let shown = &self.0.shown;
        let width = (RIGHT - LEFT) / shown.len().max(1) as f64;
        let most = shown.iter().map(|client| client.rows).max().unwrap_or(1).max(1);
        let (row, classes) = (self.row_height(), self.classes());
        let bottom = GRID_TOP + row * classes as f64;
        let gap = if width > 4.0 { 0.5 } else { 0.0 };
        let titles = shown.len() * classes <= MOST_TITLES;
        html! {
            path.axis d={ "M" (LEFT) " " (BARS_BOTTOM - BARS) "V" (BARS_BOTTOM) "H" (RIGHT) } {}
            text.tick x=(LEFT - 8.0) y=(BARS_BOTTOM - BARS + 10.0) text-anchor="end" { (most) }
            text.tick x=(LEFT - 8.0) y=(BARS_BOTTOM) text-anchor="end" { "0" }
            g.green {
                @for (at, client) in shown.iter().enumerate() {
                    @let height = BARS * client.rows as f64 / most as f64;
                    rect.cell x=(place(LEFT + width * at as f64)) y=(place(BARS_BOTTOM - height))
                        width=(place(width - gap)) height=(place(height)) {
                        title { "client " (client.client) ": " (client.rows) " rows" }
                    }
                }
            }
            g.blue {
                @for (at, client) in shown.iter().enumerate() {
                    @for (class, &rows) in client.of_class.iter().take(classes).enumerate().filter(|(_, rows)| **rows > 0) {
                        rect.cell x=(place(LEFT + width * at as f64)) y=(place(GRID_TOP + row * class as f64))
                            width=(place(width - gap)) height=(place(row - 0.5))
                            fill-opacity=(opacity(rows as f64 / client.rows as f64)) {
                            @if titles { title { (self.cell_title(client, class, rows)) } }
                        }
                    }
                }
            }
            @for (class, name) in self.0.classes.iter().take(classes).enumerate().step_by(self.name_step()) {
                text.tick x=(LEFT - 8.0) y=(place(GRID_TOP + row * (class as f64 + 0.5) + 4.0)) text-anchor="end" {
                    (short_name(name))
                }
            }
            @for at in (0..shown.len()).step_by((shown.len() / 10).max(1)) {
                text.tick x=(place(LEFT + width * (at as f64 + 0.5))) y=(place(bottom + 16.0)) text-anchor="middle" {
                    (shown[at].client)
                }
            }
            text.label x=(LEFT.midpoint(RIGHT)) y=(place(bottom + 36.0)) text-anchor="middle" {
                "client"
                @if (shown.len() as u64) < self.0.clients { " (the first " (shown.len()) " of " (self.0.clients) ")" }
            }
        }
    }

    fn cell_title(&self, client: &ClientHoldings, class: usize, rows: u64) -> String {
        let name = self.0.classes.get(class).map_or("", String::as_str);
        format!("client {}, class {name}: {rows} of {} rows", client.client, client.rows)
    }

    fn alt(&self) -> String {
        let sizes = &self.0.sizes;
        let classes = self.0.classes_held.as_ref().map_or(String::new(), |held| {
            format!(" and of {} to {} classes, half of them at most {}", held.least, held.most, held.median)
        });
        format!(
            "Heat map of the rows of each class at {} of {} clients. Clients hold {} to {} rows, half of them at most {}{classes}.",
            self.0.shown.len(),
            self.0.clients,
            sizes.least,
            sizes.most,
            sizes.median
        )
    }

    /// Classes that are drawn; 0 where rows have no labels.
    fn classes(&self) -> usize {
        self.0.classes.len().min(MOST_CLASSES)
    }

    fn row_height(&self) -> f64 {
        (220.0 / self.classes().max(1) as f64).clamp(5.0, 18.0)
    }

    /// A name every so many rows, so that names do not overlap.
    fn name_step(&self) -> usize {
        (12.0 / self.row_height()).ceil() as usize
    }

    fn height(&self) -> f64 {
        GRID_TOP + self.row_height() * self.classes() as f64 + 48.0
    }
}

/// A coordinate, to a tenth.
fn place(value: f64) -> String {
    format!("{value:.1}")
}

/// How dark a share is: the smallest is still seen.
fn opacity(share: f64) -> String {
    if share <= 0.0 { "0.04".to_owned() } else { format!("{:.2}", 0.15 + 0.85 * share.min(1.0)) }
}

fn short_name(name: &str) -> String {
    if name.chars().count() <= LONGEST_NAME {
        return name.to_owned();
    }
    name.chars().take(LONGEST_NAME - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partition::Quantiles;

    fn holdings(clients: u64, classes: usize) -> Holdings {
        let quantiles = Quantiles { least: 1, tenth: 1, median: 2, nine_tenths: 3, most: 4, mean: 2.0 };
        let of_class =
            |client: u64| (0..classes as u64).map(|class| (client + class) % 3).collect::<Vec<_>>();
        let shown = (0..clients.min(100)).map(|client| ClientHoldings {
            client,
            rows: of_class(client).iter().sum::<u64>().max(1),
            of_class: of_class(client),
        });
        Holdings {
            clients,
            examined: clients,
            repeats: false,
            classes: (0..classes).map(|class| format!("<class {class}>")).collect(),
            sizes: quantiles,
            classes_held: (classes > 0).then_some(quantiles),
            shown: shown.collect(),
        }
    }

    #[test]
    fn there_is_a_cell_for_every_class_that_a_client_holds() {
        let holdings = holdings(7, 3);
        let drawn = HeatMap(&holdings).figure().into_string();
        // In any three classes in a row, one client in three misses each: 2 cells a client, and 7 bars and 5 steps of the
        // legend besides.
        assert_eq!(drawn.matches("<rect class=\"cell\"").count(), 14 + 7 + 5);
        assert!(drawn.contains("client 1, class &lt;class 1&gt;: 2 of 3 rows"), "{drawn}");
        assert!(drawn.contains("fill-opacity=\"0.72\""), "two thirds of the rows");
        assert!(!drawn.contains("the first"));
    }

    #[test]
    fn large_populations_and_many_classes_stay_small() {
        let holdings = holdings(1_000_000, 500);
        let drawn = HeatMap(&holdings).file("").into_string();
        assert!(drawn.contains("(the first 100 of 1000000)"), "{drawn}");
        assert!(drawn.len() < 700_000, "{}", drawn.len());
        assert!(!drawn.contains("class &lt;class 64"));
    }

    #[test]
    fn rows_without_labels_have_bars_alone() {
        let holdings = holdings(5, 0);
        let drawn = HeatMap(&holdings).figure().into_string();
        assert_eq!(drawn.matches("<rect class=\"cell\"").count(), 5);
        assert!(!drawn.contains("none to all"));
    }
}
