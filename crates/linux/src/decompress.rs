//! Kernel files: uncompressed, gzip, or an EFI zboot file around gzip.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};
use warmbus_memory::bytes::{le_u16, le_u32};
use warmbus_memory::crc32;

/// Bytes by which the output grows at first; it doubles from there on.
const FIRST_OUTPUT: usize = 4 << 20;

/// The format of a kernel file, detected by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelFormat<'a> {
    /// Not compressed, or in a format that is not known.
    Uncompressed(&'a [u8]),
    /// A gzip file (RFC 1952).
    Gzip(&'a [u8]),
}

impl<'a> KernelFormat<'a> {
    /// The format of `file`. Of an EFI zboot file it is that of the payload,
    /// which has to be gzip.
    pub fn detect(file: &'a [u8]) -> Result<Self, DecompressError> {
        if is_gzip(file) {
            return Ok(Self::Gzip(file));
        }
        if is_zboot(file) {
            return zboot(file);
        }
        Ok(Self::Uncompressed(file))
    }

    /// Fills `start` with the first bytes of the decompressed kernel and returns
    /// their number. The header, which has the size in memory, can so be read
    /// before memory is allocated.
    pub fn read_prefix(&self, start: &mut [u8]) -> Result<usize, DecompressError> {
        match self {
            Self::Uncompressed(file) => {
                let count = file.len().min(start.len());
                start[..count].copy_from_slice(&file[..count]);
                Ok(count)
            }
            Self::Gzip(file) => {
                let body = &file[header_length(file)?..];
                let mut state = Box::<DecompressorOxide>::default();
                Ok(inflate(&mut state, body, start, 0)?.produced)
            }
        }
    }

    /// Decompresses into `target` and returns the number of bytes; the content
    /// of `target` after them is unspecified. Fails if they do not fit or are
    /// damaged.
    pub fn decompress_into(&self, target: &mut [u8]) -> Result<usize, DecompressError> {
        match self {
            Self::Uncompressed(file) => {
                let Some(copy) = target.get_mut(..file.len()) else {
                    return Err(DecompressError::TooLarge {
                        limit: target.len(),
                    });
                };
                copy.copy_from_slice(file);
                Ok(file.len())
            }
            Self::Gzip(file) => {
                let body = &file[header_length(file)?..];
                let mut state = Box::<DecompressorOxide>::default();
                let step = inflate(&mut state, body, target, 0)?;
                if !step.done {
                    return Err(DecompressError::TooLarge {
                        limit: target.len(),
                    });
                }
                check_trailer(&body[step.consumed..], &target[..step.produced])?;
                Ok(step.produced)
            }
        }
    }

    /// Decompresses into a vector of at most `limit` bytes.
    pub fn decompress(&self, limit: usize) -> Result<Vec<u8>, DecompressError> {
        let file = match self {
            Self::Uncompressed(file) if file.len() > limit => {
                return Err(DecompressError::TooLarge { limit });
            }
            Self::Uncompressed(file) => return Ok(file.to_vec()),
            Self::Gzip(file) => file,
        };
        let body = &file[header_length(file)?..];
        let mut state = Box::<DecompressorOxide>::default();
        let mut output = Vec::new();
        let (mut consumed, mut produced) = (0, 0);
        loop {
            let capacity = (output.len() * 2).max(FIRST_OUTPUT).min(limit);
            if capacity == output.len() {
                return Err(DecompressError::TooLarge { limit });
            }
            output.resize(capacity, 0);
            let step = inflate(&mut state, &body[consumed..], &mut output, produced)?;
            consumed += step.consumed;
            produced += step.produced;
            if step.done {
                output.truncate(produced);
                check_trailer(&body[consumed..], &output)?;
                return Ok(output);
            }
        }
    }
}

/// Whether `file` is an EFI zboot file, which unpacks itself.
#[must_use]
pub fn is_zboot(file: &[u8]) -> bool {
    file.starts_with(b"MZ") && file.get(4..8) == Some(b"zimg")
}

fn is_gzip(file: &[u8]) -> bool {
    file.starts_with(&[0x1f, 0x8b])
}

/// The payload of an EFI zboot file: its offset and size stand at 8 and 12,
/// the name of the compression at 24.
fn zboot(file: &[u8]) -> Result<KernelFormat<'_>, DecompressError> {
    let field = |offset| le_u32(file, offset).map(|field| field as usize);
    let name = file.get(24..56).ok_or(DecompressError::Truncated)?;
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    if name != b"gzip" {
        return Err(DecompressError::Compression {
            name: String::from_utf8_lossy(name).into_owned(),
        });
    }
    let payload = field(8)
        .zip(field(12))
        .and_then(|(offset, size)| file.get(offset..offset.checked_add(size)?));
    match payload {
        Some(payload) if is_gzip(payload) => Ok(KernelFormat::Gzip(payload)),
        Some(_) => Err(DecompressError::Corrupt),
        None => Err(DecompressError::Truncated),
    }
}

