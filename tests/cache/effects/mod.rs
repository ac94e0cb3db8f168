//! What a write makes stale beyond its own bytes: one scenario an effect.
//!
//! Each scenario lets the write really change the registers of a simulated
//! machine, and reads them through the cache afterwards. What must stay cached
//! is named as well.

mod below;
mod own;

use warmbus_pcsc::WriteEffect;

/// Makes one test of each variant, and does not compile while a variant has
/// none.
macro_rules! one_test_an_effect {
    ($($variant:ident => $scenario:path as $test:ident),* $(,)?) => {
        /// The scenario of an effect.
        fn scenario(effect: WriteEffect) -> fn() {
            match effect {
                $(WriteEffect::$variant => $scenario,)*
            }
        }

        $(
            #[test]
            fn $test() {
                scenario(WriteEffect::$variant)();
            }
        )*
    };
}

one_test_an_effect! {
    None => own::plain_register as a_plain_register_changes_its_own_bytes,
    Bist => own::self_test as a_self_test_resets_the_function,
    BusNumbers => below::bus_numbers as bus_numbers_move_what_is_below,
    BridgeControl => below::secondary_bus_reset as a_secondary_bus_reset_reaches_both_ends_of_the_link,
    PowerState => below::power_state as a_power_state_can_reset_and_disconnect,
    MessageControl => own::message_control as message_control_changes_the_message_number,
    AdvancedFeatures => own::advanced_features as advanced_features_reset_the_function,
    DeviceControl => own::device_control as a_function_level_reset_takes_all_vfs_away,
    LinkControl => below::link_control as link_control_changes_latencies_presets_and_presence,
    SlotControl => below::slot_control as slot_control_takes_its_time,
    DeviceControl2 => below::device_control_2 as ari_forwarding_decides_what_can_be_reached,
    SrIovControl => own::sr_iov_control as sr_iov_control_decides_where_vfs_are,
    NumVfs => own::num_vfs as num_vfs_decides_where_vfs_are,
    VfPageSize => own::vf_page_size as the_page_size_resizes_vf_bars,
    ResizableBar => own::resizable_bar as a_resized_bar_loses_address_bits,
    DpcControl => below::containment as containment_takes_the_link_down,
    Rerouting => below::rerouting as a_flattening_portal_moves_what_is_below,
    Locking => own::locking as a_lock_makes_registers_read_only,
    CxlControl2 => own::cxl_control_2 as a_cxl_reset_resets_all_functions_of_the_device,
}
