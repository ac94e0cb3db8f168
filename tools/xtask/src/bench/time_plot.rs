//! Times as plots: who takes how many milliseconds, and for what.

use anyhow::Result;
use plotters::style::RGBColor;

use super::canvas::{Align, Canvas, Point};
use super::plot::{FAINT, GRID, STEP, TEXT, THICK, nice, scaled, whole};
use super::time::{Peer, Timed, Times, Work};
use super::time_table::INSTRUCTION;

/// The parts of a boot: the firmware, the set-up of PCI, the rest, and what a host of
/// virtual machines does then.
const PARTS: [(&str, RGBColor); 4] = [
    ("firmware", RGBColor(0xc2, 0x6a, 0x0a)),
    ("Linux, until PCI is set up", RGBColor(0x0b, 0x72, 0x85)),
    ("the rest, to the first process", RGBColor(0xb4, 0xbc, 0xc6)),
    ("all virtual functions", RGBColor(0x7b, 0x5e, 0xa7)),
];
/// Microseconds of an access, one for each column.
const LATENCIES: [u64; 2] = [1, 17];
/// The machines that are shown, in order.
pub(super) const MACHINES: [&str; 5] = ["small", "switch", "fan", "sriov", "sriov-host"];

/// Boots from power-on.
pub(super) const BOOTS: [Peer; 5] = [
    Peer::LinuxStock,
    Peer::LinuxCold,
    Peer::UBootLinuxStock,
    Peer::WarmbusLinuxStock,
    Peer::WarmbusLinux,
];
/// Boots behind a firmware that enumerates anyway.
pub(super) const UEFI: [Peer; 3] = [
    Peer::Edk2LinuxStock,
    Peer::Edk2LinuxCold,
    Peer::Edk2WarmbusLinux,
];
/// Boots by kexec.
pub(super) const KEXEC: [Peer; 2] = [Peer::KexecLinuxStock, Peer::KexecLinux];

/// Space of a panel, of the names before its bars and of the numbers behind them.
const WIDTH: i32 = 560;
const NAMES: i32 = 190;
const NUMBERS: i32 = 70;
const HEAD: i32 = 92;

/// Who does something, and a [`Work`] for each part of it.
type Bar = (&'static str, Vec<Work>);

/// What a plot shows.
struct Plot<'a> {
    title: &'a str,
    /// What the bars consist of.
    parts: &'a [(&'static str, RGBColor)],
    /// Names of lines, and the bars there.
    lines: Vec<(String, Vec<Bar>)>,
}

/// Milliseconds of boots of `peers`, a line for each of `machines`, a column for each
/// latency.
pub(super) fn boots(
    times: &Times,
    title: &str,
    machines: &[String],
    peers: &[Peer],
) -> Result<String> {
    let lines = machines.iter().filter_map(|topology| {
        let rows = peers.iter().filter_map(|&peer| {
            let boot = times.get(topology, peer)?;
            Some((peer.title(), parts(boot).to_vec()))
        });
        let rows: Vec<_> = rows.collect();
        (!rows.is_empty()).then(|| (topology.clone(), rows))
    });
    let plot = Plot {
        title,
        parts: &PARTS,
        lines: lines.collect(),
    };
    plot.draw()
}

/// Milliseconds of the starts of virtual machines.
pub(super) fn machines(times: &Times, title: &str) -> Result<String> {
    let lines = times.machines.iter().map(|(topology, starts)| {
        let count = starts.values().map(|counted| counted.count).max();
        let rows = starts.iter();
        let rows = rows.map(|(peer, counted)| (peer.title(), vec![counted.work]));
        let name = format!("{topology}: {} starts", count.unwrap_or(0));
        (name, rows.collect())
    });
    let plot = Plot {
        title,
        parts: &PARTS[1..2],
        lines: lines.collect(),
    };
    plot.draw()
}

impl Plot<'_> {
    fn draw(&self) -> Result<String> {
        let rows = self.lines.iter().map(|(_, rows)| rows.len());
        let height = 74 + STEP * whole(rows.max().unwrap_or(0));
        let mut svg = String::new();
        let size = (2 * WIDTH, HEAD + whole(self.lines.len()) * height);
        let canvas = Canvas::new(&mut svg, size)?;
        canvas.text(self.title, (20, 26), 22, TEXT, Align::Left)?;
        let legend = "2 ns an instruction; left, 1 us for each access to configuration space; \
                      right, 17 us; shorter is better";
        canvas.text(legend, (20, 50), 15, FAINT, Align::Left)?;
        self.legend(&canvas)?;
        for (line, (name, rows)) in (0..).zip(&self.lines) {
            for (column, latency) in (0..).zip(LATENCIES) {
                let rows = rows.iter().map(|(name, parts)| {
                    let time = |work: &Work| work.microseconds(INSTRUCTION[0], latency);
                    (*name, parts.iter().map(time).collect())
                });
                let panel = Panel {
                    title: format!("{name}, milliseconds at {latency} us"),
                    rows: rows.collect(),
                };
                panel.draw(&canvas, self.parts, (column * WIDTH, HEAD + line * height))?;
            }
        }
        canvas.end()?;
        Ok(svg)
    }

    /// Names the parts that there are, if there are several.
    fn legend(&self, canvas: &Canvas) -> Result<()> {
        if self.parts.len() < 2 {
            return Ok(());
        }
        let rows = self.lines.iter().flat_map(|(_, rows)| rows);
        let rows: Vec<_> = rows.map(|(_, parts)| parts).collect();
        let mut at = 20;
        for (part, (name, color)) in self.parts.iter().enumerate() {
            // No firmware runs when a kernel starts the next one.
            if rows.iter().all(|parts| parts[part] == Work::default()) {
                continue;
            }
            canvas.bar((at, 66), (at + 14, 80), (*color).into())?;
            canvas.text(name, (at + 20, 73), 14, TEXT, Align::Left)?;
            at += 60 + 8 * whole(name.len());
        }
        Ok(())
    }
}

