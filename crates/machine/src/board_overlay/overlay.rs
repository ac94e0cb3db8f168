//! Adding the nodes and properties of one device tree to another.
//!
//! Only nodes and properties that are missing are added: those that a tree has
//! stay as they are, byte for byte.

use alloc::vec::Vec;
use core::ops::Range;

use warmbus_fdt::{FdtError, RawTree, Token, is_chosen, write};
use warmbus_memory::bytes::be_u32;

/// Why an overlay cannot be added to a tree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OverlayError {
    /// One of the trees cannot be read, or the new one not be written.
    #[error(transparent)]
    Tree(#[from] FdtError),
    /// A node has a phandle that is reserved for nodes which are added.
    #[error("the phandle {phandle:#x} is reserved for nodes that are added to the device tree")]
    Phandle {
        /// The phandle.
        phandle: u32,
    },
}

/// Returns `tree` with the nodes and properties of `additions` that it does
/// not have. Both are flattened device trees.
///
/// Cells of `additions` from the first label on name its own nodes. Where
/// `tree` has such a node with a phandle of its own, that one is meant.
pub fn apply_overlay(tree: &[u8], additions: &[u8]) -> Result<Vec<u8>, OverlayError> {
    let (tree, additions) = (RawTree::new(tree)?, RawTree::new(additions)?);
    let mut merge = Merge {
        tree,
        additions,
        phandles: Vec::new(),
    };
    let mut size = 0;
    merge.phandles = merge.run(&mut |bytes| size += bytes.len())?;
    let strings = tree.strings.len() + additions.strings.len();
    let mut out = write::start(&tree, size + write::FINISH.len(), strings)?;
    // The first run has made sure that there is room for all of it.
    merge.run(&mut |bytes| out.extend_from_slice(bytes))?;
    out.extend_from_slice(&write::FINISH);
    out.extend_from_slice(tree.strings);
    out.extend_from_slice(additions.strings);
    Ok(out)
}

struct Merge<'a> {
    tree: RawTree<'a>,
    additions: RawTree<'a>,
    /// A label's phandle, and that of the same node in the tree.
    phandles: Vec<(u32, u32)>,
}

/// A node that both trees have, and what of it the tree has.
struct Frame<'a> {
    /// Where it begins in the additions.
    at: usize,
    properties: Vec<&'a [u8]>,
    /// Where the children that both have begin in the additions.
    children: Vec<usize>,
    /// The missing properties were written.
    completed: bool,
}

impl Frame<'_> {
    fn new(at: usize) -> Self {
        Self {
            at,
            properties: Vec::new(),
            children: Vec::new(),
            completed: false,
        }
    }
}

impl<'a> Merge<'a> {
    /// Writes the nodes of both to `out`. Returns the phandles that the tree
    /// has for nodes with a label.
    fn run(&self, out: &mut dyn FnMut(&[u8])) -> Result<Vec<(u32, u32)>, OverlayError> {
        let mut frames: Vec<Option<Frame<'a>>> = Vec::new();
        let mut phandles = Vec::new();
        for token in self.tree.tokens() {
            let (place, token) = token?;
            match token {
                Token::Begin { name } => {
                    let frame = match frames.last_mut() {
                        None => Some(Frame::new(0)),
                        Some(None) => None,
                        Some(Some(parent)) => {
                            self.properties(parent, out)?;
                            let at = self.child(parent.at, name)?;
                            parent.children.extend(at);
                            at.map(Frame::new)
                        }
                    };
                    frames.push(frame);
                    out(&self.tree.structure[place]);
                }
                Token::Property { name, value } => {
                    let is_phandle = name == b"phandle" || name == b"linux,phandle";
                    let phandle = be_u32(value, 0).filter(|_| is_phandle);
                    if let Some(Some(frame)) = frames.last_mut() {
                        frame.properties.push(name);
                    }
                    if let Some(theirs) = phandle {
                        let frame = frames.last_mut().and_then(Option::as_mut);
                        let ours = frame
                            .as_ref()
                            .map_or(Ok(None), |frame| self.label(frame.at))?;
                        if ours != Some(theirs) && self.labels()?.contains(&theirs) {
                            return Err(OverlayError::Phandle { phandle: theirs });
                        }
                        if let (Some(frame), Some(ours)) = (frame, ours) {
                            phandles.push((ours, theirs));
                            // Whatever it is called here, the node has one.
                            frame.properties.push(b"phandle");
                        }
                    }
                    out(&self.tree.structure[place]);
                }
                Token::End => {
                    if let Some(Some(mut frame)) = frames.pop() {
                        self.properties(&mut frame, out)?;
                        self.children(&frame, out)?;
                    }
                    out(&self.tree.structure[place]);
                }
            }
        }
        Ok(phandles)
    }

