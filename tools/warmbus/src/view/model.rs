//! What the script of the page reads. Functions that are alike share what is
//! large.

use std::collections::BTreeMap;

use serde::Serialize;

/// Names and values, in their order.
pub(super) type Facts = Vec<(String, String)>;

/// The whole page.
#[derive(Debug, Default, Serialize)]
pub(super) struct Page {
    pub(super) title: String,
    pub(super) facts: Facts,
    pub(super) hosts: Vec<Host>,
    pub(super) functions: Vec<Function>,
    pub(super) spaces: Vec<Space>,
    pub(super) layouts: Table<Vec<usize>>,
    pub(super) classes: Table<Vec<usize>>,
    pub(super) known: Table<Vec<usize>>,
    pub(super) names: Table<String>,
    pub(super) scales: Vec<Scale>,
    pub(super) phases: Vec<Amount>,
    pub(super) amounts: Vec<Amount>,
    pub(super) tables: Vec<Listing>,
    pub(super) anomalies: Vec<String>,
}

/// Values that are used often, each once.
#[derive(Debug)]
pub(super) struct Table<T> {
    values: Vec<T>,
    places: BTreeMap<T, usize>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            values: Vec::new(),
            places: BTreeMap::new(),
        }
    }
}

impl<T: Ord + Clone> Table<T> {
    /// The place of `value`.
    pub(super) fn intern(&mut self, value: T) -> usize {
        if let Some(&place) = self.places.get(&value) {
            return place;
        }
        let place = self.values.len();
        self.values.push(value.clone());
        self.places.insert(value, place);
        place
    }
}

impl<T: Serialize> Serialize for Table<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.values.serialize(serializer)
    }
}

/// A host bridge.
#[derive(Debug, Serialize)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) facts: Facts,
}

/// A function. Addresses are hexadecimal texts: a number of JavaScript has 53
/// bits.
#[derive(Debug, Default, Serialize)]
pub(super) struct Function {
    pub(super) sbdf: String,
    pub(super) parent: Option<String>,
    /// The physical function of a virtual one.
    pub(super) physical: Option<String>,
    pub(super) host: usize,
    pub(super) vendor: String,
    pub(super) device: String,
    pub(super) name: String,
    pub(super) kind: Option<String>,
    /// What stands beside it in the hierarchy.
    pub(super) note: String,
    pub(super) facts: Facts,
    pub(super) bars: Vec<Bar>,
    pub(super) windows: Vec<Window>,
    pub(super) anomalies: Vec<String>,
    /// The number of its configuration space.
    pub(super) space: Option<usize>,
}

#[derive(Debug, Serialize)]
pub(super) struct Bar {
    pub(super) index: u8,
    pub(super) kind: String,
    pub(super) address: Option<String>,
    pub(super) size: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Window {
    pub(super) kind: &'static str,
    pub(super) base: String,
    pub(super) limit: String,
}

/// The configuration space of a function.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Space {
    pub(super) size: usize,
    /// Offsets, and the bytes from there on in hexadecimal; others are 0.
    pub(super) data: Vec<Piece>,
    /// In [`Page::layouts`]: offset, length and name of each register.
    pub(super) layout: usize,
    /// In [`Page::classes`]: length and class of each run.
    pub(super) class_runs: usize,
    /// In [`Page::known`]: start and end of what is known.
    pub(super) known_runs: usize,
}

/// An offset, or bytes.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Piece {
    Offset(usize),
    Bytes(String),
}

/// A range of addresses in which BARs and windows are drawn.
#[derive(Debug, Serialize)]
pub(super) struct Scale {
    pub(super) name: String,
    pub(super) host: usize,
    /// It is a window of the host bridge, and not a whole address space.
    pub(super) window: bool,
    /// `io` or `mem`.
    pub(super) space: &'static str,
    pub(super) base: String,
    pub(super) limit: String,
}

/// A number that is drawn as a bar, with a part of it that differs.
#[derive(Debug, Serialize)]
pub(super) struct Amount {
    pub(super) name: String,
    pub(super) value: u64,
    pub(super) part: u64,
}

/// A table.
#[derive(Debug, Serialize)]
pub(super) struct Listing {
    pub(super) title: String,
    pub(super) heads: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

/// `value` in hexadecimal.
pub(super) fn hex(value: u64) -> String {
    format!("{value:#x}")
}

/// A fact.
#[expect(
    clippy::needless_pass_by_value,
    reason = "callers pass what they have made for it"
)]
pub(super) fn fact(name: &str, value: impl ToString) -> (String, String) {
    (name.to_owned(), value.to_string())
}
