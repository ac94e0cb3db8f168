//! The page for a survey, schema `warmbus-survey/1`.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use warmbus_boot::report::names;

use super::model::{Facts, Function, Host, Listing, Page, fact};

const SCHEMA: &str = "warmbus-survey/1";

/// The page for `survey`, the content of the file `name`.
pub(super) fn page(name: &str, survey: &Value) -> Result<Page> {
    ensure!(
        survey["schema"] == SCHEMA,
        "the schema is {} instead of {SCHEMA:?}",
        survey["schema"]
    );
    let functions = survey["functions"].as_array();
    let functions = functions.context("the survey has no list of functions")?;
    let functions: Vec<Function> = functions.iter().map(function).collect::<Result<_>>()?;
    let of_host = survey["host_bridges"].as_array();
    let rows = of_host.into_iter().flatten().map(|host| {
        let what = if host["handed_over"] == true {
            "yes"
        } else {
            "no"
        };
        vec![text(&host["name"]), what.into(), text(&host["reason"])]
    });
    Ok(Page {
        title: format!("Warmbus survey: {name}"),
        facts: facts(survey, functions.len()),
        hosts: vec![Host {
            name: "all functions".into(),
            facts: Vec::new(),
        }],
        functions,
        tables: vec![
            forecast(survey),
            table(
                "Host bridges",
                &["name", "handed over", "why not"],
                rows.collect(),
            ),
        ],
        ..Page::default()
    })
}

/// A text or a number, as text.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn facts(survey: &Value, functions: usize) -> Facts {
    let mut facts = vec![
        fact("verdict", text(&survey["verdict"])),
        fact("functions", functions),
    ];
    for (name, key) in [
        ("possible VFs", "possible_vfs"),
        ("counts of Linux", "counts_of_linux"),
        ("host bridges not known", "host_bridges_unknown"),
    ] {
        facts.push(fact(name, text(&survey[key])));
    }
    facts.push(fact("a read", time(&survey["time"])));
    if let (Some(some), Some(all)) = (
        survey["cacheable_bytes"].as_u64(),
        survey["config_bytes"].as_u64(),
    ) {
        facts.push(fact("cacheable", format!("{some} of {all} bytes")));
    }
    facts
}

fn time(time: &Value) -> String {
    let Some(median) = time["median_nanoseconds"].as_u64() else {
        return String::new();
    };
    format!(
        "{median} ns (median), {} ns (99 %)",
        text(&time["p99_nanoseconds"])
    )
}

fn function(found: &Value) -> Result<Function> {
    let sbdf = found["sbdf"].as_str();
    let sbdf = sbdf.context("a function of the survey has no address")?;
    let id = |key: &str| format!("{:04x}", found[key].as_u64().unwrap_or(0xffff));
    let class_code = found["class_code"].as_u64().unwrap_or(0) as u32;
    let mut facts = vec![
        fact("class code", format!("{class_code:06x}")),
        fact("a read", time(&found["time"])),
    ];
    for (name, key) in [
        ("configuration space", "config_bytes"),
        ("cacheable bytes", "cacheable_bytes"),
        ("TotalVFs", "total_vfs"),
        ("not read", "not_read"),
    ] {
        facts.push(fact(name, text(&found[key])));
    }
    let median = found["time"]["median_nanoseconds"].as_u64();
    Ok(Function {
        sbdf: sbdf.to_owned(),
        parent: found["parent"].as_str().map(str::to_owned),
        vendor: id("vendor_id"),
        device: id("device_id"),
        name: names::class(class_code).to_string(),
        kind: found["kind"].as_str().map(|kind| kind.replace('-', " ")),
        note: median.map_or(String::new(), |median| format!("{median} ns")),
        facts,
        ..Function::default()
    })
}

fn table(title: &str, heads: &[&str], rows: Vec<Vec<String>>) -> Listing {
    Listing {
        title: title.to_owned(),
        heads: heads.iter().map(ToString::to_string).collect(),
        rows,
    }
}

fn forecast(survey: &Value) -> Listing {
    let all = &survey["forecast_microseconds"];
    let rows = [
        ("a boot of a stock Linux", "boot"),
        ("saved of it", "boot_saved"),
        ("saved of a kexec", "kexec_saved"),
        (
            "saved of a start of a virtual machine",
            "virtual_machine_saved",
        ),
        ("saved of the creation of VFs", "vfs_saved"),
    ];
    let rows = rows.into_iter().filter(|(_, key)| all[key].is_object());
    let rows = rows.map(|(name, key)| {
        let of = |part: &str| text(&all[key][part]);
        vec![name.to_owned(), of("low"), of("middle"), of("high")]
    });
    table(
        "Forecast, in microseconds",
        &["what", "low", "middle", "high"],
        rows.collect(),
    )
}
