//! Which accesses of a recording each contender made.

use anyhow::{Context, Result};

use super::contender::Contender;

/// The first line that an arm64 kernel prints.
const LINUX_STARTS: &str = "Booting Linux on physical CPU";
/// The first output of the boot manager of EDK2.
pub(super) const CLEAR_SCREEN: &str = "\x1b[2J";

/// The accesses of `contender` in a recording of its
/// [`boot`](Contender::boot), as a half-open range. `console` are the lines of
/// the console, each with the number of accesses before its end; `all` is the
/// number of all accesses.
///
/// # Errors
///
/// If the console lacks the line that starts or ends the range.
pub fn accesses_of(
    contender: Contender,
    console: &[(usize, String)],
    all: usize,
) -> Result<[usize; 2]> {
    let starts: Vec<usize> = console
        .iter()
        .filter(|(_, line)| line.contains(LINUX_STARTS))
        .map(|(at, _)| *at)
        .collect();
    let start = |which: usize| {
        let start = starts.get(which).copied();
        start.with_context(|| format!("the console shows {} starts of Linux", starts.len()))
    };
    Ok(match contender {
        Contender::UBoot => [0, all],
        Contender::Edk2 => {
            let manager = console
                .iter()
                .find(|(_, line)| line.contains(CLEAR_SCREEN))
                .context("the boot manager of EDK2 did not start")?;
            [0, manager.0]
        }
        Contender::Warmbus => [0, start(0)?],
        Contender::LinuxStock | Contender::LinuxCold => [start(0)?, all],
        Contender::LinuxAfterWarmbus => [start(0)?, starts.get(1).copied().unwrap_or(all)],
        Contender::LinuxAfterKexec => [start(1)?, all],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses_between_two_starts_of_linux_are_those_of_the_first() {
        let console = [
            (40, "warmbus: result: ok"),
            (
                41,
                "[    0.000000] Booting Linux on physical CPU 0x0000000000",
            ),
            (70, "warmbus: linux: done"),
            (
                90,
                "[    0.000000] Booting Linux on physical CPU 0x0000000000",
            ),
        ]
        .map(|(at, line)| (at, line.to_owned()));
        let of = |contender| accesses_of(contender, &console, 100).unwrap();
        assert_eq!(of(Contender::Warmbus), [0, 41]);
        assert_eq!(of(Contender::LinuxAfterWarmbus), [41, 90]);
        assert_eq!(of(Contender::LinuxAfterKexec), [90, 100]);
        assert!(accesses_of(Contender::LinuxAfterKexec, &console[..3], 100).is_err());
        assert!(accesses_of(Contender::Edk2, &console, 100).is_err());
    }
}
