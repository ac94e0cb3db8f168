//! The plots, as SVG. They bring their own background, so that they can be read
//! on a dark page as well.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::measure::Measure;
use super::peer::Peer;
use super::results::{Case, Results};
use super::table::thousands;

/// Without what is made here: everybody else.
const OTHERS: RGBColor = RGBColor(0x6b, 0x72, 0x80);
/// With the cache of Warmbus.
const OURS: RGBColor = RGBColor(0x0b, 0x72, 0x85);
const TEXT: RGBColor = RGBColor(0x1f, 0x29, 0x37);
const FAINT: RGBColor = RGBColor(0x5b, 0x64, 0x70);
const GRID: RGBColor = RGBColor(0xdd, 0xe1, 0xe6);
/// How much of the colour of reads is left in that of writes.
const WRITES: f64 = 0.45;

/// Points of the plane, from the upper left corner.
type Point = (i32, i32);

/// Where a text stands beside its point.
#[derive(Clone, Copy)]
enum Align {
    Left,
    Middle,
    Right,
}

struct Canvas<'a>(DrawingArea<SVGBackend<'a>, Shift>);

impl<'a> Canvas<'a> {
    fn new(into: &'a mut String, size: (u32, u32)) -> Result<Self> {
        let area = SVGBackend::with_string(into, size).into_drawing_area();
        area.fill(&WHITE).map_err(|error| anyhow!("{error}"))?;
        Ok(Self(area))
    }

    fn text(&self, text: &str, at: Point, size: u32, color: RGBColor, align: Align) -> Result<()> {
        let across = match align {
            Align::Left => HPos::Left,
            Align::Middle => HPos::Center,
            Align::Right => HPos::Right,
        };
        let style = ("sans-serif", size)
            .into_font()
            .color(&color)
            .pos(Pos::new(across, VPos::Center));
        let text = Text::new(text.to_owned(), at, style);
        self.0.draw(&text).map_err(|error| anyhow!("{error}"))
    }

    fn bar(&self, from: Point, to: Point, color: RGBAColor) -> Result<()> {
        let bar = Rectangle::new([from, to], color.filled());
        self.0.draw(&bar).map_err(|error| anyhow!("{error}"))
    }

    fn line(&self, points: Vec<Point>, color: RGBColor, width: u32) -> Result<()> {
        let line = PathElement::new(points, color.stroke_width(width));
        self.0.draw(&line).map_err(|error| anyhow!("{error}"))
    }

    fn dot(&self, at: Point, color: RGBColor) -> Result<()> {
        let dot = Circle::new(at, 4, color.filled());
        self.0.draw(&dot).map_err(|error| anyhow!("{error}"))
    }

    fn end(self) -> Result<()> {
        self.0.present().map_err(|error| anyhow!("{error}"))
    }
}

/// The colour of a peer.
fn color(peer: Peer) -> RGBColor {
    match peer {
        Peer::UBoot | Peer::Edk2 | Peer::LinuxStock => OTHERS,
        Peer::Warmbus | Peer::LinuxCold | Peer::LinuxAfterWarmbus | Peer::LinuxAfterKexec => OURS,
    }
}

/// The next number with one digit other than 0 that is not below `most`, and into
/// how many parts an axis up to it is to be cut.
fn nice(most: u64) -> (u64, u64) {
    let mut step = 1;
    while step * 10 < most {
        step *= 10;
    }
    let digit = most.div_ceil(step).clamp(1, 10);
    match digit {
        1 => (step, 2),
        2 | 4 | 6 | 8 => (digit * step, 2),
        10 => (digit * step, 2),
        odd => (odd * step, odd),
    }
}

/// `part` of `whole` on a line of `length`.
fn scaled(part: u64, whole: u64, length: i32) -> i32 {
    let length = u64::from(length.unsigned_abs());
    i32::try_from(part * length / whole.max(1)).unwrap_or(i32::MAX)
}

const WIDTH: u32 = 1000;
const PANEL: Point = (500, 272);
const HEAD: i32 = 66;