/// Each of the [`PARTS`].
fn parts(timed: &Timed) -> [Work; 4] {
    let firmware = timed.firmware.map(|firmware| firmware.work);
    let vfs = timed.vfs.map(|vfs| vfs.work);
    let [firmware, vfs] = [firmware, vfs].map(Option::unwrap_or_default);
    [firmware, timed.pci, timed.init, vfs]
}

/// The bars of one machine at one latency.
struct Panel {
    title: String,
    /// Microseconds of each part.
    rows: Vec<(&'static str, Vec<u64>)>,
}

impl Panel {
    fn draw(&self, canvas: &Canvas, colors: &[(&str, RGBColor)], (x, y): Point) -> Result<()> {
        canvas.text(&self.title, (x + 20, y + 12), 18, TEXT, Align::Left)?;
        let totals = self.rows.iter().map(|(_, parts)| parts.iter().sum::<u64>());
        let (end, ticks) = nice(totals.max().unwrap_or(0) / 1000);
        let (zero, length) = (x + NAMES, WIDTH - NAMES - NUMBERS);
        let top = y + 28;
        let bottom = top + STEP * whole(self.rows.len()) + 4;
        for tick in 0..=ticks {
            let value = end * tick / ticks;
            let at = zero + scaled(value, end, length);
            canvas.line(vec![(at, top), (at, bottom)], GRID, 1)?;
            canvas.text(
                &value.to_string(),
                (at, bottom + 11),
                13,
                FAINT,
                Align::Middle,
            )?;
        }
        for (number, (name, parts)) in self.rows.iter().enumerate() {
            let above = top + 4 + whole(number) * STEP;
            let middle = above + THICK / 2;
            canvas.text(name, (zero - 8, middle), 15, TEXT, Align::Right)?;
            let mut done = 0;
            for (microseconds, (_, color)) in parts.iter().zip(colors) {
                let [from, to] = [done, done + microseconds]
                    .map(|reached| zero + scaled(reached, end * 1000, length));
                canvas.bar((from, above), (to, above + THICK), (*color).into())?;
                done += microseconds;
            }
            let behind = zero + scaled(done, end * 1000, length) + 6;
            let number = format!("{}", (done + 500) / 1000);
            canvas.text(&number, (behind, middle), 14, TEXT, Align::Left)?;
        }
        canvas.line(vec![(zero, top), (zero, bottom)], FAINT, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::time::{Counted, Firmware};

    #[test]
    fn the_parts_of_a_bar_are_the_parts_of_the_boot() {
        let work = |instructions, accesses| Work {
            instructions,
            accesses,
        };
        let timed = Timed {
            firmware: Some(Firmware {
                work: work(1_000_000, 100),
                console_bytes: 0,
            }),
            pci: work(2_000_000, 200),
            init: work(3_000_000, 0),
            vfs: None,
            slow: None,
        };
        let at = |timed, latency| parts(timed).map(|work| work.microseconds(2000, latency));
        assert_eq!(at(&timed, 17), [3700, 7400, 6000, 0]);
        let alone = Timed {
            firmware: None,
            vfs: Some(Counted {
                count: 1,
                work: work(500_000, 1),
            }),
            ..timed
        };
        assert_eq!(at(&alone, 1), [0, 4200, 6000, 1001]);
    }

    #[test]
    fn every_boot_that_was_measured_has_its_bar_and_its_number() {
        let times = Times::published().unwrap();
        let machines = MACHINES.map(String::from);
        let svg = boots(&times, "Time", &machines, &BOOTS).unwrap();
        for peer in BOOTS {
            let shown = MACHINES.iter();
            let shown = shown.filter(|name| times.get(name, peer).is_some());
            let bars = shown.count() * LATENCIES.len();
            let names = format!("\n{}\n", peer.title());
            assert_eq!(svg.matches(&names).count(), bars, "{peer:?}");
        }
        let boot = times.get("fan", Peer::UBootLinuxStock).unwrap();
        let number = (boot.total().microseconds(2000, 17) + 500) / 1000;
        assert!(svg.contains(&format!("\n{number}\n")), "{number}");
    }
}
