//! A disk with a partition table and one FAT file system.
//!
//! A master boot record and FAT32 are what the boot ROMs of boards and every
//! U-Boot read. The same files make the same bytes.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, Result};
use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions, format_volume};
use fscommon::{BufStream, StreamSlice};

const SECTOR: u32 = 512;
const MIB: u64 = 1 << 20;
/// Where the partition starts: boards keep their boot loaders before it.
const START: u64 = 16 * MIB;
/// FAT32 with one sector a cluster needs 33 MiB, and users some free space.
const LEAST: u64 = 64 * MIB;
/// FAT32 with logical block addresses.
const FAT32_LBA: u8 = 0x0c;
/// The partition that is booted from.
const ACTIVE: u8 = 0x80;
/// Where a sector is that has no cylinder, head and sector.
const BEYOND: [u8; 3] = [0xfe, 0xff, 0xff];
/// Identifies the disk; U-Boot does not read it.
const SIGNATURE: [u8; 4] = *b"WARM";

/// Writes a disk with `files` to `output` and returns its size in bytes.
pub fn write(output: &Path, files: &[super::File]) -> Result<u64> {
    // Under its name only once it is whole.
    let unfinished = output.with_extension("new");
    let size = fill(&unfinished, files)
        .with_context(|| format!("cannot write {}", unfinished.display()))?;
    fs::rename(&unfinished, output)
        .with_context(|| format!("cannot write {}", output.display()))?;
    Ok(size)
}

fn fill(output: &Path, files: &[super::File]) -> Result<u64> {
    let content: u64 = files.iter().map(|file| file.bytes.len() as u64).sum();
    // A quarter more for the file system itself and for changes.
    let partition = (content + content / 4 + 16 * MIB)
        .next_multiple_of(MIB)
        .max(LEAST);
    let size = START + partition;
    let mut disk = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(output)?;
    disk.set_len(size)?;
    disk.write_all(&boot_record(sectors(START)?, sectors(partition)?))?;

    let slice = StreamSlice::new(disk, START, size)?;
    let mut volume = BufStream::new(slice);
    let format = FormatVolumeOptions::new()
        .fat_type(FatType::Fat32)
        .bytes_per_cluster(SECTOR)
        .total_sectors(sectors(partition)?)
        .volume_label(*b"WARMBUS    ");
    format_volume(&mut volume, format)?;
    volume.seek(SeekFrom::Start(0))?;
    let system = FileSystem::new(volume, FsOptions::new())?;
    for file in files {
        let mut entry = system.root_dir().create_file(file.name)?;
        entry.write_all(&file.bytes)?;
        entry.flush()?;
    }
    system.unmount()?;
    Ok(size)
}

/// A master boot record with one active partition, by its first sector and
/// their number: no code, the disk signature at 440, the first entry at 446
/// (boot flag, first sector, type, last sector, and both once more as numbers,
/// which is what everybody reads), and the mark at 510.
fn boot_record(first: u32, count: u32) -> [u8; SECTOR as usize] {
    let mut record = [0; SECTOR as usize];
    record[440..444].copy_from_slice(&SIGNATURE);
    record[446] = ACTIVE;
    record[447..450].copy_from_slice(&BEYOND);
    record[450] = FAT32_LBA;
    record[451..454].copy_from_slice(&BEYOND);
    record[454..458].copy_from_slice(&first.to_le_bytes());
    record[458..462].copy_from_slice(&count.to_le_bytes());
    record[510..].copy_from_slice(&[0x55, 0xaa]);
    record
}

fn sectors(bytes: u64) -> Result<u32> {
    u32::try_from(bytes / u64::from(SECTOR)).context("more than an MBR can describe")
}