/// Length of the gzip header (RFC 1952, 2.3), optional fields included.
fn header_length(file: &[u8]) -> Result<usize, DecompressError> {
    const HEADER_CRC: u8 = 2;
    const EXTRA: u8 = 4;
    const NAME: u8 = 8;
    const COMMENT: u8 = 16;
    const RESERVED: u8 = 0xe0;

    let fixed = file.get(..10).ok_or(DecompressError::Truncated)?;
    let (method, flags) = (fixed[2], fixed[3]);
    if method != 8 || flags & RESERVED != 0 {
        return Err(DecompressError::GzipHeader { method, flags });
    }
    let mut length = fixed.len();
    if flags & EXTRA != 0 {
        let size = le_u16(file, length).ok_or(DecompressError::Truncated)?;
        length += 2 + usize::from(size);
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            let rest = file.get(length..).ok_or(DecompressError::Truncated)?;
            length += 1 + memchr::memchr(0, rest).ok_or(DecompressError::Truncated)?;
        }
    }
    if flags & HEADER_CRC != 0 {
        let stored = le_u16(file, length).ok_or(DecompressError::Truncated)?;
        if stored != crc32::checksum(&file[..length]) as u16 {
            return Err(DecompressError::GzipHeader { method, flags });
        }
        length += 2;
    }
    if length > file.len() {
        return Err(DecompressError::Truncated);
    }
    Ok(length)
}

/// The result of one call of the decompressor.
struct Step {
    consumed: usize,
    produced: usize,
    /// The stream has ended; otherwise the output is full.
    done: bool,
}

/// Inflates `input` into `output` from `start` on until the stream ends or the
/// output is full.
fn inflate(
    state: &mut DecompressorOxide,
    input: &[u8],
    output: &mut [u8],
    start: usize,
) -> Result<Step, DecompressError> {
    let flags = inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let (status, consumed, produced) = decompress(state, input, output, start, flags);
    let done = match status {
        TINFLStatus::Done => true,
        TINFLStatus::HasMoreOutput => false,
        TINFLStatus::FailedCannotMakeProgress | TINFLStatus::NeedsMoreInput => {
            return Err(DecompressError::Truncated);
        }
        _ => return Err(DecompressError::Corrupt),
    };
    Ok(Step {
        consumed,
        produced,
        done,
    })
}

/// Checks CRC and size behind the stream. Only zero padding may follow, which
/// loaders that copy whole sectors leave.
fn check_trailer(trailer: &[u8], output: &[u8]) -> Result<(), DecompressError> {
    let fields = (le_u32(trailer, 0), le_u32(trailer, 4), trailer.get(8..));
    let (Some(crc), Some(size), Some(rest)) = fields else {
        return Err(DecompressError::Truncated);
    };
    if size != output.len() as u32 {
        return Err(DecompressError::Size {
            stored: size,
            decompressed: output.len(),
        });
    }
    let computed = crc32::checksum(output);
    if crc != computed {
        return Err(DecompressError::Crc {
            stored: crc,
            computed,
        });
    }
    if rest.iter().any(|byte| *byte != 0) {
        return Err(DecompressError::TrailingData { bytes: rest.len() });
    }
    Ok(())
}

/// Why a kernel file cannot be decompressed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecompressError {
    /// The file ends too early.
    #[error("the compressed kernel is cut off")]
    Truncated,
    /// The compressed data is invalid.
    #[error("the compressed kernel is damaged")]
    Corrupt,
    /// The gzip header has a method or flags that do not exist, or its own
    /// check fails.
    #[error(
        "the gzip header of the kernel is damaged or unknown (method {method}, flags {flags:#04x})"
    )]
    GzipHeader {
        /// Compression method; 8 is the only one.
        method: u8,
        /// Flags.
        flags: u8,
    },
    /// An EFI zboot file with another compression than gzip.
    #[error("the kernel is an EFI zboot file compressed with '{name}'; only gzip is supported")]
    Compression {
        /// Its name in the file.
        name: String,
    },
    /// The decompressed kernel is larger than the memory for it.
    #[error("the decompressed kernel does not fit into the {limit:#x} bytes of memory for it")]
    TooLarge {
        /// Bytes of that memory.
        limit: usize,
    },
    /// The stored size does not match.
    #[error("the decompressed kernel has {decompressed:#x} bytes instead of {stored:#x}")]
    Size {
        /// Size in the file, modulo 2^32.
        stored: u32,
        /// Bytes of the decompressed kernel.
        decompressed: usize,
    },
    /// The stored CRC-32 does not match.
    #[error("the CRC-32 of the decompressed kernel is {computed:#010x} instead of {stored:#010x}")]
    Crc {
        /// CRC in the file.
        stored: u32,
        /// CRC of the decompressed kernel.
        computed: u32,
    },
    /// Bytes other than padding follow the compressed kernel.
    #[error("{bytes} bytes that are no padding follow the compressed kernel")]
    TrailingData {
        /// Bytes that follow.
        bytes: usize,
    },
}
