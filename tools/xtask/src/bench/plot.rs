//! The plots, as SVG. They bring their own background, so that they can be read
//! on a dark page as well.

use anyhow::{Context, Result};
use plotters::style::{Color, RGBColor};

use super::canvas::{Align, Canvas, Point};
use super::contender::Contender;
use super::results::{Case, Results};
use super::table::thousands;

/// Contenders without the cache.
const OTHERS: RGBColor = RGBColor(0x6b, 0x72, 0x80);
/// Contenders with the cache.
const OURS: RGBColor = RGBColor(0x0b, 0x72, 0x85);
pub(super) const TEXT: RGBColor = RGBColor(0x1f, 0x29, 0x37);
pub(super) const FAINT: RGBColor = RGBColor(0x5b, 0x64, 0x70);
pub(super) const GRID: RGBColor = RGBColor(0xdd, 0xe1, 0xe6);
/// How much of the colour of reads is left in that of writes.
const WRITES: f64 = 0.45;

/// The colour of a contender.
fn color(contender: Contender) -> RGBColor {
    match contender {
        Contender::UBoot | Contender::Edk2 | Contender::LinuxStock => OTHERS,
        Contender::Warmbus
        | Contender::LinuxCold
        | Contender::LinuxAfterWarmbus
        | Contender::LinuxAfterKexec => OURS,
    }
}

/// The colour of a contender where lines lie close to each other.
fn shade(contender: Contender) -> RGBColor {
    match contender {
        Contender::UBoot => RGBColor(0xa1, 0x62, 0x07),
        Contender::Edk2 => RGBColor(0x7e, 0x5a, 0x9b),
        Contender::Warmbus => RGBColor(0x2b, 0x8a, 0x3e),
        _ => color(contender),
    }
}

/// The next number with one digit other than 0 that is not below `most`, and into
/// how many parts an axis up to it is to be cut.
pub(super) fn nice(most: u64) -> (u64, u64) {
    let mut step = 1;
    while step * 10 < most {
        step *= 10;
    }
    let digit = most.div_ceil(step).clamp(1, 10);
    match digit {
        1 => (step, 2),
        2 | 4 | 6 | 8 | 10 => (digit * step, 2),
        odd => (odd * step, odd),
    }
}

/// A small number as a coordinate.
pub(super) fn whole(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// `part` of `all` on a line of `length`.
pub(super) fn scaled(part: u64, all: u64, length: i32) -> i32 {
    let length = u64::from(length.unsigned_abs());
    i32::try_from(part * length / all.max(1)).unwrap_or(i32::MAX)
}

/// A panel, and what stands above all of them.
const PANEL: Point = (500, 272);
const HEAD: i32 = 66;

/// Accesses of every contender, a panel for each topology.
pub(super) fn topologies(results: &Results) -> Result<String> {
    let mut svg = String::new();
    let lines = whole(results.topologies.len().div_ceil(2));
    let canvas = Canvas::new(&mut svg, (2 * PANEL.0, HEAD + lines * PANEL.1))?;
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
        let (column, line) = (whole(number % 2), whole(number / 2));
        panel(&canvas, case, (column * PANEL.0, HEAD + line * PANEL.1))?;
    }
    canvas.end()?;
    Ok(svg)
}

/// Space for the names of contenders, and for the numbers behind bars.
const NAMES: i32 = 168;
const NUMBERS: i32 = 112;
/// From one bar to the next, and how thick it is.
pub(super) const STEP: i32 = 26;
pub(super) const THICK: i32 = 16;

