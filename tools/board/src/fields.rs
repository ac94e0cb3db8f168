//! Taking the keys of a table one by one, so that what is left is unknown.

use std::collections::BTreeSet;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{Error, Source};

/// A table whose keys are being taken.
pub(crate) struct Fields<'a> {
    pub(crate) source: Source<'a>,
    /// The key of the table itself, empty for the whole file.
    pub(crate) path: String,
    pub(crate) table: &'a DeTable<'a>,
    taken: BTreeSet<&'static str>,
}

/// The key `key` below `path`.
pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// The number that a TOML integer is, if it is from 0 to 2^63 - 1.
pub(crate) fn number(value: &DeValue<'_>) -> Option<u64> {
    let integer = value.as_integer()?;
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

impl<'a> Fields<'a> {
    pub(crate) fn new(source: Source<'a>, path: &str, table: &'a DeTable<'a>) -> Self {
        Self {
            source,
            path: path.to_owned(),
            table,
            taken: BTreeSet::new(),
        }
    }

    fn take(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.taken.insert(key);
        self.table.get(key)
    }

    /// The table `key`.
    pub(crate) fn table(&mut self, key: &'static str) -> Result<Option<Fields<'a>>, Error> {
        let Some(value) = self.take(key) else {
            return Ok(None);
        };
        let table = value.get_ref().as_table();
        let table = table.ok_or_else(|| self.wrong(key, "is not a table"))?;
        Ok(Some(Fields::new(
            self.source,
            &join(&self.path, key),
            table,
        )))
    }

    /// The text `key`.
    pub(crate) fn text(&mut self, key: &'static str) -> Result<Option<String>, Error> {
        let Some(value) = self.take(key) else {
            return Ok(None);
        };
        let text = value.get_ref().as_str();
        let text = text.ok_or_else(|| self.wrong(key, "is not a text"))?;
        Ok(Some(text.to_owned()))
    }

    /// The list of texts `key`; empty where there is none.
    pub(crate) fn texts(&mut self, key: &'static str) -> Result<Vec<String>, Error> {
        let Some(value) = self.take(key) else {
            return Ok(Vec::new());
        };
        let list = value.get_ref().as_array();
        let texts = list.map(|list| list.iter().map(|entry| entry.get_ref().as_str()));
        let texts: Option<Vec<_>> = texts.and_then(Iterator::collect);
        let texts = texts.ok_or_else(|| self.wrong(key, "is not a list of texts"))?;
        Ok(texts.into_iter().map(str::to_owned).collect())
    }

    /// The number `key`.
    pub(crate) fn number(&mut self, key: &'static str) -> Result<Option<u64>, Error> {
        let Some(value) = self.take(key) else {
            return Ok(None);
        };
        let number = number(value.get_ref());
        let number = number.ok_or_else(|| self.wrong(key, "is not a number from 0 on"))?;
        Ok(Some(number))
    }

    /// The command line `key`, empty if there is none. `fault` returns the fault
    /// of a parameter.
    pub(crate) fn command_line(
        &mut self,
        key: &'static str,
        fault: impl Fn(&str) -> Option<String>,
    ) -> Result<String, Error> {
        let line = self.text(key)?.unwrap_or_default();
        // Boot scripts quote it with these, and others would end the line.
        if let Some(letter) = line
            .chars()
            .find(|letter| !(' '..='~').contains(letter) || "'\\".contains(*letter))
        {
            return Err(self.wrong(key, &format!("contains {letter:?}")));
        }
        match line.split_whitespace().find_map(fault) {
            Some(fault) => Err(self.wrong(key, &format!("is not valid: {fault}"))),
            None => Ok(line),
        }
    }

    /// Rejects unknown keys.
    pub(crate) fn finish(self) -> Result<(), Error> {
        let unknown = self
            .table
            .keys()
            .find(|key| !self.taken.contains(key.get_ref().as_ref()));
        match unknown {
            None => Ok(()),
            Some(key) => Err(self.source.error(
                key.span().start,
                format!("{}: there is no such key", join(&self.path, key.get_ref())),
            )),
        }
    }

    /// What is wrong with `key`.
    pub(crate) fn wrong(&self, key: &str, what: &str) -> Error {
        let place = self.table.get_key_value(key);
        let at = place.map_or(0, |(key, _)| key.span().start);
        self.source
            .error(at, format!("{}: {what}", join(&self.path, key)))
    }

    /// There is no `key`.
    pub(crate) fn missing(&self, key: &str) -> Error {
        self.wrong(key, "is missing")
    }
}
