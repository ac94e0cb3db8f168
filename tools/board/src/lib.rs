//! Reads board descriptions, `boards/<name>/board.toml`.
//!
//! The firmware contains the result, so that it does not have to read TOML.
//! `boards/README.md` documents the format.

mod error;
mod fields;
mod nodes;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

pub use error::Error;
pub use nodes::LABELS;

use error::Source;
use fields::Fields;

/// A board description.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Board {
    /// The name of the board.
    pub name: String,
    /// Entries of the root `compatible` of its device tree, each of which
    /// names it.
    pub compatible: Vec<String>,
    /// Parameters for Warmbus, ahead of those of the command line.
    pub options: String,
    /// How to make an image for its U-Boot, if it has one.
    pub image: Option<Image>,
    /// Additions to its device tree, as a flattened device tree. Cells from
    /// [`LABELS`] on stand for the node with that phandle.
    pub additions: Option<Vec<u8>>,
}

/// The properties of a board that an image for U-Boot needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// The kernel command line.
    pub bootargs: String,
    /// The start of free memory; `None` for the value of U-Boot's
    /// `kernel_addr_r`.
    pub load_address: Option<u64>,
}

impl Board {
    /// Reads the text of a description; `file` is what errors call it.
    pub fn parse(file: &str, text: &str) -> Result<Self, Error> {
        let source = Source { file, text };
        let table = toml::de::DeTable::parse(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            source.error(at, error.message())
        })?;
        let mut fields = Fields::new(source, "", table.get_ref());
        let board = Self {
            name: fields.text("name")?.ok_or_else(|| fields.missing("name"))?,
            compatible: fields.texts("compatible")?,
            options: fields.command_line("options", |parameter| {
                let ours = parameter.starts_with("warmbus.");
                (!ours).then(|| format!("the parameter {parameter:?} is not for Warmbus"))
            })?,
            image: fields.table("image")?.map(Image::read).transpose()?,
            additions: fields
                .table("tree")?
                .as_ref()
                .map(nodes::write)
                .transpose()?,
        };
        fields.finish()?;
        Ok(board)
    }
}

impl Image {
    fn read(mut fields: Fields<'_>) -> Result<Self, Error> {
        let loader = fields.text("loader")?;
        if loader.as_deref() != Some("u-boot") {
            return Err(fields.wrong("loader", "is not \"u-boot\", the only one that there is"));
        }
        let image = Self {
            bootargs: fields.command_line("bootargs", |_| None)?,
            load_address: fields.number("load-address")?,
        };
        if image.load_address.is_some_and(|at| at % (2 << 20) != 0) {
            return Err(fields.wrong("load-address", "is not a multiple of 2 MiB"));
        }
        fields.finish()?;
        Ok(image)
    }
}

/// The boards in `directory`, by the names of their folders. Folders without a
/// `board.toml` are no boards. Fails where two boards have the same
/// `compatible`.
pub fn all(directory: &Path) -> Result<BTreeMap<String, Board>, Error> {
    let unreadable = |path: &Path, error: std::io::Error| Error {
        file: path.display().to_string(),
        line: None,
        message: format!("cannot be read: {error}"),
    };
    let mut boards: BTreeMap<String, Board> = BTreeMap::new();
    let entries = fs::read_dir(directory).map_err(|error| unreadable(directory, error))?;
    let mut folders = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unreadable(directory, error))?;
    folders.sort();
    for folder in folders {
        let file = folder.join("board.toml");
        let Some(name) = folder.file_name().filter(|_| file.is_file()) else {
            continue;
        };
        let name = name.to_string_lossy().into_owned();
        let text = fs::read_to_string(&file).map_err(|error| unreadable(&file, error))?;
        let board = Board::parse(&file.display().to_string(), &text)?;
        let shared = boards.iter().find_map(|(other, known)| {
            let same = |entry: &&String| known.compatible.contains(*entry);
            Some((other, board.compatible.iter().find(same)?))
        });
        if let Some((other, entry)) = shared {
            return Err(Error {
                file: file.display().to_string(),
                line: None,
                message: format!("compatible: {entry:?} is already the board {other}"),
            });
        }
        boards.insert(name, board);
    }
    Ok(boards)
}