/// Accesses of every peer, a panel for each topology.
pub(super) fn topologies(results: &Results) -> Result<String> {
    let mut svg = String::new();
    let lines = results.topologies.len().div_ceil(2) as u32;
    let canvas = Canvas::new(&mut svg, (WIDTH, HEAD as u32 + lines * PANEL.1 as u32))?;
    canvas.text(
        "Accesses to PCIe configuration space",
        (20, 26),
        22,
        TEXT,
        Align::Left,
    )?;
    let legend = "reads + writes, counted by QEMU; each panel has its own scale; shorter is better";
    canvas.text(legend, (20, 50), 15, FAINT, Align::Left)?;
    for (number, case) in results.topologies.iter().enumerate() {
        let (column, line) = (number as i32 % 2, number as i32 / 2);
        panel(&canvas, case, (column * PANEL.0, HEAD + line * PANEL.1))?;
    }
    canvas.end()?;
    Ok(svg)
}

/// Room for the names of peers, and for the numbers behind bars.
const NAMES: i32 = 168;
const NUMBERS: i32 = 112;
/// From one bar to the next, and how thick it is.
const STEP: i32 = 26;
const THICK: i32 = 16;

fn panel(canvas: &Canvas, case: &Case, (x, y): Point) -> Result<()> {
    let title = case.functions.map_or_else(
        || case.name.clone(),
        |functions| format!("{}, {functions} functions", case.name),
    );
    canvas.text(&title, (x + 20, y + 14), 18, TEXT, Align::Left)?;
    let most = case
        .peers
        .iter()
        .map(|row| row.measure.total())
        .max()
        .unwrap_or(0);
    let (end, parts) = nice(most);
    let (zero, length) = (x + NAMES, PANEL.0 - NAMES - NUMBERS);
    let top = y + 32;
    // A gap sets kernels apart from firmware.
    let gap = |peer: Peer| if peer.is_linux() { 10 } else { 0 };
    let height = STEP * case.peers.len() as i32 + 10;
    for part in 0..=parts {
        let value = end * part / parts;
        let at = zero + scaled(value, end, length);
        canvas.line(vec![(at, top), (at, top + height)], GRID, 1)?;
        canvas.text(
            &thousands(value),
            (at, top + height + 11),
            13,
            FAINT,
            Align::Middle,
        )?;
    }
    for (number, row) in case.peers.iter().enumerate() {
        let measure = &row.measure;
        let above = top + 4 + number as i32 * STEP + gap(row.peer);
        let middle = above + THICK / 2;
        let color = color(row.peer);
        let reads = zero + scaled(measure.reads, end, length);
        let all = zero + scaled(measure.total(), end, length);
        canvas.text(row.peer.title(), (zero - 8, middle), 15, TEXT, Align::Right)?;
        canvas.bar((zero, above), (reads, above + THICK), color.mix(1.0))?;
        canvas.bar((reads, above), (all, above + THICK), color.mix(WRITES))?;
        let numbers = format!(
            "{} + {}",
            thousands(measure.reads),
            thousands(measure.writes)
        );
        canvas.text(&numbers, (all + 6, middle), 14, TEXT, Align::Left)?;
    }
    canvas.line(vec![(zero, top), (zero, top + height)], FAINT, 1)
}

