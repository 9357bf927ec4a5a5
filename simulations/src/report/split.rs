//! Who holds what: a section of a run's report, a page of its own, and a drawing.

use maud::{Markup, html};

use super::heat_map::HeatMap;
use super::words::short;
use super::{STYLE, page};
use crate::partition::{Holdings, Quantiles};

/// Who holds what, as a page of its own. `data` is the set and `partition` how it was dealt, in words.
pub fn split_html(data: &str, partition: &str, split: &Holdings) -> String {
    let title = format!("{data} over {} clients", split.clients);
    let body = html! {
        header {
            h1 { (title) }
            p.lead { "Partition: " (partition) }
        }
        main { (section(split)) }
    };
    page(&title, &body)
}

/// The heat map of who holds what as an SVG file.
pub fn split_svg(split: &Holdings) -> String {
    HeatMap(split).file(STYLE).into_string()
}

/// The section of a report.
pub(super) fn section(split: &Holdings) -> Markup {
    let quantiles = |name: &str, found: &Quantiles| {
        html! {
            tr {
                th.words scope="row" { (name) }
                td { (found.least) }
                td { (found.tenth) }
                td { (found.median) }
                td { (found.nine_tenths) }
                td { (found.most) }
                td { (short(found.mean)) }
            }
        }
    };
    html! {
        section {
            h2 { "Data" }
            p.muted {
                @if split.repeats { "Clients draw their rows, and several may hold the same one. " }
                @if split.examined < split.clients {
                    "Of " (split.clients) " clients, which are alike, the first " (split.examined) " were looked at."
                } @else {
                    "Of " (split.clients) " clients."
                }
            }
            div.plots {
                (HeatMap(split).figure())
                div.panel.scroll {
                    table {
                        thead {
                            tr {
                                th.words scope="col" { "Of a client" }
                                th scope="col" { "Least" }
                                th scope="col" { "10 %" }
                                th scope="col" { "Median" }
                                th scope="col" { "90 %" }
                                th scope="col" { "Most" }
                                th scope="col" { "Mean" }
                            }
                        }
                        tbody {
                            (quantiles("rows", &split.sizes))
                            @if let Some(held) = &split.classes_held { (quantiles("classes", held)) }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partition::ClientHoldings;

    #[test]
    fn pages_show_every_client_and_run_nothing() {
        let quantiles = Quantiles { least: 4, tenth: 4, median: 5, nine_tenths: 6, most: 6, mean: 5.0 };
        let client = |client| ClientHoldings { client, rows: 5, of_class: vec![2, 3] };
        let holdings = Holdings {
            clients: 2_000_000,
            examined: 10_000,
            repeats: true,
            classes: vec!["<script>".to_owned(), "b".to_owned()],
            sizes: quantiles,
            classes_held: None,
            shown: (0..3).map(client).collect(),
        };
        let page = split_html("a & b", "draw <5>", &holdings);
        assert!(page.contains("a &amp; b over 2000000 clients") && page.contains("draw &lt;5&gt;"), "{page}");
        assert!(
            page.contains("Of 2000000 clients, which are alike, the first 10000 were looked at"),
            "{page}"
        );
        assert!(!page.contains("<script") && page.contains("default-src 'none'"), "{page}");
        let drawing = split_svg(&holdings);
        assert!(
            drawing.starts_with("<svg xmlns") && drawing.contains("client 2, class b: 3 of 5 rows"),
            "{drawing}"
        );
    }
}
