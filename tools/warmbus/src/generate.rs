//! Man pages and completions, from the command line itself.

use std::path::Path;

use anyhow::{Context, Result};
use clap::{CommandFactory, ValueEnum};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::command::Command;

/// What `generate` writes.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Generated {
    /// Man pages, one for each command
    Man,
    Bash,
    Elvish,
    Fish,
    Zsh,
}

impl Generated {
    const fn shell(self) -> Option<Shell> {
        match self {
            Self::Man => None,
            Self::Bash => Some(Shell::Bash),
            Self::Elvish => Some(Shell::Elvish),
            Self::Fish => Some(Shell::Fish),
            Self::Zsh => Some(Shell::Zsh),
        }
    }

    /// The text, or nothing where it was written to `output`.
    pub(crate) fn write(self, output: Option<&Path>) -> Result<String> {
        let mut command = Command::command();
        let mut bytes = Vec::new();
        match (self.shell(), output) {
            (Some(shell), _) => {
                clap_complete::generate(shell, &mut command, "warmbus", &mut bytes);
            }
            (None, None) => Man::new(command).render(&mut bytes)?,
            (None, Some(folder)) => clap_mangen::generate_to(command, folder)
                .with_context(|| format!("cannot write to {}", folder.display()))?,
        }
        String::from_utf8(bytes).context("what was generated is no text")
    }
}
