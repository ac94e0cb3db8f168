use proptest::prelude::*;
use warmbus_fabric::plan::plan;

use crate::boot;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn every_well_formed_machine_comes_out_sound(plan in plan()) {
        let fabric = plan.build();
        let functions = fabric.nodes().count();
        let mut machine = boot(fabric);
        prop_assert_eq!(machine.topology.functions.len(), functions);
        machine.assert_sound();
        prop_assert!(machine.complaints().is_empty(), "{:?}", machine.complaints());
    }
}
