//! Configuration space through the files of sysfs. It is only read.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Instant;

use warmbus_pci::{ConfigAccess, ConfigOffset, Sbdf, Width, registers};

/// Access to the functions of a running Linux.
///
/// Without `CAP_SYS_ADMIN` a file ends after the header.
#[derive(Debug, Default)]
pub(super) struct SysfsConfig {
    paths: BTreeMap<Sbdf, PathBuf>,
    /// The file that was used last: there may be more functions than a process
    /// may open files.
    open: Option<(Sbdf, File)>,
    /// A read ended before its bytes since the last call of
    /// [`Self::take_cut`].
    cut: bool,
}

impl SysfsConfig {
    /// The functions with these files.
    pub(super) fn new(paths: impl IntoIterator<Item = (Sbdf, PathBuf)>) -> Self {
        Self {
            paths: paths.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Whether a read was refused since the last call.
    pub(super) fn take_cut(&mut self) -> bool {
        std::mem::take(&mut self.cut)
    }

    fn file(&mut self, function: Sbdf) -> io::Result<&File> {
        if self.open.as_ref().is_none_or(|(open, _)| *open != function) {
            let path = self.paths.get(&function);
            let path = path.ok_or(io::ErrorKind::NotFound)?;
            self.open = Some((function, File::open(path)?));
        }
        match &self.open {
            Some((_, file)) => Ok(file),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Times `samples` reads of Vendor and Device ID of `function`, and as many
    /// of nothing, behind the end of its file: what a system call takes on its
    /// own.
    ///
    /// # Errors
    ///
    /// If its file cannot be read.
    pub(super) fn time(&mut self, function: Sbdf, samples: usize) -> io::Result<Samples> {
        let file = self.file(function)?;
        let end = file.metadata()?.len().max(u64::from(ConfigOffset::END));
        let mut bytes = [0; 4];
        let mut timed = |offset: u64| -> io::Result<Vec<u64>> {
            let mut all = Vec::with_capacity(samples);
            for _ in 0..samples {
                let began = Instant::now();
                file.read_at(&mut bytes, offset)?;
                all.push(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
            }
            all.sort_unstable();
            Ok(all)
        };
        Ok(Samples {
            reads: timed(u64::from(registers::VENDOR_ID))?,
            calls: timed(end)?,
        })
    }
}

/// Nanoseconds of reads, in ascending order.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples {
    /// Of the reads, with their system calls.
    pub(super) reads: Vec<u64>,
    /// Of system calls that read nothing.
    pub(super) calls: Vec<u64>,
}

/// The value of `sorted` below which `percent` of them are.
#[must_use]
pub(super) fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let last = sorted.len().saturating_sub(1);
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at.min(last)).copied().unwrap_or(0)
}

impl Samples {
    /// The median of a system call alone.
    #[must_use]
    pub(super) fn call(&self) -> u64 {
        percentile(&self.calls, 50)
    }

    /// The median of a read, without its system call.
    #[must_use]
    pub(super) fn median(&self) -> u64 {
        percentile(&self.reads, 50).saturating_sub(self.call())
    }

    /// What 99 of 100 reads take at most, without their system call.
    #[must_use]
    pub(super) fn slow(&self) -> u64 {
        percentile(&self.reads, 99).saturating_sub(self.call())
    }
}

impl ConfigAccess for SysfsConfig {
    fn read(&mut self, function: Sbdf, offset: ConfigOffset, width: Width) -> u32 {
        let mut bytes = [0; 4];
        let size = usize::from(width.bytes());
        let start = offset.index() & !(size - 1);
        let read = self
            .file(function)
            .and_then(|file| file.read_at(&mut bytes[..size], start as u64));
        match read {
            Ok(count) if count == size => u32::from_le_bytes(bytes),
            Ok(_) | Err(_) => {
                self.cut = true;
                width.ones()
            }
        }
    }

    /// Nothing is written, whatever asks for it.
    fn write(&mut self, _: Sbdf, _: ConfigOffset, _: Width, _: u32) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let sorted: Vec<u64> = (1..=200).collect();
        assert_eq!(percentile(&sorted, 50), 100);
        assert_eq!(percentile(&sorted, 99), 198);
        assert_eq!(percentile(&[7], 50), 7);
        assert_eq!(percentile(&[7], 99), 7);
        assert_eq!(percentile(&[], 50), 0);
    }

    #[test]
    fn what_a_system_call_takes_is_no_part_of_a_read() {
        let samples = Samples {
            reads: vec![900, 1000, 5000],
            calls: vec![300, 300, 900],
        };
        assert_eq!(
            (samples.call(), samples.median(), samples.slow()),
            (300, 700, 4700)
        );
        let none = Samples {
            reads: vec![10],
            calls: vec![30],
        };
        assert_eq!(none.median(), 0);
    }
}
