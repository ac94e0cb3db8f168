//! The format in which dpkg keeps what it knows of packages: stanzas of fields.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::process;

/// The value of a field of a stanza.
pub(super) fn field<'a>(stanza: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = stanza.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// What of a status of dpkg is installed, without what it needs and what it
/// cannot stand beside it: that is settled there, and nothing is installed now.
pub(super) fn installed(status: &str) -> String {
    let kept = [
        "Package",
        "Status",
        "Architecture",
        "Multi-Arch",
        "Version",
        "Provides",
        "Essential",
    ];
    let stanzas = status.split("\n\n").filter(|stanza| {
        field(stanza, "Status").is_some_and(|status| status.ends_with(" ok installed"))
    });
    let texts = stanzas.map(|stanza| {
        let lines = kept.iter().filter_map(|name| {
            let value = field(stanza, name)?;
            Some(format!("{name}: {value}\n"))
        });
        lines.chain(["\n".to_owned()]).collect::<String>()
    });
    texts.collect()
}

/// The same for a package that is a file.
pub(super) fn stanza(file: &Path) -> Result<String> {
    let mut command = Command::new("dpkg-deb");
    let fields = process::output(command.arg("--field").arg(file))?;
    let stanza = installed(&format!("Status: install ok installed\n{fields}"));
    if stanza.is_empty() {
        bail!("{} is no package", file.display());
    }
    Ok(stanza)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_installed_counts_and_it_stands_in_nobodys_way() {
        let status = "Package: a\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n\
            Depends: b\nBreaks: c (<< 2)\nDescription: x\n more\n\n\
            Package: b\nStatus: deinstall ok config-files\nVersion: 1\n\n\
            Package: c\nStatus: hold ok installed\nVersion: 3\nProvides: d\n\n";
        assert_eq!(
            installed(status),
            "Package: a\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n\n\
             Package: c\nStatus: hold ok installed\nVersion: 3\nProvides: d\n\n"
        );
        assert_eq!(installed(""), "");
    }
}
