//! Kernels as they come: plain, gzip, or an EFI zboot file around gzip.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};
use warmbus_memory::bytes::{le_u16, le_u32};
use warmbus_memory::crc32;

/// Bytes by which the output grows at first; it doubles from there on.
const FIRST_OUTPUT: usize = 4 << 20;

/// A kernel file, told apart by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelFormat<'a> {
    /// Not packed, or packed in a way that is not known.
    Plain(&'a [u8]),
    /// A gzip file (RFC 1952).
    Gzip(&'a [u8]),
}

impl<'a> KernelFormat<'a> {
    /// Tells what `file` is. An EFI zboot file is taken apart; its payload has
    /// to be gzip.
    pub fn detect(file: &'a [u8]) -> Result<Self, UnpackError> {
        if is_gzip(file) {
            return Ok(Self::Gzip(file));
        }
        if file.starts_with(b"MZ") && file.get(4..8) == Some(b"zimg") {
            return zboot(file);
        }
        Ok(Self::Plain(file))
    }

    /// Fills `start` with the first bytes of the unpacked kernel and returns
    /// how many there are. Enough to read the header, and with it the size,
    /// before memory for the whole is found.
    pub fn peek(&self, start: &mut [u8]) -> Result<usize, UnpackError> {
        match self {
            Self::Plain(file) => {
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

    /// Unpacks into `room` and returns the number of bytes; what is beyond
    /// them is unspecified. Fails if they do not fit or are damaged.
    pub fn unpack_into(&self, room: &mut [u8]) -> Result<usize, UnpackError> {
        match self {
            Self::Plain(file) => {
                let Some(target) = room.get_mut(..file.len()) else {
                    return Err(UnpackError::TooLarge { limit: room.len() });
                };
                target.copy_from_slice(file);
                Ok(file.len())
            }
            Self::Gzip(file) => {
                let body = &file[header_length(file)?..];
                let mut state = Box::<DecompressorOxide>::default();
                let step = inflate(&mut state, body, room, 0)?;
                if !step.done {
                    return Err(UnpackError::TooLarge { limit: room.len() });
                }
                check_trailer(&body[step.consumed..], &room[..step.produced])?;
                Ok(step.produced)
            }
        }
    }

    /// Unpacks into memory of its own, of at most `limit` bytes.
    pub fn unpack(&self, limit: usize) -> Result<Vec<u8>, UnpackError> {
        let file = match self {
            Self::Plain(file) if file.len() > limit => {
                return Err(UnpackError::TooLarge { limit });
            }
            Self::Plain(file) => return Ok(file.to_vec()),
            Self::Gzip(file) => file,
        };
        let body = &file[header_length(file)?..];
        let mut state = Box::<DecompressorOxide>::default();
        let mut output = Vec::new();
        let (mut consumed, mut produced) = (0, 0);
        loop {
            let room = (output.len() * 2).max(FIRST_OUTPUT).min(limit);
            if room == output.len() {
                return Err(UnpackError::TooLarge { limit });
            }
            output.resize(room, 0);
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

fn is_gzip(file: &[u8]) -> bool {
    file.starts_with(&[0x1f, 0x8b])
}

/// The payload of an EFI zboot file: its offset and size stand at 8 and 12,
/// the name of the compression at 24.
fn zboot(file: &[u8]) -> Result<KernelFormat<'_>, UnpackError> {
    let field = |offset| le_u32(file, offset).map(|field| field as usize);
    let name = file.get(24..56).ok_or(UnpackError::Truncated)?;
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    if name != b"gzip" {
        return Err(UnpackError::Compression {
            name: String::from_utf8_lossy(name).into_owned(),
        });
    }
    let payload = field(8)
        .zip(field(12))
        .and_then(|(offset, size)| file.get(offset..offset.checked_add(size)?));
    match payload {
        Some(payload) if is_gzip(payload) => Ok(KernelFormat::Gzip(payload)),
        Some(_) => Err(UnpackError::Corrupt),
        None => Err(UnpackError::Truncated),
    }
}

/// Length of the gzip header (RFC 1952, 2.3), optional fields included.
fn header_length(file: &[u8]) -> Result<usize, UnpackError> {
    const HEADER_CRC: u8 = 2;
    const EXTRA: u8 = 4;
    const NAME: u8 = 8;
    const COMMENT: u8 = 16;
    const RESERVED: u8 = 0xe0;

    let fixed = file.get(..10).ok_or(UnpackError::Truncated)?;
    let (method, flags) = (fixed[2], fixed[3]);
    if method != 8 || flags & RESERVED != 0 {
        return Err(UnpackError::GzipHeader { method, flags });
    }
    let mut length = fixed.len();
    if flags & EXTRA != 0 {
        let size = le_u16(file, length).ok_or(UnpackError::Truncated)?;
        length += 2 + usize::from(size);
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            let rest = file.get(length..).ok_or(UnpackError::Truncated)?;
            length += 1 + memchr::memchr(0, rest).ok_or(UnpackError::Truncated)?;
        }
    }
    if flags & HEADER_CRC != 0 {
        let stored = le_u16(file, length).ok_or(UnpackError::Truncated)?;
        if stored != crc32::checksum(&file[..length]) as u16 {
            return Err(UnpackError::GzipHeader { method, flags });
        }
        length += 2;
    }
    if length > file.len() {
        return Err(UnpackError::Truncated);
    }
    Ok(length)
}

/// What one call of the decompressor did.
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
) -> Result<Step, UnpackError> {
    let flags = inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let (status, consumed, produced) = decompress(state, input, output, start, flags);
    let done = match status {
        TINFLStatus::Done => true,
        TINFLStatus::HasMoreOutput => false,
        TINFLStatus::FailedCannotMakeProgress | TINFLStatus::NeedsMoreInput => {
            return Err(UnpackError::Truncated);
        }
        _ => return Err(UnpackError::Corrupt),
    };
    Ok(Step {
        consumed,
        produced,
        done,
    })
}

/// Checks CRC and size behind the stream. Only zero padding may follow, which
/// loaders that copy whole sectors leave.
fn check_trailer(trailer: &[u8], output: &[u8]) -> Result<(), UnpackError> {
    let fields = (le_u32(trailer, 0), le_u32(trailer, 4), trailer.get(8..));
    let (Some(crc), Some(size), Some(rest)) = fields else {
        return Err(UnpackError::Truncated);
    };
    if size != output.len() as u32 {
        return Err(UnpackError::Size {
            stored: size,
            unpacked: output.len(),
        });
    }
    let computed = crc32::checksum(output);
    if crc != computed {
        return Err(UnpackError::Crc {
            stored: crc,
            computed,
        });
    }
    if rest.iter().any(|byte| *byte != 0) {
        return Err(UnpackError::TrailingData { bytes: rest.len() });
    }
    Ok(())
}

/// Why a packed kernel cannot be unpacked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnpackError {
    /// The file ends too early.
    #[error("the packed kernel is cut off")]
    Truncated,
    /// The compressed data makes no sense.
    #[error("the packed kernel is damaged")]
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
    #[error("the kernel is an EFI zboot file packed with '{name}'; only gzip can be unpacked")]
    Compression {
        /// What the file calls it.
        name: String,
    },
    /// The unpacked kernel is larger than there is room.
    #[error("the unpacked kernel does not fit into the {limit:#x} bytes that there are for it")]
    TooLarge {
        /// Bytes of room.
        limit: usize,
    },
    /// The stored size is another one.
    #[error("the packed kernel should unpack to {stored:#x} bytes but did to {unpacked:#x}")]
    Size {
        /// Size in the file, modulo 2^32.
        stored: u32,
        /// Bytes that came out.
        unpacked: usize,
    },
    /// The stored CRC-32 is another one.
    #[error("the CRC-32 of the unpacked kernel is {computed:#010x} instead of {stored:#010x}")]
    Crc {
        /// CRC in the file.
        stored: u32,
        /// CRC of what came out.
        computed: u32,
    },
    /// Something else follows the compressed kernel.
    #[error("{bytes} bytes of something else follow the packed kernel")]
    TrailingData {
        /// Bytes that follow.
        bytes: usize,
    },
}
