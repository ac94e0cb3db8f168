//! What is wrong with a description, and where.

use std::fmt;

/// Why a description cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The file.
    pub file: String,
    /// The line, from 1 on, where one is to blame.
    pub line: Option<usize>,
    /// A sentence that starts with the key.
    pub message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.message),
            None => write!(f, "{}: {}", self.file, self.message),
        }
    }
}

impl std::error::Error for Error {}

/// A description and what it is called.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) file: &'a str,
    pub(crate) text: &'a str,
}

impl Source<'_> {
    /// An error at the byte `at` of the text.
    pub(crate) fn error(self, at: usize, message: impl Into<String>) -> Error {
        let before = self.text.as_bytes().iter().take(at);
        Error {
            file: self.file.to_owned(),
            line: Some(1 + before.filter(|byte| **byte == b'\n').count()),
            message: message.into(),
        }
    }
}
