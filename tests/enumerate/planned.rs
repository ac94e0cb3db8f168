use proptest::prelude::*;
use warmbus_pcie_sim::proptest_config;
use warmbus_pcie_sim::random_topology::plan;

use crate::boot;

proptest! {
    #![proptest_config(proptest_config::properties(100))]

    #[test]
    fn every_well_formed_machine_comes_out_sound(plan in plan()) {
        let fabric = plan.build();
        let functions = fabric.nodes().count();
        let mut machine = boot(fabric);
        prop_assert_eq!(machine.topology.functions().len(), functions);
        machine.assert_sound();
        // There are 16 windows of 4 KiB in 64 KiB of I/O: more bridges than
        // that cannot all have one, and each BAR is reported.
        let complaints = machine.complaints();
        prop_assert!(complaints.iter().all(|c| c.contains("(io, ")), "{:?}", complaints);
        prop_assert_eq!(complaints.len(), machine.outcome.disabled);
    }
}