/// Accesses of some peers against the number of functions.
pub(super) fn sizes(results: &Results) -> Result<String> {
    const SIZE: (u32, u32) = (1000, 520);
    let (left, right, top, bottom) = (90, 780, 78, 460);
    let mut svg = String::new();
    let canvas = Canvas::new(&mut svg, SIZE)?;
    canvas.text(
        "Accesses against the number of functions",
        (20, 26),
        22,
        TEXT,
        Align::Left,
    )?;
    let legend = "reads and writes, counted by QEMU; both axes are logarithmic; the thin lines are 10, 100 and 1,000 a function";
    canvas.text(legend, (20, 50), 15, FAINT, Align::Left)?;

    let counts = results
        .sizes
        .iter()
        .filter_map(|case| Some((case.functions?, case)));
    let counts: Vec<(u64, &Case)> = counts.filter(|(functions, _)| *functions > 0).collect();
    let totals = || {
        let cases = counts.iter().flat_map(|(_, case)| &case.peers);
        cases
            .map(|row| row.measure.total())
            .filter(|total| *total > 0)
    };
    let (Some(&(least, _)), Some(&(most, _))) = (counts.first(), counts.last()) else {
        return Err(anyhow!("there are no sizes to show"));
    };
    let bounds = [
        10_u64.pow(totals().min().unwrap_or(1).ilog10()),
        10_u64.pow(totals().max().unwrap_or(10).ilog10() + 1),
    ];
    let across = |functions: u64| left + place(functions, [least, most], right - left);
    let up = |total: u64| bottom - place(total, bounds, bottom - top);

    let mut total = bounds[0];
    while total <= bounds[1] {
        canvas.line(vec![(left, up(total)), (right, up(total))], GRID, 1)?;
        canvas.text(
            &thousands(total),
            (left - 8, up(total)),
            14,
            FAINT,
            Align::Right,
        )?;
        total *= 10;
    }
    for (functions, _) in &counts {
        let at = across(*functions);
        canvas.line(vec![(at, top), (at, bottom)], GRID, 1)?;
        canvas.text(
            &thousands(*functions),
            (at, bottom + 16),
            14,
            FAINT,
            Align::Middle,
        )?;
    }
    canvas.text(
        "functions",
        (i32::midpoint(left, right), bottom + 40),
        15,
        FAINT,
        Align::Middle,
    )?;
    for each in [10, 100, 1000] {
        let ends = [least, most].map(|functions| {
            let total = (functions * each).clamp(bounds[0], bounds[1]);
            (across(total / each), up(total))
        });
        canvas.line(ends.to_vec(), FAINT, 1)?;
    }

    let mut names = Vec::new();
    for peer in Peer::ALL {
        let points = counts.iter().filter_map(|(functions, case)| {
            let measure: &Measure = case.measure(peer)?;
            Some((across(*functions), up(measure.total())))
        });
        let points: Vec<Point> = points.collect();
        let Some(&last) = points.last() else {
            continue;
        };
        canvas.line(points.clone(), color(peer), 2)?;
        for point in points {
            canvas.dot(point, color(peer))?;
        }
        names.push((last, peer));
    }
    // Names that would cover each other move down.
    names.sort_by_key(|(at, _)| at.1);
    let mut free = top;
    for (at, peer) in names {
        let line = at.1.max(free);
        free = line + 18;
        canvas.text(
            peer.title(),
            (right + 14, line),
            15,
            color(peer),
            Align::Left,
        )?;
    }
    canvas.end()?;
    Ok(svg)
}

/// Where `value` is on a logarithmic line of `length` from one bound to the
/// other.
fn place(value: u64, bounds: [u64; 2], length: i32) -> i32 {
    #[expect(clippy::cast_precision_loss, reason = "a picture has few points")]
    let [value, from, to] = [value, bounds[0], bounds[1]].map(|number| (number as f64).ln());
    let part = if to > from {
        (value - from) / (to - from)
    } else {
        0.5
    };
    (part * f64::from(length)).round() as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::sample;

    #[test]
    fn every_peer_of_every_topology_has_its_numbers_in_the_plot() {
        let svg = topologies(&sample()).unwrap();
        for text in [
            "small, 9 functions",
            "fan, 65 functions",
            "2,063 + 361",
            "Linux, after kexec",
        ] {
            assert!(svg.contains(text), "{text}");
        }
        assert!(svg.starts_with("<svg"));
    }

    #[test]
    fn every_size_is_on_the_axis() {
        let svg = sizes(&sample()).unwrap();
        assert!(svg.contains("2,048") && svg.contains("Warmbus"));
        let mut none = sample();
        none.sizes.clear();
        assert!(sizes(&none).is_err());
    }

    #[test]
    fn an_axis_ends_at_a_round_number_that_covers_all() {
        for (most, end) in [
            (954, 1000),
            (2424, 3000),
            (20_147, 30_000),
            (1, 1),
            (10, 10),
            (0, 1),
        ] {
            let (found, parts) = nice(most);
            assert_eq!(found, end, "{most}");
            assert!(found >= most && (found % parts == 0 || found < parts));
        }
    }

    #[test]
    fn a_logarithmic_line_has_its_middle_where_the_factors_are_equal() {
        assert_eq!(place(10, [1, 100], 200), 100);
        assert_eq!(
            (place(1, [1, 100], 200), place(100, [1, 100], 200)),
            (0, 200)
        );
    }
}
