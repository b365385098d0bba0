//! Line charts as SVG: text that any browser shows, without a library.
//!
//! Points come in the units of their axis, already mapped ([`scale`]): this only draws. Colours and background stand in the file, so
//! that a picture looks the same in a dark viewer.

pub(super) mod scale;

use std::fmt::Write;

use scale::Axis;

/// Width of a picture, and of what stands left and right of the lines.
const WIDTH: f64 = 960.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 150.0;
/// Height of a title with its explanation, of one panel's lines, and of what stands above and below those.
const HEAD: f64 = 62.0;
const PLOT: f64 = 236.0;
const ABOVE: f64 = 30.0;
const BELOW: f64 = 56.0;
/// Letters that there is room for beside a mark, and in the legend.
const MARK: usize = 26;
const NAME: usize = 15;

/// A line.
pub(super) struct Series {
    pub(super) name: String,
    pub(super) colour: &'static str,
    /// A place without a value is a gap.
    pub(super) points: Vec<(f64, Option<f64>)>,
}

/// One system of axes with its lines.
pub(super) struct Panel {
    /// Nothing if the picture's title says it.
    pub(super) title: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) series: Vec<Series>,
    /// Vertical lines with words.
    pub(super) marks: Vec<(f64, String)>,
}

/// A picture: panels below each other, with a title and a line that explains.
pub(super) fn picture(title: &str, explanation: &str, panels: &[Panel]) -> String {
    let height = HEAD + panels.len() as f64 * (ABOVE + PLOT + BELOW);
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif\" font-size=\"12\" fill=\"#333\">\n\
         <title>{}</title>\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fdfdfc\"/>\n",
        escaped(title),
    );
    text(
        &mut out,
        (LEFT, 26.0),
        "start",
        " font-size=\"17\" font-weight=\"600\" fill=\"#111\"",
        title,
    );
    text(
        &mut out,
        (LEFT, 46.0),
        "start",
        " fill=\"#666\"",
        explanation,
    );
    for (number, panel) in panels.iter().enumerate() {
        let top = HEAD + number as f64 * (ABOVE + PLOT + BELOW) + ABOVE;
        draw(&mut out, top, panel);
    }
    out.push_str("</svg>\n");
    out
}

fn draw(out: &mut String, top: f64, panel: &Panel) {
    let (right, bottom) = (WIDTH - RIGHT, top + PLOT);
    let x = |value: f64| LEFT + panel.x.share(value) * (right - LEFT);
    let y = |value: f64| bottom - panel.y.share(value) * PLOT;
    text(
        out,
        (LEFT, top - 10.0),
        "start",
        " font-size=\"14\" font-weight=\"600\" fill=\"#222\"",
        &panel.title,
    );
    for (value, label) in &panel.y.ticks {
        let at = y(*value);
        line(out, (LEFT, at), (right, at), "#e3e3df", "");
        text(out, (LEFT - 8.0, at + 4.0), "end", "", label);
    }
    for (value, label) in &panel.x.ticks {
        let at = x(*value);
        line(out, (at, top), (at, bottom), "#efefec", "");
        text(out, (at, bottom + 18.0), "middle", "", label);
    }
    line(out, (LEFT, bottom), (right, bottom), "#888", "");
    line(out, (LEFT, top), (LEFT, bottom), "#888", "");
    text(
        out,
        ((LEFT + right) / 2.0, bottom + 38.0),
        "middle",
        " fill=\"#555\"",
        &panel.x.label,
    );
    let turn = format!(
        " fill=\"#555\" transform=\"rotate(-90 18 {:.1})\"",
        top + PLOT / 2.0
    );
    text(
        out,
        (18.0, top + PLOT / 2.0),
        "middle",
        &turn,
        &panel.y.label,
    );
    for series in &panel.series {
        curve(out, series, &x, &y);
    }
    for (number, (at, label)) in panel.marks.iter().enumerate() {
        let at = x(*at);
        line(
            out,
            (at, top),
            (at, bottom),
            "#7b3294",
            " stroke-dasharray=\"5 3\"",
        );
        // Neighbours stand below each other, and words near the right end run to the left.
        let below = top + 14.0 + (number % 4) as f64 * 15.0;
        let (place, anchor) = if at > LEFT + (right - LEFT) * 0.75 {
            (at - 5.0, "end")
        } else {
            (at + 5.0, "start")
        };
        let halo = " fill=\"#7b3294\" stroke=\"#fdfdfc\" stroke-width=\"3\" paint-order=\"stroke\"";
        text(out, (place, below), anchor, halo, &shortened(label, MARK));
    }
    for (number, series) in panel.series.iter().enumerate() {
        let at = top + 10.0 + number as f64 * 20.0;
        line(
            out,
            (right + 14.0, at),
            (right + 36.0, at),
            series.colour,
            " stroke-width=\"3\"",
        );
        let name = shortened(&series.name, NAME);
        text(out, (right + 42.0, at + 4.0), "start", "", &name);
    }
}

