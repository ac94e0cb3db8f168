//! What a device tree says of the machine as a whole.

use warmbus_fdt::{FdtError, FdtNode};

/// What a walk over a device tree finds.
#[derive(Default)]
pub(super) struct Basics<'a> {
    /// The name of the model.
    pub(super) model: Option<&'a str>,
    /// Ticks a second of the system counter.
    pub(super) timer_frequency: Option<u32>,
    /// How many processors may be used.
    pub(super) cpus: usize,
    /// The command line in `/chosen`.
    pub(super) bootargs: Option<&'a [u8]>,
}

impl<'a> Basics<'a> {
    /// Reads any node.
    pub(super) fn visit(&mut self, node: &FdtNode<'_, 'a>) -> Result<(), FdtError> {
        let Some(parent) = node.parent() else {
            self.model = node.text("model")?;
            return Ok(());
        };
        if parent.parent().is_none() && node.is_compatible("arm,armv8-timer")? {
            self.timer_frequency = node.cell("clock-frequency")?.filter(|&hertz| hertz != 0);
        }
        if is_root_child(node, "chosen")? {
            if self.bootargs.is_none() {
                self.bootargs = node.property("bootargs")?;
            }
        } else if is_root_child(parent, "cpus")? && is_cpu(node)? {
            self.cpus += 1;
        }
        Ok(())
    }
}

/// Whether `node` is directly below the root and has this name.
pub(super) fn is_root_child(node: &FdtNode<'_, '_>, name: &str) -> Result<bool, FdtError> {
    let is_below = node
        .parent()
        .is_some_and(|parent| parent.parent().is_none());
    Ok(is_below && node.name()? == name)
}

/// Whether a node below `/cpus` is a processor that may be used. As in Linux the
/// name counts as well: some trees have no `device_type`.
fn is_cpu(node: &FdtNode<'_, '_>) -> Result<bool, FdtError> {
    let is_cpu =
        node.text("device_type")? == Some("cpu") || node.name()?.split('@').next() == Some("cpu");
    Ok(is_cpu && node.is_okay()?)
}
