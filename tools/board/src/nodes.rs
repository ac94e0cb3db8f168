//! From tables to the nodes of a flattened device tree.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use warmbus_fdt::FdtWriter;

use crate::error::Error;
use crate::fields::{Fields, join, number};

/// The phandle of the first label. Those of real trees are counted from 1 on,
/// so that what is from here on is a label's.
pub const LABELS: u32 = 0xfff0_0000;

/// Names the phandle of a node; no property.
const LABEL: &str = "label";

/// Writes the nodes of the table `tree`.
pub(crate) fn write(fields: &Fields<'_>) -> Result<Vec<u8>, Error> {
    let mut labels = BTreeMap::new();
    find_labels(fields, &fields.path, fields.table, &mut labels)?;
    let mut writer = Writer {
        fields,
        labels,
        tree: FdtWriter::new(),
    };
    writer.node("", &fields.path, fields.table)?;
    writer.tree.finish().map_err(|error| {
        // Names were checked and all nodes have ended: they are too deep.
        fields.source.error(0, format!("{}: {error}", fields.path))
    })
}

/// Gives each label of `table` and below a number.
fn find_labels<'a>(
    fields: &Fields<'_>,
    path: &str,
    table: &'a DeTable<'_>,
    labels: &mut BTreeMap<&'a str, u32>,
) -> Result<(), Error> {
    for (key, value) in table {
        let here = join(path, key.get_ref());
        match value.get_ref() {
            DeValue::Table(below) => find_labels(fields, &here, below, labels)?,
            DeValue::String(label) if key.get_ref() == LABEL => {
                let next = LABELS + labels.len() as u32;
                if labels.insert(label, next).is_some() {
                    let message = format!("{here}: another node has the label {label:?}");
                    return Err(fields.source.error(value.span().start, message));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

struct Writer<'a> {
    fields: &'a Fields<'a>,
    labels: BTreeMap<&'a str, u32>,
    tree: FdtWriter,
}

impl Writer<'_> {
    fn node(&mut self, name: &str, path: &str, table: &DeTable<'_>) -> Result<(), Error> {
        self.tree.begin_node(name);
        // Properties come before the nodes below (DT 5.4.2).
        for (key, value) in table {
            if !value.get_ref().is_table() {
                self.property(path, key, value)?;
            }
        }
        for (key, value) in table {
            if let Some(below) = value.get_ref().as_table() {
                let here = join(path, key.get_ref());
                if !is_node_name(key.get_ref()) {
                    return Err(self.wrong(key, &here, "is not the name of a node"));
                }
                self.node(key.get_ref(), &here, below)?;
            }
        }
        self.tree.end_node();
        Ok(())
    }

    fn property(
        &mut self,
        path: &str,
        key: &Spanned<std::borrow::Cow<'_, str>>,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<(), Error> {
        let (name, here) = (key.get_ref().as_ref(), join(path, key.get_ref()));
        if !is_property_name(name) {
            return Err(self.wrong(key, &here, "is not the name of a property"));
        }
        let bytes = match value.get_ref() {
            DeValue::String(label) if name == LABEL => {
                let number = self.labels[label.as_ref()];
                self.tree.property_u32("phandle", number);
                return Ok(());
            }
            DeValue::Boolean(true) => Some(Vec::new()),
            DeValue::Integer(_) => self.cell(value.get_ref()),
            DeValue::String(text) if text.starts_with('&') => self.cell(value.get_ref()),
            DeValue::String(text) => string(text),
            DeValue::Array(list) => {
                let values: Vec<_> = list.iter().map(Spanned::get_ref).collect();
                let is_text = |value: &&DeValue<'_>| {
                    value.as_str().is_some_and(|text| !text.starts_with('&'))
                };
                let each: Option<Vec<_>> = if values.iter().any(is_text) {
                    values
                        .into_iter()
                        .map(|value| string(value.as_str()?))
                        .collect()
                } else {
                    values.into_iter().map(|value| self.cell(value)).collect()
                };
                each.map(|each| each.concat())
            }
            _ => None,
        };
        let bytes = bytes.ok_or_else(|| {
            self.wrong(key, &here, "is neither true, a text, a cell of 32 bits, a label that there is nor a list of texts or of cells")
        })?;
        self.tree.property(name, &bytes);
        Ok(())
    }

    /// The bytes of a number or of the node that a label names.
    fn cell(&self, value: &DeValue<'_>) -> Option<Vec<u8>> {
        let cell = match value.as_str() {
            Some(text) => *self.labels.get(text.strip_prefix('&')?)?,
            None => u32::try_from(number(value)?)
                .ok()
                .filter(|cell| !self.is_label(*cell))?,
        };
        Some(cell.to_be_bytes().to_vec())
    }

    /// Whether a cell has the value of a label.
    fn is_label(&self, cell: u32) -> bool {
        self.labels.values().any(|label| *label == cell)
    }

    fn wrong(&self, key: &Spanned<std::borrow::Cow<'_, str>>, path: &str, what: &str) -> Error {
        self.fields
            .source
            .error(key.span().start, format!("{path}: {what}"))
    }
}

/// A text with its NUL.
fn string(text: &str) -> Option<Vec<u8>> {
    let clean = !text.contains('\0');
    clean.then(|| [text.as_bytes(), &[0]].concat())
}

/// DT 2.2.1: 1 to 31 letters, and a unit address.
fn is_node_name(name: &str) -> bool {
    let (base, unit) = name.split_once('@').unwrap_or((name, "0"));
    let fits = |letter: char| letter.is_ascii_alphanumeric() || ",._+-".contains(letter);
    (1..=31).contains(&base.len())
        && base.starts_with(|letter: char| letter.is_ascii_alphabetic())
        && !unit.is_empty()
        && base.chars().chain(unit.chars()).all(fits)
}

/// DT 2.2.4: 1 to 31 letters.
fn is_property_name(name: &str) -> bool {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || ",._+?#-".contains(letter);
    (1..=31).contains(&name.len()) && name.chars().all(fits)
}
