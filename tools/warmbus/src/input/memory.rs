//! Physical memory in a file: a raw image, or an ELF core file as QEMU's
//! `dump-guest-memory` and kdump write it.

use anyhow::{Context, Result, ensure};
use object::elf;
use object::read::elf::{FileHeader, ProgramHeader};

/// Whether `bytes` start as an ELF file does.
pub(super) fn is_elf(bytes: &[u8]) -> bool {
    bytes.starts_with(&elf::ELFMAG)
}

/// A run of physical memory and where it is in the file.
#[derive(Clone, Copy, Debug)]
struct Segment {
    address: u64,
    offset: usize,
    size: usize,
}

/// Physical memory.
#[derive(Clone, Debug)]
pub(super) struct Memory<'a> {
    file: &'a [u8],
    segments: Vec<Segment>,
}

impl<'a> Memory<'a> {
    /// The bytes of a raw image, the first of which is at `base`.
    pub(super) fn raw(file: &'a [u8], base: u64) -> Result<Self> {
        ensure!(
            base.checked_add(file.len() as u64).is_some(),
            "{} bytes from {base:#x} on lead out of the address space",
            file.len()
        );
        Ok(Self {
            file,
            segments: vec![Segment {
                address: base,
                offset: 0,
                size: file.len(),
            }],
        })
    }

    /// The loadable segments of an ELF core file.
    pub(super) fn elf(file: &'a [u8]) -> Result<Self> {
        type Header = elf::FileHeader64<object::Endianness>;
        let header = Header::parse(file).context("byte 0x0: no 64-bit ELF header")?;
        let endian = header.endian().context("byte 0x5: the byte order")?;
        let programs = header
            .program_headers(endian, file)
            .context("byte 0x20: the program headers")?;
        let mut segments = Vec::new();
        for (index, program) in programs.iter().enumerate() {
            if program.p_type(endian) != elf::PT_LOAD {
                continue;
            }
            let (offset, size) = program.file_range(endian);
            let end = offset.checked_add(size);
            ensure!(
                end.is_some_and(|end| end <= file.len() as u64),
                "program header {index}: {size} bytes from byte {offset:#x} on lead out of the file of {} bytes",
                file.len()
            );
            let address = program.p_paddr(endian);
            ensure!(
                address.checked_add(size).is_some(),
                "program header {index}: {size} bytes at {address:#x} lead out of the address space"
            );
            segments.push(Segment {
                address,
                offset: offset as usize,
                size: size as usize,
            });
        }
        ensure!(!segments.is_empty(), "the ELF file has no memory in it");
        Ok(Self { file, segments })
    }

    /// The `size` bytes at `address`.
    pub(super) fn get(&self, address: u64, size: usize) -> Result<&'a [u8]> {
        self.from(address)
            .and_then(|rest| rest.get(..size))
            .with_context(|| {
                format!("{size} bytes at {address:#x} are not in the file, which has {self}")
            })
    }

    /// All bytes from `address` to the end of its segment.
    pub(super) fn from(&self, address: u64) -> Option<&'a [u8]> {
        self.segments.iter().find_map(|segment| {
            let distance = usize::try_from(address.checked_sub(segment.address)?).ok()?;
            let rest = self.file[segment.offset..segment.offset + segment.size].get(distance..)?;
            (!rest.is_empty()).then_some(rest)
        })
    }

    /// `address` and its byte of the file, for messages.
    pub(super) fn place(&self, address: u64) -> String {
        let found = self.segments.iter().find_map(|segment| {
            let distance = usize::try_from(address.checked_sub(segment.address)?).ok()?;
            (distance < segment.size).then_some(segment.offset + distance)
        });
        match found {
            Some(byte) => format!("byte {byte:#x} (address {address:#x})"),
            None => format!("address {address:#x}"),
        }
    }

    /// The addresses of all pages of 4 KiB that start with `magic`.
    pub(super) fn pages_with(&self, magic: [u8; 4]) -> Vec<u64> {
        let mut found = Vec::new();
        for segment in &self.segments {
            let bytes = &self.file[segment.offset..segment.offset + segment.size];
            let first = segment.address.next_multiple_of(0x1000) - segment.address;
            let pages = (first as usize..bytes.len()).step_by(0x1000);
            found.extend(
                pages
                    .filter(|&at| bytes[at..].starts_with(&magic))
                    .map(|at| segment.address + at as u64),
            );
        }
        found
    }
}

impl std::fmt::Display for Memory<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, segment) in self.segments.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            let end = segment.address + segment.size as u64;
            write!(f, "{comma}{:#x} to {end:#x}", segment.address)?;
        }
        Ok(())
    }
}