fn curve(out: &mut String, series: &Series, x: &impl Fn(f64) -> f64, y: &impl Fn(f64) -> f64) {
    let mut path = String::new();
    let mut pen = "M";
    for (place, value) in &series.points {
        let Some(value) = value else {
            pen = "M";
            continue;
        };
        let _ = write!(path, "{pen}{:.1} {:.1}", x(*place), y(*value));
        pen = "L";
    }
    let colour = series.colour;
    let _ = writeln!(
        out,
        "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\" stroke-linejoin=\"round\"/>"
    );
    // Few points are shown as such; a single one would not be seen at all.
    if series.points.len() <= 40 {
        for (place, value) in &series.points {
            if let Some(value) = value {
                let _ = writeln!(
                    out,
                    "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.4\" fill=\"{colour}\"/>",
                    x(*place),
                    y(*value)
                );
            }
        }
    }
}

fn line(out: &mut String, from: (f64, f64), to: (f64, f64), colour: &str, more: &str) {
    let _ = writeln!(
        out,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\"{more}/>",
        from.0, from.1, to.0, to.1
    );
}

fn text(out: &mut String, at: (f64, f64), anchor: &str, more: &str, words: &str) {
    if !words.is_empty() {
        let words = escaped(words);
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\"{more}>{words}</text>",
            at.0, at.1
        );
    }
}

/// As much of it as there is room for: the whole is in the report.
fn shortened(words: &str, most: usize) -> String {
    if words.chars().count() <= most {
        return words.to_owned();
    }
    let start: String = words.chars().take(most.saturating_sub(1)).collect();
    format!("{}…", start.trim_end())
}

/// Operations and faults have names that people chose.
fn escaped(words: &str) -> String {
    let tidy: String = words
        .chars()
        .filter(|letter| !letter.is_control())
        .collect();
    tidy.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel(points: Vec<(f64, Option<f64>)>) -> Panel {
        Panel {
            title: "a < b & c".into(),
            x: Axis::seconds(10.0),
            y: Axis::from_zero("operations per second", 100.0),
            series: vec![Series {
                name: "put".into(),
                colour: "#0072b2",
                points,
            }],
            marks: vec![(5.0, "kill <b>".into())],
        }
    }

    #[test]
    fn words_cannot_break_the_picture() {
        let svg = picture("t&t", "e", &[panel(vec![])]);
        assert!(
            svg.contains("a &lt; b &amp; c")
                && svg.contains("kill &lt;b&gt;")
                && svg.contains("<title>t&amp;t"),
            "{svg}"
        );
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    }

    #[test]
    fn long_words_are_cut() {
        assert_eq!(shortened("kill node2", 10), "kill node2");
        assert_eq!(shortened("host --vnode kv", 6), "host…");
        assert_eq!(shortened("ääää", 3), "ää…");
    }

    #[test]
    fn a_gap_lifts_the_pen_and_all_points_are_inside() {
        let svg = picture(
            "t",
            "e",
            &[panel(vec![
                (0.0, Some(0.0)),
                (5.0, None),
                (10.0, Some(100.0)),
            ])],
        );
        let path = svg
            .split("<path d=\"")
            .nth(1)
            .and_then(|rest| rest.split('"').next())
            .unwrap();
        let (bottom, top) = (HEAD + ABOVE + PLOT, HEAD + ABOVE);
        assert_eq!(
            path,
            format!("M{LEFT:.1} {bottom:.1}M{:.1} {top:.1}", WIDTH - RIGHT)
        );
        assert_eq!(svg.matches("<circle").count(), 2);
    }
}
