//! Writing a device tree from nothing.

use alloc::vec::Vec;

use crate::{FdtError, HEADER_SIZE, MAX_DEPTH, write};

/// Writes a flattened device tree, node by node.
///
/// A mistake, such as a node that does not end, is kept until
/// [`FdtWriter::finish`], which returns the first one.
///
/// ```
/// use warmbus_fdt::FdtWriter;
///
/// let mut tree = FdtWriter::new();
/// tree.begin_node("");
/// tree.property_u32("#address-cells", 2);
/// tree.begin_node("chosen");
/// tree.property_string("bootargs", "quiet");
/// tree.end_node();
/// tree.end_node();
/// assert!(tree.finish()?.starts_with(&[0xd0, 0x0d, 0xfe, 0xed]));
/// # Ok::<(), warmbus_fdt::FdtError>(())
/// ```
#[derive(Clone, Debug)]
pub struct FdtWriter {
    /// The header, an empty memory reservation block, and the structure block
    /// as far as it has come.
    tree: Vec<u8>,
    strings: Vec<u8>,
    /// Nodes that have begun and not ended.
    depth: usize,
    /// What the next token may be.
    place: Place,
    failure: Option<FdtError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Before the root node.
    Start,
    /// In a node without children so far.
    Properties,
    /// In a node, after one of its children.
    Children,
    /// After the root node.
    End,
}

impl Default for FdtWriter {
    fn default() -> Self {
        Self::new()
    }
}

impl FdtWriter {
    /// A tree without memory reservations and, so far, without nodes.
    #[must_use]
    pub fn new() -> Self {
        Self {
            tree: alloc::vec![0; HEADER_SIZE + write::NO_RESERVATIONS.len()],
            strings: Vec::new(),
            depth: 0,
            place: Place::Start,
            failure: None,
        }
    }

    /// Begins a node in the one that was begun last and did not end; the root
    /// node, which has no name, if there is none.
    pub fn begin_node(&mut self, name: &str) {
        self.check(self.place != Place::End, FdtError::Order);
        if self.depth >= MAX_DEPTH {
            let error = self.too_deep();
            self.check(false, error);
        }
        self.check(!name.contains('\0'), FdtError::Nul);
        write::begin(&mut self.tree, name);
        self.depth += 1;
        self.place = Place::Properties;
    }

    /// Ends the node that was begun last.
    pub fn end_node(&mut self) {
        self.check(self.depth > 0, FdtError::Order);
        write::end(&mut self.tree);
        self.depth = self.depth.saturating_sub(1);
        self.place = if self.depth == 0 {
            Place::End
        } else {
            Place::Children
        };
    }

    /// Adds a property to the node that was begun last. Properties come before
    /// the nodes in a node (DT 5.4.2).
    pub fn property(&mut self, name: &str, value: &[u8]) {
        self.check(self.place == Place::Properties, FdtError::Order);
        self.check(!name.contains('\0'), FdtError::Nul);
        self.check(u32::try_from(value.len()).is_ok(), FdtError::TooLarge);
        let name = self.intern(name);
        write::property(&mut self.tree, name, value);
    }

    /// Adds a property of one cell.
    pub fn property_u32(&mut self, name: &str, value: u32) {
        self.property(name, &value.to_be_bytes());
    }

    /// Adds a property of two cells.
    pub fn property_u64(&mut self, name: &str, value: u64) {
        self.property(name, &value.to_be_bytes());
    }

    /// Adds a property of one text.
    pub fn property_string(&mut self, name: &str, value: &str) {
        self.property_strings(name, &[value]);
    }

    /// Adds a property of several texts.
    pub fn property_strings(&mut self, name: &str, values: &[&str]) {
        let mut bytes = Vec::new();
        for value in values {
            self.check(!value.contains('\0'), FdtError::Nul);
            bytes.extend_from_slice(value.as_bytes());
            bytes.push(0);
        }
        self.property(name, &bytes);
    }

    /// The tree, with its header.
    ///
    /// # Errors
    ///
    /// The first fault of the calls that made the tree: a node or property
    /// where none may be, a name or string that cannot be written, or a tree
    /// that is too large for its header.
    pub fn finish(mut self) -> Result<Vec<u8>, FdtError> {
        self.check(self.place == Place::End, FdtError::Order);
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        write::finish(&mut self.tree);
        let structure = HEADER_SIZE + write::NO_RESERVATIONS.len();
        let header = write::header(structure, self.tree.len(), self.strings.len(), 0)?;
        self.tree[..HEADER_SIZE].copy_from_slice(&header);
        self.tree.append(&mut self.strings);
        Ok(self.tree)
    }

    /// The offset of `name` in the strings block, where it is added once.
    fn intern(&mut self, name: &str) -> u32 {
        let mut offset = 0;
        for known in self.strings.split(|byte| *byte == 0) {
            // What follows the last NUL is no name.
            if known == name.as_bytes() && offset < self.strings.len() {
                return offset as u32;
            }
            offset += known.len() + 1;
        }
        let offset = self.strings.len();
        self.strings.extend_from_slice(name.as_bytes());
        self.strings.push(0);
        offset as u32
    }

    fn too_deep(&self) -> FdtError {
        let place = alloc::format!("offset {:#x}", self.tree.len());
        FdtError::TooDeep { place }
    }

