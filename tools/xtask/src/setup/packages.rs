//! How packages get here: installed if that leaves alone what is installed, and
//! else unpacked into the private folder.

use anyhow::Result;

use super::Private;
use super::apt::{self, Apt};
use crate::debian::Archive;

/// The ways to get packages on this machine.
pub(super) struct Packages {
    /// For the whole system, where that is allowed.
    apt: Option<Apt>,
    /// For the private folder, once it was asked.
    archive: Option<Archive>,
    private: Private,
    /// What went wrong, a line each.
    pub(super) problems: Vec<String>,
}

impl Packages {
    /// Fetches apt's lists, where packages may be installed.
    pub(super) fn find() -> Self {
        let apt = Apt::find();
        // What is in the lists that were fetched earlier, or in those that
        // could be fetched now, may do.
        if let Some(Err(error)) = apt.as_ref().map(Apt::update) {
            eprintln!("apt cannot fetch all its lists: {}", reason(&error));
        }
        Self {
            apt,
            archive: None,
            private: Private::here(),
            problems: Vec::new(),
        }
    }

    /// The versions of `package` that there are to get, newest first.
    pub(super) fn versions(&mut self, package: &str) -> Result<Vec<String>> {
        match &self.apt {
            Some(_) => apt::versions(package),
            None => Ok(apt::parse_madison(&self.archive()?.versions(package)?)),
        }
    }

    fn archive(&mut self) -> Result<&Archive> {
        let archive = match self.archive.take() {
            Some(archive) => archive,
            None => self.private.archive()?,
        };
        Ok(self.archive.insert(archive))
    }

    /// Gets `packages`, as far as they can be had.
    pub(super) fn get(&mut self, packages: Vec<String>) {
        let mut rest = packages;
        if let Some(apt) = &self.apt {
            let (installable, others) = apt.split(rest);
            rest = others;
            if !rest.is_empty() {
                eprintln!(
                    "unpacked instead of installed, which would remove or downgrade others: {}",
                    rest.join(", ")
                );
            }
            if !installable.is_empty()
                && let Err(error) = apt.install(&installable)
            {
                eprintln!("unpacked instead of installed: {}", reason(&error));
                rest.extend(installable);
            }
        }
        if !rest.is_empty()
            && let Err(error) = self.unpack(&rest)
        {
            self.problems.push(reason(&error));
        }
    }

    fn unpack(&mut self, packages: &[String]) -> Result<()> {
        let archive = self.archive()?;
        let mut known = Vec::new();
        let mut unknown = Vec::new();
        for package in packages {
            let name = package.split('=').next().unwrap_or(package);
            let is_offered = !archive.versions(name)?.trim().is_empty();
            let list = if is_offered { &mut known } else { &mut unknown };
            list.push(package.clone());
        }
        if !known.is_empty() {
            let private = self.private.clone();
            private.install(self.archive()?, &known)?;
        }
        let unknown = unknown.iter().map(|name| format!("apt offers no {name}"));
        self.problems.extend(unknown);
        Ok(())
    }
}

/// What apt says is wrong, or else the first line of `error`, on one line.
fn reason(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let said: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("E: "))
        .collect();
    if said.is_empty() {
        return text.lines().next().unwrap_or_default().to_owned();
    }
    said.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_apt_says_is_wrong_is_one_line() {
        let error = anyhow::anyhow!(
            "apt-get install failed (exit status: 100):\nReading package lists...\n\
             E: Unable to correct problems, you have held broken packages."
        );
        assert_eq!(
            reason(&error),
            "E: Unable to correct problems, you have held broken packages."
        );
        assert_eq!(reason(&anyhow::anyhow!("no apt-get\nmore")), "no apt-get");
    }
}