    /// The child called `name` of the node that begins at `at` in the
    /// additions.
    fn child(&self, at: usize, name: &[u8]) -> Result<Option<usize>, OverlayError> {
        let mut depth = 0;
        for token in self.additions.tokens_of(at) {
            match token? {
                (place, Token::Begin { name: theirs }) => {
                    depth += 1;
                    let same = theirs == name || (theirs == b"chosen" && is_chosen(name));
                    if depth == 2 && same {
                        return Ok(Some(place.start));
                    }
                }
                (_, Token::End) => depth -= 1,
                (_, Token::Property { .. }) => {}
            }
        }
        Ok(None)
    }

    /// The phandles of all nodes of the additions that have one.
    fn labels(&self) -> Result<Vec<u32>, OverlayError> {
        let mut labels = Vec::new();
        for token in self.additions.tokens() {
            if let (
                _,
                Token::Property {
                    name: b"phandle",
                    value,
                },
            ) = token?
            {
                labels.extend(be_u32(value, 0));
            }
        }
        Ok(labels)
    }

    /// The phandle of a node of the additions.
    fn label(&self, at: usize) -> Result<Option<u32>, OverlayError> {
        for token in self.additions.tokens_of(at).skip(1) {
            match token?.1 {
                Token::Property {
                    name: b"phandle",
                    value,
                } => return Ok(be_u32(value, 0)),
                Token::Property { .. } => {}
                Token::Begin { .. } | Token::End => break,
            }
        }
        Ok(None)
    }

    /// Writes the properties that the tree lacks in the node of `frame`, once.
    fn properties(
        &self,
        frame: &mut Frame<'a>,
        out: &mut dyn FnMut(&[u8]),
    ) -> Result<(), OverlayError> {
        if frame.completed {
            return Ok(());
        }
        frame.completed = true;
        for token in self.additions.tokens_of(frame.at).skip(1) {
            let (place, Token::Property { name, value }) = token? else {
                break;
            };
            if !frame.properties.contains(&name) {
                self.property(&place, value, out)?;
            }
        }
        Ok(())
    }

    /// Writes the children that the tree lacks in the node of `frame`.
    fn children(&self, frame: &Frame<'a>, out: &mut dyn FnMut(&[u8])) -> Result<(), OverlayError> {
        let mut depth = 0;
        let mut missing = false;
        for token in self.additions.tokens_of(frame.at) {
            let (place, token) = token?;
            if matches!(token, Token::Begin { .. }) {
                depth += 1;
                if depth == 2 {
                    missing = !frame.children.contains(&place.start);
                }
            }
            match token {
                Token::Property { value, .. } if depth > 1 && missing => {
                    self.property(&place, value, out)?;
                }
                Token::Begin { .. } | Token::End if depth > 1 && missing => {
                    out(&self.additions.structure[place]);
                }
                _ => {}
            }
            if token == Token::End {
                depth -= 1;
            }
        }
        Ok(())
    }

    /// Writes the property at `place` of the additions, whose names follow
    /// those of the tree.
    fn property(
        &self,
        place: &Range<usize>,
        value: &[u8],
        out: &mut dyn FnMut(&[u8]),
    ) -> Result<(), OverlayError> {
        let token = &self.additions.structure[place.clone()];
        let name = be_u32(token, 8).ok_or(FdtError::Unfinished {
            offset: place.start,
        })?;
        let before = u32::try_from(self.tree.strings.len()).map_err(|_| FdtError::TooLarge)?;
        let name = name.checked_add(before).ok_or(FdtError::TooLarge)?;
        out(&token[..8]);
        out(&name.to_be_bytes());
        // Text has no bytes that a label starts with.
        let (cells, rest) = token[12..].split_at(value.len() / 4 * 4);
        for cell in cells.chunks_exact(4) {
            let known = self
                .phandles
                .iter()
                .find(|(ours, _)| ours.to_be_bytes() == cell);
            match known {
                Some((_, theirs)) => out(&theirs.to_be_bytes()),
                None => out(cell),
            }
        }
        out(rest);
        Ok(())
    }
}
