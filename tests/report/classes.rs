//! The names of classes, held against those that `lspci` knows.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use warmbus_boot::report::names;
use warmbus_pci::{HexDump, Sbdf};

use super::lspci::{by_function, lspci};

/// What `lspci` calls every sub-class of the base classes `0..=last_base`.
fn names_of_lspci(last_base: u8) -> Vec<(u16, String)> {
    let sub_classes = 0..=((u16::from(last_base) << 8) | 0xff);
    let sbdf = |class: u16| Sbdf::from_routing_id(0, class).to_string();
    let mut dump = String::new();
    for class in sub_classes.clone() {
        let [sub, base] = class.to_le_bytes();
        let mut bytes = [0; 64];
        bytes[..4].copy_from_slice(&[0xf4, 0x1a, 1, 0]);
        bytes[10..12].copy_from_slice(&[sub, base]);
        writeln!(dump, "{} x", sbdf(class)).expect("a string takes it");
        dump += &HexDump(&bytes).to_string();
        dump += "\n";
    }
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("classes.txt");
    fs::write(&path, dump).expect("the scratch folder is writable");
    let printed = by_function(&lspci(&path, &["-D", "-mm"]).replace('\n', "\n\n"));
    sub_classes
        .map(|class| {
            let text = &printed[&sbdf(class)];
            let name = text.split('"').nth(1).expect(text);
            (class, name.to_owned())
        })
        .collect()
}

/// The words of a name that mean something.
fn words(name: &str) -> Vec<String> {
    name.split(|c: char| !c.is_alphanumeric())
        .map(str::to_lowercase)
        .filter(|word| !["", "controller", "device", "bridge"].contains(&word.as_str()))
        .collect()
}

#[test]
fn a_class_with_a_name_of_its_own_has_a_like_one_in_lspci() {
    let mut named = 0;
    for (class, theirs) in names_of_lspci(0x13) {
        let of_class = |class: u16| names::class(u32::from(class) << 8);
        // No base class defines sub-class ff: its name is that of the base class.
        let ours = of_class(class);
        if ours == of_class(class | 0xff) {
            continue;
        }
        assert!(
            words(ours).iter().any(|word| words(&theirs).contains(word)),
            "class {class:04x} is {ours:?} here and {theirs:?} in lspci"
        );
        named += 1;
    }
    assert!(named > 80, "only {named} classes have a name");
}