    fn check(&mut self, holds: bool, failure: FdtError) {
        if !holds && self.failure.is_none() {
            self.failure = Some(failure);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::{String, ToString};
    use proptest::prelude::*;

    /// A node: its properties by the number of their name, and its children.
    #[derive(Clone, Debug)]
    struct Node {
        properties: Vec<(u8, Vec<u8>)>,
        children: Vec<Node>,
    }

    fn nodes() -> impl Strategy<Value = Node> {
        let value = prop::collection::vec(any::<u8>(), 0..9);
        let properties = prop::collection::vec((0_u8..6, value), 0..5).boxed();
        let leaf = properties.clone().prop_map(|properties| Node {
            properties,
            children: Vec::new(),
        });
        leaf.prop_recursive(5, 24, 4, move |inner| {
            let children = prop::collection::vec(inner, 0..4);
            (properties.clone(), children).prop_map(|(properties, children)| Node {
                properties,
                children,
            })
        })
    }

    const NAMES: [&str; 6] = ["a", "aa", "reg", "#cells", "ranges", "g"];

    fn write(tree: &mut FdtWriter, name: &str, node: &Node) {
        tree.begin_node(name);
        for (name, value) in &node.properties {
            tree.property(NAMES[usize::from(*name)], value);
        }
        for (number, child) in node.children.iter().enumerate() {
            write(tree, &alloc::format!("node@{number}"), child);
        }
        tree.end_node();
    }

    fn write_with_vm_fdt(tree: &mut vm_fdt::FdtWriter, name: &str, node: &Node) {
        let open = tree.begin_node(name).unwrap();
        for (name, value) in &node.properties {
            tree.property(NAMES[usize::from(*name)], value).unwrap();
        }
        for (number, child) in node.children.iter().enumerate() {
            write_with_vm_fdt(tree, &alloc::format!("node@{number}"), child);
        }
        tree.end_node(open).unwrap();
    }

    proptest! {
        #[test]
        fn trees_are_those_that_another_writer_writes(root in nodes()) {
            let mut tree = FdtWriter::new();
            write(&mut tree, "", &root);
            let mut other = vm_fdt::FdtWriter::new().unwrap();
            write_with_vm_fdt(&mut other, "", &root);
            prop_assert_eq!(tree.finish().unwrap(), other.finish().unwrap());
        }
    }

    #[test]
    fn values_are_written_as_another_writer_writes_them() {
        let mut tree = FdtWriter::new();
        tree.begin_node("");
        tree.property_u32("u32", 0x1234_5678);
        tree.property_u64("u64", 0x1_2345_6789);
        tree.property_string("text", "abc");
        tree.property_strings("texts", &["abc", "", "d"]);
        tree.end_node();
        let mut other = vm_fdt::FdtWriter::new().unwrap();
        let root = other.begin_node("").unwrap();
        other.property_u32("u32", 0x1234_5678).unwrap();
        other.property_u64("u64", 0x1_2345_6789).unwrap();
        other.property_string("text", "abc").unwrap();
        let texts = ["abc", "", "d"].map(String::from).to_vec();
        other.property_string_list("texts", texts).unwrap();
        other.end_node(root).unwrap();
        assert_eq!(tree.finish().unwrap(), other.finish().unwrap());
    }

    #[test]
    fn an_empty_name_is_a_name() {
        let mut tree = FdtWriter::new();
        tree.begin_node("");
        tree.property_u32("a", 1);
        tree.property_u32("", 2);
        tree.end_node();
        let tree = tree.finish().unwrap();
        let tokens = crate::RawTree::new(&tree).unwrap().tokens();
        let names: Vec<_> = tokens
            .filter_map(|token| match token.unwrap().1 {
                crate::Token::Property { name, .. } => Some(name),
                _ => None,
            })
            .collect();
        assert_eq!(names, [&b"a"[..], b""]);
    }

    #[test]
    fn the_first_mistake_is_the_error() {
        let finish = |steps: &[&dyn Fn(&mut FdtWriter)]| {
            let mut tree = FdtWriter::new();
            for step in steps {
                step(&mut tree);
            }
            tree.finish().unwrap_err()
        };
        let begin = |tree: &mut FdtWriter| tree.begin_node("n");
        let end = |tree: &mut FdtWriter| tree.end_node();
        let property = |tree: &mut FdtWriter| tree.property_u32("p", 1);
        let name = |tree: &mut FdtWriter| tree.property_u32("p\0", 1);
        let text = |tree: &mut FdtWriter| tree.property_string("p", "\0");
        assert_eq!(finish(&[]), FdtError::Order);
        assert_eq!(finish(&[&begin]), FdtError::Order);
        assert_eq!(finish(&[&end]), FdtError::Order);
        assert_eq!(finish(&[&property, &begin, &end]), FdtError::Order);
        assert_eq!(finish(&[&begin, &end, &begin, &end]), FdtError::Order);
        let late: [&dyn Fn(&mut FdtWriter); 5] = [&begin, &begin, &end, &property, &end];
        assert_eq!(finish(&late), FdtError::Order);
        assert_eq!(finish(&[&begin, &name, &property, &end]), FdtError::Nul);
        assert_eq!(finish(&[&begin, &text, &end]), FdtError::Nul);
        let mut deep = FdtWriter::new();
        (0..=MAX_DEPTH).for_each(|_| deep.begin_node("n"));
        (0..=MAX_DEPTH).for_each(|_| deep.end_node());
        let error = deep.finish().unwrap_err();
        assert!(matches!(error, FdtError::TooDeep { .. }), "{error}");
        assert!(error.to_string().contains("64"), "{error}");
    }
}
