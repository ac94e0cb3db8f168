//! Puts the descriptions of the boards into the library.

use std::env;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::exit;

fn main() {
    println!("cargo::rerun-if-changed=../../boards");
    let out = env::var_os("OUT_DIR").expect("cargo names a directory");
    let boards = match warmbus_board::all(Path::new("../../boards")) {
        Ok(boards) => boards,
        Err(error) => {
            println!("cargo::error={error}");
            exit(1);
        }
    };
    let mut table = format!(
        "/// All boards with a description.\npub static BOARDS: [Board; {}] = [\n",
        boards.len()
    );
    for (id, board) in boards {
        let additions = board.additions.map(|tree| {
            let name = format!("{id}.dtb");
            fs::write(Path::new(&out).join(&name), tree)
                .expect("the build directory can be written to");
            name
        });
        let additions = additions.map_or("None".into(), |file| {
            format!("Some(include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{file}\")))")
        });
        writeln!(
            table,
            "    Board {{ id: {id:?}, name: {:?}, compatible: &{:?}, options: {:?}, additions: {additions} }},",
            board.name, board.compatible, board.options
        )
        .expect("a string takes what is written");
    }
    table.push_str("];\n");
    fs::write(Path::new(&out).join("boards.rs"), table)
        .expect("the build directory can be written to");
}
