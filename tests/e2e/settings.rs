//! README's table of settings, held to what the functions ask for.

use std::collections::BTreeMap;

use runtime::Env;

/// Each variable with its row, as the functions themselves describe it.
fn rows() -> BTreeMap<&'static str, String> {
    let nothing: [(&str, &str); 0] = [];
    let asked = |read: fn(&Env)| {
        let env = Env::from_pairs(nothing);
        read(&env);
        env.variables()
    };
    // Without the required ones each fails, having asked for everything all the same.
    let all = [
        // A setting that another function cannot do without is said to be required.
        asked(|env| drop(process::Config::from_env(env))),
        asked(|env| drop(quota::Config::from_env(env))),
        asked(|env| drop(query::Config::from_env(env))),
        asked(|env| drop(ingest::Config::from_env(env))),
    ];
    all.into_iter()
        .flatten()
        .map(|variable| (variable.name, variable.to_string()))
        .collect()
}

#[test]
fn the_readme_lists_every_setting_as_it_is() {
    let readme = std::fs::read_to_string("../README.md").unwrap();
    let rows = rows();
    let missing: Vec<_> = rows
        .values()
        .filter(|row| !readme.contains(row.as_str()))
        .cloned()
        .collect();
    assert!(
        missing.is_empty(),
        "README.md lacks:\n{}",
        missing.join("\n")
    );
    let listed = readme.lines().filter(|line| {
        line.starts_with("| `OPENMETER_")
            || line.starts_with("| `PORT`")
            || line.starts_with("| `RUST_LOG`")
    });
    assert_eq!(
        listed.count(),
        rows.len(),
        "README.md lists settings that nobody asks for"
    );
}
