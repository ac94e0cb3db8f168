//! The report as programs and people see it.

mod sample;

#[test]
fn show() {
    let report = sample::report();
    let mut text = String::new();
    warmbus::report::tree::write(&report, &mut text).unwrap();
    text += "\n";
    warmbus::report::summary::write(&report, &mut text).unwrap();
    text += "\n";
    warmbus::report::json::write(&report, &mut text).unwrap();
    println!("{text}");
}