fn panel(canvas: &Canvas, case: &Case, (x, y): Point) -> Result<()> {
    let title = case.functions.map_or_else(
        || case.name.clone(),
        |functions| format!("{}, {functions} functions", case.name),
    );
    canvas.text(&title, (x + 20, y + 14), 18, TEXT, Align::Left)?;
    let most = case
        .contenders
        .iter()
        .map(|row| row.measure.total())
        .max()
        .unwrap_or(0);
    let (end, parts) = nice(most);
    let (zero, length) = (x + NAMES, PANEL.0 - NAMES - NUMBERS);
    let top = y + 32;
    // A gap sets kernels apart from firmware.
    let gap = |contender: Contender| if contender.is_linux() { 10 } else { 0 };
    let height = STEP * whole(case.contenders.len()) + 10;
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
    for (number, row) in case.contenders.iter().enumerate() {
        let measure = &row.measure;
        let above = top + 4 + whole(number) * STEP + gap(row.contender);
        let middle = above + THICK / 2;
        let color = color(row.contender);
        let reads = zero + scaled(measure.reads, end, length);
        let all = zero + scaled(measure.total(), end, length);
        canvas.text(
            row.contender.title(),
            (zero - 8, middle),
            15,
            TEXT,
            Align::Right,
        )?;
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

/// The plane of the second plot: both axes are logarithmic.
struct Plane {
    functions: [u64; 2],
    totals: [u64; 2],
}

/// The corners of the plane.
const LEFT_TOP: Point = (90, 78);
const RIGHT_BOTTOM: Point = (780, 460);

impl Plane {
    /// The plane that shows all of `counts`, which are ordered by their numbers
    /// of functions.
    fn of(counts: &[(u64, &Case)]) -> Option<Self> {
        let cases = counts.iter().flat_map(|(_, case)| &case.contenders);
        let totals: Vec<u64> = cases.map(|row| row.measure.total().max(1)).collect();
        let [lowest, highest] =
            [totals.iter().min()?, totals.iter().max()?].map(|total| total.ilog10());
        Some(Self {
            functions: [counts.first()?.0, counts.last()?.0],
            totals: [10_u64.pow(lowest), 10_u64.pow(highest + 1)],
        })
    }

    fn across(&self, functions: u64) -> i32 {
        LEFT_TOP.0 + place(functions, self.functions, RIGHT_BOTTOM.0 - LEFT_TOP.0)
    }

    fn up(&self, total: u64) -> i32 {
        RIGHT_BOTTOM.1 - place(total, self.totals, RIGHT_BOTTOM.1 - LEFT_TOP.1)
    }

    /// Draws both axes, and lines of 10, 100 and 1000 accesses a function.
    fn axes(&self, canvas: &Canvas, counts: &[(u64, &Case)]) -> Result<()> {
        let [(left, top), (right, bottom)] = [LEFT_TOP, RIGHT_BOTTOM];
        let mut total = self.totals[0];
        while total <= self.totals[1] {
            let at = self.up(total);
            canvas.line(vec![(left, at), (right, at)], GRID, 1)?;
            canvas.text(&thousands(total), (left - 8, at), 14, FAINT, Align::Right)?;
            total *= 10;
        }
        for (functions, _) in counts {
            let at = self.across(*functions);
            canvas.line(vec![(at, top), (at, bottom)], GRID, 1)?;
            canvas.text(
                &thousands(*functions),
                (at, bottom + 16),
                14,
                FAINT,
                Align::Middle,
            )?;
        }
        let middle = (i32::midpoint(left, right), bottom + 40);
        canvas.text("functions", middle, 15, FAINT, Align::Middle)?;
        for each in [10, 100, 1000] {
            let ends = self.functions.map(|functions| {
                let total = (functions * each).clamp(self.totals[0], self.totals[1]);
                let functions = (total / each).clamp(self.functions[0], self.functions[1]);
                (self.across(functions), self.up(total))
            });
            canvas.line(ends.to_vec(), GRID, 2)?;
        }
        Ok(())
    }
}

/// Accesses of some contenders against the number of functions.
pub(super) fn sizes(results: &Results) -> Result<String> {
    let counts = results
        .sizes
        .iter()
        .filter_map(|case| Some((case.functions?, case)));
    let counts: Vec<(u64, &Case)> = counts.filter(|(functions, _)| *functions > 0).collect();
    let plane = Plane::of(&counts).context("there are no sizes to show")?;
    let mut svg = String::new();
    let canvas = Canvas::new(&mut svg, (1000, 520))?;
    canvas.text(
        "Accesses against the number of functions",
        (20, 26),
        22,
        TEXT,
        Align::Left,
    )?;
    let legend = "reads and writes, counted by QEMU; both axes are logarithmic; \
                  the slanted grid lines are 10, 100 and 1,000 a function";
    canvas.text(legend, (20, 50), 15, FAINT, Align::Left)?;
    plane.axes(&canvas, &counts)?;

    let mut names: Vec<(Point, String, RGBColor)> = Vec::new();
    for contender in Contender::ALL {
        let totals = counts.iter().filter_map(|&(functions, case)| {
            Some((functions, case.measure(contender)?.total().max(1)))
        });
        let totals: Vec<(u64, u64)> = totals.collect();
        let Some(&(functions, total)) = totals.last() else {
            continue;
        };
        let color = shade(contender);
        let points = totals
            .iter()
            .map(|(functions, total)| (plane.across(*functions), plane.up(*total)));
        let points: Vec<Point> = points.collect();
        canvas.line(points.clone(), color, 2)?;
        for &point in &points {
            canvas.dot(point, color)?;
        }
        let name = format!("{}: {} each", contender.title(), total / functions);
        names.push(((plane.across(functions), plane.up(total)), name, color));
    }
    // Names that would cover each other move down.
    names.sort_by_key(|((across, height), _, _)| (*across, *height));
    let mut free = (0, 0);
    for ((across, height), name, color) in names {
        let height = if across == free.0 {
            height.max(free.1)
        } else {
            height
        };
        free = (across, height + 18);
        if across < RIGHT_BOTTOM.0 {
            // Where its line ends other lines go on.
            canvas.text(&name, (across, height - 16), 15, color, Align::Middle)?;
        } else {
            canvas.text(&name, (across + 12, height), 15, color, Align::Left)?;
        }
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
    fn every_contender_of_every_topology_has_its_numbers_in_the_plot() {
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
